//! How a region becomes several: proposed here, carried out by the applier, told to this peer; and how a peer begins that waited for it.

use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, RegionId};
use engine::kv::Error;
use proto::metapb::{Region, RegionEpoch};
use rand::Rng;

use super::{AdminReply, Effects, Peer, Report, Start, election};
use crate::apply::ApplyTask;
use crate::command::AdminError;
use crate::region;
use crate::split::{self, Parts, SplitOne};
use crate::storage::LogCache;
use crate::store::{INITIAL, begun};

impl Peer {
    pub(super) fn on_split(
        &mut self,
        now: MonoTime,
        epoch: RegionEpoch,
        parts: Vec<SplitOne>,
        reply: AdminReply,
        fx: &mut Effects,
    ) {
        // What was gathered before goes before, while it still fits the range.
        self.flush_writes(now, fx);
        match self.propose_split(epoch, parts) {
            Ok(()) => self.note_proposal(now, Vec::new(), Some(reply)),
            Err(error) => fx.admin_answers.push((reply, Err(error))),
        }
    }

    fn propose_split(&mut self, epoch: RegionEpoch, parts: Vec<SplitOne>) -> Result<(), AdminError> {
        self.check_may_change()?;
        if let Err(error) = split::split(&self.region, epoch, &parts) {
            return Err(match error {
                AdminError::Region(error) => self.with_siblings(error).into(),
                refused => refused,
            });
        }
        let data = split::encode(epoch, parts);
        self.node.propose(Vec::new(), data).map_err(|_| self.why_dropped().into())
    }

    /// Adds the regions that the last split made to an answer for somebody who believes in an older range.
    pub(super) fn with_siblings(&self, error: Error) -> Error {
        region::with_siblings(error, &self.siblings)
    }

    /// The region was divided; the new regions' peers are on this store already.
    pub(super) fn on_divided(&mut self, now: MonoTime, parts: Parts, fx: &mut Effects) {
        // A raft snapshot of the old range would cover what others hold now, and they write to a part of it.
        self.on_range(parts.region);
        self.size.on_divided(parts.children.len() as u64 + 1);
        if self.is_leader() && !self.destroyed {
            fx.campaign.extend(parts.children.iter().map(|child| RegionId(child.id)));
            // Else nobody could tell who asks the placement driver for one of their keys before their leaders are elected.
            fx.report_parts
                .extend(parts.children.iter().filter_map(|child| self.report_of_child(child)));
            self.report(now, fx);
        }
        self.siblings = Arc::new(parts.children);
        if self.published {
            self.publish(fx);
        }
    }

    /// What a new region's leader would report if it were this store's peer.
    fn report_of_child(&self, child: &Region) -> Option<Report> {
        let leader = child.peers.iter().find(|peer| peer.store_id == self.me.store_id)?;
        let (bytes, keys) = self.size.about();
        Some(Report {
            region: child.clone(),
            leader: *leader,
            term: INITIAL.term,
            pending: Vec::new(),
            down: Vec::new(),
            bytes,
            keys,
            put_bytes: 0,
            put_keys: 0,
            since: Duration::ZERO,
        })
    }

    /// Begins with the range that a split gave to this peer. Until now it could vote at most; those votes stay, and their writes go
    /// before all that it writes from now on.
    pub(super) fn on_begin(&mut self, now: MonoTime, region: Region, fx: &mut Effects) {
        assert!(
            !self.is_initialized() && self.incoming.is_none(),
            "region {} begins twice, or over a raft snapshot",
            region.id
        );
        let found = begun(&self.node.store().raft_state());
        let peer = region::peer_of(&region, self.peer_id()).copied().unwrap_or(self.me);
        let start = Start {
            peer,
            log: LogCache::new(&found, &region, Vec::new()),
            region: region.clone(),
            applied: INITIAL,
            seed: self.rng.random(),
            now,
            is_new: false,
        };
        let mut next = Peer::new(self.config.clone(), start);
        next.election = election::Election::new(next.election.wait(), self.election.votes_from());
        next.unpersisted = std::mem::take(&mut self.unpersisted);
        (next.ready_base, next.ready_last) = (self.ready_last, self.ready_last);
        let waiting = Error::RegionNotFound {
            region: self.region_id(),
        };
        self.refuse_all_reads(&waiting, fx);
        *self = next;
        fx.region_changed = Some(self.region.clone());
        fx.apply.push(ApplyTask::Begin { region });
    }
}
