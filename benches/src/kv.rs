//! `ferrite-bench kv`: what users feel of the key-value store, beside what the machine could do at best and beside etcd.
//!
//! In one run, interleaved round by round so that a slow minute of the machine hits all alike: the disk's own append +
//! fdatasync; a bare tonic echo of the same messages; three members of etcd; a placement driver and three stores of
//! `ferrite`, all with real fsync on the same disk. Figures are medians of the rounds. Beside wall-clock figures stands the
//! servers' processor time per operation, which other work on the machine does not touch.

pub mod caller;
pub mod echo;
pub mod etcd;
mod failover;
pub mod ferrite;
mod floor;
pub mod load;
pub mod process;
mod single;
pub mod table;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use clap::ValueEnum;

use self::caller::{Caller, Connections, Form};
use self::ferrite::{Cluster, Route};
use self::load::{Keys, Op, Plan, Sample};
use self::process::{Server, free_ports, wait_for};
use self::table::{Cell, Results, System};
use crate::report::Origin;

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Part {
    Floor,
    Echo,
    Etcd,
    Ferrite,
    /// A fresh single server: start, memory, disk.
    Single,
    /// Killing the leader under load.
    Failover,
}

#[derive(clap::Args)]
pub struct Args {
    /// Parts to measure, parted by commas; all when left out.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
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
    /// Different keys, read and written with equal chance.
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    #[arg(long, default_value_t = 16)]
    key_bytes: usize,
    #[arg(long, default_value_t = 128)]
    value_bytes: usize,
    /// Connections that all clients of a system share.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Seconds without a request before the idle memory of a fresh server is read.
    #[arg(long, default_value_t = 10.0)]
    idle_seconds: f64,
    /// Times that the leader is killed.
    #[arg(long, default_value_t = 5)]
    kills: usize,
    /// Directory for all data, on a real disk; removed at the end.
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// Directory for the result files `kv.json` and `kv.md`.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// The `ferrite` binary [default: beside this one].
    #[arg(long, env = "FERRITE_BIN")]
    ferrite: Option<PathBuf>,
}

impl Args {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn clients(&self) -> &[usize] {
        if self.quick { &[1, 16] } else { &self.clients }
    }

    fn rounds(&self) -> usize {
        if self.quick { 1 } else { self.rounds }
    }

    fn plan(&self) -> Plan {
        let (warm_up, span) = if self.quick {
            (0.1, 0.3)
        } else {
            (self.warm_up_seconds, self.seconds)
        };
        Plan {
            warm_up: Duration::from_secs_f64(warm_up),
            span: Duration::from_secs_f64(span),
        }
    }

    fn ferrite(&self) -> Result<PathBuf> {
        let beside = || Ok::<_, anyhow::Error>(std::env::current_exe()?.with_file_name("ferrite"));
        let binary = self.ferrite.clone().map_or_else(beside, Ok)?;
        ensure!(
            binary.exists(),
            "no ferrite at {}: build it (cargo build --release) or name it with --ferrite",
            binary.display()
        );
        Ok(binary)
    }
}

/// Runs the benchmark; `true` if every goal was met.
pub fn run(args: &Args) -> Result<bool> {
    ensure!(
        !args.clients().contains(&0) && args.rounds > 0 && args.connections > 0,
        "zero clients, rounds or connections"
    );
    std::fs::create_dir_all(&args.dir).context("make --dir")?;
    std::fs::create_dir_all(&args.out).context("make --out")?;
    let dir = tempfile::tempdir_in(&args.dir)?;
    let origin = Origin::of(dir.path());
    ensure!(
        origin.file_system != "tmpfs",
        "{} is in memory, where fsync costs nothing: name a disk with --dir",
        args.dir.display()
    );
    eprintln!("{}", origin.line());

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let results = runtime.block_on(measure(args, dir.path()))?;
    let goals = results.goals();
    let markdown = format!("{}\n\n{}", origin.line(), results.markdown());
    println!("{markdown}");
    std::fs::write(args.out.join("kv.md"), &markdown)?;
    let json = serde_json::json!({
        "bench": "kv", "quick": args.quick, "origin": origin.json(), "results": results.json(),
        "goals": goals.iter().map(crate::report::Goal::json).collect::<Vec<_>>(),
    });
    std::fs::write(args.out.join("kv.json"), serde_json::to_string_pretty(&json)?)?;
    goals.iter().for_each(|goal| println!("{}", goal.line()));
    Ok(goals.iter().all(crate::report::Goal::is_met))
}

