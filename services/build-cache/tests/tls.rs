//! TLS with certificates of clients: who has one that the authority signed is known by it, who has none is turned away.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blob_store::Key;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use common::start;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).expect("a name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signs")
}

/// A certificate with its key.
struct Identity {
    certificate: CertificateDer<'static>,
    key: KeyPair,
    pem: String,
}

fn identity(issuer: &Issuer, name: &str, usage: ExtendedKeyUsagePurpose) -> Identity {
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    params.extended_key_usages.push(usage);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, issuer).expect("signs");
    Identity {
        pem: certificate.pem(),
        certificate: certificate.into(),
        key,
    }
}

/// One request; `None` if the server breaks off.
fn call(addr: &str, roots: &CertificateDer<'static>, client: Option<&Identity>, method: &str, path: &str) -> Option<u16> {
    let mut store = RootCertStore::empty();
    store.add(roots.clone()).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(store);
    let config = match client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let key = PrivateKeyDer::try_from(client.key.serialize_der()).expect("a key");
            builder
                .with_client_auth_cert(vec![client.certificate.clone()], key)
                .expect("a pair")
        }
    };
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("begins");
    let mut io = StreamOwned::new(connection, TcpStream::connect(addr).expect("connects"));
    let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx");
    io.write_all(head.as_bytes()).ok()?;
    let mut answer = Vec::new();
    // Some peers close without a farewell.
    let _end = io.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("writes");
    path
}

#[test]
fn a_client_is_known_by_its_certificate() {
    let dir = tempfile::tempdir().expect("a folder");
    let (servers, clients, strangers) = (authority("servers"), authority("clients"), authority("strangers"));
    let server_id = identity(&servers, "localhost", ExtendedKeyUsagePurpose::ServerAuth);
    let [ci, other] = ["ci", "other"].map(|name| identity(&clients, name, ExtendedKeyUsagePurpose::ClientAuth));
    let stranger = identity(&strangers, "ci", ExtendedKeyUsagePurpose::ClientAuth);
    let certificate = write(dir.path(), "server.pem", &server_id.pem);
    let key = write(dir.path(), "server.key", &server_id.key.serialize_pem());
    let ca = write(dir.path(), "clients.pem", &clients.pem());
    let fingerprint = Key::sha256(&ci.certificate);
    let roots = CertificateDer::from(servers.der().to_vec());

    for is_required in [false, true] {
        let text = format!(
            "[access]\nanonymous = \"none\"\n[[access.users]]\nname = \"ci\"\ncertificate = \"{fingerprint}\"\nrole = \"write\"\n\
             instances = [\"ci\"]\n[tls]\ncertificate = {certificate:?}\nkey = {key:?}\nclient-ca = {ca:?}\nclient-role = \"read\"\n\
             client-required = {is_required}\n"
        );
        let config = write(dir.path(), "c.toml", &text);
        let data = dir.path().join(format!("data-{is_required}"));
        let server = start(&data, &["--config", config.to_str().expect("text")]);
        let call = |client, method, path| call(&server.addr, &roots, client, method, path);
        // Known by its fingerprint: writes where it may.
        assert_eq!(call(Some(&ci), "PUT", "/ci/dav/a"), Some(201));
        assert_eq!(call(Some(&ci), "PUT", "/release/dav/a"), Some(403));
        assert_eq!(call(Some(&ci), "GET", "/ci/dav/a"), Some(200));
        // Signed by the authority, but nobody's: reads.
        assert_eq!(call(Some(&other), "GET", "/ci/dav/a"), Some(200));
        assert!(matches!(call(Some(&other), "PUT", "/ci/dav/b"), Some(401 | 403)));
        // Signed by somebody else: no connection at all.
        assert_eq!(call(Some(&stranger), "GET", "/ci/dav/a"), None);
        // Without one: nobody, or no connection.
        let without = call(None, "GET", "/ci/dav/a");
        assert_eq!(without, if is_required { None } else { Some(401) });
        // In the clear there is nothing to be had.
        let mut plain = TcpStream::connect(&server.addr).expect("connects");
        plain
            .write_all(b"GET /ci/dav/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .expect("sends");
        let mut answer = Vec::new();
        let _end = plain.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
}
