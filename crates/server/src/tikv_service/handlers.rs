//! What each RPC does, unary or batched: its request's fields in, its answer's fields out.

use std::sync::Arc;

use base::{ClusterId, PeerId, RegionId};
use bytes::Bytes;
use engine::kv::{self, Kv};
use proto::kvrpcpb::*;
use proto::metapb::Region;
use tonic::Status;

use super::answer::Answer;
use super::metrics::{REFUSED, Rpc, Timed};
use super::{Arrival, Identity, Splits};
use crate::call::{Act, Call};
use crate::config::ApiVersion;
use crate::error::{self, WireError};
use crate::limits::{self, Admission};
use crate::raw::{self, Raw, Scan, Swap};
use crate::txn::Txn;

/// Runs requests. Every method answers `Err` only for what ends the call or the stream; other failures are in the answer.
pub struct Handlers {
    pub(super) raw: Arc<Raw>,
    pub(super) txn: Arc<Txn>,
    identity: Identity,
    admission: Admission,
    api: ApiVersion,
    /// Not there where regions cannot be divided.
    pub(super) splits: Option<Arc<dyn Splits>>,
}

impl Handlers {
    pub fn new(kv: Arc<dyn Kv>, txn: Arc<Txn>, identity: Identity, api: ApiVersion, admission: Admission) -> Handlers {
        Handlers {
            raw: Arc::new(Raw::new(kv, api)),
            txn,
            identity,
            admission,
            api,
            splits: None,
        }
    }

    pub async fn raw_get(&self, request: RawGetRequest, arrival: Arrival) -> Result<RawGetResponse, Status> {
        let RawGetRequest { context, key, cf } = request;
        let work = |call| async move { self.raw.get(&call, &cf, key).await };
        self.run(Rpc::RawGet, context, arrival, work, fill_get).await
    }

    /// Gets of one context that came together; each has its own answer, in their order.
    pub async fn raw_gets(&self, requests: Vec<RawGetRequest>, arrival: Arrival) -> Result<Vec<RawGetResponse>, Status> {
        let _timed = Timed::several(Rpc::RawGet, arrival.now, requests.len());
        let context = requests.first().and_then(|first| first.context.clone()).unwrap_or_default();
        self.check_cluster(&context)?;
        let mut answers = vec![RawGetResponse::default(); requests.len()];
        let work = |call| async move { Ok::<_, WireError>(self.raw.get_each(&call, requests).await) };
        match self.try_run(context, arrival, answers.len(), work).await {
            Ok(outcomes) => {
                for (answer, outcome) in answers.iter_mut().zip(outcomes) {
                    match outcome {
                        Ok(found) => fill_get(answer, found),
                        Err(error) => answer.fail(error.into()),
                    }
                }
            }
            Err(failure) => answers.iter_mut().for_each(|answer| answer.fail(failure.clone())),
        }
        Ok(answers)
    }

    pub async fn raw_batch_get(&self, request: RawBatchGetRequest, arrival: Arrival) -> Result<RawBatchGetResponse, Status> {
        let RawBatchGetRequest { context, keys, cf } = request;
        let work = |call| async move { self.raw.batch_get(&call, &cf, keys).await };
        self.run(
            Rpc::RawBatchGet,
            context,
            arrival,
            work,
            |answer: &mut RawBatchGetResponse, pairs| answer.pairs = pairs,
        )
        .await
    }

    pub async fn raw_put(&self, request: RawPutRequest, arrival: Arrival) -> Result<RawPutResponse, Status> {
        // Every write keeps out of the way of compare-and-swaps, so `for_cas` changes nothing.
        let RawPutRequest {
            context,
            key,
            value,
            cf,
            ttl,
            for_cas: _,
        } = request;
        let work = |call| async move { self.raw.put(&call, &cf, key, value, ttl).await };
        self.run(Rpc::RawPut, context, arrival, work, done).await
    }

    pub async fn raw_batch_put(&self, request: RawBatchPutRequest, arrival: Arrival) -> Result<RawBatchPutResponse, Status> {
        #[allow(deprecated)] // old clients still send the one time to live for all
        let RawBatchPutRequest {
            context,
            pairs,
            cf,
            ttl,
            for_cas: _,
            mut ttls,
        } = request;
        if ttls.is_empty() && ttl != 0 {
            ttls.push(ttl);
        }
        let work = |call| async move { self.raw.batch_put(&call, &cf, pairs, &ttls).await };
        self.run(Rpc::RawBatchPut, context, arrival, work, done).await
    }

