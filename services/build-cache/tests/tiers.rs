//! Several cache servers, each a process, over one tier: what one stores the others serve, and a tier that is gone, slow or lies takes
//! nothing from them but its hits.

mod common;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base::MonoTime;
use blob_store::Key;
use build_cache::proto::reapi::action_cache_client::ActionCacheClient;
use build_cache::proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use build_cache::proto::reapi::{
    ActionResult, FindMissingBlobsRequest, GetActionResultRequest, OutputFile, UpdateActionResultRequest,
};

use futures::StreamExt as _;

use common::{Server, digest, noise, start};

/// Generous: the machine may be busy. Nothing waits this long when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder for everything, and servers with a configuration of tiers.
struct Site {
    dir: tempfile::TempDir,
    tiers: String,
}

impl Site {
    fn new(tiers: impl FnOnce(&Path) -> String) -> Site {
        let dir = tempfile::tempdir().expect("a folder");
        let tiers = tiers(dir.path());
        Site { dir, tiers }
    }

    /// The server called `name`, with its own data, kept over restarts.
    fn server(&self, name: &str) -> Server {
        let config = self.dir.path().join(format!("{name}.toml"));
        std::fs::write(&config, format!("[access]\nanonymous = \"admin\"\n{}", self.tiers)).expect("writes");
        start(&self.dir.path().join(name), &["--config", config.to_str().expect("text")])
    }
}

