//! Divides regions of this store: by their size, by clients' wish, by the placement driver's.

use std::sync::{Arc, OnceLock};

use base::{MonoTime, RegionId};
use bytes::Bytes;
use engine::kv;
use futures::FutureExt;
use futures::future::BoxFuture;
use proto::metapb::Region;
use raftstore::command::AdminError;
use raftstore::peer::SplitWanted;
use raftstore::shell::RaftStore;
use raftstore::split::{self, SPLIT_MAX, SplitOne};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::{debug, info};

use super::store::deadline;
use crate::pd_client::PdLink;
use crate::tikv_service::Splits;

/// Divides regions that a store leads. Clones share it.
#[derive(Clone)]
pub(super) struct Splitter {
    link: Arc<dyn PdLink>,
    /// Empty until the store runs.
    store: Arc<OnceLock<RaftStore>>,
    runtime: Handle,
}

/// Why a region was not divided.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Store(#[from] AdminError),
    #[error("ask for ids of new regions")]
    Ids(#[source] crate::pd_client::Error),
}

impl Splitter {
    /// Call it on the runtime.
    pub(super) fn new(link: Arc<dyn PdLink>, store: Arc<OnceLock<RaftStore>>) -> Splitter {
        Splitter {
            link,
            store,
            runtime: Handle::current(),
        }
    }

    /// Divides in the background; who wants it asks again if nothing comes of it.
    pub(super) fn begin(&self, wanted: SplitWanted, why: &'static str) {
        let splitter = self.clone();
        self.runtime.spawn(async move {
            let SplitWanted { region, keys } = wanted;
            let id = region.id;
            match splitter.split(region, keys, deadline()).await {
                Ok(regions) => info!(region_id = id, parts = regions.len(), why, "region divided"),
                Err(error) => debug!(region_id = id, error = %base::log::chain(&error), why, "region was not divided"),
            }
        });
    }

    /// All parts, ascending. Keys that are borders already are no reason to refuse.
    async fn split(&self, region: Region, mut keys: Vec<Bytes>, deadline: MonoTime) -> Result<Vec<Region>, Error> {
        let id = RegionId(region.id);
        let store = self
            .store
            .get()
            .ok_or(AdminError::Region(kv::Error::RegionNotFound { region: id }))?;
        keys.sort();
        keys.dedup();
        keys.retain(|key| *key != region.start_key);
        keys.truncate(SPLIT_MAX);
        if let Some(key) = keys.iter().find(|key| !kv::view::contains(&region, key)) {
            let (key, region) = (key.clone(), region.clone());
            return Err(AdminError::Region(kv::Error::KeyNotInRegion { key, region }).into());
        }
        if keys.is_empty() {
            return Ok(vec![region]);
        }
        let peers = region.peers.len() as u64;
        let count = keys.len() as u64 * (1 + peers);
        let mut next = self.link.alloc_ids(count as u32, deadline).await.map_err(Error::Ids)?;
        let mut take = |count: u64| {
            let first = next;
            next += count;
            first..next
        };
        let one = |key| SplitOne {
            key,
            region_id: take(1).start,
            peer_ids: take(peers).collect(),
        };
        let ones: Vec<SplitOne> = keys.into_iter().map(one).collect();
        let epoch = region.region_epoch.unwrap_or_default();
        let parts = split::split(&region, epoch, &ones)?;
        let (answer, answered) = oneshot::channel();
        store.split(id, epoch, ones, Box::new(move |outcome| drop(answer.send(outcome))));
        let outcome = tokio::time::timeout(deadline.since(MonoTime::now()), answered).await;
        // Too late, or the store stops: whether it takes place is not known.
        outcome
            .map_err(|_| kv::Error::Deadline)
            .and_then(|told| told.map_err(|_| kv::Error::Shutdown))
            .map_err(AdminError::from)??;
        Ok(parts.children.into_iter().chain([parts.region]).collect())
    }
}

impl Splits for Splitter {
    fn split(&self, ctx: kv::Context, keys: Vec<Bytes>, deadline: MonoTime) -> BoxFuture<'_, Result<Vec<Region>, kv::Error>> {
        async move {
            let not_leader = kv::Error::NotLeader {
                region: ctx.region,
                leader: None,
            };
            let led = self.store.get().and_then(|store| store.led(ctx.region)).ok_or(not_leader)?;
            kv::view::check_epoch(&led, &ctx)?;
            match Splitter::split(self, (*led).clone(), keys, deadline).await {
                Ok(regions) => Ok(regions),
                Err(Error::Store(AdminError::Region(error))) => Err(error),
                Err(error) => {
                    debug!(region_id = ctx.region.0, error = %base::log::chain(&error), "region was not divided");
                    Err(kv::Error::Busy {
                        reason: "the region cannot be divided now",
                    })
                }
            }
        }
        .boxed()
    }
}
