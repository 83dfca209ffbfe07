//! What processes of the simulation say to each other.

use base::{PeerId, RegionId, Ts};
use bytes::Bytes;
use engine::kv::{Context, Error};
use proto::metapb::{Peer, Region};
use raftstore::RaftMessage;
use raftstore::peer::Report;

/// A message of any process to any other.
#[derive(Clone, Debug)]
pub enum Message {
    /// Between stores.
    Raft(RaftMessage),
    /// A raft snapshot with its file; the stream ends whole or not at all.
    Snapshot {
        message: RaftMessage,
        file: Bytes,
    },
    /// The receiver has the snapshot, or does not want it.
    SnapshotDone {
        region: RegionId,
        to_peer: PeerId,
        ok: bool,
    },
    /// A client asks a store.
    Request(Request),
    Response(Response),
    /// A leader tells the placement driver of its region.
    Report(Box<Report>),
    /// A client asks the placement driver which region holds a key.
    Locate {
        key: Bytes,
    },
    Located {
        region: Region,
        leader: Peer,
    },
    /// A client asks the placement driver for a timestamp.
    AskTimestamp {
        id: u64,
    },
    Timestamp {
        id: u64,
        ts: Ts,
    },
}

impl Message {
    /// Whether the network may deliver it twice. Requests travel over streams that cannot.
    pub fn is_repeatable(&self) -> bool {
        matches!(self, Message::Raft(_))
    }

    /// Name for the trace.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Raft(_) => "raft",
            Message::Snapshot { .. } => "snapshot",
            Message::SnapshotDone { .. } => "snapshot-done",
            Message::Request(_) => "request",
            Message::Response(_) => "response",
            Message::Report(_) => "report",
            Message::Locate { .. } => "locate",
            Message::Located { .. } => "located",
            Message::AskTimestamp { .. } => "ask-timestamp",
            Message::Timestamp { .. } => "timestamp",
        }
    }
}

/// One attempt of a client's operation.
#[derive(Clone, Debug)]
pub struct Request {
    /// Unique per client and attempt.
    pub id: u64,
    pub ctx: Context,
    pub act: Act,
}

#[derive(Clone, Debug)]
pub enum Act {
    Get {
        key: Bytes,
    },
    Put {
        key: Bytes,
        value: Bytes,
    },
    Delete {
        key: Bytes,
    },
    /// Adds an element to the list under `key`: the store reads, changes and writes it under a latch.
    Append {
        key: Bytes,
        element: Bytes,
    },
}

/// Answers the request of this id.
#[derive(Clone, Debug)]
pub struct Response {
    pub id: u64,
    /// What a read found.
    pub result: Result<Option<Bytes>, Error>,
}
