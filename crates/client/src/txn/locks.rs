//! Locks of pessimistic transactions, taken while they run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, Ts};
use bytes::Bytes;
use proto::kvrpcpb::{self, LockInfo};

use super::fault::{Fault, locked};
use super::heart::{Heart, ttl_ms};
use super::resolve::Purpose;
use super::{Core, LockWait};
use crate::Error;
use crate::call::Call;
use crate::retry::Cause;

/// A store lets a request wait for so long at once.
const WAIT_AT_ONCE: Duration = Duration::from_secs(1);

/// The locks that a transaction holds. Keys are in wire form.
#[derive(Default)]
pub(crate) struct Locks {
    /// The first key that was locked.
    pub primary: Option<Bytes>,
    pub for_update_ts: Ts,
    pub keys: BTreeSet<Bytes>,
    /// Keys that are being locked, or were when the caller stopped waiting: they may be locked or not, and are released with the others.
    pub asked: BTreeSet<Bytes>,
    pub heart: Option<Heart>,
}

/// What is wanted of a lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    pub values: bool,
    pub must_not_exist: bool,
    pub wait: LockWait,
}

/// Values that were read with the locks, by key; `None` for keys that are not there.
pub(crate) type Values = BTreeMap<Bytes, Option<Bytes>>;

/// One attempt to lock keys, and who makes it.
pub(crate) struct Attempt<'a> {
    pub core: &'a Arc<Core>,
    pub start_ts: Ts,
    pub begun: MonoTime,
    /// One key, and no lock is held yet: it cannot close a circle.
    pub is_first: bool,
    pub want: Want,
}

impl Locks {
    /// Locks `keys`, all or none. The values are the latest committed.
    pub async fn acquire(&mut self, attempt: Attempt<'_>, keys: BTreeSet<Bytes>, mut call: Call) -> Result<Values, Error> {
        let Some(first) = keys.first() else { return Ok(Values::new()) };
        let primary = self.primary.clone().unwrap_or_else(|| first.clone());
        let new: BTreeSet<Bytes> = keys.difference(&self.keys).cloned().collect();
        self.asked.extend(new.iter().cloned());
        let outcome = attempt.run(&mut call, &primary, self, keys.clone()).await;
        self.asked.retain(|key| !new.contains(key));
        match outcome {
            Ok(values) => {
                if self.primary.is_none() {
                    self.primary = Some(primary.clone());
                    self.heart = Some(Heart::start(attempt.core.clone(), primary, attempt.start_ts, attempt.begun));
                }
                self.keys.extend(keys);
                Ok(values)
            }
            Err(error) => {
                attempt
                    .core
                    .release_later(new.into_iter().collect(), attempt.start_ts, self.for_update_ts)
                    .await;
                Err(error)
            }
        }
    }
}

