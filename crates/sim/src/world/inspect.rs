//! Looks at the world from outside: what its stores hold.

use std::collections::BTreeSet;

use base::{PeerId, RegionId, StoreId};
use bytes::Bytes;
use engine::{Cf, Engine, keys};
use raftstore::peer::Peer;

use super::{Failure, World};

/// One store's copy of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    pub store: u64,
    pub peer: PeerId,
    pub applied: u64,
    pub committed: u64,
    /// First index that the raft log still holds.
    pub first_index: u64,
    pub last_index: u64,
    pub members: usize,
    /// Of all column families that hold users' data.
    pub pairs: Vec<(Cf, Bytes, Bytes)>,
}

impl World {
    /// Regions that any running store has a peer of.
    pub fn region_ids(&self) -> BTreeSet<RegionId> {
        let running = self.stores.keys().filter_map(|&store| self.running(store));
        running.flat_map(|store| store.peers().map(Peer::region_id)).collect()
    }

    /// Copies of a region on running stores, as its members list it; peers without data yet are left out.
    pub fn replicas(&self, region: RegionId) -> Vec<Replica> {
        self.stores.keys().filter_map(|&store| self.replica(store, region)).collect()
    }

    /// A store's copy of a region.
    pub fn replica(&self, store: u64, region: RegionId) -> Option<Replica> {
        let running = self.running(store)?;
        let peer = running.peer(region).filter(|peer| peer.is_initialized())?;
        let range = running.region(region)?;
        let (start, end) = (keys::data_key(&range.start_key), keys::data_end_key(&range.end_key));
        let snapshot = running.data().engine.snapshot();
        let pairs_of = |cf| {
            let mut cursor = snapshot.cursor(cf, &start, &end).expect("memory reads");
            std::iter::from_fn(move || cursor.next().expect("memory reads"))
        };
        let pairs = Cf::DATA
            .into_iter()
            .flat_map(|cf| pairs_of(cf).map(move |(key, value)| (cf, key, value)))
            .collect();
        Some(Replica {
            store,
            peer: peer.peer_id(),
            applied: running.applied(region),
            committed: peer.committed_index(),
            first_index: peer.first_index(),
            last_index: peer.last_index(),
            members: range.peers.len(),
            pairs,
        })
    }

    /// Whether every member of every region has applied the same index, and no store holds a peer that is no member.
    pub fn replicas_agree(&self) -> bool {
        self.region_ids().into_iter().all(|region| self.agrees(region))
    }

    fn agrees(&self, region: RegionId) -> bool {
        let Some((_, leader)) = self.leader(region) else {
            return false;
        };
        let wanted = leader.last_index();
        let members = &leader.region().peers;
        members.iter().all(|member| {
            let peer = self.running(member.store_id).and_then(|store| store.peer(region));
            peer.is_some_and(|peer| peer.applied().index == wanted && peer.peer_id().0 == member.id)
        })
    }

    /// Compares the data of all members that applied the same index.
    pub fn check_replicas(&self) -> Result<(), Failure> {
        self.region_ids().into_iter().try_for_each(|region| self.check_region(region))
    }

    fn check_region(&self, region: RegionId) -> Result<(), Failure> {
        let replicas = self.replicas(region);
        for (at, one) in replicas.iter().enumerate() {
            for other in replicas[..at].iter().filter(|other| other.applied == one.applied) {
                if let Some(what) = difference(one, other) {
                    return Err(Failure::ReplicasDiffer { region: region.0, what });
                }
            }
        }
        Ok(())
    }

    /// The store of this id, for scenarios that look closer.
    pub fn store(&self, store: StoreId) -> Option<&crate::store::Store> {
        self.running(store.0)
    }
}

fn difference(one: &Replica, other: &Replica) -> Option<String> {
    if one.pairs == other.pairs {
        return None;
    }
    let place = format!("stores {} and {} at applied index {}", one.store, other.store, one.applied);
    let missing = |a: &Replica, b: &Replica| {
        a.pairs
            .iter()
            .find(|pair| b.pairs.binary_search(pair).is_err())
            .map(|(_, key, _)| key.clone())
    };
    let key = missing(one, other).or_else(|| missing(other, one)).unwrap_or_default();
    Some(format!("{place}, first at key {:?}", keys::region_key(&key)))
}
