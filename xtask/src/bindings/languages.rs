//! How the client of each language is built for tests: into `target/bindings/<profile>/<language>`, with the programs that test it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::workspace::{self, Profile};
use crate::{stage, system};

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    C,
    Cpp,
    Python,
    Java,
    Node,
}

impl Language {
    pub const ALL: [Language; 5] = [Language::C, Language::Cpp, Language::Python, Language::Java, Language::Node];

    pub fn name(self) -> &'static str {
        match self {
            Language::C => "c",
            Language::Cpp => "cpp",
            Language::Python => "python",
            Language::Java => "java",
            Language::Node => "node",
        }
    }

    /// How the names of its programs end.
    pub fn ending(self) -> &'static str {
        match self {
            Language::C => "c",
            Language::Cpp => "cpp",
            Language::Python => "py",
            Language::Java => "java",
            Language::Node => "js",
        }
    }

    /// Programs that must be there to build and run it, with Debian's packages that bring them.
    fn needs(self) -> &'static [system::Need] {
        match self {
            Language::C => &[],
            Language::Cpp => &[("g++", "g++")],
            Language::Python => &[("python3", "python3")],
            Language::Java => &[("javac", "default-jdk-headless"), ("jar", "default-jdk-headless")],
            Language::Node => &[("node", "nodejs")],
        }
    }

    /// And to check its types and to make its package.
    fn needs_of_packages(self) -> &'static [system::Need] {
        match self {
            Language::C | Language::Java => &[],
            Language::Cpp => &[("cmake", "cmake")],
            Language::Python => &[("python3", "python3-venv")],
            Language::Node => &[("npm", "npm")],
        }
    }

    /// Whether it has a native part in the workspace of bindings/.
    fn has_extension(self) -> bool {
        matches!(self, Language::Python | Language::Java | Language::Node)
    }

    /// Makes sure that the machine has what building and running these wants; all that is missing is named at once.
    pub fn require(languages: &[Language]) -> Result<()> {
        let needs: Vec<system::Need> = languages.iter().flat_map(|language| language.needs()).copied().collect();
        system::ensure_with(&needs)
    }

    /// The same for checks of their types and for their packages.
    pub fn require_all(languages: &[Language]) -> Result<()> {
        let needs = languages
            .iter()
            .flat_map(|language| [language.needs(), language.needs_of_packages()].concat());
        system::ensure_with(&needs.collect::<Vec<_>>())
    }

    /// The command of one of its programs under `tests`: `conformance` or `load`.
    pub fn command(self, profile: Profile, program: &str) -> String {
        let built = out(profile).join(self.name()).display().to_string();
        match self {
            Language::C | Language::Cpp => format!("{built}/{program}"),
            Language::Python => format!("python3 {built}/{program}.py"),
            Language::Java => {
                let class = program[..1].to_uppercase() + &program[1..];
                // A heap that is whole from the beginning: what grows then is not it taking what it may.
                format!(
                    "java -Xms64m -Xmx64m -XX:+AlwaysPreTouch -cp {built}/ferrite-client.jar:{built}/tests io.ferrite.client.{class}"
                )
            }
            // Bounded for the same reason.
            Language::Node => format!("node --max-old-space-size=64 --max-semi-space-size=4 {built}/tests/{program}.js"),
        }
    }
}

/// Where all that is built lies.
pub fn out(profile: Profile) -> PathBuf {
    workspace::target().join("bindings").join(match profile {
        Profile::Dev => "debug",
        Profile::Release => "release",
    })
}

pub fn build(profile: Profile, languages: &[Language]) -> Result<()> {
    of_root(profile)?;
    extensions(profile, languages)?;
    for language in languages {
        let built = match language {
            Language::C | Language::Cpp => programs(profile, *language),
            Language::Python => python(profile),
            Language::Java => java(profile),
            Language::Node => node(profile),
        };
        built.with_context(|| format!("build the client of {}", language.name()))?;
    }
    Ok(())
}

/// Builds what the root's workspace brings: server, suite and C library, in release also the benchmark. Always the same packages together, as
/// others would ask for other features of what they depend on, and build it anew; where the whole workspace was built before, as in continuous
/// integration, all of it costs nothing. In release the C library stands alone, as its static form wants another kind of code of all others.
pub fn of_root(profile: Profile) -> Result<()> {
    match profile {
        Profile::Dev if workspace::in_ci() => stage::must(&mut workspace::cargo(&["build", "--locked", "--workspace"])),
        Profile::Dev => stage::must(&mut workspace::build(
            profile,
            &["ferrite-server", "ferrite-client-c", "ferrite-conformance"],
        )),
        Profile::Release => {
            stage::must(&mut workspace::build(
                profile,
                &["ferrite-server", "ferrite-bench", "ferrite-conformance"],
            ))?;
            stage::must(&mut workspace::build(profile, &["ferrite-client-c"]))
        }
    }
}

