//! Runs a store's peers on threads: what `sim` does under virtual time, done for real.
//!
//! Threads: `raft-n` step peers, `raft-log` makes their writes durable, many regions with one sync, `apply-n` apply what is committed,
//! `raft-control` creates and destroys peers, `raft-tick` ticks, `raft-back` does what may take long. Queues: a region's mailbox
//! holds at most `raft.mailbox-max` requests (then `Busy`); what a store sends to itself is bounded by what is under way.

mod background;
mod control;
mod io;
pub mod mailbox;
mod poll;

use std::collections::HashMap;
use std::io as std_io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use base::shutdown::Shutdown;
use base::{ClusterId, MonoTime, PeerId, RegionId, StoreId};
use crossbeam_channel::Sender;
use engine::kv::{Context, Error as KvError, Kv, Modify, RegionView, Reply, SnapshotRef};
use engine::{Cf, Engine};
use parking_lot::{Mutex, RwLock};
use proto::metapb;

use self::mailbox::{Refused, Router};
use crate::apply::{Applier, ApplyTask};
use crate::beats::Beats;
use crate::command::ConfOne;
use crate::config::Config;
use crate::delegate::Delegate;
use crate::log::RaftLog;
use crate::peer::{AdminReply, Effects, Event, Peer, Report, SplitWanted};
use crate::registry::{Born, Registry};
use crate::rescue::Order;
use crate::snapshot::{FileSnapshots, Receiving};
use crate::split::SplitOne;
use crate::store::{Decision, Store};
use crate::{Error, RaftMessage, Result, Transport};

/// Tells the placement driver of regions. Never blocks.
pub trait Reporter: Send + Sync {
    fn report(&self, report: Report);
    /// A region that is led here should be divided.
    fn split_wanted(&self, wanted: SplitWanted);
    /// The region is no longer here.
    fn forget(&self, region: RegionId);
}

/// Answers of several requests, to be given by calling it.
pub type Answers = Box<dyn FnOnce() + Send>;

/// Runs [`Answers`], best on the threads where those wait who asked: to wake them one by one from a thread of the store costs a
/// system call each.
pub type Answerer = Box<dyn Fn(Answers) + Send + Sync>;

/// What a store runs on.
pub struct Parts {
    pub store: StoreId,
    pub cluster: ClusterId,
    pub config: Config,
    pub engine: Arc<dyn Engine>,
    pub log: Arc<dyn RaftLog>,
    pub snapshots: Arc<FileSnapshots>,
    pub transport: Arc<dyn Transport>,
    pub reporter: Arc<dyn Reporter>,
    pub answer: Answerer,
    /// Differs at each start.
    pub seed: u64,
    /// Called with what the store cannot go on after; must not return control to the store for long: it ends the process.
    pub fatal: Box<dyn Fn(&Error) + Send + Sync>,
}

pub(crate) type PeerRouter = Arc<Router<Peer, Event>>;
pub(crate) type ApplyRouter = Arc<Router<Applier, ApplyTask>>;

pub(crate) struct Shared {
    store_id: StoreId,
    cluster: ClusterId,
    config: Arc<Config>,
    engine: Arc<dyn Engine>,
    log: Arc<dyn RaftLog>,
    snapshots: Arc<FileSnapshots>,
    transport: Arc<dyn Transport>,
    reporter: Arc<dyn Reporter>,
    answer: Answerer,
    fatal: Box<dyn Fn(&Error) + Send + Sync>,
    store: Mutex<Store>,
    beats: Mutex<Beats>,
    /// Whether `beats` knows of a store without room: looked at with each write.
    any_full: AtomicBool,
    registry: Arc<Registry>,
    peers: PeerRouter,
    appliers: ApplyRouter,
    delegates: RwLock<HashMap<RegionId, Delegate>>,
    /// Applied index of each region, for compaction and reports.
    applied: Mutex<HashMap<RegionId, u64>>,
    control: Sender<control::Control>,
    background: Sender<background::Job>,
    shutdown: Shutdown,
}

