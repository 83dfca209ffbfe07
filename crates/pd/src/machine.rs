//! The placement driver as a state machine.
//!
//! Requests that change the replicated state become proposals; their answers wait until the log gives the command back. Timestamps and
//! ids come out of reserves that were replicated ahead, so that most of them wait for nothing. All else is answered at once.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use base::{ClusterId, MonoTime, PeerId, RegionId, StoreId, WallTime};
use proto::ferrite_pd as record;
use proto::ferrite_pd::command::Kind as Command;
use proto::metapb::{Store, StoreState};
use proto::pdpb::StoreStats;

use crate::fleet::Fleet;
use crate::hot::Hot;
use crate::log::{LogEvent, Proposal, ProposalId};
use crate::merges::{self, Merges};
use crate::operator::{Operator, Operators};
use crate::planted::{self, Bug};
use crate::regions::{Directory, KeyRange, Lookup, RegionInfo};
use crate::request::{Reply, Request};
use crate::rules::RuleSet;
use crate::splits::Splits;
use crate::state::{State, is_tombstone};
use crate::stores::{Beats, StoreView};
use crate::tso::{self, Tso};
use crate::wishes::Wishes;
use crate::{Error, MemberId};

mod members;
mod schedule;
mod wants;

/// Ids reserved at a time: few enough that restarts waste little, enough that the log seldom waits.
const ID_RESERVE: u64 = 100;
/// Ids are reserved anew when fewer are left.
const ID_LEFT_MIN: u64 = 10;
/// Commands between snapshots: the log stays below a few megabytes and is replayed in milliseconds.
pub(crate) const SNAPSHOT_EVERY: u64 = 4096;
/// Ids that one request may take.
pub const ID_COUNT_MAX: u64 = 1 << 20;

/// What happens to the machine. `T` stands for whoever asked: the shell finds the asker by it.
#[derive(Debug)]
pub enum Event<T> {
    Request(T, Request),
    Log(LogEvent),
}

/// What the shell must do.
#[derive(Debug)]
#[must_use] // dropping an effect loses a command or a reply
pub struct Effects<T> {
    /// For the log, in this order.
    pub propose: Vec<Proposal>,
    /// May leave at once.
    pub reply: Vec<(T, Result<Reply, Error>)>,
    /// A store joined that regions may use: leaders should report at once rather than at their next heartbeat.
    pub want_reports: bool,
    /// For the log: the state at this index, so that the commands before it can go.
    pub snapshot: Option<(u64, Box<record::State>)>,
    /// For the group: this member is to lead.
    pub transfer: Option<MemberId>,
    /// [`Machine::status`] may have changed.
    pub status_changed: bool,
}

/// What everybody may know of the members at any time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Zero before a member ever led.
    pub cluster: ClusterId,
    pub me: MemberId,
    /// As far as this member knows.
    pub leader: Option<MemberId>,
    /// In ascending order of their ids.
    pub members: Vec<record::Member>,
    /// This member was taken out.
    pub removed: bool,
}

impl Status {
    /// The record of a member.
    pub fn member(&self, id: MemberId) -> Option<&record::Member> {
        self.members.iter().find(|member| member.id == id.0)
    }

    /// Whether this member leads.
    pub fn leads(&self) -> bool {
        self.leader == Some(self.me)
    }
}

impl<T> Default for Effects<T> {
    fn default() -> Effects<T> {
        Effects {
            propose: Vec::new(),
            reply: Vec::new(),
            want_reports: false,
            snapshot: None,
            transfer: None,
            status_changed: false,
        }
    }
}

/// Who this member is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Of [`Identity`](crate::log::Identity).
    pub member: MemberId,
    /// For people; no two members have the same.
    pub name: String,
    /// With scheme; clients dial these.
    pub client_urls: Vec<String>,
    pub peer_urls: Vec<String>,
    /// Random and not zero; used if no cluster is there yet.
    pub cluster_id_if_new: u64,
    /// Peers that each region should have; used if no cluster is there yet.
    pub max_peer_count_if_new: u32,
    /// How long a small region stays as it is before it goes into a neighbour; zero: for ever.
    pub merge_after: Duration,
}

