//! Metrics of the placement driver.

use std::sync::LazyLock;

use prometheus::{Histogram, HistogramOpts, IntCounter};

/// Requests that one step of the machine handled together.
pub static BATCH_REQUESTS: LazyLock<Histogram> = LazyLock::new(|| {
    let buckets = prometheus::exponential_buckets(1.0, 4.0, 9).expect("start, factor and count are positive constants");
    let options = HistogramOpts::new(
        "ferrite_pd_batch_requests",
        "requests handled in one step of the placement driver",
    )
    .buckets(buckets);
    let histogram = Histogram::with_opts(options).expect("the name has the right form");
    prometheus::register(Box::new(histogram.clone())).expect("it is registered once, by its static");
    histogram
});

pub static BUSY: LazyLock<IntCounter> =
    LazyLock::new(|| base::metrics::counter("ferrite_pd_busy_total", "requests refused because too many were in flight"));

pub static LOG_SECONDS: LazyLock<Histogram> =
    LazyLock::new(|| base::metrics::latency("ferrite_pd_log_seconds", "time to make one batch of commands durable"));
