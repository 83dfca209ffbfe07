//! Segments: files that small blobs share, written once from front to back and deleted whole.
//!
//! A blob that goes leaves its bytes dead; a segment without live bytes is deleted, one with few is emptied by copying them
//! ([`crate::gc`]).

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::Error;
use crate::journal::sync_dir;
use crate::usage::Usage;

/// A segment's file. Readers hold it; its bytes count as used until the last lets go of a deleted one.
pub(crate) struct SegmentFile {
    path: PathBuf,
    file: OnceLock<File>,
    len: AtomicU64,
    is_deleted: AtomicBool,
    is_named_durably: AtomicBool,
    usage: Arc<Usage>,
}

impl SegmentFile {
    /// The open file; opened at first use, since old segments may never be.
    pub(crate) fn file(&self) -> io::Result<&File> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        Ok(self.file.get_or_init(|| file))
    }

    /// Makes what was written durable, and the file's name the first time.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file().and_then(|file| file.sync_data()).map_err(|_| Error::Poisoned)?;
        if !self.is_named_durably.swap(true, Ordering::AcqRel) {
            sync_dir(self.path.parent().expect("a segment lies in its folder"))?;
        }
        Ok(())
    }

    /// Removes the file; readers go on.
    pub(crate) fn delete(&self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(path = %self.path.display(), %error, "delete a segment");
            }
            _ => self.is_deleted.store(true, Ordering::Release),
        }
    }
}

impl Drop for SegmentFile {
    fn drop(&mut self) {
        if self.is_deleted.load(Ordering::Acquire) {
            self.usage.sub(self.len.load(Ordering::Acquire));
        }
    }
}

/// A segment and what lives in it.
pub(crate) struct Segment {
    pub(crate) file: Arc<SegmentFile>,
    pub(crate) live: u64,
    /// Slots of the index that were once filled from here; one may be someone else's by now.
    pub(crate) slots: Vec<u32>,
    writers: u32,
}

impl Segment {
    fn len(&self) -> u64 {
        self.file.len.load(Ordering::Acquire)
    }
}

/// All segments; the last one made is written.
pub(crate) struct Segments {
    dir: PathBuf,
    bytes: u64,
    usage: Arc<Usage>,
    all: BTreeMap<u32, Segment>,
    active: Option<u32>,
    next: u32,
}

impl Segments {
    /// The segments in `dir` that are in use, `is_live` says; others are leftovers and deleted. All of them are full: a new one
    /// will be written.
    pub(crate) fn open(dir: &Path, bytes: u64, usage: &Arc<Usage>, is_live: impl Fn(u32) -> bool) -> io::Result<Segments> {
        fs::create_dir_all(dir)?;
        let mut segments = Segments {
            dir: dir.to_owned(),
            bytes,
            usage: usage.clone(),
            all: BTreeMap::new(),
            active: None,
            next: 0,
        };
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let id = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            match id {
                Some(id) if is_live(id) => {
                    let file = segments.file(id, entry.metadata()?.len(), None);
                    usage.add(file.len.load(Ordering::Acquire));
                    segments.add(id, file);
                }
                _ => fs::remove_file(entry.path())?,
            }
        }
        Ok(segments)
    }

    fn file(&self, id: u32, len: u64, file: Option<File>) -> SegmentFile {
        SegmentFile {
            path: self.dir.join(id.to_string()),
            file: file.map_or_else(OnceLock::new, OnceLock::from),
            len: AtomicU64::new(len),
            is_deleted: AtomicBool::new(false),
            is_named_durably: AtomicBool::new(false),
            usage: self.usage.clone(),
        }
    }

    fn add(&mut self, id: u32, file: SegmentFile) {
        self.next = self.next.max(id + 1);
        self.all.insert(
            id,
            Segment {
                file: Arc::new(file),
                live: 0,
                slots: Vec::new(),
                writers: 0,
            },
        );
    }

    /// Room for `len` bytes, which the caller has reserved and now counts as used: where, and in which file. Ends with
    /// [`Segments::publish`] or [`Segments::abandon`].
    pub(crate) fn allocate(&mut self, len: u64) -> io::Result<(u32, u32, Arc<SegmentFile>)> {
        let id = match self.active {
            Some(id) if self.all[&id].len() + len <= self.bytes => id,
            _ => self.make()?,
        };
        let segment = self.all.get_mut(&id).expect("the active segment exists");
        segment.writers += 1;
        let offset = segment.file.len.fetch_add(len, Ordering::AcqRel);
        let offset = u32::try_from(offset).expect("segments are below 4 GiB");
        Ok((id, offset, segment.file.clone()))
    }

    fn make(&mut self) -> io::Result<u32> {
        let id = self.next;
        let path = self.dir.join(id.to_string());
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let file = self.file(id, 0, Some(file));
        self.add(id, file);
        self.active = Some(id);
        Ok(id)
    }

    /// Ends the writing of a blob that lives from now on.
    pub(crate) fn publish(&mut self, id: u32, slot: u32, len: u64) {
        self.abandon(id);
        self.fill(id, slot, len);
    }

    /// Notes a live blob.
    pub(crate) fn fill(&mut self, id: u32, slot: u32, len: u64) {
        let segment = self.all.get_mut(&id).expect("a segment with writers or blobs exists");
        segment.live += len;
        segment.slots.push(slot);
    }

    /// Ends the writing of a blob that came to nothing.
    pub(crate) fn abandon(&mut self, id: u32) {
        self.all.get_mut(&id).expect("a segment with writers exists").writers -= 1;
    }

    /// Notes that a blob is gone.
    pub(crate) fn release(&mut self, id: u32, len: u64) {
        let segment = self.all.get_mut(&id).expect("a segment with blobs exists");
        assert!(segment.live >= len, "segment {id}: {len} bytes released of {}", segment.live);
        segment.live -= len;
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Segment> {
        self.all.get(&id)
    }

    /// Dead bytes of all segments that could be emptied.
    pub(crate) fn dead(&self) -> u64 {
        self.idle().map(|(_, segment)| segment.len() - segment.live).sum()
    }

    /// The segment with the smallest part alive, and that part in percent.
    pub(crate) fn emptiest(&self) -> Option<(u32, u64)> {
        self.idle()
            .map(|(id, segment)| (*id, segment.live * 100 / segment.len().max(1)))
            .min_by_key(|(_, percent)| *percent)
    }

    /// Not being written.
    fn idle(&self) -> impl Iterator<Item = (&u32, &Segment)> {
        self.all
            .iter()
            .filter(|(id, segment)| Some(**id) != self.active && segment.writers == 0)
    }

    /// Ends the active segment, so that it can be emptied.
    pub(crate) fn seal(&mut self) {
        self.active = None;
    }

    /// Takes out segments in which nothing lives; the caller deletes them.
    pub(crate) fn take_dead(&mut self) -> Vec<Arc<SegmentFile>> {
        let dead: Vec<u32> = self
            .idle()
            .filter(|(_, segment)| segment.live == 0)
            .map(|(id, _)| *id)
            .collect();
        dead.iter()
            .filter_map(|id| self.all.remove(id))
            .map(|segment| segment.file)
            .collect()
    }

    /// Number of segments and their bytes.
    pub(crate) fn count(&self) -> (usize, u64) {
        (self.all.len(), self.all.values().map(Segment::len).sum())
    }

    pub(crate) fn len_of(&self, id: u32) -> Option<u64> {
        self.all.get(&id).map(Segment::len)
    }
}
