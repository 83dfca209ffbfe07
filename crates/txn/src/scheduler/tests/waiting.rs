use super::*;

#[test]
fn pessimistic_locks_stay_in_memory_until_they_are_prewritten() {
    let mut driver = driver();
    driver.must(pessimistic(lock(10, &["a", "b"])));
    assert_eq!(in_memory(&driver), [key("a"), key("b")]);
    assert_eq!(lock_of(&driver, "a"), None);
    driver.must(prewrite_locked(10, 10, &["a"]));
    assert_eq!(in_memory(&driver), [key("b")]);
    assert_eq!(lock_of(&driver, "a").expect("stored").start_ts, Ts(10));
    driver.must(unlock(10, &["b"]));
    assert!(in_memory(&driver).is_empty());
}

#[test]
fn a_lock_lost_with_its_leadership_is_taken_for_granted_unless_another_wrote() {
    let mut driver = driver();
    driver.must(pessimistic(lock(10, &["a", "b"])));
    driver.term += 1;
    driver.must(Command::Prewrite(prewrite(20, &["b"])));
    driver.must(commit(20, 21, &["b"]));
    driver.must(prewrite_locked(10, 10, &["a"]));
    assert!(in_memory(&driver).is_empty());
    let lost = driver.try_run(prewrite_locked(10, 10, &["b"]));
    assert!(lost.is_err(), "{lost:?}");
}

#[test]
fn a_prewrite_of_unknown_outcome_takes_the_lock_out_of_memory() {
    let mut driver = driver();
    driver.must(pessimistic(lock(10, &["a"])));
    driver.hold_writes = true;
    driver.submit(prewrite_locked(10, 10, &["a"]));
    driver.fail_write(kv::Error::StaleCommand, true);
    assert!(in_memory(&driver).is_empty());
    driver.hold_writes = false;
    driver.must(commit(10, 11, &["a"]));
    assert_eq!(driver.read("a", 20).expect("free"), Some("v10".into()));
}

#[test]
fn locks_are_stored_where_memory_is_not_wanted() {
    let mut driver = Driver::new(Config {
        in_memory_pessimistic: false,
        ..Config::default()
    });
    driver.must(pessimistic(lock(10, &["a"])));
    assert!(lock_of(&driver, "a").is_some() && in_memory(&driver).is_empty());
}

#[test]
fn who_waits_gets_the_lock_when_it_is_let_go() {
    let mut driver = driver();
    driver.must(pessimistic(lock(10, &["a"])));
    let waiting = driver.submit(pessimistic(lock(20, &["a"])));
    driver.advance(500);
    assert!(driver.is_open(waiting));
    assert_eq!(driver.scheduler.waits().len(), 1);
    driver.must(unlock(10, &["a"]));
    assert_eq!(granted(driver.answer(waiting)).conflict_ts, Ts(0));
    assert!(driver.scheduler.is_idle());
    assert_eq!(driver.detector.waits().count(), 0);
}

#[test]
fn a_commit_turns_who_waits_away_unless_it_takes_the_lock_over_a_conflict() {
    let mut driver = driver();
    driver.must(Command::Prewrite(prewrite(10, &["a"])));
    let legacy = driver.submit(pessimistic(lock(20, &["a"])));
    let force = PessimisticLock {
        allow_conflict: true,
        ..lock(30, &["a"])
    };
    let force = driver.submit(pessimistic(force));
    driver.must(commit(10, 100, &["a"]));
    let refused = driver.answer(legacy).expect("woken");
    assert!(
        matches!(
            refused,
            Err(Error::WriteConflict {
                conflict_start_ts: Ts(10),
                conflict_commit_ts: Ts(100),
                ..
            })
        ),
        "{refused:?}"
    );
    driver.advance(9);
    assert!(driver.is_open(force), "the one turned away may come again first");
    driver.advance(1);
    let result = granted(driver.answer(force));
    assert_eq!((result.conflict_ts, result.value), (Ts(100), Some("v10".into())));
    assert!(driver.scheduler.is_idle());
}

#[test]
fn who_was_turned_away_and_comes_again_is_not_overtaken() {
    let mut driver = driver();
    driver.must(Command::Prewrite(prewrite(10, &["a"])));
    let old = driver.submit(pessimistic(lock(20, &["a"])));
    let young = driver.submit(pessimistic(lock(30, &["a"])));
    driver.must(commit(10, 100, &["a"]));
    assert!(matches!(driver.answer(old), Some(Err(Error::WriteConflict { .. }))));
    driver.advance(5);
    let again = PessimisticLock {
        for_update_ts: Ts(110),
        ..lock(20, &["a"])
    };
    driver.must(pessimistic(again));
    driver.advance(500);
    assert!(driver.is_open(young), "it waits for the old one now");
    assert_eq!(driver.scheduler.waits()[0].holder, Ts(20));
    driver.advance(500);
    assert_eq!(holder(driver.answer(young)), Ts(20));
}

