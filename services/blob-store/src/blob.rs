//! The way of a blob out: any range of it, as it was uploaded or as zstd, in pieces.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags};
use xxhash_rust::xxh3::Xxh3;

use crate::frames::{FRAME, Form, SMALL, Table, frame_len, frames_of, table_len, wrap_raw};
use crate::hot::{Frame, Kept, KeptFile};
use crate::index::{Entry, Place};
use crate::loan::{LOAN_MIN, Lender, Loan};
use crate::segments::SegmentFile;
use crate::store::Inner;
use crate::{Error, metrics};

/// Bytes of a piece that is passed on as it lies on disk. A multiple of [`FRAME`].
const PIECE: u64 = 2 * FRAME as u64;

/// Where a blob's bytes are read from; holds them against deletion.
pub(crate) enum Source {
    Segment(Arc<SegmentFile>, u64),
    /// A file of its own, under a lease that [`Blob`] ends.
    Leased(u64),
}

/// In which form a reader wants content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Zstd,
}

/// A blob open for reading. It stays readable whatever happens to it in the store.
pub struct Blob {
    store: Arc<Inner>,
    entry: Entry,
    source: Source,
    file: Option<File>,
    table: OnceLock<Table>,
    /// Read before: its content is worth memory.
    is_popular: bool,
}

/// What the index says of a blob that is to be read.
pub(crate) struct Found {
    pub(crate) entry: Entry,
    pub(crate) source: Source,
    pub(crate) is_popular: bool,
}

impl Drop for Blob {
    fn drop(&mut self) {
        if let Source::Leased(id) = self.source {
            self.file = None;
            self.store.end_lease(id);
        }
    }
}

impl Blob {
    pub(crate) fn open(store: Arc<Inner>, found: Found) -> io::Result<Blob> {
        let Found {
            entry,
            source,
            is_popular,
        } = found;
        let mut blob = Blob {
            store,
            entry,
            source,
            is_popular,
            file: None,
            table: OnceLock::new(),
        };
        if let Source::Leased(id) = blob.source {
            blob.file = Some(File::open(blob.store.file_path(&entry.key, id))?);
        }
        Ok(blob)
    }

    /// Bytes of content.
    pub fn len(&self) -> u64 {
        self.entry.len
    }

    pub fn is_empty(&self) -> bool {
        self.entry.len == 0
    }

    pub fn form(&self) -> Form {
        self.entry.form()
    }

    /// XXH3-64 of the content.
    pub fn checksum(&self) -> u64 {
        self.entry.check
    }

    /// Bytes that [`Encoding::Zstd`] gives from the start.
    pub fn zstd_len(&self) -> u64 {
        match self.form() {
            Form::Zstd => self.frames_end(),
            Form::Raw => {
                let (whole, rest) = (self.len() / PIECE, self.len() % PIECE);
                let last = (rest > 0 || whole == 0).then(|| wrapped_len(rest));
                whole * wrapped_len(PIECE) + last.unwrap_or(0)
            }
        }
    }

    /// Content `[start, end)`, or what of it there is.
    pub fn range(self: &Arc<Self>, start: u64, end: u64) -> Cursor {
        let end = end.min(self.len());
        self.cursor(Encoding::Identity, start.min(end), end)
    }

    /// All content from `start` on, in the form that is asked for. Frames are passed on as they lie, but for one that `start`
    /// cuts.
    pub fn from(self: &Arc<Self>, start: u64, encoding: Encoding) -> Cursor {
        self.cursor(encoding, start.min(self.len()), self.len())
    }

    fn cursor(self: &Arc<Self>, encoding: Encoding, at: u64, end: u64) -> Cursor {
        Cursor {
            blob: self.clone(),
            encoding,
            at,
            end,
            stored_at: None,
            is_empty_due: encoding == Encoding::Zstd && at == end,
        }
    }

    /// All content, for blobs that are known to be small.
    pub fn read_all(self) -> Result<Vec<u8>, Error> {
        let mut content = Vec::with_capacity(self.len() as usize);
        let mut cursor = Arc::new(self).range(0, u64::MAX);
        while let Step::Data(piece) = cursor.next(true)? {
            content.extend_from_slice(&piece);
        }
        Ok(content)
    }

