//! Content of blobs that are read again and again, kept decompressed: clients that take no zstd would have it decompressed each time.
//!
//! Frames lie in files without a name, eight of a blob in one, so that all of them go to a socket by one call. One bound holds for them and
//! for uploads in flight together, so that memory is bounded once: they have what uploads leave of it.
//!
//! The files are in the store's own folder rather than in memory alone: a disk's file system has larger pages in its cache than files
//! in memory have (4 KiB, unless the whole machine is set otherwise), and sending 1 MiB of them costs two thirds. They count against the
//! limit of the disk, and come out of what is spare below the soft one: no blob has to go for a copy. The system writes what stays for
//! half a minute to the disk, once. Where there is no room, or the file system knows no files without a name, they are in memory.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::process::{Resource, getrlimit};

use crate::blob::read_at_once;
use crate::frames::FRAME;
use crate::key::Key;
use crate::loan::{LOAN_MAX, LOAN_MIN};
use crate::metrics;
use crate::usage::{Reservation, Usage, file_cost};

/// What an upload in flight holds at most: a frame of content, the same compressed, and what its caller gathers before it.
pub(crate) const UPLOAD_COST: u64 = 160 << 10;
/// One in so many descriptors of the process may be such a file's.
const FILES_SHARE: u64 = 4;
/// One in so many bytes of the store's limit may be theirs.
const DISK_SHARE: u64 = 64;
/// What an entry takes beside its bytes.
const ENTRY_COST: u64 = 128;
/// Frames of one stretch: what one loan takes.
const STRETCH: u64 = (LOAN_MAX / FRAME) as u64;
const _: () = assert!(STRETCH == 8, "a byte has a bit for each frame of a stretch");

/// One frame of one content. A name that is written anew has other content, so what is found is never what was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) key: Key,
    /// XXH3-64 and length of the blob's content.
    pub(crate) check: u64,
    pub(crate) len: u64,
    pub(crate) number: u64,
}

impl Frame {
    fn stretch(&self) -> Stretch {
        Stretch {
            key: self.key,
            check: self.check,
            len: self.len,
            number: self.number / STRETCH,
        }
    }

    /// Its place among the frames of its stretch.
    fn place(&self) -> u32 {
        (self.number % STRETCH) as u32
    }
}

/// [`STRETCH`] frames that follow each other, or those that are left at the end of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stretch {
    key: Key,
    check: u64,
    len: u64,
    number: u64,
}

impl Stretch {
    /// Bytes of content.
    fn len(&self) -> u64 {
        (self.len - self.number * LOAN_MAX as u64).min(LOAN_MAX as u64)
    }
}

/// A frame in memory.
pub(crate) enum Kept {
    Heap(Bytes),
    File(KeptFile),
}

/// Where a frame lies in a file that nobody else sees, which is lent to sockets.
pub(crate) struct KeptFile {
    pub(crate) file: Arc<Nameless>,
    /// Its first byte.
    pub(crate) at: u64,
    /// Frames that are there from it on, itself the first.
    pub(crate) frames: u64,
}

/// A file without a name: gone with its last holder, or with the process.
pub(crate) struct Nameless {
    // Before its room is given back it is gone.
    pub(crate) file: File,
    /// Of a file on the disk: of the store's limit, and of the share of it.
    room: Option<[Reservation; 2]>,
}

impl Nameless {
    /// Whether its bytes may have left the memory.
    pub(crate) fn is_on_disk(&self) -> bool {
        self.room.is_some()
    }
}

/// Where such files are made.
struct Rooms {
    dir: PathBuf,
    usage: Arc<Usage>,
    /// What they may take of it.
    share: Arc<Usage>,
    /// Descriptors that they may take: a part of the process's, or connections would get none.
    files_max: u64,
}

impl Rooms {
    /// A file for a stretch of `len` bytes, where there are `files` already. On the disk, or else in memory.
    fn file(&self, len: u64, files: u64) -> Option<Nameless> {
        if len < LOAN_MIN || files >= self.files_max {
            return None;
        }
        self.disk_file(file_cost(len)).or_else(|| {
            let file = rustix::fs::memfd_create("blob-frames", MemfdFlags::CLOEXEC).ok()?;
            Some(Nameless {
                file: file.into(),
                room: None,
            })
        })
    }

    fn disk_file(&self, cost: u64) -> Option<Nameless> {
        let room = [&self.share, &self.usage].map(|usage| Reservation::spare(usage, cost).ok());
        let [Some(share), Some(rest)] = room else { return None };
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(&self.dir, flags, Mode::RUSR | Mode::WUSR).ok()?;
        Some(Nameless {
            file: file.into(),
            room: Some([share, rest]),
        })
    }
}

