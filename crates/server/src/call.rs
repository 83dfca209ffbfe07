//! What raw and transactional requests have in common: what the service knows of each, snapshots with patience, deadlines, fair turns.

use std::future::Future;
use std::time::Duration;

use base::{MonoTime, WallTime};
use engine::kv::{self, Kv, SnapshotRef};
use tokio::sync::oneshot;

use crate::limits::{ANSWER_BYTES_MAX, BUSY_PAUSE, BUSY_WAIT_MAX};

/// How long a request may keep a thread before it lets others go.
const SLICE: Duration = Duration::from_micros(500);
/// Rows between two looks at the clock.
const ROWS: u32 = 64;

/// What was under way when a region did not serve: decides whether clients may simply try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Changes nothing.
    Read,
    /// A write that means the same when done twice.
    Write,
    /// A write that depends on what it read: doing it twice is a different thing.
    Swap,
}

/// What the service knows of a request besides its keys and values.
#[derive(Clone, Debug)]
pub struct Call {
    pub ctx: kv::Context,
    /// API version the client marked the request with, as on the wire.
    pub version: i32,
    /// Whether any replica may serve a time that it knows to be over.
    pub stale: bool,
    /// Read after the request arrived.
    pub now: MonoTime,
    /// For expiry; read once, so that a request sees one time.
    pub wall: WallTime,
    /// When the client no longer waits.
    pub deadline: MonoTime,
}

/// A view of the call's region that holds every write acknowledged before `now`.
pub async fn snapshot(kv: &dyn Kv, call: &Call, now: MonoTime) -> Result<SnapshotRef, kv::Error> {
    let mut patience = Patience::of(call);
    loop {
        let (answer, answered) = oneshot::channel();
        kv.snapshot(&call.ctx, now, Box::new(move |snapshot| drop(answer.send(snapshot))));
        match settle(call, answered).await.unwrap_or_else(Err) {
            Err(error) if patience.again(&error).await => {}
            outcome => return outcome,
        }
    }
}

/// A view of the call's region on this replica that holds its log up to `index`.
pub async fn snapshot_at(kv: &dyn Kv, call: &Call, index: u64) -> Result<SnapshotRef, kv::Error> {
    let mut patience = Patience::of(call);
    loop {
        let (answer, answered) = oneshot::channel();
        kv.snapshot_at(&call.ctx, index, Box::new(move |snapshot| drop(answer.send(snapshot))));
        match settle(call, answered).await.unwrap_or_else(Err) {
            Err(error) if patience.again(&error).await => {}
            outcome => return outcome,
        }
    }
}

/// Waits for an answer from below until the call's deadline. With a leader's lease the answer is there already, and neither a timer nor
/// the executor is asked.
pub async fn settle<T>(call: &Call, mut answered: oneshot::Receiver<T>) -> Result<T, kv::Error> {
    match answered.try_recv() {
        Ok(answer) => Ok(answer),
        // Gone without an answer: the threads below have stopped.
        Err(oneshot::error::TryRecvError::Closed) => Err(kv::Error::Shutdown),
        Err(oneshot::error::TryRecvError::Empty) => match within(call, answered).await {
            Some(answer) => answer.map_err(|_| kv::Error::Shutdown),
            None => Err(kv::Error::Deadline),
        },
    }
}

/// The output of `work`, or `None` when the call's deadline comes first.
pub async fn within<F: Future>(call: &Call, work: F) -> Option<F::Output> {
    tokio::time::timeout(call.deadline.since(MonoTime::now()), work).await.ok()
}

/// Tries again, for a while, what a full queue below refused: nothing was proposed then, and clients could do no better.
pub struct Patience {
    until: MonoTime,
    pause: Duration,
}

impl Patience {
    pub fn of(call: &Call) -> Patience {
        Patience {
            until: call.deadline.min(call.now + BUSY_WAIT_MAX),
            pause: BUSY_PAUSE,
        }
    }

    /// Waits when there is sense in another try; whether there is.
    pub async fn again(&mut self, error: &kv::Error) -> bool {
        matches!(error, kv::Error::Busy { .. }) && self.pause().await
    }

    /// Waits, ever longer; false, at once, when there is no time left.
    pub async fn pause(&mut self) -> bool {
        if MonoTime::now() + self.pause > self.until {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause *= 2;
        true
    }
}

/// Lets others go now and then, and gives up at the deadline.
pub struct Turns<'a> {
    call: &'a Call,
    rows: u32,
    began: MonoTime,
}

impl Turns<'_> {
    pub fn new(call: &Call) -> Turns<'_> {
        Turns {
            call,
            rows: 0,
            began: call.now,
        }
    }

    /// To be called once a row.
    pub async fn row(&mut self) -> Result<(), kv::Error> {
        self.rows += 1;
        if !self.rows.is_multiple_of(ROWS) {
            return Ok(());
        }
        let now = MonoTime::now();
        if now > self.call.deadline {
            return Err(kv::Error::Deadline);
        }
        if now.since(self.began) > SLICE {
            tokio::task::yield_now().await;
            self.began = MonoTime::now();
        }
        Ok(())
    }
}

/// Bytes that an answer may still take: one request must not take the memory of all.
pub struct Room(usize);

impl Default for Room {
    fn default() -> Room {
        Room(ANSWER_BYTES_MAX)
    }
}

impl Room {
    /// Whether there was room.
    pub fn take(&mut self, bytes: usize) -> bool {
        let left = self.0.checked_sub(bytes);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}