impl Attempt<'_> {
    async fn run(&self, call: &mut Call, primary: &Bytes, locks: &mut Locks, keys: BTreeSet<Bytes>) -> Result<Values, Error> {
        let patience = match self.want.wait {
            LockWait::Deadline => call.left(),
            LockWait::No => Duration::ZERO,
            LockWait::For(time) => time.min(call.left()),
        };
        let give_up = MonoTime::now() + patience;
        let mut values = Values::new();
        let mut unlocked: Vec<Bytes> = keys.into_iter().collect();
        let mut stale = true;
        loop {
            if stale {
                locks.for_update_ts = self.core.router.pd.timestamp_within(call).await?;
            }
            let make = |keys: &[Bytes]| self.request(primary, locks, keys, give_up);
            let parts = self.core.router.many(call, unlocked, |key| (key, key.len()), make).await?;
            let faults;
            (unlocked, faults) = self.sort_out(parts, &mut values)?;
            if unlocked.is_empty() {
                return Ok(values);
            }
            let mut blocking = Vec::new();
            stale = false;
            for fault in faults {
                match fault {
                    Fault::Locked(lock) => blocking.push(*lock),
                    // Somebody was faster: read what they wrote.
                    Fault::Conflict(conflict) if is_worth_another_try(&conflict) => stale = true,
                    fault => return Err(fault.into_error(self.start_ts, &self.core.router.form)),
                }
            }
            if !blocking.is_empty() {
                self.wait_for(call, blocking, give_up).await?;
                stale = true;
            }
        }
    }

    /// Takes the values out of answers; returns the keys that were not locked, and why.
    fn sort_out(
        &self,
        parts: Vec<(Vec<Bytes>, kvrpcpb::PessimisticLockResponse)>,
        values: &mut Values,
    ) -> Result<(Vec<Bytes>, Vec<Fault>), Error> {
        let (mut unlocked, mut faults) = (Vec::new(), Vec::new());
        for (keys, answer) in parts {
            if !answer.errors.is_empty() {
                faults.extend(answer.errors.into_iter().map(Fault::of));
                unlocked.extend(keys);
            } else if self.want.values {
                if answer.values.len() != keys.len() || answer.not_founds.len() != keys.len() {
                    return Err(Error::Protocol {
                        address: self.core.router.pd.leader_url(),
                        what: "a lock's answer has not one value a key".into(),
                    });
                }
                let found = answer.values.into_iter().zip(answer.not_founds);
                let found = found.map(|(value, not_found)| (!not_found).then_some(value));
                values.extend(keys.into_iter().zip(found));
            }
        }
        Ok((unlocked, faults))
    }

    async fn wait_for(&self, call: &mut Call, blocking: Vec<LockInfo>, give_up: MonoTime) -> Result<(), Error> {
        let last = locked(&blocking[0], &self.core.router.form);
        match self.core.resolve(call, blocking, Purpose::Write).await?.waiting {
            Some(lock) if MonoTime::now() >= give_up => Err(locked(&lock, &self.core.router.form)),
            Some(lock) => call.pause(Cause::Locked, 0, locked(&lock, &self.core.router.form)).await,
            None => call.again(last).await,
        }
    }

    fn request(&self, primary: &Bytes, locks: &Locks, keys: &[Bytes], give_up: MonoTime) -> kvrpcpb::PessimisticLockRequest {
        let assertion = match self.want.must_not_exist {
            true => kvrpcpb::Assertion::NotExist,
            false => kvrpcpb::Assertion::None,
        };
        let mutation = |key: &Bytes| kvrpcpb::Mutation {
            op: kvrpcpb::Op::PessimisticLock.into(),
            key: key.clone(),
            assertion: assertion.into(),
            ..Default::default()
        };
        let wait = give_up.since(MonoTime::now()).min(WAIT_AT_ONCE);
        kvrpcpb::PessimisticLockRequest {
            mutations: keys.iter().map(mutation).collect(),
            primary_lock: primary.clone(),
            start_version: self.start_ts.0,
            lock_ttl: ttl_ms(self.begun),
            for_update_ts: locks.for_update_ts.0,
            is_first_lock: self.is_first,
            // Zero would be the store's own time, less than that is none.
            wait_timeout: if wait.is_zero() { -1 } else { wait.as_millis().max(1) as i64 },
            return_values: self.want.values,
            min_commit_ts: locks.for_update_ts.0 + 1,
            ..Default::default()
        }
    }
}

fn is_worth_another_try(conflict: &kvrpcpb::WriteConflict) -> bool {
    use kvrpcpb::write_conflict::Reason;
    matches!(conflict.reason(), Reason::PessimisticRetry | Reason::Unknown)
}

impl Core {
    /// Takes pessimistic locks away again, of which some may never have been taken.
    pub async fn release_later(self: &Arc<Self>, keys: Vec<Bytes>, start_ts: Ts, for_update_ts: Ts) {
        if keys.is_empty() {
            return;
        }
        self.background.run(self.clone().release(keys, start_ts, for_update_ts)).await;
    }

    async fn release(self: Arc<Self>, keys: Vec<Bytes>, start_ts: Ts, for_update_ts: Ts) {
        let mut call = self.router.begin();
        if let Err(error) = self.pessimistic_rollback(&mut call, keys, start_ts, for_update_ts).await {
            tracing::debug!(%start_ts, error = %base::log::chain(&error), "release pessimistic locks");
        }
    }

    /// The same, for callers that cannot wait.
    pub fn try_release(self: &Arc<Self>, keys: Vec<Bytes>, start_ts: Ts, for_update_ts: Ts) {
        self.background.try_run(self.clone().release(keys, start_ts, for_update_ts));
    }
}
