//! A client: finds a region's leader, asks it, understands its refusals, and knows what it does not know.
//!
//! A plain value that takes the time, its draws and what reached it, and gives back what it sends, when it wants to be woken and
//! how its operation ended. One operation at a time.

use std::time::Duration;

use base::MonoTime;
use bytes::Bytes;
use engine::kv::Error;
use proto::metapb::{Peer, Region};

use crate::history::{Kind, Op};
use crate::message::{Act, Message, Request, Response};
use crate::network::Node;
use crate::rng::Rng;
use crate::routes::Routes;

/// Between elements of a list, in its value.
pub const LIST_SEPARATOR: u8 = b',';

/// What a client wants done.
#[derive(Default)]
pub struct Out {
    pub send: Vec<(Node, Message)>,
    /// Wake me after this long, with this number.
    pub wake: Vec<(Duration, u64)>,
    pub ended: Option<Ended>,
}

/// How an operation ended: a record of the history to be.
pub struct Ended {
    pub kind: Kind,
    pub op: Op,
    pub node: Option<Node>,
    pub why: String,
}

/// How long a client waits before it gives up.
#[derive(Clone, Debug)]
pub struct Patience {
    /// For one answer.
    pub attempt: Duration,
    /// For the whole operation.
    pub operation: Duration,
    /// Whether it goes on asking a leader that did not answer.
    pub stubborn: bool,
}

pub struct Client {
    rng: Rng,
    pub patience: Patience,
    routes: Routes,
    running: Option<Running>,
    next_number: u64,
    /// Share of reads that ask any peer rather than the leader.
    replica_reads: f64,
}

struct Running {
    op: Op,
    began: MonoTime,
    replica_read: bool,
    /// Number of the attempt or wait under way; answers and wake-ups of other numbers come too late.
    number: u64,
    asked: Option<Node>,
    failures: u32,
}

impl Client {
    pub fn new(rng: Rng, patience: Patience, replica_reads: f64, belief: &[Region]) -> Client {
        Client {
            rng,
            patience,
            routes: Routes::new(belief),
            running: None,
            next_number: 0,
            replica_reads,
        }
    }

    /// Forgets every route and believes in these regions, as a client does that slept since they were true.
    pub fn believe(&mut self, regions: &[Region]) {
        self.routes = Routes::new(regions);
    }

    pub fn is_idle(&self) -> bool {
        self.running.is_none()
    }

    /// The operation under way.
    pub fn running(&self) -> Option<&Op> {
        self.running.as_ref().map(|running| &running.op)
    }

    /// Begins an operation; the client must be idle.
    pub fn begin(&mut self, now: MonoTime, op: Op, out: &mut Out) {
        assert!(self.running.is_none(), "one operation at a time");
        let replica_read = !op.is_write() && self.rng.chance(self.replica_reads);
        self.running = Some(Running {
            op,
            began: now,
            replica_read,
            number: 0,
            asked: None,
            failures: 0,
        });
        self.attempt(out);
    }

    /// The wait of this number is over.
    pub fn on_wake(&mut self, now: MonoTime, number: u64, out: &mut Out) {
        let Some(running) = self.running.as_mut().filter(|running| running.number == number) else {
            return;
        };
        let Some(asked) = running.asked else {
            return self.attempt(out);
        };
        let is_write = running.op.is_write();
        if let Node::Store(store) = asked {
            if !self.patience.stubborn {
                self.routes.forget_leader(store);
            }
            if is_write {
                return self.end(Kind::Info, "no answer in time".into(), out);
            }
        }
        self.retry(now, "no answer in time", out);
    }

    pub fn on_located(&mut self, now: MonoTime, region: Region, leader: Peer, out: &mut Out) {
        self.routes.learn(region, Some(leader));
        if self.running.as_ref().is_some_and(|running| running.asked == Some(Node::Pd)) {
            self.retry(now, "asked the placement driver", out);
        }
    }

    pub fn on_response(&mut self, now: MonoTime, response: Response, out: &mut Out) {
        let Some(running) = self.running.as_mut().filter(|running| running.number == response.id) else {
            return;
        };
        match response.result {
            Ok(value) => {
                match &mut running.op {
                    Op::Get { value: read, .. } => *read = value.map(|value| text(&value)),
                    Op::List { elements, .. } => *elements = value.map_or(Vec::new(), |value| parse_list(&value)),
                    Op::Put { .. } | Op::Delete { .. } | Op::Append { .. } | Op::Timestamp { .. } | Op::Txn(_) => {}
                }
                self.end(Kind::Ok, String::new(), out);
            }
            Err(error) => self.on_error(now, error, out),
        }
    }

    fn on_error(&mut self, now: MonoTime, error: Error, out: &mut Out) {
        let running = self.running.as_ref().expect("an error answers a running operation");
        let asked = running.asked;
        if running.op.is_write() && is_outcome_unknown(&error) {
            return self.end(Kind::Info, error.to_string(), out);
        }
        let why = error.to_string();
        self.routes.on_refusal(error, asked);
        self.retry(now, &why, out);
    }

