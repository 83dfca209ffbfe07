//! The command line.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use rand::TryRngCore as _;

use crate::config::Config;
use crate::control::Control;
use crate::insight::Insight;
use crate::worker;

const EXAMPLES: &str = "\
Examples:
  ferrite-cache-proxy serve --listen 127.0.0.1:6380 --server 127.0.0.1:6379
      One Redis behind the proxy, without a file.

  ferrite-cache-proxy serve --config proxy.toml
      Pools as the file has them; it is read again when it changes and on SIGHUP.

  ferrite-cache-proxy serve --config proxy.toml --check-config
      Tells every fault of a configuration and starts nothing. Exit code 1 if there is one.

  ferrite-cache-proxy convert nutcracker.yml > proxy.toml
      Takes over the pools of twemproxy.

docs/cache-proxy.md tells more. Exit codes: 0 done, 1 no, 2 error.";

/// Redis and memcached behind one fast proxy.
#[derive(Debug, Parser)]
#[command(name = "ferrite-cache-proxy", version, after_help = EXAMPLES, arg_required_else_help = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy.
    Serve(ServeArgs),
    /// Print the configuration that serves like a twemproxy with this one.
    Convert {
        /// The file of twemproxy, nutcracker.yml as a rule.
        file: PathBuf,
    },
    /// Read a password from standard input and print what `password` in the configuration wants.
    HashPassword,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listen", "server"])]
    config: Option<PathBuf>,
    /// Address for clients of the one pool, where there is no file.
    #[arg(long, value_name = "IP:PORT", requires = "server")]
    listen: Option<String>,
    /// A Redis server of the one pool, HOST:PORT[:WEIGHT]; may be given several times.
    #[arg(long, value_name = "SERVER", requires = "listen")]
    server: Vec<String>,
    /// Tell every fault of the configuration and start nothing.
    #[arg(long)]
    check_config: bool,
    /// Print the configuration with all its defaults and start nothing.
    #[arg(long)]
    print_config: bool,
}

impl ServeArgs {
    fn config(&self) -> Result<Config, String> {
        if let Some(path) = &self.config {
            return Config::load(path);
        }
        let mut config = Config::default();
        if let Some(listen) = &self.listen {
            config.pools.push(crate::config::PoolConfig {
                name: "main".into(),
                listen: listen.clone(),
                servers: self.server.clone(),
                ..Default::default()
            });
        }
        Ok(config)
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
            eprintln!("ferrite-cache-proxy: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => start(args),
        Command::Convert { file } => {
            let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
            let converted = crate::convert::convert(&text).map_err(anyhow::Error::msg)?;
            print(&converted)
        }
        Command::HashPassword => hash_password(),
    }
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

fn hash_password() -> anyhow::Result<ExitCode> {
    let mut password = String::new();
    std::io::stdin()
        .take(4096)
        .read_to_string(&mut password)
        .context("read the password")?;
    let password = password.trim_end_matches(['\r', '\n']);
    anyhow::ensure!(!password.is_empty(), "wanted a password on standard input");
    let mut salt = [0u8; 16];
    rand::rngs::OsRng.try_fill_bytes(&mut salt).context("draw a salt")?;
    let salt: String = salt.iter().map(|byte| format!("{byte:02x}")).collect();
    print(&format!("{}\n", crate::users::Secret::new(password.as_bytes(), &salt)))
}

fn start(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let config = args.config();
    if args.check_config {
        return Ok(check(config));
    }
    let config = config.map_err(anyhow::Error::msg)?;
    if args.print_config {
        return print(&config.to_toml());
    }
    let faults = config.validate();
    anyhow::ensure!(faults.is_empty(), "{}", faults.join("\n"));
    base::log::init(&config.log.level, config.log.format).map_err(anyhow::Error::msg)?;
    base::thread::abort_on_panic();
    raise_files();
    serve(config, args.config.clone())?;
    Ok(ExitCode::SUCCESS)
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

/// Connections are files; the usual soft limit of 1024 is for other programs.
fn raise_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "raise the limit of open files");
    }
}

/// Runs the control plane on this thread and an event loop on each of the others, until asked to stop.
fn serve(config: Config, path: Option<PathBuf>) -> anyhow::Result<()> {
    let threads = match config.server.threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads => threads,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the control plane")?;
    let insight = Arc::new(Insight::default());
    let workers = runtime.block_on(async {
        let control = Control::start(config, path, Arc::clone(&insight))?;
        let (started, listening) = std::sync::mpsc::sync_channel(threads); // a word of each
        let workers: Vec<_> = (0..threads)
            .map(|number| {
                let (plans, insight, started) = (control.plans(), Arc::clone(&insight), started.clone());
                base::thread::spawn(&format!("proxy-{number}"), move || worker::run(plans, insight, started))
            })
            .collect();
        for _ in &workers {
            listening.recv().context("a thread ended before it listened")?;
        }
        // Scripts and tests read where it listens.
        for (name, addr) in control.listeners() {
            println!("pool {name} listening on {addr}");
        }
        Arc::clone(&control).run().await?;
        println!("ready");
        stop_asked().await?;
        tracing::info!("stopping");
        anyhow::Ok(workers)
    })?;
    // With the control plane the plans end; that is how threads learn of it.
    drop(runtime);
    for worker in workers {
        let _ended = worker.join();
    }
    Ok(())
}

async fn stop_asked() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("listen for signals")?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted.context("listen for signals"),
    }
}
