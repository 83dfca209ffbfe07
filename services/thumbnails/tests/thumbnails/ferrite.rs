//! A Ferrite cluster, a real one in a process of its own: sources in it, and results that two servers share through it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base::MonoTime;
use client::{ClientOptions, RawClient};

use crate::common::{Server, call, quarters, to_png};

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Killed when dropped.
struct Cluster {
    child: Child,
    pd: String,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Cluster {
    fn start(dir: &Path) -> Cluster {
        let test = std::env::current_exe().expect("this binary");
        let profile = test.ancestors().nth(2).expect("lies in <target>/<profile>/deps");
        let binary = std::env::var_os("FERRITE_BIN").map_or(profile.join("ferrite"), PathBuf::from);
        assert!(
            binary.is_file(),
            "no {}: run `cargo build -p ferrite-server`, or name one by FERRITE_BIN",
            binary.display()
        );
        let mut command = Command::new(binary);
        command.args([
            "playground",
            "--stores",
            "1",
            "--free-ports",
            "--json",
            "--log-level",
            "error",
            "--data-dir",
        ]);
        let mut child = command.arg(dir).stdout(Stdio::piped()).spawn().expect("starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("is piped");
        BufReader::new(out).read_line(&mut line).expect("tells where it listens");
        let told: serde_json::Value = serde_json::from_str(&line).expect("one line of JSON");
        let pd = told["pd"].as_str().expect("an address").to_owned();
        Cluster { child, pd }
    }

    /// Writes `value` under `key`, by the client that everybody has.
    fn put(&self, key: &str, value: Vec<u8>) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let options = ClientOptions {
                deadline: PATIENCE,
                ..ClientOptions::default()
            };
            let client = RawClient::connect(&[&self.pd], options).await.expect("connects");
            client.put(key.to_owned(), value).await.expect("writes");
        });
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = MonoTime::now() + PATIENCE;
    while !holds() {
        assert!(MonoTime::now() < end, "waited in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn a_cluster_has_sources_and_shares_results() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(&dir.path().join("cluster"));
    cluster.put("photos/a b.png", to_png(&quarters(80, 40)));
    cluster.put("secrets/a.png", to_png(&quarters(80, 40)));
    let toml = format!(
        "[ferrite]\nendpoints = [\"{}\"]\nsources = \"photos/\"\nresults = \"thumbs/\"\ntimeout = \"5s\"\n",
        cluster.pd
    );
    let (one, other) = (Server::start(dir.path(), &toml), Server::start(dir.path(), &toml));
    let path = "/_/w:20/plain/ferrite:///a%20b.png@webp";
    let first = one.get(path);
    assert_eq!(first.status, 200, "{}", String::from_utf8_lossy(&first.body));
    assert_eq!(
        (first.picture(), first.header("cache-status")),
        (("webp", 20, 10), "ferrite-thumbnails; fwd=uri-miss")
    );
    for (source, status) in [
        ("ferrite:///none.png", 404),
        ("ferrite:///", 400),
        ("ferrite:///../secrets/a.png", 404),
    ] {
        assert_eq!(one.get(&format!("/_/w:20/plain/{source}")).status, status, "{source}");
    }
    let info = one.get("/info/_/plain/ferrite:///a%20b.png");
    assert!(info.status == 200 && String::from_utf8_lossy(&info.body).contains("\"width\":80"));

    let sent = |server: &Server| server.metric("ferrite_thumbnails_cluster_total{call=\"put\",outcome=\"sent\"}");
    wait_until("the result is sent", || sent(&one) >= 1.0);
    let shared = other.get(path);
    assert_eq!(shared.header("cache-status"), "ferrite-thumbnails; hit; detail=cluster");
    assert_eq!(
        (shared.body, shared.headers["etag"].as_str()),
        (first.body.clone(), first.header("etag"))
    );
    assert_eq!(
        other.get(path).header("cache-status"),
        "ferrite-thumbnails; hit; detail=memory"
    );
    // One that writes results in another way makes its own.
    let better = Server::start(dir.path(), &format!("{toml}[output]\nquality-webp = 95\n"));
    assert_eq!(better.get(path).header("cache-status"), "ferrite-thumbnails; fwd=uri-miss");

    // A purge on one server is one of the cluster's.
    let purged = call(&one.status_addr, "DELETE", "/purge/ferrite%3A%2F%2F%2Fa%20b.png", &[]);
    assert_eq!(purged.status, 200, "{}", String::from_utf8_lossy(&purged.body));
    let new = Server::start(dir.path(), &toml.replace("5s", "1s"));
    assert_eq!(new.get(path).header("cache-status"), "ferrite-thumbnails; fwd=uri-miss");

    // Without the cluster there is no source in it, but everything else is served, and soon nothing waits for it.
    drop(cluster);
    std::fs::write(dir.path().join("local.png"), to_png(&quarters(80, 40))).expect("writes");
    for width in 1..6 {
        let answer = new.get(&format!("/_/w:{width}/plain/local:///local.png"));
        assert_eq!(
            (answer.status, answer.header("cache-status")),
            (200, "ferrite-thumbnails; fwd=uri-miss")
        );
    }
    let start = MonoTime::now();
    assert_eq!(new.get("/_/w:9/plain/local:///local.png").status, 200);
    assert!(MonoTime::now().since(start) < Duration::from_secs(2), "it rests");
    let gone = new.get("/_/w:21/plain/ferrite:///a%20b.png").status;
    assert!(matches!(gone, 502 | 504), "{gone}");
}
