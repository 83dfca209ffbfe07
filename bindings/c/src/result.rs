//! Results of calls, and how they are read.

use std::ffi::{CString, c_char};
use std::ptr::{null, null_mut};

use binding::{Class, Outcome, Reply};

use crate::raw::RawHandle;
use crate::txn::{TxnHandle, TxnsHandle};
use crate::value::{Pair, Slice};

/// How a call ended. What is read out of it is valid until it is freed.
pub struct ResultHandle {
    outcome: Outcome,
    /// Points into `outcome`.
    pairs: Vec<Pair>,
    message: Option<CString>,
    hint: Option<CString>,
}

/// Kind of a failure; `FERRITE_CLASS_OK` for none.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum ClassCode {
    Ok = 0,
    /// The cluster could not serve the call now.
    Retryable = 1,
    /// The time of the call is over, and it has not been done.
    Deadline = 2,
    /// Another transaction wrote a key of this one.
    Conflict = 3,
    /// Another transaction holds a lock that was not waited for.
    Locked = 4,
    /// Waiting for a lock would have closed a circle.
    Deadlock = 5,
    /// The transaction was rolled back by others.
    Aborted = 6,
    /// A key that was to be inserted is there.
    Exists = 7,
    /// It is unknown whether a write was done.
    Undetermined = 8,
    /// An entry that was named does not exist, such as a keyspace.
    NotFound = 9,
    /// Addresses, options, arguments or the form of keys are wrong.
    Configuration = 10,
    /// The cluster refuses the request as it stands.
    Refused = 11,
    /// The caller cancelled the call.
    Cancelled = 12,
    /// The transaction was used after its end.
    Closed = 13,
    /// A fault of the library.
    Internal = 14,
}

/// How long a key will live.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum TtlKind {
    /// The key is not there.
    Missing = 0,
    Forever = 1,
    /// For a number of seconds.
    Seconds = 2,
}

/// Fingerprint of the pairs in a range.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ChecksumParts {
    /// Exclusive or of each pair's CRC-64.
    pub crc64_xor: u64,
    pub pairs: u64,
    /// Of keys and values together, as the store has them.
    pub bytes: u64,
}

// SAFETY: the pointers are into the handle's own bytes, which nobody changes and which move with it.
unsafe impl Send for ResultHandle {}

impl ClassCode {
    fn of(class: Class) -> ClassCode {
        match class {
            Class::Retryable => ClassCode::Retryable,
            Class::Deadline => ClassCode::Deadline,
            Class::Conflict => ClassCode::Conflict,
            Class::Locked => ClassCode::Locked,
            Class::Deadlock => ClassCode::Deadlock,
            Class::Aborted => ClassCode::Aborted,
            Class::Exists => ClassCode::Exists,
            Class::Undetermined => ClassCode::Undetermined,
            Class::NotFound => ClassCode::NotFound,
            Class::Configuration => ClassCode::Configuration,
            Class::Refused => ClassCode::Refused,
            Class::Cancelled => ClassCode::Cancelled,
            Class::Closed => ClassCode::Closed,
            Class::Internal => ClassCode::Internal,
        }
    }
}

impl ResultHandle {
    pub(crate) fn boxed(outcome: Outcome) -> *mut ResultHandle {
        let pairs = match &outcome {
            Ok(Reply::Pairs(pairs) | Reply::Page(pairs)) => pairs
                .iter()
                .map(|(key, value)| Pair {
                    key: Slice::of(key),
                    value: Slice::of(value),
                })
                .collect(),
            _ => Vec::new(),
        };
        let (message, hint) = match &outcome {
            Ok(_) => (None, None),
            Err(failure) => (Some(text(&failure.message)), Some(text(failure.hint))),
        };
        Box::into_raw(Box::new(ResultHandle {
            outcome,
            pairs,
            message,
            hint,
        }))
    }

    fn take(&mut self, wanted: impl Fn(&Reply) -> bool) -> Option<Reply> {
        match &self.outcome {
            Ok(reply) if wanted(reply) => std::mem::replace(&mut self.outcome, Ok(Reply::Done)).ok(),
            _ => None,
        }
    }
}

/// A zero byte inside would cut the text off.
fn text(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).expect("has no zero byte")
}

