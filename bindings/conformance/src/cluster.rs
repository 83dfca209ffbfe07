//! A placement driver and three stores, each a process, and what befalls them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::MonoTime;
use client::{Api, ClientOptions, Keyspace, RawClient};
use proto::pdpb::Region;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Generous: the machine may be busy. Nothing waits this long when all is well.
const PATIENCE: Duration = Duration::from_secs(60);
const STORES: usize = 3;

/// All processes; killed when it is dropped.
pub struct Cluster {
    /// The placement driver first.
    nodes: Vec<Node>,
    pub endpoint: String,
    runtime: Runtime,
    client: RawClient,
    _dir: TempDir,
}

struct Node {
    args: Vec<String>,
    binary: PathBuf,
    address: String,
    status: SocketAddr,
    log: PathBuf,
    child: Option<Child>,
    frozen: bool,
}

impl Cluster {
    /// Starts it, with regions that are split at `split_keys`, and waits until each region is on all stores.
    pub fn start(binary: &Path, split_keys: &[String]) -> Result<Cluster> {
        let dir = tempfile::Builder::new().prefix("ferrite-conformance").tempdir()?;
        let ports = free_ports(2 * (STORES + 1))?;
        let config = dir.path().join("ferrite.toml");
        // In API V2 all borders are encoded as those of transactions are; raw keys begin with `r`, keys of transactions with `x`.
        let border = |mode: char, key: &String| format!("{mode}\0\0\0{key}");
        let borders: Vec<String> = ['r', 'x']
            .iter()
            .flat_map(|mode| split_keys.iter().map(|key| border(*mode, key)))
            .collect();
        std::fs::write(
            &config,
            format!("[pd]\nsplit-txn-keys = {}\n", serde_json::to_string(&borders)?),
        )?;
        let endpoint = ports[0].to_string();
        let mut nodes: Vec<Node> = (0..=STORES)
            .map(|number| {
                let [address, status] = [ports[2 * number], ports[2 * number + 1]];
                let mut args = vec!["server".to_owned(), "--config".into(), config.display().to_string()];
                let data = dir.path().join(number.to_string()).display().to_string();
                args.extend(["--data-dir".into(), data, "--status-addr".into(), status.to_string()]);
                args.extend(["--log-level".into(), "warn".into()]);
                match number {
                    0 => args.extend(["--role", "pd", "--pd-addr", &endpoint].map(str::to_owned)),
                    _ => args.extend(["--addr", &address.to_string(), "--join", &endpoint].map(str::to_owned)),
                }
                // The one version that has TTLs beside transactions.
                args.extend(["--api-version".into(), "v2".into()]);
                Node {
                    args,
                    binary: binary.to_owned(),
                    address: address.to_string(),
                    status,
                    log: dir.path().join(format!("{number}.log")),
                    child: None,
                    frozen: false,
                }
            })
            .collect();
        for node in &mut nodes {
            node.start()?;
        }
        for node in &mut nodes {
            node.wait_ready()?;
        }
        let runtime = Runtime::new()?;
        let options = ClientOptions {
            api: Api::V2(Keyspace::Id(0)),
            deadline: Duration::from_secs(2),
            ..Default::default()
        };
        let client = runtime.block_on(RawClient::connect(std::slice::from_ref(&endpoint), options))?;
        let cluster = Cluster {
            nodes,
            endpoint,
            runtime,
            client,
            _dir: dir,
        };
        cluster.wait_until("every region is on all stores", || cluster.is_replicated())?;
        Ok(cluster)
    }

    /// Lets a fault strike, or end. `key` is one that it shall concern.
    pub fn fault(&mut self, fault: &str, key: &[u8]) -> Result<()> {
        match fault {
            "kill-leader" => {
                let leader = self.leader(key)?;
                self.nodes[leader].kill();
                Ok(())
            }
            "move-leader" => self.move_leader(key),
            "freeze-stores" => self.nodes[1..].iter_mut().try_for_each(|node| node.signal("STOP")),
            "thaw-stores" => self.nodes[1..].iter_mut().try_for_each(|node| node.signal("CONT")),
            "kill-pd" => {
                self.nodes[0].kill();
                Ok(())
            }
            "start-pd" => {
                self.nodes[0].start()?;
                self.nodes[0].wait_ready()
            }
            "heal" => self.heal(),
            other => bail!("there is no fault `{other}`"),
        }
    }

