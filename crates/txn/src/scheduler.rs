//! [`Scheduler`]: runs commands, one at a time per key. A pure state machine: a shell takes snapshots, runs jobs, writes, asks the TSO and
//! the deadlock detector, and keeps the time.
//!
//! A command's way: room, latches of its keys, snapshot, job (the action, outside of the scheduler's own lock), write, answer, latches
//! given on. A pessimistic lock that meets another's waits in its key's queue without latches or room, is woken when that lock goes, and
//! starts anew. A command that walks over a region goes the way once for each batch of keys.
//!
//! Latches are held until replication has answered, even if the client has gone: a write whose outcome is unknown must be settled
//! before another command reads the keys. The writes carry the term of the snapshot, so a store that led, lost and led again cannot
//! overwrite what others wrote in between.

mod flow;
mod job;
mod latch;
mod memory;
mod task;
mod wait;
mod waiting;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, RegionId, Ts};
use bytes::Bytes;
use engine::kv::{self, Modify, SnapshotRef};

use crate::command::{Command, Output};
use crate::concurrency::Concurrency;
use crate::error::{Result, WaitFor};
use crate::metrics;

pub use job::{Job, Ran};
use latch::Latches;
pub use memory::InMemory;
use memory::{MemoryLocks, Reign};
use task::Task;
use wait::Queues;

/// How often a wait for a lock is looked at again, and told the deadlock detector again, though nothing was seen to happen.
pub const WAIT_RETOLD: Duration = Duration::from_secs(1);

/// One command under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// Called exactly once with the outcome, on any thread; must not block.
pub type Reply = Box<dyn FnOnce(Result<Output>) + Send>;

/// What reaches the scheduler.
pub enum Event {
    /// A client's command. Answered once, by [`Effects::answers`], at the latest soon after `deadline`.
    Submit {
        ctx: kv::Context,
        command: Command,
        deadline: MonoTime,
        reply: Reply,
    },
    /// Answers [`Effects::snapshots`].
    Snapshot {
        task: TaskId,
        result: std::result::Result<SnapshotRef, kv::Error>,
    },
    /// A job of [`Effects::jobs`] was run.
    Ran(Ran),
    /// Answers [`Effects::writes`].
    Written {
        task: TaskId,
        result: std::result::Result<(), kv::Error>,
    },
    /// Answers [`Effects::timestamps`]: a timestamp that the TSO gave after it was asked; `None` when it did not answer.
    Timestamp { task: TaskId, ts: Option<Ts> },
    /// Answers [`Effects::detect`] when the wait would close a cycle.
    Deadlock(Deadlock),
    /// Time passed; due at [`Effects::wake_at`] at the latest.
    Tick,
}

/// What the shell must do. Order within a list is the order in which things became known.
#[must_use] // dropping an effect loses a write or an answer
#[derive(Default)]
pub struct Effects {
    /// Take a snapshot of a region: linearizable, as of now or later. Each is answered by one event, whatever happens.
    pub snapshots: Vec<(TaskId, kv::Context)>,
    /// Run them outside of any lock, on any thread: [`Job::run`].
    pub jobs: Vec<Job>,
    /// Replicate, with `ctx.term` set so that only the leader that took the snapshot may. Each is answered by one event, once it is
    /// settled: latches are held until then.
    pub writes: Vec<WriteTask>,
    /// Ask the TSO for a timestamp: `max_ts` must pass it before this leader answers its first async commit. Each is answered by one event.
    pub timestamps: Vec<TaskId>,
    /// Tell the deadlock detector. May be lost.
    pub detect: Vec<Detect>,
    /// Give them outside of any lock: [`Answer::give`].
    pub answers: Vec<Answer>,
    /// When the next [`Event::Tick`] is due; replaces what was said before.
    pub wake_at: Option<MonoTime>,
}

/// Changes to replicate as one entry.
pub struct WriteTask {
    pub task: TaskId,
    pub ctx: kv::Context,
    pub changes: Vec<Modify>,
    pub deadline: MonoTime,
}

/// An outcome on its way to the client.
pub struct Answer {
    reply: Reply,
    result: Result<Output>,
}

impl Answer {
    pub fn give(self) {
        (self.reply)(self.result);
    }
}

/// For the deadlock detector of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Detect {
    /// A transaction begins to wait, or is told again to be waiting: the detector may have moved or forgotten.
    Wait(WaitFor),
    /// It waits no longer for that one over that key.
    Unwait(WaitFor),
}

/// A wait that would close a cycle.
#[derive(Clone, Debug, PartialEq)]
pub struct Deadlock {
    pub wait: WaitFor,
    /// Of the key over which the waiter itself is waited for.
    pub deadlock_key_hash: u64,
    /// User key.
    pub deadlock_key: Bytes,
    /// From the holder back to the waiter; the last one is `wait`.
    pub chain: Vec<WaitFor>,
}

