//! Which region holds a key, and which of its peers to ask: a plain value without I/O.
//!
//! Borders are in their border form (see `keys`), as PD and region errors tell them. Invariants: regions in the cache do not
//! overlap; a region is only replaced by one that is not older, by epoch; each has a peer to ask, which is one of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{RegionId, StoreId};
use bytes::Bytes;
use proto::{errorpb, metapb};

use crate::retry::Cause;

/// A region and the peer that is asked for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Region {
    pub meta: metapb::Region,
    /// Believed to lead.
    pub peer: metapb::Peer,
    /// How many peers were tried in turn since PD or a hint named one.
    turns: usize,
}

impl Region {
    /// `None` if it has no peers. A `leader` that is not one of them is replaced by the first.
    pub fn new(meta: metapb::Region, leader: Option<metapb::Peer>) -> Option<Region> {
        let peer = leader.filter(|leader| meta.peers.iter().any(|peer| peer.id == leader.id));
        let peer = peer.or_else(|| meta.peers.first().copied())?;
        Some(Region { meta, peer, turns: 0 })
    }

    pub fn id(&self) -> RegionId {
        RegionId(self.meta.id)
    }

    pub fn store(&self) -> StoreId {
        StoreId(self.peer.store_id)
    }

    pub fn start(&self) -> &Bytes {
        &self.meta.start_key
    }

    /// Exclusive; empty for no bound.
    pub fn end(&self) -> &Bytes {
        &self.meta.end_key
    }

    /// Whether `border` lies in the region.
    pub fn contains(&self, border: &Bytes) -> bool {
        self.start() <= border && (self.end().is_empty() || border < self.end())
    }

    /// `(version, conf_ver)`: range first, because it decides whether regions overlap.
    fn epoch(&self) -> (u64, u64) {
        self.meta
            .region_epoch
            .as_ref()
            .map_or((0, 0), |epoch| (epoch.version, epoch.conf_ver))
    }

    fn starts_before(&self, end: &Bytes) -> bool {
        end.is_empty() || self.start() < end
    }
}

/// What to do after a region error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask again at once: the cache knows better now.
    Again,
    /// Ask again after a pause, for at least so many milliseconds.
    Pause { cause: Cause, millis_min: u64 },
    /// The store does not know whether it did the write.
    Undetermined,
    /// Asking again does not help.
    Refuse,
}

const fn pause(cause: Cause) -> Step {
    Step::Pause { cause, millis_min: 0 }
}

/// Regions by start key.
#[derive(Default)]
pub(crate) struct RegionCache {
    by_start: BTreeMap<Bytes, Arc<Region>>,
    starts: BTreeMap<RegionId, Bytes>,
}

impl RegionCache {
    /// The region that holds `border`.
    pub fn find(&self, border: &Bytes) -> Option<Arc<Region>> {
        let (_, region) = self.by_start.range::<Bytes, _>(..=border).next_back()?;
        region.contains(border).then(|| region.clone())
    }

    /// The region that holds the last keys before `end`; an empty `end` has no bound.
    pub fn find_before(&self, end: &Bytes) -> Option<Arc<Region>> {
        let mut below = match end.is_empty() {
            true => self.by_start.range::<Bytes, _>(..),
            false => self.by_start.range::<Bytes, _>(..end),
        };
        let (_, region) = below.next_back()?;
        let reaches = region.end().is_empty() || (!end.is_empty() && *end <= *region.end());
        reaches.then(|| region.clone())
    }

    /// Takes a region in place of all that it overlaps, unless one of those is newer. Returns what to ask for its start.
    pub fn insert(&mut self, region: Region) -> Arc<Region> {
        let overlapped = self.overlapping(&region);
        if overlapped.iter().any(|old| old.epoch() > region.epoch()) {
            let known = overlapped.into_iter().find(|old| old.contains(region.start()));
            return known.unwrap_or_else(|| Arc::new(region));
        }
        overlapped.iter().for_each(|old| self.remove(old.id()));
        // The same region may have been known with another range.
        self.remove(region.id());
        let region = Arc::new(region);
        self.starts.insert(region.id(), region.start().clone());
        self.by_start.insert(region.start().clone(), region.clone());
        region
    }

