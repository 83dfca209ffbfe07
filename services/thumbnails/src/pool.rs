//! Threads for work on pixels: as many as there are cores, with a queue of their own.
//!
//! The queue is bounded by jobs; a full one refuses, and the client is told to come again. A job starts once the memory that it is going
//! to take fits beside that of those that run; meanwhile smaller ones may pass it, but only `PASSES_MAX` times. Jobs whose client left or
//! whose time is up are dropped without being started.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::MonoTime;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::metrics;

/// How often others may pass the first job of the queue.
const PASSES_MAX: u32 = 64;
/// Longest sleep of a thread that waits for work; it looks whether time of queued jobs is up.
const LOOK: Duration = Duration::from_millis(200);

/// Tells work to stop.
#[derive(Clone, Debug)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
    deadline: MonoTime,
}

impl Cancel {
    /// At the latest at `deadline`.
    pub fn at(deadline: MonoTime) -> Cancel {
        Cancel {
            flag: Arc::default(),
            deadline,
        }
    }

    /// Now.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Whether nobody waits any more.
    pub fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::Relaxed) || MonoTime::now() >= self.deadline
    }

    /// When at the latest.
    pub fn deadline(&self) -> MonoTime {
        self.deadline
    }
}

/// Why a job was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The queue is full.
    #[error("too much work is waiting")]
    Busy,
    /// Nobody waits any more, or the pool ends.
    #[error("the work was dropped before it started")]
    Dropped,
}

struct Job {
    bytes: u64,
    cancel: Cancel,
    since: MonoTime,
    passed: u32,
    work: Box<dyn FnOnce() + Send>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    running_bytes: u64,
    is_ended: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    queue_max: usize,
    bytes_max: u64,
}

/// The threads and their queue. They end when it is dropped.
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// `threads` threads; up to `queue_max` jobs wait; those that run take up to `bytes_max` by estimate.
    pub fn new(threads: usize, queue_max: usize, bytes_max: u64) -> Pool {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            queue_max,
            bytes_max,
        });
        for number in 0..threads {
            let shared = shared.clone();
            // Ends by itself once the pool is dropped; nobody needs to wait for it.
            let _detached = base::thread::spawn(&format!("pixels-{number}"), move || shared.work());
        }
        Pool { shared }
    }

    /// Jobs that wait.
    pub fn waiting(&self) -> usize {
        self.shared.state.lock().queue.len()
    }

    /// Whether one more would be refused.
    pub fn is_full(&self) -> bool {
        self.waiting() >= self.shared.queue_max
    }

    /// Runs `work`, which takes about `bytes` of memory. One that takes more than there is runs alone.
    pub async fn run<T: Send + 'static>(
        &self,
        bytes: u64,
        cancel: Cancel,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let (answer, answered) = oneshot::channel();
        let job = Job {
            bytes: bytes.min(self.shared.bytes_max),
            cancel,
            since: MonoTime::now(),
            passed: 0,
            work: Box::new(move || {
                // Nobody may wait any more.
                let _unheard = answer.send(work());
            }),
        };
        {
            let mut state = self.shared.state.lock();
            if state.queue.len() >= self.shared.queue_max {
                return Err(PoolError::Busy);
            }
            state.queue.push_back(job);
            metrics::QUEUE.set(state.queue.len() as i64);
        }
        self.shared.changed.notify_one();
        answered.await.map_err(|_| PoolError::Dropped)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.is_ended = true;
        state.queue.clear();
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn work(&self) {
        while let Some(job) = self.next() {
            metrics::QUEUE_SECONDS.observe(MonoTime::now().since(job.since).as_secs_f64());
            metrics::RUNNING.inc();
            let bytes = job.bytes;
            // A bug in a codec must cost one request, not a thread.
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job.work)).is_err() {
                tracing::error!("work on a picture panicked");
            }
            metrics::RUNNING.dec();
            let mut state = self.state.lock();
            state.running_bytes -= bytes;
            metrics::RUNNING_BYTES.set(state.running_bytes as i64);
            drop(state);
            // Room for one large or several small ones.
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if state.is_ended {
                return None;
            }
            state.queue.retain(|job| !job.cancel.is_cancelled());
            if let Some(job) = state.take(self.bytes_max) {
                metrics::QUEUE.set(state.queue.len() as i64);
                metrics::RUNNING_BYTES.set(state.running_bytes as i64);
                return Some(job);
            }
            self.changed.wait_for(&mut state, LOOK);
        }
    }
}

impl State {
    /// The first job that fits.
    fn take(&mut self, bytes_max: u64) -> Option<Job> {
        let room = bytes_max - self.running_bytes;
        let is_stuck = self.queue.front().is_some_and(|job| job.passed >= PASSES_MAX);
        let candidates = if is_stuck { 1 } else { self.queue.len() };
        let at = self.queue.iter().take(candidates).position(|job| job.bytes <= room)?;
        if at > 0
            && let Some(first) = self.queue.front_mut()
        {
            first.passed += 1;
        }
        let job = self.queue.remove(at)?;
        self.running_bytes += job.bytes;
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    use super::*;

    fn soon() -> Cancel {
        Cancel::at(MonoTime::now() + Duration::from_secs(20))
    }

    #[tokio::test]
    async fn work_is_done_and_answers() {
        let pool = Pool::new(2, 10, 100);
        assert_eq!(pool.run(10, soon(), || 6 * 7).await, Ok(42));
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_panic_costs_one_job() {
        let pool = Arc::new(Pool::new(1, 1, 100));
        let (go, wait) = mpsc::channel::<()>();
        let (started, is_started) = oneshot::channel();
        let first = tokio::spawn({
            let pool = pool.clone();
            async move {
                pool.run(1, soon(), move || {
                    started.send(()).expect("somebody waits");
                    wait.recv().expect("is told");
                })
                .await
            }
        });
        is_started.await.expect("starts");
        let second = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(1, soon(), || panic!("as planned")).await }
        });
        while !pool.is_full() {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run(1, soon(), || ()).await, Err(PoolError::Busy));
        go.send(()).expect("it waits");
        assert_eq!(first.await.expect("ends"), Ok(()));
        assert_eq!(second.await.expect("ends"), Err(PoolError::Dropped));
        assert_eq!(pool.run(1, soon(), || 1).await, Ok(1));
    }

    #[tokio::test]
    async fn what_runs_at_once_fits_in_memory() {
        let pool = Arc::new(Pool::new(4, 100, 100));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let jobs = (0..40).map(|number| {
            let (pool, now, most) = (pool.clone(), now.clone(), most.clone());
            tokio::spawn(async move {
                let bytes = [30, 60, 500][number % 3];
                pool.run(bytes, soon(), move || {
                    let bytes = bytes.min(100) as usize;
                    most.fetch_max(now.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
                    std::thread::yield_now();
                    now.fetch_sub(bytes, Ordering::SeqCst);
                })
                .await
            })
        });
        for job in jobs.collect::<Vec<_>>() {
            assert_eq!(job.await.expect("ends"), Ok(()));
        }
        assert!(most.load(Ordering::SeqCst) <= 100);
    }

    #[tokio::test]
    async fn cancelled_work_never_starts() {
        let pool = Pool::new(1, 10, 100);
        let cancel = soon();
        cancel.cancel();
        assert_eq!(pool.run(1, cancel, || ()).await, Err(PoolError::Dropped));
        let late = Cancel::at(MonoTime::now());
        assert_eq!(pool.run(1, late, || ()).await, Err(PoolError::Dropped));
    }
}
