//! The binary protocol. Packets go to the server of their key as they are; quiet ones lose their quietness on the way, so that every request
//! has a reply, and what the client did not want is dropped here.

use super::Session;
use super::frame::{self, Binary, Packet};
use super::scan::{Expected, Form, HEAD, Quiet};
use crate::conn::Pending;
use crate::join::{Join, JoinKind};
use crate::meter::Tally;
use crate::net::Step;
use crate::pool::BINARY;
use crate::session::End;

/// First byte of a request.
pub const REQUEST: u8 = 0x80;
/// First byte of a reply.
pub const REPLY: u8 = 0x81;
/// Status of a failure within the server.
pub const STATUS_FAILED: u16 = 0x84;
const STATUS_UNKNOWN: u16 = 0x81;
/// Status of a packet that makes no sense.
pub const STATUS_INVALID: u16 = 0x04;

/// Opcodes with a quiet form, loud and quiet, and whether the quiet form is silent about failure (a miss) instead of success.
const PAIRS: &[(u8, u8, bool)] = &[
    (0x00, 0x09, true),
    (0x0c, 0x0d, true),
    (0x01, 0x11, false),
    (0x02, 0x12, false),
    (0x03, 0x13, false),
    (0x04, 0x14, false),
    (0x05, 0x15, false),
    (0x06, 0x16, false),
    (0x0e, 0x19, false),
    (0x0f, 0x1a, false),
    (0x1d, 0x1e, true),
    (0x23, 0x24, true),
];
const TOUCH: u8 = 0x1c;

/// A reply.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reply<'a> {
    pub opcode: u8,
    pub status: u16,
    pub opaque: u32,
    /// What a later request may compare with.
    pub unique: u64,
    pub extras: &'a [u8],
    pub key: &'a [u8],
    pub value: &'a [u8],
}

impl Reply<'_> {
    /// As it goes out.
    pub fn to_bytes(&self) -> Vec<u8> {
        let body = self.extras.len() + self.key.len() + self.value.len();
        let mut out = Vec::with_capacity(HEAD + body);
        out.extend_from_slice(&[REPLY, self.opcode]);
        out.extend_from_slice(&(self.key.len() as u16).to_be_bytes());
        // Extras, and the type of data, of which there is one.
        out.extend_from_slice(&[self.extras.len() as u8, 0]);
        out.extend_from_slice(&self.status.to_be_bytes());
        out.extend_from_slice(&(body as u32).to_be_bytes());
        out.extend_from_slice(&self.opaque.to_be_bytes());
        out.extend_from_slice(&self.unique.to_be_bytes());
        out.extend_from_slice(self.extras);
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.value);
        out
    }
}

/// A reply without key and extras.
pub fn packet(opcode: u8, status: u16, opaque: u32, text: &[u8]) -> Vec<u8> {
    let reply = Reply {
        opcode,
        status,
        opaque,
        value: text,
        ..Reply::default()
    };
    reply.to_bytes()
}

impl Session {
    pub(super) fn binary(&mut self, bytes: &[u8]) -> Result<Step, End> {
        let packet = match frame::binary(bytes, self.view.config.request_max.as_usize()) {
            Binary::More(wanted) => return Ok(Step::More(wanted)),
            Binary::Packet(packet) => packet,
            Binary::Lost { opcode, opaque } => {
                self.put(&packet(opcode, STATUS_INVALID, opaque, b"Invalid arguments"));
                return Err(End::Malformed);
            }
        };
        self.packet(&packet).map(|()| Step::Took(packet.bytes.len()))
    }

    fn packet(&mut self, request: &Packet<'_>) -> Result<(), End> {
        let (opcode, opaque, key) = (request.opcode, request.opaque, request.key);
        let pair = PAIRS.iter().find(|(loud, quiet, _)| *loud == opcode || *quiet == opcode);
        if pair.is_none() && opcode != TOUCH {
            return self.other(request);
        }
        if key.is_empty() {
            self.put(&packet(opcode, STATUS_INVALID, opaque, b"Invalid arguments"));
            return Ok(());
        }
        let quiet = match pair {
            Some((_, quiet, true)) if *quiet == opcode => Quiet::Failure,
            Some((_, quiet, false)) if *quiet == opcode => Quiet::Success,
            _ => Quiet::Nothing,
        };
        let expected = Expected {
            form: Form::Binary { opcode, opaque },
            quiet,
        };
        let loud = pair.map_or(opcode, |(loud, ..)| *loud);
        if self.view.store.is_none() {
            self.pass(request.bytes, loud, key, expected);
            return Ok(());
        }
        let tally = self.tally(name_of(loud).as_bytes(), key);
        self.pool.meter.weigh(key, request.bytes.len());
        if let Err(status) = self.ask_store_binary(request, loud, expected, tally) {
            self.put(&packet(opcode, status, opaque, b"Invalid arguments"));
        }
        Ok(())
    }

