//! What a picture is, from its first bytes: format, size, frames, orientation. Nothing is decoded, so that bombs end here.

use serde::Serialize;

use crate::bytes::Reader;
use crate::format::Format;
use crate::{exif, iptc, xmp};

/// What the header tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Info {
    pub format: Format,
    /// As stored, before the orientation is applied. 0 for an SVG, whose size only its parser knows.
    pub width: u32,
    pub height: u32,
    /// EXIF: 1 to 8.
    pub orientation: u8,
    /// Counted up to the limit that was given, and one more.
    pub frames: u32,
    /// Whether it comes in several scans, each of which costs.
    pub progressive: bool,
    pub alpha: bool,
    /// Whether it is in the colours of printers.
    pub cmyk: bool,
    /// EXIF as stored, for those who want it kept.
    #[serde(skip)]
    pub exif: Option<Vec<u8>>,
    /// An XMP packet, likewise.
    #[serde(skip)]
    pub xmp: Option<Vec<u8>>,
    /// IPTC records, likewise.
    #[serde(skip)]
    pub iptc: Option<Vec<u8>>,
    /// Colour profile; that of PNG is compressed and comes with the pixels.
    #[serde(skip)]
    pub icc: Option<Vec<u8>>,
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("the source is no picture that we read")]
    Unknown,
    #[error("the header of the {0} is damaged or cut off")]
    Damaged(&'static str),
    #[error("SVG with a document type is refused: entities can grow without end")]
    Doctype,
}

/// EXIF and profiles beyond this are left out.
const META_MAX: usize = 4 << 20;
/// How far an SVG's root may be from the start.
const SVG_LOOK: usize = 4 << 10;

/// Reads the header. Frames are counted up to `frames_max` and one more.
pub fn read(bytes: &[u8], frames_max: u32) -> Result<Info, HeaderError> {
    let format = sniff(bytes).ok_or(HeaderError::Unknown)?;
    let mut info = Info {
        format,
        width: 0,
        height: 0,
        orientation: 1,
        frames: 1,
        progressive: false,
        alpha: false,
        cmyk: false,
        exif: None,
        xmp: None,
        iptc: None,
        icc: None,
    };
    let read = match format {
        Format::Jpeg => jpeg(bytes, &mut info),
        Format::Png => png(bytes, &mut info, frames_max),
        Format::Webp => webp(bytes, &mut info, frames_max),
        Format::Gif => gif(bytes, &mut info, frames_max),
        Format::Avif => avif(bytes, &mut info),
        Format::Tiff => tiff(bytes, &mut info),
        Format::Bmp => bmp(bytes, &mut info),
        Format::Ico => ico(bytes, &mut info),
        Format::Svg => return svg(bytes, info),
    };
    read.ok_or(HeaderError::Damaged(format.name()))?;
    if info.width == 0 || info.height == 0 {
        return Err(HeaderError::Damaged(format.name()));
    }
    // AVIF and TIFF tell it otherwise.
    if let (Format::Jpeg | Format::Png | Format::Webp, Some(exif)) = (format, &info.exif) {
        info.orientation = exif::orientation(exif);
    }
    Ok(info)
}

/// Whether more bytes than the first ones, from which `info` was read, would tell nothing else.
pub fn is_told_by_start(bytes: &[u8], info: &Info) -> bool {
    match info.format {
        // These were read up to where pixels begin, or have all in front.
        Format::Jpeg | Format::Png | Format::Tiff | Format::Bmp | Format::Ico => true,
        // EXIF, XMP and frames come behind the pixels of the extended form, which says whether there are any.
        Format::Webp => bytes.get(12..16) != Some(b"VP8X") || bytes.get(20).is_some_and(|flags| flags & 0b1110 == 0),
        // Frames are counted over the whole file; boxes may be at its end; document types may be anywhere.
        Format::Gif | Format::Avif | Format::Svg => false,
    }
}

