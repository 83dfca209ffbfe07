//! `check`: everything that reads the code without running it.

use crate::stage::{Outcome, Report};
use crate::{codegen, deny, system, tidy, workspace};
use anyhow::Result;

/// Read the code without running it: format, house rules, clippy, dependencies, generated files,
/// docs.
///
/// Stages, in order; all of them run even if one fails, and the summary tells which:
///
///   fmt         cargo fmt --check
///   tidy        house rules that are code, see `cargo xtask tidy --list`
///   clippy      over all targets, warnings are errors
///   deny        licenses, bans and sources of dependencies (deny.toml)
///   advisories  known vulnerabilities, where their database can be fetched
///   codegen     generated files are fresh
///   docs        without warnings
///
/// cargo-deny is built once into ~/.cache/ferrite/tools (about a minute) if it is not installed.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

pub fn run(_args: &Args) -> Result<bool> {
    system::ensure_build()?;
    let mut report = Report::new("check");
    let fmt = ["fmt", "--all", "--check"];
    report.command("fmt", &mut workspace::cargo(&fmt));
    let extensions = workspace::root().join("bindings");
    report.command(
        "fmt of the clients' extensions",
        workspace::cargo(&fmt).current_dir(extensions),
    );
    report.stage("tidy", || Ok(if tidy::check()? { Outcome::Passed } else { Outcome::Failed }));
    report.command(
        "clippy",
        workspace::cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--"]).args(["-D", "warnings"]),
    );
    report.stage("deny", deny::policies);
    report.stage("advisories", deny::advisories);
    report.stage("codegen", || codegen::stage(true));
    report.command(
        "docs",
        workspace::cargo(&["doc", "--workspace", "--no-deps", "--locked", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"),
    );
    Ok(report.finish())
}
