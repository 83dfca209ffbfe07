//! The store's service over real connections: what only the wire can get wrong.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{ClusterId, RegionId, StoreId, Ts};
use bytes::{Buf, BufMut, Bytes};
use engine::kv::MemKv;
use futures::future::BoxFuture;
use proto::kvrpcpb::*;
use proto::metapb::{Peer, RegionEpoch};
use proto::tikvpb::batch_commands_request::{Request as Command, request::Cmd};
use proto::tikvpb::batch_commands_response::response::Cmd as Answer;
use proto::tikvpb::tikv_client::TikvClient;
use proto::tikvpb::{BatchCommandsRequest, BatchCommandsResponse};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use server::config::ApiVersion;
use server::tikv_service::{Identity, TikvService};
use server::txn::deadlock::Detectors;
use server::txn::{self, Txn};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

const CLUSTER: u64 = 42;

/// Serves regions in memory on a free port, until the test's runtime ends.
async fn serve() -> SocketAddr {
    let identity = Identity {
        cluster: ClusterId(CLUSTER),
        store: StoreId(1),
    };
    let kv = Arc::new(MemKv::whole());
    let clock = Arc::new(AtomicU64::new(1000));
    let txn = Txn::new(txn::Parts {
        kv: kv.clone(),
        engine: kv.engine().clone(),
        api: ApiVersion::V1,
        timestamps: Arc::new(move |_| Box::pin(std::future::ready(Some(Ts(clock.fetch_add(1, Ordering::SeqCst)))))),
        detectors: Arc::new(Here),
        leaders: Arc::new(txn::replica::NoLeaders),
        scheduler: Default::default(),
    });
    let service = TikvService::new(kv, Arc::new(txn), identity, ApiVersion::V1).into_server();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let server = tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    address
}

/// Deadlocks are detected on the one store.
struct Here;

impl Detectors for Here {
    fn here(&self) -> Option<(RegionId, u64)> {
        Some((RegionId(1), 1))
    }
    fn there(&self) -> BoxFuture<'static, Option<String>> {
        Box::pin(std::future::ready(None))
    }
}

async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint
        .timeout(Duration::from_secs(20))
        .connect()
        .await
        .expect("the server listens")
}

