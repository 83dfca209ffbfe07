//! TLS of one process: files that cannot be used are told before anything starts, and a playground makes its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

use crate::{assert_refused, ferrite, run, run_in, stderr};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).expect("a name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signs")
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path: PathBuf = dir.join(name);
    std::fs::write(&path, text).expect("writes");
    path.display().to_string()
}

/// Files of a certificate that is valid until the end of `last_year`, and of its key.
fn issue(dir: &Path, issuer: &Issuer, name: &str, last_year: i32) -> (String, String) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.not_after = date_time_ymd(last_year, 12, 31);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, issuer).expect("signs");
    let certificate = write(dir, &format!("{name}.pem"), &certificate.pem());
    (certificate, write(dir, &format!("{name}.key"), &key.serialize_pem()))
}

#[test]
fn files_that_cannot_be_used_are_told_before_anything_starts() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let issuer = authority();
    let ca = write(dir.path(), "ca.pem", &issuer.pem());
    let (cert, key) = issue(dir.path(), &issuer, "good", 2099);
    let (old_cert, old_key) = issue(dir.path(), &issuer, "old", 2001);
    let absent = dir.path().join("absent").display().to_string();
    let check = |files: [&str; 3]| {
        let [ca, cert, key] = files;
        let output = run(&[
            "server",
            "--check-config",
            "--ca-path",
            ca,
            "--cert-path",
            cert,
            "--key-path",
            key,
        ]);
        (output.status.code(), stderr(&output).trim_end().to_owned())
    };
    assert_eq!(check([&ca, &cert, &key]), (Some(0), "configuration is valid".to_owned()));
    let cases = [
        (
            [&ca, &cert, &absent],
            format!("security: read {absent}: No such file or directory (os error 2)"),
        ),
        (
            [&ca, &cert, &old_key],
            format!("security: the key in {old_key} does not fit the certificate in {cert}: it belongs to another"),
        ),
        (
            [&ca, &old_cert, &old_key],
            format!("security: the certificate in {old_cert} expired at 2001-12-31 00:00:00 UTC"),
        ),
        ([&key, &cert, &key], format!("security: {key} holds no certificate")),
    ];
    for (files, wanted) in cases {
        let files = files.map(String::as_str);
        assert_eq!(check(files), (Some(1), wanted.clone()));
        let data_dir = dir.path().join("data");
        let [ca, cert, key] = files;
        assert_refused(
            &run_in(&data_dir, &["--ca-path", ca, "--cert-path", cert, "--key-path", key]),
            &wanted,
        );
        assert!(!data_dir.exists(), "something was started");
    }
    let output = run(&["server", "--check-config", "--ca-path", &ca]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("security.key-path = \"\": wanted a file, as TLS needs all three"));
    // What others reach wants TLS.
    let open = ["server", "--check-config", "--addr", "0.0.0.0:20160"];
    assert_eq!(run(&open).status.code(), Some(1));
    let flags = ["--ca-path", &ca, "--cert-path", &cert, "--key-path", &key];
    assert_eq!(run(&[&open[..], &flags[..]].concat()).status.code(), Some(0));
}

#[test]
fn a_playground_makes_its_own_authority() {
    let mut command = ferrite(&["playground", "--tls", "--stores", "1", "--free-ports", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary runs");
    let mut line = String::new();
    let read = BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line);
    let ended = scopeguard(&mut child);
    read.expect("it tells where it listens");
    let told: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let (pd, tls) = (text(&told["pd"]), &told["tls"]);
    assert!(text(&told["status"]).starts_with("https://"), "{line}");
    let flags = [
        ("--ca-path", text(&tls["ca"])),
        ("--cert-path", text(&tls["cert"])),
        ("--key-path", text(&tls["key"])),
    ];
    let flags: Vec<&str> = flags.iter().flat_map(|(flag, path)| [*flag, path]).collect();
    let ctl = |args: &[&str]| run(&[&["ctl", "--pd-addr", &pd], args].concat());
    let put = ctl(&[&["put", "greeting", "hello"], &flags[..]].concat());
    assert!(put.status.success(), "{}", stderr(&put));
    assert_eq!(ctl(&[&["get", "greeting"], &flags[..]].concat()).stdout, b"hello\n");
    let bare = ctl(&["get", "greeting", "--ca-path", flags[1]]);
    assert_eq!(bare.status.code(), Some(2));
    assert!(
        stderr(&bare).contains("the server wants a certificate of the client"),
        "{}",
        stderr(&bare)
    );
    drop(ended);
}

/// Ends the child whatever happens, by the signal on which it removes its directory.
fn scopeguard(child: &mut std::process::Child) -> impl Drop + '_ {
    struct Ends<'a>(&'a mut std::process::Child);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            let pid = rustix::process::Pid::from_child(self.0);
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::INT);
            let _status = self.0.wait();
        }
    }
    Ends(child)
}
