//! PNG: every colour type, depth and interlacing in; true colour or a palette out.

use std::io::Cursor;

use color_quant::NeuQuant;
use png::{BitDepth, ColorType, Compression, Decoder, Encoder, Limits, Transformations};

use super::{CodecError, Meta};
use crate::picture::{Picture, Samples};

const NAME: &str = "PNG";
/// Beside the picture: rows, text, profile.
const EXTRA_BYTES: usize = 16 << 20;

/// Decodes the first picture; samples of 16 bits become 8, palettes and greys become colours.
pub fn decode(bytes: &[u8]) -> Result<Picture, CodecError> {
    let fault = |error: png::DecodingError| CodecError::decode(NAME, error);
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: EXTRA_BYTES });
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(fault)?;
    let len = reader
        .output_buffer_size()
        .ok_or_else(|| CodecError::decode(NAME, "too large"))?;
    let mut pixels = vec![0; len];
    let frame = reader.next_frame(&mut pixels).map_err(fault)?;
    pixels.truncate(frame.buffer_size());
    let (samples, pixels) = match frame.color_type {
        ColorType::Rgb => (Samples::Rgb, pixels),
        ColorType::Rgba => (Samples::Rgba, pixels),
        ColorType::Grayscale => (Samples::Rgb, pixels.iter().flat_map(|grey| [*grey; 3]).collect()),
        ColorType::GrayscaleAlpha => (
            Samples::Rgba,
            pixels
                .chunks_exact(2)
                .flat_map(|pixel| [pixel[0], pixel[0], pixel[0], pixel[1]])
                .collect(),
        ),
        ColorType::Indexed => return Err(CodecError::decode(NAME, "the palette was not expanded")),
    };
    let info = reader.info();
    // A profile of greys does not fit the colours that we made of them.
    let icc = match info.color_type {
        ColorType::Grayscale | ColorType::GrayscaleAlpha => None,
        _ => info.icc_profile.as_ref().map(|icc| icc.as_ref().into()),
    };
    let mut picture =
        Picture::new(frame.width, frame.height, samples, pixels).ok_or_else(|| CodecError::decode(NAME, "rows are missing"))?;
    picture.icc = icc;
    Ok(picture)
}

/// How a PNG is written.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Colours of the palette; 0: true colour.
    pub colors: usize,
}

/// Encodes.
pub fn encode(picture: &Picture, settings: Settings, meta: Meta<'_>) -> Result<Vec<u8>, CodecError> {
    let fault = |error: png::EncodingError| CodecError::encode(NAME, error);
    let mut info = png::Info::with_size(picture.width(), picture.height());
    info.icc_profile = meta.icc.map(|icc| icc.to_vec().into());
    info.exif_metadata = meta.exif.map(|exif| exif.to_vec().into());
    info.bit_depth = BitDepth::Eight;
    let rows;
    let data = if settings.colors > 0 {
        let palette = Palette::new(picture, settings.colors);
        info.color_type = ColorType::Indexed;
        info.palette = Some(palette.colors.into());
        info.trns = palette.alphas.map(Into::into);
        rows = palette.indices;
        &rows[..]
    } else {
        info.color_type = match picture.samples() {
            Samples::Rgb => ColorType::Rgb,
            Samples::Rgba => ColorType::Rgba,
            Samples::Cmyk => return Err(CodecError::encode(NAME, "wanted red, green and blue")),
        };
        picture.pixels()
    };
    let mut out = Vec::new();
    let mut encoder = Encoder::with_info(&mut out, info).map_err(fault)?;
    encoder.set_compression(Compression::Fast);
    let mut writer = encoder.write_header().map_err(fault)?;
    writer.write_image_data(data).map_err(fault)?;
    writer.finish().map_err(fault)?;
    Ok(out)
}

/// A picture in few colours.
struct Palette {
    indices: Vec<u8>,
    /// Three bytes a colour.
    colors: Vec<u8>,
    alphas: Option<Vec<u8>>,
}

