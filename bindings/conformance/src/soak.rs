//! Long load on the clients of all languages, one after the other, while stores are killed and started again.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base::MonoTime;

use crate::cluster::Cluster;

/// A client that says nothing for so long hangs: its calls have a deadline of 20 s, and it tells its progress every second.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Progress must be made within this time, whatever is restarted.
const STANDSTILL_MAX: Duration = Duration::from_secs(60);
/// How long a killed store stays away.
const AWAY: Duration = Duration::from_secs(2);
const IN_FLIGHT: usize = 64;
/// Memory is looked at from this share of the operations on, so that caches, heaps and compiled code are in place.
const WARM: f64 = 0.25;
/// By how much it may grow from there to the end.
const GROWTH_MAX: f64 = 1.05;

/// What is to be run.
pub struct Setup {
    /// The binary `ferrite`.
    pub ferrite: PathBuf,
    /// Languages and the commands of their loads.
    pub runners: Vec<(String, String)>,
    /// Of each language.
    pub operations: u64,
    /// From one restart of a store to the next.
    pub restart_every: Duration,
}

/// What one language came to.
struct Outcome {
    told: serde_json::Value,
    took: Duration,
    restarts: u32,
    /// Resident memory once it was warm, and at its end (the means of the first and of the last tenth of the samples from there on).
    rss_mib: [f64; 2],
}

/// Runs all languages and prints a table; whether none was wrong, hung or grew.
pub fn run(setup: &Setup) -> Result<bool> {
    println!(
        "| language | operations | seconds | restarts | undetermined | failed, nothing done | MiB, warm | MiB, end | growth |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    let mut is_well = true;
    let mut lines = Vec::new();
    for (language, command) in &setup.runners {
        // Each its own: what one language left behind is no load for the next.
        let mut cluster = Cluster::start(&setup.ferrite, &[])?;
        match soak(setup, &mut cluster, language, command) {
            Ok(outcome) => {
                let [warm, end] = outcome.rss_mib;
                println!(
                    "| {language} | {} | {:.0} | {} | {} | {} | {warm:.1} | {end:.1} | {:+.1}% |",
                    outcome.told["operations"],
                    outcome.took.as_secs_f64(),
                    outcome.restarts,
                    outcome.told["undetermined"],
                    outcome.told["failed"],
                    (end / warm - 1.0) * 100.0
                );
                let is_flat = end / warm <= GROWTH_MAX;
                let verdict = if is_flat { "met" } else { "missed" };
                lines.push(format!(
                    "goal soak_{language}_growth: {:.3} (wanted <= {GROWTH_MAX}): {verdict}",
                    end / warm
                ));
                is_well &= is_flat;
            }
            Err(error) => {
                lines.push(format!("goal soak_{language}: {error:#}: missed"));
                eprintln!("{}", cluster.logs());
                is_well = false;
            }
        }
    }
    lines.iter().for_each(|line| println!("{line}"));
    Ok(is_well)
}

/// A load's process; killed when dropped.
struct Load {
    process: Child,
    lines: Receiver<String>,
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Load {
    fn start(command: &str, endpoint: &str, operations: u64, language: &str) -> Result<Load> {
        let mut words = command.split_whitespace();
        let mut start = Command::new(words.next().context("the command is empty")?);
        start
            .args(words)
            .args([endpoint, "DEFAULT", "soak", &IN_FLIGHT.to_string(), &operations.to_string()]);
        start
            .arg(format!("soak/{language}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut process = start.spawn().with_context(|| format!("start {command}"))?;
        let output = process.stdout.take().context("standard output is a pipe")?;
        let (sender, lines) = sync_channel(1024);
        base::thread::spawn("progress", move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Load { process, lines })
    }

    fn rss_mib(&self) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? / 1024.0)
    }
}

fn soak(setup: &Setup, cluster: &mut Cluster, language: &str, command: &str) -> Result<Outcome> {
    let begun = MonoTime::now();
    let mut load = Load::start(command, &cluster.endpoint, setup.operations, language)?;
    let (mut restarts, mut rss, mut told) = (0u32, Vec::new(), None);
    let mut next_kill = begun + setup.restart_every;
    let (mut done, mut moved) = (0u64, begun);
    loop {
        let line = match load.lines.recv_timeout(SILENCE_MAX) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => bail!("said nothing for {SILENCE_MAX:?}: it hangs"),
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let now = MonoTime::now();
        let Some(progress) = line.strip_prefix("progress ") else {
            told = Some(serde_json::from_str(&line).with_context(|| format!("not its counts: {line}"))?);
            continue;
        };
        let progress: u64 = progress.parse().with_context(|| format!("not a number: {line}"))?;
        if progress > done {
            (done, moved) = (progress, now);
        }
        ensure!(now.since(moved) < STANDSTILL_MAX, "stands still at {done} operations");
        if done as f64 >= setup.operations as f64 * WARM {
            rss.extend(load.rss_mib());
        }
        if now >= next_kill && done < setup.operations {
            cluster.restart_store(restarts as usize, AWAY)?;
            restarts += 1;
            next_kill = MonoTime::now() + setup.restart_every;
        }
    }
    let status = load.process.wait()?;
    ensure!(status.success(), "ended with {status}");
    let mean = |samples: &[f64]| samples.iter().sum::<f64>() / samples.len() as f64;
    let tenth = rss.len().div_ceil(10);
    ensure!(tenth > 0, "it was over before its memory was looked at: more --operations");
    Ok(Outcome {
        told: told.context("it did not tell its counts")?,
        took: MonoTime::now().since(begun),
        restarts,
        rss_mib: [mean(&rss[..tenth]), mean(&rss[rss.len() - tenth..])],
    })
}
