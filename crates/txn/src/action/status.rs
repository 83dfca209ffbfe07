//! Questions about a transaction's fate, which decide it if nobody else does any more.

use base::Ts;

use super::Action;
use super::rollback::Protect;
use crate::command::{CheckTxnStatus, Output, SecondaryStatus, TxnStatus};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::lock::{Lock, Locked};
use crate::mvcc::Fate;

impl Action<'_> {
    pub(super) fn heart_beat(&mut self, primary: &Key, start_ts: Ts, advise_ttl_ms: u64, min_commit_ts: Ts) -> Result<Output> {
        let Some(mut lock) = self.own_lock(primary, start_ts)? else {
            let key = primary.clone();
            return Err(Error::TxnNotFound { start_ts, key });
        };
        let ttl_ms = lock.ttl_ms.max(advise_ttl_ms);
        // What an async commit promised stays as it is: its client may have been told.
        let min_commit_ts = match lock.use_async_commit {
            true => lock.min_commit_ts,
            false => lock.min_commit_ts.max(min_commit_ts),
        };
        if (ttl_ms, min_commit_ts) != (lock.ttl_ms, lock.min_commit_ts) {
            (lock.ttl_ms, lock.min_commit_ts) = (ttl_ms, min_commit_ts);
            self.put_lock(primary, lock);
        }
        Ok(Output::HeartBeat { ttl_ms })
    }

    pub(super) fn check_txn_status(&mut self, check: &CheckTxnStatus) -> Result<Output> {
        // What is answered here is used as a read's: no async commit of this transaction may come below who asks any more, whatever becomes
        // of the lock that was pushed.
        for ts in [check.start_ts, check.caller_start_ts, check.current_ts] {
            self.input.concurrency.raise_max_ts(ts)?;
        }
        let status = match self.own_lock(&check.primary, check.start_ts)? {
            Some(lock) => self.check_locked(check, lock)?,
            None => self.check_unlocked(check)?,
        };
        Ok(Output::Status(status))
    }

    fn check_locked(&mut self, check: &CheckTxnStatus, lock: Lock) -> Result<TxnStatus> {
        let key = &check.primary;
        if check.verify_is_primary && !key.is_of(&lock.primary) {
            if check.resolving_pessimistic_lock || !lock.is_pessimistic() {
                let key = key.clone();
                return Err(Error::PrimaryMismatch(Box::new(Locked { key, lock })));
            }
            // A prewritten lock names this key as its primary, so the transaction has chosen another one since and this lock is of before.
            self.unlock(key, lock.start_ts, None);
            return self.check_unlocked(check);
        }
        if lock.use_async_commit && !check.force_sync_commit {
            // The other keys decide.
            return Ok(still_locked(key, lock, false));
        }
        if !lock.is_expired(check.current_ts) {
            return Ok(self.push(check, lock));
        }
        if check.resolving_pessimistic_lock && lock.is_pessimistic() {
            self.unlock(key, lock.start_ts, None);
            return Ok(TxnStatus::PessimisticReleased);
        }
        self.rollback_key(key, check.start_ts, Protect::ByLock)?;
        Ok(TxnStatus::TtlExpired)
    }

    /// Sees to it that the transaction commits above the reader who asks, so that it need not wait. A lock without `min_commit_ts` is of a
    /// client that would not understand the refusal of its commit; what an async commit promised stays.
    fn push(&mut self, check: &CheckTxnStatus, mut lock: Lock) -> TxnStatus {
        let caller = check.caller_start_ts;
        if caller == Ts::MAX {
            return still_locked(&check.primary, lock, true);
        }
        let pushable = lock.min_commit_ts.is_some() && caller.is_some() && !lock.use_async_commit;
        if pushable && caller >= lock.min_commit_ts {
            let now = if check.current_ts == Ts::MAX {
                Ts::default()
            } else {
                check.current_ts
            };
            lock.min_commit_ts = Ts(caller.0 + 1).max(now);
            self.put_lock(&check.primary, lock.clone());
        }
        still_locked(&check.primary, lock, pushable)
    }

    fn check_unlocked(&mut self, check: &CheckTxnStatus) -> Result<TxnStatus> {
        let (key, start_ts) = (&check.primary, check.start_ts);
        match self.reader.fate(key, start_ts)? {
            Fate::Committed { commit_ts } => Ok(TxnStatus::Committed { commit_ts }),
            Fate::RolledBack => Ok(TxnStatus::RolledBack),
            Fate::Unknown { .. } if !check.rollback_if_not_exist => {
                let key = key.clone();
                Err(Error::TxnNotFound { start_ts, key })
            }
            Fate::Unknown { .. } if check.resolving_pessimistic_lock => Ok(TxnStatus::NotExistIgnored),
            Fate::Unknown { overlapped, older } => {
                self.put_rollback(key, start_ts, true, overlapped, older);
                Ok(TxnStatus::NotExistRolledBack)
            }
        }
    }

    pub(super) fn check_secondary_locks(&mut self, keys: &[Key], start_ts: Ts) -> Result<Output> {
        self.input.concurrency.raise_max_ts(start_ts)?;
        let mut locks = Vec::with_capacity(keys.len());
        for key in keys {
            match self.own_lock(key, start_ts)? {
                Some(lock) if !lock.is_pessimistic() => {
                    let key = key.clone();
                    locks.push(Locked { key, lock });
                    continue;
                }
                Some(_) | None => {}
            }
            // Not prewritten: the transaction is committed, or from now on never will be.
            let status = match self.rollback_key(key, start_ts, Protect::Yes) {
                Ok(()) => SecondaryStatus::RolledBack,
                Err(Error::Committed { commit_ts, .. }) => SecondaryStatus::Committed { commit_ts },
                Err(other) => return Err(other),
            };
            return Ok(Output::Secondaries(status));
        }
        Ok(Output::Secondaries(SecondaryStatus::Locked(locks)))
    }
}

fn still_locked(key: &Key, lock: Lock, pushed: bool) -> TxnStatus {
    let key = key.clone();
    TxnStatus::Locked {
        locked: Locked { key, lock },
        pushed,
    }
}
