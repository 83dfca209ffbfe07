use engine::Cf;
use engine::kv::Modify;

use super::*;
use crate::driver::*;
use crate::scheduler::Config;
use crate::write::{Write, WriteKind};

fn record(changes: &mut Vec<Modify>, user: &str, commit_ts: u64, write: Write) {
    if write.kind == WriteKind::Put && write.short_value.is_none() {
        changes.push(Modify::Put {
            cf: Cf::Default,
            key: key(user).at(write.start_ts),
            value: format!("long value of {}", write.start_ts).into(),
        });
    }
    changes.push(Modify::Put {
        cf: Cf::Write,
        key: key(user).at(Ts(commit_ts)),
        value: write.encode(),
    });
}

/// Runs a round to its end; returns how many slices it took.
fn collect(driver: &mut Driver, worker: &mut Worker, safe_point: u64) -> u64 {
    assert!(worker.wants(Ts(safe_point)));
    let mut effects = worker.step(
        driver.now,
        Event::SafePoint {
            safe_point: Ts(safe_point),
            regions: vec![Driver::ctx()],
        },
    );
    let mut slices = 0;
    while let Some((_, command)) = effects.submit.take() {
        slices += 1;
        let answer = driver.try_run(command);
        driver.advance(3);
        effects = worker.step(driver.now, Event::Answer(answer));
        if let Some(at) = effects.wake_at {
            assert!(effects.submit.is_none(), "it rests");
            driver.advance(at.since(driver.now).as_millis() as u64 + 1);
            effects = worker.step(driver.now, Event::Tick);
        }
    }
    assert_eq!(worker.done(), Ts(safe_point));
    slices
}

fn rows(driver: &Driver, cf: Cf) -> usize {
    let mut cursor = driver.view().cursor(cf, b"", b"").expect("memory reads");
    std::iter::from_fn(|| cursor.next().expect("memory reads")).count()
}

/// Records of all kinds with commit timestamps from 10 to about 100.
fn random_history(random: &mut impl FnMut(u64) -> u64, user: &str, changes: &mut Vec<Modify>) {
    let mut ts = 10;
    for _ in 0..random(12) {
        let start_ts = ts + 1 + random(4);
        let commit_ts = start_ts + 1 + random(4);
        ts = commit_ts;
        let write = match random(6) {
            0 => Write::new(WriteKind::Delete, Ts(start_ts), None),
            1 => Write::new(WriteKind::Lock, Ts(start_ts), None),
            2 => Write::new(WriteKind::Put, Ts(start_ts), None),
            3 => {
                record(changes, user, start_ts, Write::rollback(Ts(start_ts), random(2) == 0));
                continue;
            }
            _ => Write::new(WriteKind::Put, Ts(start_ts), Some(format!("v{start_ts}").into())),
        };
        record(changes, user, commit_ts, write);
    }
}

#[test]
fn reads_at_or_above_the_safe_point_see_the_same_and_garbage_is_gone() {
    for seed in 1..=60u64 {
        let mut draw = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = move |below: u64| {
            draw ^= draw << 13;
            draw ^= draw >> 7;
            draw ^= draw << 17;
            (draw >> 11) % below
        };
        let users: Vec<String> = (0..random(40)).map(|at| format!("k{at:02}")).collect();
        let mut driver = Driver::new(Config::default());
        let mut changes = Vec::new();
        users.iter().for_each(|user| random_history(&mut random, user, &mut changes));
        driver.store(changes);
        let safe_point = 20 + random(60);
        let read_all = |driver: &Driver| -> Vec<_> {
            let read = |ts| users.iter().map(move |user| driver.read(user, ts).expect("no locks"));
            (safe_point..=120).flat_map(read).collect()
        };
        let before = read_all(&driver);
        let mut worker = Worker::default();
        collect(&mut driver, &mut worker, safe_point);
        assert_eq!(read_all(&driver), before, "seed {seed}");
        let mut values = 0;
        for user in &users {
            let history = crate::mvcc::history(&*driver.view(), &key(user), usize::MAX);
            let history = history.expect("memory reads").expect("there is room");
            let old: Vec<_> = history.writes.iter().filter(|(ts, _)| ts.0 <= safe_point).collect();
            let needed = old.iter().all(|(_, write)| write.kind == WriteKind::Put);
            assert!(old.len() <= 1 && needed, "seed {seed}: {user} keeps {old:?}");
            let long = |write: &Write| write.kind == WriteKind::Put && write.short_value.is_none();
            values += history.writes.iter().filter(|(_, write)| long(write)).count();
        }
        assert_eq!(rows(&driver, Cf::Default), values, "seed {seed}: values without a record");
        assert!(!worker.wants(Ts(safe_point)) && worker.wants(Ts(safe_point + 1)));
    }
}

