//! The placement driver: who leads it, regions, stores, keyspaces, timestamps.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, RegionId, StoreId, Ts};
use bytes::Bytes;
use parking_lot::RwLock;
use proto::keyspacepb::keyspace_client::KeyspaceClient;
use proto::pdpb::pd_client::PdClient;
use proto::{keyspacepb, metapb, pdpb};
use tls::{ClientOptions as TlsOptions, Dialer};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::call::{Call, Seeds};
use crate::error::{PdError, is_refusal};
use crate::metrics::{Command, Counters, Metrics, RequestOutcome};
use crate::retry::Cause;
use crate::tso::Tso;
use crate::{Error, net};

/// Time for one member to say who leads, so that a dead one does not take the whole deadline.
const MEMBERS_MAX: Duration = Duration::from_secs(2);

/// A client of the placement driver. Clones share the connection. Every call ends within the deadline given at
/// [`Pd::connect`], follows the leader, and is repeated while PD is unreachable, without leader or not bootstrapped.
#[derive(Clone)]
pub struct Pd {
    shared: Arc<Shared>,
    tso: Tso,
}

/// What clones share.
pub(crate) struct Shared {
    seeds: Vec<String>,
    dialer: Dialer,
    deadline: Duration,
    cluster_id: u64,
    link: RwLock<Arc<Link>>,
    /// Held while looking for the leader, so that one caller looks for all.
    looking: tokio::sync::Mutex<()>,
    jitter: Seeds,
}

/// Connection to the member that led when it was made.
pub(crate) struct Link {
    pub url: String,
    pub client: PdClient<Channel>,
    keyspaces: KeyspaceClient<Channel>,
    members: Vec<String>,
}

impl Pd {
    /// Asks `endpoints` (`host:port` or `http://host:port`) in turn who leads, and connects there.
    /// Errors: none answers within `deadline`, an address is none, or they belong to different clusters.
    pub async fn connect(endpoints: &[impl AsRef<str>], deadline: Duration) -> Result<Pd, Error> {
        Pd::connect_by(Dialer::plain(), endpoints, deadline).await
    }

    /// The same by TLS. Errors besides: the certificates cannot be used, or the other side does not take them.
    pub async fn connect_secure(endpoints: &[impl AsRef<str>], deadline: Duration, options: &TlsOptions) -> Result<Pd, Error> {
        let dialer = Dialer::new(Some(options)).map_err(Error::Certificates)?;
        Pd::connect_by(dialer, endpoints, deadline).await
    }

    pub(crate) async fn connect_by(dialer: Dialer, endpoints: &[impl AsRef<str>], deadline: Duration) -> Result<Pd, Error> {
        let seeds: Vec<String> = endpoints
            .iter()
            .map(|endpoint| net::url(&dialer, endpoint.as_ref()))
            .collect();
        let jitter = Seeds::new(MonoTime::now().0 ^ (std::process::id() as u64) << 32, Arc::default());
        let mut call = Call::begin(deadline, &jitter);
        let (link, cluster_id) = loop {
            call.on_try();
            match find_leader(&dialer, seeds.iter(), 0, call.left()).await {
                Ok(found) => break found,
                Err(error @ (Error::BadAddress { .. } | Error::WrongCluster { .. } | Error::Tls { .. })) => return Err(error),
                Err(error) => call
                    .pause(Cause::Unreachable, 0, error)
                    .await
                    .map_err(|over| unreachable(&seeds, deadline, over))?,
            }
        };
        let link = RwLock::new(Arc::new(link));
        let shared = Arc::new(Shared {
            seeds,
            dialer,
            deadline,
            cluster_id,
            link,
            looking: Default::default(),
            jitter,
        });
        Ok(Pd {
            tso: Tso::new(shared.clone()),
            shared,
        })
    }

    /// Id of the cluster, told by PD.
    pub fn cluster_id(&self) -> u64 {
        self.shared.cluster_id
    }

    pub(crate) fn counters(&self) -> Arc<Counters> {
        self.shared.jitter.counters.clone()
    }

    /// What this client has done so far, with what clients over it have.
    pub fn metrics(&self) -> Metrics {
        self.shared.jitter.counters.read()
    }

