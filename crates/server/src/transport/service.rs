//! The receiving half: what other stores send goes into this one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{ClusterId, RegionId, StoreId};
use engine::Cf;
use proto::ferrite_raft::snapshot_part::Part as WirePart;
use proto::ferrite_raft::store_transport_server::{StoreTransport, StoreTransportServer};
use proto::ferrite_raft::{Done, RaftBatch, RaftMessage, SnapshotPart};
use raftstore::message::snapshot_key;
use raftstore::snapshot::{FileSnapshots, Part, Receiving};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::{MESSAGE_MAX, metrics};

/// A sender that gives no part for this long has lost its place: others wait for it.
const PART_WAIT_MAX: Duration = Duration::from_secs(30);

/// Takes messages into the store. Must not block; drops what it has no room for.
pub type Deliver = Arc<dyn Fn(Vec<RaftMessage>) + Send + Sync>;

/// Serves `StoreTransport` for one store.
pub struct Receiver {
    pub cluster: ClusterId,
    pub store: StoreId,
    pub deliver: Deliver,
    pub snapshots: Arc<FileSnapshots>,
    places: Semaphore,
    received: AtomicU64,
}

impl Receiver {
    pub fn new(cluster: ClusterId, store: StoreId, deliver: Deliver, snapshots: Arc<FileSnapshots>, at_once: usize) -> Receiver {
        Receiver {
            cluster,
            store,
            deliver,
            snapshots,
            places: Semaphore::new(at_once),
            received: AtomicU64::new(0),
        }
    }

    pub fn into_service(self) -> StoreTransportServer<Receiver> {
        StoreTransportServer::new(self).max_decoding_message_size(MESSAGE_MAX)
    }

    fn check_cluster(&self, found: u64) -> Result<(), Status> {
        if found == self.cluster.0 {
            return Ok(());
        }
        warn!(found, wanted = self.cluster.0, "message of another cluster refused");
        Err(Status::failed_precondition(format!(
            "message of cluster {found} reached cluster {}",
            self.cluster
        )))
    }

    /// Tells the sender, when it has an old address, to ask for the right one.
    fn check_store(&self, message: &RaftMessage) -> Result<(), Status> {
        let wanted = message.to.as_ref().map_or(0, |peer| peer.store_id);
        if wanted == self.store.0 {
            return Ok(());
        }
        metrics::DROPPED.with_label_values(&["wrong_store"]).inc();
        Err(Status::not_found(format!(
            "message for store {wanted} reached store {}",
            self.store
        )))
    }

    async fn receive_snapshot(&self, mut parts: Streaming<SnapshotPart>) -> Result<(), Status> {
        let Some(WirePart::Head(head)) = next_part(&mut parts).await? else {
            return Err(Status::invalid_argument("a raft snapshot begins with its head"));
        };
        self.check_cluster(head.cluster_id)?;
        let message = head
            .message
            .ok_or_else(|| Status::invalid_argument("head without its message"))?;
        self.check_store(&message)?;
        let meta = message
            .snapshot
            .as_ref()
            .ok_or_else(|| Status::invalid_argument("message without its snapshot"))?;
        let region = meta.region.clone().filter(|region| region.id == message.region_id);
        let region = region.ok_or_else(|| Status::invalid_argument("the raft snapshot is not of its message's region"))?;
        let key = snapshot_key(RegionId(region.id), meta);
        // Each attempt has a file of its own: an earlier one of the same sender may not have noticed yet that it is over.
        let attempt = self.received.fetch_add(1, Ordering::Relaxed);
        let snapshots = self.snapshots.clone();
        let mut receiving = blocking(move || snapshots.receive(key, &region, attempt)).await?;
        let mut whole = false;
        while !whole {
            let part = next_part(&mut parts)
                .await?
                .ok_or_else(|| Status::data_loss("the stream ended early"))?;
            let part = from_wire(part)?;
            whole = matches!(part, Part::Tail { .. });
            receiving = blocking(move || receiving.part(&part).map(|()| receiving)).await?;
        }
        blocking(move || Receiving::finish(receiving)).await?;
        info!(region_id = message.region_id, index = meta.index, "raft snapshot received");
        (self.deliver)(vec![message]);
        Ok(())
    }
}

#[tonic::async_trait]
impl StoreTransport for Receiver {
    async fn raft(&self, request: Request<Streaming<RaftBatch>>) -> Result<Response<Done>, Status> {
        let mut batches = request.into_inner();
        while let Some(batch) = batches.message().await? {
            self.check_cluster(batch.cluster_id)?;
            for message in &batch.messages {
                self.check_store(message)?;
            }
            metrics::RECEIVED.inc_by(batch.messages.len() as u64);
            (self.deliver)(batch.messages);
        }
        Ok(Response::new(Done {}))
    }

    async fn snapshot(&self, request: Request<Streaming<SnapshotPart>>) -> Result<Response<Done>, Status> {
        let Ok(_place) = self.places.try_acquire() else {
            metrics::SNAPSHOTS.with_label_values(&["received", "refused"]).inc();
            return Err(Status::resource_exhausted(
                "this store receives as many raft snapshots as it may",
            ));
        };
        let outcome = self.receive_snapshot(request.into_inner()).await;
        metrics::SNAPSHOTS
            .with_label_values(&["received", if outcome.is_ok() { "ok" } else { "failed" }])
            .inc();
        if let Err(status) = &outcome {
            warn!(error = status.message(), "receive raft snapshot");
        }
        outcome.map(|()| Response::new(Done {}))
    }
}

async fn next_part(parts: &mut Streaming<SnapshotPart>) -> Result<Option<WirePart>, Status> {
    let part = tokio::time::timeout(PART_WAIT_MAX, parts.message()).await;
    let part = part.map_err(|_| Status::deadline_exceeded("the next part took too long"))??;
    Ok(part.and_then(|part| part.part))
}

fn from_wire(part: WirePart) -> Result<Part, Status> {
    match part {
        WirePart::Head(_) => Err(Status::invalid_argument("a second head")),
        WirePart::Tail(tail) => Ok(Part::Tail {
            chunks: tail.chunks,
            bytes: tail.bytes,
        }),
        WirePart::Chunk(chunk) => {
            let cf = Cf::DATA.into_iter().find(|cf| *cf as u32 == chunk.cf);
            let cf = cf.ok_or_else(|| Status::invalid_argument(format!("column family {} does not exist", chunk.cf)))?;
            Ok(Part::Chunk {
                cf,
                pairs: chunk.pairs,
                crc: chunk.crc32,
            })
        }
    }
}

/// Runs work on the disk where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, Status> {
    let outcome = tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Status::aborted(error.to_string()))?;
    outcome.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => Status::data_loss(error.to_string()),
        _ => Status::internal(error.to_string()),
    })
}
