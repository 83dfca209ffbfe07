//! Which regions a store holds, and which ranges are taken: what messages, raft snapshots and splits must agree on before a peer is
//! made or data replaced.
//!
//! Invariant: no two ranges of different regions overlap, neither held nor on their way in as a raft snapshot.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{PeerId, RegionId, StoreId};
use parking_lot::Mutex;
use proto::metapb::{Peer, Region, RegionEpoch};

use crate::merge::{self, Merging};
use crate::split::Parts;
use crate::storage::LogPosition;
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
    /// The epoch from which on this peer applied every change itself.
    since: RegionEpoch,
    /// It stands still, to be merged.
    merging: Option<Merging>,
    /// Other stores say that the region was merged away.
    is_dead: bool,
    /// Its target is about to take it over: it must stay until then.
    is_claimed: bool,
}

impl Held {
    fn new(peer: PeerId, region: Option<Region>) -> Held {
        Held {
            peer,
            since: region.as_ref().map(region::epoch).unwrap_or_default(),
            region,
            coming: None,
            merging: None,
            is_dead: false,
            is_claimed: false,
        }
    }
}

/// A peer that was here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grave {
    /// Highest id of such peers.
    pub peer: PeerId,
    /// Of the region at the end, and since when its peer had applied every change.
    pub epoch: RegionEpoch,
    pub since: RegionEpoch,
    /// The region that took the range over; none: the peer was removed.
    pub merged_into: RegionId,
}

/// How far a source has come that its target wants to take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It applied all that the target takes over.
    Ready,
    Lags,
    /// Its data is no more: others finished the merge, and it made room for the target's raft snapshot.
    Gone,
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
    graves: BTreeMap<RegionId, Grave>,
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

    /// Whether the target of this merge has changed without the source, by what this store applied of the target's log itself. Had it
    /// taken the source over, then here too, and the source were no more.
    fn went_on(&self, merging: &Merging) -> bool {
        let id = RegionId(merging.target.id);
        let then = region::epoch(&merging.target);
        let (now, since, is_over) = match (self.held.get(&id), self.graves.get(&id)) {
            (Some(held), _) => (held.region.as_ref().map(region::epoch).unwrap_or_default(), held.since, false),
            // It stood still itself when it was taken over, and took nobody over in that epoch, its last.
            (None, Some(grave)) => (grave.epoch, grave.since, grave.merged_into.is_some() && grave.epoch == then),
            (None, None) => return false,
        };
        reaches(then, since) && (is_over || merge::has_moved_on(now, then))
    }
}

