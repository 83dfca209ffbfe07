//! The raft log of a store: entries and raft states of all its regions, one sync for many of them.
//!
//! A narrow door with two implementations: [`EngineLog`] on files, [`MemLog`] for the simulator. Writes become visible in order; after a
//! crash the log holds a prefix of the writes, and at least all that came before the last sync that returned.

mod engine;
mod files;
mod memory;

use std::path::PathBuf;

use base::RegionId;
use proto::ferrite_raft::RaftState;
use raft::eraftpb::Entry;

pub use self::engine::{EngineLog, LogConfig};
pub use self::files::OnFailedSync;
pub use self::memory::MemLog;

use crate::peer::RaftWrite;
use crate::storage::LogPosition;

/// Why the raft log could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{act} in {dir}: {message}")]
    Backend {
        act: &'static str,
        dir: PathBuf,
        message: String,
    },
    #[error("no space left on the disk of {dir}")]
    DiskFull { dir: PathBuf },
    #[error("raft log in {dir} is damaged: {message}")]
    Corrupt { dir: PathBuf, message: String },
    /// What was written may be lost: stop, restart, recover.
    #[error("sync in {dir} failed: {message}")]
    Sync { dir: PathBuf, message: String },
    /// A sync failed before: nothing more is taken.
    #[error("the raft log stopped after a failed sync")]
    Poisoned,
}

pub type Result<T> = std::result::Result<T, Error>;

/// A region's log as found at start.
#[derive(Debug, Default)]
pub struct Found {
    pub state: RaftState,
    /// Index of the last entry; of what lies before the log if it is empty. No gap behind `state.truncated_index`.
    pub last_index: u64,
    /// First entry of each run of equal terms, ascending.
    pub term_runs: Vec<LogPosition>,
}

/// The door.
pub trait RaftLog: Send + Sync {
    /// Appends the writes of many regions, in order. With `sync`, all of them and all before are durable once this returns.
    /// After a failure nothing more is taken.
    fn write(&self, writes: &[RaftWrite], sync: bool) -> Result<()>;

    /// Makes every write that returned durable.
    fn sync(&self) -> Result<()>;

    /// Regions that have a log.
    fn regions(&self) -> Vec<RegionId>;

    /// State and extent of a region's log; `None` if it has none.
    fn find(&self, region: RegionId) -> Result<Option<Found>>;

    /// Entries `[low, high)`, about `bytes_max` of them, at least one. Empty if they were compacted away.
    fn entries(&self, region: RegionId, low: u64, high: u64, bytes_max: u64) -> Result<Vec<Entry>>;

    /// Drops all of a region.
    fn remove(&self, region: RegionId) -> Result<()>;

    /// Gives back the room of compacted entries. Long work: for a thread in the background.
    fn purge(&self) -> Result<()>;

    /// Bytes on disk, for reports.
    fn disk_bytes(&self) -> u64;
}

#[cfg(test)]
mod tests;
