//! Blobs as streams of pieces.

use std::pin::Pin;

use base::MonoTime;
use blob_store::Encoding;
use futures::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::resource::{Resource, parse_read, parse_write};
use super::{Reapi, caller};
use crate::access::Caller;
use crate::body;
use crate::cache::Coding;
use crate::error::Error;
use crate::proto::bytestream::byte_stream_server::ByteStream;
use crate::proto::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};

#[tonic::async_trait]
impl ByteStream for Reapi {
    type ReadStream = Pin<Box<dyn Stream<Item = Result<ReadResponse, Status>> + Send>>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        caller(&request)?.check_read()?;
        let ReadRequest {
            resource_name,
            read_offset,
            read_limit,
        } = request.into_inner();
        let resource = parse_read(&resource_name)?;
        let (start, limit) = match (u64::try_from(read_offset), u64::try_from(read_limit)) {
            (Ok(start), Ok(limit)) => (start, limit),
            _ => return Err(Error::Malformed("offset or limit is negative").into()),
        };
        if start > resource.len {
            return Err(Status::out_of_range("the offset lies behind the end"));
        }
        if resource.coding == Coding::Zstd && limit > 0 {
            return Err(Error::Malformed("a compressed read takes no limit").into());
        }
        let meter = self.meter(&resource.instance);
        let begin = MonoTime::now();
        let found = self.cache.open(resource.key).await?.filter(|blob| blob.len() == resource.len);
        let Some(blob) = found else {
            meter.misses.inc();
            return Err(Error::NotFound.into());
        };
        meter.hits.inc();
        meter.get_seconds.observe(MonoTime::now().since(begin).as_secs_f64());
        let is_whole = start == 0;
        let (cursor, len) = match resource.coding {
            Coding::Identity => {
                let end = if limit == 0 {
                    blob.len()
                } else {
                    start.saturating_add(limit).min(blob.len())
                };
                (blob.range(start, end), end - start)
            }
            Coding::Zstd => (blob.from(start, Encoding::Zstd), blob.zstd_len()),
        };
        if resource.coding == Coding::Zstd {
            meter.bytes_saved.inc_by(blob.len().saturating_sub(blob.zstd_len()));
        }
        // From the middle of a compressed blob, how much comes is not known before.
        let len = (is_whole || resource.coding == Coding::Identity).then_some(len);
        let pieces = body::stream(cursor, len, meter);
        let answers = pieces.map(|piece| match piece {
            Ok(data) => Ok(ReadResponse { data }),
            Err(error) => Err(Status::data_loss(error.to_string())),
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn write(&self, request: Request<Streaming<WriteRequest>>) -> Result<Response<WriteResponse>, Status> {
        let begin = MonoTime::now();
        let caller = caller(&request)?;
        let mut parts = request.into_inner();
        let first = self.cache.pace.next(begin, 0, parts.message()).await??;
        let first = first.ok_or(Error::Malformed("the upload has no first message"))?;
        let resource = parse_write(&first.resource_name)?;
        let committed_size = self.receive(&caller, begin, &resource, first, &mut parts).await?;
        let meter = self.meter(&resource.instance);
        meter.stored.inc();
        meter.put_seconds.observe(MonoTime::now().since(begin).as_secs_f64());
        Ok(Response::new(WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        request: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        caller(&request)?.check_read()?;
        let resource = parse_write(&request.get_ref().resource_name)?;
        let complete = self.is_there(&resource).await?;
        // An upload that broke off starts anew.
        Ok(Response::new(QueryWriteStatusResponse {
            committed_size: if complete { resource.len as i64 } else { 0 },
            complete,
        }))
    }
}

impl Reapi {
    async fn is_there(&self, resource: &Resource) -> Result<bool, Error> {
        let found = self.cache.renew(vec![resource.key]).await?;
        Ok(found == [Some(resource.len)])
    }

    /// Takes an upload whose first message is `first`. The committed size to answer: bytes that came over the wire.
    async fn receive(
        &self,
        caller: &Caller,
        begin: MonoTime,
        resource: &Resource,
        first: WriteRequest,
        parts: &mut Streaming<WriteRequest>,
    ) -> Result<i64, Status> {
        caller.check_write(&resource.instance)?;
        if self.is_there(resource).await? {
            // Somebody was faster: the client may stop at once. Of compressed uploads the size on the wire is not known.
            return Ok(if resource.coding == Coding::Zstd {
                -1
            } else {
                resource.len as i64
            });
        }
        let space = self.cache.store.space(&resource.instance).map_err(Error::from)?;
        let Resource {
            key,
            content,
            len,
            coding,
            ..
        } = *resource;
        let mut incoming = self.cache.upload(key, content, space, Some(len), coding).await?;
        let mut part = first;
        loop {
            if part.write_offset != incoming.received() as i64 {
                return Err(Error::Malformed("an upload starts at 0 and has no gaps").into());
            }
            incoming.write(part.data).await?;
            if part.finish_write {
                break;
            }
            let next = self.cache.pace.next(begin, incoming.received(), parts.message()).await??;
            part = next.ok_or(Error::Malformed("the upload ended before it was finished"))?;
        }
        let received = incoming.received();
        self.meter(&resource.instance).bytes_in.inc_by(received);
        incoming.finish().await?;
        Ok(received as i64)
    }
}
