//! Random histories against a model: what keys, transactions and reads are, said with maps and sets and without a byte of storage.
//!
//! The model looks at whole histories; the store walks cursors, marks overlaps and spreads values over families. Each
//! answer must be of the model's kind, and after each step every key must read the same at every timestamp.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestRunner};

use super::*;
use crate::mvcc::{Scan, Scanner};

const KEYS: [&str; 3] = ["a", "b", "c"];
const TXNS: u64 = 4;

/// Histories of a usual run; `FERRITE_TXN_HISTORIES=100000` for the full one, under a minute of processor time.
const HISTORIES: u32 = 4_000;

/// One step, small numbers so that steps meet: what, which transaction, which keys (bits), anything else.
type Step = (u8, u8, u8, u8);

#[derive(Clone, Debug, PartialEq)]
struct ModelLock {
    start_ts: u64,
    op: Option<Op>,
    for_update_ts: u64,
    min_commit_ts: u64,
    asynchronous: bool,
}

impl ModelLock {
    fn is_pessimistic(&self) -> bool {
        self.op.is_none()
    }
}

#[derive(Default)]
struct ModelKey {
    lock: Option<ModelLock>,
    /// Committed, by `commit_ts`: by whom, and what.
    commits: BTreeMap<u64, (u64, Op)>,
    /// And whether that is to be known for good.
    rolled_back: BTreeMap<u64, bool>,
}

impl ModelKey {
    fn committed_by(&self, start_ts: u64) -> Option<u64> {
        let own = self.commits.iter().find(|(_, (by, _))| *by == start_ts);
        own.map(|(commit_ts, _)| *commit_ts)
    }

    /// Timestamps of commits and rollbacks.
    fn newest(&self) -> u64 {
        let commit = self.commits.keys().next_back().copied();
        commit.max(self.rolled_back.keys().next_back().copied()).unwrap_or(0)
    }

    /// A rollback takes the place of the one before, if nothing lies between and it need not be kept.
    fn roll_back(&mut self, start_ts: u64, keep: bool) {
        if self.rolled_back.contains_key(&start_ts) {
            return;
        }
        let before = self.rolled_back.range(..start_ts).next_back().map(|(ts, keep)| (*ts, *keep));
        if let Some((ts, false)) = before
            && self.commits.range(ts..start_ts).next().is_none()
        {
            self.rolled_back.remove(&ts);
        }
        self.rolled_back.insert(start_ts, keep);
    }

    fn value(&self, ts: u64) -> Option<Bytes> {
        let versions = self.commits.range(..=ts).rev();
        versions.map(|(_, (_, op))| op).find_map(|op| match op {
            Op::Put(value) => Some(Some(value.clone())),
            Op::Delete => Some(None),
            _ => None,
        })?
    }

    /// What a read comes to.
    fn read(&self, ts: u64, is_primary: bool) -> Answer {
        if let Some(lock) = &self.lock
            && matches!(lock.op, Some(Op::Put(_) | Op::Delete))
            && lock.start_ts <= ts
            && lock.min_commit_ts <= ts
            && !(ts == u64::MAX && is_primary && !lock.asynchronous)
        {
            return Answer::Locked;
        }
        Answer::Value(self.value(ts))
    }
}

/// What a step comes to, as far as model and store must agree.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Done,
    /// With a computed timestamp.
    At(u64),
    Locked,
    Value(Option<Bytes>),
    /// The transaction cannot go on: a conflict, its own rollback, a lock that is lost.
    Refused,
    Committed(u64),
    RolledBack,
    Unknown,
}

/// The transactions of a history. Numbers of the TSO go up with every use.
struct Model {
    keys: [ModelKey; 3],
    start_ts: [u64; TXNS as usize],
    tso: u64,
    max_ts: u64,
}

impl Model {
    fn new() -> Model {
        Model {
            keys: Default::default(),
            start_ts: [0; TXNS as usize],
            tso: 0,
            max_ts: 1,
        }
    }

    fn timestamp(&mut self) -> u64 {
        // Now and then numbers follow one another, so that a computed one can be another's.
        self.tso += 1;
        self.tso
    }

    /// The key's lock, if it is the transaction's.
    fn own(&self, key: usize, start_ts: u64) -> Option<&ModelLock> {
        self.keys[key].lock.as_ref().filter(|lock| lock.start_ts == start_ts)
    }

