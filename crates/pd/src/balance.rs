//! Evens out stores that are fine as they are: leaders by number, peers by what regions weigh. And moves without need, for tests.
//!
//! A move is made only if afterwards the two stores differ by less than before, and they differed by more than a twentieth: each move makes
//! the sum of the squares smaller, so that moves end, and stores that are as even as they get do not swap for ever.

use base::{MonoTime, StoreId};
use proto::metapb::Peer;

use crate::checker::next_leader;
use crate::fit::Fit;
use crate::fleet::REGION_WEIGHT;
use crate::operator::{Plan, Why};
use crate::rules::Rule;

/// Whether something of `size` had better be one of `to`'s than of `from`'s.
fn is_worth_moving(from: u64, to: u64, size: u64) -> bool {
    from >= to.saturating_add(2 * size).saturating_add(to.div_ceil(20))
}

/// Hands leadership to a store that leads less.
pub fn balance_leader(fit: &Fit<'_>) -> Option<Plan> {
    let from = fit.store_of(&fit.info.leader)?;
    if !is_worth_moving(from.leaders, fit.fleet.least_leaders(), 1) {
        return None;
    }
    let (peer, to) = next_leader(fit)?;
    (is_worth_moving(from.leaders, to.leaders, 1) && to.grants == from.grants).then_some(Plan::TransferLeader(*peer))
}

/// A peer for a store with less; the fuller store's peer goes when the new one has come.
pub fn balance_region(fit: &Fit<'_>) -> Option<Plan> {
    let size = weight(fit);
    let fullest = fit
        .served()
        .filter_map(|(_, peer, _)| fit.store_of(peer))
        .map(|store| store.weight)
        .max()?;
    // For most regions this is all there is to look at.
    if !is_worth_moving(fullest, fit.fleet.least_weight(), size) {
        return None;
    }
    let mut held: Vec<(usize, &Peer, &Rule)> = fit.served().collect();
    held.sort_by_key(|(_, peer, _)| std::cmp::Reverse((fit.store_of(peer).map_or(0, |store| store.weight), peer.id)));
    held.into_iter().find_map(|(at, peer, rule)| {
        let (from, others) = (fit.store_of(peer)?, fit.others_of(rule, Some(at)));
        let here = fit.apart(from, others, rule);
        // Most stores are not worth it, and how far apart they stand costs more to tell.
        let worth = fit
            .free_stores(rule)
            .filter(|store| is_worth_moving(from.weight, store.weight, size));
        let no_nearer = worth.filter(|store| fit.apart(store, others, rule) >= here);
        let to = no_nearer.min_by_key(|store| (store.weight, store.store))?;
        Some(Plan::AddLearner {
            to: to.store,
            instead_of: Some(from.store),
        })
    })
}

/// What a region adds to its stores.
pub fn weight(fit: &Fit<'_>) -> u64 {
    fit.info.approximate_bytes + REGION_WEIGHT
}

/// Draws from what changes from one call to the next; enough for moves that have no reason.
fn draw(now: MonoTime, region: u64, of: usize) -> usize {
    let mixed = (now.0 ^ region.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 33) as usize % of.max(1)
}

/// Hands leadership to any peer that may lead.
pub fn shuffle_leader(fit: &Fit<'_>, now: MonoTime) -> Option<(Plan, Why)> {
    let able = |(at, peer): &(usize, &Peer)| {
        let store = fit.store_of(peer).is_some_and(|store| store.may_lead());
        store && !fit.is_leader(peer) && fit.may_lead(*at)
    };
    let able: Vec<&Peer> = fit.peers().iter().enumerate().filter(able).map(|(_, peer)| peer).collect();
    let to = able.get(draw(now, fit.info.region.id, able.len()))?;
    Some((Plan::TransferLeader(**to), Why::ShuffleLeader))
}

/// Moves any peer to any store that is no nearer to the others.
pub fn shuffle_region(fit: &Fit<'_>, now: MonoTime) -> Option<(Plan, Why)> {
    let held: Vec<(usize, &Peer, &Rule)> = fit.served().collect();
    let (at, peer, rule) = *held.get(draw(now, fit.info.region.id, held.len()))?;
    let (from, others) = (fit.store_of(peer)?, fit.others_of(rule, Some(at)));
    let here = fit.apart(from, others, rule);
    let free = fit.free_stores(rule).filter(|store| fit.apart(store, others, rule) >= here);
    let free: Vec<StoreId> = free.map(|store| store.store).collect();
    let to = *free.get(draw(now, fit.info.region.id.rotate_left(7), free.len()))?;
    let instead_of = Some(from.store);
    Some((Plan::AddLearner { to, instead_of }, Why::ShuffleRegion))
}

#[cfg(test)]
mod tests;
