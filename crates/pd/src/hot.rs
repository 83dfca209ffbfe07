//! Which regions have much to do, and what of it had better be done by other stores.
//!
//! Leaders report what was read and written since their last report; rates are evened out over minutes, so that what is hot for a moment
//! moves nothing. Regions below a floor are not kept: memory goes with what is hot, not with what there is. A move is made from a store
//! that has clearly more to do than the others, if afterwards the two differ by clearly less, and a region that was moved rests: what
//! oscillates is worse than what is uneven. Volatile: after a change of leaders rates are learnt anew.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{MonoTime, RegionId, StoreId};

use crate::checker::next_leader;
use crate::fit::Fit;
use crate::operator::{MOVE_MAX, Plan, Why};
use crate::regions::{Flow, RegionInfo};

/// Over how long rates are evened out.
const EVEN_OUT: Duration = Duration::from_secs(180);
/// A key read or written costs about as much as so many bytes.
const KEY_LOAD: u64 = 256;
/// Regions with less to do than this a second are nobody's trouble.
const FLOOR: u64 = 64 << 10;
/// Reports in a row before a region counts as hot.
const REPORTS_MIN: u32 = 3;
/// How long a region stays where it was moved to.
const REST: Duration = Duration::from_secs(600);
/// Moves under way at a time.
const ORDERED_MAX: usize = 64;
/// What was not reported for so long is over: the region is no more, or is quiet.
const FORGET: Duration = Duration::from_secs(300);

/// What a region has to do in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    pub written_bytes: u64,
    pub written_keys: u64,
    pub read_bytes: u64,
    pub read_keys: u64,
}

impl Rates {
    fn of(flow: &Flow) -> Rates {
        let millis = u64::from(flow.millis).max(1);
        let rate = |sum: u64| sum.saturating_mul(1000) / millis;
        Rates {
            written_bytes: rate(flow.written_bytes),
            written_keys: rate(flow.written_keys),
            read_bytes: rate(flow.read_bytes),
            read_keys: rate(flow.read_keys),
        }
    }

    /// What follows from these rates of the past and those of the last `millis`.
    fn evened_out(self, new: Rates, millis: u64) -> Rates {
        let window = EVEN_OUT.as_millis() as u64;
        let mix = |old: u64, new: u64| {
            let sum = u128::from(old) * u128::from(window) + u128::from(new) * u128::from(millis);
            (sum / u128::from(window + millis)) as u64
        };
        Rates {
            written_bytes: mix(self.written_bytes, new.written_bytes),
            written_keys: mix(self.written_keys, new.written_keys),
            read_bytes: mix(self.read_bytes, new.read_bytes),
            read_keys: mix(self.read_keys, new.read_keys),
        }
    }

    fn write_load(&self) -> u64 {
        self.written_bytes.saturating_add(self.written_keys.saturating_mul(KEY_LOAD))
    }

    fn read_load(&self) -> u64 {
        self.read_bytes.saturating_add(self.read_keys.saturating_mul(KEY_LOAD))
    }
}

/// A hot region.
#[derive(Clone, Debug)]
struct Heat {
    rates: Rates,
    at: MonoTime,
    reports: u32,
    leader: StoreId,
    peers: Vec<StoreId>,
    moved: Option<MonoTime>,
}

/// What a store has to do for hot regions, in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreHeat {
    /// Of the regions that it leads.
    pub reads: u64,
    pub writes: u64,
    /// Of all that have a peer there, which each writes what its leader does.
    pub peer_writes: u64,
    pub regions: u64,
}

impl StoreHeat {
    fn as_leader(&self) -> u64 {
        self.reads + self.writes
    }

    fn as_peer(&self) -> u64 {
        self.reads + self.peer_writes
    }
}

