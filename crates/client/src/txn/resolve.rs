//! Gets others' locks out of the way: asks their primaries, then commits or rolls back what was left behind
//! (Percolator, OSDI 2010, section 2.2; async commit asks all keys).

use std::collections::BTreeMap;

use base::Ts;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use proto::kvrpcpb::{self, LockInfo};

use super::Core;
use super::fault::{Fault, check};
use super::verdict::{Fate, Verdict, is_outlived, of_secondaries, of_status};
use crate::Error;
use crate::call::Call;

/// For what locks are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A read at this time: living transactions are pushed above it.
    Read(Ts),
    /// A write: living transactions are waited for.
    Write,
    /// Nothing lives any more.
    Collect,
}

/// What became of locks.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    /// Transactions that will commit above the reader, so that it may pass their locks.
    pub pushed: Vec<Ts>,
    /// Of the locks that stay, and may not be passed, one of the oldest transaction.
    pub waiting: Option<LockInfo>,
}

/// A transaction of less keys in a region is resolved key by key, others by a search of the region.
const LITE_MAX: u64 = 16;
/// Transactions resolved at the same time.
const AT_ONCE: usize = 16;
/// Ended transactions that are remembered.
const FATES_MAX: usize = 4096;

/// Ended transactions by `start_ts`; the oldest are forgotten first.
#[derive(Default)]
pub(crate) struct Fates(Mutex<BTreeMap<u64, Fate>>);

impl Fates {
    fn get(&self, start_ts: u64) -> Option<Fate> {
        self.0.lock().get(&start_ts).copied()
    }

    fn put(&self, start_ts: u64, fate: Fate) {
        let mut fates = self.0.lock();
        fates.insert(start_ts, fate);
        if fates.len() > FATES_MAX {
            fates.pop_first();
        }
    }
}

impl Core {
    /// Resolves locks as far as their transactions have ended, or can be ended as they outlived their time.
    pub async fn resolve(&self, call: &mut Call, locks: Vec<LockInfo>, purpose: Purpose) -> Result<Resolved, Error> {
        let mut txns: BTreeMap<u64, Vec<LockInfo>> = BTreeMap::new();
        for lock in locks {
            txns.entry(lock.lock_version).or_default().push(lock);
        }
        let call = &*call;
        let settled = stream::iter(txns.into_values()).map(|locks| async move {
            let mut part = call.part(&self.router.jitter);
            let pushed = self.settle(&mut part, &locks, purpose).await?;
            Ok::<_, Error>((locks, pushed))
        });
        let mut settled = settled.buffer_unordered(AT_ONCE);
        let mut resolved = Resolved::default();
        while let Some((mut locks, living)) = settled.try_next().await? {
            match living {
                None => {}
                Some(true) => resolved.pushed.push(Ts(locks[0].lock_version)),
                Some(false) => {
                    let waiting = resolved.waiting.take().into_iter().chain(locks.pop());
                    resolved.waiting = waiting.min_by_key(|lock| lock.lock_version);
                }
            }
        }
        Ok(resolved)
    }

    /// Resolves locks of one transaction. If it lives: whether it was pushed.
    async fn settle(&self, call: &mut Call, locks: &[LockInfo], purpose: Purpose) -> Result<Option<bool>, Error> {
        let lock = locks.iter().find(|lock| !is_pessimistic(lock)).unwrap_or(&locks[0]);
        let mut force_sync = false;
        loop {
            let verdict = match self.fates.get(lock.lock_version) {
                Some(fate) => Verdict::Ended(fate),
                None => self.ask_primary(call, lock, purpose, force_sync).await?,
            };
            match verdict {
                Verdict::Alive { pushed } => return Ok(Some(pushed)),
                Verdict::Release => {
                    self.release_pessimistic(call, locks).await?;
                    return Ok(None);
                }
                Verdict::Ended(fate) => {
                    self.fates.put(lock.lock_version, fate);
                    self.release_locks(call, locks, fate).await?;
                    return Ok(None);
                }
                Verdict::AskSecondaries(primary) => match self.ask_secondaries(call, &primary).await? {
                    Some(fate) => {
                        self.release_async(call, &primary, fate).await?;
                        // Only now: another who trusts this must not resolve the primary before the others.
                        self.fates.put(lock.lock_version, fate);
                        return Ok(None);
                    }
                    None => force_sync = true,
                },
            }
        }
    }