#[test]
fn the_oldest_is_next_and_nobody_is_forgotten() {
    let mut driver = driver();
    driver.must(pessimistic(lock(10, &["a"])));
    let waiting = [50, 30, 40, 20].map(|start_ts| (start_ts, driver.submit(pessimistic(lock(start_ts, &["a"])))));
    let mut holder = 10;
    for next in [20, 30, 40, 50] {
        driver.must(unlock(holder, &["a"]));
        for (start_ts, call) in waiting {
            assert_eq!(
                driver.is_open(call),
                start_ts > next,
                "{start_ts} when it is the turn of {next}"
            );
        }
        let holders: Vec<Ts> = driver.scheduler.waits().iter().map(|wait| wait.holder).collect();
        assert!(holders.iter().all(|holder| *holder == Ts(next)), "{holders:?}");
        holder = next;
    }
    driver.must(unlock(50, &["a"]));
    assert!(driver.scheduler.is_idle() && in_memory(&driver).is_empty());
    assert_eq!(driver.detector.waits().count(), 0);
}

#[test]
fn a_newcomer_does_not_take_the_lock_before_the_one_woken() {
    let mut driver = driver();
    driver.must(Command::Prewrite(prewrite(10, &["a"])));
    let force = |start_ts| {
        pessimistic(PessimisticLock {
            allow_conflict: true,
            ..lock(start_ts, &["a"])
        })
    };
    let waiting = driver.submit(force(30));
    driver.hold_writes = true;
    driver.submit(commit(10, 100, &["a"]));
    let newcomer = driver.submit(force(20));
    driver.let_write();
    assert_eq!(granted(driver.answer(waiting)).conflict_ts, Ts(100));
    assert!(driver.is_open(newcomer));
}

#[test]
fn waits_end_in_time_and_name_the_lock() {
    let mut driver = driver();
    driver.must(pessimistic(lock(10, &["a"])));
    let wait = |wait| {
        pessimistic(PessimisticLock {
            wait,
            ..lock(20, &["a"])
        })
    };
    let call = driver.submit(wait(Wait::No));
    assert_eq!(holder(driver.answer(call)), Ts(10));
    for (wait_for, millis) in [(Wait::Millis(300), 300), (Wait::Default, 1000), (Wait::Millis(60_000), 1000)] {
        let call = driver.submit(wait(wait_for));
        driver.advance(millis - 1);
        assert!(driver.is_open(call), "{wait_for:?}");
        driver.advance(1);
        assert_eq!(holder(driver.answer(call)), Ts(10));
    }
    assert!(driver.scheduler.is_idle());
}

#[test]
fn waits_are_bounded_in_number() {
    let mut driver = Driver::new(Config {
        lock_waiters_max: 1,
        ..Config::default()
    });
    driver.must(pessimistic(lock(10, &["a"])));
    let first = driver.submit(pessimistic(lock(20, &["a"])));
    let second = driver.submit(pessimistic(lock(30, &["a"])));
    assert_eq!(holder(driver.answer(second)), Ts(10));
    assert!(driver.is_open(first));
}

#[test]
fn those_who_wait_take_no_room_from_those_they_wait_for() {
    let mut driver = Driver::new(Config {
        commands_max: 1,
        ..Config::default()
    });
    driver.must(pessimistic(lock(10, &["a"])));
    let waiting = driver.submit(pessimistic(lock(20, &["a"])));
    driver.must(unlock(10, &["a"]));
    granted(driver.answer(waiting));
    driver.must(Command::Prewrite(prewrite(30, &["z"])));
}

#[test]
fn a_wait_over_several_keys_goes_from_key_to_key() {
    let mut driver = driver();
    driver.must(pessimistic(lock(10, &["a"])));
    driver.must(pessimistic(lock(11, &["b"])));
    let both = driver.submit(pessimistic(lock(20, &["a", "b"])));
    let one = driver.submit(pessimistic(lock(30, &["a"])));
    driver.must(unlock(10, &["a"]));
    assert!(driver.is_open(both), "b is locked");
    granted(driver.answer(one));
    driver.must(unlock(30, &["a"]));
    driver.must(unlock(11, &["b"]));
    granted(driver.answer(both));
    assert_eq!(in_memory(&driver), [key("a"), key("b")]);
}

#[test]
fn locks_lost_with_a_leadership_are_noticed() {
    let mut driver = Driver::new(Config {
        lock_wait_max: std::time::Duration::from_secs(10),
        ..Config::default()
    });
    driver.must(pessimistic(lock(10, &["a"])));
    let waiting = driver.submit(pessimistic(lock(20, &["a"])));
    driver.term += 1;
    driver.advance(1000);
    granted(driver.answer(waiting));
}

