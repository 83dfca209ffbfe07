//! Requests that a store serves for one region, alike for the unary and the batched way.

use std::future::Future;

use proto::tikvpb::tikv_client::TikvClient;
use proto::tikvpb::{batch_commands_request as batch_request, batch_commands_response as batch_response};
use proto::{errorpb, kvrpcpb};
use tonic::Status;
use tonic::transport::Channel;

/// What trying again may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Changes nothing.
    Read,
    /// Doing it twice is as doing it once, unless somebody else wrote in between.
    Write,
    /// Doing it twice gives another answer.
    WriteOnce,
}

pub(crate) trait Request: Clone + Send + Sync + 'static {
    type Answer: Answer;
    const EFFECT: Effect;

    fn set_context(&mut self, context: kvrpcpb::Context);

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
            const EFFECT: Effect = Effect::$effect;
            fn set_context(&mut self, context: kvrpcpb::Context) {
                self.context = Some(context);
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
    // Answers whose only errors are those of the region.
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

request!(RawGetRequest -> RawGetResponse, Read, raw_get, command RawGet);
request!(RawBatchGetRequest -> RawBatchGetResponse, Read, raw_batch_get, command RawBatchGet);
request!(RawPutRequest -> RawPutResponse, Write, raw_put, command RawPut);
request!(RawBatchPutRequest -> RawBatchPutResponse, Write, raw_batch_put, command RawBatchPut);
request!(RawDeleteRequest -> RawDeleteResponse, Write, raw_delete, command RawDelete);
request!(RawBatchDeleteRequest -> RawBatchDeleteResponse, Write, raw_batch_delete, command RawBatchDelete);
request!(RawScanRequest -> RawScanResponse, Read, raw_scan, command RawScan);
request!(RawDeleteRangeRequest -> RawDeleteRangeResponse, Write, raw_delete_range, command RawDeleteRange);
request!(RawGetKeyTtlRequest -> RawGetKeyTtlResponse, Read, raw_get_key_ttl, unary);
request!(RawCasRequest -> RawCasResponse, WriteOnce, raw_compare_and_swap, unary);
request!(RawChecksumRequest -> RawChecksumResponse, Read, raw_checksum, unary);

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
