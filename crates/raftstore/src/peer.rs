//! One copy of a region: turns requests, ticks and messages into raft entries, messages and answers.
//!
//! A plain value: [`Peer::step`] takes the time and events and gives back effects; it touches no disk, socket or clock. Shells carry
//! out the effects. What a shell owes the peer:
//! - a [`RaftWrite`]'s `send_after` leaves only once the write is durable, and [`Event::Persisted`] comes back, in the order of writes;
//! - [`ApplyTask`]s of a region run in order, each answered by [`Event::Applied`];
//! - `serve` takes its snapshot of the engine after the step that gave it.

mod election;
mod hibernate;
mod maintain;
mod merge;
mod propose;
mod read;
mod ready;
mod rescue;
mod size;
mod split;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, PeerId, RegionId, StoreId};
use engine::kv::{Context, Error, Modify, Reply, SnapshotRef};
use proto::ferrite_raft::RaftState;
use proto::metapb;
use raft::eraftpb::Entry;
use raft::{RawNode, StateRole};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::RaftMessage;
use crate::apply::{Applied, ApplyTask};
use crate::command::{AdminError, ConfOne};
use crate::config::Config;
use crate::delegate::Delegate;
use crate::lease::Lease;
use crate::rescue::Order;
use crate::size::Measured;
use crate::snapshot::Generated;
use crate::split::SplitOne;
use crate::storage::{Fetch, LogCache, LogPosition};

pub use size::SplitWanted;

/// Outcome of an administrative request.
pub type AdminReply = Box<dyn FnOnce(Result<(), AdminError>) + Send>;

/// What happens to a peer.
pub enum Event {
    /// One `raft.tick` passed. A shell that was late gives one, not many: time lost must not count against the leader.
    Tick,
    Raft(Box<RaftMessage>),
    Write {
        ctx: Context,
        changes: Vec<Modify>,
        deadline: MonoTime,
        reply: Reply<()>,
    },
    Read {
        ctx: Context,
        /// What must be applied, if the reader knows it already: a leader said so.
        at: Option<u64>,
        reply: Reply<SnapshotRef>,
    },
    /// Change the membership, made under this epoch.
    ConfChange {
        epoch: metapb::RegionEpoch,
        changes: Vec<ConfOne>,
        reply: AdminReply,
    },
    /// Divide the region, made under this epoch.
    Split {
        epoch: metapb::RegionEpoch,
        parts: Vec<SplitOne>,
        reply: AdminReply,
    },
    /// Stand still, under this epoch, to be merged into a neighbour as it is known.
    Merge {
        epoch: metapb::RegionEpoch,
        target: Box<metapb::Region>,
        reply: AdminReply,
    },
    /// The neighbour that is to take this region over waits, on this store, for it to apply its log up to here.
    CatchUp {
        at: LogPosition,
    },
    /// That neighbour went on without this region.
    Left,
    /// A region that this one is to take over is no longer on this store.
    SourceGone,
    /// A split on this store made this peer's region, which it waited for: its data is in place.
    Begin(Box<metapb::Region>),
    /// Hand leadership to this peer. The answer tells that it began.
    TransferLeader {
        to: PeerId,
        reply: AdminReply,
    },
    /// Go on without the voters that are lost for good. The answer tells that it began, or, of [`Order::OnlyVoter`], that it is done.
    Rescue {
        order: Order,
        reply: AdminReply,
    },
    /// Stand for election now, without waiting for the timeout.
    Campaign,
    /// Tell the placement driver of the region.
    Report,
    /// A peer that hibernates looks whether all is well: once every `raft.region-heartbeat`.
    Doze,
    /// A store was not heard for an election timeout; for peers that hibernate.
    StoreSilent(StoreId),
    /// The write of this number and all before it are durable.
    Persisted {
        ready: u64,
    },
    Applied(Applied),
    /// Entries that [`Effects::fetch`] asked for; empty if they were compacted meanwhile.
    Fetched {
        fetch: Fetch,
        entries: Vec<Entry>,
    },
    /// The raft snapshot that an [`ApplyTask::Generate`] made, or `None` if it could not.
    Generated(Option<Generated>),
    /// The stream of a raft snapshot to this peer ended.
    SnapshotSent {
        to: PeerId,
        ok: bool,
    },
    /// What [`Effects::measure`] asked for, or `None` if it could not be done.
    Measured(Option<Measured>),
    /// The engine holds everything up to this applied index durably.
    Durable {
        applied: u64,
    },
}

