//! The placement driver of a process: its state on disk, its threads, its listener.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use base::MonoTime;
use pd::log::Stored;
use pd::log::file::FileLog;
use pd::{Handle, MemberId, Options, Pd, Reply, Request};
use proto::ferrite_pd::Member;
use tls::Dialer;
use tokio::task::JoinHandle;
use tracing::info;

use super::{PD, blocking, gc, random_id, with_address};
use crate::config::{ApiVersion, Config, strip_scheme};
use crate::failure::Failure;
use crate::listen::{self, Listener};
use crate::pd_peers::begin::{self, With};
use crate::pd_peers::{Links, Peers};
use crate::pd_service;
use crate::security::Security;
use crate::status::{PdReport, Status};

/// How long a start waits for a member to lead, at a time, before it says so.
const LEADER_PATIENCE: Duration = Duration::from_secs(10);

/// A running member of the placement driver.
pub struct PdNode {
    /// Where clients dial it, `host:port`.
    pub address: String,
    pd: Pd,
    listener: Listener,
    /// Work beside it, which ends with it: moves safe points, if that is not left to clients; tells the others who this is.
    tasks: Vec<JoinHandle<()>>,
}

impl PdNode {
    /// Starts on the data in `dir`, or as a new member there, and serves on `port`. Waits until a member leads.
    pub async fn start(
        config: &Config,
        security: &Security,
        dir: &Path,
        port: std::net::TcpListener,
        status: &Status,
    ) -> anyhow::Result<PdNode> {
        let address = with_address(&config.pd.advertise_addr, port.local_addr()?);
        let dialer = &security.dialer;
        let log = open(dir).await?;
        let me = Member {
            id: log.stored().identity.member.0,
            name: config.pd.member_name(&address),
            peer_urls: vec![dialer.url(&address)],
            client_urls: vec![dialer.url(&address)],
            is_learner: false,
        };
        let handle = Handle::not_started(MemberId(me.id));
        let peers = Peers::new(handle.clone(), me.clone(), log.stored().identity.clone());
        let listener = serve(config, security, port, &handle, &peers)?;
        let with = with_whom(config);
        let log = take_part(log, &with, &me, &peers, dialer).await?;
        let group = log.stored().identity.group;
        let options = Options {
            member: MemberId(me.id),
            name: me.name.clone(),
            client_urls: me.client_urls.clone(),
            peer_urls: me.peer_urls.clone(),
            cluster_id_if_new: random_id(),
            max_peer_count_if_new: config.pd.replicas as u32,
            merge_after: config.pd.merge_after.0,
        };
        let links = Links::new(group, dialer.url(&address), dialer.clone());
        let pd = Pd::start(handle.clone(), log, options, links, random_id());
        let enlist = begin::enlist(handle.clone(), group, me.clone(), with.urls(dialer), dialer.clone());
        let mut tasks = vec![tokio::spawn(enlist)];
        wait_for_leader(&handle).await?;
        info!(%address, name = me.name, cluster_id = handle.cluster().0, "placement driver serves");
        report(&handle, &address, status);
        status.part_ready(PD);
        let (life, api) = (config.pd.gc_life_time.0, config.server.api_version);
        if !life.is_zero() && api != ApiVersion::V1Ttl {
            let reach = gc::Reach {
                address: address.clone(),
                api,
                tls: security.client.clone(),
            };
            tasks.push(tokio::spawn(gc::run(handle, reach, life)));
        }
        Ok(PdNode {
            address,
            pd,
            listener,
            tasks,
        })
    }

    pub fn handle(&self) -> &pd::Handle {
        self.pd.handle()
    }

    pub fn bound(&self) -> SocketAddr {
        self.listener.address
    }

    pub async fn stop(self, drain: Duration) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.listener.stop(drain).await;
        // Its threads write what is under way.
        let pd = self.pd;
        let _joined = tokio::task::spawn_blocking(move || drop(pd)).await;
    }
}

