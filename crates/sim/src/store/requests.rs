//! What a store does with clients' requests: the part that stands for `server`, small and with the same rules.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::MonoTime;
use bytes::{BufMut, Bytes, BytesMut};
use engine::kv::{Context, Error, Modify, RegionSnapshot, RegionView, Reply, SnapshotRef};
use engine::{Cf, Engine};
use parking_lot::Mutex;
use raftstore::peer::{Event, ServeRead};

use super::txn::TxnAnswer;
use super::{Out, Store};
use crate::client::LIST_SEPARATOR;
use crate::message::{Act, Message, Request, Response};
use crate::network::Node;

/// Writes not proposed by then are given up.
const WRITE_DEADLINE: Duration = Duration::from_secs(2);

/// Who asked, and the number of the request.
pub(super) type Asker = (Node, u64);

pub(super) type Answers = Arc<Mutex<Vec<Answer>>>;

/// What replication answered.
pub(super) enum Answer {
    Txn(TxnAnswer),
    Write(Asker, Result<(), Error>),
    Read(Asker, Bytes, Result<SnapshotRef, Error>),
    /// The read of an append.
    AppendRead {
        key: Bytes,
        result: Result<SnapshotRef, Error>,
    },
    /// The write of an append.
    AppendWrite {
        key: Bytes,
        result: Result<(), Error>,
    },
}

/// An append that holds its key's latch, or waits for it.
struct Append {
    asker: Asker,
    ctx: Context,
    element: Bytes,
}

#[derive(Default)]
pub(super) struct Requests {
    answers: Answers,
    /// Appends by key; the first holds the latch.
    latches: BTreeMap<Bytes, VecDeque<Append>>,
}

impl Requests {
    /// Where answers gather.
    pub(super) fn answers(&self) -> Answers {
        self.answers.clone()
    }

    /// A reply that notes its outcome, and notes one even if it is dropped.
    pub(super) fn reply<T: Send + 'static>(&self, wrap: impl FnOnce(Result<T, Error>) -> Answer + Send + 'static) -> Reply<T> {
        let mut promise = Promise {
            answers: self.answers.clone(),
            wrap: Some(wrap),
            kind: std::marker::PhantomData,
        };
        Box::new(move |result| promise.keep(result))
    }
}

/// Answers with [`Error::Shutdown`] when it is dropped without an answer, as a peer's destruction may do.
struct Promise<T, F: FnOnce(Result<T, Error>) -> Answer> {
    answers: Answers,
    wrap: Option<F>,
    kind: std::marker::PhantomData<fn(T)>,
}

impl<T, F: FnOnce(Result<T, Error>) -> Answer> Promise<T, F> {
    fn keep(&mut self, result: Result<T, Error>) {
        if let Some(wrap) = self.wrap.take() {
            self.answers.lock().push(wrap(result));
        }
    }
}

impl<T, F: FnOnce(Result<T, Error>) -> Answer> Drop for Promise<T, F> {
    fn drop(&mut self) {
        self.keep(Err(Error::Shutdown));
    }
}

impl Store {
    pub(super) fn on_request(&mut self, now: MonoTime, from: Node, request: Request, out: &mut Out) {
        let Request { id, ctx, act } = request;
        let asker = (from, id);
        match act {
            Act::Get { key } => {
                let reply = self.requests.reply(move |result| Answer::Read(asker, key, result));
                self.read(now, ctx, reply, out);
            }
            Act::Put { key, value } => self.write(
                now,
                asker,
                ctx,
                Modify::Put {
                    cf: Cf::Default,
                    key,
                    value,
                },
                out,
            ),
            Act::Delete { key } => self.write(now, asker, ctx, Modify::Delete { cf: Cf::Default, key }, out),
            Act::Append { key, element } => {
                let waiting = self.requests.latches.entry(key.clone()).or_default();
                waiting.push_back(Append { asker, ctx, element });
                if waiting.len() == 1 {
                    self.begin_append(now, key, out);
                }
            }
        }
    }

    fn write(&mut self, now: MonoTime, asker: Asker, ctx: Context, change: Modify, out: &mut Out) {
        let reply = self.requests.reply(move |result| Answer::Write(asker, result));
        self.propose(now, ctx, vec![change], now + WRITE_DEADLINE, reply, out);
    }

    pub(super) fn propose(
        &mut self,
        now: MonoTime,
        ctx: Context,
        changes: Vec<Modify>,
        deadline: MonoTime,
        reply: Reply<()>,
        out: &mut Out,
    ) {
        if self.peer(ctx.region).is_none() {
            return reply(Err(Error::RegionNotFound { region: ctx.region }));
        }
        let event = Event::Write {
            ctx: ctx.clone(),
            changes,
            deadline,
            reply,
        };
        self.post(now, ctx.region, event, out);
    }

