//! The link over gRPC: finds the member that leads, asks it, keeps a stream of heartbeats open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{ClusterId, MonoTime, RegionId, Ts};
use futures::StreamExt;
use parking_lot::Mutex;
use pd::{Liveness, RegionInfo, Reply, Request, StoreView};
use proto::pdpb::pd_client::PdClient;
use proto::pdpb::*;
use tls::Dialer;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use super::{Error, Failure, News, OnNews, PAUSE_MAX, PAUSE_MIN, retry};
use crate::pd_service::{heartbeat_to_wire, operator_of_wire};

/// One try; the caller's deadline bounds all of them together.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
/// To ask one endpoint who leads: a dead one must not take the whole time that a change of leaders may.
const FIND_TIMEOUT: Duration = Duration::from_millis(700);
/// A silent connection is asked for a sign of life after this long, and given up after as long again.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Heartbeats handed to the connection and not yet sent; the rest waits, latest of each region only.
const HEARTBEATS_SENDING: usize = 64;

/// See the module.
pub struct Remote {
    cluster: ClusterId,
    dialer: Dialer,
    leader: Mutex<Leader>,
    heartbeats: Arc<Heartbeats>,
    sender: Mutex<Option<JoinHandle<()>>>,
}

struct Leader {
    /// Where members are known to be, as URLs.
    endpoints: Vec<String>,
    /// None after a failure: to be found anew.
    client: Option<PdClient<Channel>>,
}

/// The latest heartbeat of each region that waits to be sent.
#[derive(Default)]
struct Heartbeats {
    waiting: Mutex<BTreeMap<RegionId, RegionInfo>>,
    filled: Notify,
}

impl Remote {
    pub async fn connect(
        endpoints: &[String],
        dialer: &Dialer,
        on_news: OnNews,
        deadline: MonoTime,
    ) -> Result<Arc<Remote>, Error> {
        let endpoints: Vec<String> = endpoints.iter().map(|endpoint| dialer.url(endpoint)).collect();
        let found = retry(deadline, || endpoints.join(", "), || find_leader(&endpoints, dialer, None)).await?;
        let leader = Mutex::new(Leader {
            endpoints: found.endpoints,
            client: Some(found.client),
        });
        let heartbeats = Arc::<Heartbeats>::default();
        let remote = Arc::new(Remote {
            cluster: found.cluster,
            dialer: dialer.clone(),
            leader,
            heartbeats,
            sender: Mutex::default(),
        });
        // The task must not keep the link alive: dropping the link ends it.
        let task = send_heartbeats(Arc::downgrade(&remote), remote.heartbeats.clone(), on_news);
        *remote.sender.lock() = Some(tokio::spawn(task));
        Ok(remote)
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    pub fn region_heartbeat(&self, info: RegionInfo) {
        self.heartbeats.waiting.lock().insert(info.id(), info);
        self.heartbeats.filled.notify_one();
    }

    /// One try of a request that stores make.
    pub async fn ask(&self, request: Request) -> Result<Reply, Failure> {
        let client = self.client().await?;
        let outcome = tokio::time::timeout(TRY_TIMEOUT, call(client, self.header(), request)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Refusal::Status(Status::deadline_exceeded("no answer in time"))));
        outcome.map_err(|refusal| self.on_refusal(refusal))
    }

    /// Where members are known to be, for people.
    pub fn endpoints(&self) -> String {
        self.leader.lock().endpoints.join(", ")
    }

    fn header(&self) -> RequestHeader {
        RequestHeader {
            cluster_id: self.cluster.0,
            ..RequestHeader::default()
        }
    }

    /// The member that leads, as last known or found now.
    async fn client(&self) -> Result<PdClient<Channel>, Failure> {
        let endpoints = {
            let leader = self.leader.lock();
            match &leader.client {
                Some(client) => return Ok(client.clone()),
                None => leader.endpoints.clone(),
            }
        };
        let found = find_leader(&endpoints, &self.dialer, Some(self.cluster)).await?;
        *self.leader.lock() = Leader {
            endpoints: found.endpoints,
            client: Some(found.client.clone()),
        };
        Ok(found.client)
    }

    fn on_refusal(&self, refusal: Refusal) -> Failure {
        match refusal {
            Refusal::Header(error) => Failure::Final(of_header(error)),
            Refusal::Status(status) => {
                self.leader.lock().client = None;
                Failure::Passing(status.message().to_owned())
            }
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.lock().take() {
            sender.abort();
        }
    }
}

/// Why the member that leads did not do it.
enum Refusal {
    Header(proto::pdpb::Error),
    Status(Status),
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Refusal {
        Refusal::Status(status)
    }
}

fn of_header(error: proto::pdpb::Error) -> Error {
    match error.r#type() {
        ErrorType::AlreadyBootstrapped => Error::AlreadyBootstrapped,
        ErrorType::NotBootstrapped => Error::NotBootstrapped,
        ErrorType::StoreTombstone => Error::StoreTombstone,
        _ => Error::Refused { reason: error.message },
    }
}

