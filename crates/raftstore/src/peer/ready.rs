//! What the crate wants done after a step, turned into effects, and what comes back of it.

use std::sync::Arc;

use base::{MonoTime, PeerId};
use engine::kv::Error;
use proto::metapb;
use raft::eraftpb::{self, Entry, MessageType};
use raft::{Ready, StateRole};

use super::{Effects, Incoming, Peer, RaftWrite};
use crate::RaftMessage;
use crate::apply::{Applied, ApplyTask, Change, Committed};
use crate::planted::{self, Bug};
use crate::region;
use crate::snapshot::{Generated, Key};
use crate::storage::{Fetch, LogPosition};

impl Peer {
    pub(super) fn collect_ready(&mut self, now: MonoTime, fx: &mut Effects) {
        while !self.destroyed && self.node.has_ready() {
            let ready = self.node.ready();
            self.on_ready(now, ready, fx);
        }
        self.serve_ready_reads(fx);
        self.collect_wanted(fx);
    }

    fn on_ready(&mut self, now: MonoTime, mut ready: Ready, fx: &mut Effects) {
        let number = self.ready_base + ready.number();
        self.ready_last = number;
        self.observe_role(now, fx);
        let mut write = RaftWrite {
            region: self.region_id(),
            ready: number,
            ..RaftWrite::default()
        };
        for message in ready.take_messages() {
            self.send(message, &mut fx.send, &mut fx.send_snapshot);
        }
        for message in ready.take_persisted_messages() {
            let early = early_by_planted_bug(&message);
            let to = if early { &mut fx.send } else { &mut write.send_after };
            self.send(message, to, &mut fx.send_snapshot);
        }
        for state in ready.take_read_states() {
            self.on_read_index(&state.request_ctx, state.index);
        }
        let committed = ready.take_committed_entries();
        self.store_ready(&mut ready, &mut write);
        self.node.advance_append_async(ready);
        self.give_write(write, fx);
        self.apply_committed(committed, fx);
    }

    /// Makes the ready's log and hard state readable in memory and writable to disk.
    fn store_ready(&mut self, ready: &mut Ready, write: &mut RaftWrite) {
        if !ready.snapshot().is_empty() {
            let meta = ready.snapshot().get_metadata();
            let position = LogPosition {
                index: meta.index,
                term: meta.term,
            };
            let conf_state = meta.get_conf_state().clone();
            self.node.mut_store().reset(position, conf_state);
            let incoming = self.incoming.as_mut().filter(|incoming| incoming.position == position);
            incoming.expect("raft restores only a snapshot that was admitted").ready = Some(write.ready);
            self.log_bytes = 0;
            (write.reset, write.sync) = (true, true);
        }
        let entries = ready.take_entries();
        if !entries.is_empty() {
            self.log_bytes += entries
                .iter()
                .map(|e| (e.data.len() + e.context.len() + 32) as u64)
                .sum::<u64>();
            self.node.mut_store().append(&entries);
            write.entries = entries;
            write.sync = true;
        }
        if let Some(state) = ready.hs() {
            let before = self.node.store().hard_state();
            write.sync |= before.term != state.term || before.vote != state.vote;
            self.node.mut_store().set_hard_state(state.clone());
        }
        // A commit index alone is not worth a write: at a restart it is at least the applied index, and raft finds the rest again.
        if write.sync {
            write.state = Some(self.node.store().raft_state());
        }
    }

    /// Hands the write out; one that holds nothing and waits for nothing is done at once.
    pub(super) fn give_write(&mut self, write: RaftWrite, fx: &mut Effects) {
        if write.sync || !self.unpersisted.is_empty() {
            self.unpersisted.push_back(write.ready);
            return fx.writes.push(write);
        }
        fx.send.extend(write.send_after);
        self.node.on_persist_ready(write.ready - self.ready_base);
    }

