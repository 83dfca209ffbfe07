//! Borders that somebody asked for: told to the leaders whose regions they divide, until regions end there.
//!
//! Volatile: who asked looks for the border in the directory, and asks again.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use base::MonoTime;
use bytes::Bytes;
use proto::metapb::Region;

/// Borders that wait at once; more are refused.
const WANTED_MAX: usize = 10_000;
/// Borders in one order.
pub const AT_ONCE: usize = 64;
/// A border that did not come about by then is forgotten.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub struct Splits {
    wanted: BTreeMap<Bytes, MonoTime>,
}

impl Splits {
    /// Wants a region to end at each of the keys, in region keys; `false` if there is no room for them.
    pub fn want(&mut self, now: MonoTime, keys: impl IntoIterator<Item = Bytes>) -> bool {
        self.wanted.retain(|_, until| *until > now);
        let until = now + PATIENCE;
        self.wanted
            .extend(keys.into_iter().filter(|key| !key.is_empty()).map(|key| (key, until)));
        let fits = self.wanted.len() <= WANTED_MAX;
        while self.wanted.len() > WANTED_MAX {
            self.wanted.pop_last();
        }
        fits
    }

    /// The borders that this region's leader should make; those that it has made are forgotten.
    pub fn within(&mut self, now: MonoTime, region: &Region) -> Vec<Bytes> {
        self.wanted.remove(&region.start_key);
        let behind = (Bound::Excluded(region.start_key.clone()), Bound::Unbounded);
        let inside = self.wanted.range(behind);
        inside
            .take_while(|(key, _)| region.end_key.is_empty() || **key < region.end_key)
            .filter(|(_, until)| **until > now)
            .map(|(key, _)| key.clone())
            .take(AT_ONCE)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(start: &str, end: &str) -> Region {
        Region {
            id: 1,
            start_key: start.to_owned().into(),
            end_key: end.to_owned().into(),
            ..Region::default()
        }
    }

    #[test]
    fn borders_are_told_until_they_are_made_or_time_is_up() {
        let (now, mut splits) = (MonoTime(0), Splits::default());
        assert!(splits.want(now, ["", "c", "f", "m"].map(Bytes::from)));
        assert_eq!(splits.within(now, &region("a", "g")), ["c", "f"]);
        assert_eq!(splits.within(now, &region("a", "c")), [] as [Bytes; 0]);
        assert_eq!(splits.within(now, &region("c", "g")), ["f"]);
        assert_eq!(
            splits.within(now, &region("", "")),
            ["f", "m"],
            "the one that was made is forgotten"
        );
        assert_eq!(splits.within(now + PATIENCE, &region("", "")), [] as [Bytes; 0]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut splits = Splits::default();
        let keys = (0..WANTED_MAX as u32 + 1).map(|n| Bytes::copy_from_slice(&n.to_be_bytes()));
        assert!(!splits.want(MonoTime(0), keys));
        assert_eq!(splits.wanted.len(), WANTED_MAX);
    }
}
