//! A connection to a server: requests of many clients go out together, replies come back in their order.
//!
//! Shared connections carry only requests that leave no state behind. A private one belongs to one client until it is clean again.
//! Invariant: every request that was taken gets one reply, the server's or an error.

mod connect;

pub use connect::{dial, pause};

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use base::MonoTime;
use tokio::time::{Instant, Sleep};

use crate::clock;
use crate::mailbox::{Bell, Mailbox};
use crate::memcached::scan::Expected;
use crate::net::{In, Out, Patience, Round, Step, Stream};
use crate::pool::{Node, Pool};
use crate::resp::reply::{Found, ReplyScanner};
use crate::resp::write::Version;
use crate::worker::scratch;

/// Places for requests in flight that are kept while there are none.
const PENDING_KEPT: usize = 1024;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Purpose {
    pub version: Version,
    pub db: u32,
}

/// A request that waits for its reply.
pub struct Pending {
    /// Whose it is; nobody's reply is dropped.
    pub to: Option<Rc<Mailbox>>,
    pub number: u64,
    pub part: u16,
    /// Memcached: the form of the reply and what becomes of it.
    pub expected: Expected,
    /// Whether it may take as long as it likes.
    pub is_patient: bool,
    /// Whether another server may be asked as well, if this one is slow.
    pub is_read: bool,
    /// Asked as well: only an answer counts, no error.
    pub is_hedge: bool,
    pub sent: MonoTime,
    /// The request itself, where it may have to be sent again elsewhere.
    pub again: Option<Rc<[u8]>>,
    /// How often it was sent on.
    pub hops: u8,
}

impl Pending {
    /// For a request of `to`.
    pub fn new(to: Option<&Rc<Mailbox>>, number: u64, part: u16) -> Pending {
        Pending {
            to: to.cloned(),
            number,
            part,
            expected: Expected::default(),
            is_patient: false,
            is_read: false,
            is_hedge: false,
            sent: clock::now(),
            again: None,
            hops: 0,
        }
    }

    /// Hands over an error in place of a reply.
    pub fn fail(&self, text: &str) {
        if let Some(to) = self.to.as_ref().filter(|_| !self.is_hedge) {
            to.deliver(self.number, self.part, &self.expected.error(text));
        }
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("closed by the server")]
    Closed,
    #[error("no reply within {}ms", .0.as_millis())]
    Timeout(Duration),
    #[error("malformed reply: {0}")]
    Malformed(#[from] crate::resp::Malformed),
    #[error("a reply that nothing asked for")]
    Unasked,
    #[error("{0}")]
    Refused(String),
    #[error("no longer needed")]
    Dropped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Up,
    Dead,
}

/// A connection, as those who send on it see it; its task does the rest.
pub struct Conn {
    pub node: Rc<Node>,
    pub purpose: Purpose,
    inner: RefCell<Inner>,
    bell: Bell,
    state: Cell<State>,
    /// Asked to end at once.
    is_killed: Cell<bool>,
    /// Asked to end when nothing is in flight.
    is_retired: Cell<bool>,
    /// Every frame goes to this client: subscriptions, `MONITOR`.
    listener: RefCell<Option<Rc<Mailbox>>>,
    /// Subscriptions that the server told of last.
    subscriptions: Cell<i64>,
    is_private: bool,
}

#[derive(Default)]
struct Inner {
    out: Out,
    pending: VecDeque<Pending>,
}

impl Inner {
    /// Whether what is to be sent may wait for more.
    fn is_early(&self) -> bool {
        self.pending.len() > 1 && self.out.is_early()
    }

    /// The request that waits longest. What a burst of them took is given back when the last one is answered.
    fn next(&mut self) -> Option<Pending> {
        let first = self.pending.pop_front();
        if self.pending.is_empty() && self.pending.capacity() > PENDING_KEPT {
            self.pending = VecDeque::new();
        }
        first
    }
}

impl Conn {
    /// Starts to connect; requests may be sent at once.
    pub fn open(pool: &Rc<Pool>, node: &Rc<Node>, purpose: Purpose, is_private: bool) -> Rc<Conn> {
        let conn = Rc::new(Conn {
            node: Rc::clone(node),
            purpose,
            inner: RefCell::default(),
            bell: Bell::default(),
            state: Cell::new(State::Connecting),
            is_killed: Cell::new(false),
            is_retired: Cell::new(false),
            listener: RefCell::default(),
            subscriptions: Cell::new(0),
            is_private,
        });
        node.sheet.connections.add(1);
        node.sheet.connects.add(1);
        if is_private {
            pool.meter.sheet.private.add(1);
        }
        tokio::task::spawn_local(run(Rc::clone(&conn), Rc::clone(pool)));
        conn
    }

