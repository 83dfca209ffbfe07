//! [`MemEngine`]: the engine in memory. The oracle that the others are tested against, and what the simulator runs on.
//!
//! Each family is an ordered map from key to its newest value and, only while a snapshot needs them, older ones. A snapshot is
//! a sequence number, so taking one costs no copy. Crashes are part of it: what was written since the last sync can be undone
//! batch by batch, see [`MemEngine::crash`]. No clock, no randomness, no thread: the same calls give the same answers.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{Batch, Cf, Cursor, Engine, Error, Op, Result, Snapshot};

/// Deletes of a range and ingested pairs count as batches of this many changes, so that a crash may fall in between.
const CHUNK: usize = 64;

/// Batches that a crash can undo. Older ones count as durable, as in an engine that flushed its memtable; it bounds memory.
const UNSYNCED_MAX: usize = 64 * 1024;

/// A fault to come, see [`MemEngine::inject`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The next write answers [`Error::Io`], changes nothing, and the engine is poisoned.
    Write,
    /// The next write answers [`Error::DiskFull`] and changes nothing.
    DiskFull,
    /// The next sync answers [`Error::Io`], what it would have made durable is not, and the engine is poisoned.
    Sync,
}

/// The engine in memory. Clones share one state.
#[derive(Clone, Default)]
pub struct MemEngine {
    state: Arc<Mutex<State>>,
}

impl MemEngine {
    pub fn new() -> MemEngine {
        MemEngine::default()
    }

    /// Batches written so far, in this life and those before: the mark that [`sync_to`](MemEngine::sync_to) takes.
    pub fn written(&self) -> u64 {
        self.state.lock().seq
    }

    /// Batches that a crash may lose.
    pub fn unsynced(&self) -> usize {
        self.state.lock().undo_sizes.len()
    }

    /// A sync that began when [`written`](MemEngine::written) was `mark`: makes the batches until then durable, no later ones.
    pub fn sync_to(&self, mark: u64) -> Result<()> {
        self.state.lock().sync_to(mark)
    }

    /// Ends this life and begins the next with everything synced and the first `keep` of the batches that were not (all of
    /// them if there are fewer). This engine, its clones and snapshots answer [`Error::Poisoned`] from now on.
    pub fn crash(&self, keep: usize) -> MemEngine {
        let mut dead = self.state.lock();
        let mut state = std::mem::replace(
            &mut *dead,
            State {
                dead: true,
                ..State::default()
            },
        );
        state.revert_to(keep);
        MemEngine {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Makes the next write or sync fail.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().fault = Some(fault);
    }
}

impl fmt::Debug for MemEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let keys: Vec<usize> = state.families.iter().map(BTreeMap::len).collect();
        f.debug_struct("MemEngine")
            .field("keys", &keys)
            .field("seq", &state.seq)
            .finish_non_exhaustive()
    }
}

type Family = BTreeMap<Bytes, Versions>;

/// Values of a key; `None` is a delete. `older` ascends by number and is empty unless a snapshot may read it.
struct Versions {
    seq: u64,
    value: Option<Bytes>,
    older: Vec<(u64, Option<Bytes>)>,
}

impl Versions {
    fn at(&self, seq: u64) -> Option<&Bytes> {
        if self.seq <= seq {
            return self.value.as_ref();
        }
        self.older.iter().rev().find(|(number, _)| *number <= seq)?.1.as_ref()
    }
}

#[derive(Default)]
struct State {
    families: [Family; 4],
    /// Number of the last batch; a snapshot at `n` sees batches up to `n`.
    seq: u64,
    /// Numbers of the living snapshots, with how many there are of each.
    live: BTreeMap<u64, usize>,
    /// Keys with versions to drop once every snapshot is at the number or later; ascends.
    garbage: VecDeque<(u64, Cf, Bytes)>,
    /// What the keys of unsynced batches held before, in the order of writing; and how many of them belong to each batch.
    undo: VecDeque<(Cf, Bytes, Option<Bytes>)>,
    undo_sizes: VecDeque<usize>,
    fault: Option<Fault>,
    /// After an injected fault or a crash.
    dead: bool,
}