    fn prewrite(&mut self, request: &Request) -> Answer {
        let Request { start_ts, op, .. } = request;
        let mut done = Vec::new();
        let mut strangers = false;
        for key in &request.keys {
            let state = &self.keys[*key];
            match &state.lock {
                Some(lock) if lock.start_ts != *start_ts => {
                    if request.for_update_ts > 0 {
                        return self.refused(request, *key);
                    }
                    strangers = true;
                }
                Some(lock) if !lock.is_pessimistic() => done.push((lock.min_commit_ts, lock.asynchronous)),
                Some(_) if request.for_update_ts == 0 => return Answer::Refused,
                Some(_) => {}
                None => {
                    // Pessimistic: its lock is lost; made good if nothing was written since it began.
                    let newer = match request.for_update_ts {
                        0 => state.newest() > *start_ts || state.rolled_back.contains_key(start_ts),
                        _ => state.newest() >= *start_ts,
                    };
                    if newer {
                        return self.refused(request, *key);
                    }
                }
            }
        }
        if strangers {
            return Answer::Locked;
        }
        let one_phase = request.one_phase && done.is_empty();
        let asynchronous = request.asynchronous && done.iter().all(|(_, asynchronous)| *asynchronous);
        let promised = done.iter().map(|(min_commit_ts, _)| *min_commit_ts).max();
        let fresh = request.keys.iter().copied().filter(|key| {
            let own = self.own(*key, *start_ts);
            own.is_none_or(ModelLock::is_pessimistic)
        });
        let fresh: Vec<usize> = fresh.collect();
        let mut commit_ts = promised.unwrap_or(0);
        if !fresh.is_empty() {
            let held = fresh.iter().filter_map(|key| self.own(*key, *start_ts));
            let held = held.map(|lock| lock.for_update_ts).max().unwrap_or(0);
            let floor = self.max_ts.max(*start_ts).max(request.for_update_ts).max(held);
            commit_ts = commit_ts.max(floor + 1);
        }
        for key in fresh {
            let for_update_ts = self.own(key, *start_ts).map_or(0, |lock| lock.for_update_ts);
            let state = &mut self.keys[key];
            if one_phase {
                state.commits.insert(commit_ts, (*start_ts, op.clone()));
                state.lock = None;
                continue;
            }
            state.lock = Some(ModelLock {
                start_ts: *start_ts,
                op: Some(op.clone()),
                for_update_ts: for_update_ts.max(request.for_update_ts),
                min_commit_ts: if asynchronous { commit_ts } else { 0 },
                asynchronous,
            });
        }
        if one_phase || asynchronous {
            Answer::At(commit_ts)
        } else {
            Answer::Done
        }
    }

    /// Unless it was done before.
    fn refused(&self, request: &Request, key: usize) -> Answer {
        match self.keys[key].committed_by(request.start_ts) {
            Some(commit_ts) if request.one_phase || request.asynchronous => Answer::At(commit_ts),
            Some(_) => Answer::Done,
            None => Answer::Refused,
        }
    }

    fn commit(&mut self, keys: &[usize], start_ts: u64, commit_ts: u64) -> Answer {
        let (mut locked, mut elsewhere) = (false, None);
        for key in keys {
            match self.own(*key, start_ts) {
                Some(lock) if lock.min_commit_ts > commit_ts => return Answer::Refused,
                Some(lock) if !lock.is_pessimistic() => {
                    locked = true;
                    continue;
                }
                _ => {}
            }
            match self.keys[*key].committed_by(start_ts) {
                Some(done) if done == commit_ts => {}
                Some(done) => elsewhere = Some(done),
                None => return Answer::Refused,
            }
        }
        match elsewhere {
            Some(done) if locked => return Answer::Committed(done),
            Some(done) => return Answer::At(done),
            None => {}
        }
        for key in keys {
            let own = self.own(*key, start_ts).cloned();
            let state = &mut self.keys[*key];
            if let Some(lock) = own {
                state.lock = None;
                if let Some(op) = lock.op {
                    state.commits.insert(commit_ts, (start_ts, op));
                }
            }
        }
        Answer::At(commit_ts)
    }

