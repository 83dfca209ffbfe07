//! What the targets in `fuzz/` call: each parser of bytes from outside, with what must hold whatever the bytes. Those of RESP are held
//! against the parsers of the crate `redis-protocol` as well. The tests run the same functions on the same seeds for a second.

use bytes::Bytes;
use redis_protocol::resp2::types::BytesFrame;

use crate::memcached::frame::{self, Binary, Kind, Text};
use crate::memcached::scan::{Expected, Form, HEAD, Scanner};
use crate::resp::reply::{self, ReplyScanner, Value};
use crate::resp::request::{self, Limits, RequestParser};
use crate::resp::{inline, write};

const BYTES_MAX: usize = 1 << 16;
const LIMITS: Limits = Limits {
    args: 1 << 10,
    bytes: BYTES_MAX,
};

/// What a parser made of the front of its bytes.
enum Next<T> {
    Took(usize, T),
    More(usize),
    Fault,
}

/// Reads `data` as it comes from a network in pieces of so many bytes: `step` is asked as a connection asks it. Gives all that was read, and
/// whether it ended in a fault.
fn read<T>(data: &[u8], piece: usize, mut step: impl FnMut(&[u8]) -> Next<T>) -> (Vec<T>, bool) {
    let (mut at, mut there, mut wanted) = (0, 0, 1);
    let mut found = Vec::new();
    loop {
        if there - at < wanted {
            if there == data.len() {
                return (found, false);
            }
            there = (there + piece.max(1)).min(data.len());
            continue;
        }
        let bytes = &data[at..there];
        match step(bytes) {
            Next::Took(len, what) => {
                assert!(len > 0 && len <= bytes.len(), "took {len} of {}", bytes.len());
                found.push(what);
                (at, wanted) = (at + len, 1);
            }
            Next::More(more) => {
                assert!(more > bytes.len(), "asks for {more} bytes and has {}", bytes.len());
                wanted = more;
            }
            Next::Fault => return (found, true),
        }
    }
}

/// The same in one piece and in several ways of cutting it.
fn read_all<T: PartialEq + std::fmt::Debug, S: FnMut(&[u8]) -> Next<T>>(data: &[u8], parser: impl Fn() -> S) -> Vec<T> {
    let whole = read(data, data.len(), parser());
    for piece in [1, 2, 7] {
        assert_eq!(read(data, piece, parser()), whole, "in pieces of {piece}");
    }
    whole.0
}

/// Requests of RESP, inline ones among them.
pub fn resp_request(data: &[u8]) {
    let all = read_all(data, || {
        let mut parser = RequestParser::default();
        move |bytes: &[u8]| match parser.parse(bytes, LIMITS) {
            Ok(request::Found::Request(len)) => {
                let args: Vec<Vec<u8>> = parser.args().iter().map(|arg| arg.of(bytes).to_vec()).collect();
                Next::Took(len, (bytes[..len].to_vec(), Some(args)))
            }
            Ok(request::Found::Inline(len)) => Next::Took(len, (bytes[..len].to_vec(), None)),
            Ok(request::Found::More { wanted }) => Next::More(wanted),
            Err(_) => Next::Fault,
        }
    });
    for (bytes, args) in all {
        match args {
            Some(args) => same_request(&bytes, &args),
            None => inline_request(&bytes),
        }
    }
    // What they read as a request of ours is one.
    if let Ok(Some((BytesFrame::Array(list), len))) = redis_protocol::resp2::decode::decode_bytes(&Bytes::copy_from_slice(data))
        && list.iter().all(|frame| matches!(frame, BytesFrame::BulkString(_)))
    {
        let ours = RequestParser::default().parse(data, LIMITS);
        assert!(
            ours == Ok(request::Found::Request(len)) || ours.is_err(),
            "{ours:?}, theirs {len}"
        );
    }
}

/// What was read as a request the other parser reads as the same, and it is written as the same.
fn same_request(bytes: &[u8], args: &[Vec<u8>]) {
    let theirs = redis_protocol::resp2::decode::decode_bytes(&Bytes::copy_from_slice(bytes));
    match theirs {
        Ok(Some((BytesFrame::Array(list), len))) => {
            assert_eq!(len, bytes.len());
            let text = |frame: &BytesFrame| match frame {
                BytesFrame::BulkString(text) => text.to_vec(),
                other => panic!("{other:?} in a request"),
            };
            assert_eq!(list.iter().map(text).collect::<Vec<_>>(), args);
        }
        // An array of less than nothing asks for nothing, as in Redis.
        other => assert!(args.is_empty(), "{other:?}"),
    }
    let slices: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
    let mut written = Vec::new();
    write::request(&mut written, &slices);
    let mut parser = RequestParser::default();
    assert_eq!(parser.parse(&written, LIMITS), Ok(request::Found::Request(written.len())));
    let again: Vec<&[u8]> = parser.args().iter().map(|arg| arg.of(&written)).collect();
    assert_eq!(again, slices);
}