/// Bounds of the scheduler.
#[derive(Clone, Debug)]
pub struct Config {
    /// Commands under way at once, those that wait for a lock not counted. Further ones queue.
    pub commands_max: usize,
    /// Bytes of their keys and values; a single larger command still goes, alone.
    pub bytes_max: u64,
    /// Commands that queue for room. Further ones are refused as busy.
    pub queue_max: usize,
    /// How long a command queues for room, or is tried again when queues below are full, before it is refused as busy.
    pub busy_wait: Duration,
    /// How long a pessimistic lock waits for another's at most, and if its client does not say. Short, as only its client can find out that
    /// the other is dead.
    pub lock_wait_max: Duration,
    /// Pessimistic locks that wait at once. Further ones are answered at once what they would wait for.
    pub lock_waiters_max: usize,
    /// When a waiter is turned away with a conflict, the next one is woken so much later: its client takes a newer timestamp and comes again.
    pub conflict_pause: Duration,
    /// Keep pessimistic locks in memory where there is room.
    pub in_memory_pessimistic: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            commands_max: 8192,
            bytes_max: 128 << 20,
            queue_max: 16384,
            busy_wait: Duration::from_millis(500),
            lock_wait_max: Duration::from_secs(1),
            lock_waiters_max: 10_000,
            conflict_pause: Duration::from_millis(10),
            in_memory_pessimistic: true,
        }
    }
}

/// See the module. One per store.
pub struct Scheduler {
    config: Config,
    concurrency: Arc<Concurrency>,
    next_task: u64,
    tasks: HashMap<TaskId, Task>,
    latches: Latches,
    memory: MemoryLocks,
    /// Waits for others' locks.
    waits: Queues,
    /// Waits for room, in order of arrival.
    queue: BTreeSet<TaskId>,
    /// Commands and bytes under way.
    room: Room,
    /// Term and version for which `max_ts` has passed all that earlier leaders read at. An entry for each region that ever was led here.
    synced: BTreeMap<RegionId, (u64, u64)>,
    /// Who waits for a timestamp; the first one asked.
    syncing: BTreeMap<Reign, Vec<TaskId>>,
    /// When tasks are due, at most one entry each.
    alarms: BTreeSet<(MonoTime, TaskId)>,
}

#[derive(Default)]
struct Room {
    commands: usize,
    bytes: u64,
}

impl Scheduler {
    pub fn new(config: Config, concurrency: Arc<Concurrency>) -> Scheduler {
        Scheduler {
            config,
            concurrency,
            next_task: 0,
            tasks: HashMap::new(),
            latches: Latches::default(),
            memory: MemoryLocks::default(),
            waits: Queues::default(),
            queue: BTreeSet::new(),
            room: Room::default(),
            synced: BTreeMap::new(),
            syncing: BTreeMap::new(),
            alarms: BTreeSet::new(),
        }
    }

    /// The same state and events give the same effects. Cost grows with the keys of the command, not with the commands under way.
    pub fn step(&mut self, now: MonoTime, event: Event) -> Effects {
        let mut fx = Effects::default();
        match event {
            Event::Submit {
                ctx,
                command,
                deadline,
                reply,
            } => self.on_submit(now, Task::new(now, ctx, command, deadline, reply), &mut fx),
            Event::Snapshot { task, result } => self.on_snapshot(now, task, result, &mut fx),
            Event::Ran(ran) => self.on_ran(now, ran, &mut fx),
            Event::Written { task, result } => self.on_written(now, task, result, &mut fx),
            Event::Timestamp { task, ts } => self.on_timestamp(now, task, ts, &mut fx),
            Event::Deadlock(deadlock) => self.on_deadlock(now, deadlock, &mut fx),
            Event::Tick => {}
        }
        self.on_time(now, &mut fx);
        fx.wake_at = self.alarms.first().map(|(at, _)| *at);
        metrics::UNDER_WAY.set(self.room.commands as i64);
        metrics::QUEUED.set(self.queue.len() as i64);
        metrics::LOCK_WAITERS.set(self.waits.len() as i64);
        fx
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Pessimistic locks kept in memory of `region`, in `[start, end)`, encoded; an empty end is none. To see every lock of a range, take
    /// these first and a snapshot afterwards: locks move from memory to the family, never back.
    pub fn memory_locks(&self, region: RegionId, start: &[u8], end: &[u8]) -> InMemory {
        self.memory.in_range(region, start, end)
    }

    /// Who waits for whom on this store, in order of keys.
    pub fn waits(&self) -> Vec<WaitFor> {
        self.waits.all().filter_map(|task| self.tasks[&task].wait_for()).collect()
    }
}
