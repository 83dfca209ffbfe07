//! The store: index, segments, files and journal under one lock and one deleter.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base::WallTime;
use base::shutdown::Shutdown;
use parking_lot::Mutex;

use crate::blob::{Blob, Found, Source};
use crate::config::{Config, SyncMode};
use crate::frames::Codec;
use crate::hot::Hot;
use crate::index::{Entry, Index, Place};
use crate::journal::{Journal, Record, USED_COST, sync_dir};
use crate::key::{Content, Key};
use crate::segments::Segments;
use crate::upload::Upload;
use crate::usage::{Reservation, Usage, file_cost};
use crate::{Error, gc, metrics};

/// Folders under `files/`, named by the first two digits of the keys in them.
const FOLDERS: u64 = 256;
/// Uses that go to the journal at once: 2.8 MB. Of more, the order is lost by a kill.
const USES_MAX: usize = 1 << 16;
/// Longest name of a space.
const SPACE_NAME_MAX: usize = 255;

/// Number of a space: whose upload a blob was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpaceId(pub u16);

/// What is known of a key without touching the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Absent,
    /// There, with this many bytes of content.
    Present(u64),
    /// There, but to be checked before anybody is told: [`Store::get`] does, and reads the disk for it.
    Suspect,
}

/// Figures of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub blobs: u64,
    /// Bytes that count against the limit, uploads in flight included.
    pub used: u64,
    pub size_max: u64,
    /// What the disk has left; zero if it does not tell.
    pub disk_free: u64,
    /// Bytes on disk of the blobs alone.
    pub stored: u64,
    pub segments: u64,
    pub segment_bytes: u64,
    /// Bytes of blobs gone that their segments still hold.
    pub dead: u64,
    pub index_memory: u64,
    /// Content of often read blobs in memory.
    pub hot: u64,
    /// Blobs and bytes on disk by space, those that have any.
    pub spaces: Vec<(String, u64, u64)>,
}

/// A store; clones share it. The last one dropped stops the deleter, as a killed process would; see [`Store::close`].
#[derive(Clone)]
pub struct Store(Arc<Handle>);

struct Handle {
    inner: Arc<Inner>,
    deleter: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inner.stop.stop();
        self.inner.usage.kick();
        if let Some(deleter) = self.deleter.lock().take() {
            let _panic = deleter.join();
        }
    }
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) usage: Arc<Usage>,
    pub(crate) codec: Codec,
    pub(crate) hot: Hot,
    pub(crate) journal: Journal,
    /// Before it no other lock of ours is taken but those of `journal` (its queue) and `leases`.
    pub(crate) state: Mutex<State>,
    pub(crate) stop: Shutdown,
    /// Readers of files, by id, and what to give back when the last one of a deleted file lets go.
    leases: Mutex<BTreeMap<u64, Lease>>,
    next_file: AtomicU64,
    /// Files with this id or a higher one were made since the start.
    first_file: u64,
    poisoned: AtomicBool,
    /// Whether files that a crash left were looked for.
    swept: AtomicBool,
    /// Holds the lock on the folder.
    _lock: File,
}

#[derive(Default)]
struct Lease {
    readers: u32,
    freed: Option<u64>,
}

/// What changes together.
pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) segments: Segments,
    spaces: Vec<Space>,
    /// Blobs that were used since the journal last heard of it, each once, and no more than it takes at once.
    uses: Vec<Key>,
}

struct Space {
    name: String,
    blobs: u64,
    stored: u64,
}

impl State {
    /// Notes a use of a blob now: what the index has of it, before and after.
    pub(crate) fn touch(&mut self, key: &Key) -> Option<(Entry, Entry)> {
        let touched = self.index.touch_from(key, now())?;
        if !touched.0.is_noted() && self.uses.len() < USES_MAX {
            self.uses.push(*key);
            self.index.update(key, |entry| entry.set_noted(true));
        }
        Some(touched)
    }

    fn count(&mut self, entry: &Entry, sign: i64) {
        if let Some(space) = self.spaces.get_mut(usize::from(entry.space)) {
            space.blobs = space.blobs.wrapping_add_signed(sign);
            space.stored = space.stored.wrapping_add_signed(sign * entry.stored as i64);
        }
    }
}

