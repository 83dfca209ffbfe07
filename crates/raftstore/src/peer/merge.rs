//! How a region becomes part of its neighbour: as source it stands still, waits for all its peers and asks to be taken over; as target
//! it proposes to do so. What each step means is in [`crate::merge`].

use std::sync::Arc;

use base::MonoTime;
use engine::kv::Error;
use proto::ferrite_raft::{MergeMessage, MergeSource, merge_message::Kind};
use proto::metapb::{self, Region, RegionEpoch};
use raft::ProgressState;

use super::{AdminReply, Effects, Peer};
use crate::RaftMessage;
use crate::apply::{MergeApplied, MergeStep};
use crate::command::AdminError;
use crate::merge::{self, Merging};
use crate::planted::{self, Bug};
use crate::region;
use crate::storage::LogPosition;

/// Entries that a follower may lack for its region to stand still: while it does, it serves nobody.
const LAG_MAX: u64 = 64;
/// Ticks after which what was asked of others is asked again.
const REPEAT_TICKS: u64 = 2;
/// A source that waits this many election timeouts for one of its peers gives up.
const PATIENCE_ELECTIONS: u64 = 4;

/// A region that stands still, to be taken over.
pub(super) struct Standing {
    merging: Merging,
    /// The target went on without it.
    left: bool,
    ticks: u64,
    /// Where it was proposed to go on.
    rollback: LogPosition,
}

impl Standing {
    fn new(merging: Merging, left: bool) -> Standing {
        Standing {
            merging,
            left,
            ticks: 0,
            rollback: LogPosition::default(),
        }
    }
}

impl Peer {
    pub(super) fn on_merge(&mut self, now: MonoTime, epoch: RegionEpoch, target: Region, reply: AdminReply, fx: &mut Effects) {
        // What was gathered before goes before.
        self.flush_writes(now, fx);
        match self.propose_merge(epoch, target) {
            Ok(()) => self.note_proposal(now, Vec::new(), Some(reply)),
            Err(error) => fx.admin_answers.push((reply, Err(error))),
        }
    }

    fn propose_merge(&mut self, epoch: RegionEpoch, target: Region) -> Result<(), AdminError> {
        self.check_may_change()?;
        merge::prepare(&self.region, epoch, &target)?;
        if !self.applied_in_term() || self.node.raft.has_pending_conf() {
            return Err(self.refused("a change of its membership may be under way"));
        }
        let last = self.last_index();
        let lags = |id: u64, progress: &raft::Progress| {
            let is_near =
                progress.recent_active && progress.state == ProgressState::Replicate && progress.matched + LAG_MAX >= last;
            id != self.me.id && !is_near
        };
        if self.node.raft.prs().iter().any(|(&id, progress)| lags(id, progress)) {
            return Err(self.refused("a peer of the region to merge is away or lags"));
        }
        let data = merge::encode_prepare(epoch, target);
        self.node.propose(Vec::new(), data).map_err(|_| self.why_dropped().into())
    }

    fn refused(&self, reason: &'static str) -> AdminError {
        AdminError::Refused {
            region: self.region_id(),
            reason,
        }
    }

    /// Whether this peer leads a region that does not stand still.
    pub(super) fn check_may_change(&self) -> Result<(), AdminError> {
        if !self.is_leader() {
            return Err(self.not_leader().into());
        }
        match self.standing {
            None => Ok(()),
            Some(_) => Err(self.refused("the region stands still, to be merged")),
        }
    }

    /// What this region stands still for, and whether its target went on without it.
    pub fn merging(&self) -> Option<(&Merging, bool)> {
        self.standing.as_ref().map(|standing| (&standing.merging, standing.left))
    }

    /// Whether the region serves anybody.
    pub(super) fn check_standing(&self) -> Result<(), Error> {
        match self.standing {
            None => Ok(()),
            Some(_) => Err(Error::Merging {
                region: self.region_id(),
            }),
        }
    }

    /// What a restart found.
    pub(crate) fn recall_merging(&mut self, merging: Option<Merging>) {
        self.standing = merging.map(|merging| Standing::new(merging, false));
    }

    /// The target went on without this region.
    pub(crate) fn on_left(&mut self) {
        if let Some(standing) = &mut self.standing {
            standing.left = true;
        }
    }

    /// A step of a merge was applied here.
    pub(super) fn on_merge_step(&mut self, now: MonoTime, merge: MergeApplied, fx: &mut Effects) {
        let MergeApplied { region, step } = merge;
        self.on_range(region);
        match step {
            MergeStep::Prepared { merging, left } => {
                self.standing = Some(Standing::new(merging, left));
                self.unpublish(fx);
                self.ask_target(fx);
            }
            MergeStep::Committed(_) => {
                self.siblings = Arc::default();
                self.size.on_grown();
            }
            MergeStep::GivenUp => {}
            MergeStep::RolledBack => self.standing = None,
        }
        if self.is_leader() && !self.destroyed {
            self.report(now, fx);
            if self.applied_in_term() {
                self.publish(fx);
            }
        }
    }

    /// The region has another range, or another version of it: what was made or lent for the old one counts no more.
    pub(super) fn on_range(&mut self, region: Region) {
        self.region = Arc::new(region);
        self.generated = None;
        self.node.mut_store().drop_snapshot();
        self.lease.renew_readers();
    }

