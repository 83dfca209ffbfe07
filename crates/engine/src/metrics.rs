//! Metrics of the engines.

use std::sync::LazyLock;

use base::metrics::{counter, counters, gauge, latency};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

/// One sync of the log, for all callers that wait for it.
pub static SYNC_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    latency(
        "ferrite_engine_sync_seconds",
        "Time of one sync of the engine's log, shared by its callers",
    )
});

/// Bytes of keys and values written.
pub static WRITE_BYTES: LazyLock<IntCounter> = LazyLock::new(|| {
    counter(
        "ferrite_engine_write_bytes_total",
        "Bytes of keys and values written to the engine",
    )
});

pub static WRITE_BATCHES: LazyLock<IntCounter> =
    LazyLock::new(|| counter("ferrite_engine_write_batches_total", "Batches written to the engine"));

/// How long a writer waited for room.
pub static STALL_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    latency(
        "ferrite_engine_stall_seconds",
        "Time a write waited until flushes or compactions made room",
    )
});

/// Memtables that became tables.
pub static FLUSH_SECONDS: LazyLock<Histogram> =
    LazyLock::new(|| latency("ferrite_engine_flush_seconds", "Time to turn gathered writes into tables"));

pub static COMPACTIONS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counters("ferrite_engine_compactions_total", "Compactions that changed tables", &["cf"]));

/// 1 once the engine takes no more writes.
pub static POISONED: LazyLock<IntGauge> = LazyLock::new(|| {
    gauge(
        "ferrite_engine_poisoned",
        "1 after a failed write or sync: the store must restart",
    )
});

/// Bytes of batches that are not in tables yet.
pub static MEMTABLE_BYTES: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("ferrite_engine_memtable_bytes", "Bytes of writes gathered in memory"));
