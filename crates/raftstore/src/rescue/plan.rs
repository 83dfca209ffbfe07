//! Which replica a region goes on with, and which regions must wait: a pure function of what the stores that are left tell.

use std::collections::{BTreeMap, BTreeSet};

use base::{RegionId, StoreId};
use bytes::Bytes;
use proto::metapb::{Peer, PeerRole, Region, RegionEpoch};

use super::{RAISE, log_order};
use crate::merge;
use crate::offline::{Facts, State};
use crate::region;

/// Why nothing can be decided at all.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    #[error("no store is named as lost")]
    NothingLost,
    #[error("store {0} is named as lost, but its data is here: take it in, or leave it out")]
    LostIsHere(StoreId),
    #[error("store {0} is given twice")]
    Twice(StoreId),
}

/// What becomes of a region next.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// The replica on this store first applies what its log holds; then it is to be looked at again.
    ApplyLog { store: StoreId },
    /// The replica on this store becomes the only voter, under an epoch higher than `above`.
    OnlyVoter {
        store: StoreId,
        above: RegionEpoch,
        /// It stood still, to be merged, and goes on.
        rolls_back: bool,
    },
    /// Nothing, for this reason.
    Refused(String),
}

/// A region that lost the majority of its voters.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// As the replica knows it that its log makes the best of those left.
    pub best: Facts,
    /// Voters that are gone, by store.
    pub lost: Vec<StoreId>,
    /// Stores with other replicas that are left: they will give way.
    pub others: Vec<StoreId>,
    pub choice: Choice,
}

impl Step {
    /// Entries that count as committed from here on, though perhaps nobody was told so.
    pub fn doubtful_entries(&self) -> u64 {
        self.best.log.last.index.saturating_sub(self.best.commit())
    }
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In the order of the regions' ids.
    pub steps: Vec<Step>,
    /// Regions that keep a majority of their voters.
    pub healthy: usize,
    /// Ranges that no given store holds anything of.
    pub holes: Vec<(Bytes, Bytes)>,
}

/// Decides, once the stores in `lost` are gone for good, what becomes of the regions of those that are left: `stores`, each with all that
/// its disk tells. `gives_up_merges`: regions that stand still go on even if nothing is known of their targets.
pub fn plan(stores: &[(StoreId, Vec<Facts>)], lost: &BTreeSet<StoreId>, gives_up_merges: bool) -> Result<Plan, PlanError> {
    let given = check_stores(stores, lost)?;
    let mut replicas: BTreeMap<RegionId, Vec<&Facts>> = BTreeMap::new();
    for facts in stores
        .iter()
        .flat_map(|(_, facts)| facts)
        .filter(|facts| facts.state.holds_range() && !facts.is_removed())
    {
        replicas.entry(facts.id()).or_default().push(facts);
    }
    // Of each region the replica with the highest log: it knows all that any of those left knows to be committed.
    let best: BTreeMap<RegionId, &Facts> = replicas.iter().map(|(id, all)| (*id, best_of(all))).collect();
    let mut plan = Plan {
        holes: holes(&best),
        ..Plan::default()
    };
    let view = View {
        lost,
        given: &given,
        replicas: &replicas,
        best: &best,
        gives_up_merges,
    };
    for facts in best.values() {
        match lost_voters(&facts.known, lost) {
            None => plan.healthy += 1,
            Some(gone) => plan.steps.push(Step {
                best: (*facts).clone(),
                lost: gone,
                others: view.others(facts),
                choice: view.choose(facts).unwrap_or_else(Choice::Refused),
            }),
        }
    }
    Ok(plan)
}

fn check_stores(stores: &[(StoreId, Vec<Facts>)], lost: &BTreeSet<StoreId>) -> Result<BTreeSet<StoreId>, PlanError> {
    if lost.is_empty() {
        return Err(PlanError::NothingLost);
    }
    let mut given = BTreeSet::new();
    for (store, _) in stores {
        if lost.contains(store) {
            return Err(PlanError::LostIsHere(*store));
        }
        if !given.insert(*store) {
            return Err(PlanError::Twice(*store));
        }
    }
    Ok(given)
}

fn best_of<'a>(all: &[&'a Facts]) -> &'a Facts {
    // One that was recovered before is of a later life than those that were not there then, whatever their logs say.
    let conf_ver = |facts: &Facts| region::epoch(&facts.region).conf_ver;
    let newest = all.iter().map(|facts| conf_ver(facts)).max().unwrap_or_default();
    let living = all.iter().filter(|facts| conf_ver(facts) + RAISE / 2 > newest);
    let rank = |facts: &&&Facts| (log_order(facts.log.last), facts.applied.index, std::cmp::Reverse(facts.store));
    living.max_by_key(rank).expect("a region is noted with its first replica")
}

