//! Transactional clients of the world: when they begin transactions, how they die, and what of it goes into the history.

use std::collections::VecDeque;
use std::time::Duration;

use txn::command::Wait;

use super::{Event, Failure, World};
use crate::client::Patience;
use crate::history::{Kind, Op, Txn};
use crate::message::Message;
use crate::network::Node;
use crate::options::TxnOptions;
use crate::rng::Rng;
use crate::txn_client::client::{Ended, Out, TxnClient};
use crate::txn_client::script::{Mode, Plan, Script};
use crate::workload::LETTERS;

/// Share of transactions before which a client believes what was true before the regions were split.
const AMNESIA: f64 = 0.02;
/// Steps after which a client dies, at the latest: more than most transactions take.
const STEPS_MAX: u64 = 25;

pub(super) struct TxnSlot {
    client: TxnClient,
    rng: Rng,
    process: u64,
    think: Duration,
    goal: Goal,
    /// What it works at, for [`Goal::Read`] to do again what did not succeed.
    current: Option<Script>,
    /// Letters of which a transaction succeeded since the last [`World::expect_progress`].
    progress: u32,
}

enum Goal {
    /// Transactions as the generator makes them.
    Work,
    Rest,
    /// These, each until it succeeds.
    Read(VecDeque<Script>),
}

impl World {
    pub(super) fn add_txn_clients(&mut self) {
        for id in 0..self.options.clients {
            let mut rng = Rng::stream(self.seed, &format!("client{id}"));
            let attempt = Duration::from_millis(*rng.pick(&[200, 500, 1000, 3000]));
            let patience = Patience {
                attempt,
                operation: attempt + Duration::from_secs(4),
                stubborn: rng.chance(self.options.stubborn_clients),
            };
            let draws = Rng::stream(self.seed, &format!("client{id} draws"));
            let client = TxnClient::new(draws, patience, std::slice::from_ref(&self.ancient));
            let slot = TxnSlot {
                client,
                think: self.options.think.mul_f64(0.2 + 2.0 * rng.unit()),
                rng,
                process: self.new_process(),
                goal: Goal::Work,
                current: None,
                progress: 0,
            };
            self.txn_clients.push(slot);
            self.queue.push(self.queue.now(), Event::ClientNext { client: id });
        }
    }

    pub(super) fn begin_transaction(&mut self, id: u64) -> Result<(), Failure> {
        let slot = &mut self.txn_clients[id as usize];
        if slot.client.is_running() {
            return Ok(());
        }
        let script = match &mut slot.goal {
            Goal::Rest => return Ok(()),
            Goal::Work => self.txn_generator.next(&mut slot.rng),
            Goal::Read(left) => match left.front() {
                None => return Ok(()),
                Some(script) => script.clone(),
            },
        };
        let works = matches!(slot.goal, Goal::Work);
        if works && slot.rng.chance(AMNESIA) {
            slot.client.believe(std::slice::from_ref(&self.ancient));
            self.counts.add("request_from_the_past");
        }
        let mode = draw_mode(&self.options.txn, &script, &mut slot.rng);
        let dies = self.chaos && works && slot.rng.chance(self.options.txn.deaths);
        let dies_after = dies.then(|| slot.rng.between(0, STEPS_MAX));
        slot.current = Some(script.clone());
        let process = slot.process;
        let op = Op::Txn(script.invocation());
        self.record(process, Kind::Invoke, op, String::new(), String::new());
        self.trace
            .tell(self.queue.now(), format_args!("client{id} begins {script:?} {mode:?}"));
        let (now, mut out) = (self.queue.now(), Out::default());
        let client = &mut self.txn_clients[id as usize].client;
        client.begin(now, mode, script, dies_after, &mut out);
        self.carry_out_txn_client(id, out)
    }

    pub(super) fn wake_txn_client(&mut self, id: u64, number: u64) -> Result<(), Failure> {
        let (now, mut out) = (self.queue.now(), Out::default());
        self.txn_clients[id as usize].client.on_wake(now, number, &mut out);
        self.carry_out_txn_client(id, out)
    }

    pub(super) fn txn_client_message(&mut self, id: u64, message: Message) -> Result<(), Failure> {
        if let Message::TxnResponse(response) = &message
            && let Err(error) = &response.result
        {
            self.counts.add(refusal(error));
        }
        let (now, mut out) = (self.queue.now(), Out::default());
        self.txn_clients[id as usize].client.on_message(now, message, &mut out);
        self.carry_out_txn_client(id, out)
    }

    fn carry_out_txn_client(&mut self, id: u64, out: Out) -> Result<(), Failure> {
        if let Some(what) = out.broken {
            return Err(Failure::Promise { client: id, what });
        }
        for (to, message) in out.send {
            self.send(Node::Client(id), to, message);
        }
        for (after, number) in out.wake {
            self.queue
                .push(self.queue.now() + after, Event::ClientWake { client: id, number });
        }
        if let Some(ended) = out.ended {
            self.end_transaction(id, ended);
        }
        Ok(())
    }

