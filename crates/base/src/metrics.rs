//! Prometheus metrics of the process. Each crate registers its own, in its `metrics.rs`, named `ferrite_<crate>_<what>_<unit>`.

use prometheus::{Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, TextEncoder};

/// Buckets from 50 µs to 6.5 s, doubling: for every latency in seconds.
pub fn latency_buckets() -> Vec<f64> {
    prometheus::exponential_buckets(50e-6, 2.0, 18).expect("start, factor and count are positive constants")
}

fn register<C: prometheus::core::Collector + Clone + 'static>(metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("metric names and labels are constants in the right form");
    prometheus::register(Box::new(metric.clone())).expect("each metric is registered once, by its static");
    metric
}

/// Registers a counter.
pub fn counter(name: &str, help: &str) -> IntCounter {
    register(IntCounter::new(name, help))
}

/// Registers counters told apart by `labels`.
pub fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(IntCounterVec::new(Opts::new(name, help), labels))
}

/// Registers a gauge.
pub fn gauge(name: &str, help: &str) -> IntGauge {
    register(IntGauge::new(name, help))
}

/// Registers a histogram with buckets of its own.
pub fn histogram(name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
    register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
}

/// Registers a histogram of seconds with [`latency_buckets`].
pub fn latency(name: &str, help: &str) -> Histogram {
    register(Histogram::with_opts(
        HistogramOpts::new(name, help).buckets(latency_buckets()),
    ))
}

/// Registers histograms of seconds told apart by `labels`.
pub fn latencies(name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    register(HistogramVec::new(
        HistogramOpts::new(name, help).buckets(latency_buckets()),
        labels,
    ))
}

/// Every metric of the process in the text form that Prometheus scrapes.
pub fn render() -> String {
    let mut out = Vec::new();
    TextEncoder::new()
        .encode(&prometheus::gather(), &mut out)
        .expect("writing to memory does not fail");
    String::from_utf8(out).expect("the text encoder writes UTF-8")
}
