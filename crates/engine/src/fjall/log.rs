//! The log: what makes batches durable until they are in tables, as segment files `log/<number>.log`.
//!
//! [`Writer`] stands under the engine's writer lock and only copies into memory and hands full buffers to the system.
//! [`Log::sync`] is a group commit: of the callers at a time one syncs, without the writer lock, for all of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::record::{self, Head};
use crate::{Error, Op, Result, metrics};

/// The buffer goes to the system when it holds this much. Nothing is durable before a sync anyway.
const BUFFER_BYTES: usize = 64 << 10;

/// The end of the log, where records are appended. Lives inside the engine's writer lock.
pub struct Writer {
    dir: PathBuf,
    /// Of the directory, see [`record`].
    key: u32,
    segment: Segment,
    buffer: Vec<u8>,
    /// Files with records that no sync has covered yet, oldest first; without the current one.
    unsynced: Vec<(u64, Arc<File>)>,
    /// The directory has a new file whose name may not be durable.
    dir_unsynced: bool,
    /// Number of the last record.
    last: u64,
    /// See [`Head`].
    synced: u64,
    flushed: u64,
}

struct Segment {
    number: u64,
    file: Arc<File>,
    /// Bytes that were written whole; what a failed write left behind them is cut off.
    len: u64,
}

impl Segment {
    fn create(dir: &Path, number: u64) -> Result<Segment> {
        let path = dir.join(format!("{number:016x}.log"));
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let file = file.map_err(|e| Error::from_io("create log", dir, e))?;
        Ok(Segment {
            number,
            file: Arc::new(file),
            len: 0,
        })
    }
}

impl Writer {
    /// Continues behind what was found, in a new segment.
    pub fn create(dir: &Path, key: u32, found: &Found) -> Result<Writer> {
        let segment = Segment::create(dir, found.segment + 1)?;
        let buffer = Vec::with_capacity(BUFFER_BYTES * 2);
        let (last, synced, flushed) = (found.last, found.last, found.flushed);
        Ok(Writer {
            dir: dir.to_owned(),
            key,
            segment,
            buffer,
            unsynced: Vec::new(),
            dir_unsynced: true,
            last,
            synced,
            flushed,
        })
    }

    /// Number of the last record.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Appends a batch. On an error nothing of it stays.
    pub fn append(&mut self, seqno: u64, ops: &[Op]) -> Result<()> {
        let before = self.buffer.len();
        record::encode(
            self.key,
            Head::new(seqno, self.last, self.synced, self.flushed),
            ops,
            &mut self.buffer,
        );
        if self.buffer.len() >= BUFFER_BYTES
            && let Err(error) = self.write_out()
        {
            self.buffer.truncate(before);
            return Err(error);
        }
        self.last = seqno;
        Ok(())
    }

    /// Appends a mark: what is synced and flushed by now.
    fn mark(&mut self) {
        let head = Head::new(self.last, self.last, self.synced, self.flushed);
        record::encode(self.key, head, &[], &mut self.buffer);
    }

