//! Whole ranges: delete, bulk load, size.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use lsm_tree::{AbstractTree, InternalValue, Memtable, ValueType};

use super::snapshot::View;
use super::{Core, tree_error};
use crate::{Ascending, Batch, Cf, Result, Snapshot};

/// A delete goes in batches of about this many keys, so that writers come in between.
const DELETE_KEYS: usize = 512;

/// A load shorter than this goes the way of batches: cheaper than tables of its own and a flush.
const INGEST_BYTES_MIN: usize = 1 << 20;

/// Deletes key by key. Dropping whole tables would be quicker, but a dropped table may hold the newer of two versions of a key
/// whose older one lies in a table that stays: the old value would come back until deletes reach it, and after a crash for good.
/// Compaction drops the deleted keys' tables soon after.
pub fn delete(core: &Arc<Core>, cf: Cf, start: &[u8], end: &[u8]) -> Result<()> {
    core.alive()?;
    let mut cursor = View::new(core).cursor(cf, start, end)?;
    loop {
        let mut batch = Batch::new();
        while batch.len() < DELETE_KEYS
            && let Some((key, _)) = cursor.next()?
        {
            batch.delete(cf, key);
        }
        if batch.is_empty() {
            return Ok(());
        }
        core.write(&batch)?;
    }
}

/// Loads sorted pairs, straight into tables when they are many.
pub fn ingest(core: &Arc<Core>, cf: Cf, pairs: &mut dyn Iterator<Item = (Bytes, Bytes)>) -> Result<()> {
    core.alive()?;
    let mut pairs = Ascending::new(pairs);
    let mut first = Batch::new();
    while first.bytes() < INGEST_BYTES_MIN {
        match pairs.next() {
            Some((key, value)) => first.put(cf, key, value),
            None if first.is_empty() => return Ok(()),
            None => {
                crate::check_keys(&first)?;
                return core.write(&first);
            }
        }
    }
    let error = |e| core.fail(tree_error("ingest", &core.dir, e));
    let tree = core.tree(cf);
    let mut tables = tree.ingestion().map_err(error)?;
    crate::check_keys(&first)?;
    for op in first.into_ops() {
        if let crate::Op::Put { key, value, .. } = op {
            tables.write(&*key, &*value).map_err(error)?;
        }
    }
    for (key, value) in pairs {
        crate::check_key(&key)?;
        tables.write(&*key, &*value).map_err(error)?;
    }
    core.sync()?; // most of what the next step must sync, without the writer lock
    let mut front = core.front.lock();
    core.alive()?;
    // Flushes this family's memtable, hence the sync; its tables get a number of their own, hence no batch in between.
    front.log.sync_locked().map_err(|e| core.fail(e))?;
    let outcome = tables.finish().map_err(error);
    front.memtables = core.trees.each_ref().map(|tree| tree.active_memtable());
    front.bytes = front.memtables.iter().map(|memtable| memtable.size()).sum();
    outcome?;
    core.show_tables(&mut front);
    drop(front);
    core.tables_changed();
    Ok(())
}

/// Counts tables by the share of their keys' range that lies inside, and what is in memory by its entries.
pub fn approximate_size(core: &Core, cf: Cf, start: &[u8], end: &[u8]) -> u64 {
    if !end.is_empty() && start >= end {
        return 0;
    }
    let tree = core.tree(cf);
    let mut bytes = memtable_bytes(&tree.active_memtable(), start, end);
    for table in tree.current_version().iter_tables() {
        let range = &table.metadata.key_range;
        let (min, max): (&[u8], &[u8]) = (range.min(), range.max());
        if start <= max && (end.is_empty() || min < end) {
            let from = position(min, max, start);
            let to = if end.is_empty() { 1.0 } else { position(min, max, end) };
            bytes += (table.metadata.file_size as f64 * (to - from)) as u64;
        }
    }
    bytes
}

/// Where `key` lies between `min` and `max`, from 0 to 1, as if keys were spread evenly.
fn position(min: &[u8], max: &[u8], key: &[u8]) -> f64 {
    if key <= min {
        return 0.0;
    }
    if key > max {
        return 1.0;
    }
    let shared = min.iter().zip(max).take_while(|(a, b)| a == b).count();
    let number = |key: &[u8]| {
        let mut head = [0u8; 8];
        let rest = key.get(shared..).unwrap_or_default();
        let len = rest.len().min(8);
        head[..len].copy_from_slice(&rest[..len]);
        u64::from_be_bytes(head) as f64
    };
    let (low, high) = (number(min), number(max));
    if high > low {
        ((number(key) - low) / (high - low)).clamp(0.0, 1.0)
    } else {
        0.5
    }
}

/// Bytes of the entries in a range; of long ranges from the first entries and the share of the range that they cover.
fn memtable_bytes(memtable: &Memtable, start: &[u8], end: &[u8]) -> u64 {
    const ENTRIES_MAX: usize = 2000;
    // Entries order by key, then newest first.
    let before = |key: &[u8]| InternalValue::from_components(key, b"", u64::MAX, ValueType::Value).key;
    let low = if start.is_empty() {
        Bound::Unbounded
    } else {
        Bound::Included(before(start))
    };
    let high = if end.is_empty() {
        Bound::Unbounded
    } else {
        Bound::Excluded(before(end))
    };
    let mut entries = memtable.items.range((low, high));
    let mut bytes = 0;
    let mut last = None;
    for entry in entries.by_ref().take(ENTRIES_MAX) {
        bytes += (entry.key().user_key.len() + entry.value().len()) as u64;
        last = Some(entry);
    }
    let (Some(last), Some(back)) = (last, entries.next_back()) else {
        return bytes;
    };
    let covered = position(start, &back.key().user_key, &last.key().user_key).max(0.01);
    ((bytes as f64 / covered) as u64).min(memtable.size())
}

#[cfg(test)]
mod tests {
    use super::position;

    #[test]
    fn position_is_monotone_and_bounded() {
        assert_eq!(position(b"b", b"d", b"a"), 0.0);
        assert_eq!(position(b"b", b"d", b"e"), 1.0);
        assert_eq!(position(b"b", b"d", b"c"), 0.5);
        assert_eq!(position(b"same", b"same", b"same"), 0.0);
        let mut before = 0.0;
        for number in 0..1000u32 {
            let key = [b"prefix".as_slice(), &number.to_be_bytes()].concat();
            let at = position(b"prefix\0\0\0\0", b"prefix\0\0\x03\xe8", &key);
            assert!(at >= before && at <= 1.0, "{number}: {at} after {before}");
            before = at;
        }
    }
}
