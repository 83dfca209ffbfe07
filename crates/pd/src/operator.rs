//! What a region's leader is told to do next: keeps every region at its number of living peers, spreads regions and leaders over the
//! stores, empties stores that leave, and keeps leaders off stores that must not lead.
//!
//! [`plan`] is a pure function of one region and the stores, asked whenever the region's leader reports. A peer moves in steps, each of
//! which follows from the region as it then is: a learner on the better store, so that the quorum does not grow before there is data behind
//! it; its promotion once it has caught up; the removal of the worst peer of one too many, after leadership was handed over if that peer
//! leads. [`Operators`] remembers what was told, for how long, and counts what is on its way to a store, so that one free store is not
//! given everything at once. Placement by rules of ranges is not here.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{MonoTime, PeerId, RegionId, StoreId};
use bytes::Bytes;
use proto::metapb::{Peer, PeerRole};

use crate::regions::RegionInfo;
use crate::stores::Liveness;

/// Peers on their way to one store at a time: each is a raft snapshot.
const ARRIVING_MAX: u64 = 4;
/// An order that is not carried out for so long is forgotten, and thought over.
const MOVE_MAX: Duration = Duration::from_secs(600);
const TRANSFER_MAX: Duration = Duration::from_secs(10);

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

/// A store as [`plan`] sees it.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub store: StoreId,
    pub liveness: Liveness,
    /// How many regions have a peer there, and how many are led there, with those on their way counted.
    pub regions: u64,
    pub leaders: u64,
    /// Peers on their way to it.
    pub arriving: u64,
    /// It is to be emptied.
    pub leaves: bool,
    /// It must not lead.
    pub evicts: bool,
    /// Where it stands, from the largest unit (a zone) to the smallest (a host), as far as it says.
    pub location: Vec<String>,
}

impl Candidate {
    /// Whether a peer there counts.
    fn stays(&self) -> bool {
        self.liveness != Liveness::Down && !self.leaves
    }

    fn takes_peers(&self) -> bool {
        self.liveness == Liveness::Up && !self.leaves && self.arriving < ARRIVING_MAX
    }

    fn may_lead(&self) -> bool {
        self.liveness == Liveness::Up && !self.leaves && !self.evicts
    }
}

/// What is wanted of every region.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub peers: usize,
    /// Whether to even out stores that are fine as they are.
    pub balance: bool,
}

impl Wanted {
    /// Whether a region has what is wanted, and nothing more on its way.
    pub fn is_met_by(&self, info: &RegionInfo) -> bool {
        info.region.peers.len() == self.peers && !info.region.peers.iter().any(is_learner)
    }
}

/// The next step for a region; `None` when it is as it should be, must wait, or lacks a store to use. `moves_from` is the store that a peer
/// is on its way from.
pub fn plan(info: &RegionInfo, wanted: Wanted, stores: &[Candidate], moves_from: Option<StoreId>) -> Option<Plan> {
    let peers = &info.region.peers;
    let changes_now = peers
        .iter()
        .any(|peer| !matches!(peer.role(), PeerRole::Voter | PeerRole::Learner));
    if changes_now {
        return None;
    }
    let region = Region { info, stores };
    if let Some(learner) = peers.iter().find(|peer| is_learner(peer)) {
        return match region.is_fine(learner) {
            false => Some(Plan::Remove(*learner)),
            true => Some(Plan::Promote(*learner)).filter(|_| has_caught_up(info, learner)),
        };
    }
    let unfit = peers.iter().any(|peer| !region.is_fine(peer));
    if peers.len() > wanted.peers {
        return region.remove_worst(moves_from);
    }
    if peers.len() < wanted.peers || unfit {
        let target = region.best_target(None)?;
        return Some(Plan::AddLearner {
            to: target.store,
            instead_of: None,
        });
    }
    let suspect = peers.iter().any(|peer| !has_caught_up(info, peer));
    region
        .evict_leader()
        .or_else(|| region.balance_leader().filter(|_| wanted.balance && !suspect))
        .or_else(|| region.balance_peers().filter(|_| wanted.balance && !suspect))
}

/// A region among the stores.
struct Region<'a> {
    info: &'a RegionInfo,
    stores: &'a [Candidate],
}

