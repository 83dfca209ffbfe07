//! Stages of a verb: each says what it runs, how it ended and how long it took; all of them run, so one look tells every fault.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How a stage ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
    /// Not run, and why. Never silent: the summary repeats it.
    Skipped(String),
}

/// Collects stages and prints the summary.
pub struct Report {
    verb: &'static str,
    stages: Vec<(String, Outcome, Duration)>,
}

impl Report {
    pub fn new(verb: &'static str) -> Report {
        Report {
            verb,
            stages: Vec::new(),
        }
    }

    /// Runs `body` as a stage. An error is printed and counts as failed; later stages run all the same.
    pub fn stage(&mut self, name: &str, body: impl FnOnce() -> Result<Outcome>) {
        eprintln!("== {name}");
        let begin = now();
        let outcome = body().unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            Outcome::Failed
        });
        self.stages.push((name.to_owned(), outcome, begin.elapsed()));
    }

    /// Runs a command as a stage.
    pub fn command(&mut self, name: &str, command: &mut Command) {
        self.stage(name, || run(command));
    }

    /// Whether a stage failed, for verbs whose later stages would make no sense then.
    pub fn has_failed(&self) -> bool {
        self.stages.iter().any(|(_, outcome, _)| *outcome == Outcome::Failed)
    }

    /// Prints the summary. True if nothing failed.
    pub fn finish(self) -> bool {
        eprintln!("== {} summary", self.verb);
        for (name, outcome, took) in &self.stages {
            let (word, why) = match outcome {
                Outcome::Passed => ("passed", String::new()),
                Outcome::Failed => ("FAILED", String::new()),
                Outcome::Skipped(why) => ("skipped", format!("  ({why})")),
            };
            eprintln!("{word:>8} {:>7.1}s  {name}{why}", took.as_secs_f64());
        }
        !self.has_failed()
    }
}

/// Runs `command` with our output; its exit code decides.
pub fn run(command: &mut Command) -> Result<Outcome> {
    eprintln!("$ {}", line_of(command));
    let status = command
        .status()
        .with_context(|| format!("start {}", command.get_program().display()))?;
    Ok(if status.success() { Outcome::Passed } else { Outcome::Failed })
}

/// Runs `command`; anything but success is an error that names it.
pub fn must(command: &mut Command) -> Result<()> {
    match run(command)? {
        Outcome::Passed => Ok(()),
        _ => anyhow::bail!("failed: {}", line_of(command)),
    }
}

/// The command as one would type it.
fn line_of(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Reads the clock, to say how long a stage took.
#[allow(clippy::disallowed_methods)] // a tool outside the database, kept free of its crates so that it builds in seconds
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_stage_fails_the_verb_and_the_rest_still_runs() {
        let mut report = Report::new("check");
        report.command("false", &mut Command::new("false"));
        let mut ran = false;
        report.stage("after", || {
            ran = true;
            Ok(Outcome::Skipped("for the test".into()))
        });
        assert!(ran);
        assert!(!report.finish());
    }

    #[test]
    fn a_missing_program_is_a_failed_stage_not_a_panic() {
        let mut report = Report::new("check");
        report.command("missing", &mut Command::new("no-such-program-anywhere"));
        assert!(!report.finish());
    }

    #[test]
    fn skipped_stages_do_not_fail() {
        let mut report = Report::new("check");
        report.stage("skipped", || Ok(Outcome::Skipped("for the test".into())));
        report.command("true", &mut Command::new("true"));
        assert!(report.finish());
    }
}
