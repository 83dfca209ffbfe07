//! What every crate of Ferrite shares: ids, time, sizes, key encoding, threads, shutdown, logging and metrics set-up.
//!
//! Invariants: nothing here knows of regions' contents, the wire or the disk; newtypes keep ids of different kinds apart;
//! [`codec`] is the only place that encodes or decodes memcomparable keys.

pub mod codec;
pub mod ids;
pub mod log;
pub mod metrics;
pub mod options;
pub mod shutdown;
pub mod size;
pub mod thread;
pub mod time;

pub use ids::{ClusterId, PeerId, RegionId, StoreId, Ts};
pub use size::{ByteSize, Span};
pub use time::{MonoTime, WallTime};

/// Commit the binary was built from, or `unknown` outside a checkout.
pub const BUILD_COMMIT: &str = match option_env!("FERRITE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
