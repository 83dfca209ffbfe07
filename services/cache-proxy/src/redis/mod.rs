//! A client that speaks RESP: who it is, what state it has, where each of its requests goes.

mod admin;
mod info;
mod local;
mod private;
pub mod split;

use std::rc::Rc;
use std::sync::Arc;

use crate::clock;
use crate::command::{Command, Handling};
use crate::conn::{Conn, Pending, Purpose};
use crate::insight::Card;
use crate::mailbox::Mailbox;
use crate::meter::Tally;
use crate::net::Step;
use crate::pool::{Pool, View};
use crate::resp::request::{Arg, Found, Limits, RequestParser};
use crate::resp::write::{self, Version};
use crate::resp::{Malformed, inline};
use crate::session::End;
use crate::topology::NOBODY;
use crate::users::User;

pub(crate) use admin::deliver_scan;
use private::Txn;

/// Limits for who has not said who it is, as Redis has them.
const STRANGER: Limits = Limits {
    args: 10,
    bytes: 16 * 1024,
};
/// Arguments of a request.
const ARGS_MAX: usize = 1024 * 1024;

/// What becomes of the bytes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It was answered or sent.
    Done,
    /// Not before all earlier requests are answered.
    Wait,
    /// It was answered, and nothing more is read.
    Close,
}

/// A client's state.
pub struct Session {
    pool: Rc<Pool>,
    view: Rc<View>,
    card: Arc<Card>,
    pub(crate) mailbox: Rc<Mailbox>,
    parser: RequestParser,
    /// Indexes of the keys of a request.
    pub(crate) keys: Vec<u32>,
    pub(crate) version: Version,
    db: u32,
    user: Option<Arc<User>>,
    txn: Txn,
    /// Connection of a blocking request in flight.
    blocking: Option<Rc<Conn>>,
    /// Connection that subscriptions or `MONITOR` are on.
    listening: Option<Rc<Conn>>,
    /// Requests to a Ferrite cluster, one after the other.
    pub(crate) ferrite: crate::ferrite::Lane,
}

/// A request with its arguments.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub bytes: &'a [u8],
    pub args: &'a [Arg],
}

impl<'a> Request<'a> {
    /// An argument; empty if there are fewer.
    pub fn arg(&self, at: usize) -> &'a [u8] {
        self.args.get(at).map_or(&[], |arg| arg.of(self.bytes))
    }

    /// Whether the argument is this word, in any case.
    pub fn is(&self, at: usize, word: &str) -> bool {
        self.arg(at).eq_ignore_ascii_case(word.as_bytes())
    }
}

impl Session {
    /// A client that just connected.
    pub fn new(pool: &Rc<Pool>, card: &Arc<Card>, mailbox: &Rc<Mailbox>) -> Session {
        let view = pool.view();
        let mut session = Session {
            pool: Rc::clone(pool),
            user: None,
            view,
            card: Arc::clone(card),
            mailbox: Rc::clone(mailbox),
            parser: RequestParser::default(),
            keys: Vec::new(),
            version: Version::Resp2,
            db: 0,
            txn: Txn::None,
            blocking: None,
            listening: None,
            ferrite: crate::ferrite::Lane::default(),
        };
        session.user = session.default_user();
        session.tell_card();
        session
    }

    /// Who a client is before it says so: the user `default`, if that has no password.
    fn default_user(&self) -> Option<Arc<User>> {
        let users = &self.view.plan.users;
        let plain = users.iter().find(|user| user.name == "default" && !user.has_secret());
        plain.cloned()
    }

    /// Whether it must say who it is first.
    fn is_stranger(&self) -> bool {
        self.user.is_none() && !self.view.plan.users.is_empty()
    }

    /// At the beginning of each turn: a new plan may have other users.
    pub fn turn(&mut self) {
        let view = self.pool.view();
        if !Rc::ptr_eq(&view, &self.view) {
            self.view = view;
            let users = &self.view.plan.users;
            self.user = match &self.user {
                Some(user) => users.iter().find(|known| known.name == user.name).cloned(),
                None => self.default_user(),
            };
        }
        if self.blocking.is_some() && self.mailbox.waiting() == 0 {
            self.end_blocking();
        }
    }

    /// What stands at the front of `bytes`.
    pub fn step(&mut self, bytes: &[u8]) -> Result<Step, End> {
        let limits = match self.is_stranger() {
            true => STRANGER,
            false => Limits {
                args: ARGS_MAX,
                bytes: self.view.config.request_max.as_usize(),
            },
        };
        let found = match self.parser.parse(bytes, limits) {
            Ok(found) => found,
            Err(fault) => return Err(self.refuse(fault)),
        };
        match found {
            Found::More { wanted } => Ok(Step::More(wanted)),
            Found::Request(len) => self.handle(bytes.get(..len).unwrap_or_default(), len),
            Found::Inline(len) => {
                let line = bytes.get(..len).unwrap_or_default();
                let request = inline::to_request(line).map_err(|fault| self.refuse(fault))?;
                if request.is_empty() {
                    return Ok(Step::Took(len));
                }
                match self.parser.parse(&request, limits) {
                    Ok(Found::Request(_)) => self.handle(&request, len),
                    _ => Err(self.refuse(Malformed::Large)),
                }
            }
        }
    }

