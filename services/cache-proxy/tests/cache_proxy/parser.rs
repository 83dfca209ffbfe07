//! Our parsers beside those of the crate `redis-protocol`, on the same random bytes.

use bytes::Bytes;
use cache_proxy::resp::reply::{Found as Reply, ReplyScanner};
use cache_proxy::resp::request::{Found, Limits, RequestParser};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use redis_protocol::resp2::decode::decode_bytes;
use redis_protocol::resp2::types::BytesFrame;

const LIMITS: Limits = Limits {
    args: 1 << 20,
    bytes: 1 << 20,
};

fn frame(random: &mut SmallRng, depth: usize) -> Vec<u8> {
    let kind = random.random_range(0..if depth == 0 { 4 } else { 6 });
    match kind {
        0 => b"+simple\r\n".to_vec(),
        1 => b"-ERR wrong\r\n".to_vec(),
        2 => format!(":{}\r\n", random.random_range(-1000..1000)).into_bytes(),
        3 => {
            let content: Vec<u8> = (0..random.random_range(0..40)).map(|_| random.random()).collect();
            let mut bytes = Vec::new();
            cache_proxy::resp::write::bulk(&mut bytes, &content);
            bytes
        }
        4 => b"$-1\r\n".to_vec(),
        _ => {
            let count = random.random_range(0..5);
            let mut bytes = format!("*{count}\r\n").into_bytes();
            (0..count).for_each(|_| bytes.extend(frame(random, depth - 1)));
            bytes
        }
    }
}

#[test]
fn replies_end_where_the_other_parser_ends_them() {
    let mut random = SmallRng::seed_from_u64(6);
    for round in 0..20_000 {
        let mut bytes = frame(&mut random, 4);
        if round % 2 == 1 && !bytes.is_empty() {
            // One byte is changed, or the end is cut.
            let at = random.random_range(0..bytes.len());
            match random.random_range(0..2) {
                0 => bytes[at] = b"*$:+-\r\n0129x"[random.random_range(0..12)],
                _ => bytes.truncate(at),
            }
        }
        let theirs = decode_bytes(&Bytes::from(bytes.clone()));
        let ours = ReplyScanner::default().scan(&bytes, 1 << 20);
        if let Ok(Some((_, length))) = theirs {
            // What they read whole we read whole, and as long; a frame that only begins like one goes on for us.
            assert!(
                ours == Ok(Reply::Reply(length)) || ours.is_err() || matches!(ours, Ok(Reply::More { .. })),
                "{} ours {ours:?} theirs {length}",
                bytes.escape_ascii()
            );
            if round % 2 == 0 {
                assert_eq!(ours, Ok(Reply::Reply(length)), "{}", bytes.escape_ascii());
            }
        }
    }
}

#[test]
fn requests_have_the_arguments_that_the_other_parser_finds() {
    let mut random = SmallRng::seed_from_u64(7);
    for _ in 0..5_000 {
        let args: Vec<Vec<u8>> = (0..random.random_range(1..8))
            .map(|_| (0..random.random_range(0..30)).map(|_| random.random()).collect())
            .collect();
        let mut bytes = Vec::new();
        cache_proxy::resp::write::request(&mut bytes, &args.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let mut parser = RequestParser::default();
        // In pieces, never starting over.
        let mut at = 0;
        let found = loop {
            at = (at + random.random_range(1..20)).min(bytes.len());
            match parser.parse(&bytes[..at], LIMITS).expect("is well-formed") {
                Found::More { wanted } => assert!(wanted > at),
                found => break found,
            }
        };
        assert_eq!(found, Found::Request(bytes.len()));
        let ours: Vec<_> = parser.args().iter().map(|arg| arg.of(&bytes).to_vec()).collect();
        let (theirs, _) = decode_bytes(&Bytes::from(bytes.clone())).expect("reads").expect("is whole");
        let BytesFrame::Array(list) = theirs else {
            panic!("not a list");
        };
        let text = |frame: BytesFrame| match frame {
            BytesFrame::BulkString(text) => text.to_vec(),
            other => panic!("{other:?}"),
        };
        assert_eq!(ours, list.into_iter().map(text).collect::<Vec<_>>());
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut random = SmallRng::seed_from_u64(8);
    for _ in 0..50_000 {
        let bytes: Vec<u8> = (0..random.random_range(0..60))
            .map(|_| b"*$:+-%>~|=!_#,(\r\n0123456789abVALUE END"[random.random_range(0..38)])
            .collect();
        let _request = RequestParser::default().parse(&bytes, LIMITS);
        let _reply = ReplyScanner::default().scan(&bytes, 1 << 20);
        let _value = cache_proxy::resp::reply::Value::read(&bytes);
        let _inline = cache_proxy::resp::inline::to_request(&bytes);
        for form in [
            cache_proxy::memcached::scan::Form::Items,
            cache_proxy::memcached::scan::Form::Meta,
            cache_proxy::memcached::scan::Form::Line,
        ] {
            let expected = cache_proxy::memcached::scan::Expected {
                form,
                ..Default::default()
            };
            let _scan = cache_proxy::memcached::scan::Scanner::default().scan(&bytes, &expected, 1 << 20);
        }
    }
}
