//! The listening side.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{Accept, TlsAcceptor};

use crate::live::Live;
use crate::names::AllowedNames;
use crate::{Error, Pem, provider};

/// Whether clients show a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clients {
    /// They are not asked for one.
    Anonymous,
    /// They may; one that they show must be of this authority.
    Optional(Pem),
    /// They must have one of this authority.
    Required(Pem),
}

/// How a listener speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// The server's certificate and those above it.
    pub certificate: Pem,
    /// The key of it.
    pub key: Pem,
    pub clients: Clients,
    /// Common names of certificates that clients may show; empty: any that the authority vouches for.
    pub allowed_cn: Vec<String>,
    /// Protocols offered, the preferred first, such as `h2`; empty: none is negotiated.
    pub protocols: Vec<&'static str>,
}

impl ServerOptions {
    fn make(&self) -> Result<ServerConfig, Error> {
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let builder = match &self.clients {
            Clients::Anonymous => builder.with_no_client_auth(),
            Clients::Optional(authority) | Clients::Required(authority) => {
                let roots = Arc::new(authority.authorities()?);
                let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                if matches!(self.clients, Clients::Optional(_)) {
                    verifier = verifier.allow_unauthenticated();
                }
                let inner = verifier.build().map_err(|error| Error::Authority {
                    file: authority.to_string(),
                    reason: error.to_string(),
                })?;
                let allowed = self.allowed_cn.clone();
                builder.with_client_cert_verifier(match allowed.is_empty() {
                    true => inner,
                    false => Arc::new(AllowedNames { inner, allowed }),
                })
            }
        };
        let made = builder.with_single_cert(self.certificate.chain()?, self.key.key()?);
        let mut config = made.map_err(|error| mismatch(&self.certificate, &self.key, &error))?;
        config.alpn_protocols = protocols(&self.protocols);
        Ok(config)
    }

    fn sources(&self) -> Vec<&Pem> {
        let authority = match &self.clients {
            Clients::Anonymous => None,
            Clients::Optional(authority) | Clients::Required(authority) => Some(authority),
        };
        [&self.certificate, &self.key].into_iter().chain(authority).collect()
    }
}

/// Takes connections by TLS. Clones are one.
#[derive(Clone)]
pub struct Acceptor(Arc<Live<ServerConfig>>);

impl Acceptor {
    /// Reads what the options name. Errors tell which of it cannot be used, and why.
    pub fn new(options: &ServerOptions) -> Result<Acceptor, Error> {
        let made_of = options.clone();
        let live = Live::new(options.sources(), move || made_of.make())?;
        Ok(Acceptor(Arc::new(live)))
    }

    /// The handshake of one connection, with the certificates of now. It has no bound in time of its own.
    pub fn accept<I: AsyncRead + AsyncWrite + Unpin>(&self, io: I) -> Accept<I> {
        TlsAcceptor::from(self.0.current()).accept(io)
    }
}

pub(crate) fn protocols(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

pub(crate) fn mismatch(certificate: &Pem, key: &Pem, error: &rustls::Error) -> Error {
    let reason = match error {
        rustls::Error::InconsistentKeys(_) => "it belongs to another".to_owned(),
        other => other.to_string(),
    };
    Error::Mismatch {
        certificate: certificate.to_string(),
        key: key.to_string(),
        reason,
    }
}
