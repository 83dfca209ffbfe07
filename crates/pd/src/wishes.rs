//! Where somebody wants a region to be: scattered among others of a group, or on stores that were named.
//!
//! A wish stands until the region is there, nothing can come of it, or it took too long; meanwhile nothing else moves the region but what
//! its rules want. Volatile, as is what was scattered before: who asked can look, and ask again.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{MonoTime, RegionId, StoreId};
use proto::metapb::{Peer, PeerRole};

use crate::Error;
use crate::fit::Fit;
use crate::fleet::Candidate;
use crate::operator::{MOVE_MAX, Plan, Progress, Why};
use crate::regions::invalid_reason;
use crate::rules::Rule;

/// Wishes that stand at a time; more are refused.
const WISHES_MAX: usize = 100_000;
/// Groups whose scattering is remembered, and for how long after the last of it.
const GROUPS_MAX: usize = 1024;
const GROUP_MAX: Duration = Duration::from_secs(3600);

/// Stores that peers leave, and those that they go to.
type Moves = Vec<(StoreId, StoreId)>;
/// Places of peers in their region, and the stores where they are to be.
type Places = Vec<(usize, StoreId)>;

/// Where a region is to be.
#[derive(Clone, Debug, PartialEq)]
struct Wish {
    why: Why,
    /// Peers that go, and where to, one after the other.
    moves: Moves,
    leader: Option<StoreId>,
    until: MonoTime,
}

/// What was scattered under one name.
#[derive(Debug, Default)]
struct Group {
    used: MonoTime,
    /// Stores of each region, and of its leader.
    placed: BTreeMap<RegionId, (Vec<StoreId>, StoreId)>,
    peers: BTreeMap<StoreId, u64>,
    leaders: BTreeMap<StoreId, u64>,
}

/// What a wish asks for next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    Do(Plan, Why),
    /// A store that is to take a peer, or to lead, cannot now.
    Wait,
    /// The wish stands no more.
    End(Why, Progress),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Wishes {
    wishes: BTreeMap<RegionId, Wish>,
    groups: BTreeMap<String, Group>,
}

impl Wishes {
    /// Why the region is to be elsewhere, if a wish stands.
    pub fn why(&self, region: RegionId) -> Option<Why> {
        self.wishes.get(&region).map(|wish| wish.why)
    }

    /// Gives up the wish for a region; what it was for, if there was one.
    pub fn give_up(&mut self, region: RegionId) -> Option<Why> {
        self.wishes.remove(&region).map(|wish| wish.why)
    }

    /// Forgets wishes for regions that are there no more, and groups that nobody scatters.
    pub fn tidy(&mut self, now: MonoTime, is_there: impl Fn(RegionId) -> bool) {
        self.wishes.retain(|region, wish| wish.until > now && is_there(*region));
        self.groups.retain(|_, group| now.since(group.used) < GROUP_MAX);
    }

    /// Has a peer lead.
    pub fn lead(&mut self, now: MonoTime, fit: &Fit<'_>, to: StoreId) -> Result<(), Error> {
        let at = fit.peers().iter().position(|peer| peer.store_id == to.0);
        let at = at.ok_or_else(|| invalid_reason(format!("region {} has no peer on store {to}", fit.info.id())))?;
        let is_voter = fit.peers()[at].role() == PeerRole::Voter;
        if !is_voter || !fit.may_lead(at) || !fit.store_of(&fit.peers()[at]).is_some_and(Candidate::may_lead) {
            return Err(invalid_reason(format!("the peer on store {to} must not lead")));
        }
        self.put(now, fit, Why::Wish, Vec::new(), Some(to))
    }

    /// Has a peer go to another store.
    pub fn transfer(&mut self, now: MonoTime, fit: &Fit<'_>, from: StoreId, to: StoreId) -> Result<(), Error> {
        let holds = |store: StoreId| fit.peers().iter().position(|peer| peer.store_id == store.0);
        let id = fit.info.id();
        let at = holds(from).ok_or_else(|| invalid_reason(format!("region {id} has no peer on store {from}")))?;
        if holds(to).is_some() {
            return Err(invalid_reason(format!("region {id} has a peer on store {to} already")));
        }
        let target = fit.fleet.get(to).ok_or(Error::StoreNotFound { store: to })?;
        let allows = |rule: &Rule| rule.allows(&target.labels);
        if !target.is_open() || !fit.rule_at(at).is_some_and(allows) {
            return Err(invalid_reason(format!("store {to} must not take that peer")));
        }
        self.put(now, fit, Why::Wish, vec![(from, to)], None)
    }

    /// Has peers and leader go to stores that hold few regions of the same group.
    pub fn scatter(&mut self, now: MonoTime, fit: &Fit<'_>, name: &str) -> Result<(), Error> {
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(name) {
            let oldest = self
                .groups
                .iter()
                .min_by_key(|(_, group)| group.used)
                .map(|(name, _)| name.clone());
            self.groups.remove(&oldest.unwrap_or_default());
        }
        let id = fit.info.id();
        let group = self.groups.entry(name.to_owned()).or_default();
        group.used = now;
        group.forget(id);
        if group.placed.len() >= WISHES_MAX {
            *group = Group {
                used: now,
                ..Group::default()
            };
        }
        let (stores, moves) = group.choose_stores(fit);
        let leader = group.choose_leader(fit, &stores);
        group.remember(id, stores.iter().map(|(_, store)| *store).collect(), leader);
        self.put(now, fit, Why::Scatter, moves, Some(leader))
    }

