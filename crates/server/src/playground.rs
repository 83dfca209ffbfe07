//! `ferrite playground`: placement drivers and stores in one process, to try things on and for tests.

mod throwaway;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Context;
use base::ByteSize;
use serde::Serialize;

use crate::cli::LogArgs;
use crate::config::{ApiVersion, Config};
use crate::data_dir::DataDir;
use crate::failure::Failure;
use crate::listen::{self, Listener};
use crate::node::{self, PD, PdAt, PdNode, STORE, StopSignal, StoreNode};
use crate::security::Security;
use crate::status::Status;
pub use throwaway::ClientFiles;

const EXAMPLES: &str = "\
Examples:
  ferrite playground                              three stores, data in a temporary directory
  ferrite playground --stores 1 --data-dir ./try  one store, data kept in ./try
  ferrite playground --pds 3                      three members of the placement driver, any one of which may fail
  ferrite playground --tls                        TLS everywhere, with an authority that is made for it
  ferrite playground --free-ports --json          for scripts: where it listens, as one line of JSON

Ports are the usual ones when free, others when not. Ctrl-C ends it.";

const STORES_MAX: usize = 16;
const PDS_MAX: usize = 7;

/// Run a placement driver and several stores in one process, for trying and for tests.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct PlaygroundArgs {
    /// How many stores.
    #[arg(long, default_value_t = 3, value_name = "N")]
    stores: usize,
    /// How many placement drivers.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pds: usize,
    /// Where data is kept; without it in a temporary directory that is removed at the end.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Keep the temporary directory.
    #[arg(long)]
    keep: bool,
    /// How raw data lies in the stores [default: v1].
    #[arg(long, value_enum)]
    api_version: Option<ApiVersion>,
    /// TLS on every port, with certificates of an authority that is made for this playground and forgotten.
    #[arg(long)]
    tls: bool,
    /// Take free ports even when the usual ones are free.
    #[arg(long)]
    free_ports: bool,
    /// Print where it listens as one line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    log: LogArgs,
}

/// Where a playground listens and keeps data.
#[derive(Clone, Debug, Serialize)]
pub struct Endpoints {
    pub pd: String,
    /// All members of the placement driver, that one among them.
    pub pds: Vec<String>,
    pub stores: Vec<String>,
    pub status: String,
    /// What clients need for TLS, if there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientFiles>,
    pub data_dir: PathBuf,
    /// Whether the data goes when the playground ends.
    pub temporary: bool,
}

/// A running playground.
pub struct Playground {
    pub endpoints: Endpoints,
    pds: Vec<PdNode>,
    stores: Vec<StoreNode>,
    status_port: Listener,
    data: Option<DataDir>,
    temporary: Option<tempfile::TempDir>,
}

/// Runs one until the process is told to stop.
pub fn run(args: PlaygroundArgs) -> anyhow::Result<()> {
    let mut config = Config::default();
    // Its user reads what it prints, not its logs.
    config.log.level = "warn".into();
    args.log.clone().apply(&mut config);
    config.server.api_version = args.api_version.unwrap_or_default();
    let mut faults = config.validate();
    if !(1..=STORES_MAX).contains(&args.stores) {
        faults.push(format!("--stores {}: wanted 1 to {STORES_MAX}", args.stores));
    }
    if !(1..=PDS_MAX).contains(&args.pds) {
        faults.push(format!("--pds {}: wanted 1 to {PDS_MAX}", args.pds));
    }
    if !faults.is_empty() {
        return Err(Failure::Config { faults }.into());
    }
    // No region can have more copies than there are stores.
    config.pd.replicas = if args.stores >= 3 { 3 } else { 1 };
    node::run_process(&config, async {
        let mut stop_signal = StopSignal::new()?;
        let playground = Playground::start(&config, &args).await?;
        print(&playground.endpoints, args.json)?;
        stop_signal.wait().await;
        playground.stop(&config, args.keep).await
    })
}

