//! Commit, rollback, cleanup, resolve, delete range.

use super::*;
use crate::write::WriteKind;

#[test]
fn a_commit_replaces_the_lock_by_a_record() {
    let mut store = Store::new();
    assert_eq!(store.run(commit(&[], 5, 6)).unwrap(), Output::Committed { commit_ts: Ts(6) });
    store.must_prewrite(5, vec![put("a", "1"), put("b", long(2)), mutation("c", Op::Delete)]);
    assert_eq!(met(store.get("a", 9)), 5);
    store.must_commit(&["a", "b", "c"], 5, 8);
    assert_eq!(
        (store.must_get("a", 8), store.must_get("b", 8)),
        (Some("1".into()), Some(long(2)))
    );
    assert_eq!((store.must_get("a", 7), store.must_get("c", 8)), (None, None));
    assert_eq!(store.lock_of("a"), None);
    assert_eq!(store.records("c"), [(Ts(8), Write::new(WriteKind::Delete, Ts(5), None))]);
    let commits = store.released.iter().filter(|released| released.commit_ts == Some(Ts(8)));
    assert_eq!(commits.count(), 3);
    // Again, as the answer was lost.
    store.must_commit(&["a", "b", "c"], 5, 8);
    assert_eq!(store.records("a").len(), 1);
}

#[test]
fn a_commit_of_what_one_phase_committed_tells_where() {
    let mut store = Store::new();
    let mutations = vec![put("a", "1"), put("b", "1")];
    let one_phase = Prewrite {
        one_phase: true,
        ..prewrite(5, mutations.clone())
    };
    let commit_ts = store.prewrite(one_phase).unwrap().one_phase_commit_ts;
    assert!(commit_ts.is_some());
    // The answer was lost, the region divided: the client comes again in two phases.
    let again = store.prewrite(prewrite(5, mutations)).unwrap();
    assert_eq!(again, Prewritten::default());
    assert_eq!(
        store.run(commit(&["a", "b"], 5, 90)).unwrap(),
        Output::Committed { commit_ts }
    );
    assert_eq!(store.records("a").len(), 1);
    assert_eq!(store.must_get("b", commit_ts.0), Some("1".into()));
}

#[test]
fn no_transaction_is_committed_at_two_timestamps() {
    let mut store = Store::new();
    store.must_prewrite(5, vec![put("a", "1"), put("b", "1")]);
    store.must_commit(&["a"], 5, 8);
    let elsewhere = store.run(commit(&["b", "a"], 5, 9));
    assert!(
        matches!(elsewhere, Err(Error::Committed { commit_ts: Ts(8), .. })),
        "{elsewhere:?}"
    );
    assert!(store.lock_of("b").is_some());
    store.must_commit(&["b", "a"], 5, 8);
}

#[test]
fn a_commit_needs_its_lock() {
    let mut store = Store::new();
    let missing = |outcome: Result<Output>| match outcome {
        Err(Error::TxnLockNotFound {
            start_ts,
            commit_ts,
            key: at,
        }) => assert_eq!((start_ts, commit_ts, at), (Ts(5), Ts(6), key("k"))),
        other => panic!("{other:?}"),
    };
    missing(store.run(commit(&["k"], 5, 6)));
    store.must_prewrite(4, vec![put("k", "1")]);
    missing(store.run(commit(&["k"], 5, 6)));
    store.must_commit(&["k"], 4, 7);
    missing(store.run(commit(&["k"], 5, 6)));
    store.must_rollback(&["k"], 5);
    missing(store.run(commit(&["k"], 5, 6)));
    store.must_lock(&["k"], 9, 9);
    let pessimistic = store.run(commit(&["k"], 9, 10));
    assert!(matches!(pessimistic, Err(Error::TxnLockNotFound { .. })), "{pessimistic:?}");
    store.must_be_locked("k", 9);
}

#[test]
fn a_commit_keeps_its_distance() {
    let mut store = Store::new();
    store.must_prewrite(5, vec![put("k", "1")]);
    let backward = store.run(commit(&["k"], 5, 5));
    assert!(matches!(backward, Err(Error::Invalid { .. })), "{backward:?}");
    store.must_rollback(&["k"], 5);
    let request = Prewrite {
        min_commit_ts: Ts(20),
        ..prewrite(6, vec![put("k", "1")])
    };
    store.prewrite(request).unwrap();
    match store.run(commit(&["k"], 6, 19)) {
        Err(Error::CommitTsExpired {
            start_ts,
            commit_ts,
            min_commit_ts,
            key: at,
        }) => {
            assert_eq!((start_ts, commit_ts, min_commit_ts), (Ts(6), Ts(19), Ts(20)));
            assert_eq!(at, key("k"));
        }
        other => panic!("{other:?}"),
    }
    store.must_commit(&["k"], 6, 20);
}

