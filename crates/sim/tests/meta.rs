//! Tests of the tests: a seed is one run, and planted bugs are caught.

use raftstore::planted::Bug;
use sim::campaign::{Plan, campaign};
use sim::options::Workload;

/// Seeds within which each planted bug must show. The campaign of `cargo xtask sim --planted` allows 500.
const PLANTED_SEEDS: u64 = 300;

fn plan(seeds: u64) -> Plan {
    Plan {
        start: 0,
        seeds,
        jobs: 1,
        workload: Workload::All,
        planted: None,
        twice: false,
    }
}

#[test]
fn seeds_run_twice_are_equal() {
    let summary = campaign(Plan { twice: true, ..plan(20) }, |_| {});
    assert_eq!(summary.runs, 20);
    assert_eq!(summary.differing, Vec::<u64>::new(), "seeds whose second run was another one");
    assert!(summary.failures.is_empty(), "{:?}", summary.failures);
}

/// Whether the bug shows, and only because of the bug: without it the same seed is clean.
fn must_catch(bug: Bug) {
    let summary = campaign(
        Plan {
            planted: Some(bug),
            ..plan(PLANTED_SEEDS)
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
            ..plan(1)
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
    must_catch(Bug::AckBeforeFsync);
}

#[test]
fn vote_before_persist_is_caught() {
    must_catch(Bug::VoteBeforePersist);
}

#[test]
fn lease_over_pause_is_caught() {
    must_catch(Bug::LeaseOverPause);
}

#[test]
fn no_epoch_check_is_caught() {
    must_catch(Bug::NoEpochCheck);
}

#[test]
fn apply_twice_after_snapshot_is_caught() {
    must_catch(Bug::ApplyTwiceAfterSnapshot);
}

#[test]
fn read_index_without_quorum_is_caught() {
    must_catch(Bug::ReadIndexWithoutQuorum);
}
