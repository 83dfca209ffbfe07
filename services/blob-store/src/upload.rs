//! The way of a blob in: hashed and compressed as it comes, published whole or not at all.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use crate::frames::{FRAME, Form, SMALL, Table, stored_max};
use crate::index::{Entry, Place};
use crate::journal::sync_dir;
use crate::key::{Content, Hasher, Key};
use crate::store::{Inner, SpaceId, now};
use crate::usage::{Reservation, file_cost};
use crate::{Error, metrics};

/// What the journal writes for a blob in its life: it comes and it goes.
pub(crate) const JOURNAL_COST: u64 = 128;

/// A blob on its way in. Dropped before [`Upload::commit`], it leaves nothing. Holds at most [`FRAME`] bytes in memory.
pub struct Upload {
    store: Arc<Inner>,
    key: Key,
    space: SpaceId,
    len_wanted: Option<u64>,
    len_max: u64,
    len: u64,
    hasher: Hasher,
    check: Box<Xxh3>,
    buffer: Vec<u8>,
    file: Option<Spill>,
    room: Reservation,
    patience: Duration,
}

/// The file of a larger blob while it is written.
struct Spill {
    file: File,
    path: PathBuf,
    id: u64,
    form: Form,
    written: u64,
    sizes: Vec<u32>,
}

impl Drop for Spill {
    fn drop(&mut self) {
        // Renamed away if all went well.
        let _gone = fs::remove_file(&self.path);
    }
}

impl Upload {
    pub(crate) fn new(store: Arc<Inner>, key: Key, content: Content, space: SpaceId, len: Option<u64>, len_max: u64) -> Upload {
        Upload {
            key,
            space,
            len_wanted: len,
            len_max: len.unwrap_or(len_max).min(len_max),
            len: 0,
            hasher: Hasher::new(content),
            check: Box::default(),
            buffer: Vec::new(),
            file: None,
            room: Reservation::none(&store.usage),
            patience: store.config.room_wait,
            store,
        }
    }

    /// Refuses at once instead of waiting for room: for callers that must not block.
    pub fn set_impatient(&mut self, impatient: bool) {
        self.patience = match impatient {
            true => Duration::ZERO,
            false => self.store.config.room_wait,
        };
    }

