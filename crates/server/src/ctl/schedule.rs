//! `scheduler`, `operator`, `hot`, `store drain`: how regions are spread over stores.

use std::future::Future;
use std::io::Write;
use std::time::Duration;

use anyhow::bail;
use base::{MonoTime, Span};
use client::RawClient;
use proto::ferrite_pd::add_operator_request::Kind as Order;
use proto::ferrite_pd::pd_peers_client::PdPeersClient;
use proto::ferrite_pd::schedule::Kind;
use proto::ferrite_pd::{
    AddOperatorRequest, HotRequest, LocationLabels, MovePeer, OperatorsRequest, RemoveOperatorRequest, Schedule, ScheduleRequest,
    Scheduler, SchedulerPause, SchedulerSwitch, SchedulingRequest, StoreLimit,
};
use serde_json::json;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::member::{leader, passes};
use super::output::Output;

/// Between two tries while no member leads.
const PAUSE: Duration = Duration::from_millis(100);

/// List the stores, show one, have one emptied or removed.
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
    /// A store whose data is lost is removed for good, with whatever it held. It must have been silent for 20 s. The regions that had a copy
    /// there get another elsewhere; one that lost most of its copies needs `ferrite ctl offline unsafe-recover`.
    Remove {
        id: u64,
        /// Really do it.
        #[arg(long)]
        yes: bool,
    },
    /// How many copies may be on their way to a store at a time: 4 unless told, and 0 makes it so again.
    Limit {
        /// Id, or `all` for stores without a limit of their own.
        store: String,
        copies: u32,
    },
}

impl StoreAct {
    pub fn change(&self) -> anyhow::Result<Kind> {
        Ok(match self {
            StoreAct::Drain { id } => Kind::DrainStore(*id),
            StoreAct::Keep { id } => Kind::KeepStore(*id),
            StoreAct::Remove { id, yes: true } => Kind::LoseStore(*id),
            StoreAct::Remove { id, .. } => bail!("store {id} can never come back after that: say --yes to do it"),
            StoreAct::Limit { store, copies } => {
                let store = match store.as_str() {
                    "all" => 0,
                    id => id
                        .parse()
                        .map_err(|_| anyhow::anyhow!("{id} is no store: wanted an id, or `all`"))?,
                };
                let arriving_max = *copies;
                Kind::StoreLimit(StoreLimit { store, arriving_max })
            }
        })
    }
}

