//! RESP2 and RESP3: requests ([`request`]), replies ([`reply`]) and their making ([`mod@write`]).

pub mod inline;
pub mod reply;
pub mod request;
pub mod write;

/// What is wrong with bytes from outside; the connection that they came from is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("invalid multibulk length")]
    Count,
    #[error("invalid bulk length")]
    Bulk,
    #[error("expected '$'")]
    NotBulk,
    #[error("unbalanced quotes in request")]
    Quotes,
    #[error("line too long")]
    Line,
    #[error("request too large")]
    Large,
    #[error("unknown type of reply")]
    Type,
}

/// Longest line of a header or of an inline request.
pub const LINE_MAX: usize = 64 * 1024;

/// A decimal number, with a sign where one may be; `None` if it is anything else.
pub fn number(digits: &[u8]) -> Option<i64> {
    let (negative, digits) = match digits.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, digits),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value = 0i64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if negative { -value } else { value })
}
