//! What happened in runs, counted by name, and the dangerous moments that a campaign must have reached.

use std::collections::BTreeMap;
use std::fmt;

/// Counters by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<&'static str, u64>);

/// Moments in which a faulty system would go wrong. A campaign that never reached one of them has shown nothing about it.
pub const SITES: [&str; 28] = [
    "crash",
    "crash_of_all",
    "crash_lost_log_writes",
    "crash_lost_engine_batches",
    "crash_at_vote",
    "crash_at_append_answer",
    "restart",
    "pause",
    "pause_of_leader_over_lease",
    "partition",
    "partition_one_way",
    "partition_ring",
    "message_lost",
    "message_duplicated",
    "clock_jump",
    "disk_slow",
    "transfer_began",
    "conf_change_applied",
    "peer_destroyed",
    "raft_snapshot_installed",
    "log_compacted",
    "request_from_the_past",
    "refused_not_here",
    "refused_epoch",
    "refused_stale_command",
    "read_under_lease",
    "admin_refused",
    "placement_restart",
];

impl Counts {
    pub fn add(&mut self, name: &'static str) {
        self.add_many(name, 1);
    }

    pub fn add_many(&mut self, name: &'static str, count: u64) {
        *self.0.entry(name).or_default() += count;
    }

    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    pub fn merge(&mut self, other: &Counts) {
        other.0.iter().for_each(|(name, count)| self.add_many(name, *count));
    }

    /// Sites that were never reached.
    pub fn missing_sites(&self) -> Vec<&'static str> {
        SITES.into_iter().filter(|site| self.get(site) == 0).collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, count)) in self.0.iter().enumerate() {
            let gap = if at == 0 { "" } else { " " };
            write!(f, "{gap}{name}={count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_tell_what_is_missing() {
        let mut all = Counts::default();
        let mut one = Counts::default();
        one.add("crash");
        one.add_many("operation_ok", 5);
        all.merge(&one);
        all.merge(&one);
        assert_eq!(all.to_string(), "crash=2 operation_ok=10");
        assert_eq!(all.missing_sites().len(), SITES.len() - 1);
        assert!(!all.missing_sites().contains(&"crash"));
    }
}
