//! Reads of transactions away from the leader.
//!
//! A replica read asks the leader for a read index. The leader notes the read's timestamp, so that no async commit takes place below it,
//! and waits for locks in memory, as for a read of its own; what it has applied then, the replica waits for and reads. So it sees what a
//! read at the leader would, for one round trip between stores.
//!
//! A stale read is of a time that is over: the leader said once that nothing commits at or below a timestamp any more, and which index
//! of its log holds all that did. Until that timestamp a replica serves by itself, and asks again for what is beyond. Nobody keeps
//! regions up to date that nobody reads so: they rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, RegionId, StoreId, Ts};
use engine::kv::{self, SnapshotRef};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use proto::ferrite_read::{SafeTsRequest, SafeTsResponse};
use proto::kvrpcpb::{self as wire, KeyRange, ReadIndexRequest, ReadIndexResponse};
use proto::metapb;
use tonic::Status;
use txn::Error as TxnError;
use txn::mvcc::ReadOptions;
use txn::safe::SafeTime;

use super::read::{off_network, region};
use super::{Error, Result, Txn};
use crate::call::{self, Call, within};

/// After a leader was asked how far time is over, it is not asked again for so long.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Regions whose safe timestamps are kept; beyond, all are learnt anew.
const REGIONS_MAX: usize = 65_536;

/// Asks the stores that lead regions.
pub trait Leaders: Send + Sync + 'static {
    fn read_index(
        &self,
        store: StoreId,
        request: ReadIndexRequest,
        deadline: MonoTime,
    ) -> BoxFuture<'_, std::result::Result<ReadIndexResponse, Status>>;

    fn safe_ts(
        &self,
        store: StoreId,
        request: SafeTsRequest,
        deadline: MonoTime,
    ) -> BoxFuture<'_, std::result::Result<SafeTsResponse, Status>>;

    /// Number of regions with a peer on this store.
    fn regions(&self) -> usize;
}

/// For a store without others: nobody answers.
pub struct NoLeaders;

impl Leaders for NoLeaders {
    fn read_index(
        &self,
        _store: StoreId,
        _request: ReadIndexRequest,
        _deadline: MonoTime,
    ) -> BoxFuture<'_, std::result::Result<ReadIndexResponse, Status>> {
        Box::pin(std::future::ready(Err(Status::unavailable("there is no other store"))))
    }

    fn safe_ts(
        &self,
        _store: StoreId,
        _request: SafeTsRequest,
        _deadline: MonoTime,
    ) -> BoxFuture<'_, std::result::Result<SafeTsResponse, Status>> {
        Box::pin(std::future::ready(Err(Status::unavailable("there is no other store"))))
    }

    fn regions(&self) -> usize {
        1
    }
}

/// What a leader said of a region, and when it was asked.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    time: SafeTime,
    asked: Option<MonoTime>,
}

type Entry = Arc<tokio::sync::Mutex<Known>>;

/// How far time is over in regions that are read so.
#[derive(Default)]
pub struct SafeTimes(Mutex<BTreeMap<RegionId, Entry>>);

impl SafeTimes {
    fn entry(&self, region: RegionId) -> Entry {
        let mut regions = self.0.lock();
        if regions.len() >= REGIONS_MAX && !regions.contains_key(&region) {
            regions.clear();
        }
        regions.entry(region).or_default().clone()
    }

    /// The least of all regions, if `count` are known; else zero.
    fn least(&self, count: usize) -> Ts {
        let regions = self.0.lock();
        if regions.len() < count {
            return Ts::default();
        }
        // One that is being asked about is as good as unknown.
        let safe_ts = |entry: &Entry| entry.try_lock().map_or(Ts::default(), |known| known.time.safe_ts);
        regions.values().map(safe_ts).min().unwrap_or_default()
    }
}

impl Txn {
    /// A view for a read by `options` of keys in `ranges` (encoded), which were checked for locks in memory, wherever the call wants it served.
    pub(super) async fn read_view(
        &self,
        call: &Call,
        options: &ReadOptions,
        ranges: impl FnOnce() -> Vec<KeyRange>,
    ) -> Result<SnapshotRef> {
        if call.stale {
            return self.stale_view(call, options.ts).await;
        }
        match self.leader_view(call).await {
            Err(kv::Error::NotLeader {
                leader: Some(leader), ..
            }) if call.ctx.replica_read => {
                let index = self.ask_read_index(call, &leader, options, ranges()).await?;
                call::snapshot_at(&*self.kv, call, index).await.map_err(region)
            }
            Err(kv::Error::NotLeader {
                region: id,
                leader: None,
            }) if call.ctx.replica_read => Err(region(kv::Error::ReadIndexNotReady { region: id })),
            outcome => outcome.map_err(region),
        }
    }

    /// A view as the leader has it, if this store leads.
    async fn leader_view(&self, call: &Call) -> std::result::Result<SnapshotRef, kv::Error> {
        if !call.ctx.replica_read {
            return call::snapshot(&*self.kv, call, MonoTime::now()).await;
        }
        let mut call = call.clone();
        call.ctx.replica_read = false;
        call::snapshot(&*self.kv, &call, MonoTime::now()).await
    }

