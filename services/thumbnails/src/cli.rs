//! The command line.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use crate::config::Config;
use crate::serve::Server;

const EXAMPLES: &str = "\
Examples:
  ferrite-thumbnails serve --local-root ./photos --allow-unsigned
      Then http://127.0.0.1:8985/_/rs:fill:300:200/plain/local:///cat.jpg@webp

  ferrite-thumbnails serve --config thumbnails.toml --check-config
      Tells every fault of a configuration and starts nothing. Exit code 1 if there is one.

  ferrite-thumbnails sign --config thumbnails.toml /rs:fit:300/plain/https://example.com/cat.jpg
      The same path with its signature.

docs/thumbnails.md has the table of options. Exit codes: 0 done, 1 no, 2 error.";

/// Thumbnails over HTTP, in imgproxy's URLs.
#[derive(Debug, Parser)]
#[command(name = "ferrite-thumbnails", version, after_help = EXAMPLES, arg_required_else_help = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    Serve(Box<ServeArgs>),
    /// Sign the path of a URL by the first key of the configuration.
    Sign {
        /// Configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// What comes behind the signature, from its slash on.
        path: String,
    },
}

/// Flags win over the file of --config, which wins over the defaults.
#[derive(Debug, Default, Args)]
struct ServeArgs {
    /// Address for pictures [default: 127.0.0.1:8985].
    #[arg(long, value_name = "IP:PORT")]
    addr: Option<String>,
    /// Address for health and metrics [default: 127.0.0.1:8986].
    #[arg(long, value_name = "IP:PORT")]
    status_addr: Option<String>,
    /// Folder of local sources [default: none].
    #[arg(long, value_name = "DIR")]
    local_root: Option<PathBuf>,
    /// Serve URLs without a signature.
    #[arg(long)]
    allow_unsigned: bool,
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
        set(&mut config.server.status_addr, &self.status_addr);
        set(&mut config.local.root, &self.local_root);
        config.url.allow_unsigned |= self.allow_unsigned;
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
    let done = match &cli.command {
        Command::Serve(args) => run(args),
        Command::Sign { config, path } => sign(config, path),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ferrite-thumbnails: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let config = args.config();
    if args.check_config {
        return Ok(check(config));
    }
    let config = config.map_err(anyhow::Error::msg)?;
    if args.print_config {
        print(&config.to_toml())?;
        return Ok(ExitCode::SUCCESS);
    }
    let faults = config.validate();
    anyhow::ensure!(faults.is_empty(), "{}", faults.join("\n"));
    base::log::init(&config.log.level, config.log.format).map_err(anyhow::Error::msg)?;
    serve(&config).map(|()| ExitCode::SUCCESS)
}

fn sign(path: &std::path::Path, url: &str) -> anyhow::Result<ExitCode> {
    let config = Config::load(path).map_err(anyhow::Error::msg)?;
    let signer = config.url.grammar().map_err(anyhow::Error::msg)?.signer;
    anyhow::ensure!(url.starts_with('/'), "{url:?}: wanted a path from its slash on");
    let signature = signer.sign(url);
    anyhow::ensure!(!signature.is_empty(), "url.keys is empty: there is nothing to sign with");
    print(&format!("/{signature}{url}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("write to standard output")
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

fn serve(config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("thumbnails")
        .max_blocking_threads(32)
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let server = Server::start(config).await?;
        // Scripts and tests read where it listens.
        print(&format!("listening on {}\n", server.address))?;
        if let Some(address) = server.status_address {
            print(&format!("status on {address}\n"))?;
        }
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
