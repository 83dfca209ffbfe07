//! Keys that are asked for most, by the space-saving sketch (Metwally, Agrawal, El Abbadi: Efficient computation of frequent and top-k
//! elements in data streams, ICDT 2005): a fixed number of counters; a new key takes over the smallest.

use std::hash::RandomState;

use hashbrown::HashMap;

/// Counters of a thread; a key that has more than 1/256 of all requests is surely among them.
const COUNTERS: usize = 256;
/// Longest key that is kept whole; of longer ones the front.
const KEY_MAX: usize = 128;
/// Big keys that are remembered, by size.
const BIG_MAX: usize = 64;
/// When the sum of counters comes to this they are halved, so that what was hot yesterday fades.
const TOTAL_MAX: u64 = 1 << 20;

/// Counters by key.
#[derive(Debug, Default)]
pub struct Sketch {
    // Clients choose the keys, so the hash is seeded.
    counts: HashMap<Vec<u8>, u64, RandomState>,
    big: HashMap<Vec<u8>, u64, RandomState>,
    total: u64,
}

impl Sketch {
    /// Counts one request for `key`.
    pub fn note(&mut self, key: &[u8]) {
        let key = key.get(..key.len().min(KEY_MAX)).unwrap_or_default();
        self.total += 1;
        if let Some(count) = self.counts.get_mut(key) {
            *count += 1;
        } else if self.counts.len() < COUNTERS {
            self.counts.insert(key.to_vec(), 1);
        } else if let Some((smallest, count)) = self.counts.iter().min_by_key(|(_, count)| **count) {
            let (smallest, count) = (smallest.clone(), *count);
            self.counts.remove(&smallest);
            self.counts.insert(key.to_vec(), count + 1);
        }
        if self.total >= TOTAL_MAX {
            self.total /= 2;
            self.counts.retain(|_, count| {
                *count /= 2;
                *count > 0
            });
        }
    }

    /// Remembers a big value or request under `key`.
    pub fn note_big(&mut self, key: &[u8], bytes: u64) {
        if let Some(known) = self.big.get_mut(key) {
            *known = bytes.max(*known);
            return;
        }
        if self.big.len() >= BIG_MAX {
            let smallest = self.big.iter().min_by_key(|(_, bytes)| **bytes);
            let Some((smallest, least)) = smallest.map(|(key, bytes)| (key.clone(), *bytes)) else {
                return;
            };
            if least >= bytes {
                return;
            }
            self.big.remove(&smallest);
        }
        self.big.insert(key.to_vec(), bytes);
    }

    /// Keys with their counts, in no order.
    pub fn counts(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.counts.iter().map(|(key, count)| (key.as_slice(), *count))
    }

    /// Big keys with their sizes, in no order.
    pub fn big(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.big.iter().map(|(key, bytes)| (key.as_slice(), *bytes))
    }

    /// Requests that were counted.
    pub fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hot_key_is_found_among_many() {
        let mut sketch = Sketch::default();
        for number in 0..20_000u32 {
            sketch.note(format!("cold:{number}").as_bytes());
            if number % 10 == 0 {
                sketch.note(b"hot");
            }
        }
        let top = sketch.counts().max_by_key(|(_, count)| *count);
        let (key, count) = top.expect("has counters");
        assert_eq!(key, b"hot");
        assert!(count >= 2_000, "{count}");
        assert!(sketch.counts.len() <= COUNTERS);
    }

    #[test]
    fn the_biggest_are_kept() {
        let mut sketch = Sketch::default();
        (0..200u64).for_each(|number| sketch.note_big(&number.to_be_bytes(), number));
        assert_eq!(sketch.big().count(), BIG_MAX);
        assert!(sketch.big().all(|(_, bytes)| bytes >= 200 - BIG_MAX as u64));
    }
}
