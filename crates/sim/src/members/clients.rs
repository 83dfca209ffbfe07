//! Clients of the members: each asks for timestamps or ids, mostly the member that it takes for the leader, now and then any.

use std::time::Duration;

use pd::Reply;

use super::*;
use crate::history::{Kind, Op, Record};

/// An answer that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Timestamp,
    Ids,
}

/// See the module.
pub(super) struct Client {
    pub id: u64,
    rng: Rng,
    /// Number of its requests under which the history knows it.
    process: u64,
    /// Of the last request.
    asked: u64,
    open: Option<Ask>,
    believes: u64,
    /// Requests that were answered.
    pub done: u64,
    /// It asks no more.
    pub rest: bool,
}

impl Client {
    pub fn new(id: u64, seed: u64) -> Client {
        Client {
            id,
            rng: Rng::stream(seed, &format!("pd-client{id}")),
            process: id,
            asked: 0,
            open: None,
            believes: 1,
            done: 0,
            rest: false,
        }
    }
}

impl World {
    fn client(&mut self, id: u64) -> &mut Client {
        &mut self.clients[id as usize - 1]
    }

    pub(super) fn begin(&mut self, id: u64) {
        let client = self.client(id);
        if client.rest {
            return;
        }
        let ask = if client.rng.chance(0.9) { Ask::Timestamp } else { Ask::Ids };
        (client.open, client.asked) = (Some(ask), client.asked + 1);
        // Whoever has just restarted, or is cut off from the others, is asked as well.
        let to = match client.rng.chance(0.2) {
            true => client.rng.between(1, MEMBERS),
            false => client.believes,
        };
        let asked = client.asked;
        self.record(id, Kind::Invoke, None);
        let message = Message::Ask {
            id: asked,
            request: request(ask),
        };
        self.send(Node::Client(id), Node::Store(to), message);
        self.after(PATIENCE, Event::Late { client: id, id: asked });
    }

    pub(super) fn on_answer(&mut self, id: u64, asked: u64, reply: Result<Reply, pd::Error>) {
        let client = self.client(id);
        if client.asked != asked || client.open.is_none() {
            return;
        }
        match reply {
            Ok(Reply::Timestamps { last, .. }) => {
                client.done += 1;
                self.record(id, Kind::Ok, Some(last.0));
                self.counts.add("pd_timestamp");
            }
            Ok(Reply::Ids { first, count }) => {
                client.done += 1;
                self.counts.add("pd_ids");
                for given in first..first + count {
                    if self.ids.insert(given, id).is_some() {
                        self.id_twice = Some(given);
                    }
                }
            }
            _ => {
                client.believes = client.believes % MEMBERS + 1;
                self.record(id, Kind::Fail, None);
                self.counts.add("pd_refused");
            }
        }
        self.next(id);
    }

    pub(super) fn on_late(&mut self, id: u64, asked: u64) {
        let client = self.client(id);
        if client.asked == asked && client.open.is_some() {
            client.believes = client.believes % MEMBERS + 1;
            self.record(id, Kind::Info, None);
            self.counts.add("pd_unanswered");
            self.next(id);
        }
    }

    fn next(&mut self, id: u64) {
        let client = self.client(id);
        client.open = None;
        let pause = client.rng.exponential(Duration::from_millis(20));
        self.after(pause, Event::Next { client: id });
    }

    /// Of timestamps alone: ids are judged as they come.
    fn record(&mut self, id: u64, kind: Kind, ts: Option<u64>) {
        let (time_ns, next) = (self.queue.now().0, self.next_process);
        let client = self.client(id);
        if client.open != Some(Ask::Timestamp) {
            return;
        }
        let process = client.process;
        if kind == Kind::Info {
            client.process = next;
            self.next_process += 1;
        }
        self.history.push(Record {
            time_ns,
            process,
            kind,
            node: String::new(),
            op: Op::Timestamp { ts },
            why: String::new(),
        });
    }
}
