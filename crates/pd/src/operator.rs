//! What leaders of regions were told to do and have not done yet.
//!
//! What is due follows from a region as its leader reports it ([`checker`](crate::checker), [`balance`](crate::balance),
//! [`hot`](crate::hot), [`wishes`](crate::wishes)); here it becomes an order, told again until it is carried out or too old. [`Operators`]
//! counts what is on its way to and from each store, so that one free store is not given everything at once, and remembers for a while how
//! orders ended, for clients that wait for them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use base::{MonoTime, PeerId, RegionId, StoreId};
use bytes::Bytes;
use proto::metapb::{Peer, PeerRole};

use crate::fleet::{Fleet, REGION_WEIGHT};
use crate::regions::RegionInfo;

/// An order that is not carried out for so long is forgotten, and thought over.
pub const MOVE_MAX: Duration = Duration::from_secs(600);
const TRANSFER_MAX: Duration = Duration::from_secs(10);
/// Ends of orders that are remembered.
const ENDED_MAX: usize = 4096;

/// One change of a region, for its leader to carry out.
#[derive(Clone, Debug, PartialEq)]
pub enum Operator {
    AddLearner(Peer),
    /// The peer is a learner that has caught up.
    Promote(Peer),
    Remove(Peer),
    /// Divide the region at these region keys, ascending, all inside it.
    Split(Vec<Bytes>),
    /// Become part of this neighbour.
    Merge(proto::metapb::Region),
    /// The peer is to lead.
    TransferLeader(Peer),
}

/// An [`Operator`] whose new peer has no id yet.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    AddLearner {
        to: StoreId,
        /// Whose peer goes for it, if the region has as many as it should.
        instead_of: Option<StoreId>,
    },
    Promote(Peer),
    Remove(Peer),
    TransferLeader(Peer),
}

/// What made an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Repair,
    Promote,
    Remove,
    LeaderRule,
    Spread,
    EvictLeader,
    GrantLeader,
    BalanceLeader,
    BalanceRegion,
    HotLeader,
    HotPeer,
    Scatter,
    /// Somebody asked for it.
    Wish,
    Merge,
    ShuffleLeader,
    ShuffleRegion,
}

impl Why {
    /// For people, and for clients, which know that of scattering.
    pub fn name(self) -> &'static str {
        match self {
            Why::Repair => "add-lacking-peer",
            Why::Promote => "promote-learner",
            Why::Remove => "remove-spare-peer",
            Why::LeaderRule => "leader-rule",
            Why::Spread => "spread-by-location",
            Why::EvictLeader => "evict-leader",
            Why::GrantLeader => "grant-leader",
            Why::BalanceLeader => "balance-leader",
            Why::BalanceRegion => "balance-region",
            Why::HotLeader => "move-hot-leader",
            Why::HotPeer => "move-hot-peer",
            Why::Scatter => "scatter-region",
            Why::Wish => "admin",
            Why::Merge => "merge-region",
            Why::ShuffleLeader => "shuffle-leader",
            Why::ShuffleRegion => "shuffle-region",
        }
    }
}

/// How far an order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Runs,
    Done,
    TookTooLong,
    /// Given up, as it was worth it no more.
    GivenUp,
    /// By another order.
    Replaced,
}

/// What is on its way to and from a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moving {
    pub arriving: u64,
    pub arriving_weight: u64,
    /// Peers that have come and have no data yet.
    pub catching_up: u64,
    /// Peers that will leave, since others are on their way to take their place.
    pub departing: u64,
    pub departing_weight: u64,
    /// Leaders to it less those from it.
    pub leading: i64,
}

/// What leaders were told and have not carried out. Volatile: told anew after a restart.
#[derive(Debug, Default)]
pub struct Operators {
    issued: BTreeMap<RegionId, Issued>,
    moving: BTreeMap<StoreId, Moving>,
    /// Regions of which a peer moves, from where, and what it weighs; until the old peer is gone.
    moves: BTreeMap<RegionId, (StoreId, u64)>,
    /// Stores of new peers that have no data yet: each is a raft snapshot on its way.
    catching_up: BTreeMap<RegionId, StoreId>,
    /// How the last order of a region ended, and in which order they did.
    ended: BTreeMap<RegionId, (Why, Progress)>,
    ends: VecDeque<RegionId>,
    /// Stores of which something has changed.
    touched: Vec<StoreId>,
}

