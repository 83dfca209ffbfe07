//! The service `tikvpb.Tikv`: what clients ask of a store, one by one or through `BatchCommands`.
//!
//! A request comes from tonic, gets a deadline and a place among those in flight, and goes to [`crate::raw`] or [`crate::txn`]; its
//! outcome becomes the answer's fields or a wire error ([`crate::error`]). No task is spawned for a unary request, nor for a command of
//! a batch that is answered at once. Unary and batched requests run the same `handlers`. RPCs that are not served answer
//! UNIMPLEMENTED, on which clients fall back.
//! Invariant: an answer never has both a region error and another one, as clients look at one only.

mod answer;
mod batch_commands;
mod handlers;
mod metrics;
#[cfg(test)]
mod tests;
mod txn_handlers;

use std::sync::Arc;
use std::time::Duration;

use base::{ClusterId, MonoTime, StoreId, WallTime};
use bytes::Bytes;
use engine::kv::{self, Kv};
use futures::future::BoxFuture;
use proto::ferrite_read::replica_reads_server::{ReplicaReads, ReplicaReadsServer};
use proto::ferrite_read::{SafeTsRequest, SafeTsResponse};
use proto::kvrpcpb::*;
use proto::metapb::Region;
use proto::tikvpb::tikv_server::{Tikv, TikvServer};
use proto::tikvpb::{BatchCommandsRequest, BatchCommandsResponse};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::config::ApiVersion;
use crate::limits::{self, Admission};
use crate::listen;
use crate::raw::Raw;
use crate::txn::Txn;
use batch_commands::BatchCommands;
use handlers::Handlers;

pub use metrics::EXPIRED_REMOVED;

/// Which store this is; requests meant for another one are refused.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    pub cluster: ClusterId,
    pub store: StoreId,
}

/// Divides regions of this store, for `SplitRegion`.
pub trait Splits: Send + Sync {
    /// Divides the context's region at these region keys; all parts, ascending.
    fn split(&self, ctx: kv::Context, keys: Vec<Bytes>, deadline: MonoTime) -> BoxFuture<'_, Result<Vec<Region>, kv::Error>>;
}

/// Serves the clients of one store. Cheap to clone.
#[derive(Clone)]
pub struct TikvService {
    handlers: Arc<Handlers>,
}

/// When requests came, and how long their caller waits.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    now: MonoTime,
    wall: WallTime,
    timeout: Option<Duration>,
}

impl Arrival {
    /// Reads both clocks, once for all that came together.
    fn read(timeout: Option<Duration>) -> Arrival {
        Arrival {
            now: MonoTime::now(),
            wall: WallTime::now(),
            timeout,
        }
    }
}

impl TikvService {
    /// `kv` are the regions of this store, `txn` the transactions on them, `api` how data lies in them.
    pub fn new(kv: Arc<dyn Kv>, txn: Arc<Txn>, identity: Identity, api: ApiVersion) -> TikvService {
        TikvService::with_admission(kv, txn, identity, api, Admission::default())
    }

    /// Raw access as this service has it, with its latches.
    pub fn raw(&self) -> Arc<Raw> {
        self.handlers.raw.clone()
    }

    /// Lets clients divide regions.
    pub fn with_splits(mut self, splits: Arc<dyn Splits>) -> TikvService {
        let handlers = Arc::get_mut(&mut self.handlers).expect("not shared before it serves");
        handlers.splits = Some(splits);
        self
    }

    fn with_admission(kv: Arc<dyn Kv>, txn: Arc<Txn>, identity: Identity, api: ApiVersion, admission: Admission) -> TikvService {
        TikvService {
            handlers: Arc::new(Handlers::new(kv, txn, identity, api, admission)),
        }
    }

    /// What other stores of the cluster ask.
    pub fn replica_reads(&self) -> ReplicaReadsServer<TikvService> {
        ReplicaReadsServer::new(self.clone())
    }

    /// The service for a tonic router, with its limits on messages set.
    pub fn into_server(self) -> TikvServer<TikvService> {
        TikvServer::new(self)
            .max_decoding_message_size(listen::MESSAGE_MAX)
            .max_encoding_message_size(usize::MAX)
    }
}