    /// Reads everything and compares it with what was written. [`Error::Damaged`] if it differs.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let mut hasher = Xxh3::new();
        let mut at = 0;
        while at < self.len() {
            let piece = match self.content(at, self.len(), true)? {
                Some(piece) => piece,
                None => return Err(Error::Damaged),
            };
            hasher.update(&piece);
            at += piece.len() as u64;
        }
        if hasher.digest() == self.entry.check {
            Ok(())
        } else {
            Err(Error::Damaged)
        }
    }

    fn has_table(&self) -> bool {
        self.form() == Form::Zstd && self.len() >= SMALL as u64
    }

    /// Where the zstd frames end and the table begins.
    fn frames_end(&self) -> u64 {
        match self.has_table() {
            true => self.entry.stored - table_len(frames_of(self.len())),
            false => self.entry.stored,
        }
    }

    /// Where frame `frame` lies. `None`: the disk would have to be waited for.
    fn frame(&self, frame: u64, wait: bool) -> Result<Option<(u64, u64)>, Error> {
        if !self.has_table() {
            return Ok(Some((0, self.entry.stored)));
        }
        if self.table.get().is_none() {
            let Some(bytes) = self.stored(self.frames_end(), self.entry.stored, wait)? else {
                return Ok(None);
            };
            let table = Table::decode(&bytes, self.len(), self.entry.stored)?;
            let _same = self.table.set(table);
        }
        Ok(self.table.get().map(|table| table.frame(frame)))
    }

    /// Content from `at`, to `end` or earlier. `None`: the disk would have to be waited for.
    fn content(&self, at: u64, end: u64, wait: bool) -> Result<Option<Bytes>, Error> {
        if self.form() == Form::Raw {
            let piece = self.stored(at, end.min(at + PIECE), wait)?;
            return Ok(piece.map(Bytes::from));
        }
        let number = at / FRAME as u64;
        let Some(content) = self.frame_content(number, wait)? else {
            return Ok(None);
        };
        let first = number * FRAME as u64;
        Ok(Some(content.slice(
            (at - first) as usize..(end - first).min(content.len() as u64) as usize,
        )))
    }

    /// Content of frame `number`. `None`: the disk would have to be waited for.
    fn frame_content(&self, number: u64, wait: bool) -> Result<Option<Bytes>, Error> {
        if let Some(kept) = self.kept(number) {
            let content = kept.read(frame_len(self.len(), number) as usize, wait);
            if let Some(content) = content.map_err(Error::io("read kept content"))? {
                metrics::HOT_HITS.inc();
                return Ok(Some(content));
            }
        }
        let Some((start, stop)) = self.frame(number, wait)? else {
            return Ok(None);
        };
        let Some(frame) = self.stored(start, stop, wait)? else {
            return Ok(None);
        };
        let content = Bytes::from(self.store.codec.decompress(&frame, frame_len(self.len(), number) as usize)?);
        if self.is_hot() {
            self.store.hot.put(self.hot_frame(number), &content);
        }
        Ok(Some(content))
    }

    fn hot_frame(&self, number: u64) -> Frame {
        Frame {
            key: self.entry.key,
            check: self.entry.check,
            len: self.entry.len,
            number,
        }
    }

    /// Worth memory. A blob in doubt is read from the disk: that is what it is checked for.
    fn is_hot(&self) -> bool {
        self.is_popular && !self.entry.is_suspect()
    }

    /// Content of frame `number`, if it is in memory.
    fn kept(&self, number: u64) -> Option<Kept> {
        self.is_hot().then(|| self.store.hot.get(&self.hot_frame(number))).flatten()
    }

    /// The file it lies in.
    pub(crate) fn file(&self) -> io::Result<&File> {
        match (&self.source, &self.file) {
            (Source::Segment(segment, _), _) => segment.file(),
            (Source::Leased(_), Some(file)) => Ok(file),
            (Source::Leased(_), None) => unreachable!("a leased blob is opened or not handed out"),
        }
    }

    /// Where in that file it starts.
    fn base(&self) -> u64 {
        match self.source {
            Source::Segment(_, offset) => offset,
            Source::Leased(_) => 0,
        }
    }

    /// Drops the blob from the store: it is not what was written.
    pub(crate) fn drop_damaged(&self) -> Result<(), Error> {
        self.store.forget(&self.entry.key, self.entry.place(), "damage")
    }

    /// Bytes `[start, end)` as they lie on disk.
    fn stored(&self, start: u64, end: u64, wait: bool) -> Result<Option<Vec<u8>>, Error> {
        let file = self.file().map_err(Error::io("open a segment"))?;
        let base = self.base();
        let mut bytes = vec![0; (end - start) as usize];
        let read = if wait {
            Ok(false)
        } else {
            read_at_once(file, &mut bytes, base + start)
        };
        match read {
            Ok(true) => Ok(Some(bytes)),
            Ok(false) if wait => match file.read_exact_at(&mut bytes, base + start) {
                Ok(()) => Ok(Some(bytes)),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Error::Damaged),
                Err(source) => Err(Error::Io {
                    act: "read a blob",
                    source,
                }),
            },
            Ok(false) => Ok(None),
            Err(source) => Err(Error::Io {
                act: "read a blob",
                source,
            }),
        }
    }
}

