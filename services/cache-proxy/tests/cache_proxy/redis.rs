//! RESP clients before plain Redis servers.

use crate::harness::*;

#[test]
fn commands_reach_their_servers_and_replies_come_in_order() {
    let servers = [redis(), redis(), redis()];
    let proxy = Proxy::start(&pool(&servers.each_ref(), "hash = \"murmur\""));
    let mut client = proxy.client();
    assert_eq!(client.ask("SET a 1"), "OK");
    assert_eq!(client.ask("GET a"), "1");
    assert_eq!(client.ask("GET none"), "(nil)");
    let keys: Vec<_> = (0..300).map(|number| format!("key:{number}")).collect();
    let pairs: Vec<_> = keys.iter().map(|key| format!("{key} v-{key}")).collect();
    assert_eq!(client.ask(&format!("MSET {}", pairs.join(" "))), "OK");
    let values: Vec<_> = keys.iter().map(|key| format!("v-{key}")).collect();
    let list = keys.join(" ");
    assert_eq!(
        client.ask(&format!("MGET {list} none")),
        format!("[{} (nil)]", values.join(" "))
    );
    assert_eq!(client.ask(&format!("EXISTS {list} none")), "300");
    // Every server has some of the keys.
    for server in &servers {
        let count: i64 = Client::connect(&server.addr).ask("DBSIZE").parse().expect("a number");
        assert!((30..250).contains(&count), "{count}");
    }
    // A pipeline over all servers, with answers of the proxy in between.
    for key in &keys {
        client.command(&format!("GET {key}"));
        client.command("PING");
    }
    for value in &values {
        assert_eq!(client.answer(), *value);
        assert_eq!(client.answer(), "PONG");
    }
    assert_eq!(client.ask(&format!("DEL {list}")), "300");
    assert_eq!(
        client.ask(&format!("MGET {list}")),
        format!("[{}]", vec!["(nil)"; 300].join(" "))
    );
}

#[test]
fn unknown_and_wrong_commands_leave_the_connection_open() {
    let server = redis();
    let proxy = Proxy::start(&pool(&[&server], ""));
    let mut client = proxy.client();
    assert!(client.ask("FROBNICATE a b").starts_with("!ERR unknown command 'FROBNICATE'"));
    assert!(client.ask("GET").starts_with("!ERR wrong number of arguments for 'get'"));
    assert!(client.ask("SHUTDOWN").starts_with("!ERR command 'shutdown' cannot work"));
    assert!(client.ask("FLUSHALL").contains("admin = true"));
    assert!(client.ask("LPUSH").starts_with("!ERR wrong number"));
    client.ask("SET text x");
    assert!(client.ask("LPUSH text y").starts_with("!WRONGTYPE"));
    assert_eq!(client.ask("GET text"), "x");
}

#[test]
fn replies_that_a_client_does_not_want_are_kept_from_it() {
    let servers = [redis(), redis()];
    let proxy = Proxy::start(&pool(&servers.each_ref(), ""));
    let mut client = proxy.client();
    client.command("CLIENT REPLY SKIP");
    client.command("SET a 1");
    assert_eq!(client.ask("GET a"), "1");
    client.command("CLIENT REPLY OFF");
    for number in 0..100 {
        client.command(&format!("SET k{number} {number}"));
        client.command("PING");
        client.command("MGET a k0 k1 k2");
    }
    client.command("FROBNICATE");
    assert_eq!(client.ask("CLIENT REPLY ON"), "OK");
    assert_eq!(client.ask("MGET k98 k99"), "[98 99]");
    assert!(client.ask("CLIENT REPLY MAYBE").starts_with("!ERR syntax error"));
    assert!(
        client
            .ask("CLIENT TRACKING ON")
            .starts_with("!ERR CLIENT TRACKING cannot work")
    );
    assert_eq!(client.ask("CLIENT TRACKING OFF"), "OK");
    assert_eq!(client.ask("CLIENT TRACKINGINFO"), "[flags [off] redirect -1 prefixes []]");
    client.command("CLIENT REPLY OFF");
    client.command("RESET");
    assert_eq!(client.answer(), "RESET");
}

