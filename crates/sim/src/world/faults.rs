//! What goes wrong in the world: faults that come by themselves while there is chaos, and the same by hand for scenarios.

use std::time::Duration;

use base::{MonoTime, PeerId, RegionId};
use proto::metapb::{Peer, PeerRole, Region};
use raftstore::RaftMessage;
use raftstore::command::{ConfKind, ConfOne};
use raftstore::peer;

use super::{Event, Failure, Input, State, World};
use crate::counts::Counts;
use crate::disk::DiskOptions;
use crate::message::Message;
use crate::network::{Cut, NetworkOptions, Node};
use crate::observer::kind;
use crate::options::Recurring;
use crate::store;

/// Something that goes wrong, or ends going wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// One that comes again and again.
    Recurring(Kind),
    /// A store's process dies.
    Crash(u64),
    Restart(u64),
    Resume(u64),
    /// A region is divided.
    Split(base::RegionId),
    DiskRecovers(u64),
    /// Links are mended: one of them, or all.
    Mend {
        all: bool,
    },
    Nothing,
}

/// Faults that come again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Crash,
    Pause,
    Partition,
    SlowDisk,
    ClockJump,
    Transfer,
    Campaign,
    ConfChange,
    Split,
    Merge,
    /// Clients rest, all at once.
    Nap,
}

/// Voters that a region keeps whatever the membership changes.
const VOTERS_MIN: usize = 3;

impl World {
    /// Faults come by themselves from now on.
    pub fn begin_chaos(&mut self) {
        self.chaos = true;
        for kind in [
            Kind::Crash,
            Kind::Pause,
            Kind::Partition,
            Kind::SlowDisk,
            Kind::ClockJump,
            Kind::Transfer,
            Kind::Campaign,
            Kind::ConfChange,
            Kind::Split,
            Kind::Merge,
            Kind::Nap,
        ] {
            self.schedule(kind);
        }
    }

    fn recurring(&self, kind: Kind) -> Option<Recurring> {
        match kind {
            Kind::Crash => self.options.crashes,
            Kind::Pause => self.options.pauses,
            Kind::Partition => self.options.partitions,
            Kind::SlowDisk => self.options.slow_disks,
            Kind::ClockJump => self.options.clock_jumps,
            Kind::Transfer => self.options.transfers,
            Kind::Campaign => self.options.campaigns,
            Kind::ConfChange => self.options.conf_changes,
            Kind::Split => self.options.splits,
            Kind::Merge => self.options.merges,
            Kind::Nap => self.options.naps,
        }
    }

    fn schedule(&mut self, kind: Kind) {
        if let Some(recurring) = self.recurring(kind) {
            let after = self.rng_faults.exponential(recurring.every);
            self.queue
                .push(self.queue.now() + after, Event::Fault(Fault::Recurring(kind)));
        }
    }

    /// About how long a fault of this kind lasts.
    fn lasting(&mut self, kind: Kind) -> Duration {
        let mean = self
            .recurring(kind)
            .map_or(Duration::from_millis(300), |recurring| recurring.lasts);
        self.rng_faults.exponential(mean)
    }

    /// All that goes wrong ends: stores run, links, disks and clocks are healthy.
    pub fn heal(&mut self) {
        self.chaos = false;
        self.napping_until = MonoTime::default();
        self.network.mend_all();
        self.network.options = NetworkOptions::healthy();
        (self.options.crash_at_vote, self.options.crash_at_append) = (0.0, 0.0);
        (self.options.crash_at_split, self.options.crash_at_merge) = (0.0, 0.0);
        // While the wall clock is behind the timestamps given already, their milliseconds stand still, and no lock outlives its time.
        self.wall_off_ms = self.wall_off_max_ms;
        self.note("heal");
        for id in self.store_ids() {
            let slot = self.stores.get_mut(&id).expect("listed above");
            (slot.disk.options, slot.disk.slowness) = (DiskOptions::healthy(), 1);
            self.restart(id);
            self.resume(id).expect("stores that resume break no promise they kept so far");
        }
    }

    fn note(&mut self, what: &str) {
        self.trace.note(self.queue.now(), format_args!("{what}"));
    }

    pub(super) fn on_fault(&mut self, fault: Fault) -> Result<(), Failure> {
        match fault {
            Fault::Recurring(kind) if self.chaos => {
                self.schedule(kind);
                self.on_recurring(kind);
            }
            Fault::Recurring(_) | Fault::Nothing => {}
            Fault::Crash(store) if self.chaos => {
                self.crash(store);
                let down = Duration::from_millis(self.rng_faults.between(5, 500));
                self.after(down, Fault::Restart(store));
            }
            Fault::Crash(_) => {}
            Fault::Split(region) if self.chaos => self.split_region(region),
            Fault::Split(_) => {}
            Fault::Restart(store) => self.restart(store),
            Fault::Resume(store) => self.resume(store)?,
            Fault::DiskRecovers(store) => self.stores.get_mut(&store).expect("stores are never removed").disk.slowness = 1,
            Fault::Mend { all: true } => drop(self.mend()),
            Fault::Mend { all: false } => {
                if self.network.mend_one() {
                    self.after(Duration::from_millis(200), Fault::Mend { all: false });
                }
            }
        }
        Ok(())
    }

