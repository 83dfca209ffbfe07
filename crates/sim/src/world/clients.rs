//! Clients of the world: when they begin operations, and what of it goes into the history.

use std::time::Duration;

use base::MonoTime;
use engine::kv::Error;

use super::{Event, Failure, World};
use crate::client::{Client, Ended, Out, Patience};
use crate::history::{Kind, Op, Record};
use crate::message::Message;
use crate::network::Node;
use crate::rng::Rng;
use crate::workload::LETTERS;

/// Share of operations before which a client forgets what it knew and believes what was true before the regions were split.
const AMNESIA: f64 = 0.02;

pub(super) struct ClientSlot {
    client: Client,
    rng: Rng,
    /// Number under which it is recorded; a new one after each unknown outcome.
    process: u64,
    think: Duration,
    goal: Goal,
    /// Letters of which an operation succeeded since the last [`World::expect_progress`].
    progress: u32,
    timestamp: Timestamp,
    /// How its last operation ended.
    last: Option<Record>,
}

/// What a client works on.
enum Goal {
    /// Operations as the generator makes them.
    Work,
    /// Nothing more.
    Rest,
    /// These reads, each until it succeeds.
    Read(Vec<Op>),
}

/// A client's requests for timestamps, which go on beside its operations.
struct Timestamp {
    process: u64,
    asked: Option<(u64, MonoTime)>,
    next_id: u64,
}

/// A timestamp is given up after this long.
const TIMESTAMP_PATIENCE: Duration = Duration::from_secs(1);

impl World {
    pub(super) fn add_clients(&mut self) {
        for id in 0..self.options.clients {
            let mut rng = Rng::stream(self.seed, &format!("client{id}"));
            // Impatient and patient ones: the latter still wait for a leader that was stopped for long.
            let attempt = Duration::from_millis(*rng.pick(&[300, 1000, 1000, 5000]));
            let stubborn = rng.chance(self.options.stubborn_clients);
            // A stubborn one asks the same leader anew rather than once for long: it is there when that leader wakes up.
            let operation = if stubborn { attempt } else { attempt + Duration::from_secs(5) };
            let patience = Patience {
                attempt,
                operation,
                stubborn,
            };
            let think = self.options.think.mul_f64(0.2 + 2.0 * rng.unit());
            let belief = [self.ancient.clone()];
            let client = Client::new(
                Rng::stream(self.seed, &format!("client{id} draws")),
                patience,
                self.options.replica_reads,
                &belief,
            );
            let process = self.new_process();
            let timestamp = Timestamp {
                process: self.new_process(),
                asked: None,
                next_id: 0,
            };
            self.clients.push(ClientSlot {
                client,
                rng,
                process,
                think,
                goal: Goal::Work,
                progress: 0,
                timestamp,
                last: None,
            });
            self.queue.push(self.queue.now(), Event::ClientNext { client: id });
        }
    }

    pub(super) fn new_process(&mut self) -> u64 {
        self.next_process += 1;
        self.next_process - 1
    }

    pub(super) fn begin_operation(&mut self, id: u64) {
        self.ask_timestamp(id);
        let ancient = self.ancient.clone();
        let slot = &mut self.clients[id as usize];
        if !slot.client.is_idle() {
            return;
        }
        let op = match &mut slot.goal {
            Goal::Rest => return,
            Goal::Work => {
                let letter = *slot.rng.pick(&LETTERS);
                self.generator.next(&mut slot.rng, id, letter)
            }
            Goal::Read(left) => match left.last() {
                None => return,
                Some(op) => op.clone(),
            },
        };
        if matches!(slot.goal, Goal::Work) && slot.rng.chance(AMNESIA) {
            slot.client.believe(&[ancient]);
            self.counts.add("request_from_the_past");
        }
        self.begin_op(id, op);
    }

    fn begin_op(&mut self, id: u64, op: Op) {
        let process = self.clients[id as usize].process;
        self.record(process, Kind::Invoke, op.clone(), String::new(), String::new());
        let (now, mut out) = (self.queue.now(), Out::default());
        self.clients[id as usize].client.begin(now, op, &mut out);
        self.carry_out_client(id, out);
    }

