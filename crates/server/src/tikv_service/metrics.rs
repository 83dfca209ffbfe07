//! What the service tells of itself.

use std::sync::LazyLock;

use base::MonoTime;
use base::metrics::{counter, counters, gauge, latencies};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

/// The RPCs that are served; a closed set, so that their histograms are found without a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rpc {
    RawGet,
    RawBatchGet,
    RawPut,
    RawBatchPut,
    RawDelete,
    RawBatchDelete,
    RawScan,
    RawBatchScan,
    RawDeleteRange,
    RawGetKeyTtl,
    RawCompareAndSwap,
    RawChecksum,
    KvGet,
    KvBatchGet,
    KvScan,
    KvPrewrite,
    KvCommit,
    KvCleanup,
    KvBatchRollback,
    KvPessimisticLock,
    KvPessimisticRollback,
    KvTxnHeartBeat,
    KvCheckTxnStatus,
    KvCheckSecondaryLocks,
    KvScanLock,
    KvResolveLock,
    KvDeleteRange,
    UnsafeDestroyRange,
    PhysicalScanLock,
    GetLockWaitInfo,
    MvccGetByKey,
    MvccGetByStartTs,
    SplitRegion,
    ReadIndex,
    SafeTs,
}

const NAMES: [&str; 35] = [
    "raw_get",
    "raw_batch_get",
    "raw_put",
    "raw_batch_put",
    "raw_delete",
    "raw_batch_delete",
    "raw_scan",
    "raw_batch_scan",
    "raw_delete_range",
    "raw_get_key_ttl",
    "raw_compare_and_swap",
    "raw_checksum",
    "kv_get",
    "kv_batch_get",
    "kv_scan",
    "kv_prewrite",
    "kv_commit",
    "kv_cleanup",
    "kv_batch_rollback",
    "kv_pessimistic_lock",
    "kv_pessimistic_rollback",
    "kv_txn_heart_beat",
    "kv_check_txn_status",
    "kv_check_secondary_locks",
    "kv_scan_lock",
    "kv_resolve_lock",
    "kv_delete_range",
    "unsafe_destroy_range",
    "physical_scan_lock",
    "get_lock_wait_info",
    "mvcc_get_by_key",
    "mvcc_get_by_start_ts",
    "split_region",
    "read_index",
    "safe_ts",
];
const _: () = assert!(NAMES.len() == Rpc::SafeTs as usize + 1);

static SECONDS: LazyLock<[Histogram; NAMES.len()]> = LazyLock::new(|| {
    let family = latencies(
        "ferrite_server_request_seconds",
        "Time from a request's arrival to its answer, by RPC.",
        &["rpc"],
    );
    NAMES.map(|name| family.with_label_values(&[name]))
});

pub static IN_FLIGHT: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("ferrite_server_requests_in_flight", "Requests that are not answered yet."));

/// Labels: `queue` (no place came free), `cluster` (meant for another cluster).
pub static REFUSED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters(
        "ferrite_server_requests_refused_total",
        "Requests refused before they were tried.",
        &["reason"],
    )
});

pub static BATCH_MESSAGES: LazyLock<IntCounter> = LazyLock::new(|| {
    counter(
        "ferrite_server_batch_messages_total",
        "Messages received on BatchCommands streams.",
    )
});

pub static BATCH_COMMANDS: LazyLock<IntCounter> = LazyLock::new(|| {
    counter(
        "ferrite_server_batch_commands_total",
        "Commands received on BatchCommands streams.",
    )
});

pub static BATCH_WAITING: LazyLock<IntCounter> = LazyLock::new(|| {
    counter(
        "ferrite_server_batch_commands_waiting_total",
        "Commands of BatchCommands streams that had no answer at once.",
    )
});

pub static EXPIRED_REMOVED: LazyLock<IntCounter> = LazyLock::new(|| {
    counter(
        "ferrite_server_expired_removed_total",
        "Raw values removed after their time to live.",
    )
});

/// Counts requests as in flight until it is dropped, then records how long they took.
pub struct Timed {
    rpc: Rpc,
    began: MonoTime,
    requests: usize,
}

impl Timed {
    pub fn new(rpc: Rpc, began: MonoTime) -> Timed {
        Timed::several(rpc, began, 1)
    }

    /// Requests that run together.
    pub fn several(rpc: Rpc, began: MonoTime, requests: usize) -> Timed {
        IN_FLIGHT.add(requests as i64);
        Timed { rpc, began, requests }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        IN_FLIGHT.sub(self.requests as i64);
        let took = MonoTime::now().since(self.began).as_secs_f64();
        for _ in 0..self.requests {
            SECONDS[self.rpc as usize].observe(took);
        }
    }
}
