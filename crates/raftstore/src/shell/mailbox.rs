//! Machines with mailboxes, polled by a pool of threads: how thousands of regions share a few threads.
//!
//! A mailbox is idle, notified or dropped. Whoever puts an event into an idle one notifies it: it enters the pool's queue once, however
//! many events follow. A thread takes a batch of notified machines and hands each its events; they are idle again when it lets go of the
//! batch. Until then no other thread polls them, so that what a batch wants done together leaves in the order of its machines' steps.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use base::RegionId;
use parking_lot::{Condvar, Mutex, RwLock};

const IDLE: u8 = 0;
const NOTIFIED: u8 = 1;
const DROPPED: u8 = 2;

/// A machine and the events that wait for it.
pub struct Mailbox<M, E> {
    state: AtomicU8,
    queue: Mutex<VecDeque<E>>,
    /// Requests beyond this many are refused; what the store itself sends always finds room, since it is bounded by what is under way.
    requests_max: usize,
    machine: Mutex<Option<M>>,
    ready: Arc<Queue<Arc<Mailbox<M, E>>>>,
}

/// Why an event was not taken; it comes back.
pub enum Refused<E> {
    Full(E),
    /// No such region here, or no more.
    Gone(E),
}

impl<M, E> Mailbox<M, E> {
    /// Takes an event that must not be lost.
    pub fn send(self: &Arc<Self>, event: E) -> Result<(), Refused<E>> {
        self.put(event, usize::MAX)
    }

    /// Takes a request of a client, or refuses it when too many wait.
    pub fn try_send(self: &Arc<Self>, event: E) -> Result<(), Refused<E>> {
        self.put(event, self.requests_max)
    }

    fn put(self: &Arc<Self>, event: E, max: usize) -> Result<(), Refused<E>> {
        {
            let mut queue = self.queue.lock();
            if self.state.load(Ordering::Acquire) == DROPPED {
                return Err(Refused::Gone(event));
            }
            if queue.len() >= max {
                return Err(Refused::Full(event));
            }
            queue.push_back(event);
        }
        self.notify();
        Ok(())
    }

