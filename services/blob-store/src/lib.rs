//! Blobs on disk under a byte limit: verified when written, compressed at rest, least recently used evicted.
//!
//! Content comes in through [`Upload`] and is published whole or not at all; it goes out through [`Blob`], in ranges, as it was
//! or as zstd. The build cache serves it, the thumbnail service keeps results in it. Blocking calls only: callers with an
//! async runtime go through its blocking pool. Not here: sockets, protocols, who may do what.
//!
//! Files of a store: `segments/` (content below 64 KiB, many in a file), `files/` (a file each above), `journal/` (the index),
//! `tmp/` (uploads in flight), `lock`, `marker` (whether the last stop was clean).
//!
//! Invariants: bytes on disk, uploads in flight included, never exceed [`Config::size_max`]; a blob is served only if its content
//! had the wanted digest when written, and after an unclean stop only once it was checked again; what a reader holds stays
//! readable until it lets go; the journal never names bytes that were not written before.

mod blob;
mod config;
mod error;
mod frames;
#[doc(hidden)]
pub mod fuzz;
mod gc;
mod hot;
mod index;
mod journal;
mod key;
mod loan;
mod metrics;
mod segments;
mod store;
mod upload;
mod usage;
mod verify;

pub use blob::{Blob, Cursor, Encoding, Step};
pub use config::{Config, SyncMode};
pub use error::Error;
pub use frames::{FRAME, Form, SMALL, Table, frame_len, frames_of, table_len, wrap_raw};
pub use index::{Entry, Index, Place};
pub use journal::{Record, replay};
pub use key::{Content, Key};
pub use loan::{LOAN_MAX, Loan};
pub use store::{Presence, SpaceId, Stats, Store};
pub use upload::Upload;
pub use verify::Report;

#[cfg(test)]
mod tests;
