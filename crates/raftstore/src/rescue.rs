//! Unsafe recovery: a region most of whose voters are gone for good goes on with one replica that is left.
//!
//! [`plan`] decides from what the disks of all stores that are left tell; [`Rescue`] carries out one store's part on its disk, while the
//! store does not run. First the chosen replica applies all of its log, as if all of it were committed: nobody is left who could say
//! otherwise, and what was acknowledged stands in the log of each voter that acknowledged it. Then it becomes the region's only voter,
//! under an epoch and a term that are higher than any that the lost peers may have reached. At its next start it elects itself; other
//! peers of the region that are left learn from it that they were removed, and the placement driver adds fresh ones.
//!
//! What is lost: writes that only the lost peers held. What may appear: writes that were never acknowledged.

mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{MonoTime, PeerId, RegionId, StoreId};
use bytes::Bytes;
use engine::{Batch, Cf, Engine, keys};
use prost::Message;
use proto::ferrite_raft::{Command, RaftState, RegionState, region_state};
use proto::metapb::{Peer, PeerRole, Region, RegionEpoch};
use raft::eraftpb::{Entry, EntryType};

pub use self::plan::{Choice, Plan, PlanError, Step, lost_voters, plan};
use crate::apply::{Applier, ApplyTask, Committed, Outcome, Wait};
use crate::command::{self, ConfKind};
use crate::config::Config;
use crate::log::RaftLog;
use crate::offline::{Facts, find, last_position};
use crate::peer::RaftWrite;
use crate::snapshot::Snapshots;
use crate::storage::LogPosition;
use crate::store::{self, INITIAL, Store};
use crate::{Error, region};

/// How far epoch and term are raised over what is known. The lost peers may have changed membership, range and leaders without this one
/// hearing of it, and the placement driver believes no region with a lower epoch or term than it heard of. Regions change a few times
/// an hour at most; the counters have 64 bits.
pub const RAISE: u64 = 1 << 16;

/// What a store that runs is told to do with its replica of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// All of its log counts as committed, and is applied.
    ApplyLog,
    /// It becomes the only voter, under an epoch higher than `above`; one that stands still to be merged goes on if `rolls_back`.
    OnlyVoter { above: RegionEpoch, rolls_back: bool },
}

/// Bytes of entries that are applied together.
const APPLY_BYTES: u64 = 8 << 20;

/// Why a replica cannot be made a region's only voter.
#[derive(Debug, thiserror::Error)]
pub enum RescueError {
    #[error("region {region}: {reason}")]
    Refused { region: RegionId, reason: String },
    #[error(transparent)]
    Store(#[from] Error),
}

type Result<T> = std::result::Result<T, RescueError>;

fn refused<T>(region: RegionId, reason: impl Into<String>) -> Result<T> {
    let reason = reason.into();
    Err(RescueError::Refused { region, reason })
}

/// A store that does not run, opened to be changed. Opening it finishes what a crash interrupted, as a start does.
pub struct Rescue {
    store: Store,
    engine: Arc<dyn Engine>,
    log: Arc<dyn RaftLog>,
    appliers: BTreeMap<RegionId, Applier>,
    peers: BTreeMap<RegionId, PeerId>,
}

impl Rescue {
    /// Opens the store `id` on its data.
    pub fn open(id: StoreId, engine: Arc<dyn Engine>, log: Arc<dyn RaftLog>, snapshots: Arc<dyn Snapshots>) -> Result<Rescue> {
        let mut store = Store::new(id, Arc::new(Config::default()), engine.clone(), log.clone(), snapshots, 0);
        let found = store.recover(MonoTime::default())?;
        let mut rescue = Rescue {
            store,
            engine,
            log,
            appliers: BTreeMap::new(),
            peers: BTreeMap::new(),
        };
        for (peer, applier) in found {
            rescue.take_in(peer.peer_id(), applier);
        }
        Ok(rescue)
    }

    fn take_in(&mut self, peer: PeerId, applier: Applier) {
        self.peers.insert(applier.region_id(), peer);
        self.appliers.insert(applier.region_id(), applier);
    }

