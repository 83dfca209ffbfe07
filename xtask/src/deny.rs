//! cargo-deny: which dependencies we may have. The policy with its reasons is `deny.toml`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::stage::{self, Outcome};
use crate::workspace;

/// Pinned, so that a new release of the tool cannot turn an old commit red.
const VERSION: &str = "0.20.2";

/// Licenses, bans and sources. Needs no network beyond the crates themselves.
pub fn policies() -> Result<Outcome> {
    let Some(tool) = tool()? else {
        return Ok(Outcome::Skipped(format!("cargo-deny {VERSION} could not be installed")));
    };
    // Fetched ahead, because `--offline` below keeps cargo-deny from the network and it reads every crate's license file.
    stage::must(&mut workspace::cargo(&["fetch", "--locked", "--quiet"]))?;
    stage::run(deny(&tool).args(["--offline", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]))
}

/// Known vulnerabilities. Their database is a git repository: without a network the stage says so and is skipped.
pub fn advisories() -> Result<Outcome> {
    let Some(tool) = tool()? else {
        return Ok(Outcome::Skipped(format!("cargo-deny {VERSION} could not be installed")));
    };
    let mut fetch = Command::new("timeout");
    fetch
        .args(["60", &tool.to_string_lossy(), "fetch", "db"])
        .current_dir(workspace::root());
    let fetched = fetch
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !fetched.is_ok_and(|status| status.success()) {
        return Ok(Outcome::Skipped("the advisory database cannot be fetched from here".into()));
    }
    stage::run(deny(&tool).args([
        "--offline",
        "check",
        "--hide-inclusion-graph",
        "--disable-fetch",
        "advisories",
    ]))
}

fn deny(tool: &PathBuf) -> Command {
    let mut command = Command::new(tool);
    command
        .current_dir(workspace::root())
        .env("CARGO_TARGET_DIR", workspace::target())
        .stdin(Stdio::null());
    command
}

/// cargo-deny of the pinned version: the one installed by the user, or ours in the cache, built on first use.
fn tool() -> Result<Option<PathBuf>> {
    let tools = workspace::cache().join("tools");
    let ours = tools.join("bin").join("cargo-deny");
    for candidate in [PathBuf::from("cargo-deny"), ours.clone()] {
        if is_pinned(&candidate) {
            return Ok(Some(candidate));
        }
    }
    eprintln!(
        "cargo-deny {VERSION} is not here; building it once into {} (a few minutes)",
        tools.display()
    );
    let mut install = workspace::cargo(&["install", "--locked", "--debug", "--force", "--version", VERSION, "--root"]);
    install
        .arg(&tools)
        .arg("cargo-deny")
        .env("CARGO_TARGET_DIR", tools.join("target"));
    let built = stage::run(&mut install)? == Outcome::Passed;
    let _ = std::fs::remove_dir_all(tools.join("target")); // only the binary is worth its room
    match built {
        true => Ok(Some(ours)),
        false if workspace::in_ci() => anyhow::bail!("cargo-deny {VERSION} could not be installed"),
        false => Ok(None),
    }
}

fn is_pinned(tool: &PathBuf) -> bool {
    let version = Command::new(tool).arg("--version").stderr(Stdio::null()).output();
    version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == format!("cargo-deny {VERSION}"))
}
