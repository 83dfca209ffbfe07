//! A store's link to the placement driver, in the same process or over gRPC: who am I, where are the others, what should I do.
//!
//! [`StorePd`] is asked with a deadline and tries again until then: another member may lead, or the only one restart. Heartbeats of
//! regions are handed over without waiting; the latest of each region is kept until it can be sent, so what waits is bounded by the
//! number of regions. What comes back is told through [`OnNews`].

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use base::{ClusterId, MonoTime, RegionId, StoreId, Ts};
use bytes::Bytes;
use parking_lot::Mutex;
use pd::{Lookup, Operator, RegionInfo, Reply, Request};
use proto::metapb::{Peer, Region, RegionEpoch, Store};
use proto::pdpb::StoreStats;
use tls::Dialer;

use crate::pd_service;
use remote::Remote;

mod remote;
#[cfg(test)]
mod tests;

/// Why the placement driver did not do what a store asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// No member answered in time; what was asked may have been done.
    #[error("no placement driver answers at {endpoints}: {reason}")]
    Unreachable { endpoints: String, reason: String },
    #[error("placement driver belongs to cluster {found}, not to {wanted}")]
    WrongCluster { wanted: ClusterId, found: ClusterId },
    #[error("cluster is already bootstrapped")]
    AlreadyBootstrapped,
    #[error("cluster is not bootstrapped")]
    NotBootstrapped,
    /// This store was taken out of the cluster for good.
    #[error("store was removed from the cluster")]
    StoreTombstone,
    /// The placement driver says no, and would say so again.
    #[error("placement driver refuses: {reason}")]
    Refused { reason: String },
}

/// What the placement driver tells a store.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// For the leader of `region`, as long as its epoch is `epoch`.
    Order {
        region: RegionId,
        epoch: RegionEpoch,
        leader: Peer,
        operator: Operator,
    },
    /// The placement driver may have forgotten what it was told, or has more to order: heartbeat every region that is led here.
    Forgotten,
}

/// Called on any thread; must not block.
pub type OnNews = Arc<dyn Fn(News) + Send + Sync>;

/// What a store needs from the placement driver. Async calls try until `deadline`.
#[tonic::async_trait]
pub trait PdLink: Send + Sync + 'static {
    fn cluster(&self) -> ClusterId;

    async fn is_bootstrapped(&self, deadline: MonoTime) -> Result<bool, Error>;

    /// Makes the cluster, with first regions that cover all keys in order. `AlreadyBootstrapped` when another store was first, or
    /// when an answer to this very call was lost.
    async fn bootstrap(&self, store: Store, regions: Vec<Region>, deadline: MonoTime) -> Result<(), Error>;

    /// `count` consecutive ids that nobody else gets; returns the first.
    async fn alloc_ids(&self, count: u32, deadline: MonoTime) -> Result<u64, Error>;

    /// Tells this store's address, version and labels; to be done at every start.
    async fn put_store(&self, store: Store, deadline: MonoTime) -> Result<(), Error>;

    async fn store_heartbeat(&self, stats: StoreStats, deadline: MonoTime) -> Result<(), Error>;

    /// A store's address and state, which may be as old as the last [`PdLink::forget_store`] of it.
    async fn store(&self, id: StoreId, deadline: MonoTime) -> Result<Store, Error>;

    /// A region as the placement driver knows it; `None` if it does not.
    async fn region(&self, id: RegionId, deadline: MonoTime) -> Result<Option<Region>, Error>;

    /// The store that leads the region of a region key, as far as the placement driver knows.
    async fn leader_of(&self, key: Bytes, deadline: MonoTime) -> Result<Option<StoreId>, Error>;

    /// A timestamp that is given after this call.
    async fn timestamp(&self, deadline: MonoTime) -> Result<Ts, Error>;

    /// Below it, no snapshot is read any more: old versions may be collected.
    async fn gc_safe_point(&self, deadline: MonoTime) -> Result<Ts, Error>;

    /// What is known of the store may be wrong: ask again next time.
    fn forget_store(&self, id: StoreId);

    /// Tells of a region that is led here. Never waits.
    fn region_heartbeat(&self, info: RegionInfo);
}

