//! The source of timestamps: 46 bits of wall-clock milliseconds, 18 bits of counter, strictly increasing.
//!
//! Only timestamps below a *bound* are handed out, and the bound is durable before the first of them leaves. Whoever takes over,
//! after a restart or an election, starts at the durable bound: above all that was ever handed out, whatever the clock says.
//! The clock only ever pulls forward: set back, it is ignored until it catches up.

use base::{Ts, WallTime};

/// How far ahead of the last timestamp the bound is reserved. Also the largest gap that a restart leaves.
pub const BOUND_AHEAD_MS: u64 = 3_000;
/// The bound is renewed when less than this is left, so that a slow disk is not waited for.
const BOUND_LEFT_MIN_MS: u64 = BOUND_AHEAD_MS / 2;
/// Timestamps of one millisecond, and so of one batch.
pub const BATCH_MAX: u32 = 1 << Ts::LOGICAL_BITS;

/// Hands out timestamps. A plain value: the clock is an argument, and making the bound durable is the caller's.
#[derive(Debug)]
pub struct Tso {
    /// The next timestamp is at or above this millisecond and counter.
    physical_ms: u64,
    logical: u64,
    /// Durable; timestamps stay below it.
    bound_ms: u64,
    /// The largest bound asked for; ahead of `bound_ms` while that is on its way to the disk.
    asked_ms: u64,
}

impl Tso {
    /// Goes on where the durable bound `bound_ms` says that nothing was handed out yet.
    pub fn new(bound_ms: u64) -> Tso {
        // Not zero: a timestamp of zero means "none" on the wire.
        Tso {
            physical_ms: bound_ms.max(1),
            logical: 0,
            bound_ms,
            asked_ms: bound_ms,
        }
    }

    /// Takes `count` timestamps, in `1..=BATCH_MAX`, all of one millisecond; returns the last, as the wire does.
    /// `None` when that needs a larger bound first: see [`Tso::want_bound`].
    pub fn grant(&mut self, wall: WallTime, count: u32) -> Option<Ts> {
        assert!((1..=BATCH_MAX).contains(&count), "batch of {count} timestamps");
        self.follow(wall);
        if self.logical + u64::from(count) > u64::from(BATCH_MAX) {
            self.physical_ms += 1;
            self.logical = 0;
        }
        if self.physical_ms >= self.bound_ms {
            return None;
        }
        self.logical += u64::from(count);
        Some(Ts::compose(self.physical_ms, self.logical - 1))
    }

    /// The bound to make durable next, if it is time and none is on its way. The caller hands it to [`Tso::on_bound`] when done.
    pub fn want_bound(&mut self) -> Option<u64> {
        let on_its_way = self.asked_ms > self.bound_ms;
        if on_its_way || self.bound_ms >= self.physical_ms + BOUND_LEFT_MIN_MS {
            return None;
        }
        self.asked_ms = self.physical_ms + BOUND_AHEAD_MS;
        Some(self.asked_ms)
    }

    /// `bound_ms` is durable.
    pub fn on_bound(&mut self, bound_ms: u64) {
        self.bound_ms = self.bound_ms.max(bound_ms);
        self.asked_ms = self.asked_ms.max(self.bound_ms);
    }

    fn follow(&mut self, wall: WallTime) {
        if wall.0 > self.physical_ms {
            self.physical_ms = wall.0;
            self.logical = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Grants, with a disk that is done at once.
    fn must_grant(tso: &mut Tso, wall: u64, count: u32) -> Ts {
        loop {
            let granted = tso.grant(WallTime(wall), count);
            if let Some(bound) = tso.want_bound() {
                tso.on_bound(bound);
            }
            if let Some(ts) = granted {
                return ts;
            }
        }
    }

    #[test]
    fn nothing_leaves_before_a_bound_is_durable() {
        let mut tso = Tso::new(0);
        assert_eq!(tso.grant(WallTime(5_000), 1), None);
        let bound = tso.want_bound().expect("a first bound");
        assert_eq!(bound, 5_000 + BOUND_AHEAD_MS);
        assert_eq!(tso.want_bound(), None, "one request for a bound at a time");
        assert_eq!(tso.grant(WallTime(5_000), 1), None);
        tso.on_bound(bound);
        assert_eq!(tso.grant(WallTime(5_000), 1), Some(Ts::compose(5_000, 0)));
    }

    #[test]
    fn a_batch_tells_its_last_timestamp_and_spills_into_the_next_millisecond() {
        let mut tso = Tso::new(0);
        assert_eq!(must_grant(&mut tso, 100, 64), Ts::compose(100, 63));
        assert_eq!(
            must_grant(&mut tso, 100, BATCH_MAX - 64),
            Ts::compose(100, u64::from(BATCH_MAX) - 1)
        );
        assert_eq!(
            must_grant(&mut tso, 100, BATCH_MAX),
            Ts::compose(101, u64::from(BATCH_MAX) - 1)
        );
        assert_eq!(must_grant(&mut tso, 100, 1), Ts::compose(102, 0));
        assert_eq!(must_grant(&mut tso, 102, 1), Ts::compose(102, 1));
    }

    #[test]
    fn a_clock_set_back_is_ignored_until_it_catches_up() {
        let mut tso = Tso::new(0);
        let before = must_grant(&mut tso, 3_600_000, 1);
        let after = must_grant(&mut tso, 0, 1);
        assert_eq!((before, after), (Ts::compose(3_600_000, 0), Ts::compose(3_600_000, 1)));
        assert_eq!(must_grant(&mut tso, 3_600_001, 1), Ts::compose(3_600_001, 0));
    }

    #[test]
    fn a_restart_with_the_clock_set_back_starts_at_the_bound() {
        let mut tso = Tso::new(0);
        let before = must_grant(&mut tso, 3_600_000, 1);
        let mut tso = Tso::new(3_600_000 + BOUND_AHEAD_MS);
        let after = must_grant(&mut tso, 17, 1);
        assert!(after > before);
        assert_eq!(after.physical_ms(), 3_600_000 + BOUND_AHEAD_MS);
    }

    #[test]
    fn the_bound_is_renewed_while_half_of_it_is_left() {
        let mut tso = Tso::new(0);
        must_grant(&mut tso, 10_000, 1);
        assert!(tso.grant(WallTime(11_400), 1).is_some());
        assert_eq!(tso.want_bound(), None);
        assert!(tso.grant(WallTime(11_600), 1).is_some());
        assert_eq!(tso.want_bound(), Some(11_600 + BOUND_AHEAD_MS));
    }
}