    fn rollback(&mut self, keys: &[usize], start_ts: u64, keep: bool) -> Answer {
        for key in keys {
            if let Some(commit_ts) = self.keys[*key].committed_by(start_ts) {
                return Answer::Committed(commit_ts);
            }
        }
        for key in keys {
            let own = self.own(*key, start_ts);
            let by_lock = own.is_some_and(|lock| lock.for_update_ts > 0 || lock.asynchronous);
            if own.is_some() {
                self.keys[*key].lock = None;
            }
            self.keys[*key].roll_back(start_ts, keep || by_lock);
        }
        Answer::Done
    }

    fn lock(&mut self, keys: &[usize], start_ts: u64, for_update_ts: u64) -> Answer {
        self.max_ts = self.max_ts.max(for_update_ts);
        for key in keys {
            let state = &self.keys[*key];
            match &state.lock {
                Some(lock) if lock.start_ts != start_ts => return Answer::Locked,
                Some(lock) if !lock.is_pessimistic() => return Answer::Refused,
                Some(_) => {}
                None if state.committed_by(start_ts).is_some() => {
                    return Answer::Committed(state.committed_by(start_ts).expect("just seen"));
                }
                None if state.newest() > for_update_ts || state.rolled_back.contains_key(&start_ts) => return Answer::Refused,
                None => {}
            }
        }
        for key in keys {
            let lock = self.keys[*key].lock.get_or_insert(ModelLock {
                start_ts,
                op: None,
                for_update_ts,
                min_commit_ts: 0,
                asynchronous: false,
            });
            lock.for_update_ts = lock.for_update_ts.max(for_update_ts);
        }
        Answer::Done
    }

    fn release(&mut self, keys: &[usize], start_ts: u64, for_update_ts: u64) -> Answer {
        for key in keys {
            let own = self.own(*key, start_ts);
            if own.is_some_and(|lock| lock.is_pessimistic() && lock.for_update_ts <= for_update_ts) {
                self.keys[*key].lock = None;
            }
        }
        Answer::Done
    }

    /// By the key `a`, on behalf of one who finds the lock outlived if `expired`.
    fn status(&mut self, start_ts: u64, expired: bool) -> Answer {
        if let Some(lock) = self.own(0, start_ts) {
            if lock.asynchronous || !expired {
                return Answer::Locked;
            }
            self.rollback(&[0], start_ts, false);
            return Answer::RolledBack;
        }
        self.decide(0, start_ts)
    }

    fn decide(&mut self, key: usize, start_ts: u64) -> Answer {
        match self.keys[key].committed_by(start_ts) {
            Some(commit_ts) => Answer::Committed(commit_ts),
            None => {
                self.rollback(&[key], start_ts, true);
                Answer::RolledBack
            }
        }
    }

    fn secondaries(&mut self, keys: &[usize], start_ts: u64) -> Answer {
        for key in keys {
            if self.own(*key, start_ts).is_none_or(ModelLock::is_pessimistic) {
                return self.decide(*key, start_ts);
            }
        }
        Answer::Locked
    }

    /// All locks of the transaction: commits or rolls back.
    fn resolve(&mut self, start_ts: u64, commit_ts: u64) -> Answer {
        for key in 0..KEYS.len() {
            let Some(lock) = self.own(key, start_ts).cloned() else {
                continue;
            };
            if commit_ts == 0 {
                // A stray pessimistic lock of a committed transaction: it is committed, and so the whole is refused.
                if let Some(done) = self.keys[key].committed_by(start_ts) {
                    return Answer::Committed(done);
                }
                self.rollback(&[key], start_ts, false);
            } else if lock.is_pessimistic() {
                self.keys[key].lock = None;
            } else if lock.min_commit_ts > commit_ts {
                return Answer::Refused;
            } else {
                self.commit(&[key], start_ts, commit_ts);
            }
        }
        Answer::Done
    }
}

struct Request {
    keys: Vec<usize>,
    start_ts: u64,
    op: Op,
    for_update_ts: u64,
    asynchronous: bool,
    one_phase: bool,
}

/// A model and a store side by side.
struct Pair {
    model: Model,
    store: Store,
    /// What was read, of which key, when: it must stay so.
    read: BTreeMap<(usize, u64), Option<Bytes>>,
}

