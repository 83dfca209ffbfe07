//! Our own client through the same cases, and `ferrite ctl txn` on top of it.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use base::Ts;
use bytes::Bytes;
use client::{Error, Hint, LockWait, ScanOptions, TxnClient, TxnOptions};
use futures::TryStreamExt;

use super::{Setup, must_become};

fn ways() -> [TxnOptions; 4] {
    let causal = TxnOptions {
        causal: true,
        ..Default::default()
    };
    [
        TxnOptions::default(),
        TxnOptions::two_phase(),
        TxnOptions::pessimistic(),
        causal,
    ]
}

async fn must_write(client: &TxnClient, options: TxnOptions, pairs: &[(&'static str, &str)]) -> Ts {
    let mut txn = client.begin(options).await.expect("begin");
    let pairs = pairs
        .iter()
        .map(|(key, value)| (*key, Bytes::copy_from_slice(value.as_bytes())));
    txn.batch_put(pairs).await.expect("put");
    txn.commit().await.expect("commit").expect("something was written")
}

async fn get(client: &TxnClient, ts: Ts, key: &'static str) -> Option<Bytes> {
    client.snapshot(ts).get(key).await.expect("get")
}

async fn now(client: &TxnClient) -> Ts {
    client.pd().timestamp().await.expect("timestamp")
}

async fn commits(client: &TxnClient) {
    for (round, way) in ways().into_iter().enumerate() {
        let value = &*format!("v{round}");
        for pairs in [
            vec![("a", value), ("b", value)],
            vec![("a", value), ("h", value), ("z", value)],
        ] {
            let before = now(client).await;
            let commit_ts = must_write(client, way.clone(), &pairs).await;
            for (key, _) in &pairs {
                assert_eq!(
                    get(client, commit_ts, key).await,
                    Some(Bytes::copy_from_slice(value.as_bytes()))
                );
                assert!(get(client, Ts::MAX, key).await.is_some());
            }
            assert_eq!(
                get(client, before, "a").await == Some(Bytes::copy_from_slice(value.as_bytes())),
                pairs.len() == 3
            );
        }
    }
}

/// Over both borders, both ways, in several pages.
async fn scans(client: &TxnClient) {
    let pairs: BTreeMap<Bytes, Bytes> = ["f", "g", "o", "p"]
        .into_iter()
        .flat_map(|first| (0..400).map(move |n| (format!("{first}scan{n:03}").into(), Bytes::from(vec![b'v'; 3000]))))
        .collect();
    let options = TxnOptions {
        deadline: Some(Duration::from_secs(30)),
        ..Default::default()
    };
    let mut txn = client.begin(options).await.expect("begin");
    txn.batch_put(pairs.clone()).await.expect("put");
    txn.commit().await.expect("commit of 4.8 MB");
    let snapshot = client.snapshot(now(client).await);
    let all: Vec<_> = snapshot
        .scan("fscan".."pscan999", ScanOptions::default())
        .try_collect()
        .await
        .expect("scan");
    assert!(
        all.iter().map(|(key, value)| (key, value)).eq(pairs.iter()),
        "{} pairs",
        all.len()
    );
    let reverse = ScanOptions {
        reverse: true,
        keys_only: true,
        ..Default::default()
    };
    let keys: Vec<_> = snapshot.scan("fscan".."pscan999", reverse).try_collect().await.expect("scan");
    assert!(keys.iter().map(|(key, _)| key).eq(pairs.keys().rev()));
    assert!(keys.iter().all(|(_, value)| value.is_empty()));
}

async fn conflicts(client: &TxnClient) {
    for way in [TxnOptions::default(), TxnOptions::two_phase()] {
        let mut first = client.begin(way.clone()).await.expect("begin");
        first.put("conflict", "1").await.expect("put");
        first.put("qconflict", "1").await.expect("put");
        let commit_ts = must_write(client, way, &[("conflict", "2"), ("qconflict", "2")]).await;
        let lost = first.commit().await.expect_err("somebody was faster");
        assert!(
            matches!(lost, Error::WriteConflict { conflict_commit_ts, .. } if conflict_commit_ts == commit_ts),
            "{lost:?}"
        );
        assert_eq!(get(client, Ts::MAX, "conflict").await, Some("2".into()));
    }
    let mut txn = client.begin(TxnOptions::default()).await.expect("begin");
    txn.insert("conflict", "3").await.expect("insert");
    let error = txn.commit().await.expect_err("is there");
    assert!(
        matches!(&error, Error::AlreadyExists { key } if key == "conflict"),
        "{error:?}"
    );
    let mut txn = client.begin(TxnOptions::pessimistic()).await.expect("begin");
    let error = txn.insert("conflict", "3").await.expect_err("is there");
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error:?}");
}

async fn pessimistic_locks(client: &TxnClient) {
    let mut holder = client.begin(TxnOptions::pessimistic()).await.expect("begin");
    holder.put("held", "1").await.expect("put");
    let hasty = TxnOptions {
        lock_wait: LockWait::No,
        ..TxnOptions::pessimistic()
    };
    let error = client
        .begin(hasty)
        .await
        .expect("begin")
        .put("held", "2")
        .await
        .expect_err("is locked");
    assert!(
        matches!(error, Error::Locked { holder: told, .. } if told == holder.start_ts()),
        "{error:?}"
    );
    // One that waits gets the lock when it goes, and reads what was committed with it.
    let waits = {
        let client = client.clone();
        tokio::spawn(async move {
            let mut txn = client.begin(TxnOptions::pessimistic()).await?;
            let value = txn.get_for_update("held").await?;
            txn.rollback().await?;
            Ok::<_, Error>(value)
        })
    };
    holder.commit().await.expect("commit");
    assert_eq!(waits.await.expect("no panic").expect("lock"), Some("1".into()));
    deadlock(client).await;
}

/// Two transactions that lock two keys in opposite order: one is told, the other gets on.
async fn deadlock(client: &TxnClient) {
    let (mut first, mut second) = (
        client.begin(TxnOptions::pessimistic()).await.expect("begin"),
        client.begin(TxnOptions::pessimistic()).await.expect("begin"),
    );
    first.lock_keys(["dead"]).await.expect("lock");
    second.lock_keys(["hdead"]).await.expect("lock");
    let ends = |mut txn: client::Transaction, key: &'static str| {
        tokio::spawn(async move {
            let locked = txn.lock_keys([key]).await;
            txn.rollback().await.expect("rollback");
            locked
        })
    };
    let (first, second) = (ends(first, "hdead"), ends(second, "dead"));
    let outcomes = [first.await.expect("no panic"), second.await.expect("no panic")];
    let told: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(matches!(told[..], [Error::Deadlock { .. }]), "{outcomes:?}");
}

