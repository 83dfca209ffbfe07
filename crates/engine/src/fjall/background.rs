//! The two threads behind the engine: one makes tables of full memtables, one compacts tables. And what a writer does when they
//! cannot follow: it waits, bounded by their progress, or is told that the disk is full.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lsm_tree::AbstractTree;
use lsm_tree::compaction::Leveled;
use parking_lot::{Condvar, Mutex};

use super::{Core, Front, log, tree_error};
use crate::{Cf, Error, Result, metrics};

/// Writers wait once the memtables hold this many times their size while the ones before are still being written to disk.
const MEMTABLES_MAX: u64 = 3;

/// Writers wait while a family has this many runs of tables that no compaction has touched: each slows every read.
const RUNS_MAX: usize = 24;

/// Size at which compaction begins another table, unless memtables are smaller. Small tables make short compactions, which a stop
/// has to wait for, and sharp estimates of sizes.
const TABLE_BYTES_MAX: u64 = 32 << 20;

/// Room on the disk that tables leave to the log and to others.
const SPARE_BYTES: u64 = 4 << 20;

/// Room that a compaction of a large family wants at most.
const COMPACTION_BYTES_MAX: u64 = 1 << 30;

/// Pause before a flush or compaction is tried again on a full disk.
const RETRY: Duration = Duration::from_millis(500);

#[derive(Default)]
pub struct Background {
    state: Mutex<State>,
    /// Wakes the threads.
    work: Condvar,
    /// Wakes writers that wait for room.
    room: Condvar,
    /// Writers look at this alone as long as all is well.
    crowded: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Memtables that wait to become tables, or become them now: all of one moment.
    sealed: Option<Sealed>,
    /// Tables changed since the compacting thread looked.
    uncompacted: bool,
    /// Memtables are over their bound.
    memtables_full: bool,
    /// A family has too many runs.
    runs_many: bool,
    disk_full: bool,
    stop: bool,
}

/// The memtables up to a moment.
#[derive(Clone, Copy)]
struct Sealed {
    /// Last batch in them.
    last: u64,
    /// Last segment of the log that they need.
    segment: u64,
    /// Their size, and about that of the tables at most.
    bytes: u64,
}

impl Background {
    pub fn stop(&self) {
        self.state.lock().stop = true;
        self.work.notify_all();
        self.room.notify_all();
    }

    pub fn wake_writers(&self) {
        self.room.notify_all();
    }

    /// Returns once a write may go on.
    pub fn wait_for_room(&self, core: &Core) -> Result<()> {
        if !self.crowded.load(Ordering::Relaxed) {
            return Ok(());
        }
        let _timer = metrics::STALL_SECONDS.start_timer();
        let mut state = self.state.lock();
        while state.memtables_full || state.runs_many {
            core.alive()?;
            if state.disk_full {
                return Err(Error::DiskFull {
                    dir: core.dir.display().to_string(),
                });
            }
            self.room.wait_for(&mut state, RETRY);
        }
        Ok(())
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        self.crowded.store(state.memtables_full || state.runs_many, Ordering::Relaxed);
        self.work.notify_all();
        self.room.notify_all();
    }

    /// Waits until `ready` gives something to do; `None` to stop.
    fn next<T>(&self, ready: impl Fn(&mut State) -> Option<T>) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if state.stop {
                return None;
            }
            if let Some(task) = ready(&mut state) {
                return Some(task);
            }
            self.work.wait(&mut state);
        }
    }

    /// Waits a moment, or for the stop.
    fn pause(&self) {
        let mut state = self.state.lock();
        if !state.stop {
            self.work.wait_for(&mut state, RETRY);
        }
    }
}

/// Starts the threads. They hold the core, so the engine stops them when it is dropped.
pub fn start(core: &Arc<Core>) -> Vec<JoinHandle<()>> {
    let (flush, compact) = (core.clone(), core.clone());
    vec![
        base::thread::spawn("engine-flush", move || flush.run_flushes()),
        base::thread::spawn("engine-compact", move || compact.run_compactions()),
    ]
}

impl Core {
    /// Lets go of the segments that a start found, at once or when what it replayed is in tables, so that restarts do not heap
    /// them up.
    pub(super) fn tidy(&self, found: log::Found) -> Result<()> {
        let mut front = self.front.lock();
        if front.bytes > 0 {
            return self.maybe_seal(&mut front);
        }
        front.log.set_flushed(found.last, found.segment);
        front.log.sync_locked()?;
        log::remove_until(&self.dir.join("log"), found.segment)
    }

    /// Seals the memtables, or notes that they are full when an earlier set still waits.
    pub(super) fn maybe_seal(&self, front: &mut Front) -> Result<()> {
        let mut outcome = Ok(());
        self.background.update(|state| {
            if state.sealed.is_some() {
                state.memtables_full = front.bytes >= MEMTABLES_MAX * self.config.memtable_size.0;
            } else {
                match self.seal(front) {
                    Ok(sealed) => state.sealed = Some(sealed),
                    Err(Error::DiskFull { .. }) => {} // the batch is in; the next one tries again
                    Err(error) => outcome = Err(error),
                }
            }
        });
        metrics::MEMTABLE_BYTES.set(front.bytes as i64);
        outcome.map_err(|e| self.fail(e))
    }

