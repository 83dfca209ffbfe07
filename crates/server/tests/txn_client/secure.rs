//! TLS over the whole of a cluster: a placement driver and three stores in four processes, with a certificate on both sides of every
//! connection; our client, the registry's and `ctl` against it; and certificates that are replaced while a client works.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use client::{ClientOptions, Hint, Identity, Pem, RawClient, TlsOptions, TxnClient, TxnOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};

use super::common::{Cluster, PATIENCE};
use super::must_become;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).expect("a name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signs")
}

/// The three files of somebody, replaced as by a careful hand: each at once, one after the other.
struct Files {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new(dir: &Path, name: &str) -> Files {
        let file = |end: &str| dir.join(format!("{name}.{end}"));
        Files {
            ca: file("ca"),
            cert: file("pem"),
            key: file("key"),
        }
    }

    fn issue(&self, issuer: &Issuer, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, issuer).expect("signs");
        (certificate.pem(), key.serialize_pem())
    }

    /// `trusted`: whom it believes from now on; `issuer`: who vouches for it.
    fn write(&self, trusted: &[&Issuer], issuer: &Issuer, name: &str) {
        let put = |path: &PathBuf, text: &str| {
            let next = path.with_extension("next");
            std::fs::write(&next, text).expect("writes");
            std::fs::rename(&next, path).expect("renames");
        };
        let (certificate, key) = self.issue(issuer, name);
        put(&self.ca, &trusted.iter().map(|one| one.pem()).collect::<String>());
        put(&self.cert, &certificate);
        put(&self.key, &key);
    }

    fn flags(&self) -> Vec<String> {
        let text = |path: &Path| path.display().to_string();
        let flags = [
            ("--ca-path", &self.ca),
            ("--cert-path", &self.cert),
            ("--key-path", &self.key),
        ];
        flags
            .into_iter()
            .flat_map(|(flag, path)| [flag.to_owned(), text(path)])
            .collect()
    }

    fn tls(&self) -> TlsOptions {
        TlsOptions {
            authority: self.ca.as_path().into(),
            identity: Some(Identity {
                certificate: self.cert.as_path().into(),
                key: self.key.as_path().into(),
            }),
        }
    }
}

/// A cluster of one authority, and a client of it.
struct Secure {
    cluster: Cluster,
    dir: tempfile::TempDir,
    issuer: Issuer,
    servers: Files,
    client: Files,
}

impl Secure {
    fn start(more: &[&str]) -> Secure {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let issuer = authority("first");
        let (servers, client) = (Files::new(dir.path(), "server"), Files::new(dir.path(), "client"));
        servers.write(&[&issuer], &issuer, "ferrite");
        client.write(&[&issuer], &issuer, "application");
        let flags = servers.flags();
        let args: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let cluster = Cluster::three(&args);
        cluster.must_be_replicated();
        Secure {
            cluster,
            dir,
            issuer,
            servers,
            client,
        }
    }

    async fn raw(&self, tls: Option<TlsOptions>, deadline: Duration) -> Result<RawClient, client::Error> {
        let options = ClientOptions {
            tls,
            deadline,
            ..ClientOptions::default()
        };
        RawClient::connect(&self.cluster.endpoints(), options).await
    }

