//! [`Concurrency`]: what readers and async commits of one store must agree on: the greatest timestamp read at, and the locks of
//! prewrites whose `min_commit_ts` is fixed but which no snapshot shows yet.
//!
//! A reader raises `max_ts`, then looks for locks, then takes its snapshot. A prewrite enters its locks, then reads `max_ts`, and takes
//! them out once its write is applied. So of a reader and a prewrite that meet, either the prewrite sees the reader's timestamp and
//! commits above it, or the reader sees the lock; and a lock that the reader found gone is in the snapshot that it takes afterwards.
//! Both rest on one total order of the accesses to `max_ts` and `count`, hence sequential consistency.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use base::Ts;
use parking_lot::RwLock;

use crate::error::{Error, Result};
use crate::key::Key;
use crate::lock::Lock;
use crate::mvcc::ReadOptions;

#[derive(Default)]
struct Table {
    max_ts: AtomicU64,
    /// No read may go beyond; zero: not known yet.
    limit: AtomicU64,
    /// At least the number of locks: raised before they enter, lowered after they left. Spares readers the lock below.
    count: AtomicUsize,
    locks: RwLock<BTreeMap<Key, Lock>>,
}

/// See the module. One per store, shared.
pub struct Concurrency {
    table: Arc<Table>,
}

impl Concurrency {
    /// `max_ts`: at or above every timestamp that this store read at in an earlier life, or the scheduler's synchronisation covers it.
    pub fn new(max_ts: Ts) -> Concurrency {
        let table = Table::default();
        table.max_ts.store(max_ts.0, SeqCst);
        Concurrency { table: Arc::new(table) }
    }

    /// The greatest timestamp known to have been read at.
    pub fn max_ts(&self) -> Ts {
        Ts(self.table.max_ts.load(SeqCst))
    }

    /// Notes a read at `ts`. A read at the greatest timestamp wants the latest version and keeps nobody from committing: it is ignored.
    /// [`Error::TsTooLarge`] above the [limit](Concurrency::raise_limit).
    pub fn raise_max_ts(&self, ts: Ts) -> Result<()> {
        if ts == Ts::MAX {
            return Ok(());
        }
        let limit = Ts(self.table.limit.load(SeqCst));
        if ts > limit && limit.is_some() {
            return Err(Error::TsTooLarge { ts, limit });
        }
        self.table.max_ts.fetch_max(ts.0, SeqCst);
        Ok(())
    }

    /// Raises it by what the TSO gave.
    pub fn raise_max_ts_by_tso(&self, ts: Ts) {
        self.table.max_ts.fetch_max(ts.0, SeqCst);
    }

    /// No timestamp that the TSO gives before this is raised again is above `limit`.
    pub fn raise_limit(&self, limit: Ts) {
        self.table.limit.fetch_max(limit.0, SeqCst);
    }

    /// `Error::Locked` when a lock in memory hides `key` from a read, whose timestamp must have been given to
    /// [`raise_max_ts`](Concurrency::raise_max_ts) before, and whose snapshot must be taken afterwards.
    pub fn check_key(&self, key: &Key, options: &ReadOptions) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        match self.table.locks.read().get(key) {
            Some(lock) => options.check_lock(key, lock),
            None => Ok(()),
        }
    }

    /// [`check_key`](Concurrency::check_key) for all keys of `[start, end)`, encoded; an empty end is none.
    pub fn check_range(&self, start: &[u8], end: &[u8], options: &ReadOptions) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let locks = self.table.locks.read();
        let from = (Bound::Included(Key::from_encoded(start.to_vec().into())), Bound::Unbounded);
        locks
            .range(from)
            .take_while(|(key, _)| end.is_empty() || key.encoded()[..] < *end)
            .try_for_each(|(key, lock)| options.check_lock(key, lock))
    }

    /// Enters locks of an async commit or a one-phase commit, and returns their `min_commit_ts`, now filled in: one for all, above `max_ts`
    /// and each lock's `start_ts` and `for_update_ts`, and not below `floor`. The guard takes them out again. The caller holds the
    /// latches of the keys, so nobody else enters them meanwhile.
    pub fn lock_keys(&self, locks: Vec<(Key, Lock)>, floor: Ts) -> (Ts, Guard) {
        let own = locks.iter().map(|(_, lock)| lock.start_ts.max(lock.for_update_ts)).max();
        let mut table = self.table.locks.write();
        self.table.count.fetch_add(locks.len(), SeqCst);
        let read = self.max_ts().max(own.unwrap_or_default());
        let min_commit_ts = Ts(read.0.saturating_add(1)).max(floor);
        let mut keys = Vec::with_capacity(locks.len());
        for (key, mut lock) in locks {
            lock.min_commit_ts = min_commit_ts;
            let start_ts = lock.start_ts;
            let before = table.insert(key.clone(), lock);
            // Of the same transaction if a request names a key twice.
            let own = before.as_ref().is_none_or(|before| before.start_ts == start_ts);
            assert!(
                own,
                "prewrites of {start_ts} and another are under way on one key: {before:?}"
            );
            keys.push(key);
        }
        drop(table);
        let table = self.table.clone();
        (min_commit_ts, Guard { table, keys })
    }

    fn is_empty(&self) -> bool {
        self.table.count.load(SeqCst) == 0
    }
}

