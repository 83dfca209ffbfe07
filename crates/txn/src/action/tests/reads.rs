//! Gets, scans, and what lies behind a key.

use super::*;
use crate::mvcc::{Isolation, Scan, Scanner};
use crate::write::WriteKind;

fn rc(ts: u64) -> ReadOptions {
    ReadOptions {
        isolation: Isolation::ReadCommitted,
        ..ReadOptions::snapshot(Ts(ts))
    }
}

fn rc_check(ts: u64) -> ReadOptions {
    ReadOptions {
        isolation: Isolation::ReadCommittedCheckTs,
        ..ReadOptions::snapshot(Ts(ts))
    }
}

#[test]
fn versions_of_a_key() {
    let mut store = Store::new();
    assert_eq!(store.must_get("k", 9), None);
    store.must_put("k", "1", 10, 20);
    store.must_put("k", long(2), 30, 40);
    store.must_put("k", "", 41, 42);
    store.must_prewrite(50, vec![mutation("k", Op::Lock)]);
    store.must_commit(&["k"], 50, 60);
    store.must_rollback(&["k"], 65);
    store.must_prewrite(70, vec![mutation("k", Op::Delete)]);
    store.must_commit(&["k"], 70, 80);
    store.must_put("k\0", "other", 1, 2);
    let cases = [
        (19, None),
        (20, Some("1".into())),
        (39, Some("1".into())),
        (40, Some(long(2))),
        (42, Some("".into())),
        (60, Some("".into())),
        (79, Some("".into())),
        (80, None),
        (u64::MAX, None),
    ];
    for (ts, value) in cases {
        assert_eq!(store.must_get("k", ts), value, "at {ts}");
        assert_eq!(store.get_with("k", &rc(ts)).unwrap(), value, "at {ts}");
    }
    let found = mvcc::get(&*store.snapshot(), &key("k"), &ReadOptions::snapshot(Ts(50))).unwrap();
    assert_eq!(found.unwrap().commit_ts, Ts(42));
    let history = store.history("k");
    assert_eq!(
        history.writes.iter().map(|(ts, _)| ts.0).collect::<Vec<_>>(),
        [80, 65, 60, 42, 40, 20]
    );
    assert_eq!(history.values, [(Ts(30), long(2))]);
}

#[test]
fn which_locks_hide_what_from_whom() {
    let lock = |kind, start_ts: u64, min_commit_ts: u64| Lock {
        min_commit_ts: Ts(min_commit_ts),
        ..Lock::new(kind, "p".into(), Ts(start_ts), 0)
    };
    use crate::lock::LockKind::{self, Delete, Pessimistic, Put};
    let at = |ts: u64| ReadOptions::snapshot(Ts(ts));
    let bypass = ReadOptions {
        bypass_locks: vec![Ts(5)],
        ..at(9)
    };
    let asynchronous = |lock| Lock {
        use_async_commit: true,
        ..lock
    };
    let max = u64::MAX;
    let cases = [
        (at(9), "k", lock(Put, 5, 0), true),
        (at(9), "k", lock(Delete, 5, 0), true),
        (at(5), "k", lock(Put, 5, 0), true),
        (at(4), "k", lock(Put, 5, 0), false),
        (at(9), "k", lock(LockKind::Lock, 5, 0), false),
        (at(9), "k", lock(Pessimistic, 5, 0), false),
        (at(9), "k", lock(Put, 5, 9), true),
        (at(9), "k", lock(Put, 5, 10), false),
        (bypass.clone(), "k", lock(Put, 5, 0), false),
        (bypass, "k", lock(Put, 6, 0), true),
        (at(max), "k", lock(Put, 5, 0), true),
        (at(max), "p", lock(Put, 5, 0), false),
        (at(max), "p", asynchronous(lock(Put, 5, 6)), true),
        (at(max), "k", lock(Pessimistic, 5, 0), false),
        (rc(9), "k", lock(Put, 5, 0), false),
        (rc_check(9), "k", lock(Put, 5, 0), true),
        (rc_check(9), "k", lock(Put, 12, 0), true),
        (rc_check(9), "k", lock(Pessimistic, 5, 0), false),
    ];
    for (options, user, lock, hides) in cases {
        let outcome = options.check_lock(&key(user), &lock);
        assert_eq!(outcome.is_err(), hides, "{options:?} {user} {lock:?}");
    }
}

