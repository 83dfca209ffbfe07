//! Prewrite.

use super::*;
use crate::lock::LockKind;
use crate::write::WriteKind;

#[test]
fn nothing_to_prewrite() {
    let mut store = Store::new();
    assert_eq!(store.prewrite(prewrite(5, vec![])).unwrap(), Prewritten::default());
    let one_phase = Prewrite {
        one_phase: true,
        ..prewrite(5, vec![mutation("k", Op::CheckNotExists)])
    };
    assert_eq!(store.prewrite(one_phase).unwrap().one_phase_commit_ts, Ts(6), "never zero");
}

#[test]
fn a_prewrite_locks_and_lays_the_value_down() {
    let mut store = Store::new();
    let mutations = vec![
        put("a", "1"),
        put("b", long(2)),
        mutation("c", Op::Delete),
        mutation("d", Op::Lock),
        mutation("e", Op::CheckNotExists),
    ];
    store.must_prewrite(5, mutations);
    let kinds = ["a", "b", "c", "d"].map(|user| store.must_be_locked(user, 5).kind);
    assert_eq!(kinds, [LockKind::Put, LockKind::Put, LockKind::Delete, LockKind::Lock]);
    let lock = store.must_be_locked("b", 5);
    assert_eq!((&*lock.primary, lock.ttl_ms, lock.txn_size), (&b"a"[..], 1000, 1));
    assert_eq!(store.must_be_locked("a", 5).short_value, Some("1".into()));
    assert_eq!((lock.short_value, store.values("b")), (None, 1));
    assert_eq!(store.lock_of("e"), None, "a check locks nothing");
    assert_eq!(store.must_get("a", 4), None);
}

#[test]
fn a_prewrite_meets_others_locks_and_then_writes_nothing() {
    let mut store = Store::new();
    store.must_prewrite(5, vec![put("b", "1"), put("d", "1")]);
    let mutations = ["a", "b", "c", "d"].map(|user| put(user, "2")).to_vec();
    let met = store.prewrite(prewrite(8, mutations)).unwrap().locked;
    let met: Vec<_> = met
        .iter()
        .map(|locked| (locked.key.clone(), locked.lock.start_ts.0))
        .collect();
    assert_eq!(met, [(key("b"), 5), (key("d"), 5)], "all of them");
    assert_eq!(store.lock_of("a"), None);
    store.must_be_locked("b", 5);
}

#[test]
fn a_prewrite_conflicts_with_newer_records_of_any_kind() {
    for (op, name) in [(Op::Put("v".into()), "put"), (Op::Delete, "delete"), (Op::Lock, "lock")] {
        let mut store = Store::new();
        store.must_prewrite(10, vec![mutation("k", op)]);
        store.must_commit(&["k"], 10, 20);
        for (start_ts, conflicts) in [(5, true), (15, true), (25, false)] {
            let outcome = store.prewrite(prewrite(start_ts, vec![put("k", "w")]));
            assert_eq!(outcome.is_err(), conflicts, "{name} against {start_ts}");
            if conflicts {
                assert_eq!(conflict(outcome), ConflictReason::Optimistic);
            }
        }
    }
    let mut store = Store::new();
    store.must_rollback(&["k"], 20);
    assert_eq!(
        conflict(store.prewrite(prewrite(10, vec![put("k", "w")]))),
        ConflictReason::Optimistic
    );
    assert_eq!(
        conflict(store.prewrite(prewrite(20, vec![put("k", "w")]))),
        ConflictReason::SelfRolledBack
    );
}

