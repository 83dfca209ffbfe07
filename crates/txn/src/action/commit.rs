//! Second phase: locks become commit records (Percolator, section 2.2).

use base::Ts;

use super::Action;
use crate::command::{Commit, Output};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::lock::{Lock, LockKind};
use crate::mvcc::Fate;
use crate::planted;
use crate::write::{Write, WriteKind};

impl Action<'_> {
    pub(super) fn commit(&mut self, commit: &Commit) -> Result<Output> {
        let Commit {
            keys,
            start_ts,
            commit_ts,
        } = commit;
        for key in keys {
            self.commit_key(key, *start_ts, *commit_ts)?;
        }
        Ok(Output::Done)
    }

    fn commit_key(&mut self, key: &Key, start_ts: Ts, commit_ts: Ts) -> Result<()> {
        match self.own_lock(key, start_ts)? {
            Some(lock) if !lock.is_pessimistic() => self.commit_lock(key, lock, commit_ts),
            Some(_) | None => self.check_committed(key, start_ts, commit_ts),
        }
    }

    /// Commits by a lock that stands on `key`, which is not pessimistic.
    pub(super) fn commit_lock(&mut self, key: &Key, lock: Lock, commit_ts: Ts) -> Result<()> {
        let Lock {
            start_ts, min_commit_ts, ..
        } = lock;
        if commit_ts <= start_ts {
            return Err(Error::Invalid {
                reason: "commit_ts is not above start_ts",
            });
        }
        if commit_ts < min_commit_ts && !planted::on(planted::Bug::MinCommitTsIgnored) {
            return Err(Error::CommitTsExpired {
                start_ts,
                commit_ts,
                min_commit_ts,
                key: key.clone(),
            });
        }
        let write = Write::new(record_kind(lock.kind), start_ts, lock.short_value);
        self.put_commit(key, commit_ts, write, lock.use_async_commit)?;
        self.unlock(key, start_ts, Some(commit_ts));
        Ok(())
    }

    /// Without a lock, the commit must have been done before.
    pub(super) fn check_committed(&self, key: &Key, start_ts: Ts, commit_ts: Ts) -> Result<()> {
        let key = key.clone();
        match self.reader.fate(&key, start_ts)? {
            Fate::Committed { commit_ts: done } if done == commit_ts => Ok(()),
            Fate::Committed { commit_ts } => Err(Error::Committed {
                start_ts,
                commit_ts,
                key,
            }),
            Fate::RolledBack | Fate::Unknown { .. } => Err(Error::TxnLockNotFound {
                start_ts,
                commit_ts,
                key,
            }),
        }
    }
}

/// What a lock leaves when it is committed.
pub(super) fn record_kind(kind: LockKind) -> WriteKind {
    match kind {
        LockKind::Put => WriteKind::Put,
        LockKind::Delete => WriteKind::Delete,
        LockKind::Lock => WriteKind::Lock,
        LockKind::Pessimistic => unreachable!("pessimistic locks are prewritten or released, never committed"),
    }
}