    pub(super) fn wake_client(&mut self, id: u64, number: u64) {
        let now = self.queue.now();
        let mut out = Out::default();
        self.clients[id as usize].client.on_wake(now, number, &mut out);
        self.carry_out_client(id, out);
    }

    pub(super) fn client_message(&mut self, id: u64, message: Message) {
        let now = self.queue.now();
        let client = &mut self.clients[id as usize].client;
        let mut out = Out::default();
        match message {
            Message::Response(response) => {
                if let Err(error) = &response.result {
                    self.counts.add(refusal(error));
                }
                client.on_response(now, response, &mut out);
            }
            Message::Located { region, leader } => client.on_located(now, region, leader, &mut out),
            Message::Timestamp { id: number, ts } => self.on_timestamp(id, number, ts.0),
            other => panic!("{} is not for a client", other.name()),
        }
        self.carry_out_client(id, out);
    }

    fn carry_out_client(&mut self, id: u64, out: Out) {
        for (to, message) in out.send {
            self.send(Node::Client(id), to, message);
        }
        for (after, number) in out.wake {
            self.queue
                .push(self.queue.now() + after, Event::ClientWake { client: id, number });
        }
        if let Some(ended) = out.ended {
            self.end_operation(id, ended);
        }
    }

    fn end_operation(&mut self, id: u64, ended: Ended) {
        let Ended { kind, op, node, why } = ended;
        let letter = LETTERS.iter().position(|&letter| op.key().starts_with(letter));
        let process = self.clients[id as usize].process;
        self.counts.add(match kind {
            Kind::Ok => "operation_ok",
            Kind::Fail => "operation_failed",
            _ => "operation_unknown",
        });
        self.record(process, kind, op, node.map_or(String::new(), |node| node.to_string()), why);
        self.clients[id as usize].last = self.history.records().last().cloned();
        if kind == Kind::Info {
            self.clients[id as usize].process = self.new_process();
        }
        let slot = &mut self.clients[id as usize];
        if kind == Kind::Ok {
            slot.progress |= letter.map_or(0, |letter| 1 << letter);
            if let Goal::Read(left) = &mut slot.goal {
                left.pop();
            }
        }
        let after = match slot.goal {
            Goal::Work => slot.rng.exponential(slot.think),
            Goal::Rest | Goal::Read(_) => Duration::ZERO,
        };
        self.queue.push(self.queue.now() + after, Event::ClientNext { client: id });
    }

    pub(super) fn record(&mut self, process: u64, kind: Kind, op: Op, node: String, why: String) {
        let time_ns = self.queue.now().0;
        self.history.push(Record {
            process,
            kind,
            time_ns,
            node,
            op,
            why,
        });
    }

    fn ask_timestamp(&mut self, id: u64) {
        let now = self.queue.now();
        let timestamp = &mut self.clients[id as usize].timestamp;
        let process = timestamp.process;
        if let Some((_, asked)) = timestamp.asked {
            if now.since(asked) < TIMESTAMP_PATIENCE {
                return;
            }
            self.record(
                process,
                Kind::Info,
                Op::Timestamp { ts: None },
                String::new(),
                "no answer in time".into(),
            );
            self.clients[id as usize].timestamp.process = self.new_process();
        }
        let timestamp = &mut self.clients[id as usize].timestamp;
        timestamp.next_id += 1;
        timestamp.asked = Some((timestamp.next_id, now));
        let (process, number) = (timestamp.process, timestamp.next_id);
        self.record(
            process,
            Kind::Invoke,
            Op::Timestamp { ts: None },
            String::new(),
            String::new(),
        );
        self.send(Node::Client(id), Node::Pd, Message::AskTimestamp { id: number });
    }

