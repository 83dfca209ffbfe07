//! What is counted on the way of a request: per thread, so that nobody waits; read by others as it stands.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::MonoTime;

use crate::clock;
use crate::hot::Sketch;
use crate::insight::{Insight, SlowRequest};

/// A number that one thread writes and others read: no locked instruction, since nobody else writes.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// By its one writer alone.
    pub fn add(&self, value: u64) {
        self.0.store(self.get().wrapping_add(value), Ordering::Relaxed);
    }

    /// By its one writer alone.
    pub fn sub(&self, value: u64) {
        self.0.store(self.get().wrapping_sub(value), Ordering::Relaxed);
    }

    /// As it stands.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Buckets of latency: below 16 µs, 32 µs, … doubling; the last takes the rest.
pub const BUCKETS: usize = 21;

/// Upper bound of a bucket in microseconds.
pub fn bucket_bound(at: usize) -> u64 {
    16 << at
}

/// Of one command.
#[derive(Debug, Default)]
pub struct CommandSheet {
    pub requests: Count,
    pub errors: Count,
    pub micros: Count,
    pub buckets: [Count; BUCKETS],
}

/// Of a pool on a thread.
#[derive(Debug, Default)]
pub struct Sheet {
    pub commands: Vec<CommandSheet>,
    pub clients: Count,
    pub clients_total: Count,
    pub bytes_in: Count,
    pub bytes_out: Count,
    pub big: Count,
    pub rate_limited: Count,
    pub malformed: Count,
    pub private: Count,
    pub redirects: Count,
    pub mirrored: Count,
    pub hedges: Count,
}

impl Sheet {
    /// For so many commands; those learnt later share the last place.
    pub fn new(commands: usize) -> Sheet {
        Sheet {
            commands: (0..=commands).map(|_| CommandSheet::default()).collect(),
            ..Sheet::default()
        }
    }

    /// Of the command with this index.
    pub fn command(&self, at: u16) -> Option<&CommandSheet> {
        self.commands.get(usize::from(at)).or_else(|| self.commands.last())
    }
}

/// Of a server on a thread.
#[derive(Debug, Default)]
pub struct NodeSheet {
    pub requests: Count,
    pub failures: Count,
    pub refused: Count,
    pub timeouts: Count,
    pub in_flight: Count,
    pub connections: Count,
    pub connects: Count,
    pub bytes_in: Count,
    pub bytes_out: Count,
}

/// Bytes of a key that the slow log shows.
const KEY_SHOWN: usize = 30;

/// What is remembered of a request until its reply leaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub command: u16,
    pub started: MonoTime,
    key: [u8; KEY_SHOWN],
    key_len: u8,
}

impl Tally {
    /// Begins now.
    pub fn new(command: u16) -> Tally {
        Tally {
            command,
            started: clock::now(),
            ..Tally::default()
        }
    }

    /// Remembers the front of a key.
    pub fn with_key(mut self, key: &[u8]) -> Tally {
        let len = key.len().min(KEY_SHOWN);
        if let (Some(to), Some(from)) = (self.key.get_mut(..len), key.get(..len)) {
            to.copy_from_slice(from);
        }
        self.key_len = len as u8;
        self
    }

    /// What was remembered of the key.
    pub fn key(&self) -> &[u8] {
        self.key.get(..usize::from(self.key_len)).unwrap_or_default()
    }
}

/// Counts for a pool on a thread.
#[derive(Default)]
pub struct Meter {
    pub sheet: Arc<Sheet>,
    pub insight: Arc<Insight>,
    pub hot: Arc<parking_lot::Mutex<Sketch>>,
    pub pool: String,
    /// Requests slower than this are logged; zero: none.
    pub slow: Cell<Duration>,
    /// Replies and requests of so many bytes are big; zero: none.
    pub big: Cell<u64>,
    turn: Cell<u32>,
}

/// Every so many requests the key is looked at.
pub const HOT_SAMPLE: u32 = 64;

impl Meter {
    /// For a pool on a thread.
    pub fn new(pool: &str, sheet: Arc<Sheet>, insight: Arc<Insight>, hot: Arc<parking_lot::Mutex<Sketch>>) -> Meter {
        Meter {
            sheet,
            insight,
            hot,
            pool: pool.into(),
            ..Meter::default()
        }
    }

    /// A reply of so many bytes left.
    pub fn done(&self, tally: &Tally, bytes: usize, is_error: bool) {
        let took = clock::now().since(tally.started);
        let micros = took.as_micros() as u64;
        if let Some(command) = self.sheet.command(tally.command) {
            command.requests.add(1);
            command.micros.add(micros);
            if is_error {
                command.errors.add(1);
            }
            let bucket = (u64::BITS - (micros >> 4).leading_zeros()) as usize;
            if let Some(bucket) = command.buckets.get(bucket.min(BUCKETS - 1)) {
                bucket.add(1);
            }
        }
        let slow = self.slow.get();
        if took >= slow && !slow.is_zero() {
            self.insight.slow(SlowRequest {
                command: tally.command,
                key: tally.key().to_vec(),
                pool: self.pool.clone(),
                micros,
            });
        }
        self.weigh(tally.key(), bytes);
    }

    /// Notes a big request or reply.
    pub fn weigh(&self, key: &[u8], bytes: usize) {
        let big = self.big.get();
        if bytes as u64 >= big && big > 0 {
            self.sheet.big.add(1);
            if !key.is_empty() {
                self.hot.lock().note_big(key, bytes as u64);
            }
        }
    }

    /// A request for `key` came in. One in [`HOT_SAMPLE`] is looked at.
    pub fn touch(&self, key: &[u8]) {
        let turn = self.turn.get().wrapping_add(1);
        self.turn.set(turn);
        if turn.is_multiple_of(HOT_SAMPLE) {
            self.hot.lock().note(key);
        }
    }
}
