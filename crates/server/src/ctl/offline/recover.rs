//! `offline unsafe-recover`: regions that lost most of their voters go on with one replica that is left; and what is left to do by hand
//! where that does not help.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use base::{RegionId, StoreId};
use proto::metapb::{Peer, Region};
use raftstore::offline::Facts;
use raftstore::region;
use raftstore::rescue::{Choice, Plan, Rescue, RescueError, Step, plan};
use serde_json::json;

use super::report::{Report, told};
use super::{Disk, border};
use crate::ctl::output::{Field, Output};
use crate::ctl::text::Form;

/// Looks at the disks after each change: more than this are not needed, as each region applies its log once and changes once.
const ROUNDS_MAX: usize = 16;

/// Let regions go on that lost most of their voters for good, each with the replica whose log is the highest of those left. Writes that
/// only the lost stores had are gone. Tells what it would do; --yes does it.
#[derive(Debug, clap::Args)]
pub struct RecoverArgs {
    #[command(flatten)]
    loss: Loss,
    /// What `ferrite ctl offline report` printed for the stores that are left on other machines.
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    reports: Vec<PathBuf>,
    /// Data directories of the stores that are left on this machine.
    #[arg(required = true)]
    data_dirs: Vec<PathBuf>,
}

/// Who is lost, and what is done about it: on the disks of stores that do not run as in a cluster that runs.
#[derive(Debug, clap::Args)]
pub struct Loss {
    /// Ids of stores that will never come back. In a cluster that runs they must have been silent for 20 s.
    #[arg(long, value_name = "ID", value_delimiter = ',', required = true)]
    pub lost_stores: Vec<u64>,
    /// Regions that stand still to be merged go on, even if nothing is known of the region that was to take them over.
    #[arg(long)]
    give_up_merges: bool,
    /// Regions to leave as they are.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    leave_out: Vec<u64>,
    /// Really do it.
    #[arg(long)]
    pub yes: bool,
}

impl Loss {
    /// The stores that are lost.
    pub fn stores(&self) -> BTreeSet<StoreId> {
        self.lost_stores.iter().copied().map(StoreId).collect()
    }

    /// What is to be done, by what the stores that are left tell.
    pub fn plan(&self, left: &[(StoreId, Vec<Facts>)]) -> anyhow::Result<Plan> {
        let mut plan = plan(left, &self.stores(), self.give_up_merges)?;
        plan.steps.retain(|step| !self.leave_out.contains(&step.best.region.id));
        Ok(plan)
    }
}

/// Destroy a store's replica of a region that stands in the way: its data, then its log.
#[derive(Debug, clap::Args)]
pub struct DestroyArgs {
    data_dir: PathBuf,
    id: u64,
    /// Really do it.
    #[arg(long)]
    yes: bool,
}

/// Make an empty region on a store, for a range that nobody holds any more.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    data_dir: PathBuf,
    /// Id of the region that is gone: `ferrite ctl region` lists it still.
    id: u64,
    /// Where it begins, as `ferrite ctl region` prints it; without, at the first key.
    #[arg(long, value_name = "KEY", default_value = "")]
    start: String,
    /// Where it ends; without, behind the last key.
    #[arg(long, value_name = "KEY", default_value = "")]
    end: String,
    /// Really do it.
    #[arg(long)]
    yes: bool,
}

/// All that is left, here and on other machines.
struct Survivors {
    here: Vec<Disk>,
    elsewhere: Vec<(StoreId, Vec<Facts>)>,
}

impl Survivors {
    fn open(args: &RecoverArgs, open: impl Fn(&Path) -> anyhow::Result<Disk>) -> anyhow::Result<Survivors> {
        let here = args
            .data_dirs
            .iter()
            .map(|dir| open(dir))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let cluster = here.first().context("no data directory is given")?.cluster;
        if here.iter().any(|disk| disk.cluster != cluster) {
            bail!("the stores belong to different clusters");
        }
        let mut elsewhere = Vec::new();
        for path in &args.reports {
            let report = Report::read(path)?;
            if report.cluster != cluster.0 {
                bail!("report {} is of another cluster", path.display());
            }
            let (store, facts) = (StoreId(report.store), report.facts()?);
            match here.iter().find(|disk| disk.id == store) {
                Some(disk) if told(disk.facts()?) != facts => {
                    bail!("the report of store {store} is out of date: make it anew, and repeat this with it on every machine");
                }
                Some(_) => {}
                None => elsewhere.push((store, facts)),
            }
        }
        Ok(Survivors { here, elsewhere })
    }

