//! What every engine behind the door must do. One suite, run by each.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use common::{Home, Kind, Model, assert_same, contents, small, walk};
use engine::{Batch, Cf, Engine, Error, FjallEngine, KEY_BYTES_MAX, Snapshot};
use proptest::prelude::*;

macro_rules! suite {
    ($($test:ident)*) => {
        mod memory { $(#[test] fn $test() { super::$test(super::Kind::Memory); })* }
        mod fjall { $(#[test] fn $test() { super::$test(super::Kind::Fjall); })* }
        #[cfg(feature = "rocksdb")]
        mod rocksdb { $(#[test] fn $test() { super::$test(super::Kind::RocksDb); })* }
    };
}

suite! {
    batch_is_whole_and_later_changes_win
    snapshot_keeps_its_view
    cursor_moves_both_ways_within_bounds
    cursor_is_reused_for_many_seeks
    delete_range_spares_neighbours
    ingest_few_and_many
    ingest_refuses_disorder
    sizes_are_about_right
    empty_and_long_keys_are_refused
    reopen_keeps_everything
    readers_see_batches_whole
    syncs_from_many_threads
    like_a_model
}

fn put(engine: &Arc<dyn Engine>, cf: Cf, key: &str, value: &str) {
    let mut batch = Batch::new();
    batch.put(cf, key.to_owned(), value.to_owned());
    engine.write(batch).unwrap();
}

fn get(engine: &Arc<dyn Engine>, cf: Cf, key: &str) -> Option<String> {
    engine
        .get(cf, key.as_bytes())
        .unwrap()
        .map(|value| String::from_utf8(value.to_vec()).unwrap())
}

fn keys(snapshot: &dyn Snapshot, cf: Cf, start: &str, end: &str) -> Vec<String> {
    let pairs = walk(&mut *snapshot.cursor(cf, start.as_bytes(), end.as_bytes()).unwrap());
    pairs
        .into_iter()
        .map(|(key, _)| String::from_utf8(key.to_vec()).unwrap())
        .collect()
}

fn key_of(pair: engine::Result<Option<(Bytes, Bytes)>>) -> Option<String> {
    pair.unwrap().map(|(key, _)| String::from_utf8(key.to_vec()).unwrap())
}

fn batch_is_whole_and_later_changes_win(kind: Kind) {
    let home = Home::new(kind);
    let engine = home.engine();
    put(engine, Cf::Lock, "gone", "x");
    let mut batch = Batch::new();
    batch.put(Cf::Default, "a", "first");
    batch.put(Cf::Default, "a", "second");
    batch.put(Cf::Write, "a", "other family");
    batch.put(Cf::Default, "b", "x");
    batch.delete(Cf::Default, "b");
    batch.delete(Cf::Default, "c");
    batch.put(Cf::Default, "c", "back");
    batch.delete(Cf::Lock, "gone");
    batch.put(Cf::Local, "empty value", "");
    engine.write(batch).unwrap();
    engine.write(Batch::new()).unwrap();
    assert_eq!(get(engine, Cf::Default, "a").as_deref(), Some("second"));
    assert_eq!(get(engine, Cf::Write, "a").as_deref(), Some("other family"));
    assert_eq!(get(engine, Cf::Default, "b"), None);
    assert_eq!(get(engine, Cf::Default, "c").as_deref(), Some("back"));
    assert_eq!(get(engine, Cf::Lock, "gone"), None);
    assert_eq!(get(engine, Cf::Lock, "a"), None);
    assert_eq!(get(engine, Cf::Local, ""), None);
    assert_eq!(get(engine, Cf::Local, "empty value").as_deref(), Some(""));
}

/// Writes until tables were flushed and compacted a few times.
fn churn(engine: &Arc<dyn Engine>, value: &str) {
    for round in 0..400 {
        let mut batch = Batch::new();
        for number in 0..10 {
            batch.put(
                Cf::Default,
                format!("k{:03}", (round * 7 + number * 31) % 300),
                format!("{value}{}", "x".repeat(100)),
            );
        }
        engine.write(batch).unwrap();
    }
}

fn snapshot_keeps_its_view(kind: Kind) {
    let home = Home::new(kind);
    let engine = home.engine();
    churn(engine, "one");
    put(engine, Cf::Local, "l", "one");
    let first = engine.snapshot();
    let before = contents(&*first, Cf::Default);
    assert_eq!(before.len(), 300);
    churn(engine, "two");
    put(engine, Cf::Local, "l", "two");
    engine.delete_range(Cf::Default, b"k1", b"k2").unwrap();
    let second = engine.snapshot();
    engine
        .ingest(
            Cf::Default,
            &mut (0..300).map(|n| (format!("k{n:03}").into(), "three".into())),
        )
        .unwrap();
    churn(engine, "four");
    assert_eq!(contents(&*first, Cf::Default), before);
    assert_eq!(first.get(Cf::Local, b"l").unwrap().as_deref(), Some(b"one".as_slice()));
    assert_eq!(
        first.get(Cf::Default, b"k150").unwrap().map(|v| v[..3].to_vec()),
        Some(b"one".to_vec())
    );
    let middle = contents(&*second, Cf::Default);
    assert_eq!(middle.len(), 200);
    assert!(middle.values().all(|value| value.starts_with(b"two")));
    assert!(
        contents(&*engine.snapshot(), Cf::Default)
            .values()
            .all(|value| value.starts_with(b"four"))
    );
}

fn cursor_moves_both_ways_within_bounds(kind: Kind) {
    let home = Home::new(kind);
    let engine = home.engine();
    for key in ["a", "b", "bb", "c", "d", "e"] {
        put(engine, Cf::Default, key, key);
    }
    put(engine, Cf::Write, "bc", "other family");
    let snapshot = engine.snapshot();
    assert_eq!(keys(&*snapshot, Cf::Default, "", ""), ["a", "b", "bb", "c", "d", "e"]);
    assert_eq!(keys(&*snapshot, Cf::Default, "b", "d"), ["b", "bb", "c"]);
    assert_eq!(keys(&*snapshot, Cf::Default, "c", "b"), [] as [&str; 0]);
    assert_eq!(keys(&*snapshot, Cf::Default, "c", "c"), [] as [&str; 0]);
    assert_eq!(keys(&*snapshot, Cf::Default, "f", ""), [] as [&str; 0]);

    let mut cursor = snapshot.cursor(Cf::Default, b"b", b"e").unwrap();
    assert_eq!(
        key_of(cursor.prev()).as_deref(),
        Some("d"),
        "a fresh cursor goes back from the end"
    );
    assert_eq!(key_of(cursor.prev()).as_deref(), Some("c"));
    assert_eq!(key_of(cursor.next()).as_deref(), Some("d"), "and turns");
    assert_eq!(key_of(cursor.next()), None);
    assert_eq!(key_of(cursor.next()), None, "past the end it stays");
    assert_eq!(key_of(cursor.prev()), None);
    assert_eq!(
        key_of(cursor.seek(b"")).as_deref(),
        Some("b"),
        "a seek before the range finds its first"
    );
    assert_eq!(key_of(cursor.prev()), None);
    assert_eq!(key_of(cursor.seek(b"ba")).as_deref(), Some("bb"));
    assert_eq!(key_of(cursor.prev()).as_deref(), Some("b"));
    assert_eq!(key_of(cursor.next()).as_deref(), Some("bb"));
    assert_eq!(key_of(cursor.seek(b"e")), None, "the end is outside");
    assert_eq!(
        key_of(cursor.seek_for_prev(b"zz")).as_deref(),
        Some("d"),
        "a seek behind the range finds its last"
    );
    assert_eq!(key_of(cursor.seek_for_prev(b"c")).as_deref(), Some("c"));
    assert_eq!(key_of(cursor.seek_for_prev(b"c")).as_deref(), Some("c"));
    assert_eq!(key_of(cursor.next()).as_deref(), Some("d"));
    assert_eq!(key_of(cursor.seek_for_prev(b"ba")).as_deref(), Some("b"));
    assert_eq!(key_of(cursor.seek_for_prev(b"a")), None);
    let mut all = snapshot.cursor(Cf::Default, b"", b"").unwrap();
    assert_eq!(key_of(all.seek_for_prev(b"")), None);
    assert_eq!(key_of(all.seek_for_prev(b"\xff\xff")).as_deref(), Some("e"));
}

fn cursor_is_reused_for_many_seeks(kind: Kind) {
    let home = Home::new(kind);
    let engine = home.engine();
    churn(engine, "v");
    let snapshot = engine.snapshot();
    let mut cursor = snapshot.cursor(Cf::Default, b"", b"").unwrap();
    for step in [1i64, 3, 17, 100, -1, -3, -17, -100] {
        for number in 0..600i64 {
            let at = (number * step).rem_euclid(300);
            let key = format!("k{at:03}");
            assert_eq!(key_of(cursor.seek(key.as_bytes())), Some(key.clone()));
            let between = format!("k{at:03}+");
            let next = (at < 299).then(|| format!("k{:03}", at + 1));
            assert_eq!(key_of(cursor.seek(between.as_bytes())), next);
            assert_eq!(key_of(cursor.seek_for_prev(between.as_bytes())), Some(key.clone()));
            assert_eq!(key_of(cursor.seek_for_prev(key.as_bytes())), Some(key));
        }
    }
}

fn delete_range_spares_neighbours(kind: Kind) {
    let mut home = Home::new(kind);
    let engine = home.engine();
    for number in 0..3000 {
        put(engine, Cf::Default, &format!("k{number:04}"), &"x".repeat(100));
    }
    put(engine, Cf::Lock, "k1500", "other family");
    engine.delete_range(Cf::Default, b"k1000", b"k2000").unwrap();
    let left = keys(&*engine.snapshot(), Cf::Default, "", "");
    assert_eq!(left.len(), 2000);
    assert!(left.iter().all(|key| !("k1000".."k2000").contains(&key.as_str())));
    put(engine, Cf::Default, "k1500", "again");
    engine.delete_range(Cf::Default, b"k2000", b"k1000").unwrap();
    engine.delete_range(Cf::Default, b"zz", b"").unwrap();
    assert_eq!(get(engine, Cf::Default, "k1500").as_deref(), Some("again"));
    assert_eq!(get(engine, Cf::Lock, "k1500").as_deref(), Some("other family"));
    engine.delete_range(Cf::Default, b"k2000", b"").unwrap();
    home.reopen();
    let left = keys(&*home.engine().snapshot(), Cf::Default, "", "");
    assert_eq!(left.len(), 1001);
}

fn ingest_few_and_many(kind: Kind) {
    let mut home = Home::new(kind);
    let engine = home.engine();
    put(engine, Cf::Default, "k00005", "old");
    put(engine, Cf::Default, "other", "kept");
    let before = engine.snapshot();
    engine.ingest(Cf::Default, &mut std::iter::empty()).unwrap();
    engine
        .ingest(Cf::Default, &mut (0..10).map(|n| (format!("k{n:05}").into(), "few".into())))
        .unwrap();
    assert_eq!(get(engine, Cf::Default, "k00005").as_deref(), Some("few"));
    put(engine, Cf::Default, "k00006", "newer");
    let many = || (0..20_000).map(|n| (format!("k{n:05}").into(), Bytes::from(format!("many{}", "y".repeat(100)))));
    engine.ingest(Cf::Default, &mut many()).unwrap();
    put(engine, Cf::Default, "k00007", "newest");
    assert_eq!(
        before.get(Cf::Default, b"k00005").unwrap().as_deref(),
        Some(b"old".as_slice())
    );
    assert_eq!(keys(&*before, Cf::Default, "", ""), ["k00005", "other"]);
    drop(before);
    home.engine().sync().unwrap();
    for again in 0..2 {
        let engine = home.engine();
        let found = contents(&*engine.snapshot(), Cf::Default);
        assert_eq!(found.len(), 20_001, "opened {again} times more");
        assert!(get(engine, Cf::Default, "k00006").unwrap().starts_with("many"));
        assert_eq!(get(engine, Cf::Default, "k00007").as_deref(), Some("newest"));
        assert_eq!(get(engine, Cf::Default, "other").as_deref(), Some("kept"));
        home.reopen();
    }
}

fn ingest_refuses_disorder(kind: Kind) {
    for first in ["b", "a"] {
        let home = Home::new(kind);
        let pairs = [(Bytes::from(first), Bytes::new()), (Bytes::from("a"), Bytes::new())];
        let engine = home.engine().clone();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            engine.ingest(Cf::Default, &mut pairs.into_iter())
        }));
        assert!(outcome.is_err(), "{first}, then a");
    }
}

fn sizes_are_about_right(kind: Kind) {
    let home = Home::new(kind);
    let engine = home.engine();
    let mut random = 1u64;
    let mut noise = || {
        let bytes = (0..1000).map(|_| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 56) as u8
        });
        Bytes::from_iter(bytes)
    };
    let mut check = |engine: &Arc<dyn Engine>, what: &str, rounds: u64| {
        for round in 0..rounds {
            for (letter, count) in [("a", 8), ("b", 2), ("d", 6)] {
                for number in 0..count {
                    let mut batch = Batch::new();
                    batch.put(
                        Cf::Default,
                        format!("{letter}{:05}", (number * 7919 + round) % 100_000),
                        noise(),
                    );
                    engine.write(batch).unwrap();
                }
            }
        }
        let size = |start: &str, end: &str| {
            engine
                .approximate_size(Cf::Default, start.as_bytes(), end.as_bytes())
                .unwrap()
        };
        let total = size("", "");
        assert!(total > 0, "{what}");
        let sum = size("", "b") + size("b", "c") + size("c", "d") + size("d", "");
        assert!(sum.abs_diff(total) <= total / 5, "{what}: parts {sum}, all {total}");
        assert!(
            size("a", "b") > size("b", "c"),
            "{what}: {} and {}",
            size("a", "b"),
            size("b", "c")
        );
        assert!(
            size("c", "d") <= total / 4,
            "{what}: {} of {total} where nothing is",
            size("c", "d")
        );
        assert_eq!(size("b", "a"), 0);
        assert_eq!(engine.approximate_size(Cf::Lock, b"", b"").unwrap(), 0);
        total
    };
    #[cfg(feature = "rocksdb")]
    if kind == Kind::RocksDb {
        check(engine, "on disk", 200); // it does not count what is in memory
        return;
    }
    let little = check(engine, "in memory", 2);
    assert!((16_000..64_000).contains(&little), "32 kB take {little}");
    let much = check(engine, "on disk", 200);
    assert!((1_600_000..6_400_000).contains(&much), "3.2 MB take {much}");
    if kind != Kind::Memory {
        assert!(
            (1_600_000..16_000_000).contains(&engine.disk_bytes()),
            "{}",
            engine.disk_bytes()
        );
    }
}

fn empty_and_long_keys_are_refused(kind: Kind) {
    let home = Home::new(kind);
    let engine = home.engine();
    let mut batch = Batch::new();
    batch.put(Cf::Default, vec![b'k'; KEY_BYTES_MAX], "fits");
    engine.write(batch).unwrap();
    for bad in [vec![b'k'; KEY_BYTES_MAX + 1], vec![]] {
        let mut batch = Batch::new();
        batch.put(Cf::Default, "short", "x");
        batch.put(Cf::Default, bad.clone(), "refused");
        assert!(matches!(engine.write(batch), Err(Error::Backend { .. })));
        let outcome = engine.ingest(Cf::Default, &mut [(Bytes::from(bad), Bytes::from("refused"))].into_iter());
        assert!(matches!(outcome, Err(Error::Backend { .. })));
    }
    assert_eq!(get(engine, Cf::Default, "short"), None, "nothing of a refused batch stays");
    churn(engine, "v");
    assert_eq!(
        engine.get(Cf::Default, &[b'k'; KEY_BYTES_MAX]).unwrap().as_deref(),
        Some(b"fits".as_slice())
    );
    assert_eq!(engine.get(Cf::Default, &[b'k'; KEY_BYTES_MAX + 1]).unwrap(), None);
}

fn reopen_keeps_everything(kind: Kind) {
    let mut home = Home::new(kind);
    let mut model = Model::default();
    for round in 0..6u32 {
        for number in 0..200u32 {
            let mut batch = Batch::new();
            for cf in Cf::ALL {
                let key = format!("{}", (number * 37 + round * 11 + cf as u32) % 500);
                if (number + round).is_multiple_of(5) {
                    model[cf as usize].remove(key.as_bytes());
                    batch.delete(cf, key);
                } else {
                    let value = format!("{round}-{number}-{}", "z".repeat(number as usize));
                    model[cf as usize].insert(key.clone().into(), value.clone().into());
                    batch.put(cf, key, value);
                }
            }
            home.engine().write(batch).unwrap();
        }
        if round.is_multiple_of(2) {
            home.engine().sync().unwrap();
        }
        home.reopen();
        assert_same(&*home.engine().snapshot(), &model, &format!("round {round}"));
    }
}

fn readers_see_batches_whole(kind: Kind) {
    let home = Home::new(kind);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let engine = home.engine();
                let number = |value: Option<Bytes>| value.map_or(0, |v| u64::from_be_bytes(v[..8].try_into().unwrap()));
                let mut newest = 0;
                while !done.load(Ordering::Relaxed) {
                    let snapshot = engine.snapshot();
                    let seen = Cf::ALL.map(|cf| number(snapshot.get(cf, b"same").unwrap()));
                    assert!(seen.iter().all(|n| *n == seen[0]), "{seen:?}");
                    assert!(seen[0] >= newest, "went back from {newest} to {}", seen[0]);
                    newest = seen[0];
                    let ascending =
                        [Cf::Local, Cf::Write, Cf::Lock, Cf::Default].map(|cf| number(engine.get(cf, b"same").unwrap()));
                    assert!(ascending.is_sorted(), "{ascending:?}");
                    newest = newest.max(ascending[3]);
                }
            });
        }
        let engine = home.engine();
        for n in 1..=6000u64 {
            let mut batch = Batch::new();
            for cf in Cf::ALL {
                batch.put(cf, "same", n.to_be_bytes().to_vec());
            }
            batch.put(Cf::Default, format!("filler{}", n * 7919 % 1000), vec![7; 200]);
            engine.write(batch).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}