    /// Tries again a little later, or gives up. What led here certainly did not happen.
    fn retry(&mut self, now: MonoTime, why: &str, out: &mut Out) {
        let running = self.running.as_mut().expect("only a running operation is tried again");
        if now.since(running.began) >= self.patience.operation {
            // A read that was never answered did not fail: it has no outcome at all, which for a read comes to the same.
            return self.end(Kind::Fail, why.into(), out);
        }
        running.failures += 1;
        running.asked = None;
        running.number = self.next_number;
        let wait = Duration::from_millis(10 << running.failures.min(4)).mul_f64(0.5 + self.rng.unit());
        out.wake.push((wait, self.next_number));
        self.next_number += 1;
    }

    fn attempt(&mut self, out: &mut Out) {
        let running = self.running.as_mut().expect("attempts belong to a running operation");
        running.number = self.next_number;
        self.next_number += 1;
        let key = Bytes::copy_from_slice(running.op.key().as_bytes());
        let route = self.routes.find(&key);
        let ask_pd = running.failures % 4 == 3;
        let (node, message) = match route.filter(|_| !ask_pd) {
            None => (Node::Pd, Message::Locate { key }),
            Some(route) => {
                let believed = route.leader.as_ref().filter(|_| !running.replica_read);
                let peer = *believed.unwrap_or_else(|| self.rng.pick(&route.region.peers));
                let request = Request {
                    id: running.number,
                    ctx: route.context(&peer, running.replica_read),
                    act: act(&running.op),
                };
                (Node::Store(peer.store_id), Message::Request(request))
            }
        };
        running.asked = Some(node);
        out.send.push((node, message));
        out.wake.push((self.patience.attempt, running.number));
    }

    fn end(&mut self, kind: Kind, why: String, out: &mut Out) {
        let running = self.running.take().expect("only a running operation ends");
        out.ended = Some(Ended {
            kind,
            op: running.op,
            node: running.asked,
            why,
        });
    }
}

fn act(op: &Op) -> Act {
    let key = || Bytes::copy_from_slice(op.key().as_bytes());
    match op {
        Op::Get { .. } | Op::List { .. } => Act::Get { key: key() },
        Op::Put { value, .. } => Act::Put {
            key: key(),
            value: Bytes::copy_from_slice(value.as_bytes()),
        },
        Op::Delete { .. } => Act::Delete { key: key() },
        Op::Timestamp { .. } => unreachable!("timestamps come from the placement driver"),
        Op::Txn(_) => unreachable!("transactions have clients of their own"),
        Op::Append { element, .. } => Act::Append {
            key: key(),
            element: Bytes::copy_from_slice(element.as_bytes()),
        },
    }
}

