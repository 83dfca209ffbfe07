//! WebP by libwebp: stills and animations, both ways.
#![allow(unsafe_code)] // bindings to C; each block has its reason

use std::ffi::c_int;
use std::mem::MaybeUninit;

use libwebp_sys as raw;

use super::{CodecError, Meta};
use crate::header::Info;
use crate::picture::{Frame, Picture, Samples, bytes_of};

const NAME: &str = "WebP";
/// Sides beyond this the format cannot hold.
pub const SIDE_MAX: u32 = 16_383;

/// Decodes a still, or the first frame as it stands in the file.
pub fn decode(bytes: &[u8], info: &Info) -> Result<Picture, CodecError> {
    let (width, height, has_alpha) = features(bytes)?;
    if (width, height) != (info.width, info.height) {
        return Err(CodecError::decode(NAME, "canvas and picture differ in size"));
    }
    let samples = if has_alpha { Samples::Rgba } else { Samples::Rgb };
    let len = bytes_of(width, height, samples).ok_or_else(|| CodecError::decode(NAME, "too large"))?;
    let mut pixels = vec![0; len];
    let stride = (width as usize * samples.bytes()) as c_int;
    let decode = if has_alpha {
        raw::WebPDecodeRGBAInto
    } else {
        raw::WebPDecodeRGBInto
    };
    // SAFETY: both slices live through the call; the library is told the length of each and refuses a picture that does not fit.
    let done = unsafe { decode(bytes.as_ptr(), bytes.len(), pixels.as_mut_ptr(), len, stride) };
    if done.is_null() {
        return Err(CodecError::decode(NAME, "damaged or cut off"));
    }
    Picture::new(width, height, samples, pixels).ok_or_else(|| CodecError::decode(NAME, "no pixels"))
}

fn features(bytes: &[u8]) -> Result<(u32, u32, bool), CodecError> {
    let mut features = MaybeUninit::<raw::WebPBitstreamFeatures>::zeroed();
    // SAFETY: zero is valid for this struct of numbers; the library fills it from the slice it is given.
    let (status, features) = unsafe {
        let status = raw::WebPGetFeatures(bytes.as_ptr(), bytes.len(), features.as_mut_ptr());
        (status, features.assume_init())
    };
    if status != raw::VP8StatusCode::VP8_STATUS_OK {
        return Err(CodecError::decode(NAME, "damaged header"));
    }
    let side = |side: c_int| u32::try_from(side).unwrap_or(0);
    Ok((side(features.width), side(features.height), features.has_alpha != 0))
}

/// A decoder of frames, freed when dropped.
struct Frames(*mut raw::WebPAnimDecoder);

impl Drop for Frames {
    fn drop(&mut self) {
        // SAFETY: made by the library, freed once.
        unsafe { raw::WebPAnimDecoderDelete(self.0) }
    }
}

