//! `cluster`: chaos on real processes, real files, real power cuts and full disks.

use anyhow::Result;
use clap::Subcommand;

use crate::stage::Report;
use crate::system;
use crate::workspace;

/// Chaos on real processes: `kill -9`, power cuts and full disks under load, then every acknowledged
/// write must be there.
///
/// These are the long runs of the tests in `crates/server/tests/chaos`; their short forms are part
/// of `cargo xtask test`. Each prints what it did and ends with a line per goal; exit code 1 if a
/// write was lost or a goal missed.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(subcommand)]
    chaos: Chaos,
}

#[derive(Subcommand)]
enum Chaos {
    /// Kill a store's process with SIGKILL under load, again and again.
    Kill9 {
        /// How many kills.
        #[arg(long, default_value_t = 100)]
        kills: u32,
        #[command(flatten)]
        common: Common,
    },
    /// Cut the power of a store's disk under load: an ext4 image on a loop device, shut down without flushing its journal.
    ///
    /// Wants root and loop devices; says so and fails where it cannot have them.
    PowerCut {
        /// How many cuts.
        #[arg(long, default_value_t = 50)]
        cuts: u32,
        #[command(flatten)]
        common: Common,
    },
    /// Fill a store's disk under load: it must end with one clear line, and go on once there is room again.
    ///
    /// Wants root and loop devices; says so and fails where it cannot have them.
    DiskFull {
        /// How often.
        #[arg(long, default_value_t = 20)]
        times: u32,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(clap::Args)]
struct Common {
    /// Data loaded ahead of the first fault, in MiB.
    #[arg(long, default_value_t = 0)]
    preload_mib: u64,
    /// Build without optimisation, as the tests do.
    #[arg(long)]
    dev: bool,
}

pub fn run(args: &Args) -> Result<bool> {
    system::ensure()?;
    let (name, variable, count, common) = match &args.chaos {
        Chaos::Kill9 { kills, common } => ("kill9", "FERRITE_CHAOS_KILLS", kills, common),
        Chaos::PowerCut { cuts, common } => ("power_cut", "FERRITE_CHAOS_CUTS", cuts, common),
        Chaos::DiskFull { times, common } => ("disk_full", "FERRITE_CHAOS_FULL", times, common),
    };
    let mut test = workspace::cargo(&["test", "--locked", "--package", "ferrite-server", "--test", "chaos"]);
    if !common.dev {
        test.arg("--release");
    }
    test.args(["--", "--exact", "--nocapture", name]);
    test.env(variable, count.to_string())
        .env("FERRITE_CHAOS_PRELOAD_MIB", common.preload_mib.to_string());
    let mut report = Report::new("cluster");
    report.command(name, &mut test);
    Ok(report.finish())
}
