//! The registry's `tikv-client`, as it is, against real processes: its whole raw API, and writes while stores are killed.
//!
//! Scans here ask for as many pairs as there are: when fewer come out of the last region, whose end is empty, `scan` of this
//! client (0.4) takes that end for a key, starts over at the first key and returns pairs twice. `batch_scan` does not.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base::MonoTime;
use common::{Cluster, PATIENCE};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tikv_client::{Config, KvPair, RawClient};

/// Records of the large tests.
const RECORDS: u32 = 100_000;
/// Records that one call writes or reads in the large tests.
const BATCH: u32 = 1_000;
/// How often a store is killed while clients write.
const KILLS: usize = 10;

async fn connect(cluster: &Cluster) -> RawClient {
    connect_with(cluster, Config::default()).await
}

async fn connect_with(cluster: &Cluster, config: Config) -> RawClient {
    let config = config.with_timeout(Duration::from_secs(10));
    RawClient::new_with_config(cluster.endpoints(), config)
        .await
        .expect("the client connects")
}

/// A key that sorts by number.
fn key(number: u32) -> String {
    format!("record-{number:08}")
}

/// A value that tells which key and write it belongs to, about 100 bytes.
fn value(number: u32, write: u64) -> String {
    format!("{number}:{write}:{:0>80}", number as u64 ^ write.rotate_left(32))
}

fn text(pairs: Vec<KvPair>) -> Vec<(String, String)> {
    let string = |bytes: Vec<u8>| String::from_utf8(bytes).expect("tests put text");
    pairs
        .into_iter()
        .map(|pair| (string(Vec::from(pair.key().clone())), string(pair.value().clone())))
        .collect()
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}

/// Every call of the raw API that does not need values to expire.
async fn raw_api(client: &RawClient) {
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    let none: Option<Vec<u8>> = None;
    assert_eq!(client.get("k".to_owned()).await.expect("get"), none);
    client.put("k".to_owned(), "v").await.expect("put");
    assert_eq!(client.get("k".to_owned()).await.expect("get"), bytes("v"));
    client.delete("k".to_owned()).await.expect("delete");
    assert_eq!(client.get("k".to_owned()).await.expect("get"), none);

    let all = [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "5")];
    client
        .batch_put(all.map(|(key, value)| (key.to_owned(), value)))
        .await
        .expect("batch put");
    let found = client
        .batch_get(["e", "absent", "a"].map(String::from))
        .await
        .expect("batch get");
    let mut found = text(found);
    found.sort();
    assert_eq!(found, owned(&[("a", "1"), ("e", "5")]));
    let scan = |from: &str, to: &str| from.to_owned()..to.to_owned();
    assert_eq!(text(client.scan(scan("a", "z"), 5).await.expect("scan")), owned(&all));
    assert_eq!(text(client.scan(scan("b", "d"), 2).await.expect("scan")), owned(&all[1..3]));
    assert_eq!(text(client.scan(scan("a", "z"), 2).await.expect("scan")), owned(&all[..2]));
    let reverse: Vec<_> = owned(&all[1..3]).into_iter().rev().collect();
    assert_eq!(
        text(client.scan_reverse(scan("b", "d"), 2).await.expect("reverse scan")),
        reverse
    );
    let keys = client.scan_keys(scan("a", "z"), 3).await.expect("scan of keys");
    assert_eq!(keys.into_iter().map(Vec::from).collect::<Vec<Vec<u8>>>(), [b"a", b"b", b"c"]);
    let found = client
        .batch_scan([scan("a", "c"), scan("d", "z")], 10)
        .await
        .expect("batch scan");
    assert_eq!(text(found), owned(&[("a", "1"), ("b", "2"), ("d", "4"), ("e", "5")]));

    client
        .batch_delete(["a", "absent"].map(String::from))
        .await
        .expect("batch delete");
    client.delete_range(scan("c", "e")).await.expect("delete range");
    assert_eq!(
        text(client.scan(scan("a", "z"), 2).await.expect("scan")),
        owned(&[("b", "2"), ("e", "5")])
    );

    let atomic = client.with_atomic_for_cas();
    let swap = async |expected: Option<&str>, value: &str| {
        let expected = expected.map(|expected| expected.as_bytes().to_vec());
        atomic
            .compare_and_swap("cas".to_owned(), expected, value)
            .await
            .expect("compare and swap")
    };
    assert_eq!(swap(None, "1").await, (None, true));
    assert_eq!(swap(None, "2").await, (bytes("1"), false));
    assert_eq!(swap(Some("2"), "3").await, (bytes("1"), false));
    assert_eq!(swap(Some("1"), "2").await, (bytes("1"), true));
    assert_eq!(client.get("cas".to_owned()).await.expect("get"), bytes("2"));
    client.delete_range(scan("a", "z")).await.expect("delete range");
}