    pub(super) fn after(&mut self, span: Duration, fault: Fault) {
        self.queue.push(self.queue.now() + span, Event::Fault(fault));
    }

    fn on_recurring(&mut self, kind: Kind) {
        match kind {
            Kind::Crash => self.crash_some(),
            Kind::Pause => {
                let store = self.pick_store();
                let lasts = self.lasting(kind);
                self.pause(store);
                if lasts > self.options.lease && !self.options.lease.is_zero() && self.leads_some(store) {
                    self.counts.add("pause_of_leader_over_lease");
                }
                self.after(lasts, Fault::Resume(store));
            }
            Kind::Partition => {
                let cut = *self.rng_faults.pick(&[Cut::Halves, Cut::OneWay, Cut::Ring, Cut::Isolate]);
                self.partition(cut);
                let lasts = self.lasting(kind);
                let all = !self.options.swizzle;
                self.after(lasts, Fault::Mend { all });
            }
            Kind::SlowDisk => {
                let store = self.pick_store();
                let slowness = self.rng_faults.between(10, 200) as u32;
                self.stores.get_mut(&store).expect("picked from the stores").disk.slowness = slowness;
                self.counts.add("disk_slow");
                let lasts = self.lasting(kind);
                self.after(lasts, Fault::DiskRecovers(store));
            }
            Kind::ClockJump => {
                self.wall_off_ms = self.rng_faults.between(0, 7_200_000) as i64 - 3_600_000;
                self.wall_off_max_ms = self.wall_off_ms.max(self.wall_off_max_ms);
                self.counts.add("clock_jump");
                if self.rng_faults.chance(0.5) {
                    self.restart_placement();
                }
            }
            Kind::Transfer => self.transfer_some(),
            Kind::Campaign => self.campaign_some(),
            Kind::ConfChange => self.change_some_membership(),
            Kind::Split => self.split_some(),
            Kind::Merge => self.merge_some(),
            Kind::Nap => self.napping_until = self.queue.now() + self.lasting(kind),
        }
    }

    /// A running store, more often one that leads.
    fn pick_store(&mut self) -> u64 {
        let ids = self.store_ids();
        let leading: Vec<u64> = ids.iter().copied().filter(|&id| self.leads_some(id)).collect();
        match !leading.is_empty() && self.rng_faults.chance(0.5) {
            true => *self.rng_faults.pick(&leading),
            false => *self.rng_faults.pick(&ids),
        }
    }

    fn leads_some(&self, store: u64) -> bool {
        self.running(store)
            .is_some_and(|running| running.peers().any(raftstore::peer::Peer::is_leader))
    }

    fn crash_some(&mut self) {
        let mut victims = vec![self.pick_store()];
        if self.rng_faults.chance(self.options.crashes_of_all) {
            victims = self.store_ids();
            self.counts.add("crash_of_all");
        }
        for store in victims {
            self.crash(store);
            let down = self.lasting(Kind::Crash);
            self.after(down, Fault::Restart(store));
        }
    }

    /// Kills a store's process; unsynced writes are lost at random.
    pub fn crash(&mut self, store: u64) {
        let slot = self.stores.get_mut(&store).expect("only known stores crash");
        let State::Up(running) = &slot.state else { return };
        self.counts.merge(&running.counts);
        let leads_asleep = running.peers().any(|peer| peer.is_leader() && peer.is_hibernating());
        self.counts.add_many("crash_of_hibernating_leader", u64::from(leads_asleep));
        self.counts.add("crash");
        let data = running.data().clone().crash(&mut self.rng_faults, &mut self.counts);
        slot.state = State::Down(data);
        slot.inbox = None;
        slot.life += 1;
        slot.disk.reset();
        self.note(&format!("store{store} crashes"));
    }

    pub fn restart(&mut self, store: u64) {
        if self.running(store).is_none() {
            self.counts.add("restart");
            self.start(store);
        }
    }

    /// Stops a store's process as SIGSTOP does: nothing is lost, nothing is handled.
    pub fn pause(&mut self, store: u64) {
        let slot = self.stores.get_mut(&store).expect("only known stores pause");
        if matches!(slot.state, State::Up(_)) && slot.inbox.is_none() {
            slot.inbox = Some(Vec::new());
            self.counts.add("pause");
            self.note(&format!("store{store} pauses"));
        }
    }

