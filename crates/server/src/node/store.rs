//! The store of a process: engine, raft log, raft threads, its link to the placement driver, its listener.
//!
//! Who the store is, is written before anything else; the first regions of a cluster before the placement driver hears of them.
//! A file `bootstrapping` stands while it is open whether the cluster took them: a crash in between is settled at the next start.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use base::{ClusterId, MonoTime, PeerId, RegionId, StoreId, Ts, WallTime, codec};
use bytes::Bytes;
use engine::{Batch, Cf, Engine, FjallEngine, keys, kv};
use futures::FutureExt;
use futures::future::BoxFuture;
use pd::{Flow, Operator, RegionInfo};
use proto::metapb::{Peer, Region, RegionEpoch, Store, StoreLabel};
use proto::pdpb::StoreStats;
use raftstore::command::{ConfKind, ConfOne};
use raftstore::log::{EngineLog, RaftLog};
use raftstore::peer::{Report, SplitWanted};
use raftstore::shell::{Parts, RaftStore, Reporter};
use raftstore::snapshot::FileSnapshots;
use raftstore::store;
use tls::Dialer;
use tokio::task::JoinHandle;
use tracing::{debug, error, info, warn};

use super::leaders::LeaderStores;
use super::split::Splitter;
use super::{STORE, blocking, random_id, room, with_address};
use crate::config::{ApiVersion, Config};
use crate::data_dir::free_bytes;
use crate::failure::Failure;
use crate::listen::{self, Listener};
use crate::load::{self, Counted, Loads};
use crate::pd_client::{self, News, OnNews, PdLink, StorePd};
use crate::pd_service::CLUSTER_VERSION;
use crate::raw::expiry;
use crate::rescue::RescueService;
use crate::security::Security;
use crate::status::{Status, StoreReport};
use crate::tikv_service::{Identity, TikvService};
use crate::transport::{Network, Resolve, service};
use crate::txn::deadlock::{DeadlockService, Detectors};
use crate::txn::gc::Source as _;
use crate::txn::{self, Txn};

/// How long one request to the placement driver may take, with all its tries.
const PD_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a store tells the placement driver that it lives; what PD's clients expect.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Stands while it is open whether the cluster took this store's first regions.
const BOOTSTRAPPING: &str = "bootstrapping";
/// Holds the name of the API version that the data lies in.
const API_VERSION: &str = "api-version";

/// Where the placement driver is.
pub enum PdAt {
    /// In this process.
    Here(pd::Handle),
    /// At one of these addresses.
    There(Vec<String>),
}

/// A running store.
pub struct StoreNode {
    pub id: StoreId,
    /// Where clients and other stores dial it, `host:port`.
    pub address: String,
    raft: RaftStore,
    network: Network,
    listener: Listener,
    heartbeats: JoinHandle<()>,
    /// On the disk.
    room: JoinHandle<()>,
    /// Of old versions.
    collector: JoinHandle<()>,
    /// Of expired values.
    sweeper: JoinHandle<()>,
    /// Of busy regions.
    divider: JoinHandle<()>,
}