/// The format by its magic bytes alone; names and media types are not believed.
pub fn sniff(bytes: &[u8]) -> Option<Format> {
    let has = |at: usize, magic: &[u8]| bytes.get(at..at + magic.len()) == Some(magic);
    if has(0, b"\xff\xd8\xff") {
        Some(Format::Jpeg)
    } else if has(0, b"\x89PNG\r\n\x1a\n") {
        Some(Format::Png)
    } else if has(0, b"RIFF") && has(8, b"WEBP") {
        Some(Format::Webp)
    } else if has(0, b"GIF87a") || has(0, b"GIF89a") {
        Some(Format::Gif)
    } else if has(4, b"ftyp") && is_avif(bytes) {
        Some(Format::Avif)
    } else if has(0, b"II*\0") || has(0, b"MM\0*") {
        Some(Format::Tiff)
    } else if has(0, b"BM") && bytes.len() > 26 {
        Some(Format::Bmp)
    } else if has(0, b"\0\0\x01\0") {
        Some(Format::Ico)
    } else if is_svg(bytes) {
        Some(Format::Svg)
    } else {
        None
    }
}

fn jpeg(bytes: &[u8], info: &mut Info) -> Option<()> {
    let mut reader = Reader::new(bytes);
    reader.take(2)?;
    let mut profile = Vec::new();
    loop {
        if reader.u8()? != 0xff {
            return None;
        }
        let mut marker = reader.u8()?;
        while marker == 0xff {
            marker = reader.u8()?;
        }
        if matches!(marker, 0x01 | 0xd0..=0xd7) {
            continue;
        }
        let len = usize::from(reader.u16()?);
        let body = reader.take(len.checked_sub(2)?)?;
        match marker {
            // Start of frame: all but those of hierarchies, which nobody decodes.
            0xc0..=0xc3 | 0xc9..=0xcb => {
                let mut frame = Reader::new(body);
                frame.u8()?;
                info.height = u32::from(frame.u16()?);
                info.width = u32::from(frame.u16()?);
                info.cmyk = frame.u8()? == 4;
                info.progressive = matches!(marker, 0xc2 | 0xca);
            }
            0xe1 if body.starts_with(b"Exif\0\0") && info.exif.is_none() => info.exif = body.get(6..).map(<[u8]>::to_vec),
            0xe1 if body.starts_with(xmp::SEGMENT) && info.xmp.is_none() => {
                info.xmp = body.get(xmp::SEGMENT.len()..).map(<[u8]>::to_vec)
            }
            0xed if body.starts_with(iptc::SEGMENT) && info.iptc.is_none() => {
                info.iptc = iptc::records(body.get(iptc::SEGMENT.len()..)?).map(<[u8]>::to_vec);
            }
            0xe2 if body.starts_with(b"ICC_PROFILE\0") => {
                let [number, count] = body.get(12..14)?.try_into().ok()?;
                profile.push((number, count, body.get(14..)?));
            }
            // The scan begins, or the file ends.
            0xd9 | 0xda => break,
            _ => (),
        }
    }
    info.icc = join_profile(profile);
    Some(())
}

/// A profile comes in parts of 64 KiB, each with its number and their count.
fn join_profile(mut parts: Vec<(u8, u8, &[u8])>) -> Option<Vec<u8>> {
    parts.sort_by_key(|(number, ..)| *number);
    let count = parts.first()?.1;
    let is_whole = parts.len() == usize::from(count)
        && parts
            .iter()
            .zip(1..)
            .all(|((number, of, _), wanted)| *number == wanted && *of == count);
    is_whole.then(|| parts.iter().flat_map(|(.., part)| part.iter().copied()).collect())
}

fn png(bytes: &[u8], info: &mut Info, frames_max: u32) -> Option<()> {
    let mut reader = Reader::new(bytes);
    reader.take(8)?;
    let mut is_first = true;
    loop {
        let len = reader.u32()? as usize;
        let kind = reader.take(4)?;
        if is_first != (kind == b"IHDR") {
            return None;
        }
        is_first = false;
        if kind == b"IDAT" || kind == b"IEND" {
            return Some(());
        }
        let body = reader.take(len)?;
        reader.take(4)?;
        let mut fields = Reader::new(body);
        match kind {
            b"IHDR" => {
                info.width = fields.u32()?;
                info.height = fields.u32()?;
                fields.u8()?;
                info.alpha = fields.u8()? & 4 != 0;
                fields.take(2)?;
                info.progressive = fields.u8()? == 1;
            }
            b"tRNS" => info.alpha = true,
            // Animated PNG is read as its first picture.
            b"acTL" => info.frames = fields.u32()?.clamp(1, frames_max.saturating_add(1)),
            b"eXIf" if body.len() <= META_MAX => info.exif = Some(body.to_vec()),
            b"iTXt" if body.len() <= META_MAX && info.xmp.is_none() => info.xmp = xmp::of_itxt(body).map(<[u8]>::to_vec),
            _ => (),
        }
    }
}