    pub async fn raw_delete(&self, request: RawDeleteRequest, arrival: Arrival) -> Result<RawDeleteResponse, Status> {
        let RawDeleteRequest {
            context,
            key,
            cf,
            for_cas: _,
        } = request;
        let work = |call| async move { self.raw.delete(&call, &cf, key).await };
        self.run(Rpc::RawDelete, context, arrival, work, done).await
    }

    pub async fn raw_batch_delete(
        &self,
        request: RawBatchDeleteRequest,
        arrival: Arrival,
    ) -> Result<RawBatchDeleteResponse, Status> {
        let RawBatchDeleteRequest {
            context,
            keys,
            cf,
            for_cas: _,
        } = request;
        let work = |call| async move { self.raw.batch_delete(&call, &cf, keys).await };
        self.run(Rpc::RawBatchDelete, context, arrival, work, done).await
    }

    pub async fn raw_scan(&self, request: RawScanRequest, arrival: Arrival) -> Result<RawScanResponse, Status> {
        let RawScanRequest {
            context,
            start_key,
            limit,
            key_only,
            cf,
            reverse,
            end_key,
        } = request;
        let range = KeyRange { start_key, end_key };
        let scan = Scan {
            limit: limit as usize,
            key_only,
            reverse,
        };
        let work = |call| async move { self.raw.scan(&call, &cf, range, scan).await };
        self.run(Rpc::RawScan, context, arrival, work, |answer: &mut RawScanResponse, pairs| {
            answer.kvs = pairs
        })
        .await
    }

    pub async fn raw_batch_scan(&self, request: RawBatchScanRequest, arrival: Arrival) -> Result<RawBatchScanResponse, Status> {
        let RawBatchScanRequest {
            context,
            ranges,
            each_limit,
            key_only,
            cf,
            reverse,
        } = request;
        let scan = Scan {
            limit: each_limit as usize,
            key_only,
            reverse,
        };
        let work = |call| async move { self.raw.batch_scan(&call, &cf, ranges, scan).await };
        self.run(
            Rpc::RawBatchScan,
            context,
            arrival,
            work,
            |answer: &mut RawBatchScanResponse, pairs| answer.kvs = pairs,
        )
        .await
    }

    pub async fn raw_delete_range(
        &self,
        request: RawDeleteRangeRequest,
        arrival: Arrival,
    ) -> Result<RawDeleteRangeResponse, Status> {
        let RawDeleteRangeRequest {
            context,
            start_key,
            end_key,
            cf,
        } = request;
        let work = |call| async move { self.raw.delete_range(&call, &cf, start_key, end_key).await };
        self.run(Rpc::RawDeleteRange, context, arrival, work, done).await
    }

    pub async fn raw_get_key_ttl(&self, request: RawGetKeyTtlRequest, arrival: Arrival) -> Result<RawGetKeyTtlResponse, Status> {
        let RawGetKeyTtlRequest { context, key, cf } = request;
        let work = |call| async move { self.raw.ttl(&call, &cf, key).await };
        self.run(
            Rpc::RawGetKeyTtl,
            context,
            arrival,
            work,
            |answer: &mut RawGetKeyTtlResponse, ttl| match ttl {
                Some(ttl) => answer.ttl = ttl,
                None => answer.not_found = true,
            },
        )
        .await
    }

    pub async fn raw_compare_and_swap(&self, request: RawCasRequest, arrival: Arrival) -> Result<RawCasResponse, Status> {
        let RawCasRequest {
            context,
            key,
            value,
            previous_not_exist,
            previous_value,
            cf,
            ttl,
            delete,
        } = request;
        let expected = (!previous_not_exist).then_some(previous_value);
        let swap = Swap {
            key,
            expected,
            value: (!delete).then_some(value),
            ttl,
        };
        let work = |call| async move { self.raw.compare_and_swap(&call, &cf, swap).await };
        self.run(
            Rpc::RawCompareAndSwap,
            context,
            arrival,
            work,
            |answer: &mut RawCasResponse, swapped| {
                answer.succeed = swapped.swapped;
                answer.previous_not_exist = swapped.previous.is_none();
                answer.previous_value = swapped.previous.unwrap_or_default();
            },
        )
        .await
    }

    pub async fn raw_checksum(&self, request: RawChecksumRequest, arrival: Arrival) -> Result<RawChecksumResponse, Status> {
        let RawChecksumRequest {
            context,
            algorithm,
            ranges,
        } = request;
        let work = |call| async move { self.raw.checksum(&call, algorithm, ranges).await };
        self.run(
            Rpc::RawChecksum,
            context,
            arrival,
            work,
            |answer: &mut RawChecksumResponse, sum| {
                (answer.checksum, answer.total_kvs, answer.total_bytes) = (sum.crc64_xor, sum.pairs, sum.bytes);
            },
        )
        .await
    }

