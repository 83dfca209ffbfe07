//! A whole cluster on one thread: stores, placement driver and clients, their network, disks and clocks, under virtual time.
//!
//! Everything that happens is an event in one queue, handled one after another; every draw comes from the seed. So a seed is a
//! run, and [`World::trace_hash`] tells whether two runs were the same.

mod clients;
mod faults;
mod inspect;
mod ranges;
mod records;
mod txns;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, Span, StoreId, WallTime};
use bytes::Bytes;
use parking_lot::Mutex;
use proto::metapb::{self, Region, RegionEpoch};
use raftstore::Config;
use raftstore::peer::Peer;

use self::clients::ClientSlot;
pub use self::faults::{Fault, one};
pub use self::inspect::Replica;
use self::txns::TxnSlot;
use crate::counts::Counts;
use crate::disk::Disk;
use crate::history::History;
use crate::message::Message;
use crate::network::{Network, Node};
use crate::observer::{Observer, kind};
use crate::options::{Options, Workload};
use crate::placement::{self, Placement};
use crate::queue::Queue;
use crate::rng::Rng;
use crate::store::{self, Data, Pace, Store, Timer};
use crate::trace::Trace;
use crate::workload::txn::TxnGenerator;
use crate::workload::{Generator, LETTERS};

/// Virtual time begins here, so that spans can be taken off it.
const BEGIN: MonoTime = MonoTime(1_000_000_000_000);
/// Wall clocks begin here.
const WALL_BEGIN_MS: u64 = 1_700_000_000_000;
/// Range version at bootstrap; the version before the split into regions is one.
const VERSION: u64 = 2;

pub(crate) enum Event {
    Deliver { from: Node, to: Node, message: Box<Message> },
    StoreTimer { store: u64, life: u64, timer: Timer },
    PdSynced { life: u64 },
    ClientWake { client: u64, number: u64 },
    ClientNext { client: u64 },
    Fault(Fault),
}

/// A store with its machine.
struct Slot {
    life: u64,
    disk: Disk,
    state: State,
    /// What came while the process was stopped.
    inbox: Option<Vec<Input>>,
}

enum State {
    Up(Box<Store>),
    Down(Data),
}

