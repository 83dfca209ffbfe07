//! What is too much: decided by numbers of the header, before a pixel is decoded.

use crate::format::Format;
use crate::header::Info;
use crate::url::options::Options;

/// Limits on sources and results.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of a source.
    pub source_bytes: u64,
    /// Megapixels of a source.
    pub resolution: f64,
    /// Frames of an animation that are used; those beyond are left out. 1: stills only.
    pub frames: u32,
    /// Frames that a file may have at all, looked at or not.
    pub frames_file: u32,
    /// Megapixels of all used frames of a source together.
    pub frames_resolution: f64,
    /// Longest side of a result.
    pub result_side: u32,
    /// Bytes that decoding may take, of one picture.
    pub decoded_bytes: u64,
}

/// What is beyond them.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum TooMuch {
    #[error("the source has more than {max} bytes")]
    Bytes { max: u64 },
    #[error("the source has {width} by {height} pixels: more than {max} megapixels")]
    Resolution { width: u32, height: u32, max: f64 },
    #[error("the source has more than {max} frames")]
    Frames { max: u32 },
    #[error("the frames of the source have more than {max} megapixels together")]
    FramesResolution { max: f64 },
    #[error("the result would have {width} by {height} pixels: more than {max} on a side")]
    Result { width: u64, height: u64, max: u32 },
    #[error("the source would take {bytes} bytes to decode: more than {max}")]
    Memory { bytes: u64, max: u64 },
}

const MEGA: f64 = 1e6;

impl Limits {
    /// With what the URL or a preset says instead.
    pub fn with(mut self, options: &Options) -> Limits {
        set(&mut self.source_bytes, options.max_src_file_size);
        set(&mut self.resolution, options.max_src_resolution);
        set(&mut self.frames, options.max_animation_frames);
        set(&mut self.frames_resolution, options.max_animation_frame_resolution);
        set(&mut self.result_side, options.max_result_dimension);
        self
    }

    /// Whether a source with this header may be decoded.
    pub fn check(&self, info: &Info) -> Result<(), TooMuch> {
        let (width, height) = (info.width, info.height);
        let pixels = f64::from(width) * f64::from(height);
        if pixels > self.resolution * MEGA {
            return Err(TooMuch::Resolution {
                width,
                height,
                max: self.resolution,
            });
        }
        if info.frames > self.frames_file {
            return Err(TooMuch::Frames { max: self.frames_file });
        }
        let used = info.frames.min(self.frames);
        if used > 1 && pixels * f64::from(used) > self.frames_resolution * MEGA {
            return Err(TooMuch::FramesResolution {
                max: self.frames_resolution,
            });
        }
        Ok(())
    }

    /// Whether decoding it, to `eighths` of its sides, fits in memory.
    pub fn check_memory(&self, info: &Info, eighths: u32) -> Result<u64, TooMuch> {
        let bytes = decoded_bytes(info, eighths);
        match bytes > self.decoded_bytes {
            true => Err(TooMuch::Memory {
                bytes,
                max: self.decoded_bytes,
            }),
            false => Ok(bytes),
        }
    }

    /// Whether a result of this size is made.
    pub fn check_result(&self, (width, height): (u64, u64)) -> Result<(), TooMuch> {
        match width.max(height) > u64::from(self.result_side) {
            true => Err(TooMuch::Result {
                width,
                height,
                max: self.result_side,
            }),
            false => Ok(()),
        }
    }
}

fn set<T: Copy>(limit: &mut T, own: Option<T>) {
    if let Some(own) = own {
        *limit = own;
    }
}

/// Bytes that a decoder takes at most, pixels and what it keeps beside them.
pub fn decoded_bytes(info: &Info, eighths: u32) -> u64 {
    // What no machine has stays what no machine has when it is multiplied.
    let pixels = (u64::from(info.width) * u64::from(info.height)).min(u64::MAX >> 12);
    match info.format {
        Format::Jpeg => {
            let eighths = u64::from(eighths);
            let samples = if info.cmyk { 4 } else { 3 };
            // A progressive file is held as coefficients, two bytes each, colour at up to full resolution.
            let coefficients = if info.progressive { pixels * 2 * samples } else { 0 };
            // Below full size there may be planes beside the pixels.
            let copies = if eighths < 8 { 2 } else { 1 };
            pixels * samples * copies * eighths * eighths / 64 + coefficients
        }
        // Samples of 16 bits, then those of 8.
        Format::Tiff | Format::Bmp | Format::Ico => pixels * 12,
        Format::Png => pixels * 5,
        // Planes of the decoder, then pixels.
        Format::Webp | Format::Avif => pixels * 7,
        // Canvas, its copy, the frame.
        Format::Gif => pixels * 12,
        Format::Svg => pixels * 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn limits() -> Limits {
        Limits {
            source_bytes: 1 << 20,
            resolution: 50.0,
            frames: 10,
            frames_file: 1000,
            frames_resolution: 20.0,
            result_side: 8192,
            decoded_bytes: 1 << 28,
        }
    }

    fn info(format: Format, width: u32, height: u32, frames: u32) -> Info {
        Info {
            format,
            width,
            height,
            orientation: 1,
            frames,
            progressive: false,
            alpha: false,
            cmyk: false,
            exif: None,
            xmp: None,
            iptc: None,
            icc: None,
        }
    }

    #[test]
    fn bombs_are_refused_by_their_numbers() {
        assert!(limits().check(&info(Format::Png, 10_000, 5_000, 1)).is_ok());
        for (format, width, height, frames) in [
            (Format::Png, u32::MAX, u32::MAX, 1),
            (Format::Jpeg, 65_535, 65_535, 1),
            (Format::Gif, 10, 10, 1001),
            (Format::Gif, 2000, 2000, 10),
        ] {
            assert!(limits().check(&info(format, width, height, frames)).is_err());
        }
        assert!(limits().check(&info(Format::Gif, 2000, 2000, 1)).is_ok());
        assert!(limits().check_result((8193, 1)).is_err());
        assert!(limits().check_memory(&info(Format::Png, 10_000, 10_000, 1), 8).is_err());
        assert_eq!(
            limits().check_memory(&info(Format::Jpeg, 10_000, 10_000, 1), 1),
            Ok(9_375_000)
        );
    }

    #[test]
    fn urls_may_say_otherwise() {
        let options = Options {
            max_src_resolution: Some(0.1),
            max_animation_frames: Some(1),
            ..Options::default()
        };
        let limits = limits().with(&options);
        assert!(limits.check(&info(Format::Png, 400, 400, 1)).is_err());
        assert_eq!(limits.frames, 1);
    }
}