/// A move that was ordered: counted as if it were done.
#[derive(Clone, Copy, Debug)]
struct Ordered {
    from: StoreId,
    to: StoreId,
    load: u64,
    of_leader: bool,
    until: MonoTime,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Hot {
    regions: BTreeMap<RegionId, Heat>,
    stores: BTreeMap<StoreId, StoreHeat>,
    ordered: BTreeMap<RegionId, Ordered>,
}

impl Hot {
    /// Takes what a leader told.
    pub fn on_heartbeat(&mut self, now: MonoTime, info: &RegionInfo) {
        if info.flow.millis == 0 {
            return;
        }
        let known = self.regions.remove(&info.id());
        if let Some(heat) = &known {
            self.count(heat, false);
        }
        if let Some(ordered) = self.ordered.get(&info.id()).copied()
            && (ordered.is_done(info) || ordered.until <= now)
        {
            self.ordered.remove(&info.id());
        }
        let old = known.as_ref().map_or(Rates::default(), |heat| heat.rates);
        let rates = old.evened_out(Rates::of(&info.flow), u64::from(info.flow.millis));
        if rates.write_load() + rates.read_load() < FLOOR {
            return;
        }
        let heat = Heat {
            rates,
            at: now,
            reports: known.as_ref().map_or(0, |heat| heat.reports).saturating_add(1),
            leader: StoreId(info.leader.store_id),
            peers: info.region.peers.iter().map(|peer| StoreId(peer.store_id)).collect(),
            moved: known.and_then(|heat| heat.moved),
        };
        self.count(&heat, true);
        self.regions.insert(info.id(), heat);
    }

    fn count(&mut self, heat: &Heat, add: bool) {
        let change = |sum: &mut u64, by: u64| *sum = if add { *sum + by } else { sum.saturating_sub(by) };
        let (reads, writes) = (heat.rates.read_load(), heat.rates.write_load());
        let leader = self.stores.entry(heat.leader).or_default();
        change(&mut leader.reads, reads);
        change(&mut leader.writes, writes);
        for store in &heat.peers {
            let store = self.stores.entry(*store).or_default();
            change(&mut store.peer_writes, writes);
            change(&mut store.regions, 1);
        }
    }

    /// Forgets what was not heard of for long, and moves that did not come about.
    pub fn tidy(&mut self, now: MonoTime) {
        let old: Vec<RegionId> = self
            .regions
            .iter()
            .filter(|(_, heat)| now.since(heat.at) > FORGET)
            .map(|(id, _)| *id)
            .collect();
        for id in old {
            let heat = self.regions.remove(&id).expect("it was just seen");
            self.count(&heat, false);
        }
        self.ordered.retain(|_, ordered| ordered.until > now);
        self.stores.retain(|_, heat| *heat != StoreHeat::default());
    }

    /// Whether the region was moved for its heat a short while ago.
    pub fn rests(&self, now: MonoTime, region: RegionId) -> bool {
        let moved = self.regions.get(&region).and_then(|heat| heat.moved);
        moved.is_some_and(|at| now.since(at) < REST)
    }

    /// All stores that have something to do.
    pub fn stores(&self) -> impl Iterator<Item = (StoreId, StoreHeat)> {
        self.stores.iter().map(|(store, heat)| (*store, *heat))
    }

    /// The regions with most to do, with their leaders' stores.
    pub fn hottest(&self, limit: usize) -> Vec<(RegionId, StoreId, Rates)> {
        let mut all: Vec<_> = self.regions.iter().map(|(id, heat)| (*id, heat.leader, heat.rates)).collect();
        all.sort_by_key(|(id, _, rates)| (std::cmp::Reverse(rates.read_load() + rates.write_load()), *id));
        all.truncate(limit);
        all
    }

    /// What a store has to do, with what was ordered counted as done.
    fn load(&self, store: StoreId, of_leader: bool) -> u64 {
        let heat = self.stores.get(&store).copied().unwrap_or_default();
        let mut load = if of_leader { heat.as_leader() } else { heat.as_peer() };
        // Few: each is on its way.
        for ordered in self.ordered.values().filter(|ordered| ordered.of_leader == of_leader) {
            if ordered.to == store {
                load += ordered.load;
            } else if ordered.from == store {
                load = load.saturating_sub(ordered.load);
            }
        }
        load
    }

    /// Whether a store has clearly more to do than stores have on average.
    fn is_loaded(&self, fit: &Fit<'_>, load: u64, of_leader: bool) -> bool {
        let open = fit.fleet.all().iter().filter(|store| store.is_open()).count() as u64;
        let total: u64 = self
            .stores
            .values()
            .map(|heat| if of_leader { heat.as_leader() } else { heat.as_peer() })
            .sum();
        load.saturating_mul(5).saturating_mul(open) > total.saturating_mul(6)
    }

