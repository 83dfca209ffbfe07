//! One tier in use: how many requests run at once, how long they may take, what waits to be sent, and when to leave it alone.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::MonoTime;
use blob_store::{Blob, Encoding, Form, Key, Step, Store};
use futures::StreamExt as _;
use parking_lot::Mutex;
use prometheus::{Histogram, IntCounter, IntGauge};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::queue::{Job, Queue};
use super::{Body, Error, Found, Head, Id, Tier};
use crate::cache::{self, Cache, Coding};
use crate::config::TierMode;
use crate::metrics;

/// Failures in a row after which a tier is left alone for a while.
const FAILURES_MAX: u32 = 3;
/// For how long: doubled each time a request fails again, up to the second.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Times that a blob is tried again before it is given up.
const ATTEMPTS_MAX: u8 = 5;
/// A transfer may take the time-out once more for each of these.
const BYTES_PER_TIMEOUT: u64 = 8 << 20;
/// How long after the start what killed servers left is looked for, and how often then.
const SWEEP_FIRST: Duration = Duration::from_mins(10);
const SWEEP_EVERY: Duration = Duration::from_hours(6);

/// What bounds the use of a tier.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub mode: TierMode,
    /// Fetches at once, and as many sends.
    pub parallel: usize,
    /// Blobs that wait to be sent; more are not sent.
    pub queue_max: usize,
    pub timeout: Duration,
}

/// Figures of one tier.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Figures {
    pub kind: &'static str,
    pub place: String,
    pub mode: TierMode,
    /// Whether it is asked: false while it is left alone after failures.
    pub up: bool,
    pub queued: usize,
    pub hits: u64,
    pub misses: u64,
    pub failed: u64,
    /// Requests that were not made while the tier was left alone, or too many ran.
    pub skipped: u64,
    pub damaged: u64,
    pub sent: u64,
    /// Blobs that were not sent: the queue was full, or the tier failed too often.
    pub dropped: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

struct Meter {
    hits: IntCounter,
    misses: IntCounter,
    failed: IntCounter,
    skipped: IntCounter,
    damaged: IntCounter,
    sent: IntCounter,
    dropped: IntCounter,
    bytes_in: IntCounter,
    bytes_out: IntCounter,
    get_seconds: Histogram,
    put_seconds: Histogram,
    up: IntGauge,
    queued: IntGauge,
}

impl Meter {
    fn new(kind: &str) -> Meter {
        let requests = |outcome| metrics::TIER_REQUESTS.with_label_values(&[kind, outcome]);
        let bytes = |direction| metrics::TIER_BYTES.with_label_values(&[kind, direction]);
        Meter {
            hits: requests("hit"),
            misses: requests("miss"),
            failed: requests("failed"),
            skipped: requests("skipped"),
            damaged: requests("damaged"),
            sent: requests("sent"),
            dropped: requests("dropped"),
            bytes_in: bytes("in"),
            bytes_out: bytes("out"),
            get_seconds: metrics::TIER_SECONDS.with_label_values(&[kind, "get"]),
            put_seconds: metrics::TIER_SECONDS.with_label_values(&[kind, "put"]),
            up: metrics::TIER_UP.with_label_values(&[kind]),
            queued: metrics::TIER_QUEUE.with_label_values(&[kind]),
        }
    }
}

/// A tier with its bounds, queue and senders.
pub(super) struct Lane {
    tier: Arc<dyn Tier>,
    limits: Limits,
    store: Store,
    fetches: Semaphore,
    health: Mutex<Health>,
    queue: Mutex<Queue>,
    /// Something was queued, or the last of it was sent.
    moved: Notify,
    meter: Meter,
}

/// Whether the tier is worth asking.
#[derive(Default)]
struct Health {
    failures: u32,
    pause: Duration,
    /// Left alone until then.
    until: Option<MonoTime>,
}

impl Health {
    /// Whether to ask now. When a pause is over one request goes ahead of the others.
    fn may_ask(&mut self, now: MonoTime, probe: Duration) -> bool {
        match self.until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                self.until = Some(now + probe);
                true
            }
        }
    }

    /// Notes the outcome of a request; whether that changed if the tier is up.
    fn note(&mut self, is_good: bool, now: MonoTime) -> bool {
        let was_up = self.until.is_none();
        if is_good {
            *self = Health::default();
            return !was_up;
        }
        self.failures += 1;
        if self.failures >= FAILURES_MAX {
            self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
            self.until = Some(now + self.pause);
        }
        was_up && self.until.is_some()
    }
}

