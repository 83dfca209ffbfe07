//! The way of a command through room, latches, snapshot, job and write.

use base::{MonoTime, Ts};
use engine::Cf;
use engine::kv::{self, Modify, SnapshotRef};

use super::latch::Claim;
use super::task::{State, Task, Writing};
use super::{Answer, Effects, Job, Ran, Reign, Scheduler, TaskId, WriteTask};
use crate::action::Outcome;
use crate::command::{Command, Output};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::lock::Lock;
use crate::metrics;
use crate::planted::{self, Bug};

type KvResult<T> = std::result::Result<T, kv::Error>;

impl Scheduler {
    pub(super) fn on_submit(&mut self, now: MonoTime, task: Task, fx: &mut Effects) {
        let id = TaskId(self.next_task);
        self.next_task += 1;
        let fits = self.queue.is_empty() && self.has_room(task.bytes);
        let may_queue = self.queue.len() < self.config.queue_max;
        self.tasks.insert(id, task);
        if fits {
            self.admit(now, id, fx);
        } else if may_queue {
            self.queue.insert(id);
            let until = now + self.config.busy_wait;
            self.set_state(now, id, State::Queued { until });
        } else {
            self.fail(now, id, busy("too many commands wait"), fx);
        }
    }

    fn has_room(&self, bytes: u64) -> bool {
        let fits = self.room.bytes + bytes <= self.config.bytes_max || self.room.commands == 0;
        fits && self.room.commands < self.config.commands_max
    }

    fn admit(&mut self, now: MonoTime, id: TaskId, fx: &mut Effects) {
        self.take_room(id);
        self.start(now, id, false, fx);
    }

    pub(super) fn take_room(&mut self, id: TaskId) {
        let task = self.task(id);
        task.admitted = true;
        let bytes = task.bytes;
        self.room.commands += 1;
        self.room.bytes += bytes;
    }

    /// Gives back what the task holds, and lets others go on. It may be in the map still, or not any more.
    pub(super) fn give_back(&mut self, now: MonoTime, id: TaskId, room: Option<u64>, fx: &mut Effects) {
        for next in self.latches.release(id) {
            metrics::LATCH_WAIT.observe(now.since(self.task(next).since).as_secs_f64());
            self.take_snapshot(now, next, fx);
        }
        let Some(bytes) = room else { return };
        self.room.commands -= 1;
        self.room.bytes -= bytes;
        while let Some(&next) = self.queue.first()
            && self.has_room(self.tasks[&next].bytes)
        {
            self.queue.remove(&next);
            self.admit(now, next, fx);
        }
    }

    /// Begins with the command, or with its next batch. Who was woken is urgent.
    pub(super) fn start(&mut self, now: MonoTime, id: TaskId, urgent: bool, fx: &mut Effects) {
        let task = self.task(id);
        let region = task.ctx.region;
        let keys: Vec<Key> = task.command.keys().cloned().collect();
        let claim = match &*task.command {
            Command::DeleteRange { .. } => Claim::range(region),
            // It only looks.
            _ if keys.is_empty() => return self.take_snapshot(now, id, fx),
            _ => Claim::keys(region, keys, urgent),
        };
        match self.latches.claim(id, claim) {
            true => self.take_snapshot(now, id, fx),
            false => self.set_state(now, id, State::Latching),
        }
    }

    fn take_snapshot(&mut self, now: MonoTime, id: TaskId, fx: &mut Effects) {
        self.set_state(now, id, State::Snapshot);
        fx.snapshots.push((id, self.task(id).ctx.clone()));
    }

    pub(super) fn on_snapshot(&mut self, now: MonoTime, id: TaskId, result: KvResult<SnapshotRef>, fx: &mut Effects) {
        let snapshot = match result {
            _ if self.is_answered(id) => return self.end(now, id, fx),
            Ok(snapshot) => snapshot,
            Err(error) => return self.pause_or_fail(now, id, false, error, fx),
        };
        let reign = Reign::of(&*snapshot);
        let task = self.task(id);
        task.reign = reign;
        if !task.needs_max_ts() || self.is_synced(reign) {
            return self.run(now, id, snapshot, fx);
        }
        self.set_state(now, id, State::Syncing(snapshot));
        let waiting = self.syncing.entry(reign).or_default();
        waiting.push(id);
        if waiting.len() == 1 {
            fx.timestamps.push(id);
        }
    }

    /// Whether `max_ts` has passed every timestamp that an earlier leader of the region's keys read at.
    fn is_synced(&self, reign: Reign) -> bool {
        planted::on(Bug::MaxTsForgotten) || self.synced.get(&reign.region) == Some(&(reign.term, reign.version))
    }

