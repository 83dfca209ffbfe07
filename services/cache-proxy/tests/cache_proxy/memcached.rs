//! Memcached clients: text, meta, binary.

use std::process::Command;

use crate::harness::*;

fn pool_of(servers: &[&Server], options: &str) -> String {
    pool(servers, &format!("protocol = \"memcached\"\n{options}"))
}

impl Client {
    fn says(&mut self, line: &str, wanted: &[&str]) {
        self.send(format!("{line}\r\n").as_bytes());
        for wanted in wanted {
            assert_eq!(self.line(), *wanted, "{line}");
        }
    }
}

#[test]
fn text_commands_over_several_servers() {
    let servers = [memcached(), memcached(), memcached()];
    let proxy = Proxy::start(&pool_of(&servers.each_ref(), ""));
    let mut client = proxy.client();
    client.says("set a 5 0 3\r\nabc", &["STORED"]);
    client.says("get a", &["VALUE a 5 3", "abc", "END"]);
    client.says("add a 0 0 1\r\nx", &["NOT_STORED"]);
    client.says("append a 0 0 1\r\nd", &["STORED"]);
    client.says("get none", &["END"]);
    client.says("set n 0 0 2\r\n10", &["STORED"]);
    client.says("incr n 5", &["15"]);
    client.says("decr n 1 noreply\r\nget n", &["VALUE n 0 2", "14", "END"]);
    client.says("touch n 100", &["TOUCHED"]);
    client.says("delete n", &["DELETED"]);
    client.says("delete n", &["NOT_FOUND"]);
    client.says("frobnicate", &["ERROR"]);
    client.says("set a 0 0 x", &["CLIENT_ERROR bad command line format"]);
    client.says(
        "flush_all",
        &["CLIENT_ERROR flush_all concerns all servers: it wants admin = true in the pool's configuration"],
    );
    // Values that look like protocol; keys over all servers; a pipeline.
    let mut batch = String::new();
    for number in 0..100 {
        batch += &format!("set k{number} 0 0 7 noreply\r\nEND\r\n{:02}\r\n", number % 100);
    }
    client.send(batch.as_bytes());
    let keys: Vec<_> = (0..100).map(|number| format!("k{number}")).collect();
    client.send(format!("get {}\r\n", keys.join(" ")).as_bytes());
    let mut found = Vec::new();
    for _ in 0..100 {
        let head = client.line();
        found.push(head.split(' ').nth(1).expect("a key").to_owned());
        assert!(client.bytes(9).starts_with(b"END\r\n"), "{head}");
    }
    assert_eq!(client.line(), "END");
    found.sort();
    let mut wanted = keys;
    wanted.sort();
    assert_eq!(found, wanted);
}

#[test]
fn meta_commands_loud_and_quiet() {
    let servers = [memcached(), memcached()];
    let proxy = Proxy::start(&pool_of(&servers.each_ref(), ""));
    let mut client = proxy.client();
    client.says("ms a 3 T0\r\nabc", &["HD"]);
    client.says("mg a v t k", &["VA 3 t-1 ka", "abc"]);
    client.says("mg none v", &["EN"]);
    client.says("ms q 1 q\r\nx\r\nmg none v q\r\nmg q v q\r\nmn", &["VA 1", "x", "MN"]);
    client.says("ma n N0 J7", &["HD"]);
    client.says("ma n v", &["VA 1", "8"]);
    client.says("md q q\r\nmd a\r\nmn", &["HD", "MN"]);
    // The same key, plain and in base64.
    client.send(b"ms Zm9v b 2\r\nhi\r\n");
    assert_eq!(client.line(), "CLIENT_ERROR bad command line format");
    drop(client);
    let mut client = proxy.client();
    client.says("ms Zm9v 2 b\r\nhi", &["HD"]);
    client.says("mg foo v", &["VA 2", "hi"]);
}

#[test]
fn text_and_binary_clients_do_not_meet_on_a_servers_connection() {
    let server = memcached();
    let proxy = Proxy::start(&pool_of(&[&server], "").replace("threads = 2", "threads = 1"));
    let (mut text, mut binary) = (proxy.client(), proxy.client());
    // GET of "a": head, key.
    let mut get = vec![0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 9, 9, 9, 9];
    get.extend([0; 8]);
    get.push(b'a');
    for _ in 0..10 {
        text.says("set a 0 0 1\r\nx", &["STORED"]);
        binary.send(&get);
        let reply = binary.bytes(24 + 4 + 1);
        assert_eq!(
            (&reply[..2], &reply[12..16], &reply[28..]),
            (&[0x81, 0][..], &[9; 4][..], &b"x"[..])
        );
    }
}

#[test]
fn memccapable_passes_in_text_and_binary() {
    for count in [1, 3] {
        let servers: Vec<_> = (0..count).map(|_| memcached()).collect();
        let proxy = Proxy::start(&pool_of(&servers.iter().collect::<Vec<_>>(), "admin = true"));
        let port = proxy.addrs[0].rsplit(':').next().expect("a port");
        for mode in ["-a", "-b"] {
            let tool = program("memccapable", "libmemcached-tools");
            let ran = Command::new(tool)
                .args(["-h", "127.0.0.1", "-p", port, mode])
                .output()
                .expect("runs");
            let text = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
            assert!(
                ran.status.success() && text.contains("All tests passed"),
                "{count} servers, {mode}:\n{text}"
            );
        }
    }
}

#[test]
fn a_server_that_is_down_gives_errors_of_the_protocol() {
    let mut servers = [memcached()];
    let proxy = Proxy::start(&pool_of(&servers.each_ref(), ""));
    let mut client = proxy.client();
    client.says("set a 0 0 1\r\nx", &["STORED"]);
    servers[0].process.kill();
    eventually("an error", || {
        client.send(b"get a\r\n");
        client.line().starts_with("SERVER_ERROR server")
    });
}
