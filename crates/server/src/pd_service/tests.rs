//! Every RPC over a loopback connection, with the generated clients.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use base::{MonoTime, Ts};
use bytes::Bytes;
use futures::StreamExt;
use pd::log::Stored;
use pd::log::file::FileLog;
use pd::{MemberId, Options, Pd};
use proto::eraftpb::ConfChangeType;
use proto::ferrite_pd::{GroupMessage, Member as PdMember};
use proto::keyspacepb::keyspace_client::KeyspaceClient;
use proto::keyspacepb::{GetAllKeyspacesRequest, LoadKeyspaceRequest};
use proto::metapb::{self, Peer, RegionEpoch, Store};
use proto::pdpb::pd_client::PdClient;
use proto::pdpb::*;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

use super::*;

mod safe_points;
mod scatter;

const CLUSTER: u64 = 4242;

/// A placement driver on a loopback port. Dropping it stops all of it.
pub struct TestPd {
    pub address: SocketAddr,
    pub dir: Arc<tempfile::TempDir>,
    pub pd: Pd,
    server: JoinHandle<()>,
}

impl TestPd {
    pub async fn start() -> TestPd {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        TestPd::start_in(dir, "127.0.0.1:0".parse().unwrap()).await
    }

    pub async fn start_in(dir: Arc<tempfile::TempDir>, address: SocketAddr) -> TestPd {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener: TcpListener = socket.listen(64).unwrap();
        let address = listener.local_addr().unwrap();
        let pd = open_alone(&dir.path().join("pd"), format!("http://{address}"));
        let routes = tonic::service::Routes::from(routes(pd.handle().clone()));
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let serve = tonic::transport::Server::builder()
            .add_routes(routes)
            .serve_with_incoming(incoming);
        let server = tokio::spawn(async move { serve.await.unwrap() });
        TestPd {
            address,
            dir,
            pd,
            server,
        }
    }

    pub async fn client(&self) -> PdClient<Channel> {
        PdClient::connect(format!("http://{}", self.address)).await.unwrap()
    }

    /// Cuts all connections; waits until the address is free again.
    pub async fn stop(self) -> (Arc<tempfile::TempDir>, SocketAddr) {
        self.server.abort();
        let _cancelled = self.server.await;
        (self.dir, self.address)
    }
}

struct Nowhere;

impl pd::Transport for Nowhere {
    fn send(&self, _: MemberId, _: &str, _: Vec<GroupMessage>) {}
}

/// A placement driver of one member, once it leads.
fn open_alone(dir: &Path, url: String) -> Pd {
    let id = MemberId(9);
    let options = Options {
        member: id,
        name: "pd-1".to_owned(),
        client_urls: vec![url.clone()],
        peer_urls: vec![url.clone()],
        cluster_id_if_new: CLUSTER,
        max_peer_count_if_new: 3,
        merge_after: std::time::Duration::ZERO,
    };
    let mut log = FileLog::open(dir, id).unwrap();
    if log.is_new() {
        let me = PdMember {
            id: id.0,
            name: "pd-1".to_owned(),
            peer_urls: vec![url.clone()],
            client_urls: vec![url],
            is_learner: false,
        };
        log.begin(Stored::founding(id, vec![me])).unwrap();
    }
    let pd = Pd::start(Handle::not_started(id), log, options, Nowhere, 1);
    let deadline = MonoTime::now() + std::time::Duration::from_secs(20);
    assert!(
        pd.handle()
            .wait_for(deadline, |status| status.leads() && status.cluster.is_some())
    );
    pd
}

pub fn header() -> Option<RequestHeader> {
    Some(RequestHeader {
        cluster_id: CLUSTER,
        ..RequestHeader::default()
    })
}

pub fn store(id: u64) -> Store {
    Store {
        id,
        address: format!("127.0.0.1:{}", 20160 + id),
        version: CLUSTER_VERSION.to_owned(),
        ..Store::default()
    }
}

