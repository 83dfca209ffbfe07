//! The registry's `tikv-client` 0.4.
//!
//! Scans ask for as many pairs as there are: see the note in `raw_client.rs`.

use tikv_client::{Backoff, Error, KvPair, RetryOptions, Timestamp, TimestampExt, TransactionClient, TransactionOptions};

use super::{Setup, must_become};

type Pairs = Vec<(String, String)>;

fn text(pairs: impl IntoIterator<Item = KvPair>) -> Pairs {
    let string = |bytes: Vec<u8>| String::from_utf8(bytes).expect("tests put text");
    let pair = |pair: KvPair| (string(Vec::from(pair.key().clone())), string(pair.value().clone()));
    let mut pairs: Pairs = pairs.into_iter().map(pair).collect();
    pairs.sort();
    pairs
}

fn owned(pairs: &[(&str, &str)]) -> Pairs {
    pairs
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    Some(text.as_bytes().to_vec())
}

/// Patient with locks: their holders are dead, and it takes three seconds until that shows.
fn patient() -> RetryOptions {
    let backoff = || Backoff::no_jitter_backoff(2, 500, 30);
    RetryOptions {
        region_backoff: backoff(),
        lock_backoff: backoff(),
    }
}

fn optimistic() -> TransactionOptions {
    TransactionOptions::new_optimistic().retry_options(patient())
}

fn pessimistic() -> TransactionOptions {
    TransactionOptions::new_pessimistic().retry_options(patient())
}

