//! AVIF: pictures of AV1 in boxes, with colours turned from and to planes.

use avif_serialize::Aviffy;
use avif_serialize::constants::MatrixCoefficients;

use super::aom::{self, Decoded, Planes};
use super::{CodecError, Meta, heif};
use crate::picture::{Picture, Samples};

const NAME: &str = "AVIF";

/// How an AVIF is written.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub quality: u8,
    /// 9 is fast, 0 is small.
    pub speed: u8,
}

/// Encodes. There is no room for a profile: colours must be sRGB.
pub fn encode(picture: &Picture, settings: Settings, meta: Meta<'_>) -> Result<Vec<u8>, CodecError> {
    if picture.samples() == Samples::Cmyk {
        return Err(CodecError::encode(NAME, "wanted red, green and blue"));
    }
    let quantizer = |quality: u8| ((100 - u32::from(quality.min(100))) * 63 / 100) as u8;
    let color = aom::encode(&mut planes(picture), quantizer(settings.quality), settings.speed)?;
    let alpha = match picture.samples() {
        // Edges of holes are seen more than noise in colours.
        Samples::Rgba => Some(aom::encode(
            &mut alpha(picture),
            quantizer(settings.quality.max(80)),
            settings.speed,
        )?),
        _ => None,
    };
    let mut writer = Aviffy::new();
    writer
        .set_matrix_coefficients(MatrixCoefficients::Bt601)
        .set_full_color_range(true)
        .set_chroma_subsampling((true, true));
    if let Some(exif) = meta.exif {
        writer.set_exif(exif.to_vec());
    }
    Ok(writer.to_vec(&color, alpha.as_deref(), picture.width(), picture.height(), 8))
}