impl Pair {
    fn step(&mut self, (what, txn, keys, other): Step) {
        let txn = usize::from(txn) % TXNS as usize;
        if self.model.start_ts[txn] == 0 {
            self.model.start_ts[txn] = self.model.timestamp();
        }
        let start_ts = self.model.start_ts[txn];
        let chosen: Vec<usize> = (0..KEYS.len()).filter(|n| keys >> n & 1 == 1).collect();
        let users: Vec<&str> = chosen.iter().map(|n| KEYS[*n]).collect();
        let (wanted, told) = match what % 12 {
            0..=2 => self.prewrite(chosen, start_ts, other),
            3 => {
                // The timestamp that an async commit promised by all its keys, or one of the TSO.
                let own: Vec<&ModelLock> = (0..KEYS.len()).filter_map(|key| self.model.own(key, start_ts)).collect();
                let promised = match own.iter().all(|lock| lock.asynchronous) {
                    true => own.iter().map(|lock| lock.min_commit_ts).max().unwrap_or(0),
                    false => 0,
                };
                let done = self.model.keys.iter().find_map(|key| key.committed_by(start_ts));
                let commit_ts = match (promised, done) {
                    (_, Some(done)) => done,
                    (0, None) => self.model.timestamp(),
                    (promised, None) => promised - u64::from(other % 2 == 1),
                };
                if commit_ts <= start_ts {
                    return;
                }
                let told = answer(self.store.run(commit(&users, start_ts, commit_ts)));
                (self.model.commit(&chosen, start_ts, commit_ts), told)
            }
            4 => {
                let told = answer(self.store.run(rollback(&users, start_ts)));
                (self.model.rollback(&chosen, start_ts, false), told)
            }
            5 if !users.is_empty() => {
                let for_update_ts = if other % 2 == 0 { start_ts } else { self.model.timestamp() };
                let request = pessimistic_lock(&users, start_ts, for_update_ts);
                let told = answer(self.store.run(Command::PessimisticLock(request)));
                (self.model.lock(&chosen, start_ts, for_update_ts), told)
            }
            6 if !users.is_empty() => {
                let for_update_ts = start_ts + u64::from(other % 4);
                let release = Command::PessimisticRollback {
                    keys: super::keys(&users),
                    start_ts: Ts(start_ts),
                    for_update_ts: Ts(for_update_ts),
                    scan: None,
                };
                let told = answer(self.store.run(release));
                (self.model.release(&chosen, start_ts, for_update_ts), told)
            }
            7 => {
                let expired = other % 2 == 0;
                let now = self.model.timestamp();
                let check = CheckTxnStatus {
                    rollback_if_not_exist: true,
                    ..check_status(KEYS[0], start_ts, if expired { Ts::MAX } else { Ts(now) })
                };
                self.model.max_ts = self.model.max_ts.max(if expired { start_ts } else { now });
                let told = answer(self.store.run(Command::CheckTxnStatus(check)));
                (self.model.status(start_ts, expired), told)
            }
            8 => {
                self.model.max_ts = self.model.max_ts.max(start_ts);
                let check = Command::CheckSecondaryLocks {
                    keys: super::keys(&users),
                    start_ts: Ts(start_ts),
                };
                (self.model.secondaries(&chosen, start_ts), answer(self.store.run(check)))
            }
            9 => {
                let done = self.model.keys.iter().find_map(|key| key.committed_by(start_ts));
                let commit_ts = done.unwrap_or(0);
                let resolve = Command::ResolveLock(ResolveLock::Region {
                    txns: vec![(Ts(start_ts), Ts(commit_ts))],
                    found: vec![],
                    scan: None,
                });
                (self.model.resolve(start_ts, commit_ts), answer(self.store.run(resolve)))
            }
            _ => {
                // A new transaction takes the place, or somebody reads now.
                if other % 2 == 0 {
                    self.model.start_ts[txn] = 0;
                    return;
                }
                let ts = self.model.timestamp();
                self.model.max_ts = self.model.max_ts.max(ts);
                self.store.concurrency.raise_max_ts(Ts(ts)).expect("no limit is known");
                for key in 0..KEYS.len() {
                    if let Answer::Value(value) = self.model.keys[key].read(ts, key == 0) {
                        self.read.insert((key, ts), value);
                    }
                }
                return;
            }
        };
        assert_eq!(told, wanted, "transaction {start_ts}");
    }