    fn registry(&self, files: &Files) -> tikv_client::Config {
        tikv_client::Config::default()
            .with_timeout(Duration::from_secs(10))
            .with_security(&files.ca, &files.cert, &files.key)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_work_by_tls_and_nobody_else_does() {
    let secure = Secure::start(&["--config", &named_alone().path().display().to_string()]);
    let tls = secure.client.tls();
    let raw = secure.raw(Some(tls.clone()), PATIENCE).await.expect("connects");
    raw.put("raw", "1").await.expect("put");
    assert_eq!(raw.get("raw").await.expect("get").as_deref(), Some(&b"1"[..]));
    let options = ClientOptions {
        tls: Some(tls.clone()),
        deadline: PATIENCE,
        ..ClientOptions::default()
    };
    let txns = TxnClient::connect(&secure.cluster.endpoints(), options)
        .await
        .expect("connects");
    let mut txn = txns.begin(TxnOptions::default()).await.expect("begin");
    txn.put("a", "1").await.expect("put");
    txn.put("z", "2").await.expect("put");
    txn.commit().await.expect("commit");

    // The registry's client, raw and transactional, finds what ours wrote.
    let endpoints = secure.cluster.endpoints();
    let theirs = tikv_client::RawClient::new_with_config(endpoints.clone(), secure.registry(&secure.client)).await;
    let theirs = theirs.expect("the client connects");
    theirs.put("theirs".to_owned(), "3").await.expect("put");
    assert_eq!(theirs.get("raw".to_owned()).await.expect("get"), Some(b"1".to_vec()));
    assert_eq!(raw.get("theirs").await.expect("get").as_deref(), Some(&b"3"[..]));
    let theirs = tikv_client::TransactionClient::new_with_config(endpoints, secure.registry(&secure.client)).await;
    let mut txn = theirs.expect("connects").begin_pessimistic().await.expect("begin");
    assert_eq!(txn.get_for_update("a".to_owned()).await.expect("get"), Some(b"1".to_vec()));
    txn.put("b".to_owned(), "4").await.expect("put");
    txn.commit().await.expect("commit");

    let refused = async |tls: Option<TlsOptions>| {
        let error = secure.raw(tls, Duration::from_secs(3)).await.err().expect("is refused");
        (base::log::chain(&error).to_string(), error.hint())
    };
    let nobody = TlsOptions {
        identity: None,
        ..tls.clone()
    };
    let (told, hint) = refused(Some(nobody)).await;
    assert!(
        told.contains("wants a certificate of the client") && hint == Hint::Configuration,
        "{told}"
    );
    let other = authority("other");
    let stranger = Files::new(secure.dir.path(), "stranger");
    stranger.write(&[&secure.issuer], &other, "application");
    let (told, hint) = refused(Some(stranger.tls())).await;
    assert!(
        told.contains("not of the server's authority") && hint == Hint::Configuration,
        "{told}"
    );
    stranger.write(&[&other], &secure.issuer, "application");
    let (told, hint) = refused(Some(stranger.tls())).await;
    assert!(
        told.contains("not of the given authority") && hint == Hint::Configuration,
        "{told}"
    );
    stranger.write(&[&secure.issuer], &secure.issuer, "somebody");
    let (told, hint) = refused(Some(stranger.tls())).await;
    assert!(
        told.contains("no name that may connect") && hint == Hint::Configuration,
        "{told}"
    );
    // In the clear nobody answers.
    let (told, _) = refused(None).await;
    assert!(told.contains("no placement driver answered"), "{told}");

    // Text in place of files.
    let read = |path: &Path| Pem::of_option(&std::fs::read_to_string(path).expect("reads"));
    let of_text = TlsOptions {
        authority: read(&secure.client.ca),
        identity: Some(Identity {
            certificate: read(&secure.client.cert),
            key: read(&secure.client.key),
        }),
    };
    secure.raw(Some(of_text), PATIENCE).await.expect("connects");

    ctl_works(&secure);
}

/// A configuration that lets the cluster and one application in.
fn named_alone() -> tempfile::NamedTempFile {
    let config = tempfile::NamedTempFile::new().expect("a temporary file");
    let text = "[security]\ncert-allowed-cn = [\"ferrite\", \"application\"]\n";
    std::fs::write(config.path(), text).expect("writes");
    config
}

fn ctl_works(secure: &Secure) {
    let (flags, bare) = (
        secure.client.flags(),
        secure.cluster.ctl_bare(&["get", "raw", "--timeout", "2s"]),
    );
    assert_eq!(bare.status.code(), Some(2));
    let ctl = |args: &[&str]| {
        let flags = flags.iter().map(String::as_str);
        let told = secure
            .cluster
            .ctl_bare(&flags.chain(args.iter().copied()).collect::<Vec<_>>());
        assert!(told.status.success(), "{args:?}: {}", String::from_utf8_lossy(&told.stderr));
        String::from_utf8(told.stdout).expect("text")
    };
    assert_eq!(ctl(&["get", "raw"]), "1\n");
    // What is asked past the client: stores, and the placement driver's own service.
    assert!(ctl(&["mvcc", "a", "--json"]).contains("commit_ts"));
    assert!(ctl(&["member"]).contains("https://"));
    ctl(&["operator"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_under_a_client_at_work() {
    let mut secure = Secure::start(&[]);
    let second = authority("second");
    // A client of the first authority, whose files nobody replaces.
    let late = Files::new(secure.dir.path(), "late");
    late.write(&[&secure.issuer, &second], &secure.issuer, "late");
    let raw = secure.raw(Some(secure.client.tls()), PATIENCE).await.expect("connects");
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let work = tokio::spawn({
        let (raw, stop, done) = (raw.clone(), stop.clone(), done.clone());
        async move {
            let mut at = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                at += 1;
                raw.put(format!("k{}", at % 64), at.to_string()).await?;
                done.store(at, Ordering::Relaxed);
            }
            Ok::<u64, client::Error>(at)
        }
    });
    let has_worked_on = async || {
        let before = done.load(Ordering::Relaxed);
        must_become("the client goes on", async || done.load(Ordering::Relaxed) > before + 50).await;
    };
    has_worked_on().await;

    // First everybody believes both, then everybody shows the new, then nobody believes the old.
    let (first, both) = (&secure.issuer, [&secure.issuer, &second]);
    secure.servers.write(&both, first, "ferrite");
    secure.client.write(&both, first, "application");
    let connects = async |files: &Files| secure.raw(Some(files.tls()), Duration::from_secs(3)).await.is_ok();
    let of_second = Files::new(secure.dir.path(), "second");
    of_second.write(&both, &second, "application");
    must_become("the second authority is believed", async || connects(&of_second).await).await;
    secure.servers.write(&both, &second, "ferrite");
    secure.client.write(&both, &second, "application");
    has_worked_on().await;
    secure.servers.write(&[&second], &second, "ferrite");
    secure.client.write(&[&second], &second, "application");
    must_become("the first authority is believed no more", async || !connects(&late).await).await;
    let error = secure.raw(Some(late.tls()), Duration::from_secs(3)).await.err();
    let told = error.map(|error| base::log::chain(&error).to_string()).unwrap_or_default();
    assert!(told.contains("not of the server's authority"), "{told}");
    has_worked_on().await;

    // A store that comes back, and everybody who dials it, show the new ones.
    let store = *secure.cluster.stores().first().expect("there are stores");
    secure.cluster.nodes[store].kill();
    secure.cluster.nodes[store].start();
    secure.cluster.nodes[store].must_be_ready();
    has_worked_on().await;
    stop.store(true, Ordering::Relaxed);
    let count = work.await.expect("no panic").expect("no call of the client failed");
    eprintln!("{count} writes, none failed, over two authorities and a restart");
}
