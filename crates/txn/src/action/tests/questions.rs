//! Heartbeats and questions about a fate.

use super::*;
use crate::lock::Locked;

fn beat(start_ts: u64, advise_ttl_ms: u64, min_commit_ts: u64) -> Command {
    Command::HeartBeat {
        primary: key("k"),
        start_ts: Ts(start_ts),
        advise_ttl_ms,
        min_commit_ts: Ts(min_commit_ts),
    }
}

#[test]
fn heartbeats_prolong_and_never_shorten() {
    for pessimistic in [false, true] {
        let mut store = Store::new();
        store.in_memory_pessimistic = true;
        match pessimistic {
            true => drop(store.must_lock(&["k"], 5, 5)),
            false => store.must_prewrite(5, vec![put("k", "1")]),
        }
        for (advise, min_commit_ts, (ttl_ms, holds)) in [(500, 0, (1000, 0)), (3000, 9, (3000, 9)), (2000, 8, (3000, 9))] {
            let output = store.run(beat(5, advise, min_commit_ts)).unwrap();
            assert_eq!(output, Output::HeartBeat { ttl_ms });
            let lock = store.must_be_locked("k", 5);
            assert_eq!((lock.ttl_ms, lock.min_commit_ts), (ttl_ms, Ts(holds)));
        }
        let other = store.run(beat(6, 500, 0));
        assert!(matches!(other, Err(Error::TxnNotFound { start_ts: Ts(6), .. })), "{other:?}");
        assert_eq!(store.memory.len(), usize::from(pessimistic));
    }
    let gone = Store::new().run(beat(5, 500, 0));
    assert!(matches!(gone, Err(Error::TxnNotFound { .. })), "{gone:?}");
}