fn webp(bytes: &[u8], info: &mut Info, frames_max: u32) -> Option<()> {
    let mut reader = Reader::new(bytes);
    reader.take(12)?;
    let mut frames = 0u32;
    while let (Some(kind), Some(len)) = (reader.take(4), reader.u32_le()) {
        let len = len as usize;
        let body = match reader.take(len) {
            Some(body) => body,
            None => reader.rest(),
        };
        // Chunks are of even length; the last one's padding is often forgotten.
        if len % 2 == 1 {
            let _padding = reader.u8();
        }
        let mut fields = Reader::new(body);
        match kind {
            b"VP8X" => {
                info.alpha = fields.u8()? & 0x10 != 0;
                fields.take(3)?;
                info.width = fields.u24_le()? + 1;
                info.height = fields.u24_le()? + 1;
            }
            b"VP8 " if info.width == 0 => {
                fields.take(3)?;
                if fields.take(3)? != b"\x9d\x01\x2a" {
                    return None;
                }
                info.width = u32::from(fields.u16_le()? & 0x3fff);
                info.height = u32::from(fields.u16_le()? & 0x3fff);
            }
            b"VP8L" if info.width == 0 => {
                if fields.u8()? != 0x2f {
                    return None;
                }
                let bits = fields.u32_le()?;
                info.width = (bits & 0x3fff) + 1;
                info.height = (bits >> 14 & 0x3fff) + 1;
                info.alpha = bits >> 28 & 1 == 1;
            }
            b"ANMF" => {
                frames += 1;
                if frames > frames_max {
                    break;
                }
            }
            b"ICCP" if body.len() <= META_MAX => info.icc = Some(body.to_vec()),
            b"EXIF" if body.len() <= META_MAX => {
                info.exif = Some(body.strip_prefix(b"Exif\0\0").unwrap_or(body).to_vec());
            }
            b"XMP " if body.len() <= META_MAX => info.xmp = Some(body.to_vec()),
            _ => (),
        }
    }
    info.frames = frames.max(1);
    Some(())
}

fn gif(bytes: &[u8], info: &mut Info, frames_max: u32) -> Option<()> {
    let mut reader = Reader::new(bytes);
    reader.take(6)?;
    info.width = u32::from(reader.u16_le()?);
    info.height = u32::from(reader.u16_le()?);
    info.alpha = true;
    let flags = reader.u8()?;
    reader.take(2)?;
    take_palette(&mut reader, flags)?;
    let mut frames = 0u32;
    // A file that breaks off has the frames that came before.
    while let Some(kind) = reader.u8() {
        let is_frame = match kind {
            0x21 => reader.u8().map(|_| false),
            0x2c => reader
                .take(8)
                .and_then(|_| reader.u8())
                .and_then(|flags| take_palette(&mut reader, flags))
                .and_then(|()| reader.u8())
                .map(|_| true),
            _ => break,
        };
        let Some(is_frame) = is_frame else { break };
        frames += u32::from(is_frame);
        if frames > frames_max || skip_blocks(&mut reader).is_none() {
            break;
        }
    }
    info.frames = frames.max(1);
    Some(())
}

fn take_palette(reader: &mut Reader<'_>, flags: u8) -> Option<()> {
    if flags & 0x80 != 0 {
        reader.take(3 << ((flags & 7) + 1))?;
    }
    Some(())
}

fn skip_blocks(reader: &mut Reader<'_>) -> Option<()> {
    loop {
        match reader.u8()? {
            0 => return Some(()),
            len => reader.take(usize::from(len))?,
        };
    }
}

