//! The Remote Execution API as a cache speaks it, over gRPC.

mod bytestream;
mod cas;
mod parked;
mod resource;

use std::sync::Arc;

use base::MonoTime;
use blob_store::{Content, Key};
use bytes::Bytes;
use prost::Message as _;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::action;
use crate::cache::{Cache, Coding};
use crate::error::{Error, failure};
use crate::metrics::{Meter, Meters, Op};
use crate::name::{Protocol, action_key};
use crate::proto::bytestream::byte_stream_server::ByteStreamServer;
use crate::proto::reapi::action_cache_server::{ActionCache, ActionCacheServer};
use crate::proto::reapi::capabilities_server::{Capabilities, CapabilitiesServer};
use crate::proto::reapi::content_addressable_storage_server::ContentAddressableStorageServer;
use crate::proto::reapi::{
    ActionCacheUpdateCapabilities, ActionResult, CacheCapabilities, Digest, GetActionResultRequest, GetCapabilitiesRequest,
    ServerCapabilities, UpdateActionResultRequest, compressor, digest_function, symlink_absolute_path_strategy,
};
use crate::proto::semver::SemVer;
use crate::tier::Id;

use parked::Parked;
pub use resource::{Resource, parse_read, parse_write};

/// Blobs in one batch, together; larger ones go by stream. As other servers say.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Largest message: a batch with its names, or an action's result.
const MESSAGE_MAX: usize = 16 << 20;

/// The services, over one cache.
#[derive(Clone)]
pub struct Reapi {
    cache: Cache,
    meters: Arc<Meters>,
    parked: Parked,
}

impl Reapi {
    /// All services, ready to be called.
    pub fn routes(cache: Cache, meters: Arc<Meters>) -> Routes {
        let parked = Parked::new(cache.pace.idle);
        let reapi = Reapi { cache, meters, parked };
        macro_rules! service {
            ($server:ident) => {
                $server::new(reapi.clone())
                    .max_decoding_message_size(MESSAGE_MAX)
                    .max_encoding_message_size(MESSAGE_MAX)
            };
        }
        Routes::new(service!(CapabilitiesServer))
            .add_service(service!(ActionCacheServer))
            .add_service(service!(ContentAddressableStorageServer))
            .add_service(service!(ByteStreamServer))
            .prepare()
    }

    fn meter(&self, instance: &str) -> Arc<Meter> {
        self.meters.of(Protocol::Reapi, instance)
    }

    /// Does what an instance is asked for, and counts how long that took and how it failed.
    async fn timed<T>(
        &self,
        instance: &str,
        op: Op,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<Response<T>, Status> {
        let start = MonoTime::now();
        let done = work.await;
        let failure = done.as_ref().err().and_then(|status| failure(status.code()));
        self.meter(instance).end(op, start, failure);
        done.map(Response::new)
    }

    /// What a digest of a request says.
    fn digest(digest: Option<&Digest>, function: i32) -> Result<(Key, u64, Content), Error> {
        let digest = digest.ok_or(Error::Malformed("a digest is missing"))?;
        let function = action::function(function, &digest.hash)?;
        let (key, len) = action::digest_key(digest)?;
        Ok((key, len, function))
    }
}

/// Under what the result of an action is kept.
fn action_id<'a>(instance: &'a str, digest: &Key, function: Content) -> Id<'a> {
    Id {
        key: action_key(instance, digest, function),
        content: Content::Named,
        instance,
    }
}

/// Who calls, as the listener found out.
fn caller<T>(request: &Request<T>) -> Result<Caller, Error> {
    request.extensions().get::<Caller>().cloned().ok_or(Error::Unauthenticated)
}

#[tonic::async_trait]
impl Capabilities for Reapi {
    async fn get_capabilities(&self, request: Request<GetCapabilitiesRequest>) -> Result<Response<ServerCapabilities>, Status> {
        let caller = caller(&request)?;
        caller.check_read()?;
        let version = |minor| SemVer {
            major: 2,
            minor,
            ..Default::default()
        };
        let compressors = vec![compressor::Value::Identity as i32, compressor::Value::Zstd as i32];
        let cache = CacheCapabilities {
            digest_functions: vec![digest_function::Value::Sha256 as i32, digest_function::Value::Blake3 as i32],
            action_cache_update_capabilities: Some(ActionCacheUpdateCapabilities {
                update_enabled: caller.may_write(&request.get_ref().instance_name),
            }),
            max_batch_total_size_bytes: BATCH_BYTES_MAX as i64,
            symlink_absolute_path_strategy: symlink_absolute_path_strategy::Value::Allowed as i32,
            supported_compressors: compressors.clone(),
            supported_batch_update_compressors: compressors,
            max_cas_blob_size_bytes: i64::try_from(self.cache.blob_max()).unwrap_or(i64::MAX),
        };
        Ok(Response::new(ServerCapabilities {
            cache_capabilities: Some(cache),
            deprecated_api_version: None,
            low_api_version: Some(version(0)),
            high_api_version: Some(version(12)),
        }))
    }
}

