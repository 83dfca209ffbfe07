//! How the peers of a region fit the rules of its segment: which peer serves which rule, what is lacking and what is too much.
//!
//! A pure function, asked for every region that reports, so it allocates nothing. Each rule in turn takes the best of the peers that no
//! rule before it took: those of its kind first, then learners that may come to vote. What no rule takes is one too many.

use base::StoreId;
use proto::ferrite_pd::placement_rule::Role;
use proto::metapb::{Peer, PeerRole};

use crate::fleet::{Candidate, Fleet, location_unit};
use crate::regions::RegionInfo;
use crate::rules::{PEERS_MAX, Rule};

/// A region among the stores, with its peers given to rules.
pub struct Fit<'a> {
    pub info: &'a RegionInfo,
    pub fleet: &'a Fleet,
    pub rules: &'a [Rule],
    /// The store that a peer is on its way from.
    moves_from: Option<StoreId>,
    /// The rule that each peer serves, by their places.
    rule_of: [Option<u8>; PEERS_MAX],
    /// How many peers each rule has, and how many of these are on stores that stay.
    held: [u8; PEERS_MAX],
    fine: [u8; PEERS_MAX],
}

/// Peers by their places, a bit for each.
type Mask = u32;

impl<'a> Fit<'a> {
    pub fn new(info: &'a RegionInfo, fleet: &'a Fleet, rules: &'a [Rule], moves_from: Option<StoreId>) -> Fit<'a> {
        let mut fit = Fit {
            info,
            fleet,
            rules,
            moves_from,
            rule_of: [None; PEERS_MAX],
            held: [0; PEERS_MAX],
            fine: [0; PEERS_MAX],
        };
        for learners_may_vote in [false, true] {
            for at in 0..rules.len() {
                fit.take(at, learners_may_vote);
            }
        }
        fit
    }

    /// Gives a rule the best of the free peers that suit it.
    fn take(&mut self, rule_at: usize, learners_may_vote: bool) {
        let rule = &self.rules[rule_at];
        let room = rule.count - usize::from(self.held[rule_at]);
        let kind = match rule.votes() {
            true if learners_may_vote => PeerRole::Learner,
            true => PeerRole::Voter,
            false => PeerRole::Learner,
        };
        let mut suits: Mask = 0;
        for (at, peer) in self.peers().iter().enumerate().take(PEERS_MAX) {
            let is_free = self.rule_of[at].is_none() && peer.role() == kind;
            if room > 0 && is_free && self.store_of(peer).is_some_and(|store| rule.allows(&store.labels)) {
                suits |= 1 << at;
            }
        }
        while suits.count_ones() as usize > room {
            let worst = self.places(suits).min_by_key(|at| self.worth(*at, suits, rule));
            suits &= !(1 << worst.expect("a mask with bits has places"));
        }
        for at in self.places(suits) {
            self.rule_of[at] = Some(rule_at as u8);
            self.held[rule_at] += 1;
            self.fine[rule_at] += u8::from(self.is_fine(&self.peers()[at]));
        }
    }

    fn places(&self, mask: Mask) -> impl Iterator<Item = usize> + use<> {
        (0..PEERS_MAX).filter(move |at| mask & (1 << at) != 0)
    }

    /// What a peer is worth to a rule among others; the least goes first: one on a store that is down or leaves, else one of the wrong
    /// kind, else the one that was to move, else the one that stands nearest to others, else the one on the fullest store.
    fn worth(&self, at: usize, among: Mask, rule: &Rule) -> impl Ord + use<> {
        let peer = &self.peers()[at];
        let store = self.store_of(peer);
        let tier = match store {
            None => 0,
            Some(store) if store.liveness == crate::stores::Liveness::Down => 1,
            Some(store) if store.leaves => 2,
            Some(_) => 3,
        };
        let suits = match rule.role {
            Role::Leader => self.is_leader(peer),
            Role::Follower => !self.is_leader(peer),
            Role::Voter | Role::Learner => true,
        };
        let stays = !self.leaves_store(peer);
        let others = among & !(1 << at);
        let apart = store.map_or(0, |store| self.apart(store, others, rule));
        let weight = std::cmp::Reverse(store.map_or(u64::MAX, |store| store.weight));
        (tier, suits, stays, apart, weight, self.is_leader(peer), peer.id)
    }

    pub fn peers(&self) -> &'a [Peer] {
        &self.info.region.peers
    }

