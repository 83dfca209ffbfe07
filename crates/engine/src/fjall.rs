//! [`FjallEngine`]: the default engine. Log-structured merge trees of the fjall project (crate `lsm-tree`), one per column family,
//! under a log of our own (`log`, `record`).
//!
//! Why not the crate `fjall`, which puts a journal over the same trees: its journal refuses to open after a power cut that tore
//! the last batch; takes a damaged tag inside for its end, and so loses what was synced; syncs under the lock that writers
//! need; and a compaction that ends while a batch is being applied makes half of that batch visible. See `docs/engine.md`.
//!
//! # Life of a batch
//! Under the writer lock a batch gets the next number, is appended to the log's buffer and put into the memtables of its families;
//! then `visible` moves past its number. When the memtables together are full, they are sealed, and the log begins a new
//! segment. A thread syncs the log up to that segment, turns the sealed memtables into tables, notes in the log that it did, and
//! removes the segments before. Another thread compacts tables.
//!
//! # Why a crash leaves a prefix of the batches
//! Let `L` be the last record that a start reaches in the log. Records form a chain (each names the one before), so the log gives
//! exactly the batches up to `L`, from the first that the log's marks do not call flushed.
//! 1. *Nothing beyond `L` is in tables.* Tables are made from sealed memtables, and only after the log was synced up to their last
//!    batch (`Core::flush`); there is one sealed set at a time, so that nothing unsynced is sealed beside it. An ingestion, which
//!    flushes its family too, syncs the log first, under the writer lock.
//! 2. *Nothing up to `L` is missing.* A segment is removed only after its batches were in tables, listed durably by `lsm-tree`
//!    (it syncs tables, directory, list, and the pointer to the list, in this order), and after the mark that says so was synced.
//! 3. *What was in tables already is applied again* to a family only if the batch is newer than all of its tables, with the same number:
//!    it changes nothing.
//! 4. *A sync covers everything before it*: all segments with unsynced records, and their names.
//!
//! Whether records missing after `L` had been durable is told by the heads behind, which say what was synced when they were
//! written, and by the mark that each sync leaves: then the start is refused ([`Error::Corrupt`]) instead of losing them.
//!
//! # Why readers see batches whole
//! A reader takes `visible` as its number and sees entries below. `lsm-tree` numbers its own changes of tables from the same
//! counter, and keeps, for each reader, the tables of the last change below its number. `Readers` tells it how far back
//! that must go; a number is taken and registered in one step, so no change can go between.
//!
//! # Damage
//! Blocks carry checksums, checked on every read from disk. What `lsm-tree` does not check is checked by `verify` at start.

mod background;
mod config;
mod log;
mod ranges;
mod record;
mod snapshot;
mod verify;

use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use lsm_tree::config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use lsm_tree::{
    AbstractTree, AnyTree, Cache, CompressionType, DescriptorTable, InternalValue, Memtable, SequenceNumberCounter, ValueType,
};
use parking_lot::Mutex;

pub use config::{Compression, EngineConfig};

use crate::{Batch, Cf, Engine, Error, Op, Result, Snapshot, metrics};
use background::Background;
use log::{Log, Writer};
use snapshot::{Readers, View};

/// Files of tables kept open.
const OPEN_FILES: usize = 512;

/// Name and version of the format, first in the file `FORMAT`; behind stand the directory's random key and a checksum.
const FORMAT: &str = "ferrite engine 1";

/// The engine on disk. Dropping it ends its threads; the directory is free once its snapshots are dropped too.
pub struct FjallEngine {
    core: Arc<Core>,
    threads: Vec<JoinHandle<()>>,
}

/// What threads, snapshots and callers share.
struct Core {
    dir: PathBuf,
    trees: [AnyTree; 4],
    config: EngineConfig,
    /// Numbers batches and changes of tables.
    seqno: SequenceNumberCounter,
    /// Readers see entries below this.
    visible: AtomicU64,
    /// The writer lock. Taken before the locks of `log` and `background`.
    front: Mutex<Front>,
    log: Log,
    readers: Readers,
    background: Background,
    poisoned: AtomicBool,
    _lock: File,
}