/// The service's methods, each by the handler of its name.
macro_rules! serve {
    ($($rpc:ident($request:ty) -> $response:ty;)*) => {
        #[async_trait]
        #[async_trait]
        impl Tikv for TikvService {
            $(async fn $rpc(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                let arrival = Arrival::read(limits::grpc_timeout(request.metadata()));
                self.handlers.$rpc(request.into_inner(), arrival).await.map(Response::new)
            })*

            async fn batch_commands(
                &self,
                request: Request<Streaming<BatchCommandsRequest>>,
            ) -> Result<Response<BoxStream<BatchCommandsResponse>>, Status> {
                Ok(Response::new(Box::pin(BatchCommands::new(self.handlers.clone(), request.into_inner()))))
            }
        }
    };
}

/// What stores ask each other for reads away from the leader.
#[async_trait]
impl ReplicaReads for TikvService {
    async fn safe_ts(&self, request: Request<SafeTsRequest>) -> Result<Response<SafeTsResponse>, Status> {
        let arrival = Arrival::read(limits::grpc_timeout(request.metadata()));
        self.handlers.safe_ts(request.into_inner(), arrival).await.map(Response::new)
    }
}

serve! {
    raw_get(RawGetRequest) -> RawGetResponse;
    raw_batch_get(RawBatchGetRequest) -> RawBatchGetResponse;
    raw_put(RawPutRequest) -> RawPutResponse;
    raw_batch_put(RawBatchPutRequest) -> RawBatchPutResponse;
    raw_delete(RawDeleteRequest) -> RawDeleteResponse;
    raw_batch_delete(RawBatchDeleteRequest) -> RawBatchDeleteResponse;
    raw_scan(RawScanRequest) -> RawScanResponse;
    raw_batch_scan(RawBatchScanRequest) -> RawBatchScanResponse;
    raw_delete_range(RawDeleteRangeRequest) -> RawDeleteRangeResponse;
    raw_get_key_ttl(RawGetKeyTtlRequest) -> RawGetKeyTtlResponse;
    raw_compare_and_swap(RawCasRequest) -> RawCasResponse;
    raw_checksum(RawChecksumRequest) -> RawChecksumResponse;
    kv_get(GetRequest) -> GetResponse;
    kv_batch_get(BatchGetRequest) -> BatchGetResponse;
    kv_scan(ScanRequest) -> ScanResponse;
    kv_prewrite(PrewriteRequest) -> PrewriteResponse;
    kv_commit(CommitRequest) -> CommitResponse;
    kv_cleanup(CleanupRequest) -> CleanupResponse;
    kv_batch_rollback(BatchRollbackRequest) -> BatchRollbackResponse;
    kv_pessimistic_lock(PessimisticLockRequest) -> PessimisticLockResponse;
    kv_pessimistic_rollback(PessimisticRollbackRequest) -> PessimisticRollbackResponse;
    kv_txn_heart_beat(TxnHeartBeatRequest) -> TxnHeartBeatResponse;
    kv_check_txn_status(CheckTxnStatusRequest) -> CheckTxnStatusResponse;
    kv_check_secondary_locks(CheckSecondaryLocksRequest) -> CheckSecondaryLocksResponse;
    kv_scan_lock(ScanLockRequest) -> ScanLockResponse;
    kv_resolve_lock(ResolveLockRequest) -> ResolveLockResponse;
    kv_delete_range(DeleteRangeRequest) -> DeleteRangeResponse;
    unsafe_destroy_range(UnsafeDestroyRangeRequest) -> UnsafeDestroyRangeResponse;
    physical_scan_lock(PhysicalScanLockRequest) -> PhysicalScanLockResponse;
    get_lock_wait_info(GetLockWaitInfoRequest) -> GetLockWaitInfoResponse;
    mvcc_get_by_key(MvccGetByKeyRequest) -> MvccGetByKeyResponse;
    mvcc_get_by_start_ts(MvccGetByStartTsRequest) -> MvccGetByStartTsResponse;
    split_region(SplitRegionRequest) -> SplitRegionResponse;
    read_index(ReadIndexRequest) -> ReadIndexResponse;
    get_store_safe_ts(StoreSafeTsRequest) -> StoreSafeTsResponse;
}