#[test]
fn a_rollback_leaves_a_record_that_stops_the_transaction() {
    let mut store = Store::new();
    store.must_rollback(&[], 5);
    store.must_put("k", "0", 2, 3);
    store.must_prewrite(5, vec![put("k", long(1)), put("l", "1")]);
    store.must_rollback(&["k", "k", "l"], 5);
    assert_eq!((store.lock_of("k"), store.values("k")), (None, 0));
    assert_eq!(store.records("k")[0], (Ts(5), Write::rollback(Ts(5), false)));
    assert_eq!(store.must_get("k", 9), Some("0".into()));
    store.must_rollback(&["k"], 5);
    assert_eq!(
        conflict(store.prewrite(prewrite(5, vec![put("k", "1")]))),
        ConflictReason::SelfRolledBack
    );
    let late = store.run(commit(&["k"], 5, 6));
    assert!(matches!(late, Err(Error::TxnLockNotFound { .. })), "{late:?}");
    // Nothing prewritten at all: the prewrite may still be on its way.
    store.must_rollback(&["m"], 7);
    assert_eq!(
        conflict(store.prewrite(prewrite(7, vec![put("m", "1")]))),
        ConflictReason::SelfRolledBack
    );
}

#[test]
fn a_rollback_cannot_undo_a_commit() {
    let mut store = Store::new();
    store.must_put("k", "1", 5, 8);
    match store.run(rollback(&["k"], 5)) {
        Err(Error::Committed {
            start_ts,
            commit_ts,
            key: at,
        }) => assert_eq!((start_ts, commit_ts, at), (Ts(5), Ts(8), key("k"))),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.must_get("k", 8), Some("1".into()));
}

#[test]
fn a_rollback_leaves_others_alone() {
    let mut store = Store::new();
    store.must_prewrite(5, vec![put("k", "1")]);
    store.must_rollback(&["k"], 7);
    store.must_be_locked("k", 5);
    store.must_commit(&["k"], 5, 9);
    assert_eq!(store.must_get("k", 9), Some("1".into()));
    assert!(store.prewrite(prewrite(7, vec![put("k", "2")])).is_err());
}

#[test]
fn rollbacks_of_a_contended_key_do_not_heap_up() {
    let mut store = Store::new();
    for start_ts in 5..50 {
        store.must_rollback(&["k"], start_ts);
    }
    assert_eq!(store.records("k"), [(Ts(49), Write::rollback(Ts(49), false))]);
    for start_ts in 5..50 {
        assert!(store.prewrite(prewrite(start_ts, vec![put("k", "1")])).is_err(), "{start_ts}");
    }
    // Those of pessimistic transactions and async commits stay.
    store.must_lock(&["k"], 60, 60);
    store.must_rollback(&["k"], 60);
    store.must_rollback(&["k"], 70);
    assert_eq!(store.records("k").iter().map(|(ts, _)| ts.0).collect::<Vec<_>>(), [70, 60]);
    let late = store.lock(pessimistic_lock(&["k"], 60, 80));
    assert!(matches!(late, Err(Error::PessimisticLockRolledBack { .. })), "{late:?}");
}

#[test]
fn a_cleanup_waits_for_the_ttl() {
    let mut store = Store::new();
    let cleanup = |current_ts| Command::Cleanup {
        key: key("k"),
        start_ts: Ts(5),
        current_ts,
    };
    store.must_prewrite(5, vec![put("k", "1")]);
    assert_eq!(met(store.run(cleanup(at_ms(1000)))), 5);
    assert_eq!(store.run(cleanup(at_ms(1001))).unwrap(), Output::Done);
    assert_eq!(store.records("k"), [(Ts(5), Write::rollback(Ts(5), true))]);
    let mut store = Store::new();
    store.must_prewrite(5, vec![put("k", "1")]);
    assert_eq!(store.run(cleanup(Ts(0))).unwrap(), Output::Done, "in any case");
    assert_eq!(store.lock_of("k"), None);
}

fn lite(users: &[&str], start_ts: u64, commit_ts: u64) -> Command {
    Command::ResolveLock(ResolveLock::Lite {
        start_ts: Ts(start_ts),
        commit_ts: Ts(commit_ts),
        keys: keys(users),
    })
}

