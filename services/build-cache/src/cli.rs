//! The command line.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use base::ByteSize;
use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Role, Sync};
use crate::serve::Server;

const EXAMPLES: &str = "\
Examples:
  ferrite-build-cache serve
      A cache of 10GiB in ./ferrite-build-cache-data, on http://127.0.0.1:8980 for every tool.

  ferrite-build-cache serve --config cache.toml --check-config
      Tells every fault of a configuration and starts nothing. Exit code 1 if there is one.

  ferrite-build-cache verify --data-dir cache
      Reads every blob of a cache that is not running.

docs/build-cache.md has the flags for each tool. Exit codes: 0 done, 1 no, 2 error.";

/// One remote cache for every build tool.
#[derive(Debug, Parser)]
#[command(name = "ferrite-build-cache", version, after_help = EXAMPLES, arg_required_else_help = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the cache.
    Serve(Box<ServeArgs>),
    /// Read every blob and compare it with the index; what is damaged is dropped.
    Verify(ServeArgs),
}

/// Flags win over the file of --config, which wins over the defaults.
#[derive(Debug, Default, Args)]
struct ServeArgs {
    /// Address for every protocol [default: 127.0.0.1:8980].
    #[arg(long, value_name = "IP:PORT")]
    addr: Option<String>,
    /// Directory of all data [default: ./ferrite-build-cache-data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Bytes on disk that are never exceeded [default: 10GiB].
    #[arg(long, value_name = "SIZE")]
    size_max: Option<ByteSize>,
    /// When an upload is answered: once the system has it, or the disk [default: never].
    #[arg(long, value_enum)]
    sync: Option<Sync>,
    /// Role of callers without credentials [default: write].
    #[arg(long, value_enum)]
    anonymous: Option<Role>,
    /// Let anonymous callers write on an address that other machines reach.
    #[arg(long)]
    allow_insecure: bool,
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Tell every fault of the configuration and start nothing.
    #[arg(long)]
    check_config: bool,
    /// Print the configuration with all its defaults and start nothing.
    #[arg(long)]
    print_config: bool,
}

impl ServeArgs {
    fn config(&self) -> Result<Config, String> {
        let mut config = match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::default(),
        };
        set(&mut config.server.addr, &self.addr);
        set(&mut config.store.data_dir, &self.data_dir);
        set(&mut config.store.size_max, &self.size_max);
        set(&mut config.store.sync, &self.sync);
        set(&mut config.access.anonymous, &self.anonymous);
        config.server.allow_insecure |= self.allow_insecure;
        Ok(config)
    }
}

fn set<T: Clone>(option: &mut T, flag: &Option<T>) {
    if let Some(value) = flag {
        option.clone_from(value);
    }
}

/// Runs the command line of this process; the outcome is its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _printed = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    match run(&cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ferrite-build-cache: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let args = match command {
        Command::Serve(args) => args,
        Command::Verify(args) => args,
    };
    let config = args.config();
    if args.check_config {
        return Ok(check(config));
    }
    let config = config.map_err(anyhow::Error::msg)?;
    if args.print_config {
        std::io::stdout()
            .write_all(config.to_toml().as_bytes())
            .context("write to standard output")?;
        return Ok(ExitCode::SUCCESS);
    }
    let faults = config.validate();
    anyhow::ensure!(faults.is_empty(), "{}", faults.join("\n"));
    base::log::init(&config.log.level, config.log.format).map_err(anyhow::Error::msg)?;
    base::thread::abort_on_panic();
    raise_files();
    match command {
        Command::Serve(_) => serve(&config).map(|()| ExitCode::SUCCESS),
        Command::Verify(_) => verify(&config),
    }
}

fn check(config: Result<Config, String>) -> ExitCode {
    let faults = match config {
        Ok(config) => config.validate(),
        Err(error) => vec![error],
    };
    faults.iter().for_each(|fault| eprintln!("{fault}"));
    if faults.is_empty() {
        eprintln!("configuration is valid");
        return ExitCode::SUCCESS;
    }
    ExitCode::from(1)
}

/// Connections, blobs being sent and segments are files; the usual soft limit of 1024 is for other programs.
fn raise_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "raise the limit of open files");
    }
}

fn serve(config: &Config) -> anyhow::Result<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .enable_all()
        .thread_name("cache")
        .max_blocking_threads(config.server.blocking_threads);
    if config.server.threads > 0 {
        builder.worker_threads(config.server.threads);
    }
    let runtime = builder.build().context("start the runtime")?;
    runtime.block_on(async {
        let server = Server::start(config).await?;
        // Scripts and tests read where it listens.
        println!("listening on {}", server.address);
        stop_asked().await?;
        tracing::info!("stopping");
        server.stop().await
    })
}

async fn stop_asked() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("listen for signals")?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted.context("listen for signals"),
    }
}

fn verify(config: &Config) -> anyhow::Result<ExitCode> {
    let dir = &config.store.data_dir;
    anyhow::ensure!(dir.join("journal").is_dir(), "no cache lies in {}", dir.display());
    let store = blob_store::Store::open(config.store.to_store(config.server.memory_max)).context("open the store")?;
    let report = store.verify().context("verify")?;
    let stored = store.stats();
    store.close().context("close the store")?;
    println!(
        "blobs {}, bytes {}, on disk {}, damaged {}, missing {}, leftover {}",
        report.blobs,
        report.bytes,
        stored.used,
        report.damaged.len(),
        report.missing.len(),
        report.leftover.len()
    );
    Ok(if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}
