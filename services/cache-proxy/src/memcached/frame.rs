//! Where the requests of memcached's clients begin and end, and what stands in them: functions of bytes alone.

use std::borrow::Cow;

use base64::Engine as _;

use super::KEY_MAX;
use super::scan::{HEAD, Quiet};
use crate::resp::{LINE_MAX, number};

/// What a text command is, by name: how many words stand before its (first) key, and its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
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

/// What stands at the front of a text client's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text<'a> {
    /// Not whole; with so many bytes from the front it can go on.
    More(usize),
    Command(Command<'a>),
    /// No command: this line is the answer, so many bytes are done with.
    Wrong(&'static str, usize),
    /// Where the next command begins cannot be told: this line is the answer, and nothing after it is read.
    Lost(&'static str),
}

/// A text command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command<'a> {
    pub kind: Kind,
    /// With its name.
    pub words: Vec<&'a [u8]>,
    /// With its end of line; empty where none belongs to the command.
    pub block: &'a [u8],
    /// Bytes of all.
    pub len: usize,
}

/// Reads a text or meta command of at most `bytes_max`.
pub fn text(bytes: &[u8], bytes_max: usize) -> Text<'_> {
    let window = bytes.get(..bytes.len().min(LINE_MAX)).unwrap_or_default();
    let Some(end) = memchr::memchr(b'\n', window) else {
        return match bytes.len() >= LINE_MAX {
            true => Text::Lost("CLIENT_ERROR line too long"),
            false => Text::More(bytes.len() + 1),
        };
    };
    let head = end + 1;
    let line = window.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).collect();
    let name = words.first().copied().unwrap_or_default();
    let Some((_, kind)) = COMMANDS.iter().find(|(known, _)| known.as_bytes() == name) else {
        return Text::Wrong("ERROR", head);
    };
    let kind = *kind;
    let length_at = match kind {
        Kind::Store(at) => at,
        Kind::MetaStore => 2,
        _ => {
            return Text::Command(Command {
                kind,
                words,
                block: b"",
                len: head,
            });
        }
    };
    let told = words.get(length_at).and_then(|word| number(word));
    let Some(length) = told.and_then(|length| usize::try_from(length).ok()) else {
        return Text::Wrong("CLIENT_ERROR bad command line format", head);
    };
    let len = head.saturating_add(length).saturating_add(2);
    if len > bytes_max {
        return Text::Lost("SERVER_ERROR object too large for cache");
    }
    let Some(block) = bytes.get(head..len) else {
        return Text::More(len);
    };
    if !block.ends_with(b"\r\n") {
        return Text::Lost("CLIENT_ERROR bad data chunk");
    }
    Text::Command(Command { kind, words, block, len })
}

/// A meta command as it goes to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta<'a> {
    /// What it is distributed by.
    pub key: Cow<'a, [u8]>,
    /// Without the flag that asks for quiet.
    pub loud: Vec<&'a [u8]>,
    /// What the client does not want to hear.
    pub quiet: Quiet,
}

/// Reads the words of a meta command; the error is the line to answer.
pub fn meta<'a>(command: &Command<'a>) -> Result<Meta<'a>, &'static str> {
    let words = &command.words;
    let first_flag = if command.kind == Kind::MetaStore { 3 } else { 2 };
    let has = |flag: &[u8]| words.iter().skip(first_flag).any(|word| *word == flag);
    let raw = words.get(1).copied().filter(|key| is_key(key));
    let raw = raw.ok_or("CLIENT_ERROR bad command line format")?;
    let key = match has(b"b") {
        true => base64::engine::general_purpose::STANDARD
            .decode(raw)
            .map_err(|_error| "CLIENT_ERROR error decoding key")?
            .into(),
        false => Cow::Borrowed(raw),
    };
    let is_quiet = has(b"q");
    let quiet = match (is_quiet, words.first().copied().unwrap_or_default()) {
        (true, b"mg") => Quiet::Lines(&[b"EN", b"EN"]),
        (true, b"ms") => Quiet::Lines(&[b"HD", b"HD"]),
        (true, b"md" | b"ma") => Quiet::Lines(&[b"HD", b"NF"]),
        _ => Quiet::Nothing,
    };
    let is_mute = |at: usize, word: &[u8]| at >= first_flag && word == b"q";
    let loud = words.iter().enumerate().filter(|(at, word)| !is_mute(*at, word));
    Ok(Meta {
        key,
        loud: loud.map(|(_, word)| *word).collect(),
        quiet,
    })
}

/// Whether it may be a key.
pub fn is_key(key: &[u8]) -> bool {
    !key.is_empty() && key.len() <= KEY_MAX && !key.iter().any(u8::is_ascii_control)
}

/// What stands at the front of a binary client's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary<'a> {
    /// Not whole; with so many bytes from the front it can go on.
    More(usize),
    Packet(Packet<'a>),
    /// Lengths that do not fit together, or too much.
    Lost {
        opcode: u8,
        opaque: u32,
    },
}

