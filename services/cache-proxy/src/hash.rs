//! Hashes of keys, number for number those of twemproxy: pools move between the two without losing a key.
//!
//! twemproxy reads bytes as signed where noted: a byte above 0x7f is sign-extended, which its keys depend on.

use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};

/// Which hash a pool uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hash {
    OneAtATime,
    Md5,
    Crc16,
    Crc32,
    Crc32a,
    #[serde(rename = "fnv1_64")]
    Fnv1_64,
    #[default]
    #[serde(rename = "fnv1a_64")]
    Fnv1a64,
    #[serde(rename = "fnv1_32")]
    Fnv1_32,
    #[serde(rename = "fnv1a_32")]
    Fnv1a32,
    Murmur,
}

impl Hash {
    /// Every hash.
    pub const ALL: [Hash; 10] = [
        Hash::OneAtATime,
        Hash::Md5,
        Hash::Crc16,
        Hash::Crc32,
        Hash::Crc32a,
        Hash::Fnv1_64,
        Hash::Fnv1a64,
        Hash::Fnv1_32,
        Hash::Fnv1a32,
        Hash::Murmur,
    ];

    /// Of `key`. An empty key has hash 0, whatever the function.
    pub fn of(self, key: &[u8]) -> u32 {
        if key.is_empty() {
            return 0;
        }
        match self {
            Hash::OneAtATime => one_at_a_time(key),
            Hash::Md5 => md5_part(&md5(key), 0),
            Hash::Crc16 => crc16(key),
            // As libmemcached shortens it.
            Hash::Crc32 => (crc32(key) >> 16) & 0x7fff,
            Hash::Crc32a => crc32(key),
            Hash::Fnv1_64 => fnv1_64(key),
            Hash::Fnv1a64 => fnv1a_64(key),
            Hash::Fnv1_32 => key
                .iter()
                .fold(FNV_32_INIT, |hash, byte| hash.wrapping_mul(FNV_32_PRIME) ^ signed(*byte)),
            Hash::Fnv1a32 => key
                .iter()
                .fold(FNV_32_INIT, |hash, byte| (hash ^ signed(*byte)).wrapping_mul(FNV_32_PRIME)),
            Hash::Murmur => murmur2(key),
        }
    }
}

const FNV_64_INIT: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_64_PRIME: u64 = 0x100_0000_01b3;
const FNV_32_INIT: u32 = 2_166_136_261;
const FNV_32_PRIME: u32 = 16_777_619;

fn signed(byte: u8) -> u32 {
    i32::from(byte as i8) as u32
}

fn fnv1_64(key: &[u8]) -> u32 {
    key.iter().fold(FNV_64_INIT, |hash, byte| {
        hash.wrapping_mul(FNV_64_PRIME) ^ i64::from(*byte as i8) as u64
    }) as u32
}

/// Of the 64 bits only the low half ever counts.
fn fnv1a_64(key: &[u8]) -> u32 {
    key.iter().fold(FNV_64_INIT as u32, |hash, byte| {
        (hash ^ signed(*byte)).wrapping_mul(FNV_64_PRIME as u32)
    })
}

fn one_at_a_time(key: &[u8]) -> u32 {
    let mut hash = 0u32;
    for byte in key {
        hash = hash.wrapping_add(signed(*byte));
        hash = hash.wrapping_add(hash << 10);
        hash ^= hash >> 6;
    }
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = key.len() as u32;
    let mut hash = 0xdead_beef_u32.wrapping_mul(length) ^ length;
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (at, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// MD5 of `bytes`.
pub fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

/// The `part`-th (0 to 3) little-endian word of a digest.
pub fn md5_part(digest: &[u8; 16], part: usize) -> u32 {
    let (words, _) = digest.as_chunks::<4>();
    words.get(part).map_or(0, |word| u32::from_le_bytes(*word))
}

static CRC16_TABLE: [u16; 256] = crc16_table();
static CRC32_TABLE: [u32; 256] = crc32_table();

const fn crc16_table() -> [u16; 256] {
    let mut table = [0u16; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

const fn crc32_table() -> [u32; 256] {
    let mut table = [0u32; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// twemproxy keeps the register in 32 bits, so more than 16 of them are set.
fn crc16(key: &[u8]) -> u32 {
    key.iter().fold(0u32, |crc, byte| {
        (crc << 8) ^ u32::from(CRC16_TABLE[usize::from((crc >> 8) as u8 ^ *byte)])
    })
}

fn crc32(key: &[u8]) -> u32 {
    !key.iter()
        .fold(!0u32, |crc, byte| (crc >> 8) ^ CRC32_TABLE[usize::from(crc as u8 ^ *byte)])
}

/// Slots of a Redis Cluster.
pub const SLOTS: usize = 16_384;

/// Slot of `key` by the cluster's rule: of what stands between the first `{` and the next `}`, if anything does.
pub fn slot(key: &[u8]) -> u16 {
    let key = tagged(key, (b'{', b'}'));
    let crc = key.iter().fold(0u16, |crc, byte| {
        (crc << 8) ^ CRC16_TABLE[usize::from((crc >> 8) as u8 ^ *byte)]
    });
    crc % SLOTS as u16
}

/// What of `key` is hashed: the part between the tag's first opening and the next closing byte, or all of it.
pub fn tagged(key: &[u8], (open, close): (u8, u8)) -> &[u8] {
    let part = memchr::memchr(open, key).and_then(|start| {
        let rest = key.get(start + 1..)?;
        rest.get(..memchr::memchr(close, rest)?)
    });
    match part {
        Some(part) if !part.is_empty() => part,
        _ => key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_cluster() {
        // From the cluster specification: CRC16 of "123456789" is 0x31c3.
        assert_eq!(slot(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b"{user1000}.following"), slot(b"user1000"));
        assert_eq!(slot(b"foo{}{bar}"), slot_of_all(b"foo{}{bar}"));
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
    }

    fn slot_of_all(key: &[u8]) -> u16 {
        (crc16(key) & 0xffff) as u16 % SLOTS as u16
    }

    #[test]
    fn known_values() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        // FNV-1a of "a" in 64 bits is af63dc4c8601ec8c; its low half stays.
        assert_eq!(Hash::Fnv1a64.of(b"a"), 0x8601_ec8c);
        assert_eq!(Hash::Fnv1a32.of(b"a"), 0xe40c_292c);
        assert_eq!(Hash::OneAtATime.of(b"a"), 0xca2e_9442);
        assert_eq!(Hash::Md5.of(b""), 0);
    }
}