fn check(header: Option<ResponseHeader>) -> Result<(), Refusal> {
    header
        .and_then(|header| header.error)
        .map_or(Ok(()), |error| Err(Refusal::Header(error)))
}

async fn call(mut client: PdClient<Channel>, header: RequestHeader, request: Request) -> Result<Reply, Refusal> {
    let header = Some(header);
    match request {
        Request::IsBootstrapped => {
            let answer = client.is_bootstrapped(IsBootstrappedRequest { header }).await?.into_inner();
            check(answer.header).map(|()| Reply::Bootstrapped(answer.bootstrapped))
        }
        Request::Bootstrap { store, regions } => {
            let mut regions = regions.into_iter();
            let (store, region) = (Some(store), regions.next());
            let request = BootstrapRequest {
                header,
                store,
                region,
                ferrite_regions: regions.collect(),
            };
            check(client.bootstrap(request).await?.into_inner().header).map(|()| Reply::Done)
        }
        Request::AllocIds { count } => {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            let answer = client.alloc_id(AllocIdRequest { header, count }).await?.into_inner();
            // The wire tells the last id.
            check(answer.header).map(|()| Reply::Ids {
                first: answer.id + 1 - u64::from(count),
                count: count.into(),
            })
        }
        Request::PutStore(store) => {
            let request = PutStoreRequest {
                header,
                store: Some(store),
            };
            check(client.put_store(request).await?.into_inner().header).map(|()| Reply::Done)
        }
        Request::StoreHeartbeat(stats) => {
            let request = StoreHeartbeatRequest {
                header,
                stats: Some(stats),
                ..StoreHeartbeatRequest::default()
            };
            check(client.store_heartbeat(request).await?.into_inner().header).map(|()| Reply::Done)
        }
        Request::Store(id) => {
            let answer = client
                .get_store(GetStoreRequest { header, store_id: id.0 })
                .await?
                .into_inner();
            let (store, stats) = (answer.store.unwrap_or_default(), answer.stats);
            let view = StoreView {
                store,
                stats,
                liveness: Liveness::Up,
                load: Default::default(),
            };
            check(answer.header).map(|()| Reply::Store(Box::new(view)))
        }
        Request::Regions(lookups) => {
            let mut found = Vec::new();
            for lookup in lookups {
                let header = header.clone();
                let answer = match lookup {
                    pd::Lookup::Id(id) => {
                        let request = GetRegionByIdRequest {
                            header,
                            region_id: id.0,
                            need_buckets: false,
                        };
                        client.get_region_by_id(request).await?.into_inner()
                    }
                    pd::Lookup::Key(region_key) => {
                        let request = GetRegionRequest {
                            header,
                            region_key,
                            need_buckets: false,
                        };
                        client.get_region(request).await?.into_inner()
                    }
                    pd::Lookup::Previous(_) => unreachable!("stores know regions by id or key"),
                };
                check(answer.header)?;
                let info = |region| RegionInfo {
                    region,
                    leader: answer.leader.unwrap_or_default(),
                    ..RegionInfo::default()
                };
                found.push(answer.region.map(info).map(Arc::new));
            }
            Ok(Reply::Regions(found))
        }
        Request::Tso { count } => {
            let request = TsoRequest {
                header,
                count,
                ..TsoRequest::default()
            };
            // Asked too seldom to keep a stream open for it.
            let mut answers = client.tso(tokio_stream::once(request)).await?.into_inner();
            let answer = answers.message().await?;
            let answer = answer.ok_or_else(|| Status::unavailable("the stream of timestamps ended"))?;
            check(answer.header)?;
            let timestamp = answer.timestamp.unwrap_or_default();
            Ok(Reply::Timestamps {
                last: Ts(((timestamp.physical as u64) << Ts::LOGICAL_BITS) + timestamp.logical as u64),
                count: answer.count,
            })
        }
        Request::GcSafePoint => {
            let answer = client.get_gc_safe_point(GetGcSafePointRequest { header }).await?.into_inner();
            check(answer.header).map(|()| Reply::SafePoint(Ts(answer.safe_point)))
        }
        other => unreachable!("stores do not ask {other:?}"),
    }
}

struct Found {
    cluster: ClusterId,
    /// All members' URLs.
    endpoints: Vec<String>,
    client: PdClient<Channel>,
}

/// Asks one endpoint after another who leads.
async fn find_leader(endpoints: &[String], dialer: &Dialer, wanted: Option<ClusterId>) -> Result<Found, Failure> {
    let mut last = "no endpoint is given".to_owned();
    for endpoint in endpoints {
        match tokio::time::timeout(FIND_TIMEOUT, leader_by(endpoint, dialer)).await {
            Ok(Ok(found)) => {
                return match wanted.filter(|&wanted| wanted != found.cluster) {
                    None => Ok(found),
                    Some(wanted) => Err(Failure::Final(Error::WrongCluster {
                        wanted,
                        found: found.cluster,
                    })),
                };
            }
            Ok(Err(reason)) => last = reason,
            Err(_) => last = "no answer in time".to_owned(),
        }
    }
    Err(Failure::Passing(last))
}