/// Fills `bytes` if the page cache has them all; false if the disk would have to be waited for. File systems that cannot tell
/// are taken for ones in memory.
pub(crate) fn read_at_once(file: &File, bytes: &mut [u8], at: u64) -> io::Result<bool> {
    let len = bytes.len();
    let read = rustix::io::preadv2(file, &mut [IoSliceMut::new(bytes)], at, ReadWriteFlags::NOWAIT);
    match read {
        Ok(got) => Ok(got == len),
        Err(Errno::AGAIN) => Ok(false),
        Err(Errno::OPNOTSUPP) => match file.read_exact_at(bytes, at) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        },
        Err(errno) => Err(errno.into()),
    }
}

/// What [`wrap_raw`] makes of this many bytes.
fn wrapped_len(len: u64) -> u64 {
    6 + len + 3 * len.div_ceil(128 << 10).max(1)
}

/// What [`Cursor::next`] gives.
#[derive(Debug)]
pub enum Step {
    Data(Bytes),
    /// The disk has to be waited for: call again where that is allowed.
    Wait,
    End,
}

/// Gives a blob's content piece by piece.
pub struct Cursor {
    blob: Arc<Blob>,
    encoding: Encoding,
    /// Next byte of content.
    at: u64,
    end: u64,
    /// Next byte on disk, once frames are passed on as they lie.
    stored_at: Option<u64>,
    /// Nothing in zstd is still a frame.
    is_empty_due: bool,
}

impl Cursor {
    /// The next piece. With `wait` false it never waits for the disk. A blob found damaged is dropped from the store.
    pub fn next(&mut self, wait: bool) -> Result<Step, Error> {
        if std::mem::take(&mut self.is_empty_due) {
            return Ok(Step::Data(wrap_raw(&[]).into()));
        }
        let step = match (self.encoding, self.blob.form()) {
            (Encoding::Identity, _) => self.next_content(wait),
            (Encoding::Zstd, Form::Zstd) => self.next_frames(wait),
            (Encoding::Zstd, Form::Raw) => self.next_wrapped(wait),
        };
        if let Err(Error::Damaged) = step {
            self.blob.drop_damaged()?;
        }
        step
    }