    pub async fn split_region(&self, request: SplitRegionRequest, arrival: Arrival) -> Result<SplitRegionResponse, Status> {
        let SplitRegionRequest {
            context,
            split_key,
            mut split_keys,
            is_raw_kv,
        } = request;
        let Some(splits) = &self.splits else {
            return Err(Status::unimplemented("regions cannot be divided here"));
        };
        if !split_key.is_empty() {
            split_keys.push(split_key);
        }
        let region_key = |key: Bytes| match is_raw_kv {
            true => raw::api::region_key(self.api, key)
                .map_err(|error| Status::invalid_argument(base::log::chain(&error).to_string())),
            false => Ok(base::codec::encode_bytes(&key).into()),
        };
        let keys = split_keys.into_iter().map(region_key).collect::<Result<Vec<_>, Status>>()?;
        let work = |call: Call| async move {
            let divided = splits.split(call.ctx, keys, call.deadline).await;
            divided.map_err(|source| error::of_region(source, Act::Read))
        };
        self.run(
            Rpc::SplitRegion,
            context,
            arrival,
            work,
            |answer: &mut SplitRegionResponse, regions: Vec<Region>| {
                if let [left, right] = &regions[..] {
                    (answer.left, answer.right) = (Some(left.clone()), Some(right.clone()));
                }
                answer.regions = regions;
            },
        )
        .await
    }

    /// Runs `work` for one request, when it is meant for this store and a place is free, and keeps the time.
    pub(super) async fn run<A: Answer, T, E: Into<WireError>>(
        &self,
        rpc: Rpc,
        context: Option<Context>,
        arrival: Arrival,
        work: impl AsyncFnOnce(Call) -> Result<T, E>,
        fill: impl FnOnce(&mut A, T),
    ) -> Result<A, Status> {
        let _timed = Timed::new(rpc, arrival.now);
        let context = context.unwrap_or_default();
        self.check_cluster(&context)?;
        let mut answer = A::default();
        match self.try_run(context, arrival, 1, work).await {
            Ok(found) => fill(&mut answer, found),
            Err(failure) => answer.fail(failure),
        }
        Ok(answer)
    }

    async fn try_run<T, E: Into<WireError>>(
        &self,
        context: Context,
        arrival: Arrival,
        places: usize,
        work: impl AsyncFnOnce(Call) -> Result<T, E>,
    ) -> Result<T, WireError> {
        // Nothing is tried yet: these are failures of a read, after which clients may try again.
        let refuse = |source| Err(error::of_region(source, Act::Read));
        let (wanted, actual) = (context.peer.as_ref().map_or(0, |peer| peer.store_id), self.identity.store.0);
        if wanted != 0 && wanted != actual {
            return refuse(kv::Error::StoreNotMatch { wanted, actual });
        }
        let Some(_place) = self.admission.enter(places).await else {
            REFUSED.with_label_values(&["queue"]).inc();
            return refuse(kv::Error::Busy {
                reason: "too many requests in flight",
            });
        };
        work(call(context, arrival)).await.map_err(Into::into)
    }

    /// A client of another cluster is told so outside of the answer: it must not look for the region again.
    fn check_cluster(&self, context: &Context) -> Result<(), Status> {
        let (wanted, actual) = (ClusterId(context.cluster_id), self.identity.cluster);
        if !wanted.is_some() || wanted == actual {
            return Ok(());
        }
        REFUSED.with_label_values(&["cluster"]).inc();
        Err(Status::invalid_argument(format!(
            "request for cluster {wanted} reached cluster {actual}"
        )))
    }
}

fn fill_get(answer: &mut RawGetResponse, value: Option<Bytes>) {
    match value {
        Some(value) => answer.value = value,
        None => answer.not_found = true,
    }
}

/// For answers that tell nothing but success.
fn done<A>(_: &mut A, (): ()) {}

/// A request's context as the layers below take it.
fn call(context: Context, arrival: Arrival) -> Call {
    let allowed = limits::time_allowed(arrival.timeout, context.max_execution_duration_ms);
    Call {
        version: context.api_version,
        stale: context.stale_read,
        now: arrival.now,
        wall: arrival.wall,
        deadline: arrival.now + allowed,
        ctx: kv::Context {
            region: RegionId(context.region_id),
            epoch: context.region_epoch.unwrap_or_default(),
            peer: PeerId(context.peer.map_or(0, |peer| peer.id)),
            term: context.term,
            replica_read: context.replica_read,
            cluster: ClusterId(context.cluster_id),
        },
    }
}
