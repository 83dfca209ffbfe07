//! `unsafe-recover`: regions that lost most of their voters go on, in a cluster that runs. Asks every store that is left, decides here, and
//! tells the stores; nothing is kept anywhere, so that it can be broken off and repeated.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use base::{MonoTime, RegionId, StoreId};
use client::RawClient;
use proto::ferrite_pd::schedule::Kind;
use proto::ferrite_rescue::rescue_client::RescueClient;
use proto::ferrite_rescue::{GoOnRequest, ReportRequest};
use proto::metapb::{Store, StoreState};
use raftstore::offline::Facts;
use raftstore::rescue::{Choice, Plan, Step};
use tonic::transport::Channel;

use super::offline::recover::{Loss, row, tell};
use super::output::Output;
use super::schedule;
use crate::rescue::from_wire;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// A look without anything new is repeated for so long: a region may have to notice first that its leader is gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// Let regions go on that lost most of their voters for good, each with the replica whose log is the highest of those left, while the
/// stores that are left run. Writes that only the lost stores had are gone. Tells what it would do; --yes does it, and removes the lost stores
/// for good.
#[derive(Debug, clap::Args)]
pub struct RescueArgs {
    #[command(flatten)]
    loss: Loss,
}

/// Runs the command; whether nothing is left to do.
pub async fn run(client: &RawClient, out: &mut Output<impl Write>, args: &RescueArgs, time: Duration) -> anyhow::Result<bool> {
    let work = Work { client, args, time };
    let first = work.plan().await?;
    out.table(first.steps.iter().map(|step| row(step, out.form)).collect())?;
    tell(&first, out.form);
    if !args.loss.yes {
        eprintln!("nothing was changed: say --yes to do it");
        return Ok(true);
    }
    work.remove_lost().await?;
    let (mut news, mut told) = (MonoTime::now(), BTreeMap::new());
    loop {
        let plan = work.plan().await?;
        if plan.steps.is_empty() {
            tell(&plan, out.form);
            eprintln!("done: the placement driver brings the regions back to their number of copies, as far as there are stores");
            return Ok(plan.holes.is_empty());
        }
        if work.carry_out(&plan, &mut told).await? {
            news = MonoTime::now();
        }
        let is_hopeless = plan.steps.iter().all(|step| matches!(step.choice, Choice::Refused(_)));
        let patience = if is_hopeless { PATIENCE / 12 } else { PATIENCE };
        if MonoTime::now().since(news) >= patience {
            told.iter()
                .for_each(|(region, reason)| eprintln!("region {region}: {reason}"));
            eprintln!("{} regions are left as they are", plan.steps.len());
            return Ok(false);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

struct Work<'a> {
    client: &'a RawClient,
    args: &'a RescueArgs,
    time: Duration,
}

impl Work<'_> {
    /// Removes the lost stores for good; those that were removed before are fine.
    async fn remove_lost(&self) -> anyhow::Result<()> {
        let known = self.client.pd().stores(false).await?;
        for store in self.args.loss.stores() {
            let known = known.iter().find(|one| one.id == store.0);
            let known = known.with_context(|| format!("there is no store {store}"))?;
            if known.state() != StoreState::Tombstone {
                let removed = schedule::change(self.client, Kind::LoseStore(store.0), self.time).await;
                removed.with_context(|| format!("remove store {store}"))?;
                eprintln!("store {store} is removed");
            }
        }
        Ok(())
    }

    /// What is to be done, by what all stores tell that are left.
    async fn plan(&self) -> anyhow::Result<Plan> {
        let lost = self.args.loss.stores();
        let all = self.client.pd().stores(true).await?;
        let mut stores = Vec::new();
        for store in all.iter().filter(|store| !lost.contains(&StoreId(store.id))) {
            let id = store.id;
            let facts = self.report(store).await;
            let facts = facts.with_context(|| format!("store {id} does not answer: name it as lost, or bring it back"))?;
            stores.push((StoreId(id), facts));
        }
        self.args.loss.plan(&stores)
    }

    async fn report(&self, store: &Store) -> anyhow::Result<Vec<Facts>> {
        let mut link = self.dial(store).await?;
        let (cluster_id, mut facts, mut after_region) = (self.client.pd().cluster_id(), Vec::new(), 0);
        loop {
            let request = ReportRequest {
                cluster_id,
                after_region,
            };
            let answer = tokio::time::timeout(self.time, link.report(request)).await??.into_inner();
            if answer.store_id != store.id {
                bail!("store {} answers in its place", answer.store_id);
            }
            let page = answer.regions.into_iter().map(|one| from_wire(StoreId(store.id), one));
            facts.extend(page);
            match facts
                .last()
                .map(|last: &Facts| last.region.id)
                .filter(|&last| last > after_region)
            {
                Some(last) => after_region = last,
                None => return Ok(facts),
            }
        }
    }

    async fn dial(&self, store: &Store) -> anyhow::Result<RescueClient<Channel>> {
        let dialer = self.client.pd().dialer();
        let endpoint = dialer.endpoint(&store.address)?.connect_timeout(super::CONNECT_TIMEOUT);
        Ok(RescueClient::new(dialer.connect(endpoint).await?))
    }

    /// Gives the orders of a plan; whether anything is new. What was refused is told once, and kept in `told`.
    async fn carry_out(&self, plan: &Plan, told: &mut BTreeMap<RegionId, String>) -> anyhow::Result<bool> {
        let all = self.client.pd().stores(true).await?;
        let waits = plan.steps.iter().any(|step| matches!(step.choice, Choice::ApplyLog { .. }));
        let mut is_new = false;
        for step in &plan.steps {
            let id = step.best.id();
            let outcome = match &step.choice {
                Choice::Refused(reason) => Err(reason.clone()),
                // A log may divide a region: how regions lie is known only once all logs are applied.
                Choice::OnlyVoter { .. } if waits => continue,
                Choice::ApplyLog { store } | Choice::OnlyVoter { store, .. } => {
                    let store = all
                        .iter()
                        .find(|one| one.id == store.0)
                        .context("a store is gone meanwhile")?;
                    self.order(store, step).await?
                }
            };
            match outcome {
                Ok(done) => {
                    eprintln!("region {id} on store {}: {done}", step.best.store);
                    told.remove(&id);
                    is_new = true;
                }
                Err(reason) => is_new |= told.insert(id, reason.clone()).as_ref() != Some(&reason),
            }
        }
        Ok(is_new)
    }

    async fn order(&self, store: &Store, step: &Step) -> anyhow::Result<Result<&'static str, String>> {
        let (above, rolls_back, done) = match step.choice {
            Choice::OnlyVoter { above, rolls_back, .. } => (Some(above), rolls_back, "is the only voter"),
            _ => (None, false, "applies its log"),
        };
        let request = GoOnRequest {
            cluster_id: self.client.pd().cluster_id(),
            region_id: step.best.region.id,
            lost_stores: self.args.loss.lost_stores.clone(),
            above,
            rolls_back,
        };
        let refused = self.dial(store).await?.go_on(request).await?.into_inner().refused;
        Ok(if refused.is_empty() { Ok(done) } else { Err(refused) })
    }
}
