use super::*;

fn prewritten(result: Option<Result<Output>>) -> Prewritten {
    match result.expect("answered").expect("done") {
        Output::Prewritten(done) => done,
        other => panic!("{other:?}"),
    }
}

fn async_commit(start_ts: u64, users: &[&str]) -> Command {
    Command::Prewrite(Prewrite {
        secondaries: Some(Vec::new()),
        ..prewrite(start_ts, users)
    })
}

fn busy() -> kv::Error {
    kv::Error::Busy { reason: "full" }
}

#[test]
fn commands_on_one_key_wait_for_each_other_and_others_do_not() {
    let mut driver = driver();
    driver.hold_writes = true;
    let first = driver.submit(Command::Prewrite(prewrite(10, &["a", "b"])));
    let second = driver.submit(Command::Prewrite(prewrite(20, &["b", "c"])));
    let third = driver.submit(Command::Prewrite(prewrite(30, &["d"])));
    assert_eq!(driver.held.len(), 2, "the second has no latch");
    driver.let_write();
    assert!(prewritten(driver.answer(first)).locked.is_empty());
    let met = prewritten(driver.answer(second)).locked;
    assert_eq!(met[0].lock.start_ts, Ts(10), "it saw what the first wrote");
    assert!(driver.is_open(third));
    driver.let_write();
    assert!(driver.answer(third).is_some() && driver.scheduler.is_idle());
}

#[test]
fn a_latch_outlives_the_clients_patience() {
    let mut driver = driver();
    driver.hold_writes = true;
    let first = driver.submit(Command::Prewrite(prewrite(10, &["a"])));
    driver.advance(10_000);
    let second = driver.submit(Command::Prewrite(prewrite(20, &["a"])));
    driver.advance(11_000);
    let late = driver.answer(first).expect("answered at its deadline");
    let unknown = Error::Region {
        proposed: true,
        source: kv::Error::Deadline,
    };
    assert_eq!(format!("{late:?}"), format!("{:?}", Err::<Output, _>(unknown)));
    assert!(driver.is_open(second), "the write may yet be done");
    driver.let_write();
    assert_eq!(prewritten(driver.answer(second)).locked[0].lock.start_ts, Ts(10));
    assert!(driver.scheduler.is_idle());
}

#[test]
fn who_waits_for_a_latch_until_its_deadline_has_proposed_nothing() {
    let mut driver = driver();
    driver.hold_writes = true;
    driver.submit(Command::Prewrite(prewrite(10, &["a"])));
    let second = driver.submit(Command::Prewrite(prewrite(20, &["a"])));
    driver.advance(21_000);
    assert!(matches!(
        driver.answer(second),
        Some(Err(Error::Region { proposed: false, .. }))
    ));
    driver.let_all();
    assert!(driver.scheduler.is_idle());
}

#[test]
fn full_queues_below_are_waited_for_within_bounds() {
    let mut driver = driver();
    driver.kv.fail_next([busy(), busy()]);
    let call = driver.submit(Command::Prewrite(prewrite(10, &["a"])));
    driver.advance(2);
    assert!(driver.is_open(call), "the second pause is longer");
    driver.advance(4);
    assert!(prewritten(driver.answer(call)).locked.is_empty());

    driver.hold_writes = true;
    let call = driver.submit(commit(10, 11, &["a"]));
    driver.fail_write(busy(), false);
    driver.advance(2);
    driver.let_write();
    driver.answer(call).expect("answered").expect("done at the second try");
    driver.hold_writes = false;

    driver.kv.fail_next(std::iter::repeat_n(busy(), 100));
    let call = driver.submit(Command::Prewrite(prewrite(20, &["b"])));
    driver.advance(499);
    let refused = driver.answer(call).expect("given up").expect_err("refused");
    assert!(
        matches!(
            refused,
            Error::Region {
                source: kv::Error::Busy { .. },
                ..
            }
        ),
        "{refused:?}"
    );
    assert!(driver.scheduler.is_idle());
}

