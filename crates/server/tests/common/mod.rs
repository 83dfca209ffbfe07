//! Clusters of real processes on loopback, for tests: started, killed, restarted, and always cleaned up.
//!
//! Ports are found free before the start and kept over restarts, as the addresses of stores are. Logs are collected and told
//! when a test fails.

#![allow(dead_code)] // each test binary uses a part

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::MonoTime;
use tempfile::TempDir;

/// Generous: the machine may be busy. Nothing waits this long when all is well.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Lines of a process' log that are told when a test fails.
const LOG_TOLD: usize = 60;

/// A placement driver and stores, each a process; all are killed when it is dropped.
pub struct Cluster {
    pub nodes: Vec<Node>,
    /// Of every placement driver.
    pds: Vec<SocketAddr>,
    /// Flags by which `ferrite ctl` speaks TLS, if the processes do.
    tls: Vec<String>,
    _dir: TempDir,
}

/// What a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A placement driver and a store: with no other process a whole database.
    Both,
    Pd,
    Store,
}

/// One process with its data, running or not.
pub struct Node {
    pub part: Part,
    pub status: SocketAddr,
    /// Where it is dialled as a placement driver, if it is one.
    pub pd_addr: SocketAddr,
    data_dir: PathBuf,
    args: Vec<String>,
    child: Option<Child>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Cluster {
    /// One process that is a whole database.
    pub fn one(args: &[&str]) -> Cluster {
        Cluster::start(&[Part::Both], args)
    }

    /// A placement driver and three stores, in four processes.
    pub fn three(args: &[&str]) -> Cluster {
        Cluster::start(&[Part::Pd, Part::Store, Part::Store, Part::Store], args)
    }

    /// Three placement drivers that begin together and three stores, in six processes.
    pub fn six(args: &[&str]) -> Cluster {
        let parts = [Part::Pd, Part::Pd, Part::Pd, Part::Store, Part::Store, Part::Store];
        Cluster::start(&parts, args)
    }

    /// Starts processes of `parts`, the first one with a placement driver, and waits until all are ready.
    pub fn start(parts: &[Part], args: &[&str]) -> Cluster {
        assert_ne!(parts[0], Part::Store, "the first process runs the placement driver");
        let dir = tempfile::Builder::new()
            .prefix("ferrite-cluster")
            .tempdir()
            .expect("a temporary directory");
        let ports = free_ports(3 * parts.len());
        let with_pd = (0..parts.len()).filter(|&number| parts[number] != Part::Store);
        let pds: Vec<SocketAddr> = with_pd.map(|number| ports[3 * number]).collect();
        let node = |(number, part): (usize, &Part)| {
            let [pd_addr, addr, status] = std::array::from_fn(|port| ports[3 * number + port]);
            Node::new(
                *part,
                dir.path().join(number.to_string()),
                &pds,
                [pd_addr, addr, status],
                args,
            )
        };
        let mut cluster = Cluster {
            nodes: parts.iter().enumerate().map(node).collect(),
            pds,
            tls: tls_flags(args),
            _dir: dir,
        };
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster.nodes.iter_mut().for_each(Node::must_be_ready);
        cluster
    }

    /// Waits until every region has as many voters as there are stores: any one of them may be killed then.
    pub fn must_be_replicated(&self) {
        let deadline = MonoTime::now() + PATIENCE;
        while !self.is_replicated(self.stores().len()) {
            assert!(MonoTime::now() < deadline, "a region has too few copies:\n{}", self.logs());
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// What `ferrite ctl` does with these arguments.
    pub fn ctl(&self, args: &[&str]) -> std::process::Output {
        let flags = self.tls.iter().map(String::as_str);
        self.ctl_bare(&flags.chain(args.iter().copied()).collect::<Vec<_>>())
    }

    /// The same without what TLS asks for.
    pub fn ctl_bare(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferrite"));
        command.args(["ctl", "--pd-addr", &self.endpoints().join(",")]).args(args);
        command.output().expect("the binary runs")
    }

    fn is_replicated(&self, copies: usize) -> bool {
        let told = self.ctl(&["region", "--json"]);
        let voters = |line: &str| {
            serde_json::from_str::<serde_json::Value>(line).ok()?["voters"]
                .as_array()
                .map(Vec::len)
        };
        let told = String::from_utf8(told.stdout).expect("text");
        !told.is_empty() && told.lines().all(|line| voters(line) == Some(copies))
    }

    /// The end of what every process logged.
    pub fn logs(&self) -> String {
        self.nodes.iter().map(Node::log).collect::<Vec<_>>().join("\n----\n")
    }

    /// Addresses of the placement drivers, as clients want them.
    pub fn endpoints(&self) -> Vec<String> {
        self.pds.iter().map(SocketAddr::to_string).collect()
    }

    /// Adds a placement driver that joins the others, and starts it.
    pub fn add_pd(&mut self) -> &mut Node {
        let ports = free_ports(3);
        let dir = self._dir.path().join(self.nodes.len().to_string());
        let mut node = Node::new(Part::Pd, dir, &[], [ports[0], ports[1], ports[2]], &[]);
        node.args.extend(["--join".into(), self.endpoints().join(",")]);
        node.start();
        self.pds.push(node.pd_addr);
        self.nodes.push(node);
        self.nodes.last_mut().expect("just pushed")
    }

    /// Starts a process again with further arguments.
    pub fn restart_with(&mut self, node: usize, args: &[&str]) {
        let node = &mut self.nodes[node];
        node.kill();
        node.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        node.start();
        node.must_be_ready();
    }

    /// The processes that run stores.
    pub fn stores(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|&node| self.nodes[node].part != Part::Pd)
            .collect()
    }
}

impl Node {
    fn new(part: Part, data_dir: PathBuf, pds: &[SocketAddr], ports: [SocketAddr; 3], args: &[&str]) -> Node {
        let [pd_addr, addr, status] = ports.map(|port| port.to_string());
        let mut line: Vec<String> = vec!["server".into(), "--data-dir".into(), data_dir.display().to_string()];
        line.extend(["--status-addr".into(), status]);
        match part {
            Part::Both => line.extend(["--pd-addr".into(), pd_addr, "--addr".into(), addr]),
            Part::Pd => line.extend(["--role".into(), "pd".into(), "--pd-addr".into(), pd_addr]),
            Part::Store => line.extend(["--addr".into(), addr, "--join".into(), listed(pds, |_, pd| pd.to_string())]),
        }
        if part != Part::Store && pds.len() > 1 {
            line.extend([
                "--initial-cluster".into(),
                listed(pds, |number, pd| format!("pd-{number}={pd}")),
            ]);
        }
        line.extend(args.iter().map(|arg| arg.to_string()));
        Node {
            part,
            status: ports[2],
            pd_addr: ports[0],
            data_dir,
            args: line,
            child: None,
            log: Arc::default(),
        }
    }

    /// Starts the process; it is ready when [`Node::must_be_ready`] returns.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "the process runs already");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferrite"));
        command
            .args(&self.args)
            .env_remove("FERRITE_CONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let lines = BufReader::new(child.stderr.take().expect("standard error is a pipe")).lines();
        let log = self.log.clone();
        base::thread::spawn("test-log", move || {
            lines
                .map_while(Result::ok)
                .for_each(|line| log.lock().expect("no panic inside").push(line));
        });
        self.child = Some(child);
    }

    /// Waits until the process serves.
    pub fn must_be_ready(&mut self) {
        let deadline = MonoTime::now() + PATIENCE;
        loop {
            let child = self.child.as_mut().expect("started before");
            if let Some(ended) = child.try_wait().expect("a child can be waited for") {
                panic!("{:?} ended with {ended} instead of being ready:\n{}", self.part, self.log());
            }
            if is_ready(self.status, &tls_flags(&self.args)) {
                return;
            }
            assert!(MonoTime::now() < deadline, "{:?} is not ready:\n{}", self.part, self.log());
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// What `--data-dir` names.
    pub fn data_dir(&self) -> &std::path::Path {
        &self.data_dir
    }

    /// The data of a process that does not run is lost.
    pub fn wipe(&mut self) {
        assert!(self.child.is_none(), "the process runs");
        std::fs::remove_dir_all(&self.data_dir).expect("its data can be removed");
    }

    /// As a power cut of the process: nothing is flushed, nobody is told.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the process runs");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// What the status port tells of a metric, named with its labels; zero if it does not.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, page) = get(self.status, "/metrics", &tls_flags(&self.args)).expect("the status port answers");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Of the store that the process runs.
    pub fn store_id(&self) -> u64 {
        let (_, page) = get(self.status, "/status", &tls_flags(&self.args)).expect("the status port answers");
        let report: serde_json::Value = serde_json::from_str(&page).expect("JSON");
        report["stores"][0]["id"].as_u64().expect("a store")
    }

    /// The most memory that the process ever had in use, in MiB.
    pub fn peak_memory_mib(&self) -> u64 {
        let pid = self.child.as_ref().expect("the process runs").id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux tells of its processes");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.expect("a figure in kB") >> 10
    }

    /// The end of what the process logged.
    pub fn log(&self) -> String {
        let log = self.log.lock().expect("no panic inside");
        log[log.len().saturating_sub(LOG_TOLD)..].join("\n")
    }
}

fn listed(pds: &[SocketAddr], one: impl Fn(usize, &SocketAddr) -> String) -> String {
    let all = pds.iter().zip(1..).map(|(pd, number)| one(number, pd));
    all.collect::<Vec<_>>().join(",")
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            eprintln!("---- {:?} {} ----\n{}", self.part, self.args.join(" "), self.log());
        }
    }
}

/// Loopback addresses that nobody listens on, below those that the system gives to outgoing connections: the process that gets one may
/// die and come back to it. All are held until all are found, so they differ.
fn free_ports(count: usize) -> Vec<SocketAddr> {
    use rand::{Rng, SeedableRng, rngs::SmallRng};
    let mut random = SmallRng::from_os_rng();
    let free = std::iter::repeat_with(|| TcpListener::bind(("127.0.0.1", random.random_range(10_000..32_000))).ok()).take(10_000);
    let held: Vec<TcpListener> = free.flatten().take(count).collect();
    assert_eq!(held.len(), count, "no free ports");
    held.iter().map(|listener| listener.local_addr().expect("bound")).collect()
}

/// Whether the status port says so.
fn is_ready(status: SocketAddr, tls: &[String]) -> bool {
    get(status, "/ready", tls).is_some_and(|(code, _)| code == "200")
}

/// Status code and body of a page of the status port, if it answers.
fn get(status: SocketAddr, path: &str, tls: &[String]) -> Option<(String, String)> {
    let ask = || -> std::io::Result<String> {
        let mut socket = TcpStream::connect_timeout(&status, Duration::from_millis(200))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {status}\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        match tls {
            [] => {
                socket.write_all(request.as_bytes())?;
                socket.read_to_string(&mut answer)?;
            }
            [_, ca, _, cert, _, key] => {
                let mut secure = rustls::StreamOwned::new(handshake(status, [ca, cert, key]), socket);
                secure.write_all(request.as_bytes())?;
                // Some servers close without a farewell.
                let _end = secure.read_to_string(&mut answer);
            }
            other => panic!("flags of TLS: {other:?}"),
        }
        Ok(answer)
    };
    let answer = ask().ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.to_owned(), body.to_owned()))
}

/// Those of `args` that are about TLS: a flag and a file for each of authority, certificate and key; none without TLS.
fn tls_flags(args: &[impl AsRef<str>]) -> Vec<String> {
    let value = |flag: &str| {
        args.windows(2)
            .find(|two| two[0].as_ref() == flag)
            .map(|two| two[1].as_ref().to_owned())
    };
    let given = ["--ca-path", "--cert-path", "--key-path"].map(|flag| value(flag).map(|value| [flag.to_owned(), value]));
    given.into_iter().flatten().flatten().collect()
}

fn handshake(server: SocketAddr, [ca, cert, key]: [&str; 3]) -> rustls::ClientConnection {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certificates = |file: &str| CertificateDer::pem_file_iter(file).expect("PEM").map(|one| one.expect("PEM"));
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(certificates(ca));
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(
            certificates(cert).collect(),
            PrivateKeyDer::from_pem_file(key).expect("a key"),
        )
        .expect("a pair");
    rustls::ClientConnection::new(Arc::new(config), server.ip().into()).expect("begins")
}
