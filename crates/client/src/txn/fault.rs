//! [`Fault`]: why a store did not do what it was asked for a key, as far as the client acts on it.

use base::Ts;
use bytes::Bytes;
use proto::kvrpcpb;

use crate::keys::KeyForm;
use crate::{Error, WaitFor};

#[derive(Debug)]
pub(crate) enum Fault {
    /// Others' lock, to be resolved.
    Locked(Box<kvrpcpb::LockInfo>),
    Conflict(kvrpcpb::WriteConflict),
    AlreadyExists(Bytes),
    Deadlock(kvrpcpb::Deadlock),
    /// The commit must come at a later timestamp.
    CommitTsExpired,
    /// Neither lock nor record of the transaction asked about.
    TxnNotFound,
    /// The transaction's own lock is gone.
    LockNotFound,
    /// The key asked about is not the primary.
    PrimaryMismatch,
    Other(String),
}

impl Fault {
    pub fn of(error: kvrpcpb::KeyError) -> Fault {
        if let Some(lock) = error.locked {
            return Fault::Locked(lock);
        }
        if let Some(conflict) = error.conflict {
            return Fault::Conflict(conflict);
        }
        if let Some(exists) = error.already_exist {
            return Fault::AlreadyExists(exists.key);
        }
        if let Some(deadlock) = error.deadlock {
            return Fault::Deadlock(deadlock);
        }
        if error.commit_ts_expired.is_some() {
            return Fault::CommitTsExpired;
        }
        if error.txn_not_found.is_some() {
            return Fault::TxnNotFound;
        }
        if error.primary_mismatch.is_some() {
            return Fault::PrimaryMismatch;
        }
        // Older stores say the latter in words only.
        if error.txn_lock_not_found.is_some() || !error.retryable.is_empty() {
            return Fault::LockNotFound;
        }
        if let Some(too_large) = error.commit_ts_too_large {
            return Fault::Other(format!("commit timestamp {} is above the bound", too_large.commit_ts));
        }
        match error.assertion_failed {
            Some(failed) => Fault::Other(format!("an assertion failed: {:?}", failed.assertion())),
            None => Fault::Other(error.abort),
        }
    }

    /// What the user of transaction `start_ts` is told.
    pub fn into_error(self, start_ts: Ts, form: &KeyForm) -> Error {
        let user = |key: Bytes| form.user(&key).unwrap_or(key);
        match self {
            Fault::Locked(lock) => locked(&lock, form),
            Fault::Conflict(conflict) => Error::WriteConflict {
                start_ts,
                conflict_ts: Ts(conflict.conflict_ts),
                conflict_commit_ts: Ts(conflict.conflict_commit_ts),
                key: user(conflict.key),
            },
            Fault::AlreadyExists(key) => Error::AlreadyExists { key: user(key) },
            Fault::Deadlock(deadlock) => {
                let edge = |entry: proto::deadlock::WaitForEntry| WaitFor {
                    waiter: Ts(entry.txn),
                    holder: Ts(entry.wait_for_txn),
                    key: user(entry.key),
                };
                Error::Deadlock {
                    start_ts,
                    holder: Ts(deadlock.lock_ts),
                    key: user(deadlock.lock_key),
                    chain: deadlock.wait_chain.into_iter().map(edge).collect(),
                }
            }
            Fault::TxnNotFound | Fault::LockNotFound => Error::RolledBack { start_ts },
            Fault::CommitTsExpired => aborted(start_ts, "its commit timestamp came too late"),
            Fault::PrimaryMismatch => aborted(start_ts, "a lock names a primary that does not know of it"),
            Fault::Other(message) => aborted(start_ts, &message),
        }
    }
}

fn aborted(start_ts: Ts, message: &str) -> Error {
    Error::Aborted {
        start_ts,
        message: message.to_owned(),
    }
}

/// `lock` as what is in the way.
pub(crate) fn locked(lock: &kvrpcpb::LockInfo, form: &KeyForm) -> Error {
    Error::Locked {
        key: form.user(&lock.key).unwrap_or_else(|| lock.key.clone()),
        holder: Ts(lock.lock_version),
    }
}

/// Passes if a store found no fault.
pub(crate) fn check(error: Option<Box<kvrpcpb::KeyError>>) -> Result<(), Fault> {
    error.map_or(Ok(()), |error| Err(Fault::of(*error)))
}
