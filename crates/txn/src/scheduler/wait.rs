//! [`Queues`]: pessimistic locks that wait until other transactions let go of a key.
//!
//! The oldest transaction is next, whatever came first: who is turned away with a conflict and comes again keeps its turn, so nobody
//! starves. Those who wait are looked at again now and then even if no lock was seen to go: locks in memory go with a leadership,
//! without a word. The number of all who wait is bounded by the scheduler.

use std::collections::{BTreeMap, BTreeSet};

use base::Ts;

use super::TaskId;
use crate::key::Key;

/// Who waits, by key. A task waits for one key at most.
#[derive(Debug, Default)]
pub struct Queues {
    queues: BTreeMap<Key, BTreeSet<(Ts, TaskId)>>,
    len: usize,
}

impl Queues {
    /// `start_ts` is the waiting transaction's.
    pub fn enter(&mut self, key: Key, start_ts: Ts, task: TaskId) {
        let new = self.queues.entry(key).or_default().insert((start_ts, task));
        assert!(new, "{task:?} waits twice");
        self.len += 1;
    }

    pub fn leave(&mut self, key: &Key, start_ts: Ts, task: TaskId) {
        let queue = self.queues.get_mut(key).expect("the task waits for the key");
        assert!(queue.remove(&(start_ts, task)), "{task:?} does not wait");
        if queue.is_empty() {
            self.queues.remove(key);
        }
        self.len -= 1;
    }

    /// Whose turn it is.
    pub fn first(&self, key: &Key) -> Option<TaskId> {
        Some(self.queues.get(key)?.first()?.1)
    }

    /// All who wait for `key`, the next one first.
    pub fn of(&self, key: &Key) -> impl Iterator<Item = TaskId> {
        self.queues.get(key).into_iter().flatten().map(|(_, task)| *task)
    }

    /// All who wait, in order of keys.
    pub fn all(&self) -> impl Iterator<Item = TaskId> {
        self.queues.values().flatten().map(|(_, task)| *task)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_transaction_is_next_then_the_first_come() {
        let (a, b) = (Key::from_user(b"a"), Key::from_user(b"b"));
        let mut queues = Queues::default();
        queues.enter(a.clone(), Ts(30), TaskId(1));
        queues.enter(a.clone(), Ts(10), TaskId(3));
        queues.enter(a.clone(), Ts(10), TaskId(2));
        queues.enter(b.clone(), Ts(5), TaskId(4));
        assert_eq!(queues.of(&a).collect::<Vec<_>>(), [TaskId(2), TaskId(3), TaskId(1)]);
        assert_eq!(queues.first(&a), Some(TaskId(2)));
        queues.leave(&a, Ts(10), TaskId(2));
        queues.leave(&b, Ts(5), TaskId(4));
        assert_eq!((queues.first(&a), queues.first(&b), queues.len()), (Some(TaskId(3)), None, 2));
        assert_eq!(queues.all().collect::<Vec<_>>(), [TaskId(3), TaskId(1)]);
    }
}