/// A line becomes an ordinary request or is refused.
fn inline_request(line: &[u8]) {
    let Ok(made) = inline::to_request(line) else { return };
    if !made.is_empty() {
        let limits = Limits {
            args: usize::MAX,
            bytes: usize::MAX,
        };
        let mut parser = RequestParser::default();
        assert_eq!(parser.parse(&made, limits), Ok(request::Found::Request(made.len())));
        assert!(!parser.args().is_empty());
    }
}

/// Replies of RESP.
pub fn resp_reply(data: &[u8]) {
    let all = read_all(data, || {
        let mut scanner = ReplyScanner::default();
        move |bytes: &[u8]| match scanner.scan(bytes, BYTES_MAX) {
            Ok(reply::Found::Reply(len)) => Next::Took(len, bytes[..len].to_vec()),
            Ok(reply::Found::More { wanted }) => Next::More(wanted),
            Err(_) => Next::Fault,
        }
    });
    for whole in &all {
        assert_eq!(reply::length(whole), Some(whole.len()));
        let _control_plane = Value::read(whole);
        same_reply(whole);
    }
}

/// What both parsers read whole they read as long.
fn same_reply(whole: &[u8]) {
    let bytes = Bytes::copy_from_slice(whole);
    if let Ok(Some((_, len))) = redis_protocol::resp2::decode::decode_bytes(&bytes) {
        assert_eq!(len, whole.len(), "version 2");
    }
    if let Ok(Some((_, len))) = redis_protocol::resp3::decode::complete::decode_bytes(&bytes) {
        // An attribute is a frame of its own to them, and belongs to what follows to us.
        assert!(len == whole.len() || whole.contains(&b'|'), "version 3");
    }
}

/// Replies of memcached in one form.
fn scanned(data: &[u8], form: Form) -> Vec<Vec<u8>> {
    let expected = Expected {
        form,
        ..Expected::default()
    };
    read_all(data, || {
        let mut scanner = Scanner::default();
        move |bytes: &[u8]| match scanner.scan(bytes, &expected, BYTES_MAX) {
            Ok(reply::Found::Reply(len)) => Next::Took(len, bytes[..len].to_vec()),
            Ok(reply::Found::More { wanted }) => Next::More(wanted),
            Err(_) => Next::Fault,
        }
    })
}

/// A text command as it goes on to a server.
fn sent(words: &[&[u8]], block: &[u8]) -> Vec<u8> {
    [&words.join(&b' ')[..], b"\r\n", block].concat()
}

/// Commands of memcached's text protocol, and replies to them.
pub fn memcached_text(data: &[u8]) {
    let all = read_all(data, || {
        |bytes: &[u8]| match frame::text(bytes, BYTES_MAX) {
            Text::Command(command) => Next::Took(command.len, Some(bytes[..command.len].to_vec())),
            Text::Wrong(_, len) => Next::Took(len, None),
            Text::More(wanted) => Next::More(wanted),
            Text::Lost(_) => Next::Fault,
        }
    });
    for bytes in all.iter().flatten() {
        let Text::Command(command) = frame::text(bytes, BYTES_MAX) else {
            panic!("read once and not again");
        };
        // No word can end its line, or the server would see a command that nobody sent.
        assert!(command.words.iter().all(|word| !word.is_empty() && !word.contains(&b'\n')));
        let on = sent(&command.words, command.block);
        let Text::Command(again) = frame::text(&on, BYTES_MAX) else {
            panic!("{} is no command", on.escape_ascii());
        };
        assert_eq!(
            (again.kind, &again.words, again.block, again.len),
            (command.kind, &command.words, command.block, on.len())
        );
    }
    for reply in scanned(data, Form::Items) {
        assert!(reply.ends_with(b"\n"));
    }
    for reply in scanned(data, Form::Stats) {
        assert!(reply.ends_with(b"\n"));
    }
    for reply in scanned(data, Form::Line) {
        assert_eq!(reply.iter().filter(|byte| **byte == b'\n').count(), 1);
    }
}

/// Meta commands: what goes on to a server has the same key and is never quiet, so that there is a reply to each.
pub fn memcached_meta(data: &[u8]) {
    let mut rest = data;
    while let Text::Command(command) = frame::text(rest, BYTES_MAX) {
        if matches!(command.kind, Kind::Meta | Kind::MetaStore)
            && let Ok(meta) = frame::meta(&command)
        {
            let on = sent(&meta.loud, command.block);
            let Text::Command(again) = frame::text(&on, BYTES_MAX) else {
                panic!("{} is no command", on.escape_ascii());
            };
            let loud = frame::meta(&again).expect("the same words but for one flag");
            assert_eq!((again.kind, again.block), (command.kind, command.block));
            assert_eq!((&loud.key, &loud.loud), (&meta.key, &meta.loud));
            assert_eq!(loud.quiet, crate::memcached::scan::Quiet::Nothing);
        }
        rest = rest.get(command.len..).unwrap_or_default();
    }
    scanned(data, Form::Meta);
}

