//! AV1 by rav1e, which is Rust alone: one picture in. Slower than libaom, and larger at its highest speeds.

use rav1e::prelude::*;

use super::{NAME, Planes, Settings};
use crate::codec::CodecError;

/// Encodes one picture.
pub fn encode(planes: &mut Planes, settings: Settings) -> Result<Vec<u8>, CodecError> {
    let mut encoder = EncoderConfig::with_speed_preset(settings.speed.min(9) + 1);
    (encoder.width, encoder.height) = (planes.width as usize, planes.height as usize);
    encoder.bit_depth = 8;
    encoder.still_picture = true;
    encoder.chroma_sampling = if planes.is_grey {
        ChromaSampling::Cs400
    } else {
        ChromaSampling::Cs420
    };
    encoder.pixel_range = PixelRange::Full;
    encoder.color_description = Some(ColorDescription {
        color_primaries: ColorPrimaries::BT709,
        transfer_characteristics: TransferCharacteristics::SRGB,
        matrix_coefficients: MatrixCoefficients::BT601,
    });
    encoder.quantizer = quantizer(settings.quality);
    let fault = |why: String| CodecError::encode(NAME, why);
    let mut context: Context<u8> = Config::new()
        .with_encoder_config(encoder)
        .with_threads(1)
        .new_context()
        .map_err(|why| fault(why.to_string()))?;
    let mut frame = context.new_frame();
    let (luma, color) = planes.lens();
    let columns = [planes.width as usize, planes.half().0, planes.half().0];
    let starts = [0, luma, luma + color];
    let count = if planes.is_grey { 1 } else { 3 };
    for (plane, (start, columns)) in frame.planes.iter_mut().zip(starts.into_iter().zip(columns)).take(count) {
        let samples = planes.samples.get(start..).unwrap_or_default();
        plane.copy_from_raw_u8(samples, columns, 1);
    }
    let mut out = Vec::new();
    let sent = context.send_frame(frame);
    sent.map_err(|why| fault(why.to_string()))?;
    context.flush();
    loop {
        match context.receive_packet() {
            Ok(packet) => out.extend(packet.data),
            Err(EncoderStatus::Encoded) => {}
            Err(EncoderStatus::LimitReached) => break,
            Err(why) => return Err(fault(why.to_string())),
        }
    }
    match out.is_empty() {
        true => Err(fault("the encoder gave nothing".into())),
        false => Ok(out),
    }
}

/// 0 (best) to 255, so that a quality looks about as it does with libaom, whose scale is not linear either.
fn quantizer(quality: u8) -> usize {
    (100 - usize::from(quality.min(100))) * 255 / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(is_grey: bool) -> Planes {
        let len: usize = if is_grey { 64 * 48 } else { 64 * 48 * 3 / 2 };
        let samples = (0..len as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 27) as u8 + 100);
        Planes {
            width: 64,
            height: 48,
            samples: samples.collect(),
            is_grey,
        }
    }

    #[test]
    fn avif_of_less_quality_is_smaller() {
        for is_grey in [false, true] {
            let len = |quality| {
                let coded = encode(&mut noise(is_grey), Settings { quality, speed: 9 }).expect("encodes");
                // The first unit is the header of the sequence, or a delimiter before it (AV1, 5.3.2 and 6.2.2).
                assert!([1, 2].contains(&(coded[0] >> 3 & 15)), "{:x}", coded[0]);
                coded.len()
            };
            assert!(len(20) < len(60) && len(60) < len(95));
        }
    }
}