    /// Applies all of a region's log, which counts as committed from here on; gives the index of its last entry. May make the regions
    /// that the log divides it into, and may take over a neighbour that stands still here. To repeat it changes nothing.
    pub fn apply_log(&mut self, id: RegionId) -> Result<u64> {
        let Some(applier) = self.appliers.get(&id) else {
            return refused(id, "this store has no data of it");
        };
        let found = find(&*self.log, id, applier.applied())?;
        self.refuse_own_removal(id, applier.applied().index, found.last_index)?;
        let state = RaftState {
            commit: found.last_index,
            ..found.state
        };
        self.write_state(id, state)?;
        self.apply_to(id, found.last_index)?;
        self.sync()?;
        Ok(found.last_index)
    }

    /// Makes this store's replica the only voter of its region, once it has applied all of its log. The region's epoch becomes higher
    /// than its own and `above`. With `rolls_back` a region that stands still to be merged goes on. Gives the region as it is then.
    pub fn make_only_voter(&mut self, id: RegionId, above: RegionEpoch, rolls_back: bool) -> Result<Region> {
        self.apply_log(id)?;
        // Its log may have told that a neighbour took it over.
        let (Some(applier), Some(&peer)) = (self.appliers.get(&id), self.peers.get(&id)) else {
            return refused(id, "another region took its range over");
        };
        if let Some(merging) = applier.merging.as_ref().filter(|_| !rolls_back) {
            let target = merging.target.id;
            return refused(
                id,
                format!("it stands still, to be merged into region {target}: that one must go on first"),
            );
        }
        let Some(me) = region::peer_of(applier.region(), peer) else {
            return refused(id, format!("it does not list this store's peer {peer}"));
        };
        let region = only_voter(applier.region(), me, above);
        let found = find(&*self.log, id, applier.applied())?;
        let last = last_position(&found);
        if applier.applied() != last {
            let applied = applier.applied();
            return refused(id, format!("{applied:?} is applied, but its log ends at {last:?}"));
        }
        let record = RegionState {
            state: region_state::State::Normal as i32,
            region: Some(region.clone()),
            peer_id: peer.0,
            since: Some(applier.since),
            ..RegionState::default()
        };
        // The log first: a term alone is no harm, and a region whose log were lost would be.
        let state = RaftState {
            term: found.state.term.max(last.term) + RAISE,
            vote: 0,
            commit: last.index,
            ..found.state
        };
        self.write_state(id, state)?;
        let mut batch = Batch::new();
        batch.put(Cf::Local, keys::region_state(id), record.encode_to_vec());
        self.engine
            .write(batch)
            .map_err(|source| Error::Engine { act: "write", source })?;
        self.sync()?;
        self.store.on_region_changed(&region);
        self.store.registry().set_merging(id, None);
        // What is in memory of it is of the past; the next start reads it anew.
        self.appliers.remove(&id);
        Ok(region)
    }

    /// Destroys a replica: its data, then its log.
    pub fn destroy(&mut self, facts: &Facts) -> Result<()> {
        self.appliers.remove(&facts.id());
        Ok(self.store.destroy(&facts.region, facts.peer)?)
    }

    /// Makes an empty region of one peer, which is on this store, under an epoch and a term above all that the store knows: `all` it holds.
    /// For a range whose data is gone. What was removed from its region there, and not destroyed yet, is destroyed first.
    pub fn create(&mut self, region: Region, all: &[Facts]) -> Result<Region> {
        let id = RegionId(region.id);
        if !region.end_key.is_empty() && region.start_key >= region.end_key {
            return refused(id, "it ends before it begins");
        }
        let Some(me) = region::peer_on(&region, self.store.id()).filter(|me| me.id != 0 && region.peers.len() == 1) else {
            return refused(id, "its only peer must be on this store");
        };
        let overlaps = |facts: &&Facts| facts.id() == id || region::overlap(&facts.region, &region);
        for removed in all.iter().filter(|facts| facts.is_removed()).filter(overlaps) {
            self.destroy(removed)?;
        }
        if !id.is_some() || self.appliers.contains_key(&id) {
            return refused(id, "it must have an id, and not be here already");
        }
        if self.store.registry().is_taken(&region) {
            return refused(id, "another region of this store holds a part of its range");
        }
        let highest = |of: fn(&Facts) -> u64| all.iter().map(of).max().unwrap_or_default();
        let above = RegionEpoch {
            conf_ver: highest(|facts| region::epoch(&facts.region).conf_ver),
            version: highest(|facts| region::epoch(&facts.region).version),
        };
        let made = only_voter(&region, me, above);
        let state = RaftState {
            term: highest(|facts| facts.log.term).max(INITIAL.term) + RAISE,
            vote: 0,
            commit: INITIAL.index,
            truncated_index: INITIAL.index,
            truncated_term: INITIAL.term,
        };
        self.clear(&made)?;
        store::write_regions(&*self.engine, &*self.log, self.store.id(), std::slice::from_ref(&made))?;
        self.write_state(id, state)?;
        Ok(made)
    }

