//! The boxes of an AVIF file (ISO/IEC 23008-12): where the coded pictures are, and how they are to be shown. Written for hostile files: all
//! is bounded, and what it does not know is left aside. Pictures that are put together of tiles are not read.

use crate::bytes::Reader;

/// Items, properties and references that are looked at.
const ITEMS_MAX: u32 = 256;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub width: u32,
    pub height: u32,
    /// AV1 data of the picture.
    pub color: Vec<u8>,
    /// AV1 data of its alpha.
    pub alpha: Option<Vec<u8>>,
    pub icc: Option<Vec<u8>>,
    /// A TIFF structure.
    pub exif: Option<Vec<u8>>,
    /// A packet.
    pub xmp: Option<Vec<u8>>,
    /// As in EXIF.
    pub orientation: u8,
}

#[derive(Clone, Debug)]
enum Property<'a> {
    Size(u32, u32),
    Icc(&'a [u8]),
    /// Quarter turns to the left.
    Turn(u8),
    /// 0: top and bottom change places, 1: left and right do.
    Mirror(u8),
    Alpha,
    Other,
}

/// Item, whether its place is in `idat`, extents of start and length.
type Place = (u32, bool, Vec<(u64, u64)>);

#[derive(Default)]
struct Meta<'a> {
    primary: u32,
    /// Item, kind; ours is `xmp ` for what has the media type of XMP.
    kinds: Vec<(u32, [u8; 4])>,
    places: Vec<Place>,
    properties: Vec<Property<'a>>,
    /// Item, its properties by number.
    uses: Vec<(u32, Vec<usize>)>,
    /// Kind, from, to.
    references: Vec<([u8; 4], u32, u32)>,
    idat: &'a [u8],
}

/// Reads the boxes. `None` if they are damaged, or of a kind that is not read.
pub fn read(bytes: &[u8]) -> Option<File> {
    let meta = boxes(bytes).find(|(kind, _)| kind == b"meta")?.1;
    let meta = Meta::new(meta.get(4..)?)?;
    meta.kinds
        .iter()
        .find(|(item, kind)| *item == meta.primary && kind == b"av01")?;
    let properties = meta.properties_of(meta.primary);
    let (width, height) = properties.iter().find_map(|property| match property {
        Property::Size(width, height) => Some((*width, *height)),
        _ => None,
    })?;
    let alpha = meta.references.iter().find(|(kind, from, to)| {
        kind == b"auxl"
            && *to == meta.primary
            && meta
                .properties_of(*from)
                .iter()
                .any(|property| matches!(property, Property::Alpha))
    });
    Some(File {
        width,
        height,
        color: meta.data(bytes, meta.primary)?,
        alpha: match alpha {
            Some((_, item, _)) => Some(meta.data(bytes, *item)?),
            None => None,
        },
        icc: properties.iter().find_map(|property| match property {
            Property::Icc(icc) => Some(icc.to_vec()),
            _ => None,
        }),
        exif: meta.first_of(b"Exif").and_then(|item| after_offset(meta.data(bytes, item)?)),
        xmp: meta.first_of(b"xmp ").and_then(|item| meta.data(bytes, item)),
        orientation: orientation(&properties),
    })
}

/// Turns to the left, then the mirror, as one number of EXIF.
fn orientation(properties: &[&Property<'_>]) -> u8 {
    let turn = properties.iter().find_map(|property| {
        if let Property::Turn(turn) = property {
            Some(*turn & 3)
        } else {
            None
        }
    });
    let mirror = properties.iter().find_map(|property| {
        if let Property::Mirror(axis) = property {
            Some(*axis & 1)
        } else {
            None
        }
    });
    match (turn.unwrap_or(0), mirror) {
        (0, None) => 1,
        (1, None) => 8,
        (2, None) => 3,
        (_, None) => 6,
        (0, Some(1)) | (2, Some(0)) => 2,
        (0, Some(_)) | (2, Some(_)) => 4,
        (1, Some(1)) | (3, Some(0)) => 7,
        (_, Some(_)) => 5,
    }
}

/// Boxes one behind the other: kind and content. Ends at the first that is damaged.
fn boxes(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut reader = Reader::new(bytes);
    let mut left = ITEMS_MAX;
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        let len = reader.u32()?;
        let kind: [u8; 4] = reader.take(4)?.try_into().ok()?;
        let content = match len {
            0 => reader.rest(),
            1 => {
                let len = usize::try_from(reader.u64()?.checked_sub(16)?).ok()?;
                reader.take(len)?
            }
            len => reader.take((len as usize).checked_sub(8)?)?,
        };
        Some((kind, content))
    })
}

/// Version and flags of a full box, and what follows.
fn full(content: &[u8]) -> Option<(u8, u32, Reader<'_>)> {
    let mut reader = Reader::new(content);
    let word = reader.u32()?;
    Some(((word >> 24) as u8, word & 0xff_ffff, reader))
}