    fn end_transaction(&mut self, id: u64, ended: Ended) {
        let Ended { kind, txn, why, died } = ended;
        self.counts.add(match kind {
            Kind::Ok => "operation_ok",
            Kind::Fail => "operation_failed",
            _ => "operation_unknown",
        });
        self.counts.add_many("client_died", u64::from(died));
        self.trace
            .note(self.queue.now(), format_args!("client{id} ends {kind:?} {txn:?} {why}"));
        let letters = letters(&txn);
        let process = self.txn_clients[id as usize].process;
        self.record(process, kind, Op::Txn(txn), String::new(), why);
        if kind == Kind::Info || died {
            self.txn_clients[id as usize].process = self.new_process();
        }
        let slot = &mut self.txn_clients[id as usize];
        if kind == Kind::Ok {
            slot.progress |= letters;
            if let Goal::Read(left) = &mut slot.goal
                && left.front() == slot.current.as_ref()
            {
                left.pop_front();
            }
        }
        let after = match slot.goal {
            Goal::Work => slot.rng.exponential(slot.think),
            // What did not succeed waits for others' locks: not at once again.
            Goal::Rest | Goal::Read(_) => Duration::from_millis(10),
        };
        self.queue.push(self.queue.now() + after, Event::ClientNext { client: id });
    }

    pub(super) fn forget_txn_progress(&mut self) {
        self.txn_clients.iter_mut().for_each(|slot| slot.progress = 0);
    }

    /// Clients that completed no transaction since, and letters of keys that nobody reached.
    pub(super) fn without_txn_progress(&self) -> Vec<String> {
        let idle = self.txn_clients.iter().enumerate().filter(|(_, slot)| slot.progress == 0);
        let mut missing: Vec<String> = idle.map(|(id, _)| format!("client{id}")).collect();
        let reached = self.txn_clients.iter().fold(0, |all, slot| all | slot.progress);
        let letters = LETTERS.iter().enumerate().filter(|(at, _)| reached & (1 << at) == 0);
        missing.extend(letters.map(|(_, letter)| format!("keys {letter}")));
        missing
    }

    pub(super) fn set_txn_goals(&mut self, work: bool) {
        for id in 0..self.txn_clients.len() {
            self.txn_clients[id].goal = if work { Goal::Work } else { Goal::Rest };
            self.queue.push(self.queue.now(), Event::ClientNext { client: id as u64 });
        }
    }

    pub(super) fn read_all_in_transactions(&mut self) {
        let scripts = self.txn_generator.final_reads();
        for id in 0..self.txn_clients.len() {
            let share = scripts.iter().skip(id).step_by(self.txn_clients.len());
            self.txn_clients[id].goal = Goal::Read(share.cloned().collect());
            self.queue.push(self.queue.now(), Event::ClientNext { client: id as u64 });
        }
    }

    pub(super) fn txn_clients_are_done(&self) -> bool {
        self.txn_clients.iter().all(|slot| {
            slot.client.is_idle()
                && match &slot.goal {
                    Goal::Work => false,
                    Goal::Rest => true,
                    Goal::Read(left) => left.is_empty(),
                }
        })
    }
}

/// Bits of the letters that a transaction touched.
fn letters(txn: &Txn) -> u32 {
    let reads = txn.reads.iter().map(|read| &read.key);
    let keys = reads.chain(txn.writes.iter().map(|write| &write.key));
    let bit = |key: &String| {
        LETTERS
            .iter()
            .position(|&letter| key.starts_with(letter))
            .map_or(0, |at| 1 << at)
    };
    keys.fold(0, |all, key| all | bit(key))
}

fn draw_mode(options: &TxnOptions, script: &Script, rng: &mut Rng) -> Mode {
    // Whoever locks what he only writes, having read it before without a lock, takes others' changes for his own.
    let reads_first = matches!(script.plan, Plan::Claim { .. }) && !script.lock_reads;
    let wait = match rng.below(3) {
        0 => Wait::No,
        1 => Wait::Default,
        _ => Wait::Millis(rng.between(10, 1_000)),
    };
    let pauses = rng.chance(0.5);
    Mode {
        pessimistic: rng.chance(options.pessimistic) && !reads_first && script.plan != Plan::Read,
        async_commit: rng.chance(options.async_commit),
        one_phase: rng.chance(options.one_phase),
        primary_first: rng.chance(0.3),
        ttl_ms: options.ttl.as_millis() as u64,
        heartbeat: rng.chance(options.heartbeats),
        linearizable: rng.chance(options.linearizable),
        commit_within_ms: *rng.pick(&[0, 0, 0, 1, 100, 2_000]),
        allow_conflict: rng.chance(0.5),
        wait,
        pause: if pauses { options.pause } else { Duration::ZERO },
        pass_locks: rng.chance(0.5),
    }
}

/// What a refusal is counted as.
fn refusal(error: &txn::Error) -> &'static str {
    use txn::Error;
    match error {
        Error::Locked(_) => "met_lock",
        Error::WriteConflict { .. } => "write_conflict",
        Error::Deadlock { .. } => "deadlock",
        Error::CommitTsExpired { .. } => "commit_ts_expired",
        Error::TxnNotFound { .. } => "txn_not_found",
        Error::TxnLockNotFound { .. } => "txn_lock_not_found",
        Error::PessimisticLockNotFound { .. } => "pessimistic_lock_not_found",
        Error::PessimisticLockRolledBack { .. } => "pessimistic_lock_rolled_back",
        Error::Committed { .. } => "rollback_of_committed",
        Error::Region { source, .. } => super::clients::refusal(source),
        _ => "refused_transaction_otherwise",
    }
}