/// A key with more versions than a slice deletes, under a delete: what is not deleted yet must stay hidden.
#[test]
fn a_delete_goes_after_all_that_it_hides() {
    let mut driver = Driver::new(Config::default());
    let name = "long".repeat(500);
    let mut changes = Vec::new();
    for ts in 1..=400 {
        let value = format!("v{ts}").into();
        record(
            &mut changes,
            &name,
            10 * ts + 1,
            Write::new(WriteKind::Put, Ts(10 * ts), Some(value)),
        );
    }
    record(&mut changes, &name, 5001, Write::new(WriteKind::Delete, Ts(5000), None));
    driver.store(changes);
    let (mut from, mut slices) = (Some(Bytes::new()), 0);
    while let Some(scan) = from {
        slices += 1;
        let command = Command::Collect {
            safe_point: Ts(6000),
            keys: Vec::new(),
            scan: Some(scan),
        };
        let Output::Collected { next, .. } = driver.must(command) else {
            panic!("not collected");
        };
        assert_eq!(driver.read(&name, 6000).expect("no locks"), None, "after {slices} slices");
        from = next;
    }
    assert!(slices > 3, "{slices}");
    assert_eq!(rows(&driver, Cf::Write), 0);
}

#[test]
fn many_keys_go_in_slices_with_rests_between() {
    let mut driver = Driver::new(Config::default());
    let mut changes = Vec::new();
    for at in 0..1000 {
        for ts in [10, 20, 30] {
            let write = Write::new(WriteKind::Put, Ts(ts), Some("v".into()));
            record(&mut changes, &format!("k{at:04}"), ts + 1, write);
        }
    }
    driver.store(changes);
    let mut worker = Worker::default();
    let slices = collect(&mut driver, &mut worker, 100);
    assert!(slices >= 4, "{slices}");
    let counts = Counts {
        deleted: 2000,
        regions_done: 1,
        regions_left: 0,
    };
    assert_eq!((worker.counts(), rows(&driver, Cf::Write)), (counts, 1000));
}

#[test]
fn hot_keys_above_the_safe_point_are_jumped_over() {
    let mut driver = Driver::new(Config::default());
    let mut changes = Vec::new();
    for ts in 1..=100 {
        record(
            &mut changes,
            "hot",
            10 * ts + 1,
            Write::new(WriteKind::Put, Ts(10 * ts), Some("v".into())),
        );
    }
    record(&mut changes, "next", 5, Write::rollback(Ts(5), true));
    driver.store(changes);
    let mut worker = Worker::default();
    collect(&mut driver, &mut worker, 31);
    assert_eq!(
        rows(&driver, Cf::Write),
        98,
        "the versions 10 and 20 and the rollback are gone"
    );
}

#[test]
fn failures_that_may_pass_are_tried_again_and_regions_that_moved_are_left() {
    let mut worker = Worker::default();
    let now = MonoTime(1_000_000_000);
    let regions = vec![Driver::ctx(), Driver::ctx()];
    let begin = Event::SafePoint {
        safe_point: Ts(9),
        regions,
    };
    assert!(worker.step(now, begin).submit.is_some());
    let error = |source| Event::Answer(Err(Error::Region { proposed: false, source }));
    let paused = worker.step(now, error(kv::Error::StaleCommand));
    assert_eq!((paused.submit, paused.wake_at), (None, Some(now + PAUSE)));
    assert!(worker.step(now, Event::Tick).submit.is_none(), "not yet");
    assert!(worker.step(now + PAUSE, Event::Tick).submit.is_some());
    let moved = kv::Error::NotLeader {
        region: base::RegionId(1),
        leader: None,
    };
    let next = worker.step(now + PAUSE, error(moved));
    assert!(next.submit.is_some(), "the other region");
    let done = Event::Answer(Ok(Output::Collected { deleted: 0, next: None }));
    assert!(worker.step(now + PAUSE, done).submit.is_none());
    let counts = Counts {
        deleted: 0,
        regions_done: 1,
        regions_left: 1,
    };
    assert_eq!((worker.counts(), worker.done()), (counts, Ts(9)));
}