    pub fn store_of(&self, peer: &Peer) -> Option<&'a Candidate> {
        self.fleet.get(StoreId(peer.store_id))
    }

    pub fn is_fine(&self, peer: &Peer) -> bool {
        self.store_of(peer).is_some_and(Candidate::stays)
    }

    pub fn is_leader(&self, peer: &Peer) -> bool {
        peer.id == self.info.leader.id
    }

    /// Whether the peer was to move, and another one has come for it.
    pub fn leaves_store(&self, peer: &Peer) -> bool {
        self.moves_from == Some(StoreId(peer.store_id))
    }

    pub fn has_caught_up(&self, peer: &Peer) -> bool {
        let is_down = self.info.down_peers.iter().any(|down| down.peer.id == peer.id);
        !is_down && self.info.pending_peers.iter().all(|pending| pending.id != peer.id)
    }

    /// Whether the leader can rely on all of them.
    pub fn all_caught_up(&self) -> bool {
        self.info.down_peers.is_empty() && self.info.pending_peers.is_empty()
    }

    /// The rule that a peer serves, by its place.
    pub fn rule_at(&self, at: usize) -> Option<&'a Rule> {
        let rule = self.rule_of.get(at).copied().flatten()?;
        Some(&self.rules[usize::from(rule)])
    }

    /// Peers with the rules that they serve.
    pub fn served(&self) -> impl Iterator<Item = (usize, &'a Peer, &'a Rule)> + '_ {
        let peers = self.peers().iter().enumerate();
        peers.filter_map(|(at, peer)| Some((at, peer, self.rule_at(at)?)))
    }

    /// Peers that serve no rule.
    pub fn spare(&self) -> impl Iterator<Item = (usize, &'a Peer)> + '_ {
        let peers = self.peers().iter().enumerate();
        peers.filter(|(at, _)| self.rule_at(*at).is_none())
    }

    /// The first rule that has fewer peers on stores that stay than it wants.
    pub fn lacking(&self) -> Option<&'a Rule> {
        let lacks = |(at, rule): &(usize, &Rule)| usize::from(self.fine[*at]) < rule.count;
        self.rules.iter().enumerate().find(lacks).map(|(_, rule)| rule)
    }

    /// Whether every rule has as many peers as it wants, of the right kind, and there is none besides.
    pub fn is_exact(&self) -> bool {
        let full = |(at, rule): (usize, &Rule)| usize::from(self.held[at]) == rule.count;
        let kind = |(_, peer, rule): (usize, &Peer, &Rule)| {
            peer.role() == if rule.votes() { PeerRole::Voter } else { PeerRole::Learner }
        };
        self.rules.iter().enumerate().all(full) && self.spare().next().is_none() && self.served().all(kind)
    }

    /// Whether the peer may lead, as far as rules go.
    pub fn may_lead(&self, at: usize) -> bool {
        let is_leaders = |rule: &Rule| rule.role == Role::Leader;
        match self.rule_at(at).map(|rule| rule.role) {
            Some(Role::Leader) => true,
            Some(Role::Voter) => !self.rules.iter().any(is_leaders),
            _ => false,
        }
    }

    /// All peers that serve `rule`, but the one at `without`.
    pub fn others_of(&self, rule: &Rule, without: Option<usize>) -> Mask {
        let same = |at: &usize| Some(*at) != without && self.rule_at(*at).is_some_and(|other| std::ptr::eq(other, rule));
        (0..self.peers().len().min(PEERS_MAX))
            .filter(same)
            .fold(0, |mask, at| mask | (1 << at))
    }

    /// All peers that serve `rule` on stores that stay: a further one is to stand apart from these.
    pub fn staying_of(&self, rule: &Rule) -> Mask {
        let stays = |at: &usize| self.is_fine(&self.peers()[*at]);
        let all = self.places(self.others_of(rule, None));
        all.filter(stays).fold(0, |mask, at| mask | (1 << at))
    }

    /// How far apart `store` stands from the peers in `others`: the more, the fewer of them a failed unit takes along. For each peer the
    /// number of location units that differ, from the largest on; of all peers the nearest.
    pub fn apart(&self, store: &Candidate, others: Mask, rule: &Rule) -> usize {
        let stores = self.places(others).filter_map(|at| self.store_of(&self.peers()[at]));
        let others = stores.filter(|other| other.store != store.store);
        let levels = |other: &Candidate| levels_apart(store, other, rule);
        others.map(levels).min().unwrap_or_else(|| levels_of(store, rule))
    }

    /// Stores without a peer of the region that `rule` allows, and that take peers at some time.
    fn open_stores(&self, rule: &'a Rule) -> impl Iterator<Item = &'a Candidate> + '_ {
        let holds = |store: &Candidate| self.peers().iter().any(|peer| peer.store_id == store.store.0);
        let stores = self.fleet.all().iter();
        stores.filter(move |store| store.is_open() && !holds(store) && rule.allows(&store.labels))
    }

    /// Those of them that take peers now.
    pub fn free_stores(&self, rule: &'a Rule) -> impl Iterator<Item = &'a Candidate> + '_ {
        self.open_stores(rule).filter(|store| store.takes_peers())
    }

    /// The best store for a further peer of `rule`, beside the peers in `others`. None if it is to be waited for: a peer that went elsewhere
    /// meanwhile would have to move again.
    pub fn best_target(&self, rule: &'a Rule, others: Mask) -> Option<&'a Candidate> {
        let (mut furthest, mut best): (usize, Option<&Candidate>) = (0, None);
        for store in self.open_stores(rule) {
            let apart = self.apart(store, others, rule);
            if apart > furthest {
                (furthest, best) = (apart, None);
            }
            let is_better = best.is_none_or(|best| (store.weight, store.store) < (best.weight, best.store));
            if apart == furthest && store.takes_peers() && is_better {
                best = Some(store);
            }
        }
        best
    }
}

/// How many location units of a store are known.
pub fn levels_of(store: &Candidate, rule: &Rule) -> usize {
    match rule.location_labels.as_slice() {
        [] => store.location.len(),
        own => own.iter().map_while(|key| location_unit(&store.labels, key)).count(),
    }
}

fn levels_apart(store: &Candidate, other: &Candidate, rule: &Rule) -> usize {
    let same = match rule.location_labels.as_slice() {
        [] => store.location.iter().zip(&other.location).take_while(|(a, b)| a == b).count(),
        own => {
            let units = own
                .iter()
                .map(|key| (location_unit(&store.labels, key), location_unit(&other.labels, key)));
            units.take_while(|(a, b)| a.is_some() && a == b).count()
        }
    };
    levels_of(store, rule) - same
}