impl Shared {
    /// Stops the store for a reason that leaves no way on.
    fn die(&self, error: &Error) {
        if !self.shutdown.is_stopped() {
            self.shutdown.stop();
            (self.fatal)(error);
        }
    }
}

/// A running store. Clones share it.
#[derive(Clone)]
pub struct RaftStore {
    shared: Arc<Shared>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl RaftStore {
    /// Recovers the store's peers and starts its threads.
    pub fn start(parts: Parts) -> Result<RaftStore> {
        let config = Arc::new(parts.config);
        let (peers, ready_peers) = Router::new(config.mailbox_max as usize);
        let (appliers, ready_appliers) = Router::new(usize::MAX);
        let (control, control_inbox) = crossbeam_channel::unbounded(); // at most an event a region and peer lost
        let (background, background_inbox) = crossbeam_channel::bounded(64);
        let (io, io_inbox) = crossbeam_channel::bounded(1024); // full: raft threads wait for the disk
        let store = Store::new(
            parts.store,
            config.clone(),
            parts.engine.clone(),
            parts.log.clone(),
            parts.snapshots.clone(),
            parts.seed,
        );
        let beats = Beats::new(parts.store, &config);
        let shared = Arc::new(Shared {
            store_id: parts.store,
            cluster: parts.cluster,
            config,
            engine: parts.engine,
            log: parts.log,
            snapshots: parts.snapshots,
            transport: parts.transport,
            reporter: parts.reporter,
            answer: parts.answer,
            fatal: parts.fatal,
            registry: store.registry().clone(),
            store: Mutex::new(store),
            beats: Mutex::new(beats),
            any_full: AtomicBool::new(false),
            peers,
            appliers,
            delegates: RwLock::default(),
            applied: Mutex::default(),
            control,
            background,
            shutdown: Shutdown::default(),
        });
        let recovered = shared.store.lock().recover(MonoTime::now())?;
        for (peer, applier) in recovered {
            shared.install(peer, applier);
        }
        let mut threads = vec![
            io::start(shared.clone(), io_inbox),
            control::start(shared.clone(), control_inbox),
            control::start_ticks(shared.clone()),
            background::start(shared.clone(), background_inbox),
        ];
        for n in 0..shared.config.raft_threads {
            threads.push(poll::start_raft(n, shared.clone(), ready_peers.clone(), io.clone()));
        }
        for n in 0..shared.config.apply_threads {
            threads.push(poll::start_apply(n, shared.clone(), ready_appliers.clone()));
        }
        Ok(RaftStore {
            shared,
            threads: Arc::new(Mutex::new(threads)),
        })
    }

    pub fn store_id(&self) -> StoreId {
        self.shared.store_id
    }

    pub fn cluster_id(&self) -> ClusterId {
        self.shared.cluster
    }

    /// How many regions have a peer here, and how many of these lead and have applied an entry of their term.
    pub fn counts(&self) -> (usize, usize) {
        (self.shared.peers.count(), self.shared.delegates.read().len())
    }

    /// How many regions hibernate.
    pub fn hibernating(&self) -> usize {
        self.shared.peers.count_hibernating()
    }

    /// Whether this store's disk is almost full. While it is, the regions that have a peer here take only what frees room.
    pub fn set_disk_full(&self, is_full: bool) {
        self.shared.with_beats(|beats| beats.set_full(is_full));
    }

    /// Regions that this store leads.
    pub fn led_regions(&self) -> Vec<Arc<metapb::Region>> {
        self.shared
            .delegates
            .read()
            .values()
            .map(|delegate| delegate.region.clone())
            .collect()
    }

    /// A region that this store leads.
    pub fn led(&self, region: RegionId) -> Option<Arc<metapb::Region>> {
        self.shared
            .delegates
            .read()
            .get(&region)
            .map(|delegate| delegate.region.clone())
    }

    /// The region with the first key and the term in which this store leads it, if it does.
    pub fn led_first(&self) -> Option<(RegionId, u64)> {
        let delegates = self.shared.delegates.read();
        let first = delegates.iter().find(|(_, delegate)| delegate.region.start_key.is_empty());
        first.map(|(id, delegate)| (*id, delegate.term))
    }

    /// Regions with a peer here.
    pub fn regions(&self) -> Vec<RegionId> {
        self.shared.store.lock().regions()
    }

    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.shared.engine
    }

