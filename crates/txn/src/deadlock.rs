//! [`Detector`]: who waits for whom over the whole cluster, and whether a new wait would close a circle.
//!
//! It runs on one store at a time, the leader of the region that holds the first key; the others send it their waits. What it knows is
//! allowed to be lost, with its leadership for instance: every wait is told again as long as it lasts, and forgotten when it is not
//! told again for a while. So a circle is found in the end, and one that is long gone is not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base::{MonoTime, Ts};
use bytes::Bytes;

use crate::error::WaitFor;
use crate::scheduler::{Deadlock, WAIT_RETOLD};

/// A wait not told again for so long is over.
const EDGE_LIFE: Duration = Duration::from_secs(10);
/// Between two times that all are looked at for those over.
const SWEEP: Duration = Duration::from_secs(5);
/// Waits known at once; beyond, new ones are checked but not remembered, so that a circle may be found only when one is told again.
const EDGES_MAX: usize = 100_000;

const _: () = assert!(EDGE_LIFE.as_millis() >= 5 * WAIT_RETOLD.as_millis());

/// For whom, and over which key, by its hash.
type To = (Ts, u64);

#[derive(Debug)]
struct Edge {
    key: Bytes,
    resource_group_tag: Bytes,
    told: MonoTime,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Detector {
    waits: BTreeMap<Ts, BTreeMap<To, Edge>>,
    len: usize,
    swept: MonoTime,
}

impl Detector {
    /// Notes a wait, unless it would close a circle: then that is returned and nothing noted.
    pub fn detect(&mut self, now: MonoTime, wait: &WaitFor) -> Option<Deadlock> {
        self.maybe_sweep(now);
        if let Some(chain) = self.chain(now, wait) {
            let closing = chain.last().expect("a chain leads somewhere");
            return Some(Deadlock {
                wait: wait.clone(),
                deadlock_key_hash: closing.key_hash,
                deadlock_key: closing.key.clone(),
                chain: chain.into_iter().chain([wait.clone()]).collect(),
            });
        }
        self.note(now, wait);
        None
    }

    /// The wait is over.
    pub fn unwait(&mut self, wait: &WaitFor) {
        if let Some(edges) = self.waits.get_mut(&wait.waiter) {
            self.len -= usize::from(edges.remove(&(wait.holder, wait.key_hash)).is_some());
            if edges.is_empty() {
                self.waits.remove(&wait.waiter);
            }
        }
    }

    /// Forgets all: another store detects now, or this one begins to.
    pub fn clear(&mut self) {
        *self = Detector::default();
    }

    /// All waits known, in order of waiter and holder.
    pub fn waits(&self) -> impl Iterator<Item = WaitFor> {
        let of = |(&waiter, edges)| edges_of(waiter, edges);
        self.waits.iter().flat_map(of)
    }

    /// The shortest chain of waits from the holder to the waiter, if there is one.
    fn chain(&self, now: MonoTime, wait: &WaitFor) -> Option<Vec<WaitFor>> {
        // Reached from, by what was reached; breadth first.
        let mut from: BTreeMap<Ts, WaitFor> = BTreeMap::new();
        let mut level = BTreeSet::from([wait.holder]);
        while !level.is_empty() && wait.holder != wait.waiter {
            let mut next = BTreeSet::new();
            for waiter in level {
                for edge in self.living(now, waiter) {
                    let holder = edge.holder;
                    if holder == wait.holder || from.contains_key(&holder) {
                        continue;
                    }
                    from.insert(holder, edge);
                    next.insert(holder);
                    if holder == wait.waiter {
                        return Some(way_back(from, wait));
                    }
                }
            }
            level = next;
        }
        None
    }

    fn living(&self, now: MonoTime, waiter: Ts) -> impl Iterator<Item = WaitFor> {
        let edges = self.waits.get(&waiter).into_iter().flatten();
        edges
            .filter(move |(_, edge)| now.since(edge.told) < EDGE_LIFE)
            .map(move |(to, edge)| wait_for(waiter, to, edge))
    }

    fn note(&mut self, now: MonoTime, wait: &WaitFor) {
        let to = (wait.holder, wait.key_hash);
        let known = self.waits.get(&wait.waiter).is_some_and(|edges| edges.contains_key(&to));
        if !known && self.len >= EDGES_MAX {
            return;
        }
        let edge = Edge {
            key: wait.key.clone(),
            resource_group_tag: wait.resource_group_tag.clone(),
            told: now,
        };
        self.waits.entry(wait.waiter).or_default().insert(to, edge);
        self.len += usize::from(!known);
    }

