//! How large a region is, and where it should be divided.
//!
//! A walk over all families of a region takes samples of about equal bytes; joined in the order of keys they tell where each part of
//! the wished size ends. Borders lie between users' keys, never between versions of one.

use std::collections::BTreeMap;

use base::codec;
use bytes::Bytes;
use engine::{Cf, Engine, keys};
use proto::metapb::Region;

use crate::config::Config;

/// What a walk over a region found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Of the region's range when it began.
    pub version: u64,
    /// Of keys and values, before compression.
    pub bytes: u64,
    /// Of users: versions of a key count each.
    pub keys: u64,
    /// Where it should be divided, ascending; empty if it should not.
    pub cuts: Vec<Bytes>,
}

/// From which size on regions are divided, and into which.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub bytes: u64,
    pub bytes_max: u64,
    pub keys: u64,
    pub keys_max: u64,
}

impl Limits {
    pub fn of(config: &Config) -> Limits {
        Limits {
            bytes: config.region_split_size.0,
            bytes_max: config.region_max_size.0,
            keys: config.region_split_keys,
            keys_max: config.region_max_keys,
        }
    }

    pub fn exceeds(&self, bytes: u64, keys: u64) -> bool {
        bytes > self.bytes_max || keys > self.keys_max
    }
}

/// Samples of a part: fine enough that parts come out nearly equal, few enough to be joined in memory.
const SAMPLES: u64 = 64;

#[derive(Clone, Copy, Default)]
struct Weight {
    bytes: u64,
    keys: u64,
}

impl Weight {
    fn add(&mut self, other: Weight) {
        self.bytes += other.bytes;
        self.keys += other.keys;
    }

    fn reaches(&self, bytes: u64, keys: u64) -> bool {
        self.bytes >= bytes || self.keys >= keys
    }
}

/// The key at which a region may end at or before `key`: a timestamp behind an encoded key does not count, as no border may part the
/// versions of a key. A raw key stays whole, unless it looks like one with a timestamp; then what is cut off does no harm.
pub fn border(cf: Cf, key: &Bytes) -> Bytes {
    if cf == Cf::Lock {
        return key.clone();
    }
    match codec::decode_bytes(key) {
        Ok((_, taken)) if taken + 8 == key.len() => key.slice(..taken),
        _ => key.clone(),
    }
}

/// Walks over a region. Long work: not for a thread that others wait for.
pub fn measure(engine: &dyn Engine, region: &Region, limits: &Limits) -> engine::Result<Measured> {
    let (start, end) = (keys::data_key(&region.start_key), keys::data_end_key(&region.end_key));
    let snapshot = engine.snapshot();
    let mut samples: BTreeMap<Bytes, Weight> = BTreeMap::new();
    let mut total = Weight::default();
    for cf in Cf::DATA {
        let mut cursor = snapshot.cursor(cf, &start, &end)?;
        let mut since = Weight::default();
        let mut last = None;
        while let Some((key, value)) = cursor.next()? {
            let entry = Weight {
                bytes: (key.len() + value.len()) as u64,
                // A value of a transaction that is too long for its commit record is no key of its own; a raw one is.
                keys: u64::from(cf != Cf::Lock),
            };
            total.add(entry);
            since.add(entry);
            if since.reaches(limits.bytes / SAMPLES, limits.keys / SAMPLES) {
                let sample = samples.entry(border(cf, &keys::region_key(&key))).or_default();
                sample.add(std::mem::take(&mut since));
                last = None;
            } else {
                last = Some(key);
            }
        }
        if let Some(key) = last {
            samples.entry(border(cf, &keys::region_key(&key))).or_default().add(since);
        }
    }
    let wanted = limits.exceeds(total.bytes, total.keys);
    Ok(Measured {
        version: crate::region::epoch(region).version,
        bytes: total.bytes,
        keys: total.keys,
        cuts: if wanted {
            cuts(region, limits, total, &samples)
        } else {
            Vec::new()
        },
    })
}

/// Ends a part wherever the wished size is reached, unless too little would be left behind the last.
fn cuts(region: &Region, limits: &Limits, total: Weight, samples: &BTreeMap<Bytes, Weight>) -> Vec<Bytes> {
    let mut cuts: Vec<Bytes> = Vec::new();
    let (mut part, mut seen) = (Weight::default(), Weight::default());
    for (key, weight) in samples {
        part.add(*weight);
        seen.add(*weight);
        let left = Weight {
            bytes: total.bytes - seen.bytes,
            keys: total.keys - seen.keys,
        };
        let enough_left = left.reaches(limits.bytes / 2, limits.keys / 2);
        let is_inside = *key > region.start_key && (region.end_key.is_empty() || *key < region.end_key);
        if part.reaches(limits.bytes, limits.keys) && enough_left && is_inside && cuts.len() < crate::split::SPLIT_MAX {
            cuts.push(key.clone());
            part = Weight::default();
        }
    }
    cuts
}

