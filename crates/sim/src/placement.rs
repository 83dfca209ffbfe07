//! The placement driver in the simulation: the machine of `pd` with a log in memory, under virtual time.
//!
//! Answers where regions are, from what their leaders report, and gives timestamps. It crashes and comes back with what its log
//! had synced; its wall clock jumps.

use base::{MonoTime, WallTime};
use bytes::Bytes;
use pd::log::memory::{MemoryLog, Recovered};
use pd::{Effects, Event, Lookup, Machine, MemberId, Options, RegionInfo, Reply, Request, State};
use proto::metapb::{Region, Store};
use raftstore::peer::Report;

use crate::disk::Disk;
use crate::message::Message;
use crate::network::Node;
use crate::rng::Rng;

/// Who waits for an answer, and for which.
#[derive(Clone, Debug)]
pub enum Asker {
    /// Nobody.
    Bootstrap,
    Report,
    Locate(Node),
    Timestamp(Node, u64),
}

/// What the placement driver wants done.
#[derive(Default)]
pub struct Out {
    pub send: Vec<(Node, Message)>,
    /// What it refused; who asked is not told, and asks again by itself.
    pub refusals: Vec<pd::Error>,
    /// Its log is synced at this time.
    pub synced_at: Option<MonoTime>,
}

pub struct Placement {
    machine: Machine<Asker>,
    log: MemoryLog,
    syncing: bool,
    /// Proposals made while a sync is under way.
    waiting: Vec<pd::log::Proposal>,
}

fn machine(recovered: Recovered) -> Machine<Asker> {
    let state = recovered.state.map_or_else(State::default, State::from_record);
    let urls = vec!["http://pd".to_owned()];
    let options = Options {
        member: MemberId(1),
        name: "pd".into(),
        client_urls: urls.clone(),
        peer_urls: urls,
        cluster_id_if_new: crate::store::CLUSTER.0,
        max_peer_count_if_new: 3,
        merge_after: std::time::Duration::ZERO,
    };
    Machine::new(options, state, recovered.index)
}

impl Placement {
    /// A placement driver of a cluster of so many stores with these regions.
    pub fn bootstrap(now: MonoTime, wall: WallTime, stores: u64, regions: &[Region]) -> Placement {
        let mut placement = Placement {
            machine: machine(Recovered::default()),
            log: MemoryLog::new(),
            syncing: false,
            waiting: Vec::new(),
        };
        placement.settle(now, wall);
        let store = |id: u64| Store {
            id,
            address: format!("store{id}"),
            ..Store::default()
        };
        let first = Request::Bootstrap {
            store: store(1),
            regions: regions.to_vec(),
        };
        for request in std::iter::once(first).chain((2..=stores).map(|id| Request::PutStore(store(id)))) {
            let effects = placement.machine.step(now, wall, [Event::Request(Asker::Bootstrap, request)]);
            placement.log.propose(effects.propose);
            placement.settle(now, wall);
        }
        assert!(placement.machine.state().is_bootstrapped(), "the regions were refused");
        placement
    }

    /// Polls the log at once until nothing more comes: at a start, before anybody asks.
    fn settle(&mut self, now: MonoTime, wall: WallTime) {
        loop {
            let events = self.log.poll();
            if events.is_empty() {
                return;
            }
            let effects = self.machine.step(now, wall, events.into_iter().map(Event::Log));
            self.log.propose(effects.propose);
        }
    }

    /// The process dies and starts again with what its log had synced, and a random part of what it had not.
    pub fn restart(&mut self, now: MonoTime, wall: WallTime, rng: &mut Rng) {
        let kept = rng.below(self.log.unsynced() + 1);
        self.machine = machine(self.log.crash(kept));
        (self.syncing, self.waiting) = (false, Vec::new());
        self.settle(now, wall);
    }

    pub fn on_message(&mut self, now: MonoTime, wall: WallTime, from: Node, message: Message, disk: &mut Disk, out: &mut Out) {
        let (asker, request) = match message {
            Message::Report(report) => (Asker::Report, Request::RegionHeartbeat(info(*report))),
            Message::Locate { key } => (Asker::Locate(from), locate(key)),
            Message::AskTimestamp { id } => (Asker::Timestamp(from, id), Request::Tso { count: 1 }),
            other => panic!("{} is not for the placement driver", other.name()),
        };
        let effects = self.machine.step(now, wall, [Event::Request(asker, request)]);
        self.carry_out(now, effects, disk, out);
    }

    /// The sync under way is done.
    pub fn on_synced(&mut self, now: MonoTime, wall: WallTime, disk: &mut Disk, out: &mut Out) {
        self.syncing = false;
        let events = self.log.poll();
        let effects = self.machine.step(now, wall, events.into_iter().map(Event::Log));
        self.carry_out(now, effects, disk, out);
    }

    fn carry_out(&mut self, now: MonoTime, effects: Effects<Asker>, disk: &mut Disk, out: &mut Out) {
        for (asker, reply) in effects.reply {
            out.refusals.extend(reply.as_ref().err().cloned());
            out.send.extend(answer(asker, reply));
        }
        self.waiting.extend(effects.propose);
        if !self.waiting.is_empty() && !self.syncing {
            self.syncing = true;
            self.log.propose(std::mem::take(&mut self.waiting));
            out.synced_at = Some(disk.sync(now));
        }
    }
}

fn info(report: Report) -> RegionInfo {
    RegionInfo {
        region: report.region,
        leader: report.leader,
        term: report.term,
        pending_peers: report.pending,
        ..RegionInfo::default()
    }
}

fn locate(key: Bytes) -> Request {
    Request::Regions(vec![Lookup::Key(key)])
}

/// What a client is told; refusals are not, it asks again by itself.
fn answer(asker: Asker, reply: Result<Reply, pd::Error>) -> Option<(Node, Message)> {
    match (asker, reply.ok()?) {
        (Asker::Locate(node), Reply::Regions(found)) => {
            let info = found.into_iter().next()??;
            Some((
                node,
                Message::Located {
                    region: info.region.clone(),
                    leader: info.leader,
                },
            ))
        }
        (Asker::Timestamp(node, id), Reply::Timestamps { last, .. }) => Some((node, Message::Timestamp { id, ts: last })),
        _ => None,
    }
}
