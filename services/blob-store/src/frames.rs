//! How content rests on disk: as it is, or as zstd frames of [`FRAME`] bytes each with a table behind them.
//!
//! A compressed file is what the zstd project calls its seekable format: frames, then a skippable frame that holds the table.
//! Any zstd tool reads it, a range needs its own frames alone, and the frames without the table are a valid answer to
//! clients who take zstd. Content below [`SMALL`] is one frame without a table.

use parking_lot::Mutex;
use zstd::bulk::{Compressor, Decompressor};

use crate::Error;

/// Content of one frame, but for the last, which may be shorter. Twice the size would shrink build outputs by 2 % more and
/// double what every upload in flight holds.
pub const FRAME: usize = 128 << 10;
/// Content below this shares files with other content; above, each has its own.
pub const SMALL: usize = 64 << 10;

/// Of content that does not shrink below this many tenths, the original is kept.
const WORTH_TENTHS: usize = 9;
/// A skippable frame of the seekable format.
const TABLE_MAGIC: u32 = 0x184D_2A5E;
/// Last four bytes of a table.
const FOOTER_MAGIC: u32 = 0x8F92_EAB1;
/// Bytes of a table beside its entries: frame header (8) and footer (9).
const TABLE_FRAME: u64 = 17;
/// Bytes of a table per frame: compressed and original size.
const TABLE_ENTRY: u64 = 8;
/// Most bytes that a frame is larger than its content.
pub(crate) const FRAME_GROWTH: usize = 32;
/// Contexts kept for reuse; more may exist while more threads work.
const POOL_MAX: usize = 32;

/// How the bytes of a blob lie on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As they were uploaded.
    Raw,
    /// zstd frames.
    Zstd,
}

/// zstd contexts: making one costs as much as compressing 100 KiB.
pub(crate) struct Codec {
    level: i32,
    compressors: Mutex<Vec<Compressor<'static>>>,
    decompressors: Mutex<Vec<Decompressor<'static>>>,
}

impl Codec {
    pub(crate) fn new(level: i32) -> Codec {
        Codec {
            level,
            compressors: Mutex::default(),
            decompressors: Mutex::default(),
        }
    }

    /// One frame with `bytes`, checksum included.
    pub(crate) fn compress(&self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let taken = self.compressors.lock().pop();
        let mut compressor = match taken {
            Some(compressor) => compressor,
            None => self.compressor().map_err(Error::io("make a zstd context"))?,
        };
        let frame = compressor.compress(bytes).map_err(Error::io("compress"))?;
        give_back(&self.compressors, compressor);
        Ok(frame)
    }

    fn compressor(&self) -> std::io::Result<Compressor<'static>> {
        let mut compressor = Compressor::new(self.level)?;
        compressor.include_checksum(true)?;
        Ok(compressor)
    }

    /// The content of `frame`, which must be `len` bytes: a frame that says otherwise is damaged, and none can make us
    /// allocate more.
    pub(crate) fn decompress(&self, frame: &[u8], len: usize) -> Result<Vec<u8>, Error> {
        let taken = self.decompressors.lock().pop();
        let mut decompressor = match taken {
            Some(decompressor) => decompressor,
            None => Decompressor::new().map_err(Error::io("make a zstd context"))?,
        };
        let content = decompressor.decompress(frame, len).map_err(|_| Error::Damaged)?;
        give_back(&self.decompressors, decompressor);
        if content.len() == len {
            Ok(content)
        } else {
            Err(Error::Damaged)
        }
    }

    /// `bytes` in the form in which they are kept.
    pub(crate) fn fit(&self, bytes: &[u8]) -> Result<(Form, Vec<u8>), Error> {
        if !is_compressed(bytes) {
            let frame = self.compress(bytes)?;
            if is_worth(bytes.len(), frame.len()) {
                return Ok((Form::Zstd, frame));
            }
        }
        Ok((Form::Raw, bytes.to_vec()))
    }

    /// Whether content that starts with `head` is worth compressing.
    pub(crate) fn is_worth(&self, head: &[u8]) -> Result<bool, Error> {
        Ok(!is_compressed(head) && is_worth(head.len(), self.compress(head)?.len()))
    }
}

fn give_back<T>(pool: &Mutex<Vec<T>>, context: T) {
    let mut pool = pool.lock();
    if pool.len() < POOL_MAX {
        pool.push(context);
    }
}

pub(crate) fn is_worth(original: usize, compressed: usize) -> bool {
    compressed * 10 <= original * WORTH_TENTHS
}

/// Whether the first bytes are those of a compressed format.
fn is_compressed(head: &[u8]) -> bool {
    const MAGICS: [&[u8]; 7] = [
        &[0x28, 0xB5, 0x2F, 0xFD],       // zstd
        &[0x1F, 0x8B],                   // gzip
        b"PK\x03\x04",                   // zip, jar
        &[0xFD, b'7', b'z', b'X', b'Z'], // xz
        b"BZh",                          // bzip2
        b"\x89PNG",
        &[0xFF, 0xD8, 0xFF], // jpeg
    ];
    MAGICS.iter().any(|magic| head.starts_with(magic))
}

/// Frames that content of `len` bytes has.
pub fn frames_of(len: u64) -> u64 {
    len.div_ceil(FRAME as u64)
}

/// Bytes of the table behind `frames` frames.
pub fn table_len(frames: u64) -> u64 {
    TABLE_FRAME + TABLE_ENTRY * frames
}

/// Most bytes that content of `len` bytes takes on disk: incompressible frames grow by their headers.
pub(crate) fn stored_max(len: u64) -> u64 {
    len + frames_of(len) * FRAME_GROWTH as u64 + table_len(frames_of(len))
}