    /// Lets a paused store handle what came meanwhile. Threads wake in any order: requests of clients may be handled before the
    /// raft thread's turn, or after it.
    pub fn resume(&mut self, store: u64) -> Result<(), Failure> {
        let slot = self.stores.get_mut(&store).expect("only known stores resume");
        let Some(mut inbox) = slot.inbox.take() else { return Ok(()) };
        self.note(&format!("store{store} resumes"));
        if self.rng_faults.chance(0.7) {
            inbox.sort_by_key(|input| !matches!(input, Input::Message(_, Message::Request(_))));
        }
        inbox.into_iter().try_for_each(|input| self.store_input(store, input))
    }

    /// Cuts links among stores.
    pub fn partition(&mut self, cut: Cut) {
        let stores: Vec<_> = self.stores.keys().map(|&id| Node::Store(id)).collect();
        self.network.cut(cut, &stores);
        self.counts.add("partition");
        match cut {
            Cut::OneWay => self.counts.add("partition_one_way"),
            Cut::Ring => self.counts.add("partition_ring"),
            Cut::Halves | Cut::Isolate => {}
        }
        self.note(&format!("partition {cut:?}"));
    }

    /// Mends all links; whether any was cut.
    pub fn mend(&mut self) -> bool {
        self.note("mend");
        self.network.mend_all()
    }

    /// The placement driver dies and comes back.
    pub fn restart_placement(&mut self) {
        let (now, wall) = (self.now(), self.placement_wall());
        self.placement_life += 1;
        self.placement_disk.reset();
        self.placement.restart(now, wall, &mut self.rng_faults);
        self.counts.add("placement_restart");
        self.note("pd restarts");
    }

    /// A store dies around the moment in which it answers, when what it promised must already be durable.
    pub(super) fn maybe_crash_at(&mut self, store: u64, message: &RaftMessage) {
        let (share, site) = match message.kind {
            kind::VOTE if !message.reject => (self.options.crash_at_vote, "crash_at_vote"),
            kind::APPEND_ANSWER if !message.reject => (self.options.crash_at_append, "crash_at_append_answer"),
            _ => return,
        };
        if self.chaos && self.rng_faults.chance(share) {
            self.counts.add(site);
            let after = Duration::from_micros(self.rng_faults.between(0, 500));
            self.after(after, Fault::Crash(store));
        }
    }

    /// A store dies right after it divided a region, when nothing of the new ones is logged yet.
    pub(super) fn maybe_crash_after_split(&mut self, store: u64) {
        if self.chaos && self.rng_faults.chance(self.options.crash_at_split) {
            self.counts.add("crash_after_split");
            let after = Duration::from_micros(self.rng_faults.between(0, 3_000));
            self.after(after, Fault::Crash(store));
        }
    }

    /// A store dies right after a region came to stand still there, or was taken over.
    pub(super) fn maybe_crash_in_merge(&mut self, store: u64) {
        if self.chaos && self.rng_faults.chance(self.options.crash_at_merge) {
            self.counts.add("crash_in_merge");
            let after = Duration::from_micros(self.rng_faults.between(0, 3_000));
            self.after(after, Fault::Crash(store));
        }
    }

    pub(super) fn pick_region(&mut self) -> RegionId {
        let ids: Vec<_> = self.region_ids().into_iter().collect();
        match ids.is_empty() {
            true => RegionId(self.regions[0].id),
            false => *self.rng_faults.pick(&ids),
        }
    }

    /// Store and peer that lead a region, if any does; of several the one with the highest term.
    pub fn leader(&self, region: RegionId) -> Option<(u64, &peer::Peer)> {
        let peers = self
            .stores
            .keys()
            .filter_map(|&id| Some((id, self.running(id)?.peer(region)?)));
        peers.filter(|(_, peer)| peer.is_leader()).max_by_key(|(_, peer)| peer.term())
    }

    fn transfer_some(&mut self) {
        let region = self.pick_region();
        let Some((_, leader)) = self.leader(region) else { return };
        let peers = leader.region().peers.clone();
        let to = PeerId(self.rng_faults.pick(&peers).id);
        self.transfer(region, to);
    }

    /// Asks the region's leader to hand over to a peer.
    pub fn transfer(&mut self, region: RegionId, to: PeerId) {
        let began = self.admin(region, |reply| peer::Event::TransferLeader { to, reply });
        self.counts.add_many("transfer_asked", u64::from(began));
    }

    fn campaign_some(&mut self) {
        let region = self.pick_region();
        let stores: Vec<u64> = self
            .store_ids()
            .into_iter()
            .filter(|&id| self.running(id).is_some_and(|s| s.peer(region).is_some()))
            .collect();
        for store in stores {
            if self.rng_faults.chance(0.6) {
                self.campaign(store, region);
            }
        }
    }

