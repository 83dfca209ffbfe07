//! `ferrite ctl`: data access and a look into a running cluster from the command line, over the public wire.
//!
//! Data goes to standard output, a line each, for people or (`--json`) for programs; talk goes to standard error.

mod data;
mod inspect;
mod locks;
mod member;
mod offline;
mod output;
mod rescue;
mod rule;
mod schedule;
mod text;
mod txn;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use base::Span;
use client::{Api, ClientOptions, Hint, Identity, Keyspace, RawClient, TlsOptions, TxnClient};

use output::Output;
use text::Form;

const EXAMPLES: &str = r#"Examples:
  ferrite ctl put greeting 'hello\nworld'    escapes \n \r \t \\ \xNN stand for bytes, in and out
  ferrite ctl get greeting                   exit code 1 if it is not there
  ferrite ctl scan --prefix user: --limit 10 --json
  ferrite ctl store                          all stores; one by its id: ferrite ctl store 1
  ferrite ctl region --key greeting          which region holds a key
  ferrite ctl region --split-at m            let a region begin at a key
  ferrite ctl rule set app/copies --count 5  five copies of every region; list, check and remove tell and undo
  ferrite ctl member                         members of the placement driver; remove and transfer-leader change them
  ferrite ctl mvcc greeting                  every version and lock of a key
  ferrite ctl offline check DATA_DIR         the data of a store that does not run; unsafe-recover and others repair
  ferrite ctl locks                          locks of transactions, and who waits for them
  ferrite ctl txn                            transactions, command by command; or from a script: ferrite ctl txn < script

Exit codes: 0 done, 1 no (not found), 2 error."#;

/// For stores that are asked past the client.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Look into a running cluster, read and write data.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Address of a placement driver, `host:port`; several parted by commas.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:2379",
        env = "FERRITE_PD_ADDR",
        global = true
    )]
    pub pd_addr: String,
    /// Keys belong to this keyspace of API V2: a name, or an id as a number. Without it keys are those of API V1.
    #[arg(long, value_name = "NAME|ID", global = true)]
    pub keyspace: Option<String>,
    /// Time for one request, retries included.
    #[arg(long, value_name = "SPAN", default_value = "5s", value_parser = str::parse::<Span>, global = true)]
    pub timeout: Span,
    /// Keys and values are hexadecimal, in and out.
    #[arg(long, global = true)]
    pub hex: bool,
    /// Print JSON, one object a line.
    #[arg(long, global = true)]
    pub json: bool,
    /// File with the authority of the cluster's certificates (PEM). The cluster speaks TLS.
    #[arg(long, value_name = "FILE", env = "FERRITE_CA_PATH", global = true, help_heading = "TLS")]
    pub ca_path: Option<PathBuf>,
    /// File with a certificate to show to the cluster (PEM).
    #[arg(long, value_name = "FILE", env = "FERRITE_CERT_PATH", global = true, requires_all = ["ca_path", "key_path"], help_heading = "TLS")]
    pub cert_path: Option<PathBuf>,
    /// File with the key of the certificate (PEM).
    #[arg(long, value_name = "FILE", env = "FERRITE_KEY_PATH", global = true, requires_all = ["ca_path", "cert_path"], help_heading = "TLS")]
    pub key_path: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print the value of a key; exit code 1 if there is none.
    Get {
        key: String,
    },
    /// Write a key.
    Put {
        key: String,
        value: String,
        /// Let it live so long, in whole seconds, such as 90s or 1h. The store must keep TTLs.
        #[arg(long, value_name = "SPAN", value_parser = str::parse::<Span>)]
        ttl: Option<Span>,
    },
    /// Remove a key, if it is there.
    Del {
        key: String,
    },
    Scan(data::ScanArgs),
    Store(schedule::StoreArgs),
    #[command(subcommand)]
    Scheduler(schedule::SchedulerAct),
    Operator(schedule::OperatorArgs),
    #[command(subcommand)]
    Rule(rule::RuleAct),
    Hot(schedule::HotArgs),
    Region(inspect::RegionArgs),
    Member(member::MemberArgs),
    UnsafeRecover(rescue::RescueArgs),
    Offline(offline::OfflineArgs),
    /// Print a fresh timestamp.
    Tso,
    Txn(txn::TxnArgs),
    /// Show every version and lock of a transaction's key; exit code 1 if there is none.
    Mvcc {
        key: String,
    },
    Locks(locks::LocksArgs),
}

