//! Help, version, completions, configuration on demand.

use server::config::Config;

use crate::{ferrite, run, stderr};

fn stdout(output: &std::process::Output) -> &str {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    std::str::from_utf8(&output.stdout).expect("standard output is text")
}

#[test]
fn version_names_the_commit() {
    let output = run(&["--version"]);
    assert_eq!(stdout(&output), format!("ferrite {} ({})\n", server::VERSION, server::COMMIT));
}

#[test]
fn help_teaches_by_examples() {
    let output = run(&["server", "--help"]);
    let help = stdout(&output);
    for wanted in [
        "Examples:",
        "--join 127.0.0.1:2379",
        "[default: 127.0.0.1:20160]",
        "--allow-insecure",
    ] {
        assert!(help.contains(wanted), "no {wanted:?} in the help:\n{help}");
    }
    assert_eq!(run(&[]).status.code(), Some(2), "no command is an error that shows the help");
    assert_eq!(run(&["server", "--no-such-flag"]).status.code(), Some(2));
}

#[test]
fn completions_know_the_flags() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert!(stdout(&output).contains("check-config"), "{shell}");
    }
}

#[test]
fn print_config_shows_what_flags_and_file_make() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), "[raft]\ntick = \"50ms\"\n[log]\nlevel = \"warn\"\n").expect("write the file");
    let args = [
        "server",
        "--print-config",
        "--config",
        file.path().to_str().expect("a plain path"),
        "--log-level",
        "debug",
    ];
    let printed = Config::parse("printed", stdout(&run(&args))).expect("what is printed can be read");
    let mut wanted = Config::default();
    wanted.raft.tick = base::Span::millis(50);
    wanted.log.level = "debug".into();
    assert_eq!(printed, wanted);
    let by_variable = ferrite(&args[..2])
        .env("FERRITE_CONFIG", file.path())
        .output()
        .expect("the binary runs");
    assert!(
        stdout(&by_variable).contains("tick = \"50ms\""),
        "the variable names the file too"
    );
}

#[test]
fn check_config_says_yes_or_no() {
    assert_eq!(run(&["server", "--check-config"]).status.code(), Some(0));
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = file.path().to_str().expect("a plain path");
    std::fs::write(&file, "[raft]\nelection-ticks = 1\nraft-threads = 0\n").expect("write the file");
    let output = run(&["server", "--check-config", "--config", path]);
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    assert!(
        told.contains("raft.election-ticks = 1: wanted more than raft.heartbeat-ticks (2)\n"),
        "{told}"
    );
    assert!(
        told.contains("raft.raft-threads = 0: wanted 1 to 64\n"),
        "every fault at once: {told}"
    );
}
