//! Rollback: the lock goes, and a record stays that the transaction can never be prewritten or committed on the key.

use base::Ts;
use engine::Cf;
use engine::kv::Modify;

use super::Action;
use crate::command::Output;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::lock::{Lock, LockKind, Locked};
use crate::mvcc::Fate;
use crate::planted;
use crate::write::Write;

/// Whether the record of a rollback must stay until garbage collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protect {
    Yes,
    /// Only if the lock found needs it: the newer record of another's rollback, which may take its place, stops an optimistic prewrite
    /// that comes late, but not a pessimistic lock with a newer `for_update_ts`.
    ByLock,
}

impl Action<'_> {
    pub(super) fn rollback(&mut self, keys: &[Key], start_ts: Ts) -> Result<Output> {
        for key in keys {
            self.rollback_key(key, start_ts, Protect::ByLock)?;
        }
        Ok(Output::Done)
    }

    pub(super) fn cleanup(&mut self, key: &Key, start_ts: Ts, current_ts: Ts) -> Result<Output> {
        if current_ts.is_some()
            && let Some(lock) = self.own_lock(key, start_ts)?
            && !lock.is_expired(current_ts)
        {
            let key = key.clone();
            return Err(Error::Locked(Box::new(Locked { key, lock })));
        }
        self.rollback_key(key, start_ts, Protect::Yes)?;
        Ok(Output::Done)
    }

    /// Rolls the transaction back on `key`, whether it holds a lock there or not. Idempotent; an error if it is committed there.
    pub(super) fn rollback_key(&mut self, key: &Key, start_ts: Ts, protect: Protect) -> Result<()> {
        let lock = self.own_lock(key, start_ts)?;
        match self.reader.fate(key, start_ts)? {
            Fate::Committed { commit_ts } => {
                let key = key.clone();
                return Err(Error::Committed {
                    start_ts,
                    commit_ts,
                    key,
                });
            }
            Fate::RolledBack => {}
            Fate::Unknown { overlapped, older } => {
                let by_lock = |lock: &Lock| lock.for_update_ts.is_some() || lock.use_async_commit;
                let protected = protect == Protect::Yes || lock.as_ref().is_some_and(by_lock);
                self.put_rollback(key, start_ts, protected, overlapped, older);
            }
        }
        if let Some(lock) = lock {
            self.drop_lock(key, &lock);
        }
        Ok(())
    }

    /// Writes the record of a rollback of a transaction of which nothing is known on `key`: see [`Fate::Unknown`].
    pub(super) fn put_rollback(
        &mut self,
        key: &Key,
        start_ts: Ts,
        protected: bool,
        overlapped: Option<Write>,
        older: Option<(Ts, Write)>,
    ) {
        if planted::on(planted::Bug::LostRollbackRecord) {
            return;
        }
        let record = match overlapped {
            Some(write) => Write {
                overlapped_rollback: true,
                ..write
            },
            None => Write::rollback(start_ts, protected),
        };
        self.put_record(key, start_ts, &record);
        // One record stops late prewrites of all older optimistic transactions, so theirs need not heap up on a contended key.
        if let Some((ts, write)) = older
            && write.is_rollback()
            && !write.protected
        {
            let (cf, key) = (Cf::Write, key.at(ts));
            self.changes.push(Modify::Delete { cf, key });
        }
    }

    /// Takes a lock off, and the value that was laid down with it.
    pub(super) fn drop_lock(&mut self, key: &Key, lock: &Lock) {
        if lock.kind == LockKind::Put && lock.short_value.is_none() {
            let (cf, key) = (Cf::Default, key.at(lock.start_ts));
            self.changes.push(Modify::Delete { cf, key });
        }
        self.unlock(key, lock.start_ts, None);
    }
}