/// Calls for values that expire.
async fn time_to_live(client: &RawClient) {
    client.put_with_ttl("long".to_owned(), "v", 1_000).await.expect("put");
    client.put("forever".to_owned(), "v").await.expect("put");
    let left = client
        .get_key_ttl_secs("long".to_owned())
        .await
        .expect("ttl")
        .expect("is there");
    assert!((900..=1_000).contains(&left), "{left}");
    assert_eq!(client.get_key_ttl_secs("forever".to_owned()).await.expect("ttl"), Some(0));
    assert_eq!(client.get_key_ttl_secs("absent".to_owned()).await.expect("ttl"), None);
    client.put_with_ttl("short".to_owned(), "v", 1).await.expect("put");
    let deadline = MonoTime::now() + PATIENCE;
    while client.get("short".to_owned()).await.expect("get").is_some() {
        assert!(MonoTime::now() < deadline, "a key with one second to live is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let found = client.scan("a".to_owned().."z".to_owned(), 2).await.expect("scan");
    assert_eq!(text(found), owned(&[("forever", "v"), ("long", "v")]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_api_against_one_process() {
    let cluster = Cluster::one(&[]);
    let client = connect(&cluster).await;
    raw_api(&client).await;
    let refused = client
        .put_with_ttl("k".to_owned(), "v", 5)
        .await
        .expect_err("V1 has no time to live");
    assert!(
        refused.to_string().contains("not configured for keys that expire"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_api_with_time_to_live() {
    let cluster = Cluster::one(&["--api-version", "v1ttl"]);
    let client = connect(&cluster).await;
    raw_api(&client).await;
    time_to_live(&client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_api_of_keyspaces() {
    let cluster = Cluster::one(&["--api-version", "v2"]);
    let client = connect_with(&cluster, Config::default().with_default_keyspace()).await;
    raw_api(&client).await;
    time_to_live(&client).await;
    let plain = connect(&cluster).await;
    let refused = plain.get("k".to_owned()).await.expect_err("a client of V1");
    assert!(refused.to_string().contains("store holds data of API V2"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_api_against_three_stores() {
    let cluster = Cluster::three(&[]);
    raw_api(&connect(&cluster).await).await;
}

/// Loads records in batches, then reads every one of them back, by key and by scan.
async fn load_and_read_back(cluster: &Cluster) {
    let client = connect(cluster).await;
    let began = MonoTime::now();
    for first in (0..RECORDS).step_by(BATCH as usize) {
        let pairs = (first..first + BATCH).map(|number| (key(number), value(number, 0)));
        client.batch_put(pairs).await.expect("batch put");
    }
    let loaded = MonoTime::now();
    for first in (0..RECORDS).step_by(BATCH as usize) {
        let expected: Vec<_> = (first..first + BATCH).map(|number| (key(number), value(number, 0))).collect();
        let scanned = client.scan(key(first)..key(first + BATCH), BATCH).await.expect("scan");
        assert_eq!(text(scanned), expected);
        let mut found = text(client.batch_get((first..first + BATCH).map(key)).await.expect("batch get"));
        found.sort();
        assert_eq!(found, expected);
    }
    let seconds = |from: MonoTime, to: MonoTime| to.since(from).as_secs_f64();
    let (load, read) = (seconds(began, loaded), seconds(loaded, MonoTime::now()));
    println!("{RECORDS} records: loaded in {load:.1} s, scanned and read back in {read:.1} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_records_in_one_process() {
    load_and_read_back(&Cluster::one(&[])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_records_on_three_stores() {
    let cluster = Cluster::three(&[]);
    cluster.must_be_replicated();
    load_and_read_back(&cluster).await;
}

/// What one writer knows of its keys. It writes a key again only once it knows how the last write ended.
#[derive(Default)]
struct Written {
    /// The latest acknowledged write of a key.
    acknowledged: BTreeMap<u32, u64>,
    /// Writes that failed after the latest acknowledged one: each may have taken place.
    unknown: BTreeMap<u32, Vec<u64>>,
}

impl Written {
    fn record(&mut self, number: u32, write: u64, acknowledged: bool) {
        if acknowledged {
            self.acknowledged.insert(number, write);
            self.unknown.remove(&number);
        } else {
            self.unknown.entry(number).or_default().push(write);
        }
    }

    /// Asserts that `found` is the latest acknowledged value, or one whose write failed later.
    fn check(&self, number: u32, found: Option<&str>) {
        let acknowledged = self.acknowledged.get(&number).map(|&write| value(number, write));
        let unknown = self
            .unknown
            .get(&number)
            .into_iter()
            .flatten()
            .map(|&write| value(number, write));
        let possible: Vec<Option<String>> = unknown.map(Some).chain([acknowledged]).collect();
        assert!(
            possible.iter().any(|possible| possible.as_deref() == found),
            "{}: found {found:?}, possible were {possible:?}",
            key(number)
        );
    }
}

/// Four writers put, overwrite and read their keys while stores are killed and restarted in turn: every acknowledged write is
/// there, every read is right, and there are as many records in the end as were asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_killed_while_clients_write() {
    const WRITERS: u32 = 4;
    let mut cluster = Cluster::three(&[]);
    cluster.must_be_replicated();
    let loader = connect(&cluster).await;
    for first in (0..RECORDS).step_by(BATCH as usize) {
        let pairs = (first..first + BATCH).map(|number| (key(number), value(number, 0)));
        loader.batch_put(pairs).await.expect("batch put");
    }
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (client, stop, done) = (connect(&cluster).await, stop.clone(), done.clone());
        writers.spawn(async move {
            let mut written = Written::default();
            let mut rng = StdRng::seed_from_u64(writer as u64);
            let mine = RECORDS / WRITERS;
            (0..mine).for_each(|n| written.record(n * WRITERS + writer, 0, true));
            for write in 1.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let number = rng.random_range(0..mine) * WRITERS + writer;
                let acknowledged = client.put(key(number), value(number, write)).await.is_ok();
                written.record(number, write, acknowledged);
                let number = rng.random_range(0..mine) * WRITERS + writer;
                if let Ok(found) = client.get(key(number)).await {
                    let found = found.map(|found| String::from_utf8(found).expect("tests put text"));
                    written.check(number, found.as_deref());
                }
                if acknowledged {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
            written
        });
    }
    let stores = cluster.stores();
    for kill in 0..KILLS {
        // A store is killed once writes get on, and restarted once they get on without it.
        writes_get_on(&done).await;
        let victim = stores[kill % stores.len()];
        cluster.nodes[victim].kill();
        writes_get_on(&done).await;
        cluster.nodes[victim].start();
        cluster.nodes[victim].must_be_ready();
    }
    stop.store(true, Ordering::Relaxed);
    let client = connect(&cluster).await;
    let mut total = 0;
    while let Some(written) = writers.join_next().await {
        let written = written.expect("no read was wrong");
        let numbers: Vec<u32> = written.acknowledged.keys().copied().collect();
        for numbers in numbers.chunks(BATCH as usize) {
            let found: BTreeMap<String, String> = text(
                client
                    .batch_get(numbers.iter().map(|&number| key(number)))
                    .await
                    .expect("batch get"),
            )
            .into_iter()
            .collect();
            numbers
                .iter()
                .for_each(|&number| written.check(number, found.get(&key(number)).map(String::as_str)));
        }
        total += numbers.len() as u32;
    }
    assert_eq!(total, RECORDS);
    println!(
        "{KILLS} kills, {} writes acknowledged, {total} records right",
        done.load(Ordering::Relaxed)
    );
}

/// Waits for fifty more acknowledged writes.
async fn writes_get_on(done: &AtomicU64) {
    let (from, deadline) = (done.load(Ordering::Relaxed), MonoTime::now() + PATIENCE);
    while done.load(Ordering::Relaxed) < from + 50 {
        assert!(MonoTime::now() < deadline, "writes do not get on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Regions known to the placement driver, by what `ferrite ctl` prints.
fn regions(cluster: &Cluster) -> Vec<serde_json::Value> {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ferrite"));
    command.args(["ctl", "--pd-addr", &cluster.endpoints()[0], "region", "--json"]);
    let told = command.output().expect("the binary runs");
    let told = String::from_utf8(told.stdout).expect("text");
    told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Regions that divide by their size while clients write and stores are killed: nothing is lost, and borders can be asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regions_divide_while_stores_are_killed() {
    const DIVIDED: u32 = 12_000;
    const REGIONS: usize = 8;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = dir.path().join("small.toml");
    let options = "[raft]\nregion-split-size = \"64KiB\"\nregion-max-size = \"96KiB\"\n";
    std::fs::write(&config, options).expect("write a configuration");
    let mut cluster = Cluster::three(&["--config", config.to_str().expect("a path of text")]);
    cluster.must_be_replicated();
    let client = connect(&cluster).await;
    let stores = cluster.stores();
    let mut numbers: Vec<u32> = (0..DIVIDED).collect();
    // Everywhere at once, so that every region grows.
    numbers.sort_by_key(|number| number.wrapping_mul(2_654_435_761));
    for (at, part) in numbers.chunks(100).enumerate() {
        let pairs: Vec<_> = part.iter().map(|&number| (key(number), value(number, 1))).collect();
        let deadline = MonoTime::now() + PATIENCE;
        // A write of unknown outcome means the same when it is done twice.
        while let Err(error) = client.batch_put(pairs.clone()).await {
            assert!(
                MonoTime::now() < deadline,
                "writes do not get on: {error}\n{}",
                cluster.logs()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if at % 40 == 20 {
            let victim = stores[at / 40 % stores.len()];
            cluster.nodes[victim].kill();
            cluster.nodes[victim].start();
            cluster.nodes[victim].must_be_ready();
        }
    }
    let deadline = MonoTime::now() + PATIENCE;
    while regions(&cluster).len() < REGIONS {
        assert!(MonoTime::now() < deadline, "regions do not divide:\n{}", cluster.logs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ferrite"));
    command.args([
        "ctl",
        "--pd-addr",
        &cluster.endpoints()[0],
        "region",
        "--split-at",
        "record-00000042x",
    ]);
    let told = command.output().expect("the binary runs");
    assert!(
        told.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&told.stderr),
        cluster.logs()
    );
    assert!(regions(&cluster).iter().any(|region| region["start"] == "record-00000042x"));
    // One that knows nothing yet, and one that believes in regions of long ago.
    for reader in [connect(&cluster).await, client] {
        for part in numbers.chunks(1_000) {
            let found = reader
                .batch_get(part.iter().map(|&number| key(number)))
                .await
                .expect("batch get");
            let mut found = text(found);
            found.sort();
            let mut wanted: Vec<_> = part.iter().map(|&number| (key(number), value(number, 1))).collect();
            wanted.sort();
            assert!(found == wanted, "{} of {} records are right", found.len(), wanted.len());
        }
    }
    println!("{} regions, {DIVIDED} records right", regions(&cluster).len());
}

/// Regions that divided and whose data is gone become one again, while clients write and a store is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regions_merge_when_their_data_is_gone() {
    const PUT: u32 = 6_000;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = dir.path().join("small.toml");
    let raft = "[raft]\nregion-split-size = \"64KiB\"\nregion-max-size = \"96KiB\"\nregion-heartbeat = \"1s\"\n";
    std::fs::write(&config, format!("{raft}[pd]\nmerge-after = \"3s\"\n")).expect("write a configuration");
    let mut cluster = Cluster::three(&["--config", config.to_str().expect("a path of text")]);
    cluster.must_be_replicated();
    let client = connect(&cluster).await;
    let put = |number: u32, version: u64| {
        let client = client.clone();
        async move {
            let deadline = MonoTime::now() + PATIENCE;
            while let Err(error) = client.put(key(number), value(number, version)).await {
                assert!(MonoTime::now() < deadline, "writes do not get on: {error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    for first in (0..PUT).step_by(100) {
        let pairs = (first..first + 100).map(|number| (key(number), value(number, 1)));
        client.batch_put(pairs).await.expect("batch put");
    }
    let deadline = MonoTime::now() + PATIENCE;
    while regions(&cluster).len() < 3 {
        assert!(MonoTime::now() < deadline, "regions do not divide:\n{}", cluster.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let divided = regions(&cluster).len();
    let kept: Vec<u32> = (0..PUT).step_by(200).collect();
    for pair in kept.windows(2) {
        client
            .delete_range(key(pair[0] + 1)..key(pair[1]))
            .await
            .expect("delete range");
    }
    client.delete_range(key(PUT - 199)..).await.expect("delete range");
    let victim = cluster.stores()[1];
    let (mut version, deadline) = (1, MonoTime::now() + 3 * PATIENCE);
    while regions(&cluster).len() > 1 {
        assert!(MonoTime::now() < deadline, "regions do not merge:\n{}", cluster.logs());
        version += 1;
        for &number in &kept {
            put(number, version).await;
        }
        if version == 5 {
            cluster.nodes[victim].kill();
            cluster.nodes[victim].start();
            cluster.nodes[victim].must_be_ready();
        }
    }
    for reader in [connect(&cluster).await, client.clone()] {
        let found = reader.scan(.., PUT).await.expect("scan");
        let wanted: Vec<_> = kept.iter().map(|&number| (key(number), value(number, version))).collect();
        assert_eq!(text(found), wanted, "after {version} rounds");
    }
    println!("{divided} regions became one under {version} rounds of writes");
}

/// All processes at once, the placement driver too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_killed_at_once() {
    let mut cluster = Cluster::three(&[]);
    cluster.must_be_replicated();
    {
        let client = connect(&cluster).await;
        client
            .batch_put((0..1_000).map(|number| (key(number), value(number, 1))))
            .await
            .expect("batch put");
        for number in 0..50 {
            client.put(key(number), value(number, 2)).await.expect("put");
        }
    }
    for _ in 0..2 {
        cluster.nodes.iter_mut().for_each(|node| node.kill());
        cluster.nodes.iter_mut().for_each(|node| node.start());
        cluster.nodes.iter_mut().for_each(|node| node.must_be_ready());
        let client = connect(&cluster).await;
        let expected: Vec<_> = (0..1_000).map(|n| (key(n), value(n, if n < 50 { 2 } else { 1 }))).collect();
        assert_eq!(text(client.scan(key(0)..key(1_000), 1_000).await.expect("scan")), expected);
    }
}
