//! Memcomparable encoding: keys of any length whose encoded order equals their plain order, and that never are a prefix of each other.
//!
//! Eight-byte groups, each followed by a marker `255 - pad`: a full group has marker 255 and another group follows; the last
//! group is padded with zeros (0 to 7 data bytes, so an exact multiple of eight ends with an all-zero group of marker 247).
//! Timestamps are appended as big-endian bits turned over, so that newer versions sort first. Drawn in `docs/format.md`.

use crate::Ts;

const GROUP: usize = 8;
const MARKER_FULL: u8 = 255;

/// Why bytes are not an encoded key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes end before the last group's marker.
    #[error("encoded key ends early: {len} bytes")]
    Short { len: usize },
    /// A marker outside 247..=255, or padding that is not zero.
    #[error("encoded key has a bad group at byte {at}")]
    BadGroup { at: usize },
}

/// Length of `key` once encoded.
pub fn encoded_len(key_len: usize) -> usize {
    (key_len / GROUP + 1) * (GROUP + 1)
}

/// Encodes `key`, appending to `out`.
pub fn encode_bytes_to(key: &[u8], out: &mut Vec<u8>) {
    out.reserve(encoded_len(key.len()));
    let mut groups = key.chunks_exact(GROUP);
    for group in &mut groups {
        out.extend_from_slice(group);
        out.push(MARKER_FULL);
    }
    let rest = groups.remainder();
    out.extend_from_slice(rest);
    out.resize(out.len() + GROUP - rest.len(), 0);
    out.push(MARKER_FULL - (GROUP - rest.len()) as u8);
}

/// Encodes `key`.
pub fn encode_bytes(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_bytes_to(key, &mut out);
    out
}

/// Decodes one encoded key at the front of `bytes`; returns it and how many bytes it took.
pub fn decode_bytes(bytes: &[u8]) -> Result<(Vec<u8>, usize), Error> {
    let mut key = Vec::with_capacity(bytes.len() / (GROUP + 1) * GROUP);
    for (number, group) in bytes.chunks(GROUP + 1).enumerate() {
        let at = number * (GROUP + 1);
        let Some((&marker, data)) = group.split_last().filter(|_| group.len() == GROUP + 1) else {
            break;
        };
        if marker == MARKER_FULL {
            key.extend_from_slice(data);
            continue;
        }
        let pad = (MARKER_FULL - marker) as usize;
        if pad > GROUP || data[GROUP - pad..].iter().any(|&b| b != 0) {
            return Err(Error::BadGroup { at });
        }
        key.extend_from_slice(&data[..GROUP - pad]);
        return Ok((key, at + GROUP + 1));
    }
    Err(Error::Short { len: bytes.len() })
}

/// Appends `ts` so that larger timestamps sort first.
pub fn encode_ts_desc(ts: Ts, out: &mut Vec<u8>) {
    out.extend_from_slice(&(!ts.0).to_be_bytes());
}

/// Reads the timestamp that [`encode_ts_desc`] wrote at the end of `bytes`; returns it and what stands before.
pub fn decode_ts_desc(bytes: &[u8]) -> Result<(&[u8], Ts), Error> {
    let (rest, ts) = bytes.split_last_chunk::<8>().ok_or(Error::Short { len: bytes.len() })?;
    Ok((rest, Ts(!u64::from_be_bytes(*ts))))
}

/// The first key after every key that starts with `prefix`, or `None` when `prefix` is all 255 (then nothing follows).
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&b| b != 255)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        assert_eq!(encode_bytes(b""), [0, 0, 0, 0, 0, 0, 0, 0, 247]);
        assert_eq!(encode_bytes(b"abc"), *b"abc\0\0\0\0\0\xfa");
        assert_eq!(encode_bytes(b"12345678"), *b"12345678\xff\0\0\0\0\0\0\0\0\xf7");
    }

    #[test]
    fn round_trip_and_order() {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for len in 0..20 {
            for byte in [0u8, 1, 127, 255] {
                keys.push(vec![byte; len]);
                keys.push([vec![7; len], vec![byte]].concat());
            }
        }
        keys.sort();
        keys.dedup();
        let encoded: Vec<_> = keys.iter().map(|k| encode_bytes(k)).collect();
        assert!(
            encoded.windows(2).all(|w| w[0] < w[1]),
            "encoded order differs from plain order"
        );
        for (key, enc) in keys.iter().zip(&encoded) {
            let mut with_tail = enc.clone();
            encode_ts_desc(Ts(42), &mut with_tail);
            assert_eq!(decode_bytes(&with_tail), Ok((key.clone(), enc.len())));
            assert_eq!(decode_ts_desc(&with_tail), Ok((enc.as_slice(), Ts(42))));
        }
    }

    #[test]
    fn bad_bytes_are_errors() {
        assert_eq!(decode_bytes(b""), Err(Error::Short { len: 0 }));
        assert_eq!(decode_bytes(b"12345678\xff"), Err(Error::Short { len: 9 }));
        assert_eq!(decode_bytes(b"12345678\x01"), Err(Error::BadGroup { at: 0 }));
        assert_eq!(decode_bytes(b"1234567x\xfe"), Err(Error::BadGroup { at: 0 }));
        assert_eq!(decode_ts_desc(b"123"), Err(Error::Short { len: 3 }));
    }

    #[test]
    fn prefix_end_steps_over_255() {
        assert_eq!(prefix_end(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }
}