async fn leader_by(endpoint: &str, dialer: &Dialer) -> Result<Found, String> {
    let mut seed = dial(endpoint, dialer).await?;
    let answer = seed
        .get_members(GetMembersRequest::default())
        .await
        .map_err(|status| tls::fault(&status).unwrap_or_else(|| status.message().to_owned()))?
        .into_inner();
    let leader = answer.leader.ok_or("no member leads")?;
    let mut endpoints: Vec<String> = answer.members.into_iter().flat_map(|member| member.client_urls).collect();
    // What worked once may work again when advertised addresses do not.
    endpoints.push(endpoint.to_owned());
    endpoints.sort();
    endpoints.dedup();
    let mut client = seed;
    if !leader.client_urls.iter().any(|url| url == endpoint)
        && let Some(url) = leader.client_urls.first()
    {
        client = dial(url, dialer).await?;
    }
    Ok(Found {
        cluster: ClusterId(answer.header.unwrap_or_default().cluster_id),
        endpoints,
        client,
    })
}

async fn dial(url: &str, dialer: &Dialer) -> Result<PdClient<Channel>, String> {
    let endpoint = dialer.endpoint(url).map_err(|error| error.to_string())?;
    let endpoint = endpoint
        .tcp_nodelay(true)
        .connect_timeout(FIND_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true);
    let channel = dialer
        .connect(endpoint)
        .await
        .map_err(|error| tls::fault(&error).unwrap_or_else(|| base::log::chain(&error).to_string()))?;
    Ok(PdClient::new(channel))
}

/// Keeps a stream of heartbeats open, for as long as the link lives.
async fn send_heartbeats(remote: std::sync::Weak<Remote>, heartbeats: Arc<Heartbeats>, on_news: OnNews) {
    let mut pause = PAUSE_MIN;
    loop {
        let Some(link) = remote.upgrade() else { return };
        let (header, client) = (link.header(), link.client().await);
        drop(link);
        let reason = match client {
            Ok(client) => {
                let opened = MonoTime::now();
                let status = run_stream(client, header, &heartbeats, &on_news).await;
                if MonoTime::now().since(opened) > PAUSE_MAX {
                    pause = PAUSE_MIN;
                }
                let Some(link) = remote.upgrade() else { return };
                link.leader.lock().client = None;
                status.message().to_owned()
            }
            Err(Failure::Final(error)) => error.to_string(),
            Err(Failure::Passing(reason)) => reason,
        };
        tracing::debug!(reason, "open the stream of heartbeats again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Sends heartbeats and tells of answers until the stream breaks.
async fn run_stream(mut client: PdClient<Channel>, header: RequestHeader, heartbeats: &Heartbeats, on_news: &OnNews) -> Status {
    let (sender, receiver) = mpsc::channel(HEARTBEATS_SENDING);
    let mut answers = match client.region_heartbeat(ReceiverStream::new(receiver)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return status,
    };
    // A member that was just found may know nothing; from here on it can tell when it wants to know more.
    on_news(News::Forgotten);
    let send = async {
        loop {
            heartbeats.filled.notified().await;
            loop {
                let Some((_, info)) = heartbeats.waiting.lock().pop_first() else {
                    break;
                };
                let request = RegionHeartbeatRequest {
                    header: Some(header.clone()),
                    ..heartbeat_to_wire(info)
                };
                if sender.send(request).await.is_err() {
                    return Status::unavailable("the stream of heartbeats closed");
                }
            }
        }
    };
    let receive = async {
        loop {
            match answers.next().await {
                Some(Ok(answer)) => on_answer(answer, on_news),
                Some(Err(status)) => return status,
                None => return Status::unavailable("the stream of heartbeats ended"),
            }
        }
    };
    tokio::select! {
        status = send => status,
        status = receive => status,
    }
}

fn on_answer(answer: RegionHeartbeatResponse, on_news: &OnNews) {
    let region = RegionId(answer.region_id);
    if !region.is_some() {
        return on_news(News::Forgotten);
    }
    if let Some(error) = answer.header.as_ref().and_then(|header| header.error.as_ref()) {
        tracing::debug!(
            region_id = region.0,
            error = error.message,
            "heartbeat of a region was not taken"
        );
    }
    if let Some(operator) = operator_of_wire(&answer) {
        let (epoch, leader) = (
            answer.region_epoch.unwrap_or_default(),
            answer.target_peer.unwrap_or_default(),
        );
        on_news(News::Order {
            region,
            epoch,
            leader,
            operator,
        });
    }
}
