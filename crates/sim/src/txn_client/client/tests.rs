//! The client against stores that answer by hand.

use std::sync::Arc;

use base::Ts;
use bytes::Bytes;
use proto::metapb::{Peer, RegionEpoch};
use txn::command::{Prewritten, TxnStatus, Wait};
use txn::lock::{Lock, LockKind, Locked};
use txn::{Command, Error, Key, Output};

use super::*;
use crate::message::{TxnAct, TxnReply, TxnResponse, TxnResult};
use crate::txn_client::script::Plan;

fn region(id: u64, start: &'static str, end: &'static str) -> Region {
    Region {
        id,
        start_key: start.into(),
        end_key: end.into(),
        region_epoch: Some(RegionEpoch { conf_ver: 1, version: 1 }),
        peers: vec![Peer {
            id,
            store_id: id,
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn mode() -> Mode {
    Mode {
        pessimistic: false,
        async_commit: false,
        one_phase: false,
        primary_first: true,
        ttl_ms: 1000,
        heartbeat: false,
        linearizable: false,
        commit_within_ms: 0,
        allow_conflict: false,
        wait: Wait::No,
        pause: Duration::ZERO,
        pass_locks: false,
    }
}

fn script(reads: &[&str], plan: Plan) -> Script {
    Script {
        reads: reads.iter().map(|key| (*key).into()).collect(),
        plan,
        lock_reads: true,
        latest: false,
    }
}

/// A client with its cluster: two regions, cut at `m`, and a clock of timestamps.
struct Bench {
    client: TxnClient,
    ended: Option<Ended>,
    ts: u64,
    /// Requests sent and not answered yet.
    open: Vec<(u64, TxnAct)>,
    now: MonoTime,
}

impl Bench {
    fn new() -> Bench {
        let patience = Patience {
            attempt: Duration::from_secs(1),
            operation: Duration::from_secs(3),
            stubborn: true,
        };
        let belief = [region(1, "", "m"), region(2, "m", "")];
        Bench {
            client: TxnClient::new(Rng::stream(1, "client"), patience, &belief),
            ended: None,
            ts: 100,
            open: Vec::new(),
            now: MonoTime(0),
        }
    }

    fn begin(&mut self, mode: Mode, script: Script, dies_after: Option<u64>) {
        let mut out = Out::default();
        self.client.begin(self.now, mode, script, dies_after, &mut out);
        self.take(out);
    }

    /// Answers timestamps at once, and wakes the client from waits that no request ends.
    fn take(&mut self, mut out: Out) {
        assert_eq!(out.broken, None);
        self.ended = out.ended.take().or(self.ended.take());
        for (_, message) in out.send {
            match message {
                Message::TxnRequest(request) => self.open.push((request.id, request.act)),
                Message::AskTimestamp { id } => {
                    self.ts += 10;
                    let ts = Ts(self.ts);
                    self.message(Message::Timestamp { id, ts });
                }
                other => panic!("{} is not expected", other.name()),
            }
        }
    }

    fn message(&mut self, message: Message) {
        let mut out = Out::default();
        self.client.on_message(self.now, message, &mut out);
        self.take(out);
    }

    /// The only open request.
    fn asked(&self) -> &TxnAct {
        assert_eq!(self.open.len(), 1, "{:?}", self.open);
        &self.open[0].1
    }

    fn answer(&mut self, result: TxnResult) {
        let (id, _) = self.open.remove(0);
        self.message(Message::TxnResponse(TxnResponse { id, result }));
    }

    fn answer_output(&mut self, output: Output) {
        self.answer(Ok(TxnReply::Output(output)));
    }

    /// Answers what a transaction without conflicts is answered.
    fn answer_well(&mut self) {
        match &self.open[0].1 {
            TxnAct::Get { .. } => self.answer(Ok(TxnReply::Value(None))),
            TxnAct::Command(Command::Prewrite(_)) => self.answer_output(Output::Prewritten(Prewritten::default())),
            TxnAct::Command(Command::Commit(commit)) => {
                let commit_ts = commit.commit_ts;
                self.answer_output(Output::Committed { commit_ts });
            }
            TxnAct::Command(Command::Rollback { .. } | Command::ResolveLock(_)) => self.answer_output(Output::Done),
            other => panic!("no usual answer to {other:?}"),
        }
    }
}

fn key(key: &str) -> Key {
    Key::from_user(key.as_bytes())
}

fn commit(act: &TxnAct) -> (Vec<Key>, Ts) {
    match act {
        TxnAct::Command(Command::Commit(commit)) => (commit.keys.clone(), commit.commit_ts),
        other => panic!("wanted a commit, got {other:?}"),
    }
}

fn primary(act: &TxnAct) -> Bytes {
    match act {
        TxnAct::Command(Command::Prewrite(prewrite)) => prewrite.primary.clone(),
        other => panic!("wanted a prewrite, got {other:?}"),
    }
}

#[test]
fn two_phases_decide_by_the_primary() {
    let mut bench = Bench::new();
    let plan = Plan::Transfer { amount: 1, tag: 1 };
    bench.begin(mode(), script(&["am0", "zm0"], plan), None);
    assert_eq!(bench.open.len(), 2, "reads of both regions at once");
    (0..2).for_each(|_| bench.answer_well());
    let primary = primary(bench.asked());
    bench.answer_well();
    bench.answer_well();
    assert!(bench.ended.is_none());
    let (keys, commit_ts) = commit(bench.asked());
    assert_eq!(keys, [Key::from_user(&primary)], "the primary alone");
    bench.answer_well();
    let ended = bench.ended.take().expect("committed with its primary");
    assert_eq!((ended.kind, ended.txn.commit_ts), (Kind::Ok, Some(commit_ts.0)));
    assert_eq!(ended.txn.writes.len(), 2);
    assert_ne!(commit(bench.asked()).0, keys, "the secondary follows");
    assert!(!bench.client.is_idle());
    bench.answer_well();
    assert!(bench.client.is_idle());
}

#[test]
fn async_commit_is_done_with_the_prewrites() {
    let mut bench = Bench::new();
    let mode = Mode {
        async_commit: true,
        ..mode()
    };
    bench.begin(mode, script(&["am0", "zm0"], Plan::Transfer { amount: 1, tag: 1 }), None);
    (0..2).for_each(|_| bench.answer_well());
    for min_commit_ts in [Ts(500), Ts(700)] {
        let prewritten = Prewritten {
            min_commit_ts,
            ..Prewritten::default()
        };
        bench.answer_output(Output::Prewritten(prewritten));
    }
    let ended = bench.ended.take().expect("committed with the last prewrite");
    assert_eq!((ended.kind, ended.txn.commit_ts), (Kind::Ok, Some(700)));
    assert_eq!(bench.open.len(), 2, "both keys are committed beside");
}

#[test]
fn a_conflict_fails_and_is_cleaned_up() {
    let mut bench = Bench::new();
    bench.begin(mode(), script(&["an0"], Plan::Increment { tag: 1 }), None);
    bench.answer_well();
    let conflict = Error::PessimisticLockNotFound {
        start_ts: Ts(1),
        key: key("an0"),
    };
    bench.answer(Err(Arc::new(conflict)));
    assert_eq!(bench.ended.take().map(|ended| ended.kind), Some(Kind::Fail));
    assert!(matches!(bench.asked(), TxnAct::Command(Command::Rollback { keys, .. }) if keys[..] == [key("an0")]));
}

#[test]
fn a_reader_resolves_the_lock_it_meets() {
    let mut bench = Bench::new();
    bench.begin(mode(), script(&["an0"], Plan::Read), None);
    let lock = Lock::new(LockKind::Put, "zn0".into(), Ts(50), 0);
    let locked = Locked { key: key("an0"), lock };
    bench.answer(Err(Arc::new(Error::Locked(Box::new(locked)))));
    assert!(matches!(bench.asked(), TxnAct::Command(Command::CheckTxnStatus(check)) if check.primary == key("zn0")));
    bench.answer_output(Output::Status(TxnStatus::Committed { commit_ts: Ts(60) }));
    let resolves = |act: &TxnAct| matches!(act, TxnAct::Command(Command::ResolveLock(_)));
    assert!(resolves(bench.asked()));
    bench.answer_well();
    bench.answer(Ok(TxnReply::Value(Some("7 #1".into()))));
    let ended = bench.ended.take().expect("read");
    assert_eq!(ended.txn.reads[0].value.as_deref(), Some("7 #1"));
    assert_eq!(ended.txn.reads[0].ts, ended.txn.start_ts);
}

#[test]
fn a_death_is_a_failure_until_the_commit_leaves() {
    let outcome = |dies_after| {
        let mut bench = Bench::new();
        bench.begin(mode(), script(&["an0"], Plan::Increment { tag: 1 }), Some(dies_after));
        while bench.ended.is_none() {
            bench.answer_well();
        }
        let ended = bench.ended.take().expect("just seen");
        assert!(bench.client.is_idle() || !ended.died);
        (ended.kind, ended.died)
    };
    // Steps: begin, timestamp, read, prewrite, timestamp, commit.
    assert_eq!(outcome(1), (Kind::Fail, true));
    assert_eq!(outcome(3), (Kind::Fail, true));
    assert_eq!(outcome(5), (Kind::Info, true));
    assert_eq!(outcome(6), (Kind::Ok, false));
}