#[test]
fn a_committed_transactions_lock_is_read_through() {
    let mut store = Store::new();
    store.must_put("a", "0", 1, 2);
    store.must_prewrite(5, vec![put("a", "1"), put("b", long(1)), mutation("c", Op::Delete)]);
    let access = ReadOptions {
        access_locks: vec![Ts(5)],
        ..ReadOptions::snapshot(Ts(9))
    };
    assert_eq!(met(store.get("a", 9)), 5);
    let read = ["a", "b", "c"].map(|user| store.get_with(user, &access).unwrap());
    assert_eq!(read, [Some("1".into()), Some(long(1)), None]);
    let scanned = scan(&store, "", "", false, &access);
    assert_eq!(scanned, [("a".into(), Ok("1".into())), ("b".into(), Ok(long(1)))]);
}

#[test]
fn read_committed_with_check_finds_newer_versions() {
    let mut store = Store::new();
    store.must_put("k", "1", 10, 20);
    assert_eq!(store.get_with("k", &rc_check(25)).unwrap(), Some("1".into()));
    store.must_rollback(&["k"], 28);
    assert_eq!(store.get_with("k", &rc_check(25)).unwrap(), Some("1".into()), "no version");
    store.must_put("k", "2", 29, 30);
    assert_eq!(conflict(store.get_with("k", &rc_check(25))), ConflictReason::RcCheckTs);
    for reverse in [false, true] {
        let snapshot = store.snapshot();
        let walk = Scan {
            reverse,
            key_only: false,
        };
        let mut scanner = Scanner::new(&*snapshot, b"", b"", walk, rc_check(25)).unwrap();
        assert_eq!(conflict(scanner.next()), ConflictReason::RcCheckTs);
    }
}

type Pairs = Vec<(Bytes, std::result::Result<Bytes, u64>)>;

/// User keys with values, or with the transaction whose lock hides them.
fn scan(store: &Store, start: &str, end: &str, reverse: bool, options: &ReadOptions) -> Pairs {
    walk(
        store,
        start,
        end,
        Scan {
            reverse,
            key_only: false,
        },
        options,
    )
}

fn walk(store: &Store, start: &str, end: &str, walk: Scan, options: &ReadOptions) -> Pairs {
    let bound = |user: &str| match user {
        "" => Bytes::new(),
        user => key(user).encoded().clone(),
    };
    let snapshot = store.snapshot();
    let mut scanner = Scanner::new(&*snapshot, &bound(start), &bound(end), walk, options.clone()).unwrap();
    let mut pairs = Vec::new();
    while let Some((key, found)) = scanner.next().unwrap() {
        let found = match found {
            Ok(found) => Ok(found.value),
            Err(Error::Locked(locked)) => Err(locked.lock.start_ts.0),
            Err(other) => panic!("{other}"),
        };
        pairs.push((key.user().unwrap(), found));
    }
    pairs
}

#[test]
fn scans_skip_what_is_gone_and_tell_what_is_locked() {
    let mut store = Store::new();
    assert_eq!(scan(&store, "", "", false, &ReadOptions::snapshot(Ts(9))), []);
    for (user, value) in [("a", "1".into()), ("b", long(2)), ("d", "4".into()), ("e", "5".into())] {
        store.must_put(user, value, 10, 20);
    }
    store.must_prewrite(30, vec![mutation("d", Op::Delete), put("late", "6")]);
    store.must_commit(&["d", "late"], 30, 40);
    store.must_rollback(&["r"], 41);
    store.must_prewrite(50, vec![put("c", "locked"), put("e", "locked"), mutation("a", Op::Lock)]);
    let pair = |user: &'static str, value: Bytes| (Bytes::from(user), Ok(value));
    let hidden = |user: &'static str| (Bytes::from(user), Err(50));
    let cases = [
        (15, "", "", vec![]),
        (
            25,
            "",
            "",
            vec![
                pair("a", "1".into()),
                pair("b", long(2)),
                pair("d", "4".into()),
                pair("e", "5".into()),
            ],
        ),
        (25, "b", "e", vec![pair("b", long(2)), pair("d", "4".into())]),
        (25, "f", "", vec![]),
        (
            45,
            "",
            "",
            vec![
                pair("a", "1".into()),
                pair("b", long(2)),
                pair("e", "5".into()),
                pair("late", "6".into()),
            ],
        ),
        (
            60,
            "",
            "",
            vec![
                pair("a", "1".into()),
                pair("b", long(2)),
                hidden("c"),
                hidden("e"),
                pair("late", "6".into()),
            ],
        ),
        (60, "c", "late", vec![hidden("c"), hidden("e")]),
    ];
    for (ts, start, end, mut pairs) in cases {
        let options = ReadOptions::snapshot(Ts(ts));
        assert_eq!(scan(&store, start, end, false, &options), pairs, "[{start}, {end}) at {ts}");
        let keys = Scan {
            reverse: false,
            key_only: true,
        };
        let without: Pairs = pairs
            .iter()
            .map(|(user, found)| (user.clone(), found.clone().map(|_| Bytes::new())))
            .collect();
        assert_eq!(walk(&store, start, end, keys, &options), without);
        pairs.reverse();
        assert_eq!(
            scan(&store, start, end, true, &options),
            pairs,
            "[{start}, {end}) at {ts} backwards"
        );
    }
    assert_eq!(scan(&store, "", "", false, &rc(60)).len(), 4, "locks do not count");
}

