//! Every call of the raw API, against a plain map.

use std::collections::BTreeMap;

use bytes::Bytes;
use client::{Checksum, Error, KeyRange, Pair, RawClient, ScanOptions, Swap, Ttl};
use futures::TryStreamExt;

const PAIRS: usize = 3000;

fn key(number: usize) -> String {
    format!("key-{number:05}")
}

async fn scan(client: &RawClient, range: impl Into<KeyRange>, options: ScanOptions) -> Vec<Pair> {
    client.scan(range, options).try_collect().await.expect("scan")
}

/// Leaves the cluster empty, as it must be before. The store puts `prefix` bytes before each key.
pub async fn whole_api(client: &RawClient, prefix: usize) {
    batches(client).await;
    scans(client, prefix).await;
    swaps(client).await;
    times_to_live(client).await;
    many_at_once(client).await;
    client.delete_range(..).await.expect("delete range");
    assert_eq!(scan(client, .., ScanOptions::default()).await, []);
    assert_eq!(client.checksum(..).await.expect("checksum"), Checksum::default());
}

async fn batches(client: &RawClient) {
    assert_eq!(scan(client, .., ScanOptions::default()).await, [], "the cluster is empty");
    client
        .batch_put((0..PAIRS).map(|n| (key(n), format!("value {n}"))))
        .await
        .expect("batch put");
    let found = client.batch_get([7, 2999, 7, 4000].map(key)).await.expect("batch get");
    let wanted = [7, 2999].map(|n| (Bytes::from(key(n)), Bytes::from(format!("value {n}"))));
    assert_eq!(found, wanted);
    client.put("single", vec![0, 255]).await.expect("put");
    assert_eq!(client.get("single").await.expect("get"), Some(vec![0, 255].into()));
    client.delete("single").await.expect("delete");
    assert_eq!(client.get("single").await.expect("get"), None);
}

async fn scans(client: &RawClient, prefix: usize) {
    let model: BTreeMap<Bytes, Bytes> = (0..PAIRS).map(|n| (key(n).into(), format!("value {n}").into())).collect();
    let forward: Vec<Pair> = model.into_iter().collect();
    let backward: Vec<Pair> = forward.iter().rev().cloned().collect();
    let reverse = ScanOptions {
        reverse: true,
        ..Default::default()
    };
    for client in [client, &client.with_replica_reads()] {
        assert_eq!(scan(client, .., ScanOptions::default()).await, forward);
        assert_eq!(scan(client, .., reverse).await, backward);
        assert_eq!(client.get(key(7)).await.expect("get").as_ref(), Some(&forward[7].1));
    }
    let part = || KeyRange::from(key(100)..key(2000));
    assert_eq!(scan(client, part(), ScanOptions::default()).await, forward[100..2000]);
    assert_eq!(
        scan(client, part(), ScanOptions { limit: 1500, ..reverse }).await,
        backward[1000..2500]
    );
    let keys = scan(
        client,
        KeyRange::prefix("key-0299"),
        ScanOptions {
            keys_only: true,
            ..Default::default()
        },
    )
    .await;
    assert_eq!(keys.len(), 10);
    assert!(keys.iter().all(|(_, value)| value.is_empty()));

    let sum = client.checksum(part()).await.expect("checksum");
    let bytes: usize = forward[100..2000]
        .iter()
        .map(|(key, value)| prefix + key.len() + value.len())
        .sum();
    assert_eq!((sum.pairs, sum.bytes), (1900, bytes as u64));
    client.delete_range(part()).await.expect("delete range");
    assert_eq!(scan(client, .., ScanOptions::default()).await.len(), PAIRS - 1900);
    client.batch_delete((0..100).map(key)).await.expect("batch delete");
    assert_eq!(scan(client, .., ScanOptions::default()).await.len(), PAIRS - 2000);
}

async fn swaps(client: &RawClient) {
    let cases = [
        (None, Some("1"), true, None),
        (None, Some("2"), false, Some("1")),
        (Some("1"), Some("2"), true, Some("1")),
        (Some("2"), None, true, Some("2")),
    ];
    for (expected, new, done, previous) in cases {
        let swap = client.compare_and_swap("swap", expected.map(Bytes::from), new.map(Bytes::from));
        let previous = previous.map(Bytes::from);
        assert_eq!(swap.await.expect("swap"), Swap { done, previous });
    }
    assert_eq!(client.get("swap").await.expect("get"), None);
}

/// Stores that keep TTLs tell them; others refuse the call instead of losing it.
async fn times_to_live(client: &RawClient) {
    match client.ttl("nowhere").await {
        Ok(none) => {
            assert_eq!(none, None);
            client
                .put_with_ttl("short", "v", std::time::Duration::from_secs(1000))
                .await
                .expect("put");
            client.put("long", "v").await.expect("put");
            let left = client.ttl("short").await.expect("ttl");
            assert!(
                matches!(left, Some(Ttl::Left(left)) if left.as_secs() > 900 && left.as_secs() <= 1000),
                "{left:?}"
            );
            assert_eq!(client.ttl("long").await.expect("ttl"), Some(Ttl::Forever));
        }
        Err(refused) => {
            assert!(matches!(refused, Error::Refused { .. } | Error::Rpc { .. }), "{refused:?}");
            let put = client
                .put_with_ttl("short", "v", std::time::Duration::from_secs(1000))
                .await
                .expect_err("refused");
            assert!(matches!(put, Error::Refused { .. }), "{put:?}");
        }
    }
}

async fn many_at_once(client: &RawClient) {
    let before = client.pd().timestamp().await.expect("timestamp");
    let calls = (0..500).map(|n| async move {
        client.put(format!("many-{n}"), format!("{n}")).await?;
        client.get(format!("many-{n}")).await
    });
    let values = futures::future::try_join_all(calls).await.expect("all served");
    assert!(
        values
            .iter()
            .enumerate()
            .all(|(n, value)| *value == Some(n.to_string().into())),
        "an answer went astray"
    );
    assert!(client.pd().timestamp().await.expect("timestamp") > before);
}
