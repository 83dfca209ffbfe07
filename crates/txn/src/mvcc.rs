//! Reads over versions: what a key was at a timestamp, and whose lock hides it.
//!
//! Family lock holds at most one lock a key, family write its commit records newest first, family default the values too long for a
//! record. A reader of a timestamp sees of each key the newest put or delete committed at or before it, unless a lock says that another
//! commit at or before it may be under way: [`ReadOptions::check_lock`] is the one place of that rule.

mod get;
mod inspect;
mod reader;
mod scan;

use base::Ts;
use bytes::Bytes;

pub use get::get;
pub(crate) use inspect::Locks;
pub use inspect::{History, find_transaction, history, scan_locks};
pub(crate) use reader::{Fate, Reader, Versions};
pub use scan::{Scan, Scanner};

use crate::error::{ConflictReason, Error, Result};
use crate::key::Key;
use crate::lock::{Lock, LockKind, Locked};
use crate::planted;
use crate::write::Write;

/// What a read must not see, and what it must not miss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Everything committed at or before the timestamp, nothing else. Waits for locks that may become such.
    #[default]
    Snapshot,
    /// The newest committed version at the timestamp, whatever is under way.
    ReadCommitted,
    /// As read-committed, but a conflict if anything newer than the timestamp is there or under way.
    ReadCommittedCheckTs,
}

/// How to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The greatest timestamp wants the latest version.
    pub ts: Ts,
    pub isolation: Isolation,
    /// Transactions that cannot commit at or before `ts`: their locks do not hide anything.
    pub bypass_locks: Vec<Ts>,
    /// Transactions that are committed at or before `ts`: what their locks hold is read as if their commit records were there.
    pub access_locks: Vec<Ts>,
}

impl ReadOptions {
    /// A plain snapshot read.
    pub fn snapshot(ts: Ts) -> ReadOptions {
        ReadOptions {
            ts,
            ..ReadOptions::default()
        }
    }

    /// Whether `lock` on `key` keeps this read from answering: `Error::Locked`, or a write conflict under the check of read-committed.
    /// `access_locks` do not count here; who looks at a lock's value asks `accesses` first.
    pub fn check_lock(&self, key: &Key, lock: &Lock) -> Result<()> {
        let no_data = matches!(lock.kind, LockKind::Lock | LockKind::Pessimistic);
        if no_data || self.bypass_locks.contains(&lock.start_ts) || planted::on(planted::Bug::NoLockCheck) {
            return Ok(());
        }
        match self.isolation {
            Isolation::Snapshot if self.hides(key, lock) => Err(Error::Locked(Box::new(Locked {
                key: key.clone(),
                lock: lock.clone(),
            }))),
            Isolation::Snapshot | Isolation::ReadCommitted => Ok(()),
            Isolation::ReadCommittedCheckTs => Err(Error::WriteConflict {
                start_ts: self.ts,
                conflict_start_ts: lock.start_ts,
                conflict_commit_ts: Ts::default(),
                key: key.clone(),
                primary: lock.primary.clone(),
                reason: ConflictReason::RcCheckTs,
            }),
        }
    }

    /// Whether the transaction of a lock with data may commit at or before `ts`, or have done so.
    fn hides(&self, key: &Key, lock: &Lock) -> bool {
        if lock.start_ts > self.ts || lock.min_commit_ts > self.ts {
            return false;
        }
        // Who wants the latest version may as well have come before an ordinary commit, which its primary's record makes. An async commit
        // may be done already, and its client told.
        let before_commit = self.ts == Ts::MAX && !lock.use_async_commit && key.is_of(&lock.primary);
        !before_commit
    }

    /// Whether locks count at all.
    fn looks_at_locks(&self) -> bool {
        self.isolation != Isolation::ReadCommitted
    }

    /// The newest version that must be looked at.
    fn newest_looked_at(&self) -> Ts {
        match self.isolation {
            Isolation::ReadCommittedCheckTs => Ts::MAX,
            Isolation::Snapshot | Isolation::ReadCommitted => self.ts,
        }
    }

    /// A conflict when the check of read-committed meets a version that is too new.
    fn check_version(&self, key: &Key, commit_ts: Ts, write: &Write) -> Result<()> {
        if commit_ts <= self.ts || !write.is_version() {
            return Ok(());
        }
        Err(Error::WriteConflict {
            start_ts: self.ts,
            conflict_start_ts: write.start_ts,
            conflict_commit_ts: commit_ts,
            key: key.clone(),
            primary: Bytes::new(),
            reason: ConflictReason::RcCheckTs,
        })
    }

    /// Whether the transaction of `lock` is known to be committed at or before `ts`.
    fn accesses(&self, lock: &Lock) -> bool {
        self.access_locks.contains(&lock.start_ts)
    }
}

/// A value with the time of its commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub value: Bytes,
    /// Zero for a value read out of a lock of `access_locks`: its commit record is not written yet.
    pub commit_ts: Ts,
}
