//! The log of a member on disk.
//!
//! The directory holds `log`, `snapshot` and `lock`; both files are made of frames (`super::frame`). A frame of `log` carries a `LogWrite`,
//! and its number counts the writes of the file from one. The frame of `snapshot` carries a `MemberSnapshot`, and its number is the index of
//! the last command in it. A new snapshot is written first, then the log anew without what is in it; at the first start it is the other
//! way round, so that no log is missing unless it was lost. The first write of a log names the position that it follows. A log that does not reach the snapshot's position with the same term is one that the snapshot of another
//! member was to replace: its entries are dropped.
//!
//! Data of format 1 is turned into format 2 when it is opened.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use prost::Message;
use proto::ferrite_pd::{self as record, LogWrite, MemberSnapshot};
use raftstore::storage::LogPosition;

use super::frame::{self, Frames, LOG_MAGIC, SNAPSHOT_MAGIC, damaged, io_error, write_new};
use super::{Error, HardState, Identity, Snapshot, Stored, Write, old};
use crate::MemberId;

const FORMAT: u32 = 2;

/// See the module.
#[derive(Debug)]
pub struct FileLog {
    dir: PathBuf,
    /// None before a new member has begun.
    file: Option<File>,
    /// Writes in the file.
    writes: u64,
    file_bytes: usize,
    stored: Stored,
    /// Held for as long as the log is open.
    _lock: File,
}

/// What a directory holds.
enum Found {
    Nothing,
    Log {
        stored: Box<Stored>,
        writes: u64,
        end: usize,
        torn: bool,
    },
    /// Data of format 1, as this format would have it.
    Old(Box<Stored>),
}

impl FileLog {
    /// Opens the log in `dir`, making both if there is none; a member that is new there gets the id `member_if_new`. A torn end is cut off;
    /// other damage is an error.
    pub fn open(dir: &Path, member_if_new: MemberId) -> Result<FileLog, Error> {
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        let lock = frame::lock(&dir.join("lock"))?;
        let (stored, writes, end) = match read(dir, member_if_new)? {
            Found::Nothing => (Stored::joining(member_if_new, 0, Vec::new()), 0, 0),
            Found::Old(stored) => {
                let end = write_whole(dir, &stored)?;
                (*stored, 1, end)
            }
            Found::Log {
                stored,
                writes,
                end,
                torn,
            } => {
                if torn {
                    cut(&dir.join("log"), end)?;
                }
                (*stored, writes, end)
            }
        };
        let mut log = FileLog {
            dir: dir.to_owned(),
            file: None,
            writes,
            file_bytes: end,
            stored,
            _lock: lock,
        };
        if writes > 0 {
            log.open_file()?;
        }
        Ok(log)
    }

    /// Whether nothing is on disk yet: it must [begin](FileLog::begin) before it is written to.
    pub fn is_new(&self) -> bool {
        self.file.is_none()
    }

    /// What is durable.
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Replaces everything: a member begins to take part.
    pub fn begin(&mut self, stored: Stored) -> Result<(), Error> {
        self.stored = stored;
        self.rewrite()
    }

    /// Makes a write durable.
    pub fn write(&mut self, write: &Write) -> Result<(), Error> {
        self.stored.apply(write);
        if write.snapshot.is_some() {
            return self.rewrite();
        }
        let frame = frame::frame(
            self.writes + 1,
            &log_write(self.stored.hard_state, None, write.entries.clone()).encode_to_vec(),
        );
        let path = self.dir.join("log");
        let file = self.file.as_mut().expect("a member begins before it writes");
        file.write_all(&frame).map_err(io_error("write", &path))?;
        file.sync_data().map_err(io_error("sync", &path))?;
        self.writes += 1;
        self.file_bytes += frame.len();
        Ok(())
    }

    fn rewrite(&mut self) -> Result<(), Error> {
        if self.is_new() {
            write_log(&self.dir, &self.stored)?;
        }
        self.file_bytes = write_whole(&self.dir, &self.stored)?;
        self.writes = 1;
        self.open_file()
    }

    fn open_file(&mut self) -> Result<(), Error> {
        let path = self.dir.join("log");
        self.file = Some(OpenOptions::new().append(true).open(&path).map_err(io_error("open", &path))?);
        Ok(())
    }
}

