//! Tests of the tests: a seed is one run, and planted bugs are caught.

use sim::campaign::{Plan, campaign};
use sim::options::Workload;
use sim::planted::Bug;

/// Seeds within which each planted bug must show. The campaign of `cargo xtask sim --planted` allows 500.
const PLANTED_SEEDS: u64 = 500;

fn plan(workload: Workload, seeds: u64) -> Plan {
    Plan {
        start: 0,
        seeds,
        jobs: 1,
        workload,
        planted: None,
        twice: false,
    }
}

fn must_run_twice_alike(workload: Workload) {
    let summary = campaign(
        Plan {
            twice: true,
            ..plan(workload, 20)
        },
        |_| {},
    );
    assert_eq!(summary.runs, 20);
    assert_eq!(summary.differing, Vec::<u64>::new(), "seeds whose second run was another one");
    assert!(summary.failures.is_empty(), "{:?}", summary.failures);
}

#[test]
fn seeds_run_twice_are_equal() {
    must_run_twice_alike(Workload::All);
}

#[test]
fn seeds_of_transactions_run_twice_are_equal() {
    must_run_twice_alike(Workload::Txn);
}

#[test]
fn seeds_of_members_run_twice_are_equal() {
    must_run_twice_alike(Workload::Members);
}

/// Whether the bug shows, and only because of the bug: without it the same seed is clean.
fn must_catch(name: &str) {
    let (_, bug) = Bug::all()
        .into_iter()
        .find(|(known, _)| *known == name)
        .expect("a bug of this name");
    let summary = campaign(
        Plan {
            planted: Some(bug),
            ..plan(bug.workload(), PLANTED_SEEDS)
        },
        |_| {},
    );
    let caught = summary
        .failures
        .first()
        .unwrap_or_else(|| panic!("{bug:?} was not caught within {PLANTED_SEEDS} seeds"));
    let clean = campaign(
        Plan {
            start: caught.seed,
            ..plan(bug.workload(), 1)
        },
        |_| {},
    );
    assert!(
        clean.failures.is_empty(),
        "seed {:x} fails without {bug:?} too: {:?}",
        caught.seed,
        clean.failures
    );
}

#[test]
fn ack_before_fsync_is_caught() {
    must_catch("ack-before-fsync");
}

#[test]
fn vote_before_persist_is_caught() {
    must_catch("vote-before-persist");
}

#[test]
fn lease_over_pause_is_caught() {
    must_catch("lease-over-pause");
}

#[test]
fn no_epoch_check_is_caught() {
    must_catch("no-epoch-check");
}

#[test]
fn apply_twice_after_snapshot_is_caught() {
    must_catch("apply-twice-after-snapshot");
}

#[test]
fn read_index_without_quorum_is_caught() {
    must_catch("read-index-without-quorum");
}

#[test]
fn no_write_conflict_check_is_caught() {
    must_catch("no-write-conflict-check");
}

#[test]
fn no_lock_check_is_caught() {
    must_catch("no-lock-check");
}

#[test]
fn lost_rollback_record_is_caught() {
    must_catch("lost-rollback-record");
}

#[test]
fn min_commit_ts_ignored_is_caught() {
    must_catch("min-commit-ts-ignored");
}

#[test]
fn max_ts_forgotten_is_caught() {
    must_catch("max-ts-forgotten");
}

#[test]
fn tso_bound_not_persisted_is_caught() {
    must_catch("tso-bound-not-persisted");
}

#[test]
fn merge_without_all_is_caught() {
    must_catch("merge-without-all");
}

#[test]
fn merge_over_epoch_is_caught() {
    must_catch("merge-over-epoch");
}

#[test]
fn secondary_before_primary_is_caught() {
    must_catch("secondary-before-primary");
}

#[test]
fn pd_lease_ignored_is_caught() {
    must_catch("pd-lease-ignored");
}
