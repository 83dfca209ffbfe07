//! Where replies for one client arrive, in whatever order, and leave in the order of its requests.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};

use bytes::Bytes;

use crate::join::Join;
use crate::meter::{Meter, Tally};
use crate::net::{Out, SHARED_MIN};

/// The replies of one client. Held by its session and by every request of it that is in flight.
pub struct Mailbox {
    /// Unique in the process; clients see it as `CLIENT ID`.
    pub id: u64,
    inner: RefCell<Inner>,
    bell: Bell,
    is_closed: Cell<bool>,
    is_aborted: Cell<bool>,
    silence: Cell<Silence>,
    meter: Rc<Meter>,
}

/// Which replies the client does not want, as `CLIENT REPLY` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Silence {
    #[default]
    None,
    All,
    /// That of the next request alone.
    Next,
}

/// Wakes a task once, however often it rings before the task runs.
#[derive(Default)]
pub struct Bell {
    waker: RefCell<Option<Waker>>,
    rang: Cell<bool>,
}

impl Bell {
    /// Called by the task when it runs.
    pub fn answer(&self, cx: &Context<'_>) {
        self.rang.set(false);
        let mut waker = self.waker.borrow_mut();
        match waker.as_ref() {
            Some(known) if known.will_wake(cx.waker()) => {}
            _ => *waker = Some(cx.waker().clone()),
        }
    }

    /// Lets the task run soon.
    pub fn ring(&self) {
        if !self.rang.replace(true)
            && let Some(waker) = self.waker.borrow().as_ref()
        {
            waker.wake_by_ref();
        }
    }
}

#[derive(Default)]
struct Inner {
    /// Number of the request at the front.
    first: u64,
    slots: VecDeque<Slot>,
    out: Out,
}

struct Slot {
    state: State,
    /// Its reply is counted and dropped.
    is_silent: bool,
    tally: Tally,
}

enum State {
    Waiting,
    Done(Bytes),
    Joining(Box<Join>),
}

impl Mailbox {
    /// Empty.
    pub fn new(id: u64, meter: Rc<Meter>) -> Rc<Mailbox> {
        Rc::new(Mailbox {
            id,
            inner: RefCell::default(),
            bell: Bell::default(),
            is_closed: Cell::new(false),
            is_aborted: Cell::new(false),
            silence: Cell::default(),
            meter,
        })
    }

    /// For the session's task.
    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Where what was counted goes.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// A place for the reply of a request that goes to one server. Returns its number.
    pub fn expect(&self, tally: Tally) -> u64 {
        self.slot(State::Waiting, tally)
    }

    /// A place for a reply made of several.
    pub fn expect_join(&self, join: Join, tally: Tally) -> u64 {
        self.slot(State::Joining(Box::new(join)), tally)
    }

    /// Requests from now on get replies, or none.
    pub fn silence(&self, silence: Silence) {
        self.silence.set(silence);
    }

    /// Which replies the client does not want now.
    pub fn silenced(&self) -> Silence {
        self.silence.get()
    }

    fn is_silent(&self) -> bool {
        match self.silence.get() {
            Silence::None => false,
            Silence::All => true,
            Silence::Next => {
                self.silence.set(Silence::None);
                true
            }
        }
    }

    fn slot(&self, state: State, tally: Tally) -> u64 {
        let is_silent = self.is_silent();
        let mut inner = self.inner.borrow_mut();
        inner.slots.push_back(Slot { state, is_silent, tally });
        inner.first + inner.slots.len() as u64 - 1
    }

    /// Appends a reply that is known at once, behind those that are awaited.
    pub fn say(&self, tally: Tally, reply: impl FnOnce(&mut Vec<u8>)) {
        let is_silent = self.is_silent();
        let mut inner = self.inner.borrow_mut();
        if inner.slots.is_empty() && !is_silent {
            let before = inner.out.len();
            let mut is_error = false;
            inner.out.with(|out| {
                let start = out.len();
                reply(out);
                is_error = out.get(start) == Some(&b'-');
            });
            let bytes = inner.out.len() - before;
            self.meter.done(&tally, bytes, is_error);
            return;
        }
        let mut bytes = Vec::new();
        reply(&mut bytes);
        inner.slots.push_back(Slot {
            state: State::Done(bytes.into()),
            is_silent,
            tally,
        });
        if is_silent {
            self.release(&mut inner);
        }
    }