    /// Ends all faults and waits until every region has a leader that serves.
    pub fn heal(&mut self) -> Result<()> {
        let mut healed = false;
        for node in &mut self.nodes {
            if node.frozen {
                node.signal("CONT")?;
                healed = true;
            }
            if node.child.is_none() {
                node.start()?;
                healed = true;
            }
        }
        if !healed {
            return Ok(());
        }
        for node in &mut self.nodes {
            node.wait_ready()?;
        }
        self.wait_until("all keys can be read", || {
            self.runtime.block_on(self.client.checksum(..)).is_ok()
        })
    }

    /// Kills a store, lets it be away for a while and starts it again; all keys can be read then.
    pub fn restart_store(&mut self, number: usize, away: Duration) -> Result<()> {
        self.nodes[1 + number % STORES].kill();
        std::thread::park_timeout(away);
        self.heal()
    }

    /// The end of what every process logged.
    pub fn logs(&self) -> String {
        let tails = self.nodes.iter().map(|node| {
            let log = std::fs::read_to_string(&node.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(10)..].join("\n");
            format!("---- {}\n{tail}", node.args.join(" "))
        });
        tails.collect::<Vec<_>>().join("\n")
    }

    /// The process whose store leads the region of `key`.
    fn leader(&self, key: &[u8]) -> Result<usize> {
        let address = self.runtime.block_on(async {
            let pd = self.client.pd();
            let region = pd.region(self.client.border(key.to_vec())).await?;
            let leader = region.leader.unwrap_or_default().store_id;
            Ok::<_, client::Error>(pd.store(base::StoreId(leader)).await?.0.address)
        })?;
        let at = self.nodes.iter().position(|node| node.address == address);
        at.with_context(|| format!("no process serves {address}"))
    }

    /// Stops the leader until another one is elected.
    fn move_leader(&mut self, key: &[u8]) -> Result<()> {
        let old = self.leader(key)?;
        self.nodes[old].signal("STOP")?;
        let moved = self.wait_until("another leader is elected", || {
            // Somebody must want something of the region for its peers to wake up.
            drop(self.runtime.block_on(self.client.get(key.to_vec())));
            self.leader(key).is_ok_and(|leader| leader != old)
        });
        self.nodes[old].signal("CONT")?;
        moved
    }

    fn is_replicated(&self) -> bool {
        let regions = self.runtime.block_on(async {
            let pd = self.client.pd();
            pd.scan_regions(Default::default(), Default::default(), 0).await
        });
        let voters = |region: &Region| region.region.as_ref().map_or(0, |meta| meta.peers.len());
        regions.is_ok_and(|regions| !regions.is_empty() && regions.iter().all(|region| voters(region) == STORES))
    }

    fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
        let deadline = MonoTime::now() + PATIENCE;
        while !is_so() {
            if MonoTime::now() >= deadline {
                bail!("waited {PATIENCE:?} until {what}:\n{}", self.logs());
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Node {
    fn start(&mut self) -> Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.binary);
        command
            .args(&self.args)
            .env_remove("FERRITE_CONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = command.stderr(log).spawn();
        self.child = Some(child.with_context(|| format!("start {}", self.binary.display()))?);
        Ok(())
    }

    fn wait_ready(&mut self) -> Result<()> {
        let deadline = MonoTime::now() + PATIENCE;
        while !is_ready(self.status) {
            let child = self.child.as_mut().context("the process was started")?;
            let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(ended) = child.try_wait()? {
                bail!(
                    "ended with {ended} instead of being ready: {}\n{}",
                    self.args.join(" "),
                    log()
                );
            }
            if MonoTime::now() >= deadline {
                bail!("is not ready: {}\n{}", self.args.join(" "), log());
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Ok(())
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        self.frozen = false;
    }

    fn signal(&mut self, name: &str) -> Result<()> {
        let Some(child) = &self.child else { return Ok(()) };
        let pid = child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().context("start kill")?;
        self.frozen = name == "STOP";
        match status.success() {
            true => Ok(()),
            false => bail!("signal {name} to process {pid} failed"),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Loopback addresses that nobody listens on, below those that the system gives to outgoing connections: a process may die and come back.
fn free_ports(count: usize) -> Result<Vec<SocketAddr>> {
    let mut random = SmallRng::from_os_rng();
    let free = std::iter::repeat_with(|| TcpListener::bind(("127.0.0.1", random.random_range(10_000..32_000))).ok());
    let held: Vec<TcpListener> = free.take(10_000).flatten().take(count).collect();
    if held.len() < count {
        bail!("no free ports");
    }
    held.iter().map(|listener| Ok(listener.local_addr()?)).collect()
}

/// Whether the status port says so.
fn is_ready(status: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut socket = TcpStream::connect_timeout(&status, Duration::from_millis(200))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(socket, "GET /ready HTTP/1.1\r\nHost: {status}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
}