impl Registry {
    /// Stores with a peer of a region that has one here, and of these regions this one.
    pub fn stores(&self) -> BTreeSet<StoreId> {
        let inner = self.0.lock();
        let regions = inner.held.values().filter_map(|held| held.region.as_ref());
        regions
            .flat_map(|region| &region.peers)
            .map(|peer| StoreId(peer.store_id))
            .collect()
    }

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
        inner.held.insert(
            id,
            Held {
                coming,
                ..Held::new(peer, region)
            },
        );
    }

    /// What a restart found out about a region that is held.
    pub fn recall(&self, id: RegionId, since: RegionEpoch, merging: Option<Merging>) {
        if let Some(held) = self.0.lock().held.get_mut(&id) {
            (held.since, held.merging) = (since, merging);
        }
    }

    /// The peer that was here and is gone.
    pub fn grave(&self, id: RegionId) -> Option<Grave> {
        self.0.lock().graves.get(&id).cloned()
    }

    /// Notes a peer that was gone before this start.
    pub fn restore_grave(&self, id: RegionId, grave: Grave) {
        self.0.lock().graves.insert(id, grave);
    }

    /// Notes that a peer is gone for good; gives its grave and its range as last known. `None`: its target takes over what it held.
    pub fn bury(&self, id: RegionId, peer: PeerId) -> Option<(Grave, Option<Region>)> {
        let mut inner = self.0.lock();
        if inner.held.get(&id).is_some_and(|held| held.is_claimed) {
            return None;
        }
        let held = inner.held.remove(&id);
        let grave = inner.graves.entry(id).or_default();
        if grave.merged_into.is_some() {
            return None;
        }
        grave.peer = grave.peer.max(peer);
        if let Some(held) = &held {
            (grave.epoch, grave.since) = (held.region.as_ref().map(region::epoch).unwrap_or_default(), held.since);
        }
        Some((grave.clone(), held.and_then(|held| held.region)))
    }

    /// Others say that the region is no more. Until its target takes it over here, or needs its room, it stays: the target's log may
    /// lead there, and needs its data then. Returns whether it may go now, as it has none, or no peer of that target is here.
    pub fn on_dead(&self, id: RegionId, merged_into: RegionId) -> bool {
        let mut inner = self.0.lock();
        let Some(held) = inner.held.get_mut(&id) else { return false };
        held.is_dead = true;
        let is_empty = held.region.is_none() && held.coming.is_none();
        is_empty || !inner.held.contains_key(&merged_into)
    }

    /// The regions that stand in the way of a raft snapshot of this range, if all of them are dead.
    pub fn dead_in(&self, range: &Region) -> Vec<RegionId> {
        let inner = self.0.lock();
        let others = inner.held.iter().filter(|(id, held)| {
            let overlaps = |other: &Region| region::overlap(other, range);
            id.0 != range.id && (held.region.as_ref().is_some_and(overlaps) || held.coming.as_ref().is_some_and(overlaps))
        });
        let others: Vec<_> = others.map(|(id, held)| (*id, held.is_dead)).collect();
        match others.iter().all(|(_, is_dead)| *is_dead) {
            true => others.into_iter().map(|(id, _)| id).collect(),
            false => Vec::new(),
        }
    }

    /// The region stands still from here on, or goes on. Returns whether its target went on without it already.
    pub fn set_merging(&self, id: RegionId, merging: Option<Merging>) -> bool {
        let mut inner = self.0.lock();
        let went_on = merging.as_ref().is_some_and(|merging| inner.went_on(merging));
        if let Some(held) = inner.held.get_mut(&id) {
            held.merging = merging;
        }
        went_on
    }

    /// Regions that stand still for a target that went on without them.
    pub fn left_by(&self, target: RegionId) -> Vec<RegionId> {
        let inner = self.0.lock();
        let waits = |held: &Held| {
            held.merging
                .as_ref()
                .is_some_and(|merging| merging.target.id == target.0 && inner.went_on(merging))
        };
        inner.held.iter().filter(|(_, held)| waits(held)).map(|(id, _)| *id).collect()
    }

    /// Whether the target of a region that stands still went on without it.
    pub fn is_left(&self, id: RegionId) -> bool {
        let inner = self.0.lock();
        let merging = inner.held.get(&id).and_then(|held| held.merging.as_ref());
        merging.is_some_and(|merging| inner.went_on(merging))
    }

    /// How far the source has come that stood still with the entry `at`. One that is ready stays until it is taken over.
    pub fn claim(&self, id: RegionId, at: LogPosition) -> Source {
        let mut inner = self.0.lock();
        match inner.held.get_mut(&id) {
            None => Source::Gone,
            Some(held) if held.merging.as_ref().is_some_and(|merging| merging.at == at) => {
                held.is_claimed = true;
                Source::Ready
            }
            Some(_) => Source::Lags,
        }
    }

    /// Gives the range of a source that is [`Ready`](Source::Ready) to its target, which `whole` says. `write` makes that lasting; until
    /// it returns no peer comes or goes. Gives its peer, or none if it is gone meanwhile.
    pub fn merge<T>(&self, source: RegionId, whole: &Region, write: impl FnOnce(PeerId) -> T) -> Option<T> {
        let mut inner = self.0.lock();
        let gone = inner.held.remove(&source)?;
        let grave = Grave {
            peer: gone.peer,
            epoch: gone.region.as_ref().map(region::epoch).unwrap_or_default(),
            since: gone.since,
            merged_into: RegionId(whole.id),
        };
        inner.graves.insert(source, grave);
        if let Some(held) = inner.held.get_mut(&RegionId(whole.id)) {
            held.region = Some(whole.clone());
        }
        Some(write(gone.peer))
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

    /// A raft snapshot was put in place: what led to it is not known here.
    pub fn on_installed(&self, region: &Region) {
        let mut inner = self.0.lock();
        if let Some(held) = inner.held.get_mut(&RegionId(region.id)) {
            (held.since, held.merging) = (region::epoch(region), None);
            held.region = Some(region.clone());
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
            let is_gone = inner.graves.get(&id).is_some_and(|gone| peer.id <= gone.peer.0);
            let other = inner.held.get(&id);
            if is_gone || other.is_some_and(|held| held.peer.0 != peer.id) {
                continue;
            }
            if let Some(range) = other.and_then(|held| held.region.as_ref()) {
                panic!("region {id} is born over its own peer, which holds {range:?}");
            }
            let was_waiting = other.is_some();
            inner.held.insert(id, Held::new(PeerId(peer.id), Some(child.clone())));
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
