//! [`Scheduler`]: runs commands, one at a time per key. A pure state machine: a shell takes snapshots, runs jobs, writes, asks the TSO and
//! the deadlock detector, and keeps the time.
//!
//! A command's way: latches of its keys, snapshot, job (the action, outside of the scheduler's own lock), write, answer, latches given on.
//! A pessimistic lock that meets another's waits in its key's queue without latches, is woken when that lock goes, and starts anew.

use base::{MonoTime, Ts};
use bytes::Bytes;
use engine::kv::{self, Modify, SnapshotRef};

use crate::command::{Command, Output};
use crate::error::{Result, WaitFor};

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
    /// Take a snapshot of a region: linearizable, as of now or later.
    pub snapshots: Vec<(TaskId, kv::Context)>,
    /// Run them outside of any lock, on any thread: [`Job::run`].
    pub jobs: Vec<Job>,
    /// Replicate, with `ctx.term` set so that only the leader that took the snapshot may.
    pub writes: Vec<WriteTask>,
    /// Ask the TSO for a timestamp: `max_ts` must pass it before this leader answers its first async commit.
    pub timestamps: Vec<TaskId>,
    /// Tell the deadlock detector.
    pub detect: Vec<Detect>,
    /// Give them outside of any lock: [`Answer::give`].
    pub answers: Vec<Answer>,
    /// When the next [`Event::Tick`] is due.
    pub wake_at: Option<MonoTime>,
}

pub struct WriteTask {
    pub task: TaskId,
    pub ctx: kv::Context,
    pub changes: Vec<Modify>,
    pub deadline: MonoTime,
}

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

/// An action with everything that it reads.
pub struct Job {
    pub task: TaskId,
}

impl Job {
    /// Pure but for the table of locks in memory, which a prewrite of an async commit enters.
    pub fn run(self) -> Ran {
        todo!("scheduler")
    }
}

/// What a job came to.
pub struct Ran {
    pub task: TaskId,
}
