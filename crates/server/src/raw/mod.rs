//! Raw access: single keys and ranges without transactions, over the trait [`Kv`].
//!
//! Requests come from `tikv_service` with keys as clients sent them; they leave to [`Kv`] as region keys and stored values
//! ([`api`]). Reads take one snapshot, which is linearizable; a write is one replicated entry, so the pairs of one request are
//! put whole or not at all. Compare-and-swap is atomic against every write through this leader (`latch`).
//! Not here: protobuf answers, wire errors, clocks (both clocks are read once a request, by the service).

pub mod api;
pub mod expiry;
mod latch;
mod read;
mod write;

use std::sync::Arc;

use base::MonoTime;
use engine::kv::{self, Kv, RegionSnapshot, SnapshotRef, view};

use crate::call::{self, Act, Call};
use crate::config::ApiVersion;
use latch::Latches;

pub use read::{Checksum, Scan};
pub use write::{Swap, Swapped};

/// Why a raw request was not served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The region did not serve; most of these tell a client where or when to try again.
    #[error("region did not serve")]
    Region { act: Act, source: kv::Error },
    /// Reading the store failed.
    #[error("storage engine failed")]
    Engine(#[from] engine::Error),
    /// A stored key or value is not what this version writes: damage, or data of another API version.
    #[error("stored {what} is damaged or of another API version")]
    Damaged { what: &'static str },
    #[error("store holds data of API {store}, request is of API version {request}")]
    ApiVersion { store: &'static str, request: i32 },
    #[error("key is not a raw key of API V2: wanted `r` and three bytes of keyspace in front")]
    KeyMode,
    #[error("no such column family for raw data")]
    Cf,
    #[error("key of {bytes} bytes is over the limit of {max}")]
    KeyTooLong { bytes: usize, max: usize },
    #[error("batch of {count} is over the limit of {max}")]
    BatchTooLong { count: usize, max: usize },
    #[error("answer is over the limit of {max} bytes: ask for less")]
    AnswerTooLong { max: usize },
    #[error("range ends before it starts")]
    RangeTurned,
    #[error("store is not configured for keys that expire")]
    TtlNotEnabled,
    #[error("{ttls} times to live for {pairs} pairs: wanted one, or one each")]
    TtlCount { ttls: usize, pairs: usize },
    #[error("unknown checksum algorithm {0}")]
    ChecksumAlgorithm(i32),
}

pub type Result<T> = std::result::Result<T, Error>;

/// Raw access to the regions of one store.
pub struct Raw {
    kv: Arc<dyn Kv>,
    api: ApiVersion,
    latches: Latches,
}

impl Raw {
    /// All stores of a cluster have the same `api`, for good: it is how the data lies.
    pub fn new(kv: Arc<dyn Kv>, api: ApiVersion) -> Raw {
        Raw {
            kv,
            api,
            latches: Latches::default(),
        }
    }

    /// A view of the call's region that holds every write acknowledged before `now`.
    async fn snapshot(&self, call: &Call, now: MonoTime, act: Act) -> Result<SnapshotRef> {
        let snapshot = call::snapshot(&*self.kv, call, now).await;
        snapshot.map_err(|source| Error::Region { act, source })
    }
}

/// Refuses a key that the snapshot does not cover: it would read as absent, which would be a wrong answer.
fn check_key(snapshot: &dyn RegionSnapshot, act: Act, key: &[u8]) -> Result<()> {
    view::check_key(snapshot.region(), key).map_err(|source| Error::Region { act, source })
}