impl State {
    fn alive(&self) -> Result<()> {
        if self.dead { Err(Error::Poisoned) } else { Ok(()) }
    }

    fn fail(&mut self, act: &'static str) -> Error {
        self.dead = true;
        Error::Io {
            act,
            dir: "memory".to_owned(),
            source: std::io::Error::other("injected"),
        }
    }

    fn check_write(&mut self) -> Result<()> {
        self.alive()?;
        match self.fault.take() {
            Some(Fault::Write) => Err(self.fail("write batch")),
            Some(Fault::DiskFull) => Err(Error::DiskFull {
                dir: "memory".to_owned(),
            }),
            other => {
                self.fault = other;
                Ok(())
            }
        }
    }

    fn write(&mut self, ops: impl Iterator<Item = Op>) {
        self.seq += 1;
        let before = self.undo.len();
        for op in ops {
            match op {
                Op::Put { cf, key, value } => self.set(cf, key, Some(value)),
                Op::Delete { cf, key } => self.set(cf, key, None),
            }
        }
        self.undo_sizes.push_back(self.undo.len() - before);
        if self.undo_sizes.len() > UNSYNCED_MAX {
            self.forget_oldest_undo();
        }
    }

    fn set(&mut self, cf: Cf, key: Bytes, value: Option<Bytes>) {
        let family = &mut self.families[cf as usize];
        let newest_read = self.live.last_key_value().map(|(seq, _)| *seq);
        let Some(versions) = family.get_mut(&key) else {
            self.undo.push_back((cf, key.clone(), None));
            if value.is_some() {
                family.insert(
                    key,
                    Versions {
                        seq: self.seq,
                        value,
                        older: Vec::new(),
                    },
                );
            }
            return;
        };
        let deleted = value.is_none();
        let previous = std::mem::replace(&mut versions.value, value);
        let previous_seq = std::mem::replace(&mut versions.seq, self.seq);
        self.undo.push_back((cf, key.clone(), previous.clone()));
        if newest_read.is_some_and(|seq| previous_seq <= seq) {
            versions.older.push((previous_seq, previous));
            self.garbage.push_back((self.seq, cf, key));
        } else if deleted && versions.older.is_empty() {
            family.remove(&key);
        } else if deleted {
            self.garbage.push_back((self.seq, cf, key));
        }
    }

    /// Drops what no snapshot can read any more.
    fn collect_garbage(&mut self) {
        let oldest_read = self.live.first_key_value().map_or(u64::MAX, |(seq, _)| *seq);
        while let Some((_, cf, key)) = self.garbage.pop_front_if(|(seq, ..)| *seq <= oldest_read) {
            let family = &mut self.families[cf as usize];
            let Some(versions) = family.get_mut(&key) else { continue };
            if versions.seq <= oldest_read {
                versions.older = Vec::new();
                if versions.value.is_none() {
                    family.remove(&key);
                }
            } else {
                let first_read = versions.older.iter().rposition(|(seq, _)| *seq <= oldest_read).unwrap_or(0);
                versions.older.drain(..first_read);
            }
        }
    }

    fn sync_to(&mut self, mark: u64) -> Result<()> {
        self.alive()?;
        if self.fault == Some(Fault::Sync) {
            return Err(self.fail("sync"));
        }
        while self.seq - (self.undo_sizes.len() as u64) < mark && !self.undo_sizes.is_empty() {
            self.forget_oldest_undo();
        }
        Ok(())
    }

    fn forget_oldest_undo(&mut self) {
        if let Some(size) = self.undo_sizes.pop_front() {
            self.undo.drain(..size);
        }
    }