pub fn peer(id: u64, store_id: u64) -> Peer {
    Peer {
        id,
        store_id,
        ..Peer::default()
    }
}

pub fn region(id: u64, start: &'static [u8], end: &'static [u8], version: u64) -> metapb::Region {
    metapb::Region {
        id,
        start_key: Bytes::from_static(start),
        end_key: Bytes::from_static(end),
        region_epoch: Some(RegionEpoch { conf_ver: 1, version }),
        peers: vec![peer(id + 100, 1)],
        ..metapb::Region::default()
    }
}

/// Regions 10 `[..m)` and 11 `[m..)` on store 1.
pub async fn must_bootstrap(client: &mut PdClient<Channel>) {
    let request = BootstrapRequest {
        header: header(),
        store: Some(store(1)),
        region: Some(region(10, b"", b"m", 1)),
        ferrite_regions: vec![region(11, b"m", b"", 1)],
    };
    must_be_ok(client.bootstrap(request).await.unwrap().into_inner().header);
}

fn must_be_ok(header: Option<ResponseHeader>) {
    assert_eq!(
        header,
        Some(ResponseHeader {
            cluster_id: CLUSTER,
            error: None
        })
    );
}

fn must_fail(header: Option<ResponseHeader>, kind: ErrorType) -> String {
    let header = header.expect("every answer has a header");
    assert_eq!(header.cluster_id, CLUSTER);
    let error = header.error.expect("an error");
    assert_eq!(error.r#type(), kind, "{}", error.message);
    error.message
}

async fn must_start() -> (TestPd, PdClient<Channel>) {
    let pd = TestPd::start().await;
    let mut client = pd.client().await;
    must_bootstrap(&mut client).await;
    (pd, client)
}

#[tokio::test]
async fn members_are_told_to_anyone() {
    let pd = TestPd::start().await;
    let mut client = pd.client().await;
    let members = client.get_members(GetMembersRequest::default()).await.unwrap().into_inner();
    must_be_ok(members.header);
    let leader = members.leader.expect("a leader");
    assert_eq!(
        leader.client_urls,
        [format!("http://{}", pd.address)],
        "clients dial it as it is"
    );
    assert_eq!((members.members.len(), members.etcd_leader.as_ref()), (1, Some(&leader)));
    let info = client
        .get_cluster_info(GetClusterInfoRequest::default())
        .await
        .unwrap()
        .into_inner();
    must_be_ok(info.header);
    assert_eq!(info.service_modes, [ServiceMode::PdSvcMode as i32]);
}

#[tokio::test]
async fn another_cluster_is_refused() {
    let (_pd, mut client) = must_start().await;
    for wrong in [
        None,
        Some(RequestHeader {
            cluster_id: 7,
            ..RequestHeader::default()
        }),
    ] {
        let status = client
            .get_store(GetStoreRequest {
                header: wrong.clone(),
                store_id: 1,
            })
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(
            status.message().contains("mismatch cluster id, need 4242"),
            "{}",
            status.message()
        );
        let requests = futures::stream::iter([TsoRequest {
            header: wrong,
            count: 1,
            ..TsoRequest::default()
        }]);
        let mut answers = client.tso(requests).await.unwrap().into_inner();
        assert_eq!(answers.next().await.unwrap().unwrap_err().code(), Code::FailedPrecondition);
    }
}

#[tokio::test]
async fn before_bootstrap_only_what_needs_no_cluster_is_answered() {
    let pd = TestPd::start().await;
    let mut client = pd.client().await;
    let header = header();
    let told = client
        .is_bootstrapped(IsBootstrappedRequest { header: header.clone() })
        .await
        .unwrap()
        .into_inner();
    assert!(!told.bootstrapped);
    must_be_ok(told.header);
    let region = client
        .get_region(GetRegionRequest {
            header: header.clone(),
            ..GetRegionRequest::default()
        })
        .await
        .unwrap();
    must_fail(region.into_inner().header, ErrorType::NotBootstrapped);
    let put = client
        .put_store(PutStoreRequest {
            header: header.clone(),
            store: Some(store(1)),
        })
        .await
        .unwrap();
    must_fail(put.into_inner().header, ErrorType::NotBootstrapped);
    let id = client
        .alloc_id(AllocIdRequest {
            header: header.clone(),
            count: 0,
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((id.id, id.count), (1, 1));
    let ids = client
        .alloc_id(AllocIdRequest {
            header: header.clone(),
            count: 5,
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((ids.id, ids.count), (6, 5), "the last of them is told");
    must_bootstrap(&mut client).await;
    let again = BootstrapRequest {
        header,
        store: Some(store(1)),
        ..BootstrapRequest::default()
    };
    must_fail(
        client.bootstrap(again).await.unwrap().into_inner().header,
        ErrorType::AlreadyBootstrapped,
    );
}

#[tokio::test]
async fn timestamps_come_in_order_and_batches_tell_their_last() {
    let pd = TestPd::start().await;
    let mut client = pd.client().await;
    let request = |count| TsoRequest {
        header: header(),
        count,
        ..TsoRequest::default()
    };
    let counts: Vec<u32> = (1..=200).collect();
    let mut answers = client
        .tso(futures::stream::iter(counts.clone()).map(request))
        .await
        .unwrap()
        .into_inner();
    let mut last = Ts(0);
    for count in counts {
        let answer = answers.next().await.unwrap().unwrap();
        must_be_ok(answer.header);
        assert_eq!(answer.count, count);
        let told = answer.timestamp.unwrap();
        let of_batch = Ts::compose(told.physical as u64, told.logical as u64);
        assert!(
            of_batch.0 >= last.0 + u64::from(count),
            "{count} timestamps between {last:?} and {of_batch:?}"
        );
        last = of_batch;
    }
    assert!(
        answers.next().await.is_none(),
        "the stream ends when the client has said all: Java opens one per timestamp"
    );
    let mut refused = client.tso(futures::stream::iter([request(0)])).await.unwrap().into_inner();
    assert_eq!(refused.next().await.unwrap().unwrap_err().code(), Code::InvalidArgument);
    let least = client
        .get_min_ts(GetMinTsRequest { header: header() })
        .await
        .unwrap()
        .into_inner()
        .timestamp
        .unwrap();
    assert!(Ts::compose(least.physical as u64, least.logical as u64) > last);
}

#[tokio::test]
async fn stores_are_put_and_told() {
    let (_pd, mut client) = must_start().await;
    let put = client
        .put_store(PutStoreRequest {
            header: header(),
            store: Some(store(2)),
        })
        .await
        .unwrap();
    must_be_ok(put.into_inner().header);
    let clash = Store { id: 3, ..store(2) };
    let put = client
        .put_store(PutStoreRequest {
            header: header(),
            store: Some(clash),
        })
        .await
        .unwrap();
    must_fail(put.into_inner().header, ErrorType::DuplicatedEntry);
    let stats = StoreStats {
        store_id: 2,
        capacity: 77,
        ..StoreStats::default()
    };
    let beat = StoreHeartbeatRequest {
        header: header(),
        stats: Some(stats),
        ..StoreHeartbeatRequest::default()
    };
    let beat = client.store_heartbeat(beat).await.unwrap().into_inner();
    must_be_ok(beat.header);
    assert_eq!(beat.cluster_version, CLUSTER_VERSION);
    let told = client
        .get_store(GetStoreRequest {
            header: header(),
            store_id: 2,
        })
        .await
        .unwrap()
        .into_inner();
    must_be_ok(told.header);
    assert_eq!(told.store.unwrap().address, store(2).address);
    assert_eq!(told.stats.unwrap().capacity, 77);
    let unknown = client
        .get_store(GetStoreRequest {
            header: header(),
            store_id: 99,
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        must_fail(unknown.header, ErrorType::Unknown),
        "invalid store ID 99, not found"
    );
    let all = client
        .get_all_stores(GetAllStoresRequest {
            header: header(),
            exclude_tombstone_stores: true,
        })
        .await
        .unwrap();
    let ids: Vec<u64> = all.into_inner().stores.into_iter().map(|store| store.id).collect();
    assert_eq!(ids, [1, 2]);
}

#[tokio::test]
async fn regions_are_found_and_always_have_a_leader() {
    let (_pd, mut client) = must_start().await;
    let by_key = |key: &'static [u8]| GetRegionRequest {
        header: header(),
        region_key: Bytes::from_static(key),
        need_buckets: true,
    };
    let found = client.get_region(by_key(b"n")).await.unwrap().into_inner();
    must_be_ok(found.header);
    assert_eq!((found.region.unwrap().id, found.leader), (11, Some(peer(111, 1))));
    let found = client.get_prev_region(by_key(b"n")).await.unwrap().into_inner();
    assert_eq!((found.region.unwrap().id, found.leader), (10, Some(peer(110, 1))));
    let none = client.get_prev_region(by_key(b"a")).await.unwrap().into_inner();
    must_be_ok(none.header);
    assert_eq!((none.region, none.leader), (None, None), "absent is no error");
    let by_id = GetRegionByIdRequest {
        header: header(),
        region_id: 10,
        need_buckets: false,
    };
    assert_eq!(
        client.get_region_by_id(by_id).await.unwrap().into_inner().region.unwrap().id,
        10
    );

    let scan = ScanRegionsRequest {
        header: header(),
        start_key: Bytes::new(),
        limit: 0,
        end_key: Bytes::new(),
    };
    let scan = client.scan_regions(scan).await.unwrap().into_inner();
    must_be_ok(scan.header);
    assert_eq!(
        scan.regions
            .iter()
            .map(|found| found.region.as_ref().unwrap().id)
            .collect::<Vec<_>>(),
        [10, 11]
    );
    assert_eq!(scan.region_metas.iter().map(|region| region.id).collect::<Vec<_>>(), [10, 11]);
    assert_eq!(scan.leaders, [peer(110, 1), peer(111, 1)]);

    let range = |start: &'static [u8], end: &'static [u8]| KeyRange {
        start_key: Bytes::from_static(start),
        end_key: Bytes::from_static(end),
    };
    let batch = |ranges, limit| BatchScanRegionsRequest {
        header: header(),
        ranges,
        limit,
        contain_all_key_range: true,
        ..BatchScanRegionsRequest::default()
    };
    let found = client
        .batch_scan_regions(batch(vec![range(b"a", b"b"), range(b"c", b"z")], -1))
        .await
        .unwrap()
        .into_inner();
    must_be_ok(found.header);
    assert_eq!(
        found
            .regions
            .iter()
            .map(|found| found.region.as_ref().unwrap().id)
            .collect::<Vec<_>>(),
        [10, 11]
    );
    let found = client
        .batch_scan_regions(batch(vec![range(b"", b"")], 1))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(found.regions.len(), 1);
    let mut beats = client
        .region_heartbeat(futures::stream::iter([beat(region(12, b"p", b"", 2))]))
        .await
        .unwrap()
        .into_inner();
    assert!(beats.next().await.is_none(), "nothing to tell");
    let gap = client
        .batch_scan_regions(batch(vec![range(b"", b"")], -1))
        .await
        .unwrap()
        .into_inner();
    must_fail(gap.header, ErrorType::RegionsNotContainAllKeyRange);
}

fn beat(region: metapb::Region) -> RegionHeartbeatRequest {
    let leader = region.peers.first().cloned();
    RegionHeartbeatRequest {
        header: header(),
        region: Some(region),
        leader,
        term: 6,
        ..RegionHeartbeatRequest::default()
    }
}

#[tokio::test]
async fn queries_answer_many_lookups_in_order() {
    let (_pd, mut client) = must_start().await;
    let keys = |keys: &[&'static [u8]]| keys.iter().map(|key| Bytes::from_static(key)).collect::<Vec<_>>();
    let query = QueryRegionRequest {
        header: header(),
        ids: vec![11, 99],
        keys: keys(&[b"z", b"a", b"y"]),
        prev_keys: keys(&[b"a", b"z"]),
        need_buckets: false,
    };
    let mut answers = client
        .query_region(futures::stream::iter([query.clone(), query]))
        .await
        .unwrap()
        .into_inner();
    for _ in 0..2 {
        let answer = answers.next().await.unwrap().unwrap();
        must_be_ok(answer.header);
        assert_eq!(answer.key_id_map, [11, 10, 11]);
        assert_eq!(answer.prev_key_id_map, [0, 10]);
        assert_eq!(answer.regions_by_id.keys().copied().collect::<Vec<_>>(), [10, 11]);
        assert_eq!(answer.regions_by_id[&10].leader, Some(peer(110, 1)));
    }
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn heartbeats_are_answered_by_operators_and_refusals() {
    let (_pd, mut client) = must_start().await;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let mut answers = client
        .region_heartbeat(ReceiverStream::new(receiver))
        .await
        .unwrap()
        .into_inner();
    sender.send(beat(region(11, b"m", b"", 2))).await.unwrap();
    sender.send(beat(region(11, b"m", b"", 1))).await.unwrap();
    let refused = answers.next().await.unwrap().unwrap();
    assert_eq!(refused.region_id, 11);
    let text = must_fail(refused.header, ErrorType::Unknown);
    assert!(text.contains("is stale"), "{text}");
    for _ in 0..2 {
        client
            .put_store(PutStoreRequest {
                header: header(),
                store: Some(store(2)),
            })
            .await
            .unwrap();
    }
    let asked = answers.next().await.unwrap().unwrap();
    must_be_ok(asked.header);
    assert_eq!(
        (asked.region_id, asked.change_peer),
        (0, None),
        "a new store asks for heartbeats, once"
    );
    sender.send(beat(region(11, b"m", b"", 2))).await.unwrap();
    let told = answers.next().await.unwrap().unwrap();
    must_be_ok(told.header.clone());
    let change = told.change_peer.unwrap();
    assert_eq!(
        (told.region_id, told.target_peer, change.change_type()),
        (11, Some(peer(111, 1)), ConfChangeType::AddLearnerNode)
    );
    assert_eq!(operator_of_wire(&told), Some(pd::Operator::AddLearner(change.peer.unwrap())));
    drop(sender);
    assert!(answers.next().await.is_none(), "the stream ends with the heartbeats");
}

#[tokio::test]
async fn configuration_operators_and_unknown_rpcs() {
    let (_pd, mut client) = must_start().await;
    let config = client
        .get_cluster_config(GetClusterConfigRequest { header: header() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        config.cluster,
        Some(metapb::Cluster {
            id: CLUSTER,
            max_peer_count: 3
        })
    );
    let put = |max_peer_count| PutClusterConfigRequest {
        header: header(),
        cluster: Some(metapb::Cluster {
            id: CLUSTER,
            max_peer_count,
        }),
    };
    must_be_ok(client.put_cluster_config(put(5)).await.unwrap().into_inner().header);
    must_fail(
        client.put_cluster_config(put(0)).await.unwrap().into_inner().header,
        ErrorType::InvalidValue,
    );
    let config = client
        .get_cluster_config(GetClusterConfigRequest { header: header() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(config.cluster.unwrap().max_peer_count, 5);
    let operator = client
        .get_operator(GetOperatorRequest {
            header: header(),
            region_id: 10,
        })
        .await
        .unwrap()
        .into_inner();
    must_fail(operator.header, ErrorType::RegionNotFound);
    let recovering = client
        .is_snapshot_recovering(IsSnapshotRecoveringRequest { header: header() })
        .await
        .unwrap()
        .into_inner();
    must_be_ok(recovering.header);
    assert!(!recovering.marked);
    let external = client
        .set_external_timestamp(SetExternalTimestampRequest {
            header: header(),
            ..SetExternalTimestampRequest::default()
        })
        .await;
    assert_eq!(external.unwrap_err().code(), Code::Unimplemented);
    let split = client
        .ask_batch_split(AskBatchSplitRequest {
            header: header(),
            ..AskBatchSplitRequest::default()
        })
        .await;
    assert_eq!(split.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_default_keyspace_and_health_are_there() {
    let (pd, _client) = must_start().await;
    let url = format!("http://{}", pd.address);
    let mut keyspaces = KeyspaceClient::connect(url.clone()).await.unwrap();
    let load = |name: &str| LoadKeyspaceRequest {
        header: header(),
        name: name.to_owned(),
    };
    let found = keyspaces.load_keyspace(load("DEFAULT")).await.unwrap().into_inner();
    must_be_ok(found.header);
    assert_eq!(found.keyspace.unwrap().id, 0);
    let none = keyspaces.load_keyspace(load("other")).await.unwrap().into_inner();
    let text = must_fail(none.header, ErrorType::EntryNotFound);
    assert!(text.contains("ENTRY_NOT_FOUND") && none.keyspace.is_none(), "{text}");
    let all = GetAllKeyspacesRequest {
        header: header(),
        ..GetAllKeyspacesRequest::default()
    };
    assert_eq!(
        keyspaces.get_all_keyspaces(all).await.unwrap().into_inner().keyspaces.len(),
        1
    );
    let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let told = health
        .check(tonic_health::pb::HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(told.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);
}

#[tokio::test]
async fn what_was_acknowledged_outlives_the_process() {
    let (pd, mut client) = must_start().await;
    let before = client
        .get_min_ts(GetMinTsRequest { header: header() })
        .await
        .unwrap()
        .into_inner()
        .timestamp
        .unwrap();
    let ids = client
        .alloc_id(AllocIdRequest {
            header: header(),
            count: 1,
        })
        .await
        .unwrap()
        .into_inner();
    let (dir, _) = pd.stop().await;
    let pd = TestPd::start_in(dir, "127.0.0.1:0".parse().unwrap()).await;
    let mut client = pd.client().await;
    let after = client
        .get_min_ts(GetMinTsRequest { header: header() })
        .await
        .unwrap()
        .into_inner()
        .timestamp
        .unwrap();
    assert!((after.physical, after.logical) > (before.physical, before.logical));
    assert!(
        client
            .alloc_id(AllocIdRequest {
                header: header(),
                count: 1
            })
            .await
            .unwrap()
            .into_inner()
            .id
            > ids.id
    );
    let key = GetRegionRequest {
        header: header(),
        region_key: Bytes::from_static(b"n"),
        need_buckets: false,
    };
    let found = client.get_region(key).await.unwrap().into_inner();
    assert_eq!(
        (found.region.unwrap().id, found.leader),
        (11, Some(peer(111, 1))),
        "before any heartbeat"
    );
}

/// Prints how fast timestamps flow; run with `--nocapture` to see. The bound is low: it is there to find a mistake, not a slow day.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timestamps_flow_fast() {
    let pd = TestPd::start().await;
    for (count, streams, requests) in [(64_u32, 4, 5_000), (1, 4, 5_000)] {
        let started = MonoTime::now();
        let runs = (0..streams).map(|_| async {
            let request = move |_| TsoRequest {
                header: header(),
                count,
                ..TsoRequest::default()
            };
            let mut client = pd.client().await;
            let answers = client
                .tso(futures::stream::iter(0..requests).map(request))
                .await
                .unwrap()
                .into_inner();
            answers
                .map(|answer| answer.unwrap().count as u64)
                .fold(0, async |sum, count| sum + count)
                .await
        });
        let told: u64 = futures::future::join_all(runs).await.into_iter().sum();
        let per_second = told as f64 / MonoTime::now().since(started).as_secs_f64();
        println!("tso: {streams} streams, batches of {count}: {per_second:.0} timestamps/s");
        assert_eq!(told, u64::from(count) * streams * requests);
        assert!(per_second > 1_000.0, "{per_second:.0} timestamps/s");
    }
}
