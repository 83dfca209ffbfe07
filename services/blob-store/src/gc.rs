//! The deleter: one thread that drops what is too much or too old, empties segments and keeps the journal short.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::MonoTime;

use crate::index::{Entry, Place};
use crate::journal::Record;
use crate::key::Key;
use crate::segments::SegmentFile;
use crate::store::{Inner, now};
use crate::upload::JOURNAL_COST;
use crate::usage::Reservation;
use crate::{Error, metrics};

/// Looks this often where nobody asks for room.
const ROUND: Duration = Duration::from_secs(1);
/// How often the journal is told what was used: a kill loses the order of so much.
const NOTE_USES: Duration = Duration::from_secs(10);
/// Blobs dropped under one hold of the lock.
const BATCH: usize = 64;
/// A segment with more percent alive is not emptied: rather evict more.
const ALIVE_MAX: u64 = 70;
/// A log below this is never compacted.
const LOG_MIN: u64 = 1 << 20;
/// Bytes of a record of the journal.
const RECORD: u64 = 79;

/// The deleter's life. `sweep`: the last stop was not clean, so look for files that no blob owns, a folder at a time.
pub(crate) fn run(inner: &Arc<Inner>, sweep: bool) {
    let mut noted = MonoTime::now();
    let mut folders = if sweep { 0..256u32 } else { 0..0 };
    while !inner.stop.is_stopped() {
        match folders.next() {
            Some(folder) => sweep_folder(inner, folder),
            None => {
                inner.note_swept();
                inner.usage.wait(ROUND);
            }
        }
        if inner.stop.is_stopped() {
            return;
        }
        let mut done = collect(inner);
        if MonoTime::now().since(noted) >= NOTE_USES {
            noted = MonoTime::now();
            done = done.and(inner.note_uses());
        }
        if let Err(error) = done {
            tracing::error!(error = %base::log::chain(&error), "collect");
        }
    }
}

/// One round.
pub(crate) fn collect(inner: &Inner) -> Result<(), Error> {
    let start = MonoTime::now();
    let wanted = wanted(inner);
    let dropped = expire(inner)? + make_room(inner, wanted)?;
    delete_dead(inner);
    if dropped > 0 {
        metrics::COLLECT.observe(MonoTime::now().since(start).as_secs_f64());
    }
    maybe_compact_journal(inner)
}

/// Bytes that should be in use at most: the soft limit with a little below it, less what the disk lacks.
fn wanted(inner: &Inner) -> u64 {
    let config = &inner.config;
    let used = inner.usage.used();
    let soft = match used > config.size_soft {
        true => config.size_soft - config.size_soft / 100,
        false => config.size_soft,
    };
    if config.disk_free_min == 0 {
        return soft;
    }
    let Some(free) = disk_free(&config.dir) else {
        return soft;
    };
    inner.usage.set_tight(free < config.disk_free_min / 2);
    soft.min(used.saturating_sub(config.disk_free_min.saturating_sub(free)))
}

/// Bytes that the disk of `dir` has for us; `None` if it does not tell.
pub(crate) fn disk_free(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail * stat.f_frsize)
}

/// Drops what was not used for too long. Lists are in order of use, but for what fell back to probation, which goes later.
fn expire(inner: &Inner) -> Result<usize, Error> {
    let age = inner.config.age_max.as_secs();
    if age == 0 {
        return Ok(0);
    }
    let before = u64::from(now()).saturating_sub(age);
    let mut dropped = 0;
    loop {
        let due: Vec<(Key, Place)> = {
            let state = inner.state.lock();
            let old = state.index.oldest().filter(|entry| u64::from(entry.used_at) < before);
            old.map(|entry| (entry.key, entry.place())).collect()
        };
        if due.is_empty() || inner.stop.is_stopped() {
            return Ok(dropped);
        }
        for (key, place) in due {
            inner.forget(&key, place, "age")?;
            dropped += 1;
        }
    }
}

