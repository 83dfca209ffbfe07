//! Files of frames with checksums, as the log and the snapshot of a member are written.
//!
//! A file is a head of 16 bytes (magic, format, checksum of both) and frames. Numbers are little-endian, checksums CRC-32 (IEEE):
//! ```text
//! u32 length of payload | u64 number | u32 checksum of payload | u32 checksum of the 16 bytes before | payload
//! ```
//! One write is one frame, synced before the next is written, so a crash can tear only the last frame, and a torn frame is short or has a
//! sector of zeros. Anything else that does not check is damage of something that was durable.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::Path;

use super::Error;

pub(super) const LOG_MAGIC: &[u8; 8] = b"FERRPDLG";
pub(super) const SNAPSHOT_MAGIC: &[u8; 8] = b"FERRPDSN";
pub(super) const HEAD_BYTES: usize = 16;
const FRAME_HEAD_BYTES: usize = 20;
/// What a disk writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;

pub(super) fn head(magic: &[u8; 8], format: u32) -> Vec<u8> {
    let mut head = magic.to_vec();
    head.extend(format.to_le_bytes());
    head.extend(crc32fast::hash(&head).to_le_bytes());
    head
}

/// The format that a file of this kind is in.
pub(super) fn format_of(path: &Path, bytes: &[u8], magic: &[u8; 8]) -> Result<u32, Error> {
    let whole = bytes
        .get(..HEAD_BYTES)
        .ok_or_else(|| damaged(path, 0, "its head is cut short"))?;
    if whole[..8] != magic[..] || crc32fast::hash(&whole[..12]) != u32_at(whole, 12) {
        return Err(damaged(path, 0, "its head does not check"));
    }
    Ok(u32_at(whole, 8))
}

/// What is read of a log: its frames in order, up to a torn end.
pub(super) struct Frames<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    /// Where the good frames end.
    pub end: usize,
}

impl<'a> Frames<'a> {
    /// Of a file whose head was checked.
    pub fn new(path: &'a Path, bytes: &'a [u8]) -> Frames<'a> {
        Frames {
            path,
            bytes,
            end: HEAD_BYTES,
        }
    }

    /// The next frame's number and payload; none at the end.
    pub fn next(&mut self) -> Result<Option<(u64, &'a [u8])>, Error> {
        let rest = &self.bytes[self.end..];
        if rest.is_empty() {
            return Ok(None);
        }
        match read_frame(rest) {
            Ok((number, payload)) => {
                self.end += FRAME_HEAD_BYTES + payload.len();
                Ok(Some((number, payload)))
            }
            Err(_) if may_be_torn(rest, self.end) => Ok(None),
            Err(what) => Err(damaged(self.path, self.end, what)),
        }
    }
}

pub(super) fn frame(number: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_HEAD_BYTES + payload.len());
    frame.extend(
        u32::try_from(payload.len())
            .expect("a batch or a state is far below 4 GiB")
            .to_le_bytes(),
    );
    frame.extend(number.to_le_bytes());
    frame.extend(crc32fast::hash(payload).to_le_bytes());
    frame.extend(crc32fast::hash(&frame).to_le_bytes());
    frame.extend(payload);
    frame
}

/// Number and payload of the frame at the front of `bytes`, or what is wrong with it.
pub(super) fn read_frame(bytes: &[u8]) -> Result<(u64, &[u8]), &'static str> {
    let head = read_frame_head(bytes)?;
    let payload = bytes[FRAME_HEAD_BYTES..]
        .get(..head.payload_bytes)
        .ok_or("its payload is cut short")?;
    if crc32fast::hash(payload) != head.payload_checksum {
        return Err("its payload does not check");
    }
    Ok((head.index, payload))
}

struct FrameHead {
    payload_bytes: usize,
    index: u64,
    payload_checksum: u32,
}

fn read_frame_head(bytes: &[u8]) -> Result<FrameHead, &'static str> {
    let head = bytes.get(..FRAME_HEAD_BYTES).ok_or("its head is cut short")?;
    if crc32fast::hash(&head[..16]) != u32_at(head, 16) {
        return Err("its head does not check");
    }
    let index = u64::from_le_bytes(head[4..12].try_into().expect("eight bytes"));
    Ok(FrameHead {
        payload_bytes: u32_at(head, 0) as usize,
        index,
        payload_checksum: u32_at(head, 12),
    })
}

/// Whether the bad frame at the front of `rest`, which begins at byte `at` of the file and ends with it, may be a write that a crash
/// tore: nothing good follows, and it is short or misses a sector.
fn may_be_torn(rest: &[u8], at: usize) -> bool {
    if (1..rest.len()).any(|skip| read_frame(&rest[skip..]).is_ok()) {
        return false;
    }
    match read_frame_head(rest) {
        Ok(head) => match rest.len().checked_sub(FRAME_HEAD_BYTES + head.payload_bytes) {
            None => true,
            Some(behind) => behind == 0 && has_zero_sector(rest, at),
        },
        Err(_) => rest.len() < FRAME_HEAD_BYTES || has_zero_sector(rest, at),
    }
}

/// Whether some sector of the file is all zeros as far as it lies in `bytes`, which begin at byte `at`.
fn has_zero_sector(bytes: &[u8], at: usize) -> bool {
    let (first, others) = bytes.split_at(bytes.len().min(SECTOR_BYTES - at % SECTOR_BYTES));
    std::iter::once(first)
        .chain(others.chunks(SECTOR_BYTES))
        .any(|sector| sector.iter().all(|&byte| byte == 0))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Puts a whole file in place of the old one, durably: after a crash it is the old or the new.
pub(super) fn write_new(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let (temporary, path) = (dir.join(format!("{name}.tmp")), dir.join(name));
    let mut file = File::create(&temporary).map_err(io_error("create", &temporary))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(io_error("write", &temporary))?;
    fs::rename(&temporary, &path).map_err(io_error("replace", &path))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))
}

pub(super) fn lock(path: &Path) -> Result<File, Error> {
    let file = File::create(path).map_err(io_error("create", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked {
            path: path.display().to_string(),
        }),
        Err(TryLockError::Error(e)) => Err(io_error("lock", path)(e)),
    }
}

pub(super) fn io_error(act: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io {
        act,
        path: path.display().to_string(),
        source,
    }
}

pub(super) fn damaged(path: &Path, at: usize, what: &'static str) -> Error {
    Error::Damaged {
        path: path.display().to_string(),
        at: at as u64,
        what,
    }
}
