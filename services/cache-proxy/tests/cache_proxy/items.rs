//! Items of memcached before a Ferrite cluster: the same requests go to a real memcached, whose answers are the measure.

use std::process::Command;

use crate::clients::python;
use crate::ferrite::Ferrite;
use crate::harness::*;

/// A Ferrite cluster with a pool for memcached's clients in admin mode before it.
fn proxy(cluster: &Ferrite) -> Proxy {
    Proxy::start(&format!(
        "[[pools]]\nname = \"items\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"memcached\"\nbackend = \"ferrite\"\nservers = [\"{}\"]\n\
         ferrite-prefix = \"items:\"\ntimeout-request = \"10s\"\nadmin = true\n",
        cluster.pd
    ))
}

#[test]
fn items_answer_as_memcached_answers() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = Ferrite::start(dir.path());
    let (proxy, server) = (proxy(&cluster), memcached());
    let mut pair = [proxy.client(), Client::connect(&server.addr)];
    for request in TEXT.iter().chain(META) {
        let [ours, theirs] = pair.each_mut().map(|client| text(client, request));
        assert_eq!(ours, theirs, "{request:?}");
    }
    compared_in_text(&mut pair);
    let mut pair = [proxy.client(), Client::connect(&server.addr)];
    for request in binary_requests() {
        let [ours, theirs] = pair.each_mut().map(|client| binary(client, &request));
        assert_eq!(ours, theirs, "{request:?}");
    }
    compared_in_binary(&mut pair);
    only_ours(&proxy);
    python("items", &proxy.addrs[0], &[]);
    python("pymemcache", &proxy.addrs[0], &[]);
    memccapable(&proxy);
}

/// In order: what one leaves behind the next ones find.
const TEXT: &[&str] = &[
    "set k 7 0 3\r\nabc",
    "get k none",
    "gat 100 k none",
    "gat x k",
    "gats 0 none",
    "touch k 0",
    "touch k x",
    "touch none 5",
    "add k 0 0 1\r\nx",
    "replace none 0 0 1\r\nx",
    "append k 0 0 1\r\nd",
    "prepend k 0 0 1\r\n_",
    "append none 0 0 1\r\nd",
    "get k",
    "incr k 1",
    "set n 1 0 1\r\n5",
    "incr n 10",
    "incr n 18446744073709551615",
    "decr n 4",
    "set one 0 0 1\r\n5",
    "decr one 100",
    "get one",
    "incr n x",
    "incr none 1",
    "incr n 1 noreply",
    "decr n 1 noreply",
    "get n",
    "cas n 0 0 1 12345\r\nx",
    "cas none 0 0 1 12345\r\nx",
    "set n 0 -1 1\r\nx",
    "get n",
    "delete k 0",
    "delete k",
    "delete k 5",
    "gat 0 k",
];

const META: &[&str] = &[
    "ms m 5 T90 F7\r\nhello",
    "mg m",
    "mg m v",
    "mg m s v f t k Oabc",
    "mg m v q k",
    "mg none v",
    "mg none v q k O1",
    "mg m T30 t",
    "mg m t v",
    "mg m T0 t",
    "mg none T30 v",
    "ms m 1 ME\r\nx",
    "ms m 1 MR\r\ny",
    "ms none 1 MR k O7\r\ny",
    "ms m 1 MA\r\nz",
    "ms m 1 MP q\r\nx",
    "mg m v",
    "ms none 1 MA\r\nz",
    "ms made 2\r\nzz",
    "mg made v t",
    "ms m 1 C1\r\nx",
    "ms gone 1 C1\r\nx",
    "ms m 1 MX\r\nx",
    "ms m 1 Tx\r\nx",
    "mg m v v",
    "md made C1",
    "md made q",
    "md made",
    "md made k O5",
    "ma none",
    "ma n2 N0 J13 D20 v",
    "ma n2 N0 J13 D20 v t",
    "ma n2 v",
    "ma n2 MD D30 v k O9",
    "ma n2 M+ T60 t v",
    "ma n2 MX",
    "ma n2 q",
    "ma m v",
    "ma n2 C5",
    // The same key, plain and in base64.
    "ms Zm9v 2 b\r\nhi",
    "mg foo v",
    "mg Zm9v b k v",
    "get foo",
    "me none",
];

