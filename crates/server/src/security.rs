//! TLS of a process: what its listeners show and ask for, and how it dials others. All of a cluster speak it, or nobody.

use tls::{Acceptor, ClientOptions, Clients, Dialer, Identity, Pem, ServerOptions};

use crate::config::SecurityConfig;

/// Protocols on every port: gRPC, and HTTP/1.1 for people beside it.
const PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];

/// As configured; `Default` is without encryption. Clones look at the same files.
#[derive(Clone, Default)]
pub struct Security {
    /// For the ports of gRPC.
    pub acceptor: Option<Acceptor>,
    /// For the status port.
    pub status_acceptor: Option<Acceptor>,
    pub dialer: Dialer,
    /// For clients within the process.
    pub client: Option<ClientOptions>,
}

impl Security {
    /// Reads the files. Errors tell which cannot be used, and why.
    pub fn open(config: &SecurityConfig) -> Result<Security, tls::Error> {
        if !config.is_on() {
            return Ok(Security::default());
        }
        let authority = Pem::from(config.ca_path.clone());
        let identity = Identity {
            certificate: config.cert_path.clone().into(),
            key: config.key_path.clone().into(),
        };
        let server = |clients| ServerOptions {
            certificate: identity.certificate.clone(),
            key: identity.key.clone(),
            clients,
            allowed_cn: config.cert_allowed_cn.clone(),
            protocols: PROTOCOLS.to_vec(),
        };
        let required = || Clients::Required(authority.clone());
        let of_status = match config.status_client_cert {
            true => required(),
            false => Clients::Anonymous,
        };
        let client = ClientOptions {
            authority: authority.clone(),
            identity: Some(identity.clone()),
        };
        Ok(Security {
            acceptor: Some(Acceptor::new(&server(required()))?),
            status_acceptor: Some(Acceptor::new(&server(of_status))?),
            dialer: Dialer::new(Some(&client))?,
            client: Some(client),
        })
    }
}
