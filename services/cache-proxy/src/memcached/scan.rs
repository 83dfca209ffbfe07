//! What a server's reply looks like, where it ends, and what of it the client sees.

use crate::mailbox::Mailbox;
use crate::resp::reply::Found;
use crate::resp::{LINE_MAX, Malformed, number};

/// The form of a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// RESP, handed over as it is.
    #[default]
    Resp,
    /// RESP to `SCAN`: index of the server and of the next one.
    Scan { at: u16, next: u16 },
    /// One line.
    Line,
    /// Items, then `END`.
    Items,
    /// Lines that begin with `STAT`, then one that does not.
    Stats,
    /// A line, with a block of data if it begins with `VA`.
    Meta,
    /// A binary packet; the opcode and the opaque that the client sent.
    Binary { opcode: u8, opaque: u32 },
}

/// Which replies the client does not want.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quiet {
    #[default]
    Nothing,
    Everything,
    /// Lines that begin with one of two words.
    Lines(&'static [&'static [u8]; 2]),
    /// Binary: success.
    Success,
    /// Binary: anything but success.
    Failure,
}

/// What is expected in reply to a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    pub form: Form,
    pub quiet: Quiet,
}

/// Head of a binary packet.
pub const HEAD: usize = 24;

impl Expected {
    /// A reply to `SCAN`.
    pub fn scan(at: u16, next: u16) -> Expected {
        Expected {
            form: Form::Scan { at, next },
            quiet: Quiet::Nothing,
        }
    }

    /// An error in place of a reply. `text` begins with a code, as RESP has it.
    pub fn error(&self, text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        match self.form {
            Form::Resp | Form::Scan { .. } => crate::resp::write::error(&mut out, text),
            Form::Binary { opcode, opaque } => {
                out.extend_from_slice(&super::binary::packet(
                    opcode,
                    super::binary::STATUS_FAILED,
                    opaque,
                    text.as_bytes(),
                ));
            }
            _ => {
                let text = text.split_once(' ').map_or(text, |(_code, text)| text);
                out.extend_from_slice(b"SERVER_ERROR ");
                out.extend(
                    text.bytes()
                        .map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }),
                );
                out.extend_from_slice(b"\r\n");
            }
        }
        out
    }

    /// Hands a server's reply over.
    pub fn deliver(&self, to: &Mailbox, request: u64, part: u16, reply: &[u8]) {
        if let Form::Scan { at, next } = self.form {
            return crate::redis::deliver_scan(to, request, u64::from(at), u64::from(next), reply);
        }
        if self.is_unwanted(reply) {
            return to.deliver(request, part, b"");
        }
        match self.form {
            Form::Binary { opcode, .. } if reply.get(1) != Some(&opcode) => {
                let mut reply = reply.to_vec();
                if let Some(place) = reply.get_mut(1) {
                    *place = opcode;
                }
                to.deliver(request, part, &reply);
            }
            _ => to.deliver(request, part, reply),
        }
    }

    fn is_unwanted(&self, reply: &[u8]) -> bool {
        let status = || reply.get(6..8).unwrap_or_default() == [0, 0];
        match self.quiet {
            Quiet::Nothing => false,
            Quiet::Everything => true,
            Quiet::Lines(words) => words.iter().any(|word| reply.starts_with(word)),
            Quiet::Success => status(),
            Quiet::Failure => !status(),
        }
    }
}

/// State within one reply.
#[derive(Debug, Default)]
pub struct Scanner {
    at: usize,
}

impl Scanner {
    /// Looks for a reply of the expected form at the front of `bytes`, which begin as those of the last call did while that found none.
    pub fn scan(&mut self, bytes: &[u8], expected: &Expected, bytes_max: usize) -> Result<Found, Malformed> {
        let found = match expected.form {
            Form::Binary { .. } => binary(bytes),
            Form::Items => self.items(bytes),
            Form::Stats => self.stats(bytes),
            Form::Meta => meta(bytes),
            _ => Ok(line(bytes, 0)?.map_or(more(bytes), Found::Reply)),
        }?;
        match found {
            Found::Reply(length) | Found::More { wanted: length } if length > bytes_max => return Err(Malformed::Large),
            Found::Reply(_) => self.at = 0,
            Found::More { .. } => {}
        }
        Ok(found)
    }

    fn items(&mut self, bytes: &[u8]) -> Result<Found, Malformed> {
        loop {
            let Some(end) = line(bytes, self.at)? else {
                return Ok(more(bytes));
            };
            let text = bytes.get(self.at..end).unwrap_or_default();
            if !text.starts_with(b"VALUE ") {
                return Ok(Found::Reply(end));
            }
            let size = text.trim_ascii_end().split(|byte| *byte == b' ').nth(3).and_then(number);
            let size = size.and_then(|size| usize::try_from(size).ok()).ok_or(Malformed::Bulk)?;
            let item = end.saturating_add(size).saturating_add(2);
            if item > bytes.len() {
                return Ok(Found::More { wanted: item });
            }
            self.at = item;
        }
    }
}