/// Cuts off what a crash tore.
fn cut(path: &Path, end: usize) -> Result<(), Error> {
    tracing::info!(path = %path.display(), "cut off a write that a crash tore");
    let file = OpenOptions::new().write(true).open(path).map_err(io_error("open", path))?;
    file.set_len(end as u64)
        .and_then(|()| file.sync_all())
        .map_err(io_error("truncate", path))
}

/// Writes both files anew, the snapshot first; returns the length of the log.
fn write_whole(dir: &Path, stored: &Stored) -> Result<usize, Error> {
    let Identity { member, group, founders } = stored.identity.clone();
    let position = stored.snapshot.position;
    let snapshot = MemberSnapshot {
        member_id: member.0,
        group,
        founders,
        term: position.term,
        conf_state: Some(stored.snapshot.conf_state.clone()),
        state: Some(stored.snapshot.state.clone()),
    };
    let mut bytes = frame::head(SNAPSHOT_MAGIC, FORMAT);
    bytes.extend(frame::frame(position.index, &snapshot.encode_to_vec()));
    write_new(dir, "snapshot", &bytes)?;
    write_log(dir, stored)
}

/// Writes the log anew; returns its length.
fn write_log(dir: &Path, stored: &Stored) -> Result<usize, Error> {
    let position = stored.snapshot.position;
    let write = log_write(stored.hard_state, Some(position), stored.entries.iter().cloned().collect());
    let mut bytes = frame::head(LOG_MAGIC, FORMAT);
    bytes.extend(frame::frame(1, &write.encode_to_vec()));
    write_new(dir, "log", &bytes)?;
    Ok(bytes.len())
}

fn log_write(hard_state: HardState, after: Option<LogPosition>, entries: Vec<proto::ferrite_raft::Entry>) -> LogWrite {
    let HardState { term, vote, commit } = hard_state;
    let after = after.unwrap_or_default();
    LogWrite {
        term,
        vote,
        commit,
        entries,
        after_index: after.index,
        after_term: after.term,
    }
}

fn read(dir: &Path, member_if_new: MemberId) -> Result<Found, Error> {
    let (log_path, snapshot_path) = (dir.join("log"), dir.join("snapshot"));
    let (log, snapshot) = (read_file(&log_path)?, read_file(&snapshot_path)?);
    let log_format = format(&log_path, log.as_deref(), LOG_MAGIC)?;
    let snapshot_format = format(&snapshot_path, snapshot.as_deref(), SNAPSHOT_MAGIC)?;
    match (log.as_deref(), snapshot.as_deref()) {
        (None, None) => Ok(Found::Nothing),
        (None, Some(_)) => Err(damaged(&log_path, 0, "it is missing, but there is a snapshot")),
        // It died in the middle of its upgrade.
        (Some(_), Some(snapshot)) if log_format == Some(old::FORMAT) && snapshot_format == Some(FORMAT) => {
            Ok(Found::Old(Box::new(read_snapshot(&snapshot_path, snapshot)?)))
        }
        (Some(log), snapshot) if log_format == Some(old::FORMAT) => {
            let (state, last) = old::read((&log_path, log), snapshot.map(|bytes| (&*snapshot_path, bytes)))?;
            Ok(Found::Old(Box::new(upgraded(state.to_record(), last, member_if_new))))
        }
        // It died at its first start, when nobody counted on it yet.
        (Some(log), None) if is_first_write(&log_path, log)? => Ok(Found::Nothing),
        (Some(_), None) => Err(damaged(&snapshot_path, 0, "it is missing, but there is a log")),
        (Some(log), Some(snapshot)) => {
            let stored = read_snapshot(&snapshot_path, snapshot)?;
            read_log(&log_path, log, stored)
        }
    }
}

/// A group of one whose log goes on where that of format 1 ended.
fn upgraded(state: record::State, last: u64, member_if_new: MemberId) -> Stored {
    let member = state.members.first().map_or(member_if_new, |member| MemberId(member.id));
    let founder = state.members.first().cloned().unwrap_or_else(|| record::Member {
        id: member.0,
        ..record::Member::default()
    });
    let position = LogPosition {
        index: last.max(1),
        term: 1,
    };
    Stored::beginning(member, vec![founder], vec![member.0], position, state)
}

