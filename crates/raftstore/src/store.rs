//! The peers of one store: found again at start, made at bootstrap or at another store's word, destroyed.
//!
//! Decides; shells carry out. Holds no peer itself, so that shells may spread peers over threads.

use std::sync::Arc;

use base::{ClusterId, MonoTime, PeerId, RegionId, StoreId};
use engine::{Batch, Cf, Engine, keys};
use prost::Message;
use proto::ferrite_raft::{ApplyState, RaftState, RegionState, StoreIdent, region_state};
use proto::metapb::{Peer as PeerMeta, Region, RegionEpoch};

use crate::apply::Applier;
use crate::config::Config;
use crate::log::{Found, RaftLog};
use crate::merge::Merging;
use crate::peer::{Peer, RaftWrite, Start};
use crate::registry::{Born, Grave, Registry};
use crate::snapshot::{Key, Snapshots};
use crate::storage::{LogCache, LogPosition};
use crate::{Error, RaftMessage, Result, message, region};

/// Where a fresh region's log begins: not at zero, so that a peer without data always gets a raft snapshot.
pub const INITIAL: LogPosition = LogPosition { index: 5, term: 5 };

/// Version of the data directory's layout.
pub const FORMAT: u32 = 1;

/// What to do with a message from another store.
pub enum Decision {
    /// The region's peer takes it.
    Deliver,
    /// A peer was made for it; it takes it.
    Create(Box<(Peer, Applier)>),
    /// This store's peer was removed from the region: destroy it.
    Destroy,
    /// These regions are dead, and stand in the way of a raft snapshot that will come again: destroy their peers.
    Clear(Vec<RegionId>),
    /// Tell the sender that it was removed.
    Answer(RaftMessage),
    Drop,
}

/// What a store knows of a region beside its range and its log.
#[derive(Default)]
struct Past {
    /// The epoch from which on its peer applied every change itself.
    since: RegionEpoch,
    merging: Option<Merging>,
}

impl Past {
    fn begins_with(region: &Region) -> Past {
        Past {
            since: region::epoch(region),
            merging: None,
        }
    }
}

pub struct Store {
    id: StoreId,
    config: Arc<Config>,
    engine: Arc<dyn Engine>,
    log: Arc<dyn RaftLog>,
    snapshots: Arc<dyn Snapshots>,
    seed: u64,
    registry: Arc<Registry>,
}

pub(crate) fn read<M: Message + Default>(engine: &dyn Engine, key: &[u8], what: &'static str) -> Result<Option<M>> {
    let bytes = engine
        .get(Cf::Local, key)
        .map_err(|source| Error::Engine { act: "read", source })?;
    bytes
        .map(|bytes| M::decode(bytes).map_err(|source| Error::Decode { what, source }))
        .transpose()
}

/// Reads who this store is; `None` on a fresh engine.
pub fn read_ident(engine: &dyn Engine) -> Result<Option<StoreIdent>> {
    let ident: Option<StoreIdent> = read(engine, keys::STORE_IDENT, "store identity")?;
    match ident {
        Some(ident) if ident.format != FORMAT => Err(Error::Format {
            found: ident.format,
            wanted: FORMAT,
        }),
        ident => Ok(ident),
    }
}

/// Writes who this store is, durably, before anything else.
pub fn write_ident(engine: &dyn Engine, cluster: ClusterId, store: StoreId) -> Result<()> {
    let ident = StoreIdent {
        cluster_id: cluster.0,
        store_id: store.0,
        format: FORMAT,
    };
    let mut batch = Batch::new();
    batch.put(Cf::Local, keys::STORE_IDENT, ident.encode_to_vec());
    engine
        .write(batch)
        .and_then(|()| engine.sync())
        .map_err(|source| Error::Engine {
            act: "write identity to",
            source,
        })
}

