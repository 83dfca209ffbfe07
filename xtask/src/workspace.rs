//! Where things are: the checkout, the target directory, our cache, the binaries we build.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Root of the checkout. `xtask` is a member, so its manifest's parent is the root. Cargo tells at run time where that is: checkouts
/// may share a target directory, and then the binary was compiled in any of them.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        Path::new(&manifest).parent().expect("xtask lies in the workspace").to_owned()
    })
}

/// Whether this is an unattended run.
pub fn in_ci() -> bool {
    env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// What outlives a checkout: tools and, in continuous integration, the target directory.
pub fn cache() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let base = base.or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    base.unwrap_or_else(env::temp_dir).join("ferrite")
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None if in_ci() => cache().join("target"),
        None => root().join("target"),
    }
}

/// The cargo that runs us, in the checkout, with our target directory.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root()).env("CARGO_TARGET_DIR", target());
    // What cargo told xtask of itself is not for builds: ring's script looks at it, and all that stands on ring would be made anew each time
    // that somebody called cargo directly.
    for (name, _) in env::vars_os().filter(|(name, _)| is_of_package(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    if in_ci() {
        // Incremental state only pays in a checkout that lives on; here it would cost time and fill the cache.
        command.env("CARGO_INCREMENTAL", "0");
    }
    command
}

/// Whether cargo sets this variable for the package that it runs.
fn is_of_package(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_"]
        .iter()
        .any(|start| variable.starts_with(start))
}

/// How a binary is built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Dev,
    Release,
}

/// Path of a binary of ours once built.
pub fn binary(profile: Profile, name: &str) -> PathBuf {
    let folder = match profile {
        Profile::Dev => "debug",
        Profile::Release => "release",
    };
    target().join(folder).join(name)
}

/// The command that builds `packages`.
pub fn build(profile: Profile, packages: &[&str]) -> Command {
    let mut command = cargo(&["build", "--locked"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    for package in packages {
        command.args(["--package", package]);
    }
    command
}
