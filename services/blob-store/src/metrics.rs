//! Counters of the store, over all stores of the process.

use std::sync::LazyLock;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

/// Blobs dropped, by why: `room`, `age`, `damage`, `missing`, `asked`.
pub(crate) static DROPPED: LazyLock<IntCounterVec> =
    LazyLock::new(|| base::metrics::counters("ferrite_blob_store_dropped_total", "Blobs dropped, by reason.", &["reason"]));

/// Bytes on disk of the blobs that were dropped for room.
pub(crate) static EVICTED_BYTES: LazyLock<IntCounter> = LazyLock::new(|| {
    base::metrics::counter(
        "ferrite_blob_store_evicted_bytes_total",
        "Bytes on disk of blobs evicted for room.",
    )
});

/// Bytes copied out of segments that were emptied.
pub(crate) static COPIED_BYTES: LazyLock<IntCounter> = LazyLock::new(|| {
    base::metrics::counter(
        "ferrite_blob_store_copied_bytes_total",
        "Bytes copied to empty segments with few live bytes.",
    )
});

/// Uploads refused because there was no room.
pub(crate) static REFUSED: LazyLock<IntCounter> =
    LazyLock::new(|| base::metrics::counter("ferrite_blob_store_refused_total", "Uploads refused for want of room."));

/// Syncs of files.
pub(crate) static SYNCS: LazyLock<IntCounter> =
    LazyLock::new(|| base::metrics::counter("ferrite_blob_store_syncs_total", "Syncs of blobs, segments and journal."));

/// Content uploaded and what it takes on disk.
pub(crate) static CONTENT_BYTES: LazyLock<IntCounter> = LazyLock::new(|| {
    base::metrics::counter(
        "ferrite_blob_store_content_bytes_total",
        "Content published, before compression.",
    )
});

/// See [`CONTENT_BYTES`].
pub(crate) static STORED_BYTES: LazyLock<IntCounter> = LazyLock::new(|| {
    base::metrics::counter(
        "ferrite_blob_store_stored_bytes_total",
        "Content published, as it lies on disk.",
    )
});

/// See [`crate::hot`].
pub(crate) static HOT_BYTES: LazyLock<IntGauge> =
    LazyLock::new(|| base::metrics::gauge("ferrite_blob_store_hot_bytes", "Content of often read blobs in memory."));

/// Frames that were decompressed already.
pub(crate) static HOT_HITS: LazyLock<IntCounter> = LazyLock::new(|| {
    base::metrics::counter(
        "ferrite_blob_store_hot_hits_total",
        "Frames read from memory that would have been decompressed.",
    )
});

/// Time of one round of the deleter.
pub(crate) static COLLECT: LazyLock<Histogram> =
    LazyLock::new(|| base::metrics::latency("ferrite_blob_store_collect_seconds", "Rounds of the deleter that deleted."));
