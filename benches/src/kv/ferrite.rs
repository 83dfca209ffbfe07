//! `ferrite` processes on loopback: a placement driver and three stores, or one fresh server that is both.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use proto::kvrpcpb::Context;
use proto::metapb;
use proto::pdpb::pd_client::PdClient;
use proto::pdpb::{GetMembersRequest, GetRegionRequest, GetRegionResponse, GetStoreRequest, RequestHeader};

use super::caller::connect;
use super::process::{Server, free_ports, wait_for};

/// Stores whose copies make a write durable before it is answered.
pub const STORES: usize = 3;

pub struct Store {
    pub server: Server,
    pub address: String,
    name: String,
}

pub struct Cluster {
    binary: PathBuf,
    dir: PathBuf,
    /// Of every process, besides what each needs.
    args: Vec<String>,
    pd: Server,
    pub pd_address: String,
    pub stores: Vec<Store>,
}

impl Cluster {
    /// Starts everything and waits until the one region has a copy on every store.
    pub async fn start(binary: &Path, dir: &Path) -> Result<Self> {
        Self::start_with(binary, dir, &[]).await
    }

    /// The same with further arguments for every process.
    pub async fn start_with(binary: &Path, dir: &Path, args: &[String]) -> Result<Self> {
        let ports = free_ports(1 + STORES)?;
        let addresses: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let pd_address = addresses[0].clone();
        let mut command = command(binary, &dir.join("pd"));
        command.args(["--role", "pd", "--pd-addr", &pd_address]).args(args);
        let pd = Server::start("ferrite-pd", &mut command, dir)?;
        let mut cluster = Self {
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            args: args.to_vec(),
            pd,
            pd_address,
            stores: Vec::new(),
        };
        for (n, address) in addresses[1..].iter().enumerate() {
            let name = format!("store-{n}");
            let server = cluster.start_store(&name, address)?;
            cluster.stores.push(Store {
                server,
                address: address.clone(),
                name,
            });
        }
        cluster.wait_for_copies(Duration::from_secs(60)).await?;
        Ok(cluster)
    }

    fn start_store(&self, name: &str, address: &str) -> Result<Server> {
        let mut command = command(&self.binary, &self.dir.join(name));
        command.args(["--role", "store", "--join", &self.pd_address, "--addr", address]);
        command.args(&self.args);
        Server::start(&format!("ferrite-{name}"), &mut command, &self.dir)
    }

    /// Until the region has a voter on every store, none of them down or behind.
    pub async fn wait_for_copies(&mut self, patience: Duration) -> Result<()> {
        let pd_address = self.pd_address.clone();
        wait_for("a copy of the region on every store", patience, async || {
            self.pd.check_alive()?;
            self.stores.iter_mut().try_for_each(|store| store.server.check_alive())?;
            let found = find_region(&pd_address).await?;
            let peers = &found.region.as_ref().context("no region")?.peers;
            let voters = peers.iter().filter(|peer| peer.role() == metapb::PeerRole::Voter).count();
            ensure!(voters == STORES, "{voters} voters");
            ensure!(
                found.down_peers.is_empty() && found.pending_peers.is_empty(),
                "peers are down or behind"
            );
            ensure!(found.leader.is_some_and(|leader| leader.id != 0), "no leader");
            Ok(())
        })
        .await
    }

    pub async fn route(&self) -> Result<Route> {
        Route::find(&self.pd_address).await
    }

    pub fn store_at(&mut self, address: &str) -> Result<&mut Store> {
        let store = self.stores.iter_mut().find(|store| store.address == address);
        store.with_context(|| format!("no store listens on {address}"))
    }

    /// Starts the store at `address` again, on its old data.
    pub fn restart(&mut self, address: &str) -> Result<()> {
        let name = self.store_at(address)?.name.clone();
        let server = self.start_store(&name, address)?;
        self.store_at(address)?.server = server;
        Ok(())
    }

    /// Processor time of all stores and the placement driver.
    pub fn cpu(&self) -> Duration {
        self.stores.iter().map(|store| store.server.cpu()).sum::<Duration>() + self.pd.cpu()
    }
}

fn command(binary: &Path, data: &Path) -> Command {
    let mut command = Command::new(binary);
    command
        .args(["server", "--log-level", "warn", "--status-addr", ""])
        .arg("--data-dir")
        .arg(data);
    command
}

/// A fresh server that is a whole database, in `dir`: the process, its placement driver's address.
pub fn start_single(binary: &Path, dir: &Path) -> Result<(Server, String)> {
    let ports = free_ports(2)?;
    let pd_address = format!("127.0.0.1:{}", ports[0]);
    let mut command = command(binary, &dir.join("data"));
    command.args(["--pd-addr", &pd_address, "--addr", &format!("127.0.0.1:{}", ports[1])]);
    Ok((Server::start("ferrite", &mut command, dir)?, pd_address))
}

/// Where the region of the benchmark's keys is led, and what its requests must say.
#[derive(Clone, Debug)]
pub struct Route {
    pub context: Context,
    pub address: String,
    pub region: metapb::Region,
}

impl Route {
    pub async fn find(pd_address: &str) -> Result<Self> {
        let found = find_region(pd_address).await?;
        let region = found.region.context("no region")?;
        let leader = found.leader.filter(|leader| leader.id != 0).context("no leader")?;
        let address = store_address(pd_address, leader.store_id).await?;
        Ok(Self {
            context: context_of(&region, leader),
            address,
            region,
        })
    }
}

pub fn context_of(region: &metapb::Region, peer: metapb::Peer) -> Context {
    Context {
        region_id: region.id,
        region_epoch: region.region_epoch,
        peer: Some(peer),
        ..Context::default()
    }
}

/// A context as a store of three would want it, for servers that do not look.
pub fn some_context() -> Context {
    let epoch = metapb::RegionEpoch { conf_ver: 5, version: 1 };
    let region = metapb::Region {
        id: 2,
        region_epoch: Some(epoch),
        ..metapb::Region::default()
    };
    context_of(
        &region,
        metapb::Peer {
            id: 3,
            store_id: 1,
            ..metapb::Peer::default()
        },
    )
}

async fn pd(address: &str) -> Result<(PdClient<tonic::transport::Channel>, RequestHeader)> {
    let mut client = PdClient::new(connect(address).await?);
    let members = client.get_members(GetMembersRequest::default()).await?.into_inner();
    let cluster_id = members.header.context("an answer of PD without header")?.cluster_id;
    Ok((
        client,
        RequestHeader {
            cluster_id,
            ..RequestHeader::default()
        },
    ))
}

/// The region of the key `bench`; the benchmark's keys are right behind it, so one region must hold them all.
async fn find_region(pd_address: &str) -> Result<GetRegionResponse> {
    let (mut client, header) = pd(pd_address).await?;
    let request = GetRegionRequest {
        header: Some(header),
        region_key: Bytes::from_static(b"bench"),
        ..GetRegionRequest::default()
    };
    let found = client.get_region(request).await?.into_inner();
    let end = found.region.as_ref().map_or(&[][..], |region| &region.end_key);
    ensure!(
        end.is_empty() || end > &b"bench0"[..],
        "the benchmark's keys lie in more than one region"
    );
    Ok(found)
}

pub async fn store_address(pd_address: &str, store_id: u64) -> Result<String> {
    let (mut client, header) = pd(pd_address).await?;
    let request = GetStoreRequest {
        header: Some(header),
        store_id,
    };
    let store = client.get_store(request).await?.into_inner().store.context("no such store")?;
    Ok(store.address)
}
