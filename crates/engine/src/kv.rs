//! [`Kv`]: take a snapshot of a region, write a batch to it. What transactions, raw access and push-down see of replication.
//!
//! Keys here are region keys (see [`crate::keys`]), without the engine's prefix. Two living implementations: the replicated one in
//! `raftstore`, and an in-memory one (`engine::kv::memory`) that answers at once.

pub mod memory;
pub mod view;

use base::{ClusterId, MonoTime, PeerId, RegionId, Ts};
use bytes::Bytes;
use proto::metapb::{Peer, Region, RegionEpoch};

pub use memory::MemKv;
pub use view::RegionView;

use crate::{Cf, Cursor, Result as EngineResult};

/// Which region a request is for, as the client believes it to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context {
    pub region: RegionId,
    pub epoch: RegionEpoch,
    /// The peer asked; zero when the client did not say.
    pub peer: PeerId,
    /// Term the client knows; zero when it did not say.
    pub term: u64,
    /// Whether a follower may answer after a read index.
    pub replica_read: bool,
    /// Zero when the client did not say.
    pub cluster: ClusterId,
}

/// One change. `DeleteRange` is not atomic with its neighbours' visibility, but is redone whole after a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Modify {
    Put { cf: Cf, key: Bytes, value: Bytes },
    Delete { cf: Cf, key: Bytes },
    DeleteRange { cf: Cf, start: Bytes, end: Bytes },
}

/// Why a region did not serve. Every variant becomes one region error of the wire, in `server/src/error.rs`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// Another peer leads, or none that is known; retry there.
    #[error("region {region} is not led here")]
    NotLeader { region: RegionId, leader: Option<Peer> },
    #[error("region {region} is not on this store")]
    RegionNotFound { region: RegionId },
    /// The range or membership changed; `current` lists the regions that now cover what the client meant.
    #[error("epoch of the region changed")]
    EpochNotMatch { current: Vec<Region> },
    #[error("key is outside region {}", .region.id)]
    KeyNotInRegion { key: Bytes, region: Region },
    /// The request was for another store.
    #[error("request for store {wanted} reached store {actual}")]
    StoreNotMatch { wanted: u64, actual: u64 },
    /// The request was for another peer of the region.
    #[error("request for peer {wanted} reached peer {actual}")]
    MismatchPeer { wanted: u64, actual: u64 },
    /// Given up before it was proposed, or lost with a leader's term before its outcome was known to be "done".
    #[error("request is stale: the leader or its term changed")]
    StaleCommand,
    /// A queue was full for longer than we wait.
    #[error("store is busy: {reason}")]
    Busy { reason: &'static str },
    #[error("entry of {size} bytes is over the limit of {limit}")]
    EntryTooLarge { region: RegionId, size: u64, limit: u64 },
    #[error("peer of region {region} has no data yet")]
    NotInitialized { region: RegionId },
    /// A stale read is of a time that this replica does not know to be over.
    #[error("region {region} is known up to {safe_ts} here")]
    DataIsNotReady { region: RegionId, peer: PeerId, safe_ts: Ts },
    /// A follower could not learn a read index now.
    #[error("read index is not ready in region {region}")]
    ReadIndexNotReady { region: RegionId },
    /// It stands still until a neighbour took it over, or the merge is given up; retry.
    #[error("region {region} is being merged into its neighbour")]
    Merging { region: RegionId },
    #[error("disk of store {store} is full")]
    DiskFull { store: u64 },
    /// The deadline passed; whether a write took place is not known.
    #[error("deadline is exceeded")]
    Deadline,
    /// The store stops; whether a write took place is not known.
    #[error("store is shutting down")]
    Shutdown,
}

/// Called exactly once with the outcome, on any thread; must not block.
pub type Reply<T> = Box<dyn FnOnce(Result<T, Error>) + Send>;

/// A consistent view of one region at one applied index.
pub trait RegionSnapshot: Send + Sync {
    /// The region as of the snapshot: its bounds limit every read.
    fn region(&self) -> &Region;
    /// Term in which the snapshot was taken, for clients' caches.
    fn term(&self) -> u64;
    /// Index in the region's log up to which the snapshot holds its changes; zero without replication.
    fn applied(&self) -> EngineResult<u64>;
    /// A key outside the region is an error of the caller; it reads as absent.
    fn get(&self, cf: Cf, key: &[u8]) -> EngineResult<Option<Bytes>>;
    /// A cursor over `[start, end)` cut to the region's range; an empty `end` means the region's end. Keys come without prefix.
    fn cursor(&self, cf: Cf, start: &[u8], end: &[u8]) -> EngineResult<Box<dyn Cursor>>;
}

pub type SnapshotRef = std::sync::Arc<dyn RegionSnapshot>;

/// Access to the regions of one store.
pub trait Kv: Send + Sync + 'static {
    /// Answers with a view that holds every write acknowledged before this call (linearizable). `now` is read after the request arrived.
    fn snapshot(&self, ctx: &Context, now: MonoTime, reply: Reply<SnapshotRef>);

    /// Answers with a view that holds the region's log up to `index`, at least; waits until this store has applied it, whether it leads or
    /// not. The context must allow a replica to read.
    fn snapshot_at(&self, ctx: &Context, index: u64, reply: Reply<SnapshotRef>);

    /// Replicates and applies `changes` as one entry; answers once they are applied here and durable on a quorum.
    /// Every key must lie in the region. Gives up at `deadline` when it was not proposed until then.
    fn write(&self, ctx: &Context, changes: Vec<Modify>, deadline: MonoTime, reply: Reply<()>);
}
