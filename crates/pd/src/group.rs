//! The raft group of the placement driver's members, as a pure state machine: proposals, messages, ticks and finished writes go in; writes,
//! messages and what comes out of the log go out.
//!
//! It wraps the `raft` crate (`RawNode`) as `raftstore::peer` does, without regions: commands are the entries, the state that they make is
//! the snapshot. Durability is an event: what a write promises leaves in `Effects::writes` with it, and [`Event::Persisted`] follows.
//! Messages come and go as `ferrite_pd.GroupMessage`, over raftstore's wall between the crate's messages and ours.
//!
//! *Lease.* A leader asks its followers for a sign of life (a read index) and, once a majority gave it, knows that no other member leads
//! for [`LEASE`] from the moment it asked: for an election timeout, which is longer, a member that heard a leader neither votes nor
//! campaigns, and one that restarted, and so forgot whom it heard, grants no vote for as long. Handing over leadership goes around
//! that rule, so a leader that begins to hand over gives up its lease for the rest of its term.
//!
//! *Membership* changes by single steps, each applied before the next is proposed. A new member learns first; the leader promotes it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use base::MonoTime;
use prost::Message as _;
use proto::ferrite_pd::change_member::Kind;
use proto::ferrite_pd::command::Kind as Command;
use proto::ferrite_pd::{self as record, GroupMessage};
use proto::ferrite_raft::ConfState;
use proto::metapb::Peer;
use raft::eraftpb::{self, ConfChangeSingle, ConfChangeType, ConfChangeV2, EntryType, MessageType};
use raft::{INVALID_ID, RawNode, StateRole};
use raftstore::message::{self, conf_state_to_wire, entry_to_wire};
use raftstore::storage::LogPosition;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use self::storage::Storage;
use crate::MemberId;
use crate::log::{Error, HardState, LogEvent, Proposal, ProposalId, Snapshot, Stored, Write};
use crate::planted::{self, Bug};

mod ready;
mod storage;
#[cfg(test)]
mod tests;

/// Time between ticks. Ticks never come closer together, even after a pause: spans of silence are counted in them.
pub const TICK: Duration = Duration::from_millis(100);
/// Ticks of silence after which a follower campaigns, and for which it grants no vote.
const ELECTION_TICKS: u32 = 10;
/// Ticks between heartbeats of a leader.
const HEARTBEAT_TICKS: usize = 3;
/// Ticks between renewals of the lease: three may fail before it ends.
const RENEW_TICKS: u64 = 2;
/// Shorter than the silence of `ELECTION_TICKS`, the first of which may be cut short, by a tenth for clocks that run apart.
pub const LEASE: Duration = Duration::from_millis(800);
const _: () = assert!(LEASE.as_millis() * 11 <= TICK.as_millis() * 10 * (ELECTION_TICKS as u128 - 1));
/// Entries that a learner may lack when it is promoted.
const PROMOTE_LAG_MAX: u64 = 64;

/// What happens to the group.
#[derive(Debug)]
pub enum Event {
    Tick,
    Message(Box<GroupMessage>),
    Propose(Vec<Proposal>),
    /// The write of this number and all before it are durable.
    Persisted {
        number: u64,
    },
    /// The state that commands up to `index` make.
    Snapshot {
        index: u64,
        state: Box<record::State>,
    },
    TransferLeader(MemberId),
}

/// A write with what waits for it.
#[derive(Debug, Default)]
#[must_use] // a write that is dropped is a promise that is broken
pub struct NumberedWrite {
    /// For [`Event::Persisted`].
    pub number: u64,
    pub write: Write,
    /// May leave once the write is durable.
    pub send_after: Vec<GroupMessage>,
}

/// What a step wants done.
#[derive(Debug, Default)]
#[must_use] // dropping an effect loses a write or an event
pub struct Effects {
    /// To be made durable in this order.
    pub writes: Vec<NumberedWrite>,
    /// May leave at once; each names its receiver in `raft.to`.
    pub send: Vec<GroupMessage>,
    /// For the machine, in this order.
    pub events: Vec<LogEvent>,
    /// The member cannot go on.
    pub failed: Option<Error>,
}