impl Kept {
    /// The content of the frame, which is `len` bytes. `None`, unless `wait`: the disk would have to be waited for.
    pub(crate) fn read(&self, len: usize, wait: bool) -> io::Result<Option<Bytes>> {
        match self {
            Kept::Heap(content) => Ok(Some(content.clone())),
            Kept::File(KeptFile { file, at, .. }) => {
                let mut content = vec![0; len];
                match wait || !file.is_on_disk() {
                    true => file.file.read_exact_at(&mut content, *at)?,
                    false if read_at_once(&file.file, &mut content, *at)? => {}
                    false => return Ok(None),
                }
                Ok(Some(content.into()))
            }
        }
    }
}

/// Where the frames of a stretch lie.
enum Room {
    Heap(Vec<(u32, Bytes)>),
    /// A frame is written once, by whoever took its place first: pages that a socket still has to send are never another frame's.
    File {
        file: Arc<Nameless>,
        written: u8,
    },
}

impl Room {
    /// Memory of this process where there is no file for it.
    fn new(file: Option<Nameless>) -> Room {
        match file {
            Some(file) => Room::File {
                file: Arc::new(file),
                written: 0,
            },
            None => Room::Heap(Vec::new()),
        }
    }

    fn files(&self) -> u64 {
        u64::from(matches!(self, Room::File { .. }))
    }

    fn get(&self, place: u32) -> Option<Kept> {
        match self {
            Room::Heap(frames) => {
                let (_, content) = frames.iter().find(|(at, _)| *at == place)?;
                Some(Kept::Heap(content.clone()))
            }
            Room::File { file, written } => {
                let frames = u64::from((written >> place).trailing_ones());
                let at = u64::from(place) * FRAME as u64;
                let file = file.clone();
                (frames > 0).then_some(Kept::File(KeptFile { file, at, frames }))
            }
        }
    }
}

struct Entry {
    room: Room,
    /// Frames that are there, or on their way: a bit each.
    taken: u8,
    bytes: u64,
    was_used: bool,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<Stretch, Entry>,
    /// In the order of their coming; the second chance of CLOCK (Corbato, 1968) goes to those used since.
    order: VecDeque<Stretch>,
    bytes: u64,
    files: u64,
}

impl Inner {
    fn shrink(&mut self, max: u64) {
        while self.bytes > max
            && let Some(stretch) = self.order.pop_front()
        {
            let entry = self.entries.get_mut(&stretch).expect("what is in order is there");
            if std::mem::take(&mut entry.was_used) {
                self.order.push_back(stretch);
                continue;
            }
            self.bytes -= entry.bytes;
            self.files -= entry.room.files();
            self.entries.remove(&stretch);
        }
    }

    /// Takes a place for a frame and counts it; the file that its content is to be written to. `None`: the content is kept, or cannot be.
    fn take(&mut self, frame: &Frame, content: &Bytes, room: u64, rooms: &Rooms) -> Option<Arc<Nameless>> {
        let (stretch, place) = (frame.stretch(), frame.place());
        let entry = match self.entries.entry(stretch) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                let room = Room::new(rooms.file(stretch.len(), self.files));
                self.files += room.files();
                self.bytes += ENTRY_COST;
                self.order.push_back(stretch);
                vacant.insert(Entry {
                    room,
                    taken: 0,
                    bytes: ENTRY_COST,
                    was_used: false,
                })
            }
        };
        let len = content.len() as u64;
        // Somebody may have been faster.
        if entry.taken & 1 << place != 0 || entry.bytes + len > room / 8 {
            return None;
        }
        entry.taken |= 1 << place;
        entry.bytes += len;
        self.bytes += len;
        let file = match &mut entry.room {
            Room::Heap(frames) => {
                frames.push((place, content.clone()));
                None
            }
            Room::File { file, .. } => Some(file.clone()),
        };
        self.shrink(room);
        file
    }

    /// A frame's content is in `file`: whoever looks for it finds it, unless all of it is gone meanwhile.
    fn show(&mut self, frame: &Frame, file: &Arc<Nameless>) {
        let entry = self.entries.get_mut(&frame.stretch());
        if let Some(Room::File { file: same, written }) = entry.map(|entry| &mut entry.room)
            && Arc::ptr_eq(file, same)
        {
            *written |= 1 << frame.place();
        }
    }
}

