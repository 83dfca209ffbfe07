//! What we need of EXIF: the orientation, and who made the picture.

use std::collections::BTreeMap;

use crate::bytes::Reader;

const ORIENTATION: u16 = 0x0112;
const ARTIST: u16 = 0x013b;
const COPYRIGHT: u16 = 0x8298;
/// Description, make and model of the camera, software and time.
const TEXTS: [u16; 5] = [0x010e, 0x010f, 0x0110, 0x0131, 0x0132];
/// Where a TIFF file has its XMP packet.
pub const XMP: u16 = 700;
/// And its IPTC records.
pub const IPTC: u16 = 33_723;
/// Entries of one directory that are looked at.
const ENTRIES_MAX: u16 = 512;
/// Longest text that is kept.
const TEXT_MAX: usize = 4096;
const ASCII: u16 = 2;
const SHORT: u16 = 3;
const LONG: u16 = 4;
const BYTE: u16 = 1;
const UNDEFINED: u16 = 7;

/// A TIFF structure as cameras write it.
#[derive(Clone, Copy)]
struct Tiff<'a> {
    bytes: &'a [u8],
    is_little: bool,
}

struct Entry {
    tag: u16,
    kind: u16,
    count: u32,
    /// Place of the value, or of the offset of it.
    value_at: usize,
}

impl<'a> Tiff<'a> {
    fn new(bytes: &'a [u8]) -> Option<Tiff<'a>> {
        let is_little = match bytes.get(..4)? {
            b"II*\0" => true,
            b"MM\0*" => false,
            _ => return None,
        };
        Some(Tiff { bytes, is_little })
    }

    fn u16(&self, at: usize) -> Option<u16> {
        let mut reader = Reader::new(self.bytes);
        reader.seek(at)?;
        if self.is_little { reader.u16_le() } else { reader.u16() }
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let mut reader = Reader::new(self.bytes);
        reader.seek(at)?;
        if self.is_little { reader.u32_le() } else { reader.u32() }
    }

    /// Entries of the first directory.
    fn entries(self) -> impl Iterator<Item = Entry> + use<'a> {
        let start = self.u32(4).map_or(usize::MAX, |start| start as usize);
        let count = self.u16(start).unwrap_or(0).min(ENTRIES_MAX);
        (0..usize::from(count)).map_while(move |number| {
            let at = start.checked_add(2 + number * 12)?;
            Some(Entry {
                tag: self.u16(at)?,
                kind: self.u16(at + 2)?,
                count: self.u32(at + 4)?,
                value_at: at + 8,
            })
        })
    }

    fn text(&self, entry: &Entry) -> Option<Vec<u8>> {
        let len = entry.count as usize;
        if entry.kind != ASCII || len > TEXT_MAX {
            return None;
        }
        let at = if len <= 4 {
            entry.value_at
        } else {
            self.u32(entry.value_at)? as usize
        };
        let text = self.bytes.get(at..at.checked_add(len)?)?;
        Some(text.split(|byte| *byte == 0).next().unwrap_or_default().to_vec())
    }

    /// A number of one or of two times two bytes.
    fn number(&self, entry: &Entry) -> Option<u32> {
        match entry.kind {
            SHORT => self.u16(entry.value_at).map(u32::from),
            LONG => self.u32(entry.value_at),
            _ => None,
        }
    }
}

/// Orientation in 1 to 8; 1 if none or nonsense.
pub fn orientation(exif: &[u8]) -> u8 {
    let found = Tiff::new(exif).and_then(|tiff| {
        let entry = tiff.entries().find(|entry| entry.tag == ORIENTATION)?;
        tiff.number(&entry)
    });
    match found {
        Some(value @ 1..=8) => value as u8,
        _ => 1,
    }
}

/// Width, height and orientation of a TIFF file.
pub fn tiff_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let tiff = Tiff::new(bytes)?;
    let find = |tag| {
        tiff.entries()
            .find(|entry| entry.tag == tag)
            .and_then(|entry| tiff.number(&entry))
    };
    Some((find(0x0100)?, find(0x0101)?))
}

/// What a TIFF file has under a tag, as bytes.
pub fn tiff_value(bytes: &[u8], tag: u16) -> Option<&[u8]> {
    let tiff = Tiff::new(bytes)?;
    let entry = tiff.entries().find(|entry| entry.tag == tag)?;
    let size = match entry.kind {
        BYTE | UNDEFINED => 1,
        LONG => 4,
        _ => return None,
    };
    let len = (entry.count as usize).checked_mul(size).filter(|len| *len > 4)?;
    let at = tiff.u32(entry.value_at)? as usize;
    bytes.get(at..at.checked_add(len)?)
}

/// The same EXIF with orientation 1, for results that are upright.
pub fn upright(exif: &[u8]) -> Vec<u8> {
    oriented(exif, 1)
}

/// The same EXIF with another orientation, where it tells one.
pub fn oriented(exif: &[u8], orientation: u8) -> Vec<u8> {
    let mut bytes = exif.to_vec();
    let Some(tiff) = Tiff::new(exif) else { return bytes };
    let Some(entry) = tiff.entries().find(|entry| entry.tag == ORIENTATION && entry.kind == SHORT) else {
        return bytes;
    };
    let value = match tiff.is_little {
        true => u16::from(orientation).to_le_bytes(),
        false => u16::from(orientation).to_be_bytes(),
    };
    if let Some(place) = bytes.get_mut(entry.value_at..entry.value_at + 2) {
        place.copy_from_slice(&value);
    }
    bytes
}