    fn pass(&mut self, request: &[u8], loud: u8, key: &[u8], expected: Expected) {
        let tally = self.tally(name_of(loud).as_bytes(), key);
        self.pool.meter.weigh(key, request.len());
        let number = self.mailbox.expect(tally);
        let mut pending = Pending::new(Some(&self.mailbox), number, 0);
        pending.expected = expected;
        let index = self.pool.find(&self.view, key);
        let Some(node) = self.view.nodes.get(usize::from(index)) else {
            return pending.fail("ERR no server is known for this key now");
        };
        match node.shared(&self.pool, BINARY, self.mailbox.id) {
            Some(conn) => conn.send_with(pending, |out| {
                let start = out.len();
                out.extend_from_slice(request);
                if let Some(opcode) = out.get_mut(start + 1) {
                    *opcode = loud;
                }
            }),
            None => pending.fail(&node.down_text()),
        }
    }

    /// What has no key.
    fn other(&mut self, request: &Packet<'_>) -> Result<(), End> {
        let (opcode, opaque) = (request.opcode, request.opaque);
        match opcode {
            // Quit, loud and quiet.
            0x07 => {
                self.put(&packet(opcode, 0, opaque, b""));
                return Err(End::Quit);
            }
            0x17 => return Err(End::Quit),
            // Flush, loud and quiet.
            0x08 | 0x18 => self.flush(request.bytes, opcode, opaque),
            // No-op.
            0x0a => self.put(&packet(opcode, 0, opaque, b"")),
            // Version.
            0x0b => self.put(&packet(opcode, 0, opaque, b"1.6.0-ferrite")),
            // Verbosity.
            0x1b => self.put(&packet(opcode, 0, opaque, b"")),
            // Statistics: the proxy's own.
            0x10 if request.key.is_empty() => {
                for (name, value) in super::figures(&self.pool, &self.view) {
                    let value = value.to_string();
                    let reply = Reply {
                        opcode,
                        opaque,
                        key: name.as_bytes(),
                        value: value.as_bytes(),
                        ..Reply::default()
                    };
                    self.put(&reply.to_bytes());
                }
                self.put(&packet(opcode, 0, opaque, b""));
            }
            _ => self.put(&packet(opcode, STATUS_UNKNOWN, opaque, b"Unknown command")),
        }
        Ok(())
    }

    fn flush(&mut self, request: &[u8], opcode: u8, opaque: u32) {
        if !self.view.config.admin {
            return self.put(&packet(
                opcode,
                STATUS_UNKNOWN,
                opaque,
                b"flush wants admin = true in the pool's configuration",
            ));
        }
        let mut request = request.to_vec();
        if let Some(place) = request.get_mut(1) {
            *place = 0x08;
        }
        let form = Form::Binary { opcode, opaque };
        let is_quiet = opcode == 0x18;
        let expected = Expected {
            form,
            quiet: if is_quiet { Quiet::Success } else { Quiet::Nothing },
        };
        let tally = Tally::new(super::counter(b"flush_all"));
        if self.view.store.is_some() {
            if request.get(HEAD..).is_some_and(|delay| delay.iter().any(|byte| *byte != 0)) {
                return self.put(&packet(opcode, STATUS_INVALID, opaque, super::NO_DELAY.as_bytes()));
            }
            return self.clear_store(expected, tally);
        }
        let nodes = &self.view.nodes;
        let number = match is_quiet {
            true => None,
            false => Some(
                self.mailbox
                    .expect_join(Join::new(JoinKind::First, nodes.len() as u16), tally),
            ),
        };
        for (part, node) in nodes.iter().enumerate() {
            let (number, part) = match number {
                Some(number) => (number, part as u16),
                None => (self.mailbox.expect(tally), 0),
            };
            let mut pending = Pending::new(Some(&self.mailbox), number, part);
            pending.expected = expected;
            self.pool.send(Some(node), BINARY, self.mailbox.id, &request, pending);
        }
    }

    fn put(&self, packet: &[u8]) {
        self.mailbox.say(Tally::new(u16::MAX), |out| out.extend_from_slice(packet));
    }
}

fn name_of(opcode: u8) -> &'static str {
    match opcode {
        0x00 | 0x0c => "get",
        0x01 => "set",
        0x02 => "add",
        0x03 => "replace",
        0x04 => "delete",
        0x05 => "incr",
        0x06 => "decr",
        0x0e => "append",
        0x0f => "prepend",
        0x1d | 0x23 => "gat",
        _ => "touch",
    }
}