    /// Makes a store's peer stand for election now.
    pub fn campaign(&mut self, store: u64, region: RegionId) {
        self.post(store, region, peer::Event::Campaign);
    }

    pub(super) fn post(&mut self, store: u64, region: RegionId, event: peer::Event) {
        let now = self.now();
        let paused = self.stores.get(&store).is_some_and(|slot| slot.inbox.is_some());
        let Some(running) = self.running_mut(store).filter(|_| !paused) else {
            return;
        };
        let mut out = store::Out::default();
        running.post(now, region, event, &mut out);
        self.carry_out_store(store, out)
            .expect("an event in a mailbox sends nothing yet");
    }

    /// Gives the region's leader an administrative request; whether there is a leader.
    fn admin(&mut self, region: RegionId, event: impl FnOnce(peer::AdminReply) -> peer::Event) -> bool {
        let Some((store, _)) = self.leader(region) else { return false };
        let outcomes = self.admin_outcomes.clone();
        let reply = Box::new(move |result: Result<(), raftstore::command::AdminError>| {
            outcomes.lock().add(if result.is_ok() { "admin_ok" } else { "admin_refused" });
        });
        self.post(store, region, event(reply));
        true
    }

    fn change_some_membership(&mut self) {
        let region = self.pick_region();
        self.change_membership_somehow(region);
    }

    pub(super) fn change_membership_somehow(&mut self, region: RegionId) {
        let Some((_, leader)) = self.leader(region) else { return };
        let current = (**leader.region()).clone();
        // Now and then under an old epoch, which must be refused.
        let epoch = match self.rng_faults.chance(0.1) {
            true => self
                .regions
                .iter()
                .find(|first| first.id == region.0)
                .and_then(|first| first.region_epoch)
                .unwrap_or_default(),
            false => raftstore::region::epoch(&current),
        };
        let changes = self.draw_changes(&current);
        if !changes.is_empty() {
            self.change_membership(region, epoch, changes);
        }
    }

    /// Asks the region's leader for a change of membership.
    pub fn change_membership(&mut self, region: RegionId, epoch: proto::metapb::RegionEpoch, changes: Vec<ConfOne>) {
        self.admin(region, |reply| peer::Event::ConfChange { epoch, changes, reply });
    }

    /// A change that leaves enough voters: add a learner or voter, promote, remove, or swap one store for another at once.
    fn draw_changes(&mut self, region: &Region) -> Vec<ConfOne> {
        let role = |role: PeerRole| {
            region
                .peers
                .iter()
                .filter(|peer| peer.role() == role)
                .cloned()
                .collect::<Vec<_>>()
        };
        let (voters, learners) = (role(PeerRole::Voter), role(PeerRole::Learner));
        let free: Vec<u64> = self
            .store_ids()
            .into_iter()
            .filter(|id| region.peers.iter().all(|peer| peer.store_id != *id))
            .collect();
        let mut choices: Vec<Vec<ConfOne>> = Vec::new();
        if !free.is_empty() {
            let store = *self.rng_faults.pick(&free);
            let peer = self.new_peer(store);
            choices.push(vec![one(ConfKind::AddLearner, &peer)]);
            choices.push(vec![one(ConfKind::AddVoter, &peer)]);
            if voters.len() >= VOTERS_MIN {
                let out = *self.rng_faults.pick(&voters);
                choices.push(vec![one(ConfKind::AddVoter, &peer), one(ConfKind::AddLearner, &out)]);
            }
        }
        for learner in &learners {
            choices.push(vec![one(ConfKind::AddVoter, learner)]);
            choices.push(vec![one(ConfKind::Remove, learner)]);
        }
        if voters.len() > VOTERS_MIN {
            choices.push(vec![one(ConfKind::Remove, self.rng_faults.pick(&voters))]);
        }
        match choices.is_empty() {
            true => Vec::new(),
            false => choices.swap_remove(self.rng_faults.below(choices.len())),
        }
    }

    /// A peer that never was, for this store.
    pub fn new_peer(&mut self, store: u64) -> Peer {
        self.next_peer += 1;
        Peer {
            id: self.next_peer,
            store_id: store,
            ..Default::default()
        }
    }

    /// Everything counted so far.
    pub fn all_counts(&self) -> Counts {
        let mut counts = self.counts.clone();
        for id in self.store_ids() {
            if let Some(running) = self.running(id) {
                counts.merge(&running.counts);
            }
        }
        counts.merge(&self.admin_outcomes.lock());
        counts.add_many("message_lost", self.network.lost);
        counts.add_many("message_duplicated", self.network.duplicated);
        counts.add_many("leader_elected", self.leaders());
        counts
    }
}

/// One change of membership.
pub fn one(kind: ConfKind, peer: &Peer) -> ConfOne {
    ConfOne {
        kind: kind as i32,
        peer: Some(*peer),
    }
}
