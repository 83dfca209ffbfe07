//! Transactions between protobuf and [`txn`]'s types: requests into commands, outcomes into answers. Keys of the wire are users' keys.

use base::Ts;
use bytes::Bytes;
use proto::deadlock::WaitForEntry;
use proto::kvrpcpb::prewrite_request::PessimisticAction;
use proto::kvrpcpb::{self as wire, IsolationLevel, LockInfo, PessimisticLockKeyResultType as ResultType};
use txn::command::{
    Assertion, AssertionLevel, CheckTxnStatus, Commit, LockKey, LockResult, Mutation, Op, PessimisticCheck, PessimisticLock,
    Prewrite, ResolveLock, SecondaryStatus, TxnStatus, Wait,
};
use txn::error::WaitFor;
use txn::lock::Locked;
use txn::mvcc::{History, Isolation, ReadOptions};
use txn::{Command, LockKind, Output, WriteKind};

use super::keys::{Keys, check_batch};
use super::{Error, Result};
use crate::error::key_error;

fn invalid(reason: &'static str) -> Error {
    Error::Txn(txn::Error::Invalid { reason })
}

fn timestamps(of: Vec<u64>) -> Vec<Ts> {
    of.into_iter().map(Ts).collect()
}

/// How a read at `version` sees locks, by its request's context, whose lists of locks it takes.
pub fn read_options(context: Option<&mut wire::Context>, version: u64) -> ReadOptions {
    let mut options = ReadOptions {
        ts: Ts(version),
        ..ReadOptions::default()
    };
    let Some(context) = context else { return options };
    options.isolation = match context.isolation_level() {
        // Nothing commits at such a timestamp any more: whatever is locked does not matter.
        _ if context.stale_read => Isolation::ReadCommitted,
        IsolationLevel::Si => Isolation::Snapshot,
        IsolationLevel::Rc => Isolation::ReadCommitted,
        IsolationLevel::RcCheckTs => Isolation::ReadCommittedCheckTs,
    };
    options.bypass_locks = timestamps(std::mem::take(&mut context.resolved_locks));
    options.access_locks = timestamps(std::mem::take(&mut context.committed_locks));
    options
}

/// The greatest timestamp reads the latest version; nobody begins or locks at it.
fn check_given(timestamps: &[u64]) -> Result<()> {
    match timestamps.contains(&u64::MAX) {
        true => Err(invalid("a transaction's own timestamps come from the placement driver")),
        false => Ok(()),
    }
}

pub fn prewrite(request: wire::PrewriteRequest, keys: Keys, is_retry: bool) -> Result<Command> {
    check_batch(request.mutations.len())?;
    check_given(&[request.start_version, request.for_update_ts, request.min_commit_ts])?;
    check_batch(request.secondaries.len())?;
    if !request.txn_file_chunks.is_empty() {
        return Err(invalid("transactions kept as files are not taken"));
    }
    let assertion_level = match request.assertion_level() {
        wire::AssertionLevel::Off => AssertionLevel::Off,
        wire::AssertionLevel::Fast => AssertionLevel::Fast,
        wire::AssertionLevel::Strict => AssertionLevel::Strict,
    };
    let checks = request.pessimistic_actions.iter().map(|&action| pessimistic_check(action));
    let checks = checks.collect::<Result<Vec<_>>>()?;
    let mut mutations = Vec::with_capacity(request.mutations.len());
    for (at, mutation) in request.mutations.into_iter().enumerate() {
        let check = checks.get(at).copied().unwrap_or_default();
        mutations.push(mutation_of(mutation, keys, check)?);
    }
    for constraint in request.for_update_ts_constraints {
        let mutation = mutations.get_mut(constraint.index as usize);
        let mutation = mutation.ok_or(invalid("a constraint on for_update_ts names no mutation"))?;
        mutation.expected_for_update_ts = Some(Ts(constraint.expected_for_update_ts));
    }
    Ok(Command::Prewrite(Prewrite {
        mutations,
        primary: request.primary_lock,
        start_ts: Ts(request.start_version),
        ttl_ms: request.lock_ttl,
        txn_size: request.txn_size,
        for_update_ts: Ts(request.for_update_ts),
        min_commit_ts: Ts(request.min_commit_ts),
        max_commit_ts: Ts(request.max_commit_ts),
        secondaries: request.use_async_commit.then_some(request.secondaries),
        one_phase: request.try_one_pc,
        skip_constraint_check: request.skip_constraint_check,
        assertion_level,
        is_retry,
    }))
}

