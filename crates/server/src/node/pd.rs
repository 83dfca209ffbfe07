//! The placement driver of a process: its state on disk, its threads, its listener.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use pd::log::Recovered;
use pd::log::file::FileLog;
use pd::{Machine, Options, Pd, Reply, Request, State};
use tokio::task::JoinHandle;
use tracing::info;

use super::{PD, blocking, gc, random_id, with_address};
use crate::config::{ApiVersion, Config};
use crate::failure::Failure;
use crate::listen::{self, Listener};
use crate::pd_service;
use crate::status::{PdReport, Status};

/// A running placement driver.
pub struct PdNode {
    /// Where clients dial it, `host:port`.
    pub address: String,
    pd: Pd,
    listener: Listener,
    /// Moves safe points, if that is not left to clients.
    gc: Option<JoinHandle<()>>,
}

impl PdNode {
    /// Starts on the data in `dir`, or makes a new cluster there, and serves on `port`.
    pub async fn start(config: &Config, dir: &Path, port: std::net::TcpListener, status: &Status) -> anyhow::Result<PdNode> {
        let address = with_address(&config.pd.advertise_addr, port.local_addr()?);
        let url = format!("http://{address}");
        let options = Options {
            name: "pd-1".to_owned(),
            client_urls: vec![url.clone()],
            peer_urls: vec![url],
            cluster_id_if_new: random_id(),
            member_id_if_new: random_id(),
            max_peer_count_if_new: config.pd.replicas as u32,
        };
        let dir = dir.to_owned();
        let pd = blocking(move || open(&dir, options)).await?;
        let handle = pd.handle().clone();
        let routes = pd_service::routes(handle.clone())
            .merge(super::rest::routes(handle.clone()))
            .fallback(listen::unknown_route);
        let listener = listen::serve(port, routes, config.server.connections_max).context("serve the placement driver")?;
        info!(%address, cluster_id = handle.cluster().0, "placement driver serves");
        let told = address.clone();
        status.add_part(move |mut report| {
            let (address, handle) = (told.clone(), handle.clone());
            async move {
                let (stores, regions) = count(&handle).await.unwrap_or_default();
                report.cluster_id = handle.cluster().to_string();
                report.pd = Some(PdReport {
                    address,
                    stores,
                    regions,
                });
                report
            }
        });
        status.part_ready(PD);
        let (life, api) = (config.pd.gc_life_time.0, config.server.api_version);
        let collects = !life.is_zero() && api != ApiVersion::V1Ttl;
        let gc = collects.then(|| tokio::spawn(gc::run(pd.handle().clone(), address.clone(), api, life)));
        Ok(PdNode {
            address,
            pd,
            listener,
            gc,
        })
    }

    pub fn handle(&self) -> &pd::Handle {
        self.pd.handle()
    }

    pub fn bound(&self) -> SocketAddr {
        self.listener.address
    }

    pub async fn stop(self, drain: Duration) {
        if let Some(gc) = &self.gc {
            gc.abort();
        }
        self.listener.stop(drain).await;
        // Its threads write what is under way.
        let pd = self.pd;
        let _joined = tokio::task::spawn_blocking(move || drop(pd)).await;
    }
}

fn open(dir: &Path, options: Options) -> anyhow::Result<Pd> {
    let failed = |source| Failure::PdData {
        dir: dir.to_owned(),
        source,
    };
    let (log, Recovered { state, index }) = FileLog::open(dir).map_err(failed)?;
    let state = state.map(State::from_record).unwrap_or_default();
    Ok(Pd::start(Machine::new(options, state, index), log).map_err(failed)?)
}

/// Stores of the cluster, and regions that one of them leads.
async fn count(handle: &pd::Handle) -> Option<(u64, u64)> {
    match pd_service::ask(handle, Request::AllStores).await.ok()? {
        Reply::Stores(stores) => Some((stores.len() as u64, stores.iter().map(|view| view.load.leaders).sum())),
        other => unreachable!("a reply to another request: {other:?}"),
    }
}
