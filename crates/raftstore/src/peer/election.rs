//! When a peer stands for election, and when it must not vote.
//!
//! A leader's lease counts on the silence of those who heard it: for an election timeout they neither campaign nor vote. That
//! timeout is drawn anew after each campaign, from the peer's seed. A campaign may fail though nobody leads, as when another voter
//! heard the dead leader a tick later, has a longer log, or campaigned at the same moment. Waiting a whole timeout again would
//! only make the outage longer, so such a peer tries again after a fraction of it.

use base::MonoTime;
use raft::{INVALID_ID, StateRole};
use rand::Rng;

use super::Peer;

pub(super) struct Election {
    /// Ticks without a leader after which the crate campaigns, between the election timeout and half as much again.
    wait: u32,
    /// Tick at which a leader last spoke, in this life of the peer.
    heard_leader: u64,
    /// Tick of the next campaign while nobody leads and all leases are over.
    again: Option<u64>,
    /// See [`Peer::must_withhold_vote`].
    votes_from: MonoTime,
}

impl Election {
    pub fn new(wait: u32, votes_from: MonoTime) -> Election {
        Election {
            wait,
            heard_leader: 0,
            again: None,
            votes_from,
        }
    }

    pub fn wait(&self) -> u32 {
        self.wait
    }

    pub fn votes_from(&self) -> MonoTime {
        self.votes_from
    }

    /// Ticks since a leader last spoke.
    pub fn silence(&self, tick: u64) -> u64 {
        tick - self.heard_leader
    }

    pub fn heard_leader(&mut self, tick: u64) {
        self.heard_leader = tick;
    }
}

impl Peer {
    /// Counts the tick that has just begun; may campaign.
    pub(super) fn tick_election(&mut self) {
        let was = (self.node.raft.state, self.node.raft.term);
        let transfers = self.node.raft.lead_transferee.is_some();
        // The crate draws the wait from a source of its own; ours comes from the seed.
        self.node.raft.set_randomized_election_timeout(self.election.wait as usize);
        if !self.is_installing() {
            self.node.tick();
        }
        // Given up after an election timeout. A voter that has a change of membership to apply passes a transfer over in silence.
        self.unheeded |= transfers && self.is_leader() && self.node.raft.lead_transferee.is_none();
        let campaigns = matches!(self.node.raft.state, StateRole::PreCandidate | StateRole::Candidate);
        if campaigns && was != (self.node.raft.state, self.node.raft.term) {
            let timeout = self.config.election_ticks;
            self.election.wait = self.rng.random_range(timeout..timeout + timeout / 2 + 1);
        }
        self.maybe_campaign_again();
    }

    fn maybe_campaign_again(&mut self) {
        let timeout = u64::from(self.config.election_ticks);
        let silence = self.election.silence(self.ticks);
        if self.is_leader() || self.node.raft.leader_id != INVALID_ID || silence < timeout {
            self.election.again = None;
            return;
        }
        let is_due = self.election.again.is_some_and(|tick| tick <= self.ticks);
        if is_due {
            self.on_campaign();
        }
        if is_due || self.election.again.is_none() {
            let pause = self.rng.random_range(timeout / 5..timeout * 7 / 10 + 1).max(1);
            self.election.again = Some(self.ticks + pause);
        }
    }

    pub(super) fn on_campaign(&mut self) {
        if self.node.raft.promotable() && !self.is_installing() {
            // Refused by the crate only while a change of membership waits to be applied: then the timeout comes anyway.
            drop(self.node.campaign());
        }
    }

    /// A voter that restarted has forgotten the leader it heard a moment ago, whose lease counts on its silence. So it grants no
    /// vote until a lease that it may have supported is over, unless a leader spoke to it since.
    pub(super) fn must_withhold_vote(&self, now: MonoTime) -> bool {
        self.node.raft.leader_id == INVALID_ID && now < self.election.votes_from
    }
}
