//! Bytes of a blob that go from their file to a socket without passing through this process: sendfile(2).

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::io::{Errno, ReadWriteFlags};

use crate::blob::Blob;
use crate::hot::Nameless;

/// Most bytes of one loan.
pub const LOAN_MAX: usize = 1 << 20;
/// Less is copied sooner than it is lent: a call of sendfile(2) costs as much as copying about so much.
pub(crate) const LOAN_MIN: u64 = 32 << 10;
/// One byte in so many is looked for in the page cache: what was read or written goes in and out of it in runs at least as long.
const PROBE: u64 = 128 << 10;

/// Where lent bytes lie. Neither is written again while somebody can see it: pages that a socket still has to send stay as they are.
pub(crate) enum Lender {
    /// The blob's own file, or its segment.
    Stored,
    /// Content kept decompressed ([`crate::hot`]).
    Kept(Arc<Nameless>),
}

/// A stretch of a blob that a writer may send. Holds the blob, as a reader does.
pub struct Loan {
    blob: Arc<Blob>,
    lender: Lender,
    at: u64,
    left: u64,
}

impl Loan {
    /// `[at, at + len)` of the lender's file, or less; `None` if the disk would have to be waited for.
    pub(crate) fn new(blob: &Arc<Blob>, lender: Lender, at: u64, len: u64) -> io::Result<Option<Loan>> {
        let left = len.min(LOAN_MAX as u64);
        let loan = Loan {
            blob: blob.clone(),
            lender,
            at,
            left,
        };
        let is_at_hand = match &loan.lender {
            Lender::Kept(kept) if !kept.is_on_disk() => true,
            _ => is_cached(loan.file()?, at, left)?,
        };
        Ok(is_at_hand.then_some(loan))
    }

    /// Bytes that are still to be sent.
    pub fn left(&self) -> usize {
        self.left as usize
    }

    fn file(&self) -> io::Result<&File> {
        match &self.lender {
            Lender::Stored => self.blob.file(),
            Lender::Kept(kept) => Ok(&kept.file),
        }
    }

    /// Sends up to `max` bytes to a socket; how many it took. `WouldBlock` if it takes none now. A file that ends before the blob does
    /// is an error, and the blob is dropped from the store.
    pub fn send(&mut self, socket: impl AsFd, max: usize) -> io::Result<usize> {
        let mut at = self.at;
        let sent = rustix::fs::sendfile(socket, self.file()?, Some(&mut at), max.min(self.left()))?;
        if sent == 0 && max > 0 && self.left > 0 {
            self.blob.drop_damaged().map_err(io::Error::other)?;
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file of a blob is short"));
        }
        self.at += sent as u64;
        self.left -= sent as u64;
        Ok(sent)
    }
}

/// Whether the page cache has these bytes, as far as a few of them tell. Where some are gone all the same, their sender waits for the
/// disk once. File systems that cannot tell are taken for ones in memory; a file that is too short has not got them.
fn is_cached(file: &File, start: u64, len: u64) -> io::Result<bool> {
    let last = start + len.saturating_sub(1);
    let probes = (start..last).step_by(PROBE as usize).chain([last]);
    for at in probes {
        let mut byte = [0];
        match rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT) {
            Ok(1) => {}
            Ok(_) | Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::OPNOTSUPP) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(true)
}
