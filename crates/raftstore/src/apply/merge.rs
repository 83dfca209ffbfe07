//! How two regions become one on a store: the source's applier stands still, the target's waits for it and then takes its range over.

use base::RegionId;
use engine::{Cf, keys};
use prost::Message;
use proto::ferrite_raft::{Command, MergeSource, RegionState, region_state};
use proto::metapb::Region;

use super::{Applied, Applier, ApplyTask, Change, Committed, MergeApplied, MergeStep, Outcome, Wait};
use crate::command::AdminError;
use crate::merge::{self, Merging};
use crate::registry::Source;
use crate::storage::LogPosition;
use crate::{Error, Result};

/// Whether the entry is a step of a merge.
pub(super) fn is_merge(command: &Command) -> bool {
    command.prepare_merge.is_some() || command.commit_merge.is_some() || command.give_up_merge || command.rollback_merge
}

fn position(source: &MergeSource) -> LogPosition {
    LogPosition {
        index: source.index,
        term: source.term,
    }
}

impl Applier {
    /// Whether the task must wait for another region, as those before it do.
    pub(super) fn holds_back(&self, task: &ApplyTask) -> bool {
        !self.waiting.is_empty() && !matches!(task, ApplyTask::Resume | ApplyTask::Install { .. })
    }

    /// A raft snapshot takes the place of all that waits.
    pub(super) fn give_up_waiting(&mut self, outcome: &mut Outcome) {
        for task in std::mem::take(&mut self.waiting) {
            let ApplyTask::Entries(entries) = task else { continue };
            for entry in entries {
                let unknown = engine::kv::Error::Deadline;
                outcome
                    .answers
                    .extend(entry.replies.into_iter().map(|reply| (reply, Err(unknown.clone()))));
                outcome
                    .admin_answers
                    .extend(entry.admin.map(|reply| (reply, Err(unknown.clone().into()))));
            }
        }
    }

    pub(super) fn unless_merging(&self) -> std::result::Result<(), AdminError> {
        let region = RegionId(self.region.id);
        match self.merging {
            None => Ok(()),
            Some(_) => Err(AdminError::Refused {
                region,
                reason: "the region stands still, to be merged",
            }),
        }
    }

    /// What must happen here before the entry can be applied: if it takes a region over, that must have applied all of its log.
    pub(super) fn must_wait(&self, entry: &Committed) -> Result<Option<Wait>> {
        if entry.changes_conf || entry.context.is_empty() {
            return Ok(None);
        }
        let command = Command::decode(&entry.data[..]).map_err(|source| Error::Decode {
            what: "raft entry",
            source,
        })?;
        let Some(source) = &command.commit_merge else {
            return Ok(None);
        };
        let (Some(region), epoch) = (&source.region, command.epoch.unwrap_or_default()) else {
            return Ok(None);
        };
        if self.merging.is_some() || merge::commit(&self.region, epoch, region).is_err() {
            return Ok(None);
        }
        let (id, at) = (RegionId(region.id), position(source));
        let is_gone = match self.registry.claim(id, at) {
            Source::Ready => return Ok(None),
            Source::Lags => false,
            Source::Gone => true,
        };
        Ok(Some(Wait { source: id, at, is_gone }))
    }

    pub(super) fn apply_merge(
        &mut self,
        at: LogPosition,
        command: Command,
        applied: &mut Applied,
        outcome: &mut Outcome,
    ) -> Result<std::result::Result<(), AdminError>> {
        let epoch = command.epoch.unwrap_or_default();
        let done = if let Some(target) = command.prepare_merge {
            self.unless_merging()
                .and_then(|()| merge::prepare(&self.region, epoch, &target))
                .map(|region| (region, Step::Prepare(target)))
        } else if let Some(source) = command.commit_merge {
            let region = source.region.clone().unwrap_or_default();
            self.unless_merging()
                .and_then(|()| merge::commit(&self.region, epoch, &region))
                .map(|whole| (whole, Step::Commit(source)))
        } else if command.rollback_merge {
            let stands_still = self.merging.is_some();
            let refused = AdminError::Refused {
                region: RegionId(self.region.id),
                reason: "the region does not stand still",
            };
            merge::give_up(&self.region, epoch)
                .and_then(|region| if stands_still { Ok(region) } else { Err(refused) })
                .map(|region| (region, Step::RollBack))
        } else {
            self.unless_merging()
                .and_then(|()| merge::give_up(&self.region, epoch))
                .map(|region| (region, Step::GiveUp))
        };
        let (region, step) = match done {
            Ok(done) => done,
            Err(refused) => return Ok(Err(refused)),
        };
        let step = match step {
            Step::Prepare(target) => self.stand_still(at, &region, target, outcome)?,
            Step::Commit(source) => self.take_over(at, &region, &source, outcome)?,
            Step::GiveUp => {
                self.put_own_state(&region);
                MergeStep::GivenUp
            }
            Step::RollBack => {
                self.merging = None;
                self.registry.set_merging(RegionId(region.id), None);
                self.put_own_state(&region);
                MergeStep::RolledBack
            }
        };
        self.region = region.clone();
        applied.changes.push(Change::Merge(MergeApplied { region, step }));
        Ok(Ok(()))
    }

    /// From here on the target may take over what the engine holds, on this thread or another: all of it must be there.
    fn stand_still(&mut self, at: LogPosition, region: &Region, target: Region, outcome: &mut Outcome) -> Result<MergeStep> {
        outcome.wakes = Some(RegionId(target.id));
        let merging = Merging { target, at };
        self.merging = Some(merging.clone());
        self.applied = at;
        self.put_own_state(region);
        self.write_batch()?;
        let left = self.registry.set_merging(RegionId(region.id), Some(merging.clone()));
        Ok(MergeStep::Prepared { merging, left })
    }

    /// One batch makes the range this region's and ends the other. It is made durable before the other's log can go.
    fn take_over(&mut self, at: LogPosition, whole: &Region, source: &MergeSource, outcome: &mut Outcome) -> Result<MergeStep> {
        let registry = self.registry.clone();
        let region = source.region.clone().unwrap_or_default();
        let id = RegionId(region.id);
        self.put_own_state(whole);
        self.applied = at;
        let written = registry.merge(id, whole, |peer| {
            self.put_region_state(RegionState {
                state: region_state::State::Tombstone as i32,
                region: Some(region.clone()),
                peer_id: peer.0,
                merged_into: whole.id,
                ..RegionState::default()
            });
            self.batch.delete(Cf::Local, keys::apply_state(id));
            self.write_batch()
        });
        written.expect("a source that was found ready stays until it is taken over")?;
        self.engine.sync().map_err(|source| Error::Engine { act: "sync", source })?;
        self.siblings.clear();
        outcome.merged = Some(id);
        outcome.leaves.extend(self.registry.left_by(id));
        Ok(MergeStep::Committed(id))
    }
}

/// What an entry that was let in does.
enum Step {
    Prepare(Region),
    Commit(MergeSource),
    GiveUp,
    RollBack,
}
