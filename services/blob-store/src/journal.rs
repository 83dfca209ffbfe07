//! The index on disk: a log of changes, and now and then a snapshot that replaces the log before it.
//!
//! `journal/<generation>.log` holds records as they happened; `journal/<generation>.snap` holds what the index was when the
//! log of that generation began, or a little later: replaying the log over it gives the same index either way. A record is
//! `crc32 | kind | length (u16) | body`, little-endian; a log ends at the first record that is torn.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::SyncMode;
use crate::frames::Form;
use crate::index::{Entry, Place};
use crate::key::Key;
use crate::usage::Usage;
use crate::{Error, metrics};

/// Largest blob, and most that one takes on disk.
const BLOB_MAX: u64 = 1 << 44;
/// Bytes of a record before its body.
pub(crate) const HEADER: usize = 7;
const PUT: u8 = 1;
const REMOVE: u8 = 2;
const SPACE: u8 = 3;
const END: u8 = 4;
const USED: u8 = 5;
const PUT_LEN: usize = 72;
const REMOVE_LEN: usize = 40;
const USED_LEN: usize = 36;
/// Bytes of a [`Record::Used`].
pub(crate) const USED_COST: u64 = (HEADER + USED_LEN) as u64;

/// One change of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A blob is there, in place of what had its key.
    Put(Entry),
    /// The blob with this key is gone, if it lay here: one uploaded since stays.
    Remove(Key, Place),
    /// A space has this number.
    Space(u16, String),
    /// The blob with this key was used last at this time, in seconds since 1970. Written now and then, not for each use.
    Used(Key, u32),
    /// The last record of a snapshot, with the number of those before.
    End(u64),
}

impl Record {
    /// Appends the record to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([0; HEADER]);
        match self {
            Record::Put(entry) => {
                out.extend(entry.key.0);
                out.extend(entry.place().pack().to_le_bytes());
                for number in [entry.len, entry.stored, entry.check] {
                    out.extend(number.to_le_bytes());
                }
                out.extend(entry.used_at.to_le_bytes());
                out.extend(entry.space.to_le_bytes());
                out.push(u8::from(entry.form() == Form::Zstd));
                out.push(u8::from(entry.is_protected()));
                out[start + 4] = PUT;
            }
            Record::Remove(key, place) => {
                out.extend(key.0);
                out.extend(place.pack().to_le_bytes());
                out[start + 4] = REMOVE;
            }
            Record::Space(id, name) => {
                out.extend(id.to_le_bytes());
                out.extend(name.as_bytes());
                out[start + 4] = SPACE;
            }
            Record::Used(key, at) => {
                out.extend(key.0);
                out.extend(at.to_le_bytes());
                out[start + 4] = USED;
            }
            Record::End(records) => {
                out.extend(records.to_le_bytes());
                out[start + 4] = END;
            }
        }
        let body = u16::try_from(out.len() - start - HEADER).expect("names are checked to be short");
        out[start + 5..start + 7].copy_from_slice(&body.to_le_bytes());
        let crc = crc32fast::hash(&out[start + 4..]);
        out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// The record at the start of `bytes` and its length; `None` if none is whole there.
    fn decode(bytes: &[u8]) -> Option<(Record, usize)> {
        let header = bytes.get(..HEADER)?;
        let body_len = usize::from(u16::from_le_bytes([header[5], header[6]]));
        let body = bytes.get(HEADER..HEADER + body_len)?;
        let crc = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        if crc32fast::hash(&bytes[4..HEADER + body_len]) != crc {
            return None;
        }
        let record = match (header[4], body_len) {
            (PUT, PUT_LEN) => Record::Put(decode_entry(body)?),
            (REMOVE, REMOVE_LEN) => Record::Remove(Key(body[..32].try_into().ok()?), Place::unpack(word(body, 32)?)),
            (SPACE, 2..) => {
                let name = String::from_utf8(body[2..].to_vec()).ok()?;
                Record::Space(u16::from_le_bytes([body[0], body[1]]), name)
            }
            (USED, USED_LEN) => {
                let at = body[32..].try_into().ok()?;
                Record::Used(Key(body[..32].try_into().ok()?), u32::from_le_bytes(at))
            }
            (END, 8) => Record::End(word(body, 0)?),
            _ => return None,
        };
        Some((record, HEADER + body_len))
    }
}

