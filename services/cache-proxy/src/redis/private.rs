//! What leaves state behind at a server gets a connection of the client's own: transactions, blocking commands, subscriptions.
//!
//! A request goes over to such a connection only once all earlier ones are answered, and back the same way, so that order holds.

use std::rc::Rc;

use super::{Flow, Request, Session};
use crate::command::{Command, Handling};
use crate::conn::{Conn, Pending};
use crate::meter::Tally;
use crate::pool::View;
use crate::resp::write::{self, Version};
use crate::topology::NOBODY;

/// A transaction of a client.
#[derive(Default)]
pub(super) enum Txn {
    #[default]
    None,
    /// Keys are watched, at this server.
    Watching { conn: Rc<Conn> },
    /// `MULTI` was said. The connection comes with the first key, so that the right server gets it.
    Open {
        conn: Option<Rc<Conn>>,
        /// A request was refused: `EXEC` will fail.
        is_spoilt: bool,
    },
}

impl Txn {
    /// Whether requests are queued.
    pub fn is_open(&self) -> bool {
        matches!(self, Txn::Open { .. })
    }

    fn conn(&self) -> Option<&Rc<Conn>> {
        match self {
            Txn::None => None,
            Txn::Watching { conn } => Some(conn),
            Txn::Open { conn, .. } => conn.as_ref(),
        }
    }
}

const EXPIRED: &str = "ERR the connection of the transaction was lost; start over";

impl Session {
    /// `MULTI`, `EXEC`, `DISCARD`, `WATCH`, `UNWATCH`.
    pub(super) fn txn(&mut self, view: &Rc<View>, request: Request<'_>, command: &Command, tally: Tally) -> Flow {
        if self.mailbox.waiting() > 0 && self.txn.conn().is_none() {
            return Flow::Wait;
        }
        match command.name.as_str() {
            "multi" if self.txn.is_open() => self.error("ERR MULTI calls can not be nested"),
            "multi" => self.multi(tally),
            "exec" => self.exec(request, tally),
            "discard" => self.discard(request, tally),
            "watch" => self.watch(view, request, tally),
            _ => self.unwatch(request, tally),
        }
    }

    fn multi(&mut self, tally: Tally) -> Flow {
        let conn = self.txn.conn().cloned();
        if let Some(conn) = &conn {
            conn.send(b"*1\r\n$5\r\nMULTI\r\n", Pending::new(None, 0, 0));
        }
        self.txn = Txn::Open { conn, is_spoilt: false };
        self.mailbox.say(tally, |out| write::simple(out, "OK"));
        Flow::Done
    }

    fn exec(&mut self, request: Request<'_>, tally: Tally) -> Flow {
        let Txn::Open { conn, is_spoilt } = &self.txn else {
            return self.error("ERR EXEC without MULTI");
        };
        let is_spoilt = *is_spoilt;
        let Some(conn) = conn.clone() else {
            self.txn = Txn::None;
            if is_spoilt {
                return self.error("EXECABORT Transaction discarded because of previous errors.");
            }
            self.mailbox.say(tally, |out| write::array(out, 0));
            return Flow::Done;
        };
        self.txn = Txn::None;
        if conn.is_dead() {
            return self.error(EXPIRED);
        }
        if is_spoilt {
            conn.send(b"*1\r\n$7\r\nDISCARD\r\n", Pending::new(None, 0, 0));
            self.hand_back(conn);
            return self.error("EXECABORT Transaction discarded because of previous errors.");
        }
        self.finish(conn, request, tally)
    }

    /// Sends what ends a transaction; the connection is clean after it.
    fn finish(&mut self, conn: Rc<Conn>, request: Request<'_>, tally: Tally) -> Flow {
        let number = self.mailbox.expect(tally);
        conn.send(request.bytes, Pending::new(Some(&self.mailbox), number, 0));
        // Later requests wait for the reply, so that none overtakes it on another connection.
        self.blocking = Some(conn);
        Flow::Done
    }

    fn discard(&mut self, request: Request<'_>, tally: Tally) -> Flow {
        let Txn::Open { conn, .. } = std::mem::take(&mut self.txn) else {
            return self.error("ERR DISCARD without MULTI");
        };
        match conn {
            Some(conn) if !conn.is_dead() => self.finish(conn, request, tally),
            _ => {
                self.mailbox.say(tally, |out| write::simple(out, "OK"));
                Flow::Done
            }
        }
    }

