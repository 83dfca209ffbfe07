//! The region directory: which region holds a key, where its peers are and who leads. Volatile: heartbeats of leaders rebuild it.
//!
//! Invariants: ranges of the regions in it never overlap; a region's epoch never goes back; every region has a leader to name
//! (the first peer, until a heartbeat tells better), because clients loop on a region without one.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use base::{RegionId, StoreId};
use bytes::Bytes;
use proto::metapb::{Peer, Region, RegionEpoch};

use crate::Error;

/// What is known of one region.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegionInfo {
    pub region: Region,
    pub leader: Peer,
    /// Raft term of the leader; zero before its first heartbeat.
    pub term: u64,
    /// Peers that do not answer their leader.
    pub down_peers: Vec<DownPeer>,
    /// Peers that lag too far behind to count.
    pub pending_peers: Vec<Peer>,
    pub approximate_bytes: u64,
    pub approximate_keys: u64,
    /// What was read and written since the leader's last report.
    pub flow: Flow,
}

/// What was read and written in a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    pub written_bytes: u64,
    pub written_keys: u64,
    pub read_bytes: u64,
    pub read_keys: u64,
    /// How long it took; zero: nothing is known.
    pub millis: u32,
}

/// A peer that does not answer, and for how long.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DownPeer {
    pub peer: Peer,
    pub down_seconds: u64,
}

/// How many regions and bytes a store holds, as the directory sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreLoad {
    pub regions: u64,
    pub leaders: u64,
    pub bytes: u64,
}

/// Which region is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The region that holds the key.
    Key(Bytes),
    /// The region before the one that holds the key, if the two touch.
    Previous(Bytes),
    Id(RegionId),
}

/// A key range `[start, end)` in region keys; an empty `end` means no end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    pub start: Bytes,
    pub end: Bytes,
}

impl RegionInfo {
    pub fn id(&self) -> RegionId {
        RegionId(self.region.id)
    }

    /// Builds the entry of a region that no leader has spoken for yet; its first peer stands in as leader.
    pub fn without_heartbeat(region: Region) -> Result<RegionInfo, Error> {
        let leader = region
            .peers
            .first()
            .cloned()
            .ok_or_else(|| invalid(&region, "has no peers"))?;
        let info = RegionInfo {
            region,
            leader,
            ..RegionInfo::default()
        };
        info.check()?;
        Ok(info)
    }

    /// Errors unless this may stand in the directory.
    pub fn check(&self) -> Result<(), Error> {
        let region = &self.region;
        let fault = if region.id == 0 {
            "has no id"
        } else if region.region_epoch.is_none() {
            "has no epoch"
        } else if !region.end_key.is_empty() && region.start_key >= region.end_key {
            "has its borders in the wrong order"
        } else if region.peers.iter().any(|peer| peer.id == 0 || peer.store_id == 0) {
            "has a peer without id or store"
        } else if !region
            .peers
            .iter()
            .any(|peer| peer.id == self.leader.id && peer.store_id == self.leader.store_id)
        {
            "has a leader that is none of its peers"
        } else {
            return Ok(());
        };
        Err(invalid(region, fault))
    }

    fn epoch(&self) -> RegionEpoch {
        self.region.region_epoch.unwrap_or_default()
    }
}

fn invalid(region: &Region, fault: &str) -> Error {
    invalid_reason(format!("region {} {fault}", region.id))
}

pub(crate) fn invalid_reason(reason: String) -> Error {
    Error::Invalid { reason }
}

/// Whether a range that ends at `end` (empty: no end) reaches beyond `key`.
pub(crate) fn ends_after(end: &[u8], key: &[u8]) -> bool {
    end.is_empty() || end > key
}

/// All regions, by id and by start key.
#[derive(Debug, Default)]
pub struct Directory {
    by_id: BTreeMap<RegionId, Arc<RegionInfo>>,
    by_start: BTreeMap<Bytes, RegionId>,
    loads: BTreeMap<StoreId, StoreLoad>,
    /// Stores whose load has changed.
    touched: Vec<StoreId>,
}

/// Stores whose load has changed are remembered up to here: whoever wants to know asks after each change.
const TOUCHED_MAX: usize = 1024;

impl Directory {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// What `store` holds.
    pub fn load(&self, store: StoreId) -> StoreLoad {
        self.loads.get(&store).copied().unwrap_or_default()
    }

