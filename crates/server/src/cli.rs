//! The command line: what users type, and how it becomes configuration and work.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use base::log::LogFormat;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config::{ApiVersion, Config, Role};
use crate::ctl;
use crate::failure::Failure;
use crate::node;
use crate::playground::{self, PlaygroundArgs};

/// What `--version` prints behind the name.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("FERRITE_COMMIT"), ")");

const EXAMPLES: &str = "\
Examples:
  ferrite server                      a whole database in ./ferrite-data, clients dial 127.0.0.1:2379
  ferrite playground --stores 3       three replicated stores in one process, gone when it ends
  ferrite ctl put greeting hello      write a key
  ferrite ctl get greeting            read it

Exit codes: 0 done, 1 no (not found, not valid), 2 error.";

const SERVER_EXAMPLES: &str = "\
Examples:
  ferrite server
      A whole database: placement driver on 2379, store on 20160, status page on http://127.0.0.1:20180.

  ferrite server --join 127.0.0.1:2379 --data-dir store-2 --addr 127.0.0.1:20161 --status-addr 127.0.0.1:20181
      A second store for it. With three, every region has three copies.

  ferrite server --role pd
  ferrite server --role store --join 127.0.0.1:2379
      Placement driver and store in processes of their own.

  ferrite server --role pd --pd-addr 127.0.0.1:2379 --initial-cluster pd-1=127.0.0.1:2379,pd-2=127.0.0.1:3379,pd-3=127.0.0.1:4379
      The first of three placement drivers that begin together; stores join by --join with all three addresses.

  ferrite server --role pd --pd-addr 127.0.0.1:5379 --join 127.0.0.1:2379
      A further placement driver for a cluster that is there.

  ferrite server --config ferrite.toml --check-config
      Tells every fault of a configuration and starts nothing. Exit code 1 if there is one.

Flags win over the file of --config, which wins over the defaults; --print-config shows the outcome.";

/// A replicated, transactional key-value database that TiKV's clients use unmodified.
#[derive(Debug, Parser)]
#[command(name = "ferrite", version = VERSION, after_help = EXAMPLES, arg_required_else_help = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Server(Box<ServerArgs>),
    Playground(PlaygroundArgs),
    Ctl(ctl::Args),
    /// Print completions for a shell: `ferrite completions bash > /etc/bash_completion.d/ferrite`.
    Completions {
        shell: Shell,
    },
}

/// Run a placement driver and a store: alone a whole database, with --join a part of a cluster.
#[derive(Debug, Default, Args)]
#[command(after_help = SERVER_EXAMPLES)]
pub struct ServerArgs {
    /// What to run: the placement driver, a store, or both [default: all; store with --join].
    #[arg(long, value_enum)]
    role: Option<Role>,
    /// Directory of all data; made when missing [default: ./ferrite-data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How raw data lies in the store; fixed once the data directory is made [default: v1].
    #[arg(long, value_enum)]
    api_version: Option<ApiVersion>,

    /// Labels that tell where the store stands, such as zone=z1,host=h1.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    labels: Option<Vec<String>>,

    /// Where the store listens [default: 127.0.0.1:20160].
    #[arg(long, value_name = "IP:PORT", help_heading = "Addresses")]
    addr: Option<String>,
    /// Where others dial the store [default: --addr].
    #[arg(long, value_name = "HOST:PORT", help_heading = "Addresses")]
    advertise_addr: Option<String>,
    /// Where the placement driver listens [default: 127.0.0.1:2379].
    #[arg(long, value_name = "IP:PORT", help_heading = "Addresses")]
    pd_addr: Option<String>,
    /// Where others dial the placement driver [default: --pd-addr].
    #[arg(long, value_name = "HOST:PORT", help_heading = "Addresses")]
    advertise_pd_addr: Option<String>,
    /// Where the status page, metrics and profiles are; "" turns them off [default: 127.0.0.1:20180].
    #[arg(long, value_name = "IP:PORT", help_heading = "Addresses")]
    status_addr: Option<String>,
    /// All placement drivers that begin a cluster together, this one among them: pd-1=HOST:PORT,pd-2=HOST:PORT,...
    #[arg(long, value_name = "NAME=HOST:PORT", value_delimiter = ',', help_heading = "Addresses")]
    initial_cluster: Option<Vec<String>>,
    /// Name of this placement driver among its members [default: by its address].
    #[arg(long, value_name = "NAME", help_heading = "Addresses")]
    name: Option<String>,
    /// Placement drivers of the cluster to join; several parted by commas.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', help_heading = "Addresses")]
    join: Option<Vec<String>>,
    /// Authority of the cluster's certificates (PEM): TLS on every port, with certificates on both sides.
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    ca_path: Option<PathBuf>,
    /// Certificate of this process (PEM).
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    cert_path: Option<PathBuf>,
    /// Key of the certificate (PEM).
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    key_path: Option<PathBuf>,
    /// Listen on addresses that other machines reach, without encryption or authentication.
    #[arg(long, help_heading = "Addresses")]
    allow_insecure: bool,

