//! What a store does for transactions: the part that stands for `server`'s shells of `txn`. Commands go through the scheduler, reads go
//! past it, timestamps come from the placement driver, and who waits for whom is told to the detector, which lives with the leader of
//! the first region.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::txn::concurrency::Concurrency;
use ::txn::deadlock::Detector;
use ::txn::mvcc::{self, ReadOptions, Scan, Scanner};
use ::txn::scheduler::{self, Detect, Effects, Event, Job, Scheduler, TaskId};
use ::txn::{Error, Output};
use base::{MonoTime, Ts};
use bytes::Bytes;
use engine::kv::{self, Context, SnapshotRef};

use super::requests::{Answer, Answers, Asker};
use super::{Out, Store, Timer, TxnJob};
use crate::message::{Message, TxnAct, TxnReply, TxnRequest, TxnResponse, TxnResult, Way};
use crate::network::Node;
use crate::rng::Rng;

/// Commands not carried out by then are given up.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long to wait for the placement driver's timestamp.
const TIMESTAMP_TIME_MAX: Duration = Duration::from_secs(1);
/// Between a snapshot and its job, and between that and the next.
const JOB_DELAY_MEAN: Duration = Duration::from_micros(100);
/// How long to believe that the detector is where it was.
const DETECTOR_BELIEF: Duration = Duration::from_secs(1);

/// What replication or the scheduler answered to a part of a transaction.
pub(super) enum TxnAnswer {
    Output(Asker, Result<Output, Error>),
    Snapshot(TaskId, Result<SnapshotRef, kv::Error>),
    Written(TaskId, Result<(), kv::Error>),
    Read(Asker, TxnAct, Result<SnapshotRef, kv::Error>),
    /// Of a region led here, for a read on another store.
    Index(Asker, Result<SnapshotRef, kv::Error>),
    Promise(Asker, Ts, Result<SnapshotRef, kv::Error>),
}

/// Who waits for a timestamp.
enum Asked {
    Task(TaskId),
    /// A store that wants to know how far the region's time is over.
    Promise(Asker, Context),
}

pub(super) struct Txns {
    scheduler: Scheduler,
    concurrency: Arc<Concurrency>,
    detector: Detector,
    /// Where the detector is believed to be, and since when.
    detector_at: Option<(u64, MonoTime)>,
    /// When the next tick is due already.
    tick_at: Option<MonoTime>,
    /// Timestamps asked for, by numbers that no earlier life of the store used: a late answer to it would be too old.
    asked: BTreeMap<u64, Asked>,
    next_ask: u64,
}

impl Txns {
    pub(super) fn new(pessimistic_in_memory: bool, rng: &mut Rng) -> Txns {
        let concurrency = Arc::new(Concurrency::new(Ts(0)));
        let config = scheduler::Config {
            in_memory_pessimistic: pessimistic_in_memory,
            ..scheduler::Config::default()
        };
        Txns {
            scheduler: Scheduler::new(config, concurrency.clone()),
            concurrency,
            detector: Detector::default(),
            detector_at: None,
            tick_at: None,
            asked: BTreeMap::new(),
            next_ask: rng.seed() >> 1,
        }
    }

    /// A number that no question of any life of the store had.
    pub(super) fn number(&mut self) -> u64 {
        self.next_ask += 1;
        self.next_ask
    }

    /// Raises `max_ts` for a read and looks for locks in memory; the snapshot must be taken afterwards.
    pub(super) fn note_and_check(&self, act: &TxnAct) -> Result<(), Error> {
        self.concurrency.raise_max_ts(options(act).ts)?;
        match act {
            TxnAct::Get { key, options } => self.concurrency.check_key(key, options),
            TxnAct::Scan { start, end, options } => self.concurrency.check_range(start, end, options),
            TxnAct::Command(_) => Ok(()),
        }
    }
}