/// Runs one command: data to standard output, talk to standard error. The exit code tells 0 done, 1 no; an error becomes 2.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut out = Output::new(io::BufWriter::new(io::stdout()), args.json, Form::new(args.hex));
    if let Command::Offline(offline) = &args.command {
        return finish(offline::run(&mut out, offline), out);
    }
    if let Command::Txn(_) | Command::Mvcc { .. } | Command::Locks(_) = args.command {
        let client = TxnClient::connect(&endpoints(&args), options(&args)).await;
        let client = client.map_err(|error| advise(error.into()))?;
        let done = match &args.command {
            Command::Mvcc { key } => locks::mvcc(&client, &mut out, key).await,
            Command::Locks(locks) => locks::locks(&client, &mut out, locks).await,
            _ => txn::run(&client, &mut out).await,
        };
        return finish(done, out);
    }
    let (client, time) = (connect(&args).await?, args.timeout.0);
    let done = match args.command {
        Command::Get { key } => data::get(&client, &mut out, &key).await,
        Command::Put { key, value, ttl } => data::put(&client, &out, &key, &value, ttl).await,
        Command::Del { key } => data::del(&client, &out, &key).await,
        Command::Scan(scan) => data::scan(&client, &mut out, &scan).await,
        Command::Store(schedule::StoreArgs { act: Some(act), .. }) => schedule::change(&client, act.change()?, time).await,
        Command::Store(schedule::StoreArgs { id: None, .. }) => inspect::stores(&client, &mut out).await,
        Command::Store(schedule::StoreArgs { id: Some(id), .. }) => inspect::store(&client, &mut out, id).await,
        Command::Scheduler(act) => schedule::scheduler(&client, &mut out, &act, time).await,
        Command::Operator(operator) => schedule::operator(&client, &mut out, &operator).await,
        Command::Rule(act) => rule::run(&client, &mut out, &act, time).await,
        Command::Hot(hot) => schedule::hot(&client, &mut out, &hot).await,
        Command::Region(region) => inspect::regions(&client, &mut out, &region).await,
        Command::Member(member) => member::run(&client, &mut out, &member, time).await,
        Command::UnsafeRecover(rescue) => rescue::run(&client, &mut out, &rescue, time).await,
        Command::Tso => inspect::tso(&client, &mut out).await,
        Command::Txn(_) | Command::Mvcc { .. } | Command::Locks(_) | Command::Offline(_) => {
            unreachable!("served above, by a client of its own or by none")
        }
    };
    finish(done, out)
}

/// A reader that went away (`| head`) wants no more, which is no error.
fn finish(done: anyhow::Result<bool>, mut out: Output<impl Write>) -> anyhow::Result<ExitCode> {
    let done = done.and_then(|yes| Ok(out.flush().map(|()| yes)?));
    match done {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::from(1)),
        Err(error) => match error.downcast_ref::<io::Error>() {
            Some(broken) if broken.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
            Some(_) => Err(error).context("write to standard output"),
            None => Err(advise(error)),
        },
    }
}

fn endpoints(args: &Args) -> Vec<&str> {
    args.pd_addr.split(',').map(str::trim).collect()
}

fn options(args: &Args) -> ClientOptions {
    let keyspace = |text: &String| {
        text.parse()
            .map(Keyspace::Id)
            .unwrap_or_else(|_| Keyspace::Name(text.clone()))
    };
    let identity = args
        .cert_path
        .clone()
        .zip(args.key_path.clone())
        .map(|(certificate, key)| Identity {
            certificate: certificate.into(),
            key: key.into(),
        });
    let tls = args.ca_path.clone().map(|ca| TlsOptions {
        authority: ca.into(),
        identity,
    });
    // One request at a time gains nothing from a shared stream.
    ClientOptions {
        api: args.keyspace.as_ref().map_or(Api::V1, |text| Api::V2(keyspace(text))),
        deadline: args.timeout.0,
        tls,
        batch_commands: false,
        ..Default::default()
    }
}

async fn connect(args: &Args) -> anyhow::Result<RawClient> {
    RawClient::connect(&endpoints(args), options(args))
        .await
        .map_err(|error| advise(error.into()))
}

/// Puts what to do before an error that does not say so itself.
fn advise(error: anyhow::Error) -> anyhow::Error {
    let Some(failed) = error.downcast_ref::<client::Error>() else {
        return error;
    };
    match (failed, failed.hint()) {
        (client::Error::PdUnreachable { .. } | client::Error::BadAddress { .. }, _) => error,
        (client::Error::Tls { .. } | client::Error::Certificates(_), _) => {
            error.context("check --ca-path, --cert-path and --key-path")
        }
        (_, Hint::Retry) => {
            error.context("the cluster did not serve this in time; see `ferrite ctl store`, or give it longer with --timeout")
        }
        (_, Hint::Configuration) => error.context("check --pd-addr and --keyspace"),
        (_, Hint::RetryTransaction) => error.context("nothing was committed; begin again"),
        (_, Hint::Undetermined | Hint::Refused) => error,
    }
}

#[cfg(test)]
mod tests;
