//! Raw access: single keys and ranges without transactions, over the trait [`Kv`].
//!
//! Requests come from `tikv_service` with keys as clients sent them; they leave to [`Kv`] as region keys and stored values
//! ([`api`]). Reads take one snapshot, which is linearizable; a write is one replicated entry, so the pairs of one request are
//! put whole or not at all. Compare-and-swap is atomic against every write through this leader (`latch`).
//! Not here: protobuf answers, wire errors, clocks (both clocks are read once a request, by the service).

pub mod api;
mod latch;
mod read;
mod write;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, WallTime};
use engine::kv::{self, Kv, RegionSnapshot, SnapshotRef, view};
use tokio::sync::oneshot;

use crate::config::ApiVersion;
use crate::limits::{BUSY_PAUSE, BUSY_WAIT_MAX};
use latch::Latches;

pub use read::{Checksum, Scan};
pub use write::{Swap, Swapped};

/// What was under way when a region did not serve: decides whether clients may simply try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Changes nothing.
    Read,
    /// A write that means the same when done twice.
    Write,
    /// A write that depends on what it read: doing it twice is a different thing.
    Swap,
}

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

/// What the service knows of a request besides its keys and values.
#[derive(Clone, Debug)]
pub struct Call {
    pub ctx: kv::Context,
    /// API version the client marked the request with, as on the wire.
    pub version: i32,
    /// Read after the request arrived.
    pub now: MonoTime,
    /// For expiry; read once, so that a request sees one time.
    pub wall: WallTime,
    /// When the client no longer waits.
    pub deadline: MonoTime,
}

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
        let mut patience = Patience::of(call);
        loop {
            let (answer, answered) = oneshot::channel();
            self.kv
                .snapshot(&call.ctx, now, Box::new(move |snapshot| drop(answer.send(snapshot))));
            match settle(call, answered).await.unwrap_or_else(Err) {
                Err(error) if patience.again(&error).await => {}
                outcome => return outcome.map_err(|source| Error::Region { act, source }),
            }
        }
    }
}

/// Waits for the answer of [`Kv`] until the call's deadline. With a leader's lease the answer is there already, and neither a
/// timer nor the executor is asked.
async fn settle<T>(call: &Call, mut answered: oneshot::Receiver<T>) -> std::result::Result<T, kv::Error> {
    match answered.try_recv() {
        Ok(answer) => Ok(answer),
        // Gone without an answer: the threads below have stopped.
        Err(oneshot::error::TryRecvError::Closed) => Err(kv::Error::Shutdown),
        Err(oneshot::error::TryRecvError::Empty) => match within(call, answered).await {
            Some(answer) => answer.map_err(|_| kv::Error::Shutdown),
            None => Err(kv::Error::Deadline),
        },
    }
}

/// Tries again, for a while, what a full queue below refused: nothing was proposed then, and clients could do no better.
struct Patience {
    until: MonoTime,
    pause: Duration,
}

impl Patience {
    fn of(call: &Call) -> Patience {
        Patience {
            until: call.deadline.min(call.now + BUSY_WAIT_MAX),
            pause: BUSY_PAUSE,
        }
    }

    /// Waits when there is sense in another try; whether there is.
    async fn again(&mut self, error: &kv::Error) -> bool {
        if !matches!(error, kv::Error::Busy { .. }) || MonoTime::now() + self.pause > self.until {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause *= 2;
        true
    }
}

/// The output of `work`, or `None` when the call's deadline comes first.
async fn within<F: Future>(call: &Call, work: F) -> Option<F::Output> {
    tokio::time::timeout(call.deadline.since(MonoTime::now()), work).await.ok()
}

/// Refuses a key that the snapshot does not cover: it would read as absent, which would be a wrong answer.
fn check_key(snapshot: &dyn RegionSnapshot, act: Act, key: &[u8]) -> Result<()> {
    view::check_key(snapshot.region(), key).map_err(|source| Error::Region { act, source })
}