/// See the module.
pub struct Group {
    me: MemberId,
    /// Tells this run's proposals from those of all others.
    origin: u64,
    node: RawNode<Storage>,
    rng: SmallRng,
    ticks: u64,
    /// Ticks without a leader after which the crate campaigns.
    election_wait: u32,
    /// Tick at which a leader last spoke.
    heard_leader: u64,
    /// Tick of the next campaign while nobody leads.
    campaign_at: Option<u64>,
    /// No vote is granted before, unless a leader spoke since the start.
    votes_from: MonoTime,
    /// As last told to the machine.
    role: Role,
    /// When this member became leader, and at which tick.
    led_from: MonoTime,
    led_from_tick: u64,
    /// Tick at which each member last spoke.
    heard: BTreeMap<u64, u64>,
    /// This leader may have a lease.
    lease_allowed: bool,
    /// Signs of life asked for: number and time.
    asked: VecDeque<(u64, MonoTime)>,
    asks: u64,
    /// Position of the last entry that was handed to the machine.
    applied: LogPosition,
    /// Memberships by the index from which they hold, for snapshots.
    memberships: BTreeMap<u64, ConfState>,
    /// A snapshot of another member on its way to disk: the number of its write.
    incoming: Option<(Snapshot, Option<u64>)>,
    unpersisted: VecDeque<u64>,
    removed: bool,
}

/// What the machine knows of who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Role {
    term: u64,
    leader: u64,
    leads: bool,
    /// It was told that this member leads.
    announced: bool,
}