impl<'a> Region<'a> {
    fn peers(&self) -> &'a [Peer] {
        &self.info.region.peers
    }

    fn store_of(&self, peer: &Peer) -> Option<&'a Candidate> {
        self.stores.iter().find(|store| store.store.0 == peer.store_id)
    }

    fn is_fine(&self, peer: &Peer) -> bool {
        self.store_of(peer).is_some_and(Candidate::stays)
    }

    fn is_leader(&self, peer: &Peer) -> bool {
        peer.id == self.info.leader.id
    }

    /// How far apart `store` stands from all peers but `without`: the more, the fewer of them a failed unit takes along. For each
    /// peer the number of location units that differ, from the largest on; of all peers the nearest.
    fn apart(&self, store: &Candidate, without: Option<u64>) -> usize {
        let others = self.peers().iter().filter(|peer| Some(peer.id) != without);
        let others = others
            .filter_map(|peer| self.store_of(peer))
            .filter(|other| other.store != store.store);
        let levels = |other: &Candidate| {
            let same = store.location.iter().zip(&other.location).take_while(|(a, b)| a == b).count();
            store.location.len() - same
        };
        others.map(levels).min().unwrap_or(store.location.len())
    }

    /// The best store for a further peer, or for one that takes the place of `instead`.
    fn best_target(&self, instead: Option<&Peer>) -> Option<&'a Candidate> {
        let without = instead.map(|peer| peer.id);
        let is_free = |store: &&Candidate| store.takes_peers() && self.peers().iter().all(|peer| peer.store_id != store.store.0);
        let free = self.stores.iter().filter(is_free);
        free.min_by_key(|store| (std::cmp::Reverse(self.apart(store, without)), store.regions, store.store))
    }

    /// Of one peer too many the worst goes: one on a store that is down or leaves, else the one that was to move, else the one that stands
    /// nearest to others, else the one on the fullest store. Not while a good one lags.
    fn remove_worst(&self, moves_from: Option<StoreId>) -> Option<Plan> {
        let worth = |peer: &&Peer| match self.store_of(peer) {
            None => (0, 0, std::cmp::Reverse(u64::MAX)),
            Some(store) if store.liveness == Liveness::Down => (0, 1, std::cmp::Reverse(store.regions)),
            Some(store) if store.leaves => (1, 0, std::cmp::Reverse(store.regions)),
            Some(store) if Some(store.store) == moves_from => (2, 0, std::cmp::Reverse(store.regions)),
            Some(store) => (3, self.apart(store, Some(peer.id)), std::cmp::Reverse(store.regions)),
        };
        let worst = self
            .peers()
            .iter()
            .min_by_key(|peer| (worth(peer), self.is_leader(peer), peer.id))?;
        let lags = |peer: &&Peer| peer.id != worst.id && self.is_fine(peer) && !has_caught_up(self.info, peer);
        if self.peers().iter().any(|peer| lags(&peer)) {
            return None;
        }
        match self.is_leader(worst) {
            true => self.next_leader().map(|(peer, _)| Plan::TransferLeader(*peer)),
            false => Some(Plan::Remove(*worst)),
        }
    }

    /// The voter that had better lead than the one that does.
    fn next_leader(&self) -> Option<(&'a Peer, &'a Candidate)> {
        let others = self.peers().iter().filter(|peer| !self.is_leader(peer) && !is_learner(peer));
        let able = others.filter_map(|peer| Some((peer, self.store_of(peer)?)));
        let able = able.filter(|(peer, store)| store.may_lead() && has_caught_up(self.info, peer));
        able.min_by_key(|(peer, store)| (store.leaders, peer.id))
    }

    fn evict_leader(&self) -> Option<Plan> {
        let leads_on = self.store_of(&self.info.leader)?;
        let must_go = leads_on.evicts || leads_on.leaves;
        self.next_leader()
            .filter(|_| must_go)
            .map(|(peer, _)| Plan::TransferLeader(*peer))
    }

    fn balance_leader(&self) -> Option<Plan> {
        let (from, (peer, to)) = (self.store_of(&self.info.leader)?, self.next_leader()?);
        is_worth_moving(from.leaders, to.leaders).then_some(Plan::TransferLeader(*peer))
    }

    /// A peer for a store with less; the fullest store's peer goes when the new one has come.
    fn balance_peers(&self) -> Option<Plan> {
        let held = self.peers().iter().filter_map(|peer| Some((peer, self.store_of(peer)?)));
        let (peer, from) = held.max_by_key(|(peer, store)| (store.regions, peer.id))?;
        let to = self.best_target(Some(peer))?;
        let no_nearer = self.apart(to, Some(peer.id)) >= self.apart(from, Some(peer.id));
        (no_nearer && is_worth_moving(from.regions, to.regions)).then_some(Plan::AddLearner {
            to: to.store,
            instead_of: Some(from.store),
        })
    }
}

/// Whether one of `from` had better be one of `to`: they must differ by more than the move changes and by more than a twentieth, else
/// stores that are as even as they get would swap for ever.
fn is_worth_moving(from: u64, to: u64) -> bool {
    from > to + 1 + to.div_ceil(20)
}

