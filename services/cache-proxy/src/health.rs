//! Failures of servers, as threads meet them: what the control plane judges by, beside its own probes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

/// Of one server, over all threads.
#[derive(Debug, Default)]
pub struct Health {
    failures: AtomicU32,
}

impl Health {
    /// A connection or a request failed.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// It answered. Writes only if there is something to forget.
    pub fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Failures since it last answered.
    pub fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// All servers of a pool, by address. Locked when a thread learns of a server.
#[derive(Debug, Default)]
pub struct Board(Mutex<BTreeMap<String, Arc<Health>>>);

impl Board {
    /// Of the server at `addr`.
    pub fn of(&self, addr: &str) -> Arc<Health> {
        Arc::clone(self.0.lock().entry(addr.into()).or_default())
    }
}