/// Goes to the raft log. All writes of a store may share one sync.
#[derive(Debug, Default)]
pub struct RaftWrite {
    pub region: RegionId,
    /// Number for [`Event::Persisted`]; zero when nobody waits.
    pub ready: u64,
    /// Drop the log before: a raft snapshot replaces it.
    pub reset: bool,
    /// Appended, replacing what stands at their place and behind.
    pub entries: Vec<Entry>,
    pub state: Option<RaftState>,
    /// Drop entries up to and with this index.
    pub compact_to: Option<u64>,
    /// Whether it must be durable before `send_after` leaves and `Persisted` comes back.
    pub sync: bool,
    pub send_after: Vec<RaftMessage>,
}

/// A read to be served from the engine as it now is.
pub struct ServeRead {
    pub region: Arc<metapb::Region>,
    pub term: u64,
    pub reply: Reply<SnapshotRef>,
}

/// What the placement driver is told of a region by its leader.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub region: metapb::Region,
    pub leader: metapb::Peer,
    pub term: u64,
    /// Peers far behind, or without data yet.
    pub pending: Vec<metapb::Peer>,
    /// Peers not heard of, with for how many seconds.
    pub down: Vec<(metapb::Peer, u64)>,
    /// About how large the region is; zero while that is not known.
    pub bytes: u64,
    pub keys: u64,
    /// What was put since the last report, and how long ago that was; zero: nothing is known.
    pub put_bytes: u64,
    pub put_keys: u64,
    pub since: Duration,
}

/// What a step wants done, in any order but for what each field says.
#[must_use] // dropping an effect loses a write or a reply
#[derive(Default)]
pub struct Effects {
    pub writes: Vec<RaftWrite>,
    /// May leave at once.
    pub send: Vec<RaftMessage>,
    /// A message that goes with a raft snapshot's file.
    pub send_snapshot: Vec<RaftMessage>,
    /// For peers of this store too.
    pub tell: Vec<RaftMessage>,
    pub apply: Vec<ApplyTask>,
    /// Answers that are ready.
    pub answers: Vec<(Reply<()>, Result<(), Error>)>,
    pub read_errors: Vec<(Reply<SnapshotRef>, Error)>,
    pub admin_answers: Vec<(AdminReply, Result<(), AdminError>)>,
    pub serve: Vec<ServeRead>,
    pub fetch: Vec<Fetch>,
    /// What readers on other threads may now use; `Some(None)` takes it away.
    pub publish: Option<Option<Delegate>>,
    pub report: Option<Report>,
    /// To be told before `report`: new regions, for which this store's peers will most likely speak soon.
    pub report_parts: Vec<Report>,
    /// The region's range or membership is a new one.
    pub region_changed: Option<Arc<metapb::Region>>,
    /// Regions whose peers on this store should stand for election: a split made them, and this peer leads the old one.
    pub campaign: Vec<RegionId>,
    /// Walk over the region, to tell its size and where to divide it.
    pub measure: Option<Arc<metapb::Region>>,
    /// The region has grown too large.
    pub split_wanted: Option<SplitWanted>,
    /// A raft snapshot that came will not be put in place.
    pub snapshot_refused: bool,
    /// From now on the peer needs no [`Event::Tick`], or needs them again.
    pub hibernates: Option<bool>,
    /// This peer is no longer a member: destroy it and its data.
    pub destroy: bool,
}

impl fmt::Debug for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Effects")
            .field("writes", &self.writes)
            .field("send", &self.send)
            .field("apply", &self.apply.len())
            .field("serve", &self.serve.len())
            .finish_non_exhaustive()
    }
}

