//! What a store has on its disk.

use std::sync::Arc;

use base::StoreId;
use engine::MemEngine;
use proto::metapb::Region;
use raftstore::log::MemLog;
use raftstore::snapshot::MemSnapshots;

use super::CLUSTER;
use crate::counts::Counts;
use crate::rng::Rng;

/// What outlives a store's process.
#[derive(Clone, Default)]
pub struct Data {
    pub engine: MemEngine,
    pub log: Arc<MemLog>,
    pub snapshots: Arc<MemSnapshots>,
}

impl Data {
    /// The data of a store that is to hold its peers of `regions`.
    pub fn bootstrap(store: StoreId, regions: &[Region]) -> Data {
        let data = Data::default();
        let mine: Vec<_> = regions
            .iter()
            .filter(|region| raftstore::region::peer_on(region, store).is_some())
            .cloned()
            .collect();
        raftstore::store::write_ident(&data.engine, CLUSTER, store).expect("memory takes the identity");
        raftstore::store::write_regions(&data.engine, &*data.log, store, &mine).expect("memory takes the regions");
        data
    }

    /// What a crash leaves: all that was synced, and a random part of what was not.
    pub fn crash(self, rng: &mut Rng, counts: &mut Counts) -> Data {
        let (writes, batches) = (self.log.unsynced(), self.engine.unsynced());
        let (keep_writes, keep_batches) = (keep(rng, writes), keep(rng, batches));
        counts.add_many("crash_lost_log_writes", u64::from(keep_writes < writes));
        counts.add_many("crash_lost_engine_batches", u64::from(keep_batches < batches));
        Data {
            engine: self.engine.crash(keep_batches),
            log: Arc::new(self.log.crash(keep_writes)),
            snapshots: self.snapshots,
        }
    }
}

/// How many of `count` things not synced reached the disk: often none or all.
fn keep(rng: &mut Rng, count: usize) -> usize {
    match rng.below(3) {
        0 => 0,
        1 => count,
        _ => rng.below(count + 1),
    }
}
