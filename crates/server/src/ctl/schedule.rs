//! `scheduler`, `operator`, `store drain`: how regions are spread over stores.

use std::io::Write;
use std::time::Duration;

use anyhow::bail;
use base::MonoTime;
use client::RawClient;
use proto::ferrite_pd::schedule::Kind;
use proto::ferrite_pd::{LocationLabels, OperatorsRequest, Schedule, ScheduleRequest};

use super::member::{leader, passes};
use super::output::Output;

/// Between two tries while no member leads.
const PAUSE: Duration = Duration::from_millis(100);

/// List the stores, show one, or have one emptied.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct StoreArgs {
    pub id: Option<u64>,
    #[command(subcommand)]
    pub act: Option<StoreAct>,
}

#[derive(Debug, clap::Subcommand)]
pub enum StoreAct {
    /// Move everything off a store; it is removed for good once it is empty. Needs as many other stores as regions have copies.
    Drain { id: u64 },
    /// A store that is being drained stays after all.
    Keep { id: u64 },
}

impl StoreAct {
    pub fn change(&self) -> Kind {
        match self {
            StoreAct::Drain { id } => Kind::DrainStore(*id),
            StoreAct::Keep { id } => Kind::KeepStore(*id),
        }
    }
}

/// Change how regions are spread over stores.
#[derive(Debug, clap::Subcommand)]
pub enum SchedulerAct {
    /// A store is to lead no region, as before its restart.
    EvictLeaders { store: u64 },
    /// A store may lead again.
    AdmitLeaders { store: u64 },
    /// Whether regions and leaders are moved to even out stores: `on` (the default) or `off`.
    Balance { state: Switch },
    /// Labels of stores that tell where they stand, from the largest unit to the smallest, such as `zone,host`: copies of a region are kept
    /// apart by them.
    LocationLabels {
        #[arg(value_delimiter = ',')]
        keys: Vec<String>,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Switch {
    On,
    Off,
}

impl SchedulerAct {
    pub fn change(&self) -> Kind {
        match self {
            SchedulerAct::EvictLeaders { store } => Kind::EvictLeaders(*store),
            SchedulerAct::AdmitLeaders { store } => Kind::AdmitLeaders(*store),
            SchedulerAct::Balance { state } => Kind::Balance(matches!(state, Switch::On)),
            SchedulerAct::LocationLabels { keys } => Kind::LocationLabels(LocationLabels { keys: keys.clone() }),
        }
    }
}

/// Makes a change of scheduling, within `time`.
pub async fn change(client: &RawClient, kind: Kind, time: Duration) -> anyhow::Result<bool> {
    let (cluster_id, deadline) = (client.pd().cluster_id(), MonoTime::now() + time);
    while MonoTime::now() < deadline {
        if let Some((mut link, _)) = leader(client).await? {
            let change = Some(Schedule {
                kind: Some(kind.clone()),
            });
            if passes(link.change_schedule(ScheduleRequest { cluster_id, change }).await)? {
                return Ok(true);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("no placement driver leads; see `ferrite ctl member`")
}

/// Lists the orders to regions that stand.
pub async fn operators(client: &RawClient, out: &mut Output<impl Write>) -> anyhow::Result<bool> {
    let Some((mut link, _)) = leader(client).await? else {
        bail!("no placement driver leads; see `ferrite ctl member`");
    };
    let cluster_id = client.pd().cluster_id();
    let standing = match link.get_operators(OperatorsRequest { cluster_id }).await {
        Ok(answer) => answer.into_inner().operators,
        Err(status) => bail!("{}", status.message()),
    };
    let rows = standing.into_iter().map(|order| {
        vec![
            ("region", order.region_id.into()),
            ("order", order.kind.into()),
            ("store", order.peer.map_or(0, |peer| peer.store_id).into()),
            ("age_seconds", order.age_seconds.into()),
        ]
    });
    out.table(rows.collect())?;
    Ok(true)
}
