//! The text protocol with its meta commands.

use super::Session;
use super::frame::{self, Command, Kind, Meta, Text, is_key};
use super::scan::{Expected, Form, Quiet};
use crate::conn::Pending;
use crate::join::{Join, JoinKind};
use crate::meter::Tally;
use crate::net::Step;
use crate::pool::TEXT;
use crate::session::End;
use crate::topology::NOBODY;

impl Session {
    pub(super) fn text(&mut self, bytes: &[u8]) -> Result<Step, End> {
        match frame::text(bytes, self.view.config.request_max.as_usize()) {
            Text::More(wanted) => Ok(Step::More(wanted)),
            Text::Command(command) => self.command(&command).map(|()| Step::Took(command.len)),
            Text::Wrong(answer, len) => {
                self.line(answer);
                Ok(Step::Took(len))
            }
            Text::Lost(answer) => {
                self.line(answer);
                Err(End::Malformed)
            }
        }
    }

    fn command(&mut self, command: &Command<'_>) -> Result<(), End> {
        let (words, block) = (&command.words, command.block);
        match command.kind {
            Kind::Get(first) => self.get(words, first),
            Kind::Meta | Kind::MetaStore => self.meta(command),
            Kind::Local => return self.local(words),
            Kind::Plain | Kind::Store(_) => self.single(words, block),
        }
        Ok(())
    }

    pub(crate) fn line(&self, text: &str) {
        self.mailbox.say(Tally::new(u16::MAX), |out| {
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        });
    }

    pub(super) fn tally(&self, name: &[u8], key: &[u8]) -> Tally {
        self.pool.meter.touch(key);
        Tally::new(super::counter(name)).with_key(key)
    }

    /// A command with one key and one line in reply.
    fn single(&mut self, words: &[&[u8]], block: &[u8]) {
        let is_silent = words.last() == Some(&&b"noreply"[..]);
        let words = if is_silent {
            words.get(..words.len() - 1).unwrap_or_default()
        } else {
            words
        };
        let Some(key) = words.get(1).filter(|key| is_key(key)) else {
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
        if !keys.iter().all(|key| is_key(key)) {
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
    fn meta(&mut self, command: &Command<'_>) {
        let Meta { key, loud, quiet } = match frame::meta(command) {
            Ok(meta) => meta,
            Err(answer) => return self.line(answer),
        };
        let form = Form::Meta;
        self.send(&loud, &key, command.block, Expected { form, quiet });
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
        if !self.view.config.admin {
            return self.line("CLIENT_ERROR flush_all concerns all servers: it wants admin = true in the pool's configuration");
        }
        let words = if is_silent {
            words.get(..words.len() - 1).unwrap_or_default()
        } else {
            words
        };
        let quiet = if is_silent { Quiet::Everything } else { Quiet::Nothing };
        if self.view.store.is_some() {
            if words.get(1).is_some_and(|delay| delay.iter().any(|byte| *byte != b'0')) {
                return self.line(&format!("CLIENT_ERROR {}", super::NO_DELAY));
            }
            let expected = Expected { form: Form::Line, quiet };
            return self.clear_store(expected, Tally::new(super::counter(b"flush_all")));
        }
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
