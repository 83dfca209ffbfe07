//! TLS on both sides, from PEM files.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::config::PoolConfig;

/// For clients, if the pool has a certificate.
pub fn acceptor(config: &PoolConfig) -> Result<Option<TlsAcceptor>, String> {
    if config.tls_certificate.as_os_str().is_empty() || config.tls_key.as_os_str().is_empty() {
        return Ok(None);
    }
    let chain = certificates(&config.tls_certificate)?;
    let key =
        PrivateKeyDer::from_pem_file(&config.tls_key).map_err(|error| format!("read {}: {error}", config.tls_key.display()))?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if config.tls_client_ca.as_os_str().is_empty() {
        builder.with_no_client_auth()
    } else {
        let roots = Arc::new(roots(&config.tls_client_ca)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
        builder.with_client_cert_verifier(verifier.map_err(|error| error.to_string())?)
    };
    let tls = builder.with_single_cert(chain, key).map_err(|error| error.to_string())?;
    Ok(Some(TlsAcceptor::from(Arc::new(tls))))
}

/// For servers, if the pool reaches them by TLS.
pub fn connector(config: &PoolConfig) -> Result<Option<TlsConnector>, String> {
    if !config.server_tls || config.server_tls_ca.as_os_str().is_empty() {
        return Ok(None);
    }
    let tls = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(&config.server_tls_ca)?)
        .with_no_client_auth();
    Ok(Some(TlsConnector::from(Arc::new(tls))))
}

/// Name that a server at `addr` (`HOST:PORT`) must show, unless `name` is given.
pub fn server_name(addr: &str, name: &str) -> Result<ServerName<'static>, String> {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _port)| host);
    let name = if name.is_empty() {
        host.trim_matches(['[', ']'])
    } else {
        name
    };
    ServerName::try_from(name.to_owned()).map_err(|error| format!("{name:?}: {error}"))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.map_err(|error| format!("read {}: {error}", path.display()))
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let (added, _ignored) = roots.add_parsable_certificates(certificates(path)?);
    if added == 0 {
        return Err(format!("{}: no certificate of an authority", path.display()));
    }
    Ok(roots)
}
