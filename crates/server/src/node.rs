//! A process wired together: ports, data directory, placement driver, store, status port; their start and stop in order.
//!
//! Start: ports are bound first (the usual fault, and nothing has happened yet), then the data directory is taken, then the
//! status port answers while the rest starts. Stop, on SIGTERM or SIGINT, goes the other way round and is bounded in time.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use base::thread;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::config::{Config, listen_addr};
use crate::data_dir::DataDir;
use crate::failure::Failure;
use crate::listen::{self, Listener};
use crate::status::{self, Status};

/// Names of the parts that readiness waits for.
pub const PD: &str = "placement driver";
pub const STORE: &str = "store";

/// The runtime that serves the network: `threads` workers called `grpc`.
pub fn runtime(threads: usize) -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("grpc")
        .enable_all()
        .build()
        .context("start the threads that serve the network")
}

/// Runs what `config` asks for until the process is told to stop. `config` is valid.
pub fn run(config: Config) -> anyhow::Result<()> {
    base::log::init(&config.log.level, config.log.format).map_err(Failure::LogLevel)?;
    thread::abort_on_panic();
    let runtime = runtime(config.grpc_threads())?;
    let outcome = runtime.block_on(serve(config));
    // Blocking work that is still under way (a raft snapshot being written) is not waited for: it is redone.
    runtime.shutdown_background();
    outcome
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut stop_signal = StopSignal::new()?;
    let ports = Ports::bind(&config)?;
    let data = DataDir::open(&config.server.data_dir, config.storage.disk_reserve)?;
    info!(version = crate::VERSION, commit = crate::COMMIT, data_dir = %data.path().display(), grpc_threads = config.grpc_threads(), "start");
    let role = config.server.role;
    let awaited = [(role.has_pd(), PD), (role.has_store(), STORE)];
    let status = Status::new(&config, awaited.into_iter().filter(|(runs, _)| *runs).map(|(_, name)| name));
    // Held, and told as not ready, until the parts that serve them are there.
    let _waiting = (ports.pd, ports.store);
    let status_port = ports.status.map(|port| serve_status(port, &status)).transpose()?;
    stop_signal.wait().await;
    status.stopping();
    if let Some(port) = status_port {
        port.stop(config.server.drain.0).await;
    }
    info!("stopped");
    Ok(())
}

/// Serves the status port.
pub fn serve_status(port: std::net::TcpListener, status: &Arc<Status>) -> anyhow::Result<Listener> {
    let listener =
        listen::serve(port, status::router(status.clone()), status::CONNECTIONS_MAX).context("serve the status port")?;
    info!(url = %format_args!("http://{}/", listener.address), "status port");
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

/// What tells a process to stop: SIGTERM from a supervisor, SIGINT from a terminal.
struct StopSignal {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignal {
    fn new() -> anyhow::Result<StopSignal> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(StopSignal {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "stop");
    }
}
