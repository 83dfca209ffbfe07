//! The log and state of one node, in memory: what raft sees, and what would be left after a crash.

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

/// Every group starts as if from a snapshot of an empty state machine at index 1, term 1, so that nodes which join later
/// must be sent a snapshot rather than a log that does not tell the first members.
pub const FIRST: (u64, u64) = (1, 1);

/// One whole state: votes, log, members, and the state machine, which is the list of payloads applied so far.
#[derive(Clone, Default, Debug, PartialEq)]
pub struct Log {
    pub hard_state: HardState,
    pub conf_state: ConfState,
    /// `(index, term)` of the entry just before `entries`; both 0 in a node that has not been told anything yet.
    pub start: (u64, u64),
    /// Entries `start.0 + 1 ..= last_index`, without a gap.
    pub entries: Vec<Entry>,
    pub applied_index: u64,
    pub applied: Vec<String>,
}

impl Log {
    pub fn last_index(&self) -> u64 {
        self.start.0 + self.entries.len() as u64
    }

    /// The terms of all entries after `start`: the shape in which the paper draws logs.
    pub fn terms(&self) -> Vec<u64> {
        self.entries.iter().map(|entry| entry.term).collect()
    }

    fn term(&self, index: u64) -> Result<u64, StorageError> {
        match index {
            _ if index < self.start.0 => Err(StorageError::Compacted),
            _ if index == self.start.0 => Ok(self.start.1),
            _ if index > self.last_index() => Err(StorageError::Unavailable),
            _ => Ok(self.entries[(index - self.start.0 - 1) as usize].term),
        }
    }
}

/// Raft reads and writes `seen`; `sync` makes it durable; a crash leaves only what was synced.
#[derive(Default)]
pub struct Disk {
    pub seen: Log,
    synced: Log,
}

impl Disk {
    /// A member of a group of `voters` which holds entries of these terms after [`FIRST`], all durable, none known committed.
    pub fn with_terms(voters: &[u64], terms: &[u64]) -> Self {
        let mut seen = Log {
            start: FIRST,
            applied_index: FIRST.0,
            ..Log::default()
        };
        seen.conf_state.set_voters(voters.to_vec());
        seen.entries = (FIRST.0 + 1..)
            .zip(terms)
            .map(|(index, &term)| super::entry(term, index))
            .collect();
        seen.hard_state.term = terms.last().copied().unwrap_or(FIRST.1);
        seen.hard_state.commit = FIRST.0;
        Self {
            synced: seen.clone(),
            seen,
        }
    }

    /// The same, in a later term and with a vote given in it.
    pub fn in_term(mut self, term: u64, vote: u64) -> Self {
        self.seen.hard_state.term = term;
        self.seen.hard_state.vote = vote;
        self.sync();
        self
    }

    pub fn sync(&mut self) {
        self.synced = self.seen.clone();
    }

    pub fn synced(&self) -> &Log {
        &self.synced
    }

    /// The disk as the next process finds it.
    pub fn after_crash(&self) -> Self {
        Self {
            seen: self.synced.clone(),
            synced: self.synced.clone(),
        }
    }

    /// Writes `entries` at their indexes and drops whatever stood there and behind.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let keep = first
            .index
            .checked_sub(self.seen.start.0 + 1)
            .expect("never below the start of the log");
        assert!(keep as usize <= self.seen.entries.len(), "a gap before index {}", first.index);
        self.seen.entries.truncate(keep as usize);
        self.seen.entries.extend_from_slice(entries);
    }

    /// Replaces everything by what the snapshot holds.
    pub fn install(&mut self, snapshot: &Snapshot) {
        let meta = snapshot.get_metadata();
        self.seen.start = (meta.index, meta.term);
        self.seen.entries.clear();
        self.seen.conf_state = meta.get_conf_state().clone();
        self.seen.applied_index = meta.index;
        let data = str::from_utf8(&snapshot.data).expect("we wrote it");
        self.seen.applied = data.lines().map(String::from).collect();
    }

    /// Forgets applied entries: whoever still needs them must be sent a snapshot.
    pub fn compact(&mut self) {
        let applied = self.seen.applied_index;
        let term = self.seen.term(applied).expect("applied entries are there");
        self.seen.entries.drain(..(applied - self.seen.start.0) as usize);
        self.seen.start = (applied, term);
        self.sync();
    }
}

impl Storage for Disk {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState {
            hard_state: self.seen.hard_state.clone(),
            conf_state: self.seen.conf_state.clone(),
        })
    }

    fn entries(&self, low: u64, high: u64, bytes_max: impl Into<Option<u64>>, _: GetEntriesContext) -> raft::Result<Vec<Entry>> {
        if low <= self.seen.start.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        let at = |index: u64| (index - self.seen.start.0 - 1) as usize;
        let mut entries = self.seen.entries[at(low)..at(high)].to_vec();
        raft::util::limit_size(&mut entries, bytes_max.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        Ok(self.seen.term(index)?)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.seen.start.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.seen.last_index())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let index = self.seen.applied_index;
        if index < request_index {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        let meta = snapshot.mut_metadata();
        meta.index = index;
        meta.term = self.seen.term(index)?;
        meta.set_conf_state(self.seen.conf_state.clone());
        snapshot.data = self.seen.applied.join("\n").into();
        Ok(snapshot)
    }
}