/// Decodes up to `frames_max` frames, each given to `each` on the whole canvas. Returns how often the animation repeats (0: for ever).
pub fn decode_frames<E: From<CodecError>>(
    bytes: &[u8],
    info: &Info,
    frames_max: u32,
    mut each: impl FnMut(Frame) -> Result<(), E>,
) -> Result<u32, E> {
    let damaged = || CodecError::decode(NAME, "damaged animation");
    let data = raw::WebPData {
        bytes: bytes.as_ptr(),
        size: bytes.len(),
    };
    let mut options = MaybeUninit::<raw::WebPAnimDecoderOptions>::zeroed();
    // SAFETY: zero is a valid value; the library sets its defaults. `data` names a slice that outlives the decoder.
    let frames = unsafe {
        if raw::WebPAnimDecoderOptionsInit(options.as_mut_ptr()) == 0 {
            return Err(damaged().into());
        }
        let mut options = options.assume_init();
        options.color_mode = raw::WEBP_CSP_MODE::MODE_RGBA;
        options.use_threads = 0;
        Frames(raw::WebPAnimDecoderNew(&data, &options))
    };
    if frames.0.is_null() {
        return Err(damaged().into());
    }
    let mut canvas = raw::WebPAnimInfo::default();
    // SAFETY: the decoder is valid; the struct is filled.
    if unsafe { raw::WebPAnimDecoderGetInfo(frames.0, &mut canvas) } == 0 {
        return Err(damaged().into());
    }
    if (canvas.canvas_width, canvas.canvas_height) != (info.width, info.height) {
        return Err(damaged().into());
    }
    let len = bytes_of(info.width, info.height, Samples::Rgba).ok_or_else(damaged)?;
    let mut before = 0;
    for _ in 0..frames_max.min(canvas.frame_count) {
        let (mut pixels, mut until) = (std::ptr::null_mut(), 0);
        // SAFETY: the decoder is valid; on success `pixels` names the canvas of the decoder, `len` bytes until the next call.
        let pixels = unsafe {
            if raw::WebPAnimDecoderGetNext(frames.0, &mut pixels, &mut until) == 0 || pixels.is_null() {
                return Err(damaged().into());
            }
            std::slice::from_raw_parts(pixels, len).to_vec()
        };
        let picture = Picture::new(info.width, info.height, Samples::Rgba, pixels).ok_or_else(damaged)?;
        let delay_ms = u32::try_from(until - before).unwrap_or(0);
        before = until;
        each(Frame { picture, delay_ms })?;
    }
    Ok(canvas.loop_count)
}

/// How a WebP is written.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub quality: u8,
    /// 0 is fast, 6 is small.
    pub method: u8,
    pub lossless: bool,
}

impl Settings {
    fn to_raw(self) -> Result<raw::WebPConfig, CodecError> {
        let mut config = raw::WebPConfig::new().map_err(|()| CodecError::encode(NAME, "wrong version"))?;
        config.quality = f32::from(self.quality.min(100));
        config.method = c_int::from(self.method.min(6));
        config.lossless = c_int::from(self.lossless);
        config.thread_level = 0;
        Ok(config)
    }
}

/// A picture of the library, freed when dropped.
struct Source(raw::WebPPicture);

impl Source {
    fn new(picture: &Picture, is_lossless: bool) -> Result<Source, CodecError> {
        let fault = || CodecError::encode(NAME, "no memory for the picture");
        if picture.width().max(picture.height()) > SIDE_MAX {
            return Err(CodecError::encode(NAME, format!("a side is longer than {SIDE_MAX}")));
        }
        let mut source = Source(raw::WebPPicture::new().map_err(|()| fault())?);
        source.0.width = picture.width() as c_int;
        source.0.height = picture.height() as c_int;
        source.0.use_argb = c_int::from(is_lossless);
        let import = match picture.samples() {
            Samples::Rgb => raw::WebPPictureImportRGB,
            Samples::Rgba => raw::WebPPictureImportRGBA,
            Samples::Cmyk => return Err(CodecError::encode(NAME, "wanted red, green and blue")),
        };
        // SAFETY: the source has `height` rows of the given stride; the library copies them into memory of its own.
        let done = unsafe { import(&mut source.0, picture.pixels().as_ptr(), picture.stride() as c_int) };
        if done == 0 { Err(fault()) } else { Ok(source) }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // SAFETY: initialised by the library, freed once.
        unsafe { raw::WebPPictureFree(&mut self.0) }
    }
}

/// A buffer that the library writes to, freed when dropped.
struct Sink(raw::WebPMemoryWriter);

impl Drop for Sink {
    fn drop(&mut self) {
        // SAFETY: initialised by the library, freed once.
        unsafe { raw::WebPMemoryWriterClear(&mut self.0) }
    }
}

