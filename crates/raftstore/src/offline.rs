//! What a store's disk tells of its regions, and whether its records agree with each other. Reads alone; a store that runs is asked only
//! when its regions are to be rescued.

use std::collections::BTreeSet;

use base::{PeerId, RegionId, StoreId};
use engine::{Cf, Engine, Snapshot, keys};
use proto::ferrite_raft::{ApplyState, region_state};
use proto::metapb::{Peer, Region, RegionEpoch};

use crate::log::{Found, RaftLog};
use crate::merge::Merging;
use crate::snapshot::{Key, Snapshots};
use crate::storage::LogPosition;
use crate::store::{self, INITIAL};
use crate::{Error, Result, region, rescue};

/// What this store's peer of a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Normal,
    /// It stands still, to be merged into a neighbour.
    Merging,
    /// A raft snapshot took the place of its log, but not of its data yet: the next start finishes that.
    Applying,
    /// It has votes to keep, but no data yet.
    Empty,
    /// It is gone.
    Tombstone,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Normal => "normal",
            State::Merging => "merging",
            State::Applying => "applying",
            State::Empty => "empty",
            State::Tombstone => "tombstone",
        }
    }

    /// Whether the range is held, or about to be.
    pub fn holds_range(self) -> bool {
        matches!(self, State::Normal | State::Merging | State::Applying)
    }
}

/// The raft log of a region as it lies on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogFacts {
    /// Highest term the peer heard of, and whom it voted for in it.
    pub term: u64,
    pub vote: u64,
    /// As written last: it may lie below what is applied, as it is not written alone.
    pub commit: u64,
    /// What lies before the log.
    pub truncated: LogPosition,
    pub last: LogPosition,
}

/// What a store's disk tells of one region.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub store: StoreId,
    /// As last applied; without peers if [`State::Empty`], or once nothing is left of a tombstone.
    pub region: Region,
    /// The same with all changes of membership that are known to be committed: after a crash the engine may be far behind the log.
    pub known: Region,
    /// This store's.
    pub peer: PeerId,
    pub state: State,
    pub merging: Option<Merging>,
    /// Of a tombstone: the region that took the range over.
    pub merged_into: RegionId,
    /// From this epoch on the peer applied every change of the region itself.
    pub since: RegionEpoch,
    pub applied: LogPosition,
    pub log: LogFacts,
}

impl Facts {
    pub fn id(&self) -> RegionId {
        RegionId(self.region.id)
    }

    /// This store's peer as the region lists it.
    pub fn me(&self) -> Option<&Peer> {
        region::peer_of(&self.region, self.peer)
    }

    /// Whether a committed change of membership removed this store's peer: its next start destroys what lies here.
    pub fn is_removed(&self) -> bool {
        self.state.holds_range() && self.me().is_some() && region::peer_of(&self.known, self.peer).is_none()
    }

    /// The commit index that a start would begin with.
    pub fn commit(&self) -> u64 {
        self.log.commit.max(self.applied.index).min(self.log.last.index)
    }
}

/// Everything that is on disk of a store, in the order of the regions' ids.
pub fn read(store: StoreId, engine: &dyn Engine, log: &dyn RaftLog) -> Result<Vec<Facts>> {
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for record in store::read_region_states(engine)? {
        let region = record.region.clone().unwrap_or_default();
        let id = RegionId(region.id);
        seen.insert(id);
        let apply: ApplyState = store::read(engine, &keys::apply_state(id), "apply state")?.unwrap_or_default();
        let applied = LogPosition {
            index: apply.applied_index,
            term: apply.applied_term,
        };
        let entries = log;
        let log = log_facts(entries, id, applied)?;
        let commit = log.commit.max(applied.index).min(log.last.index);
        let known = match record.state() {
            region_state::State::Tombstone => region.clone(),
            _ => with_members(region.clone(), applied.index, commit, entries)?,
        };
        let state = match record.state() {
            region_state::State::Tombstone => State::Tombstone,
            _ if applied.index < log.truncated.index => State::Applying,
            region_state::State::Merging => State::Merging,
            region_state::State::Normal => State::Normal,
        };
        all.push(Facts {
            store,
            region,
            known,
            peer: PeerId(record.peer_id),
            state,
            merging: store::merging_of(&record),
            merged_into: RegionId(record.merged_into),
            since: record.since.unwrap_or_default(),
            applied,
            log,
        });
    }
    for id in log.regions().into_iter().filter(|id| !seen.contains(id)) {
        let region = Region {
            id: id.0,
            ..Region::default()
        };
        all.push(Facts {
            store,
            known: region.clone(),
            region,
            peer: PeerId(0),
            state: State::Empty,
            merging: None,
            merged_into: RegionId(0),
            since: RegionEpoch::default(),
            applied: LogPosition::default(),
            log: log_facts(log, id, LogPosition::default())?,
        });
    }
    all.sort_by_key(Facts::id);
    Ok(all)
}

