//! The raft log on files, by the `raft-engine` crate: log-structured, one append file for all regions, recycled files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, io};

use base::{ByteSize, RegionId, section};
use prost::Message;
use proto::ferrite_raft::RaftState;
use raft::eraftpb::Entry;
use raft_engine::env::Handle;
use raft_engine::{Command, Engine, LogBatch, MessageExt, ReadableSize, RecoveryMode};

use super::files::{Fd, Files, OnFailedSync};
use super::{Error, Found, RaftLog, Result};
use crate::peer::RaftWrite;
use crate::storage::LogPosition;

section! { "raft-log",
    /// Where entries are kept until the engine holds their effects durably.
    pub struct LogConfig {
        /// Size at which a log file is closed and the next one begun. From "1MiB" to "1GiB". Fixed at start.
        pub file_size: ByteSize = ByteSize::mib(32),
        /// Bytes of log files from which on old ones are given back or recycled. At least four times `file-size`.
        /// Fixed at start.
        pub purge_threshold: ByteSize = ByteSize::mib(256),
    }
}

impl LogConfig {
    /// Every fault of the options.
    pub fn validate(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if !(1 << 20..=1 << 30).contains(&self.file_size.0) {
            faults.push(format!("raft-log.file-size = {}: wanted 1MiB to 1GiB", self.file_size));
        }
        if self.purge_threshold.0 < 4 * self.file_size.0 {
            let (threshold, size) = (self.purge_threshold, self.file_size);
            faults.push(format!(
                "raft-log.purge-threshold = {threshold}: wanted at least four times raft-log.file-size ({size})"
            ));
        }
        faults
    }
}

/// Tells the crate what an entry is.
struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;
    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

const STATE: &[u8] = b"state";
/// Region ids start at one: zero is the store's own.
const OWN: u64 = 0;
const SYNC_MARK: &[u8] = b"sync";

pub struct EngineLog {
    engine: Engine<Files>,
    dir: PathBuf,
    poisoned: AtomicBool,
}

impl fmt::Debug for EngineLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineLog").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl EngineLog {
    /// Opens the log, making it if need be. A torn end of the last file is cut off: nothing there was acknowledged. Damage
    /// anywhere else is an error. A sync that fails later is told to `on_failed_sync`, on the thread that wanted it.
    pub fn open(dir: &Path, config: &LogConfig, on_failed_sync: OnFailedSync) -> Result<EngineLog> {
        EngineLog::open_with(dir, config, on_failed_sync, Handle::sync)
    }

    /// As [`EngineLog::open`], with another way to sync a file.
    pub(super) fn open_with(
        dir: &Path,
        config: &LogConfig,
        on_failed_sync: OnFailedSync,
        sync: fn(&Fd) -> io::Result<()>,
    ) -> Result<EngineLog> {
        let options = raft_engine::Config {
            dir: dir.display().to_string(),
            recovery_mode: RecoveryMode::TolerateTailCorruption,
            recovery_threads: 2,
            // Compressing costs CPU on the way of every write; entries leave the log soon.
            batch_compression_threshold: ReadableSize(0),
            target_file_size: ReadableSize(config.file_size.0),
            purge_threshold: ReadableSize(config.purge_threshold.0),
            enable_log_recycle: true,
            ..raft_engine::Config::default()
        };
        std::fs::create_dir_all(dir).map_err(|e| describe(raft_engine::Error::Io(e), "make", dir))?;
        let told = dir.to_owned();
        let failed = move |error: io::Error| {
            on_failed_sync(&Error::Sync {
                dir: told.clone(),
                message: error.to_string(),
            });
            error
        };
        let files = Files {
            sync,
            failed: Arc::new(failed),
        };
        let opened = Engine::open_with_file_system(options, Arc::new(files)).map_err(|e| describe(e, "open", dir))?;
        Ok(EngineLog {
            engine: opened,
            dir: dir.to_owned(),
            poisoned: AtomicBool::new(false),
        })
    }

    fn failed(&self, act: &'static str) -> impl Fn(raft_engine::Error) -> Error {
        move |error| {
            if act != "read" {
                self.poisoned.store(true, Ordering::Release);
            }
            describe(error, act, &self.dir)
        }
    }

    fn write_batch(&self, mut batch: LogBatch, sync: bool) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(Error::Poisoned);
        }
        self.engine.write(&mut batch, sync).map(drop).map_err(self.failed("write"))
    }

    fn term_at(&self, region: RegionId, index: u64) -> Result<u64> {
        let entry = self
            .engine
            .get_entry::<Entries>(region.0, index)
            .map_err(self.failed("read"))?;
        let missing = || Error::Corrupt {
            dir: self.dir.clone(),
            message: format!("region {region} lacks entry {index}"),
        };
        Ok(entry.ok_or_else(missing)?.term)
    }

    /// Where each term begins in `[low, high]`: terms only grow, so halving finds the borders without reading the log.
    fn term_runs(&self, region: RegionId, low: LogPosition, high: LogPosition, runs: &mut Vec<LogPosition>) -> Result<()> {
        if low.term == high.term {
            return Ok(());
        }
        if low.index + 1 == high.index {
            runs.push(high);
            return Ok(());
        }
        let index = low.index + (high.index - low.index) / 2;
        let middle = LogPosition {
            index,
            term: self.term_at(region, index)?,
        };
        self.term_runs(region, low, middle, runs)?;
        self.term_runs(region, middle, high, runs)
    }
}

