//! What the crate wants done after a step, turned into effects, and what comes back of it.

use super::*;

use raft::Ready;
use raft::eraftpb::Entry;

impl Group {
    pub(super) fn collect_ready(&mut self, now: MonoTime, fx: &mut Effects) {
        while !self.removed && fx.failed.is_none() && self.node.has_ready() {
            let ready = self.node.ready();
            self.on_ready(now, ready, fx);
        }
        if self.node.store().take_wanted() && self.is_leader() {
            fx.events.push(LogEvent::SnapshotWanted);
        }
    }

    fn on_ready(&mut self, now: MonoTime, mut ready: Ready, fx: &mut Effects) {
        let mut write = NumberedWrite {
            number: ready.number(),
            ..NumberedWrite::default()
        };
        self.observe_role(now, fx);
        for message in ready.take_messages() {
            self.send(message, &mut fx.send);
        }
        for message in ready.take_persisted_messages() {
            self.send(message, &mut write.send_after);
        }
        for state in ready.take_read_states() {
            self.on_sign_of_life(&state.request_ctx, fx);
        }
        let committed = ready.take_committed_entries();
        let must_write = self.store(&mut ready, &mut write);
        self.node.advance_append_async(ready);
        self.give_write(write, must_write, fx);
        for entry in committed {
            self.hand_over(entry, fx);
        }
        self.node.advance_apply_to(self.applied.index);
    }

    /// Makes what is ready readable in memory, and tells what must become durable; whether anything must.
    fn store(&mut self, ready: &mut Ready, numbered: &mut NumberedWrite) -> bool {
        let write = &mut numbered.write;
        let mut must_write = false;
        if !ready.snapshot().is_empty() {
            let (snapshot, number) = self
                .incoming
                .as_mut()
                .expect("raft restores only a snapshot that was admitted");
            let meta = ready.snapshot().get_metadata();
            assert_eq!(
                (meta.index, meta.term),
                (snapshot.position.index, snapshot.position.term),
                "raft restores another snapshot than the one admitted"
            );
            *number = Some(numbered.number);
            self.node.mut_store().put_snapshot(snapshot.clone(), true);
            self.memberships = BTreeMap::from([(snapshot.position.index, snapshot.conf_state.clone())]);
            (write.snapshot, write.reset, must_write) = (Some(snapshot.clone()), true, true);
        }
        let entries = ready.take_entries();
        if !entries.is_empty() {
            self.node.mut_store().append(&entries);
            write.entries = entries.into_iter().map(entry_to_wire).collect();
            must_write = true;
        }
        if let Some(state) = ready.hs() {
            let before = self.node.store().hard_state();
            must_write |= before.term != state.term || before.vote != state.vote;
            self.node.mut_store().set_hard_state(state.clone());
        }
        // A commit index alone is not worth a write: raft finds it again.
        if must_write {
            let eraftpb::HardState { term, vote, commit, .. } = *self.node.store().hard_state();
            write.hard_state = Some(HardState { term, vote, commit });
        }
        must_write
    }

    /// Hands the write out; one that holds nothing and waits for nothing is done at once.
    fn give_write(&mut self, write: NumberedWrite, must_write: bool, fx: &mut Effects) {
        if must_write || !self.unpersisted.is_empty() {
            self.unpersisted.push_back(write.number);
            return fx.writes.push(write);
        }
        fx.send.extend(write.send_after);
        self.node.on_persist_ready(write.number);
    }

    pub(super) fn on_persisted(&mut self, number: u64, fx: &mut Effects) {
        while self.unpersisted.front().is_some_and(|&first| first <= number) {
            self.unpersisted.pop_front();
        }
        self.node.on_persist_ready(number);
        let restored = self
            .incoming
            .take_if(|(_, of)| of.is_some_and(|of| of <= number))
            .map(|(snapshot, _)| snapshot);
        if let Some(snapshot) = restored {
            self.applied = snapshot.position;
            self.node.advance_apply_to(self.applied.index);
            fx.events.push(LogEvent::Restored {
                index: snapshot.position.index,
                state: Box::new(snapshot.state),
            });
        }
    }