#[test]
fn errors_of_a_write_say_that_it_was_proposed() {
    let mut driver = driver();
    driver.hold_writes = true;
    let call = driver.submit(Command::Prewrite(prewrite(10, &["a"])));
    driver.fail_write(kv::Error::StaleCommand, true);
    assert!(matches!(
        driver.answer(call),
        Some(Err(Error::Region {
            proposed: true,
            source: kv::Error::StaleCommand
        }))
    ));
    driver.hold_writes = false;
    driver.kv.fail_next([kv::Error::StaleCommand]);
    let read = driver
        .try_run(Command::Prewrite(prewrite(10, &["a"])))
        .expect_err("no snapshot");
    assert!(matches!(read, Error::Region { proposed: false, .. }));
}

#[test]
fn keys_of_other_regions_are_refused_before_they_are_read() {
    let mut driver = driver();
    let region = kv::memory::region(1, key("b").encoded(), key("d").encoded());
    driver.kv.set_regions(vec![region]);
    driver.must(Command::Prewrite(prewrite(10, &["b", "c"])));
    let refused = driver
        .try_run(Command::Prewrite(prewrite(10, &["c", "d"])))
        .expect_err("d lies behind");
    assert!(matches!(
        refused,
        Error::Region {
            proposed: false,
            source: kv::Error::KeyNotInRegion { .. }
        }
    ));
}

#[test]
fn what_finds_no_room_queues_and_is_refused_after_a_while() {
    let mut driver = Driver::new(Config {
        commands_max: 1,
        queue_max: 2,
        ..Config::default()
    });
    driver.hold_writes = true;
    let names = ["a", "b", "c", "d"];
    let calls = names.map(|name| driver.submit(Command::Prewrite(prewrite(10, &[name]))));
    assert!(
        matches!(driver.answer(calls[3]), Some(Err(Error::Region { .. }))),
        "the queue is full"
    );
    assert_eq!(driver.held.len(), 1);
    driver.let_write();
    assert!(driver.answer(calls[0]).is_some() && driver.held.len() == 1);
    driver.advance(499);
    assert!(driver.is_open(calls[2]));
    driver.advance(1);
    assert!(
        matches!(driver.answer(calls[2]), Some(Err(Error::Region { .. }))),
        "it waited too long"
    );
    driver.let_write();
    assert!(driver.answer(calls[1]).is_some() && driver.scheduler.is_idle());
}

#[test]
fn bytes_are_bounded_but_a_large_command_still_goes() {
    let mut driver = Driver::new(Config {
        bytes_max: 100,
        ..Config::default()
    });
    driver.hold_writes = true;
    let mut large = prewrite(10, &["large"]);
    large.mutations[0].op = Op::Put(vec![1; 1000].into());
    driver.submit(Command::Prewrite(prewrite(10, &["a"])));
    driver.submit(Command::Prewrite(prewrite(10, &["b"])));
    driver.submit(Command::Prewrite(large));
    driver.submit(Command::Prewrite(prewrite(10, &["c"])));
    assert_eq!(driver.held.len(), 2, "c does not overtake the large one");
    driver.let_write();
    driver.let_write();
    assert_eq!(driver.held.len(), 1, "the large one goes alone");
    driver.let_write();
    driver.let_write();
    assert!(driver.scheduler.is_idle());
}

#[test]
fn a_new_leader_asks_for_a_timestamp_before_its_first_async_commit() {
    let mut driver = driver();
    driver.tso = None;
    let first = driver.submit(async_commit(10, &["a"]));
    let one_phase = Command::Prewrite(Prewrite {
        one_phase: true,
        ..prewrite(10, &["b"])
    });
    let second = driver.submit(one_phase);
    driver.must(Command::Prewrite(prewrite(10, &["c"])));
    assert_eq!(driver.asked.len(), 1, "one asks for all, and an ordinary prewrite need not");
    let task = driver.asked.remove(0);
    driver.step(Event::Timestamp { task, ts: Some(Ts(500)) });
    assert_eq!(
        prewritten(driver.answer(first)).min_commit_ts,
        Ts(501),
        "others may have read at 500"
    );
    assert_eq!(prewritten(driver.answer(second)).one_phase_commit_ts, Ts(501));
    let third = driver.submit(async_commit(20, &["d"]));
    assert!(
        driver.answer(third).is_some() && driver.asked.is_empty(),
        "still the same leadership"
    );
    driver.term += 1;
    let fourth = driver.submit(async_commit(20, &["e"]));
    assert!(driver.is_open(fourth) && driver.asked.len() == 1);
    let task = driver.asked.remove(0);
    driver.step(Event::Timestamp { task, ts: None });
    driver.advance(1);
    assert!(driver.is_open(fourth), "it tries again");
    driver.tso = Some(Ts(600));
    driver.advance(1);
    assert_eq!(prewritten(driver.answer(fourth)).min_commit_ts, Ts(601));
    assert!(driver.scheduler.is_idle());
}

