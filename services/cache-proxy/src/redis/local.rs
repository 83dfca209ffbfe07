//! What the proxy answers itself: who the client is, what it speaks, which commands there are.

use std::rc::Rc;
use std::sync::Arc;

use super::{Flow, Request, Session};
use crate::command::Command;
use crate::conn::Pending;
use crate::mailbox::Silence;
use crate::meter::Tally;
use crate::pool::View;
use crate::resp::number;
use crate::resp::write::{self, Version};

/// The version of Redis whose commands are known.
pub(super) const REDIS_VERSION: &str = "7.2.0";

/// Longest name of a client or library.
const NAME_MAX: usize = 128;

impl Session {
    pub(super) fn local(&mut self, view: &Rc<View>, request: Request<'_>, command: &Command, tally: Tally) -> Flow {
        let name = command.name.as_str();
        if self.txn.is_open() && !matches!(name, "quit" | "reset") {
            self.spoil_txn();
            return self.error(&format!(
                "ERR command '{name}' is not allowed in a transaction through the proxy"
            ));
        }
        match name.split('|').next().unwrap_or_default() {
            "ping" => self.ping(request, tally),
            "echo" => self.say(tally, |out| write::bulk(out, request.arg(1))),
            "quit" => {
                self.say(tally, |out| write::simple(out, "OK"));
                Flow::Close
            }
            "reset" => self.reset(tally),
            "select" => self.select(view, request, tally),
            "auth" => self.auth(request, tally),
            "hello" => self.hello(view, request, tally),
            "client" => self.client(request, name, tally),
            "command" => self.command(view, request, name, tally),
            "time" => self.time(tally),
            "readonly" | "readwrite" | "asking" => self.say(tally, |out| write::simple(out, "OK")),
            "lolwut" => self.say(tally, |out| write::bulk(out, b"Ferrite cache proxy\n")),
            "cluster" => self.cluster(view, request, name, tally),
            "info" => self.info(view, request, tally),
            "slowlog" => self.slowlog(view, request, name, tally),
            "hotkeys" => self.hotkeys(request, tally),
            _ => self.error(&format!("ERR command '{name}' is not served by the proxy")),
        }
    }

    pub(super) fn say(&self, tally: Tally, reply: impl FnOnce(&mut Vec<u8>)) -> Flow {
        self.mailbox.say(tally, reply);
        Flow::Done
    }

    fn ping(&mut self, request: Request<'_>, tally: Tally) -> Flow {
        if request.args.len() > 2 {
            return self.error("ERR wrong number of arguments for 'ping' command");
        }
        if self.version == Version::Resp2 && self.is_subscribed() {
            return self.say(tally, |out| {
                write::array(out, 2);
                write::bulk(out, b"pong");
                write::bulk(out, request.arg(1));
            });
        }
        self.say(tally, |out| match request.args.len() {
            1 => write::simple(out, "PONG"),
            _ => write::bulk(out, request.arg(1)),
        })
    }

    fn reset(&mut self, tally: Tally) -> Flow {
        if self.mailbox.waiting() > 0 {
            return Flow::Wait;
        }
        self.leave_private();
        self.version = Version::Resp2;
        self.db = 0;
        self.user = self.default_user();
        self.card.told.lock().name.clear();
        self.tell_card();
        self.mailbox.silence(Silence::None);
        self.say(tally, |out| write::simple(out, "RESET"))
    }

    fn select(&mut self, view: &View, request: Request<'_>, tally: Tally) -> Flow {
        let Some(db) = number(request.arg(1)) else {
            return self.error("ERR value is not an integer or out of range");
        };
        let is_one = view.topology.is_cluster() || view.store.is_some();
        let count = if is_one { 1 } else { view.config.databases };
        match u32::try_from(db) {
            Ok(db) if db < count => {
                if self.is_watching() {
                    return self.error("ERR SELECT is not supported while keys are watched");
                }
                if db != self.db && self.mailbox.waiting() > 0 {
                    // Another connection serves the other database; replies to here first.
                    return Flow::Wait;
                }
                self.db = db;
                self.tell_card();
                self.say(tally, |out| write::simple(out, "OK"))
            }
            _ => self.error("ERR DB index is out of range"),
        }
    }

