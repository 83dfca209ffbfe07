//! Clients that are killed in the middle of a commit, with SIGKILL, in processes of their own: this test binary, started again.

use std::process::{Child, Command, Stdio};

use base::Ts;
use client::{Hint, ScanOptions, TxnClient, TxnOptions};
use futures::TryStreamExt;
use tikv_client::TransactionOptions;

use super::Setup;

/// What makes this binary a victim: the endpoint, and how it commits.
const ENDPOINT: &str = "FERRITE_TEST_VICTIM_ENDPOINT";
const WAY: &str = "FERRITE_TEST_VICTIM_WAY";
/// Keys of its transaction, in each of the regions: many requests, so that there is time to be killed between them.
const KEYS: usize = 3000;
const FIRST: [&str; 3] = ["a", "h", "q"];
/// Tries until one victim was killed in between.
const VICTIMS: usize = 20;

fn key(region: usize, number: usize) -> String {
    format!("{}victim{number:05}", FIRST[region])
}

fn keys() -> impl Iterator<Item = String> {
    (0..FIRST.len()).flat_map(|region| (0..KEYS).map(move |number| key(region, number)))
}

/// Not a test by itself: what the victim does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let (Ok(endpoint), Ok(way)) = (std::env::var(ENDPOINT), std::env::var(WAY)) else {
        return;
    };
    let value = std::process::id().to_string();
    if way == "own" {
        let client = TxnClient::connect(&[endpoint], Default::default()).await.expect("connect");
        let mut txn = client.begin(TxnOptions::two_phase()).await.expect("begin");
        txn.batch_put(keys().map(|key| (key, value.clone()))).await.expect("put");
        txn.commit().await.expect("commit");
        return;
    }
    let client = tikv_client::TransactionClient::new(vec![endpoint]).await.expect("connect");
    let options = match way.as_str() {
        "optimistic" => TransactionOptions::new_optimistic(),
        "async" => TransactionOptions::new_optimistic().use_async_commit(),
        other => panic!("no such way: {other}"),
    };
    let mut txn = client.begin_with_options(options).await.expect("begin");
    for key in keys() {
        txn.put(key, value.clone()).await.expect("put");
    }
    txn.commit().await.expect("commit");
}

fn start_victim(setup: &Setup, way: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "dead::victim", "--nocapture"]);
    command.env(ENDPOINT, &setup.cluster.endpoints()[0]).env(WAY, way);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the binary runs")
}

/// Kills a victim as soon as one of its locks is seen. Whether it left any.
async fn kill_in_between(setup: &Setup, registry: &tikv_client::TransactionClient, way: &str) -> bool {
    let mut victim = start_victim(setup, way);
    let locks = async || {
        let now = registry.current_timestamp().await.expect("timestamp");
        registry
            .scan_locks(&now, "a".to_owned().., 1024)
            .await
            .expect("scan locks")
            .len()
    };
    while locks().await == 0 && victim.try_wait().expect("a child can be waited for").is_none() {
        tokio::task::yield_now().await;
    }
    victim.kill().expect("a child can be killed");
    victim.wait().expect("a child can be waited for");
    locks().await > 0
}

/// Readers find all of a victim's writes or none, whoever comes first cleans up, and no lock is left in the end.
async fn clients_killed_while_they_commit(way: &str) {
    let setup = Setup::v1();
    let (own, registry) = (setup.own().await, setup.registry().await);
    let mut left = false;
    for _ in 0..VICTIMS {
        left = kill_in_between(&setup, &registry, way).await;
        if left {
            break;
        }
    }
    assert!(left, "{VICTIMS} victims left no lock");
    // A writer that needs one of the keys gets it, once the victim's time is over.
    loop {
        let mut txn = own.begin(TxnOptions::default()).await.expect("begin");
        txn.put(key(1, 7), "writer").await.expect("put");
        match txn.commit().await {
            Ok(_) => break,
            Err(error) => assert_eq!(error.hint(), Hint::RetryTransaction, "{error:?}"),
        }
    }
    let snapshot = own.snapshot(own.pd().timestamp().await.expect("timestamp"));
    let mut values: Vec<_> = keys().map(|_| None).collect();
    let pairs: Vec<_> = snapshot
        .scan("a".., ScanOptions::default())
        .try_collect()
        .await
        .expect("scan");
    let numbers: std::collections::BTreeMap<String, usize> = keys().zip(0..).collect();
    for (key, value) in pairs {
        values[numbers[&*String::from_utf8_lossy(&key)]] = Some(value);
    }
    let others: Vec<_> = values
        .iter()
        .enumerate()
        .filter(|(at, _)| *at != KEYS + 7)
        .map(|(_, value)| value)
        .collect();
    assert!(
        others.iter().all(|value| *value == others[0]),
        "a part of a transaction is seen"
    );
    assert_eq!(values[KEYS + 7], Some("writer".into()));
    own.settled().await;
    own.resolve_locks(.., snapshot.ts()).await.expect("resolve");
    let now = registry.current_timestamp().await.expect("timestamp");
    let locks = registry.scan_locks(&now, "a".to_owned().., 1024).await.expect("scan locks");
    assert!(locks.is_empty(), "{} locks are left", locks.len());
    assert_eq!(
        own.snapshot(Ts::MAX).get(key(1, 7)).await.expect("get"),
        Some("writer".into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_an_optimistic_commit() {
    clients_killed_while_they_commit("optimistic").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_an_async_commit() {
    clients_killed_while_they_commit("async").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_a_commit_of_our_own() {
    clients_killed_while_they_commit("own").await;
}
