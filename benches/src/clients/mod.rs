//! `ferrite-bench clients`: what a call costs in each language beside the Rust core, and the Rust core beside the registry's `tikv-client`, all on
//! the same cluster in the same run.
//!
//! Every client is a process of its own that tells what it did and how much processor time it took (`bindings/conformance/src/load.rs`). The
//! cells of all clients are measured in turn, round by round, so that what else the machine does strikes all alike.

mod peer;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use client::{ClientOptions, RawClient};

pub use self::peer::load as tikv_client_load;
use crate::kv::ferrite::Cluster;
use crate::kv::sub_dir;
use crate::report::{Goal, Origin, Table};

const MODES: [&str; 3] = ["get", "put", "txn"];
/// The Rust core, and the client that it is compared with.
const CORE: &str = "rust";
const PEER: &str = "tikv-client";
/// Most microseconds of processor time that a call may cost on top of the core's.
const ADDED_US_MAX: [(&str, f64); 5] = [("c", 5.0), ("cpp", 5.0), ("python", 25.0), ("node", 25.0), ("java", 15.0)];
const KEYS: usize = 10_000;

#[derive(clap::Args)]
pub struct Args {
    /// A client and the command of its load, as `python=python3 load.py`; `rust` must be among them.
    #[arg(long = "runner", value_name = "CLIENT=COMMAND", required = true)]
    runners: Vec<String>,
    /// Calls in flight.
    #[arg(long, value_delimiter = ',', default_value = "1,64")]
    in_flight: Vec<usize>,
    /// Times that each cell is measured; its figures are medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Milliseconds that each cell is measured for, after a warm-up of half of that.
    #[arg(long, default_value_t = 2000)]
    milliseconds: u64,
    /// Only cells whose name holds this: `get 64 python`.
    #[arg(long)]
    only: Option<String>,
    /// Leave `tikv-client` out.
    #[arg(long)]
    no_peer: bool,
    /// Directory for all data, on a real disk; removed at the end.
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// Directory for the result files `clients.json` and `clients.md`.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// The `ferrite` binary [default: beside this one].
    #[arg(long, env = "FERRITE_BIN")]
    ferrite: Option<PathBuf>,
}

/// What one process told.
#[derive(Clone, Copy, Debug)]
struct Sample {
    per_second: f64,
    cpu_us: f64,
    p50_us: f64,
    p99_us: f64,
    failures: f64,
}

/// Mode, calls in flight, client.
type Cell = (&'static str, usize, String);

/// Runs the benchmark; `true` if every goal was met.
pub fn run(args: &Args) -> Result<bool> {
    ensure!(!args.in_flight.contains(&0) && args.rounds > 0, "zero calls or rounds");
    std::fs::create_dir_all(&args.dir).context("make --dir")?;
    std::fs::create_dir_all(&args.out).context("make --out")?;
    let dir = tempfile::tempdir_in(&args.dir)?;
    let origin = Origin::of(dir.path());
    eprintln!("{}", origin.line());
    let beside = || Ok::<_, anyhow::Error>(std::env::current_exe()?.with_file_name("ferrite"));
    let binary = args.ferrite.clone().map_or_else(beside, Ok)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let cluster = runtime.block_on(Cluster::start(&binary, &sub_dir(dir.path(), "ferrite")?))?;
    runtime.block_on(fill(&cluster.pd_address))?;
    let samples = measure(args, &cluster.pd_address)?;
    let medians: BTreeMap<Cell, Sample> = samples.into_iter().map(|(cell, samples)| (cell, median(&samples))).collect();
    let goals = goals(&medians);
    let markdown = format!("{}\n\n{}", origin.line(), markdown(&medians));
    println!("{markdown}");
    std::fs::write(args.out.join("clients.md"), &markdown)?;
    let json = serde_json::json!({
        "bench": "clients", "origin": origin.json(),
        "cells": medians.iter().map(|(cell, sample)| json_of(cell, sample)).collect::<Vec<_>>(),
        "goals": goals.iter().map(Goal::json).collect::<Vec<_>>(),
    });
    std::fs::write(args.out.join("clients.json"), serde_json::to_string_pretty(&json)?)?;
    goals.iter().for_each(|goal| println!("{}", goal.line()));
    Ok(goals.iter().all(Goal::is_met))
}

/// Keys for those who read.
async fn fill(pd_address: &str) -> Result<()> {
    let client = RawClient::connect(&[pd_address], ClientOptions::default()).await?;
    let value = bytes::Bytes::from(vec![b'v'; 100]);
    for from in (0..KEYS).step_by(1000) {
        let pairs = (from..from + 1000).map(|number| (format!("bench/k/{number:06}"), value.clone()));
        client.batch_put(pairs).await?;
    }
    Ok(())
}

fn measure(args: &Args, endpoint: &str) -> Result<BTreeMap<Cell, Vec<Sample>>> {
    let mut commands = Vec::new();
    for runner in &args.runners {
        let (client, command) = runner
            .split_once('=')
            .with_context(|| format!("{runner}: wanted CLIENT=COMMAND"))?;
        commands.push((client.to_owned(), command.to_owned()));
    }
    ensure!(
        commands.iter().any(|(client, _)| client == CORE),
        "`{CORE}` is not among the runners"
    );
    if !args.no_peer {
        commands.push((
            PEER.to_owned(),
            format!("{} tikv-client-load", std::env::current_exe()?.display()),
        ));
    }
    let mut samples = BTreeMap::<Cell, Vec<Sample>>::new();
    for round in 0..args.rounds {
        for in_flight in &args.in_flight {
            for mode in MODES {
                for (client, command) in &commands {
                    let name = format!("{mode} {in_flight} {client}");
                    if args.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
                        continue;
                    }
                    let sample = load(command, endpoint, mode, *in_flight, args.milliseconds).with_context(|| name.clone())?;
                    eprintln!(
                        "round {} of {}: {name}: {:.0}/s, {:.1} us of CPU, p99 {:.0} us",
                        round + 1,
                        args.rounds,
                        sample.per_second,
                        sample.cpu_us,
                        sample.p99_us
                    );
                    samples.entry((mode, *in_flight, client.clone())).or_default().push(sample);
                }
            }
        }
    }
    Ok(samples)
}

