//! Storage behind one narrow door, and the trait [`Kv`](kv::Kv) through which everything above meets replication.
//!
//! [`Engine`]: named column families, an atomic batch over several of them, consistent snapshots, cursors in both directions,
//! delete range, ordered bulk ingest, approximate sizes, durability on demand. Three living implementations run one
//! conformance and one crash suite: memory (the oracle, and what the simulator uses), fjall (the default), RocksDB (feature
//! `rocksdb`). Data comes from `raftstore` (applied entries, raft snapshots) and goes back to it through snapshots.
//!
//! Invariants:
//! - a batch is visible whole or not at all, and in the order of `write` calls;
//! - after a crash or power cut the engine holds a prefix of the batches written, over all column families together, and at
//!   least everything written before the last [`Engine::sync`] that returned;
//! - nothing here knows of regions, transactions or clocks; no call but `sync`, `flush` and opening waits for the disk to sync.

mod fjall;
pub mod keys;
pub mod kv;
mod memory;
mod metrics;
#[cfg(feature = "rocksdb")]
mod rocksdb;

use std::path::Path;
use std::sync::Arc;
use std::{fmt, io};

use bytes::Bytes;

#[cfg(feature = "rocksdb")]
pub use self::rocksdb::RocksEngine;
pub use fjall::{Compression, EngineConfig, FjallEngine};
pub use memory::{Fault, MemEngine};

/// A column family. The set is closed, so that a batch over all of them can be atomic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Cf {
    /// Values: raw pairs, and transactional values too long to stand in `Write`.
    Default = 0,
    /// Locks of running transactions.
    Lock = 1,
    /// Commit records, with short values inlined.
    Write = 2,
    /// The store's own: identity, region states, apply states. Never replicated.
    Local = 3,
}

impl Cf {
    pub const ALL: [Cf; 4] = [Cf::Default, Cf::Lock, Cf::Write, Cf::Local];
    /// The families that hold users' data, replicated by raft.
    pub const DATA: [Cf; 3] = [Cf::Default, Cf::Lock, Cf::Write];

    pub fn name(self) -> &'static str {
        match self {
            Cf::Default => "default",
            Cf::Lock => "lock",
            Cf::Write => "write",
            Cf::Local => "local",
        }
    }
}

/// Why the engine could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds the directory.
    #[error("data directory {dir} is in use by another process")]
    Locked { dir: String },
    /// A checksum or structure on disk is not what was written.
    #[error("data is damaged: {what}")]
    Corrupt { what: String },
    /// The disk has no room left.
    #[error("no space left on the disk of {dir}")]
    DiskFull { dir: String },
    /// The data was written by a format this version does not read.
    #[error("data directory {dir} has format {found}, this version reads {wanted}")]
    Format { dir: String, found: String, wanted: String },
    /// A write or sync failed before; the engine takes no more of them, the process must restart and recover.
    #[error("the engine stopped after a failed write or sync")]
    Poisoned,
    #[error("{act} in {dir}")]
    Io {
        act: &'static str,
        dir: String,
        source: std::io::Error,
    },
    #[error("{act}: {message}")]
    Backend { act: &'static str, message: String },
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Tells a full disk from other failures of the system.
    fn from_io(act: &'static str, dir: &Path, source: io::Error) -> Error {
        let dir = dir.display().to_string();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull { dir },
            _ => Error::Io { act, dir, source },
        }
    }
}

/// Longest key that an engine takes, in bytes. The empty key is not taken either: ours all begin with a prefix.
pub const KEY_BYTES_MAX: usize = 65_000;

fn check_key(key: &[u8]) -> Result<()> {
    if (1..=KEY_BYTES_MAX).contains(&key.len()) {
        return Ok(());
    }
    Err(Error::Backend {
        act: "write",
        message: format!("key of {} bytes, wanted 1 to {KEY_BYTES_MAX}", key.len()),
    })
}

fn check_keys(batch: &Batch) -> Result<()> {
    batch.ops().iter().try_for_each(|op| check_key(op.key()))
}

/// One change of a [`Batch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Put { cf: Cf, key: Bytes, value: Bytes },
    Delete { cf: Cf, key: Bytes },
}

impl Op {
    pub fn cf(&self) -> Cf {
        match self {
            Op::Put { cf, .. } | Op::Delete { cf, .. } => *cf,
        }
    }

    pub fn key(&self) -> &Bytes {
        match self {
            Op::Put { key, .. } | Op::Delete { key, .. } => key,
        }
    }
}

/// Changes that become visible together. Later changes of a key win.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    ops: Vec<Op>,
    bytes: usize,
}