impl StoreNode {
    /// Starts on the data in `dir`, or as a new store of the cluster at `pd`, and serves on `port`.
    pub async fn start(
        config: &Config,
        security: &Security,
        dir: &Path,
        pd: PdAt,
        port: std::net::TcpListener,
        status: &Status,
    ) -> anyhow::Result<StoreNode> {
        let address = with_address(&config.server.advertise_addr, port.local_addr()?);
        let disk = Disk::open(config, dir).await?;
        let started: Arc<OnceLock<RaftStore>> = Arc::default();
        let splitter: Arc<OnceLock<Splitter>> = Arc::default();
        let news = on_news(started.clone(), splitter.clone());
        let link: Arc<dyn PdLink> = Arc::new(connect(pd, news, dir, &disk, &security.dialer).await?);
        let splits = splitter.get_or_init(|| Splitter::new(link.clone(), started.clone())).clone();
        let id = disk.identify(&*link).await?;
        let meta = Store {
            id: id.0,
            address: address.clone(),
            peer_address: address.clone(),
            status_address: config.server.status_addr.clone(),
            version: CLUSTER_VERSION.to_owned(),
            git_hash: crate::COMMIT.to_owned(),
            start_timestamp: WallTime::now().seconds() as i64,
            labels: labels(&config.server.labels),
            deploy_path: std::env::current_exe().map_or_else(|_| String::new(), |path| path.display().to_string()),
            ..Store::default()
        };
        disk.maybe_bootstrap(config, &*link, &meta).await?;
        link.put_store(meta, deadline())
            .await
            .context("register the store with the placement driver")?;

        let cluster = link.cluster();
        let network = Network::new(
            cluster,
            &config.transport,
            resolve(link.clone()),
            disk.snapshots.clone(),
            security.dialer.clone(),
        );
        let runtime = tokio::runtime::Handle::current();
        let loads: Arc<Loads> = Arc::default();
        let parts = Parts {
            store: id,
            cluster,
            config: config.raft.clone(),
            engine: disk.engine.clone(),
            log: disk.log.clone(),
            snapshots: disk.snapshots.clone(),
            transport: Arc::new(network.clone()),
            reporter: Arc::new(ToPd {
                link: link.clone(),
                splits: splits.clone(),
                loads: loads.clone(),
            }),
            answer: Box::new(move |answer| drop(runtime.spawn(async move { answer() }))),
            seed: random_id(),
            fatal: Box::new(end_process),
        };
        let raft = blocking(move || Ok(RaftStore::start(parts)?)).await?;
        assert!(started.set(raft.clone()).is_ok(), "a store is started once");
        // What the placement driver wanted to know before could reach nobody.
        raft.report_all();

        let into = raft.clone();
        let deliver: service::Deliver = Arc::new(move |messages| into.on_messages(messages));
        let receiver = service::Receiver::new(cluster, id, deliver, disk.snapshots, config.transport.snapshots_max);
        let (_, health) = tonic_health::server::health_reporter();
        let api = config.server.api_version;
        let asks = Arc::new(Cluster {
            raft: raft.clone(),
            link: link.clone(),
            dialer: security.dialer.clone(),
        });
        let kv: Arc<dyn kv::Kv> = Arc::new(Counted::new(Arc::new(raft.clone()), loads.clone()));
        let txn = Arc::new(Txn::new(txn::Parts {
            kv: kv.clone(),
            engine: disk.engine.clone(),
            api,
            timestamps: timestamps(link.clone()),
            detectors: asks.clone(),
            leaders: Arc::new(LeaderStores::new(raft.clone(), link.clone(), security.dialer.clone())),
            scheduler: Default::default(),
        }));
        let tikv = TikvService::new(kv, txn.clone(), Identity { cluster, store: id }, api).with_splits(Arc::new(splits.clone()));
        let raw = tikv.raw();
        let routes = tonic::service::Routes::new(tikv.replica_reads())
            .add_service(tikv.into_server())
            .add_service(receiver.into_service())
            .add_service(DeadlockService(txn.clone()).into_server())
            .add_service(RescueService::new(raft.clone(), link.clone()).into_server())
            .add_service(health)
            .into_axum_router()
            .fallback(listen::unknown_route);
        let listener =
            listen::serve(port, routes, config.server.connections_max, security.acceptor.clone()).context("serve the store")?;
        let led = asks.clone();
        let collector = tokio::spawn(txn::gc::run(txn, asks));
        let sweeper = tokio::spawn(expiry::run(raw, move || led.regions(), config.server.expired_sweep.0));
        let divider = tokio::spawn(load::watch(loads, busy_limits(config), divide_busy(raft.clone(), splits)));
        let heartbeats = tokio::spawn(heartbeat(link, raft.clone(), disk.dir.clone()));
        let room = tokio::spawn(room::watch(raft.clone(), disk.dir.clone(), config.server.disk_reserve));
        info!(store_id = id.0, %address, cluster_id = cluster.0, regions = raft.counts().0, "store serves");
        let node = StoreNode {
            id,
            address,
            raft,
            network,
            listener,
            heartbeats,
            room,
            collector,
            sweeper,
            divider,
        };
        node.tell(status, config.server.api_version, disk.dir);
        status.part_ready(STORE);
        Ok(node)
    }

    fn tell(&self, status: &Status, api_version: ApiVersion, dir: PathBuf) {
        let (raft, address) = (self.raft.clone(), self.address.clone());
        status.add_part(move |mut report| {
            report.cluster_id = raft.cluster_id().to_string();
            report.stores.push(store_report(&raft, &address, api_version, &dir));
            async move { report }
        });
    }

