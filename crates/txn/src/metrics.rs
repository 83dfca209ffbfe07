//! Metrics of transactions.

use std::sync::LazyLock;

use base::metrics::{counter, counters, gauge, latencies, latency};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};

use crate::command::Output;
use crate::error::{Error, Result};

static COMMANDS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let labels = &["command", "outcome"];
    counters("ferrite_txn_commands_total", "commands answered", labels)
});
static COMMAND: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help = "from a command's arrival to its answer, waits for locks included";
    latencies("ferrite_txn_command_seconds", help, &["command"])
});
static PREWRITES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "prewrites done, by what they made of their keys: committed in one phase, locked for an async commit, locked";
    counters("ferrite_txn_prewrites_total", help, &["way"])
});
pub(crate) static UNDER_WAY: LazyLock<IntGauge> = LazyLock::new(|| gauge("ferrite_txn_under_way", "commands under way"));
pub(crate) static QUEUED: LazyLock<IntGauge> = LazyLock::new(|| gauge("ferrite_txn_queued", "commands that wait for room"));
pub(crate) static BUSY: LazyLock<IntCounter> =
    LazyLock::new(|| counter("ferrite_txn_busy_total", "commands refused because too many were under way"));
pub(crate) static LATCH_WAIT: LazyLock<Histogram> = LazyLock::new(|| {
    let help = "time that a command waited for latches, if it did";
    latency("ferrite_txn_latch_wait_seconds", help)
});
pub(crate) static WRITE: LazyLock<Histogram> =
    LazyLock::new(|| latency("ferrite_txn_write_seconds", "from a command's write to replication's answer"));
pub(crate) static LOCK_WAITERS: LazyLock<IntGauge> = LazyLock::new(|| {
    gauge(
        "ferrite_txn_lock_waiters",
        "commands that wait for another transaction's lock",
    )
});
pub(crate) static LOCK_WAITS: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "commands that had to wait for another transaction's lock";
    counter("ferrite_txn_lock_waits_total", help)
});
pub(crate) static LOCK_WAIT: LazyLock<Histogram> = LazyLock::new(|| {
    let help = "from the beginning of a wait for a lock to the next look at it";
    latency("ferrite_txn_lock_wait_seconds", help)
});
pub(crate) static DEADLOCKS: LazyLock<IntCounter> =
    LazyLock::new(|| counter("ferrite_txn_deadlocks_total", "waits ended because they closed a circle"));

pub(crate) static COLLECTED: LazyLock<IntCounter> =
    LazyLock::new(|| counter("ferrite_txn_gc_records_total", "records that garbage collection deleted"));

pub(crate) fn on_answer(command: &str, seconds: f64, result: &Result<Output>) {
    COMMANDS.with_label_values(&[command, outcome(result)]).inc();
    COMMAND.with_label_values(&[command]).observe(seconds);
    if let Ok(Output::Prewritten(done)) = result
        && done.locked.is_empty()
    {
        let way = match (done.one_phase_commit_ts.is_some(), done.min_commit_ts.is_some()) {
            (true, _) => "one-phase",
            (false, true) => "async",
            (false, false) => "ordinary",
        };
        PREWRITES.with_label_values(&[way]).inc();
    }
}

fn outcome(result: &Result<Output>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(Error::Locked(_)) => "locked",
        Err(Error::WriteConflict { .. }) => "conflict",
        Err(Error::Deadlock { .. }) => "deadlock",
        Err(Error::Region { .. }) => "region",
        Err(Error::Engine(_) | Error::Damaged { .. }) => "failed",
        Err(_) => "refused",
    }
}
