//! `SCAN` over a Ferrite cluster: keys in their order, a page at a time.

use std::collections::VecDeque;

use bytes::Bytes;
use client::{KeyRange, ScanOptions};
use futures::TryStreamExt as _;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngCore as _, SeedableRng as _};

use super::{Item, Store, told};
use crate::resp::number;
use crate::resp::write;

/// Pages whose cursors are remembered; a walk that was overtaken by so many pages of others must start over.
const PLACES_MAX: usize = 4096;
/// Pairs of a page where the client does not say, and at most.
const COUNT: (usize, usize) = (10, 10_000);

/// Where walks of a pool's clients stand: any connection, on any thread, may go on with any of them.
pub struct Cursors(Mutex<Places>);

struct Places {
    /// The cursor of the next page. The first one is drawn, so that nobody's old cursor is taken for one of this process.
    next: u64,
    /// The last key of each page, of the latest pages.
    latest: VecDeque<Bytes>,
}

impl Default for Cursors {
    fn default() -> Self {
        let next = (u64::from(SmallRng::from_os_rng().next_u32()) << 16) | 1;
        Cursors(Mutex::new(Places {
            next,
            latest: VecDeque::new(),
        }))
    }
}

impl Cursors {
    /// The cursor of a page that ended with `key`.
    fn note(&self, key: Bytes) -> u64 {
        let mut places = self.0.lock();
        if places.latest.len() == PLACES_MAX {
            places.latest.pop_front();
        }
        places.latest.push_back(key);
        places.next += 1;
        places.next - 1
    }

    /// Where the page with this cursor ended.
    fn find(&self, cursor: u64) -> Option<Bytes> {
        let places = self.0.lock();
        let age = places.next.checked_sub(cursor)?;
        let at = places.latest.len().checked_sub(usize::try_from(age).ok()?)?;
        places.latest.get(at).cloned()
    }
}

/// What a walk asks for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    pattern: Option<Bytes>,
    count: usize,
    /// Whether no key can be of the type asked for.
    is_empty: bool,
}

impl Options {
    fn read(args: &[Bytes]) -> Result<Options, String> {
        let mut options = Options {
            pattern: None,
            count: COUNT.0,
            is_empty: false,
        };
        let (pairs, rest) = args.as_chunks::<2>();
        for [word, value] in pairs {
            match word.to_ascii_uppercase().as_slice() {
                b"MATCH" => options.pattern = Some(value.clone()),
                b"TYPE" => options.is_empty = !value.eq_ignore_ascii_case(b"string"),
                b"COUNT" => {
                    let count = number(value).ok_or("ERR value is not an integer or out of range")?;
                    let count = usize::try_from(count).ok().filter(|count| *count > 0);
                    options.count = count.ok_or("ERR syntax error")?.min(COUNT.1);
                }
                _ => return Err("ERR syntax error".into()),
            }
        }
        match rest {
            [] => Ok(options),
            _ => Err("ERR syntax error".into()),
        }
    }
}

/// The reply to `SCAN`; `args` with its name.
pub(super) async fn run(store: &Store, args: &[Bytes]) -> Result<Vec<u8>, String> {
    let cursor = args
        .get(1)
        .and_then(|word| std::str::from_utf8(word).ok()?.parse::<u64>().ok());
    let after = match cursor.ok_or("ERR invalid cursor")? {
        0 => None,
        cursor => Some(
            store
                .cursors
                .find(cursor)
                .ok_or("ERR invalid cursor: it is not known (any more); start over")?,
        ),
    };
    let options = Options::read(args.get(2..).unwrap_or_default())?;
    if options.is_empty {
        return Ok(page(0, &[]));
    }
    let mut range = KeyRange::prefix(store.prefix.clone());
    if let Some(after) = after {
        // The next key there can be.
        range.start = [&after[..], b"\0"].concat().into();
    }
    let limits = ScanOptions {
        limit: options.count,
        ..ScanOptions::default()
    };
    let pairs: Vec<_> = store.client().await?.scan(range, limits).try_collect().await.map_err(told)?;
    let now = base::WallTime::now().0;
    let live = pairs.iter().filter(|pair| Item::live(&pair.1, now).is_some());
    let keys = live.map(|pair| pair.0.slice(store.prefix.len().min(pair.0.len())..));
    let keys: Vec<_> = keys
        .filter(|key| options.pattern.as_ref().is_none_or(|pattern| matches(pattern, key)))
        .collect();
    let next = match pairs.last() {
        Some(last) if pairs.len() == options.count => store.cursors.note(last.0.clone()),
        _ => 0,
    };
    Ok(page(next, &keys))
}