impl Group {
    /// A member whose disk holds `stored`, and which takes part. `seed` differs at each start.
    pub fn new(stored: &Stored, seed: u64, now: MonoTime) -> Group {
        let me = stored.identity.member;
        let mut rng = SmallRng::seed_from_u64(seed ^ me.0.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let applied = stored.snapshot.position;
        let config = raft::Config {
            id: me.0,
            election_tick: ELECTION_TICKS as usize,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: applied.index,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 64,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: 64 << 20,
            max_committed_size_per_ready: 16 << 20,
            ..Default::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, Storage::new(stored), &logger).expect("the options fit each other");
        let heard_before = stored.hard_state.term > stored.snapshot.position.term || stored.hard_state.term > 1;
        let votes_from = match heard_before {
            true => now + TICK * ELECTION_TICKS,
            false => MonoTime::default(),
        };
        let mut group = Group {
            me,
            origin: rng.random(),
            node,
            election_wait: rng.random_range(ELECTION_TICKS..ELECTION_TICKS + ELECTION_TICKS / 2 + 1),
            rng,
            ticks: 0,
            heard_leader: 0,
            campaign_at: None,
            votes_from,
            role: Role::default(),
            led_from: now,
            led_from_tick: 0,
            heard: BTreeMap::new(),
            lease_allowed: false,
            asked: VecDeque::new(),
            asks: 0,
            applied,
            memberships: BTreeMap::from([(applied.index, stored.snapshot.conf_state.clone())]),
            incoming: None,
            unpersisted: VecDeque::new(),
            removed: false,
        };
        group.maybe_begin_at_once(stored);
        group
    }

    /// Alone, or the first of a new group: nobody is to be waited for.
    fn maybe_begin_at_once(&mut self, stored: &Stored) {
        let voters = &stored.snapshot.conf_state.voters;
        let alone = stored.entries.is_empty() || stored.entries.iter().all(|entry| entry.kind == 0);
        let is_first = stored.hard_state.term <= 1 && voters.iter().min() == Some(&self.me.0);
        if (alone && voters[..] == [self.me.0]) || is_first {
            self.campaign();
        }
    }

    /// Handles events in order. The same state, time and events give the same effects. Touches no disk, socket or clock.
    pub fn step(&mut self, now: MonoTime, events: impl IntoIterator<Item = Event>) -> Effects {
        let mut fx = Effects::default();
        for event in events {
            self.on_event(now, event, &mut fx);
        }
        self.collect_ready(now, &mut fx);
        fx
    }

    fn on_event(&mut self, now: MonoTime, event: Event, fx: &mut Effects) {
        if self.removed {
            return;
        }
        match event {
            Event::Tick => self.on_tick(now),
            Event::Message(message) => self.on_message(now, *message, fx),
            Event::Propose(proposals) => {
                for proposal in proposals {
                    self.on_propose(proposal, fx);
                }
            }
            Event::Persisted { number } => self.on_persisted(number, fx),
            Event::Snapshot { index, state } => self.on_snapshot(index, *state, fx),
            Event::TransferLeader(to) => self.on_transfer_leader(to, fx),
        }
    }

    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// Index of the last entry in the log, for tests and reports.
    pub fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    fn on_tick(&mut self, now: MonoTime) {
        self.ticks += 1;
        let was = (self.node.raft.state, self.node.raft.term);
        // The crate draws the wait from a source of its own; ours comes from the seed.
        self.node.raft.set_randomized_election_timeout(self.election_wait as usize);
        if self.incoming.is_none() {
            self.node.tick();
        }
        let campaigns = matches!(self.node.raft.state, StateRole::PreCandidate | StateRole::Candidate);
        if campaigns && was != (self.node.raft.state, self.node.raft.term) {
            self.election_wait = self.rng.random_range(ELECTION_TICKS..ELECTION_TICKS + ELECTION_TICKS / 2 + 1);
        }
        self.maybe_campaign_again();
        if self.role.announced && self.is_leader() {
            self.maybe_give_up_after_transfer();
            self.maybe_renew_lease(now);
            self.maybe_promote();
        }
    }

    /// A campaign may fail though nobody leads; waiting a whole timeout again would only make the outage longer (RFC 3).
    fn maybe_campaign_again(&mut self) {
        let silence = self.ticks - self.heard_leader;
        if self.is_leader() || self.node.raft.leader_id != INVALID_ID || silence < u64::from(ELECTION_TICKS) {
            self.campaign_at = None;
            return;
        }
        let is_due = self.campaign_at.is_some_and(|tick| tick <= self.ticks);
        if is_due {
            self.campaign();
        }
        if is_due || self.campaign_at.is_none() {
            self.campaign_at = Some(self.ticks + self.rng.random_range(2..8));
        }
    }

    fn campaign(&mut self) {
        if self.node.raft.promotable() && self.incoming.is_none() {
            // Refused by the crate only while a change of membership waits to be applied: then the timeout comes anyway.
            drop(self.node.campaign());
        }
    }

    fn maybe_renew_lease(&mut self, now: MonoTime) {
        if self.lease_allowed && self.ticks.is_multiple_of(RENEW_TICKS) {
            self.asks += 1;
            self.asked.push_back((self.asks, now));
            let context = [self.origin, self.asks].map(u64::to_be_bytes).concat();
            self.node.read_index(context);
        }
    }

    /// A majority answered what was asked under this context.
    fn on_sign_of_life(&mut self, context: &[u8], fx: &mut Effects) {
        let Some(number) = number_of(self.origin, context) else {
            return;
        };
        let mut asked = None;
        while let Some((_, at)) = self.asked.pop_front_if(|(of, _)| *of <= number) {
            asked = Some(at);
        }
        if let Some(asked) = asked {
            self.renew_lease(asked, fx);
        }
    }

    fn renew_lease(&mut self, asked: MonoTime, fx: &mut Effects) {
        if self.lease_allowed && self.role.announced {
            fx.events.push(LogEvent::Lease { until: asked + LEASE });
        }
    }

    fn on_transfer_leader(&mut self, to: MemberId, fx: &mut Effects) {
        let is_voter = self.node.raft.prs().conf().voters().contains(to.0);
        if !self.is_leader() || to == self.me || !is_voter {
            return;
        }
        // Before the message can leave: from now on another member may lead without waiting for our lease.
        self.lease_allowed = false;
        self.asked.clear();
        fx.events.push(LogEvent::Lease {
            until: MonoTime::default(),
        });
        self.node.transfer_leader(to.0);
    }

    /// The other member did not take over in time. Without a lease this leader is of no use: it stands for election anew.
    fn maybe_give_up_after_transfer(&mut self) {
        if !self.lease_allowed && self.node.raft.lead_transferee.is_none() {
            self.node.raft.become_follower(self.node.raft.term, INVALID_ID);
        }
    }

    /// Lets a learner vote that has caught up.
    fn maybe_promote(&mut self) {
        if self.node.raft.has_pending_conf() {
            return;
        }
        let (prs, last) = (self.node.raft.prs(), self.last_index());
        let learners = prs.conf().learners().iter().filter_map(|&id| Some((id, prs.get(id)?)));
        let ready = learners
            .filter(|(_, progress)| progress.recent_active && progress.matched + PROMOTE_LAG_MAX >= last)
            .map(|(id, _)| id)
            .min();
        if let Some(id) = ready {
            let change = record::ChangeMember {
                kind: Kind::Promote as i32,
                member: Some(record::Member {
                    id,
                    ..record::Member::default()
                }),
            };
            // Refused only when leadership goes; then the next leader promotes.
            let _outcome = self.propose_change(0, change);
        }
    }

    fn on_propose(&mut self, proposal: Proposal, fx: &mut Effects) {
        let Proposal { id, command } = proposal;
        if let Command::ChangeMember(change) = command {
            if let Err(reason) = self.propose_change(id.0, change) {
                fx.events.push(LogEvent::Refused {
                    proposal: id,
                    reason: reason.to_owned(),
                });
            }
            return;
        }
        // The machine hears that this member does not lead (any more), and tells those who wait. The crate would forward it.
        if self.is_leader() {
            let context = self.context(id.0);
            let data = record::Command { kind: Some(command) }.encode_to_vec();
            if self.node.propose(context, data).is_err() {
                fx.events.push(LogEvent::Refused {
                    proposal: id,
                    reason: "leadership is being handed over".to_owned(),
                });
            }
        }
    }

    fn context(&self, id: u64) -> Vec<u8> {
        [self.origin, id].map(u64::to_be_bytes).concat()
    }

    fn propose_change(&mut self, id: u64, change: record::ChangeMember) -> Result<(), &'static str> {
        if !self.is_leader() || !self.role.announced {
            return Err("not leader");
        }
        if self.node.raft.has_pending_conf() {
            return Err("another change of the members is under way");
        }
        let member = change.member.as_ref().map_or(0, |member| member.id);
        let conf = self.node.raft.prs().conf();
        let (votes, learns) = (conf.voters().contains(member), conf.learners().contains(&member));
        match change.kind() {
            Kind::AddLearner if votes || learns => return Err("it is a member already"),
            Kind::Promote if !learns => return Err("it is no learner"),
            Kind::Remove | Kind::RemoveLost if !votes && !learns => return Err("it is no member"),
            Kind::Remove | Kind::RemoveLost if member == self.me.0 => {
                return Err("it leads: have another member lead first");
            }
            Kind::RemoveLost if self.spoke_lately(member) => return Err("a member of that name runs"),
            _ => {}
        }
        let raft = conf_change(&change);
        let command = record::Command {
            kind: Some(Command::ChangeMember(change)),
        };
        let context = [self.context(id), command.encode_to_vec()].concat();
        let dropped = self.node.propose_conf_change(context, raft).is_err();
        if dropped {
            Err("leadership is being handed over")
        } else {
            Ok(())
        }
    }

