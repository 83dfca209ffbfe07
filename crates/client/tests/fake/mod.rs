//! A cluster in this process that speaks the wire over loopback: a placement driver and stores over one map, without raft.
//! Tests move leaders, split regions and break stores to see what the client does.

#![allow(dead_code)] // each test binary uses its part

pub mod txn;
mod txn_commands;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base::codec;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use proto::pdpb::pd_server::{Pd, PdServer};
use proto::tikvpb::tikv_server::{Tikv, TikvServer};
use proto::tikvpb::{batch_commands_request::request::Cmd, batch_commands_response as answers};
use proto::{errorpb, kvrpcpb, metapb, pdpb, tikvpb};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codegen::BoxStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

pub const CLUSTER: u64 = 77;
const STORES: u64 = 3;

pub struct Fake {
    /// Whether borders are memcomparable (API V2).
    encoded: bool,
    addresses: Vec<String>,
    pd_address: String,
    state: Mutex<State>,
    /// A store that takes requests and never answers.
    pub mute: AtomicU64,
    /// A store that does the next write, then breaks the call.
    pub break_after_write: AtomicU64,
    /// Where the region of this key is split when that call breaks.
    pub split_at_break: Mutex<Option<&'static [u8]>>,
    /// The placement driver says that it does not lead.
    pub pd_follows: AtomicBool,
    pub requests: AtomicU64,
    /// Puts and swaps that were carried out.
    pub writes: AtomicU64,
    pub batches: AtomicU64,
    ts: AtomicU64,
    /// Where collection was moved to.
    pub safe_point: AtomicU64,
}

struct State {
    pairs: BTreeMap<Bytes, Bytes>,
    mvcc: txn::Mvcc,
    regions: Vec<metapb::Region>,
    /// Store that leads each region, by region id.
    leaders: BTreeMap<u64, u64>,
    next_id: u64,
}

impl Fake {
    /// Three stores and one region, led by store 1.
    pub async fn start(encoded: bool) -> Arc<Fake> {
        let mut listeners = Vec::new();
        for _ in 0..=STORES {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.expect("a free port"));
        }
        let mut addresses: Vec<String> = listeners
            .iter()
            .map(|listener| listener.local_addr().expect("bound").to_string())
            .collect();
        let pd_address = addresses.remove(0);
        let peers = (1..=STORES)
            .map(|store| metapb::Peer {
                id: 100 + store,
                store_id: store,
                ..Default::default()
            })
            .collect();
        let epoch = Some(metapb::RegionEpoch { conf_ver: 1, version: 1 });
        let region = metapb::Region {
            id: 1,
            region_epoch: epoch,
            peers,
            ..Default::default()
        };
        let state = State {
            pairs: BTreeMap::new(),
            mvcc: Default::default(),
            regions: vec![region],
            leaders: [(1, 1)].into(),
            next_id: 1000,
        };
        let fake = Arc::new(Fake {
            encoded,
            addresses,
            pd_address,
            state: Mutex::new(state),
            mute: AtomicU64::new(0),
            break_after_write: AtomicU64::new(0),
            split_at_break: Mutex::new(None),
            pd_follows: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            ts: AtomicU64::new(1 << 40),
            safe_point: AtomicU64::new(0),
        });
        for (id, listener) in listeners.into_iter().enumerate() {
            let incoming = TcpListenerStream::new(listener);
            let server = match id as u64 {
                0 => Server::builder().add_service(PdServer::new(FakePd(fake.clone()))),
                id => Server::builder().add_service(TikvServer::new(FakeStore { id, fake: fake.clone() })),
            };
            tokio::spawn(server.serve_with_incoming(incoming));
        }
        fake
    }

    pub fn endpoint(&self) -> String {
        self.pd_address.clone()
    }

    fn border(&self, wire: &[u8]) -> Bytes {
        if self.encoded {
            codec::encode_bytes(wire).into()
        } else {
            Bytes::copy_from_slice(wire)
        }
    }

    fn wire(&self, border: &Bytes) -> Bytes {
        match self.encoded && !border.is_empty() {
            true => codec::decode_bytes(border).expect("a border of ours").0.into(),
            false => border.clone(),
        }
    }

    /// Splits the region that holds a wire key; the right half gets a new id and is led by `store`.
    pub fn split(&self, key: &[u8], store: u64) {
        let border = self.border(key);
        let mut state = self.state.lock();
        let at = state
            .regions
            .iter()
            .position(|region| holds(region, &border))
            .expect("regions cover all keys");
        let id = state.next_id;
        state.next_id += 100;
        let old = &mut state.regions[at];
        old.region_epoch.as_mut().expect("set").version += 1;
        let mut new = old.clone();
        old.end_key = border.clone();
        new.id = id;
        new.start_key = border;
        new.peers.iter_mut().for_each(|peer| peer.id = id + peer.store_id);
        state.regions.insert(at + 1, new);
        state.leaders.insert(id, store);
    }

    /// Moves the leader of the region that holds a wire key.
    pub fn lead(&self, key: &[u8], store: u64) {
        let border = self.border(key);
        let mut state = self.state.lock();
        let id = state
            .regions
            .iter()
            .find(|region| holds(region, &border))
            .expect("regions cover all keys")
            .id;
        state.leaders.insert(id, store);
    }

    /// Pairs as they are kept, by wire key.
    pub fn pairs(&self) -> BTreeMap<Bytes, Bytes> {
        self.state.lock().pairs.clone()
    }

    /// What transactions left in the stores.
    pub fn mvcc(&self) -> MappedMutexGuard<'_, txn::Mvcc> {
        MutexGuard::map(self.state.lock(), |state| &mut state.mvcc)
    }

    /// A timestamp that was not given out before.
    pub fn timestamp(&self) -> u64 {
        self.ts.fetch_add(1, Ordering::SeqCst)
    }

    /// Lets `millis` pass on the clock of timestamps.
    pub fn pass(&self, millis: u64) {
        self.ts.fetch_add(millis << base::Ts::LOGICAL_BITS, Ordering::SeqCst);
    }

    fn header(&self) -> Option<pdpb::ResponseHeader> {
        Some(pdpb::ResponseHeader {
            cluster_id: CLUSTER,
            error: None,
        })
    }
}

