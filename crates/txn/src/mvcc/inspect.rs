//! Locks of a range, and everything that is known of one key.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::iter::Peekable;
use std::ops::Bound;

use base::Ts;
use bytes::Bytes;
use engine::kv::RegionSnapshot;
use engine::{Cf, Cursor};

use super::reader::Versions;
use crate::error::Result;
use crate::key::Key;
use crate::lock::{Lock, Locked};
use crate::write::Write;

/// The locks of a range in the order of keys: those of the family and those kept in memory.
pub struct Locks<'a> {
    cursor: Box<dyn Cursor>,
    stored: Option<(Key, Bytes)>,
    memory: Peekable<btree_map::Range<'a, Key, Lock>>,
    end: Bytes,
}

impl<'a> Locks<'a> {
    /// Walks `[start, end)`, encoded; an empty end is the region's.
    pub fn open(snapshot: &dyn RegionSnapshot, memory: &'a BTreeMap<Key, Lock>, start: &[u8], end: &[u8]) -> Result<Locks<'a>> {
        let from = Key::from_encoded(Bytes::copy_from_slice(start));
        let mut locks = Locks {
            cursor: snapshot.cursor(Cf::Lock, start, end)?,
            stored: None,
            memory: memory.range((Bound::Included(from), Bound::Unbounded)).peekable(),
            end: Bytes::copy_from_slice(if end.is_empty() { &snapshot.region().end_key } else { end }),
        };
        locks.step()?;
        Ok(locks)
    }

    fn step(&mut self) -> Result<()> {
        self.stored = self.cursor.next()?.map(|(key, lock)| (Key::from_encoded(key), lock));
        Ok(())
    }

    pub fn next(&mut self) -> Result<Option<Locked>> {
        let end = &self.end;
        let inside = |(key, _): &(&Key, &Lock)| end.is_empty() || *key.encoded() < *end;
        let memory = self.memory.peek().filter(|entry| inside(entry)).map(|(key, _)| *key);
        match (&self.stored, memory) {
            (Some((stored, _)), Some(memory)) if memory <= stored => Ok(self.next_in_memory()),
            (None, Some(_)) => Ok(self.next_in_memory()),
            (Some((key, bytes)), _) => {
                let (key, lock) = (key.clone(), Lock::decode(bytes)?);
                self.step()?;
                Ok(Some(Locked { key, lock }))
            }
            (None, None) => Ok(None),
        }
    }

    fn next_in_memory(&mut self) -> Option<Locked> {
        self.memory.next().map(|(key, lock)| Locked {
            key: key.clone(),
            lock: lock.clone(),
        })
    }
}

/// Locks of `[start, end)` (encoded; an empty end is the region's) whose transactions began at or before `max_ts`, in the order of keys,
/// at most `limit` of them; zero for all. `memory`: the region's pessimistic locks that are kept in memory.
pub fn scan_locks(
    snapshot: &dyn RegionSnapshot,
    memory: &BTreeMap<Key, Lock>,
    start: &[u8],
    end: &[u8],
    max_ts: Ts,
    limit: usize,
) -> Result<Vec<Locked>> {
    let mut locks = Locks::open(snapshot, memory, start, end)?;
    let mut found = Vec::new();
    while limit == 0 || found.len() < limit {
        match locks.next()? {
            Some(locked) if locked.lock.start_ts <= max_ts => found.push(locked),
            Some(_) => {}
            None => break,
        }
    }
    Ok(found)
}

/// Everything stored of one key, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    pub lock: Option<Lock>,
    /// Records by their commit timestamps.
    pub writes: Vec<(Ts, Write)>,
    /// Values of the family default by the `start_ts` of their transactions.
    pub values: Vec<(Ts, Bytes)>,
}

/// Looks everything up that is stored of `key`.
pub fn history(snapshot: &dyn RegionSnapshot, key: &Key) -> Result<History> {
    let lock = snapshot.get(Cf::Lock, key.encoded())?;
    let mut history = History {
        lock: lock.map(|bytes| Lock::decode(&bytes)).transpose()?,
        ..History::default()
    };
    let mut versions = Versions::open(snapshot, key, Ts::MAX)?;
    while let Some(record) = versions.next()? {
        history.writes.push(record);
    }
    let mut values = snapshot.cursor(Cf::Default, key.encoded(), &key.versions_end())?;
    while let Some((versioned, value)) = values.next()? {
        history.values.push((Key::split(&versioned)?.1, value));
    }
    Ok(history)
}

/// The first key of `[start, end)` (encoded) that the transaction `start_ts` has a lock or a record on. Reads the whole range if it must.
pub fn find_transaction(snapshot: &dyn RegionSnapshot, start: &[u8], end: &[u8], start_ts: Ts) -> Result<Option<Key>> {
    let nothing = BTreeMap::new();
    let mut locks = Locks::open(snapshot, &nothing, start, end)?;
    while let Some(locked) = locks.next()? {
        if locked.lock.start_ts == start_ts {
            return Ok(Some(locked.key));
        }
    }
    let mut records = snapshot.cursor(Cf::Write, start, end)?;
    while let Some((versioned, bytes)) = records.next()? {
        let (key, commit_ts) = Key::split(&versioned)?;
        let write = Write::decode(&bytes)?;
        if write.start_ts == start_ts || (commit_ts == start_ts && write.overlapped_rollback) {
            return Ok(Some(key));
        }
    }
    Ok(None)
}
