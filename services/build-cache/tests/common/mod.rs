//! The binary as a process, and clients of it as simple as can be.

#![allow(dead_code)] // each test binary uses a part

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use blob_store::Key;
use build_cache::proto::reapi::Digest;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

pub struct Server {
    pub child: Child,
    pub addr: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

pub fn start(dir: &Path, args: &[&str]) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrite-build-cache"));
    command
        .args(["serve", "--addr", "127.0.0.1:0", "--data-dir"])
        .arg(dir)
        .args(args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
    let mut line = String::new();
    let out = child.stdout.take().expect("is piped");
    BufReader::new(out).read_line(&mut line).expect("tells where it listens");
    let addr = line.trim().strip_prefix("listening on ").expect("listens").to_owned();
    Server { child, addr }
}

/// Status, headers in lower case, body.
pub type Answer = (u16, BTreeMap<String, String>, Vec<u8>);

/// One request on a connection of its own; `Err` if the server goes away meanwhile.
pub fn try_call(addr: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<Answer> {
    let mut io = TcpStream::connect(addr)?;
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    headers
        .iter()
        .for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    io.write_all(format!("{head}\r\n").as_bytes())?;
    io.write_all(body)?;
    let mut raw = Vec::new();
    io.read_to_end(&mut raw)?;
    let broken = || std::io::Error::other("the answer broke off");
    let end = raw.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(broken)?;
    let text = String::from_utf8_lossy(&raw[..end]).into_owned();
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(broken)?;
    let fields = text.lines().skip(1).filter_map(|line| line.split_once(": "));
    let fields: BTreeMap<String, String> = fields.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let body = raw[end + 4..].to_vec();
    match fields.get("content-length").and_then(|len| len.parse::<usize>().ok()) {
        Some(len) if method != "HEAD" && body.len() != len => Err(broken()),
        _ => Ok((status, fields, body)),
    }
}

impl Server {
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        try_call(&self.addr, method, path, headers, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    pub fn status(&self, method: &str, path: &str, body: &[u8]) -> u16 {
        self.call(method, path, &[], body).0
    }

    /// `must_put` and read again.
    pub fn round_trip(&self, path: &str, wanted: u16, body: &[u8]) {
        assert_eq!(self.status("GET", path, b""), 404, "{path} before");
        assert_eq!(self.status("PUT", path, body), wanted, "{path} put");
        let (status, _, got) = self.call("GET", path, &[], b"");
        assert_eq!((status, got.as_slice()), (200, body), "{path} got");
        let (status, fields, _) = self.call("HEAD", path, &[], b"");
        assert_eq!(
            (status, fields["content-length"].as_str()),
            (200, body.len().to_string().as_str()),
            "{path} head"
        );
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    if seed.is_multiple_of(2) {
        bytes.iter_mut().for_each(|byte| *byte = b'a' + *byte % 8);
    }
    bytes
}

pub fn digest(bytes: &[u8]) -> Digest {
    Digest {
        hash: Key::sha256(bytes).to_string(),
        size_bytes: bytes.len() as i64,
    }
}