/// Writes fresh regions, each with its initial membership, durably: log first, since a region state without a log would be refused.
pub fn write_regions(engine: &dyn Engine, log: &dyn RaftLog, store: StoreId, regions: &[Region]) -> Result<()> {
    let state = RaftState {
        term: INITIAL.term,
        vote: 0,
        commit: INITIAL.index,
        truncated_index: INITIAL.index,
        truncated_term: INITIAL.term,
    };
    let fresh = |region: &Region| RaftWrite {
        region: RegionId(region.id),
        state: Some(state),
        ..RaftWrite::default()
    };
    let writes: Vec<_> = regions.iter().map(fresh).collect();
    log.write(&writes, true).map_err(|source| Error::Log {
        act: "write regions to",
        source,
    })?;
    let mut batch = Batch::new();
    for region in regions {
        let me = region::peer_on(region, store).map_or(0, |peer| peer.id);
        let state = RegionState {
            state: region_state::State::Normal as i32,
            region: Some(region.clone()),
            peer_id: me,
            since: region.region_epoch,
            ..RegionState::default()
        };
        let applied = ApplyState {
            applied_index: INITIAL.index,
            applied_term: INITIAL.term,
        };
        batch.put(Cf::Local, keys::region_state(RegionId(region.id)), state.encode_to_vec());
        batch.put(Cf::Local, keys::apply_state(RegionId(region.id)), applied.encode_to_vec());
    }
    engine
        .write(batch)
        .and_then(|()| engine.sync())
        .map_err(|source| Error::Engine {
            act: "write regions to",
            source,
        })
}

/// The states of all regions that the engine knows of, tombstones too.
pub(crate) fn read_region_states(engine: &dyn Engine) -> Result<Vec<RegionState>> {
    let failed = |source| Error::Engine { act: "scan", source };
    let (start, end) = keys::REGION_LOCAL;
    let mut cursor = engine.snapshot().cursor(Cf::Local, start, end).map_err(failed)?;
    let mut states = Vec::new();
    while let Some((key, value)) = cursor.next().map_err(failed)? {
        if keys::parse_region_local(&key).is_some_and(|(_, what)| what == b'm') {
            states.push(RegionState::decode(value).map_err(|source| Error::Decode {
                what: "region state",
                source,
            })?);
        }
    }
    Ok(states)
}

impl Store {
    /// Opens the store `id` on data that [`write_ident`] prepared. `seed` must differ at each start.
    pub fn new(
        id: StoreId,
        config: Arc<Config>,
        engine: Arc<dyn Engine>,
        log: Arc<dyn RaftLog>,
        snapshots: Arc<dyn Snapshots>,
        seed: u64,
    ) -> Store {
        Store {
            id,
            config,
            engine,
            log,
            snapshots,
            seed,
            registry: Arc::default(),
        }
    }

    pub fn id(&self) -> StoreId {
        self.id
    }

    /// Regions held here.
    pub fn regions(&self) -> Vec<RegionId> {
        self.registry.ids()
    }

    /// Finds all peers again after a start, finishing what a crash interrupted.
    pub fn recover(&mut self, now: MonoTime) -> Result<Vec<(Peer, Applier)>> {
        let mut peers = Vec::new();
        for state in read_region_states(&*self.engine)? {
            let gone = state.state() == region_state::State::Tombstone;
            let region = state.region.clone().unwrap_or_default();
            if gone {
                let grave = Grave {
                    peer: PeerId(state.peer_id),
                    epoch: region::epoch(&region),
                    since: state.since.unwrap_or_default(),
                    merged_into: RegionId(state.merged_into),
                };
                self.registry.restore_grave(RegionId(region.id), grave.clone());
                if !region.peers.is_empty() {
                    self.bury(&region, &grave)?;
                }
                continue;
            }
            let me = region::peer_of(&region, PeerId(state.peer_id))
                .cloned()
                .ok_or_else(|| Error::Inconsistent {
                    region: RegionId(region.id),
                    what: format!("it does not list this store's peer {}", state.peer_id),
                })?;
            let past = Past {
                since: state.since.unwrap_or_default(),
                merging: merging_of(&state),
            };
            peers.push(self.load(me, region, past, now)?);
        }
        // What the others' logs tell is known now.
        for (peer, _) in &mut peers {
            if self.registry.is_left(peer.region_id()) {
                peer.on_left();
            }
        }
        Ok(peers)
    }