#[tonic::async_trait]
impl ActionCache for Reapi {
    async fn get_action_result(&self, request: Request<GetActionResultRequest>) -> Result<Response<ActionResult>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let instance = request.instance_name.clone();
        self.timed(&instance, Op::Get, self.read_result(caller, request)).await
    }

    async fn update_action_result(&self, request: Request<UpdateActionResultRequest>) -> Result<Response<ActionResult>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let instance = request.instance_name.clone();
        self.timed(&instance, Op::Put, self.keep_result(caller, request)).await
    }
}

impl Reapi {
    async fn read_result(&self, caller: Caller, request: GetActionResultRequest) -> Result<ActionResult, Status> {
        caller.check_read()?;
        let (digest, _, function) = Self::digest(request.action_digest.as_ref(), request.digest_function)?;
        let meter = self.meter(&request.instance_name);
        let scope = action::Scope {
            instance: &request.instance_name,
            content: function,
        };
        let result = self.complete_result(scope, &digest).await?;
        let Some(mut result) = result else {
            meter.misses.inc();
            return Err(Error::NotFound.into());
        };
        meter.hits.inc();
        self.put_inline(scope, &request, &mut result).await?;
        meter.bytes_out.inc_by(result.encoded_len() as u64);
        Ok(result)
    }

    async fn keep_result(&self, caller: Caller, request: UpdateActionResultRequest) -> Result<ActionResult, Status> {
        caller.check_write(&request.instance_name)?;
        let (digest, _, function) = Self::digest(request.action_digest.as_ref(), request.digest_function)?;
        let result = request.action_result.ok_or(Error::Malformed("the result is missing"))?;
        let id = action_id(&request.instance_name, &digest, function);
        let bytes = Bytes::from(result.encode_to_vec());
        let meter = self.meter(&request.instance_name);
        meter.bytes_in.inc_by(bytes.len() as u64);
        self.cache.put(id, bytes, Coding::Identity).await?;
        meter.stored.inc();
        Ok(result)
    }

    /// The result of the action with this digest, with all its blobs there. One that cannot be read is as good as none.
    async fn complete_result(&self, scope: action::Scope<'_>, digest: &Key) -> Result<Option<ActionResult>, Error> {
        let id = action_id(scope.instance, digest, scope.content);
        let Some(value) = self.cache.read(id, action::RESULT_MAX).await? else {
            return Ok(None);
        };
        let Some(result) = action::decode(&value) else {
            return Ok(None);
        };
        Ok(action::is_complete(&self.cache, scope, &result).await?.then_some(result))
    }

    /// Puts small outputs into the answer where the client asks for it, which spares it a round trip. At most a batch.
    async fn put_inline(
        &self,
        scope: action::Scope<'_>,
        request: &GetActionResultRequest,
        result: &mut ActionResult,
    ) -> Result<(), Error> {
        let mut left = BATCH_BYTES_MAX as u64;
        let mut read = async |digest: &Option<Digest>| -> Result<Bytes, Error> {
            let Some(digest) = digest else { return Ok(Bytes::new()) };
            let (id, len) = scope.id(digest)?;
            if len > left {
                return Ok(Bytes::new());
            }
            left -= len;
            Ok(self.cache.read(id, len).await?.unwrap_or_default())
        };
        if request.inline_stdout && result.stdout_raw.is_empty() {
            result.stdout_raw = read(&result.stdout_digest).await?;
        }
        if request.inline_stderr && result.stderr_raw.is_empty() {
            result.stderr_raw = read(&result.stderr_digest).await?;
        }
        for file in &mut result.output_files {
            if file.contents.is_empty() && request.inline_output_files.contains(&file.path) {
                file.contents = read(&file.digest).await?;
            }
        }
        Ok(())
    }
}
