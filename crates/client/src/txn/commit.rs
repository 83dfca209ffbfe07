//! Carries out a [`Plan`].

use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, Ts};
use bytes::Bytes;
use proto::kvrpcpb::{self, LockInfo};

use super::Core;
use super::fault::{Fault, check, locked};
use super::heart::{Heart, ttl_ms};
use super::plan::{Next, Plan, Step};
use super::resolve::Purpose;
use crate::Error;
use crate::call::Call;
use crate::retry::Cause;
use crate::route::{PART_BYTES_MAX, PART_ITEMS_MAX};

/// Time to clean up behind a transaction. What is not done by then others do when they meet the locks.
const CLEAN_UP: Duration = Duration::from_secs(30);

/// Commits, and returns the commit timestamp. After an error other than [`Error::Undetermined`] it is not committed and never will be.
pub(crate) async fn commit(core: Arc<Core>, plan: Plan, begun: MonoTime, mut call: Call) -> Result<Ts, Error> {
    let mut heart = Some(core.heart(&plan, begun));
    let mut older = None;
    let decided = match core.prewrite(&plan, begun, &mut heart, &mut older, &mut call).await {
        Ok(Next::CommitPrimary) => core.commit_primary(&plan, &mut call).await,
        Ok(Next::Committed(ts)) => Ok((ts, plan.keys().cloned().collect())),
        Ok(Next::Done(ts)) => Ok((ts, Vec::new())),
        Err(error) => Err(error),
    };
    drop(heart);
    match decided {
        Ok((commit_ts, rest)) => {
            core.commit_later(plan.start_ts, commit_ts, rest).await;
            Ok(commit_ts)
        }
        Err(error) => {
            if !matches!(error, Error::Undetermined { .. }) {
                Box::pin(core.roll_back_later(plan)).await;
            }
            // Whoever tries again at once would only meet it again.
            if let Some(older) = older {
                Box::pin(core.await_lock(&mut call, older)).await;
            }
            Err(error)
        }
    }
}

impl Core {
    fn heart(self: &Arc<Self>, plan: &Plan, begun: MonoTime) -> Heart {
        Heart::start(self.clone(), plan.primary.clone(), plan.start_ts, begun)
    }

    /// The first phase: all keys, region by region, again where others' locks had to be resolved.
    ///
    /// No store sees who waits for whom here, so that of those who wait in a circle all would wait until one outlives its time. An
    /// optimistic transaction that holds locks itself therefore waits for younger ones only, and gives way to an `older` one (wait-die:
    /// Rosenkrantz, Stearns and Lewis, TODS 1978). Little is lost: what the older one commits would be a conflict. Not all clients do
    /// so; for their sake its heart stands still while it waits.
    async fn prewrite(
        self: &Arc<Self>,
        plan: &Plan,
        begun: MonoTime,
        heart: &mut Option<Heart>,
        older: &mut Option<LockInfo>,
        call: &mut Call,
    ) -> Result<Next, Error> {
        let mut unlocked = plan.steps.clone();
        let mut answers = Vec::new();
        loop {
            let size = |step: &Step| step.mutation.key.len() + step.mutation.value.len();
            let make = |steps: &[Step]| plan.prewrite(steps, ttl_ms(begun));
            let parts = self
                .router
                .many(call, unlocked, |step| (&step.mutation.key, size(step)), make)
                .await?;
            let (mut again, mut locks) = (Vec::new(), Vec::new());
            for (steps, mut answer) in parts {
                if answer.errors.is_empty() {
                    answers.push(answer);
                    continue;
                }
                for error in answer.errors.drain(..) {
                    match Fault::of(error) {
                        Fault::Locked(lock) => locks.push(*lock),
                        fault => return self.after_fault(plan, call, fault),
                    }
                }
                again.extend(steps);
            }
            if again.is_empty() {
                heart.get_or_insert_with(|| self.heart(plan, begun));
                return Ok(plan.next(&answers));
            }
            let last = locked(&locks[0], &self.router.form);
            match Box::pin(self.resolve(call, locks, Purpose::Write)).await?.waiting {
                Some(lock) if plan.gives_way_to(lock.lock_version, !answers.is_empty()) && !call.is_undetermined() => {
                    let holder = lock.lock_version;
                    *older = Some(lock);
                    return Err(Error::Aborted {
                        start_ts: plan.start_ts,
                        message: format!("gave way to the older transaction {holder}, which holds a lock"),
                    });
                }
                Some(lock) => {
                    heart.take();
                    call.pause(Cause::Locked, 0, locked(&lock, &self.router.form)).await?
                }
                None => call.again(last).await?,
            }
            unlocked = again;
        }
    }

    /// Waits until a lock is gone, within the call's deadline. The caller holds no locks any more.
    async fn await_lock(&self, call: &mut Call, lock: LockInfo) {
        let last = || locked(&lock, &self.router.form);
        loop {
            match self.resolve(call, vec![lock.clone()], Purpose::Write).await {
                Ok(resolved) if resolved.waiting.is_none() => return,
                Ok(_) | Err(_) => {}
            }
            if call.pause(Cause::Locked, 0, last()).await.is_err() {
                return;
            }
        }
    }

