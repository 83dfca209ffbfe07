//! [`Reader`]: what actions look up of a key: its lock, its records, the fate of a transaction on it.

use std::collections::BTreeMap;

use base::Ts;
use bytes::Bytes;
use engine::kv::RegionSnapshot;
use engine::{Cf, Cursor};

use super::Found;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::lock::{Lock, LockKind};
use crate::write::{Write, WriteKind};

/// The records of one key, newest first.
pub struct Versions {
    cursor: Box<dyn Cursor>,
}

impl Versions {
    /// Begins with the newest record at or before `ts`.
    pub fn open(snapshot: &dyn RegionSnapshot, key: &Key, ts: Ts) -> Result<Versions> {
        let cursor = snapshot.cursor(Cf::Write, &key.at(ts), &key.versions_end())?;
        Ok(Versions { cursor })
    }

    /// The next older record, by its commit timestamp (a rollback's by its `start_ts`).
    pub fn next(&mut self) -> Result<Option<(Ts, Write)>> {
        self.cursor.next()?.map(decode).transpose()
    }
}

fn decode((versioned, record): (Bytes, Bytes)) -> Result<(Ts, Write)> {
    let (_, ts) = Key::split(&versioned)?;
    Ok((ts, Write::decode(&record)?))
}

/// The value that a put's record speaks of; nothing for a delete.
pub fn value_of_write(snapshot: &dyn RegionSnapshot, key: &Key, commit_ts: Ts, write: Write) -> Result<Option<Found>> {
    if write.kind != WriteKind::Put {
        return Ok(None);
    }
    let value = match write.short_value {
        Some(value) => value,
        None => long_value(snapshot, key, write.start_ts)?,
    };
    Ok(Some(Found { value, commit_ts }))
}

/// The value that a lock's transaction puts; nothing if it deletes.
pub fn value_of_lock(snapshot: &dyn RegionSnapshot, key: &Key, lock: &Lock) -> Result<Option<Found>> {
    if lock.kind != LockKind::Put {
        return Ok(None);
    }
    let value = match &lock.short_value {
        Some(value) => value.clone(),
        None => long_value(snapshot, key, lock.start_ts)?,
    };
    let commit_ts = Ts::default();
    Ok(Some(Found { value, commit_ts }))
}

fn long_value(snapshot: &dyn RegionSnapshot, key: &Key, start_ts: Ts) -> Result<Bytes> {
    let value = snapshot.get(Cf::Default, &key.at(start_ts))?;
    value.ok_or(Error::Damaged { what: "value" })
}

/// What became of a transaction on a key that holds no lock of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Committed {
        commit_ts: Ts,
    },
    RolledBack,
    /// Nothing is known.
    Unknown {
        /// The record of another, committed just at the transaction's `start_ts`.
        overlapped: Option<Write>,
        /// The newest record before.
        older: Option<(Ts, Write)>,
    },
}

/// Looks into one snapshot, and into the pessimistic locks that are kept in memory.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    pub snapshot: &'a dyn RegionSnapshot,
    pub memory: &'a BTreeMap<Key, Lock>,
}

impl Reader<'_> {
    /// The lock on `key`. A key has one in memory or in the family, never both.
    pub fn lock(&self, key: &Key) -> Result<Option<Lock>> {
        if let Some(lock) = self.memory.get(key) {
            return Ok(Some(lock.clone()));
        }
        let bytes = self.snapshot.get(Cf::Lock, key.encoded())?;
        bytes.map(|bytes| Lock::decode(&bytes)).transpose()
    }

    /// The newest record at or before `ts`, of any kind.
    pub fn record(&self, key: &Key, ts: Ts) -> Result<Option<(Ts, Write)>> {
        Versions::open(self.snapshot, key, ts)?.next()
    }

    /// The newest put or delete at or before `ts`.
    pub fn version(&self, key: &Key, ts: Ts) -> Result<Option<(Ts, Write)>> {
        let mut versions = Versions::open(self.snapshot, key, ts)?;
        while let Some((commit_ts, write)) = versions.next()? {
            if write.is_version() {
                return Ok(Some((commit_ts, write)));
            }
        }
        Ok(None)
    }

    /// The value that a record found here speaks of.
    pub fn value(&self, key: &Key, commit_ts: Ts, write: Write) -> Result<Option<Bytes>> {
        Ok(value_of_write(self.snapshot, key, commit_ts, write)?.map(|found| found.value))
    }

    /// Whether the transaction was rolled back on `key`.
    pub fn is_rolled_back(&self, key: &Key, start_ts: Ts) -> Result<bool> {
        let record = self.snapshot.get(Cf::Write, &key.at(start_ts))?;
        Ok(record
            .map(|bytes| Write::decode(&bytes))
            .transpose()?
            .is_some_and(|write| write.rolls_back()))
    }

    pub fn fate(&self, key: &Key, start_ts: Ts) -> Result<Fate> {
        let mut versions = Versions::open(self.snapshot, key, Ts::MAX)?;
        let mut overlapped = None;
        while let Some((ts, write)) = versions.next()? {
            if ts < start_ts {
                let older = Some((ts, write));
                return Ok(Fate::Unknown { overlapped, older });
            }
            if ts == start_ts && write.rolls_back() {
                return Ok(Fate::RolledBack);
            }
            if ts == start_ts {
                overlapped = Some(write);
            } else if write.start_ts == start_ts && !write.is_rollback() {
                return Ok(Fate::Committed { commit_ts: ts });
            }
        }
        let older = None;
        Ok(Fate::Unknown { overlapped, older })
    }
}