    /// Lets running requests end, then makes everything durable.
    pub async fn stop(self, drain: Duration) -> anyhow::Result<()> {
        self.listener.stop(drain).await;
        self.heartbeats.abort();
        self.room.abort();
        self.collector.abort();
        self.sweeper.abort();
        self.divider.abort();
        self.network.stop();
        let raft = self.raft;
        blocking(move || Ok(raft.stop()?)).await.context("stop the store")
    }
}

/// Labels as the configuration has them, `key=value`.
fn labels(given: &[String]) -> Vec<StoreLabel> {
    let label = |(key, value): (&str, &str)| StoreLabel {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    given.iter().filter_map(|text| text.split_once('=')).map(label).collect()
}

pub(super) fn deadline() -> MonoTime {
    MonoTime::now() + PD_TIMEOUT
}

fn store_report(raft: &RaftStore, address: &str, api_version: ApiVersion, dir: &Path) -> StoreReport {
    let (regions, leaders) = raft.counts();
    StoreReport {
        id: raft.store_id().0,
        address: address.to_owned(),
        engine: raft.engine().name(),
        api_version,
        regions: regions as u64,
        leaders: leaders as u64,
        hibernating: raft.hibernating() as u64,
        disk_bytes: raft.engine().disk_bytes() + raft.raft_log().disk_bytes(),
        disk_free_bytes: free_bytes(dir).map_or(0, |free| free.0),
    }
}

/// What a store keeps on disk.
struct Disk {
    dir: PathBuf,
    engine: Arc<dyn Engine>,
    log: Arc<dyn RaftLog>,
    snapshots: Arc<FileSnapshots>,
}

impl Disk {
    async fn open(config: &Config, dir: &Path) -> anyhow::Result<Disk> {
        let (dir, config) = (dir.to_owned(), config.clone());
        blocking(move || {
            std::fs::create_dir_all(&dir).map_err(|source| Failure::Dir {
                act: "make directory",
                path: dir.clone(),
                source,
            })?;
            check_api_version(&dir, config.server.api_version)?;
            let engine = Arc::new(FjallEngine::open(&dir.join("engine"), &config.engine)?);
            let log = Arc::new(EngineLog::open(
                &dir.join("raft-log"),
                &config.raft_log,
                Box::new(end_process),
            )?);
            let snapshots = FileSnapshots::open(&dir.join("snapshots"));
            let snapshots = snapshots.map_err(|source| Failure::Dir {
                act: "open raft snapshots in",
                path: dir.clone(),
                source,
            })?;
            Ok(Disk {
                dir,
                engine,
                log,
                snapshots: Arc::new(snapshots),
            })
        })
        .await
    }

    /// Who the store is: as written at its first start, else a new member of the cluster, written before anything else.
    async fn identify(&self, link: &dyn PdLink) -> anyhow::Result<StoreId> {
        let cluster = link.cluster();
        if let Some(ident) = store::read_ident(&*self.engine)? {
            let found = ClusterId(ident.cluster_id);
            if found != cluster {
                return Err(Failure::WrongCluster {
                    dir: self.dir.clone(),
                    found,
                    wanted: cluster,
                }
                .into());
            }
            return Ok(StoreId(ident.store_id));
        }
        let id = StoreId(link.alloc_ids(1, deadline()).await.context("ask for a store id")?);
        let engine = self.engine.clone();
        blocking(move || Ok(store::write_ident(&*engine, cluster, id)?)).await?;
        info!(store_id = id.0, cluster_id = cluster.0, "new store");
        Ok(id)
    }

    /// Makes the cluster's first regions if there are none yet.
    async fn maybe_bootstrap(&self, config: &Config, link: &dyn PdLink, meta: &Store) -> anyhow::Result<()> {
        let bootstrapped = link
            .is_bootstrapped(deadline())
            .await
            .context("ask whether the cluster is bootstrapped")?;
        let marker = self.dir.join(BOOTSTRAPPING);
        if marker.exists() {
            self.settle(link, StoreId(meta.id), bootstrapped).await?;
        }
        if bootstrapped {
            return Ok(());
        }
        let regions = first_regions(config, link, StoreId(meta.id)).await?;
        std::fs::File::create(&marker)
            .and_then(|file| file.sync_all())
            .and_then(|()| sync_dir(&self.dir))
            .context("note the bootstrap")?;
        let (engine, log, written, id) = (self.engine.clone(), self.log.clone(), regions.clone(), StoreId(meta.id));
        blocking(move || Ok(store::write_regions(&*engine, &*log, id, &written)?)).await?;
        match link.bootstrap(meta.clone(), regions, deadline()).await {
            Ok(()) => std::fs::remove_file(&marker).context("close the bootstrap")?,
            // Another store was first, or the answer to an earlier try was lost.
            Err(pd_client::Error::AlreadyBootstrapped) => self.settle(link, id, true).await?,
            Err(error) => return Err(error).context("bootstrap the cluster"),
        }
        info!("cluster is bootstrapped");
        Ok(())
    }

    /// Keeps the first regions that this store wrote if the cluster took them, erases them otherwise.
    async fn settle(&self, link: &dyn PdLink, id: StoreId, bootstrapped: bool) -> anyhow::Result<()> {
        for region in self.log.regions() {
            let known = match bootstrapped {
                true => link.region(region, deadline()).await.context("ask for a region")?,
                false => None,
            };
            if !known.is_some_and(|known| known.peers.iter().any(|peer| peer.store_id == id.0)) {
                let (engine, log) = (self.engine.clone(), self.log.clone());
                blocking(move || erase_region(&*engine, &*log, region)).await?;
            }
        }
        std::fs::remove_file(self.dir.join(BOOTSTRAPPING)).context("close the bootstrap")
    }
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    std::fs::File::open(dir)?.sync_all()
}

/// Takes back a region that nobody but this store knows: state first, so that no state is left without its log.
fn erase_region(engine: &dyn Engine, log: &dyn RaftLog, region: RegionId) -> anyhow::Result<()> {
    let mut batch = Batch::new();
    batch.delete(Cf::Local, keys::region_state(region));
    batch.delete(Cf::Local, keys::apply_state(region));
    engine.write(batch)?;
    engine.sync()?;
    Ok(log.remove(region)?)
}

/// Data of one API version must not be read as another's: the first start notes which it is.
fn check_api_version(dir: &Path, wanted: ApiVersion) -> Result<(), Failure> {
    let path = dir.join(API_VERSION);
    let fail = |act| {
        let path = path.clone();
        move |source| Failure::Dir { act, path, source }
    };
    match std::fs::read_to_string(&path) {
        Ok(found) if found.trim() == wanted.name() => Ok(()),
        Ok(found) => Err(Failure::ApiVersion {
            dir: dir.to_owned(),
            found: found.trim().to_owned(),
            wanted: wanted.name(),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let temporary = path.with_extension("tmp");
            let write = || {
                std::fs::write(&temporary, format!("{}\n", wanted.name()))?;
                std::fs::File::open(&temporary)?.sync_all()?;
                std::fs::rename(&temporary, &path)?;
                sync_dir(dir)
            };
            write().map_err(fail("write"))
        }
        Err(error) => Err(fail("read")(error)),
    }
}

/// The regions of a new cluster, all on `store`: one over all keys, or split at `pd.split-keys` and `pd.split-txn-keys`.
async fn first_regions(config: &Config, link: &dyn PdLink, store: StoreId) -> anyhow::Result<Vec<Region>> {
    let raw = config.pd.split_keys.iter().map(|key| border(key, config.server.api_version));
    let txn = config.pd.split_txn_keys.iter().map(|key| encoded(key));
    let mut borders: Vec<Bytes> = raw.chain(txn).collect();
    borders.sort();
    borders.dedup();
    let starts: Vec<Bytes> = std::iter::once(Bytes::new()).chain(borders.iter().cloned()).collect();
    let ends = borders.into_iter().chain([Bytes::new()]);
    let first = link
        .alloc_ids(2 * starts.len() as u32, deadline())
        .await
        .context("ask for region ids")?;
    let region = |(at, (start_key, end_key)): (usize, (Bytes, Bytes))| {
        let id = first + 2 * at as u64;
        Region {
            id,
            start_key,
            end_key,
            region_epoch: Some(RegionEpoch { conf_ver: 1, version: 1 }),
            peers: vec![Peer {
                id: id + 1,
                store_id: store.0,
                ..Peer::default()
            }],
            ..Region::default()
        }
    };
    Ok(starts.into_iter().zip(ends).enumerate().map(region).collect())
}

/// A border as regions have it: raw keys of V1 lie as they are, those of V2 encoded.
fn border(key: &str, api: ApiVersion) -> Bytes {
    match api {
        ApiVersion::V1 | ApiVersion::V1Ttl => Bytes::copy_from_slice(key.as_bytes()),
        ApiVersion::V2 => encoded(key),
    }
}

fn encoded(key: &str) -> Bytes {
    codec::encode_bytes(key.as_bytes()).into()
}

/// Finds the placement driver. A store that was in a cluster waits for it as long as it takes; a new one gives up, as its user
/// has probably mistyped the address.
async fn connect(pd: PdAt, on_news: OnNews, dir: &Path, disk: &Disk, dialer: &Dialer) -> anyhow::Result<StorePd> {
    let endpoints = match pd {
        PdAt::Here(handle) => return Ok(StorePd::local(handle, on_news)),
        PdAt::There(endpoints) => endpoints,
    };
    let is_known = store::read_ident(&*disk.engine)?.is_some();
    loop {
        match StorePd::connect(&endpoints, dialer, on_news.clone(), deadline()).await {
            Ok(link) => return Ok(link),
            Err(error) if is_known => {
                warn!(data_dir = %dir.display(), error = %base::log::chain(&error), "wait for the placement driver")
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Where other stores are, as the placement driver knows.
fn resolve(link: Arc<dyn PdLink>) -> Resolve {
    Arc::new(move |store| {
        let link = link.clone();
        async move {
            // Asked only to connect, and what was known may be why the last connection failed.
            link.forget_store(store);
            link.store(store, deadline())
                .await
                .map(|store| store.address)
                .map_err(|error| error.to_string())
        }
        .boxed()
    })
}

/// Timestamps for whoever must know that time has passed a point.
fn timestamps(link: Arc<dyn PdLink>) -> txn::Timestamps {
    Arc::new(move |deadline| {
        let link = link.clone();
        async move {
            let asked = link.timestamp(deadline).await;
            asked
                .inspect_err(|error| warn!(error = %base::log::chain(error), "ask for a timestamp"))
                .ok()
        }
        .boxed()
    })
}

/// What transactions ask about the cluster: where deadlocks are detected, which is where the region with the first key is led, and
/// what may be collected.
struct Cluster {
    raft: RaftStore,
    link: Arc<dyn PdLink>,
    dialer: Dialer,
}

impl Detectors for Cluster {
    fn here(&self) -> Option<(RegionId, u64)> {
        self.raft.led_first()
    }

    fn dialer(&self) -> Dialer {
        self.dialer.clone()
    }

    fn there(&self) -> BoxFuture<'static, Option<String>> {
        let (link, own) = (self.link.clone(), self.raft.store_id());
        async move {
            let leader = link.leader_of(Bytes::new(), deadline()).await.ok()??;
            let store = link.store(leader, deadline()).await.ok()?;
            // The placement driver may not know yet that this store leads no longer.
            (leader != own).then_some(store.address)
        }
        .boxed()
    }
}

impl txn::gc::Source for Cluster {
    fn safe_point(&self) -> BoxFuture<'_, Ts> {
        // Asked again soon.
        async { self.link.gc_safe_point(deadline()).await.unwrap_or_default() }.boxed()
    }

    fn regions(&self) -> Vec<kv::Context> {
        let context = |region: Arc<Region>| kv::Context {
            region: RegionId(region.id),
            epoch: region.region_epoch.unwrap_or_default(),
            ..kv::Context::default()
        };
        self.raft.led_regions().into_iter().map(context).collect()
    }
}

/// When a region is busy.
fn busy_limits(config: &Config) -> load::Limits {
    load::Limits {
        requests: config.server.split_qps,
        bytes: config.server.split_byte_rate.0,
    }
}

/// Divides a busy region, if it is led here.
fn divide_busy(raft: RaftStore, splits: Splitter) -> impl Fn(RegionId, Bytes) {
    move |region, key| {
        if let Some(led) = raft.led(region) {
            let (region, keys) = ((*led).clone(), vec![key]);
            splits.begin(SplitWanted { region, keys }, "load");
        }
    }
}

struct ToPd {
    link: Arc<dyn PdLink>,
    splits: Splitter,
    loads: Arc<Loads>,
}

impl Reporter for ToPd {
    fn report(&self, report: Report) {
        let read = self.loads.take_reads(RegionId(report.region.id));
        let down = |(peer, down_seconds)| pd::DownPeer { peer, down_seconds };
        self.link.region_heartbeat(RegionInfo {
            region: report.region,
            leader: report.leader,
            term: report.term,
            down_peers: report.down.into_iter().map(down).collect(),
            pending_peers: report.pending,
            approximate_bytes: report.bytes,
            approximate_keys: report.keys,
            flow: Flow {
                written_bytes: report.put_bytes,
                written_keys: report.put_keys,
                read_bytes: read.bytes,
                read_keys: read.keys,
                millis: u32::try_from(report.since.as_millis()).unwrap_or(u32::MAX),
            },
        });
    }

    fn split_wanted(&self, wanted: SplitWanted) {
        self.splits.begin(wanted, "size");
    }

    // The directory learns from whoever leads the region next.
    fn forget(&self, _region: RegionId) {}
}

/// Carries out what the placement driver says, once the store runs.
fn on_news(started: Arc<OnceLock<RaftStore>>, splitter: Arc<OnceLock<Splitter>>) -> OnNews {
    Arc::new(move |news| {
        let Some(raft) = started.get() else { return };
        match news {
            News::Forgotten => raft.report_all(),
            News::Order {
                region,
                epoch,
                leader: _,
                operator,
            } => {
                let (kind, peer) = match operator {
                    Operator::AddLearner(peer) => (ConfKind::AddLearner, peer),
                    Operator::Promote(peer) => (ConfKind::AddVoter, peer),
                    Operator::Remove(peer) => (ConfKind::Remove, peer),
                    Operator::Split(keys) => {
                        // Of another epoch: what is asked for is told again with the next heartbeat.
                        let led = raft.led(region).filter(|led| led.region_epoch == Some(epoch));
                        if let (Some(led), Some(splitter)) = (led, splitter.get()) {
                            let region = (*led).clone();
                            splitter.begin(SplitWanted { region, keys }, "placement driver");
                        }
                        return;
                    }
                    Operator::Merge(target) => {
                        info!(region_id = region.0, target = target.id, "placement driver wants a merge");
                        // Told again as long as it is wanted.
                        let told = move |outcome| {
                            if let Err(error) = outcome {
                                debug!(region_id = region.0, error = %base::log::chain(&error), "region was not merged");
                            }
                        };
                        return raft.merge(region, epoch, target, Box::new(told));
                    }
                    Operator::TransferLeader(peer) => {
                        info!(
                            region_id = region.0,
                            store_id = peer.store_id,
                            "placement driver wants another leader"
                        );
                        // Told again as long as it is wanted.
                        return raft.transfer_leader(region, PeerId(peer.id), Box::new(drop));
                    }
                };
                info!(region_id = region.0, peer_id = peer.id, store_id = peer.store_id, change = ?kind, "placement driver wants a change of membership");
                let change = ConfOne {
                    kind: kind as i32,
                    peer: Some(peer),
                };
                let told = move |outcome| {
                    if let Err(error) = outcome {
                        // The placement driver says it again as long as it wants it.
                        debug!(region_id = region.0, error = %base::log::chain(&error), "change of membership was not made");
                    }
                };
                raft.change_membership(region, epoch, vec![change], Box::new(told));
            }
        }
    })
}

/// Tells the placement driver that the store lives, and how full it is, until aborted.
async fn heartbeat(link: Arc<dyn PdLink>, raft: RaftStore, dir: PathBuf) {
    let mut ticks = tokio::time::interval(HEARTBEAT);
    let started = WallTime::now().seconds() as u32;
    loop {
        ticks.tick().await;
        let (regions, _) = raft.counts();
        let used = raft.engine().disk_bytes() + raft.raft_log().disk_bytes();
        let available = free_bytes(&dir).map_or(0, |free| free.0);
        let stats = StoreStats {
            store_id: raft.store_id().0,
            capacity: used + available,
            available,
            used_size: used,
            region_count: regions as u32,
            start_time: started,
            ..StoreStats::default()
        };
        if let Err(error) = link.store_heartbeat(stats, deadline()).await {
            warn!(error = %base::log::chain(&error), "heartbeat to the placement driver");
        }
    }
}

/// Ends the process on what the store cannot go on after: a write that failed is never tried again, a restart recovers.
fn end_process<E: std::error::Error>(error: &E) {
    let error = base::log::chain(error).to_string();
    error!(error, "store cannot go on");
    eprintln!("ferrite: {error}");
    std::process::exit(2);
}
