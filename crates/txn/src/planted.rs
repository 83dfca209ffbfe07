//! Planted bugs: faults switched on to prove that the simulator would find them. Compiled in only with the feature `planted`.

/// A fault that transactions could have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// A prewrite does not look for records newer than its transaction.
    NoWriteConflictCheck = 1,
    /// Reads and prewrites go past others' locks.
    NoLockCheck = 2,
    /// A rollback leaves no record.
    LostRollbackRecord = 3,
    /// A commit goes below the `min_commit_ts` of its lock.
    MinCommitTsIgnored = 4,
    /// A new leader answers async commits without asking up to which timestamp others read.
    MaxTsForgotten = 5,
    /// A leader promises that a time is over although locks are there.
    SafeTsPastLocks = 6,
}

impl Bug {
    pub const ALL: [(&'static str, Bug); 6] = [
        ("no-write-conflict-check", Bug::NoWriteConflictCheck),
        ("no-lock-check", Bug::NoLockCheck),
        ("lost-rollback-record", Bug::LostRollbackRecord),
        ("min-commit-ts-ignored", Bug::MinCommitTsIgnored),
        ("max-ts-forgotten", Bug::MaxTsForgotten),
        ("safe-ts-past-locks", Bug::SafeTsPastLocks),
    ];
}

#[cfg(feature = "planted")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local!(static BUG: Cell<u8> = const { Cell::new(0) });

    /// Switches a bug on for this thread, or all off.
    pub fn plant(bug: Option<Bug>) {
        BUG.set(bug.map_or(0, |b| b as u8));
    }

    pub(crate) fn on(bug: Bug) -> bool {
        BUG.get() == bug as u8
    }
}

#[cfg(not(feature = "planted"))]
mod switch {
    #[inline(always)]
    pub(crate) fn on(_: super::Bug) -> bool {
        false
    }
}

pub(crate) use switch::on;
#[cfg(feature = "planted")]
pub use switch::plant;
