//! How long to wait before a request is tried again, and when to give up: a plain value without clock.

use std::time::Duration;

use base::MonoTime;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Why a request is tried again. Each cause has waits of its own that double from the first to the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The client knew less than the store; PD or a moment helps.
    Stale,
    /// The region has no leader.
    Election,
    /// The store has too much to do.
    Busy,
    /// The store or PD does not answer.
    Unreachable,
    /// Another transaction's lock is in the way.
    Locked,
}

impl Cause {
    pub const COUNT: usize = 5;
    pub const ALL: [Cause; Cause::COUNT] = [Cause::Stale, Cause::Election, Cause::Busy, Cause::Unreachable, Cause::Locked];

    /// As metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Stale => "stale",
            Cause::Election => "election",
            Cause::Busy => "busy",
            Cause::Unreachable => "unreachable",
            Cause::Locked => "locked",
        }
    }

    /// First and longest wait, in milliseconds.
    const fn waits(self) -> (u64, u64) {
        match self {
            Cause::Stale => (2, 200),
            Cause::Election => (10, 200),
            Cause::Busy => (50, 1000),
            Cause::Unreachable => (10, 300),
            Cause::Locked => (2, 100),
        }
    }
}

/// Tries of one call.
pub(crate) struct Retry {
    /// When the call is over.
    pub deadline: MonoTime,
    /// Tries so far.
    pub attempts: u32,
    waited: [u32; Cause::COUNT],
    /// Tries in a row that were repeated without waiting.
    hasty: u32,
    random: SmallRng,
}

/// Stores may point at each other in a circle while leadership moves; after so many hints in a row there is a wait.
const HASTY_MAX: u32 = 3;

impl Retry {
    pub fn new(deadline: MonoTime, seed: u64) -> Retry {
        Retry {
            deadline,
            attempts: 0,
            waited: [0; Cause::COUNT],
            hasty: 0,
            random: SmallRng::seed_from_u64(seed),
        }
    }

    /// A number below `count` by chance; zero if there is none.
    pub fn draw(&mut self, count: usize) -> usize {
        if count == 0 { 0 } else { self.random.random_range(0..count) }
    }

    /// Wait before trying again with better knowledge; `None` if the deadline comes first.
    pub fn again(&mut self, now: MonoTime) -> Option<Duration> {
        self.hasty += 1;
        if self.hasty > HASTY_MAX {
            return self.pause(now, Cause::Stale, 0);
        }
        (now < self.deadline).then_some(Duration::ZERO)
    }

    /// Wait before trying again, at least `millis_min` long; `None` if the deadline comes first.
    /// Between half and all of the cause's wait, so that clients do not come back together.
    pub fn pause(&mut self, now: MonoTime, cause: Cause, millis_min: u64) -> Option<Duration> {
        self.hasty = 0;
        let (first, longest) = cause.waits();
        let times = &mut self.waited[cause as usize];
        let full = first.checked_shl(*times).unwrap_or(longest).min(longest);
        *times = (*times + 1).min(32);
        let micros = full * 1000;
        let jittered = self.random.random_range(micros / 2..=micros);
        let wait = Duration::from_micros(jittered.max(millis_min * 1000));
        (now + wait < self.deadline).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: MonoTime = MonoTime(1_000_000_000);

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut retry = Retry::new(START + millis(1_000_000), 7);
        for wanted in [10, 20, 40, 80, 160, 200, 200, 200] {
            let wait = retry.pause(START, Cause::Election, 0).expect("far from the deadline");
            assert!(
                wait >= millis(wanted) / 2 && wait <= millis(wanted),
                "{wait:?} for {wanted} ms"
            );
        }
        let other = retry.pause(START, Cause::Stale, 0).expect("far from the deadline");
        assert!(other <= millis(2), "causes wait apart: {other:?}");
    }

    #[test]
    fn waits_differ_by_seed_and_repeat_with_it() {
        let waits = |seed| {
            let mut retry = Retry::new(START + millis(1_000_000), seed);
            (0..8).map(|_| retry.pause(START, Cause::Busy, 0)).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }

    #[test]
    fn never_beyond_the_deadline() {
        let mut retry = Retry::new(START + millis(100), 7);
        assert!(retry.pause(START, Cause::Busy, 0).is_some());
        assert_eq!(
            retry.pause(START, Cause::Busy, 200),
            None,
            "the store asks for more than is left"
        );
        assert_eq!(retry.pause(START + millis(99), Cause::Election, 5), None);
        assert_eq!(retry.again(START + millis(100)), None);
    }

    #[test]
    fn hints_in_a_circle_do_not_spin() {
        let mut retry = Retry::new(START + millis(10_000), 7);
        let waits: Vec<_> = (0..4).map(|_| retry.again(START).expect("far from the deadline")).collect();
        assert_eq!(waits[..3], [Duration::ZERO; 3]);
        assert!(waits[3] > Duration::ZERO);
        assert_eq!(retry.again(START), Some(Duration::ZERO), "a wait starts the count anew");
    }

    #[test]
    fn hundreds_of_tries_do_not_overflow() {
        let mut retry = Retry::new(START + millis(10_000), 7);
        for _ in 0..300 {
            assert!(retry.pause(START, Cause::Unreachable, 0).expect("far from the deadline") <= millis(300));
        }
    }
}
