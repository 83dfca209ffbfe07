//! PNG: every colour type, depth and interlacing in; true colour or a palette out.

use std::io::Cursor;

use color_quant::NeuQuant;
use png::text_metadata::ITXtChunk;
use png::{BitDepth, ColorType, Compression, Decoder, Encoder, Limits, Reader, Transformations};

use super::{CodecError, Meta};
use crate::picture::{Picture, Samples};
use crate::xmp;

const NAME: &str = "PNG";
/// Beside the picture: rows, text, profile.
const EXTRA_BYTES: usize = 16 << 20;

fn fault(error: png::DecodingError) -> CodecError {
    CodecError::decode(NAME, error)
}

/// Decodes the first picture; samples of 16 bits become 8, palettes and greys become colours. With `shrink` each square of so many pixels
/// (at most 8) each way becomes their mean, so that the whole is never in memory; pictures with alpha and interlaced ones stay as they are.
pub fn decode(bytes: &[u8], shrink: u32) -> Result<Picture, CodecError> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: EXTRA_BYTES });
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(fault)?;
    let (width, height, samples, pixels) = match reader.output_color_type().0 {
        ColorType::Rgb if shrink > 1 && !reader.info().interlaced => shrunk::<3>(&mut reader, shrink)?,
        ColorType::Grayscale if shrink > 1 && !reader.info().interlaced => shrunk::<1>(&mut reader, shrink)?,
        _ => whole(&mut reader)?,
    };
    let info = reader.info();
    // A profile of greys does not fit the colours that we made of them.
    let icc = match info.color_type {
        ColorType::Grayscale | ColorType::GrayscaleAlpha => None,
        _ => info.icc_profile.as_ref().map(|icc| icc.as_ref().into()),
    };
    let mut picture = Picture::new(width, height, samples, pixels).ok_or_else(|| CodecError::decode(NAME, "rows are missing"))?;
    picture.icc = icc;
    Ok(picture)
}

/// Width, height, and pixels of some kind.
type Pixels = (u32, u32, Samples, Vec<u8>);

fn whole(reader: &mut Reader<Cursor<&[u8]>>) -> Result<Pixels, CodecError> {
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
    Ok((frame.width, frame.height, samples, pixels))
}

/// Means of squares of `shrink` pixels each way, smaller ones at the right and the lower edge.
fn shrunk<const CHANNELS: usize>(reader: &mut Reader<Cursor<&[u8]>>, shrink: u32) -> Result<Pixels, CodecError> {
    let (width, height) = (reader.info().width, reader.info().height);
    let (columns, rows) = (width.div_ceil(shrink), height.div_ceil(shrink));
    // Of so few rows of bytes that 16 bits hold them.
    let mut sums = vec![0u16; width as usize * CHANNELS];
    let mut pixels = Vec::with_capacity(columns as usize * rows as usize * 3);
    for y in 0..rows {
        let count = shrink.min(height - y * shrink);
        for _ in 0..count {
            let row = reader.next_row().map_err(fault)?;
            let row = row.ok_or_else(|| CodecError::decode(NAME, "rows are missing"))?;
            sums.iter_mut()
                .zip(row.data())
                .for_each(|(sum, sample)| *sum += u16::from(*sample));
        }
        for square in sums.chunks(shrink as usize * CHANNELS) {
            let area = (square.len() / CHANNELS) as u32 * count;
            let mut total = [area / 2; CHANNELS];
            for pixel in square.chunks_exact(CHANNELS) {
                total.iter_mut().zip(pixel).for_each(|(total, sum)| *total += u32::from(*sum));
            }
            let mean = total.map(|total| match area.is_power_of_two() {
                true => total >> area.trailing_zeros(),
                false => total / area,
            } as u8);
            pixels.extend((0..3).map(|channel| mean[channel % CHANNELS]));
        }
        sums.fill(0);
    }
    Ok((columns, rows, Samples::Rgb, pixels))
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
    if let Some(packet) = meta.xmp.and_then(|packet| str::from_utf8(packet).ok()) {
        info.utf8_text.push(ITXtChunk::new(xmp::KEYWORD, packet));
    }
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
            let picture = decode(&file, 1).expect("decodes");
            assert_eq!((picture.samples(), picture.pixels()), (samples, &pixels[..]));
            for cut in [file.len() / 2, 40, 20] {
                assert!(decode(&file[..cut], 1).is_err());
            }
        }
    }

    #[test]
    fn squares_become_their_means() {
        let sample = |x: u32, y: u32, channel: u32| (x * 7 + y * 11 + channel * 50) as u8;
        for (width, height) in [(1, 1), (8, 8), (19, 13), (16, 1), (3, 40)] {
            for (samples, channels) in [(ColorType::Rgb, 3), (ColorType::Grayscale, 1)] {
                let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
                let pixels: Vec<u8> = places
                    .flat_map(|(x, y)| (0..channels).map(move |channel| sample(x, y, channel)))
                    .collect();
                let file = write(samples, BitDepth::Eight, &pixels, |info| {
                    (info.width, info.height) = (width, height)
                });
                for shrink in [2, 4, 8] {
                    let picture = decode(&file, shrink).expect("decodes");
                    assert_eq!(
                        (picture.width(), picture.height()),
                        (width.div_ceil(shrink), height.div_ceil(shrink))
                    );
                    let (x, y) = (picture.width() - 1, picture.height() - 1);
                    let square = |side: u32, at: u32| at * shrink..side.min((at + 1) * shrink);
                    for channel in 0..3 {
                        let all: Vec<u32> = square(height, y)
                            .flat_map(|y| square(width, x).map(move |x| sample(x, y, channel % channels).into()))
                            .collect();
                        let mean = (all.iter().sum::<u32>() + all.len() as u32 / 2) / all.len() as u32;
                        assert_eq!(
                            u32::from(picture.pixel(x, y)[channel as usize]),
                            mean,
                            "{width}x{height} by {shrink}"
                        );
                    }
                    assert!(decode(&file[..file.len() / 2], shrink).is_err());
                }
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
            ..Meta::default()
        };
        let file = encode(&picture, Settings { colors: 0 }, meta).expect("encodes");
        let read = decode(&file, 1).expect("decodes");
        assert_eq!(read.pixels(), picture.pixels());
        assert_eq!(read.icc.as_deref(), Some(&b"profile"[..]));
        let few = encode(&picture, Settings { colors: 64 }, Meta::default()).expect("encodes");
        assert!(few.len() < file.len(), "{} of {}", few.len(), file.len());
        assert!(decode(&few, 1).expect("decodes").is_translucent());
    }
}
