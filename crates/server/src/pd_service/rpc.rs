//! The RPCs of `pdpb.PD`, one method each: what is asked of `pd`, and how its reply is told.

use std::future::ready;
use std::sync::Arc;

use base::{RegionId, StoreId, Ts};
use futures::{StreamExt, stream};
use pd::gc::ttl_seconds;
use pd::{KeyRange, Lookup, MemberId, RegionInfo, Reply, Request};
use proto::pdpb::pd_server::Pd;
use proto::pdpb::*;
use proto::{ferrite_pd, metapb};
use tokio_stream::wrappers::WatchStream;
use tonic::codegen::BoxStream;
use tonic::{Request as Call, Response, Status, Streaming};

use super::convert::{found, heartbeat_of_wire, in_lists, operator_to_wire};
use super::orders::{operator_kind, operator_status, percentage};
use super::{CLUSTER_VERSION, PdService, ask, error};

/// Requests of one stream that are worked on at once; answers keep their order. More wait in the stream's window.
const STREAM_PIPELINE: usize = 32;

type Outcome<T> = Result<Response<T>, Status>;

/// Each request has its kind of reply.
fn mismatch(reply: Reply) -> ! {
    unreachable!("a reply to another request: {reply:?}")
}

macro_rules! fill {
    ($pattern:pat => $answer:expr) => {
        |reply: Reply| match reply {
            $pattern => $answer,
            other => mismatch(other),
        }
    };
}

#[tonic::async_trait]
impl Pd for PdService {
    async fn get_members(&self, _: Call<GetMembersRequest>) -> Outcome<GetMembersResponse> {
        self.answer_anyone(
            Request::Members,
            fill!(Reply::Members { all, leader } => members(all, leader)),
        )
        .await
    }

    async fn get_cluster_info(&self, _: Call<GetClusterInfoRequest>) -> Outcome<GetClusterInfoResponse> {
        if !self.handle.cluster().is_some() {
            return Err(error::to_status(pd::Error::NotLeader));
        }
        let service_modes = vec![ServiceMode::PdSvcMode as i32];
        Ok(Response::new(GetClusterInfoResponse {
            header: Some(self.header(None)),
            service_modes,
            tso_urls: Vec::new(),
        }))
    }

    async fn tso(&self, call: Call<Streaming<TsoRequest>>) -> Outcome<BoxStream<TsoResponse>> {
        let service = self.clone();
        let answers = call.into_inner().map(move |request| {
            let service = service.clone();
            async move { service.timestamps(request?).await }
        });
        Ok(Response::new(Box::pin(answers.buffered(STREAM_PIPELINE))))
    }

    async fn get_min_ts(&self, call: Call<GetMinTsRequest>) -> Outcome<GetMinTsResponse> {
        let GetMinTsRequest { header } = call.into_inner();
        let told = fill!(Reply::Timestamps { last, .. } => GetMinTsResponse { timestamp: Some(timestamp(last)), header: None });
        self.answer(header, Request::Tso { count: 1 }, told).await
    }

    async fn bootstrap(&self, call: Call<BootstrapRequest>) -> Outcome<BootstrapResponse> {
        let BootstrapRequest {
            header,
            store,
            region,
            ferrite_regions,
        } = call.into_inner();
        let regions = region.into_iter().chain(ferrite_regions).collect();
        let request = Request::Bootstrap {
            store: store.unwrap_or_default(),
            regions,
        };
        self.answer(header, request, fill!(Reply::Done => BootstrapResponse::default()))
            .await
    }

    async fn is_bootstrapped(&self, call: Call<IsBootstrappedRequest>) -> Outcome<IsBootstrappedResponse> {
        let IsBootstrappedRequest { header } = call.into_inner();
        let told = fill!(Reply::Bootstrapped(bootstrapped) => IsBootstrappedResponse { bootstrapped, header: None });
        self.answer(header, Request::IsBootstrapped, told).await
    }

