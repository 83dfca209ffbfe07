//! The service over regions in memory: every RPC of every API version, unary and batched.

mod batch;
mod errors;
mod model;
mod ops;
mod txn;
mod txn_errors;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{RegionId, Ts};
use bytes::Bytes;
use engine::kv::{self, Kv, MemKv, Modify, Reply, SnapshotRef, memory};
use engine::{Engine, MemEngine};
use futures::StreamExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use proto::metapb::{Peer, Region, RegionEpoch};
use proto::tikvpb::batch_commands_request::{self, request::Cmd as Request};
use proto::tikvpb::batch_commands_response::response::Cmd as Answer;

use super::*;
use crate::config::ApiVersion::{V1, V1Ttl, V2};
use crate::raw;
use crate::txn::Parts;
use crate::txn::deadlock::Detectors;

const CLUSTER: u64 = 42;
const STORE: u64 = 1;
const ALL: [ApiVersion; 3] = [V1, V1Ttl, V2];

/// One store with one region over all keys.
struct Fixture {
    api: ApiVersion,
    kv: Arc<MemKv>,
    service: TikvService,
}

impl Fixture {
    fn new(api: ApiVersion) -> Fixture {
        Fixture::of_regions(api, vec![memory::region(1, b"", b"")])
    }

    fn of_regions(api: ApiVersion, regions: Vec<Region>) -> Fixture {
        let kv = Arc::new(MemKv::new(Arc::new(MemEngine::new()), StoreId(STORE), regions));
        Fixture {
            api,
            service: service_on(kv.clone(), kv.engine().clone(), api),
            kv,
        }
    }

    /// What a well-meaning client sends for region `id`.
    fn context_of(&self, id: u64) -> Context {
        Context {
            region_id: id,
            peer: Some(Peer {
                id,
                store_id: STORE,
                ..Default::default()
            }),
            ..context(self.api)
        }
    }

    fn context(&self) -> Option<Context> {
        Some(self.context_of(1))
    }

    fn key(&self, name: &str) -> Bytes {
        key(self.api, name)
    }

    async fn put(&self, name: &str, value: &str) {
        self.put_ttl(name, value, 0).await;
    }

    async fn put_ttl(&self, name: &str, value: &str, ttl: u64) {
        let request = RawPutRequest {
            context: self.context(),
            key: self.key(name),
            value: text(value),
            ttl,
            ..Default::default()
        };
        let answer = self.unary(Request::RawPut(request)).await;
        assert_eq!(answer, Answer::RawPut(RawPutResponse::default()), "put {name}");
    }

    async fn get(&self, name: &str) -> Option<String> {
        let request = RawGetRequest {
            context: self.context(),
            key: self.key(name),
            ..Default::default()
        };
        let Answer::RawGet(answer) = self.unary(Request::RawGet(request)).await else {
            panic!("another kind of answer")
        };
        assert_eq!((&answer.region_error, &answer.error[..]), (&None, ""), "get {name}");
        assert!(!answer.not_found || answer.value.is_empty());
        (!answer.not_found).then(|| String::from_utf8(answer.value.to_vec()).expect("tests put text"))
    }

    async fn delete(&self, name: &str) {
        let request = RawDeleteRequest {
            context: self.context(),
            key: self.key(name),
            ..Default::default()
        };
        let answer = self.unary(Request::RawDelete(request)).await;
        assert_eq!(answer, Answer::RawDelete(RawDeleteResponse::default()), "delete {name}");
    }

    /// Names and values of `[from, to)`.
    async fn scan(&self, from: &str, to: &str, limit: u32) -> Vec<(String, String)> {
        let (start_key, end_key) = (self.key(from), self.key(to));
        let request = RawScanRequest {
            context: self.context(),
            start_key,
            end_key,
            limit,
            ..Default::default()
        };
        let Answer::RawScan(answer) = self.unary(Request::RawScan(request)).await else {
            panic!("another kind of answer")
        };
        assert_eq!(answer.region_error, None);
        self.names(answer.kvs)
    }

    fn names(&self, pairs: Vec<KvPair>) -> Vec<(String, String)> {
        let prefix = self.key("").len();
        let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("tests put text");
        let name = |pair: KvPair| {
            assert_eq!(pair.error, None);
            (string(&pair.key[prefix..]), string(&pair.value))
        };
        pairs.into_iter().map(name).collect()
    }

    /// The answer to a request on its own.
    async fn unary(&self, request: Request) -> Answer {
        self.try_unary(request).await.expect("the call ends well")
    }

    async fn try_unary(&self, request: Request) -> Result<Answer, Status> {
        unary(&self.service, request).await
    }

    /// The answer to the same request in a batch, after checking that it comes with its id.
    async fn batched(&self, request: Request) -> Answer {
        let mut answers = batched(&self.service, vec![vec![(7, request)]]).await;
        let (id, answer) = answers.pop().expect("an answer");
        assert_eq!((id, answers.len()), (7, 0));
        answer.expect("a command that is served")
    }
}

fn service(kv: Arc<dyn Kv>, api: ApiVersion) -> TikvService {
    service_on(kv, Arc::new(MemEngine::new()), api)
}

/// `engine` is under `kv`.
fn service_on(kv: Arc<dyn Kv>, engine: Arc<dyn Engine>, api: ApiVersion) -> TikvService {
    let identity = Identity {
        cluster: ClusterId(CLUSTER),
        store: StoreId(STORE),
    };
    TikvService::new(kv.clone(), transactions(kv, engine, api), identity, api)
}

/// What a TSO gives in these tests, at first.
const TSO: u64 = 1000;

