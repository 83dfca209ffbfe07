//! Transactions and snapshots as handles.

use std::sync::Arc;
use std::time::Duration;

use base::Ts;
use bytes::Bytes;
use client::{KeyRange, Pair, Savepoint, Snapshot, Transaction, TxnClient};
use futures::FutureExt;
use tokio::sync::RwLock;

use crate::{Ask, Failure, Outcome, Reply, Scan, options};

/// A client for transactions. Cheap to clone.
#[derive(Clone)]
pub struct Txns(TxnClient);

/// Reads as of one time. Cheap to clone.
#[derive(Clone)]
pub struct Snap(Snapshot);

/// A transaction. Clones are the same one; it is rolled back when the last is dropped before its end. Reads of it run side by side, a write waits for
/// them.
#[derive(Clone)]
pub struct Txn {
    state: Arc<RwLock<State>>,
    start_ts: Ts,
}

struct State {
    /// `None` once it has ended.
    transaction: Option<Transaction>,
    savepoints: Vec<Savepoint>,
}

impl Drop for State {
    fn drop(&mut self) {
        // Its locks are taken away in the background, and the last handle may go on any thread.
        if let Some(transaction) = self.transaction.take() {
            crate::call::inside(|| drop(transaction));
        }
    }
}

impl Txns {
    /// Connects; see [`options`] for the texts. Answers [`Reply::Txns`].
    pub async fn connect(endpoints: String, options: String) -> Outcome {
        let client = TxnClient::connect(&options::endpoints(&endpoints)?, options::client(&options)?).await?;
        Ok(Reply::Txns(Txns(client)))
    }

    /// The same client, whose calls and whose transactions' calls may take so long.
    pub fn with_deadline(&self, deadline: Duration) -> Txns {
        Txns(self.0.with_deadline(deadline))
    }

    /// Answers [`Reply::Txn`].
    pub fn begin(&self, options: String) -> impl Future<Output = Outcome> + Send + use<> {
        let client = self.0.clone();
        async move {
            let transaction = client.begin(options::txn(&options)?).await?;
            Ok(Reply::Txn(Txn {
                start_ts: transaction.start_ts(),
                state: Arc::new(RwLock::new(State {
                    transaction: Some(transaction),
                    savepoints: Vec::new(),
                })),
            }))
        }
    }

    /// A timestamp greater than every one before. Answers [`Reply::Ts`].
    pub fn timestamp(&self) -> impl Future<Output = Outcome> + Send + use<> {
        let client = self.0.clone();
        async move { Ok(Reply::Ts(Some(client.pd().timestamp().await?.0))) }
    }

    /// What the client has done since it was connected, as the text that Prometheus reads.
    pub fn metrics(&self) -> String {
        self.0.metrics().to_string()
    }

    /// Reads as of `ts`, one that [`Txns::timestamp`] gave, or `u64::MAX` for the latest of each key.
    pub fn snapshot(&self, ts: u64) -> Snap {
        Snap(self.0.snapshot(Ts(ts)))
    }

    /// Resolves locks and lets stores drop versions that no snapshot from `safe_point` on sees. Answers [`Reply::Ts`]: the safe point as it is.
    pub fn gc(&self, safe_point: u64) -> impl Future<Output = Outcome> + Send + use<> {
        let client = self.0.clone();
        async move { Ok(Reply::Ts(Some(client.gc(Ts(safe_point)).await?.0))) }
    }

    /// Ends transactions that began up to `ts` and left locks in `range`. Answers [`Reply::Count`]: the locks found.
    pub fn resolve_locks(&self, range: KeyRange, ts: u64) -> impl Future<Output = Outcome> + Send + use<> {
        let client = self.0.clone();
        async move { Ok(Reply::Count(client.resolve_locks(range, Ts(ts)).await? as u64)) }
    }
}

impl Snap {
    pub fn ts(&self) -> u64 {
        self.0.ts().0
    }

    /// Answers [`Reply::Value`].
    pub fn get(&self, key: Bytes) -> impl Future<Output = Outcome> + Send + use<> {
        let snapshot = self.0.clone();
        async move { Ok(Reply::Value(snapshot.get(key).await?)) }
    }

    /// Answers [`Reply::Pairs`].
    pub fn batch_get(&self, keys: Vec<Bytes>) -> impl Future<Output = Outcome> + Send + use<> {
        let snapshot = self.0.clone();
        async move { Ok(Reply::Pairs(snapshot.batch_get(keys).await?)) }
    }

    pub fn scan(&self, ask: Ask) -> Scan {
        Scan::ready(self.0.scan(ask.range, ask.options))
    }
}

/// Runs `$body` with the transaction, alone or beside other readers.
macro_rules! with {
    (read $self:ident, |$txn:ident| $body:expr) => {{
        let state = $self.state.clone();
        async move {
            let state = state.read().await;
            let $txn = state.transaction.as_ref().ok_or_else(Failure::closed)?;
            Ok($body)
        }
    }};
    (write $self:ident, |$txn:ident| $body:expr) => {{
        let state = $self.state.clone();
        async move {
            let mut state = state.write().await;
            let $txn = state.transaction.as_mut().ok_or_else(Failure::closed)?;
            Ok($body)
        }
    }};
}

