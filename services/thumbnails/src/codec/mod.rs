//! Decoders and encoders, one module each. Those in C are reached by FFI there and nowhere else.
//!
//! What they get was sniffed and met the limits before ([`crate::header`], [`crate::limits`]); what they return is a [`crate::picture::Picture`].

#[cfg(any(feature = "avif", feature = "rav1e"))]
pub mod avif;
pub mod gif;
pub mod jpeg;
pub mod other;
pub mod png;
pub mod scaled;
pub mod svg;
pub mod webp;

/// Why a picture cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The source is damaged, or of a kind that the decoder does not know.
    #[error("decode {format}: {why}")]
    Decode { format: &'static str, why: String },
    /// Ours to explain.
    #[error("encode {format}: {why}")]
    Encode { format: &'static str, why: String },
}

impl CodecError {
    /// Of a decoder.
    pub fn decode(format: &'static str, why: impl ToString) -> CodecError {
        CodecError::Decode {
            format,
            why: why.to_string(),
        }
    }

    /// Of an encoder.
    pub fn encode(format: &'static str, why: impl ToString) -> CodecError {
        CodecError::Encode {
            format,
            why: why.to_string(),
        }
    }
}

/// What goes into a result beside pixels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meta<'a> {
    pub icc: Option<&'a [u8]>,
    /// A TIFF structure, without a header of the format around it.
    pub exif: Option<&'a [u8]>,
    /// A packet, likewise. Not written to AVIF and GIF.
    pub xmp: Option<&'a [u8]>,
    /// Records, likewise. Written to JPEG alone.
    pub iptc: Option<&'a [u8]>,
}