    async fn alloc_id(&self, call: Call<AllocIdRequest>) -> Outcome<AllocIdResponse> {
        let AllocIdRequest { header, count } = call.into_inner();
        let told = fill!(Reply::Ids { first, count } => {
            AllocIdResponse { id: first + count - 1, count: count as u32, header: None }
        });
        // Older stores do not say how many: one.
        self.answer(
            header,
            Request::AllocIds {
                count: count.max(1).into(),
            },
            told,
        )
        .await
    }

    /// Recovery from a volume's snapshot is not offered, so no cluster is ever marked for it.
    async fn is_snapshot_recovering(&self, call: Call<IsSnapshotRecoveringRequest>) -> Outcome<IsSnapshotRecoveringResponse> {
        self.check_cluster(call.into_inner().header)?;
        Ok(Response::new(IsSnapshotRecoveringResponse {
            header: Some(self.header(None)),
            marked: false,
        }))
    }

    async fn get_store(&self, call: Call<GetStoreRequest>) -> Outcome<GetStoreResponse> {
        let GetStoreRequest { header, store_id } = call.into_inner();
        let told = fill!(Reply::Store(view) => {
            GetStoreResponse { store: Some(view.store), stats: view.stats, header: None }
        });
        self.answer(header, Request::Store(StoreId(store_id)), told).await
    }

    async fn put_store(&self, call: Call<PutStoreRequest>) -> Outcome<PutStoreResponse> {
        let PutStoreRequest { header, store } = call.into_inner();
        let request = Request::PutStore(store.unwrap_or_default());
        self.answer(header, request, fill!(Reply::Done => PutStoreResponse::default()))
            .await
    }

    async fn get_all_stores(&self, call: Call<GetAllStoresRequest>) -> Outcome<GetAllStoresResponse> {
        let GetAllStoresRequest {
            header,
            exclude_tombstone_stores,
        } = call.into_inner();
        let told = fill!(Reply::Stores(views) => {
            let stores = views.into_iter().map(|view| view.store);
            let wanted = |store: &metapb::Store| !(exclude_tombstone_stores && store.state() == metapb::StoreState::Tombstone);
            GetAllStoresResponse { stores: stores.filter(wanted).collect(), header: None }
        });
        self.answer(header, Request::AllStores, told).await
    }

    async fn store_heartbeat(&self, call: Call<StoreHeartbeatRequest>) -> Outcome<StoreHeartbeatResponse> {
        let StoreHeartbeatRequest { header, stats, .. } = call.into_inner();
        let told = fill!(Reply::Done => {
            StoreHeartbeatResponse { cluster_version: CLUSTER_VERSION.to_owned(), ..StoreHeartbeatResponse::default() }
        });
        self.answer(header, Request::StoreHeartbeat(stats.unwrap_or_default()), told)
            .await
    }

    async fn region_heartbeat(
        &self,
        call: Call<Streaming<RegionHeartbeatRequest>>,
    ) -> Outcome<BoxStream<RegionHeartbeatResponse>> {
        let service = self.clone();
        let answers = call.into_inner().map(move |request| {
            let service = service.clone();
            async move { service.heartbeat(request?).await }
        });
        // Most heartbeats need no answer.
        let told = answers
            .buffered(STREAM_PIPELINE)
            .filter_map(|answer| async { answer.transpose() });
        // An answer about no region asks for heartbeats of all.
        let ask_all = RegionHeartbeatResponse {
            header: Some(self.header(None)),
            ..RegionHeartbeatResponse::default()
        };
        let wanted = WatchStream::from_changes(self.reports_wanted.subscribe()).map(move |()| Ok(ask_all.clone()));
        // The end of the heartbeats ends both.
        let told = told.map(Some).chain(stream::once(ready(None)));
        // Who sends heartbeats to a member that leads no more must look for the next, which knows no region yet.
        let service = self.clone();
        let deposed = stream::once(async move {
            service.led_no_more().await;
            Some(Err(error::to_status(pd::Error::NotLeader)))
        });
        let all = stream::select(stream::select(told, wanted.map(Some)), deposed);
        Ok(Response::new(Box::pin(all.scan((), |(), answer| ready(answer)))))
    }

