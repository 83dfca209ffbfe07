//! Redis Sentinel: real sentinels find another master, and clients of the proxy go on.

use std::process::Command;

use crate::harness::*;

/// A sentinel that watches the master at `port` as `main`.
fn sentinel(port: u16) -> Server {
    let own = free_port();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("sentinel.conf");
    let config = format!(
        "port {own}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {port} 2\nsentinel down-after-milliseconds main 500\n\
         sentinel failover-timeout main 3000\n",
        dir.path().display()
    );
    std::fs::write(&file, config).expect("writes");
    let mut command = Command::new(program("redis-server", "redis-server"));
    serve(command.arg(file).arg("--sentinel"), own, dir)
}

#[test]
fn clients_go_on_when_sentinels_find_another_master() {
    let mut master = redis();
    let follow = [
        "--replicaof",
        "127.0.0.1",
        &master.port.to_string(),
        "--repl-diskless-sync-delay",
        "0",
    ];
    let replicas = [redis_with(&follow), redis_with(&follow)];
    for replica in &replicas {
        let mut client = Client::connect(&replica.addr);
        eventually("a replica is in sync", || {
            client.ask("INFO replication").contains("master_link_status:up")
        });
    }
    let mut sentinels: Vec<_> = (0..3).map(|_| sentinel(master.port)).collect();
    for sentinel in &sentinels {
        let mut client = Client::connect(&sentinel.addr);
        eventually("the sentinels know each other and the replicas", || {
            let told = client.ask("SENTINEL MASTER main");
            told.contains("num-slaves 2") && told.contains("num-other-sentinels 2")
        });
    }
    let options = "backend = \"sentinel\"\nsentinel-master = \"main\"\nrefresh-interval = \"500ms\"\nreads = \"prefer-replica\"";
    let proxy = Proxy::start(&pool(&sentinels.iter().collect::<Vec<_>>(), options));
    let mut client = proxy.client();
    eventually("the master is known", || client.ask("SET n 1") == "OK");
    let mut at_master = Client::connect(&master.addr);
    assert_eq!(at_master.ask("GET n"), "1");
    // Reads go to replicas, writes never do.
    let gets = |server: &Server| {
        Client::connect(&server.addr)
            .ask("INFO commandstats")
            .contains("cmdstat_get:")
    };
    eventually("a replica answers reads", || {
        client.ask("GET n") == "1" && replicas.iter().any(gets)
    });
    assert_eq!(at_master.ask("WAIT 2 5000"), "2");
    // The master dies, and the sentinel that the proxy asks first.
    sentinels[0].process.kill();
    master.process.kill();
    let mut last = 1;
    let mut failures = 0;
    eventually("the new master takes writes", || match client.ask("INCR n") {
        answer if answer.starts_with('!') => {
            failures += 1;
            false
        }
        answer => {
            let value: i64 = answer.parse().expect("a number");
            // Nothing that was answered is lost; a write whose answer was lost may have been made.
            assert!(
                value > last && value <= last + 1 + failures,
                "{value} after {last}, {failures} failed"
            );
            last = value;
            true
        }
    });
    assert!(failures > 0);
    let is_master = |server: &Server| Client::connect(&server.addr).ask("ROLE").starts_with("[master");
    assert_eq!(replicas.iter().filter(|server| is_master(server)).count(), 1);
    for _ in 0..50 {
        last += 1;
        assert_eq!(client.ask("INCR n"), last.to_string());
    }
    eventually("the other replica follows, and answers", || {
        client.ask("GET n") == last.to_string()
    });
}