    fn write_out(&mut self) -> Result<()> {
        let mut file = &*self.segment.file;
        if let Err(error) = file.write_all(&self.buffer) {
            // A part may stand there, which would break the chain for what comes later.
            let len = self.segment.len;
            file.set_len(len)
                .and_then(|()| file.seek(SeekFrom::Start(len)))
                .map_err(|e| fatal("repair log", &self.dir, e))?;
            return Err(Error::from_io("write log", &self.dir, error));
        }
        self.segment.len += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Ends the current segment, whose number it returns, and begins the next.
    pub fn seal(&mut self) -> Result<u64> {
        self.write_out()?;
        let next = Segment::create(&self.dir, self.segment.number + 1)?;
        let old = std::mem::replace(&mut self.segment, next);
        self.unsynced.push((old.number, old.file));
        self.dir_unsynced = true;
        Ok(old.number)
    }

    /// Tells, once this is synced, that everything up to record `flushed` is in tables and segments up to `segment` may go.
    pub fn set_flushed(&mut self, flushed: u64, segment: u64) {
        self.flushed = flushed;
        self.mark();
        self.unsynced.retain(|(number, _)| *number > segment);
    }

    /// Leaves what is known at a clean end to the next start.
    pub fn close(&mut self) -> Result<()> {
        self.mark();
        self.write_out()
    }

    /// What a sync has to cover.
    fn unsynced(&mut self) -> Result<Unsynced> {
        self.write_out()?;
        let mut files: Vec<Arc<File>> = self.unsynced.iter().map(|(_, file)| file.clone()).collect();
        files.push(self.segment.file.clone());
        let new_name = self.dir_unsynced.then_some(self.segment.number);
        Ok(Unsynced {
            last: self.last,
            files,
            new_name,
            dir: self.dir.clone(),
        })
    }

    fn set_synced(&mut self, done: &Unsynced) {
        self.unsynced
            .retain(|(_, file)| !done.files.iter().any(|synced| Arc::ptr_eq(synced, file)));
        self.dir_unsynced &= done.new_name != Some(self.segment.number);
        if self.last == done.last && self.synced < done.last {
            // No record tells of this sync yet. Best effort: without it, less damage can be told from a lost tail.
            self.synced = done.last;
            self.mark();
            let _ = self.write_out();
        }
        self.synced = self.synced.max(done.last);
    }

    /// Makes everything durable under the writer lock: for the rare caller that must keep writers out.
    pub fn sync_locked(&mut self) -> Result<()> {
        let unsynced = self.unsynced()?;
        unsynced.sync()?;
        self.set_synced(&unsynced);
        Ok(())
    }
}

/// Files that hold all records up to `last` which were not known to be durable.
struct Unsynced {
    last: u64,
    files: Vec<Arc<File>>,
    /// Segment whose name is not durable yet.
    new_name: Option<u64>,
    dir: PathBuf,
}

impl Unsynced {
    fn sync(&self) -> Result<()> {
        let timer = metrics::SYNC_SECONDS.start_timer();
        for file in &self.files {
            file.sync_data().map_err(|e| fatal("sync log", &self.dir, e))?;
        }
        if self.new_name.is_some() {
            sync_dir(&self.dir)?;
        }
        timer.observe_duration();
        Ok(())
    }
}

/// Group commit over a [`Writer`].
pub struct Log {
    state: Mutex<SyncState>,
    done: Condvar,
}

struct SyncState {
    /// Every record up to this one is durable.
    synced: u64,
    syncing: bool,
    /// A sync failed: what is on disk is unknown, and a second try could claim what the first one lost.
    failed: bool,
}

impl Log {
    pub fn new(synced: u64) -> Log {
        Log {
            state: Mutex::new(SyncState {
                synced,
                syncing: false,
                failed: false,
            }),
            done: Condvar::new(),
        }
    }

    /// Returns once record `target` and all before are durable. `writer` is locked briefly, never while the disk syncs.
    pub fn sync<W: AsMut<Writer>>(&self, target: u64, writer: &Mutex<W>) -> Result<()> {
        self.sync_unless(|state| state.synced >= target, writer)
    }

    /// Returns once everything written before is durable, marks too.
    pub fn sync_marks<W: AsMut<Writer>>(&self, writer: &Mutex<W>) -> Result<()> {
        self.sync_unless(|_| false, writer)
    }

    fn sync_unless<W: AsMut<Writer>>(&self, enough: impl Fn(&SyncState) -> bool, writer: &Mutex<W>) -> Result<()> {
        let mut state = self.state.lock();
        loop {
            if state.failed {
                return Err(Error::Poisoned);
            }
            if enough(&state) {
                return Ok(());
            }
            if !state.syncing {
                break;
            }
            self.done.wait(&mut state);
        }
        state.syncing = true;
        drop(state);
        let outcome = lead(writer);
        let mut state = self.state.lock();
        state.syncing = false;
        match &outcome {
            Ok(synced) => state.synced = state.synced.max(*synced),
            Err(error) => state.failed |= !matches!(error, Error::DiskFull { .. }),
        }
        self.done.notify_all();
        outcome.map(|_| ())
    }
}

/// Makes everything written so far durable; returns the last record.
fn lead<W: AsMut<Writer>>(writer: &Mutex<W>) -> Result<u64> {
    let unsynced = writer.lock().as_mut().unsynced()?;
    unsynced.sync()?;
    writer.lock().as_mut().set_synced(&unsynced);
    Ok(unsynced.last)
}

/// An error after which the files' content is unknown, even if the reason is a full disk.
fn fatal(act: &'static str, dir: &Path, source: io::Error) -> Error {
    Error::Io {
        act,
        dir: dir.display().to_string(),
        source,
    }
}

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| fatal("sync directory", dir, e))
}

