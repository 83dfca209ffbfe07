//! Regions that are divided while the world runs.

use std::time::Duration;

use base::RegionId;
use bytes::Bytes;
use engine::{Cf, keys};
use proto::metapb::{Region, RegionEpoch};
use raftstore::command::AdminError;
use raftstore::peer;
use raftstore::split::SplitOne;

use super::{Fault, World};
use crate::workload::LETTERS;

/// Regions beyond which no more are made: each costs the simulation time.
const REGIONS_MAX: usize = 12;

impl World {
    pub(super) fn split_some(&mut self) {
        let region = self.pick_region();
        if self.rng_faults.chance(0.4) {
            // While a new peer waits for its first data.
            self.change_membership_somehow(region);
            let after = Duration::from_millis(self.rng_faults.between(1, 150));
            return self.after(after, Fault::Split(region));
        }
        self.split_region(region);
    }

    pub(super) fn split_region(&mut self, region: RegionId) {
        if self.region_ids().len() >= REGIONS_MAX {
            return;
        }
        let Some((store, leader)) = self.leader(region) else { return };
        let current = (**leader.region()).clone();
        let mut borders: Vec<Bytes> = LETTERS.iter().map(|letter| Bytes::from(letter.to_string())).collect();
        let held = self.replica(store, region).map_or(Vec::new(), |replica| replica.pairs);
        let borders_of = |(cf, key, _): &(Cf, Bytes, Bytes)| border(*cf, keys::region_key(key), self.is_transactional());
        borders.extend(held.iter().filter_map(borders_of));
        borders.retain(|key| *key > current.start_key && (current.end_key.is_empty() || *key < current.end_key));
        if borders.is_empty() {
            return;
        }
        let count = self.rng_faults.between(1, 2);
        let mut cuts: Vec<Bytes> = (0..count).map(|_| self.rng_faults.pick(&borders).clone()).collect();
        cuts.sort();
        cuts.dedup();
        // Now and then under an old epoch, which must be refused.
        let mut epoch = raftstore::region::epoch(&current);
        if self.rng_faults.chance(0.1) {
            epoch.version -= 1;
        }
        self.split(&current, epoch, cuts);
        // And twice at once now and then: the second finds another range than it was made for.
        if self.rng_faults.chance(0.1) {
            let again = self.rng_faults.pick(&borders).clone();
            self.split(&current, epoch, vec![again]);
        }
    }

    /// Asks the region's leader to divide it at these keys.
    pub fn split(&mut self, region: &Region, epoch: RegionEpoch, cuts: Vec<Bytes>) -> Vec<RegionId> {
        let one = |key| {
            self.next_peer += 1;
            let region_id = self.next_peer;
            let peer_ids = region.peers.iter().map(|peer| self.new_peer(peer.store_id).id).collect();
            SplitOne {
                key,
                region_id,
                peer_ids,
            }
        };
        let parts: Vec<_> = cuts.into_iter().map(one).collect();
        let ids = parts.iter().map(|one| RegionId(one.region_id)).collect();
        let Some((store, _)) = self.leader(RegionId(region.id)) else {
            return ids;
        };
        self.counts.add("split_asked");
        let outcomes = self.admin_outcomes.clone();
        let reply = Box::new(move |outcome: Result<(), AdminError>| {
            outcomes
                .lock()
                .add(if outcome.is_ok() { "split_ok" } else { "split_refused" });
        });
        self.post(store, RegionId(region.id), peer::Event::Split { epoch, parts, reply });
        ids
    }
}

impl World {
    /// Asks a region's leader to merge it into a neighbour; now and then that neighbour changes at the same time.
    pub(super) fn merge_some(&mut self) {
        let region = self.pick_region();
        let Some((store, leader)) = self.leader(region) else { return };
        let source = (**leader.region()).clone();
        let neighbours: Vec<Region> = self
            .region_ids()
            .into_iter()
            .filter_map(|id| Some((**self.leader(id)?.1.region()).clone()))
            .filter(|other| raftstore::merge::prepare(&source, raftstore::region::epoch(&source), other).is_ok())
            .collect();
        if neighbours.is_empty() {
            return self.counts.add("merge_without_neighbour");
        }
        let target = self.rng_faults.pick(&neighbours).clone();
        let mut epoch = raftstore::region::epoch(&source);
        if self.rng_faults.chance(0.05) {
            epoch.version -= 1;
        }
        self.merge(store, region, epoch, target.clone());
        match self.rng_faults.between(0, 9) {
            0 => self.change_membership_somehow(RegionId(target.id)),
            1 => self.split_region(RegionId(target.id)),
            // Both ways at once: at most one of the two comes about.
            2 => {
                if let Some((store, _)) = self.leader(RegionId(target.id)) {
                    self.merge(store, RegionId(target.id), raftstore::region::epoch(&target), source);
                }
            }
            3 => self.crash(store),
            _ => {}
        }
        if self.running(store).is_none() {
            let down = Duration::from_millis(self.rng_faults.between(5, 2_000));
            self.after(down, Fault::Restart(store));
        }
    }

    /// Asks a store that leads the region to merge it into `target`.
    pub fn merge(&mut self, store: u64, region: RegionId, epoch: RegionEpoch, target: Region) {
        self.counts.add("merge_asked");
        let outcomes = self.admin_outcomes.clone();
        let reply = Box::new(move |outcome: Result<(), AdminError>| {
            outcomes
                .lock()
                .add(if outcome.is_ok() { "merge_ok" } else { "merge_refused" });
        });
        let target = Box::new(target);
        self.post(store, region, peer::Event::Merge { epoch, target, reply });
    }
}

/// Where a region may end: at a user's key, never between versions of one.
fn border(cf: Cf, key: Bytes, transactional: bool) -> Option<Bytes> {
    match (transactional, cf) {
        (true, Cf::Write) => Some(txn::Key::split(&key).ok()?.0.encoded().clone()),
        (true, _) => None,
        (false, _) => Some(key),
    }
}
