//! Bytes of the log: records one behind the other, each a head of 48 bytes and a body. Drawn in `docs/format.md`.
//!
//! A record is found and trusted by its own checksums, so a reader can go on behind damage; whether it may be applied is told by
//! the chain: `prev` is the number of the record before it. Heads' checksums begin with the directory's random key, so that no
//! value that a user writes can pass for a head.

use bytes::Bytes;

use crate::{Cf, Op};

const MAGIC: [u8; 4] = *b"FLR1";
pub const HEAD_BYTES: usize = 48;

/// A body is a batch; more than this was never written.
const BODY_BYTES_MAX: usize = 1 << 30;

/// The head of a record. Numbers are sequence numbers of batches; 0 stands for "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Number of the batch; that of the batch before when the body is empty (a mark).
    pub seqno: u64,
    /// Number of the batch before this one; of a mark its own number.
    pub prev: u64,
    /// Every batch up to this one was durable when the record was written.
    pub synced: u64,
    /// Every batch up to this one was in tables when the record was written.
    pub flushed: u64,
    body_len: u32,
    body_crc: u32,
}

impl Head {
    pub fn new(seqno: u64, prev: u64, synced: u64, flushed: u64) -> Head {
        Head {
            seqno,
            prev,
            synced,
            flushed,
            body_len: 0,
            body_crc: 0,
        }
    }
}

fn head_crc(key: u32, head: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(key);
    hasher.update(&head[8..HEAD_BYTES]);
    hasher.finalize()
}

/// Appends a record to `out`.
pub fn encode(key: u32, head: Head, ops: &[Op], out: &mut Vec<u8>) {
    let at = out.len();
    out.resize(at + HEAD_BYTES, 0);
    for op in ops {
        encode_op(op, out);
    }
    let body = &out[at + HEAD_BYTES..];
    let (body_len, body_crc) = (body.len() as u32, crc32fast::hash(body));
    let bytes = &mut out[at..at + HEAD_BYTES];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&body_len.to_le_bytes());
    bytes[12..16].copy_from_slice(&body_crc.to_le_bytes());
    for (field, number) in [head.seqno, head.prev, head.synced, head.flushed].into_iter().enumerate() {
        bytes[16 + field * 8..24 + field * 8].copy_from_slice(&number.to_le_bytes());
    }
    let crc = head_crc(key, bytes);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn encode_op(op: &Op, out: &mut Vec<u8>) {
    match op {
        Op::Put { cf, key, value } => {
            out.push(*cf as u8);
            put_len(key.len(), out);
            put_len(value.len(), out);
            out.extend_from_slice(key);
            out.extend_from_slice(value);
        }
        Op::Delete { cf, key } => {
            out.push(DELETE | *cf as u8);
            put_len(key.len(), out);
            out.extend_from_slice(key);
        }
    }
}

const DELETE: u8 = 0x80;

/// Seven bits a byte, low ones first; the high bit says that more follow.
fn put_len(mut len: usize, out: &mut Vec<u8>) {
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}

fn take_len(bytes: &mut &[u8]) -> Option<usize> {
    let mut len = 0usize;
    for shift in (0..35).step_by(7) {
        let byte = *bytes.split_off_first()?;
        len |= ((byte & 0x7f) as usize) << shift;
        if byte < 0x80 {
            return Some(len);
        }
    }
    None
}

/// A record found whole.
pub struct Record<'a> {
    pub head: Head,
    body: &'a [u8],
    /// Bytes of head and body.
    pub len: usize,
}

impl Record<'_> {
    /// Whether it is a mark: a head without a batch.
    pub fn is_mark(&self) -> bool {
        self.body.is_empty()
    }

    /// The batch. `None` if the body is not what [`encode`] writes, which its checksum makes a bug, not damage.
    pub fn ops(&self) -> Option<Vec<Op>> {
        let mut ops = Vec::new();
        let mut rest = self.body;
        while !rest.is_empty() {
            ops.push(decode_op(&mut rest)?);
        }
        Some(ops)
    }
}