    /// Makes peer and applier of a region whose records are on disk, if any.
    fn load(&mut self, me: PeerMeta, region: Region, past: Past, now: MonoTime) -> Result<(Peer, Applier)> {
        let id = RegionId(region.id);
        let initialized = !region.peers.is_empty();
        let log = |source| Error::Log { act: "read", source };
        let found = self.log.find(id).map_err(log)?;
        let is_new = found.is_none();
        let mut found = found.unwrap_or_default();
        let apply: ApplyState = read(&*self.engine, &keys::apply_state(id), "apply state")?.unwrap_or_default();
        let applied = LogPosition {
            index: apply.applied_index,
            term: apply.applied_term,
        };
        let (mut region, mut applied, mut past) = (region, applied, past);
        if applied == INITIAL && found.last_index < INITIAL.index {
            // A split made it, and nothing of its own was logged since but votes of a peer that waited for it.
            found = begun(&found.state);
        }
        let truncated = LogPosition {
            index: found.state.truncated_index,
            term: found.state.truncated_term,
        };
        if applied.index < truncated.index {
            // A raft snapshot reached the log, and then the store stopped before its data was in place.
            (region, applied) = self.reinstall(
                Key {
                    region: id,
                    position: truncated,
                },
                me,
            )?;
            past = Past::begins_with(&region);
        }
        if found.last_index < applied.index {
            // Nothing is applied before its entry is durable: the log lost what it had promised to keep, maybe votes too.
            let what = format!(
                "its log ends at {}, but {} is applied: the raft log is damaged",
                found.last_index, applied.index
            );
            return Err(Error::Inconsistent { region: id, what });
        }
        found.state.commit = found.state.commit.max(applied.index).min(found.last_index);
        let tail = match applied.index < found.last_index {
            true => self
                .log
                .entries(id, applied.index + 1, found.last_index + 1, u64::MAX)
                .map_err(log)?,
            false => Vec::new(),
        };
        if tail.len() as u64 != found.last_index - applied.index {
            let what = format!("its log lacks entries between {} and {}", applied.index, found.last_index);
            return Err(Error::Inconsistent { region: id, what });
        }
        let cache = LogCache::new(&found, &region, tail);
        self.registry.hold(id, PeerId(me.id), initialized.then(|| region.clone()));
        self.registry.recall(id, past.since, past.merging.clone());
        let mut applier = self.applier(me, region.clone(), applied);
        (applier.since, applier.merging) = (past.since, past.merging.clone());
        let start = Start {
            peer: me,
            region,
            log: cache,
            applied,
            seed: self.seed,
            now,
            is_new,
        };
        let mut peer = Peer::new(self.config.clone(), start);
        peer.recall_merging(past.merging);
        Ok((peer, applier))
    }

    fn applier(&self, me: PeerMeta, region: Region, applied: LogPosition) -> Applier {
        Applier::new(
            me,
            region,
            applied,
            self.engine.clone(),
            self.snapshots.clone(),
            self.registry.clone(),
        )
    }

    /// Makes the peer of a region that a split made here, unless it waits here already and is only to be told.
    pub fn bear(&mut self, born: &Born, now: MonoTime) -> Result<Option<(Peer, Applier)>> {
        match born.was_waiting {
            true => Ok(None),
            false => self
                .load(born.me, born.region.clone(), Past::begins_with(&born.region), now)
                .map(Some),
        }
    }

