//! Disasters: stores whose data is gone for good, in real processes.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::Output;

use base::MonoTime;
use client::RawClient;
use serde_json::Value;

use crate::common::{Cluster, PATIENCE, Part};
use crate::connect;

/// Where the first regions are cut; the tests' keys lie in all of them.
const REGIONS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// A placement driver and `stores` stores with five regions.
fn start(stores: usize) -> (Cluster, tempfile::NamedTempFile) {
    let mut config = tempfile::NamedTempFile::new().expect("a temporary file");
    writeln!(config, "[pd]\nsplit-keys = [\"b\", \"c\", \"d\", \"e\"]").expect("the disk has room");
    let mut parts = vec![Part::Store; stores + 1];
    parts[0] = Part::Pd;
    let path = config.path().display().to_string();
    (Cluster::start(&parts, &["--config", &path]), config)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

fn rows(output: &Output) -> Vec<Value> {
    let lines = text(&output.stdout).lines();
    lines
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect()
}

/// Runs a command of `ferrite ctl` that is to end with this code.
fn must_end(cluster: &Cluster, code: i32, args: &[&str]) -> Output {
    let output = cluster.ctl(args);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}{told}", text(&output.stdout));
    output
}

fn must(cluster: &Cluster, args: &[&str]) -> Output {
    must_end(cluster, 0, args)
}

/// Runs a command until it is done.
fn must_in_time(cluster: &Cluster, args: &[&str]) {
    let deadline = MonoTime::now() + PATIENCE;
    loop {
        let output = cluster.ctl(args);
        if output.status.success() {
            return;
        }
        assert!(MonoTime::now() < deadline, "{args:?}: {}", text(&output.stderr));
        std::thread::park_timeout(std::time::Duration::from_millis(200));
    }
}

