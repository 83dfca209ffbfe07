//! The way of a blob in: hashed and compressed as it comes, published whole or not at all.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use crate::frames::{FRAME, FRAME_GROWTH, Form, SMALL, Table, is_worth, stored_max};
use crate::index::{Entry, Place};
use crate::journal::sync_dir;
use crate::key::{Content, Hasher, Key};
use crate::store::{Inner, SpaceId, now};
use crate::usage::{Reservation, file_cost};
use crate::{Error, metrics};

/// What the journal writes for a blob in its life: it comes and it goes.
pub(crate) const JOURNAL_COST: u64 = 128;

/// A blob on its way in. Dropped before [`Upload::commit`], it leaves nothing. Holds at most [`FRAME`] bytes of content in memory, and
/// as much again where they came with a frame.
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
    /// A frame that holds exactly what `buffer` does.
    frame: Option<Vec<u8>>,
    file: Option<Spill>,
    room: Reservation,
    patience: Duration,
    check_wanted: Option<u64>,
    keeps_existing: bool,
}

/// The file of a larger blob while it is written.
struct Spill {
    file: File,
    path: PathBuf,
    id: u64,
    form: Form,
    written: u64,
    /// Bytes behind those, of the buffer of an upload that pauses.
    parked: usize,
    /// How far anything was ever written.
    reach: u64,
    is_published: bool,
    sizes: Vec<u32>,
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.store.hot.end_upload();
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        if !self.is_published {
            let _gone = fs::remove_file(&self.path);
        }
    }
}

impl Upload {
    pub(crate) fn new(store: Arc<Inner>, key: Key, content: Content, space: SpaceId, len: Option<u64>, len_max: u64) -> Upload {
        store.hot.begin_upload();
        Upload {
            key,
            space,
            len_wanted: len,
            len_max: len.unwrap_or(len_max).min(len_max),
            len: 0,
            hasher: Hasher::new(content),
            check: Box::default(),
            buffer: Vec::new(),
            frame: None,
            file: None,
            room: Reservation::none(&store.usage),
            patience: store.config.room_wait,
            check_wanted: None,
            keeps_existing: false,
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

    /// What [`crate::Blob::checksum`] must be: for names, whose keys say nothing about the content. [`Error::Damaged`] if it is not.
    pub fn set_check(&mut self, check: u64) {
        self.check_wanted = Some(check);
    }

    /// Whether a blob that is there by the time of the commit stays, also under a name: for copies that may be older than it.
    pub fn set_keeps_existing(&mut self, keeps: bool) {
        self.keeps_existing = keeps;
    }

    /// Bytes of content so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    #[cfg(test)]
    pub(crate) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the next bytes of the content.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        self.take(bytes)?;
        while !bytes.is_empty() {
            let full = if self.file.is_some() { FRAME } else { SMALL };
            let (now, later) = bytes.split_at(bytes.len().min(full - self.buffer.len()));
            self.frame = None;
            self.buffer.extend_from_slice(now);
            bytes = later;
            self.spill_full()?;
        }
        Ok(())
    }

    /// Whether the next bytes start a frame of the layout at rest: then [`Upload::write_frame`] may take them.
    pub fn is_aligned(&self) -> bool {
        self.buffer.is_empty() && self.file.as_ref().is_none_or(|spill| spill.parked == 0)
    }

    /// Takes the next bytes of the content together with a zstd frame that holds exactly them, which the caller saw decoded. It is kept as
    /// it is where the layout allows: each frame but the last holds [`FRAME`] bytes. Else it is as [`Upload::write`].
    pub fn write_frame(&mut self, content: &[u8], frame: &[u8]) -> Result<(), Error> {
        if !self.is_aligned() || content.is_empty() || content.len() > FRAME || frame.len() > content.len() + FRAME_GROWTH {
            return self.write(content);
        }
        self.take(content)?;
        self.buffer.extend_from_slice(content);
        self.frame = Some(frame.to_vec());
        self.spill_full()
    }

    /// For an upload whose client pauses: puts what is buffered of a larger blob behind what is written of it, until more comes. The file
    /// stays within the room taken for it.
    pub fn park(&mut self) -> Result<(), Error> {
        let Some(spill) = &mut self.file else { return Ok(()) };
        if self.buffer.is_empty() {
            return Ok(());
        }
        let buffer = std::mem::take(&mut self.buffer);
        // It would take as much memory as what it spares; the content is compressed instead.
        self.frame = None;
        let parked = spill.file.write_all_at(&buffer, spill.written);
        parked.map_err(Error::io("write a blob"))?;
        spill.parked = buffer.len();
        spill.reach = spill.reach.max(spill.written + buffer.len() as u64);
        Ok(())
    }

    fn unpark(&mut self) -> Result<(), Error> {
        let Some(spill) = self.file.as_mut().filter(|spill| spill.parked > 0) else {
            return Ok(());
        };
        let mut buffer = Vec::with_capacity(FRAME);
        buffer.resize(spill.parked, 0);
        let read = spill.file.read_exact_at(&mut buffer, spill.written);
        read.map_err(Error::io("read a blob"))?;
        spill.parked = 0;
        self.buffer = buffer;
        Ok(())
    }

    /// Counts, hashes and makes room.
    fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.store.check_poison()?;
        self.len += bytes.len() as u64;
        if self.len > self.len_max {
            return Err(Error::TooLarge { max: self.len_max });
        }
        self.take_room()?;
        self.unpark()?;
        self.hasher.update(bytes);
        self.check.update(bytes);
        Ok(())
    }

