//! [`RocksEngine`]: RocksDB behind the same door, for those who want it (cargo feature `rocksdb`).
//!
//! Column families are RocksDB's own. Its log is written without syncing and synced on demand, where it shares one sync among
//! callers itself. A crash leaves a prefix over all families: before a family's memtable becomes a table, RocksDB syncs the
//! closed logs whenever there is more than one family, and it recovers to a point in time, refusing tables that are ahead of it.
//! Unlike the default engine it cannot tell a damaged middle of the log from a lost tail; both end the recovery there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRawIterator, DBRecoveryMode,
    ErrorKind, IngestExternalFileOptions, Options, Range, ReadOptions, SnapshotWithThreadMode, SstFileWriter, WriteBatch,
    WriteOptions,
};

use crate::{Ascending, Batch, Cf, Compression, Cursor, Engine, EngineConfig, Error, Op, Result, Snapshot};

/// An ingestion writes files of about this size.
const INGEST_FILE_BYTES: usize = 64 << 20;

/// RocksDB as an engine.
pub struct RocksEngine {
    core: Arc<Core>,
    /// Names files of ingestions.
    ingestions: AtomicU64,
}

struct Core {
    db: DB,
    dir: PathBuf,
    poisoned: AtomicBool,
}

impl RocksEngine {
    /// Opens the engine in `dir`, creating both when there are none.
    pub fn open(dir: &Path, config: &EngineConfig) -> Result<RocksEngine> {
        std::fs::create_dir_all(dir).map_err(|e| Error::from_io("create directory", dir, e))?;
        let options = options(config);
        let families = Cf::ALL.map(|cf| ColumnFamilyDescriptor::new(cf.name(), options.clone()));
        let db = DB::open_cf_descriptors(&options, dir, families).map_err(|e| error("open", dir, e))?;
        let core = Core {
            db,
            dir: dir.to_owned(),
            poisoned: AtomicBool::new(false),
        };
        Ok(RocksEngine {
            core: Arc::new(core),
            ingestions: AtomicU64::new(0),
        })
    }
}

fn options(config: &EngineConfig) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(config.cache_size.as_usize()));
    table.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(config.memtable_size.as_usize());
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_keep_log_file_num(2);
    options.set_compression_type(match config.compression {
        Compression::None => DBCompressionType::None,
        Compression::Lz4 => DBCompressionType::Lz4,
    });
    options
}

/// RocksDB tells the kind of an error coarsely, and the rest in words.
fn error(act: &'static str, dir: &Path, error: rocksdb::Error) -> Error {
    let kind = error.kind();
    let message = error.into_string();
    let dir = dir.display().to_string();
    match kind {
        ErrorKind::Corruption => Error::Corrupt {
            what: format!("{act} in {dir}: {message}"),
        },
        ErrorKind::IOError if message.contains("No space left") => Error::DiskFull { dir },
        ErrorKind::IOError if message.contains("lock") => Error::Locked { dir },
        ErrorKind::IOError => Error::Io {
            act,
            dir,
            source: std::io::Error::other(message),
        },
        _ => Error::Backend { act, message },
    }
}

impl Core {
    fn cf(&self, cf: Cf) -> &ColumnFamily {
        self.db.cf_handle(cf.name()).expect("opened with every family")
    }

    fn alive(&self) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) {
            Err(Error::Poisoned)
        } else {
            Ok(())
        }
    }

    fn fail(&self, act: &'static str, e: rocksdb::Error) -> Error {
        let error = error(act, &self.dir, e);
        if !matches!(error, Error::DiskFull { .. }) {
            self.poisoned.store(true, Ordering::Release);
            crate::metrics::POISONED.set(1);
        }
        error
    }

    fn get(&self, cf: Cf, key: &[u8], options: &ReadOptions) -> Result<Option<Bytes>> {
        let value = self
            .db
            .get_pinned_cf_opt(self.cf(cf), key, options)
            .map_err(|e| error("read", &self.dir, e))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// The last key of a family, for ranges without an end.
    fn last_key(&self, cf: Cf) -> Option<Box<[u8]>> {
        let mut iterator = self.db.raw_iterator_cf(self.cf(cf));
        iterator.seek_to_last();
        iterator.key().map(Into::into)
    }
}

impl std::fmt::Debug for RocksEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksEngine")
            .field("dir", &self.core.dir)
            .finish_non_exhaustive()
    }
}