    async fn get_region(&self, call: Call<GetRegionRequest>) -> Outcome<GetRegionResponse> {
        let GetRegionRequest { header, region_key, .. } = call.into_inner();
        self.region(header, Lookup::Key(region_key)).await
    }

    async fn get_prev_region(&self, call: Call<GetRegionRequest>) -> Outcome<GetRegionResponse> {
        let GetRegionRequest { header, region_key, .. } = call.into_inner();
        self.region(header, Lookup::Previous(region_key)).await
    }

    async fn get_region_by_id(&self, call: Call<GetRegionByIdRequest>) -> Outcome<GetRegionResponse> {
        let GetRegionByIdRequest { header, region_id, .. } = call.into_inner();
        self.region(header, Lookup::Id(RegionId(region_id))).await
    }

    async fn query_region(&self, call: Call<Streaming<QueryRegionRequest>>) -> Outcome<BoxStream<QueryRegionResponse>> {
        let service = self.clone();
        let answers = call.into_inner().map(move |request| {
            let service = service.clone();
            async move { service.query(request?).await }
        });
        Ok(Response::new(Box::pin(answers.buffered(STREAM_PIPELINE))))
    }

    async fn scan_regions(&self, call: Call<ScanRegionsRequest>) -> Outcome<ScanRegionsResponse> {
        let ScanRegionsRequest {
            header,
            start_key,
            limit,
            end_key,
        } = call.into_inner();
        let ranges = vec![KeyRange {
            start: start_key,
            end: end_key,
        }];
        let told = fill!(Reply::Scanned(infos) => {
            let regions = regions(&infos);
            let (region_metas, leaders) = in_lists(&regions);
            ScanRegionsResponse { region_metas, leaders, regions, header: None }
        });
        self.answer(
            header,
            Request::Scan {
                ranges,
                limit: limit_of(limit),
                no_gaps: false,
            },
            told,
        )
        .await
    }

    async fn batch_scan_regions(&self, call: Call<BatchScanRegionsRequest>) -> Outcome<BatchScanRegionsResponse> {
        let BatchScanRegionsRequest {
            header,
            ranges,
            limit,
            contain_all_key_range,
            ..
        } = call.into_inner();
        let ranges = ranges
            .into_iter()
            .map(|range| pd::KeyRange {
                start: range.start_key,
                end: range.end_key,
            })
            .collect();
        let told = fill!(Reply::Scanned(infos) => BatchScanRegionsResponse { regions: regions(&infos), header: None });
        self.answer(
            header,
            Request::Scan {
                ranges,
                limit: limit_of(limit),
                no_gaps: contain_all_key_range,
            },
            told,
        )
        .await
    }

    async fn get_cluster_config(&self, call: Call<GetClusterConfigRequest>) -> Outcome<GetClusterConfigResponse> {
        let GetClusterConfigRequest { header } = call.into_inner();
        let id = self.handle.cluster().0;
        let told = fill!(Reply::MaxPeerCount(max_peer_count) => {
            GetClusterConfigResponse { cluster: Some(metapb::Cluster { id, max_peer_count }), header: None }
        });
        self.answer(header, Request::MaxPeerCount, told).await
    }

    async fn put_cluster_config(&self, call: Call<PutClusterConfigRequest>) -> Outcome<PutClusterConfigResponse> {
        let PutClusterConfigRequest { header, cluster } = call.into_inner();
        let request = Request::PutMaxPeerCount(cluster.unwrap_or_default().max_peer_count);
        self.answer(header, request, fill!(Reply::Done => PutClusterConfigResponse::default()))
            .await
    }

