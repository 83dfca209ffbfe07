//! Headers whose values are small languages: `Range`, `Accept-Encoding`.

use ::http::HeaderValue;

/// Reads a range of a blob with `len` bytes, as `[start, end)`. `None`: not a single range, answered with all of it.
/// `Err`: beyond the end.
pub(crate) fn range(value: &[u8], len: u64) -> Option<Result<(u64, u64), ()>> {
    let text = std::str::from_utf8(value).ok()?.strip_prefix("bytes=")?;
    let (first, last) = text.split_once('-')?;
    let (start, end) = match (first, last) {
        ("", count) => (len.saturating_sub(count.parse().ok()?), len),
        (first, "") => (first.parse().ok()?, len),
        (first, last) => (first.parse().ok()?, last.parse::<u64>().ok()?.checked_add(1)?.min(len)),
    };
    Some(if start < end { Ok((start, end)) } else { Err(()) })
}

/// Whether one of the codings is zstd, and not with a weight of nothing.
pub(crate) fn accepts_zstd(value: &HeaderValue) -> bool {
    let mut codings = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    codings.any(|coding| {
        let mut parts = coding.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        parts.next() == Some(b"zstd") && parts.all(|part| part != b"q=0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_what_there_is() {
        for (value, wanted) in [
            ("bytes=0-0", Some(Ok((0, 1)))),
            ("bytes=2-", Some(Ok((2, 10)))),
            ("bytes=-3", Some(Ok((7, 10)))),
            ("bytes=-30", Some(Ok((0, 10)))),
            ("bytes=5-99", Some(Ok((5, 10)))),
            ("bytes=10-", Some(Err(()))),
            ("bytes=5-4", Some(Err(()))),
            ("bytes=-0", Some(Err(()))),
            ("bytes=0-1,3-4", None),
            ("bytes=a-", None),
            ("bytes=0-18446744073709551615", None),
            ("lines=1-2", None),
        ] {
            assert_eq!(range(value.as_bytes(), 10), wanted, "{value}");
        }
    }

    #[test]
    fn codings_are_read_with_their_weights() {
        for (value, wanted) in [
            ("zstd", true),
            ("gzip, zstd", true),
            ("zstd;q=0.5", true),
            ("gzip, zstd; q=0", false),
            ("gzip", false),
            ("*", false),
            ("xzstd", false),
        ] {
            assert_eq!(accepts_zstd(&HeaderValue::from_static(value)), wanted, "{value}");
        }
    }
}
