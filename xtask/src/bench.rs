//! `bench`: figures of the whole system, from optimised builds.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::bindings::{self, Language};
use crate::stage::{self, Outcome, Report};
use crate::system;
use crate::workspace::{self, Profile};

/// Measure the whole system: builds `ferrite` and `ferrite-bench` optimised and runs one benchmark.
///
///   cargo xtask bench engine    each engine: loads, synced batches, reads, memory, disk
///   cargo xtask bench kv        the whole system, beside a bare echo and etcd
///   cargo xtask bench build-cache   the build cache beside nginx (with dav-ext; wrk, zstd)
///   cargo xtask bench placement     the placement driver with 100 stores and 1,000,000 regions that do nothing but what it says
///   cargo xtask bench tso       timestamps a second, of one placement driver and of three
///   cargo xtask bench idle      what 1 to 30,000 regions cost while nobody uses them, and a restart with them
///   cargo xtask bench cache-proxy   the cache proxy beside nutcracker and no proxy (with redis-server, memcached, strace)
///   cargo xtask bench thumbnails    pictures beside sharp, vipsthumbnail and oximg, with SSIM; parts: images, load, soak, allocators
///   cargo xtask bench clients   a call's cost in each language beside the Rust core, and that beside the registry's tikv-client
///   cargo xtask bench txn       transactions in each way of committing, beside etcd's
///
/// What follows the name goes to the benchmark; `cargo xtask bench kv --help` lists its options.
/// Each ends with a line per goal (`goal put_vs_etcd_64: 3.4 (wanted >= 3.0): met`) and exits 1 if
/// one is missed. Other work on the machine spoils the figures.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name of the benchmark and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    bench: Vec<String>,
}

pub fn run(args: &Args) -> Result<bool> {
    let mut report = Report::new("bench");
    if let Some(service) = SERVICES.iter().find(|service| **service == args.bench[0]) {
        system::ensure_bench(service)?;
        report.stage("bench", || script(service, &args.bench[1..]));
        return Ok(report.finish());
    }
    if args.bench[0] == "placement" {
        report.stage("bench", || placement(&args.bench[1..]));
        return Ok(report.finish());
    }
    if args.bench[0] == "clients" {
        return clients(report, &args.bench);
    }
    system::ensure()?;
    report.stage("bench", || {
        stage::must(&mut workspace::build(Profile::Release, &["ferrite-server", "ferrite-bench"]))?;
        bench(&args.bench)
    });
    Ok(report.finish())
}

/// Clients are programs of their own, which `ferrite-bench` is told how to start.
fn clients(mut report: Report, arguments: &[String]) -> Result<bool> {
    let is_built = bindings::build(&mut report, Profile::Release, &Language::ALL)?;
    let core = workspace::binary(Profile::Release, "ferrite-conformance");
    let mut arguments = arguments.to_vec();
    arguments.extend(["--runner".into(), format!("rust={} load", core.display())]);
    arguments.extend(bindings::runners(Profile::Release, &Language::ALL, "load"));
    if is_built {
        report.stage("bench", || bench(&arguments));
    }
    Ok(report.finish())
}

/// The placement driver alone, over a world of stores: an example of its crate, so that nothing else has to be built.
fn placement(arguments: &[String]) -> Result<Outcome> {
    let mut command = workspace::cargo(&[
        "run",
        "--locked",
        "--release",
        "-p",
        "ferrite-pd",
        "--example",
        "placement",
        "--",
    ]);
    stage::run(command.args(arguments))
}

/// Runs `ferrite-bench`, which finds `ferrite` through the environment.
fn bench(arguments: &[String]) -> Result<Outcome> {
    let mut command = Command::new(workspace::binary(Profile::Release, "ferrite-bench"));
    command.args(arguments).current_dir(workspace::root());
    command.env("FERRITE_BIN", workspace::binary(Profile::Release, "ferrite"));
    stage::run(&mut without_pacing(command)?)
}

/// The congestion control that sockets begin with.
const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// The same command in a network of its own where this machine's sockets pace (BBR). Over loopback those send from timers, and the system books
/// that work to whom a timer interrupts: rates fall, and CPU is told of the wrong process.
fn without_pacing(command: Command) -> Result<Command> {
    let paces = std::fs::read_to_string(CONGESTION).is_ok_and(|name| name.trim() == "bbr");
    if !paces {
        return Ok(command);
    }
    if !system::is_root() {
        println!(
            "this machine's sockets pace (bbr), which spoils figures over loopback: root could run the bench in a network without"
        );
        return Ok(command);
    }
    let script =
        format!("ip link set lo up && {{ echo cubic >{CONGESTION} || echo reno >{CONGESTION}; }} 2>/dev/null; exec \"$@\"");
    let mut wrapped = Command::new("unshare");
    wrapped.args(["--net", "sh", "-c", &script, "sh"]);
    wrapped.arg(command.get_program()).args(command.get_args());
    wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    Ok(wrapped)
}

/// Benches of services drive processes of others and read their CPU time: scripts, which get the path of our binary.
const SERVICES: [&str; 3] = ["build-cache", "cache-proxy", "thumbnails"];

fn script(service: &str, arguments: &[String]) -> Result<Outcome> {
    let package = format!("ferrite-{service}");
    let is_of_allocators = service == "thumbnails" && arguments.iter().any(|part| part == "allocators");
    let mimalloc = is_of_allocators.then(|| with_mimalloc(&package)).transpose()?;
    stage::must(&mut workspace::build(Profile::Release, &[&package]))?;
    let mut command = Command::new("python3");
    command.arg(workspace::root().join("services").join(service).join("bench.py"));
    command.arg(workspace::binary(Profile::Release, &package)).args(arguments);
    if service == "thumbnails" {
        command.envs(rivals_of_thumbnails()?);
    }
    if let Some(binary) = mimalloc {
        command.env("MIMALLOC_BIN", binary);
    }
    // The build cache's has a choice of its own, to show the difference.
    if service != "build-cache" {
        command = without_pacing(command)?;
    }
    stage::run(&mut command)
}

/// A build with the other allocator, kept under a name of its own.
fn with_mimalloc(package: &str) -> Result<PathBuf> {
    stage::must(workspace::build(Profile::Release, &[package]).args(["--features", "mimalloc"]))?;
    let (built, kept) = (workspace::binary(Profile::Release, package), format!("{package}-mimalloc"));
    let kept = built.with_file_name(kept);
    std::fs::copy(built, &kept)?;
    Ok(kept)
}

/// Brings what registries have and Debian has not; the variables that tell where it is.
fn rivals_of_thumbnails() -> Result<Vec<(String, String)>> {
    let mut command = Command::new(workspace::root().join("services/thumbnails/bench-install.sh"));
    let got = command
        .arg(workspace::cache().join("tools/thumbnails"))
        .stderr(Stdio::inherit())
        .output()?;
    anyhow::ensure!(got.status.success(), "services/thumbnails/bench-install.sh failed: see above");
    let told = String::from_utf8(got.stdout)?;
    let pairs = told.lines().filter_map(|line| line.split_once('='));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}
