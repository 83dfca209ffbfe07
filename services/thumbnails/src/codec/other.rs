//! Formats that are only read: TIFF, BMP and ICO, by the decoders of the `image` crate.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, Limits};

use super::CodecError;
use crate::format::Format;
use crate::header::Info;
use crate::picture::{Picture, Samples};

/// Memory beside the pixels: strips, tables.
const EXTRA_BYTES: u64 = 64 << 20;

/// Decodes the first picture of a TIFF, a BMP, or the largest of an ICO.
pub fn decode(bytes: &[u8], info: &Info) -> Result<Picture, CodecError> {
    let fault = |error: image::ImageError| CodecError::decode(info.format.name(), error);
    let input = Cursor::new(bytes);
    match info.format {
        Format::Tiff => finish(image::codecs::tiff::TiffDecoder::new(input).map_err(fault)?, info),
        Format::Bmp => finish(image::codecs::bmp::BmpDecoder::new(input).map_err(fault)?, info),
        Format::Ico => finish(image::codecs::ico::IcoDecoder::new(input).map_err(fault)?, info),
        _ => Err(CodecError::decode(info.format.name(), "not by this decoder")),
    }
}

fn finish(mut decoder: impl ImageDecoder, info: &Info) -> Result<Picture, CodecError> {
    let name = info.format.name();
    let fault = |error: image::ImageError| CodecError::decode(name, error);
    // The limits were met by what our own reader of headers found: no other picture is decoded. Icons may hold a PNG of any size.
    let (width, height) = decoder.dimensions();
    let is_expected = match info.format {
        Format::Ico => width <= 4096 && height <= 4096,
        _ => (width, height) == (info.width, info.height),
    };
    if !is_expected {
        return Err(CodecError::decode(name, "header and picture differ in size"));
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(u64::from(width) * u64::from(height) * 16 + EXTRA_BYTES);
    decoder.set_limits(limits).map_err(fault)?;
    let icc = decoder.icc_profile().ok().flatten();
    let image = DynamicImage::from_decoder(decoder).map_err(fault)?;
    let (samples, pixels) = match image.color().has_alpha() {
        true => (Samples::Rgba, image.into_rgba8().into_raw()),
        false => (Samples::Rgb, image.into_rgb8().into_raw()),
    };
    let mut picture = Picture::new(width, height, samples, pixels).ok_or_else(|| CodecError::decode(name, "no pixels"))?;
    picture.icc = icc.map(Into::into);
    Ok(picture)
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, RgbImage, RgbaImage};

    use super::*;
    use crate::header;

    fn write(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        image.write_to(&mut out, format).expect("writes");
        out.into_inner()
    }

    #[test]
    fn each_is_read() {
        let rgb = DynamicImage::from(RgbImage::from_fn(20, 10, |x, y| [x as u8 * 10, y as u8 * 20, 7].into()));
        let rgba = DynamicImage::from(RgbaImage::from_fn(20, 10, |x, y| [x as u8 * 10, y as u8 * 20, 7, 99].into()));
        for (image, format, wanted) in [
            (&rgb, ImageFormat::Tiff, Format::Tiff),
            (&rgb, ImageFormat::Bmp, Format::Bmp),
            (&rgba, ImageFormat::Tiff, Format::Tiff),
            (&rgba, ImageFormat::Ico, Format::Ico),
        ] {
            let file = write(image, format);
            let info = header::read(&file, 1).expect("sound");
            assert_eq!((info.format, info.width, info.height), (wanted, 20, 10));
            let picture = decode(&file, &info).expect("decodes");
            assert_eq!(&picture.pixel(5, 4)[..3], [50, 80, 7]);
            for cut in 1..file.len() {
                let _any = header::read(&file[..cut], 1).map(|info| decode(&file[..cut], &info));
            }
        }
    }
}
