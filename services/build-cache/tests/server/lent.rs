//! Answers that go from files to the socket by themselves: the same bytes as those that pass through the process.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use blob_store::Key;

use crate::common::{Server, noise, start, try_call};

/// A connection that is kept, as build tools keep theirs.
struct Kept(TcpStream);

impl Kept {
    fn new(server: &Server) -> Kept {
        let io = TcpStream::connect(&server.addr).expect("connects");
        io.set_read_timeout(Some(Duration::from_secs(20))).expect("is set");
        Kept(io)
    }

    fn send(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) {
        let len = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len}\r\n{headers}\r\n");
        self.0.write_all(head.as_bytes()).expect("sends");
        self.0.write_all(body).expect("sends");
    }

    /// Status line and headers, and as much of a body as they say.
    fn answer(&mut self) -> (String, Vec<u8>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("text").to_lowercase();
        let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; len.map_or(0, |len| len.parse().expect("a number"))];
        self.0.read_exact(&mut body).expect("a body");
        (head, body)
    }

    fn get(&mut self, path: &str, headers: &str) -> Vec<u8> {
        self.send("GET", path, headers, b"");
        let (head, body) = self.answer();
        assert!(head.starts_with("http/1.1 20"), "{head}");
        body
    }
}

/// What the system has sent by itself so far.
fn lent(server: &Server) -> u64 {
    let text = String::from_utf8(server.call("GET", "/metrics", &[], b"").2).expect("text");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("ferrite_build_cache_sendfile_bytes_total "));
    line.map_or(0, |number| number.parse().expect("a number"))
}

#[test]
fn one_connection_gets_every_form_and_range_whole() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = start(dir.path(), &[]);
    let mut io = Kept::new(&server);
    // Odd seeds are noise and lie as they came, even ones shrink.
    for (seed, len) in [(1, 40_000), (2, 40_000), (3, 2_500_000), (4, 2_500_000)] {
        let body = noise(seed, len);
        let path = format!("/cas/{}", Key::sha256(&body));
        io.send("PUT", &path, "", &body);
        assert!(io.answer().0.starts_with("http/1.1 200"));
        let before = lent(&server);
        for round in 0..4 {
            assert!(io.get(&path, "") == body, "{seed}, round {round}");
            let got = io.get(&path, "accept-encoding: zstd\r\n");
            let is_zstd = got != body;
            assert_eq!(is_zstd, seed % 2 == 0);
            assert!(!is_zstd || zstd::stream::decode_all(&got[..]).expect("is zstd") == body);
            for (start, end) in [(0, len), (1, len - 1), (5_000, 39_000), (len / 2, len), (len - 10, len)] {
                let range = format!("range: bytes={start}-{}\r\n", end - 1);
                assert!(
                    io.get(&path, &range) == body[start..end],
                    "{seed}: {start}..{end}, round {round}"
                );
            }
        }
        // Of the noise all is lent; of what shrinks, what goes as zstd and what is in memory after the second read.
        if len > 1_000_000 {
            assert!(
                lent(&server) - before > len as u64,
                "{seed}: {} bytes lent",
                lent(&server) - before
            );
        }
        io.send("HEAD", &path, "", b"");
        let mut head = [0; 12];
        io.0.read_exact(&mut head).expect("a head");
        assert_eq!(&head, b"HTTP/1.1 200");
        io = Kept::new(&server);
    }
}

#[test]
fn requests_that_come_together_are_answered_in_turn() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = start(dir.path(), &[]);
    let bodies: Vec<Vec<u8>> = (0..12).map(|n| noise(n, 30_000 * n as usize + 10)).collect();
    let path = |body: &[u8]| format!("/cas/{}", Key::sha256(body));
    for body in &bodies {
        assert_eq!(server.status("PUT", &path(body), body), 200);
    }
    for _ in 0..3 {
        let mut io = Kept::new(&server);
        for body in &bodies {
            io.send("GET", &path(body), "", b"");
        }
        for body in &bodies {
            assert!(io.answer().1 == *body);
        }
    }
    assert!(lent(&server) > 100_000);
}