    fn watch(&mut self, view: &Rc<View>, request: Request<'_>, tally: Tally) -> Flow {
        if self.txn.is_open() {
            self.spoil_txn();
            return self.error("ERR WATCH inside MULTI is not allowed");
        }
        let node = match self.one_node(view, request) {
            Ok(node) => node.unwrap_or(NOBODY),
            Err(text) => return self.error(text),
        };
        let conn = match self.conn_at(view, node) {
            Ok(conn) => conn,
            Err(text) => return self.error(&text),
        };
        self.txn = Txn::Watching { conn: Rc::clone(&conn) };
        let number = self.mailbox.expect(tally);
        conn.send(request.bytes, Pending::new(Some(&self.mailbox), number, 0));
        Flow::Done
    }

    fn unwatch(&mut self, request: Request<'_>, tally: Tally) -> Flow {
        if self.txn.is_open() {
            self.spoil_txn();
            return self.error("ERR UNWATCH inside MULTI is not supported by the proxy");
        }
        match std::mem::take(&mut self.txn) {
            Txn::Watching { conn } if !conn.is_dead() => self.finish(conn, request, tally),
            _ => {
                self.mailbox.say(tally, |out| write::simple(out, "OK"));
                Flow::Done
            }
        }
    }

    /// A request between `MULTI` and `EXEC`.
    pub(super) fn in_txn(&mut self, view: &Rc<View>, request: Request<'_>, command: &Command, tally: Tally) -> Flow {
        use Handling::{Any, Block, Key, SplitList, SplitOk, SplitSum};
        if !matches!(command.handling, Key | Any | Block | SplitList | SplitOk | SplitSum) {
            self.spoil_txn();
            return self.error(&format!(
                "ERR command '{}' is not allowed in a transaction through the proxy",
                command.name
            ));
        }
        if self.mailbox.waiting() > 0 && self.txn.conn().is_none() {
            return Flow::Wait;
        }
        let node = match self.one_node(view, request) {
            Ok(Some(node)) => node,
            Ok(None) => match self.txn.conn() {
                Some(conn) => self.index_of(view, conn),
                None => self.pool.any(view),
            },
            Err(text) => {
                self.spoil_txn();
                return self.error(text);
            }
        };
        let is_new = self.txn.conn().is_none();
        let conn = match self.conn_at(view, node) {
            Ok(conn) => conn,
            Err(text) => {
                self.spoil_txn();
                return self.error(&text);
            }
        };
        if is_new {
            conn.send(b"*1\r\n$5\r\nMULTI\r\n", Pending::new(None, 0, 0));
            if let Txn::Open { conn: place, .. } = &mut self.txn {
                *place = Some(Rc::clone(&conn));
            }
        }
        let number = self.mailbox.expect(tally);
        conn.send(request.bytes, Pending::new(Some(&self.mailbox), number, 0));
        Flow::Done
    }

    fn index_of(&self, view: &View, conn: &Conn) -> u16 {
        let found = view.nodes.iter().position(|node| Rc::ptr_eq(node, &conn.node));
        found.map_or(NOBODY, |at| at as u16)
    }

    /// The transaction's connection, which must lead to this server, or a new one.
    fn conn_at(&self, view: &View, node: u16) -> Result<Rc<Conn>, String> {
        let node = view
            .nodes
            .get(usize::from(node))
            .ok_or("ERR no server is known for this key now")?;
        match self.txn.conn() {
            Some(conn) if conn.is_dead() => Err(EXPIRED.into()),
            Some(conn) if !Rc::ptr_eq(&conn.node, node) => {
                Err("CROSSSLOT the keys of a transaction don't belong to one server; a hash tag keeps them together".into())
            }
            Some(conn) => Ok(Rc::clone(conn)),
            None => node.private(&self.pool, self.purpose()),
        }
    }

    /// A request was refused: if a transaction is open it must fail.
    pub(super) fn spoil_txn(&mut self) {
        if let Txn::Open { is_spoilt, .. } = &mut self.txn {
            *is_spoilt = true;
        }
    }

    /// A command that waits at its server.
    pub(super) fn block(&mut self, view: &Rc<View>, request: Request<'_>, tally: Tally) -> Flow {
        if self.mailbox.waiting() > 0 {
            return Flow::Wait;
        }
        let node = match self.one_node(view, request) {
            Ok(node) => node.unwrap_or(NOBODY),
            Err(text) => return self.error(text),
        };
        if matches!(self.txn, Txn::Watching { .. }) {
            return self.error("ERR blocking commands are not supported while keys are watched");
        }
        let conn = match self.conn_at(view, node) {
            Ok(conn) => conn,
            Err(text) => return self.error(&text),
        };
        let number = self.mailbox.expect(tally);
        let mut pending = Pending::new(Some(&self.mailbox), number, 0);
        pending.is_patient = true;
        conn.send(request.bytes, pending);
        self.blocking = Some(conn);
        Flow::Done
    }