/// What a writer needs.
struct Front {
    log: Writer,
    memtables: [Arc<Memtable>; 4],
    /// Bytes in `memtables`.
    bytes: u64,
}

impl AsMut<Writer> for Front {
    fn as_mut(&mut self) -> &mut Writer {
        &mut self.log
    }
}

impl FjallEngine {
    /// Opens the engine in `dir`, creating both when there are none. Returns once everything durable can be read.
    pub fn open(dir: &Path, config: &EngineConfig) -> Result<FjallEngine> {
        fs::create_dir_all(dir).map_err(|e| Error::from_io("create directory", dir, e))?;
        let lock = lock(dir)?;
        let key = match read_format(dir)? {
            Some(key) => key,
            None => create(dir)?,
        };
        let seqno = SequenceNumberCounter::new(1);
        let trees = open_trees(dir, config, &seqno)?;
        let memtables = trees.each_ref().map(|tree| tree.active_memtable());
        let mut bytes = 0;
        let persisted = trees.each_ref().map(|tree| tree.get_highest_persisted_seqno().unwrap_or(0));
        let found = log::replay(&dir.join("log"), key, |seqno, ops| {
            for op in &ops {
                let cf = op.cf() as usize;
                if seqno > persisted[cf] {
                    bytes += memtables[cf].insert(entry(op, seqno)).0;
                }
            }
        })?;
        seqno.fetch_max(persisted.into_iter().max().unwrap_or(0).max(found.last) + 1);
        let front = Front {
            log: Writer::create(&dir.join("log"), key, &found)?,
            memtables,
            bytes,
        };
        let core = Arc::new(Core {
            dir: dir.to_owned(),
            trees,
            config: config.clone(),
            visible: AtomicU64::new(seqno.get()),
            seqno,
            front: Mutex::new(front),
            log: Log::new(found.last),
            readers: Readers::default(),
            background: Background::default(),
            poisoned: AtomicBool::new(false),
            _lock: lock,
        });
        tracing::info!(dir = %dir.display(), last = found.last, flushed = found.flushed, replayed_bytes = bytes, "open engine");
        core.tidy(found)?;
        let threads = background::start(&core);
        Ok(FjallEngine { core, threads })
    }
}

impl Drop for FjallEngine {
    fn drop(&mut self) {
        self.core.background.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // its panic was told
        }
        if !self.core.poisoned.load(Ordering::Acquire)
            && let Err(error) = self.core.front.lock().log.close()
        {
            tracing::warn!(%error, "close log");
        }
    }
}

impl std::fmt::Debug for FjallEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FjallEngine")
            .field("dir", &self.core.dir)
            .finish_non_exhaustive()
    }
}

/// Takes the directory for this process.
fn lock(dir: &Path) -> Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("LOCK"));
    let file = file.map_err(|e| Error::from_io("open lock file", dir, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked {
            dir: dir.display().to_string(),
        }),
        Err(TryLockError::Error(e)) => Err(Error::from_io("lock directory", dir, e)),
    }
}

/// The directory's key, or `None` if nothing was created yet, or not to the end.
fn read_format(dir: &Path) -> Result<Option<u32>> {
    let found = match fs::read(dir.join("FORMAT")) {
        Ok(found) => String::from_utf8_lossy(&found).into_owned(),
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::from_io("read format", dir, e)),
        Err(_) if holds_data(dir) => String::new(),
        Err(_) => return Ok(None),
    };
    let key = found
        .strip_prefix(FORMAT)
        .and_then(|rest| rest.strip_prefix(" key ")?.get(..8));
    let key = key
        .and_then(|key| u32::from_str_radix(key, 16).ok())
        .filter(|key| found == format_line(*key));
    let format = || Error::Format {
        dir: dir.display().to_string(),
        found: format!("{:?}", found.trim_end()),
        wanted: FORMAT.to_owned(),
    };
    key.map(Some).ok_or_else(format)
}

/// Whether anything was ever written: then a missing `FORMAT` is damage.
fn holds_data(dir: &Path) -> bool {
    let has_tables = |cf: Cf| fs::read_dir(dir.join(cf.name()).join("tables")).is_ok_and(|mut tables| tables.next().is_some());
    log::disk_bytes(&dir.join("log")) > 0 || Cf::ALL.into_iter().any(has_tables)
}

