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
        let (mut locked, mut elsewhere) = (false, None);
        for key in keys {
            match self.own_lock(key, *start_ts)? {
                Some(lock) if !lock.is_pessimistic() => {
                    self.commit_lock(key, lock, *commit_ts)?;
                    locked = true;
                }
                Some(_) | None => {
                    let done = self.committed_at(key, *start_ts, *commit_ts)?;
                    elsewhere = elsewhere.or((done != *commit_ts).then_some((key, done)));
                }
            }
        }
        match elsewhere {
            None => Ok(Output::Committed { commit_ts: *commit_ts }),
            // A try in one phase came through, its answer did not, and the client came again in two: it has what it wanted.
            Some((_, commit_ts)) if !locked => Ok(Output::Committed { commit_ts }),
            // One phase leaves no locks: such a transaction would lie at two timestamps.
            Some((key, commit_ts)) => Err(Error::Committed {
                start_ts: *start_ts,
                commit_ts,
                key: key.clone(),
            }),
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

    /// Without a lock, the commit must have been done before. Returns where.
    pub(super) fn committed_at(&self, key: &Key, start_ts: Ts, commit_ts: Ts) -> Result<Ts> {
        match self.reader.fate(key, start_ts)? {
            Fate::Committed { commit_ts: done } => Ok(done),
            Fate::RolledBack | Fate::Unknown { .. } => Err(Error::TxnLockNotFound {
                start_ts,
                commit_ts,
                key: key.clone(),
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
