//! Kills a process that writes, at random moments, and looks at what it left: exactly a prefix of its batches, and at least
//! what its last answered sync covers.
//!
//! The writer is this test binary itself, started with `FERRITE_CRASH_DIR` set. `FERRITE_CRASH_ROUNDS` asks for more rounds.

mod common;
mod writer;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use common::small;
use engine::FjallEngine;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Not a test: the process that is killed.
#[test]
#[ignore = "started by the tests below"]
fn child() {
    if let Some(dir) = std::env::var_os("FERRITE_CRASH_DIR") {
        writer::write_forever(Path::new(&dir));
    }
}

fn rounds(default: u64) -> u64 {
    std::env::var("FERRITE_CRASH_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(default)
}

#[test]
fn kill_leaves_a_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(7);
    let mut held = 0;
    for round in 0..rounds(12) {
        let mut child = writer::start(dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let acknowledged = writer::acknowledged(&mut lines, random.random_range(1..60));
        wait_a_little(Duration::from_micros(random.random_range(0..20_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let acknowledged = writer::last_of(lines).max(acknowledged);
        let engine = FjallEngine::open(dir.path(), &small()).unwrap();
        let found = writer::check(&engine, &format!("round {round}"));
        assert!(
            found >= acknowledged,
            "round {round}: {found} batches, but sync answered for {acknowledged}"
        );
        assert!(found >= held, "round {round}: {found} batches, {held} were there before");
        held = found;
    }
    assert!(held > 500, "only {held} batches: the test tests nothing");
}

#[allow(clippy::disallowed_methods)] // spreads the kill over the writer's work; nothing waits for it
fn wait_a_little(span: Duration) {
    std::thread::sleep(span);
}
