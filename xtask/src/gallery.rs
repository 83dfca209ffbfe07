//! `gallery`: results that a person can look at.

use anyhow::{Result, bail};

use crate::stage::Report;
use crate::workspace;

/// Write pages with results to look at.
///
///   cargo xtask gallery thumbnails   source, result, time and size of every operation, side by side
///
/// The page is target/gallery/index.html, or index.html in the folder of --out.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Of what.
    of: String,
    /// Folder to write to.
    #[arg(long)]
    out: Option<std::path::PathBuf>,
}

pub fn run(args: &Args) -> Result<bool> {
    if args.of != "thumbnails" {
        bail!("no gallery of {:?}: wanted thumbnails", args.of);
    }
    let out = args.out.clone().unwrap_or_else(|| workspace::target().join("gallery"));
    let mut command = workspace::cargo(&[
        "run",
        "--quiet",
        "--locked",
        "--package",
        "ferrite-thumbnails",
        "--example",
        "gallery",
        "--",
    ]);
    command.arg(out);
    let mut report = Report::new("gallery");
    report.command("gallery", &mut command);
    Ok(report.finish())
}