fn amount(value: &Bytes) -> i64 {
    String::from_utf8_lossy(value).parse().expect("a number")
}

/// Transfers between accounts on all sides of the borders, and readers that always see the same total.
async fn bank(client: &TxnClient) {
    const ACCOUNTS: [&str; 6] = ["bank0", "bank1", "hbank0", "hbank1", "zbank0", "zbank1"];
    must_write(client, TxnOptions::default(), &ACCOUNTS.map(|account| (account, "100"))).await;
    let transfer = |client: TxnClient, way: TxnOptions, from: usize, to: usize| async move {
        let mut txn = client.begin(way).await?;
        for (account, change) in [(from, -1), (to, 1)] {
            let value = txn.get_for_update(ACCOUNTS[account]).await?.expect("accounts are not closed");
            txn.put(ACCOUNTS[account], (amount(&value) + change).to_string()).await?;
        }
        txn.commit().await
    };
    let tellers: Vec<_> = (0..6)
        .map(|teller: usize| {
            let (client, way) = (client.clone(), ways()[teller % 4].clone());
            tokio::spawn(async move {
                for turn in 0..20 {
                    let (from, to) = ((teller + turn) % 6, (teller + turn * 5 + 1) % 6);
                    if from == to {
                        continue;
                    }
                    while let Err(error) = transfer(client.clone(), way.clone(), from, to).await {
                        assert_eq!(error.hint(), Hint::RetryTransaction, "{error:?}");
                    }
                }
            })
        })
        .collect();
    while !tellers.iter().all(|teller| teller.is_finished()) {
        let pairs = client
            .snapshot(now(client).await)
            .batch_get(ACCOUNTS)
            .await
            .expect("batch get");
        assert_eq!(pairs.iter().map(|(_, value)| amount(value)).sum::<i64>(), 600, "{pairs:?}");
    }
    for teller in tellers {
        teller.await.expect("transfers");
    }
}

async fn collection(client: &TxnClient) {
    must_write(client, TxnOptions::default(), &[("old", "1")]).await;
    let before = now(client).await;
    must_write(client, TxnOptions::default(), &[("old", "2")]).await;
    let safe_point = now(client).await;
    assert!(client.gc(safe_point).await.expect("gc") >= safe_point);
    must_become("an old version is collected", async || {
        matches!(client.snapshot(before).get("old").await, Ok(None))
    })
    .await;
    assert_eq!(get(client, Ts::MAX, "old").await, Some("2".into()));
}

