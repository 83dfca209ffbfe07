//! Scans, page by page.

use std::ffi::c_void;
use std::panic::AssertUnwindSafe;
use std::ptr::null_mut;

use binding::Scan;

use crate::call::{CallHandle, Done, launch};

/// A scan under way; may be used from any thread.
pub struct ScanHandle(Scan);

impl ScanHandle {
    pub(crate) fn boxed(make: impl FnOnce() -> Scan) -> *mut ScanHandle {
        // Fails only for NULL where something was wanted.
        match std::panic::catch_unwind(AssertUnwindSafe(make)) {
            Ok(scan) => Box::into_raw(Box::new(ScanHandle(scan))),
            Err(_panic) => null_mut(),
        }
    }
}

/// The next pairs, at most `pairs_max` or for 0 about a MiB: `ferrite_result_pairs`, none at the end. A cancelled call loses no pair.
///
/// # Safety
/// As the header says at its top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_scan_next(
    scan: *const ScanHandle,
    pairs_max: usize,
    done: Done,
    user: *mut c_void,
    call: *mut *mut CallHandle,
) {
    // SAFETY: the caller keeps the rules at the top of the header.
    unsafe {
        launch(done, user, call, || {
            scan.as_ref().expect("the handle is NULL").0.next(pairs_max)
        })
    }
}

/// Frees the scan; a page that is being read goes on.
///
/// # Safety
/// `scan` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_scan_free(scan: *mut ScanHandle) {
    if !scan.is_null() {
        // SAFETY: not null, made by the library, and not freed yet, says the caller.
        drop(unsafe { Box::from_raw(scan) });
    }
}
