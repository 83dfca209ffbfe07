//! One reply made of several: requests that were split over servers.

use bytes::Bytes;

use crate::net::Out;
use crate::resp::reply::{aggregate, length};
use crate::resp::{number, write};

/// How parts become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// Lists of values; the value of key `i` is the next of the part that `order[i]` names.
    List { order: Vec<u16> },
    /// Lists one behind the other.
    Concat,
    /// `OK`, if all say so.
    Ok,
    /// Numbers are added.
    Sum,
    /// The first part's, unless another is an error.
    First,
    /// Memcached: items of all parts, one `END`.
    Items,
    /// Memcached: the first part's line, unless another is an error.
    Line,
}

/// Parts of a reply.
#[derive(Debug)]
pub struct Join {
    kind: JoinKind,
    parts: Vec<Bytes>,
    left: u16,
}

impl Join {
    /// Awaits `count` parts, at least one.
    pub fn new(kind: JoinKind, count: u16) -> Join {
        Join {
            kind,
            parts: vec![Bytes::new(); usize::from(count)],
            left: count,
        }
    }

    /// Puts a part into its place; a second one for the same place is dropped.
    pub fn take(&mut self, part: u16, reply: Bytes) {
        if let Some(place) = self.parts.get_mut(usize::from(part))
            && place.is_empty()
        {
            *place = reply;
            self.left -= 1;
        }
    }

    /// Whether nothing is missing.
    pub fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// Writes the whole reply; true if it is an error.
    pub fn finish(&mut self, out: &mut Out) -> bool {
        if let Some(error) = self.parts.iter().find(|part| self.is_error(part)) {
            out.push(error);
            return true;
        }
        match &self.kind {
            JoinKind::List { order } => out.with(|out| list(out, order, &self.parts)),
            JoinKind::Concat => {
                let lists: Vec<_> = self.parts.iter().filter_map(|part| aggregate(part)).collect();
                out.with(|out| {
                    write::array(out, lists.iter().map(|(count, _)| count).sum());
                    lists.iter().for_each(|(_, items)| out.extend_from_slice(items));
                });
            }
            JoinKind::Sum => {
                let value = |part: &Bytes| number(part.get(1..)?.strip_suffix(b"\r\n")?);
                let sum = self.parts.iter().filter_map(value).sum();
                out.with(|out| write::integer(out, sum));
            }
            JoinKind::Ok | JoinKind::First | JoinKind::Line => {
                if let Some(first) = self.parts.first() {
                    out.push(first);
                }
            }
            JoinKind::Items => {
                for part in &self.parts {
                    out.push(part.strip_suffix(b"END\r\n").unwrap_or(part));
                }
                out.push(b"END\r\n");
            }
        }
        false
    }

    fn is_error(&self, part: &[u8]) -> bool {
        match self.kind {
            JoinKind::Items | JoinKind::Line => crate::memcached::is_error(part),
            JoinKind::List { .. } | JoinKind::Concat => part.first() == Some(&b'-') || aggregate(part).is_none(),
            _ => part.first() == Some(&b'-'),
        }
    }
}

/// Values in the order of keys. A part that has too few (no server does that) gives nulls.
fn list(out: &mut Vec<u8>, order: &[u16], parts: &[Bytes]) {
    let mut rests: Vec<&[u8]> = parts
        .iter()
        .map(|part| aggregate(part).map_or(&[][..], |(_, items)| items))
        .collect();
    out.reserve(parts.iter().map(Bytes::len).sum());
    write::array(out, order.len());
    for part in order {
        let rest = rests.get_mut(usize::from(*part));
        let value = rest.and_then(|rest| {
            let (value, after) = rest.split_at_checked(bulk_length(rest)?)?;
            *rest = after;
            Some(value)
        });
        out.extend_from_slice(value.unwrap_or(b"$-1\r\n"));
    }
}

/// As `length`, with a short way for the usual value.
fn bulk_length(bytes: &[u8]) -> Option<usize> {
    let mut value = 0usize;
    if bytes.first() != Some(&b'$') {
        return length(bytes);
    }
    for (at, byte) in bytes.iter().enumerate().skip(1).take(10) {
        match byte {
            b'0'..=b'9' => value = value * 10 + usize::from(byte - b'0'),
            b'\r' if at > 1 => return Some(at + 2 + value + 2),
            _ => break,
        }
    }
    length(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(kind: JoinKind, parts: &[&[u8]]) -> Vec<u8> {
        let mut join = Join::new(kind, parts.len() as u16);
        for (at, part) in parts.iter().enumerate().rev() {
            assert!(!join.is_complete());
            join.take(at as u16, Bytes::copy_from_slice(part));
        }
        assert!(join.is_complete());
        let mut out = Out::default();
        join.finish(&mut out);
        let mut bytes = Vec::new();
        out.with(|tail| bytes = tail.clone());
        bytes
    }

    #[test]
    fn values_are_joined_in_the_order_of_keys() {
        let kind = JoinKind::List { order: vec![1, 0, 1] };
        let parts: [&[u8]; 2] = [b"*1\r\n$1\r\na\r\n", b"*2\r\n$-1\r\n$10\r\n0123456789\r\n"];
        assert_eq!(joined(kind.clone(), &parts), b"*3\r\n$-1\r\n$1\r\na\r\n$10\r\n0123456789\r\n");
        assert_eq!(joined(kind.clone(), &[parts[0], b"-ERR x\r\n"]), b"-ERR x\r\n");
        // Too few values never shift those of others.
        assert_eq!(
            joined(kind, &[parts[0], b"*1\r\n$1\r\nb\r\n"]),
            b"*3\r\n$1\r\nb\r\n$1\r\na\r\n$-1\r\n"
        );
    }

    #[test]
    fn the_other_kinds() {
        assert_eq!(joined(JoinKind::Sum, &[b":1\r\n", b":41\r\n"]), b":42\r\n");
        assert_eq!(joined(JoinKind::Ok, &[b"+OK\r\n", b"-ERR x\r\n"]), b"-ERR x\r\n");
        assert_eq!(
            joined(JoinKind::Concat, &[b"*1\r\n$1\r\na\r\n", b"*0\r\n", b"*1\r\n:1\r\n"]),
            b"*2\r\n$1\r\na\r\n:1\r\n"
        );
        let parts: [&[u8]; 2] = [b"VALUE a 0 1\r\nx\r\nEND\r\n", b"END\r\n"];
        assert_eq!(joined(JoinKind::Items, &parts), b"VALUE a 0 1\r\nx\r\nEND\r\n");
    }
}
