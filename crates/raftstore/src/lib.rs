//! Replicates regions: key ranges `[start, end)`, each held by peers on several stores.
//!
//! Batches come from above through [`Kv::write`](engine::kv::Kv::write), messages from other stores through [`Transport`].
//! A [`Peer`](peer::Peer) turns both into raft entries; these go to the [`RaftLog`](log::RaftLog) (one fsync for many regions),
//! and once a quorum holds them, through an [`Applier`](apply::Applier) into the engine; answers return by their callbacks.
//! [`shell`] runs peers on threads; `sim` runs the same objects under virtual time. Not here: transactions, clocks, sockets.
//!
//! Invariants: `applied <= committed <= last_index`; `applied` never goes back, even over a restart;
//! a vote or an append is answered only once durable; no two live regions of a store overlap;
//! raft log is compacted only up to what the engine holds durably;
//! the `raft` crate's message types stay inside this crate and `pd::group` (its parser never sees bytes from outside).

pub mod apply;
pub mod beats;
pub mod command;
pub mod config;
pub mod delegate;
pub mod lease;
pub mod log;
pub mod merge;
pub mod message;
mod metrics;
pub mod offline;
pub mod peer;
pub mod planted;
pub mod region;
pub mod registry;
pub mod rescue;
pub mod shell;
pub mod size;
pub mod snapshot;
pub mod split;
pub mod storage;
pub mod store;

use base::{RegionId, StoreId};

pub use config::Config;
pub use proto::ferrite_raft::RaftMessage;

/// What a store cannot go on after: these end the process, or refuse its start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{act} the engine")]
    Engine { act: &'static str, source: engine::Error },
    #[error("{act} the raft log")]
    Log { act: &'static str, source: log::Error },
    #[error("{act} raft snapshot of region {region}")]
    Snapshot {
        act: &'static str,
        region: RegionId,
        source: std::io::Error,
    },
    /// Records that contradict each other: neither may be believed.
    #[error("region {region}: {what}")]
    Inconsistent { region: RegionId, what: String },
    #[error("stored {what} cannot be read")]
    Decode { what: &'static str, source: prost::DecodeError },
    #[error("data directory belongs to {found}, not to {wanted}")]
    WrongIdentity { found: String, wanted: String },
    #[error("data directory has format {found}, this version reads {wanted}")]
    Format { found: u32, wanted: u32 },
}

pub type Result<T> = std::result::Result<T, Error>;

/// Carries messages to other stores. Lossy and unordered: raft repairs. Never blocks.
pub trait Transport: Send + Sync {
    /// Sends raft messages; each names its destination in `to.store_id`.
    fn send(&self, messages: Vec<RaftMessage>);

    /// Streams a raft snapshot: `message` first, then the parts of its file in [`snapshot::Snapshots`].
    /// `done` is called once, with whether the receiver has it whole.
    fn send_snapshot(&self, message: RaftMessage, key: snapshot::Key, done: Box<dyn FnOnce(bool) + Send>);

    /// The link to `store` seems dead, or alive again: hint for the next sends. Default: nothing.
    fn forget(&self, _store: StoreId) {}
}
