//! Reads of transactions away from the leader: the part that stands for `server::txn::replica`. A replica read asks the leader for an
//! index; a stale one whether its time is over, unless the store knows already.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::txn::Error;
use ::txn::mvcc::{Isolation, ReadOptions};
use ::txn::safe::SafeTime;
use base::{MonoTime, RegionId, Ts};
use engine::kv::{self, Context, SnapshotRef};
use raftstore::peer::Event;

use super::requests::{Answer, Asker};
use super::txn::{TxnAnswer, options, respond};
use super::{Out, Store};
use crate::message::{AskLeader, LeaderAnswer, Message, Question, TxnAct, Way};
use crate::network::Node;

/// Questions that wait for an answer; the oldest give way, whose clients have lost patience.
const WAITING_MAX: usize = 64;

/// A client's read that waits for the leader's word.
struct Waiting {
    asker: Asker,
    ctx: Context,
    act: TxnAct,
}

#[derive(Default)]
pub(super) struct Away {
    waiting: BTreeMap<u64, Waiting>,
    /// What leaders promised of regions.
    known: BTreeMap<RegionId, SafeTime>,
}

impl Store {
    /// A read that any copy may serve.
    pub(super) fn begin_read_away(
        &mut self,
        now: MonoTime,
        asker: Asker,
        ctx: Context,
        mut act: TxnAct,
        way: Way,
        out: &mut Out,
    ) {
        if way == Way::Stale {
            if let TxnAct::Get { options, .. } | TxnAct::Scan { options, .. } = &mut act {
                // Nothing commits at its timestamp any more: what is locked does not matter.
                options.isolation = Isolation::ReadCommitted;
            }
            let known = self.away.known.get(&ctx.region).copied();
            if let Some(time) = known.filter(|time| time.covers(ctx.epoch.version, options(&act).ts)) {
                self.counts.add("stale_read_of_a_known_time");
                return self.read_at(now, Waiting { asker, ctx, act }, time.index, out);
            }
        }
        let leader = self.peer(ctx.region).and_then(|peer| peer.leader());
        let Some(leader) = leader else {
            let source = kv::Error::ReadIndexNotReady { region: ctx.region };
            return respond(asker, Err(Arc::new(Error::Region { proposed: false, source })), out);
        };
        let id = self.txns.number();
        let question = match way {
            Way::Stale => Question::SafeTime,
            Way::Replica | Way::Leader => Question::ReadIndex(act.clone()),
        };
        let mut asked = ctx.clone();
        (asked.peer, asked.replica_read) = (base::PeerId(leader.id), false);
        self.away.waiting.insert(id, Waiting { asker, ctx, act });
        while self.away.waiting.len() > WAITING_MAX {
            self.away.waiting.pop_first();
        }
        let ask = AskLeader {
            id,
            ctx: asked,
            question,
        };
        out.send.push((Node::Store(leader.store_id), Message::AskLeader(ask)));
    }

    /// Another store, or this one, is about to read.
    pub(super) fn on_ask_leader(&mut self, now: MonoTime, from: Node, ask: AskLeader, out: &mut Out) {
        let AskLeader { id, ctx, question } = ask;
        let asker = (from, id);
        match question {
            Question::ReadIndex(act) => match self.txns.note_and_check(&act) {
                Err(_) => say(asker, None, out),
                Ok(()) => {
                    let reply = self
                        .requests
                        .reply(move |result| Answer::Txn(TxnAnswer::Index(asker, result)));
                    self.read(now, ctx, reply, out);
                }
            },
            Question::SafeTime => self.ask_for_safe_time(now, asker, ctx, out),
        }
    }

    /// The placement driver gave the time that the promise will be about.
    pub(super) fn on_time_for_promise(&mut self, now: MonoTime, asker: Asker, ctx: Context, ts: Ts, out: &mut Out) {
        let whole = TxnAct::Scan {
            start: bytes::Bytes::new(),
            end: bytes::Bytes::new(),
            options: ReadOptions::snapshot(ts),
        };
        if self.txns.note_and_check(&whole).is_err() {
            self.counts.add("promise_met_lock_in_memory");
            return say(asker, None, out);
        }
        let reply = self
            .requests
            .reply(move |result| Answer::Txn(TxnAnswer::Promise(asker, ts, result)));
        self.read(now, ctx, reply, out);
    }

    pub(super) fn on_index(&mut self, asker: Asker, result: Result<SnapshotRef, kv::Error>, out: &mut Out) {
        let index = result.ok().and_then(|view| view.applied().ok());
        say(asker, index.map(LeaderAnswer::Index), out);
    }

    pub(super) fn on_promise(&mut self, asker: Asker, ts: Ts, result: Result<SnapshotRef, kv::Error>, out: &mut Out) {
        let time = result.ok().and_then(|view| SafeTime::of(&*view, ts).ok());
        say(asker, time.map(LeaderAnswer::SafeTime), out);
    }

    pub(super) fn on_leader_says(&mut self, now: MonoTime, id: u64, answer: Option<LeaderAnswer>, out: &mut Out) {
        let Some(waiting) = self.away.waiting.remove(&id) else {
            return;
        };
        let region = waiting.ctx.region;
        let source = match answer {
            Some(LeaderAnswer::Index(index)) => {
                self.counts.add("replica_read");
                return self.read_at(now, waiting, index, out);
            }
            Some(LeaderAnswer::SafeTime(time)) => {
                self.away.known.insert(region, time);
                if time.covers(waiting.ctx.epoch.version, options(&waiting.act).ts) {
                    return self.read_at(now, waiting, time.index, out);
                }
                self.counts.add("stale_read_held_back");
                kv::Error::DataIsNotReady {
                    region,
                    peer: waiting.ctx.peer,
                    safe_ts: time.safe_ts,
                }
            }
            None => kv::Error::ReadIndexNotReady { region },
        };
        respond(waiting.asker, Err(Arc::new(Error::Region { proposed: false, source })), out);
    }

    fn read_at(&mut self, now: MonoTime, read: Waiting, index: u64, out: &mut Out) {
        let Waiting { asker, mut ctx, act } = read;
        ctx.replica_read = true;
        let reply = self
            .requests
            .reply(move |result| Answer::Txn(TxnAnswer::Read(asker, act, result)));
        if self.peer(ctx.region).is_none() {
            return reply(Err(kv::Error::RegionNotFound { region: ctx.region }));
        }
        let at = Some(index);
        self.post(now, ctx.region, Event::Read { ctx, at, reply }, out);
    }
}

fn say(asker: Asker, answer: Option<LeaderAnswer>, out: &mut Out) {
    let (node, id) = asker;
    out.send.push((node, Message::LeaderSays { id, answer }));
}
