//! Connections of gRPC, in the clear or by TLS: whoever dials need not know which.

use std::fmt;
use std::io;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::{ClientOptions, Connector, Error};

/// Dials by TLS if it was made with options, else in the clear. Clones are one.
#[derive(Clone, Default)]
pub struct Dialer(Option<Connector>);

impl Dialer {
    /// Without encryption.
    pub fn plain() -> Dialer {
        Dialer(None)
    }

    /// By TLS with these options, if there are any. Errors tell which of the files cannot be used, and why.
    pub fn new(options: Option<&ClientOptions>) -> Result<Dialer, Error> {
        let connector = options.map(|options| Connector::new(options, &["h2"])).transpose()?;
        Ok(Dialer(connector))
    }

    pub fn is_secure(&self) -> bool {
        self.0.is_some()
    }

    /// What URLs begin with that are dialled so.
    pub fn scheme(&self) -> &'static str {
        match self.0 {
            Some(_) => "https",
            None => "http",
        }
    }

    /// `host:port` or a URL, as a URL with the right scheme.
    pub fn url(&self, address: &str) -> String {
        format!("{}://{}", self.scheme(), without_scheme(address))
    }

    /// Where to connect, for options to be set; `address` as in [`Dialer::url`]. Errors if it is none.
    pub fn endpoint(&self, address: &str) -> Result<Endpoint, tonic::transport::Error> {
        // The scheme of the connection is tonic's business, which shall not bring TLS of its own; that of the requests is the server's.
        let endpoint = Endpoint::from_shared(format!("http://{}", without_scheme(address)))?;
        match self.0 {
            None => Ok(endpoint),
            Some(_) => {
                let authority = endpoint.uri().authority().map(|authority| authority.as_str());
                let origin = Uri::builder().scheme("https").authority(authority.unwrap_or_default());
                let origin = origin.path_and_query("/").build();
                Ok(endpoint.origin(origin.expect("the parts are those of a URL")))
            }
        }
    }

    /// Connects now.
    pub async fn connect(&self, endpoint: Endpoint) -> Result<Channel, tonic::transport::Error> {
        match &self.0 {
            None => endpoint.connect().await,
            Some(connector) => endpoint.connect_with_connector(Secure(connector.clone())).await,
        }
    }

    /// Connects when first used, and again when the connection broke.
    pub fn connect_lazy(&self, endpoint: Endpoint) -> Channel {
        match &self.0 {
            None => endpoint.connect_lazy(),
            Some(connector) => endpoint.connect_with_connector_lazy(Secure(connector.clone())),
        }
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dialer({})", self.scheme())
    }
}

fn without_scheme(address: &str) -> &str {
    let address = address
        .strip_prefix("http://")
        .or_else(|| address.strip_prefix("https://"))
        .unwrap_or(address);
    address.trim_end_matches('/')
}

/// Makes the connections of a channel.
struct Secure(Connector);

impl tower::Service<Uri> for Secure {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.0.clone();
        async move {
            let bad = || io::Error::new(io::ErrorKind::InvalidInput, "not the address of a host with a port");
            let host = uri.host().ok_or_else(bad)?.trim_matches(['[', ']']);
            let port = uri.port_u16().ok_or_else(bad)?;
            let name = ServerName::try_from(host.to_owned()).map_err(|_| bad())?;
            let tcp = TcpStream::connect((host, port)).await?;
            tcp.set_nodelay(true)?;
            connector.connect(name, tcp).await.map(TokioIo::new)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_the_scheme_of_the_dialer() {
        let plain = Dialer::plain();
        for address in ["a:1", "http://a:1", "https://a:1/"] {
            assert_eq!(plain.url(address), "http://a:1");
            assert_eq!(plain.endpoint(address).expect("an address").uri().to_string(), "http://a:1/");
        }
        assert!(plain.endpoint("a b:1").is_err());
    }
}