fn context() -> Option<Context> {
    Some(Context {
        region_id: 1,
        region_epoch: Some(RegionEpoch { conf_ver: 1, version: 1 }),
        peer: Some(Peer {
            id: 1,
            store_id: 1,
            ..Default::default()
        }),
        cluster_id: CLUSTER,
        ..Default::default()
    })
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> RawPutRequest {
    RawPutRequest {
        context: context(),
        key: key.into(),
        value: value.into(),
        ..Default::default()
    }
}

fn get(key: impl Into<Bytes>) -> RawGetRequest {
    RawGetRequest {
        context: context(),
        key: key.into(),
        ..Default::default()
    }
}

fn prewrite(key: &'static str, value: &'static str, start_version: u64) -> PrewriteRequest {
    PrewriteRequest {
        context: context(),
        mutations: vec![Mutation {
            key: key.into(),
            value: value.into(),
            ..Default::default()
        }],
        primary_lock: key.into(),
        start_version,
        lock_ttl: 3000,
        ..Default::default()
    }
}

fn commit(key: &'static str, start_version: u64, commit_version: u64) -> CommitRequest {
    CommitRequest {
        context: context(),
        keys: vec![key.into()],
        start_version,
        commit_version,
        ..Default::default()
    }
}

/// Sends bytes as they are in place of a message, and takes what comes back.
#[derive(Clone, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Plain;
    type Decoder = Plain;
    fn encoder(&mut self) -> Plain {
        Plain
    }
    fn decoder(&mut self) -> Plain {
        Plain
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

async fn send_plain(channel: &Channel, rpc: &str, message: Bytes) -> Result<Bytes, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("connected");
    let path = format!("/tikvpb.Tikv/{rpc}").parse().expect("a path");
    if rpc == "BatchCommands" {
        let answers = client
            .streaming(Request::new(tokio_stream::once(message)), path, Plain)
            .await?;
        let mut answers = answers.into_inner();
        return answers.message().await.map(Option::unwrap_or_default);
    }
    client
        .unary(Request::new(message), path, Plain)
        .await
        .map(|answer| answer.into_inner())
}

const RPCS: [&str; 33] = [
    "RawGet",
    "RawBatchGet",
    "RawPut",
    "RawBatchPut",
    "RawDelete",
    "RawBatchDelete",
    "RawScan",
    "RawBatchScan",
    "RawDeleteRange",
    "RawGetKeyTTL",
    "RawCompareAndSwap",
    "RawChecksum",
    "KvGet",
    "KvBatchGet",
    "KvScan",
    "KvPrewrite",
    "KvCommit",
    "KvCleanup",
    "KvBatchRollback",
    "KvPessimisticLock",
    "KVPessimisticRollback",
    "KvTxnHeartBeat",
    "KvCheckTxnStatus",
    "KvCheckSecondaryLocks",
    "KvScanLock",
    "KvResolveLock",
    "KvDeleteRange",
    "UnsafeDestroyRange",
    "PhysicalScanLock",
    "GetLockWaitInfo",
    "MvccGetByKey",
    "MvccGetByStartTs",
    "BatchCommands",
];

/// No message, however broken, is taken for a request: neither answered with data nor the end of the server.
#[tokio::test]
async fn malformed_messages() {
    let channel = connect(serve().await).await;
    let broken: [&'static [u8]; 6] = [
        // A field without its value, a length beyond the message, a wire type that does not exist,
        b"\x0a",
        b"\x0a\x7f",
        b"\x0f\x01",
        // field number zero, a varint without end, a context that is not one.
        b"\x00\x01",
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x0a\x02\x0a\xff",
    ];
    for rpc in RPCS {
        for message in broken {
            let answer = send_plain(&channel, rpc, Bytes::from_static(message)).await;
            let status = answer.expect_err(rpc);
            assert_eq!(status.code(), Code::Internal, "{rpc} {message:?}: {status:?}");
        }
    }
    let mut client = TikvClient::new(channel);
    assert!(
        client
            .raw_get(get("k"))
            .await
            .expect("the server lives")
            .into_inner()
            .not_found
    );
}

/// Well-formed requests with bits turned over, and noise: any answer is fine but the end of the server or of patience.
#[tokio::test]
async fn noise() {
    use prost::Message;
    let channel = connect(serve().await).await;
    let requests = [
        put("key", "value").encode_to_vec(),
        RawCasRequest {
            context: context(),
            ..Default::default()
        }
        .encode_to_vec(),
        prewrite("key", "value", 10).encode_to_vec(),
    ];
    let mut rng = StdRng::seed_from_u64(7);
    for round in 0..500 {
        let mut message = requests[round % 3].clone();
        if round % 5 == 0 {
            message = (0..rng.random_range(0..64)).map(|_| rng.random()).collect();
        }
        for _ in 0..rng.random_range(1..4) {
            if !message.is_empty() {
                let at = rng.random_range(0..message.len());
                message[at] ^= 1 << rng.random_range(0..8);
            }
        }
        let rpc = RPCS[rng.random_range(0..RPCS.len())];
        if let Err(status) = send_plain(&channel, rpc, message.into()).await {
            assert!(
                matches!(status.code(), Code::Internal | Code::InvalidArgument),
                "{rpc}: {status:?}"
            );
        }
    }
    TikvClient::new(channel).raw_get(get("k")).await.expect("the server lives");
}

#[tokio::test]
async fn huge_keys_and_messages() {
    let mut client = TikvClient::new(connect(serve().await).await).max_encoding_message_size(usize::MAX);
    let huge = vec![b'k'; (16 << 20) - 100];
    for answer in [
        client
            .raw_put(put(huge.clone(), "v"))
            .await
            .expect("within the limit on messages")
            .into_inner()
            .error,
        client
            .raw_get(get(huge.clone()))
            .await
            .expect("within the limit on messages")
            .into_inner()
            .error,
    ] {
        assert_eq!(answer, "key of 16777116 bytes is over the limit of 8192");
    }
    let status = client
        .raw_put(put("k", vec![0; 16 << 20]))
        .await
        .expect_err("beyond the limit on messages");
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    let large = vec![7; 7 << 20];
    assert_eq!(
        client.raw_put(put("k", large.clone())).await.expect("fits").into_inner(),
        Default::default()
    );
    let mut roomy = client.max_decoding_message_size(16 << 20);
    assert_eq!(roomy.raw_get(get("k")).await.expect("fits").into_inner().value, large);
    let scan = RawScanRequest {
        context: context(),
        limit: 10,
        ..Default::default()
    };
    assert_eq!(roomy.raw_scan(scan).await.expect("fits").into_inner().kvs.len(), 1);
}

#[tokio::test]
async fn another_cluster_and_unknown_rpcs() {
    let mut client = TikvClient::new(connect(serve().await).await);
    let mut request = get("k");
    request.context.as_mut().expect("set").cluster_id = CLUSTER + 1;
    assert_eq!(
        client.raw_get(request).await.expect_err("refused").code(),
        Code::InvalidArgument
    );
    assert_eq!(
        client
            .kv_gc(GcRequest::default())
            .await
            .expect_err("stores collect by themselves")
            .code(),
        Code::Unimplemented
    );
}

fn message(commands: impl IntoIterator<Item = (u64, Cmd)>) -> BatchCommandsRequest {
    let (request_ids, requests) = commands.into_iter().map(|(id, cmd)| (id, Command { cmd: Some(cmd) })).unzip();
    BatchCommandsRequest { requests, request_ids }
}

/// Ten thousand writes and as many reads through one stream, a window of messages ahead of the answers.
#[tokio::test]
async fn a_stream_of_batches() {
    const ROUNDS: u64 = 100;
    const EACH: u64 = 100;
    let mut client = TikvClient::new(connect(serve().await).await);
    let (send, sent) = tokio::sync::mpsc::channel(4);
    let mut answers = client
        .batch_commands(ReceiverStream::new(sent))
        .await
        .expect("the stream begins")
        .into_inner();
    let sender = tokio::spawn(async move {
        for round in 0..ROUNDS {
            let puts = (0..EACH).map(|n| {
                (
                    round * EACH + n,
                    Cmd::RawPut(put(format!("k{}", round * EACH + n), format!("v{n}"))),
                )
            });
            send.send(message(puts)).await.expect("the stream lives");
        }
        for round in 0..ROUNDS {
            let gets = (0..EACH).map(|n| {
                (
                    1_000_000 + round * EACH + n,
                    Cmd::RawGet(get(format!("k{}", round * EACH + n))),
                )
            });
            send.send(message(gets)).await.expect("the stream lives");
        }
    });
    let mut answered = 0;
    while let Some(BatchCommandsResponse {
        responses, request_ids, ..
    }) = answers.message().await.expect("the stream ends well")
    {
        assert_eq!(responses.len(), request_ids.len());
        for (id, response) in request_ids.into_iter().zip(responses) {
            match response.cmd.expect("an answer") {
                Answer::RawPut(answer) => assert_eq!(answer, Default::default(), "{id}"),
                Answer::RawGet(answer) => assert_eq!(answer.value, format!("v{}", id % EACH), "{id}"),
                other => panic!("{other:?}"),
            }
            answered += 1;
        }
    }
    sender.await.expect("all were sent");
    assert_eq!(answered, 2 * ROUNDS * EACH);
}

/// A transaction over the wire, one phase unary, the other in a batch; the answer to a batch comes with its id.
#[tokio::test]
async fn a_transaction() {
    let mut client = TikvClient::new(connect(serve().await).await);
    let prewritten = client.kv_prewrite(prewrite("k", "v", 10)).await.expect("served").into_inner();
    assert_eq!(prewritten, Default::default());
    let read = |version| GetRequest {
        context: context(),
        key: "k".into(),
        version,
        ..Default::default()
    };
    let hidden = client.kv_get(read(15)).await.expect("served").into_inner();
    let locked = hidden.error.expect("locked").locked.expect("locked");
    assert_eq!((locked.lock_version, &locked.primary_lock[..]), (10, &b"k"[..]));
    let second = tokio_stream::once(message([(8, Cmd::Commit(commit("k", 10, 20)))]));
    let mut answers = client.batch_commands(second).await.expect("the stream begins").into_inner();
    let answer = answers.message().await.expect("ends well").expect("an answer");
    let done = CommitResponse {
        commit_version: 20,
        ..Default::default()
    };
    assert_eq!(
        (answer.request_ids, answer.responses[0].cmd.clone()),
        (vec![8], Some(Answer::Commit(done)))
    );
    assert_eq!(client.kv_get(read(20)).await.expect("served").into_inner().value, "v");
    let reads = message([(1, Cmd::Get(read(19))), (2, Cmd::Get(read(u64::MAX)))]);
    let mut answers = client
        .batch_commands(tokio_stream::once(reads))
        .await
        .expect("the stream begins")
        .into_inner();
    let answer = answers.message().await.expect("ends well").expect("an answer");
    let found: Vec<bool> = answer
        .responses
        .into_iter()
        .map(|response| matches!(response.cmd, Some(Answer::Get(answer)) if answer.value == "v"))
        .collect();
    assert_eq!((answer.request_ids, found), (vec![1, 2], vec![false, true]));
}

/// A client may hang up in the middle of anything.
#[tokio::test]
async fn clients_that_hang_up() {
    let address = serve().await;
    for n in 0..20u64 {
        let mut client = TikvClient::new(connect(address).await);
        let puts = message((0..100).map(|id| (id, Cmd::RawPut(put(format!("{n}-{id}"), "v")))));
        let stream = tokio_stream::once(puts).chain(tokio_stream::pending());
        let mut answers = client.batch_commands(stream).await.expect("the stream begins").into_inner();
        if n % 2 == 0 {
            answers.message().await.expect("an answer");
        }
    }
    let mut client = TikvClient::new(connect(address).await);
    assert_eq!(
        client.raw_get(get("0-0")).await.expect("the server lives").into_inner().value,
        "v"
    );
}