/// Evicts and empties until at most `wanted` bytes are in use, or nothing is left. How many blobs were dropped.
fn make_room(inner: &Inner, wanted: u64) -> Result<usize, Error> {
    let mut dropped = 0;
    while inner.usage.used() > wanted && !inner.stop.is_stopped() {
        let over = inner.usage.used() - wanted;
        let (dead, emptiest) = {
            let state = inner.state.lock();
            (state.segments.dead(), state.segments.emptiest())
        };
        match emptiest {
            Some((id, percent)) if dead >= over && percent <= ALIVE_MAX => empty(inner, id)?,
            _ => {
                let evicted = evict(inner, over.saturating_sub(dead).max(1))?;
                dropped += evicted;
                if evicted == 0 {
                    inner.state.lock().segments.seal();
                    if inner.state.lock().segments.emptiest().is_none() {
                        return Ok(dropped);
                    }
                }
            }
        }
        delete_dead(inner);
    }
    Ok(dropped)
}

/// Drops the next victims: about `bytes`, at most a batch.
fn evict(inner: &Inner, bytes: u64) -> Result<usize, Error> {
    let mut taken: Vec<(Entry, u64)> = Vec::new();
    {
        let mut state = inner.state.lock();
        let mut sum = 0;
        while sum < bytes && taken.len() < BATCH {
            let Some(key) = state.index.victim().map(|entry| entry.key) else {
                break;
            };
            let victim = inner.take_out(&mut state, &key).expect("the victim is in the index");
            sum += victim.0.stored;
            taken.push(victim);
        }
    }
    for (entry, _) in &taken {
        inner.discard(entry);
        metrics::EVICTED_BYTES.inc_by(entry.stored);
    }
    metrics::DROPPED.with_label_values(&["room"]).inc_by(taken.len() as u64);
    if let Some((_, number)) = taken.last() {
        inner.flush(*number)?;
    }
    Ok(taken.len())
}

fn delete_dead(inner: &Inner) {
    let dead = inner.state.lock().segments.take_dead();
    dead.iter().for_each(|segment| segment.delete());
}

/// A live blob of a segment that is being emptied, and its copy.
struct Moved {
    entry: Entry,
    segment: u32,
    offset: u32,
}

/// Copies what lives in a segment elsewhere, or drops it where there is no room to copy.
fn empty(inner: &Inner, id: u32) -> Result<(), Error> {
    let (live, from) = {
        let state = inner.state.lock();
        let Some(segment) = state.segments.get(id) else {
            return Ok(());
        };
        let here = |entry: &&Entry| matches!(entry.place(), Place::Segment(at, _) if at == id);
        // Entries gone since keep their slot's last content: the index decides.
        let is_live = |entry: &&Entry| state.index.get(&entry.key).is_some_and(|live| live.place() == entry.place());
        let entries = segment.slots.iter().filter_map(|slot| state.index.at(*slot));
        let mut live: Vec<Entry> = entries.filter(here).filter(is_live).copied().collect();
        live.sort_by_key(|entry| entry.place().pack());
        live.dedup_by_key(|entry| entry.place().pack());
        (live, segment.file.clone())
    };
    let mut room = Reservation::none(&inner.usage);
    let bytes: u64 = live.iter().map(|entry| entry.stored + JOURNAL_COST).sum();
    if room.grow(bytes, Duration::ZERO).is_err() {
        return live
            .iter()
            .try_for_each(|entry| inner.forget(&entry.key, entry.place(), "room"));
    }
    let (moved, files) = copy(inner, &live, &from, &mut room)?;
    if inner.is_synced() {
        files.values().try_for_each(|file| inner.guard(file.sync()))?;
    }
    relocate(inner, &moved)
}

type Files = BTreeMap<u32, Arc<SegmentFile>>;