fn is_locked(status: TxnStatus) -> (Lock, bool) {
    match status {
        TxnStatus::Locked {
            locked: Locked { lock, .. },
            pushed,
        } => (lock, pushed),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lock_within_its_ttl_is_told() {
    let mut store = Store::new();
    store.must_prewrite(5, vec![put("k", "1")]);
    let (lock, pushed) = is_locked(store.status(check_status("k", 5, at_ms(1000))).unwrap());
    assert_eq!((lock.start_ts, pushed), (Ts(5), false));
    store.must_be_locked("k", 5);
}

#[test]
fn a_lock_beyond_its_ttl_is_rolled_back() {
    for current_ts in [at_ms(1001), Ts::MAX] {
        let mut store = Store::new();
        store.must_prewrite(5, vec![put("k", long(1))]);
        let check = check_status("k", 5, current_ts);
        assert_eq!(store.status(check.clone()).unwrap(), TxnStatus::TtlExpired);
        assert_eq!((store.lock_of("k"), store.values("k")), (None, 0));
        assert_eq!(store.status(check).unwrap(), TxnStatus::RolledBack);
        assert!(store.run(commit(&["k"], 5, 6)).is_err());
        assert_eq!(store.released.len(), 1);
    }
}

#[test]
fn a_committed_transaction_is_told() {
    let mut store = Store::new();
    store.must_put("k", "1", 5, 8);
    store.must_put("k", "2", 9, 10);
    let committed = TxnStatus::Committed { commit_ts: Ts(8) };
    assert_eq!(store.status(check_status("k", 5, Ts::MAX)).unwrap(), committed);
}

#[test]
fn where_nothing_is_known() {
    let mut store = Store::new();
    store.must_prewrite(4, vec![put("k", "1")]);
    let check = check_status("k", 5, Ts(9));
    let unknown = store.status(check.clone());
    assert!(
        matches!(unknown, Err(Error::TxnNotFound { start_ts: Ts(5), .. })),
        "{unknown:?}"
    );
    let deciding = CheckTxnStatus {
        rollback_if_not_exist: true,
        ..check
    };
    let resolving = CheckTxnStatus {
        resolving_pessimistic_lock: true,
        ..deciding.clone()
    };
    assert_eq!(store.status(resolving).unwrap(), TxnStatus::NotExistIgnored);
    assert!(store.records("k").is_empty());
    assert_eq!(store.status(deciding.clone()).unwrap(), TxnStatus::NotExistRolledBack);
    assert_eq!(store.records("k"), [(Ts(5), Write::rollback(Ts(5), true))]);
    assert_eq!(store.status(deciding).unwrap(), TxnStatus::RolledBack);
    store.must_be_locked("k", 4);
    store.must_commit(&["k"], 4, 8);
    let prewrite = store.prewrite(prewrite(5, vec![put("k", "2")]));
    assert!(prewrite.is_err(), "{prewrite:?}");
}

#[test]
fn readers_push_locks_that_can_be_pushed() {
    let mut store = Store::new();
    let request = Prewrite {
        min_commit_ts: Ts(6),
        ..prewrite(5, vec![put("k", "1")])
    };
    store.prewrite(request).unwrap();
    let caller = |ts: u64, current_ts| CheckTxnStatus {
        caller_start_ts: Ts(ts),
        ..check_status("k", 5, current_ts)
    };
    assert_eq!(met(store.get("k", 20)), 5);
    let (lock, pushed) = is_locked(store.status(caller(20, Ts(0))).unwrap());
    assert_eq!((lock.min_commit_ts, pushed), (Ts(21), true));
    assert_eq!(store.must_get("k", 20), None, "it need not wait");
    let (lock, pushed) = is_locked(store.status(caller(30, Ts(40))).unwrap());
    assert_eq!((lock.min_commit_ts, pushed), (Ts(40), true), "as far as is known to be right");
    let (lock, pushed) = is_locked(store.status(caller(35, Ts(50))).unwrap());
    assert_eq!((lock.min_commit_ts, pushed), (Ts(40), true), "far enough");
    let (lock, pushed) = is_locked(store.status(caller(0, Ts(50))).unwrap());
    assert_eq!((lock.min_commit_ts, pushed), (Ts(40), false), "nobody reads");
    let (lock, pushed) = is_locked(store.status(caller(u64::MAX, Ts(50))).unwrap());
    assert_eq!(
        (lock.min_commit_ts, pushed),
        (Ts(40), true),
        "the latest is what is committed"
    );
    let expired = store.run(commit(&["k"], 5, 39));
    assert!(
        matches!(
            expired,
            Err(Error::CommitTsExpired {
                min_commit_ts: Ts(40),
                ..
            })
        ),
        "{expired:?}"
    );
    store.must_commit(&["k"], 5, 40);
    // A client that knows no min_commit_ts is not pushed.
    store.must_prewrite(50, vec![put("k", "2")]);
    let check = CheckTxnStatus {
        caller_start_ts: Ts(60),
        ..check_status("k", 50, Ts(60))
    };
    let (lock, pushed) = is_locked(store.status(check).unwrap());
    assert_eq!((lock.min_commit_ts, pushed), (Ts(0), false));
}

#[test]
fn an_async_commit_is_not_decided_by_its_primary() {
    let mut store = Store::new();
    let request = Prewrite {
        secondaries: Some(vec!["s".into()]),
        ..prewrite(5, vec![put("k", "1"), put("s", "1")])
    };
    store.prewrite(request).unwrap();
    let check = CheckTxnStatus {
        caller_start_ts: Ts(20),
        ..check_status("k", 5, Ts::MAX)
    };
    let (lock, pushed) = is_locked(store.status(check.clone()).unwrap());
    assert!(lock.use_async_commit && !pushed && lock.min_commit_ts == Ts(6), "{lock:?}");
    assert_eq!(lock.secondaries, ["s"]);
    let young = CheckTxnStatus {
        force_sync_commit: true,
        current_ts: at_ms(1),
        ..check.clone()
    };
    let (lock, pushed) = is_locked(store.status(young).unwrap());
    assert_eq!((lock.min_commit_ts, pushed), (Ts(6), false), "a promise is not moved");
    let forced = CheckTxnStatus {
        force_sync_commit: true,
        ..check
    };
    assert_eq!(store.status(forced).unwrap(), TxnStatus::TtlExpired);
}

#[test]
fn another_primary_is_told() {
    let mut store = Store::new();
    store.must_prewrite(5, vec![put("p", "1"), put("k", "1")]);
    let check = CheckTxnStatus {
        verify_is_primary: true,
        ..check_status("k", 5, Ts::MAX)
    };
    match store.status(check.clone()) {
        Err(Error::PrimaryMismatch(locked)) => assert_eq!((&*locked.lock.primary, locked.key), (&b"p"[..], key("k"))),
        other => panic!("{other:?}"),
    }
    store.must_be_locked("k", 5);
    let primary = CheckTxnStatus {
        primary: key("p"),
        ..check
    };
    assert_eq!(store.status(primary).unwrap(), TxnStatus::TtlExpired);
}

#[test]
fn a_pessimistic_primary() {
    for in_memory_pessimistic in [false, true] {
        for resolving in [false, true] {
            let mut store = Store::new();
            store.in_memory_pessimistic = in_memory_pessimistic;
            store.must_lock(&["k"], 5, 5);
            let check = |current_ts| CheckTxnStatus {
                resolving_pessimistic_lock: resolving,
                ..check_status("k", 5, current_ts)
            };
            is_locked(store.status(check(at_ms(1000))).unwrap());
            let status = store.status(check(at_ms(1001))).unwrap();
            assert_eq!(store.lock_of("k"), None);
            if resolving {
                assert_eq!((status, store.records("k").len()), (TxnStatus::PessimisticReleased, 0));
            } else {
                assert_eq!(status, TxnStatus::TtlExpired);
                assert_eq!(store.records("k"), [(Ts(5), Write::rollback(Ts(5), true))]);
            }
        }
    }
}

#[test]
fn secondaries_of_an_async_commit() {
    let prewritten = |users: &[&str]| {
        let mut store = Store::new();
        let request = Prewrite {
            secondaries: Some(vec![]),
            primary: "p".into(),
            ..prewrite(5, users.iter().map(|user| put(user, "1")).collect())
        };
        store.prewrite(request).unwrap();
        store
    };
    let mut store = prewritten(&["a", "b"]);
    match store.secondaries(&["a", "b"], 5) {
        SecondaryStatus::Locked(locks) => {
            let locks: Vec<_> = locks.iter().map(|locked| (&locked.key, locked.lock.min_commit_ts)).collect();
            assert_eq!(locks, [(&key("a"), Ts(6)), (&key("b"), Ts(6))]);
        }
        other => panic!("{other:?}"),
    }
    store.must_commit(&["b"], 5, 6);
    let committed = SecondaryStatus::Committed { commit_ts: Ts(6) };
    assert_eq!(store.secondaries(&["a", "b"], 5), committed);
    // One was not prewritten, and never will be.
    let mut store = prewritten(&["a"]);
    assert_eq!(store.secondaries(&["a", "b"], 5), SecondaryStatus::RolledBack);
    assert_eq!(store.records("b"), [(Ts(5), Write::rollback(Ts(5), true))]);
    store.must_be_locked("a", 5);
    assert_eq!(store.secondaries(&["b"], 5), SecondaryStatus::RolledBack);
    let late = Prewrite {
        secondaries: Some(vec![]),
        for_update_ts: Ts(9),
        ..prewrite(5, vec![put("b", "1")])
    };
    assert_eq!(
        conflict(store.prewrite(late)),
        ConflictReason::SelfRolledBack,
        "not even where it skips checks"
    );
    // Only locked for now: rolled back, lock and all.
    store.must_lock(&["c"], 5, 5);
    assert_eq!(store.secondaries(&["c"], 5), SecondaryStatus::RolledBack);
    assert_eq!((store.lock_of("c"), store.records("c").len()), (None, 1));
}

/// Pushed by a reader, then released as it outlived its time: the reader stays below, though nothing tells of it but `max_ts`.
#[test]
fn a_push_outlives_the_lock_that_was_pushed() {
    let mut store = Store::new();
    store.must_lock(&["p"], 5, 5);
    let check = |caller: u64, current_ts| CheckTxnStatus {
        caller_start_ts: Ts(caller),
        resolving_pessimistic_lock: true,
        ..check_status("p", 5, current_ts)
    };
    store.status(check(700, at_ms(0))).unwrap();
    assert_eq!(store.status(check(0, Ts::MAX)).unwrap(), TxnStatus::PessimisticReleased);
    let request = Prewrite {
        secondaries: Some(vec!["s".into()]),
        for_update_ts: Ts(5),
        ..prewrite(5, vec![locked(put("p", "1"))])
    };
    let answer = store.prewrite(request).unwrap();
    assert_eq!(answer.min_commit_ts, Ts(701));
}

#[test]
fn a_lock_of_before_the_primary_changed_is_no_answer_for_a_prewritten_one() {
    for in_memory in [false, true] {
        let mut store = Store::new();
        store.in_memory_pessimistic = in_memory;
        let request = PessimisticLock {
            primary: "other".into(),
            ..pessimistic_lock(&["k"], 5, 5)
        };
        store.lock(request).unwrap();
        let check = CheckTxnStatus {
            verify_is_primary: true,
            rollback_if_not_exist: true,
            ..check_status("k", 5, Ts(0))
        };
        let of_pessimistic = CheckTxnStatus {
            resolving_pessimistic_lock: true,
            ..check.clone()
        };
        let mismatch = store.status(of_pessimistic);
        assert!(matches!(mismatch, Err(Error::PrimaryMismatch(_))), "{mismatch:?}");
        assert_eq!(store.status(check).unwrap(), TxnStatus::NotExistRolledBack);
        assert_eq!(store.lock_of("k"), None);
        assert!(
            store.prewrite(prewrite(5, vec![put("k", "1")])).is_err(),
            "its fate is sealed"
        );
    }
}