fn holds(region: &metapb::Region, border: &Bytes) -> bool {
    region.start_key <= *border && (region.end_key.is_empty() || *border < region.end_key)
}

struct FakePd(Arc<Fake>);

impl FakePd {
    fn answer(&self, region: Option<metapb::Region>) -> Result<Response<pdpb::GetRegionResponse>, Status> {
        let region = region.ok_or_else(|| Status::internal("no such region"))?;
        let store = self.0.state.lock().leaders[&region.id];
        let leader = region.peers.iter().find(|peer| peer.store_id == store).copied();
        Ok(Response::new(pdpb::GetRegionResponse {
            header: self.0.header(),
            region: Some(region),
            leader,
            ..Default::default()
        }))
    }

    fn check<T>(&self, request: &Request<T>, header: impl Fn(&T) -> Option<&pdpb::RequestHeader>) -> Result<(), Status> {
        if self.0.pd_follows.load(Ordering::SeqCst) {
            return Err(Status::unavailable("not leader"));
        }
        match header(request.get_ref()).map(|header| header.cluster_id) {
            Some(CLUSTER) => Ok(()),
            other => Err(Status::failed_precondition(format!("mismatch cluster id, got {other:?}"))),
        }
    }
}

#[tonic::async_trait]
impl Pd for FakePd {
    async fn get_members(&self, _: Request<pdpb::GetMembersRequest>) -> Result<Response<pdpb::GetMembersResponse>, Status> {
        let member = pdpb::Member {
            name: "pd".into(),
            member_id: 1,
            client_urls: vec![format!("http://{}", self.0.pd_address)],
            ..Default::default()
        };
        let (members, leader) = (vec![member.clone()], Some(member));
        Ok(Response::new(pdpb::GetMembersResponse {
            header: self.0.header(),
            members,
            leader,
            ..Default::default()
        }))
    }

    async fn get_region(&self, request: Request<pdpb::GetRegionRequest>) -> Result<Response<pdpb::GetRegionResponse>, Status> {
        self.check(&request, |request| request.header.as_ref())?;
        let key = request.into_inner().region_key;
        let region = self.0.state.lock().regions.iter().find(|region| holds(region, &key)).cloned();
        self.answer(region)
    }

    async fn get_prev_region(
        &self,
        request: Request<pdpb::GetRegionRequest>,
    ) -> Result<Response<pdpb::GetRegionResponse>, Status> {
        self.check(&request, |request| request.header.as_ref())?;
        let key = request.into_inner().region_key;
        let regions = self.0.state.lock().regions.clone();
        let at = regions
            .iter()
            .position(|region| holds(region, &key))
            .expect("regions cover all keys");
        self.answer(at.checked_sub(1).map(|at| regions[at].clone()))
    }

