//! Options of replication.

use base::{ByteSize, Span};
use serde::{Deserialize, Serialize};

/// `[raft]`: how regions replicate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Length of a raft tick. Default "100ms". From "10ms" to "10s". Fixed at start; equal on all stores.
    pub tick: Span,
    /// Ticks a follower waits at least before it campaigns; each peer draws its own wait between this and half as much again.
    /// Default 10. More than `heartbeat-ticks`, else healthy leaders fall. Fixed at start; equal on all stores.
    pub election_ticks: u32,
    /// Ticks between a leader's heartbeats. Default 2. Fixed at start.
    pub heartbeat_ticks: u32,
    /// How long a leader may answer reads alone after a quorum last heard it. Default "800ms". At most
    /// `(election-ticks - 2) * tick`, so that no other leader can be elected meanwhile. "0s" sends every read to a quorum. Fixed at start.
    pub lease: Span,
    /// Largest raft entry, and so largest write request. Default "8MiB". At most "64MiB". Fixed at start.
    pub entry_max: ByteSize,
    /// Most entry bytes in one message to a follower. Default "1MiB". Fixed at start.
    pub message_max: ByteSize,
    /// Messages to one follower under way before its answer. Default 256. Fixed at start.
    pub inflight_max: u32,
    /// Entries kept in memory of one region for lagging followers, in bytes. Default "4MiB". Fixed at start.
    pub entry_cache: ByteSize,
    /// Applied entries after which a region's log is compacted. Default 10000. Fixed at start.
    pub log_entries_max: u64,
    /// Bytes of applied entries after which a region's log is compacted even if a follower still needs them (it then gets
    /// a raft snapshot). Default "64MiB". Fixed at start.
    pub log_bytes_max: ByteSize,
    /// How often the engine is made durable so that the raft log can be compacted. Default "10s". Fixed at start.
    pub flush_interval: Span,
    /// How often a leader tells the placement driver of its region when nothing changed. Default "60s". Fixed at start.
    pub region_heartbeat: Span,
    /// Threads that step peers. Default 1. Fixed at start.
    pub raft_threads: u32,
    /// Threads that apply committed entries. Default 1. Fixed at start.
    pub apply_threads: u32,
    /// Requests a region queues before new ones are refused. Default 4096. Fixed at start.
    pub mailbox_max: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            tick: Span::millis(100),
            election_ticks: 10,
            heartbeat_ticks: 2,
            lease: Span::millis(800),
            entry_max: ByteSize::mib(8),
            message_max: ByteSize::mib(1),
            inflight_max: 256,
            entry_cache: ByteSize::mib(4),
            log_entries_max: 10_000,
            log_bytes_max: ByteSize::mib(64),
            flush_interval: Span::secs(10),
            region_heartbeat: Span::secs(60),
            raft_threads: 1,
            apply_threads: 1,
            mailbox_max: 4096,
        }
    }
}

impl Config {
    /// Every fault of the options, each naming its option, its value and what was wanted.
    pub fn validate(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |ok: bool, fault: String| {
            if !ok {
                faults.push(fault);
            }
        };
        let tick = self.tick.0;
        check(
            (10..=10_000).contains(&tick.as_millis()),
            format!("raft.tick = {}: wanted 10ms to 10s", self.tick),
        );
        check(
            self.heartbeat_ticks >= 1,
            format!("raft.heartbeat-ticks = {}: wanted at least 1", self.heartbeat_ticks),
        );
        check(
            self.election_ticks > self.heartbeat_ticks,
            format!(
                "raft.election-ticks = {}: wanted more than raft.heartbeat-ticks ({})",
                self.election_ticks, self.heartbeat_ticks
            ),
        );
        let lease_max = tick * self.election_ticks.saturating_sub(2);
        check(
            self.lease.0 <= lease_max,
            format!(
                "raft.lease = {}: wanted at most (raft.election-ticks - 2) * raft.tick ({})",
                self.lease,
                Span(lease_max)
            ),
        );
        check(
            (1 << 10..=64 << 20).contains(&self.entry_max.0),
            format!("raft.entry-max = {}: wanted 1KiB to 64MiB", self.entry_max),
        );
        check(
            (1 << 10..=64 << 20).contains(&self.message_max.0),
            format!("raft.message-max = {}: wanted 1KiB to 64MiB", self.message_max),
        );
        for (name, value, max) in [
            ("inflight-max", u64::from(self.inflight_max), 100_000),
            ("raft-threads", u64::from(self.raft_threads), 64),
            ("apply-threads", u64::from(self.apply_threads), 64),
            ("mailbox-max", u64::from(self.mailbox_max), 1_000_000),
            ("log-entries-max", self.log_entries_max, u64::MAX),
        ] {
            check(
                (1..=max).contains(&value),
                format!("raft.{name} = {value}: wanted 1 to {max}"),
            );
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(Config::default().validate(), Vec::<String>::new());
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let config = Config {
            election_ticks: 1,
            raft_threads: 0,
            ..Config::default()
        };
        let faults = config.validate();
        assert!(
            faults
                .iter()
                .any(|f| f == "raft.election-ticks = 1: wanted more than raft.heartbeat-ticks (2)"),
            "{faults:?}"
        );
        assert!(faults.iter().any(|f| f.starts_with("raft.lease")), "{faults:?}");
        assert!(faults.iter().any(|f| f.starts_with("raft.raft-threads = 0")), "{faults:?}");
    }
}