    /// Whether nothing can be sent any more.
    pub fn is_dead(&self) -> bool {
        self.state.get() == State::Dead || self.is_killed.get() || self.is_retired.get()
    }

    /// Whether nothing is in flight.
    pub fn is_quiet(&self) -> bool {
        self.inner.borrow().pending.is_empty()
    }

    /// Whether the request at the front may take as long as it likes.
    pub fn is_patient(&self) -> bool {
        self.inner.borrow().pending.front().is_some_and(|first| first.is_patient)
    }

    /// Ends it at once; what is in flight fails.
    pub fn kill(&self) {
        self.is_killed.set(true);
        self.bell.ring();
    }

    /// Ends it once nothing is in flight.
    pub fn retire(&self) {
        self.is_retired.set(true);
        self.bell.ring();
    }

    /// Sends a request. If there are too many in flight it fails at once.
    pub fn send(&self, request: &[u8], pending: Pending) {
        self.send_with(pending, |out| out.extend_from_slice(request));
    }

    /// Sends what `write` writes.
    pub fn send_with(&self, pending: Pending, write: impl FnOnce(&mut Vec<u8>)) {
        let node = &self.node;
        if self.is_dead() {
            return pending.fail(&node.down_text());
        }
        let mut inner = self.inner.borrow_mut();
        if inner.pending.len() >= node.in_flight_max.get() {
            drop(inner);
            node.sheet.refused.add(1);
            return pending.fail(&format!("ERR server {} has too many requests in flight", node.addr));
        }
        node.sheet.requests.add(1);
        node.sheet.in_flight.add(1);
        inner.out.with(write);
        inner.pending.push_back(pending);
        drop(inner);
        self.bell.ring();
    }

    /// From now on every frame goes to `to`, and nothing is counted as a reply.
    pub fn listen(&self, to: &Rc<Mailbox>) {
        self.subscriptions.set(1);
        *self.listener.borrow_mut() = Some(Rc::clone(to));
    }

    /// The client listens again, after it had ended all subscriptions.
    pub fn resume_listening(&self, to: &Rc<Mailbox>) {
        if self.listener.borrow().is_none() || !self.has_subscriptions() {
            self.listen(to);
        }
    }

    /// Nobody listens any more.
    pub fn ignore(&self) {
        *self.listener.borrow_mut() = None;
    }

    /// Sends bytes that get no reply of their own, to a server that is listened to.
    pub fn tell(&self, request: &[u8]) {
        self.inner.borrow_mut().out.push(request);
        self.bell.ring();
    }

    /// Whether the client is subscribed to something.
    pub fn has_subscriptions(&self) -> bool {
        self.subscriptions.get() > 0
    }

    fn take(&self, pool: &Rc<Pool>, reply: &[u8]) -> Result<(), Fault> {
        if let Some(listener) = self.listener.borrow().as_ref() {
            if let Some(count) = subscription_count(reply) {
                self.subscriptions.set(count);
            }
            listener.tell(reply);
            return Ok(());
        }
        if reply.first() == Some(&b'>') && !pool.is_memcached() {
            // A push on a shared connection has no one to go to; nothing that causes one is let through.
            return Ok(());
        }
        let Some(pending) = self.inner.borrow_mut().next() else {
            return Err(Fault::Unasked);
        };
        self.node.sheet.in_flight.sub(1);
        if reply.first() == Some(&b'-') && pool.redirects(self, &pending, reply) {
            pool.redirect(self, pending, reply);
            return Ok(());
        }
        let is_error = pending.is_hedge && reply.first() == Some(&b'-');
        if let Some(to) = pending.to.as_ref().filter(|_| !is_error) {
            pending.expected.deliver(to, pending.number, pending.part, reply);
        }
        Ok(())
    }

