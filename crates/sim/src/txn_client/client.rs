//! [`TxnClient`]: what the world sees of a transactional client: it begins transactions, takes messages and wake-ups, and may die.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use base::MonoTime;
use proto::metapb::Region;

use super::program::{self, Port, Program};
use super::script::{Mode, Script};
use super::session::Session;
use super::transaction::{self, Outcome, Progress};
use crate::client::Patience;
use crate::history::{Kind, Txn};
use crate::message::Message;
use crate::network::Node;
use crate::rng::Rng;

/// What a client wants done.
#[derive(Default)]
pub struct Out {
    pub send: Vec<(Node, Message)>,
    /// Wake me after this long, with this number.
    pub wake: Vec<(Duration, u64)>,
    pub ended: Option<Ended>,
    /// A promise of the stores that was broken.
    pub broken: Option<String>,
}

/// How a transaction ended: a record of the history to be.
pub struct Ended {
    pub kind: Kind,
    pub txn: Txn,
    pub why: String,
    /// The client died, with all that it had in memory.
    pub died: bool,
}

pub struct TxnClient {
    port: Port,
    session: Session,
    running: Option<(Program<Outcome>, Rc<RefCell<Progress>>)>,
    /// What goes on beside: commits of secondaries, heartbeats, cleaning up.
    beside: Vec<Program<()>>,
    /// Steps until it dies.
    dies_after: Option<u64>,
}

impl TxnClient {
    pub fn new(rng: Rng, patience: Patience, belief: &[Region]) -> TxnClient {
        let port = Port::default();
        TxnClient {
            session: Session::new(port.clone(), rng, patience, belief),
            port,
            running: None,
            beside: Vec::new(),
            dies_after: None,
        }
    }

    /// Forgets every route and believes in these regions.
    pub fn believe(&mut self, belief: &[Region]) {
        self.session.believe(belief);
    }

    /// Whether nothing is under way, not even beside.
    pub fn is_idle(&self) -> bool {
        self.running.is_none() && self.beside.is_empty()
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Begins a transaction; none may be running. `dies_after`: the client dies after so many further steps, if it comes to that.
    pub fn begin(&mut self, now: MonoTime, mode: Mode, script: Script, dies_after: Option<u64>, out: &mut Out) {
        assert!(self.running.is_none(), "one transaction at a time");
        let progress = Rc::new(RefCell::new(Progress {
            txn: script.invocation(),
            may_commit: false,
        }));
        self.port.set_now(now);
        let program = transaction::run(self.session.clone(), mode, script, progress.clone());
        self.running = Some((Box::pin(program), progress));
        self.dies_after = dies_after;
        self.step(out);
    }

    pub fn on_message(&mut self, now: MonoTime, message: Message, out: &mut Out) {
        self.port.set_now(now);
        match &message {
            Message::Timestamp { id, .. } => self.port.arrive(*id, message),
            Message::TxnResponse(response) => self.port.arrive(response.id, message),
            Message::Located { region, leader } => {
                self.session.on_located(region.clone(), *leader);
                self.port.arrive_located(&message);
            }
            other => panic!("{} is not for a transactional client", other.name()),
        }
        self.step(out);
    }

    /// The wait of this number is over.
    pub fn on_wake(&mut self, now: MonoTime, number: u64, out: &mut Out) {
        self.port.set_now(now);
        self.port.on_wake(number);
        self.step(out);
    }

    fn step(&mut self, out: &mut Out) {
        if let Some(left) = &mut self.dies_after {
            if *left == 0 {
                return self.die(out);
            }
            *left -= 1;
        }
        if let Some((program, progress)) = &mut self.running
            && let Some(outcome) = program::step(program)
        {
            let Outcome { kind, why } = outcome;
            let txn = std::mem::take(&mut progress.borrow_mut().txn);
            let died = false;
            out.ended = Some(Ended { kind, txn, why, died });
            self.running = None;
        }
        loop {
            self.beside.extend(self.port.take_spawned());
            self.beside.retain_mut(|program| program::step(program).is_none());
            let spawned = self.port.take_spawned();
            if spawned.is_empty() {
                break;
            }
            self.beside.extend(spawned);
        }
        out.send.extend(self.port.take_sends());
        out.wake.extend(self.port.take_wakes());
        out.broken = self.port.take_broken();
    }

    /// The process ends where it is: all that it knew is gone, and nothing more is sent.
    fn die(&mut self, out: &mut Out) {
        self.dies_after = None;
        self.beside.clear();
        let (kind, txn) = match self.running.take() {
            None => return,
            Some((program, progress)) => {
                drop(program);
                let progress = progress.take();
                let kind = if progress.may_commit { Kind::Info } else { Kind::Fail };
                (kind, progress.txn)
            }
        };
        drop((self.port.take_spawned(), self.port.take_sends(), self.port.take_wakes()));
        let (why, died) = ("the client died".into(), true);
        out.ended = Some(Ended { kind, txn, why, died });
    }
}

#[cfg(test)]
mod tests;
