//! `offline`: the data directory of a store that does not run. Shows its regions, checks and compares them, and lets regions go on that
//! lost most of their voters for good ([`raftstore::rescue`]).

pub(super) mod recover;
mod report;
mod show;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use base::{ByteSize, ClusterId, RegionId, StoreId};
use engine::{Engine, FjallEngine};
use raftstore::log::{EngineLog, RaftLog};
use raftstore::offline::{self, Facts};
use raftstore::snapshot::FileSnapshots;
use raftstore::store;
use serde_json::{Value, json};

use super::output::Output;
use super::text::Form;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  ferrite ctl offline regions store-1                     what the store in ./store-1 holds
  ferrite ctl offline check store-1                       whether its records agree with each other
  ferrite ctl offline digest store-1 > 1                  to be compared with those of other stores
  ferrite ctl offline unsafe-recover --lost-stores 4,5 store-1 store-2        what would be done
  ferrite ctl offline unsafe-recover --lost-stores 4,5 --yes store-1 store-2  do it

A data directory is what --data-dir of `ferrite server` names. Its store must not run. docs/scaling.md has the steps.";

/// Look into the data directory of a store that does not run, and repair it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct OfflineArgs {
    /// Configuration file of the store, if it sets [engine] or [raft-log].
    #[arg(long, value_name = "FILE", env = "FERRITE_CONFIG", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// List the regions: range, epoch, peers, how far applied, and what the raft log holds.
    Regions {
        data_dir: PathBuf,
    },
    /// Show all that is known of a region; exit code 1 if there is nothing.
    Region {
        data_dir: PathBuf,
        id: u64,
    },
    /// Check every region: log against state, entries without a gap, own peer a member, ranges apart. Exit code 1 if there is a fault.
    Check {
        data_dir: PathBuf,
    },
    /// Print a digest of each region's data: equal on all stores at the same applied index.
    Digest {
        data_dir: PathBuf,
        /// Of this region alone.
        #[arg(long)]
        region: Option<u64>,
    },
    /// Compare the regions that two stores have in common; exit code 1 if data differs at the same applied index.
    Compare {
        data_dir: PathBuf,
        other: PathBuf,
        /// This region alone.
        #[arg(long)]
        region: Option<u64>,
    },
    /// Print what other machines must know of this store for `unsafe-recover --reports`.
    Report {
        data_dir: PathBuf,
    },
    UnsafeRecover(recover::RecoverArgs),
    DestroyRegion(recover::DestroyArgs),
    CreateRegion(recover::CreateArgs),
}

/// Runs the command.
pub fn run(out: &mut Output<impl Write>, args: &OfflineArgs) -> anyhow::Result<bool> {
    let config = match &args.config {
        Some(path) => Config::load(path)?,
        None => Config::default(),
    };
    let open = |dir: &Path| Disk::open(dir, &config);
    match &args.act {
        Act::Regions { data_dir } => show::regions(&open(data_dir)?, out),
        Act::Region { data_dir, id } => show::region(&open(data_dir)?, out, RegionId(*id)),
        Act::Check { data_dir } => show::check(&open(data_dir)?, out),
        Act::Digest { data_dir, region } => show::digests(&open(data_dir)?, out, region.map(RegionId)),
        Act::Compare { data_dir, other, region } => show::compare(&open(data_dir)?, &open(other)?, out, region.map(RegionId)),
        Act::Report { data_dir } => report::print(&open(data_dir)?),
        Act::UnsafeRecover(args) => recover::recover(out, args, open),
        Act::DestroyRegion(args) => recover::destroy(args, open),
        Act::CreateRegion(args) => recover::create(out.form, args, open),
    }
}

/// What a store keeps on disk, held so that the store cannot start meanwhile.
pub(super) struct Disk {
    cluster: ClusterId,
    id: StoreId,
    engine: Arc<FjallEngine>,
    log: Arc<EngineLog>,
    snapshots: Arc<FileSnapshots>,
    /// Given up last.
    _held: DataDir,
}

impl Disk {
    fn open(dir: &Path, config: &Config) -> anyhow::Result<Disk> {
        let data = dir.join("store");
        if !data.join("engine").is_dir() {
            bail!(
                "{} is no data directory of a store: wanted what --data-dir of `ferrite server` names",
                dir.display()
            );
        }
        let held = DataDir::open(dir, ByteSize(0)).map_err(|failure| match failure {
            Failure::DirLocked { .. } => anyhow::Error::from(failure).context("the store runs: stop it first"),
            failure => failure.into(),
        })?;
        let engine = Arc::new(FjallEngine::open(&data.join("engine"), &config.engine)?);
        let log = Arc::new(EngineLog::open(
            &data.join("raft-log"),
            &config.raft_log,
            Box::new(end_process),
        )?);
        let snapshots = FileSnapshots::open(&data.join("snapshots")).context("open raft snapshots")?;
        let ident = store::read_ident(&*engine)?;
        let ident = ident.with_context(|| format!("the store in {} never joined a cluster", dir.display()))?;
        Ok(Disk {
            cluster: ClusterId(ident.cluster_id),
            id: StoreId(ident.store_id),
            engine,
            log,
            snapshots: Arc::new(snapshots),
            _held: held,
        })
    }

    fn facts(&self) -> anyhow::Result<Vec<Facts>> {
        Ok(offline::read(self.id, &*self.engine, &*self.log)?)
    }

    fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone()
    }

    fn log(&self) -> Arc<dyn RaftLog> {
        self.log.clone()
    }
}

/// What a failed sync has written is not known: the next start finds out.
fn end_process(error: &raftstore::log::Error) {
    eprintln!("ferrite: {}", base::log::chain(error));
    std::process::exit(2);
}

fn border(form: Form, key: &[u8]) -> Value {
    if key.is_empty() { Value::Null } else { form.print(key).into() }
}

/// The stores of some peers.
fn stores<'a>(peers: impl Iterator<Item = &'a proto::metapb::Peer>) -> Value {
    json!(peers.map(|peer| peer.store_id).collect::<Vec<_>>())
}