/// The key that divides a region in two halves of equal bytes, if one does.
pub fn middle(engine: &dyn Engine, region: &Region) -> engine::Result<Option<Bytes>> {
    let fine = |bytes: u64| Limits {
        bytes,
        bytes_max: 0,
        keys: u64::MAX,
        keys_max: u64::MAX,
    };
    // The first walk tells how much there is.
    let whole = measure(engine, region, &fine(u64::MAX))?;
    let halves = measure(engine, region, &fine((whole.bytes / 2).max(1)))?;
    Ok(halves.cuts.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{Batch, MemEngine};

    fn limits(bytes: u64, bytes_max: u64) -> Limits {
        Limits {
            bytes,
            bytes_max,
            keys: u64::MAX,
            keys_max: u64::MAX,
        }
    }

    fn region(start: &str, end: &str) -> Region {
        Region {
            id: 1,
            start_key: start.to_owned().into(),
            end_key: end.to_owned().into(),
            ..Region::default()
        }
    }

    fn filled(keys: impl Iterator<Item = (Cf, Vec<u8>)>) -> MemEngine {
        let engine = MemEngine::new();
        let mut batch = Batch::new();
        keys.for_each(|(cf, key)| batch.put(cf, keys::data_key(&key), vec![0; 90]));
        engine.write(batch).expect("memory writes");
        engine
    }

    #[test]
    fn parts_come_out_nearly_equal() {
        let engine = filled((0..1000).map(|n| (Cf::Default, format!("k{n:04}").into_bytes())));
        let measured = measure(&engine, &region("", ""), &limits(20_000, 30_000)).expect("memory reads");
        assert_eq!((measured.bytes, measured.keys), (96_000, 1000));
        assert_eq!(measured.cuts.len(), 4);
        let first = String::from_utf8(measured.cuts[0].to_vec()).expect("text");
        let at: u64 = first[1..].parse().expect("a number");
        assert!((205..=215).contains(&at), "{first}");
        let small = measure(&engine, &region("k0100", "k0200"), &limits(20_000, 30_000)).expect("memory reads");
        assert_eq!((small.bytes, small.cuts.len()), (9_600, 0));
    }

    #[test]
    fn keys_count_too() {
        let engine = filled((0..1000).map(|n| (Cf::Default, format!("k{n:04}").into_bytes())));
        let limits = Limits {
            keys: 300,
            keys_max: 500,
            ..limits(u64::MAX, u64::MAX)
        };
        let measured = measure(&engine, &region("", ""), &limits).expect("memory reads");
        assert_eq!(measured.cuts.len(), 2, "too few would be left behind a third");
    }

    #[test]
    fn versions_of_a_key_stay_together() {
        let versioned = |ts: u64| {
            let mut key = codec::encode_bytes(b"only");
            key.extend_from_slice(&ts.to_be_bytes());
            (Cf::Write, key)
        };
        let engine = filled((0..100).map(versioned));
        let all = measure(&engine, &region("", ""), &limits(1_000, 2_000)).expect("memory reads");
        let key = Bytes::from(codec::encode_bytes(b"only"));
        assert_eq!(all.cuts, [] as [Bytes; 0], "one key cannot be divided");
        let own = Region {
            start_key: key,
            ..region("", "")
        };
        let measured = measure(&engine, &own, &limits(1_000, 2_000)).expect("memory reads");
        assert_eq!(measured.cuts, [] as [Bytes; 0], "one key cannot be divided");
    }

    #[test]
    fn the_middle_halves() {
        let engine = filled((0..100).map(|n| (Cf::Default, format!("k{n:04}").into_bytes())));
        let key = middle(&engine, &region("", "")).expect("memory reads").expect("a middle");
        assert!(
            (*b"k0045"..=*b"k0055").contains(&<[u8; 5]>::try_from(&key[..]).expect("five bytes")),
            "{key:?}"
        );
        assert_eq!(middle(&engine, &region("a", "b")).expect("memory reads"), None);
    }
}
