//! Applies committed entries of one region to the engine, in order, each once.
//!
//! Every engine batch holds the data together with the apply state, so that the two agree after any crash. Applying depends on
//! nothing but the entries and what was applied before: an entry that is refused here is refused on every peer.

mod merge;

use std::sync::Arc;

use base::{PeerId, RegionId};
use bytes::Bytes;
use engine::kv::{Error as KvError, Modify, Reply};
use engine::{Batch, Cf, Engine, keys};
use prost::Message;
use proto::ferrite_raft::{ApplyState, Command, RegionState, region_state};
use proto::metapb::{Peer, Region, RegionEpoch};
use raft::eraftpb::ConfChangeV2;

use self::merge::is_merge;
use crate::command::{self, AdminError};
use crate::merge::Merging;
use crate::peer::AdminReply;
use crate::planted::{self, Bug};
use crate::registry::{Born, Registry};
use crate::snapshot::{Generate, Key, Snapshots};
use crate::split::{self, Parts};
use crate::storage::LogPosition;
use crate::store::INITIAL;
use crate::{Error, Result, region};

/// A committed entry, with those who wait for it.
#[derive(Default)]
pub struct Committed {
    pub index: u64,
    pub term: u64,
    pub data: Bytes,
    pub context: Bytes,
    pub changes_conf: bool,
    pub replies: Vec<Reply<()>>,
    pub admin: Option<AdminReply>,
}

/// Work for a region's applier, in order.
pub enum ApplyTask {
    Entries(Vec<Committed>),
    /// Replace all data by the raft snapshot of this key.
    Install {
        key: Key,
        region: Region,
    },
    /// Make a raft snapshot of what is applied now.
    Generate,
    /// A split made this region, whose peer waited here without its range: its data is in place.
    Begin {
        region: Region,
    },
    /// Make this store's peer the only voter, as this region lists it: all of its log is applied.
    OnlyVoter {
        region: Region,
    },
    /// The region that this one waits for may have come as far as it must, or be gone.
    Resume,
}

/// A change of membership that took place.
#[derive(Debug)]
pub struct ConfApplied {
    pub region: Region,
    pub raft: ConfChangeV2,
}

/// A change of the region that took place.
#[derive(Debug)]
pub enum Change {
    Conf(ConfApplied),
    Split(Parts),
    Merge(MergeApplied),
    /// The region goes on with this store's peer alone, by an operator's order.
    OnlyVoter(Region),
}

/// A step of a merge that took place.
#[derive(Debug)]
pub struct MergeApplied {
    pub region: Region,
    pub step: MergeStep,
}

#[derive(Clone, Debug, PartialEq)]
pub enum MergeStep {
    /// The region stands still. `left`: its target has changed already, and will not take it over.
    Prepared { merging: Merging, left: bool },
    /// It took this region over.
    Committed(RegionId),
    /// It will not take over what was prepared under its epoch.
    GivenUp,
    /// It goes on.
    RolledBack,
}

impl Change {
    /// The region after it.
    pub fn region(&self) -> &Region {
        match self {
            Change::Conf(conf) => &conf.region,
            Change::Split(parts) => &parts.region,
            Change::Merge(merge) => &merge.region,
            Change::OnlyVoter(region) => region,
        }
    }
}

/// What the peer is told once a task is done.
#[derive(Debug, Default)]
pub struct Applied {
    pub position: LogPosition,
    /// In the order in which they took place.
    pub changes: Vec<Change>,
    /// What was put, for the region's size.
    pub put_bytes: u64,
    pub put_keys: u64,
    /// Set after a raft snapshot was put in place.
    pub installed: Option<Region>,
}

/// What came of a task.
#[must_use]
#[derive(Default)]
pub struct Outcome {
    pub applied: Option<Applied>,
    pub answers: Vec<(Reply<()>, std::result::Result<(), KvError>)>,
    pub admin_answers: Vec<(AdminReply, std::result::Result<(), AdminError>)>,
    /// A raft snapshot to be written out, off this thread; its end goes to the peer.
    pub generate: Option<Generate>,
    /// New regions whose peers are to be made, before the region's own peer hears of the split.
    pub born: Vec<Born>,
    /// A region that was taken over: its peer is to be ended, and its log. Its data has another owner now.
    pub merged: Option<RegionId>,
    /// A region that may wait for this one: its applier is to [resume](ApplyTask::Resume).
    pub wakes: Option<RegionId>,
    /// Nothing more is applied here until another region has come far enough, whose peer is to be told.
    pub waits: Option<Wait>,
    /// Regions here that stand still for this one, which went on without them: their peers are to be told.
    pub leaves: Vec<RegionId>,
    /// To be run next, in this order, before all other tasks of the region.
    pub resumed: Vec<ApplyTask>,
}

