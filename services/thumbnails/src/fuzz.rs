//! What the targets in `fuzz/` call: readers of bytes from outside, with what must hold whatever the bytes.

use std::collections::{BTreeMap, BTreeSet};

use crate::codec::{Meta, jpeg, svg};
use crate::header;
use crate::limits::decoded_bytes;
use crate::url::Grammar;
use crate::url::sign::Signer;
use crate::{exif, iptc, xmp};

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
    if let Some(packet) = &info.xmp {
        assert_eq!(xmp::upright(packet).len(), packet.len());
    }
    if let Some(records) = &info.iptc {
        assert_eq!(iptc::records(&iptc::segment(records)), Some(&records[..]));
    }
}

/// Boxes of AVIF: never more bytes than there were.
#[cfg(feature = "avif")]
pub fn avif_boxes(data: &[u8]) {
    if let Some(file) = crate::codec::avif::heif::read(data) {
        assert!(file.color.len() <= data.len());
    }
}

/// A JPEG as a whole, with limits met before: pixels or an error.
pub fn jpeg_file(data: &[u8]) {
    let Ok(info) = header::read(data, 1) else { return };
    if info.format == crate::format::Format::Jpeg && u64::from(info.width) * u64::from(info.height) < 1 << 16 {
        for eighths in [1, 2, 4] {
            if let Some(planes) = crate::codec::scaled::planes(data, info.width, info.height, eighths) {
                assert_eq!(planes.width, (info.width * eighths).div_ceil(8));
                let small = jpeg::decode(data, &info, eighths).expect("our own reader took it");
                assert_eq!((small.width(), small.height()), (planes.width, planes.height));
            }
        }
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

/// An SVG as a whole: refused, or drawn as large as it says.
pub fn svg_file(data: &[u8]) {
    let Ok(drawing) = svg::Drawing::new(data) else { return };
    let (width, height) = drawing.size();
    if width.max(height) <= 64 {
        let Ok(picture) = drawing.draw(1.0) else { return };
        assert_eq!((picture.width(), picture.height()), (width, height));
    }
}

#[cfg(test)]
mod tests {
    use blob_store::fuzz::run;

    use super::*;
    use crate::picture::{Picture, Samples};

    const COUNT: usize = 20_000;

    #[test]
    fn paths_of_urls() {
        let corpus: [&[u8]; 6] = [
            b"/_/rs:fill:3:4/g:sm/pr:p/plain/http://a/b@png",
            b"/_/w:90/crop:0.5:10:fp:0.1:0.2/padding:1:2:3:4/bg:0a0b0c/aHR0cDovL2EvYg.webp",
            b"/oKfUtW34Dvo2BGQehJFR4Nr0_rIjOtdtzJ3QFsUcXH8/rs:auto:300:400:0/g:soea:1:2/wm:0.5:re:1:2:0.3/aHR0/cDov/L2EvYg",
            b"/_/ex:1:no/exar:1/t:10:ff00ff:1:1/fq:jpg:80:webp:70/mb:1000/plain/local:///a%2540%3f@jpg",
            b"/_/dpr:2/z:0.5:2/mw:3/mh:4/el:1/rot:90/fl:1:1/bl:2/sh:1/pix:3/q:5/exp:99/fn:a/att:1/plain/x",
            b"/_/msr:1/msfs:2/maf:3/mafr:4/mrd:5/sm:1/kcr:1/scp:0/ar:0/skp:png:gif/raw:1/cb:x/f:avif/plain/s3://b/k",
        ];
        run(1, COUNT, &corpus.map(<[u8]>::to_vec), url_path);
    }

    fn small_jpeg(progressive: bool, full_chroma: bool) -> Vec<u8> {
        let samples = (0..24 * 24 * 3u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let picture = Picture::new(24, 24, Samples::Rgb, samples).expect("fits");
        let settings = jpeg::Settings {
            quality: 60,
            progressive,
            full_chroma,
        };
        let (exif, icc) = (exif::sample(6, "me"), [7; 100]);
        let meta = Meta {
            icc: Some(&icc),
            exif: Some(&exif),
            xmp: Some(b"<x tiff:Orientation='6'/>"),
            iptc: Some(b"\x1c\x02\x74\0\x02me"),
        };
        jpeg::encode(&picture, settings, meta).expect("encodes")
    }

    #[test]
    fn headers_of_every_format() {
        let crafted: [&[u8]; 10] = [
            b"\xff\xd8\xff\xc0\0\x0b\x08\0\x04\0\x04\x01\x01\x11\0\xff\xda\0\x08\x01\x01\0\0\x3f\0\xaa\xff\xd9",
            b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x04\0\0\0\x04\x08\x06\0\0\0crc_\0\0\0\x08acTL\0\0\0\x02\0\0\0\0crc_\0\0\0\0IDAT",
            b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0\x04\0\0\x04\0\0ANMF\x02\0\0\0abEXIF\x04\0\0\0II*\0",
            b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\x04\x80\x01\x10\0\0\0\0\0\0\0\0",
            b"GIF89a\x05\0\x07\0\x80\0\0rgbrgb\x21\xf9\x04\0\0\0\0\0\x2c\0\0\0\0\x05\0\x07\0\0\x02\x02\x44\x01\0\x3b",
            b"\0\0\0\x1cftypavif\0\0\0\0avifmif1\0\0\0\x24meta\0\0\0\0\0\0\0\x0epitm\0\0\0\0\0\x01",
            b"II*\0\x08\0\0\0\x03\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\x01\x03\0\x01\0\0\0\x04\0\0\0\x01\x01\x03\0\x01\0\0\0\x04\0\0\0",
            b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x04\0\0\0\x04\0\0\0\x01\0\x18\0",
            b"\0\0\x01\0\x02\0\x10\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            b"<?xml version='1.0'?><!DOCTYPE svg [<!ENTITY a 'b'>]><svg width='4' height='4'/>",
        ];
        let mut corpus: Vec<Vec<u8>> = crafted.into_iter().map(<[u8]>::to_vec).collect();
        corpus.push(small_jpeg(false, true));
        run(2, COUNT, &corpus, picture_header);
    }

    #[test]
    fn files_of_jpeg() {
        let corpus = [small_jpeg(false, false), small_jpeg(false, true), small_jpeg(true, false)];
        run(3, COUNT, &corpus, jpeg_file);
    }

    #[test]
    fn files_of_svg() {
        let corpus: [&[u8]; 3] = [
            b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><style>.a{fill:url(#p)}</style><pattern id='p' width='3' height='3'>\
              <circle r='1'/></pattern><path class='a' d='M0 0h9v9z' stroke='red' stroke-dasharray='1 2'/></svg>",
            b"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 9 9'><filter id='f'><feGaussianBlur stdDeviation='2'/><feTurbulence/>\
              <feMorphology radius='2'/></filter><mask id='m'><rect width='5' height='5' fill='#fff'/></mask>\
              <g filter='url(#f)' mask='url(#m)' opacity='.5' transform='rotate(9)'><use href='#u'/><rect id='u' width='7' height='7'/></g></svg>",
            b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><linearGradient id='l'><stop stop-color='red'/><stop offset='1'/>\
              </linearGradient><clipPath id='c'><ellipse rx='4' ry='3'/></clipPath><marker id='k'><path d='M1 1'/></marker>\
              <polyline points='1 2 3 4 5 9' marker-mid='url(#k)' fill='url(#l)' clip-path='url(#c)'/></svg>",
        ];
        run(5, COUNT / 4, &corpus.map(<[u8]>::to_vec), svg_file);
    }

    #[cfg(feature = "avif")]
    #[test]
    fn boxes_of_avif() {
        use crate::codec::avif;
        let samples = vec![90; 16 * 16 * 4];
        let picture = Picture::new(16, 16, Samples::Rgba, samples).expect("fits");
        let file = avif::encode(&picture, avif::Settings { quality: 50, speed: 9 }, Meta::default()).expect("encodes");
        run(4, COUNT, &[file], avif_boxes);
    }
}
