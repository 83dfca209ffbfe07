//! JPEG by libjpeg-turbo: decoding at a fraction of the size in the transform itself, which is most of the speed of a thumbnail.
#![allow(unsafe_code)] // bindings to C; each block has its reason

use std::ffi::{CStr, c_int};

use turbojpeg_sys as raw;

use super::scaled::{self, Chroma, Planes};
use super::{CodecError, Meta};
use crate::header::Info;
use crate::picture::{Picture, Samples, bytes_of};
use crate::{iptc, xmp};

/// Scans of a progressive file; each costs as the first, and honest ones have about ten.
const SCANS_MAX: c_int = 100;
/// Memory of the library itself, in MiB: the coefficients of a progressive file of 100 megapixels are 600 MiB.
const MEMORY_MAX_MIB: c_int = 768;

/// Our own reader makes tables first, which take as long as the library takes for a file of about this size.
const OWN_MIN: usize = 64 << 10;

/// Bytes of metadata in one segment, of 65,533 less what it begins with.
const SEGMENT_MAX: usize = 65_000;
const NAME: &str = "JPEG";

/// A compressor or decompressor, freed when dropped.
struct Handle(raw::tjhandle);

impl Handle {
    fn new(kind: raw::TJINIT) -> Option<Handle> {
        // SAFETY: takes a number and returns a handle or null.
        let handle = unsafe { raw::tj3Init(kind as c_int) };
        (!handle.is_null()).then_some(Handle(handle))
    }

    fn set(&self, param: raw::TJPARAM, value: c_int) -> bool {
        // SAFETY: the handle is valid until dropped; unknown numbers are refused by the library.
        unsafe { raw::tj3Set(self.0, param as c_int, value) == 0 }
    }

    fn get(&self, param: raw::TJPARAM) -> c_int {
        // SAFETY: as above.
        unsafe { raw::tj3Get(self.0, param as c_int) }
    }

    fn error(&self) -> String {
        // SAFETY: the library returns a string with an end that lives as long as the handle and no other call is made.
        let text = unsafe { CStr::from_ptr(raw::tj3GetErrorStr(self.0)) };
        text.to_string_lossy().into_owned()
    }

    /// Whether the last failure was one after which there are pixels.
    fn is_warning(&self) -> bool {
        // SAFETY: the handle is valid.
        unsafe { raw::tj3GetErrorCode(self.0) == raw::TJERR_TJERR_WARNING as c_int }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by tj3Init, freed once.
        unsafe { raw::tj3Destroy(self.0) }
    }
}

/// Eighths of the size at which a decoder can stop: the least at which both sides are at least as asked.
pub fn eighths(info: &Info, width: f64, height: f64) -> u32 {
    [1, 2, 4]
        .into_iter()
        .find(|eighths| {
            let side = |side: u32| f64::from((side * eighths).div_ceil(8));
            side(info.width) >= width && side(info.height) >= height
        })
        .unwrap_or(8)
}

/// Decodes to `eighths` of the size, each side rounded up. A file that breaks off keeps what came before, grey below.
pub fn decode(bytes: &[u8], info: &Info, eighths: u32) -> Result<Picture, CodecError> {
    // Our own reader for what most files are; it leaves the rest, and all that is odd, to the library.
    let planes = match bytes.len() >= OWN_MIN {
        true => scaled::planes(bytes, info.width, info.height, eighths),
        false => None,
    };
    match planes {
        Some(planes) => from_planes(&planes),
        None => decode_any(bytes, info, eighths),
    }
}

