//! Deadlocks over the cluster: this store's waits go to the store that detects, which is the leader of the region with the first key.
//!
//! All of it may be lost: a wait is told again every second as long as it lasts, so a detector that has just begun knows it soon.
//! Stores speak `deadlock.proto` to each other, a stream from each to the one that detects; a store that does not lead that region ends
//! the stream, and the other looks for the leader again.

use std::sync::{Arc, Weak};
use std::time::Duration;

use base::{MonoTime, RegionId};
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use proto::deadlock::deadlock_client::DeadlockClient;
use proto::deadlock::deadlock_server::{Deadlock as Service, DeadlockServer};
use proto::deadlock::*;
use tls::Dialer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming, async_trait};
use txn::deadlock::Detector;
use txn::scheduler::{Deadlock, Detect, Event};

use super::shell::Shell;
use super::wire::{wait_entry, wait_of_entry};

/// Waits that were not sent yet; further ones are dropped.
const QUEUE_MAX: usize = 4096;
/// Between two looks for the store that detects.
const LOOK: Duration = Duration::from_millis(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Tells where deadlocks are detected.
pub trait Detectors: Send + Sync + 'static {
    /// The region with the first key and the term in which this store leads it, if it does.
    fn here(&self) -> Option<(RegionId, u64)>;
    /// Where another store listens that leads it, `host:port`, as far as known.
    fn there(&self) -> BoxFuture<'static, Option<String>>;
    /// How it is dialled.
    fn dialer(&self) -> Dialer {
        Dialer::plain()
    }
}

/// The scheduler's end of the queue.
pub struct Waits(mpsc::Sender<Detect>);

impl Waits {
    /// Never waits.
    pub fn tell(&self, detect: Detect) {
        let _lossy = self.0.try_send(detect);
    }
}

pub fn queue() -> (Waits, mpsc::Receiver<Detect>) {
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    (Waits(sender), receiver)
}

/// The detector's part on this store.
pub struct Deadlocks {
    detectors: Arc<dyn Detectors>,
    /// With the leadership under which it learned what it knows.
    detector: Mutex<(Option<(RegionId, u64)>, Detector)>,
}

impl Deadlocks {
    pub fn new(detectors: Arc<dyn Detectors>) -> Deadlocks {
        Deadlocks {
            detectors,
            detector: Mutex::default(),
        }
    }

    /// Detects, if this store is the one to do so: `Err` gives the wait back otherwise.
    fn detect(&self, detect: Detect) -> Result<Option<Deadlock>, Detect> {
        let reign = self.detectors.here();
        let mut detector = self.detector.lock();
        let (known, detector) = &mut *detector;
        if *known != reign {
            detector.clear();
            *known = reign;
        }
        if reign.is_none() {
            return Err(detect);
        }
        match detect {
            Detect::Wait(wait) => Ok(detector.detect(MonoTime::now(), &wait)),
            Detect::Unwait(wait) => {
                detector.unwait(&wait);
                Ok(None)
            }
        }
    }
}

/// Carries waits to where they are looked at, and circles back, until the shell is gone.
pub async fn run(deadlocks: Arc<Deadlocks>, mut inbox: mpsc::Receiver<Detect>, shell: Weak<Shell>) {
    let mut link: Option<mpsc::Sender<DeadlockRequest>> = None;
    let mut looked: Option<MonoTime> = None;
    while let Some(detect) = inbox.recv().await {
        match deadlocks.detect(detect) {
            Ok(None) => {}
            Ok(Some(deadlock)) => tell(&shell, deadlock),
            Err(detect) => {
                let is_open = link.as_ref().is_some_and(|link| !link.is_closed());
                if !is_open && looked.is_none_or(|at| MonoTime::now().since(at) > LOOK) {
                    link = connect(&*deadlocks.detectors, shell.clone()).await;
                    looked = Some(MonoTime::now());
                }
                if let Some(link) = &link {
                    let _lossy = link.try_send(request_of(detect));
                }
            }
        }
    }
}

fn tell(shell: &Weak<Shell>, deadlock: Deadlock) {
    if let Some(shell) = shell.upgrade() {
        shell.on(Event::Deadlock(deadlock));
    }
}

/// A stream to the store that detects. It closes when that store ends it.
async fn connect(detectors: &dyn Detectors, shell: Weak<Shell>) -> Option<mpsc::Sender<DeadlockRequest>> {
    let address = detectors.there().await?;
    let dialer = detectors.dialer();
    let endpoint = dialer
        .endpoint(&address)
        .ok()?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(CONNECT_TIMEOUT)
        .keep_alive_timeout(CONNECT_TIMEOUT)
        .keep_alive_while_idle(true);
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    tokio::spawn(async move {
        let outcome = async {
            let channel = dialer
                .connect(endpoint)
                .await
                .map_err(|error| Status::from_error(Box::new(error)))?;
            let mut answers = DeadlockClient::new(channel)
                .detect(ReceiverStream::new(receiver))
                .await?
                .into_inner();
            while let Some(answer) = answers.message().await? {
                tell(&shell, deadlock_of(answer));
            }
            Ok::<_, Status>(())
        };
        if let Err(status) = outcome.await {
            tracing::debug!(address, reason = status.message(), "look for the detector of deadlocks again");
        }
    });
    Some(sender)
}

fn request_of(detect: Detect) -> DeadlockRequest {
    let (tp, wait) = match detect {
        Detect::Wait(wait) => (DeadlockRequestType::Detect, wait),
        Detect::Unwait(wait) => (DeadlockRequestType::CleanUpWaitFor, wait),
    };
    DeadlockRequest {
        tp: tp.into(),
        entry: Some(wait_entry(wait)),
        ..Default::default()
    }
}

