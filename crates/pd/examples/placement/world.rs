//! A cluster of stores that do what the placement driver says, without raft and without data: regions are a few numbers each.
//!
//! The very machine that production runs is told of every region by heartbeats and answers with orders; time is virtual and goes on by
//! rounds of a second. A new peer takes some rounds to get its data, as a raft snapshot does, all else takes one.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{MonoTime, StoreId, WallTime};
use bytes::Bytes;
use pd::log::memory::MemoryLog;
use pd::{Effects, Event, Machine, MemberId, Operator, Options, RegionInfo, Reply, Request, State};
use proto::ferrite_pd::schedule::Kind;
use proto::ferrite_pd::{LocationLabels, Schedule, StoreLimit};
use proto::metapb::{Peer, PeerRole, Region, RegionEpoch, Store, StoreLabel};
use proto::pdpb::StoreStats;

/// Leaders report their regions once in so many rounds, stores themselves once in so many.
pub const REGION_HEARTBEAT: u64 = 60;
const STORE_HEARTBEAT: u64 = 10;
/// Rounds that a new peer waits for its data.
const SNAPSHOT: u64 = 2;
/// Requests that the machine is given at a time, as when its thread has been busy.
const BATCH: usize = 128;
const PEERS: u64 = 3;
const MIB: u64 = 1 << 20;

/// What happens to a region after its leader was told.
#[derive(Clone, Copy, Debug)]
enum Change {
    Add(Peer),
    HasData,
    Promote(u64),
    Remove(u64),
    Lead(u64),
}

/// A region as its leader sees it.
struct Held {
    peers: Vec<Peer>,
    leader: u64,
    conf_ver: u64,
    mib: u16,
    lags: Option<u64>,
    /// It does what it was told.
    is_busy: bool,
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug)]
pub enum Asker {
    Nobody,
    Region(usize),
}

/// What the world saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub heartbeats: u64,
    pub peers_added: u64,
    pub leaders_moved: u64,
}

/// See the module.
pub struct World {
    machine: Machine<Asker>,
    log: MemoryLog,
    round: u64,
    regions: Vec<Held>,
    /// What happens in which round.
    due: BTreeMap<u64, Vec<(usize, Change)>>,
    /// Peers of each store.
    held: BTreeMap<u64, u64>,
    reports_wanted: bool,
    pub counts: Counts,
    /// Time that the machine took, as the clock given to [`World::new`] tells.
    pub spent: Duration,
    clock: fn() -> MonoTime,
}

/// Where stores are: three zones.
fn store(id: u64) -> Store {
    let label = |key: &str, value: String| StoreLabel {
        key: key.to_owned(),
        value,
    };
    Store {
        id,
        address: format!("store{id}"),
        labels: vec![label("zone", format!("z{}", id % 3)), label("host", format!("h{id}"))],
        ..Store::default()
    }
}

fn key(at: usize) -> Bytes {
    match at {
        0 => Bytes::new(),
        at => Bytes::copy_from_slice(&(at as u64).to_be_bytes()),
    }
}

/// A number that looks drawn: the same for the same place.
fn mixed(of: u64) -> u64 {
    let mixed = (of ^ 0x5851_f42d_4c95_7f2d).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 17
}

impl World {
    /// So many stores, the first of which hold so many regions.
    pub fn new(stores: u64, filled: u64, regions: usize, clock: fn() -> MonoTime) -> World {
        let urls = vec!["http://pd".to_owned()];
        let options = Options {
            member: MemberId(1),
            name: "pd".into(),
            client_urls: urls.clone(),
            peer_urls: urls,
            cluster_id_if_new: 7,
            max_peer_count_if_new: PEERS as u32,
            merge_after: Duration::ZERO,
        };
        let mut world = World {
            machine: Machine::new(options, State::default(), 0),
            log: MemoryLog::new(),
            round: 0,
            regions: (0..regions as u64).map(|at| held(at, filled)).collect(),
            due: BTreeMap::new(),
            held: BTreeMap::new(),
            reports_wanted: false,
            counts: Counts::default(),
            spent: Duration::ZERO,
            clock,
        };
        for region in &world.regions {
            for peer in &region.peers {
                *world.held.entry(peer.store_id).or_default() += 1;
            }
        }
        world.step(Vec::new());
        let first = Request::Bootstrap {
            store: store(1),
            regions: vec![Region {
                id: u64::MAX,
                region_epoch: Some(RegionEpoch { conf_ver: 1, version: 1 }),
                peers: vec![Peer {
                    id: u64::MAX,
                    store_id: 1,
                    ..Peer::default()
                }],
                ..Region::default()
            }],
        };
        world.ask(first);
        (2..=stores).for_each(|id| world.ask(Request::PutStore(store(id))));
        let keys = vec!["zone".to_owned(), "host".to_owned()];
        world.change(Kind::LocationLabels(LocationLabels { keys }));
        world
    }