/// Encodes a still.
pub fn encode(picture: &Picture, settings: Settings, meta: Meta<'_>) -> Result<Vec<u8>, CodecError> {
    let config = settings.to_raw()?;
    let mut source = Source::new(picture, settings.lossless)?;
    let mut sink = MaybeUninit::<raw::WebPMemoryWriter>::zeroed();
    // SAFETY: zero is valid; the library initialises it.
    let mut sink = unsafe {
        raw::WebPMemoryWriterInit(sink.as_mut_ptr());
        Sink(sink.assume_init())
    };
    source.0.writer = Some(raw::WebPMemoryWrite);
    source.0.custom_ptr = (&raw mut sink.0).cast();
    // SAFETY: config and picture are valid; the writer's target lives through the call and is not used meanwhile.
    if unsafe { raw::WebPEncode(&config, &mut source.0) } == 0 {
        return Err(CodecError::encode(NAME, format!("{:?}", source.0.error_code)));
    }
    // SAFETY: the writer holds `size` bytes at `mem`.
    let webp = unsafe { std::slice::from_raw_parts(sink.0.mem, sink.0.size) };
    let has_alpha = picture.samples() == Samples::Rgba;
    Ok(with_meta(webp, picture.width(), picture.height(), has_alpha, meta))
}

/// An encoder of animations, freed when dropped.
struct Animation(*mut raw::WebPAnimEncoder);

impl Drop for Animation {
    fn drop(&mut self) {
        // SAFETY: made by the library, freed once.
        unsafe { raw::WebPAnimEncoderDelete(self.0) }
    }
}

/// Encodes frames of one size. `loops` 0 is for ever.
pub fn encode_frames(frames: &[Frame], loops: u32, settings: Settings) -> Result<Vec<u8>, CodecError> {
    let fault = || CodecError::encode(NAME, "no animation of these frames");
    let first = frames.first().ok_or_else(fault)?;
    let config = settings.to_raw()?;
    let mut options = MaybeUninit::<raw::WebPAnimEncoderOptions>::zeroed();
    // SAFETY: zero is valid; the library sets its defaults and is told the version of the header that the bindings were made from.
    let animation = unsafe {
        let version = raw::WEBP_MUX_ABI_VERSION as c_int;
        if raw::WebPAnimEncoderOptionsInitInternal(options.as_mut_ptr(), version) == 0 {
            return Err(fault());
        }
        let mut options = options.assume_init();
        options.anim_params.loop_count = loops.min(65_535) as c_int;
        options.allow_mixed = 1;
        let (width, height) = (first.picture.width() as c_int, first.picture.height() as c_int);
        Animation(raw::WebPAnimEncoderNewInternal(width, height, &options, version))
    };
    if animation.0.is_null() {
        return Err(fault());
    }
    let mut at = 0i64;
    for frame in frames {
        let mut source = Source::new(&frame.picture, true)?;
        // SAFETY: encoder, picture and config are valid; the picture is copied.
        if unsafe { raw::WebPAnimEncoderAdd(animation.0, &mut source.0, at as c_int, &config) } == 0 {
            return Err(fault());
        }
        at = (at + i64::from(frame.delay_ms)).min(i64::from(c_int::MAX));
    }
    let mut data = raw::WebPData::default();
    // SAFETY: a null frame ends the animation; then the result is assembled into `data`, which is copied and freed.
    unsafe {
        let is_ended = raw::WebPAnimEncoderAdd(animation.0, std::ptr::null_mut(), at as c_int, std::ptr::null()) != 0;
        if !is_ended || raw::WebPAnimEncoderAssemble(animation.0, &mut data) == 0 || data.bytes.is_null() {
            return Err(fault());
        }
        let webp = std::slice::from_raw_parts(data.bytes, data.size).to_vec();
        raw::WebPDataClear(&mut data);
        Ok(webp)
    }
}

