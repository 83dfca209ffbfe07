//! A region's raft log as its peer sees it: in memory, behind the crate's `Storage` trait, so that stepping a peer touches no disk.
//!
//! It holds every entry that is not applied yet, and recent ones for lagging followers; the terms of all entries as runs; and no
//! more. Older entries and raft snapshots are asked for by `Wanted` and come back as events.

use std::cell::RefCell;
use std::collections::VecDeque;

use proto::ferrite_raft::RaftState;
use proto::metapb::Region;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, StorageError};

use crate::log::Found;

/// A place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogPosition {
    pub index: u64,
    pub term: u64,
}

/// Entries to read from disk: `[low, high)`, about `bytes_max` of them, at least one.
#[derive(Debug)]
pub struct Fetch {
    pub low: u64,
    pub high: u64,
    pub bytes_max: u64,
    pub(crate) context: GetEntriesContext,
}

/// What the crate asked for and was told to wait for.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub fetches: Vec<Fetch>,
    /// A raft snapshot at or above this index.
    pub snapshot: Option<u64>,
}

/// A log's terms: `(first index, term)` of each run of equal terms, ascending.
#[derive(Debug, Default)]
struct TermRuns(VecDeque<(u64, u64)>);

impl TermRuns {
    fn append(&mut self, index: u64, term: u64) {
        while self.0.back().is_some_and(|&(first, _)| first >= index) {
            self.0.pop_back();
        }
        if self.0.back().is_none_or(|&(_, last)| last != term) {
            self.0.push_back((index, term));
        }
    }

    fn term(&self, index: u64) -> Option<u64> {
        let after = self.0.partition_point(|&(first, _)| first <= index);
        after.checked_sub(1).map(|at| self.0[at].1)
    }

    fn forget_before(&mut self, index: u64) {
        while self.0.len() > 1 && self.0[1].0 <= index {
            self.0.pop_front();
        }
    }
}

#[derive(Debug)]
pub struct LogCache {
    hard_state: HardState,
    conf_state: ConfState,
    /// What lies before the log.
    truncated: LogPosition,
    last_index: u64,
    terms: TermRuns,
    /// The log's last entries, without a gap; all that are not applied, and some more.
    entries: VecDeque<Entry>,
    entries_bytes: u64,
    /// Entries read from disk for one lagging follower; kept until the next ones come.
    fetched: Vec<Entry>,
    snapshot: Option<Snapshot>,
    wanted: RefCell<Wanted>,
}

fn entry_bytes(entry: &Entry) -> u64 {
    (entry.data.len() + entry.context.len() + 32) as u64
}

impl LogCache {
    /// The log as found at start; `tail` are the entries that are not applied.
    pub fn new(found: &Found, region: &Region, tail: Vec<Entry>) -> LogCache {
        let state = &found.state;
        let hard_state = HardState {
            term: state.term,
            vote: state.vote,
            commit: state.commit,
            ..Default::default()
        };
        let truncated = LogPosition {
            index: state.truncated_index,
            term: state.truncated_term,
        };
        let last_index = found.last_index;
        let terms = TermRuns(found.term_runs.iter().map(|run| (run.index, run.term)).collect());
        if let Some(entry) = tail.last() {
            assert_eq!(entry.index, last_index, "tail is not the log's end");
        }
        LogCache {
            hard_state,
            conf_state: crate::region::conf_state(region),
            truncated,
            last_index,
            terms,
            entries_bytes: tail.iter().map(entry_bytes).sum(),
            entries: tail.into(),
            fetched: Vec::new(),
            snapshot: None,
            wanted: RefCell::default(),
        }
    }

    pub fn truncated(&self) -> LogPosition {
        self.truncated
    }

    pub fn last(&self) -> LogPosition {
        LogPosition {
            index: self.last_index,
            term: self.terms.term(self.last_index).unwrap_or(self.truncated.term),
        }
    }

    pub fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    pub(crate) fn set_hard_state(&mut self, state: HardState) {
        self.hard_state = state;
    }

    /// The durable record of this log's state.
    pub fn raft_state(&self) -> RaftState {
        RaftState {
            term: self.hard_state.term,
            vote: self.hard_state.vote,
            commit: self.hard_state.commit,
            truncated_index: self.truncated.index,
            truncated_term: self.truncated.term,
        }
    }

    fn cache_first(&self) -> u64 {
        self.last_index + 1 - self.entries.len() as u64
    }

