//! Messages between stores over gRPC: one stream for each other store, raft snapshots on connections of their own.
//!
//! Lossy by design, as raft repairs: a full queue drops the newest message, a broken stream what was queued for it. Nothing here
//! blocks a raft thread. Messages come from `raftstore` through [`raftstore::Transport`] and go, on the other side, through [`service`] into
//! that store.

mod link;
mod metrics;
mod pace;
pub mod service;
mod snapshot;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{ClusterId, StoreId};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use proto::ferrite_raft::RaftMessage;
use raftstore::snapshot::{FileSnapshots, Key};
use tls::Dialer;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::config::TransportConfig;
use link::Queue;
use pace::Pace;

/// Largest message between stores: raft's largest entry with its envelope, or a chunk of a raft snapshot with one large pair.
const MESSAGE_MAX: usize = 96 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A peer that gives no sign of life for this long, and as long again, is taken for dead.
const KEEPALIVE: Duration = Duration::from_secs(3);
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Tells where a store listens, `host:port`.
pub type Resolve = Arc<dyn Fn(StoreId) -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// The sending half; clones send through the same links.
#[derive(Clone)]
pub struct Network(Arc<Inner>);

struct Inner {
    /// Raft threads are not the runtime's: they start links through it.
    runtime: tokio::runtime::Handle,
    cluster: ClusterId,
    config: TransportConfig,
    resolve: Resolve,
    snapshots: Arc<FileSnapshots>,
    dialer: Dialer,
    links: Mutex<BTreeMap<StoreId, Arc<Queue>>>,
    outgoing: snapshot::Outgoing,
    stop: CancellationToken,
}

impl Network {
    /// For a store of `cluster`; call it on the runtime that shall carry the traffic. `snapshots` holds what raft wants sent.
    pub fn new(
        cluster: ClusterId,
        config: &TransportConfig,
        resolve: Resolve,
        snapshots: Arc<FileSnapshots>,
        dialer: Dialer,
    ) -> Network {
        Network(Arc::new(Inner {
            runtime: tokio::runtime::Handle::current(),
            cluster,
            config: config.clone(),
            resolve,
            snapshots,
            dialer,
            links: Mutex::default(),
            outgoing: snapshot::Outgoing::new(config.snapshots_max, Pace::new(config.snapshot_rate)),
            stop: CancellationToken::new(),
        }))
    }

    /// Ends all links. What is sent later is dropped.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    fn queue(&self, store: StoreId) -> Arc<Queue> {
        let mut links = self.0.links.lock();
        let queue = links.entry(store).or_insert_with(|| {
            let queue = Arc::new(Queue::new(self.0.config.queue_max));
            self.0.runtime.spawn(link::run(self.clone(), store, queue.clone()));
            queue
        });
        queue.clone()
    }

    async fn connect(&self, store: StoreId) -> Result<Channel, ConnectError> {
        let address = (self.0.resolve)(store)
            .await
            .map_err(|why| ConnectError::Unknown { store, why })?;
        let dialer = &self.0.dialer;
        let endpoint = dialer
            .endpoint(&address)
            .map_err(|source| ConnectError::Dial {
                address: address.clone(),
                source,
            })?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        dialer
            .connect(endpoint)
            .await
            .map_err(|source| ConnectError::Dial { address, source })
    }
}

impl raftstore::Transport for Network {
    fn send(&self, messages: Vec<RaftMessage>) {
        if self.0.stop.is_cancelled() {
            return;
        }
        // Raft hands over what one round made: mostly for the same one or two stores.
        let mut known: Option<(StoreId, Arc<Queue>)> = None;
        for message in messages {
            let Some(to) = message
                .to
                .as_ref()
                .map(|peer| StoreId(peer.store_id))
                .filter(|store| store.is_some())
            else {
                metrics::DROPPED.with_label_values(&["no_store"]).inc();
                continue;
            };
            let (_, queue) = match known.take() {
                Some(known_link) if known_link.0 == to => known.insert(known_link),
                _ => known.insert((to, self.queue(to))),
            };
            queue.push(message);
        }
    }

    fn send_snapshot(&self, message: RaftMessage, key: Key, done: Box<dyn FnOnce(bool) + Send>) {
        self.0.outgoing.send(self.clone(), message, key, done);
    }
}

#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("where is store {store}: {why}")]
    Unknown { store: StoreId, why: String },
    #[error("dial {address}")]
    Dial {
        address: String,
        source: tonic::transport::Error,
    },
}

#[cfg(test)]
mod tests;