    /// Undoes all unsynced batches but the first `keep`, and makes the rest durable.
    fn revert_to(&mut self, keep: usize) {
        self.live.clear();
        self.collect_garbage();
        let kept: usize = self.undo_sizes.iter().take(keep).sum();
        while self.undo.len() > kept {
            let (cf, key, value) = self.undo.pop_back().expect("longer than kept");
            let family = &mut self.families[cf as usize];
            match value {
                Some(_) => drop(family.insert(
                    key,
                    Versions {
                        seq: self.seq,
                        value,
                        older: Vec::new(),
                    },
                )),
                None => drop(family.remove(&key)),
            }
        }
        self.undo.clear();
        self.undo_sizes.clear();
        self.fault = None;
        self.dead = false;
    }

    fn get(&self, cf: Cf, key: &[u8], seq: u64) -> Result<Option<Bytes>> {
        self.alive()?;
        Ok(self.families[cf as usize]
            .get(key)
            .and_then(|versions| versions.at(seq))
            .cloned())
    }
}

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Bounds of `[start, end)`, where an empty end means none; `None` when nothing lies between.
fn bounds<'a>(start: &'a [u8], end: &'a [u8]) -> Option<Bounds<'a>> {
    if end.is_empty() {
        Some((Bound::Included(start), Bound::Unbounded))
    } else {
        (start < end).then_some((Bound::Included(start), Bound::Excluded(end)))
    }
}

impl Engine for MemEngine {
    fn write(&self, batch: Batch) -> Result<()> {
        crate::check_keys(&batch)?;
        let mut state = self.state.lock();
        state.check_write()?;
        if !batch.is_empty() {
            state.write(batch.into_ops().into_iter());
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let mut state = self.state.lock();
        let mark = state.seq;
        state.sync_to(mark)
    }

    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        self.state.lock().get(cf, key, u64::MAX)
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        let mut state = self.state.lock();
        let seq = state.seq;
        *state.live.entry(seq).or_insert(0) += 1;
        drop(state);
        Arc::new(MemSnapshot(Arc::new(View {
            state: self.state.clone(),
            seq,
        })))
    }

    fn delete_range(&self, cf: Cf, start: &[u8], end: &[u8]) -> Result<()> {
        let Some(range) = bounds(start, end) else { return Ok(()) };
        let mut state = self.state.lock();
        state.check_write()?;
        let keys = state.families[cf as usize].range::<[u8], _>(range);
        let keys: Vec<Bytes> = keys
            .filter(|(_, versions)| versions.value.is_some())
            .map(|(key, _)| key.clone())
            .collect();
        for chunk in keys.chunks(CHUNK) {
            state.write(chunk.iter().map(|key| Op::Delete { cf, key: key.clone() }));
        }
        Ok(())
    }

    fn ingest(&self, cf: Cf, pairs: &mut dyn Iterator<Item = (Bytes, Bytes)>) -> Result<()> {
        let mut pairs = crate::Ascending::new(pairs).peekable();
        while pairs.peek().is_some() {
            let chunk: Vec<Op> = pairs
                .by_ref()
                .take(CHUNK)
                .map(|(key, value)| Op::Put { cf, key, value })
                .collect();
            chunk.iter().try_for_each(|op| crate::check_key(op.key()))?;
            let mut state = self.state.lock();
            state.check_write()?;
            state.write(chunk.into_iter());
        }
        Ok(())
    }

    fn approximate_size(&self, cf: Cf, start: &[u8], end: &[u8]) -> Result<u64> {
        let Some(range) = bounds(start, end) else { return Ok(0) };
        let state = self.state.lock();
        state.alive()?;
        let pairs = state.families[cf as usize].range::<[u8], _>(range);
        Ok(pairs
            .filter_map(|(key, versions)| Some(key.len() + versions.value.as_ref()?.len()))
            .sum::<usize>() as u64)
    }

    fn disk_bytes(&self) -> u64 {
        0
    }