#[test]
fn a_slow_reader_gets_what_was_there_when_it_asked() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("c.toml");
    std::fs::write(&config, "[server]\nmemory-max = \"64MiB\"\n").expect("writes");
    let server = start(&dir.path().join("d"), &["--config", config.to_str().expect("text")]);
    // More than the buffers of both sockets hold; the even one is in memory from its second read on.
    for seed in [1, 2] {
        let (old, new) = (noise(seed, 24_000_000), noise(seed + 2, 24_000_000));
        let path = format!("/dav/{seed}");
        assert_eq!(server.status("PUT", &path, &old), 201);
        (0..3).for_each(|_| assert!(server.call("GET", &path, &[], b"").2 == old));
        let before = lent(&server);
        let mut io = Kept::new(&server);
        io.send("GET", &path, "", b"");
        let mut first = vec![0; 1000];
        io.0.read_exact(&mut first).expect("begins");
        // Replaced on disk, pushed out of memory, and gone.
        assert_eq!(server.status("PUT", &path, &new), 201);
        (0..3).for_each(|_| assert!(server.call("GET", &path, &[], b"").2 == new));
        let other = noise(seed + 4, 24_000_000);
        assert_eq!(server.status("PUT", "/dav/other", &other), 201);
        (0..3).for_each(|_| assert!(server.call("GET", "/dav/other", &[], b"").2 == other));
        assert_eq!(server.status("DELETE", &path, b""), 204);
        let mut rest = first;
        let head = rest.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let mut more = vec![0; head + old.len() - rest.len()];
        io.0.read_exact(&mut more).expect("goes on");
        rest.extend(more);
        assert!(rest[head..] == old, "{seed}");
        assert!(lent(&server) - before > old.len() as u64, "{seed}");
    }
}

#[test]
fn a_file_that_became_short_breaks_the_answer_and_is_a_miss_from_then_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = start(dir.path(), &[]);
    let body = noise(5, 3_000_000);
    let path = format!("/cas/{}", Key::sha256(&body));
    assert_eq!(server.status("PUT", &path, &body), 200);
    let file = only_file(&dir.path().join("files"));
    let cut = std::fs::OpenOptions::new().write(true).open(file).expect("opens");
    cut.set_len(2_000_000).expect("cuts");
    assert!(try_call(&server.addr, "GET", &path, &[], b"").is_err(), "cut off, not short");
    assert_eq!(server.status("GET", &path, b""), 404);
}

fn only_file(folder: &Path) -> std::path::PathBuf {
    let folders = std::fs::read_dir(folder)
        .expect("reads")
        .map(|entry| entry.expect("reads").path());
    let mut files = folders.flat_map(|path| std::fs::read_dir(path).expect("reads"));
    files.next().expect("one is there").expect("reads").path()
}

#[test]
fn after_a_kill_nothing_damaged_is_lent() {
    let dir = tempfile::tempdir().expect("a folder");
    let (good, bad) = (noise(7, 1_000_000), noise(9, 1_000_000));
    let path = |body: &[u8]| format!("/cas/{}", Key::sha256(body));
    let server = start(dir.path(), &[]);
    assert_eq!(server.status("PUT", &path(&bad), &bad), 200);
    let file = only_file(&dir.path().join("files"));
    assert_eq!(server.status("PUT", &path(&good), &good), 200);
    drop(server); // killed
    let mut bytes = std::fs::read(&file).expect("reads");
    bytes[500_000] ^= 1;
    std::fs::write(&file, bytes).expect("writes");
    let server = start(dir.path(), &[]);
    assert_eq!(server.status("GET", &path(&bad), b""), 404);
    assert_eq!(lent(&server), 0);
    assert!(server.call("GET", &path(&good), &[], b"").2 == good);
    assert_eq!(lent(&server), good.len() as u64);
}
