//! The index: every blob in memory, 80 bytes each and a hash slot of five, and the order in which they are evicted.
//!
//! Segmented LRU (Karedla, Love, Wherry, 1994): a blob enters probation; used again, it is protected. Victims come from the
//! tail of probation, so a scan of blobs that nobody wants again passes through probation and leaves the protected alone.
//! A plain value: time is an argument, no disk, no lock.

use hashbrown::HashTable;

use crate::frames::Form;
use crate::key::Key;

/// Of all bytes, the protected may hold this many tenths; beyond, their least recently used go back to probation.
const PROTECTED_TENTHS: u64 = 8;
/// Entries are kept in blocks of this many, so that growing moves none.
const BLOCK: usize = 4096;
/// No slot.
const NONE: u32 = u32::MAX;
/// Set in a place that is a file of its own.
const FILE_BIT: u64 = 1 << 63;

/// Where the bytes of a blob lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In its own file; ids are never used twice.
    File(u64),
    /// In a segment, at an offset.
    Segment(u32, u32),
}

impl Place {
    /// As eight bytes.
    pub fn pack(self) -> u64 {
        match self {
            Place::File(id) => id | FILE_BIT,
            Place::Segment(segment, offset) => u64::from(segment) << 32 | u64::from(offset),
        }
    }

    /// From eight bytes; every value has a meaning.
    pub fn unpack(packed: u64) -> Place {
        match packed & FILE_BIT {
            0 => Place::Segment((packed >> 32) as u32, packed as u32),
            _ => Place::File(packed & !FILE_BIT),
        }
    }
}

/// What is known of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Key,
    place: u64,
    /// Bytes of content.
    pub len: u64,
    /// Bytes on disk, the chunk table included.
    pub stored: u64,
    /// XXH3-64 of the content.
    pub check: u64,
    /// Seconds since 1970 of the last use.
    pub used_at: u32,
    /// Who uploaded it: a number of the store's table of spaces.
    pub space: u16,
    /// [`Form`], suspect, protected, noted, read: a bit each.
    flags: u8,
}

const ZSTD: u8 = 1;
const SUSPECT: u8 = 2;
const PROTECTED: u8 = 4;
const NOTED: u8 = 8;
const READ: u8 = 16;

impl Entry {
    pub fn new(key: Key, place: Place, form: Form) -> Entry {
        Entry {
            key,
            place: place.pack(),
            len: 0,
            stored: 0,
            check: 0,
            used_at: 0,
            space: 0,
            flags: if form == Form::Zstd { ZSTD } else { 0 },
        }
    }

    pub fn place(&self) -> Place {
        Place::unpack(self.place)
    }

    pub fn form(&self) -> Form {
        if self.flags & ZSTD == 0 { Form::Raw } else { Form::Zstd }
    }

    /// Whether its bytes must be checked before they are served: they were written before an unclean stop.
    pub fn is_suspect(&self) -> bool {
        self.flags & SUSPECT != 0
    }

    pub fn is_protected(&self) -> bool {
        self.flags & PROTECTED != 0
    }

    /// Sets or clears the mark of [`Entry::is_suspect`].
    pub fn set_suspect(&mut self, on: bool) {
        self.set(SUSPECT, on);
    }

    /// Whether the journal will be told of a use.
    pub(crate) fn is_noted(&self) -> bool {
        self.flags & NOTED != 0
    }

    /// Whether it was used since the start.
    pub(crate) fn was_used(&self) -> bool {
        self.flags & READ != 0
    }

    pub(crate) fn set_noted(&mut self, on: bool) {
        self.set(NOTED, on);
    }

    pub(crate) fn set_protected(&mut self, on: bool) {
        self.set(PROTECTED, on);
    }

    fn set(&mut self, bit: u8, on: bool) {
        self.flags = if on { self.flags | bit } else { self.flags & !bit };
    }
}

#[derive(Clone, Copy)]
struct Slot {
    entry: Entry,
    newer: u32,
    older: u32,
}

const _: () = assert!(size_of::<Slot>() <= 88, "the index promises at most 120 bytes an entry");