    pub(super) fn on_timestamp(&mut self, now: MonoTime, asker: TaskId, ts: Option<Ts>, fx: &mut Effects) {
        let reign = self.task(asker).reign;
        let waiting = self.syncing.remove(&reign).expect("the asker waits");
        if let Some(ts) = ts {
            self.concurrency.raise_max_ts_by_tso(ts);
            let synced = self.synced.entry(reign.region).or_default();
            *synced = (*synced).max((reign.term, reign.version));
        }
        for id in waiting {
            let State::Syncing(snapshot) = std::mem::replace(&mut self.task(id).state, State::Snapshot) else {
                panic!("{id:?} is not waiting for a timestamp");
            };
            match ts {
                _ if self.is_answered(id) => self.end(now, id, fx),
                Some(_) => self.run(now, id, snapshot, fx),
                None => self.pause_or_fail(now, id, false, NO_TIMESTAMP, fx),
            }
        }
    }

    fn run(&mut self, now: MonoTime, id: TaskId, snapshot: SnapshotRef, fx: &mut Effects) {
        self.set_state(now, id, State::Running);
        let task = self.tasks.get(&id).expect("under way");
        let mut keys = task.command.keys().peekable();
        let memory = match keys.peek() {
            Some(_) => self.memory.on_keys(task.reign, keys),
            None => self.memory.all(task.reign),
        };
        fx.jobs.push(Job {
            task: id,
            command: task.command.clone(),
            snapshot,
            concurrency: self.concurrency.clone(),
            memory,
            in_memory_pessimistic: self.config.in_memory_pessimistic && self.memory.has_room(task.reign),
        });
    }

    pub(super) fn on_ran(&mut self, now: MonoTime, ran: Ran, fx: &mut Effects) {
        let Ran { task: id, result } = ran;
        // Nothing has been written, and nobody waits for it any more.
        if self.is_answered(id) {
            drop(result);
            return self.end(now, id, fx);
        }
        match result {
            Ok(outcome) => self.on_outcome(now, id, outcome, fx),
            Err(Error::Locked(locked)) => self.on_locked(now, id, locked, fx),
            Err(error) => self.fail(now, id, error, fx),
        }
    }

    fn on_outcome(&mut self, now: MonoTime, id: TaskId, outcome: Outcome, fx: &mut Effects) {
        let Outcome {
            changes,
            memory,
            guard,
            output,
            released,
            next,
        } = outcome;
        let writing = Box::new(Writing {
            output,
            taken: self.taken(&changes, &memory),
            memory,
            released,
            next,
            guard,
        });
        if changes.is_empty() {
            return self.on_done(now, id, writing, fx);
        }
        self.set_state(now, id, State::Writing(writing));
        let task = self.task(id);
        fx.writes.push(WriteTask {
            task: id,
            ctx: kv::Context {
                term: task.reign.term,
                ..task.ctx.clone()
            },
            changes,
            deadline: task.deadline,
        });
    }

    /// Locks that are laid on keys for which others wait. Nobody can begin to wait for a key before its latch is given on.
    fn taken(&self, changes: &[Modify], memory: &[(Key, Option<Lock>)]) -> Vec<(Key, Lock)> {
        if self.waits.is_empty() {
            return Vec::new();
        }
        let written = changes.iter().filter_map(|change| match change {
            Modify::Put {
                cf: Cf::Lock,
                key,
                value,
                ..
            } => {
                let key = Key::from_encoded(key.clone());
                self.waits.first(&key)?;
                Some((key, Lock::decode(value).expect("an action encoded it")))
            }
            _ => None,
        });
        let kept = memory.iter().filter_map(|(key, lock)| Some((key.clone(), lock.clone()?)));
        written.chain(kept).collect()
    }

    pub(super) fn on_written(&mut self, now: MonoTime, id: TaskId, result: KvResult<()>, fx: &mut Effects) {
        let since = self.task(id).since;
        let State::Writing(writing) = std::mem::replace(&mut self.task(id).state, State::Snapshot) else {
            panic!("{id:?} is not writing");
        };
        metrics::WRITE.observe(now.since(since).as_secs_f64());
        match result {
            Ok(()) => self.on_done(now, id, writing, fx),
            Err(error) => {
                // It may be done nevertheless, so locks in memory that it was to replace must not hide what is stored. If it is not,
                // they are as if lost with a leadership.
                if !matches!(error, kv::Error::Busy { .. }) {
                    let reign = self.task(id).reign;
                    let replaced = writing.memory.into_iter().filter(|(_, lock)| lock.is_none());
                    self.memory.apply(reign, replaced);
                }
                // Before the latches go on.
                drop(writing.guard);
                self.pause_or_fail(now, id, true, error, fx);
            }
        }
    }

    /// All that the command wanted is written, or kept in memory from now on.
    fn on_done(&mut self, now: MonoTime, id: TaskId, writing: Box<Writing>, fx: &mut Effects) {
        let Writing {
            output,
            memory,
            released,
            taken,
            next,
            guard,
        } = *writing;
        // The write is applied: snapshots show what the locks in memory stood for.
        drop(guard);
        let reign = self.task(id).reign;
        self.memory.apply(reign, memory);
        for (key, lock) in taken {
            self.on_taken(now, id, &key, &lock, fx);
        }
        for key in released.into_iter().map(|released| released.key) {
            self.on_released(now, &key, fx);
        }
        match next {
            Some(command) if !self.is_answered(id) => self.go_on(now, id, command, fx),
            _ => {
                self.answer(now, id, Ok(output), fx);
                self.end(now, id, fx);
            }
        }
    }

