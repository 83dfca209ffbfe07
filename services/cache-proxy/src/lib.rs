//! A proxy between many application clients and many Redis or memcached servers.
//!
//! Each thread ([`worker`]) has listeners, clients ([`session`]) and server connections ([`conn`]) of its own. A request is found by a parser
//! ([`resp`], [`memcached`]), looked up in a table of commands ([`command`]), and copied once, into the buffer of the server that its keys
//! belong to ([`topology`], [`ring`], [`hash`]); its reply comes back to the client's [`mailbox`], which keeps the order. The control plane
//! ([`control`]) probes servers, follows clusters and configuration files, and publishes immutable plans that threads take over.
//!
//! Invariants: every request gets one reply, in order; a connection that several clients share carries nothing that leaves state behind;
//! nothing is locked on the way of an ordinary request; bytes from outside give errors, never panics, and memory for them is bounded.

pub mod cli;
pub mod clock;
pub mod command;
pub mod config;
pub mod conn;
pub mod control;
pub mod convert;
pub mod ferrite;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod hash;
pub mod health;
pub mod hot;
pub mod insight;
pub mod join;
pub mod link;
pub mod mailbox;
pub mod memcached;
pub mod meter;
pub mod metrics;
pub mod net;
pub mod pool;
pub mod redis;
pub mod resp;
pub mod ring;
pub mod session;
pub mod tls;
pub mod topology;
pub mod users;
pub mod worker;
