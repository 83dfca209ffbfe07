//! Makes RESP: small appends to a buffer.

/// Which version a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Version {
    #[default]
    Resp2,
    Resp3,
}

fn line(out: &mut Vec<u8>, kind: u8, value: i64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.push(kind);
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// Head of an array of `count`.
pub fn array(out: &mut Vec<u8>, count: usize) {
    line(out, b'*', count as i64);
}

/// Head of a map of `pairs`: an array of twice as many for version 2.
pub fn map(out: &mut Vec<u8>, version: Version, pairs: usize) {
    match version {
        Version::Resp2 => array(out, 2 * pairs),
        Version::Resp3 => line(out, b'%', pairs as i64),
    }
}

/// A bulk string.
pub fn bulk(out: &mut Vec<u8>, content: &[u8]) {
    line(out, b'$', content.len() as i64);
    out.extend_from_slice(content);
    out.extend_from_slice(b"\r\n");
}

/// A simple string, which has no line break.
pub fn simple(out: &mut Vec<u8>, text: &str) {
    out.push(b'+');
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// An error. `text` begins with its code; line breaks within become blanks.
pub fn error(out: &mut Vec<u8>, text: &str) {
    out.push(b'-');
    out.extend(
        text.bytes()
            .map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }),
    );
    out.extend_from_slice(b"\r\n");
}

/// A number.
pub fn integer(out: &mut Vec<u8>, value: i64) {
    line(out, b':', value);
}

/// Nothing.
pub fn null(out: &mut Vec<u8>, version: Version) {
    out.extend_from_slice(match version {
        Version::Resp2 => b"$-1\r\n",
        Version::Resp3 => b"_\r\n",
    });
}

/// A request of `args`.
pub fn request(out: &mut Vec<u8>, args: &[&[u8]]) {
    array(out, args.len());
    args.iter().for_each(|arg| bulk(out, arg));
}
