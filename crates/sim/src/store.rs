//! A store in the simulation: carries out what peers want, as the threads of `raftstore::shell` do, under virtual time.
//!
//! Mailboxes fill as messages come and are handled in batches; raft log writes of all regions share one sync at a time; applying
//! takes its time; answers leave when they are due. All that a crash leaves is in [`Data`].

mod away;
mod data;
mod hibernate;
mod requests;
mod txn;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::{ClusterId, MonoTime, PeerId, RegionId, StoreId};
use bytes::Bytes;
use proto::metapb::Region;
use raftstore::apply::{Applier, ApplyTask, Change, MergeStep, Outcome};
use raftstore::beats::Beats;
use raftstore::delegate::Delegate;
use raftstore::log::RaftLog;
use raftstore::peer::{Effects, Event, Peer, RaftWrite};
use raftstore::registry::Born;
use raftstore::size::Measured;
use raftstore::snapshot::{Key, Snapshots};
use raftstore::storage::LogPosition;
use raftstore::store::{Decision, Store as Control};
use raftstore::{Config, RaftMessage};

use ::txn::scheduler::Job;

use self::away::Away;
pub use self::data::Data;
use self::requests::Requests;
use self::txn::Txns;
use crate::counts::Counts;
use crate::disk::Disk;
use crate::message::Message;
use crate::network::Node;
use crate::rng::Rng;

pub const CLUSTER: ClusterId = ClusterId(7);

/// A stream of a raft snapshot that takes longer than this counts as broken.
const SNAPSHOT_TIME_MAX: Duration = Duration::from_secs(2);
/// Between a message's coming and its mailbox's turn.
const POLL_DELAY_MAX: Duration = Duration::from_micros(50);

/// What a store is woken for.
#[derive(Debug)]
pub enum Timer {
    Tick,
    Poll,
    /// The sync of the raft log under way is done.
    Synced,
    /// The first task of this peer's applier is done.
    Applied(RegionId, PeerId),
    /// Time to make the engine durable.
    Flush,
    /// A sync of the engine is done that began at this mark, with these indexes applied.
    Flushed {
        mark: u64,
        applied: Vec<(RegionId, PeerId, u64)>,
    },
    /// A read of old entries, or the writing of a raft snapshot, is done.
    Background(RegionId, PeerId, Box<dyn FnOnceEvent>),
    /// The stream of a raft snapshot had its time.
    SnapshotOverdue(RegionId, PeerId),
    /// The scheduler of transactions wants to know the time.
    TxnTick,
    /// A thread takes up an action of the scheduler.
    TxnJob(TxnJob),
    /// The placement driver had its time to answer.
    TimestampOverdue(u64),
}

impl Timer {
    /// Name for the trace.
    pub fn name(&self) -> &'static str {
        match self {
            Timer::Tick => "tick",
            Timer::Poll => "poll",
            Timer::Synced => "synced",
            Timer::Applied(..) => "applied",
            Timer::Flush => "flush",
            Timer::Flushed { .. } => "flushed",
            Timer::Background(..) => "background",
            Timer::SnapshotOverdue(..) => "snapshot-overdue",
            Timer::TxnTick => "txn-tick",
            Timer::TxnJob(_) => "txn-job",
            Timer::TimestampOverdue(_) => "timestamp-overdue",
        }
    }
}

/// An action of the scheduler to be run.
pub struct TxnJob(Job);

impl std::fmt::Debug for TxnJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("job")
    }
}

/// Work done in the background, whose result goes to the peer.
pub trait FnOnceEvent {
    fn call(self: Box<Self>) -> Event;
}

impl<F: FnOnce() -> Event> FnOnceEvent for F {
    fn call(self: Box<Self>) -> Event {
        self()
    }
}

impl std::fmt::Debug for dyn FnOnceEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("work")
    }
}

/// What a store wants done.
#[derive(Default)]
pub struct Out {
    pub send: Vec<(Node, Message)>,
    pub wake: Vec<(MonoTime, Timer)>,
}