/// See the module.
pub struct StorePd {
    link: Link,
    cluster: ClusterId,
    stores: Mutex<BTreeMap<StoreId, Store>>,
}

enum Link {
    /// In this process.
    Local {
        pd: pd::Handle,
        on_news: OnNews,
    },
    Remote(Arc<Remote>),
}

impl StorePd {
    /// A link to the placement driver of this process.
    pub fn local(pd: pd::Handle, on_news: OnNews) -> StorePd {
        let listener = Arc::downgrade(&on_news);
        pd.on_want_reports(Box::new(move || {
            listener.upgrade().is_some_and(|on_news| {
                on_news(News::Forgotten);
                true
            })
        }));
        StorePd {
            cluster: pd.cluster(),
            link: Link::Local { pd, on_news },
            stores: Mutex::default(),
        }
    }

    /// A link over the network. `endpoints` are `host:port` or URLs of some members; the others are found through them. Waits until
    /// `deadline` for one to answer. Call it on the runtime.
    pub async fn connect(endpoints: &[String], dialer: &Dialer, on_news: OnNews, deadline: MonoTime) -> Result<StorePd, Error> {
        let remote = Remote::connect(endpoints, dialer, on_news, deadline).await?;
        Ok(StorePd {
            cluster: remote.cluster(),
            link: Link::Remote(remote),
            stores: Mutex::default(),
        })
    }

    async fn ask(&self, request: Request, deadline: MonoTime) -> Result<Reply, Error> {
        match &self.link {
            Link::Local { pd, .. } => retry(deadline, || "this process".to_owned(), || ask_local(pd, request.clone())).await,
            Link::Remote(remote) => retry(deadline, || remote.endpoints(), || remote.ask(request.clone())).await,
        }
    }
}

/// Each request has its kind of reply.
fn mismatch(reply: Reply) -> ! {
    unreachable!("a reply to another request: {reply:?}")
}

#[tonic::async_trait]
impl PdLink for StorePd {
    fn cluster(&self) -> ClusterId {
        self.cluster
    }

    async fn is_bootstrapped(&self, deadline: MonoTime) -> Result<bool, Error> {
        match self.ask(Request::IsBootstrapped, deadline).await? {
            Reply::Bootstrapped(bootstrapped) => Ok(bootstrapped),
            other => mismatch(other),
        }
    }

    async fn bootstrap(&self, store: Store, regions: Vec<Region>, deadline: MonoTime) -> Result<(), Error> {
        self.ask(Request::Bootstrap { store, regions }, deadline).await.map(drop)
    }

    async fn alloc_ids(&self, count: u32, deadline: MonoTime) -> Result<u64, Error> {
        match self.ask(Request::AllocIds { count: count.into() }, deadline).await? {
            Reply::Ids { first, .. } => Ok(first),
            other => mismatch(other),
        }
    }

    async fn put_store(&self, store: Store, deadline: MonoTime) -> Result<(), Error> {
        self.ask(Request::PutStore(store), deadline).await.map(drop)
    }

    async fn store_heartbeat(&self, stats: StoreStats, deadline: MonoTime) -> Result<(), Error> {
        self.ask(Request::StoreHeartbeat(stats), deadline).await.map(drop)
    }

    async fn store(&self, id: StoreId, deadline: MonoTime) -> Result<Store, Error> {
        let known = self.stores.lock().get(&id).cloned();
        if let Some(store) = known {
            return Ok(store);
        }
        match self.ask(Request::Store(id), deadline).await? {
            Reply::Store(view) => {
                self.stores.lock().insert(id, view.store.clone());
                Ok(view.store)
            }
            other => mismatch(other),
        }
    }

    async fn region(&self, id: RegionId, deadline: MonoTime) -> Result<Option<Region>, Error> {
        match self.ask(Request::Regions(vec![Lookup::Id(id)]), deadline).await? {
            Reply::Regions(mut found) => Ok(found.pop().flatten().map(|info| info.region.clone())),
            other => mismatch(other),
        }
    }