fn page(cursor: u64, keys: &[Bytes]) -> Vec<u8> {
    let mut out = Vec::new();
    write::array(&mut out, 2);
    write::bulk(&mut out, cursor.to_string().as_bytes());
    write::array(&mut out, keys.len());
    keys.iter().for_each(|key| write::bulk(&mut out, key));
    out
}

/// Whether `text` is of the form that `pattern` tells: `*`, `?`, `[a-z]`, `[^a]`, and `\` before what is meant as it stands.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut here) = (0, 0);
    // Behind the last star, and the end of what that star stood for when it was tried last.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            star = Some((at, here));
            continue;
        }
        let fits = match (pattern.get(at..), text.get(here)) {
            (None | Some([]), None) => return true,
            (Some(pattern), Some(byte)) => one(pattern, *byte),
            _ => None,
        };
        if let Some(taken) = fits {
            (at, here) = (at + taken, here + 1);
            continue;
        }
        match star {
            Some((after, tried)) if tried < text.len() => {
                (at, here) = (after, tried + 1);
                star = Some((after, tried + 1));
            }
            _ => return false,
        }
    }
}

/// Bytes of the pattern that stand for `byte` at its front; `None` if they do not.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', rest @ ..] => class(rest, byte).map(|taken| taken + 1),
        [b'\\', wanted, ..] => (*wanted == byte).then_some(2),
        [wanted, ..] => (*wanted == byte).then_some(1),
    }
}

/// The same for what follows `[`. A class that is not closed ends with the pattern.
fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let is_negated = pattern.first() == Some(&b'^');
    let mut at = usize::from(is_negated);
    let mut is_in = false;
    loop {
        match pattern.get(at..).unwrap_or_default() {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', wanted, ..] => {
                is_in |= *wanted == byte;
                at += 2;
            }
            [low, b'-', high, ..] => {
                let (low, high) = (low.min(high), low.max(high));
                is_in |= (*low..=*high).contains(&byte);
                at += 3;
            }
            [wanted, ..] => {
                is_in |= *wanted == byte;
                at += 1;
            }
        }
    }
    (is_in != is_negated).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_redis_means_by_them() {
        for (pattern, yes, no) in [
            ("*", "", ""),
            ("a*c", "abbc", "abbd"),
            ("a*b*c", "axbybc", "axcyb"),
            ("h?llo", "hello", "hllo"),
            ("h[ae]llo", "hallo", "hillo"),
            ("h[^e]llo", "hallo", "hello"),
            ("h[a-c]llo", "hbllo", "hdllo"),
            ("a\\*c", "a*c", "abc"),
            ("[\\]]", "]", "x"),
            ("x[ab", "xa", "xc"),
            ("user:*:name", "user:7:name", "user:7:mail"),
        ] {
            assert!(matches(pattern.as_bytes(), yes.as_bytes()), "{pattern} {yes}");
            assert!(no.is_empty() || !matches(pattern.as_bytes(), no.as_bytes()), "{pattern} {no}");
        }
        // Where every star tries every length the work of this one would never end.
        assert!(!matches(&[&b"a*".repeat(50)[..], b"b"].concat(), &[b'a'; 5000]));
    }

    #[test]
    fn cursors_lead_back_until_they_are_too_old() {
        let cursors = Cursors::default();
        let first = cursors.note(Bytes::from_static(b"a"));
        let second = cursors.note(Bytes::from_static(b"b"));
        assert_eq!(cursors.find(first).as_deref(), Some(&b"a"[..]));
        assert_eq!(cursors.find(second).as_deref(), Some(&b"b"[..]));
        assert_eq!(cursors.find(second + 1), None);
        assert_eq!(cursors.find(7), None);
        let newest = (0..PLACES_MAX - 1).map(|_| cursors.note(Bytes::new())).last();
        assert_eq!(newest.and_then(|newest| cursors.find(newest)), Some(Bytes::new()));
        assert_eq!(cursors.find(first), None);
        assert_eq!(cursors.find(second).as_deref(), Some(&b"b"[..]));
    }

    #[test]
    fn options_are_read() {
        let read = |words: &str| Options::read(&words.split(' ').map(|word| Bytes::from(word.to_owned())).collect::<Vec<_>>());
        let options = read("match a* COUNT 99999999 type STRING").expect("reads");
        assert_eq!(
            (options.pattern.as_deref(), options.count, options.is_empty),
            (Some(&b"a*"[..]), COUNT.1, false)
        );
        assert!(read("TYPE list").expect("reads").is_empty);
        for bad in ["COUNT 0", "COUNT x", "MATCH", "NOVALUES x"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
