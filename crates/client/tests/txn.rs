//! Transactions against a cluster made of plain maps: every way of a commit, others' locks, and what happens when something breaks.

mod fake;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::Ts;
use bytes::Bytes;
use client::{Api, ClientOptions, Error, Hint, Keyspace, LockWait, Pair, ScanOptions, TxnClient, TxnOptions};
use fake::Fake;
use fake::txn::Record;
use futures::TryStreamExt;
use proto::kvrpcpb::{self, Op};

const KEYSPACE: u32 = 5;

/// Both ways of sending, in both forms of keys.
fn setups() -> [ClientOptions; 3] {
    let setup = |api: Api, batch_commands| ClientOptions {
        api,
        batch_commands,
        ..Default::default()
    };
    [
        setup(Api::V1, true),
        setup(Api::V1, false),
        setup(Api::V2(Keyspace::Id(KEYSPACE)), true),
    ]
}

async fn start(options: ClientOptions) -> (Arc<Fake>, TxnClient) {
    // Borders of transactional regions are encoded in both versions.
    let fake = Fake::start(true).await;
    for (key, store) in [("g", 2), ("p", 3)] {
        fake.split(&wire(&options, key), store);
    }
    let client = TxnClient::connect(&[fake.endpoint()], options).await.expect("connect");
    (fake, client)
}

async fn start_v1() -> (Arc<Fake>, TxnClient) {
    start(ClientOptions::default()).await
}

async fn start_hasty() -> (Arc<Fake>, TxnClient) {
    start(ClientOptions {
        deadline: Duration::from_millis(400),
        ..Default::default()
    })
    .await
}