    /// Stores whose load has changed since this was asked.
    pub fn take_touched(&mut self) -> std::vec::Drain<'_, StoreId> {
        self.touched.drain(..)
    }

    pub fn get(&self, lookup: &Lookup) -> Option<&Arc<RegionInfo>> {
        match lookup {
            Lookup::Key(key) => self.holding(key),
            Lookup::Previous(key) => self.before(self.holding(key)?),
            Lookup::Id(id) => self.by_id.get(id),
        }
    }

    /// Regions that overlap `range`, in order, at most `limit`. Gaps are left out.
    pub fn scan<'a>(&'a self, range: &'a KeyRange, limit: usize) -> impl Iterator<Item = &'a Arc<RegionInfo>> {
        let first = self.holding(&range.start).map_or(&range.start, |info| &info.region.start_key);
        self.by_start
            .range::<Bytes, _>((Bound::Included(first), Bound::Unbounded))
            .take_while(|(start, _)| ends_after(&range.end, start))
            .map(|(_, id)| &self.by_id[id])
            .take(limit)
    }

    /// Takes what a leader told. A newer epoch displaces every older region that it overlaps.
    /// Errors with `StaleRegion` when the directory knows better: of this region, or of one that has taken part of its range.
    pub fn put(&mut self, mut info: RegionInfo) -> Result<(), Error> {
        info.check()?;
        if let Some(known) = self.by_id.get(&info.id()) {
            check_not_stale(&info, known)?;
            if known.epoch().version == info.epoch().version && has_same_range(&info.region, &known.region) {
                self.renew(info);
                return Ok(());
            }
        }
        let displaced = self.others_in_range(&info);
        if let Some(newer) = displaced.iter().find(|other| info.epoch().version < other.epoch().version) {
            return Err(stale(&info, newer));
        }
        for id in displaced.iter().map(|other| other.id()).chain([info.id()]) {
            self.remove(id);
        }
        // Keys of a message hold on to all of it.
        for key in [&mut info.region.start_key, &mut info.region.end_key] {
            *key = Bytes::copy_from_slice(key);
        }
        self.insert(Arc::new(info));
        Ok(())
    }

    /// Replaces what is known of a region whose range is as it was: nearly every report.
    fn renew(&mut self, mut info: RegionInfo) {
        let known = self.by_id.get_mut(&info.id()).expect("it was just seen");
        let is_same = known.leader.id == info.leader.id
            && known.approximate_bytes == info.approximate_bytes
            && known.region.peers == info.region.peers;
        // The keys that are known are kept, so that those of the report go, with the message that brought them.
        info.region.start_key = known.region.start_key.clone();
        info.region.end_key = known.region.end_key.clone();
        let old = std::mem::replace(known, Arc::new(info));
        if !is_same {
            let new = known.clone();
            self.count(&old, false);
            self.count(&new, true);
        }
    }

    fn holding(&self, key: &[u8]) -> Option<&Arc<RegionInfo>> {
        let (_, id) = self
            .by_start
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()?;
        Some(&self.by_id[id]).filter(|info| ends_after(&info.region.end_key, key))
    }

    fn before(&self, info: &RegionInfo) -> Option<&Arc<RegionInfo>> {
        let start = &info.region.start_key;
        let (_, id) = self
            .by_start
            .range::<Bytes, _>((Bound::Unbounded, Bound::Excluded(start)))
            .next_back()?;
        Some(&self.by_id[id]).filter(|previous| previous.region.end_key == start)
    }

    fn others_in_range(&self, info: &RegionInfo) -> Vec<Arc<RegionInfo>> {
        let range = KeyRange {
            start: info.region.start_key.clone(),
            end: info.region.end_key.clone(),
        };
        self.scan(&range, usize::MAX)
            .filter(|other| other.id() != info.id())
            .cloned()
            .collect()
    }

    fn insert(&mut self, info: Arc<RegionInfo>) {
        self.count(&info, true);
        self.by_start.insert(info.region.start_key.clone(), info.id());
        self.by_id.insert(info.id(), info);
    }

    fn remove(&mut self, id: RegionId) {
        let Some(info) = self.by_id.remove(&id) else { return };
        self.by_start.remove(&info.region.start_key);
        self.count(&info, false);
    }

    /// Adds a region to the loads of its stores, or takes it away.
    fn count(&mut self, info: &RegionInfo, add: bool) {
        let change = |sum: &mut u64, by: u64| *sum = if add { *sum + by } else { *sum - by };
        for peer in &info.region.peers {
            let store = StoreId(peer.store_id);
            let load = self.loads.entry(store).or_default();
            change(&mut load.regions, 1);
            change(&mut load.leaders, u64::from(peer.id == info.leader.id));
            change(&mut load.bytes, info.approximate_bytes);
            if load.regions == 0 {
                self.loads.remove(&store);
            }
            if self.touched.len() < TOUCHED_MAX {
                self.touched.push(store);
            }
        }
    }
}

