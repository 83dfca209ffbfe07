//! Commands over locks of known transactions, wherever in the region they are.
//!
//! What is written must be written under the latch of its key, and which keys hold locks is known only after looking. So a sweep goes in
//! steps: one looks for some locks and writes nothing, the next does them, as a command with these keys, and names where to look on.

use base::Ts;
use bytes::Bytes;

use super::Action;
use super::rollback::Protect;
use crate::command::{Command, Output, ResolveLock};
use crate::error::Result;
use crate::key::Key;
use crate::lock::{Lock, Locked};
use crate::mvcc::Locks;

/// Locks that one step does.
const BATCH: usize = 256;

/// Locks that one step looks at.
const LOOKED_AT_MAX: usize = 4096;

impl Action<'_> {
    pub(super) fn pessimistic_rollback(
        &mut self,
        keys: &[Key],
        start_ts: Ts,
        for_update_ts: Ts,
        scan: Option<&Bytes>,
    ) -> Result<Output> {
        let next = |keys, scan| Command::PessimisticRollback {
            keys,
            start_ts,
            for_update_ts,
            scan,
        };
        if !keys.is_empty() {
            self.release_pessimistic(keys, start_ts, for_update_ts)?;
            self.next = scan.map(|from| next(Vec::new(), Some(from.clone())));
            return Ok(Output::Done);
        }
        let wanted = |lock: &Lock| lock.is_pessimistic() && lock.start_ts == start_ts && lock.for_update_ts <= for_update_ts;
        let (found, scan) = self.look(scan, wanted)?;
        let keys: Vec<Key> = found.into_iter().map(|locked| locked.key).collect();
        if !keys.is_empty() || scan.is_some() {
            self.next = Some(next(keys, scan));
        }
        Ok(Output::Done)
    }

    pub(super) fn resolve_region(&mut self, txns: &[(Ts, Ts)], found: &[(Key, Ts)], scan: Option<&Bytes>) -> Result<Output> {
        let commit_ts = |start_ts: Ts| {
            let at = txns.binary_search_by_key(&start_ts, |(start_ts, _)| *start_ts);
            at.ok().map(|at| txns[at].1)
        };
        let next = |found, scan| {
            let txns = txns.to_vec();
            Command::ResolveLock(ResolveLock::Region { txns, found, scan })
        };
        if !found.is_empty() {
            for (key, start_ts) in found {
                // The lock may have been resolved by another since it was seen, and a stranger's may stand there.
                if let (Some(lock), Some(commit_ts)) = (self.own_lock(key, *start_ts)?, commit_ts(*start_ts)) {
                    self.resolve_lock(key, lock, commit_ts)?;
                }
            }
            self.next = scan.map(|from| next(Vec::new(), Some(from.clone())));
            return Ok(Output::Done);
        }
        let (locks, scan) = self.look(scan, |lock| commit_ts(lock.start_ts).is_some())?;
        let found: Vec<(Key, Ts)> = locks.into_iter().map(|locked| (locked.key, locked.lock.start_ts)).collect();
        if !found.is_empty() || scan.is_some() {
            self.next = Some(next(found, scan));
        }
        Ok(Output::Done)
    }

    /// Keys of one transaction; here a missing lock means that the fate must be on record, or is put there.
    pub(super) fn resolve_keys(&mut self, keys: &[Key], start_ts: Ts, commit_ts: Ts) -> Result<Output> {
        for key in keys {
            match self.own_lock(key, start_ts)? {
                Some(lock) => self.resolve_lock(key, lock, commit_ts)?,
                None if commit_ts.is_some() => drop(self.committed_at(key, start_ts, commit_ts)?),
                None => self.rollback_key(key, start_ts, Protect::ByLock)?,
            }
        }
        Ok(Output::Done)
    }

    fn resolve_lock(&mut self, key: &Key, lock: Lock, commit_ts: Ts) -> Result<()> {
        if !commit_ts.is_some() {
            return self.rollback_key(key, lock.start_ts, Protect::ByLock);
        }
        if lock.is_pessimistic() {
            // The transaction committed without it.
            self.unlock(key, lock.start_ts, None);
            return Ok(());
        }
        self.commit_lock(key, lock, commit_ts)
    }

    /// Some of the locks wanted, and where to look on if that is not all.
    fn look(&self, from: Option<&Bytes>, wanted: impl Fn(&Lock) -> bool) -> Result<(Vec<Locked>, Option<Bytes>)> {
        let from = from.cloned().unwrap_or_default();
        let mut locks = Locks::open(self.input.snapshot, self.input.memory, &from, b"")?;
        let mut found = Vec::new();
        for looked_at in 0.. {
            let Some(locked) = locks.next()? else { break };
            if found.len() == BATCH || looked_at == LOOKED_AT_MAX {
                return Ok((found, Some(locked.key.encoded().clone())));
            }
            if wanted(&locked.lock) {
                found.push(locked);
            }
        }
        Ok((found, None))
    }
}
