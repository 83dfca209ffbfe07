//! The Raft paper, section by section, over the `raft` crate as `raftstore` configures it: pre-vote, check-quorum,
//! asynchronous persistence, election timeouts overruled by us.
//!
//! These tests pin what our wrapper relies on, so that a new version of the crate cannot change it in silence. "Section"
//! means Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm (Extended Version)", 2014; "thesis"
//! means Ongaro, "Consensus: Bridging Theory and Practice", 2014. Pre-vote (thesis 9.6) puts a round of questions before
//! each election, and check-quorum makes voters deaf to candidates while they hear a leader: where that makes the crate
//! differ from the letter of the paper, the test tells.

mod harness;

mod election;
mod election_network;
mod log_matching;
mod membership;
mod persistence;
mod rawnode;
mod reads;
mod replication;
mod replication_network;
mod snapshots;
mod transfer;
