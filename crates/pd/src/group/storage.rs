//! The group's log as raft sees it: all in memory, since a snapshot is taken every few thousand commands and its state is small.

use std::cell::Cell;
use std::collections::VecDeque;

use prost::Message;
use proto::ferrite_raft::ConfState as WireConfState;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot as RaftSnapshot};
use raft::{Error, GetEntriesContext, StorageError};
use raftstore::message::{conf_state_from_wire, entry_from_wire};
use raftstore::storage::LogPosition;

use crate::log::{Snapshot, Stored};

/// See the module.
#[derive(Debug)]
pub(super) struct Storage {
    hard_state: HardState,
    snapshot: Snapshot,
    /// Follow the snapshot without gap.
    entries: VecDeque<Entry>,
    /// A member needs a snapshot that knows it, and this one is older.
    wanted: Cell<bool>,
}

fn entry_bytes(entry: &Entry) -> u64 {
    (entry.data.len() + entry.context.len() + 32) as u64
}

impl Storage {
    pub fn new(stored: &Stored) -> Storage {
        let hard_state = HardState {
            term: stored.hard_state.term,
            vote: stored.hard_state.vote,
            commit: stored.hard_state.commit,
            ..HardState::default()
        };
        let entries = stored.entries.iter().cloned();
        Storage {
            hard_state,
            snapshot: stored.snapshot.clone(),
            entries: entries
                .map(|entry| entry_from_wire(entry).expect("this member wrote entries of kinds that raft knows"))
                .collect(),
            wanted: Cell::default(),
        }
    }

    /// Whether a newer snapshot was asked for since the last call.
    pub fn take_wanted(&self) -> bool {
        self.wanted.take()
    }

    pub fn start(&self) -> LogPosition {
        self.snapshot.position
    }

    pub fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    pub fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// Appends entries, replacing those at their place and behind.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let last = self.last();
        let start = self.start().index;
        assert!(
            first.index > start && first.index <= last + 1,
            "append at {} to a log of {start} to {last}",
            first.index
        );
        self.entries.truncate((first.index - start - 1) as usize);
        self.entries.extend(entries.iter().cloned());
    }

    /// Puts a snapshot in place of the entries up to its position; with `reset`, of all entries.
    pub fn put_snapshot(&mut self, snapshot: Snapshot, reset: bool) {
        let gone = snapshot.position.index - self.start().index;
        match reset {
            true => self.entries.clear(),
            false => drop(self.entries.drain(..gone as usize)),
        }
        self.snapshot = snapshot;
    }

    pub fn term_of(&self, index: u64) -> Option<u64> {
        let start = self.start();
        match index.checked_sub(start.index)? {
            0 => Some(start.term),
            at => self.entries.get(at as usize - 1).map(|entry| entry.term),
        }
    }

    fn last(&self) -> u64 {
        self.start().index + self.entries.len() as u64
    }
}

/// Raft's form of a snapshot; its data is the state as this crate encodes it.
fn to_raft(snapshot: &Snapshot) -> RaftSnapshot {
    let mut raft = RaftSnapshot {
        data: snapshot.state.encode_to_vec().into(),
        ..RaftSnapshot::default()
    };
    let meta = raft.mut_metadata();
    (meta.index, meta.term) = (snapshot.position.index, snapshot.position.term);
    meta.set_conf_state(conf_state(&snapshot.conf_state));
    raft
}

fn conf_state(wire: &WireConfState) -> ConfState {
    conf_state_from_wire(wire.clone())
}

impl raft::Storage for Storage {
    fn initial_state(&self) -> raft::Result<raft::RaftState> {
        Ok(raft::RaftState::new(
            self.hard_state.clone(),
            conf_state(&self.snapshot.conf_state),
        ))
    }

    fn entries(&self, low: u64, high: u64, max: impl Into<Option<u64>>, _: GetEntriesContext) -> raft::Result<Vec<Entry>> {
        let start = self.start().index;
        if low <= start {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last() + 1, "entries to {high} over last {}", self.last());
        let (from, to) = ((low - start - 1) as usize, (high - start - 1) as usize);
        let max = max.into().unwrap_or(u64::MAX);
        let mut bytes = 0;
        let fits = |(at, entry): &(usize, &Entry)| {
            bytes += entry_bytes(entry);
            *at == 0 || bytes <= max
        };
        let range = self.entries.range(from..to).enumerate();
        Ok(range.take_while(fits).map(|(_, entry)| entry.clone()).collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let missing = match index < self.start().index {
            true => StorageError::Compacted,
            false => StorageError::Unavailable,
        };
        self.term_of(index).ok_or(Error::Store(missing))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.start().index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<RaftSnapshot> {
        let WireConfState { voters, learners, .. } = &self.snapshot.conf_state;
        // A member refuses a snapshot of a membership without it.
        let knows = voters.contains(&to) || learners.contains(&to);
        if knows && request_index <= self.start().index {
            return Ok(to_raft(&self.snapshot));
        }
        self.wanted.set(true);
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