    fn refuse(&self, fault: Malformed) -> End {
        self.mailbox
            .say(self.tally(), |out| write::error(out, &format!("ERR Protocol error: {fault}")));
        End::Malformed
    }

    fn handle(&mut self, bytes: &[u8], len: usize) -> Result<Step, End> {
        let mut parser = std::mem::take(&mut self.parser);
        let flow = match parser.args() {
            [] => Flow::Done,
            args => self.request(Request { bytes, args }),
        };
        parser.shrink();
        self.parser = parser;
        match flow {
            Flow::Done => Ok(Step::Took(len)),
            Flow::Wait => Ok(Step::Pause),
            Flow::Close => Err(End::Quit),
        }
    }

    /// For answers that no command has a name for.
    fn tally(&self) -> Tally {
        Tally::new(u16::MAX)
    }

    pub(crate) fn error(&self, text: &str) -> Flow {
        self.mailbox.say(self.tally(), |out| write::error(out, text));
        Flow::Done
    }

    /// The version and database that the servers' connections for this client are in.
    fn purpose(&self) -> Purpose {
        Purpose {
            version: self.version,
            db: self.db,
        }
    }

    fn request(&mut self, request: Request<'_>) -> Flow {
        if self.is_blocked() {
            return Flow::Wait;
        }
        let view = Rc::clone(&self.view);
        let Some((index, command)) = view.plan.table.find(request.bytes, request.args) else {
            self.spoil_txn();
            return self.error(&unknown(request));
        };
        if !command.takes(request.args.len()) {
            self.spoil_txn();
            let name = &command.name;
            return self.error(&format!("ERR wrong number of arguments for '{name}' command"));
        }
        if self.is_stranger() && !matches!(command.name.as_str(), "auth" | "hello" | "quit" | "reset") {
            return self.error("NOAUTH Authentication required.");
        }
        if let Err(text) = self.find_keys(request, command) {
            self.spoil_txn();
            return self.error(&format!("ERR {text}"));
        }
        if let Some(refusal) = self.forbidden(request, index, command) {
            self.spoil_txn();
            return self.error(&refusal);
        }
        if self.is_deaf(command) {
            return self.error(&format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
                command.name
            ));
        }
        let tally = Tally::new(index).with_key(self.first_key(request));
        self.pool.meter.weigh(tally.key(), request.bytes.len());
        self.dispatch(&view, request, command, tally)
    }

    fn dispatch(&mut self, view: &Rc<View>, request: Request<'_>, command: &Command, tally: Tally) -> Flow {
        if view.store.is_some() && !matches!(command.handling, Handling::Local) {
            return self.ask_store(view, request, command, tally);
        }
        if self.txn.is_open() && !matches!(command.handling, Handling::Txn | Handling::Local) {
            return self.in_txn(view, request, command, tally);
        }
        match command.handling {
            Handling::Key => self.send_to_keys(view, request, command, tally),
            Handling::SplitList | Handling::SplitOk | Handling::SplitSum => self.split(view, request, command, tally),
            Handling::Any => {
                let node = self.pool.any(view);
                self.forward(view, node, request, command, tally)
            }
            Handling::Local => self.local(view, request, command, tally),
            Handling::Block if command.blocks(request.bytes, request.args) => self.block(view, request, tally),
            Handling::Block => self.send_to_keys(view, request, command, tally),
            Handling::Txn => self.txn(view, request, command, tally),
            Handling::PubSub => self.subscribe(view, request),
            Handling::Publish | Handling::PubSubInfo => {
                let node = self.subscriptions_node(view);
                self.forward(view, node, request, command, tally)
            }
            Handling::Monitor => self.monitor(view, request),
            Handling::FanOk | Handling::FanSum | Handling::FanJoin | Handling::FanFirst | Handling::Scan => {
                self.admin(view, request, command, tally)
            }
            Handling::Refuse => self.error(&format!(
                "ERR command '{}' cannot work through a proxy: send it to a server",
                command.name
            )),
        }
    }

    fn find_keys(&mut self, request: Request<'_>, command: &Command) -> Result<(), &'static str> {
        command.keys(request.bytes, request.args, &mut self.keys)?;
        if let Some(at) = self.keys.first() {
            self.pool.meter.touch(request.arg(*at as usize));
        }
        Ok(())
    }

    fn first_key<'a>(&self, request: Request<'a>) -> &'a [u8] {
        self.keys.first().map_or(&[], |at| request.arg(*at as usize))
    }

    /// Why the user may not, if so.
    fn forbidden(&self, request: Request<'_>, index: u16, command: &Command) -> Option<String> {
        let user = self.user.as_ref()?;
        let is_free = matches!(command.name.as_str(), "auth" | "hello" | "quit" | "reset" | "ping");
        if !is_free && !user.may_run(index) {
            return Some(format!(
                "NOPERM User {} has no permissions to run the '{}' command",
                user.name, command.name
            ));
        }
        if user.has_prefixes() {
            let is_open = |at: &u32| user.may_touch(request.arg(*at as usize));
            // What names no key sees all of them.
            let sees_all =
                self.keys.is_empty() && !matches!(command.handling, Handling::Local | Handling::Txn | Handling::Refuse);
            if sees_all || !self.keys.iter().all(is_open) {
                return Some("NOPERM No permissions to access a key".into());
            }
        }
        if user.rate > 0 && !self.pool.may_pass(&user.name, user.rate) {
            self.pool.meter.sheet.rate_limited.add(1);
            return Some(format!(
                "ERR user {} exceeds its rate of {} requests a second",
                user.name, user.rate
            ));
        }
        None
    }

    /// To the one server that all keys belong to; without keys to any.
    fn send_to_keys(&mut self, view: &Rc<View>, request: Request<'_>, command: &Command, tally: Tally) -> Flow {
        let node = match self.one_node(view, request) {
            Ok(node) => node,
            Err(text) => return self.error(text),
        };
        let node = node.unwrap_or_else(|| self.pool.any(view));
        self.forward(view, node, request, command, tally)
    }

    /// Index of the server that all keys belong to; `None` without keys.
    fn one_node(&self, view: &View, request: Request<'_>) -> Result<Option<u16>, &'static str> {
        let mut found = None;
        for at in &self.keys {
            let node = self.pool.find(view, request.arg(*at as usize));
            if found.is_some_and(|known| known != node) {
                return Err("CROSSSLOT Keys in request don't belong to one server; a hash tag keeps them together");
            }
            found = Some(node);
        }
        Ok(found)
    }

    fn forward(&mut self, view: &View, node: u16, request: Request<'_>, command: &Command, tally: Tally) -> Flow {
        let number = self.mailbox.expect(tally);
        let node = self.pool.pick(view, node, command.is_readonly());
        let mut pending = Pending::new(Some(&self.mailbox), number, 0);
        pending.is_read = command.is_readonly();
        self.pool.send(node, self.purpose(), self.mailbox.id, request.bytes, pending);
        if let Some(shadow) = self.pool.mirror() {
            self.mirror(&shadow, request);
        }
        Flow::Done
    }

    /// The same request for the shadow pool, where nobody waits for the reply.
    fn mirror(&self, shadow: &Rc<Pool>, request: Request<'_>) {
        let view = shadow.view();
        let key = self.first_key(request);
        let index = shadow.find(&view, key);
        if index == NOBODY {
            return;
        }
        self.pool.meter.sheet.mirrored.add(1);
        shadow.send(
            view.nodes.get(usize::from(index)),
            self.purpose(),
            self.mailbox.id,
            request.bytes,
            Pending::new(None, 0, 0),
        );
    }

    fn split(&mut self, view: &Rc<View>, request: Request<'_>, command: &Command, tally: Tally) -> Flow {
        if !(request.args.len() - 1).is_multiple_of(command.split_step()) {
            return self.error(&format!("ERR wrong number of arguments for '{}' command", command.name));
        }
        let sent = split::send(
            &self.pool,
            view,
            request,
            command,
            &self.keys,
            self.purpose(),
            Some((&self.mailbox, tally)),
        );
        if let Some(node) = sent {
            return self.forward(view, node, request, command, tally);
        }
        if let Some(shadow) = self.pool.mirror() {
            let view = shadow.view();
            self.pool.meter.sheet.mirrored.add(1);
            if split::send(&shadow, &view, request, command, &self.keys, self.purpose(), None).is_some() {
                self.mirror(&shadow, request);
            }
        }
        Flow::Done
    }

    fn tell_card(&self) {
        let mut told = self.card.told.lock();
        told.db = self.db;
        told.resp = if self.version == Version::Resp3 { 3 } else { 2 };
        told.user = self.user.as_ref().map_or_else(|| "default".into(), |user| user.name.clone());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.leave_private();
    }
}

/// As Redis words it.
fn unknown(request: Request<'_>) -> String {
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes.get(..bytes.len().min(64)).unwrap_or_default()).into_owned();
    let args: Vec<_> = request
        .args
        .iter()
        .skip(1)
        .take(4)
        .map(|arg| format!("'{}'", shown(arg.of(request.bytes))))
        .collect();
    format!(
        "ERR unknown command '{}', with args beginning with: {}",
        shown(request.arg(0)),
        args.join(" ")
    )
}

/// Requests a second, with as much saved up as a second has.
#[derive(Debug, Default)]
pub struct Bucket {
    tokens: f64,
    at: base::MonoTime,
}

impl Bucket {
    /// Takes one if there is one.
    pub fn take(&mut self, rate: u32) -> bool {
        let now = clock::now();
        let rate = f64::from(rate);
        self.tokens = (self.tokens + now.since(self.at).as_secs_f64() * rate).min(rate);
        self.at = now;
        let has = self.tokens >= 1.0;
        if has {
            self.tokens -= 1.0;
        }
        has
    }
}