    fn notify(self: &Arc<Self>) {
        if self
            .state
            .compare_exchange(IDLE, NOTIFIED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
        {
            self.ready.push(self.clone());
        }
    }

    /// Hands the machine its events. The mailbox stays notified.
    fn poll(&self, handle: &mut dyn FnMut(&mut M, VecDeque<E>)) {
        let mut machine = self.machine.lock();
        let events = std::mem::take(&mut *self.queue.lock());
        if let Some(machine) = machine.as_mut() {
            handle(machine, events);
        }
    }

    /// Ends with the mailbox idle, or notified again when more came.
    fn let_go(self: &Arc<Self>) {
        if self
            .state
            .compare_exchange(NOTIFIED, IDLE, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
            && !self.queue.lock().is_empty()
        {
            self.notify();
        }
    }
}

type Mailboxes<M, E> = HashMap<RegionId, Arc<Mailbox<M, E>>>;

/// Finds the mailbox of a region.
pub struct Router<M, E> {
    mailboxes: RwLock<Mailboxes<M, E>>,
    /// Those whose machines want ticks, apart: to walk over thousands of others at each tick would cost more than all else at rest. Its
    /// lock is taken after the other.
    awake: RwLock<Mailboxes<M, E>>,
    requests_max: usize,
    ready: Arc<Queue<Arc<Mailbox<M, E>>>>,
}

/// Machines that a thread takes at once.
const BATCH: usize = 64;

impl<M, E> Router<M, E> {
    /// A router, and what its pool's threads read. The queue holds each mailbox once at most: the number of regions bounds it.
    pub fn new(requests_max: usize) -> (Arc<Router<M, E>>, Ready<M, E>) {
        let ready = Arc::new(Queue {
            items: Mutex::default(),
            came: Condvar::new(),
        });
        (
            Arc::new(Router {
                mailboxes: RwLock::default(),
                awake: RwLock::default(),
                requests_max,
                ready: ready.clone(),
            }),
            Ready(ready),
        )
    }

    pub fn get(&self, region: RegionId) -> Option<Arc<Mailbox<M, E>>> {
        self.mailboxes.read().get(&region).cloned()
    }

    /// Adds a machine. At most one of a region exists.
    pub fn insert(&self, region: RegionId, machine: M) -> Arc<Mailbox<M, E>> {
        let mailbox = Arc::new(Mailbox {
            state: AtomicU8::new(IDLE),
            queue: Mutex::default(),
            requests_max: self.requests_max,
            machine: Mutex::new(Some(machine)),
            ready: self.ready.clone(),
        });
        let mut all = self.mailboxes.write();
        let before = all.insert(region, mailbox.clone());
        assert!(before.is_none(), "region {region} has a machine already");
        self.awake.write().insert(region, mailbox.clone());
        mailbox
    }

    /// Takes a machine away, with the events that it has not seen. Must not be called from within its own poll.
    pub fn remove(&self, region: RegionId) -> Option<(M, VecDeque<E>)> {
        let mut all = self.mailboxes.write();
        let mailbox = all.remove(&region)?;
        self.awake.write().remove(&region);
        drop(all);
        let mut queue = mailbox.queue.lock();
        mailbox.state.store(DROPPED, Ordering::Release);
        let left = std::mem::take(&mut *queue);
        drop(queue);
        let machine = mailbox.machine.lock().take()?;
        Some((machine, left))
    }

    /// Lets go of all machines: their threads have ended.
    pub fn clear(&self) {
        self.mailboxes.write().clear();
        self.awake.write().clear();
        // A mailbox in the queue holds the queue.
        self.ready.items.lock().clear();
    }

    pub fn send(&self, region: RegionId, event: E) -> Result<(), Refused<E>> {
        match self.get(region) {
            Some(mailbox) => mailbox.send(event),
            None => Err(Refused::Gone(event)),
        }
    }

    pub fn try_send(&self, region: RegionId, event: E) -> Result<(), Refused<E>> {
        match self.get(region) {
            Some(mailbox) => mailbox.try_send(event),
            None => Err(Refused::Gone(event)),
        }
    }

    /// Notes whether a region's machine wants no ticks.
    pub fn set_hibernates(&self, region: RegionId, hibernates: bool) {
        let all = self.mailboxes.read();
        let Some(mailbox) = all.get(&region) else { return };
        let mut awake = self.awake.write();
        match hibernates {
            true => drop(awake.remove(&region)),
            false => drop(awake.insert(region, mailbox.clone())),
        }
    }

    /// Sends to every region.
    pub fn broadcast(&self, event: impl Fn() -> E) {
        let all: Vec<_> = self.mailboxes.read().values().cloned().collect();
        send_all(&all, event);
    }

    /// Sends to every region whose machine wants ticks.
    pub fn broadcast_awake(&self, event: impl Fn() -> E) {
        let awake: Vec<_> = self.awake.read().values().cloned().collect();
        send_all(&awake, event);
    }

    /// Sends to those other regions that are `wanted`.
    pub fn broadcast_hibernating(&self, wanted: impl Fn(RegionId) -> bool, event: impl Fn() -> E) {
        let hibernating: Vec<_> = {
            let (all, awake) = (self.mailboxes.read(), self.awake.read());
            let others = all.iter().filter(|(id, _)| wanted(**id) && !awake.contains_key(id));
            others.map(|(_, mailbox)| mailbox.clone()).collect()
        };
        send_all(&hibernating, event);
    }

    /// Number of regions.
    pub fn count(&self) -> usize {
        self.mailboxes.read().len()
    }

    /// Number of regions whose machines want no ticks.
    pub fn count_hibernating(&self) -> usize {
        let (all, awake) = (self.mailboxes.read(), self.awake.read());
        all.len() - awake.len()
    }
}

fn send_all<M, E>(mailboxes: &[Arc<Mailbox<M, E>>], event: impl Fn() -> E) {
    for mailbox in mailboxes {
        // A region that goes away meanwhile needs no event.
        let _gone = mailbox.send(event());
    }
}

/// A queue whose readers sleep while it is empty. Channels spin before they do, and yield to whoever would run anyhow: with more threads
/// than cores that took a twentieth of a busy store's processor time.
struct Queue<T> {
    items: Mutex<VecDeque<T>>,
    came: Condvar,
}

impl<T> Queue<T> {
    fn push(&self, item: T) {
        self.items.lock().push_back(item);
        self.came.notify_one();
    }

    fn try_pop(&self) -> Option<T> {
        self.items.lock().pop_front()
    }

    /// Waits for an item up to `wait`; for less, if another reader is quicker to take what came.
    fn pop(&self, wait: Duration) -> Option<T> {
        let mut items = self.items.lock();
        if items.is_empty() {
            self.came.wait_for(&mut items, wait);
        }
        items.pop_front()
    }
}

/// The queue of notified mailboxes.
pub struct Ready<M, E>(Arc<Queue<Arc<Mailbox<M, E>>>>);

impl<M, E> Clone for Ready<M, E> {
    fn clone(&self) -> Self {
        Ready(self.0.clone())
    }
}

impl<M, E> Ready<M, E> {
    /// Polls a batch of machines; waits for the first up to `wait`. Each machine is polled again only after the batch is dropped.
    pub fn poll(&self, wait: Duration, handle: &mut dyn FnMut(&mut M, VecDeque<E>)) -> Polled<M, E> {
        let mut polled = Vec::new();
        let mut next = self.0.pop(wait);
        while let Some(mailbox) = next {
            mailbox.poll(handle);
            polled.push(mailbox);
            next = if polled.len() < BATCH { self.0.try_pop() } else { None };
        }
        Polled(polled)
    }

    /// How many machines wait for a thread.
    pub fn waiting(&self) -> usize {
        self.0.items.lock().len()
    }
}

/// Machines that were polled together; dropped, they can be polled again.
#[must_use]
pub struct Polled<M, E>(Vec<Arc<Mailbox<M, E>>>);

impl<M, E> Polled<M, E> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<M, E> Drop for Polled<M, E> {
    fn drop(&mut self) {
        self.0.iter().for_each(Mailbox::let_go);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: RegionId = RegionId(1);

    #[test]
    fn events_reach_their_machine_in_order_and_it_waits_once() {
        let (router, ready) = Router::<Vec<u32>, u32>::new(10);
        router.insert(ONE, Vec::new());
        for event in 0..5 {
            assert!(router.send(ONE, event).is_ok());
        }
        assert_eq!(ready.waiting(), 1, "notified once for all events");
        let mut seen = Vec::new();
        let polled = ready.poll(Duration::ZERO, &mut |machine, events| {
            machine.extend(events);
            seen = machine.clone();
        });
        assert_eq!(polled.0.len(), 1);
        drop(polled);
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        assert!(ready.poll(Duration::ZERO, &mut |_, _| panic!("idle")).is_empty());
        assert!(router.send(ONE, 5).is_ok());
        assert_eq!(ready.waiting(), 1);
    }

    #[test]
    fn an_event_during_a_poll_notifies_again() {
        let (router, ready) = Router::<(), u32>::new(10);
        let mailbox = router.insert(ONE, ());
        assert!(mailbox.send(1).is_ok());
        let mut seen = Vec::new();
        let mut poll = || {
            ready.poll(Duration::ZERO, &mut |(), events| {
                if seen.is_empty() {
                    assert!(mailbox.send(2).is_ok());
                }
                seen.push(events);
            })
        };
        drop(poll());
        drop(poll());
        assert_eq!(seen, [[1], [2]]);
    }

    /// What a thread does with a batch comes in the order of steps only if nobody else polls its machines meanwhile.
    #[test]
    fn a_machine_is_not_polled_again_before_its_batch_is_dropped() {
        let (router, ready) = Router::<(), u32>::new(10);
        let mailbox = router.insert(ONE, ());
        assert!(mailbox.send(1).is_ok());
        let batch = ready.poll(Duration::ZERO, &mut |(), _| {});
        assert!(mailbox.send(2).is_ok());
        assert!(ready.poll(Duration::ZERO, &mut |(), _| panic!("not yet")).is_empty());
        drop(batch);
        let mut seen = Vec::new();
        drop(ready.poll(Duration::ZERO, &mut |(), events| seen.extend(events)));
        assert_eq!(seen, [2]);
    }

    #[test]
    fn requests_are_bounded_and_the_stores_own_events_are_not() {
        let (router, _ready) = Router::<(), u32>::new(2);
        router.insert(ONE, ());
        assert!(router.try_send(ONE, 1).is_ok() && router.try_send(ONE, 2).is_ok());
        assert!(matches!(router.try_send(ONE, 3), Err(Refused::Full(3))));
        assert!(router.send(ONE, 4).is_ok());
    }

    #[test]
    fn a_removed_machine_takes_nothing() {
        let (router, ready) = Router::<(), u32>::new(2);
        let mailbox = router.insert(ONE, ());
        assert!(mailbox.send(1).is_ok());
        assert_eq!(router.remove(ONE).map(|((), left)| left), Some([1].into()));
        assert!(matches!(mailbox.send(2), Err(Refused::Gone(2))));
        assert!(matches!(router.send(ONE, 3), Err(Refused::Gone(3))));
        drop(ready.poll(Duration::ZERO, &mut |(), _| panic!("it is gone")));
    }

    #[test]
    fn hibernating_machines_are_told_apart() {
        let (router, ready) = Router::<u32, u32>::new(2);
        (1..=3).for_each(|region| drop(router.insert(RegionId(region), 0)));
        router.set_hibernates(RegionId(2), true);
        router.set_hibernates(RegionId(3), true);
        router.set_hibernates(RegionId(9), true);
        assert_eq!((router.count(), router.count_hibernating()), (3, 2));
        let told = || {
            let mut told = 0;
            while !ready
                .poll(Duration::ZERO, &mut |_, events| told += events.into_iter().sum::<u32>())
                .is_empty()
            {}
            told
        };
        router.broadcast_awake(|| 1);
        assert_eq!(told(), 1);
        router.broadcast_hibernating(|_| true, || 10);
        router.broadcast_hibernating(|id| id == RegionId(2), || 100);
        assert_eq!(told(), 120);
        router.broadcast(|| 1);
        assert_eq!(told(), 3);
        router.set_hibernates(RegionId(2), false);
        router.remove(RegionId(3));
        assert_eq!((router.count(), router.count_hibernating()), (2, 0));
    }

    #[test]
    fn threads_lose_nothing() {
        let (router, ready) = Router::<u64, u64>::new(usize::MAX);
        for region in 1..=8 {
            router.insert(RegionId(region), 0);
        }
        let done = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let pollers: Vec<_> = (0..2)
            .map(|n| {
                let (ready, done) = (ready.clone(), done.clone());
                base::thread::spawn(&format!("poll-{n}"), move || {
                    while done.load(Ordering::Acquire) < 8 * 3 * 1000 {
                        drop(ready.poll(Duration::from_millis(1), &mut |sum, events| {
                            done.fetch_add(events.len() as u64, Ordering::AcqRel);
                            *sum += events.into_iter().sum::<u64>();
                        }));
                    }
                })
            })
            .collect();
        let senders: Vec<_> = (0..3)
            .map(|n| {
                let router = router.clone();
                base::thread::spawn(&format!("send-{n}"), move || {
                    for i in 0..1000 {
                        for region in 1..=8 {
                            assert!(router.send(RegionId(region), i).is_ok());
                        }
                    }
                })
            })
            .collect();
        for thread in senders.into_iter().chain(pollers) {
            thread.join().expect("no panic");
        }
        for region in 1..=8 {
            let mailbox = router.get(RegionId(region)).expect("there");
            assert_eq!(mailbox.machine.lock().expect("machine"), 3 * (0..1000).sum::<u64>());
        }
    }
}
