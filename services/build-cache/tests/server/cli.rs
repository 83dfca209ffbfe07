//! What the command line says when something is wrong: the reason and what to do, and nothing is left behind.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

fn run(args: &[&str], dir: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrite-build-cache"));
    let output = command.args(args).arg("--data-dir").arg(dir).output().expect("runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn faults_of_a_start_are_told_and_leave_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0").expect("listens");
    let addr = taken.local_addr().expect("has one").to_string();
    let (code, told) = run(&["serve", "--addr", &addr], &data);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains(&format!("listen on {addr}: Address already in use")), "{told}");
    let (code, told) = run(&["verify"], &data);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("no cache lies in"), "{told}");
    let (code, told) = run(&["serve", "--addr", "0.0.0.0:0"], &data);
    assert_eq!(code, Some(2), "{told}");
    assert!(
        told.contains("other machines reach it") && told.contains("--allow-insecure"),
        "{told}"
    );
    assert!(!data.exists());
}

#[test]
fn a_store_that_runs_is_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let _server = crate::common::start(dir.path(), &[]);
    for args in [&["serve", "--addr", "127.0.0.1:0"][..], &["verify"]] {
        let (code, told) = run(args, dir.path());
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains("is open in another process"), "{told}");
    }
}