    /// What [`Cursor::next`] would give, and more of it, where it can be sent as it lies in a file: then it need not be read.
    /// `None`: it cannot, or the disk would have to be waited for.
    pub fn lend(&mut self) -> Result<Option<Loan>, Error> {
        if self.is_empty_due || self.end.saturating_sub(self.at) < LOAN_MIN {
            return Ok(None);
        }
        let loan = match (self.encoding, self.blob.form()) {
            (Encoding::Identity, Form::Raw) => self.lend_stored(self.at, self.end),
            (Encoding::Identity, Form::Zstd) => self.lend_kept(),
            (Encoding::Zstd, Form::Zstd) => self.lend_frames(),
            (Encoding::Zstd, Form::Raw) => Ok(None),
        };
        let loan = loan.map_err(Error::io("lend a blob"))?;
        let len = loan.as_ref().map_or(0, |loan| loan.left() as u64);
        match &mut self.stored_at {
            Some(at) => *at += len,
            None => self.at += len,
        }
        Ok(loan)
    }

    fn lend_stored(&self, start: u64, end: u64) -> io::Result<Option<Loan>> {
        Loan::new(&self.blob, Lender::Stored, self.blob.base() + start, end - start)
    }

    /// As much as one file of kept content holds.
    fn lend_kept(&self) -> io::Result<Option<Loan>> {
        let number = self.at / FRAME as u64;
        let Some(Kept::File(KeptFile { file, at, frames })) = self.blob.kept(number) else {
            return Ok(None);
        };
        let first = number * FRAME as u64;
        let end = self.end.min(first + frames * FRAME as u64);
        metrics::HOT_HITS.inc_by(frames_of(end - first));
        Loan::new(&self.blob, Lender::Kept(file), at + self.at - first, end - self.at)
    }

    /// Frames up to the last one, without the table behind them.
    fn lend_frames(&mut self) -> io::Result<Option<Loan>> {
        let end = self.blob.frames_end();
        let start = match self.stored_at {
            None if self.at == 0 => 0,
            None => return Ok(None),
            Some(start) => start,
        };
        if end - start < LOAN_MIN {
            return Ok(None);
        }
        let loan = self.lend_stored(start, end)?;
        if loan.is_some() {
            self.stored_at = Some(start);
        }
        Ok(loan)
    }

    fn next_content(&mut self, wait: bool) -> Result<Step, Error> {
        if self.at >= self.end {
            return Ok(Step::End);
        }
        let Some(piece) = self.blob.content(self.at, self.end, wait)? else {
            return Ok(Step::Wait);
        };
        self.at += piece.len() as u64;
        Ok(Step::Data(piece))
    }

    fn next_wrapped(&mut self, wait: bool) -> Result<Step, Error> {
        Ok(match self.next_content(wait)? {
            Step::Data(piece) => Step::Data(wrap_raw(&piece).into()),
            other => other,
        })
    }

    fn next_frames(&mut self, wait: bool) -> Result<Step, Error> {
        let Some(at) = self.stored_at else {
            return self.first_frames(wait);
        };
        let end = self.blob.frames_end();
        if at >= end {
            return Ok(Step::End);
        }
        let stop = end.min(at + PIECE);
        let Some(piece) = self.blob.stored(at, stop, wait)? else {
            return Ok(Step::Wait);
        };
        self.stored_at = Some(stop);
        Ok(Step::Data(piece.into()))
    }

    /// Where to start among the frames; a frame cut by the start is made anew from its rest.
    fn first_frames(&mut self, wait: bool) -> Result<Step, Error> {
        let number = self.at / FRAME as u64;
        if self.at >= self.end {
            return Ok(Step::End);
        }
        if self.at.is_multiple_of(FRAME as u64) {
            let Some((start, _)) = (if number == 0 {
                Some((0, 0))
            } else {
                self.blob.frame(number, wait)?
            }) else {
                return Ok(Step::Wait);
            };
            self.stored_at = Some(start);
            return self.next_frames(wait);
        }
        let Some((_, stop)) = self.blob.frame(number, wait)? else {
            return Ok(Step::Wait);
        };
        let Some(rest) = self.blob.content(self.at, self.end, wait)? else {
            return Ok(Step::Wait);
        };
        self.stored_at = Some(stop);
        Ok(Step::Data(self.blob.store.codec.compress(&rest)?.into()))
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place: Place = self.entry.place();
        write!(f, "blob {} at {place:?}", self.entry.key)
    }
}