    /// Under the lease at once, else through the peer.
    pub(super) fn read(&mut self, now: MonoTime, ctx: Context, reply: Reply<SnapshotRef>, out: &mut Out) {
        let lent = self.delegates.get(&ctx.region).filter(|_| !ctx.replica_read);
        match lent.and_then(|delegate| Some((delegate.clone(), delegate.try_read(&ctx, now)?))) {
            Some((delegate, Ok(()))) => {
                self.counts.add("read_under_lease");
                self.serve(ServeRead {
                    region: delegate.region,
                    term: delegate.term,
                    reply,
                });
            }
            Some((_, Err(error))) => reply(Err(error)),
            None if self.peer(ctx.region).is_none() => reply(Err(Error::RegionNotFound { region: ctx.region })),
            None => self.post(
                now,
                ctx.region,
                Event::Read {
                    ctx: ctx.clone(),
                    at: None,
                    reply,
                },
                out,
            ),
        }
    }

    /// Answers a read from the engine as it now is.
    pub(super) fn serve(&mut self, read: ServeRead) {
        let view = RegionView::new(self.data.engine.snapshot(), read.region, read.term);
        (read.reply)(Ok(Arc::new(view)));
    }

    /// The first append of the key got the latch: reads what is there.
    fn begin_append(&mut self, now: MonoTime, key: Bytes, out: &mut Out) {
        let Some(append) = self.requests.latches.get(&key).and_then(VecDeque::front) else {
            return;
        };
        let ctx = append.ctx.clone();
        let reply = self.requests.reply(move |result| Answer::AppendRead { key, result });
        self.read(now, ctx, reply, out);
    }

    /// Turns what replication answered into responses, and goes on with appends.
    pub(super) fn give_answers(&mut self, now: MonoTime, out: &mut Out) {
        loop {
            let answers = std::mem::take(&mut *self.requests.answers.lock());
            if answers.is_empty() {
                return;
            }
            for answer in answers {
                self.on_answer(now, answer, out);
            }
        }
    }

    fn on_answer(&mut self, now: MonoTime, answer: Answer, out: &mut Out) {
        match answer {
            Answer::Txn(answer) => self.on_txn_answer(now, answer, out),
            Answer::Write(asker, result) => respond(asker, result.map(|()| None), out),
            Answer::Read(asker, key, result) => respond(asker, result.and_then(|view| get(&*view, &key)), out),
            Answer::AppendRead { key, result } => self.on_append_read(now, key, result, out),
            Answer::AppendWrite { key, result } => self.end_append(now, key, result, out),
        }
    }

    fn on_append_read(&mut self, now: MonoTime, key: Bytes, result: Result<SnapshotRef, Error>, out: &mut Out) {
        let Some(append) = self.requests.latches.get(&key).and_then(VecDeque::front) else {
            return;
        };
        let read = result.and_then(|view| Ok((get(&*view, &key)?, view.term())));
        let (before, term) = match read {
            Ok(read) => read,
            // Nothing was proposed. The client takes a stale command for unknown, and that would be a lie.
            Err(Error::StaleCommand | Error::Shutdown) => {
                return self.end_append(
                    now,
                    key,
                    Err(Error::Busy {
                        reason: "the region's leader changes",
                    }),
                    out,
                );
            }
            Err(error) => return self.end_append(now, key, Err(error), out),
        };
        let mut value = BytesMut::new();
        if let Some(before) = before {
            value.put_slice(&before);
            value.put_u8(LIST_SEPARATOR);
        }
        value.put_slice(&append.element);
        // Refused unless this store still leads the term it read in: only then did nobody write in between.
        let ctx = Context {
            term,
            ..append.ctx.clone()
        };
        let change = Modify::Put {
            cf: Cf::Default,
            key: key.clone(),
            value: value.freeze(),
        };
        let reply = self.requests.reply(move |result| Answer::AppendWrite { key, result });
        self.propose(now, ctx, vec![change], now + WRITE_DEADLINE, reply, out);
    }

    /// Answers the append that holds the latch and gives the latch on.
    fn end_append(&mut self, now: MonoTime, key: Bytes, result: Result<(), Error>, out: &mut Out) {
        let Some(waiting) = self.requests.latches.get_mut(&key) else {
            return;
        };
        let Some(append) = waiting.pop_front() else { return };
        let more = !waiting.is_empty();
        if !more {
            self.requests.latches.remove(&key);
        }
        respond(append.asker, result.map(|()| None), out);
        if more {
            self.begin_append(now, key, out);
        }
    }
}

fn respond(asker: Asker, result: Result<Option<Bytes>, Error>, out: &mut Out) {
    let (node, id) = asker;
    out.send.push((node, Message::Response(Response { id, result })));
}

fn get(view: &dyn RegionSnapshot, key: &Bytes) -> Result<Option<Bytes>, Error> {
    engine::kv::view::check_key(view.region(), key)?;
    Ok(view.get(Cf::Default, key).expect("memory reads"))
}