    /// Whether a member may be running, for all that this leader has heard.
    fn spoke_lately(&self, member: u64) -> bool {
        let heard = self.heard.get(&member).copied().unwrap_or_default();
        self.ticks < heard.max(self.led_from_tick) + 2 * u64::from(ELECTION_TICKS)
    }

    fn on_message(&mut self, now: MonoTime, message: GroupMessage, fx: &mut Effects) {
        let GroupMessage { raft: Some(wire), state } = message else {
            return;
        };
        let (from, to) = (wire.from.map_or(0, |peer| peer.id), wire.to.map_or(0, |peer| peer.id));
        if to != self.me.0 || from == 0 {
            return;
        }
        if wire.is_tombstone {
            return self.on_removed(fx);
        }
        self.heard.insert(from, self.ticks);
        if message::is_vote_request(wire.kind) {
            if self.role.announced && self.is_leader() && self.node.raft.prs().get(from).is_none() {
                return fx.send.push(tombstone(self.me, from));
            }
            let withholds = self.node.raft.leader_id == INVALID_ID && now < self.votes_from;
            if withholds && !planted::on(Bug::VoteAfterRestart) {
                return;
            }
        }
        let Some(mut raft) = message::from_wire(wire) else { return };
        if raft.msg_type == MessageType::MsgSnapshot && !self.admit_snapshot(&mut raft, &state) {
            return;
        }
        // An error means a message that raft does not take from this sender in this state: dropping it is what is wanted.
        let _dropped = self.node.step(raft);
        if self.node.snap().is_none_or(|snapshot| snapshot.is_empty()) {
            // Raft had no use for the snapshot just admitted.
            self.incoming.take_if(|(_, number)| number.is_none());
        }
        if self.node.raft.leader_id == from {
            self.heard_leader = self.ticks;
        }
    }