fn word(body: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(body.get(at..at + 8)?.try_into().ok()?))
}

fn decode_entry(body: &[u8]) -> Option<Entry> {
    let form = if body[70] == 0 { Form::Raw } else { Form::Zstd };
    let mut entry = Entry::new(Key(body[..32].try_into().ok()?), Place::unpack(word(body, 32)?), form);
    entry.len = word(body, 40)?;
    entry.stored = word(body, 48)?;
    if entry.len > BLOB_MAX || entry.stored > BLOB_MAX {
        return None; // never written: sums of such would not fit
    }
    entry.check = word(body, 56)?;
    entry.used_at = u32::from_le_bytes(body[64..68].try_into().ok()?);
    entry.space = u16::from_le_bytes(body[68..70].try_into().ok()?);
    entry.set_protected(body[71] != 0);
    Some(entry)
}

/// Hands every whole record of `bytes` to `apply`, in order; how many bytes they take.
pub fn replay(bytes: &[u8], mut apply: impl FnMut(Record)) -> usize {
    let mut at = 0;
    while let Some((record, len)) = Record::decode(&bytes[at..]) {
        apply(record);
        at += len;
    }
    at
}

/// Changes in the order in which they happened, and how far they are written.
struct Queue {
    bytes: Vec<u8>,
    /// Number of the last change queued.
    last: u64,
}

struct Log {
    file: File,
    generation: u64,
    len: u64,
    /// Number of the last change written, or durable with [`SyncMode::Always`].
    written: u64,
}

/// Writes changes. [`Journal::queue`] is called under the lock of the index, so that the order is the same; the file is
/// written outside it, by whoever comes first for all who wait.
pub(crate) struct Journal {
    dir: PathBuf,
    sync: SyncMode,
    usage: Arc<Usage>,
    queue: Mutex<Queue>,
    /// Taken before `queue`.
    log: Mutex<Log>,
}

impl Journal {
    /// Reads the journal in `dir` and goes on with a new log. Every record, oldest first, goes to `apply`; blobs of a snapshot
    /// come in no order.
    pub(crate) fn open(dir: &Path, sync: SyncMode, usage: &Arc<Usage>, mut apply: impl FnMut(Record)) -> Result<Journal, Error> {
        fs::create_dir_all(dir).map_err(Error::io("make the journal's folder"))?;
        let generations = read_all(dir, &mut apply).map_err(Error::io("read the journal"))?;
        let generation = generations.last().map_or(0, |last| last + 1);
        let file = create(&log_path(dir, generation))?;
        let old: u64 = generations
            .iter()
            .map(|generation| size_of_generation(dir, *generation))
            .sum();
        usage.add(old);
        Ok(Journal {
            dir: dir.to_owned(),
            sync,
            usage: usage.clone(),
            queue: Mutex::new(Queue {
                bytes: Vec::new(),
                last: 0,
            }),
            log: Mutex::new(Log {
                file,
                generation,
                len: 0,
                written: 0,
            }),
        })
    }

    /// Notes a change; its number, for [`Journal::flush`].
    pub(crate) fn queue(&self, record: &Record) -> u64 {
        let mut queue = self.queue.lock();
        record.encode(&mut queue.bytes);
        queue.last += 1;
        queue.last
    }

