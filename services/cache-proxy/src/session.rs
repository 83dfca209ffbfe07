//! A client's connection: reads, gives requests to the protocol's session, writes replies; one task each.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base::MonoTime;
use tokio::time::{Instant, Sleep};

use crate::clock;
use crate::insight::Card;
use crate::mailbox::Mailbox;
use crate::net::{In, Patience, Round, Step, Stream};
use crate::pool::Pool;
use crate::worker::scratch;
use crate::{memcached, redis};

/// Bytes of replies that a client may leave unread before no further request of it is read.
const BACKLOG_MAX: usize = 1024 * 1024;
/// Bytes of requests that are read while a blocking one is in the way.
const AHEAD_MAX: usize = 64 * 1024;
/// Bytes of messages that a subscriber may leave unread before it is disconnected.
const MESSAGES_MAX: usize = 32 * 1024 * 1024;

/// Why a session ends early.
#[derive(Debug, thiserror::Error)]
pub enum End {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The client was told why; it is closed once that is written.
    #[error("malformed request")]
    Malformed,
    #[error("the client said so")]
    Quit,
}

enum Speaker {
    Redis(Box<redis::Session>),
    Memcached(Box<memcached::Session>),
}

impl Speaker {
    fn step(&mut self, bytes: &[u8]) -> Result<Step, End> {
        match self {
            Speaker::Redis(session) => session.step(bytes),
            Speaker::Memcached(session) => session.step(bytes),
        }
    }

    /// Whether it waits for a command that may take for ever.
    fn is_blocked(&self) -> bool {
        match self {
            Speaker::Redis(session) => session.may_wait_for_ever(),
            Speaker::Memcached(_) => false,
        }
    }

    /// At the beginning of each turn.
    fn turn(&mut self) {
        match self {
            Speaker::Redis(session) => session.turn(),
            Speaker::Memcached(session) => session.turn(),
        }
    }
}

/// Serves until the client leaves.
pub async fn run(stream: Stream, pool: &Rc<Pool>, card: &Arc<Card>, mailbox: &Rc<Mailbox>) {
    let speaker = match pool.is_memcached() {
        true => Speaker::Memcached(Box::new(memcached::Session::new(pool, mailbox))),
        false => Speaker::Redis(Box::new(redis::Session::new(pool, card, mailbox))),
    };
    let mut client = Client {
        stream,
        speaker,
        inbox: In::default(),
        patience: Patience::default(),
        is_closing: false,
        last: MonoTime::now(),
        alarm: None,
    };
    let ended = poll_fn(|cx| client.turn(pool, mailbox, cx)).await;
    if let Err(error) = ended {
        tracing::debug!(client = card.id, %error, "a client's connection ended");
    }
}

struct Client {
    stream: Stream,
    speaker: Speaker,
    inbox: In,
    patience: Patience,
    /// Nothing more is read; it ends once all replies are written.
    is_closing: bool,
    /// When it last said something.
    last: MonoTime,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Client {
    fn turn(&mut self, pool: &Rc<Pool>, mailbox: &Rc<Mailbox>, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        mailbox.bell().answer(cx);
        clock::refresh();
        self.speaker.turn();
        let view = pool.view();
        let pipeline_max = view.config.pipeline_max;
        loop {
            if mailbox.is_aborted() || mailbox.backlog() > MESSAGES_MAX {
                return Poll::Ready(Ok(()));
            }
            let may_read = || mailbox.waiting() < pipeline_max && mailbox.backlog() < BACKLOG_MAX;
            let waited = mailbox.waiting();
            let mut is_blocked = !may_read();
            while !self.is_closing && may_read() {
                match self.read(mailbox, pipeline_max, cx) {
                    Poll::Ready(Ok((round, bytes))) => {
                        pool.meter.sheet.bytes_in.add(bytes as u64);
                        self.last = clock::now();
                        match round {
                            Round::Again => {}
                            Round::Paused => {
                                is_blocked = true;
                                break;
                            }
                            // Nobody is left to have what a blocking command would take.
                            Round::End if self.speaker.is_blocked() => return Poll::Ready(Ok(())),
                            Round::End => self.is_closing = true,
                        }
                    }
                    Poll::Ready(Err(End::Io(error))) => return Poll::Ready(Err(End::Io(error))),
                    Poll::Ready(Err(End::Malformed)) => {
                        pool.meter.sheet.malformed.add(1);
                        self.is_closing = true;
                    }
                    Poll::Ready(Err(End::Quit)) => self.is_closing = true,
                    Poll::Pending => break,
                }
            }
            // Requests behind a blocking one must not hide that the client left.
            if is_blocked && self.speaker.is_blocked() && !self.is_closing {
                let ended = self.inbox.poll_end(cx, &mut self.stream, AHEAD_MAX);
                if let Poll::Ready(ended) = ended {
                    return Poll::Ready(ended.map_err(End::Io));
                }
            }
            // While more replies are on their way, those that are there wait for the next ones.
            let is_early = mailbox.waiting() > 0 && mailbox.with_out(|out| out.is_early());
            if !self.patience.waits(cx, is_early) {
                match mailbox.with_out(|out| out.poll_flush(cx, &mut self.stream)) {
                    Poll::Ready(Ok(bytes)) => pool.meter.sheet.bytes_out.add(bytes as u64),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(End::Io(error))),
                    Poll::Pending => {}
                }
            }
            if self.is_closing {
                if mailbox.waiting() == 0 && mailbox.backlog() == 0 {
                    return Poll::Ready(Ok(()));
                }
                return Poll::Pending;
            }
            // What blocked may be over now: a reply made at once, output that went out.
            let is_over = may_read() && (mailbox.waiting() < waited || mailbox.waiting() == 0);
            if !(is_blocked && is_over) {
                break;
            }
            if self.inbox.is_empty() {
                break;
            }
        }
        self.poll_idle(view.config.timeout_client.0, mailbox, cx)
    }

    fn read(&mut self, mailbox: &Mailbox, pipeline_max: usize, cx: &mut Context<'_>) -> Poll<Result<(Round, usize), End>> {
        let speaker = &mut self.speaker;
        scratch(|scratch| {
            self.inbox.poll_round(cx, &mut self.stream, scratch, |bytes| {
                if mailbox.waiting() >= pipeline_max || mailbox.backlog() >= BACKLOG_MAX {
                    return Ok(Step::Pause);
                }
                speaker.step(bytes)
            })
        })
    }

    /// Ends a client that was silent for too long and waits for nothing.
    fn poll_idle(&mut self, limit: Duration, mailbox: &Mailbox, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if limit.is_zero() {
            self.alarm = None;
            return Poll::Pending;
        }
        loop {
            let left = (self.last + limit).since(clock::now());
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if left.is_zero() && mailbox.waiting() == 0 {
                return Poll::Ready(Ok(()));
            }
            alarm.as_mut().reset(Instant::now() + left.max(Duration::from_millis(100)));
        }
    }
}