/// A key as the stores keep it.
fn wire(options: &ClientOptions, key: &str) -> Bytes {
    match options.api {
        Api::V1 => Bytes::copy_from_slice(key.as_bytes()),
        Api::V2(_) => [b"x\0\0\x05", key.as_bytes()].concat().into(),
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<Pair> {
    let owned = |(key, value): &(&str, &str)| {
        (
            Bytes::copy_from_slice(key.as_bytes()),
            Bytes::copy_from_slice(value.as_bytes()),
        )
    };
    pairs.iter().map(owned).collect()
}

async fn must_write(client: &TxnClient, options: TxnOptions, written: &[(&str, &str)]) -> Ts {
    let mut txn = client.begin(options).await.expect("begin");
    txn.batch_put(pairs(written)).await.expect("put");
    let commit_ts = txn.commit().await.expect("commit").expect("something was written");
    client.settled().await;
    commit_ts
}

async fn must_get(client: &TxnClient, key: &'static str) -> Option<Bytes> {
    client.snapshot(Ts::MAX).get(key).await.expect("get")
}

async fn now(client: &TxnClient) -> Ts {
    client.pd().timestamp().await.expect("timestamp")
}

/// What a client that died left: a first phase as it would have sent it, of `keys`, the first of which is the primary.
fn leave_locks(fake: &Fake, keys: &[&'static str], ttl_ms: u64, is_async: bool) -> Ts {
    let start_ts = fake.timestamp();
    for key in keys {
        leave_lock(fake, keys, key, start_ts, ttl_ms, is_async);
    }
    Ts(start_ts)
}

fn leave_lock(fake: &Fake, keys: &[&'static str], key: &'static str, start_ts: u64, ttl_ms: u64, is_async: bool) {
    let request = kvrpcpb::PrewriteRequest {
        mutations: vec![kvrpcpb::Mutation {
            op: Op::Put.into(),
            key: key.into(),
            value: "dead".into(),
            ..Default::default()
        }],
        primary_lock: keys[0].into(),
        start_version: start_ts,
        lock_ttl: ttl_ms,
        txn_size: 1,
        min_commit_ts: start_ts + 1,
        use_async_commit: is_async,
        secondaries: keys[1..].iter().map(|key| Bytes::from(*key)).collect(),
        ..Default::default()
    };
    let answer = fake.mvcc().prewrite(&request);
    assert!(answer.errors.is_empty(), "{answer:?}");
}

#[tokio::test]
async fn every_way_of_commit() {
    for options in setups() {
        let (fake, client) = start(options.clone()).await;
        let ways = [TxnOptions::default(), TxnOptions::two_phase(), TxnOptions::pessimistic()];
        for (round, way) in ways.into_iter().enumerate() {
            let value = round.to_string();
            // One region, then all three.
            for written in [
                vec![("a", &*value), ("b", &*value)],
                vec![("a", &*value), ("h", &*value), ("z", &*value)],
            ] {
                let before = now(&client).await;
                let commit_ts = must_write(&client, way.clone(), &written).await;
                assert!(commit_ts > before);
                let keys: Vec<_> = written
                    .iter()
                    .map(|(key, _)| Bytes::copy_from_slice(key.as_bytes()))
                    .collect();
                let snapshot = client.snapshot(commit_ts);
                assert_eq!(snapshot.batch_get(keys.clone()).await.expect("batch get"), pairs(&written));
                assert_eq!(
                    snapshot.get("h").await.expect("get").is_some(),
                    written.len() == 3 || round > 0
                );
                let earlier = client.snapshot(before).get(keys[0].clone()).await.expect("get");
                assert_ne!(
                    earlier.is_some(),
                    round == 0 && written.len() == 2,
                    "{round}: a snapshot does not move"
                );
            }
            client.settled().await;
            assert!(fake.mvcc().locks().is_empty(), "{round}");
        }
    }
}

#[tokio::test]
async fn the_primary_is_committed_first_and_alone_decides() {
    let (fake, client) = start_v1().await;
    must_write(
        &client,
        TxnOptions::two_phase(),
        &[("a", "1"), ("b", "1"), ("h", "1"), ("z", "1")],
    )
    .await;
    client.settled().await;
    let commits = fake.mvcc().commits.clone();
    assert_eq!(commits.len(), 3);
    assert_eq!(commits[0], (vec!["a".into(), "b".into()], true));
    assert!(commits[1..].iter().all(|(_, primary)| !primary));
}

#[tokio::test]
async fn one_region_is_one_request() {
    let (fake, client) = start_v1().await;
    must_write(&client, TxnOptions::default(), &[("a", "1")]).await;
    let before = fake.requests.load(Ordering::SeqCst);
    must_write(&client, TxnOptions::default(), &[("a", "2"), ("b", "2")]).await;
    assert_eq!(fake.requests.load(Ordering::SeqCst), before + 1);
    assert!(fake.mvcc().commits.is_empty());
}

#[tokio::test]
async fn stores_that_fall_back_get_two_phases() {
    let (fake, client) = start_v1().await;
    fake.mvcc().falls_back = true;
    must_write(&client, TxnOptions::default(), &[("a", "1")]).await;
    must_write(&client, TxnOptions::default(), &[("a", "2"), ("h", "2")]).await;
    client.settled().await;
    assert_eq!(must_get(&client, "h").await, Some("2".into()));
    assert!(fake.mvcc().locks().is_empty());
}

#[tokio::test]
async fn own_writes_are_seen() {
    for options in setups() {
        let (_fake, client) = start(options).await;
        must_write(
            &client,
            TxnOptions::default(),
            &[("a", "1"), ("h", "1"), ("k", "1"), ("z", "1")],
        )
        .await;
        let mut txn = client.begin(TxnOptions::default()).await.expect("begin");
        txn.put("b", "2").await.expect("put");
        txn.put("h", "2").await.expect("put");
        txn.delete("k").await.expect("delete");
        txn.lock_keys(["z"]).await.expect("lock");
        assert_eq!(txn.get("h").await.expect("get"), Some("2".into()));
        assert_eq!(txn.get("k").await.expect("get"), None);
        assert_eq!(txn.get("z").await.expect("get"), Some("1".into()));
        let wanted = pairs(&[("a", "1"), ("b", "2"), ("h", "2"), ("z", "1")]);
        assert_eq!(
            txn.batch_get(["z", "k", "h", "b", "a", "a"]).await.expect("batch get"),
            wanted
        );
        let scan = |options| txn.scan(.., options).try_collect::<Vec<_>>();
        assert_eq!(scan(ScanOptions::default()).await.expect("scan"), wanted);
        let limited = ScanOptions {
            limit: 3,
            ..Default::default()
        };
        assert_eq!(scan(limited).await.expect("scan"), wanted[..3]);
        let reverse = ScanOptions {
            reverse: true,
            limit: 3,
            ..Default::default()
        };
        let mut turned = wanted.clone();
        turned.reverse();
        assert_eq!(scan(reverse).await.expect("scan"), turned[..3]);
        let part: Vec<_> = txn.scan("b".."z", ScanOptions::default()).try_collect().await.expect("scan");
        assert_eq!(part, wanted[1..3]);
        let keys = ScanOptions {
            keys_only: true,
            ..Default::default()
        };
        let keys: Vec<_> = scan(keys).await.expect("scan");
        assert!(keys.iter().all(|(_, value)| value.is_empty()));
        drop(txn);
        assert_eq!(must_get(&client, "b").await, None, "never committed");
    }
}

#[tokio::test]
async fn scans_go_over_regions_and_pages() {
    for options in setups() {
        let (fake, client) = start(options.clone()).await;
        let all: Vec<Pair> = (0..3000)
            .map(|n| (format!("k{n:04}").into(), Bytes::from(n.to_string())))
            .collect();
        for key in ["k1000", "k1500"] {
            fake.split(&wire(&options, key), 1);
        }
        let mut txn = client.begin(TxnOptions::default()).await.expect("begin");
        txn.batch_put(all.clone()).await.expect("put");
        txn.commit().await.expect("commit");
        client.settled().await;
        assert!(fake.mvcc().locks().is_empty());
        let snapshot = client.snapshot(now(&client).await);
        let forward: Vec<_> = snapshot.scan(.., ScanOptions::default()).try_collect().await.expect("scan");
        assert!(forward == all);
        let reverse = ScanOptions {
            reverse: true,
            ..Default::default()
        };
        let mut backward: Vec<_> = snapshot.scan("k0100".."k2900", reverse).try_collect().await.expect("scan");
        backward.reverse();
        assert!(backward == all[100..2900]);
    }
}

#[tokio::test]
async fn the_first_to_commit_wins() {
    let (fake, client) = start_v1().await;
    for way in [TxnOptions::default(), TxnOptions::two_phase()] {
        let mut first = client.begin(way.clone()).await.expect("begin");
        let mut second = client.begin(way).await.expect("begin");
        for txn in [&mut first, &mut second] {
            txn.put("a", "mine").await.expect("put");
            txn.put("h", "mine").await.expect("put");
        }
        let (winner, start_ts) = (second.start_ts(), first.start_ts());
        let commit_ts = second.commit().await.expect("commit").expect("written");
        let lost = first.commit().await.expect_err("somebody was faster");
        assert_eq!(lost.hint(), Hint::RetryTransaction);
        let Error::WriteConflict {
            start_ts: told,
            conflict_ts,
            conflict_commit_ts,
            ..
        } = lost
        else {
            panic!("{lost:?}")
        };
        assert_eq!((told, conflict_ts, conflict_commit_ts), (start_ts, winner, commit_ts));
        client.settled().await;
        assert!(fake.mvcc().locks().is_empty());
        assert!(fake.mvcc().records(b"a").contains(&(start_ts.0, Record::Rollback)));
    }
}

#[tokio::test]
async fn inserts_need_the_key_to_be_absent() {
    let (_fake, client) = start_v1().await;
    must_write(&client, TxnOptions::default(), &[("a", "1")]).await;
    for way in [TxnOptions::default(), TxnOptions::pessimistic()] {
        let mut txn = client.begin(way.clone()).await.expect("begin");
        let inserted = txn.insert("a", "2").await;
        let error = match way.pessimistic {
            true => inserted.expect_err("is there"),
            false => txn.commit().await.expect_err("is there"),
        };
        assert!(matches!(&error, Error::AlreadyExists { key } if key == "a"), "{error:?}");
    }
    let mut txn = client.begin(TxnOptions::default()).await.expect("begin");
    txn.insert("h", "1").await.expect("insert");
    assert!(txn.insert("h", "2").await.is_err(), "twice");
    txn.insert("b", "1").await.expect("insert");
    txn.delete("b").await.expect("delete");
    txn.commit().await.expect("commit");
    assert_eq!(must_get(&client, "h").await, Some("1".into()));
    assert_eq!(must_get(&client, "b").await, None);
}

#[tokio::test]
async fn a_reader_passes_a_living_transaction_by_pushing_it() {
    let (fake, client) = start_v1().await;
    must_write(&client, TxnOptions::default(), &[("a", "old"), ("h", "old")]).await;
    leave_locks(&fake, &["a", "h"], 60_000, false);
    let snapshot = client.snapshot(now(&client).await);
    assert_eq!(snapshot.get("h").await.expect("get"), Some("old".into()));
    assert_eq!(
        snapshot.batch_get(["a", "h"]).await.expect("batch get"),
        pairs(&[("a", "old"), ("h", "old")])
    );
    let scanned: Vec<_> = snapshot.scan(.., ScanOptions::default()).try_collect().await.expect("scan");
    assert_eq!(scanned, pairs(&[("a", "old"), ("h", "old")]));
    assert!(
        fake.mvcc().locks()[0].1.min_commit_ts > snapshot.ts().0,
        "the primary was pushed"
    );
    assert_eq!(must_get(&client, "h").await, Some("old".into()), "the latest, too");
}

/// A younger transaction that holds a lock gives way to an older one: its locks go, and only then it waits.
#[tokio::test]
async fn the_younger_gives_way() {
    let (fake, client) = start_hasty().await;
    leave_locks(&fake, &["h"], 60_000, false);
    let mut txn = client.begin(TxnOptions::two_phase()).await.expect("begin");
    for key in ["a", "h"] {
        txn.put(key, "1").await.expect("put");
    }
    let error = txn.commit().await.expect_err("the older one lives");
    assert!(matches!(error, Error::Aborted { .. }), "{error:?}");
    assert_eq!(error.hint(), Hint::RetryTransaction);
    client.settled().await;
    let left: Vec<_> = fake.mvcc().locks().into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, ["h"], "only the older one's lock is left");
}

/// Optimistic transactions that want the same keys of different regions, at once: none waits for one that waits for it, until it is dead.
#[tokio::test]
async fn many_optimistic_transactions_on_few_keys() {
    let (fake, client) = start_v1().await;
    let begun = base::MonoTime::now();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let client = client.clone();
        writers.spawn(async move {
            for _ in 0..10 {
                loop {
                    let mut txn = client.begin(TxnOptions::default()).await.expect("begin");
                    for key in ["a", "h", "z"] {
                        txn.put(key, format!("{writer}")).await.expect("put");
                    }
                    match txn.commit().await {
                        Ok(_) => break,
                        Err(error) if error.hint() == Hint::RetryTransaction => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.expect("a writer ends well");
    }
    client.settled().await;
    assert!(fake.mvcc().locks().is_empty());
    // Of those who wait in a circle one would have to be dead for three seconds.
    let took = base::MonoTime::now().since(begun);
    assert!(took < Duration::from_secs(3), "took {took:?}");
}

#[tokio::test]
async fn a_commit_that_was_pushed_takes_a_later_timestamp() {
    let (fake, client) = start_v1().await;
    let floor = now(&client).await.0 + 3;
    fake.mvcc().push_next_commit = floor;
    let commit_ts = must_write(&client, TxnOptions::two_phase(), &[("a", "1"), ("h", "1")]).await;
    assert!(commit_ts.0 >= floor);
}

#[tokio::test]
async fn what_the_dead_left_is_ended_as_the_primary_says() {
    for options in setups().into_iter().filter(|options| options.api == Api::V1) {
        let (fake, client) = start(options).await;
        must_write(&client, TxnOptions::default(), &[("a", "old"), ("h", "old"), ("z", "old")]).await;
        // Committed at its primary.
        let start_ts = leave_locks(&fake, &["a", "h", "z"], 1000, false);
        let commit_ts = fake.timestamp();
        fake.mvcc()
            .commit(&kvrpcpb::CommitRequest {
                start_version: start_ts.0,
                keys: vec!["a".into()],
                commit_version: commit_ts,
                ..Default::default()
            })
            .expect("commit");
        let snapshot = client.snapshot(now(&client).await);
        let scanned: Vec<_> = snapshot
            .scan("h".., ScanOptions::default())
            .try_collect()
            .await
            .expect("scan");
        assert_eq!(scanned, pairs(&[("h", "dead"), ("z", "dead")]));
        assert!(fake.mvcc().locks().is_empty());
        // Not committed, and outlived.
        leave_locks(&fake, &["a", "h", "z"], 1000, false);
        fake.pass(1500);
        let snapshot = client.snapshot(now(&client).await);
        let read = snapshot.batch_get(["a", "h", "z"]).await.expect("batch get");
        assert_eq!(read, pairs(&[("a", "dead"), ("h", "dead"), ("z", "dead")]), "as before");
        assert!(fake.mvcc().locks().is_empty());
    }
}

#[tokio::test]
async fn a_secondary_whose_primary_never_came_is_rolled_back_once_outlived() {
    let (fake, client) = start_hasty().await;
    let start_ts = fake.timestamp();
    leave_lock(&fake, &["a", "h"], "h", start_ts, 1000, false);
    let write = |client: TxnClient| async move {
        let mut txn = client.begin(TxnOptions::default()).await.expect("begin");
        txn.put("h", "mine").await.expect("put");
        txn.commit().await
    };
    let error = write(client.clone()).await.expect_err("its primary may be on its way");
    assert!(
        matches!(&error, Error::DeadlineExceeded { last: Some(last), .. } if matches!(**last, Error::Locked { .. })),
        "{error:?}"
    );
    client.settled().await;
    fake.pass(1500);
    write(client.clone()).await.expect("commit");
    client.settled().await;
    assert!(fake.mvcc().locks().is_empty());
    assert!(
        fake.mvcc().records(b"a").contains(&(start_ts, Record::Rollback)),
        "its primary must never come"
    );
}

#[tokio::test]
async fn an_async_commit_that_was_left_is_decided_by_all_its_keys() {
    let (fake, client) = start_v1().await;
    leave_locks(&fake, &["a", "h", "z"], 1000, true);
    fake.pass(1500);
    let snapshot = client.snapshot(now(&client).await);
    assert_eq!(
        snapshot.get("z").await.expect("get"),
        Some("dead".into()),
        "all were locked: it is committed"
    );
    assert!(fake.mvcc().locks().is_empty());
    let commit_ts: Vec<u64> = ["a", "h", "z"].map(|key| fake.mvcc().records(key.as_bytes())[0].0).into();
    assert!(
        commit_ts.iter().all(|ts| *ts == commit_ts[0]),
        "at one timestamp: {commit_ts:?}"
    );
    // One key short.
    let start_ts = fake.timestamp();
    for key in ["b", "i"] {
        leave_lock(&fake, &["b", "i", "y"], key, start_ts, 1000, true);
    }
    fake.pass(1500);
    let snapshot = client.snapshot(now(&client).await);
    assert_eq!(snapshot.get("i").await.expect("get"), None);
    assert!(fake.mvcc().locks().is_empty());
    assert_eq!(fake.mvcc().records(b"y"), [(start_ts, Record::Rollback)]);
    // One key was written as an ordinary one: the primary alone decides, and it is outlived.
    let start_ts = fake.timestamp();
    leave_lock(&fake, &["c", "j"], "c", start_ts, 1000, true);
    leave_lock(&fake, &["c", "j"], "j", start_ts, 1000, false);
    fake.pass(1500);
    let snapshot = client.snapshot(now(&client).await);
    assert_eq!(snapshot.get("j").await.expect("get"), None);
    assert!(fake.mvcc().locks().iter().all(|(key, _)| key != "j"));
    assert_eq!(fake.mvcc().records(b"c"), [(start_ts, Record::Rollback)]);
}

#[tokio::test]
async fn pessimistic_locks_keep_others_out_and_read_the_latest() {
    let (fake, client) = start_v1().await;
    must_write(&client, TxnOptions::default(), &[("a", "1"), ("h", "1")]).await;
    let mut txn = client.begin(TxnOptions::pessimistic()).await.expect("begin");
    must_write(&client, TxnOptions::default(), &[("a", "2")]).await;
    assert_eq!(txn.get("a").await.expect("get"), Some("1".into()), "its snapshot");
    assert_eq!(txn.get_for_update("a").await.expect("lock"), Some("2".into()), "the latest");
    assert_eq!(
        txn.batch_get_for_update(["h", "b"]).await.expect("lock"),
        pairs(&[("h", "1")])
    );
    txn.put("a", "3").await.expect("put");
    assert_eq!(txn.get_for_update("a").await.expect("lock"), Some("3".into()), "its own");
    // Others can read but not lock.
    assert_eq!(must_get(&client, "a").await, Some("2".into()));
    for (wait, at_least) in [(LockWait::No, 0), (LockWait::For(Duration::from_millis(100)), 100)] {
        let options = TxnOptions {
            lock_wait: wait,
            ..TxnOptions::pessimistic()
        };
        let began = base::MonoTime::now();
        let mut other = client.begin(options).await.expect("begin");
        let error = other.put("a", "other").await.expect_err("is locked");
        assert!(
            matches!(&error, Error::Locked { key, holder } if key == "a" && *holder == txn.start_ts()),
            "{error:?}"
        );
        assert_eq!(error.hint(), Hint::Retry);
        assert!(base::MonoTime::now().since(began) >= Duration::from_millis(at_least));
    }
    assert_eq!(fake.mvcc().locks().len(), 3);
    txn.commit().await.expect("commit");
    client.settled().await;
    assert!(fake.mvcc().locks().is_empty());
    assert_eq!(must_get(&client, "a").await, Some("3".into()));
}

#[tokio::test]
async fn locks_go_with_their_transaction() {
    let (fake, client) = start_v1().await;
    let begin = || async {
        let mut txn = client.begin(TxnOptions::pessimistic()).await.expect("begin");
        txn.lock_keys(["a", "h"]).await.expect("lock");
        assert_eq!(fake.mvcc().locks().len(), 2);
        txn
    };
    begin().await.rollback().await.expect("rollback");
    assert!(fake.mvcc().locks().is_empty());
    drop(begin().await);
    client.settled().await;
    assert!(fake.mvcc().locks().is_empty());
    // A lock that cannot be had takes those back that were taken with it.
    let held = begin().await;
    let options = TxnOptions {
        lock_wait: LockWait::No,
        ..TxnOptions::pessimistic()
    };
    let mut other = client.begin(options).await.expect("begin");
    other.lock_keys(["b"]).await.expect("lock");
    other.lock_keys(["c", "h", "z"]).await.expect_err("one is locked");
    client.settled().await;
    let keys: Vec<_> = fake.mvcc().locks().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["a", "b", "h"]);
    drop(held);
}

#[tokio::test]
async fn a_pessimistic_lock_that_was_left_is_taken_away() {
    let (fake, client) = start_v1().await;
    let start_ts = fake.timestamp();
    let lock = kvrpcpb::PessimisticLockRequest {
        mutations: vec![kvrpcpb::Mutation {
            op: Op::PessimisticLock.into(),
            key: "h".into(),
            ..Default::default()
        }],
        // The primary was never locked.
        primary_lock: "a".into(),
        start_version: start_ts,
        for_update_ts: start_ts,
        lock_ttl: 1000,
        ..Default::default()
    };
    assert!(fake.mvcc().lock(&lock).errors.is_empty());
    fake.pass(1500);
    must_write(&client, TxnOptions::pessimistic(), &[("h", "1")]).await;
    client.settled().await;
    assert!(fake.mvcc().locks().is_empty());
    assert!(
        fake.mvcc().records(b"a").is_empty(),
        "its transaction may still go on without the lock"
    );
}

#[tokio::test]
async fn locks_live_as_long_as_their_transaction() {
    let (fake, client) = start_v1().await;
    let mut txn = client.begin(TxnOptions::pessimistic()).await.expect("begin");
    txn.put("a", "1").await.expect("put");
    let ttl = fake.mvcc().locks()[0].1.lock_ttl;
    let beaten = async {
        while fake.mvcc().locks()[0].1.lock_ttl <= ttl {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), beaten)
        .await
        .expect("the heart beats");
    txn.commit().await.expect("commit");
}

#[tokio::test]
async fn a_lost_answer_does_not_lose_the_outcome() {
    let (fake, client) = start_v1().await;
    for way in [TxnOptions::default(), TxnOptions::two_phase(), TxnOptions::pessimistic()] {
        for broken in [1, 2] {
            fake.break_after_write.store(broken, Ordering::SeqCst);
            must_write(&client, way.clone(), &[("a", "1"), ("h", "1")]).await;
            fake.break_after_write.store(0, Ordering::SeqCst);
        }
        fake.break_after_write.store(1, Ordering::SeqCst);
        let commit_ts = must_write(&client, way, &[("b", "1")]).await;
        fake.break_after_write.store(0, Ordering::SeqCst);
        client.settled().await;
        let puts: Vec<_> = fake
            .mvcc()
            .records(b"b")
            .into_iter()
            .filter(|(_, record)| matches!(record, Record::Put(..)))
            .collect();
        assert_eq!(puts[0].0, commit_ts.0, "once, and at the timestamp that was told");
        assert!(fake.mvcc().locks().is_empty());
    }
}

/// One phase came through, its answer did not, and the region is two when the client comes again.
#[tokio::test]
async fn a_split_after_a_lost_answer_does_not_lose_the_outcome() {
    for is_async in [true, false] {
        let (fake, client) = start_v1().await;
        let way = TxnOptions {
            async_commit: is_async,
            ..TxnOptions::default()
        };
        *fake.split_at_break.lock() = Some(b"b");
        fake.break_after_write.store(1, Ordering::SeqCst);
        let commit_ts = must_write(&client, way, &[("a", "1"), ("c", "1")]).await;
        assert_eq!(*fake.split_at_break.lock(), None, "it was split");
        client.settled().await;
        for key in [b"a", b"c"] {
            let records = fake.mvcc().records(key);
            assert_eq!(
                (records.len(), records[0].0),
                (1, commit_ts.0),
                "once, and at the timestamp that was told"
            );
        }
        assert!(fake.mvcc().locks().is_empty());
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_told_as_such() {
    let (fake, client) = start_hasty().await;
    must_write(&client, TxnOptions::default(), &[("a", "0"), ("h", "0")]).await;
    fake.mute.store(2, Ordering::SeqCst);
    let commit = |way: TxnOptions, keys: &'static [&'static str]| {
        let client = client.clone();
        async move {
            let mut txn = client.begin(way).await.expect("begin");
            txn.batch_put(keys.iter().map(|key| (*key, "1"))).await.expect("put");
            txn.commit().await.expect_err("a store is mute")
        }
    };
    let one_phase = commit(TxnOptions::default(), &["h"]).await;
    assert_eq!(one_phase.hint(), Hint::Undetermined, "{one_phase:?}");
    let is_async = commit(TxnOptions::default(), &["a", "h"]).await;
    assert_eq!(is_async.hint(), Hint::Undetermined, "{is_async:?}");
    let two_phase = commit(TxnOptions::two_phase(), &["b", "h"]).await;
    assert_eq!(two_phase.hint(), Hint::Retry, "the second phase never began: {two_phase:?}");
}

#[tokio::test]
async fn regions_that_split_and_move_on_the_way() {
    let (fake, client) = start_v1().await;
    must_write(&client, TxnOptions::default(), &[("a", "0"), ("c", "0"), ("h", "0")]).await;
    fake.split(b"b", 3);
    fake.lead(b"h", 1);
    must_write(&client, TxnOptions::default(), &[("a", "1"), ("c", "1")]).await;
    fake.split(b"d", 2);
    must_write(&client, TxnOptions::two_phase(), &[("c", "2"), ("e", "2"), ("h", "2")]).await;
    client.settled().await;
    assert!(fake.mvcc().locks().is_empty());
    let all: Vec<_> = client
        .snapshot(Ts::MAX)
        .scan(.., ScanOptions::default())
        .try_collect()
        .await
        .expect("scan");
    assert_eq!(all, pairs(&[("a", "1"), ("c", "2"), ("e", "2"), ("h", "2")]));
}

#[tokio::test]
async fn collection_ends_all_that_was_left_before_it() {
    let (fake, client) = start_v1().await;
    leave_locks(&fake, &["a", "h"], 60_000, false);
    leave_locks(&fake, &["b", "i", "z"], 60_000, true);
    let safe_point = now(&client).await;
    let later = leave_locks(&fake, &["c", "j"], 60_000, false);
    assert_eq!(client.gc(safe_point).await.expect("gc"), safe_point);
    assert_eq!(fake.safe_point.load(Ordering::SeqCst), safe_point.0);
    let locks = fake.mvcc().locks();
    assert!(locks.iter().all(|(_, lock)| lock.lock_version == later.0), "{locks:?}");
    assert_eq!(locks.len(), 2);
    assert_eq!(
        must_get(&client, "z").await,
        Some("dead".into()),
        "an async commit with all its locks is one"
    );
    assert_eq!(must_get(&client, "h").await, None);
}

#[tokio::test]
async fn no_increment_is_lost() {
    for way in [TxnOptions::default(), TxnOptions::two_phase(), TxnOptions::pessimistic()] {
        let (fake, client) = start_v1().await;
        let increment = |client: TxnClient, way: TxnOptions| async move {
            let mut txn = client.begin(way).await?;
            for key in ["a", "h"] {
                let value = txn.get_for_update(key).await?;
                let value: u64 = value.map_or(0, |value| String::from_utf8_lossy(&value).parse().expect("a number"));
                txn.put(key, (value + 1).to_string()).await?;
            }
            txn.commit().await
        };
        let tasks = (0..8).map(|_| {
            let (client, way) = (client.clone(), way.clone());
            tokio::spawn(async move {
                for _ in 0..5 {
                    loop {
                        match increment(client.clone(), way.clone()).await {
                            Ok(_) => break,
                            Err(error) if error.hint() == Hint::RetryTransaction => continue,
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("increments");
        }
        client.settled().await;
        assert_eq!(must_get(&client, "a").await, Some("40".into()));
        assert_eq!(must_get(&client, "h").await, Some("40".into()));
        assert!(fake.mvcc().locks().is_empty());
    }
}
