//! What a node keeps, and how raft reads it.

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// Everything one node would have on disk: votes, members, log, and the state machine, here a list of `key=value` lines.
#[derive(Default)]
pub struct Disk {
    pub hard_state: HardState,
    pub members: ConfState,
    /// `(index, term)` of the last entry that is only in the snapshot; `entries` holds `start.0 + 1 ..`, without a gap.
    pub start: (u64, u64),
    pub entries: Vec<Entry>,
    pub applied_index: u64,
    pub applied: Vec<String>,
}

impl Disk {
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        self.entries.truncate((first.index - self.start.0 - 1) as usize); // a new leader may overwrite our tail
        self.entries.extend_from_slice(entries);
    }

    pub fn install(&mut self, snapshot: &Snapshot) {
        let meta = snapshot.get_metadata();
        self.start = (meta.index, meta.term);
        self.entries.clear();
        self.members = meta.get_conf_state().clone();
        self.applied_index = meta.index;
        self.applied = String::from_utf8_lossy(&snapshot.data).lines().map(String::from).collect();
    }

    /// Forgets the log up to the last applied entry: the state machine holds what those entries did.
    pub fn compact(&mut self) {
        let term = self.term(self.applied_index).expect("an applied entry has a term");
        self.entries.drain(..(self.applied_index - self.start.0) as usize);
        self.start = (self.applied_index, term);
    }
}

/// How raft reads what we keep. It never writes: writing is our part of the loop, in `on_ready`.
impl Storage for Disk {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState {
            hard_state: self.hard_state.clone(),
            conf_state: self.members.clone(),
        })
    }

    fn entries(&self, low: u64, high: u64, bytes_max: impl Into<Option<u64>>, _: GetEntriesContext) -> raft::Result<Vec<Entry>> {
        if low <= self.start.0 {
            return Err(StorageError::Compacted.into()); // and raft sends a snapshot in its place
        }
        let at = |index: u64| (index - self.start.0 - 1) as usize;
        let mut entries = self.entries[at(low)..at(high)].to_vec();
        raft::util::limit_size(&mut entries, bytes_max.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match index {
            _ if index < self.start.0 => Err(StorageError::Compacted.into()),
            _ if index == self.start.0 => Ok(self.start.1),
            _ => self
                .entries
                .get((index - self.start.0 - 1) as usize)
                .map_or(Err(StorageError::Unavailable.into()), |e| Ok(e.term)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.start.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.start.0 + self.entries.len() as u64)
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let mut snapshot = Snapshot {
            data: self.applied.join("\n").into(),
            ..Snapshot::default()
        };
        let meta = snapshot.mut_metadata();
        (meta.index, meta.term) = (self.applied_index, self.term(self.applied_index)?);
        meta.set_conf_state(self.members.clone());
        Ok(snapshot)
    }
}
