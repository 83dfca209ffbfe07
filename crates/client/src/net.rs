//! Connections: one form for addresses, one set of options.

use std::time::Duration;

use tls::Dialer;
use tonic::transport::{Channel, Endpoint};

use crate::Error;

/// Time to make a connection. A store that does not accept within it is treated as gone.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// A connection that is silent for this long is asked for a sign of life, and cut if none comes.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_ANSWER_MAX: Duration = Duration::from_secs(3);
/// Bytes under way per stream and per connection; loopback and data-centre links fill these.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// `host:port` or a URL, as a URL.
pub(crate) fn url(dialer: &Dialer, address: &str) -> String {
    match address.contains("://") {
        true => address.trim_end_matches('/').to_owned(),
        false => dialer.url(address),
    }
}

/// `address` may be a URL of either scheme; but whoever writes `https` wants TLS.
fn endpoint(dialer: &Dialer, address: &str) -> Result<Endpoint, Error> {
    let bad = || Error::BadAddress {
        address: address.to_owned(),
    };
    if address.starts_with("https://") && !dialer.is_secure() {
        return Err(Error::Tls {
            address: address.to_owned(),
            what: "no authority is given by which the server's certificate could be known".to_owned(),
        });
    }
    let endpoint = dialer.endpoint(address).map_err(|_| bad())?;
    if endpoint.uri().port_u16().is_none() {
        return Err(bad());
    }
    Ok(endpoint
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_MAX)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER_MAX)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW))
}

/// A connection that is made when first used, and made again when it breaks. Errors only for an address that cannot be one.
pub(crate) fn lazy(dialer: &Dialer, address: &str) -> Result<Channel, Error> {
    Ok(dialer.connect_lazy(endpoint(dialer, address)?))
}

/// Whether a connection can be made now.
pub(crate) async fn reachable(dialer: &Dialer, address: &str) -> bool {
    match endpoint(dialer, address) {
        Ok(endpoint) => dialer.connect(endpoint).await.is_ok(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_hosts_with_ports() {
        for good in [
            "127.0.0.1:2379",
            "http://127.0.0.1:2379",
            "http://localhost:2379/",
            "[::1]:2379",
            "pd-0.cluster:2379",
        ] {
            assert!(lazy(&Dialer::plain(), good).is_ok(), "{good}");
        }
        for bad in ["", "127.0.0.1", "http://", "a b:1", "http://host:port"] {
            assert!(matches!(lazy(&Dialer::plain(), bad), Err(Error::BadAddress { .. })), "{bad}");
        }
        let told = lazy(&Dialer::plain(), "https://127.0.0.1:2379").err();
        assert!(matches!(told, Some(Error::Tls { .. })), "{told:?}");
    }
}
