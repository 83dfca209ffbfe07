//! How a value lies in the cluster: one byte of version (1), four of memcached's flags, eight of expiry (milliseconds since 1970, 0: never),
//! both big-endian, then the data.

use bytes::{BufMut as _, Bytes, BytesMut};

const VERSION: u8 = 1;
const HEAD: usize = 13;

/// A value with what belongs to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Item {
    pub flags: u32,
    /// Milliseconds since 1970; 0: never.
    pub expires: u64,
    pub data: Bytes,
}

impl Item {
    /// A value that stays.
    pub fn new(data: impl Into<Bytes>) -> Item {
        Item {
            data: data.into(),
            ..Item::default()
        }
    }

    /// As it lies in the cluster.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEAD + self.data.len());
        bytes.put_u8(VERSION);
        bytes.put_u32(self.flags);
        bytes.put_u64(self.expires);
        bytes.extend_from_slice(&self.data);
        bytes.freeze()
    }

    /// Reads what lies in the cluster; `None` if it has expired at `now` or is nothing of ours.
    pub fn live(bytes: &Bytes, now: u64) -> Option<Item> {
        let head = bytes.first_chunk::<HEAD>()?;
        let [version, f0, f1, f2, f3, e0, e1, e2, e3, e4, e5, e6, e7] = *head;
        let expires = u64::from_be_bytes([e0, e1, e2, e3, e4, e5, e6, e7]);
        if version != VERSION || (expires > 0 && expires <= now) {
            return None;
        }
        Some(Item {
            flags: u32::from_be_bytes([f0, f1, f2, f3]),
            expires,
            data: bytes.slice(HEAD..),
        })
    }

    /// The same with other data.
    pub fn with(&self, data: impl Into<Bytes>) -> Item {
        Item {
            data: data.into(),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_read_as_they_were_written_until_they_expire() {
        let item = Item {
            flags: 7,
            expires: 1000,
            data: Bytes::from_static(b"abc"),
        };
        let bytes = item.encode();
        assert_eq!(&*bytes, b"\x01\0\0\0\x07\0\0\0\0\0\0\x03\xe8abc");
        assert_eq!(Item::live(&bytes, 999), Some(item));
        assert_eq!(Item::live(&bytes, 1000), None);
        assert_eq!(Item::live(&Bytes::from_static(b"\x02aaaaaaaaaaaaaaaa"), 0), None);
        assert_eq!(Item::live(&Bytes::from_static(b"\x01"), 0), None);
    }
}
