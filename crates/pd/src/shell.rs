//! Runs a [`Machine`] over a [`Group`]: thread `pd` steps the machine, thread `pd-raft` the group, and waits for the disk.
//!
//! Whatever has gathered while one batch was handled makes the next batch, so that one write to disk serves all requests of a batch,
//! and timestamps flow while it lasts. Requests in flight are bounded by [`IN_FLIGHT_MAX`]; beyond that they are refused as busy.
//! Messages of other members that wait are bounded by [`MESSAGES_MAX`]; beyond that they are dropped, which raft repairs. The queues
//! between the two threads hold what those made, so they are bounded with them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;

use base::{ClusterId, MonoTime, WallTime};
use parking_lot::{Condvar, Mutex};
use proto::ferrite_pd::{self as record, GroupBatch, GroupMessage};

use crate::group::{self, Group, TICK};
use crate::log::file::FileLog;
use crate::log::{self, LogEvent, Proposal};
use crate::machine::{Effects, Event, Machine, Options, Status};
use crate::request::{Reply, Request};
use crate::state::State;
use crate::{Error, MemberId, metrics};

/// Requests in flight: enough for every connection of a large cluster to have several.
pub const IN_FLIGHT_MAX: usize = 1 << 16;
/// Messages of other members that wait: far more than raft has under way at a time.
pub const MESSAGES_MAX: usize = 1 << 12;

/// Called exactly once with the outcome, on the thread `pd`; must not block.
pub type Callback = Box<dyn FnOnce(Result<Reply, Error>) + Send>;

/// A request, and who is told what came of it.
type Asked = (Request, Callback);

/// Called on the thread `pd`; says whether it wants to be called again.
pub type Listener = Box<dyn FnMut() -> bool + Send>;

/// Carries messages to other members. Lossy and unordered: raft repairs. Never blocks.
pub trait Transport: Send + 'static {
    /// Sends messages to the member that is dialled at `url`.
    fn send(&self, to: MemberId, url: &str, messages: Vec<GroupMessage>);
}

/// Asks this member of the placement driver. Clones ask the same one.
#[derive(Clone)]
pub struct Handle {
    inbox: Arc<Inbox>,
}

impl Handle {
    /// A handle to a member that is not started yet: [`Pd::start`] does that. Until then nobody leads.
    pub fn not_started(me: MemberId) -> Handle {
        let inbox = Inbox::default();
        *inbox.status.lock() = Arc::new(Status { me, ..Status::default() });
        Handle { inbox: Arc::new(inbox) }
    }

    /// The cluster that the placement driver speaks for; none before a member ever led.
    pub fn cluster(&self) -> ClusterId {
        self.status().cluster
    }

    /// Who leads, and who there is, as far as this member knows.
    pub fn status(&self) -> Arc<Status> {
        self.inbox.status.lock().clone()
    }

    /// Waits until the status is as `wanted`, no longer than `deadline`; whether it came to be. Not for async code.
    pub fn wait_for(&self, deadline: MonoTime, wanted: impl Fn(&Status) -> bool) -> bool {
        let mut status = self.inbox.status.lock();
        while !wanted(&status) {
            let left = deadline.since(MonoTime::now());
            if left.is_zero() {
                return false;
            }
            self.inbox.status_changed.wait_for(&mut status, left);
        }
        true
    }

    /// Has `listener` called whenever the leaders of regions should report at once, on the thread `pd`; it must not block.
    pub fn on_want_reports(&self, listener: Listener) {
        self.inbox.listeners.lock().push(listener);
    }

