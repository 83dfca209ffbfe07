//! [`Write`]: a commit record, or the record of a rollback. Stored in the family write under the key at `commit_ts` (a rollback's at its
//! `start_ts`).

use base::Ts;
use bytes::Bytes;

use crate::error::Result;
use crate::fields::{self, Fields};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    Put,
    Delete,
    /// Committed, without data.
    Lock,
    /// The transaction `start_ts` must never commit here.
    Rollback,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub kind: WriteKind,
    pub start_ts: Ts,
    /// The value of a put, if it is short; a longer one is in the family default, at `start_ts`.
    pub short_value: Option<Bytes>,
    /// The transaction whose `start_ts` is this record's `commit_ts` was rolled back: both records would have had one key.
    pub overlapped_rollback: bool,
    /// Of a rollback: must stay until garbage collection, as the transaction's own requests may still come (its primary's, and those of
    /// pessimistic transactions and async commits). Others may be dropped once a newer record proves the conflict.
    pub protected: bool,
}

impl Write {
    pub fn new(kind: WriteKind, start_ts: Ts, short_value: Option<Bytes>) -> Write {
        Write {
            kind,
            start_ts,
            short_value,
            overlapped_rollback: false,
            protected: false,
        }
    }

    pub fn rollback(start_ts: Ts, protected: bool) -> Write {
        Write {
            protected,
            ..Write::new(WriteKind::Rollback, start_ts, None)
        }
    }

    /// Whether it says what the key is from then on.
    pub fn is_version(&self) -> bool {
        matches!(self.kind, WriteKind::Put | WriteKind::Delete)
    }

    pub fn is_rollback(&self) -> bool {
        self.kind == WriteKind::Rollback
    }

    /// Whether it tells that the transaction of its own timestamp was rolled back.
    pub fn rolls_back(&self) -> bool {
        self.is_rollback() || self.overlapped_rollback
    }

    /// The stored form.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(13 + self.short_value.as_ref().map_or(0, Bytes::len));
        out.push(self.kind.byte());
        fields::put_ts(&mut out, self.start_ts);
        if self.overlapped_rollback {
            out.push(OVERLAPPED_ROLLBACK);
        }
        if self.protected {
            out.push(PROTECTED);
        }
        if let Some(value) = &self.short_value {
            out.push(SHORT_VALUE);
            fields::put_bytes(&mut out, value);
        }
        out.into()
    }

    /// Reads the stored form; shares its bytes.
    pub fn decode(bytes: &Bytes) -> Result<Write> {
        let mut fields = Fields::new(bytes, "commit record");
        let kind = WriteKind::from_byte(fields.byte()?).ok_or_else(|| fields.damaged())?;
        let mut write = Write::new(kind, fields.ts()?, None);
        let mut last = 0;
        while let Some(tag) = fields.tag() {
            if tag <= last {
                return Err(fields.damaged());
            }
            last = tag;
            match tag {
                OVERLAPPED_ROLLBACK => write.overlapped_rollback = true,
                PROTECTED => write.protected = true,
                SHORT_VALUE => write.short_value = Some(fields.bytes()?),
                _ => return Err(fields.damaged()),
            }
        }
        Ok(write)
    }
}

const OVERLAPPED_ROLLBACK: u8 = b'o';
const PROTECTED: u8 = b'p';
const SHORT_VALUE: u8 = b'v';

impl WriteKind {
    fn byte(self) -> u8 {
        match self {
            WriteKind::Put => b'P',
            WriteKind::Delete => b'D',
            WriteKind::Lock => b'L',
            WriteKind::Rollback => b'R',
        }
    }

    fn from_byte(byte: u8) -> Option<WriteKind> {
        [WriteKind::Put, WriteKind::Delete, WriteKind::Lock, WriteKind::Rollback]
            .into_iter()
            .find(|kind| kind.byte() == byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What stands in `docs/format.md`. A change here must still read what older versions wrote.
    #[test]
    fn golden_bytes() {
        let put = Write::new(WriteKind::Put, Ts(5), Some("v".into()));
        let marked = Write {
            overlapped_rollback: true,
            ..put.clone()
        };
        let golden = [
            (put, "50 0000000000000005 76 0176"),
            (marked, "50 0000000000000005 6f 76 0176"),
            (Write::new(WriteKind::Put, Ts(1 << 60), None), "50 1000000000000000"),
            (
                Write::new(WriteKind::Put, Ts(5), Some("".into())),
                "50 0000000000000005 76 00",
            ),
            (Write::new(WriteKind::Delete, Ts(5), None), "44 0000000000000005"),
            (Write::new(WriteKind::Lock, Ts(5), None), "4c 0000000000000005"),
            (Write::rollback(Ts(5), false), "52 0000000000000005"),
            (Write::rollback(Ts(5), true), "52 0000000000000005 70"),
        ];
        for (write, bytes) in golden {
            assert_eq!(hex(&write.encode()), bytes.replace(' ', ""), "{write:?}");
            assert_eq!(Write::decode(&write.encode()).expect("own encoding"), write);
        }
    }

    #[test]
    fn damaged_records_are_errors_never_panics() {
        let bytes = Write::new(WriteKind::Put, Ts(5), Some("value".into())).encode();
        let whole: Vec<usize> = (0..bytes.len())
            .filter(|len| Write::decode(&bytes.slice(..*len)).is_ok())
            .collect();
        assert_eq!(whole, [9], "the value may miss as a whole");
        let foreign: [&[u8]; 4] = [b"", b"S\0\0\0\0\0\0\0\x05", b"P\0\0\0\0\0\0\0\x05x", b"P\0\0\0\0\0\0\0\x05pp"];
        for bytes in foreign {
            assert!(Write::decode(&Bytes::from_static(bytes)).is_err(), "{bytes:?}");
        }
    }
}
