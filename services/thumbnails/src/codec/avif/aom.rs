//! AV1 by libaom: one picture in, one picture out.
#![allow(unsafe_code)] // bindings to C; each block has its reason

use std::ffi::{CStr, c_int, c_uint};
use std::mem::MaybeUninit;

use libaom_sys as raw;

use super::{NAME, Planes, Settings};
use crate::codec::CodecError;

/// What a decoder made: samples of 8 to 12 bits.
pub struct Decoded {
    pub width: u32,
    pub depth: u32,
    pub is_full_range: bool,
    /// Of CICP (ITU-T H.273).
    pub matrix: u32,
    pub is_grey: bool,
    /// Whether colour has half the resolution across and down.
    pub half: (bool, bool),
    /// Three planes, rows without gaps; one if grey.
    pub planes: Vec<Vec<u16>>,
}

/// An encoder or decoder, freed when dropped.
struct Codec(Box<raw::aom_codec_ctx_t>);

impl Codec {
    fn fault(&mut self) -> String {
        // SAFETY: the context is valid; the library returns a text with an end that lives as long as it.
        let text = unsafe { CStr::from_ptr(raw::aom_codec_error(&*self.0)) };
        text.to_string_lossy().into_owned()
    }

    fn control(&mut self, control: c_uint, value: c_int) -> Result<(), CodecError> {
        // SAFETY: the context is valid; all controls that are used take one number of this size.
        let status = unsafe { raw::aom_codec_control(&mut *self.0, control as c_int, value) };
        match status {
            raw::AOM_CODEC_OK => Ok(()),
            _ => Err(CodecError::encode(NAME, format!("control {control}: {}", self.fault()))),
        }
    }

    /// Takes the bytes that the encoder has ready.
    fn drain(&mut self, out: &mut Vec<u8>) {
        let mut iter = std::ptr::null();
        loop {
            // SAFETY: the context is valid; a packet lives until the next call, and is copied before it.
            unsafe {
                let packet = raw::aom_codec_get_cx_data(&mut *self.0, &mut iter);
                let Some(packet) = packet.as_ref() else { return };
                if packet.kind == raw::AOM_CODEC_CX_FRAME_PKT {
                    let frame = &packet.data.frame;
                    out.extend_from_slice(std::slice::from_raw_parts(frame.buf.cast::<u8>(), frame.sz));
                }
            }
        }
    }
}

impl Drop for Codec {
    fn drop(&mut self) {
        // SAFETY: initialised, destroyed once.
        unsafe { raw::aom_codec_destroy(&mut *self.0) };
    }
}

fn encoder(planes: &Planes, quantizer: u8) -> Result<Codec, CodecError> {
    let refused = || CodecError::encode(NAME, "the encoder refuses its settings");
    let mut config = MaybeUninit::<raw::aom_codec_enc_cfg_t>::zeroed();
    let mut context = Box::new(MaybeUninit::<raw::aom_codec_ctx_t>::zeroed());
    // SAFETY: zero is valid for both structs of numbers and pointers; the library fills the first, which is then changed by name, and
    // initialises the second, which stays where it is in its box. The version is that of the bindings.
    unsafe {
        let interface = raw::aom_codec_av1_cx();
        if raw::aom_codec_enc_config_default(interface, config.as_mut_ptr(), raw::AOM_USAGE_ALL_INTRA) != raw::AOM_CODEC_OK {
            return Err(refused());
        }
        let mut config = config.assume_init();
        (config.g_w, config.g_h) = (planes.width, planes.height);
        config.g_limit = 1;
        config.g_lag_in_frames = 0;
        config.g_threads = 1;
        config.g_bit_depth = raw::AOM_BITS_8;
        config.g_input_bit_depth = 8;
        config.rc_end_usage = raw::AOM_Q;
        config.rc_min_quantizer = u32::from(quantizer.saturating_sub(8));
        config.rc_max_quantizer = u32::from(quantizer.saturating_add(8).min(63));
        config.monochrome = c_uint::from(planes.is_grey);
        let version = raw::AOM_ENCODER_ABI_VERSION as c_int;
        if raw::aom_codec_enc_init_ver(context.as_mut_ptr(), interface, &config, 0, version) != raw::AOM_CODEC_OK {
            return Err(refused());
        }
        Ok(Codec(Box::from_raw(Box::into_raw(context).cast())))
    }
}