/// Builds the native parts, which have a workspace of their own. All of them if one is wanted: each alone would ask for other features of what they
/// depend on, and building them needs none of their languages.
pub fn extensions(profile: Profile, languages: &[Language]) -> Result<()> {
    if !languages.iter().any(|language| language.has_extension()) {
        return Ok(());
    }
    let mut command = workspace::build(profile, &[]);
    // Python brings its symbols with it, as with maturin, and one build does for all its versions: none needs to be asked.
    command
        .envs([("PYO3_BUILD_EXTENSION_MODULE", "1"), ("PYO3_NO_PYTHON", "1")])
        .arg("--workspace");
    stage::must(command.current_dir(workspace::root().join("bindings")))
}

/// A library that cargo built.
pub fn library(profile: Profile, name: &str) -> PathBuf {
    workspace::binary(profile, &format!("lib{name}.so"))
}

/// Compiles the programs against the C library.
fn programs(profile: Profile, language: Language) -> Result<()> {
    let to = fresh(profile, language.name())?;
    let tests = workspace::root().join("bindings").join(language.name()).join("tests");
    for program in ["conformance", "load"] {
        let source = tests.join(program).with_extension(language.name());
        compile(profile, language, &source, &to.join(program))?;
    }
    Ok(())
}

/// Compiles a program of C or C++.
pub fn compile(profile: Profile, language: Language, source: &Path, program: &Path) -> Result<()> {
    let (bindings, library) = (workspace::root().join("bindings"), library(profile, "ferrite_client"));
    let libraries = library.parent().context("a library lies in a folder")?.display().to_string();
    let (compiler, standard) = match language {
        Language::C => ("cc", "-std=c11"),
        _ => ("g++", "-std=c++20"),
    };
    let mut command = Command::new(compiler);
    command.args([standard, "-O2", "-Wall", "-Wextra", "-Werror"]);
    // GCC 12 sees the destructor of what is in an empty `optional`, where there is nothing to destroy.
    command.arg("-Wno-maybe-uninitialized");
    for include in ["c/include", "cpp/include"] {
        command.arg("-I").arg(bindings.join(include));
    }
    command.arg(source).arg("-o").arg(program).arg(&library).arg("-pthread");
    stage::must(command.arg(format!("-Wl,-rpath,{libraries}")))
}

/// Lays the extension into the package.
fn python(profile: Profile) -> Result<()> {
    let (from, to) = (workspace::root().join("bindings/python"), fresh(profile, "python")?);
    let package = to.join("ferrite_client");
    copy_folder(&from.join("ferrite_client"), &package)?;
    copy(&library(profile, "_native"), &package.join("_native.abi3.so"))?;
    copy_folder(&from.join("tests"), &to)
}

/// Makes the jar with the library inside, and compiles the programs.
fn java(profile: Profile) -> Result<()> {
    let to = fresh(profile, "java")?;
    jar(profile, &to)?;
    let tests = workspace::root().join("bindings/java/src/test/java/io/ferrite/client");
    javac(&[&tests], &to.join("ferrite-client.jar"), &to.join("tests"))
}

/// Makes `ferrite-client.jar` in a folder.
pub fn jar(profile: Profile, to: &Path) -> Result<()> {
    let classes = to.join("classes");
    let sources = workspace::root().join("bindings/java/src/main/java/io/ferrite/client");
    javac(&[&sources], &classes, &classes)?;
    let native = classes.join(format!("native/linux-{}", std::env::consts::ARCH));
    std::fs::create_dir_all(&native)?;
    copy(
        &library(profile, "ferrite_client_java"),
        &native.join("libferrite_client_java.so"),
    )?;
    let mut jar = Command::new("jar");
    jar.arg("--create").arg("--file").arg(to.join("ferrite-client.jar"));
    stage::must(jar.arg("-C").arg(&classes).arg("."))
}

/// Compiles all files of some folders.
pub fn javac(folders: &[&Path], class_path: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    let mut command = Command::new("javac");
    command
        .args(["--release", "17", "-Xlint:all", "-Werror", "-cp"])
        .arg(class_path);
    command.arg("-d").arg(to);
    for folder in folders {
        for file in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
            command.arg(file?.path());
        }
    }
    stage::must(&mut command)
}

/// Lays the extension into the package.
fn node(profile: Profile) -> Result<()> {
    let to = fresh(profile, "node")?;
    node_package(profile, &to)?;
    copy_folder(&workspace::root().join("bindings/node/tests"), &to.join("tests"))
}

/// The package as npm wants it, in a folder.
pub fn node_package(profile: Profile, to: &Path) -> Result<()> {
    let from = workspace::root().join("bindings/node");
    copy_folder(&from.join("lib"), &to.join("lib"))?;
    for file in ["package.json", "index.js", "index.d.ts", "README.md"] {
        copy(&from.join(file), &to.join(file))?;
    }
    copy(&library(profile, "ferrite_client_node"), &to.join("ferrite.node"))
}

/// An empty folder for what is built.
pub fn fresh(profile: Profile, name: &str) -> Result<PathBuf> {
    empty(out(profile).join(name))
}

/// Empties a folder, or makes it.
pub fn empty(folder: PathBuf) -> Result<PathBuf> {
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("empty {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(folder)
}

pub fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// The files of a folder, without those below it.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