async fn open(dir: &Path) -> anyhow::Result<FileLog> {
    let (dir, member_if_new) = (dir.to_owned(), MemberId(random_id()));
    let opened = blocking(move || {
        let failed = |source| Failure::PdData {
            dir: dir.clone(),
            source,
        };
        Ok(FileLog::open(&dir, member_if_new).map_err(failed)?)
    });
    opened.await
}

fn serve(
    config: &Config,
    security: &Security,
    port: std::net::TcpListener,
    handle: &Handle,
    peers: &Peers,
) -> anyhow::Result<Listener> {
    let routes = pd_service::services(handle.clone())
        .add_service(peers.clone().into_server())
        .into_axum_router()
        .merge(super::rest::routes(handle.clone()))
        .fallback(listen::unknown_route);
    let routes = pd_service::forward::layer(routes, handle.clone(), security.dialer.clone());
    listen::serve(port, routes, config.server.connections_max, security.acceptor.clone()).context("serve the placement driver")
}

fn with_whom(config: &Config) -> With {
    let founders = config.pd.founders();
    match config.pd.join.is_empty() {
        true if founders.len() < 2 => With::Nobody,
        true => With::Founders(founders),
        false => With::Group(config.pd.join.iter().map(|addr| strip_scheme(addr).to_owned()).collect()),
    }
}

/// Makes a new member one of its group; waits for those with which it begins.
async fn take_part(mut log: FileLog, with: &With, me: &Member, peers: &Peers, dialer: &Dialer) -> anyhow::Result<FileLog> {
    if log.stored().identity.group != 0 {
        return Ok(log);
    }
    let member = MemberId(me.id);
    if !matches!(with, With::Nobody) && log.is_new() {
        // Others will count on this id.
        log = write(log, Stored::joining(member, 0, Vec::new())).await?;
    }
    let stored = begin::begin(with, me, dialer).await;
    let log = write(log, stored).await?;
    peers.take_part(log.stored().identity.clone());
    Ok(log)
}

async fn write(mut log: FileLog, stored: Stored) -> anyhow::Result<FileLog> {
    let begun = blocking(move || {
        log.begin(stored).context("write the placement driver's first data")?;
        Ok(log)
    });
    begun.await
}

/// Waits until the cluster has its id and a member leads that knows all the log.
async fn wait_for_leader(handle: &Handle) -> anyhow::Result<()> {
    loop {
        let handle = handle.clone();
        let found = blocking(move || {
            let deadline = MonoTime::now() + LEADER_PATIENCE;
            Ok(handle.wait_for(deadline, |status| status.cluster.is_some() && status.leader.is_some()))
        });
        if found.await? {
            return Ok(());
        }
        info!("no placement driver leads yet: a majority of the members must run and reach each other");
    }
}

fn report(handle: &Handle, address: &str, status: &Status) {
    let (address, handle) = (address.to_owned(), handle.clone());
    status.add_part(move |mut report| {
        let (address, handle) = (address.clone(), handle.clone());
        async move {
            let (stores, regions) = count(&handle).await.unwrap_or_default();
            let members = handle.status();
            let leader = members.leader.and_then(|leader| members.member(leader));
            report.cluster_id = handle.cluster().to_string();
            report.pd = Some(PdReport {
                address,
                leader: leader.map(|leader| leader.name.clone()).unwrap_or_default(),
                members: members.members.len() as u64,
                stores,
                regions,
            });
            report
        }
    });
}

/// Stores of the cluster, and regions that one of them leads.
async fn count(handle: &pd::Handle) -> Option<(u64, u64)> {
    match pd_service::ask(handle, Request::AllStores).await.ok()? {
        Reply::Stores(stores) => Some((stores.len() as u64, stores.iter().map(|view| view.load.leaders).sum())),
        other => unreachable!("a reply to another request: {other:?}"),
    }
}
