//! Pessimistic locks that wait for others'.
//!
//! Whoever waits first in a key's queue when the key's lock goes has the turn: it starts anew, ahead of newcomers at the latch. It keeps the
//! turn until it has the lock, or passes it on; so either the key is locked, or one of those who wait for it is on its way.

use base::MonoTime;

use super::task::{LockWait, State, Task};
use super::{Deadlock, Detect, Effects, Scheduler, TaskId, WAIT_RETOLD};
use crate::error::{Error, WaitFor};
use crate::key::Key;
use crate::lock::{Lock, Locked};
use crate::metrics;

impl Scheduler {
    /// The command met another's lock: waits for it, or is answered what it met.
    pub(super) fn on_locked(&mut self, now: MonoTime, id: TaskId, locked: Box<Locked>, fx: &mut Effects) {
        let is_full = self.waits.len() >= self.config.lock_waiters_max;
        let lock_wait_max = self.config.lock_wait_max;
        let task = self.task(id);
        let before = task.lock_wait.take();
        let until = match &before {
            Some(before) => Some(before.until),
            None if is_full => None,
            None => task.lock_wait_max(lock_wait_max).map(|max| now + max),
        };
        let Some(until) = until.filter(|until| *until > now) else {
            task.lock_wait = before;
            return self.fail(now, id, Error::Locked(locked), fx);
        };
        if before.is_none() {
            metrics::LOCK_WAITS.inc();
        }
        let key = locked.key.clone();
        let passed = before.as_ref().filter(|before| before.has_turn && before.key != key);
        let passed = passed.map(|before| before.key.clone());
        task.lock_wait = Some(LockWait {
            key: key.clone(),
            locked,
            until,
            again: now + WAIT_RETOLD,
            told: before.and_then(|before| before.told),
            queued: true,
            has_turn: false,
        });
        let start_ts = task.start_ts();
        self.waits.enter(key, start_ts, id);
        self.set_state(now, id, State::Waiting);
        self.tell(id, fx);
        if let Some(key) = passed {
            self.pass_turn(now, &key, false, fx);
        }
        let task = self.task(id);
        let room = std::mem::take(&mut task.admitted).then_some(task.bytes);
        self.give_back(now, id, room, fx);
    }

    /// A lock is gone: the first one of those who wait for it goes on.
    pub(super) fn on_released(&mut self, now: MonoTime, key: &Key, fx: &mut Effects) {
        if let Some(first) = self.waits.first(key) {
            self.leave_queue(first);
            set_told(self.task(first), None, fx);
            self.wake(now, first, fx);
        }
    }

    /// Who had the turn did not take the lock: the next one may.
    pub(super) fn pass_turn(&mut self, now: MonoTime, key: &Key, after_conflict: bool, fx: &mut Effects) {
        let Some(next) = self.waits.first(key).filter(|_| after_conflict) else {
            return self.on_released(now, key, fx);
        };
        let pause = self.config.conflict_pause;
        if let Some(wait) = &mut self.task(next).lock_wait {
            wait.has_turn = true;
            wait.again = wait.again.min(now + pause);
        }
        self.arm(next);
    }

    /// `by` took the lock of `key`; those who wait for it wait for that transaction now.
    pub(super) fn on_taken(&mut self, now: MonoTime, by: TaskId, key: &Key, lock: &Lock, fx: &mut Effects) {
        if let Some(wait) = self.task(by).lock_wait.as_mut().filter(|wait| wait.key == *key) {
            wait.has_turn = false;
        }
        let waiting: Vec<TaskId> = self.waits.of(key).collect();
        for id in waiting {
            let task = self.task(id);
            let own = task.start_ts() == lock.start_ts;
            let Some(wait) = &mut task.lock_wait else { continue };
            wait.locked.lock = lock.clone();
            wait.has_turn = false;
            // Another request of the same transaction has it: no reason to wait.
            wait.again = if own { now } else { now + WAIT_RETOLD };
            self.arm(id);
            self.tell(id, fx);
        }
    }

    pub(super) fn on_deadlock(&mut self, now: MonoTime, deadlock: Deadlock, fx: &mut Effects) {
        let Deadlock {
            wait,
            deadlock_key_hash,
            deadlock_key,
            chain,
        } = deadlock;
        let key = Key::from_user(&wait.key);
        let meant = |told: &WaitFor| (told.waiter, told.holder) == (wait.waiter, wait.holder);
        let told = |id: &TaskId| self.tasks[id].lock_wait.as_ref().and_then(|wait| wait.told.as_ref());
        let victims: Vec<TaskId> = self.waits.of(&key).filter(|id| told(id).is_some_and(meant)).collect();
        for id in victims {
            metrics::DEADLOCKS.inc();
            let error = Error::Deadlock {
                start_ts: wait.waiter,
                holder: wait.holder,
                key: key.clone(),
                deadlock_key_hash,
                deadlock_key: deadlock_key.clone(),
                chain: chain.clone(),
            };
            self.leave_queue(id);
            self.fail(now, id, error, fx);
        }
    }

    /// A wait is over, or due to be looked at again.
    pub(super) fn on_wait_alarm(&mut self, now: MonoTime, id: TaskId, fx: &mut Effects) {
        self.leave_queue(id);
        let task = self.task(id);
        let wait = task.lock_wait.as_ref().expect("it waits");
        if now < wait.until.min(task.deadline) {
            return self.wake(now, id, fx);
        }
        let locked = wait.locked.clone();
        self.fail(now, id, Error::Locked(locked), fx);
    }

    fn leave_queue(&mut self, id: TaskId) {
        let task = self.tasks.get_mut(&id).expect("under way");
        let start_ts = task.start_ts();
        if let Some(wait) = task.lock_wait.as_mut().filter(|wait| wait.queued) {
            wait.queued = false;
            self.waits.leave(&wait.key, start_ts, id);
        }
    }

    /// Starts anew. It has left its queue.
    fn wake(&mut self, now: MonoTime, id: TaskId, fx: &mut Effects) {
        let task = self.task(id);
        metrics::LOCK_WAIT.observe(now.since(task.since).as_secs_f64());
        task.lock_wait.as_mut().expect("it waited").has_turn = true;
        self.take_room(id);
        self.start(now, id, true, fx);
    }

    /// Tells the deadlock detector of the wait, again if it knows.
    fn tell(&mut self, id: TaskId, fx: &mut Effects) {
        let task = self.task(id);
        let edge = task
            .wait_for()
            .filter(|edge| task.may_deadlock() && edge.waiter != edge.holder);
        set_told(task, edge, fx);
    }

    /// Tells the deadlock detector that nothing is waited for any more.
    pub(super) fn untell(&mut self, id: TaskId, fx: &mut Effects) {
        set_told(self.task(id), None, fx);
    }
}

fn set_told(task: &mut Task, edge: Option<WaitFor>, fx: &mut Effects) {
    let Some(wait) = &mut task.lock_wait else { return };
    if let Some(old) = wait.told.take().filter(|old| Some(old) != edge.as_ref()) {
        fx.detect.push(Detect::Unwait(old));
    }
    if let Some(edge) = &edge {
        fx.detect.push(Detect::Wait(edge.clone()));
    }
    wait.told = edge;
}