/// Entries proposed together, whose outcome somebody waits for.
struct Proposal {
    index: u64,
    term: u64,
    /// When it was proposed: a lease may count from then once it is committed.
    asked: MonoTime,
    replies: Vec<Reply<()>>,
    admin: Option<AdminReply>,
}

/// A raft snapshot on its way in.
struct Incoming {
    position: LogPosition,
    region: metapb::Region,
    /// The write that resets the log for it, once given out.
    ready: Option<u64>,
}

/// What a peer is made from, at bootstrap, at a restart, or at another store's first message.
pub struct Start {
    pub peer: metapb::Peer,
    pub region: metapb::Region,
    pub log: LogCache,
    pub applied: LogPosition,
    /// Seed of everything this peer draws; differs at each restart.
    pub seed: u64,
    pub now: MonoTime,
    /// Nothing of it was ever logged: it has promised nothing to any leader.
    pub is_new: bool,
}

pub struct Peer {
    me: metapb::Peer,
    config: Arc<Config>,
    node: RawNode<LogCache>,
    region: Arc<metapb::Region>,
    /// What the last split took from the region: told to those who still believe in the old range.
    siblings: Arc<Vec<metapb::Region>>,
    applied: LogPosition,
    durable: u64,
    /// Peers of other stores by id, as messages named them; for answers to peers that the region does not list yet.
    known: BTreeMap<u64, metapb::Peer>,
    /// Of the region as messages told, before this peer has its data.
    told_epoch: metapb::RegionEpoch,
    heard: BTreeMap<u64, MonoTime>,
    role: StateRole,
    term: u64,
    lease: Lease,
    published: bool,
    rng: SmallRng,
    election: election::Election,
    hibernation: hibernate::Hibernation,
    ticks: u64,
    reported: MonoTime,
    /// Peers that were pending or down in that report.
    reported_lacking: Vec<maintain::Lacking>,
    /// A change of membership was refused since then, or a transfer of leadership came to nothing: the placement driver would ask for it again
    /// only at the next report.
    unheeded: bool,
    log_bytes: u64,
    size: size::Size,
    /// Writes of this step that will share an entry.
    gather: propose::Gather,
    proposals: VecDeque<Proposal>,
    reads: read::Reads,
    /// Numbers of writes under way, oldest first.
    unpersisted: VecDeque<u64>,
    /// Added to the crate's numbers, so that they differ from those before this peer had its range.
    ready_base: u64,
    ready_last: u64,
    incoming: Option<Incoming>,
    /// A snapshot is being generated.
    generating: bool,
    generated: Option<Generated>,
    /// Set while the region stands still, to be merged.
    standing: Option<merge::Standing>,
    /// Where it was last proposed to take another region over, or to give that up.
    take_over: LogPosition,
    /// A region to be taken over is gone: nothing is applied until a raft snapshot comes.
    lacks_source: bool,
    /// Who waits for this peer to become the only voter.
    rescue: Option<AdminReply>,
    destroyed: bool,
}

