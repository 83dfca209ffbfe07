//! Content of blobs that are read again and again, kept decompressed: clients that take no zstd would have it decompressed each time.
//!
//! One bound holds for it and for uploads in flight together, so that memory is bounded once: it has what uploads leave of it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::MemfdFlags;
use rustix::process::{Resource, getrlimit};

use crate::key::Key;
use crate::loan::LOAN_MIN;
use crate::metrics;

/// What an upload in flight holds at most: a frame of content, the same compressed, and what its caller gathers before it.
pub(crate) const UPLOAD_COST: u64 = 160 << 10;
/// One in so many descriptors of the process may be a frame's.
const FILES_SHARE: u64 = 4;
/// What an entry takes beside its bytes.
const ENTRY_COST: u64 = 128;

/// One frame of one content. A name that is written anew has other content, so what is found is never what was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Frame {
    pub(crate) key: Key,
    /// XXH3-64 and length of the blob's content.
    pub(crate) check: u64,
    pub(crate) len: u64,
    pub(crate) number: u64,
}

/// Content in memory.
#[derive(Clone)]
pub(crate) enum Kept {
    Heap(Bytes),
    /// A file in memory alone, which is lent to sockets. Each frame has its own, and it is written once: pages that a socket still has to
    /// send are never another frame's.
    File(Arc<File>),
}

impl Kept {
    fn in_file(content: &Bytes) -> io::Result<Kept> {
        let file = File::from(rustix::fs::memfd_create("blob-frame", MemfdFlags::CLOEXEC)?);
        file.write_all_at(content, 0)?;
        Ok(Kept::File(Arc::new(file)))
    }

    fn files(&self) -> u64 {
        u64::from(matches!(self, Kept::File(_)))
    }

    /// The content, which is `len` bytes.
    pub(crate) fn read(&self, len: usize) -> io::Result<Bytes> {
        match self {
            Kept::Heap(content) => Ok(content.clone()),
            Kept::File(file) => {
                let mut content = vec![0; len];
                file.read_exact_at(&mut content, 0)?;
                Ok(content.into())
            }
        }
    }
}

struct Entry {
    kept: Kept,
    len: u64,
    was_used: bool,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<Frame, Entry>,
    /// In the order of their coming; the second chance of CLOCK (Corbato, 1968) goes to those used since.
    order: VecDeque<Frame>,
    bytes: u64,
    files: u64,
}

impl Inner {
    fn shrink(&mut self, max: u64) {
        while self.bytes > max
            && let Some(frame) = self.order.pop_front()
        {
            let entry = self.entries.get_mut(&frame).expect("what is in order is there");
            if std::mem::take(&mut entry.was_used) {
                self.order.push_back(frame);
                continue;
            }
            self.bytes -= cost(entry.len);
            self.files -= entry.kept.files();
            self.entries.remove(&frame);
        }
    }
}

fn cost(len: u64) -> u64 {
    len + ENTRY_COST
}

/// The frames in memory.
pub(crate) struct Hot {
    max: u64,
    /// Descriptors that it may take: a part of the process's, or connections would get none.
    files_max: u64,
    /// Of uploads in flight.
    reserved: AtomicU64,
    inner: Mutex<Inner>,
}

impl Hot {
    /// At most `max` bytes, uploads included.
    pub(crate) fn new(max: u64) -> Hot {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Hot {
            max,
            files_max: descriptors / FILES_SHARE,
            reserved: AtomicU64::new(0),
            inner: Mutex::default(),
        }
    }

    fn room(&self) -> u64 {
        self.max.saturating_sub(self.reserved.load(Ordering::Relaxed))
    }

    pub(crate) fn get(&self, frame: &Frame) -> Option<Kept> {
        let mut inner = self.inner.lock();
        let entry = inner.entries.get_mut(frame)?;
        entry.was_used = true;
        Some(entry.kept.clone())
    }