fn describe(error: raft_engine::Error, act: &'static str, dir: &Path) -> Error {
    let dir = dir.to_owned();
    match error {
        raft_engine::Error::Io(e) if e.kind() == std::io::ErrorKind::StorageFull => Error::DiskFull { dir },
        // The crate's word for a disk that was full twice, in the file at hand and in a fresh one.
        raft_engine::Error::TryAgain(_) => Error::DiskFull { dir },
        raft_engine::Error::Corruption(message) => Error::Corrupt { dir, message },
        raft_engine::Error::Codec(e) => Error::Corrupt {
            dir,
            message: e.to_string(),
        },
        error => Error::Backend {
            act,
            dir,
            message: error.to_string(),
        },
    }
}

impl RaftLog for EngineLog {
    fn write(&self, writes: &[RaftWrite], sync: bool) -> Result<()> {
        let mut batch = LogBatch::with_capacity(writes.len() * 2);
        for write in writes {
            let region = write.region.0;
            if write.reset {
                batch.add_command(region, Command::Clean);
            }
            batch
                .add_entries::<Entries>(region, &write.entries)
                .map_err(self.failed("write"))?;
            if let Some(state) = &write.state {
                batch
                    .put(region, STATE.to_vec(), state.encode_to_vec())
                    .map_err(self.failed("write"))?;
            }
            if let Some(to) = write.compact_to {
                batch.add_command(region, Command::Compact { index: to + 1 });
            }
        }
        self.write_batch(batch, sync)
    }

    fn sync(&self) -> Result<()> {
        // The crate's own sync does nothing when there is nothing to write.
        let mut batch = LogBatch::default();
        batch.put(OWN, SYNC_MARK.to_vec(), Vec::new()).map_err(self.failed("write"))?;
        self.write_batch(batch, true)
    }

    fn regions(&self) -> Vec<RegionId> {
        let mut regions: Vec<_> = self
            .engine
            .raft_groups()
            .into_iter()
            .filter(|&id| id != OWN)
            .map(RegionId)
            .collect();
        regions.sort();
        regions
    }

    fn find(&self, region: RegionId) -> Result<Option<Found>> {
        let Some(state) = self.engine.get(region.0, STATE) else {
            return Ok(None);
        };
        let corrupt = |message: String| Error::Corrupt {
            dir: self.dir.clone(),
            message,
        };
        let state = RaftState::decode(&state[..]).map_err(|e| corrupt(format!("state of region {region}: {e}")))?;
        let (Some(first), Some(last)) = (self.engine.first_index(region.0), self.engine.last_index(region.0)) else {
            return Ok(Some(Found {
                state,
                last_index: state.truncated_index,
                term_runs: Vec::new(),
            }));
        };
        if first != state.truncated_index + 1 {
            let wanted = state.truncated_index + 1;
            return Err(corrupt(format!("log of region {region} begins at {first}, wanted {wanted}")));
        }
        let position = |index| {
            Ok(LogPosition {
                index,
                term: self.term_at(region, index)?,
            })
        };
        let (low, high) = (position(first)?, position(last)?);
        let mut term_runs = vec![low];
        self.term_runs(region, low, high, &mut term_runs)?;
        Ok(Some(Found {
            state,
            last_index: last,
            term_runs,
        }))
    }

    fn entries(&self, region: RegionId, low: u64, high: u64, bytes_max: u64) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        match self
            .engine
            .fetch_entries_to::<Entries>(region.0, low, high, Some(bytes_max), &mut entries)
        {
            Ok(_) => Ok(entries),
            Err(raft_engine::Error::EntryCompacted | raft_engine::Error::EntryNotFound) => Ok(Vec::new()),
            Err(error) => Err(self.failed("read")(error)),
        }
    }

    fn remove(&self, region: RegionId) -> Result<()> {
        let mut batch = LogBatch::default();
        batch.add_command(region.0, Command::Clean);
        self.write_batch(batch, false)
    }

    fn purge(&self) -> Result<()> {
        // The crate rewrites what is old and still needed; regions that it names only ask to be compacted, which they are anyway.
        self.engine.purge_expired_files().map(drop).map_err(self.failed("purge"))
    }

    fn disk_bytes(&self) -> u64 {
        let sizes = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        sizes.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum()
    }
}
