//! GIF: frames put together as their disposal says, and animations out.

use std::io::Cursor;
use std::num::NonZeroU64;

use color_quant::NeuQuant;
use gif::{ColorOutput, DecodeOptions, DisposalMethod, Encoder, MemoryLimit, Repeat};

use super::CodecError;
use crate::header::Info;
use crate::picture::{Frame, Picture};

const NAME: &str = "GIF";
/// One frame of the largest canvas that the format has is 16 GiB; what is let through here met the limits before.
const FRAME_BYTES_MAX: u64 = 1 << 30;
/// A delay of 0 or 1 means "as fast as you can"; browsers make a tenth of a second of it.
const DELAY_DEFAULT_MS: u32 = 100;
const DELAY_MIN_MS: u32 = 20;

/// Decodes up to `frames_max` frames, each given to `each` on the whole canvas. Returns how often the animation repeats (0: for ever).
pub fn decode_frames<E: From<CodecError>>(
    bytes: &[u8],
    info: &Info,
    frames_max: u32,
    mut each: impl FnMut(Frame) -> Result<(), E>,
) -> Result<u32, E> {
    let fault = |error: gif::DecodingError| CodecError::decode(NAME, error);
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::RGBA);
    options.set_memory_limit(MemoryLimit::Bytes(NonZeroU64::new(FRAME_BYTES_MAX).expect("is not zero")));
    let mut decoder = options.read_info(Cursor::new(bytes)).map_err(fault)?;
    let mut canvas = Picture::filled(info.width, info.height, &[0; 4]);
    let mut saved = None;
    for number in 0..frames_max {
        let frame = match decoder.read_next_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            // What breaks off keeps the frames that came before.
            Err(_) if number > 0 => break,
            Err(error) => return Err(fault(error).into()),
        };
        if frame.dispose == DisposalMethod::Previous {
            saved = Some(canvas.clone());
        }
        let patch = Patch {
            left: u32::from(frame.left),
            top: u32::from(frame.top),
            width: u32::from(frame.width),
            height: u32::from(frame.height),
        };
        patch.draw(&mut canvas, Some(&frame.buffer));
        let delay_ms = u32::from(frame.delay) * 10;
        let dispose = frame.dispose;
        each(Frame {
            picture: canvas.clone(),
            delay_ms: if delay_ms < DELAY_MIN_MS { DELAY_DEFAULT_MS } else { delay_ms },
        })?;
        match dispose {
            DisposalMethod::Background => patch.draw(&mut canvas, None),
            DisposalMethod::Previous => canvas = saved.take().unwrap_or(canvas),
            DisposalMethod::Any | DisposalMethod::Keep => (),
        }
    }
    Ok(match decoder.repeat() {
        Repeat::Infinite => 0,
        // The file tells how often it is shown again.
        Repeat::Finite(again) => u32::from(again) + 1,
    })
}

/// Where a frame changes the canvas.
struct Patch {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

impl Patch {
    /// Draws what is not transparent, or clears all.
    fn draw(&self, canvas: &mut Picture, pixels: Option<&[u8]>) {
        let visible = canvas.width().saturating_sub(self.left).min(self.width) as usize * 4;
        if visible == 0 {
            return;
        }
        let at = self.left as usize * 4;
        let rows = canvas.rows_mut().skip(self.top as usize).take(self.height as usize);
        match pixels {
            None => rows.for_each(|row| row[at..at + visible].fill(0)),
            Some(pixels) => {
                for (row, new) in rows.zip(pixels.chunks_exact(self.width as usize * 4)) {
                    for (old, new) in row[at..at + visible].chunks_exact_mut(4).zip(new.chunks_exact(4)) {
                        if new[3] != 0 {
                            old.copy_from_slice(new);
                        }
                    }
                }
            }
        }
    }
}

/// Encodes frames of one size. `loops` 0 is for ever.
pub fn encode_frames(frames: &[Frame], loops: u32) -> Result<Vec<u8>, CodecError> {
    let fault = |error: gif::EncodingError| CodecError::encode(NAME, error);
    let first = frames.first().ok_or_else(|| CodecError::encode(NAME, "no frames"))?;
    let side = |side: u32| u16::try_from(side).map_err(|_| CodecError::encode(NAME, "a side is longer than 65535"));
    let (width, height) = (side(first.picture.width())?, side(first.picture.height())?);
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out, width, height, &[]).map_err(fault)?;
    if frames.len() > 1 {
        let repeat = match u16::try_from(loops) {
            Ok(0) | Err(_) => Repeat::Infinite,
            Ok(loops) => Repeat::Finite(loops - 1),
        };
        if loops != 1 {
            encoder.set_repeat(repeat).map_err(fault)?;
        }
    }
    let has_holes = frames.iter().any(|frame| frame.picture.is_translucent());
    for frame in frames {
        let mut written = quantized(&frame.picture, width, height);
        written.delay = u16::try_from(frame.delay_ms / 10).unwrap_or(u16::MAX);
        // A frame with holes must not show the one before through them.
        written.dispose = if has_holes {
            DisposalMethod::Background
        } else {
            DisposalMethod::Keep
        };
        encoder.write_frame(&written).map_err(fault)?;
    }
    drop(encoder);
    Ok(out)
}

