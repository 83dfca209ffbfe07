//! How long a disk takes: a sync costs a latency, slow phases stretch it, and a stall holds everything up. One queue per disk.
//!
//! What a crash loses is not decided here but by the in-memory raft log and engine, which keep a prefix of what was not synced.

use std::time::Duration;

use base::MonoTime;

use crate::rng::Rng;

/// However much is queued, a sync is done after this long: a disk that hangs for longer is a dead one.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// How bad disks are.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    pub sync_min: Duration,
    pub sync_mean: Duration,
    /// Probability that a sync takes a stall longer.
    pub stall: f64,
    pub stall_mean: Duration,
}

impl DiskOptions {
    pub fn healthy() -> DiskOptions {
        DiskOptions {
            sync_min: Duration::from_micros(300),
            sync_mean: Duration::from_micros(700),
            stall: 0.0,
            stall_mean: Duration::ZERO,
        }
    }
}

/// The disk of one store.
pub struct Disk {
    rng: Rng,
    pub options: DiskOptions,
    /// Factor on latencies; more than one while the disk is slow.
    pub slowness: u32,
    free_at: MonoTime,
}

impl Disk {
    pub fn new(rng: Rng, options: DiskOptions) -> Disk {
        Disk {
            rng,
            options,
            slowness: 1,
            free_at: MonoTime::default(),
        }
    }

    /// When a sync asked for now is done: after everything asked for before it.
    pub fn sync(&mut self, now: MonoTime) -> MonoTime {
        let mut took = (self.options.sync_min + self.rng.exponential(self.options.sync_mean)) * self.slowness;
        if self.rng.chance(self.options.stall) {
            took += self.rng.exponential(self.options.stall_mean);
        }
        self.free_at = (self.free_at.max(now) + took).min(now + WAIT_MAX);
        self.free_at
    }

    /// The process died: what was queued is gone.
    pub fn reset(&mut self) {
        self.free_at = MonoTime::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_queue_and_slow_down() {
        let mut disk = Disk::new(Rng::stream(1, "disk"), DiskOptions::healthy());
        let now = MonoTime(5);
        let times: Vec<_> = (0..100).map(|_| disk.sync(now)).collect();
        assert!(times.windows(2).all(|pair| pair[1].since(pair[0]) >= disk.options.sync_min));
        disk.reset();
        disk.slowness = 1000;
        let slow = disk.sync(now).since(now);
        assert!((disk.options.sync_min * 1000..=WAIT_MAX).contains(&slow), "{slow:?}");
        for _ in 0..10_000 {
            disk.sync(now);
        }
        assert_eq!(disk.sync(now), now + WAIT_MAX);
    }
}
