//! Commands on one string as plain functions: what was there and the arguments give a reply and a change.

use bytes::Bytes;

use super::{Change, Item, Outcome};
use crate::resp::number;
use crate::resp::write::{self, Version};

const NOT_A_NUMBER: &str = "ERR value is not an integer or out of range";
const NOT_A_FLOAT: &str = "ERR value is not a valid float";
const SYNTAX: &str = "ERR syntax error";
/// As Redis bounds strings.
const STRING_MAX: usize = 512 * 1024 * 1024;

/// The options of `SET` and its like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetOptions {
    pub if_missing: bool,
    pub if_present: bool,
    pub wants_old: bool,
    pub keeps_expiry: bool,
    /// Milliseconds since 1970.
    pub expires: Option<u64>,
}

impl SetOptions {
    /// Reads what follows key and value.
    pub fn read(args: &[Bytes], now: u64) -> Result<SetOptions, String> {
        let mut options = SetOptions::default();
        let mut rest = args.iter();
        while let Some(word) = rest.next() {
            match word.to_ascii_uppercase().as_slice() {
                b"NX" => options.if_missing = true,
                b"XX" => options.if_present = true,
                b"GET" => options.wants_old = true,
                b"KEEPTTL" => options.keeps_expiry = true,
                unit @ (b"EX" | b"PX" | b"EXAT" | b"PXAT") if options.expires.is_none() => {
                    options.expires = Some(expiry(unit, rest.next(), now, "set")?);
                }
                _ => return Err(SYNTAX.into()),
            }
        }
        if (options.if_missing && options.if_present) || (options.keeps_expiry && options.expires.is_some()) {
            return Err(SYNTAX.into());
        }
        Ok(options)
    }

    /// Whether it does not matter what was there.
    pub fn is_blind(&self) -> bool {
        !(self.if_missing || self.if_present || self.wants_old || self.keeps_expiry)
    }
}

fn expiry(unit: &[u8], value: Option<&Bytes>, now: u64, command: &str) -> Result<u64, String> {
    let value = value.ok_or(SYNTAX)?;
    let value = number(value).ok_or(NOT_A_NUMBER)?;
    let scale = if unit.starts_with(b"P") { 1 } else { 1000 };
    let base = if unit.ends_with(b"AT") { 0 } else { now as i64 };
    let at = value.checked_mul(scale).and_then(|span| span.checked_add(base));
    match at.and_then(|at| u64::try_from(at).ok()).filter(|at| *at > 0 && value > 0) {
        Some(at) => Ok(at),
        None => Err(format!("ERR invalid expire time in '{command}' command")),
    }
}

fn outcome(change: Change, reply: impl FnOnce(&mut Vec<u8>)) -> Result<Outcome, String> {
    let mut bytes = Vec::new();
    reply(&mut bytes);
    Ok(Outcome { reply: bytes, change })
}

fn value(out: &mut Vec<u8>, version: Version, item: Option<&Item>) {
    match item {
        Some(item) => write::bulk(out, &item.data),
        None => write::null(out, version),
    }
}

/// `SET` where it matters what was there.
pub fn set(new: &Bytes, options: &SetOptions, old: Option<&Item>, version: Version) -> Result<Outcome, String> {
    let passes = !(options.if_missing && old.is_some() || options.if_present && old.is_none());
    let kept = old.filter(|_| options.keeps_expiry).map_or(0, |old| old.expires);
    let change = match passes {
        true => Change::Put(Item {
            flags: 0,
            expires: options.expires.unwrap_or(kept),
            data: new.clone(),
        }),
        false => Change::None,
    };
    outcome(change, |out| match (options.wants_old, passes) {
        (true, _) => value(out, version, old),
        (false, true) => write::simple(out, "OK"),
        (false, false) => write::null(out, version),
    })
}