    /// Bytes of content so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the next bytes of the content.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        self.store.check_poison()?;
        self.len += bytes.len() as u64;
        if self.len > self.len_max {
            return Err(Error::TooLarge { max: self.len_max });
        }
        self.take_room()?;
        self.hasher.update(bytes);
        self.check.update(bytes);
        while !bytes.is_empty() {
            let full = if self.file.is_some() { FRAME } else { SMALL };
            if self.buffer.len() >= full {
                self.spill()?;
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(full - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn take_room(&mut self) -> Result<(), Error> {
        // By steps of a few frames where the length is not known, so that the count is seldom touched.
        let len = self
            .len_wanted
            .unwrap_or(self.len.next_multiple_of(8 * FRAME as u64).min(self.len_max));
        let bytes = file_cost(stored_max(len)) + JOURNAL_COST;
        let bytes = if len < SMALL as u64 { len + JOURNAL_COST } else { bytes };
        let taken = self.room.grow(bytes, self.patience);
        if matches!(taken, Err(Error::Full)) {
            metrics::REFUSED.inc();
        }
        taken
    }

    /// Writes what is buffered to the file; with the first 64 KiB, decides whether to compress and makes it.
    fn spill(&mut self) -> Result<(), Error> {
        let spill = match &mut self.file {
            Some(spill) => spill,
            None => {
                let form = match self.store.codec.is_worth(&self.buffer)? {
                    true => Form::Zstd,
                    false => Form::Raw,
                };
                self.file = Some(Spill::create(&self.store, form)?);
                // The buffer now fills up to a frame.
                return Ok(());
            }
        };
        let written = match spill.form {
            Form::Raw => spill.append(&self.buffer),
            Form::Zstd => {
                let frame = self.store.codec.compress(&self.buffer)?;
                spill.sizes.push(frame.len() as u32);
                spill.append(&frame)
            }
        };
        written.map_err(Error::io("write a blob"))?;
        self.buffer.clear();
        Ok(())
    }

    /// Publishes the blob: from now on it is served. Errors if the content is not what was promised; then nothing is left.
    pub fn commit(mut self) -> Result<u64, Error> {
        self.store.check_poison()?;
        if let Some(wanted) = self.len_wanted.filter(|wanted| *wanted != self.len) {
            return Err(Error::Short { wanted, got: self.len });
        }
        let hasher = std::mem::replace(&mut self.hasher, Hasher::Named);
        let is_content = !matches!(hasher, Hasher::Named);
        if let Some(got) = hasher.finish().filter(|got| *got != self.key) {
            return Err(Error::Mismatch { wanted: self.key, got });
        }
        if is_content && self.is_there() {
            return Ok(self.len);
        }
        if self.buffer.len() >= SMALL && self.file.is_none() {
            self.spill()?;
        }
        let entry = match self.file {
            None => self.finish_in_segment()?,
            Some(_) => self.finish_in_file()?,
        };
        metrics::CONTENT_BYTES.inc_by(entry.len);
        metrics::STORED_BYTES.inc_by(entry.stored);
        self.store.clone().publish(entry)?;
        Ok(self.len)
    }

    /// Whether the same content came from elsewhere meanwhile: then that one stays, renewed.
    fn is_there(&self) -> bool {
        let mut state = self.store.state.lock();
        let is_there = state.index.get(&self.key).is_some_and(|entry| !entry.is_suspect());
        is_there && state.index.touch(&self.key, now()).is_some()
    }

    fn entry(&self, place: Place, form: Form, stored: u64) -> Entry {
        let mut entry = Entry::new(self.key, place, form);
        entry.len = self.len;
        entry.stored = stored;
        entry.check = self.check.digest();
        entry.used_at = now();
        entry.space = self.space.0;
        entry
    }

    fn finish_in_segment(&mut self) -> Result<Entry, Error> {
        let (form, mut bytes) = self.store.codec.fit(&self.buffer)?;
        if bytes.is_empty() {
            // A segment lives as long as bytes in it do, so nothing takes one.
            bytes.push(0);
        }
        let stored = bytes.len() as u64;
        self.room.grow(stored + JOURNAL_COST, self.patience)?;
        let allocated = self.store.state.lock().segments.allocate(stored);
        let (id, offset, segment) = allocated.map_err(Error::io("make a segment"))?;
        self.room.hand_over(stored);
        let written = segment
            .file()
            .and_then(|file| file.write_all_at(&bytes, u64::from(offset)))
            .map_err(Error::io("write a blob"))
            .and_then(|()| match self.store.is_synced() {
                true => {
                    metrics::SYNCS.inc();
                    self.store.guard(segment.sync())
                }
                false => Ok(()),
            });
        if let Err(error) = written {
            self.store.state.lock().segments.abandon(id);
            return Err(error);
        }
        Ok(self.entry(Place::Segment(id, offset), form, stored))
    }

    fn finish_in_file(&mut self) -> Result<Entry, Error> {
        if !self.buffer.is_empty() {
            self.spill()?;
        }
        let mut spill = self.file.take().expect("a larger blob has a file");
        if spill.form == Form::Zstd {
            let table = Table::from_sizes(&spill.sizes).encode(self.len);
            spill.append(&table).map_err(Error::io("write a blob"))?;
        }
        let path = self.store.file_path(&self.key, spill.id);
        self.store.guard(spill.publish(&path, self.store.is_synced()))?;
        self.room.hand_over(file_cost(spill.written));
        Ok(self.entry(Place::File(spill.id), spill.form, spill.written))
    }
}

impl Spill {
    fn create(store: &Inner, form: Form) -> Result<Spill, Error> {
        let id = store.next_file();
        let path = store.config.dir.join("tmp").join(format!("{id:x}"));
        let file = File::create_new(&path).map_err(Error::io("make a file for an upload"))?;
        Ok(Spill {
            file,
            path,
            id,
            form,
            written: 0,
            sizes: Vec::new(),
        })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.written)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn publish(&self, path: &Path, sync: bool) -> Result<(), Error> {
        if sync {
            metrics::SYNCS.inc();
            self.file.sync_data().map_err(|_| Error::Poisoned)?;
        }
        let folder = path.parent().expect("a blob lies in a folder");
        let renamed = match fs::rename(&self.path, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(folder).and_then(|()| fs::rename(&self.path, path))
            }
            other => other,
        };
        renamed.map_err(Error::io("publish a blob"))?;
        if sync {
            sync_dir(folder)?;
            sync_dir(folder.parent().expect("folders of blobs lie in one"))?;
        }
        Ok(())
    }
}
