//! One call of the API: its deadline, its tries, and what it will say if it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::MonoTime;

use crate::Error;
use crate::metrics::Counters;
use crate::retry::{Cause, Retry};

/// State of a call over all its tries.
pub(crate) struct Call {
    retry: Retry,
    counters: Arc<Counters>,
    given: Duration,
    /// A try of a write ended so that it is unknown whether it was done.
    undetermined: bool,
    /// A request left, so that the next is a repetition.
    sent: bool,
}

/// What all calls of a client share: seeds of the waits' jitter, so that no two calls wait alike, and what is counted.
pub(crate) struct Seeds {
    next: AtomicU64,
    pub counters: Arc<Counters>,
}

impl Seeds {
    pub fn new(first: u64, counters: Arc<Counters>) -> Seeds {
        Seeds {
            next: AtomicU64::new(first),
            counters,
        }
    }

    fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl Call {
    /// Begins now and ends after `given`.
    pub fn begin(given: Duration, seeds: &Seeds) -> Call {
        Call {
            retry: Retry::new(MonoTime::now() + given, seeds.next()),
            counters: seeds.counters.clone(),
            given,
            undetermined: false,
            sent: false,
        }
    }

    /// A part of this call that is tried by itself, under the same deadline.
    pub fn part(&self, seeds: &Seeds) -> Call {
        let retry = Retry::new(self.retry.deadline, seeds.next());
        Call {
            retry,
            counters: self.counters.clone(),
            given: self.given,
            undetermined: self.undetermined,
            sent: self.sent,
        }
    }

    /// Takes over what a part came to know of its writes.
    pub fn inherit(&mut self, part: &Call) {
        self.undetermined |= part.undetermined;
        self.sent |= part.sent;
    }

    /// Counts a try.
    pub fn on_try(&mut self) {
        self.retry.attempts += 1;
    }

    /// Counts a try that leaves for a store; tells whether it repeats one.
    pub fn on_send(&mut self) -> bool {
        self.on_try();
        std::mem::replace(&mut self.sent, true)
    }

    /// Whether a request left for a store.
    pub fn was_sent(&self) -> bool {
        self.sent
    }

    /// One of so many, by chance; zero of none.
    pub fn draw(&mut self, count: usize) -> usize {
        self.retry.draw(count)
    }

    /// Whether it is unknown if a write was done.
    pub fn is_undetermined(&self) -> bool {
        self.undetermined
    }

    /// From now on it is unknown whether the write was done.
    pub fn on_undetermined(&mut self) {
        self.undetermined = true;
    }

    /// Time left.
    pub fn left(&self) -> Duration {
        self.retry.deadline.since(MonoTime::now())
    }

    /// Goes on at once because of a hint. Errors when the time is over, with `last` as the cause.
    pub async fn again(&mut self, last: Error) -> Result<(), Error> {
        let wait = self.retry.again(MonoTime::now());
        self.counters.on_hint();
        self.sleep(wait, last).await
    }

    /// Waits before the next try. Errors when the time would be over, with `last` as the cause.
    pub async fn pause(&mut self, cause: Cause, millis_min: u64, last: Error) -> Result<(), Error> {
        let wait = self.retry.pause(MonoTime::now(), cause, millis_min);
        self.counters.on_retry(cause);
        self.sleep(wait, last).await
    }

    async fn sleep(&mut self, wait: Option<Duration>, last: Error) -> Result<(), Error> {
        let Some(wait) = wait else { return Err(self.over(Some(last))) };
        tracing::debug!(?wait, attempts = self.retry.attempts, last = %base::log::chain(&last), "try again");
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// The call's failure once its time is over.
    pub fn over(&self, last: Option<Error>) -> Error {
        let last = last.map(Box::new);
        match self.undetermined {
            true => Error::Undetermined { last },
            false => Error::DeadlineExceeded {
                deadline: self.given,
                attempts: self.retry.attempts,
                last,
            },
        }
    }
}