    fn plan(&self, args: &RecoverArgs) -> anyhow::Result<Plan> {
        let mut stores = self.elsewhere.clone();
        for disk in &self.here {
            stores.push((disk.id, disk.facts()?));
        }
        args.loss.plan(&stores)
    }
}

/// Runs `unsafe-recover`; whether nothing is left to do.
pub fn recover(
    out: &mut Output<impl Write>,
    args: &RecoverArgs,
    open: impl Fn(&Path) -> anyhow::Result<Disk>,
) -> anyhow::Result<bool> {
    let survivors = Survivors::open(args, open)?;
    let first = survivors.plan(args)?;
    out.table(first.steps.iter().map(|step| row(step, out.form)).collect())?;
    tell(&first, out.form);
    if first.steps.is_empty() {
        return Ok(true);
    }
    if !args.loss.yes {
        eprintln!("nothing was changed: say --yes to do it");
        return Ok(true);
    }
    let mut failed = BTreeSet::new();
    for _ in 0..ROUNDS_MAX {
        let mut plan = survivors.plan(args)?;
        plan.steps.retain(|step| !failed.contains(&step.best.id()));
        let waits = plan.steps.iter().any(|step| matches!(step.choice, Choice::ApplyLog { .. }));
        // A log may divide a region: how regions lie is known only once all logs are applied.
        plan.steps
            .retain(|step| !waits || matches!(step.choice, Choice::ApplyLog { .. }));
        if !carry_out(&survivors, &plan, &mut failed)? {
            return Ok(farewell(&survivors.plan(args)?, out.form));
        }
    }
    bail!("still not done after {ROUNDS_MAX} rounds; `ferrite ctl offline check` tells what is there")
}

