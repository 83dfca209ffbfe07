//! The replicated log of the placement driver: what goes in, what comes out, and what of it lies on a member's disk.
//!
//! [`Group`](crate::group::Group) replicates it among the members, as a pure state machine; [`mod@file`] keeps it on disk. [`memory`] is a
//! log without a group, for tests of the machine.

use std::collections::VecDeque;

use base::MonoTime;
use proto::ferrite_pd as record;
use proto::ferrite_pd::command::Kind as Command;
use proto::ferrite_raft::{ConfState, Entry};
use raftstore::storage::LogPosition;

use crate::MemberId;

pub mod file;
mod frame;
pub mod memory;
mod old;

/// Tells a machine's proposals apart, within one run of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProposalId(pub u64);

/// A command on its way into the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    pub id: ProposalId,
    pub command: Command,
}

/// What comes out of the log.
#[derive(Clone, Debug, PartialEq)]
pub enum LogEvent {
    /// A command that no crash takes back. Indexes follow each other without gap. `proposal` is set on commands that this run proposed.
    /// Some entries of the log carry no command.
    Committed {
        index: u64,
        proposal: Option<ProposalId>,
        command: Option<Command>,
    },
    /// A snapshot of another member takes the place of all commands up to `index`.
    Restored { index: u64, state: Box<record::State> },
    /// This member leads from here on; every command committed before has come out already.
    Leads,
    /// This member does not lead: proposals not yet committed may be lost. `leader` does, as far as is known.
    Follows { leader: Option<MemberId> },
    /// No other member leads before `until`, if this one does; a new lease replaces the old one, even by a shorter one.
    Lease { until: MonoTime },
    /// A change of membership was not proposed, and why.
    Refused { proposal: ProposalId, reason: String },
    /// The group wants the machine's state, as it now is.
    SnapshotWanted,
    /// This member was taken out of the group.
    Removed,
}

/// Who a member is in its group; fixed once it takes part.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    pub member: MemberId,
    /// Zero while it does not take part yet.
    pub group: u64,
    /// Those with which the group began.
    pub founders: Vec<record::Member>,
}

/// What a log begins with: all that the commands up to `position` made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub position: LogPosition,
    pub conf_state: ConfState,
    pub state: record::State,
}

/// What raft must not forget besides entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    pub term: u64,
    pub vote: u64,
    pub commit: u64,
}

/// A write to a member's log. What it promises may be told to others only once it is durable.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use] // a write that is dropped is a promise that is broken
pub struct Write {
    /// Takes the place of all entries up to its position.
    pub snapshot: Option<Snapshot>,
    /// The snapshot came from another member: entries behind it go too.
    pub reset: bool,
    /// Appended, replacing what stands at their place and behind.
    pub entries: Vec<Entry>,
    pub hard_state: Option<HardState>,
}

/// What lies on a member's disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    pub identity: Identity,
    pub snapshot: Snapshot,
    pub hard_state: HardState,
    /// Follow the snapshot without gap.
    pub entries: VecDeque<Entry>,
}

impl Stored {
    /// What a founder of a group begins with: `founders` in ascending order of their ids, the same on each of them.
    pub fn founding(member: MemberId, founders: Vec<record::Member>) -> Stored {
        let state = record::State {
            members: founders.clone(),
            id_next: 1,
            ..record::State::default()
        };
        let voters = founders.iter().map(|founder| founder.id).collect();
        Stored::beginning(member, founders, voters, FOUNDING, state)
    }

    /// What a member begins with on the state `state` that `voters` agree on.
    fn beginning(
        member: MemberId,
        founders: Vec<record::Member>,
        voters: Vec<u64>,
        position: LogPosition,
        state: record::State,
    ) -> Stored {
        let group = group_id(&founders);
        let snapshot = Snapshot {
            position,
            conf_state: ConfState {
                voters,
                ..ConfState::default()
            },
            state,
        };
        Stored {
            identity: Identity { member, group, founders },
            snapshot,
            hard_state: HardState {
                term: position.term,
                vote: 0,
                commit: position.index,
            },
            entries: VecDeque::new(),
        }
    }

    /// What a member begins with that joins a group: nothing, until the leader sends what there is.
    pub fn joining(member: MemberId, group: u64, founders: Vec<record::Member>) -> Stored {
        Stored {
            identity: Identity { member, group, founders },
            ..Stored::default()
        }
    }

    /// Does what `write` says.
    pub fn apply(&mut self, write: &Write) {
        if let Some(snapshot) = &write.snapshot {
            let gone = self
                .entries
                .iter()
                .take_while(|entry| entry.index <= snapshot.position.index)
                .count();
            self.entries.drain(..gone);
            if write.reset {
                self.entries.clear();
            }
            self.snapshot = snapshot.clone();
        }
        let position = self.snapshot.position;
        if let Some(first) = write.entries.first() {
            let kept = self.entries.iter().take_while(|entry| entry.index < first.index).count();
            self.entries.truncate(kept);
            self.entries.extend(write.entries.iter().cloned());
        }
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        self.hard_state.commit = self.hard_state.commit.max(position.index);
    }
}

/// Where the log of a new group begins. Not at zero: a member that joins later then cannot be told from its beginning, but needs the
/// snapshot, which names the members.
const FOUNDING: LogPosition = LogPosition { index: 1, term: 1 };

/// Tells a group from all others: from the random ids of those who founded it (FNV-1a).
fn group_id(founders: &[record::Member]) -> u64 {
    let bytes = founders.iter().flat_map(|founder| founder.id.to_be_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash.max(1)
}

/// Why a log cannot be opened or go on. After an error from an open log nothing of it may be used again: restart and recover.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{act} {path}")]
    Io {
        act: &'static str,
        path: String,
        source: std::io::Error,
    },
    /// Another process has it open.
    #[error("{path} is in use by another process")]
    Locked { path: String },
    /// Bytes that were durable once are no longer what they were.
    #[error("{path} is damaged at byte {at}: {what}")]
    Damaged { path: String, at: u64, what: &'static str },
    #[error("{path} has format {found}, this version reads up to {wanted}")]
    Format { path: String, found: u32, wanted: u32 },
    /// A newer version wrote it, most likely.
    #[error("this version does not know the command at {index} of the log: start a newer one")]
    UnknownCommand { index: u64 },
}