/// The region after the changes of membership in the entries behind `applied`, up to and with `commit`. A log that has a gap there is
/// followed to the gap.
fn with_members(mut region: Region, applied: u64, commit: u64, log: &dyn RaftLog) -> Result<Region> {
    let mut done = applied;
    while done < commit {
        let entries = log.entries(RegionId(region.id), done + 1, commit + 1, LOOK_BYTES);
        let entries = entries.map_err(|source| Error::Log { act: "read", source })?;
        if entries.first().is_none_or(|first| first.index != done + 1) {
            break;
        }
        done += entries.len() as u64;
        for entry in entries {
            if let Some(next) = rescue::members_after(&region, &entry)? {
                region = next;
            }
        }
    }
    Ok(region)
}

/// Looks at a log that seems damaged.
const FIND_AGAIN: u32 = 3;

/// A region's log as a start finds it; `applied` tells whether a split has just made it.
pub(crate) fn find(log: &dyn RaftLog, id: RegionId, applied: LogPosition) -> Result<Found> {
    let mut found = log.find(id);
    // A store that runs may compact a log while it is looked at.
    for _ in 0..FIND_AGAIN {
        if found.is_err() {
            found = log.find(id);
        }
    }
    let found = found
        .map_err(|source| Error::Log { act: "read", source })?
        .unwrap_or_default();
    match applied == INITIAL && found.last_index < INITIAL.index {
        true => Ok(store::begun(&found.state)),
        false => Ok(found),
    }
}

fn log_facts(log: &dyn RaftLog, id: RegionId, applied: LogPosition) -> Result<LogFacts> {
    let found = find(log, id, applied)?;
    let truncated = LogPosition {
        index: found.state.truncated_index,
        term: found.state.truncated_term,
    };
    Ok(LogFacts {
        term: found.state.term,
        vote: found.state.vote,
        commit: found.state.commit,
        truncated,
        last: last_position(&found),
    })
}

pub(crate) fn last_position(found: &Found) -> LogPosition {
    let runs_end = found.term_runs.last().map_or(found.state.truncated_term, |run| run.term);
    LogPosition {
        index: found.last_index,
        term: runs_end,
    }
}

/// Bytes of entries that are looked at together.
const LOOK_BYTES: u64 = 8 << 20;

/// What is wrong with a store, each fault with the region it is of.
pub fn check(all: &[Facts], log: &dyn RaftLog, snapshots: &dyn Snapshots) -> Result<Vec<(RegionId, String)>> {
    let mut faults = Vec::new();
    for facts in all {
        let mut found = check_one(facts);
        if matches!(facts.state, State::Normal | State::Merging) {
            found.extend(check_entries(facts, log)?);
        }
        let key = Key {
            region: facts.id(),
            position: facts.log.truncated,
        };
        if facts.state == State::Applying && !snapshots.contains(key) {
            found.push(format!(
                "its log begins behind {}, but neither data ({}) nor a raft snapshot reach there",
                facts.log.truncated.index, facts.applied.index
            ));
        }
        faults.extend(found.into_iter().map(|fault| (facts.id(), fault)));
    }
    faults.extend(overlaps(all));
    Ok(faults)
}

/// What a region's own records tell against each other.
fn check_one(facts: &Facts) -> Vec<String> {
    let (log, region, mut faults) = (&facts.log, &facts.region, Vec::new());
    if log.commit > log.last.index {
        faults.push(format!("{} is committed, but its log ends at {}", log.commit, log.last.index));
    }
    if log.term < log.last.term {
        faults.push(format!(
            "its last entry is of term {}, but its term is {}",
            log.last.term, log.term
        ));
    }
    if !facts.state.holds_range() {
        return faults;
    }
    if facts.applied.index > log.last.index {
        faults.push(format!(
            "{} is applied, but its log ends at {}: the raft log is damaged",
            facts.applied.index, log.last.index
        ));
    }
    if facts.me().is_none() {
        faults.push(format!("it does not list this store's peer {}", facts.peer));
    } else if facts.me().is_some_and(|me| me.store_id != facts.store.0) {
        faults.push(format!("it lists this store's peer {} on another store", facts.peer));
    }
    let stores: BTreeSet<u64> = region.peers.iter().map(|peer| peer.store_id).collect();
    let peers: BTreeSet<u64> = region.peers.iter().map(|peer| peer.id).collect();
    if stores.len() != region.peers.len() || peers.len() != region.peers.len() || stores.contains(&0) || peers.contains(&0) {
        faults.push("it lists a peer or a store twice, or without an id".to_owned());
    }
    let epoch = region::epoch(region);
    if epoch.conf_ver == 0 || epoch.version == 0 {
        faults.push("it has no epoch".to_owned());
    }
    if !region.end_key.is_empty() && region.start_key >= region.end_key {
        faults.push("it ends before it begins".to_owned());
    }
    faults
}