impl Store {
    pub(super) fn on_txn_request(&mut self, now: MonoTime, from: Node, request: TxnRequest, out: &mut Out) {
        let TxnRequest { id, ctx, act, way } = request;
        let asker = (from, id);
        match act {
            act if way != Way::Leader => self.begin_read_away(now, asker, ctx, act, way, out),
            TxnAct::Command(command) => {
                let answers = self.requests.answers();
                let reply = Box::new(move |result| note(&answers, TxnAnswer::Output(asker, result)));
                let deadline = now + DEADLINE;
                let event = Event::Submit {
                    ctx,
                    command,
                    deadline,
                    reply,
                };
                self.step_txns(now, event, out);
            }
            TxnAct::Get { .. } | TxnAct::Scan { .. } => self.begin_read(now, asker, ctx, act, out),
        }
    }

    fn begin_read(&mut self, now: MonoTime, asker: Asker, ctx: Context, act: TxnAct, out: &mut Out) {
        if let Err(error) = self.txns.note_and_check(&act) {
            self.counts.add("read_met_lock_in_memory");
            return respond(asker, Err(Arc::new(error)), out);
        }
        let reply = self
            .requests
            .reply(move |result| Answer::Txn(TxnAnswer::Read(asker, act, result)));
        self.read(now, ctx, reply, out);
    }

    pub(super) fn on_txn_answer(&mut self, now: MonoTime, answer: TxnAnswer, out: &mut Out) {
        match answer {
            TxnAnswer::Output(asker, result) => respond(asker, result.map(TxnReply::Output).map_err(Arc::new), out),
            TxnAnswer::Snapshot(task, result) => self.step_txns(now, Event::Snapshot { task, result }, out),
            TxnAnswer::Written(task, result) => self.step_txns(now, Event::Written { task, result }, out),
            TxnAnswer::Index(asker, result) => self.on_index(asker, result, out),
            TxnAnswer::Promise(asker, ts, result) => self.on_promise(asker, ts, result, out),
            TxnAnswer::Read(asker, act, result) => {
                let read = result.map_err(|source| Error::Region { proposed: false, source });
                let found = read.and_then(|snapshot| read_from(&snapshot, &act));
                respond(asker, found.map_err(Arc::new), out);
            }
        }
    }

    pub(super) fn on_txn_tick(&mut self, now: MonoTime, out: &mut Out) {
        if self.txns.tick_at.is_some_and(|at| at <= now) {
            self.txns.tick_at = None;
            self.step_txns(now, Event::Tick, out);
        }
    }

    pub(super) fn run_txn_job(&mut self, now: MonoTime, job: Job, out: &mut Out) {
        let ran = job.run();
        self.step_txns(now, Event::Ran(ran), out);
    }

    /// The placement driver's answer, or none in time.
    pub(super) fn on_timestamp(&mut self, now: MonoTime, id: u64, ts: Option<Ts>, out: &mut Out) {
        match (self.txns.asked.remove(&id), ts) {
            (Some(Asked::Task(task)), ts) => {
                self.counts.add_many("max_ts_synchronised", u64::from(ts.is_some()));
                self.step_txns(now, Event::Timestamp { task, ts }, out);
            }
            (Some(Asked::Promise(asker, ctx)), Some(ts)) => self.on_time_for_promise(now, asker, ctx, ts, out),
            // Who asked has patience of its own.
            (Some(Asked::Promise(..)), None) | (None, _) => {}
        }
    }

    /// Asks the placement driver how late it is, for a promise.
    pub(super) fn ask_for_safe_time(&mut self, now: MonoTime, asker: Asker, ctx: Context, out: &mut Out) {
        self.ask_timestamp(now, Asked::Promise(asker, ctx), out);
    }

    fn ask_timestamp(&mut self, now: MonoTime, asked: Asked, out: &mut Out) {
        let id = self.txns.number();
        self.txns.asked.insert(id, asked);
        out.send.push((Node::Pd, Message::AskTimestamp { id }));
        out.wake.push((now + TIMESTAMP_TIME_MAX, Timer::TimestampOverdue(id)));
    }