    async fn get_gc_safe_point(&self, call: Call<GetGcSafePointRequest>) -> Outcome<GetGcSafePointResponse> {
        let GetGcSafePointRequest { header } = call.into_inner();
        let told = fill!(Reply::SafePoint(ts) => GetGcSafePointResponse { safe_point: ts.0, header: None });
        self.answer(header, Request::GcSafePoint, told).await
    }

    async fn update_gc_safe_point(&self, call: Call<UpdateGcSafePointRequest>) -> Outcome<UpdateGcSafePointResponse> {
        let UpdateGcSafePointRequest { header, safe_point } = call.into_inner();
        let told = fill!(Reply::SafePoint(ts) => UpdateGcSafePointResponse { new_safe_point: ts.0, header: None });
        self.answer(header, Request::UpdateGcSafePoint(Ts(safe_point)), told).await
    }

    async fn update_service_gc_safe_point(
        &self,
        call: Call<UpdateServiceGcSafePointRequest>,
    ) -> Outcome<UpdateServiceGcSafePointResponse> {
        let UpdateServiceGcSafePointRequest {
            header,
            service_id,
            ttl,
            safe_point,
        } = call.into_inner();
        let service = String::from_utf8_lossy(&service_id).into_owned();
        let told = fill!(Reply::ServiceSafePoint(lowest) => UpdateServiceGcSafePointResponse {
            service_id: lowest.service.into(),
            ttl: lowest.ttl_seconds,
            min_safe_point: lowest.ts.0,
            header: None,
        });
        self.answer(
            header,
            Request::PutServiceSafePoint {
                service,
                ts: Ts(safe_point),
                ttl_seconds: ttl,
            },
            told,
        )
        .await
    }

    // The forms with a keyspace, of older clients. All keyspaces share their safe points, as the states of newer clients tell.

    async fn get_gc_safe_point_v2(&self, call: Call<GetGcSafePointV2Request>) -> Outcome<GetGcSafePointV2Response> {
        let GetGcSafePointV2Request { header, .. } = call.into_inner();
        let told = fill!(Reply::SafePoint(ts) => GetGcSafePointV2Response { safe_point: ts.0, header: None });
        self.answer(header, Request::GcSafePoint, told).await
    }

    async fn update_gc_safe_point_v2(&self, call: Call<UpdateGcSafePointV2Request>) -> Outcome<UpdateGcSafePointV2Response> {
        let UpdateGcSafePointV2Request { header, safe_point, .. } = call.into_inner();
        let told = fill!(Reply::SafePoint(ts) => UpdateGcSafePointV2Response { new_safe_point: ts.0, header: None });
        self.answer(header, Request::UpdateGcSafePoint(Ts(safe_point)), told).await
    }

    async fn update_service_safe_point_v2(
        &self,
        call: Call<UpdateServiceSafePointV2Request>,
    ) -> Outcome<UpdateServiceSafePointV2Response> {
        let UpdateServiceSafePointV2Request {
            header,
            service_id,
            safe_point,
            ttl,
            ..
        } = call.into_inner();
        let told = fill!(Reply::ServiceSafePoint(lowest) => UpdateServiceSafePointV2Response {
            service_id: lowest.service.into(),
            ttl: lowest.ttl_seconds,
            min_safe_point: lowest.ts.0,
            header: None,
        });
        let request = Request::PutServiceSafePoint {
            service: String::from_utf8_lossy(&service_id).into_owned(),
            ts: Ts(safe_point),
            ttl_seconds: ttl,
        };
        self.answer(header, request, told).await
    }

    async fn get_all_gc_safe_point_v2(&self, call: Call<GetAllGcSafePointV2Request>) -> Outcome<GetAllGcSafePointV2Response> {
        let GetAllGcSafePointV2Request { header } = call.into_inner();
        let told = fill!(Reply::SafePoint(ts) => GetAllGcSafePointV2Response {
            gc_safe_points: vec![GcSafePointV2 {
                keyspace_id: 0,
                gc_safe_point: ts.0,
            }],
            ..GetAllGcSafePointV2Response::default()
        });
        self.answer(header, Request::GcSafePoint, told).await
    }

