//! The replicated state: changed by commands alone, the same on every member.
//!
//! [`State::apply`] is deterministic: time comes with the command, order is that of the log. A command that the state refuses
//! changes nothing, and refusing is a result like any other. What may be lost with a restart (regions, store statistics, timestamps
//! within the bound) is not here.

use std::collections::BTreeMap;

use base::{ClusterId, StoreId, Ts};
use proto::ferrite_pd as record;
use proto::ferrite_pd::change_member::Kind;
use proto::ferrite_pd::command::Kind as Command;
use proto::metapb::{NodeState, Region, Store, StoreState};

use proto::ferrite_pd::schedule::Kind as Schedule;

use crate::gc::Gc;
use crate::regions::{Directory, RegionInfo};
use crate::request::Reply;
use crate::scheduling::Scheduling;
use crate::{Error, MemberId};

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub cluster: ClusterId,
    pub created_at_seconds: u64,
    pub members: BTreeMap<MemberId, record::Member>,
    pub stores: BTreeMap<StoreId, Store>,
    /// As given at bootstrap: what the directory starts from until heartbeats tell better.
    pub first_regions: Vec<Region>,
    /// First id not yet reserved.
    pub id_next: u64,
    /// No timestamp at or above this millisecond was handed out.
    pub tso_bound_ms: u64,
    /// Peers that each region should have.
    pub max_peer_count: u32,
    pub gc: Gc,
    pub scheduling: Scheduling,
}

impl Default for State {
    fn default() -> State {
        State {
            cluster: ClusterId(0),
            created_at_seconds: 0,
            members: BTreeMap::new(),
            stores: BTreeMap::new(),
            first_regions: Vec::new(),
            id_next: 1,
            tso_bound_ms: 0,
            max_peer_count: 0,
            gc: Gc::default(),
            scheduling: Scheduling::default(),
        }
    }
}

impl State {
    pub fn is_bootstrapped(&self) -> bool {
        !self.first_regions.is_empty()
    }

    /// Applies one command of the log; the answer is for whoever proposed it.
    pub fn apply(&mut self, command: &Command) -> Result<Reply, Error> {
        match command {
            Command::Init(c) => self.init(c),
            Command::PutMember(c) => self.put_member(c),
            Command::ChangeMember(c) => self.change_member(c),
            Command::Schedule(c) => return self.schedule(c),
            Command::Bootstrap(c) => return self.bootstrap(c),
            Command::PutStore(c) => return self.put_store(c.store.as_ref()),
            Command::ReserveIds(c) => return Ok(self.reserve_ids(c.count)),
            Command::ReserveTso(c) => self.tso_bound_ms = self.tso_bound_ms.max(c.bound_ms),
            Command::PutClusterConfig(c) => self.max_peer_count = c.max_peer_count,
            Command::UpdateGcSafePoint(c) => return Ok(Reply::SafePoint(self.gc.update(Ts(c.target), c.now_seconds))),
            Command::AdvanceGcSafePoint(c) => return self.gc.advance_gc(Ts(c.target)).map(Reply::Advanced),
            Command::AdvanceTxnSafePoint(c) => {
                let moved = self.gc.advance_txn(Ts(c.target), c.by_client, c.now_seconds);
                return moved.map(Reply::Advanced);
            }
            Command::PutPin(c) => self.gc.put_pin(&c.pin.clone().unwrap_or_default(), c.now_seconds)?,
            Command::DropPin(c) => return Ok(Reply::Pin(self.gc.drop_pin(&c.name, c.now_seconds))),
            Command::PutServiceSafePoint(c) => return self.gc.put_service(c).map(Reply::ServiceSafePoint),
        }
        Ok(Reply::Done)
    }

    fn init(&mut self, init: &record::Init) {
        if !self.cluster.is_some() {
            self.cluster = ClusterId(init.cluster_id);
            self.created_at_seconds = init.created_at_seconds;
            self.max_peer_count = init.max_peer_count;
        }
    }

    fn put_member(&mut self, command: &record::PutMember) {
        if let Some(member) = &command.member {
            self.members.insert(MemberId(member.id), member.clone());
        }
    }

    /// As raft's membership, which takes the same step at this place of the log.
    fn change_member(&mut self, change: &record::ChangeMember) {
        let member = change.member.clone().unwrap_or_default();
        let id = MemberId(member.id);
        match change.kind() {
            Kind::AddLearner => {
                let is_learner = true;
                self.members.insert(id, record::Member { is_learner, ..member });
            }
            Kind::Promote => {
                if let Some(known) = self.members.get_mut(&id) {
                    known.is_learner = false;
                }
            }
            Kind::Remove | Kind::RemoveLost => drop(self.members.remove(&id)),
        }
    }