    /// Dials as this client does, for services of the cluster that it does not speak.
    pub fn dialer(&self) -> &Dialer {
        &self.shared.dialer
    }

    /// URL of the member that is asked.
    pub fn leader_url(&self) -> String {
        self.shared.link().url.clone()
    }

    fn begin(&self) -> Call {
        Call::begin(self.shared.deadline, &self.shared.jitter)
    }

    /// All members, and which of them leads.
    pub async fn members(&self) -> Result<pdpb::GetMembersResponse, Error> {
        let mut call = self.begin();
        self.shared
            .ask(&mut call, |link, header| {
                let mut client = link.client.clone();
                async move { client.get_members(pdpb::GetMembersRequest { header: Some(header) }).await }
            })
            .await
    }

    /// All stores, removed ones too unless they are to be left out, by id.
    pub async fn stores(&self, leave_out_removed: bool) -> Result<Vec<metapb::Store>, Error> {
        let mut call = self.begin();
        let answer = self.shared.ask(&mut call, |link, header| {
            let mut client = link.client.clone();
            let request = pdpb::GetAllStoresRequest {
                header: Some(header),
                exclude_tombstone_stores: leave_out_removed,
            };
            async move { client.get_all_stores(request).await }
        });
        let mut stores = answer.await?.stores;
        stores.sort_by_key(|store| store.id);
        Ok(stores)
    }

    /// One store with its last statistics. Errors with [`PdError::NotFound`] if there is none of that id.
    pub async fn store(&self, id: StoreId) -> Result<(metapb::Store, pdpb::StoreStats), Error> {
        self.store_within(&mut self.begin(), id).await
    }

    pub(crate) async fn store_within(&self, call: &mut Call, id: StoreId) -> Result<(metapb::Store, pdpb::StoreStats), Error> {
        let answer = self.shared.ask(call, |link, header| {
            let mut client = link.client.clone();
            let request = pdpb::GetStoreRequest {
                header: Some(header),
                store_id: id.0,
            };
            async move { client.get_store(request).await }
        });
        let answer = answer.await?;
        let store = answer.store.filter(|store| store.id == id.0);
        let store = store.ok_or_else(|| not_found(format!("there is no store {id}")))?;
        Ok((store, answer.stats.unwrap_or_default()))
    }

    /// The region that holds `border`, a key in the form that borders are written in. Waits for one with a leader.
    pub async fn region(&self, border: Bytes) -> Result<pdpb::Region, Error> {
        self.region_within(&mut self.begin(), border, false).await
    }

    /// The region before the one that holds `border`.
    pub async fn previous_region(&self, border: Bytes) -> Result<pdpb::Region, Error> {
        self.region_within(&mut self.begin(), border, true).await
    }

    pub(crate) async fn region_within(&self, call: &mut Call, border: Bytes, previous: bool) -> Result<pdpb::Region, Error> {
        loop {
            let answer = self.shared.ask(call, |link, header| {
                let mut client = link.client.clone();
                let request = pdpb::GetRegionRequest {
                    header: Some(header),
                    region_key: border.clone(),
                    need_buckets: false,
                };
                async move {
                    match previous {
                        true => client.get_prev_region(request).await,
                        false => client.get_region(request).await,
                    }
                }
            });
            match led_region(answer.await?) {
                Some(region) => return Ok(region),
                None => call.pause(Cause::Election, 0, no_leader_yet()).await?,
            }
        }
    }

    /// The region with an id, led or not. Errors with [`PdError::NotFound`] if there is none.
    pub async fn region_by_id(&self, id: RegionId) -> Result<pdpb::Region, Error> {
        let mut call = self.begin();
        let answer = self.shared.ask_once(&mut call, |link, header| {
            let mut client = link.client.clone();
            let request = pdpb::GetRegionByIdRequest {
                header: Some(header),
                region_id: id.0,
                need_buckets: false,
            };
            async move { client.get_region_by_id(request).await }
        });
        let missing = || not_found(format!("there is no region {id}"));
        match answer.await {
            Ok(answer) => any_region(answer)
                .filter(|region| region.region.is_some())
                .ok_or_else(missing),
            Err(Error::Pd {
                kind: PdError::RegionNotFound,
                ..
            }) => Err(missing()),
            Err(error) => Err(error),
        }
    }

