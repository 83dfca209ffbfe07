//! Inline requests: a line of words, as typed into telnet, made into an ordinary request.

use super::Malformed;
use super::write;

/// The request that `line` asks for, in RESP; empty for a line without words.
pub fn to_request(line: &[u8]) -> Result<Vec<u8>, Malformed> {
    let words = split(line)?;
    let mut request = Vec::with_capacity(line.len() + 16 * words.len());
    if !words.is_empty() {
        write::array(&mut request, words.len());
        words.iter().for_each(|word| write::bulk(&mut request, word));
    }
    Ok(request)
}

/// Words by Redis' rules: blanks part them, "double quotes" know escapes, 'single quotes' only `\'`.
fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut words = Vec::new();
    let mut bytes = line.iter().copied().peekable();
    loop {
        while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
        if bytes.peek().is_none() {
            return Ok(words);
        }
        let mut word = Vec::new();
        while let Some(byte) = bytes.next_if(|byte| !byte.is_ascii_whitespace()) {
            match byte {
                b'"' | b'\'' => {
                    quoted(&mut bytes, byte, &mut word)?;
                    if bytes.peek().is_some_and(|next| !next.is_ascii_whitespace()) {
                        return Err(Malformed::Quotes);
                    }
                }
                byte => word.push(byte),
            }
        }
        words.push(word);
    }
}

fn quoted(bytes: &mut impl Iterator<Item = u8>, quote: u8, word: &mut Vec<u8>) -> Result<(), Malformed> {
    loop {
        match bytes.next().ok_or(Malformed::Quotes)? {
            byte if byte == quote => return Ok(()),
            b'\\' if quote == b'\'' => match bytes.next().ok_or(Malformed::Quotes)? {
                b'\'' => word.push(b'\''),
                other => word.extend([b'\\', other]),
            },
            b'\\' => word.push(match bytes.next().ok_or(Malformed::Quotes)? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'b' => 8,
                b'a' => 7,
                b'x' => {
                    let mut digit = || {
                        let byte = bytes.next()?;
                        char::from(byte).to_digit(16)
                    };
                    let high = digit().ok_or(Malformed::Quotes)?;
                    let low = digit().ok_or(Malformed::Quotes)?;
                    (high * 16 + low) as u8
                }
                other => other,
            }),
            byte => word.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_quotes() {
        let words = |line: &str| split(line.as_bytes());
        assert_eq!(
            words("  set  k v \r\n"),
            Ok(vec![b"set".to_vec(), b"k".to_vec(), b"v".to_vec()])
        );
        assert_eq!(words("get \"a b\\x41\\n\""), Ok(vec![b"get".to_vec(), b"a bA\n".to_vec()]));
        assert_eq!(words("get 'it\\'s'"), Ok(vec![b"get".to_vec(), b"it's".to_vec()]));
        assert_eq!(words("\r\n"), Ok(vec![]));
        for bad in ["get \"a", "get \"a\"b", "get 'a\\", "get \"\\xq\""] {
            assert_eq!(words(bad), Err(Malformed::Quotes), "{bad}");
        }
        assert_eq!(to_request(b"PING\r\n"), Ok(b"*1\r\n$4\r\nPING\r\n".to_vec()));
    }
}
