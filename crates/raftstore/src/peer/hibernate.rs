//! Hibernation: a region that nobody uses costs neither ticks nor messages.
//!
//! A leader whose followers all hold its whole log, applied, and that had nothing to do for `raft.hibernate-after`, stops to tick and asks them
//! to hibernate. They do at once, and answer; when all have, it hibernates too, or else goes on. Whatever then happens to one of them
//! wakes it: a request, a message, the silence of a store with a peer of the region ([`crate::beats`]). A leader that wakes speaks, which wakes the
//! others; a follower that wakes and hears no leader stands for election, which wakes the leader.
//!
//! Why that is safe. A follower at rest counts no silence: it votes for nobody while it is, and takes no less time to campaign afterwards, but for
//! one whose leader's store fell silent: for an election timeout nothing came from there that would have woken it, and whatever lease it
//! supported before is over. A leader's lease ends by the clock, at rest as ever.

use std::collections::BTreeSet;

use base::{MonoTime, StoreId};
use proto::ferrite_raft::Hibernate;
use proto::metapb::{self, PeerRole};
use raft::StateRole;

use super::{Effects, Event, Peer};
use crate::size::Limits;
use crate::{RaftMessage, message, region};

#[derive(Default)]
enum State {
    #[default]
    Awake,
    /// A leader that asked its followers, and those who agreed.
    Asking {
        agreed: BTreeSet<u64>,
        ticks: u32,
    },
    Hibernating,
}

#[derive(Default)]
pub(super) struct Hibernation {
    state: State,
    /// Ticks for which a leader had nothing to do.
    quiet: u32,
    /// When it last changed between rest and work.
    since: MonoTime,
}

impl Peer {
    /// Whether it needs no ticks until it says otherwise ([`Effects::hibernates`]).
    pub fn is_hibernating(&self) -> bool {
        matches!(self.hibernation.state, State::Hibernating)
    }

    fn is_awake(&self) -> bool {
        matches!(self.hibernation.state, State::Awake)
    }

    /// Wakes up if the event is a reason to, and counts the quiet anew.
    pub(super) fn wake_for(&mut self, now: MonoTime, event: &Event, fx: &mut Effects) {
        if self.is_reason(event) {
            self.hibernation.quiet = 0;
            self.wake(now, fx);
        }
    }

    fn is_reason(&self, event: &Event) -> bool {
        match event {
            Event::Tick | Event::Doze | Event::Report | Event::StoreSilent(_) | Event::Durable { .. } => false,
            Event::Raft(message) if message.hibernate.is_some() => false,
            Event::Raft(message) => !(self.is_leader() && message::is_answer(message)),
            Event::Read { at: Some(index), .. } => *index > self.applied.index,
            Event::Read { ctx, .. } => self.is_leader() || ctx.replica_read,
            Event::Write { .. }
            | Event::ConfChange { .. }
            | Event::Split { .. }
            | Event::Merge { .. }
            | Event::TransferLeader { .. } => self.is_leader(),
            _ => true,
        }
    }

    pub(super) fn wake(&mut self, now: MonoTime, fx: &mut Effects) {
        if self.is_awake() {
            return;
        }
        if self.is_hibernating() {
            fx.hibernates = Some(false);
        }
        self.hibernation = Hibernation {
            since: now,
            ..Hibernation::default()
        };
        self.node.raft.election_elapsed = 0;
        if self.is_leader() {
            // Nobody was asked to speak meanwhile: their silence counts from now.
            self.heard.values_mut().for_each(|heard| *heard = now);
            for (_, progress) in self.node.raft.mut_prs().iter_mut() {
                progress.recent_active = true;
            }
        }
    }

    fn change_state(&mut self, now: MonoTime, state: State) {
        self.hibernation = Hibernation {
            state,
            quiet: 0,
            since: now,
        };
    }

    fn hibernate(&mut self, now: MonoTime, fx: &mut Effects) {
        if !self.is_hibernating() {
            fx.hibernates = Some(true);
            self.change_state(now, State::Hibernating);
        }
        // All have the whole log.
        self.node.mut_store().evict(self.applied.index, u64::MAX, 0);
    }

    /// Counts a tick; whether the rest of the peer sees it too.
    pub(super) fn tick_hibernation(&mut self, now: MonoTime, fx: &mut Effects) -> bool {
        match &mut self.hibernation.state {
            State::Hibernating => return false,
            State::Asking { ticks, .. } => {
                *ticks += 1;
                // Less than an election timeout, or followers that did not agree would lose patience.
                if *ticks <= self.config.election_ticks / 3 {
                    return false;
                }
                self.wake(now, fx);
            }
            State::Awake => {}
        }
        let after = self.hibernates_after();
        if after == 0 || !self.may_hibernate(now) {
            self.hibernation.quiet = 0;
            return true;
        }
        self.hibernation.quiet += 1;
        if self.hibernation.quiet <= after {
            return true;
        }
        self.ask_to_hibernate(now, fx);
        false
    }