fn pessimistic_check(action: i32) -> Result<PessimisticCheck> {
    match PessimisticAction::try_from(action) {
        Ok(PessimisticAction::SkipPessimisticCheck) => Ok(PessimisticCheck::Skip),
        Ok(PessimisticAction::DoPessimisticCheck) => Ok(PessimisticCheck::Locked),
        Ok(PessimisticAction::DoConstraintCheck) => Ok(PessimisticCheck::Constraint),
        Err(_) => Err(invalid("no such check of a pessimistic lock")),
    }
}

fn mutation_of(mutation: wire::Mutation, keys: Keys, check: PessimisticCheck) -> Result<Mutation> {
    let assertion = match mutation.assertion() {
        wire::Assertion::None => Assertion::None,
        wire::Assertion::Exist => Assertion::Exists,
        wire::Assertion::NotExist => Assertion::NotExists,
    };
    let op = match wire::Op::try_from(mutation.op) {
        Ok(wire::Op::Put) => Op::Put(mutation.value),
        Ok(wire::Op::Del) => Op::Delete,
        Ok(wire::Op::Lock) => Op::Lock,
        Ok(wire::Op::Insert) => Op::Insert(mutation.value),
        Ok(wire::Op::CheckNotExists) => Op::CheckNotExists,
        Ok(wire::Op::Rollback | wire::Op::PessimisticLock | wire::Op::SharedLock | wire::Op::SharedPessimisticLock) | Err(_) => {
            return Err(invalid("no such mutation in a prewrite"));
        }
    };
    Ok(Mutation {
        key: keys.key(&mutation.key)?,
        op,
        assertion,
        check,
        expected_for_update_ts: None,
    })
}

pub fn commit(request: &wire::CommitRequest, keys: Keys) -> Result<Command> {
    Ok(Command::Commit(Commit {
        keys: keys.keys(&request.keys)?,
        start_ts: Ts(request.start_version),
        commit_ts: Ts(request.commit_version),
    }))
}

pub fn pessimistic_lock(request: wire::PessimisticLockRequest, keys: Keys, resource_group_tag: Bytes) -> Result<Command> {
    check_batch(request.mutations.len())?;
    check_given(&[request.start_version, request.for_update_ts])?;
    let lock_key = |mutation: &wire::Mutation| match wire::Op::try_from(mutation.op) {
        Ok(wire::Op::PessimisticLock) => Ok(LockKey {
            key: keys.key(&mutation.key)?,
            should_not_exist: mutation.assertion() == wire::Assertion::NotExist,
        }),
        Ok(_) | Err(_) => Err(invalid("no such mutation in a pessimistic lock")),
    };
    let wait = match request.wait_timeout {
        0 => Wait::Default,
        millis => u64::try_from(millis).map_or(Wait::No, Wait::Millis),
    };
    Ok(Command::PessimisticLock(PessimisticLock {
        keys: request.mutations.iter().map(lock_key).collect::<Result<_>>()?,
        allow_conflict: request.wake_up_mode() == wire::PessimisticLockWakeUpMode::WakeUpModeForceLock,
        primary: request.primary_lock,
        start_ts: Ts(request.start_version),
        ttl_ms: request.lock_ttl,
        for_update_ts: Ts(request.for_update_ts),
        is_first_lock: request.is_first_lock,
        wait,
        return_values: request.return_values,
        check_existence: request.check_existence,
        lock_only_if_exists: request.lock_only_if_exists,
        min_commit_ts: Ts(request.min_commit_ts),
        resource_group_tag,
    }))
}

pub fn check_txn_status(request: &wire::CheckTxnStatusRequest, keys: Keys) -> Result<Command> {
    Ok(Command::CheckTxnStatus(CheckTxnStatus {
        primary: keys.key(&request.primary_key)?,
        start_ts: Ts(request.lock_ts),
        caller_start_ts: Ts(request.caller_start_ts),
        current_ts: Ts(request.current_ts),
        rollback_if_not_exist: request.rollback_if_not_exist,
        force_sync_commit: request.force_sync_commit,
        resolving_pessimistic_lock: request.resolving_pessimistic_lock,
        verify_is_primary: request.verify_is_primary,
    }))
}

pub fn resolve_lock(request: &wire::ResolveLockRequest, keys: Keys) -> Result<Command> {
    let (start_ts, commit_ts) = (Ts(request.start_version), Ts(request.commit_version));
    if !request.keys.is_empty() {
        let keys = keys.keys(&request.keys)?;
        return Ok(Command::ResolveLock(ResolveLock::Lite {
            start_ts,
            commit_ts,
            keys,
        }));
    }
    let mut txns: Vec<(Ts, Ts)> = request.txn_infos.iter().map(|info| (Ts(info.txn), Ts(info.status))).collect();
    check_batch(txns.len())?;
    if txns.is_empty() {
        txns.push((start_ts, commit_ts));
    }
    txns.sort_unstable();
    Ok(Command::ResolveLock(ResolveLock::Region {
        txns,
        found: Vec::new(),
        scan: Some(Bytes::new()),
    }))
}