    async fn ask_read_index(
        &self,
        call: &Call,
        leader: &metapb::Peer,
        options: &ReadOptions,
        ranges: Vec<KeyRange>,
    ) -> Result<u64> {
        let timestamps = |list: &[Ts]| list.iter().map(|ts| ts.0).collect();
        let request = ReadIndexRequest {
            context: Some(wire::Context {
                region_id: call.ctx.region.0,
                region_epoch: Some(call.ctx.epoch),
                peer: Some(*leader),
                cluster_id: call.ctx.cluster.0,
                api_version: call.version,
                resolved_locks: timestamps(&options.bypass_locks),
                committed_locks: timestamps(&options.access_locks),
                ..wire::Context::default()
            }),
            start_ts: options.ts.0,
            ranges,
        };
        let asked = self
            .leaders
            .read_index(StoreId(leader.store_id), request, call.deadline)
            .await;
        let answer = asked.map_err(|status| self.unreachable(call, &status))?;
        // What is in the leader's way is in the reader's: it comes again, here or there.
        if answer.region_error.is_some() || answer.locked.is_some() {
            return Err(region(kv::Error::ReadIndexNotReady { region: call.ctx.region }));
        }
        Ok(answer.read_index)
    }

    fn unreachable(&self, call: &Call, status: &Status) -> Error {
        tracing::debug!(
            region_id = call.ctx.region.0,
            reason = status.message(),
            "ask the leader of a region"
        );
        region(kv::Error::ReadIndexNotReady { region: call.ctx.region })
    }

    /// Answers a replica that is about to read at `options.ts`: up to which index it must have applied the region's log.
    pub async fn read_index(&self, call: &Call, options: &ReadOptions, mut ranges: Vec<KeyRange>) -> Result<u64> {
        if ranges.is_empty() {
            ranges.push(KeyRange::default());
        }
        self.note_read(options.ts).await?;
        for range in ranges {
            self.await_memory(call, &range.start_key, &range.end_key, options).await?;
        }
        let view = self.leader_view(call).await.map_err(region)?;
        Ok(view.applied().map_err(TxnError::from)?)
    }

    /// A view that holds all that committed at or before `ts`, if that time is known to be over.
    async fn stale_view(&self, call: &Call, ts: Ts) -> Result<SnapshotRef> {
        let entry = self.safe_times.entry(call.ctx.region);
        let version = call.ctx.epoch.version;
        // Whoever comes while the leader is asked waits for its answer too.
        let late = || region(kv::Error::Deadline);
        let mut known = within(call, entry.lock()).await.ok_or_else(late)?;
        let now = MonoTime::now();
        let asks = known.time.version != version || known.asked.is_none_or(|asked| now.since(asked) >= ASK_EVERY);
        if !known.time.covers(version, ts) && asks {
            *known = Known {
                time: self.ask_safe_time(call).await?,
                asked: Some(now),
            };
        }
        let SafeTime { safe_ts, index, .. } = known.time;
        if !known.time.covers(version, ts) {
            return Err(region(kv::Error::DataIsNotReady {
                region: call.ctx.region,
                peer: call.ctx.peer,
                safe_ts,
            }));
        }
        drop(known);
        let mut call = call.clone();
        call.ctx.replica_read = true;
        call::snapshot_at(&*self.kv, &call, index).await.map_err(region)
    }

    async fn ask_safe_time(&self, call: &Call) -> Result<SafeTime> {
        let mut here = call.clone();
        here.ctx.replica_read = false;
        let leader = match self.leader_view(&here).await {
            Ok(_) => return self.safe_time(&here).await,
            Err(kv::Error::NotLeader {
                leader: Some(leader), ..
            }) => leader,
            Err(kv::Error::NotLeader { region: id, .. }) => return Err(region(kv::Error::ReadIndexNotReady { region: id })),
            Err(error) => return Err(region(error)),
        };
        let request = SafeTsRequest {
            cluster_id: call.ctx.cluster.0,
            region_id: call.ctx.region.0,
            epoch: Some(call.ctx.epoch),
        };
        let asked = self.leaders.safe_ts(StoreId(leader.store_id), request, call.deadline).await;
        let answer = asked.map_err(|status| self.unreachable(call, &status))?;
        match answer.region_error {
            None => Ok(SafeTime {
                version: call.ctx.epoch.version,
                safe_ts: Ts(answer.safe_ts),
                index: answer.index,
            }),
            Some(_) => Err(region(kv::Error::ReadIndexNotReady { region: call.ctx.region })),
        }
    }

    /// What this store promises of a region that it leads.
    pub async fn safe_time(&self, call: &Call) -> Result<SafeTime> {
        let busy = || {
            region(kv::Error::Busy {
                reason: "no timestamp of the placement driver",
            })
        };
        let now = (self.timestamps)(call.deadline).await.ok_or_else(busy)?;
        self.concurrency.raise_max_ts_by_tso(now);
        self.await_memory(call, b"", b"", &ReadOptions::snapshot(now)).await?;
        let view = self.leader_view(call).await.map_err(region)?;
        off_network(move || Ok(SafeTime::of(&*view, now)?)).await
    }

    /// The least timestamp up to which this store serves stale reads of all its regions by itself.
    pub fn store_safe_ts(&self) -> Ts {
        self.safe_times.least(self.leaders.regions())
    }
}
