//! TLS on both sides, from PEM files.

use rustls::pki_types::ServerName;
use tls::{Acceptor, ClientOptions, Clients, Connector, Identity, ServerOptions};

use crate::config::PoolConfig;

/// For clients, if the pool has a certificate.
pub fn acceptor(config: &PoolConfig) -> Result<Option<Acceptor>, String> {
    if config.tls_certificate.as_os_str().is_empty() || config.tls_key.as_os_str().is_empty() {
        return Ok(None);
    }
    let options = ServerOptions {
        certificate: config.tls_certificate.clone().into(),
        key: config.tls_key.clone().into(),
        clients: match config.tls_client_ca.as_os_str().is_empty() {
            true => Clients::Anonymous,
            false => Clients::Required(config.tls_client_ca.clone().into()),
        },
        allowed_cn: Vec::new(),
        protocols: Vec::new(),
    };
    Acceptor::new(&options).map(Some).map_err(told)
}

/// How servers are reached, if that is by TLS.
pub fn of_servers(config: &PoolConfig) -> Option<ClientOptions> {
    if !config.server_tls || config.server_tls_ca.as_os_str().is_empty() {
        return None;
    }
    let has_identity = !config.server_tls_certificate.as_os_str().is_empty();
    Some(ClientOptions {
        authority: config.server_tls_ca.clone().into(),
        identity: has_identity.then(|| Identity {
            certificate: config.server_tls_certificate.clone().into(),
            key: config.server_tls_key.clone().into(),
        }),
    })
}

/// For servers, if the pool reaches them by TLS.
pub fn connector(config: &PoolConfig) -> Result<Option<Connector>, String> {
    let options = of_servers(config);
    options.map(|options| Connector::new(&options, &[]).map_err(told)).transpose()
}

fn told(error: tls::Error) -> String {
    base::log::chain(&error).to_string()
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
