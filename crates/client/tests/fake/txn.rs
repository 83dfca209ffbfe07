//! A small Percolator over a map: what the stores of the fake cluster do with transactions. Commands are all or nothing, and as
//! strict as a real store; pessimistic locks do not wait.

use std::collections::{BTreeMap, BTreeSet};

use base::Ts;
use bytes::Bytes;
use proto::kvrpcpb::prewrite_request::PessimisticAction;
use proto::kvrpcpb::write_conflict::Reason;
use proto::kvrpcpb::{self, Action, KeyError, LockInfo, Op};

#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    Put(u64, Bytes),
    Delete(u64),
    Lock(u64),
    Rollback,
}

#[derive(Default)]
struct Cell {
    /// With the value to be put.
    lock: Option<(LockInfo, Bytes)>,
    /// By commit timestamp, a rollback by its start timestamp.
    records: BTreeMap<u64, Record>,
    /// Rollbacks at whose time another transaction was committed.
    overlapped: BTreeSet<u64>,
}

#[derive(Default)]
pub struct Mvcc {
    cells: BTreeMap<Bytes, Cell>,
    max_ts: u64,
    /// Commits with a role, in order of arrival: to see that the primary comes first.
    pub commits: Vec<(Vec<Bytes>, bool)>,
    /// Turns every async and one-phase commit into an ordinary one.
    pub falls_back: bool,
    /// A reader passes by just before the next commit: its locks may not commit below this. Zero for none.
    pub push_next_commit: u64,
}

type Fault = Box<KeyError>;

impl Cell {
    /// Commit timestamp and record of a transaction.
    fn record_of(&self, start_ts: u64) -> Option<(u64, &Record)> {
        let own = |(commit_ts, record): &(&u64, &Record)| match record {
            Record::Put(start, _) | Record::Delete(start) | Record::Lock(start) => *start == start_ts,
            Record::Rollback => **commit_ts == start_ts,
        };
        match self.overlapped.contains(&start_ts) {
            true => Some((start_ts, &Record::Rollback)),
            false => self.records.iter().find(own).map(|(commit_ts, record)| (*commit_ts, record)),
        }
    }

    fn value(&self, ts: u64) -> Option<Bytes> {
        let visible = self
            .records
            .range(..=ts)
            .rev()
            .find(|(_, record)| matches!(record, Record::Put(..) | Record::Delete(_)));
        match visible {
            Some((_, Record::Put(_, value))) => Some(value.clone()),
            _ => None,
        }
    }

    fn lock_of(&self, start_ts: u64) -> Option<&LockInfo> {
        self.lock
            .as_ref()
            .map(|(lock, _)| lock)
            .filter(|lock| lock.lock_version == start_ts)
    }

    fn roll_back(&mut self, start_ts: u64) -> Result<(), Fault> {
        if let Some((commit_ts, record)) = self.record_of(start_ts)
            && *record != Record::Rollback
        {
            return Err(abort(format!("already committed at {commit_ts}")));
        }
        if self.lock_of(start_ts).is_some() {
            self.lock = None;
        }
        self.record_rollback(start_ts);
        Ok(())
    }

    fn record_rollback(&mut self, start_ts: u64) {
        match self.records.get(&start_ts) {
            None | Some(Record::Rollback) => drop(self.records.insert(start_ts, Record::Rollback)),
            Some(_) => drop(self.overlapped.insert(start_ts)),
        }
    }

    /// Commits take the place of a rollback at their time.
    fn record(&mut self, commit_ts: u64, record: Record) {
        if self.records.insert(commit_ts, record) == Some(Record::Rollback) {
            self.overlapped.insert(commit_ts);
        }
    }

    fn commit(&mut self, key: &Bytes, start_ts: u64, commit_ts: u64) -> Result<u64, Fault> {
        let Some(lock) = self.lock_of(start_ts) else {
            return match self.record_of(start_ts) {
                Some((done, record)) if *record != Record::Rollback => Ok(done),
                _ => Err(Box::new(KeyError {
                    txn_lock_not_found: Some(kvrpcpb::TxnLockNotFound { key: key.clone() }),
                    ..Default::default()
                })),
            };
        };
        if lock.min_commit_ts > commit_ts {
            let expired = kvrpcpb::CommitTsExpired {
                start_ts,
                attempted_commit_ts: commit_ts,
                key: key.clone(),
                min_commit_ts: lock.min_commit_ts,
            };
            return Err(Box::new(KeyError {
                commit_ts_expired: Some(expired),
                ..Default::default()
            }));
        }
        assert_ne!(lock.lock_type(), Op::PessimisticLock, "a pessimistic lock is committed");
        let (lock, value) = self.lock.take().expect("was just there");
        self.record(commit_ts, record(lock.lock_type(), start_ts, value));
        Ok(commit_ts)
    }
}

