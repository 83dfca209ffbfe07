//! A process that runs: its status port, and how it stops.

use std::path::Path;

use rustix::process::Signal;

use crate::{Server, get, must, run, stderr};

#[test]
fn status_port_answers() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::start(dir.path(), &[]);
    let url = server.status_url();
    let page = |path: &str| get(&format!("{url}{path}"));

    let (code, body) = page("status");
    let report: serde_json::Value = serde_json::from_str(&body).expect("status is JSON");
    assert_eq!(
        (code, &report["version"], &report["commit"]),
        (200, &server::VERSION.into(), &server::COMMIT.into())
    );
    assert_eq!(report["pid"], server.child.id());

    let (code, body) = page("config");
    let config: serde_json::Value = serde_json::from_str(&body).expect("the configuration is JSON");
    assert_eq!((code, &config["raft"]["tick"]), (200, &"100ms".into()));

    let (code, body) = page("");
    assert!(code == 200 && body.contains("<title>Ferrite</title>"), "{code} {body}");
    assert_eq!(page("metrics").0, 200);
    assert_eq!(page("no/such/page").0, 404);
}

#[test]
fn profiles_are_drawn_one_at_a_time() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::start(dir.path(), &[]);
    let url = server.status_url();
    let cpu = format!("{url}debug/pprof/profile?seconds=1");
    let heap = format!("{url}debug/pprof/heap?seconds=1");
    for seconds in [0, 61] {
        let (code, body) = get(&format!("{url}debug/pprof/profile?seconds={seconds}"));
        assert_eq!(
            (code, body.as_str()),
            (400, format!("seconds = {seconds}: wanted 1 to 60\n").as_str())
        );
    }

    let first = base::thread::spawn("test-profile", move || {
        must("the CPU profile has its turn", || not_refused(&cpu))
    });
    must("a second profile is refused", || (get(&heap).0 == 429).then_some(()));
    let (code, svg) = first.join().expect("the profile comes");
    assert!(
        code == 200 && svg.contains("<svg") && svg.trim_end().ends_with("</svg>"),
        "{code} {svg}"
    );

    let (code, dump) = must("the heap profile has its turn", || not_refused(&heap));
    assert!(code == 200 && dump.starts_with("heap_v2/"), "{code} {dump}");
}

fn not_refused(url: &str) -> Option<(u16, String)> {
    Some(get(url)).filter(|(code, _)| *code != 429)
}

#[test]
fn a_signal_stops_it_in_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut server = Server::start(dir.path(), &[]);
        server.status_url();
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0), "{signal:?}");
        assert_eq!(server.logged("stopped", "message"), "stopped");
    }
}

/// A command of `ferrite ctl` to this server: whether it succeeded, and what it said.
fn ctl(server: &mut Server, args: &[&str]) -> (bool, String) {
    let pd = server.logged("placement driver serves", "address");
    let (verb, rest) = args.split_first().expect("a command");
    let output = run(&[&["ctl", verb, "--pd-addr", &pd, "--timeout", "2s"], rest].concat());
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
    (output.status.success(), told)
}

#[test]
fn a_disk_that_is_almost_full_takes_deletes_alone() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let start = |reserve: u64, data: &Path| {
        let file = dir.path().join("ferrite.toml");
        std::fs::write(&file, format!("[server]\ndisk-reserve = \"{reserve}B\"\n")).expect("write the file");
        Server::start(data, &["--config", file.to_str().expect("a plain path")])
    };
    let data = dir.path().join("data");
    let mut server = start(0, &data);
    for key in ["a", "b"] {
        assert_eq!(ctl(&mut server, &["put", key, "1"]), (true, String::new()));
    }
    server.signal(Signal::TERM);
    server.wait();

    // As much again as is free: the disk is almost full by that measure.
    let free = server::data_dir::free_bytes(dir.path()).expect("a disk").0;
    let mut server = start(2 * free, &data);
    server.logged(
        "disk is almost full: only what frees room is taken until there is some",
        "free",
    );
    let (done, told) = ctl(&mut server, &["put", "a", "2"]);
    assert!(!done && told.contains("disk is full"), "{told}");
    assert_eq!(ctl(&mut server, &["get", "a"]), (true, "1\n".into()));
    assert_eq!(ctl(&mut server, &["del", "b"]), (true, String::new()));
    server.signal(Signal::TERM);
    server.wait();

    let mut server = start(0, &data);
    assert_eq!(ctl(&mut server, &["put", "a", "2"]), (true, String::new()));
    assert!(!ctl(&mut server, &["get", "b"]).0);
}
