//! Keys without transactions.

use std::ffi::{c_char, c_void};
use std::ptr::null_mut;
use std::time::Duration;

use binding::{Raw, Reply, range};

use crate::call::{CallHandle, Done, launch};
use crate::result::ResultHandle;
use crate::scan::ScanHandle;
use crate::value::{Pair, ScanRange, Slice, copy_keys, copy_optional, copy_pairs, copy_text};

/// A client for keys without transactions; may be used from any thread.
pub struct RawHandle(pub(crate) Raw);

/// # Safety
/// `raw` must be NULL or not freed yet.
unsafe fn handle<'a>(raw: *const RawHandle) -> &'a Raw {
    // SAFETY: the caller's promise.
    &unsafe { raw.as_ref() }.expect("the handle is NULL").0
}

/// Frees the handle; its calls go on.
///
/// # Safety
/// `raw` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_raw_free(raw: *mut RawHandle) {
    if !raw.is_null() {
        // SAFETY: not null, made by the library, and not freed yet, says the caller.
        drop(unsafe { Box::from_raw(raw) });
    }
}

/// Connects to the cluster of the placement driver's `endpoints`, parted by commas. `options` are `name=value`, parted by commas, or NULL:
/// `deadline` (of each call, as `500ms`; 5s if not given), `keyspace`, `keyspace-id`, `batch-commands`, `connections`,
/// `retry-undetermined`, `answer-bytes-max`; for TLS `ca`, `cert` and `key`, each the path of a PEM file or PEM text. The result gives the
/// client to `ferrite_result_take_raw`.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_raw_connect(
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
            Raw::connect(endpoints, options).await
        })
    }
}

/// The same client, whose calls may take so long. Is freed like the other.
///
/// # Safety
/// `raw` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_raw_with_deadline(raw: *const RawHandle, milliseconds: u64) -> *mut RawHandle {
    // SAFETY: the caller's promise.
    match unsafe { raw.as_ref() } {
        Some(raw) => Box::into_raw(Box::new(RawHandle(raw.0.with_deadline(Duration::from_millis(milliseconds))))),
        None => null_mut(),
    }
}

/// What the client has done since it was connected, as the text that Prometheus reads: `ferrite_result_value`. NULL only if `raw` is.
///
/// # Safety
/// `raw` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_raw_metrics(raw: *const RawHandle) -> *mut ResultHandle {
    // SAFETY: the caller's promise.
    match unsafe { raw.as_ref() } {
        Some(raw) => ResultHandle::boxed(Ok(Reply::Value(Some(raw.0.metrics().into())))),
        None => null_mut(),
    }
}

/// Reads a key: `ferrite_result_value`.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_raw_get(
    raw: *const RawHandle,
    key: Slice,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || handle(raw).get(key.copy())) }
}

/// Sets a key, for `ttl_ms` rounded up to seconds, or for ever if it is 0.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_raw_put(
    raw: *const RawHandle,
    key: Slice,
    value: Slice,
    ttl_ms: u64,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || handle(raw).put(key.copy(), value.copy(), ttl(ttl_ms))) }
}

/// Removes a key, if it is there.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_raw_delete(
    raw: *const RawHandle,
    key: Slice,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || handle(raw).delete(key.copy())) }
}

/// Reads keys; those that are there come by `ferrite_result_pairs`.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_raw_batch_get(
    raw: *const RawHandle,
    keys: *const Slice,
    count: usize,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || handle(raw).batch_get(copy_keys(keys, count))) }
}

/// Sets many keys, which is not one step; `ttl_ms` as with `ferrite_raw_put`.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_raw_batch_put(
    raw: *const RawHandle,
    pairs: *const Pair,
    count: usize,
    ttl_ms: u64,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe {
        launch(done, user, call, || {
            handle(raw).batch_put(copy_pairs(pairs, count), ttl(ttl_ms))
        })
    }
}

/// Removes many keys.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_raw_batch_delete(
    raw: *const RawHandle,
    keys: *const Slice,
    count: usize,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || handle(raw).batch_delete(copy_keys(keys, count))) }
}

/// Removes all keys from `start` to before `end` (empty: no bound).
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_raw_delete_range(
    raw: *const RawHandle,
    start: Slice,
    end: Slice,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || handle(raw).delete_range(range(start.copy(), end.copy()))) }
}

/// Sets a key to `new` (NULL removes it) if its value is `expected` (NULL: if it is not there): `ferrite_result_swapped`, and what was
/// there before by `ferrite_result_value`. Never repeated if it is unknown whether it was done.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_raw_compare_and_swap(
    raw: *const RawHandle,
    key: Slice,
    expected: *const Slice,
    new_value: *const Slice,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe {
        launch(done, user, call, || {
            handle(raw).compare_and_swap(key.copy(), copy_optional(expected), copy_optional(new_value))
        })
    }
}

/// How long a key will live: `ferrite_result_ttl`.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_raw_ttl(
    raw: *const RawHandle,
    key: Slice,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || handle(raw).ttl(key.copy())) }
}

/// Fingerprint of a range: `ferrite_result_checksum`.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_raw_checksum(
    raw: *const RawHandle,
    start: Slice,
    end: Slice,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe { launch(done, user, call, || handle(raw).checksum(range(start.copy(), end.copy()))) }
}

/// A scan over the pairs of a range, which begins with its first page; not a snapshot. NULL only if an argument is.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_raw_scan(raw: *const RawHandle, range: *const ScanRange) -> *mut ScanHandle {
    // SAFETY: the caller keeps the rules at the top of the header.
    ScanHandle::boxed(|| unsafe { handle(raw).scan(ScanRange::copy(range)) })
}

fn ttl(milliseconds: u64) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
}
