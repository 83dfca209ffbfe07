//! Reads: under the lease at once, else after a read index confirmed by a quorum (Ongaro's thesis, section 6.4).

use std::collections::VecDeque;

use base::MonoTime;
use engine::kv::{Context, Error, Reply, SnapshotRef};

use super::{Effects, Peer, ServeRead};
use crate::planted::{self, Bug};

/// A read and the version of the range that it believes in: a split may come before it is served.
struct Waiting {
    version: u64,
    reply: Reply<SnapshotRef>,
}

/// Reads that share one read index.
struct Round {
    id: u64,
    /// Of the peer when the round began. What is served is told to be of this term, even if it is served later: whoever writes by what
    /// it read, as transactions do, must be refused once another may have led since.
    term: u64,
    asked: MonoTime,
    /// Ticks since it was last asked for.
    ticks: u32,
    replies: Vec<Waiting>,
    /// What must be applied before they are served, once a quorum said so.
    index: Option<u64>,
}

#[derive(Default)]
pub(super) struct Reads {
    next_id: u64,
    /// Tells this peer's life from all others in the contexts of its rounds: the leader, and answers that come late, know a round
    /// by nothing else.
    life: (u64, u64),
    /// Of this step; they will share a read index.
    new: Vec<Waiting>,
    /// For a leader that has not yet applied an entry of its term.
    before_term: Vec<Waiting>,
    rounds: VecDeque<Round>,
}

impl Reads {
    /// `draw` must differ at each start of the peer.
    pub fn new(peer: u64, draw: u64) -> Reads {
        Reads {
            life: (peer, draw),
            ..Reads::default()
        }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.new.is_empty() && self.before_term.is_empty() && self.rounds.is_empty()
    }

    fn begin(&mut self, term: u64, asked: MonoTime, replies: Vec<Waiting>) -> &mut Round {
        let id = self.next_id;
        self.next_id += 1;
        self.rounds.push_back(Round {
            id,
            term,
            asked,
            ticks: 0,
            replies,
            index: None,
        });
        self.rounds.back_mut().expect("just pushed")
    }

    /// What a round is called on the wire: unique over peers and their lives.
    fn context(&self, id: u64) -> Vec<u8> {
        [self.life.0, self.life.1, id].map(u64::to_be_bytes).concat()
    }

    /// The round of this context, if it is one of this life.
    fn round_id(&self, context: &[u8]) -> Option<u64> {
        let id = u64::from_be_bytes(*context.last_chunk()?);
        (self.context(id) == context).then_some(id)
    }
}

/// Election timeouts after which a read is given up: whose index no quorum confirmed, and whose index is not applied. Whoever asked has
/// lost patience by then.
const ASKED_ELECTIONS: u32 = 2;
const CONFIRMED_ELECTIONS: u32 = 60;

impl Peer {
    pub(super) fn on_read(&mut self, now: MonoTime, ctx: Context, at: Option<u64>, reply: Reply<SnapshotRef>, fx: &mut Effects) {
        if let Err(error) = self.check_read(&ctx) {
            return fx.read_errors.push((reply, error));
        }
        let reply = Waiting {
            version: crate::region::epoch(&self.region).version,
            reply,
        };
        if at.is_some() {
            self.reads.begin(self.node.raft.term, now, vec![reply]).index = at;
            return;
        }
        if !self.is_leader() {
            return self.reads.new.push(reply);
        }
        if !self.applied_in_term() {
            return self.reads.before_term.push(reply);
        }
        if self.lease.end().holds(now) {
            return self.serve_committed(now, reply, fx);
        }
        self.reads.new.push(reply);
    }

    fn check_read(&self, ctx: &Context) -> Result<(), Error> {
        if self.is_leader() {
            return self.check_leader(ctx);
        }
        if !ctx.replica_read {
            return Err(self.not_leader());
        }
        if !self.is_initialized() {
            return Err(Error::NotInitialized {
                region: self.region_id(),
            });
        }
        self.check_standing()?;
        if self.node.raft.leader_id == 0 {
            return Err(Error::ReadIndexNotReady {
                region: self.region_id(),
            });
        }
        crate::region::check_context(&self.region, self.peer_id(), ctx).map_err(|error| self.with_siblings(error))
    }

    /// Serves under the lease, once all is applied that is committed by now.
    fn serve_committed(&mut self, now: MonoTime, reply: Waiting, fx: &mut Effects) {
        if !self.is_behind() {
            return self.serve(reply, fx);
        }
        let round = self.reads.begin(self.node.raft.term, now, vec![reply]);
        round.index = Some(self.node.raft.raft_log.committed);
    }