    async fn ask_primary(&self, call: &mut Call, lock: &LockInfo, purpose: Purpose, force_sync: bool) -> Result<Verdict, Error> {
        let (now, caller_start_ts) = match purpose {
            Purpose::Read(ts) => (self.router.pd.timestamp_within(call).await?, ts.0),
            Purpose::Write => (self.router.pd.timestamp_within(call).await?, 0),
            Purpose::Collect => (Ts::MAX, 0),
        };
        let request = kvrpcpb::CheckTxnStatusRequest {
            primary_key: lock.primary_lock.clone(),
            lock_ts: lock.lock_version,
            caller_start_ts,
            current_ts: now.0,
            // The primary may be on its way; it is not waited for longer than the lock itself says.
            rollback_if_not_exist: is_outlived(lock.lock_version, lock.lock_ttl, now),
            force_sync_commit: force_sync,
            resolving_pessimistic_lock: is_pessimistic(lock),
            verify_is_primary: true,
            ..Default::default()
        };
        let mut answer = self.router.single(call, &lock.primary_lock, request).await?;
        match check(answer.error.take()) {
            Ok(()) => Ok(of_status(answer, lock.lock_version, now, force_sync)),
            Err(Fault::TxnNotFound) => Ok(Verdict::Alive { pushed: false }),
            Err(Fault::PrimaryMismatch) if is_pessimistic(lock) => Ok(Verdict::Release),
            Err(fault) => Err(fault.into_error(Ts(lock.lock_version), &self.router.form)),
        }
    }

    async fn ask_secondaries(&self, call: &mut Call, primary: &LockInfo) -> Result<Option<Fate>, Error> {
        let make = |keys: &[Bytes]| kvrpcpb::CheckSecondaryLocksRequest {
            keys: keys.to_vec(),
            start_version: primary.lock_version,
            ..Default::default()
        };
        let asked = self
            .router
            .many(call, primary.secondaries.clone(), |key| (key, key.len()), make)
            .await?;
        let mut answers = Vec::with_capacity(asked.len());
        for (keys, mut answer) in asked {
            check(answer.error.take()).map_err(|fault| fault.into_error(Ts(primary.lock_version), &self.router.form))?;
            answers.push((keys.len(), answer));
        }
        Ok(of_secondaries(primary, &answers))
    }

    /// All keys of an async commit: the secondaries first, as the primary's lock is what names them.
    async fn release_async(&self, call: &mut Call, primary: &LockInfo, fate: Fate) -> Result<(), Error> {
        self.resolve_keys(call, primary.secondaries.clone(), primary.lock_version, fate, true)
            .await?;
        self.resolve_keys(call, vec![primary.primary_lock.clone()], primary.lock_version, fate, true)
            .await
    }

    async fn release_locks(&self, call: &mut Call, locks: &[LockInfo], fate: Fate) -> Result<(), Error> {
        let (pessimistic, written): (Vec<_>, Vec<_>) = locks.iter().cloned().partition(is_pessimistic);
        if !pessimistic.is_empty() {
            self.release_pessimistic(call, &pessimistic).await?;
        }
        if written.is_empty() {
            return Ok(());
        }
        let lite = written.iter().all(|lock| lock.use_async_commit || lock.txn_size < LITE_MAX);
        let start_ts = written[0].lock_version;
        let keys = written.into_iter().map(|lock| lock.key).collect();
        self.resolve_keys(call, keys, start_ts, fate, lite).await
    }

    async fn resolve_keys(
        &self,
        call: &mut Call,
        keys: Vec<Bytes>,
        start_version: u64,
        fate: Fate,
        lite: bool,
    ) -> Result<(), Error> {
        let make = |keys: &[Bytes]| kvrpcpb::ResolveLockRequest {
            start_version,
            commit_version: fate.commit_version(),
            keys: if lite { keys.to_vec() } else { Vec::new() },
            ..Default::default()
        };
        for (_, answer) in self.router.many(call, keys, |key| (key, key.len()), make).await? {
            check(answer.error).map_err(|fault| fault.into_error(Ts(start_version), &self.router.form))?;
        }
        Ok(())
    }

    async fn release_pessimistic(&self, call: &mut Call, locks: &[LockInfo]) -> Result<(), Error> {
        let for_update_ts = locks.iter().map(|lock| lock.lock_for_update_ts).max().unwrap_or(0);
        let keys = locks.iter().map(|lock| lock.key.clone()).collect();
        self.pessimistic_rollback(call, keys, Ts(locks[0].lock_version), Ts(for_update_ts))
            .await
    }

    /// Takes away pessimistic locks that transaction `start_ts` took up to `for_update_ts`.
    pub async fn pessimistic_rollback(
        &self,
        call: &mut Call,
        keys: Vec<Bytes>,
        start_ts: Ts,
        for_update_ts: Ts,
    ) -> Result<(), Error> {
        let make = |keys: &[Bytes]| kvrpcpb::PessimisticRollbackRequest {
            start_version: start_ts.0,
            for_update_ts: for_update_ts.0,
            keys: keys.to_vec(),
            ..Default::default()
        };
        for (_, answer) in self.router.many(call, keys, |key| (key, key.len()), make).await? {
            let error = answer.errors.into_iter().next();
            check(error.map(Box::new)).map_err(|fault| fault.into_error(start_ts, &self.router.form))?;
        }
        Ok(())
    }
}

fn is_pessimistic(lock: &LockInfo) -> bool {
    lock.lock_type() == kvrpcpb::Op::PessimisticLock
}