    pub(super) fn on_persisted(&mut self, number: u64, fx: &mut Effects) {
        while self.unpersisted.front().is_some_and(|&first| first <= number) {
            self.unpersisted.pop_front();
        }
        if number > self.ready_base {
            self.node.on_persist_ready(number - self.ready_base);
        }
        if let Some(incoming) = self
            .incoming
            .take_if(|incoming| incoming.ready.is_some_and(|ready| ready <= number))
        {
            let key = Key {
                region: self.region_id(),
                position: incoming.position,
            };
            fx.apply.push(ApplyTask::Install {
                key,
                region: incoming.region,
            });
        }
    }

    /// Gives committed entries to apply, with those who wait for them.
    fn apply_committed(&mut self, entries: Vec<Entry>, fx: &mut Effects) {
        if entries.is_empty() {
            return;
        }
        let (term, leads) = (self.term(), self.is_leader());
        let mut committed = Vec::with_capacity(entries.len());
        for entry in entries {
            let mut applied = Committed {
                index: entry.index,
                term: entry.term,
                ..Committed::default()
            };
            while let Some(proposal) = self.proposals.pop_front_if(|p| p.index <= entry.index) {
                if (proposal.index, proposal.term) == (entry.index, entry.term) {
                    applied.replies = proposal.replies;
                    applied.admin = proposal.admin;
                    if leads && proposal.term == term {
                        self.lease.renew(proposal.asked);
                    }
                    break;
                }
                // Another leader's entry stands at its place: it never will be applied.
                self.refuse_proposal(proposal, Error::StaleCommand, fx);
            }
            (applied.data, applied.context) = (entry.data, entry.context);
            applied.changes_conf = entry.entry_type != eraftpb::EntryType::EntryNormal;
            committed.push(applied);
        }
        fx.apply.push(ApplyTask::Entries(committed));
    }

    pub(super) fn refuse_proposal(&mut self, proposal: super::Proposal, error: Error, fx: &mut Effects) {
        fx.answers
            .extend(proposal.replies.into_iter().map(|reply| (reply, Err(error.clone()))));
        fx.admin_answers
            .extend(proposal.admin.map(|reply| (reply, Err(error.into()))));
    }

    pub(super) fn observe_role(&mut self, now: MonoTime, fx: &mut Effects) {
        let (role, term) = (self.node.raft.state, self.node.raft.term);
        if (role, term) == (self.role, self.term) {
            return;
        }
        self.wake(now, fx);
        self.fail_reads(fx);
        if role == StateRole::Leader {
            self.lease.begin();
            // The entry with which a leader begins its term; a lease may count from now once it is committed.
            self.note_proposal(now, Vec::new(), None);
            self.heard = self.node.raft.prs().iter().map(|(&id, _)| (id, now)).collect();
            self.report(now, fx);
        } else {
            self.lease.revoke();
            self.unpublish(fx);
            if self.role == StateRole::Leader {
                self.generated = None;
                self.node.mut_store().drop_snapshot();
            }
        }
        (self.role, self.term) = (role, term);
    }

    pub(super) fn unpublish(&mut self, fx: &mut Effects) {
        if std::mem::take(&mut self.published) {
            fx.publish = Some(None);
        }
    }

    /// Lends reads to other threads once this leader applied an entry of its term, and again when the region changes.
    pub(super) fn publish(&mut self, fx: &mut Effects) {
        if self.is_leader() && self.applied_in_term() && self.standing.is_none() {
            self.published = true;
            fx.publish = Some(Some(crate::delegate::Delegate {
                region: self.region.clone(),
                siblings: self.siblings.clone(),
                peer: self.peer_id(),
                term: self.term(),
                lease: self.lease.end().clone(),
            }));
        }
    }

