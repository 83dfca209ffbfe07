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

/// Locks of `[start, end)` (encoded; an empty end is the region's) that are `wanted`, in the order of keys, at most `limit` of them; zero
/// for all. `memory`: the region's pessimistic locks that are kept in memory.
pub fn scan_locks(
    snapshot: &dyn RegionSnapshot,
    memory: &BTreeMap<Key, Lock>,
    start: &[u8],
    end: &[u8],
    limit: usize,
    mut wanted: impl FnMut(&Locked) -> bool,
) -> Result<Vec<Locked>> {
    let mut locks = Locks::open(snapshot, memory, start, end)?;
    let mut found = Vec::new();
    while limit == 0 || found.len() < limit {
        match locks.next()? {
            Some(locked) if wanted(&locked) => found.push(locked),
            Some(_) => {}
            None => break,
        }
    }
    Ok(found)
}

/// Records between two looks at the clock.
const LOOKS: u32 = 1024;
/// What a record or a value takes besides its bytes, about.
const RECORD_BYTES: usize = 32;

/// Everything stored of one key, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    pub lock: Option<Lock>,
    /// Records by their commit timestamps.
    pub writes: Vec<(Ts, Write)>,
    /// Values of the family default by the `start_ts` of their transactions.
    pub values: Vec<(Ts, Bytes)>,
}

/// Looks everything up that is stored of `key`; `None` if that is more than about `bytes_max`.
pub fn history(snapshot: &dyn RegionSnapshot, key: &Key, bytes_max: usize) -> Result<Option<History>> {
    let lock = snapshot.get(Cf::Lock, key.encoded())?;
    let mut history = History {
        lock: lock.map(|bytes| Lock::decode(&bytes)).transpose()?,
        ..History::default()
    };
    let mut room = bytes_max;
    let mut takes = |bytes: usize| {
        let left = room.checked_sub(bytes);
        room = left.unwrap_or(0);
        left.is_some()
    };
    let mut versions = Versions::open(snapshot, key, Ts::MAX)?;
    while let Some(record) = versions.next()? {
        if !takes(RECORD_BYTES + record.1.short_value.as_ref().map_or(0, Bytes::len)) {
            return Ok(None);
        }
        history.writes.push(record);
    }
    let mut values = snapshot.cursor(Cf::Default, key.encoded(), &key.versions_end())?;
    while let Some((versioned, value)) = values.next()? {
        if !takes(RECORD_BYTES + value.len()) {
            return Ok(None);
        }
        history.values.push((Key::split(&versioned)?.1, value));
    }
    Ok(Some(history))
}

/// The first key of the region that the transaction `start_ts` has a lock on, or else a record. Reads the whole region if it must, until
/// it `is_late`. `memory` as in [`scan_locks`].
pub fn find_transaction(
    snapshot: &dyn RegionSnapshot,
    memory: &BTreeMap<Key, Lock>,
    start_ts: Ts,
    is_late: impl Fn() -> bool,
) -> Result<Option<Key>> {
    let mut looked_at = 0_u32;
    let mut goes_on = || {
        looked_at = looked_at.wrapping_add(1);
        !looked_at.is_multiple_of(LOOKS) || !is_late()
    };
    let mut locks = Locks::open(snapshot, memory, b"", b"")?;
    while goes_on()
        && let Some(locked) = locks.next()?
    {
        if locked.lock.start_ts == start_ts {
            return Ok(Some(locked.key));
        }
    }
    let mut records = snapshot.cursor(Cf::Write, b"", b"")?;
    while goes_on()
        && let Some((versioned, bytes)) = records.next()?
    {
        let (key, commit_ts) = Key::split(&versioned)?;
        let write = Write::decode(&bytes)?;
        if write.start_ts == start_ts || (commit_ts == start_ts && write.overlapped_rollback) {
            return Ok(Some(key));
        }
    }
    Ok(None)
}