/// Makes pixels of planes.
fn from_planes(planes: &Planes) -> Result<Picture, CodecError> {
    let handle = Handle::new(raw::TJINIT_TJINIT_DECOMPRESS).ok_or_else(|| CodecError::decode(NAME, "no memory"))?;
    let (sampling, across, down) = match planes.chroma {
        Chroma::None => (raw::TJSAMP_TJSAMP_GRAY, 1, 1),
        Chroma::Full => (raw::TJSAMP_TJSAMP_444, 1, 1),
        Chroma::HalfAcross => (raw::TJSAMP_TJSAMP_422, 2, 1),
        Chroma::HalfDown => (raw::TJSAMP_TJSAMP_440, 1, 2),
        Chroma::HalfBoth => (raw::TJSAMP_TJSAMP_420, 2, 2),
    };
    let (width, height) = (planes.width, planes.height);
    let len = bytes_of(width, height, Samples::Rgb).ok_or_else(|| CodecError::decode(NAME, "too large"))?;
    let mut pixels = vec![0; len];
    let (mut starts, mut strides) = ([std::ptr::null(); 3], [0 as c_int; 3]);
    for (at, plane) in planes.planes.iter().enumerate().take(3) {
        // Luma is read in pairs where colour is halved.
        let (columns, rows) = match at {
            0 => (width.next_multiple_of(across), height.next_multiple_of(down)),
            _ => (width.div_ceil(across), height.div_ceil(down)),
        };
        let (columns, rows) = (columns as usize, rows as usize);
        assert!(
            plane.stride >= columns && plane.samples.len() >= plane.stride * rows,
            "plane {at} has {} samples in rows of {}: wanted {rows} rows of {columns}",
            plane.samples.len(),
            plane.stride
        );
        starts[at] = plane.samples.as_ptr();
        strides[at] = plane.stride as c_int;
    }
    assert!(
        planes.planes.len() == if planes.chroma == Chroma::None { 1 } else { 3 },
        "a plane is missing"
    );
    // SAFETY: each plane has the rows that the library reads for this sampling, `strides` apart, as checked above; it writes `height` rows of
    // `width` pixels of three bytes without gaps, which `pixels` has.
    let failed = !handle.set(raw::TJPARAM_TJPARAM_SUBSAMP, sampling)
        || unsafe {
            raw::tj3DecodeYUVPlanes8(
                handle.0,
                starts.as_ptr(),
                strides.as_ptr(),
                pixels.as_mut_ptr(),
                width as c_int,
                0,
                height as c_int,
                raw::TJPF_TJPF_RGB,
            )
        } != 0;
    match failed {
        true => Err(CodecError::decode(NAME, handle.error())),
        false => Picture::new(width, height, Samples::Rgb, pixels).ok_or_else(|| CodecError::decode(NAME, "no pixels")),
    }
}

/// Decodes by the library.
fn decode_any(bytes: &[u8], info: &Info, eighths: u32) -> Result<Picture, CodecError> {
    let handle = Handle::new(raw::TJINIT_TJINIT_DECOMPRESS).ok_or_else(|| CodecError::decode(NAME, "no memory"))?;
    let fault = |handle: &Handle| CodecError::decode(NAME, handle.error());
    if !handle.set(raw::TJPARAM_TJPARAM_SCANLIMIT, SCANS_MAX) || !handle.set(raw::TJPARAM_TJPARAM_MAXMEMORY, MEMORY_MAX_MIB) {
        return Err(fault(&handle));
    }
    // SAFETY: pointer and length are those of a slice that lives through the call.
    let failed = unsafe { raw::tj3DecompressHeader(handle.0, bytes.as_ptr(), bytes.len() as raw::size_t) } != 0;
    if failed && !handle.is_warning() {
        return Err(fault(&handle));
    }
    let side = |param| u32::try_from(handle.get(param)).unwrap_or(0);
    let (width, height) = (side(raw::TJPARAM_TJPARAM_JPEGWIDTH), side(raw::TJPARAM_TJPARAM_JPEGHEIGHT));
    // Limits were met by what our own reader of headers found: no other picture is decoded.
    if (width, height) != (info.width, info.height) {
        return Err(CodecError::decode(NAME, "two frames of different sizes"));
    }
    if handle.get(raw::TJPARAM_TJPARAM_PRECISION) != 8 {
        return Err(CodecError::decode(NAME, "samples of more than 8 bits"));
    }
    let eighths = if handle.get(raw::TJPARAM_TJPARAM_LOSSLESS) == 1 {
        8
    } else {
        eighths
    };
    // The library knows its factors by their lowest terms.
    let halvings = eighths.trailing_zeros().min(3);
    let factor = raw::tjscalingfactor {
        num: (eighths >> halvings) as c_int,
        denom: 8 >> halvings,
    };
    // SAFETY: the handle is valid; factors that the library does not have are refused by it.
    if unsafe { raw::tj3SetScalingFactor(handle.0, factor) } != 0 {
        return Err(fault(&handle));
    }
    let (width, height) = ((width * eighths).div_ceil(8), (height * eighths).div_ceil(8));
    let colors = handle.get(raw::TJPARAM_TJPARAM_COLORSPACE);
    let is_cmyk = colors == raw::TJCS_TJCS_CMYK as c_int || colors == raw::TJCS_TJCS_YCCK as c_int;
    let (samples, format) = match is_cmyk {
        true => (Samples::Cmyk, raw::TJPF_TJPF_CMYK),
        false => (Samples::Rgb, raw::TJPF_TJPF_RGB),
    };
    let len = bytes_of(width, height, samples).ok_or_else(|| CodecError::decode(NAME, "too large"))?;
    // Grey, for what a broken file does not reach.
    let mut pixels = vec![128; len];
    // SAFETY: source as above. The library writes `height` rows of `width` pixels of `format` without gaps (pitch 0), both after the factor
    // as it documents: `len` bytes, which `pixels` has.
    let failed = unsafe {
        raw::tj3Decompress8(
            handle.0,
            bytes.as_ptr(),
            bytes.len() as raw::size_t,
            pixels.as_mut_ptr(),
            0,
            format,
        )
    } != 0;
    if failed && !handle.is_warning() {
        return Err(fault(&handle));
    }
    Picture::new(width, height, samples, pixels).ok_or_else(|| CodecError::decode(NAME, "no pixels"))
}

