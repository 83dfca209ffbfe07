//! The C ABI of the client: `include/ferrite_client.h`, which a test makes out of these files.
//!
//! A call takes a handle, its arguments, and what to call at its end: `done(user, result)`, once, on a thread of the library, or nothing and then
//! `ferrite_call_wait`. Arguments are copied before the function returns. Who allocates frees: results, handles and calls go back to the
//! library. No panic and no Rust type crosses.
//! Each function is written out, although many are alike: cbindgen reads the sources as they stand and expands no macros.
//! Invariants: functions that give a call block nobody but `ferrite_call_wait`; a handle may be freed while its calls are under way; names and numbers of the
//! header never change their meaning, [`ferrite_abi_version`] counts additions.

// A foreign interface is pointers; each block says whose promise it rests on.
#![allow(unsafe_code)]

mod call;
mod raw;
mod result;
mod scan;
mod txn;
mod value;

/// Counts additions to the ABI.
#[unsafe(no_mangle)]
pub extern "C" fn ferrite_abi_version() -> u32 {
    2
}