/// Every way in which the client commits.
fn ways() -> [(&'static str, TransactionOptions); 6] {
    [
        ("optimistic", optimistic()),
        ("optimistic, async commit", optimistic().use_async_commit()),
        ("optimistic, one phase", optimistic().try_one_pc()),
        ("pessimistic", pessimistic()),
        ("pessimistic, async commit", pessimistic().use_async_commit()),
        ("both", optimistic().use_async_commit().try_one_pc()),
    ]
}

async fn must_write(client: &TransactionClient, way: TransactionOptions, pairs: &[(&str, &str)]) -> Timestamp {
    let mut txn = client.begin_with_options(way).await.expect("begin");
    for (key, value) in pairs {
        txn.put(key.to_string(), value.to_string()).await.expect("put");
    }
    txn.commit().await.expect("commit").expect("something was written")
}

async fn now(client: &TransactionClient) -> Timestamp {
    client.current_timestamp().await.expect("timestamp")
}

async fn get_at(client: &TransactionClient, ts: Timestamp, key: &str) -> Option<Vec<u8>> {
    client.snapshot(ts, optimistic()).get(key.to_string()).await.expect("get")
}

/// In one region and over three, and what snapshots before and after see.
async fn commits(client: &TransactionClient) {
    for (round, (way, options)) in ways().into_iter().enumerate() {
        let value = &*format!("v{round}");
        for pairs in [
            vec![("a", value), ("b", value)],
            vec![("a", value), ("h", value), ("z", value)],
        ] {
            let before = now(client).await;
            must_write(client, options.clone(), &pairs).await;
            let after = now(client).await;
            for (key, _) in &pairs {
                assert_eq!(get_at(client, after.clone(), key).await, bytes(value), "{way}");
            }
            if pairs.len() == 2 {
                assert_ne!(
                    get_at(client, before, "a").await,
                    bytes(value),
                    "{way}: a snapshot does not move"
                );
            }
        }
    }
}

async fn reads(client: &TransactionClient) {
    let all = [("c", "1"), ("d", "2"), ("i", "3"), ("j", "4"), ("q", "5"), ("r", "6")];
    must_write(client, optimistic(), &all).await;
    let mut snapshot = client.snapshot(now(client).await, optimistic());
    let range = || "c".to_owned().."s".to_owned();
    // Whatever other cases wrote between.
    let among = |pairs: Pairs| pairs.into_iter().filter(|pair| owned(&all).contains(pair)).collect::<Pairs>();
    let scanned: Vec<KvPair> = snapshot.scan(range(), 6).await.expect("scan").collect();
    assert!(scanned.is_sorted_by(|a, b| a.key() < b.key()));
    assert_eq!(scanned.len(), 6);
    let found = text(snapshot.scan(range(), 7).await.expect("scan"));
    assert_eq!(among(found), owned(&all));
    let found: Vec<KvPair> = snapshot.scan_reverse(range(), 7).await.expect("scan").collect();
    assert!(found.is_sorted_by(|a, b| a.key() > b.key()));
    assert_eq!(among(text(found)), owned(&all));
    let keys = ["r", "c", "absent", "i"].map(String::from);
    let found = text(snapshot.batch_get(keys).await.expect("batch get"));
    assert_eq!(found, owned(&[("c", "1"), ("i", "3"), ("r", "6")]));
    assert!(snapshot.key_exists("d".to_owned()).await.expect("exists"));
    let keys = snapshot.scan_keys(range(), 7).await.expect("scan of keys");
    assert_eq!(keys.count(), 7);

    let mut txn = client.begin_with_options(optimistic()).await.expect("begin");
    txn.put("k".to_owned(), "mine").await.expect("put");
    txn.delete("d".to_owned()).await.expect("delete");
    assert_eq!(txn.get("k".to_owned()).await.expect("get"), bytes("mine"));
    assert_eq!(txn.get("d".to_owned()).await.expect("get"), None);
    txn.rollback().await.expect("rollback");
    assert_eq!(get_at(client, now(client).await, "d").await, bytes("2"));
}

async fn conflicts(client: &TransactionClient) {
    let mut first = client.begin_with_options(optimistic()).await.expect("begin");
    first.put("conflict".to_owned(), "first").await.expect("put");
    must_write(client, optimistic(), &[("conflict", "second")]).await;
    let error = first.commit().await.expect_err("somebody was faster");
    assert!(format!("{error:?}").contains("conflict"), "{error:?}");
    assert_eq!(get_at(client, now(client).await, "conflict").await, bytes("second"));
    // Insert of a key that is there.
    let mut txn = client.begin_with_options(optimistic()).await.expect("begin");
    txn.insert("conflict".to_owned(), "third").await.expect("insert");
    let error = txn.commit().await.expect_err("is there");
    assert!(format!("{error:?}").contains("already_exist"), "{error:?}");
    let mut txn = client.begin_with_options(pessimistic()).await.expect("begin");
    let error = txn.insert("conflict".to_owned(), "third").await.expect_err("is there");
    assert!(
        matches!(
            error,
            Error::DuplicateKeyInsertion | Error::KeyError(_) | Error::PessimisticLockError { .. }
        ),
        "{error:?}"
    );
    txn.rollback().await.expect("rollback");
}

/// Two increments of each of four clients: none is lost.
async fn pessimistic_locks(client: &TransactionClient) {
    must_write(client, optimistic(), &[("count", "0"), ("hcount", "0")]).await;
    let increment = |client: TransactionClient| async move {
        let mut txn = client.begin_with_options(pessimistic()).await?;
        for key in ["count", "hcount"] {
            let value = match txn.get_for_update(key.to_owned()).await {
                Ok(value) => value.expect("is there"),
                Err(error) => {
                    txn.rollback().await?;
                    return Err(error);
                }
            };
            let value: u64 = String::from_utf8_lossy(&value).parse().expect("a number");
            txn.put(key.to_owned(), (value + 1).to_string()).await?;
        }
        txn.commit().await
    };
    let tasks = (0..4).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            for _ in 0..2 {
                while let Err(error) = increment(client.clone()).await {
                    // The client hands on that somebody was faster; everything else is a failure.
                    assert!(format!("{error:?}").contains("onflict"), "{error:?}");
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("increments");
    }
    let now = now(client).await;
    assert_eq!(get_at(client, now.clone(), "count").await, bytes("8"));
    assert_eq!(get_at(client, now, "hcount").await, bytes("8"));
}

async fn collection(client: &TransactionClient) {
    must_write(client, optimistic(), &[("old", "1")]).await;
    let before = now(client).await;
    must_write(client, optimistic(), &[("old", "2")]).await;
    assert_eq!(get_at(client, before.clone(), "old").await, bytes("1"));
    let safe_point = now(client).await;
    assert!(
        client.gc(safe_point.clone()).await.expect("gc"),
        "the safe point is where it was wished"
    );
    assert_eq!(get_at(client, safe_point, "old").await, bytes("2"));
    must_become("an old version is collected", async || {
        let mut snapshot = client.snapshot(Timestamp::from_version(before.version()), optimistic());
        matches!(snapshot.get("old".to_owned()).await, Ok(None))
    })
    .await;
    let now = now(client).await;
    assert_eq!(get_at(client, now, "old").await, bytes("2"));
}

/// Each of the quicker ways is taken when it is asked for, and not when it is not.
async fn quicker_ways(setup: &Setup, client: &TransactionClient) {
    let cases = [
        (optimistic(), "ordinary", vec![("a", "w"), ("z", "w")]),
        (optimistic().use_async_commit(), "async", vec![("a", "w"), ("z", "w")]),
        (optimistic().try_one_pc(), "one-phase", vec![("a", "w"), ("b", "w")]),
    ];
    for (options, wanted, pairs) in cases {
        let ways = ["ordinary", "async", "one-phase"];
        let before = ways.map(|way| setup.prewrites(way));
        must_write(client, options, &pairs).await;
        for (way, before) in ways.into_iter().zip(before) {
            assert_eq!(setup.prewrites(way) > before, way == wanted, "{way} for {wanted}");
        }
    }
}

async fn whole_api(setup: &Setup) {
    let client = &setup.registry().await;
    quicker_ways(setup, client).await;
    commits(client).await;
    reads(client).await;
    conflicts(client).await;
    pessimistic_locks(client).await;
    collection(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_api_v1() {
    whole_api(&Setup::v1()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_api_v2() {
    whole_api(&Setup::v2()).await;
}