    fn is_watching(&self) -> bool {
        matches!(self.txn, super::Txn::Watching { .. })
    }

    fn auth(&mut self, request: Request<'_>, tally: Tally) -> Flow {
        let (user, password) = match request.args.len() {
            2 => (&b"default"[..], request.arg(1)),
            3 => (request.arg(1), request.arg(2)),
            _ => return self.error("ERR syntax error"),
        };
        if let Err(text) = self.log_in(user, password) {
            return self.error(text);
        }
        self.say(tally, |out| write::simple(out, "OK"))
    }

    fn log_in(&mut self, name: &[u8], password: &[u8]) -> Result<(), &'static str> {
        let users = &self.view.plan.users;
        if users.is_empty() {
            return Err("ERR AUTH called without any user configured for this pool. Are you sure your configuration is correct?");
        }
        let user = users.iter().find(|user| user.name.as_bytes() == name);
        match user {
            Some(user) if user.accepts(password) => {
                self.user = Some(Arc::clone(user));
                self.tell_card();
                Ok(())
            }
            _ => {
                tracing::info!(client = self.card.id, addr = %self.card.addr, "wrong user or password");
                Err("WRONGPASS invalid username-password pair or user is disabled.")
            }
        }
    }

    fn hello(&mut self, view: &View, request: Request<'_>, tally: Tally) -> Flow {
        let mut version = self.version;
        let mut at = 1;
        if request.args.len() > 1 {
            version = match number(request.arg(1)) {
                Some(2) => Version::Resp2,
                Some(3) => Version::Resp3,
                Some(_) => return self.error("NOPROTO unsupported protocol version"),
                None => return self.error("ERR Protocol version is not an integer or out of range"),
            };
            at = 2;
        }
        let mut name = None;
        while at < request.args.len() {
            if request.is(at, "AUTH") && at + 2 < request.args.len() {
                if let Err(text) = self.log_in(request.arg(at + 1), request.arg(at + 2)) {
                    return self.error(text);
                }
                at += 3;
            } else if request.is(at, "SETNAME") && at + 1 < request.args.len() {
                name = Some(request.arg(at + 1));
                at += 2;
            } else {
                return self.error("ERR Syntax error in HELLO");
            }
        }
        if self.is_stranger() {
            return self.error(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option \
                 can be used to authenticate the client and select the RESP protocol version at the same time",
            );
        }
        if let Some(name) = name
            && let Err(text) = self.set_name(name)
        {
            return self.error(text);
        }
        if version != self.version {
            if self.is_watching() || self.is_subscribed() {
                return self.error("ERR HELLO is not supported while keys are watched or channels are subscribed to");
            }
            if self.mailbox.waiting() > 0 {
                return Flow::Wait;
            }
        }
        self.version = version;
        self.tell_card();
        let mode = if view.topology.is_cluster() { "cluster" } else { "standalone" };
        let id = self.card.id as i64;
        self.say(tally, |out| {
            write::map(out, version, 7);
            for (key, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
                write::bulk(out, key.as_bytes());
                write::bulk(out, value.as_bytes());
            }
            write::bulk(out, b"proto");
            write::integer(out, if version == Version::Resp3 { 3 } else { 2 });
            write::bulk(out, b"id");
            write::integer(out, id);
            for (key, value) in [("mode", mode), ("role", "master")] {
                write::bulk(out, key.as_bytes());
                write::bulk(out, value.as_bytes());
            }
            write::bulk(out, b"modules");
            write::array(out, 0);
        })
    }

    fn set_name(&self, name: &[u8]) -> Result<(), &'static str> {
        self.card.told.lock().name =
            printable(name).ok_or("ERR Client names cannot contain spaces, newlines or special characters.")?;
        Ok(())
    }

    fn client(&mut self, request: Request<'_>, name: &str, tally: Tally) -> Flow {
        match name {
            "client|id" => self.say(tally, |out| write::integer(out, self.card.id as i64)),
            "client|getname" => {
                let name = self.card.told.lock().name.clone();
                let version = self.version;
                self.say(tally, |out| match name.is_empty() {
                    true => write::null(out, version),
                    false => write::bulk(out, name.as_bytes()),
                })
            }
            "client|setname" => match self.set_name(request.arg(2)) {
                Ok(()) => self.say(tally, |out| write::simple(out, "OK")),
                Err(text) => self.error(text),
            },
            "client|setinfo" => self.set_info(request, tally),
            "client|info" => {
                let line = super::info::client_line(&self.card);
                self.say(tally, |out| write::bulk(out, line.as_bytes()))
            }
            "client|list" => {
                let cards = self.pool.meter.insight.clients(&self.view.config.name);
                let lines: String = cards.iter().map(|card| super::info::client_line(card)).collect();
                self.say(tally, |out| write::bulk(out, lines.as_bytes()))
            }
            "client|kill" => self.kill(request, tally),
            "client|no-evict" | "client|no-touch" => self.say(tally, |out| write::simple(out, "OK")),
            "client|getredir" => self.say(tally, |out| write::integer(out, -1)),
            "client|reply" => self.reply_mode(request, tally),
            "client|tracking" if request.is(2, "off") => self.say(tally, |out| write::simple(out, "OK")),
            "client|tracking" => self.error(
                "ERR CLIENT TRACKING cannot work through the proxy: clients share its connections to servers, so nobody could be told what \
                 is no longer valid for whom",
            ),
            "client|caching" => {
                self.error("ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled")
            }
            "client|trackinginfo" => self.tracking_info(tally),
            _ => self.error(&format!("ERR '{}' is not served by the proxy", name.replace('|', " "))),
        }
    }

    /// `CLIENT REPLY ON|OFF|SKIP`, of which only the first is answered.
    fn reply_mode(&self, request: Request<'_>, tally: Tally) -> Flow {
        match () {
            () if request.is(2, "on") => {
                self.mailbox.silence(Silence::None);
                return self.say(tally, |out| write::simple(out, "OK"));
            }
            () if request.is(2, "off") => self.mailbox.silence(Silence::All),
            () if request.is(2, "skip") => {
                if self.mailbox.silenced() == Silence::None {
                    self.mailbox.silence(Silence::Next);
                }
            }
            () => return self.error("ERR syntax error"),
        }
        Flow::Done
    }

    fn tracking_info(&self, tally: Tally) -> Flow {
        let version = self.version;
        self.say(tally, |out| {
            write::map(out, version, 3);
            write::bulk(out, b"flags");
            write::array(out, 1);
            write::bulk(out, b"off");
            write::bulk(out, b"redirect");
            write::integer(out, -1);
            write::bulk(out, b"prefixes");
            write::array(out, 0);
        })
    }

    fn set_info(&self, request: Request<'_>, tally: Tally) -> Flow {
        let Some(value) = printable(request.arg(3)) else {
            return self.error("ERR the value cannot contain spaces, newlines or special characters.");
        };
        let mut told = self.card.told.lock();
        match () {
            () if request.is(2, "lib-name") => told.library = value,
            () if request.is(2, "lib-ver") => told.version = value,
            () => {
                drop(told);
                return self.error("ERR Unrecognized option");
            }
        }
        drop(told);
        self.say(tally, |out| write::simple(out, "OK"))
    }

    /// `CLIENT KILL ADDR` and `CLIENT KILL [ID n] [ADDR a] [USER u] [LADDR a] [SKIPME yes|no]`.
    fn kill(&self, request: Request<'_>, tally: Tally) -> Flow {
        let all = self.pool.meter.insight.clients(&self.view.config.name);
        let text = |at| String::from_utf8_lossy(request.arg(at)).into_owned();
        if request.args.len() == 3 {
            let found: Vec<_> = all.into_iter().filter(|card| card.addr == text(2)).collect();
            if found.is_empty() {
                return self.error("ERR No such client");
            }
            self.pool.meter.insight.kill(&found);
            return self.say(tally, |out| write::simple(out, "OK"));
        }
        let mut found = all;
        let mut skips_me = true;
        for at in (2..request.args.len()).step_by(2) {
            let value = text(at + 1);
            match () {
                () if request.is(at, "id") => found.retain(|card| card.id.to_string() == value),
                () if request.is(at, "addr") => found.retain(|card| card.addr == value),
                () if request.is(at, "laddr") => found.retain(|card| card.local == value),
                () if request.is(at, "user") => found.retain(|card| card.told.lock().user == value),
                () if request.is(at, "skipme") => skips_me = value.eq_ignore_ascii_case("yes"),
                () => return self.error("ERR syntax error"),
            }
        }
        found.retain(|card| !skips_me || card.id != self.card.id);
        self.pool.meter.insight.kill(&found);
        self.say(tally, |out| write::integer(out, found.len() as i64))
    }

    fn time(&self, tally: Tally) -> Flow {
        let now = base::WallTime::now();
        self.say(tally, |out| {
            write::array(out, 2);
            write::bulk(out, now.seconds().to_string().as_bytes());
            write::bulk(out, (now.0 % 1000 * 1000).to_string().as_bytes());
        })
    }

    fn command(&self, view: &View, request: Request<'_>, name: &str, tally: Tally) -> Flow {
        let table = &view.plan.table;
        let version = self.version;
        match name {
            "command" => self.say(tally, |out| {
                let commands: Vec<_> = table
                    .commands()
                    .iter()
                    .filter(|command| !command.name.contains('|'))
                    .collect();
                write::array(out, commands.len());
                commands.iter().for_each(|command| fact(out, command));
            }),
            "command|count" => {
                let count = table.commands().iter().filter(|command| !command.name.contains('|')).count();
                self.say(tally, |out| write::integer(out, count as i64))
            }
            "command|list" => self.say(tally, |out| {
                let names: Vec<_> = table
                    .commands()
                    .iter()
                    .filter(|command| !command.name.contains('|'))
                    .collect();
                write::array(out, names.len());
                names.iter().for_each(|command| write::bulk(out, command.name.as_bytes()));
            }),
            "command|info" => self.say(tally, |out| {
                write::array(out, request.args.len() - 2);
                for at in 2..request.args.len() {
                    match table.named(&String::from_utf8_lossy(request.arg(at))) {
                        Some((_, command)) => fact(out, command),
                        None => write::null(out, version),
                    }
                }
            }),
            // Texts of Redis' manual, which the proxy does not have.
            "command|docs" => self.say(tally, |out| write::map(out, version, 0)),
            _ => self.error(&format!("ERR '{}' is not served by the proxy", name.replace('|', " "))),
        }
    }

    /// Sends a request to every primary; the reply is joined as `kind` says.
    pub(super) fn fan_out(&self, view: &View, request: &[u8], kind: crate::join::JoinKind, tally: Tally) -> Flow {
        let nodes: Vec<_> = view
            .topology
            .primaries()
            .filter_map(|at| view.nodes.get(usize::from(at)))
            .collect();
        if nodes.is_empty() {
            return self.error("ERR no server is known now");
        }
        let join = crate::join::Join::new(kind, nodes.len() as u16);
        let number = self.mailbox.expect_join(join, tally);
        for (part, node) in nodes.into_iter().enumerate() {
            let pending = Pending::new(Some(&self.mailbox), number, part as u16);
            self.pool.send(Some(node), self.purpose(), self.mailbox.id, request, pending);
        }
        Flow::Done
    }
}

fn fact(out: &mut Vec<u8>, command: &Command) {
    let (first, last, step) = command.key_range();
    write::array(out, 6);
    write::bulk(out, command.name.as_bytes());
    write::integer(out, command.arity);
    let flags = [("write", command.is_write), ("readonly", command.is_readonly())];
    let flags: Vec<_> = flags.iter().filter(|(_, has)| *has).collect();
    write::array(out, flags.len());
    flags.iter().for_each(|(flag, _)| write::simple(out, flag));
    write::integer(out, first);
    write::integer(out, last);
    write::integer(out, step);
}

fn printable(text: &[u8]) -> Option<String> {
    let is_plain = text.len() <= NAME_MAX && text.iter().all(|byte| (b'!'..=b'~').contains(byte));
    is_plain.then(|| String::from_utf8_lossy(text).into_owned())
}