    /// Up to `limit` regions in order, from the one that holds `start` to before `end` (empty for no bound), both in the
    /// form of borders. A limit of 0 is none.
    pub async fn scan_regions(&self, start: Bytes, end: Bytes, limit: usize) -> Result<Vec<pdpb::Region>, Error> {
        let mut call = self.begin();
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let answer = self.shared.ask(&mut call, |link, header| {
            let mut client = link.client.clone();
            let (start_key, end_key) = (start.clone(), end.clone());
            let request = pdpb::ScanRegionsRequest {
                header: Some(header),
                start_key,
                end_key,
                limit,
            };
            async move { client.scan_regions(request).await }
        });
        Ok(answer.await?.regions)
    }

    /// Lets regions end at these borders; waits a few seconds for it. Tells in hundredths how much came about, and the regions
    /// that begin there.
    pub async fn split_regions(&self, borders: Vec<Bytes>) -> Result<(u64, Vec<RegionId>), Error> {
        let mut call = self.begin();
        let answer = self.shared.ask(&mut call, |link, header| {
            let mut client = link.client.clone();
            let request = pdpb::SplitRegionsRequest {
                header: Some(header),
                split_keys: borders.clone(),
                ..pdpb::SplitRegionsRequest::default()
            };
            async move { client.split_regions(request).await }
        });
        let answer = answer.await?;
        let ids = answer.regions_id.into_iter().map(RegionId).collect();
        Ok((answer.finished_percentage, ids))
    }

    /// Id of a keyspace. Errors with [`PdError::NotFound`] if there is none of that name.
    pub async fn keyspace_id(&self, name: &str) -> Result<u32, Error> {
        let mut call = self.begin();
        let answer = self.shared.ask(&mut call, |link, header| {
            let mut client = link.keyspaces.clone();
            let request = keyspacepb::LoadKeyspaceRequest {
                header: Some(header),
                name: name.to_owned(),
            };
            async move { client.load_keyspace(request).await }
        });
        let keyspace = answer
            .await?
            .keyspace
            .ok_or_else(|| not_found(format!("there is no keyspace `{name}`")))?;
        Ok(keyspace.id)
    }

    /// Moves the safe point of garbage collection towards `target`; never back, and never past what services hold on to.
    /// Returns where it is. All locks up to `target` must be resolved before.
    pub async fn update_gc_safe_point(&self, target: Ts) -> Result<Ts, Error> {
        let mut call = self.begin();
        let answer = self.shared.ask(&mut call, |link, header| {
            let mut client = link.client.clone();
            let request = pdpb::UpdateGcSafePointRequest {
                header: Some(header),
                safe_point: target.0,
            };
            async move { client.update_gc_safe_point(request).await }
        });
        Ok(Ts(answer.await?.new_safe_point))
    }

    /// A timestamp greater than every one given out before. Callers that wait at the same time share one request.
    pub async fn timestamp(&self) -> Result<Ts, Error> {
        self.timestamp_within(&mut self.begin()).await
    }

    pub(crate) async fn timestamp_within(&self, call: &mut Call) -> Result<Ts, Error> {
        loop {
            call.on_try();
            let counted = self.shared.jitter.counters.begin(Command::TSO);
            let answer = tokio::time::timeout(call.left(), self.tso.timestamp()).await;
            counted.end(match &answer {
                Ok(Ok(_)) => RequestOutcome::Ok,
                Ok(Err(_)) => RequestOutcome::Failed,
                Err(_) => RequestOutcome::Deadline,
            });
            match answer {
                Ok(Ok(ts)) => return Ok(ts),
                Ok(Err(error)) => call.pause(Cause::Unreachable, 0, error).await?,
                Err(_elapsed) => return Err(call.over(None)),
            }
        }
    }
}

impl Shared {
    pub fn link(&self) -> Arc<Link> {
        self.link.read().clone()
    }

    pub fn header(&self) -> pdpb::RequestHeader {
        pdpb::RequestHeader {
            cluster_id: self.cluster_id,
            ..Default::default()
        }
    }

