//! The side that connects.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::accept::{mismatch, protocols};
use crate::live::Live;
use crate::{Error, Pem, provider};

/// A certificate with those above it, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub certificate: Pem,
    pub key: Pem,
}

/// How a client speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// The authority that servers' certificates must be of. Their names must be those by which the servers are dialled.
    pub authority: Pem,
    /// What the client shows to servers that ask who it is.
    pub identity: Option<Identity>,
}

impl ClientOptions {
    /// Of three options as users write them: each a file or PEM text, empty where it is not given. `None` if none is. Errors tell what is
    /// missing.
    pub fn of_options(ca: &str, cert: &str, key: &str) -> Result<Option<ClientOptions>, &'static str> {
        if cert.is_empty() != key.is_empty() {
            return Err("cert and key go together");
        }
        match (ca.is_empty(), cert.is_empty()) {
            (true, true) => Ok(None),
            (true, false) => Err("cert and key need ca beside them, by which servers are known"),
            (false, has_no_identity) => Ok(Some(ClientOptions {
                authority: Pem::of_option(ca),
                identity: (!has_no_identity).then(|| Identity {
                    certificate: Pem::of_option(cert),
                    key: Pem::of_option(key),
                }),
            })),
        }
    }

    fn make(&self, wanted: &[&str]) -> Result<ClientConfig, Error> {
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let builder = builder.with_root_certificates(self.authority.authorities()?);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(Identity { certificate, key }) => builder
                .with_client_auth_cert(certificate.chain()?, key.key()?)
                .map_err(|error| mismatch(certificate, key, &error))?,
        };
        config.alpn_protocols = protocols(wanted);
        Ok(config)
    }

    fn sources(&self) -> Vec<&Pem> {
        let identity = self.identity.iter().flat_map(|one| [&one.certificate, &one.key]);
        [&self.authority].into_iter().chain(identity).collect()
    }
}

/// Speaks TLS on connections that are made. Clones are one.
#[derive(Clone)]
pub struct Connector(Arc<Live<ClientConfig>>);

impl Connector {
    /// Reads what the options name. Errors tell which of it cannot be used, and why. `protocols` as in [`crate::ServerOptions`].
    pub fn new(options: &ClientOptions, protocols: &'static [&'static str]) -> Result<Connector, Error> {
        let made_of = options.clone();
        let live = Live::new(options.sources(), move || made_of.make(protocols))?;
        Ok(Connector(Arc::new(live)))
    }

    /// The handshake, with the certificates of now, to a server that must have `name` in its certificate.
    pub async fn connect<I: AsyncRead + AsyncWrite + Unpin>(&self, name: ServerName<'static>, io: I) -> io::Result<TlsStream<I>> {
        TlsConnector::from(self.0.current()).connect(name, io).await
    }
}