/// A number of 2 bytes in old versions, of 4 in new ones.
fn id(reader: &mut Reader<'_>, is_wide: bool) -> Option<u32> {
    if is_wide { reader.u32() } else { reader.u16().map(u32::from) }
}

/// A number of 0, 4 or 8 bytes.
fn sized(reader: &mut Reader<'_>, size: u8) -> Option<u64> {
    match size {
        0 => Some(0),
        4 => reader.u32().map(u64::from),
        8 => reader.u64(),
        _ => None,
    }
}

impl<'a> Meta<'a> {
    fn new(content: &'a [u8]) -> Option<Meta<'a>> {
        let mut meta = Meta::default();
        for (kind, content) in boxes(content) {
            match &kind {
                b"pitm" => {
                    let (version, _, mut reader) = full(content)?;
                    meta.primary = id(&mut reader, version > 0)?;
                }
                b"iinf" => meta.read_kinds(content)?,
                b"iloc" => meta.read_places(content)?,
                b"iprp" => meta.read_properties(content)?,
                b"iref" => meta.read_references(content)?,
                b"idat" => meta.idat = content,
                _ => (),
            }
        }
        Some(meta)
    }

    fn read_kinds(&mut self, content: &'a [u8]) -> Option<()> {
        let (version, _, mut reader) = full(content)?;
        id(&mut reader, version > 0)?;
        for (kind, content) in boxes(reader.rest()) {
            let (version, _, mut reader) = full(content)?;
            if &kind == b"infe" && version >= 2 {
                let item = id(&mut reader, version > 2)?;
                reader.u16()?;
                let mut kind: [u8; 4] = reader.take(4)?.try_into().ok()?;
                if &kind == b"mime" {
                    // Its name, then the media type.
                    let mut words = reader.rest().split(|byte| *byte == 0);
                    if words.nth(1) == Some(b"application/rdf+xml") {
                        kind = *b"xmp ";
                    }
                }
                self.kinds.push((item, kind));
            }
        }
        Some(())
    }

    fn read_places(&mut self, content: &'a [u8]) -> Option<()> {
        let (version, _, mut reader) = full(content)?;
        let [sizes, more] = reader.u16()?.to_be_bytes();
        let (offset_size, length_size, base_size) = (sizes >> 4, sizes & 15, more >> 4);
        let index_size = if version > 0 { more & 15 } else { 0 };
        let count = id(&mut reader, version > 1)?;
        for _ in 0..count.min(ITEMS_MAX) {
            let item = id(&mut reader, version > 1)?;
            let method = if version > 0 { reader.u16()? & 15 } else { 0 };
            reader.u16()?;
            let base = sized(&mut reader, base_size)?;
            let count = u32::from(reader.u16()?);
            let mut extents = Vec::new();
            for _ in 0..count.min(ITEMS_MAX) {
                sized(&mut reader, index_size)?;
                let start = base.checked_add(sized(&mut reader, offset_size)?)?;
                extents.push((start, sized(&mut reader, length_size)?));
            }
            // What is built of other items is not read.
            if method <= 1 {
                self.places.push((item, method == 1, extents));
            }
        }
        Some(())
    }

    fn read_properties(&mut self, content: &'a [u8]) -> Option<()> {
        for (kind, content) in boxes(content) {
            match &kind {
                b"ipco" => {
                    for (kind, content) in boxes(content) {
                        self.properties.push(property(kind, content)?);
                    }
                }
                b"ipma" => self.read_uses(content)?,
                _ => (),
            }
        }
        Some(())
    }

    fn read_uses(&mut self, content: &'a [u8]) -> Option<()> {
        let (version, flags, mut reader) = full(content)?;
        let count = reader.u32()?;
        for _ in 0..count.min(ITEMS_MAX) {
            let item = id(&mut reader, version > 0)?;
            let mut numbers = Vec::new();
            for _ in 0..reader.u8()? {
                // The highest bit tells that one must be understood; numbers count from one.
                let number = match flags & 1 {
                    1 => usize::from(reader.u16()? & 0x7fff),
                    _ => usize::from(reader.u8()? & 0x7f),
                };
                numbers.extend(number.checked_sub(1));
            }
            self.uses.push((item, numbers));
        }
        Some(())
    }

    fn read_references(&mut self, content: &'a [u8]) -> Option<()> {
        let (version, _, mut reader) = full(content)?;
        for (kind, content) in boxes(reader.rest()) {
            let mut reader = Reader::new(content);
            let from = id(&mut reader, version > 0)?;
            let count = u32::from(reader.u16()?);
            for _ in 0..count.min(ITEMS_MAX) {
                self.references.push((kind, from, id(&mut reader, version > 0)?));
            }
        }
        Some(())
    }

    fn properties_of(&self, item: u32) -> Vec<&Property<'a>> {
        let uses = self
            .uses
            .iter()
            .filter(|(used, _)| *used == item)
            .flat_map(|(_, numbers)| numbers);
        uses.filter_map(|number| self.properties.get(*number)).collect()
    }