fn format_line(key: u32) -> String {
    let line = format!("{FORMAT} key {key:08x}");
    format!("{line} crc {:08x}\n", crc32fast::hash(line.as_bytes()))
}

/// Makes an empty log and, when all else is durable, the file that says so. `lsm-tree` creates the trees.
fn create(dir: &Path) -> Result<u32> {
    let io = |e| Error::from_io("create engine", dir, e);
    // The standard library's hash seed is the system's randomness.
    let key = std::hash::RandomState::new().build_hasher().finish() as u32;
    for cf in Cf::ALL {
        open_tree(dir, cf, &EngineConfig::default(), &SequenceNumberCounter::new(1), None)?;
    }
    let log = dir.join("log");
    match fs::remove_dir_all(&log) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(e)),
        _ => fs::create_dir(&log).map_err(io)?,
    }
    Writer::create(&log, key, &log::Found::default())?.sync_locked()?;
    let mut file = File::create(dir.join("FORMAT.new")).map_err(io)?;
    file.write_all(format_line(key).as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(io)?;
    log::sync_dir(dir)?;
    fs::rename(dir.join("FORMAT.new"), dir.join("FORMAT")).map_err(io)?;
    log::sync_dir(dir)?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        log::sync_dir(parent)?;
    }
    Ok(key)
}

fn open_trees(dir: &Path, config: &EngineConfig, seqno: &SequenceNumberCounter) -> Result<[AnyTree; 4]> {
    let cache = Arc::new(Cache::with_capacity_bytes(config.cache_size.0));
    let files = Arc::new(DescriptorTable::new(OPEN_FILES));
    let mut trees = Vec::with_capacity(Cf::ALL.len());
    for cf in Cf::ALL {
        verify::verify_tree(&dir.join(cf.name()))?;
        trees.push(open_tree(dir, cf, config, seqno, Some((&cache, &files)))?);
    }
    Ok(trees.try_into().unwrap_or_else(|_| unreachable!("one tree per family")))
}

type Shared<'a> = (&'a Arc<Cache>, &'a Arc<DescriptorTable>);

fn open_tree(
    dir: &Path,
    cf: Cf,
    config: &EngineConfig,
    seqno: &SequenceNumberCounter,
    shared: Option<Shared<'_>>,
) -> Result<AnyTree> {
    let compression = match config.compression {
        Compression::None => CompressionType::None,
        Compression::Lz4 => CompressionType::Lz4,
    };
    // Where `lsm-tree` would make its own changes visible to readers: not looked at, since that could be amid a batch of ours.
    let unused = SequenceNumberCounter::default();
    let mut tree = lsm_tree::Config::new(dir.join(cf.name()), seqno.clone(), unused)
        .data_block_compression_policy(CompressionPolicy::all(compression))
        .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(
            BloomConstructionPolicy::BitsPerKey(10.0),
        )));
    if let Some((cache, files)) = shared {
        tree = tree.use_cache(cache.clone()).use_descriptor_table(Some(files.clone()));
    }
    tree.open().map_err(|e| tree_error("open tables", dir, e))
}