    async fn advance_gc_safe_point(&self, call: Call<AdvanceGcSafePointRequest>) -> Outcome<AdvanceGcSafePointResponse> {
        let AdvanceGcSafePointRequest { header, target, .. } = call.into_inner();
        let told = fill!(Reply::Advanced(moved) => AdvanceGcSafePointResponse {
            old_gc_safe_point: moved.old.0,
            new_gc_safe_point: moved.new.0,
            header: None,
        });
        self.answer(header, Request::AdvanceGcSafePoint(Ts(target)), told).await
    }

    async fn advance_txn_safe_point(&self, call: Call<AdvanceTxnSafePointRequest>) -> Outcome<AdvanceTxnSafePointResponse> {
        let AdvanceTxnSafePointRequest { header, target, .. } = call.into_inner();
        let told = fill!(Reply::Advanced(moved) => AdvanceTxnSafePointResponse {
            old_txn_safe_point: moved.old.0,
            new_txn_safe_point: moved.new.0,
            blocker_description: moved.blocker,
            header: None,
        });
        let request = Request::AdvanceTxnSafePoint {
            target: Ts(target),
            by_client: true,
        };
        self.answer(header, request, told).await
    }

    async fn set_gc_barrier(&self, call: Call<SetGcBarrierRequest>) -> Outcome<SetGcBarrierResponse> {
        let SetGcBarrierRequest {
            header,
            barrier_id,
            barrier_ts,
            ttl_seconds,
            ..
        } = call.into_inner();
        let set = GcBarrierInfo {
            barrier_id: barrier_id.clone(),
            barrier_ts,
            ttl_seconds,
        };
        let told = fill!(Reply::Done => SetGcBarrierResponse { new_barrier_info: Some(set), header: None });
        self.answer(
            header,
            Request::PutPin {
                name: barrier_id,
                ts: Ts(barrier_ts),
                ttl_seconds,
            },
            told,
        )
        .await
    }

    async fn delete_gc_barrier(&self, call: Call<DeleteGcBarrierRequest>) -> Outcome<DeleteGcBarrierResponse> {
        let DeleteGcBarrierRequest { header, barrier_id, .. } = call.into_inner();
        let told = fill!(Reply::Pin(dropped) => {
            DeleteGcBarrierResponse { deleted_barrier_info: dropped.map(barrier), header: None }
        });
        self.answer(header, Request::DropPin { name: barrier_id }, told).await
    }

    async fn get_gc_state(&self, call: Call<GetGcStateRequest>) -> Outcome<GetGcStateResponse> {
        let GetGcStateRequest { header, keyspace_scope } = call.into_inner();
        let told = |reply| GetGcStateResponse {
            gc_state: Some(gc_state(reply, keyspace_scope)),
            header: None,
        };
        self.answer(header, Request::GcState, told).await
    }

    async fn get_all_keyspaces_gc_states(
        &self,
        call: Call<GetAllKeyspacesGcStatesRequest>,
    ) -> Outcome<GetAllKeyspacesGcStatesResponse> {
        let GetAllKeyspacesGcStatesRequest { header } = call.into_inner();
        let told = |reply| GetAllKeyspacesGcStatesResponse {
            gc_states: vec![gc_state(
                reply,
                Some(KeyspaceScope {
                    keyspace_id: KEYSPACE_NONE,
                }),
            )],
            ..GetAllKeyspacesGcStatesResponse::default()
        };
        self.answer(header, Request::GcState, told).await
    }

