//! The three forms of a key: the caller's, the wire's, and the one region borders are written in.
//!
//! | | on the wire | in region borders |
//! |---|---|---|
//! | V1, raw | as it is | as it is |
//! | V1, transactions | as it is | memcomparable encoding |
//! | V2 | `r` or for transactions `x`, keyspace id in three bytes big endian, the caller's key | memcomparable encoding of that |

use std::ops;

use base::codec;
use bytes::{Bytes, BytesMut};
use proto::kvrpcpb;

use crate::Error;

/// A half-open range of keys; an empty end has no bound. Made from Rust's ranges (`"a".."b"`, `"a"..`, `..`) or a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    pub start: Bytes,
    pub end: Bytes,
}

impl KeyRange {
    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> KeyRange {
        let start = prefix.into();
        let end = codec::prefix_end(&start).unwrap_or_default().into();
        KeyRange { start, end }
    }
}

impl<K: Into<Bytes>> From<ops::Range<K>> for KeyRange {
    fn from(range: ops::Range<K>) -> KeyRange {
        KeyRange {
            start: range.start.into(),
            end: range.end.into(),
        }
    }
}

impl<K: Into<Bytes>> From<ops::RangeFrom<K>> for KeyRange {
    fn from(range: ops::RangeFrom<K>) -> KeyRange {
        KeyRange {
            start: range.start.into(),
            end: Bytes::new(),
        }
    }
}

impl<K: Into<Bytes>> From<ops::RangeTo<K>> for KeyRange {
    fn from(range: ops::RangeTo<K>) -> KeyRange {
        KeyRange {
            start: Bytes::new(),
            end: range.end.into(),
        }
    }
}

impl From<ops::RangeFull> for KeyRange {
    fn from(_: ops::RangeFull) -> KeyRange {
        KeyRange::default()
    }
}

/// What keys are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Raw,
    Txn,
}

/// Turns keys from one form into another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyForm {
    V1(Mode),
    /// The prefix of every key, and the first key past all that have it.
    V2 {
        prefix: [u8; 4],
        end: [u8; 4],
    },
}

impl KeyForm {
    /// Keys of a keyspace. The id must fit three bytes.
    pub fn keyspace(mode: Mode, id: u32) -> Result<KeyForm, Error> {
        let [0, a, b, c] = id.to_be_bytes() else {
            return Err(Error::BadKeyspace { id });
        };
        let mode = match mode {
            Mode::Raw => b'r',
            Mode::Txn => b'x',
        };
        let prefix = [mode, a, b, c];
        Ok(KeyForm::V2 {
            prefix,
            end: (u32::from_be_bytes(prefix) + 1).to_be_bytes(),
        })
    }

    /// What the request's context says of the form.
    pub fn api_version(&self) -> kvrpcpb::ApiVersion {
        match self {
            KeyForm::V1(_) => kvrpcpb::ApiVersion::V1,
            KeyForm::V2 { .. } => kvrpcpb::ApiVersion::V2,
        }
    }

    /// Keyspace id for the request's context; 0 in V1.
    pub fn keyspace_id(&self) -> u32 {
        match self {
            KeyForm::V1(_) => 0,
            KeyForm::V2 {
                prefix: [_, a, b, c], ..
            } => u32::from_be_bytes([0, *a, *b, *c]),
        }
    }

    /// Wire form of a caller's key.
    pub fn wire(&self, key: Bytes) -> Bytes {
        match self {
            KeyForm::V1(_) => key,
            KeyForm::V2 { prefix, .. } => {
                let mut wire = BytesMut::with_capacity(prefix.len() + key.len());
                wire.extend_from_slice(prefix);
                wire.extend_from_slice(&key);
                wire.freeze()
            }
        }
    }

    /// Wire form of a caller's range. In V2 an unbounded end is that of the keyspace.
    pub fn wire_range(&self, range: KeyRange) -> KeyRange {
        let end = match self {
            KeyForm::V2 { end: keyspace_end, .. } if range.end.is_empty() => Bytes::copy_from_slice(keyspace_end),
            _ if range.end.is_empty() => range.end,
            _ => self.wire(range.end),
        };
        KeyRange {
            start: self.wire(range.start),
            end,
        }
    }

    /// The caller's form of a wire key; shares the bytes. `None` for a key without the prefix.
    pub fn user(&self, wire: &Bytes) -> Option<Bytes> {
        match self {
            KeyForm::V1(_) => Some(wire.clone()),
            KeyForm::V2 { prefix, .. } => wire.starts_with(prefix).then(|| wire.slice(prefix.len()..)),
        }
    }

