//! Clients that speak memcached: text with its meta commands, and binary. What a client speaks is told by its first byte.

pub mod binary;
pub mod frame;
pub mod scan;
mod text;

use std::rc::Rc;

use crate::mailbox::Mailbox;
use crate::net::Step;
use crate::pool::{Pool, View};
use crate::session::End;

/// What a flush that is to wait is told before a Ferrite cluster.
const NO_DELAY: &str = "a pool of a Ferrite cluster is emptied at once or not at all";

/// Longest key.
const KEY_MAX: usize = 250;

/// Whether a line of a server reports an error.
pub fn is_error(reply: &[u8]) -> bool {
    [&b"ERROR"[..], b"CLIENT_ERROR", b"SERVER_ERROR"]
        .iter()
        .any(|word| reply.starts_with(word))
}

/// A client's state: none but where it is connected.
pub struct Session {
    pool: Rc<Pool>,
    pub(crate) view: Rc<View>,
    pub(crate) mailbox: Rc<Mailbox>,
    pub(crate) ferrite: crate::ferrite::Lane,
}

impl Session {
    /// A client that just connected.
    pub fn new(pool: &Rc<Pool>, mailbox: &Rc<Mailbox>) -> Session {
        Session {
            pool: Rc::clone(pool),
            view: pool.view(),
            mailbox: Rc::clone(mailbox),
            ferrite: crate::ferrite::Lane::default(),
        }
    }

    /// At the beginning of each turn.
    pub fn turn(&mut self) {
        let view = self.pool.view();
        if !Rc::ptr_eq(&view, &self.view) {
            self.view = view;
        }
    }

    /// What stands at the front of `bytes`.
    pub fn step(&mut self, bytes: &[u8]) -> Result<Step, End> {
        match bytes.first() {
            Some(&binary::REQUEST) => self.binary(bytes),
            _ => self.text(bytes),
        }
    }
}

/// Names under which requests are counted; what is not among them is counted as the last.
pub const COUNTED: &[&str] = &[
    "get",
    "gets",
    "gat",
    "gats",
    "set",
    "add",
    "replace",
    "append",
    "prepend",
    "cas",
    "delete",
    "incr",
    "decr",
    "touch",
    "mg",
    "ms",
    "md",
    "ma",
    "me",
    "flush_all",
    "stats",
    "other",
];

fn counter(name: &[u8]) -> u16 {
    let found = COUNTED.iter().position(|known| known.as_bytes() == name);
    found.unwrap_or(COUNTED.len() - 1) as u16
}

/// What `stats` tells of the proxy.
fn figures(pool: &Pool, view: &View) -> Vec<(&'static str, u64)> {
    let insight = &pool.meter.insight;
    let sheets: Vec<_> = insight
        .pools()
        .into_iter()
        .filter(|(name, _)| *name == view.config.name)
        .collect();
    let sum = |of: fn(&crate::meter::Sheet) -> u64| sheets.iter().map(|(_, sheet)| of(sheet)).sum::<u64>();
    vec![
        ("pid", u64::from(std::process::id())),
        ("time", base::WallTime::now().seconds()),
        ("curr_connections", sum(|sheet| sheet.clients.get())),
        ("total_connections", sum(|sheet| sheet.clients_total.get())),
        ("bytes_read", sum(|sheet| sheet.bytes_in.get())),
        ("bytes_written", sum(|sheet| sheet.bytes_out.get())),
        ("servers", view.nodes.len() as u64),
    ]
}
