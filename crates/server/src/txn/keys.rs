//! Which keys a transaction may name, by the store's API version and the request's. Keys come with their prefix, as clients send them.
//!
//! | store | request | keys |
//! |---|---|---|
//! | V1 | V1 | any |
//! | V1TTL | any | none: its values all carry an expiry |
//! | V2 | V2 | `x`, keyspace (3 bytes), user's key |
//! | V2 | V1 | those of TiDB, which begin with `m` or `t` |

use bytes::Bytes;
use proto::kvrpcpb::ApiVersion as WireVersion;
use txn::Key;

use super::{Error, Result};
use crate::config::ApiVersion;
use crate::limits::{BATCH_KEYS_MAX, KEY_BYTES_MAX};
use crate::raw::api;

/// First byte of every key of a transaction in V2.
const TXN_MODE: u8 = b'x';
/// Mode and keyspace in front of a user's key of V2.
const PREFIX_LEN: usize = 4;

/// The keys that a request may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    All,
    Keyspace,
    Tidb,
}

impl Keys {
    /// `request` is the API version that the client marked its request with.
    pub fn of(store: ApiVersion, request: i32) -> Result<Keys> {
        match (store, WireVersion::try_from(request)) {
            (ApiVersion::V1Ttl, _) => Err(Error::NoTransactions),
            (ApiVersion::V1, Ok(WireVersion::V1)) => Ok(Keys::All),
            (ApiVersion::V2, Ok(WireVersion::V2)) => Ok(Keys::Keyspace),
            (ApiVersion::V2, Ok(WireVersion::V1)) => Ok(Keys::Tidb),
            (ApiVersion::V1 | ApiVersion::V2, Ok(_) | Err(_)) => Err(Error::ApiVersion {
                store: api::name(store),
                request,
            }),
        }
    }

    /// One key.
    pub fn key(self, key: &[u8]) -> Result<Key> {
        if key.len() > KEY_BYTES_MAX {
            return Err(Error::KeyTooLong {
                bytes: key.len(),
                max: KEY_BYTES_MAX,
            });
        }
        let long_enough = self != Keys::Keyspace || key.len() >= PREFIX_LEN;
        match self.are_of_mode(key.first()) && long_enough {
            true => Ok(Key::from_user(key)),
            false => Err(Error::KeyMode),
        }
    }

    /// Whether [`Keys::key`] makes such a key. (The encoding leaves a key's first byte as it is.)
    pub fn may_name(self, key: &Key) -> bool {
        self.are_of_mode(key.encoded().first())
    }

    fn are_of_mode(self, first: Option<&u8>) -> bool {
        match self {
            Keys::All => true,
            Keys::Keyspace => first == Some(&TXN_MODE),
            Keys::Tidb => matches!(first, Some(b'm' | b't')),
        }
    }

    pub fn keys(self, keys: &[Bytes]) -> Result<Vec<Key>> {
        check_batch(keys.len())?;
        keys.iter().map(|key| self.key(key)).collect()
    }

    /// A range `[lower, upper)` in encoded form; an empty `upper` means no end, which only [`Keys::All`] has.
    pub fn range(self, lower: &[u8], upper: &[u8]) -> Result<(Bytes, Bytes)> {
        if !upper.is_empty() && lower > upper {
            return Err(Error::RangeTurned);
        }
        let begins = |key: &[u8], modes: &[u8]| key.first().is_some_and(|mode| modes.contains(mode));
        let fits = match self {
            Keys::All => true,
            Keys::Keyspace => begins(lower, b"x") && (begins(upper, b"x") || upper == b"y"),
            Keys::Tidb => begins(lower, b"mt") && (begins(upper, b"mt") || upper == b"n" || upper == b"u"),
        };
        if fits {
            Ok((border(lower), border(upper)))
        } else {
            Err(Error::KeyMode)
        }
    }
}

/// The border of a range; an empty one stays open.
pub fn border(key: &[u8]) -> Bytes {
    if key.is_empty() {
        Bytes::new()
    } else {
        Key::from_user(key).encoded().clone()
    }
}

pub fn check_batch(count: usize) -> Result<()> {
    if count > BATCH_KEYS_MAX {
        return Err(Error::BatchTooLong {
            count,
            max: BATCH_KEYS_MAX,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ApiVersion::{V1, V1Ttl, V2};

    #[test]
    fn versions_of_stores_and_requests() {
        let cases = [
            (V1, 0, Some(Keys::All)),
            (V1, 1, None),
            (V1, 2, None),
            (V1Ttl, 0, None),
            (V1Ttl, 1, None),
            (V2, 0, Some(Keys::Tidb)),
            (V2, 1, None),
            (V2, 2, Some(Keys::Keyspace)),
            (V2, 9, None),
        ];
        for (store, request, keys) in cases {
            assert_eq!(Keys::of(store, request).ok(), keys, "{store:?} {request}");
        }
    }

    #[test]
    fn keys_by_mode() {
        let cases: [(Keys, &[u8], bool); 9] = [
            (Keys::All, b"", true),
            (Keys::All, b"r", true),
            (Keys::Keyspace, b"x\0\0\x01", true),
            (Keys::Keyspace, b"x\0\0\x01key", true),
            (Keys::Keyspace, b"x\0\0", false),
            (Keys::Keyspace, b"r\0\0\x01key", false),
            (Keys::Tidb, b"mDDL", true),
            (Keys::Tidb, b"t\x80", true),
            (Keys::Tidb, b"x\0\0\x01", false),
        ];
        for (keys, key, fits) in cases {
            let read = keys.key(key);
            assert_eq!(read.is_ok(), fits, "{keys:?} {key:?}");
            if let Ok(key_read) = read {
                assert_eq!(key_read.user().expect("own encoding"), key);
            }
        }
        assert!(matches!(
            Keys::All.key(&vec![b'k'; KEY_BYTES_MAX + 1]),
            Err(Error::KeyTooLong { .. })
        ));
    }

    #[test]
    fn ranges_by_mode() {
        let cases: [(Keys, &[u8], &[u8], bool); 10] = [
            (Keys::All, b"", b"", true),
            (Keys::All, b"b", b"a", false),
            (Keys::All, b"a", b"a", true),
            (Keys::Keyspace, b"x\0\0\x01", b"x\0\0\x02", true),
            (Keys::Keyspace, b"x\xff\xff\xff", b"y", true),
            (Keys::Keyspace, b"x\0\0\x01", b"", false),
            (Keys::Keyspace, b"", b"y", false),
            (Keys::Keyspace, b"r\0\0\x01", b"x\0\0\x02", false),
            (Keys::Tidb, b"m", b"n", true),
            (Keys::Tidb, b"t\x80", b"", false),
        ];
        for (keys, lower, upper, fits) in cases {
            assert_eq!(keys.range(lower, upper).is_ok(), fits, "{keys:?} {lower:?} {upper:?}");
        }
        let open = Keys::All.range(b"", b"").expect("fits");
        assert_eq!(open, (Bytes::new(), Bytes::new()));
    }
}
