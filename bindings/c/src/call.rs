//! Calls: how they are started, cancelled and waited for.

use std::ffi::c_void;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex};

use binding::{Call, Outcome};

use crate::result::ResultHandle;

/// Called at the end of a call, once, on a thread of the library; must not block. `result` is the callee's, who gives it to
/// `ferrite_result_free`, now or later, on any thread.
pub type Done = Option<unsafe extern "C" fn(user: *mut c_void, result: *mut ResultHandle)>;

/// A call under way, to cancel it or to wait for it.
pub struct CallHandle {
    call: Call,
    /// The result of a call without callback, once it is there.
    kept: Option<Arc<Slot>>,
}

#[derive(Default)]
struct Slot {
    outcome: Mutex<Option<Outcome>>,
    arrived: Condvar,
}

/// The caller's pointer, which only the caller knows how to use.
struct User(*mut c_void);

// SAFETY: the library never looks at what it points to; the header says that it is handed over to another thread.
unsafe impl Send for User {}

impl User {
    /// # Safety
    /// `done` must be sound to call with this pointer.
    unsafe fn tell(self, done: unsafe extern "C" fn(*mut c_void, *mut ResultHandle), outcome: Outcome) {
        // SAFETY: the caller's promise; the result is handed over.
        unsafe { done(self.0, ResultHandle::boxed(outcome)) }
    }
}

/// Starts what `make` makes. Its panics are failures of the call.
///
/// # Safety
/// `done` and `user` must fit each other; `call` must be NULL or point to where a handle may be written.
pub(crate) unsafe fn launch<F>(done: Done, user: *mut c_void, call: *mut *mut CallHandle, make: impl FnOnce() -> F)
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let user = User(user);
    let kept = done.is_none().then(Arc::<Slot>::default);
    let slot = kept.clone();
    let end = move |outcome| {
        let user = user;
        match (done, slot) {
            // SAFETY: the caller's promise.
            (Some(done), _) => unsafe { user.tell(done, outcome) },
            (None, Some(slot)) => {
                *slot.outcome.lock().expect("nobody panics inside") = Some(outcome);
                slot.arrived.notify_all();
            }
            (None, None) => {}
        }
    };
    let started = match std::panic::catch_unwind(AssertUnwindSafe(make)) {
        Ok(work) => binding::start(work, end),
        // Raised again where panics become failures.
        Err(panic) => binding::start(async move { std::panic::resume_unwind(panic) }, end),
    };
    if !call.is_null() {
        // SAFETY: not null, so it may be written, says the caller.
        unsafe { *call = Box::into_raw(Box::new(CallHandle { call: started, kept })) };
    }
}

/// Ends the call with the class `FERRITE_CLASS_CANCELLED` unless it has ended. Its callback is called as ever. What the call was to write may be
/// done or not.
///
/// # Safety
/// `call` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_call_cancel(call: *const CallHandle) {
    // SAFETY: the caller's promise.
    if let Some(call) = unsafe { call.as_ref() } {
        call.call.cancel();
    }
}

/// Waits for a call that was started without callback, on a thread that is not the library's. Gives its result once; NULL after that, and for a
/// call with a callback.
///
/// # Safety
/// `call` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_call_wait(call: *mut CallHandle) -> *mut ResultHandle {
    // SAFETY: the caller's promise.
    let slot = unsafe { call.as_mut() }.and_then(|call| call.kept.take());
    let Some(slot) = slot else { return std::ptr::null_mut() };
    let waiting = slot.outcome.lock().expect("nobody panics inside");
    let arrived = slot.arrived.wait_while(waiting, |outcome| outcome.is_none());
    let outcome = arrived.expect("nobody panics inside").take().expect("waited for");
    ResultHandle::boxed(outcome)
}

/// Frees a handle of a call, which goes on.
///
/// # Safety
/// `call` must be NULL or not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrite_call_free(call: *mut CallHandle) {
    if !call.is_null() {
        // SAFETY: not null, made by `launch`, and not freed yet, says the caller.
        drop(unsafe { Box::from_raw(call) });
    }
}
