//! [`MemoryLocks`]: pessimistic locks that are kept in memory of the region's leader alone, as most of them become prewrites, or go,
//! before they were worth a write.
//!
//! They live in one term and one version of the region's range, those of the snapshot under which they were granted; with either they
//! are lost. A transaction does not notice unless another writes its key meanwhile: its prewrite takes the missing lock for granted
//! where no newer record stands. Bytes are bounded, per region and over all: what finds no room is written like any other lock.

use std::collections::BTreeMap;
use std::ops::Bound;

use base::RegionId;
use bytes::Bytes;
use engine::kv::RegionSnapshot;

use crate::key::Key;
use crate::lock::Lock;

/// Bytes of one region's locks.
const REGION_BYTES_MAX: usize = 512 << 10;
/// Bytes of all locks.
const BYTES_MAX: usize = 64 << 20;
/// What an entry weighs besides its key and its primary.
const ENTRY_BYTES: usize = 200;

/// Leadership and range under which locks are valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reign {
    pub region: RegionId,
    pub term: u64,
    pub version: u64,
}

impl Reign {
    pub fn of(snapshot: &dyn RegionSnapshot) -> Reign {
        let region = snapshot.region();
        Reign {
            region: RegionId(region.id),
            term: snapshot.term(),
            version: region.region_epoch.as_ref().map_or(0, |epoch| epoch.version),
        }
    }
}

#[derive(Debug, Default)]
struct Region {
    term: u64,
    version: u64,
    locks: BTreeMap<Key, Lock>,
    bytes: usize,
}

/// Locks in memory of one range, as they were when somebody looked.
#[derive(Debug, Default)]
pub struct InMemory {
    reign: Reign,
    locks: BTreeMap<Key, Lock>,
}