/// Whether the request may yet take effect, or has taken it.
fn is_outcome_unknown(error: &Error) -> bool {
    match error {
        Error::StaleCommand | Error::Deadline | Error::Shutdown => true,
        Error::NotLeader { .. }
        | Error::RegionNotFound { .. }
        | Error::EpochNotMatch { .. }
        | Error::KeyNotInRegion { .. }
        | Error::StoreNotMatch { .. }
        | Error::MismatchPeer { .. }
        | Error::Busy { .. }
        | Error::EntryTooLarge { .. }
        | Error::NotInitialized { .. }
        | Error::ReadIndexNotReady { .. }
        | Error::DataIsNotReady { .. }
        | Error::Merging { .. }
        | Error::DiskFull { .. } => false,
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn parse_list(bytes: &[u8]) -> Vec<String> {
    bytes.split(|&byte| byte == LIST_SEPARATOR).map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{PeerId, RegionId};
    use proto::metapb::RegionEpoch;

    fn peer(id: u64) -> Peer {
        Peer {
            id,
            store_id: id,
            ..Default::default()
        }
    }

    fn region(id: u64, start: &str, end: &str, version: u64) -> Region {
        Region {
            id,
            start_key: start.to_owned().into(),
            end_key: end.to_owned().into(),
            region_epoch: Some(RegionEpoch { conf_ver: 1, version }),
            peers: vec![peer(1), peer(2), peer(3)],
            ..Default::default()
        }
    }

    fn client(belief: &[Region]) -> Client {
        let patience = Patience {
            attempt: Duration::from_secs(1),
            operation: Duration::from_secs(5),
            stubborn: false,
        };
        Client::new(Rng::stream(1, "client"), patience, 0.0, belief)
    }

    fn put() -> Op {
        Op::Put {
            key: "k".into(),
            value: "v".into(),
        }
    }

    /// Starts an operation and returns the request it sends.
    fn begin(client: &mut Client, op: Op) -> (Node, Request) {
        let mut out = Out::default();
        client.begin(MonoTime(0), op, &mut out);
        sent(out)
    }

    fn sent(out: Out) -> (Node, Request) {
        match out.send.into_iter().next() {
            Some((node, Message::Request(request))) => (node, request),
            other => panic!("wanted a request, got {other:?}"),
        }
    }

    fn answer(client: &mut Client, request: &Request, result: Result<Option<Bytes>, Error>) -> Out {
        let mut out = Out::default();
        client.on_response(MonoTime(1), Response { id: request.id, result }, &mut out);
        out
    }

    /// Wakes the client from the wait that it asked for.
    fn wake(client: &mut Client, out: &Out) -> Out {
        let mut next = Out::default();
        client.on_wake(MonoTime(2), out.wake[0].1, &mut next);
        next
    }

    #[test]
    fn follows_the_leader_it_is_told_of() {
        let mut client = client(&[region(1, "", "", 1)]);
        let (_, request) = begin(&mut client, put());
        let out = answer(
            &mut client,
            &request,
            Err(Error::NotLeader {
                region: RegionId(1),
                leader: Some(peer(3)),
            }),
        );
        let (node, request) = sent(wake(&mut client, &out));
        assert_eq!((node, request.ctx.peer), (Node::Store(3), PeerId(3)));
        let out = answer(&mut client, &request, Ok(None));
        assert_eq!(out.ended.map(|ended| ended.kind), Some(Kind::Ok));
        assert!(client.is_idle());
    }

    #[test]
    fn learns_new_ranges_and_keeps_newer_ones() {
        let mut client = client(&[region(1, "", "", 1)]);
        let (_, request) = begin(&mut client, put());
        let current = vec![region(1, "", "h", 2), region(2, "h", "", 2)];
        let out = answer(&mut client, &request, Err(Error::EpochNotMatch { current }));
        let (_, request) = sent(wake(&mut client, &out));
        assert_eq!((request.ctx.region, request.ctx.epoch.version), (RegionId(2), 2));
        let out = answer(
            &mut client,
            &request,
            Err(Error::EpochNotMatch {
                current: vec![region(1, "", "", 1)],
            }),
        );
        let (_, request) = sent(wake(&mut client, &out));
        assert_eq!(
            request.ctx.region,
            RegionId(2),
            "an older region does not replace a newer one"
        );
    }

    #[test]
    fn asks_the_placement_driver_when_it_knows_no_region() {
        let mut client = client(&[region(1, "", "h", 2)]);
        let mut out = Out::default();
        client.begin(MonoTime(0), put(), &mut out);
        assert!(matches!(out.send[..], [(Node::Pd, Message::Locate { .. })]));
        let mut out = Out::default();
        client.on_located(MonoTime(1), region(2, "h", "", 2), peer(2), &mut out);
        let (node, request) = sent(wake(&mut client, &out));
        assert_eq!((node, request.ctx.region), (Node::Store(2), RegionId(2)));
    }

    #[test]
    fn a_write_without_answer_is_unknown_a_refused_one_is_not() {
        let mut client = client(&[region(1, "", "", 1)]);
        let (_, request) = begin(&mut client, put());
        let mut out = Out::default();
        client.on_wake(MonoTime(1), request.id, &mut out);
        assert_eq!(out.ended.map(|ended| ended.kind), Some(Kind::Info));
        let (_, request) = begin(&mut client, put());
        let out = answer(&mut client, &request, Err(Error::StaleCommand));
        assert_eq!(out.ended.map(|ended| ended.kind), Some(Kind::Info));
        let (_, request) = begin(&mut client, put());
        let out = answer(&mut client, &request, Err(Error::Busy { reason: "test" }));
        assert!(out.ended.is_none(), "tried again");
        let late = answer(&mut client, &request, Ok(None));
        assert!(late.ended.is_none(), "an answer to an attempt given up is not taken");
    }

    #[test]
    fn a_read_tries_elsewhere_until_its_patience_ends() {
        let mut client = client(&[region(1, "", "", 1)]);
        let (_, request) = begin(
            &mut client,
            Op::Get {
                key: "k".into(),
                value: None,
            },
        );
        let mut out = Out::default();
        client.on_wake(MonoTime(1), request.id, &mut out);
        assert!(out.ended.is_none());
        let mut late = Out::default();
        client.on_wake(MonoTime(6_000_000_000), out.wake[0].1, &mut late);
        let (_, request) = sent(late);
        let mut out = Out::default();
        client.on_wake(MonoTime(7_000_000_000), request.id, &mut out);
        assert_eq!(out.ended.map(|ended| ended.kind), Some(Kind::Fail));
    }

    #[test]
    fn reads_lists() {
        let mut client = client(&[region(1, "", "", 1)]);
        for (value, elements) in [(Some("x,y"), vec!["x", "y"]), (None, vec![])] {
            let (_, request) = begin(
                &mut client,
                Op::List {
                    key: "k".into(),
                    elements: vec![],
                },
            );
            let out = answer(&mut client, &request, Ok(value.map(Bytes::from)));
            let elements = elements.into_iter().map(String::from).collect();
            assert_eq!(
                out.ended.map(|ended| ended.op),
                Some(Op::List {
                    key: "k".into(),
                    elements
                })
            );
        }
    }
}