/// See the module.
pub struct Machine<T> {
    member: record::Member,
    /// Makes the cluster if there is none.
    init: record::Init,
    state: State,
    /// Index of the last command in `state`.
    applied: u64,
    /// Index of the last snapshot that was given away.
    snapshot: u64,
    leads: bool,
    /// Another member that leads.
    leader: Option<MemberId>,
    /// While this member leads and this has not passed, no other does.
    lease_until: MonoTime,
    /// Requests that came when the lease was over and leadership was not.
    parked: VecDeque<(T, Request)>,
    removed: bool,
    regions: Directory,
    beats: Beats,
    operators: Operators,
    splits: Splits,
    merges: Merges,
    merge_after: Duration,
    /// Of the state, compiled.
    rules: RuleSet,
    fleet: Fleet,
    hot: Hot,
    wishes: Wishes,
    /// When a region was last moved without need.
    shuffled: MonoTime,
    /// Leaders should report, since when they were last asked to.
    reports_due: bool,
    reports_asked: MonoTime,
    tso: Tso,
    tso_waiting: VecDeque<(T, u32)>,
    ids: Range<u64>,
    ids_waiting: VecDeque<(T, u64)>,
    ids_on_their_way: bool,
    proposals: u64,
    /// Who waits for which proposal.
    waiting: BTreeMap<ProposalId, T>,
}

