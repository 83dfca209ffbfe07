//! Latches: while a key is compared and swapped, no other write of it may be on its way through this leader.
//!
//! Plain writes of a key share its latch, a compare-and-swap holds it alone; a delete range holds the latch of its region
//! alone, which every compare-and-swap of the region shares. A latch is held until the write is answered by replication, even
//! when the client has gone: a write whose outcome is unknown must be settled before the next compare-and-swap reads.
//!
//! Keys share a fixed table of latches by hash, so two keys may wait for each other without need, never wrongly. Waiters are
//! served in order of arrival; their number is bounded by the requests in flight ([`crate::limits`]). Order of taking, which
//! excludes deadlocks: the region's latch, then those of keys by ascending place in the table.

use std::sync::Arc;

use base::RegionId;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Latches of keys. A few thousand writes are under way at once at most: collisions stay rare.
const KEYS: usize = 4096;
/// Latches of regions; only a delete range ever makes others wait here.
const REGIONS: usize = 64;

type Latch = Arc<RwLock<()>>;

/// The latches of one store.
pub struct Latches {
    keys: Box<[Latch]>,
    regions: Box<[Latch]>,
}

/// Held latches; dropping them lets the next go.
#[derive(Default)]
pub struct Held {
    shared: Vec<OwnedRwLockReadGuard<()>>,
    alone: Vec<OwnedRwLockWriteGuard<()>>,
}

impl Default for Latches {
    fn default() -> Latches {
        let table = |len: usize| (0..len).map(|_| Latch::default()).collect();
        Latches {
            keys: table(KEYS),
            regions: table(REGIONS),
        }
    }
}

impl Latches {
    /// For writes of `keys` that read nothing.
    pub async fn share<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Held {
        let places = places(keys);
        let mut held = Held {
            shared: Vec::with_capacity(places.len()),
            alone: Vec::new(),
        };
        for place in places {
            held.shared.push(share(&self.keys[place]).await);
        }
        held
    }

    /// For keys of a region that are read and then written.
    pub async fn swap<'a>(&self, region: RegionId, keys: impl Iterator<Item = &'a [u8]>) -> Held {
        let mut held = Held {
            shared: vec![share(self.region(region)).await],
            alone: Vec::new(),
        };
        for place in places(keys) {
            held.alone.push(self.keys[place].clone().write_owned().await);
        }
        held
    }

    /// For a range of a region that is deleted.
    pub async fn range(&self, region: RegionId) -> Held {
        Held {
            shared: Vec::new(),
            alone: vec![self.region(region).clone().write_owned().await],
        }
    }

    fn region(&self, region: RegionId) -> &Latch {
        &self.regions[region.0 as usize % REGIONS]
    }
}

/// Places in the table, each once and in the order of taking.
fn places<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Vec<usize> {
    let mut places: Vec<usize> = keys.map(|key| crc32fast::hash(key) as usize % KEYS).collect();
    places.sort_unstable();
    places.dedup();
    places
}

async fn share(latch: &Latch) -> OwnedRwLockReadGuard<()> {
    // Free nearly always: then no queue is touched. A waiting writer keeps its place, as it has taken the free permits.
    match latch.clone().try_read_owned() {
        Ok(held) => held,
        Err(_) => latch.clone().read_owned().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const REGION: RegionId = RegionId(7);

    fn keys(keys: &'static [&'static str]) -> impl ExactSizeIterator<Item = &'static [u8]> {
        keys.iter().map(|key| key.as_bytes())
    }

    #[test]
    fn writes_share_and_a_swap_is_alone() {
        let latches = Latches::default();
        let one = latches.share(keys(&["a", "b"])).now_or_never().expect("free");
        let two = latches.share(keys(&["b", "a", "b"])).now_or_never().expect("shared");
        let mut swap = Box::pin(latches.swap(REGION, keys(&["b"])));
        assert!(swap.as_mut().now_or_never().is_none(), "two writes are under way");
        drop(one);
        assert!(swap.as_mut().now_or_never().is_none(), "a write is under way");
        let mut late = Box::pin(latches.share(keys(&["b"])));
        assert!(
            late.as_mut().now_or_never().is_none(),
            "a write that came after the swap waits behind it"
        );
        drop(two);
        let held = swap.now_or_never().expect("alone now");
        assert!(late.as_mut().now_or_never().is_none());
        latches.share(keys(&["a"])).now_or_never().expect("another key");
        drop(held);
        late.now_or_never().expect("free");
    }

    #[test]
    fn a_range_delete_waits_for_swaps_of_its_region_only() {
        let latches = Latches::default();
        let swap = latches.swap(REGION, keys(&["a"])).now_or_never().expect("free");
        assert!(latches.range(REGION).now_or_never().is_none());
        let other = latches.range(RegionId(8)).now_or_never().expect("another region");
        drop((swap, other));
        let range = latches.range(REGION).now_or_never().expect("free");
        assert!(latches.swap(REGION, keys(&["a"])).now_or_never().is_none());
        latches
            .share(keys(&["a"]))
            .now_or_never()
            .expect("plain writes need no order with a range delete");
        drop(range);
        latches.swap(REGION, keys(&["a"])).now_or_never().expect("free");
    }

    #[test]
    fn dropped_waiters_leave_nothing_held() {
        let latches = Latches::default();
        let held = latches.share(keys(&["a"])).now_or_never().expect("free");
        {
            let mut swap = Box::pin(latches.swap(REGION, keys(&["a"])));
            assert!(swap.as_mut().now_or_never().is_none());
        }
        drop(held);
        latches.swap(REGION, keys(&["a"])).now_or_never().expect("free");
    }
}