fn resolve(txns: &[(u64, u64)]) -> Command {
    Command::ResolveLock(ResolveLock::Region {
        txns: txns
            .iter()
            .map(|(start_ts, commit_ts)| (Ts(*start_ts), Ts(*commit_ts)))
            .collect(),
        found: vec![],
        scan: None,
    })
}

#[test]
fn resolve_by_keys() {
    let mut store = Store::new();
    store.must_prewrite(5, vec![put("a", "1"), put("b", "1")]);
    assert_eq!(store.run(lite(&[], 5, 8)).unwrap(), Output::Done);
    store.run(lite(&["a"], 5, 8)).unwrap();
    store.run(lite(&["a", "b"], 5, 8)).unwrap();
    assert_eq!(store.must_get("b", 8), Some("1".into()));
    let committed = store.run(lite(&["a"], 5, 0));
    assert!(matches!(committed, Err(Error::Committed { .. })), "{committed:?}");
    store.must_prewrite(15, vec![put("a", "2")]);
    store.run(lite(&["a", "never"], 15, 0)).unwrap();
    assert_eq!(store.must_get("a", 20), Some("1".into()));
    assert!(store.prewrite(prewrite(15, vec![put("never", "2")])).is_err());
    let unknown = store.run(lite(&["a"], 15, 18));
    assert!(matches!(unknown, Err(Error::TxnLockNotFound { .. })), "{unknown:?}");
}

#[test]
fn resolve_of_a_region_goes_in_batches() {
    let mut store = Store::new();
    store.run(resolve(&[(5, 8)])).unwrap();
    let users: Vec<String> = (0..700).map(|n| format!("k{n:03}")).collect();
    let of = |rest: usize| {
        users
            .iter()
            .enumerate()
            .filter(move |(n, _)| n % 3 == rest)
            .map(|(_, user)| user)
    };
    store.must_prewrite(5, of(0).map(|user| put(user, "5")).collect());
    store.must_prewrite(6, of(1).map(|user| put(user, "6")).collect());
    store.must_prewrite(7, of(2).map(|user| put(user, "7")).collect());
    store.steps = 0;
    assert_eq!(store.run(resolve(&[(5, 10), (7, 0)])).unwrap(), Output::Done);
    assert!(store.steps > 2, "one step looks, one does 256 at most: {}", store.steps);
    for (n, user) in users.iter().enumerate() {
        match n % 3 {
            0 => assert_eq!(store.must_get(user, 10), Some("5".into()), "{user}"),
            1 => drop(store.must_be_locked(user, 6)),
            _ => assert_eq!(store.must_get(user, 10), None, "{user}"),
        }
    }
    assert_eq!(store.released.len(), 467);
    store.run(resolve(&[(5, 10), (7, 0)])).unwrap();
}

#[test]
fn resolve_of_a_region_leaves_committed_and_rolled_back_alone_and_releases_pessimistic_locks() {
    let mut store = Store::new();
    store.must_prewrite(5, vec![put("a", "1"), put("b", "1")]);
    store.must_commit(&["a"], 5, 8);
    store.run(resolve(&[(5, 8)])).unwrap();
    assert_eq!((store.records("a").len(), store.must_get("b", 8)), (1, Some("1".into())));
    store.in_memory_pessimistic = true;
    store.must_lock(&["c"], 9, 9);
    store.run(resolve(&[(9, 12)])).unwrap();
    assert!(store.lock_of("c").is_none() && store.records("c").is_empty());
    store.must_lock(&["c"], 14, 14);
    store.run(resolve(&[(14, 0)])).unwrap();
    assert_eq!((store.lock_of("c"), store.records("c").len()), (None, 1));
}

#[test]
fn delete_range_takes_all_versions() {
    let mut store = Store::new();
    for user in ["a", "b", "c"] {
        store.must_put(user, long(1), 5, 6);
        store.must_prewrite(7, vec![put(user, "2")]);
    }
    let range = |notify_only| Command::DeleteRange {
        start: key("a").encoded().clone(),
        end: key("c").encoded().clone(),
        notify_only,
    };
    store.run(range(true)).unwrap();
    assert_eq!(store.records("a").len(), 1);
    store.run(range(false)).unwrap();
    for user in ["a", "b"] {
        assert_eq!(store.history(user), mvcc::History::default());
    }
    store.must_be_locked("c", 7);
    assert_eq!(store.must_get("c", 6), Some(long(1)));
}
