//! Reads requests: where their arguments lie, without copying them and without ever starting over after a short read.

use super::{LINE_MAX, Malformed, number};

/// Where an argument lies, counted from the request's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arg {
    /// First byte of the `$` header.
    pub head: u32,
    /// First byte of the content.
    pub start: u32,
    /// One past its last byte; two more bytes end the line.
    pub end: u32,
}

impl Arg {
    /// The content within its request.
    pub fn of(self, request: &[u8]) -> &[u8] {
        request.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// Header, content and end of line: what another request can take over as it is.
    pub fn raw(self, request: &[u8]) -> &[u8] {
        request.get(self.head as usize..self.end as usize + 2).unwrap_or_default()
    }
}

/// What stands at the front of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A request of this many bytes; its arguments are in [`RequestParser::args`].
    Request(usize),
    /// An inline request of this many bytes with its end of line.
    Inline(usize),
    /// Not a whole request yet; with `wanted` bytes from the front it can go on.
    More { wanted: usize },
}

/// What a request may be at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub args: usize,
    pub bytes: usize,
}

/// State within one request. After [`Found::Request`] it starts anew at the front of what follows.
#[derive(Debug, Default)]
pub struct RequestParser {
    args: Vec<Arg>,
    /// Arguments still to come; `None`: the header was not read yet.
    left: Option<usize>,
    /// Everything before was read.
    at: usize,
}

impl RequestParser {
    /// Arguments of the request that was found last.
    pub fn args(&self) -> &[Arg] {
        &self.args
    }

    /// Gives memory back that a wide request left.
    pub fn shrink(&mut self) {
        if self.args.capacity() > 64 && self.left.is_none() {
            self.args = Vec::new();
        }
    }

    /// Looks for a request at the front of `bytes`, which begin as those of the last call did while that found none.
    pub fn parse(&mut self, bytes: &[u8], limits: Limits) -> Result<Found, Malformed> {
        let mut left = match self.left {
            Some(left) => left,
            None => {
                match bytes.first() {
                    None => return Ok(Found::More { wanted: 1 }),
                    Some(b'*') => {}
                    Some(_) => return inline(bytes),
                }
                let Some((count, after)) = header(bytes, 0, Malformed::Count)? else {
                    return Ok(Found::More { wanted: bytes.len() + 1 });
                };
                self.args.clear();
                self.at = after;
                // A null or negative array asks for nothing and gets nothing, as in Redis.
                let count = usize::try_from(count).unwrap_or(0);
                if count > limits.args {
                    return Err(Malformed::Count);
                }
                self.left = Some(count);
                count
            }
        };
        while left > 0 {
            match bytes.get(self.at) {
                None => return Ok(Found::More { wanted: self.at + 1 }),
                Some(b'$') => {}
                Some(_) => return Err(Malformed::NotBulk),
            }
            let Some((length, start)) = header(bytes, self.at, Malformed::Bulk)? else {
                return Ok(Found::More { wanted: bytes.len() + 1 });
            };
            let length = usize::try_from(length).map_err(|_negative| Malformed::Bulk)?;
            if length > limits.bytes {
                return Err(Malformed::Bulk);
            }
            let end = start + length;
            if end + 2 > limits.bytes {
                return Err(Malformed::Large);
            }
            if bytes.len() < end + 2 {
                return Ok(Found::More { wanted: end + 2 });
            }
            if bytes.get(end..end + 2) != Some(b"\r\n") {
                return Err(Malformed::Bulk);
            }
            self.args.push(Arg {
                head: self.at as u32,
                start: start as u32,
                end: end as u32,
            });
            self.at = end + 2;
            left -= 1;
            self.left = Some(left);
        }
        self.left = None;
        Ok(Found::Request(self.at))
    }
}