/// Wraps what the encoder wrote into the extended form, if there is something to add.
fn with_meta(webp: &[u8], width: u32, height: u32, has_alpha: bool, meta: Meta<'_>) -> Vec<u8> {
    if meta.icc.is_none() && meta.exif.is_none() && meta.xmp.is_none() {
        return webp.to_vec();
    }
    let chunks = webp.get(12..).unwrap_or_default();
    // With alpha in a lossy file the encoder has written the extended form itself.
    let chunks = if chunks.starts_with(b"VP8X") {
        chunks.get(18..).unwrap_or_default()
    } else {
        chunks
    };
    let [icc, exif, xmp] = [meta.icc, meta.exif, meta.xmp].map(|part| u8::from(part.is_some()));
    let flags = icc << 5 | u8::from(has_alpha) << 4 | exif << 3 | xmp << 2;
    let mut body = b"WEBP".to_vec();
    let mut extended = vec![flags, 0, 0, 0];
    extended.extend_from_slice(&(width - 1).to_le_bytes()[..3]);
    extended.extend_from_slice(&(height - 1).to_le_bytes()[..3]);
    chunk(&mut body, b"VP8X", &extended);
    if let Some(icc) = meta.icc {
        chunk(&mut body, b"ICCP", icc);
    }
    body.extend_from_slice(chunks);
    if let Some(exif) = meta.exif {
        chunk(&mut body, b"EXIF", exif);
    }
    if let Some(xmp) = meta.xmp {
        chunk(&mut body, b"XMP ", xmp);
    }
    let mut out = b"RIFF".to_vec();
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(body);
    out
}

fn chunk(out: &mut Vec<u8>, name: &[u8; 4], body: &[u8]) {
    out.extend_from_slice(name);
    out.extend((body.len() as u32).to_le_bytes());
    out.extend_from_slice(body);
    if body.len() % 2 == 1 {
        out.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exif;
    use crate::header;

    const SETTINGS: Settings = Settings {
        quality: 80,
        method: 4,
        lossless: false,
    };

    fn plain(color: [u8; 4]) -> Picture {
        Picture::filled(21, 13, &color)
    }

    #[test]
    fn stills_are_read_back_with_what_is_beside_them() {
        for lossless in [false, true] {
            for color in [[200, 100, 50, 255], [200, 100, 50, 128]] {
                let exif = exif::sample(3, "me");
                let meta = Meta {
                    icc: Some(b"odd"),
                    exif: Some(&exif),
                    ..Meta::default()
                };
                let file = encode(&plain(color), Settings { lossless, ..SETTINGS }, meta).expect("encodes");
                let info = header::read(&file, 1).expect("sound");
                assert_eq!((info.width, info.height, info.orientation), (21, 13, 3));
                assert_eq!(info.icc.as_deref(), Some(&b"odd"[..]));
                let picture = decode(&file, &info).expect("decodes").to_rgba();
                assert!(
                    picture
                        .pixel(10, 6)
                        .iter()
                        .zip(color)
                        .all(|(sample, wanted)| sample.abs_diff(wanted) < 6)
                );
                assert!(decode(&file[..file.len() / 2], &info).is_err());
            }
        }
    }

    #[test]
    fn animations_are_read_back() {
        let frames: Vec<Frame> = [([255, 0, 0, 255], 40), ([0, 255, 0, 255], 80), ([0, 0, 255, 0], 120)]
            .map(|(color, delay_ms)| Frame {
                picture: plain(color),
                delay_ms,
            })
            .into();
        let file = encode_frames(&frames, 3, SETTINGS).expect("encodes");
        let info = header::read(&file, 10).expect("sound");
        assert_eq!((info.frames, info.width), (3, 21));
        let mut read = Vec::new();
        let loops = decode_frames::<CodecError>(&file, &info, 10, |frame| {
            read.push(frame);
            Ok(())
        });
        assert_eq!(loops.expect("decodes"), 3);
        assert_eq!(read.iter().map(|frame| frame.delay_ms).collect::<Vec<_>>(), [40, 80, 120]);
        assert!(read[1].picture.pixel(5, 5)[1] > 200);
        assert_eq!(read[2].picture.pixel(5, 5)[3], 0);
    }
}
