//! A process wired together: ports, data directory, placement driver, store, status port; their start and stop in order.
//!
//! Start: ports are bound first (the usual fault, and nothing has happened yet), then the data directory is taken, then the
//! status port answers while the rest starts. Stop, on SIGTERM or SIGINT, goes the other way round and is bounded in time.

mod gc;
mod leaders;
mod pd;
mod rest;
mod room;
mod split;
mod store;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use base::thread;
use rand::TryRngCore;
use rand::rngs::OsRng;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

pub use self::pd::PdNode;
pub use self::store::{PdAt, StoreNode};
use crate::config::{Config, Role, listen_addr, strip_scheme};
use crate::data_dir::DataDir;
use crate::failure::Failure;
use crate::listen::{self, Listener};
use crate::security::Security;
use crate::status::{self, Status};

/// Names of the parts that readiness waits for.
pub const PD: &str = "placement driver";
pub const STORE: &str = "store";

/// Runs what `config` asks for until the process is told to stop. `config` is valid.
pub fn run(config: Config) -> anyhow::Result<()> {
    run_process(&config, serve(&config))
}

/// Runs `work` as the whole of the process: with its logs, its limits and its threads `grpc`.
pub fn run_process(config: &Config, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    base::log::init(&config.log.level, config.log.format).map_err(Failure::LogLevel)?;
    thread::abort_on_panic();
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.grpc_threads())
        .thread_name("grpc")
        .enable_all()
        .build()
        .context("start the threads that serve the network")?;
    let outcome = runtime.block_on(work);
    // Blocking work that is still under way (a raft snapshot being written) is not waited for: it is redone.
    runtime.shutdown_background();
    outcome
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let mut stop_signal = StopSignal::new()?;
    let security = Security::open(&config.security)?;
    let ports = Ports::bind(config)?;
    let data = DataDir::open(&config.server.data_dir, config.server.disk_reserve)?;
    info!(version = crate::VERSION, commit = crate::COMMIT, data_dir = %data.path().display(), grpc_threads = config.grpc_threads(), "start");
    let status = Status::new(config, awaited(config.server.role));
    let status_port = ports.status.map(|port| serve_status(port, &status, &security)).transpose()?;
    let drain = config.server.drain.0;
    let started = tokio::select! {
        node = Node::start(config, &security, &data, ports.pd, ports.store, &status) => Some(node?),
        () = stop_signal.wait() => None,
    };
    if let Some(node) = started {
        stop_signal.wait().await;
        status.stopping();
        node.stop(drain).await?;
    }
    if let Some(port) = status_port {
        port.stop(Duration::from_millis(100)).await;
    }
    info!("stopped");
    Ok(())
}

fn awaited(role: Role) -> Vec<&'static str> {
    let parts = [(role.has_pd(), PD), (role.has_store(), STORE)];
    parts.into_iter().filter(|(runs, _)| *runs).map(|(_, name)| name).collect()
}

/// What a process runs besides its status port.
struct Node {
    pd: Option<PdNode>,
    store: Option<StoreNode>,
}

impl Node {
    async fn start(
        config: &Config,
        security: &Security,
        data: &DataDir,
        pd_port: Option<std::net::TcpListener>,
        store_port: Option<std::net::TcpListener>,
        status: &Status,
    ) -> anyhow::Result<Node> {
        let pd = match pd_port {
            Some(port) => Some(PdNode::start(config, security, &data.path().join("pd"), port, status).await?),
            None => None,
        };
        let founders = config.pd.founders().into_iter().map(|founder| founder.addr);
        let given = config.pd.join.iter().map(|addr| strip_scheme(addr).to_owned());
        // Over the network even to the member in this process: another may lead by now.
        let at = PdAt::There(pd.iter().map(|pd| pd.address.clone()).chain(founders).chain(given).collect());
        let store = match store_port {
            Some(port) => Some(StoreNode::start(config, security, &data.path().join("store"), at, port, status).await?),
            None => None,
        };
        Ok(Node { pd, store })
    }

    /// The store first: its last words go to the placement driver.
    async fn stop(self, drain: Duration) -> anyhow::Result<()> {
        if let Some(store) = self.store {
            store.stop(drain).await?;
        }
        if let Some(pd) = self.pd {
            pd.stop(drain).await;
        }
        Ok(())
    }
}

/// Serves the status port.
pub fn serve_status(port: std::net::TcpListener, status: &Arc<Status>, security: &Security) -> anyhow::Result<Listener> {
    let (routes, tls) = (status::router(status.clone()), security.status_acceptor.clone());
    let listener = listen::serve(port, routes, status::CONNECTIONS_MAX, tls).context("serve the status port")?;
    info!(url = %format_args!("{}://{}/", security.dialer.scheme(), listener.address), "status port");
    Ok(listener)
}

/// The sockets of a process, bound and not yet served.
struct Ports {
    pd: Option<std::net::TcpListener>,
    store: Option<std::net::TcpListener>,
    status: Option<std::net::TcpListener>,
}

impl Ports {
    fn bind(config: &Config) -> Result<Ports, Failure> {
        let Config { server, pd, .. } = config;
        let bind = |wanted: bool, addr: &str, flag| wanted.then(|| listen::bind(checked(addr), flag)).transpose();
        Ok(Ports {
            pd: bind(server.role.has_pd(), &pd.addr, "--pd-addr")?,
            store: bind(server.role.has_store(), &server.addr, "--addr")?,
            status: bind(!server.status_addr.is_empty(), &server.status_addr, "--status-addr")?,
        })
    }
}

fn checked(addr: &str) -> SocketAddr {
    listen_addr(addr).expect("the configuration was validated")
}

/// Where others dial a listener: as advertised, else where it is bound.
fn with_address(advertised: &str, bound: SocketAddr) -> String {
    match advertised {
        "" => bound.to_string(),
        given => given.to_owned(),
    }
}

/// Runs work on the disk where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("a panic has ended the work")?
}

/// A number that nobody else draws, from the system's source. Ids and seeds of a process; machines get theirs from it.
fn random_id() -> u64 {
    let drawn = OsRng.try_next_u64().expect("the system gives randomness");
    // Zero stands for unknown, and the highest bit is left free for clients that read a signed number.
    (drawn >> 1).max(1)
}

/// Every connection and every table of the engine is an open file; the usual soft limit of 1024 is for programs that use `select`.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "raise the limit of open files");
    }
}

/// What tells a process to stop: SIGTERM from a supervisor, SIGINT from a terminal.
pub struct StopSignal {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignal {
    pub fn new() -> anyhow::Result<StopSignal> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(StopSignal {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    pub async fn wait(&mut self) {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "stop");
    }
}
