//! A real build tool; the others take long to install and run by `cargo xtask test --clients`.

use std::process::Command;

#[test]
fn ccache_gets_warm_hits_in_each_of_its_layouts() {
    let dir = tempfile::tempdir().expect("a folder");
    let found = Command::new("ccache").arg("--version").output();
    assert!(found.is_ok(), "ccache is missing: apt-get install ccache");
    // Tests run in their package's folder. Where that was when this was compiled may be another checkout, whose target directory this is too.
    let mut command = Command::new("tests/clients.sh");
    command
        .arg(env!("CARGO_BIN_EXE_ferrite-build-cache"))
        .arg(dir.path())
        .arg("ccache");
    let told = String::from_utf8(command.output().expect("runs").stdout).expect("text");
    assert!(told.contains("3 passed, 0 failed, 0 skipped"), "{told}");
}