    /// What is left in a range that no region holds, of a region that was here once.
    fn clear(&self, region: &Region) -> Result<()> {
        let log = self.log.remove(RegionId(region.id));
        log.map_err(|source| Error::Log { act: "write", source })?;
        let (start, end) = (keys::data_key(&region.start_key), keys::data_end_key(&region.end_key));
        for cf in Cf::DATA {
            let cleared = self.engine.delete_range(cf, &start, &end);
            cleared.map_err(|source| Error::Engine {
                act: "clear a range of",
                source,
            })?;
        }
        Ok(())
    }

    /// A replica whose log ends its own membership would be destroyed by applying that.
    fn refuse_own_removal(&self, id: RegionId, applied: u64, last: u64) -> Result<()> {
        let peer = self.peers.get(&id).map_or(0, |peer| peer.0);
        self.each_chunk(id, applied, last, |entries| {
            for entry in entries {
                if removes(entry, peer) {
                    let index = entry.index;
                    return refused(
                        id,
                        format!("entry {index} of its log removes this store's peer {peer}: another replica must be taken"),
                    );
                }
            }
            Ok(())
        })
    }

    /// Calls `f` with the entries behind `applied`, up to and with `last`, some at a time.
    fn each_chunk(&self, id: RegionId, applied: u64, last: u64, mut f: impl FnMut(&[Entry]) -> Result<()>) -> Result<()> {
        let mut done = applied;
        while done < last {
            let entries = self.entries(id, done + 1, last)?;
            f(&entries)?;
            done += entries.len() as u64;
        }
        Ok(())
    }

    fn entries(&self, id: RegionId, low: u64, last: u64) -> Result<Vec<Entry>> {
        let entries = self.log.entries(id, low, last + 1, APPLY_BYTES);
        let entries = entries.map_err(|source| Error::Log { act: "read", source })?;
        match entries.first().is_some_and(|first| first.index == low) {
            true => Ok(entries),
            false => refused(id, format!("its log lacks entry {low}")),
        }
    }

    /// Applies entries of a region up to and with the index `last`.
    fn apply_to(&mut self, id: RegionId, last: u64) -> Result<()> {
        while let Some(applied) = self
            .appliers
            .get(&id)
            .map(|applier| applier.applied().index)
            .filter(|&applied| applied < last)
        {
            let entries = self.entries(id, applied + 1, last)?;
            let committed = entries.into_iter().map(committed).collect();
            self.run(id, ApplyTask::Entries(committed))?;
        }
        Ok(())
    }

    /// Runs a task of a region's applier to its end, with all that others must do for it.
    fn run(&mut self, id: RegionId, task: ApplyTask) -> Result<()> {
        let mut tasks = std::collections::VecDeque::from([task]);
        while let Some(task) = tasks.pop_front() {
            let applier = self.appliers.get_mut(&id).expect("asked for by the caller");
            let outcome = applier.run(task)?;
            let waits = self.follow(&outcome)?;
            if let Some(wait) = waits {
                self.catch_up(id, wait)?;
                tasks.push_front(ApplyTask::Resume);
            }
            for task in outcome.resumed.into_iter().rev() {
                tasks.push_front(task);
            }
        }
        Ok(())
    }

    /// Takes in the regions that were born, ends one that was taken over; tells whether the region waits for another.
    fn follow(&mut self, outcome: &Outcome) -> Result<Option<Wait>> {
        for born in &outcome.born {
            if let Some((peer, applier)) = self.store.bear(born, MonoTime::default())? {
                self.take_in(peer.peer_id(), applier);
            }
        }
        if let Some(merged) = outcome.merged {
            self.appliers.remove(&merged);
            self.store.end_merged(merged)?;
        }
        Ok(outcome.waits)
    }

