//! How a peer whose region lost most of its voters goes on without them, at an operator's order. What it means is in [`crate::rescue`].

use std::sync::Arc;

use base::MonoTime;
use engine::kv::Error;
use proto::metapb::{Region, RegionEpoch};
use raft::eraftpb::HardState;
use raft::{GetEntriesContext, INVALID_ID};

use super::{AdminReply, Effects, Peer, RaftWrite, Start};
use crate::apply::ApplyTask;
use crate::command::AdminError;
use crate::log::Found;
use crate::region;
use crate::rescue::{self, Order, RAISE};
use crate::storage::LogCache;

impl Peer {
    pub(super) fn on_rescue(&mut self, order: Order, reply: AdminReply, fx: &mut Effects) {
        let done = self.check_rescue().and_then(|()| match order {
            Order::ApplyLog => self.commit_all().map(|()| None),
            Order::OnlyVoter { above, rolls_back } => self.only_voter(above, rolls_back).map(Some),
        });
        match done {
            Ok(None) => fx.admin_answers.push((reply, Ok(()))),
            Ok(Some(region)) => {
                self.rescue = Some(reply);
                fx.apply.push(ApplyTask::OnlyVoter { region });
            }
            Err(refused) => fx.admin_answers.push((reply, Err(refused))),
        }
    }

    fn no_rescue<T>(&self, reason: &'static str) -> Result<T, AdminError> {
        let region = self.region_id();
        Err(AdminError::Refused { region, reason })
    }

    /// Whether nobody leads, and nothing is under way that an order could cross.
    fn check_rescue(&self) -> Result<(), AdminError> {
        if self.is_leader() || self.node.raft.leader_id != INVALID_ID {
            return self.no_rescue("the region has a leader, as far as this store knows");
        }
        if !self.is_initialized() || self.is_installing() || self.incoming.is_some() {
            return self.no_rescue("this store's replica waits for a raft snapshot");
        }
        if self.rescue.is_some() || !self.unpersisted.is_empty() {
            return self.no_rescue("it is being written: ask again");
        }
        Ok(())
    }

    /// From here on all of the log counts as committed.
    fn commit_all(&mut self) -> Result<(), AdminError> {
        let me = self.me.id;
        let log = &mut self.node.raft.raft_log;
        let tail = log.entries(self.applied.index + 1, None, GetEntriesContext::empty(false));
        if tail.is_ok_and(|tail| tail.iter().any(|entry| rescue::removes(entry, me))) {
            return self.no_rescue("its log removes this store's peer: another replica must be taken");
        }
        log.commit_to(log.last_index());
        Ok(())
    }

    /// The region as it will be.
    fn only_voter(&self, above: RegionEpoch, rolls_back: bool) -> Result<Region, AdminError> {
        if self.applied.index != self.last_index() {
            return self.no_rescue("its log is not applied yet: ask again");
        }
        if self.standing.is_some() && !rolls_back {
            return self.no_rescue("it stands still, to be merged: its target must go on first");
        }
        match region::peer_of(&self.region, self.peer_id()) {
            Some(me) => Ok(rescue::only_voter(&self.region, me, above)),
            None => self.no_rescue("it does not list this store's peer"),
        }
    }

    /// The applier has made this peer the only voter: it begins anew, with the log as it is, in a term of its own.
    pub(super) fn begin_alone(&mut self, now: MonoTime, region: Region, fx: &mut Effects) {
        let nothing = LogCache::new(&Found::default(), &Region::default(), Vec::new());
        let mut log = std::mem::replace(self.node.mut_store(), nothing);
        log.set_hard_state(HardState {
            term: log.hard_state().term + RAISE,
            vote: INVALID_ID,
            commit: self.applied.index,
            ..HardState::default()
        });
        log.set_conf_state(region::conf_state(&region));
        log.drop_snapshot();
        let state = log.raft_state();
        let start = Start {
            peer: region::peer_of(&region, self.peer_id()).copied().unwrap_or(self.me),
            log,
            region,
            applied: self.applied,
            seed: rand::Rng::random(&mut self.rng),
            now,
            is_new: false,
        };
        let mut next = Peer::new(self.config.clone(), start);
        let number = self.ready_last + 1;
        (next.ready_base, next.ready_last) = (number, number);
        next.unpersisted = std::mem::take(&mut self.unpersisted);
        (next.log_bytes, next.size) = (self.log_bytes, std::mem::take(&mut self.size));
        self.refuse_all(Error::Deadline, fx);
        fx.admin_answers.extend(self.rescue.take().map(|reply| (reply, Ok(()))));
        *self = next;
        fx.region_changed = Some(Arc::clone(&self.region));
        let write = RaftWrite {
            region: self.region_id(),
            ready: number,
            state: Some(state),
            sync: true,
            ..RaftWrite::default()
        };
        self.give_write(write, fx);
        self.on_campaign();
    }
}