    /// A batch is done, `command` is the next.
    fn go_on(&mut self, now: MonoTime, id: TaskId, command: Command, fx: &mut Effects) {
        let task = self.task(id);
        task.command = command.into();
        task.patience = None;
        self.give_back(now, id, None, fx);
        self.start(now, id, false, fx);
    }

    /// Tries again soon what a full queue below refused: nothing was proposed then, and clients could do no better.
    fn pause_or_fail(&mut self, now: MonoTime, id: TaskId, proposed: bool, error: kv::Error, fx: &mut Effects) {
        let busy_wait = self.config.busy_wait;
        let until = match error {
            kv::Error::Busy { .. } => self.task(id).pause(now, busy_wait),
            _ => None,
        };
        match until {
            Some(until) => self.set_state(now, id, State::Paused { until }),
            None => self.fail(now, id, Error::Region { proposed, source: error }, fx),
        }
    }

    /// Wakes what is due.
    pub(super) fn on_time(&mut self, now: MonoTime, fx: &mut Effects) {
        while let Some(&(at, id)) = self.alarms.first()
            && at <= now
        {
            self.on_alarm(now, id, fx);
        }
    }

    fn on_alarm(&mut self, now: MonoTime, id: TaskId, fx: &mut Effects) {
        let late = |proposed| Error::Region {
            proposed,
            source: kv::Error::Deadline,
        };
        let task = self.task(id);
        let is_late = now >= task.deadline;
        match &task.state {
            State::Waiting => self.on_wait_alarm(now, id, fx),
            State::Queued { .. } => {
                self.queue.remove(&id);
                self.fail(now, id, busy("too many commands are under way"), fx);
            }
            State::Paused { .. } if !is_late => self.take_snapshot(now, id, fx),
            State::Paused { .. } | State::Latching => self.fail(now, id, late(false), fx),
            // These end when what they asked for comes.
            State::Snapshot | State::Syncing(_) | State::Running => self.answer(now, id, Err(late(false)), fx),
            State::Writing(_) => self.answer(now, id, Err(late(true)), fx),
        }
    }

    pub(super) fn fail(&mut self, now: MonoTime, id: TaskId, error: Error, fx: &mut Effects) {
        self.answer(now, id, Err(error), fx);
        self.end(now, id, fx);
    }

    /// Answers unless that was done.
    fn answer(&mut self, now: MonoTime, id: TaskId, result: Result<Output>, fx: &mut Effects) {
        let task = self.task(id);
        if let Some(reply) = task.reply.take() {
            metrics::on_answer(task.command.name(), now.since(task.submitted).as_secs_f64(), &result);
            // A conflict brings the client back with a newer timestamp, and it is the oldest: the others leave it some time.
            let conflict = matches!(result, Err(Error::WriteConflict { .. }));
            let turn = task.lock_wait.as_mut().filter(|wait| wait.has_turn);
            let turn = turn.map(|wait| {
                wait.has_turn = false;
                wait.key.clone()
            });
            fx.answers.push(Answer { reply, result });
            self.arm(id);
            if let Some(key) = turn {
                self.pass_turn(now, &key, conflict, fx);
            }
        }
    }

    /// The task was answered and nothing is out for it.
    fn end(&mut self, now: MonoTime, id: TaskId, fx: &mut Effects) {
        self.untell(id, fx);
        let task = self.tasks.remove(&id).expect("under way");
        assert!(task.reply.is_none(), "{id:?} ends without an answer");
        assert!(!task.lock_wait.is_some_and(|wait| wait.queued), "{id:?} ends in a queue");
        assert!(task.alarm.is_none(), "{id:?} ends with an alarm");
        self.give_back(now, id, task.admitted.then_some(task.bytes), fx);
    }

    /// The task of an event. The shell answers what it was asked exactly once, and until then the task stays.
    pub(super) fn task(&mut self, id: TaskId) -> &mut Task {
        self.tasks.get_mut(&id).expect("an event for a task that asked for it")
    }

    fn is_answered(&self, id: TaskId) -> bool {
        self.tasks[&id].reply.is_none()
    }

    pub(super) fn set_state(&mut self, now: MonoTime, id: TaskId, state: State) {
        let task = self.task(id);
        task.state = state;
        task.since = now;
        self.arm(id);
    }

    /// Sets the task's alarm by its state.
    pub(super) fn arm(&mut self, id: TaskId) {
        let task = self.tasks.get_mut(&id).expect("under way");
        let due = task.due();
        if task.alarm == due {
            return;
        }
        if let Some(at) = std::mem::replace(&mut task.alarm, due) {
            self.alarms.remove(&(at, id));
        }
        if let Some(at) = due {
            self.alarms.insert((at, id));
        }
    }
}

const NO_TIMESTAMP: kv::Error = kv::Error::Busy {
    reason: "no timestamp to begin a leadership with",
};

fn busy(reason: &'static str) -> Error {
    metrics::BUSY.inc();
    Error::Region {
        proposed: false,
        source: kv::Error::Busy { reason },
    }
}