    /// Which regions and ranges are taken here; shared with the appliers.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Puts the raft snapshot in place that a crash interrupted.
    fn reinstall(&self, key: Key, me: PeerMeta) -> Result<(Region, LogPosition)> {
        if !self.snapshots.contains(key) {
            let what = format!(
                "its log begins behind {:?}, but neither data nor raft snapshot reach there",
                key.position
            );
            return Err(Error::Inconsistent {
                region: key.region,
                what,
            });
        }
        let region = self.snapshots.region(key)?;
        let mut applier = self.applier(me, region.clone(), LogPosition::default());
        let outcome = applier.run(crate::apply::ApplyTask::Install {
            key,
            region: region.clone(),
        })?;
        assert!(outcome.answers.is_empty(), "nobody waits for a snapshot at start");
        Ok((region, key.position))
    }

    /// Decides what becomes of a message that another store sent.
    pub fn on_message(&mut self, message: &RaftMessage, now: MonoTime) -> Result<Decision> {
        let id = RegionId(message.region_id);
        let (Some(to), Some(from)) = (&message.to, &message.from) else {
            return Ok(Decision::Drop);
        };
        if to.store_id != self.id.0 || !id.is_some() || to.id == 0 || from.id == 0 {
            return Ok(Decision::Drop);
        }
        let Some((peer, range)) = self.registry.held(id) else {
            return self.on_stranger(message, now);
        };
        if message.is_tombstone {
            let is_over = match message.merged_into {
                0 => peer.0 == to.id,
                target => self.registry.on_dead(id, RegionId(target)),
            };
            return Ok(if is_over { Decision::Destroy } else { Decision::Drop });
        }
        match to.id.cmp(&peer.0) {
            std::cmp::Ordering::Less => Ok(Decision::Drop),
            std::cmp::Ordering::Greater => Ok(Decision::Destroy), // the sender comes again, and then finds room for the new peer
            std::cmp::Ordering::Equal => match &range {
                Some(region) if self.is_removed(region, message) => Ok(Decision::Answer(tombstone(message, region))),
                _ if message.asks_membership => Ok(Decision::Drop),
                // Its data would replace what another region has there.
                _ if !self.has_room(message) => {
                    self.forget_snapshot(message);
                    let dead = snapshot_range(message).map_or_else(Vec::new, |range| self.registry.dead_in(&range));
                    Ok(if dead.is_empty() {
                        Decision::Drop
                    } else {
                        Decision::Clear(dead)
                    })
                }
                _ => Ok(Decision::Deliver),
            },
        }
    }

    /// Whether the sender was removed from the region and does not know.
    fn is_removed(&self, region: &Region, message: &RaftMessage) -> bool {
        let from = message.from.as_ref().map_or(0, |peer| peer.id);
        let stale = message.epoch.unwrap_or_default().conf_ver < region::epoch(region).conf_ver;
        stale && asks(message) && region::peer_of(region, PeerId(from)).is_none()
    }

    fn on_stranger(&mut self, message: &RaftMessage, now: MonoTime) -> Result<Decision> {
        let id = RegionId(message.region_id);
        let Some(to) = message.to else {
            return Ok(Decision::Drop);
        };
        let grave = self.registry.grave(id);
        if let Some(grave) = grave.as_ref().filter(|grave| grave.merged_into.is_some()) {
            // The sender waits for a leader that will not come.
            return Ok(match asks(message) {
                true => Decision::Answer(died(message, grave)),
                false => Decision::Drop,
            });
        }
        let was_here = grave.is_some_and(|grave| to.id <= grave.peer.0);
        let interrupted = match self.interrupted(id)? {
            Some((_, region)) if region::peer_on(&region, self.id).is_some_and(|peer| peer.id > to.id) => {
                return Ok(Decision::Drop);
            }
            Some((key, region)) if region::peer_of(&region, PeerId(to.id)).is_none() => {
                self.forget_interrupted(key)?;
                None
            }
            interrupted => interrupted.map(|(_, region)| region),
        };
        if message.is_tombstone || was_here || !(interrupted.is_some() || message::may_create_peer(message)) {
            return Ok(Decision::Drop);
        }
        let is_promised = interrupted.is_some();
        let asked = interrupted.or_else(|| snapshot_range(message)).unwrap_or_else(|| Region {
            id: id.0,
            start_key: message.start_key.clone(),
            end_key: message.end_key.clone(),
            ..Region::default()
        });
        if self.registry.is_taken(&asked) {
            if !message::is_snapshot(message) {
                // Most likely a split that is not applied here yet will make the peer.
                self.registry.keep_early(message.clone());
            }
            if !is_promised {
                self.forget_snapshot(message);
            }
            return Ok(Decision::Drop);
        }
        let empty = Region {
            id: id.0,
            ..Region::default()
        };
        let made = self.load(to, empty, Past::default(), now)?;
        // Nobody took the range since it was looked at: only this thread lets regions in that no split makes.
        let _reserved = self.has_room(message);
        Ok(Decision::Create(Box::new(made)))
    }