/// What a client of text is told for a request, with the numbers that servers choose made alike.
fn text(client: &mut Client, request: &str) -> Vec<String> {
    client.send(format!("{request}\r\nmn\r\n").as_bytes());
    let mut lines = Vec::new();
    loop {
        match client.line() {
            line if line == "MN" => return lines,
            line => lines.push(line),
        }
    }
}

/// What `gets` and the flag `c` tell is what `cas` and the flag `C` want.
fn compared_in_text(pair: &mut [Client; 2]) {
    for client in pair {
        text(client, "set u 0 0 1\r\n1");
        let found = text(client, "gets u");
        let unique = found[0].rsplit(' ').next().expect("has words");
        assert_eq!(text(client, &format!("cas u 3 0 1 {unique}\r\n2")), ["STORED"]);
        assert_eq!(text(client, &format!("cas u 3 0 1 {unique}\r\n3")), ["EXISTS"]);
        let found = text(client, "mg u c");
        let unique = found[0].strip_prefix("HD c").expect("a number");
        let found = text(client, &format!("ms u 1 C{unique} c\r\n4"));
        let newer = found[0].strip_prefix("HD c").expect("a number");
        assert_eq!(text(client, &format!("md u C{unique}")), ["EX"]);
        let found = text(client, "gats 100 u");
        assert_eq!(found[1..], ["4", "END"]);
        assert_eq!(text(client, &format!("ma u C{unique} v")), ["EX"]);
        assert_ne!(newer, unique);
        let found = text(client, "mg u c");
        let unique = found[0].strip_prefix("HD c").expect("a number");
        assert_eq!(text(client, &format!("md u C{unique}")), ["HD"]);
    }
}

fn packet(opcode: u8, unique: u64, extras: &[u8], key: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80, opcode];
    bytes.extend((key.len() as u16).to_be_bytes());
    bytes.extend([extras.len() as u8, 0, 0, 0]);
    bytes.extend(((extras.len() + key.len() + value.len()) as u32).to_be_bytes());
    bytes.extend([1, 2, 3, opcode]);
    bytes.extend(unique.to_be_bytes());
    [&bytes[..], extras, key.as_bytes(), value].concat()
}

fn binary_requests() -> Vec<Vec<u8>> {
    let store = |opcode, unique, key, value: &[u8]| packet(opcode, unique, &[0, 0, 0, 9, 0, 0, 0, 0], key, value);
    let plain = |opcode, key, value: &[u8]| packet(opcode, 0, b"", key, value);
    let count = |opcode, key, delta: u64, initial: u64, time: u32| {
        let extras = [&delta.to_be_bytes()[..], &initial.to_be_bytes(), &time.to_be_bytes()].concat();
        packet(opcode, 0, &extras, key, b"")
    };
    let touch = |opcode, key| packet(opcode, 0, &100u32.to_be_bytes(), key, b"");
    vec![
        store(0x01, 0, "b", b"value"),
        plain(0x00, "b", b""),
        plain(0x09, "b", b""),
        plain(0x0c, "b", b""),
        plain(0x0d, "b", b""),
        plain(0x00, "none", b""),
        plain(0x09, "none", b""),
        plain(0x0c, "none", b""),
        plain(0x0d, "none", b""),
        store(0x11, 0, "b", b"quiet"),
        store(0x02, 0, "b", b"x"),
        store(0x12, 0, "b", b"x"),
        store(0x03, 0, "none", b"x"),
        store(0x13, 0, "b", b"replaced"),
        plain(0x0e, "b", b"!"),
        plain(0x1a, "b", b"?"),
        plain(0x0e, "none", b"!"),
        plain(0x0f, "none", b"!"),
        plain(0x00, "b", b""),
        store(0x01, 12345, "b", b"x"),
        store(0x01, 12345, "none", b"x"),
        store(0x02, 12345, "b", b"x"),
        count(0x05, "b", 1, 0, 0),
        count(0x05, "c", 1, 7, u32::MAX),
        count(0x05, "c", 1, 7, 0),
        count(0x05, "c", 1, 7, 0),
        count(0x06, "c", 100, 7, 0),
        count(0x15, "c", 5, 7, 0),
        plain(0x00, "c", b""),
        touch(0x1c, "b"),
        touch(0x1c, "none"),
        touch(0x1d, "b"),
        touch(0x1d, "none"),
        touch(0x1e, "none"),
        touch(0x23, "b"),
        touch(0x24, "none"),
        packet(0x04, 12345, b"", "b", b""),
        plain(0x04, "b", b""),
        plain(0x04, "b", b""),
        plain(0x14, "c", b""),
        plain(0x14, "c", b""),
        plain(0x00, "c", b""),
    ]
}

