//! Randomness from one seed, split per concern: a further draw in one place does not reshuffle any other.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng};

/// A stream of draws for one concern of one seed.
pub struct Rng(SmallRng);

impl Rng {
    /// The stream named `concern` of `seed`. The same two give the same draws, on every machine.
    pub fn stream(seed: u64, concern: &str) -> Rng {
        Rng(SmallRng::seed_from_u64(mix(seed) ^ fnv1a(concern.as_bytes())))
    }

    /// A number for another component to seed itself with.
    pub fn seed(&mut self) -> u64 {
        self.0.random()
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        // No draw for the certain cases, so that a fault turned off costs nothing.
        p > 0.0 && (p >= 1.0 || self.0.random::<f64>() < p)
    }

    /// A number in `[0, end)`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    /// A number in `[low, high]`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high)
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        self.0.random()
    }

    /// A span in `[low, high]`.
    pub fn span(&mut self, low: Duration, high: Duration) -> Duration {
        Duration::from_nanos(self.0.random_range(low.as_nanos() as u64..=high.as_nanos() as u64))
    }

    /// A span with many short and few long ones, of the given mean, cut at ten times the mean.
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        let factor = -(1.0 - self.unit()).ln();
        mean.mul_f64(factor.min(10.0))
    }

    /// One of `items`, which must not be empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Puts `items` in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// Spreads neighbouring seeds far apart (the finalizer of splitmix64).
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a, 64 bits.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ() {
        let draws = |seed, concern| {
            let mut rng = Rng::stream(seed, concern);
            (0..8).map(|_| rng.seed()).collect::<Vec<_>>()
        };
        assert_eq!(draws(1, "network"), draws(1, "network"));
        assert_ne!(draws(1, "network"), draws(2, "network"));
        assert_ne!(draws(1, "network"), draws(1, "disk"));
    }

    #[test]
    fn draws_keep_their_bounds() {
        let mut rng = Rng::stream(7, "bounds");
        let mean = Duration::from_millis(10);
        for _ in 0..1000 {
            assert!(rng.below(3) < 3);
            assert!((5..=6).contains(&rng.between(5, 6)));
            assert!(rng.exponential(mean) <= mean * 10);
        }
        assert!(!rng.chance(0.0) && rng.chance(1.0));
        let mut items: Vec<u32> = (0..50).collect();
        rng.shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
