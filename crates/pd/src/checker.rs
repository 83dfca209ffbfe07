//! What a region's rules want of it next: peers that are lacking, one too many, a leader where none may be, copies too near each other.
//!
//! A peer moves in steps, each of which follows from the region as it then is: a learner on the better store, so that the quorum does not
//! grow before there is data behind it; its promotion once it has caught up; the removal of the one too many, after leadership was handed
//! over if that peer leads.

use base::StoreId;
use proto::metapb::{Peer, PeerRole};

use crate::fit::{Fit, levels_of};
use crate::fleet::Candidate;
use crate::operator::{Plan, Why};

/// What [`check`] found.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Do(Plan, Why),
    /// Something is under way, or lacks a store to use: schedulers are not to make it harder.
    Wait,
    Fine,
}

/// The next step towards what the rules want.
pub fn check(fit: &Fit<'_>) -> Verdict {
    let is_steady = |peer: &Peer| matches!(peer.role(), PeerRole::Voter | PeerRole::Learner);
    if !fit.peers().iter().all(is_steady) {
        return Verdict::Wait;
    }
    let steps = [check_learners, add_lacking, remove_spare];
    let mut waits = false;
    for step in steps {
        match step(fit) {
            Verdict::Fine => {}
            Verdict::Wait => {
                waits = true;
                break;
            }
            step => return step,
        }
    }
    // Leaders can be handed over whatever peers are lacking.
    match change_leader(fit) {
        Some((plan, why)) => Verdict::Do(plan, why),
        None if waits => Verdict::Wait,
        None => spread(fit),
    }
}

/// Learners that are to vote, once they can, and those of which nothing will come.
fn check_learners(fit: &Fit<'_>) -> Verdict {
    let learners = fit
        .peers()
        .iter()
        .enumerate()
        .filter(|(_, peer)| peer.role() == PeerRole::Learner);
    for (at, learner) in learners {
        let may_vote = |store: &Candidate| fit.rules.iter().any(|rule| rule.votes() && rule.allows(&store.labels));
        let becomes_voter = match fit.rule_at(at) {
            Some(rule) if !rule.votes() => continue,
            Some(_) => true,
            None if fit.leaves_store(learner) => continue,
            None => fit.store_of(learner).is_some_and(may_vote),
        };
        return match becomes_voter && fit.is_fine(learner) {
            false => Verdict::Do(Plan::Remove(*learner), Why::Remove),
            true if fit.has_caught_up(learner) => Verdict::Do(Plan::Promote(*learner), Why::Promote),
            true => Verdict::Wait,
        };
    }
    Verdict::Fine
}

fn add_lacking(fit: &Fit<'_>) -> Verdict {
    let Some(rule) = fit.lacking() else { return Verdict::Fine };
    match fit.best_target(rule, fit.staying_of(rule)) {
        Some(target) => {
            let to = target.store;
            Verdict::Do(Plan::AddLearner { to, instead_of: None }, Why::Repair)
        }
        // A voter too many may stand where the learner is to be.
        None if !rule.votes() && fit.spare().next().is_some() => Verdict::Fine,
        None => Verdict::Wait,
    }
}

/// Of the peers too many the worst goes. Not while a good one lags.
fn remove_spare(fit: &Fit<'_>) -> Verdict {
    let worth = |(_, peer): &(usize, &Peer)| {
        let tier = match fit.store_of(peer) {
            None => 0,
            Some(store) if !store.stays() => 1,
            Some(_) => 2,
        };
        (tier, fit.is_leader(peer), peer.id)
    };
    let Some((_, worst)) = fit.spare().min_by_key(worth) else {
        return Verdict::Fine;
    };
    let lags = |peer: &&Peer| peer.id != worst.id && fit.is_fine(peer) && !fit.has_caught_up(peer);
    if fit.peers().iter().any(|peer| lags(&peer)) {
        return Verdict::Wait;
    }
    match fit.is_leader(worst) {
        false => Verdict::Do(Plan::Remove(*worst), Why::Remove),
        true => match next_leader(fit) {
            Some((peer, _)) => Verdict::Do(Plan::TransferLeader(*peer), Why::Remove),
            None => Verdict::Wait,
        },
    }
}

/// The voter that had better lead than the one that does.
pub fn next_leader<'a>(fit: &Fit<'a>) -> Option<(&'a Peer, &'a Candidate)> {
    let others = fit.peers().iter().enumerate();
    let others = others.filter(|(at, peer)| !fit.is_leader(peer) && peer.role() == PeerRole::Voter && fit.may_lead(*at));
    let able = others.filter_map(|(_, peer)| Some((peer, fit.store_of(peer)?)));
    let able = able.filter(|(peer, store)| store.may_lead() && fit.has_caught_up(peer));
    able.min_by_key(|(peer, store)| (!store.grants, store.leaders, peer.id))
}

/// A leader that is where none may be, and one that is to be elsewhere.
fn change_leader(fit: &Fit<'_>) -> Option<(Plan, Why)> {
    let at = fit.peers().iter().position(|peer| fit.is_leader(peer))?;
    let leads_on = fit.store_of(&fit.info.leader)?;
    let (peer, to) = next_leader(fit)?;
    let why = match leads_on {
        _ if fit.rule_at(at).is_some() && !fit.may_lead(at) => Why::LeaderRule,
        store if store.evicts || store.leaves => Why::EvictLeader,
        store if to.grants && !store.grants => Why::GrantLeader,
        _ => return None,
    };
    Some((Plan::TransferLeader(*peer), why))
}

/// A peer for a store that stands further from the others.
fn spread(fit: &Fit<'_>) -> Verdict {
    if !fit.all_caught_up() || !fit.is_exact() {
        return Verdict::Fine;
    }
    for (at, peer, rule) in fit.served() {
        let Some(store) = fit.store_of(peer) else { continue };
        let others = fit.others_of(rule, Some(at));
        let here = fit.apart(store, others, rule);
        if here == levels_of(store, rule) && here > 0 {
            continue;
        }
        if let Some(to) = fit.best_target(rule, others).filter(|to| fit.apart(to, others, rule) > here) {
            let instead_of = Some(StoreId(peer.store_id));
            return Verdict::Do(
                Plan::AddLearner {
                    to: to.store,
                    instead_of,
                },
                Why::Spread,
            );
        }
    }
    Verdict::Fine
}

#[cfg(test)]
mod tests;