impl InMemory {
    /// Those that still hold under the reign of a snapshot that was taken afterwards.
    pub fn under(self, snapshot: &dyn RegionSnapshot) -> BTreeMap<Key, Lock> {
        if self.reign < Reign::of(snapshot) {
            BTreeMap::new()
        } else {
            self.locks
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryLocks {
    regions: BTreeMap<RegionId, Region>,
    bytes: usize,
}

impl MemoryLocks {
    /// Whether another lock may be kept.
    pub fn has_room(&self, reign: Reign) -> bool {
        let of_region = self.regions.get(&reign.region).map_or(0, |region| region.bytes);
        of_region < REGION_BYTES_MAX && self.bytes < BYTES_MAX
    }

    /// Locks on `keys`.
    pub fn on_keys<'a>(&mut self, reign: Reign, keys: impl Iterator<Item = &'a Key>) -> BTreeMap<Key, Lock> {
        let Some(region) = self.region(reign) else {
            return BTreeMap::new();
        };
        keys.filter_map(|key| Some((key.clone(), region.locks.get(key)?.clone())))
            .collect()
    }

    /// Locks in `[start, end)`, encoded; an empty end is none.
    pub fn in_range(&self, region: RegionId, start: &[u8], end: &[u8]) -> InMemory {
        let Some(held) = self.regions.get(&region) else {
            return InMemory::default();
        };
        let start = Key::from_encoded(Bytes::copy_from_slice(start));
        let range = held.locks.range((Bound::Included(start), Bound::Unbounded));
        InMemory {
            reign: Reign {
                region,
                term: held.term,
                version: held.version,
            },
            locks: range
                .take_while(|(key, _)| end.is_empty() || key.encoded()[..] < *end)
                .map(|(key, lock)| (key.clone(), lock.clone()))
                .collect(),
        }
    }

    /// All locks of `reign`.
    pub fn all(&mut self, reign: Reign) -> BTreeMap<Key, Lock> {
        self.region(reign).map(|region| region.locks.clone()).unwrap_or_default()
    }

    /// Grants or drops locks, in this order. A reign that is over grants nothing.
    pub fn apply(&mut self, reign: Reign, changes: impl IntoIterator<Item = (Key, Option<Lock>)>) {
        for (key, lock) in changes {
            match lock {
                Some(lock) => self.grant(reign, key, lock),
                None => self.drop_lock(reign, &key),
            }
        }
        if self.regions.get(&reign.region).is_some_and(|region| region.locks.is_empty()) {
            self.regions.remove(&reign.region);
        }
    }

    fn grant(&mut self, reign: Reign, key: Key, lock: Lock) {
        if self.region(reign).is_none() {
            let newer = self.regions.contains_key(&reign.region);
            if newer {
                return;
            }
            let Reign { region, term, version } = reign;
            let empty = Region {
                term,
                version,
                ..Region::default()
            };
            self.regions.insert(region, empty);
        }
        self.drop_lock(reign, &key);
        let region = self.regions.get_mut(&reign.region).expect("found or made above");
        let bytes = weight(&key, &lock);
        region.bytes += bytes;
        self.bytes += bytes;
        region.locks.insert(key, lock);
    }

    fn drop_lock(&mut self, reign: Reign, key: &Key) {
        let Some(region) = self.region(reign) else { return };
        if let Some(lock) = region.locks.remove(key) {
            let bytes = weight(key, &lock);
            region.bytes -= bytes;
            self.bytes -= bytes;
        }
    }

    /// The locks of `reign`; those of an older one are dropped, and a newer one's are not shown.
    fn region(&mut self, reign: Reign) -> Option<&mut Region> {
        let at = (reign.term, reign.version);
        let found = self.regions.get(&reign.region)?;
        if (found.term, found.version) < at {
            self.bytes -= found.bytes;
            self.regions.remove(&reign.region);
            return None;
        }
        self.regions
            .get_mut(&reign.region)
            .filter(|region| (region.term, region.version) == at)
    }
}

fn weight(key: &Key, lock: &Lock) -> usize {
    ENTRY_BYTES + key.encoded().len() + lock.primary.len()
}

#[cfg(test)]
mod tests {
    use base::Ts;

    use super::*;
    use crate::lock::LockKind;

    fn key(name: &str) -> Key {
        Key::from_user(name.as_bytes())
    }

    fn lock(start_ts: u64) -> Lock {
        Lock::new(LockKind::Pessimistic, "primary".into(), Ts(start_ts), 3000)
    }

    fn reign(term: u64) -> Reign {
        Reign {
            region: RegionId(1),
            term,
            version: 1,
        }
    }

    fn names(locks: BTreeMap<Key, Lock>) -> Vec<String> {
        let name = |key: Key| String::from_utf8(key.user().expect("own").to_vec()).expect("own");
        locks.into_keys().map(name).collect()
    }

    #[test]
    fn locks_go_with_their_leadership() {
        let mut memory = MemoryLocks::default();
        memory.apply(reign(5), [(key("a"), Some(lock(1))), (key("b"), Some(lock(2)))]);
        let all = [key("a"), key("b"), key("c")];
        assert_eq!(names(memory.on_keys(reign(5), all.iter())), ["a", "b"]);
        assert!(memory.on_keys(reign(4), all.iter()).is_empty());
        memory.apply(reign(4), [(key("c"), Some(lock(3))), (key("a"), None)]);
        assert_eq!(
            names(memory.on_keys(reign(5), all.iter())),
            ["a", "b"],
            "an older term changes nothing"
        );
        assert!(memory.on_keys(reign(6), all.iter()).is_empty());
        assert!(memory.on_keys(reign(5), all.iter()).is_empty(), "a newer term was seen");
        assert_eq!((memory.bytes, memory.regions.len()), (0, 0));
    }

    #[test]
    fn bytes_are_counted_and_bounded() {
        let mut memory = MemoryLocks::default();
        for _ in 0..2 {
            memory.apply(reign(5), [(key("a"), Some(lock(1)))]);
            assert_eq!(memory.bytes, weight(&key("a"), &lock(1)));
        }
        memory.apply(reign(5), [(key("a"), None), (key("b"), None)]);
        assert_eq!((memory.bytes, memory.regions.len()), (0, 0));
        let many = (0..3000).map(|at| (key(&format!("{at}")), Some(lock(1))));
        memory.apply(reign(5), many);
        assert!(!memory.has_room(reign(5)));
        let other = Reign {
            region: RegionId(2),
            ..reign(5)
        };
        assert!(memory.has_room(other));
    }

    #[test]
    fn ranges_are_half_open() {
        let mut memory = MemoryLocks::default();
        memory.apply(reign(5), ["a", "b", "c", "d"].map(|name| (key(name), Some(lock(1)))));
        let range = |start: &str, end: &[u8]| names(memory.in_range(RegionId(1), key(start).encoded(), end).locks);
        assert_eq!(range("b", key("d").encoded()), ["b", "c"]);
        assert_eq!(range("c", b""), ["c", "d"]);
        assert!(memory.in_range(RegionId(2), b"", b"").locks.is_empty());
        assert_eq!(names(memory.all(reign(5))).len(), 4);
    }
}
