//! `fuzz`: runs the targets of `fuzz/` guided by coverage, with the compiler that everything else is built with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::stage::{self, Outcome, Report};
use crate::workspace;

/// Fuzz parsers, guided by what code an input reaches. Needs a C++ compiler (for libFuzzer) and no nightly Rust.
///
///   cargo xtask fuzz                                    names the targets
///   cargo xtask fuzz cache_proxy_resp_reply             one target, for a minute
///   cargo xtask fuzz cache_proxy build_cache --seconds 300    every target whose name or service begins so
///
/// Inputs that reach something new are kept in `fuzz/corpus/TARGET`, beside the seeds in
/// `fuzz/seeds/TARGET`; one that shows a fault is kept in `fuzz/artifacts/TARGET` and fails the
/// verb. `cargo fuzz` with a nightly compiler runs the same targets, with address sanitizer.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Targets, services, or beginnings of either; none lists them.
    targets: Vec<String>,
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Longest input.
    #[arg(long, default_value_t = 4096)]
    bytes: u32,
    /// Runs this input once in place of fuzzing, to see what it does.
    #[arg(long)]
    input: Option<PathBuf>,
}

/// What makes the compiler count the edges that an input takes, in places that libFuzzer finds; the comparisons it makes are told too.
/// Assertions and checks of overflow stay on: they are what finds faults.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cforce-frame-pointers=yes",
    "-Ccodegen-units=1",
    "-Cdebug-assertions=on",
    "-Coverflow-checks=on",
    "--cfg=fuzzing",
];

/// A target with the feature that builds it.
struct Target {
    name: String,
    feature: String,
}

pub fn run(args: &Args) -> Result<bool> {
    let all = targets(&fs::read_to_string(workspace::root().join("fuzz/Cargo.toml"))?);
    if args.targets.is_empty() {
        all.iter()
            .for_each(|target| println!("{:28} {}", target.name, target.feature));
        return Ok(true);
    }
    let is_wanted = |target: &&Target| {
        let feature = target.feature.replace('-', "_");
        args.targets
            .iter()
            .any(|word| target.name.starts_with(word) || feature.starts_with(word))
    };
    let wanted: Vec<&Target> = all.iter().filter(is_wanted).collect();
    if wanted.is_empty() {
        bail!(
            "no target begins with {}: `cargo xtask fuzz` names them",
            args.targets.join(" or ")
        );
    }
    let mut report = Report::new("fuzz");
    report.stage("build", || build(&wanted));
    if !report.has_failed() {
        for target in wanted {
            report.stage(&target.name, || fuzz(args, target));
        }
    }
    Ok(report.finish())
}

/// Reads names and features of targets from their manifest.
fn targets(manifest: &str) -> Vec<Target> {
    let value = |part: &str, name: &str| {
        let line = part
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix('='))?;
        Some(line.trim().trim_matches(['[', ']', '"']).to_owned())
    };
    let parts = manifest.split("[[bin]]").skip(1);
    parts
        .filter_map(|part| {
            Some(Target {
                name: value(part, "name")?,
                feature: value(part, "required-features")?,
            })
        })
        .collect()
}

/// The triple of this machine. Named, so that build scripts and macros are built apart, without the flags.
fn host() -> Result<String> {
    let told = Command::new("rustc").arg("-vV").output().context("start rustc")?;
    let text = String::from_utf8(told.stdout).context("read what rustc says")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not tell its host")?.to_owned())
}

fn build(wanted: &[&Target]) -> Result<Outcome> {
    let folder = workspace::root().join("fuzz");
    // The versions that everything else is built with, so far as they are the same crates.
    if !folder.join("Cargo.lock").exists() {
        fs::copy(workspace::root().join("Cargo.lock"), folder.join("Cargo.lock"))?;
    }
    let mut features: Vec<&str> = wanted.iter().map(|target| target.feature.as_str()).collect();
    features.dedup();
    let mut command = workspace::cargo(&[
        "build",
        "--release",
        "--no-default-features",
        "--features",
        &features.join(","),
    ]);
    command.current_dir(&folder).env("RUSTFLAGS", FLAGS.join(" "));
    command.args(["--target", &host()?]).env("CARGO_TARGET_DIR", target_dir());
    for target in wanted {
        command.args(["--bin", &target.name]);
    }
    stage::run(&mut command)
}

fn target_dir() -> PathBuf {
    workspace::target().join("fuzz")
}

fn fuzz(args: &Args, target: &Target) -> Result<Outcome> {
    let folder = workspace::root().join("fuzz");
    let [corpus, artifacts] = ["corpus", "artifacts"].map(|part| folder.join(part).join(&target.name));
    for made in [&corpus, &artifacts] {
        fs::create_dir_all(made).with_context(|| format!("make {}", made.display()))?;
    }
    let mut command = Command::new(target_dir().join(host()?).join("release").join(&target.name));
    command.current_dir(&folder);
    if let Some(input) = &args.input {
        command.arg(fs::canonicalize(input).with_context(|| format!("find {}", input.display()))?);
        return stage::run(&mut command);
    }
    command.arg(&corpus);
    let seeds = folder.join("seeds").join(&target.name);
    if seeds.is_dir() {
        command.arg(&seeds);
    }
    let slash = |path: &Path| format!("-artifact_prefix={}/", path.display());
    command.args([
        format!("-max_total_time={}", args.seconds),
        format!("-max_len={}", args.bytes),
        slash(&artifacts),
        // An input that hangs or takes much memory is a fault as well.
        "-timeout=10".into(),
        "-rss_limit_mb=2048".into(),
        "-print_final_stats=1".into(),
        "-use_value_profile=1".into(),
    ]);
    stage::run(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_file_and_a_feature() {
        let manifest = fs::read_to_string(workspace::root().join("fuzz/Cargo.toml")).expect("reads");
        let mut found: Vec<String> = targets(&manifest).into_iter().map(|target| target.name).collect();
        let files = fs::read_dir(workspace::root().join("fuzz/fuzz_targets")).expect("is there");
        let mut wanted: Vec<String> = files
            .map(|file| {
                file.expect("a file")
                    .path()
                    .file_stem()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted);
    }
}