    fn put(&mut self, now: MonoTime, fit: &Fit<'_>, why: Why, moves: Moves, leader: Option<StoreId>) -> Result<(), Error> {
        if self.wishes.len() >= WISHES_MAX {
            return Err(Error::Busy);
        }
        let until = now + MOVE_MAX;
        let wish = Wish {
            why,
            moves,
            leader,
            until,
        };
        self.wishes.insert(fit.info.id(), wish);
        Ok(())
    }

    /// What is to be done next for the region to be where it was wished; to be asked only if its rules want nothing of it.
    pub fn next(&mut self, now: MonoTime, fit: &Fit<'_>) -> Option<Next> {
        let wish = self.wishes.get(&fit.info.id())?;
        let next = wish.next(now, fit);
        if let Next::End(..) = next {
            self.wishes.remove(&fit.info.id());
        }
        Some(next)
    }
}

impl Wish {
    fn next(&self, now: MonoTime, fit: &Fit<'_>) -> Next {
        if self.until <= now {
            return Next::End(self.why, Progress::TookTooLong);
        }
        let holds = |store: StoreId| fit.peers().iter().find(|peer| peer.store_id == store.0);
        if let Some((from, to)) = self.moves.iter().find(|(_, to)| holds(*to).is_none()) {
            return match fit.fleet.get(*to) {
                Some(store) if store.takes_peers() && holds(*from).is_some() => {
                    let (to, instead_of) = (*to, Some(*from));
                    Next::Do(Plan::AddLearner { to, instead_of }, self.why)
                }
                Some(store) if store.is_open() && holds(*from).is_some() => Next::Wait,
                _ => Next::End(self.why, Progress::GivenUp),
            };
        }
        // The peers that were to go are gone once the rules have what they want.
        match self.leader.map(|leader| (leader, holds(leader))) {
            None => Next::End(self.why, Progress::Done),
            Some((_, Some(peer))) if fit.is_leader(peer) => Next::End(self.why, Progress::Done),
            Some((leader, Some(peer))) => match fit.fleet.get(leader).is_some_and(Candidate::may_lead) {
                true if fit.has_caught_up(peer) => Next::Do(Plan::TransferLeader(*peer), self.why),
                true => Next::Wait,
                false => Next::End(self.why, Progress::GivenUp),
            },
            Some((_, None)) => Next::End(self.why, Progress::GivenUp),
        }
    }
}

impl Group {
    /// For each peer that serves a rule its place and the store where it is to be, and the moves that this takes.
    fn choose_stores(&self, fit: &Fit<'_>) -> (Places, Moves) {
        let held = |store: StoreId| self.peers.get(&store).copied().unwrap_or_default();
        let (mut stores, mut moves) = (Vec::new(), Vec::new());
        for (at, peer, rule) in fit.served() {
            let here = StoreId(peer.store_id);
            let others = fit.others_of(rule, Some(at));
            let apart = |store: &Candidate| fit.apart(store, others, rule);
            let kept = fit.fleet.get(here).map_or(0, apart);
            let is_free = |store: &&Candidate| {
                let is_taken = fit.peers().iter().any(|peer| peer.store_id == store.store.0);
                let is_chosen = stores.iter().any(|(_, chosen)| *chosen == store.store);
                store.is_open() && !is_taken && !is_chosen && rule.allows(&store.labels) && apart(store) >= kept
            };
            let free = fit.fleet.all().iter().filter(is_free);
            let best = free.min_by_key(|store| (held(store.store), store.weight, store.store));
            let to = best.map(|store| store.store).filter(|to| held(*to) < held(here));
            moves.extend(to.map(|to| (here, to)));
            stores.push((at, to.unwrap_or(here)));
        }
        (stores, moves)
    }

    fn choose_leader(&self, fit: &Fit<'_>, stores: &[(usize, StoreId)]) -> StoreId {
        let leads = |store: StoreId| self.leaders.get(&store).copied().unwrap_or_default();
        let able = |(at, store): &&(usize, StoreId)| {
            let is_voter = |peer: &Peer| peer.role() == PeerRole::Voter;
            let store = fit.fleet.get(*store).is_some_and(Candidate::may_lead);
            store && fit.may_lead(*at) && fit.peers().get(*at).is_some_and(is_voter)
        };
        let now = StoreId(fit.info.leader.store_id);
        let of_store = |store: StoreId| fit.fleet.get(store).map_or(0, |store| store.leaders);
        let able = stores.iter().filter(able).map(|(_, store)| *store);
        let best = able.min_by_key(|store| (leads(*store), *store != now, of_store(*store), *store));
        best.unwrap_or(now)
    }

    fn forget(&mut self, region: RegionId) {
        let Some((stores, leader)) = self.placed.remove(&region) else {
            return;
        };
        let lower = |sums: &mut BTreeMap<StoreId, u64>, store| {
            if let Some(sum) = sums.get_mut(&store) {
                *sum = sum.saturating_sub(1);
            }
        };
        stores.into_iter().for_each(|store| lower(&mut self.peers, store));
        lower(&mut self.leaders, leader);
    }

    fn remember(&mut self, region: RegionId, stores: Vec<StoreId>, leader: StoreId) {
        for store in &stores {
            *self.peers.entry(*store).or_default() += 1;
        }
        *self.leaders.entry(leader).or_default() += 1;
        self.placed.insert(region, (stores, leader));
    }
}

#[cfg(test)]
mod tests;
