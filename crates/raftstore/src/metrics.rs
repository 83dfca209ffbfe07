//! Metrics of replication.

use std::sync::LazyLock;

use prometheus::{Histogram, IntGauge};

fn sizes(name: &str, help: &str) -> Histogram {
    let buckets = prometheus::exponential_buckets(1.0, 2.0, 12).expect("start, factor and count are positive constants");
    base::metrics::histogram(name, help, buckets)
}

/// Events that a peer was stepped with at once.
pub(crate) static EVENTS: LazyLock<Histogram> =
    LazyLock::new(|| sizes("ferrite_raftstore_step_events", "events that a peer was stepped with at once"));
/// Regions that cost no tick.
pub(crate) static HIBERNATING: LazyLock<IntGauge> = LazyLock::new(|| {
    base::metrics::gauge(
        "ferrite_raftstore_hibernating_regions",
        "regions that hibernate, as nobody used them for a while",
    )
});
/// Writes of regions that shared one raft log write.
pub(crate) static LOG_GROUP: LazyLock<Histogram> = LazyLock::new(|| {
    sizes(
        "ferrite_raftstore_log_group_writes",
        "region writes that shared a raft log write",
    )
});
/// A write of the raft log, with its sync.
pub(crate) static LOG_WRITE: LazyLock<Histogram> =
    LazyLock::new(|| base::metrics::latency("ferrite_raftstore_log_write_seconds", "raft log write with its sync"));
/// Applying a task's entries.
pub(crate) static APPLY: LazyLock<Histogram> =
    LazyLock::new(|| base::metrics::latency("ferrite_raftstore_apply_seconds", "applying a group of entries"));
