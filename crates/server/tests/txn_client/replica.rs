//! Reads away from the leader: every copy of a region is asked, by the wire, for what was just committed and for what was long ago.

use base::{MonoTime, Ts};
use bytes::Bytes;
use client::{ReadFrom, ScanOptions, TxnClient, TxnOptions};
use futures::TryStreamExt;
use proto::kvrpcpb::{self, Context, GetRequest, GetResponse, KvPair, ScanRequest, StoreSafeTsRequest};
use proto::metapb::{Peer, Region};
use proto::pdpb::pd_client::PdClient;
use proto::pdpb::{GetMembersRequest, GetRegionRequest, GetStoreRequest, RequestHeader};
use proto::tikvpb::tikv_client::TikvClient;
use tonic::transport::Channel;

use super::{Setup, must_become};
use crate::common::PATIENCE;

/// How a copy is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Leader,
    Replica,
    Stale,
}

/// A region with a connection to each of its copies, the leader's first.
struct Copies {
    region: Region,
    peers: Vec<(Peer, TikvClient<Channel>)>,
}

impl Copies {
    async fn of(setup: &Setup, key: &str) -> Copies {
        let endpoint = format!("http://{}", setup.cluster.endpoints()[0]);
        let mut pd = PdClient::connect(endpoint).await.expect("connect");
        let members = pd
            .get_members(GetMembersRequest::default())
            .await
            .expect("members")
            .into_inner();
        let header = Some(RequestHeader {
            cluster_id: members.header.expect("a header").cluster_id,
            ..Default::default()
        });
        let request = GetRegionRequest {
            header: header.clone(),
            region_key: base::codec::encode_bytes(key.as_bytes()).into(),
            ..Default::default()
        };
        let found = pd.get_region(request).await.expect("region").into_inner();
        let (region, leader) = (found.region.expect("there"), found.leader.expect("led"));
        let mut peers = Vec::new();
        for peer in &region.peers {
            let store_id = peer.store_id;
            let request = GetStoreRequest {
                header: header.clone(),
                store_id,
            };
            let store = pd.get_store(request).await.expect("store").into_inner().store.expect("there");
            let client = TikvClient::connect(format!("http://{}", store.address))
                .await
                .expect("connect");
            peers.push((*peer, client));
        }
        peers.sort_by_key(|(peer, _)| peer.id != leader.id);
        Copies { region, peers }
    }

    fn context(&self, copy: usize, way: Way) -> Option<Context> {
        Some(Context {
            region_id: self.region.id,
            region_epoch: self.region.region_epoch,
            peer: Some(self.peers[copy].0),
            replica_read: way == Way::Replica,
            stale_read: way == Way::Stale,
            ..Default::default()
        })
    }

    async fn get(&mut self, copy: usize, way: Way, key: &str, ts: Ts) -> GetResponse {
        let request = GetRequest {
            context: self.context(copy, way),
            key: Bytes::copy_from_slice(key.as_bytes()),
            version: ts.0,
            ..Default::default()
        };
        self.peers[copy].1.kv_get(request).await.expect("answers").into_inner()
    }

