//! Transactions: Percolator over versions of keys, as the clients of this wire speak it (Peng and Dabek, OSDI 2010; async commit and
//! one-phase commit besides).
//!
//! A [`Command`] comes from `server` with user keys already encoded. The [`Scheduler`](scheduler::Scheduler) latches its
//! keys, takes a snapshot from [`engine::kv::Kv`], runs the action, which is a pure function over the snapshot, and gives the
//! modifications it wants to `Kv::write`; the answer follows once they are replicated and applied. Reads go past the scheduler: they
//! raise `max_ts`, look into the table of locks in memory ([`concurrency`]), and read a snapshot ([`mvcc`]).
//!
//! Invariants:
//! - no lock without its value, no `commit_ts <= start_ts`, no two commit records of a key with one `commit_ts`;
//! - after a transaction is rolled back on a key, it can never be prewritten or committed there;
//! - a read at `ts` sees every transaction with `commit_ts <= ts`, whichever way it was committed;
//! - `min_commit_ts` of an async commit is above every timestamp that was read at before, on this leader or an earlier one.
//!
//! Not here: replication, protobuf, sockets, clocks.

pub mod action;
pub mod command;
pub mod concurrency;
pub mod deadlock;
#[cfg(test)]
mod driver;
pub mod error;
mod fields;
pub mod gc;
pub mod key;
pub mod lock;
mod metrics;
pub mod mvcc;
pub mod planted;
pub mod safe;
pub mod scheduler;
pub mod write;

pub use command::{Command, Output};
pub use error::{Error, Result};
pub use key::Key;
pub use lock::{Lock, LockKind};
pub use write::{Write, WriteKind};

/// Values up to this length stand in the lock and the commit record themselves; longer ones in the family default.
pub const SHORT_VALUE_MAX: usize = 255;
