//! A log of one member in memory that crashes on demand: what was not synced is lost, or written without anybody having heard of it.
//! For tests of the machine alone.

use proto::ferrite_pd as record;
use proto::ferrite_pd::command::Kind as Command;

use base::MonoTime;

use super::{LogEvent, Proposal};

/// Where a machine starts: the state of the last snapshot, before the commands that the first polls return.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovered {
    /// Index of the last command in `state`; zero without a snapshot.
    pub index: u64,
    /// None without a snapshot.
    pub state: Option<record::State>,
}

/// See the module. Syncs at each poll.
#[derive(Debug, Default)]
pub struct MemoryLog {
    snapshot: Recovered,
    /// Durable commands after the snapshot.
    durable: Vec<Command>,
    unsynced: Vec<Proposal>,
    /// Whether this run has been told of what was durable at its start.
    replayed: bool,
}

impl MemoryLog {
    pub fn new() -> MemoryLog {
        MemoryLog::default()
    }

    /// The process dies and starts again. Of the commands proposed but not polled, the first `kept` had reached the disk.
    pub fn crash(&mut self, kept: usize) -> Recovered {
        let unsynced = std::mem::take(&mut self.unsynced);
        self.durable
            .extend(unsynced.into_iter().take(kept).map(|proposal| proposal.command));
        self.replayed = false;
        self.snapshot.clone()
    }

    /// How many commands a crash could lose now.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// Takes proposals over, in order.
    pub fn propose(&mut self, proposals: Vec<Proposal>) {
        self.unsynced.extend(proposals);
    }

    /// Syncs what was proposed and returns what came out since the last call.
    pub fn poll(&mut self) -> Vec<LogEvent> {
        let mut events = Vec::new();
        if !self.replayed {
            self.replayed = true;
            let indexed = self.durable.iter().zip(self.snapshot.index + 1..);
            events.extend(indexed.map(|(command, index)| LogEvent::Committed {
                index,
                proposal: None,
                command: Some(command.clone()),
            }));
            events.push(LogEvent::Leads);
            events.push(LogEvent::Lease {
                until: MonoTime(u64::MAX),
            });
        }
        for Proposal { id, command } in self.unsynced.drain(..) {
            self.durable.push(command.clone());
            let index = self.snapshot.index + self.durable.len() as u64;
            events.push(LogEvent::Committed {
                index,
                proposal: Some(id),
                command: Some(command),
            });
        }
        events
    }

    /// Keeps `state`, which holds every command up to `index`, and forgets those.
    pub fn snapshot(&mut self, index: u64, state: &record::State) {
        let held = index
            .checked_sub(self.snapshot.index)
            .expect("a snapshot is newer than the last");
        self.durable.drain(..held as usize);
        self.snapshot = Recovered {
            index,
            state: Some(state.clone()),
        };
    }
}