#[test]
fn circles_are_broken_where_they_close() {
    let mut driver = driver();
    driver.must(pessimistic(lock(10, &["a"])));
    driver.must(pessimistic(lock(20, &["b"])));
    let first = driver.submit(pessimistic(lock(10, &["b"])));
    let second = driver.submit(pessimistic(lock(20, &["a"])));
    let Some(Err(Error::Deadlock {
        start_ts,
        holder,
        deadlock_key,
        chain,
        ..
    })) = driver.answer(second)
    else {
        panic!("no deadlock");
    };
    assert_eq!((start_ts, holder, deadlock_key), (Ts(20), Ts(10), Bytes::from_static(b"b")));
    let edges: Vec<_> = chain.into_iter().map(|edge| (edge.waiter, edge.holder, edge.key)).collect();
    assert_eq!(
        edges,
        [
            (Ts(10), Ts(20), Bytes::from_static(b"b")),
            (Ts(20), Ts(10), Bytes::from_static(b"a"))
        ]
    );
    assert!(driver.is_open(first));
    driver.must(unlock(20, &["b"]));
    granted(driver.answer(first));
    assert_eq!(driver.detector.waits().count(), 0);
}

#[test]
fn a_first_lock_is_in_no_circle() {
    let mut driver = driver();
    driver.must(pessimistic(lock(10, &["a"])));
    let first = PessimisticLock {
        is_first_lock: true,
        ..lock(20, &["a"])
    };
    driver.submit(pessimistic(first));
    assert!(driver.told.is_empty());
}

#[test]
fn a_detector_that_forgot_learns_of_waits_again() {
    let mut driver = Driver::new(Config {
        lock_wait_max: std::time::Duration::from_secs(10),
        ..Config::default()
    });
    driver.must(pessimistic(lock(10, &["a"])));
    driver.must(pessimistic(lock(20, &["b"])));
    let first = driver.submit(pessimistic(lock(10, &["b"])));
    driver.detector.clear();
    let second = driver.submit(pessimistic(lock(20, &["a"])));
    assert!(driver.is_open(first) && driver.is_open(second));
    driver.advance(1000);
    let broken = [first, second].map(|call| driver.answer(call));
    let deadlocks = broken
        .iter()
        .filter(|answer| matches!(answer, Some(Err(Error::Deadlock { .. }))));
    assert_eq!(deadlocks.count(), 1);
}

/// Random commands on few keys, with writes that end late, fail or are done all the same, and leaderships that change: every command is
/// answered once, and nothing stays behind.
#[test]
fn every_command_is_answered_and_nothing_stays_behind() {
    for seed in 0..200u64 {
        let mut draw = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move |below: u64| {
            draw ^= draw << 13;
            draw ^= draw >> 7;
            draw ^= draw << 17;
            (draw >> 11) % below
        };
        let mut driver = Driver::new(Config {
            commands_max: 6,
            lock_waiters_max: 5,
            ..Config::default()
        });
        driver.hold_writes = true;
        let mut calls = Vec::new();
        for _ in 0..150 {
            let (start_ts, later) = (10 + random(8), 30 + random(100));
            let name = ["a", "b", "c"][random(3) as usize];
            let users = if random(3) == 0 { vec!["a", "c"] } else { vec![name] };
            let command = match random(8) {
                0 => Command::Prewrite(prewrite(start_ts, &users)),
                1 => commit(start_ts, later, &users),
                2 => prewrite_locked(start_ts, start_ts, &users),
                3 => unlock(start_ts, &users),
                4 => Command::Rollback {
                    keys: users.iter().map(|user| key(user)).collect(),
                    start_ts: Ts(start_ts),
                },
                _ => pessimistic(PessimisticLock {
                    for_update_ts: Ts(later),
                    allow_conflict: users.len() == 1 && random(2) == 0,
                    ..lock(start_ts, &users)
                }),
            };
            calls.push(driver.submit(command));
            if random(3) > 0 && !driver.held.is_empty() {
                match random(10) {
                    0 => driver.fail_write(kv::Error::StaleCommand, true),
                    1 => driver.fail_write(kv::Error::StaleCommand, false),
                    2 => driver.fail_write(kv::Error::Busy { reason: "full" }, false),
                    _ => driver.let_write(),
                }
            }
            if random(4) == 0 {
                driver.advance(random(40));
            }
            driver.term += u64::from(random(40) == 0);
        }
        while !driver.scheduler.is_idle() {
            driver.let_all();
            driver.advance(1000);
        }
        let open = calls.iter().filter(|call| driver.answer(**call).is_none()).count();
        assert_eq!(open, 0, "seed {seed}");
        let scheduler = &driver.scheduler;
        assert_eq!((scheduler.room.commands, scheduler.room.bytes), (0, 0), "seed {seed}");
        let left = (scheduler.alarms.len(), scheduler.queue.len(), scheduler.waits.len());
        assert_eq!(left, (0, 0, 0), "seed {seed}");
        assert_eq!(driver.detector.waits().count(), 0, "seed {seed}");
    }
}