    fn name(&self) -> &'static str {
        "memory"
    }
}

/// A registered reader at a number; shared by a snapshot and its cursors.
struct View {
    state: Arc<Mutex<State>>,
    seq: u64,
}

impl Drop for View {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        // After a crash the state is another one that never heard of this view.
        let Some(count) = state.live.get_mut(&self.seq) else { return };
        *count -= 1;
        if *count == 0 {
            state.live.remove(&self.seq);
            state.collect_garbage();
        }
    }
}

struct MemSnapshot(Arc<View>);

impl Snapshot for MemSnapshot {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        self.0.state.lock().get(cf, key, self.0.seq)
    }

    fn cursor(&self, cf: Cf, start: &[u8], end: &[u8]) -> Result<Box<dyn Cursor>> {
        let (start, end) = (Bytes::copy_from_slice(start), Bytes::copy_from_slice(end));
        Ok(Box::new(MemCursor {
            view: self.0.clone(),
            cf,
            start,
            end,
            place: Place::Fresh,
        }))
    }
}

enum Place {
    Fresh,
    At(Bytes),
    Past,
}

/// Remembers only the key it stands on: every move is one look-up, so no lock is held between moves.
struct MemCursor {
    view: Arc<View>,
    cf: Cf,
    start: Bytes,
    end: Bytes,
    place: Place,
}

impl MemCursor {
    fn place(&mut self, pair: Option<(Bytes, Bytes)>) -> Option<(Bytes, Bytes)> {
        self.place = pair.as_ref().map_or(Place::Past, |(key, _)| Place::At(key.clone()));
        pair
    }

    fn find(&self, range: Bounds<'_>, backwards: bool) -> Result<Option<(Bytes, Bytes)>> {
        if let (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) = range
            && (low > high || (low == high && !matches!(range, (Bound::Included(_), Bound::Included(_)))))
        {
            return Ok(None); // `BTreeMap::range` panics on these
        }
        let state = self.view.state.lock();
        state.alive()?;
        let mut pairs = state.families[self.cf as usize].range::<[u8], _>(range);
        let seen = |(key, versions): (&Bytes, &Versions)| Some((key.clone(), versions.at(self.view.seq)?.clone()));
        Ok(if backwards {
            pairs.rev().find_map(seen)
        } else {
            pairs.find_map(seen)
        })
    }

    fn upper(&self) -> Bound<&[u8]> {
        if self.end.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Excluded(&self.end)
        }
    }
}

impl Cursor for MemCursor {
    fn seek(&mut self, key: &[u8]) -> Result<Option<(Bytes, Bytes)>> {
        let found = self.find((Bound::Included(key.max(&self.start)), self.upper()), false)?;
        Ok(self.place(found))
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> Result<Option<(Bytes, Bytes)>> {
        let inside = self.end.is_empty() || *key < *self.end;
        let upper = if inside { Bound::Included(key) } else { self.upper() };
        let found = self.find((Bound::Included(&self.start), upper), true)?;
        Ok(self.place(found))
    }

    fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        let lower = match &self.place {
            Place::Fresh => Bound::Included(&*self.start),
            Place::At(key) => Bound::Excluded(&**key),
            Place::Past => return Ok(None),
        };
        let found = self.find((lower, self.upper()), false)?;
        Ok(self.place(found))
    }