    /// Returns once change number `number` is as safe as the mode promises.
    pub(crate) fn flush(&self, number: u64) -> Result<(), Error> {
        let mut log = self.log.lock();
        if log.written >= number {
            return Ok(());
        }
        let (bytes, last) = {
            let mut queue = self.queue.lock();
            (std::mem::take(&mut queue.bytes), queue.last)
        };
        // The journal may exceed the limit by what is queued; what it takes was left free by the soft limit.
        self.usage.add(bytes.len() as u64);
        let written = log.file.write_all_at(&bytes, log.len);
        if let Err(source) = written {
            self.usage.sub(bytes.len() as u64);
            // The changes go to the front again: they happened, and the next flush overwrites what was torn.
            let mut queue = self.queue.lock();
            let rest = std::mem::replace(&mut queue.bytes, bytes);
            queue.bytes.extend(rest);
            return Err(Error::Io {
                act: "write the journal",
                source,
            });
        }
        log.len += bytes.len() as u64;
        if self.sync == SyncMode::Always {
            metrics::SYNCS.inc();
            log.file.sync_data().map_err(|_| Error::Poisoned)?;
        }
        log.written = last;
        Ok(())
    }

    /// Bytes of the log that is written now.
    pub(crate) fn len(&self) -> u64 {
        self.log.lock().len
    }

    /// Starts a new log; what happens from now on is there. Its generation.
    pub(crate) fn rotate(&self) -> Result<u64, Error> {
        let last = self.queue.lock().last;
        self.flush(last)?;
        let mut log = self.log.lock();
        let generation = log.generation + 1;
        log.file = create(&log_path(&self.dir, generation))?;
        (log.generation, log.len) = (generation, 0);
        Ok(generation)
    }

    /// Writes the snapshot of `generation` from `chunks` of records and deletes what it replaces.
    pub(crate) fn write_snapshot(&self, generation: u64, chunks: impl Iterator<Item = Vec<Record>>) -> Result<(), Error> {
        let path = self.dir.join(format!("{generation}.tmp"));
        let written = write_records(&path, chunks).map_err(Error::io("write the journal's snapshot"));
        let bytes = match written {
            Ok(bytes) => bytes,
            Err(error) => {
                let _gone = fs::remove_file(&path);
                return Err(error);
            }
        };
        // The caller has reserved the room, and gives that back when this is counted.
        self.usage.add(bytes);
        fs::rename(&path, snap_path(&self.dir, generation)).map_err(Error::io("publish the journal's snapshot"))?;
        sync_dir(&self.dir)?;
        tracing::debug!(generation, bytes, "journal compacted");
        self.delete_before(generation)
    }

    fn delete_before(&self, generation: u64) -> Result<(), Error> {
        for old in generations(&self.dir).map_err(Error::io("list the journal"))? {
            if old < generation {
                self.usage.sub(size_of_generation(&self.dir, old));
                let _absent = fs::remove_file(snap_path(&self.dir, old));
                let _absent = fs::remove_file(log_path(&self.dir, old));
            }
        }
        Ok(())
    }
}

fn write_records(path: &Path, chunks: impl Iterator<Item = Vec<Record>>) -> io::Result<u64> {
    let mut file = File::create(path)?;
    let (mut len, mut count) = (0, 0);
    let mut write = |records: &[Record]| {
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.encode(&mut bytes));
        len += bytes.len() as u64;
        file.write_all(&bytes)
    };
    for records in chunks {
        count += records.len() as u64;
        write(&records)?;
    }
    write(&[Record::End(count)])?;
    file.sync_all()?;
    Ok(len)
}