/// A number of the first tier, from the status page.
fn figure(server: &Server, name: &str) -> u64 {
    let (_, _, page) = server.call("GET", "/status", &[], b"");
    let page: serde_json::Value = serde_json::from_slice(&page).expect("JSON");
    let value = &page["tiers"][0][name];
    value.as_u64().or(value.as_bool().map(u64::from)).expect("a figure")
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = MonoTime::now() + PATIENCE;
    while !holds() {
        assert!(MonoTime::now() < end, "waited in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Paths of every protocol with their bodies: inline ones, chunked ones, compressible and not.
fn blobs() -> Vec<(String, Vec<u8>)> {
    let mut all = vec![("/cas/".to_owned() + &Key::sha256(b"x").to_string(), b"x".to_vec())];
    for (n, len) in [(1, 3_000), (2, 40_000), (3, 700_000), (4, 5_000_000), (5, 3_000_000)] {
        let body = noise(n, len);
        all.push((format!("/cas/{}", Key::sha256(&body)), body.clone()));
        all.push((format!("/ci/gradle/{n:032x}"), body.clone()));
        all.push((format!("/ci/ccache/ab/{n:031}"), body.clone()));
        all.push((format!("/ci/v8/artifacts/{n:016x}?slug=t"), body));
    }
    all
}

fn put_all(server: &Server) {
    for (path, body) in blobs() {
        let status = server.status("PUT", &path, &body);
        assert!((200..300).contains(&status), "{path}: {status}");
    }
}

fn must_get_all(server: &Server) {
    for (path, body) in blobs() {
        let (status, _, got) = server.call("GET", &path, &[], b"");
        assert_eq!((status, got == body), (200, true), "{path}");
    }
}

/// What holds over every tier that works and is written to. The tier comes back to how it was but for the blobs.
fn two_servers_share(site: &Site) {
    let (a, b) = (site.server("a"), site.server("b"));
    put_all(&a);
    let tag = [("x-artifact-tag", "signed")];
    assert_eq!(a.call("PUT", "/ci/v8/artifacts/ff?slug=t", &tag, b"artifact").0, 202);
    wait_until("everything is sent", || figure(&a, "queued") == 0);
    must_get_all(&b);
    let (_, fields, _) = b.call("GET", "/ci/v8/artifacts/ff?slug=t", &[], b"");
    assert_eq!(fields["x-artifact-tag"], "signed", "headers come along");
    assert!(
        figure(&b, "hits") >= 21 && figure(&b, "sent") == 0,
        "fetched, and not sent back"
    );
    let hits = figure(&b, "hits");
    must_get_all(&b);
    assert_eq!(figure(&b, "hits"), hits, "what was fetched is kept");
    // Names are apart by instance, content is everybody's.
    assert_eq!(b.status("GET", &format!("/other/gradle/{:032x}", 1), b""), 404);
    let body = noise(9, 100_000);
    let path = format!("cas/{}", Key::sha256(&body));
    assert_eq!(a.status("PUT", &format!("/x/{path}"), &body), 200);
    wait_until("it is sent", || figure(&a, "queued") == 0);
    assert_eq!(b.status("HEAD", &format!("/y/{path}"), b""), 200);
    // A name is written anew: who does not hold the old value gets the new one.
    assert_eq!(a.status("PUT", &format!("/ci/gradle/{:032x}", 4), &noise(6, 2_500_000)), 200);
    wait_until("it is sent", || figure(&a, "queued") == 0);
    let c = site.server("c");
    assert!(c.call("GET", &format!("/ci/gradle/{:032x}", 4), &[], b"").2 == noise(6, 2_500_000));
    // What is removed on one server is gone from the tier: one that never had it does not get it.
    assert_eq!(a.status("DELETE", &format!("/ci/ccache/ab/{:031}", 3), b""), 204);
    assert_eq!(a.status("DELETE", "/admin/instance/ci", b""), 200);
    for (n, place) in [(3, "ccache/ab/"), (1, "ccache/ab/"), (5, "ccache/ab/")] {
        assert_eq!(c.status("GET", &format!("/ci/{place}{n:031}"), b""), 404, "{n}");
    }
    assert_eq!(c.status("GET", &format!("/{path}"), b""), 200, "content stays");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.path().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

fn folder(mode: &str) -> impl FnOnce(&Path) -> String {
    let mode = mode.to_owned();
    move |dir| {
        let tier = dir.join("tier");
        std::fs::create_dir_all(&tier).expect("a folder");
        format!("[upstream]\nurl = \"file://{}/shared\"\nmode = \"{mode}\"\n", tier.display())
    }
}

#[test]
fn an_object_store_is_shared_and_may_go() {
    let site = Site::new(folder("write-back"));
    two_servers_share(&site);
    // The data of a server that is new, and no tier any more.
    std::fs::remove_dir_all(site.dir.path().join("tier")).expect("removes");
    let b = site.server("b");
    for (path, body) in blobs().into_iter().filter(|(path, _)| path.starts_with("/cas")) {
        assert!(b.call("GET", &path, &[], b"").2 == body, "{path}");
    }
    assert_eq!(b.status("GET", "/gradle/00ff", b""), 404);
    assert_eq!(b.status("PUT", "/gradle/00ff", b"still stored"), 200);
    assert_eq!(b.status("GET", "/gradle/00ff", b""), 200);
}

#[test]
fn write_through_is_there_before_the_answer_and_reading_alone_writes_nothing() {
    let site = Site::new(folder("write-through"));
    let a = site.server("a");
    for (path, body) in blobs() {
        a.status("PUT", &path, &body);
        let b = site.dir.path().join("b");
        let _fresh = std::fs::remove_dir_all(&b);
        if body.len() < 50_000 {
            assert!(site.server("b").call("GET", &path, &[], b"").2 == body, "{path}");
        }
    }
    let before = files(&site.dir.path().join("tier")).len();
    let reader = Site {
        dir: site.dir,
        tiers: site.tiers.replace("write-through", "read"),
    };
    let c = reader.server("c");
    must_get_all(&c);
    assert_eq!(c.status("PUT", "/gradle/00", b"kept here"), 200);
    assert_eq!(c.status("DELETE", &format!("/ci/ccache/ab/{:031}", 3), b""), 204);
    assert_eq!(files(&reader.dir.path().join("tier")).len(), before);
}

#[test]
fn damage_in_a_tier_is_a_miss_and_goes() {
    let site = Site::new(folder("write-back"));
    let a = site.server("a");
    put_all(&a);
    wait_until("everything is sent", || figure(&a, "queued") == 0);
    drop(a);
    let tier = site.dir.path().join("tier");
    // One byte of each body, somewhere behind the head; some are cut short, one is empty.
    let all = files(&tier);
    for (n, file) in all.iter().enumerate() {
        let mut bytes = std::fs::read(file).expect("reads");
        match n % 5 {
            4 => bytes.truncate(bytes.len() / 2),
            _ => {
                let at = 40 + (n * 7919) % (bytes.len() - 40);
                bytes[at] ^= 0x10;
            }
        }
        if n == 7 {
            bytes.clear();
        }
        std::fs::write(file, bytes).expect("writes");
    }
    let b = site.server("b");
    for (path, body) in blobs() {
        let (status, _, got) = b.call("GET", &path, &[], b"");
        // A flipped bit in a zstd frame may be one that does not count.
        assert!(status == 404 || (status == 200 && got == body), "{path}: {status}");
    }
    assert!(figure(&b, "damaged") as usize > all.len() / 2);
    assert_eq!(figure(&b, "up"), 1, "damage is no outage");
    let left = files(&tier).len();
    assert!(
        left <= all.len() - figure(&b, "damaged") as usize,
        "{left} of {} left",
        all.len()
    );
}

#[test]
fn a_server_that_speaks_http_is_an_upstream() {
    let upstream = Site::new(|_| String::new());
    let upstream = upstream.server("upstream");
    let addr = upstream.addr.clone();
    let site = Site::new(|_| format!("[upstream]\nurl = \"http://{addr}/dav/shared\"\n"));
    let (a, b) = (site.server("a"), site.server("b"));
    put_all(&a);
    wait_until("everything is sent", || figure(&a, "queued") == 0);
    must_get_all(&b);
    assert!(figure(&b, "hits") >= 21);
}

#[test]
fn a_tier_that_hangs_costs_little_and_is_left_alone() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("listens");
    let addr = silent.local_addr().expect("bound");
    let site = Site::new(|_| format!("[upstream]\nurl = \"http://{addr}/x\"\ntimeout = \"200ms\"\nmode = \"write-through\"\n"));
    let a = site.server("a");
    let begin = MonoTime::now();
    for n in 0..40 {
        assert_eq!(a.status("GET", &format!("/gradle/{n:04x}"), b""), 404);
    }
    assert_eq!(figure(&a, "up"), 0);
    assert!(figure(&a, "failed") <= 10, "most are not even asked");
    assert_eq!(a.status("PUT", "/gradle/0000", b"stored"), 200);
    assert_eq!(a.call("GET", "/gradle/0000", &[], b"").2, b"stored");
    assert!(MonoTime::now().since(begin) < Duration::from_secs(20));
    drop(a);
    // From the queue, which has an end: what is beyond is not sent, and stored here all the same.
    let bounds = "mode = \"write-back\"\nqueue-max = 5\nparallel = 2\n";
    let site = Site::new(|_| format!("[upstream]\nurl = \"http://{addr}/x\"\ntimeout = \"200ms\"\n{bounds}"));
    let b = site.server("b");
    for n in 0..40 {
        assert_eq!(b.status("PUT", &format!("/gradle/{n:04x}"), b"stored"), 200);
        assert!(figure(&b, "queued") <= 7);
    }
    assert!(figure(&b, "dropped") >= 30);
    assert_eq!(b.call("GET", "/gradle/0027", &[], b"").2, b"stored");
}

#[tokio::test]
async fn a_result_counts_as_whole_where_a_tier_has_its_blobs() {
    let site = Site::new(folder("write-back"));
    let (a, b) = (site.server("a"), site.server("b"));
    let output = noise(2, 90_000);
    a.status("PUT", &format!("/ci/cas/{}", Key::sha256(&output)), &output);
    let result = ActionResult {
        output_files: vec![OutputFile {
            path: "out".into(),
            digest: Some(digest(&output)),
            ..Default::default()
        }],
        ..Default::default()
    };
    let update = UpdateActionResultRequest {
        instance_name: "ci".into(),
        action_digest: Some(digest(b"action")),
        action_result: Some(result.clone()),
        ..Default::default()
    };
    let mut actions = ActionCacheClient::connect(a.url()).await.expect("connects");
    actions.update_action_result(update).await.expect("stores");
    wait_until("everything is sent", || figure(&a, "queued") == 0);

    let mut cas = ContentAddressableStorageClient::connect(b.url()).await.expect("connects");
    let request = FindMissingBlobsRequest {
        instance_name: "ci".into(),
        blob_digests: vec![digest(&output), digest(b"nowhere")],
        ..Default::default()
    };
    let missing = cas.find_missing_blobs(request).await.expect("answers").into_inner();
    assert_eq!(missing.missing_blob_digests, [digest(b"nowhere")]);
    let get = |instance: &str| GetActionResultRequest {
        instance_name: instance.into(),
        action_digest: Some(digest(b"action")),
        ..Default::default()
    };
    let mut actions = ActionCacheClient::connect(b.url()).await.expect("connects");
    assert_eq!(
        actions.get_action_result(get("ci")).await.expect("a hit").into_inner(),
        result
    );
    let other = actions.get_action_result(get("elsewhere")).await.expect_err("apart");
    assert_eq!(other.code(), tonic::Code::NotFound);
    // Without its blob the result is held back, by a server that has neither.
    for file in files(&site.dir.path().join("tier/shared/cas")) {
        std::fs::remove_file(file).expect("removes");
    }
    let c = site.server("c");
    let mut actions = ActionCacheClient::connect(c.url()).await.expect("connects");
    let held_back = actions.get_action_result(get("ci")).await.expect_err("is held back");
    assert_eq!(held_back.code(), tonic::Code::NotFound);
}

/// A database of one process, started from this very binary: see [`a_node_runs_where_it_is_asked_for`].
struct Node {
    config: PathBuf,
    pd: SocketAddr,
    child: Option<Child>,
}

const NODE: &str = "FERRITE_NODE_CONFIG";

impl Node {
    fn new(dir: &Path, api: &str) -> Node {
        let held: Vec<TcpListener> = (0..2)
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
            .collect();
        let [pd, store] = [0, 1].map(|at: usize| held[at].local_addr().expect("bound"));
        let text = format!(
            "[server]\naddr = \"{store}\"\nstatus-addr = \"\"\napi-version = \"{api}\"\ndata-dir = \"{}\"\n[pd]\naddr = \"{pd}\"\n",
            dir.join("node").display()
        );
        let config = dir.join("node.toml");
        std::fs::write(&config, text).expect("writes");
        let mut node = Node { config, pd, child: None };
        drop(held);
        node.start();
        node
    }

    fn start(&mut self) {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command
            .args(["--exact", "a_node_runs_where_it_is_asked_for"])
            .env(NODE, &self.config);
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts"));
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("is killed");
            child.wait().expect("is reaped");
        }
    }

    fn signal(&self, signal: &str) {
        let id = self.child.as_ref().expect("runs").id().to_string();
        let told = Command::new("kill").args([signal, &id]).status().expect("runs");
        assert!(told.success());
    }

    fn tiers(&self, more: &str) -> String {
        format!("[ferrite]\nendpoints = [\"{}\"]\n{more}", self.pd)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Not a test but the process of one: without the variable there is nothing to do.
#[test]
fn a_node_runs_where_it_is_asked_for() {
    let Some(config) = std::env::var_os(NODE) else { return };
    let text = std::fs::read_to_string(config).expect("reads");
    server::node::run(toml::from_str(&text).expect("a configuration")).expect("runs");
}

#[test]
fn a_cluster_is_shared_and_may_go_and_come_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(dir.path(), "v1");
    let site = Site::new(|_| node.tiers("prefix = \"cache/\"\n"));
    let first = site.server("first");
    // The cluster takes a moment to be there; until then everything is a miss.
    wait_until("the cluster is there", || {
        assert_eq!(first.status("PUT", "/probe/gradle/00", b"x"), 200);
        figure(&first, "sent") > 0
    });
    drop(first);
    two_servers_share(&site);

    let b = site.server("b");
    node.kill();
    let begin = MonoTime::now();
    assert_eq!(b.status("GET", "/gradle/00ff", b""), 404, "a miss, not an error");
    let late = noise(11, 1_500_000);
    let path = format!("/cas/{}", Key::sha256(&late));
    assert_eq!(b.status("PUT", &path, &late), 200);
    assert!(b.call("GET", &path, &[], b"").2 == late);
    for (path, body) in blobs().into_iter().filter(|(path, _)| path.starts_with("/cas")) {
        assert!(b.call("GET", &path, &[], b"").2 == body, "{path}");
    }
    assert!(MonoTime::now().since(begin) < Duration::from_secs(30), "nothing waits for it");
    node.start();
    wait_until("what was stored meanwhile is sent", || figure(&b, "queued") == 0);
    let d = site.server("d");
    wait_until("another server gets it", || d.call("GET", &path, &[], b"").2 == late);
}

/// Keys in the cluster that begin so.
async fn keys(client: &client::RawClient, prefix: &str) -> usize {
    let range = client::KeyRange::prefix(prefix.to_owned());
    let options = client::ScanOptions {
        keys_only: true,
        ..Default::default()
    };
    let found = client.scan(range, options).map(|pair| pair.expect("scans"));
    found.count().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_had_to_send_is_sent_and_what_it_left_is_removed() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(dir.path(), "v1");
    let site = Site::new(|_| node.tiers("prefix = \"cache/\"\nparallel = 1\n"));
    let first = site.server("first");
    wait_until("the cluster is there", || {
        assert_eq!(first.status("PUT", "/probe/gradle/00", b"x"), 200);
        figure(&first, "sent") > 0
    });
    put_all(&first);
    wait_until("everything is sent", || figure(&first, "queued") == 0);
    let client = client::RawClient::connect(&[node.pd.to_string()], client::ClientOptions::default()).await;
    let client = client.expect("connects");
    let whole = keys(&client, "cache/cas/d/").await;
    // Killed in the midst of a large blob: its chunks are there without a record, and behind it others wait.
    let large = noise(13, 60_000_000);
    let path = format!("/cas/{}", Key::sha256(&large));
    assert_eq!(first.status("PUT", &path, &large), 200);
    while keys(&client, "cache/cas/d/").await < whole + 3 {}
    node.signal("-STOP");
    for number in 0..50 {
        let status = first.status("PUT", &format!("/late/gradle/{number:032x}"), &noise(number, 20_000));
        assert_eq!(status, 200);
    }
    drop(first);
    node.signal("-CONT");
    let left = keys(&client, "cache/cas/d/").await;
    assert!(left > whole && left < whole + 58, "{left} of {whole} and 58");
    // What began a day ago is over; these are as old as the test says.
    let config = build_cache::config::FerriteConfig {
        endpoints: vec![node.pd.to_string()],
        prefix: "cache/".into(),
        ..Default::default()
    };
    let tier = build_cache::tier::Ferrite::new(&config);
    assert_eq!(
        tier.sweep_older(Duration::from_secs(3600)).await.expect("sweeps"),
        0,
        "too young"
    );
    // Names of uploads tell the second in which they began.
    let begun = base::WallTime::now().seconds();
    wait_until("the second is over", || base::WallTime::now().seconds() > begun);
    assert_eq!(tier.sweep_older(Duration::ZERO).await.expect("sweeps"), 1);
    assert_eq!(keys(&client, "cache/cas/d/").await, whole, "those that records name stay");
    assert_eq!(tier.sweep_older(Duration::ZERO).await.expect("sweeps"), 0);
    must_get_all(&site.server("second"));
    // The same data again, and the cluster too: what waited is sent, the large one with it.
    node.kill();
    node.start();
    let first = site.server("first");
    wait_until("what waited is sent", || figure(&first, "queued") == 0);
    assert_eq!(figure(&first, "dropped"), 0);
    assert_eq!(figure(&first, "sent"), 51);
    let third = site.server("third");
    assert!(third.call("GET", &path, &[], b"").2 == large);
    for number in 0..50 {
        let (_, _, got) = third.call("GET", &format!("/late/gradle/{number:032x}"), &[], b"");
        assert!(got == noise(number, 20_000), "{number}");
    }
}

#[test]
fn blobs_in_a_cluster_with_time_to_live_are_shared() {
    let dir = tempfile::tempdir().expect("a folder");
    let node = Node::new(dir.path(), "v2");
    let site = Site::new(|_| node.tiers("api = \"v2\"\nttl = \"24h\"\nmode = \"write-through\"\n"));
    let first = site.server("first");
    wait_until("the cluster is there", || {
        assert_eq!(first.status("PUT", "/probe/gradle/00", b"x"), 200);
        figure(&first, "sent") > 0
    });
    drop(first);
    two_servers_share(&site);
}