    fn on_timestamp(&mut self, id: u64, number: u64, ts: u64) {
        let timestamp = &mut self.clients[id as usize].timestamp;
        if timestamp.asked.take_if(|(asked, _)| *asked == number).is_some() {
            let process = timestamp.process;
            self.counts.add("timestamp_given");
            self.record(
                process,
                Kind::Ok,
                Op::Timestamp { ts: Some(ts) },
                Node::Pd.to_string(),
                String::new(),
            );
        }
    }

    /// Forgets the progress that clients made so far.
    pub fn expect_progress(&mut self) {
        self.forget_txn_progress();
        self.clients.iter_mut().for_each(|slot| slot.progress = 0);
    }

    /// What has made no progress since then: clients with letters of keys they did not reach.
    pub fn without_progress(&self) -> Vec<String> {
        let missing = |slot: &ClientSlot| {
            LETTERS
                .iter()
                .enumerate()
                .filter(|(at, _)| slot.progress & (1 << at) == 0)
                .map(|(_, letter)| *letter)
                .collect::<String>()
        };
        if self.is_transactional() {
            return self.without_txn_progress();
        }
        let named = self.clients.iter().enumerate().map(|(id, slot)| (id, missing(slot)));
        named
            .filter(|(_, letters)| !letters.is_empty())
            .map(|(id, letters)| format!("client{id} on keys {letters}"))
            .collect()
    }

    /// Lets a resting client do one operation and returns how it ended. Time passes meanwhile.
    pub fn perform(&mut self, id: u64, op: Op) -> Result<Record, Failure> {
        let bound = Duration::from_secs(60);
        let idle = move |world: &World| world.clients[id as usize].client.is_idle();
        let rested = self.run_until(bound, idle)?;
        assert!(rested, "client {id} does not come to rest");
        self.generator.know(op.key());
        self.begin_op(id, op);
        let ended = self.run_until(bound, idle)?;
        assert!(ended, "an operation outlasted its patience");
        Ok(self.clients[id as usize]
            .last
            .clone()
            .expect("an operation that ended left a record"))
    }

    /// Resting clients go on with their work.
    pub fn work_clients(&mut self) {
        self.set_txn_goals(true);
        for id in 0..self.clients.len() {
            if matches!(self.clients[id].goal, Goal::Rest) {
                self.clients[id].goal = Goal::Work;
                self.queue.push(self.queue.now(), Event::ClientNext { client: id as u64 });
            }
        }
    }

    /// Clients begin nothing new.
    pub fn rest_clients(&mut self) {
        self.set_txn_goals(false);
        self.clients.iter_mut().for_each(|slot| slot.goal = Goal::Rest);
    }

    /// Clients read all keys ever used, each key one of them.
    pub fn read_all(&mut self) {
        if self.is_transactional() {
            return self.read_all_in_transactions();
        }
        let mut shares = vec![Vec::new(); self.clients.len()];
        for (at, op) in self.generator.final_reads().into_iter().enumerate() {
            let client = at % shares.len();
            shares[client].push(op);
        }
        for (id, share) in shares.into_iter().enumerate() {
            self.clients[id].goal = Goal::Read(share);
            self.queue.push(self.queue.now(), Event::ClientNext { client: id as u64 });
        }
    }

    /// Whether no client has anything under way or before it.
    pub fn clients_are_done(&self) -> bool {
        self.txn_clients_are_done()
            && self.clients.iter().all(|slot| {
                slot.client.is_idle()
                    && match &slot.goal {
                        Goal::Work => false,
                        Goal::Rest => true,
                        Goal::Read(left) => left.is_empty(),
                    }
            })
    }
}

/// What a refusal is counted as.
pub(super) fn refusal(error: &Error) -> &'static str {
    match error {
        Error::NotLeader { .. } => "refused_not_leader",
        Error::RegionNotFound { .. } | Error::StoreNotMatch { .. } | Error::MismatchPeer { .. } => "refused_not_here",
        Error::EpochNotMatch { .. } | Error::KeyNotInRegion { .. } => "refused_epoch",
        Error::StaleCommand => "refused_stale_command",
        _ => "refused_otherwise",
    }
}