    fn step_txns(&mut self, now: MonoTime, event: Event, out: &mut Out) {
        let effects = self.txns.scheduler.step(now, event);
        let Effects {
            snapshots,
            jobs,
            writes,
            timestamps,
            detect,
            answers,
            wake_at,
        } = effects;
        for (task, ctx) in snapshots {
            let reply = self
                .requests
                .reply(move |result| Answer::Txn(TxnAnswer::Snapshot(task, result)));
            self.read(now, ctx, reply, out);
        }
        for job in jobs {
            let after = self.rng.exponential(JOB_DELAY_MEAN);
            out.wake.push((now + after, Timer::TxnJob(TxnJob(job))));
        }
        for write in writes {
            let task = write.task;
            let reply = self
                .requests
                .reply(move |result| Answer::Txn(TxnAnswer::Written(task, result)));
            self.propose(now, write.ctx, write.changes, write.deadline, reply, out);
        }
        for task in timestamps {
            self.ask_timestamp(now, Asked::Task(task), out);
        }
        detect.into_iter().for_each(|detect| self.tell_detector(now, detect, out));
        answers.into_iter().for_each(scheduler::Answer::give);
        if let Some(at) = wake_at.filter(|at| self.txns.tick_at.is_none_or(|due| *at < due)) {
            self.txns.tick_at = Some(at);
            out.wake.push((at, Timer::TxnTick));
        }
    }

    /// What is told while nobody knows where the detector is is lost; the scheduler tells it again.
    fn tell_detector(&mut self, now: MonoTime, detect: Detect, out: &mut Out) {
        match self.txns.detector_at {
            Some((store, since)) if now.since(since) < DETECTOR_BELIEF => {
                out.send.push((Node::Store(store), Message::Detect(detect)));
            }
            _ => out.send.push((Node::Pd, Message::Locate { key: Bytes::new() })),
        }
    }

    pub(super) fn on_located_first(&mut self, now: MonoTime, leader: u64) {
        self.txns.detector_at = Some((leader, now));
    }

    /// Told by another store, or itself. Only the leader of the first region detects; who asks another asks anew later.
    pub(super) fn on_detect(&mut self, now: MonoTime, from: Node, detect: Detect, out: &mut Out) {
        let leads = |store: &Store| {
            store
                .peers()
                .any(|peer| peer.region().start_key.is_empty() && peer.is_leader())
        };
        if !leads(self) {
            return self.txns.detector.clear();
        }
        match detect {
            Detect::Wait(wait) => {
                if let Some(deadlock) = self.txns.detector.detect(now, &wait) {
                    out.send.push((from, Message::Deadlock(deadlock)));
                }
            }
            Detect::Unwait(wait) => self.txns.detector.unwait(&wait),
        }
    }

    pub(super) fn on_deadlock(&mut self, now: MonoTime, deadlock: scheduler::Deadlock, out: &mut Out) {
        self.step_txns(now, Event::Deadlock(deadlock), out);
    }
}

fn note(answers: &Answers, answer: TxnAnswer) {
    answers.lock().push(Answer::Txn(answer));
}

pub(super) fn respond(asker: Asker, result: TxnResult, out: &mut Out) {
    let (node, id) = asker;
    out.send.push((node, Message::TxnResponse(TxnResponse { id, result })));
}

pub(super) fn options(act: &TxnAct) -> &ReadOptions {
    match act {
        TxnAct::Get { options, .. } | TxnAct::Scan { options, .. } => options,
        TxnAct::Command(_) => unreachable!("commands go through the scheduler"),
    }
}

fn read_from(snapshot: &SnapshotRef, act: &TxnAct) -> Result<TxnReply, Error> {
    let in_region = |key: &[u8]| {
        let checked = kv::view::check_key(snapshot.region(), key);
        checked.map_err(|source| Error::Region { proposed: false, source })
    };
    match act {
        TxnAct::Get { key, options } => {
            in_region(key.encoded())?;
            let found = mvcc::get(&**snapshot, key, options)?;
            Ok(TxnReply::Value(found.map(|found| found.value)))
        }
        TxnAct::Scan { start, end, options } => {
            in_region(start)?;
            let mut scanner = Scanner::new(&**snapshot, start, end, Scan::default(), options.clone())?;
            let mut pairs = Vec::new();
            while let Some((key, found)) = scanner.next()? {
                pairs.push((key, found?.value));
            }
            let region_end = &snapshot.region().end_key;
            let ends_first = !region_end.is_empty() && region_end < end;
            Ok(TxnReply::Pairs(pairs, if ends_first { region_end } else { end }.clone()))
        }
        TxnAct::Command(_) => unreachable!("commands go through the scheduler"),
    }
}