/// An order and since when it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Issued {
    /// Of the region when it was told.
    conf_ver: u64,
    leader: StoreId,
    weight: u64,
    since: MonoTime,
    plan: Plan,
    pub why: Why,
    pub operator: Operator,
}

impl Issued {
    fn is_over(&self, now: MonoTime) -> bool {
        let bound = match self.plan {
            Plan::TransferLeader(_) => TRANSFER_MAX,
            _ => MOVE_MAX,
        };
        now.since(self.since) >= bound
    }

    /// For how long it stands.
    pub fn age(&self, now: MonoTime) -> Duration {
        now.since(self.since)
    }

    fn arrives_at(&self) -> Option<StoreId> {
        match &self.plan {
            Plan::AddLearner { to, .. } => Some(*to),
            _ => None,
        }
    }

    /// From which store to which leadership goes.
    fn leads(&self) -> Option<(StoreId, StoreId)> {
        match &self.plan {
            Plan::TransferLeader(to) => Some((self.leader, StoreId(to.store_id))),
            _ => None,
        }
    }
}

impl Operators {
    /// All orders that stand.
    pub fn all(&self) -> impl Iterator<Item = (RegionId, &Issued)> {
        self.issued.iter().map(|(region, issued)| (*region, issued))
    }

    /// What is on its way to and from a store.
    pub fn moving(&self, store: StoreId) -> Moving {
        self.moving.get(&store).copied().unwrap_or_default()
    }

    /// The store from which a peer of the region moves.
    pub fn moves_from(&self, region: RegionId) -> Option<StoreId> {
        self.moves.get(&region).map(|(from, _)| *from)
    }