fn record(op: Op, start_ts: u64, value: Bytes) -> Record {
    match op {
        Op::Put | Op::Insert => Record::Put(start_ts, value),
        Op::Del => Record::Delete(start_ts),
        Op::Lock => Record::Lock(start_ts),
        other => panic!("{other:?} leaves no record"),
    }
}

fn abort(message: String) -> Fault {
    Box::new(KeyError {
        abort: message,
        ..Default::default()
    })
}

fn locked(lock: &LockInfo) -> Fault {
    Box::new(KeyError {
        locked: Some(Box::new(lock.clone())),
        ..Default::default()
    })
}

fn conflict(start_ts: u64, key: &Bytes, conflict_ts: u64, conflict_commit_ts: u64, reason: Reason) -> Fault {
    let conflict = kvrpcpb::WriteConflict {
        start_ts,
        conflict_ts,
        key: key.clone(),
        conflict_commit_ts,
        reason: reason.into(),
        ..Default::default()
    };
    Box::new(KeyError {
        conflict: Some(conflict),
        ..Default::default()
    })
}

fn start_of(commit_ts: u64, record: &Record) -> u64 {
    match record {
        Record::Put(start, _) | Record::Delete(start) | Record::Lock(start) => *start,
        Record::Rollback => commit_ts,
    }
}

impl Mvcc {
    /// Keys with locks, in order.
    pub fn locks(&self) -> Vec<(Bytes, LockInfo)> {
        let locks = self
            .cells
            .iter()
            .filter_map(|(key, cell)| Some((key.clone(), cell.lock.as_ref()?.0.clone())));
        locks.collect()
    }

    /// Records of a key, newest first.
    pub fn records(&self, key: &[u8]) -> Vec<(u64, Record)> {
        let cell = self.cells.get(key);
        cell.map_or(Vec::new(), |cell| {
            cell.records.iter().rev().map(|(ts, record)| (*ts, record.clone())).collect()
        })
    }

    pub fn get(&mut self, key: &Bytes, ts: u64, passed: &[u64]) -> Result<Option<Bytes>, Fault> {
        if ts != u64::MAX {
            self.max_ts = self.max_ts.max(ts);
        }
        let Some(cell) = self.cells.get(key) else { return Ok(None) };
        if let Some((lock, _)) = &cell.lock {
            let hides = !matches!(lock.lock_type(), Op::Lock | Op::PessimisticLock)
                && lock.lock_version <= ts
                && lock.min_commit_ts <= ts
                && !passed.contains(&lock.lock_version)
                && !(ts == u64::MAX && lock.primary_lock == *key);
            if hides {
                return Err(locked(lock));
            }
        }
        Ok(cell.value(ts))
    }

    /// Keys of a range that have a value at `ts` or are locked.
    pub fn scan(&mut self, start: &Bytes, end: &Bytes, ts: u64, passed: &[u64]) -> Vec<(Bytes, Result<Bytes, Fault>)> {
        let keys: Vec<Bytes> = self
            .cells
            .keys()
            .filter(|key| *key >= start && (end.is_empty() || *key < end))
            .cloned()
            .collect();
        let read = keys
            .into_iter()
            .filter_map(|key| Some((key.clone(), self.get(&key, ts, passed).transpose()?)));
        read.collect()
    }

