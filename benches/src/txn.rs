//! `ferrite-bench txn`: transactions of one key and of two keys in two regions, in each way of committing, beside raw puts and beside
//! etcd's `Txn` on the same work in the same run.
//!
//! A transaction here begins, writes its keys blindly and commits; one that meets a conflict is run again until it is committed, and
//! all of that is its latency. The driver is our own client, with requests of all clients on shared streams.

mod table;
mod worker;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use client::{ClientOptions, RawClient, TxnClient};

use self::table::{Cell, Results};
use self::worker::{Target, TxnWorker, Way};
use crate::kv::etcd::Etcd;
use crate::kv::ferrite::{Cluster, STORES};
use crate::kv::load::{self, Plan, Sample};
use crate::kv::process::wait_for;
use crate::kv::sub_dir;
use crate::report::{Goal, Origin};

#[derive(clap::Args)]
pub struct Args {
    /// A smoke test of a few seconds: short spans, one round, few clients. Its figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Numbers of closed-loop clients.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    clients: Vec<usize>,
    /// Times that each cell is measured; its figures are medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that each cell is measured for, after its warm-up.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    #[arg(long, default_value_t = 0.5)]
    warm_up_seconds: f64,
    #[arg(long, default_value_t = 128)]
    value_bytes: usize,
    /// Connections to each store, and to etcd.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Leave etcd out.
    #[arg(long)]
    no_etcd: bool,
    /// Only cells whose name contains this, as it is printed: `2 keys, 2 regions × 64`, or `pessimistic`.
    #[arg(long)]
    only: Option<String>,
    /// Directory for all data, on a real disk; removed at the end.
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// Directory for the result files `txn.json` and `txn.md`.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// The `ferrite` binary [default: beside this one].
    #[arg(long, env = "FERRITE_BIN")]
    ferrite: Option<PathBuf>,
}

impl Args {
    fn plan(&self) -> Plan {
        let (warm_up, span) = match self.quick {
            true => (0.1, 0.3),
            false => (self.warm_up_seconds, self.seconds),
        };
        Plan {
            warm_up: Duration::from_secs_f64(warm_up),
            span: Duration::from_secs_f64(span),
        }
    }
}

/// Runs the benchmark; `true` if every goal was met.
pub fn run(args: &Args) -> Result<bool> {
    ensure!(!args.clients.contains(&0) && args.rounds > 0, "zero clients or rounds");
    std::fs::create_dir_all(&args.dir).context("make --dir")?;
    std::fs::create_dir_all(&args.out).context("make --out")?;
    let dir = tempfile::tempdir_in(&args.dir)?;
    let origin = Origin::of(dir.path());
    ensure!(
        origin.file_system != "tmpfs",
        "{} is in memory: name a disk with --dir",
        args.dir.display()
    );
    eprintln!("{}", origin.line());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let results = runtime.block_on(measure(args, dir.path()))?;
    let goals = results.goals();
    let markdown = format!("{}\n\n{}", origin.line(), results.markdown());
    println!("{markdown}");
    std::fs::write(args.out.join("txn.md"), &markdown)?;
    let json = serde_json::json!({
        "bench": "txn", "quick": args.quick, "origin": origin.json(), "results": results.json(),
        "goals": goals.iter().map(Goal::json).collect::<Vec<_>>(),
    });
    std::fs::write(args.out.join("txn.json"), serde_json::to_string_pretty(&json)?)?;
    goals.iter().for_each(|goal| println!("{}", goal.line()));
    for name in results.unmeasured() {
        println!("goal {name}: not measured with these options");
    }
    Ok(goals.iter().all(Goal::is_met))
}

async fn measure(args: &Args, dir: &Path) -> Result<Results> {
    let systems = Systems::start(args, dir).await?;
    let (rounds, clients) = match args.quick {
        true => (1, &[1, 16][..]),
        false => (args.rounds, &args.clients[..]),
    };
    let mut results = Results::default();
    for round in 0..rounds {
        for cell in table::cells(clients, systems.etcd.is_some()) {
            if args.only.as_ref().is_some_and(|only| !cell.to_string().contains(only)) {
                continue;
            }
            let sample = systems.measure(cell, args).await.with_context(|| cell.to_string())?;
            eprintln!("round {} of {rounds}: {cell}: {}", round + 1, table::one_line(&sample));
            results.0.entry(cell).or_default().push(sample);
        }
    }
    Ok(results)
}

/// Everything under load, running through the whole of the run.
struct Systems {
    cluster: Cluster,
    txn: TxnClient,
    raw: RawClient,
    etcd: Option<Etcd>,
}

impl Systems {
    async fn start(args: &Args, dir: &Path) -> Result<Systems> {
        let beside = || Ok::<_, anyhow::Error>(std::env::current_exe()?.with_file_name("ferrite"));
        let binary = args.ferrite.clone().map_or_else(beside, Ok)?;
        ensure!(
            binary.exists(),
            "no ferrite at {}: build it or name it with --ferrite",
            binary.display()
        );
        let dir_of = |name| sub_dir(dir, name);
        let config = dir.join("config.toml");
        std::fs::write(&config, format!("[pd]\nsplit-txn-keys = [\"{}\"]\n", worker::BORDER))?;
        let config = ["--config".to_owned(), config.display().to_string()];
        let cluster = Cluster::start_with(&binary, &dir_of("ferrite")?, &config).await?;
        let options = ClientOptions {
            connections: args.connections,
            ..ClientOptions::default()
        };
        let endpoint = [&cluster.pd_address];
        let txn = TxnClient::connect(&endpoint, options.clone()).await?;
        let raw = RawClient::connect(&endpoint, options).await?;
        wait_for("a copy of each region on every store", Duration::from_secs(60), async || {
            let regions = txn.pd().scan_regions(Bytes::new(), Bytes::new(), 0).await?;
            let copies = regions
                .iter()
                .map(|region| region.region.as_ref().map_or(0, |region| region.peers.len()));
            ensure!(
                regions.len() == 2 && copies.min() == Some(STORES),
                "{} regions",
                regions.len()
            );
            Ok(())
        })
        .await?;
        let etcd = match args.no_etcd {
            true => None,
            false => Some(Etcd::start(&dir_of("etcd")?, args.connections).await?),
        };
        Ok(Systems { cluster, txn, raw, etcd })
    }

    async fn measure(&self, cell: Cell, args: &Args) -> Result<Sample> {
        let value = Bytes::from(vec![b'v'; args.value_bytes]);
        let worker = |target| TxnWorker {
            target,
            work: cell.work,
            value: value.clone(),
        };
        let own = |target: Target| (0..cell.clients).map(|_| worker(target.clone())).collect();
        let workers = match (cell.way, &self.etcd) {
            (Way::RawPut, _) => own(Target::Raw(self.raw.clone())),
            (Way::Etcd, Some(etcd)) => etcd
                .clients(cell.clients)
                .into_iter()
                .map(|client| worker(Target::Etcd(client)))
                .collect(),
            (Way::Etcd, None) => unreachable!("its cells are only made if it runs"),
            (way, _) => own(Target::Txn(self.txn.clone(), way.options())),
        };
        let cpu = || match &self.etcd {
            Some(etcd) if cell.way == Way::Etcd => etcd.cpu(),
            _ => self.cluster.cpu(),
        };
        let sample = load::measure_workers(workers, args.plan(), cpu).await;
        // What a cell left in the background must not weigh on the next.
        self.txn.settled().await;
        sample
    }
}
