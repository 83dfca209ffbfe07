//! The way to the stores that lead regions, for reads on this one: a connection to each store that was asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, StoreId};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use proto::ferrite_read::replica_reads_client::ReplicaReadsClient;
use proto::ferrite_read::{SafeTsRequest, SafeTsResponse};
use proto::kvrpcpb::{ReadIndexRequest, ReadIndexResponse};
use proto::tikvpb::tikv_client::TikvClient;
use raftstore::shell::RaftStore;
use tls::Dialer;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::pd_client::PdLink;
use crate::txn::replica::Leaders;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// See the module.
pub struct LeaderStores {
    raft: RaftStore,
    link: Arc<dyn PdLink>,
    dialer: Dialer,
    channels: Mutex<BTreeMap<StoreId, Channel>>,
}

impl LeaderStores {
    pub fn new(raft: RaftStore, link: Arc<dyn PdLink>, dialer: Dialer) -> LeaderStores {
        LeaderStores {
            raft,
            link,
            dialer,
            channels: Mutex::default(),
        }
    }

    async fn channel(&self, store: StoreId, deadline: MonoTime) -> Result<Channel, Status> {
        if let Some(channel) = self.channels.lock().get(&store) {
            return Ok(channel.clone());
        }
        let unavailable = |error: &dyn std::error::Error| Status::unavailable(base::log::chain(error).to_string());
        let found = self.link.store(store, deadline).await.map_err(|error| unavailable(&error))?;
        let endpoint = self.dialer.endpoint(&found.address).map_err(|error| unavailable(&error))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(CONNECT_TIMEOUT)
            .keep_alive_timeout(CONNECT_TIMEOUT);
        let channel = self.dialer.connect(endpoint).await.map_err(|error| unavailable(&error))?;
        self.channels.lock().insert(store, channel.clone());
        Ok(channel)
    }

    /// Asks a store; after a failure of the connection the next one looks for its address anew.
    async fn ask<T, F>(&self, store: StoreId, deadline: MonoTime, ask: impl FnOnce(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let asked = async { ask(self.channel(store, deadline).await?).await };
        let answer = tokio::time::timeout(deadline.since(MonoTime::now()), asked).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("the leader did not answer in time")));
        if let Err(status) = &answer
            && matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Unknown)
        {
            self.channels.lock().remove(&store);
            self.link.forget_store(store);
        }
        answer.map(tonic::Response::into_inner)
    }
}

fn with_timeout<T>(message: T, deadline: MonoTime) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline.since(MonoTime::now()));
    request
}

impl Leaders for LeaderStores {
    fn read_index(
        &self,
        store: StoreId,
        request: ReadIndexRequest,
        deadline: MonoTime,
    ) -> BoxFuture<'_, Result<ReadIndexResponse, Status>> {
        let request = with_timeout(request, deadline);
        let ask = async |channel| TikvClient::new(channel).read_index(request).await;
        self.ask(store, deadline, ask).boxed()
    }

    fn safe_ts(
        &self,
        store: StoreId,
        request: SafeTsRequest,
        deadline: MonoTime,
    ) -> BoxFuture<'_, Result<SafeTsResponse, Status>> {
        let request = with_timeout(request, deadline);
        let ask = async |channel| ReplicaReadsClient::new(channel).safe_ts(request).await;
        self.ask(store, deadline, ask).boxed()
    }

    fn regions(&self) -> usize {
        self.raft.counts().0
    }
}