impl Playground {
    async fn start(config: &Config, args: &PlaygroundArgs) -> anyhow::Result<Playground> {
        let temporary = match args.data_dir {
            Some(_) => None,
            None => Some(
                tempfile::Builder::new()
                    .prefix("ferrite-playground-")
                    .tempdir()
                    .context("make a temporary directory")?,
            ),
        };
        let dir = temporary
            .as_ref()
            .map(|dir| dir.path().to_owned())
            .or_else(|| args.data_dir.clone())
            .expect("one of the two is there");
        let data = DataDir::open(&dir, ByteSize(0))?;
        let mut config = config.clone();
        let made = args.tls.then(|| throwaway::make(&dir.join("tls"))).transpose()?;
        let tls = made.map(|(security, files)| {
            config.security = security;
            files
        });
        let (config, security) = (&config, Security::open(&config.security)?);
        let port = |usual: u16, flag| bind(usual, args.free_ports, flag);
        let status = Status::new(config, [PD, STORE]);
        let status_port = node::serve_status(port(20180, "--status-addr")?, &status, &security)?;
        let pds = start_pds(config, &security, args, &dir, &status).await?;
        let addresses: Vec<String> = pds.iter().map(|pd| pd.address.clone()).collect();
        let mut stores = Vec::new();
        for n in 0..args.stores {
            let place = dir.join(format!("store-{}", n + 1));
            let at = match &pds[..] {
                [alone] => PdAt::Here(alone.handle().clone()),
                _ => PdAt::There(addresses.clone()),
            };
            stores.push(StoreNode::start(config, &security, &place, at, port(20160 + n as u16, "--addr")?, &status).await?);
        }
        let endpoints = Endpoints {
            pd: addresses[0].clone(),
            pds: addresses,
            stores: stores.iter().map(|store| store.address.clone()).collect(),
            status: format!("{}://{}/", security.dialer.scheme(), status_port.address),
            tls,
            data_dir: dir,
            temporary: temporary.is_some() && !args.keep,
        };
        Ok(Playground {
            endpoints,
            pds,
            stores,
            status_port,
            data: Some(data),
            temporary,
        })
    }

    async fn stop(mut self, config: &Config, keep: bool) -> anyhow::Result<()> {
        let drain = config.server.drain.0;
        for store in self.stores {
            store.stop(drain).await?;
        }
        for pd in self.pds {
            pd.stop(drain).await;
        }
        self.status_port.stop(std::time::Duration::from_millis(100)).await;
        drop(self.data.take());
        match self.temporary {
            Some(dir) if keep => eprintln!("data kept in {}", dir.keep().display()),
            Some(dir) => dir.close().context("remove the temporary directory")?,
            None => {}
        }
        Ok(())
    }
}

/// Placement drivers: one as ever, or several that begin together.
async fn start_pds(
    config: &Config,
    security: &Security,
    args: &PlaygroundArgs,
    dir: &Path,
    status: &Status,
) -> anyhow::Result<Vec<PdNode>> {
    let port = |n: usize| bind(2379 + 1000 * n as u16, args.free_ports, "--pd-addr");
    if args.pds == 1 {
        return Ok(vec![
            PdNode::start(config, security, &dir.join("pd"), port(0)?, status).await?,
        ]);
    }
    let ports = (0..args.pds).map(port).collect::<Result<Vec<TcpListener>, Failure>>()?;
    let founder = |(n, port): (usize, &TcpListener)| Ok(format!("pd-{}={}", n + 1, port.local_addr()?));
    let mut config = config.clone();
    config.pd.initial_cluster = ports.iter().enumerate().map(founder).collect::<anyhow::Result<_>>()?;
    let started = ports.into_iter().zip(1..).map(|(port, n)| {
        let (config, place) = (&config, dir.join(format!("pd-{n}")));
        async move { PdNode::start(config, security, &place, port, status).await }
    });
    futures::future::try_join_all(started).await
}

/// The usual port on loopback, or a free one if it is taken.
fn bind(usual: u16, free: bool, flag: &'static str) -> Result<TcpListener, Failure> {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match listen::bind(at(if free { 0 } else { usual }), flag) {
        Err(Failure::PortTaken { .. }) => listen::bind(at(0), flag),
        outcome => outcome,
    }
}

fn print(endpoints: &Endpoints, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let text = match json {
        true => serde_json::to_string(endpoints)? + "\n",
        false => describe(endpoints),
    };
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("tell where the playground listens")
}

fn describe(endpoints: &Endpoints) -> String {
    let Endpoints {
        pd,
        pds,
        stores,
        status,
        tls,
        data_dir,
        temporary,
    } = endpoints;
    let tls_flags = tls.as_ref().map_or_else(String::new, |ClientFiles { ca, cert, key }| {
        format!(
            "--ca-path {} --cert-path {} --key-path {} ",
            ca.display(),
            cert.display(),
            key.display()
        )
    });
    let pd_flag = if pd == "127.0.0.1:2379" {
        String::new()
    } else {
        format!("--pd-addr {pd} ")
    };
    let fate = if *temporary { "gone when it ends" } else { "kept" };
    format!(
        "A cluster of {} store(s) runs in this process.\n\n\
         \x20 clients dial   {}\n\
         \x20 stores         {}\n\
         \x20 status page    {status}\n\
         \x20 data           {} ({fate})\n\n\
         Try in another terminal:\n\
         \x20 ferrite ctl {pd_flag}{tls_flags}put greeting hello\n\
         \x20 ferrite ctl {pd_flag}{tls_flags}get greeting\n\n\
         Ctrl-C ends it.\n",
        stores.len(),
        pds.join("  "),
        stores.join("  "),
        data_dir.display(),
    )
}