/// Encodes one picture.
pub fn encode(planes: &mut Planes, settings: Settings) -> Result<Vec<u8>, CodecError> {
    // Of 0 (best) to 63.
    let quantizer = ((100 - u32::from(settings.quality.min(100))) * 63 / 100) as u8;
    let (luma, color) = planes.lens();
    // The library reads three planes of every picture; those of a grey one count for nothing.
    planes.samples.resize(luma + 2 * color, 128);
    let mut codec = encoder(planes, quantizer)?;
    codec.control(raw::AOME_SET_CPUUSED, c_int::from(settings.speed.min(9)))?;
    codec.control(raw::AOME_SET_CQ_LEVEL, c_int::from(quantizer))?;
    codec.control(raw::AV1E_SET_COLOR_RANGE, raw::AOM_CR_FULL_RANGE as c_int)?;
    // Matrices of quantizers and sharper edges: of `bench.py`, like size and likeness (SSIM) at less than sharp's bytes.
    codec.control(raw::AOME_SET_TUNING, raw::AOM_TUNE_SSIM as c_int)?;
    codec.control(raw::AOME_SET_SHARPNESS, 1)?;
    codec.control(raw::AV1E_SET_ENABLE_QM, 1)?;
    // sRGB light in the matrix of BT.601, as most files have it.
    codec.control(raw::AV1E_SET_COLOR_PRIMARIES, 1)?;
    codec.control(raw::AV1E_SET_TRANSFER_CHARACTERISTICS, 13)?;
    codec.control(raw::AV1E_SET_MATRIX_COEFFICIENTS, raw::AOM_CICP_MC_BT_601 as c_int)?;
    let mut image = MaybeUninit::<raw::aom_image_t>::zeroed();
    // SAFETY: zero is valid for the image, which the library sets up around the buffer; its planes and strides are then set to where ours
    // are, as computed above for the buffer's length. The buffer lives through the call.
    let status = unsafe {
        let start = planes.samples.as_mut_ptr();
        if raw::aom_img_wrap(
            image.as_mut_ptr(),
            raw::AOM_IMG_FMT_I420,
            planes.width,
            planes.height,
            1,
            start,
        )
        .is_null()
        {
            return Err(CodecError::encode(NAME, "no picture of this size"));
        }
        let mut image = image.assume_init();
        image.planes = [start, start.add(luma), start.add(luma + color)];
        let half = planes.half().0 as c_int;
        image.stride = [planes.width as c_int, half, half];
        image.monochrome = c_int::from(planes.is_grey);
        image.range = raw::AOM_CR_FULL_RANGE;
        raw::aom_codec_encode(&mut *codec.0, &image, 0, 1, 0)
    };
    if status != raw::AOM_CODEC_OK {
        return Err(CodecError::encode(NAME, codec.fault()));
    }
    let mut out = Vec::new();
    codec.drain(&mut out);
    // SAFETY: no picture means that there are no more. The call forgets what was not taken before it.
    unsafe { raw::aom_codec_encode(&mut *codec.0, std::ptr::null(), 0, 1, 0) };
    codec.drain(&mut out);
    match out.is_empty() {
        true => Err(CodecError::encode(NAME, "the encoder gave nothing")),
        false => Ok(out),
    }
}

/// Decodes the first picture, which must have the size that was read from the file before.
pub fn decode(bytes: &[u8], width: u32, height: u32) -> Result<Decoded, CodecError> {
    let fault = |why: &str| CodecError::decode(NAME, why);
    let mut stream = MaybeUninit::<raw::aom_codec_stream_info_t>::zeroed();
    let mut context = Box::new(MaybeUninit::<raw::aom_codec_ctx_t>::zeroed());
    let config = raw::aom_codec_dec_cfg {
        threads: 1,
        w: 0,
        h: 0,
        allow_lowbitdepth: 1,
    };
    // SAFETY: zero is valid for both structs; the library reads the slice that it is given and initialises the context in its box.
    let mut codec = unsafe {
        let interface = raw::aom_codec_av1_dx();
        let status = raw::aom_codec_peek_stream_info(interface, bytes.as_ptr(), bytes.len(), stream.as_mut_ptr());
        let stream = stream.assume_init();
        // The sequence header bounds every picture in it: limits were met by this size, and nothing larger is decoded.
        if status != raw::AOM_CODEC_OK || (stream.w, stream.h) != (width, height) {
            return Err(fault("file and picture differ in size"));
        }
        let version = raw::AOM_DECODER_ABI_VERSION as c_int;
        if raw::aom_codec_dec_init_ver(context.as_mut_ptr(), interface, &config, 0, version) != raw::AOM_CODEC_OK {
            return Err(fault("the decoder does not start"));
        }
        Codec(Box::from_raw(Box::into_raw(context).cast()))
    };
    // SAFETY: the slice lives through the call.
    if unsafe { raw::aom_codec_decode(&mut *codec.0, bytes.as_ptr(), bytes.len(), std::ptr::null_mut()) } != raw::AOM_CODEC_OK {
        return Err(CodecError::decode(NAME, codec.fault()));
    }
    let mut iter = std::ptr::null();
    // SAFETY: the context is valid; the picture lives as long as no other call is made.
    let image = unsafe { raw::aom_codec_get_frame(&mut *codec.0, &mut iter).as_ref() };
    let image = image.ok_or_else(|| fault("no picture within"))?;
    if (image.d_w, image.d_h) != (width, height) {
        return Err(fault("file and picture differ in size"));
    }
    let is_grey = image.monochrome != 0;
    let half = (image.x_chroma_shift == 1, image.y_chroma_shift == 1);
    let planes = (0..if is_grey { 1 } else { 3 }).map(|plane| {
        let side = |side: u32, is_half: bool| if plane > 0 && is_half { side.div_ceil(2) } else { side } as usize;
        plane_samples(image, plane, side(width, half.0), side(height, half.1))
    });
    Ok(Decoded {
        width,
        depth: image.bit_depth,
        is_full_range: image.range == raw::AOM_CR_FULL_RANGE,
        matrix: image.mc,
        is_grey,
        half,
        planes: planes.collect::<Option<_>>().ok_or_else(|| fault("a plane is missing"))?,
    })
}

/// A plane's samples, whatever their width in memory.
fn plane_samples(image: &raw::aom_image_t, plane: usize, width: usize, height: usize) -> Option<Vec<u16>> {
    let is_wide = image.fmt & raw::AOM_IMG_FMT_HIGHBITDEPTH != 0;
    let start = image.planes[plane];
    let stride = usize::try_from(image.stride[plane]).ok()?;
    let bytes = width * if is_wide { 2 } else { 1 };
    if start.is_null() || stride < bytes {
        return None;
    }
    let mut samples = Vec::with_capacity(width * height);
    for row in 0..height {
        // SAFETY: the library's plane has `height` rows, `stride` bytes apart, each of at least `bytes` bytes.
        let row = unsafe { std::slice::from_raw_parts(start.add(row * stride), bytes) };
        match is_wide {
            true => samples.extend(row.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]]))),
            false => samples.extend(row.iter().copied().map(u16::from)),
        }
    }
    Some(samples)
}
