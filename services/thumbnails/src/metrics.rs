//! Figures for Prometheus.

use std::sync::LazyLock;

use prometheus::{Histogram, HistogramVec, IntCounterVec, IntGauge};

/// Requests by how they ended.
pub static REQUESTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    base::metrics::counters(
        "ferrite_thumbnails_requests_total",
        "Requests for pictures, by status and by what the cache did: memory, disk, cluster, miss, shared (waited for an equal one), none.",
        &["status", "cache"],
    )
});
/// Time of whole requests.
pub static SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    base::metrics::latencies(
        "ferrite_thumbnails_request_seconds",
        "Time until the answer began, by what the cache did.",
        &["cache"],
    )
});
/// Time on pixels.
pub static WORK_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    base::metrics::latencies(
        "ferrite_thumbnails_work_seconds",
        "Time on a thread for pixels, by format of the source.",
        &["format"],
    )
});
/// Time to bring sources.
pub static SOURCE_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    base::metrics::latencies(
        "ferrite_thumbnails_source_seconds",
        "Time to bring a source, by kind.",
        &["kind"],
    )
});
/// Sources by how it went.
pub static SOURCES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    base::metrics::counters(
        "ferrite_thumbnails_sources_total",
        "Sources asked for, by kind and outcome: found, unchanged, missing, refused, failed.",
        &["kind", "outcome"],
    )
});
/// Calls of the cluster that holds results.
pub static CLUSTER: LazyLock<IntCounterVec> = LazyLock::new(|| {
    base::metrics::counters(
        "ferrite_thumbnails_cluster_total",
        "Results asked of the cluster and sent there, by call and outcome: hit, miss, damaged, failed, rests; sent, large, dropped, failed.",
        &["call", "outcome"],
    )
});
/// Jobs that wait for a thread.
pub static QUEUE: LazyLock<IntGauge> =
    LazyLock::new(|| base::metrics::gauge("ferrite_thumbnails_queue", "Jobs that wait for a thread."));
/// How long they wait.
pub static QUEUE_SECONDS: LazyLock<Histogram> =
    LazyLock::new(|| base::metrics::latency("ferrite_thumbnails_queue_seconds", "Time of jobs in the queue."));
/// Jobs that run.
pub static RUNNING: LazyLock<IntGauge> = LazyLock::new(|| base::metrics::gauge("ferrite_thumbnails_running", "Jobs that run."));
/// Memory of those, by estimate.
pub static RUNNING_BYTES: LazyLock<IntGauge> =
    LazyLock::new(|| base::metrics::gauge("ferrite_thumbnails_running_bytes", "Memory of jobs that run, by estimate."));
/// Connections that are open.
pub static CONNECTIONS: LazyLock<IntGauge> =
    LazyLock::new(|| base::metrics::gauge("ferrite_thumbnails_connections", "Connections that are open."));
/// The cache in memory.
pub static MEMORY_BYTES: LazyLock<IntGauge> =
    LazyLock::new(|| base::metrics::gauge("ferrite_thumbnails_cache_memory_bytes", "Results in memory."));
/// The cache on disk.
pub static DISK_BYTES: LazyLock<IntGauge> = LazyLock::new(|| {
    base::metrics::gauge(
        "ferrite_thumbnails_cache_disk_bytes",
        "Results on disk, as they count against the limit.",
    )
});
