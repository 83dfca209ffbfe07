//! Bytes on disk, counted before they are written and until they are gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base::MonoTime;
use parking_lot::{Condvar, Mutex};

use crate::Error;

/// Inode and folder entry of a file.
const FILE_COST: u64 = 512;
/// The file system gives space in blocks of this size.
const BLOCK: u64 = 4096;

/// What a file of `len` bytes costs on disk.
pub(crate) fn file_cost(len: u64) -> u64 {
    len.next_multiple_of(BLOCK) + FILE_COST
}

/// The count and its limit.
pub(crate) struct Usage {
    used: AtomicU64,
    max: u64,
    soft: u64,
    /// The disk has too little room whatever the count says; told by the deleter.
    tight: AtomicBool,
    /// Wakes the deleter: true when somebody waits for room.
    wanted: Mutex<bool>,
    wake: Condvar,
    room: Condvar,
}

impl Usage {
    pub(crate) fn new(max: u64, soft: u64) -> Arc<Usage> {
        Arc::new(Usage {
            used: AtomicU64::new(0),
            max,
            soft,
            tight: AtomicBool::new(false),
            wanted: Mutex::new(false),
            wake: Condvar::new(),
            room: Condvar::new(),
        })
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// The hard limit.
    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// Counts bytes that are there already, as at start.
    pub(crate) fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Counts bytes that are gone.
    pub(crate) fn sub(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Ordering::AcqRel);
        assert!(before >= bytes, "{bytes} bytes given back of {before} used");
        self.room.notify_all();
    }

    pub(crate) fn set_tight(&self, tight: bool) {
        self.tight.store(tight, Ordering::Release);
    }

    /// Takes `bytes` of the room below the hard limit, or refuses. Wakes the deleter above the soft one.
    pub(crate) fn try_reserve(&self, bytes: u64) -> Result<(), Error> {
        let taken = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            used.checked_add(bytes).filter(|after| *after <= self.max)
        });
        let fits = !self.tight.load(Ordering::Acquire) || taken.is_err();
        match taken {
            Ok(before) if fits => {
                if before + bytes > self.soft {
                    self.kick();
                }
                Ok(())
            }
            Ok(_) => {
                self.sub(bytes);
                self.kick();
                Err(Error::Full)
            }
            Err(_) => {
                self.kick();
                Err(Error::Full)
            }
        }
    }

    /// Takes `bytes` of the room below the soft limit, or refuses: nothing has to go for them.
    fn try_spare(&self, bytes: u64) -> Result<(), Error> {
        if self.tight.load(Ordering::Acquire) {
            return Err(Error::Full);
        }
        let fits = |used: u64| used.checked_add(bytes).filter(|after| *after <= self.soft);
        let taken = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits);
        taken.map(drop).map_err(|_| Error::Full)
    }

    /// As [`Usage::try_reserve`], and waits up to `patience` for room.
    pub(crate) fn reserve(&self, bytes: u64, patience: Duration) -> Result<(), Error> {
        let deadline = MonoTime::now() + patience;
        loop {
            match self.try_reserve(bytes) {
                Err(Error::Full) => {}
                other => return other,
            }
            let left = deadline.since(MonoTime::now());
            if left.is_zero() || bytes > self.max {
                return Err(Error::Full);
            }
            let mut wanted = self.wanted.lock();
            // Room may have come between the refusal and the lock: never wait long without another look.
            self.room.wait_for(&mut wanted, left.min(Duration::from_millis(20)));
        }
    }

    /// Tells the deleter to look now.
    pub(crate) fn kick(&self) {
        let mut wanted = self.wanted.lock();
        if !*wanted {
            *wanted = true;
            self.wake.notify_one();
        }
    }

    /// The deleter's wait: until kicked or `longest` has passed.
    pub(crate) fn wait(&self, longest: Duration) {
        let mut wanted = self.wanted.lock();
        if !*wanted {
            self.wake.wait_for(&mut wanted, longest);
        }
        *wanted = false;
    }
}

/// Room that was taken for something that is not there yet; what is left is given back when dropped.
pub(crate) struct Reservation {
    usage: Arc<Usage>,
    bytes: u64,
}

impl Reservation {
    pub(crate) fn none(usage: &Arc<Usage>) -> Reservation {
        Reservation {
            usage: usage.clone(),
            bytes: 0,
        }
    }

    /// `bytes` that are spare, below the soft limit.
    pub(crate) fn spare(usage: &Arc<Usage>, bytes: u64) -> Result<Reservation, Error> {
        usage.try_spare(bytes)?;
        Ok(Reservation {
            usage: usage.clone(),
            bytes,
        })
    }

    /// Grows to `bytes`; refuses when there is no room within `patience`.
    pub(crate) fn grow(&mut self, bytes: u64, patience: Duration) -> Result<(), Error> {
        if bytes > self.bytes {
            match patience.is_zero() {
                true => self.usage.try_reserve(bytes - self.bytes)?,
                false => self.usage.reserve(bytes - self.bytes, patience)?,
            }
            self.bytes = bytes;
        }
        Ok(())
    }

    /// Hands over `bytes` of it to what is there now: they stay counted.
    pub(crate) fn hand_over(&mut self, bytes: u64) {
        assert!(bytes <= self.bytes, "{bytes} bytes written into room for {}", self.bytes);
        self.bytes -= bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.usage.sub(self.bytes);
        }
    }
}
