//! The lines that runners read and write.
//!
//! A line is words parted by single spaces: `<id> <operation> <name>=<value> ...`. Bytes are hexadecimal, pairs `key:value`, lists parted by commas,
//! numbers decimal, texts as they are (they hold no space). Operations run side by side; each answers when it ends, `<id> ok ...` or
//! `<id> error class=... retryable=... hint=... message=...` (texts of errors hexadecimal). Operations:
//!
//! | | |
//! |---|---|
//! | `raw.connect`, `txns.connect` | `as endpoints options` |
//! | `raw.get`, `raw.delete`, `raw.ttl` | `on key` |
//! | `raw.put` | `on key value [ttl_ms]` |
//! | `raw.batch_get`, `raw.batch_delete` | `on keys` |
//! | `raw.batch_put` | `on pairs [ttl_ms]` |
//! | `raw.delete_range`, `raw.checksum` | `on start end` |
//! | `raw.compare_and_swap` | `on key [expected] [new]`, absent for "not there" |
//! | `raw.scan`, `snapshot.scan`, `txn.scan` | `on start end [limit] [reverse] [keys_only] [stop]`: read to the end, or until `stop` pairs came |
//! | `raw.metrics`, `txns.metrics` | `on`: answers its text as a value |
//! | `txns.begin` | `on as options` |
//! | `txns.timestamp` | `on` |
//! | `txns.snapshot` | `on as ts` |
//! | `snapshot.get`, `snapshot.batch_get`, `txn.get`, `txn.batch_get` | `on key`, `on keys` |
//! | `txn.get_for_update`, `txn.batch_get_for_update`, `txn.delete`, `txn.lock_keys` | `on key`, `on keys` |
//! | `txn.put`, `txn.insert` | `on key value` |
//! | `txn.batch_put` | `on pairs` |
//! | `txn.savepoint` | `on`: answers its number |
//! | `txn.rollback_to` | `on savepoint` |
//! | `txn.commit`, `txn.rollback` | `on` |
//! | `drop` | `on`: lets the handle go |
//! | `cancel` | `call`: the id of an operation under way; answers `ok` at once |
//!
//! Answers: `value` (absent: not there), `pairs`, `swapped`, `ttl` (`missing`, `forever` or seconds), `number`.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result, bail, ensure};

/// A line in parts: what it is about, and its names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    pub id: u64,
    pub what: String,
    pub parts: BTreeMap<String, String>,
}

impl Line {
    pub fn new(id: u64, what: &str) -> Line {
        Line {
            id,
            what: what.to_owned(),
            parts: BTreeMap::new(),
        }
    }

    /// With one more part.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Line {
        self.parts.insert(name.to_owned(), value.into());
        self
    }

    pub fn parse(text: &str) -> Result<Line> {
        let mut words = text.trim_end().split(' ');
        let id = words
            .next()
            .unwrap_or_default()
            .parse()
            .context("a line begins with a number")?;
        let what = words.next().context("a line has a second word")?.to_owned();
        let mut parts = BTreeMap::new();
        for word in words {
            let (name, value) = word.split_once('=').with_context(|| format!("`{word}` is not name=value"))?;
            parts.insert(name.to_owned(), value.to_owned());
        }
        Ok(Line { id, what, parts })
    }

    /// The text of a part; empty if it is absent.
    pub fn text(&self, name: &str) -> &str {
        self.parts.get(name).map_or("", String::as_str)
    }

    pub fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        unhex(self.text(name))
    }

    pub fn optional_bytes(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.parts.get(name).map(|text| unhex(text)).transpose()
    }

    /// A number; 0 if it is absent.
    pub fn number(&self, name: &str) -> Result<u64> {
        match self.text(name) {
            "" => Ok(0),
            text => text.parse().with_context(|| format!("{name}={text}: not a number")),
        }
    }

    pub fn flag(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    pub fn keys(&self, name: &str) -> Result<Vec<Vec<u8>>> {
        list(self.text(name)).map(unhex).collect()
    }

    pub fn pairs(&self, name: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let pair = |text: &str| -> Result<_> {
            let (key, value) = text.split_once(':').context("a pair has a colon")?;
            Ok((unhex(key)?, unhex(value)?))
        };
        list(self.text(name)).map(pair).collect()
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.id, self.what)?;
        self.parts.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|item| !item.is_empty())
}

pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes all");
    }
    text
}

/// `key:value` parted by commas.
pub fn hex_pairs<'a>(pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> String {
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(key, value)| format!("{}:{}", hex(key), hex(value)))
        .collect();
    pairs.join(",")
}

pub fn unhex(text: &str) -> Result<Vec<u8>> {
    ensure!(text.len().is_multiple_of(2), "`{text}` has half a byte");
    let digits = text.as_bytes();
    let digit = |digit: u8| match (digit as char).to_digit(16) {
        Some(value) => Ok(value as u8),
        None => bail!("`{text}` is not hexadecimal"),
    };
    digits.chunks(2).map(|two| Ok(digit(two[0])? << 4 | digit(two[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        let line = Line::new(7, "raw.put")
            .with("key", hex(&[0, 255]))
            .with("pairs", hex_pairs([(&b"a"[..], &b""[..]), (b"b", b"2")]))
            .with("options", "pessimistic,lock-wait=no");
        let read = Line::parse(&line.to_string()).expect("reads");
        assert_eq!(read, line);
        assert_eq!(read.bytes("key").expect("bytes"), [0, 255]);
        assert_eq!(read.pairs("pairs").expect("pairs")[0], (b"a".to_vec(), vec![]));
        assert_eq!((read.number("none").expect("zero"), read.flag("none")), (0, false));
        assert_eq!(read.optional_bytes("none").expect("absent"), None);
    }

    #[test]
    fn faulty_lines_are_told() {
        for text in ["", "x ok", "1", "1 ok word"] {
            assert!(Line::parse(text).is_err(), "{text}");
        }
        assert!(unhex("abc").is_err() && unhex("zz").is_err() && unhex("é").is_err());
    }
}
