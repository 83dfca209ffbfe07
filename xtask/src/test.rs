//! `test`: everything continuous integration runs by default.

use std::process::{Command, Stdio};

use anyhow::Result;

use crate::stage::{Outcome, Report};
use crate::workspace::{self, Profile};
use crate::{bindings, sim, system};

/// Seeds of the short simulation. The long one is `cargo xtask sim --seeds 1000`.
const SEEDS: &str = "50";
/// Seeds of transactions, whose lives are shorter. The long one is `cargo xtask sim txn --seeds 100000`.
const TXN_SEEDS: &str = "2000";

/// Run the tests: unit, property and integration tests, a short simulation, short chaos on real
/// processes.
///
/// Without arguments everything runs that continuous integration runs, on a fresh machine too (a
/// missing C compiler is installed, or the line to type is printed). Arguments go to `cargo test`
/// and run that part alone:
///
///   cargo xtask test -p ferrite-engine crash
///
/// Longer runs of the same things: `cargo xtask sim --seeds 1000`, `cargo xtask sim txn --seeds
/// 100000`, `cargo xtask cluster kill9`, `cargo xtask cluster power-cut`, `cargo xtask bindings
/// test` (which checks types too).
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Real build tools against the build cache, all of them: what Debian and the registries have is installed first, once.
    #[arg(long)]
    clients: bool,
    /// The clients of all languages as well: their conformance suite and their examples. Builds a workspace of its own.
    #[arg(long)]
    languages: bool,
    /// Encoders of pictures that ordinary builds leave out: AVIF by rav1e, beside libaom and alone.
    #[arg(long)]
    rav1e: bool,
    /// Arguments of `cargo test`; with any, only that runs.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    cargo: Vec<String>,
}

pub fn run(args: &Args) -> Result<bool> {
    if args.clients {
        return clients();
    }
    if args.rav1e {
        return rav1e();
    }
    match args.cargo.is_empty() {
        true => system::ensure_test()?,
        false => system::ensure()?,
    }
    let mut report = Report::new("test");
    if !args.cargo.is_empty() {
        report.command("cargo test", workspace::cargo(&["test", "--locked"]).args(&args.cargo));
        return Ok(report.finish());
    }
    report.command(
        "unit and integration",
        &mut workspace::cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]),
    );
    report.stage("simulation", || sim::stage(Profile::Dev, &["--seeds", SEEDS]));
    report.stage("simulation of transactions", || {
        sim::stage(Profile::Dev, &["txn", "--seeds", TXN_SEEDS])
    });
    if args.languages {
        bindings::short_test(&mut report)?;
    }
    Ok(report.finish())
}

/// Thumbnails with the other encoder of AVIF: read back by libaom, then a build that has no libaom.
fn rav1e() -> Result<bool> {
    system::ensure()?;
    let mut report = Report::new("test --rav1e");
    for (stage, only) in [("beside libaom", &[][..]), ("alone", &["--no-default-features"])] {
        let mut command = workspace::cargo(&["test", "--locked", "-p", "ferrite-thumbnails", "--features", "rav1e"]);
        report.command(stage, command.args(only).args(["--lib", "avif"]));
    }
    Ok(report.finish())
}

/// Every build tool before the build cache.
fn clients() -> Result<bool> {
    system::ensure_clients()?;
    let mut report = Report::new("test --clients");
    let tests = workspace::root().join("services/build-cache/tests");
    let (tools, work) = (workspace::cache().join("tools/clients"), workspace::target().join("clients"));
    report.command("build", &mut workspace::build(Profile::Dev, &["ferrite-build-cache"]));
    let mut found = String::new();
    report.stage("build tools", || {
        let got = Command::new(tests.join("clients-install.sh"))
            .arg(tools)
            .stderr(Stdio::inherit())
            .output()?;
        found = String::from_utf8(got.stdout)?;
        Ok(if got.status.success() {
            Outcome::Passed
        } else {
            Outcome::Failed
        })
    });
    let mut clients = Command::new(tests.join("clients.sh"));
    clients.arg(workspace::binary(Profile::Dev, "ferrite-build-cache")).arg(work);
    clients.envs(found.lines().filter_map(|line| line.split_once('=')));
    report.command("clients", &mut clients);
    Ok(report.finish())
}