/// How a store behaves, beside its configuration.
#[derive(Clone, Debug)]
pub struct Pace {
    pub apply_mean: Duration,
    pub batch_max: usize,
    pub flush_interval: Duration,
    /// Whether pessimistic locks stay in the leader's memory.
    pub pessimistic_in_memory: bool,
}

struct Cell {
    peer: Peer,
    applier: Applier,
    mailbox: VecDeque<Event>,
    tasks: VecDeque<ApplyTask>,
    /// Its peer wants no ticks.
    hibernates: bool,
}

impl Cell {
    fn new((peer, applier): (Peer, Applier)) -> Cell {
        Cell {
            peer,
            applier,
            mailbox: VecDeque::new(),
            tasks: VecDeque::new(),
            hibernates: false,
        }
    }
}

/// A running store.
pub struct Store {
    id: StoreId,
    config: Arc<Config>,
    pace: Pace,
    rng: Rng,
    data: Data,
    control: Control,
    cells: BTreeMap<RegionId, Cell>,
    delegates: BTreeMap<RegionId, Delegate>,
    requests: Requests,
    txns: Txns,
    away: Away,
    poll_due: bool,
    ticks: u64,
    beats: Beats,
    /// Raft log writes that wait for the sync under way to end.
    writes: Vec<RaftWrite>,
    /// Raft log writes under sync.
    syncing: Vec<RaftWrite>,
    /// Peers to which a raft snapshot streams.
    streams: BTreeSet<(RegionId, PeerId)>,
    split_recently: bool,
    merged_recently: bool,
    pub counts: Counts,
}

impl Store {
    /// Starts on the data found. `rng` must differ at each start.
    pub fn start(id: StoreId, config: Arc<Config>, pace: Pace, data: Data, mut rng: Rng, now: MonoTime, out: &mut Out) -> Store {
        let engine = Arc::new(data.engine.clone());
        let (log, snapshots) = (data.log.clone(), data.snapshots.clone());
        let mut control = Control::new(id, config.clone(), engine, log, snapshots, rng.seed());
        let recovered = control
            .recover(now)
            .unwrap_or_else(|error| panic!("store {id} cannot start: {}", chain(&error)));
        let cells = recovered
            .into_iter()
            .map(|made| (made.0.region_id(), Cell::new(made)))
            .collect();
        out.wake.push((now + rng.span(Duration::ZERO, config.tick.0), Timer::Tick));
        out.wake
            .push((now + rng.span(Duration::ZERO, pace.flush_interval), Timer::Flush));
        let beats = Beats::new(id, &config);
        Store {
            id,
            config,
            txns: Txns::new(pace.pessimistic_in_memory, &mut rng),
            away: Away::default(),
            pace,
            rng,
            data,
            control,
            cells,
            delegates: BTreeMap::new(),
            requests: Requests::default(),
            poll_due: false,
            ticks: 0,
            beats,
            writes: Vec::new(),
            syncing: Vec::new(),
            streams: BTreeSet::new(),
            split_recently: false,
            merged_recently: false,
            counts: Counts::default(),
        }
    }

    /// Ends the process; what it had in memory is gone.
    pub fn into_data(self) -> Data {
        self.data
    }

    pub fn data(&self) -> &Data {
        &self.data
    }

    pub fn peer(&self, region: RegionId) -> Option<&Peer> {
        self.cells.get(&region).map(|cell| &cell.peer)
    }

    /// Index up to which the engine holds a region's entries; its peer hears of it a little later.
    pub fn applied(&self, region: RegionId) -> u64 {
        self.cells.get(&region).map_or(0, |cell| cell.applier.applied().index)
    }

