//! What operators rely on: reload, users, ejection, mirroring, TLS, metrics.

use std::io::Read as _;

use crate::harness::*;

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
    // Nobody has to tell it: a file that changes is read, also one that was put in the place of another.
    let moved = proxy.file.with_extension("new");
    std::fs::write(
        &moved,
        pool(&[&first], "").replace("threads = 2", "threads = 2\nslow = \"2s\""),
    )
    .expect("writes");
    std::fs::rename(&moved, &proxy.file).expect("moves");
    eventually("the same client reaches the old server again", || {
        client.ask("GET a") == "old"
    });
    std::fs::write(&proxy.file, pool(&[&second], "")).expect("writes");
    eventually("and the new one", || client.ask("GET a") == "new");
    // A file with faults is refused whole.
    std::fs::write(&proxy.file, pool(&[&first], "databases = 0\nhash-tag = \"x\"")).expect("writes");
    proxy.process.signal(rustix::process::Signal::HUP);
    eventually("every fault is told", || {
        proxy.log().contains("databases") && proxy.log().contains("hash-tag")
    });
    assert_eq!(client.ask("GET a"), "new");
}

/// As editors write, and as Kubernetes mounts a ConfigMap: the file is a link into a folder that is a link, and that one is exchanged. The
/// file is looked at unasked every 30 s, so what is seen earlier was told by an event.
#[test]
fn a_file_that_is_put_in_place_of_another_is_read_at_once() {
    let servers = [redis(), redis()];
    for (server, value) in servers.iter().zip(["first", "second"]) {
        Client::connect(&server.addr).ask(&format!("SET where {value}"));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, at(name)).expect("links");
    for (folder, server) in [("..one", &servers[0]), ("..two", &servers[1])] {
        std::fs::create_dir(at(folder)).expect("makes");
        std::fs::write(at(folder).join("proxy.toml"), pool(&[server], "")).expect("writes");
    }
    link("..one", "..data");
    link("..data/proxy.toml", "proxy.toml");
    let file = at("proxy.toml");
    let rename = |from: &str, to: &str| std::fs::rename(at(from), at(to)).expect("moves");
    let exchange = || {
        link("..two", "..data_tmp");
        rename("..data_tmp", "..data");
    };
    let edit = |server: &Server| {
        std::fs::write(at("..two/.proxy.toml.swp"), pool(&[server], "")).expect("writes");
        rename("..two/.proxy.toml.swp", "..two/proxy.toml");
    };
    let changes: [(&dyn Fn(), &str); 3] = [
        (&exchange, "second"),
        (&|| edit(&servers[0]), "first"),
        (&|| edit(&servers[1]), "second"),
    ];
    let proxy = Proxy::start_with(file, tempfile::tempdir().expect("a directory"));
    let mut client = proxy.client();
    assert_eq!(client.ask("GET where"), "first");
    for (change, wanted) in changes {
        let began = base::MonoTime::now();
        change();
        eventually("the new file holds", || client.ask("GET where") == wanted);
        let took = base::MonoTime::now().since(began);
        assert!(
            took.as_secs() < 15,
            "{wanted} after {took:?}: found by looking, not by an event"
        );
    }
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
    assert_eq!(client.ask("KEYS big"), "[big]");
    assert_eq!(client.ask("CONFIG SET maxmemory-policy allkeys-lru"), "OK");
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
    assert_eq!(client.ask("FLUSHALL"), "OK");
    assert_eq!(client.ask("DBSIZE"), "0");
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
    let make = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()]).expect("makes");
        let (cert, key) = (
            dir.path().join(format!("{name}.pem")),
            dir.path().join(format!("{name}-key.pem")),
        );
        std::fs::write(&cert, made.cert.pem()).expect("writes");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("writes");
        [cert, key].map(|path| path.to_str().expect("is text").to_owned())
    };
    let ([server_cert, server_key], [cert, key]) = (make("server"), make("proxy"));
    let port = free_port().to_string();
    let server = redis_with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &server_cert,
        "--tls-key-file",
        &server_key,
        "--tls-ca-cert-file",
        &server_cert,
        "--tls-auth-clients",
        "no",
    ]);
    let config = pool(
        &[&server],
        &format!("server-tls = true\nserver-tls-ca = {server_cert:?}\ntls-certificate = {cert:?}\ntls-key = {key:?}"),
    )
    .replace(&server.addr, &format!("127.0.0.1:{port}"));
    let proxy = Proxy::start(&config);
    let proxy_port = proxy.addrs[0].rsplit(':').next().expect("a port");
    let tool = program("redis-cli", "redis-tools");
    let ask = |words: &[&str]| {
        let ran = std::process::Command::new(&tool)
            .args(["-h", "127.0.0.1", "-p", proxy_port, "--tls", "--cacert", &cert])
            .args(words)
            .output();
        String::from_utf8_lossy(&ran.expect("runs").stdout).trim().to_owned()
    };
    assert_eq!(ask(&["SET", "a", "1"]), "OK");
    assert_eq!(ask(&["GET", "a"]), "1");
    // Another certificate at the same place: clients that trust nothing else are served.
    make("proxy");
    assert_ne!(ask(&["GET", "a"]), "1");
    proxy.process.signal(rustix::process::Signal::HUP);
    eventually("the new certificate is shown", || ask(&["GET", "a"]) == "1");
    // Without TLS nobody is served.
    let mut bare = proxy.client();
    bare.send(b"PING\r\n");
    let mut first = [0u8; 1];
    let count = bare.io.read(&mut first).unwrap_or(0);
    assert!(count == 0 || first != *b"+");
}