fn is_avif(bytes: &[u8]) -> bool {
    let Some(len) = Reader::new(bytes).u32() else { return false };
    let brands = bytes.get(8..(len as usize).min(bytes.len()).min(256)).unwrap_or_default();
    brands.chunks_exact(4).any(|brand| brand == b"avif" || brand == b"avis")
}

#[cfg(feature = "avif")]
fn avif(bytes: &[u8], info: &mut Info) -> Option<()> {
    let file = crate::codec::avif::heif::read(bytes)?;
    info.width = file.width;
    info.height = file.height;
    info.alpha = file.alpha.is_some();
    info.icc = file.icc;
    // Properties alone tell how it is to be shown; EXIF is not asked.
    info.orientation = file.orientation;
    info.exif = Some(match &file.exif {
        Some(exif) => exif::oriented(exif, file.orientation),
        None => exif::with_orientation(file.orientation),
    });
    info.xmp = file.xmp;
    Some(())
}

#[cfg(not(feature = "avif"))]
fn avif(_: &[u8], _: &mut Info) -> Option<()> {
    None
}

fn tiff(bytes: &[u8], info: &mut Info) -> Option<()> {
    (info.width, info.height) = exif::tiff_size(bytes)?;
    info.orientation = exif::orientation(bytes);
    info.exif = exif::of_tiff(bytes);
    info.xmp = exif::tiff_value(bytes, exif::XMP)
        .filter(|xmp| xmp.len() <= META_MAX)
        .map(<[u8]>::to_vec);
    info.iptc = exif::tiff_value(bytes, exif::IPTC)
        .filter(|iptc| iptc.len() <= META_MAX)
        .map(<[u8]>::to_vec);
    info.alpha = true;
    Some(())
}

fn bmp(bytes: &[u8], info: &mut Info) -> Option<()> {
    let mut reader = Reader::new(bytes);
    reader.seek(14)?;
    if reader.u32_le()? == 12 {
        info.width = u32::from(reader.u16_le()?);
        info.height = u32::from(reader.u16_le()?);
    } else {
        // A negative height tells that the rows go down.
        info.width = (reader.u32_le()? as i32).unsigned_abs();
        info.height = (reader.u32_le()? as i32).unsigned_abs();
    }
    info.alpha = true;
    Some(())
}

/// The largest of the icons.
fn ico(bytes: &[u8], info: &mut Info) -> Option<()> {
    let mut reader = Reader::new(bytes);
    reader.seek(4)?;
    let count = reader.u16_le()?;
    for _ in 0..count {
        let side = |byte: u8| if byte == 0 { 256 } else { u32::from(byte) };
        let width = side(reader.u8()?);
        let height = side(reader.u8()?);
        reader.take(14)?;
        if width * height > info.width * info.height {
            (info.width, info.height) = (width, height);
        }
    }
    info.alpha = true;
    Some(())
}

fn is_svg(bytes: &[u8]) -> bool {
    let start = bytes.get(..bytes.len().min(SVG_LOOK)).unwrap_or_default();
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let text = start
        .iter()
        .position(|byte| !byte.is_ascii_whitespace())
        .map_or(&[][..], |at| &start[at..]);
    text.starts_with(b"<") && start.windows(4).any(|window| window == b"<svg")
}