fn copy(inner: &Inner, live: &[Entry], from: &SegmentFile, room: &mut Reservation) -> Result<(Vec<Moved>, Files), Error> {
    let (mut moved, mut files) = (Vec::new(), Files::new());
    for entry in live {
        let Place::Segment(_, offset) = entry.place() else { continue };
        let mut bytes = vec![0; entry.stored as usize];
        let read = from.file().and_then(|file| file.read_exact_at(&mut bytes, u64::from(offset)));
        if read.is_err() {
            inner.forget(&entry.key, entry.place(), "damage")?;
            continue;
        }
        let allocated = inner.state.lock().segments.allocate(entry.stored);
        let (segment, offset, file) = allocated.map_err(Error::io("make a segment"))?;
        room.hand_over(entry.stored);
        metrics::COPIED_BYTES.inc_by(entry.stored);
        let written = file.file().and_then(|file| file.write_all_at(&bytes, u64::from(offset)));
        if let Err(source) = written {
            inner.state.lock().segments.abandon(segment);
            let act = "copy a blob";
            return Err(Error::Io { act, source });
        }
        files.insert(segment, file);
        moved.push(Moved {
            entry: *entry,
            segment,
            offset,
        });
    }
    Ok((moved, files))
}

/// Points the index at the copies of blobs that are still there.
fn relocate(inner: &Inner, moved: &[Moved]) -> Result<(), Error> {
    let mut number = 0;
    for Moved { entry, segment, offset } in moved {
        let mut state = inner.state.lock();
        let Place::Segment(old, _) = entry.place() else { continue };
        let same = state
            .index
            .get(&entry.key)
            .is_some_and(|current| current.place() == entry.place());
        if !same {
            state.segments.abandon(*segment);
            continue;
        }
        let slot = state
            .index
            .relocate(&entry.key, Place::Segment(*segment, *offset))
            .expect("it is in the index");
        state.segments.release(old, entry.stored);
        state.segments.publish(*segment, slot, entry.stored);
        let current = *state.index.at(slot).expect("it is in the index");
        number = inner.journal.queue(&Record::Put(current));
    }
    inner.flush(number)
}

fn maybe_compact_journal(inner: &Inner) -> Result<(), Error> {
    let snapshot = inner.state.lock().index.len() as u64 * RECORD;
    match inner.journal.len() > LOG_MIN.max(2 * snapshot) {
        true => compact_journal(inner),
        false => Ok(()),
    }
}

/// Writes the index as a snapshot and starts a new log.
pub(crate) fn compact_journal(inner: &Inner) -> Result<(), Error> {
    let blobs = inner.state.lock().index.len() as u64;
    let bytes = blobs * RECORD + blobs * RECORD / 8 + (256 << 10);
    let mut room = Reservation::none(&inner.usage);
    if room.grow(bytes, Duration::ZERO).is_err() {
        make_room(inner, inner.config.size_soft.saturating_sub(bytes))?;
        room.grow(bytes, Duration::ZERO)?;
    }
    let generation = inner.journal.rotate()?;
    inner.journal.write_snapshot(generation, inner.records())
}

/// Deletes files under `files/` that no blob owns: left by a crash between the file's name and the journal.
fn sweep_folder(inner: &Inner, folder: u32) {
    let dir = inner.config.dir.join("files").join(format!("{folder:02x}"));
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let owner = entry.file_name().to_str().and_then(owner);
        let is_owned = owner.is_some_and(|(key, id)| {
            let state = inner.state.lock();
            let place = state.index.get(&key).map(Entry::place);
            place == Some(Place::File(id)) || inner.is_new_file(id)
        });
        if !is_owned {
            tracing::info!(path = %entry.path().display(), "delete a leftover");
            let _gone = fs::remove_file(entry.path());
        }
    }
}

/// Key and id in the name of a blob's file.
pub(crate) fn owner(name: &str) -> Option<(Key, u64)> {
    let (key, id) = name.split_once('.')?;
    Some((Key::from_hex(key)?, u64::from_str_radix(id, 16).ok()?))
}