/// The wire leaves the wait that closes the circle out of the chain.
fn answer_of(deadlock: Deadlock) -> DeadlockResponse {
    let mut wait_chain: Vec<WaitForEntry> = deadlock.chain.into_iter().map(wait_entry).collect();
    wait_chain.pop();
    DeadlockResponse {
        entry: Some(wait_entry(deadlock.wait)),
        deadlock_key_hash: deadlock.deadlock_key_hash,
        wait_chain,
        deadlock_key: deadlock.deadlock_key,
    }
}

fn deadlock_of(answer: DeadlockResponse) -> Deadlock {
    let wait = wait_of_entry(answer.entry.unwrap_or_default());
    let chain = answer.wait_chain.into_iter().map(wait_of_entry);
    Deadlock {
        chain: chain.chain([wait.clone()]).collect(),
        wait,
        deadlock_key_hash: answer.deadlock_key_hash,
        deadlock_key: answer.deadlock_key,
    }
}

/// What other stores, and those who look into the cluster, ask.
#[derive(Clone)]
pub struct DeadlockService(pub Arc<super::Txn>);

impl DeadlockService {
    pub fn into_server(self) -> DeadlockServer<DeadlockService> {
        DeadlockServer::new(self)
    }
}

#[async_trait]
impl Service for DeadlockService {
    async fn get_wait_for_entries(
        &self,
        _request: Request<WaitForEntriesRequest>,
    ) -> Result<Response<WaitForEntriesResponse>, Status> {
        let entries = self.0.waits();
        Ok(Response::new(WaitForEntriesResponse { entries }))
    }

    async fn detect(
        &self,
        request: Request<Streaming<DeadlockRequest>>,
    ) -> Result<Response<BoxStream<DeadlockResponse>>, Status> {
        let answers = answers(self.0.deadlocks().clone(), request.into_inner());
        Ok(Response::new(Box::pin(answers)))
    }
}

/// A circle for each wait that would close one. The stream ends when another store is to detect.
fn answers(
    deadlocks: Arc<Deadlocks>,
    requests: Streaming<DeadlockRequest>,
) -> impl Stream<Item = Result<DeadlockResponse, Status>> + Send {
    let answer = move |request: Result<DeadlockRequest, Status>| -> Result<Option<DeadlockResponse>, Status> {
        let request = request?;
        let kind = request.tp();
        let wait = wait_of_entry(request.entry.unwrap_or_default());
        let detect = match kind {
            DeadlockRequestType::Detect => Detect::Wait(wait),
            DeadlockRequestType::CleanUpWaitFor => Detect::Unwait(wait),
            // Ours tell each wait.
            DeadlockRequestType::CleanUp => return Ok(None),
        };
        match deadlocks.detect(detect) {
            Ok(found) => Ok(found.map(answer_of)),
            Err(_) => Err(Status::failed_precondition("deadlocks are not detected on this store")),
        }
    };
    requests
        .map(answer)
        .filter_map(|answer| async { answer.transpose() })
        .scan(false, |ended, answer| {
            // The first failure is the last answer.
            let before = std::mem::replace(ended, answer.is_err());
            std::future::ready((!before).then_some(answer))
        })
}

#[cfg(test)]
mod tests {
    use base::Ts;
    use bytes::Bytes;
    use txn::error::WaitFor;

    use super::*;

    struct Leads(Mutex<Option<(RegionId, u64)>>);

    impl Detectors for Leads {
        fn here(&self) -> Option<(RegionId, u64)> {
            *self.0.lock()
        }
        fn there(&self) -> BoxFuture<'static, Option<String>> {
            Box::pin(std::future::ready(None))
        }
    }

    fn wait(waiter: u64, holder: u64) -> WaitFor {
        WaitFor {
            waiter: Ts(waiter),
            holder: Ts(holder),
            key: Bytes::from_static(b"key"),
            key_hash: holder,
            resource_group_tag: Bytes::from_static(b"tag"),
        }
    }

    #[test]
    fn a_detector_forgets_when_its_leadership_ends() {
        let leads = Arc::new(Leads(Mutex::new(Some((RegionId(1), 6)))));
        let deadlocks = Deadlocks::new(leads.clone());
        assert_eq!(deadlocks.detect(Detect::Wait(wait(1, 2))), Ok(None));
        let circle = deadlocks.detect(Detect::Wait(wait(2, 1))).expect("leads");
        assert_eq!(circle.map(|circle| circle.chain), Some(vec![wait(1, 2), wait(2, 1)]));
        *leads.0.lock() = None;
        let given_back = Detect::Wait(wait(2, 1));
        assert_eq!(deadlocks.detect(given_back.clone()), Err(given_back));
        *leads.0.lock() = Some((RegionId(1), 7));
        assert_eq!(deadlocks.detect(Detect::Wait(wait(2, 1))), Ok(None));
    }

    #[test]
    fn a_circle_survives_the_wire() {
        let deadlock = Deadlock {
            wait: wait(3, 1),
            deadlock_key_hash: 7,
            deadlock_key: Bytes::from_static(b"k"),
            chain: vec![wait(1, 2), wait(2, 3), wait(3, 1)],
        };
        assert_eq!(answer_of(deadlock.clone()).wait_chain.len(), 2);
        assert_eq!(deadlock_of(answer_of(deadlock.clone())), deadlock);
    }
}