    fn prewrite(&mut self, mut keys: Vec<usize>, start_ts: u64, other: u8) -> (Answer, Answer) {
        // A client that has committed sends old requests again at most.
        if self.model.keys.iter().any(|key| key.committed_by(start_ts).is_some()) {
            keys.retain(|key| self.model.keys[*key].committed_by(start_ts).is_some());
        }
        let value = if other & 0x40 == 0 {
            Bytes::from(format!("{start_ts}"))
        } else {
            long(start_ts as u8)
        };
        let op = [Op::Put(value), Op::Delete, Op::Lock][usize::from(other & 3) % 3].clone();
        let pessimistic = keys
            .iter()
            .any(|key| self.model.own(*key, start_ts).is_some_and(|lock| lock.for_update_ts > 0));
        let prewritten_elsewhere = (0..KEYS.len()).filter(|key| !keys.contains(key)).any(|key| {
            let own = self.model.own(key, start_ts);
            own.is_some_and(|lock| !lock.is_pessimistic())
        });
        let request = Request {
            op,
            start_ts,
            for_update_ts: if pessimistic || other & 0x20 != 0 { start_ts } else { 0 },
            asynchronous: other & 4 != 0,
            // One phase is for all of a transaction: its `commit_ts` is computed, and locks that it leaves elsewhere would not know.
            one_phase: other & 0x18 == 0x18 && !prewritten_elsewhere,
            keys,
        };
        let mutations = request.keys.iter().map(|key| Mutation {
            check: PessimisticCheck::Locked,
            ..mutation(KEYS[*key], request.op.clone())
        });
        let command = Prewrite {
            primary: KEYS[0].into(),
            for_update_ts: Ts(request.for_update_ts),
            secondaries: request.asynchronous.then(Vec::new),
            one_phase: request.one_phase,
            ..super::prewrite(start_ts, mutations.collect())
        };
        if request.keys.is_empty() {
            return (Answer::Done, Answer::Done);
        }
        let told = answer(self.store.run(Command::Prewrite(command)));
        (self.model.prewrite(&request), told)
    }

    /// Every key at every timestamp, one by one and in scans both ways; and what was read before is read again.
    fn compare(&self) {
        let snapshot = self.store.snapshot();
        for ts in (0..=self.model.tso + 3).chain([u64::MAX]) {
            let options = ReadOptions::snapshot(Ts(ts));
            let wanted: Vec<Answer> = self
                .model
                .keys
                .iter()
                .enumerate()
                .map(|(n, key)| key.read(ts, n == 0))
                .collect();
            for (n, wanted) in wanted.iter().enumerate() {
                let found = mvcc::get(&*snapshot, &key(KEYS[n]), &options);
                let found = match found {
                    Ok(found) => Answer::Value(found.map(|found| found.value)),
                    Err(Error::Locked(_)) => Answer::Locked,
                    Err(other) => panic!("{other}"),
                };
                assert_eq!(&found, wanted, "{} at {ts}", KEYS[n]);
                if let (Some(before), Answer::Value(now)) = (self.read.get(&(n, ts)), &found) {
                    assert_eq!(before, now, "{} at {ts} was read before", KEYS[n]);
                }
            }
            for reverse in [false, true] {
                let walk = Scan {
                    reverse,
                    key_only: false,
                };
                let mut scanner = Scanner::new(&*snapshot, b"", b"", walk, options.clone()).unwrap();
                let mut found = vec![Answer::Value(None); KEYS.len()];
                while let Some((at, value)) = scanner.next().unwrap() {
                    let n = KEYS.iter().position(|user| key(user) == at).unwrap();
                    found[n] = value.map_or(Answer::Locked, |value| Answer::Value(Some(value.value)));
                }
                assert_eq!(found, wanted, "scan at {ts}, reverse: {reverse}");
            }
        }
    }

    /// Values are there exactly for who needs them.
    fn check_storage(&self) {
        for user in KEYS {
            let history = self.store.history(user);
            let lock = history.lock.iter();
            let by_locks = lock.filter(|lock| lock.kind == crate::LockKind::Put && lock.short_value.is_none());
            let records = history.writes.iter();
            let by_records = records.filter(|(_, write)| write.kind == crate::WriteKind::Put && write.short_value.is_none());
            let needed: BTreeSet<Ts> = by_locks
                .map(|lock| lock.start_ts)
                .chain(by_records.map(|(_, write)| write.start_ts))
                .collect();
            let there: BTreeSet<Ts> = history.values.iter().map(|(ts, _)| *ts).collect();
            assert_eq!(there, needed, "long values of {user}");
        }
    }
}

