//! Keeps every region at its number of peers: what its leader is told to do next.
//!
//! [`plan`] is a pure function of one region and the stores. A new peer comes as a learner, so that the quorum does not grow before
//! there is data behind it, and is promoted once it has caught up. A peer on a store that is down is removed after it was replaced.
//! Balancing and placement rules are not here.

use std::collections::BTreeMap;

use base::{PeerId, RegionId, StoreId};
use bytes::Bytes;
use proto::metapb::{Peer, PeerRole};

use crate::regions::RegionInfo;
use crate::stores::Liveness;

/// One change of a region, for its leader to carry out.
#[derive(Clone, Debug, PartialEq)]
pub enum Operator {
    AddLearner(Peer),
    /// The peer is a learner that has caught up.
    Promote(Peer),
    Remove(Peer),
    /// Divide the region at these region keys, ascending, all inside it.
    Split(Vec<Bytes>),
}

/// An [`Operator`] whose new peer has no id yet.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    AddLearner(StoreId),
    Promote(Peer),
    Remove(Peer),
}

/// A store as [`plan`] sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    pub store: StoreId,
    pub liveness: Liveness,
    /// How many regions have a peer there.
    pub regions: u64,
}

/// What brings the region nearer to `max_peer_count` living peers; `None` when it is there, must wait, or lacks a store to use.
pub fn plan(info: &RegionInfo, max_peer_count: usize, stores: impl Iterator<Item = Candidate>) -> Option<Plan> {
    let peers = &info.region.peers;
    let changes_now = peers
        .iter()
        .any(|peer| !matches!(peer.role(), PeerRole::Voter | PeerRole::Learner));
    let suspect = peers.len() != max_peer_count || !info.down_peers.is_empty() || peers.iter().any(is_learner);
    if changes_now || !suspect {
        return None;
    }
    let stores: Vec<Candidate> = stores.collect();
    let is_dead = |peer: &&Peer| {
        !stores
            .iter()
            .any(|store| store.store.0 == peer.store_id && store.liveness != Liveness::Down)
    };
    if let Some(learner) = peers.iter().find(|peer| is_learner(peer)) {
        return match is_dead(&learner) {
            true => Some(Plan::Remove(*learner)),
            false => Some(Plan::Promote(*learner)).filter(|_| has_caught_up(info, learner)),
        };
    }
    let dead = peers.iter().filter(|peer| peer.id != info.leader.id).find(is_dead);
    if peers.len() > max_peer_count {
        return dead.cloned().map(Plan::Remove);
    }
    if peers.len() == max_peer_count && dead.is_none() {
        return None;
    }
    let is_free = |store: &&Candidate| store.liveness == Liveness::Up && peers.iter().all(|peer| peer.store_id != store.store.0);
    let target = stores
        .iter()
        .filter(is_free)
        .min_by_key(|store| (store.regions, store.store))?;
    Some(Plan::AddLearner(target.store))
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
}

#[derive(Debug)]
struct Issued {
    conf_ver: u64,
    plan: Plan,
    operator: Operator,
}

impl Operators {
    /// Makes an operator of the plan, or finds the one made of it before: one change of membership adds one peer, however often it
    /// is told. `None` when a new peer is needed and there is no id for it now.
    pub fn issue(&mut self, info: &RegionInfo, plan: Plan, new_id: impl FnOnce() -> Option<PeerId>) -> Option<Operator> {
        let conf_ver = info.region.region_epoch.unwrap_or_default().conf_ver;
        if let Some(issued) = self.issued.get(&info.id()).filter(|issued| issued.conf_ver == conf_ver) {
            let same_kind = matches!((&issued.plan, &plan), (Plan::AddLearner(_), Plan::AddLearner(_)));
            if same_kind || issued.plan == plan {
                return Some(issued.operator.clone());
            }
        }
        let operator = match plan.clone() {
            Plan::AddLearner(store) => {
                let id = new_id()?;
                Operator::AddLearner(Peer {
                    id: id.0,
                    store_id: store.0,
                    role: PeerRole::Learner as i32,
                    is_witness: false,
                })
            }
            Plan::Promote(peer) => Operator::Promote(Peer {
                role: PeerRole::Voter as i32,
                ..peer
            }),
            Plan::Remove(peer) => Operator::Remove(peer),
        };
        self.issued.insert(
            info.id(),
            Issued {
                conf_ver,
                plan,
                operator: operator.clone(),
            },
        );
        Some(operator)
    }

    /// The region is as it should be.
    pub fn settle(&mut self, region: RegionId) {
        self.issued.remove(&region);
    }
}
