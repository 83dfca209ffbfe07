//! [`Driver`]: carries out a scheduler's effects over a memory store, on one thread, at a time that tests set. Writes and timestamps can
//! be held back, and leadership can change.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, Ts};
use bytes::Bytes;
use engine::kv::{self, Kv, MemKv, Modify, RegionSnapshot, SnapshotRef, memory};
use engine::{Cf, Cursor};
use parking_lot::Mutex;
use proto::metapb::Region;

use crate::command::*;
use crate::concurrency::Concurrency;
use crate::deadlock::Detector;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::mvcc::{self, ReadOptions};
use crate::scheduler::{Config, Detect, Effects, Event, Scheduler, TaskId, WriteTask};

/// How long clients wait.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Numbers a command submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call(u64);

pub struct Driver {
    pub scheduler: Scheduler,
    pub concurrency: Arc<Concurrency>,
    pub kv: Arc<MemKv>,
    pub now: MonoTime,
    /// Of the region's leader, which is this store.
    pub term: u64,
    /// Answered to those who ask; none: they wait in `asked`.
    pub tso: Option<Ts>,
    pub asked: Vec<TaskId>,
    pub hold_writes: bool,
    pub held: VecDeque<WriteTask>,
    pub detector: Detector,
    pub told: Vec<Detect>,
    answers: Arc<Mutex<BTreeMap<u64, Result<Output>>>>,
    calls: u64,
    wake_at: Option<MonoTime>,
}

impl Driver {
    pub fn new(config: Config) -> Driver {
        let concurrency = Arc::new(Concurrency::new(Ts(1)));
        Driver {
            scheduler: Scheduler::new(config, concurrency.clone()),
            concurrency,
            kv: Arc::new(MemKv::whole()),
            now: MonoTime(1_000_000_000),
            term: 6,
            tso: Some(Ts(1)),
            asked: Vec::new(),
            hold_writes: false,
            held: VecDeque::new(),
            detector: Detector::default(),
            told: Vec::new(),
            answers: Arc::default(),
            calls: 0,
            wake_at: None,
        }
    }

    pub fn ctx() -> kv::Context {
        memory::context(1)
    }

    pub fn submit(&mut self, command: Command) -> Call {
        let call = Call(self.calls);
        self.calls += 1;
        let answers = self.answers.clone();
        let reply = move |result| {
            let before = answers.lock().insert(call.0, result);
            assert!(before.is_none(), "{call:?} was answered twice");
        };
        self.step(Event::Submit {
            ctx: Driver::ctx(),
            command,
            deadline: self.now + DEADLINE,
            reply: Box::new(reply),
        });
        call
    }

    /// The answer, once.
    pub fn answer(&mut self, call: Call) -> Option<Result<Output>> {
        self.answers.lock().remove(&call.0)
    }

    pub fn is_open(&self, call: Call) -> bool {
        !self.answers.lock().contains_key(&call.0)
    }

    pub fn try_run(&mut self, command: Command) -> Result<Output> {
        let call = self.submit(command);
        self.answer(call).expect("nothing is held back")
    }

    pub fn must(&mut self, command: Command) -> Output {
        self.try_run(command).expect("the command can be done")
    }

    pub fn advance(&mut self, millis: u64) {
        let until = self.now + Duration::from_millis(millis);
        while let Some(at) = self.wake_at.filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.step(Event::Tick);
        }
        self.now = until;
    }

    pub fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let effects = self.scheduler.step(self.now, event);
            self.carry_out(effects, &mut events);
        }
    }

    fn carry_out(&mut self, effects: Effects, events: &mut VecDeque<Event>) {
        self.wake_at = effects.wake_at;
        effects.answers.into_iter().for_each(|answer| answer.give());
        for (task, ctx) in effects.snapshots {
            let result = self.snapshot(&ctx);
            events.push_back(Event::Snapshot { task, result });
        }
        events.extend(effects.jobs.into_iter().map(|job| Event::Ran(job.run())));
        for write in effects.writes {
            match self.hold_writes {
                true => self.held.push_back(write),
                false => events.push_back(self.write(write)),
            }
        }
        for task in effects.timestamps {
            match self.tso {
                Some(ts) => events.push_back(Event::Timestamp { task, ts: Some(ts) }),
                None => self.asked.push(task),
            }
        }
        for detect in effects.detect {
            self.told.push(detect.clone());
            match detect {
                Detect::Wait(wait) => events.extend(self.detector.detect(self.now, &wait).map(Event::Deadlock)),
                Detect::Unwait(wait) => self.detector.unwait(&wait),
            }
        }
    }

    fn snapshot(&self, ctx: &kv::Context) -> std::result::Result<SnapshotRef, kv::Error> {
        let slot = Arc::new(Mutex::new(None));
        let filled = slot.clone();
        let reply = move |result| *filled.lock() = Some(result);
        self.kv.snapshot(ctx, self.now, Box::new(reply));
        let inner = slot.lock().take().expect("memory answers at once")?;
        let term = self.term;
        Ok(Arc::new(View { inner, term }))
    }

    fn write(&self, write: WriteTask) -> Event {
        let slot = Arc::new(Mutex::new(None));
        let filled = slot.clone();
        if write.ctx.term == self.term {
            let reply = move |result| *filled.lock() = Some(result);
            self.kv.write(&write.ctx, write.changes, write.deadline, Box::new(reply));
        } else {
            *slot.lock() = Some(Err(kv::Error::StaleCommand));
        }
        let result = slot.lock().take().expect("memory answers at once");
        Event::Written {
            task: write.task,
            result,
        }
    }

    /// Does the oldest write held back.
    pub fn let_write(&mut self) {
        let write = self.held.pop_front().expect("a write is held back");
        let event = self.write(write);
        self.step(event);
    }

    /// Answers the oldest write held back with an error; whether it is done is up to `done`.
    pub fn fail_write(&mut self, error: kv::Error, done: bool) {
        let write = self.held.pop_front().expect("a write is held back");
        let task = write.task;
        if done {
            drop(self.write(write));
        }
        self.step(Event::Written {
            task,
            result: Err(error),
        });
    }

    /// Does all writes from now on, those held back first.
    pub fn let_all(&mut self) {
        self.hold_writes = false;
        while !self.held.is_empty() {
            self.let_write();
        }
    }

    /// Writes past the scheduler.
    pub fn store(&self, changes: Vec<Modify>) {
        let done = |result: std::result::Result<(), kv::Error>| result.expect("memory takes it");
        self.kv.write(&Driver::ctx(), changes, self.now + DEADLINE, Box::new(done));
    }

    pub fn view(&self) -> SnapshotRef {
        self.snapshot(&Driver::ctx()).expect("memory has the region")
    }

    pub fn read(&self, user: &str, ts: u64) -> Result<Option<Bytes>> {
        let (key, options) = (key(user), ReadOptions::snapshot(Ts(ts)));
        self.concurrency.raise_max_ts(Ts(ts))?;
        self.concurrency.check_key(&key, &options)?;
        let found = mvcc::get(&*self.view(), &key, &options)?;
        Ok(found.map(|found| found.value))
    }
}

