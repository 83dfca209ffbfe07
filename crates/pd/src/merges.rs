//! Which small regions go into a neighbour: many nearly empty ones, left by deletes or by splits for a load that is over, cost every
//! store a peer, its ticks and its reports.
//!
//! A pure function of the directory, and of since when a region is as it is: one that was divided a moment ago stays for a while. Volatile:
//! after a change of leaders the wait begins anew.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{MonoTime, RegionId, StoreId};
use proto::metapb::{Peer, Region};

use crate::operator::Operator;
use crate::regions::{Directory, Lookup, RegionInfo};

/// A region is small up to so many bytes and keys.
pub const BYTES_MAX: u64 = 20 << 20;
pub const KEYS_MAX: u64 = 200_000;
/// What it becomes part of stays this far below the size at which regions are divided.
const WHOLE_BYTES_MAX: u64 = 64 << 20;
const WHOLE_KEYS_MAX: u64 = 640_000;
/// A merge that did not come about by then is thought over.
const PATIENCE: Duration = Duration::from_secs(10);
/// Merges at once: each stops the writes of its region for some milliseconds.
const AT_ONCE: usize = 8;

/// What is to be done for a region to go into its neighbour.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A peer must move first, from one of these stores to one of those: both need the same stores.
    Move {
        from: Vec<StoreId>,
        to: Vec<StoreId>,
    },
    Merge(Operator),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Merges {
    /// The version of each region and since when it has it.
    since: BTreeMap<RegionId, (u64, MonoTime)>,
    /// Sources that were told, their targets, and until when that counts.
    under_way: BTreeMap<RegionId, (RegionId, MonoTime)>,
}

impl Merges {
    /// Notes a region as its leader told of it.
    pub fn on_heartbeat(&mut self, now: MonoTime, region: &Region, regions: &Directory) {
        let version = region.region_epoch.unwrap_or_default().version;
        let known = self.since.entry(RegionId(region.id)).or_insert((version, now));
        if known.0 != version {
            *known = (version, now);
            self.under_way.remove(&RegionId(region.id));
        }
        if self.since.len() > 2 * regions.len() + 64 {
            self.since.retain(|id, _| regions.get(&Lookup::Id(*id)).is_some());
        }
    }

    /// What a region's leader should do next for the region to go into a neighbour, if it should. `fits` tells whether a region is as
    /// rules want it, and these are the rules of the region that is to go.
    pub fn step(
        &mut self,
        now: MonoTime,
        info: &RegionInfo,
        regions: &Directory,
        fits: impl Fn(&RegionInfo) -> bool,
        after: Duration,
    ) -> Option<Step> {
        self.under_way.retain(|_, (_, until)| *until > now);
        let is_old = |info: &RegionInfo| {
            self.since
                .get(&info.id())
                .is_some_and(|(_, since)| now.since(*since) >= after)
        };
        if after.is_zero() || !is_small(info) || !is_steady(info) || !is_old(info) || !fits(info) {
            return None;
        }
        if self.under_way.len() >= AT_ONCE && !self.under_way.contains_key(&info.id()) {
            return None;
        }
        // A region that takes another over stands where it is meanwhile.
        let is_target = |id: RegionId| self.under_way.values().any(|(target, _)| *target == id);
        let (before, behind) = (&info.region.start_key, &info.region.end_key);
        let previous = regions.get(&Lookup::Previous(before.clone()));
        let next = (!behind.is_empty())
            .then(|| regions.get(&Lookup::Key(behind.clone())))
            .flatten();
        let may_take = |other: &&std::sync::Arc<RegionInfo>| {
            let whole = (
                info.approximate_bytes + other.approximate_bytes,
                info.approximate_keys + other.approximate_keys,
            );
            let is_told = self
                .under_way
                .get(&info.id())
                .is_some_and(|(target, _)| *target == other.id());
            let is_free = !self.under_way.contains_key(&other.id()) && (is_told || !is_target(other.id()));
            let is_known = other.approximate_bytes > 0;
            is_known
                && is_free
                && is_old(other)
                && is_steady(other)
                && fits(other)
                && whole.0 <= WHOLE_BYTES_MAX
                && whole.1 <= WHOLE_KEYS_MAX
        };
        if is_target(info.id()) {
            return None;
        }
        let target = previous
            .into_iter()
            .chain(next)
            .filter(|other| other.id() != info.id())
            .filter(may_take)
            .min_by_key(|other| (other.approximate_bytes, other.id()))?;
        let (from, to) = (lacking(&info.region, &target.region), lacking(&target.region, &info.region));
        if !from.is_empty() || !to.is_empty() {
            return Some(Step::Move { from, to });
        }
        self.under_way.insert(info.id(), (target.id(), now + PATIENCE));
        Some(Step::Merge(Operator::Merge(target.region.clone())))
    }
}

/// Its size is known, and little.
fn is_small(info: &RegionInfo) -> bool {
    info.approximate_bytes > 0 && info.approximate_bytes <= BYTES_MAX && info.approximate_keys <= KEYS_MAX
}