    /// Configuration file (TOML); docs/configuration.md lists the options.
    #[arg(long, value_name = "FILE", env = "FERRITE_CONFIG", help_heading = "Configuration")]
    config: Option<PathBuf>,
    /// Tell every fault of the configuration and start nothing.
    #[arg(long, help_heading = "Configuration")]
    check_config: bool,
    /// Print the configuration with all its defaults and start nothing.
    #[arg(long, help_heading = "Configuration")]
    print_config: bool,

    #[command(flatten)]
    log: LogArgs,
}

/// What is logged, for every command that runs servers.
#[derive(Clone, Debug, Default, Args)]
pub struct LogArgs {
    /// Level (error, warn, info, debug, trace) or filter such as info,raftstore=debug [default: info].
    #[arg(long, value_name = "LEVEL", help_heading = "Logs")]
    pub log_level: Option<String>,
    /// How log lines look on standard error [default: text].
    #[arg(long, value_enum, value_name = "FORMAT", help_heading = "Logs")]
    pub log_format: Option<Format>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: one object a line.
    Json,
}

impl LogArgs {
    /// Puts the flags over `config`.
    pub fn apply(self, config: &mut Config) {
        if let Some(level) = self.log_level {
            config.log.level = level;
        }
        if let Some(format) = self.log_format {
            config.log.format = match format {
                Format::Text => LogFormat::Text,
                Format::Json => LogFormat::Json,
            };
        }
    }
}

impl ServerArgs {
    /// The file of `--config` under the flags.
    fn into_config(self) -> Result<Config, Failure> {
        let mut config = match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::default(),
        };
        let joins = self.join.is_some();
        let Config {
            server, pd, security, ..
        } = &mut config;
        set(&mut server.role, self.role.or(joins.then_some(Role::Store)));
        set(&mut server.data_dir, self.data_dir);
        set(&mut server.api_version, self.api_version);
        set(&mut server.labels, self.labels);
        set(&mut server.addr, self.addr);
        set(&mut server.advertise_addr, self.advertise_addr);
        set(&mut server.status_addr, self.status_addr);
        set(&mut pd.addr, self.pd_addr);
        set(&mut pd.advertise_addr, self.advertise_pd_addr);
        set(&mut pd.name, self.name);
        set(&mut pd.initial_cluster, self.initial_cluster);
        set(&mut pd.join, self.join);
        set(&mut security.ca_path, self.ca_path);
        set(&mut security.cert_path, self.cert_path);
        set(&mut security.key_path, self.key_path);
        server.allow_insecure |= self.allow_insecure;
        self.log.apply(&mut config);
        Ok(config)
    }
}

fn set<T>(option: &mut T, flag: Option<T>) {
    if let Some(value) = flag {
        *option = value;
    }
}

/// Runs the command line of this process; the outcome is its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no error; a full pipe there is nobody's business.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ferrite: {}", base::log::chain(error.as_ref()));
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Server(args) => server(*args),
        Command::Playground(args) => playground::run(args).map(|()| ExitCode::SUCCESS),
        Command::Ctl(args) => ctl_runtime()?.block_on(ctl::run(args)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ferrite", &mut script);
            print(&script)
        }
    }
}

fn server(args: ServerArgs) -> anyhow::Result<ExitCode> {
    let (check, print_config) = (args.check_config, args.print_config);
    let config = args.into_config();
    if check {
        return Ok(check_config(config));
    }
    let config = config?;
    if print_config {
        return print(config.to_toml().as_bytes());
    }
    let faults = config.validate();
    if !faults.is_empty() {
        return Err(Failure::Config { faults }.into());
    }
    node::run(config)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether the configuration would be taken: faults to standard error, one a line.
fn check_config(config: Result<Config, Failure>) -> ExitCode {
    let faults = match config {
        Ok(config) => config.validate(),
        Err(error) => vec![base::log::chain(&error).to_string()],
    };
    for fault in &faults {
        eprintln!("{fault}");
    }
    if faults.is_empty() {
        eprintln!("configuration is valid");
        return ExitCode::SUCCESS;
    }
    ExitCode::from(1)
}

/// Writes data to standard output; a reader that went away (`| head`) is no error.
fn print(data: &[u8]) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match out.write_all(data).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("write to standard output"),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn ctl_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")
}
