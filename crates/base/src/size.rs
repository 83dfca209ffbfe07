//! Sizes and spans of time as users write them in configuration: `"64MiB"`, `"100ms"`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes, written with a binary unit: `512`, `"4KiB"`, `"64MiB"`, `"1.5GiB"`. `KB` and `MB` are read as binary too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A span of time, written with its unit: `"100ms"`, `"1.5s"`, `"2m"`, `"1h"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl ByteSize {
    pub const fn kib(n: u64) -> ByteSize {
        ByteSize(n << 10)
    }
    pub const fn mib(n: u64) -> ByteSize {
        ByteSize(n << 20)
    }
    pub const fn gib(n: u64) -> ByteSize {
        ByteSize(n << 30)
    }
    pub fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl Span {
    pub const fn millis(n: u64) -> Span {
        Span(Duration::from_millis(n))
    }
    pub const fn secs(n: u64) -> Span {
        Span(Duration::from_secs(n))
    }
}

const SIZE_UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];
const SPAN_UNITS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Splits `"1.5GiB"` into its number and unit.
fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..at], text[at..].trim())
}

fn scale(text: &str, number: &str, factor: u64) -> Result<u64, String> {
    let whole = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
    let value = whole.or_else(|| number.parse::<f64>().ok().map(|n| (n * factor as f64) as u64));
    value
        .filter(|&v| v < u64::MAX / 2)
        .ok_or_else(|| format!("`{text}` is not a number with a unit"))
}

impl FromStr for ByteSize {
    type Err = String;
    fn from_str(text: &str) -> Result<ByteSize, String> {
        let (number, unit) = split_unit(text);
        let wanted = match unit {
            "" => "B",
            "KB" | "K" | "k" => "KiB",
            "MB" | "M" => "MiB",
            "GB" | "G" => "GiB",
            "TB" | "T" => "TiB",
            other => other,
        };
        let factor = SIZE_UNITS.iter().find(|(name, _)| *name == wanted);
        let (_, factor) = factor.ok_or_else(|| format!("`{text}`: wanted a size such as 512, 4KiB, 64MiB or 1GiB"))?;
        scale(text, number, *factor).map(ByteSize)
    }
}

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Span, String> {
        let (number, unit) = split_unit(text);
        let factor = SPAN_UNITS.iter().find(|(name, _)| *name == unit);
        let (_, factor) = factor.ok_or_else(|| format!("`{text}`: wanted a span such as 100ms, 1.5s, 2m or 1h"))?;
        scale(text, number, *factor).map(|nanos| Span(Duration::from_nanos(nanos)))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, factor) = SIZE_UNITS
            .iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos() as u64;
        let (name, factor) = SPAN_UNITS
            .iter()
            .find(|(_, factor)| nanos >= *factor && nanos.is_multiple_of(*factor))
            .unwrap_or(&("ms", 1_000_000));
        write!(f, "{}{name}", nanos / factor)
    }
}

macro_rules! as_text {
    ($type:ty, $wanted:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($wanted)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<$type, E> {
                        n.to_string().parse().map_err(E::custom)
                    }
                    fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<$type, E> {
                        n.to_string().parse().map_err(E::custom)
                    }
                }
                from.deserialize_any(Visitor)
            }
        }
    };
}
as_text!(ByteSize, "a size such as \"64MiB\"");
as_text!(Span, "a span of time such as \"100ms\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        for (text, bytes) in [
            ("512", 512),
            ("4KiB", 4096),
            ("1.5GiB", 3 << 29),
            ("64MB", 64 << 20),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        assert_eq!(ByteSize::mib(64).to_string(), "64MiB");
        for (text, millis) in [("100ms", 100), ("1.5s", 1500), ("2m", 120_000)] {
            assert_eq!(text.parse(), Ok(Span::millis(millis)), "{text}");
        }
        assert_eq!(Span::millis(1500).to_string(), "1500ms");
        assert_eq!(Span::secs(60).to_string(), "1m");
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        for text in ["", "x", "1.2.3s", "5 parsecs", "99999999999999999999TiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "size {text}");
            assert!(text.parse::<Span>().is_err(), "span {text}");
        }
        assert!("100".parse::<Span>().is_err(), "a span without a unit");
    }
}
