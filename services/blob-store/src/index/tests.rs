use std::collections::{BTreeMap, VecDeque};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

fn key(n: u64) -> Key {
    Key::sha256(&n.to_le_bytes())
}

fn entry(n: u64, stored: u64) -> Entry {
    let mut entry = Entry::new(key(n), Place::File(n), Form::Raw);
    (entry.len, entry.stored) = (stored, stored);
    entry
}

#[test]
fn places_round_trip() {
    for place in [
        Place::File(0),
        Place::File((1 << 63) - 1),
        Place::Segment(0, 0),
        Place::Segment(u32::MAX >> 1, u32::MAX),
    ] {
        assert_eq!(Place::unpack(place.pack()), place);
    }
}

#[test]
fn an_entry_stays_below_120_bytes() {
    let mut index = Index::default();
    for n in 0..600_000 {
        index.insert(entry(n, 10));
    }
    let bytes = index.memory() as f64 / 600_000.0;
    assert!(bytes <= 116.0, "{bytes} bytes an entry, and 4 more in its segment's list");
}

/// The index against a map: contents, sums, and that victims come out until nothing is left.
#[test]
fn agrees_with_a_model() {
    let mut rng = SmallRng::seed_from_u64(7);
    let (mut index, mut model) = (Index::default(), BTreeMap::new());
    for step in 0..200_000u32 {
        let n = rng.random_range(0..3000u64);
        match rng.random_range(0..10) {
            0..4 => {
                let stored = rng.random_range(1..1000);
                let (replaced, slot) = index.insert(entry(n, stored));
                assert_eq!(replaced.map(|e| e.stored), model.insert(n, stored));
                assert_eq!(index.at(slot).expect("just filled").key, key(n));
            }
            4..8 => assert_eq!(index.touch(&key(n), step).is_some(), model.contains_key(&n)),
            _ => assert_eq!(index.remove(&key(n)).map(|e| e.stored), model.remove(&n)),
        }
        assert_eq!(index.len(), model.len());
    }
    assert_eq!(index.stored(), model.values().sum::<u64>());
    let mut listed = Vec::new();
    for start in (0..).step_by(1000) {
        let (live, more) = index.chunk(start, 1000);
        listed.extend(live);
        if !more {
            break;
        }
    }
    assert_eq!(listed.len(), model.len());
    while let Some(victim) = index.victim().map(|e| e.key) {
        index.remove(&victim);
    }
    assert!(index.is_empty() && index.stored() == 0);
}

/// Builds reuse a working set with a long tail, while every few thousand requests something reads far more blobs than fit, once.
fn trace() -> Vec<u64> {
    let mut rng = SmallRng::seed_from_u64(99);
    let mut requests = Vec::new();
    let mut cold = 1_000_000;
    for round in 0..40 {
        for _ in 0..4000 {
            let skewed = rng.random_range(0.0f64..1.0).powi(3) * 1500.0;
            requests.push(skewed as u64 + round * 20);
        }
        for _ in 0..1500 {
            cold += 1;
            requests.push(cold);
        }
    }
    requests
}

const ROOM: u64 = 1000;

fn hits_segmented(trace: &[u64]) -> usize {
    let mut index = Index::default();
    let mut hits = 0;
    for &n in trace {
        if index.touch(&key(n), 0).is_some() {
            hits += 1;
            continue;
        }
        index.insert(entry(n, 1));
        while index.stored() > ROOM {
            let victim = index.victim().expect("not empty").key;
            index.remove(&victim);
        }
    }
    hits
}

fn hits_plain(trace: &[u64]) -> usize {
    let mut queue: VecDeque<u64> = VecDeque::new();
    let mut hits = 0;
    for n in trace {
        if let Some(at) = queue.iter().position(|held| held == n) {
            hits += 1;
            queue.remove(at);
        }
        queue.push_back(*n);
        if queue.len() as u64 > ROOM {
            queue.pop_front();
        }
    }
    hits
}

#[test]
fn scans_do_not_evict_what_is_reused() {
    let trace = trace();
    let (ours, plain) = (hits_segmented(&trace), hits_plain(&trace));
    println!(
        "hit rate: {:.3}, plain LRU {:.3}",
        ours as f64 / trace.len() as f64,
        plain as f64 / trace.len() as f64
    );
    assert!(ours >= plain, "{ours} hits, plain LRU has {plain}");
    assert!(
        ours * 10 > plain * 11,
        "{ours} hits, plain LRU has {plain}: scans got through"
    );
}