impl Store {
    /// Opens the store in `config.dir`, or makes it, and serves at once: no folder is walked. After an unclean stop, blobs
    /// are checked at first use and leftovers are deleted in the background.
    pub fn open(config: Config) -> Result<Store, Error> {
        config.check()?;
        let dir = &config.dir;
        for sub in ["files", "tmp", "segments"] {
            fs::create_dir_all(dir.join(sub)).map_err(Error::io("make the store's folders"))?;
        }
        let lock = lock(dir)?;
        let was_clean = marker::read(dir).map_err(Error::io("read the marker"))?;
        let usage = Usage::new(config.size_max, config.size_soft);
        usage.add(FOLDERS * 4096);

        let mut loaded = Loaded::new();
        let journal = Journal::open(&dir.join("journal"), config.sync, &usage, |record| loaded.apply(record))?;
        // What crashed may have left files that its journal does not know, and crash again before it tells of one. Numbers from the clock on,
        // in microseconds, are beyond those of all such runs, so that the sweep knows their files from ours; after a clock that was set back, at a later start.
        let first_file = match was_clean {
            true => loaded.next_file,
            false => loaded.next_file.max(WallTime::now().0 * 1000),
        };
        let state = loaded
            .into_state(&config, &usage, !was_clean)
            .map_err(Error::io("open the segments"))?;
        clear(&dir.join("tmp")).map_err(Error::io("clear unfinished uploads"))?;
        marker::write(dir, false).map_err(Error::io("write the marker"))?;
        tracing::info!(dir = %dir.display(), blobs = state.index.len(), used = usage.used(), was_clean, "store opened");
        let inner = Arc::new(Inner {
            codec: Codec::new(config.level),
            hot: Hot::new(config.memory_max, &dir.join("tmp"), &usage),
            config,
            usage,
            journal,
            state: Mutex::new(state),
            stop: Shutdown::default(),
            leases: Mutex::default(),
            next_file: AtomicU64::new(first_file),
            first_file,
            poisoned: AtomicBool::new(false),
            swept: AtomicBool::new(was_clean),
            _lock: lock,
        });
        let work = inner.clone();
        let deleter = base::thread::spawn("blob-gc", move || gc::run(&work, !was_clean));
        Ok(Store(Arc::new(Handle {
            inner,
            deleter: Mutex::new(Some(deleter)),
        })))
    }

    /// Stops the deleter, writes the index and makes everything durable: the next start trusts every blob. Uploads after it
    /// are not safe. Errors leave the store as a killed process would.
    pub fn close(&self) -> Result<(), Error> {
        let inner = &self.0.inner;
        inner.stop.stop();
        inner.usage.kick();
        if let Some(deleter) = self.0.deleter.lock().take() {
            let _panic = deleter.join();
        }
        inner.check_poison()?;
        gc::compact_journal(inner)?;
        let dir = &inner.config.dir;
        let root = File::open(dir).map_err(Error::io("open the store's folder"))?;
        rustix::fs::syncfs(&root).map_err(|errno| Error::Io {
            act: "sync the store",
            source: errno.into(),
        })?;
        marker::write(dir, true).map_err(Error::io("write the marker"))
    }

    /// What is known of `key`, without touching the disk and without counting as a use.
    pub fn peek(&self, key: &Key) -> Presence {
        match self.0.inner.state.lock().index.get(key) {
            None => Presence::Absent,
            Some(entry) if entry.is_suspect() => Presence::Suspect,
            Some(entry) => Presence::Present(entry.len),
        }
    }

    /// Renews `key`: the length of its content if it is there. A blob in doubt is checked first, which reads the disk.
    pub fn renew(&self, key: &Key) -> Result<Option<u64>, Error> {
        let renewed = self.0.inner.state.lock().touch(key);
        match renewed.map(|(_, after)| after) {
            Some(entry) if entry.is_suspect() => Ok(self.get(key)?.map(|blob| blob.len())),
            Some(entry) => Ok(Some(entry.len)),
            None => Ok(None),
        }
    }

    /// The blob of `key` for reading, and notes the use. A blob in doubt is checked first; one that is damaged or whose file
    /// is gone is dropped and counts as absent.
    pub fn get(&self, key: &Key) -> Result<Option<Blob>, Error> {
        self.open_blob(key, true)
    }

