//! `ferrite-sim`: runs seeds of the simulator and says what they came to.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use sim::campaign::{Plan, campaign, goals};
use sim::options::{Options, Workload};
use sim::planted::Bug;
use sim::run::{Report, Task, run};

/// Runs whole clusters on one thread under virtual time, each from a seed, and checks what their clients saw.
#[derive(Debug, Parser)]
#[command(name = "ferrite-sim", version)]
struct Args {
    /// What clients do: `all` single operations unless told, or with `--planted` what must show the bug.
    #[arg(value_enum)]
    workload: Option<Workload>,
    /// How many seeds to run: 100 unless told, and 500 at most with `--planted`, which stops at the first that catches the bug.
    #[arg(long)]
    seeds: Option<u64>,
    /// First seed, in hexadecimal.
    #[arg(long, default_value = "0", value_parser = parse_seed)]
    start: u64,
    /// Runs this one seed alone, in hexadecimal, and tells its options.
    #[arg(long, value_parser = parse_seed)]
    seed: Option<u64>,
    /// With `--seed`: writes every event to stderr.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// With `--seed`: writes the history to this file, as JSON lines.
    #[arg(long, requires = "seed")]
    history: Option<std::path::PathBuf>,
    /// Switches a bug on, which must be caught. Without a name: all of them, one after the other.
    #[arg(long, num_args = 0..=1, default_missing_value = "all")]
    planted: Option<String>,
    /// Runs every seed twice and compares the two runs.
    #[arg(long)]
    twice: bool,
    /// Threads to run on; the machine's cores unless told.
    #[arg(long)]
    jobs: Option<u64>,
}

fn parse_seed(text: &str) -> Result<u64, std::num::ParseIntError> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16)
}

fn main() -> ExitCode {
    let args = Args::parse();
    match bugs(args.planted.as_deref()) {
        Err(name) => {
            let known: Vec<_> = Bug::all().into_iter().map(|(name, _)| name).collect();
            eprintln!("no bug is called {name}; known: all {}", known.join(" "));
            ExitCode::from(2)
        }
        Ok(bugs) => {
            let met = match args.seed {
                Some(seed) => run_one(&args, seed, bugs.first().copied().flatten()),
                // Every bug gets its turn, even if one before it slipped through.
                None => {
                    let met: Vec<bool> = bugs.into_iter().map(|bug| run_many(&args, bug)).collect();
                    !met.contains(&false)
                }
            };
            ExitCode::from(u8::from(!met))
        }
    }
}

/// The bugs to plant, one after the other; one `None` runs without any.
fn bugs(name: Option<&str>) -> Result<Vec<Option<Bug>>, &str> {
    match name {
        None => Ok(vec![None]),
        Some("all") => Ok(Bug::all().into_iter().map(|(_, bug)| Some(bug)).collect()),
        Some(name) => match Bug::all().into_iter().find(|(known, _)| *known == name) {
            Some((_, bug)) => Ok(vec![Some(bug)]),
            None => Err(name),
        },
    }
}

fn workload(args: &Args, planted: Option<Bug>) -> Workload {
    let due = planted.map_or(Workload::All, Bug::workload);
    args.workload.unwrap_or(due)
}

fn run_one(args: &Args, seed: u64, planted: Option<Bug>) -> bool {
    let workload = workload(args, planted);
    println!("seed {seed:x}: {}", Options::swarm_of(seed, workload));
    let task = Task {
        seed,
        workload,
        planted,
        trace: args.trace,
    };
    let (report, history) = run(task);
    if let Some(path) = &args.history {
        let written = std::fs::File::create(path).and_then(|file| history.write_to(&mut std::io::BufWriter::new(file)));
        if let Err(error) = written {
            eprintln!("write {}: {error}", path.display());
            return false;
        }
    }
    println!(
        "hash {:016x} virtual {:.1}s {}",
        report.hash,
        report.virtual_time.as_secs_f64(),
        report.counts
    );
    tell_failure(workload, &report);
    report.failure.is_none() != planted.is_some()
}

fn run_many(args: &Args, planted: Option<Bug>) -> bool {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let plan = Plan {
        start: args.start,
        seeds: args.seeds.unwrap_or(if planted.is_some() { 500 } else { 100 }),
        jobs: args.jobs.unwrap_or(cores),
        workload: workload(args, planted),
        planted,
        twice: args.twice,
    };
    let workload = plan.workload;
    let began = base::MonoTime::now();
    let summary = campaign(plan, move |report| tell_failure(workload, report));
    let real = base::MonoTime::now().since(began);
    let seconds = |span: Duration| format!("{:.1}s", span.as_secs_f64());
    println!(
        "seeds {} virtual {} real {} cores {} ratio {:.0}x per core",
        summary.runs,
        seconds(summary.virtual_time),
        seconds(real),
        plan.jobs,
        summary.speed()
    );
    println!("counts {}", summary.counts);
    let (lines, met) = goals(&plan, &summary);
    lines.iter().for_each(|line| println!("{line}"));
    met
}

fn tell_failure(workload: Workload, report: &Report) {
    if let Some(failure) = &report.failure {
        let (seed, name) = (report.seed, workload.name());
        println!(
            "seed {seed:x} failed at step {}: {}; run: cargo xtask sim {name} --seed {seed:x}",
            failure.step, failure.what
        );
    }
}