/// The stores of voters that are gone, if those left are no majority: of the old voters or, in a joint state, of the new ones.
pub fn lost_voters(region: &Region, lost: &BTreeSet<StoreId>) -> Option<Vec<StoreId>> {
    let is_lost = |peer: &&Peer| lost.contains(&StoreId(peer.store_id));
    let lacks_majority = |without: PeerRole| {
        let votes = |peer: &&Peer| peer.role() != PeerRole::Learner && peer.role() != without;
        let (all, gone) = (
            region.peers.iter().filter(votes),
            region.peers.iter().filter(votes).filter(is_lost),
        );
        2 * gone.count() >= all.count()
    };
    let is_lacking = lacks_majority(PeerRole::IncomingVoter) || lacks_majority(PeerRole::DemotingVoter);
    let voters = region.peers.iter().filter(|peer| peer.role() != PeerRole::Learner);
    is_lacking.then(|| voters.filter(is_lost).map(|peer| StoreId(peer.store_id)).collect())
}

/// What is known of all regions.
struct View<'a> {
    lost: &'a BTreeSet<StoreId>,
    given: &'a BTreeSet<StoreId>,
    replicas: &'a BTreeMap<RegionId, Vec<&'a Facts>>,
    best: &'a BTreeMap<RegionId, &'a Facts>,
    gives_up_merges: bool,
}

impl View<'_> {
    fn others(&self, best: &Facts) -> Vec<StoreId> {
        let all = self.replicas.get(&best.id()).into_iter().flatten();
        all.map(|facts| facts.store).filter(|&store| store != best.store).collect()
    }

    /// What becomes of a region that lost its majority, or why nothing does.
    fn choose(&self, best: &Facts) -> Result<Choice, String> {
        self.check_replicas(best)?;
        let store = best.store;
        if best.applied != best.log.last {
            // Its range and its membership are known once it has.
            return Ok(Choice::ApplyLog { store });
        }
        self.check_range(best)?;
        let rolls_back = self.check_merge(best)?;
        let epochs = self.replicas[&best.id()].iter().map(|facts| region::epoch(&facts.region));
        let above = epochs.fold(RegionEpoch::default(), |above, epoch| RegionEpoch {
            conf_ver: above.conf_ver.max(epoch.conf_ver),
            version: above.version.max(epoch.version),
        });
        Ok(Choice::OnlyVoter {
            store,
            above,
            rolls_back,
        })
    }

    /// Whether all replicas were looked at that may be left, and the best is sound.
    fn check_replicas(&self, best: &Facts) -> Result<(), String> {
        let unseen = |peer: &&Peer| {
            let store = StoreId(peer.store_id);
            !self.lost.contains(&store) && !self.given.contains(&store)
        };
        let unseen: Vec<String> = best
            .known
            .peers
            .iter()
            .filter(unseen)
            .map(|peer| peer.store_id.to_string())
            .collect();
        if !unseen.is_empty() {
            let stores = unseen.join(", ");
            return Err(format!(
                "store {stores} holds a peer too: give its data or report, or name it as lost"
            ));
        }
        if best.me().is_none() {
            return Err(format!("the replica on store {} is not listed by its region", best.store));
        }
        let is_applying = best.state == State::Applying;
        if !is_applying && best.applied.index > best.log.last.index {
            return Err(format!("the replica on store {} has a damaged raft log", best.store));
        }
        Ok(())
    }

    /// Whether no other region has a part of its range under a newer version: that one was cut out of it, or took it over.
    fn check_range(&self, best: &Facts) -> Result<(), String> {
        let version = region::epoch(&best.region).version;
        let newer = |other: &&&Facts| {
            other.id() != best.id()
                && region::overlap(&other.region, &best.region)
                && region::epoch(&other.region).version >= version
        };
        match self.best.values().find(newer) {
            Some(other) => Err(format!(
                "region {} holds a part of its range, and is newer: what is left of this one is out of date",
                other.id()
            )),
            None => Ok(()),
        }
    }

    /// Whether it stood still and goes on. It may once its target cannot take it over any more.
    fn check_merge(&self, best: &Facts) -> Result<bool, String> {
        let Some(merging) = &best.merging else { return Ok(false) };
        let target = RegionId(merging.target.id);
        let then = region::epoch(&merging.target);
        let now = self.best.get(&target).map(|facts| region::epoch(&facts.region));
        // In its range nothing newer was found: the target went on without it.
        let went_on = now.is_some_and(|now| merge::has_moved_on(now, then));
        match went_on || self.gives_up_merges {
            true => Ok(true),
            false => Err(format!(
                "it stands still, to be merged into region {target}, which must go on first: repeat this, and if no store has a replica of \
                 {target} any more, with --give-up-merges"
            )),
        }
    }
}

/// The ranges between the regions, as the best replicas know them.
fn holes(best: &BTreeMap<RegionId, &Facts>) -> Vec<(Bytes, Bytes)> {
    let mut ranges: Vec<(&Bytes, &Bytes)> = best
        .values()
        .map(|facts| (&facts.region.start_key, &facts.region.end_key))
        .collect();
    ranges.sort();
    let (mut holes, mut reached) = (Vec::new(), Some(Bytes::new()));
    for (start, end) in ranges {
        let Some(from) = reached.take() else { break };
        if *start > from {
            holes.push((from.clone(), start.clone()));
        }
        reached = (!end.is_empty()).then(|| from.max(end.clone()));
    }
    holes.extend(reached.map(|from| (from, Bytes::new())));
    holes
}

#[cfg(test)]
mod tests;
