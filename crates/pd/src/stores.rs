//! What stores tell of themselves, and whether they still do. Volatile: heartbeats rebuild it.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{MonoTime, StoreId, WallTime};
use proto::metapb::Store;
use proto::pdpb::StoreStats;

use crate::regions::StoreLoad;

/// Heartbeats come every ten seconds: two were missed.
const DISCONNECTED_AFTER: Duration = Duration::from_secs(20);
/// Long enough for a machine to reboot, short enough that another failure meanwhile is unlikely.
const DOWN_AFTER: Duration = Duration::from_secs(30 * 60);

/// Whether a store answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    Up,
    /// Silent for a while; may come back.
    Disconnected,
    /// Silent for so long that its peers should be replaced.
    Down,
}

/// All that is known of one store.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreView {
    /// With `last_heartbeat` (nanoseconds since 1970) filled in.
    pub store: Store,
    /// None until its first heartbeat reached this member.
    pub stats: Option<StoreStats>,
    pub liveness: Liveness,
    pub load: StoreLoad,
}

#[derive(Debug)]
struct Beat {
    at: MonoTime,
    wall: WallTime,
    stats: StoreStats,
}

/// The last heartbeat of each store.
#[derive(Debug, Default)]
pub struct Beats {
    last: BTreeMap<StoreId, Beat>,
    /// Stores that have not spoken yet are given the benefit of the doubt from here on.
    since: MonoTime,
}

impl Beats {
    pub fn new(since: MonoTime) -> Beats {
        Beats {
            last: BTreeMap::new(),
            since,
        }
    }

    pub fn put(&mut self, now: MonoTime, wall: WallTime, stats: StoreStats) {
        self.last.insert(StoreId(stats.store_id), Beat { at: now, wall, stats });
    }

    /// How many regions the store has by its own account, if it gave one since this member leads.
    pub fn region_count(&self, store: StoreId) -> Option<u64> {
        self.last.get(&store).map(|beat| beat.stats.region_count.into())
    }

    /// How many bytes the store has room for, and how many of them are left; none while it gave no account.
    pub fn room(&self, store: StoreId) -> (u64, u64) {
        self.last
            .get(&store)
            .map_or((0, 0), |beat| (beat.stats.capacity, beat.stats.available))
    }

    pub fn liveness(&self, now: MonoTime, store: StoreId) -> Liveness {
        match now.since(self.last.get(&store).map_or(self.since, |beat| beat.at)) {
            silence if silence >= DOWN_AFTER => Liveness::Down,
            silence if silence >= DISCONNECTED_AFTER => Liveness::Disconnected,
            _ => Liveness::Up,
        }
    }

    pub fn view(&self, now: MonoTime, store: &Store, load: StoreLoad) -> StoreView {
        let id = StoreId(store.id);
        let beat = self.last.get(&id);
        let mut store = store.clone();
        store.last_heartbeat = beat.map_or(store.last_heartbeat, |beat| (beat.wall.0 as i64).saturating_mul(1_000_000));
        StoreView {
            store,
            stats: beat.map(|beat| beat.stats.clone()),
            liveness: self.liveness(now, id),
            load,
        }
    }
}