    /// As [`Store::get`], but does not count as a use: for copying blobs elsewhere.
    pub fn look(&self, key: &Key) -> Result<Option<Blob>, Error> {
        self.open_blob(key, false)
    }

    fn open_blob(&self, key: &Key, is_use: bool) -> Result<Option<Blob>, Error> {
        // A file may go between the look and the open, and the key may have another by then.
        for _ in 0..3 {
            let Some(found) = self.0.inner.find(key, is_use) else {
                return Ok(None);
            };
            let entry = found.entry;
            let blob = match Blob::open(self.0.inner.clone(), found) {
                Ok(blob) => blob,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.0.inner.forget(key, entry.place(), "missing")?;
                    continue;
                }
                Err(source) => {
                    let act = "open a blob";
                    return Err(Error::Io { act, source });
                }
            };
            if !entry.is_suspect() {
                return Ok(Some(blob));
            }
            match blob.check() {
                Ok(()) => {
                    self.0.inner.trust(key, entry.place());
                    return Ok(Some(blob));
                }
                Err(Error::Damaged) => self.0.inner.forget(key, entry.place(), "damage")?,
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// All content of `key`, for blobs that are known to be small.
    pub fn read(&self, key: &Key) -> Result<Option<Vec<u8>>, Error> {
        self.get(key)?.map(|blob| blob.read_all()).transpose()
    }

    /// Begins an upload for `key`. `len`: its length where known, which is then exact; else at most `len_max`.
    /// Nothing is written and no room taken yet.
    pub fn upload(&self, key: Key, content: Content, space: SpaceId, len: Option<u64>, len_max: u64) -> Upload {
        Upload::new(self.0.inner.clone(), key, content, space, len, len_max)
    }

    /// Stores `bytes` under `key`; waits for room.
    pub fn put(&self, key: Key, content: Content, space: SpaceId, bytes: &[u8]) -> Result<(), Error> {
        let len = bytes.len() as u64;
        let mut upload = self.upload(key, content, space, Some(len), len);
        upload.write(bytes)?;
        upload.commit().map(drop)
    }

    /// Drops `key`; whether it was there.
    pub fn remove(&self, key: &Key) -> Result<bool, Error> {
        let place = self.0.inner.state.lock().index.get(key).map(Entry::place);
        let Some(place) = place else { return Ok(false) };
        self.0.inner.forget(key, place, "asked")?;
        Ok(true)
    }

    /// Drops every blob of a space; how many.
    pub fn remove_space(&self, space: SpaceId) -> Result<u64, Error> {
        const CHUNK: u32 = 1024;
        let (mut start, mut dropped) = (0, 0);
        loop {
            let (entries, more) = self.0.inner.state.lock().index.chunk(start, CHUNK);
            for entry in entries.iter().filter(|entry| entry.space == space.0) {
                self.0.inner.forget(&entry.key, entry.place(), "asked")?;
                dropped += 1;
            }
            if !more {
                return Ok(dropped);
            }
            start += CHUNK;
        }
    }

    /// The number of the space called `name`, new if need be.
    pub fn space(&self, name: &str) -> Result<SpaceId, Error> {
        if let Some(id) = self.find_space(name) {
            return Ok(id);
        }
        if name.len() > SPACE_NAME_MAX {
            return Err(Error::Spaces);
        }
        let inner = &self.0.inner;
        let (id, number) = {
            let mut state = inner.state.lock();
            if let Some(id) = state.find_space(name) {
                return Ok(id);
            }
            let id = u16::try_from(state.spaces.len()).map_err(|_| Error::Spaces)?;
            state.spaces.push(Space {
                name: name.to_owned(),
                blobs: 0,
                stored: 0,
            });
            (id, inner.journal.queue(&Record::Space(id, name.to_owned())))
        };
        inner.flush(number)?;
        Ok(SpaceId(id))
    }

    /// The number of the space called `name`, if anything was ever uploaded to it.
    pub fn find_space(&self, name: &str) -> Option<SpaceId> {
        self.0.inner.state.lock().find_space(name)
    }

    /// Runs one round of the deleter on this thread, as tests and `verify` want it.
    pub fn collect(&self) -> Result<(), Error> {
        gc::collect(&self.0.inner)
    }

    /// Figures of this moment.
    pub fn stats(&self) -> Stats {
        let inner = &self.0.inner;
        let disk_free = gc::disk_free(&inner.config.dir).unwrap_or_default();
        let state = inner.state.lock();
        let (segments, segment_bytes) = state.segments.count();
        let spaces = state.spaces.iter().filter(|space| space.blobs > 0);
        Stats {
            blobs: state.index.len() as u64,
            used: inner.usage.used(),
            size_max: inner.config.size_max,
            disk_free,
            stored: state.index.stored(),
            segments: segments as u64,
            segment_bytes,
            dead: state.segments.dead(),
            index_memory: state.index.memory() as u64,
            hot: inner.hot.bytes(),
            spaces: spaces.map(|space| (space.name.clone(), space.blobs, space.stored)).collect(),
        }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.0.inner
    }
}

impl State {
    // Names are few, and looked up once per request: a map would be looked up no faster than ten of them.
    fn find_space(&self, name: &str) -> Option<SpaceId> {
        let at = self.spaces.iter().position(|space| space.name == name)?;
        Some(SpaceId(at as u16))
    }
}

impl Inner {
    fn find(self: &Arc<Self>, key: &Key, is_use: bool) -> Option<Found> {
        let mut state = self.state.lock();
        let (before, entry) = match is_use {
            true => state.touch(key)?,
            false => {
                let entry = *state.index.get(key)?;
                (entry, entry)
            }
        };
        let source = match entry.place() {
            Place::Segment(id, offset) => {
                let segment = state.segments.get(id).expect("a segment with blobs exists");
                Source::Segment(segment.file.clone(), u64::from(offset))
            }
            Place::File(id) => {
                self.leases.lock().entry(id).or_default().readers += 1;
                Source::Leased(id)
            }
        };
        Some(Found {
            entry,
            source,
            is_popular: is_use && before.was_used(),
        })
    }

    /// Ends a reader's hold on a file.
    pub(crate) fn end_lease(&self, id: u64) {
        let mut leases = self.leases.lock();
        let lease = leases.get_mut(&id).expect("a reader has a lease");
        lease.readers -= 1;
        if lease.readers == 0 {
            let freed = leases.remove(&id).and_then(|lease| lease.freed);
            drop(leases);
            if let Some(bytes) = freed {
                self.usage.sub(bytes);
            }
        }
    }

    /// Where the file of a blob lies.
    pub(crate) fn file_path(&self, key: &Key, id: u64) -> PathBuf {
        let hex = key.to_string();
        let name = format!("{hex}.{id:x}");
        self.config.dir.join("files").join(&hex[..2]).join(name)
    }

    pub(crate) fn next_file(&self) -> u64 {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether a file was made since the start.
    pub(crate) fn is_new_file(&self, id: u64) -> bool {
        id >= self.first_file
    }

    pub(crate) fn note_swept(&self) {
        self.swept.store(true, Ordering::Release);
    }

    /// Waits until the deleter has looked for what a crash left, or stops.
    pub(crate) fn wait_swept(&self) {
        while !self.swept.load(Ordering::Acquire) && !self.stop.is_stopped() {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    pub(crate) fn check_poison(&self) -> Result<(), Error> {
        match self.poisoned.load(Ordering::Acquire) {
            true => Err(Error::Poisoned),
            false => Ok(()),
        }
    }

    /// Passes `result` on; a failed sync ends all writing.
    pub(crate) fn guard<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(Error::Poisoned) = &result
            && !self.poisoned.swap(true, Ordering::AcqRel)
        {
            tracing::error!(dir = %self.config.dir.display(), "a sync failed: the store only reads until it is started again");
        }
        result
    }

    pub(crate) fn flush(&self, number: u64) -> Result<(), Error> {
        self.guard(self.journal.flush(number))
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.config.sync == SyncMode::Always
    }

    /// Makes a written blob visible, and durable as far as the mode promises.
    pub(crate) fn publish(&self, entry: Entry) -> Result<(), Error> {
        let (replaced, number) = {
            let mut state = self.state.lock();
            let (replaced, slot) = state.index.insert(entry);
            if let Place::Segment(id, _) = entry.place() {
                state.segments.publish(id, slot, entry.stored);
            }
            if let Some(old) = &replaced {
                state.count(old, -1);
                if let Place::Segment(id, _) = old.place() {
                    state.segments.release(id, old.stored);
                }
            }
            state.count(&entry, 1);
            (replaced, self.journal.queue(&Record::Put(entry)))
        };
        self.flush(number)?;
        if let Some(old) = replaced {
            self.discard(&old);
        }
        Ok(())
    }

    /// Takes a blob out of the index; its bytes go with [`Inner::discard`]. The number of the change.
    pub(crate) fn take_out(&self, state: &mut State, key: &Key) -> Option<(Entry, u64)> {
        let entry = state.index.remove(key)?;
        state.count(&entry, -1);
        if let Place::Segment(id, _) = entry.place() {
            state.segments.release(id, entry.stored);
        }
        Some((entry, self.journal.queue(&Record::Remove(*key, entry.place()))))
    }

    /// Deletes the file of a blob that is in no index. Segments are the deleter's.
    pub(crate) fn discard(&self, entry: &Entry) {
        let Place::File(id) = entry.place() else { return };
        let path = self.file_path(&entry.key, id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // It stays counted, as it stays on disk; a sweep after the next unclean stop finds it.
                tracing::error!(path = %path.display(), %error, "delete a blob");
                return;
            }
            _ => {}
        }
        let cost = file_cost(entry.stored);
        match self.leases.lock().get_mut(&id) {
            Some(lease) => lease.freed = Some(cost),
            None => self.usage.sub(cost),
        }
    }

    /// Drops the blob of `key` if it still lies at `place`.
    pub(crate) fn forget(&self, key: &Key, place: Place, reason: &'static str) -> Result<(), Error> {
        let taken = {
            let mut state = self.state.lock();
            match state.index.get(key) {
                Some(entry) if entry.place() == place => self.take_out(&mut state, key),
                _ => None,
            }
        };
        let Some((entry, number)) = taken else { return Ok(()) };
        metrics::DROPPED.with_label_values(&[reason]).inc();
        if reason == "damage" {
            tracing::warn!(key = %entry.key, stored = entry.stored, "dropped a damaged blob");
        }
        self.discard(&entry);
        self.journal.flush(number)
    }

    /// A blob was checked: no more doubt, if it is still the same.
    fn trust(&self, key: &Key, place: Place) {
        self.state.lock().index.update(key, |entry| {
            if entry.place() == place {
                entry.set_suspect(false);
            }
        });
    }

    /// Tells the journal what was used since it last was told, so that a kill loses little of the order in which blobs go. Where there is
    /// no room for it, it does not matter.
    pub(crate) fn note_uses(&self) -> Result<(), Error> {
        let mut room = Reservation::none(&self.usage);
        let number = {
            let mut state = self.state.lock();
            let keys = std::mem::take(&mut state.uses);
            let has_room = room.grow(keys.len() as u64 * USED_COST, Duration::ZERO).is_ok();
            let mut number = 0;
            for key in keys {
                state.index.update(&key, |entry| entry.set_noted(false));
                if let Some(entry) = state.index.get(&key).filter(|_| has_room) {
                    number = self.journal.queue(&Record::Used(key, entry.used_at));
                }
            }
            number
        };
        // What is written is counted as the journal's, and the room given back.
        self.flush(number)
    }

    /// All entries as records of a snapshot, in chunks; each chunk is of one moment.
    pub(crate) fn records(&self) -> impl Iterator<Item = Vec<Record>> {
        const CHUNK: u32 = 1024;
        let spaces = self.state.lock().spaces.iter().enumerate().map(space_record).collect();
        let mut start = Some(0);
        let chunks = std::iter::from_fn(move || {
            let from = start?;
            let (entries, more) = self.state.lock().index.chunk(from, CHUNK);
            start = more.then_some(from + CHUNK);
            Some(entries.into_iter().map(Record::Put).collect())
        });
        std::iter::once(spaces).chain(chunks)
    }
}

fn space_record((id, space): (usize, &Space)) -> Record {
    Record::Space(id as u16, space.name.clone())
}

/// Seconds since 1970.
pub(crate) fn now() -> u32 {
    u32::try_from(WallTime::now().seconds()).unwrap_or(u32::MAX)
}

/// What the journal tells at start.
struct Loaded {
    index: Index,
    spaces: BTreeMap<u16, String>,
    next_file: u64,
}

impl Loaded {
    fn new() -> Loaded {
        Loaded {
            index: Index::loading(),
            spaces: BTreeMap::new(),
            next_file: 0,
        }
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::Put(entry) => {
                if let Place::File(id) = entry.place() {
                    self.next_file = self.next_file.max(id + 1);
                }
                self.index.insert(entry);
            }
            Record::Remove(key, place) => {
                if self.index.get(&key).is_some_and(|entry| entry.place() == place) {
                    self.index.remove(&key);
                }
            }
            Record::Used(key, at) => drop(self.index.touch(&key, at)),
            Record::Space(id, name) => drop(self.spaces.insert(id, name)),
            Record::End(_) => {}
        }
    }

    /// Brings the entries into the order of their use and counts what they take.
    fn into_state(self, config: &Config, usage: &Arc<Usage>, suspect: bool) -> io::Result<State> {
        let mut entries = self.index.chunk(0, u32::MAX).0;
        drop(self.index);
        // The protected last, or the first of them would be too large a share of what is there by then.
        entries.sort_by_key(|entry| (entry.is_protected(), entry.used_at));
        let mut live: Vec<u32> = entries.iter().filter_map(segment_of).collect();
        live.sort_unstable();
        live.dedup();
        let segments = Segments::open(&config.dir.join("segments"), config.segment_bytes(), usage, |id| {
            live.binary_search(&id).is_ok()
        })?;
        let count = self.spaces.last_key_value().map_or(0, |(last, _)| usize::from(*last) + 1);
        let name = |id| self.spaces.get(&(id as u16)).cloned().unwrap_or_default();
        let mut state = State {
            index: Index::default(),
            segments,
            spaces: (0..count)
                .map(|id| Space {
                    name: name(id),
                    blobs: 0,
                    stored: 0,
                })
                .collect(),
            uses: Vec::new(),
        };
        for mut entry in entries {
            if let Place::Segment(id, offset) = entry.place() {
                let end = u64::from(offset) + entry.stored;
                if state.segments.len_of(id).is_none_or(|len| len < end) {
                    continue; // cut off by a crash of the machine
                }
            }
            entry.set_suspect(suspect);
            let (_, slot) = state.index.insert(entry);
            state.count(&entry, 1);
            match entry.place() {
                Place::Segment(id, _) => state.segments.fill(id, slot, entry.stored),
                Place::File(_) => usage.add(file_cost(entry.stored)),
            }
        }
        Ok(state)
    }
}

/// The index that a log gives.
pub(crate) fn index_of(log: &[u8]) -> Index {
    let mut loaded = Loaded::new();
    crate::journal::replay(log, |record| loaded.apply(record));
    loaded.index
}

fn segment_of(entry: &Entry) -> Option<u32> {
    match entry.place() {
        Place::Segment(id, _) => Some(id),
        Place::File(_) => None,
    }
}

fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(Error::io("make the lock file"))?;
    let locked = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    match locked {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked {
            path: dir.display().to_string(),
        }),
        Err(errno) => Err(Error::io("lock the store")(errno.into())),
    }
}