    /// A region as last applied; its peer hears of it a little later.
    pub fn region(&self, region: RegionId) -> Option<&Region> {
        self.cells.get(&region).map(|cell| cell.applier.region())
    }

    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.cells.values().map(|cell| &cell.peer)
    }

    /// Whether all its peers have nothing left to do for now.
    pub fn is_idle(&self) -> bool {
        self.cells
            .values()
            .all(|cell| cell.mailbox.is_empty() && cell.tasks.is_empty())
            && self.writes.is_empty()
            && self.syncing.is_empty()
    }

    /// Gives a peer an event; one for a region that is not here is lost.
    pub fn post(&mut self, now: MonoTime, region: RegionId, event: Event, out: &mut Out) {
        let Some(cell) = self.cells.get_mut(&region) else { return };
        cell.mailbox.push_back(event);
        if !std::mem::replace(&mut self.poll_due, true) {
            out.wake
                .push((now + self.rng.span(Duration::ZERO, POLL_DELAY_MAX), Timer::Poll));
        }
    }

    fn post_to(&mut self, now: MonoTime, region: RegionId, peer: PeerId, event: Event, out: &mut Out) {
        if self.cells.get(&region).is_some_and(|cell| cell.peer.peer_id() == peer) {
            self.post(now, region, event, out);
        }
    }

    pub fn on_message(&mut self, now: MonoTime, from: Node, message: Message, out: &mut Out) {
        match message {
            Message::Raft(message) if message.is_beat => self.beats.on_message(&message, now),
            Message::Raft(message) => drop(self.on_raft(now, message, None, out)),
            Message::Snapshot { message, file } => {
                let region = RegionId(message.region_id);
                let to_peer = message.to.as_ref().map_or(0, |peer| peer.id);
                let ok = self.on_raft(now, message, Some(file), out);
                out.send.push((
                    from,
                    Message::SnapshotDone {
                        region,
                        to_peer: PeerId(to_peer),
                        ok,
                    },
                ));
            }
            Message::SnapshotDone { region, to_peer, ok } => self.end_stream(now, region, to_peer, ok, out),
            Message::Request(request) => self.on_request(now, from, request, out),
            Message::TxnRequest(request) => self.on_txn_request(now, from, request, out),
            Message::Timestamp { id, ts } => self.on_timestamp(now, id, Some(ts), out),
            Message::Located { leader, .. } => self.on_located_first(now, leader.store_id),
            Message::AskLeader(ask) => self.on_ask_leader(now, from, ask, out),
            Message::LeaderSays { id, answer } => self.on_leader_says(now, id, answer, out),
            Message::Detect(detect) => self.on_detect(now, from, detect, out),
            Message::Deadlock(deadlock) => self.on_deadlock(now, deadlock, out),
            other => panic!("{} is not for a store", other.name()),
        }
        self.give_answers(now, out);
    }

    /// Whether the message reached a peer.
    fn on_raft(&mut self, now: MonoTime, message: RaftMessage, file: Option<Bytes>, out: &mut Out) -> bool {
        let region = RegionId(message.region_id);
        let decision = self
            .control
            .on_message(&message, now)
            .unwrap_or_else(|error| self.stop(&error));
        match decision {
            Decision::Drop => {
                self.note_refused(&message);
                return false;
            }
            Decision::Answer(answer) => {
                self.send_raft(answer, out);
                return false;
            }
            Decision::Destroy => {
                let Some(cell) = self.cells.get_mut(&region) else {
                    return false;
                };
                let mut fx = Effects::default();
                cell.peer.destroy(&mut fx);
                self.carry_out(now, region, fx, out);
                return false;
            }
            Decision::Clear(regions) => {
                regions.into_iter().for_each(|region| self.destroy(region));
                self.counts.add("merge_cleared_for_snapshot");
                let all: Vec<_> = self.cells.keys().copied().collect();
                all.into_iter().for_each(|region| self.resume(now, region, out));
                return false;
            }
            Decision::Create(made) => {
                self.install(*made);
                self.counts.add("peer_created");
            }
            Decision::Deliver => {}
        }
        if let (Some(file), Some(key)) = (file, snapshot_key(&message)) {
            self.data.snapshots.receive(key, file);
        }
        self.post(now, region, Event::Raft(Box::new(message)), out);
        true
    }

    fn install(&mut self, made: (Peer, Applier)) {
        let cell = Cell::new(made);
        let before = self.cells.insert(cell.peer.region_id(), cell);
        assert!(before.is_none(), "store {}: a region has a peer already", self.id);
    }

    /// Counts messages for regions whose range another one holds here.
    fn note_refused(&mut self, message: &RaftMessage) {
        let region = RegionId(message.region_id);
        let is_snapshot = message.snapshot.is_some();
        match self.cells.get(&region) {
            Some(cell) if is_snapshot && message.to.is_some_and(|to| to.id == cell.peer.peer_id().0) => {
                self.counts.add("snapshot_over_other_region");
            }
            None if !is_snapshot && !message.start_key.is_empty() => self.counts.add("message_before_split"),
            _ => {}
        }
    }

    /// Puts the peers of regions to work that a split made.
    fn bear(&mut self, now: MonoTime, born: Vec<Born>, out: &mut Out) {
        for born in born {
            let region = RegionId(born.region.id);
            self.counts.add("region_born");
            self.counts
                .add_many("region_born_over_waiting_peer", u64::from(born.was_waiting));
            let made = self.control.bear(&born, now).unwrap_or_else(|error| self.stop(&error));
            match made {
                Some(made) => self.install(made),
                None => self.post(now, region, Event::Begin(Box::new(born.region)), out),
            }
            for message in self.control.registry().take_early(region) {
                self.counts.add("message_came_early");
                self.on_raft(now, message, None, out);
            }
        }
    }

    pub fn on_timer(&mut self, now: MonoTime, timer: Timer, disk: &mut Disk, out: &mut Out) {
        match timer {
            Timer::Tick => {
                self.tick(now, out);
                out.wake.push((now + self.config.tick.0, Timer::Tick));
            }
            Timer::Poll => self.poll(now, out),
            Timer::Synced => self.on_synced(now, out),
            Timer::Applied(region, peer) => self.on_task_done(now, region, peer, out),
            Timer::Flush => {
                let mark = self.data.engine.written();
                let applied = |(&region, cell): (&RegionId, &Cell)| (region, cell.peer.peer_id(), cell.applier.applied().index);
                let applied = self.cells.iter().map(applied).collect();
                out.wake.push((disk.sync(now), Timer::Flushed { mark, applied }));
                out.wake.push((now + self.pace.flush_interval, Timer::Flush));
            }
            Timer::Flushed { mark, applied } => {
                self.data.engine.sync_to(mark).unwrap_or_else(|error| self.stop(&error));
                for (region, peer, applied) in applied {
                    self.post_to(now, region, peer, Event::Durable { applied }, out);
                }
            }
            Timer::Background(region, peer, work) => self.post_to(now, region, peer, work.call(), out),
            Timer::SnapshotOverdue(region, peer) => self.end_stream(now, region, peer, false, out),
            Timer::TxnTick => self.on_txn_tick(now, out),
            Timer::TxnJob(TxnJob(job)) => self.run_txn_job(now, job, out),
            Timer::TimestampOverdue(id) => self.on_timestamp(now, id, None, out),
        }
        self.start_sync(now, disk, out);
        self.give_answers(now, out);
    }

    /// Gives every mailbox its turn.
    fn poll(&mut self, now: MonoTime, out: &mut Out) {
        self.poll_due = false;
        let due: Vec<_> = self
            .cells
            .iter()
            .filter(|(_, cell)| !cell.mailbox.is_empty())
            .map(|(&region, _)| region)
            .collect();
        for region in due {
            let Some(cell) = self.cells.get_mut(&region) else { continue };
            let batch = cell.mailbox.len().min(self.pace.batch_max);
            let events: Vec<_> = cell.mailbox.drain(..batch).collect();
            let fx = cell.peer.step(now, events);
            self.carry_out(now, region, fx, out);
        }
        let left = self.cells.values().any(|cell| !cell.mailbox.is_empty());
        if left && !std::mem::replace(&mut self.poll_due, true) {
            out.wake.push((now + POLL_DELAY_MAX, Timer::Poll));
        }
    }

    fn carry_out(&mut self, now: MonoTime, region: RegionId, fx: Effects, out: &mut Out) {
        let Some(cell) = self.cells.get_mut(&region) else { return };
        let peer = cell.peer.peer_id();
        for task in fx.apply {
            self.give_task(now, region, task, out);
        }
        for fetch in fx.fetch {
            let log = self.data.log.clone();
            let work = move || {
                let entries = log
                    .entries(region, fetch.low, fetch.high, fetch.bytes_max)
                    .expect("memory reads");
                Event::Fetched { fetch, entries }
            };
            self.in_background(now, region, peer, Box::new(work), out);
        }
        if let Some(measured) = fx.measure {
            // Regions are divided by faults, not by their size.
            let version = raftstore::region::epoch(&measured).version;
            let work = move || {
                Event::Measured(Some(Measured {
                    version,
                    ..Measured::default()
                }))
            };
            self.in_background(now, region, peer, Box::new(work), out);
        }
        self.counts.add_many(
            "log_compacted",
            fx.writes.iter().filter(|write| write.compact_to.is_some()).count() as u64,
        );
        self.writes.extend(fx.writes);
        let tell = fx.tell.into_iter();
        fx.send
            .into_iter()
            .chain(tell)
            .for_each(|message| self.send_raft(message, out));
        fx.send_snapshot
            .into_iter()
            .for_each(|message| self.send_snapshot(now, message, out));
        fx.answers.into_iter().for_each(|(reply, result)| reply(result));
        fx.read_errors.into_iter().for_each(|(reply, error)| reply(Err(error)));
        fx.admin_answers.into_iter().for_each(|(reply, result)| reply(result));
        fx.serve.into_iter().for_each(|read| self.serve(read));
        match fx.publish {
            Some(Some(delegate)) => drop(self.delegates.insert(region, delegate)),
            Some(None) => drop(self.delegates.remove(&region)),
            None => {}
        }
        if let Some(changed) = fx.region_changed {
            self.control.on_region_changed(&changed);
        }
        if fx.snapshot_refused {
            self.control.registry().release(region);
        }
        for child in fx.campaign {
            self.post(now, child, Event::Campaign, out);
        }
        for report in fx.report_parts {
            out.send.push((Node::Pd, Message::Report(Box::new(report))));
        }
        if let Some(report) = fx.report {
            out.send.push((Node::Pd, Message::Report(Box::new(report))));
        }
        if let Some(hibernates) = fx.hibernates {
            self.on_hibernates(now, region, hibernates, out);
        }
        if fx.destroy {
            self.destroy(region);
        }
    }

    /// Gives a region's applier a task.
    fn give_task(&mut self, now: MonoTime, region: RegionId, task: ApplyTask, out: &mut Out) {
        let Some(cell) = self.cells.get_mut(&region) else { return };
        cell.tasks.push_back(task);
        if cell.tasks.len() == 1 {
            let took = self.rng.exponential(self.pace.apply_mean);
            out.wake.push((now + took, Timer::Applied(region, cell.peer.peer_id())));
        }
    }

    fn resume(&mut self, now: MonoTime, region: RegionId, out: &mut Out) {
        self.give_task(now, region, ApplyTask::Resume, out);
    }

    /// What a merge that was applied asks of other regions here.
    fn spread_merge(&mut self, now: MonoTime, region: RegionId, outcome: &Outcome, out: &mut Out) {
        if let Some(merged) = outcome.merged {
            self.end_merged(merged);
        }
        if let Some(wakes) = outcome.wakes {
            self.resume(now, wakes, out);
        }
        match outcome.waits {
            Some(wait) if wait.is_gone => {
                self.counts.add("merge_source_gone");
                self.post(now, region, Event::SourceGone, out);
            }
            Some(wait) => {
                self.counts.add("merge_waited_for_source");
                self.post(now, wait.source, Event::CatchUp { at: wait.at }, out);
            }
            None => {}
        }
        for left in &outcome.leaves {
            self.post(now, *left, Event::Left, out);
        }
    }

    fn end_merged(&mut self, region: RegionId) {
        self.counts.add("merge_applied");
        if let Some(mut cell) = self.cells.remove(&region) {
            self.counts
                .add_many("merge_applied_where_source_led", u64::from(cell.peer.is_leader()));
            let mut fx = Effects::default();
            cell.peer.destroy(&mut fx);
            fx.answers.into_iter().for_each(|(reply, result)| reply(result));
            fx.read_errors.into_iter().for_each(|(reply, error)| reply(Err(error)));
            fx.admin_answers.into_iter().for_each(|(reply, result)| reply(result));
        }
        self.delegates.remove(&region);
        self.writes.retain(|write| write.region != region);
        let done = self.control.end_merged(region);
        done.unwrap_or_else(|error| self.stop(&error));
    }

    fn in_background(&mut self, now: MonoTime, region: RegionId, peer: PeerId, work: Box<dyn FnOnceEvent>, out: &mut Out) {
        let took = self.rng.exponential(Duration::from_millis(1));
        out.wake.push((now + took, Timer::Background(region, peer, work)));
    }

    fn destroy(&mut self, region: RegionId) {
        let Some(cell) = self.cells.remove(&region) else { return };
        self.delegates.remove(&region);
        // Written later, these would bring the log back.
        self.writes.retain(|write| write.region != region);
        let done = self.control.destroy(cell.peer.region(), cell.peer.peer_id());
        done.unwrap_or_else(|error| self.stop(&error));
        self.counts.add("peer_destroyed");
    }

    /// Begins to make durable what waits, unless a sync is under way.
    fn start_sync(&mut self, now: MonoTime, disk: &mut Disk, out: &mut Out) {
        if self.writes.is_empty() || !self.syncing.is_empty() {
            return;
        }
        self.syncing = std::mem::take(&mut self.writes);
        self.data
            .log
            .write(&self.syncing, false)
            .unwrap_or_else(|error| self.stop(&error));
        match self.syncing.iter().any(|write| write.sync) {
            true => out.wake.push((disk.sync(now), Timer::Synced)),
            false => self.end_writes(now, out),
        }
    }

    fn on_synced(&mut self, now: MonoTime, out: &mut Out) {
        self.data.log.sync().unwrap_or_else(|error| self.stop(&error));
        self.end_writes(now, out);
    }

    fn end_writes(&mut self, now: MonoTime, out: &mut Out) {
        for write in std::mem::take(&mut self.syncing) {
            write.send_after.into_iter().for_each(|message| self.send_raft(message, out));
            if write.ready != 0 {
                self.post(now, write.region, Event::Persisted { ready: write.ready }, out);
            }
        }
    }

    fn on_task_done(&mut self, now: MonoTime, region: RegionId, peer: PeerId, out: &mut Out) {
        let Some(cell) = self.cells.get_mut(&region).filter(|cell| cell.peer.peer_id() == peer) else {
            return;
        };
        let task = cell.tasks.pop_front().expect("a task is done only once");
        if !cell.tasks.is_empty() {
            out.wake
                .push((now + self.rng.exponential(self.pace.apply_mean), Timer::Applied(region, peer)));
        }
        let outcome = cell.applier.run(task);
        let mut outcome = outcome.unwrap_or_else(|error| self.stop(&error));
        self.requeue(now, region, std::mem::take(&mut outcome.resumed), out);
        self.spread_merge(now, region, &outcome, out);
        outcome.answers.into_iter().for_each(|(reply, result)| reply(result));
        outcome.admin_answers.into_iter().for_each(|(reply, result)| reply(result));
        if let Some(job) = outcome.generate {
            let snapshots = self.data.snapshots.clone();
            let work = move || Event::Generated(snapshots.generate(&job).ok());
            self.in_background(now, region, peer, Box::new(work), out);
        }
        let Some(applied) = outcome.applied else { return };
        self.counts
            .add_many("raft_snapshot_installed", u64::from(applied.installed.is_some()));
        for change in &applied.changes {
            match change {
                Change::Conf(_) => self.counts.add("conf_change_applied"),
                Change::Split(_) => self.note_split(region),
                Change::Merge(merge) => self.note_merge(&merge.step),
                Change::OnlyVoter(_) => self.counts.add("only_voter"),
            }
        }
        // Before the region's peer hears of the split, which may let them stand for election.
        self.bear(now, outcome.born, out);
        self.post(now, region, Event::Applied(applied), out);
    }

    /// Puts tasks that waited before all others of the region.
    fn requeue(&mut self, now: MonoTime, region: RegionId, tasks: Vec<ApplyTask>, out: &mut Out) {
        let Some(cell) = self.cells.get_mut(&region).filter(|_| !tasks.is_empty()) else {
            return;
        };
        let was_idle = cell.tasks.is_empty();
        tasks.into_iter().rev().for_each(|task| cell.tasks.push_front(task));
        if was_idle {
            let took = self.rng.exponential(self.pace.apply_mean);
            out.wake.push((now + took, Timer::Applied(region, cell.peer.peer_id())));
        }
    }

    fn note_merge(&mut self, step: &MergeStep) {
        let (count, is_fresh) = match step {
            MergeStep::Prepared { left: false, .. } => ("merge_prepared", true),
            MergeStep::Prepared { left: true, .. } => ("merge_prepared_too_late", true),
            MergeStep::Committed(_) => ("merge_committed", true),
            MergeStep::GivenUp => ("merge_given_up", false),
            MergeStep::RolledBack => ("merge_rolled_back", false),
        };
        self.counts.add(count);
        self.merged_recently |= is_fresh;
    }

    /// Whether a region came to stand still, or was taken over, since this was asked last.
    pub fn take_merged_recently(&mut self) -> bool {
        std::mem::take(&mut self.merged_recently)
    }

    /// Counts in what state a split found the region's peer.
    fn note_split(&mut self, region: RegionId) {
        let Some(cell) = self.cells.get(&region) else { return };
        let streams = self.streams.range((region, PeerId(0))..=(region, PeerId(u64::MAX)));
        let (streams, leads) = (streams.count() as u64, cell.peer.is_leader());
        self.counts.add("split_applied");
        self.counts.add_many("split_during_snapshot", streams.min(1));
        self.counts.add_many("split_applied_by_leader", u64::from(leads));
        self.split_recently = true;
    }

    /// Whether a split was applied since this was asked last.
    pub fn take_split_recently(&mut self) -> bool {
        std::mem::take(&mut self.split_recently)
    }

    fn send_raft(&mut self, message: RaftMessage, out: &mut Out) {
        let to = message.to.as_ref().map_or(0, |peer| peer.store_id);
        out.send.push((Node::Store(to), Message::Raft(message)));
    }

    fn send_snapshot(&mut self, now: MonoTime, message: RaftMessage, out: &mut Out) {
        let region = RegionId(message.region_id);
        let Some(to) = message.to else { return };
        let file = snapshot_key(&message).and_then(|key| self.data.snapshots.made(key));
        let Some(file) = file else {
            return self.post(
                now,
                region,
                Event::SnapshotSent {
                    to: PeerId(to.id),
                    ok: false,
                },
                out,
            );
        };
        self.streams.insert((region, PeerId(to.id)));
        out.send.push((Node::Store(to.store_id), Message::Snapshot { message, file }));
        out.wake
            .push((now + SNAPSHOT_TIME_MAX, Timer::SnapshotOverdue(region, PeerId(to.id))));
    }

    fn end_stream(&mut self, now: MonoTime, region: RegionId, to: PeerId, ok: bool, out: &mut Out) {
        if self.streams.remove(&(region, to)) {
            self.post(now, region, Event::SnapshotSent { to, ok }, out);
        }
    }

    /// A store that cannot go on ends its process; here that ends the run, since memory does not fail by itself.
    fn stop<T>(&self, error: &dyn std::error::Error) -> T {
        panic!("store {} stops: {}", self.id, chain(error))
    }
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

fn snapshot_key(message: &RaftMessage) -> Option<Key> {
    let meta = message.snapshot.as_ref()?;
    Some(Key {
        region: RegionId(message.region_id),
        position: LogPosition {
            index: meta.index,
            term: meta.term,
        },
    })
}
