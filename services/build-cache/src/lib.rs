//! One remote cache for every build tool: Bazel (HTTP and Remote Execution API), Gradle, sccache, ccache, Turborepo, Nx, Maven, moon.
//!
//! A connection comes in at [`serve`], which speaks HTTP/1.1, HTTP/2 and gRPC on one port. [`name`] reads a path into protocol,
//! instance and key; [`access`] says who may what; [`http`] and [`reapi`] are the protocols; [`cache`] stands between them and
//! the blocking store of `blob_store`, with [`tier`] behind it; [`action`] holds action results back whose blobs are gone. Not here: how blobs lie on disk.
//!
//! Invariants: no body is held whole in memory but small ones; content under a digest is verified before it is visible; an action
//! result is served only if every blob it names is there, and serving it renews them; every wait for a client has an end.

pub mod access;
pub mod action;
pub mod body;
pub mod cache;
pub mod cli;
pub mod config;
pub mod error;
#[doc(hidden)]
pub mod fuzz;
pub mod http;
pub mod metrics;
pub mod name;
pub mod reapi;
pub mod serve;
pub mod status;
pub mod tier;
pub mod wire;

/// Messages and services of the wire, made from `proto/`.
pub mod proto {
    #[allow(missing_docs, clippy::all)] // made by prost
    mod wire {
        include!(concat!(env!("OUT_DIR"), "/wire.rs"));
    }
    pub use wire::build::bazel::remote::execution::v2 as reapi;
    pub use wire::build::bazel::semver;
    pub use wire::google::{bytestream, rpc};
}
