//! The real binary: what it tells and how it ends, as users and supervisors meet it.

mod command_line;
mod damage;
mod refusals;
mod running;
mod tls;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use base::MonoTime;

/// Generous: the machine may be busy. Nothing waits this long when all is well.
const PATIENCE: Duration = Duration::from_secs(20);

fn ferrite(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrite"));
    command.args(args).env_remove("FERRITE_CONFIG").stdin(Stdio::null());
    command
}

/// Runs a command that ends by itself.
fn run(args: &[&str]) -> Output {
    ferrite(args).output().expect("the binary runs")
}

/// Ports that nobody else has.
const FREE: [&str; 6] = [
    "--addr",
    "127.0.0.1:0",
    "--pd-addr",
    "127.0.0.1:0",
    "--status-addr",
    "127.0.0.1:0",
];

/// Runs a server on `data_dir` that is refused.
fn run_in(data_dir: &Path, args: &[&str]) -> Output {
    let mut command = ferrite(&["server"]);
    let free = FREE.chunks(2).filter(|flag| !args.contains(&flag[0]));
    command.args(free.flatten()).arg("--data-dir").arg(data_dir).args(args);
    command.output().expect("the binary runs")
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("standard error is text")
}

/// Asserts that a start was refused with exit code 2 and one line that holds `wanted`.
fn assert_refused(output: &Output, wanted: &str) {
    let told: Vec<&str> = stderr(output).lines().filter(|line| line.starts_with("ferrite: ")).collect();
    assert_eq!(told.len(), 1, "one line tells why; standard error was: {}", stderr(output));
    assert!(told[0].contains(wanted), "wanted {wanted:?} in {:?}", told[0]);
    assert_eq!(output.status.code(), Some(2), "{}", told[0]);
    assert!(output.stdout.is_empty(), "talk went to standard output");
}

/// A server in a process of its own, on free ports, killed when dropped.
struct Server {
    child: Child,
    /// Events, and as plain strings what is said beside the log.
    log: Receiver<serde_json::Value>,
    seen: Vec<serde_json::Value>,
}

impl Server {
    fn start(data_dir: &Path, args: &[&str]) -> Server {
        let mut command = ferrite(&["server"]);
        command
            .args(FREE)
            .arg("--data-dir")
            .arg(data_dir)
            .args(["--log-format", "json"])
            .args(args);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary runs");
        let lines = BufReader::new(child.stderr.take().expect("standard error is a pipe")).lines();
        let (sender, log) = channel();
        base::thread::spawn("test-log", move || {
            for line in lines.map_while(Result::ok) {
                drop(sender.send(serde_json::from_str(&line).unwrap_or(serde_json::Value::String(line))));
            }
        });
        Server {
            child,
            log,
            seen: Vec::new(),
        }
    }

    /// Waits for the log line `message` and returns its field `field`.
    fn logged(&mut self, message: &str, field: &str) -> String {
        let deadline = MonoTime::now() + PATIENCE;
        let of = |event: &serde_json::Value| {
            let fields = &event["fields"];
            (fields["message"] == message).then(|| fields[field].as_str().unwrap_or_default().to_owned())
        };
        loop {
            if let Some(value) = self.seen.iter().find_map(of) {
                return value;
            }
            let left = deadline.since(MonoTime::now());
            match self.log.recv_timeout(left) {
                Ok(event) => self.seen.push(event),
                Err(error) => panic!("no log line {message:?} ({error}); the log was {:#?}", self.seen),
            }
        }
    }

    /// What it said beside its log.
    fn told(&mut self) -> Vec<String> {
        self.seen.extend(self.log.iter());
        self.seen.iter().filter_map(|line| line.as_str().map(str::to_owned)).collect()
    }

    fn has_logged(&mut self, message: &str) -> bool {
        self.seen.extend(self.log.try_iter());
        self.seen.iter().any(|event| event["fields"]["message"] == message)
    }

    fn status_url(&mut self) -> String {
        self.logged("status port", "url")
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the process is there");
    }

    /// Waits until the process ends.
    fn wait(&mut self) -> ExitStatus {
        must("the process ends", || {
            self.child.try_wait().expect("a child can be waited for")
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Asks again and again until there is an answer.
fn must<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = MonoTime::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(MonoTime::now() < deadline, "gave up waiting until {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// `GET url`: status code and body.
fn get(url: &str) -> (u16, String) {
    let rest = url.strip_prefix("http://").expect("an http URL");
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut socket = TcpStream::connect(host).expect("the port answers");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    write!(socket, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("the request is sent");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("the answer ends");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let code = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("an answer has a status code");
    (code, body.to_owned())
}
