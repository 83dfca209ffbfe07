//! Options of replication.

use base::{ByteSize, Span, section};

section! { "raft",
    /// How regions replicate.
    pub struct Config {
        /// Length of a raft tick. From "10ms" to "10s". Fixed at start; equal on all stores.
        pub tick: Span = Span::millis(100),
        /// Ticks a follower waits at least before it campaigns; each peer draws its own wait between this and half as much again.
        /// More than `heartbeat-ticks`, else healthy leaders fall. Fixed at start; equal on all stores.
        pub election_ticks: u32 = 10,
        /// Ticks between a leader's heartbeats. Fixed at start.
        pub heartbeat_ticks: u32 = 2,
        /// How long a leader may answer reads alone after a quorum last heard it. At most
        /// `(election-ticks - 2) * tick`, so that no other leader can be elected meanwhile. "0ms" sends every read to a quorum.
        /// Fixed at start.
        pub lease: Span = Span::millis(800),
        /// Largest raft entry, and so largest write request. At most "64MiB". Fixed at start.
        pub entry_max: ByteSize = ByteSize::mib(8),
        /// Most entry bytes in one message to a follower. Fixed at start.
        pub message_max: ByteSize = ByteSize::mib(1),
        /// Messages to one follower under way before its answer. Fixed at start.
        pub inflight_max: u32 = 256,
        /// Entries kept in memory of one region for lagging followers, in bytes. Fixed at start.
        pub entry_cache: ByteSize = ByteSize::mib(4),
        /// Applied entries after which a region's log is compacted. Fixed at start.
        pub log_entries_max: u64 = 10_000,
        /// Bytes of applied entries after which a region's log is compacted even if a follower still needs them (it then gets
        /// a raft snapshot). Fixed at start.
        pub log_bytes_max: ByteSize = ByteSize::mib(64),
        /// How often the engine is made durable so that the raft log can be compacted. Fixed at start.
        pub flush_interval: Span = Span::secs(10),
        /// How often a leader tells the placement driver of its region when nothing changed. Fixed at start.
        pub region_heartbeat: Span = Span::secs(60),
        /// A region that nobody used for so long hibernates: no ticks, no messages, until somebody does. "0ms":
        /// never. Less than a few election timeouts, and regions in use fall asleep between two requests. Fixed at start.
        pub hibernate_after: Span = Span::secs(10),
        /// Size of the parts into which a region that has grown too large is divided: bytes of keys and values, before compression.
        /// From "64KiB" to "10GiB". Fixed at start.
        pub region_split_size: ByteSize = ByteSize::mib(96),
        /// Size above which a region is divided. At least `region-split-size`. Fixed at start.
        pub region_max_size: ByteSize = ByteSize::mib(144),
        /// Keys of the parts into which a region with too many of them is divided; each version of a key counts. At least 64.
        /// Fixed at start.
        pub region_split_keys: u64 = 960_000,
        /// Number of keys above which a region is divided. At least `region-split-keys`. Fixed at start.
        pub region_max_keys: u64 = 1_440_000,
        /// Threads that step peers. Fixed at start.
        pub raft_threads: u32 = 1,
        /// Threads that apply committed entries. Fixed at start.
        pub apply_threads: u32 = 1,
        /// Requests a region queues before new ones are refused. Fixed at start.
        pub mailbox_max: u32 = 4096,
    }
}

impl Config {
    /// Ticks between two looks around of a peer that hibernates.
    pub fn doze_ticks(&self) -> u64 {
        let ticks = self.region_heartbeat.0.as_nanos() / self.tick.0.as_nanos();
        ticks.try_into().unwrap_or(u64::MAX).max(1)
    }

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
            self.hibernate_after.0.is_zero() || self.hibernate_after.0 >= tick,
            format!(
                "raft.hibernate-after = {}: wanted \"0ms\" or at least raft.tick ({})",
                self.hibernate_after, self.tick
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
        check(
            (64 << 10..=10 << 30).contains(&self.region_split_size.0),
            format!("raft.region-split-size = {}: wanted 64KiB to 10GiB", self.region_split_size),
        );
        check(
            self.region_max_size.0 >= self.region_split_size.0,
            format!(
                "raft.region-max-size = {}: wanted at least raft.region-split-size ({})",
                self.region_max_size, self.region_split_size
            ),
        );
        check(
            self.region_split_keys >= 64,
            format!("raft.region-split-keys = {}: wanted at least 64", self.region_split_keys),
        );
        check(
            self.region_max_keys >= self.region_split_keys,
            format!(
                "raft.region-max-keys = {}: wanted at least raft.region-split-keys ({})",
                self.region_max_keys, self.region_split_keys
            ),
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
