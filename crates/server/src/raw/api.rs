//! How raw keys and values lie in a store, by API version, and which requests each version takes. Drawn in `docs/format.md`.
//!
//! | version | region key | stored value |
//! |---|---|---|
//! | V1 | the user's key | the user's value |
//! | V1TTL | the user's key | value, then the second it expires at, 8 bytes big endian, 0 for never |
//! | V2 | memcomparable form of `r`, keyspace (3 bytes), user's key: clients send the prefix | value, expiry if flagged, flag byte |

use base::{WallTime, codec};
use bytes::{BufMut, Bytes, BytesMut};
use engine::Cf;
use proto::kvrpcpb::ApiVersion as WireVersion;

use super::Error;
use crate::config::ApiVersion;
use crate::limits::KEY_BYTES_MAX;

/// First byte of every raw key of V2.
const RAW_MODE: u8 = b'r';
/// Mode and keyspace in front of a user's key of V2.
const PREFIX_LEN: usize = 4;
/// Flag of a stored value of V2: eight bytes of expiry stand before the flags.
const FLAG_EXPIRY: u8 = 1;
/// Flag of a stored value of V2: the key is deleted. Never written by us, who delete for real, but understood.
const FLAG_DELETED: u8 = 2;

/// Names of the versions in errors.
pub fn name(version: ApiVersion) -> &'static str {
    match version {
        ApiVersion::V1 => "V1",
        ApiVersion::V1Ttl => "V1TTL",
        ApiVersion::V2 => "V2",
    }
}

/// Whether a store of version `api` takes requests marked `request`. Clients of V1TTL mark theirs as V1.
pub fn check_version(api: ApiVersion, request: i32) -> Result<(), Error> {
    let fits = match (api, WireVersion::try_from(request)) {
        (ApiVersion::V1 | ApiVersion::V1Ttl, Ok(WireVersion::V1)) => true,
        (ApiVersion::V1Ttl, Ok(WireVersion::V1ttl)) => true,
        (ApiVersion::V2, Ok(WireVersion::V2)) => true,
        (_, Ok(WireVersion::V1 | WireVersion::V1ttl | WireVersion::V2) | Err(_)) => false,
    };
    if fits {
        Ok(())
    } else {
        Err(Error::ApiVersion {
            store: name(api),
            request,
        })
    }
}

/// The column family a request names: nothing means default. V2 knows no other.
pub fn check_cf(api: ApiVersion, cf: &str) -> Result<Cf, Error> {
    match (cf, api) {
        ("", _) => Ok(Cf::Default),
        ("default", ApiVersion::V1 | ApiVersion::V1Ttl) => Ok(Cf::Default),
        ("lock", ApiVersion::V1 | ApiVersion::V1Ttl) => Ok(Cf::Lock),
        ("write", ApiVersion::V1 | ApiVersion::V1Ttl) => Ok(Cf::Write),
        _ => Err(Error::Cf),
    }
}

/// Whether values may expire.
pub fn has_ttl(api: ApiVersion) -> bool {
    api != ApiVersion::V1
}

/// What requests for a store of version `api` are marked with.
pub fn wire_version(api: ApiVersion) -> WireVersion {
    match api {
        ApiVersion::V1 => WireVersion::V1,
        ApiVersion::V1Ttl => WireVersion::V1ttl,
        ApiVersion::V2 => WireVersion::V2,
    }
}

/// Region keys between which all raw keys lie; an empty end is open.
pub fn raw_range(api: ApiVersion) -> (Bytes, Bytes) {
    match api {
        ApiVersion::V1 | ApiVersion::V1Ttl => (Bytes::new(), Bytes::new()),
        ApiVersion::V2 => {
            let border = |mode: u8| Bytes::from(codec::encode_bytes(&[mode]));
            (border(RAW_MODE), border(RAW_MODE + 1))
        }
    }
}

