//! `cargo xtask`: the one front door. Continuous integration and people type the same verbs, so what passes here passes there.
//!
//! Every verb is a short list of stages ([`stage::Report`]); a stage runs one tool and says what it took. Nothing here is
//! clever on purpose: the crate must compile in seconds on a fresh machine, so it depends on `anyhow` and `clap` alone.

mod bench;
mod bindings;
mod check;
mod cluster;
mod codegen;
mod demo;
mod deny;
mod fuzz;
mod gallery;
mod sim;
mod stage;
mod system;
mod test;
mod tidy;
mod workspace;

use clap::{Parser, Subcommand};

/// Build, check, test, measure and try Ferrite.
///
/// A fresh machine needs two of these: `cargo xtask demo` shows it working, `cargo xtask test`
/// proves it. What is built goes to the usual `target/`, or to ~/.cache/ferrite/target when CI=true
/// and CARGO_TARGET_DIR is not set. Exit codes: 0 done, 1 something failed or a goal was missed, 2
/// the verb could not run.
#[derive(Parser)]
#[command(
    verbatim_doc_comment,
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Check(check::Args),
    Tidy(tidy::Args),
    Test(test::Args),
    Sim(sim::Args),
    Bench(bench::Args),
    Bindings(bindings::Args),
    Cluster(cluster::Args),
    Demo(demo::Args),
    Codegen(codegen::Args),
    Fuzz(fuzz::Args),
    Gallery(gallery::Args),
}

fn main() -> std::process::ExitCode {
    let done = match Cli::parse().verb {
        Verb::Check(args) => check::run(&args),
        Verb::Tidy(args) => tidy::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Sim(args) => sim::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Bindings(args) => bindings::run(&args),
        Verb::Cluster(args) => cluster::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Codegen(args) => codegen::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Gallery(args) => gallery::run(&args),
    };
    match done {
        Ok(true) => 0.into(),
        Ok(false) => 1.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            2.into()
        }
    }
}