pub fn committed(output: Output) -> Result<wire::CommitResponse> {
    let Output::Committed { commit_ts } = output else {
        mismatch(output)
    };
    Ok(wire::CommitResponse {
        commit_version: commit_ts.0,
        ..Default::default()
    })
}

pub fn prewritten(output: Output) -> Result<wire::PrewriteResponse> {
    let Output::Prewritten(done) = output else { mismatch(output) };
    let locked = |locked: Locked| key_error(txn::Error::Locked(Box::new(locked)));
    Ok(wire::PrewriteResponse {
        errors: done.locked.into_iter().map(locked).collect(),
        min_commit_ts: done.min_commit_ts.0,
        one_pc_commit_ts: done.one_phase_commit_ts.0,
        ..Default::default()
    })
}

/// What a pessimistic lock was asked to tell.
#[derive(Clone, Copy)]
pub struct Wanted {
    pub values: bool,
    pub existence: bool,
    /// Per key, as when locks may be granted over newer records.
    pub results: bool,
    pub keys: usize,
}

impl Wanted {
    pub fn of(request: &wire::PessimisticLockRequest) -> Wanted {
        Wanted {
            values: request.return_values,
            existence: request.check_existence,
            results: request.wake_up_mode() == wire::PessimisticLockWakeUpMode::WakeUpModeForceLock,
            keys: request.mutations.len(),
        }
    }
}

pub fn pessimistic_locked(output: Output, wanted: Wanted) -> Result<wire::PessimisticLockResponse> {
    let Output::PessimisticLocked(results) = output else {
        mismatch(output)
    };
    let mut answer = wire::PessimisticLockResponse::default();
    if wanted.results {
        answer.results = results.into_iter().map(key_result).collect();
        return Ok(answer);
    }
    if wanted.values || wanted.existence {
        let not_found = |result: &LockResult| !(result.exists || result.value.is_some());
        answer.not_founds = results.iter().map(not_found).collect();
    }
    if wanted.values {
        answer.values = results.into_iter().map(|result| result.value.unwrap_or_default()).collect();
    }
    Ok(answer)
}

/// To a client that asked for results each key needs one, also those of a request that was refused.
pub fn refused_results(answer: &mut wire::PessimisticLockResponse, wanted: Wanted) {
    if wanted.results && !answer.errors.is_empty() {
        let failed = wire::PessimisticLockKeyResult {
            r#type: ResultType::LockResultFailed.into(),
            ..Default::default()
        };
        answer.results = vec![failed; wanted.keys];
    }
}

fn key_result(result: LockResult) -> wire::PessimisticLockKeyResult {
    let kind = match result.conflict_ts.is_some() {
        true => ResultType::LockResultLockedWithConflict,
        false => ResultType::LockResultNormal,
    };
    wire::PessimisticLockKeyResult {
        r#type: kind.into(),
        existence: result.exists || result.value.is_some(),
        value: result.value.unwrap_or_default(),
        locked_with_conflict_ts: result.conflict_ts.0,
        skip_resolving_lock: false,
    }
}

pub fn heart_beat(output: Output) -> Result<wire::TxnHeartBeatResponse> {
    let Output::HeartBeat { ttl_ms } = output else {
        mismatch(output)
    };
    Ok(wire::TxnHeartBeatResponse {
        lock_ttl: ttl_ms,
        ..Default::default()
    })
}

pub fn txn_status(output: Output) -> Result<wire::CheckTxnStatusResponse> {
    let Output::Status(status) = output else { mismatch(output) };
    let mut answer = wire::CheckTxnStatusResponse::default();
    let action = match status {
        TxnStatus::Locked { locked, pushed } => {
            // Zero would say that the transaction has ended.
            answer.lock_ttl = locked.lock.ttl_ms.max(1);
            answer.lock_info = Some(Box::new(lock_info(&locked)?));
            if pushed {
                wire::Action::MinCommitTsPushed
            } else {
                wire::Action::NoAction
            }
        }
        TxnStatus::Committed { commit_ts } => {
            answer.commit_version = commit_ts.0;
            wire::Action::NoAction
        }
        TxnStatus::RolledBack => wire::Action::NoAction,
        TxnStatus::TtlExpired => wire::Action::TtlExpireRollback,
        TxnStatus::PessimisticReleased => wire::Action::TtlExpirePessimisticRollback,
        TxnStatus::NotExistRolledBack => wire::Action::LockNotExistRollback,
        TxnStatus::NotExistIgnored => wire::Action::LockNotExistDoNothing,
    };
    answer.set_action(action);
    Ok(answer)
}

