//! A real build tool; the others take long to install and run by `cargo xtask test --clients`.

use std::path::Path;
use std::process::Command;

#[test]
fn ccache_gets_warm_hits_in_each_of_its_layouts() {
    let dir = tempfile::tempdir().expect("a folder");
    let found = Command::new("ccache").arg("--version").output();
    assert!(found.is_ok(), "ccache is missing: apt-get install ccache");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients.sh");
    let mut command = Command::new(script);
    command
        .arg(env!("CARGO_BIN_EXE_ferrite-build-cache"))
        .arg(dir.path())
        .arg("ccache");
    let told = String::from_utf8(command.output().expect("runs").stdout).expect("text");
    assert!(told.contains("3 passed, 0 failed, 0 skipped"), "{told}");
}
