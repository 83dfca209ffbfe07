//! IPTC records (captions, bylines, copyright; IPTC-IIM 4.2) as JPEG has them: one of the resources in a segment of Photoshop. The others
//! (thumbnails, paths, settings of printers) tell of the source as it was, so they go.

use crate::bytes::Reader;

/// What the segment begins with.
pub const SEGMENT: &[u8] = b"Photoshop 3.0\0";
const RESOURCE: &[u8] = b"8BIM";
const IPTC: u16 = 0x0404;

/// The records within a segment, without its beginning.
pub fn records(segment: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(segment);
    loop {
        if reader.take(4)? != RESOURCE {
            return None;
        }
        let id = reader.u16()?;
        // A name with its length before it, and what follows, are padded to an even length.
        let name = usize::from(reader.u8()?);
        reader.take(name | 1)?;
        let len = reader.u32()? as usize;
        let data = reader.take(len)?;
        if id == IPTC {
            return Some(data);
        }
        reader.take(len & 1)?;
    }
}

/// The segment's content for these records, without its beginning.
pub fn segment(records: &[u8]) -> Vec<u8> {
    let mut out = RESOURCE.to_vec();
    out.extend(IPTC.to_be_bytes());
    out.extend([0; 2]);
    out.extend((records.len() as u32).to_be_bytes());
    out.extend_from_slice(records);
    out.extend(vec![0; records.len() & 1]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_behind_other_resources() {
        for text in [&b"\x1c\x02\x74\0\x02me"[..], b"\x1c\x02\x74\0\x01x", b""] {
            assert_eq!(records(&segment(text)), Some(text));
            for name in [&b"\0\0"[..], b"\x01a", b"\x02ab\0"] {
                let mut other = [b"8BIM\x04\x0c", name, b"\0\0\0\x03odd\0"].concat();
                other.extend(segment(text));
                assert_eq!(records(&other), Some(text), "behind a thumbnail");
            }
        }
        assert_eq!(records(b"8BIM\x04\x0c\0\0\0\0\0\0"), None);
        assert_eq!(records(b"8BIX\x04\x04\0\0\0\0\0\0"), None);
    }

    #[test]
    fn no_cut_and_no_byte_makes_it_panic() {
        let sound = [
            b"8BIM\x04\x0c\x02ab\0\0\0\0\x03odd\0".to_vec(),
            segment(b"\x1c\x02\x74\0\x02me"),
        ]
        .concat();
        for at in 0..sound.len() {
            let _any = records(&sound[..at]);
            for byte in 0..=255 {
                let mut wrong = sound.clone();
                wrong[at] = byte;
                let _any = records(&wrong);
            }
        }
    }
}
