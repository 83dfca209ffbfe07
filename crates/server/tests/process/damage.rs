//! Data that is not what the process left there: another cluster's, another API version's, or damaged on disk. A start on it is
//! refused with one line, or every value is as it was written; never a wrong value, never a panic.

use std::path::{Path, PathBuf};
use std::process::Output;

use client::{ClientOptions, RawClient};

use crate::{Server, assert_refused, must, run_in};

/// Large enough together for the engine to make tables of them, with its smallest memtable.
const KEYS: u32 = 3000;
const VALUE_BYTES: usize = 1500;

fn key(number: u32) -> String {
    format!("key-{number:05}")
}

fn value(number: u32) -> String {
    format!("{number:05}-").repeat(VALUE_BYTES / 6)
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

async fn connect(server: &mut Server) -> RawClient {
    let pd = server.logged("placement driver serves", "address");
    RawClient::connect(&[pd], ClientOptions::default()).await.expect("connect")
}

/// Runs a server on `dir`, writes, and stops it: in order, or with SIGKILL.
fn fill(dir: &Path, gently: bool) {
    let mut server = Server::start(dir, &["--config", &small_memtables(dir)]);
    block_on(async {
        let client = connect(&mut server).await;
        for first in (0..KEYS).step_by(100) {
            let pairs = (first..first + 100).map(|number| (key(number), value(number)));
            client.batch_put(pairs).await.expect("batch put");
        }
    });
    if gently {
        server.signal(rustix::process::Signal::TERM);
        assert!(server.wait().success());
    }
}

fn small_memtables(dir: &Path) -> String {
    let file = dir.join("small.toml");
    std::fs::write(&file, "[engine]\nmemtable-size = \"1MiB\"\n").expect("write the configuration");
    file.display().to_string()
}

/// Starts on damaged data and reads everything: how the damage was told, at the start or by a read that failed; `None` when
/// everything was there. A read that succeeds is right.
fn told_damage(dir: &Path) -> Option<String> {
    let mut server = Server::start(dir, &[]);
    let ready = must("it serves or ends", || match server.child.try_wait().expect("a child") {
        Some(_) => Some(false),
        None => server.has_logged("store serves").then_some(true),
    });
    let failed_read = if ready { block_on(check(&mut server)).err() } else { None };
    if ready && server.child.try_wait().expect("a child").is_none() {
        return failed_read;
    }
    let status = server.wait();
    let told = server.told();
    assert_eq!(status.code(), Some(2), "{told:#?}");
    assert_eq!(
        told.iter().filter(|line| line.starts_with("ferrite: ")).count(),
        1,
        "{told:#?}"
    );
    Some(told.join("\n"))
}

async fn check(server: &mut Server) -> Result<(), String> {
    let pd = server.logged("placement driver serves", "address");
    let options = ClientOptions {
        deadline: std::time::Duration::from_secs(2),
        ..ClientOptions::default()
    };
    let client = RawClient::connect(&[pd], options).await.map_err(|error| error.to_string())?;
    for number in 0..KEYS {
        // One that does not answer will not answer the next either.
        let found = client.get(key(number)).await.map_err(|error| format!("{error:?}"))?;
        assert_eq!(found.as_deref(), Some(value(number).as_bytes()), "key {number}");
    }
    Ok(())
}

/// Files below `dir` whose path holds `part`, largest first.
fn files(dir: &Path, part: &str) -> Vec<(u64, PathBuf)> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let meta = entry.metadata().expect("its kind");
            match meta.is_dir() {
                true => folders.push(entry.path()),
                false => found.push((meta.len(), entry.path())),
            }
        }
    }
    found.retain(|(size, path)| *size > 0 && path.display().to_string().contains(part));
    found.sort_by(|a, b| b.cmp(a));
    found
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = std::fs::read(path).expect("read the file");
    bytes[offset] ^= 0x10;
    std::fs::write(path, bytes).expect("write the file");
}

#[test]
fn data_of_another_api_version() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::start(dir.path(), &[]);
    server.logged("store serves", "address");
    drop(server);
    let output = run_in(dir.path(), &["--api-version", "v2"]);
    let at = dir.path().display();
    assert_refused(
        &output,
        &format!("data directory {at}/store holds data of API version v1, not v2; start with --api-version v1"),
    );
}

#[test]
fn data_of_another_cluster() {
    let [dir, other] = [(); 2].map(|()| tempfile::tempdir().expect("a temporary directory"));
    let mut server = Server::start(dir.path(), &[]);
    server.logged("store serves", "address");
    drop(server);
    let mut cluster = Server::start(other.path(), &[]);
    let pd = cluster.logged("placement driver serves", "address");
    let output: Output = run_in(dir.path(), &["--join", &pd]);
    let said = crate::stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(
        last.contains("belongs to cluster") && last.contains("join with another --data-dir"),
        "{said}"
    );
}

/// The end of the raft log, as `kill -9` left it: what was acknowledged is there, so an end that cannot be read is damage, and
/// dropping it in silence would lose writes.
#[test]
fn a_damaged_end_of_the_raft_log() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fill(dir.path(), false);
    let (_, file) = files(dir.path(), ".raftlog").pop().expect("a raft log");
    let bytes = std::fs::read(&file).expect("read the log");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("it is not empty");
    for offset in [end, end - 100, end - 2_000, end - 40_000] {
        flip(&file, offset);
        let told = told_damage(dir.path()).unwrap_or_default();
        assert!(told.contains("raft log"), "offset {offset} of {end}: {told}");
        std::fs::write(&file, &bytes).expect("mend the log");
    }
    assert_eq!(told_damage(dir.path()), None, "the mended log serves");
}

/// One bit in the middle of each of the larger files of the engine.
#[test]
fn a_flipped_bit_in_data_files() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fill(dir.path(), true);
    let tables: Vec<_> = files(dir.path(), "/store/engine/").into_iter().take(4).collect();
    // In how many tables they lie depends on when they were flushed.
    let size: u64 = tables.iter().map(|(size, _)| *size).sum();
    assert!(size > 100_000, "{tables:?}");
    for (size, file) in &tables {
        // A server that runs on it may replace the files that are to be damaged next.
        let damaged = tempfile::tempdir().expect("a temporary directory");
        copy(dir.path(), damaged.path());
        let name = file.strip_prefix(dir.path()).expect("found below it");
        let offset = *size as usize / 2;
        flip(&damaged.path().join(name), offset);
        let told = told_damage(damaged.path());
        println!("{}: {told:?}", name.display());
        assert!(
            told.is_some(),
            "nobody noticed the flipped bit at {offset} of {}",
            name.display()
        );
    }
    assert_eq!(told_damage(dir.path()), None, "the files without damage serve");
}

/// Copies all files and folders.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.metadata().expect("its kind").is_dir() {
            true => {
                std::fs::create_dir(&target).expect("make a folder");
                copy(&entry.path(), &target);
            }
            false => drop(std::fs::copy(entry.path(), target).expect("copy a file")),
        }
    }
}
