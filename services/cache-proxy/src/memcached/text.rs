//! The text protocol with its meta commands.

use base64::Engine as _;

use super::scan::{Expected, Form, Quiet};
use super::{KEY_MAX, Session};
use crate::conn::Pending;
use crate::join::{Join, JoinKind};
use crate::meter::Tally;
use crate::net::Step;
use crate::pool::TEXT;
use crate::resp::{LINE_MAX, number};
use crate::session::End;
use crate::topology::NOBODY;

/// What a command is, by name: how many words stand before its (first) key, and its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Keys, values in reply; words before the first key.
    Get(usize),
    /// A block of data follows; index of the word that tells its length.
    Store(usize),
    /// One key, one line in reply.
    Plain,
    Meta,
    /// A meta command with a block of data.
    MetaStore,
    Local,
}

const COMMANDS: &[(&str, Kind)] = &[
    ("get", Kind::Get(1)),
    ("gets", Kind::Get(1)),
    ("gat", Kind::Get(2)),
    ("gats", Kind::Get(2)),
    ("set", Kind::Store(4)),
    ("add", Kind::Store(4)),
    ("replace", Kind::Store(4)),
    ("append", Kind::Store(4)),
    ("prepend", Kind::Store(4)),
    ("cas", Kind::Store(4)),
    ("delete", Kind::Plain),
    ("incr", Kind::Plain),
    ("decr", Kind::Plain),
    ("touch", Kind::Plain),
    ("mg", Kind::Meta),
    ("md", Kind::Meta),
    ("ma", Kind::Meta),
    ("me", Kind::Meta),
    ("ms", Kind::MetaStore),
    ("mn", Kind::Local),
    ("version", Kind::Local),
    ("verbosity", Kind::Local),
    ("flush_all", Kind::Local),
    ("stats", Kind::Local),
    ("quit", Kind::Local),
];