    /// Every request that waits gets the error, but for reads that another server may answer.
    fn fail(&self, pool: &Rc<Pool>, fault: &Fault) {
        self.state.set(State::Dead);
        let pending = std::mem::take(&mut self.inner.borrow_mut().pending);
        self.inner.borrow_mut().out.clear();
        let sheet = &self.node.sheet;
        sheet.in_flight.sub(pending.len() as u64);
        sheet.connections.sub(1);
        if self.is_private {
            pool.meter.sheet.private.sub(1);
        }
        if let Some(listener) = self.listener.borrow_mut().take() {
            listener.abort();
        }
        if !matches!(fault, Fault::Dropped) {
            sheet.failures.add(1);
            if matches!(fault, Fault::Timeout(_)) {
                sheet.timeouts.add(1);
            }
            tracing::debug!(pool = pool.name(), server = %self.node.addr, error = %fault, "a connection to a server ended");
        }
        let may_hedge = !pool.view().config.hedge_after.0.is_zero();
        let text = format!("ERR server {} failed: {fault}", self.node.addr);
        for pending in pending {
            match pending.again.clone().filter(|_| pending.is_read && may_hedge) {
                Some(request) => pool.hedge(&self.node, self.purpose, &request, pending),
                None => pending.fail(&text),
            }
        }
    }

    /// When the request that waits longest is overdue; `None` if none is.
    fn deadline(&self, timeout: Duration) -> Option<MonoTime> {
        let inner = self.inner.borrow();
        let first = inner.pending.front()?;
        (!first.is_patient).then(|| first.sent + timeout)
    }

    /// When the first read is due to be asked of another server as well.
    fn hedge_deadline(&self, after: Duration) -> Option<MonoTime> {
        let inner = self.inner.borrow();
        let first = inner.pending.iter().find(|pending| pending.is_read)?;
        Some(first.sent + after)
    }