/// In 256 colours, one of them for holes where there are any.
fn quantized(picture: &Picture, width: u16, height: u16) -> gif::Frame<'static> {
    let picture = picture.clone().to_rgba();
    let has_holes = picture.is_translucent();
    let colors = if has_holes { 255 } else { 256 };
    let mut opaque = picture.pixels().to_vec();
    opaque.chunks_exact_mut(4).for_each(|pixel| pixel[3] = 255);
    let quant = NeuQuant::new(10, colors, &opaque);
    let hole = colors as u8;
    let indices = picture
        .pixels()
        .chunks_exact(4)
        .zip(opaque.chunks_exact(4))
        .map(|(pixel, opaque)| match pixel[3] < 128 {
            true if has_holes => hole,
            _ => quant.index_of(opaque) as u8,
        });
    let indices: Vec<u8> = indices.collect();
    let mut palette = quant.color_map_rgb();
    palette.resize(256 * 3, 0);
    gif::Frame::from_palette_pixels(width, height, indices, palette, has_holes.then_some(hole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header;
    use crate::picture::Samples;

    fn decode(bytes: &[u8], frames_max: u32) -> (Vec<Frame>, u32) {
        let info = header::read(bytes, 100).expect("sound");
        let mut frames = Vec::new();
        let loops = decode_frames::<CodecError>(bytes, &info, frames_max, |frame| {
            frames.push(frame);
            Ok(())
        });
        (frames, loops.expect("decodes"))
    }

    /// A canvas of 2 by 1 in red, green and blue; each frame a pixel with its own way to go.
    fn disposals(dispose: DisposalMethod) -> Vec<u8> {
        let palette = [255, 0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0];
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out, 2, 1, &palette).expect("writes");
        let mut frame = |left: u16, pixels: &[u8], dispose| {
            let mut frame = gif::Frame::from_indexed_pixels(pixels.len() as u16, 1, pixels.to_vec(), None);
            (frame.left, frame.dispose, frame.delay) = (left, dispose, 5);
            encoder.write_frame(&frame).expect("writes");
        };
        frame(0, &[0, 0], DisposalMethod::Keep);
        frame(0, &[1], dispose);
        frame(1, &[2], DisposalMethod::Keep);
        drop(encoder);
        out
    }

    #[test]
    fn frames_go_as_their_disposal_says() {
        for (dispose, left_of_third) in [
            (DisposalMethod::Keep, [0, 255, 0, 255]),
            (DisposalMethod::Background, [0, 0, 0, 0]),
            (DisposalMethod::Previous, [255, 0, 0, 255]),
        ] {
            let (frames, _) = decode(&disposals(dispose), 10);
            assert_eq!(frames.len(), 3);
            assert!(
                frames
                    .iter()
                    .all(|frame| frame.picture.samples() == Samples::Rgba && frame.delay_ms == 50)
            );
            assert_eq!(frames[1].picture.pixel(0, 0), [0, 255, 0, 255]);
            assert_eq!(frames[2].picture.pixel(0, 0), left_of_third, "{dispose:?}");
            assert_eq!(frames[2].picture.pixel(1, 0), [0, 0, 255, 255]);
        }
        assert_eq!(decode(&disposals(DisposalMethod::Keep), 2).0.len(), 2);
    }

    #[test]
    fn what_is_written_is_read_with_holes_and_loops() {
        let frames: Vec<Frame> = [[250, 10, 10, 255], [10, 250, 10, 255], [0, 0, 0, 0]]
            .map(|color| Frame {
                picture: Picture::filled(9, 7, &color),
                delay_ms: 120,
            })
            .into();
        for loops in [0, 1, 3] {
            let file = encode_frames(&frames, loops).expect("encodes");
            let (read, again) = decode(&file, 10);
            assert_eq!((read.len(), again), (3, loops));
            assert!(read[0].picture.pixel(4, 3)[0] > 230 && read[1].picture.pixel(4, 3)[1] > 230);
            assert_eq!(read[2].picture.pixel(4, 3)[3], 0);
            assert_eq!(read[0].delay_ms, 120);
            assert!(!decode(&file[..file.len() - 30], 10).0.is_empty());
        }
    }
}
