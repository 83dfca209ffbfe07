//! [`Transaction`]: reads at one time, writes that take effect together.

use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, Ts};
use bytes::Bytes;
use futures::stream::{self, BoxStream, Peekable};
use futures::{StreamExt, TryStreamExt};

use super::buffer::Buffer;
use super::commit::commit;
use super::locks::{Attempt, Locks, Values, Want};
use super::plan::Plan;
use super::{Core, Snapshot, TxnOptions};
use crate::Error;
use crate::call::Call;
use crate::keys::{KeyForm, KeyRange};
use crate::scan::{Pair, ScanOptions};

/// The writes of a transaction at some time; see [`Transaction::savepoint`].
#[derive(Clone)]
pub struct Savepoint(Buffer);

/// A transaction. Reads see what was committed before it began, and its own writes, which others see once it is committed.
///
/// Optimistic ones find out at commit whether others wrote the same keys; pessimistic ones lock keys as they write them, and read the
/// latest values with [`Transaction::get_for_update`]. Dropped without commit it is rolled back.
pub struct Transaction {
    core: Arc<Core>,
    snapshot: Snapshot,
    options: TxnOptions,
    begun: MonoTime,
    buffer: Buffer,
    locks: Locks,
}

impl Transaction {
    /// `begun` is when the timestamp was asked for.
    pub(crate) fn new(core: Arc<Core>, start_ts: Ts, options: TxnOptions, begun: MonoTime) -> Transaction {
        let deadline = options.deadline.unwrap_or(core.router.options.deadline);
        Transaction {
            snapshot: Snapshot::new(core.clone(), start_ts, deadline),
            core,
            options,
            begun,
            buffer: Buffer::default(),
            locks: Locks::default(),
        }
    }

    pub fn start_ts(&self) -> Ts {
        self.snapshot.ts()
    }