fn answer(outcome: Result<Output>) -> Answer {
    match outcome {
        Ok(Output::Prewritten(prewritten)) if !prewritten.locked.is_empty() => Answer::Locked,
        Ok(Output::Prewritten(prewritten)) => match prewritten.min_commit_ts.max(prewritten.one_phase_commit_ts) {
            Ts(0) => Answer::Done,
            Ts(ts) => Answer::At(ts),
        },
        Ok(Output::Status(status)) => match status {
            TxnStatus::Locked { .. } => Answer::Locked,
            TxnStatus::Committed { commit_ts } => Answer::Committed(commit_ts.0),
            TxnStatus::RolledBack | TxnStatus::TtlExpired | TxnStatus::NotExistRolledBack => Answer::RolledBack,
            TxnStatus::PessimisticReleased | TxnStatus::NotExistIgnored => Answer::Unknown,
        },
        Ok(Output::Committed { commit_ts }) => Answer::At(commit_ts.0),
        Ok(Output::Secondaries(status)) => match status {
            SecondaryStatus::Locked(_) => Answer::Locked,
            SecondaryStatus::Committed { commit_ts } => Answer::Committed(commit_ts.0),
            SecondaryStatus::RolledBack => Answer::RolledBack,
        },
        Ok(Output::Done | Output::PessimisticLocked(_) | Output::HeartBeat { .. } | Output::Collected { .. }) => Answer::Done,
        Err(Error::Locked(_)) => Answer::Locked,
        Err(Error::Committed { commit_ts, .. }) => Answer::Committed(commit_ts.0),
        Err(
            Error::WriteConflict { .. }
            | Error::TxnLockNotFound { .. }
            | Error::PessimisticLockNotFound { .. }
            | Error::PessimisticLockRolledBack { .. }
            | Error::LockKindMismatch { .. }
            | Error::CommitTsExpired { .. },
        ) => Answer::Refused,
        Err(other) => panic!("{other}"),
    }
}

fn check(steps: &[Step], in_memory_pessimistic: bool) {
    let mut store = Store::new();
    store.in_memory_pessimistic = in_memory_pessimistic;
    let mut pair = Pair {
        model: Model::new(),
        store,
        read: BTreeMap::new(),
    };
    for step in steps {
        pair.step(*step);
        if pair
            .model
            .keys
            .iter()
            .any(|key| key.lock.is_some() || !key.commits.is_empty())
            && step.0 % 3 == 0
        {
            pair.compare();
        }
    }
    pair.compare();
    pair.check_storage();
}

fn histories(config: ProptestConfig) -> std::result::Result<(), String> {
    let steps = proptest::collection::vec(any::<Step>(), 1..24);
    let run = |(steps, in_memory): (Vec<Step>, bool)| {
        check(&steps, in_memory);
        Ok(())
    };
    let outcome = TestRunner::new(config).run(&(steps, any::<bool>()), run);
    outcome.map_err(|failure| failure.to_string())
}

#[test]
fn random_histories_come_out_as_the_model_says() {
    let cases = std::env::var("FERRITE_TXN_HISTORIES").map_or(HISTORIES, |told| told.parse().expect("a number of histories"));
    let config = ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
        source_file: Some(file!()),
        ..ProptestConfig::default()
    };
    histories(config).unwrap_or_else(|failure| panic!("{failure}"));
}

/// `cargo test -p ferrite-txn --features planted`: the histories find each of the faults.
#[cfg(feature = "planted")]
#[test]
fn planted_bugs_are_found() {
    use crate::planted::{Bug, plant};
    for bug in [
        Bug::NoWriteConflictCheck,
        Bug::NoLockCheck,
        Bug::LostRollbackRecord,
        Bug::MinCommitTsIgnored,
    ] {
        plant(Some(bug));
        let config = ProptestConfig {
            cases: HISTORIES,
            max_shrink_iters: 0,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let outcome = histories(config);
        plant(None);
        assert!(outcome.is_err(), "{bug:?} is not found");
    }
}