    fn serve(&self, waiting: Waiting, fx: &mut Effects) {
        self.serve_of_term(self.term(), waiting, fx);
    }

    fn serve_of_term(&self, term: u64, waiting: Waiting, fx: &mut Effects) {
        let Waiting { version, reply } = waiting;
        if version != crate::region::epoch(&self.region).version {
            let current = std::iter::once(&*self.region).chain(&*self.siblings).cloned().collect();
            return fx.read_errors.push((reply, Error::EpochNotMatch { current }));
        }
        fx.serve.push(ServeRead {
            region: self.region.clone(),
            term,
            reply,
        });
    }

    /// Asks for a read index for the reads of this step.
    pub(super) fn flush_reads(&mut self, now: MonoTime, fx: &mut Effects) {
        if self.is_leader() && self.applied_in_term() && !self.reads.before_term.is_empty() {
            let waited = std::mem::take(&mut self.reads.before_term);
            self.reads.new.extend(waited);
        }
        if self.reads.new.is_empty() {
            return;
        }
        let replies = std::mem::take(&mut self.reads.new);
        if planted::on(Bug::ReadIndexWithoutQuorum) && self.is_leader() {
            replies.into_iter().for_each(|reply| self.serve(reply, fx));
            return;
        }
        let id = self.reads.begin(self.node.raft.term, now, replies).id;
        self.node.read_index(self.reads.context(id));
    }

    /// A quorum confirmed that nothing beyond `index` was acknowledged when the round was asked.
    pub(super) fn on_read_index(&mut self, context: &[u8], index: u64) {
        let Some(id) = self.reads.round_id(context) else { return };
        for round in self.reads.rounds.iter_mut().filter(|round| round.id == id) {
            round.index = Some(index);
            self.lease.renew(round.asked);
        }
    }

    /// Serves the rounds whose index is applied.
    pub(super) fn serve_ready_reads(&mut self, fx: &mut Effects) {
        let applied = self.applied.index;
        let mut served = Vec::new();
        self.reads.rounds.retain_mut(|round| {
            let ready = round.index.is_some_and(|index| index <= applied);
            if ready {
                let term = round.term;
                served.extend(round.replies.drain(..).map(|waiting| (term, waiting)));
            }
            !ready
        });
        for (term, waiting) in served {
            self.serve_of_term(term, waiting, fx);
        }
    }

    /// Leadership or term changed: what the crate knew of read rounds is gone.
    pub(super) fn fail_reads(&mut self, fx: &mut Effects) {
        let error = self.not_leader();
        let (confirmed, lost): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.reads.rounds)
            .into_iter()
            .partition(|round| round.index.is_some());
        // A confirmed index stays true whoever leads: those reads only wait for it to be applied.
        self.reads.rounds = confirmed;
        let waiting = lost
            .into_iter()
            .flat_map(|round| round.replies)
            .chain(self.reads.before_term.drain(..));
        fx.read_errors.extend(waiting.map(|waiting| (waiting.reply, error.clone())));
    }

    /// Asks again for what a lost message may have swallowed, and gives up in the end.
    pub(super) fn tick_reads(&mut self, fx: &mut Effects) {
        let election = self.config.election_ticks;
        let error = Error::ReadIndexNotReady {
            region: self.region_id(),
        };
        let follower = !self.is_leader();
        let mut again = Vec::new();
        self.reads.rounds.retain_mut(|round| {
            round.ticks += 1;
            let patience = if round.index.is_some() {
                CONFIRMED_ELECTIONS
            } else {
                ASKED_ELECTIONS
            };
            if round.ticks < patience * election {
                // A leader repeats its question with its heartbeats by itself.
                if follower && round.index.is_none() && round.ticks % 3 == 0 {
                    again.push(round.id);
                }
                return true;
            }
            fx.read_errors
                .extend(round.replies.drain(..).map(|waiting| (waiting.reply, error.clone())));
            false
        });
        for id in again {
            self.node.read_index(self.reads.context(id));
        }
    }

    pub(super) fn refuse_all_reads(&mut self, error: &Error, fx: &mut Effects) {
        let rounds = std::mem::take(&mut self.reads.rounds)
            .into_iter()
            .flat_map(|round| round.replies);
        let waiting = rounds.chain(self.reads.before_term.drain(..)).chain(self.reads.new.drain(..));
        fx.read_errors.extend(waiting.map(|waiting| (waiting.reply, error.clone())));
    }
}
