//! What happened in runs, counted by name, and the dangerous moments that a campaign must have reached.

use std::collections::BTreeMap;
use std::fmt;

use crate::options::Workload;

/// Counters by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<&'static str, u64>);

/// Moments in which a faulty system would go wrong. A campaign that never reached one of them has shown nothing about it.
pub fn sites(workload: Workload) -> Vec<&'static str> {
    let all = FAULTS.iter();
    match workload {
        Workload::Members => MEMBERS.to_vec(),
        Workload::Txn => all.chain(&TRANSACTIONS).copied().collect(),
        _ if workload.is_transactional() => all.copied().collect(),
        _ => all.chain(&OPERATIONS).copied().collect(),
    }
}

const FAULTS: [&str; 45] = [
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
    "split_applied",
    "split_applied_by_leader",
    "split_refused",
    "crash_after_split",
    "merge_prepared",
    "merge_committed",
    "merge_applied_where_source_led",
    "merge_rolled_back",
    "merge_waited_for_source",
    "merge_refused",
    "crash_in_merge",
    "hibernates",
    "hibernation_ended",
    "store_silent_while_hibernating",
    "crash_of_hibernating_leader",
    "region_born",
    "message_before_split",
    "message_came_early",
    "peer_destroyed",
    "raft_snapshot_installed",
    "log_compacted",
    "request_from_the_past",
    "refused_not_here",
    "refused_epoch",
    "read_under_lease",
    "admin_refused",
    "placement_restart",
];

/// Of the placement driver's members.
const MEMBERS: [&str; 12] = [
    "pd_crash",
    "pd_crash_lost_writes",
    "pd_restart",
    "pd_pause",
    "pd_partition",
    "pd_clock_jump",
    "pd_transfer_asked",
    "pd_led",
    "pd_timestamp",
    "pd_ids",
    "pd_refused",
    "pd_unanswered",
];

/// Of single operations besides: worlds of transactions end before a source loses patience with a peer that is away.
const OPERATIONS: [&str; 2] = ["refused_stale_command", "merge_given_up"];

/// Of transactions besides.
const TRANSACTIONS: [&str; 16] = [
    "client_died",
    "operation_unknown",
    "met_lock",
    "write_conflict",
    "write_skew",
    "deadlock",
    "commit_ts_expired",
    "txn_not_found",
    "txn_lock_not_found",
    "pessimistic_lock_not_found",
    "pessimistic_lock_rolled_back",
    "max_ts_synchronised",
    "replica_read",
    "stale_read_of_a_known_time",
    "stale_read_held_back",
    "promise_met_lock_in_memory",
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
    pub fn missing(&self, sites: &[&'static str]) -> Vec<&'static str> {
        sites.iter().copied().filter(|site| self.get(site) == 0).collect()
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
        let sites = sites(Workload::All);
        assert_eq!(all.missing(&sites).len(), sites.len() - 1);
        assert!(!all.missing(&sites).contains(&"crash"));
    }
}
