//! What the machine must have besides Rust: a C compiler with its headers and make (jemalloc, lz4 and ring are built from C); for the
//! thumbnail service CMake and an assembler (its codecs); for the tests of the cache proxy the servers that it stands before.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{stage, workspace};

/// How each family of systems installs packages: program that tells the family, command line, what brings a C compiler and make.
const INSTALLERS: &[(&str, &str, &str)] = &[
    ("apt-get", "apt-get install -y", "build-essential"),
    ("dnf", "dnf install -y", "gcc gcc-c++ make"),
    ("yum", "yum install -y", "gcc gcc-c++ make"),
    ("apk", "apk add", "build-base"),
    ("pacman", "pacman -S --noconfirm", "base-devel"),
    ("zypper", "zypper install -y", "gcc gcc-c++ make"),
];
/// Programs that building everything wants, with the packages that bring them.
const BUILD: &[Need] = &[("cmake", "cmake"), ("nasm", "nasm"), ("perl", "perl")];
/// And that testing everything wants, with Debian's names.
const TEST: &[Need] = &[
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("memcached", "memcached"),
    ("memccapable", "libmemcached-tools"),
    ("nutcracker", "nutcracker"),
    // Not a program, but it is found by its place alike.
    ("/usr/lib/redis/modules/redisearch.so", "redis-redisearch"),
    ("python3", "python3"),
    ("pip3", "python3-pip"),
    ("ccache", "ccache"),
    ("curl", "curl"),
];
/// Build tools that are tried with the build cache, and what brings the others (`services/build-cache/tests/clients-install.sh`).
const CLIENTS: &[Need] = &[
    ("ccache", "ccache"),
    ("gradle", "gradle"),
    ("bazel", "bazel-bootstrap"),
    ("mvn", "maven"),
    ("npm", "npm"),
    ("curl", "curl"),
    ("git", "git"),
    ("python3", "python3"),
];
/// And that the bench of the build cache wants.
const BENCH_BUILD_CACHE: &[Need] = &[
    ("nginx", "libnginx-mod-http-dav-ext"),
    ("wrk", "wrk"),
    ("zstd", "zstd"),
    ("ip", "iproute2"),
    ("curl", "curl"),
    ("python3", "python3"),
];
/// And that the bench of the cache proxy wants.
const BENCH_CACHE_PROXY: &[Need] = &[
    ("redis-server", "redis-server"),
    ("redis-benchmark", "redis-tools"),
    ("memcached", "memcached"),
    ("nutcracker", "nutcracker"),
    ("python3", "python3"),
    ("strace", "strace"),
];

/// And that the bench of thumbnails wants; the others are brought by `services/thumbnails/bench-install.sh`.
const BENCH_THUMBNAILS: &[Need] = &[
    ("vipsthumbnail", "libvips-tools"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("python3", "python3"),
    ("pip3", "python3-pip"),
];

pub type Need = (&'static str, &'static str);

/// Makes sure the machine can build the store: installs what is lacking where that needs nobody's leave (apt, as root), else
/// fails with the exact line to type.
pub fn ensure() -> Result<()> {
    ensure_with(&[])
}

/// The same for the whole workspace.
pub fn ensure_build() -> Result<()> {
    ensure_with(BUILD)
}

/// The same for all tests but those of the clients' languages.
pub fn ensure_test() -> Result<()> {
    ensure_with(&[BUILD, TEST].concat())
}

/// The same for real build tools before the build cache.
pub fn ensure_clients() -> Result<()> {
    ensure_with(CLIENTS)
}

/// The same for the bench of a service.
pub fn ensure_bench(service: &str) -> Result<()> {
    match service {
        "build-cache" => ensure_with(BENCH_BUILD_CACHE),
        "cache-proxy" => ensure_with(&[BUILD, BENCH_CACHE_PROXY].concat()),
        "thumbnails" => ensure_with(&[BUILD, BENCH_THUMBNAILS].concat()),
        _ => ensure_build(),
    }
}

pub fn ensure_with(needs: &[Need]) -> Result<()> {
    let lacks_compiler = || !compiles() || !has("make");
    let lacking: Vec<Need> = needs.iter().copied().filter(|(program, _)| !has(program)).collect();
    let compiler = lacks_compiler();
    if !compiler && lacking.is_empty() {
        return Ok(());
    }
    let what = compiler.then_some("a C compiler or make");
    let what = what
        .into_iter()
        .chain(lacking.iter().map(|need| need.0))
        .collect::<Vec<_>>()
        .join(", ");
    let Some((program, line, base)) = INSTALLERS.iter().find(|(program, ..)| has(program)) else {
        bail!("missing here: {what}; install that (of C: gcc or clang, with the C library's headers) and run this again");
    };
    let packages: Vec<&str> = compiler
        .then_some(*base)
        .into_iter()
        .chain(lacking.iter().map(|need| need.1))
        .collect();
    if *program == "apt-get" && is_root() {
        eprintln!("missing here: {what}; installing {}", packages.join(" "));
        stage::must(&mut apt(&["update"]))?;
        stage::must(apt(&["install", "-y", "--no-install-recommends"]).args(&packages))?;
        match needs.iter().find(|(program, _)| !has(program)) {
            Some((program, _)) => bail!("{program} is not on the path, although it was just installed"),
            None if lacks_compiler() => bail!("build-essential is installed, but `cc` still cannot build a program"),
            None => return Ok(()),
        }
    }
    bail!(
        "missing here: {what}; run this, then this command again:\n\n    sudo {line} {}\n",
        packages.join(" ")
    );
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