    pub(super) fn tick_merge(&mut self, now: MonoTime, fx: &mut Effects) {
        if self.lacks_source && self.ticks.is_multiple_of(REPEAT_TICKS) {
            self.ask_for_snapshot();
        }
        let Some(standing) = &mut self.standing else { return };
        standing.ticks += 1;
        if !standing.ticks.is_multiple_of(REPEAT_TICKS) {
            return;
        }
        match standing.left {
            true => self.go_on(now, fx),
            false => self.ask_target(fx),
        }
    }

    /// Lets the region go on, or tells the one who can.
    fn go_on(&mut self, now: MonoTime, fx: &mut Effects) {
        let Some(standing) = &self.standing else { return };
        if !self.is_leader() {
            let message = self.message(Kind::WentOn, standing);
            let leader = self.leader().filter(|leader| leader.id != self.me.id);
            fx.tell
                .extend(leader.map(|leader| self.envelope(self.region.id, leader, message)));
            return;
        }
        if !self.applied_in_term() || self.is_under_way(standing.rollback) {
            return;
        }
        let data = merge::encode_rollback(region::epoch(&self.region));
        if self.node.propose(Vec::new(), data).is_ok() {
            self.note_proposal(now, Vec::new(), None);
            let at = self.last_position();
            if let Some(standing) = &mut self.standing {
                standing.rollback = at;
            }
        }
    }

    fn last_position(&self) -> LogPosition {
        LogPosition {
            index: self.last_index(),
            term: self.term(),
        }
    }

    /// Whether what this leader proposed there may still be applied.
    fn is_under_way(&self, at: LogPosition) -> bool {
        at.term == self.term() && at.index > self.applied.index
    }

    /// Asks the target to take this region over once all peers hold its log, or to give up when one of them does not come along.
    fn ask_target(&self, fx: &mut Effects) {
        let Some(standing) = self.standing.as_ref().filter(|_| self.is_leader() && self.applied_in_term()) else {
            return;
        };
        let at = standing.merging.at.index;
        let is_whole = self
            .node
            .raft
            .prs()
            .iter()
            .all(|(&id, progress)| id == self.me.id || progress.matched >= at);
        let kind = if is_whole || planted::on(Bug::MergeWithoutAll) {
            Kind::Commit
        } else if standing.ticks >= PATIENCE_ELECTIONS * u64::from(self.config.election_ticks) {
            Kind::GiveUp
        } else {
            return;
        };
        let target = &standing.merging.target;
        let tell = |peer: &metapb::Peer| self.envelope(target.id, *peer, self.message(kind, standing));
        fx.tell.extend(target.peers.iter().map(tell));
    }

    fn message(&self, kind: Kind, standing: &Standing) -> MergeMessage {
        let Merging { target, at } = &standing.merging;
        MergeMessage {
            kind: kind as i32,
            epoch: target.region_epoch,
            source: Some(MergeSource {
                region: Some((*self.region).clone()),
                index: at.index,
                term: at.term,
            }),
        }
    }

    fn envelope(&self, region_id: u64, to: metapb::Peer, merge: MergeMessage) -> RaftMessage {
        RaftMessage {
            region_id,
            from: Some(self.me),
            to: Some(to),
            epoch: merge.epoch,
            merge: Some(merge),
            ..RaftMessage::default()
        }
    }

    pub(super) fn on_merge_message(&mut self, now: MonoTime, message: MergeMessage, fx: &mut Effects) {
        let (kind, epoch) = (message.kind(), message.epoch.unwrap_or_default());
        let Some(source) = message.source else { return };
        if kind == Kind::WentOn {
            let at = LogPosition {
                index: source.index,
                term: source.term,
            };
            let standing = self.standing.as_mut().filter(|standing| standing.merging.at == at);
            standing.into_iter().for_each(|standing| standing.left = true);
            return;
        }
        // Asked again and again: what was proposed may not be applied yet.
        if self.is_under_way(self.take_over) || self.check_may_change().is_err() || !self.applied_in_term() {
            return;
        }
        let Some(region) = &source.region else { return };
        let (context, data) = match kind {
            Kind::Commit if merge::commit(&self.region, epoch, region).is_ok() => {
                (merge::COMMIT_CONTEXT.to_vec(), merge::encode_commit(epoch, source))
            }
            Kind::GiveUp if merge::give_up(&self.region, epoch).is_ok() => (Vec::new(), merge::encode_give_up(epoch)),
            _ => return,
        };
        self.flush_writes(now, fx);
        if self.node.propose(context, data).is_ok() {
            self.note_proposal(now, Vec::new(), None);
            self.take_over = self.last_position();
        }
    }

    /// The target of this region, which stands still, waits for it here. All peers have the log up to `at`, and a quorum's is not needed to
    /// know that it is committed: the target's log says so.
    pub(super) fn on_catch_up(&mut self, at: LogPosition) {
        let log = &mut self.node.raft.raft_log;
        if log.committed < at.index && log.last_index() >= at.index && log.term(at.index).is_ok_and(|term| term == at.term) {
            log.commit_to(at.index);
        }
    }

    /// A region that this one is to take over is no more, here: only a raft snapshot brings its data.
    pub(super) fn on_source_gone(&mut self) {
        self.lacks_source = true;
        self.ask_for_snapshot();
    }

    fn ask_for_snapshot(&mut self) {
        if self.is_leader() {
            // Another peer has the data.
            let others = self
                .node
                .raft
                .prs()
                .iter()
                .filter(|(id, progress)| **id != self.me.id && progress.recent_active);
            if let Some((&next, _)) = others.max_by_key(|(_, progress)| progress.matched) {
                self.lease.revoke();
                self.node.transfer_leader(next);
            }
            return;
        }
        // Refused without a leader: asked again at a later tick.
        let _refused = self.node.request_snapshot();
    }
}