    /// Applies the rest of a neighbour that `id` takes over: the entry that does so says that it was committed.
    fn catch_up(&mut self, id: RegionId, wait: Wait) -> Result<()> {
        let source = wait.source;
        let Some(applier) = self.appliers.get(&source).filter(|_| !wait.is_gone) else {
            return refused(
                id,
                format!("its log takes region {source} over, which is gone here: another replica must be taken"),
            );
        };
        let found = find(&*self.log, source, applier.applied())?;
        let applied = applier.applied();
        let holds = found.last_index >= wait.at.index && self.term_at(source, wait.at.index)? == wait.at.term;
        if !holds {
            return refused(
                id,
                format!("its log takes region {source} over, whose log here does not reach so far"),
            );
        }
        self.refuse_own_removal(source, applied.index, wait.at.index)?;
        self.apply_to(source, wait.at.index)
    }

    fn term_at(&self, id: RegionId, index: u64) -> Result<u64> {
        Ok(self.entries(id, index, index)?.first().map_or(0, |entry| entry.term))
    }

    fn write_state(&self, id: RegionId, state: RaftState) -> Result<()> {
        let write = RaftWrite {
            region: id,
            state: Some(state),
            ..RaftWrite::default()
        };
        let written = self.log.write(&[write], true);
        Ok(written.map_err(|source| Error::Log { act: "write", source })?)
    }

    fn sync(&self) -> Result<()> {
        Ok(self.engine.sync().map_err(|source| Error::Engine { act: "sync", source })?)
    }
}

/// The region with `me` as its only voter, under an epoch above its own and `above`.
pub fn only_voter(region: &Region, me: &Peer, above: RegionEpoch) -> Region {
    let known = region::epoch(region);
    let mut me = *me;
    me.set_role(PeerRole::Voter);
    Region {
        peers: vec![me],
        region_epoch: Some(RegionEpoch {
            conf_ver: known.conf_ver.max(above.conf_ver) + RAISE,
            version: known.version.max(above.version) + RAISE,
        }),
        ..region.clone()
    }
}

fn changes_conf(entry: &Entry) -> bool {
    entry.entry_type != EntryType::EntryNormal
}

fn committed(entry: Entry) -> Committed {
    Committed {
        index: entry.index,
        term: entry.term,
        changes_conf: changes_conf(&entry),
        data: entry.data,
        context: entry.context,
        ..Committed::default()
    }
}

/// Peers that a change of membership removes.
fn removed_by(entry: &Entry) -> Result<Vec<u64>> {
    let command = Command::decode(Bytes::clone(&entry.context)).map_err(|source| Error::Decode {
        what: "raft entry",
        source,
    })?;
    let changes = command.conf_change.unwrap_or_default().changes;
    let removals = changes.into_iter().filter(|one| one.kind() == ConfKind::Remove);
    Ok(removals.filter_map(|one| Some(one.peer?.id)).collect())
}

/// The region after an entry, if that changes its membership.
pub(crate) fn members_after(region: &Region, entry: &Entry) -> std::result::Result<Option<Region>, Error> {
    if !changes_conf(entry) {
        return Ok(None);
    }
    if entry.context.is_empty() {
        return Ok(Some(command::leave_joint(region)));
    }
    let command = Command::decode(Bytes::clone(&entry.context)).map_err(|source| Error::Decode {
        what: "raft entry",
        source,
    })?;
    let changes = command.conf_change.unwrap_or_default().changes;
    Ok(command::apply_conf_change(region, command.epoch.unwrap_or_default(), &changes).ok())
}

/// Whether an entry removes a peer, or may: one that cannot be read is not to be applied.
pub(crate) fn removes(entry: &Entry, peer: u64) -> bool {
    changes_conf(entry) && removed_by(entry).map_or(true, |peers| peers.contains(&peer))
}

/// The higher of two logs' ends, by raft's order.
pub(crate) fn log_order(last: LogPosition) -> (u64, u64) {
    (last.term, last.index)
}

#[cfg(test)]
mod tests;