    /// Sets how many peers may be on their way to a store.
    pub fn limit(&mut self, arriving_max: u32) {
        self.change(Kind::StoreLimit(StoreLimit { store: 0, arriving_max }));
    }

    /// Changes how regions are spread.
    pub fn change(&mut self, kind: Kind) {
        self.ask(Request::Schedule(Schedule { kind: Some(kind) }));
    }

    fn ask(&mut self, request: Request) {
        self.step(vec![Event::Request(Asker::Nobody, request)]);
    }

    fn now(&self) -> MonoTime {
        MonoTime(1_000_000_000 * (1_000 + self.round))
    }

    /// Gives the machine events, and its log what it proposes, until nothing comes any more.
    fn step(&mut self, events: Vec<Event<Asker>>) {
        let (now, wall) = (self.now(), WallTime(1_000_000 + 1000 * self.round));
        let mut events = events;
        loop {
            let began = (self.clock)();
            let effects = self.machine.step(now, wall, events);
            self.spent += (self.clock)().since(began);
            self.take(effects);
            let came = self.log.poll();
            if came.is_empty() {
                return;
            }
            events = came.into_iter().map(Event::Log).collect();
        }
    }

    fn take(&mut self, effects: Effects<Asker>) {
        self.log.propose(effects.propose);
        if let Some((index, state)) = &effects.snapshot {
            self.log.snapshot(*index, state);
        }
        self.reports_wanted |= effects.want_reports;
        for (asker, reply) in effects.reply {
            if let (Asker::Region(at), Reply::Operator(Some(operator))) = (asker, reply.expect("nothing is refused")) {
                self.told(at, operator);
            }
        }
    }

    /// A leader begins to do what it was told, unless it does so already.
    fn told(&mut self, at: usize, operator: Operator) {
        let region = &mut self.regions[at];
        if region.is_busy {
            return;
        }
        let change = match operator {
            Operator::AddLearner(peer) => Change::Add(peer),
            Operator::Promote(peer) => Change::Promote(peer.id),
            Operator::Remove(peer) => Change::Remove(peer.id),
            Operator::TransferLeader(peer) => Change::Lead(peer.id),
            Operator::Split(_) | Operator::Merge(_) => return,
        };
        region.is_busy = true;
        self.due.entry(self.round + 1).or_default().push((at, change));
    }

    fn carry_out(&mut self, at: usize, change: Change) {
        let region = &mut self.regions[at];
        // Data come while the region does other things.
        region.is_busy &= matches!(change, Change::HasData);
        match change {
            Change::Add(peer) => {
                region.peers.push(peer);
                (region.lags, region.conf_ver) = (Some(peer.id), region.conf_ver + 1);
                *self.held.entry(peer.store_id).or_default() += 1;
                self.counts.peers_added += 1;
                self.due.entry(self.round + SNAPSHOT).or_default().push((at, Change::HasData));
            }
            Change::HasData => region.lags = None,
            Change::Promote(id) => {
                let found = region.peers.iter_mut().find(|peer| peer.id == id);
                found.expect("it is a peer").set_role(PeerRole::Voter);
                region.conf_ver += 1;
            }
            Change::Remove(id) => {
                let gone = region.peers.iter().position(|peer| peer.id == id).expect("it is a peer");
                let gone = region.peers.swap_remove(gone);
                *self.held.entry(gone.store_id).or_default() -= 1;
                region.conf_ver += 1;
                assert!(gone.id != region.leader, "a leader is not removed");
            }
            Change::Lead(id) => {
                region.leader = id;
                self.counts.leaders_moved += 1;
            }
        }
    }

    fn heartbeat(&self, at: usize) -> Event<Asker> {
        let held = &self.regions[at];
        let end = if at + 1 == self.regions.len() { 0 } else { at + 1 };
        let leader = held.peers.iter().find(|peer| peer.id == held.leader);
        let version = 2;
        let info = RegionInfo {
            region: Region {
                id: at as u64 + 1,
                start_key: key(at),
                end_key: key(end),
                region_epoch: Some(RegionEpoch {
                    conf_ver: held.conf_ver,
                    version,
                }),
                peers: held.peers.clone(),
                ..Region::default()
            },
            leader: *leader.expect("the leader is a peer"),
            term: 6,
            pending_peers: held.peers.iter().filter(|peer| Some(peer.id) == held.lags).copied().collect(),
            approximate_bytes: u64::from(held.mib) * MIB,
            approximate_keys: 1000,
            ..RegionInfo::default()
        };
        Event::Request(Asker::Region(at), Request::RegionHeartbeat(info))
    }

