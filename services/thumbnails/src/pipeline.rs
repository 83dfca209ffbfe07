//! From the bytes of a source to those of a result: header, limits, plan, decoding no more than is needed, operations, encoding.

use std::sync::Arc;

use crate::codec::{CodecError, Meta, gif, jpeg, other, png, svg, webp};
use crate::format::Format;
use crate::geometry::{self, Plan};
use crate::header::{self, HeaderError, Info};
use crate::limits::{Limits, TooMuch};
use crate::ops::resize::{Part, resize};
use crate::ops::{color, filter, smart, trim, watermark};
use crate::picture::{Frame, Picture, Samples};
use crate::url::options::{Anchor, Gravity, Options};
use crate::{exif, xmp};

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The client left, or time is up.
    #[error("cancelled")]
    Cancelled,
}

/// How results are written unless the URL says otherwise.
#[derive(Clone, Debug)]
pub struct Defaults {
    pub limits: Limits,
    pub quality_jpeg: u8,
    pub quality_webp: u8,
    pub quality_avif: u8,
    pub jpeg_progressive: bool,
    pub webp_method: u8,
    pub avif_speed: u8,
    /// Colours of PNG palettes; 0: true colour.
    pub png_colors: usize,
    /// How much larger than the result a JPEG is decoded at least.
    pub decode_margin: f64,
    pub auto_rotate: bool,
    pub strip_metadata: bool,
    pub keep_copyright: bool,
    pub strip_color_profile: bool,
    pub watermark: Option<Arc<Picture>>,
}

/// A result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub format: Format,
    pub bytes: Vec<u8>,
    pub width: u32,
    pub height: u32,
}

/// One piece of work.
pub struct Job<'a> {
    pub bytes: &'a [u8],
    pub options: &'a Options,
    pub defaults: &'a Defaults,
    /// What to write where the URL does not say and the client takes it, by preference.
    pub accepted: &'a [Format],
    /// Whether to stop; asked between steps.
    pub cancelled: &'a dyn Fn() -> bool,
}

/// What the header says about the work to come.
pub struct Estimate {
    pub info: Info,
    /// Memory at the peak.
    pub bytes: u64,
}