#[test]
fn one_slow_server_does_not_take_all_requests() {
    let servers = [redis(), redis()];
    let proxy = Proxy::start(&pool(
        &servers.each_ref(),
        "in-flight-max = 5\ntimeout-request = \"300ms\"\nhash = \"murmur\"",
    ));
    let mut client = proxy.client();
    let is_at_first = |key: &String| Client::connect(&servers[0].addr).ask(&format!("EXISTS {key}")) == "1";
    let keys: Vec<_> = (0..40).map(|number| format!("k{number}")).collect();
    keys.iter()
        .for_each(|key| assert_eq!(client.ask(&format!("SET {key} 1")), "OK"));
    let slow: Vec<_> = keys.iter().filter(|key| is_at_first(key)).take(10).collect();
    let fast = keys.iter().find(|key| !is_at_first(key)).expect("both have keys");
    servers[0].process.signal(rustix::process::Signal::STOP);
    slow.iter().for_each(|key| client.command(&format!("GET {key}")));
    // Others are served meanwhile.
    assert_eq!(proxy.client().ask(&format!("GET {fast}")), "1");
    let answers: Vec<_> = slow.iter().map(|_| client.answer()).collect();
    let count = |text: &str| answers.iter().filter(|answer| answer.contains(text)).count();
    assert_eq!(
        (count("no reply within 300ms"), count("too many requests in flight")),
        (5, 5),
        "{answers:?}"
    );
    servers[0].process.signal(rustix::process::Signal::CONT);
    eventually("it answers again", || client.ask(&format!("GET {}", slow[0])) == "1");
}

#[test]
fn commands_of_modules_are_learnt_from_a_server() {
    // A server with a module, as far as the proxy sees one.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
    let addr = listener.local_addr().expect("has an address").to_string();
    let _server = base::thread::spawn("module", move || {
        for link in listener.incoming() {
            let Ok(mut link) = link else { break };
            let _link = base::thread::spawn("link", move || {
                let mut room = [0u8; 4096];
                while let Ok(count @ 1..) = link.read(&mut room) {
                    let request = String::from_utf8_lossy(&room[..count]).to_lowercase();
                    let fact = "*1\r\n*6\r\n$8\r\ndemo.get\r\n:-2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n";
                    let reply = match request {
                        request if request.contains("demo.get") => "+served\r\n",
                        request if request.contains("command") => fact,
                        _ => "+PONG\r\n",
                    };
                    if std::io::Write::write_all(&mut link, reply.as_bytes()).is_err() {
                        break;
                    }
                }
            });
        }
    });
    let config = format!("[[pools]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nservers = [{addr:?}]\nlearn-commands = true\n");
    let proxy = Proxy::start(&config);
    let mut client = proxy.client();
    eventually("the command is known", || client.ask("DEMO.GET k") == "served");
    assert!(client.ask("DEMO.SET k").starts_with("!ERR unknown command"));
}

#[test]
fn commands_of_a_real_module_are_learnt_and_served() {
    let module = program("redisearch.so", "redis-redisearch");
    let server = redis_with(&["--loadmodule", module.to_str().expect("is text")]);
    let proxy = Proxy::start(&pool(&[&server], "learn-commands = true"));
    let mut client = proxy.client();
    eventually("the commands are known", || {
        !client.ask("FT.SEARCH books x").starts_with("!ERR unknown command")
    });
    assert_eq!(client.ask("FT.CREATE books SCHEMA title TEXT year NUMERIC"), "OK");
    for (number, title) in [(1, "ferrite"), (2, "copper")] {
        let added = client.ask(&format!("FT.ADD books book:{number} 1.0 FIELDS title {title} year 2026"));
        assert_eq!(added, "OK");
    }
    assert_eq!(client.ask("FT.SEARCH books ferrite NOCONTENT"), "[1 book:1]");
    assert!(client.ask("FT.NONE books").starts_with("!ERR unknown command"));
    // Known to clients as well.
    assert!(client.ask("COMMAND INFO ft.search").starts_with("[[ft.search "));
    assert_eq!(client.ask("GET none"), "(nil)");
}

#[test]
fn the_command_line_checks_and_converts() {
    let dir = tempfile::tempdir().expect("a directory");
    let run = |args: &[&str]| {
        let ran = std::process::Command::new(env!("CARGO_BIN_EXE_ferrite-cache-proxy"))
            .args(args)
            .output();
        let ran = ran.expect("runs");
        let text = |bytes| String::from_utf8(bytes).expect("is text");
        (ran.status.code(), text(ran.stdout), text(ran.stderr))
    };
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("writes");
        path.to_str().expect("is text").to_owned()
    };
    let bad = file("bad.toml", "[[pools]]\nname = \"a\"\nlisten = \"x\"\nhash-tag = \"{\"\n");
    let (code, _, told) = run(&["serve", "--config", &bad, "--check-config"]);
    assert_eq!(code, Some(1));
    for fault in ["listen", "hash-tag", "servers"] {
        assert!(told.contains(fault), "{fault} not in {told}");
    }
    let yaml = file(
        "nutcracker.yml",
        "alpha:\n  listen: 127.0.0.1:22121\n  hash: crc32a\n  distribution: modula\n  redis: true\n  timeout: 400\n  servers:\n   - 10.0.0.1:6379:1 one\n",
    );
    let (code, made, _) = run(&["convert", &yaml]);
    assert_eq!(code, Some(0));
    let made = file("made.toml", &made);
    let (code, _, told) = run(&["serve", "--config", &made, "--check-config"]);
    assert_eq!(code, Some(0), "{told}");
    let config = cache_proxy::config::Config::load(std::path::Path::new(&made)).expect("reads");
    assert_eq!(config.pools[0].servers, ["10.0.0.1:6379:1 one"]);
    assert_eq!(config.pools[0].hash, cache_proxy::hash::Hash::Crc32a);
}
