//! First phase: locks keys and lays their values down (Percolator, section 2.2); or commits at once in one phase.

use base::Ts;

use super::commit::record_kind;
use super::lock::already_exists;
use super::{Action, exists};
use crate::command::{Assertion, AssertionLevel, Mutation, Op, Output, PessimisticCheck, Prewrite, Prewritten};
use crate::error::{ConflictReason, Error, Result};
use crate::key::Key;
use crate::lock::{Lock, LockKind, Locked};
use crate::mvcc::{Fate, Versions};
use crate::planted;
use crate::write::Write;

/// What a prewrite has to do with a key that nothing speaks against.
enum Step {
    /// Prewritten before, by a request whose answer was lost.
    Done(Lock),
    /// In place of this pessimistic lock of its own.
    Lock(Option<Lock>),
    /// Only looked at.
    Nothing,
}

/// The whole of it, once every key was looked at.
#[derive(Default)]
struct Plan<'a> {
    done: Vec<Lock>,
    locks: Vec<Planned<'a>>,
}

struct Planned<'a> {
    mutation: &'a Mutation,
    /// As an ordinary transaction lays it, but for the value.
    lock: Lock,
    /// Takes the place of a pessimistic lock.
    held: bool,
}

impl<'a> Planned<'a> {
    fn new(prewrite: &Prewrite, mutation: &'a Mutation, held: Option<Lock>) -> Planned<'a> {
        let kind = match mutation.op {
            Op::Put(_) | Op::Insert(_) => LockKind::Put,
            Op::Delete => LockKind::Delete,
            Op::Lock | Op::CheckNotExists => LockKind::Lock,
        };
        let mut lock = Lock::new(kind, prewrite.primary.clone(), prewrite.start_ts, prewrite.ttl_ms);
        lock.txn_size = prewrite.txn_size;
        lock.for_update_ts = prewrite.for_update_ts;
        lock.min_commit_ts = prewrite.min_commit_ts;
        if let Some(held) = &held {
            lock.ttl_ms = lock.ttl_ms.max(held.ttl_ms);
            lock.for_update_ts = lock.for_update_ts.max(held.for_update_ts);
            lock.min_commit_ts = lock.min_commit_ts.max(held.min_commit_ts);
        }
        let held = held.is_some();
        Planned { mutation, lock, held }
    }
}

impl Prewrite {
    /// Whether a key without a lock of the transaction is not checked for newer records. The checks of an async commit must hold against
    /// those who decide it by its keys, so none is left out there; nor when the request may have been done and decided before.
    fn skips_conflicts(&self, mutation: &Mutation) -> bool {
        if !self.is_pessimistic() {
            return self.skip_constraint_check;
        }
        let decided_elsewhere = self.secondaries.is_none() && !self.one_phase && !self.is_retry;
        mutation.check == PessimisticCheck::Skip && decided_elsewhere && !mutation.op.must_not_exist()
    }

