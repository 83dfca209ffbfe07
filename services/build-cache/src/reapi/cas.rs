//! Content by digest: what is missing, batches, trees.

use std::pin::Pin;

use blob_store::{Encoding, Form, Step};
use bytes::Bytes;
use futures::Stream;
use tonic::{Code, Request, Response, Status};

use super::{BATCH_BYTES_MAX, Reapi, caller};
use crate::access::Caller;
use crate::action;
use crate::cache::{self, Coding};
use crate::error::Error;
use crate::metrics::Op;
use crate::proto::reapi::content_addressable_storage_server::ContentAddressableStorage;
use crate::proto::reapi::{
    BatchReadBlobsRequest, BatchReadBlobsResponse, BatchUpdateBlobsRequest, BatchUpdateBlobsResponse, Digest,
    FindMissingBlobsRequest, FindMissingBlobsResponse, GetTreeRequest, GetTreeResponse, batch_read_blobs_response,
    batch_update_blobs_request, batch_update_blobs_response, compressor,
};
use crate::proto::rpc;
use crate::tier::Id;

/// Directories in one message of a tree.
const TREE_PAGE: usize = 1000;

/// A tree, page by page.
type TreeStream = Pin<Box<dyn Stream<Item = Result<GetTreeResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ContentAddressableStorage for Reapi {
    async fn find_missing_blobs(
        &self,
        request: Request<FindMissingBlobsRequest>,
    ) -> Result<Response<FindMissingBlobsResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let instance = request.instance_name.clone();
        self.timed(&instance, Op::Find, self.missing(caller, request)).await
    }

    async fn batch_update_blobs(
        &self,
        request: Request<BatchUpdateBlobsRequest>,
    ) -> Result<Response<BatchUpdateBlobsResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let instance = request.instance_name.clone();
        self.timed(&instance, Op::Put, self.update_all(caller, request)).await
    }

    async fn batch_read_blobs(
        &self,
        request: Request<BatchReadBlobsRequest>,
    ) -> Result<Response<BatchReadBlobsResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let instance = request.instance_name.clone();
        self.timed(&instance, Op::Get, self.read_all(caller, request)).await
    }

    type GetTreeStream = TreeStream;

    async fn get_tree(&self, request: Request<GetTreeRequest>) -> Result<Response<Self::GetTreeStream>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let instance = request.instance_name.clone();
        self.timed(&instance, Op::Get, self.tree(caller, request)).await
    }
}

impl Reapi {
    async fn missing(&self, caller: Caller, request: FindMissingBlobsRequest) -> Result<FindMissingBlobsResponse, Status> {
        caller.check_read()?;
        let (mut ids, mut lens) = (Vec::new(), Vec::new());
        for digest in &request.blob_digests {
            let (key, len, content) = Self::digest(Some(digest), request.digest_function)?;
            let instance = &request.instance_name;
            ids.push(Id { key, content, instance });
            lens.push(len);
        }
        let found = self.cache.renew(&ids).await?;
        let missing = lens.iter().zip(found).map(|(len, found)| found != Some(*len));
        let digests = request.blob_digests.iter().zip(missing).filter(|(_, missing)| *missing);
        Ok(FindMissingBlobsResponse {
            missing_blob_digests: digests.map(|(digest, _)| digest.clone()).collect(),
        })
    }

    async fn update_all(&self, caller: Caller, request: BatchUpdateBlobsRequest) -> Result<BatchUpdateBlobsResponse, Status> {
        caller.check_write(&request.instance_name)?;
        let bytes: usize = request.requests.iter().map(|blob| blob.data.len()).sum();
        if bytes > BATCH_BYTES_MAX {
            return Err(Error::Malformed("the batch is larger than max_batch_total_size_bytes").into());
        }
        let meter = self.meter(&request.instance_name);
        let mut responses = Vec::with_capacity(request.requests.len());
        for blob in request.requests {
            let digest = blob.digest.clone();
            let stored = self.update_one(&request.instance_name, request.digest_function, blob).await;
            meter.fail(stored.as_ref().err().and_then(Error::failure));
            responses.push(batch_update_blobs_response::Response {
                digest,
                status: Some(status_of(&stored)),
            });
        }
        Ok(BatchUpdateBlobsResponse { responses })
    }