/// The number after the type byte at `at`, and where the next line begins; `None` if the line is not whole.
fn header(bytes: &[u8], at: usize, fault: Malformed) -> Result<Option<(i64, usize)>, Malformed> {
    let line = bytes.get(at + 1..).unwrap_or_default();
    // Most numbers have one or two digits; a search would cost more than it finds.
    if let [digit @ b'0'..=b'9', b'\r', b'\n', ..] = line {
        return Ok(Some((i64::from(digit - b'0'), at + 4)));
    }
    let window = line.get(..line.len().min(24)).unwrap_or_default();
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if line.len() > 24 { Err(fault) } else { Ok(None) };
    };
    let digits = window.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(fault)?;
    Ok(Some((number(digits).ok_or(fault)?, at + 1 + end + 1)))
}

fn inline(bytes: &[u8]) -> Result<Found, Malformed> {
    let window = bytes.get(..bytes.len().min(LINE_MAX)).unwrap_or_default();
    match memchr::memchr(b'\n', window) {
        Some(end) => Ok(Found::Inline(end + 1)),
        None if bytes.len() >= LINE_MAX => Err(Malformed::Line),
        None => Ok(Found::More { wanted: bytes.len() + 1 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        args: 1024,
        bytes: 1 << 20,
    };

    fn parse_all(bytes: &[u8]) -> Result<Found, Malformed> {
        RequestParser::default().parse(bytes, LIMITS)
    }

    #[test]
    fn arguments_are_found_where_they_lie() {
        let bytes = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\nhello\r\nworld\r\n*1\r\n";
        let mut parser = RequestParser::default();
        assert_eq!(parser.parse(bytes, LIMITS), Ok(Found::Request(bytes.len() - 4)));
        let args: Vec<_> = parser.args().iter().map(|arg| arg.of(bytes)).collect();
        assert_eq!(args, [&b"SET"[..], b"k", b"hello\r\nworld"]);
        assert_eq!(parser.args()[1].raw(bytes), b"$1\r\nk\r\n");
    }

    #[test]
    fn a_request_cut_at_any_byte_is_found_in_the_end() {
        let bytes = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\nhello\r\nworld\r\n";
        for first in 0..bytes.len() {
            for second in first..bytes.len() {
                let mut parser = RequestParser::default();
                for part in [first, second] {
                    assert!(
                        matches!(parser.parse(&bytes[..part], LIMITS), Ok(Found::More { wanted }) if wanted > part),
                        "{first} {second}"
                    );
                }
                assert_eq!(parser.parse(bytes, LIMITS), Ok(Found::Request(bytes.len())));
                assert_eq!(parser.args().len(), 3);
            }
        }
    }

    #[test]
    fn bad_frames_are_told_apart() {
        for (bytes, fault) in [
            (&b"*x\r\n"[..], Malformed::Count),
            (b"*99999999999999999999\r\n", Malformed::Count),
            (b"*2000\r\n", Malformed::Count),
            (b"*1\n", Malformed::Count),
            (b"*1\r\n$-1\r\n", Malformed::Bulk),
            (b"*1\r\n$1073741824\r\n", Malformed::Bulk),
            (b"*1\r\n$3\r\nabcde", Malformed::Bulk),
            (b"*1\r\n:3\r\n", Malformed::NotBulk),
            (b"*1\r\n*1\r\n*1\r\n", Malformed::NotBulk),
            (b"*1\r\n$000000000000000000000000001\r\na\r\n", Malformed::Bulk),
            (b"*2\r\n$1048570\r\n", Malformed::Large),
        ] {
            assert_eq!(parse_all(bytes), Err(fault), "{}", bytes.escape_ascii());
        }
        assert_eq!(parse_all(&vec![b'a'; LINE_MAX]), Err(Malformed::Line));
    }

    #[test]
    fn empty_and_negative_arrays_ask_for_nothing() {
        for bytes in [&b"*0\r\n"[..], b"*-1\r\n"] {
            let mut parser = RequestParser::default();
            assert_eq!(parser.parse(bytes, LIMITS), Ok(Found::Request(bytes.len())));
            assert!(parser.args().is_empty());
        }
    }

    #[test]
    fn inline_requests_end_with_their_line() {
        assert_eq!(parse_all(b"PING\r\nGET"), Ok(Found::Inline(6)));
        assert_eq!(parse_all(b"PI"), Ok(Found::More { wanted: 3 }));
    }
}
