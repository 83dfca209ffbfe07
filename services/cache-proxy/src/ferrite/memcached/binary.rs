//! Packets of the binary protocol as calls, and their answers.

use bytes::Bytes;

use super::{Answer, Ask, Call, Count, Mode, Put, Verdict, unique};
use crate::memcached::binary::{Reply, STATUS_INVALID};
use crate::memcached::frame::Packet;

/// What an answer carries back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// Without quietness.
    pub opcode: u8,
    pub opaque: u32,
}

/// The time that asks a counter not to be made.
const MAKES_NOTHING: u32 = u32::MAX;

/// Reads a packet; `opcode` is the loud one of its pair. The error is the status to answer.
pub(super) fn call(packet: &Packet<'_>, opcode: u8) -> Result<Call, u16> {
    let extras = packet.extras();
    let ask = match opcode {
        0x00 | 0x0c if extras.is_empty() => Ask::Get,
        0x01..=0x03 => {
            let [f0, f1, f2, f3, time @ ..] = *extras.as_array::<8>().ok_or(STATUS_INVALID)?;
            let mode = match opcode {
                // What is compared with must be there, and needs no other condition.
                0x02 if packet.unique() == 0 => Mode::Add,
                0x03 if packet.unique() == 0 => Mode::Replace,
                _ => Mode::Set,
            };
            Ask::Put(put(
                packet,
                mode,
                u32::from_be_bytes([f0, f1, f2, f3]),
                u32::from_be_bytes(time),
            ))
        }
        0x04 if extras.is_empty() => Ask::Delete,
        0x05 | 0x06 => Ask::Count(count(extras, opcode == 0x05).ok_or(STATUS_INVALID)?),
        0x0e if extras.is_empty() => Ask::Put(put(packet, Mode::Append, 0, 0)),
        0x0f if extras.is_empty() => Ask::Put(put(packet, Mode::Prepend, 0, 0)),
        0x1c | 0x1d | 0x23 => {
            let time = extras.as_array::<4>().ok_or(STATUS_INVALID)?;
            Ask::Touch {
                time: i64::from(u32::from_be_bytes(*time)),
            }
        }
        _ => return Err(STATUS_INVALID),
    };
    let has_value = matches!(ask, Ask::Put(_));
    if !has_value && !packet.value().is_empty() {
        return Err(STATUS_INVALID);
    }
    Ok(Call {
        keys: vec![Bytes::copy_from_slice(packet.key)],
        compare: (packet.unique() != 0 && !matches!(ask, Ask::Get | Ask::Touch { .. })).then(|| packet.unique()),
        ask,
        form: super::Form::Binary(Form {
            opcode,
            opaque: packet.opaque,
        }),
    })
}

fn put(packet: &Packet<'_>, mode: Mode, flags: u32, time: u32) -> Put {
    Put {
        mode,
        flags,
        time: i64::from(time),
        data: Bytes::copy_from_slice(packet.value()),
        makes: false,
    }
}

fn count(extras: &[u8], is_up: bool) -> Option<Count> {
    let (delta, rest) = extras.split_first_chunk::<8>()?;
    let (initial, rest) = rest.split_first_chunk::<8>()?;
    let time = u32::from_be_bytes(*rest.as_array::<4>()?);
    Some(Count {
        is_up,
        delta: u64::from_be_bytes(*delta),
        initial: (time != MAKES_NOTHING).then(|| (u64::from_be_bytes(*initial), i64::from(time))),
        time: None,
    })
}

impl Form {
    fn has_key(self) -> bool {
        matches!(self.opcode, 0x0c | 0x23)
    }

    pub(super) fn write(self, out: &mut Vec<u8>, key: &[u8], ask: &Ask, answer: &Answer) {
        let mut reply = Reply {
            opcode: self.opcode,
            opaque: self.opaque,
            ..Reply::default()
        };
        let (flags, number);
        match (&answer.item, answer.verdict) {
            (item, Verdict::Done) => {
                reply.unique = item.as_ref().map_or(0, unique);
                match (ask, item) {
                    (Ask::Get | Ask::Touch { .. }, Some(item)) => {
                        flags = item.flags.to_be_bytes();
                        reply.extras = &flags;
                        // A touch alone wants no value.
                        reply.value = if self.opcode == 0x1c { b"" } else { &item.data };
                        reply.key = if self.has_key() { key } else { b"" };
                    }
                    (Ask::Count(_), Some(item)) => {
                        number = super::unsigned(&item.data).unwrap_or(0).to_be_bytes();
                        reply.value = &number;
                    }
                    _ => {}
                }
            }
            // Who wants its key told is told that and no text.
            (_, Verdict::Missing) if self.has_key() => (reply.status, reply.key) = (0x01, key),
            (_, verdict) => (reply.status, reply.value) = failure(verdict, ask),
        }
        out.extend_from_slice(&reply.to_bytes());
    }
}

fn failure(verdict: Verdict, ask: &Ask) -> (u16, &'static [u8]) {
    let mode = match ask {
        Ask::Put(put) => Some(put.mode),
        _ => None,
    };
    match (verdict, mode) {
        (Verdict::NotStored, Some(Mode::Add)) | (Verdict::Differs, _) => (0x02, b"Data exists for key."),
        (Verdict::NotStored, Some(Mode::Append | Mode::Prepend)) => (0x05, b"Not stored."),
        (Verdict::NotNumeric, _) => (0x06, b"Non-numeric server-side value for incr or decr"),
        _ => (0x01, b"Not found"),
    }
}