    fn maybe_sweep(&mut self, now: MonoTime) {
        if now.since(self.swept) < SWEEP {
            return;
        }
        self.swept = now;
        self.waits.retain(|_, edges| {
            edges.retain(|_, edge| now.since(edge.told) < EDGE_LIFE);
            !edges.is_empty()
        });
        self.len = self.waits.values().map(BTreeMap::len).sum();
    }
}

fn edges_of(waiter: Ts, edges: &BTreeMap<To, Edge>) -> impl Iterator<Item = WaitFor> {
    edges.iter().map(move |(to, edge)| wait_for(waiter, to, edge))
}

fn wait_for(waiter: Ts, to: &To, edge: &Edge) -> WaitFor {
    WaitFor {
        waiter,
        holder: to.0,
        key: edge.key.clone(),
        key_hash: to.1,
        resource_group_tag: edge.resource_group_tag.clone(),
    }
}

/// The edges from `wait.holder` to `wait.waiter`, in order.
fn way_back(mut from: BTreeMap<Ts, WaitFor>, wait: &WaitFor) -> Vec<WaitFor> {
    let mut chain = Vec::new();
    let mut at = wait.waiter;
    while at != wait.holder {
        let edge = from.remove(&at).expect("each was reached from another, back to the holder");
        at = edge.waiter;
        chain.push(edge);
    }
    chain.reverse();
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(waiter: u64, holder: u64, key: &'static str) -> WaitFor {
        WaitFor {
            waiter: Ts(waiter),
            holder: Ts(holder),
            key: key.into(),
            key_hash: key.bytes().map(u64::from).sum(),
            resource_group_tag: "tag".into(),
        }
    }

    fn at(seconds: u64) -> MonoTime {
        MonoTime(seconds * 1_000_000_000)
    }

    #[test]
    fn a_circle_is_found_and_told_edge_by_edge() {
        let mut detector = Detector::default();
        assert_eq!(detector.detect(at(1), &wait(1, 2, "a")), None);
        assert_eq!(detector.detect(at(1), &wait(1, 9, "z")), None);
        assert_eq!(detector.detect(at(1), &wait(2, 3, "b")), None);
        assert_eq!(detector.detect(at(1), &wait(2, 3, "b")), None, "told again");
        let closing = wait(3, 1, "c");
        let expected = Deadlock {
            wait: closing.clone(),
            deadlock_key_hash: u64::from(b'b'),
            deadlock_key: "b".into(),
            chain: vec![wait(1, 2, "a"), wait(2, 3, "b"), closing.clone()],
        };
        assert_eq!(detector.detect(at(1), &closing), Some(expected));
        assert_eq!(detector.waits().count(), 3, "the wait refused is not noted");
    }

    #[test]
    fn the_shortest_circle_is_told() {
        let mut detector = Detector::default();
        for edge in [wait(1, 2, "a"), wait(2, 3, "b"), wait(3, 4, "c"), wait(1, 4, "d")] {
            assert_eq!(detector.detect(at(1), &edge), None);
        }
        let found = detector.detect(at(1), &wait(4, 1, "e")).expect("a circle");
        assert_eq!(found.chain, [wait(1, 4, "d"), wait(4, 1, "e")]);
    }

    #[test]
    fn waits_that_ended_close_no_circle() {
        let mut detector = Detector::default();
        assert_eq!(detector.detect(at(1), &wait(1, 2, "a")), None);
        assert_eq!(detector.detect(at(1), &wait(1, 2, "b")), None);
        detector.unwait(&wait(1, 2, "a"));
        assert!(detector.detect(at(1), &wait(2, 1, "c")).is_some(), "it still waits over b");
        detector.unwait(&wait(1, 2, "b"));
        assert_eq!(detector.detect(at(1), &wait(2, 1, "c")), None);
        detector.unwait(&wait(2, 1, "c"));
        assert_eq!(detector.detect(at(1), &wait(1, 2, "a")), None);
        assert_eq!((detector.len, detector.waits().count()), (1, 1));
        detector.clear();
        assert_eq!(detector.detect(at(1), &wait(2, 1, "c")), None);
    }

    #[test]
    fn waits_are_forgotten_unless_told_again() {
        let mut detector = Detector::default();
        assert_eq!(detector.detect(at(1), &wait(1, 2, "a")), None);
        assert_eq!(detector.detect(at(1), &wait(5, 6, "b")), None);
        assert_eq!(detector.detect(at(9), &wait(5, 6, "b")), None);
        assert_eq!(detector.detect(at(11), &wait(2, 1, "c")), None);
        assert!(detector.detect(at(15), &wait(6, 5, "c")).is_some());
        assert_eq!((detector.len, detector.waits().count()), (2, 2), "swept");
    }

    #[test]
    fn a_circle_beside_the_way_is_no_trap() {
        let mut detector = Detector::default();
        for edge in [wait(2, 3, "a"), wait(3, 4, "b")] {
            assert_eq!(detector.detect(at(1), &edge), None);
        }
        // As it would stand if edges of a circle came before the detector knew of the others.
        detector.note(at(1), &wait(4, 2, "c"));
        assert_eq!(detector.detect(at(1), &wait(1, 2, "d")), None);
        assert_eq!(
            detector.detect(at(1), &wait(9, 9, "d")),
            None,
            "a transaction does not wait for itself"
        );
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let mut detector = Detector::default();
        for waiter in 0..EDGES_MAX as u64 {
            assert_eq!(detector.detect(at(1), &wait(10 + waiter, 1, "a")), None);
        }
        assert_eq!(detector.detect(at(1), &wait(5, 6, "b")), None);
        assert_eq!(detector.detect(at(1), &wait(6, 5, "b")), None, "not remembered");
        assert!(detector.detect(at(1), &wait(1, 10, "c")).is_some(), "remembered before");
        assert_eq!(detector.detect(at(20), &wait(5, 6, "b")), None);
        assert!(detector.detect(at(20), &wait(6, 5, "b")).is_some());
    }
}
