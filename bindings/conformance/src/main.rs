//! `ferrite-conformance`: the suite, and the programs that it starts.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use conformance::Setup;

/// Conformance of the clients of all languages.
#[derive(Parser)]
#[command(name = "ferrite-conformance", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the cases against a cluster of real processes and print a table, case by language. Exit code 1 if it is not all green.
    Run {
        /// The binary of the server.
        #[arg(long, env = "FERRITE_BIN")]
        ferrite: PathBuf,
        /// Folder of the cases.
        #[arg(long, default_value = "tests/conformance")]
        cases: PathBuf,
        /// A language and the command of its runner, as `python=python3 runner.py`; `rust` is built in.
        #[arg(long = "runner", value_name = "LANGUAGE=COMMAND")]
        runners: Vec<String>,
        /// Only cases whose name holds this.
        #[arg(long)]
        only: Option<String>,
    },
    /// Be the runner of Rust: operations come on standard input.
    Rust,
    /// Be a client that locks keys and waits to be killed.
    #[command(hide = true)]
    Victim { endpoint: String, keys: String },
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("ferrite-conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Runtime::new()?;
    match verb {
        Verb::Run {
            ferrite,
            cases,
            runners,
            only,
        } => {
            let itself = std::env::current_exe()?;
            let mut commands = vec![("rust".to_owned(), format!("{} rust", itself.display()))];
            for runner in &runners {
                let (language, command) = runner
                    .split_once('=')
                    .with_context(|| format!("{runner}: wanted LANGUAGE=COMMAND"))?;
                commands.push((language.to_owned(), command.to_owned()));
            }
            conformance::run(&Setup {
                ferrite,
                cases,
                runners: commands,
                only,
                victim: itself,
            })
        }
        Verb::Rust => conformance::rust::run(&runtime).map(|()| true),
        Verb::Victim { endpoint, keys } => {
            let keys: anyhow::Result<Vec<_>> = keys.split(',').map(conformance::protocol::unhex).collect();
            runtime.block_on(conformance::victim::run(&endpoint, keys?)).map(|()| true)
        }
    }
}
