//! How often one client may ask: a rate over time, and a burst above it (the generic cell rate algorithm, ITU-T I.371).
//!
//! All that is kept of a client is a time in one of a fixed number of places, which its name hashes to by a key of this process. So the
//! memory is fixed, nothing is locked, and nobody can choose to share a place with another.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::MonoTime;
use http::{HeaderMap, HeaderName};

use crate::config::ClientsConfig;

/// Half a megabyte. Of a thousand clients at once, one in 64 shares its place.
const PLACES: usize = 1 << 16;

/// The limit of each client.
pub struct Rate {
    /// Time that a request takes of a client's allowance, in nanoseconds.
    step: u64,
    /// Allowance that may be used ahead.
    ahead: u64,
    header: Option<HeaderName>,
    start: MonoTime,
    hasher: RandomState,
    /// When the allowance of the clients of a place is whole again, in nanoseconds since `start`.
    places: Box<[AtomicU64]>,
}

impl Rate {
    /// As configured; none if there is no limit.
    pub fn new(config: &ClientsConfig) -> Option<Rate> {
        if config.rate <= 0.0 {
            return None;
        }
        let step = (1e9 / config.rate).max(1.0) as u64;
        Some(Rate {
            step,
            ahead: step.saturating_mul(u64::from(config.burst)),
            header: config.header.parse().ok().filter(|_| !config.header.is_empty()),
            start: MonoTime::now(),
            hasher: RandomState::new(),
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    /// Takes a request off the allowance of its client; if there is none left, how long until there is.
    pub fn check(&self, headers: &HeaderMap, peer: IpAddr, now: MonoTime) -> Result<(), Duration> {
        match self.header.as_ref().and_then(|header| headers.get(header)) {
            Some(token) => self.take(&("token", token.as_bytes()), now),
            None => self.take(&network(peer), now),
        }
    }

    fn take(&self, client: &impl Hash, now: MonoTime) -> Result<(), Duration> {
        let now = now.since(self.start).as_nanos() as u64;
        let place = &self.places[self.hasher.hash_one(client) as usize % PLACES];
        let mut wait = 0;
        let taken = place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |whole| {
            let next = whole.max(now) + self.step;
            wait = next.saturating_sub(now + self.ahead);
            (wait == 0).then_some(next)
        });
        taken.map(drop).map_err(|_| Duration::from_nanos(wait))
    }
}

/// Who has one address of a network of IPv6 has all of them.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn rate(rate: f64, burst: u32, header: &str) -> Rate {
        let config = ClientsConfig {
            rate,
            burst,
            header: header.into(),
        };
        Rate::new(&config).expect("is on")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_burst_goes_through_and_then_the_rate() {
        let rate = rate(10.0, 3, "");
        let (none, start) = (HeaderMap::new(), rate.start);
        let ask = |ms: u64| rate.check(&none, ip("1.2.3.4"), start + Duration::from_millis(ms));
        assert_eq!([ask(0), ask(0), ask(0)], [Ok(()); 3]);
        assert_eq!(ask(0), Err(Duration::from_millis(100)));
        assert_eq!(ask(40), Err(Duration::from_millis(60)), "a refusal costs nothing");
        assert_eq!([ask(100), ask(200)], [Ok(()); 2]);
        assert!(ask(250).is_err());
        assert_eq!(
            [ask(5000), ask(5000), ask(5000)],
            [Ok(()); 3],
            "a pause brings the burst back, and no more"
        );
        assert!(ask(5000).is_err());
    }

    #[test]
    fn clients_are_networks_or_tokens() {
        let rate = rate(1.0, 1, "x-client");
        let now = rate.start;
        let token =
            |token: &'static str| HeaderMap::from_iter([(HeaderName::from_static("x-client"), HeaderValue::from_static(token))]);
        let none = HeaderMap::new();
        assert!(rate.check(&none, ip("2001:db8::1"), now).is_ok());
        assert!(rate.check(&none, ip("2001:db8::ffff:1"), now).is_err(), "the same 64 bits");
        assert!(rate.check(&none, ip("2001:db8:0:1::1"), now).is_ok());
        assert!(rate.check(&none, ip("9.9.9.9"), now).is_ok());
        assert!(
            rate.check(&none, ip("::ffff:9.9.9.9"), now).is_err(),
            "one address in two forms"
        );
        assert!(rate.check(&token("a"), ip("9.9.9.9"), now).is_ok());
        assert!(rate.check(&token("a"), ip("8.8.8.8"), now).is_err());
        assert!(rate.check(&token("b"), ip("8.8.8.8"), now).is_ok());
    }

    #[test]
    fn no_rate_is_no_limit() {
        assert!(Rate::new(&ClientsConfig::default()).is_none());
    }
}