#[cfg(feature = "planted")]
#[test]
fn the_planted_bug_forgets_to_ask() {
    use crate::planted::{Bug, plant};
    plant(Some(Bug::MaxTsForgotten));
    let mut driver = driver();
    driver.tso = None;
    let call = driver.submit(async_commit(10, &["a"]));
    plant(None);
    assert_eq!(prewritten(driver.answer(call)).min_commit_ts, Ts(11));
}

#[test]
fn readers_meet_the_locks_of_an_async_commit_until_snapshots_show_them() {
    let mut driver = driver();
    driver.hold_writes = true;
    let call = driver.submit(async_commit(10, &["a"]));
    assert!(matches!(driver.read("a", 50), Err(Error::Locked(_))), "in memory");
    driver.let_write();
    let min_commit_ts = prewritten(driver.answer(call)).min_commit_ts;
    assert!(matches!(driver.read("a", 50), Err(Error::Locked(_))), "stored");
    driver.hold_writes = false;
    driver.must(commit(10, min_commit_ts.0, &["a"]));
    assert_eq!(driver.read("a", 50).expect("free"), Some("v10".into()));

    driver.hold_writes = true;
    let call = driver.submit(async_commit(60, &["b"]));
    driver.fail_write(kv::Error::StaleCommand, false);
    assert!(matches!(driver.answer(call), Some(Err(_))));
    assert_eq!(driver.read("b", 90).expect("free"), None, "nothing stays in memory");
}

#[test]
fn a_walk_over_a_region_goes_in_batches_under_latches() {
    let mut driver = driver();
    let names: Vec<String> = (0..600).map(|at| format!("k{at:03}")).collect();
    let users: Vec<&str> = names.iter().map(String::as_str).collect();
    driver.must(Command::Prewrite(prewrite(10, &users)));
    driver.must(Command::Prewrite(prewrite(20, &["other"])));
    driver.hold_writes = true;
    let walk = driver.submit(Command::ResolveLock(ResolveLock::Region {
        txns: vec![(Ts(10), Ts(15))],
        found: Vec::new(),
        scan: None,
    }));
    let mut writes = 0;
    while !driver.held.is_empty() {
        writes += 1;
        driver.let_write();
    }
    assert_eq!(writes, 3);
    assert!(driver.answer(walk).expect("answered").is_ok());
    assert!(
        users
            .iter()
            .all(|user| driver.read(user, 30).expect("free") == Some("v10".into()))
    );
    assert!(lock_of(&driver, "other").is_some());
}

#[test]
fn a_range_is_deleted_while_no_commit_is_on_its_way() {
    let mut driver = driver();
    driver.must(Command::Prewrite(prewrite(10, &["a"])));
    driver.hold_writes = true;
    driver.submit(commit(10, 11, &["a"]));
    let range = driver.submit(Command::DeleteRange {
        start: Bytes::new(),
        end: Bytes::new(),
        notify_only: false,
    });
    let late = driver.submit(Command::Prewrite(prewrite(20, &["b"])));
    assert_eq!(driver.held.len(), 1);
    driver.let_all();
    assert!(driver.answer(range).is_some() && driver.answer(late).is_some());
    assert_eq!(driver.read("a", 30).expect("free"), None);
    assert!(lock_of(&driver, "b").is_some());
}
