//! `bindings`: the clients of all languages, built and taken through one suite.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::stage::{self, Outcome, Report};
use crate::system;
use crate::workspace::{self, Profile};

/// Build the clients of all languages and run the conformance suite in each.
///
///   cargo xtask bindings test                  all languages, against a cluster of real processes
///   cargo xtask bindings test --language cpp   one of them, beside Rust
///   cargo xtask bindings build                 only build: everything lies in target/bindings
///
/// The cases are in tests/conformance; the table that is printed has a row for each and a column
/// for each language. Exit code 1 if it is not all green, 2 if the machine lacks something, which
/// is named.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Build them.
    Build {
        /// Only these languages.
        #[arg(long = "language")]
        languages: Vec<Language>,
    },
    /// Build them and run the suite.
    Test {
        /// Only these languages, beside Rust.
        #[arg(long = "language")]
        languages: Vec<Language>,
        /// Only cases whose name holds this.
        #[arg(long)]
        case: Option<String>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Language {
    Cpp,
}

const ALL: [Language; 1] = [Language::Cpp];

impl Language {
    fn name(self) -> &'static str {
        match self {
            Language::Cpp => "cpp",
        }
    }

    /// Programs that must be there, with what brings them.
    fn needs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Language::Cpp => &[("g++", "g++ of version 11 or later (apt-get install g++)")],
        }
    }
}

pub fn run(args: &Args) -> Result<bool> {
    let (languages, case) = match &args.verb {
        Verb::Build { languages } => (languages, None),
        Verb::Test { languages, case } => (languages, Some(case)),
    };
    let languages = if languages.is_empty() { &ALL[..] } else { languages };
    require(languages)?;
    let mut report = Report::new("bindings");
    report.stage("build", || {
        build(languages)?;
        Ok(Outcome::Passed)
    });
    if let Some(case) = case
        && !report.has_failed()
    {
        report.stage("conformance", || conformance(languages, case.as_deref()));
    }
    Ok(report.finish())
}

/// Names everything that is missing at once.
fn require(languages: &[Language]) -> Result<()> {
    system::ensure()?;
    let needs = languages
        .iter()
        .flat_map(|language| language.needs().iter().map(move |need| (language, need)));
    let missing: Vec<String> = needs
        .filter(|(_, (program, _))| !system::has(program))
        .map(|(language, (program, what))| format!("{} needs `{program}`: {what}", language.name()))
        .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => bail!("{}", missing.join("\n")),
    }
}

/// Where all that is built lies.
fn out() -> PathBuf {
    workspace::target().join("bindings")
}

fn build(languages: &[Language]) -> Result<()> {
    let packages = ["ferrite-server", "ferrite-client-c", "ferrite-conformance"];
    stage::must(&mut workspace::build(Profile::Dev, &packages))?;
    for language in languages {
        let built = match language {
            Language::Cpp => cpp(),
        };
        built.with_context(|| format!("build the client of {}", language.name()))?;
    }
    Ok(())
}

/// Compiles the runner against the C library.
fn cpp() -> Result<()> {
    let (bindings, to) = (workspace::root().join("bindings"), fresh("cpp")?);
    let mut command = Command::new("g++");
    command
        .args(["-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(bindings.join("cpp/include"));
    command
        .arg("-I")
        .arg(bindings.join("c/include"))
        .arg(bindings.join("cpp/tests/conformance.cpp"));
    command
        .arg("-o")
        .arg(to.join("conformance"))
        .arg(library("ferrite_client"))
        .arg("-pthread");
    let libraries = library("ferrite_client")
        .parent()
        .map(|dir| dir.display().to_string())
        .unwrap_or_default();
    command.arg(format!("-Wl,-rpath,{libraries}"));
    stage::must(&mut command)
}

fn conformance(languages: &[Language], case: Option<&str>) -> Result<Outcome> {
    let mut command = Command::new(workspace::binary(Profile::Dev, "ferrite-conformance"));
    command.current_dir(workspace::root()).arg("run");
    command.arg("--ferrite").arg(workspace::binary(Profile::Dev, "ferrite"));
    for language in languages {
        let out = out().join(language.name()).display().to_string();
        let runner = match language {
            Language::Cpp => format!("{out}/conformance"),
        };
        command.arg("--runner").arg(format!("{}={runner}", language.name()));
    }
    if let Some(case) = case {
        command.args(["--only", case]);
    }
    stage::run(&mut command)
}

/// An empty folder for what is built.
fn fresh(name: &str) -> Result<PathBuf> {
    let folder = out().join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("empty {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(folder)
}

/// A library that cargo built.
fn library(name: &str) -> PathBuf {
    workspace::binary(Profile::Dev, &format!("lib{name}.so"))
}
