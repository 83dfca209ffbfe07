//! The extension under the package `ferrite-client`: four functions that carry calls and their ends as bytes (`binding::packed`).
//!
//! JavaScript is woken once for all ends that wait, by one function that lives as long as the process; promises, Buffers and types are the package's
//! JavaScript part.

use std::sync::OnceLock;

use binding::packed::Hub;
use napi::bindgen_prelude::{BigInt, Buffer, Function};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;

type Wake = ThreadsafeFunction<(), (), (), napi::Status, false, true, 0>;

static HUB: OnceLock<Hub> = OnceLock::new();

fn hub() -> napi::Result<&'static Hub> {
    HUB.get()
        .ok_or_else(|| napi::Error::from_reason("open() was not called: load the package, not the extension"))
}

/// Must be called first, once a process; `wake` is called when there is something to take after nothing was.
#[napi]
pub fn open(wake: Function<'_, (), ()>) -> napi::Result<()> {
    let wake: Wake = wake.build_threadsafe_function().weak::<true>().build()?;
    let hub = Hub::new(move || {
        wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
    });
    HUB.set(hub)
        .map_err(|_| napi::Error::from_reason("the client is in use in another thread of this process already"))
}

/// Starts an operation; gives its frame if it ends at once.
#[napi]
pub fn submit(handle: f64, operation: u8, id: f64, arguments: &[u8], cancellable: bool) -> napi::Result<Option<Buffer>> {
    let frame = hub()?.submit(handle as u64, operation, id as u64, arguments, cancellable);
    Ok(frame.map(Buffer::from))
}

/// The frames of all calls that have ended.
#[napi]
pub fn take() -> napi::Result<Buffer> {
    Ok(hub()?.take().into())
}

/// Cancels a call.
#[napi]
pub fn cancel(id: f64) -> napi::Result<()> {
    hub()?.cancel(id as u64);
    Ok(())
}

/// Lets a handle go.
#[napi]
pub fn free(handle: f64) -> napi::Result<()> {
    hub()?.free(handle as u64);
    Ok(())
}

/// Handles that are not freed.
#[napi]
pub fn handles() -> napi::Result<BigInt> {
    Ok(BigInt::from(hub()?.handles() as u64))
}