    /// In ticks; zero: never.
    fn hibernates_after(&self) -> u32 {
        let ticks = self
            .config
            .hibernate_after
            .0
            .as_nanos()
            .div_ceil(self.config.tick.0.as_nanos());
        ticks.try_into().unwrap_or(u32::MAX)
    }

    fn ask_to_hibernate(&mut self, now: MonoTime, fx: &mut Effects) {
        let followers: Vec<_> = self.followers().copied().collect();
        if followers.is_empty() {
            return self.hibernate(now, fx);
        }
        let state = State::Asking {
            agreed: BTreeSet::new(),
            ticks: 0,
        };
        self.change_state(now, state);
        fx.send.extend(followers.into_iter().map(|to| self.about_rest(to, false)));
    }

    fn followers(&self) -> impl Iterator<Item = &metapb::Peer> {
        self.region.peers.iter().filter(|peer| peer.id != self.me.id)
    }

    fn about_rest(&self, to: metapb::Peer, agreed: bool) -> RaftMessage {
        RaftMessage {
            region_id: self.region.id,
            from: Some(self.me),
            to: Some(to),
            epoch: self.region.region_epoch,
            term: self.term(),
            index: self.last_index(),
            hibernate: Some(Hibernate { agreed }),
            ..RaftMessage::default()
        }
    }

    /// Whether this leader has nothing to do that needs ticks, and no follower lacks anything.
    fn may_hibernate(&self, now: MonoTime) -> bool {
        let last = self.last_index();
        // The crate's own note of who is active is wiped with each look at the quorum.
        let timeout = self.config.tick.0 * self.config.election_ticks;
        let holds_all = |peer: &metapb::Peer| {
            let progress = self.node.raft.prs().get(peer.id);
            progress.is_some_and(|progress| progress.matched == last) && self.silence(now, peer.id) < timeout
        };
        self.is_leader()
            && self.published
            && self.has_settled()
            && self.node.raft.lead_transferee.is_none()
            && !self.generating
            && !self.unheeded
            && self.reported_lacking.is_empty()
            && self.lacking(now).next().is_none()
            && self.size.is_settled(&Limits::of(&self.config))
            && !self.wants_compaction()
            && self
                .region
                .peers
                .iter()
                .all(|peer| matches!(peer.role(), PeerRole::Voter | PeerRole::Learner))
            && self.followers().all(holds_all)
    }

    /// Whether it has its whole log durable and applied, and nobody waits for it.
    pub(super) fn has_settled(&self) -> bool {
        let last = self.last_index();
        self.applied.index == last
            && self.committed_index() == last
            && self.unpersisted.is_empty()
            && self.proposals.is_empty()
            && self.reads.is_empty()
            && self.standing.is_none()
            && self.incoming.is_none()
            && !self.lacks_source
    }

    /// What leader and followers tell each other about rest.
    pub(super) fn on_hibernate(&mut self, now: MonoTime, message: &RaftMessage, agreed: bool, fx: &mut Effects) {
        let Some(from) = message.from else { return };
        if (message.term, message.index) != (self.term(), self.last_index()) {
            return;
        }
        if !agreed {
            let follows = self.node.raft.state == StateRole::Follower && self.node.raft.leader_id == from.id;
            if follows && self.is_initialized() && self.has_settled() {
                self.hibernate(now, fx);
                fx.send.push(self.about_rest(from, true));
            }
            return;
        }
        let State::Asking { agreed, .. } = &mut self.hibernation.state else {
            return;
        };
        agreed.insert(from.id);
        let agreed = agreed.clone();
        if self.followers().all(|peer| agreed.contains(&peer.id)) {
            self.hibernate(now, fx);
        }
    }

    /// A store was not heard for an election timeout.
    pub(super) fn on_store_silent(&mut self, now: MonoTime, store: StoreId, fx: &mut Effects) {
        if self.is_awake() || region::peer_on(&self.region, store).is_none() {
            return;
        }
        let timeout = self.config.election_ticks;
        let has_waited = self.is_hibernating() && now.since(self.hibernation.since) >= self.config.tick.0 * timeout;
        let is_leaders = self.leader().is_some_and(|leader| leader.store_id == store.0);
        self.wake(now, fx);
        if has_waited && is_leaders && !self.is_leader() {
            // As if it had ticked all the time: nothing came from there.
            self.node.raft.election_elapsed = timeout as usize;
            self.election.heard_leader(self.ticks.saturating_sub(u64::from(timeout)));
        }
    }

    /// Now and then at rest: the placement driver hears of the region, and a follower whether it is one still.
    pub(super) fn on_doze(&mut self, now: MonoTime, fx: &mut Effects) {
        if !self.is_hibernating() {
            return;
        }
        if self.is_leader() {
            return self.report(now, fx);
        }
        let leader = self.leader();
        fx.send.extend(leader.map(|leader| self.membership_question(leader)));
    }
}