/// The other commands on one key. `args` begin with the command's name.
pub fn single(name: &str, args: &[Bytes], old: Option<&Item>, now: u64, version: Version) -> Result<Outcome, String> {
    let arg = |at: usize| args.get(at).cloned().unwrap_or_default();
    let data = old.map_or(Bytes::new(), |old| old.data.clone());
    match name {
        "getset" => outcome(Change::Put(Item::new(arg(2))), |out| value(out, version, old)),
        "getdel" => outcome(deleted(old), |out| value(out, version, old)),
        "getex" => getex(args, old, now, version),
        "setnx" => match old {
            Some(_) => outcome(Change::None, |out| write::integer(out, 0)),
            None => outcome(Change::Put(Item::new(arg(2))), |out| write::integer(out, 1)),
        },
        "incr" => add(old, 1),
        "decr" => add(old, -1),
        "incrby" => add(old, number(&arg(2)).ok_or(NOT_A_NUMBER)?),
        "decrby" => add(old, number(&arg(2)).and_then(i64::checked_neg).ok_or(NOT_A_NUMBER)?),
        "incrbyfloat" => add_float(old, &arg(2)),
        "append" => {
            let new = [&data[..], &arg(2)].concat();
            let len = new.len();
            check_len(len)?;
            let item = old.map_or_else(|| Item::new(new.clone()), |old| old.with(new.clone()));
            outcome(Change::Put(item), |out| write::integer(out, len as i64))
        }
        "strlen" => outcome(Change::None, |out| write::integer(out, data.len() as i64)),
        "getrange" | "substr" => {
            let (start, end) = (number(&arg(2)).ok_or(NOT_A_NUMBER)?, number(&arg(3)).ok_or(NOT_A_NUMBER)?);
            outcome(Change::None, |out| write::bulk(out, part(&data, start, end)))
        }
        "setrange" => setrange(&arg(2), &arg(3), old),
        "expire" | "pexpire" | "expireat" | "pexpireat" => expire(name, args, old, now),
        "persist" => {
            let change = match old {
                Some(old) if old.expires > 0 => Change::Put(Item {
                    expires: 0,
                    ..old.clone()
                }),
                _ => Change::None,
            };
            let did = i64::from(change != Change::None);
            outcome(change, |out| write::integer(out, did))
        }
        "ttl" | "pttl" | "expiretime" | "pexpiretime" => ttl(name, old, now),
        "type" => outcome(Change::None, |out| {
            write::simple(out, if old.is_some() { "string" } else { "none" })
        }),
        "del" => outcome(deleted(old), |out| write::integer(out, i64::from(old.is_some()))),
        _ => Err(format!("ERR command '{name}' is not served by a pool of a Ferrite cluster")),
    }
}

fn deleted(old: Option<&Item>) -> Change {
    if old.is_some() { Change::Delete } else { Change::None }
}

fn check_len(len: usize) -> Result<(), String> {
    if len > STRING_MAX {
        return Err("ERR string exceeds maximum allowed size (proto-max-bulk-len)".into());
    }
    Ok(())
}

fn getex(args: &[Bytes], old: Option<&Item>, now: u64, version: Version) -> Result<Outcome, String> {
    let expires = match args.get(2).map(|word| word.to_ascii_uppercase()) {
        None => None,
        Some(word) if word == b"PERSIST" && args.len() == 3 => Some(0),
        Some(unit) if args.len() == 4 && [&b"EX"[..], b"PX", b"EXAT", b"PXAT"].contains(&unit.as_slice()) => {
            Some(expiry(&unit, args.get(3), now, "getex")?)
        }
        Some(_) => return Err(SYNTAX.into()),
    };
    let change = match (old, expires) {
        (Some(old), Some(expires)) => Change::Put(Item { expires, ..old.clone() }),
        _ => Change::None,
    };
    outcome(change, |out| value(out, version, old))
}

fn add(old: Option<&Item>, delta: i64) -> Result<Outcome, String> {
    let text = old.map_or(&b"0"[..], |old| &old.data);
    let value = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<i64>().ok())
        .ok_or(NOT_A_NUMBER)?;
    let value = value.checked_add(delta).ok_or("ERR increment or decrement would overflow")?;
    let data = value.to_string();
    let item = old.map_or_else(|| Item::new(data.clone()), |old| old.with(data.clone()));
    outcome(Change::Put(item), |out| write::integer(out, value))
}