#[test]
fn scans_jump_over_many_versions() {
    let mut store = Store::new();
    for user in ["a", "b", "c"] {
        for n in 0..60 {
            store.must_put(user, format!("{n}"), 10 * n + 1, 10 * n + 2);
        }
    }
    for n in [0, 1, 15, 16, 17, 30, 43, 44, 59] {
        let options = ReadOptions::snapshot(Ts(10 * n + 5));
        let value = |user: &'static str| (Bytes::from(user), Ok(Bytes::from(format!("{n}"))));
        let mut pairs = ["a", "b", "c"].map(value).to_vec();
        assert_eq!(scan(&store, "", "", false, &options), pairs);
        pairs.reverse();
        assert_eq!(scan(&store, "", "", true, &options), pairs);
    }
}

#[test]
fn locks_of_a_range() {
    let mut store = Store::new();
    store.in_memory_pessimistic = true;
    store.must_lock(&["b", "e"], 7, 7);
    store.must_prewrite(5, vec![put("a", "1"), put("c", "1")]);
    store.must_prewrite(9, vec![put("d", "1")]);
    let cases = [
        ("", "", 20, 0, "abcde"),
        ("", "", 20, 3, "abc"),
        ("", "", 8, 0, "abce"),
        ("", "", 4, 0, ""),
        ("b", "e", 20, 0, "bcd"),
        ("bb", "", 20, 1, "c"),
    ];
    for (start, end, max_ts, limit, wanted) in cases {
        let bound = |user: &str| match user {
            "" => Bytes::new(),
            user => key(user).encoded().clone(),
        };
        let snapshot = store.snapshot();
        let found = mvcc::scan_locks(&*snapshot, &store.memory, &bound(start), &bound(end), limit, |locked| {
            locked.lock.start_ts <= Ts(max_ts)
        })
        .unwrap();
        let found: Vec<_> = found.iter().map(|locked| locked.key.user().unwrap()).collect();
        assert_eq!(found.concat(), wanted.as_bytes(), "[{start}, {end}) up to {max_ts}, {limit}");
    }
}

#[test]
fn a_transaction_is_found_by_its_start() {
    let mut store = Store::new();
    store.must_put("a", "1", 5, 6);
    store.must_prewrite(7, vec![put("b", "1")]);
    store.must_rollback(&["c"], 8);
    store.must_rollback(&["a"], 6);
    assert_eq!(store.records("a")[0].1.kind, WriteKind::Put);
    for (start_ts, wanted) in [(5, Some("a")), (6, Some("a")), (7, Some("b")), (8, Some("c")), (9, None)] {
        let found = mvcc::find_transaction(&*store.snapshot(), &store.memory, Ts(start_ts), || false).unwrap();
        assert_eq!(found, wanted.map(key), "{start_ts}");
    }
}

#[test]
fn damage_is_an_error() {
    use engine::Cf;
    use engine::kv::Modify;
    let mut store = Store::new();
    store.must_put("k", long(1), 5, 6);
    let change = |cf, key: Bytes| Modify::Put {
        cf,
        key,
        value: "?".into(),
    };
    let missing = Modify::Delete {
        cf: Cf::Default,
        key: key("k").at(Ts(5)),
    };
    let bad_lock = change(Cf::Lock, key("l").encoded().clone());
    let bad_record = change(Cf::Write, key("m").at(Ts(6)));
    let changes = vec![missing, bad_lock, bad_record];
    let done = Box::new(|result: std::result::Result<(), engine::kv::Error>| result.unwrap());
    store.kv.write(&Store::context(), changes, MonoTime(0), done);
    for user in ["k", "l", "m"] {
        let outcome = store.get(user, 9);
        assert!(matches!(outcome, Err(Error::Damaged { .. })), "{user}: {outcome:?}");
    }
}