#[test]
fn modern_clients_can_shake_hands() {
    let server = redis();
    let proxy = Proxy::start(&pool(&[&server], ""));
    let mut client = proxy.client();
    client.command("HELLO 3 SETNAME app");
    let hello = client.reply().expect("a reply");
    assert!(hello.starts_with(b"%7\r\n"), "{}", hello.escape_ascii());
    assert_eq!(client.ask("CLIENT SETINFO LIB-NAME redis-py"), "OK");
    assert_eq!(client.ask("CLIENT GETNAME"), "app");
    assert!(client.ask("CLIENT LIST").contains("lib-name=redis-py"));
    assert_eq!(client.ask("HSET h f v"), "1");
    client.command("HGETALL h");
    assert_eq!(client.reply().expect("a reply"), b"%1\r\n$1\r\nf\r\n$1\r\nv\r\n");
    // Another client speaks version 2 at the same time.
    let mut other = proxy.client();
    assert_eq!(other.ask("HGETALL h"), "[f v]");
    client.command("GET none");
    assert_eq!(client.reply().expect("a reply"), b"_\r\n");
    assert_eq!(client.ask("RESET"), "RESET");
    client.command("GET none");
    assert_eq!(client.reply().expect("a reply"), b"$-1\r\n");
    assert!(client.ask("HELLO 4").starts_with("!NOPROTO"));
    assert!(client.ask("COMMAND COUNT").parse::<i64>().expect("a number") > 200);
    client.send(b"SET inline 'a b'\r\nGET inline\r\n\r\nPING\r\n");
    assert_eq!([client.answer(), client.answer(), client.answer()], ["OK", "a b", "PONG"]);
    assert_eq!(client.ask("QUIT"), "OK");
    assert!(client.is_closed());
}

#[test]
fn databases_are_kept_apart() {
    let server = redis();
    let proxy = Proxy::start(&pool(&[&server], ""));
    let (mut a, mut b) = (proxy.client(), proxy.client());
    a.command("SELECT 5");
    a.command("SET k five");
    assert_eq!([a.answer(), a.answer()], ["OK", "OK"]);
    assert_eq!(b.ask("GET k"), "(nil)");
    assert_eq!(a.ask("GET k"), "five");
    assert!(b.ask("SELECT 16").starts_with("!ERR DB index"));
}

#[test]
fn large_values_pass_whole() {
    let servers = [redis(), redis()];
    let proxy = Proxy::start(&pool(&servers.each_ref(), ""));
    let mut client = proxy.client();
    for size in [1, 4_095, 16_384, 65_536, 3_000_000] {
        let value: String = (0..size).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
        assert_eq!(client.ask(&format!("SET big{size} {value}")), "OK");
        assert_eq!(client.ask(&format!("GET big{size}")), value);
        assert_eq!(
            client.ask(&format!("MGET big{size} none big{size}")),
            format!("[{value} (nil) {value}]")
        );
    }
}

#[test]
fn a_server_that_dies_gives_each_request_one_error() {
    let mut servers = [redis(), redis()];
    let proxy = Proxy::start(&pool(&servers.each_ref(), "hash = \"murmur\""));
    let mut client = proxy.client();
    for number in 0..100 {
        assert_eq!(client.ask(&format!("SET k{number} {number}")), "OK");
    }
    servers[0].process.signal(rustix::process::Signal::STOP);
    for number in 0..100 {
        client.command(&format!("GET k{number}"));
    }
    servers[0].process.kill();
    let mut failed = 0;
    for number in 0..100 {
        let answer = client.answer();
        if answer.starts_with("!ERR server") {
            failed += 1;
        } else {
            assert_eq!(answer, number.to_string());
        }
    }
    assert!((10..90).contains(&failed), "{failed}");
    // The other server serves on, and the dead one as soon as it is back.
    let port = servers[0].port;
    let _back = redis_at(port, &[]);
    eventually("it is used again", || {
        (0..100).all(|number| !client.ask(&format!("GET k{number}")).starts_with('!'))
    });
}

#[test]
fn a_slow_server_is_given_up_in_time() {
    let server = redis();
    let proxy = Proxy::start(&pool(&[&server], "timeout-request = \"200ms\""));
    let mut client = proxy.client();
    assert_eq!(client.ask("SET a 1"), "OK");
    server.process.signal(rustix::process::Signal::STOP);
    assert!(client.ask("GET a").contains("no reply within 200ms"));
    server.process.signal(rustix::process::Signal::CONT);
    eventually("it answers again", || client.ask("GET a") == "1");
}

#[test]
fn clients_that_leave_mid_frame_or_mid_pipeline_harm_nobody() {
    let servers = [redis(), redis()];
    let proxy = Proxy::start(&pool(&servers.each_ref(), ""));
    let mut steady = proxy.client();
    for number in 0..200 {
        let mut leaver = proxy.client();
        for key in 0..20 {
            leaver.command(&format!("SET other{key} x"));
        }
        leaver.send(b"*3\r\n$3\r\nSET\r\n$5\r\nhal");
        drop(leaver);
        assert_eq!(steady.ask(&format!("SET mine {number}")), "OK");
        assert_eq!(steady.ask("GET mine"), number.to_string());
    }
}