/// The result behind a pointer, which must not be NULL: asking nothing for an answer is a fault that must not go on.
///
/// # Safety
/// `result` must be NULL or not freed yet.
unsafe fn reply<'a>(result: *const ResultHandle) -> Option<&'a Reply> {
    // SAFETY: the caller's promise.
    unsafe { result.as_ref() }.and_then(|result| result.outcome.as_ref().ok())
}

/// # Safety
/// `to` must be NULL or writable.
unsafe fn give<T>(to: *mut T, value: Option<T>) -> bool {
    let Some(value) = value else { return false };
    if !to.is_null() {
        // SAFETY: not null, so it may be written, says the caller.
        unsafe { to.write(value) };
    }
    true
}

/// `FERRITE_CLASS_OK`, or the kind of the failure.
///
/// # Safety
/// `result` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_result_class(result: *const ResultHandle) -> ClassCode {
    // SAFETY: the caller's promise.
    match unsafe { result.as_ref() }.map(|result| &result.outcome) {
        Some(Ok(_)) => ClassCode::Ok,
        Some(Err(failure)) => ClassCode::of(failure.class),
        None => ClassCode::Internal,
    }
}

/// What happened, in one line of UTF-8; NULL if the call did not fail.
///
/// # Safety
/// `result` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_result_message(result: *const ResultHandle) -> *const c_char {
    // SAFETY: the caller's promise.
    let message = unsafe { result.as_ref() }.and_then(|result| result.message.as_ref());
    message.map_or(null(), |message| message.as_ptr())
}

/// What to do about the failure; NULL if the call did not fail.
///
/// # Safety
/// `result` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_result_hint(result: *const ResultHandle) -> *const c_char {
    // SAFETY: the caller's promise.
    let hint = unsafe { result.as_ref() }.and_then(|result| result.hint.as_ref());
    hint.map_or(null(), |hint| hint.as_ptr())
}

/// Whether a failed call, for a transaction all of it, may be tried again.
///
/// # Safety
/// `result` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_result_retryable(result: *const ResultHandle) -> bool {
    // SAFETY: the caller's promise.
    let failure = unsafe { result.as_ref() }.and_then(|result| result.outcome.as_ref().err());
    failure.is_some_and(|failure| failure.retryable)
}

/// The key that a failure is about, if it is about one.
///
/// # Safety
/// `result` must be NULL or not freed yet; `key` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_result_key(result: *const ResultHandle, key: *mut Slice) -> bool {
    // SAFETY: the caller's promise.
    let failure = unsafe { result.as_ref() }.and_then(|result| result.outcome.as_ref().err());
    let found = failure.and_then(|failure| failure.key.as_deref()).map(Slice::of);
    // SAFETY: the caller's promise.
    unsafe { give(key, found) }
}

/// The value of a get, what was there before a compare-and-swap, or a text; false if there is none.
///
/// # Safety
/// `result` must be NULL or not freed yet; `value` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_result_value(result: *const ResultHandle, value: *mut Slice) -> bool {
    // SAFETY: the caller's promise.
    let found = match unsafe { reply(result) } {
        Some(Reply::Value(value)) => value.as_deref(),
        Some(Reply::Swap(swap)) => swap.previous.as_deref(),
        _ => None,
    };
    // SAFETY: the caller's promise.
    unsafe { give(value, found.map(Slice::of)) }
}

/// Whether a compare-and-swap was done.
///
/// # Safety
/// `result` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_result_swapped(result: *const ResultHandle) -> bool {
    // SAFETY: the caller's promise.
    matches!(unsafe { reply(result) }, Some(Reply::Swap(swap)) if swap.done)
}

/// The pairs of a batch or of a scan's page, by key; their number goes to `count`. A scan is at its end when a page is empty.
///
/// # Safety
/// `result` must be NULL or not freed yet; `count` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_result_pairs(result: *const ResultHandle, count: *mut usize) -> *const Pair {
    // SAFETY: the caller's promise.
    let pairs = unsafe { result.as_ref() }.map_or(&[][..], |result| &result.pairs);
    // SAFETY: the caller's promise.
    unsafe { give(count, Some(pairs.len())) };
    pairs.as_ptr()
}