/// How a JPEG is written.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub quality: u8,
    pub progressive: bool,
    /// Colour at full resolution.
    pub full_chroma: bool,
}

/// Encodes; alpha must be gone before.
pub fn encode(picture: &Picture, settings: Settings, meta: Meta<'_>) -> Result<Vec<u8>, CodecError> {
    encode_with(picture, settings, meta, 0)
}

/// The same, with a marker to start again from behind so many units; 0: none.
fn encode_with(picture: &Picture, settings: Settings, meta: Meta<'_>, restart: c_int) -> Result<Vec<u8>, CodecError> {
    let handle = Handle::new(raw::TJINIT_TJINIT_COMPRESS).ok_or_else(|| CodecError::encode(NAME, "no memory"))?;
    if picture.samples() != Samples::Rgb {
        return Err(CodecError::encode(NAME, "wanted red, green and blue alone"));
    }
    let chroma = if settings.full_chroma {
        raw::TJSAMP_TJSAMP_444
    } else {
        raw::TJSAMP_TJSAMP_420
    };
    let is_set = handle.set(raw::TJPARAM_TJPARAM_QUALITY, c_int::from(settings.quality.clamp(1, 100)))
        && handle.set(raw::TJPARAM_TJPARAM_SUBSAMP, chroma)
        && handle.set(raw::TJPARAM_TJPARAM_OPTIMIZE, 1)
        && handle.set(raw::TJPARAM_TJPARAM_RESTARTBLOCKS, restart)
        && handle.set(raw::TJPARAM_TJPARAM_PROGRESSIVE, c_int::from(settings.progressive));
    if !is_set {
        return Err(CodecError::encode(NAME, handle.error()));
    }
    let (mut out, mut len) = (std::ptr::null_mut(), 0 as raw::size_t);
    // SAFETY: the source is `height` rows of `width` pixels without gaps; the library allocates the result and sets both places.
    let failed = unsafe {
        raw::tj3Compress8(
            handle.0,
            picture.pixels().as_ptr(),
            picture.width() as c_int,
            0,
            picture.height() as c_int,
            raw::TJPF_TJPF_RGB,
            &mut out,
            &mut len,
        )
    } != 0;
    // SAFETY: on success `out` holds `len` bytes; what the library allocated is freed once, here, whether it failed or not.
    let jpeg = unsafe {
        let jpeg = (!failed && !out.is_null()).then(|| with_meta(std::slice::from_raw_parts(out, len as usize), meta));
        raw::tj3Free(out.cast());
        jpeg
    };
    jpeg.ok_or_else(|| CodecError::encode(NAME, handle.error()))
}

/// Puts metadata and profile behind the first marker. What is too long for a segment is left out.
fn with_meta(jpeg: &[u8], meta: Meta<'_>) -> Vec<u8> {
    let (start, rest) = jpeg.split_at(jpeg.len().min(2));
    let parts = [meta.icc, meta.exif, meta.xmp, meta.iptc];
    let more: usize = parts.iter().flatten().map(|part| part.len() + 64).sum();
    let mut out = Vec::with_capacity(jpeg.len() + more);
    out.extend_from_slice(start);
    if let Some(exif) = meta.exif.filter(|exif| exif.len() <= SEGMENT_MAX) {
        segment(&mut out, 0xe1, &[b"Exif\0\0", exif]);
    }
    if let Some(packet) = meta.xmp.filter(|packet| packet.len() <= SEGMENT_MAX) {
        segment(&mut out, 0xe1, &[xmp::SEGMENT, packet]);
    }
    if let Some(records) = meta.iptc.filter(|records| records.len() <= SEGMENT_MAX) {
        segment(&mut out, 0xed, &[iptc::SEGMENT, &iptc::segment(records)]);
    }
    let parts = meta
        .icc
        .map(|icc| icc.chunks(SEGMENT_MAX).collect::<Vec<_>>())
        .unwrap_or_default();
    if let Ok(count) = u8::try_from(parts.len()) {
        for (part, number) in parts.iter().zip(1..) {
            segment(&mut out, 0xe2, &[b"ICC_PROFILE\0", &[number, count], part]);
        }
    }
    out.extend_from_slice(rest);
    out
}