impl<T> Machine<T> {
    /// A machine whose log goes on after `applied`, the last command in `state`.
    pub fn new(options: Options, state: State, applied: u64) -> Machine<T> {
        let (cluster, id) = (options.cluster_id_if_new, options.member);
        assert!(
            cluster != 0 && id.0 != 0,
            "ids of zero stand for none: cluster {cluster}, member {id:?}"
        );
        let member = record::Member {
            id: id.0,
            name: options.name,
            peer_urls: options.peer_urls,
            client_urls: options.client_urls,
            is_learner: false,
        };
        let tso = Tso::new(state.tso_bound_ms);
        let regions = first_regions(&state);
        let rules = state.scheduling.rules(state.max_peer_count);
        Machine {
            member,
            init: record::Init {
                cluster_id: options.cluster_id_if_new,
                max_peer_count: options.max_peer_count_if_new,
                ..record::Init::default()
            },
            state,
            applied,
            snapshot: applied,
            leads: false,
            leader: None,
            lease_until: MonoTime::default(),
            parked: VecDeque::new(),
            removed: false,
            regions,
            beats: Beats::default(),
            operators: Operators::default(),
            splits: Splits::default(),
            merges: Merges::default(),
            merge_after: options.merge_after,
            rules,
            fleet: Fleet::default(),
            hot: Hot::default(),
            wishes: Wishes::default(),
            shuffled: MonoTime::default(),
            reports_due: false,
            reports_asked: MonoTime::default(),
            tso,
            tso_waiting: VecDeque::new(),
            ids: 0..0,
            ids_waiting: VecDeque::new(),
            ids_on_their_way: false,
            proposals: 0,
            waiting: BTreeMap::new(),
        }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// Index of the last command in [`Machine::state`].
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Whether this member leads a cluster that has its id, and so can answer.
    pub fn is_ready(&self) -> bool {
        self.leads && self.state.cluster.is_some() && self.state.members.contains_key(&MemberId(self.member.id))
    }

    /// Who leads, and who there is.
    pub fn status(&self) -> Status {
        let me = MemberId(self.member.id);
        Status {
            cluster: self.state.cluster,
            me,
            leader: if self.leads { Some(me) } else { self.leader },
            members: self.state.members.values().cloned().collect(),
            removed: self.removed,
        }
    }

    /// Handles events in order. The same state, times and events give the same effects. Touches no disk, socket or clock.
    pub fn step(&mut self, now: MonoTime, wall: WallTime, events: impl IntoIterator<Item = Event<T>>) -> Effects<T> {
        let mut effects = Effects::default();
        for event in events {
            match event {
                Event::Request(token, request) => self.on_request(now, wall, token, request, &mut effects),
                Event::Log(event) => self.on_log(now, wall, event, &mut effects),
            }
        }
        self.maybe_reserve(&mut effects);
        effects
    }

    fn on_log(&mut self, now: MonoTime, wall: WallTime, event: LogEvent, effects: &mut Effects<T>) {
        match event {
            LogEvent::Committed {
                index,
                proposal,
                command,
            } => self.on_committed(now, wall, index, proposal, command.as_ref(), effects),
            LogEvent::Restored { index, state } => self.on_restored(index, *state, effects),
            LogEvent::Leads => self.on_leads(now, wall, effects),
            LogEvent::Follows { leader } => self.on_follows(leader, effects),
            LogEvent::Lease { until } => self.on_lease(now, wall, until, effects),
            LogEvent::Refused { proposal, reason } => {
                if let Some(token) = self.waiting.remove(&proposal) {
                    effects.reply.push((token, Err(Error::MembersStay { reason })));
                }
            }
            LogEvent::SnapshotWanted => self.give_snapshot(effects),
            LogEvent::Removed => {
                self.removed = true;
                effects.status_changed = true;
            }
        }
    }

    /// Gives up everybody who waits; nobody else will answer them.
    pub fn take_waiting(&mut self) -> Vec<T> {
        let proposed = std::mem::take(&mut self.waiting).into_values();
        let tso = self.tso_waiting.drain(..).map(|(token, _)| token);
        let ids = self.ids_waiting.drain(..).map(|(token, _)| token);
        let parked = self.parked.drain(..).map(|(token, _)| token);
        proposed.chain(tso).chain(ids).chain(parked).collect()
    }

    fn on_request(&mut self, now: MonoTime, wall: WallTime, token: T, request: Request, effects: &mut Effects<T>) {
        if request == Request::Members && self.state.cluster.is_some() {
            return effects.reply.push((token, Ok(self.members())));
        }
        if !self.is_ready() {
            return effects.reply.push((token, Err(Error::NotLeader)));
        }
        if !self.has_lease(now) {
            return self.parked.push_back((token, request));
        }
        match request {
            Request::Tso { count } => self.on_tso(now, wall, token, count, effects),
            Request::Enlist(member) => self.on_enlist(member, token, effects),
            Request::RemoveMember(id) => self.on_remove_member(id, token, effects),
            Request::TransferLeader(to) => self.on_transfer_leader(to, token, effects),
            Request::StoreHeartbeat(stats) if self.state.is_bootstrapped() => {
                let store = StoreId(stats.store_id);
                let reply = self.on_store_heartbeat(now, wall, stats);
                effects.reply.push((token, reply));
                self.after_store_heartbeat(now, store, effects);
            }
            Request::Want(region, want) if self.state.is_bootstrapped() => {
                self.ask_for_reports(now, effects);
                effects.reply.push((token, self.on_want(now, region, &want)));
            }
            Request::Scatter { regions, group } if self.state.is_bootstrapped() => {
                self.ask_for_reports(now, effects);
                effects.reply.push((token, Ok(self.on_scatter(now, &regions, &group))));
            }
            Request::AllocIds { count } => self.on_alloc_ids(token, count, effects),
            Request::SplitAt(keys) if self.state.is_bootstrapped() => {
                let fits = self.splits.want(now, keys);
                self.ask_for_reports(now, effects);
                effects
                    .reply
                    .push((token, if fits { Ok(Reply::Done) } else { Err(Error::Busy) }));
            }
            Request::Schedule(change) if self.is_too_early(now, &change) => {
                let reason = "the store was heard of a moment ago: only one that is silent for 20 s can be lost; see `ferrite ctl store drain`";
                effects
                    .reply
                    .push((token, Err(crate::regions::invalid_reason(reason.to_owned()))));
            }
            request => match self.command(wall, request) {
                Ok(command) => self.propose(command, Some(token), effects),
                Err(query) => {
                    let reply = self.answer(now, wall, query);
                    effects.reply.push((token, reply));
                }
            },
        }
    }

    fn has_lease(&self, now: MonoTime) -> bool {
        now < self.lease_until || planted::on(Bug::LeaseIgnored)
    }

    /// The lease is another one: those who waited for it may go on.
    fn on_lease(&mut self, now: MonoTime, wall: WallTime, until: MonoTime, effects: &mut Effects<T>) {
        self.lease_until = until;
        if self.has_lease(now) {
            self.serve_tso(now, wall, effects);
            for (token, request) in std::mem::take(&mut self.parked) {
                self.on_request(now, wall, token, request, effects);
            }
        }
    }

    fn give_snapshot(&mut self, effects: &mut Effects<T>) {
        self.snapshot = self.applied;
        effects.snapshot = Some((self.applied, Box::new(self.state.to_record())));
    }

    fn on_restored(&mut self, index: u64, state: record::State, effects: &mut Effects<T>) {
        assert!(index > self.applied, "a snapshot goes back from {} to {index}", self.applied);
        self.state = State::from_record(state);
        (self.applied, self.snapshot) = (index, index);
        self.regions = first_regions(&self.state);
        self.on_scheduling_changed();
        effects.status_changed = true;
    }

    /// The command that a request asks for, or the request itself if it changes nothing that is replicated.
    fn command(&self, wall: WallTime, request: Request) -> Result<Command, Request> {
        let now_seconds = wall.seconds();
        Ok(match request {
            Request::Bootstrap { store, regions } => Command::Bootstrap(record::Bootstrap {
                store: Some(store),
                regions,
            }),
            Request::PutStore(store) => Command::PutStore(record::PutStore { store: Some(store) }),
            Request::PutMaxPeerCount(max_peer_count) if self.state.is_bootstrapped() && max_peer_count > 0 => {
                Command::PutClusterConfig(record::PutClusterConfig { max_peer_count })
            }
            Request::UpdateGcSafePoint(target) if self.state.is_bootstrapped() => {
                Command::UpdateGcSafePoint(record::UpdateGcSafePoint {
                    target: target.0,
                    now_seconds,
                })
            }
            Request::PutServiceSafePoint {
                service,
                ts,
                ttl_seconds,
            } if self.state.is_bootstrapped() => {
                let expires_at_seconds = expiry(now_seconds, ttl_seconds);
                let pin = record::Pin {
                    name: service,
                    ts: ts.0,
                    expires_at_seconds,
                };
                Command::PutServiceSafePoint(record::PutServiceSafePoint {
                    pin: Some(pin),
                    drop: ttl_seconds <= 0,
                    now_seconds,
                })
            }
            Request::AdvanceGcSafePoint(target) if self.state.is_bootstrapped() => {
                Command::AdvanceGcSafePoint(record::AdvanceGcSafePoint { target: target.0 })
            }
            Request::AdvanceTxnSafePoint { target, by_client } if self.state.is_bootstrapped() => {
                Command::AdvanceTxnSafePoint(record::AdvanceTxnSafePoint {
                    target: target.0,
                    now_seconds,
                    by_client,
                })
            }
            Request::PutPin { name, ts, ttl_seconds } if self.state.is_bootstrapped() && ttl_seconds > 0 => {
                let pin = record::Pin {
                    name,
                    ts: ts.0,
                    expires_at_seconds: expiry(now_seconds, ttl_seconds),
                };
                Command::PutPin(record::PutPin {
                    pin: Some(pin),
                    now_seconds,
                })
            }
            Request::DropPin { name } if self.state.is_bootstrapped() => Command::DropPin(record::DropPin { name, now_seconds }),
            Request::Schedule(change) if self.state.is_bootstrapped() => Command::Schedule(schedule::at(change, now_seconds)),
            request => return Err(request),
        })
    }

    fn answer(&mut self, now: MonoTime, wall: WallTime, query: Request) -> Result<Reply, Error> {
        match query {
            Request::IsBootstrapped => return Ok(Reply::Bootstrapped(self.state.is_bootstrapped())),
            _ if !self.state.is_bootstrapped() => return Err(Error::NotBootstrapped),
            _ => {}
        }
        match query {
            Request::Store(id) => self.store(id).map(|store| Reply::Store(Box::new(self.view(now, store)))),
            Request::AllStores => Ok(Reply::Stores(
                self.state.stores.values().map(|store| self.view(now, store)).collect(),
            )),
            Request::Operators => Ok(self.standing_orders(now)),
            Request::OperatorOf(region) => Ok(Reply::OperatorOf(self.order_of(region))),
            Request::GiveUp(region) => self.on_give_up(region),
            Request::Scheduling => Ok(self.scheduling(wall)),
            Request::CheckRules { start, limit } => Ok(self.check_rules(now, &start, limit)),
            Request::Hot { limit } => Ok(self.hot_report(limit)),
            Request::RegionHeartbeat(info) => self.on_region_heartbeat(now, wall, info),
            Request::Regions(lookups) => Ok(Reply::Regions(
                lookups.iter().map(|lookup| self.regions.get(lookup).cloned()).collect(),
            )),
            Request::Scan { ranges, limit, no_gaps } => self.scan(&ranges, limit.unwrap_or(usize::MAX), no_gaps),
            Request::MaxPeerCount => Ok(Reply::MaxPeerCount(self.state.max_peer_count)),
            Request::PutMaxPeerCount(_) => Err(Error::Invalid {
                reason: "a region needs at least one peer".to_owned(),
            }),
            Request::GcSafePoint => Ok(Reply::SafePoint(self.state.gc.gc_safe_point)),
            Request::GcState => Ok(self.gc_state(wall)),
            Request::PutPin { .. } => Err(Error::Invalid {
                reason: "a barrier needs a time to live above zero".to_owned(),
            }),
            Request::Tso { .. }
            | Request::SplitAt(_)
            | Request::Want(..)
            | Request::Scatter { .. }
            | Request::Enlist(_)
            | Request::RemoveMember(_)
            | Request::TransferLeader(_)
            | Request::StoreHeartbeat(_)
            | Request::Schedule(_)
            | Request::AllocIds { .. }
            | Request::Members
            | Request::IsBootstrapped
            | Request::Bootstrap { .. }
            | Request::PutStore(_)
            | Request::UpdateGcSafePoint(_)
            | Request::AdvanceGcSafePoint(_)
            | Request::AdvanceTxnSafePoint { .. }
            | Request::DropPin { .. }
            | Request::PutServiceSafePoint { .. } => unreachable!("answered before, or proposed"),
        }
    }

    fn members(&self) -> Reply {
        let Status { members, leader, .. } = self.status();
        Reply::Members { all: members, leader }
    }

    fn gc_state(&self, wall: WallTime) -> Reply {
        let gc = &self.state.gc;
        let now_seconds = wall.seconds();
        let pins = gc.living_pins(now_seconds).cloned().collect();
        Reply::GcState {
            gc_safe_point: gc.gc_safe_point,
            txn_safe_point: gc.txn_safe_point,
            client_collects: gc.client_collects,
            pins,
            now_seconds,
        }
    }

    fn store(&self, id: StoreId) -> Result<&Store, Error> {
        self.state.stores.get(&id).ok_or(Error::StoreNotFound { store: id })
    }

    /// A store that may speak: known, and not taken out.
    fn living_store(&self, id: StoreId) -> Result<&Store, Error> {
        let store = self.store(id)?;
        if is_tombstone(store) {
            Err(Error::StoreTombstone { store: id })
        } else {
            Ok(store)
        }
    }

    fn view(&self, now: MonoTime, store: &Store) -> StoreView {
        self.beats.view(now, store, self.regions.load(StoreId(store.id)))
    }

    fn on_store_heartbeat(&mut self, now: MonoTime, wall: WallTime, stats: StoreStats) -> Result<Reply, Error> {
        self.living_store(StoreId(stats.store_id))?;
        self.beats.put(now, wall, stats);
        self.fleet.outdate();
        Ok(Reply::Done)
    }

    fn on_region_heartbeat(&mut self, now: MonoTime, wall: WallTime, info: RegionInfo) -> Result<Reply, Error> {
        self.living_store(StoreId(info.leader.store_id))?;
        let id = info.id();
        self.merges.on_heartbeat(now, &info.region, &self.regions);
        self.regions.put(info)?;
        Ok(Reply::Operator(self.operator(now, wall, id)))
    }

    fn scan(&self, ranges: &[KeyRange], limit: usize, no_gaps: bool) -> Result<Reply, Error> {
        check_ascending(ranges)?;
        let mut found: Vec<Arc<RegionInfo>> = Vec::new();
        for range in ranges {
            let mut next = Some(&range.start); // first key not yet covered, if any is left
            for info in self.regions.scan(range, usize::MAX) {
                if found.len() >= limit {
                    return Ok(Reply::Scanned(found));
                }
                if no_gaps && next.is_none_or(|next| info.region.start_key > *next) {
                    return Err(Error::Gap);
                }
                next = Some(&info.region.end_key).filter(|end| !end.is_empty());
                if found.last().is_none_or(|last| last.id() != info.id()) {
                    found.push(info.clone());
                }
            }
            let covered = next.is_none_or(|next| !range.end.is_empty() && *next >= range.end);
            if no_gaps && !covered && found.len() < limit {
                return Err(Error::Gap);
            }
        }
        Ok(Reply::Scanned(found))
    }

    fn on_tso(&mut self, now: MonoTime, wall: WallTime, token: T, count: u32, effects: &mut Effects<T>) {
        if count == 0 || count > tso::BATCH_MAX {
            let reason = format!("{count} timestamps were asked for: wanted 1 to {}", tso::BATCH_MAX);
            return effects.reply.push((token, Err(Error::Invalid { reason })));
        }
        self.tso_waiting.push_back((token, count));
        self.serve_tso(now, wall, effects);
    }

    /// Serves those who wait, in order, as far as the bound allows. Without a lease another member may have given larger ones.
    fn serve_tso(&mut self, now: MonoTime, wall: WallTime, effects: &mut Effects<T>) {
        if !self.has_lease(now) {
            return;
        }
        while let Some(&(_, count)) = self.tso_waiting.front() {
            if planted::on(Bug::TsoBoundNotPersisted) {
                self.tso.on_bound(wall.0 + tso::BOUND_AHEAD_MS);
            }
            let Some(last) = self.tso.grant(wall, count) else { return };
            let (token, count) = self.tso_waiting.pop_front().expect("its front was just seen");
            effects.reply.push((token, Ok(Reply::Timestamps { last, count })));
        }
    }

    fn on_alloc_ids(&mut self, token: T, count: u64, effects: &mut Effects<T>) {
        if count == 0 || count > ID_COUNT_MAX {
            let reason = format!("{count} ids were asked for: wanted 1 to {ID_COUNT_MAX}");
            return effects.reply.push((token, Err(Error::Invalid { reason })));
        }
        self.ids_waiting.push_back((token, count));
        self.serve_ids(effects);
    }

    fn serve_ids(&mut self, effects: &mut Effects<T>) {
        while let Some(&(_, count)) = self.ids_waiting.front() {
            if self.ids.end - self.ids.start < count {
                return;
            }
            let (token, count) = self.ids_waiting.pop_front().expect("its front was just seen");
            let first = self.ids.start;
            self.ids.start += count;
            effects.reply.push((token, Ok(Reply::Ids { first, count })));
        }
    }

    /// Reserves timestamps and ids ahead, once at a time.
    fn maybe_reserve(&mut self, effects: &mut Effects<T>) {
        if !self.is_ready() {
            return;
        }
        if let Some(bound_ms) = self.tso.want_bound() {
            self.propose(Command::ReserveTso(record::ReserveTso { bound_ms }), None, effects);
        }
        // Operators take ids without waiting, so some are always kept at hand.
        let wanted = self.ids_waiting.front().map_or(ID_LEFT_MIN, |&(_, count)| count);
        if self.ids.end - self.ids.start < wanted && !self.ids_on_their_way {
            self.ids_on_their_way = true;
            self.propose(
                Command::ReserveIds(record::ReserveIds {
                    count: wanted.max(ID_RESERVE),
                }),
                None,
                effects,
            );
        }
    }

    fn propose(&mut self, command: Command, token: Option<T>, effects: &mut Effects<T>) {
        self.proposals += 1;
        let id = ProposalId(self.proposals);
        if let Some(token) = token {
            self.waiting.insert(id, token);
        }
        effects.propose.push(Proposal { id, command });
    }

    /// `proposal` tells which of this machine's proposals it is, if it is one.
    fn on_committed(
        &mut self,
        now: MonoTime,
        wall: WallTime,
        index: u64,
        proposal: Option<ProposalId>,
        command: Option<&Command>,
        effects: &mut Effects<T>,
    ) {
        assert_eq!(index, self.applied + 1, "the log skips or repeats a command");
        self.applied = index;
        let Some(command) = command else { return };
        let stores = self.state.stores.len();
        let outcome = self.state.apply(command);
        if schedule::concerns(command) {
            self.on_scheduling_changed();
        }
        // Regions may use a further store, or must leave one.
        if self.state.stores.len() > stores || matches!(command, Command::Schedule(_)) {
            self.ask_for_reports(now, effects);
        }
        if outcome.is_ok() && matches!(command, Command::Bootstrap(_)) {
            self.regions = first_regions(&self.state);
        }
        effects.status_changed |= matches!(command, Command::Init(_) | Command::PutMember(_) | Command::ChangeMember(_));
        if self.applied >= self.snapshot + SNAPSHOT_EVERY {
            self.give_snapshot(effects);
        }
        let Some(id) = proposal else { return };
        match (command, &outcome) {
            (Command::ReserveTso(_), _) => {
                self.tso.on_bound(self.state.tso_bound_ms);
                self.serve_tso(now, wall, effects);
            }
            (Command::ReserveIds(_), Ok(Reply::Ids { first, count })) => self.on_ids(*first, *count, effects),
            _ => {}
        }
        if let Some(token) = self.waiting.remove(&id) {
            effects.reply.push((token, outcome));
        }
    }

    fn on_ids(&mut self, first: u64, count: u64, effects: &mut Effects<T>) {
        self.ids_on_their_way = false;
        // What is left of the last reserve is used up only if the new one follows it.
        self.ids = if self.ids.end == first {
            self.ids.start..first + count
        } else {
            first..first + count
        };
        self.serve_ids(effects);
    }

    fn on_leads(&mut self, now: MonoTime, wall: WallTime, effects: &mut Effects<T>) {
        self.leads = true;
        self.leader = None;
        self.lease_until = MonoTime::default();
        effects.status_changed = true;
        self.beats = Beats::new(now);
        self.fleet.outdate();
        self.tso = Tso::new(self.state.tso_bound_ms);
        self.ids = 0..0;
        self.ids_on_their_way = false;
        if !self.state.cluster.is_some() {
            let init = record::Init {
                created_at_seconds: wall.seconds(),
                ..self.init
            };
            self.propose(Command::Init(init), None, effects);
        }
        if self.state.members.get(&MemberId(self.member.id)) != Some(&self.member) {
            let member = Some(self.member.clone());
            self.propose(Command::PutMember(record::PutMember { member }), None, effects);
        }
    }

    /// Nobody waits for a member that does not lead: they ask the next one.
    fn on_follows(&mut self, leader: Option<MemberId>, effects: &mut Effects<T>) {
        (self.leads, self.leader) = (false, leader);
        effects.status_changed = true;
        effects
            .reply
            .extend(self.take_waiting().into_iter().map(|token| (token, Err(Error::NotLeader))));
    }
}

/// The directory as bootstrap left it.
fn first_regions(state: &State) -> Directory {
    let mut regions = Directory::default();
    for region in &state.first_regions {
        let info = RegionInfo::without_heartbeat(region.clone()).expect("bootstrap checked the first regions");
        regions
            .put(info)
            .expect("bootstrap checked that the first regions are disjoint");
    }
    regions
}

/// Ranges must be well formed, ascending and disjoint.
fn check_ascending(ranges: &[KeyRange]) -> Result<(), Error> {
    let is_empty = |range: &KeyRange| !range.end.is_empty() && range.start > range.end;
    let overlaps = |pair: &[KeyRange]| pair[0].end.is_empty() || pair[0].end > pair[1].start;
    if ranges.iter().any(is_empty) || ranges.windows(2).any(overlaps) {
        return Err(Error::Invalid {
            reason: "key ranges must be ascending and must not overlap".to_owned(),
        });
    }
    Ok(())
}

/// When something that lives for `ttl_seconds` expires; zero stands for never.
fn expiry(now_seconds: u64, ttl_seconds: i64) -> u64 {
    match u64::try_from(ttl_seconds) {
        Ok(ttl) if ttl_seconds != crate::gc::TTL_FOREVER => now_seconds.saturating_add(ttl),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