    fn overlapping(&self, region: &Region) -> Vec<Arc<Region>> {
        let before = self.find(region.start());
        let inside = self
            .by_start
            .range::<Bytes, _>(region.start()..)
            .map(|(_, other)| other.clone());
        let inside = inside.take_while(|other| region.end().is_empty() || other.starts_before(region.end()));
        let mut found: Vec<_> = before.into_iter().chain(inside).collect();
        found.dedup_by_key(|region| region.id());
        found
    }

    fn remove(&mut self, id: RegionId) {
        if let Some(start) = self.starts.remove(&id) {
            self.by_start.remove(&start);
        }
    }

    /// Forgets `region` if the cache still holds it as it was asked.
    pub fn forget(&mut self, region: &Region) {
        if self.current(region) {
            self.remove(region.id());
        }
    }

    fn current(&self, region: &Region) -> bool {
        let held = self.starts.get(&region.id()).and_then(|start| self.by_start.get(start));
        held.is_some_and(|held| held.epoch() == region.epoch() && held.peer.id == region.peer.id)
    }

    /// Asks `peer` from now on.
    fn point_at(&mut self, region: &Region, peer: metapb::Peer, turns: usize) {
        if self.current(region) {
            self.by_start.insert(
                region.start().clone(),
                Arc::new(Region {
                    peer,
                    turns,
                    ..region.clone()
                }),
            );
        }
    }

    /// The peer asked does not answer or does not lead: asks the next in turn, and after a whole round PD.
    pub fn try_next_peer(&mut self, region: &Region) {
        let peers = &region.meta.peers;
        let at = peers.iter().position(|peer| peer.id == region.peer.id).unwrap_or(0);
        match region.turns + 1 < peers.len() {
            true => self.point_at(region, peers[(at + 1) % peers.len()], region.turns + 1),
            false => self.forget(region),
        }
    }

    /// Learns from the error that a store answered for `region`.
    pub fn on_error(&mut self, region: &Region, error: &errorpb::Error) -> Step {
        if let Some(not_leader) = &error.not_leader {
            return self.on_not_leader(region, not_leader.leader.as_ref());
        }
        if let Some(mismatch) = &error.epoch_not_match {
            return self.on_epoch_not_match(region, &mismatch.current_regions);
        }
        if let Some(busy) = &error.server_is_busy {
            let millis_min = busy.backoff_ms.max(busy.estimated_wait_ms.into());
            return Step::Pause {
                cause: Cause::Busy,
                millis_min,
            };
        }
        if error.undetermined_result.is_some() {
            return Step::Undetermined;
        }
        // Not over yet on that copy; the leader is asked next.
        if error.data_is_not_ready.is_some() {
            return Step::Again;
        }
        if error.raft_entry_too_large.is_some() {
            return Step::Refuse;
        }
        if error.disk_full.is_some() || error.recovery_in_progress.is_some() || error.flashback_in_progress.is_some() {
            return pause(Cause::Busy);
        }
        let stays = error.stale_command.is_some()
            || error.proposal_in_merging_mode.is_some()
            || error.read_index_not_ready.is_some()
            || error.region_not_initialized.is_some()
            || error.max_timestamp_not_synced.is_some();
        if !stays {
            // Not here, not this store, not this peer, or an error that is newer than this code: PD knows.
            self.forget(region);
        }
        pause(Cause::Stale)
    }

    fn on_not_leader(&mut self, region: &Region, hint: Option<&metapb::Peer>) -> Step {
        match hint.filter(|hint| hint.id != 0 && hint.id != region.peer.id) {
            Some(hint) if region.meta.peers.iter().any(|peer| peer.id == hint.id) => {
                self.point_at(region, *hint, 0);
                Step::Again
            }
            // A leader that this region did not have when it was cached.
            Some(_) => {
                self.forget(region);
                pause(Cause::Stale)
            }
            None => {
                self.try_next_peer(region);
                pause(Cause::Election)
            }
        }
    }

    fn on_epoch_not_match(&mut self, region: &Region, current: &[metapb::Region]) -> Step {
        self.forget(region);
        let mut learned = false;
        for meta in current {
            // The store that answered led the old region, so most likely it leads what became of it.
            let leader = meta.peers.iter().find(|peer| peer.store_id == region.peer.store_id).copied();
            // A store may be behind what the client knows already.
            if let Some(new) = Region::new(meta.clone(), leader).filter(|new| new.epoch() > region.epoch()) {
                self.insert(new);
                learned = true;
            }
        }
        if learned { Step::Again } else { pause(Cause::Stale) }
    }
}

#[cfg(test)]
mod tests;