fn segment(out: &mut Vec<u8>, marker: u8, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum::<usize>() + 2;
    out.extend([0xff, marker]);
    out.extend((len as u16).to_be_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exif;
    use crate::header;

    const SETTINGS: Settings = Settings {
        quality: 90,
        progressive: false,
        full_chroma: true,
    };

    fn gradient(width: u32, height: u32) -> Picture {
        let pixels =
            (0..height).flat_map(|y| (0..width).flat_map(move |x| [(x * 255 / width) as u8, (y * 255 / height) as u8, 90]));
        Picture::new(width, height, Samples::Rgb, pixels.collect()).expect("fits")
    }

    fn near(picture: &Picture, x: u32, y: u32, wanted: [u8; 3]) -> bool {
        picture
            .pixel(x, y)
            .iter()
            .zip(wanted)
            .all(|(sample, wanted)| sample.abs_diff(wanted) < 12)
    }

    #[test]
    fn what_is_written_is_read_at_every_scale() {
        let source = gradient(67, 43);
        for progressive in [false, true] {
            let exif = exif::sample(6, "me");
            let icc = vec![7; 100_000];
            let meta = Meta {
                icc: Some(&icc),
                exif: Some(&exif),
                ..Meta::default()
            };
            let jpeg = encode(&source, Settings { progressive, ..SETTINGS }, meta).expect("encodes");
            let info = header::read(&jpeg, 1).expect("sound");
            assert_eq!(
                (info.width, info.height, info.orientation, info.progressive),
                (67, 43, 6, progressive)
            );
            assert_eq!(info.icc.as_deref(), Some(&icc[..]));
            for (eighths, width, height) in [(8, 67, 43), (4, 34, 22), (2, 17, 11), (1, 9, 6)] {
                let picture = decode(&jpeg, &info, eighths).expect("decodes");
                assert_eq!((picture.width(), picture.height()), (width, height));
                // Where the middle of that pixel lies in the source.
                let part = |at: u32, side: f64| ((f64::from(at) + 0.5) * 8.0 / f64::from(eighths) / side * 255.0) as u8;
                let wanted = [part(width / 2, 67.0), part(height / 2, 43.0), 90];
                assert!(
                    near(&picture, width / 2, height / 2, wanted),
                    "{eighths}: {:?} {wanted:?}",
                    picture.pixel(width / 2, height / 2)
                );
            }
        }
    }

    /// Stripes and spots of many sizes, as much as a small picture can have.
    fn texture(width: u32, height: u32) -> Picture {
        let sample = |x: u32, y: u32, part: u32| {
            let grain = (x ^ y.wrapping_mul(7)).wrapping_mul(2_654_435_761 + part) >> 26;
            let wave = (f64::from(x * (part + 2)) / 5.0).sin() * (f64::from(y) / 3.0).cos();
            (128.0 + 60.0 * wave + f64::from(grain)) as u8
        };
        let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| [0, 1, 2].map(|part| sample(x, y, part))));
        Picture::new(width, height, Samples::Rgb, pixels.collect()).expect("fits")
    }

    /// How far two pictures are apart at most and in the mean: in light, and in the three colours.
    fn apart(ours: &Picture, theirs: &Picture) -> [(f64, f64); 2] {
        let light = |pixel: &[u8]| 0.299 * f64::from(pixel[0]) + 0.587 * f64::from(pixel[1]) + 0.114 * f64::from(pixel[2]);
        let pixels = || ours.pixels().chunks_exact(3).zip(theirs.pixels().chunks_exact(3));
        let lights: Vec<f64> = pixels().map(|(one, other)| (light(one) - light(other)).abs()).collect();
        let colors = pixels().flat_map(|(one, other)| one.iter().zip(other).map(|(one, other)| f64::from(one.abs_diff(*other))));
        [lights, colors.collect()].map(|all| {
            (
                all.iter().copied().fold(0.0, f64::max),
                all.iter().sum::<f64>() / all.len() as f64,
            )
        })
    }

    /// Ours beside the library's: every kind of file, with detail and without. The library's filter is another at a quarter and a half,
    /// and it makes twice the colour that we do where that is stored at half the resolution.
    #[test]
    fn our_reader_makes_what_the_library_makes() {
        let kinds = [(false, false), (true, false), (false, true), (true, true)];
        for ((full_chroma, progressive), restart) in kinds.into_iter().flat_map(|kind| [(kind, 0), (kind, 1), (kind, 3)]) {
            for (width, height) in [(67, 43), (160, 96), (8, 8), (17, 1)] {
                for (source, far_max, mean_max) in [(gradient(width, height), 12.0, 7.0), (texture(width, height), 24.0, 8.0)] {
                    let settings = Settings {
                        full_chroma,
                        progressive,
                        ..SETTINGS
                    };
                    let jpeg = encode_with(&source, settings, Meta::default(), restart).expect("encodes");
                    let info = header::read(&jpeg, 1).expect("sound");
                    for eighths in [1, 2, 4] {
                        let what = format!("{width}x{height}/{eighths} {settings:?} {restart}");
                        let planes = scaled::planes(&jpeg, width, height, eighths);
                        let ours = from_planes(&planes.unwrap_or_else(|| panic!("{what} is one of ours"))).expect("decodes");
                        let theirs = decode_any(&jpeg, &info, eighths).expect("decodes");
                        assert_eq!((ours.width(), ours.height()), (theirs.width(), theirs.height()));
                        let [(far, mean), (far_color, mean_color)] = apart(&ours, &theirs);
                        assert!(
                            far <= far_max && mean <= mean_max,
                            "{what}: light {far} apart, {mean} in the mean"
                        );
                        // In a picture smaller than a block, a sample of half the colour is mostly of what lies outside.
                        if !full_chroma && width.min(height) < 16 {
                            continue;
                        }
                        let (far_max, mean_max) = if full_chroma {
                            (far_max * 1.2, mean_max * 1.2)
                        } else {
                            (80.0, 16.0)
                        };
                        assert!(
                            far_color <= far_max && mean_color <= mean_max,
                            "{what}: colours {far_color} apart, {mean_color} in the mean"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_ours_is_left_to_the_library() {
        let jpeg = encode(&gradient(64, 64), SETTINGS, Meta::default()).expect("encodes");
        assert!(scaled::planes(&jpeg, 64, 64, 8).is_none() && scaled::planes(&jpeg, 64, 63, 2).is_none());
        let progressive = encode(
            &gradient(64, 64),
            Settings {
                progressive: true,
                ..SETTINGS
            },
            Meta::default(),
        )
        .expect("encodes");
        for jpeg in [jpeg, progressive] {
            for cut in 0..jpeg.len() - 3 {
                assert!(
                    scaled::planes(&jpeg[..cut], 64, 64, 2).is_none(),
                    "cut at {cut} of {}",
                    jpeg.len()
                );
            }
            for at in 0..jpeg.len() {
                let mut wrong = jpeg.clone();
                wrong[at] ^= 0x55;
                let _any = scaled::planes(&wrong, 64, 64, 4);
            }
        }
    }

    #[test]
    fn the_scale_leaves_what_is_asked() {
        let jpeg = encode(&gradient(800, 400), SETTINGS, Meta::default()).expect("encodes");
        let info = header::read(&jpeg, 1).expect("sound");
        for (width, height, wanted) in [
            (100.0, 50.0, 1),
            (101.0, 50.0, 2),
            (100.0, 51.0, 2),
            (200.0, 100.0, 2),
            (300.0, 0.0, 4),
            (401.0, 0.0, 8),
            (5000.0, 0.0, 8),
        ] {
            assert_eq!(eighths(&info, width, height), wanted, "{width}x{height}");
        }
    }

    #[test]
    fn a_file_that_breaks_off_keeps_its_top() {
        let jpeg = encode(&gradient(64, 64), SETTINGS, Meta::default()).expect("encodes");
        let info = header::read(&jpeg, 1).expect("sound");
        let picture = decode(&jpeg[..jpeg.len() / 2 + 300], &info, 8).expect("the top is there");
        assert!(near(&picture, 32, 2, [127, 8, 90]), "{:?}", picture.pixel(32, 2));
        assert!(decode(&jpeg[..20], &info, 8).is_err());
        assert!(decode(b"\xff\xd8\xff", &info, 8).is_err());
    }
}