/// Where each frame of a blob lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Offset at which frame `n` starts; one more, at which the last one ends.
    starts: Vec<u64>,
}

impl Table {
    /// Of frames with these compressed sizes.
    pub fn from_sizes(sizes: &[u32]) -> Table {
        let mut end = 0;
        let ends = sizes.iter().map(|size| {
            end += u64::from(*size);
            end
        });
        Table {
            starts: std::iter::once(0).chain(ends).collect(),
        }
    }

    /// Reads the table of a blob of `len` bytes whose file has `stored` bytes and ends with `bytes`.
    /// Errors unless it is exactly the table that such a blob has.
    pub fn decode(bytes: &[u8], len: u64, stored: u64) -> Result<Table, Error> {
        let frames = frames_of(len);
        let wanted = table_len(frames);
        if bytes.len() as u64 != wanted || stored < wanted {
            return Err(Error::Damaged);
        }
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let footer = bytes.len() - 9;
        let is_framed = word(0) == TABLE_MAGIC && u64::from(word(4)) == wanted - 8;
        let is_footed = u64::from(word(footer)) == frames && bytes[footer + 4] == 0 && word(footer + 5) == FOOTER_MAGIC;
        if !is_framed || !is_footed {
            return Err(Error::Damaged);
        }
        let sizes: Vec<u32> = (0..frames as usize).map(|frame| word(8 + 8 * frame)).collect();
        let fits = (0..frames).all(|frame| u64::from(word(12 + 8 * frame as usize)) == frame_len(len, frame));
        let table = Table::from_sizes(&sizes);
        if fits && table.end() == stored - wanted {
            Ok(table)
        } else {
            Err(Error::Damaged)
        }
    }

    /// The bytes of the table for content of `len` bytes.
    pub fn encode(&self, len: u64) -> Vec<u8> {
        let frames = (self.starts.len() - 1) as u64;
        let mut bytes = Vec::with_capacity(table_len(frames) as usize);
        bytes.extend(TABLE_MAGIC.to_le_bytes());
        bytes.extend((table_len(frames) as u32 - 8).to_le_bytes());
        for (frame, ends) in self.starts.windows(2).enumerate() {
            bytes.extend(((ends[1] - ends[0]) as u32).to_le_bytes());
            bytes.extend((frame_len(len, frame as u64) as u32).to_le_bytes());
        }
        bytes.extend((frames as u32).to_le_bytes());
        bytes.push(0);
        bytes.extend(FOOTER_MAGIC.to_le_bytes());
        bytes
    }

    /// Bytes `[start, end)` in which frame number `frame` lies.
    pub fn frame(&self, frame: u64) -> (u64, u64) {
        let at = frame as usize;
        (self.starts[at], self.starts[at + 1])
    }

    /// Where the last frame ends.
    pub fn end(&self) -> u64 {
        *self.starts.last().expect("a table has at least the start of nothing")
    }
}

/// Content of frame number `frame` in a blob of `len` bytes.
pub fn frame_len(len: u64, frame: u64) -> u64 {
    (len - frame * FRAME as u64).min(FRAME as u64)
}

/// A zstd frame around `bytes` that compresses nothing, for clients who asked for zstd where none is at rest: header
/// (no size, no checksum, a window of 128 KiB), then blocks of kind "raw". RFC 8878, sections 3.1.1.1 and 3.1.1.2.
pub fn wrap_raw(bytes: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 128 << 10;
    const HEADER: [u8; 6] = [0x28, 0xB5, 0x2F, 0xFD, 0x00, 7 << 3];
    let blocks = bytes.len().div_ceil(BLOCK).max(1);
    let mut frame = Vec::with_capacity(HEADER.len() + bytes.len() + 3 * blocks);
    frame.extend(HEADER);
    for block in 0..blocks {
        let content = &bytes[block * BLOCK..bytes.len().min((block + 1) * BLOCK)];
        let header = (content.len() as u32) << 3 | u32::from(block + 1 == blocks);
        frame.extend(&header.to_le_bytes()[..3]);
        frame.extend(content);
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn raw_wrapping_is_zstd() {
        for len in [0, 1, 1000, 128 << 10, (128 << 10) + 1, 700_000] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
            let read = zstd::stream::decode_all(&wrap_raw(&bytes)[..]).expect("a valid frame");
            assert_eq!(read, bytes, "{len}");
        }
    }

    #[test]
    fn a_frame_that_claims_more_is_damaged() {
        let codec = Codec::new(1);
        let frame = codec.compress(&[0; 100_000]).expect("compresses");
        assert!(matches!(codec.decompress(&frame, 99_999), Err(Error::Damaged)));
        assert!(matches!(codec.decompress(&frame, 100_001), Err(Error::Damaged)));
        assert_eq!(codec.decompress(&frame, 100_000).expect("whole").len(), 100_000);
    }

    proptest! {
        #[test]
        fn tables_round_trip(sizes in proptest::collection::vec(1u32..200_000, 1..40), last in 1u64..=FRAME as u64) {
            let len = (sizes.len() as u64 - 1) * FRAME as u64 + last;
            let table = Table::from_sizes(&sizes);
            let bytes = table.encode(len);
            let stored = table.end() + bytes.len() as u64;
            prop_assert_eq!(Table::decode(&bytes, len, stored).expect("what was written"), table);
            prop_assert!(Table::decode(&bytes, len, stored + 1).is_err());
        }

        #[test]
        fn any_bytes_are_no_table_or_a_fitting_one(bytes in proptest::collection::vec(any::<u8>(), 0..200), len in 0u64..3_000_000) {
            if let Ok(table) = Table::decode(&bytes, len, 1 << 20) {
                prop_assert_eq!(table.starts.len() as u64, frames_of(len) + 1);
            }
        }
    }
}