    pub fn raft_log(&self) -> &Arc<dyn RaftLog> {
        &self.shared.log
    }

    pub fn snapshots(&self) -> &Arc<FileSnapshots> {
        &self.shared.snapshots
    }

    /// Takes messages that another store sent.
    pub fn on_messages(&self, messages: Vec<RaftMessage>) {
        let mut store = self.shared.store.lock();
        for message in messages {
            self.shared.on_message(&mut store, message);
        }
    }

    /// Begins to take in a raft snapshot that comes with `message`. Once its parts are in and it is finished, the message goes to
    /// [`on_messages`](RaftStore::on_messages).
    pub fn receive_snapshot(&self, message: &RaftMessage) -> std_io::Result<Receiving> {
        let invalid = |what| std_io::Error::new(std_io::ErrorKind::InvalidInput, what);
        let meta = message
            .snapshot
            .as_ref()
            .ok_or_else(|| invalid("the message carries no raft snapshot"))?;
        let region = meta
            .region
            .as_ref()
            .ok_or_else(|| invalid("the raft snapshot names no region"))?;
        if self.shared.beats.lock().is_full(self.shared.store_id) {
            return Err(std_io::Error::new(
                std_io::ErrorKind::StorageFull,
                "the disk is almost full: no raft snapshot is taken in",
            ));
        }
        if region.id != message.region_id {
            return Err(invalid("the raft snapshot is of another region than its message"));
        }
        let key = crate::message::snapshot_key(RegionId(region.id), meta);
        self.shared
            .snapshots
            .receive(key, region, message.from.as_ref().map_or(0, |from| from.id))
    }

    /// Changes the membership of a region that this store leads.
    pub fn change_membership(&self, region: RegionId, epoch: metapb::RegionEpoch, changes: Vec<ConfOne>, reply: AdminReply) {
        self.shared.send_request(region, Event::ConfChange { epoch, changes, reply });
    }

    /// Divides a region that this store leads, under this epoch. The parts are what [`split::split`](crate::split::split) says.
    pub fn split(&self, region: RegionId, epoch: metapb::RegionEpoch, parts: Vec<SplitOne>, reply: AdminReply) {
        self.shared.send_request(region, Event::Split { epoch, parts, reply });
    }

    /// Merges a region that this store leads, under this epoch, into a neighbour. The answer tells that it stands still for that.
    pub fn merge(&self, region: RegionId, epoch: metapb::RegionEpoch, target: metapb::Region, reply: AdminReply) {
        let target = Box::new(target);
        self.shared.send_request(region, Event::Merge { epoch, target, reply });
    }

    /// Hands leadership of a region to another of its peers.
    pub fn transfer_leader(&self, region: RegionId, to: PeerId, reply: AdminReply) {
        self.shared.send_request(region, Event::TransferLeader { to, reply });
    }

    /// Lets this store's replica of a region go on whose voters are lost for good.
    pub fn rescue(&self, region: RegionId, order: Order, reply: AdminReply) {
        self.shared.send_request(region, Event::Rescue { order, reply });
    }

    /// Tells the placement driver of every region that this store leads, as if each had just changed.
    pub fn report_all(&self) {
        let led: Vec<RegionId> = self.shared.delegates.read().keys().copied().collect();
        for region in led {
            self.shared.send_request(region, Event::Report);
        }
    }

    /// Lets this store's peer of the region stand for election now.
    pub fn campaign(&self, region: RegionId) {
        self.shared.send_request(region, Event::Campaign);
    }

