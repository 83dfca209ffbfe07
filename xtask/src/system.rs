//! What the machine must have besides Rust: a C compiler with its headers, and make (jemalloc, lz4 and ring are built from C).

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{stage, workspace};

/// How each family of systems installs a C compiler and make: program that tells the family, command line.
const INSTALLERS: &[(&str, &str)] = &[
    ("apt-get", "apt-get install -y build-essential"),
    ("dnf", "dnf install -y gcc make"),
    ("yum", "yum install -y gcc make"),
    ("apk", "apk add build-base"),
    ("pacman", "pacman -S --noconfirm base-devel"),
    ("zypper", "zypper install -y gcc make"),
];

/// Makes sure the machine can build Ferrite: installs what is lacking where that needs nobody's leave (apt, as root), else
/// fails with the exact line to type.
pub fn ensure() -> Result<()> {
    if compiles() && has("make") {
        return Ok(());
    }
    let found = INSTALLERS.iter().find(|(program, _)| has(program));
    let Some((program, line)) = found else {
        bail!("a C compiler or make is missing; install both (gcc or clang, with the C library's headers) and run this again");
    };
    if *program == "apt-get" && is_root() {
        eprintln!("a C compiler or make is missing; installing build-essential");
        stage::must(&mut apt(&["update"]))?;
        stage::must(&mut apt(&["install", "-y", "build-essential"]))?;
        if compiles() && has("make") {
            return Ok(());
        }
        bail!("build-essential is installed, but `cc` still cannot build a program");
    }
    bail!("a C compiler or make is missing; run this, then the demo again:\n\n    sudo {line}\n");
}

/// Whether the process may install packages and mount file systems.
pub fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Whether `program` is on the path.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// A compiler without headers or linker is a common half-installation, so a program is really built.
fn compiles() -> bool {
    let dir = workspace::target().join("xtask-probe");
    let probe = || -> Result<bool> {
        std::fs::create_dir_all(&dir)?;
        let source = dir.join("probe.c");
        std::fs::write(&source, "#include <stdio.h>\nint main(void) { return puts(\"ok\") < 0; }\n")?;
        cc(&source, &dir.join("probe"))
    };
    probe().unwrap_or(false)
}

fn cc(source: &Path, program: &Path) -> Result<bool> {
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let status = Command::new(compiler)
        .arg(source)
        .arg("-o")
        .arg(program)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    Ok(status.context("start cc")?.success())
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_on_the_path_alone() {
        assert!(has("cargo"));
        assert!(!has("no-such-program-anywhere"));
    }

    #[test]
    fn the_machine_that_runs_the_tests_can_build() {
        ensure().expect("tests were built here, so cc and make are here");
    }
}