impl Peer {
    pub fn new(config: Arc<Config>, start: Start) -> Peer {
        let Start {
            peer,
            region,
            log,
            applied,
            seed,
            now,
            is_new,
        } = start;
        let mut rng = SmallRng::seed_from_u64(seed ^ peer.id.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let election = config.election_ticks;
        let (election_min, election_max) = (election, election + election / 2 + 1);
        let first_wait = rng.random_range(election_min..election_max);
        let reads = read::Reads::new(peer.id, rng.random());
        let restarted = log.hard_state().term > 0 && !is_new;
        let votes_from = if restarted {
            now + config.tick.0 * election
        } else {
            MonoTime::default()
        };
        let raft = raft::Config {
            id: peer.id,
            election_tick: election as usize,
            heartbeat_tick: config.heartbeat_ticks as usize,
            min_election_tick: election_min as usize,
            max_election_tick: election_max as usize,
            applied: applied.index,
            max_size_per_msg: config.message_max.0,
            max_inflight_msgs: config.inflight_max as usize,
            check_quorum: true,
            pre_vote: true,
            // The crate's own batching would join entries to an empty probe for another place of the log, whose answer then
            // acknowledges entries that the follower never got.
            batch_append: false,
            max_uncommitted_size: 8 * config.entry_max.0,
            max_committed_size_per_ready: 16 << 20,
            ..Default::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&raft, log, &logger).expect("options were validated at start");
        Peer {
            me: peer,
            lease: Lease::new(config.lease.0),
            config,
            region: Arc::new(region),
            siblings: Arc::default(),
            applied,
            durable: 0,
            known: BTreeMap::new(),
            told_epoch: metapb::RegionEpoch::default(),
            heard: BTreeMap::new(),
            role: node.raft.state,
            term: node.raft.term,
            node,
            published: false,
            rng,
            election: election::Election::new(first_wait, votes_from),
            hibernation: hibernate::Hibernation::default(),
            ticks: 0,
            reported: MonoTime::default(),
            reported_lacking: Vec::new(),
            unheeded: false,
            log_bytes: 0,
            size: size::Size::default(),
            gather: propose::Gather::default(),
            proposals: VecDeque::new(),
            reads,
            unpersisted: VecDeque::new(),
            ready_base: 0,
            ready_last: 0,
            incoming: None,
            generating: false,
            generated: None,
            standing: None,
            take_over: LogPosition::default(),
            lacks_source: false,
            rescue: None,
            destroyed: false,
        }
    }

    /// Handles `events` in order. The same state, time and events give the same effects, on every machine.
    pub fn step(&mut self, now: MonoTime, events: impl IntoIterator<Item = Event>) -> Effects {
        let mut fx = Effects::default();
        for event in events {
            self.on_event(now, event, &mut fx);
            // At once: what is proposed next must come behind the entry with which a leader begins its term.
            self.observe_role(now, &mut fx);
        }
        self.maybe_flush_writes(now, &mut fx);
        self.flush_reads(now, &mut fx);
        self.collect_ready(now, &mut fx);
        // Before followers can hear of what this step committed.
        self.lease.end().set_behind(self.is_behind());
        fx
    }

    fn on_event(&mut self, now: MonoTime, event: Event, fx: &mut Effects) {
        if self.destroyed {
            return refuse(event, self.region_id(), fx);
        }
        self.wake_for(now, &event, fx);
        match event {
            Event::Tick => self.on_tick(now, fx),
            Event::Raft(message) => self.on_message(now, *message, fx),
            Event::Write {
                ctx,
                changes,
                deadline,
                reply,
            } => self.on_write(now, ctx, changes, deadline, reply, fx),
            Event::Read { ctx, at, reply } => self.on_read(now, ctx, at, reply, fx),
            Event::ConfChange { epoch, changes, reply } => self.on_conf_change(now, epoch, changes, reply, fx),
            Event::Split { epoch, parts, reply } => self.on_split(now, epoch, parts, reply, fx),
            Event::Merge { epoch, target, reply } => self.on_merge(now, epoch, *target, reply, fx),
            Event::CatchUp { at } => self.on_catch_up(at),
            Event::Left => self.on_left(),
            Event::SourceGone => self.on_source_gone(),
            Event::Begin(region) => self.on_begin(now, *region, fx),
            Event::TransferLeader { to, reply } => self.on_transfer_leader(to, reply, fx),
            Event::Rescue { order, reply } => self.on_rescue(order, reply, fx),
            Event::Campaign => self.on_campaign(),
            Event::Report if self.is_leader() => self.report(now, fx),
            Event::Report => {}
            Event::Doze => self.on_doze(now, fx),
            Event::StoreSilent(store) => self.on_store_silent(now, store, fx),
            Event::Persisted { ready } => self.on_persisted(ready, fx),
            Event::Applied(applied) => self.on_applied(now, applied, fx),
            Event::Fetched { fetch, entries } => self.on_fetched(fetch, entries),
            Event::Generated(generated) => self.on_generated(generated),
            Event::SnapshotSent { to, ok } => {
                let status = if ok {
                    raft::SnapshotStatus::Finish
                } else {
                    raft::SnapshotStatus::Failure
                };
                self.node.report_snapshot(to.0, status);
            }
            Event::Measured(measured) => self.on_measured(measured, fx),
            Event::Durable { applied } => self.durable = self.durable.max(applied),
        }
    }

    /// Whether a raft snapshot took the place of the log, but not of the data yet. Meanwhile the crate must not campaign: it would
    /// look for entries between the two.
    fn is_installing(&self) -> bool {
        self.applied.index < self.node.store().truncated().index
    }

    fn on_message(&mut self, now: MonoTime, mut message: RaftMessage, fx: &mut Effects) {
        if let Some(merge) = message.merge.take() {
            return self.on_merge_message(now, merge, fx);
        }
        if let Some(hibernate) = message.hibernate {
            return self.on_hibernate(now, &message, hibernate.agreed, fx);
        }
        let Some(from) = message.from else { return };
        self.heard.insert(from.id, now);
        if let Some(epoch) = message.epoch.filter(|epoch| epoch.conf_ver > self.told_epoch.conf_ver) {
            self.told_epoch = epoch;
        }
        if crate::region::peer_of(&self.region, PeerId(from.id)).is_none() {
            self.known.insert(from.id, from);
        }
        if crate::message::is_vote_request(message.kind) && self.must_withhold_vote(now) {
            return;
        }
        if crate::message::starts_campaign(message.kind) && self.is_installing() {
            return;
        }
        let is_snapshot = crate::message::is_snapshot(&message);
        if is_snapshot && !self.admit_snapshot(&mut message) {
            fx.snapshot_refused = true;
            return;
        }
        let Some(raft) = crate::message::from_wire(message) else {
            return;
        };
        // An error means a message that raft does not take from this sender in this state: dropping it is what is wanted.
        let from = raft.from;
        let _dropped = self.node.step(raft);
        if is_snapshot {
            fx.snapshot_refused |= self.forget_unwanted_snapshot();
        }
        if self.node.raft.leader_id == from {
            self.election.heard_leader(self.ticks);
        }
    }

    pub fn region_id(&self) -> RegionId {
        RegionId(self.region.id)
    }

    pub fn peer_id(&self) -> PeerId {
        PeerId(self.me.id)
    }

    /// The region as last applied.
    pub fn region(&self) -> &Arc<metapb::Region> {
        &self.region
    }

    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    pub fn applied(&self) -> LogPosition {
        self.applied
    }

    /// First index the log still holds, for tests and reports.
    pub fn first_index(&self) -> u64 {
        self.node.store().truncated().index + 1
    }

    pub fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    pub fn committed_index(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// The peer that leads, as far as this one knows.
    pub fn leader(&self) -> Option<metapb::Peer> {
        let id = self.node.raft.leader_id;
        if id == self.me.id {
            return Some(self.me);
        }
        crate::region::peer_of(&self.region, PeerId(id)).cloned()
    }

    /// Whether it has its first data: before, it knows neither its range nor its fellow peers.
    pub fn is_initialized(&self) -> bool {
        !self.region.peers.is_empty()
    }

    fn not_leader(&self) -> Error {
        let leader = self.leader().filter(|leader| leader.id != self.me.id);
        Error::NotLeader {
            region: self.region_id(),
            leader,
        }
    }

    /// Whether entries are committed that are not applied here.
    fn is_behind(&self) -> bool {
        self.applied.index < self.committed_index()
    }

    /// Whether this leader applied an entry of its own term, and so all that was acknowledged before it.
    fn applied_in_term(&self) -> bool {
        self.applied.term == self.term()
    }
}

/// Answers an event that reached a peer that is gone. Whether a write took place is answered by `RegionNotFound`: it was not proposed.
fn refuse(event: Event, region: RegionId, fx: &mut Effects) {
    let error = Error::RegionNotFound { region };
    match event {
        Event::Write { reply, .. } => fx.answers.push((reply, Err(error))),
        Event::Read { reply, .. } => fx.read_errors.push((reply, error)),
        Event::ConfChange { reply, .. }
        | Event::Split { reply, .. }
        | Event::Merge { reply, .. }
        | Event::Rescue { reply, .. }
        | Event::TransferLeader { reply, .. } => fx.admin_answers.push((reply, Err(error.into()))),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
