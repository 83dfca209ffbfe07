//! The placement driver: gives out timestamps and ids, knows the stores, and tells which region holds a key.
//!
//! [`Machine`] is pure: requests and log events go in, commands to replicate and replies come out. Its [`State`] changes only by
//! commands that came back from the log, so an answer never rests on what a crash could take back. The log is that of a raft
//! [`Group`](group::Group) of one or more members, pure as well. [`shell`] runs the two on threads over files; `sim` runs the same objects
//! under virtual time. gRPC is in `server`.
//!
//! Invariants: no timestamp and no id is handed out twice, and no timestamp after a larger one, over restarts and whatever the wall
//! clock does; the directory's regions never overlap, and each has a leader to name; safe points never go back.
//! Not here: sockets, the wire's errors, users' data.

use base::{RegionId, StoreId, Ts};

pub mod balance;
pub mod checker;
pub mod fit;
pub mod fleet;
pub mod gc;
pub mod group;
pub mod hot;
pub mod log;
pub mod machine;
pub mod merges;
mod metrics;
pub mod operator;
pub mod planted;
pub mod regions;
pub mod request;
pub mod rules;
pub mod scheduling;
pub mod shell;
pub mod splits;
pub mod state;
pub mod stores;
#[cfg(test)]
mod testkit;
pub mod tso;
pub mod wishes;

pub use machine::{Effects, Event, Machine, Options, Status};
pub use operator::{Operator, Progress, Why};
pub use regions::{DownPeer, Flow, KeyRange, Lookup, RegionInfo};
pub use request::{Reply, Request, Want};
pub use shell::{Handle, Pd, Transport};
pub use state::State;
pub use stores::{Liveness, StoreView};

/// One member of the placement driver's group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberId(pub u64);

/// Why a request was refused. Every variant becomes a wire error in `server`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another member leads, or none yet. What was asked may still take effect.
    #[error("not leader")]
    NotLeader,
    /// A change of the members cannot be made now, or never.
    #[error("members stay as they are: {reason}")]
    MembersStay { reason: String },
    #[error("no member has the id {member:?}")]
    MemberNotFound { member: MemberId },
    #[error("cluster is not bootstrapped")]
    NotBootstrapped,
    #[error("cluster is already bootstrapped")]
    AlreadyBootstrapped,
    /// The request breaks a rule that no retry changes.
    #[error("{reason}")]
    Invalid { reason: String },
    // Clients look for this text.
    #[error("invalid store ID {store}, not found")]
    StoreNotFound { store: StoreId },
    /// The store was taken out of the cluster for good, and its id with it.
    #[error("store {store} is a tombstone")]
    StoreTombstone { store: StoreId },
    #[error("address {address} belongs to store {store}")]
    AddressTaken { address: String, store: StoreId },
    /// A heartbeat from a leader or of a range that is past.
    #[error("region {region} is stale: region {newer} is newer")]
    StaleRegion { region: RegionId, newer: RegionId },
    /// Ranges that had to be covered by known regions are not.
    #[error("regions do not contain the whole key range")]
    Gap,
    /// A safe point would go back, or a barrier comes too late.
    #[error("{target} is behind the safe point {current}")]
    SafePointBehind { target: Ts, current: Ts },
    #[error("{target} is ahead of the txn safe point {txn_safe_point}")]
    SafePointAhead { target: Ts, txn_safe_point: Ts },
    /// Too many requests are in flight; nothing was done.
    #[error("placement driver is busy")]
    Busy,
    /// The placement driver stops; what was asked may have taken effect.
    #[error("placement driver is shutting down")]
    Stopped,
}
