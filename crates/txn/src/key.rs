//! [`Key`]: a user's key as regions and column families see it.

use std::fmt;

use base::{Ts, codec};
use bytes::Bytes;

use crate::error::{Error, Result};

/// A user's key in memcomparable form, without timestamp: what region borders and the family lock are keyed by. The families write and
/// default append a timestamp, newest first ([`Key::at`]).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// Encodes a key as clients send it.
    pub fn from_user(key: &[u8]) -> Key {
        Key(codec::encode_bytes(key).into())
    }

    /// Takes bytes that are encoded already.
    pub fn from_encoded(key: Bytes) -> Key {
        Key(key)
    }

    /// The key as clients know it.
    pub fn user(&self) -> Result<Bytes> {
        match codec::decode_bytes(&self.0) {
            Ok((key, taken)) if taken == self.0.len() => Ok(key.into()),
            Ok(_) | Err(_) => Err(Error::Damaged { what: "key" }),
        }
    }

    pub fn encoded(&self) -> &Bytes {
        &self.0
    }

    /// The key of its version at `ts`.
    pub fn at(&self, ts: Ts) -> Bytes {
        let mut versioned = Vec::with_capacity(self.0.len() + 8);
        versioned.extend_from_slice(&self.0);
        codec::encode_ts_desc(ts, &mut versioned);
        versioned.into()
    }

    /// Behind every version of the key, and before every other key.
    pub fn versions_end(&self) -> Bytes {
        let mut end = Vec::with_capacity(self.0.len() + 9);
        end.extend_from_slice(&self.0);
        codec::encode_ts_desc(Ts(0), &mut end);
        end.push(0);
        end.into()
    }

    /// Whether this is the user key `user`.
    pub fn is_of(&self, user: &[u8]) -> bool {
        self.0.len() == codec::encoded_len(user.len()) && *self.0 == *codec::encode_bytes(user)
    }

    /// Takes a versioned key apart; shares the bytes.
    pub fn split(versioned: &Bytes) -> Result<(Key, Ts)> {
        let (key, ts) = codec::decode_ts_desc(versioned).map_err(|_| Error::Damaged {
            what: "version of a key",
        })?;
        Ok((Key(versioned.slice(..key.len())), ts))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match codec::decode_bytes(&self.0) {
            Ok((key, _)) => write!(f, "Key({})", key.escape_ascii()),
            Err(_) => write!(f, "Key(encoded {})", self.0.escape_ascii()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_a_key_sort_newest_first_and_come_apart() {
        let key = Key::from_user(b"account");
        let (new, old) = (key.at(Ts(9)), key.at(Ts(8)));
        assert!(new < old && key.encoded() < &new, "{new:?} {old:?}");
        assert_eq!(Key::split(&new).expect("own encoding"), (key.clone(), Ts(9)));
        assert_eq!(key.user().expect("own encoding"), "account");
        assert!(key.at(Ts(0)) < key.versions_end() && key.versions_end() < *Key::from_user(b"account\0").encoded());
        assert!(key.is_of(b"account") && !key.is_of(b"accounT") && !key.is_of(b"account\0"));
    }

    #[test]
    fn damaged_keys_are_errors() {
        assert!(Key::split(&Bytes::from_static(b"short")).is_err());
        assert!(Key::from_encoded(Bytes::from_static(b"not encoded")).user().is_err());
        let tail = [codec::encode_bytes(b"k"), b"tail".to_vec()].concat();
        assert!(Key::from_encoded(tail.into()).user().is_err());
    }
}