/// Waits until every region has a voter on each of these stores and nowhere else.
fn must_lie_on(cluster: &Cluster, stores: &[u64]) {
    let deadline = MonoTime::now() + 2 * PATIENCE;
    let mut wanted = stores.to_vec();
    wanted.sort_unstable();
    let lies = |region: &Value| {
        let mut voters: Vec<u64> = region["voters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_u64)
            .collect();
        voters.sort_unstable();
        voters == wanted && region["learners"].as_array().is_some_and(Vec::is_empty)
    };
    loop {
        let regions = rows(&cluster.ctl(&["region", "--json"]));
        if regions.len() == REGIONS.len() && regions.iter().all(lies) {
            return;
        }
        assert!(
            MonoTime::now() < deadline,
            "wanted on {wanted:?}: {regions:?}\n{}",
            cluster.logs()
        );
        std::thread::park_timeout(std::time::Duration::from_millis(100));
    }
}

/// Writes that were acknowledged.
type Written = BTreeMap<String, String>;

async fn write(client: &RawClient, written: &mut Written, round: &str, count: usize) {
    for number in 0..count {
        for region in REGIONS {
            let (key, value) = (format!("{region}-{round}-{number}"), format!("{round} {number}"));
            client
                .put(key.clone(), value.clone())
                .await
                .expect("the cluster takes writes");
            written.insert(key, value);
        }
    }
}

async fn must_read_all(client: &RawClient, written: &Written) {
    for (key, value) in written {
        let found = client.get(key.clone()).await.expect("the cluster serves");
        assert_eq!(found.as_deref(), Some(value.as_bytes()), "{key}");
    }
}

fn dir(cluster: &Cluster, node: usize) -> String {
    cluster.nodes[node].data_dir().display().to_string()
}

/// Five copies of five regions on as many stores, and writes. The first store misses the second half of them; each of these is
/// acknowledged by three of the other four. Gives the ids of the stores too.
async fn one_of_five_is_behind() -> (Cluster, tempfile::NamedTempFile, Vec<u64>, RawClient, Written) {
    let (mut cluster, config) = start(5);
    must(&cluster, &["rule", "set", "app/copies", "--count", "5"]);
    let ids: Vec<u64> = (1..=5).map(|node| cluster.nodes[node].store_id()).collect();
    must_lie_on(&cluster, &ids);
    let client = connect(&cluster).await;
    let mut written = Written::new();
    write(&client, &mut written, "early", 20).await;
    cluster.nodes[1].kill();
    write(&client, &mut written, "late", 20).await;
    (cluster, config, ids, client, written)
}

/// Starts three new stores, whose disks are empty, and waits until every region lies on them and on those that are left.
fn replace_three(cluster: &mut Cluster, left: &[u64]) {
    let mut stores = left.to_vec();
    for node in 3..=5 {
        cluster.nodes[node].start();
        cluster.nodes[node].must_be_ready();
        stores.push(cluster.nodes[node].store_id());
    }
    must_lie_on(cluster, &stores);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_best_replica_goes_on_once_most_are_gone() {
    let (mut cluster, _config, ids, _client, mut written) = one_of_five_is_behind().await;
    let running = must_end(&cluster, 2, &["offline", "regions", &dir(&cluster, 2)]);
    assert!(
        text(&running.stderr).contains("the store runs: stop it first"),
        "{}",
        text(&running.stderr)
    );
    kill_with_survivors_ahead(&mut cluster);
    (3..=5).for_each(|node| cluster.nodes[node].wipe());

    recover(&cluster, &ids);
    for node in [1, 2] {
        must(&cluster, &["offline", "check", &dir(&cluster, node)]);
        cluster.nodes[node].start();
    }
    [1, 2].into_iter().for_each(|node| cluster.nodes[node].must_be_ready());
    let client = connect(&cluster).await;
    must_read_all(&client, &written).await;
    write(&client, &mut written, "after", 5).await;

    for lost in &ids[2..] {
        must_end(&cluster, 2, &["store", "remove", &lost.to_string()]);
        must_in_time(&cluster, &["store", "remove", &lost.to_string(), "--yes"]);
    }
    replace_three(&mut cluster, &ids[..2]);
    must_read_all(&client, &written).await;
    write(&client, &mut written, "whole", 5).await;
    (1..=5).for_each(|node| cluster.nodes[node].kill());
    for node in 2..=5 {
        must(&cluster, &["offline", "check", &dir(&cluster, node)]);
        must(&cluster, &["offline", "compare", &dir(&cluster, 1), &dir(&cluster, node)]);
    }
}

/// Kills what runs: the stores that will be lost, then the second survivor, which must have all that they had.
fn kill_with_survivors_ahead(cluster: &mut Cluster) {
    (3..=5).for_each(|node| cluster.nodes[node].kill());
    let mut reached = last_indexes(cluster, &[3, 4, 5]);
    cluster.nodes[2].kill();
    let survivors = last_indexes(cluster, &[1, 2]);
    reached.retain(|region, last| survivors.get(region).is_none_or(|had| had < last));
    assert_eq!(reached, BTreeMap::new(), "the load rested, so the survivor had all of it");
}

/// The highest index in the raft logs of each region on some stores that do not run.
fn last_indexes(cluster: &Cluster, nodes: &[usize]) -> BTreeMap<u64, u64> {
    let mut reached = BTreeMap::new();
    for &node in nodes {
        for region in rows(&must(cluster, &["offline", "regions", "--json", &dir(cluster, node)])) {
            let (Some(id), Some(last)) = (region["id"].as_u64(), region["last"].as_u64()) else {
                panic!("{region}");
            };
            let highest = reached.entry(id).or_default();
            *highest = last.max(*highest);
        }
    }
    reached
}

/// Recovers on what is left: first with one survivor too few, then as a dry run, then in earnest, as if each stood on a machine of its own.
fn recover(cluster: &Cluster, ids: &[u64]) {
    let lost = ids[2..].iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let (behind, ahead) = (dir(cluster, 1), dir(cluster, 2));
    let report = |node: usize| -> PathBuf {
        let path = cluster.nodes[node].data_dir().join("report.json");
        let output = must(cluster, &["offline", "report", &dir(cluster, node)]);
        std::fs::write(&path, output.stdout).expect("the disk has room");
        path
    };
    let unsafe_recover = ["offline", "unsafe-recover", "--json", "--lost-stores", &lost];
    let alone = rows(&must(cluster, &[&unsafe_recover[..], &[&ahead]].concat()));
    assert_eq!(alone.len(), REGIONS.len());
    let unseen = format!("store {} holds a peer too", ids[0]);
    assert!(
        alone
            .iter()
            .all(|row| row["reason"].as_str().is_some_and(|reason| reason.starts_with(&unseen)))
    );

    let dry = rows(&must(cluster, &[&unsafe_recover[..], &[&behind, &ahead]].concat()));
    assert!(
        dry.iter().all(|row| row["store"] == ids[1] && row["gives_way"][0] == ids[0]),
        "{dry:?}"
    );
    let (of_behind, of_ahead) = (report(1), report(2));
    let with = |path: &PathBuf| path.display().to_string();
    must(
        cluster,
        &[&unsafe_recover[..], &["--yes", "--reports", &with(&of_behind), &ahead]].concat(),
    );
    let old = with(&of_ahead);
    let stale = ["--yes", "--reports", &old, &behind, &ahead];
    let refused = must_end(cluster, 2, &[&unsafe_recover[..], &stale].concat());
    assert!(text(&refused.stderr).contains("is out of date"));
    let of_ahead = report(2);
    let again = must(
        cluster,
        &[&unsafe_recover[..], &["--yes", "--reports", &with(&of_ahead), &behind]].concat(),
    );
    assert!(
        text(&again.stderr).starts_with("5 regions keep a majority"),
        "{}",
        text(&again.stderr)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_lost_its_disk_is_replaced() {
    let (mut cluster, _config) = start(3);
    let ids: Vec<u64> = (1..=3).map(|node| cluster.nodes[node].store_id()).collect();
    must_lie_on(&cluster, &ids);
    let client = connect(&cluster).await;
    let mut written = Written::new();
    write(&client, &mut written, "early", 20).await;
    cluster.nodes[3].kill();
    cluster.nodes[3].wipe();
    write(&client, &mut written, "late", 20).await;

    let lost = ids[2].to_string();
    let early = must_end(&cluster, 2, &["store", "remove", &lost, "--yes"]);
    assert!(
        text(&early.stderr).contains("heard of a moment ago"),
        "{}",
        text(&early.stderr)
    );
    must_in_time(&cluster, &["store", "remove", &lost, "--yes"]);
    cluster.nodes[3].start();
    cluster.nodes[3].must_be_ready();
    let new = cluster.nodes[3].store_id();
    assert!(!ids.contains(&new), "a new store has an id of its own");
    must_lie_on(&cluster, &[ids[0], ids[1], new]);
    must_read_all(&client, &written).await;

    // The new store's copies are whole: with another one gone they are needed for everything.
    cluster.nodes[1].kill();
    must_read_all(&client, &written).await;
    write(&client, &mut written, "after", 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_runs_goes_on_without_most_of_its_stores() {
    let (mut cluster, _config, ids, client, mut written) = one_of_five_is_behind().await;
    kill_with_survivors_ahead(&mut cluster);
    // The placement driver may be restarted at any time; it believes then for a while that all stores live.
    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    cluster.nodes[0].must_be_ready();
    let lost = ids[2..].iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let unsafe_recover = ["unsafe-recover", "--json", "--lost-stores", &lost];
    let silent = must_end(&cluster, 2, &unsafe_recover);
    assert!(
        text(&silent.stderr).contains("does not answer: name it as lost"),
        "{}",
        text(&silent.stderr)
    );
    [1, 2].into_iter().for_each(|node| cluster.nodes[node].start());
    [1, 2].into_iter().for_each(|node| cluster.nodes[node].must_be_ready());

    let dry = rows(&must(&cluster, &unsafe_recover));
    assert_eq!(dry.len(), REGIONS.len());
    assert!(dry.iter().all(|row| row["store"] == ids[1]), "{dry:?}");
    let early = must_end(&cluster, 2, &[&unsafe_recover[..], &["--yes"]].concat());
    assert!(
        text(&early.stderr).contains("heard of a moment ago"),
        "{}",
        text(&early.stderr)
    );
    must_in_time(&cluster, &[&unsafe_recover[..], &["--yes"]].concat());
    let again = must(&cluster, &[&unsafe_recover[..], &["--yes"]].concat());
    assert!(
        text(&again.stderr).starts_with("5 regions keep a majority"),
        "{}",
        text(&again.stderr)
    );
    must_read_all(&client, &written).await;
    write(&client, &mut written, "after", 5).await;

    (3..=5).for_each(|node| cluster.nodes[node].wipe());
    replace_three(&mut cluster, &ids[..2]);
    must_read_all(&client, &written).await;
}

/// Has one copy of each region lie on a store, but for one region, which is to lie on another.
fn must_lie_apart(cluster: &Cluster, most: u64, (one, there): (&str, u64)) {
    let deadline = MonoTime::now() + 2 * PATIENCE;
    loop {
        let regions = rows(&cluster.ctl(&["region", "--json"]));
        let mut lie = regions.len() == REGIONS.len();
        for region in &regions {
            let (id, voters) = (region["id"].to_string(), &region["voters"]);
            let (to, from) = if id == one { (there, most) } else { (most, there) };
            if *voters == serde_json::json!([from]) {
                // Refused while an order stands: asked again.
                let _asked = cluster.ctl(&["operator", "add", "transfer-peer", &id, &from.to_string(), &to.to_string()]);
            }
            lie &= *voters == serde_json::json!([to]) && region["learners"] == serde_json::json!([]);
        }
        if lie {
            return;
        }
        assert!(MonoTime::now() < deadline, "{regions:?}\n{}", cluster.logs());
        std::thread::park_timeout(std::time::Duration::from_millis(200));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_region_stands_in_where_no_copy_is_left() {
    let (mut cluster, _config) = start(2);
    must(&cluster, &["scheduler", "balance", "off"]);
    must(&cluster, &["rule", "set", "app/copies", "--count", "1"]);
    let ids: Vec<u64> = (1..=2).map(|node| cluster.nodes[node].store_id()).collect();
    let (kept, lost) = (1, 2);
    let (kept_id, lost_id) = (ids[0], ids[1].to_string());
    let region = rows(&must(&cluster, &["region", "--json", "--key", "c"]))[0]["id"].to_string();
    must_lie_apart(&cluster, kept_id, (&region, ids[1]));
    let client = connect(&cluster).await;
    let mut written = Written::new();
    write(&client, &mut written, "early", 10).await;
    let deadline = MonoTime::now() + PATIENCE;
    while cluster.nodes[kept].regions() != 4 {
        assert!(MonoTime::now() < deadline, "the copy that moved stays:\n{}", cluster.logs());
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
    for node in [lost, kept] {
        cluster.nodes[node].kill();
    }
    cluster.nodes[lost].wipe();

    let data = dir(&cluster, kept);
    let told = must(&cluster, &["offline", "unsafe-recover", "--lost-stores", &lost_id, &data]);
    let hole = "none of the given stores holds anything from c to d";
    assert!(text(&told.stderr).contains(hole), "{}", text(&told.stderr));
    let create = |start| {
        [
            "offline",
            "create-region",
            &data,
            &region,
            "--start",
            start,
            "--end",
            "d",
            "--yes",
        ]
    };
    let taken = must_end(&cluster, 2, &create("b"));
    assert!(
        text(&taken.stderr).contains("another region of this store"),
        "{}",
        text(&taken.stderr)
    );
    must(&cluster, &create("c"));
    must(&cluster, &["offline", "check", &data]);
    cluster.nodes[kept].start();
    cluster.nodes[kept].must_be_ready();
    must_lie_apart(&cluster, kept_id, (&region, kept_id));
    written.retain(|key, _| !key.starts_with('c'));
    let client = connect(&cluster).await;
    assert_eq!(client.get("c-early-0".to_owned()).await.expect("the region serves"), None);
    write(&client, &mut written, "after", 5).await;
    must_read_all(&client, &written).await;
}