    /// A store will never prewrite a key: the transaction fails, unless that is because it is committed already.
    fn after_fault(&self, plan: &Plan, call: &Call, fault: Fault) -> Result<Next, Error> {
        if let Fault::Conflict(conflict) = &fault
            && conflict.conflict_ts == plan.start_ts.0
            && conflict.conflict_commit_ts > plan.start_ts.0
        {
            return Ok(Next::Done(Ts(conflict.conflict_commit_ts)));
        }
        let error = fault.into_error(plan.start_ts, &self.router.form);
        // A try in one phase whose answer was lost may have committed; what was tried after it met its traces.
        match plan.one_phase && call.is_undetermined() {
            true => Err(call.over(Some(error))),
            false => Err(error),
        }
    }

    /// The second phase for the primary and what lies in its region with it. Returns the keys that remain.
    async fn commit_primary(&self, plan: &Plan, call: &mut Call) -> Result<(Ts, Vec<Bytes>), Error> {
        if plan.keys().next().is_none() {
            return Ok((plan.commit_ts_min, Vec::new()));
        }
        let mut commit_ts = self.router.pd.timestamp_within(call).await?;
        let border = self.router.form.border(&plan.primary);
        loop {
            let region = self.router.region(call, &border).await?;
            let is_near = |key: &Bytes| *key == plan.primary || region.contains(&self.router.form.border(key));
            let (mut near, mut rest): (Vec<_>, Vec<_>) = plan.keys().cloned().partition(is_near);
            rest.extend(split_off_excess(&mut near, &plan.primary));
            let request = kvrpcpb::CommitRequest {
                start_version: plan.start_ts.0,
                keys: near,
                commit_version: commit_ts.0,
                commit_role: kvrpcpb::CommitRole::Primary.into(),
                primary_key: plan.primary.clone(),
                ..Default::default()
            };
            let Some(answer) = self.router.one_try(call, &region, request).await? else {
                continue;
            };
            match check(answer.error) {
                // It may lie elsewhere: a try in one phase had come through, its answer had not.
                Ok(()) if answer.commit_version != 0 => return Ok((Ts(answer.commit_version), rest)),
                Ok(()) => return Ok((commit_ts, rest)),
                // A reader went by in the meantime.
                Err(Fault::CommitTsExpired) => commit_ts = self.router.pd.timestamp_within(call).await?,
                Err(fault) => return Err(fault.into_error(plan.start_ts, &self.router.form)),
            }
        }
    }

    /// The second phase for keys of a transaction that is committed.
    async fn commit_later(self: &Arc<Self>, start_ts: Ts, commit_ts: Ts, keys: Vec<Bytes>) {
        if keys.is_empty() {
            return;
        }
        let core = self.clone();
        let work = async move {
            let make = |keys: &[Bytes]| kvrpcpb::CommitRequest {
                start_version: start_ts.0,
                keys: keys.to_vec(),
                commit_version: commit_ts.0,
                commit_role: kvrpcpb::CommitRole::Secondary.into(),
                ..Default::default()
            };
            let mut call = Call::begin(CLEAN_UP, &core.router.jitter);
            match core.router.many(&mut call, keys, |key| (key, key.len()), make).await {
                Ok(answers) => {
                    for fault in answers.into_iter().filter_map(|(_, answer)| check(answer.error).err()) {
                        tracing::error!(%start_ts, %commit_ts, ?fault, "commit a key of a committed transaction");
                    }
                }
                Err(error) => tracing::debug!(%start_ts, error = %base::log::chain(&error), "commit in the background"),
            }
        };
        self.background.run(work).await;
    }

    async fn roll_back_later(self: &Arc<Self>, plan: Plan) {
        let core = self.clone();
        let work = async move {
            let make = |keys: &[Bytes]| kvrpcpb::BatchRollbackRequest {
                start_version: plan.start_ts.0,
                keys: keys.to_vec(),
                ..Default::default()
            };
            let mut call = Call::begin(CLEAN_UP, &core.router.jitter);
            let keys = plan.keys().cloned().collect();
            match core.router.many(&mut call, keys, |key| (key, key.len()), make).await {
                Ok(answers) => {
                    for fault in answers.into_iter().filter_map(|(_, answer)| check(answer.error).err()) {
                        tracing::warn!(start_ts = %plan.start_ts, ?fault, "roll back a failed transaction");
                    }
                }
                Err(error) => {
                    tracing::debug!(start_ts = %plan.start_ts, error = %base::log::chain(&error), "roll back in the background")
                }
            }
        };
        self.background.run(work).await;
    }
}

/// Keeps `near` short enough for one request, with the primary in it.
fn split_off_excess(near: &mut Vec<Bytes>, primary: &Bytes) -> Vec<Bytes> {
    let mut bytes = 0;
    let fits = near.iter().take_while(|key| {
        bytes += key.len();
        bytes <= PART_BYTES_MAX
    });
    let fits = fits.count().min(PART_ITEMS_MAX);
    if fits >= near.len() {
        return Vec::new();
    }
    let at = near
        .iter()
        .position(|key| key == primary)
        .expect("the primary is near itself");
    near.swap(0, at);
    near.split_off(fits.max(1))
}
