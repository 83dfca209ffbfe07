//! Pessimistic locks: held before the transaction knows what it will write.

use base::Ts;

use super::{Action, exists};
use crate::command::{LockKey, LockResult, Output, PessimisticLock};
use crate::error::{ConflictReason, Error, Result};
use crate::key::Key;
use crate::lock::{Lock, LockKind, Locked};
use crate::mvcc::Fate;
use crate::write::Write;

impl Action<'_> {
    pub(super) fn pessimistic_lock(&mut self, request: &PessimisticLock) -> Result<Output> {
        // It reads at this timestamp, so no async commit may come below it afterwards.
        self.input.concurrency.raise_max_ts(request.for_update_ts)?;
        let results = request.keys.iter().map(|key| self.lock_key(request, key));
        Ok(Output::PessimisticLocked(results.collect::<Result<_>>()?))
    }

    fn lock_key(&mut self, request: &PessimisticLock, LockKey { key, should_not_exist }: &LockKey) -> Result<LockResult> {
        let held = self.held_lock(request, key)?;
        let newest = self.reader.record(key, Ts::MAX)?;
        let conflict_ts = match &held {
            // Granted over a newer record before, and asked for again.
            Some(lock) if lock.locked_with_conflict && lock.for_update_ts > request.for_update_ts => lock.for_update_ts,
            Some(_) => Ts::default(),
            None => self.check_lockable(request, key, newest.as_ref())?,
        };
        let wants_value = request.return_values || conflict_ts.is_some();
        let wants_version = wants_value || request.check_existence || request.lock_only_if_exists || *should_not_exist;
        let version = match wants_version {
            true => self.newest_version(key, newest.as_ref())?,
            false => None,
        };
        let exists = exists(version.as_ref());
        // Locked over a newer record, the client looks again and takes the record into account.
        if *should_not_exist && exists && !conflict_ts.is_some() {
            return Err(already_exists(key));
        }
        if held.is_some() || exists || !request.lock_only_if_exists {
            self.grant(request, key, held, conflict_ts);
        }
        let value = match version {
            Some((commit_ts, write)) if wants_value => self.reader.value(key, commit_ts, write)?,
            _ => None,
        };
        Ok(LockResult {
            value,
            exists,
            conflict_ts,
        })
    }

    /// The pessimistic lock that the transaction holds on `key` already. `Error::Locked` if another holds it.
    fn held_lock(&self, request: &PessimisticLock, key: &Key) -> Result<Option<Lock>> {
        match self.reader.lock(key)? {
            Some(lock) if lock.start_ts != request.start_ts => {
                let key = key.clone();
                Err(Error::Locked(Box::new(Locked { key, lock })))
            }
            Some(lock) if !lock.is_pessimistic() => Err(Error::LockKindMismatch {
                start_ts: request.start_ts,
                key: key.clone(),
            }),
            held => Ok(held),
        }
    }

    /// Whether a key without a lock may be locked. The timestamp of a newer record if it is locked all the same.
    fn check_lockable(&self, request: &PessimisticLock, key: &Key, newest: Option<&(Ts, Write)>) -> Result<Ts> {
        let Some((commit_ts, write)) = newest else {
            return Ok(Ts::default());
        };
        let start_ts = request.start_ts;
        if *commit_ts >= start_ts {
            self.check_undecided(key, start_ts)?;
        }
        if *commit_ts <= request.for_update_ts {
            return Ok(Ts::default());
        }
        if request.allow_conflict {
            return Ok(*commit_ts);
        }
        Err(Error::WriteConflict {
            start_ts,
            conflict_start_ts: write.start_ts,
            conflict_commit_ts: *commit_ts,
            key: key.clone(),
            primary: request.primary.clone(),
            reason: ConflictReason::PessimisticRetry,
        })
    }

    /// A request that comes late must not lock for a transaction that is done: its prewrite, late too, would find the lock and commit again.
    fn check_undecided(&self, key: &Key, start_ts: Ts) -> Result<()> {
        let fate = self.reader.fate(key, start_ts)?;
        let key = key.clone();
        match fate {
            Fate::Unknown { .. } => Ok(()),
            Fate::RolledBack => Err(Error::PessimisticLockRolledBack { start_ts, key }),
            Fate::Committed { commit_ts } => Err(Error::Committed {
                start_ts,
                commit_ts,
                key,
            }),
        }
    }

    /// Writes the lock, unless one stands there that says as much.
    fn grant(&mut self, request: &PessimisticLock, key: &Key, held: Option<Lock>, conflict_ts: Ts) {
        let for_update_ts = request.for_update_ts.max(conflict_ts);
        let fresh = held.is_none();
        if held.as_ref().is_some_and(|held| held.for_update_ts >= for_update_ts) {
            return;
        }
        let mut lock = held.unwrap_or_else(|| {
            let primary = request.primary.clone();
            Lock::new(LockKind::Pessimistic, primary, request.start_ts, request.ttl_ms)
        });
        // A statement that is run again may have chosen another.
        lock.primary = request.primary.clone();
        lock.ttl_ms = lock.ttl_ms.max(request.ttl_ms);
        lock.min_commit_ts = lock.min_commit_ts.max(request.min_commit_ts);
        lock.for_update_ts = for_update_ts;
        lock.locked_with_conflict = conflict_ts.is_some();
        if fresh && self.input.in_memory_pessimistic {
            self.memory.push((key.clone(), Some(lock)));
        } else {
            self.put_lock(key, lock);
        }
    }

    /// Releases pessimistic locks of the transaction, those of `keys`; without keys, looks for some.
    pub(super) fn release_pessimistic(&mut self, keys: &[Key], start_ts: Ts, for_update_ts: Ts) -> Result<()> {
        for key in keys {
            if let Some(lock) = self.own_lock(key, start_ts)?
                && lock.is_pessimistic()
                && lock.for_update_ts <= for_update_ts
            {
                self.unlock(key, start_ts, None);
            }
        }
        Ok(())
    }
}

/// The error for a key that must not exist and does.
pub(super) fn already_exists(key: &Key) -> Error {
    Error::AlreadyExists { key: key.clone() }
}