    /// Hands over the reply to request `number`, or to part `part` of it.
    pub fn deliver(&self, number: u64, part: u16, reply: &[u8]) {
        self.put(number, part, reply, || Bytes::copy_from_slice(reply));
    }

    /// The same for a reply that is shared.
    pub fn deliver_shared(&self, number: u64, part: u16, reply: &Bytes) {
        self.put(number, part, reply, || reply.clone());
    }

    fn put(&self, number: u64, part: u16, reply: &[u8], shared: impl FnOnce() -> Bytes) {
        if self.is_closed.get() {
            return;
        }
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let Some(at) = number.checked_sub(inner.first) else {
            return;
        };
        let Some(slot) = inner.slots.get_mut(at as usize) else {
            return;
        };
        match &mut slot.state {
            State::Waiting if at == 0 => {
                if slot.is_silent {
                    // Counted below.
                } else if reply.len() >= SHARED_MIN {
                    inner.out.push_shared(shared());
                } else {
                    inner.out.push(reply);
                }
                self.meter.done(&slot.tally, reply.len(), reply.first() == Some(&b'-'));
                inner.slots.pop_front();
                inner.first += 1;
            }
            State::Waiting => slot.state = State::Done(shared()),
            State::Joining(join) => {
                join.take(part, shared());
                if !join.is_complete() {
                    return;
                }
            }
            State::Done(_) => return,
        }
        self.release(inner);
    }

    /// Moves what is complete from the front to the output.
    fn release(&self, inner: &mut Inner) {
        while let Some(slot) = inner.slots.front_mut() {
            let mut dropped;
            let out = if slot.is_silent {
                dropped = Out::default();
                &mut dropped
            } else {
                &mut inner.out
            };
            let before = out.len();
            let is_error = match &mut slot.state {
                State::Waiting => break,
                State::Joining(join) if !join.is_complete() => break,
                State::Done(reply) => {
                    let is_error = reply.first() == Some(&b'-');
                    out.push_shared(std::mem::take(reply));
                    is_error
                }
                State::Joining(join) => join.finish(out),
            };
            self.meter.done(&slot.tally, out.len() - before, is_error);
            inner.slots.pop_front();
            inner.first += 1;
        }
        if inner.slots.is_empty() && inner.slots.capacity() > 64 {
            inner.slots = VecDeque::new();
        }
        self.bell.ring();
    }

    /// Appends bytes that answer no request: messages to a subscriber.
    pub fn tell(&self, bytes: &[u8]) {
        if !self.is_closed.get() {
            self.inner.borrow_mut().out.push(bytes);
            self.bell.ring();
        }
    }

    /// Requests whose replies have not left.
    pub fn waiting(&self) -> usize {
        self.inner.borrow().slots.len()
    }

    /// Bytes that wait to be written.
    pub fn backlog(&self) -> usize {
        self.inner.borrow().out.len()
    }

    /// Uses the output, which nobody else may touch meanwhile.
    pub fn with_out<T>(&self, with: impl FnOnce(&mut Out) -> T) -> T {
        with(&mut self.inner.borrow_mut().out)
    }

    /// The client is gone: replies that still come are dropped.
    pub fn close(&self) {
        self.is_closed.set(true);
        let mut inner = self.inner.borrow_mut();
        inner.slots = VecDeque::new();
        inner.out.clear();
    }

    /// The client is to be disconnected: what it relied on is gone.
    pub fn abort(&self) {
        self.is_aborted.set(true);
        self.bell.ring();
    }

