//! Which server a hash belongs to: ketama as twemproxy and libmemcached draw it, modula, random.

use serde::{Deserialize, Serialize};

use crate::hash::{md5, md5_part};

/// How keys are spread over servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    /// Consistent hashing: a server that goes takes only its own keys along.
    #[default]
    Ketama,
    /// Hash modulo the sum of weights.
    Modula,
    /// Any server.
    Random,
}

/// Points of a server of average weight; four come from each MD5.
const POINTS_PER_SERVER: f32 = 160.0;

/// A server on the ring.
#[derive(Clone, Debug)]
pub struct Member {
    /// What its points are made from.
    pub name: String,
    pub weight: u32,
    /// Index that a look-up gives.
    pub index: u16,
}

/// A ring of points, or a wheel of as many places as the weights sum up to.
#[derive(Clone, Debug)]
pub enum Ring {
    /// Points by value, each with its member's index.
    Points(Points),
    Wheel(Vec<u16>),
    /// As a wheel; the hash is ignored and a number drawn in its place.
    Random(Vec<u16>),
}

impl Ring {
    /// Over `members`, which keep their order.
    pub fn new(distribution: Distribution, members: &[Member]) -> Ring {
        match distribution {
            Distribution::Ketama => Ring::Points(Points::new(ketama(members))),
            Distribution::Modula => Ring::Wheel(wheel(members)),
            Distribution::Random => Ring::Random(wheel(members)),
        }
    }

    /// Whether look-ups want a random number in place of a hash.
    pub fn is_random(&self) -> bool {
        matches!(self, Ring::Random(_))
    }

    /// Index of the member that `hash` belongs to; `None` when there is none.
    pub fn find(&self, hash: u32) -> Option<u16> {
        match self {
            Ring::Points(points) => points.find(hash),
            Ring::Wheel(places) | Ring::Random(places) => {
                let at = (hash as usize).checked_rem(places.len())?;
                places.get(at).copied()
            }
        }
    }
}

/// Points of a ring with an index by their high bits, so that a look-up reads a few points that lie side by side.
#[derive(Clone, Debug)]
pub struct Points {
    /// By value.
    points: Vec<(u32, u16)>,
    /// By the high bits of a hash, the first point that is not below all such hashes.
    starts: Vec<u32>,
    /// How far a hash is shifted to be left with its high bits.
    shift: u32,
}

impl Points {
    fn new(points: Vec<(u32, u16)>) -> Points {
        // As many parts as points: one point in each, on average.
        let bits = (usize::BITS - points.len().leading_zeros()).clamp(1, 20);
        let shift = u32::BITS - bits;
        let starts = (0..1u32 << bits).map(|high| points.partition_point(|(value, _)| *value < high << shift) as u32);
        Points {
            starts: starts.collect(),
            points,
            shift,
        }
    }

    /// The owner of the first point that is not below `hash`, or of the first of all.
    fn find(&self, hash: u32) -> Option<u16> {
        let start = self.starts.get((hash >> self.shift) as usize).copied().unwrap_or_default();
        let mut after = self.points.get(start as usize..).unwrap_or_default().iter();
        let found = after.find(|(value, _)| *value >= hash);
        found.or_else(|| self.points.first()).map(|(_, owner)| *owner)
    }
}

fn wheel(members: &[Member]) -> Vec<u16> {
    members
        .iter()
        .flat_map(|member| std::iter::repeat_n(member.index, member.weight as usize))
        .collect()
}

/// The arithmetic is in single precision, as twemproxy's is: it decides how many points a weight gets.
fn ketama(members: &[Member]) -> Vec<(u32, u16)> {
    let total: u32 = members.iter().map(|member| member.weight).sum();
    let mut points = Vec::new();
    for member in members {
        let share = member.weight as f32 / total as f32;
        let digests = (share * POINTS_PER_SERVER / 4.0 * members.len() as f32 + 1e-10).floor() as u32;
        for number in 0..digests {
            let digest = md5(format!("{}-{number}", member.name).as_bytes());
            points.extend((0..4).map(|part| (md5_part(&digest, part), member.index)));
        }
    }
    points.sort_by_key(|(value, _)| *value);
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Hash;

    fn members(count: u16) -> Vec<Member> {
        (0..count)
            .map(|index| Member {
                name: format!("10.0.0.{index}:6379"),
                weight: 1,
                index,
            })
            .collect()
    }

    #[test]
    fn a_server_that_goes_takes_only_its_own_keys() {
        let all = members(5);
        let before = Ring::new(Distribution::Ketama, &all);
        let after = Ring::new(Distribution::Ketama, &all[..4]);
        for number in 0..10_000 {
            let hash = Hash::Fnv1a64.of(format!("key:{number}").as_bytes());
            let old = before.find(hash).expect("there are members");
            if old != 4 {
                assert_eq!(after.find(hash), Some(old));
            }
        }
    }

    #[test]
    fn the_index_leads_to_the_point_that_a_search_finds() {
        let sorted = ketama(&members(7));
        let points = Points::new(sorted.clone());
        let edges = sorted
            .iter()
            .flat_map(|(value, _)| [value.wrapping_sub(1), *value, value.wrapping_add(1)]);
        for hash in edges.chain([0, u32::MAX]) {
            let at = sorted.partition_point(|(value, _)| *value < hash);
            let wanted = sorted.get(at).or_else(|| sorted.first()).map(|(_, owner)| *owner);
            assert_eq!(points.find(hash), wanted, "{hash}");
        }
    }

    #[test]
    fn weights_count() {
        let mut all = members(2);
        all[1].weight = 3;
        for distribution in [Distribution::Ketama, Distribution::Modula] {
            let ring = Ring::new(distribution, &all);
            let hits = (0..10_000)
                .filter(|number| ring.find(Hash::Md5.of(format!("key:{number}").as_bytes())) == Some(1))
                .count();
            assert!((6_800..8_200).contains(&hits), "{distribution:?}: {hits}");
        }
    }

    #[test]
    fn no_member_no_server() {
        assert_eq!(Ring::new(Distribution::Ketama, &[]).find(7), None);
        assert_eq!(Ring::new(Distribution::Modula, &[]).find(7), None);
    }
}
