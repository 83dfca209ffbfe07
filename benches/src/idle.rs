//! What thousands of regions cost a store while nobody uses them, and how soon it answers after a restart.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base::MonoTime;
use client::{ClientOptions, RawClient};

use crate::kv::process::{Server, free_ports, wait_for};
use crate::report::{Goal, Origin};

/// Regions for which there are goals.
const GOAL_REGIONS: usize = 10_000;
/// Share of one core, in percent.
const CPU_MAX: f64 = 2.0;
const REGION_KIB_MAX: f64 = 16.0;
const RESTART_MS_MAX: f64 = 5_000.0;
/// Until all regions came to rest.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(clap::Args)]
pub struct Args {
    /// Numbers of regions.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 1_000, 10_000, 30_000])]
    regions: Vec<usize>,
    /// Seconds for which processor time is counted once all regions hibernate.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Directory for the data, on a real disk; removed at the end.
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// The binary to measure.
    #[arg(long, env = "FERRITE_BIN", default_value = "target/release/ferrite")]
    ferrite: PathBuf,
}

/// What one number of regions cost.
struct Cost {
    regions: usize,
    start_ms: f64,
    /// From the first answer until all hibernated.
    rest_s: f64,
    cpu_percent: f64,
    rss_bytes: u64,
    restart_ms: f64,
}

/// Measures and prints; whether the goals were met.
pub fn run(args: &Args) -> Result<bool> {
    ensure!(!args.regions.is_empty() && args.seconds > 0, "zero numbers or seconds");
    println!("{}", Origin::of(&args.dir).line());
    std::fs::create_dir_all(&args.dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut costs: Vec<Cost> = Vec::new();
    for &regions in &args.regions {
        let dir = tempfile::tempdir_in(&args.dir)?;
        let cost = runtime.block_on(measure(args, dir.path(), regions))?;
        let each = costs.first().map_or(0.0, |base| kib_each(base, &cost));
        println!(
            "{:>6} regions: first answer {:.0} ms, all at rest {:.0} s later, {:.2}% of a core, {:.1} MiB in memory ({each:.1} KiB for each beyond the first line's), answers {:.0} ms after a restart",
            cost.regions,
            cost.start_ms,
            cost.rest_s,
            cost.cpu_percent,
            cost.rss_bytes as f64 / 1048576.0,
            cost.restart_ms,
        );
        costs.push(cost);
    }
    let Some((base, wanted)) = costs.first().zip(costs.iter().find(|cost| cost.regions == GOAL_REGIONS)) else {
        println!("no goal: {GOAL_REGIONS} regions were not asked for");
        return Ok(true);
    };
    let goals = [
        Goal::at_most("idle_cpu_percent_10000", wanted.cpu_percent, CPU_MAX),
        Goal::at_most("idle_kib_per_region_10000", kib_each(base, wanted), REGION_KIB_MAX),
        Goal::at_most("restart_ms_10000", wanted.restart_ms, RESTART_MS_MAX),
    ];
    goals.iter().for_each(|goal| println!("{}", goal.line()));
    Ok(goals.iter().all(Goal::is_met))
}

fn kib_each(base: &Cost, cost: &Cost) -> f64 {
    let more = cost.regions.saturating_sub(base.regions).max(1);
    (cost.rss_bytes as f64 - base.rss_bytes as f64) / 1024.0 / more as f64
}

async fn measure(args: &Args, dir: &Path, regions: usize) -> Result<Cost> {
    let keys: Vec<String> = (1..regions).map(|at| format!("\"{}\"", key(at))).collect();
    let config = dir.join("ferrite.toml");
    // Neighbours as empty as these would become one within the hour.
    std::fs::write(
        &config,
        format!("[pd]\nmerge-after = \"0s\"\nsplit-keys = [{}]\n", keys.join(",")),
    )?;
    let begin = MonoTime::now();
    let mut server = start(args, dir, &config)?;
    answer(&mut server, regions, true).await?;
    let start_ms = millis_since(begin);
    let begin = MonoTime::now();
    wait_for("all regions to hibernate", PATIENCE, async || {
        server.process.check_alive()?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (all, hibernating) = counts(&server.status)?;
        ensure!(all == regions as u64 && hibernating == all, "{hibernating} of {all} do");
        Ok(())
    })
    .await?;
    let rest_s = millis_since(begin) / 1e3;
    let before = server.process.cpu();
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let used = server.process.cpu() - before;
    let rss_bytes = server.process.rss_bytes()?;
    server.process.kill();
    let begin = MonoTime::now();
    let mut server = start(args, dir, &config)?;
    answer(&mut server, regions, false).await?;
    Ok(Cost {
        regions,
        start_ms,
        rest_s,
        cpu_percent: 100.0 * used.as_secs_f64() / args.seconds as f64,
        rss_bytes,
        restart_ms: millis_since(begin),
    })
}

fn millis_since(begin: MonoTime) -> f64 {
    MonoTime::now().since(begin).as_secs_f64() * 1e3
}

/// First key of a region.
fn key(region: usize) -> String {
    format!("idle/{region:08}")
}

struct Started {
    process: Server,
    pd: String,
    status: String,
}

fn start(args: &Args, dir: &Path, config: &Path) -> Result<Started> {
    let [pd, store, status] = free_ports(3)?[..] else {
        unreachable!("asked for three")
    };
    let at = |port| format!("127.0.0.1:{port}");
    let mut command = Command::new(&args.ferrite);
    command.args(["server", "--log-level", "warn", "--config"]).arg(config);
    command.arg("--data-dir").arg(dir.join("data"));
    command.args(["--pd-addr", &at(pd), "--addr", &at(store), "--status-addr", &at(status)]);
    Ok(Started {
        process: Server::start("ferrite", &mut command, dir)?,
        pd: at(pd),
        status: at(status),
    })
}

/// Writes to the first, the middle and the last region, or reads what was written there.
async fn answer(server: &mut Started, regions: usize, write: bool) -> Result<()> {
    let Started { process, pd, .. } = server;
    wait_for("the first answer", PATIENCE, async || {
        process.check_alive()?;
        let client = RawClient::connect(&[pd.as_str()], ClientOptions::default()).await?;
        for region in [0, regions / 2, regions - 1] {
            let key = key(region);
            match write {
                true => client.put(key, "value").await?,
                false => ensure!(client.get(key.clone()).await?.is_some(), "{key} is lost"),
            }
        }
        Ok(())
    })
    .await
}

/// How many regions the store has, and how many of them hibernate.
fn counts(status: &str) -> Result<(u64, u64)> {
    let mut stream = TcpStream::connect(status)?;
    stream.write_all(b"GET /status HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
    let report: serde_json::Value = serde_json::from_str(body)?;
    let count = |name: &str| report["stores"][0][name].as_u64().with_context(|| format!("its {name}"));
    Ok((count("regions")?, count("hibernating")?))
}
