//! Async blocks polled by hand: a program waits for messages and for time through its [`Port`], and nobody else runs it. What it wants
//! sent gathers in the port; whoever drives it takes that out after every step. Dropping a program is the death of its process.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use base::MonoTime;

use crate::message::Message;
use crate::network::Node;

pub type Program<T> = Pin<Box<dyn Future<Output = T>>>;

/// Polls a program once; it goes on as far as it can.
pub fn step<T>(program: &mut Program<T>) -> Option<T> {
    match program.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// What reaches a wait.
enum Arrival {
    Message(Message),
    /// Its time is over.
    Over,
}

#[derive(Default)]
struct Shared {
    now: Cell<MonoTime>,
    next: Cell<u64>,
    send: RefCell<Vec<(Node, Message)>>,
    wake: RefCell<Vec<(Duration, u64)>>,
    /// Waits under way; what comes for others comes too late.
    waits: RefCell<BTreeMap<u64, Option<Arrival>>>,
    /// Waits for any answer of the placement driver about regions, which carries no number.
    locating: RefCell<Vec<u64>>,
    spawned: RefCell<Vec<Program<()>>>,
    broken: RefCell<Option<String>>,
}

/// A program's door to the world.
#[derive(Clone, Default)]
pub struct Port(Rc<Shared>);

impl Port {
    pub fn now(&self) -> MonoTime {
        self.0.now.get()
    }

    pub fn set_now(&self, now: MonoTime) {
        self.0.now.set(now);
    }

    /// Asks `node` and waits for its answer, for at most this long. `message` is given the number under which to ask.
    pub async fn ask(&self, node: Node, patience: Duration, message: impl FnOnce(u64) -> Message) -> Option<Message> {
        let wait = self.wait(patience);
        let message = message(wait.number);
        if matches!(message, Message::Locate { .. }) {
            self.0.locating.borrow_mut().push(wait.number);
        }
        self.0.send.borrow_mut().push((node, message));
        match wait.await {
            Arrival::Message(message) => Some(message),
            Arrival::Over => None,
        }
    }

    pub async fn sleep(&self, span: Duration) {
        self.wait(span).await;
    }

    fn wait(&self, span: Duration) -> Wait {
        let number = self.0.next.get();
        self.0.next.set(number + 1);
        self.0.waits.borrow_mut().insert(number, None);
        self.0.wake.borrow_mut().push((span, number));
        Wait {
            port: self.clone(),
            number,
        }
    }

    /// Goes on beside the program that asks for it.
    pub fn spawn(&self, program: impl Future<Output = ()> + 'static) {
        self.0.spawned.borrow_mut().push(Box::pin(program));
    }

    pub fn take_spawned(&self) -> Vec<Program<()>> {
        self.0.spawned.take()
    }

    /// The store broke a promise that only a client can see broken.
    pub fn broken(&self, what: String) {
        self.0.broken.borrow_mut().get_or_insert(what);
    }

    pub fn take_broken(&self) -> Option<String> {
        self.0.broken.take()
    }

    pub fn take_sends(&self) -> Vec<(Node, Message)> {
        self.0.send.take()
    }

    pub fn take_wakes(&self) -> Vec<(Duration, u64)> {
        self.0.wake.take()
    }

    /// The answer to what was asked under this number.
    pub fn arrive(&self, number: u64, message: Message) {
        if let Some(slot) = self.0.waits.borrow_mut().get_mut(&number) {
            slot.get_or_insert(Arrival::Message(message));
        }
    }

    /// An answer about regions, which ends every wait for one.
    pub fn arrive_located(&self, message: &Message) {
        for number in self.0.locating.take() {
            self.arrive(number, message.clone());
        }
    }

    pub fn on_wake(&self, number: u64) {
        if let Some(slot) = self.0.waits.borrow_mut().get_mut(&number) {
            slot.get_or_insert(Arrival::Over);
        }
    }
}

struct Wait {
    port: Port,
    number: u64,
}

impl Future for Wait {
    type Output = Arrival;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Arrival> {
        let mut waits = self.port.0.waits.borrow_mut();
        match waits.get_mut(&self.number).and_then(Option::take) {
            Some(arrival) => Poll::Ready(arrival),
            None => Poll::Pending,
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.port.0.waits.borrow_mut().remove(&self.number);
    }
}

/// Runs futures side by side; their outcomes in the order of the futures.
pub async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in running.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                *done = Some(value);
            }
        }
        if done.iter().all(Option::is_some) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    done.into_iter().map(|done| done.expect("all are done")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Ts;

    fn timestamp(id: u64) -> Message {
        Message::Timestamp { id, ts: Ts(7) }
    }

    #[test]
    fn a_program_waits_for_its_own_answers() {
        let port = Port::default();
        let asking = port.clone();
        let mut program: Program<usize> = Box::pin(async move {
            let ask = || asking.ask(Node::Pd, Duration::from_secs(1), |id| Message::AskTimestamp { id });
            join_all([ask(), ask()]).await.into_iter().flatten().count()
        });
        assert!(step(&mut program).is_none());
        assert_eq!((port.take_sends().len(), port.take_wakes().len()), (2, 2));
        port.arrive(9, timestamp(9));
        port.arrive(1, timestamp(1));
        assert!(step(&mut program).is_none(), "the first is still out");
        port.on_wake(1);
        port.on_wake(0);
        assert_eq!(step(&mut program), Some(1));
        assert!(port.0.waits.borrow().is_empty());
    }

    #[test]
    fn a_dropped_program_leaves_no_wait() {
        let port = Port::default();
        let sleeping = port.clone();
        let mut program: Program<()> = Box::pin(async move { sleeping.sleep(Duration::from_secs(1)).await });
        assert!(step(&mut program).is_none());
        drop(program);
        assert!(port.0.waits.borrow().is_empty());
        port.on_wake(0);
    }
}