    /// Stores of which something has changed since this was asked.
    pub fn take_touched(&mut self) -> std::vec::Drain<'_, StoreId> {
        self.touched.drain(..)
    }

    /// The region's order and how far it is, or how its last one ended.
    pub fn progress(&self, region: RegionId) -> Option<(Why, Progress)> {
        let standing = self.issued.get(&region).map(|issued| (issued.why, Progress::Runs));
        standing.or_else(|| self.ended.get(&region).copied())
    }

    /// The region is as it should be, or its move was given up.
    pub fn end_move(&mut self, region: RegionId) {
        if let Some((from, weight)) = self.moves.remove(&region) {
            self.depart(from, weight, -1);
        }
    }

    fn begin_move(&mut self, region: RegionId, from: StoreId, weight: u64) {
        self.end_move(region);
        self.moves.insert(region, (from, weight));
        self.depart(from, weight, 1);
    }

    fn depart(&mut self, from: StoreId, weight: u64, by: i64) {
        let moving = self.moving.entry(from).or_default();
        moving.departing = moving.departing.saturating_add_signed(by);
        moving.departing_weight = moving.departing_weight.saturating_add_signed(by * weight as i64);
        self.touched.push(from);
    }

    /// Forgets what was told of a region if it was carried out or took too long; before a new plan is made. Whether an order stood that
    /// does not any more.
    pub fn review(&mut self, now: MonoTime, info: &RegionInfo) -> bool {
        self.look_for_data(info);
        let Some(issued) = self.issued.get(&info.id()) else {
            return false;
        };
        let arrives_at = issued.arrives_at();
        let done = issued.conf_ver != conf_ver(info) || (issued.leads().is_some() && issued.leader.0 != info.leader.store_id);
        let is_over = issued.is_over(now);
        if done || is_over {
            self.settle(info.id(), if done { Progress::Done } else { Progress::TookTooLong });
        }
        if is_over && !done {
            self.end_move(info.id());
        }
        if let Some(store) = arrives_at.filter(|store| done && is_pending(info, *store)) {
            self.catching_up.insert(info.id(), store);
            self.moving.entry(store).or_default().catching_up += 1;
            self.touched.push(store);
        }
        done || is_over
    }

    /// Whether a new peer has got its data, or is gone.
    fn look_for_data(&mut self, info: &RegionInfo) {
        if self
            .catching_up
            .get(&info.id())
            .is_some_and(|store| !is_pending(info, *store))
        {
            self.end_catching_up(info.id());
        }
    }

    fn end_catching_up(&mut self, region: RegionId) {
        if let Some(store) = self.catching_up.remove(&region) {
            let moving = self.moving.entry(store).or_default();
            moving.catching_up = moving.catching_up.saturating_sub(1);
            self.touched.push(store);
        }
    }

    /// What was told and is waited for, if it is still worth it: a peer on its way to a store that stays, a change of leaders.
    pub fn standing(&self, region: RegionId, fleet: &Fleet) -> Option<Operator> {
        let issued = self.issued.get(&region)?;
        let waits = match issued.arrives_at() {
            Some(target) => fleet.get(target).is_some_and(|store| store.stays()),
            None => issued.leads().is_some(),
        };
        waits.then(|| issued.operator.clone())
    }

    /// Makes an operator of the plan, or finds the one made of it before: one change of membership adds one peer, however often it
    /// is told. `None` when a new peer is needed and there is no id for it now.
    pub fn issue(
        &mut self,
        now: MonoTime,
        info: &RegionInfo,
        (plan, why): (Plan, Why),
        new_id: impl FnOnce() -> Option<PeerId>,
    ) -> Option<Operator> {
        if let Some(issued) = self.issued.get(&info.id()).filter(|issued| issued.conf_ver == conf_ver(info)) {
            let same_kind = matches!((&issued.plan, &plan), (Plan::AddLearner { .. }, Plan::AddLearner { .. }));
            if same_kind || issued.plan == plan {
                return Some(issued.operator.clone());
            }
        }
        let weight = info.approximate_bytes + REGION_WEIGHT;
        let operator = match plan.clone() {
            Plan::AddLearner { to, instead_of } => {
                let id = new_id()?;
                if let Some(from) = instead_of {
                    self.begin_move(info.id(), from, weight);
                }
                Operator::AddLearner(Peer {
                    id: id.0,
                    store_id: to.0,
                    role: PeerRole::Learner as i32,
                    is_witness: false,
                })
            }
            Plan::Promote(peer) => Operator::Promote(Peer {
                role: PeerRole::Voter as i32,
                ..peer
            }),
            Plan::Remove(peer) => Operator::Remove(peer),
            Plan::TransferLeader(peer) => Operator::TransferLeader(peer),
        };
        self.settle(info.id(), Progress::Replaced);
        let issued = Issued {
            conf_ver: conf_ver(info),
            leader: StoreId(info.leader.store_id),
            weight,
            since: now,
            plan,
            why,
            operator: operator.clone(),
        };
        self.count(&issued, 1);
        self.issued.insert(info.id(), issued);
        Some(operator)
    }

    /// The region's order stands no more.
    pub fn settle(&mut self, region: RegionId, end: Progress) {
        if let Some(issued) = self.issued.remove(&region) {
            self.count(&issued, -1);
            self.remember(region, issued.why, end);
        }
    }

    /// Gives up what concerns regions that are there no more.
    pub fn tidy(&mut self, is_there: impl Fn(RegionId) -> bool) {
        let gone = |region: &&RegionId| !is_there(**region);
        let orders: Vec<RegionId> = self.issued.keys().filter(gone).copied().collect();
        orders.into_iter().for_each(|region| self.settle(region, Progress::GivenUp));
        let moves: Vec<RegionId> = self.moves.keys().filter(gone).copied().collect();
        moves.into_iter().for_each(|region| self.end_move(region));
        let waiting: Vec<RegionId> = self.catching_up.keys().filter(gone).copied().collect();
        waiting.into_iter().for_each(|region| self.end_catching_up(region));
    }

    /// Remembers how an order ended.
    pub fn remember(&mut self, region: RegionId, why: Why, end: Progress) {
        if self.ended.insert(region, (why, end)).is_none() {
            self.ends.push_back(region);
        }
        if self.ends.len() > ENDED_MAX
            && let Some(oldest) = self.ends.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }

    fn count(&mut self, issued: &Issued, by: i64) {
        if let Some(store) = issued.arrives_at() {
            let moving = self.moving.entry(store).or_default();
            moving.arriving = moving.arriving.saturating_add_signed(by);
            moving.arriving_weight = moving.arriving_weight.saturating_add_signed(by * issued.weight as i64);
            self.touched.push(store);
        }
        if let Some((from, to)) = issued.leads() {
            self.moving.entry(from).or_default().leading -= by;
            self.moving.entry(to).or_default().leading += by;
            self.touched.extend([from, to]);
        }
    }
}

fn is_pending(info: &RegionInfo, store: StoreId) -> bool {
    info.pending_peers.iter().any(|peer| peer.store_id == store.0)
}

fn conf_ver(info: &RegionInfo) -> u64 {
    info.region.region_epoch.unwrap_or_default().conf_ver
}

#[cfg(test)]
mod tests;