    fn schedule(&mut self, change: &record::Schedule) -> Result<Reply, Error> {
        let Some(kind) = &change.kind else {
            return Err(Error::Invalid {
                reason: "this version does not know that change of scheduling".to_owned(),
            });
        };
        let store = match kind {
            Schedule::DrainStore(store) | Schedule::KeepStore(store) | Schedule::RemoveStore(store) => *store,
            Schedule::LoseStore(store) | Schedule::EvictLeaders(store) | Schedule::AdmitLeaders(store) => *store,
            Schedule::GrantLeaders(store) | Schedule::RevokeLeaders(store) => *store,
            Schedule::StoreLimit(limit) if limit.store != 0 => limit.store,
            _ => return self.scheduling.apply(kind),
        };
        let store = StoreId(store);
        let known = self.stores.get_mut(&store).ok_or(Error::StoreNotFound { store })?;
        if is_tombstone(known) {
            return Err(Error::StoreTombstone { store });
        }
        let (state, node_state) = match kind {
            Schedule::DrainStore(_) => (StoreState::Offline, NodeState::Removing),
            Schedule::KeepStore(_) => (StoreState::Up, NodeState::Serving),
            Schedule::RemoveStore(_) if known.state() != StoreState::Offline => {
                let reason = format!("store {store} is to be drained first");
                return Err(Error::Invalid { reason });
            }
            Schedule::RemoveStore(_) => (StoreState::Tombstone, NodeState::Removed),
            Schedule::LoseStore(_) => {
                known.physically_destroyed = true;
                (StoreState::Tombstone, NodeState::Removed)
            }
            _ => return self.scheduling.apply(kind),
        };
        known.set_state(state);
        known.set_node_state(node_state);
        Ok(Reply::Done)
    }

    fn bootstrap(&mut self, command: &record::Bootstrap) -> Result<Reply, Error> {
        if self.is_bootstrapped() {
            return Err(Error::AlreadyBootstrapped);
        }
        check_covers_all_keys(&command.regions)?;
        self.put_store_unchecked(command.store.as_ref())?;
        self.first_regions.clone_from(&command.regions);
        Ok(Reply::Done)
    }

    fn put_store(&mut self, store: Option<&Store>) -> Result<Reply, Error> {
        if !self.is_bootstrapped() {
            return Err(Error::NotBootstrapped);
        }
        self.put_store_unchecked(store)
    }

    /// Takes a store's own account of itself. Its state in the cluster is not the store's to tell, so the known one is kept.
    fn put_store_unchecked(&mut self, store: Option<&Store>) -> Result<Reply, Error> {
        let mut store = store.cloned().unwrap_or_default();
        check_store(&store)?;
        let id = StoreId(store.id);
        let known = self.stores.get(&id);
        if known.is_some_and(is_tombstone) {
            return Err(Error::StoreTombstone { store: id });
        }
        let taken = self
            .stores
            .values()
            .find(|other| other.id != store.id && other.address == store.address && !is_tombstone(other));
        if let Some(other) = taken {
            return Err(Error::AddressTaken {
                address: store.address,
                store: StoreId(other.id),
            });
        }
        store.state = known.map_or(StoreState::Up as i32, |known| known.state);
        store.node_state = known.map_or(NodeState::Serving as i32, |known| known.node_state);
        self.stores.insert(id, store);
        Ok(Reply::Done)
    }

    fn reserve_ids(&mut self, count: u64) -> Reply {
        let first = self.id_next;
        self.id_next += count;
        Reply::Ids { first, count }
    }

    /// The form that snapshots hold.
    pub fn to_record(&self) -> record::State {
        record::State {
            cluster_id: self.cluster.0,
            created_at_seconds: self.created_at_seconds,
            members: self.members.values().cloned().collect(),
            stores: self.stores.values().cloned().collect(),
            first_regions: self.first_regions.clone(),
            id_next: self.id_next,
            tso_bound_ms: self.tso_bound_ms,
            max_peer_count: self.max_peer_count,
            gc_safe_point: self.gc.gc_safe_point.0,
            txn_safe_point: self.gc.txn_safe_point.0,
            pins: self.gc.pins().cloned().collect(),
            client_collects: self.gc.client_collects,
            scheduling: Some(self.scheduling.to_record()),
        }
    }

    pub fn from_record(record: record::State) -> State {
        State {
            cluster: ClusterId(record.cluster_id),
            created_at_seconds: record.created_at_seconds,
            members: record
                .members
                .into_iter()
                .map(|member| (MemberId(member.id), member))
                .collect(),
            stores: record.stores.into_iter().map(|store| (StoreId(store.id), store)).collect(),
            first_regions: record.first_regions,
            id_next: record.id_next,
            tso_bound_ms: record.tso_bound_ms,
            max_peer_count: record.max_peer_count,
            gc: Gc::new(
                Ts(record.gc_safe_point),
                Ts(record.txn_safe_point),
                record.client_collects,
                record.pins,
            ),
            scheduling: Scheduling::from_record(record.scheduling.unwrap_or_default()),
        }
    }
}

/// Whether the store was taken out of the cluster for good.
pub fn is_tombstone(store: &Store) -> bool {
    store.state == StoreState::Tombstone as i32
}

fn check_store(store: &Store) -> Result<(), Error> {
    let fault = match store {
        _ if store.id == 0 => "the store has no id",
        _ if store.address.is_empty() => "the store has no address",
        _ => return Ok(()),
    };
    Err(Error::Invalid {
        reason: fault.to_owned(),
    })
}

/// First regions must be well formed and cover every key once.
fn check_covers_all_keys(regions: &[Region]) -> Result<(), Error> {
    let mut directory = Directory::default();
    for region in regions {
        directory.put(RegionInfo::without_heartbeat(region.clone())?)?;
    }
    let mut next = Some(&regions.first().ok_or_else(no_cover)?.start_key).filter(|start| start.is_empty());
    for region in regions {
        if next != Some(&region.start_key) || directory.len() != regions.len() {
            return Err(no_cover());
        }
        next = Some(&region.end_key).filter(|end| !end.is_empty());
    }
    if next.is_some() { Err(no_cover()) } else { Ok(()) }
}

fn no_cover() -> Error {
    Error::Invalid {
        reason: "the first regions must follow one another and cover all keys".to_owned(),
    }
}
