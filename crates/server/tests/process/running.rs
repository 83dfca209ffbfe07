//! A process that runs: its status port, and how it stops.

use rustix::process::Signal;

use crate::{Server, get, must};

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