/// Change how regions are spread over stores.
#[derive(Debug, clap::Subcommand)]
pub enum SchedulerAct {
    /// List the schedulers, and whether they run.
    List,
    /// Have a scheduler run.
    Add {
        scheduler: Name,
        /// For evict-leader and grant-leader.
        store: Option<u64>,
    },
    /// Have a scheduler run no more.
    Remove {
        scheduler: Name,
        /// For evict-leader and grant-leader.
        store: Option<u64>,
    },
    /// Let a scheduler rest for so long, such as 10m.
    Pause {
        scheduler: Name,
        #[arg(value_parser = str::parse::<Span>)]
        time: Span,
    },
    /// End a scheduler's pause.
    Resume { scheduler: Name },
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

/// A scheduler's name.
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
pub enum Name {
    BalanceLeader,
    BalanceRegion,
    HotRegion,
    MergeRegion,
    /// Moves leaders without need, for tests.
    ShuffleLeader,
    /// Moves copies without need, for tests.
    ShuffleRegion,
    /// A store leads nothing.
    EvictLeader,
    /// A store leads whatever it has a copy of.
    GrantLeader,
}

impl Name {
    /// The scheduler that can be switched; none for those of one store.
    fn scheduler(self) -> Option<Scheduler> {
        match self {
            Name::BalanceLeader => Some(Scheduler::BalanceLeader),
            Name::BalanceRegion => Some(Scheduler::BalanceRegion),
            Name::HotRegion => Some(Scheduler::HotRegion),
            Name::MergeRegion => Some(Scheduler::MergeRegion),
            Name::ShuffleLeader => Some(Scheduler::ShuffleLeader),
            Name::ShuffleRegion => Some(Scheduler::ShuffleRegion),
            Name::EvictLeader | Name::GrantLeader => None,
        }
    }
}

/// As `ctl` prints it, and takes it.
fn scheduler_name(scheduler: Scheduler) -> String {
    scheduler.as_str_name().to_lowercase().replace('_', "-")
}

fn switch(name: Name, store: Option<u64>, on: bool) -> anyhow::Result<Kind> {
    Ok(match (name.scheduler(), store) {
        (Some(scheduler), None) => Kind::Scheduler(SchedulerSwitch {
            scheduler: scheduler as i32,
            on,
        }),
        (Some(_), Some(_)) => bail!("this scheduler is of no store"),
        (None, None) => bail!("this scheduler needs a store"),
        (None, Some(store)) => match (name, on) {
            (Name::GrantLeader, true) => Kind::GrantLeaders(store),
            (Name::GrantLeader, false) => Kind::RevokeLeaders(store),
            (_, true) => Kind::EvictLeaders(store),
            (_, false) => Kind::AdmitLeaders(store),
        },
    })
}

fn pause(name: Name, for_seconds: u64) -> anyhow::Result<Kind> {
    let Some(scheduler) = name.scheduler() else {
        bail!("remove it for a while: it cannot be paused");
    };
    Ok(Kind::Pause(SchedulerPause {
        scheduler: scheduler as i32,
        for_seconds,
        until_seconds: 0,
    }))
}

impl SchedulerAct {
    /// What it changes; `None` if it only asks.
    fn change(&self) -> anyhow::Result<Option<Kind>> {
        Ok(Some(match self {
            SchedulerAct::List => return Ok(None),
            SchedulerAct::Add { scheduler, store } => switch(*scheduler, *store, true)?,
            SchedulerAct::Remove { scheduler, store } => switch(*scheduler, *store, false)?,
            SchedulerAct::Pause { scheduler, time } if time.0.as_secs() == 0 => {
                bail!("{scheduler:?} needs a pause of whole seconds")
            }
            SchedulerAct::Pause { scheduler, time } => pause(*scheduler, time.0.as_secs())?,
            SchedulerAct::Resume { scheduler } => pause(*scheduler, 0)?,
            SchedulerAct::EvictLeaders { store } => Kind::EvictLeaders(*store),
            SchedulerAct::AdmitLeaders { store } => Kind::AdmitLeaders(*store),
            SchedulerAct::Balance { state } => Kind::Balance(matches!(state, Switch::On)),
            SchedulerAct::LocationLabels { keys } => Kind::LocationLabels(LocationLabels { keys: keys.clone() }),
        }))
    }
}

/// Runs `scheduler`.
pub async fn scheduler(
    client: &RawClient,
    out: &mut Output<impl Write>,
    act: &SchedulerAct,
    time: Duration,
) -> anyhow::Result<bool> {
    if let Some(kind) = act.change()? {
        return change(client, kind, time).await;
    }
    let cluster_id = client.pd().cluster_id();
    let answer = asked(client, |mut link| async move {
        link.get_scheduling(SchedulingRequest { cluster_id }).await
    })
    .await?;
    let settings = answer.scheduling.unwrap_or_default();
    let state = |on: bool, paused: u64| match (on, paused) {
        (false, _) => "off".to_owned(),
        (true, 0) => "on".to_owned(),
        (true, seconds) => format!("paused for {seconds}s"),
    };
    let switched = answer
        .schedulers
        .iter()
        .map(|one| (scheduler_name(one.scheduler()), state(one.on, one.paused_seconds), Vec::new()));
    let of_stores = [
        ("evict-leader", settings.evict_leaders),
        ("grant-leader", settings.grant_leaders),
    ];
    let of_stores = of_stores
        .into_iter()
        .map(|(name, stores)| (name.to_owned(), state(!stores.is_empty(), 0), stores));
    let rows = switched
        .chain(of_stores)
        .map(|(name, state, stores)| vec![("scheduler", name.into()), ("state", state.into()), ("stores", json!(stores))]);
    out.table(rows.collect())?;
    Ok(true)
}

/// Asks the leader once.
pub(super) async fn asked<A, F>(client: &RawClient, ask: impl FnOnce(PdPeersClient<Channel>) -> F) -> anyhow::Result<A>
where
    F: Future<Output = Result<Response<A>, Status>>,
{
    let Some((link, _)) = leader(client).await? else {
        bail!("no placement driver leads; see `ferrite ctl member`");
    };
    match ask(link).await {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) => bail!("{}", status.message()),
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

/// List orders to regions that are being carried out, or have a region moved.
#[derive(Debug, clap::Args)]
pub struct OperatorArgs {
    #[command(subcommand)]
    act: Option<OperatorAct>,
}

#[derive(Debug, clap::Subcommand)]
enum OperatorAct {
    /// List them, which is also done without a command.
    List,
    /// Have a region moved.
    #[command(subcommand)]
    Add(Wish),
    /// Give up what a region was to do.
    Remove { region: u64 },
}

#[derive(Debug, clap::Subcommand)]
enum Wish {
    /// Another copy of the region is to lead.
    TransferLeader { region: u64, to_store: u64 },
    /// A copy goes from one store to another.
    TransferPeer { region: u64, from_store: u64, to_store: u64 },
    /// Copies and leader go to stores that hold few regions of the same group.
    Scatter {
        region: u64,
        #[arg(long, default_value = "")]
        group: String,
    },
}

impl Wish {
    fn order(&self) -> (u64, Order) {
        match self {
            Wish::TransferLeader { region, to_store } => (*region, Order::TransferLeader(*to_store)),
            Wish::TransferPeer {
                region,
                from_store,
                to_store,
            } => {
                let (from_store, to_store) = (*from_store, *to_store);
                (*region, Order::MovePeer(MovePeer { from_store, to_store }))
            }
            Wish::Scatter { region, group } => (*region, Order::Scatter(group.clone())),
        }
    }
}

/// Runs `operator`.
pub async fn operator(client: &RawClient, out: &mut Output<impl Write>, args: &OperatorArgs) -> anyhow::Result<bool> {
    let cluster_id = client.pd().cluster_id();
    match &args.act {
        None | Some(OperatorAct::List) => operators(client, out).await,
        Some(OperatorAct::Add(wish)) => {
            let (region_id, kind) = wish.order();
            let request = AddOperatorRequest {
                cluster_id,
                region_id,
                kind: Some(kind),
            };
            asked(client, |mut link| async move { link.add_operator(request).await }).await?;
            Ok(true)
        }
        Some(OperatorAct::Remove { region }) => {
            let request = RemoveOperatorRequest {
                cluster_id,
                region_id: *region,
            };
            asked(client, |mut link| async move { link.remove_operator(request).await }).await?;
            Ok(true)
        }
    }
}

/// Lists the orders to regions that stand.
async fn operators(client: &RawClient, out: &mut Output<impl Write>) -> anyhow::Result<bool> {
    let cluster_id = client.pd().cluster_id();
    let answer = asked(client, |mut link| async move {
        link.get_operators(OperatorsRequest { cluster_id }).await
    })
    .await?;
    let rows = answer.operators.into_iter().map(|order| {
        vec![
            ("region", order.region_id.into()),
            ("order", order.kind.into()),
            ("store", order.peer.map_or(0, |peer| peer.store_id).into()),
            ("age_seconds", order.age_seconds.into()),
            ("reason", order.reason.into()),
        ]
    });
    out.table(rows.collect())?;
    Ok(true)
}

/// Show the regions with most to do, and with --stores what it comes to on each store.
#[derive(Debug, clap::Args)]
pub struct HotArgs {
    /// Most regions to list.
    #[arg(long, default_value_t = 20)]
    limit: u32,
    /// List stores.
    #[arg(long)]
    stores: bool,
}

/// Runs `hot`.
pub async fn hot(client: &RawClient, out: &mut Output<impl Write>, args: &HotArgs) -> anyhow::Result<bool> {
    let (cluster_id, limit) = (client.pd().cluster_id(), args.limit);
    let answer = asked(client, |mut link| async move {
        link.get_hot(HotRequest { cluster_id, limit }).await
    })
    .await?;
    let stores = answer.stores.into_iter().map(|store| {
        vec![
            ("store", store.store_id.into()),
            ("hot_regions", store.regions.into()),
            ("read_load", store.read_load.into()),
            ("write_load", store.write_load.into()),
            ("peer_load", store.peer_load.into()),
        ]
    });
    let regions = answer.regions.into_iter().map(|region| {
        vec![
            ("region", region.region_id.into()),
            ("leader", region.leader_store.into()),
            ("written_bytes_per_second", region.written_bytes.into()),
            ("written_keys_per_second", region.written_keys.into()),
            ("read_bytes_per_second", region.read_bytes.into()),
            ("read_keys_per_second", region.read_keys.into()),
        ]
    });
    out.table(if args.stores { stores.collect() } else { regions.collect() })?;
    Ok(true)
}
