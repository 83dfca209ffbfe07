//! Figures per protocol and instance, for Prometheus and for the status page.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use base::MonoTime;
use parking_lot::{Mutex, RwLock};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::name::Protocol;

/// Instances that have labels of their own; more share the label `other`, since clients choose the names.
const INSTANCES_MAX: usize = 64;

static REQUESTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    base::metrics::counters(
        "ferrite_build_cache_requests_total",
        "Requests for blobs, by outcome: hit, miss, stored, refused, failed.",
        &["protocol", "instance", "outcome"],
    )
});
static BYTES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    base::metrics::counters(
        "ferrite_build_cache_bytes_total",
        "Bytes of blobs on the wire; `saved`: what clients did not have to receive thanks to zstd.",
        &["protocol", "instance", "direction"],
    )
});
static SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    base::metrics::latencies(
        "ferrite_build_cache_request_seconds",
        "Time until the answer began (get, find) or was sent (put); find: which of many blobs are missing.",
        &["protocol", "instance", "op"],
    )
});

/// Uploads that run.
pub static UPLOADS: LazyLock<IntGauge> =
    LazyLock::new(|| base::metrics::gauge("ferrite_build_cache_uploads", "Uploads in flight."));
/// Work that waits for a blocking thread or runs on one.
pub static BLOCKING: LazyLock<IntGauge> = LazyLock::new(|| {
    base::metrics::gauge(
        "ferrite_build_cache_blocking",
        "Pieces of work on blocking threads or waiting for one.",
    )
});
/// Connections that are open.
pub static CONNECTIONS: LazyLock<IntGauge> =
    LazyLock::new(|| base::metrics::gauge("ferrite_build_cache_connections", "Connections that are open."));
/// Bytes that went from files to sockets by themselves.
pub static LENT_BYTES: LazyLock<IntCounter> = LazyLock::new(|| {
    base::metrics::counter(
        "ferrite_build_cache_sendfile_bytes_total",
        "Bytes of blobs that the system sent from their files, without this process reading them.",
    )
});
/// What tiers were asked and sent.
pub static TIER_REQUESTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    base::metrics::counters(
        "ferrite_build_cache_tier_requests_total",
        "Requests to tiers, by outcome: hit, miss, failed, skipped (left alone, or too many), damaged, sent, dropped (not sent).",
        &["tier", "outcome"],
    )
});
/// Bytes between tiers and this server.
pub static TIER_BYTES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    base::metrics::counters(
        "ferrite_build_cache_tier_bytes_total",
        "Bytes of blobs from (in) and to (out) tiers, as they travel.",
        &["tier", "direction"],
    )
});
/// How long tiers take.
pub static TIER_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    base::metrics::latencies(
        "ferrite_build_cache_tier_seconds",
        "Time to bring a blob from a tier (get) or to send it there (put).",
        &["tier", "op"],
    )
});
/// Which tiers are asked.
pub static TIER_UP: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauges(
        "ferrite_build_cache_tier_up",
        "1 while the tier is asked, 0 while it is left alone after failures.",
    )
});
/// Blobs that wait to be sent.
pub static TIER_QUEUE: LazyLock<IntGaugeVec> =
    LazyLock::new(|| gauges("ferrite_build_cache_tier_queue", "Blobs that wait to be sent to the tier."));

fn gauges(name: &str, help: &str) -> IntGaugeVec {
    prometheus::register_int_gauge_vec!(name, help, &["tier"]).expect("each metric is registered once, under a valid name")
}

static STORE: LazyLock<Gauges> = LazyLock::new(Gauges::new);

struct Gauges {
    used: IntGauge,
    max: IntGauge,
    disk_free: IntGauge,
    blobs: IntGauge,
    stored: IntGauge,
    dead: IntGauge,
    index: IntGauge,
}

impl Gauges {
    fn new() -> Gauges {
        let gauge = |what: &str, help: &str| base::metrics::gauge(&format!("ferrite_build_cache_store_{what}"), help);
        Gauges {
            used: gauge(
                "used_bytes",
                "Bytes that count against the limit, uploads in flight included.",
            ),
            max: gauge("max_bytes", "The limit."),
            disk_free: gauge("disk_free_bytes", "What the disk has left."),
            blobs: gauge("blobs", "Blobs."),
            stored: gauge("blob_bytes", "Bytes of blobs on disk."),
            dead: gauge("dead_bytes", "Bytes in segments of blobs that are gone."),
            index: gauge("index_bytes", "Memory of the index."),
        }
    }
}

/// Puts the store's figures where Prometheus finds them.
pub fn note_store(stats: &blob_store::Stats) {
    let set = |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    set(&STORE.used, stats.used);
    set(&STORE.max, stats.size_max);
    set(&STORE.disk_free, stats.disk_free);
    set(&STORE.blobs, stats.blobs);
    set(&STORE.stored, stats.stored);
    set(&STORE.dead, stats.dead);
    set(&STORE.index, stats.index_memory);
}