impl Session {
    pub(super) fn text(&mut self, bytes: &[u8]) -> Result<Step, End> {
        let window = bytes.get(..bytes.len().min(LINE_MAX)).unwrap_or_default();
        let Some(end) = memchr::memchr(b'\n', window) else {
            if bytes.len() >= LINE_MAX {
                self.line("CLIENT_ERROR line too long");
                return Err(End::Malformed);
            }
            return Ok(Step::More(bytes.len() + 1));
        };
        let head = end + 1;
        let line = window.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).collect();
        let name = words.first().copied().unwrap_or_default();
        let known = COMMANDS.iter().find(|(known, _)| known.as_bytes() == name);
        let Some((_, kind)) = known else {
            self.line("ERROR");
            return Ok(Step::Took(head));
        };
        let length_at = match kind {
            Kind::Store(at) => Some(*at),
            Kind::MetaStore => Some(2),
            _ => None,
        };
        let Some(at) = length_at else {
            return self.handle(*kind, &words).map(|()| Step::Took(head));
        };
        let length = words
            .get(at)
            .and_then(|word| number(word))
            .and_then(|length| usize::try_from(length).ok());
        let Some(length) = length else {
            self.line("CLIENT_ERROR bad command line format");
            return Ok(Step::Took(head));
        };
        let whole = head.saturating_add(length).saturating_add(2);
        if whole > self.view.config.request_max.as_usize() {
            self.line("SERVER_ERROR object too large for cache");
            return Err(End::Malformed);
        }
        if bytes.len() < whole {
            return Ok(Step::More(whole));
        }
        let block = bytes.get(head..whole).unwrap_or_default();
        if !block.ends_with(b"\r\n") {
            self.line("CLIENT_ERROR bad data chunk");
            return Err(End::Malformed);
        }
        match kind {
            Kind::MetaStore => self.meta(&words, block),
            _ => self.single(&words, block),
        }
        Ok(Step::Took(whole))
    }

    fn handle(&mut self, kind: Kind, words: &[&[u8]]) -> Result<(), End> {
        match kind {
            Kind::Get(first) => self.get(words, first),
            Kind::Meta => self.meta(words, b""),
            Kind::Local => return self.local(words),
            _ => self.single(words, b""),
        }
        Ok(())
    }

    pub(super) fn line(&self, text: &str) {
        self.mailbox.say(Tally::new(u16::MAX), |out| {
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        });
    }

    pub(super) fn tally(&self, name: &[u8], key: &[u8]) -> Tally {
        self.pool.meter.touch(key);
        Tally::new(super::counter(name)).with_key(key)
    }

    fn is_key(key: &[u8]) -> bool {
        !key.is_empty() && key.len() <= KEY_MAX && !key.iter().any(u8::is_ascii_control)
    }

    /// A command with one key and one line in reply.
    fn single(&mut self, words: &[&[u8]], block: &[u8]) {
        let is_silent = words.last() == Some(&&b"noreply"[..]);
        let words = if is_silent {
            words.get(..words.len() - 1).unwrap_or_default()
        } else {
            words
        };
        let Some(key) = words.get(1).filter(|key| Self::is_key(key)) else {
            if !is_silent {
                self.line("CLIENT_ERROR bad command line format");
            }
            return;
        };
        let expected = Expected {
            form: Form::Line,
            quiet: if is_silent { Quiet::Everything } else { Quiet::Nothing },
        };
        self.send(words, key, block, expected);
    }

    fn send(&mut self, words: &[&[u8]], key: &[u8], block: &[u8], expected: Expected) {
        let mut request = Vec::with_capacity(block.len() + 64);
        join(&mut request, words);
        request.extend_from_slice(block);
        let tally = self.tally(words.first().copied().unwrap_or_default(), key);
        self.pool.meter.weigh(key, request.len());
        if self.view.store.is_some() {
            return self.ask_store(words, key, block, expected, tally);
        }
        let index = self.pool.find(&self.view, key);
        let number = self.mailbox.expect(tally);
        let mut pending = Pending::new(Some(&self.mailbox), number, 0);
        pending.expected = expected;
        let node = self.view.nodes.get(usize::from(index));
        self.pool.send(node, TEXT, self.mailbox.id, &request, pending);
    }

    /// Keys are split by server; what is found is joined.
    fn get(&mut self, words: &[&[u8]], first: usize) {
        let keys = words.get(first..).unwrap_or_default();
        if keys.is_empty() {
            return self.line("ERROR");
        }
        if !keys.iter().all(|key| Self::is_key(key)) {
            return self.line("CLIENT_ERROR bad command line format");
        }
        let expected = Expected {
            form: Form::Items,
            quiet: Quiet::Nothing,
        };
        if self.view.store.is_some() {
            let tally = self.tally(
                words.first().copied().unwrap_or_default(),
                keys.first().copied().unwrap_or_default(),
            );
            return self.ask_store(words, b"", b"", expected, tally);
        }
        if let [key] = keys {
            return self.send(words, key, b"", expected);
        }
        let mut parts: Vec<(u16, Vec<&[u8]>)> = Vec::new();
        for key in keys {
            let index = self.pool.find(&self.view, key);
            if index == NOBODY {
                return self.line("SERVER_ERROR no server is known for a key now");
            }
            match parts.iter_mut().find(|(known, _)| *known == index) {
                Some((_, list)) => list.push(key),
                None => parts.push((index, vec![key])),
            }
        }
        let tally = self.tally(
            words.first().copied().unwrap_or_default(),
            keys.first().copied().unwrap_or_default(),
        );
        let join_all = Join::new(JoinKind::Items, parts.len() as u16);
        let number = self.mailbox.expect_join(join_all, tally);
        for (part, (index, keys)) in parts.iter().enumerate() {
            let mut request = Vec::new();
            let mut line: Vec<&[u8]> = words.get(..first).unwrap_or_default().to_vec();
            line.extend_from_slice(keys);
            join(&mut request, &line);
            let mut pending = Pending::new(Some(&self.mailbox), number, part as u16);
            pending.expected = expected;
            let node = self.view.nodes.get(usize::from(*index));
            self.pool.send(node, TEXT, self.mailbox.id, &request, pending);
        }
    }

    /// Quiet meta commands are sent without their `q`, so that every request has a reply; what the client did not want is dropped here.
    fn meta(&mut self, words: &[&[u8]], block: &[u8]) {
        let flags = words.iter().skip(if block.is_empty() { 2 } else { 3 });
        let is_quiet = flags.clone().any(|flag| *flag == b"q");
        let is_encoded = flags.clone().any(|flag| *flag == b"b");
        let Some(raw) = words.get(1).filter(|key| Self::is_key(key)) else {
            return self.line("CLIENT_ERROR bad command line format");
        };
        let decoded = match is_encoded {
            true => base64::engine::general_purpose::STANDARD.decode(raw).ok(),
            false => None,
        };
        let Some(key) = decoded.as_deref().or((!is_encoded).then_some(*raw)) else {
            return self.line("CLIENT_ERROR error decoding key");
        };
        let quiet = match (is_quiet, words.first().copied().unwrap_or_default()) {
            (false, _) => Quiet::Nothing,
            (_, b"mg") => Quiet::Lines([b"EN", b"EN"]),
            (_, b"ms") => Quiet::Lines([b"HD", b"HD"]),
            (_, b"md" | b"ma") => Quiet::Lines([b"HD", b"NF"]),
            _ => Quiet::Nothing,
        };
        let form = Form::Meta;
        let first_flag = if block.is_empty() { 2 } else { 3 };
        let is_mute = |at: usize, word: &[u8]| is_quiet && at >= first_flag && word == b"q";
        let loud = words.iter().enumerate().filter(|(at, word)| !is_mute(*at, word));
        let loud: Vec<&[u8]> = loud.map(|(_, word)| *word).collect();
        self.send(&loud, key, block, Expected { form, quiet });
    }

    fn local(&mut self, words: &[&[u8]]) -> Result<(), End> {
        let is_silent = words.last() == Some(&&b"noreply"[..]);
        match words.first().copied().unwrap_or_default() {
            b"mn" => self.line("MN"),
            b"version" => self.line(&format!("VERSION 1.6.0-ferrite-{}", env!("CARGO_PKG_VERSION"))),
            b"verbosity" if !(2..=3).contains(&words.len()) => self.line("ERROR"),
            b"verbosity" if is_silent => {}
            b"verbosity" => self.line("OK"),
            b"quit" => return Err(End::Quit),
            b"flush_all" => self.flush_all(words, is_silent),
            _ => self.stats(words),
        }
        Ok(())
    }

    fn flush_all(&mut self, words: &[&[u8]], is_silent: bool) {
        if !self.view.config.admin || self.view.store.is_some() {
            return self.line("CLIENT_ERROR flush_all concerns all servers: it wants admin = true in the pool's configuration");
        }
        let words = if is_silent {
            words.get(..words.len() - 1).unwrap_or_default()
        } else {
            words
        };
        let quiet = if is_silent { Quiet::Everything } else { Quiet::Nothing };
        let mut request = Vec::new();
        join(&mut request, words);
        if is_silent {
            // Nothing is joined where nothing is wanted.
            for node in &self.view.nodes {
                let number = self.mailbox.expect(Tally::new(super::counter(b"flush_all")));
                let mut pending = Pending::new(Some(&self.mailbox), number, 0);
                pending.expected = Expected { form: Form::Line, quiet };
                self.pool.send(Some(node), TEXT, self.mailbox.id, &request, pending);
            }
            return;
        }
        self.fan_out(&request, Expected { form: Form::Line, quiet }, JoinKind::Line);
    }

    fn fan_out(&mut self, request: &[u8], expected: Expected, kind: JoinKind) {
        let nodes = &self.view.nodes;
        let join = Join::new(kind, nodes.len() as u16);
        let number = self.mailbox.expect_join(join, Tally::new(super::counter(b"flush_all")));
        for (part, node) in nodes.iter().enumerate() {
            let mut pending = Pending::new(Some(&self.mailbox), number, part as u16);
            pending.expected = expected;
            self.pool.send(Some(node), TEXT, self.mailbox.id, request, pending);
        }
    }

    /// The proxy's own figures; in admin mode the words after `stats` go to the servers, whose answers follow one another.
    fn stats(&mut self, words: &[&[u8]]) {
        if words.len() > 1 && self.view.config.admin && self.view.store.is_none() {
            let mut request = Vec::new();
            join(&mut request, words);
            let form = if words.get(1) == Some(&&b"reset"[..]) {
                Form::Line
            } else {
                Form::Stats
            };
            let kind = if form == Form::Line { JoinKind::Line } else { JoinKind::Items };
            return self.fan_out(
                &request,
                Expected {
                    form,
                    quiet: Quiet::Nothing,
                },
                kind,
            );
        }
        let figures = super::figures(&self.pool, &self.view);
        self.mailbox.say(Tally::new(super::counter(b"stats")), |out| {
            for (name, value) in figures {
                out.extend_from_slice(format!("STAT {name} {value}\r\n").as_bytes());
            }
            out.extend_from_slice(b"END\r\n");
        });
    }
}

/// A line of words.
pub(super) fn join(out: &mut Vec<u8>, words: &[&[u8]]) {
    for (at, word) in words.iter().enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
    out.extend_from_slice(b"\r\n");
}
