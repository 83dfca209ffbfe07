//! Times that are over: what the leader of a region may promise of its past, so that any copy can serve reads of it.

use std::collections::BTreeMap;

use base::Ts;
use engine::kv::RegionSnapshot;

use crate::error::{Error, Result};
use crate::lock::LockKind;
use crate::mvcc;
use crate::planted;

/// Nothing commits in the region at or below `safe_ts` any more, and its log up to `index` holds all that did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SafeTime {
    /// Of the region's range: of another one this says nothing.
    pub version: u64,
    pub safe_ts: Ts,
    pub index: u64,
}

impl SafeTime {
    /// Of the region of `view`. The TSO gave `now`; then this store, which led the region at the time of `view`, noted a read at `now` and
    /// waited for locks in memory that would hide something from it; then `view` was taken.
    ///
    /// Whoever asks for a commit timestamp from then on gets a later one, and async commits go above what was read at. Left are
    /// transactions whose locks are there: they may commit at any time after they began.
    pub fn of(view: &dyn RegionSnapshot, now: Ts) -> Result<SafeTime> {
        let mut safe_ts = now;
        mvcc::scan_locks(view, &BTreeMap::new(), b"", b"", 0, |locked| {
            let may_commit = locked.lock.kind != LockKind::Pessimistic && !planted::on(planted::Bug::SafeTsPastLocks);
            if may_commit {
                safe_ts = safe_ts.min(Ts(locked.lock.start_ts.0.saturating_sub(1)));
            }
            false
        })?;
        Ok(SafeTime {
            version: view.region().region_epoch.unwrap_or_default().version,
            safe_ts,
            index: view.applied().map_err(Error::from)?,
        })
    }

    /// Whether a read at `ts` of the region in this version is of a time that is over.
    pub fn covers(&self, version: u64, ts: Ts) -> bool {
        self.version == version && ts <= self.safe_ts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Driver, commit, lock, prewrite, unlock};
    use crate::{Command, scheduler::Config};

    #[test]
    fn locks_with_data_hold_it_back() {
        let mut driver = Driver::new(Config::default());
        let safe_ts = |driver: &Driver| SafeTime::of(&*driver.view(), Ts(100)).expect("memory").safe_ts;
        assert_eq!(safe_ts(&driver), Ts(100));
        driver.must(Command::Prewrite(prewrite(20, &["a"])));
        driver.must(Command::Prewrite(prewrite(10, &["b", "c"])));
        assert_eq!(safe_ts(&driver), Ts(9));
        driver.must(commit(10, 30, &["b", "c"]));
        assert_eq!(safe_ts(&driver), Ts(19));
        driver.must(commit(20, 110, &["a"]));
        driver.must(Command::PessimisticLock(lock(5, &["d"])));
        assert_eq!(safe_ts(&driver), Ts(100), "it has nothing to commit yet");
        driver.must(unlock(5, &["d"]));
    }

    #[test]
    fn it_is_of_one_version_of_the_range() {
        let of = SafeTime {
            version: 3,
            safe_ts: Ts(50),
            index: 7,
        };
        assert!(of.covers(3, Ts(50)) && !of.covers(3, Ts(51)) && !of.covers(4, Ts(50)));
    }
}
