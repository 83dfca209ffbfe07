//! Blobs as streams of pieces.

use std::pin::Pin;

use base::MonoTime;
use blob_store::Encoding;
use futures::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::parked::{Name, Running};
use super::resource::{Resource, parse_read, parse_write};
use super::{Reapi, caller};
use crate::access::Caller;
use crate::body;
use crate::cache::Coding;
use crate::error::Error;
use crate::metrics::Op;
use crate::proto::bytestream::byte_stream_server::ByteStream;
use crate::proto::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};

/// A blob, piece by piece.
type ReadStream = Pin<Box<dyn Stream<Item = Result<ReadResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ByteStream for Reapi {
    type ReadStream = ReadStream;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadStream>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let resource = parse_read(&request.resource_name)?;
        self.timed(&resource.instance, Op::Get, self.stream(caller, &resource, &request))
            .await
    }

    async fn write(&self, request: Request<Streaming<WriteRequest>>) -> Result<Response<WriteResponse>, Status> {
        let begin = MonoTime::now();
        let caller = caller(&request)?;
        let mut parts = request.into_inner();
        let first = self.cache.pace.next(begin, 0, parts.message()).await??;
        let first = first.ok_or(Error::Malformed("the upload has no first message"))?;
        let resource = parse_write(&first.resource_name)?;
        let name = (caller.name().to_owned(), first.resource_name.clone());
        let receive = self.receive(&caller, begin, name, &resource, first, &mut parts);
        self.timed(&resource.instance, Op::Put, receive).await
    }

    async fn query_write_status(
        &self,
        request: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        let caller = caller(&request)?;
        caller.check_read()?;
        let resource = parse_write(&request.get_ref().resource_name)?;
        let complete = self.is_there(&resource).await?;
        let name = (caller.name().to_owned(), request.into_inner().resource_name);
        let committed = match complete {
            true => resource.len,
            // What is not known any more starts anew.
            false => self.parked.received(&name).unwrap_or(0),
        };
        Ok(Response::new(QueryWriteStatusResponse {
            committed_size: committed as i64,
            complete,
        }))
    }
}

impl Reapi {
    async fn stream(&self, caller: Caller, resource: &Resource, request: &ReadRequest) -> Result<ReadStream, Status> {
        caller.check_read()?;
        let (start, limit) = match (u64::try_from(request.read_offset), u64::try_from(request.read_limit)) {
            (Ok(start), Ok(limit)) => (start, limit),
            _ => return Err(Error::Malformed("offset or limit is negative").into()),
        };
        if start > resource.len {
            return Err(Error::OutOfRange("the offset lies behind the end").into());
        }
        if resource.coding == Coding::Zstd && limit > 0 {
            return Err(Error::Malformed("a compressed read takes no limit").into());
        }
        let meter = self.meter(&resource.instance);
        let found = self
            .cache
            .open(resource.id())
            .await?
            .filter(|blob| blob.len() == resource.len);
        let Some(blob) = found else {
            meter.misses.inc();
            return Err(Error::NotFound.into());
        };
        meter.hits.inc();
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
        Ok(Box::pin(answers))
    }

    /// Whether this server has it: what a tier has is not asked, since the client sends it anyway.
    async fn is_there(&self, resource: &Resource) -> Result<bool, Error> {
        let found = self.cache.renew_here(vec![resource.key]).await?;
        Ok(found == [Some(resource.len)])
    }

    /// Takes an upload whose first message is `first`; one that broke off goes on where it stopped. The committed size to answer: bytes
    /// that came over the wire.
    async fn receive(
        &self,
        caller: &Caller,
        begin: MonoTime,
        name: Name,
        resource: &Resource,
        first: WriteRequest,
        parts: &mut Streaming<WriteRequest>,
    ) -> Result<WriteResponse, Status> {
        caller.check_write(&resource.instance)?;
        if self.is_there(resource).await? {
            // Somebody was faster: the client may stop at once. Of compressed uploads the size on the wire is not known.
            self.meter(&resource.instance).stored.inc();
            return Ok(WriteResponse {
                committed_size: match resource.coding {
                    Coding::Zstd => -1,
                    Coding::Identity => resource.len as i64,
                },
            });
        }
        let incoming = match (first.write_offset, self.parked.take(&name)) {
            (0, _) => self.cache.upload(resource.id(), Some(resource.len), resource.coding).await?,
            (offset, Some(incoming)) if offset == incoming.received() as i64 => incoming,
            (_, parked) => {
                // Back to where it was, for a client that asks how far it came.
                parked
                    .into_iter()
                    .for_each(|incoming| drop(Running::new(&self.parked, name.clone(), incoming)));
                let told = "the upload is not at this offset; ask QueryWriteStatus, or start at 0";
                return Err(Error::OutOfRange(told).into());
            }
        };
        let start = incoming.received();
        let mut running = Running::new(&self.parked, name, incoming);
        let meter = self.meter(&resource.instance);
        let mut part = first;
        loop {
            let incoming = running.get();
            if part.write_offset != incoming.received() as i64 {
                return Err(Error::Malformed("an upload has no gaps").into());
            }
            meter.bytes_in.inc_by(part.data.len() as u64);
            incoming.write(part.data).await?;
            if part.finish_write {
                break;
            }
            let got = incoming.received() - start;
            let next = incoming.next(begin, got, parts.message()).await??;
            part = next.ok_or(Error::Malformed("the upload ended before it was finished"))?;
        }
        let incoming = running.finish();
        let committed_size = incoming.received() as i64;
        incoming.finish().await?;
        meter.stored.inc();
        Ok(WriteResponse { committed_size })
    }
}