/// A binary packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub opcode: u8,
    pub opaque: u32,
    pub key: &'a [u8],
    /// All of it.
    pub bytes: &'a [u8],
}

impl<'a> Packet<'a> {
    fn extras_len(&self) -> usize {
        self.bytes.get(4).copied().map_or(0, usize::from)
    }

    /// What stands before the key.
    pub fn extras(&self) -> &'a [u8] {
        self.bytes.get(HEAD..HEAD + self.extras_len()).unwrap_or_default()
    }

    /// What stands behind the key.
    pub fn value(&self) -> &'a [u8] {
        let start = HEAD + self.extras_len() + self.key.len();
        self.bytes.get(start..).unwrap_or_default()
    }

    /// What the item is compared with; 0: nothing.
    pub fn unique(&self) -> u64 {
        let found = self.bytes.get(16..).and_then(|rest| rest.first_chunk::<8>());
        found.map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }
}

/// Reads a binary packet of at most `bytes_max`.
pub fn binary(bytes: &[u8], bytes_max: usize) -> Binary<'_> {
    let Some(head) = bytes.first_chunk::<HEAD>() else {
        return Binary::More(HEAD);
    };
    let opcode = head[1];
    let key_len = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let extras = usize::from(head[4]);
    let body = u32::from_be_bytes([head[8], head[9], head[10], head[11]]) as usize;
    let opaque = u32::from_be_bytes([head[12], head[13], head[14], head[15]]);
    let len = HEAD.saturating_add(body);
    if len > bytes_max || key_len + extras > body || key_len > KEY_MAX {
        return Binary::Lost { opcode, opaque };
    }
    let Some(bytes) = bytes.get(..len) else {
        return Binary::More(len);
    };
    Binary::Packet(Packet {
        opcode,
        opaque,
        key: bytes.get(HEAD + extras..HEAD + extras + key_len).unwrap_or_default(),
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1024;

    #[test]
    fn commands_end_where_their_block_ends() {
        let bytes = b"set k 1 2 4 noreply\r\na\r\nb\r\nget k\r\n";
        let Text::Command(command) = text(bytes, MAX) else {
            panic!("not a command");
        };
        assert_eq!(
            (command.words.len(), command.block, command.len),
            (6, &b"a\r\nb\r\n"[..], bytes.len() - 7)
        );
        for cut in 0..command.len {
            assert!(
                matches!(text(&bytes[..cut], MAX), Text::More(wanted) if wanted > cut),
                "{cut}"
            );
        }
    }

    #[test]
    fn bad_lines_are_told_apart() {
        for (line, wanted) in [
            (&b"frob x\r\n"[..], Text::Wrong("ERROR", 8)),
            (b"\r\n", Text::Wrong("ERROR", 2)),
            (b"set k 0 0\r\n", Text::Wrong("CLIENT_ERROR bad command line format", 11)),
            (b"set k 0 0 -1\r\n", Text::Wrong("CLIENT_ERROR bad command line format", 14)),
            (b"ms k x\r\n", Text::Wrong("CLIENT_ERROR bad command line format", 8)),
            (
                b"set k 0 0 1073741824\r\n",
                Text::Lost("SERVER_ERROR object too large for cache"),
            ),
            (b"set k 0 0 1\r\nabc", Text::Lost("CLIENT_ERROR bad data chunk")),
        ] {
            assert_eq!(text(line, MAX), wanted, "{}", line.escape_ascii());
        }
        assert_eq!(text(&vec![b'a'; LINE_MAX], MAX), Text::Lost("CLIENT_ERROR line too long"));
    }

    #[test]
    fn lengths_of_packets_must_fit_together() {
        let packet = |key: u16, extras: u8, body: u32| {
            let mut bytes = vec![0x80, 1];
            bytes.extend(key.to_be_bytes());
            bytes.extend([extras, 0, 0, 0]);
            bytes.extend(body.to_be_bytes());
            bytes.extend([0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
            bytes.extend(b"extrakey-value");
            bytes
        };
        let bytes = packet(3, 5, 14);
        let Binary::Packet(found) = binary(&bytes, MAX) else {
            panic!("not a packet");
        };
        assert_eq!((found.opcode, found.opaque, found.key), (1, 7, &b"key"[..]));
        assert_eq!(
            (found.extras(), found.value(), found.unique()),
            (&b"extra"[..], &b"-value"[..], 0)
        );
        assert_eq!(binary(&bytes[..30], MAX), Binary::More(38));
        for bad in [packet(10, 5, 14), packet(251, 0, 300), packet(3, 5, u32::MAX)] {
            assert_eq!(binary(&bad, MAX), Binary::Lost { opcode: 1, opaque: 7 });
        }
    }
}
