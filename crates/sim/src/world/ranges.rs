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

/// Where a region may end: at a user's key, never between versions of one.
fn border(cf: Cf, key: Bytes, transactional: bool) -> Option<Bytes> {
    match (transactional, cf) {
        (true, Cf::Write) => Some(txn::Key::split(&key).ok()?.0.encoded().clone()),
        (true, _) => None,
        (false, _) => Some(key),
    }
}
