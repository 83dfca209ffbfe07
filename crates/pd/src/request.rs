//! What the placement driver is asked, and what it answers.

use std::sync::Arc;
use std::time::Duration;

use base::{RegionId, StoreId, Ts};
use bytes::Bytes;
use proto::ferrite_pd as record;
use proto::metapb::{Region, Store};
use proto::pdpb::StoreStats;

use crate::MemberId;
use crate::gc::{Advanced, ServiceSafePoint};
use crate::hot::{Rates, StoreHeat};
use crate::operator::{Operator, Progress, Why};
use crate::regions::{KeyRange, Lookup, RegionInfo};
use crate::stores::StoreView;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// `count` timestamps, up to [`BATCH_MAX`](crate::tso::BATCH_MAX).
    Tso {
        count: u32,
    },
    /// Makes this a member of the placement driver, or corrects what is known of it.
    Enlist(record::Member),
    /// Takes a member out.
    RemoveMember(MemberId),
    /// Has another member lead. Answered before it does.
    TransferLeader(MemberId),
    /// Changes how regions are spread over stores.
    Schedule(record::Schedule),
    /// Orders to regions that stand.
    Operators,
    /// The order of a region, or how its last one ended.
    OperatorOf(RegionId),
    /// Has a region be elsewhere.
    Want(RegionId, Want),
    /// Gives up what a region was to do.
    GiveUp(RegionId),
    /// Peers and leaders of regions go to stores that hold few of the same group.
    Scatter {
        regions: Vec<RegionId>,
        group: String,
    },
    /// How regions are to be spread.
    Scheduling,
    /// Looks whether so many regions from a region key on are as rules want them.
    CheckRules {
        start: Bytes,
        limit: usize,
    },
    /// Stores with much to do, and so many regions.
    Hot {
        limit: usize,
    },
    /// `count` ids, up to [`ID_COUNT_MAX`](crate::machine::ID_COUNT_MAX), for regions, peers and stores.
    AllocIds {
        count: u64,
    },
    /// All members and which of them leads. The one request that members answer which do not lead.
    Members,
    IsBootstrapped,
    /// Makes the cluster: its first store, and its first regions, which cover all keys in order.
    Bootstrap {
        store: Store,
        regions: Vec<Region>,
    },
    /// A store tells its address, labels and version.
    PutStore(Store),
    Store(StoreId),
    AllStores,
    StoreHeartbeat(StoreStats),
    /// A region as its leader sees it.
    RegionHeartbeat(RegionInfo),
    /// Looks up several regions, answered in the same order.
    Regions(Vec<Lookup>),
    /// Regions of ascending disjoint ranges, in order, each once. With `no_gaps`, a gap before the limit is reached is an error.
    Scan {
        ranges: Vec<KeyRange>,
        limit: Option<usize>,
        no_gaps: bool,
    },
    /// Regions should end at these region keys: their leaders are told. Whether they do is to be looked up.
    SplitAt(Vec<Bytes>),
    MaxPeerCount,
    PutMaxPeerCount(u32),
    GcSafePoint,
    UpdateGcSafePoint(Ts),
    GcState,
    AdvanceGcSafePoint(Ts),
    AdvanceTxnSafePoint {
        target: Ts,
        /// Rather than the placement driver's own collector, which stops for good once a client does it.
        by_client: bool,
    },
    /// Keeps the txn safe point at or below `ts` for so many seconds ([`crate::gc::TTL_FOREVER`]: for ever).
    PutPin {
        name: String,
        ts: Ts,
        ttl_seconds: i64,
    },
    DropPin {
        name: String,
    },
    /// Sets a service's safe point for so many seconds ([`crate::gc::TTL_FOREVER`]: for ever), or drops it when there are none.
    PutServiceSafePoint {
        service: String,
        ts: Ts,
        ttl_seconds: i64,
    },
}

/// Where a region is to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Want {
    /// The peer on this store is to lead.
    Leader(StoreId),
    /// The peer of the first store is to go to the second.
    Move(StoreId, StoreId),
}

/// An order that stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    pub region: RegionId,
    pub operator: Operator,
    pub why: Why,
    pub age: Duration,
}

/// How far the regions of a range are from what rules want.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleReport {
    /// Regions looked at.
    pub regions: usize,
    /// Regions that are not as they should be, and why.
    pub faults: Vec<(RegionId, String)>,
    /// Where to go on, unless all were looked at.
    pub next: Option<Bytes>,
}

/// What there is to do, in a second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HotReport {
    pub stores: Vec<(StoreId, StoreHeat)>,
    /// With the stores of their leaders.
    pub regions: Vec<(RegionId, StoreId, Rates)>,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Done,
    /// The last of `count` timestamps, all of one millisecond.
    Timestamps {
        last: Ts,
        count: u32,
    },
    /// `first..first + count`.
    Ids {
        first: u64,
        count: u64,
    },
    Members {
        all: Vec<record::Member>,
        /// As far as the member knows that was asked.
        leader: Option<MemberId>,
    },
    Bootstrapped(bool),
    Store(Box<StoreView>),
    Stores(Vec<StoreView>),
    Operators(Vec<Standing>),
    OperatorOf(Option<(Why, Progress)>),
    /// Regions that could not be.
    Scattered {
        failed: Vec<RegionId>,
    },
    Scheduling(Box<record::SchedulingAnswer>),
    RulesChecked(RuleReport),
    Hot(HotReport),
    /// What the leader should do with its region next.
    Operator(Option<Operator>),
    Regions(Vec<Option<Arc<RegionInfo>>>),
    Scanned(Vec<Arc<RegionInfo>>),
    MaxPeerCount(u32),
    SafePoint(Ts),
    ServiceSafePoint(ServiceSafePoint),
    Advanced(Advanced),
    /// The pin that was dropped.
    Pin(Option<record::Pin>),
    /// The pins are those that have not expired at `now_seconds`.
    GcState {
        gc_safe_point: Ts,
        txn_safe_point: Ts,
        client_collects: bool,
        pins: Vec<record::Pin>,
        now_seconds: u64,
    },
}