    /// Drops the file of a raft snapshot that is not let in.
    fn forget_snapshot(&self, message: &RaftMessage) {
        if let Some(meta) = message.snapshot.as_ref().filter(|_| message::is_snapshot(message)) {
            self.snapshots
                .remove(message::snapshot_key(RegionId(message.region_id), meta));
        }
    }

    /// Whether the range of the raft snapshot that a message may carry is free; then it is reserved for it.
    fn has_room(&self, message: &RaftMessage) -> bool {
        snapshot_range(message).is_none_or(|range| self.registry.reserve(&range))
    }

    /// The region of a raft snapshot that reached the log of a peer without data, if then the store stopped before its data was in place.
    /// That peer has promised its log to the leader, who therefore sends no other snapshot: any message is to bring the peer back.
    fn interrupted(&self, id: RegionId) -> Result<Option<(Key, Region)>> {
        let found = self.log.find(id).map_err(|source| Error::Log { act: "read", source })?;
        let Some(state) = found.map(|found| found.state) else {
            return Ok(None);
        };
        let position = LogPosition {
            index: state.truncated_index,
            term: state.truncated_term,
        };
        let key = Key { region: id, position };
        match self.snapshots.contains(key) {
            true => Ok(Some((key, self.snapshots.region(key)?))),
            false => Ok(None),
        }
    }

    /// Drops log and raft snapshot of a peer that has been replaced by another since: that one would begin in a region that does not list
    /// it, and meet its own removal.
    fn forget_interrupted(&self, key: Key) -> Result<()> {
        self.log
            .remove(key.region)
            .and_then(|()| self.log.sync())
            .map_err(|source| Error::Log {
                act: "remove a region from",
                source,
            })?;
        self.snapshots.remove(key);
        Ok(())
    }

    /// Notes a region's range and membership after they changed.
    pub fn on_region_changed(&mut self, region: &Region) {
        self.registry.on_region_changed(region);
    }

    /// Destroys a peer that its region lists no more: its data, then its log. A crash in between is finished at start. Once done that
    /// is noted: the log of this region may from then on be that of a newer peer without data, and hold its vote.
    pub fn destroy(&mut self, region: &Region, peer: PeerId) -> Result<()> {
        let id = RegionId(region.id);
        let Some((grave, known)) = self.registry.bury(id, peer) else {
            // Its target takes its data over here.
            return Ok(());
        };
        // Its range may have shrunk by a split that the peer did not hear of.
        let newer = known.filter(|known| region::epoch(known).version > region::epoch(region).version);
        let region = newer.as_ref().unwrap_or(region);
        self.write_tombstone(region, &grave)?;
        self.bury(region, &grave)
    }

    /// Drops what is left of a peer whose region was taken over: its log. The applier noted it before.
    pub fn end_merged(&mut self, id: RegionId) -> Result<()> {
        match self.registry.grave(id) {
            Some(grave) => self.bury(&buried(id, &grave), &grave),
            None => Ok(()),
        }
    }

