//! Clients that ask for timestamps and write, without end; every failure is one too many.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base::MonoTime;
use client::RawClient;
use tokio::task::JoinHandle;

use crate::common::PATIENCE;

/// What one kind of client did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub count: u64,
    /// Longest time between two answers.
    pub longest: Duration,
}

impl Done {
    fn and(self, other: Done) -> Done {
        Done {
            count: self.count + other.count,
            longest: self.longest.max(other.longest),
        }
    }
}

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    timestamps: Vec<JoinHandle<Done>>,
    writes: Vec<JoinHandle<Done>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// The largest timestamp that anybody was given.
    largest: AtomicU64,
    given: AtomicU64,
    written: AtomicU64,
}

impl Load {
    pub fn start(client: &RawClient) -> Load {
        let shared = Arc::<Shared>::default();
        let ask = |_| tokio::spawn(ask(client.clone(), shared.clone()));
        let write = |writer| tokio::spawn(write(client.clone(), shared.clone(), writer));
        Load {
            timestamps: (0..2).map(ask).collect(),
            writes: (0..2).map(write).collect(),
            shared,
        }
    }

    /// Waits until so many more of each have come.
    pub async fn must_go_on(&self, more: u64) {
        let now = || {
            (
                self.shared.given.load(Ordering::SeqCst),
                self.shared.written.load(Ordering::SeqCst),
            )
        };
        let (given, written) = now();
        let deadline = MonoTime::now() + PATIENCE;
        while now().0 < given + more || now().1 < written + more {
            let ended = self.timestamps.iter().chain(&self.writes).any(JoinHandle::is_finished);
            assert!(!ended, "a client failed");
            assert!(MonoTime::now() < deadline, "clients are stuck at {:?}", now());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends the clients: what was asked for and what was written.
    pub async fn stop(self) -> (Done, Done) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let mut done = [Done::default(); 2];
        for (kind, tasks) in [self.timestamps, self.writes].into_iter().enumerate() {
            for task in tasks {
                done[kind] = done[kind].and(task.await.expect("no client failed"));
            }
        }
        (done[0], done[1])
    }
}

/// Notes how long answers take to follow each other.
struct Pace {
    last: MonoTime,
    done: Done,
}

impl Pace {
    fn new() -> Pace {
        Pace {
            last: MonoTime::now(),
            done: Done::default(),
        }
    }

    fn answer(&mut self) {
        let now = MonoTime::now();
        self.done.count += 1;
        self.done.longest = self.done.longest.max(now.since(self.last));
        self.last = now;
    }
}

async fn ask(client: RawClient, shared: Arc<Shared>) -> Done {
    let mut pace = Pace::new();
    while !shared.stop.load(Ordering::SeqCst) {
        let before = shared.largest.load(Ordering::SeqCst);
        let ts = client.pd().timestamp().await.expect("a timestamp").0;
        assert!(ts > before, "timestamp {ts} was given after {before}");
        shared.largest.fetch_max(ts, Ordering::SeqCst);
        shared.given.fetch_add(1, Ordering::SeqCst);
        pace.answer();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    pace.done
}

async fn write(client: RawClient, shared: Arc<Shared>, writer: usize) -> Done {
    let mut pace = Pace::new();
    while !shared.stop.load(Ordering::SeqCst) {
        let (key, value) = (format!("{writer}-{}", pace.done.count % 100), format!("{}", pace.done.count));
        client.put(key.clone(), value.clone()).await.expect("a write");
        assert_eq!(client.get(key).await.expect("a read").as_deref(), Some(value.as_bytes()));
        shared.written.fetch_add(1, Ordering::SeqCst);
        pace.answer();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    pace.done
}
