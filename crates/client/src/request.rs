//! Requests that a store serves for one region, alike for the unary and the batched way.

use std::future::Future;

use proto::tikvpb::tikv_client::TikvClient;
use proto::tikvpb::{batch_commands_request as batch_request, batch_commands_response as batch_response};
use proto::{errorpb, kvrpcpb};
use tonic::Status;
use tonic::transport::Channel;

use crate::metrics::Command;

/// What trying again may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Changes nothing, or nothing that anybody sees who does not ask for it.
    Read,
    /// Doing it twice is as doing it once, unless somebody else wrote in between.
    Write,
    /// Doing it twice gives another answer.
    WriteOnce,
    /// A step of a transaction that may be what commits it. Doing it twice is as doing it once, whatever others did in between.
    Commit,
}

pub(crate) trait Request: Clone + Send + Sync + 'static {
    type Answer: Answer;

    /// For metrics and traces.
    const COMMAND: Command;

    fn effect(&self) -> Effect;

    /// What the caller wants of the context is set before; the rest is filled in for each try.
    fn context_mut(&mut self) -> &mut Option<kvrpcpb::Context>;

    /// Sends it on an HTTP/2 stream of its own.
    fn send(self, client: TikvClient<Channel>) -> impl Future<Output = Result<Self::Answer, Status>> + Send;

    /// As an entry of a batch; the request itself if it cannot be one.
    fn into_command(self) -> Result<batch_request::request::Cmd, Self>;

    /// From an entry of a batch's answer; `None` if it is of another kind.
    fn from_command(answer: batch_response::response::Cmd) -> Option<Self::Answer>;
}

pub(crate) trait Answer: Send + 'static {
    fn take_region_error(&mut self) -> Option<Box<errorpb::Error>>;

    /// Why the store refused the request itself; empty if it did not.
    fn error(&self) -> &str;
}

macro_rules! request {
    // Sent in batches: the command's name is the same for request and answer.
    ($request:ident -> $answer:ident, $effect:ident, $rpc:ident, command $command:ident) => {
        request!(@request $request -> $answer, $effect, $rpc,
            fn into_command(self) -> Result<batch_request::request::Cmd, Self> {
                Ok(batch_request::request::Cmd::$command(self))
            }
            fn from_command(answer: batch_response::response::Cmd) -> Option<Self::Answer> {
                match answer {
                    batch_response::response::Cmd::$command(answer) => Some(answer),
                    _ => None,
                }
            }
        );
    };
    ($request:ident -> $answer:ident, $effect:ident, $rpc:ident, unary) => {
        request!(@request $request -> $answer, $effect, $rpc,
            fn into_command(self) -> Result<batch_request::request::Cmd, Self> {
                Err(self)
            }
            fn from_command(_: batch_response::response::Cmd) -> Option<Self::Answer> {
                None
            }
        );
    };
    (@request $request:ident -> $answer:ident, $effect:ident, $rpc:ident, $($batched:item)*) => {
        impl Request for kvrpcpb::$request {
            type Answer = kvrpcpb::$answer;
            const COMMAND: Command = Command::named(stringify!($rpc));
            fn effect(&self) -> Effect {
                $effect(self)
            }
            fn context_mut(&mut self) -> &mut Option<kvrpcpb::Context> {
                &mut self.context
            }
            async fn send(self, mut client: TikvClient<Channel>) -> Result<Self::Answer, Status> {
                Ok(client.$rpc(self).await?.into_inner())
            }
            $($batched)*
        }
    };
}

macro_rules! answer {
    ($answer:ident) => {
        answer!(@answer $answer, |answer| &answer.error);
    };
    // Answers whose only errors are those of the region, or whose others are for the caller to look at.
    ($answer:ident, region error only) => {
        answer!(@answer $answer, |_answer| "");
    };
    (@answer $answer:ident, |$this:ident| $error:expr) => {
        impl Answer for kvrpcpb::$answer {
            fn take_region_error(&mut self) -> Option<Box<errorpb::Error>> {
                self.region_error.take()
            }
            fn error(&self) -> &str {
                let $this = self;
                $error
            }
        }
    };
}

fn read<R>(_: &R) -> Effect {
    Effect::Read
}

