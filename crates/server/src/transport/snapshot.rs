//! Sends raft snapshots: a bounded number at once, each paced, read from its file by a thread that may block.

use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, StoreId};
use futures::StreamExt;
use proto::ferrite_raft::snapshot_part::Part as WirePart;
use proto::ferrite_raft::store_transport_client::StoreTransportClient;
use proto::ferrite_raft::{RaftMessage, SnapshotChunk, SnapshotHead, SnapshotPart, SnapshotTail};
use raftstore::snapshot::{Key, Part};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{info, warn};

use super::pace::Pace;
use super::{MESSAGE_MAX, Network, metrics};

/// Snapshots that wait for their turn; more are refused at once, and raft asks again later.
const WAITING_MAX: usize = 1024;
/// Parts read ahead of the network.
const READ_AHEAD: usize = 2;
/// No snapshot takes longer; one that does hangs.
const SEND_TIME_MAX: Duration = Duration::from_secs(30 * 60);

/// The snapshots under way from this store.
pub struct Outgoing {
    waiting: Arc<Semaphore>,
    sending: Arc<Semaphore>,
    pace: Arc<Pace>,
}

/// Tells the outcome once, `false` if nobody else did: raft waits for it before it goes on with the peer.
struct Outcome(Option<Box<dyn FnOnce(bool) + Send>>);

impl Outcome {
    fn tell(mut self, done: bool) {
        if let Some(tell) = self.0.take() {
            tell(done);
        }
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell(false);
        }
    }
}

impl Outgoing {
    pub fn new(at_once: usize, pace: Pace) -> Outgoing {
        Outgoing {
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            sending: Arc::new(Semaphore::new(at_once)),
            pace: Arc::new(pace),
        }
    }

    pub fn send(&self, network: Network, message: RaftMessage, key: Key, done: Box<dyn FnOnce(bool) + Send>) {
        let outcome = Outcome(Some(done));
        let Ok(place) = self.waiting.clone().try_acquire_owned() else {
            metrics::SNAPSHOTS.with_label_values(&["sent", "refused"]).inc();
            return;
        };
        let (sending, pace, stop) = (self.sending.clone(), self.pace.clone(), network.0.stop.clone());
        let runtime = network.0.runtime.clone();
        let work = async move {
            let _turn = sending.acquire_owned().await.expect("the semaphore is never closed");
            drop(place);
            let (region_id, to) = (message.region_id, message.to.as_ref().map_or(0, |peer| peer.store_id));
            let sent = tokio::time::timeout(SEND_TIME_MAX, send(&network, StoreId(to), message, key, pace)).await;
            let sent = sent.unwrap_or_else(|_| Err("took too long".to_owned()));
            metrics::SNAPSHOTS
                .with_label_values(&["sent", if sent.is_ok() { "ok" } else { "failed" }])
                .inc();
            match &sent {
                Ok(bytes) => info!(region_id, store_id = to, bytes, "raft snapshot sent"),
                Err(error) => warn!(region_id, store_id = to, error, "send raft snapshot"),
            }
            outcome.tell(sent.is_ok());
        };
        runtime.spawn(async move { stop.run_until_cancelled(work).await });
    }
}

/// Sends one and returns how many bytes of pairs it had. `Ok` only when the receiver has it whole and durable.
async fn send(network: &Network, to: StoreId, message: RaftMessage, key: Key, pace: Arc<Pace>) -> Result<u64, String> {
    let channel = network
        .connect(to)
        .await
        .map_err(|error| base::log::chain(&error).to_string())?;
    let (sender, parts) = mpsc::channel::<SnapshotPart>(READ_AHEAD);
    let snapshots = network.0.snapshots.clone();
    let reader = tokio::task::spawn_blocking(move || -> std::io::Result<u64> {
        let mut sent = 0;
        for part in snapshots.read_made(key)? {
            let part = part?;
            if let Part::Tail { bytes, .. } = part {
                sent = bytes;
            }
            if sender.blocking_send(to_wire(part)).is_err() {
                break; // the stream broke, and tells why
            }
        }
        Ok(sent)
    });
    let head = SnapshotHead {
        cluster_id: network.0.cluster.0,
        message: Some(message),
    };
    let head = futures::stream::iter([SnapshotPart {
        part: Some(WirePart::Head(head)),
    }]);
    let paced = ReceiverStream::new(parts).then(move |part| {
        let wait = pace.wait(MonoTime::now(), bytes_of(&part));
        async move {
            tokio::time::sleep(wait).await;
            part
        }
    });
    let mut client = StoreTransportClient::new(channel).max_encoding_message_size(MESSAGE_MAX);
    let answer = client.snapshot(head.chain(paced)).await;
    // A file that cannot be read ends the stream early: its own error tells more than what the receiver makes of that.
    let bytes = reader
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
    answer.map_err(|status| format!("{}: {}", status.code(), status.message()))?;
    Ok(bytes)
}

fn to_wire(part: Part) -> SnapshotPart {
    let part = match part {
        Part::Chunk { cf, pairs, crc } => WirePart::Chunk(SnapshotChunk {
            cf: cf as u32,
            pairs,
            crc32: crc,
        }),
        Part::Tail { chunks, bytes } => WirePart::Tail(SnapshotTail { chunks, bytes }),
    };
    SnapshotPart { part: Some(part) }
}

fn bytes_of(part: &SnapshotPart) -> u64 {
    match &part.part {
        Some(WirePart::Chunk(chunk)) => chunk.pairs.len() as u64,
        _ => 0,
    }
}
