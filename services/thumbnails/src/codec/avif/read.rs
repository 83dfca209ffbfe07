//! The way back: boxes, planes, colours.

use super::aom::{self, Decoded};
use super::{NAME, heif};
use crate::codec::CodecError;
use crate::picture::{Picture, Samples};

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
