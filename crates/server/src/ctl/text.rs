//! Bytes as text: with escapes for what is not printable, or as hexadecimal. What is printed can be typed.

use std::fmt::Write;

use anyhow::{Context, bail};
use bytes::Bytes;

/// How keys and values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Printable ASCII as it is; `\n`, `\r`, `\t`, `\\` and `\xNN` for the rest.
    Plain,
    /// Two digits a byte.
    Hex,
}

impl Form {
    pub fn new(hex: bool) -> Form {
        if hex { Form::Hex } else { Form::Plain }
    }

    pub fn print(self, bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len());
        for &byte in bytes {
            let written = match (self, byte) {
                (Form::Hex, _) => write!(text, "{byte:02x}"),
                (_, b'\\') => text.write_str(r"\\"),
                (_, b'\n') => text.write_str(r"\n"),
                (_, b'\r') => text.write_str(r"\r"),
                (_, b'\t') => text.write_str(r"\t"),
                (_, b' '..=b'~') => text.write_char(byte.into()),
                (_, _) => write!(text, r"\x{byte:02x}"),
            };
            written.expect("writing to memory does not fail");
        }
        text
    }

    /// Reads what `print` writes. Other characters than ASCII stand for their UTF-8 bytes.
    pub fn parse(self, text: &str) -> anyhow::Result<Bytes> {
        let bytes = match self {
            Form::Plain => unescape(text.as_bytes()),
            Form::Hex => unhex(text.as_bytes()),
        };
        let wanted = match self {
            Form::Plain => r"escapes are \n \r \t \\ and \xNN",
            Form::Hex => "wanted pairs of hexadecimal digits",
        };
        bytes
            .map(Bytes::from)
            .with_context(|| format!("`{text}` cannot be read: {wanted}"))
    }
}

fn unescape(text: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let (byte, tail) = match (first, tail) {
            (b'\\', [b'n', tail @ ..]) => (b'\n', tail),
            (b'\\', [b'r', tail @ ..]) => (b'\r', tail),
            (b'\\', [b't', tail @ ..]) => (b'\t', tail),
            (b'\\', [b'\\', tail @ ..]) => (b'\\', tail),
            (b'\\', [b'x', high, low, tail @ ..]) => (digits(*high, *low)?, tail),
            (b'\\', _) => bail!("unknown escape at byte {}", text.len() - rest.len()),
            (byte, tail) => (*byte, tail),
        };
        bytes.push(byte);
        rest = tail;
    }
    Ok(bytes)
}

fn unhex(text: &[u8]) -> anyhow::Result<Vec<u8>> {
    let pairs = text.chunks(2).map(|pair| match pair {
        [high, low] => digits(*high, *low),
        _ => bail!("a digit is missing at the end"),
    });
    pairs.collect()
}

fn digits(high: u8, low: u8) -> anyhow::Result<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    match (digit(high), digit(low)) {
        (Some(high), Some(low)) => Ok((high * 16 + low) as u8),
        _ => bail!("`{}{}` is not hexadecimal", char::from(high), char::from(low)),
    }
}
