//! Handshakes of both sides over a pipe, with certificates as they are and as they should not be.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).expect("a name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signs")
}

/// Files of an authority and of one that it vouches for.
struct Files {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new(dir: &Path, name: &str) -> Files {
        let file = |end: &str| dir.join(format!("{name}-{end}.pem"));
        Files {
            ca: file("ca"),
            certificate: file("certificate"),
            key: file("key"),
        }
    }

    fn write(&self, issuer: &Issuer, common_name: &str, last_year: i32) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.not_after = date_time_ymd(last_year, 12, 31);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, issuer).expect("signs");
        std::fs::write(&self.ca, issuer.pem()).expect("writes");
        std::fs::write(&self.certificate, certificate.pem()).expect("writes");
        std::fs::write(&self.key, key.serialize_pem()).expect("writes");
    }

    fn server(&self, allowed_cn: &[&str]) -> ServerOptions {
        ServerOptions {
            certificate: self.certificate.as_path().into(),
            key: self.key.as_path().into(),
            clients: Clients::Required(self.ca.as_path().into()),
            allowed_cn: allowed_cn.iter().map(|&name| name.to_owned()).collect(),
            protocols: vec!["h2", "http/1.1"],
        }
    }

    fn client(&self) -> ClientOptions {
        ClientOptions {
            authority: self.ca.as_path().into(),
            identity: Some(Identity {
                certificate: self.certificate.as_path().into(),
                key: self.key.as_path().into(),
            }),
        }
    }
}

/// One byte there and back; `Err` tells why the client could not, as people are told.
async fn exchange(acceptor: &Acceptor, client: &ClientOptions, name: &str) -> Result<(), String> {
    let connector = Connector::new(client, &["h2"]).map_err(|error| base::log::chain(&error).to_string())?;
    let (here, there) = tokio::io::duplex(1 << 16);
    let acceptor = acceptor.clone();
    let server = async move {
        let mut io = acceptor.accept(there).await?;
        let byte = io.read_u8().await?;
        io.write_u8(byte).await?;
        io.shutdown().await
    };
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let client = async {
        let mut io = connector.connect(name, here).await?;
        assert_eq!(io.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        io.write_u8(7).await?;
        io.read_u8().await
    };
    let (_served, answer) = tokio::join!(server, client);
    match answer {
        Ok(byte) => {
            assert_eq!(byte, 7);
            Ok(())
        }
        Err(error) => Err(fault(&error).unwrap_or_else(|| format!("not of TLS: {error}"))),
    }
}

#[tokio::test]
async fn only_whom_the_authority_vouches_for_is_let_in() {
    let dir = tempfile::tempdir().expect("a folder");
    let (ours, other) = (authority("ours"), authority("other"));
    let (store, stranger) = (Files::new(dir.path(), "store"), Files::new(dir.path(), "stranger"));
    store.write(&ours, "store", 2099);
    stranger.write(&other, "store", 2099);
    let acceptor = Acceptor::new(&store.server(&[])).expect("good files");
    assert_eq!(exchange(&acceptor, &store.client(), "localhost").await, Ok(()));

    let told = exchange(&acceptor, &store.client(), "elsewhere")
        .await
        .expect_err("another name");
    assert!(told.contains("cannot be trusted"), "{told}");
    let nobody = ClientOptions {
        identity: None,
        ..store.client()
    };
    let told = exchange(&acceptor, &nobody, "localhost").await.expect_err("no certificate");
    assert!(told.contains("none was given"), "{told}");
    let told = exchange(&acceptor, &stranger.client(), "localhost")
        .await
        .expect_err("not ours");
    assert!(told.contains("not of the given authority"), "{told}");
    let impostor = ClientOptions {
        authority: store.ca.as_path().into(),
        ..stranger.client()
    };
    let told = exchange(&acceptor, &impostor, "localhost").await.expect_err("not ours");
    assert!(told.contains("does not take the client's certificate"), "{told}");

    let named = Acceptor::new(&store.server(&["store"])).expect("good files");
    assert_eq!(exchange(&named, &store.client(), "localhost").await, Ok(()));
    let named = Acceptor::new(&store.server(&["client"])).expect("good files");
    assert!(exchange(&named, &store.client(), "localhost").await.is_err());
}

#[tokio::test]
async fn new_files_are_taken_and_the_old_authority_is_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let (before, after) = (authority("before"), authority("after"));
    let (store, late) = (Files::new(dir.path(), "store"), Files::new(dir.path(), "late"));
    store.write(&before, "store", 2099);
    late.write(&before, "late", 2099);
    let acceptor = Acceptor::new(&store.server(&[])).expect("good files");
    assert_eq!(exchange(&acceptor, &late.client(), "localhost").await, Ok(()));
    store.write(&after, "store", 2099);
    let deadline = base::MonoTime::now() + std::time::Duration::from_secs(10);
    while exchange(&acceptor, &store.client(), "localhost").await.is_err() {
        assert!(base::MonoTime::now() < deadline, "the new certificates are not used");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let late_of_new = ClientOptions {
        authority: store.ca.as_path().into(),
        ..late.client()
    };
    assert!(exchange(&acceptor, &late_of_new, "localhost").await.is_err());
}

#[test]
fn each_fault_of_a_file_is_one_clear_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let ours = authority("ours");
    let (good, old) = (Files::new(dir.path(), "good"), Files::new(dir.path(), "old"));
    good.write(&ours, "good", 2099);
    old.write(&ours, "old", 2001);
    let told = |options: ServerOptions| {
        let error = Acceptor::new(&options).err().expect("a fault");
        let line = base::log::chain(&error).to_string();
        assert!(!line.contains('\n'), "{line}");
        line
    };
    let with_key = |key: &Path| ServerOptions {
        key: key.into(),
        ..good.server(&[])
    };
    assert!(told(with_key(&old.key)).ends_with("it belongs to another"));
    assert!(told(with_key(&dir.path().join("absent"))).contains("absent: No such file"));
    assert!(told(with_key(&good.certificate)).contains("holds no private key"));
    let expired = told(old.server(&[]));
    assert!(expired.ends_with("expired at 2001-12-31 00:00:00 UTC"), "{expired}");
    let secret = std::fs::read_to_string(&good.key).expect("reads");
    let cut = dir.path().join("cut");
    std::fs::write(&cut, &secret[..secret.len() / 2]).expect("writes");
    assert!(told(with_key(&cut)).contains("section without end"));
    let bad = dir.path().join("bad");
    std::fs::write(&bad, secret.replace(|c: char| c.is_ascii_lowercase(), "!")).expect("writes");
    assert!(told(with_key(&bad)).contains("is not PEM"));
    let no_ca = ServerOptions {
        clients: Clients::Required(good.key.as_path().into()),
        ..good.server(&[])
    };
    assert!(told(no_ca).contains("holds no certificate"));
}

#[test]
fn keys_are_never_printed() {
    let pem = KeyPair::generate().expect("a key").serialize_pem();
    let text = Pem::of_option(&pem);
    assert!(matches!(text, Pem::Text(_)));
    for shown in [format!("{text}"), format!("{text:?}")] {
        assert!(!shown.contains("PRIVATE"), "{shown}");
    }
    assert_eq!(Pem::of_option("a/b.pem"), Pem::File("a/b.pem".into()));
}
