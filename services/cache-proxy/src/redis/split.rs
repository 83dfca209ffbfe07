//! Splits a request over servers: `MGET`, `MSET`, `DEL` and their like. Parts go straight into the servers' buffers; nothing is copied twice.

use std::rc::Rc;

use super::Request;
use crate::command::{Command, Handling};
use crate::conn::{Pending, Purpose};
use crate::join::{Join, JoinKind};
use crate::mailbox::Mailbox;
use crate::meter::Tally;
use crate::pool::{Pool, View};
use crate::resp::write;
use crate::topology::NOBODY;

/// Room for the grouping of keys, kept between requests.
#[derive(Default)]
pub struct Splitter {
    /// By group id (server or slot), 1 + its place in `parts`; 0: not seen.
    places: Vec<u16>,
    parts: Vec<Part>,
    /// By key, the place of its part.
    order: Vec<u16>,
    /// Keys by part, in the order of the request.
    sorted: Vec<u32>,
}

struct Part {
    group: u16,
    node: u16,
    count: u32,
    /// Where its keys begin in `sorted`.
    start: u32,
}

impl Splitter {
    /// Groups the keys of a request; false if one of them belongs to nobody.
    fn group(&mut self, pool: &Pool, view: &View, request: Request<'_>, keys: &[u32]) -> bool {
        for part in self.parts.drain(..) {
            if let Some(place) = self.places.get_mut(usize::from(part.group)) {
                *place = 0;
            }
        }
        self.order.clear();
        for at in keys {
            let key = request.arg(*at as usize);
            let node = pool.find(view, key);
            if node == NOBODY {
                return false;
            }
            let group = view.topology.group(key, node);
            if self.places.len() <= usize::from(group) {
                self.places.resize(usize::from(group) + 1, 0);
            }
            let Some(place) = self.places.get_mut(usize::from(group)) else {
                return false;
            };
            if *place == 0 {
                self.parts.push(Part {
                    group,
                    node,
                    count: 0,
                    start: 0,
                });
                *place = self.parts.len() as u16;
            }
            let part = *place - 1;
            self.order.push(part);
            if let Some(part) = self.parts.get_mut(usize::from(part)) {
                part.count += 1;
            }
        }
        true
    }

    /// Sorts the keys by part, keeping their order.
    fn sort(&mut self) {
        let mut start = 0;
        for part in &mut self.parts {
            part.start = start;
            start += part.count;
            part.count = 0;
        }
        self.sorted.clear();
        self.sorted.resize(self.order.len(), 0);
        for (key, part) in self.order.iter().enumerate() {
            if let Some(part) = self.parts.get_mut(usize::from(*part))
                && let Some(place) = self.sorted.get_mut((part.start + part.count) as usize)
            {
                *place = key as u32;
                part.count += 1;
            }
        }
    }

    fn shrink(&mut self) {
        if self.order.capacity() > 4096 {
            self.order = Vec::new();
            self.sorted = Vec::new();
        }
    }
}

/// Splits `request` and sends its parts. If one server has all its keys nothing is sent, and its index returned.
pub(super) fn send(
    pool: &Rc<Pool>,
    view: &View,
    request: Request<'_>,
    command: &Command,
    keys: &[u32],
    purpose: Purpose,
    to: Option<(&Rc<Mailbox>, Tally)>,
) -> Option<u16> {
    let mut splitter = pool.splitter.borrow_mut();
    if !splitter.group(pool, view, request, keys) {
        if let Some((mailbox, tally)) = to {
            mailbox.say(tally, |out| {
                write::error(out, "ERR no server is known for a key of the request now")
            });
        }
        return None;
    }
    if let [only] = splitter.parts.as_slice() {
        return Some(only.node);
    }
    splitter.sort();
    let kind = match command.handling {
        Handling::SplitList => JoinKind::List {
            order: splitter.order.clone(),
        },
        Handling::SplitOk => JoinKind::Ok,
        _ => JoinKind::Sum,
    };
    let count = splitter.parts.len() as u16;
    let number = to.map_or(0, |(mailbox, tally)| mailbox.expect_join(Join::new(kind, count), tally));
    let step = command.split_step();
    let lane = to.map_or(0, |(mailbox, _)| mailbox.id);
    let is_cluster = view.topology.is_cluster();
    for (at, part) in splitter.parts.iter().enumerate() {
        let mut pending = Pending::new(to.map(|(mailbox, _)| mailbox), number, at as u16);
        pending.is_read = command.is_readonly();
        let chosen = splitter
            .sorted
            .get(part.start as usize..(part.start + part.count) as usize)
            .unwrap_or_default();
        let write_part = |out: &mut Vec<u8>| {
            write::array(out, 1 + chosen.len() * step);
            write::bulk(out, command.name.as_bytes());
            for key in chosen {
                let first = keys.get(*key as usize).copied().unwrap_or_default() as usize;
                for arg in request.args.iter().skip(first).take(step) {
                    out.extend_from_slice(arg.raw(request.bytes));
                }
            }
        };
        let node = pool.pick(view, part.node, command.is_readonly());
        if is_cluster {
            let mut bytes = Vec::new();
            write_part(&mut bytes);
            pool.send(node, purpose, lane, &bytes, pending);
        } else {
            match node.map(|node| (node, node.shared(pool, purpose, lane))) {
                Some((_, Some(conn))) => conn.send_with(pending, write_part),
                Some((node, None)) => pending.fail(&node.down_text()),
                None => pending.fail("ERR no server is known for a key of the request now"),
            }
        }
    }
    splitter.shrink();
    None
}