/// Whether the log is whole, and holds the entry that was applied last.
fn check_entries(facts: &Facts, log: &dyn RaftLog) -> Result<Vec<String>> {
    let (truncated, last) = (facts.log.truncated, facts.log.last);
    let mut faults = Vec::new();
    let (mut before, mut of_applied) = (truncated, (facts.applied.index == truncated.index).then_some(truncated.term));
    while before.index < last.index {
        let entries = log
            .entries(facts.id(), before.index + 1, last.index + 1, LOOK_BYTES)
            .map_err(|source| Error::Log { act: "read", source })?;
        if entries.is_empty() {
            faults.push(format!("its log lacks entry {}", before.index + 1));
            return Ok(faults);
        }
        for entry in entries {
            if entry.index != before.index + 1 || entry.term < before.term {
                faults.push(format!(
                    "its log has entry {} of term {} behind entry {} of term {}",
                    entry.index, entry.term, before.index, before.term
                ));
                return Ok(faults);
            }
            before = LogPosition {
                index: entry.index,
                term: entry.term,
            };
            if entry.index == facts.applied.index {
                of_applied = Some(entry.term);
            }
        }
    }
    if of_applied.is_some_and(|term| term != facts.applied.term) {
        faults.push(format!(
            "entry {} was applied with term {}, but its log has another there",
            facts.applied.index, facts.applied.term
        ));
    }
    Ok(faults)
}

fn overlaps(all: &[Facts]) -> Vec<(RegionId, String)> {
    let mut held: Vec<&Facts> = all.iter().filter(|facts| facts.state.holds_range()).collect();
    held.sort_by(|a, b| a.region.start_key.cmp(&b.region.start_key));
    let mut faults = Vec::new();
    // The one that reaches farthest so far.
    let mut reaches: Option<&Facts> = None;
    for facts in held {
        if let Some(before) = reaches.filter(|before| region::overlap(&before.region, &facts.region)) {
            faults.push((facts.id(), format!("region {} holds a part of its range", before.id())));
        }
        let ends_later = |before: &Facts| {
            let (a, b) = (&facts.region.end_key, &before.region.end_key);
            !b.is_empty() && (a.is_empty() || a > b)
        };
        if reaches.is_none_or(ends_later) {
            reaches = Some(facts);
        }
    }
    faults
}

/// What a region's data in one column family comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyDigest {
    pub cf: Cf,
    pub keys: u64,
    pub bytes: u64,
    /// CRC-64/XZ over keys and values in order, each behind its length.
    pub crc: u64,
}

const CRC: crc::Crc<u64> = crc::Crc::<u64>::new(&crc::CRC_64_XZ);

/// Digests of the families that are replicated. Equal at the same applied index on every store, whatever its engine.
pub fn digest(data: &dyn Snapshot, region: &Region) -> Result<Vec<FamilyDigest>> {
    let failed = |source| Error::Engine { act: "scan", source };
    let (start, end) = (keys::data_key(&region.start_key), keys::data_end_key(&region.end_key));
    let mut families = Vec::with_capacity(Cf::DATA.len());
    for cf in Cf::DATA {
        let mut cursor = data.cursor(cf, &start, &end).map_err(failed)?;
        let (mut hasher, mut keys, mut bytes) = (CRC.digest(), 0, 0);
        while let Some((key, value)) = cursor.next().map_err(failed)? {
            for part in [&key, &value] {
                hasher.update(&(part.len() as u64).to_be_bytes());
                hasher.update(part);
            }
            keys += 1;
            bytes += (key.len() + value.len()) as u64;
        }
        let crc = hasher.finalize();
        families.push(FamilyDigest { cf, keys, bytes, crc });
    }
    Ok(families)
}

/// One figure for all families of a region.
pub fn sum(families: &[FamilyDigest]) -> u64 {
    let mut hasher = CRC.digest();
    for family in families {
        hasher.update(&[family.cf as u8]);
        hasher.update(&family.keys.to_be_bytes());
        hasher.update(&family.crc.to_be_bytes());
    }
    hasher.finalize()
}