    fn on_removed(&mut self, fx: &mut Effects) {
        self.removed = true;
        fx.events.push(LogEvent::Follows { leader: None });
        fx.events.push(LogEvent::Removed);
    }

    /// Keeps the state of a raft snapshot until raft takes the snapshot in.
    fn admit_snapshot(&mut self, message: &mut eraftpb::Message, state: &[u8]) -> bool {
        let on_its_way = self.incoming.as_ref().is_some_and(|(_, number)| number.is_some());
        let Ok(state) = record::State::decode(state) else {
            return false;
        };
        let meta = message.get_snapshot().get_metadata();
        if on_its_way || meta.index <= self.applied.index {
            return false;
        }
        let snapshot = Snapshot {
            position: LogPosition {
                index: meta.index,
                term: meta.term,
            },
            conf_state: conf_state_to_wire(meta.get_conf_state()),
            state,
        };
        self.incoming = Some((snapshot, None));
        true
    }

    /// The machine gives its state: the log before goes.
    fn on_snapshot(&mut self, index: u64, state: record::State, fx: &mut Effects) {
        let start = self.node.store().start().index;
        let Some(term) = self
            .node
            .store()
            .term_of(index)
            .filter(|_| index > start && index <= self.applied.index)
        else {
            return;
        };
        let membership = self.memberships.range(..=index).next_back();
        let conf_state = membership.map(|(_, conf_state)| conf_state.clone());
        let snapshot = Snapshot {
            position: LogPosition { index, term },
            conf_state: conf_state.expect("the membership at the log's start is kept"),
            state,
        };
        self.memberships = self.memberships.split_off(&index);
        self.memberships.entry(index).or_insert_with(|| snapshot.conf_state.clone());
        self.node.mut_store().put_snapshot(snapshot.clone(), false);
        // Nobody waits for it, but it must stand in order with the writes around it.
        fx.writes.push(NumberedWrite {
            number: 0,
            write: Write {
                snapshot: Some(snapshot),
                ..Write::default()
            },
            send_after: Vec::new(),
        });
    }
}

/// The number in a context of this run.
fn number_of(origin: u64, context: &[u8]) -> Option<u64> {
    let (of, number) = context.get(..16)?.split_at(8);
    let number = u64::from_be_bytes(number.try_into().ok()?);
    (of == origin.to_be_bytes()).then_some(number)
}

fn conf_change(change: &record::ChangeMember) -> ConfChangeV2 {
    let single = ConfChangeSingle {
        node_id: change.member.as_ref().map_or(0, |member| member.id),
        change_type: match change.kind() {
            Kind::AddLearner => ConfChangeType::AddLearnerNode,
            Kind::Promote => ConfChangeType::AddNode,
            Kind::Remove | Kind::RemoveLost => ConfChangeType::RemoveNode,
        },
        ..Default::default()
    };
    let mut raft = ConfChangeV2::default();
    raft.set_changes(vec![single].into());
    raft
}

fn address(id: u64) -> Option<Peer> {
    Some(Peer { id, ..Peer::default() })
}

/// Tells a former member that it is none.
fn tombstone(from: MemberId, to: u64) -> GroupMessage {
    let raft = proto::ferrite_raft::RaftMessage {
        from: address(from.0),
        to: address(to),
        is_tombstone: true,
        ..Default::default()
    };
    GroupMessage {
        raft: Some(raft),
        ..GroupMessage::default()
    }
}
