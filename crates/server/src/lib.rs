//! The process: gRPC services, wire errors, configuration, wiring, the status port, and what the binary `ferrite` runs.
//!
//! Requests come from clients and other stores over gRPC; they go down through `raftstore` to `engine`, and to `pd`. Answers
//! and errors become wire messages here and nowhere else. Invariants: nothing is served before the process knows which cluster
//! its data belongs to; every queue between the network and the threads below is bounded; a refused start tells why in one line.

pub mod call;
pub mod cli;
pub mod config;
pub mod ctl;
pub mod data_dir;
pub mod error;
pub mod failure;
pub mod limits;
pub mod listen;
pub mod load;
pub mod node;
pub mod pd_client;
pub mod pd_peers;
pub mod pd_service;
pub mod playground;
pub mod raw;
pub mod rescue;
pub mod security;
pub mod status;
pub mod tikv_service;
pub mod transport;
pub mod txn;

/// Version that `--version` and the status port tell.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit the binary was built from; `unknown` outside a checkout.
pub const COMMIT: &str = env!("FERRITE_COMMIT");