fn clear(dir: &Path) -> io::Result<()> {
    fs::read_dir(dir)?.try_for_each(|entry| fs::remove_file(entry?.path()))
}

/// Whether the last stop was clean, and in which run of the machine.
mod marker {
    use super::*;

    /// True for a new store, and for one that was closed: [`Store::close`] makes all durable first, so that a restart of the
    /// machine in between does no harm.
    pub(super) fn read(dir: &Path) -> io::Result<bool> {
        match fs::read_to_string(dir.join("marker")) {
            Ok(text) => {
                let is_clean = text.starts_with("clean ");
                let machine_went_on = text.split_whitespace().nth(1) == Some(boot_id().as_str());
                if !is_clean {
                    tracing::warn!(
                        machine_went_on,
                        "the last stop was not clean: blobs are checked before they are served"
                    );
                }
                Ok(is_clean)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write(dir: &Path, clean: bool) -> Result<(), io::Error> {
        let word = if clean { "clean" } else { "running" };
        let path = dir.join("marker.tmp");
        let mut file = File::create(&path)?;
        writeln!(file, "{word} {}", boot_id())?;
        file.sync_all()?;
        fs::rename(&path, dir.join("marker"))?;
        sync_dir(dir).map_err(|error| io::Error::other(error.to_string()))
    }

    fn boot_id() -> String {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        text.trim().to_owned()
    }
}
