//! Starts that must be refused: each with one line that says what to do, and exit code 2.

use std::net::TcpListener;

use crate::{Server, assert_refused, run, run_in};

#[test]
fn unknown_config_key() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(&file, "[raft]\nelection-tick = 7\n").expect("write the file");
    let path = file.path().to_str().expect("a plain path");
    let output = run(&["server", "--config", path]);
    assert_refused(
        &output,
        &format!("{path}:2: unknown key raft.election-tick; did you mean raft.election-ticks?"),
    );
}

#[test]
fn config_file_missing() {
    assert_refused(
        &run(&["server", "--config", "/no/such/file.toml"]),
        "read configuration /no/such/file.toml: No such file",
    );
}

#[test]
fn port_taken() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data_dir = dir.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("it has an address").to_string();
    for flag in ["--addr", "--pd-addr", "--status-addr"] {
        assert_refused(
            &run_in(&data_dir, &[flag, &addr]),
            &format!("{addr} is taken by another process; choose another address with {flag}"),
        );
    }
    assert!(
        !data_dir.exists(),
        "a start that is refused for its port leaves nothing behind"
    );
}

#[test]
fn directory_in_use() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut first = Server::start(dir.path(), &[]);
    first.status_url();
    let pid = first.child.id();
    assert_refused(
        &run_in(dir.path(), &[]),
        &format!(
            "data directory {} is in use by another process (pid {pid})",
            dir.path().display()
        ),
    );
}

#[test]
fn directory_that_cannot_be_made() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    assert_refused(&run_in(&file.path().join("data"), &[]), "make directory");
}

#[test]
fn disk_full() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("ferrite.toml");
    std::fs::write(&file, "[server]\ndisk-reserve = \"1000000TiB\"\n").expect("write the file");
    let config = ["--config", file.to_str().expect("a plain path")];
    assert_refused(&run_in(&dir.path().join("data"), &config), "is full: ");
}

#[test]
fn listening_to_other_machines() {
    let output = run(&["server", "--addr", "0.0.0.0:20160"]);
    assert_refused(&output, "server.addr = \"0.0.0.0:20160\": wanted a loopback address");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        told.contains("neither encrypted nor authenticated") && told.contains("--allow-insecure"),
        "{told}"
    );
}