fn syncs_from_many_threads(kind: Kind) {
    let mut home = Home::new(kind);
    let synced = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (engine, synced) = (home.engine(), &synced);
            scope.spawn(move || {
                for number in 0..20 {
                    put(engine, Cf::Default, &format!("{thread}-{number}"), "v");
                    engine.sync().unwrap();
                    synced.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(synced.into_inner(), 160);
    home.reopen();
    assert_eq!(contents(&*home.engine().snapshot(), Cf::Default).len(), 160);
}

#[derive(Clone, Debug)]
enum Act {
    Write(Vec<(usize, String, Option<String>)>),
    DeleteRange(usize, String, String),
    Ingest(usize, std::collections::BTreeMap<String, String>),
    Snapshot,
    Forget,
    Sync,
    Reopen,
    Walk(usize, String, String, Vec<Move>),
}

#[derive(Clone, Debug)]
enum Move {
    Next,
    Prev,
    Seek(String),
    SeekForPrev(String),
}

fn key() -> impl Strategy<Value = String> {
    "[a-d]{1,3}"
}

fn bound() -> impl Strategy<Value = String> {
    "[a-d]{0,3}"
}

fn act() -> impl Strategy<Value = Act> {
    let value = prop_oneof![4 => "[x-z]{0,4}", 1 => "[x-z]{4}".prop_map(|s| s.repeat(2000))];
    let change = (0..4usize, key(), prop::option::weighted(0.7, value.clone()));
    let step = prop_oneof![
        4 => Just(Move::Next),
        4 => Just(Move::Prev),
        2 => bound().prop_map(Move::Seek),
        2 => bound().prop_map(Move::SeekForPrev),
    ];
    prop_oneof![
        12 => prop::collection::vec(change, 1..8).prop_map(Act::Write),
        1 => (0..4usize, bound(), bound()).prop_map(|(cf, a, b)| Act::DeleteRange(cf, a, b)),
        1 => (0..4usize, prop::collection::btree_map(key(), value, 0..9)).prop_map(|(cf, pairs)| Act::Ingest(cf, pairs)),
        2 => Just(Act::Snapshot),
        1 => Just(Act::Forget),
        1 => Just(Act::Sync),
        1 => Just(Act::Reopen),
        6 => (0..4usize, bound(), bound(), prop::collection::vec(step, 1..20)).prop_map(|(cf, a, b, moves)| Act::Walk(cf, a, b, moves)),
    ]
}

fn in_range(key: &[u8], start: &str, end: &str) -> bool {
    key >= start.as_bytes() && (end.is_empty() || key < end.as_bytes())
}

/// Where a walk over `pairs` stands: before the first, on one, or past an end.
fn walk_model(pairs: &[(Vec<u8>, Vec<u8>)], moves: &[Move]) -> Vec<Option<(Bytes, Bytes)>> {
    let mut at: Option<Option<usize>> = None;
    let mut found = Vec::new();
    for step in moves {
        let next = match (step, at) {
            (Move::Seek(key), _) => pairs.iter().position(|(k, _)| **k >= *key.as_bytes()),
            (Move::SeekForPrev(key), _) => pairs.iter().rposition(|(k, _)| **k <= *key.as_bytes()),
            (Move::Next, None) => (!pairs.is_empty()).then_some(0),
            (Move::Prev, None) => pairs.len().checked_sub(1),
            (Move::Next, Some(Some(i))) => (i + 1 < pairs.len()).then_some(i + 1),
            (Move::Prev, Some(Some(i))) => i.checked_sub(1),
            (_, Some(None)) => None,
        };
        at = Some(next);
        found.push(next.map(|i| (Bytes::from(pairs[i].0.clone()), Bytes::from(pairs[i].1.clone()))));
    }
    found
}

fn run_walk(snapshot: &dyn Snapshot, model: &Model, cf: usize, start: &str, end: &str, moves: &[Move]) {
    let pairs: Vec<_> = model[cf]
        .iter()
        .filter(|(k, _)| in_range(k, start, end))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let mut cursor = snapshot.cursor(Cf::ALL[cf], start.as_bytes(), end.as_bytes()).unwrap();
    let found: Vec<_> = moves
        .iter()
        .map(|step| match step {
            Move::Next => cursor.next().unwrap(),
            Move::Prev => cursor.prev().unwrap(),
            Move::Seek(key) => cursor.seek(key.as_bytes()).unwrap(),
            Move::SeekForPrev(key) => cursor.seek_for_prev(key.as_bytes()).unwrap(),
        })
        .collect();
    assert_eq!(found, walk_model(&pairs, moves), "{moves:?} over {start:?}..{end:?}");
}

fn run_acts(kind: Kind, acts: &[Act]) {
    let mut home = Home::new(kind);
    let mut model = Model::default();
    let mut snapshots: Vec<(Arc<dyn Snapshot>, Model)> = Vec::new();
    for act in acts {
        let engine = home.engine();
        match act {
            Act::Write(changes) => {
                let mut batch = Batch::new();
                for (cf, key, value) in changes {
                    match value {
                        Some(value) => {
                            model[*cf].insert(key.clone().into(), value.clone().into());
                            batch.put(Cf::ALL[*cf], key.clone(), value.clone());
                        }
                        None => {
                            model[*cf].remove(key.as_bytes());
                            batch.delete(Cf::ALL[*cf], key.clone());
                        }
                    }
                }
                engine.write(batch).unwrap();
            }
            Act::DeleteRange(cf, start, end) => {
                engine.delete_range(Cf::ALL[*cf], start.as_bytes(), end.as_bytes()).unwrap();
                model[*cf].retain(|key, _| !in_range(key, start, end));
            }
            Act::Ingest(cf, pairs) => {
                let mut iter = pairs.iter().map(|(k, v)| (Bytes::from(k.clone()), Bytes::from(v.clone())));
                engine.ingest(Cf::ALL[*cf], &mut iter).unwrap();
                model[*cf].extend(pairs.iter().map(|(k, v)| (k.clone().into(), v.clone().into())));
            }
            Act::Snapshot => snapshots.push((engine.snapshot(), model.clone())),
            Act::Forget => drop(snapshots.pop()),
            Act::Sync => engine.sync().unwrap(),
            Act::Reopen => {
                snapshots.clear();
                home.reopen();
                assert_same(&*home.engine().snapshot(), &model, "reopened");
            }
            Act::Walk(cf, start, end, moves) => {
                run_walk(&*engine.snapshot(), &model, *cf, start, end, moves);
                if let Some((snapshot, model)) = snapshots.first() {
                    run_walk(&**snapshot, model, *cf, start, end, moves);
                }
            }
        }
    }
    assert_same(&*home.engine().snapshot(), &model, "at the end");
    for (snapshot, model) in &snapshots {
        assert_same(&**snapshot, model, "in a snapshot");
    }
    for cf in Cf::ALL {
        for (key, value) in &model[cf as usize] {
            assert_eq!(home.engine().get(cf, key).unwrap().as_deref(), Some(value.as_slice()));
        }
    }
}

fn like_a_model(kind: Kind) {
    let cases = if kind == Kind::Memory { 256 } else { 24 };
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&prop::collection::vec(act(), 1..120), |acts| {
            run_acts(kind, &acts);
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_second_engine_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = FjallEngine::open(dir.path(), &small()).unwrap();
    let error = FjallEngine::open(dir.path(), &small()).unwrap_err();
    assert!(
        matches!(&error, Error::Locked { dir: told } if *told == dir.path().display().to_string()),
        "{error:?}"
    );
    let snapshot = first.snapshot();
    drop(first);
    assert!(
        matches!(FjallEngine::open(dir.path(), &small()), Err(Error::Locked { .. })),
        "a snapshot still reads the files"
    );
    drop(snapshot);
    FjallEngine::open(dir.path(), &small()).unwrap();
}

#[test]
fn a_new_directory_is_small() {
    let dir = tempfile::tempdir().unwrap();
    let engine = FjallEngine::open(dir.path(), &Default::default()).unwrap();
    assert!(engine.disk_bytes() < 100_000, "{}", engine.disk_bytes());
    let files = walk_files(dir.path());
    assert!(files < 100_000, "{files} bytes in files");
}

fn walk_files(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            if entry.path().is_dir() {
                walk_files(&entry.path())
            } else {
                entry.metadata().unwrap().len()
            }
        })
        .sum()
}
