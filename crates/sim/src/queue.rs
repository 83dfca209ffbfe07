//! What happens next: events by virtual time, ties broken by the order in which they were scheduled.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use base::MonoTime;

/// The future of one simulation. Virtual time moves only by [`pop`](Queue::pop).
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<Scheduled<E>>>,
    now: MonoTime,
    scheduled: u64,
    handled: u64,
}

struct Scheduled<E> {
    at: MonoTime,
    order: u64,
    event: E,
}

impl<E> Queue<E> {
    /// An empty future that begins at `now`.
    pub fn starting_at(now: MonoTime) -> Queue<E> {
        Queue {
            heap: BinaryHeap::new(),
            now,
            scheduled: 0,
            handled: 0,
        }
    }

    pub fn now(&self) -> MonoTime {
        self.now
    }

    /// How many events were taken so far: the "step" that failures name.
    pub fn handled(&self) -> u64 {
        self.handled
    }

    /// Schedules `event`; what lies in the past happens now.
    pub fn push(&mut self, at: MonoTime, event: E) {
        self.scheduled += 1;
        self.heap.push(Reverse(Scheduled {
            at: at.max(self.now),
            order: self.scheduled,
            event,
        }));
    }

    /// Takes the next event and moves the time to it; `None` (and no move) when nothing happens until `end`.
    pub fn pop(&mut self, end: MonoTime) -> Option<E> {
        if self.heap.peek()?.0.at > end {
            return None;
        }
        let Reverse(next) = self.heap.pop()?;
        assert!(next.at >= self.now, "time went back from {:?} to {:?}", self.now, next.at);
        self.now = next.at;
        self.handled += 1;
        Some(next.event)
    }
}

impl<E> Ord for Scheduled<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl<E> Eq for Scheduled<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_time_then_by_order_of_scheduling() {
        let mut queue = Queue::starting_at(MonoTime(10));
        for (at, name) in [(30, "c"), (20, "a"), (20, "b"), (5, "past")] {
            queue.push(MonoTime(at), name);
        }
        let end = MonoTime(25);
        let taken: Vec<_> = std::iter::from_fn(|| queue.pop(end).map(|event| (queue.now(), event))).collect();
        assert_eq!(taken, [(MonoTime(10), "past"), (MonoTime(20), "a"), (MonoTime(20), "b")]);
        assert_eq!(queue.pop(MonoTime(30)), Some("c"));
        assert_eq!(queue.handled(), 4);
    }
}