    /// Why a record at `ts` is too new, if it is.
    fn conflict_reason(&self, mutation: &Mutation, ts: Ts) -> Option<ConflictReason> {
        let newer = ts > self.start_ts;
        if !self.is_pessimistic() {
            return newer.then_some(ConflictReason::Optimistic);
        }
        if newer && mutation.check == PessimisticCheck::Constraint {
            return Some(ConflictReason::LazyUniquenessCheck);
        }
        (ts > self.for_update_ts).then_some(ConflictReason::NotLockedKeyConflict)
    }
}

impl Op {
    fn must_not_exist(&self) -> bool {
        matches!(self, Op::Insert(_) | Op::CheckNotExists)
    }
}

/// A lock of the transaction stands there: it must be of the right kind.
fn check_held(prewrite: &Prewrite, mutation: &Mutation, lock: &Lock) -> Result<()> {
    let (start_ts, key) = (prewrite.start_ts, mutation.key.clone());
    if !prewrite.is_pessimistic() {
        return Err(Error::LockKindMismatch { start_ts, key });
    }
    match mutation.expected_for_update_ts {
        Some(expected) if expected != lock.for_update_ts => Err(Error::PessimisticLockNotFound { start_ts, key }),
        _ => Ok(()),
    }
}

impl Action<'_> {
    pub(super) fn prewrite(&mut self, prewrite: &Prewrite) -> Result<Output> {
        let mut plan = Plan::default();
        let (mut locked, mut assertion) = (Vec::new(), None);
        for mutation in &prewrite.mutations {
            match self.step(prewrite, mutation) {
                Ok(Step::Done(lock)) => plan.done.push(lock),
                Ok(Step::Lock(held)) => plan.locks.push(Planned::new(prewrite, mutation, held)),
                Ok(Step::Nothing) => {}
                Err(Error::Locked(lock)) => locked.push(*lock),
                Err(failed @ Error::AssertionFailed { .. }) => drop(assertion.get_or_insert(failed)),
                Err(error) => return self.unless_committed(prewrite, &mutation.key, error),
            }
        }
        match assertion {
            _ if !locked.is_empty() => Ok(Output::Prewritten(Prewritten {
                locked,
                ..Prewritten::default()
            })),
            Some(failed) => Err(failed),
            None => self.lay(prewrite, plan).map(Output::Prewritten),
        }
    }

    /// A request that comes again after its transaction was committed, by another who found its async commit whole or in one phase, has
    /// succeeded.
    fn unless_committed(&self, prewrite: &Prewrite, key: &Key, error: Error) -> Result<Output> {
        let late = match &error {
            Error::WriteConflict { conflict_commit_ts, .. } => *conflict_commit_ts > prewrite.start_ts,
            Error::PessimisticLockNotFound { .. } => true,
            _ => false,
        };
        if !late {
            return Err(error);
        }
        match self.reader.fate(key, prewrite.start_ts)? {
            Fate::Committed { commit_ts } => Ok(Output::Prewritten(Prewritten {
                locked: Vec::new(),
                min_commit_ts: if prewrite.secondaries.is_some() {
                    commit_ts
                } else {
                    Ts::default()
                },
                one_phase_commit_ts: if prewrite.one_phase { commit_ts } else { Ts::default() },
            })),
            Fate::RolledBack | Fate::Unknown { .. } => Err(error),
        }
    }

    fn step(&self, prewrite: &Prewrite, mutation: &Mutation) -> Result<Step> {
        let start_ts = prewrite.start_ts;
        let key = &mutation.key;
        if mutation.op.must_not_exist() {
            // What it tells is a read, so no async commit may come below it afterwards.
            self.input.concurrency.raise_max_ts(start_ts)?;
        }
        let must_be_held = prewrite.is_pessimistic() && mutation.check == PessimisticCheck::Locked;
        let held = match self.reader.lock(key)? {
            Some(lock) if lock.start_ts != start_ts => {
                self.check_stranger(prewrite, key, lock, must_be_held)?;
                None
            }
            Some(lock) if !lock.is_pessimistic() => return Ok(Step::Done(lock)),
            held => held,
        };
        let newest = match &held {
            Some(lock) => {
                check_held(prewrite, mutation, lock)?;
                None
            }
            None if must_be_held => Some(self.check_lost_lock(prewrite, key)?),
            None if prewrite.skips_conflicts(mutation) => None,
            None => Some(self.check_conflict(prewrite, mutation)?),
        };
        self.check_assertion(prewrite, mutation, newest.as_ref())?;
        if mutation.op == Op::CheckNotExists {
            return Ok(Step::Nothing);
        }
        Ok(Step::Lock(held))
    }

