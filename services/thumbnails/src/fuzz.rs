//! What the targets in `fuzz/` call: readers of bytes from outside, with what must hold whatever the bytes.

use std::collections::{BTreeMap, BTreeSet};

use crate::codec::{Meta, jpeg};
use crate::exif;
use crate::header;
use crate::limits::decoded_bytes;
use crate::url::Grammar;
use crate::url::sign::Signer;

/// A path of a request: an answer, and the same one twice.
pub fn url_path(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else { return };
    let grammar = Grammar {
        signer: Signer::new(&[], &[], 32, &[]).expect("nothing to be wrong"),
        presets: BTreeMap::from([
            ("default".to_owned(), "q:70".to_owned()),
            ("p".to_owned(), "pr:default/w:10".to_owned()),
        ]),
        only_presets: false,
        allowed: BTreeSet::new(),
        allows_limits: true,
        base_url: "http://base/".into(),
    };
    let read = grammar.read(path, 1);
    assert_eq!(read, grammar.read(path, 1));
    if let Ok(asked) = read {
        assert!(!asked.source.is_empty() && asked.options.dpr > 0.0);
    }
}

/// A header of any format: sides that are not zero, and an orientation that there is.
pub fn picture_header(data: &[u8]) {
    let Ok(info) = header::read(data, 100) else { return };
    assert!((1..=8).contains(&info.orientation) && info.frames <= 101);
    assert!(info.format == crate::format::Format::Svg || (info.width > 0 && info.height > 0));
    let _fits_in_64_bits = decoded_bytes(&info, 8);
    if let Some(exif) = &info.exif {
        assert_eq!(
            exif::orientation(&exif::upright(exif)).min(8),
            exif::orientation(&exif::upright(exif))
        );
        let _any = exif::copyright(exif);
    }
}

/// Boxes of AVIF: never more bytes than there were.
#[cfg(feature = "avif")]
pub fn avif_boxes(data: &[u8]) {
    if let Some(file) = crate::codec::heif::read(data) {
        assert!(file.color.len() <= data.len());
    }
}

/// A JPEG as a whole, with limits met before: pixels or an error.
pub fn jpeg_file(data: &[u8]) {
    let Ok(info) = header::read(data, 1) else { return };
    if info.format == crate::format::Format::Jpeg && u64::from(info.width) * u64::from(info.height) < 1 << 16 {
        let Ok(picture) = jpeg::decode(data, &info, 8) else { return };
        assert_eq!((picture.width(), picture.height()), (info.width, info.height));
        let settings = jpeg::Settings {
            quality: 50,
            progressive: false,
            full_chroma: false,
        };
        if picture.samples() == crate::picture::Samples::Rgb {
            jpeg::encode(&picture, settings, Meta::default()).expect("what was decoded is encoded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_hold_for_a_few_thousand_inputs() {
        let mut state = 1u64;
        let mut random = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        let seeds: [&[u8]; 5] = [
            b"/_/rs:fill:3:4/g:sm/pr:p/plain/http://a/b@png",
            b"\xff\xd8\xff\xc0\0\x0b\x08\0\x04\0\x04\x01\x01\x11\0\xff\xda\0\x08\x01\x01\0\0\x3f\0\xaa\xff\xd9",
            b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x04\0\0\0\x04\x08\x06\0\0\0crc_\0\0\0\0IDAT",
            b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0\x04\0\0\x04\0\0EXIF\x04\0\0\0II*\0",
            b"\0\0\0\x1cftypavif\0\0\0\0avifmif1\0\0\0\x24meta\0\0\0\0\0\0\0\x0epitm\0\0\0\0\0\x01",
        ];
        for round in 0..4000 {
            let mut data = seeds[round % seeds.len()].to_vec();
            for _ in 0..random() % 5 {
                let at = random() % data.len();
                data[at] = random() as u8;
            }
            data.truncate(data.len() - random() % 8);
            url_path(&data);
            picture_header(&data);
            jpeg_file(&data);
            #[cfg(feature = "avif")]
            avif_boxes(&data);
        }
    }
}
