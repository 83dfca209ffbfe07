//! [`Shell`]: drives the scheduler over [`Kv`], the TSO and the detector of deadlocks, and keeps its time.
//!
//! The scheduler is stepped under a mutex, by whichever thread brings the event; what it wants done is done outside. A region that is
//! led here answers for a snapshot at once, so a command runs from its arrival to its proposal on one thread. Short jobs run on the
//! threads of the network, long ones on threads that may block.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::MonoTime;
use engine::kv::Kv;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use txn::concurrency::Concurrency;
use txn::scheduler::{Config, Effects, Event, Job, Scheduler, WriteTask};

use super::Timestamps;
use super::deadlock::Waits;

/// How long the TSO may take. Commands that need it fail after that, and clients come again.
const TIMESTAMP_WAIT: Duration = Duration::from_secs(5);

pub struct Shell {
    scheduler: Mutex<Scheduler>,
    kv: Arc<dyn Kv>,
    timestamps: Timestamps,
    waits: Waits,
    alarm: Arc<Alarm>,
    runtime: Handle,
}

/// Events that a thread brought while it was at others.
type Waiting = VecDeque<(Arc<Shell>, Event)>;

impl Shell {
    pub fn start(
        kv: Arc<dyn Kv>,
        concurrency: Arc<Concurrency>,
        timestamps: Timestamps,
        waits: Waits,
        config: Config,
    ) -> Arc<Shell> {
        let alarm = Arc::<Alarm>::default();
        let shell = Arc::new(Shell {
            scheduler: Mutex::new(Scheduler::new(config, concurrency)),
            kv,
            timestamps,
            waits,
            alarm: alarm.clone(),
            runtime: Handle::current(),
        });
        tokio::spawn(tick(Arc::downgrade(&shell), alarm));
        shell
    }

    /// Takes an event, on any thread. Events that come while this thread is at it already are taken after: answers that are given at
    /// once would nest as deep as commands wait for each other.
    pub fn on(self: &Arc<Self>, event: Event) {
        thread_local! {
            static WAITING: RefCell<Option<Waiting>> = const { RefCell::new(None) };
        }
        let nested = WAITING.with_borrow_mut(|waiting| {
            let nested = waiting.is_some();
            waiting.get_or_insert_default().push_back((self.clone(), event));
            nested
        });
        if nested {
            return;
        }
        let next = || {
            WAITING.with_borrow_mut(|waiting| {
                let next = waiting.as_mut().and_then(VecDeque::pop_front);
                if next.is_none() {
                    *waiting = None;
                }
                next
            })
        };
        while let Some((shell, event)) = next() {
            let effects = shell.scheduler.lock().step(MonoTime::now(), event);
            shell.carry_out(effects);
        }
    }

    /// A look at the scheduler as it is now.
    pub fn look<T>(&self, look: impl FnOnce(&Scheduler) -> T) -> T {
        look(&self.scheduler.lock())
    }

    fn carry_out(self: &Arc<Self>, effects: Effects) {
        let Effects {
            snapshots,
            jobs,
            writes,
            timestamps,
            detect,
            answers,
            wake_at,
        } = effects;
        for answer in answers {
            answer.give();
        }
        for (task, ctx) in snapshots {
            let shell = self.clone();
            let reply = move |result| shell.on(Event::Snapshot { task, result });
            self.kv.snapshot(&ctx, MonoTime::now(), Box::new(reply));
        }
        for job in jobs {
            self.run(job);
        }
        for write in writes {
            self.write(write);
        }
        for task in timestamps {
            let shell = self.clone();
            let asked = (self.timestamps)(MonoTime::now() + TIMESTAMP_WAIT);
            self.runtime.spawn(async move {
                let ts = asked.await;
                shell.on(Event::Timestamp { task, ts });
            });
        }
        for detect in detect {
            self.waits.tell(detect);
        }
        if let Some(at) = wake_at {
            self.alarm.set(at);
        }
    }

    fn write(self: &Arc<Self>, write: WriteTask) {
        let (shell, task) = (self.clone(), write.task);
        let reply = move |result| shell.on(Event::Written { task, result });
        self.kv.write(&write.ctx, write.changes, write.deadline, Box::new(reply));
    }

    /// Here, if it is short and this is a thread of the network, whose the caller's time is; a thread of the store has others to serve.
    fn run(self: &Arc<Self>, job: Job) {
        if job.is_long() {
            let shell = self.clone();
            // Bounded: long commands are under way, and so count for the scheduler's room.
            self.runtime.spawn_blocking(move || shell.on(Event::Ran(job.run())));
        } else if Handle::try_current().is_ok() {
            self.on(Event::Ran(job.run()));
        } else {
            let shell = self.clone();
            self.runtime.spawn(async move { shell.on(Event::Ran(job.run())) });
        }
    }
}

/// When the scheduler wants to know that time has passed. An alarm that rings early does no harm.
struct Alarm {
    at: AtomicU64,
    moved: Notify,
}

impl Default for Alarm {
    fn default() -> Alarm {
        Alarm {
            at: AtomicU64::new(u64::MAX),
            moved: Notify::new(),
        }
    }
}

impl Alarm {
    fn set(&self, at: MonoTime) {
        if at.0 < self.at.fetch_min(at.0, Ordering::SeqCst) {
            self.moved.notify_one();
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.alarm.set(MonoTime(0));
    }
}

/// Rings until the shell is gone.
async fn tick(shell: Weak<Shell>, alarm: Arc<Alarm>) {
    loop {
        let at = alarm.at.load(Ordering::SeqCst);
        let wait = MonoTime(at).since(MonoTime::now());
        if at == u64::MAX {
            alarm.moved.notified().await;
        } else if wait.is_zero() {
            alarm.at.store(u64::MAX, Ordering::SeqCst);
            let Some(shell) = shell.upgrade() else { return };
            shell.on(Event::Tick);
        } else {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = alarm.moved.notified() => {}
            }
        }
    }
}
