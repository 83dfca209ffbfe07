//! A log on disk, for a placement driver of one member.
//!
//! The directory holds `log`, `snapshot` and `lock`. Numbers are little-endian, checksums CRC-32 (IEEE). `log` is a head of 16 bytes
//! (`FERRPDLG`, format, checksum of both) and frames; `snapshot` is a head (`FERRPDSN`) and one frame:
//! ```text
//! u32 length of payload | u64 index | u32 checksum of payload | u32 checksum of the 16 bytes before | payload
//! ```
//! A frame of `log` carries a `LogBatch`, and `index` is that of its first command; the frame of `snapshot` carries a `State`, and
//! `index` is that of the last command in it. One poll writes one frame and syncs it before the next is written, so a crash can tear
//! only the last frame, and a torn frame is short or has a sector of zeros. Anything else that does not check is damage of
//! something that was durable, and opening refuses it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prost::Message;
use proto::ferrite_pd as record;
use proto::ferrite_pd::LogBatch;

use super::{Error, LogEvent, Proposal, Recovered, ReplicatedLog};

const FORMAT: u32 = 1;
const LOG_MAGIC: &[u8; 8] = b"FERRPDLG";
const SNAPSHOT_MAGIC: &[u8; 8] = b"FERRPDSN";
const HEAD_BYTES: usize = 16;
const FRAME_HEAD_BYTES: usize = 20;
/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// See the module.
#[derive(Debug)]
pub struct FileLog {
    dir: PathBuf,
    file: File,
    /// Where each frame of the file starts, and the index of its first command.
    frames: Vec<(u64, usize)>,
    file_bytes: usize,
    /// Index of the last command in the file.
    last: u64,
    /// What the first poll returns: the commands found when opened.
    replay: Option<Vec<LogEvent>>,
    proposed: Vec<Proposal>,
    /// Held for as long as the log is open.
    _lock: File,
}

impl FileLog {
    /// Opens the log in `dir`, making both if there is none. A torn end is cut off; other damage is an error.
    pub fn open(dir: &Path) -> Result<(FileLog, Recovered), Error> {
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        let lock = lock(&dir.join("lock"))?;
        let recovered = read_snapshot(&dir.join("snapshot"))?;
        let path = dir.join("log");
        if !fs::exists(&path).map_err(io_error("open", &path))? {
            if recovered.state.is_some() {
                return Err(damaged(&path, 0, "it is missing, but there is a snapshot"));
            }
            write_new(dir, "log", &head(LOG_MAGIC))?;
        }
        let bytes = fs::read(&path).map_err(io_error("read", &path))?;
        let scan = Scan::new(&path, &bytes, recovered.index)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(io_error("open", &path))?;
        if scan.end < bytes.len() {
            tracing::info!(path = %path.display(), bytes = bytes.len() - scan.end, "cut off a write that a crash tore");
            file.set_len(scan.end as u64)
                .and_then(|()| file.sync_all())
                .map_err(io_error("truncate", &path))?;
        }
        let Scan {
            frames,
            end,
            last,
            mut events,
            ..
        } = scan;
        events.push(LogEvent::Leads);
        let (dir, proposed) = (dir.to_owned(), Vec::new());
        Ok((
            FileLog {
                dir,
                file,
                frames,
                file_bytes: end,
                last,
                replay: Some(events),
                proposed,
                _lock: lock,
            },
            recovered,
        ))
    }

    fn append(&mut self, proposals: Vec<Proposal>) -> Result<Vec<LogEvent>, Error> {
        let first = self.last + 1;
        let commands = proposals
            .iter()
            .map(|proposal| record::Command {
                kind: Some(proposal.command.clone()),
            })
            .collect();
        let frame = frame(first, &LogBatch { commands }.encode_to_vec());
        let path = self.dir.join("log");
        self.file.write_all(&frame).map_err(io_error("write", &path))?;
        self.file.sync_data().map_err(io_error("sync", &path))?;
        self.frames.push((first, self.file_bytes));
        self.file_bytes += frame.len();
        self.last += proposals.len() as u64;
        let committed = |(Proposal { id, command }, index)| LogEvent::Committed {
            index,
            proposal: Some(id),
            command,
        };
        Ok(proposals.into_iter().zip(first..).map(committed).collect())
    }
}

impl ReplicatedLog for FileLog {
    fn propose(&mut self, proposals: Vec<Proposal>) -> Result<(), Error> {
        self.proposed.extend(proposals);
        Ok(())
    }

    fn poll(&mut self) -> Result<Vec<LogEvent>, Error> {
        let mut events = self.replay.take().unwrap_or_default();
        let proposals = std::mem::take(&mut self.proposed);
        if !proposals.is_empty() {
            events.extend(self.append(proposals)?);
        }
        Ok(events)
    }

    fn snapshot(&mut self, index: u64, state: &record::State) -> Result<(), Error> {
        let mut bytes = head(SNAPSHOT_MAGIC);
        bytes.extend(frame(index, &state.encode_to_vec()));
        write_new(&self.dir, "snapshot", &bytes)?;
        // From here on a crash finds a log that begins before the snapshot: what is in both is skipped.
        let path = self.dir.join("log");
        // Frames that begin at or below `index` may still hold later commands; only those before the last such frame can go.
        let keep = self.frames.partition_point(|&(first, _)| first <= index).saturating_sub(1);
        let from = self.frames.get(keep).map_or(self.file_bytes, |&(_, start)| start);
        let old = fs::read(&path).map_err(io_error("read", &path))?;
        let mut bytes = head(LOG_MAGIC);
        bytes.extend(&old[from..self.file_bytes]);
        write_new(&self.dir, "log", &bytes)?;
        self.file = OpenOptions::new().append(true).open(&path).map_err(io_error("open", &path))?;
        self.frames.drain(..keep);
        self.frames
            .iter_mut()
            .for_each(|(_, start)| *start = *start - from + HEAD_BYTES);
        self.file_bytes = bytes.len();
        Ok(())
    }
}

