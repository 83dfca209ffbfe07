//! Names of blobs: 32 bytes, which are the content's digest or made from a name.

use std::fmt;

use sha2::Digest as _;

/// Sets names apart from digests: no content hashes to the key of a name, whatever bytes it has.
const NAMED: &str = "ferrite blob-store 2026 key of a name";

/// What a blob is found by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; 32]);

/// What a key says about the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The key is the content's SHA-256.
    Sha256,
    /// The key is the content's BLAKE3.
    Blake3,
    /// Nothing: the key is made from a name, and a later upload replaces the content.
    Named,
}

impl Key {
    /// The key of a name in parts; parts that differ give keys that differ, also where joined they are equal.
    pub fn named(parts: &[&str]) -> Key {
        let mut hasher = blake3::Hasher::new_derive_key(NAMED);
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Key(*hasher.finalize().as_bytes())
    }

    /// Reads 64 hexadecimal digits in lower case, as every client writes them. `None` for anything else.
    pub fn from_hex(text: &str) -> Option<Key> {
        let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Key(key))
    }

    /// The SHA-256 of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Key {
        Key(sha2::Sha256::digest(bytes).into())
    }

    /// The BLAKE3 of `bytes`.
    pub fn blake3(bytes: &[u8]) -> Key {
        Key(*blake3::hash(bytes).as_bytes())
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hashes content as it streams by.
pub(crate) enum Hasher {
    Sha256(sha2::Sha256),
    Blake3(Box<blake3::Hasher>),
    Named,
}

impl Hasher {
    pub(crate) fn new(content: Content) -> Hasher {
        match content {
            Content::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Content::Blake3 => Hasher::Blake3(Box::default()),
            Content::Named => Hasher::Named,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Blake3(hasher) => drop(hasher.update(bytes)),
            Hasher::Named => {}
        }
    }

    /// The key that the content has; `None` where any content will do.
    pub(crate) fn finish(self) -> Option<Key> {
        match self {
            Hasher::Sha256(hasher) => Some(Key(hasher.finalize().into())),
            Hasher::Blake3(hasher) => Some(Key(*hasher.finalize().as_bytes())),
            Hasher::Named => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_refuses_the_rest() {
        let key = Key::sha256(b"x");
        assert_eq!(Key::from_hex(&key.to_string()), Some(key));
        for text in ["", "00", &"0".repeat(63), &"G".repeat(64), &"A".repeat(64), &"é".repeat(32)] {
            assert_eq!(Key::from_hex(text), None, "{text}");
        }
    }

    #[test]
    fn names_and_digests_are_kept_apart() {
        assert_ne!(Key::named(&["ab", "c"]), Key::named(&["a", "bc"]));
        let joined = [&2u64.to_le_bytes()[..], b"ab"].concat();
        assert_ne!(Key::named(&["ab"]), Key::blake3(&joined));
    }
}