/// The packets that a client is sent for a request; numbers to compare with are only there or not.
fn binary(client: &mut Client, request: &[u8]) -> Vec<Vec<u8>> {
    client.send(&[request, &packet(0x0a, 0, b"", "", b"")].concat());
    let mut packets = Vec::new();
    loop {
        let mut head = client.bytes(24);
        if head[1] == 0x0a {
            return packets;
        }
        let there = head[16..24].iter().any(|byte| *byte != 0);
        head[16..24].copy_from_slice(&u64::from(there).to_be_bytes());
        let body = u32::from_be_bytes(head[8..12].try_into().expect("four bytes"));
        head.extend(client.bytes(body as usize));
        packets.push(head);
    }
}

fn compared_in_binary(pair: &mut [Client; 2]) {
    for client in pair {
        let extras = [0; 8];
        client.send(&packet(0x01, 0, &extras, "u", b"1"));
        let unique = |reply: &[u8]| u64::from_be_bytes(reply[16..24].try_into().expect("eight bytes"));
        let first = unique(&client.bytes(24));
        client.send(&packet(0x01, first, &extras, "u", b"2"));
        let reply = client.bytes(24);
        assert_eq!(reply[6..8], [0, 0]);
        client.send(&packet(0x04, first, b"", "u", b""));
        let refused = client.bytes(24);
        assert_eq!(refused[6..8], [0, 2]);
        client.bytes(usize::from(refused[11]));
        client.send(&packet(0x04, unique(&reply), b"", "u", b""));
        assert_eq!(client.bytes(24)[6..8], [0, 0]);
    }
}

/// What a real memcached does otherwise.
fn only_ours(proxy: &Proxy) {
    let mut client = proxy.client();
    for (request, wanted) in [
        // Made by appending, as later versions than Debian's do.
        ("ms made 1 MA N0\r\nz", &["HD"][..]),
        ("ms made 1 MA N0\r\nz", &["HD"]),
        ("mg made v t", &["VA 2 t-1", "zz"]),
        // Not padded.
        ("set ten 0 0 2\r\n10", &["STORED"]),
        ("decr ten 1", &["9"]),
        ("get ten", &["VALUE ten 0 1", "9", "END"]),
        (
            "mg m h",
            &["CLIENT_ERROR flag h is not served by a pool of a Ferrite cluster"],
        ),
        (
            "flush_all 5",
            &["CLIENT_ERROR a pool of a Ferrite cluster is emptied at once or not at all"],
        ),
        ("set kept 0 0 1\r\nx", &["STORED"]),
        ("flush_all", &["OK"]),
        ("get kept", &["END"]),
    ] {
        assert_eq!(text(&mut client, request), wanted, "{request}");
    }
    text(&mut client, "set s 0 60 2\r\n12");
    let told = text(&mut client, "me s").concat();
    assert!(told.starts_with("ME s exp=60 cas=") && told.ends_with(" size=2"), "{told}");
}

fn memccapable(proxy: &Proxy) {
    let port = proxy.addrs[0].rsplit(':').next().expect("a port");
    for mode in ["-a", "-b"] {
        let tool = program("memccapable", "libmemcached-tools");
        let ran = Command::new(tool)
            .args(["-h", "127.0.0.1", "-p", port, mode])
            .output()
            .expect("runs");
        let text = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
        // Statistics are a server's own: a cluster has none of memcached's.
        let failed = text.lines().filter(|line| line.contains("[FAIL]"));
        let failed: Vec<&str> = failed.filter(|line| !line.contains(" stat ")).collect();
        assert!(text.contains("[pass]") && failed.is_empty(), "{mode}:\n{text}");
    }
}
