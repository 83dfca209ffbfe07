//! Finds where replies end, and reads small ones.

use super::{LINE_MAX, Malformed, number};

/// State within one reply: how far it was read and how many elements are still to come. Nesting costs nothing, however deep.
#[derive(Debug)]
pub struct ReplyScanner {
    at: usize,
    left: u64,
}

impl Default for ReplyScanner {
    fn default() -> Self {
        ReplyScanner { at: 0, left: 1 }
    }
}

/// What stands at the front of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A whole reply of this many bytes.
    Reply(usize),
    /// Not yet; with `wanted` bytes from the front it can go on.
    More { wanted: usize },
}

impl ReplyScanner {
    /// Looks for a reply at the front of `bytes`, which begin as those of the last call did while that found none.
    pub fn scan(&mut self, bytes: &[u8], bytes_max: usize) -> Result<Found, Malformed> {
        while self.left > 0 {
            let rest = bytes.get(self.at..).unwrap_or_default();
            let Some(element) = element(rest)? else {
                if rest.len() > LINE_MAX {
                    return Err(Malformed::Line);
                }
                return Ok(Found::More { wanted: bytes.len() + 1 });
            };
            let end = self.at.saturating_add(element.bytes);
            if end > bytes_max {
                return Err(Malformed::Large);
            }
            if end > bytes.len() {
                return Ok(Found::More { wanted: end });
            }
            self.at = end;
            self.left = self.left - 1 + element.children;
        }
        let found = Found::Reply(self.at);
        *self = ReplyScanner::default();
        Ok(found)
    }
}

/// One element without its children.
struct Element {
    /// Bytes with header and end of line, whether they are there or not.
    bytes: usize,
    /// Elements that follow and belong to it.
    children: u64,
}

fn element(bytes: &[u8]) -> Result<Option<Element>, Malformed> {
    let window = bytes.get(..bytes.len().min(LINE_MAX)).unwrap_or_default();
    let Some(end) = memchr::memchr(b'\n', window) else {
        return match bytes.first() {
            Some(kind) if !is_kind(*kind) => Err(Malformed::Type),
            _ => Ok(None),
        };
    };
    let line = end + 1;
    let kind = window.first().copied().unwrap_or_default();
    let value = || {
        let digits = window.get(1..end).and_then(|digits| digits.strip_suffix(b"\r"));
        digits.and_then(number).ok_or(Malformed::Count)
    };
    let (bytes, children) = match kind {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => match window.get(end.wrapping_sub(1)) {
            Some(b'\r') => (line, 0),
            _ => return Err(Malformed::Line),
        },
        b'$' | b'=' | b'!' => match value()? {
            -1 => (line, 0),
            length => {
                let length = usize::try_from(length).map_err(|_negative| Malformed::Bulk)?;
                (line.saturating_add(length).saturating_add(2), 0)
            }
        },
        b'*' | b'~' | b'>' => (line, value()?.max(0) as u64),
        b'%' => (line, 2 * pairs(value()?)?),
        // An attribute is followed by the reply that it belongs to.
        b'|' => (line, 2 * pairs(value()?)? + 1),
        _ => return Err(Malformed::Type),
    };
    if children > u64::from(u32::MAX) {
        return Err(Malformed::Count);
    }
    Ok(Some(Element { bytes, children }))
}

fn is_kind(kind: u8) -> bool {
    b"+-:_#,($=!*~>%|".contains(&kind)
}

fn pairs(count: i64) -> Result<u64, Malformed> {
    u64::try_from(count).map_err(|_negative| Malformed::Count)
}

/// Bytes of the whole element at the front of `bytes`, children included; `None` if it is not there or malformed.
pub fn length(bytes: &[u8]) -> Option<usize> {
    match ReplyScanner::default().scan(bytes, usize::MAX) {
        Ok(Found::Reply(length)) => Some(length),
        _ => None,
    }
}

/// Count of an aggregate at the front and what follows its header.
pub fn aggregate(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    if !matches!(kind, b'*' | b'~' | b'>' | b'%') {
        return None;
    }
    let end = memchr::memchr(b'\n', rest)?;
    let count = number(rest.get(..end)?.strip_suffix(b"\r")?)?;
    let count = usize::try_from(count).unwrap_or(0);
    Some((if *kind == b'%' { 2 * count } else { count }, rest.get(end + 1..)?))
}

/// A reply taken apart, for the control plane: replies of health checks, slots, sentinels.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(Vec<u8>),
    Error(String),
    Integer(i64),
    List(Vec<Value>),
    Null,
}

/// How deep a reply of the control plane may nest.
const DEPTH_MAX: usize = 16;