    async fn leader_of(&self, key: Bytes, deadline: MonoTime) -> Result<Option<StoreId>, Error> {
        match self.ask(Request::Regions(vec![Lookup::Key(key)]), deadline).await? {
            Reply::Regions(mut found) => {
                let leader = found.pop().flatten().map(|info| StoreId(info.leader.store_id));
                Ok(leader.filter(|leader| leader.is_some()))
            }
            other => mismatch(other),
        }
    }

    async fn timestamp(&self, deadline: MonoTime) -> Result<Ts, Error> {
        match self.ask(Request::Tso { count: 1 }, deadline).await? {
            Reply::Timestamps { last, .. } => Ok(last),
            other => mismatch(other),
        }
    }

    async fn gc_safe_point(&self, deadline: MonoTime) -> Result<Ts, Error> {
        match self.ask(Request::GcSafePoint, deadline).await? {
            Reply::SafePoint(ts) => Ok(ts),
            other => mismatch(other),
        }
    }

    fn forget_store(&self, id: StoreId) {
        self.stores.lock().remove(&id);
    }

    fn region_heartbeat(&self, info: RegionInfo) {
        match &self.link {
            Link::Local { pd, on_news } => heartbeat_local(pd, on_news.clone(), info),
            Link::Remote(remote) => remote.region_heartbeat(info),
        }
    }
}

/// Why one try failed.
enum Failure {
    /// Another try may do better.
    Passing(String),
    Final(Error),
}

/// Tries until it works, fails for good, or `deadline` has passed; waits ever longer in between. `endpoints` tells who was asked.
async fn retry<T, F: Future<Output = Result<T, Failure>>>(
    deadline: MonoTime,
    endpoints: impl Fn() -> String,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Error> {
    let mut pause = PAUSE_MIN;
    let mut reason = "no answer in time".to_owned();
    loop {
        match tokio::time::timeout(deadline.since(MonoTime::now()), attempt()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(Failure::Final(error))) => return Err(error),
            Ok(Err(Failure::Passing(passing))) => reason = passing,
            Err(_) => {}
        }
        if MonoTime::now() + pause >= deadline {
            return Err(Error::Unreachable {
                endpoints: endpoints(),
                reason,
            });
        }
        tracing::debug!(reason, "ask the placement driver again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

async fn ask_local(pd: &pd::Handle, request: Request) -> Result<Reply, Failure> {
    pd_service::ask(pd, request).await.map_err(|error| match error {
        pd::Error::NotLeader | pd::Error::Busy | pd::Error::Stopped => Failure::Passing(error.to_string()),
        pd::Error::AlreadyBootstrapped => Failure::Final(Error::AlreadyBootstrapped),
        pd::Error::NotBootstrapped => Failure::Final(Error::NotBootstrapped),
        pd::Error::StoreTombstone { .. } => Failure::Final(Error::StoreTombstone),
        pd::Error::Invalid { .. }
        | pd::Error::MembersStay { .. }
        | pd::Error::MemberNotFound { .. }
        | pd::Error::StoreNotFound { .. }
        | pd::Error::AddressTaken { .. }
        | pd::Error::StaleRegion { .. }
        | pd::Error::Gap
        | pd::Error::SafePointBehind { .. }
        | pd::Error::SafePointAhead { .. } => Failure::Final(Error::Refused {
            reason: error.to_string(),
        }),
    })
}

fn heartbeat_local(pd: &pd::Handle, on_news: OnNews, info: RegionInfo) {
    let (region, epoch, leader) = (info.id(), info.region.region_epoch.unwrap_or_default(), info.leader);
    let told = move |outcome| match outcome {
        Ok(Reply::Operator(Some(operator))) => on_news(News::Order {
            region,
            epoch,
            leader,
            operator,
        }),
        Ok(_) => {}
        Err(error) => tracing::debug!(region_id = region.0, %error, "heartbeat of a region was not taken"),
    };
    pd.submit(Request::RegionHeartbeat(info), Box::new(told));
}
