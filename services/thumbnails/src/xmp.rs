//! XMP packets (ISO 16684-1): text in XML that goes from source to result as it is, but for the orientation.

/// What the segment of a JPEG begins with.
pub const SEGMENT: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
/// The keyword of PNG's chunk of text.
pub const KEYWORD: &str = "XML:com.adobe.xmp";

const ORIENTATION: &[u8] = b"tiff:Orientation";

/// The packet within a chunk `iTXt` of PNG, if it is one. It must not be compressed.
pub fn of_itxt(chunk: &[u8]) -> Option<&[u8]> {
    let rest = chunk.strip_prefix(KEYWORD.as_bytes())?.strip_prefix(&[0, 0, 0])?;
    // The language, and the keyword in it.
    let mut parts = rest.splitn(3, |byte| *byte == 0);
    parts.nth(2)
}

/// The same packet with orientation 1, for results that are upright: as an attribute or an element, both of which tell it by one digit.
pub fn upright(xmp: &[u8]) -> Vec<u8> {
    let mut bytes = xmp.to_vec();
    for at in 0..bytes.len().saturating_sub(ORIENTATION.len()) {
        if bytes[at..].starts_with(ORIENTATION) {
            let value = &mut bytes[at + ORIENTATION.len()..];
            let digit = match value {
                [b'=', b'"' | b'\'', digit, ..] | [b'>', digit, ..] => digit,
                _ => continue,
            };
            if digit.is_ascii_digit() {
                *digit = b'1';
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orientation_is_reset_in_both_forms() {
        for (before, after) in [
            (
                &b"<a tiff:Orientation=\"6\" b='6'/>"[..],
                &b"<a tiff:Orientation=\"1\" b='6'/>"[..],
            ),
            (b"<a tiff:Orientation='8'/>", b"<a tiff:Orientation='1'/>"),
            (
                b"<tiff:Orientation>3</tiff:Orientation>",
                b"<tiff:Orientation>1</tiff:Orientation>",
            ),
            (b"tiff:Orientation", b"tiff:Orientation"),
            (b"tiff:Orientation='", b"tiff:Orientation='"),
            (b"tiff:Orientation=6", b"tiff:Orientation=6"),
            (b"", b""),
        ] {
            assert_eq!(upright(before), after, "{}", String::from_utf8_lossy(before));
        }
    }

    #[test]
    fn a_packet_of_png_stands_behind_its_keyword() {
        assert_eq!(of_itxt(b"XML:com.adobe.xmp\0\0\0en\0also\0<x/>"), Some(&b"<x/>"[..]));
        assert_eq!(of_itxt(b"XML:com.adobe.xmp\0\0\0\0\0<x\0>"), Some(&b"<x\0>"[..]));
        assert_eq!(of_itxt(b"XML:com.adobe.xmp\0\x01\0\0\0<x/>"), None, "compressed");
        assert_eq!(of_itxt(b"XML:com.adobe.xmp\0\0\0en"), None);
        assert_eq!(of_itxt(b"Comment\0\0\0\0\0<x/>"), None);
    }
}
