//! The results that were used last, in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use blob_store::Key;
use parking_lot::Mutex;

use super::Entry;
use crate::metrics;

/// What an entry takes beside its bytes.
const OVERHEAD: u64 = 512;

/// A bounded number of bytes; the least recently used results go.
pub struct Memory {
    bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<Key, (Arc<Entry>, u64)>,
    /// Keys by the time of their last use, which is a count.
    uses: BTreeMap<u64, Key>,
    time: u64,
    bytes: u64,
}

impl Memory {
    pub fn new(bytes_max: u64) -> Memory {
        Memory {
            bytes_max,
            state: Mutex::default(),
        }
    }

    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        let mut state = self.state.lock();
        state.time += 1;
        let time = state.time;
        let (entry, used) = state.entries.get_mut(key)?;
        let (entry, before) = (entry.clone(), std::mem::replace(used, time));
        state.uses.remove(&before);
        state.uses.insert(time, *key);
        Some(entry)
    }

    /// One that would take more than an eighth of all is not kept.
    pub fn put(&self, key: Key, entry: Arc<Entry>) {
        let size = size(&entry);
        if size > self.bytes_max / 8 {
            return;
        }
        let mut state = self.state.lock();
        state.remove(&key);
        state.time += 1;
        let time = state.time;
        state.entries.insert(key, (entry, time));
        state.uses.insert(time, key);
        state.bytes += size;
        while state.bytes > self.bytes_max
            && let Some((_, oldest)) = state.uses.first_key_value()
        {
            let oldest = *oldest;
            state.remove(&oldest);
        }
        metrics::MEMORY_BYTES.set(state.bytes as i64);
    }
}

impl State {
    fn remove(&mut self, key: &Key) {
        if let Some((entry, used)) = self.entries.remove(key) {
            self.uses.remove(&used);
            self.bytes -= size(&entry);
        }
    }
}

fn size(entry: &Entry) -> u64 {
    entry.bytes.len() as u64 + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::sample;

    #[test]
    fn the_least_recently_used_goes() {
        let memory = Memory::new(10 * (OVERHEAD + 10));
        let key = |number: usize| Key::named(&[&number.to_string()]);
        let entry = || Arc::new(sample("0123456789", 1));
        (0..10).for_each(|number| memory.put(key(number), entry()));
        assert!(memory.get(&key(0)).is_some());
        memory.put(key(10), entry());
        assert!(memory.get(&key(0)).is_some() && memory.get(&key(1)).is_none());
        memory.put(key(0), entry());
        assert_eq!(memory.state.lock().entries.len(), 10);
        memory.put(key(11), Arc::new(sample(&"x".repeat(9000), 1)));
        assert!(memory.get(&key(11)).is_none());
        let state = memory.state.lock();
        assert_eq!((state.bytes, state.uses.len()), (10 * (OVERHEAD + 10), 10));
    }
}
