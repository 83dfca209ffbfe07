//! Metrics of the listeners.

use std::sync::LazyLock;

use base::metrics::counters;
use prometheus::IntCounterVec;

/// Handshakes of TLS by outcome: `ok`, `refused`.
pub static HANDSHAKES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters(
        "ferrite_server_tls_handshakes_total",
        "Handshakes of TLS on all listeners of the process.",
        &["outcome"],
    )
});
