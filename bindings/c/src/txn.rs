//! Transactions and snapshots.

use std::ffi::{c_char, c_void};
use std::ptr::null_mut;
use std::time::Duration;

use binding::{Reply, Snap, Txn, Txns, range};

use crate::call::{CallHandle, Done, launch};
use crate::result::ResultHandle;
use crate::scan::ScanHandle;
use crate::value::{Pair, ScanRange, Slice, copy_keys, copy_pairs, copy_text};

/// A client for transactions; may be used from any thread.
pub struct TxnsHandle(pub(crate) Txns);

/// # Safety
/// `txns` must be NULL or not freed yet.
unsafe fn txns_of<'a>(txns: *const TxnsHandle) -> &'a Txns {
    // SAFETY: the caller's promise.
    &unsafe { txns.as_ref() }.expect("the handle is NULL").0
}

/// Frees the handle; its calls go on.
///
/// # Safety
/// `txns` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txns_free(txns: *mut TxnsHandle) {
    if !txns.is_null() {
        // SAFETY: not null, made by the library, and not freed yet, says the caller.
        drop(unsafe { Box::from_raw(txns) });
    }
}

/// Reads as of one time; may be used from any thread.
pub struct SnapHandle(pub(crate) Snap);

/// # Safety
/// `snapshot` must be NULL or not freed yet.
unsafe fn snapshot_of<'a>(snapshot: *const SnapHandle) -> &'a Snap {
    // SAFETY: the caller's promise.
    &unsafe { snapshot.as_ref() }.expect("the handle is NULL").0
}

/// Frees the handle; its calls go on.
///
/// # Safety
/// `snapshot` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_snapshot_free(snapshot: *mut SnapHandle) {
    if !snapshot.is_null() {
        // SAFETY: not null, made by the library, and not freed yet, says the caller.
        drop(unsafe { Box::from_raw(snapshot) });
    }
}

/// A transaction; may be used from any thread. Freed before its end it is rolled back.
pub struct TxnHandle(pub(crate) Txn);

/// # Safety
/// `txn` must be NULL or not freed yet.
unsafe fn txn_of<'a>(txn: *const TxnHandle) -> &'a Txn {
    // SAFETY: the caller's promise.
    &unsafe { txn.as_ref() }.expect("the handle is NULL").0
}

/// Frees the handle; its calls go on.
///
/// # Safety
/// `txn` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txn_free(txn: *mut TxnHandle) {
    if !txn.is_null() {
        // SAFETY: not null, made by the library, and not freed yet, says the caller.
        drop(unsafe { Box::from_raw(txn) });
    }
}

/// Connects to the cluster of the placement driver's `endpoints`, parted by commas. `options` are `name=value`, parted by commas, or NULL:
/// `deadline` (of each call, as `500ms`; 5s if not given), `keyspace`, `keyspace-id`, `batch-commands`, `connections`,
/// `retry-undetermined`, `answer-bytes-max`; for TLS `ca`, `cert` and `key`, each the path of a PEM file or PEM text. The result gives the
/// client to `ferrite_result_take_txns`.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txns_connect(
    endpoints: *const c_char,
    options: *const c_char,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe {
        let texts = copy_text(endpoints).and_then(|endpoints| Ok((endpoints, copy_text(options)?)));
        launch(done, user, call, || async move {
            let (endpoints, options) = texts?;
            Txns::connect(endpoints, options).await
        })
    }
}

/// The same client, whose calls, and those of its transactions, may take so long. Is freed like the other.
///
/// # Safety
/// `txns` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txns_with_deadline(txns: *const TxnsHandle, milliseconds: u64) -> *mut TxnsHandle {
    // SAFETY: the caller's promise.
    match unsafe { txns.as_ref() } {
        Some(txns) => Box::into_raw(Box::new(TxnsHandle(
            txns.0.with_deadline(Duration::from_millis(milliseconds)),
        ))),
        None => null_mut(),
    }
}

/// Begins a transaction, which `ferrite_result_take_txn` gives. `options` are `name=value`, parted by commas, or NULL: `pessimistic`,
/// `lock-wait` (`no`, `deadline`, or a time as `50ms`), `async-commit`, `one-phase`, `causal`, `deadline`.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txns_begin(
    txns: *const TxnsHandle,
    options: *const c_char,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe {
        let options = copy_text(options);
        launch(done, user, call, || {
            let txns = txns_of(txns).clone();
            async move { txns.begin(options?).await }
        })
    }
}

/// A timestamp greater than every one before: `ferrite_result_number`.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txns_timestamp(
    txns: *const TxnsHandle,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || txns_of(txns).timestamp()) }
}

/// Ends what dead clients left, and lets stores drop versions that no snapshot from `safe_point` on sees: `ferrite_result_number` tells
/// the safe point as it is then.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txns_gc(
    txns: *const TxnsHandle,
    safe_point: u64,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || txns_of(txns).gc(safe_point)) }
}

/// Ends transactions that began up to `ts` and left locks from `start` to before `end`: `ferrite_result_number` tells how many locks.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txns_resolve_locks(
    txns: *const TxnsHandle,
    start: Slice,
    end: Slice,
    ts: u64,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe {
        launch(done, user, call, || {
            txns_of(txns).resolve_locks(range(start.copy(), end.copy()), ts)
        })
    }
}

