//! Transactions: Percolator as TiKV's clients speak it, with async and one-phase commit, optimistic and pessimistic.
//!
//! A [`Transaction`] reads through its [`Snapshot`], keeps writes in `buffer` and, if pessimistic, takes `locks`. To commit it becomes a
//! `plan`, which `commit` carries out. Whoever meets others' locks goes to `resolve`, which acts on a `verdict`. `buffer`, `plan`,
//! `fault` and `verdict` are plain values without I/O.
//! Invariants: the primary is committed before any other key of an ordinary commit; a transaction is rolled back only if it certainly is
//! not committed; work that was begun for others (commit of secondaries, roll-back) ends although nobody waits for it.

mod background;
mod buffer;
mod commit;
mod fault;
mod gc;
mod heart;
mod locks;
mod options;
mod plan;
mod resolve;
mod snapshot;
mod transaction;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, Ts};

pub use options::{LockWait, ReadFrom, TxnOptions};
pub use snapshot::Snapshot;
pub use transaction::{Savepoint, Transaction};

use crate::call::Call;
use crate::keys::{KeyRange, Mode};
use crate::pd::Pd;
use crate::route::Router;
use crate::{ClientOptions, Error, Metrics};

/// A client for transactions. Clones share connections and what is known of regions and of others' transactions.
///
/// Each call ends within the deadline of the options (a scan: each of its pages).
#[derive(Clone)]
pub struct TxnClient {
    core: Arc<Core>,
    /// Of each call.
    deadline: Duration,
}

/// What all transactions of a client share.
pub(crate) struct Core {
    router: Router,
    fates: resolve::Fates,
    background: background::Background,
}

impl TxnClient {
    /// Connects through any of the placement driver's `endpoints`, `host:port` or `http://host:port`.
    pub async fn connect(endpoints: &[impl AsRef<str>], options: ClientOptions) -> Result<TxnClient, Error> {
        Ok(TxnClient {
            deadline: options.deadline,
            core: Arc::new(Core {
                router: Router::connect(endpoints, options, Mode::Txn).await?,
                fates: Default::default(),
                background: Default::default(),
            }),
        })
    }

    /// The same client, whose calls, and those of its transactions and snapshots, may take so long.
    pub fn with_deadline(&self, deadline: Duration) -> TxnClient {
        TxnClient {
            core: self.core.clone(),
            deadline,
        }
    }

    /// Learns the regions of a range ahead of the first calls, so that these need not ask for them. Returns how many there are, at most
    /// `regions_max`.
    pub async fn warm_up(&self, range: impl Into<KeyRange>, regions_max: usize) -> Result<usize, Error> {
        self.core.router.warm_up(range.into(), regions_max).await
    }

    /// What this client has done so far: requests by RPC and outcome with their latencies, retries, look-ups of regions.
    pub fn metrics(&self) -> Metrics {
        self.core.router.pd.metrics()
    }

    /// The placement driver of the cluster.
    pub fn pd(&self) -> &Pd {
        &self.core.router.pd
    }

    /// `key` in the form that region borders are written in.
    pub fn border(&self, key: impl Into<bytes::Bytes>) -> bytes::Bytes {
        self.core.router.form.border(&self.core.router.form.wire(key.into()))
    }

    /// Begins a transaction now.
    pub async fn begin(&self, mut options: TxnOptions) -> Result<Transaction, Error> {
        let begun = MonoTime::now();
        let mut call = Call::begin(self.deadline, &self.core.router.jitter);
        let start_ts = self.core.router.pd.timestamp_within(&mut call).await?;
        options.deadline = options.deadline.or(Some(self.deadline));
        Ok(Transaction::new(self.core.clone(), start_ts, options, begun))
    }

    /// Reads as of `ts`, which must be one that the placement driver gave, or [`Ts::MAX`].
    pub fn snapshot(&self, ts: Ts) -> Snapshot {
        Snapshot::new(self.core.clone(), ts, self.deadline)
    }

    /// Returns once all work in the background that was begun before is done: locks of ended transactions are gone then.
    pub async fn settled(&self) {
        self.core.background.settled().await;
    }
}