async fn measure(args: &Args, dir: &Path) -> Result<Results> {
    let mut results = Results::default();
    if args.wants(Part::Single) {
        let idle = if args.quick { 1.0 } else { args.idle_seconds };
        let single_dir = sub_dir(dir, "single")?;
        results.single = Some(single::measure(&args.ferrite()?, &single_dir, Duration::from_secs_f64(idle)).await?);
    }
    let value = Bytes::from(vec![b'v'; args.value_bytes]);
    let keys = Arc::new(Keys {
        count: if args.quick { 500 } else { args.keys },
        key_bytes: args.key_bytes,
        value,
    });
    let mut systems = Systems::start(args, dir, &keys).await?;
    for round in 0..args.rounds() {
        if args.wants(Part::Floor) {
            for floor in floor::FLOORS {
                results
                    .floor
                    .entry(floor)
                    .or_default()
                    .push(floor.measure(dir, args.plan().span)?);
            }
        }
        for cell in systems.cells(args.clients()) {
            let sample = systems
                .measure(cell, &keys, args.plan())
                .await
                .with_context(|| cell.to_string())?;
            eprintln!(
                "round {} of {}: {cell}: {}",
                round + 1,
                args.rounds(),
                table::one_line(&sample)
            );
            results.load.entry(cell).or_default().push(sample);
        }
    }
    if args.wants(Part::Failover) {
        let kills = if args.quick { 1 } else { args.kills };
        let cluster = match &mut systems.ferrite {
            Some((cluster, _, _)) => cluster,
            None => &mut Cluster::start(&args.ferrite()?, &sub_dir(dir, "failover")?).await?,
        };
        results.gaps = failover::measure(cluster, &keys, kills).await?;
    }
    Ok(results)
}

/// Everything under load, all running through the whole of the run.
struct Systems {
    echo: Option<(Server, Connections)>,
    etcd: Option<etcd::Etcd>,
    ferrite: Option<(Cluster, Connections, Route)>,
}

impl Systems {
    /// Starts what is wanted and writes every key once.
    async fn start(args: &Args, dir: &Path, keys: &Arc<Keys>) -> Result<Self> {
        let mut systems = Self {
            echo: None,
            etcd: None,
            ferrite: None,
        };
        if args.wants(Part::Echo) {
            systems.echo = Some(start_echo(dir, args).await?);
        }
        if args.wants(Part::Etcd) {
            let etcd = etcd::Etcd::start(&sub_dir(dir, "etcd")?, args.connections).await?;
            eprintln!("etcd {}: three members", etcd.version);
            load::fill(etcd.callers(64), keys).await.context("fill etcd")?;
            systems.etcd = Some(etcd);
        }
        if args.wants(Part::Ferrite) {
            let cluster = Cluster::start(&args.ferrite()?, &sub_dir(dir, "ferrite")?).await?;
            let route = cluster.route().await?;
            let connections = Connections::open(&route.address, args.connections).await?;
            load::fill(connections.callers(64, Form::Unary, &route.context), keys)
                .await
                .context("fill ferrite")?;
            systems.ferrite = Some((cluster, connections, route));
        }
        Ok(systems)
    }

    /// What is measured in each round, in its order: systems next to each other under the same load.
    fn cells(&self, clients: &[usize]) -> Vec<Cell> {
        let mut cells = Vec::new();
        for op in [Op::Put, Op::Get] {
            for &clients in clients {
                for form in [Form::Unary, Form::Batch] {
                    let cell = |system| Cell {
                        op,
                        form,
                        clients,
                        system,
                    };
                    cells.extend(self.echo.iter().map(|_| cell(System::Echo)));
                    cells.extend(self.ferrite.iter().map(|_| cell(System::Ferrite)));
                    cells.extend(self.etcd.iter().filter(|_| form == Form::Unary).map(|_| cell(System::Etcd)));
                }
            }
        }
        cells
    }

    async fn measure(&self, cell: Cell, keys: &Arc<Keys>, plan: Plan) -> Result<Sample> {
        let (callers, cpu): (Vec<Caller>, Box<dyn Fn() -> Duration + '_>) = match cell.system {
            System::Echo => {
                let (server, connections) = self.echo.as_ref().expect("its cells are only made if it runs");
                (
                    connections.callers(cell.clients, cell.form, &ferrite::some_context()),
                    Box::new(|| server.cpu()),
                )
            }
            System::Etcd => {
                let etcd = self.etcd.as_ref().expect("its cells are only made if it runs");
                (etcd.callers(cell.clients), Box::new(|| etcd.cpu()))
            }
            System::Ferrite => {
                let (cluster, connections, route) = self.ferrite.as_ref().expect("its cells are only made if it runs");
                (
                    connections.callers(cell.clients, cell.form, &route.context),
                    Box::new(|| cluster.cpu()),
                )
            }
        };
        load::measure(callers, cell.op, keys, plan, cpu).await
    }
}

/// The echo runs in a process of its own, as every other server does: this binary, started again.
async fn start_echo(dir: &Path, args: &Args) -> Result<(Server, Connections)> {
    let address = format!("127.0.0.1:{}", free_ports(1)?[0]);
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["echo", "--addr", &address, "--value-bytes", &args.value_bytes.to_string()]);
    let mut server = Server::start("echo", &mut command, dir)?;
    let connections = wait_for("the echo", Duration::from_secs(10), async || {
        server.check_alive()?;
        Connections::open(&address, args.connections).await
    });
    let connections = connections.await?;
    Ok((server, connections))
}

pub fn sub_dir(dir: &Path, name: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    std::fs::create_dir_all(&path)?;
    Ok(path)
}