    pub(crate) fn put(&self, frame: Frame, content: &Bytes) {
        let (room, len) = (self.room(), content.len() as u64);
        if cost(len) > room / 8 {
            return;
        }
        let has_descriptor = len >= LOAN_MIN && self.inner.lock().files < self.files_max;
        let file = has_descriptor.then(|| Kept::in_file(content));
        let kept = match file {
            Some(Ok(kept)) => kept,
            _ => Kept::Heap(content.clone()),
        };
        let mut inner = self.inner.lock();
        // Somebody may have been faster.
        if !inner.entries.contains_key(&frame) {
            inner.files += kept.files();
            let was_used = false;
            inner.entries.insert(frame, Entry { kept, len, was_used });
            inner.order.push_back(frame);
            inner.bytes += cost(len);
            inner.shrink(room);
        }
        metrics::HOT_BYTES.set(inner.bytes as i64);
    }

    /// An upload begins: it takes its share.
    pub(crate) fn begin_upload(&self) {
        self.reserved.fetch_add(UPLOAD_COST, Ordering::Relaxed);
        let mut inner = self.inner.lock();
        if inner.bytes > self.room() {
            inner.shrink(self.room());
            metrics::HOT_BYTES.set(inner.bytes as i64);
        }
    }

    pub(crate) fn end_upload(&self) {
        self.reserved.fetch_sub(UPLOAD_COST, Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.inner.lock().bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(number: u64) -> Frame {
        Frame {
            key: Key([1; 32]),
            check: 2,
            len: 3,
            number,
        }
    }

    #[test]
    fn it_stays_within_its_bound_and_keeps_what_is_used() {
        let hot = Hot::new(1 << 20);
        let content = Bytes::from(vec![7; 60_000]);
        hot.put(frame(0), &content);
        for number in 1..100 {
            assert!(hot.get(&frame(0)).is_some(), "used each time, {number}");
            hot.put(frame(number), &content);
            assert!(hot.bytes() <= 1 << 20);
        }
        assert!(hot.get(&frame(1)).is_none() && hot.get(&frame(99)).is_some());
        let other = Frame { check: 3, ..frame(99) };
        assert!(hot.get(&other).is_none(), "another content under the same name");
        hot.put(frame(200), &Bytes::from(vec![0; 500_000]));
        assert!(hot.get(&frame(200)).is_none(), "nothing takes most of it");
    }

    #[test]
    fn descriptors_are_left_for_others() {
        let mut hot = Hot::new(64 << 20);
        hot.files_max = 5;
        let content = Bytes::from(vec![7; 60_000]);
        for number in 0..40 {
            hot.put(frame(number), &content);
            let kept = hot.get(&frame(number)).expect("is kept");
            assert_eq!(kept.read(content.len()).expect("reads"), content);
            assert_eq!(kept.files(), u64::from(number < 5));
        }
        hot.begin_upload();
        (0..500).for_each(|_| hot.begin_upload());
        assert_eq!((hot.bytes(), hot.inner.lock().files), (0, 0), "all are given back");
    }

    #[test]
    fn uploads_come_first() {
        let hot = Hot::new(10 * UPLOAD_COST);
        (0..20).for_each(|number| hot.put(frame(number), &Bytes::from(vec![7; 60_000])));
        let before = hot.bytes();
        (0..4).for_each(|_| hot.begin_upload());
        assert!(hot.bytes() <= 6 * UPLOAD_COST && hot.bytes() < before);
        (0..16).for_each(|_| hot.begin_upload());
        assert_eq!(hot.bytes(), 0);
        hot.put(frame(1), &Bytes::from(vec![7; 60_000]));
        assert_eq!(hot.bytes(), 0);
        (0..20).for_each(|_| hot.end_upload());
        hot.put(frame(1), &Bytes::from(vec![7; 60_000]));
        assert!(hot.bytes() > 0);
    }
}