    /// Gives a committed entry to the machine.
    fn hand_over(&mut self, entry: Entry, fx: &mut Effects) {
        assert_eq!(entry.index, self.applied.index + 1, "raft skips or repeats an entry");
        let changes_conf = entry.entry_type != EntryType::EntryNormal;
        let encoded = match changes_conf {
            true => entry.context.get(16..).unwrap_or_default(),
            false => &entry.data[..],
        };
        let command = match encoded.is_empty() {
            true => None,
            false => match record::Command::decode(encoded).ok().and_then(|command| command.kind) {
                Some(command) => Some(command),
                None => {
                    fx.failed = Some(Error::UnknownCommand { index: entry.index });
                    return;
                }
            },
        };
        if changes_conf {
            self.change_membership(entry.index, command.as_ref());
        }
        let proposal = number_of(self.origin, &entry.context).filter(|&id| id != 0).map(ProposalId);
        self.applied = LogPosition {
            index: entry.index,
            term: entry.term,
        };
        let removes_me = matches!(&command, Some(Command::ChangeMember(change)) if removes(change, self.me));
        fx.events.push(LogEvent::Committed {
            index: entry.index,
            proposal,
            command,
        });
        match removes_me {
            true => self.on_removed(fx),
            false => self.maybe_announce(fx),
        }
    }

    fn change_membership(&mut self, index: u64, command: Option<&Command>) {
        let change = match command {
            Some(Command::ChangeMember(change)) => conf_change(change),
            _ => ConfChangeV2::default(),
        };
        // Refused only if the leader proposed what it must not: then on all members alike.
        if let Ok(state) = self.node.apply_conf_change(&change) {
            self.memberships.insert(index, conf_state_to_wire(&state));
        }
    }

    /// Tells the machine that this member leads, once it has all that was committed before.
    fn maybe_announce(&mut self, fx: &mut Effects) {
        if self.is_leader() && !self.role.announced && self.applied.term == self.node.raft.term {
            self.role.announced = true;
            fx.events.push(LogEvent::Leads);
            // A majority took the first entry of the term, and so heard of this leader.
            self.renew_lease(self.led_from, fx);
        }
    }

    fn observe_role(&mut self, now: MonoTime, fx: &mut Effects) {
        let raft = &self.node.raft;
        let (term, leader, leads) = (raft.term, raft.leader_id, self.is_leader());
        let before = self.role;
        if (before.term, before.leader, before.leads) == (term, leader, leads) {
            return;
        }
        self.role = Role {
            term,
            leader,
            leads,
            announced: false,
        };
        self.asked.clear();
        self.lease_allowed = leads;
        if leads {
            (self.led_from, self.led_from_tick) = (now, self.ticks);
        }
        if before.announced || !leads {
            let known = Some(MemberId(leader)).filter(|leader| leader.0 != INVALID_ID && *leader != self.me);
            fx.events.push(LogEvent::Follows { leader: known });
        }
    }

    /// Puts raft's message on its way.
    fn send(&mut self, message: eraftpb::Message, to: &mut Vec<GroupMessage>) {
        let (from, receiver) = (message.from, message.to);
        let is_snapshot = message.msg_type == MessageType::MsgSnapshot;
        let state = match is_snapshot {
            true => message.get_snapshot().data.clone(),
            false => Default::default(),
        };
        let mut wire = message::to_wire(message);
        (wire.from, wire.to) = (address(from), address(receiver));
        to.push(GroupMessage { raft: Some(wire), state });
        if is_snapshot {
            // The crate waits for the end of every snapshot it gave out. This one is small: if it is lost, a heartbeat's answer tells.
            self.node.report_snapshot(receiver, raft::SnapshotStatus::Finish);
        }
    }
}

fn removes(change: &record::ChangeMember, member: MemberId) -> bool {
    let is_removal = matches!(change.kind(), Kind::Remove | Kind::RemoveLost);
    is_removal && change.member.as_ref().is_some_and(|gone| gone.id == member.0)
}
