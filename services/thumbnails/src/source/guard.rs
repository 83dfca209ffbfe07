//! Which addresses are dialled: those of the public internet, and what the operator opens besides.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::HttpConfig;

/// What is open besides public addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    pub loopback: bool,
    pub private: bool,
    pub link_local: bool,
}

impl Guard {
    /// As configured.
    pub fn new(config: &HttpConfig) -> Guard {
        Guard {
            loopback: config.allow_loopback,
            private: config.allow_private,
            link_local: config.allow_link_local,
        }
    }

    /// Whether `address` may be dialled.
    pub fn allows(&self, address: IpAddr) -> bool {
        match kind(address) {
            Kind::Public => true,
            Kind::Loopback => self.loopback,
            Kind::Private => self.private,
            Kind::LinkLocal => self.link_local,
            Kind::Never => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Public,
    Loopback,
    Private,
    LinkLocal,
    /// No host has it.
    Never,
}

fn kind(address: IpAddr) -> Kind {
    match address {
        IpAddr::V4(address) => kind_v4(address),
        IpAddr::V6(address) => kind_v6(address),
    }
}

/// By the registry of special addresses (RFC 6890 and those after it).
fn kind_v4(address: Ipv4Addr) -> Kind {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (127, ..) => Kind::Loopback,
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Kind::Private,
        // Shared by the customers of a carrier (RFC 6598).
        (100, 64..=127, _) => Kind::Private,
        (169, 254, _) => Kind::LinkLocal,
        // "This network", protocol assignments, documentation, relays, benchmarks, multicast, reserved, broadcast.
        (0, ..) | (192, 0, 0 | 2) | (192, 88, 99) | (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) | (224..=255, ..) => {
            Kind::Never
        }
        _ => Kind::Public,
    }
}

fn kind_v6(address: Ipv6Addr) -> Kind {
    if address.is_loopback() {
        return Kind::Loopback;
    }
    if let Some(inner) = inner_v4(address) {
        // Whatever wraps an address of IPv4 gets what that one gets.
        return kind_v4(inner);
    }
    let segments = address.segments();
    match segments[0] {
        0xfc00..=0xfdff => Kind::Private,
        0xfe80..=0xfebf => Kind::LinkLocal,
        // Site-local, which was given up.
        0xfec0..=0xfeff => Kind::Private,
        0xff00..=0xffff => Kind::Never,
        // Documentation, twice.
        0x2001 if segments[1] == 0x0db8 => Kind::Never,
        0x3fff if segments[1] <= 0x0fff => Kind::Never,
        // Protocol assignments: ORCHID, benchmarks and the like.
        0x2001 if segments[1] <= 0x01ff => Kind::Never,
        // Nothing else below the global unicast addresses is anybody's.
        0x2000..=0x3fff => Kind::Public,
        _ => Kind::Never,
    }
}

/// The address of IPv4 in one of IPv6: mapped, compatible, translated (NAT64, both prefixes), 6to4, Teredo, ISATAP.
fn inner_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let from = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => from(high, low),
        [0, 0, 0, 0, 0xffff, 0, high, low] => from(high, low),
        [0x64, 0xff9b, 0 | 1, .., high, low] => from(high, low),
        [0x2002, high, low, ..] => from(high, low),
        // Teredo keeps the client inverted.
        [0x2001, 0, .., high, low] => from(!high, !low),
        [.., 0 | 0x0200, 0x5efe, high, low] => from(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn must_parse(text: &str) -> IpAddr {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn addresses_that_are_not_public_are_refused() {
        let inner = [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "192.168.255.255",
            "169.254.169.254",
            "169.254.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "192.88.99.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
        ];
        let outer = [
            "::1",
            "::",
            "fe80::1",
            "febf::1",
            "fc00::1",
            "fd12:3456::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "3fff::1",
            "2001:2::1",
            "2001:10::1",
            "100::1",
            "4000::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a00:1",
            "2002:7f00:1::",
            "2002:c0a8:1::1",
            "2001:0:1:2:3:4:80ff:fffe",
            "2001:4860::5efe:7f00:1",
            "2001:4860::200:5efe:a00:1",
        ];
        for text in inner.iter().chain(&outer) {
            assert!(!Guard::default().allows(must_parse(text)), "{text}");
        }
    }

    #[test]
    fn public_addresses_are_dialled() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "169.253.0.1",
            "192.0.1.1",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(Guard::default().allows(must_parse(text)), "{text}");
        }
    }

    #[test]
    fn each_switch_opens_its_own() {
        let loopback = Guard {
            loopback: true,
            ..Guard::default()
        };
        assert!(loopback.allows(must_parse("127.0.0.1")) && loopback.allows(must_parse("::ffff:127.0.0.1")));
        assert!(!loopback.allows(must_parse("10.0.0.1")) && !loopback.allows(must_parse("169.254.1.1")));
        let private = Guard {
            private: true,
            ..Guard::default()
        };
        assert!(private.allows(must_parse("100.64.1.1")) && private.allows(must_parse("fd00::1")));
        let all = Guard {
            loopback: true,
            private: true,
            link_local: true,
        };
        assert!(
            all.allows(must_parse("169.254.169.254"))
                && !all.allows(must_parse("255.255.255.255"))
                && !all.allows(must_parse("0.0.0.0"))
        );
    }
}