    /// Ids for the parts of a region that its leader is to divide.
    async fn ask_batch_split(&self, call: Call<AskBatchSplitRequest>) -> Outcome<AskBatchSplitResponse> {
        let AskBatchSplitRequest {
            header,
            region,
            split_count,
            ..
        } = call.into_inner();
        let peers = region.map_or(0, |region| region.peers.len()) as u64;
        let count = u64::from(split_count);
        if peers == 0 || count == 0 {
            return Err(Status::invalid_argument(
                "a region with peers, and into how many parts, is wanted",
            ));
        }
        let ids = |first: u64| {
            let each = move |at: u64| first + at * (1 + peers);
            let split = move |at| SplitId {
                new_region_id: each(at),
                new_peer_ids: (each(at) + 1..each(at + 1)).collect(),
            };
            (0..count).map(split).collect()
        };
        let told = fill!(Reply::Ids { first, .. } => AskBatchSplitResponse { ids: ids(first), header: None });
        let request = Request::AllocIds {
            count: count * (1 + peers),
        };
        self.answer(header, request, told).await
    }

    /// Leaders tell of the parts themselves: nothing has to be done.
    async fn report_batch_split(&self, call: Call<ReportBatchSplitRequest>) -> Outcome<ReportBatchSplitResponse> {
        self.check_cluster(call.into_inner().header)?;
        let header = Some(self.header(None));
        Ok(Response::new(ReportBatchSplitResponse { header }))
    }

    async fn report_split(&self, call: Call<ReportSplitRequest>) -> Outcome<ReportSplitResponse> {
        self.check_cluster(call.into_inner().header)?;
        let header = Some(self.header(None));
        Ok(Response::new(ReportSplitResponse { header }))
    }

    /// Waits until regions end at the keys, for a few seconds at most.
    async fn split_regions(&self, call: Call<SplitRegionsRequest>) -> Outcome<SplitRegionsResponse> {
        let SplitRegionsRequest { header, split_keys, .. } = call.into_inner();
        self.check_cluster(header)?;
        Ok(Response::new(match self.split_at(&split_keys).await {
            Ok(regions_id) => SplitRegionsResponse {
                header: Some(self.header(None)),
                finished_percentage: percentage(regions_id.len(), split_keys.len()),
                regions_id,
            },
            Err(error) => SplitRegionsResponse {
                header: Some(self.header(Some(error::to_wire(error)?))),
                ..SplitRegionsResponse::default()
            },
        }))
    }

    /// Answers once it is known where the regions go, not when they are there: `GetOperator` tells that.
    async fn scatter_region(&self, call: Call<ScatterRegionRequest>) -> Outcome<ScatterRegionResponse> {
        let ScatterRegionRequest {
            header,
            region_id,
            regions_id,
            group,
            ..
        } = call.into_inner();
        // Older clients name one.
        let one = Some(region_id).filter(|id| *id != 0 && regions_id.is_empty());
        let regions: Vec<RegionId> = regions_id.into_iter().chain(one).map(RegionId).collect();
        let wanted = regions.len();
        let told = fill!(Reply::Scattered { failed } => ScatterRegionResponse {
            finished_percentage: percentage(wanted - failed.len(), wanted),
            failed_regions_id: failed.into_iter().map(|region| region.0).collect(),
            header: None,
        });
        self.answer(header, Request::Scatter { regions, group }, told).await
    }

    async fn split_and_scatter_regions(
        &self,
        call: Call<SplitAndScatterRegionsRequest>,
    ) -> Outcome<SplitAndScatterRegionsResponse> {
        let SplitAndScatterRegionsRequest {
            header,
            split_keys,
            group,
            ..
        } = call.into_inner();
        self.check_cluster(header)?;
        let done = match self.split_at(&split_keys).await {
            Ok(regions_id) => self
                .scatter(&regions_id, group)
                .await
                .map(|scattered| (regions_id, scattered)),
            Err(error) => Err(error),
        };
        Ok(Response::new(match done {
            Ok((regions_id, scattered)) => SplitAndScatterRegionsResponse {
                header: Some(self.header(None)),
                split_finished_percentage: percentage(regions_id.len(), split_keys.len()),
                scatter_finished_percentage: percentage(scattered, regions_id.len()),
                regions_id,
            },
            Err(error) => SplitAndScatterRegionsResponse {
                header: Some(self.header(Some(error::to_wire(error)?))),
                ..SplitAndScatterRegionsResponse::default()
            },
        }))
    }

