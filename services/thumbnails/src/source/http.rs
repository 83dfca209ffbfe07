//! Sources on web servers, with a guard against requests that are forged through us.
//!
//! Names are resolved by a resolver of our own, which returns only addresses that the guard allows, and these are what the client dials:
//! no second look-up can bring another. Redirects are followed here, not by the client, and each is checked as the first address was.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::{HeaderMap, HeaderName, header};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Response, StatusCode};
use url::{Host, Url};

use super::guard::Guard;
use super::{Fetched, SourceError, Validators, Want};
use crate::config::HttpConfig;

/// Web servers.
pub struct Http {
    client: Client,
    guard: Guard,
    hosts: Vec<String>,
    redirects_max: usize,
}

/// A name whose every address is refused.
#[derive(Debug, thiserror::Error)]
#[error("{0} has no address that may be dialled")]
struct NoAddress(String);

struct Guarded(Guard);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|address| guard.allows(address.ip())).collect();
            match allowed.is_empty() {
                true => Err(NoAddress(name.as_str().to_owned()).into()),
                false => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

impl Http {
    /// As configured; none if it is off.
    pub fn new(config: &HttpConfig) -> anyhow::Result<Option<Http>> {
        if !config.enabled {
            return Ok(None);
        }
        // The process may have one already, from another client.
        let _is_set_already = rustls::crypto::ring::default_provider().install_default();
        let guard = Guard::new(config);
        let client = Client::builder()
            .user_agent(&config.user_agent)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(config.connect_timeout.0)
            .pool_max_idle_per_host(config.idle_max)
            .dns_resolver(Arc::new(Guarded(guard)))
            .build()
            .context("set up the HTTP client")?;
        Ok(Some(Http {
            client,
            guard,
            hosts: config.allowed_hosts.clone(),
            redirects_max: config.redirects_max,
        }))
    }

    /// Brings what is at `address`.
    pub async fn fetch(&self, address: &str, want: &Want<'_>) -> Result<Fetched, SourceError> {
        let mut url = Url::parse(address).map_err(|error| SourceError::Address(error.to_string()))?;
        for _ in 0..=self.redirects_max {
            self.check(&url)?;
            let response = self.send(&url, want).await?;
            match response.status() {
                status if status.is_redirection() && status != StatusCode::NOT_MODIFIED => url = target(&url, &response)?,
                _ => return read(response, want).await,
            }
        }
        Err(SourceError::Refused(format!("more than {} redirects", self.redirects_max)))
    }

    /// What can be said before a name is resolved.
    fn check(&self, url: &Url) -> Result<(), SourceError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(SourceError::Refused(format!("the scheme {}", url.scheme())));
        }
        // A number in the place of a name never meets the resolver. The parser has read all ways to write one, octal and hexadecimal too.
        let literal = match url.host() {
            None => return Err(SourceError::Address("no host".into())),
            Some(Host::Domain(_)) => None,
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        };
        if let Some(address) = literal
            && !self.guard.allows(address)
        {
            return Err(SourceError::Refused(format!("the address {address}")));
        }
        let host = url.host_str().unwrap_or_default();
        match self.hosts.is_empty() || self.hosts.iter().any(|allowed| matches(allowed, host)) {
            true => Ok(()),
            false => Err(SourceError::Refused(format!("the host {host}"))),
        }
    }

    async fn send(&self, url: &Url, want: &Want<'_>) -> Result<Response, SourceError> {
        let mut request = self.client.get(url.clone()).header(header::ACCEPT, "image/*,*/*;q=0.8");
        let known = want.known;
        if let Some(last) = want.start.and_then(|len| len.checked_sub(1)) {
            request = request.header(header::RANGE, format!("bytes=0-{last}"));
        }
        if let Some(etag) = known.and_then(|known| known.etag.as_deref()) {
            request = request.header(header::IF_NONE_MATCH, etag);
        } else if let Some(at) = known.and_then(|known| known.last_modified.as_deref()) {
            request = request.header(header::IF_MODIFIED_SINCE, at);
        }
        request.send().await.map_err(|error| failure(&error))
    }
}

fn target(from: &Url, response: &Response) -> Result<Url, SourceError> {
    let location = response
        .headers()
        .get(header::LOCATION)
        .and_then(|location| location.to_str().ok());
    let location = location.ok_or_else(|| SourceError::Status(response.status().as_u16()))?;
    from.join(location).map_err(|error| SourceError::Address(error.to_string()))
}