/// The answer of `ferrite_raw_ttl`; seconds go to `seconds`.
///
/// # Safety
/// `result` must be NULL or not freed yet; `seconds` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_result_ttl(result: *const ResultHandle, seconds: *mut u64) -> TtlKind {
    // SAFETY: the caller's promise.
    match unsafe { reply(result) } {
        Some(Reply::Ttl(Some(ttl))) => match binding::ttl_seconds(*ttl) {
            None => TtlKind::Forever,
            left => {
                // SAFETY: the caller's promise.
                unsafe { give(seconds, left) };
                TtlKind::Seconds
            }
        },
        _ => TtlKind::Missing,
    }
}

/// A timestamp or a count; false if there is none, as for the commit of a transaction that wrote nothing.
///
/// # Safety
/// `result` must be NULL or not freed yet; `number` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_result_number(result: *const ResultHandle, number: *mut u64) -> bool {
    // SAFETY: the caller's promise.
    let found = match unsafe { reply(result) } {
        Some(Reply::Ts(ts)) => *ts,
        Some(Reply::Count(count)) => Some(*count),
        _ => None,
    };
    // SAFETY: the caller's promise.
    unsafe { give(number, found) }
}

/// The answer of `ferrite_raw_checksum`.
///
/// # Safety
/// `result` must be NULL or not freed yet; `checksum` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_result_checksum(result: *const ResultHandle, checksum: *mut ChecksumParts) -> bool {
    // SAFETY: the caller's promise.
    let found = match unsafe { reply(result) } {
        Some(Reply::Checksum(sum)) => Some(ChecksumParts {
            crc64_xor: sum.crc64_xor,
            pairs: sum.pairs,
            bytes: sum.bytes,
        }),
        _ => None,
    };
    // SAFETY: the caller's promise.
    unsafe { give(checksum, found) }
}

/// The client of `ferrite_raw_connect`, once; NULL after that and for other results. Is freed by `ferrite_raw_free`.
///
/// # Safety
/// `result` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_result_take_raw(result: *mut ResultHandle) -> *mut RawHandle {
    // SAFETY: the caller's promise.
    match unsafe { result.as_mut() }.and_then(|result| result.take(|reply| matches!(reply, Reply::Raw(_)))) {
        Some(Reply::Raw(raw)) => Box::into_raw(Box::new(RawHandle(raw))),
        _ => null_mut(),
    }
}

/// The client of `ferrite_txns_connect`, once; NULL after that and for other results. Is freed by `ferrite_txns_free`.
///
/// # Safety
/// `result` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_result_take_txns(result: *mut ResultHandle) -> *mut TxnsHandle {
    // SAFETY: the caller's promise.
    match unsafe { result.as_mut() }.and_then(|result| result.take(|reply| matches!(reply, Reply::Txns(_)))) {
        Some(Reply::Txns(txns)) => Box::into_raw(Box::new(TxnsHandle(txns))),
        _ => null_mut(),
    }
}

/// The transaction of `ferrite_txns_begin`, once; NULL after that and for other results. Is freed by `ferrite_txn_free`.
///
/// # Safety
/// `result` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_result_take_txn(result: *mut ResultHandle) -> *mut TxnHandle {
    // SAFETY: the caller's promise.
    match unsafe { result.as_mut() }.and_then(|result| result.take(|reply| matches!(reply, Reply::Txn(_)))) {
        Some(Reply::Txn(txn)) => Box::into_raw(Box::new(TxnHandle(txn))),
        _ => null_mut(),
    }
}

/// Frees a result and all that was read out of it, but not what was taken.
///
/// # Safety
/// `result` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_result_free(result: *mut ResultHandle) {
    if !result.is_null() {
        // SAFETY: not null, made by `boxed`, and not freed yet, says the caller.
        drop(unsafe { Box::from_raw(result) });
    }
}

/// The word for a class, such as `conflict`; `ok` for `FERRITE_CLASS_OK`, `unknown` for a number without meaning.
#[unsafe(no_mangle)]
pub extern "C" fn ferrite_class_name(class: u32) -> *const c_char {
    let names = [
        c"ok",
        c"retryable",
        c"deadline",
        c"conflict",
        c"locked",
        c"deadlock",
        c"aborted",
        c"exists",
        c"undetermined",
        c"not_found",
        c"configuration",
        c"refused",
        c"cancelled",
        c"closed",
        c"internal",
    ];
    names.get(class as usize).map_or(c"unknown", |name| *name).as_ptr()
}