    fn first_of(&self, kind: &[u8; 4]) -> Option<u32> {
        let mut found = self.kinds.iter().filter(|(_, of)| of == kind);
        found.next().map(|(item, _)| *item)
    }

    /// The bytes of an item, never more than the file has.
    fn data(&self, bytes: &'a [u8], item: u32) -> Option<Vec<u8>> {
        let (_, is_idat, extents) = self.places.iter().find(|(placed, ..)| *placed == item)?;
        let from = if *is_idat { self.idat } else { bytes };
        let mut data = Vec::new();
        for (start, len) in extents {
            let start = usize::try_from(*start).ok()?;
            let end = match *len {
                0 => from.len(),
                len => start.checked_add(usize::try_from(len).ok()?)?,
            };
            let part = from.get(start..end)?;
            if data.len() + part.len() > bytes.len() {
                return None;
            }
            data.extend_from_slice(part);
        }
        Some(data)
    }
}

/// EXIF begins with how far its TIFF structure is from here.
fn after_offset(mut item: Vec<u8>) -> Option<Vec<u8>> {
    let offset = Reader::new(&item).u32()? as usize;
    let start = offset.checked_add(4).filter(|start| *start <= item.len())?;
    item.drain(..start);
    Some(item)
}

fn property(kind: [u8; 4], content: &[u8]) -> Option<Property<'_>> {
    let mut reader = Reader::new(content);
    Some(match &kind {
        b"ispe" => {
            reader.u32()?;
            Property::Size(reader.u32()?, reader.u32()?)
        }
        b"colr" => match reader.take(4)? {
            b"prof" | b"rICC" => Property::Icc(reader.rest()),
            _ => Property::Other,
        },
        b"irot" => Property::Turn(reader.u8()?),
        b"imir" => Property::Mirror(reader.u8()?),
        b"auxC" => {
            reader.u32()?;
            let name = reader.rest();
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            match name {
                b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha" | b"urn:mpeg:hevc:2015:auxid:1" => Property::Alpha,
                _ => Property::Other,
            }
        }
        _ => Property::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_writer_writes_is_found() {
        let (color, alpha) = (vec![1; 50], vec![2; 20]);
        let file = avif_serialize::serialize_to_vec(&color, Some(&alpha), 30, 20, 8);
        let read = read(&file).expect("sound");
        assert_eq!((read.width, read.height, read.orientation), (30, 20, 1));
        assert_eq!((read.color, read.alpha), (color, Some(alpha)));
    }

    #[test]
    fn exif_of_a_writer_is_found() {
        let mut writer = avif_serialize::Aviffy::new();
        writer.set_exif(b"II*\0\x08\0\0\0".to_vec());
        let read = read(&writer.to_vec(&[1; 9], None, 30, 20, 8)).expect("sound");
        assert_eq!((read.exif.as_deref(), read.xmp), (Some(&b"II*\0\x08\0\0\0"[..]), None));
        assert_eq!(after_offset(b"\0\0\0\x02abcd".to_vec()), Some(b"cd".to_vec()));
        assert_eq!(after_offset(b"\0\0\0\x05abcd".to_vec()), None);
    }

    #[test]
    fn what_has_the_media_type_of_xmp_is_a_packet() {
        let mut meta = Meta::default();
        let entry = |item: u8, kind: &[u8]| [b"infe\x02\0\0\0\0", &[item][..], b"\0\0", kind].concat();
        let mut content = b"\0\0\0\0\0\x03".to_vec();
        for entry in [
            entry(1, b"mime\0text/plain\0"),
            entry(2, b"mimename\0application/rdf+xml\0"),
            entry(3, b"Exif\0"),
        ] {
            content.extend((entry.len() as u32 + 4).to_be_bytes());
            content.extend(entry);
        }
        meta.read_kinds(&content).expect("sound");
        assert_eq!((meta.first_of(b"xmp "), meta.first_of(b"Exif")), (Some(2), Some(3)));
    }

    #[test]
    fn turns_and_mirrors_are_one_number() {
        for (properties, wanted) in [
            (vec![], 1),
            (vec![Property::Turn(1)], 8),
            (vec![Property::Turn(3)], 6),
            (vec![Property::Mirror(1)], 2),
            (vec![Property::Mirror(0)], 4),
            (vec![Property::Turn(1), Property::Mirror(0)], 5),
            (vec![Property::Turn(3), Property::Mirror(0)], 7),
        ] {
            assert_eq!(orientation(&properties.iter().collect::<Vec<_>>()), wanted, "{properties:?}");
        }
    }

    #[test]
    fn no_cut_and_no_byte_makes_it_panic() {
        let file = avif_serialize::serialize_to_vec(&[1; 9], Some(&[2; 9]), 30, 20, 8);
        for at in 0..file.len() {
            let _any = read(&file[..at]);
            for byte in 0..=255 {
                let mut wrong = file.clone();
                wrong[at] = byte;
                let _any = read(&wrong);
            }
        }
    }
}