/// What a log file holds.
struct Scan {
    frames: Vec<(u64, usize)>,
    /// Where the good frames end.
    end: usize,
    /// Index of the command that the next frame must begin with; none before the first frame.
    next: Option<u64>,
    last: u64,
    events: Vec<LogEvent>,
}

impl Scan {
    /// Reads all frames; commands up to `snapshot` are skipped.
    fn new(path: &Path, bytes: &[u8], snapshot: u64) -> Result<Scan, Error> {
        check_head(path, bytes, LOG_MAGIC)?;
        let mut scan = Scan {
            frames: Vec::new(),
            end: HEAD_BYTES,
            next: None,
            last: snapshot,
            events: Vec::new(),
        };
        while scan.end < bytes.len() {
            let rest = &bytes[scan.end..];
            match read_frame(rest) {
                Ok((index, payload)) => scan.on_frame(path, index, payload)?,
                Err(_) if may_be_torn(rest, scan.end) => break,
                Err(what) => return Err(damaged(path, scan.end, what)),
            }
        }
        if scan.next.unwrap_or(1) <= snapshot {
            return Err(damaged(path, scan.end, "it ends before the snapshot does"));
        }
        Ok(scan)
    }

    fn on_frame(&mut self, path: &Path, first: u64, payload: &[u8]) -> Result<(), Error> {
        let follows = match self.next {
            None => first <= self.last + 1, // after a snapshot the log may begin with commands that are in it
            Some(next) => first == next,
        };
        if !follows {
            return Err(damaged(path, self.end, "commands before it are missing"));
        }
        let batch = LogBatch::decode(payload).map_err(|_| damaged(path, self.end, "its commands cannot be read"))?;
        self.frames.push((first, self.end));
        let next = first + batch.commands.len() as u64;
        for (command, index) in batch
            .commands
            .into_iter()
            .zip(first..)
            .skip_while(|(_, index)| *index <= self.last)
        {
            let command = command
                .kind
                .ok_or_else(|| damaged(path, self.end, "this version does not know one of its commands"))?;
            self.events.push(LogEvent::Committed {
                index,
                proposal: None,
                command,
            });
        }
        self.next = Some(next);
        self.last = self.last.max(next - 1);
        self.end += FRAME_HEAD_BYTES + payload.len();
        Ok(())
    }
}

fn head(magic: &[u8; 8]) -> Vec<u8> {
    let mut head = magic.to_vec();
    head.extend(FORMAT.to_le_bytes());
    head.extend(crc32fast::hash(&head).to_le_bytes());
    head
}

fn check_head(path: &Path, bytes: &[u8], magic: &[u8; 8]) -> Result<(), Error> {
    let whole = bytes
        .get(..HEAD_BYTES)
        .ok_or_else(|| damaged(path, 0, "its head is cut short"))?;
    if whole[..8] != magic[..] || crc32fast::hash(&whole[..12]) != u32_at(whole, 12) {
        return Err(damaged(path, 0, "its head does not check"));
    }
    match u32_at(whole, 8) {
        FORMAT => Ok(()),
        found => Err(Error::Format {
            path: path.display().to_string(),
            found,
            wanted: FORMAT,
        }),
    }
}

fn frame(index: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_HEAD_BYTES + payload.len());
    frame.extend(
        u32::try_from(payload.len())
            .expect("a batch or a state is far below 4 GiB")
            .to_le_bytes(),
    );
    frame.extend(index.to_le_bytes());
    frame.extend(crc32fast::hash(payload).to_le_bytes());
    frame.extend(crc32fast::hash(&frame).to_le_bytes());
    frame.extend(payload);
    frame
}

/// Index and payload of the frame at the front of `bytes`, or what is wrong with it.
fn read_frame(bytes: &[u8]) -> Result<(u64, &[u8]), &'static str> {
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

fn read_snapshot(path: &Path) -> Result<Recovered, Error> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Recovered::default()),
        Err(e) => return Err(io_error("read", path)(e)),
    };
    check_head(path, &bytes, SNAPSHOT_MAGIC)?;
    let (index, payload) = read_frame(&bytes[HEAD_BYTES..]).map_err(|what| damaged(path, HEAD_BYTES, what))?;
    let state = record::State::decode(payload).map_err(|_| damaged(path, HEAD_BYTES, "its state cannot be read"))?;
    Ok(Recovered {
        index,
        state: Some(state),
    })
}

/// Puts a whole file in place of the old one, durably: after a crash it is the old or the new.
fn write_new(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let (temporary, path) = (dir.join(format!("{name}.tmp")), dir.join(name));
    let mut file = File::create(&temporary).map_err(io_error("create", &temporary))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(io_error("write", &temporary))?;
    fs::rename(&temporary, &path).map_err(io_error("replace", &path))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))
}

fn lock(path: &Path) -> Result<File, Error> {
    let file = File::create(path).map_err(io_error("create", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked {
            path: path.display().to_string(),
        }),
        Err(TryLockError::Error(e)) => Err(io_error("lock", path)(e)),
    }
}

fn io_error(act: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io {
        act,
        path: path.display().to_string(),
        source,
    }
}

fn damaged(path: &Path, at: usize, what: &'static str) -> Error {
    Error::Damaged {
        path: path.display().to_string(),
        at: at as u64,
        what,
    }
}

#[cfg(test)]
mod tests;