impl Lane {
    /// `folder`: where what waits is remembered.
    pub(super) fn start(tier: Arc<dyn Tier>, limits: Limits, store: Store, folder: &Path, stop: &CancellationToken) -> Arc<Lane> {
        let meter = Meter::new(tier.kind());
        meter.up.set(1);
        let queue = match limits.mode {
            TierMode::Read => Queue::default(),
            _ => Queue::open(
                &folder.join(tier.kind()).with_extension("queue"),
                &tier.place(),
                limits.queue_max,
            ),
        };
        meter.queued.set(queue.waiting() as i64);
        let lane = Arc::new(Lane {
            tier,
            limits,
            store,
            fetches: Semaphore::new(limits.parallel),
            health: Mutex::default(),
            queue: Mutex::new(queue),
            moved: Notify::new(),
            meter,
        });
        if limits.mode != TierMode::Read {
            for _ in 0..limits.parallel {
                let lane = lane.clone();
                until(stop, async move { lane.send_all().await });
            }
            let lane = lane.clone();
            until(stop, async move { lane.sweep_all().await });
        }
        lane
    }

    pub(super) fn figures(&self) -> Figures {
        let meter = &self.meter;
        let queue = self.queue.lock();
        Figures {
            kind: self.tier.kind(),
            place: self.tier.place(),
            mode: self.limits.mode,
            up: self.health.lock().until.is_none(),
            queued: queue.len(),
            hits: meter.hits.get(),
            misses: meter.misses.get(),
            failed: meter.failed.get(),
            skipped: meter.skipped.get(),
            damaged: meter.damaged.get(),
            sent: meter.sent.get(),
            dropped: meter.dropped.get(),
            bytes_in: meter.bytes_in.get(),
            bytes_out: meter.bytes_out.get(),
        }
    }

