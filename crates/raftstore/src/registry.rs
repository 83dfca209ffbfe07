//! Which regions a store holds, and which ranges are taken: what messages, raft snapshots and splits must agree on before a peer is
//! made or data replaced.
//!
//! Invariant: no two ranges of different regions overlap, neither held nor on their way in as a raft snapshot.

use std::collections::{BTreeMap, VecDeque};

use base::{PeerId, RegionId};
use parking_lot::Mutex;
use proto::metapb::{Peer, Region, RegionEpoch};

use crate::split::Parts;
use crate::{RaftMessage, region};

/// Messages kept for peers that a split will make; the oldest give way. Each is a vote request or an empty heartbeat.
const EARLY_MAX: usize = 256;

/// What is known of a region here without asking its peer.
#[derive(Clone, Debug)]
struct Held {
    peer: PeerId,
    /// Set once the peer has its range.
    region: Option<Region>,
    /// Of a raft snapshot that is on its way in.
    coming: Option<Region>,
}

/// A new region's peer, to be made on this store.
#[derive(Clone, Debug, PartialEq)]
pub struct Born {
    pub region: Region,
    pub me: Peer,
    /// Another store's message made a peer already, which waits for its range.
    pub was_waiting: bool,
}

#[derive(Default)]
struct Inner {
    held: BTreeMap<RegionId, Held>,
    /// Highest id of a peer that this store once had of a region and has no more.
    tombstones: BTreeMap<RegionId, PeerId>,
    early: VecDeque<RaftMessage>,
}

/// Shared by a store and its appliers. Its lock is taken last, and never held for long.
#[derive(Default)]
pub struct Registry(Mutex<Inner>);

fn reaches(epoch: RegionEpoch, wanted: RegionEpoch) -> bool {
    epoch.version >= wanted.version && epoch.conf_ver >= wanted.conf_ver
}

impl Inner {
    /// Whether another region holds part of the range, or is about to.
    fn is_taken(&self, range: &Region) -> bool {
        let ranges = |held: &Held| [held.region.clone(), held.coming.clone()];
        let others = self.held.iter().filter(|(id, _)| id.0 != range.id);
        others
            .flat_map(|(_, held)| ranges(held))
            .flatten()
            .any(|other| region::overlap(&other, range))
    }
}

impl Registry {
    pub fn ids(&self) -> Vec<RegionId> {
        self.0.lock().held.keys().copied().collect()
    }

    /// The peer that is held of a region, and its range if it knows it.
    pub fn held(&self, id: RegionId) -> Option<(PeerId, Option<Region>)> {
        let inner = self.0.lock();
        let held = inner.held.get(&id)?;
        Some((held.peer, held.region.clone()))
    }

    pub fn hold(&self, id: RegionId, peer: PeerId, region: Option<Region>) {
        let mut inner = self.0.lock();
        let coming = inner.held.remove(&id).and_then(|before| before.coming);
        inner.held.insert(id, Held { peer, region, coming });
    }

    /// Highest id of a peer that was here and is gone.
    pub fn tombstone(&self, id: RegionId) -> Option<PeerId> {
        self.0.lock().tombstones.get(&id).copied()
    }

    /// Notes that a peer is gone for good; gives its range as last known.
    pub fn bury(&self, id: RegionId, peer: PeerId) -> Option<Region> {
        let mut inner = self.0.lock();
        let gone = inner.tombstones.entry(id).or_default();
        *gone = (*gone).max(peer);
        inner.held.remove(&id).and_then(|held| held.region)
    }

    /// Whether another region than the range's own holds part of it, or is about to.
    pub fn is_taken(&self, range: &Region) -> bool {
        self.0.lock().is_taken(range)
    }

    /// Reserves the range of a raft snapshot for its region until it is in place, or [`release`](Registry::release)d; `false` if
    /// others hold part of it.
    pub fn reserve(&self, range: &Region) -> bool {
        let mut inner = self.0.lock();
        if inner.is_taken(range) {
            return false;
        }
        if let Some(held) = inner.held.get_mut(&RegionId(range.id)) {
            held.coming = Some(range.clone());
        }
        true
    }

    /// The raft snapshot that was let in will not be put in place.
    pub fn release(&self, id: RegionId) {
        if let Some(held) = self.0.lock().held.get_mut(&id) {
            held.coming = None;
        }
    }

    /// Notes a region's range and membership after they changed. News may come late: an older one changes nothing.
    pub fn on_region_changed(&self, region: &Region) {
        let mut inner = self.0.lock();
        let Some(held) = inner.held.get_mut(&RegionId(region.id)) else {
            return;
        };
        let epoch = region::epoch(region);
        if held.region.as_ref().is_none_or(|known| reaches(epoch, region::epoch(known))) {
            held.region = Some(region.clone());
        }
        held.coming.take_if(|coming| reaches(epoch, region::epoch(coming)));
    }