fn is_steady(info: &RegionInfo) -> bool {
    info.term > 0 && info.down_peers.is_empty() && info.pending_peers.is_empty()
}

/// Stores that hold `one` and not `other`.
fn lacking(one: &Region, other: &Region) -> Vec<StoreId> {
    let lacks = |peer: &&Peer| other.peers.iter().all(|held| held.store_id != peer.store_id);
    one.peers.iter().filter(lacks).map(|peer| StoreId(peer.store_id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::metapb::RegionEpoch;

    const HOUR: Duration = Duration::from_secs(3600);

    fn info(id: u64, start: &str, end: &str, mib: u64, stores: [u64; 3]) -> RegionInfo {
        let peers: Vec<Peer> = stores
            .iter()
            .map(|&store_id| Peer {
                id: id * 10 + store_id,
                store_id,
                ..Peer::default()
            })
            .collect();
        RegionInfo {
            leader: peers[0],
            region: Region {
                id,
                start_key: start.to_owned().into(),
                end_key: end.to_owned().into(),
                region_epoch: Some(RegionEpoch { conf_ver: 1, version: 3 }),
                peers,
                ..Region::default()
            },
            term: 6,
            approximate_bytes: (mib << 20).max(1),
            approximate_keys: mib * 1000,
            ..RegionInfo::default()
        }
    }

    struct Cluster(Directory, Merges);

    impl Cluster {
        fn new(infos: &[RegionInfo]) -> Cluster {
            let mut cluster = Cluster(Directory::default(), Merges::default());
            infos.iter().for_each(|info| cluster.put(MonoTime(0), info.clone()));
            cluster
        }

        fn put(&mut self, now: MonoTime, info: RegionInfo) {
            self.1.on_heartbeat(now, &info.region, &self.0);
            self.0.put(info).expect("a good heartbeat");
        }

        /// Where region `id` is told to go, after so long.
        fn step(&mut self, after: Duration, id: u64) -> Option<Step> {
            let info = self.0.get(&Lookup::Id(RegionId(id))).expect("known").clone();
            self.1.step(MonoTime(0) + after, &info, &self.0, |_| true, HOUR)
        }

        fn target(&mut self, after: Duration, id: u64) -> Option<u64> {
            match self.step(after, id)? {
                Step::Merge(Operator::Merge(target)) => Some(target.id),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_smaller_neighbour_takes_a_small_region_over_once_it_is_old() {
        let all = [1, 2, 3];
        let mut cluster = Cluster::new(&[
            info(1, "", "c", 50, all),
            info(2, "c", "f", 1, all),
            info(3, "f", "", 30, all),
        ]);
        assert_eq!(cluster.target(HOUR / 2, 2), None, "it may be wanted");
        assert_eq!(cluster.target(HOUR, 2), Some(3));
        assert_eq!(cluster.target(HOUR, 2), Some(3), "told again");
        assert_eq!(cluster.target(HOUR, 3), None, "too large to go, and about to take over");
        let mut divided = info(2, "c", "f", 1, all);
        divided.region.region_epoch = Some(RegionEpoch { conf_ver: 1, version: 4 });
        cluster.put(MonoTime(0) + HOUR, divided);
        assert_eq!(cluster.target(HOUR + PATIENCE, 2), None, "new again");
    }

    #[test]
    fn two_small_regions_do_not_go_into_each_other() {
        let all = [1, 2, 3];
        let mut cluster = Cluster::new(&[info(1, "", "c", 1, all), info(2, "c", "", 1, all)]);
        assert_eq!(cluster.target(HOUR, 1), Some(2));
        assert_eq!(cluster.target(HOUR, 2), None);
        assert_eq!(
            cluster.target(HOUR + PATIENCE, 2),
            Some(1),
            "what did not come about is forgotten"
        );
        assert_eq!(cluster.target(HOUR + PATIENCE, 1), None);
    }

    #[test]
    fn what_is_large_unknown_or_in_trouble_stays() {
        let all = [1, 2, 3];
        let mut unknown = info(2, "c", "f", 0, all);
        unknown.approximate_bytes = 0;
        let mut down = info(3, "f", "", 1, all);
        down.pending_peers = vec![down.region.peers[1]];
        let mut cluster = Cluster::new(&[info(1, "", "c", 1, all), unknown, down]);
        for id in [1, 2, 3] {
            assert_eq!(cluster.step(HOUR, id), None, "region {id}");
        }
        let mut large = Cluster::new(&[info(1, "", "c", 60, all), info(2, "c", "", 10, all)]);
        assert_eq!(large.step(HOUR, 2), None, "the whole would soon be divided");
    }

    #[test]
    fn a_region_moves_to_where_its_neighbour_lies() {
        let mut cluster = Cluster::new(&[info(1, "", "c", 1, [1, 2, 4]), info(2, "c", "", 30, [1, 2, 3])]);
        let (from, to) = (vec![StoreId(4)], vec![StoreId(3)]);
        assert_eq!(cluster.step(HOUR, 1), Some(Step::Move { from, to }));
    }
}
