//! The ABI as C sees it: the header is what the sources say, and a C program runs against a database.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

/// The package's folder: told at run time, as checkouts may share a target directory.
fn here() -> &'static Path {
    static HERE: LazyLock<PathBuf> = LazyLock::new(|| std::env::current_dir().expect("a folder"));
    &HERE
}

/// The folder of this build's binaries.
fn built() -> PathBuf {
    let test = std::env::current_exe().expect("this binary");
    test.ancestors().nth(2).expect("lies in <target>/<profile>/deps").to_owned()
}

/// A database in a process of its own, gone when dropped.
struct Database {
    process: Child,
    endpoint: String,
}

impl Database {
    fn start() -> Database {
        let binary = std::env::var_os("FERRITE_BIN").map_or_else(|| built().join("ferrite"), PathBuf::from);
        assert!(
            binary.is_file(),
            "{} is missing: run `cargo build -p ferrite-server`, or set FERRITE_BIN",
            binary.display()
        );
        let mut command = Command::new(binary);
        command.args(["playground", "--stores", "1", "--free-ports", "--json", "--api-version", "v2"]);
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the binary runs");
        let mut line = String::new();
        let out = process.stdout.take().expect("standard output is a pipe");
        BufReader::new(out).read_line(&mut line).expect("tells where it listens");
        let told: serde_json::Value = serde_json::from_str(&line).expect("one line of JSON");
        let endpoint = told["pd"].as_str().expect("an address").to_owned();
        Database { process, endpoint }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn compile(dir: &Path, libraries: &[&str]) -> PathBuf {
    let program = dir.join(format!("abi{}", libraries.len()));
    let mut command = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    command.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-I"]);
    command
        .arg(here().join("include"))
        .arg(here().join("tests/abi.c"))
        .arg("-o")
        .arg(&program);
    command.args(libraries).arg("-lpthread");
    assert!(
        command.status().expect("a C compiler is there").success(),
        "abi.c does not compile"
    );
    program
}

#[test]
fn a_c_program_uses_the_whole_interface() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    // Where cargo puts what a test depends on.
    let built = built().join("deps");
    let dynamic = built.join("libferrite_client.so").display().to_string();
    let fixed = built.join("libferrite_client.a").display().to_string();
    for libraries in [&[dynamic.as_str()][..], &[&fixed, "-lm", "-ldl"]] {
        // Each its own: the program counts on an empty one.
        let database = Database::start();
        let mut command = Command::new(compile(dir.path(), libraries));
        command.arg(&database.endpoint).env("LD_LIBRARY_PATH", &built);
        let status = command.status().expect("the program runs");
        assert!(status.success(), "with {libraries:?}: {status}");
    }
}

#[test]
fn the_header_is_fresh() {
    let config = cbindgen::Config::from_file(here().join("cbindgen.toml")).expect("the configuration can be read");
    let bindings = cbindgen::Builder::new().with_config(config).with_crate(here()).generate();
    let mut fresh = Vec::new();
    bindings.expect("the sources can be read").write(&mut fresh);
    let path = here().join("include/ferrite_client.h");
    if std::env::var_os("FERRITE_WRITE_HEADER").is_some() {
        std::fs::write(&path, &fresh).expect("the header can be written");
    }
    let committed = std::fs::read(&path).unwrap_or_default();
    assert!(
        committed == fresh,
        "the header is stale: run `FERRITE_WRITE_HEADER=1 cargo test -p ferrite-client-c the_header`"
    );
}