impl Batch {
    pub fn new() -> Batch {
        Batch::default()
    }

    pub fn put(&mut self, cf: Cf, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (key, value) = (key.into(), value.into());
        self.bytes += key.len() + value.len();
        self.ops.push(Op::Put { cf, key, value });
    }

    pub fn delete(&mut self, cf: Cf, key: impl Into<Bytes>) {
        let key = key.into();
        self.bytes += key.len();
        self.ops.push(Op::Delete { cf, key });
    }

    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    pub fn into_ops(self) -> Vec<Op> {
        self.ops
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The door. Shared by threads; every method takes `&self`. Ranges are half-open, and an empty end means "no end".
///
/// After a failed write or sync the engine is poisoned: what lies on disk is not known until the next opening reads it, so
/// every later write and sync answers [`Error::Poisoned`]. Two failures change nothing, and the engine goes on:
/// [`Error::DiskFull`], until there is room again, and a key that is empty or over [`KEY_BYTES_MAX`].
pub trait Engine: Send + Sync + fmt::Debug + 'static {
    /// Makes `batch` visible, whole. Not durable until a later [`sync`](Engine::sync) returns. May wait until gathered writes
    /// have room.
    fn write(&self, batch: Batch) -> Result<()>;

    /// Returns once every batch whose `write` returned before this call is durable. Callers at the same time share one sync.
    fn sync(&self) -> Result<()>;

    /// Latest value of `key`.
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>>;

    /// A view of all column families that later writes do not change.
    fn snapshot(&self) -> Arc<dyn Snapshot>;

    /// Deletes every key of `cf` in `[start, end)`. Not atomic: a reader or a crash may see a part of it done. Keys put by
    /// writes that began after this call returned are untouched.
    fn delete_range(&self, cf: Cf, start: &[u8], end: &[u8]) -> Result<()>;

    /// Loads pairs, in bounded memory; visible and durable after, at the latest, the next [`sync`](Engine::sync). Not atomic.
    /// Panics when the keys do not ascend strictly.
    fn ingest(&self, cf: Cf, pairs: &mut dyn Iterator<Item = (Bytes, Bytes)>) -> Result<()>;

    /// About how many bytes on disk and in memory the keys in `[start, end)` take. Reads no data.
    fn approximate_size(&self, cf: Cf, start: &[u8], end: &[u8]) -> Result<u64>;

    /// Bytes on disk of the whole engine, for reports.
    fn disk_bytes(&self) -> u64;

    /// Name for logs and reports: `memory`, `fjall`, `rocksdb`.
    fn name(&self) -> &'static str;
}

/// A consistent view. Cheap to share; keeps old versions alive while it lives.
pub trait Snapshot: Send + Sync + 'static {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>>;

    /// A cursor over `[start, end)` of `cf`, placed before its first key.
    fn cursor(&self, cf: Cf, start: &[u8], end: &[u8]) -> Result<Box<dyn Cursor>>;
}

/// Walks a range in both directions. Every move returns the pair it stands on, or `None` past either end.
/// After `None`, `next` and `prev` stay there; `seek` and `seek_for_prev` start anew. A cursor may be reused for many seeks,
/// cheaply.
pub trait Cursor: Send {
    /// To the first key `>= key`.
    fn seek(&mut self, key: &[u8]) -> Result<Option<(Bytes, Bytes)>>;
    /// To the last key `<= key`.
    fn seek_for_prev(&mut self, key: &[u8]) -> Result<Option<(Bytes, Bytes)>>;
    /// To the following key; to the range's first key on a fresh cursor.
    fn next(&mut self) -> Result<Option<(Bytes, Bytes)>>;
    /// To the preceding key; to the range's last key on a fresh cursor.
    fn prev(&mut self) -> Result<Option<(Bytes, Bytes)>>;
}

/// Passes pairs on while their keys ascend strictly, and panics when they do not: the caller's bug would silently lose writes.
struct Ascending<'a> {
    pairs: &'a mut dyn Iterator<Item = (Bytes, Bytes)>,
    last: Option<Bytes>,
}

impl<'a> Ascending<'a> {
    fn new(pairs: &'a mut dyn Iterator<Item = (Bytes, Bytes)>) -> Ascending<'a> {
        Ascending { pairs, last: None }
    }
}

impl Iterator for Ascending<'_> {
    type Item = (Bytes, Bytes);

    fn next(&mut self) -> Option<(Bytes, Bytes)> {
        let (key, value) = self.pairs.next()?;
        assert!(
            self.last.as_ref().is_none_or(|last| *last < key),
            "ingested keys do not ascend"
        );
        self.last = Some(key.clone());
        Some((key, value))
    }
}
