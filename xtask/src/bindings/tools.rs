//! Tools out of the registries of Python and npm: maturin, mypy, tsc. They live in our cache, outside of the checkout, and are used as they lie there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::languages;
use crate::stage;
use crate::workspace::{self, Profile};

/// Versions that are known to do.
const PYTHON: [&str; 2] = ["maturin>=1.9.4,<2", "mypy>=1.15,<3"];

/// Path of a program of the virtual environment that holds the tools of Python.
pub fn python(program: &str) -> Result<PathBuf> {
    let environment = workspace::cache().join("tools/python");
    let path = environment.join("bin").join(program);
    if !path.is_file() {
        stage::must(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
        let mut install = Command::new(environment.join("bin/pip"));
        stage::must(
            install
                .args(["install", "--quiet", "--disable-pip-version-check"])
                .args(PYTHON),
        )?;
    }
    Ok(path)
}

/// The folder `node_modules` with the compiler of TypeScript and the types of Node, as the package's lock file names them.
pub fn node() -> Result<PathBuf> {
    let (from, folder) = (workspace::root().join("bindings/node"), workspace::cache().join("tools/node"));
    let is_fresh = |file: &str| -> bool {
        let read = |dir: &Path| std::fs::read(dir.join(file)).ok();
        read(&folder).is_some() && read(&folder) == read(&from)
    };
    let modules = folder.join("node_modules");
    if !is_fresh("package-lock.json") || !modules.join(".bin/tsc").exists() {
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        languages::copy(&from.join("package.json"), &folder.join("package.json"))?;
        languages::copy(&from.join("package-lock.json"), &folder.join("package-lock.json"))?;
        let mut install = Command::new("npm");
        install.args(["ci", "--no-audit", "--no-fund", "--loglevel", "error"]);
        stage::must(install.current_dir(&folder))?;
    }
    Ok(modules)
}

/// Checks the types of the package that was built, and a program in TypeScript against them.
pub fn tsc(modules: &Path, profile: Profile) -> Command {
    let mut command = Command::new("node");
    command.arg(modules.join("typescript/bin/tsc"));
    command.args([
        "--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--types", "node",
    ]);
    command.arg("--typeRoots").arg(modules.join("@types"));
    command.arg(languages::out(profile).join("node/tests/types.ts"));
    command
}
