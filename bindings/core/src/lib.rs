//! What all bindings to other languages share, so that each is only idiom: handles, one form for calls, answers and failures.
//!
//! A binding makes a future by a method of a handle ([`Raw`], [`Txns`], [`Txn`], [`Snap`], [`Scan`]), gives it to [`start`] with what shall happen at its
//! end, and turns the [`Reply`] or the [`Failure`] into values of its language. Options cross as text ([`options`]), so that a new one
//! changes no signature. What a call does, its retries and its deadline are `client`'s.
//! Invariants: what a call was started with is called exactly once, also if it is cancelled or panics; no panic leaves [`start`];
//! a handle may be used from any thread and freed while its calls are under way.

mod call;
mod failure;
pub mod options;
pub mod packed;
mod raw;
mod reply;
mod scan;
mod txn;

pub use bytes::Bytes;
pub use call::{Call, at_once, start, wait, wait_for, wake_for_ends};
pub use failure::{Class, Failure};
pub use raw::Raw;
pub use reply::{Outcome, Reply, ttl_seconds};
pub use scan::{Ask, Scan};
pub use txn::{Snap, Txn, Txns};

/// The half-open range from `start` to `end` (empty: no bound).
pub fn range(start: Bytes, end: Bytes) -> client::KeyRange {
    client::KeyRange { start, end }
}
