//! Bad frames of every protocol: each gets an error or a closed connection, memory stays bounded, other clients never notice.

use std::io::Write as _;

use crate::harness::*;

/// Megabytes that the process holds.
fn rss(proxy: &Proxy) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.process.0.id())).expect("reads");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    let kilobytes: u64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .expect("a number");
    kilobytes / 1024
}

#[test]
fn bad_frames_end_their_own_connection_alone() {
    let server = redis();
    let proxy = Proxy::start(&pool(&[&server], "request-max = \"1MiB\""));
    let mut steady = proxy.client();
    let nested = b"*1\r\n".repeat(1000);
    let endless = vec![b'a'; 70_000];
    let table: [(&str, &[u8]); 15] = [
        ("a negative length", b"*1\r\n$-5\r\n"),
        ("a count that is none", b"*-x\r\n"),
        ("1 GiB", b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1073741824\r\n"),
        ("a huge length", b"*1\r\n$99999999999999999999999999\r\n"),
        ("a huge count", b"*99999999999\r\n"),
        ("arrays 1,000 deep", &nested),
        ("a number", b"*1\r\n:5\r\n"),
        ("a text of version 3", b"*1\r\n=7\r\ntxt:abc\r\n"),
        ("too long by one", b"*2\r\n$3\r\nGET\r\n$1\r\nkk\r\n"),
        ("too short by one", b"*2\r\n$3\r\nGET\r\n$3\r\nkk\r\n*1"),
        ("an open quote", b"\"unbalanced\r\n"),
        ("no CR", b"*1\r\n$4\r\nPING\n\n"),
        ("no CR in a head", b"*1\n$4\r\nPING\r\n"),
        ("a head without end", b"*1\r\n$00000000000000000000000000000001\r\na\r\n"),
        ("a line without end", &endless),
    ];
    for (what, frame) in table {
        let mut bad = proxy.client();
        bad.send(frame);
        assert!(bad.answer().starts_with("!ERR Protocol error"), "{what}");
        assert!(bad.is_closed(), "{what}");
        assert_eq!(steady.ask("PING"), "PONG", "{what}");
    }
    // The same request, cut at every byte.
    let whole = b"*3\r\n$3\r\nSET\r\n$3\r\ncut\r\n$5\r\na\r\nbc\r\n";
    for cut in 1..whole.len() {
        steady.send(&whole[..cut]);
        assert_eq!(proxy.client().ask("PING"), "PONG");
        steady.send(&whole[cut..]);
        assert_eq!(steady.answer(), "OK");
    }
}

#[test]
fn who_announces_much_and_sends_little_costs_little() {
    let server = redis();
    let proxy = Proxy::start(&pool(&[&server], ""));
    let mut steady = proxy.client();
    assert_eq!(steady.ask("SET k v"), "OK");
    let before = rss(&proxy);
    let mut heads: Vec<_> = (0..300).map(|_| proxy.client()).collect();
    for client in &mut heads {
        client.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$60000000\r\nhalf a frame");
        client.send(b"and a little more");
    }
    assert_eq!(steady.ask("GET k"), "v");
    // A million arguments are announced, and none comes.
    for client in &mut heads {
        let mut wide = proxy.client();
        wide.send(b"*1048576\r\n$1\r\na\r\n");
        *client = wide;
    }
    assert_eq!(steady.ask("GET k"), "v");
    let grown = rss(&proxy).saturating_sub(before);
    assert!(grown < 40, "{grown} MB for 300 clients");
}

#[test]
fn bad_frames_of_memcached_end_their_own_connection_alone() {
    let server = memcached();
    let proxy = Proxy::start(&pool(&[&server], "protocol = \"memcached\"\nrequest-max = \"1MiB\""));
    let mut steady = proxy.client();
    let mut is_well = move |what: &str| {
        steady.send(b"set k 0 0 2\r\nab\r\nget k\r\n");
        let lines: Vec<_> = (0..4).map(|_| steady.line()).collect();
        assert_eq!(lines, ["STORED", "VALUE k 0 2", "ab", "END"], "{what}");
    };
    let endless = vec![b'a'; 70_000];
    let huge_key = [&b"get "[..], &[b'k'; 300], b"\r\n"].concat();
    // (frame, front of the answer, whether the connection ends)
    let table: [(&[u8], &str, bool); 10] = [
        (b"set k 0 0 -1\r\n", "CLIENT_ERROR", false),
        (b"set k 0 0 1073741824\r\n", "SERVER_ERROR object too large", true),
        (b"set k 0 0 99999999999999999999\r\n", "CLIENT_ERROR", false),
        (b"set k 0 0 1\r\nabc\r\n", "CLIENT_ERROR bad data chunk", true),
        (b"ms k -1\r\n", "CLIENT_ERROR", false),
        (b"ms k 1073741824\r\n", "SERVER_ERROR object too large", true),
        (b"mg ===== b\r\n", "CLIENT_ERROR", false),
        (&huge_key, "CLIENT_ERROR", false),
        (b"\x00\xff\r\n", "ERROR", false),
        (&endless, "CLIENT_ERROR line too long", true),
    ];
    for (frame, wanted, ends) in table {
        let what = frame[..frame.len().min(40)].escape_ascii().to_string();
        let mut bad = proxy.client();
        bad.send(frame);
        let line = bad.line();
        assert!(line.starts_with(wanted), "{what}: {line}");
        if ends {
            assert!(bad.is_closed(), "{what}");
        } else {
            bad.send(b"mn\r\n");
            assert_eq!(bad.line(), "MN", "{what}");
        }
        is_well(&what);
    }
    // Binary: lengths that do not fit together, and 4 GiB.
    for (key, extras, body) in [(10u16, 5u8, 14u32), (251, 0, 300), (1, 8, u32::MAX)] {
        let mut packet = vec![0x80, 1];
        packet.extend(key.to_be_bytes());
        packet.extend([extras, 0, 0, 0]);
        packet.extend(body.to_be_bytes());
        packet.extend([0; 12]);
        let mut bad = proxy.client();
        bad.send(&packet);
        assert_eq!(bad.bytes(8)[6..], [0, 4], "invalid arguments");
        is_well("binary");
    }
    // Cut at every byte, text and meta.
    let whole = b"set c 0 0 4\r\na\r\nb\r\nms m 3\r\nxyz\r\nmg m v\r\n";
    let mut cut_up = proxy.client();
    for cut in 1..whole.len() {
        cut_up.io.write_all(&whole[..cut]).expect("sends");
        is_well("another client is half way");
        cut_up.io.write_all(&whole[cut..]).expect("sends");
        let lines: Vec<_> = (0..4).map(|_| cut_up.line()).collect();
        assert_eq!(lines, ["STORED", "HD", "VA 3", "xyz"]);
    }
}
