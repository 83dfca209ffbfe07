//! Actions and reads over a memory store, one after the other.

mod first_phase;
mod model;
mod pairs;
mod pessimistic;
mod questions;
mod reads;
mod second_phase;

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{MonoTime, RegionId, Ts};
use bytes::Bytes;
use engine::kv::{Context, Kv, MemKv, SnapshotRef};
use parking_lot::Mutex;
use proto::metapb::RegionEpoch;

use super::{Input, Released, run};
use crate::command::*;
use crate::concurrency::Concurrency;
use crate::error::{ConflictReason, Error, Result};
use crate::key::Key;
use crate::lock::Lock;
use crate::mvcc::{self, ReadOptions};
use crate::write::Write;

/// Longer than a short value.
fn long(byte: u8) -> Bytes {
    vec![byte; crate::SHORT_VALUE_MAX + 1].into()
}

fn key(user: &str) -> Key {
    Key::from_user(user.as_bytes())
}

fn keys(users: &[&str]) -> Vec<Key> {
    users.iter().map(|user| key(user)).collect()
}

fn mutation(user: &str, op: Op) -> Mutation {
    Mutation {
        key: key(user),
        op,
        assertion: Assertion::None,
        check: PessimisticCheck::Skip,
        expected_for_update_ts: None,
    }
}

fn put(user: &str, value: impl Into<Bytes>) -> Mutation {
    mutation(user, Op::Put(value.into()))
}

/// A mutation of a key that a pessimistic transaction locked before.
fn locked(mutation: Mutation) -> Mutation {
    Mutation {
        check: PessimisticCheck::Locked,
        ..mutation
    }
}

/// An optimistic prewrite whose primary is the first key.
fn prewrite(start_ts: u64, mutations: Vec<Mutation>) -> Prewrite {
    let primary = mutations.first().map(|first| first.key.user().expect("own encoding"));
    Prewrite {
        mutations,
        primary: primary.unwrap_or_default(),
        start_ts: Ts(start_ts),
        ttl_ms: 1000,
        txn_size: 1,
        for_update_ts: Ts(0),
        min_commit_ts: Ts(0),
        max_commit_ts: Ts(0),
        secondaries: None,
        one_phase: false,
        skip_constraint_check: false,
        assertion_level: AssertionLevel::Off,
        is_retry: false,
    }
}

fn commit(users: &[&str], start_ts: u64, commit_ts: u64) -> Command {
    Command::Commit(Commit {
        keys: keys(users),
        start_ts: Ts(start_ts),
        commit_ts: Ts(commit_ts),
    })
}

fn rollback(users: &[&str], start_ts: u64) -> Command {
    Command::Rollback {
        keys: keys(users),
        start_ts: Ts(start_ts),
    }
}

fn pessimistic_lock(users: &[&str], start_ts: u64, for_update_ts: u64) -> PessimisticLock {
    PessimisticLock {
        keys: users
            .iter()
            .map(|user| LockKey {
                key: key(user),
                should_not_exist: false,
            })
            .collect(),
        primary: Bytes::copy_from_slice(users[0].as_bytes()),
        start_ts: Ts(start_ts),
        ttl_ms: 1000,
        for_update_ts: Ts(for_update_ts),
        is_first_lock: false,
        wait: Wait::No,
        return_values: false,
        check_existence: false,
        lock_only_if_exists: false,
        min_commit_ts: Ts(0),
        allow_conflict: false,
        resource_group_tag: Bytes::new(),
    }
}

fn check_status(primary: &str, start_ts: u64, current_ts: Ts) -> CheckTxnStatus {
    CheckTxnStatus {
        primary: key(primary),
        start_ts: Ts(start_ts),
        caller_start_ts: Ts(0),
        current_ts,
        rollback_if_not_exist: false,
        force_sync_commit: false,
        resolving_pessimistic_lock: false,
        verify_is_primary: false,
    }
}

/// The first timestamp of a millisecond after the others' of these tests, which are all in millisecond zero.
fn at_ms(ms: u64) -> Ts {
    Ts::compose(ms, 0)
}

/// One region over all keys, and what a store keeps beside it.
struct Store {
    kv: MemKv,
    concurrency: Concurrency,
    memory: BTreeMap<Key, Lock>,
    in_memory_pessimistic: bool,
    released: Vec<Released>,
    /// Steps that commands took, one for most.
    steps: usize,
}

impl Store {
    fn new() -> Store {
        Store {
            kv: MemKv::whole(),
            concurrency: Concurrency::new(Ts(1)),
            memory: BTreeMap::new(),
            in_memory_pessimistic: false,
            released: Vec::new(),
            steps: 0,
        }
    }

    fn context() -> Context {
        Context {
            region: RegionId(1),
            epoch: RegionEpoch { conf_ver: 1, version: 1 },
            ..Context::default()
        }
    }

    fn snapshot(&self) -> SnapshotRef {
        let taken = Arc::new(Mutex::new(None));
        let reply = taken.clone();
        let reply = Box::new(move |snapshot| *reply.lock() = Some(snapshot));
        self.kv.snapshot(&Store::context(), MonoTime(0), reply);
        let snapshot = taken.lock().take();
        snapshot.expect("answers at once").expect("serves")
    }