    /// Border form of a wire key.
    pub fn border(&self, wire: &Bytes) -> Bytes {
        match self {
            KeyForm::V1(Mode::Raw) => wire.clone(),
            KeyForm::V1(Mode::Txn) | KeyForm::V2 { .. } => codec::encode_bytes(wire).into(),
        }
    }

    /// Wire form of a region's border. The empty ones of the first and the last region stay empty.
    /// `None` if the border is not encoded, which means that the cluster does not run API V2, or was split by raw keys.
    pub fn wire_of_border(&self, border: &Bytes) -> Option<Bytes> {
        match self {
            KeyForm::V1(Mode::Raw) => Some(border.clone()),
            _ if border.is_empty() => Some(Bytes::new()),
            KeyForm::V1(Mode::Txn) | KeyForm::V2 { .. } => codec::decode_bytes(border).ok().map(|(key, _)| key.into()),
        }
    }
}

/// The lower of two ends, of which an empty one has no bound.
pub(crate) fn min_end(a: &Bytes, b: &Bytes) -> Bytes {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b.clone(),
        (_, true) => a.clone(),
        _ => a.min(b).clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(key: &'static [u8]) -> Bytes {
        Bytes::from_static(key)
    }

    #[test]
    fn v1_leaves_keys_alone() {
        let form = KeyForm::V1(Mode::Raw);
        assert_eq!(form.wire(bytes(b"k")), "k");
        assert_eq!(form.border(&bytes(b"k")), "k");
        assert_eq!(form.wire_range(("a"..).into()), KeyRange::from("a"..));
        assert_eq!(form.keyspace_id(), 0);
    }

    #[test]
    fn v2_prefixes_on_the_wire_and_encodes_borders() {
        let form = KeyForm::keyspace(Mode::Raw, 0x010203).expect("fits");
        assert_eq!(form.keyspace_id(), 0x010203);
        let wire = form.wire(bytes(b"key"));
        assert_eq!(wire, b"r\x01\x02\x03key"[..]);
        assert_eq!(form.user(&wire), Some(bytes(b"key")));
        assert_eq!(form.user(&bytes(b"r\x01\x02\x04key")), None);
        assert_eq!(form.border(&wire), b"r\x01\x02\x03key\0\xfe"[..]);
        assert_eq!(form.wire_of_border(&form.border(&wire)), Some(wire));
        assert_eq!(form.wire_of_border(&bytes(b"")), Some(bytes(b"")));
        assert_eq!(form.wire_of_border(&bytes(b"plain")), None);
    }

    #[test]
    fn transactions_have_encoded_borders_and_a_prefix_of_their_own() {
        let form = KeyForm::V1(Mode::Txn);
        assert_eq!(form.wire(bytes(b"key")), "key");
        assert_eq!(form.border(&bytes(b"key")), b"key\0\0\0\0\0\xfa"[..]);
        assert_eq!(form.wire_of_border(&form.border(&bytes(b"key"))), Some(bytes(b"key")));
        assert_eq!(form.wire_of_border(&bytes(b"plain")), None);
        let form = KeyForm::keyspace(Mode::Txn, 7).expect("fits");
        assert_eq!(form.wire(bytes(b"key")), b"x\0\0\x07key"[..]);
        assert_eq!(form.user(&bytes(b"r\0\0\x07key")), None);
    }

    #[test]
    fn v2_ends_at_the_next_keyspace() {
        let range = |id| KeyForm::keyspace(Mode::Raw, id).expect("fits").wire_range((..).into());
        assert_eq!(range(0), (&b"r\0\0\0"[..]..&b"r\0\0\x01"[..]).into());
        assert_eq!(range(0xff_ffff), (&b"r\xff\xff\xff"[..]..&b"s\0\0\0"[..]).into());
        assert!(matches!(
            KeyForm::keyspace(Mode::Raw, 1 << 24),
            Err(Error::BadKeyspace { id: 0x100_0000 })
        ));
    }

    #[test]
    fn ranges_are_half_open() {
        assert_eq!(
            KeyRange::from(..),
            KeyRange {
                start: "".into(),
                end: "".into()
            }
        );
        assert_eq!(
            KeyRange::from(.."b"),
            KeyRange {
                start: "".into(),
                end: "b".into()
            }
        );
        assert_eq!(KeyRange::prefix("ab"), ("ab".."ac").into());
        assert_eq!(KeyRange::prefix(vec![255, 255]), (vec![255, 255]..).into());
    }

    #[test]
    fn ends_compare_with_the_unbounded_one_last() {
        for (a, b, min) in [("a", "b", "a"), ("", "b", "b"), ("a", "", "a"), ("", "", "")] {
            assert_eq!(min_end(&a.into(), &b.into()), min);
        }
    }
}