impl Job<'_> {
    fn limits(&self) -> Limits {
        self.defaults.limits.with(self.options)
    }

    /// Reads the header and meets the limits; takes microseconds, except for an SVG.
    pub fn estimate(&self) -> Result<Estimate, Error> {
        let limits = self.limits();
        if self.bytes.len() as u64 > limits.source_bytes {
            return Err(TooMuch::Bytes {
                max: limits.source_bytes,
            }
            .into());
        }
        let info = header::read(self.bytes, limits.frames_file)?;
        limits.check(&info)?;
        if info.format == Format::Svg {
            let side = u64::from(limits.result_side);
            let pixels = (side * side).min(16 << 20);
            return Ok(Estimate { info, bytes: pixels * 8 });
        }
        let upright = self.upright(&info);
        let plan = Plan::new(upright.0, upright.1, self.options, false);
        limits.check_result(plan.result())?;
        let decoded = limits.check_memory(&info, self.eighths(&info, &plan))?;
        let (width, height) = plan.result();
        let frames = u64::from(self.frames(&info));
        let scaled = u64::from(plan.scaled.0) * u64::from(plan.scaled.1) * 8;
        Ok(Estimate {
            bytes: decoded + scaled + width * height * 4 * (frames + 1),
            info,
        })
    }

    /// The picture alone, as a watermark is wanted.
    pub fn picture(&self) -> Result<Picture, Error> {
        let Estimate { info, .. } = self.estimate()?;
        let (picture, plan) = self.decode(&info)?;
        self.finish(picture, &plan)
    }

    /// Does it.
    pub fn run(&self) -> Result<Output, Error> {
        let Estimate { info, .. } = self.estimate()?;
        if self.options.raw || self.options.skip.contains(&info.format) {
            return Ok(Output {
                format: info.format,
                bytes: self.bytes.to_vec(),
                width: info.width,
                height: info.height,
            });
        }
        let frames = self.frames(&info);
        if frames > 1 {
            return self.animation(&info, frames);
        }
        self.check_time()?;
        let (picture, plan) = self.decode(&info)?;
        self.check_time()?;
        let picture = self.finish(picture, &plan)?;
        let format = self.format(&info, picture.is_translucent());
        self.encode(picture, format, &info)
    }

    fn check_time(&self) -> Result<(), Error> {
        if (self.cancelled)() { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn orientation(&self, info: &Info) -> u8 {
        match self.options.auto_rotate.unwrap_or(self.defaults.auto_rotate) {
            true => info.orientation,
            false => 1,
        }
    }

    /// The size after all turns.
    fn upright(&self, info: &Info) -> (u32, u32) {
        if self.is_lying(info) {
            (info.height, info.width)
        } else {
            (info.width, info.height)
        }
    }

    /// Frames that go into the result.
    fn frames(&self, info: &Info) -> u32 {
        let has_frames = self.wanted(info).is_none_or(Format::has_animation);
        if self.is_animated(info) && has_frames {
            info.frames.min(self.limits().frames)
        } else {
            1
        }
    }

    fn is_animated(&self, info: &Info) -> bool {
        info.format.has_animation() && info.frames > 1 && self.limits().frames > 1 && self.options.trim.is_none()
    }

    /// The format that is asked for. What moves is not offered as a still, only asked for as one.
    fn wanted(&self, info: &Info) -> Option<Format> {
        let is_animated = self.is_animated(info);
        let mut accepted = self
            .accepted
            .iter()
            .copied()
            .filter(|format| !is_animated || format.has_animation());
        self.options.format.or_else(|| accepted.next())
    }

    /// The size that a JPEG or PNG is decoded to, in eighths.
    fn eighths(&self, info: &Info, plan: &Plan) -> u32 {
        if !matches!(info.format, Format::Jpeg | Format::Png) || self.options.trim.is_some() {
            return 8;
        }
        let margin = self.defaults.decode_margin;
        let upright = self.upright(info);
        let side = |scaled: u32, crop: u32, own: u32| f64::from(scaled) / f64::from(crop) * f64::from(own) * margin;
        let x = side(plan.scaled.0, plan.crop.0, upright.0);
        let y = side(plan.scaled.1, plan.crop.1, upright.1);
        let (x, y) = if upright == (info.width, info.height) {
            (x, y)
        } else {
            (y, x)
        };
        jpeg::eighths(info, x, y)
    }

    /// Pixels of a still, upright, and what is to be done to them. Crop and scale are done here, turns after them, when there are fewer.
    fn decode(&self, info: &Info) -> Result<(Picture, Plan), Error> {
        if info.format == Format::Svg {
            return self.draw(info);
        }
        let upright = self.upright(info);
        let plan = Plan::new(upright.0, upright.1, self.options, false);
        let mut picture = match info.format {
            Format::Jpeg => jpeg::decode(self.bytes, info, self.eighths(info, &plan))?,
            Format::Png => png::decode(self.bytes, 8 / self.eighths(info, &plan))?,
            Format::Webp if info.frames > 1 => first(|each| webp::decode_frames(self.bytes, info, 1, each))?,
            Format::Webp => webp::decode(self.bytes, info)?,
            Format::Gif => first(|each| gif::decode_frames(self.bytes, info, 1, each))?,
            #[cfg(feature = "avif")]
            Format::Avif => crate::codec::avif::decode(self.bytes)?,
            #[cfg(not(feature = "avif"))]
            Format::Avif => return Err(CodecError::decode("AVIF", "not in this build").into()),
            Format::Tiff | Format::Bmp | Format::Ico => other::decode(self.bytes, info)?,
            Format::Svg => unreachable!("drawn above"),
        };
        if picture.icc.is_none() && info.format != Format::Png {
            picture.icc = info.icc.as_deref().map(Into::into);
        }
        self.check_time()?;
        if let Some(wanted) = &self.options.trim {
            let upright = trim::trim(self.turn(color::to_srgb(picture), info), wanted);
            let plan = Plan::new(upright.width(), upright.height(), self.options, false);
            let full = (upright.width(), upright.height());
            return Ok((self.scale(&upright, &plan, full, None), plan));
        }
        Ok((self.scale(&picture, &plan, upright, Some(info)), plan))
    }

    fn draw(&self, info: &Info) -> Result<(Picture, Plan), Error> {
        let drawing = svg::Drawing::new(self.bytes)?;
        let (width, height) = drawing.size();
        let limits = self.limits();
        limits.check(&Info {
            width,
            height,
            ..info.clone()
        })?;
        let upright = if self.options.rotate % 2 == 1 {
            (height, width)
        } else {
            (width, height)
        };
        let plan = Plan::new(upright.0, upright.1, self.options, true);
        limits.check_result(plan.result())?;
        let scale = (f64::from(plan.scaled.0) / f64::from(plan.crop.0)).max(f64::from(plan.scaled.1) / f64::from(plan.crop.1));
        let drawn = [width, height].map(|side| (f64::from(side) * scale).ceil());
        limits.check_result((drawn[0] as u64, drawn[1] as u64))?;
        let picture = drawing.draw(scale)?;
        Ok((self.scale(&picture, &plan, upright, Some(info)), plan))
    }

    fn turn(&self, picture: Picture, info: &Info) -> Picture {
        let mut picture = picture.oriented(self.orientation(info)).turned(self.options.rotate);
        if self.options.flip_horizontal {
            picture = picture.mirrored();
        }
        if self.options.flip_vertical {
            picture.flip();
        }
        picture
    }

    /// Cuts the crop out and scales it. With `info` the picture is as stored and is turned too. `full` is the upright size that the plan
    /// was made for; the picture may have been decoded to another.
    fn scale(&self, picture: &Picture, plan: &Plan, full: (u32, u32), info: Option<&Info>) -> Picture {
        if plan.crop == full {
            return self.scale_all(picture, plan, info);
        }
        let (upright_width, upright_height) = match info.is_some_and(|info| self.is_lying(info)) {
            true => (picture.height(), picture.width()),
            false => (picture.width(), picture.height()),
        };
        let shrink = (
            f64::from(upright_width) / f64::from(full.0),
            f64::from(upright_height) / f64::from(full.1),
        );
        let crop = (f64::from(plan.crop.0) * shrink.0, f64::from(plan.crop.1) * shrink.1);
        // Smart crops look at pixels, so these are turned first; others only need numbers.
        let upright = info.map_or_else(|| picture.clone(), |info| self.turn(picture.clone(), info));
        let size = (
            (crop.0.round() as u32).clamp(1, upright.width()),
            (crop.1.round() as u32).clamp(1, upright.height()),
        );
        let (left, top) = self.place(&upright, size, geometry::scaled(plan.crop_gravity, shrink.0));
        let part = Part {
            left: left as f64,
            top: top as f64,
            width: crop.0,
            height: crop.1,
        };
        resize(&upright, Some(part), plan.scaled.0, plan.scaled.1)
    }

    /// Whether width and height change places.
    fn is_lying(&self, info: &Info) -> bool {
        (self.orientation(info) >= 5) != (self.options.rotate % 2 == 1)
    }

    fn scale_all(&self, picture: &Picture, plan: &Plan, info: Option<&Info>) -> Picture {
        match info {
            None => resize(picture, None, plan.scaled.0, plan.scaled.1),
            Some(info) => {
                let (width, height) = match self.is_lying(info) {
                    true => (plan.scaled.1, plan.scaled.0),
                    false => plan.scaled,
                };
                self.turn(resize(picture, None, width, height), info)
            }
        }
    }

    /// Left and top of a part of `size`.
    fn place(&self, picture: &Picture, size: (u32, u32), gravity: Gravity) -> (i64, i64) {
        match gravity.anchor {
            Anchor::Smart => {
                let (left, top) = smart::place(picture, size.0, size.1);
                (left.into(), top.into())
            }
            _ => geometry::position(picture.width(), picture.height(), size.0, size.1, gravity),
        }
    }

    /// What comes after scaling.
    fn finish(&self, picture: Picture, plan: &Plan) -> Result<Picture, Error> {
        let options = self.options;
        let is_kept = !options.strip_color_profile.unwrap_or(self.defaults.strip_color_profile);
        let mut picture = match is_kept && picture.samples() != Samples::Cmyk {
            true => picture,
            false => color::to_srgb(picture),
        };
        if plan.cut != (picture.width(), picture.height()) {
            let cut = (plan.cut.0.min(picture.width()), plan.cut.1.min(picture.height()));
            let (left, top) = self.place(&picture, cut, plan.gravity);
            picture = picture.cut(left as u32, top as u32, cut.0, cut.1);
        }
        self.check_time()?;
        if options.blur > 0.0 {
            filter::blur(&mut picture, options.blur * plan.dpr);
        }
        if options.sharpen > 0.0 {
            filter::sharpen(&mut picture, options.sharpen * plan.dpr);
        }
        if options.pixelate > 1 {
            filter::pixelate(&mut picture, options.pixelate);
        }
        if let Some(((width, height), gravity)) = plan.extend {
            let at = geometry::position(width, height, picture.width(), picture.height(), gravity);
            picture = self.embed(picture, width, height, at);
        }
        let [top, right, bottom, left] = plan.padding;
        if plan.padding != [0; 4] {
            let (width, height) = (picture.width() + left + right, picture.height() + top + bottom);
            picture = self.embed(picture, width, height, (left.into(), top.into()));
        }
        if let Some(background) = options.background {
            picture = picture.over(background);
        }
        if let (Some(wanted), Some(mark)) = (&options.watermark, &self.defaults.watermark) {
            picture = watermark::draw(picture, mark, wanted, plan.dpr);
        }
        Ok(picture)
    }

    /// Onto a larger canvas: of the background, or transparent.
    fn embed(&self, picture: Picture, width: u32, height: u32, (left, top): (i64, i64)) -> Picture {
        if (width, height) == (picture.width(), picture.height()) {
            return picture;
        }
        let icc = picture.icc.clone();
        let picture = picture.to_rgba();
        let color = match self.options.background {
            Some([red, green, blue]) => [red, green, blue, 255],
            None => [0; 4],
        };
        let mut canvas = Picture::filled(width, height, &color);
        canvas.put(&picture, left, top);
        canvas.icc = icc;
        canvas
    }

    fn format(&self, info: &Info, is_translucent: bool) -> Format {
        if let Some(format) = self.wanted(info) {
            return format;
        }
        match info.format {
            Format::Svg | Format::Ico => Format::Png,
            format if format.is_output() => format,
            _ if is_translucent => Format::Png,
            _ => Format::Jpeg,
        }
    }

    fn quality(&self, format: Format) -> u8 {
        let own = self
            .options
            .format_quality
            .get(&format)
            .copied()
            .unwrap_or(self.options.quality);
        match format {
            _ if own > 0 => own,
            Format::Webp => self.defaults.quality_webp,
            Format::Avif => self.defaults.quality_avif,
            _ => self.defaults.quality_jpeg,
        }
    }

    fn encode(&self, picture: Picture, format: Format, info: &Info) -> Result<Output, Error> {
        let picture = match format.has_alpha() && picture.is_translucent() {
            true => picture,
            // Also where every pixel is opaque: a channel less to write.
            false => picture.over([255; 3]),
        };
        let exif = self.exif(info);
        let xmp = self.xmp(info);
        let icc = picture.icc.clone();
        let meta = Meta {
            icc: icc.as_deref(),
            exif: exif.as_deref(),
            xmp: xmp.as_deref(),
            iptc: info.iptc.as_deref().filter(|_| !self.strips()),
        };
        let mut quality = self.quality(format);
        loop {
            self.check_time()?;
            let bytes = self.write(&picture, format, quality, meta)?;
            let has_quality = matches!(format, Format::Jpeg | Format::Webp | Format::Avif);
            if self.options.max_bytes == 0 || bytes.len() <= self.options.max_bytes || !has_quality || quality <= 10 {
                return Ok(Output {
                    format,
                    width: picture.width(),
                    height: picture.height(),
                    bytes,
                });
            }
            // Bytes fall a little faster than quality; a step of at least a tenth ends.
            let excess = self.options.max_bytes as f64 / bytes.len() as f64;
            quality = (f64::from(quality) * excess.clamp(0.5, 0.9)) as u8;
            quality = quality.max(10);
        }
    }

    fn write(&self, picture: &Picture, format: Format, quality: u8, meta: Meta<'_>) -> Result<Vec<u8>, CodecError> {
        match format {
            Format::Jpeg => {
                let settings = jpeg::Settings {
                    quality,
                    progressive: self.defaults.jpeg_progressive,
                    full_chroma: quality >= 90,
                };
                jpeg::encode(picture, settings, meta)
            }
            Format::Png => png::encode(
                picture,
                png::Settings {
                    colors: self.defaults.png_colors,
                },
                meta,
            ),
            Format::Webp => webp::encode(picture, self.webp(quality), meta),
            #[cfg(any(feature = "avif", feature = "rav1e"))]
            Format::Avif => crate::codec::avif::encode(
                picture,
                crate::codec::avif::Settings {
                    quality,
                    speed: self.defaults.avif_speed,
                },
                meta,
            ),
            Format::Gif => gif::encode_frames(
                &[Frame {
                    picture: picture.clone(),
                    delay_ms: 0,
                }],
                1,
            ),
            other => Err(CodecError::encode(other.name(), "is only read")),
        }
    }

    fn webp(&self, quality: u8) -> webp::Settings {
        webp::Settings {
            quality,
            method: self.defaults.webp_method,
            lossless: false,
        }
    }

    /// EXIF of the result, if any is wanted.
    fn exif(&self, info: &Info) -> Option<Vec<u8>> {
        let exif = info.exif.as_deref()?;
        match self.strips() {
            true if self.options.keep_copyright.unwrap_or(self.defaults.keep_copyright) => exif::copyright(exif),
            true => None,
            false if self.orientation(info) == info.orientation => Some(exif::upright(exif)),
            false => Some(exif.to_vec()),
        }
    }

    /// XMP of the result, likewise.
    fn xmp(&self, info: &Info) -> Option<Vec<u8>> {
        let packet = info.xmp.as_deref().filter(|_| !self.strips())?;
        Some(match self.orientation(info) == info.orientation {
            true => xmp::upright(packet),
            false => packet.to_vec(),
        })
    }

    fn strips(&self) -> bool {
        self.options.strip_metadata.unwrap_or(self.defaults.strip_metadata)
    }

    /// Every frame the same way.
    fn animation(&self, info: &Info, frames_max: u32) -> Result<Output, Error> {
        let upright = self.upright(info);
        let plan = Plan::new(upright.0, upright.1, self.options, false);
        let mut frames = Vec::new();
        let mut each = |frame: Frame| -> Result<(), Error> {
            self.check_time()?;
            let picture = self.finish(self.scale(&frame.picture, &plan, upright, Some(info)), &plan)?;
            frames.push(Frame { picture, ..frame });
            Ok(())
        };
        let loops = match info.format {
            Format::Gif => gif::decode_frames(self.bytes, info, frames_max, &mut each)?,
            _ => webp::decode_frames(self.bytes, info, frames_max, &mut each)?,
        };
        let first = frames
            .first()
            .ok_or_else(|| CodecError::decode(info.format.name(), "no frames"))?;
        let (width, height) = (first.picture.width(), first.picture.height());
        let format = self.format(info, true);
        self.check_time()?;
        let bytes = match format {
            Format::Gif => gif::encode_frames(&frames, loops)?,
            _ => webp::encode_frames(&frames, loops, self.webp(self.quality(Format::Webp)))?,
        };
        Ok(Output {
            format,
            bytes,
            width,
            height,
        })
    }
}

/// The only frame that a decoder of several is asked for.
fn first(
    decode: impl FnOnce(&mut dyn FnMut(Frame) -> Result<(), CodecError>) -> Result<u32, CodecError>,
) -> Result<Picture, CodecError> {
    let mut found = None;
    decode(&mut |frame| {
        found = Some(frame.picture);
        Ok(())
    })?;
    found.ok_or_else(|| CodecError::decode("animation", "no frames"))
}
