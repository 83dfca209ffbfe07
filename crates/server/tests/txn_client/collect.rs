//! Old versions go by themselves, locks that stand in the way with them, until a client says that this is its own business.

use std::time::Duration;

use base::Ts;
use client::{Api, ClientOptions, Keyspace, TxnClient, TxnOptions};
use proto::pdpb;
use proto::pdpb::pd_client::PdClient;

use super::{PATIENCE, Setup, must_become};

async fn put(client: &TxnClient, value: &'static str) -> Ts {
    let mut txn = client.begin(TxnOptions::default()).await.expect("begin");
    txn.put("k", value).await.expect("put");
    txn.commit().await.expect("commit").expect("something was written")
}

fn header(client: &TxnClient) -> Option<pdpb::RequestHeader> {
    Some(pdpb::RequestHeader {
        cluster_id: client.pd().cluster_id(),
        ..Default::default()
    })
}

async fn gc_safe_point(client: &TxnClient, pd: &mut PdClient<tonic::transport::Channel>) -> Ts {
    let request = pdpb::GetGcSafePointRequest { header: header(client) };
    let answer = pd.get_gc_safe_point(request).await.expect("the placement driver answers");
    Ts(answer.into_inner().safe_point)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_versions_go_by_themselves() {
    let setup = Setup::start_with(Api::V2(Keyspace::Id(0)), "gc-life-time = \"1s\"");
    let client = setup.own().await;
    // Beside the keyspaces live the keys of TiDB, whose locks must be ended as well.
    let options = ClientOptions {
        deadline: PATIENCE,
        ..Default::default()
    };
    let tidb = TxnClient::connect(&setup.cluster.endpoints(), options)
        .await
        .expect("connect");
    for (client, key) in [(&client, "left"), (&tidb, "t_left")] {
        let mut left = client.begin(TxnOptions::pessimistic()).await.expect("begin");
        left.get_for_update(key).await.expect("lock");
        // Its locks stay, and its heart beats on: only collection ends it.
        std::mem::forget(left);
    }
    let old = put(&client, "old").await;
    let new = put(&client, "new").await;
    must_become("the old version is collected", async || {
        matches!(client.snapshot(old).get("k").await, Ok(None))
    })
    .await;
    assert_eq!(client.snapshot(Ts::MAX).get("k").await.expect("get"), Some("new".into()));
    for (client, range) in [(&client, ""..""), (&tidb, "t".."u")] {
        assert_eq!(
            client.resolve_locks(range, new).await.expect("look for locks"),
            0,
            "a lock was left"
        );
    }

    let endpoint = format!("http://{}", setup.cluster.endpoints()[0]);
    let mut pd = PdClient::connect(endpoint).await.expect("connect");
    let gc_worker = pdpb::UpdateServiceGcSafePointRequest {
        header: header(&client),
        service_id: "gc_worker".into(),
        ttl: i64::MAX,
        safe_point: new.0,
    };
    pd.update_service_gc_safe_point(gc_worker)
        .await
        .expect("the placement driver answers");
    // What a round that was under way still did; then nothing any more, for as long as two rounds take.
    let mut stands = gc_safe_point(&client, &mut pd).await;
    must_become("the safe point stands", async || {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = std::mem::replace(&mut stands, gc_safe_point(&client, &mut pd).await);
        before == stands
    })
    .await;
    let snapshot = put(&client, "newer").await;
    put(&client, "newest").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(client.snapshot(snapshot).get("k").await.expect("get"), Some("newer".into()));
}