/// Removes the segments up to `number`.
pub fn remove_until(dir: &Path, number: u64) -> Result<()> {
    for (segment, path) in segments(dir)? {
        if segment <= number {
            fs::remove_file(&path).map_err(|e| Error::from_io("remove log", dir, e))?;
        }
    }
    Ok(())
}

/// Bytes of all segments.
pub fn disk_bytes(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// Segments by number, ascending.
fn segments(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| Error::from_io("list log", dir, e))? {
        let path = entry.map_err(|e| Error::from_io("list log", dir, e))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_suffix(".log").and_then(|name| u64::from_str_radix(name, 16).ok());
        let number = number.ok_or_else(|| Error::Corrupt {
            what: format!("{} is not a segment of the log", path.display()),
        })?;
        found.push((number, path));
    }
    found.sort();
    Ok(found)
}

/// What a start found in the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// The last record of the chain, or of the tables when that is later.
    pub last: u64,
    /// Everything up to this one is in tables.
    pub flushed: u64,
    /// The highest segment.
    pub segment: u64,
}

/// Reads the log and hands every batch that is not in tables to `apply`, in order.
///
/// The chain of records ends where one is missing or damaged. That is what a crash does to records that no sync covered; but if
/// any sound head tells that the disk once held more, acknowledged data is gone and the answer is [`Error::Corrupt`].
/// An unreachable rest is cut off, so that it is never looked at again.
pub fn replay(dir: &Path, key: u32, mut apply: impl FnMut(u64, Vec<Op>)) -> Result<Found> {
    let paths = segments(dir)?;
    let segment = paths
        .last()
        .ok_or_else(|| Error::Corrupt {
            what: format!("{} holds no log", dir.display()),
        })?
        .0;
    let (flushed, synced) = survey(dir, key, &paths)?;
    let mut last = flushed;
    let mut rests = Vec::new();
    for (_, path) in &paths {
        let bytes = read(dir, path)?;
        let mut at = 0;
        while rests.is_empty()
            && let Some(record) = record::decode(key, &bytes[at..])
        {
            let Head { seqno, prev, .. } = record.head;
            if !record.is_mark() && seqno > last {
                if prev != last {
                    break;
                }
                let ops = record.ops().ok_or_else(|| Error::Corrupt {
                    what: format!("record {seqno} of {}", path.display()),
                })?;
                apply(seqno, ops);
                last = seqno;
            }
            at += record.len;
        }
        if at < bytes.len() {
            rests.push((path, at as u64));
        }
    }
    if last < synced {
        let place = rests.first().map_or(String::new(), |(path, at)| {
            format!(", damaged at byte {at} of {}", path.display())
        });
        return Err(Error::Corrupt {
            what: format!("log ends at record {last} of {synced} durable ones{place}"),
        });
    }
    for (path, at) in rests {
        cut(dir, path, at)?;
    }
    // From here on these records count as durable, but after a mere crash of the process they may stand in the system's cache.
    for (_, path) in &paths {
        File::open(path)
            .and_then(|file| file.sync_data())
            .map_err(|e| fatal("sync log", dir, e))?;
    }
    sync_dir(dir)?;
    Ok(Found { last, flushed, segment })
}

/// The highest `flushed` and `synced` that any sound head tells. Bodies of sound records are stepped over.
fn survey(dir: &Path, key: u32, paths: &[(u64, PathBuf)]) -> Result<(u64, u64)> {
    let (mut flushed, mut synced) = (0, 0);
    let mut note = |head: Head| {
        flushed = flushed.max(head.flushed);
        synced = synced.max(head.synced);
    };
    for (_, path) in paths {
        let bytes = read(dir, path)?;
        let mut rest = &bytes[..];
        while let Some(record) = record::decode(key, rest) {
            note(record.head);
            rest = &rest[record.len..];
        }
        record::scan_heads(key, rest).for_each(&mut note);
    }
    Ok((flushed, synced))
}

fn read(dir: &Path, path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| Error::from_io("read log", dir, e))
}

fn cut(dir: &Path, path: &Path, len: u64) -> Result<()> {
    tracing::info!(segment = %path.display(), bytes = len, "cut unsynced rest off the log");
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(|file| file.set_len(len).and_then(|()| file.sync_all()))
        .map_err(|e| Error::from_io("cut log", dir, e))
}
