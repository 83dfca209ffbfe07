//! What operators rely on: reload, users, ejection, mirroring, TLS, metrics.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::harness::*;

fn http(addr: &str, path: &str) -> String {
    let mut io = TcpStream::connect(addr).expect("connects");
    io.write_all(format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n").as_bytes())
        .expect("sends");
    let mut text = String::new();
    io.read_to_string(&mut text).expect("reads");
    text
}

#[test]
fn a_reload_changes_servers_and_keeps_clients() {
    let (first, second) = (redis(), redis());
    let proxy = Proxy::start(&pool(&[&first], ""));
    let mut client = proxy.client();
    assert_eq!(client.ask("SET a old"), "OK");
    Client::connect(&second.addr).ask("SET a new");
    std::fs::write(
        &proxy.file,
        pool(&[&second], "databases = 4").replace("threads = 2", "threads = 2\nslow = \"1s\""),
    )
    .expect("writes");
    proxy.process.signal(rustix::process::Signal::HUP);
    eventually("the same client reaches the new server", || client.ask("GET a") == "new");
    assert!(client.ask("SELECT 4").starts_with("!ERR DB index"));
    // A file with faults is refused whole.
    std::fs::write(&proxy.file, pool(&[&first], "databases = 0\nhash-tag = \"x\"")).expect("writes");
    proxy.process.signal(rustix::process::Signal::HUP);
    eventually("every fault is told", || {
        proxy.log().contains("databases") && proxy.log().contains("hash-tag")
    });
    assert_eq!(client.ask("GET a"), "new");
}

#[test]
fn users_are_held_to_their_rights() {
    let server = redis();
    let secret = cache_proxy::users::Secret::new(b"sesame", "0011");
    let users = format!(
        "[[pools.users]]\nname = \"app\"\npassword = \"{secret}\"\ncommands = [\"@read\", \"set\", \"ping\"]\nkeys = [\"app:\"]\n\
         [[pools.users]]\nname = \"slow\"\npassword = \"{secret}\"\nrate = 5"
    );
    let proxy = Proxy::start(&pool(&[&server], &users));
    let mut client = proxy.client();
    assert!(client.ask("GET app:x").starts_with("!NOAUTH"));
    assert!(client.ask("AUTH app wrong").starts_with("!WRONGPASS"));
    assert_eq!(client.ask("AUTH app sesame"), "OK");
    assert_eq!(client.ask("SET app:x 1"), "OK");
    assert_eq!(client.ask("MGET app:x app:y"), "[1 (nil)]");
    assert!(client.ask("MGET app:x other").starts_with("!NOPERM"));
    assert!(client.ask("DEL app:x").starts_with("!NOPERM"));
    let mut limited = proxy.client();
    limited.command("HELLO 3 AUTH slow sesame");
    assert!(limited.reply().expect("a reply").starts_with(b"%7"));
    let refused = (0..50).filter(|_| limited.ask("GET x").contains("exceeds its rate")).count();
    assert!(refused > 20, "{refused}");
    // A stranger may not make the proxy hold much.
    let mut stranger = proxy.client();
    stranger.send(b"*2\r\n$4\r\nAUTH\r\n$100000\r\n");
    assert!(stranger.answer().starts_with("!ERR Protocol error"));
}

#[test]
fn a_failing_server_leaves_the_ring_and_comes_back_after_probes() {
    let mut servers = [redis(), redis(), redis()];
    let options = "hash = \"murmur\"\neject = true\nprobe-interval = \"50ms\"\neject-failures = 2";
    let proxy = Proxy::start(&pool(&servers.each_ref(), options));
    let mut client = proxy.client();
    servers[1].process.kill();
    let mut all_work = || (0..60).all(|number| client.ask(&format!("SET k{number} 1")) == "OK");
    eventually("others have its keys", &mut all_work);
    let port = servers[1].port;
    let back = redis_at(port, &[]);
    eventually("it has keys again", || {
        all_work();
        Client::connect(&back.addr).ask("DBSIZE") != "0"
    });
}

#[test]
fn a_shadow_pool_gets_the_same_requests() {
    let (server, shadow) = (redis(), redis());
    let config = pool(&[&server], "mirror = \"shadow\"")
        + &format!(
            "[[pools]]\nname = \"shadow\"\nlisten = \"127.0.0.1:0\"\nservers = [\"{}\"]\n",
            shadow.addr
        );
    let proxy = Proxy::start(&config);
    let mut client = proxy.client();
    assert_eq!(client.ask("SET a 1"), "OK");
    assert_eq!(client.ask("MSET b 2 c 3"), "OK");
    let mut there = Client::connect(&shadow.addr);
    eventually("the shadow has them", || there.ask("MGET a b c") == "[1 2 3]");
}

#[test]
fn what_happens_is_told() {
    let server = redis();
    let config = pool(&[&server], "admin = true").replace(
        "threads = 2",
        "threads = 2\nadmin-addr = \"127.0.0.1:0\"\nslow = \"30ms\"\nbig = \"1KiB\"",
    );
    let proxy = Proxy::start(&config);
    let mut client = proxy.client();
    client.ask("CLIENT SETNAME watcher");
    for number in 0..2000 {
        client.ask(&format!("SET cold{number} 1"));
        client.ask("GET hot");
    }
    client.ask(&format!("SET big {}", "x".repeat(2000)));
    client.ask("BLPOP nothing 0.1");
    assert!(client.ask("HOTKEYS 1").starts_with("[hot "));
    assert!(client.ask("HOTKEYS BIG").starts_with("[big "));
    assert!(client.ask("SLOWLOG GET").contains("[blpop nothing]"));
    assert!(client.ask("INFO stats").contains("total_commands_processed:40"));
    assert!(client.ask("DBSIZE").parse::<i64>().expect("a number") > 1000);
    let mut cursor = "0".to_owned();
    let mut seen = 0;
    loop {
        let page = client.ask(&format!("SCAN {cursor} COUNT 500"));
        let mut words = page
            .trim_matches(['[', ']'])
            .split([' ', '['])
            .filter(|word| !word.is_empty());
        cursor = words.next().expect("a cursor").into();
        seen += words.count();
        if cursor == "0" {
            break;
        }
    }
    assert!(seen > 1000, "{seen}");
    let page = http(&proxy.addrs[1], "/metrics");
    assert!(
        page.contains("ferrite_cache_proxy_request_seconds_count{pool=\"main\",command=\"get\"} 2000"),
        "{page}"
    );
    assert!(page.contains(&format!("server_healthy{{pool=\"main\",server=\"{}\"}} 1", server.addr)));
    assert!(http(&proxy.addrs[1], "/healthz").contains("200 OK"));
    let mut other = proxy.client();
    let id = client.ask("CLIENT ID");
    assert_eq!(other.ask(&format!("CLIENT KILL ID {id}")), "1");
    assert!(client.is_closed());
}

#[test]
fn tls_on_both_sides() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()]).expect("makes");
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("writes");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("writes");
    let (cert, key) = (cert.to_str().expect("is text"), key.to_str().expect("is text"));
    let port = free_port().to_string();
    let server = redis_with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        cert,
        "--tls-key-file",
        key,
        "--tls-ca-cert-file",
        cert,
        "--tls-auth-clients",
        "no",
    ]);
    let config = pool(
        &[&server],
        &format!("server-tls = true\nserver-tls-ca = {cert:?}\ntls-certificate = {cert:?}\ntls-key = {key:?}"),
    )
    .replace(&server.addr, &format!("127.0.0.1:{port}"));
    let proxy = Proxy::start(&config);
    let proxy_port = proxy.addrs[0].rsplit(':').next().expect("a port");
    let tool = program("redis-cli", "redis-tools");
    let ask = |words: &[&str]| {
        let ran = std::process::Command::new(&tool)
            .args(["-h", "127.0.0.1", "-p", proxy_port, "--tls", "--cacert", cert])
            .args(words)
            .output();
        String::from_utf8_lossy(&ran.expect("runs").stdout).trim().to_owned()
    };
    assert_eq!(ask(&["SET", "a", "1"]), "OK");
    assert_eq!(ask(&["GET", "a"]), "1");
    // Without TLS nobody is served.
    let mut bare = proxy.client();
    bare.send(b"PING\r\n");
    let mut first = [0u8; 1];
    let count = bare.io.read(&mut first).unwrap_or(0);
    assert!(count == 0 || first != *b"+");
}