fn read_snapshot(path: &Path, bytes: &[u8]) -> Result<Stored, Error> {
    let at = frame::HEAD_BYTES;
    let (index, payload) = frame::read_frame(&bytes[at..]).map_err(|what| damaged(path, at, what))?;
    let read = MemberSnapshot::decode(payload).map_err(|_| damaged(path, at, "its state cannot be read"))?;
    let position = LogPosition { index, term: read.term };
    Ok(Stored {
        identity: Identity {
            member: MemberId(read.member_id),
            group: read.group,
            founders: read.founders,
        },
        snapshot: Snapshot {
            position,
            conf_state: read.conf_state.unwrap_or_default(),
            state: read.state.unwrap_or_default(),
        },
        hard_state: HardState {
            term: position.term,
            vote: 0,
            commit: position.index,
        },
        entries: Default::default(),
    })
}

fn read_log(path: &Path, bytes: &[u8], mut stored: Stored) -> Result<Found, Error> {
    let (mut frames, mut writes) = (Frames::new(path, bytes), 0);
    let mut after = LogPosition::default();
    while let Some((number, payload)) = frames.next()? {
        writes += 1;
        if number != writes {
            return Err(damaged(path, frames.end, "a write before it is missing"));
        }
        let write = LogWrite::decode(payload).map_err(|_| damaged(path, frames.end, "a write cannot be read"))?;
        if writes == 1 {
            after = LogPosition {
                index: write.after_index,
                term: write.after_term,
            };
        }
        let last = stored.entries.back().map_or(after.index, |entry| entry.index);
        let follow = write
            .entries
            .iter()
            .zip(write.entries.iter().skip(1))
            .all(|(a, b)| b.index == a.index + 1);
        if !follow || write.entries.first().is_some_and(|first| first.index > last + 1) {
            return Err(damaged(path, frames.end, "entries before its own are missing"));
        }
        stored.apply(&Write {
            entries: write.entries,
            hard_state: Some(HardState {
                term: write.term,
                vote: write.vote,
                commit: write.commit,
            }),
            ..Write::default()
        });
    }
    if writes == 0 {
        return Err(damaged(path, frames.end, "its first write is missing"));
    }
    fit_to_snapshot(&mut stored, after);
    Ok(Found::Log {
        stored: Box::new(stored),
        writes,
        end: frames.end,
        torn: frames.end < bytes.len(),
    })
}

/// Drops entries that are in the snapshot, or all if they belong to another log than the snapshot: see the module.
fn fit_to_snapshot(stored: &mut Stored, after: LogPosition) {
    let position = stored.snapshot.position;
    let at = stored.entries.iter().find(|entry| entry.index == position.index);
    let term = at
        .map(|entry| entry.term)
        .or_else(|| (after.index == position.index).then_some(after.term));
    match term == Some(position.term) {
        true => stored.entries.retain(|entry| entry.index > position.index),
        false => stored.entries.clear(),
    }
    let last = stored.entries.back().map_or(position.index, |entry| entry.index);
    stored.hard_state.commit = stored.hard_state.commit.clamp(position.index, last);
    stored.hard_state.term = stored.hard_state.term.max(position.term);
}

fn read_file(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_error("read", path)(e)),
    }
}

fn format(path: &Path, bytes: Option<&[u8]>, magic: &[u8; 8]) -> Result<Option<u32>, Error> {
    let Some(bytes) = bytes else { return Ok(None) };
    match frame::format_of(path, bytes, magic)? {
        found @ (old::FORMAT | FORMAT) => Ok(Some(found)),
        found => Err(Error::Format {
            path: path.display().to_string(),
            found,
            wanted: FORMAT,
        }),
    }
}

/// Whether a log holds nothing but what every log begins with.
fn is_first_write(path: &Path, bytes: &[u8]) -> Result<bool, Error> {
    let mut frames = Frames::new(path, bytes);
    let first = frames.next()?.and_then(|(_, payload)| LogWrite::decode(payload).ok());
    Ok(first.is_some_and(|first| first.entries.is_empty() && first.vote == 0) && frames.next()?.is_none())
}

#[cfg(test)]
mod tests;