    /// Erases what is left of a destroyed peer and, once that is durable, notes that nothing is.
    fn bury(&self, region: &Region, grave: &Grave) -> Result<()> {
        let id = RegionId(region.id);
        if !grave.merged_into.is_some() {
            self.erase(region)?;
        }
        self.log.remove(id).map_err(|source| Error::Log {
            act: "remove a region from",
            source,
        })?;
        self.log.sync().map_err(|source| Error::Log { act: "sync", source })?;
        self.write_tombstone(&buried(id, grave), grave)
    }

    fn write_tombstone(&self, region: &Region, grave: &Grave) -> Result<()> {
        let id = RegionId(region.id);
        let state = RegionState {
            state: region_state::State::Tombstone as i32,
            region: Some(region.clone()),
            peer_id: grave.peer.0,
            since: Some(grave.since),
            merged_into: grave.merged_into.0,
            ..RegionState::default()
        };
        let mut batch = Batch::new();
        batch.put(Cf::Local, keys::region_state(id), state.encode_to_vec());
        batch.delete(Cf::Local, keys::apply_state(id));
        self.engine
            .write(batch)
            .and_then(|()| self.engine.sync())
            .map_err(|source| Error::Engine { act: "write", source })
    }

    fn erase(&self, region: &Region) -> Result<()> {
        if !region.peers.is_empty() && !self.registry.is_taken(region) {
            let (start, end) = (keys::data_key(&region.start_key), keys::data_end_key(&region.end_key));
            for cf in Cf::DATA {
                self.engine.delete_range(cf, &start, &end).map_err(|source| Error::Engine {
                    act: "delete a range of",
                    source,
                })?;
            }
        }
        Ok(())
    }
}

/// What a region waits for that stands still.
pub(crate) fn merging_of(state: &RegionState) -> Option<Merging> {
    let target = state
        .target
        .clone()
        .filter(|_| state.state() == region_state::State::Merging)?;
    let (index, term) = (state.merge_index, state.merge_term);
    Some(Merging {
        target,
        at: LogPosition { index, term },
    })
}

/// Whether the sender of a message lacks a leader, maybe for the reason that it is no member any more.
fn asks(message: &RaftMessage) -> bool {
    message.asks_membership || message::is_vote_request(message.kind)
}

/// The range of the raft snapshot that a message carries.
fn snapshot_range(message: &RaftMessage) -> Option<Region> {
    let meta = message.snapshot.as_ref().filter(|_| message::is_snapshot(message))?;
    meta.region.clone().filter(|region| region.id == message.region_id)
}

/// The log with which a region begins that a split made, on a store where its peer may have voted already.
pub(crate) fn begun(state: &RaftState) -> Found {
    let state = RaftState {
        term: state.term.max(INITIAL.term),
        vote: if state.term >= INITIAL.term { state.vote } else { 0 },
        commit: INITIAL.index,
        truncated_index: INITIAL.index,
        truncated_term: INITIAL.term,
    };
    Found {
        state,
        last_index: INITIAL.index,
        term_runs: Vec::new(),
    }
}

/// What a tombstone names once nothing is left of the peer.
fn buried(id: RegionId, grave: &Grave) -> Region {
    Region {
        id: id.0,
        region_epoch: Some(grave.epoch),
        ..Region::default()
    }
}

/// Tells a peer that its region was taken over.
fn died(message: &RaftMessage, grave: &Grave) -> RaftMessage {
    RaftMessage {
        region_id: message.region_id,
        from: message.to,
        to: message.from,
        epoch: Some(grave.epoch),
        is_tombstone: true,
        merged_into: grave.merged_into.0,
        ..RaftMessage::default()
    }
}

fn tombstone(message: &RaftMessage, region: &Region) -> RaftMessage {
    RaftMessage {
        region_id: message.region_id,
        from: message.to,
        to: message.from,
        epoch: region.region_epoch,
        is_tombstone: true,
        ..RaftMessage::default()
    }
}

#[cfg(test)]
mod tests;