    /// Tries again while the copy is not ready.
    async fn must_get(&mut self, copy: usize, way: Way, key: &str, ts: Ts) -> String {
        let deadline = MonoTime::now() + PATIENCE;
        loop {
            let answer = self.get(copy, way, key, ts).await;
            if answer.region_error.is_none() && answer.error.is_none() {
                return String::from_utf8_lossy(&answer.value).into_owned();
            }
            assert!(MonoTime::now() < deadline, "copy {copy}, {way:?}: {answer:?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

async fn write(client: &TxnClient, options: TxnOptions, key: &'static str, value: String) -> Ts {
    let mut txn = client.begin(options).await.expect("begin");
    txn.put(key, value).await.expect("put");
    txn.commit().await.expect("commit").expect("something was written")
}

/// What a commit acknowledged is in every copy's answer to a read that begins afterwards, and no copy shows more to a read of before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_copy_answers() {
    let setup = Setup::v1();
    let client = setup.own().await;
    let mut copies = Copies::of(&setup, "a").await;
    let mut written = Vec::new();
    for round in 0..60 {
        let options = match round % 3 {
            0 => TxnOptions::default(),
            1 => TxnOptions::two_phase(),
            _ => TxnOptions::pessimistic(),
        };
        let value = format!("v{round}");
        let commit_ts = write(&client, options, "a", value.clone()).await;
        let now = client.pd().timestamp().await.expect("timestamp");
        for copy in 0..3 {
            assert_eq!(copies.must_get(copy, Way::Replica, "a", now).await, value, "copy {copy}");
            let before = copies.must_get(copy, Way::Replica, "a", Ts(commit_ts.0 - 1)).await;
            assert_eq!(
                before,
                written.last().map_or("", |(_, value): &(Ts, String)| value),
                "copy {copy}"
            );
        }
        written.push((commit_ts, value));
    }
    let refused = copies.get(1, Way::Leader, "a", Ts::MAX).await;
    let error = refused.region_error.expect("a follower says who leads");
    assert_eq!(error.not_leader.expect("that").leader, Some(copies.peers[0].0));

    // Our client spreads such reads over all stores, and asks the leader where a copy is not ready.
    let answered = |node: usize| setup.cluster.nodes[node].metric("ferrite_server_request_seconds_count{rpc=\"kv_get\"}");
    let before: Vec<f64> = setup.cluster.stores().into_iter().map(answered).collect();
    for from in [ReadFrom::Replica, ReadFrom::Stale] {
        for (ts, value) in &written {
            let snapshot = client.snapshot(*ts).read_from(from);
            assert_eq!(snapshot.get("a").await.expect("get"), Some(value.clone().into()));
        }
        let latest = client.snapshot(now_of(&client).await).read_from(from);
        let last = vec![("a".to_owned(), "v59".to_owned())];
        assert_eq!(text(latest.batch_get(["a", "h"]).await.expect("batch get")), last);
        let pairs = latest.scan(.., ScanOptions::default()).try_collect::<Vec<_>>().await;
        assert_eq!(text(pairs.expect("scan")), last);
    }
    for (node, before) in setup.cluster.stores().into_iter().zip(before) {
        let more = answered(node) - before;
        assert!(more >= 20.0, "store {node} served {more} of 120");
    }

    // A scan by a follower, and a batch of gets.
    let now = client.pd().timestamp().await.expect("timestamp");
    let request = ScanRequest {
        context: copies.context(1, Way::Replica),
        start_key: Bytes::from_static(b"a"),
        end_key: Bytes::from_static(b"b"),
        limit: 10,
        version: now.0,
        ..Default::default()
    };
    let scanned = copies.peers[1].1.kv_scan(request).await.expect("answers").into_inner();
    assert_eq!(values(&scanned.pairs), ["v59"], "{:?}", scanned.region_error);
    let request = kvrpcpb::BatchGetRequest {
        context: copies.context(2, Way::Replica),
        keys: vec![Bytes::from_static(b"a"), Bytes::from_static(b"absent")],
        version: now.0,
        ..Default::default()
    };
    let found = copies.peers[2].1.kv_batch_get(request).await.expect("answers").into_inner();
    assert_eq!(values(&found.pairs), ["v59"], "{:?}", found.region_error);

    // Each moment of the past, by copies that ask the leader once in a while.
    for (commit_ts, value) in &written {
        for copy in 0..3 {
            assert_eq!(
                copies.must_get(copy, Way::Stale, "a", *commit_ts).await,
                *value,
                "copy {copy}"
            );
        }
    }
    let future = Ts::compose(now.physical_ms() + 60_000, 0);
    let refused = copies
        .get(1, Way::Stale, "a", future)
        .await
        .region_error
        .expect("not over yet");
    let not_ready = refused.data_is_not_ready.expect("that");
    assert!(
        not_ready.safe_ts > written[59].0.0 && not_ready.safe_ts < future.0,
        "{not_ready:?}"
    );
}

async fn now_of(client: &TxnClient) -> Ts {
    client.pd().timestamp().await.expect("timestamp")
}

fn text(pairs: Vec<client::Pair>) -> Vec<(String, String)> {
    let string = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    pairs.iter().map(|(key, value)| (string(key), string(value))).collect()
}

fn values(pairs: &[KvPair]) -> Vec<String> {
    pairs
        .iter()
        .map(|pair| String::from_utf8_lossy(&pair.value).into_owned())
        .collect()
}

/// A lock holds a region's time back; a copy that knows a time to be over serves it although the leader is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_reads_outlive_the_leader_and_wait_for_locks() {
    let mut setup = Setup::v1();
    let client = setup.own().await;
    let commit_ts = write(&client, TxnOptions::default(), "a", "old".to_owned()).await;
    let mut copies = Copies::of(&setup, "a").await;

    // Prewritten and left: from its start on nothing is known to be over.
    let start_ts = client.pd().timestamp().await.expect("timestamp");
    let mutation = kvrpcpb::Mutation {
        op: kvrpcpb::Op::Put.into(),
        key: Bytes::from_static(b"ab"),
        value: Bytes::from_static(b"v"),
        ..Default::default()
    };
    let prewrite = kvrpcpb::PrewriteRequest {
        context: copies.context(0, Way::Leader),
        mutations: vec![mutation],
        primary_lock: Bytes::from_static(b"ab"),
        start_version: start_ts.0,
        lock_ttl: 60_000,
        ..Default::default()
    };
    let answer = copies.peers[0].1.kv_prewrite(prewrite).await.expect("answers").into_inner();
    assert!(answer.region_error.is_none() && answer.errors.is_empty(), "{answer:?}");
    assert_eq!(copies.must_get(1, Way::Stale, "a", commit_ts).await, "old");
    let later = client.pd().timestamp().await.expect("timestamp");
    let refused = copies
        .get(1, Way::Stale, "a", later)
        .await
        .region_error
        .expect("a lock is in the way");
    assert_eq!(refused.data_is_not_ready.expect("that").safe_ts, start_ts.0 - 1);
    let commit = kvrpcpb::CommitRequest {
        context: copies.context(0, Way::Leader),
        start_version: start_ts.0,
        keys: vec![Bytes::from_static(b"ab")],
        commit_version: client.pd().timestamp().await.expect("timestamp").0,
        ..Default::default()
    };
    let answer = copies.peers[0].1.kv_commit(commit).await.expect("answers").into_inner();
    assert!(answer.region_error.is_none() && answer.error.is_none(), "{answer:?}");
    for copy in [1, 2] {
        assert_eq!(copies.must_get(copy, Way::Stale, "a", later).await, "old");
    }
    let answer = copies.peers[1].1.get_store_safe_ts(StoreSafeTsRequest::default()).await;
    assert_eq!(
        answer.expect("answers").into_inner().safe_ts,
        0,
        "its other regions are not known"
    );

    // All stores are killed but one that follows.
    let stores: Vec<usize> = setup.cluster.stores();
    let leader = copies.peers[0].0.store_id;
    let keep = copies.peers[1].0.store_id;
    assert_ne!(leader, keep);
    let kept = setup.node_of(keep);
    for node in stores {
        if node != kept {
            setup.cluster.nodes[node].kill();
        }
    }
    let answer = copies.get(1, Way::Stale, "a", later).await;
    assert_eq!((answer.value, answer.region_error), (Bytes::from_static(b"old"), None));
    must_become("a replica read wants the leader", async || {
        copies.get(1, Way::Replica, "a", later).await.region_error.is_some()
    })
    .await;
}
