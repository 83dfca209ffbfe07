//! Limits and promises of a store.

use std::path::PathBuf;
use std::time::Duration;

use crate::Error;

/// When an upload is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMode {
    /// Once the system has the bytes: a killed process loses nothing, a power cut what was not written back. After one,
    /// blobs are checked before they are served.
    #[default]
    Never,
    /// Once the disk has them.
    Always,
}

/// Options of a store.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it lives; made when missing.
    pub dir: PathBuf,
    /// Bytes on disk that are never exceeded, uploads in flight included.
    pub size_max: u64,
    /// Bytes above which eviction starts. Below `size_max`, or uploads are refused while it catches up.
    pub size_soft: u64,
    /// Free bytes that the disk keeps; below, blobs are evicted, and uploads refused below half.
    pub disk_free_min: u64,
    /// Blobs not used for this long are dropped. Zero: never.
    pub age_max: Duration,
    pub sync: SyncMode,
    /// zstd level, 1 to 19.
    pub level: i32,
    /// Bytes of memory for uploads in flight and, as far as they leave it, for content of blobs that are read often.
    pub memory_max: u64,
    /// How long a blocking upload waits for room before it is refused.
    pub room_wait: Duration,
}

/// Below this, journal, folders and one segment leave no room for blobs.
pub const SIZE_MIN: u64 = 16 << 20;

impl Config {
    /// A store in `dir` of at most `size_max` bytes; eviction starts at 95 % of that.
    pub fn new(dir: impl Into<PathBuf>, size_max: u64) -> Config {
        Config {
            dir: dir.into(),
            size_max,
            size_soft: size_max / 20 * 19,
            disk_free_min: 0,
            age_max: Duration::ZERO,
            sync: SyncMode::Never,
            level: 1,
            memory_max: 160 << 20,
            room_wait: Duration::from_secs(2),
        }
    }

    /// Every limit in its bounds?
    pub(crate) fn check(&self) -> Result<(), Error> {
        let fault = match () {
            () if self.size_max < SIZE_MIN => format!("a store of {} bytes: wanted at least {SIZE_MIN}", self.size_max),
            () if self.size_soft > self.size_max => format!("soft limit {} above the hard one {}", self.size_soft, self.size_max),
            () if !(1..=19).contains(&self.level) => format!("zstd level {}: wanted 1 to 19", self.level),
            () => return Ok(()),
        };
        Err(Error::Config(fault))
    }

    /// Bytes of a segment: small enough that eviction frees whole ones, large enough that they are few.
    pub(crate) fn segment_bytes(&self) -> u64 {
        (self.size_max / 64).clamp(256 << 10, 64 << 20)
    }
}
