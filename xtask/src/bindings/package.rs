//! What users install: built in release, then installed in an empty folder and tried there against a database.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use super::database::Database;
use super::languages::{self, Language};
use super::{examples, tools};
use crate::stage::{self, Outcome};
use crate::workspace::{self, Profile};

const RELEASE: Profile = Profile::Release;

/// Makes the package of a language in `target/bindings/packages`, and tries it.
pub fn make_and_try(language: Language) -> Result<Outcome> {
    languages::of_root(RELEASE)?;
    if language != Language::Python {
        languages::extensions(RELEASE, &[language])?;
    }
    let packages = workspace::target().join("bindings/packages");
    let to = languages::empty(packages.join(language.name()))?;
    let away = languages::empty(workspace::target().join("bindings/tried").join(language.name()))?;
    let mut first = match language {
        Language::C => c(&to, &away)?,
        Language::Cpp => cpp(&to, &away)?,
        Language::Python => python(&to, &away)?,
        Language::Java => java(&to, &away)?,
        Language::Node => node(&to, &away)?,
    };
    let database = Database::start(RELEASE)?;
    stage::must(first.current_dir(&away).arg(&database.endpoint))?;
    eprintln!("the package is in {}", to.display());
    Ok(Outcome::Passed)
}

/// The first program of a language's page, which the examples hold.
fn first(language: Language) -> PathBuf {
    examples::folder(language).join("first").with_extension(language.ending())
}

/// Header and libraries, in one folder.
fn c(to: &Path, away: &Path) -> Result<Command> {
    let header = workspace::root().join("bindings/c/include/ferrite_client.h");
    languages::copy(&header, &to.join("ferrite_client.h"))?;
    for library in ["libferrite_client.so", "libferrite_client.a"] {
        languages::copy(&workspace::binary(RELEASE, library), &to.join(library))?;
    }
    let program = away.join("first");
    let mut compile = Command::new("cc");
    compile.arg("-I").arg(to).arg(first(Language::C)).arg("-o").arg(&program);
    compile.arg(to.join("libferrite_client.a")).args(["-lpthread", "-lm", "-ldl"]);
    stage::must(&mut compile)?;
    Ok(Command::new(program))
}

/// The CMake package, installed with a prefix, found by `find_package` from elsewhere.
fn cpp(to: &Path, away: &Path) -> Result<Command> {
    let source = workspace::root().join("bindings/cpp");
    let build = away.join("build-package");
    let mut configure = Command::new("cmake");
    configure
        .arg("-S")
        .arg(&source)
        .arg("-B")
        .arg(&build)
        .arg("-DFERRITE_BUILD_TESTS=OFF");
    let libraries = workspace::binary(RELEASE, "");
    stage::must(configure.arg(format!("-DFERRITE_LIBRARY_DIR={}", libraries.display())))?;
    stage::must(Command::new("cmake").arg("--install").arg(&build).arg("--prefix").arg(to))?;
    languages::copy(&first(Language::Cpp), &away.join("first.cpp"))?;
    std::fs::write(away.join("CMakeLists.txt"), CMAKE)?;
    let mut configure = Command::new("cmake");
    configure
        .args(["-S", ".", "-B", "build"])
        .arg(format!("-DCMAKE_PREFIX_PATH={}", to.display()));
    stage::must(configure.current_dir(away))?;
    stage::must(Command::new("cmake").args(["--build", "build"]).current_dir(away))?;
    Ok(Command::new(away.join("build/first")))
}

/// What a user's project says.
const CMAKE: &str = "cmake_minimum_required(VERSION 3.20)\nproject(first LANGUAGES CXX)\nfind_package(ferrite-client REQUIRED)\n\
                     add_executable(first first.cpp)\ntarget_link_libraries(first ferrite::client)\n";

/// The wheel, by maturin, installed into an environment of its own.
fn python(to: &Path, away: &Path) -> Result<Command> {
    let mut maturin = Command::new(tools::python("maturin")?);
    maturin.args(["build", "--release", "--locked", "--out"]).arg(to);
    maturin.env("CARGO_TARGET_DIR", workspace::target());
    stage::must(maturin.current_dir(workspace::root().join("bindings/python")))?;
    let environment = away.join("venv");
    stage::must(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    let mut install = Command::new(environment.join("bin/pip"));
    install.args(["install", "--quiet", "--no-index", "--disable-pip-version-check"]);
    stage::must(install.arg(only_file(to)?))?;
    let mut command = Command::new(environment.join("bin/python"));
    command.arg(first(Language::Python));
    Ok(command)
}

/// The jar, with the library inside.
fn java(to: &Path, away: &Path) -> Result<Command> {
    let built = languages::empty(away.join("build"))?;
    languages::jar(RELEASE, &built)?;
    let jar = to.join("ferrite-client.jar");
    languages::copy(&built.join("ferrite-client.jar"), &jar)?;
    let mut command = Command::new("java");
    command.arg("-cp").arg(&jar).arg(first(Language::Java));
    Ok(command)
}

/// The archive that npm installs.
fn node(to: &Path, away: &Path) -> Result<Command> {
    let built = languages::empty(away.join("build"))?;
    languages::node_package(RELEASE, &built)?;
    stage::must(
        Command::new("npm")
            .args(["pack", "--silent", "--pack-destination"])
            .arg(to)
            .current_dir(&built),
    )?;
    let project = languages::empty(away.join("project"))?;
    std::fs::write(project.join("package.json"), "{ \"private\": true }\n")?;
    let mut install = Command::new("npm");
    install.args(["install", "--offline", "--no-audit", "--no-fund", "--loglevel", "error"]);
    stage::must(install.arg(only_file(to)?).current_dir(&project))?;
    languages::copy(&first(Language::Node), &project.join("first.js"))?;
    let mut command = Command::new("node");
    command.arg(project.join("first.js"));
    Ok(command)
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let files: Vec<_> = std::fs::read_dir(folder)?.collect::<std::io::Result<_>>()?;
    ensure!(files.len() == 1, "{} files in {}, wanted one", files.len(), folder.display());
    Ok(files[0].path())
}