    pub(super) fn on_applied(&mut self, now: MonoTime, applied: Applied, fx: &mut Effects) {
        if let [Change::OnlyVoter(region)] = &applied.changes[..] {
            return self.begin_alone(now, region.clone(), fx);
        }
        let before = self.region.clone();
        if let Some(region) = applied.installed {
            let conf_state = region::conf_state(&region);
            self.region = Arc::new(region);
            self.siblings = Arc::default();
            (self.standing, self.lacks_source) = (None, false);
            self.node.mut_store().set_conf_state(conf_state);
        }
        self.size.on_put(applied.put_bytes, applied.put_keys);
        for change in applied.changes {
            let conf = match change {
                Change::Conf(conf) => conf,
                Change::Split(parts) => {
                    self.on_divided(now, parts, fx);
                    continue;
                }
                Change::Merge(merge) => {
                    self.on_merge_step(now, merge, fx);
                    continue;
                }
                Change::OnlyVoter(_) => unreachable!("it comes alone"),
            };
            self.region = Arc::new(conf.region);
            // A raft snapshot that came meanwhile has brought the crate a later membership.
            if applied.position.index >= self.restored_index() {
                let state = self
                    .node
                    .apply_conf_change(&conf.raft)
                    .expect("the same change was checked when it was applied");
                let wanted = region::conf_state(&self.region);
                assert!(
                    region::same_members(&state, &wanted),
                    "raft's membership {state:?} is not the region's {wanted:?}"
                );
                self.node.mut_store().set_conf_state(state);
            }
            self.on_membership_changed(now, fx);
        }
        if !Arc::ptr_eq(&before, &self.region) {
            fx.region_changed = Some(self.region.clone());
        }
        assert!(
            applied.position.index >= self.applied.index,
            "applied goes back: {:?} to {:?}",
            self.applied,
            applied.position
        );
        let first_of_term = applied.position.term == self.term() && self.applied.term != self.term();
        self.applied = applied.position;
        if self.destroyed {
            return;
        }
        self.node.advance_apply_to(self.applied.index);
        if first_of_term && self.is_leader() {
            self.publish(fx);
            // From here on it can carry out what the placement driver answers.
            self.report(now, fx);
        }
        self.evict();
    }

    /// Index of the raft snapshot that the crate took in last, or of the entry before its log.
    fn restored_index(&self) -> u64 {
        let coming = self.node.raft.raft_log.unstable.snapshot.as_ref();
        let coming = coming.map_or(0, |snapshot| snapshot.get_metadata().index);
        coming.max(self.node.store().truncated().index)
    }

    fn on_membership_changed(&mut self, now: MonoTime, fx: &mut Effects) {
        self.generated = None;
        self.node.mut_store().drop_snapshot();
        self.known
            .retain(|id, _| region::peer_of(&self.region, PeerId(*id)).is_none());
        match region::peer_of(&self.region, self.peer_id()) {
            None => self.destroy(fx),
            Some(me) => {
                self.me = *me;
                if self.is_leader() {
                    self.publish(fx);
                    self.report(now, fx);
                }
            }
        }
    }

    /// Ends this peer: everybody who waits is answered. Whether their entries are applied elsewhere is not known.
    pub fn destroy(&mut self, fx: &mut Effects) {
        self.destroyed = true;
        self.lease.revoke();
        self.unpublish(fx);
        self.refuse_all(Error::Deadline, fx);
        fx.destroy = true;
    }

    /// Answers everybody who waits: what was proposed with this error, what was not by that the region is gone.
    pub(super) fn refuse_all(&mut self, error: Error, fx: &mut Effects) {
        for proposal in std::mem::take(&mut self.proposals) {
            self.refuse_proposal(proposal, error.clone(), fx);
        }
        let gone = Error::RegionNotFound {
            region: self.region_id(),
        };
        let gathered = std::mem::take(&mut self.gather).into_replies();
        fx.answers
            .extend(gathered.into_iter().map(|reply| (reply, Err(gone.clone()))));
        self.refuse_all_reads(&gone, fx);
    }

    /// Takes in a raft snapshot's message if it fits; its file is on this store already.
    pub(super) fn admit_snapshot(&mut self, message: &mut RaftMessage) -> bool {
        let Some(meta) = message.snapshot.as_mut() else { return false };
        let Some(region) = meta.region.take() else { return false };
        let is_member = region::peer_of(&region, self.peer_id()).is_some();
        let installing = self.incoming.as_ref().is_some_and(|incoming| incoming.ready.is_some());
        if region.id != self.region.id || !is_member || installing || meta.index <= self.applied.index {
            return false;
        }
        let position = LogPosition {
            index: meta.index,
            term: meta.term,
        };
        self.incoming = Some(Incoming {
            position,
            region,
            ready: None,
        });
        true
    }

