//! `ferrite ctl`: administration and data access from the command line, over the public wire.

use std::process::ExitCode;

/// Look into a running cluster, read and write data.
#[derive(Debug, clap::Args)]
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
    /// Print JSON, one object a line.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub enum Command {}

/// Runs one command: data to standard output, talk to standard error. The exit code tells 0 done, 1 no; an error becomes 2.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {}
}