    /// Another's lock is in the way.
    fn check_stranger(&self, prewrite: &Prewrite, key: &Key, mut lock: Lock, must_be_held: bool) -> Result<()> {
        if planted::on(planted::Bug::NoLockCheck) {
            return Ok(());
        }
        let key = key.clone();
        if must_be_held {
            let start_ts = prewrite.start_ts;
            return Err(Error::PessimisticLockNotFound { start_ts, key });
        }
        // On the keys that a pessimistic transaction does lock it waited already; for the others it shall not: to its client a lock without
        // time is outlived.
        if prewrite.is_pessimistic() {
            lock.ttl_ms = 0;
        }
        Err(Error::Locked(Box::new(Locked { key, lock })))
    }

    /// The pessimistic lock was lost, as those in memory may be. If nothing was written since the transaction began, nobody made use of
    /// that, and the key is locked now. (A record between `start_ts` and `for_update_ts` may have come before the lock or after: that
    /// is not known any more.)
    fn check_lost_lock(&self, prewrite: &Prewrite, key: &Key) -> Result<Option<(Ts, Write)>> {
        match self.reader.record(key, Ts::MAX)? {
            Some((commit_ts, _)) if commit_ts >= prewrite.start_ts => Err(Error::PessimisticLockNotFound {
                start_ts: prewrite.start_ts,
                key: key.clone(),
            }),
            newest => Ok(newest),
        }
    }

    /// Checks a key that the transaction never locked for newer records, and what an insert asks for. Returns the newest record that
    /// counts.
    fn check_conflict(&self, prewrite: &Prewrite, mutation: &Mutation) -> Result<Option<(Ts, Write)>> {
        let (key, start_ts) = (&mutation.key, prewrite.start_ts);
        let mut versions = Versions::open(self.input.snapshot, key, Ts::MAX)?;
        let conflict = |ts: Ts, write: &Write, reason| {
            Err(Error::WriteConflict {
                start_ts,
                conflict_start_ts: write.start_ts,
                conflict_commit_ts: ts,
                key: key.clone(),
                primary: prewrite.primary.clone(),
                reason,
            })
        };
        let mut newest = None;
        while let Some((ts, write)) = versions.next()? {
            if ts == start_ts && write.rolls_back() {
                return conflict(ts, &write, ConflictReason::SelfRolledBack);
            }
            if let Some(reason) = prewrite.conflict_reason(mutation, ts)
                && !planted::on(planted::Bug::NoWriteConflictCheck)
            {
                // To a pessimistic transaction the rollback of a newer one says nothing.
                if reason != ConflictReason::NotLockedKeyConflict || !write.is_rollback() {
                    return conflict(ts, &write, reason);
                }
            } else {
                newest = newest.or(Some((ts, write)));
            }
            // A pessimistic transaction's own rollback may lie below records that it may bear.
            if ts <= start_ts {
                break;
            }
        }
        if mutation.op.must_not_exist() {
            let version = self.newest_version(key, newest.as_ref())?;
            if exists(version.as_ref()) {
                return Err(already_exists(key));
            }
        }
        Ok(newest)
    }

    /// `newest`: the newest record, if it was read.
    fn check_assertion(&self, prewrite: &Prewrite, mutation: &Mutation, newest: Option<&Option<(Ts, Write)>>) -> Result<()> {
        let wanted = match (prewrite.assertion_level, mutation.assertion) {
            (AssertionLevel::Off, _) | (_, Assertion::None) => return Ok(()),
            (AssertionLevel::Fast, _) if newest.is_none() => return Ok(()),
            (_, Assertion::Exists) => true,
            (_, Assertion::NotExists) => false,
        };
        let version = match newest {
            Some(newest) => self.newest_version(&mutation.key, newest.as_ref())?,
            None => self.reader.version(&mutation.key, Ts::MAX)?,
        };
        if exists(version.as_ref()) == wanted {
            return Ok(());
        }
        let (existing_commit_ts, existing_start_ts) =
            version.map_or_else(Default::default, |(commit_ts, write)| (commit_ts, write.start_ts));
        Err(Error::AssertionFailed {
            start_ts: prewrite.start_ts,
            key: mutation.key.clone(),
            assertion: mutation.assertion,
            existing_start_ts,
            existing_commit_ts,
        })
    }

