//! Writes and changes of membership, from request to raft entry.

use base::{MonoTime, PeerId};
use engine::kv::{Context, Error, Modify, Reply};
use proto::metapb::RegionEpoch;

use super::{AdminReply, Effects, Peer, Proposal};
use crate::command::{self, AdminError, ConfOne};
use crate::region;

/// Writes that will share an entry. They were checked under one epoch and one leadership.
#[derive(Default)]
pub(super) struct Gather {
    changes: Vec<Modify>,
    replies: Vec<Reply<()>>,
    bytes: usize,
    epoch: RegionEpoch,
    term: u64,
}

impl Gather {
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    pub fn into_replies(self) -> Vec<Reply<()>> {
        self.replies
    }
}

/// Entries are not grown beyond this by gathering: a larger one delays the first writer for the last.
const GATHER_BYTES: usize = 256 << 10;

impl Peer {
    pub(super) fn on_write(
        &mut self,
        now: MonoTime,
        ctx: Context,
        changes: Vec<Modify>,
        deadline: MonoTime,
        reply: Reply<()>,
        fx: &mut Effects,
    ) {
        let bytes = match self.check_write(now, &ctx, &changes, deadline) {
            Ok(bytes) => bytes,
            Err(error) => return fx.answers.push((reply, Err(error))),
        };
        let under = (region::epoch(&self.region), self.term());
        if self.gather.bytes + bytes > GATHER_BYTES || (self.gather.epoch, self.gather.term) != under {
            self.flush_writes(now, fx);
        }
        (self.gather.epoch, self.gather.term) = under;
        self.gather.bytes += bytes;
        self.gather.changes.extend(changes);
        self.gather.replies.push(reply);
    }

    fn check_write(&self, now: MonoTime, ctx: &Context, changes: &[Modify], deadline: MonoTime) -> Result<usize, Error> {
        self.check_leader(ctx)?;
        region::check_changes(&self.region, changes)?;
        if now >= deadline {
            return Err(Error::Deadline);
        }
        let bytes = changes.iter().map(command::weight).sum::<usize>();
        let limit = self.config.entry_max.0;
        if bytes as u64 > limit {
            return Err(Error::EntryTooLarge {
                region: self.region_id(),
                size: bytes as u64,
                limit,
            });
        }
        Ok(bytes)
    }

    /// Whether this peer leads, and the client's belief of the region holds.
    pub(super) fn check_leader(&self, ctx: &Context) -> Result<(), Error> {
        if !self.is_leader() {
            return Err(self.not_leader());
        }
        self.check_standing()?;
        // A client that saw an older term by more than one speaks of a leadership long past.
        if ctx.term > 0 && self.term() > ctx.term + 1 {
            return Err(Error::StaleCommand);
        }
        region::check_context(&self.region, self.peer_id(), ctx).map_err(|error| self.with_siblings(error))
    }

    /// Proposes what was gathered, unless the log still writes what was proposed before: those who come meanwhile share the next
    /// entry, its message to each follower and its sync, and none of them waits longer than for the sync under way.
    pub(super) fn maybe_flush_writes(&mut self, now: MonoTime, fx: &mut Effects) {
        if self.unpersisted.is_empty() || !self.is_leader() {
            self.flush_writes(now, fx);
        }
    }

    /// Proposes what was gathered, as one entry.
    pub(super) fn flush_writes(&mut self, now: MonoTime, fx: &mut Effects) {
        if self.gather.is_empty() {
            return;
        }
        let Gather {
            changes,
            replies,
            epoch,
            term,
            ..
        } = std::mem::take(&mut self.gather);
        // The leadership under which they were checked may be over. The crate would forward them.
        if !self.is_leader() || self.term() != term {
            let error = self.not_leader();
            fx.answers
                .extend(replies.into_iter().map(|reply| (reply, Err(error.clone()))));
            return;
        }
        let data = command::encode_changes(epoch, changes);
        match self.node.propose(Vec::new(), data) {
            Ok(()) => self.note_proposal(now, replies, None),
            Err(_) => {
                let error = self.why_dropped();
                fx.answers
                    .extend(replies.into_iter().map(|reply| (reply, Err(error.clone()))));
            }
        }
    }

    /// Why the crate dropped a proposal. It was not appended, so it may be tried again safely.
    pub(super) fn why_dropped(&self) -> Error {
        match self.is_leader() {
            true if self.node.raft.lead_transferee.is_some() => Error::NotLeader {
                region: self.region_id(),
                leader: None,
            },
            true => Error::Busy {
                reason: "too many bytes wait for a quorum",
            },
            false => self.not_leader(),
        }
    }

    pub(super) fn note_proposal(&mut self, now: MonoTime, replies: Vec<Reply<()>>, admin: Option<AdminReply>) {
        let index = self.node.raft.raft_log.last_index();
        self.proposals.push_back(Proposal {
            index,
            term: self.term(),
            asked: now,
            replies,
            admin,
        });
    }

    pub(super) fn on_conf_change(
        &mut self,
        now: MonoTime,
        epoch: RegionEpoch,
        changes: Vec<ConfOne>,
        reply: AdminReply,
        fx: &mut Effects,
    ) {
        // What was gathered before goes before.
        self.flush_writes(now, fx);
        match self.propose_conf_change(epoch, changes) {
            Ok(()) => self.note_proposal(now, Vec::new(), Some(reply)),
            Err(error) => {
                self.unheeded = true;
                fx.admin_answers.push((reply, Err(error)));
            }
        }
    }

    fn propose_conf_change(&mut self, epoch: RegionEpoch, changes: Vec<ConfOne>) -> Result<(), AdminError> {
        let refused = |reason| AdminError::Refused {
            region: self.region_id(),
            reason,
        };
        self.check_may_change()?;
        if !self.applied_in_term() || self.node.raft.has_pending_conf() {
            return Err(refused("another change of membership may be under way"));
        }
        command::apply_conf_change(&self.region, epoch, &changes)?;
        let (context, raft) = command::encode_conf_change(epoch, changes);
        self.node
            .propose_conf_change(context, raft)
            .map_err(|_| self.why_dropped().into())
    }

    pub(super) fn on_transfer_leader(&mut self, to: PeerId, reply: AdminReply, fx: &mut Effects) {
        let outcome = self.transfer_leader(to);
        fx.admin_answers.push((reply, outcome));
    }

    fn transfer_leader(&mut self, to: PeerId) -> Result<(), AdminError> {
        let refused = |reason| AdminError::Refused {
            region: self.region_id(),
            reason,
        };
        if !self.is_leader() {
            return Err(self.not_leader().into());
        }
        if to == self.peer_id() {
            return Ok(());
        }
        match self.node.raft.prs().get(to.0) {
            None => return Err(refused("the peer is not of this region")),
            Some(_) if !self.node.raft.prs().conf().voters().contains(to.0) => return Err(refused("a learner cannot lead")),
            Some(progress) if self.last_index().saturating_sub(progress.matched) > self.config.log_entries_max => {
                return Err(refused("the peer is too far behind"));
            }
            Some(_) => {}
        }
        // Before the message can leave: from now on another peer may lead without waiting for our lease.
        self.lease.revoke();
        self.node.transfer_leader(to.0);
        Ok(())
    }
}