fn decode_op(rest: &mut &[u8]) -> Option<Op> {
    let tag = *rest.split_off_first()?;
    let cf = *Cf::ALL.get((tag & !DELETE) as usize)?;
    let key_len = take_len(rest)?;
    if tag & DELETE != 0 {
        return Some(Op::Delete {
            cf,
            key: Bytes::copy_from_slice(rest.split_off(..key_len)?),
        });
    }
    let value_len = take_len(rest)?;
    let key = Bytes::copy_from_slice(rest.split_off(..key_len)?);
    Some(Op::Put {
        cf,
        key,
        value: Bytes::copy_from_slice(rest.split_off(..value_len)?),
    })
}

/// The head at the front of `bytes`, if there is a sound one.
pub fn decode_head(key: u32, bytes: &[u8]) -> Option<Head> {
    let head = bytes.get(..HEAD_BYTES)?;
    let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    let number = |field: usize| u64::from_le_bytes(head[16 + field * 8..24 + field * 8].try_into().expect("eight bytes"));
    if head[..4] != MAGIC || word(4) != head_crc(key, head) {
        return None;
    }
    let (seqno, prev, synced, flushed) = (number(0), number(1), number(2), number(3));
    Some(Head {
        seqno,
        prev,
        synced,
        flushed,
        body_len: word(8),
        body_crc: word(12),
    })
}

/// The record at the front of `bytes`, if there is a whole and sound one.
pub fn decode(key: u32, bytes: &[u8]) -> Option<Record<'_>> {
    let head = decode_head(key, bytes)?;
    let body_len = head.body_len as usize;
    let body = bytes.get(HEAD_BYTES..)?.get(..body_len)?;
    let sound = body_len <= BODY_BYTES_MAX && crc32fast::hash(body) == head.body_crc;
    sound.then_some(Record {
        head,
        body,
        len: HEAD_BYTES + body_len,
    })
}

/// Every sound head in `bytes`, wherever it begins: what a damaged part of the log still tells.
pub fn scan_heads(key: u32, bytes: &[u8]) -> impl Iterator<Item = Head> + '_ {
    let starts = (0..bytes.len().saturating_sub(HEAD_BYTES - 1)).filter(|&at| bytes[at..at + 4] == MAGIC);
    starts.filter_map(move |at| decode_head(key, &bytes[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ops() -> Vec<Op> {
        vec![
            Op::Put {
                cf: Cf::Default,
                key: "k".into(),
                value: vec![7; 300].into(),
            },
            Op::Delete {
                cf: Cf::Local,
                key: "".into(),
            },
            Op::Put {
                cf: Cf::Write,
                key: "".into(),
                value: "".into(),
            },
        ]
    }

    const KEY: u32 = 0xfeed;
    const GOLDEN: &str = concat!(
        "464c523107853e4008000000110779da0900000000000000070000000000000005000000000000000300000000000000",
        "0101016b7683016c",
    );

    #[test]
    fn round_trip() {
        let mut bytes = b"before".to_vec();
        encode(KEY, Head::new(9, 7, 5, 3), &ops(), &mut bytes);
        encode(KEY, Head::new(9, 9, 9, 3), &[], &mut bytes);
        let record = decode(KEY, &bytes[6..]).expect("whole");
        let head = record.head;
        assert_eq!((head.seqno, head.prev, head.synced, head.flushed), (9, 7, 5, 3));
        assert_eq!(record.ops(), Some(ops()));
        assert!(!record.is_mark());
        let mark = decode(KEY, &bytes[6 + record.len..]).expect("whole");
        assert!(mark.is_mark() && mark.head.synced == 9);
        assert_eq!(scan_heads(KEY, &bytes).count(), 2);
        assert!(decode(KEY + 1, &bytes[6..]).is_none(), "another directory's record");
    }

    /// Logs of released versions must stay readable: these bytes are drawn in `docs/format.md`.
    #[test]
    fn golden() {
        let mut bytes = Vec::new();
        let ops = [
            Op::Put {
                cf: Cf::Lock,
                key: "k".into(),
                value: "v".into(),
            },
            Op::Delete {
                cf: Cf::Local,
                key: "l".into(),
            },
        ];
        encode(KEY, Head::new(9, 7, 5, 3), &ops, &mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let mut bytes = Vec::new();
        encode(KEY, Head::new(9, 7, 5, 3), &ops(), &mut bytes);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(KEY, &flipped).is_none(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(decode(KEY, &bytes[..len]).is_none(), "cut to {len}");
        }
    }
}