/// Locks in memory; they go when it is dropped, which must be after their write is applied or will not be.
#[must_use]
pub struct Guard {
    table: Arc<Table>,
    keys: Vec<Key>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut locks = self.table.locks.write();
        for key in &self.keys {
            locks.remove(key);
        }
        drop(locks);
        self.table.count.fetch_sub(self.keys.len(), SeqCst);
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Guard").field(&self.keys).finish()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::lock::LockKind;

    fn key(key: &str) -> Key {
        Key::from_user(key.as_bytes())
    }

    fn lock(name: &str, start_ts: u64) -> (Key, Lock) {
        let primary = Bytes::copy_from_slice(name.as_bytes());
        (key(name), Lock::new(LockKind::Put, primary, Ts(start_ts), 3000))
    }

    fn at(ts: u64) -> ReadOptions {
        ReadOptions::snapshot(Ts(ts))
    }

    fn is_locked(result: Result<()>) -> bool {
        match result {
            Ok(()) => false,
            Err(Error::Locked(_)) => true,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn min_commit_ts_passes_every_read_before_and_locks_every_read_after() {
        let concurrency = Concurrency::new(Ts(10));
        for ts in [Ts(30), Ts(20), Ts::MAX] {
            concurrency.raise_max_ts(ts).expect("no limit is known");
        }
        let (min_commit_ts, guard) = concurrency.lock_keys(vec![lock("a", 25), lock("c", 25)], Ts(0));
        assert_eq!(min_commit_ts, Ts(31));
        assert!(!is_locked(concurrency.check_key(&key("a"), &at(30))), "it commits above");
        assert!(is_locked(concurrency.check_key(&key("a"), &at(31))));
        assert!(!is_locked(concurrency.check_key(&key("b"), &at(40))));
        drop(guard);
        assert!(
            !is_locked(concurrency.check_key(&key("a"), &at(31))),
            "its snapshot will show it"
        );
        assert!(concurrency.is_empty());
    }

    #[test]
    fn a_timestamp_that_no_tso_gave_is_refused_and_not_noted() {
        let concurrency = Concurrency::new(Ts(10));
        concurrency.raise_limit(Ts(100));
        concurrency.raise_limit(Ts(90));
        concurrency.raise_max_ts(Ts(100)).expect("at the limit");
        concurrency.raise_max_ts(Ts::MAX).expect("the latest version");
        let refused = concurrency.raise_max_ts(Ts(u64::MAX - 1));
        assert!(
            matches!(refused, Err(Error::TsTooLarge { limit: Ts(100), .. })),
            "{refused:?}"
        );
        assert_eq!(concurrency.max_ts(), Ts(100));
    }

    #[test]
    fn min_commit_ts_is_above_the_transactions_own_timestamps_and_not_below_the_floor() {
        let concurrency = Concurrency::new(Ts(1));
        assert_eq!(concurrency.lock_keys(vec![lock("a", 25)], Ts(0)).0, Ts(26));
        assert_eq!(concurrency.lock_keys(vec![lock("a", 25)], Ts(40)).0, Ts(40));
        let (key, mut lock) = lock("a", 25);
        lock.for_update_ts = Ts(50);
        assert_eq!(concurrency.lock_keys(vec![(key, lock)], Ts(40)).0, Ts(51));
    }

    #[test]
    fn ranges_are_half_open() {
        let concurrency = Concurrency::new(Ts(1));
        let (_, _guard) = concurrency.lock_keys(vec![lock("b", 5), lock("d", 5)], Ts(0));
        let range = |start: &str, end: &str| {
            let bound = |name: &str| match name {
                "" => Bytes::new(),
                name => key(name).encoded().clone(),
            };
            is_locked(concurrency.check_range(&bound(start), &bound(end), &at(9)))
        };
        let cases = [
            ("", "", true),
            ("a", "b", false),
            ("a", "c", true),
            ("b", "c", true),
            ("c", "d", false),
            ("c", "", true),
            ("e", "", false),
        ];
        for (start, end, locked) in cases {
            assert_eq!(range(start, end), locked, "[{start}, {end})");
        }
    }

    #[test]
    fn readers_and_prewrites_on_threads_never_miss_each_other() {
        let concurrency = Arc::new(Concurrency::new(Ts(1)));
        let rounds = 2000;
        for round in 1..=rounds {
            let ts = Ts(round * 10);
            let reader = {
                let concurrency = concurrency.clone();
                base::thread::spawn("reader", move || {
                    concurrency.raise_max_ts(ts).expect("no limit is known");
                    is_locked(concurrency.check_key(&key("a"), &at(ts.0)))
                })
            };
            let (min_commit_ts, guard) = concurrency.lock_keys(vec![lock("a", ts.0 - 5)], Ts(0));
            let locked = reader.join().expect("reads");
            assert!(
                locked || min_commit_ts > ts,
                "a read at {ts} missed a commit at {min_commit_ts}"
            );
            drop(guard);
        }
    }
}