fn is_learner(peer: &Peer) -> bool {
    peer.role() == PeerRole::Learner
}

fn has_caught_up(info: &RegionInfo, peer: &Peer) -> bool {
    let is_down = info.down_peers.iter().any(|down| down.peer.id == peer.id);
    !is_down && info.pending_peers.iter().all(|pending| pending.id != peer.id)
}

/// What leaders were told and have not carried out. Volatile: told anew after a restart.
#[derive(Debug, Default)]
pub struct Operators {
    issued: BTreeMap<RegionId, Issued>,
    /// Peers on their way to each store, and leaders to it less those from it.
    arriving: BTreeMap<StoreId, u64>,
    leading: BTreeMap<StoreId, i64>,
    /// Regions of which a peer moves, and from where; until the old peer is gone.
    moves: BTreeMap<RegionId, StoreId>,
}

/// An order and since when it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Issued {
    /// Of the region when it was told.
    conf_ver: u64,
    leader: StoreId,
    since: MonoTime,
    plan: Plan,
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

    /// Peers on their way to a store.
    pub fn arriving(&self, store: StoreId) -> u64 {
        self.arriving.get(&store).copied().unwrap_or_default()
    }

    /// Leaders of a store, once those on their way have come and gone.
    pub fn leaders(&self, store: StoreId, now: u64) -> u64 {
        now.saturating_add_signed(self.leading.get(&store).copied().unwrap_or_default())
    }

    /// Peers that will leave a store, since others are on their way to take their place.
    pub fn departing(&self, store: StoreId) -> u64 {
        self.moves.values().filter(|from| **from == store).count() as u64
    }

    /// The store from which a peer of the region moves.
    pub fn moves_from(&self, region: RegionId) -> Option<StoreId> {
        self.moves.get(&region).copied()
    }

    /// The region is as it should be, or its move was given up.
    pub fn end_move(&mut self, region: RegionId) {
        self.moves.remove(&region);
    }

    /// Forgets what was told of a region if it was carried out or took too long; before a new plan is made. Whether an order stood that
    /// does not any more.
    pub fn review(&mut self, now: MonoTime, info: &RegionInfo) -> bool {
        let Some(issued) = self.issued.get(&info.id()) else {
            return false;
        };
        let done = issued.conf_ver != conf_ver(info) || (issued.leads().is_some() && issued.leader.0 != info.leader.store_id);
        let is_over = issued.is_over(now);
        if done || is_over {
            self.settle(info.id());
        }
        if is_over && !done {
            self.end_move(info.id());
        }
        done || is_over
    }

    /// What was told and is waited for, if it is still worth it: a peer on its way to a store that stays, a change of leaders.
    pub fn standing(&self, region: RegionId, stores: &[Candidate]) -> Option<Operator> {
        let issued = self.issued.get(&region)?;
        let waits = match issued.arrives_at() {
            Some(target) => stores.iter().any(|store| store.store == target && store.stays()),
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
        plan: Plan,
        new_id: impl FnOnce() -> Option<PeerId>,
    ) -> Option<Operator> {
        if let Some(issued) = self.issued.get(&info.id()).filter(|issued| issued.conf_ver == conf_ver(info)) {
            let same_kind = matches!((&issued.plan, &plan), (Plan::AddLearner { .. }, Plan::AddLearner { .. }));
            if same_kind || issued.plan == plan {
                return Some(issued.operator.clone());
            }
        }
        let operator = match plan.clone() {
            Plan::AddLearner { to, instead_of } => {
                let id = new_id()?;
                if let Some(from) = instead_of {
                    self.moves.insert(info.id(), from);
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
        self.settle(info.id());
        let issued = Issued {
            conf_ver: conf_ver(info),
            leader: StoreId(info.leader.store_id),
            since: now,
            plan,
            operator: operator.clone(),
        };
        self.count(&issued, 1);
        self.issued.insert(info.id(), issued);
        Some(operator)
    }

    /// The region is as it should be.
    pub fn settle(&mut self, region: RegionId) {
        if let Some(issued) = self.issued.remove(&region) {
            self.count(&issued, -1);
        }
    }

    fn count(&mut self, issued: &Issued, by: i64) {
        if let Some(store) = issued.arrives_at() {
            let arriving = self.arriving.entry(store).or_default();
            *arriving = arriving.saturating_add_signed(by);
        }
        if let Some((from, to)) = issued.leads() {
            *self.leading.entry(from).or_default() -= by;
            *self.leading.entry(to).or_default() += by;
        }
    }
}

fn conf_ver(info: &RegionInfo) -> u64 {
    info.region.region_epoch.unwrap_or_default().conf_ver
}

#[cfg(test)]
mod tests;
