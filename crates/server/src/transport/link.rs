//! The stream to one other store: a bounded queue, and the task that keeps the queue flowing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, StoreId};
use parking_lot::Mutex;
use proto::ferrite_raft::store_transport_client::StoreTransportClient;
use proto::ferrite_raft::{RaftBatch, RaftMessage};
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::{MESSAGE_MAX, Network, metrics};

/// Bytes of entries that wait for one store, whatever their number.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// A batch is closed once it holds this much: large enough to spread the cost of a frame, small enough to be decoded quickly.
const BATCH_BYTES: usize = 512 << 10;
const BATCH_MESSAGES: usize = 256;
/// Waits between attempts to connect, doubling. The longest is what a store that came back waits at worst.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(800);

/// Messages that wait for a stream. Bounded by number and by bytes; when full, the newest is dropped.
pub struct Queue {
    messages_max: usize,
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<RaftMessage>,
    bytes: usize,
}

fn bytes_of(message: &RaftMessage) -> usize {
    message
        .entries
        .iter()
        .map(|entry| entry.data.len() + entry.context.len())
        .sum()
}

impl Queue {
    pub fn new(messages_max: usize) -> Queue {
        Queue {
            messages_max,
            waiting: Mutex::default(),
            filled: Notify::new(),
        }
    }

    pub fn push(&self, message: RaftMessage) {
        let bytes = bytes_of(&message);
        let mut waiting = self.waiting.lock();
        // A message larger than the bound passes an empty queue.
        let full = waiting.messages.len() >= self.messages_max || (waiting.bytes > 0 && waiting.bytes + bytes > QUEUE_BYTES_MAX);
        if full {
            drop(waiting);
            metrics::DROPPED.with_label_values(&["full"]).inc();
            return;
        }
        waiting.bytes += bytes;
        waiting.messages.push_back(message);
        let first = waiting.messages.len() == 1;
        drop(waiting);
        metrics::QUEUED.inc();
        if first {
            self.filled.notify_one();
        }
    }

    /// Waits for messages and takes a batch, in order. May be dropped at its wait without loss.
    pub async fn take(&self) -> Vec<RaftMessage> {
        loop {
            let batch = self.take_now();
            if !batch.is_empty() {
                return batch;
            }
            self.filled.notified().await;
        }
    }

    fn take_now(&self) -> Vec<RaftMessage> {
        let mut waiting = self.waiting.lock();
        let mut batch = Vec::with_capacity(waiting.messages.len().min(BATCH_MESSAGES));
        let mut batch_bytes = 0;
        while batch.len() < BATCH_MESSAGES && batch_bytes < BATCH_BYTES {
            let Some(message) = waiting.messages.pop_front() else { break };
            let bytes = bytes_of(&message);
            waiting.bytes -= bytes;
            batch_bytes += bytes;
            batch.push(message);
        }
        drop(waiting);
        metrics::QUEUED.sub(batch.len() as i64);
        batch
    }

    /// Forgets what waits: it was for a stream that broke, and raft has newer things to say.
    fn clear(&self) {
        let dropped = std::mem::take(&mut *self.waiting.lock()).messages.len();
        metrics::QUEUED.sub(dropped as i64);
        metrics::DROPPED.with_label_values(&["broken"]).inc_by(dropped as u64);
    }
}

/// Keeps a stream to `store` until the network stops. Connects when there is something to say.
pub async fn run(network: Network, store: StoreId, queue: Arc<Queue>) {
    let stop = network.0.stop.clone();
    let keep = async {
        let mut backoff = BACKOFF_MIN;
        let mut told = false;
        loop {
            let first = queue.take().await;
            let began = MonoTime::now();
            let outcome = stream(&network, store, &queue, first).await;
            queue.clear();
            // The first failure is news; that it goes on is not.
            match outcome {
                Err(error) if !told => warn!(store_id = store.0, %error, "stream to store broke"),
                outcome => debug!(store_id = store.0, ?outcome, "stream to store ended"),
            }
            let lived = MonoTime::now().since(began) > BACKOFF_MAX * 4;
            (backoff, told) = if lived {
                (BACKOFF_MIN, false)
            } else {
                ((backoff * 2).min(BACKOFF_MAX), true)
            };
            tokio::time::sleep(backoff).await;
        }
    };
    let _stopped = stop.run_until_cancelled(keep).await;
}

/// One life of the stream: from connecting to its end, which comes by the other side or by an error.
async fn stream(network: &Network, store: StoreId, queue: &Arc<Queue>, first: Vec<RaftMessage>) -> Result<(), String> {
    let channel = network.connect(store).await.map_err(|error| {
        metrics::CONNECTS.with_label_values(&["failed"]).inc();
        base::log::chain(&error).to_string()
    })?;
    metrics::CONNECTS.with_label_values(&["ok"]).inc();
    info!(store_id = store.0, "stream to store opened");
    let cluster_id = network.0.cluster.0;
    let batches = futures::stream::unfold((Some(first), queue.clone()), move |(first, queue)| async move {
        let messages = match first {
            Some(first) => first,
            None => queue.take().await,
        };
        metrics::SENT.inc_by(messages.len() as u64);
        Some((RaftBatch { cluster_id, messages }, (None, queue)))
    });
    let mut client = StoreTransportClient::new(channel).max_encoding_message_size(MESSAGE_MAX);
    client
        .raft(batches)
        .await
        .map(drop)
        .map_err(|status| tls::fault(&status).unwrap_or_else(|| format!("{}: {}", status.code(), status.message())))
}