    fn seal(&self, front: &mut Front) -> Result<Sealed> {
        let segment = front.log.seal()?;
        for tree in &self.trees {
            tree.rotate_memtable();
        }
        front.memtables = self.trees.each_ref().map(|tree| tree.active_memtable());
        let bytes = std::mem::take(&mut front.bytes);
        Ok(Sealed {
            last: front.log.last(),
            segment,
            bytes,
        })
    }

    fn run_flushes(&self) {
        while let Some(sealed) = self.background.next(|state| state.sealed) {
            match self.flush(sealed) {
                Ok(()) => self.after_flush(),
                Err(Error::DiskFull { dir }) => {
                    tracing::warn!(%dir, "disk is full, flush waits");
                    self.background.update(|state| state.disk_full = true);
                    self.background.pause();
                }
                Err(error) => {
                    self.fail(error);
                    return;
                }
            }
        }
    }

    /// A full disk before the attempt: `lsm-tree` leaves half-written tables behind when it meets one, and each try would eat what
    /// somebody had freed.
    fn check_space(&self, wanted: u64) -> Result<()> {
        let space = rustix::fs::statvfs(&self.dir).map_err(|e| Error::from_io("ask for free space", &self.dir, e.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free >= wanted + SPARE_BYTES {
            Ok(())
        } else {
            Err(Error::DiskFull {
                dir: self.dir.display().to_string(),
            })
        }
    }

    /// Makes tables of the sealed memtables. The order of these steps is what the proof in the module's head rests on.
    fn flush(&self, sealed: Sealed) -> Result<()> {
        let _timer = metrics::FLUSH_SECONDS.start_timer();
        self.check_space(sealed.bytes)?;
        self.log.sync(sealed.last, &self.front)?;
        for tree in &self.trees {
            let lock = tree.get_flush_lock();
            tree.flush(&lock, self.readers.oldest(&self.visible))
                .map_err(|e| tree_error("flush", &self.dir, e))?;
        }
        let mut front = self.front.lock();
        front.log.set_flushed(sealed.last, sealed.segment);
        self.show_tables(&mut front);
        drop(front);
        self.log.sync_marks(&self.front)?;
        log::remove_until(&self.dir.join("log"), sealed.segment)?;
        self.forget_old_tables()
    }

    fn after_flush(&self) {
        let runs_many = self.runs() >= RUNS_MAX;
        self.background.update(|state| {
            state.sealed = None;
            state.memtables_full = false;
            state.disk_full = false;
            state.uncompacted = true;
            state.runs_many = runs_many;
        });
        let mut front = self.front.lock();
        if front.bytes >= self.config.memtable_size.0 {
            let _ = self.maybe_seal(&mut front); // told by `fail`
        }
    }

    /// Most runs that a family's first level has.
    fn runs(&self) -> usize {
        self.trees.iter().map(|tree| tree.l0_run_count()).max().unwrap_or(0)
    }

    /// Removes lists of tables, and tables, that no reader can need.
    fn forget_old_tables(&self) -> Result<()> {
        for (cf, tree) in Cf::ALL.iter().zip(&self.trees) {
            let oldest = self.readers.oldest(&self.visible);
            let outcome = tree.get_version_history_lock().maintenance(&self.dir.join(cf.name()), oldest);
            outcome.map_err(|e| tree_error("remove old tables", &self.dir, e))?;
        }
        Ok(())
    }

    /// Tells the compacting thread that tables changed.
    pub(super) fn tables_changed(&self) {
        let runs_many = self.runs() >= RUNS_MAX;
        self.background.update(|state| {
            state.uncompacted = true;
            state.runs_many = runs_many;
        });
    }

    fn run_compactions(&self) {
        let table_bytes = TABLE_BYTES_MAX.min(self.config.memtable_size.0);
        let strategy = Arc::new(Leveled::default().with_table_target_size(table_bytes));
        while self
            .background
            .next(|state| std::mem::take(&mut state.uncompacted).then_some(()))
            .is_some()
        {
            match self.compact(&strategy) {
                Ok(()) => {}
                Err(Error::DiskFull { dir }) => {
                    tracing::warn!(%dir, "disk is full, compaction waits");
                    self.background.update(|state| state.uncompacted = true);
                    self.background.pause();
                }
                Err(error) => {
                    self.fail(error);
                    return;
                }
            }
        }
    }

    /// Compacts until no family needs it or the engine stops.
    fn compact(&self, strategy: &Arc<Leveled>) -> Result<()> {
        for cf in Cf::ALL {
            let tree = self.tree(cf);
            loop {
                if self.background.state.lock().stop {
                    return Ok(());
                }
                self.check_space(tree.disk_space().min(COMPACTION_BYTES_MAX))?;
                let before = tree.current_version().id();
                let oldest = self.readers.oldest(&self.visible);
                tree.compact(strategy.clone(), oldest)
                    .map_err(|e| tree_error("compact", &self.dir, e))?;
                if tree.current_version().id() == before {
                    break;
                }
                metrics::COMPACTIONS.with_label_values(&[cf.name()]).inc();
                self.show_tables(&mut self.front.lock());
                self.forget_old_tables()?;
                let runs_many = self.runs() >= RUNS_MAX;
                self.background.update(|state| state.runs_many = runs_many);
            }
        }
        Ok(())
    }
}
