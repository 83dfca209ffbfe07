//! The binary as a process, a client as simple as can be, and pictures to serve.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use thumbnails::codec::{Meta, jpeg, png};
use thumbnails::picture::{Picture, Samples};

/// A running service; killed when dropped.
pub struct Server {
    child: Child,
    pub addr: String,
    pub status_addr: String,
    _config: tempfile::NamedTempFile,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Status, headers in lower case, body.
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Format, width and height of the picture that came.
    pub fn picture(&self) -> (&'static str, u32, u32) {
        let info = thumbnails::header::read(&self.body, 1000).unwrap_or_else(|error| panic!("{} {error}", self.status));
        (info.format.name(), info.width, info.height)
    }
}

impl Server {
    /// Sources from the folder `root`, unsigned, and what `toml` says besides.
    pub fn start(root: &Path, toml: &str) -> Server {
        let mut config = tempfile::NamedTempFile::new().expect("a file");
        config.write_all(toml.as_bytes()).expect("writes");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferrite-thumbnails"));
        command.args(["serve", "--addr", "127.0.0.1:0", "--status-addr", "127.0.0.1:0", "--config"]);
        command.arg(config.path()).arg("--local-root").arg(root);
        if !toml.contains("keys =") {
            command.arg("--allow-unsigned");
        }
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("starts");
        let mut out = BufReader::new(child.stdout.take().expect("is piped"));
        let mut line = |start: &str| {
            let mut line = String::new();
            out.read_line(&mut line).expect("tells where it listens");
            line.trim()
                .strip_prefix(start)
                .unwrap_or_else(|| panic!("{line:?}"))
                .to_owned()
        };
        Server {
            addr: line("listening on "),
            status_addr: line("status on "),
            child,
            _config: config,
        }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[])
    }

    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        call(&self.addr, method, path, headers)
    }

    /// A figure of the service.
    pub fn metric(&self, name: &str) -> f64 {
        let page = call(&self.status_addr, "GET", "/metrics", &[]).body;
        let page = String::from_utf8(page).expect("text");
        let lines = page
            .lines()
            .filter(|line| line.starts_with(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        lines.sum()
    }

    /// Resident memory, in bytes.
    pub fn rss(&self) -> u64 {
        let path = format!("/proc/{}/statm", self.child.id());
        let text = std::fs::read_to_string(path).expect("it runs");
        let pages: u64 = text.split(' ').nth(1).expect("has a second field").parse().expect("a number");
        pages * 4096
    }
}

/// One request on a connection of its own.
pub fn call(addr: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut io = TcpStream::connect(addr).expect("connects");
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n");
    headers
        .iter()
        .for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    io.write_all(format!("{head}\r\n").as_bytes()).expect("sends");
    let mut raw = Vec::new();
    io.read_to_end(&mut raw).expect("an answer");
    let end = raw.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let text = String::from_utf8_lossy(&raw[..end]).into_owned();
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let fields = text.lines().skip(1).filter_map(|line| line.split_once(": "));
    Answer {
        status,
        headers: fields.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(),
        body: raw[end + 4..].to_vec(),
    }
}

/// Red in the top left quarter, green in the top right, blue below on the left, white on the right.
pub fn quarters(width: u32, height: u32) -> Picture {
    let pixels = (0..height).flat_map(|y| {
        (0..width).flat_map(move |x| match (x < width / 2, y < height / 2) {
            (true, true) => [220, 30, 30],
            (false, true) => [30, 200, 30],
            (true, false) => [30, 30, 220],
            (false, false) => [250, 250, 250],
        })
    });
    Picture::new(width, height, Samples::Rgb, pixels.collect()).expect("fits")
}

pub fn to_jpeg(picture: &Picture, meta: Meta<'_>, progressive: bool) -> Vec<u8> {
    let settings = jpeg::Settings {
        quality: 90,
        progressive,
        full_chroma: true,
    };
    jpeg::encode(picture, settings, meta).expect("encodes")
}

pub fn to_png(picture: &Picture) -> Vec<u8> {
    png::encode(picture, png::Settings { colors: 0 }, Meta::default()).expect("encodes")
}