    /// Brings a blob into the store; whether it is there now.
    pub(super) async fn fetch(&self, cache: &Cache, id: Id<'_>) -> bool {
        if !self.may_ask() {
            return false;
        }
        let permit = tokio::time::timeout(self.limits.timeout, self.fetches.acquire()).await;
        let Ok(Ok(_permit)) = permit else {
            self.meter.skipped.inc();
            return false;
        };
        let begin = MonoTime::now();
        let outcome = match self.limited(0, self.tier.get(id)).await {
            Ok(Some(found)) => self.receive(cache, id, found).await.map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        self.meter.get_seconds.observe(MonoTime::now().since(begin).as_secs_f64());
        match &outcome {
            Ok(Some(())) => self.meter.hits.inc(),
            Ok(None) => self.meter.misses.inc(),
            Err(Error::Damaged(what)) => {
                self.meter.damaged.inc();
                tracing::warn!(tier = self.tier.kind(), key = %id.key, what, "a tier has damaged content");
                self.remove(id).await;
            }
            Err(_) => {}
        }
        self.note("fetch", outcome).is_some_and(|found| found.is_some())
    }

    /// Takes a body into the store, which verifies it.
    async fn receive(&self, cache: &Cache, id: Id<'_>, found: Found) -> Result<(), Error> {
        let Found { head, mut body, is_old } = found;
        if head.len > cache.blob_max() {
            return Err(Error::TooLarge);
        }
        let coding = match head.form {
            Form::Raw => Coding::Identity,
            Form::Zstd => Coding::Zstd,
        };
        let mut incoming = cache.copy(id, head.len, head.check, coding).await.map_err(Error::Own)?;
        let mut got = 0;
        while let Some(bytes) = self.limited(0, async { body.next().await.transpose() }).await? {
            got += bytes.len() as u64;
            self.meter.bytes_in.inc_by(bytes.len() as u64);
            if got > head.stored {
                return Err(Error::Damaged("more bytes than it says"));
            }
            incoming.write(bytes).await.map_err(blame)?;
        }
        incoming.keep().await.map_err(blame)?;
        if is_old {
            self.queue(id);
        }
        Ok(())
    }

    pub(super) async fn has(&self, ids: &[Id<'_>]) -> Vec<Option<u64>> {
        if !self.may_ask() {
            return vec![None; ids.len()];
        }
        let found = self.limited(0, self.tier.has(ids)).await;
        self.note("look up", found).unwrap_or_else(|| vec![None; ids.len()])
    }

    /// A blob was stored here.
    pub(super) async fn stored(&self, id: Id<'_>) {
        match self.limits.mode {
            TierMode::Read => {}
            TierMode::WriteBack => self.queue(id),
            TierMode::WriteThrough => {
                // What does not get through now is tried again later, like any other.
                if !self.send_now(id).await {
                    self.queue(id);
                }
            }
        }
    }

    /// Sends a blob before its upload is answered; whether it got through.
    async fn send_now(&self, id: Id<'_>) -> bool {
        // Somebody who sends the same key just now may be sending what was there before: the queue comes after them.
        if !self.may_ask() || !self.queue.lock().hold(id.key) {
            return false;
        }
        let busy = Busy { lane: self, key: id.key };
        let sent = self.send(id).await;
        drop(busy);
        sent.is_some()
    }

    /// Lines a blob up to be sent.
    pub(super) fn queue(&self, id: Id<'_>) {
        if self.limits.mode == TierMode::Read {
            return;
        }
        let mut queue = self.queue.lock();
        if queue.waiting() >= self.limits.queue_max {
            self.meter.dropped.inc();
            return;
        }
        if queue.push(id) {
            self.meter.queued.set(queue.waiting() as i64);
            drop(queue);
            self.moved.notify_one();
        }
    }

    /// Takes a blob out of the tier: not sent, if it was about to be, and not left, if it was.
    pub(super) async fn remove(&self, id: Id<'_>) {
        if self.limits.mode == TierMode::Read {
            return;
        }
        self.queue.lock().forget(id);
        let free = async {
            while self.queue.lock().is_busy(&id.key) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _in_time = tokio::time::timeout(self.limits.timeout, free).await;
        let removed = self.limited(0, self.tier.remove(id)).await;
        self.note("remove", removed);
    }

    pub(super) async fn remove_instance(&self, instance: &str) {
        if self.limits.mode == TierMode::Read {
            return;
        }
        self.queue.lock().forget_instance(instance);
        // It may have to list what there is.
        let removed = self.limited(u64::from(u32::MAX), self.tier.remove_instance(instance)).await;
        self.note("remove an instance", removed);
    }

    /// Returns once nothing waits and nothing is being sent.
    pub(super) async fn drained(&self) {
        loop {
            if self.queue.lock().len() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// One of the senders: sends what waits, one after the other.
    async fn send_all(&self) {
        loop {
            let Some(mut job) = self.next_job() else {
                self.moved.notified().await;
                continue;
            };
            while !self.may_try() {
                tokio::time::sleep(PAUSE_MIN / 4).await;
            }
            let sent = self.send(job.id.as_id()).await;
            let mut queue = self.queue.lock();
            job.attempts += 1;
            let is_over = sent.is_some() || job.attempts >= ATTEMPTS_MAX;
            if is_over {
                queue.done(&job);
            }
            if sent.is_none() && (is_over || !queue.again(job)) {
                self.meter.dropped.inc();
            }
        }
    }

    fn next_job(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        let job = queue.take()?;
        self.meter.queued.set(queue.waiting() as i64);
        if queue.waiting() > 0 {
            self.moved.notify_one();
        }
        Some(job)
    }

    /// Looks now and then for what killed servers left in the tier.
    async fn sweep_all(&self) {
        tokio::time::sleep(SWEEP_FIRST).await;
        loop {
            if self.may_try() {
                match self.tier.sweep().await {
                    Ok(0) => {}
                    Ok(swept) => tracing::info!(tier = self.tier.kind(), swept, "uploads of killed servers were removed"),
                    Err(error) => {
                        let error = base::log::chain(&error);
                        tracing::debug!(tier = self.tier.kind(), %error, "look for what killed servers left");
                    }
                }
            }
            tokio::time::sleep(SWEEP_EVERY).await;
        }
    }

    /// Sends what the store has under a key. `None` if it is to be tried again.
    async fn send(&self, id: Id<'_>) -> Option<()> {
        let (store, key) = (self.store.clone(), id.key);
        let found = cache::blocking(move || store.look(&key)).await;
        let Ok(Some(blob)) = found else {
            return Some(()); // evicted or removed meanwhile: nothing to send
        };
        let head = Head::of(&blob);
        let begin = MonoTime::now();
        let sent = self.limited(head.stored, self.tier.put(id, head, pieces(blob))).await;
        self.meter.put_seconds.observe(MonoTime::now().since(begin).as_secs_f64());
        match sent {
            Ok(()) => {
                self.meter.sent.inc();
                self.meter.bytes_out.inc_by(head.stored);
                self.note("send", Ok(()))
            }
            Err(Error::TooLarge) => {
                self.meter.dropped.inc();
                self.note("send", Ok(()))
            }
            Err(error) => self.note("send", Err(error)),
        }
    }

    /// Runs a request within its time, which grows with the bytes that it moves.
    async fn limited<T>(&self, bytes: u64, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let shares = u32::try_from(1 + bytes / BYTES_PER_TIMEOUT).unwrap_or(u32::MAX);
        let limit = self.limits.timeout.saturating_mul(shares);
        tokio::time::timeout(limit, request).await.unwrap_or(Err(Error::Slow))
    }

    fn may_ask(&self) -> bool {
        let may = self.may_try();
        if !may {
            self.meter.skipped.inc();
        }
        may
    }

    fn may_try(&self) -> bool {
        self.health.lock().may_ask(MonoTime::now(), self.limits.timeout)
    }

    /// Notes how a request went; what it gave, if it went well.
    fn note<T>(&self, act: &'static str, outcome: Result<T, Error>) -> Option<T> {
        let is_good = match &outcome {
            Ok(_) | Err(Error::TooLarge | Error::Damaged(_) | Error::Changed | Error::Own(_)) => true,
            Err(Error::Slow | Error::Object(_) | Error::Ferrite(_)) => false,
        };
        let changed = self.health.lock().note(is_good, MonoTime::now());
        if changed {
            self.meter.up.set(i64::from(is_good));
        }
        match outcome {
            Ok(value) => {
                if changed {
                    tracing::info!(tier = self.tier.kind(), "the tier is back");
                }
                Some(value)
            }
            Err(error) => {
                if !is_good {
                    self.meter.failed.inc();
                }
                let told = base::log::chain(&error);
                match changed {
                    true => {
                        tracing::warn!(tier = self.tier.kind(), act, error = %told, "the tier failed: left alone for a while")
                    }
                    false => tracing::debug!(tier = self.tier.kind(), act, error = %told, "the tier failed"),
                }
                None
            }
        }
    }
}

/// Runs a task until it ends or the server does.
fn until(stop: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = task => {}
        }
    });
}

/// A key that is being sent; not any more once this is dropped, which happens also where the upload's client goes away.
struct Busy<'a> {
    lane: &'a Lane,
    key: Key,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.lane.queue.lock().release(&self.key);
        self.lane.moved.notify_one();
    }
}