    /// The order of a region, or how its last one ended.
    async fn get_operator(&self, call: Call<GetOperatorRequest>) -> Outcome<GetOperatorResponse> {
        let GetOperatorRequest { header, region_id } = call.into_inner();
        let found = fill!(Reply::OperatorOf(found) => found);
        let mut order = None;
        let answer = |reply| {
            order = found(reply);
            GetOperatorResponse::default()
        };
        let answer = self.answer(header, Request::OperatorOf(RegionId(region_id)), answer).await?;
        if answer.get_ref().header.as_ref().is_some_and(|header| header.error.is_some()) {
            return Ok(answer);
        }
        let error = order.is_none().then(|| Error {
            r#type: ErrorType::RegionNotFound as i32,
            message: "Not Found".to_owned(),
        });
        let header = Some(self.header(error));
        Ok(Response::new(match order {
            None => GetOperatorResponse {
                header,
                ..GetOperatorResponse::default()
            },
            Some((why, progress)) => GetOperatorResponse {
                header,
                region_id,
                desc: why.name().into(),
                status: operator_status(progress) as i32,
                kind: operator_kind(why).into(),
            },
        }))
    }
}

impl PdService {
    async fn timestamps(&self, request: TsoRequest) -> Result<TsoResponse, Status> {
        self.check_cluster(request.header)?;
        match ask(&self.handle, Request::Tso { count: request.count }).await {
            Ok(Reply::Timestamps { last, count }) => Ok(TsoResponse {
                header: Some(self.header(None)),
                count,
                timestamp: Some(timestamp(last)),
            }),
            Ok(other) => mismatch(other),
            // Clients take every answer of this stream for a timestamp.
            Err(error) => Err(error::to_status(error)),
        }
    }

    async fn region(&self, header: Option<RequestHeader>, lookup: Lookup) -> Outcome<GetRegionResponse> {
        let told = fill!(Reply::Regions(mut infos) => match infos.pop().flatten() {
            Some(info) => found!(&info => GetRegionResponse),
            None => GetRegionResponse::default(),
        });
        let mut looks = 0;
        loop {
            let answer = self
                .answer(header.clone(), Request::Regions(vec![lookup.clone()]), told)
                .await?;
            let found = answer.get_ref();
            let refused = found.header.as_ref().is_some_and(|header| header.error.is_some());
            // Between the words of two leaders about a region that was divided, part of its range is nobody's.
            let is_gap = found.region.is_none() && !refused && matches!(lookup, Lookup::Key(_));
            if !is_gap || looks == GAP_LOOKS {
                return Ok(answer);
            }
            looks += 1;
            tokio::time::sleep(GAP_PAUSE).await;
        }
    }

    async fn query(&self, request: QueryRegionRequest) -> Result<QueryRegionResponse, Status> {
        let QueryRegionRequest {
            header,
            ids,
            keys,
            prev_keys,
            ..
        } = request;
        let (keys_len, prev_keys_len) = (keys.len(), prev_keys.len());
        let keys = keys.into_iter().map(Lookup::Key);
        let lookups = keys
            .chain(prev_keys.into_iter().map(Lookup::Previous))
            .chain(ids.into_iter().map(|id| Lookup::Id(RegionId(id))));
        let told = fill!(Reply::Regions(infos) => {
            let id = |info: &Option<Arc<RegionInfo>>| info.as_ref().map_or(0, |info| info.region.id);
            QueryRegionResponse {
                key_id_map: infos[..keys_len].iter().map(id).collect(),
                prev_key_id_map: infos[keys_len..keys_len + prev_keys_len].iter().map(id).collect(),
                regions_by_id: infos.iter().flatten().map(|info| (info.region.id, found!(info => RegionResponse))).collect(),
                header: None,
            }
        });
        self.answer(header, Request::Regions(lookups.collect()), told)
            .await
            .map(Response::into_inner)
    }