async fn read(response: Response, want: &Want<'_>) -> Result<Fetched, SourceError> {
    let validators = validators(response.headers());
    let bytes_max = want.bytes_max;
    let mut total = match response.status() {
        StatusCode::NOT_MODIFIED => return Ok(Fetched::Unchanged(validators)),
        StatusCode::OK => response.content_length(),
        StatusCode::PARTIAL_CONTENT if want.start.is_some() => total_of_part(response.headers())?,
        StatusCode::NOT_FOUND | StatusCode::GONE => return Err(SourceError::NotFound),
        other => return Err(SourceError::Status(other.as_u16())),
    };
    if total.is_some_and(|total| total > bytes_max) {
        return Err(SourceError::TooLarge { max: bytes_max });
    }
    let expected = total.unwrap_or(64 << 10).min(want.start.unwrap_or(u64::MAX));
    let mut bytes = BytesMut::with_capacity(expected as usize);
    let mut body = response.bytes_stream();
    while let Some(part) = body.next().await {
        let part: Bytes = part.map_err(|error| failure(&error))?;
        if (bytes.len() + part.len()) as u64 > bytes_max {
            return Err(SourceError::TooLarge { max: bytes_max });
        }
        bytes.extend_from_slice(&part);
        // A server that knows no ranges sends all; the rest is left where it is, with its connection.
        if want.start.is_some_and(|start| bytes.len() as u64 >= start) {
            return Ok(Fetched::Found {
                bytes: bytes.freeze(),
                validators,
                total,
            });
        }
    }
    // The end was reached.
    total = total.or(Some(bytes.len() as u64));
    Ok(Fetched::Found {
        bytes: bytes.freeze(),
        validators,
        total,
    })
}

/// What `Content-Range` says of the whole, if the part is the start that was asked for.
fn total_of_part(headers: &HeaderMap) -> Result<Option<u64>, SourceError> {
    let range = headers.get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let total = range
        .and_then(|range| range.strip_prefix("bytes 0-"))
        .and_then(|range| range.split_once('/'))
        .ok_or(SourceError::Status(StatusCode::PARTIAL_CONTENT.as_u16()))?
        .1;
    Ok(total.parse().ok())
}

fn validators(headers: &HeaderMap) -> Validators {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Validators {
        etag: text(header::ETAG),
        last_modified: text(header::LAST_MODIFIED),
        cache_control: text(header::CACHE_CONTROL),
        expires: text(header::EXPIRES),
    }
}

/// `*.example.com` allows every name below it, `example.com` itself alone.
fn matches(allowed: &str, host: &str) -> bool {
    let host = host.trim_end_matches('.');
    match allowed.strip_prefix("*.") {
        Some(parent) => host
            .to_ascii_lowercase()
            .strip_suffix(&parent.to_ascii_lowercase())
            .is_some_and(|start| start.ends_with('.')),
        None => allowed.eq_ignore_ascii_case(host),
    }
}

fn failure(error: &reqwest::Error) -> SourceError {
    if error.is_timeout() {
        return SourceError::Timeout;
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(refused) = inner.downcast_ref::<NoAddress>() {
            return SourceError::Refused(refused.to_string());
        }
        cause = inner.source();
    }
    SourceError::Down(base::log::chain(error).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(set: impl FnOnce(&mut HttpConfig)) -> Http {
        let mut config = HttpConfig::default();
        set(&mut config);
        Http::new(&config).expect("valid").expect("is on")
    }

    #[tokio::test]
    async fn every_way_to_write_an_inner_address_is_refused() {
        let http = http(|_| ());
        for address in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://0x7f.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[::]/",
            "http://0.0.0.0/",
            "http://0/",
            "http://169.254.169.254/latest",
            "http://[fd00::1]/",
            "http://10.0.0.1:8080/",
            "http://localhost/",
            "http://user:pass@127.0.0.1/",
            "http://①②⑦.0.0.1/",
            "http://127.0.0.1:80\\@example.com/",
        ] {
            let refused = http.fetch(address, &Want::whole(100)).await;
            assert!(matches!(refused, Err(SourceError::Refused(_))), "{address}: {refused:?}");
        }
        for address in ["http://", "http:///x", "http://[::1", "http://a b/"] {
            assert!(http.fetch(address, &Want::whole(100)).await.is_err(), "{address}");
        }
        assert!(matches!(
            http.check(&Url::parse("file:///etc/passwd").expect("a URL")),
            Err(SourceError::Refused(_))
        ));
    }

    #[test]
    fn hosts_are_allowed_by_name() {
        let http = http(|config| config.allowed_hosts = vec!["a.example".into(), "*.b.example".into()]);
        let allows = |host: &str| http.check(&Url::parse(&format!("http://{host}/x")).expect("a URL")).is_ok();
        assert!(allows("a.example") && allows("A.Example:8080") && allows("x.b.example") && allows("x.y.b.example"));
        assert!(
            !allows("b.example")
                && !allows("ab.example")
                && !allows("a.example.evil")
                && !allows("1.1.1.1")
                && !allows("xb.example")
        );
    }
}