/// Whose fault it is that a body could not be taken.
fn blame(error: crate::error::Error) -> Error {
    use blob_store::Error as Store;
    match error {
        crate::error::Error::Compression => Error::Damaged("the body is not zstd"),
        crate::error::Error::Store(Store::Mismatch { .. }) => Error::Damaged("content has another digest"),
        crate::error::Error::Store(Store::Damaged) => Error::Damaged("content has another checksum"),
        crate::error::Error::Store(Store::Short { .. } | Store::TooLarge { .. }) => Error::Damaged("content has another length"),
        other => Error::Own(other),
    }
}

/// The body of a blob as [`Head::of`] tells it.
fn pieces(blob: Blob) -> Body {
    let blob = Arc::new(blob);
    let cursor = match blob.form() {
        Form::Zstd => blob.from(0, Encoding::Zstd),
        Form::Raw => blob.range(0, u64::MAX),
    };
    let pieces = futures::stream::try_unfold(Box::new(cursor), |mut cursor| async move {
        let read = move || {
            let step = cursor.next(true)?;
            Ok::<_, blob_store::Error>((cursor, step))
        };
        let (cursor, step) = cache::blocking(read).await.map_err(Error::Own)?;
        Ok(match step {
            Step::Data(bytes) => Some((bytes, cursor)),
            Step::Wait | Step::End => None,
        })
    });
    pieces.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_that_fails_is_left_alone_and_tried_with_one_request() {
        let mut health = Health::default();
        let probe = Duration::from_secs(10);
        let start = MonoTime::now();
        for n in 1..FAILURES_MAX {
            assert!(!health.note(false, start), "failure {n}");
            assert!(health.may_ask(start, probe));
        }
        assert!(health.note(false, start), "down now");
        assert!(!health.may_ask(start, probe));
        let later = start + PAUSE_MIN;
        assert!(health.may_ask(later, probe), "one goes ahead");
        assert!(!health.may_ask(later, probe), "the others wait for it");
        assert!(!health.note(false, later), "still down");
        assert!(!health.may_ask(later + PAUSE_MIN, probe), "for longer");
        assert!(health.may_ask(later + 2 * PAUSE_MIN, probe));
        assert!(health.note(true, later + 2 * PAUSE_MIN), "up again");
        assert!(health.may_ask(later + 2 * PAUSE_MIN, probe));
    }
}
