//! Spreads bytes over time, so that bulk traffic leaves room for the rest.

use std::time::Duration;

use base::{ByteSize, MonoTime};
use parking_lot::Mutex;

/// A rate shared by all that ask.
pub struct Pace {
    bytes_per_second: u64,
    /// When the bytes granted so far have passed.
    next: Mutex<MonoTime>,
}

impl Pace {
    pub fn new(rate: ByteSize) -> Pace {
        assert!(rate.0 > 0, "a rate of zero never lets anything through");
        Pace {
            bytes_per_second: rate.0,
            next: Mutex::default(),
        }
    }

    /// How long to wait from `now` before `bytes` more may leave. Grants them, so call it once for each part.
    pub fn wait(&self, now: MonoTime, bytes: u64) -> Duration {
        let mut next = self.next.lock();
        let start = (*next).max(now);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        *next = start + Duration::from_nanos(nanos as u64);
        start.since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_spread_and_idle_time_is_not_saved_up() {
        let pace = Pace::new(ByteSize::mib(1));
        let start = MonoTime(5_000_000_000);
        assert_eq!(pace.wait(start, 512 << 10), Duration::ZERO);
        assert_eq!(pace.wait(start, 512 << 10), Duration::from_millis(500));
        assert_eq!(pace.wait(start, 1), Duration::from_secs(1));
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.wait(later, 1 << 20), Duration::ZERO);
        assert_eq!(pace.wait(later, 1), Duration::from_secs(1));
    }
}