    /// Keys that will be written or kept from others.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    pub fn is_empty(&self) -> bool {
        self.buffer.len() == 0
    }

    /// Value of `key`, `None` if there is none.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>, Error> {
        let key = self.wire(key);
        match self.buffer.get(&key) {
            Some(own) => Ok(own),
            None => self.snapshot.get_wire(key).await,
        }
    }

    /// The pairs of those `keys` that are there, by key.
    pub async fn batch_get(&self, keys: impl IntoIterator<Item = impl Into<Bytes>>) -> Result<Vec<Pair>, Error> {
        let (mut own, mut others) = (Vec::new(), BTreeSet::new());
        for key in keys {
            let key = self.wire(key);
            match self.buffer.get(&key) {
                Some(value) => own.extend(value.map(|value| (key, value))),
                None => drop(others.insert(key)),
            }
        }
        let stored = self.snapshot.batch_get_wire(others).await?;
        own.extend(stored.into_iter().map(|pair| (pair.key, pair.value)));
        own.sort();
        own.dedup();
        Ok(own
            .into_iter()
            .filter_map(|(key, value)| Some((self.form().user(&key)?, value)))
            .collect())
    }

    /// Pairs of a range as a stream, in order, with the transaction's own writes as they are now.
    pub fn scan(&self, range: impl Into<KeyRange>, options: ScanOptions) -> BoxStream<'static, Result<Pair, Error>> {
        let range = range.into();
        let form = self.form();
        let mut own: VecDeque<_> = self.buffer.range(&form.wire_range(range.clone())).into();
        if options.reverse {
            own.make_contiguous().reverse();
        }
        // A deleted pair must not count.
        let limit = options
            .limit
            .saturating_add(own.iter().filter(|(_, value)| value.is_none()).count());
        let own = own.into_iter().filter_map(|(key, value)| {
            let value = value.map(|value| if options.keys_only { Bytes::new() } else { value });
            Some((form.user(&key)?, value))
        });
        let merge = Merge {
            own: own.collect(),
            stored: self.snapshot.scan(range, ScanOptions { limit, ..options }).peekable(),
            reverse: options.reverse,
        };
        let merged = stream::unfold(merge, |mut merge| async move { merge.next().await.map(|pair| (pair, merge)) });
        merged.take(options.limit).boxed()
    }

    /// Sets `key` to `value`. A pessimistic transaction locks it now.
    pub async fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<(), Error> {
        let key = self.wire(key);
        self.lock_to_write([key.clone()].into(), false).await?;
        self.buffer.put(key, value.into());
        Ok(())
    }

    /// Sets all `pairs`. A pessimistic transaction locks them now, all at once.
    pub async fn batch_put(
        &mut self,
        pairs: impl IntoIterator<Item = (impl Into<Bytes>, impl Into<Bytes>)>,
    ) -> Result<(), Error> {
        let pairs: Vec<(Bytes, Bytes)> = pairs.into_iter().map(|(key, value)| (self.wire(key), value.into())).collect();
        if self.options.pessimistic {
            let keys = pairs.iter().map(|(key, _)| key.clone()).collect();
            self.lock_to_write(keys, false).await?;
        }
        pairs.into_iter().for_each(|(key, value)| self.buffer.put(key, value));
        Ok(())
    }

    /// Sets `key`, which must not be there: [`Error::AlreadyExists`] now, or at commit of an optimistic transaction.
    pub async fn insert(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<(), Error> {
        let key = self.wire(key);
        let must_not_exist = self.buffer.get(&key).is_none();
        self.lock_to_write([key.clone()].into(), must_not_exist).await?;
        let inserted = self.buffer.insert(key, value.into());
        inserted.map_err(|error| match error {
            Error::AlreadyExists { key } => Error::AlreadyExists {
                key: self.form().user(&key).unwrap_or(key),
            },
            other => other,
        })
    }

    /// Removes `key`, if it is there. A pessimistic transaction locks it now.
    pub async fn delete(&mut self, key: impl Into<Bytes>) -> Result<(), Error> {
        let key = self.wire(key);
        self.lock_to_write([key.clone()].into(), false).await?;
        self.buffer.delete(key);
        Ok(())
    }

    /// Keeps others from writing `keys` while this transaction is under way: a pessimistic one from now on, an optimistic one fails
    /// at commit if they did.
    pub async fn lock_keys(&mut self, keys: impl IntoIterator<Item = impl Into<Bytes>>) -> Result<(), Error> {
        let keys: BTreeSet<Bytes> = keys.into_iter().map(|key| self.wire(key)).collect();
        self.lock_to_write(keys.clone(), false).await?;
        keys.into_iter().for_each(|key| self.buffer.lock(key));
        Ok(())
    }

    /// Locks `key` and reads it: the latest value in a pessimistic transaction, in an optimistic one that of its snapshot.
    pub async fn get_for_update(&mut self, key: impl Into<Bytes>) -> Result<Option<Bytes>, Error> {
        let pairs = self.batch_get_for_update([key]).await?;
        Ok(pairs.into_iter().next().map(|(_, value)| value))
    }

    /// The same for several keys; returns the pairs that are there, by key.
    pub async fn batch_get_for_update(&mut self, keys: impl IntoIterator<Item = impl Into<Bytes>>) -> Result<Vec<Pair>, Error> {
        let keys: BTreeSet<Bytes> = keys.into_iter().map(|key| self.wire(key)).collect();
        let values: Values = match self.options.pessimistic {
            true => self.lock(keys.clone(), true, false).await?,
            false => {
                let stored = self.snapshot.batch_get_wire(keys.clone()).await?;
                stored.into_iter().map(|pair| (pair.key, Some(pair.value))).collect()
            }
        };
        let mut pairs = Vec::new();
        for key in keys {
            let value = self.buffer.get(&key).unwrap_or_else(|| values.get(&key).cloned().flatten());
            pairs.extend(value.and_then(|value| Some((self.form().user(&key)?, value))));
            self.buffer.lock(key);
        }
        Ok(pairs)
    }

    /// What was written so far, to come back to with [`Transaction::rollback_to`]. A copy, but values are shared.
    pub fn savepoint(&self) -> Savepoint {
        Savepoint(self.buffer.clone())
    }

    /// Undoes the writes since `savepoint`, which must be this transaction's. Locks that were taken since stay.
    pub fn rollback_to(&mut self, savepoint: &Savepoint) {
        self.buffer = savepoint.0.clone();
        self.locks.keys.iter().for_each(|key| self.buffer.lock(key.clone()));
    }

    /// Commits and returns the commit timestamp, `None` if there was nothing to do. After [`Error::Undetermined`] it may be
    /// committed or not; after any other error it is not, and will not be. Goes on if the caller stops waiting.
    pub async fn commit(mut self) -> Result<Option<Ts>, Error> {
        let mut locks = std::mem::take(&mut self.locks);
        if !locks.asked.is_empty() {
            // The caller gave up waiting for these.
            let asked = std::mem::take(&mut locks.asked).into_iter().collect();
            self.core.try_release(asked, self.start_ts(), locks.for_update_ts);
        }
        let mutations = std::mem::take(&mut self.buffer).mutations().collect();
        let plan = Plan::new(
            self.start_ts(),
            locks.for_update_ts,
            locks.primary.clone(),
            mutations,
            &locks.keys,
        );
        let Some(mut plan) = plan else { return Ok(None) };
        let mut call = self.begin();
        plan.async_commit = self.options.async_commit && plan.may_commit_async();
        plan.one_phase = self.options.one_phase;
        plan.commit_ts_max = self.options.commit_ts_max.unwrap_or(Ts(0));
        if (plan.async_commit || plan.one_phase) && !self.options.causal {
            match self.core.router.pd.timestamp_within(&mut call).await {
                Ok(now) => plan.commit_ts_min = Ts(now.0 + 1),
                Err(error) => {
                    self.locks = locks;
                    return Err(error);
                }
            }
        }
        // The heart of the locks beats until the commit's own does. Boxed: the task is moved when it is made.
        let commit = Box::pin(commit(self.core.clone(), plan, self.begun, call));
        let task = tokio::spawn(async move {
            let _heart = locks.heart;
            commit.await
        });
        match task.await {
            Ok(outcome) => outcome.map(Some),
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            Err(_shutdown) => Err(Error::Undetermined { last: None }),
        }
    }

    /// Gives up what was written, and takes the locks away.
    pub async fn rollback(mut self) -> Result<(), Error> {
        let locks = std::mem::take(&mut self.locks);
        let keys = locks.keys.into_iter().chain(locks.asked).collect();
        let mut call = self.begin();
        self.core
            .pessimistic_rollback(&mut call, keys, self.start_ts(), locks.for_update_ts)
            .await
    }

    async fn lock_to_write(&mut self, mut keys: BTreeSet<Bytes>, must_not_exist: bool) -> Result<(), Error> {
        if !self.options.pessimistic {
            return Ok(());
        }
        if !must_not_exist {
            keys.retain(|key| !self.locks.keys.contains(key));
        }
        self.lock(keys, false, must_not_exist).await.map(drop)
    }

    async fn lock(&mut self, keys: BTreeSet<Bytes>, values: bool, must_not_exist: bool) -> Result<Values, Error> {
        let call = self.begin();
        let attempt = Attempt {
            core: &self.core,
            start_ts: self.snapshot.ts(),
            begun: self.begun,
            is_first: keys.len() == 1 && self.locks.primary.is_none(),
            want: Want {
                values,
                must_not_exist,
                wait: self.options.lock_wait,
            },
        };
        let values = self.locks.acquire(attempt, keys.clone(), call).await?;
        // Held keys are committed, whatever becomes of them.
        keys.into_iter().for_each(|key| self.buffer.lock(key));
        Ok(values)
    }

    fn begin(&self) -> Call {
        Call::begin(self.deadline(), &self.core.router.jitter)
    }

    fn deadline(&self) -> Duration {
        self.options.deadline.unwrap_or(self.core.router.options.deadline)
    }

    fn form(&self) -> &KeyForm {
        &self.core.router.form
    }

    fn wire(&self, key: impl Into<Bytes>) -> Bytes {
        self.form().wire(key.into())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let (held, asked) = (std::mem::take(&mut self.locks.keys), std::mem::take(&mut self.locks.asked));
        let keys: Vec<Bytes> = held.into_iter().chain(asked).collect();
        if !keys.is_empty() {
            self.core.try_release(keys, self.snapshot.ts(), self.locks.for_update_ts);
        }
    }
}

/// Two ordered sequences of pairs as one; the transaction's own hide the stored ones.
struct Merge {
    own: VecDeque<(Bytes, Option<Bytes>)>,
    stored: Peekable<BoxStream<'static, Result<Pair, Error>>>,
    reverse: bool,
}

impl Merge {
    async fn next(&mut self) -> Option<Result<Pair, Error>> {
        loop {
            let stored = match Pin::new(&mut self.stored).peek().await {
                Some(Ok((key, _))) => Some(key),
                Some(Err(_)) => return self.stored.next().await,
                None => None,
            };
            let order = match (self.own.front(), stored) {
                (None, _) => Ordering::Greater,
                (Some(_), None) => Ordering::Less,
                (Some((own, _)), Some(stored)) if self.reverse => stored.cmp(own),
                (Some((own, _)), Some(stored)) => own.cmp(stored),
            };
            if order == Ordering::Greater {
                return self.stored.next().await;
            }
            if order == Ordering::Equal {
                self.stored.try_next().await.transpose();
            }
            if let Some((key, Some(value))) = self.own.pop_front() {
                return Some(Ok((key, value)));
            }
        }
    }
}
