//! Meta commands as calls, and their answers: `mg`, `ms`, `md`, `ma` and `me` with the flags that say something about what an item keeps here.
//! Marks of stale items, of their winners and of earlier reads are not kept, so flags about them are refused by name.

use std::borrow::Cow;

use bytes::Bytes;

use super::{Answer, Ask, BAD_LINE, Call, Count, Mode, Put, Verdict, unique, unsigned};
use crate::ferrite::Item;
use crate::resp::number;

/// Flags of each command: what it may be told, as it stands in the manual of the protocol.
const SERVED: &[(&[u8], &[u8])] = &[
    (b"mg", b"bcfkOqstvT"),
    (b"ms", b"bckOqCFTMN"),
    (b"md", b"bkOqC"),
    (b"ma", b"bckOqtvCNJDTM"),
    (b"me", b"b"),
];
/// Flags that exist and are not served.
const REFUSED: &[u8] = b"hlENRIxS";

/// The shape of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    name: [u8; 2],
    /// As it was told, perhaps in base64.
    key: Bytes,
    flags: Vec<Bytes>,
}

/// The flags of a request.
struct Flags<'a>(&'a [&'a [u8]]);

impl<'a> Flags<'a> {
    /// What stands after a flag, if that is there.
    fn token(&self, flag: u8) -> Option<&'a [u8]> {
        let found = self
            .0
            .iter()
            .find_map(|word| word.split_first().filter(|(first, _)| **first == flag))?;
        Some(found.1)
    }

    fn number(&self, flag: u8) -> Result<Option<i64>, &'static str> {
        let token = self.token(flag);
        token
            .map(|token| number(token).ok_or("CLIENT_ERROR bad token in command line format"))
            .transpose()
    }

    fn unsigned(&self, flag: u8) -> Result<Option<u64>, &'static str> {
        let token = self.token(flag);
        token
            .map(|token| unsigned(token).ok_or("CLIENT_ERROR bad token in command line format"))
            .transpose()
    }
}

/// Reads a command without its `q`; `key` is decoded. The error is the line to answer.
pub(super) fn call(words: &[&[u8]], key: &[u8], block: &[u8]) -> Result<Call, Cow<'static, str>> {
    let (Some(name), Some(told)) = (words.first().and_then(|name| <[u8; 2]>::try_from(*name).ok()), words.get(1)) else {
        return Err(BAD_LINE.into());
    };
    let first = if name == *b"ms" { 3 } else { 2 };
    let flags = words.get(first..).unwrap_or_default();
    check(&name, flags)?;
    let flags = Flags(flags);
    let time = flags.number(b'T')?;
    let ask = match &name {
        b"mg" => time.map_or(Ask::Get, |time| Ask::Touch { time }),
        b"ms" => Ask::Put(put(&flags, time.unwrap_or(0), block)?),
        b"md" => Ask::Delete,
        b"ma" => Ask::Count(count(&flags, time)?),
        _ => Ask::Get,
    };
    Ok(Call {
        keys: vec![Bytes::copy_from_slice(key)],
        ask,
        compare: flags.unsigned(b'C')?,
        form: super::Form::Meta(Form {
            name,
            key: Bytes::copy_from_slice(told),
            flags: flags.0.iter().map(|flag| Bytes::copy_from_slice(flag)).collect(),
        }),
    })
}

fn check(name: &[u8; 2], flags: &[&[u8]]) -> Result<(), Cow<'static, str>> {
    let served = SERVED
        .iter()
        .find(|(known, _)| known == name)
        .map_or(&b""[..], |(_, served)| *served);
    let mut seen = [false; 128];
    for flag in flags.iter().filter_map(|word| word.first()) {
        if !served.contains(flag) {
            return Err(match REFUSED.contains(flag) {
                true => format!(
                    "CLIENT_ERROR flag {} is not served by a pool of a Ferrite cluster",
                    char::from(*flag)
                )
                .into(),
                false => "CLIENT_ERROR invalid flag".into(),
            });
        }
        if let Some(seen) = seen.get_mut(usize::from(*flag))
            && std::mem::replace(seen, true)
        {
            return Err("CLIENT_ERROR duplicate flag".into());
        }
    }
    Ok(())
}