    fn report(&mut self, regions: impl Iterator<Item = usize>) {
        let mut batch = Vec::with_capacity(BATCH);
        for at in regions {
            batch.push(self.heartbeat(at));
            self.counts.heartbeats += 1;
            if batch.len() == BATCH {
                self.step(std::mem::replace(&mut batch, Vec::with_capacity(BATCH)));
            }
        }
        self.step(batch);
    }

    /// Every region reports, however often it does otherwise.
    pub fn report_all(&mut self) {
        self.reports_wanted = false;
        self.report(0..self.regions.len());
    }

    /// One second: what was told is done and reported, and a part of the regions report as they do from time to time.
    pub fn round(&mut self) {
        self.round += 1;
        let due = self.due.remove(&self.round).unwrap_or_default();
        due.iter().for_each(|(at, change)| self.carry_out(*at, *change));
        self.report(due.into_iter().map(|(at, _)| at));
        let beating: Vec<u64> = self
            .stores()
            .filter(|id| id % STORE_HEARTBEAT == self.round % STORE_HEARTBEAT)
            .collect();
        beating.into_iter().for_each(|id| self.store_heartbeat(id));
        if std::mem::take(&mut self.reports_wanted) {
            return self.report_all();
        }
        let first = (self.round % REGION_HEARTBEAT) as usize;
        self.report((first..self.regions.len()).step_by(REGION_HEARTBEAT as usize));
    }

    /// Ids of the stores that were not removed.
    pub fn stores(&self) -> impl Iterator<Item = u64> + '_ {
        let stores = self.machine.state().stores.values();
        stores.filter(|store| !pd::state::is_tombstone(store)).map(|store| store.id)
    }

    fn store_heartbeat(&mut self, id: u64) {
        let stats = StoreStats {
            store_id: id,
            region_count: self.peers_on(id) as u32,
            ..StoreStats::default()
        };
        self.ask(Request::StoreHeartbeat(stats));
    }

    /// Every store tells how much it holds.
    pub fn all_stores_heartbeat(&mut self) {
        let all: Vec<u64> = self.stores().collect();
        all.into_iter().for_each(|id| self.store_heartbeat(id));
    }

    pub fn peers_on(&self, store: u64) -> u64 {
        self.held.get(&store).copied().unwrap_or_default()
    }

    /// What each store that is there weighs, and how many regions it leads.
    pub fn loads(&self) -> Vec<(StoreId, u64, u64)> {
        let mut loads: BTreeMap<u64, (u64, u64)> = self.stores().map(|store| (store, (0, 0))).collect();
        for region in &self.regions {
            for peer in &region.peers {
                let load = loads.entry(peer.store_id).or_default();
                load.0 += u64::from(region.mib) * MIB + pd::fleet::REGION_WEIGHT;
                load.1 += u64::from(peer.id == region.leader);
            }
        }
        loads
            .into_iter()
            .map(|(store, (weight, leaders))| (StoreId(store), weight, leaders))
            .collect()
    }

    /// Regions whose peers are not in as many zones.
    pub fn badly_spread(&self) -> usize {
        let bad = |region: &&Held| {
            let zones: std::collections::BTreeSet<u64> = region.peers.iter().map(|peer| peer.store_id % 3).collect();
            zones.len() < PEERS as usize
        };
        self.regions.iter().filter(bad).count()
    }
}

/// A region whose peers are drawn from the first stores, one in each zone.
fn held(at: u64, filled: u64) -> Held {
    let per_zone = |zone: u64| if zone == 0 { filled / 3 } else { (filled + 3 - zone) / 3 };
    let in_zone = |zone: u64| {
        let nth = mixed(at * PEERS + zone) % per_zone(zone).max(1);
        // Ids of zone z are z, z + 3, ..; store 0 is none.
        if zone == 0 { 3 * (nth + 1) } else { zone + 3 * nth }
    };
    let peer = |zone: u64| Peer {
        id: (1 << 40) + at * PEERS + zone,
        store_id: in_zone(zone),
        ..Peer::default()
    };
    let peers: Vec<Peer> = (0..PEERS).map(peer).collect();
    Held {
        leader: peers[(mixed(at) % PEERS) as usize].id,
        peers,
        conf_ver: 1,
        mib: 48 + (mixed(at ^ 0xabcd) % 96) as u16,
        lags: None,
        is_busy: false,
    }
}