/// Does what the plan wants of the stores that are here; whether anything was done.
fn carry_out(survivors: &Survivors, plan: &Plan, failed: &mut BTreeSet<RegionId>) -> anyhow::Result<bool> {
    let mut changed = false;
    for disk in &survivors.here {
        let mine = |step: &&Step| matches!(step.choice, Choice::ApplyLog { store } | Choice::OnlyVoter { store, .. } if store == disk.id);
        let steps: Vec<&Step> = plan.steps.iter().filter(mine).collect();
        if steps.is_empty() {
            continue;
        }
        let mut rescue = disk.rescue()?;
        for step in steps {
            let id = step.best.id();
            match carry_out_one(&mut rescue, step) {
                Ok(told) => {
                    eprintln!("region {id} on store {}: {told}", disk.id);
                    changed = true;
                }
                Err(RescueError::Refused { reason, .. }) => {
                    eprintln!("region {id} on store {}: refused: {reason}", disk.id);
                    failed.insert(id);
                    changed = true;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(changed)
}

fn carry_out_one(rescue: &mut Rescue, step: &Step) -> Result<String, RescueError> {
    let id = step.best.id();
    match step.choice {
        Choice::OnlyVoter { above, rolls_back, .. } => {
            let region = rescue.make_only_voter(id, above, rolls_back)?;
            let epoch = region::epoch(&region);
            Ok(format!(
                "is the only voter, of version {} and conf_ver {}",
                epoch.version, epoch.conf_ver
            ))
        }
        Choice::ApplyLog { .. } => Ok(format!("applied its log up to entry {}", rescue.apply_log(id)?)),
        Choice::Refused(_) => Ok("left as it is".to_owned()),
    }
}

pub(in crate::ctl) fn row(step: &Step, form: Form) -> Vec<Field> {
    let (best, ids) = (&step.best, |stores: &[StoreId]| {
        json!(stores.iter().map(|store| store.0).collect::<Vec<_>>())
    });
    let (action, reason) = match &step.choice {
        Choice::ApplyLog { .. } => ("apply its log, then look again", None),
        Choice::OnlyVoter { rolls_back: true, .. } => ("give its merge up, make it the only voter", None),
        Choice::OnlyVoter { .. } => ("make it the only voter", None),
        Choice::Refused(reason) => ("none", Some(reason.as_str())),
    };
    vec![
        ("region", best.region.id.into()),
        ("start", border(form, &best.region.start_key)),
        ("end", border(form, &best.region.end_key)),
        ("store", best.store.0.into()),
        ("last_term", best.log.last.term.into()),
        ("last", best.log.last.index.into()),
        ("unconfirmed", step.doubtful_entries().into()),
        ("lost", ids(&step.lost)),
        ("gives_way", ids(&step.others)),
        ("action", action.into()),
        ("reason", json!(reason)),
    ]
}

/// What the table does not say.
pub(in crate::ctl) fn tell(plan: &Plan, form: Form) {
    eprintln!(
        "{} regions keep a majority of their voters, {} do not",
        plan.healthy,
        plan.steps.len()
    );
    if !plan.steps.is_empty() {
        eprintln!(
            "what only the lost stores had is gone; `unconfirmed` entries count as committed from here on, though perhaps nobody was told so"
        );
    }
    for (start, end) in &plan.holes {
        let text = |key: &[u8], without: &str| if key.is_empty() { without.to_owned() } else { form.print(key) };
        eprintln!(
            "none of the given stores holds anything from {} to {}",
            text(start, "the first key"),
            text(end, "behind the last key")
        );
    }
}

/// What is left once nothing more can be done here; whether that is nothing.
fn farewell(left: &Plan, form: Form) -> bool {
    for step in &left.steps {
        let what = match &step.choice {
            Choice::Refused(reason) => reason.clone(),
            Choice::ApplyLog { store } | Choice::OnlyVoter { store, .. } => {
                format!("is to be done where store {store} is; then make all reports anew and repeat this on every machine")
            }
        };
        eprintln!("region {}: {what}", step.best.id());
    }
    tell(left, form);
    if left.steps.is_empty() && left.holes.is_empty() {
        eprintln!("done: start the stores, take the lost ones out with `ferrite ctl store remove ID --yes`, and add new ones");
    }
    left.steps.is_empty() && left.holes.is_empty()
}

impl Disk {
    fn rescue(&self) -> Result<Rescue, RescueError> {
        Rescue::open(self.id, self.engine(), self.log(), self.snapshots.clone())
    }
}

/// Runs `destroy-region`.
pub fn destroy(args: &DestroyArgs, open: impl Fn(&Path) -> anyhow::Result<Disk>) -> anyhow::Result<bool> {
    let (disk, id) = (open(&args.data_dir)?, RegionId(args.id));
    let facts = disk
        .facts()?
        .into_iter()
        .find(|facts| facts.id() == id && facts.state.holds_range());
    let Some(facts) = facts else {
        eprintln!("the store has no data of region {id}");
        return Ok(false);
    };
    if !args.yes {
        bail!(
            "this destroys store {}'s replica of region {id} with all its data: say --yes to do it",
            disk.id
        );
    }
    disk.rescue()?.destroy(&facts)?;
    eprintln!("store {}'s replica of region {id} is destroyed", disk.id);
    Ok(true)
}

/// Runs `create-region`.
pub fn create(form: Form, args: &CreateArgs, open: impl Fn(&Path) -> anyhow::Result<Disk>) -> anyhow::Result<bool> {
    let disk = open(&args.data_dir)?;
    let region = Region {
        id: args.id,
        start_key: form.parse(&args.start)?,
        end_key: form.parse(&args.end)?,
        peers: vec![Peer {
            // The placement driver gave this number out once, so no other peer of the region will ever have it.
            id: disk.id.0,
            store_id: disk.id.0,
            ..Peer::default()
        }],
        ..Region::default()
    };
    if !args.yes {
        bail!(
            "this makes an empty region on store {}; if its data is anywhere, that is lost: say --yes to do it",
            disk.id
        );
    }
    let made = disk.rescue()?.create(region, &disk.facts()?)?;
    let epoch = region::epoch(&made);
    eprintln!(
        "store {} holds region {}, empty, of version {} and conf_ver {}",
        disk.id, made.id, epoch.version, epoch.conf_ver
    );
    Ok(true)
}