impl Value {
    /// Reads one whole reply.
    pub fn read(bytes: &[u8]) -> Option<Value> {
        let mut rest = bytes;
        read(&mut rest, DEPTH_MAX)
    }

    /// Elements of a list; of anything else none.
    pub fn list(&self) -> &[Value] {
        match self {
            Value::List(list) => list,
            _ => &[],
        }
    }

    /// As text, if it is.
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }

    /// As a number, also when written as text.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Value::Integer(value) => Some(*value),
            Value::Text(text) => number(text),
            _ => None,
        }
    }
}

fn read(rest: &mut &[u8], depth: usize) -> Option<Value> {
    if let Some((count, inner)) = aggregate(rest) {
        if rest.starts_with(b"*-1") {
            *rest = inner;
            return Some(Value::Null);
        }
        *rest = inner;
        let depth = depth.checked_sub(1)?;
        let list: Option<Vec<_>> = (0..count).map(|_| read(rest, depth)).collect();
        return list.map(Value::List);
    }
    let whole = rest.get(..length(rest)?)?;
    *rest = rest.get(whole.len()..)?;
    let line_end = memchr::memchr(b'\n', whole)?;
    let line = whole.get(1..line_end.checked_sub(1)?)?;
    Some(match whole.first()? {
        b'+' | b',' | b'#' | b'(' => Value::Text(line.to_vec()),
        b'-' => Value::Error(String::from_utf8_lossy(line).into_owned()),
        b':' => Value::Integer(number(line)?),
        b'_' => Value::Null,
        b'$' if line == b"-1" => Value::Null,
        b'$' => Value::Text(whole.get(line_end + 1..whole.len() - 2)?.to_vec()),
        b'=' => Value::Text(whole.get(line_end + 5..whole.len() - 2)?.to_vec()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLIES: &[&[u8]] = &[
        b"+OK\r\n",
        b"-ERR no\r\n",
        b":-5\r\n",
        b"$5\r\nab\r\nc\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*3\r\n$1\r\na\r\n*2\r\n:1\r\n:2\r\n$-1\r\n",
        b"%2\r\n+a\r\n:1\r\n+b\r\n~1\r\n#t\r\n",
        b"|1\r\n+ttl\r\n:3\r\n*1\r\n,1.5\r\n",
        b">2\r\n+message\r\n_\r\n",
        b"=7\r\ntxt:abc\r\n",
    ];

    #[test]
    fn ends_are_found_wherever_the_bytes_are_cut() {
        for reply in REPLIES {
            let mut bytes = reply.to_vec();
            bytes.extend_from_slice(b"+next\r\n");
            for cut in 0..reply.len() {
                let mut scanner = ReplyScanner::default();
                let first = scanner.scan(&bytes[..cut], 1 << 20);
                assert!(matches!(first, Ok(Found::More { wanted }) if wanted > cut), "{first:?} {cut}");
                assert_eq!(
                    scanner.scan(&bytes, 1 << 20),
                    Ok(Found::Reply(reply.len())),
                    "{}",
                    reply.escape_ascii()
                );
                assert_eq!(scanner.scan(&bytes[reply.len()..], 1 << 20), Ok(Found::Reply(7)));
            }
        }
    }

    #[test]
    fn bad_replies_are_told_apart() {
        let scan = |bytes: &[u8]| ReplyScanner::default().scan(bytes, 1 << 20);
        assert_eq!(scan(b"hello"), Err(Malformed::Type));
        assert_eq!(scan(b"$1073741824\r\n"), Err(Malformed::Large));
        assert_eq!(scan(b"$-2\r\n"), Err(Malformed::Bulk));
        assert_eq!(scan(b"*99999999999\r\n"), Err(Malformed::Count));
        assert_eq!(scan(b"%-3\r\n"), Err(Malformed::Count));
    }

    #[test]
    fn depth_costs_nothing() {
        let mut bytes = b"*1\r\n".repeat(100_000);
        bytes.extend_from_slice(b":1\r\n");
        assert_eq!(length(&bytes), Some(bytes.len()));
        assert_eq!(Value::read(&bytes), None);
    }

    #[test]
    fn values() {
        let value = Value::read(b"*3\r\n$1\r\na\r\n*2\r\n:1\r\n+2\r\n$-1\r\n").expect("reads");
        assert_eq!(value.list()[0].text(), Some("a"));
        assert_eq!(value.list()[1].list()[1].integer(), Some(2));
        assert_eq!(value.list()[2], Value::Null);
        assert_eq!(Value::read(b"-ERR x\r\n"), Some(Value::Error("ERR x".into())));
    }
}