/// BT.601 in full range, in 16 bits of fraction.
fn planes(picture: &Picture) -> Planes {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let bytes = picture.samples().bytes();
    let mut samples = Vec::with_capacity(width * height * 3 / 2 + width + height + 1);
    for pixel in picture.pixels().chunks_exact(bytes) {
        let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
        samples.push(((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16) as u8);
    }
    let (mut blue_plane, mut red_plane) = (Vec::new(), Vec::new());
    let rows: Vec<&[u8]> = picture.rows().collect();
    for pair in rows.chunks(2) {
        for x in (0..width).step_by(2) {
            let mut sums = [0i32; 3];
            let mut count = 0;
            for row in pair {
                for pixel in row.chunks_exact(bytes).skip(x).take(2) {
                    sums.iter_mut()
                        .zip(pixel)
                        .for_each(|(sum, sample)| *sum += i32::from(*sample));
                    count += 1;
                }
            }
            let [red, green, blue] = sums;
            let scaled = |sum: i32| ((sum / count + 32768) >> 16) + 128;
            blue_plane.push(scaled(-11059 * red - 21709 * green + 32768 * blue).clamp(0, 255) as u8);
            red_plane.push(scaled(32768 * red - 27439 * green - 5329 * blue).clamp(0, 255) as u8);
        }
    }
    samples.extend(blue_plane);
    samples.extend(red_plane);
    Planes {
        width: picture.width(),
        height: picture.height(),
        samples,
        is_grey: false,
    }
}

fn alpha(picture: &Picture) -> Planes {
    Planes {
        width: picture.width(),
        height: picture.height(),
        samples: picture.pixels().chunks_exact(4).map(|pixel| pixel[3]).collect(),
        is_grey: true,
    }
}

/// Decodes the picture of the file, as it is stored.
pub fn decode(bytes: &[u8]) -> Result<Picture, CodecError> {
    let fault = |why: &str| CodecError::decode(NAME, why);
    let file = heif::read(bytes).ok_or_else(|| fault("damaged boxes"))?;
    let color = aom::decode(&file.color, file.width, file.height)?;
    let alpha = match &file.alpha {
        Some(alpha) => Some(aom::decode(alpha, file.width, file.height)?),
        None => None,
    };
    let pixels = colors(&color, alpha.as_ref()).ok_or_else(|| fault("colours of a kind that is not read"))?;
    let samples = if alpha.is_some() { Samples::Rgba } else { Samples::Rgb };
    Picture::new(file.width, file.height, samples, pixels).ok_or_else(|| fault("no pixels"))
}

/// Weights of red and blue in luma, by the number of the matrix (ITU-T H.273, table 4).
fn weights(matrix: u32) -> Option<(f32, f32)> {
    match matrix {
        1 => Some((0.2126, 0.0722)),
        // What is not told is BT.601 for pictures.
        2 | 5 | 6 => Some((0.299, 0.114)),
        9 => Some((0.2627, 0.0593)),
        _ => None,
    }
}

fn colors(color: &Decoded, alpha: Option<&Decoded>) -> Option<Vec<u8>> {
    let max = ((1u32 << color.depth) - 1) as f32;
    let step = max / 255.0;
    // Where black is, and how far white and full colour are from it.
    let (black, luma_range, color_range) = match color.is_full_range {
        true => (0.0, max, max),
        false => (16.0 * step, 219.0 * step, 224.0 * step),
    };
    let middle = (1u32 << (color.depth - 1)) as f32;
    let is_identity = color.matrix == 0;
    let (red_weight, blue_weight) = if is_identity { (0.0, 0.0) } else { weights(color.matrix)? };
    let green_weight = 1.0 - red_weight - blue_weight;
    let width = color.width as usize;
    let half_width = if color.half.0 { width.div_ceil(2) } else { width };
    let luma = color.planes.first()?;
    let mut pixels = Vec::with_capacity(luma.len() * if alpha.is_some() { 4 } else { 3 });
    for (at, sample) in luma.iter().enumerate() {
        let (x, y) = (at % width, at / width);
        let light = (f32::from(*sample) - black) / luma_range;
        let place = (if color.half.1 { y / 2 } else { y }) * half_width + if color.half.0 { x / 2 } else { x };
        let rgb = if color.is_grey {
            [light; 3]
        } else {
            let (blue, red) = (*color.planes.get(1)?.get(place)?, *color.planes.get(2)?.get(place)?);
            if is_identity {
                let part = |sample: u16| (f32::from(sample) - black) / luma_range;
                [part(red), light, part(blue)]
            } else {
                let part = |sample: u16| (f32::from(sample) - middle) / color_range;
                let red = light + 2.0 * (1.0 - red_weight) * part(red);
                let blue = light + 2.0 * (1.0 - blue_weight) * part(blue);
                [red, (light - red_weight * red - blue_weight * blue) / green_weight, blue]
            }
        };
        pixels.extend(rgb.map(|part| (part * 255.0).round().clamp(0.0, 255.0) as u8));
        if let Some(alpha) = alpha {
            let max = (1u32 << alpha.depth) - 1;
            let sample = u32::from(*alpha.planes.first()?.get(at)?);
            pixels.push(((sample * 255 + max / 2) / max).min(255) as u8);
        }
    }
    Some(pixels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header;

    fn picture(alpha: bool) -> Picture {
        let pixels = (0..45u32).flat_map(|y| {
            (0..61u32).flat_map(move |x| {
                let pixel = [(x * 4) as u8, (y * 5) as u8, 100, if x < 20 { 0 } else { 255 }];
                pixel.into_iter().take(if alpha { 4 } else { 3 })
            })
        });
        Picture::new(61, 45, if alpha { Samples::Rgba } else { Samples::Rgb }, pixels.collect()).expect("fits")
    }

    #[test]
    fn what_is_written_is_read() {
        for alpha in [false, true] {
            let file = encode(&picture(alpha), Settings { quality: 90, speed: 9 }, Meta::default()).expect("encodes");
            let info = header::read(&file, 1).expect("sound");
            assert_eq!((info.width, info.height, info.alpha, info.orientation), (61, 45, alpha, 1));
            let read = decode(&file).expect("decodes");
            for (x, y) in [(30, 20), (45, 30), (58, 2)] {
                let near = read
                    .pixel(x, y)
                    .iter()
                    .zip(picture(alpha).pixel(x, y))
                    .all(|(read, wanted)| read.abs_diff(*wanted) < 16);
                assert!(near, "{x},{y}: {:?}", read.pixel(x, y));
            }
            if alpha {
                assert!(read.pixel(5, 5)[3] < 10);
            }
            for cut in [file.len() / 2, file.len() - 20] {
                assert!(decode(&file[..cut]).is_err());
            }
        }
    }
}