    /// A full buffer goes at once, so that an upload whose client pauses holds little.
    fn spill_full(&mut self) -> Result<(), Error> {
        if self.file.is_none() && self.buffer.len() >= SMALL {
            self.begin_file()?;
        }
        if self.buffer.len() >= FRAME {
            self.spill()?;
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

    /// With the first bytes, decides whether to compress and makes the file.
    fn begin_file(&mut self) -> Result<(), Error> {
        let is_worth = match &self.frame {
            Some(frame) => is_worth(self.buffer.len(), frame.len()),
            None => self.store.codec.is_worth(&self.buffer)?,
        };
        let form = if is_worth { Form::Zstd } else { Form::Raw };
        self.file = Some(Spill::create(&self.store, form)?);
        Ok(())
    }

    /// Writes what is buffered to the file, and lets go of the memory.
    fn spill(&mut self) -> Result<(), Error> {
        let spill = self.file.as_mut().expect("made with the first bytes");
        let buffer = std::mem::take(&mut self.buffer);
        let frame = self.frame.take();
        let written = match spill.form {
            Form::Raw => spill.append(&buffer),
            Form::Zstd => {
                let frame = match frame {
                    Some(frame) => frame,
                    None => self.store.codec.compress(&buffer)?,
                };
                spill.sizes.push(frame.len() as u32);
                spill.append(&frame)
            }
        };
        written.map_err(Error::io("write a blob"))
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
        if self.check_wanted.is_some_and(|wanted| wanted != self.check.digest()) {
            return Err(Error::Damaged);
        }
        if (is_content || self.keeps_existing) && self.is_there() {
            return Ok(self.len);
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
        is_there && state.touch(&self.key).is_some()
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
        let (form, mut bytes) = match self.frame.take() {
            Some(frame) if is_worth(self.buffer.len(), frame.len()) => (Form::Zstd, frame),
            Some(_) => (Form::Raw, std::mem::take(&mut self.buffer)),
            None => self.store.codec.fit(&self.buffer)?,
        };
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
        self.unpark()?;
        if !self.buffer.is_empty() {
            self.spill()?;
        }
        let mut spill = self.file.take().expect("a larger blob has a file");
        if spill.form == Form::Zstd {
            let table = Table::from_sizes(&spill.sizes).encode(self.len);
            spill.append(&table).map_err(Error::io("write a blob"))?;
        }
        // What was parked may have reached further than what took its place.
        if spill.reach > spill.written {
            spill.file.set_len(spill.written).map_err(Error::io("write a blob"))?;
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
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(Error::io("make a file for an upload"))?;
        Ok(Spill {
            file,
            path,
            id,
            form,
            written: 0,
            parked: 0,
            reach: 0,
            is_published: false,
            sizes: Vec::new(),
        })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.written)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn publish(&mut self, path: &Path, sync: bool) -> Result<(), Error> {
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
        self.is_published = true;
        if sync {
            sync_dir(folder)?;
            sync_dir(folder.parent().expect("folders of blobs lie in one"))?;
        }
        Ok(())
    }
}