/// EXIF with artist and copyright of `exif` and nothing else; none if it has neither.
pub fn copyright(exif: &[u8]) -> Option<Vec<u8>> {
    let texts = texts(exif, &[ARTIST, COPYRIGHT])?;
    (!texts.is_empty()).then(|| write(texts))
}

/// EXIF with the orientation of a TIFF file and what it tells in words. The rest of its directory is about how pixels are stored.
pub fn of_tiff(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut values = texts(bytes, &[&TEXTS[..], &[ARTIST, COPYRIGHT]].concat())?;
    values.insert(ORIENTATION, Value::Short(orientation(bytes).into()));
    Some(write(values))
}

/// EXIF that tells an orientation and nothing else.
pub fn with_orientation(orientation: u8) -> Vec<u8> {
    write(BTreeMap::from([(ORIENTATION, Value::Short(orientation.into()))]))
}

/// A value to be written.
enum Value {
    Short(u16),
    Text(Vec<u8>),
}

/// Texts of these tags.
fn texts(exif: &[u8], tags: &[u16]) -> Option<BTreeMap<u16, Value>> {
    let tiff = Tiff::new(exif)?;
    let entries = tiff.entries().filter(|entry| tags.contains(&entry.tag));
    let texts = entries.filter_map(|entry| Some((entry.tag, tiff.text(&entry).filter(|text| !text.is_empty())?)));
    Some(texts.map(|(tag, text)| (tag, Value::Text(text))).collect())
}

/// A TIFF structure of one directory.
fn write(values: BTreeMap<u16, Value>) -> Vec<u8> {
    let mut out = b"II*\0\x08\0\0\0".to_vec();
    out.extend((values.len() as u16).to_le_bytes());
    let data_at = out.len() + 12 * values.len() + 4;
    let mut data = Vec::new();
    for (tag, value) in values {
        let (kind, count, mut bytes) = match value {
            Value::Short(number) => (SHORT, 1, number.to_le_bytes().to_vec()),
            Value::Text(mut text) => {
                text.push(0);
                (ASCII, text.len() as u32, text)
            }
        };
        out.extend(tag.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend(count.to_le_bytes());
        if bytes.len() <= 4 {
            bytes.resize(4, 0);
            out.extend(bytes);
        } else {
            out.extend(((data_at + data.len()) as u32).to_le_bytes());
            data.extend(bytes);
        }
    }
    out.extend([0; 4]);
    out.extend(data);
    out
}

/// EXIF with an orientation and a copyright, for tests.
#[cfg(test)]
pub fn sample(orientation: u16, copyright: &str) -> Vec<u8> {
    let mut out = b"MM\0*\0\0\0\x08\0\x02".to_vec();
    out.extend(ORIENTATION.to_be_bytes());
    out.extend(SHORT.to_be_bytes());
    out.extend(1u32.to_be_bytes());
    out.extend(orientation.to_be_bytes());
    out.extend([0; 2]);
    out.extend(COPYRIGHT.to_be_bytes());
    out.extend(ASCII.to_be_bytes());
    out.extend((copyright.len() as u32 + 1).to_be_bytes());
    out.extend(38u32.to_be_bytes());
    out.extend([0; 4]);
    assert_eq!(out.len(), 38);
    out.extend(copyright.as_bytes());
    out.push(0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orientation_is_read_and_reset() {
        for value in 1..=8 {
            let exif = sample(value, "somebody");
            assert_eq!(u16::from(orientation(&exif)), value);
            assert_eq!(orientation(&upright(&exif)), 1);
        }
        assert_eq!(orientation(&sample(9, "x")), 1);
        assert_eq!(orientation(b"II*\0\xff\xff\xff\xff"), 1);
        assert_eq!(orientation(b""), 1);
    }

    #[test]
    fn copyright_alone_is_kept() {
        let kept = copyright(&sample(6, "somebody")).expect("has one");
        assert_eq!(orientation(&kept), 1);
        assert!(kept.windows(9).any(|window| window == b"somebody\0"));
        assert_eq!(copyright(&kept), Some(kept));
        assert_eq!(copyright(b"II*\0\x08\0\0\0\0\0"), None);
    }

    #[test]
    fn a_tiff_tells_its_orientation_and_words() {
        let made = of_tiff(&sample(6, "somebody")).expect("is one");
        assert_eq!(orientation(&made), 6);
        assert_eq!(copyright(&made), copyright(&sample(6, "somebody")));
        assert_eq!(of_tiff(&made), Some(made.clone()));
        assert_eq!(of_tiff(b"no TIFF"), None);
        assert_eq!(of_tiff(&with_orientation(3)), Some(with_orientation(3)));
    }

    #[test]
    fn no_cut_and_no_byte_makes_it_panic() {
        let exif = sample(6, "somebody");
        for at in 0..exif.len() {
            let _any = (orientation(&exif[..at]), copyright(&exif[..at]), upright(&exif[..at]));
            for byte in [0, 1, 2, 4, 127, 255] {
                let mut wrong = exif.clone();
                wrong[at] = byte;
                let _any = (orientation(&wrong), copyright(&wrong), upright(&wrong), tiff_size(&wrong));
                let _any = (of_tiff(&wrong), tiff_value(&wrong, COPYRIGHT));
            }
        }
    }
}