    /// Asks the leader until it answers without one of the errors that pass.
    async fn ask<A: Answer, F, Fut>(&self, call: &mut Call, request: F) -> Result<A, Error>
    where
        F: Fn(&Link, pdpb::RequestHeader) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        loop {
            match self.ask_once(call, &request).await {
                Err(
                    error @ Error::Pd {
                        kind: PdError::NotBootstrapped | PdError::RegionNotFound,
                        ..
                    },
                ) => call.pause(Cause::Election, 0, error).await?,
                settled => return settled,
            }
        }
    }

    /// Asks the leader until it answers.
    async fn ask_once<A: Answer, F, Fut>(&self, call: &mut Call, request: F) -> Result<A, Error>
    where
        F: Fn(&Link, pdpb::RequestHeader) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        loop {
            let link = self.link();
            call.on_try();
            let counted = self.jitter.counters.begin(Command::PD);
            let answer = tokio::time::timeout(call.left(), request(&link, self.header())).await;
            counted.end(match &answer {
                Ok(Ok(_)) => RequestOutcome::Ok,
                Ok(Err(status)) if is_refusal(status) => RequestOutcome::Refused,
                Ok(Err(_)) => RequestOutcome::Failed,
                Err(_) => RequestOutcome::Deadline,
            });
            let Ok(answer) = answer else { return Err(call.over(None)) };
            match answer {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    return check_header(answer.header(), &link.url, self.cluster_id).map(|()| answer);
                }
                Err(status) if is_refusal(&status) => return Err(Error::rpc(&link.url, status)),
                Err(status) => {
                    call.pause(Cause::Unreachable, 0, Error::rpc(&link.url, status)).await?;
                    self.look_for_leader(&link, call.left()).await;
                }
            }
        }
    }

    /// Finds the leader anew unless another caller did so since `failed` was in use. On failure the old link stays.
    pub async fn look_for_leader(&self, failed: &Arc<Link>, left: Duration) {
        let looked = async {
            let _looking = self.looking.lock().await;
            if !Arc::ptr_eq(failed, &self.link()) {
                return;
            }
            let candidates: BTreeSet<&String> = failed.members.iter().chain(&self.seeds).collect();
            match find_leader(&self.dialer, candidates.into_iter(), self.cluster_id, left).await {
                Ok((link, _)) => *self.link.write() = Arc::new(link),
                Err(error) => tracing::debug!(error = %base::log::chain(&error), "find the placement driver's leader"),
            }
        };
        // Waiting for another caller counts too; the deadline is the caller's to report.
        let _in_time = tokio::time::timeout(left, looked).await;
    }
}

/// Asks `candidates` in turn who leads cluster `expected` (0 for any) and returns a connection there and the cluster's id.
async fn find_leader<'a>(
    dialer: &Dialer,
    candidates: impl Iterator<Item = &'a String>,
    expected: u64,
    left: Duration,
) -> Result<(Link, u64), Error> {
    let deadline = MonoTime::now() + left;
    let mut last = Error::Pd {
        kind: PdError::Other,
        message: "no endpoint was given".into(),
    };
    for address in candidates {
        let mut client = PdClient::new(net::lazy(dialer, address)?);
        let asked = client.get_members(pdpb::GetMembersRequest {
            header: Some(Default::default()),
        });
        let time = MEMBERS_MAX.min(deadline.since(MonoTime::now()));
        let answer = match tokio::time::timeout(time, asked).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => {
                last = Error::rpc(address, status);
                continue;
            }
            Err(_elapsed) => {
                last = Error::rpc(address, Status::deadline_exceeded("does not say who leads"));
                continue;
            }
        };
        let cluster_id = answer.header.as_ref().map_or(0, |header| header.cluster_id);
        check_header(
            answer.header.as_ref(),
            address,
            if expected == 0 { cluster_id } else { expected },
        )?;
        match answer.leader {
            Some(leader) if !leader.client_urls.is_empty() => {
                let url = reachable_url(dialer, &leader.client_urls, address).await;
                let channel = net::lazy(dialer, &url)?;
                let members = answer.members.into_iter().flat_map(|member| member.client_urls).collect();
                let (client, keyspaces) = (PdClient::new(channel.clone()), KeyspaceClient::new(channel));
                return Ok((
                    Link {
                        url,
                        client,
                        keyspaces,
                        members,
                    },
                    cluster_id,
                ));
            }
            _ => {
                last = Error::Pd {
                    kind: PdError::Other,
                    message: "its members have no leader yet".into(),
                }
            }
        }
    }
    Err(last)
}