    pub fn prewrite(&mut self, request: &kvrpcpb::PrewriteRequest) -> kvrpcpb::PrewriteResponse {
        assert_ne!(request.start_version, 0);
        assert_ne!(request.lock_ttl, 0);
        let mut errors = Vec::new();
        for (at, mutation) in request.mutations.iter().enumerate() {
            let action = request
                .pessimistic_actions
                .get(at)
                .map(|action| PessimisticAction::try_from(*action).expect("known"));
            errors.extend(self.check_prewrite(request, mutation, action).err().map(|error| *error));
        }
        if !errors.is_empty() {
            return kvrpcpb::PrewriteResponse {
                errors,
                ..Default::default()
            };
        }
        let first = self.cells.get(&request.mutations[0].key);
        let done_before = first
            .and_then(|cell| cell.record_of(request.start_version))
            .map(|(commit_ts, _)| commit_ts);
        let floor = self.max_ts.max(request.start_version).max(request.for_update_ts) + 1;
        let min_commit_ts = done_before.unwrap_or(floor.max(request.min_commit_ts));
        let too_late = request.max_commit_ts != 0 && min_commit_ts > request.max_commit_ts;
        let ordinary = self.falls_back || too_late;
        if request.try_one_pc && !ordinary {
            for mutation in request
                .mutations
                .iter()
                .filter(|mutation| mutation.op() != Op::CheckNotExists)
            {
                let cell = self.cells.entry(mutation.key.clone()).or_default();
                cell.lock = None;
                let record = record(mutation.op(), request.start_version, mutation.value.clone());
                cell.record(min_commit_ts, record);
            }
            return kvrpcpb::PrewriteResponse {
                one_pc_commit_ts: min_commit_ts,
                ..Default::default()
            };
        }
        let is_async = request.use_async_commit && !ordinary;
        for mutation in request
            .mutations
            .iter()
            .filter(|mutation| mutation.op() != Op::CheckNotExists)
        {
            let cell = self.cells.entry(mutation.key.clone()).or_default();
            if cell.record_of(request.start_version).is_some() {
                continue;
            }
            let op = if mutation.op() == Op::Insert { Op::Put } else { mutation.op() };
            let secondaries = if mutation.key == request.primary_lock {
                request.secondaries.clone()
            } else {
                Vec::new()
            };
            let lock = LockInfo {
                primary_lock: request.primary_lock.clone(),
                lock_version: request.start_version,
                key: mutation.key.clone(),
                lock_ttl: request.lock_ttl,
                txn_size: request.txn_size,
                lock_type: op.into(),
                lock_for_update_ts: request.for_update_ts,
                use_async_commit: is_async,
                min_commit_ts: if is_async { min_commit_ts } else { request.min_commit_ts },
                secondaries,
                ..Default::default()
            };
            cell.lock = Some((lock, mutation.value.clone()));
        }
        kvrpcpb::PrewriteResponse {
            min_commit_ts: if is_async { min_commit_ts } else { 0 },
            ..Default::default()
        }
    }

    fn check_prewrite(
        &self,
        request: &kvrpcpb::PrewriteRequest,
        mutation: &kvrpcpb::Mutation,
        action: Option<PessimisticAction>,
    ) -> Result<(), Fault> {
        let (key, start_ts) = (&mutation.key, request.start_version);
        assert_eq!(
            action.is_some(),
            request.for_update_ts != 0,
            "pessimistic transactions say how each key is checked"
        );
        let Some(cell) = self.cells.get(key) else {
            return match action {
                Some(PessimisticAction::DoPessimisticCheck) => Err(abort("pessimistic lock not found".into())),
                _ => Ok(()),
            };
        };
        if let Some((lock, _)) = &cell.lock {
            return match lock.lock_version == start_ts {
                true => Ok(()),
                false => Err(locked(lock)),
            };
        }
        match cell.record_of(start_ts) {
            Some((_, Record::Rollback)) => return Err(conflict(start_ts, key, start_ts, start_ts, Reason::SelfRolledBack)),
            // Done before, in one phase or by one who resolved it.
            Some(_) => return Ok(()),
            None => {}
        }
        if action == Some(PessimisticAction::DoPessimisticCheck) {
            return Err(abort("pessimistic lock not found".into()));
        }
        let newer = cell
            .records
            .range(start_ts + 1..)
            .rev()
            .find(|(_, record)| **record != Record::Rollback);
        if let Some((commit_ts, record)) = newer {
            return Err(conflict(
                start_ts,
                key,
                start_of(*commit_ts, record),
                *commit_ts,
                Reason::Optimistic,
            ));
        }
        if matches!(mutation.op(), Op::Insert | Op::CheckNotExists) && cell.value(u64::MAX).is_some() {
            return Err(exists(key));
        }
        Ok(())
    }