pub fn secondaries(output: Output) -> Result<wire::CheckSecondaryLocksResponse> {
    let Output::Secondaries(status) = output else {
        mismatch(output)
    };
    let mut answer = wire::CheckSecondaryLocksResponse::default();
    match status {
        SecondaryStatus::Locked(locks) => answer.locks = lock_infos(&locks)?,
        SecondaryStatus::Committed { commit_ts } => answer.commit_ts = commit_ts.0,
        // Neither locks nor a timestamp.
        SecondaryStatus::RolledBack => {}
    }
    Ok(answer)
}

/// Each command has its kind of outcome.
fn mismatch(output: Output) -> ! {
    unreachable!("an outcome of another command: {output:?}")
}

pub fn lock_infos(locks: &[Locked]) -> Result<Vec<LockInfo>> {
    Ok(locks.iter().map(lock_info).collect::<txn::Result<_>>()?)
}

/// A lock as clients are told of it.
pub fn lock_info(locked: &Locked) -> txn::Result<LockInfo> {
    let lock = &locked.lock;
    Ok(LockInfo {
        primary_lock: lock.primary.clone(),
        lock_version: lock.start_ts.0,
        key: locked.key.user()?,
        lock_ttl: lock.ttl_ms,
        txn_size: lock.txn_size,
        lock_type: lock_op(lock.kind).into(),
        lock_for_update_ts: lock.for_update_ts.0,
        use_async_commit: lock.use_async_commit,
        min_commit_ts: lock.min_commit_ts.0,
        secondaries: lock.secondaries.clone(),
        ..Default::default()
    })
}

fn lock_op(kind: LockKind) -> wire::Op {
    match kind {
        LockKind::Put => wire::Op::Put,
        LockKind::Delete => wire::Op::Del,
        LockKind::Lock => wire::Op::Lock,
        LockKind::Pessimistic => wire::Op::PessimisticLock,
    }
}

fn write_op(kind: WriteKind) -> wire::Op {
    match kind {
        WriteKind::Put => wire::Op::Put,
        WriteKind::Delete => wire::Op::Del,
        WriteKind::Lock => wire::Op::Lock,
        WriteKind::Rollback => wire::Op::Rollback,
    }
}

/// Everything that is known of a key.
pub fn mvcc_info(history: History) -> wire::MvccInfo {
    let lock = history.lock.map(|lock| wire::MvccLock {
        r#type: lock_op(lock.kind).into(),
        start_ts: lock.start_ts.0,
        primary: lock.primary,
        short_value: lock.short_value.unwrap_or_default(),
        ttl: lock.ttl_ms,
        for_update_ts: lock.for_update_ts.0,
        txn_size: lock.txn_size,
        use_async_commit: lock.use_async_commit,
        secondaries: lock.secondaries,
        ..Default::default()
    });
    let write = |(commit_ts, write): (Ts, txn::Write)| wire::MvccWrite {
        r#type: write_op(write.kind).into(),
        start_ts: write.start_ts.0,
        commit_ts: commit_ts.0,
        short_value: write.short_value.unwrap_or_default(),
        has_overlapped_rollback: write.overlapped_rollback,
        ..Default::default()
    };
    let value = |(start_ts, value): (Ts, Bytes)| wire::MvccValue {
        start_ts: start_ts.0,
        value,
    };
    wire::MvccInfo {
        lock,
        writes: history.writes.into_iter().map(write).collect(),
        values: history.values.into_iter().map(value).collect(),
    }
}

/// One edge of the graph of waiters.
pub fn wait_entry(wait: WaitFor) -> WaitForEntry {
    WaitForEntry {
        txn: wait.waiter.0,
        wait_for_txn: wait.holder.0,
        key_hash: wait.key_hash,
        key: wait.key,
        resource_group_tag: wait.resource_group_tag,
        wait_time: 0,
    }
}

pub fn wait_of_entry(entry: WaitForEntry) -> WaitFor {
    WaitFor {
        waiter: Ts(entry.txn),
        holder: Ts(entry.wait_for_txn),
        key: entry.key,
        key_hash: entry.key_hash,
        resource_group_tag: entry.resource_group_tag,
    }
}