    /// Stops all threads, then makes everything durable. Whoever still waits gets no answer but a closed channel.
    pub fn stop(&self) -> Result<()> {
        self.shared.shutdown.stop();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            // A thread that panicked has ended the process already.
            drop(thread.join());
        }
        self.shared.peers.clear();
        self.shared.appliers.clear();
        self.shared
            .engine
            .sync()
            .map_err(|source| Error::Engine { act: "sync", source })?;
        self.shared.log.sync().map_err(|source| Error::Log { act: "sync", source })
    }
}

impl Shared {
    /// Puts a peer and its applier to work.
    fn install(&self, peer: Peer, applier: Applier) {
        let region = peer.region_id();
        let alone = peer.region().peers.len() == 1;
        self.applied.lock().insert(region, peer.applied().index);
        self.appliers.insert(region, applier);
        let mailbox = self.peers.insert(region, peer);
        if alone {
            // Nobody else could lead: no reason to wait for the election timeout.
            let _is_new = mailbox.send(Event::Campaign);
        }
    }

    fn with_beats<T>(&self, change: impl FnOnce(&mut Beats) -> T) -> T {
        let mut beats = self.beats.lock();
        let changed = change(&mut beats);
        self.any_full.store(beats.is_any_full(), Ordering::Release);
        changed
    }

    /// A store that has no room for what is to be written to a region that this one leads.
    fn full_store(&self, region: RegionId, changes: &[Modify]) -> Option<StoreId> {
        if !self.any_full.load(Ordering::Acquire) || !needs_room(changes) {
            return None;
        }
        let led = self.delegates.read().get(&region).map(|delegate| delegate.region.clone())?;
        let beats = self.beats.lock();
        let mut stores = led.peers.iter().map(|peer| StoreId(peer.store_id));
        stores.find(|store| beats.is_full(*store))
    }

    /// A region fell asleep: it must hear of stores that were silent before.
    fn tell_of_silent_stores(&self, region: &metapb::Region) {
        let beats = self.beats.lock();
        let stores = region.peers.iter().map(|peer| StoreId(peer.store_id));
        for store in stores.filter(|store| beats.is_silent(*store)) {
            // A region that is gone needs no news.
            let _gone = self.peers.send(RegionId(region.id), Event::StoreSilent(store));
        }
    }

    fn on_message(&self, store: &mut Store, message: RaftMessage) {
        if message.is_beat {
            return self.with_beats(|beats| beats.on_message(&message, MonoTime::now()));
        }
        let region = RegionId(message.region_id);
        match store.on_message(&message, MonoTime::now()) {
            Ok(Decision::Deliver) => self.deliver(region, message),
            Ok(Decision::Create(made)) => {
                let (peer, applier) = *made;
                self.install(peer, applier);
                self.deliver(region, message);
            }
            // The control thread lives as long as anybody can send.
            Ok(Decision::Destroy) => drop(self.control.send(control::Control::Destroy { region })),
            Ok(Decision::Clear(regions)) => drop(self.control.send(control::Control::Clear(regions))),
            Ok(Decision::Answer(answer)) => self.transport.send(vec![answer]),
            Ok(Decision::Drop) => {}
            Err(error) => self.die(&error),
        }
    }

    fn deliver(&self, region: RegionId, message: RaftMessage) {
        let is_snapshot = crate::message::is_snapshot(&message);
        // Full or gone: raft sends again what matters.
        if self.peers.try_send(region, Event::Raft(Box::new(message))).is_err() && is_snapshot {
            self.registry.release(region);
        }
    }

    /// Puts the peers of regions to work that a split made.
    fn bear(&self, born: Vec<Born>) -> Result<()> {
        for born in born {
            let region = RegionId(born.region.id);
            let made = self.store.lock().bear(&born, MonoTime::now())?;
            match made {
                Some((peer, applier)) => self.install(peer, applier),
                // Removed meanwhile: then it is not to be.
                None => drop(self.peers.send(region, Event::Begin(Box::new(born.region)))),
            }
            let early = self.registry.take_early(region);
            let mut store = self.store.lock();
            early.into_iter().for_each(|message| self.on_message(&mut store, message));
        }
        Ok(())
    }

