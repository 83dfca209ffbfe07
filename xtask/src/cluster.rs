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
    /// Clients move money between accounts while a random store or the placement driver is killed, again and again: no money
    /// may be lost, and no lock may stay.
    Bank {
        /// How long, in seconds.
        #[arg(long, default_value_t = 600)]
        seconds: u32,
        /// Time from one kill to the next.
        #[arg(long, default_value_t = 10_000)]
        kill_every_ms: u32,
        /// Build without optimisation, as the tests do.
        #[arg(long)]
        dev: bool,
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
    let (name, dev, variables) = match &args.chaos {
        Chaos::Kill9 { kills, common } => ("kill9", common.dev, common.variables("FERRITE_CHAOS_KILLS", *kills)),
        Chaos::PowerCut { cuts, common } => ("power_cut", common.dev, common.variables("FERRITE_CHAOS_CUTS", *cuts)),
        Chaos::DiskFull { times, common } => ("disk_full", common.dev, common.variables("FERRITE_CHAOS_FULL", *times)),
        Chaos::Bank {
            seconds,
            kill_every_ms,
            dev,
        } => {
            let seconds = ("FERRITE_CHAOS_BANK_SECONDS", u64::from(*seconds));
            (
                "bank::bank",
                *dev,
                [seconds, ("FERRITE_CHAOS_BANK_KILL_EVERY_MS", u64::from(*kill_every_ms))],
            )
        }
    };
    let mut test = workspace::cargo(&["test", "--locked", "--package", "ferrite-server", "--test", "chaos"]);
    if !dev {
        test.arg("--release");
    }
    test.args(["--", "--exact", "--include-ignored", "--nocapture", name]);
    test.envs(variables.map(|(variable, value)| (variable, value.to_string())));
    let mut report = Report::new("cluster");
    report.command(name, &mut test);
    Ok(report.finish())
}

impl Common {
    /// What the tests are told through the environment.
    fn variables(&self, variable: &'static str, count: u32) -> [(&'static str, u64); 2] {
        [(variable, count.into()), ("FERRITE_CHAOS_PRELOAD_MIB", self.preload_mib)]
    }
}
