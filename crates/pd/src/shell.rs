//! Runs a [`Machine`] over a [`ReplicatedLog`]: thread `pd` steps the machine, thread `pd-log` waits for the disk.
//!
//! Whatever has gathered while one batch was handled makes the next batch, so that one write to disk serves all requests of a batch,
//! and timestamps flow while it lasts. Requests in flight are bounded by [`IN_FLIGHT_MAX`]; beyond that they are refused as busy.
//! The queues between the two threads hold what those requests and a few internal ones proposed, so they are bounded with them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use base::{ClusterId, MonoTime, WallTime};
use parking_lot::{Condvar, Mutex};
use proto::ferrite_pd as record;

use crate::log::file::FileLog;
use crate::log::{self, LogEvent, Proposal, ReplicatedLog};
use crate::machine::{Effects, Event, Machine, Options};
use crate::request::{Reply, Request};
use crate::state::State;
use crate::{Error, metrics};

/// Requests in flight: enough for every connection of a large cluster to have several.
pub const IN_FLIGHT_MAX: usize = 1 << 16;
/// Commands between snapshots: the log stays below a megabyte and is replayed in milliseconds.
const SNAPSHOT_EVERY: u64 = 4096;

/// Called exactly once with the outcome, on the thread `pd`; must not block.
pub type Callback = Box<dyn FnOnce(Result<Reply, Error>) + Send>;

/// Called on the thread `pd`; says whether it wants to be called again.
pub type Listener = Box<dyn FnMut() -> bool + Send>;

/// Asks the placement driver. Clones ask the same one.
#[derive(Clone)]
pub struct Handle {
    inbox: Arc<Inbox>,
    cluster: ClusterId,
}

impl Handle {
    /// The cluster that the placement driver speaks for.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Has `listener` called whenever the leaders of regions should report at once, on the thread `pd`; it must not block.
    pub fn on_want_reports(&self, listener: Listener) {
        self.inbox.listeners.lock().push(listener);
    }

    /// Asks without waiting. The callback runs here if the request is refused at once.
    pub fn submit(&self, request: Request, callback: Callback) {
        if let Err((callback, error)) = self.inbox.push(request, callback) {
            callback(Err(error));
        }
    }

    /// Asks and waits. Not for async code.
    pub fn ask(&self, request: Request) -> Result<Reply, Error> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.submit(request, Box::new(move |outcome| drop(sender.send(outcome))));
        receiver.recv().unwrap_or(Err(Error::Stopped))
    }
}

/// A running placement driver. Dropping it stops it.
pub struct Pd {
    handle: Handle,
    threads: Vec<JoinHandle<()>>,
}

impl Pd {
    /// Starts a placement driver of one member over the log in `dir`, which is made if there is none.
    pub fn open(dir: &Path, options: Options) -> Result<Pd, log::Error> {
        let (log, recovered) = FileLog::open(dir)?;
        let state = recovered.state.map(State::from_record).unwrap_or_default();
        Pd::start(Machine::new(options, state, recovered.index), log)
    }

    /// Starts the threads, once the machine leads and knows its cluster. `machine` begins where `log` was recovered.
    pub fn start(mut machine: Machine<Callback>, mut log: impl ReplicatedLog) -> Result<Pd, log::Error> {
        loop {
            let events = log.poll()?;
            if events.is_empty() && machine.is_ready() {
                break;
            }
            let effects = machine.step(MonoTime::now(), WallTime::now(), events.into_iter().map(Event::Log));
            log.propose(effects.propose)?;
        }
        let inbox = Arc::new(Inbox::default());
        // Bounded by the requests in flight: nothing is proposed but on their account, but for a few reserves.
        let (tasks, log_inbox) = (mpsc::channel(), inbox.clone());
        let log_thread = base::thread::spawn("pd-log", move || run_log(log, &tasks.1, &log_inbox));
        let handle = Handle {
            inbox: inbox.clone(),
            cluster: machine.state().cluster,
        };
        let machine_thread = base::thread::spawn("pd", move || run_machine(machine, &inbox, &tasks.0));
        Ok(Pd {
            handle,
            threads: vec![machine_thread, log_thread],
        })
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Pd {
    fn drop(&mut self) {
        self.handle.inbox.close();
        for thread in self.threads.drain(..) {
            // A thread that panicked has told so, and whoever asked was told that the placement driver stopped.
            drop(thread.join());
        }
    }
}

/// What waits for the thread `pd`.
#[derive(Default)]
struct Inbox {
    queue: Mutex<Queue>,
    filled: Condvar,
    listeners: Mutex<Vec<Listener>>,
    in_flight: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    requests: Vec<(Request, Callback)>,
    log: Vec<LogEvent>,
    closed: bool,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.log.is_empty()
    }
}

impl Inbox {
    fn push(&self, request: Request, callback: Callback) -> Result<(), (Callback, Error)> {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= IN_FLIGHT_MAX {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            metrics::BUSY.inc();
            return Err((callback, Error::Busy));
        }
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err((callback, Error::Stopped));
        }
        let was_empty = queue.is_empty();
        queue.requests.push((request, callback));
        drop(queue);
        if was_empty {
            self.filled.notify_one();
        }
        Ok(())
    }