    fn prev(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        let upper = match &self.place {
            Place::Fresh => self.upper(),
            Place::At(key) => Bound::Excluded(&**key),
            Place::Past => return Ok(None),
        };
        let found = self.find((Bound::Included(&self.start), upper), true)?;
        Ok(self.place(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(engine: &MemEngine, key: &'static str, value: &'static str) {
        let mut batch = Batch::new();
        batch.put(Cf::Default, key, value);
        engine.write(batch).unwrap();
    }

    fn get(engine: &MemEngine, key: &str) -> Option<Bytes> {
        engine.get(Cf::Default, key.as_bytes()).unwrap()
    }

    #[test]
    fn crash_keeps_a_prefix() {
        for keep in 0..5 {
            let engine = MemEngine::new();
            put(&engine, "a", "0");
            engine.sync().unwrap();
            put(&engine, "a", "1");
            let mut both = Batch::new();
            both.delete(Cf::Default, "a");
            both.put(Cf::Local, "l", "2");
            engine.write(both).unwrap();
            put(&engine, "a", "3");
            assert_eq!(engine.unsynced(), 3);
            let after = engine.crash(keep);
            let wanted = [Some("0"), Some("1"), None, Some("3"), Some("3")][keep];
            assert_eq!(get(&after, "a"), wanted.map(Bytes::from), "kept {keep}");
            assert_eq!(after.get(Cf::Local, b"l").unwrap().is_some(), keep >= 2, "kept {keep}");
            assert_eq!(after.unsynced(), 0);
            assert!(matches!(engine.get(Cf::Default, b"a"), Err(Error::Poisoned)));
        }
    }

    #[test]
    fn sync_to_a_mark_leaves_later_batches_open() {
        let engine = MemEngine::new();
        put(&engine, "a", "1");
        let mark = engine.written();
        put(&engine, "a", "2");
        engine.sync_to(mark).unwrap();
        engine.sync_to(mark).unwrap();
        assert_eq!(engine.unsynced(), 1);
        assert_eq!(get(&engine.crash(0), "a"), Some(Bytes::from("1")));
    }

    #[test]
    fn faults_poison() {
        for (fault, survives) in [(Fault::Write, "1"), (Fault::Sync, "2")] {
            let engine = MemEngine::new();
            put(&engine, "a", "1");
            engine.sync().unwrap();
            engine.inject(fault);
            let mut batch = Batch::new();
            batch.put(Cf::Default, "a", "2");
            let outcome = engine.write(batch.clone()).and_then(|()| engine.sync());
            assert!(
                matches!(outcome, Err(Error::Io { .. } | Error::DiskFull { .. })),
                "{fault:?}: {outcome:?}"
            );
            assert!(matches!(engine.write(batch), Err(Error::Poisoned)));
            assert!(matches!(engine.sync(), Err(Error::Poisoned)));
            assert_eq!(get(&engine.crash(9), "a"), Some(Bytes::from(survives)), "{fault:?}");
        }
    }

    #[test]
    fn full_disk_changes_nothing() {
        let engine = MemEngine::new();
        engine.inject(Fault::DiskFull);
        let mut batch = Batch::new();
        batch.put(Cf::Default, "a", "1");
        assert!(matches!(engine.write(batch.clone()), Err(Error::DiskFull { .. })));
        assert_eq!(get(&engine, "a"), None);
        engine.write(batch).unwrap();
        assert_eq!(get(&engine, "a"), Some(Bytes::from("1")));
    }

    #[test]
    fn versions_go_with_their_snapshots() {
        let engine = MemEngine::new();
        put(&engine, "a", "1");
        let first = engine.snapshot();
        put(&engine, "a", "2");
        put(&engine, "a", "3");
        let second = engine.snapshot();
        let mut delete = Batch::new();
        delete.delete(Cf::Default, "a");
        engine.write(delete).unwrap();
        assert_eq!(first.get(Cf::Default, b"a").unwrap(), Some(Bytes::from("1")));
        assert_eq!(second.get(Cf::Default, b"a").unwrap(), Some(Bytes::from("3")));
        let count = || {
            engine.state.lock().families[0]
                .values()
                .map(|v| 1 + v.older.len())
                .sum::<usize>()
        };
        assert_eq!(count(), 3, "the value between the snapshots is not kept");
        drop(first);
        assert_eq!(count(), 2);
        drop(second);
        assert_eq!(count(), 0);
        assert!(engine.state.lock().garbage.is_empty());
    }
}
