//! [`Task`]: one command on its way.

use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, Ts};
use engine::kv::{self, SnapshotRef};

use super::{Reign, Reply};
use crate::action::Released;
use crate::command::{Command, Output, Wait};
use crate::concurrency::Guard;
use crate::error::WaitFor;
use crate::key::Key;
use crate::lock::{Lock, Locked};

/// First pause before a refused snapshot or write is tried again; doubles from try to try.
const PAUSE: Duration = Duration::from_millis(2);

/// Where a command is.
pub enum State {
    /// Waits for room, until then at the latest.
    Queued { until: MonoTime },
    /// Waits for latches.
    Latching,
    /// Asked for a snapshot.
    Snapshot,
    /// Has a snapshot, waits until `max_ts` is synchronised.
    Syncing(SnapshotRef),
    /// Its job is out.
    Running,
    /// Its write is out.
    Writing(Box<Writing>),
    /// Was refused by a full queue; tried again then.
    Paused { until: MonoTime },
    /// Waits for another's lock.
    Waiting,
}

/// What follows when a write is done.
pub struct Writing {
    pub output: Output,
    pub memory: Vec<(Key, Option<Lock>)>,
    pub released: Vec<Released>,
    /// Locks laid on keys for which others wait.
    pub taken: Vec<(Key, Lock)>,
    pub next: Option<Command>,
    /// Readers must meet the locks until snapshots show them.
    pub guard: Option<Guard>,
}

/// A pessimistic lock's wait, from its first to its last.
pub struct LockWait {
    /// The key it waits for, or waited for when it was woken.
    pub key: Key,
    pub locked: Box<Locked>,
    /// When it gives up.
    pub until: MonoTime,
    /// When it is looked at again.
    pub again: MonoTime,
    /// What the deadlock detector was told last.
    pub told: Option<WaitFor>,
    /// Whether it is in its key's queue.
    pub queued: bool,
    /// The lock is free as far as known, and it is this one's to take. If it does not, the next one must be woken.
    pub has_turn: bool,
}

pub struct Task {
    pub ctx: kv::Context,
    pub command: Arc<Command>,
    pub deadline: MonoTime,
    /// Gone once answered: the task may still be held by what it asked for.
    pub reply: Option<Reply>,
    /// Bytes of the command as submitted.
    pub bytes: u64,
    /// Whether it is counted as under way.
    pub admitted: bool,
    pub state: State,
    /// Under which its last snapshot was taken.
    pub reign: Reign,
    /// Pause after the next refusal, and when to give up; once it was refused.
    pub patience: Option<(Duration, MonoTime)>,
    pub lock_wait: Option<LockWait>,
    /// Its entry among the alarms.
    pub alarm: Option<MonoTime>,
    pub submitted: MonoTime,
    /// When `state` began.
    pub since: MonoTime,
}

impl Task {
    pub fn new(now: MonoTime, ctx: kv::Context, command: Command, deadline: MonoTime, reply: Reply) -> Task {
        Task {
            ctx,
            bytes: command.bytes(),
            command: Arc::new(command),
            deadline,
            reply: Some(reply),
            admitted: false,
            state: State::Latching,
            reign: Reign::default(),
            patience: None,
            lock_wait: None,
            alarm: None,
            submitted: now,
            since: now,
        }
    }

    /// When something is due by itself.
    pub fn due(&self) -> Option<MonoTime> {
        let until = match &self.state {
            State::Queued { until } | State::Paused { until } => *until,
            State::Waiting => self
                .lock_wait
                .as_ref()
                .map_or(self.deadline, |wait| wait.again.min(wait.until)),
            _ => self.deadline,
        };
        // Once answered, it only waits for what it asked for.
        self.reply.is_some().then(|| until.min(self.deadline))
    }

    /// Pauses once more; until when, if there is time left.
    pub fn pause(&mut self, now: MonoTime, busy_wait: Duration) -> Option<MonoTime> {
        let (pause, limit) = self.patience.unwrap_or((PAUSE, now + busy_wait));
        self.patience = Some((pause * 2, limit));
        let until = now + pause;
        (until <= limit.min(self.deadline) && self.reply.is_some()).then_some(until)
    }

    /// Whether its prewrite fixes a `min_commit_ts` or `commit_ts` by `max_ts`.
    pub fn needs_max_ts(&self) -> bool {
        match &*self.command {
            Command::Prewrite(prewrite) => prewrite.one_phase || prewrite.secondaries.is_some(),
            _ => false,
        }
    }

    /// How long it may wait for a lock from its first meeting on.
    pub fn lock_wait_max(&self, max: Duration) -> Option<Duration> {
        match &*self.command {
            Command::PessimisticLock(lock) => match lock.wait {
                Wait::No => None,
                Wait::Default => Some(max),
                Wait::Millis(millis) => Some(max.min(Duration::from_millis(millis))),
            },
            _ => None,
        }
    }

    /// The edge of its wait, unless the transaction holds no lock that another could wait for.
    pub fn wait_for(&self) -> Option<WaitFor> {
        let (Command::PessimisticLock(lock), Some(wait)) = (&*self.command, &self.lock_wait) else {
            return None;
        };
        Some(WaitFor {
            waiter: lock.start_ts,
            holder: wait.locked.lock.start_ts,
            // Keys were encoded by us; a malformed one has met no lock.
            key: wait.key.user().ok()?,
            key_hash: hash(wait.key.encoded()),
            resource_group_tag: lock.resource_group_tag.clone(),
        })
    }

    /// Whether its wait could close a circle.
    pub fn may_deadlock(&self) -> bool {
        matches!(&*self.command, Command::PessimisticLock(lock) if !lock.is_first_lock)
    }

    pub fn start_ts(&self) -> Ts {
        match &*self.command {
            Command::PessimisticLock(lock) => lock.start_ts,
            _ => Ts(0),
        }
    }
}

/// FNV-1a. The same on all stores and releases: the hash names a key in messages between them.
fn hash(bytes: &[u8]) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix)
}