fn has_same_range(a: &Region, b: &Region) -> bool {
    a.start_key == b.start_key && a.end_key == b.end_key
}

fn check_not_stale(info: &RegionInfo, known: &RegionInfo) -> Result<(), Error> {
    let (new, old) = (info.epoch(), known.epoch());
    let stale_term = info.term != 0 && info.term < known.term;
    if stale_term || new.version < old.version || new.conf_ver < old.conf_ver {
        return Err(stale(info, known));
    }
    Ok(())
}

fn stale(info: &RegionInfo, known: &RegionInfo) -> Error {
    Error::StaleRegion {
        region: info.id(),
        newer: known.id(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn info(id: u64, start: u8, end: u8, version: u64, conf_ver: u64, stores: &[u64], bytes: u64) -> RegionInfo {
        let key = |at: u8| {
            if at == 0 {
                Bytes::new()
            } else {
                Bytes::copy_from_slice(&[at])
            }
        };
        let peers: Vec<Peer> = stores
            .iter()
            .map(|&store_id| Peer {
                id: id * 100 + store_id,
                store_id,
                ..Peer::default()
            })
            .collect();
        let leader = peers[0];
        let region_epoch = Some(RegionEpoch { conf_ver, version });
        let region = Region {
            id,
            start_key: key(start),
            end_key: key(end),
            region_epoch,
            peers,
            ..Region::default()
        };
        RegionInfo {
            region,
            leader,
            approximate_bytes: bytes,
            ..RegionInfo::default()
        }
    }

    fn any_info() -> impl Strategy<Value = RegionInfo> {
        let stores = prop_oneof![Just(vec![1, 2, 3]), Just(vec![2]), Just(vec![3, 4]), Just(vec![4, 1])];
        (1..8_u64, 0..12_u8, 0..12_u8, 1..6_u64, 1..4_u64, stores, 0..100_u64)
            .prop_filter("borders in order", |(_, start, end, ..)| *end == 0 || start < end)
            .prop_map(|(id, start, end, version, conf_ver, stores, bytes)| {
                info(id, start, end, version, conf_ver, &stores, bytes)
            })
    }

    proptest! {
        #[test]
        fn ranges_never_overlap_and_counts_agree(heartbeats in prop::collection::vec(any_info(), 1..60)) {
            let mut directory = Directory::default();
            for heartbeat in heartbeats {
                let before: Vec<_> = directory.by_id.values().cloned().collect();
                let id = heartbeat.id();
                let taken = directory.put(heartbeat.clone()).is_ok();
                let after: Vec<_> = directory.by_id.values().cloned().collect();
                prop_assert_eq!(taken, after.iter().any(|info| **info == heartbeat), "taken or refused, region {}", id);
                if !taken {
                    prop_assert_eq!(before, after.clone());
                }
                for (info, next) in directory.scan(&KeyRange::default(), 99).zip(directory.scan(&KeyRange::default(), 99).skip(1)) {
                    prop_assert!(!info.region.end_key.is_empty() && info.region.end_key <= next.region.start_key);
                }
                prop_assert_eq!(directory.by_start.len(), after.len());
                for store in 1..5 {
                    let held: Vec<_> = after.iter().filter(|info| info.region.peers.iter().any(|peer| peer.store_id == store)).collect();
                    let load = StoreLoad {
                        regions: held.len() as u64,
                        leaders: held.iter().filter(|info| info.leader.store_id == store).count() as u64,
                        bytes: held.iter().map(|info| info.approximate_bytes).sum(),
                    };
                    prop_assert_eq!(directory.load(StoreId(store)), load);
                }
                for key in 0..13_u8 {
                    let found = directory.get(&Lookup::Key(Bytes::copy_from_slice(&[key])));
                    let wanted = after.iter().find(|info| info.region.start_key[..] <= [key][..] && ends_after(&info.region.end_key, &[key]));
                    prop_assert_eq!(found.map(|info| info.id()), wanted.map(|info| info.id()));
                }
            }
        }
    }
}