/// The frames in memory.
pub(crate) struct Hot {
    max: u64,
    rooms: Rooms,
    /// Of uploads in flight.
    reserved: AtomicU64,
    inner: Mutex<Inner>,
}

impl Hot {
    /// At most `max` bytes, uploads included; in `dir` what fits below the soft limit of `usage`, and a share of the hard one.
    pub(crate) fn new(max: u64, dir: &Path, usage: &Arc<Usage>) -> Hot {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let share = usage.max() / DISK_SHARE;
        Hot {
            max,
            rooms: Rooms {
                dir: dir.to_owned(),
                usage: usage.clone(),
                share: Usage::new(share, share),
                files_max: descriptors / FILES_SHARE,
            },
            reserved: AtomicU64::new(0),
            inner: Mutex::default(),
        }
    }

    fn room(&self) -> u64 {
        self.max.saturating_sub(self.reserved.load(Ordering::Relaxed))
    }

    pub(crate) fn get(&self, frame: &Frame) -> Option<Kept> {
        let mut inner = self.inner.lock();
        let entry = inner.entries.get_mut(&frame.stretch())?;
        entry.was_used = true;
        entry.room.get(frame.place())
    }

    /// Keeps a frame, if nothing takes too much of the room by it. One that cannot be written is not tried again while its stretch stays.
    pub(crate) fn put(&self, frame: Frame, content: &Bytes) {
        let room = self.room();
        if ENTRY_COST + content.len() as u64 > room / 8 {
            return;
        }
        let file = {
            let mut inner = self.inner.lock();
            let file = inner.take(&frame, content, room, &self.rooms);
            metrics::HOT_BYTES.set(inner.bytes as i64);
            file
        };
        if let Some(file) = file
            && file
                .file
                .write_all_at(content, u64::from(frame.place()) * FRAME as u64)
                .is_ok()
        {
            self.inner.lock().show(&frame, &file);
        }
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

    const LEN: u64 = 100 * LOAN_MAX as u64;

    /// Of at most `max` bytes, with `spare` bytes of the disk.
    fn hot_with(max: u64, spare: u64) -> (Hot, Arc<Usage>) {
        let usage = Usage::new(spare * DISK_SHARE, spare);
        (Hot::new(max, &std::env::temp_dir(), &usage), usage)
    }

    fn hot_of(max: u64) -> Hot {
        hot_with(max, 64 << 20).0
    }

    fn frame(number: u64) -> Frame {
        Frame {
            key: Key([1; 32]),
            check: 2,
            len: LEN,
            number,
        }
    }

    fn content(frame: u64) -> Bytes {
        vec![frame as u8; FRAME].into()
    }

    fn frames_at(hot: &Hot, number: u64) -> u64 {
        match hot.get(&frame(number)) {
            Some(Kept::File(kept)) => kept.frames,
            Some(Kept::Heap(_)) => 1,
            None => 0,
        }
    }

    #[test]
    fn it_stays_within_its_bound_and_keeps_what_is_used() {
        let hot = hot_of(16 << 20);
        hot.put(frame(0), &content(0));
        for number in 8..400 {
            assert!(hot.get(&frame(0)).is_some(), "used each time, {number}");
            hot.put(frame(number), &content(number));
            assert!(hot.bytes() <= 16 << 20);
        }
        assert!(hot.get(&frame(8)).is_none() && hot.get(&frame(399)).is_some());
        let other = Frame { check: 3, ..frame(399) };
        assert!(hot.get(&other).is_none(), "another content under the same name");
        let small = hot_of(4 << 20);
        (0..8).for_each(|number| small.put(frame(number), &content(number)));
        assert_eq!(frames_at(&small, 0), 3, "nothing takes most of it");
    }

    #[test]
    fn frames_that_follow_each_other_are_found_together() {
        let hot = hot_of(64 << 20);
        for number in [0, 1, 3, 4, 5, 6, 7, 8] {
            hot.put(frame(number), &content(number));
        }
        let found: Vec<u64> = (0..10).map(|number| frames_at(&hot, number)).collect();
        assert_eq!(found, [2, 1, 0, 5, 4, 3, 2, 1, 1, 0], "up to a gap, or the end of the file");
        let before = hot.bytes();
        hot.put(frame(3), &content(99));
        assert_eq!(hot.bytes(), before, "written once");
        for number in [0, 3, 7, 8] {
            let kept = hot.get(&frame(number)).expect("is kept");
            assert_eq!(kept.read(FRAME, true).expect("reads"), Some(content(number)));
        }
        assert_eq!(hot.inner.lock().files, 2);
        // What was written by somebody whose place is gone is nobody's.
        let old = hot
            .inner
            .lock()
            .take(&frame(16), &content(16), 64 << 20, &hot.rooms)
            .expect("a file");
        hot.inner.lock().shrink(0);
        hot.put(frame(17), &content(17));
        hot.inner.lock().show(&frame(16), &old);
        assert_eq!((frames_at(&hot, 16), frames_at(&hot, 17)), (0, 1));
    }

    fn is_on_disk(hot: &Hot, number: u64) -> bool {
        matches!(hot.get(&frame(number)), Some(Kept::File(kept)) if kept.file.is_on_disk())
    }

    #[test]
    fn what_lies_on_the_disk_is_counted_and_never_in_the_way() {
        let cost = file_cost(LOAN_MAX as u64);
        let (hot, usage) = hot_with(64 << 20, 3 * cost);
        let put = |stretch: u64| hot.put(frame(stretch * STRETCH), &content(stretch));
        put(0);
        if !is_on_disk(&hot, 0) {
            return; // no files without a name here
        }
        assert_eq!(usage.used(), cost);
        usage.add(cost);
        (1..4).for_each(put);
        let found = [0, 1, 2, 3].map(|stretch| is_on_disk(&hot, stretch * STRETCH));
        assert_eq!(found, [true, true, false, false], "what is not spare is not taken");
        assert_eq!(usage.used(), 3 * cost);
        let lent = hot.get(&frame(0)).expect("is kept");
        hot.inner.lock().shrink(0);
        assert_eq!(usage.used(), 2 * cost, "as long as somebody sends it, it is there");
        assert_eq!(lent.read(FRAME, true).expect("reads"), Some(content(0)));
        drop(lent);
        assert_eq!(usage.used(), cost);
        usage.sub(cost);
        (0..4).for_each(put);
        let found = [0, 1, 2, 3].map(|stretch| is_on_disk(&hot, stretch * STRETCH));
        assert_eq!(found, [true, true, true, false], "no more than its share");
        for stretch in 0..4 {
            let kept = hot.get(&frame(stretch * STRETCH)).expect("is kept");
            assert_eq!(kept.read(FRAME, true).expect("reads"), Some(content(stretch)));
        }
    }

    #[test]
    fn what_left_the_memory_is_not_waited_for() {
        let hot = hot_of(64 << 20);
        hot.put(frame(0), &content(0));
        let Some(Kept::File(kept)) = hot.get(&frame(0)) else {
            panic!("is kept in a file");
        };
        kept.file.file.sync_all().expect("syncs");
        rustix::fs::fadvise(&kept.file.file, 0, None, rustix::fs::Advice::DontNeed).expect("is heard");
        // Where the file system keeps all in memory, it is still there.
        let read = |wait| hot.get(&frame(0)).expect("is kept").read(FRAME, wait).expect("reads");
        assert!(read(false).is_none_or(|found| found == content(0)));
        assert_eq!(read(true), Some(content(0)));
        assert_eq!(read(false), Some(content(0)));
    }

    #[test]
    fn descriptors_are_left_for_others() {
        let mut hot = hot_of(64 << 20);
        hot.rooms.files_max = 5;
        for number in (0..40).map(|stretch| stretch * STRETCH) {
            hot.put(frame(number), &content(number));
            let kept = hot.get(&frame(number)).expect("is kept");
            assert_eq!(kept.read(FRAME, true).expect("reads"), Some(content(number)));
            assert_eq!(matches!(kept, Kept::File(_)), number < 5 * STRETCH);
        }
        (0..501).for_each(|_| hot.begin_upload());
        assert_eq!((hot.bytes(), hot.inner.lock().files), (0, 0), "all are given back");
    }

    #[test]
    fn uploads_come_first() {
        let hot = hot_of(64 * UPLOAD_COST);
        (0..60).for_each(|number| hot.put(frame(number), &content(number)));
        let before = hot.bytes();
        (0..32).for_each(|_| hot.begin_upload());
        assert!(hot.bytes() <= 32 * UPLOAD_COST && hot.bytes() < before);
        (0..40).for_each(|_| hot.begin_upload());
        assert_eq!(hot.bytes(), 0);
        hot.put(frame(1), &content(1));
        assert_eq!(hot.bytes(), 0);
        (0..72).for_each(|_| hot.end_upload());
        hot.put(frame(1), &content(1));
        assert!(hot.bytes() > 0);
    }
}
