//! The text protocol's commands as calls, and their answers.

use std::borrow::Cow;

use bytes::Bytes;

use super::{Answer, Ask, BAD_LINE, Call, Count, Mode, Put, Verdict, unique, unsigned};
use crate::ferrite::Item;
use crate::resp::number;

/// The shape of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// What was found, then `END`.
    Items {
        with_unique: bool,
    },
    Line,
}

/// Reads a command without its `noreply`; the error is the line to answer.
pub(super) fn call(words: &[&[u8]], block: &[u8]) -> Result<Call, Cow<'static, str>> {
    let name = words.first().copied().unwrap_or_default();
    let key = || words.get(1).map(|key| Bytes::copy_from_slice(key)).ok_or("ERROR");
    let told = |at: usize| words.get(at).and_then(|word| number(word)).ok_or(BAD_LINE);
    let has = |count: usize| if words.len() == count { Ok(()) } else { Err("ERROR") };
    let (first, ask, compare, form) = match name {
        b"get" | b"gets" => (1, Ask::Get, None, items(name)),
        b"gat" | b"gats" => {
            let time = told(1).map_err(|_error| "CLIENT_ERROR invalid exptime argument")?;
            (2, Ask::Touch { time }, None, items(name))
        }
        b"delete" => {
            let is_plain = words.len() == 2 || (words.len() == 3 && words.get(2) == Some(&&b"0"[..]));
            if !is_plain {
                return Err("CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]".into());
            }
            (1, Ask::Delete, None, Form::Line)
        }
        b"touch" => {
            has(3)?;
            let time = told(2).map_err(|_error| "CLIENT_ERROR invalid exptime argument")?;
            (1, Ask::Touch { time }, None, Form::Line)
        }
        b"incr" | b"decr" => {
            has(3)?;
            let delta = words.get(2).and_then(|word| unsigned(word));
            let count = Count {
                is_up: name == b"incr",
                delta: delta.ok_or("CLIENT_ERROR invalid numeric delta argument")?,
                initial: None,
                time: None,
            };
            (1, Ask::Count(count), None, Form::Line)
        }
        _ => {
            has(if name == b"cas" { 6 } else { 5 })?;
            let put = Put {
                mode: mode(name),
                flags: u32::try_from(told(2)?).map_err(|_error| BAD_LINE)?,
                time: told(3)?,
                data: Bytes::copy_from_slice(block),
                makes: false,
            };
            let compare = words.get(5).map(|word| unsigned(word).ok_or(BAD_LINE)).transpose()?;
            (1, Ask::Put(put), compare, Form::Line)
        }
    };
    let keys = match form {
        Form::Line => vec![key()?],
        Form::Items { .. } => words.iter().skip(first).map(|key| Bytes::copy_from_slice(key)).collect(),
    };
    Ok(Call {
        keys,
        ask,
        compare,
        form: super::Form::Text(form),
    })
}

fn items(name: &[u8]) -> Form {
    Form::Items {
        with_unique: name.ends_with(b"s"),
    }
}

fn mode(name: &[u8]) -> Mode {
    match name {
        b"add" => Mode::Add,
        b"replace" => Mode::Replace,
        b"append" => Mode::Append,
        b"prepend" => Mode::Prepend,
        _ => Mode::Set,
    }
}

impl Form {
    pub(super) fn write(self, out: &mut Vec<u8>, key: &[u8], ask: &Ask, answer: &Answer) {
        match (self, &answer.item) {
            (Form::Line, item) => {
                out.extend_from_slice(&line(ask, answer.verdict, item.as_ref()));
                out.extend_from_slice(b"\r\n");
            }
            (Form::Items { with_unique }, Some(item)) => value(out, key, item, with_unique),
            (Form::Items { .. }, None) => {}
        }
    }

    /// After what was written for the keys.
    pub(super) fn end(self, out: &mut Vec<u8>) {
        if let Form::Items { .. } = self {
            out.extend_from_slice(b"END\r\n");
        }
    }
}

fn line(ask: &Ask, verdict: Verdict, item: Option<&Item>) -> Bytes {
    let text: &'static [u8] = match (verdict, ask) {
        (Verdict::Done, Ask::Count(_)) => return item.map(|item| item.data.clone()).unwrap_or_default(),
        (Verdict::Done, Ask::Put(_)) => b"STORED",
        (Verdict::Done, Ask::Delete) => b"DELETED",
        (Verdict::Done, Ask::Clear) => b"OK",
        (Verdict::Done, Ask::Touch { .. } | Ask::Get) => b"TOUCHED",
        (Verdict::Missing, _) => b"NOT_FOUND",
        (Verdict::NotStored, _) => b"NOT_STORED",
        (Verdict::Differs, _) => b"EXISTS",
        (Verdict::NotNumeric, _) => b"CLIENT_ERROR cannot increment or decrement non-numeric value",
    };
    Bytes::from_static(text)
}

fn value(out: &mut Vec<u8>, key: &[u8], item: &Item, with_unique: bool) {
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key);
    out.extend_from_slice(format!(" {} {}", item.flags, item.data.len()).as_bytes());
    if with_unique {
        out.extend_from_slice(format!(" {}", unique(item)).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&item.data);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str, block: &str) -> Result<Call, Cow<'static, str>> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        call(&words, block.as_bytes())
    }

    #[test]
    fn commands_become_calls() {
        let cas = read("cas k 7 10 1 18446744073709551615", "x").expect("reads");
        assert_eq!(cas.compare, Some(u64::MAX));
        assert!(matches!(cas.ask, Ask::Put(put) if (put.mode, put.flags, put.time) == (Mode::Set, 7, 10)));
        let gats = read("gats 30 a b", "").expect("reads");
        assert_eq!((gats.keys.len(), gats.ask), (2, Ask::Touch { time: 30 }));
        assert!(read("delete k 0", "").is_ok());
    }

    #[test]
    fn bad_lines_are_answered() {
        for (line, wanted) in [
            ("incr k x", "CLIENT_ERROR invalid numeric delta argument"),
            ("incr k", "ERROR"),
            ("touch k x", "CLIENT_ERROR invalid exptime argument"),
            ("gat x k", "CLIENT_ERROR invalid exptime argument"),
            ("set k -1 0 1", BAD_LINE),
            ("cas k 0 0 1", "ERROR"),
            ("cas k 0 0 1 x", BAD_LINE),
        ] {
            assert_eq!(read(line, "x").map(|call| call.ask), Err(wanted.into()), "{line}");
        }
    }
}