    async fn get_store(&self, request: Request<pdpb::GetStoreRequest>) -> Result<Response<pdpb::GetStoreResponse>, Status> {
        self.check(&request, |request| request.header.as_ref())?;
        let id = request.into_inner().store_id;
        let address = self.0.addresses[id as usize - 1].clone();
        let store = Some(metapb::Store {
            id,
            address,
            ..Default::default()
        });
        Ok(Response::new(pdpb::GetStoreResponse {
            header: self.0.header(),
            store,
            ..Default::default()
        }))
    }

    async fn update_gc_safe_point(
        &self,
        request: Request<pdpb::UpdateGcSafePointRequest>,
    ) -> Result<Response<pdpb::UpdateGcSafePointResponse>, Status> {
        self.check(&request, |request| request.header.as_ref())?;
        let target = request.into_inner().safe_point;
        let before = self.0.safe_point.fetch_max(target, Ordering::SeqCst);
        Ok(Response::new(pdpb::UpdateGcSafePointResponse {
            header: self.0.header(),
            new_safe_point: before.max(target),
        }))
    }

    async fn tso(
        &self,
        requests: Request<Streaming<pdpb::TsoRequest>>,
    ) -> Result<Response<BoxStream<pdpb::TsoResponse>>, Status> {
        let fake = self.0.clone();
        let answers = requests.into_inner().map(move |request| {
            let count = request?.count;
            let last = fake.ts.fetch_add(count.into(), Ordering::SeqCst) + u64::from(count) - 1;
            let ts = base::Ts(last);
            let timestamp = pdpb::Timestamp {
                physical: ts.physical_ms() as i64,
                logical: ts.logical() as i64,
                suffix_bits: 0,
            };
            Ok(pdpb::TsoResponse {
                header: fake.header(),
                count,
                timestamp: Some(timestamp),
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

#[derive(Clone)]
struct FakeStore {
    id: u64,
    fake: Arc<Fake>,
}

type Checked<'a> = Result<parking_lot::MutexGuard<'a, State>, Box<errorpb::Error>>;

impl FakeStore {
    /// Passes if this store leads the region of the context at its epoch, and all `keys` (in wire form) lie in it.
    fn enter(&self, context: &Option<kvrpcpb::Context>, keys: &[&Bytes]) -> Checked<'_> {
        let context = context.as_ref().expect("every request has a context");
        assert_eq!(context.cluster_id, CLUSTER);
        assert_ne!(context.max_execution_duration_ms, 0);
        let state = self.fake.state.lock();
        let region = state
            .regions
            .iter()
            .find(|region| region.id == context.region_id)
            .expect("regions do not go away")
            .clone();
        let leader = state.leaders[&region.id];
        let mut error = errorpb::Error::default();
        if leader != self.id {
            let leader = region.peers.iter().find(|peer| peer.store_id == leader).copied();
            error.not_leader = Some(errorpb::NotLeader {
                region_id: region.id,
                leader,
            });
            return Err(Box::new(error));
        }
        if context.region_epoch != region.region_epoch {
            error.epoch_not_match = Some(errorpb::EpochNotMatch {
                current_regions: state.regions.clone(),
            });
            return Err(Box::new(error));
        }
        for key in keys {
            assert!(holds(&region, &self.fake.border(key)), "{key:?} is not in {region:?}");
        }
        Ok(state)
    }

    /// Bounds of the region of a context, in wire form.
    fn bounds(&self, context: &Option<kvrpcpb::Context>) -> (Bytes, Bytes) {
        let id = context.as_ref().expect("every request has a context").region_id;
        let state = self.fake.state.lock();
        let region = state
            .regions
            .iter()
            .find(|region| region.id == id)
            .expect("regions do not go away");
        (self.fake.wire(&region.start_key), self.fake.wire(&region.end_key))
    }

    /// Pairs of `[start, end)` within the region.
    fn range(
        &self,
        context: &Option<kvrpcpb::Context>,
        start: &Bytes,
        end: &Bytes,
    ) -> Result<Vec<(Bytes, Bytes)>, Box<errorpb::Error>> {
        let (low, high) = self.bounds(context);
        assert!(*start >= low, "{start:?} is left of the region");
        assert!(
            high.is_empty() || (!end.is_empty() && *end <= high),
            "{end:?} is right of the region"
        );
        let state = self.enter(context, &[])?;
        let pairs = state
            .pairs
            .range::<Bytes, _>(start..)
            .take_while(|(key, _)| end.is_empty() || *key < end);
        Ok(pairs.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    async fn disturb(&self, writes: bool) -> Result<(), Status> {
        self.fake.requests.fetch_add(1, Ordering::SeqCst);
        if self.fake.mute.load(Ordering::SeqCst) == self.id {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        if writes {
            let broken = self
                .fake
                .break_after_write
                .compare_exchange(self.id, 0, Ordering::SeqCst, Ordering::SeqCst);
            if broken.is_ok() {
                if let Some(key) = self.fake.split_at_break.lock().take() {
                    self.fake.split(key, self.id);
                }
                return Err(Status::unavailable("connection reset"));
            }
        }
        Ok(())
    }

    fn get(&self, request: &kvrpcpb::RawGetRequest) -> kvrpcpb::RawGetResponse {
        match self.enter(&request.context, &[&request.key]) {
            Err(error) => kvrpcpb::RawGetResponse {
                region_error: Some(error),
                ..Default::default()
            },
            Ok(state) => {
                let value = state.pairs.get(&request.key).cloned();
                kvrpcpb::RawGetResponse {
                    not_found: value.is_none(),
                    value: value.unwrap_or_default(),
                    ..Default::default()
                }
            }
        }
    }

    fn put(&self, request: &kvrpcpb::RawPutRequest) -> kvrpcpb::RawPutResponse {
        if request.key.ends_with(b"refused") {
            return kvrpcpb::RawPutResponse {
                error: "key refused".into(),
                ..Default::default()
            };
        }
        let entered = self.enter(&request.context, &[&request.key]);
        let done = entered.map(|mut state| {
            self.fake.writes.fetch_add(1, Ordering::SeqCst);
            state.pairs.insert(request.key.clone(), request.value.clone());
        });
        kvrpcpb::RawPutResponse {
            region_error: done.err(),
            ..Default::default()
        }
    }

    fn delete(&self, request: &kvrpcpb::RawDeleteRequest) -> kvrpcpb::RawDeleteResponse {
        let entered = self.enter(&request.context, &[&request.key]);
        kvrpcpb::RawDeleteResponse {
            region_error: entered.map(|mut state| drop(state.pairs.remove(&request.key))).err(),
            ..Default::default()
        }
    }

    fn batch_get(&self, request: &kvrpcpb::RawBatchGetRequest) -> kvrpcpb::RawBatchGetResponse {
        let keys: Vec<&Bytes> = request.keys.iter().collect();
        match self.enter(&request.context, &keys) {
            Err(error) => kvrpcpb::RawBatchGetResponse {
                region_error: Some(error),
                ..Default::default()
            },
            Ok(state) => {
                let found = keys.iter().filter_map(|key| state.pairs.get_key_value(*key));
                kvrpcpb::RawBatchGetResponse {
                    pairs: found.map(pair).collect(),
                    ..Default::default()
                }
            }
        }
    }

    fn batch_put(&self, request: &kvrpcpb::RawBatchPutRequest) -> kvrpcpb::RawBatchPutResponse {
        let keys: Vec<&Bytes> = request.pairs.iter().map(|pair| &pair.key).collect();
        let put = |mut state: parking_lot::MutexGuard<'_, State>| {
            let pairs = request.pairs.iter().map(|pair| (pair.key.clone(), pair.value.clone()));
            state.pairs.extend(pairs);
        };
        kvrpcpb::RawBatchPutResponse {
            region_error: self.enter(&request.context, &keys).map(put).err(),
            ..Default::default()
        }
    }

    fn batch_delete(&self, request: &kvrpcpb::RawBatchDeleteRequest) -> kvrpcpb::RawBatchDeleteResponse {
        let keys: Vec<&Bytes> = request.keys.iter().collect();
        let remove = |mut state: parking_lot::MutexGuard<'_, State>| state.pairs.retain(|key, _| !request.keys.contains(key));
        kvrpcpb::RawBatchDeleteResponse {
            region_error: self.enter(&request.context, &keys).map(remove).err(),
            ..Default::default()
        }
    }

    fn scan(&self, request: &kvrpcpb::RawScanRequest) -> kvrpcpb::RawScanResponse {
        let (start, end) = match request.reverse {
            false => (&request.start_key, &request.end_key),
            true => (&request.end_key, &request.start_key),
        };
        match self.range(&request.context, start, end) {
            Err(error) => kvrpcpb::RawScanResponse {
                region_error: Some(error),
                ..Default::default()
            },
            Ok(mut pairs) => {
                if request.reverse {
                    pairs.reverse();
                }
                pairs.truncate(request.limit as usize);
                let kvs = pairs.iter().map(|(key, value)| match request.key_only {
                    true => pair((key, &Bytes::new())),
                    false => pair((key, value)),
                });
                kvrpcpb::RawScanResponse {
                    kvs: kvs.collect(),
                    ..Default::default()
                }
            }
        }
    }

    fn delete_range(&self, request: &kvrpcpb::RawDeleteRangeRequest) -> kvrpcpb::RawDeleteRangeResponse {
        let removed = self
            .range(&request.context, &request.start_key, &request.end_key)
            .map(|pairs| {
                let mut state = self.fake.state.lock();
                pairs.iter().for_each(|(key, _)| drop(state.pairs.remove(key)));
            });
        kvrpcpb::RawDeleteRangeResponse {
            region_error: removed.err(),
            ..Default::default()
        }
    }

    async fn command(&self, command: Cmd) -> Result<answers::response::Cmd, Status> {
        use answers::response::Cmd as Answer;
        let writes = matches!(
            command,
            Cmd::RawPut(_) | Cmd::RawDelete(_) | Cmd::RawBatchPut(_) | Cmd::Prewrite(_) | Cmd::Commit(_)
        );
        if let Some(answer) = self.txn_command(&command) {
            self.disturb(writes).await?;
            return Ok(answer);
        }
        let answer = match &command {
            Cmd::RawGet(request) => Answer::RawGet(self.get(request)),
            Cmd::RawPut(request) => Answer::RawPut(self.put(request)),
            Cmd::RawDelete(request) => Answer::RawDelete(self.delete(request)),
            Cmd::RawBatchGet(request) => Answer::RawBatchGet(self.batch_get(request)),
            Cmd::RawBatchPut(request) => Answer::RawBatchPut(self.batch_put(request)),
            Cmd::RawBatchDelete(request) => Answer::RawBatchDelete(self.batch_delete(request)),
            Cmd::RawScan(request) => Answer::RawScan(self.scan(request)),
            Cmd::RawDeleteRange(request) => Answer::RawDeleteRange(self.delete_range(request)),
            other => panic!("the client does not send {other:?}"),
        };
        self.disturb(writes).await?;
        Ok(answer)
    }
}

fn pair((key, value): (&Bytes, &Bytes)) -> kvrpcpb::KvPair {
    kvrpcpb::KvPair {
        key: key.clone(),
        value: value.clone(),
        ..Default::default()
    }
}

macro_rules! unary {
    ($($rpc:ident($request:ident) -> $answer:ident as $command:ident),* $(,)?) => {
        #[tonic::async_trait]
        impl Tikv for FakeStore {
            $(async fn $rpc(&self, request: Request<kvrpcpb::$request>) -> Result<Response<kvrpcpb::$answer>, Status> {
                match self.command(Cmd::$command(request.into_inner())).await? {
                    answers::response::Cmd::$command(answer) => Ok(Response::new(answer)),
                    _ => Err(Status::internal("another kind of answer")),
                }
            })*

            async fn raw_compare_and_swap(&self, request: Request<kvrpcpb::RawCasRequest>) -> Result<Response<kvrpcpb::RawCasResponse>, Status> {
                let answer = self.swap(request.get_ref());
                self.disturb(true).await?;
                Ok(Response::new(answer))
            }

            async fn raw_checksum(&self, request: Request<kvrpcpb::RawChecksumRequest>) -> Result<Response<kvrpcpb::RawChecksumResponse>, Status> {
                self.disturb(false).await?;
                Ok(Response::new(self.checksum(request.get_ref())))
            }

            async fn batch_commands(
                &self,
                requests: Request<Streaming<tikvpb::BatchCommandsRequest>>,
            ) -> Result<Response<BoxStream<tikvpb::BatchCommandsResponse>>, Status> {
                Ok(Response::new(self.batches(requests.into_inner())))
            }
        }
    };
}

unary!(
    raw_get(RawGetRequest) -> RawGetResponse as RawGet,
    raw_put(RawPutRequest) -> RawPutResponse as RawPut,
    raw_delete(RawDeleteRequest) -> RawDeleteResponse as RawDelete,
    raw_batch_get(RawBatchGetRequest) -> RawBatchGetResponse as RawBatchGet,
    raw_batch_put(RawBatchPutRequest) -> RawBatchPutResponse as RawBatchPut,
    raw_batch_delete(RawBatchDeleteRequest) -> RawBatchDeleteResponse as RawBatchDelete,
    raw_scan(RawScanRequest) -> RawScanResponse as RawScan,
    raw_delete_range(RawDeleteRangeRequest) -> RawDeleteRangeResponse as RawDeleteRange,
    kv_get(GetRequest) -> GetResponse as Get,
    kv_batch_get(BatchGetRequest) -> BatchGetResponse as BatchGet,
    kv_scan(ScanRequest) -> ScanResponse as Scan,
    kv_prewrite(PrewriteRequest) -> PrewriteResponse as Prewrite,
    kv_commit(CommitRequest) -> CommitResponse as Commit,
    kv_batch_rollback(BatchRollbackRequest) -> BatchRollbackResponse as BatchRollback,
    kv_pessimistic_lock(PessimisticLockRequest) -> PessimisticLockResponse as PessimisticLock,
    kv_pessimistic_rollback(PessimisticRollbackRequest) -> PessimisticRollbackResponse as PessimisticRollback,
    kv_txn_heart_beat(TxnHeartBeatRequest) -> TxnHeartBeatResponse as TxnHeartBeat,
    kv_check_txn_status(CheckTxnStatusRequest) -> CheckTxnStatusResponse as CheckTxnStatus,
    kv_check_secondary_locks(CheckSecondaryLocksRequest) -> CheckSecondaryLocksResponse as CheckSecondaryLocks,
    kv_scan_lock(ScanLockRequest) -> ScanLockResponse as ScanLock,
    kv_resolve_lock(ResolveLockRequest) -> ResolveLockResponse as ResolveLock,
);

impl FakeStore {
    fn swap(&self, request: &kvrpcpb::RawCasRequest) -> kvrpcpb::RawCasResponse {
        let mut state = match self.enter(&request.context, &[&request.key]) {
            Ok(state) => state,
            Err(error) => {
                return kvrpcpb::RawCasResponse {
                    region_error: Some(error),
                    ..Default::default()
                };
            }
        };
        self.fake.writes.fetch_add(1, Ordering::SeqCst);
        let previous = state.pairs.get(&request.key).cloned();
        let expected = (!request.previous_not_exist).then(|| request.previous_value.clone());
        let succeed = previous == expected;
        match succeed {
            true if request.delete => drop(state.pairs.remove(&request.key)),
            true => drop(state.pairs.insert(request.key.clone(), request.value.clone())),
            false => {}
        }
        kvrpcpb::RawCasResponse {
            succeed,
            previous_not_exist: previous.is_none(),
            previous_value: previous.unwrap_or_default(),
            ..Default::default()
        }
    }

    fn checksum(&self, request: &kvrpcpb::RawChecksumRequest) -> kvrpcpb::RawChecksumResponse {
        let mut sum = kvrpcpb::RawChecksumResponse::default();
        for range in &request.ranges {
            match self.range(&request.context, &range.start_key, &range.end_key) {
                Err(error) => {
                    return kvrpcpb::RawChecksumResponse {
                        region_error: Some(error),
                        ..Default::default()
                    };
                }
                Ok(pairs) => {
                    sum.total_kvs += pairs.len() as u64;
                    sum.total_bytes += pairs.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>();
                    sum.checksum ^= pairs.iter().fold(0, |sum, (key, _)| sum ^ u64::from(key[key.len() - 1]));
                }
            }
        }
        sum
    }

    /// Answers the entries of a batch one by one, the last first, to show that order does not matter.
    fn batches(&self, requests: Streaming<tikvpb::BatchCommandsRequest>) -> BoxStream<tikvpb::BatchCommandsResponse> {
        let store = self.clone();
        let answers = requests.then(move |batch| {
            let store = store.clone();
            async move {
                let batch = batch?;
                store.fake.batches.fetch_add(1, Ordering::SeqCst);
                let mut answer = tikvpb::BatchCommandsResponse::default();
                for (id, request) in batch.request_ids.into_iter().zip(batch.requests).rev() {
                    let cmd = store.command(request.cmd.expect("a command")).await?;
                    answer.responses.push(answers::Response { cmd: Some(cmd) });
                    answer.request_ids.push(id);
                }
                Ok(answer)
            }
        });
        Box::pin(answers)
    }
}