impl Engine for RocksEngine {
    fn write(&self, batch: Batch) -> Result<()> {
        crate::check_keys(&batch)?;
        self.core.alive()?;
        let mut changes = WriteBatch::default();
        for op in batch.ops() {
            match op {
                Op::Put { cf, key, value } => changes.put_cf(self.core.cf(*cf), key, value),
                Op::Delete { cf, key } => changes.delete_cf(self.core.cf(*cf), key),
            }
        }
        self.core
            .db
            .write_opt(changes, &WriteOptions::default())
            .map_err(|e| self.core.fail("write", e))?;
        crate::metrics::WRITE_BATCHES.inc();
        crate::metrics::WRITE_BYTES.inc_by(batch.bytes() as u64);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.core.alive()?;
        let _timer = crate::metrics::SYNC_SECONDS.start_timer();
        self.core.db.flush_wal(true).map_err(|e| self.core.fail("sync", e))
    }

    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        self.core.get(cf, key, &ReadOptions::default())
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(RocksSnapshot(Arc::new(Pinned::new(&self.core))))
    }

    fn delete_range(&self, cf: Cf, start: &[u8], end: &[u8]) -> Result<()> {
        self.core.alive()?;
        let end = match end {
            b"" => match self.core.last_key(cf) {
                Some(last) => [&last[..], b"\0"].concat(),
                None => return Ok(()),
            },
            end => end.to_vec(),
        };
        if *start >= *end {
            return Ok(());
        }
        self.core
            .db
            .delete_range_cf(self.core.cf(cf), start, &end)
            .map_err(|e| self.core.fail("delete range", e))
    }

    fn ingest(&self, cf: Cf, pairs: &mut dyn Iterator<Item = (Bytes, Bytes)>) -> Result<()> {
        self.core.alive()?;
        let fail = |e| self.core.fail("ingest", e);
        let mut pairs = Ascending::new(pairs).peekable();
        while pairs.peek().is_some() {
            let name = format!("ingest-{}.tmp", self.ingestions.fetch_add(1, Ordering::Relaxed));
            let path = self.core.dir.join(name);
            let options = Options::default();
            let mut writer = SstFileWriter::create(&options);
            writer.open(&path).map_err(fail)?;
            let mut bytes = 0;
            while bytes < INGEST_FILE_BYTES
                && let Some((key, value)) = pairs.next()
            {
                crate::check_key(&key)?;
                bytes += key.len() + value.len();
                writer.put(&key, &value).map_err(fail)?;
            }
            writer.finish().map_err(fail)?;
            self.sync()?; // the file is durable at once, so what came before must be
            let mut options = IngestExternalFileOptions::default();
            options.set_move_files(true);
            self.core
                .db
                .ingest_external_file_cf_opts(self.core.cf(cf), &options, vec![path])
                .map_err(fail)?;
        }
        Ok(())
    }

    /// Without what is still in memory: RocksDB tells that only for whole families.
    fn approximate_size(&self, cf: Cf, start: &[u8], end: &[u8]) -> Result<u64> {
        let last;
        let end = match end {
            b"" => match self.core.last_key(cf) {
                Some(key) => {
                    last = [&key[..], b"\0"].concat();
                    &last
                }
                None => return Ok(0),
            },
            end => end,
        };
        if start >= end {
            return Ok(0);
        }
        Ok(self
            .core
            .db
            .get_approximate_sizes_cf(self.core.cf(cf), &[Range::new(start, end)])
            .iter()
            .sum())
    }

    fn disk_bytes(&self) -> u64 {
        let files = std::fs::read_dir(&self.core.dir).into_iter().flatten().flatten();
        files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
    }

    fn name(&self) -> &'static str {
        "rocksdb"
    }
}

/// A snapshot of RocksDB with the database that it points into. Fields are dropped in order: the snapshot first.
struct Pinned {
    snapshot: SnapshotWithThreadMode<'static, DB>,
    core: Arc<Core>,
}

impl Pinned {
    fn new(core: &Arc<Core>) -> Pinned {
        let snapshot = core.db.snapshot();
        // SAFETY: the snapshot borrows `core.db`, which stays where it is inside its `Arc` for as long as `Pinned` holds that, and
        // `Pinned` drops the snapshot before it lets go of it.
        #[allow(unsafe_code)]
        let snapshot =
            unsafe { std::mem::transmute::<SnapshotWithThreadMode<'_, DB>, SnapshotWithThreadMode<'static, DB>>(snapshot) };
        Pinned {
            snapshot,
            core: core.clone(),
        }
    }

    fn read_options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options
    }
}

struct RocksSnapshot(Arc<Pinned>);

impl Snapshot for RocksSnapshot {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        self.0.core.get(cf, key, &self.0.read_options())
    }

    fn cursor(&self, cf: Cf, start: &[u8], end: &[u8]) -> Result<Box<dyn Cursor>> {
        let mut options = self.0.read_options();
        options.set_iterate_lower_bound(start);
        if !end.is_empty() {
            // RocksDB wants an upper bound at or behind the lower.
            options.set_iterate_upper_bound(end.max(start));
        }
        let core = &self.0.core;
        let iterator = core.db.raw_iterator_cf_opt(core.cf(cf), options);
        // SAFETY: as for the snapshot: the iterator borrows the database that `pinned` keeps, and is dropped before it.
        #[allow(unsafe_code)]
        let iterator = unsafe { std::mem::transmute::<DBRawIterator<'_>, DBRawIterator<'static>>(iterator) };
        Ok(Box::new(RocksCursor {
            iterator,
            pinned: self.0.clone(),
            at: At::Fresh,
        }))
    }
}

#[derive(PartialEq)]
enum At {
    Fresh,
    Pair,
    Past,
}

/// Fields are dropped in order: the iterator before what it points into.
struct RocksCursor {
    iterator: DBRawIterator<'static>,
    pinned: Arc<Pinned>,
    at: At,
}

impl RocksCursor {
    fn stand(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        let pair = self
            .iterator
            .item()
            .map(|(key, value)| (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        self.at = if pair.is_some() { At::Pair } else { At::Past };
        if pair.is_none() {
            self.iterator.status().map_err(|e| error("read", &self.pinned.core.dir, e))?;
        }
        Ok(pair)
    }
}

impl Cursor for RocksCursor {
    fn seek(&mut self, key: &[u8]) -> Result<Option<(Bytes, Bytes)>> {
        self.iterator.seek(key);
        self.stand()
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> Result<Option<(Bytes, Bytes)>> {
        self.iterator.seek_for_prev(key);
        self.stand()
    }

    fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        match self.at {
            At::Fresh => self.iterator.seek_to_first(),
            At::Pair => self.iterator.next(),
            At::Past => return Ok(None),
        }
        self.stand()
    }

    fn prev(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        match self.at {
            At::Fresh => self.iterator.seek_to_last(),
            At::Pair => self.iterator.prev(),
            At::Past => return Ok(None),
        }
        self.stand()
    }
}
