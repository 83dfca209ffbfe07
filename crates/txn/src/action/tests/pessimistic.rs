//! Pessimistic locks.

use super::*;

#[test]
fn a_pessimistic_lock_keeps_writers_out_and_readers_not() {
    for in_memory_pessimistic in [false, true] {
        let mut store = Store::new();
        store.in_memory_pessimistic = in_memory_pessimistic;
        store.must_put("k", "1", 5, 6);
        assert_eq!(store.must_lock(&["k"], 10, 12), [LockResult::default()]);
        assert!(store.concurrency.max_ts() >= Ts(12), "it read at this timestamp");
        assert_eq!(store.must_get("k", 20), Some("1".into()));
        assert_eq!(met(store.lock(pessimistic_lock(&["k"], 20, 20))), 10);
        let met = store.prewrite(prewrite(20, vec![put("k", "2")])).unwrap().locked;
        assert_eq!(met[0].lock.start_ts, Ts(10));
        assert_eq!(met[0].lock.for_update_ts, Ts(12));
    }
}

#[test]
fn a_pessimistic_lock_wants_to_have_read_the_newest() {
    let mut store = Store::new();
    store.must_put("k", "1", 10, 20);
    assert_eq!(
        conflict(store.lock(pessimistic_lock(&["k"], 5, 15))),
        ConflictReason::PessimisticRetry
    );
    store.must_lock(&["k"], 5, 20);
    assert_eq!(store.must_be_locked("k", 5).for_update_ts, Ts(20));
}

#[test]
fn a_pessimistic_lock_may_come_again_or_newer() {
    for in_memory_pessimistic in [false, true] {
        let mut store = Store::new();
        store.in_memory_pessimistic = in_memory_pessimistic;
        for (for_update_ts, holds) in [(10, 10), (10, 10), (15, 15), (12, 15)] {
            store.must_lock(&["k"], 10, for_update_ts);
            assert_eq!(store.must_be_locked("k", 10).for_update_ts, Ts(holds));
        }
        assert_eq!(store.memory.len(), usize::from(in_memory_pessimistic));
    }
    let mut store = Store::new();
    store.must_prewrite(10, vec![put("k", "1")]);
    let prewritten = store.lock(pessimistic_lock(&["k"], 10, 10));
    assert!(matches!(prewritten, Err(Error::LockKindMismatch { .. })), "{prewritten:?}");
}

#[test]
fn a_lock_in_the_store_is_renewed_there() {
    let mut store = Store::new();
    store.must_lock(&["k"], 10, 10);
    store.in_memory_pessimistic = true;
    store.must_lock(&["k"], 10, 15);
    assert!(store.memory.is_empty(), "never in both places");
    assert_eq!(store.must_be_locked("k", 10).for_update_ts, Ts(15));
}

#[test]
fn no_pessimistic_lock_after_the_rollback() {
    let mut store = Store::new();
    store.must_rollback(&["k"], 10);
    let late = store.lock(pessimistic_lock(&["k"], 10, 10));
    assert!(matches!(late, Err(Error::PessimisticLockRolledBack { .. })), "{late:?}");
    store.must_put("k", "1", 20, 30);
    let later = store.lock(pessimistic_lock(&["k"], 10, 40));
    assert!(matches!(later, Err(Error::PessimisticLockRolledBack { .. })), "{later:?}");
}

#[test]
fn no_pessimistic_lock_after_the_commit() {
    let mut store = Store::new();
    store.must_lock(&["k"], 10, 10);
    let request = Prewrite {
        one_phase: true,
        for_update_ts: Ts(10),
        ..prewrite(10, vec![locked(put("k", "1"))])
    };
    let commit_ts = store.prewrite(request.clone()).unwrap().one_phase_commit_ts;
    store.must_put("k", "2", 20, 30);
    // Both requests come again, late: neither may bring the old value back.
    let late = PessimisticLock {
        allow_conflict: true,
        ..pessimistic_lock(&["k"], 10, 10)
    };
    let late = store.lock(late);
    assert!(matches!(late, Err(Error::Committed { .. })), "{late:?}");
    assert_eq!(store.prewrite(request).unwrap().one_phase_commit_ts, commit_ts);
    assert_eq!(store.must_get("k", 40), Some("2".into()));
}

#[test]
fn values_and_existence() {
    let mut store = Store::new();
    store.must_put("long", long(1), 5, 6);
    store.must_put("short", "1", 5, 6);
    store.must_put("gone", "1", 5, 6);
    store.must_prewrite(7, vec![mutation("gone", Op::Delete), mutation("short", Op::Lock)]);
    store.must_commit(&["gone", "short"], 7, 8);
    let users = ["long", "short", "gone", "never"];
    let found = [Some(long(1)), Some("1".into()), None, None];
    // Twice: the second time they are locked.
    for _ in 0..2 {
        let request = PessimisticLock {
            return_values: true,
            ..pessimistic_lock(&users, 10, 10)
        };
        for ((result, found), user) in store.lock(request).unwrap().into_iter().zip(&found).zip(users) {
            assert_eq!((&result.value, result.exists), (found, found.is_some()), "{user}");
        }
        let request = PessimisticLock {
            check_existence: true,
            ..pessimistic_lock(&users, 10, 10)
        };
        for ((result, found), user) in store.lock(request).unwrap().into_iter().zip(&found).zip(users) {
            assert_eq!((result.value, result.exists), (None, found.is_some()), "{user}");
        }
    }
}

