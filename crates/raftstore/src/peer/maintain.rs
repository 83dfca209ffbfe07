//! What a peer does by the clock: compaction, reports, and what other modules do at a tick.

use std::time::Duration;

use base::{MonoTime, PeerId};
use proto::metapb;
use raft::ProgressState;

use crate::{RaftMessage, region};

use super::{Effects, Peer, RaftWrite, Report};

/// Ticks between looks at the log's length.
const COMPACT_TICKS: u64 = 10;
/// A peer that no leader speaks to for this many election timeouts asks whether it is a member, and again after as many.
const ASK_ELECTIONS: u64 = 4;
/// A peer not heard of for this many election timeouts is reported as down.
const DOWN_ELECTIONS: u32 = 20;

/// A peer that is behind or silent, as a leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lacking {
    peer: u64,
    /// Needs a snapshot, or has nothing yet.
    is_pending: bool,
    is_down: bool,
}

impl Peer {
    pub(super) fn on_tick(&mut self, now: MonoTime, fx: &mut Effects) {
        if !self.tick_hibernation(now, fx) {
            return;
        }
        self.ticks += 1;
        self.lease.end().on_tick(now);
        self.tick_election();
        self.tick_reads(fx);
        self.tick_size(fx);
        self.tick_merge(now, fx);
        self.tick_membership(fx);
        if self.ticks.is_multiple_of(COMPACT_TICKS) {
            self.maybe_compact(fx);
        }
        if self.is_leader() && now.since(self.reported) >= self.report_interval(now) {
            self.report(now, fx);
        }
    }

    /// A learner that was removed while it was away never campaigns, so that nobody would tell it. Nor does a peer that was removed before
    /// it had its data.
    fn tick_membership(&self, fx: &mut Effects) {
        let pause = ASK_ELECTIONS * u64::from(self.config.election_ticks);
        if self.is_leader() || self.election.silence(self.ticks) < pause || !self.ticks.is_multiple_of(pause) {
            return;
        }
        let members = self.region.peers.iter().filter(|peer| peer.id != self.me.id);
        let strangers = self.known.values().filter(|_| !self.is_initialized());
        fx.send
            .extend(members.chain(strangers).map(|peer| self.membership_question(*peer)));
    }

    pub(super) fn membership_question(&self, to: metapb::Peer) -> RaftMessage {
        RaftMessage {
            region_id: self.region.id,
            from: Some(self.me),
            to: Some(to),
            // Who knows an older one than this does not know whether this peer is a member.
            epoch: self.region.region_epoch.or(Some(self.told_epoch)),
            asks_membership: true,
            ..RaftMessage::default()
        }
    }

    /// How long the placement driver waits at most for news. A tick when peers catch up, fall behind or fall silent, and when
    /// what it asked for was not done: it answers each report with what it wants next.
    fn report_interval(&self, now: MonoTime) -> Duration {
        let is_news = self.unheeded || !self.lacking(now).eq(self.reported_lacking.iter().copied());
        if is_news {
            self.config.tick.0
        } else {
            self.config.region_heartbeat.0
        }
    }

    /// The peers that cannot stand in for the leader now.
    pub(super) fn lacking(&self, now: MonoTime) -> impl Iterator<Item = Lacking> {
        let truncated = self.node.store().truncated().index;
        let down_after = self.config.tick.0 * self.config.election_ticks * DOWN_ELECTIONS;
        let others = self.region.peers.iter().filter(|peer| peer.id != self.me.id);
        let lacking = others.map(move |peer| {
            let progress = self.node.raft.prs().get(peer.id);
            Lacking {
                peer: peer.id,
                is_pending: progress
                    .is_none_or(|p| p.matched < truncated || p.matched == 0 || p.state == ProgressState::Snapshot),
                is_down: self.silence(now, peer.id) >= down_after,
            }
        });
        lacking.filter(|peer| peer.is_pending || peer.is_down)
    }

    pub(super) fn silence(&self, now: MonoTime, peer: u64) -> Duration {
        if self.is_hibernating() {
            return Duration::ZERO; // agreed
        }
        now.since(self.heard.get(&peer).copied().unwrap_or(now))
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

    /// Applied entries in the log.
    fn log_entries(&self) -> u64 {
        self.applied.index.saturating_sub(self.node.store().truncated().index)
    }

    pub(super) fn wants_compaction(&self) -> bool {
        self.log_entries() >= self.config.log_entries_max || self.log_bytes >= self.config.log_bytes_max.0
    }

    fn maybe_compact(&mut self, fx: &mut Effects) {
        if !self.wants_compaction() {
            return;
        }
        let (first, entries) = (self.node.store().truncated().index, self.log_entries());
        let (entries_max, bytes_max) = (self.config.log_entries_max, self.config.log_bytes_max.0);
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
        let since = now.since(self.reported);
        self.reported = now;
        self.unheeded = false;
        self.reported_lacking = self.lacking(now).collect();
        let (mut pending, mut down) = (Vec::new(), Vec::new());
        for lacking in &self.reported_lacking {
            let Some(peer) = region::peer_of(&self.region, PeerId(lacking.peer)) else {
                continue;
            };
            if lacking.is_pending {
                pending.push(*peer);
            }
            if lacking.is_down {
                down.push((*peer, self.silence(now, peer.id).as_secs()));
            }
        }
        let (region, leader) = ((*self.region).clone(), self.me);
        let (bytes, keys) = self.size.about();
        let (put_bytes, put_keys) = self.size.take_flow();
        fx.report = Some(Report {
            region,
            leader,
            term: self.term(),
            pending,
            down,
            bytes,
            keys,
            put_bytes,
            put_keys,
            since,
        });
    }
}