impl Palette {
    /// By a neural net over every tenth pixel (A. Dekker, Kohonen neural networks for optimal colour quantization, 1994).
    fn new(picture: &Picture, colors: usize) -> Palette {
        let picture = picture.clone().to_rgba();
        let quant = NeuQuant::new(10, colors.clamp(64, 256), picture.pixels());
        let map = quant.color_map_rgba();
        let indices = picture
            .pixels()
            .chunks_exact(4)
            .map(|pixel| quant.index_of(pixel) as u8)
            .collect();
        let has_alpha = map.chunks_exact(4).any(|color| color[3] != 255);
        Palette {
            indices,
            colors: map.chunks_exact(4).flat_map(|color| [color[0], color[1], color[2]]).collect(),
            alphas: has_alpha.then(|| map.chunks_exact(4).map(|color| color[3]).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(color: ColorType, depth: BitDepth, data: &[u8], set: impl FnOnce(&mut png::Info<'_>)) -> Vec<u8> {
        let mut info = png::Info::with_size(2, 1);
        (info.color_type, info.bit_depth) = (color, depth);
        set(&mut info);
        let mut out = Vec::new();
        let encoder = Encoder::with_info(&mut out, info).expect("sound");
        let mut writer = encoder.write_header().expect("writes");
        writer.write_image_data(data).expect("writes");
        writer.finish().expect("writes");
        out
    }

    #[test]
    fn every_kind_becomes_eight_bits_of_colour() {
        let none = |_: &mut png::Info<'_>| ();
        for (file, samples, pixels) in [
            (
                write(ColorType::Rgb, BitDepth::Eight, &[1, 2, 3, 4, 5, 6], none),
                Samples::Rgb,
                vec![1, 2, 3, 4, 5, 6],
            ),
            (
                write(ColorType::Rgb, BitDepth::Sixteen, &[1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0], none),
                Samples::Rgb,
                vec![1, 2, 3, 4, 5, 6],
            ),
            (
                write(ColorType::Grayscale, BitDepth::One, &[0b0100_0000], none),
                Samples::Rgb,
                vec![0, 0, 0, 255, 255, 255],
            ),
            (
                write(ColorType::GrayscaleAlpha, BitDepth::Eight, &[7, 8, 9, 10], none),
                Samples::Rgba,
                vec![7, 7, 7, 8, 9, 9, 9, 10],
            ),
            (
                write(ColorType::Indexed, BitDepth::Four, &[0x10], |info| {
                    info.palette = Some(vec![1, 2, 3, 4, 5, 6].into());
                    info.trns = Some(vec![9].into());
                }),
                Samples::Rgba,
                vec![4, 5, 6, 255, 1, 2, 3, 9],
            ),
        ] {
            let picture = decode(&file).expect("decodes");
            assert_eq!((picture.samples(), picture.pixels()), (samples, &pixels[..]));
            for cut in [file.len() / 2, 40, 20] {
                assert!(decode(&file[..cut]).is_err());
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let pixels = (0..64 * 64)
            .flat_map(|i: u32| [i as u8, (i >> 6) as u8 * 4, 0, if i.is_multiple_of(3) { 0 } else { 255 }])
            .collect();
        let picture = Picture::new(64, 64, Samples::Rgba, pixels).expect("fits");
        let meta = Meta {
            icc: Some(b"profile"),
            exif: None,
        };
        let file = encode(&picture, Settings { colors: 0 }, meta).expect("encodes");
        let read = decode(&file).expect("decodes");
        assert_eq!(read.pixels(), picture.pixels());
        assert_eq!(read.icc.as_deref(), Some(&b"profile"[..]));
        let few = encode(&picture, Settings { colors: 64 }, Meta::default()).expect("encodes");
        assert!(few.len() < file.len(), "{} of {}", few.len(), file.len());
        assert!(decode(&few).expect("decodes").is_translucent());
    }
}
