//! Real servers and the proxy as processes, and clients as simple as can be.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use base::MonoTime;
use cache_proxy::resp::reply::{Found, ReplyScanner, Value};
use cache_proxy::resp::write;

/// A process that ends with the test.
pub struct Process(pub Child);

impl Process {
    pub fn kill(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.0.id() as i32).expect("has an id");
        rustix::process::kill_process(pid, signal).expect("can be signalled");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A program of a Debian package.
pub fn program(name: &str, package: &str) -> PathBuf {
    let dirs = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/lib/redis/modules"];
    let found = dirs.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is missing: apt-get install {package}"))
}

/// A port that nobody listens on: below those that the system gives to connections, and each once, so that no other test takes it meanwhile.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() as u16 % 100 * 200;
    loop {
        let port = 11_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until `done` holds, at most forty seconds.
#[allow(clippy::disallowed_methods)] // looks again and again at other processes, which tell nobody
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = MonoTime::now() + Duration::from_secs(40);
    while !done() {
        assert!(MonoTime::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub struct Server {
    pub process: Process,
    pub addr: String,
    pub port: u16,
    _dir: tempfile::TempDir,
}

fn spawn(command: &mut Command) -> Process {
    Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts"))
}

/// A Redis server with further arguments.
pub fn redis_with(args: &[&str]) -> Server {
    redis_at(free_port(), args)
}

pub fn redis_at(port: u16, args: &[&str]) -> Server {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(program("redis-server", "redis-server"));
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]);
    command.arg(dir.path()).args(args);
    serve(&mut command, port, dir)
}

/// Starts what listens at `port` and keeps its data in `dir`.
pub fn serve(command: &mut Command, port: u16, dir: tempfile::TempDir) -> Server {
    let process = spawn(command);
    let addr = format!("127.0.0.1:{port}");
    let what = format!("{} listens", command.get_program().display());
    eventually(&what, || TcpStream::connect(&addr).is_ok());
    Server {
        process,
        addr,
        port,
        _dir: dir,
    }
}

pub fn redis() -> Server {
    redis_with(&[])
}

pub fn memcached() -> Server {
    let port = free_port();
    let mut command = Command::new(program("memcached", "memcached"));
    command.args(["-u", "nobody", "-l", "127.0.0.1", "-p", &port.to_string()]);
    serve(&mut command, port, tempfile::tempdir().expect("a directory"))
}

/// twemproxy with a configuration; it listens where that says.
pub fn nutcracker(config: &str, port: u16) -> Server {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("nutcracker.yml");
    std::fs::write(&file, config).expect("writes");
    let mut command = Command::new(program("nutcracker", "nutcracker"));
    command.arg("-c").arg(&file).arg("-p").arg(dir.path().join("pid"));
    command
        .arg("-o")
        .arg(dir.path().join("log"))
        .args(["-a", "127.0.0.1", "-s", &free_port().to_string()]);
    serve(&mut command, port, dir)
}

pub struct Proxy {
    pub process: Process,
    /// Addresses of the pools, in order; then that of the admin listener, if any.
    pub addrs: Vec<String>,
    pub file: PathBuf,
    dir: tempfile::TempDir,
}

impl Proxy {
    pub fn start(config: &str) -> Proxy {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("proxy.toml");
        std::fs::write(&file, config).expect("writes");
        Proxy::start_with(file, dir)
    }

    /// With a file that lies in `dir`, or that links there lead to.
    pub fn start_with(file: PathBuf, dir: tempfile::TempDir) -> Proxy {
        let log = std::fs::File::create(dir.path().join("log")).expect("a log");
        let mut child = Command::new(env!("CARGO_BIN_EXE_ferrite-cache-proxy"))
            .args(["serve", "--config"])
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("starts");
        let out = child.stdout.take().expect("is piped");
        let mut addrs = Vec::new();
        for line in BufReader::new(out).lines() {
            let line = line.expect("is text");
            if line == "ready" {
                break;
            }
            addrs.push(line.rsplit(' ').next().expect("has words").to_owned());
        }
        let proxy = Proxy {
            process: Process(child),
            addrs,
            file,
            dir,
        };
        assert!(!proxy.addrs.is_empty(), "did not start: {}", proxy.log());
        proxy
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.addrs[0])
    }
}

/// A pool of Redis servers with further options.
pub fn pool(servers: &[&Server], options: &str) -> String {
    let list: Vec<_> = servers.iter().map(|server| format!("{:?}", server.addr)).collect();
    format!(
        "[server]\nthreads = 2\n[[pools]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nservers = [{}]\n{options}\n",
        list.join(", ")
    )
}

pub struct Client {
    pub io: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub fn connect(addr: &str) -> Client {
        let io = TcpStream::connect(addr).expect("connects");
        io.set_read_timeout(Some(Duration::from_secs(20))).expect("takes a timeout");
        io.set_nodelay(true).expect("takes an option");
        Client { io, read: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).expect("sends");
    }

    pub fn command(&mut self, words: &str) {
        let words: Vec<_> = words.split(' ').map(str::as_bytes).collect();
        let mut request = Vec::new();
        write::request(&mut request, &words);
        self.send(&request);
    }

    /// The next reply as it came; `None` if the connection ends.
    pub fn reply(&mut self) -> Option<Vec<u8>> {
        loop {
            let mut scanner = ReplyScanner::default();
            if let Found::Reply(len) = scanner.scan(&self.read, usize::MAX).expect("is well-formed") {
                let rest = self.read.split_off(len);
                return Some(std::mem::replace(&mut self.read, rest));
            }
            if !self.fill() {
                return None;
            }
        }
    }

    fn fill(&mut self) -> bool {
        let mut room = [0u8; 65536];
        let count = self.io.read(&mut room).unwrap_or_else(|error| {
            assert!(error.kind() != std::io::ErrorKind::WouldBlock, "no reply in time");
            0
        });
        self.read.extend_from_slice(&room[..count]);
        count > 0
    }

    /// A line as it came, without its end.
    pub fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\r\n") {
                let rest = self.read.split_off(end + 2);
                let line = std::mem::replace(&mut self.read, rest);
                return String::from_utf8_lossy(&line[..end]).into_owned();
            }
            assert!(self.fill(), "the connection ended");
        }
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(self.fill(), "the connection ended");
        }
        let rest = self.read.split_off(count);
        std::mem::replace(&mut self.read, rest)
    }

    pub fn is_closed(&mut self) -> bool {
        self.read.clear();
        !self.fill()
    }

    /// A command by words, and its reply in short: text, number, `(nil)`, a list in brackets.
    pub fn ask(&mut self, words: &str) -> String {
        self.command(words);
        self.answer()
    }

    pub fn answer(&mut self) -> String {
        let reply = self.reply().expect("a reply");
        short(&reply)
    }
}

pub fn short(reply: &[u8]) -> String {
    match Value::read(reply) {
        Some(value) => shown(&value),
        None => String::from_utf8_lossy(reply).into_owned(),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Value::Error(text) => format!("!{text}"),
        Value::Integer(value) => value.to_string(),
        Value::Null => "(nil)".into(),
        Value::List(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(" ")),
    }
}

/// What an HTTP server says to `GET`.
pub fn http(addr: &str, path: &str) -> String {
    let mut io = TcpStream::connect(addr).expect("connects");
    io.write_all(format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n").as_bytes())
        .expect("sends");
    let mut text = String::new();
    io.read_to_string(&mut text).expect("reads");
    text
}