impl Txn {
    pub fn start_ts(&self) -> u64 {
        self.start_ts.0
    }

    /// Answers [`Reply::Value`].
    pub fn get(&self, key: Bytes) -> impl Future<Output = Outcome> + Send + use<> {
        with!(read self, |txn| Reply::Value(txn.get(key).await?))
    }

    /// Answers [`Reply::Pairs`].
    pub fn batch_get(&self, keys: Vec<Bytes>) -> impl Future<Output = Outcome> + Send + use<> {
        with!(read self, |txn| Reply::Pairs(txn.batch_get(keys).await?))
    }

    /// With the transaction's own writes as they are when the first page is asked for.
    pub fn scan(&self, ask: Ask) -> Scan {
        let state = self.state.clone();
        let open = async move {
            let state = state.read().await;
            let txn = state.transaction.as_ref().ok_or_else(Failure::closed)?;
            Ok(txn.scan(ask.range, ask.options))
        };
        Scan::unopened(open.boxed())
    }

    /// Answers [`Reply::Value`].
    pub fn get_for_update(&self, key: Bytes) -> impl Future<Output = Outcome> + Send + use<> {
        with!(write self, |txn| Reply::Value(txn.get_for_update(key).await?))
    }

    /// Answers [`Reply::Pairs`].
    pub fn batch_get_for_update(&self, keys: Vec<Bytes>) -> impl Future<Output = Outcome> + Send + use<> {
        with!(write self, |txn| Reply::Pairs(txn.batch_get_for_update(keys).await?))
    }

    /// Answers [`Reply::Done`].
    pub fn put(&self, key: Bytes, value: Bytes) -> impl Future<Output = Outcome> + Send + use<> {
        with!(write self, |txn| txn.put(key, value).await.map(|()| Reply::Done)?)
    }

    /// Answers [`Reply::Done`].
    pub fn batch_put(&self, pairs: Vec<Pair>) -> impl Future<Output = Outcome> + Send + use<> {
        with!(write self, |txn| txn.batch_put(pairs).await.map(|()| Reply::Done)?)
    }

    /// Answers [`Reply::Done`].
    pub fn insert(&self, key: Bytes, value: Bytes) -> impl Future<Output = Outcome> + Send + use<> {
        with!(write self, |txn| txn.insert(key, value).await.map(|()| Reply::Done)?)
    }

    /// Answers [`Reply::Done`].
    pub fn delete(&self, key: Bytes) -> impl Future<Output = Outcome> + Send + use<> {
        with!(write self, |txn| txn.delete(key).await.map(|()| Reply::Done)?)
    }

    /// Answers [`Reply::Done`].
    pub fn lock_keys(&self, keys: Vec<Bytes>) -> impl Future<Output = Outcome> + Send + use<> {
        with!(write self, |txn| txn.lock_keys(keys).await.map(|()| Reply::Done)?)
    }

    /// Remembers the writes so far. Answers [`Reply::Count`]: the number of the savepoint, counted from 0.
    pub fn savepoint(&self) -> impl Future<Output = Outcome> + Send + use<> {
        let state = self.state.clone();
        async move {
            let mut state = state.write().await;
            let savepoint = state.transaction.as_ref().ok_or_else(Failure::closed)?.savepoint();
            state.savepoints.push(savepoint);
            Ok(Reply::Count(state.savepoints.len() as u64 - 1))
        }
    }

    /// Undoes the writes since a savepoint, which stays; later ones go. Answers [`Reply::Done`].
    pub fn rollback_to(&self, number: u64) -> impl Future<Output = Outcome> + Send + use<> {
        let state = self.state.clone();
        async move {
            let mut state = state.write().await;
            let State { transaction, savepoints } = &mut *state;
            let txn = transaction.as_mut().ok_or_else(Failure::closed)?;
            let savepoint = usize::try_from(number).ok().and_then(|number| savepoints.get(number));
            let savepoint = savepoint.ok_or_else(|| Failure::configuration(format!("there is no savepoint {number}")))?;
            txn.rollback_to(savepoint);
            savepoints.truncate(number as usize + 1);
            Ok(Reply::Done)
        }
    }

    /// Answers [`Reply::Ts`].
    pub fn commit(&self) -> impl Future<Output = Outcome> + Send + use<> {
        let state = self.state.clone();
        async move {
            let transaction = state.write().await.transaction.take().ok_or_else(Failure::closed)?;
            Ok(Reply::Ts(transaction.commit().await?.map(|ts| ts.0)))
        }
    }

    /// Answers [`Reply::Done`].
    pub fn rollback(&self) -> impl Future<Output = Outcome> + Send + use<> {
        let state = self.state.clone();
        async move {
            let transaction = state.write().await.transaction.take().ok_or_else(Failure::closed)?;
            Ok(transaction.rollback().await.map(|()| Reply::Done)?)
        }
    }
}