fn svg(bytes: &[u8], mut info: Info) -> Result<Info, HeaderError> {
    let has = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle));
    if has(b"<!ENTITY") || has(b"<!DOCTYPE") && has(b"[<!") {
        return Err(HeaderError::Doctype);
    }
    info.alpha = true;
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_the_first_bytes() {
        let mut gif = b"GIF89a\x05\0\x07\0\0\0\0".to_vec();
        for _ in 0..3 {
            gif.extend(b"\x2c\0\0\0\0\x05\0\x07\0\0\x02\x02\x44\x01\0");
        }
        let info = read(&gif, 10).expect("sound");
        assert_eq!((info.width, info.height, info.frames), (5, 7, 3));
        assert_eq!(read(&gif, 1).expect("sound").frames, 2, "counted to the limit and one more");
        let webp = b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\x04\x80\x01\x10\0\0\0\0\0\0\0\0";
        let info = read(webp, 1).expect("sound");
        assert_eq!((info.width, info.height, info.alpha), (5, 7, true));
        let ico = [&b"\0\0\x01\0\x02\0"[..], &[16, 16], &[0; 14], &[0, 0], &[0; 14]].concat();
        assert_eq!(read(&ico, 1).expect("sound").width, 256);
    }

    #[test]
    fn a_jpeg_has_its_size_after_other_segments() {
        let exif = exif::sample(6, "me");
        let mut jpeg = b"\xff\xd8\xff\xe1".to_vec();
        jpeg.extend((exif.len() as u16 + 8).to_be_bytes());
        jpeg.extend(b"Exif\0\0");
        jpeg.extend(&exif);
        jpeg.extend(b"\xff\xe2\0\x12ICC_PROFILE\0\x02\x02cd\xff\xe2\0\x12ICC_PROFILE\0\x01\x02ab");
        jpeg.extend(b"\xff\xc2\0\x0b\x08\x12\x34\x45\x67\x04\x01\x11\0\xff\xda\0\x02");
        let info = read(&jpeg, 1).expect("sound");
        assert_eq!((info.width, info.height, info.orientation), (0x4567, 0x1234, 6));
        assert!(info.progressive && info.cmyk);
        assert_eq!(info.icc.as_deref(), Some(&b"abcd"[..]));
        for at in 0..jpeg.len() - 4 {
            assert!(read(&jpeg[..at], 1).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn polyglots_and_text_are_no_pictures() {
        for bytes in [
            &b"<html><body>no</body></html>"[..],
            b"%PDF-1.7",
            b"PK\x03\x04",
            b"#!/bin/sh",
            b"",
            b"\xff\xd8",
            b"II*",
            b"not an <svg",
        ] {
            assert_eq!(read(bytes, 1), Err(HeaderError::Unknown), "{bytes:?}");
        }
        let entities = b"<?xml version='1.0'?><!DOCTYPE svg [<!ENTITY a 'b'>]><svg xmlns='http://www.w3.org/2000/svg'/>";
        assert_eq!(read(entities, 1), Err(HeaderError::Doctype));
    }

    /// Headers of every format, cut everywhere and with wrong bytes everywhere: an answer, never a panic.
    #[test]
    fn no_header_makes_it_panic() {
        let samples: [&[u8]; 9] = [
            b"\xff\xd8\xff\xe1\0\x08Exif\0\0\xff\xc0\0\x0b\x08\0\x04\0\x04\x01\x01\x11\0\xff\xda",
            b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x04\0\0\0\x04\x08\x06\0\0\0crc_\0\0\0\x08acTL\0\0\0\x02\0\0\0\0crc_\0\0\0\0IDAT",
            b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0\x04\0\0\x04\0\0ANMF\x02\0\0\0abEXIF\x04\0\0\0II*\0",
            b"RIFF\x1a\0\0\0WEBPVP8 \x0a\0\0\0\x10\0\0\x9d\x01\x2a\x04\0\x04\0",
            b"GIF89a\x05\0\x07\0\x80\0\0rgbrgb\x21\xf9\x04\0\0\0\0\0\x2c\0\0\0\0\x05\0\x07\0\0\x02\x02\x44\x01\0\x3b",
            b"\0\0\0\x1cftypavif\0\0\0\0avifmif1\0\0\0\x24meta\0\0\0\0\0\0\0\x0epitm\0\0\0\0\0\x01",
            b"II*\0\x08\0\0\0\x02\0\0\x01\x03\0\x01\0\0\0\x04\0\0\0\x01\x01\x03\0\x01\0\0\0\x04\0\0\0",
            b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x04\0\0\0\x04\0\0\0\x01\0\x18\0",
            b"<?xml version='1.0'?><svg width='4' height='4'/>",
        ];
        for sample in samples {
            for at in 0..sample.len() {
                let _any = read(&sample[..at], 3);
                for byte in 0..=255 {
                    let mut wrong = sample.to_vec();
                    wrong[at] = byte;
                    let _any = read(&wrong, 3);
                }
            }
        }
    }
}