fn write<R>(_: &R) -> Effect {
    Effect::Write
}

fn write_once<R>(_: &R) -> Effect {
    Effect::WriteOnce
}

fn commit<R>(_: &R) -> Effect {
    Effect::Commit
}

/// The first phase decides only where there is no second.
fn prewrite(request: &kvrpcpb::PrewriteRequest) -> Effect {
    match request.try_one_pc || request.use_async_commit {
        true => Effect::Commit,
        false => Effect::Read,
    }
}

request!(RawGetRequest -> RawGetResponse, read, raw_get, command RawGet);
request!(RawBatchGetRequest -> RawBatchGetResponse, read, raw_batch_get, command RawBatchGet);
request!(RawPutRequest -> RawPutResponse, write, raw_put, command RawPut);
request!(RawBatchPutRequest -> RawBatchPutResponse, write, raw_batch_put, command RawBatchPut);
request!(RawDeleteRequest -> RawDeleteResponse, write, raw_delete, command RawDelete);
request!(RawBatchDeleteRequest -> RawBatchDeleteResponse, write, raw_batch_delete, command RawBatchDelete);
request!(RawScanRequest -> RawScanResponse, read, raw_scan, command RawScan);
request!(RawDeleteRangeRequest -> RawDeleteRangeResponse, write, raw_delete_range, command RawDeleteRange);
request!(RawGetKeyTtlRequest -> RawGetKeyTtlResponse, read, raw_get_key_ttl, unary);
request!(RawCasRequest -> RawCasResponse, write_once, raw_compare_and_swap, unary);
request!(RawChecksumRequest -> RawChecksumResponse, read, raw_checksum, unary);
request!(GetRequest -> GetResponse, read, kv_get, command Get);
request!(BatchGetRequest -> BatchGetResponse, read, kv_batch_get, command BatchGet);
request!(ScanRequest -> ScanResponse, read, kv_scan, command Scan);
request!(PrewriteRequest -> PrewriteResponse, prewrite, kv_prewrite, command Prewrite);
request!(CommitRequest -> CommitResponse, commit, kv_commit, command Commit);
request!(BatchRollbackRequest -> BatchRollbackResponse, read, kv_batch_rollback, command BatchRollback);
request!(PessimisticLockRequest -> PessimisticLockResponse, read, kv_pessimistic_lock, command PessimisticLock);
request!(PessimisticRollbackRequest -> PessimisticRollbackResponse, read, kv_pessimistic_rollback, command PessimisticRollback);
request!(TxnHeartBeatRequest -> TxnHeartBeatResponse, read, kv_txn_heart_beat, command TxnHeartBeat);
request!(CheckTxnStatusRequest -> CheckTxnStatusResponse, read, kv_check_txn_status, command CheckTxnStatus);
request!(CheckSecondaryLocksRequest -> CheckSecondaryLocksResponse, read, kv_check_secondary_locks, command CheckSecondaryLocks);
request!(ScanLockRequest -> ScanLockResponse, read, kv_scan_lock, command ScanLock);
request!(ResolveLockRequest -> ResolveLockResponse, read, kv_resolve_lock, command ResolveLock);

answer!(RawGetResponse);
answer!(RawBatchGetResponse, region error only);
answer!(RawPutResponse);
answer!(RawBatchPutResponse);
answer!(RawDeleteResponse);
answer!(RawBatchDeleteResponse);
answer!(RawScanResponse, region error only);
answer!(RawDeleteRangeResponse);
answer!(RawGetKeyTtlResponse);
answer!(RawCasResponse);
answer!(RawChecksumResponse);
answer!(GetResponse, region error only);
answer!(BatchGetResponse, region error only);
answer!(ScanResponse, region error only);
answer!(PrewriteResponse, region error only);
answer!(CommitResponse, region error only);
answer!(BatchRollbackResponse, region error only);
answer!(PessimisticLockResponse, region error only);
answer!(PessimisticRollbackResponse, region error only);
answer!(TxnHeartBeatResponse, region error only);
answer!(CheckTxnStatusResponse, region error only);
answer!(CheckSecondaryLocksResponse, region error only);
answer!(ScanLockResponse, region error only);
answer!(ResolveLockResponse, region error only);