enum Input {
    Message(Node, Message),
    Timer(Timer),
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Broken(#[from] crate::observer::Broken),
    #[error(transparent)]
    Violation(#[from] crate::check::Violation),
    #[error("history of the run")]
    History(#[from] crate::history::Error),
    #[error("no progress: {what} within {bound:?} after healing")]
    NoProgress { what: String, bound: Duration },
    #[error("replicas of region {region} differ: {what}")]
    ReplicasDiffer { region: u64, what: String },
    #[error("client {client} was promised otherwise: {what}")]
    Promise { client: u64, what: String },
    #[error("records of the stores: {what}")]
    Records { what: String },
}

pub struct World {
    pub options: Options,
    config: Arc<Config>,
    seed: u64,
    queue: Queue<Event>,
    trace: Trace,
    pub network: Network,
    stores: BTreeMap<u64, Slot>,
    placement: Placement,
    placement_disk: Disk,
    placement_life: u64,
    /// By how much the placement driver's wall clock is off.
    wall_off_ms: i64,
    /// How far it ever was ahead.
    wall_off_max_ms: i64,
    workload: Workload,
    clients: Vec<ClientSlot>,
    generator: Generator,
    /// Instead of `clients`, if the workload is transactional.
    txn_clients: Vec<TxnSlot>,
    txn_generator: TxnGenerator,
    pub history: History,
    observer: Observer,
    pub counts: Counts,
    /// What came of administrative requests, noted by their replies.
    admin_outcomes: Arc<Mutex<Counts>>,
    rng_faults: Rng,
    /// Faults come by themselves.
    chaos: bool,
    /// No client begins anything before.
    napping_until: MonoTime,
    next_peer: u64,
    regions: Vec<Region>,
    /// What clients believe that slept since before the regions were split.
    ancient: Region,
    next_process: u64,
}

/// The regions of a fresh cluster, cut between [`LETTERS`], and the one region they were split from.
fn first_regions(options: &Options) -> (Vec<Region>, Region) {
    let mut next_peer = 1;
    let mut peers = |first_store: u64| -> Vec<metapb::Peer> {
        let store = |n: u64| (first_store + n) % options.stores + 1;
        let ids = next_peer..next_peer + options.replicas;
        next_peer += options.replicas;
        ids.zip(0..)
            .map(|(id, n)| metapb::Peer {
                id,
                store_id: store(n),
                ..Default::default()
            })
            .collect()
    };
    let cut = |region: u64| match region {
        0 => Bytes::new(),
        region if region == options.regions => Bytes::new(),
        region => Bytes::from(LETTERS[(region as usize * LETTERS.len()) / options.regions as usize].to_string()),
    };
    let region = |n: u64| Region {
        id: n + 1,
        start_key: cut(n),
        end_key: cut(n + 1),
        region_epoch: Some(RegionEpoch {
            conf_ver: 1,
            version: VERSION,
        }),
        peers: peers(n),
        ..Default::default()
    };
    let regions: Vec<Region> = (0..options.regions).map(region).collect();
    let ancient = Region {
        start_key: Bytes::new(),
        end_key: Bytes::new(),
        region_epoch: Some(RegionEpoch {
            conf_ver: 1,
            version: VERSION - 1,
        }),
        ..regions[0].clone()
    };
    (regions, ancient)
}

impl World {
    /// A fresh cluster in which nothing has happened yet. `print` writes the trace to stderr.
    pub fn new(seed: u64, options: Options, workload: Workload, print: bool) -> World {
        assert!(
            options.regions as usize <= LETTERS.len(),
            "{} regions, wanted at most {}",
            options.regions,
            LETTERS.len()
        );
        assert!(
            options.replicas <= options.stores,
            "{} replicas on {} stores",
            options.replicas,
            options.stores
        );
        let config = Config {
            lease: Span(options.lease),
            hibernate_after: Span(options.hibernate_after),
            log_entries_max: options.log_entries_max,
            region_heartbeat: Span(Duration::from_secs(1)),
            flush_interval: Span(options.flush_interval),
            ..Config::default()
        };
        assert_eq!(config.validate(), Vec::<String>::new(), "options make a bad configuration");
        let (regions, ancient) = first_regions(&options);
        let disk = |name: &str| Disk::new(Rng::stream(seed, name), options.disk.clone());
        let slot = |id: u64| Slot {
            life: 0,
            disk: disk(&format!("disk{id}")),
            state: State::Down(Data::bootstrap(StoreId(id), &regions)),
            inbox: None,
        };
        let wall = WallTime(WALL_BEGIN_MS);
        let mut world = World {
            config: Arc::new(config),
            seed,
            queue: Queue::starting_at(BEGIN),
            trace: Trace::new(print),
            network: Network::new(Rng::stream(seed, "network"), options.network.clone()),
            stores: (1..=options.stores).map(|id| (id, slot(id))).collect(),
            placement: Placement::bootstrap(BEGIN, wall, options.stores, &regions),
            placement_disk: disk("disk-pd"),
            placement_life: 0,
            wall_off_ms: 0,
            wall_off_max_ms: 0,
            workload,
            clients: Vec::new(),
            generator: Generator::new(workload, options.reads, options.value_bytes, options.key_operations),
            txn_clients: Vec::new(),
            txn_generator: TxnGenerator::new(
                workload,
                &mut Rng::stream(seed, "themes"),
                options.reads,
                options.key_operations,
            ),
            history: History::new(),
            observer: Observer::default(),
            counts: Counts::default(),
            admin_outcomes: Arc::default(),
            rng_faults: Rng::stream(seed, "faults"),
            chaos: false,
            napping_until: MonoTime::default(),
            next_peer: 1000,
            regions,
            ancient,
            next_process: 1,
            options,
        };
        for id in world.store_ids() {
            world.start(id);
        }
        match workload.is_transactional() {
            true => world.add_txn_clients(),
            false => world.add_clients(),
        }
        world
    }

    /// Whether clients run transactions.
    pub fn is_transactional(&self) -> bool {
        self.workload.is_transactional()
    }

    pub fn now(&self) -> MonoTime {
        self.queue.now()
    }

    /// Virtual time since the begin.
    pub fn elapsed(&self) -> Duration {
        self.now().since(BEGIN)
    }

    /// Events handled so far.
    pub fn step_number(&self) -> u64 {
        self.queue.handled()
    }

    pub fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    pub fn leaders(&self) -> u64 {
        self.observer.leaders()
    }

    pub fn store_ids(&self) -> Vec<u64> {
        self.stores.keys().copied().collect()
    }

    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Runs for this much virtual time.
    pub fn run_for(&mut self, span: Duration) -> Result<(), Failure> {
        let end = self.now() + span;
        while let Some(event) = self.queue.pop(end) {
            self.handle(event)?;
        }
        // Nothing happens until then: time passes all the same.
        self.queue.push(end, Event::Fault(Fault::Nothing));
        self.queue.pop(end);
        Ok(())
    }

    /// Runs until `done` holds, looking every 50 ms; whether it came to hold within `bound`.
    pub fn run_until(&mut self, bound: Duration, done: impl Fn(&World) -> bool) -> Result<bool, Failure> {
        let end = self.now() + bound;
        while !done(self) {
            if self.now() >= end {
                return Ok(false);
            }
            self.run_for(Duration::from_millis(50))?;
        }
        Ok(true)
    }

    fn handle(&mut self, event: Event) -> Result<(), Failure> {
        let now = self.now();
        match event {
            Event::Deliver { from, to, message } => {
                if !self.network.connected(from, to) {
                    self.trace.note(now, format_args!("{from}->{to} {} cut", message.name()));
                    return Ok(());
                }
                self.trace.note(now, format_args!("{from}->{to} {}", Short(&message)));
                self.deliver(from, to, *message)?;
            }
            Event::StoreTimer { store, life, timer } => {
                if self.stores[&store].life == life {
                    self.trace.note(now, format_args!("store{store} {}", timer.name()));
                    self.store_input(store, Input::Timer(timer))?;
                }
            }
            Event::PdSynced { life } => {
                if self.placement_life == life {
                    self.trace.note(now, format_args!("pd synced"));
                    let (wall, mut out) = (self.placement_wall(), placement::Out::default());
                    self.placement.on_synced(now, wall, &mut self.placement_disk, &mut out);
                    self.carry_out_placement(out);
                }
            }
            Event::ClientWake { client, number } if self.is_transactional() => self.wake_txn_client(client, number)?,
            Event::ClientWake { client, number } => self.wake_client(client, number),
            Event::ClientNext { client } if self.queue.now() < self.napping_until => {
                self.queue.push(self.napping_until, Event::ClientNext { client });
            }
            Event::ClientNext { client } if self.is_transactional() => self.begin_transaction(client)?,
            Event::ClientNext { client } => self.begin_operation(client),
            Event::Fault(fault) => self.on_fault(fault)?,
        }
        Ok(())
    }

    fn deliver(&mut self, from: Node, to: Node, message: Message) -> Result<(), Failure> {
        match to {
            Node::Store(store) => {
                if self.stores.contains_key(&store) {
                    self.store_input(store, Input::Message(from, message))?;
                }
            }
            Node::Pd => {
                let (now, wall, mut out) = (self.now(), self.placement_wall(), placement::Out::default());
                self.placement
                    .on_message(now, wall, from, message, &mut self.placement_disk, &mut out);
                self.carry_out_placement(out);
            }
            Node::Client(client) if self.is_transactional() => self.txn_client_message(client, message)?,
            Node::Client(client) => self.client_message(client, message),
        }
        Ok(())
    }

    fn store_input(&mut self, store: u64, input: Input) -> Result<(), Failure> {
        let now = self.queue.now();
        let slot = self.stores.get_mut(&store).expect("events name living stores");
        if let Some(inbox) = &mut slot.inbox {
            inbox.push(input);
            return Ok(());
        }
        let State::Up(running) = &mut slot.state else { return Ok(()) };
        let mut out = store::Out::default();
        match input {
            Input::Message(from, message) => {
                running.on_message(now, from, message, &mut out);
            }
            Input::Timer(timer) => running.on_timer(now, timer, &mut slot.disk, &mut out),
        }
        if self.trace.is_printing() {
            running
                .peers()
                .for_each(|peer| self.trace.tell(now, format_args!("    store{store} {}", Position(peer))));
        }
        if running.take_split_recently() {
            self.maybe_crash_after_split(store);
        }
        let running = self.running_mut(store).expect("it ran a moment ago");
        if running.take_merged_recently() {
            self.maybe_crash_in_merge(store);
        }
        self.carry_out_store(store, out)
    }

    fn carry_out_store(&mut self, store: u64, out: store::Out) -> Result<(), Failure> {
        let life = self.stores[&store].life;
        for (at, timer) in out.wake {
            self.queue.push(at, Event::StoreTimer { store, life, timer });
        }
        for (to, message) in out.send {
            if let Message::Raft(raft) | Message::Snapshot { message: raft, .. } = &message {
                self.observer.hear(raft)?;
                self.counts
                    .add_many("transfer_began", u64::from(raft.kind == kind::TIMEOUT_NOW));
                self.maybe_crash_at(store, raft);
            }
            self.send(Node::Store(store), to, message);
        }
        Ok(())
    }

    fn carry_out_placement(&mut self, out: placement::Out) {
        for refusal in out.refusals {
            self.trace.note(self.queue.now(), format_args!("pd refuses: {refusal}"));
            self.counts.add("placement_refused");
        }
        if let Some(at) = out.synced_at {
            self.queue.push(
                at,
                Event::PdSynced {
                    life: self.placement_life,
                },
            );
        }
        for (to, message) in out.send {
            self.send(Node::Pd, to, message);
        }
    }

    fn send(&mut self, from: Node, to: Node, message: Message) {
        let arrivals = self.network.send(self.queue.now(), from, to, message.is_repeatable());
        let Some((&last, earlier)) = arrivals.split_last() else {
            return;
        };
        for &at in earlier {
            self.queue.push(
                at,
                Event::Deliver {
                    from,
                    to,
                    message: Box::new(message.clone()),
                },
            );
        }
        self.queue.push(
            last,
            Event::Deliver {
                from,
                to,
                message: Box::new(message),
            },
        );
    }

    fn placement_wall(&self) -> WallTime {
        let elapsed = self.elapsed().as_millis() as u64;
        WallTime((WALL_BEGIN_MS + elapsed).saturating_add_signed(self.wall_off_ms))
    }

    fn start(&mut self, id: u64) {
        let now = self.queue.now();
        let slot = self.stores.get_mut(&id).expect("only known stores start");
        let State::Down(data) = &slot.state else { return };
        slot.life += 1;
        let in_memory = self.options.txn.in_memory;
        let pace = Pace {
            pessimistic_in_memory: in_memory,
            apply_mean: self.options.apply_mean,
            batch_max: self.options.batch_max,
            flush_interval: self.options.flush_interval,
        };
        let rng = Rng::stream(self.seed, &format!("store{id} life{}", slot.life));
        let mut out = store::Out::default();
        let running = Store::start(StoreId(id), self.config.clone(), pace, data.clone(), rng, now, &mut out);
        slot.state = State::Up(Box::new(running));
        self.trace.note(now, format_args!("store{id} starts life {}", slot.life));
        self.carry_out_store(id, out).expect("a store that starts sends nothing");
    }

    fn running(&self, store: u64) -> Option<&Store> {
        match &self.stores.get(&store)?.state {
            State::Up(running) => Some(running),
            State::Down(_) => None,
        }
    }

    fn running_mut(&mut self, store: u64) -> Option<&mut Store> {
        match &mut self.stores.get_mut(&store)?.state {
            State::Up(running) => Some(running),
            State::Down(_) => None,
        }
    }
}

/// Where a peer stands, for the trace.
struct Position<'a>(&'a Peer);

impl std::fmt::Display for Position<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (peer, leads) = (self.0, if self.0.is_leader() { " leads" } else { "" });
        write!(f, "r{} peer={} term={}{leads}", peer.region_id(), peer.peer_id(), peer.term())?;
        write!(
            f,
            " log={}..={} committed={}",
            peer.first_index(),
            peer.last_index(),
            peer.committed_index()
        )?;
        write!(f, " applied={}", peer.applied().index)?;
        match peer.merging() {
            Some((merging, left)) => write!(f, " merges into r{} left={left}", merging.target.id),
            None => Ok(()),
        }
    }
}

