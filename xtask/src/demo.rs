//! `demo`: the first of the README's two commands.

use anyhow::Result;

use crate::stage::{self, Report};
use crate::system;
use crate::workspace::{self, Profile};

/// Show Ferrite working on this machine: build it, run three stores, load real data, kill a store,
/// read on.
///
/// Needs Rust and a C compiler with make; what is missing is installed (Debian and its kin, as
/// root) or the exact line to type is printed. Then: builds optimised; starts a placement driver
/// and three stores as processes on loopback, data in a temporary directory; loads at least 100,000
/// records made from this machine's own files; reads every one back and compares; kills the store
/// that leads with SIGKILL; reads everything again from the two that are left; prints what it did
/// and how fast. Nothing stays behind.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// How many records to load.
    #[arg(long, default_value_t = 100_000)]
    records: u64,
}

pub fn run(args: &Args) -> Result<bool> {
    let mut report = Report::new("demo");
    report.stage("system", || system::ensure().map(|()| stage::Outcome::Passed));
    report.command(
        "build",
        &mut workspace::build(Profile::Release, &["ferrite-server", "ferrite-bench"]),
    );
    if report.has_failed() {
        return Ok(report.finish());
    }
    let mut demo = std::process::Command::new(workspace::binary(Profile::Release, "ferrite-bench"));
    demo.args(["demo", "--records", &args.records.to_string()]);
    demo.env("FERRITE_BIN", workspace::binary(Profile::Release, "ferrite"))
        .current_dir(workspace::root());
    report.command("demo", &mut demo);
    Ok(report.finish())
}