/// A region that is to be taken over lags behind, or is gone: then only a raft snapshot helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    pub source: RegionId,
    pub at: LogPosition,
    pub is_gone: bool,
}

pub struct Applier {
    me: Peer,
    region: Region,
    /// What the last split took from the region: told to those who still believe in the old range.
    siblings: Vec<Region>,
    applied: LogPosition,
    engine: Arc<dyn Engine>,
    snapshots: Arc<dyn Snapshots>,
    registry: Arc<Registry>,
    batch: Batch,
    /// The epoch from which on this peer applied every change of the region itself.
    pub(crate) since: RegionEpoch,
    /// It stands still, to be merged.
    pub(crate) merging: Option<Merging>,
    /// Tasks that wait for another region to come far enough; the first begins with the entry that takes it over.
    pub(crate) waiting: Vec<ApplyTask>,
    /// Put since the peer was told last.
    put_bytes: u64,
    put_keys: u64,
    /// What the planted bug applies a second time.
    replay: Vec<Modify>,
}

/// Entries share an engine batch up to about this size.
const BATCH_BYTES: usize = 1 << 20;

impl Applier {
    pub fn new(
        me: Peer,
        region: Region,
        applied: LogPosition,
        engine: Arc<dyn Engine>,
        snapshots: Arc<dyn Snapshots>,
        registry: Arc<Registry>,
    ) -> Applier {
        Applier {
            me,
            region,
            siblings: Vec::new(),
            applied,
            engine,
            snapshots,
            registry,
            batch: Batch::new(),
            since: RegionEpoch::default(),
            merging: None,
            waiting: Vec::new(),
            put_bytes: 0,
            put_keys: 0,
            replay: Vec::new(),
        }
    }

    pub fn region_id(&self) -> RegionId {
        RegionId(self.region.id)
    }

    pub fn applied(&self) -> LogPosition {
        self.applied
    }