/// Turns an error of the trees into ours.
fn tree_error(act: &'static str, dir: &Path, error: lsm_tree::Error) -> Error {
    use std::io::ErrorKind;
    match error {
        // A table that is missing or too short.
        lsm_tree::Error::Io(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => Error::Corrupt {
            what: format!("{act} in {}: {e}", dir.display()),
        },
        lsm_tree::Error::Io(e) => Error::from_io(act, dir, e),
        lsm_tree::Error::InvalidVersion(found) => Error::Format {
            dir: dir.display().to_string(),
            found: format!("tables {found}"),
            wanted: "tables 3".to_owned(),
        },
        other => Error::Corrupt {
            what: format!("{act} in {}: {other:?}", dir.display()),
        },
    }
}

fn entry(op: &Op, seqno: u64) -> InternalValue {
    match op {
        Op::Put { key, value, .. } => InternalValue::from_components(&**key, &**value, seqno, ValueType::Value),
        Op::Delete { key, .. } => InternalValue::new_tombstone(&**key, seqno),
    }
}

/// Copies short values, and shares long ones with the block that holds them.
fn to_bytes(slice: lsm_tree::Slice) -> Bytes {
    const SHARE_FROM: usize = 1024;
    if slice.len() < SHARE_FROM {
        Bytes::copy_from_slice(&slice)
    } else {
        Bytes::from_owner(slice)
    }
}

impl Core {
    fn tree(&self, cf: Cf) -> &AnyTree {
        &self.trees[cf as usize]
    }

    fn alive(&self) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) {
            Err(Error::Poisoned)
        } else {
            Ok(())
        }
    }

    /// After this error the engine takes no more writes, unless it is a full disk, which changed nothing.
    fn fail(&self, error: Error) -> Error {
        if !matches!(error, Error::DiskFull { .. } | Error::Poisoned) && !self.poisoned.swap(true, Ordering::AcqRel) {
            metrics::POISONED.set(1);
            tracing::error!(dir = %self.dir.display(), error = %base::log::chain(&error), "engine takes no more writes");
            self.background.wake_writers();
        }
        error
    }

    fn write(&self, batch: &Batch) -> Result<()> {
        self.background.wait_for_room(self)?;
        let mut front = self.front.lock();
        self.alive()?;
        let seqno = self.seqno.next();
        front.log.append(seqno, batch.ops()).map_err(|e| self.fail(e))?;
        for op in batch.ops() {
            front.bytes += front.memtables[op.cf() as usize].insert(entry(op, seqno)).0;
        }
        self.visible.store(seqno + 1, Ordering::Release);
        if front.bytes >= self.config.memtable_size.0 {
            self.maybe_seal(&mut front)?;
        }
        drop(front);
        metrics::WRITE_BATCHES.inc();
        metrics::WRITE_BYTES.inc_by(batch.bytes() as u64);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.alive()?;
        let target = self.front.lock().log.last();
        self.log.sync(target, &self.front).map_err(|e| self.fail(e))
    }

    fn get(&self, cf: Cf, key: &[u8], seqno: u64) -> Result<Option<Bytes>> {
        if key.is_empty() {
            return Ok(None);
        }
        let value = self.tree(cf).get(key, seqno).map_err(|e| tree_error("read", &self.dir, e))?;
        Ok(value.map(to_bytes))
    }

    /// Lets readers see changes of tables that were made since the last batch, and so lets go of what they replaced.
    fn show_tables(&self, _front: &mut Front) {
        self.visible.store(self.seqno.get(), Ordering::Release); // under the writer lock: no batch is half applied
    }
}

impl Engine for FjallEngine {
    fn write(&self, batch: Batch) -> Result<()> {
        crate::check_keys(&batch)?;
        if batch.is_empty() {
            self.core.alive()
        } else {
            self.core.write(&batch)
        }
    }

    fn sync(&self) -> Result<()> {
        self.core.sync()
    }

    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        let seqno = self.core.readers.enter(&self.core.visible);
        let value = self.core.get(cf, key, seqno);
        self.core.readers.leave(seqno);
        value
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(View::new(&self.core))
    }

    fn delete_range(&self, cf: Cf, start: &[u8], end: &[u8]) -> Result<()> {
        ranges::delete(&self.core, cf, start, end)
    }

    fn ingest(&self, cf: Cf, pairs: &mut dyn Iterator<Item = (Bytes, Bytes)>) -> Result<()> {
        ranges::ingest(&self.core, cf, pairs)
    }

    fn approximate_size(&self, cf: Cf, start: &[u8], end: &[u8]) -> Result<u64> {
        Ok(ranges::approximate_size(&self.core, cf, start, end))
    }

    fn disk_bytes(&self) -> u64 {
        let tables: u64 = self.core.trees.iter().map(|tree| tree.disk_space()).sum();
        tables + log::disk_bytes(&self.core.dir.join("log"))
    }

    fn name(&self) -> &'static str {
        "fjall"
    }
}