    /// Returns where the transaction stands.
    pub fn commit(&mut self, request: &kvrpcpb::CommitRequest) -> Result<u64, Fault> {
        self.commits
            .push((request.keys.clone(), request.commit_role() == kvrpcpb::CommitRole::Primary));
        assert!(request.commit_version > request.start_version);
        let pushed = std::mem::take(&mut self.push_next_commit);
        for key in &request.keys {
            if let Some((lock, _)) = self.cells.get_mut(key).and_then(|cell| cell.lock.as_mut()) {
                lock.min_commit_ts = lock.min_commit_ts.max(pushed);
            }
        }
        let mut commit_ts = request.commit_version;
        for key in &request.keys {
            let cell = self.cells.entry(key.clone()).or_default();
            commit_ts = cell.commit(key, request.start_version, request.commit_version)?;
        }
        Ok(commit_ts)
    }

    pub fn roll_back(&mut self, keys: &[Bytes], start_ts: u64) -> Result<(), Fault> {
        keys.iter()
            .try_for_each(|key| self.cells.entry(key.clone()).or_default().roll_back(start_ts))
    }

    pub fn lock(&mut self, request: &kvrpcpb::PessimisticLockRequest) -> kvrpcpb::PessimisticLockResponse {
        assert_ne!(request.for_update_ts, 0);
        let mut answer = kvrpcpb::PessimisticLockResponse::default();
        for mutation in &request.mutations {
            match self.check_lock(request, mutation) {
                Err(error) => {
                    answer.errors.push(*error);
                    return answer;
                }
                Ok(value) if request.return_values => {
                    answer.not_founds.push(value.is_none());
                    answer.values.push(value.unwrap_or_default());
                }
                Ok(_) => {}
            }
        }
        for mutation in &request.mutations {
            let lock = LockInfo {
                primary_lock: request.primary_lock.clone(),
                lock_version: request.start_version,
                key: mutation.key.clone(),
                lock_ttl: request.lock_ttl,
                lock_type: Op::PessimisticLock.into(),
                lock_for_update_ts: request.for_update_ts,
                min_commit_ts: request.min_commit_ts,
                ..Default::default()
            };
            self.cells.entry(mutation.key.clone()).or_default().lock = Some((lock, Bytes::new()));
        }
        answer
    }

    fn check_lock(
        &self,
        request: &kvrpcpb::PessimisticLockRequest,
        mutation: &kvrpcpb::Mutation,
    ) -> Result<Option<Bytes>, Fault> {
        let (key, start_ts) = (&mutation.key, request.start_version);
        let Some(cell) = self.cells.get(key) else { return Ok(None) };
        match &cell.lock {
            Some((lock, _)) if lock.lock_version != start_ts => return Err(locked(lock)),
            _ => {}
        }
        let newer = cell.records.range(request.for_update_ts + 1..).next_back();
        if let Some((commit_ts, record)) = newer {
            return Err(conflict(
                start_ts,
                key,
                start_of(*commit_ts, record),
                *commit_ts,
                Reason::PessimisticRetry,
            ));
        }
        let value = cell.value(u64::MAX);
        match value.is_some() && mutation.assertion() == kvrpcpb::Assertion::NotExist {
            true => Err(exists(key)),
            false => Ok(value),
        }
    }

    pub fn roll_back_pessimistic(&mut self, request: &kvrpcpb::PessimisticRollbackRequest) {
        for key in &request.keys {
            let Some(cell) = self.cells.get_mut(key) else { continue };
            let own = cell.lock_of(request.start_version);
            let gone = own
                .is_some_and(|lock| lock.lock_type() == Op::PessimisticLock && lock.lock_for_update_ts <= request.for_update_ts);
            if gone {
                cell.lock = None;
            }
        }
    }

    pub fn beat(&mut self, request: &kvrpcpb::TxnHeartBeatRequest) -> Result<u64, Fault> {
        let cell = self.cells.entry(request.primary_lock.clone()).or_default();
        match cell
            .lock
            .as_mut()
            .filter(|(lock, _)| lock.lock_version == request.start_version)
        {
            Some((lock, _)) => {
                lock.lock_ttl = lock.lock_ttl.max(request.advise_lock_ttl);
                Ok(lock.lock_ttl)
            }
            None => Err(not_found(request.start_version, &request.primary_lock)),
        }
    }