fn add_float(old: Option<&Item>, delta: &[u8]) -> Result<Outcome, String> {
    let parse = |text: &[u8]| {
        std::str::from_utf8(text)
            .ok()?
            .parse::<f64>()
            .ok()
            .filter(|value| value.is_finite())
    };
    let value = parse(old.map_or(b"0", |old| &old.data)).ok_or(NOT_A_FLOAT)?;
    let sum = value + parse(delta).ok_or(NOT_A_FLOAT)?;
    if !sum.is_finite() {
        return Err("ERR increment would produce NaN or Infinity".into());
    }
    // Sums like 0.1 + 0.2 carry digits that nobody wrote; Redis cuts them at 17.
    let rounded = format!("{sum:.17}");
    let data = rounded.trim_end_matches('0').trim_end_matches('.').to_owned();
    let short = format!("{sum}");
    let data = if short.len() < data.len() { short } else { data };
    let item = old.map_or_else(|| Item::new(data.clone()), |old| old.with(data.clone()));
    outcome(Change::Put(item), |out| write::bulk(out, data.as_bytes()))
}

/// Bytes `start..=end`, counted from the end where negative.
fn part(data: &[u8], start: i64, end: i64) -> &[u8] {
    let len = data.len() as i64;
    let from_end = |at: i64| if at < 0 { (len + at).max(0) } else { at };
    if start < 0 && end < 0 && start > end {
        return &[];
    }
    let (start, end) = (from_end(start), from_end(end).min(len - 1));
    if start > end {
        return &[];
    }
    data.get(start as usize..=end as usize).unwrap_or_default()
}

fn setrange(offset: &[u8], new: &[u8], old: Option<&Item>) -> Result<Outcome, String> {
    let offset = number(offset).ok_or(NOT_A_NUMBER)?;
    let offset = usize::try_from(offset).map_err(|_negative| "ERR offset is out of range")?;
    let mut data = old.map_or_else(Vec::new, |old| old.data.to_vec());
    if new.is_empty() {
        return outcome(Change::None, |out| write::integer(out, data.len() as i64));
    }
    let end = offset.saturating_add(new.len());
    check_len(end)?;
    if data.len() < end {
        data.resize(end, 0);
    }
    if let Some(place) = data.get_mut(offset..end) {
        place.copy_from_slice(new);
    }
    let len = data.len() as i64;
    let item = old.map_or_else(|| Item::new(data.clone()), |old| old.with(data.clone()));
    outcome(Change::Put(item), |out| write::integer(out, len))
}

fn expire(name: &str, args: &[Bytes], old: Option<&Item>, now: u64) -> Result<Outcome, String> {
    let value = args.get(2).and_then(|value| number(value)).ok_or(NOT_A_NUMBER)?;
    let scale = if name.starts_with('p') { 1 } else { 1000 };
    let base = if name.ends_with("at") { 0 } else { now as i64 };
    let at = value.checked_mul(scale).and_then(|span| span.checked_add(base));
    let at = at.ok_or_else(|| format!("ERR invalid expire time in '{name}' command"))?;
    let Some(old) = old else {
        return outcome(Change::None, |out| write::integer(out, 0));
    };
    let current = old.expires as i64;
    let mut passes = true;
    for flag in args.iter().skip(3) {
        passes &= match flag.to_ascii_uppercase().as_slice() {
            b"NX" => current == 0,
            b"XX" => current > 0,
            b"GT" => current > 0 && at > current,
            b"LT" => current == 0 || at < current,
            _ => return Err(format!("ERR Unsupported option {}", String::from_utf8_lossy(flag))),
        };
    }
    let change = match passes {
        false => Change::None,
        true if at <= now as i64 => Change::Delete,
        true => Change::Put(Item {
            expires: at as u64,
            ..old.clone()
        }),
    };
    outcome(change, |out| write::integer(out, i64::from(passes)))
}