/// The first advertised URL that can be reached; else `answered`, which just was: a port may be forwarded from elsewhere.
async fn reachable_url(dialer: &Dialer, advertised: &[String], answered: &str) -> String {
    for url in advertised {
        if url == answered || net::reachable(dialer, url).await {
            return url.clone();
        }
    }
    tracing::warn!(
        ?advertised,
        used = answered,
        "the placement driver's advertised URLs cannot be reached"
    );
    answered.to_owned()
}

fn check_header(header: Option<&pdpb::ResponseHeader>, address: &str, expected: u64) -> Result<(), Error> {
    let protocol = |what: &str| Error::Protocol {
        address: address.to_owned(),
        what: what.to_owned(),
    };
    let header = header.ok_or_else(|| protocol("no header"))?;
    let Some(error) = &header.error else {
        let actual = header.cluster_id;
        let wrong = Error::WrongCluster {
            address: address.to_owned(),
            expected,
            actual,
        };
        return if actual == expected && actual != 0 {
            Ok(())
        } else {
            Err(wrong)
        };
    };
    let kind = match error.r#type() {
        pdpb::ErrorType::Ok => return Ok(()),
        pdpb::ErrorType::NotBootstrapped => PdError::NotBootstrapped,
        pdpb::ErrorType::RegionNotFound => PdError::RegionNotFound,
        pdpb::ErrorType::EntryNotFound | pdpb::ErrorType::StoreTombstone => PdError::NotFound,
        // PD has no kind of its own for an unknown store; other clients go by this text too.
        _ if error.message.contains("invalid store ID") => PdError::NotFound,
        _ => PdError::Other,
    };
    Err(Error::Pd {
        kind,
        message: error.message.clone(),
    })
}

fn unreachable(endpoints: &[String], waited: Duration, over: Error) -> Error {
    let last = match over {
        Error::DeadlineExceeded { last, .. } => last,
        other => Some(Box::new(other)),
    };
    Error::PdUnreachable {
        endpoints: endpoints.join(", "),
        waited,
        last,
    }
}

fn not_found(message: String) -> Error {
    Error::Pd {
        kind: PdError::NotFound,
        message,
    }
}

fn no_leader_yet() -> Error {
    Error::Pd {
        kind: PdError::RegionNotFound,
        message: "the region has no leader yet".into(),
    }
}

fn any_region(answer: pdpb::GetRegionResponse) -> Option<pdpb::Region> {
    let pdpb::GetRegionResponse {
        region,
        leader,
        down_peers,
        pending_peers,
        buckets,
        ..
    } = answer;
    Some(pdpb::Region {
        region,
        leader,
        down_peers,
        pending_peers,
        buckets,
    })
}

fn led_region(answer: pdpb::GetRegionResponse) -> Option<pdpb::Region> {
    any_region(answer).filter(|region| region.region.is_some() && region.leader.as_ref().is_some_and(|leader| leader.id != 0))
}

/// An answer of PD: always with a header.
pub(crate) trait Answer {
    fn header(&self) -> Option<&pdpb::ResponseHeader>;
}

macro_rules! answers {
    ($($type:ty),* $(,)?) => {
        $(impl Answer for $type {
            fn header(&self) -> Option<&pdpb::ResponseHeader> {
                self.header.as_ref()
            }
        })*
    };
}
answers!(
    pdpb::GetMembersResponse,
    pdpb::GetAllStoresResponse,
    pdpb::GetStoreResponse,
    pdpb::GetRegionResponse,
    pdpb::ScanRegionsResponse,
    pdpb::SplitRegionsResponse,
    pdpb::UpdateGcSafePointResponse,
    keyspacepb::LoadKeyspaceResponse,
);
