//! One suite of cases for the clients of all languages.
//!
//! Cases are data (`tests/conformance/*.toml`): operations, expected results, faults of the cluster. [`run`] starts a cluster of real processes and a
//! runner per language, and takes all of them through each step together, each with keys of its own: a fault strikes once and
//! all languages see it. A runner is a small program that knows its client and the lines of [`protocol`], and no case.
//! Invariants: the expectation of a step is looked at here alone, so that all languages are judged alike; every process is killed at the end;
//! a runner that does not answer in time fails its case and the others go on.

mod case;
mod cluster;
pub mod examples;
pub mod load;
pub mod protocol;
mod run;
mod runner;
pub mod rust;
pub mod soak;
mod table;
pub mod victim;

pub use run::{Setup, run};