/// A snapshot of another term.
struct View {
    inner: SnapshotRef,
    term: u64,
}

impl RegionSnapshot for View {
    fn region(&self) -> &Region {
        self.inner.region()
    }

    fn term(&self) -> u64 {
        self.term
    }

    fn applied(&self) -> engine::Result<u64> {
        self.inner.applied()
    }

    fn get(&self, cf: Cf, key: &[u8]) -> engine::Result<Option<Bytes>> {
        self.inner.get(cf, key)
    }

    fn cursor(&self, cf: Cf, start: &[u8], end: &[u8]) -> engine::Result<Box<dyn Cursor>> {
        self.inner.cursor(cf, start, end)
    }
}

pub fn key(user: &str) -> Key {
    Key::from_user(user.as_bytes())
}

/// Puts `v<start_ts>` to keys, the first of which is the primary.
pub fn prewrite(start_ts: u64, users: &[&str]) -> Prewrite {
    let mutation = |user: &&str| Mutation {
        key: key(user),
        op: Op::Put(format!("v{start_ts}").into()),
        assertion: Assertion::None,
        check: PessimisticCheck::Skip,
        expected_for_update_ts: None,
    };
    Prewrite {
        mutations: users.iter().map(mutation).collect(),
        primary: Bytes::copy_from_slice(users[0].as_bytes()),
        start_ts: Ts(start_ts),
        ttl_ms: 3000,
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

/// Prewrites what was locked before.
pub fn prewrite_locked(start_ts: u64, for_update_ts: u64, users: &[&str]) -> Command {
    let mut prewrite = prewrite(start_ts, users);
    prewrite.for_update_ts = Ts(for_update_ts);
    prewrite
        .mutations
        .iter_mut()
        .for_each(|mutation| mutation.check = PessimisticCheck::Locked);
    Command::Prewrite(prewrite)
}

pub fn commit(start_ts: u64, commit_ts: u64, users: &[&str]) -> Command {
    Command::Commit(Commit {
        keys: users.iter().map(|user| key(user)).collect(),
        start_ts: Ts(start_ts),
        commit_ts: Ts(commit_ts),
    })
}

/// A pessimistic lock at `for_update_ts = start_ts` that waits as long as it may.
pub fn lock(start_ts: u64, users: &[&str]) -> PessimisticLock {
    let lock_key = |user: &&str| LockKey {
        key: key(user),
        should_not_exist: false,
    };
    PessimisticLock {
        keys: users.iter().map(lock_key).collect(),
        primary: Bytes::copy_from_slice(users[0].as_bytes()),
        start_ts: Ts(start_ts),
        ttl_ms: 3000,
        for_update_ts: Ts(start_ts),
        is_first_lock: false,
        wait: Wait::Default,
        return_values: false,
        check_existence: false,
        lock_only_if_exists: false,
        min_commit_ts: Ts(0),
        allow_conflict: false,
        resource_group_tag: Bytes::new(),
    }
}

pub fn unlock(start_ts: u64, users: &[&str]) -> Command {
    Command::PessimisticRollback {
        keys: users.iter().map(|user| key(user)).collect(),
        start_ts: Ts(start_ts),
        for_update_ts: Ts(start_ts),
        scan: None,
    }
}

/// Whose lock an error speaks of.
pub fn holder(result: Option<Result<Output>>) -> Ts {
    match result.expect("answered") {
        Err(Error::Locked(locked)) => locked.lock.start_ts,
        other => panic!("wanted a lock in the way, got {other:?}"),
    }
}