/// A message in a few words, for the trace.
struct Short<'a>(&'a Message);

impl std::fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Message::Raft(m) | Message::Snapshot { message: m, .. } => {
                let (from, to) = (m.from.as_ref().map_or(0, |p| p.id), m.to.as_ref().map_or(0, |p| p.id));
                write!(
                    f,
                    "raft r{} {from}->{to} kind={} term={} index={}",
                    m.region_id, m.kind, m.term, m.index
                )?;
                write!(f, " entries={} commit={} reject={}", m.entries.len(), m.commit, m.reject)
            }
            Message::Request(request) => {
                let ctx = &request.ctx;
                write!(
                    f,
                    "request {} r{} peer={} epoch={:?} {:?}",
                    request.id, ctx.region, ctx.peer, ctx.epoch.version, request.act
                )
            }
            Message::Response(response) => write!(f, "response {} {:?}", response.id, response.result),
            Message::TxnRequest(request) => {
                write!(
                    f,
                    "request {} r{} peer={} {:?} {:?}",
                    request.id, request.ctx.region, request.ctx.peer, request.way, request.act
                )
            }
            Message::TxnResponse(response) => write!(f, "response {} {:?}", response.id, response.result),
            Message::Timestamp { id, ts } => write!(f, "timestamp {id} {ts}"),
            Message::Report(report) => write!(
                f,
                "report r{} term={} {:?}",
                report.region.id, report.term, report.region.region_epoch
            ),
            Message::Located { region, leader } => write!(f, "located r{} at {} {:?}", region.id, leader.id, region.region_epoch),
            other => f.write_str(other.name()),
        }
    }
}
