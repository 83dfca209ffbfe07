//! Commands over all servers, for pools in admin mode.

use std::rc::Rc;

use super::{Flow, Request, Session};
use crate::command::{Command, Handling};
use crate::conn::Pending;
use crate::join::JoinKind;
use crate::mailbox::Mailbox;
use crate::meter::Tally;
use crate::pool::View;
use crate::resp::reply::aggregate;
use crate::resp::write;

/// Servers that a cursor of `SCAN` can name: the low bits of it.
const CURSOR_BITS: u32 = 12;

impl Session {
    pub(super) fn admin(&mut self, view: &Rc<View>, request: Request<'_>, command: &Command, tally: Tally) -> Flow {
        if !view.config.admin {
            return self.wants_admin(command);
        }
        match command.handling {
            Handling::FanOk => self.fan_out(view, request.bytes, JoinKind::Ok, tally),
            Handling::FanSum => self.fan_out(view, request.bytes, JoinKind::Sum, tally),
            Handling::FanJoin => self.fan_out(view, request.bytes, JoinKind::Concat, tally),
            Handling::Scan => self.scan(view, request, tally),
            _ => self.fan_out(view, request.bytes, JoinKind::First, tally),
        }
    }

    pub(crate) fn wants_admin(&self, command: &Command) -> Flow {
        let name = &command.name;
        self.error(&format!(
            "ERR command '{name}' concerns all servers: it wants admin = true in the pool's configuration"
        ))
    }

    /// Walks server after server: the cursor that clients see is the server's own, shifted, with the server's index below.
    fn scan(&mut self, view: &Rc<View>, request: Request<'_>, tally: Tally) -> Flow {
        let text = std::str::from_utf8(request.arg(1)).unwrap_or_default();
        let Ok(cursor) = text.parse::<u64>() else {
            return self.error("ERR invalid cursor");
        };
        let primaries: Vec<u16> = view.topology.primaries().collect();
        let at = (cursor & ((1 << CURSOR_BITS) - 1)) as usize;
        let Some(node) = primaries.get(at).and_then(|index| view.nodes.get(usize::from(*index))) else {
            return self.error("ERR invalid cursor");
        };
        let mut bytes = Vec::new();
        write::array(&mut bytes, request.args.len());
        write::bulk(&mut bytes, request.arg(0));
        write::bulk(&mut bytes, (cursor >> CURSOR_BITS).to_string().as_bytes());
        for arg in request.args.iter().skip(2) {
            bytes.extend_from_slice(arg.raw(request.bytes));
        }
        let number = self.mailbox.expect(tally);
        let mut pending = Pending::new(Some(&self.mailbox), number, 0);
        let next = if at + 1 < primaries.len() { at as u16 + 1 } else { 0 };
        pending.expected = crate::memcached::scan::Expected::scan(at as u16, next);
        self.pool.send(Some(node), self.purpose(), self.mailbox.id, &bytes, pending);
        Flow::Done
    }
}

/// Hands over a reply to `SCAN` with the cursor that the client is to see. `at`: index of the server that answered; `next`: of the one after it, 0
/// if it was the last.
pub(crate) fn deliver_scan(to: &Mailbox, number: u64, at: u64, next: u64, reply: &[u8]) {
    match rewritten(reply, at, next) {
        Some(reply) => to.deliver(number, 0, &reply),
        None => to.deliver(number, 0, reply),
    }
}

fn rewritten(reply: &[u8], at: u64, next: u64) -> Option<Vec<u8>> {
    let (2, items) = aggregate(reply)? else {
        return None;
    };
    let length = crate::resp::reply::length(items)?;
    let (cursor, keys) = items.split_at_checked(length)?;
    let line = memchr::memchr(b'\n', cursor)?;
    let digits = cursor.get(line + 1..cursor.len().checked_sub(2)?)?;
    let cursor: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let cursor = match cursor {
        0 => next,
        cursor => cursor.checked_mul(1 << CURSOR_BITS)? + at,
    };
    let mut out = Vec::with_capacity(reply.len() + 8);
    write::array(&mut out, 2);
    write::bulk(&mut out, cursor.to_string().as_bytes());
    out.extend_from_slice(keys);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_lead_from_server_to_server() {
        let reply = b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n";
        assert_eq!(rewritten(reply, 0, 1).expect("reads"), b"*2\r\n$1\r\n1\r\n*1\r\n$1\r\na\r\n");
        let reply = b"*2\r\n$1\r\n3\r\n*0\r\n";
        assert_eq!(rewritten(reply, 1, 0).expect("reads"), b"*2\r\n$5\r\n12289\r\n*0\r\n");
        assert_eq!(rewritten(b"-ERR x\r\n", 0, 1), None);
    }
}
