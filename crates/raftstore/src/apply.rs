//! Applies committed entries of one region to the engine, in order, each once.
//!
//! Every engine batch holds the data together with the apply state, so that the two agree after any crash. Applying depends on
//! nothing but the entries and what was applied before: an entry that is refused here is refused on every peer.

use std::sync::Arc;

use base::{PeerId, RegionId};
use bytes::Bytes;
use engine::kv::{Error as KvError, Modify, Reply};
use engine::{Batch, Cf, Engine, keys};
use prost::Message;
use proto::ferrite_raft::{ApplyState, Command, RegionState, region_state};
use proto::metapb::Region;
use raft::eraftpb::ConfChangeV2;

use crate::command::{self, AdminError};
use crate::peer::AdminReply;
use crate::planted::{self, Bug};
use crate::snapshot::{Generate, Key, Snapshots};
use crate::storage::LogPosition;
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
}

/// A change of membership that took place.
#[derive(Debug)]
pub struct ConfApplied {
    pub region: Region,
    pub raft: ConfChangeV2,
}

/// What the peer is told once a task is done.
#[derive(Debug, Default)]
pub struct Applied {
    pub position: LogPosition,
    pub conf_changes: Vec<ConfApplied>,
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
}

pub struct Applier {
    me: PeerId,
    region: Region,
    applied: LogPosition,
    engine: Arc<dyn Engine>,
    snapshots: Arc<dyn Snapshots>,
    batch: Batch,
    /// What the planted bug applies a second time.
    replay: Vec<Modify>,
}

/// Entries share an engine batch up to about this size.
const BATCH_BYTES: usize = 1 << 20;

impl Applier {
    pub fn new(
        me: PeerId,
        region: Region,
        applied: LogPosition,
        engine: Arc<dyn Engine>,
        snapshots: Arc<dyn Snapshots>,
    ) -> Applier {
        Applier {
            me,
            region,
            applied,
            engine,
            snapshots,
            batch: Batch::new(),
            replay: Vec::new(),
        }
    }

    pub fn region_id(&self) -> RegionId {
        RegionId(self.region.id)
    }

    pub fn applied(&self) -> LogPosition {
        self.applied
    }

    /// Does a task. An error is local to this store: applying must stop, or peers part ways.
    pub fn run(&mut self, task: ApplyTask) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        match task {
            ApplyTask::Entries(entries) => {
                let mut applied = Applied::default();
                for entry in entries {
                    self.apply(entry, &mut applied, &mut outcome)?;
                }
                self.write_batch()?;
                applied.position = self.applied;
                outcome.applied = Some(applied);
            }
            ApplyTask::Install { key, region } => {
                self.install(key, &region)?;
                outcome.applied = Some(Applied {
                    position: self.applied,
                    installed: Some(region),
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
        let admin_result = match entry.changes_conf {
            true => self.apply_conf_change(&entry, applied)?,
            false => Ok(()),
        };
        let result = match entry.changes_conf || entry.data.is_empty() {
            true => Ok(()),
            false => self.apply_changes(entry.data)?,
        };
        self.applied = LogPosition {
            index: entry.index,
            term: entry.term,
        };
        outcome
            .answers
            .extend(entry.replies.into_iter().map(|reply| (reply, result.clone())));
        outcome.admin_answers.extend(entry.admin.map(|reply| (reply, admin_result)));
        if self.batch.bytes() >= BATCH_BYTES {
            self.write_batch()?;
        }
        Ok(())
    }

    fn apply_changes(&mut self, data: Bytes) -> Result<std::result::Result<(), KvError>> {
        let command = Command::decode(data).map_err(|source| Error::Decode {
            what: "raft entry",
            source,
        })?;
        if command.epoch.unwrap_or_default().version != region::epoch(&self.region).version {
            return Ok(Err(KvError::EpochNotMatch {
                current: vec![self.region.clone()],
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
            Modify::Put { cf, key, value } => self.batch.put(cf, keys::data_key(&key), value),
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
            match command::apply_conf_change(&self.region, command.epoch.unwrap_or_default(), &changes) {
                Ok(next) => (next, command::raft_conf_change(&changes)),
                Err(refused) => return Ok(Err(refused)),
            }
        };
        self.region = next.clone();
        let stays = region::peer_of(&next, self.me).is_some();
        let state = if stays {
            region_state::State::Normal
        } else {
            region_state::State::Tombstone
        };
        self.put_region_state(state, &next);
        applied.conf_changes.push(ConfApplied { region: next, raft });
        Ok(Ok(()))
    }

    fn put_region_state(&mut self, state: region_state::State, region: &Region) {
        let record = RegionState {
            state: state as i32,
            region: Some(region.clone()),
            peer_id: self.me.0,
        };
        self.batch
            .put(Cf::Local, keys::region_state(RegionId(region.id)), record.encode_to_vec());
    }

    /// Writes what is gathered, with the apply state of the last entry in it.
    fn write_batch(&mut self) -> Result<()> {
        let state = ApplyState {
            applied_index: self.applied.index,
            applied_term: self.applied.term,
        };
        self.batch
            .put(Cf::Local, keys::apply_state(RegionId(self.region.id)), state.encode_to_vec());
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
        self.put_region_state(region_state::State::Normal, region);
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
