//! A runner's process, as the suite sees it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::MonoTime;

use crate::protocol::Line;

/// Answers that wait to be looked at; the runner is slowed beyond them.
const ANSWERS_MAX: usize = 1024;

/// One language's.
pub struct Runner {
    pub language: String,
    process: Child,
    input: Option<ChildStdin>,
    answers: Receiver<(MonoTime, Result<Line>)>,
    early: BTreeMap<u64, (MonoTime, Line)>,
    last: u64,
}

impl Runner {
    /// Starts `command`, words parted by spaces.
    pub fn start(language: &str, command: &str) -> Result<Runner> {
        let mut words = command.split_whitespace();
        let program = words.next().with_context(|| format!("the command of {language} is empty"))?;
        let mut process = Command::new(program);
        process.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = process
            .spawn()
            .with_context(|| format!("start the runner of {language}: {command}"))?;
        let output = process.stdout.take().context("standard output is a pipe")?;
        let (sender, answers) = sync_channel(ANSWERS_MAX);
        base::thread::spawn("answers", move || {
            for text in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send((MonoTime::now(), Line::parse(&text))).is_err() {
                    return;
                }
            }
        });
        Ok(Runner {
            language: language.to_owned(),
            input: process.stdin.take(),
            process,
            answers,
            early: BTreeMap::new(),
            last: 0,
        })
    }

    /// Sends an operation; returns its id.
    pub fn send(&mut self, line: Line) -> Result<u64> {
        self.last += 1;
        let line = Line { id: self.last, ..line };
        let input = self.input.as_mut().context("the runner is being stopped")?;
        let sent = writeln!(input, "{line}").and_then(|()| input.flush());
        sent.with_context(|| format!("the runner of {} has ended", self.language))?;
        Ok(self.last)
    }

    /// The answer to an operation and when it came.
    pub fn answer(&mut self, id: u64, patience: Duration) -> Result<(MonoTime, Line)> {
        let deadline = MonoTime::now() + patience;
        loop {
            if let Some(answer) = self.early.remove(&id) {
                return Ok(answer);
            }
            let left = deadline.since(MonoTime::now());
            match self.answers.recv_timeout(left) {
                Ok((at, line)) => {
                    let line = line?;
                    self.early.insert(line.id, (at, line));
                }
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => bail!("no answer within {patience:?}"),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                    bail!("the runner ended with {:?}", self.process.wait()?)
                }
            }
        }
    }

    /// Lets it end by itself, which it does when its input ends; told if it does not, or not well.
    pub fn stop(mut self, patience: Duration) -> Result<()> {
        drop(self.input.take());
        let deadline = MonoTime::now() + patience;
        while MonoTime::now() < deadline {
            if let Some(status) = self.process.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("the runner of {} ended with {status}", self.language);
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        bail!(
            "the runner of {} does not end within {patience:?} although its input has",
            self.language
        )
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