    /// Whether requests must wait: the last one was on a connection of its own and is not answered.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocking.is_some() && self.mailbox.waiting() > 0
    }

    /// Whether what it waits for may take for ever.
    pub(crate) fn may_wait_for_ever(&self) -> bool {
        self.is_blocked() && self.blocking.as_ref().is_some_and(|conn| conn.is_patient())
    }

    /// The reply came: the connection is clean.
    pub(super) fn end_blocking(&mut self) {
        if let Some(conn) = self.blocking.take() {
            self.hand_back(conn);
        }
    }

    fn hand_back(&self, conn: Rc<Conn>) {
        let node = Rc::clone(&conn.node);
        node.give_back(conn);
    }

    /// The server that all subscriptions of a pool are at, and all messages go to: the same for all threads.
    pub(super) fn subscriptions_node(&self, view: &View) -> u16 {
        view.topology.primaries().next().unwrap_or(NOBODY)
    }

    /// `SUBSCRIBE` and its like.
    pub(super) fn subscribe(&mut self, view: &Rc<View>, request: Request<'_>) -> Flow {
        if self.mailbox.waiting() > 0 {
            return Flow::Wait;
        }
        let node = match self.keys.is_empty() {
            true => Ok(None),
            // Sharded channels are at the server of their slot.
            false => self.one_node(view, request),
        };
        let node = match node {
            Ok(node) => node.unwrap_or_else(|| self.subscriptions_node(view)),
            Err(text) => return self.error(text),
        };
        let Some(node) = view.nodes.get(usize::from(node)) else {
            return self.error("ERR no server is known for subscriptions now");
        };
        if let Some(conn) = &self.listening
            && !conn.is_dead()
        {
            // In a cluster every server has all messages but those of sharded channels.
            let is_anywhere = self.keys.is_empty() && view.topology.is_cluster();
            if !Rc::ptr_eq(&conn.node, node) && !is_anywhere {
                return self.error(
                    "CROSSSLOT the channels of a client don't belong to one server; a hash tag keeps sharded ones together",
                );
            }
            conn.resume_listening(&self.mailbox);
            conn.tell(request.bytes);
            return Flow::Done;
        }
        match node.private(&self.pool, self.purpose()) {
            Ok(conn) => {
                conn.listen(&self.mailbox);
                conn.tell(request.bytes);
                self.listening = Some(conn);
                Flow::Done
            }
            Err(text) => self.error(&text),
        }
    }

    /// `MONITOR`: all requests of the one server.
    pub(super) fn monitor(&mut self, view: &Rc<View>, request: Request<'_>) -> Flow {
        if !view.config.admin {
            return self
                .error("ERR MONITOR shows the requests of all clients: it wants admin = true in the pool's configuration");
        }
        if self.mailbox.waiting() > 0 {
            return Flow::Wait;
        }
        let [node] = view.nodes.as_slice() else {
            return self.error("ERR MONITOR works with pools of one server; send it to a server");
        };
        match node.private(&self.pool, self.purpose()) {
            Ok(conn) => {
                conn.listen(&self.mailbox);
                conn.tell(request.bytes);
                self.listening = Some(conn);
                Flow::Done
            }
            Err(text) => self.error(&text),
        }
    }

    /// Whether this command cannot be served since the client, which speaks version 2, is subscribed.
    pub(super) fn is_deaf(&self, command: &Command) -> bool {
        let is_allowed =
            matches!(command.handling, Handling::PubSub) || matches!(command.name.as_str(), "ping" | "quit" | "reset");
        self.version == Version::Resp2 && !is_allowed && self.is_subscribed()
    }

    /// Whether it is subscribed to something, or follows `MONITOR`.
    pub(super) fn is_subscribed(&self) -> bool {
        self.listening.as_ref().is_some_and(|conn| conn.has_subscriptions())
    }

    /// Gives up every connection of its own; what state they have goes with them.
    pub(super) fn leave_private(&mut self) {
        let txn = std::mem::take(&mut self.txn);
        let conns = [txn.conn().cloned(), self.blocking.take(), self.listening.take()];
        for conn in conns.into_iter().flatten() {
            conn.ignore();
            conn.kill();
        }
    }
}