/// What the client has done since it was connected, as the text that Prometheus reads: `ferrite_result_value`. NULL only if `txns` is.
///
/// # Safety
/// `txns` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txns_metrics(txns: *const TxnsHandle) -> *mut ResultHandle {
    // SAFETY: the caller's promise.
    match unsafe { txns.as_ref() } {
        Some(txns) => ResultHandle::boxed(Ok(Reply::Value(Some(txns.0.metrics().into())))),
        None => null_mut(),
    }
}

/// Reads as of `ts`, or the latest of each key for `UINT64_MAX`.
///
/// # Safety
/// `txns` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txns_snapshot(txns: *const TxnsHandle, ts: u64) -> *mut SnapHandle {
    // SAFETY: the caller's promise.
    match unsafe { txns.as_ref() } {
        Some(txns) => Box::into_raw(Box::new(SnapHandle(txns.0.snapshot(ts)))),
        None => null_mut(),
    }
}

/// Reads a key: `ferrite_result_value`.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_snapshot_get(
    snapshot: *const SnapHandle,
    key: Slice,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || snapshot_of(snapshot).get(key.copy())) }
}

/// Reads keys; those that are there come by `ferrite_result_pairs`.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_snapshot_batch_get(
    snapshot: *const SnapHandle,
    keys: *const Slice,
    count: usize,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || snapshot_of(snapshot).batch_get(copy_keys(keys, count))) }
}

/// A scan over the pairs of a range. NULL only if an argument is.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_snapshot_scan(snapshot: *const SnapHandle, range: *const ScanRange) -> *mut ScanHandle {
    // SAFETY: the caller keeps the rules at the top of the header.
    ScanHandle::boxed(|| unsafe { snapshot_of(snapshot).scan(ScanRange::copy(range)) })
}

/// The timestamp at which the transaction reads; 0 for NULL.
///
/// # Safety
/// `txn` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txn_start_ts(txn: *const TxnHandle) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { txn.as_ref() }.map_or(0, |txn| txn.0.start_ts())
}

/// Reads a key: `ferrite_result_value`.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txn_get(
    txn: *const TxnHandle,
    key: Slice,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || txn_of(txn).get(key.copy())) }
}

/// Reads keys; those that are there come by `ferrite_result_pairs`.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txn_batch_get(
    txn: *const TxnHandle,
    keys: *const Slice,
    count: usize,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || txn_of(txn).batch_get(copy_keys(keys, count))) }
}

/// Locks a key and reads it, its latest value in a pessimistic transaction.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txn_get_for_update(
    txn: *const TxnHandle,
    key: Slice,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || txn_of(txn).get_for_update(key.copy())) }
}

/// Locks keys and reads them.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txn_batch_get_for_update(
    txn: *const TxnHandle,
    keys: *const Slice,
    count: usize,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || txn_of(txn).batch_get_for_update(copy_keys(keys, count))) }
}

/// Sets a key. A pessimistic transaction locks it now, as with all writes.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txn_put(
    txn: *const TxnHandle,
    key: Slice,
    value: Slice,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || txn_of(txn).put(key.copy(), value.copy())) }
}

/// Sets many keys.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txn_batch_put(
    txn: *const TxnHandle,
    pairs: *const Pair,
    count: usize,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || txn_of(txn).batch_put(copy_pairs(pairs, count))) }
}

/// Sets a key that must not be there: else `FERRITE_CLASS_EXISTS`, now or at commit.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txn_insert(
    txn: *const TxnHandle,
    key: Slice,
    value: Slice,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || txn_of(txn).insert(key.copy(), value.copy())) }
}

/// Removes a key, if it is there.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txn_delete(
    txn: *const TxnHandle,
    key: Slice,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || txn_of(txn).delete(key.copy())) }
}

/// Keeps others from writing keys while the transaction is under way.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txn_lock_keys(
    txn: *const TxnHandle,
    keys: *const Slice,
    count: usize,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || txn_of(txn).lock_keys(copy_keys(keys, count))) }
}

/// A scan over the pairs of a range, with the writes of the transaction as they are at its first page. NULL only if an argument is.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txn_scan(txn: *const TxnHandle, range: *const ScanRange) -> *mut ScanHandle {
    // SAFETY: the caller keeps the rules at the top of the header.
    ScanHandle::boxed(|| unsafe { txn_of(txn).scan(ScanRange::copy(range)) })
}

/// Remembers the writes so far; `ferrite_result_number` tells the number for `ferrite_txn_rollback_to`.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txn_savepoint(txn: *const TxnHandle, done: Done, user: *mut c_void, call: *mut *mut CallHandle) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || txn_of(txn).savepoint()) }
}

/// Undoes the writes since a savepoint; locks stay.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txn_rollback_to(
    txn: *const TxnHandle,
    savepoint: u64,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || txn_of(txn).rollback_to(savepoint)) }
}

/// Commits: `ferrite_result_number` tells the timestamp, if there was something to write. Goes on if it is cancelled. After `FERRITE_CLASS_UNDETERMINED`
/// it may be committed or not; after any other failure it is not.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txn_commit(txn: *const TxnHandle, done: Done, user: *mut c_void, call: *mut *mut CallHandle) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || txn_of(txn).commit()) }
}

/// Gives up what was written.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_txn_rollback(txn: *const TxnHandle, done: Done, user: *mut c_void, call: *mut *mut CallHandle) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || txn_of(txn).rollback()) }
}