    /// Divides a held range as a split says, and tells which of the new regions get a peer here: those whose peer is not gone again
    /// or replaced by another already. `write` makes that lasting; until it returns no peer comes or goes.
    pub fn split<T>(&self, parts: &Parts, me: &Peer, write: impl FnOnce(&[Born]) -> T) -> (Vec<Born>, T) {
        let mut inner = self.0.lock();
        if let Some(held) = inner.held.get_mut(&RegionId(parts.region.id)) {
            held.region = Some(parts.region.clone());
        }
        let mut born = Vec::with_capacity(parts.children.len());
        for child in &parts.children {
            let id = RegionId(child.id);
            let Some(peer) = child.peers.iter().find(|peer| peer.store_id == me.store_id) else {
                continue;
            };
            let is_gone = inner.tombstones.get(&id).is_some_and(|gone| peer.id <= gone.0);
            let other = inner.held.get(&id);
            if is_gone || other.is_some_and(|held| held.peer.0 != peer.id) {
                continue;
            }
            if let Some(range) = other.and_then(|held| held.region.as_ref()) {
                panic!("region {id} is born over its own peer, which holds {range:?}");
            }
            let was_waiting = other.is_some();
            let held = Held {
                peer: PeerId(peer.id),
                region: Some(child.clone()),
                coming: None,
            };
            inner.held.insert(id, held);
            born.push(Born {
                region: child.clone(),
                me: *peer,
                was_waiting,
            });
        }
        let written = write(&born);
        (born, written)
    }

    /// Keeps a message that came before the split that makes its receiver; of one sender the newest.
    pub fn keep_early(&self, message: RaftMessage) {
        let mut inner = self.0.lock();
        let key = |message: &RaftMessage| (message.region_id, message.from.map(|from| from.id));
        inner.early.retain(|kept| key(kept) != key(&message));
        inner.early.push_back(message);
        if inner.early.len() > EARLY_MAX {
            inner.early.pop_front();
        }
    }

    /// What came early for a peer that is there now.
    pub fn take_early(&self, id: RegionId) -> Vec<RaftMessage> {
        let mut inner = self.0.lock();
        let (taken, left) = std::mem::take(&mut inner.early)
            .into_iter()
            .partition(|message| message.region_id == id.0);
        inner.early = left;
        Vec::from(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(id: u64, start: &str, end: &str, version: u64) -> Region {
        Region {
            id,
            start_key: start.to_owned().into(),
            end_key: end.to_owned().into(),
            region_epoch: Some(RegionEpoch { conf_ver: 1, version }),
            peers: vec![peer(10 * id)],
            ..Region::default()
        }
    }

    fn peer(id: u64) -> Peer {
        Peer {
            id,
            store_id: 1,
            ..Peer::default()
        }
    }

    fn parts() -> Parts {
        Parts {
            region: range(1, "m", "", 2),
            children: vec![range(2, "", "f", 2), range(3, "f", "m", 2)],
        }
    }

    fn whole() -> Registry {
        let registry = Registry::default();
        registry.hold(RegionId(1), PeerId(10), Some(range(1, "", "", 1)));
        registry
    }

    #[test]
    fn a_range_is_held_once() {
        let registry = whole();
        registry.hold(RegionId(2), PeerId(20), None);
        assert!(!registry.reserve(&range(2, "", "f", 2)), "the old region is still whole here");
        let (born, ()) = registry.split(&parts(), &peer(10), |_| ());
        let made: Vec<_> = born.iter().map(|b| (b.region.id, b.me.id, b.was_waiting)).collect();
        assert_eq!(made, [(2, 20, true), (3, 30, false)]);
        registry.on_region_changed(&range(1, "", "", 1));
        assert!(
            registry.reserve(&range(2, "", "f", 2)),
            "late news of the old range change nothing"
        );
        assert!(!registry.is_taken(&range(1, "m", "", 2)));
        assert!(registry.is_taken(&range(9, "e", "g", 1)));
    }

    #[test]
    fn a_snapshot_on_its_way_holds_its_range() {
        let registry = Registry::default();
        registry.hold(RegionId(1), PeerId(10), None);
        registry.hold(RegionId(2), PeerId(20), None);
        assert!(registry.reserve(&range(1, "", "", 1)));
        assert!(!registry.reserve(&range(2, "", "f", 2)));
        registry.release(RegionId(1));
        assert!(registry.reserve(&range(2, "", "f", 2)));
        registry.on_region_changed(&range(2, "", "f", 2));
        assert!(!registry.reserve(&range(1, "", "", 1)));
    }

    #[test]
    fn peers_that_are_gone_or_replaced_are_not_born() {
        let registry = whole();
        registry.bury(RegionId(2), PeerId(20));
        registry.hold(RegionId(3), PeerId(35), None);
        let (born, ()) = registry.split(&parts(), &peer(10), |_| ());
        assert_eq!(born, []);
        assert_eq!(registry.held(RegionId(3)), Some((PeerId(35), None)));
    }

    #[test]
    fn early_messages_wait_for_their_peer() {
        let registry = whole();
        let message = |region_id, from: u64, term| RaftMessage {
            region_id,
            from: Some(peer(from)),
            term,
            ..RaftMessage::default()
        };
        registry.keep_early(message(2, 21, 6));
        registry.keep_early(message(2, 21, 7));
        registry.keep_early(message(3, 31, 6));
        assert_eq!(registry.take_early(RegionId(2)), [message(2, 21, 7)]);
        assert_eq!(registry.take_early(RegionId(2)), []);
    }
}
