//! Redis' string commands before a Ferrite cluster.

use std::rc::Rc;

use bytes::Bytes;

use super::string::{self, SetOptions};
use super::{Item, Job, Store, Work};
use crate::command::{Command, Handling};
use crate::memcached::scan::Expected;
use crate::meter::Tally;
use crate::pool::View;
use crate::redis::{Flow, Request, Session};
use crate::resp::number;
use crate::resp::write::{self, Version};

/// What is served, beside what the proxy answers itself.
const SERVED: &[&str] = &[
    "append",
    "decr",
    "decrby",
    "del",
    "exists",
    "expire",
    "expireat",
    "expiretime",
    "flushall",
    "flushdb",
    "get",
    "getdel",
    "getex",
    "getrange",
    "getset",
    "incr",
    "incrby",
    "incrbyfloat",
    "mget",
    "mset",
    "persist",
    "pexpire",
    "pexpireat",
    "pexpiretime",
    "psetex",
    "pttl",
    "scan",
    "set",
    "setex",
    "setnx",
    "setrange",
    "strlen",
    "substr",
    "touch",
    "ttl",
    "type",
    "unlink",
];

/// Whether pools of a Ferrite cluster serve the command.
pub fn serves(name: &str) -> bool {
    SERVED.binary_search(&name).is_ok()
}

impl Session {
    pub(crate) fn ask_store(&mut self, view: &Rc<View>, request: Request<'_>, command: &Command, tally: Tally) -> Flow {
        let Some(store) = view.store.as_ref().filter(|_| serves(&command.name)) else {
            let name = &command.name;
            return self.error(&format!("ERR command '{name}' is not served by a pool of a Ferrite cluster"));
        };
        if command.handling == Handling::FanOk && !view.config.admin {
            return self.wants_admin(command);
        }
        let args: Vec<_> = request
            .args
            .iter()
            .map(|arg| Bytes::copy_from_slice(arg.of(request.bytes)))
            .collect();
        let keys = self.keys.iter().filter_map(|at| args.get(*at as usize).cloned()).collect();
        let number = self.mailbox.expect(tally);
        let job = Job {
            work: Work::Redis {
                name: command.name.clone(),
                version: self.version,
                args,
            },
            keys,
            is_write: command.is_write,
            number,
            expected: Expected::default(),
        };
        self.ferrite.push(store, &self.mailbox, job);
        Flow::Done
    }
}

pub(super) async fn run(store: &Store, name: &str, version: Version, args: &[Bytes]) -> Result<Vec<u8>, String> {
    let rest = args.get(1..).unwrap_or_default();
    let mut out = Vec::new();
    match name {
        "get" => match store.get_many(rest).await?.into_iter().next().flatten() {
            Some(item) => write::bulk(&mut out, &item.data),
            None => write::null(&mut out, version),
        },
        "mget" => {
            let items = store.get_many(rest).await?;
            write::array(&mut out, items.len());
            for item in items {
                match item {
                    Some(item) => write::bulk(&mut out, &item.data),
                    None => write::null(&mut out, version),
                }
            }
        }
        "exists" | "touch" => {
            let items = store.get_many(rest).await?;
            write::integer(&mut out, items.iter().flatten().count() as i64);
        }
        "mset" => {
            let pairs = rest.as_chunks::<2>();
            if !pairs.1.is_empty() {
                return Err("ERR wrong number of arguments for 'mset' command".into());
            }
            let pairs = pairs.0.iter().map(|[key, value]| (key.clone(), Item::new(value.clone())));
            // Of a key that stands there twice the last value counts.
            let pairs: std::collections::BTreeMap<_, _> = pairs.collect();
            store.put_many(pairs.into_iter().collect()).await?;
            write::simple(&mut out, "OK");
        }
        "del" | "unlink" => {
            let mut count = 0;
            for key in rest {
                let reply = store
                    .update(key, |old, now| string::single("del", args, old, now, version))
                    .await?;
                count += i64::from(reply == b":1\r\n");
            }
            write::integer(&mut out, count);
        }
        "flushall" | "flushdb" => {
            store.clear().await?;
            write::simple(&mut out, "OK");
        }
        "scan" => return super::scan::run(store, args).await,
        "set" => return set(store, args, version).await,
        "setex" | "psetex" => {
            let [_, key, span, value] = args else {
                return Err("ERR syntax error".into());
            };
            let unit = if name == "setex" { "EX" } else { "PX" };
            let args = [
                Bytes::new(),
                key.clone(),
                value.clone(),
                Bytes::from_static(unit.as_bytes()),
                span.clone(),
            ];
            if number(span).is_none_or(|span| span <= 0) {
                return Err(format!("ERR invalid expire time in '{name}' command"));
            }
            return set(store, &args, version).await;
        }
        _ => {
            let key = rest.first().ok_or("ERR syntax error")?;
            return store
                .update(key, |old, now| string::single(name, args, old, now, version))
                .await;
        }
    }
    Ok(out)
}

async fn set(store: &Store, args: &[Bytes], version: Version) -> Result<Vec<u8>, String> {
    let [_, key, value, rest @ ..] = args else {
        return Err("ERR syntax error".into());
    };
    let options = SetOptions::read(rest, base::WallTime::now().0)?;
    if !options.is_blind() {
        return store
            .update(key, |old, _now| string::set(value, &options, old, version))
            .await;
    }
    let item = Item {
        flags: 0,
        expires: options.expires.unwrap_or(0),
        data: value.clone(),
    };
    store.put(key, &item).await?;
    Ok(b"+OK\r\n".to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served_is_sorted_and_known() {
        assert!(SERVED.is_sorted());
        let table = crate::command::Table::redis();
        assert!(SERVED.iter().all(|name| table.named(name).is_some()));
    }
}