    async fn read_all(&self, caller: Caller, request: BatchReadBlobsRequest) -> Result<BatchReadBlobsResponse, Status> {
        caller.check_read()?;
        let bytes = request.digests.iter().map(|digest| digest.size_bytes.max(0) as u64);
        if bytes.fold(0, u64::saturating_add) > BATCH_BYTES_MAX as u64 {
            return Err(Error::Malformed("the batch is larger than max_batch_total_size_bytes").into());
        }
        let meter = self.meter(&request.instance_name);
        let takes_zstd = request.acceptable_compressors.contains(&(compressor::Value::Zstd as i32));
        let mut responses = Vec::with_capacity(request.digests.len());
        for digest in request.digests {
            let read = self
                .read_one(&request.instance_name, request.digest_function, &digest, takes_zstd)
                .await;
            meter.fail(read.as_ref().err().and_then(Error::failure));
            let status = Some(status_of(&read));
            let (data, compressor) = read.unwrap_or_default();
            responses.push(batch_read_blobs_response::Response {
                digest: Some(digest),
                data,
                status,
                compressor,
            });
        }
        Ok(BatchReadBlobsResponse { responses })
    }

    async fn tree(&self, caller: Caller, request: GetTreeRequest) -> Result<TreeStream, Status> {
        caller.check_read()?;
        let root = request.root_digest.ok_or(Error::Malformed("the root is missing"))?;
        let scope = action::Scope {
            instance: &request.instance_name,
            content: action::function(request.digest_function, &root.hash)?,
        };
        let directories = action::directories(&self.cache, scope, &root).await?;
        let pages: Vec<_> = directories
            .chunks(TREE_PAGE)
            .map(|page| {
                Ok(GetTreeResponse {
                    directories: page.to_vec(),
                    next_page_token: String::new(),
                })
            })
            .collect();
        Ok(Box::pin(futures::stream::iter(pages)))
    }

    async fn update_one(&self, instance: &str, function: i32, blob: batch_update_blobs_request::Request) -> Result<(), Error> {
        let (key, len, content) = Self::digest(blob.digest.as_ref(), function)?;
        let meter = self.meter(instance);
        meter.bytes_in.inc_by(blob.data.len() as u64);
        let coding = match compressor::Value::try_from(blob.compressor) {
            Ok(compressor::Value::Identity) => Coding::Identity,
            Ok(compressor::Value::Zstd) => Coding::Zstd,
            _ => return Err(Error::Malformed("wanted a blob as it is or as zstd")),
        };
        let id = Id { key, content, instance };
        let mut incoming = self.cache.upload(id, Some(len), coding).await?;
        incoming.write(blob.data).await?;
        incoming.finish().await?;
        meter.stored.inc();
        Ok(())
    }

    async fn read_one(&self, instance: &str, function: i32, digest: &Digest, takes_zstd: bool) -> Result<(Bytes, i32), Error> {
        let (key, len, content) = Self::digest(Some(digest), function)?;
        let meter = self.meter(instance);
        let id = Id { key, content, instance };
        let Some(blob) = self.cache.open(id).await?.filter(|blob| blob.len() == len) else {
            meter.misses.inc();
            return Err(Error::NotFound);
        };
        meter.hits.inc();
        let is_zstd = takes_zstd && blob.form() == Form::Zstd;
        let saved = blob.len().saturating_sub(blob.zstd_len());
        let (data, compressor) = match is_zstd {
            false => (cache::read_whole(blob).await?, compressor::Value::Identity),
            true => {
                meter.bytes_saved.inc_by(saved);
                let mut cursor = blob.from(0, Encoding::Zstd);
                let read = move || {
                    let mut all = Vec::new();
                    while let Step::Data(piece) = cursor.next(true)? {
                        all.extend_from_slice(&piece);
                    }
                    Ok(Bytes::from(all))
                };
                (cache::blocking::<_, Error>(read).await?, compressor::Value::Zstd)
            }
        };
        meter.bytes_out.inc_by(data.len() as u64);
        Ok((data, compressor as i32))
    }
}

fn status_of<T>(outcome: &Result<T, Error>) -> rpc::Status {
    match outcome {
        Ok(_) => rpc::Status {
            code: Code::Ok as i32,
            message: String::new(),
        },
        Err(error) => {
            error.log();
            rpc::Status {
                code: error.code() as i32,
                message: error.message(),
            }
        }
    }
}