    /// Writes what was planned, in the quickest of the ways that the client allows.
    fn lay(&mut self, prewrite: &Prewrite, mut plan: Plan) -> Result<Prewritten> {
        let one_phase = prewrite.one_phase && plan.done.is_empty();
        // Keys prewritten before as in an ordinary transaction make it one.
        let async_commit = prewrite.secondaries.is_some() && plan.done.iter().all(|lock| lock.use_async_commit);
        let mut answer = Prewritten::default();
        if (one_phase || async_commit)
            && let Some(commit_ts) = self.compute_commit_ts(prewrite, &mut plan, async_commit)
        {
            if one_phase {
                answer.one_phase_commit_ts = commit_ts;
                return self.commit_at_once(plan, commit_ts).map(|()| answer);
            }
            answer.min_commit_ts = commit_ts;
        }
        for Planned { mutation, mut lock, .. } in plan.locks {
            lock.short_value = self.lay_value(mutation, lock.start_ts);
            self.put_lock(&mutation.key, lock);
        }
        Ok(answer)
    }

    /// The least timestamp at which the transaction may commit, which no reader has passed or will pass: the locks stand in memory from
    /// here on. `None`, with ordinary locks, if that is above the client's bound.
    fn compute_commit_ts(&mut self, prewrite: &Prewrite, plan: &mut Plan, async_commit: bool) -> Option<Ts> {
        let done = plan.done.iter().map(|lock| lock.min_commit_ts).max().unwrap_or_default();
        let mut commit_ts = done;
        // With all keys done before, what was promised then stays.
        if !plan.locks.is_empty() || plan.done.is_empty() {
            let own = prewrite.start_ts.max(prewrite.for_update_ts);
            let asked = plan.locks.iter().map(|planned| planned.lock.min_commit_ts).max();
            let floor = Ts(own.0.saturating_add(1))
                .max(done)
                .max(asked.unwrap_or(prewrite.min_commit_ts));
            let locks = plan.locks.iter().map(|planned| {
                let mut lock = planned.lock.clone();
                lock.use_async_commit = async_commit;
                (planned.mutation.key.clone(), lock)
            });
            let (min_commit_ts, guard) = self.input.concurrency.lock_keys(locks.collect(), floor);
            self.guard = Some(guard);
            commit_ts = min_commit_ts;
        }
        if prewrite.max_commit_ts.is_some() && commit_ts > prewrite.max_commit_ts {
            self.guard = None;
            return None;
        }
        for Planned { mutation, lock, .. } in &mut plan.locks {
            lock.min_commit_ts = commit_ts;
            lock.use_async_commit = async_commit;
            if async_commit && mutation.key.is_of(&prewrite.primary) {
                lock.secondaries = prewrite.secondaries.clone().unwrap_or_default();
            }
        }
        Some(commit_ts)
    }

    /// One phase: commit records instead of locks.
    fn commit_at_once(&mut self, plan: Plan, commit_ts: Ts) -> Result<()> {
        for Planned { mutation, lock, held } in plan.locks {
            let value = self.lay_value(mutation, lock.start_ts);
            let write = Write::new(record_kind(lock.kind), lock.start_ts, value);
            self.put_commit(&mutation.key, commit_ts, write, true)?;
            if held {
                self.unlock(&mutation.key, lock.start_ts, Some(commit_ts));
            }
        }
        Ok(())
    }

    fn lay_value(&mut self, mutation: &Mutation, start_ts: Ts) -> Option<bytes::Bytes> {
        match &mutation.op {
            Op::Put(value) | Op::Insert(value) => self.put_value(&mutation.key, start_ts, value),
            Op::Delete | Op::Lock | Op::CheckNotExists => None,
        }
    }
}
