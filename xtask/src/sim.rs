//! `sim`: whole clusters on one thread, from seeds.

use anyhow::Result;

use crate::stage::{self, Outcome, Report};
use crate::workspace::{self, Profile};

/// Simulate whole clusters from seeds: virtual time, network and disks that fail, checked
/// histories.
///
/// Builds `ferrite-sim` optimised and passes every argument on; `cargo xtask sim --help-sim` prints
/// what it takes. The usual:
///
///   cargo xtask sim --seeds 1000          a thousand clusters, single operations of every kind
///   cargo xtask sim txn --seeds 2000      transactions: bank, lists, long fork, counters, write skew
///   cargo xtask sim append --seeds 200    one workload
///   cargo xtask sim append --seed 51f2    replay the seed that a failure printed
///   cargo xtask sim --planted             the test of the tests: each planted bug must be caught
///
/// A failure prints its seed, its step and the line that replays it. Exit code 1 if any seed
/// failed.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Print the simulator's own help.
    #[arg(long)]
    help_sim: bool,
    /// Arguments of `ferrite-sim`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    sim: Vec<String>,
}

pub fn run(args: &Args) -> Result<bool> {
    let mut words: Vec<&str> = args.sim.iter().map(String::as_str).collect();
    if args.help_sim {
        words.push("--help");
    }
    let mut report = Report::new("sim");
    report.stage("simulation", || stage(Profile::Release, &words));
    Ok(report.finish())
}

/// Builds the simulator and runs it.
pub fn stage(profile: Profile, arguments: &[&str]) -> Result<Outcome> {
    let mut build = workspace::build(profile, &[]);
    stage::must(match profile {
        // As the tests were built, with the features that they ask of dependencies: then nothing is built again.
        Profile::Dev => build.args(["--workspace", "--tests"]),
        Profile::Release => build.args(["--package", "ferrite-sim"]),
    })?;
    let binary = workspace::binary(profile, "ferrite-sim");
    stage::run(
        std::process::Command::new(binary)
            .args(arguments)
            .current_dir(workspace::root()),
    )
}