/// Region key of a key as the client sent it. The empty key is a key like others, but not in V2, where it lacks its prefix.
pub fn region_key(api: ApiVersion, key: Bytes) -> Result<Bytes, Error> {
    if key.len() > KEY_BYTES_MAX {
        return Err(Error::KeyTooLong {
            bytes: key.len(),
            max: KEY_BYTES_MAX,
        });
    }
    match api {
        ApiVersion::V1 | ApiVersion::V1Ttl => Ok(key),
        ApiVersion::V2 if key.first() == Some(&RAW_MODE) && key.len() >= PREFIX_LEN => Ok(codec::encode_bytes(&key).into()),
        ApiVersion::V2 => Err(Error::KeyMode),
    }
}

/// The key as clients know it, from its region key.
pub fn user_key(api: ApiVersion, region_key: Bytes) -> Result<Bytes, Error> {
    match api {
        ApiVersion::V1 | ApiVersion::V1Ttl => Ok(region_key),
        ApiVersion::V2 => match codec::decode_bytes(&region_key) {
            Ok((key, taken)) if taken == region_key.len() => Ok(key.into()),
            Ok(_) | Err(_) => Err(Error::Damaged { what: "key" }),
        },
    }
}

/// Region keys of a range `[lower, upper)`, where an empty `upper` means no end. In V2 the range must stay among raw keys,
/// whose end is `s`. An empty range is fine, one turned over is not.
pub fn region_range(api: ApiVersion, lower: Bytes, upper: Bytes) -> Result<(Bytes, Bytes), Error> {
    if !upper.is_empty() && lower > upper {
        return Err(Error::RangeTurned);
    }
    match api {
        ApiVersion::V1 | ApiVersion::V1Ttl => Ok((lower, upper)),
        ApiVersion::V2 => {
            let ends_raw = upper.first() == Some(&RAW_MODE) || *upper == [RAW_MODE + 1];
            if lower.first() != Some(&RAW_MODE) || !ends_raw {
                return Err(Error::KeyMode);
            }
            Ok((codec::encode_bytes(&lower).into(), codec::encode_bytes(&upper).into()))
        }
    }
}

/// A value as it was put. `expiry` is in seconds since 1970; zero means never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub user: Bytes,
    pub expiry: u64,
}

/// When a value put now with `ttl` seconds to live expires; a `ttl` of zero means never.
pub fn expiry(api: ApiVersion, ttl: u64, now: WallTime) -> Result<u64, Error> {
    match ttl {
        0 => Ok(0),
        _ if !has_ttl(api) => Err(Error::TtlNotEnabled),
        _ => Ok(now.seconds().saturating_add(ttl)),
    }
}

/// Stored form of `value`; V1 shares its bytes.
pub fn encode_value(api: ApiVersion, value: Value) -> Bytes {
    assert!(
        value.expiry == 0 || has_ttl(api),
        "a value that expires at {} in a store without expiry",
        value.expiry
    );
    let mut stored = match api {
        ApiVersion::V1 => return value.user,
        ApiVersion::V1Ttl | ApiVersion::V2 => BytesMut::with_capacity(value.user.len() + 9),
    };
    stored.put_slice(&value.user);
    if api == ApiVersion::V1Ttl || value.expiry != 0 {
        stored.put_u64(value.expiry);
    }
    if api == ApiVersion::V2 {
        stored.put_u8(if value.expiry != 0 { FLAG_EXPIRY } else { 0 });
    }
    stored.freeze()
}