/// Counters of one protocol in one instance.
pub struct Meter {
    pub protocol: Protocol,
    pub instance: String,
    pub hits: IntCounter,
    pub misses: IntCounter,
    pub stored: IntCounter,
    pub refused: IntCounter,
    pub failed: IntCounter,
    pub bytes_in: IntCounter,
    pub bytes_out: IntCounter,
    pub bytes_saved: IntCounter,
    /// By [`Op`].
    seconds: [Histogram; 3],
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Get,
    Put,
    Find,
}

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// By its client's doing.
    Refused,
    /// By ours, or for want of room.
    Failed,
}

impl Meter {
    fn new(protocol: Protocol, instance: &str) -> Meter {
        let requests = |outcome| REQUESTS.with_label_values(&[protocol.name(), instance, outcome]);
        let bytes = |direction| BYTES.with_label_values(&[protocol.name(), instance, direction]);
        let seconds = |op| SECONDS.with_label_values(&[protocol.name(), instance, op]);
        Meter {
            protocol,
            instance: instance.to_owned(),
            hits: requests("hit"),
            misses: requests("miss"),
            stored: requests("stored"),
            refused: requests("refused"),
            failed: requests("failed"),
            bytes_in: bytes("in"),
            bytes_out: bytes("out"),
            bytes_saved: bytes("saved"),
            seconds: ["get", "put", "find"].map(seconds),
        }
    }

    /// A request that began at `start` is answered, well or with a failure. A miss is none; it is counted where it is found.
    pub fn end(&self, op: Op, start: MonoTime, failure: Option<Failure>) {
        self.seconds[op as usize].observe(MonoTime::now().since(start).as_secs_f64());
        self.fail(failure);
    }

    /// One of several in a request, or a request that is not timed, ended so.
    pub fn fail(&self, failure: Option<Failure>) {
        match failure {
            Some(Failure::Refused) => self.refused.inc(),
            Some(Failure::Failed) => self.failed.inc(),
            None => {}
        }
    }

    /// Requests of any outcome.
    pub fn requests(&self) -> u64 {
        [&self.hits, &self.misses, &self.stored, &self.refused, &self.failed]
            .iter()
            .map(|counter| counter.get())
            .sum()
    }
}

/// All meters, by instance and protocol.
#[derive(Default)]
pub struct Meters {
    all: RwLock<BTreeMap<String, BTreeMap<Protocol, Arc<Meter>>>>,
    history: Mutex<Vec<Sample>>,
    total: AtomicU64,
}

/// The sums of one minute.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Sample {
    /// Seconds since 1970.
    pub at: u64,
    pub hits: u64,
    pub misses: u64,
    pub used: u64,
    /// Requests of the busiest instances since the start.
    pub instances: Vec<(String, u64)>,
}

/// A day of minutes.
const HISTORY_MAX: usize = 24 * 60;
/// Instances kept in each sample.
const TOP: usize = 8;

impl Meters {
    /// The meter to count on.
    pub fn of(&self, protocol: Protocol, instance: &str) -> Arc<Meter> {
        let known = |instance: &str| self.all.read().get(instance)?.get(&protocol).cloned();
        if let Some(meter) = known(instance) {
            return meter;
        }
        let mut all = self.all.write();
        let label = match all.contains_key(instance) || all.len() < INSTANCES_MAX {
            true => instance,
            false => "other",
        };
        let meters = all.entry(label.to_owned()).or_default();
        let meter = meters
            .entry(protocol)
            .or_insert_with(|| Arc::new(Meter::new(protocol, label)));
        meter.clone()
    }

    /// Every meter, by instance.
    pub fn list(&self) -> Vec<Arc<Meter>> {
        self.all.read().values().flat_map(|meters| meters.values().cloned()).collect()
    }

    /// Requests of instances, busiest first.
    pub fn top(&self) -> Vec<(String, u64)> {
        let all = self.all.read();
        let sum = |meters: &BTreeMap<Protocol, Arc<Meter>>| meters.values().map(|meter| meter.requests()).sum();
        let mut top: Vec<(String, u64)> = all.iter().map(|(name, meters)| (name.clone(), sum(meters))).collect();
        top.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        top
    }

    /// Notes the sums of this minute.
    pub fn sample(&self, at: u64, used: u64) {
        let meters = self.list();
        let sum = |of: fn(&Meter) -> &IntCounter| meters.iter().map(|meter| of(meter).get()).sum();
        let mut instances = self.top();
        instances.truncate(TOP);
        let sample = Sample {
            at,
            hits: sum(|meter| &meter.hits),
            misses: sum(|meter| &meter.misses),
            used,
            instances,
        };
        let mut history = self.history.lock();
        if history.len() >= HISTORY_MAX {
            history.remove(0);
        }
        history.push(sample);
        self.total.fetch_add(1, Ordering::Relaxed);
    }

    /// The samples of the last day, oldest first.
    pub fn history(&self) -> Vec<Sample> {
        self.history.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_bound_share_a_label() {
        let meters = Meters::default();
        for n in 0..2 * INSTANCES_MAX {
            meters.of(Protocol::Nx, &format!("i{n}")).hits.inc();
        }
        assert_eq!(meters.list().len(), INSTANCES_MAX + 1);
        assert_eq!(meters.top()[0], ("other".into(), INSTANCES_MAX as u64));
        assert_eq!(meters.of(Protocol::Nx, "i3").hits.get(), 1);
        meters.sample(60, 5);
        assert_eq!(meters.history()[0].hits, 2 * INSTANCES_MAX as u64);
    }
}