    /// Forgets a raft snapshot that was admitted if raft does not take it, as one of an older term; whether it did.
    pub(super) fn forget_unwanted_snapshot(&mut self) -> bool {
        let is_taken = self.node.raft.raft_log.unstable.snapshot.is_some();
        let unwanted = self.incoming.take_if(|incoming| incoming.ready.is_none() && !is_taken);
        unwanted.is_some()
    }

    pub(super) fn on_generated(&mut self, generated: Option<Generated>) {
        self.generating = false;
        // A snapshot of another membership may not list the peer that needs it, which then refuses it for ever.
        let is_current = |generated: &Generated| region::epoch(&generated.region) == region::epoch(&self.region);
        // Nor does one tell that the region stands still.
        let Some(generated) = generated.filter(|generated| is_current(generated) && self.standing.is_none()) else {
            return;
        };
        let mut snapshot = eraftpb::Snapshot::default();
        let meta = snapshot.mut_metadata();
        (meta.index, meta.term) = (generated.key.position.index, generated.key.position.term);
        meta.set_conf_state(region::conf_state(&generated.region));
        self.node.mut_store().put_snapshot(snapshot);
        self.generated = Some(generated);
        // Peers that waited for it are asked again with the next heartbeat's answer.
    }

    pub(super) fn on_fetched(&mut self, fetch: Fetch, entries: Vec<Entry>) {
        self.node.mut_store().put_fetched(entries);
        self.node.on_entries_fetched(fetch.context);
    }

    fn collect_wanted(&mut self, fx: &mut Effects) {
        let wanted = self.node.mut_store().take_wanted();
        fx.fetch.extend(wanted.fetches);
        let may_generate = !self.generating && self.standing.is_none();
        if wanted.snapshot.is_some() && may_generate && self.is_leader() && self.is_initialized() {
            self.generating = true;
            fx.apply.push(ApplyTask::Generate);
        }
    }

    /// Puts raft's message on its way, with what the receiver must know of the region.
    fn send(&mut self, message: eraftpb::Message, to: &mut Vec<RaftMessage>, snapshots: &mut Vec<RaftMessage>) {
        let Some(peer) = self.address(message.to) else { return };
        let creates = message.msg_type == MessageType::MsgHeartbeat && message.commit == 0;
        let mut wire = crate::message::to_wire(message);
        wire.region_id = self.region.id;
        wire.from = Some(self.me);
        wire.to = Some(peer);
        wire.epoch = Some(region::epoch(&self.region));
        if creates || crate::message::is_vote_request(wire.kind) {
            wire.start_key = self.region.start_key.clone();
            wire.end_key = self.region.end_key.clone();
        }
        let Some(meta) = wire.snapshot.as_mut() else {
            return to.push(wire);
        };
        let position = LogPosition {
            index: meta.index,
            term: meta.term,
        };
        if let Some(generated) = self.generated.as_ref().filter(|generated| generated.key.position == position) {
            meta.region = Some(generated.region.clone());
            return snapshots.push(wire);
        }
        // Its data is gone. The crate waits for the end of every snapshot it gave out, and sends nothing else meanwhile.
        let to = wire.to.as_ref().map_or(0, |peer| peer.id);
        self.node.report_snapshot(to, raft::SnapshotStatus::Failure);
    }

    fn address(&self, id: u64) -> Option<metapb::Peer> {
        region::peer_of(&self.region, PeerId(id))
            .or_else(|| self.known.get(&id))
            .cloned()
    }
}

fn early_by_planted_bug(message: &eraftpb::Message) -> bool {
    match message.msg_type {
        MessageType::MsgAppendResponse => planted::on(Bug::AckBeforeFsync),
        MessageType::MsgRequestVoteResponse => planted::on(Bug::VoteBeforePersist),
        _ => false,
    }
}