    /// The answer to a heartbeat: an operator, or why it was not believed.
    async fn heartbeat(&self, request: RegionHeartbeatRequest) -> Result<Option<RegionHeartbeatResponse>, Status> {
        self.check_cluster(request.header.clone())?;
        let info = heartbeat_of_wire(request);
        let (response, error) = match ask(&self.handle, Request::RegionHeartbeat(info.clone())).await {
            Ok(Reply::Operator(None)) => return Ok(None),
            Ok(Reply::Operator(Some(operator))) => (operator_to_wire(&info, operator), None),
            Ok(other) => mismatch(other),
            Err(error) => {
                let (region_id, target_peer) = (info.region.id, Some(info.leader));
                let response = RegionHeartbeatResponse {
                    region_id,
                    target_peer,
                    ..RegionHeartbeatResponse::default()
                };
                (response, Some(error::to_wire(error)?))
            }
        };
        Ok(Some(RegionHeartbeatResponse {
            header: Some(self.header(error)),
            ..response
        }))
    }
}

/// How often a key's region is looked for that nobody holds, and how long between two looks: clients take none for an answer.
const GAP_LOOKS: u32 = 10;
const GAP_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);
/// Stands for "no keyspace" where keyspaces have ids.
const KEYSPACE_NONE: u32 = u32::MAX;

fn members(all: Vec<ferrite_pd::Member>, leader: Option<MemberId>) -> GetMembersResponse {
    let member = |member: ferrite_pd::Member| Member {
        name: member.name,
        member_id: member.id,
        peer_urls: member.peer_urls,
        client_urls: member.client_urls,
        binary_version: CLUSTER_VERSION.to_owned(),
        ..Member::default()
    };
    let members: Vec<Member> = all.into_iter().map(member).collect();
    let leader = leader.and_then(|leader| members.iter().find(|member| member.member_id == leader.0).cloned());
    GetMembersResponse {
        etcd_leader: leader.clone(),
        leader,
        members,
        ..GetMembersResponse::default()
    }
}

fn timestamp(ts: Ts) -> Timestamp {
    Timestamp {
        physical: ts.physical_ms() as i64,
        logical: ts.logical() as i64,
        suffix_bits: 0,
    }
}

fn regions(infos: &[Arc<RegionInfo>]) -> Vec<Region> {
    infos.iter().map(|info| found!(info => Region)).collect()
}

/// A limit of zero or less means none.
fn limit_of(limit: i32) -> Option<usize> {
    usize::try_from(limit).ok().filter(|&limit| limit > 0)
}

fn barrier(pin: ferrite_pd::Pin) -> GcBarrierInfo {
    // Told at the moment it is dropped, when what was left of its time no longer matters.
    GcBarrierInfo {
        barrier_id: pin.name,
        barrier_ts: pin.ts,
        ttl_seconds: 0,
    }
}

/// One state for all keyspaces: collection is not done by keyspace.
fn gc_state(reply: Reply, keyspace_scope: Option<KeyspaceScope>) -> GcState {
    let Reply::GcState {
        gc_safe_point,
        txn_safe_point,
        pins,
        now_seconds,
        ..
    } = reply
    else {
        mismatch(reply)
    };
    let barrier = |pin: ferrite_pd::Pin| GcBarrierInfo {
        ttl_seconds: ttl_seconds(&pin, now_seconds),
        ..barrier(pin)
    };
    GcState {
        keyspace_scope,
        is_keyspace_level_gc: false,
        txn_safe_point: txn_safe_point.0,
        gc_safe_point: gc_safe_point.0,
        gc_barriers: pins.into_iter().map(barrier).collect(),
    }
}