    /// Moves a hot region's leader, or else a peer of it, to a store that has less to do.
    pub fn plan(&mut self, now: MonoTime, fit: &Fit<'_>) -> Option<(Plan, Why)> {
        let id = fit.info.id();
        let heat = self.regions.get(&id)?;
        let must_wait = self.ordered.len() >= ORDERED_MAX || self.ordered.contains_key(&id);
        if must_wait || heat.reports < REPORTS_MIN || self.rests(now, id) {
            return None;
        }
        let rates = heat.rates;
        let (plan, ordered) = self
            .move_leader(now, fit, rates)
            .or_else(|| self.move_peer(now, fit, rates))?;
        let why = if ordered.of_leader { Why::HotLeader } else { Why::HotPeer };
        self.ordered.insert(id, ordered);
        self.regions.get_mut(&id)?.moved = Some(now);
        Some((plan, why))
    }

    fn move_leader(&self, now: MonoTime, fit: &Fit<'_>, rates: Rates) -> Option<(Plan, Ordered)> {
        let (from, load) = (StoreId(fit.info.leader.store_id), rates.read_load() + rates.write_load());
        let busy = self.load(from, true);
        let (peer, to) = next_leader(fit)?;
        let others = fit.peers().iter().enumerate().filter(|(at, other)| {
            let able = fit
                .store_of(other)
                .is_some_and(|store| store.may_lead() && store.grants == to.grants);
            able && !fit.is_leader(other) && fit.may_lead(*at) && fit.has_caught_up(other)
        });
        let (idle, to) = others
            .map(|(_, other)| (self.load(StoreId(other.store_id), true), other))
            .min_by_key(|(idle, other)| (*idle, other.id))
            .unwrap_or((self.load(to.store, true), peer));
        let is_worth_it = is_better(busy, idle, load) && self.is_loaded(fit, busy, true);
        let ordered = Ordered {
            from,
            to: StoreId(to.store_id),
            load,
            of_leader: true,
            until: now + REST,
        };
        is_worth_it.then_some((Plan::TransferLeader(*to), ordered))
    }

    fn move_peer(&self, now: MonoTime, fit: &Fit<'_>, rates: Rates) -> Option<(Plan, Ordered)> {
        let served = fit
            .served()
            .map(|(at, peer, rule)| (self.load(StoreId(peer.store_id), false), at, peer, rule));
        let (busy, at, peer, rule) = served.max_by_key(|(load, at, ..)| (*load, *at))?;
        // Reads go with the leader; a peer that does not lead only writes.
        let load = rates.write_load() + if fit.is_leader(peer) { rates.read_load() } else { 0 };
        if !self.is_loaded(fit, busy, false) {
            return None;
        }
        let (from, others) = (fit.store_of(peer)?, fit.others_of(rule, Some(at)));
        let here = fit.apart(from, others, rule);
        let free = fit.free_stores(rule).filter(|store| fit.apart(store, others, rule) >= here);
        let (idle, to) = free.map(|store| (self.load(store.store, false), store.store)).min()?;
        let ordered = Ordered {
            from: from.store,
            to,
            load,
            of_leader: false,
            until: now + MOVE_MAX,
        };
        let instead_of = Some(from.store);
        is_better(busy, idle, load).then_some((Plan::AddLearner { to, instead_of }, ordered))
    }
}

impl Ordered {
    /// Whether a region as it is reported tells that the move was made.
    fn is_done(&self, info: &RegionInfo) -> bool {
        match self.of_leader {
            true => info.leader.store_id != self.from.0,
            false => info.region.peers.iter().all(|peer| peer.store_id != self.from.0),
        }
    }
}

/// Whether two stores are clearly more even once `load` has gone from the busy one to the idle one.
fn is_better(busy: u64, idle: u64, load: u64) -> bool {
    load > 0 && idle.saturating_add(load).saturating_add(busy / 10) <= busy
}

#[cfg(test)]
mod tests;
