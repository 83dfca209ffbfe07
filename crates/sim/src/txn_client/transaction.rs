//! One transaction from begin to outcome: timestamps, reads, locks, prewrite, commit, and the cleaning up after it.

mod commit;
mod read;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, Ts};
use bytes::Bytes;
use txn::command::Op;
use txn::{Command, Error, Key, Output};

use super::script::{Mode, Script};
use super::session::{Session, Trouble};
use crate::history::{Kind, Txn, Write};
use crate::message::{TxnAct, TxnReply};

/// How far a transaction is: what is left of it if its client dies.
#[derive(Debug, Default)]
pub struct Progress {
    pub txn: Txn,
    /// Something was sent after which the transaction may be committed without its client.
    pub may_commit: bool,
}

/// How it ended.
#[derive(Debug)]
pub struct Outcome {
    pub kind: Kind,
    pub why: String,
}

/// Why a transaction does not commit, or may not have.
#[derive(Debug)]
enum Stop {
    Failed(String),
    Unknown(String),
}

impl From<Trouble> for Stop {
    /// Before anything was sent that could commit, giving up is a failure too.
    fn from(trouble: Trouble) -> Stop {
        match trouble {
            Trouble::GaveUp(why) => Stop::Failed(format!("gave up: {why}")),
            Trouble::Refused(error) => Stop::Failed(error.to_string()),
        }
    }
}

struct Transaction {
    session: Session,
    mode: Mode,
    progress: Rc<RefCell<Progress>>,
    began: MonoTime,
    start_ts: Ts,
    /// Highest so far; zero while no key is locked pessimistically.
    for_update_ts: Ts,
    /// A lock was granted over a record newer than any timestamp that this transaction asked for.
    overtaken: bool,
    primary: Option<Key>,
    /// What becomes of the keys at commit; a key only locked stays as it is.
    mutations: BTreeMap<Key, Op>,
    /// Keys locked pessimistically, or asked to be.
    locked: Vec<Key>,
    /// Transactions whose locks reads pass: they commit later, or are rolled back.
    bypass: RefCell<Vec<Ts>>,
    /// Transactions whose locks reads see through: they are committed.
    access: RefCell<Vec<Ts>>,
    alive: Rc<Cell<bool>>,
}

/// Runs a script. `progress` tells at any time what happened so far.
pub async fn run(session: Session, mode: Mode, script: Script, progress: Rc<RefCell<Progress>>) -> Outcome {
    let mut transaction = Transaction {
        session: session.afresh(),
        mode,
        progress,
        began: session.port.now(),
        start_ts: Ts(0),
        for_update_ts: Ts(0),
        overtaken: false,
        primary: None,
        mutations: BTreeMap::new(),
        locked: Vec::new(),
        bypass: RefCell::default(),
        access: RefCell::default(),
        alive: Rc::new(Cell::new(true)),
    };
    let stop = transaction.attempt(&script).await.err();
    transaction.alive.set(false);
    let (kind, why) = match stop {
        None => (Kind::Ok, String::new()),
        Some(Stop::Failed(why)) => (Kind::Fail, why),
        Some(Stop::Unknown(why)) => (Kind::Info, why),
    };
    // Where the outcome is unknown the locks must stay: the primary may be committed, and then the others have to follow.
    if kind == Kind::Fail {
        transaction.clean_up();
    }
    Outcome { kind, why }
}

impl Transaction {
    async fn attempt(&mut self, script: &Script) -> Result<(), Stop> {
        if script.latest {
            return self.read_latest(&script.reads[0]).await;
        }
        self.start_ts = self.session.timestamp().await?;
        self.progress.borrow_mut().txn.start_ts = Some(self.start_ts.0);
        if self.mode.pessimistic && script.lock_reads {
            self.read_locking(script).await?;
        } else {
            self.read_snapshot(script).await?;
        }
        self.session.pause(self.mode.pause).await;
        let writes = script.writes(&self.progress.borrow().txn.reads);
        if writes.is_empty() {
            self.clean_up();
            return Ok(());
        }
        if self.mode.pessimistic {
            self.lock_for_writes(&writes).await?;
        }
        self.note_writes(script, writes);
        self.commit().await
    }

    fn note_writes(&mut self, script: &Script, writes: Vec<Write>) {
        let locked = self.locked.iter().cloned();
        let locks = script
            .reads
            .iter()
            .filter(|_| script.lock_reads)
            .map(|key| Key::from_user(key.as_bytes()));
        self.mutations = locked.chain(locks).map(|key| (key, Op::Lock)).collect();
        for write in &writes {
            let op = match &write.value {
                Some(value) => Op::Put(Bytes::copy_from_slice(value.as_bytes())),
                None => Op::Delete,
            };
            self.mutations.insert(Key::from_user(write.key.as_bytes()), op);
        }
        self.progress.borrow_mut().txn.writes = writes;
    }

    /// Takes back what was locked or prewritten, beside whatever the client does next. It must be known not to be committed.
    fn clean_up(&self) {
        let keys: Vec<Key> = match self.mutations.is_empty() {
            true => self.locked.clone(),
            false => self.mutations.keys().cloned().collect(),
        };
        if keys.is_empty() {
            return;
        }
        let (session, start_ts) = (self.session.afresh(), self.start_ts);
        self.session.port.spawn(async move {
            let act = |keys: &[Key], _| {
                let keys = keys.to_vec();
                TxnAct::Command(Command::Rollback { keys, start_ts })
            };
            for answered in session.call_all(keys, act).await.into_iter().flatten() {
                if let Err(error) = answered.result
                    && matches!(*error, Error::Committed { .. })
                {
                    session
                        .port
                        .broken(format!("a transaction that failed is committed: {error}"));
                }
            }
        });
    }

    /// Keeps the primary's lock alive from now on, as long as the transaction runs.
    fn begin_heartbeats(&self, primary: Key) {
        if !self.mode.heartbeat {
            return;
        }
        let (session, start_ts, ttl_ms, alive) = (self.session.clone(), self.start_ts, self.mode.ttl_ms, self.alive.clone());
        let began = session.port.now();
        self.session.port.spawn(async move {
            loop {
                session.port.sleep(Duration::from_millis(ttl_ms / 3 + 1)).await;
                if !alive.get() {
                    return;
                }
                let advise_ttl_ms = session.port.now().since(began).as_millis() as u64 + 2 * ttl_ms;
                let act = || {
                    TxnAct::Command(Command::HeartBeat {
                        primary: primary.clone(),
                        start_ts,
                        advise_ttl_ms,
                        min_commit_ts: Ts(0),
                    })
                };
                if session.call(&primary, act).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// What a command was answered, which must be of the kind that it asked for.
fn output(reply: TxnReply) -> Output {
    match reply {
        TxnReply::Output(output) => output,
        other => panic!("a command was answered with {other:?}"),
    }
}

fn locked_error(error: &Arc<Error>) -> Option<&txn::lock::Locked> {
    match &**error {
        Error::Locked(locked) => Some(locked),
        _ => None,
    }
}

/// A stop for giving up over something that happens only after `may_commit`.
fn unknown(trouble: Trouble) -> Stop {
    match trouble {
        Trouble::GaveUp(why) => Stop::Unknown(format!("gave up: {why}")),
        Trouble::Refused(error) => Stop::Failed(error.to_string()),
    }
}