fn transactions(kv: Arc<dyn Kv>, engine: Arc<dyn Engine>, api: ApiVersion) -> Arc<Txn> {
    struct Here;
    impl Detectors for Here {
        fn here(&self) -> Option<(RegionId, u64)> {
            Some((RegionId(1), 1))
        }
        fn there(&self) -> BoxFuture<'static, Option<String>> {
            Box::pin(std::future::ready(None))
        }
    }
    let clock = Arc::new(AtomicU64::new(TSO));
    Arc::new(Txn::new(Parts {
        kv,
        engine,
        api,
        timestamps: Arc::new(move |_| Box::pin(std::future::ready(Some(Ts(clock.fetch_add(1, Ordering::SeqCst)))))),
        detectors: Arc::new(Here),
        leaders: Arc::new(crate::txn::replica::NoLeaders),
        scheduler: Default::default(),
    }))
}

/// A context for region 1 of a store of version `api`, as clients mark it.
fn context(api: ApiVersion) -> Context {
    Context {
        region_id: 1,
        region_epoch: Some(RegionEpoch { conf_ver: 1, version: 1 }),
        api_version: if api == V2 { 2 } else { 0 },
        cluster_id: CLUSTER,
        ..Default::default()
    }
}

/// A key as a client of version `api` sends it: of V2 with mode and keyspace 1.
fn key(api: ApiVersion, name: &str) -> Bytes {
    if api == V2 {
        Bytes::from([b"r\0\0\x01", name.as_bytes()].concat())
    } else {
        text(name)
    }
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn unary(service: &TikvService, request: Request) -> Result<Answer, Status> {
    macro_rules! call {
        ($($kind:ident $rpc:ident),*) => {
            match request {
                $(Request::$kind(request) => service.$rpc(tonic::Request::new(request)).await.map(|a| Answer::$kind(a.into_inner())),)*
                other => panic!("{other:?} is not served"),
            }
        };
    }
    call!(
        RawGet raw_get,
        RawBatchGet raw_batch_get,
        RawPut raw_put,
        RawBatchPut raw_batch_put,
        RawDelete raw_delete,
        RawBatchDelete raw_batch_delete,
        RawScan raw_scan,
        RawBatchScan raw_batch_scan,
        RawDeleteRange raw_delete_range,
        Get kv_get,
        Scan kv_scan,
        Prewrite kv_prewrite,
        Commit kv_commit,
        Cleanup kv_cleanup,
        BatchGet kv_batch_get,
        BatchRollback kv_batch_rollback,
        ScanLock kv_scan_lock,
        ResolveLock kv_resolve_lock,
        DeleteRange kv_delete_range,
        PessimisticLock kv_pessimistic_lock,
        PessimisticRollback kv_pessimistic_rollback,
        CheckTxnStatus kv_check_txn_status,
        TxnHeartBeat kv_txn_heart_beat,
        CheckSecondaryLocks kv_check_secondary_locks
    )
}

type Messages = Vec<Vec<(u64, Request)>>;

/// A message of a batch stream.
fn message(commands: Vec<(u64, Request)>) -> BatchCommandsRequest {
    let (request_ids, commands): (Vec<u64>, Vec<Request>) = commands.into_iter().unzip();
    let requests = commands
        .into_iter()
        .map(|cmd| batch_commands_request::Request { cmd: Some(cmd) })
        .collect();
    BatchCommandsRequest { requests, request_ids }
}

/// The answers to a stream of `messages`, in the order in which they came.
async fn batched(service: &TikvService, messages: Messages) -> Vec<(u64, Option<Answer>)> {
    let stream = futures::stream::iter(messages.into_iter().map(|commands| Ok(message(commands))));
    let answers = BatchCommands::new(service.handlers.clone(), stream);
    let messages: Vec<_> = answers.map(|message| message.expect("the stream ends well")).collect().await;
    messages
        .into_iter()
        .flat_map(|message| {
            message
                .request_ids
                .into_iter()
                .zip(message.responses.into_iter().map(|r| r.cmd))
        })
        .collect()
}

type Held = Arc<Mutex<VecDeque<Box<dyn FnOnce() + Send>>>>;

/// Regions in memory whose answers wait until they are let go. What was asked takes place at once.
struct SlowKv {
    kv: MemKv,
    held: Held,
    hold_reads: bool,
    /// In which terms the writes may take place; zero: in any.
    terms: Mutex<Vec<u64>>,
}

impl SlowKv {
    fn new(hold_reads: bool) -> Arc<SlowKv> {
        Arc::new(SlowKv {
            kv: MemKv::whole(),
            held: Held::default(),
            hold_reads,
            terms: Mutex::default(),
        })
    }

    fn held(&self) -> usize {
        self.held.lock().len()
    }

    /// Gives one answer: the oldest that waits.
    fn release(&self) {
        let answer = self.held.lock().pop_front().expect("an answer waits");
        answer();
    }
}

fn hold<T: Send + 'static>(held: &Held, reply: Reply<T>) -> Reply<T> {
    let held = held.clone();
    Box::new(move |outcome| held.lock().push_back(Box::new(move || reply(outcome))))
}

impl Kv for SlowKv {
    fn snapshot(&self, ctx: &kv::Context, now: MonoTime, reply: Reply<SnapshotRef>) {
        self.kv
            .snapshot(ctx, now, if self.hold_reads { hold(&self.held, reply) } else { reply });
    }

    fn snapshot_at(&self, ctx: &kv::Context, index: u64, reply: Reply<SnapshotRef>) {
        self.kv.snapshot_at(ctx, index, reply);
    }

    fn write(&self, ctx: &kv::Context, changes: Vec<Modify>, deadline: MonoTime, reply: Reply<()>) {
        self.terms.lock().push(ctx.term);
        self.kv.write(ctx, changes, deadline, hold(&self.held, reply));
    }
}