#[test]
fn only_what_exists_and_only_what_does_not() {
    let mut store = Store::new();
    store.must_put("there", "1", 5, 6);
    let request = PessimisticLock {
        lock_only_if_exists: true,
        return_values: true,
        ..pessimistic_lock(&["there", "none"], 10, 10)
    };
    let exists: Vec<bool> = store.lock(request).unwrap().iter().map(|result| result.exists).collect();
    assert_eq!(exists, [true, false]);
    store.must_be_locked("there", 10);
    assert_eq!(store.lock_of("none"), None);
    for (user, start_ts, free) in [("there", 10, false), ("none", 10, true), ("none", 10, true)] {
        let mut request = pessimistic_lock(&[user], start_ts, start_ts);
        request.keys[0].should_not_exist = true;
        match store.lock(request) {
            Ok(_) => assert!(free, "{user}"),
            Err(Error::AlreadyExists { .. }) => assert!(!free, "{user}"),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_forced_lock_tells_what_it_overtook() {
    for in_memory_pessimistic in [false, true] {
        let mut store = Store::new();
        store.in_memory_pessimistic = in_memory_pessimistic;
        store.must_put("k", "1", 10, 20);
        let request = PessimisticLock {
            allow_conflict: true,
            ..pessimistic_lock(&["k"], 5, 15)
        };
        let told = LockResult {
            value: Some("1".into()),
            exists: true,
            conflict_ts: Ts(20),
        };
        // Again: the same.
        for _ in 0..2 {
            assert_eq!(store.lock(request.clone()).unwrap(), vec![told.clone()]);
            let lock = store.must_be_locked("k", 5);
            assert!(lock.locked_with_conflict && lock.for_update_ts == Ts(20), "{lock:?}");
        }
        // Seen at a newer timestamp it is an ordinary one.
        store.must_lock(&["k"], 5, 25);
        assert!(!store.must_be_locked("k", 5).locked_with_conflict);
        // Nothing newer: as any other.
        let request = PessimisticLock {
            allow_conflict: true,
            ..pessimistic_lock(&["l"], 5, 15)
        };
        assert_eq!(store.lock(request).unwrap(), [LockResult::default()]);
    }
}

#[test]
fn an_async_commit_goes_above_a_forced_lock() {
    let mut store = Store::new();
    store.must_put("k", "1", 10, 20);
    let request = PessimisticLock {
        allow_conflict: true,
        ..pessimistic_lock(&["k"], 5, 15)
    };
    store.lock(request).unwrap();
    let request = Prewrite {
        secondaries: Some(vec![]),
        for_update_ts: Ts(15),
        ..prewrite(5, vec![locked(put("k", "2"))])
    };
    assert_eq!(store.prewrite(request).unwrap().min_commit_ts, Ts(21));
}

fn release(users: &[&str], start_ts: u64, for_update_ts: u64) -> Command {
    Command::PessimisticRollback {
        keys: keys(users),
        start_ts: Ts(start_ts),
        for_update_ts: Ts(for_update_ts),
        scan: None,
    }
}

#[test]
fn only_own_pessimistic_locks_up_to_a_timestamp_are_released() {
    for in_memory_pessimistic in [false, true] {
        let mut store = Store::new();
        store.in_memory_pessimistic = in_memory_pessimistic;
        store.must_lock(&["old", "other"], 10, 10);
        store.must_lock(&["new"], 10, 30);
        store.must_prewrite(10, vec![put("prewritten", "1")]);
        store.run(release(&["other"], 20, 20)).unwrap();
        store.must_be_locked("other", 10);
        store.run(release(&["old", "new", "prewritten", "none"], 10, 20)).unwrap();
        assert_eq!(store.lock_of("old"), None);
        assert!(store.records("old").is_empty(), "the transaction goes on");
        store.must_be_locked("new", 10);
        store.must_be_locked("prewritten", 10);
        assert_eq!(store.released.len(), 1);
        // Wherever they are.
        store.run(release(&[], 10, 40)).unwrap();
        assert!(store.lock_of("other").is_none() && store.lock_of("new").is_none());
        store.must_be_locked("prewritten", 10);
    }
}

#[test]
fn a_region_is_released_in_batches() {
    for in_memory_pessimistic in [false, true] {
        let mut store = Store::new();
        store.in_memory_pessimistic = in_memory_pessimistic;
        let users: Vec<String> = (0..600).map(|n| format!("k{n:03}")).collect();
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        store.must_lock(&users, 10, 10);
        store.must_lock(&["z"], 11, 11);
        store.steps = 0;
        store.run(release(&[], 10, 10)).unwrap();
        assert_eq!(store.steps, 6, "three times one that looks and one that does");
        assert!(users.iter().all(|user| store.lock_of(user).is_none()));
        store.must_be_locked("z", 11);
    }
}

#[test]
fn a_lock_taken_again_names_the_primary_of_now() {
    for in_memory in [false, true] {
        let mut store = Store::new();
        store.in_memory_pessimistic = in_memory;
        store.must_lock(&["k"], 5, 5);
        let again = PessimisticLock {
            primary: "p".into(),
            ..pessimistic_lock(&["k"], 5, 9)
        };
        store.lock(again).unwrap();
        assert_eq!(store.must_be_locked("k", 5).primary, "p");
    }
}

#[test]
fn a_pessimistic_prewrite_does_not_wait_for_a_key_that_it_never_locked() {
    let mut store = Store::new();
    store.must_prewrite(4, vec![put("k", "1")]);
    for (for_update_ts, ttl_ms) in [(0, 1000), (9, 0)] {
        let request = Prewrite {
            for_update_ts: Ts(for_update_ts),
            ..prewrite(5, vec![put("k", "2")])
        };
        let locked = store.prewrite(request).unwrap().locked;
        assert_eq!((locked.len(), locked[0].lock.ttl_ms), (1, ttl_ms));
    }
    assert_eq!(store.must_be_locked("k", 4).ttl_ms, 1000, "only the answer says so");
}