    /// The region as last applied; its peer hears of changes a little later.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Does a task. An error is local to this store: applying must stop, or peers part ways.
    pub fn run(&mut self, task: ApplyTask) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        if self.holds_back(&task) {
            self.waiting.push(task);
            return Ok(outcome);
        }
        match task {
            ApplyTask::Resume => outcome.resumed = std::mem::take(&mut self.waiting),
            ApplyTask::Entries(entries) => {
                let mut applied = Applied::default();
                let mut entries = entries.into_iter();
                while let Some(entry) = entries.next() {
                    if let Some(wait) = self.must_wait(&entry)? {
                        outcome.waits = Some(wait);
                        self.waiting
                            .push(ApplyTask::Entries(std::iter::once(entry).chain(entries).collect()));
                        break;
                    }
                    self.apply(entry, &mut applied, &mut outcome)?;
                }
                self.write_batch()?;
                applied.position = self.applied;
                (applied.put_bytes, applied.put_keys) = (std::mem::take(&mut self.put_bytes), std::mem::take(&mut self.put_keys));
                outcome.applied = Some(applied);
            }
            ApplyTask::Install { key, region } => {
                self.give_up_waiting(&mut outcome);
                self.install(key, &region)?;
                outcome.applied = Some(Applied {
                    position: self.applied,
                    installed: Some(region),
                    ..Applied::default()
                });
            }
            ApplyTask::Begin { region } => {
                self.since = region::epoch(&region);
                self.region = region;
                self.applied = INITIAL;
            }
            ApplyTask::OnlyVoter { region } => {
                self.only_voter(&region)?;
                outcome.leaves.extend(self.registry.left_by(RegionId(region.id)));
                outcome.applied = Some(Applied {
                    position: self.applied,
                    changes: vec![Change::OnlyVoter(region)],
                    ..Applied::default()
                });
            }
            ApplyTask::Generate => {
                let key = Key {
                    region: RegionId(self.region.id),
                    position: self.applied,
                };
                outcome.generate = Some(Generate {
                    key,
                    region: self.region.clone(),
                    data: self.engine.snapshot(),
                });
            }
        }
        Ok(outcome)
    }

    fn apply(&mut self, entry: Committed, applied: &mut Applied, outcome: &mut Outcome) -> Result<()> {
        assert_eq!(
            entry.index,
            self.applied.index + 1,
            "region {}: entries must be applied one after the other",
            self.region.id
        );
        let position = LogPosition {
            index: entry.index,
            term: entry.term,
        };
        let changes = applied.changes.len();
        let (mut result, mut admin_result) = (Ok(()), Ok(()));
        if entry.changes_conf {
            admin_result = self.apply_conf_change(&entry, applied)?;
        } else if !entry.data.is_empty() {
            let mut command = Command::decode(entry.data).map_err(|source| Error::Decode {
                what: "raft entry",
                source,
            })?;
            let epoch = command.epoch.unwrap_or_default();
            if let Some(split) = command.split.take() {
                let parts = self
                    .unless_merging()
                    .and_then(|()| split::split(&self.region, epoch, &split.regions));
                admin_result = match parts {
                    Ok(parts) => {
                        self.split(position, parts, applied, outcome)?;
                        Ok(())
                    }
                    Err(refused) => Err(refused),
                };
            } else if is_merge(&command) {
                admin_result = self.apply_merge(position, command, applied, outcome)?;
            } else {
                result = self.apply_changes(command)?;
            }
        }
        if applied.changes.len() > changes {
            self.registry.on_region_changed(&self.region);
            outcome.leaves.extend(self.registry.left_by(RegionId(self.region.id)));
        }
        self.applied = position;
        outcome
            .answers
            .extend(entry.replies.into_iter().map(|reply| (reply, result.clone())));
        outcome.admin_answers.extend(entry.admin.map(|reply| (reply, admin_result)));
        if self.batch.bytes() >= BATCH_BYTES {
            self.write_batch()?;
        }
        Ok(())
    }

    /// Durable before the peer hears of it: it votes for itself then.
    fn only_voter(&mut self, region: &Region) -> Result<()> {
        self.merging = None;
        self.registry.set_merging(RegionId(region.id), None);
        self.region = region.clone();
        self.siblings.clear();
        self.put_own_state(region);
        self.write_batch()?;
        self.engine.sync().map_err(|source| Error::Engine { act: "sync", source })?;
        self.registry.on_region_changed(region);
        Ok(())
    }

    fn apply_changes(&mut self, command: Command) -> Result<std::result::Result<(), KvError>> {
        let is_current = command.epoch.unwrap_or_default().version == region::epoch(&self.region).version;
        if self.merging.is_some() && is_current {
            let region = RegionId(self.region.id);
            return Ok(Err(KvError::Merging { region }));
        }
        if !is_current && !planted::on(Bug::WriteOverSplit) {
            return Ok(Err(KvError::EpochNotMatch {
                current: std::iter::once(&self.region).chain(&self.siblings).cloned().collect(),
            }));
        }
        if planted::on(Bug::ApplyTwiceAfterSnapshot) {
            self.replay
                .extend(command.changes.iter().cloned().filter_map(command::change_from_wire));
            self.replay.drain(..self.replay.len().saturating_sub(8));
        }
        for change in command.changes {
            let change = command::change_from_wire(change).ok_or_else(|| Error::Inconsistent {
                region: RegionId(self.region.id),
                what: "a raft entry holds a change that this version does not know".to_owned(),
            })?;
            self.apply_change(change)?;
        }
        Ok(Ok(()))
    }

    fn apply_change(&mut self, change: Modify) -> Result<()> {
        match change {
            Modify::Put { cf, key, value } => {
                self.put_bytes += (key.len() + value.len() + 1) as u64;
                self.put_keys += u64::from(cf != Cf::Lock);
                self.batch.put(cf, keys::data_key(&key), value);
            }
            Modify::Delete { cf, key } => self.batch.delete(cf, keys::data_key(&key)),
            Modify::DeleteRange { cf, start, end } => {
                // Not part of the batch: what came before it must be there first, and it is redone whole after a crash.
                self.write_batch()?;
                let end = if end.is_empty() { &self.region.end_key } else { &end };
                let (start, end) = (keys::data_key(&start), keys::data_end_key(end));
                self.engine.delete_range(cf, &start, &end).map_err(|source| Error::Engine {
                    act: "delete a range of",
                    source,
                })?;
            }
        }
        Ok(())
    }

    fn apply_conf_change(&mut self, entry: &Committed, applied: &mut Applied) -> Result<std::result::Result<(), AdminError>> {
        let (next, raft) = if entry.context.is_empty() {
            // The crate's own entry that leaves a joint state.
            (command::leave_joint(&self.region), ConfChangeV2::default())
        } else {
            let command = Command::decode(entry.context.clone()).map_err(|source| Error::Decode {
                what: "raft entry",
                source,
            })?;
            let changes = command.conf_change.unwrap_or_default().changes;
            if let Err(refused) = self.unless_merging() {
                return Ok(Err(refused));
            }
            match command::apply_conf_change(&self.region, command.epoch.unwrap_or_default(), &changes) {
                Ok(next) => (next, command::raft_conf_change(&changes)),
                Err(refused) => return Ok(Err(refused)),
            }
        };
        self.region = next.clone();
        self.put_own_state(&next);
        applied.changes.push(Change::Conf(ConfApplied { region: next, raft }));
        Ok(Ok(()))
    }

    /// Divides the region, in one batch with all that was applied before. That is made durable before any of the new regions can log
    /// or promise anything: a log must never tell of a region that a crash took back.
    fn split(&mut self, position: LogPosition, parts: Parts, applied: &mut Applied, outcome: &mut Outcome) -> Result<()> {
        let (registry, me) = (self.registry.clone(), self.me);
        self.put_own_state(&parts.region);
        self.applied = position;
        let (born, written) = registry.split(&parts, &me, |born| {
            for child in born {
                self.put_region_state(RegionState {
                    state: region_state::State::Normal as i32,
                    region: Some(child.region.clone()),
                    peer_id: child.me.id,
                    since: Some(region::epoch(&child.region)),
                    ..RegionState::default()
                });
                self.put_apply_state(RegionId(child.region.id), INITIAL);
            }
            self.write_batch()
        });
        written?;
        self.engine.sync().map_err(|source| Error::Engine { act: "sync", source })?;
        self.region = parts.region.clone();
        self.siblings.clone_from(&parts.children);
        outcome.born.extend(born);
        applied.changes.push(Change::Split(parts));
        Ok(())
    }

    /// The state of the region that this is of. Entries that come behind the removal of this peer must not bring it back.
    pub(crate) fn put_own_state(&mut self, region: &Region) {
        let stays = region::peer_of(region, PeerId(self.me.id)).is_some();
        let state = match stays {
            true if self.merging.is_some() => region_state::State::Merging,
            true => region_state::State::Normal,
            false => region_state::State::Tombstone,
        };
        let merging = self.merging.clone().unwrap_or_default();
        self.put_region_state(RegionState {
            state: state as i32,
            region: Some(region.clone()),
            peer_id: self.me.id,
            since: Some(self.since),
            target: Some(merging.target).filter(|target| target.id != 0),
            merge_index: merging.at.index,
            merge_term: merging.at.term,
            ..RegionState::default()
        });
    }

    pub(crate) fn put_region_state(&mut self, record: RegionState) {
        let region = RegionId(record.region.as_ref().map_or(0, |region| region.id));
        self.batch.put(Cf::Local, keys::region_state(region), record.encode_to_vec());
    }

    fn put_apply_state(&mut self, region: RegionId, position: LogPosition) {
        let state = ApplyState {
            applied_index: position.index,
            applied_term: position.term,
        };
        self.batch.put(Cf::Local, keys::apply_state(region), state.encode_to_vec());
    }

    /// Writes what is gathered, with the apply state of the last entry in it.
    fn write_batch(&mut self) -> Result<()> {
        self.put_apply_state(RegionId(self.region.id), self.applied);
        let batch = std::mem::take(&mut self.batch);
        self.engine
            .write(batch)
            .map_err(|source| Error::Engine { act: "write", source })
    }

    /// Puts a raft snapshot in place of all data of the region. The file stays until that is durable, and the raft log points
    /// behind what was applied before: a crash anywhere here is repaired at start by doing it again.
    fn install(&mut self, key: Key, region: &Region) -> Result<()> {
        let engine = |act| move |source| Error::Engine { act, source };
        let (start, end) = (keys::data_key(&region.start_key), keys::data_end_key(&region.end_key));
        for cf in Cf::DATA {
            self.engine
                .delete_range(cf, &start, &end)
                .map_err(engine("clear a range of"))?;
        }
        self.snapshots.load(key, &*self.engine)?;
        self.region = region.clone();
        self.applied = key.position;
        self.siblings.clear();
        (self.merging, self.since) = (None, region::epoch(region));
        self.registry.on_installed(region);
        self.put_own_state(region);
        for change in std::mem::take(&mut self.replay) {
            if planted::on(Bug::ApplyTwiceAfterSnapshot) {
                self.apply_change(change)?;
            }
        }
        self.write_batch()?;
        self.engine.sync().map_err(engine("sync"))?;
        self.snapshots.remove(key);
        Ok(())
    }
}
