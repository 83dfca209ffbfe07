//! Figures of the traffic between stores.

use std::sync::LazyLock;

use prometheus::{IntCounter, IntCounterVec, IntGauge};

pub static SENT: LazyLock<IntCounter> = LazyLock::new(|| {
    base::metrics::counter(
        "ferrite_server_raft_messages_sent_total",
        "Raft messages given to the network.",
    )
});
pub static RECEIVED: LazyLock<IntCounter> = LazyLock::new(|| {
    base::metrics::counter(
        "ferrite_server_raft_messages_received_total",
        "Raft messages taken from the network.",
    )
});
/// `reason`: full, broken, no_store, wrong_store.
pub static DROPPED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    base::metrics::counters(
        "ferrite_server_raft_messages_dropped_total",
        "Raft messages dropped before or after the network.",
        &["reason"],
    )
});
pub static QUEUED: LazyLock<IntGauge> = LazyLock::new(|| {
    base::metrics::gauge(
        "ferrite_server_raft_messages_queued",
        "Raft messages that wait for their stream, over all stores.",
    )
});
pub static CONNECTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    base::metrics::counters(
        "ferrite_server_raft_streams_opened_total",
        "Streams to other stores that were opened.",
        &["outcome"],
    )
});
/// `direction`: sent, received. `outcome`: ok, failed, refused.
pub static SNAPSHOTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    base::metrics::counters(
        "ferrite_server_raft_snapshots_total",
        "Raft snapshots over the network.",
        &["direction", "outcome"],
    )
});