/// Applies the newest whole snapshot and every log since. All generations that are there, ascending.
fn read_all(dir: &Path, apply: &mut impl FnMut(Record)) -> io::Result<Vec<u64>> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            fs::remove_file(path)?;
        }
    }
    let generations = generations(dir)?;
    let mut start = None;
    for generation in generations.iter().rev() {
        match fs::read(snap_path(dir, *generation)) {
            Ok(bytes) if is_whole(&bytes) => {
                replay(&bytes, &mut *apply);
                start = Some(*generation);
                break;
            }
            Ok(_) => tracing::warn!(generation, "snapshot of the journal is damaged, using the one before"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    for generation in generations.iter().filter(|generation| Some(**generation) >= start) {
        match fs::read(log_path(dir, *generation)) {
            Ok(bytes) => drop(replay(&bytes, &mut *apply)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(generations)
}

fn is_whole(snapshot: &[u8]) -> bool {
    let (mut count, mut end) = (0u64, None);
    let read = replay(snapshot, |record| match record {
        Record::End(records) => end = Some(records),
        _ => count += 1,
    });
    read == snapshot.len() && end == Some(count)
}

fn generations(dir: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let stem = name.to_str().and_then(|name| name.split('.').next());
        found.extend(stem.and_then(|stem| stem.parse::<u64>().ok()));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn size_of_generation(dir: &Path, generation: u64) -> u64 {
    [log_path(dir, generation), snap_path(dir, generation)]
        .iter()
        .filter_map(|path| fs::metadata(path).ok())
        .map(|metadata| metadata.len())
        .sum()
}

fn log_path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("{generation}.log"))
}

fn snap_path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("{generation}.snap"))
}

fn create(path: &Path) -> Result<File, Error> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let file = file.map_err(Error::io("make a log of the journal"))?;
    sync_dir(path.parent().expect("a log lies in the journal's folder"))?;
    Ok(file)
}

/// Makes names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(Error::io("sync a folder"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(n: u64) -> Record {
        let mut entry = Entry::new(Key::sha256(&n.to_le_bytes()), Place::Segment(3, n as u32), Form::Zstd);
        (entry.len, entry.stored, entry.check, entry.used_at, entry.space) = (n, n / 2, !n, 7, 2);
        entry.set_protected(n.is_multiple_of(2));
        Record::Put(entry)
    }

    fn journal(dir: &Path) -> (Journal, Vec<Record>) {
        let mut read = Vec::new();
        let usage = Usage::new(1 << 30, 1 << 29);
        let journal = Journal::open(dir, SyncMode::Never, &usage, |record| read.push(record)).expect("opens");
        (journal, read)
    }

    #[test]
    fn what_is_flushed_is_read_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let records = [
            put(1),
            Record::Space(9, "ci/main".into()),
            put(2),
            Record::Remove(Key([1; 32]), Place::File(4)),
        ];
        let (first, read) = journal(dir.path());
        assert!(read.is_empty());
        let last = records.iter().map(|record| first.queue(record)).last().expect("some");
        first.flush(last).expect("writes");
        drop(first);
        assert_eq!(journal(dir.path()).1, records);
        assert_eq!(journal(dir.path()).1, records, "and again, over an empty log");
    }

    #[test]
    fn a_snapshot_replaces_what_was_before() {
        let dir = tempfile::tempdir().expect("a folder");
        let (first, _) = journal(dir.path());
        first.flush(first.queue(&put(1))).expect("writes");
        let generation = first.rotate().expect("rotates");
        first.flush(first.queue(&put(3))).expect("writes");
        first
            .write_snapshot(generation, [vec![put(1)], vec![put(2)]].into_iter())
            .expect("writes");
        drop(first);
        let (_, read) = journal(dir.path());
        assert_eq!(read, [put(1), put(2), Record::End(2), put(3)]);
    }

    #[test]
    fn a_torn_snapshot_is_passed_over() {
        let dir = tempfile::tempdir().expect("a folder");
        let (first, _) = journal(dir.path());
        first.flush(first.queue(&put(1))).expect("writes");
        let mut bytes = Vec::new();
        put(5).encode(&mut bytes);
        fs::write(dir.path().join("1.snap"), &bytes).expect("writes");
        drop(first);
        assert_eq!(journal(dir.path()).1, [put(1)]);
    }

    proptest! {
        #[test]
        fn a_cut_log_gives_its_prefix(count in 1u64..20, cut in 0usize..2000) {
            let mut bytes = Vec::new();
            (0..count).for_each(|n| put(n).encode(&mut bytes));
            bytes.truncate(cut);
            let mut read = Vec::new();
            let taken = replay(&bytes, |record| read.push(record));
            prop_assert_eq!(read.len(), bytes.len() / (HEADER + PUT_LEN));
            prop_assert!(taken <= bytes.len());
            prop_assert_eq!(read, (0..bytes.len() as u64 / 79).map(put).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_end_somewhere(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let taken = replay(&bytes, drop);
            prop_assert!(taken <= bytes.len());
        }
    }
}
