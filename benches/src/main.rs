//! `ferrite-bench`: the demo and whole-system benchmarks, started by `cargo xtask demo` and `cargo xtask bench`.
//!
//! Each ends with a line per goal and exits 1 if one is missed, 2 if it could not be measured.

mod clients;
mod demo;
mod engine;
mod idle;
mod kv;
mod report;
mod tso;
mod txn;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "ferrite-bench", version, about = "Whole-system benchmarks of Ferrite")]
enum Bench {
    /// Each engine alone: loads, synced batches, gets, seeks, scans, memory, disk.
    Engine(engine::Args),
    /// Start, idle size, put and get under load and fail-over, beside a bare echo, etcd and the disk's floor.
    Kv(kv::Args),
    /// Transactions of one and two keys in each way of committing, beside etcd's.
    Txn(txn::Args),
    /// Timestamps a second, of one placement driver and of three.
    Tso(tso::Args),
    /// What thousands of regions cost while nobody uses them.
    Idle(idle::Args),
    /// A call's cost in each language beside the Rust core, and that beside the registry's tikv-client.
    Clients(clients::Args),
    Demo(demo::Args),
    /// The bare echo server that `kv` measures against: answers raw gets and puts at once.
    #[command(hide = true)]
    Echo(kv::echo::Args),
    /// The load of `tikv-client` that `clients` measures.
    #[command(hide = true)]
    TikvClientLoad(conformance::load::Args),
}

fn main() -> ExitCode {
    let done = match Bench::parse() {
        Bench::Engine(args) => engine::run(&args),
        Bench::Kv(args) => kv::run(&args),
        Bench::Txn(args) => txn::run(&args),
        Bench::Tso(args) => tso::run(&args),
        Bench::Idle(args) => idle::run(&args),
        Bench::Clients(args) => clients::run(&args),
        Bench::Demo(args) => demo::run(&args).map(|()| true),
        Bench::TikvClientLoad(args) => clients::tikv_client_load(&args).map(|()| true),
        Bench::Echo(args) => kv::echo::serve(&args).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("ferrite-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}