/// Packets of memcached's binary protocol, and replies.
pub fn memcached_binary(data: &[u8]) {
    let all = read_all(data, || {
        |bytes: &[u8]| match frame::binary(bytes, BYTES_MAX) {
            Binary::Packet(packet) => Next::Took(packet.bytes.len(), packet.bytes.to_vec()),
            Binary::More(wanted) => Next::More(wanted),
            Binary::Lost { .. } => Next::Fault,
        }
    });
    for bytes in &all {
        let Binary::Packet(packet) = frame::binary(bytes, BYTES_MAX) else {
            panic!("read once and not again");
        };
        let body = u32::from_be_bytes(bytes[8..12].try_into().expect("four bytes")) as usize;
        assert_eq!(bytes.len(), HEAD + body);
        let extras = usize::from(bytes[4]);
        assert_eq!(packet.key, &bytes[HEAD + extras..HEAD + extras + usize::from(bytes[3])]);
    }
    for reply in scanned(data, Form::Binary { opcode: 0, opaque: 0 }) {
        assert!(reply.len() >= HEAD);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{Rng as _, SeedableRng as _};

    /// Pieces that are put in: what parsers look for, and lengths at which they go wrong.
    const WORDS: [&[u8]; 16] = [
        b"\r\n",
        b"*",
        b"$",
        b"$-1\r\n",
        b"*2\r\n",
        b"\n",
        b" ",
        b"%1\r\n",
        b"|1\r\n",
        b"VALUE a 0 2\r\n",
        b"END\r\n",
        b" noreply",
        b" q",
        b"18446744073709551615",
        b"-9223372036854775808",
        b"\xff\xff\xff\xff",
    ];
    /// Inputs for each target.
    const COUNT: usize = 20_000;

    /// Gives `target` its seeds, and inputs made from them by a few changes each. One that shows a fault is told before the panic goes on.
    fn run(name: &str, target: fn(&[u8])) {
        let dir = std::path::Path::new("../../fuzz/seeds").join(format!("cache_proxy_{name}"));
        let files = std::fs::read_dir(dir).expect("seeds are there");
        let mut seeds: Vec<Vec<u8>> = files
            .map(|file| std::fs::read(file.expect("a file").path()).expect("reads"))
            .collect();
        seeds.sort();
        seeds.iter().for_each(|seed| told(seed, target));
        let mut random = SmallRng::seed_from_u64(6);
        for _ in 0..COUNT {
            let mut input = seeds[random.random_range(0..seeds.len())].clone();
            for _ in 0..random.random_range(1..5) {
                change(&mut input, &seeds, &mut random);
            }
            input.truncate(512);
            told(&input, target);
        }
    }

    fn told(input: &[u8], target: fn(&[u8])) {
        struct Told<'a>(&'a [u8]);
        impl Drop for Told<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    eprintln!("input: b\"{}\"", self.0.escape_ascii());
                }
            }
        }
        let _told = Told(input);
        target(input);
    }

    fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut SmallRng) {
        let at = random.random_range(0..=input.len());
        let end = (at + random.random_range(0..9)).min(input.len());
        match random.random_range(0..7) {
            0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            1 => input.insert(at, random.random()),
            2 => input.truncate(at),
            3 => drop(input.drain(at..end)),
            4 => drop(input.splice(at..end, WORDS[random.random_range(0..WORDS.len())].iter().copied())),
            5 => {
                let piece = input[at..].to_vec();
                input.extend(piece);
            }
            _ => {
                let other = &seeds[random.random_range(0..seeds.len())];
                input.truncate(at);
                input.extend(&other[random.random_range(0..=other.len())..]);
            }
        }
    }

    #[test]
    fn any_request_of_resp_is_read_as_the_other_parser_reads_it() {
        run("resp_request", resp_request);
    }

    #[test]
    fn any_reply_of_resp_ends_where_the_other_parser_ends_it() {
        run("resp_reply", resp_reply);
    }

    #[test]
    fn any_text_command_goes_on_as_it_came() {
        run("memcached_text", memcached_text);
    }

    #[test]
    fn any_meta_command_goes_on_loud() {
        run("memcached_meta", memcached_meta);
    }

    #[test]
    fn any_binary_packet_ends_where_its_head_says() {
        run("memcached_binary", memcached_binary);
    }
}
