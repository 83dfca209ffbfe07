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
    /// Long load on the clients of all languages, one after the other, while stores are killed and started again: no wrong answer, no hang, no
    /// leak. Exit code 1 if there was one.
    Soak {
        /// The binary of the server.
        #[arg(long, env = "FERRITE_BIN")]
        ferrite: PathBuf,
        /// A language and the command of its load; `rust` is built in.
        #[arg(long = "runner", value_name = "LANGUAGE=COMMAND")]
        runners: Vec<String>,
        /// Of each language.
        #[arg(long)]
        operations: u64,
        /// From one restart of a store to the next.
        #[arg(long, default_value = "30s")]
        restart_every: base::Span,
    },
    /// Run the examples of all languages against a database, in the clear and over TLS, look at what they did and print a table. Exit code 1 if it is
    /// not all green.
    Examples {
        /// The binary of the server.
        #[arg(long, env = "FERRITE_BIN")]
        ferrite: PathBuf,
        /// An example and its command, as `python/task_queue=python3 task_queue.py`.
        #[arg(long = "program", value_name = "LANGUAGE/EXAMPLE=COMMAND")]
        programs: Vec<conformance::examples::Program>,
    },
    /// Be the load of Rust.
    Load(conformance::load::Args),
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
        } => conformance::run(&Setup {
            ferrite,
            cases,
            runners: commands("rust", &runners)?,
            only,
            victim: std::env::current_exe()?,
        }),
        Verb::Soak {
            ferrite,
            runners,
            operations,
            restart_every,
        } => conformance::soak::run(&conformance::soak::Setup {
            ferrite,
            runners: commands("load", &runners)?,
            operations,
            restart_every: restart_every.0,
        }),
        Verb::Examples { ferrite, programs } => {
            // It blocks on a runtime of its own.
            drop(runtime);
            conformance::examples::run(&conformance::examples::Setup { ferrite, programs })
        }
        Verb::Load(args) => runtime.block_on(conformance::load::run(args)).map(|()| true),
        Verb::Rust => conformance::rust::run(&runtime).map(|()| true),
        Verb::Victim { endpoint, keys } => {
            let keys: anyhow::Result<Vec<_>> = keys.split(',').map(conformance::protocol::unhex).collect();
            runtime.block_on(conformance::victim::run(&endpoint, keys?)).map(|()| true)
        }
    }
}

/// Languages and their commands: Rust's, which this binary is with `verb`, and those that were given.
fn commands(verb: &str, runners: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    let itself = std::env::current_exe()?;
    let mut commands = vec![("rust".to_owned(), format!("{} {verb}", itself.display()))];
    for runner in runners {
        let (language, command) = runner
            .split_once('=')
            .with_context(|| format!("{runner}: wanted LANGUAGE=COMMAND"))?;
        commands.push((language.to_owned(), command.to_owned()));
    }
    Ok(commands)
}