#[test]
fn a_conflict_tells_all() {
    let mut store = Store::new();
    store.must_put("k", "1", 10, 20);
    match store.prewrite(prewrite(15, vec![put("p", "2"), put("k", "2")])) {
        Err(Error::WriteConflict {
            start_ts,
            conflict_start_ts,
            conflict_commit_ts,
            key: at,
            primary,
            reason,
        }) => {
            assert_eq!((start_ts, conflict_start_ts, conflict_commit_ts), (Ts(15), Ts(10), Ts(20)));
            assert_eq!((at, &*primary, reason), (key("k"), &b"p"[..], ConflictReason::Optimistic));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(store.lock_of("p"), None, "nothing is written");
}

#[test]
fn a_prewrite_may_come_again() {
    let mut store = Store::new();
    store.must_prewrite(5, vec![put("k", "1")]);
    store.must_prewrite(5, vec![put("k", "1"), put("l", "1")]);
    store.must_be_locked("l", 5);
    store.must_commit(&["k", "l"], 5, 6);
    // Committed already: an ordinary transaction is told so as if it were done.
    assert_eq!(
        store.prewrite(prewrite(5, vec![put("k", "1")])).unwrap(),
        Prewritten::default()
    );
    assert_eq!(store.lock_of("k"), None);
}

#[test]
fn one_who_knows_skips_the_check() {
    let mut store = Store::new();
    store.must_put("k", "1", 10, 20);
    let request = Prewrite {
        skip_constraint_check: true,
        ..prewrite(15, vec![put("k", "2")])
    };
    assert!(store.prewrite(request).is_ok());
}

#[test]
fn inserts_and_checks_fail_where_the_key_exists() {
    let mut store = Store::new();
    store.must_put("there", "1", 10, 20);
    store.must_put("gone", "1", 10, 20);
    store.must_prewrite(30, vec![mutation("gone", Op::Delete), mutation("there", Op::Lock)]);
    store.must_commit(&["gone", "there"], 30, 40);
    store.must_rollback(&["there"], 45);
    for op in [Op::Insert("2".into()), Op::CheckNotExists] {
        match store.prewrite(prewrite(50, vec![mutation("there", op.clone())])) {
            Err(Error::AlreadyExists { key: at }) => assert_eq!(at, key("there")),
            other => panic!("{op:?}: {other:?}"),
        }
        store.must_prewrite(50, vec![mutation("gone", op.clone())]);
    }
    store.must_be_locked("gone", 50);
    assert!(store.concurrency.max_ts() >= Ts(50), "a check is a read");
}

#[test]
fn assertions() {
    let mut store = Store::new();
    store.must_put("there", "1", 10, 20);
    store.must_rollback(&["there"], 25);
    let cases = [
        ("there", Assertion::Exists, AssertionLevel::Strict, true),
        ("there", Assertion::NotExists, AssertionLevel::Strict, false),
        ("there", Assertion::NotExists, AssertionLevel::Fast, false),
        ("there", Assertion::NotExists, AssertionLevel::Off, true),
        ("none", Assertion::Exists, AssertionLevel::Strict, false),
        ("none", Assertion::Exists, AssertionLevel::Fast, false),
        ("none", Assertion::NotExists, AssertionLevel::Strict, true),
        ("none", Assertion::None, AssertionLevel::Strict, true),
    ];
    for (start_ts, (user, assertion, assertion_level, holds)) in (30..).zip(cases) {
        let asserted = Mutation {
            assertion,
            ..put(user, "2")
        };
        let request = Prewrite {
            assertion_level,
            ..prewrite(start_ts, vec![asserted])
        };
        match store.prewrite(request) {
            Ok(_) => assert!(holds, "{user} {assertion:?} {assertion_level:?}"),
            Err(Error::AssertionFailed {
                existing_start_ts,
                existing_commit_ts,
                ..
            }) => {
                assert!(!holds, "{user} {assertion:?} {assertion_level:?}");
                let existing = if user == "there" { (Ts(10), Ts(20)) } else { (Ts(0), Ts(0)) };
                assert_eq!((existing_start_ts, existing_commit_ts), existing);
            }
            Err(other) => panic!("{other}"),
        }
        store.must_rollback(&[user], start_ts);
    }
    // Skipped where nothing is read anyway.
    store.must_lock(&["there"], 50, 50);
    for (assertion_level, holds) in [(AssertionLevel::Strict, false), (AssertionLevel::Fast, true)] {
        let asserted = Mutation {
            assertion: Assertion::NotExists,
            ..locked(put("there", "2"))
        };
        let request = Prewrite {
            assertion_level,
            for_update_ts: Ts(50),
            ..prewrite(50, vec![asserted])
        };
        assert_eq!(store.prewrite(request).is_ok(), holds, "{assertion_level:?}");
    }
}

fn async_commit(start_ts: u64, mutations: Vec<Mutation>) -> Prewrite {
    let secondaries = mutations.iter().skip(1).map(|other| other.key.user().unwrap());
    Prewrite {
        secondaries: Some(secondaries.collect()),
        ..prewrite(start_ts, mutations)
    }
}

#[test]
fn async_commit_promises_a_timestamp_above_every_read() {
    let mut store = Store::new();
    store.concurrency.raise_max_ts_by_tso(Ts(50));
    let request = async_commit(10, vec![put("p", "1"), put("s", long(1))]);
    let answer = store.prewrite(request.clone()).unwrap();
    assert_eq!((answer.min_commit_ts, answer.one_phase_commit_ts), (Ts(51), Ts(0)));
    let (primary, secondary) = (store.must_be_locked("p", 10), store.must_be_locked("s", 10));
    assert!(primary.use_async_commit && secondary.use_async_commit);
    assert_eq!((primary.min_commit_ts, secondary.min_commit_ts), (Ts(51), Ts(51)));
    assert_eq!((primary.secondaries, secondary.secondaries), (vec![Bytes::from("s")], vec![]));
    // Asked again after later reads: the promise stays.
    store.concurrency.raise_max_ts_by_tso(Ts(70));
    assert_eq!(store.prewrite(request.clone()).unwrap().min_commit_ts, Ts(51));
    // A reader below passes, one above waits.
    assert_eq!(store.must_get("p", 50), None);
    assert_eq!(met(store.get("p", 51)), 10);
    assert_eq!(met(store.get("p", u64::MAX)), 10, "it may be committed already");
    store.must_commit(&["p", "s"], 10, 51);
    assert_eq!(store.must_get("s", 51), Some(long(1)));
    // And again after it was committed.
    assert_eq!(store.prewrite(request).unwrap().min_commit_ts, Ts(51));
    assert_eq!(store.lock_of("p"), None);
}

#[test]
fn floors_and_bounds_of_async_commit() {
    let mut store = Store::new();
    let floor = Prewrite {
        min_commit_ts: Ts(40),
        ..async_commit(10, vec![put("a", "1")])
    };
    assert_eq!(store.prewrite(floor).unwrap().min_commit_ts, Ts(40));
    store.concurrency.raise_max_ts_by_tso(Ts(60));
    for one_phase in [false, true] {
        let bounded = Prewrite {
            max_commit_ts: Ts(60),
            one_phase,
            ..async_commit(20, vec![put("b", "1")])
        };
        assert_eq!(
            store.prewrite(bounded).unwrap(),
            Prewritten::default(),
            "an ordinary one then"
        );
        let lock = store.must_be_locked("b", 20);
        assert!(!lock.use_async_commit && lock.secondaries.is_empty(), "{lock:?}");
        // A key that was prewritten as an ordinary one makes the transaction an ordinary one.
        let again = Prewrite {
            one_phase,
            ..async_commit(20, vec![put("b", "1"), put("c", "1")])
        };
        assert_eq!(store.prewrite(again).unwrap(), Prewritten::default());
        assert!(!store.must_be_locked("c", 20).use_async_commit);
        store.must_rollback(&["b", "c"], 20);
        store = Store::new();
        store.concurrency.raise_max_ts_by_tso(Ts(60));
    }
    let wide = Prewrite {
        max_commit_ts: Ts(61),
        ..async_commit(20, vec![put("b", "1")])
    };
    assert_eq!(store.prewrite(wide).unwrap().min_commit_ts, Ts(61));
}

#[test]
fn one_phase_commits_at_once() {
    let mut store = Store::new();
    store.concurrency.raise_max_ts_by_tso(Ts(50));
    let request = Prewrite {
        one_phase: true,
        ..prewrite(10, vec![put("a", "1"), put("b", long(2)), mutation("c", Op::Lock)])
    };
    let answer = store.prewrite(request.clone()).unwrap();
    assert_eq!((answer.min_commit_ts, answer.one_phase_commit_ts), (Ts(0), Ts(51)));
    assert_eq!(store.lock_of("a"), None);
    assert_eq!((store.must_get("a", 50), store.must_get("a", 51)), (None, Some("1".into())));
    assert_eq!(store.must_get("b", 51), Some(long(2)));
    assert_eq!(store.records("c"), [(Ts(51), Write::new(WriteKind::Lock, Ts(10), None))]);
    // Asked again, as the answer was lost.
    store.concurrency.raise_max_ts_by_tso(Ts(70));
    assert_eq!(store.prewrite(request).unwrap().one_phase_commit_ts, Ts(51));
    assert_eq!(store.records("a").len(), 1);
}

#[test]
fn a_computed_commit_keeps_the_rollback_it_would_overwrite() {
    // By the lock: rolled back while it stands.
    let mut store = Store::new();
    store.prewrite(async_commit(10, vec![put("k", "1")])).unwrap();
    store.must_rollback(&["k"], 11);
    store.must_commit(&["k"], 10, 11);
    let marked = Write {
        overlapped_rollback: true,
        ..Write::new(WriteKind::Put, Ts(10), Some("1".into()))
    };
    assert_eq!(store.records("k"), [(Ts(11), marked.clone())]);
    assert_eq!(
        conflict(store.prewrite(prewrite(11, vec![put("k", "2")]))),
        ConflictReason::SelfRolledBack
    );
    assert_eq!(store.must_get("k", 11), Some("1".into()));
    // In one phase: a pessimistic one does not mind a newer rollback.
    let mut store = Store::new();
    store.must_lock(&["k"], 10, 10);
    store.must_rollback(&["k"], 11);
    let request = Prewrite {
        one_phase: true,
        for_update_ts: Ts(10),
        ..prewrite(10, vec![locked(put("k", "1"))])
    };
    assert_eq!(store.prewrite(request).unwrap().one_phase_commit_ts, Ts(11));
    assert_eq!(store.records("k"), [(Ts(11), marked)]);
    // The other way round: a rollback comes where a commit stands.
    store.must_rollback(&["k"], 11);
    let mut store = Store::new();
    store.prewrite(async_commit(10, vec![put("k", "1")])).unwrap();
    store.must_commit(&["k"], 10, 11);
    store.must_rollback(&["k"], 11);
    assert!(store.records("k")[0].1.overlapped_rollback);
    let check = check_status("k", 11, Ts(12));
    assert_eq!(store.status(check).unwrap(), TxnStatus::RolledBack);
}

#[test]
fn prewrites_of_pessimistic_transactions() {
    let pessimistic = |start_ts, for_update_ts, check, op| Prewrite {
        for_update_ts: Ts(for_update_ts),
        ..prewrite(
            start_ts,
            vec![Mutation {
                check,
                ..mutation("k", op)
            }],
        )
    };
    let value = || Op::Put("2".into());
    // (record committed at, request, what comes of it)
    let mut store = Store::new();
    store.must_put("k", "1", 20, 30);
    let unlocked = |store: &mut Store, request| conflict(store.prewrite(request));
    assert_eq!(
        unlocked(&mut store, pessimistic(10, 40, PessimisticCheck::Constraint, value())),
        ConflictReason::LazyUniquenessCheck
    );
    let retry = Prewrite {
        is_retry: true,
        ..pessimistic(10, 25, PessimisticCheck::Skip, value())
    };
    assert_eq!(unlocked(&mut store, retry), ConflictReason::NotLockedKeyConflict);
    let asynchronous = Prewrite {
        secondaries: Some(vec![]),
        ..pessimistic(10, 25, PessimisticCheck::Skip, value())
    };
    assert_eq!(unlocked(&mut store, asynchronous), ConflictReason::NotLockedKeyConflict);
    assert!(store.prewrite(pessimistic(10, 25, PessimisticCheck::Skip, value())).is_ok());
    store.must_rollback(&["k"], 10);
    let retry = Prewrite {
        is_retry: true,
        ..pessimistic(10, 40, PessimisticCheck::Skip, value())
    };
    assert_eq!(
        unlocked(&mut store, retry),
        ConflictReason::SelfRolledBack,
        "below a record it may bear"
    );
    // Its lock is gone, and something was written since.
    let lost = store.prewrite(pessimistic(25, 26, PessimisticCheck::Locked, value()));
    assert!(matches!(lost, Err(Error::PessimisticLockNotFound { .. })), "{lost:?}");
    // Nothing was: it is made good.
    assert!(store.prewrite(pessimistic(35, 36, PessimisticCheck::Locked, value())).is_ok());
    let lost = store.prewrite(pessimistic(45, 46, PessimisticCheck::Locked, value()));
    assert!(
        matches!(lost, Err(Error::PessimisticLockNotFound { .. })),
        "another took it: {lost:?}"
    );
}

#[test]
fn a_prewrite_takes_the_place_of_its_pessimistic_lock() {
    for in_memory_pessimistic in [false, true] {
        let mut store = Store::new();
        store.in_memory_pessimistic = in_memory_pessimistic;
        let request = PessimisticLock {
            ttl_ms: 9000,
            min_commit_ts: Ts(70),
            ..pessimistic_lock(&["k"], 10, 15)
        };
        store.lock(request).unwrap();
        assert_eq!(store.memory.len(), usize::from(in_memory_pessimistic));
        let optimistic = store.prewrite(prewrite(10, vec![put("k", "1")]));
        assert!(matches!(optimistic, Err(Error::LockKindMismatch { .. })), "{optimistic:?}");
        let expecting = |expected| Prewrite {
            for_update_ts: Ts(12),
            ..prewrite(
                10,
                vec![Mutation {
                    expected_for_update_ts: Some(Ts(expected)),
                    ..locked(put("k", "1"))
                }],
            )
        };
        let other = store.prewrite(expecting(14));
        assert!(matches!(other, Err(Error::PessimisticLockNotFound { .. })), "{other:?}");
        store.prewrite(expecting(15)).unwrap();
        assert!(store.memory.is_empty());
        let lock = store.must_be_locked("k", 10);
        assert_eq!((lock.kind, lock.ttl_ms), (LockKind::Put, 9000));
        assert_eq!((lock.for_update_ts, lock.min_commit_ts), (Ts(15), Ts(70)));
    }
}

#[test]
fn one_phase_releases_pessimistic_locks() {
    for in_memory_pessimistic in [false, true] {
        let mut store = Store::new();
        store.in_memory_pessimistic = in_memory_pessimistic;
        store.must_lock(&["k"], 10, 15);
        let request = Prewrite {
            one_phase: true,
            for_update_ts: Ts(15),
            ..prewrite(10, vec![locked(put("k", "1")), put("unlocked", "1")])
        };
        assert_eq!(store.prewrite(request).unwrap().one_phase_commit_ts, Ts(16));
        assert_eq!((store.lock_of("k"), store.must_get("k", 16)), (None, Some("1".into())));
        let released = Released {
            key: key("k"),
            start_ts: Ts(10),
            commit_ts: Some(Ts(16)),
        };
        assert_eq!(store.released, [released], "who waited for it may go on");
    }
}
