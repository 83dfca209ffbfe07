//! Time as a value: state machines take it as an argument, only shells read clocks.

use std::ops::{Add, Sub};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds on a clock that never goes back; its zero is arbitrary (process start, or the simulation's begin).
/// For leases, deadlines and ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonoTime(pub u64);

impl MonoTime {
    /// Reads the machine's monotonic clock. Only for shells; state machines take time as an argument.
    #[allow(clippy::disallowed_methods)] // the one place where the monotonic clock is read
    pub fn now() -> MonoTime {
        static START: OnceLock<Instant> = OnceLock::new();
        // One second ahead of zero, so that `now - short` never meets the floor.
        MonoTime(START.get_or_init(Instant::now).elapsed().as_nanos() as u64 + 1_000_000_000)
    }

    /// Time since `earlier`, zero if that lies ahead.
    pub fn since(self, earlier: MonoTime) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for MonoTime {
    type Output = MonoTime;
    fn add(self, span: Duration) -> MonoTime {
        MonoTime(self.0.saturating_add(span.as_nanos() as u64))
    }
}

impl Sub<Duration> for MonoTime {
    type Output = MonoTime;
    fn sub(self, span: Duration) -> MonoTime {
        MonoTime(self.0.saturating_sub(span.as_nanos() as u64))
    }
}

/// Milliseconds since 1970 by the machine's clock, which may jump. Feeds the TSO and key expiry, never a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(pub u64);

impl WallTime {
    /// Reads the machine's wall clock. Only for shells.
    #[allow(clippy::disallowed_methods)] // the one place where the wall clock is read
    pub fn now() -> WallTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        WallTime(since.as_millis() as u64)
    }

    /// Whole seconds since 1970.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }
}