    /// Sends a request to a region; one that cannot be taken is answered here.
    fn send_request(&self, region: RegionId, event: Event) {
        match self.peers.try_send(region, event) {
            Ok(()) => {}
            Err(Refused::Full(event)) => answer_error(
                event,
                KvError::Busy {
                    reason: "too many requests wait for the region",
                },
            ),
            Err(Refused::Gone(event)) => answer_error(event, KvError::RegionNotFound { region }),
        }
    }
}

/// Whether a batch takes room for good. What deletes does not, nor what ends a transaction: a commit record in place of a lock.
fn needs_room(changes: &[Modify]) -> bool {
    let unlocks = changes
        .iter()
        .any(|change| matches!(change, Modify::Delete { cf: Cf::Lock, .. }));
    changes.iter().any(|change| match change {
        Modify::Put { cf: Cf::Write, .. } => !unlocks,
        Modify::Put { .. } => true,
        Modify::Delete { .. } | Modify::DeleteRange { .. } => false,
    })
}

/// Answers the request in an event that will not be handled.
pub(crate) fn answer_error(event: Event, error: KvError) {
    match event {
        Event::Write { reply, .. } => reply(Err(error)),
        Event::Read { reply, .. } => reply(Err(error)),
        Event::ConfChange { reply, .. }
        | Event::Split { reply, .. }
        | Event::Merge { reply, .. }
        | Event::Rescue { reply, .. }
        | Event::TransferLeader { reply, .. } => reply(Err(error.into())),
        _ => {}
    }
}

/// Gives out the answers among effects.
pub(crate) fn give_answers(fx: &mut Effects) {
    for (reply, result) in fx.answers.drain(..) {
        reply(result);
    }
    for (reply, error) in fx.read_errors.drain(..) {
        reply(Err(error));
    }
    for (reply, result) in fx.admin_answers.drain(..) {
        reply(result);
    }
}

impl Kv for RaftStore {
    fn snapshot(&self, ctx: &Context, now: MonoTime, reply: Reply<SnapshotRef>) {
        let shared = &self.shared;
        let delegates = shared.delegates.read();
        let lent = delegates.get(&ctx.region).and_then(|delegate| {
            delegate
                .try_read(ctx, now)
                .map(|verdict| verdict.map(|()| (delegate.region.clone(), delegate.term, delegate.lease.clone())))
        });
        drop(delegates);
        match lent {
            Some(Ok((region, term, lease))) => {
                let snapshot = shared.engine.snapshot();
                match lease.is_over() {
                    // Taken back meanwhile, with the range or the peer: what the snapshot holds of it is anybody's guess.
                    true => shared.send_request(
                        ctx.region,
                        Event::Read {
                            ctx: ctx.clone(),
                            at: None,
                            reply,
                        },
                    ),
                    false => reply(Ok(Arc::new(RegionView::new(snapshot, region, term)))),
                }
            }
            Some(Err(error)) => reply(Err(error)),
            None => shared.send_request(
                ctx.region,
                Event::Read {
                    ctx: ctx.clone(),
                    at: None,
                    reply,
                },
            ),
        }
    }

    fn snapshot_at(&self, ctx: &Context, index: u64, reply: Reply<SnapshotRef>) {
        let at = Some(index);
        self.shared.send_request(
            ctx.region,
            Event::Read {
                ctx: ctx.clone(),
                at,
                reply,
            },
        );
    }

    fn write(&self, ctx: &Context, changes: Vec<Modify>, deadline: MonoTime, reply: Reply<()>) {
        if let Some(store) = self.shared.full_store(ctx.region, &changes) {
            return reply(Err(KvError::DiskFull { store: store.0 }));
        }
        self.shared.send_request(
            ctx.region,
            Event::Write {
                ctx: ctx.clone(),
                changes,
                deadline,
                reply,
            },
        );
    }
}

#[cfg(test)]
mod tests;