/// Reads a stored value; `None` when it has expired by `now` or is marked as deleted. Shares the bytes.
pub fn decode_value(api: ApiVersion, mut stored: Bytes, now: WallTime) -> Result<Option<Value>, Error> {
    let damaged = Error::Damaged { what: "value" };
    let has_expiry = match api {
        ApiVersion::V1 => return Ok(Some(Value { user: stored, expiry: 0 })),
        ApiVersion::V1Ttl => true,
        ApiVersion::V2 => {
            let Some((&flags, rest)) = stored.split_last() else {
                return Err(damaged);
            };
            if flags & !(FLAG_EXPIRY | FLAG_DELETED) != 0 {
                return Err(damaged);
            }
            stored.truncate(rest.len());
            if flags & FLAG_DELETED != 0 {
                return Ok(None);
            }
            flags & FLAG_EXPIRY != 0
        }
    };
    let mut expiry = 0;
    if has_expiry {
        let Some((rest, bytes)) = stored.split_last_chunk::<8>() else {
            return Err(damaged);
        };
        expiry = u64::from_be_bytes(*bytes);
        stored.truncate(rest.len());
    }
    let expired = expiry != 0 && expiry <= now.seconds();
    Ok((!expired).then_some(Value { user: stored, expiry }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ApiVersion::{V1, V1Ttl, V2};

    const NOW: WallTime = WallTime(1_000_000);

    #[test]
    fn values_lie_as_the_format_page_draws_them() {
        let cases: [(ApiVersion, &[u8], u64, &[u8]); 8] = [
            (V1, b"", 0, b""),
            (V1, b"a", 0, b"a"),
            (V1Ttl, b"", 0, b"\0\0\0\0\0\0\0\0"),
            (V1Ttl, b"a", 0x1234, b"a\0\0\0\0\0\0\x12\x34"),
            (V2, b"", 0, b"\0"),
            (V2, b"a", 0, b"a\0"),
            (V2, b"", 0x1234, b"\0\0\0\0\0\0\x12\x34\x01"),
            (V2, b"a", 0x1234, b"a\0\0\0\0\0\0\x12\x34\x01"),
        ];
        for (api, user, expiry, stored) in cases {
            let value = Value {
                user: Bytes::from_static(user),
                expiry,
            };
            assert_eq!(encode_value(api, value.clone()), stored, "{api:?} {user:?}");
            let read = decode_value(api, Bytes::from_static(stored), WallTime(0)).expect("own encoding");
            assert_eq!(read, Some(value), "{api:?} {stored:?}");
        }
    }

    #[test]
    fn a_value_is_gone_from_the_second_it_expires_at() {
        for api in [V1Ttl, V2] {
            for (expiry, lives) in [(999, false), (1000, false), (1001, true), (0, true), (u64::MAX, true)] {
                let stored = encode_value(
                    api,
                    Value {
                        user: Bytes::from_static(b"v"),
                        expiry,
                    },
                );
                assert_eq!(
                    decode_value(api, stored, NOW).expect("own encoding").is_some(),
                    lives,
                    "{api:?} {expiry}"
                );
            }
        }
        assert!(
            matches!(decode_value(V2, Bytes::from_static(b"\x02"), NOW), Ok(None)),
            "marked as deleted"
        );
        assert!(matches!(expiry(V2, u64::MAX, NOW), Ok(u64::MAX)), "a huge ttl does not wrap");
        assert!(matches!(expiry(V1, 1, NOW), Err(Error::TtlNotEnabled)));
    }

    #[test]
    fn damaged_values_are_errors() {
        let cases: [(ApiVersion, &[u8]); 7] = [
            (V1Ttl, b""),
            (V1Ttl, b"1234567"),
            (V2, b""),
            (V2, b"\x01"),
            (V2, b"1234567\x01"),
            (V2, b"\x04"),
            (V2, b"x\x80"),
        ];
        for (api, stored) in cases {
            let read = decode_value(api, Bytes::from_static(stored), NOW);
            assert!(
                matches!(read, Err(Error::Damaged { what: "value" })),
                "{api:?} {stored:?}: {read:?}"
            );
        }
    }

    #[test]
    fn keys_by_version() {
        let plain: [&[u8]; 3] = [b"", b"k", b"r\0\0\x01k"];
        for key in plain {
            for api in [V1, V1Ttl] {
                assert_eq!(region_key(api, Bytes::from_static(key)).expect("any key"), key, "{api:?}");
            }
        }
        assert_eq!(
            region_key(V2, Bytes::from_static(b"r\0\0\x01k")).expect("a raw key"),
            b"r\0\0\x01k\0\0\0\xfc"[..]
        );
        let foreign: [&[u8]; 6] = [b"", b"r", b"r\0\0", b"x\0\0\x01k", b"k", b"mDB"];
        for key in foreign {
            assert!(
                matches!(region_key(V2, Bytes::from_static(key)), Err(Error::KeyMode)),
                "{key:?}"
            );
        }
        for (len, fits) in [(KEY_BYTES_MAX, true), (KEY_BYTES_MAX + 1, false), (16 << 20, false)] {
            for api in [V1, V1Ttl, V2] {
                assert_eq!(region_key(api, vec![b'r'; len].into()).is_ok(), fits, "{api:?} {len}");
            }
        }
    }

    #[test]
    fn keys_go_back_and_forth() {
        for api in [V1, V1Ttl, V2] {
            for len in [4, 7, 8, 9, 100] {
                let key = Bytes::from(vec![RAW_MODE; len]);
                let stored = region_key(api, key.clone()).expect("a raw key");
                assert_eq!(user_key(api, stored).expect("own encoding"), key, "{api:?} {len}");
            }
        }
        assert!(matches!(
            user_key(V2, Bytes::from_static(b"r\0\0\x01k")),
            Err(Error::Damaged { what: "key" })
        ));
        let mut tailed = codec::encode_bytes(b"r\0\0\x01k");
        tailed.push(0);
        assert!(matches!(user_key(V2, tailed.into()), Err(Error::Damaged { what: "key" })));
    }

    #[test]
    fn ranges_by_version() {
        let range = |api, lower: &'static [u8], upper: &'static [u8]| {
            region_range(api, Bytes::from_static(lower), Bytes::from_static(upper))
        };
        for (lower, upper) in [(&b""[..], &b""[..]), (b"a", b""), (b"", b"b"), (b"a", b"a"), (b"a", b"b")] {
            assert_eq!(range(V1, lower, upper).expect("in order"), (lower.into(), upper.into()));
        }
        assert!(matches!(range(V1, b"b", b"a"), Err(Error::RangeTurned)));
        for (lower, upper) in [(&b"r"[..], &b"s"[..]), (b"r\0\0\x01a", b"r\0\0\x02"), (b"r\0\0\x01", b"s")] {
            let (low, high) = range(V2, lower, upper).expect("raw keys");
            assert!(low < high, "{lower:?} {upper:?}");
        }
        for (lower, upper) in [
            (&b""[..], &b""[..]),
            (b"r", b""),
            (b"", b"s"),
            (b"r", b"s\0"),
            (b"r", b"x"),
            (b"q", b"s"),
            (b"x", b"y"),
        ] {
            assert!(matches!(range(V2, lower, upper), Err(Error::KeyMode)), "{lower:?} {upper:?}");
        }
    }

    #[test]
    fn a_store_takes_requests_of_its_version() {
        use WireVersion as W;
        let cases = [
            (V1, W::V1, true),
            (V1, W::V1ttl, false),
            (V1, W::V2, false),
            (V1Ttl, W::V1, true),
            (V1Ttl, W::V1ttl, true),
        ];
        for (api, request, fits) in cases
            .into_iter()
            .chain([(V1Ttl, W::V2, false), (V2, W::V2, true), (V2, W::V1, false)])
        {
            assert_eq!(check_version(api, request as i32).is_ok(), fits, "{api:?} {request:?}");
        }
        assert!(check_version(V2, 77).is_err(), "a version that we do not know");
    }

    #[test]
    fn column_families_by_version() {
        assert!(matches!(check_cf(V1, "write"), Ok(Cf::Write)));
        assert!(matches!(check_cf(V2, ""), Ok(Cf::Default)));
        for (api, cf) in [(V1, "local"), (V1, "raft"), (V2, "default"), (V2, "lock")] {
            assert!(matches!(check_cf(api, cf), Err(Error::Cf)), "{api:?} {cf}");
        }
    }
}