    /// Runs a command to its end.
    fn run(&mut self, command: Command) -> Result<Output> {
        let mut command = command;
        loop {
            let snapshot = self.snapshot();
            let outcome = run(
                &command,
                &Input {
                    snapshot: &*snapshot,
                    concurrency: &self.concurrency,
                    memory: &self.memory,
                    in_memory_pessimistic: self.in_memory_pessimistic,
                },
            )?;
            self.kv.write(
                &Store::context(),
                outcome.changes,
                MonoTime(0),
                Box::new(|result| result.expect("serves")),
            );
            for (key, lock) in outcome.memory {
                match lock {
                    Some(lock) => self.memory.insert(key, lock),
                    None => self.memory.remove(&key),
                };
            }
            drop(outcome.guard);
            self.released.extend(outcome.released);
            self.steps += 1;
            match outcome.next {
                Some(next) => command = next,
                None => return Ok(outcome.output),
            }
        }
    }

    fn prewrite(&mut self, prewrite: Prewrite) -> Result<Prewritten> {
        match self.run(Command::Prewrite(prewrite))? {
            Output::Prewritten(prewritten) => Ok(prewritten),
            other => panic!("{other:?}"),
        }
    }

    /// Prewrites an optimistic transaction.
    fn must_prewrite(&mut self, start_ts: u64, mutations: Vec<Mutation>) {
        let prewritten = self.prewrite(prewrite(start_ts, mutations)).expect("prewrites");
        assert_eq!(prewritten, Prewritten::default());
    }

    /// Commits what was prewritten.
    fn must_commit(&mut self, users: &[&str], start_ts: u64, commit_ts: u64) {
        let output = self.run(commit(users, start_ts, commit_ts)).expect("commits");
        let commit_ts = Ts(commit_ts);
        assert_eq!(output, Output::Committed { commit_ts });
    }

    /// A whole transaction of one key.
    fn must_put(&mut self, user: &str, value: impl Into<Bytes>, start_ts: u64, commit_ts: u64) {
        self.must_prewrite(start_ts, vec![put(user, value)]);
        self.must_commit(&[user], start_ts, commit_ts);
    }

    fn must_rollback(&mut self, users: &[&str], start_ts: u64) {
        assert_eq!(self.run(rollback(users, start_ts)).expect("rolls back"), Output::Done);
    }

    fn must_lock(&mut self, users: &[&str], start_ts: u64, for_update_ts: u64) -> Vec<LockResult> {
        self.lock(pessimistic_lock(users, start_ts, for_update_ts)).expect("locks")
    }

    fn lock(&mut self, request: PessimisticLock) -> Result<Vec<LockResult>> {
        match self.run(Command::PessimisticLock(request))? {
            Output::PessimisticLocked(results) => Ok(results),
            other => panic!("{other:?}"),
        }
    }

    fn status(&mut self, check: CheckTxnStatus) -> Result<TxnStatus> {
        match self.run(Command::CheckTxnStatus(check))? {
            Output::Status(status) => Ok(status),
            other => panic!("{other:?}"),
        }
    }

    fn secondaries(&mut self, users: &[&str], start_ts: u64) -> SecondaryStatus {
        let command = Command::CheckSecondaryLocks {
            keys: keys(users),
            start_ts: Ts(start_ts),
        };
        match self.run(command).expect("is checked") {
            Output::Secondaries(status) => status,
            other => panic!("{other:?}"),
        }
    }

    fn get(&self, user: &str, ts: u64) -> Result<Option<Bytes>> {
        self.get_with(user, &ReadOptions::snapshot(Ts(ts)))
    }

    fn get_with(&self, user: &str, options: &ReadOptions) -> Result<Option<Bytes>> {
        Ok(mvcc::get(&*self.snapshot(), &key(user), options)?.map(|found| found.value))
    }

    fn must_get(&self, user: &str, ts: u64) -> Option<Bytes> {
        self.get(user, ts).expect("reads")
    }

    fn must_be_locked(&self, user: &str, start_ts: u64) -> Lock {
        let lock = self.lock_of(user).unwrap_or_else(|| panic!("{user} is not locked"));
        assert_eq!(lock.start_ts, Ts(start_ts), "{user}");
        lock
    }

    fn lock_of(&self, user: &str) -> Option<Lock> {
        self.memory.get(&key(user)).cloned().or(self.history(user).lock)
    }

    fn history(&self, user: &str) -> mvcc::History {
        let found = mvcc::history(&*self.snapshot(), &key(user), usize::MAX);
        found.expect("reads").expect("there is room")
    }

    fn records(&self, user: &str) -> Vec<(Ts, Write)> {
        self.history(user).writes
    }

    fn values(&self, user: &str) -> usize {
        self.history(user).values.len()
    }
}

/// The reason of a write conflict.
fn conflict<T: std::fmt::Debug>(result: Result<T>) -> ConflictReason {
    match result {
        Err(Error::WriteConflict { reason, .. }) => reason,
        other => panic!("wanted a write conflict: {other:?}"),
    }
}

/// The transaction whose lock was met.
fn met<T: std::fmt::Debug>(result: Result<T>) -> u64 {
    match result {
        Err(Error::Locked(locked)) => locked.lock.start_ts.0,
        other => panic!("wanted a lock: {other:?}"),
    }
}
