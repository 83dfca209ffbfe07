//! [`Scanner`]: the keys of a range at one timestamp, in order.

use base::Ts;
use bytes::Bytes;
use engine::kv::RegionSnapshot;
use engine::{Cf, Cursor};

use super::reader::{self, Versions};
use super::{Found, Isolation, ReadOptions};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::lock::Lock;
use crate::write::Write;

/// How to walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// From the last key of the range to its first.
    pub reverse: bool,
    /// Leaves values empty, and does not read long ones.
    pub key_only: bool,
}

/// So many unwanted records in a row are stepped over before a seek: an engine's seek costs as much as a few dozen steps.
const NEAR: usize = 16;

/// Walks the families lock and write side by side.
pub struct Scanner<'a> {
    snapshot: &'a dyn RegionSnapshot,
    options: ReadOptions,
    scan: Scan,
    records: Box<dyn Cursor>,
    /// Where `records` stands.
    record: Option<Record>,
    /// None where locks do not count.
    locks: Option<Box<dyn Cursor>>,
    /// Where `locks` stands.
    lock: Option<(Key, Bytes)>,
}

struct Record {
    key: Key,
    commit_ts: Ts,
    bytes: Bytes,
}

impl<'a> Scanner<'a> {
    /// Walks `[start, end)`, encoded; an empty end is the region's.
    pub fn new(
        snapshot: &'a dyn RegionSnapshot,
        start: &[u8],
        end: &[u8],
        scan: Scan,
        options: ReadOptions,
    ) -> Result<Scanner<'a>> {
        let locks = match options.looks_at_locks() {
            true => Some(snapshot.cursor(Cf::Lock, start, end)?),
            false => None,
        };
        let mut scanner = Scanner {
            snapshot,
            options,
            scan,
            records: snapshot.cursor(Cf::Write, start, end)?,
            record: None,
            locks,
            lock: None,
        };
        scanner.step_record()?;
        scanner.step_lock()?;
        Ok(scanner)
    }

    /// The next key that holds a value, or that a lock hides: then its `Error::Locked`. The scan may go on behind it.
    #[allow(clippy::should_implement_trait)] // Errors end it, but callers may want to stop at a locked key, so an iterator misleads.
    pub fn next(&mut self) -> Result<Option<(Key, Result<Found>)>> {
        while let Some(key) = self.nearest() {
            let found = match self.read(&key) {
                Ok(found) => found.map(Ok),
                Err(locked @ Error::Locked(_)) => Some(Err(locked)),
                Err(other) => return Err(other),
            };
            self.pass(&key)?;
            if let Some(found) = found {
                return Ok(Some((key, found)));
            }
        }
        Ok(None)
    }

    /// The next key with a lock or a record.
    fn nearest(&self) -> Option<Key> {
        let record = self.record.as_ref().map(|record| &record.key);
        let lock = self.lock.as_ref().map(|(key, _)| key);
        match (record, lock) {
            (Some(record), Some(lock)) if self.scan.reverse => Some(record.max(lock)),
            (Some(record), Some(lock)) => Some(record.min(lock)),
            (one, None) | (None, one) => one,
        }
        .cloned()
    }

    /// What the options see of `key`, which is the nearest.
    fn read(&mut self, key: &Key) -> Result<Option<Found>> {
        if let Some((_, bytes)) = self.lock.as_ref().filter(|(at, _)| at == key) {
            let lock = Lock::decode(bytes)?;
            if let Err(locked) = self.options.check_lock(key, &lock) {
                if !self.options.accesses(&lock) {
                    return Err(locked);
                }
                let mut found = reader::value_of_lock(self.snapshot, key, &lock)?;
                if let Some(found) = found.as_mut().filter(|_| self.scan.key_only) {
                    found.value = Bytes::new();
                }
                return Ok(found);
            }
        }
        let version = if self.scan.reverse {
            self.version_from_below(key)?
        } else {
            self.version_from_above(key)?
        };
        match version {
            Some((commit_ts, mut write)) => {
                if self.scan.key_only {
                    write.short_value = Some(Bytes::new());
                }
                reader::value_of_write(self.snapshot, key, commit_ts, write)
            }
            None => Ok(None),
        }
    }

    /// The newest version that counts, where the records come newest first.
    fn version_from_above(&mut self, key: &Key) -> Result<Option<(Ts, Write)>> {
        let newest = self.options.newest_looked_at();
        let mut skipped = 0;
        while let Some(record) = self.record.as_ref().filter(|record| record.key == *key) {
            if record.commit_ts > newest {
                skipped += 1;
                if skipped > NEAR {
                    let sought = self.records.seek(&key.at(newest))?;
                    self.stand(sought)?;
                } else {
                    self.step_record()?;
                }
                continue;
            }
            let (commit_ts, write) = (record.commit_ts, Write::decode(&record.bytes)?);
            self.options.check_version(key, commit_ts, &write)?;
            if write.is_version() {
                return Ok(Some((commit_ts, write)));
            }
            self.step_record()?;
        }
        Ok(None)
    }

    /// The newest version that counts, where the records come oldest first.
    fn version_from_below(&mut self, key: &Key) -> Result<Option<(Ts, Write)>> {
        let mut newest = None;
        if self.options.isolation != Isolation::ReadCommittedCheckTs {
            for _ in 0..NEAR {
                let ts = self.options.ts;
                let Some(record) = self.record.as_ref().filter(|at| at.key == *key && at.commit_ts <= ts) else {
                    return Ok(newest);
                };
                let (commit_ts, write) = (record.commit_ts, Write::decode(&record.bytes)?);
                if write.is_version() {
                    newest = Some((commit_ts, write));
                }
                self.step_record()?;
            }
        }
        let mut versions = Versions::open(self.snapshot, key, self.options.newest_looked_at())?;
        while let Some((commit_ts, write)) = versions.next()? {
            self.options.check_version(key, commit_ts, &write)?;
            if write.is_version() {
                return Ok(Some((commit_ts, write)));
            }
        }
        Ok(None)
    }

    /// Leaves `key`, which is the nearest.
    fn pass(&mut self, key: &Key) -> Result<()> {
        if self.lock.as_ref().is_some_and(|(at, _)| at == key) {
            self.step_lock()?;
        }
        for _ in 0..NEAR {
            if self.record.as_ref().is_none_or(|record| record.key != *key) {
                return Ok(());
            }
            self.step_record()?;
        }
        let sought = if self.scan.reverse {
            self.records.seek_for_prev(key.encoded())?
        } else {
            self.records.seek(&key.versions_end())?
        };
        self.stand(sought)
    }

    fn step_record(&mut self) -> Result<()> {
        let next = step(&mut *self.records, self.scan.reverse)?;
        self.stand(next)
    }

    fn stand(&mut self, pair: Option<(Bytes, Bytes)>) -> Result<()> {
        self.record = match pair {
            Some((versioned, bytes)) => {
                let (key, commit_ts) = Key::split(&versioned)?;
                Some(Record { key, commit_ts, bytes })
            }
            None => None,
        };
        Ok(())
    }

    fn step_lock(&mut self) -> Result<()> {
        if let Some(locks) = &mut self.locks {
            let next = step(&mut **locks, self.scan.reverse)?;
            self.lock = next.map(|(key, bytes)| (Key::from_encoded(key), bytes));
        }
        Ok(())
    }
}

fn step(cursor: &mut dyn Cursor, reverse: bool) -> engine::Result<Option<(Bytes, Bytes)>> {
    if reverse { cursor.prev() } else { cursor.next() }
}
