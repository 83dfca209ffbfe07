//! Our own client, and `ferrite ctl` on top of it, against one process that is a whole database.

mod api;
#[path = "../common/mod.rs"]
mod common;

use std::process::{Command, Output};

use client::{Api, ClientOptions, Keyspace, RawClient};
use common::Cluster;

/// Both ways of sending, against one cluster.
async fn exercise(cluster: &Cluster, api: Api) {
    for batch_commands in [true, false] {
        let options = ClientOptions {
            api: api.clone(),
            batch_commands,
            deadline: common::PATIENCE,
            ..Default::default()
        };
        let client = RawClient::connect(&cluster.endpoints(), options).await.expect("connect");
        let prefix = if api == Api::V1 { 0 } else { 4 };
        api::whole_api(&client, prefix).await;
    }
}

#[tokio::test]
async fn api_v1() {
    exercise(&Cluster::one(&[]), Api::V1).await;
}

#[tokio::test]
async fn api_v1_with_ttl() {
    exercise(&Cluster::one(&["--api-version", "v1ttl"]), Api::V1).await;
}

#[tokio::test]
async fn api_v2() {
    exercise(&Cluster::one(&["--api-version", "v2"]), Api::V2(Keyspace::Id(0))).await;
}

/// A region that many read from becomes two, near the middle of what they read; one that is idle stays as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_region_divides() {
    let config = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(config.path(), "[server]\nsplit-qps = 200\n[pd]\nmerge-after = \"0s\"\n").expect("write");
    let cluster = Cluster::one(&["--config", &config.path().display().to_string()]);
    let client = RawClient::connect(&cluster.endpoints(), ClientOptions::default())
        .await
        .expect("connect");
    let key = |number: usize| format!("key{number:04}");
    let pairs = (0..1000).map(|number| (key(number), "value"));
    client.batch_put(pairs).await.expect("batch put");
    let borders = || -> Vec<String> {
        let (code, out, err) = ctl(&cluster, &["region", "--json"]);
        assert_eq!(code, 0, "{err}");
        let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("an object a line");
        let start = |region: serde_json::Value| region["start"].as_str().unwrap_or_default().to_owned();
        out.lines().map(parse).map(start).filter(|start| !start.is_empty()).collect()
    };
    assert_eq!(borders(), [] as [&str; 0]);
    let deadline = base::MonoTime::now() + common::PATIENCE;
    while borders().is_empty() {
        assert!(base::MonoTime::now() < deadline, "the region is not divided");
        for number in 0..1000 {
            let found = client.get(key(number * 7 % 1000)).await.expect("get");
            assert!(found.is_some(), "{number}");
        }
    }
    let border = &borders()[0];
    assert!(*border > key(150) && *border < key(850), "divided at {border}");
}

/// Runs `ferrite ctl`: exit code, standard output, standard error.
fn ctl(cluster: &Cluster, line: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrite"));
    command.arg("ctl").args(["--pd-addr", &cluster.endpoints()[0]]).args(line);
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code().expect("ended by itself"), text(stdout), text(stderr))
}

#[test]
fn ctl_reads_writes_and_looks() {
    let cluster = Cluster::one(&[]);
    let done = |line: &[&str]| {
        let (code, out, err) = ctl(&cluster, line);
        assert_eq!(code, 0, "{line:?}: {err}");
        out
    };
    done(&["put", "a", r"line\n\xff"]);
    done(&["put", "b", "2"]);
    done(&["put", "--hex", "6300", "33"]);
    assert_eq!(done(&["get", "a"]), "line\\n\\xff\n");
    assert_eq!(done(&["get", "--hex", "6300"]), "33\n");
    assert_eq!(done(&["get", "a", "--json"]), "{\"value\":\"line\\\\n\\\\xff\"}\n");
    assert_eq!(done(&["scan"]), "a\tline\\n\\xff\nb\t2\nc\\x00\t3\n");
    assert_eq!(done(&["scan", "--reverse", "--limit", "2", "--keys-only"]), "c\\x00\nb\n");
    assert_eq!(done(&["scan", "b", "c"]), "b\t2\n");
    assert_eq!(done(&["scan", "--prefix", "c"]), "c\\x00\t3\n");
    done(&["del", "a"]);
    assert_eq!(ctl(&cluster, &["get", "a"]), (1, String::new(), "not found\n".into()));

    let json = |line: &[&str]| -> serde_json::Value { serde_json::from_str(&done(line)).expect("one object") };
    let store = json(&["store", "--json"]);
    assert_eq!(store["state"], "up");
    let id = store["id"].to_string();
    assert_eq!(json(&["store", &id, "--json"])["address"], store["address"]);
    assert_eq!(ctl(&cluster, &["store", "99999"]).0, 1);
    let region = json(&["region", "--key", "b", "--json"]);
    assert_eq!(region["leader"], store["id"]);
    assert_eq!(json(&["region", &region["id"].to_string(), "--json"])["id"], region["id"]);
    assert_eq!(ctl(&cluster, &["region", "99999"]).0, 1);
    assert!(done(&["region"]).starts_with("ID"));
    assert_eq!(json(&["member", "--json"])["role"], "leader");
    let ts = || json(&["tso", "--json"])["ts"].as_u64().expect("a number");
    assert!(ts() < ts());

    let (code, out, err) = ctl(&cluster, &["get", r"bad\q"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("cannot be read"), "{err}");
}