async fn whole_api(setup: &Setup) {
    let client = setup.own().await;
    // First, while there are no keys but its own.
    scans(&client).await;
    commits(&client).await;
    conflicts(&client).await;
    pessimistic_locks(&client).await;
    bank(&client).await;
    collection(&client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_api_v1() {
    whole_api(&Setup::v1()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_api_v2() {
    whole_api(&Setup::v2()).await;
}

/// What is printed by `ctl` with these arguments, line by line.
fn ctl_json(setup: &Setup, args: &[&str]) -> Vec<serde_json::Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrite"));
    command
        .args(["ctl", "--pd-addr", &setup.cluster.endpoints()[0], "--json"])
        .args(args);
    let output = command.output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Every version and lock of a key, those in memory too; locks of all regions; who waits for whom.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctl_mvcc_and_locks() {
    let setup = Setup::v1();
    let client = setup.own().await;
    let long = "v".repeat(300);
    let first = must_write(&client, TxnOptions::default(), &[("a", "1")]).await;
    let second = must_write(&client, TxnOptions::default(), &[("a", &long)]).await;
    let mut holder = client.begin(TxnOptions::pessimistic()).await.expect("begin");
    for key in ["a", "z"] {
        holder.get_for_update(key).await.expect("lock");
    }
    let of = |rows: &[serde_json::Value], field: &str| rows.iter().map(|row| row[field].clone()).collect::<Vec<_>>();
    let rows = ctl_json(&setup, &["mvcc", "a"]);
    assert_eq!(of(&rows, "family"), ["lock", "write", "write", "default"], "{rows:?}");
    assert_eq!(rows[0]["start_ts"], holder.start_ts().0);
    assert_eq!(of(&rows[1..3], "commit_ts"), [second.0, first.0]);
    assert_eq!((&rows[2]["value"], &rows[3]["value"]), (&"1".into(), &long.as_str().into()));

    let waiter = {
        let client = client.clone();
        tokio::spawn(async move {
            let mut waiter = client.begin(TxnOptions::pessimistic()).await.expect("begin");
            let start_ts = waiter.start_ts();
            waiter.get_for_update("z").await.expect("lock");
            waiter.rollback().await.expect("roll back");
            start_ts
        })
    };
    let mut rows = Vec::new();
    must_become("a wait is told", async || {
        rows = ctl_json(&setup, &["locks"]);
        rows.iter().any(|row| row.get("waiter").is_some())
    })
    .await;
    let locks: Vec<_> = rows.iter().filter(|row| row.get("waiter").is_none()).cloned().collect();
    assert_eq!(of(&locks, "key"), ["a", "z"], "{rows:?}");
    let wait = rows
        .iter()
        .find(|row| row.get("waiter").is_some())
        .expect("just seen")
        .clone();
    assert_eq!((&wait["holder"], &wait["key"]), (&holder.start_ts().0.into(), &"z".into()));
    holder.rollback().await.expect("roll back");
    assert_eq!(wait["waiter"], waiter.await.expect("the waiter gets its turn").0);
    assert_eq!(ctl_json(&setup, &["locks"]), Vec::<serde_json::Value>::new());
}

/// Runs a script: exit code, standard output, standard error.
fn ctl(setup: &Setup, script: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrite"));
    command.args(["ctl", "--pd-addr", &setup.cluster.endpoints()[0], "txn", "--timeout", "20s"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    // A script that ends early leaves the rest unread.
    drop(child.stdin.take().expect("a pipe").write_all(script.as_bytes()));
    let output = child.wait_with_output().expect("ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (
        output.status.code().expect("ended by itself"),
        text(output.stdout),
        text(output.stderr),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctl_txn() {
    let setup = Setup::v1();
    let (code, out, err) = ctl(
        &setup,
        "begin\nput a 1\nput 'h h' 'two words'\nscan\ncommit\nbegin pessimistic\nlock a\nget a\nrollback\n",
    );
    assert_eq!(code, 0, "{err}");
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[1..3], ["a\t1", "h h\ttwo words"]);
    assert_eq!(lines[5..], ["a\t1", "1"]);
    let number = |line: &str| line.parse::<u64>().expect("a timestamp");
    assert!(
        number(lines[0]) < number(lines[3]) && number(lines[3]) <= number(lines[4]),
        "{out}"
    );
    let (code, _, err) = ctl(&setup, "begin\nput a 2\n");
    assert_eq!((code, err.contains("rolled back")), (1, true), "{err}");
    let (code, _, err) = ctl(&setup, "put a 2\nbegin\n");
    assert_eq!(code, 2);
    assert!(err.contains("line 1: put a 2") && err.contains("begin one"), "{err}");
    assert_eq!(get(&setup.own().await, Ts::MAX, "a").await, Some("1".into()));
}
