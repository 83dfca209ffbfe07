//! What a peer does by the clock: elections, compaction, reports.

use std::time::Duration;

use base::MonoTime;
use proto::metapb::PeerRole;
use raft::{ProgressState, StateRole};
use rand::Rng;

use super::{Effects, Peer, RaftWrite, Report};

/// Ticks between looks at the log's length.
const COMPACT_TICKS: u64 = 10;
/// A peer not heard of for this many election timeouts is reported as down.
const DOWN_ELECTIONS: u32 = 20;

impl Peer {
    pub(super) fn on_tick(&mut self, now: MonoTime, fx: &mut Effects) {
        self.ticks += 1;
        self.lease.end().on_tick(now);
        let was = (self.node.raft.state, self.node.raft.term);
        // The crate draws the wait from a source of its own; ours comes from the seed.
        self.node.raft.set_randomized_election_timeout(self.election_draw as usize);
        if !self.is_installing() {
            self.node.tick();
        }
        let campaigns = matches!(self.node.raft.state, StateRole::PreCandidate | StateRole::Candidate);
        if campaigns && was != (self.node.raft.state, self.node.raft.term) {
            let election = self.config.election_ticks;
            self.election_draw = self.rng.random_range(election..election + election / 2 + 1);
        }
        self.tick_reads(fx);
        if self.ticks.is_multiple_of(COMPACT_TICKS) {
            self.maybe_compact(fx);
        }
        if self.is_leader() && now.since(self.reported) >= self.report_interval() {
            self.report(now, fx);
        }
    }

    /// How long the placement driver waits at most for news. Short while there is a learner: it is promoted only once a report
    /// says that it has caught up, and no event of ours marks that moment. A tick after a change that came too early: each report
    /// asks for it again.
    fn report_interval(&self) -> Duration {
        let tick = self.config.tick.0;
        let has_learner = self.region.peers.iter().any(|peer| peer.role() == PeerRole::Learner);
        let due = match () {
            () if self.refused_change => tick,
            () if has_learner => tick * self.config.election_ticks,
            () => self.config.region_heartbeat.0,
        };
        due.min(self.config.region_heartbeat.0)
    }

    /// Index up to which every follower that lives has the log.
    fn matched_by_all(&self) -> u64 {
        let last = self.last_index();
        let progress = self.node.raft.prs().iter().filter(|(_, progress)| progress.recent_active);
        let matched = progress.map(|(_, progress)| match progress.state {
            ProgressState::Snapshot => progress.matched.max(progress.pending_snapshot),
            _ => progress.matched,
        });
        matched.min().unwrap_or(last)
    }

    fn maybe_compact(&mut self, fx: &mut Effects) {
        let first = self.node.store().truncated().index;
        let (entries_max, bytes_max) = (self.config.log_entries_max, self.config.log_bytes_max.0);
        let entries = self.applied.index.saturating_sub(first);
        if entries < entries_max && self.log_bytes < bytes_max {
            return;
        }
        // Only what the engine holds durably may leave the log: the log is what redoes the rest after a power cut.
        let durable = self.durable.min(self.applied.index);
        let forced = entries >= 4 * entries_max || self.log_bytes >= bytes_max;
        let to = if self.is_leader() && !forced {
            durable.min(self.matched_by_all())
        } else {
            durable
        };
        if to <= first {
            return;
        }
        let kept = self.last_index() - to;
        self.log_bytes = self.log_bytes / (self.last_index() - first).max(1) * kept;
        self.node.mut_store().compact(to);
        let state = Some(self.node.store().raft_state());
        let write = RaftWrite {
            region: self.region_id(),
            compact_to: Some(to),
            state,
            ..RaftWrite::default()
        };
        fx.writes.push(write);
    }

    /// Frees the memory of entries that nobody is expected to ask for.
    pub(super) fn evict(&mut self) {
        let applied = self.applied.index;
        let keep_from = if self.is_leader() {
            self.matched_by_all() + 1
        } else {
            u64::MAX
        };
        let bytes_max = self.config.entry_cache.0;
        self.node.mut_store().evict(applied, keep_from, bytes_max);
    }

    /// Tells the placement driver of the region.
    pub(super) fn report(&mut self, now: MonoTime, fx: &mut Effects) {
        self.reported = now;
        self.refused_change = false;
        let truncated = self.node.store().truncated().index;
        let down_after = self.config.tick.0 * self.config.election_ticks * DOWN_ELECTIONS;
        let (mut pending, mut down) = (Vec::new(), Vec::new());
        for peer in self.region.peers.iter().filter(|peer| peer.id != self.me.id) {
            let progress = self.node.raft.prs().get(peer.id);
            if progress.is_none_or(|p| p.matched < truncated || p.matched == 0 || p.state == ProgressState::Snapshot) {
                pending.push(*peer);
            }
            let silent = now.since(self.heard.get(&peer.id).copied().unwrap_or(now));
            if silent >= down_after {
                down.push((*peer, silent.as_secs()));
            }
        }
        let (region, leader) = ((*self.region).clone(), self.me);
        fx.report = Some(Report {
            region,
            leader,
            term: self.term(),
            pending,
            down,
        });
    }
}
