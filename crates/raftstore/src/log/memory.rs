//! The raft log in memory, with crashes that lose what was not synced.

use std::collections::BTreeMap;

use base::RegionId;
use parking_lot::Mutex;
use proto::ferrite_raft::RaftState;
use raft::eraftpb::Entry;

use super::{Error, Found, RaftLog, Result};
use crate::peer::RaftWrite;
use crate::storage::LogPosition;

#[derive(Clone, Debug, Default)]
struct RegionLog {
    state: RaftState,
    entries: BTreeMap<u64, Entry>,
}

/// A change that a crash may lose.
#[derive(Clone, Debug)]
enum Change {
    Write {
        region: RegionId,
        reset: bool,
        entries: Vec<Entry>,
        state: Option<RaftState>,
        compact_to: Option<u64>,
    },
    Remove(RegionId),
}

type Regions = BTreeMap<RegionId, RegionLog>;

#[derive(Debug, Default)]
struct Inner {
    now: Regions,
    durable: Regions,
    /// Changes since the last sync, oldest first.
    unsynced: Vec<Change>,
    fail_next: bool,
    poisoned: bool,
}

#[derive(Debug, Default)]
pub struct MemLog(Mutex<Inner>);

fn apply(regions: &mut Regions, change: &Change) {
    match change {
        Change::Remove(region) => drop(regions.remove(region)),
        Change::Write {
            region,
            reset,
            entries,
            state,
            compact_to,
        } => {
            let log = regions.entry(*region).or_default();
            if *reset {
                log.entries.clear();
            }
            if let Some(first) = entries.first() {
                log.entries.split_off(&first.index);
            }
            log.entries.extend(entries.iter().map(|entry| (entry.index, entry.clone())));
            if let Some(state) = state {
                log.state = *state;
            }
            if let Some(to) = compact_to {
                log.entries = log.entries.split_off(&(to + 1));
            }
        }
    }
}

impl MemLog {
    pub fn new() -> MemLog {
        MemLog::default()
    }

    /// How many changes a crash now may lose.
    pub fn unsynced(&self) -> usize {
        self.0.lock().unsynced.len()
    }

    /// What a crash leaves if the disk happened to keep the first `keep` of the changes not synced.
    pub fn crash(&self, keep: usize) -> MemLog {
        let inner = self.0.lock();
        let mut durable = inner.durable.clone();
        inner
            .unsynced
            .iter()
            .take(keep)
            .for_each(|change| apply(&mut durable, change));
        MemLog(Mutex::new(Inner {
            now: durable.clone(),
            durable,
            ..Inner::default()
        }))
    }

    /// Makes the next write or sync fail, and all that follow.
    pub fn fail_next(&self) {
        self.0.lock().fail_next = true;
    }
}

impl Inner {
    fn check(&mut self) -> Result<()> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        if std::mem::take(&mut self.fail_next) {
            self.poisoned = true;
            return Err(Error::Backend {
                act: "write",
                dir: "memory".into(),
                message: "injected fault".to_owned(),
            });
        }
        Ok(())
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.now, &change);
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            apply(&mut self.durable, &change);
        }
    }
}

impl RaftLog for MemLog {
    fn write(&self, writes: &[RaftWrite], sync: bool) -> Result<()> {
        let mut inner = self.0.lock();
        inner.check()?;
        for write in writes {
            if !write.reset && write.entries.is_empty() && write.state.is_none() && write.compact_to.is_none() {
                continue;
            }
            inner.change(Change::Write {
                region: write.region,
                reset: write.reset,
                entries: write.entries.clone(),
                state: write.state,
                compact_to: write.compact_to,
            });
        }
        if sync {
            inner.sync();
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let mut inner = self.0.lock();
        inner.check()?;
        inner.sync();
        Ok(())
    }

    fn regions(&self) -> Vec<RegionId> {
        self.0.lock().now.keys().copied().collect()
    }

    fn find(&self, region: RegionId) -> Result<Option<Found>> {
        let inner = self.0.lock();
        let found = |log: &RegionLog| {
            let mut term_runs: Vec<_> = log
                .entries
                .values()
                .map(|e| LogPosition {
                    index: e.index,
                    term: e.term,
                })
                .collect();
            term_runs.dedup_by_key(|position| position.term);
            let last_index = log
                .entries
                .last_key_value()
                .map_or(log.state.truncated_index, |(&index, _)| index);
            Found {
                state: log.state,
                last_index,
                term_runs,
            }
        };
        Ok(inner.now.get(&region).map(found))
    }

    fn entries(&self, region: RegionId, low: u64, high: u64, bytes_max: u64) -> Result<Vec<Entry>> {
        let inner = self.0.lock();
        let Some(log) = inner.now.get(&region).filter(|log| log.entries.contains_key(&low)) else {
            return Ok(Vec::new());
        };
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let first = bytes == 0;
            bytes += entry.data.len() as u64 + 1;
            first || bytes <= bytes_max
        };
        Ok(log
            .entries
            .range(low..high)
            .map(|(_, entry)| entry)
            .take_while(fits)
            .cloned()
            .collect())
    }

    fn remove(&self, region: RegionId) -> Result<()> {
        let mut inner = self.0.lock();
        inner.check()?;
        inner.change(Change::Remove(region));
        Ok(())
    }

    fn purge(&self) -> Result<()> {
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}
