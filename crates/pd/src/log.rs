//! The door to replication: commands go in as proposals and come out committed, in one order for all members.
//!
//! Two implementations live: [`mod@file`] (one member, on disk) and [`memory`] (one member, crashes on demand, for the simulator).
//! The door is shaped for a raft group of several members: proposals may be lost when leadership is, and commands of other members
//! come out as well.

use proto::ferrite_pd as record;
use proto::ferrite_pd::command::Kind as Command;

pub mod file;
pub mod memory;

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
    Committed {
        index: u64,
        proposal: Option<ProposalId>,
        command: Command,
    },
    /// This member leads from here on; every command committed before has come out already.
    Leads,
    /// This member no longer leads: proposals not yet committed may be lost.
    Follows,
}

/// Where a machine starts: the state of the last snapshot, before the commands that the first polls return.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovered {
    /// Index of the last command in `state`; zero without a snapshot.
    pub index: u64,
    /// None without a snapshot.
    pub state: Option<record::State>,
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
    #[error("{path} has format {found}, this version reads {wanted}")]
    Format { path: String, found: u32, wanted: u32 },
}

/// The replicated log, as its one user sees it. Calls come from one thread and may block for a write to disk.
pub trait ReplicatedLog: Send + 'static {
    /// Takes proposals over, in order.
    fn propose(&mut self, proposals: Vec<Proposal>) -> Result<(), Error>;

    /// Brings forward what was proposed and returns what came out since the last call.
    fn poll(&mut self) -> Result<Vec<LogEvent>, Error>;

    /// Keeps `state`, which holds every command up to `index`, and forgets those.
    fn snapshot(&mut self, index: u64, state: &record::State) -> Result<(), Error>;
}