    /// Appends entries, replacing any that stand at their place.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.truncated.index,
            "append at {} under truncated {:?}",
            first.index,
            self.truncated
        );
        assert!(
            first.index <= self.last_index + 1,
            "append at {} leaves a gap after {}",
            first.index,
            self.last_index
        );
        while self.entries.back().is_some_and(|last| last.index >= first.index) {
            self.entries_bytes -= self.entries.pop_back().as_ref().map_or(0, entry_bytes);
        }
        for entry in entries {
            self.terms.append(entry.index, entry.term);
            self.entries_bytes += entry_bytes(entry);
            self.entries.push_back(entry.clone());
            self.last_index = entry.index;
        }
        self.fetched.clear();
    }

    /// Replaces the whole log by a raft snapshot's position.
    pub(crate) fn reset(&mut self, position: LogPosition, conf_state: ConfState) {
        self.truncated = position;
        self.last_index = position.index;
        self.terms = TermRuns::default();
        self.entries.clear();
        self.entries_bytes = 0;
        self.fetched.clear();
        self.snapshot = None;
        self.conf_state = conf_state;
    }

    /// Forgets cached entries up to `applied`: those up to `keep_from` (exclusive) at once, the others only as `bytes_max` asks.
    pub(crate) fn evict(&mut self, applied: u64, keep_from: u64, bytes_max: u64) {
        while let Some(first) = self.entries.front() {
            let wanted = first.index >= keep_from && self.entries_bytes <= bytes_max;
            if first.index > applied || wanted {
                break;
            }
            self.entries_bytes -= entry_bytes(first);
            self.entries.pop_front();
        }
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
    }

    /// Compacts the log up to and with `index`; the caller says so to the disk. Entries must be applied.
    pub(crate) fn compact(&mut self, index: u64) {
        assert!(index <= self.last_index, "compact to {index} over last {}", self.last_index);
        let Some(term) = self.terms.term(index).filter(|_| index > self.truncated.index) else {
            return;
        };
        self.truncated = LogPosition { index, term };
        self.terms.forget_before(index + 1);
        while self.entries.front().is_some_and(|first| first.index <= index) {
            self.entries_bytes -= self.entries.pop_front().as_ref().map_or(0, entry_bytes);
        }
        if self.snapshot.as_ref().is_some_and(|s| s.get_metadata().index < index) {
            self.snapshot = None;
        }
    }

    pub(crate) fn take_wanted(&mut self) -> Wanted {
        self.wanted.take()
    }

    /// Entries that [`Fetch`] asked for; the crate asks again right away.
    pub(crate) fn put_fetched(&mut self, entries: Vec<Entry>) {
        self.fetched = entries;
    }

    /// The raft snapshot that was asked for.
    pub(crate) fn put_snapshot(&mut self, snapshot: Snapshot) {
        self.snapshot = Some(snapshot);
    }

    /// The raft snapshot at hand must not be sent any more.
    pub(crate) fn drop_snapshot(&mut self) {
        self.snapshot = None;
    }

    pub(crate) fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    fn in_fetched(&self, low: u64, high: u64) -> Option<impl Iterator<Item = &Entry>> {
        let first = self.fetched.first()?.index;
        let at = low.checked_sub(first).filter(|&at| (at as usize) < self.fetched.len())? as usize;
        Some(self.fetched[at..].iter().take_while(move |entry| entry.index < high))
    }
}

/// At least one entry, then as many as fit `bytes_max`.
fn limit<'a>(entries: impl Iterator<Item = &'a Entry>, bytes_max: Option<u64>) -> Vec<Entry> {
    let bytes_max = bytes_max.unwrap_or(u64::MAX);
    let mut bytes = 0;
    let fits = |(at, entry): &(usize, &Entry)| {
        bytes += entry_bytes(entry);
        *at == 0 || bytes <= bytes_max
    };
    entries.enumerate().take_while(fits).map(|(_, entry)| entry.clone()).collect()
}

impl raft::Storage for LogCache {
    fn initial_state(&self) -> raft::Result<raft::RaftState> {
        Ok(raft::RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(&self, low: u64, high: u64, max: impl Into<Option<u64>>, context: GetEntriesContext) -> raft::Result<Vec<Entry>> {
        assert!(high <= self.last_index + 1, "entries to {high} over last {}", self.last_index);
        if low <= self.truncated.index {
            return Err(Error::Store(StorageError::Compacted));
        }
        let max = max.into();
        if low >= self.cache_first() {
            let (from, to) = ((low - self.cache_first()) as usize, (high - self.cache_first()) as usize);
            return Ok(limit(self.entries.range(from..to), max));
        }
        if let Some(entries) = self.in_fetched(low, high) {
            return Ok(limit(entries, max));
        }
        assert!(
            context.can_async(),
            "entries [{low}, {high}) are not applied, yet not in memory (from {})",
            self.cache_first()
        );
        let bytes_max = max.unwrap_or(u64::MAX);
        self.wanted.borrow_mut().fetches.push(Fetch {
            low,
            high,
            bytes_max,
            context,
        });
        Err(Error::Store(StorageError::LogTemporarilyUnavailable))
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.truncated.index {
            return Ok(self.truncated.term);
        }
        if index < self.truncated.index {
            return Err(Error::Store(StorageError::Compacted));
        }
        let term = self.terms.term(index).filter(|_| index <= self.last_index);
        term.ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.truncated.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last_index)
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let fresh = |s: &&Snapshot| s.get_metadata().index >= request_index.max(self.truncated.index);
        if let Some(snapshot) = self.snapshot.as_ref().filter(fresh) {
            return Ok(snapshot.clone());
        }
        self.wanted.borrow_mut().snapshot = Some(request_index);
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

#[cfg(test)]
mod tests;