/// A doubly linked list through the slots, newest first.
#[derive(Clone, Copy)]
struct List {
    newest: u32,
    oldest: u32,
    bytes: u64,
}

impl Default for List {
    fn default() -> List {
        List {
            newest: NONE,
            oldest: NONE,
            bytes: 0,
        }
    }
}

/// Every blob of a store.
#[derive(Default)]
pub struct Index {
    table: HashTable<u32>,
    blocks: Vec<Vec<Slot>>,
    free: Vec<u32>,
    probation: List,
    protected: List,
    /// While it is filled from a journal, shares of lists that are not whole mean nothing.
    is_loading: bool,
}

impl Index {
    /// One that is filled from a journal, in no order of use: what is protected stays so.
    pub(crate) fn loading() -> Index {
        Index {
            is_loading: true,
            ..Index::default()
        }
    }

    /// Number of blobs.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Bytes of memory that the index holds.
    pub fn memory(&self) -> usize {
        self.blocks.len() * BLOCK * size_of::<Slot>() + self.table.allocation_size() + self.free.capacity() * 4
    }

    /// Bytes on disk of all blobs, as stored.
    pub fn stored(&self) -> u64 {
        self.probation.bytes + self.protected.bytes
    }

    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.find(key).map(|slot| &self.slot(slot).entry)
    }

    /// The slot of `key`: stays the same while the blob lives, and is used again after.
    pub fn find(&self, key: &Key) -> Option<u32> {
        self.table.find(hash(key), |&slot| self.slot(slot).entry.key == *key).copied()
    }

    /// What is in `slot`, if anything ever was: compare the key or the place.
    pub fn at(&self, slot: u32) -> Option<&Entry> {
        self.blocks
            .get(slot as usize / BLOCK)?
            .get(slot as usize % BLOCK)
            .map(|slot| &slot.entry)
    }

    /// Changes an entry in place; key and sizes stay.
    pub fn update(&mut self, key: &Key, change: impl FnOnce(&mut Entry)) -> bool {
        let Some(slot) = self.find(key) else { return false };
        let entry = &mut self.slot_mut(slot).entry;
        let (key, stored, protected) = (entry.key, entry.stored, entry.is_protected());
        change(entry);
        assert!(entry.key == key && entry.stored == stored && entry.is_protected() == protected);
        true
    }

    /// Moves a blob, as compaction does.
    pub fn relocate(&mut self, key: &Key, place: Place) -> Option<u32> {
        let slot = self.find(key)?;
        self.slot_mut(slot).entry.place = place.pack();
        Some(slot)
    }

    /// Adds a blob as the most recently used of its list (protected if it says so, as after a restart), in place of what
    /// had its key. The blob replaced and the slot.
    pub fn insert(&mut self, entry: Entry) -> (Option<Entry>, u32) {
        let replaced = self.remove(&entry.key);
        let slot = self.take_slot(Slot {
            entry,
            newer: NONE,
            older: NONE,
        });
        let blocks = &self.blocks;
        self.table.insert_unique(hash(&entry.key), slot, |&slot| {
            hash(&blocks[slot as usize / BLOCK][slot as usize % BLOCK].entry.key)
        });
        self.link(slot);
        self.balance();
        (replaced, slot)
    }

    /// Notes a use at `now` (seconds since 1970): what is on probation becomes protected.
    pub fn touch(&mut self, key: &Key, now: u32) -> Option<Entry> {
        self.touch_from(key, now).map(|(_, after)| after)
    }

    /// As [`Index::touch`]: the entry before and after.
    pub(crate) fn touch_from(&mut self, key: &Key, now: u32) -> Option<(Entry, Entry)> {
        let slot = self.find(key)?;
        let before = self.slot(slot).entry;
        self.unlink(slot);
        let entry = &mut self.slot_mut(slot).entry;
        entry.used_at = now;
        entry.set_protected(true);
        entry.set(READ, true);
        self.link(slot);
        self.balance();
        Some((before, self.slot(slot).entry))
    }

    pub fn remove(&mut self, key: &Key) -> Option<Entry> {
        let slot = self.find(key)?;
        self.unlink(slot);
        let blocks = &self.blocks;
        let found = self
            .table
            .find_entry(hash(key), |&slot| {
                blocks[slot as usize / BLOCK][slot as usize % BLOCK].entry.key == *key
            })
            .ok()?;
        found.remove();
        self.free.push(slot);
        Some(self.slot(slot).entry)
    }

    /// The blob to evict next.
    pub fn victim(&self) -> Option<&Entry> {
        let slot = match self.probation.oldest {
            NONE => self.protected.oldest,
            oldest => oldest,
        };
        (slot != NONE).then(|| &self.slot(slot).entry)
    }

    /// The least recently used blob of each list: candidates for an age limit.
    pub fn oldest(&self) -> impl Iterator<Item = &Entry> {
        [self.probation.oldest, self.protected.oldest]
            .into_iter()
            .filter(|&slot| slot != NONE)
            .map(|slot| &self.slot(slot).entry)
    }

    /// Live entries among slots `[start, start + count)`, and whether there are slots beyond.
    pub fn chunk(&self, start: u32, count: u32) -> (Vec<Entry>, bool) {
        let end = start.saturating_add(count);
        let live = (start..end)
            .map_while(|slot| self.at(slot).map(|entry| (slot, entry)))
            .filter(|(slot, entry)| self.find(&entry.key) == Some(*slot))
            .map(|(_, entry)| *entry)
            .collect();
        (live, self.at(end).is_some())
    }

    fn slot(&self, slot: u32) -> &Slot {
        &self.blocks[slot as usize / BLOCK][slot as usize % BLOCK]
    }

    fn slot_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.blocks[slot as usize / BLOCK][slot as usize % BLOCK]
    }

    fn take_slot(&mut self, filled: Slot) -> u32 {
        if let Some(slot) = self.free.pop() {
            *self.slot_mut(slot) = filled;
            return slot;
        }
        if self.blocks.last().is_none_or(|block| block.len() == BLOCK) {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        let last = self.blocks.len() - 1;
        self.blocks[last].push(filled);
        let slot = last * BLOCK + self.blocks[last].len() - 1;
        u32::try_from(slot)
            .ok()
            .filter(|slot| *slot != NONE)
            .expect("four thousand million blobs would need 400 GB of memory")
    }

    fn list(&mut self, protected: bool) -> &mut List {
        if protected { &mut self.protected } else { &mut self.probation }
    }

    /// Puts a slot at the newest end of its list.
    fn link(&mut self, slot: u32) {
        let entry = self.slot(slot).entry;
        let list = self.list(entry.is_protected());
        let second = list.newest;
        list.newest = slot;
        list.bytes += entry.stored;
        if second == NONE {
            list.oldest = slot;
        } else {
            self.slot_mut(second).newer = slot;
        }
        let linked = self.slot_mut(slot);
        (linked.newer, linked.older) = (NONE, second);
    }

    fn unlink(&mut self, slot: u32) {
        let Slot { entry, newer, older } = *self.slot(slot);
        let list = self.list(entry.is_protected());
        list.bytes -= entry.stored;
        if newer == NONE {
            list.newest = older;
        }
        if older == NONE {
            list.oldest = newer;
        }
        if newer != NONE {
            self.slot_mut(newer).older = older;
        }
        if older != NONE {
            self.slot_mut(older).newer = newer;
        }
    }

    /// Sends the least recently used of the protected back to probation while they hold too much.
    fn balance(&mut self) {
        if self.is_loading {
            return;
        }
        while u128::from(self.protected.bytes) * 10 > u128::from(self.stored()) * u128::from(PROTECTED_TENTHS)
            && self.protected.oldest != self.protected.newest
        {
            let slot = self.protected.oldest;
            self.unlink(slot);
            self.slot_mut(slot).entry.set_protected(false);
            self.link(slot);
        }
    }
}

/// Keys are digests already; the first bytes name folders, so take others.
fn hash(key: &Key) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&key.0[8..16]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests;