fn ttl(name: &str, old: Option<&Item>, now: u64) -> Result<Outcome, String> {
    let value = match old {
        None => -2,
        Some(old) if old.expires == 0 => -1,
        Some(old) => {
            let millis = match name.ends_with("ttl") {
                true => old.expires.saturating_sub(now),
                false => old.expires,
            };
            match name.starts_with('p') {
                true => millis as i64,
                // Seconds of a span are rounded, those of a moment cut.
                false if name == "ttl" => (millis as i64 + 500) / 1000,
                false => millis as i64 / 1000,
            }
        }
    };
    outcome(Change::None, |out| write::integer(out, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn run(words: &str, old: Option<&Item>) -> (String, Change) {
        let args: Vec<_> = words.split(' ').map(|word| Bytes::from(word.to_owned())).collect();
        let name = String::from_utf8_lossy(&args[0]).to_lowercase();
        match single(&name, &args, old, NOW, Version::Resp2) {
            Ok(outcome) => (
                String::from_utf8_lossy(&outcome.reply).replace("\r\n", " ").trim().to_owned(),
                outcome.change,
            ),
            Err(text) => (text, Change::None),
        }
    }

    fn item(data: &str, expires: u64) -> Item {
        Item {
            flags: 0,
            expires,
            data: Bytes::from(data.to_owned()),
        }
    }

    #[test]
    fn commands_do_what_redis_does() {
        let ten = item("10", 0);
        let hello = item("Hello", NOW + 5_000);
        for (words, old, reply, change) in [
            ("INCR k", None, ":1", Change::Put(item("1", 0))),
            ("INCRBY k 5", Some(&ten), ":15", Change::Put(item("15", 0))),
            ("DECR k", Some(&hello), NOT_A_NUMBER, Change::None),
            ("INCRBYFLOAT k 0.5", Some(&ten), "$4 10.5", Change::Put(item("10.5", 0))),
            ("APPEND k !", Some(&hello), ":6", Change::Put(item("Hello!", NOW + 5_000))),
            ("STRLEN k", Some(&hello), ":5", Change::None),
            ("GETRANGE k -3 -1", Some(&hello), "$3 llo", Change::None),
            ("GETRANGE k 10 20", Some(&hello), "$0", Change::None),
            ("SETRANGE k 1 EY", Some(&hello), ":5", Change::Put(item("HEYlo", NOW + 5_000))),
            ("SETNX k v", Some(&ten), ":0", Change::None),
            ("GETDEL k", Some(&ten), "$2 10", Change::Delete),
            ("GETDEL k", None, "$-1", Change::None),
            ("TTL k", Some(&hello), ":5", Change::None),
            ("PTTL k", Some(&hello), ":5000", Change::None),
            ("TTL k", Some(&ten), ":-1", Change::None),
            ("TTL k", None, ":-2", Change::None),
            ("EXPIRE k 7", Some(&ten), ":1", Change::Put(item("10", NOW + 7_000))),
            ("EXPIRE k 7 XX", Some(&ten), ":0", Change::None),
            ("PEXPIRE k -1", Some(&ten), ":1", Change::Delete),
            ("PERSIST k", Some(&hello), ":1", Change::Put(item("Hello", 0))),
            ("GETEX k PX 9", Some(&ten), "$2 10", Change::Put(item("10", NOW + 9))),
            ("TYPE k", Some(&ten), "+string", Change::None),
        ] {
            assert_eq!(run(words, old), (reply.to_owned(), change), "{words}");
        }
    }

    #[test]
    fn the_options_of_set() {
        let options = |words: &str| {
            let args: Vec<_> = words.split(' ').map(|word| Bytes::from(word.to_owned())).collect();
            SetOptions::read(&args, NOW)
        };
        assert_eq!(options("ex 5").map(|options| options.expires), Ok(Some(NOW + 5_000)));
        assert!(options("NX GET").is_ok_and(|options| !options.is_blind()));
        for bad in ["NX XX", "EX", "EX 0", "EX x", "EX 1 KEEPTTL", "FOO"] {
            assert!(options(bad).is_err(), "{bad}");
        }
        let old = item("old", NOW + 1);
        let keep = options("KEEPTTL").expect("reads");
        let kept = set(&Bytes::from_static(b"new"), &keep, Some(&old), Version::Resp2).expect("sets");
        assert_eq!(kept.change, Change::Put(item("new", NOW + 1)));
    }
}