    pub fn check_status(&mut self, request: &kvrpcpb::CheckTxnStatusRequest) -> Result<kvrpcpb::CheckTxnStatusResponse, Fault> {
        let (key, start_ts) = (&request.primary_key, request.lock_ts);
        let cell = self.cells.entry(key.clone()).or_default();
        let mut answer = kvrpcpb::CheckTxnStatusResponse::default();
        if cell.lock_of(start_ts).is_none() {
            match cell.record_of(start_ts) {
                Some((_, Record::Rollback)) => {}
                Some((commit_ts, _)) => answer.commit_version = commit_ts,
                None if !request.rollback_if_not_exist => return Err(not_found(start_ts, key)),
                None if request.resolving_pessimistic_lock => answer.set_action(Action::LockNotExistDoNothing),
                None => {
                    cell.record_rollback(start_ts);
                    answer.set_action(Action::LockNotExistRollback);
                }
            }
            return Ok(answer);
        }
        let (lock, _) = cell.lock.as_mut().expect("is of the transaction");
        assert_eq!(lock.primary_lock, *key, "the key is not the primary");
        let outlived = Ts(start_ts).physical_ms().saturating_add(lock.lock_ttl) < Ts(request.current_ts).physical_ms();
        let decides = !lock.use_async_commit || request.force_sync_commit;
        if outlived && decides {
            if lock.lock_type() == Op::PessimisticLock && request.resolving_pessimistic_lock {
                cell.lock = None;
                answer.set_action(Action::TtlExpirePessimisticRollback);
            } else {
                cell.roll_back(start_ts).expect("is not committed");
                answer.set_action(Action::TtlExpireRollback);
            }
            return Ok(answer);
        }
        let caller = request.caller_start_ts;
        if caller == u64::MAX || (decides && caller != 0) {
            if caller != u64::MAX {
                lock.min_commit_ts = lock.min_commit_ts.max(caller + 1);
            }
            answer.set_action(Action::MinCommitTsPushed);
        }
        answer.lock_ttl = lock.lock_ttl;
        answer.lock_info = Some(Box::new(lock.clone()));
        Ok(answer)
    }

    pub fn check_secondaries(&mut self, keys: &[Bytes], start_ts: u64) -> kvrpcpb::CheckSecondaryLocksResponse {
        let mut answer = kvrpcpb::CheckSecondaryLocksResponse::default();
        for key in keys {
            let cell = self.cells.entry(key.clone()).or_default();
            if let Some(lock) = cell.lock_of(start_ts).filter(|lock| lock.lock_type() != Op::PessimisticLock) {
                answer.locks.push(lock.clone());
                continue;
            }
            let commit_ts = match cell.record_of(start_ts) {
                Some((commit_ts, record)) if *record != Record::Rollback => commit_ts,
                _ => {
                    cell.roll_back(start_ts).expect("is not committed");
                    0
                }
            };
            return kvrpcpb::CheckSecondaryLocksResponse {
                commit_ts,
                ..Default::default()
            };
        }
        answer
    }

    /// Of `keys`, or of all between the bounds if there are none.
    pub fn resolve(&mut self, request: &kvrpcpb::ResolveLockRequest, bounds: (&Bytes, &Bytes)) -> Result<(), Fault> {
        let (start_ts, commit_ts) = (request.start_version, request.commit_version);
        let within = |key: &Bytes| match request.keys.is_empty() {
            true => key >= bounds.0 && (bounds.1.is_empty() || key < bounds.1),
            false => request.keys.contains(key),
        };
        for (key, cell) in self.cells.iter_mut().filter(|(key, _)| within(key)) {
            if cell.lock_of(start_ts).is_some() {
                match commit_ts {
                    0 => cell.roll_back(start_ts)?,
                    commit_ts => drop(cell.commit(key, start_ts, commit_ts)?),
                }
            }
        }
        Ok(())
    }
}

fn exists(key: &Bytes) -> Fault {
    Box::new(KeyError {
        already_exist: Some(kvrpcpb::AlreadyExist { key: key.clone() }),
        ..Default::default()
    })
}

fn not_found(start_ts: u64, key: &Bytes) -> Fault {
    let not_found = kvrpcpb::TxnNotFound {
        start_ts,
        primary_key: key.clone(),
    };
    Box::new(KeyError {
        txn_not_found: Some(not_found),
        ..Default::default()
    })
}