    /// Whether the client is to be disconnected.
    pub fn is_aborted(&self) -> bool {
        self.is_aborted.get()
    }

    /// Whether the client is gone.
    pub fn is_closed(&self) -> bool {
        self.is_closed.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::{Join, JoinKind};

    fn mailbox() -> Rc<Mailbox> {
        Mailbox::new(1, Rc::new(Meter::default()))
    }

    fn written(mailbox: &Mailbox) -> Vec<u8> {
        mailbox.with_out(|out| {
            let mut bytes = Vec::new();
            out.with(|tail| bytes = tail.clone());
            out.clear();
            bytes
        })
    }

    #[test]
    fn replies_leave_in_the_order_of_requests() {
        let mailbox = mailbox();
        let (a, b) = (mailbox.expect(Tally::default()), mailbox.expect(Tally::default()));
        mailbox.say(Tally::default(), |out| out.extend_from_slice(b"+C\r\n"));
        mailbox.deliver(b, 0, b"+B\r\n");
        assert_eq!(mailbox.backlog(), 0);
        mailbox.deliver(a, 0, b"+A\r\n");
        assert_eq!(written(&mailbox), b"+A\r\n+B\r\n+C\r\n");
        assert_eq!(mailbox.waiting(), 0);
    }

    #[test]
    fn a_second_reply_to_one_request_is_dropped() {
        let mailbox = mailbox();
        let (a, b) = (mailbox.expect(Tally::default()), mailbox.expect(Tally::default()));
        mailbox.deliver(b, 0, b"+B\r\n");
        mailbox.deliver(b, 0, b"+X\r\n");
        mailbox.deliver(a, 0, b"+A\r\n");
        mailbox.deliver(a, 0, b"+X\r\n");
        mailbox.deliver(99, 0, b"+X\r\n");
        assert_eq!(written(&mailbox), b"+A\r\n+B\r\n");
    }

    #[test]
    fn a_joined_reply_waits_for_all_its_parts() {
        let mailbox = mailbox();
        let number = mailbox.expect_join(Join::new(JoinKind::Sum, 2), Tally::default());
        mailbox.deliver(number, 1, b":2\r\n");
        assert_eq!(mailbox.waiting(), 1);
        mailbox.deliver(number, 0, b":3\r\n");
        assert_eq!(written(&mailbox), b":5\r\n");
    }

    #[test]
    fn who_wants_no_replies_gets_none() {
        let mailbox = mailbox();
        let text = |text: &'static str| move |out: &mut Vec<u8>| out.extend_from_slice(text.as_bytes());
        let a = mailbox.expect(Tally::default());
        mailbox.silence(Silence::Next);
        let b = mailbox.expect(Tally::default());
        let c = mailbox.expect(Tally::default());
        mailbox.deliver(b, 0, b"+B\r\n");
        mailbox.deliver(c, 0, b"+C\r\n");
        mailbox.deliver(a, 0, b"+A\r\n");
        assert_eq!(written(&mailbox), b"+A\r\n+C\r\n");
        mailbox.silence(Silence::All);
        let number = mailbox.expect_join(Join::new(JoinKind::Sum, 1), Tally::default());
        mailbox.deliver(number, 0, b":2\r\n");
        let number = mailbox.expect(Tally::default());
        mailbox.deliver(number, 0, b"+D\r\n");
        mailbox.say(Tally::default(), text("+E\r\n"));
        mailbox.silence(Silence::None);
        mailbox.say(Tally::default(), text("+F\r\n"));
        assert_eq!((written(&mailbox), mailbox.waiting()), (b"+F\r\n".to_vec(), 0));
    }

    #[test]
    fn nothing_is_kept_for_who_is_gone() {
        let mailbox = mailbox();
        let number = mailbox.expect(Tally::default());
        mailbox.close();
        mailbox.deliver(number, 0, b"+A\r\n");
        mailbox.tell(b"x");
        assert_eq!((mailbox.backlog(), mailbox.waiting()), (0, 0));
    }
}