impl Scanner {
    fn stats(&mut self, bytes: &[u8]) -> Result<Found, Malformed> {
        loop {
            let Some(end) = line(bytes, self.at)? else {
                return Ok(more(bytes));
            };
            if !bytes.get(self.at..end).unwrap_or_default().starts_with(b"STAT ") {
                return Ok(Found::Reply(end));
            }
            self.at = end;
        }
    }
}

fn more(bytes: &[u8]) -> Found {
    Found::More { wanted: bytes.len() + 1 }
}

/// One past the end of the line at `at`, if it is whole.
fn line(bytes: &[u8], at: usize) -> Result<Option<usize>, Malformed> {
    let rest = bytes.get(at..).unwrap_or_default();
    match memchr::memchr(b'\n', rest.get(..rest.len().min(LINE_MAX)).unwrap_or_default()) {
        Some(end) => Ok(Some(at + end + 1)),
        None if rest.len() >= LINE_MAX => Err(Malformed::Line),
        None => Ok(None),
    }
}

fn meta(bytes: &[u8]) -> Result<Found, Malformed> {
    let Some(end) = line(bytes, 0)? else {
        return Ok(more(bytes));
    };
    let text = bytes.get(..end).unwrap_or_default();
    if !text.starts_with(b"VA ") {
        return Ok(Found::Reply(end));
    }
    let size = text.trim_ascii_end().split(|byte| *byte == b' ').nth(1).and_then(number);
    let size = size.and_then(|size| usize::try_from(size).ok()).ok_or(Malformed::Bulk)?;
    let item = end.saturating_add(size).saturating_add(2);
    Ok(if item > bytes.len() {
        Found::More { wanted: item }
    } else {
        Found::Reply(item)
    })
}

fn binary(bytes: &[u8]) -> Result<Found, Malformed> {
    match bytes.first() {
        Some(&super::binary::REPLY) | None => {}
        Some(_) => return Err(Malformed::Type),
    }
    let Some([.., b0, b1, b2, b3, _, _, _, _, _, _, _, _, _, _, _, _]) = bytes.first_chunk::<HEAD>() else {
        return Ok(Found::More { wanted: HEAD });
    };
    let length = HEAD.saturating_add(u32::from_be_bytes([*b0, *b1, *b2, *b3]) as usize);
    Ok(if length > bytes.len() {
        Found::More { wanted: length }
    } else {
        Found::Reply(length)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(form: Form) -> Expected {
        Expected {
            form,
            quiet: Quiet::Nothing,
        }
    }

    #[test]
    fn replies_end_where_they_end_wherever_they_are_cut() {
        let packet = super::super::binary::packet(0, 0, 7, b"hello");
        for (form, reply) in [
            (Form::Line, &b"STORED\r\n"[..]),
            (Form::Items, b"VALUE a 0 5\r\nEND\r\n\r\nVALUE b 1 1 99\r\nx\r\nEND\r\n"),
            (Form::Items, b"END\r\n"),
            (Form::Items, b"SERVER_ERROR out of memory\r\n"),
            (Form::Meta, b"VA 4 t30\r\nHD\r\n\r\n"),
            (Form::Meta, b"EN\r\n"),
            (Form::Binary { opcode: 0, opaque: 7 }, &packet),
        ] {
            let mut bytes = reply.to_vec();
            bytes.extend_from_slice(b"NEXT\r\n");
            for cut in 0..reply.len() {
                let mut scanner = Scanner::default();
                let first = scanner.scan(&bytes[..cut], &expected(form), 1 << 20);
                assert!(
                    matches!(first, Ok(Found::More { wanted }) if wanted > cut),
                    "{form:?} {cut} {first:?}"
                );
                let whole = scanner.scan(&bytes, &expected(form), 1 << 20);
                assert_eq!(whole, Ok(Found::Reply(reply.len())), "{form:?} {cut}");
            }
        }
    }

    #[test]
    fn bad_replies_are_told_apart() {
        let scan = |form, bytes: &[u8]| Scanner::default().scan(bytes, &expected(form), 1 << 20);
        assert_eq!(scan(Form::Items, b"VALUE a 0 x\r\n"), Err(Malformed::Bulk));
        assert_eq!(scan(Form::Items, b"VALUE a 0 99999999\r\n"), Err(Malformed::Large));
        assert_eq!(scan(Form::Meta, b"VA -1\r\n"), Err(Malformed::Bulk));
        assert_eq!(
            scan(Form::Binary { opcode: 0, opaque: 0 }, b"STORED\r\n"),
            Err(Malformed::Type)
        );
    }

    #[test]
    fn errors_have_the_form_of_the_protocol() {
        assert_eq!(expected(Form::Line).error("ERR gone"), b"SERVER_ERROR gone\r\n");
        assert_eq!(expected(Form::Resp).error("ERR gone"), b"-ERR gone\r\n");
        assert_eq!(
            expected(Form::Binary { opcode: 1, opaque: 2 }).error("ERR gone").len(),
            HEAD + 8
        );
    }
}