    /// The reads that have waited for so long, each once, with the request itself.
    fn take_overdue(&self, after: Duration) -> Vec<(Pending, Rc<[u8]>)> {
        let now = clock::now();
        let mut inner = self.inner.borrow_mut();
        let overdue = inner.pending.iter_mut().take_while(|pending| pending.sent + after <= now);
        overdue
            .filter_map(|pending| {
                let is_due = std::mem::take(&mut pending.is_read);
                let request = pending.again.clone().filter(|_| is_due)?;
                let mut hedge = Pending::new(pending.to.as_ref(), pending.number, pending.part);
                hedge.is_hedge = true;
                Some((hedge, request))
            })
            .collect()
    }
}

/// Of a confirmation of (un)subscribing, the number of subscriptions left.
fn subscription_count(reply: &[u8]) -> Option<i64> {
    use crate::resp::reply::Value;
    if !matches!(reply.first(), Some(b'*' | b'>')) || reply.len() > 4096 {
        return None;
    }
    let kinds: [&[u8]; 2] = [b"subscribe\r\n", b"psubscribe\r\n"];
    let window = reply.get(..reply.len().min(40)).unwrap_or_default();
    let is_one = kinds.iter().any(|kind| memchr::memmem::find(window, kind).is_some())
        || memchr::memmem::find(window, b"unsubscribe\r\n").is_some();
    if !is_one {
        return None;
    }
    // A push has the shape of a list.
    let mut list = reply.to_vec();
    list[0] = b'*';
    match Value::read(&list)?.list() {
        [kind, _, count] if kind.text()?.ends_with("subscribe") => count.integer(),
        _ => None,
    }
}

async fn run(conn: Rc<Conn>, pool: Rc<Pool>) {
    let mut hedge = Alarm::default();
    let mut connecting = std::pin::pin!(connect::connect(&conn, &pool));
    let connected = poll_fn(|cx| {
        conn.bell.answer(cx);
        let polled = connecting.as_mut().poll(cx);
        poll_hedge(&conn, &pool, &mut hedge, cx);
        polled
    });
    let fault = match connected.await {
        Ok(stream) => {
            conn.state.set(State::Up);
            conn.node.came_up();
            serve(&conn, &pool, stream).await
        }
        Err(fault) => {
            if !matches!(fault, Fault::Dropped) {
                conn.node.went_down();
            }
            fault
        }
    };
    // A server may close a quiet connection as it likes.
    let is_harmless = matches!(fault, Fault::Dropped) || (matches!(fault, Fault::Closed) && conn.is_quiet());
    if !is_harmless {
        conn.node.health.failed();
        pool.suspect();
    }
    clock::refresh();
    conn.fail(&pool, &fault);
}

/// How replies are told apart.
enum Scanner {
    Resp(ReplyScanner),
    Memcached(crate::memcached::scan::Scanner),
}

async fn serve(conn: &Rc<Conn>, pool: &Rc<Pool>, mut stream: Stream) -> Fault {
    let mut inbox = In::default();
    let mut scanner = match pool.is_memcached() {
        true => Scanner::Memcached(Default::default()),
        false => Scanner::Resp(ReplyScanner::default()),
    };
    let (mut alarm, mut hedge) = (Alarm::default(), Alarm::default());
    let mut patience = Patience::default();
    poll_fn(|cx| {
        conn.bell.answer(cx);
        clock::refresh();
        if conn.is_killed.get() {
            return Poll::Ready(Fault::Dropped);
        }
        if let Poll::Ready(fault) = poll_replies(conn, pool, &mut stream, &mut inbox, &mut scanner, cx) {
            return Poll::Ready(fault);
        }
        // A request alone goes at once; where there are several, more are likely to come in.
        let is_early = conn.inner.borrow().is_early();
        if !patience.waits(cx, is_early) {
            let flushed = conn.inner.borrow_mut().out.poll_flush(cx, &mut stream);
            match flushed {
                Poll::Ready(Ok(bytes)) => conn.node.sheet.bytes_out.add(bytes as u64),
                Poll::Ready(Err(error)) => return Poll::Ready(Fault::Io(error)),
                Poll::Pending => {}
            }
        }
        if conn.is_retired.get() && conn.is_quiet() && conn.listener.borrow().is_none() {
            return Poll::Ready(Fault::Dropped);
        }
        poll_hedge(conn, pool, &mut hedge, cx);
        let timeout = pool.view().config.timeout_request.0;
        alarm.poll(cx, || conn.deadline(timeout)).map(|()| Fault::Timeout(timeout))
    })
    .await
}

/// Asks others for reads that have waited for too long, if the pool wants that.
fn poll_hedge(conn: &Rc<Conn>, pool: &Rc<Pool>, hedge: &mut Alarm, cx: &mut Context<'_>) {
    let after = pool.view().config.hedge_after.0;
    while !after.is_zero() && hedge.poll(cx, || conn.hedge_deadline(after)).is_ready() {
        let overdue = conn.take_overdue(after);
        for (pending, request) in overdue {
            pool.hedge(&conn.node, conn.purpose, &request, pending);
        }
    }
}

fn poll_replies(
    conn: &Rc<Conn>,
    pool: &Rc<Pool>,
    stream: &mut Stream,
    inbox: &mut In,
    scanner: &mut Scanner,
    cx: &mut Context<'_>,
) -> Poll<Fault> {
    let reply_max = pool.view().config.reply_max.as_usize();
    scratch(|scratch| {
        loop {
            let round = inbox.poll_round::<Fault>(cx, stream, scratch, |bytes| {
                let found = match scanner {
                    Scanner::Resp(scanner) => scanner.scan(bytes, reply_max)?,
                    Scanner::Memcached(scanner) => {
                        let inner = conn.inner.borrow();
                        let pending = inner.pending.front().ok_or(Fault::Unasked)?;
                        scanner.scan(bytes, &pending.expected, reply_max)?
                    }
                };
                match found {
                    Found::Reply(len) => {
                        conn.take(pool, bytes.get(..len).unwrap_or_default())?;
                        Ok(Step::Took(len))
                    }
                    Found::More { wanted } => Ok(Step::More(wanted)),
                }
            });
            match round {
                Poll::Ready(Ok((Round::End, _))) => return Poll::Ready(Fault::Closed),
                Poll::Ready(Ok((_, bytes))) => {
                    conn.node.sheet.bytes_in.add(bytes as u64);
                    conn.node.health.succeeded();
                }
                Poll::Ready(Err(fault)) => return Poll::Ready(fault),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
}

/// Looks after the oldest request. It is set once per span, not once per request: a later request is due later.
#[derive(Default)]
struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    is_set: bool,
}

impl Alarm {
    /// Ready when `deadline` is past. It is asked when the alarm goes off, and when it is not set.
    fn poll(&mut self, cx: &mut Context<'_>, deadline: impl Fn() -> Option<MonoTime>) -> Poll<()> {
        loop {
            if !self.is_set {
                let Some(deadline) = deadline() else {
                    return Poll::Pending;
                };
                let left = deadline.since(clock::now());
                if left.is_zero() {
                    return Poll::Ready(());
                }
                let at = Instant::now() + left;
                match &mut self.sleep {
                    Some(sleep) => sleep.as_mut().reset(at),
                    None => self.sleep = Some(Box::pin(tokio::time::sleep_until(at))),
                }
                self.is_set = true;
            }
            let is_over = self.sleep.as_mut().is_none_or(|sleep| sleep.as_mut().poll(cx).is_ready());
            if !is_over {
                return Poll::Pending;
            }
            self.is_set = false;
        }
    }
}
