//! Memcached's text commands before a Ferrite cluster.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{Change, Item, Job, Outcome, Store, Work};
use crate::memcached::Session;
use crate::memcached::scan::Expected;
use crate::meter::Tally;
use crate::resp::number;

/// Expiry times up to this are seconds from now, larger ones moments.
const SPAN_MAX: i64 = 60 * 60 * 24 * 30;
const BAD_LINE: &str = "ERR bad command line format";

impl Session {
    pub(crate) fn ask_store(&mut self, words: &[&[u8]], key: &[u8], block: &[u8], expected: Expected, tally: Tally) {
        let Some(store) = &self.view.store else {
            return;
        };
        let name = words.first().copied().unwrap_or_default();
        let is_read = matches!(name, b"get" | b"gets");
        let keys = match is_read {
            true => words.iter().skip(1).map(|key| Bytes::copy_from_slice(key)).collect(),
            false => vec![Bytes::copy_from_slice(key)],
        };
        let number = self.mailbox.expect(tally);
        let job = Job {
            work: Work::Memcached {
                block: Bytes::copy_from_slice(block.strip_suffix(b"\r\n").unwrap_or(block)),
            },
            args: words.iter().map(|word| Bytes::copy_from_slice(word)).collect(),
            keys,
            is_write: !is_read,
            number,
            expected,
        };
        self.ferrite.push(store, &self.mailbox, job);
    }
}

pub(super) async fn run(store: &Store, args: &[Bytes], block: &Bytes) -> Result<Vec<u8>, String> {
    let name = args.first().map(|name| &name[..]).unwrap_or_default();
    let key = args.get(1).cloned().unwrap_or_default();
    match name {
        b"get" | b"gets" => {
            let keys = args.get(1..).unwrap_or_default();
            let items = store.get_many(keys).await?;
            let mut out = Vec::new();
            for (key, item) in keys.iter().zip(items) {
                if let Some(item) = item {
                    value(&mut out, key, &item, name == b"gets");
                }
            }
            out.extend_from_slice(b"END\r\n");
            Ok(out)
        }
        b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas" | b"delete" | b"incr" | b"decr" | b"touch" => {
            store.update(&key, |old, now| single(args, block, old, now)).await
        }
        _ => Err("ERR this command is not served by a pool of a Ferrite cluster".into()),
    }
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

/// What `cas` compares: the same for the same content, else different but for one case in 2^64.
fn unique(item: &Item) -> u64 {
    let digest = Sha256::digest(item.encode());
    digest.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn line(text: &str, change: Change) -> Result<Outcome, String> {
    Ok(Outcome {
        reply: format!("{text}\r\n").into_bytes(),
        change,
    })
}

/// A command on one key; what was there and the arguments give a reply and a change.
fn single(args: &[Bytes], block: &Bytes, old: Option<&Item>, now: u64) -> Result<Outcome, String> {
    let name = args.first().map(|name| &name[..]).unwrap_or_default();
    let told = |at: usize| args.get(at).and_then(|word| number(word)).ok_or(BAD_LINE);
    match name {
        b"delete" => match old {
            Some(_) => line("DELETED", Change::Delete),
            None => line("NOT_FOUND", Change::None),
        },
        b"touch" => match old {
            Some(old) => line(
                "TOUCHED",
                Change::Put(Item {
                    expires: expiry(told(2)?, now),
                    ..old.clone()
                }),
            ),
            None => line("NOT_FOUND", Change::None),
        },
        b"incr" | b"decr" => count(name == b"incr", args.get(2), old),
        _ => {
            let new = Item {
                flags: u32::try_from(told(2)?).map_err(|_error| BAD_LINE)?,
                expires: expiry(told(3)?, now),
                data: block.clone(),
            };
            store(name, args, new, old)
        }
    }
}

fn store(name: &[u8], args: &[Bytes], new: Item, old: Option<&Item>) -> Result<Outcome, String> {
    match (name, old) {
        (b"set", _) | (b"add", None) | (b"replace", Some(_)) => line("STORED", Change::Put(new)),
        (b"append", Some(old)) => line("STORED", Change::Put(old.with([&old.data[..], &new.data].concat()))),
        (b"prepend", Some(old)) => line("STORED", Change::Put(old.with([&new.data[..], &old.data].concat()))),
        (b"cas", None) => line("NOT_FOUND", Change::None),
        (b"cas", Some(old)) => {
            let wanted = args
                .get(5)
                .and_then(|word| std::str::from_utf8(word).ok()?.parse::<u64>().ok());
            match wanted.ok_or(BAD_LINE)? == unique(old) {
                true => line("STORED", Change::Put(new)),
                false => line("EXISTS", Change::None),
            }
        }
        _ => line("NOT_STORED", Change::None),
    }
}

/// Milliseconds since 1970; a time that is past expires at once.
fn expiry(time: i64, now: u64) -> u64 {
    match time {
        0 => 0,
        time if time < 0 => 1,
        time if time <= SPAN_MAX => now + time as u64 * 1000,
        time => time as u64 * 1000,
    }
}

fn count(is_up: bool, delta: Option<&Bytes>, old: Option<&Item>) -> Result<Outcome, String> {
    let parse = |text: &[u8]| std::str::from_utf8(text).ok()?.trim_end().parse::<u64>().ok();
    let Some(old) = old else {
        return line("NOT_FOUND", Change::None);
    };
    let Some(delta) = delta.and_then(|delta| parse(delta)) else {
        return line("CLIENT_ERROR invalid numeric delta argument", Change::None);
    };
    let Some(value) = parse(&old.data) else {
        return line("CLIENT_ERROR cannot increment or decrement non-numeric value", Change::None);
    };
    let value = if is_up {
        value.wrapping_add(delta)
    } else {
        value.saturating_sub(delta)
    };
    line(&value.to_string(), Change::Put(old.with(value.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &str, block: &'static str, old: Option<&Item>) -> (String, Change) {
        let args: Vec<_> = words.split(' ').map(|word| Bytes::from(word.to_owned())).collect();
        let outcome = single(&args, &Bytes::from(block), old, 5_000).expect("runs");
        (String::from_utf8_lossy(&outcome.reply).trim().to_owned(), outcome.change)
    }

    #[test]
    fn commands_do_what_memcached_does() {
        let old = Item::new("10");
        let put = |data: &'static str, flags, expires| {
            Change::Put(Item {
                flags,
                expires,
                data: Bytes::from(data),
            })
        };
        assert_eq!(run("set k 7 10 1", "x", None), ("STORED".into(), put("x", 7, 15_000)));
        assert_eq!(run("add k 0 0 1", "x", Some(&old)), ("NOT_STORED".into(), Change::None));
        assert_eq!(run("append k 0 0 1", "x", Some(&old)), ("STORED".into(), put("10x", 0, 0)));
        assert_eq!(run("incr k 5", "", Some(&old)), ("15".into(), put("15", 0, 0)));
        assert_eq!(run("decr k 50", "", Some(&old)), ("0".into(), put("0", 0, 0)));
        assert_eq!(run("touch k -1", "", Some(&old)), ("TOUCHED".into(), put("10", 0, 1)));
        let cas = format!("cas k 0 0 1 {}", unique(&old));
        assert_eq!(run(&cas, "y", Some(&old)), ("STORED".into(), put("y", 0, 0)));
        assert_eq!(run("cas k 0 0 1 5", "y", Some(&old)), ("EXISTS".into(), Change::None));
        assert_eq!(run("delete k", "", None), ("NOT_FOUND".into(), Change::None));
    }
}