fn put(flags: &Flags<'_>, time: i64, block: &[u8]) -> Result<Put, Cow<'static, str>> {
    let mode = match flags.token(b'M') {
        None | Some([b'S' | b's']) => Mode::Set,
        Some([b'E' | b'e']) => Mode::Add,
        Some([b'R' | b'r']) => Mode::Replace,
        Some([b'A' | b'a']) => Mode::Append,
        Some([b'P' | b'p']) => Mode::Prepend,
        Some(_) => return Err("CLIENT_ERROR invalid mode for ms M token".into()),
    };
    let makes = flags.number(b'N')?;
    let told = flags.unsigned(b'F')?.unwrap_or(0);
    Ok(Put {
        mode,
        flags: u32::try_from(told).map_err(|_error| BAD_LINE)?,
        // What is made by appending has the time that was told for that.
        time: makes.unwrap_or(time),
        data: Bytes::copy_from_slice(block),
        makes: makes.is_some(),
    })
}

fn count(flags: &Flags<'_>, time: Option<i64>) -> Result<Count, Cow<'static, str>> {
    let is_up = match flags.token(b'M') {
        None | Some([b'I' | b'i' | b'+']) => true,
        Some([b'D' | b'd' | b'-']) => false,
        Some(_) => return Err("CLIENT_ERROR invalid mode for ma M token".into()),
    };
    let initial = flags.unsigned(b'J')?.unwrap_or(0);
    Ok(Count {
        is_up,
        delta: flags.unsigned(b'D')?.unwrap_or(1),
        initial: flags.number(b'N')?.map(|time| (initial, time)),
        time,
    })
}

impl Form {
    fn has(&self, flag: u8) -> bool {
        self.flags.iter().any(|word| word.first() == Some(&flag))
    }

    pub(super) fn write(&self, out: &mut Vec<u8>, answer: &Answer, now: u64) {
        let item = answer.item.as_ref();
        match (answer.verdict, &self.name, item) {
            (Verdict::Done, b"me", Some(item)) => return self.explain(out, item, now),
            (Verdict::Done, b"mg" | b"ma", Some(item)) if self.has(b'v') => {
                out.extend_from_slice(format!("VA {}", item.data.len()).as_bytes());
                self.told(out, Some(item), now);
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(&item.data);
            }
            (Verdict::NotNumeric, ..) => {
                out.extend_from_slice(b"CLIENT_ERROR cannot increment or decrement non-numeric value");
            }
            // A miss of these tells nothing more.
            (Verdict::Missing, b"mg" | b"me", _) => out.extend_from_slice(b"EN"),
            (verdict, ..) => {
                out.extend_from_slice(match verdict {
                    Verdict::Done => b"HD",
                    Verdict::Missing => b"NF",
                    Verdict::Differs => b"EX",
                    Verdict::NotStored | Verdict::NotNumeric => b"NS",
                });
                self.told(out, item, now);
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    /// What the flags ask for, in their order.
    fn told(&self, out: &mut Vec<u8>, item: Option<&Item>, now: u64) {
        for flag in &self.flags {
            let text = match (flag.first(), item) {
                (Some(b'O'), _) => String::from_utf8_lossy(flag).into_owned(),
                // In base64, if that is how it came.
                (Some(b'k'), _) if self.has(b'b') => format!("k{} b", String::from_utf8_lossy(&self.key)),
                (Some(b'k'), _) => format!("k{}", String::from_utf8_lossy(&self.key)),
                (Some(b'c'), Some(item)) => format!("c{}", unique(item)),
                (Some(b'f'), Some(item)) => format!("f{}", item.flags),
                (Some(b's'), Some(item)) => format!("s{}", item.data.len()),
                (Some(b't'), Some(item)) => format!("t{}", seconds_left(item, now)),
                _ => continue,
            };
            out.push(b' ');
            out.extend_from_slice(text.as_bytes());
        }
    }

    /// For people: what is known of an item.
    fn explain(&self, out: &mut Vec<u8>, item: &Item, now: u64) {
        out.extend_from_slice(b"ME ");
        out.extend_from_slice(&self.key);
        let (left, unique, size) = (seconds_left(item, now), unique(item), item.data.len());
        out.extend_from_slice(format!(" exp={left} cas={unique} size={size}\r\n").as_bytes());
    }
}

/// As a client counts them: a part of a second is a second, and -1 stands for ever.
fn seconds_left(item: &Item, now: u64) -> i64 {
    match item.expires {
        0 => -1,
        expires => expires.saturating_sub(now).div_ceil(1000) as i64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Call, Cow<'static, str>> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        call(&words, words[1], b"x")
    }

    #[test]
    fn flags_become_calls() {
        let set = read("ms k 1 T60 F5 C77 MA N30").expect("reads");
        assert_eq!(set.compare, Some(77));
        assert!(matches!(set.ask, Ask::Put(put) if (put.mode, put.flags, put.time, put.makes) == (Mode::Append, 5, 30, true)));
        let sum = read("ma k N60 J13 D20 MD").expect("reads");
        assert!(matches!(sum.ask, Ask::Count(count) if !count.is_up && count.delta == 20 && count.initial == Some((13, 60))));
        assert_eq!(read("mg k v T5").expect("reads").ask, Ask::Touch { time: 5 });
    }

    #[test]
    fn what_is_not_served_is_told() {
        for (line, wanted) in [
            ("mg k v v", "CLIENT_ERROR duplicate flag"),
            ("mg k !", "CLIENT_ERROR invalid flag"),
            ("mg k h", "CLIENT_ERROR flag h is not served by a pool of a Ferrite cluster"),
            ("ms k 1 MX", "CLIENT_ERROR invalid mode for ms M token"),
            ("ma k Dx", "CLIENT_ERROR bad token in command line format"),
        ] {
            assert_eq!(read(line).map(|call| call.ask), Err(wanted.into()), "{line}");
        }
    }
}