/// Runs one client's load to its end.
fn load(command: &str, endpoint: &str, mode: &str, in_flight: usize, milliseconds: u64) -> Result<Sample> {
    let mut words = command.split_whitespace();
    let mut process = Command::new(words.next().context("the command is empty")?);
    process.args(words).args([
        endpoint,
        "-",
        mode,
        &in_flight.to_string(),
        &milliseconds.to_string(),
        "bench",
    ]);
    let output = process.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("ended with {}", output.status);
    }
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).context("its figures")?;
    let figure = |name: &str| told[name].as_f64().with_context(|| format!("no {name} in {told}"));
    let operations = figure("operations")?;
    Ok(Sample {
        per_second: operations / figure("seconds")?,
        cpu_us: figure("cpu_seconds")? / operations * 1e6,
        p50_us: figure("p50_us")?,
        p99_us: figure("p99_us")?,
        failures: figure("failures")?,
    })
}

/// Each figure's own median; of failures the most.
fn median(samples: &[Sample]) -> Sample {
    let of = |figure: fn(&Sample) -> f64| {
        let mut figures: Vec<f64> = samples.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Sample {
        per_second: of(|sample| sample.per_second),
        cpu_us: of(|sample| sample.cpu_us),
        p50_us: of(|sample| sample.p50_us),
        p99_us: of(|sample| sample.p99_us),
        failures: samples.iter().map(|sample| sample.failures).fold(0.0, f64::max),
    }
}

fn markdown(medians: &BTreeMap<Cell, Sample>) -> String {
    let mut table = Table::new(&[
        "calls",
        "in flight",
        "client",
        "per second",
        "CPU µs a call",
        "added to the core",
        "p50 µs",
        "p99 µs",
        "failures",
    ]);
    for ((mode, in_flight, client), sample) in medians {
        let core = medians.get(&(*mode, *in_flight, CORE.to_owned()));
        table.row(vec![
            (*mode).to_owned(),
            in_flight.to_string(),
            client.clone(),
            format!("{:.0}", sample.per_second),
            format!("{:.1}", sample.cpu_us),
            core.map_or(String::new(), |core| format!("{:+.1}", sample.cpu_us - core.cpu_us)),
            format!("{:.0}", sample.p50_us),
            format!("{:.0}", sample.p99_us),
            format!("{:.0}", sample.failures),
        ]);
    }
    table.markdown()
}

fn json_of((mode, in_flight, client): &Cell, sample: &Sample) -> serde_json::Value {
    serde_json::json!({
        "calls": mode, "in_flight": in_flight, "client": client, "per_second": sample.per_second, "cpu_us": sample.cpu_us,
        "p50_us": sample.p50_us, "p99_us": sample.p99_us, "failures": sample.failures,
    })
}

/// What was measured against what is wanted.
fn goals(medians: &BTreeMap<Cell, Sample>) -> Vec<Goal> {
    let mut goals = Vec::new();
    for ((mode, in_flight, client), sample) in medians {
        let Some(core) = medians.get(&(*mode, *in_flight, CORE.to_owned())) else {
            continue;
        };
        // A transaction is four calls.
        let calls = if *mode == "txn" { 4.0 } else { 1.0 };
        if let Some((_, most)) = ADDED_US_MAX.iter().find(|(name, _)| name == client) {
            let added = (sample.cpu_us - core.cpu_us) / calls;
            goals.push(Goal::at_most(
                format!("added_cpu_us_{client}_{mode}_{in_flight}"),
                added,
                *most,
            ));
        }
        if client == PEER {
            let faster = core.per_second / sample.per_second;
            goals.push(Goal::at_least(format!("core_vs_tikv_client_{mode}_{in_flight}"), faster, 1.5));
            let p99 = core.p99_us / sample.p99_us;
            goals.push(Goal::at_most(format!("core_vs_tikv_client_p99_{mode}_{in_flight}"), p99, 0.7));
        }
    }
    goals
}