    /// Has `listener` called whenever [`Handle::status`] is another, on the thread `pd`; it must not block.
    pub fn on_status(&self, listener: Listener) {
        self.inbox.status_listeners.lock().push(listener);
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

    /// Takes messages of another member. False if they are of another group.
    pub fn deliver(&self, batch: GroupBatch) -> bool {
        let Some(running) = self.inbox.running.lock().clone() else {
            return true; // Raft sends again.
        };
        if batch.group != running.group {
            return false;
        }
        let count = batch.messages.len();
        if self.inbox.messages.fetch_add(count, Ordering::Relaxed) + count > MESSAGES_MAX {
            self.inbox.messages.fetch_sub(count, Ordering::Relaxed);
            return true;
        }
        drop(running.tasks.send(Task::Messages(batch)));
        true
    }
}

/// A running member of the placement driver. Dropping it stops it.
pub struct Pd {
    handle: Handle,
    threads: Vec<JoinHandle<()>>,
}

impl Pd {
    /// Starts the member whose log is `log` and takes part in its group. `handle` was not started before.
    pub fn start(handle: Handle, log: FileLog, options: Options, transport: impl Transport, seed: u64) -> Pd {
        let identity = &log.stored().identity;
        assert_eq!(identity.member, options.member, "the log is another member's");
        let snapshot = &log.stored().snapshot;
        let machine = Machine::new(options, State::from_record(snapshot.state.clone()), snapshot.position.index);
        let group = Group::new(log.stored(), seed, MonoTime::now());
        // Bounded by the requests in flight and the messages that may wait: see the module.
        let (tasks, queue) = mpsc::channel();
        let inbox = handle.inbox.clone();
        inbox.publish(&machine);
        *inbox.running.lock() = Some(Running {
            group: identity.group,
            tasks: tasks.clone(),
        });
        inbox.queue.lock().started = true;
        let raft = RaftThread {
            group,
            log,
            transport,
            inbox: inbox.clone(),
            heard_from: BTreeMap::new(),
        };
        let raft_thread = base::thread::spawn("pd-raft", move || raft.run(&queue));
        let machine_thread = base::thread::spawn("pd", move || run_machine(machine, &inbox, &tasks));
        Pd {
            handle,
            threads: vec![machine_thread, raft_thread],
        }
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

/// What waits for the thread `pd`. Locks are taken one at a time.
#[derive(Default)]
struct Inbox {
    queue: Mutex<Queue>,
    filled: Condvar,
    listeners: Mutex<Vec<Listener>>,
    status_listeners: Mutex<Vec<Listener>>,
    in_flight: AtomicUsize,
    /// Messages on their way to the thread `pd-raft`.
    messages: AtomicUsize,
    status: Mutex<Arc<Status>>,
    status_changed: Condvar,
    running: Mutex<Option<Running>>,
}

#[derive(Clone)]
struct Running {
    group: u64,
    tasks: mpsc::Sender<Task>,
}

#[derive(Default)]
struct Queue {
    requests: Vec<(Request, Callback)>,
    log: Vec<LogEvent>,
    started: bool,
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
        if queue.closed || !queue.started {
            let error = if queue.closed { Error::Stopped } else { Error::NotLeader };
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            return Err((callback, error));
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
    fn take(&self) -> Option<(Vec<Asked>, Vec<LogEvent>)> {
        let mut queue = self.queue.lock();
        while queue.is_empty() && !queue.closed {
            self.filled.wait(&mut queue);
        }
        (!queue.closed).then(|| (std::mem::take(&mut queue.requests), std::mem::take(&mut queue.log)))
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

    fn publish(&self, machine: &Machine<Callback>) {
        let status = Arc::new(machine.status());
        {
            let mut published = self.status.lock();
            if *published == status {
                return;
            }
            *published = status;
        }
        self.status_changed.notify_all();
        self.status_listeners.lock().retain_mut(|listener| listener());
    }
}

/// Work of the thread `pd-raft`.
enum Task {
    Propose(Vec<Proposal>),
    Snapshot { index: u64, state: Box<record::State> },
    TransferLeader(MemberId),
    Messages(GroupBatch),
    Stop,
}

fn run_machine(mut machine: Machine<Callback>, inbox: &Inbox, tasks: &mpsc::Sender<Task>) {
    // The thread `pd-raft` is gone only after it closed the inbox, which the next `take` finds.
    let give = |task| drop(tasks.send(task));
    while let Some((requests, log)) = inbox.take() {
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
            snapshot,
            transfer,
            status_changed,
        } = machine.step(MonoTime::now(), WallTime::now(), events);
        if !propose.is_empty() {
            give(Task::Propose(propose));
        }
        if let Some((index, state)) = snapshot {
            give(Task::Snapshot { index, state });
        }
        if let Some(to) = transfer {
            give(Task::TransferLeader(to));
        }
        if status_changed {
            inbox.publish(&machine);
        }
        if want_reports {
            inbox.listeners.lock().retain_mut(|listener| listener());
        }
        inbox.in_flight.fetch_sub(reply.len(), Ordering::Relaxed);
        for (callback, outcome) in reply {
            callback(outcome);
        }
    }
    give(Task::Stop);
    for callback in machine.take_waiting() {
        callback(Err(Error::Stopped));
    }
}

/// The thread `pd-raft`.
struct RaftThread<T> {
    group: Group,
    log: FileLog,
    transport: T,
    inbox: Arc<Inbox>,
    /// Where members said that they are dialled: for those whom the state does not name yet.
    heard_from: BTreeMap<u64, String>,
}

impl<T: Transport> RaftThread<T> {
    fn run(mut self, queue: &mpsc::Receiver<Task>) {
        let mut next_tick = MonoTime::now() + TICK;
        let (mut events, mut stops) = (Vec::new(), false);
        loop {
            let step = self.group.step(MonoTime::now(), std::mem::take(&mut events));
            match self.carry_out(step) {
                Ok(Some(number)) => {
                    events.push(group::Event::Persisted { number });
                    continue;
                }
                Ok(None) => {}
                Err(e) => {
                    self.inbox.close();
                    // What is durable is not known any more: only a restart finds out.
                    panic!("placement driver cannot go on: {}", base::log::chain(&e));
                }
            }
            if stops {
                return;
            }
            match queue.recv_timeout(next_tick.since(MonoTime::now())) {
                Ok(task) => {
                    for task in std::iter::once(task).chain(queue.try_iter()) {
                        stops |= matches!(task, Task::Stop);
                        self.on_task(task, &mut events);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = MonoTime::now();
            if now >= next_tick {
                events.push(group::Event::Tick);
                next_tick = now + TICK;
            }
        }
    }

    fn on_task(&mut self, task: Task, events: &mut Vec<group::Event>) {
        match task {
            Task::Propose(proposals) => events.push(group::Event::Propose(proposals)),
            Task::Snapshot { index, state } => events.push(group::Event::Snapshot { index, state }),
            Task::TransferLeader(to) => events.push(group::Event::TransferLeader(to)),
            Task::Messages(GroupBatch { messages, from_url, .. }) => {
                self.inbox.messages.fetch_sub(messages.len(), Ordering::Relaxed);
                let from = messages.first().and_then(|message| message.raft.as_ref()?.from);
                if let Some(from) = from.filter(|_| !from_url.is_empty()) {
                    self.heard_from.insert(from.id, from_url);
                }
                events.extend(messages.into_iter().map(|message| group::Event::Message(Box::new(message))));
            }
            Task::Stop => {}
        }
    }

    /// Writes, sends and tells the machine; the number of the last write that somebody waits for.
    fn carry_out(&mut self, step: group::Effects) -> Result<Option<u64>, log::Error> {
        let group::Effects {
            writes,
            send,
            events,
            failed,
        } = step;
        if !events.is_empty() {
            self.inbox.push_log(events);
        }
        self.send(send);
        if let Some(failed) = failed {
            return Err(failed);
        }
        let mut last = None;
        for numbered in writes {
            let started = MonoTime::now();
            self.log.write(&numbered.write)?;
            metrics::LOG_SECONDS.observe(MonoTime::now().since(started).as_secs_f64());
            self.send(numbered.send_after);
            last = last.max(Some(numbered.number).filter(|&number| number > 0));
        }
        Ok(last)
    }

    fn send(&mut self, messages: Vec<GroupMessage>) {
        if messages.is_empty() {
            return;
        }
        let mut by_receiver: BTreeMap<u64, Vec<GroupMessage>> = BTreeMap::new();
        for message in messages {
            let to = message.raft.as_ref().and_then(|raft| raft.to).map_or(0, |peer| peer.id);
            by_receiver.entry(to).or_default().push(message);
        }
        let status = self.inbox.status.lock().clone();
        for (to, messages) in by_receiver {
            let told = status.member(MemberId(to)).and_then(|member| member.peer_urls.first());
            if let Some(url) = told.or_else(|| self.heard_from.get(&to)) {
                self.transport.send(MemberId(to), url, messages);
            }
        }
    }
}

#[cfg(test)]
mod tests;
