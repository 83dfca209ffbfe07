//! Transactions on the regions of one store: what stands between the service and [`txn`].
//!
//! Requests come from `tikv_service` with keys as clients sent them ([`keys`] checks and encodes them). Commands go through the
//! [`Scheduler`](txn::scheduler::Scheduler), which `shell` drives; reads go past it ([`read`]). Both meet in [`Concurrency`]. Waits for
//! locks are told the detector of deadlocks, which may be on another store ([`deadlock`]). Old versions are collected by [`gc`].
//! Not here: what commands do, which is `txn`'s, and wire errors, which are [`crate::error`]'s.

mod admin;
pub mod deadlock;
pub mod gc;
pub mod keys;
pub mod read;
pub mod replica;
mod shell;
pub mod wire;

use std::sync::{Arc, Weak};
use std::time::Duration;

use base::{MonoTime, Ts};
use engine::Engine;
use engine::kv::{self, Kv};
use futures::future::BoxFuture;
use proto::deadlock::WaitForEntry;
use tokio::sync::oneshot;
use txn::concurrency::Concurrency;
use txn::scheduler::{Config, Event, InMemory};
use txn::{Command, Error as TxnError, Output};

use crate::call::Call;
use crate::config::ApiVersion;
use keys::Keys;
use shell::Shell;

/// Why a transaction's request was not served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Txn(#[from] TxnError),
    #[error("store holds data of API {store}, request is of API version {request}")]
    ApiVersion { store: &'static str, request: i32 },
    #[error("store of API V1TTL takes no transactions")]
    NoTransactions,
    #[error("key is not a transaction's: wanted `x` and three bytes of keyspace in front in API V2")]
    KeyMode,
    #[error("key of {bytes} bytes is over the limit of {max}")]
    KeyTooLong { bytes: usize, max: usize },
    #[error("batch of {count} is over the limit of {max}")]
    BatchTooLong { count: usize, max: usize },
    #[error("answer is over the limit of {max} bytes: ask for less")]
    AnswerTooLong { max: usize },
    #[error("range ends before it starts")]
    RangeTurned,
}

pub type Result<T> = std::result::Result<T, Error>;

/// Gives a timestamp that the TSO gave after it was asked; `None` when it did not answer by then.
pub type Timestamps = Arc<dyn Fn(MonoTime) -> BoxFuture<'static, Option<Ts>> + Send + Sync>;

/// What transactions run on.
pub struct Parts {
    pub kv: Arc<dyn Kv>,
    /// Under the regions of this store, for what goes past regions.
    pub engine: Arc<dyn Engine>,
    /// All stores of a cluster have the same, for good.
    pub api: ApiVersion,
    pub timestamps: Timestamps,
    pub detectors: Arc<dyn deadlock::Detectors>,
    pub leaders: Arc<dyn replica::Leaders>,
    pub scheduler: Config,
}

/// Transactions of one store.
pub struct Txn {
    kv: Arc<dyn Kv>,
    engine: Arc<dyn Engine>,
    api: ApiVersion,
    concurrency: Arc<Concurrency>,
    shell: Arc<Shell>,
    deadlocks: Arc<deadlock::Deadlocks>,
    timestamps: Timestamps,
    leaders: Arc<dyn replica::Leaders>,
    safe_times: replica::SafeTimes,
}

/// How often the placement driver is asked how far time is, and how far beyond a client's timestamp may lie. One that lies further is a
/// mistake, after which no async commit of this store would be seen by those who read at timestamps that the placement driver gives.
const LIMIT_EVERY: Duration = Duration::from_secs(5);
const LIMIT_AHEAD: Duration = Duration::from_secs(3600);

async fn refresh_limit(concurrency: &Concurrency, timestamps: &Timestamps) {
    if let Some(now) = timestamps(MonoTime::now() + LIMIT_EVERY).await {
        concurrency.raise_limit(Ts::compose(now.physical_ms() + LIMIT_AHEAD.as_millis() as u64, 0));
    }
}

async fn keep_limit(concurrency: Weak<Concurrency>, timestamps: Timestamps) {
    while let Some(concurrency) = concurrency.upgrade() {
        refresh_limit(&concurrency, &timestamps).await;
        drop(concurrency);
        tokio::time::sleep(LIMIT_EVERY).await;
    }
}