    fn push_log(&self, events: Vec<LogEvent>) {
        let mut queue = self.queue.lock();
        queue.log.extend(events);
        self.filled.notify_one();
    }

    /// Waits for work and takes all there is; none once closed.
    fn take(&self) -> Option<Queue> {
        let mut queue = self.queue.lock();
        while queue.is_empty() && !queue.closed {
            self.filled.wait(&mut queue);
        }
        (!queue.closed).then(|| std::mem::take(&mut *queue))
    }

    /// Refuses all that comes from here on, and all that waits.
    fn close(&self) {
        let left = {
            let mut queue = self.queue.lock();
            queue.closed = true;
            self.filled.notify_one();
            std::mem::take(&mut queue.requests)
        };
        for (_, callback) in left {
            callback(Err(Error::Stopped));
        }
    }
}

enum LogTask {
    Propose(Vec<Proposal>),
    Snapshot { index: u64, state: Box<record::State> },
}

fn run_machine(mut machine: Machine<Callback>, inbox: &Inbox, tasks: &mpsc::Sender<LogTask>) {
    let mut snapshot = machine.applied();
    while let Some(Queue { requests, log, .. }) = inbox.take() {
        metrics::BATCH_REQUESTS.observe(requests.len() as f64);
        let events = log.into_iter().map(Event::Log);
        let events = events.chain(
            requests
                .into_iter()
                .map(|(request, callback)| Event::Request(callback, request)),
        );
        let Effects {
            propose,
            reply,
            want_reports,
        } = machine.step(MonoTime::now(), WallTime::now(), events);
        // The log's thread is gone only after it closed the inbox, which the next `take` finds.
        if !propose.is_empty() {
            drop(tasks.send(LogTask::Propose(propose)));
        }
        if machine.applied() >= snapshot + SNAPSHOT_EVERY {
            snapshot = machine.applied();
            drop(tasks.send(LogTask::Snapshot {
                index: snapshot,
                state: Box::new(machine.state().to_record()),
            }));
        }
        if want_reports {
            inbox.listeners.lock().retain_mut(|listener| listener());
        }
        inbox.in_flight.fetch_sub(reply.len(), Ordering::Relaxed);
        for (callback, outcome) in reply {
            callback(outcome);
        }
    }
    for callback in machine.take_waiting() {
        callback(Err(Error::Stopped));
    }
}

fn run_log(mut log: impl ReplicatedLog, tasks: &mpsc::Receiver<LogTask>, inbox: &Inbox) {
    while let Ok(task) = tasks.recv() {
        let turn = || {
            for task in std::iter::once(task).chain(tasks.try_iter()) {
                match task {
                    LogTask::Propose(proposals) => log.propose(proposals)?,
                    LogTask::Snapshot { index, state } => log.snapshot(index, &state)?,
                }
            }
            log.poll()
        };
        let started = MonoTime::now();
        match turn() {
            Ok(events) => inbox.push_log(events),
            Err(e) => {
                inbox.close();
                // What is durable is not known any more: only a restart finds out.
                panic!("placement driver cannot go on: {}", base::log::chain(&e));
            }
        }
        metrics::LOG_SECONDS.observe(MonoTime::now().since(started).as_secs_f64());
    }
}

#[cfg(test)]
mod tests;