impl Txn {
    /// Call it on the runtime that shall carry the work.
    pub fn new(parts: Parts) -> Txn {
        // What an earlier process read at is below the timestamp that each region asks the TSO for before its first async commit.
        let concurrency = Arc::new(Concurrency::new(Ts(0)));
        let deadlocks = Arc::new(deadlock::Deadlocks::new(parts.detectors));
        let (waits, inbox) = deadlock::queue();
        let shell = Shell::start(
            parts.kv.clone(),
            concurrency.clone(),
            parts.timestamps.clone(),
            waits,
            parts.scheduler,
        );
        tokio::spawn(deadlock::run(deadlocks.clone(), inbox, Arc::downgrade(&shell)));
        tokio::spawn(keep_limit(Arc::downgrade(&concurrency), parts.timestamps.clone()));
        Txn {
            kv: parts.kv,
            engine: parts.engine,
            api: parts.api,
            concurrency,
            shell,
            deadlocks,
            timestamps: parts.timestamps,
            leaders: parts.leaders,
            safe_times: replica::SafeTimes::default(),
        }
    }

    /// The keys that a call may name.
    pub fn keys(&self, call: &Call) -> Result<Keys> {
        Keys::of(self.api, call.version)
    }

    /// Notes a read at `ts`.
    async fn note_read(&self, ts: Ts) -> Result<()> {
        match self.concurrency.raise_max_ts(ts) {
            // The placement driver may have been away for long: only it can tell.
            Err(TxnError::TsTooLarge { .. }) => {
                refresh_limit(&self.concurrency, &self.timestamps).await;
                Ok(self.concurrency.raise_max_ts(ts)?)
            }
            noted => Ok(noted?),
        }
    }

    /// Runs a command on the call's region. It goes on when the caller no longer waits.
    pub async fn run(&self, call: &Call, command: Command) -> Result<Output> {
        Ok(self.submit(call.ctx.clone(), command, call.deadline).await?)
    }

    /// Runs a command on a region, whoever wants it.
    async fn submit(&self, ctx: kv::Context, command: Command, deadline: MonoTime) -> txn::Result<Output> {
        let (answer, answered) = oneshot::channel();
        self.shell.on(Event::Submit {
            ctx,
            command,
            deadline,
            reply: Box::new(move |outcome| drop(answer.send(outcome))),
        });
        let stopped = TxnError::Region {
            proposed: true,
            source: kv::Error::Shutdown,
        };
        answered.await.unwrap_or(Err(stopped))
    }

    /// Pessimistic locks that are kept in memory.
    fn memory_locks(&self, call: &Call, start: &[u8], end: &[u8]) -> InMemory {
        self.shell
            .look(|scheduler| scheduler.memory_locks(call.ctx.region, start, end))
    }

    /// Who waits for whose lock on this store.
    pub fn waits(&self) -> Vec<WaitForEntry> {
        let waits = self.shell.look(|scheduler| scheduler.waits());
        waits.into_iter().map(wire::wait_entry).collect()
    }

    /// The detector's part on this store, and the way to it.
    pub fn deadlocks(&self) -> &Arc<deadlock::Deadlocks> {
        &self.deadlocks
    }
}

#[cfg(test)]
mod tests {
    use engine::kv::MemKv;
    use futures::FutureExt;

    use super::*;

    struct Nowhere;

    impl deadlock::Detectors for Nowhere {
        fn here(&self) -> Option<(base::RegionId, u64)> {
            None
        }

        fn there(&self) -> BoxFuture<'static, Option<String>> {
            std::future::ready(None).boxed()
        }
    }

    /// Transactions over one region in memory, without a cluster around.
    pub fn over(kv: Arc<MemKv>) -> Txn {
        Txn::new(Parts {
            engine: kv.engine().clone(),
            kv,
            api: ApiVersion::V1,
            timestamps: Arc::new(|_| std::future::ready(Some(Ts(1))).boxed()),
            detectors: Arc::new(Nowhere),
            leaders: Arc::new(replica::NoLeaders),
            scheduler: Config::default(),
        })
    }
}
