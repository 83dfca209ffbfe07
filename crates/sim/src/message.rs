//! What processes of the simulation say to each other.

use std::sync::Arc;

use base::{PeerId, RegionId, Ts};
use bytes::Bytes;
use engine::kv::{Context, Error};
use proto::metapb::{Peer, Region};
use raftstore::RaftMessage;
use raftstore::peer::Report;
use txn::mvcc::ReadOptions;
use txn::safe::SafeTime;
use txn::scheduler::{Deadlock, Detect};
use txn::{Command, Key, Output};

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
    /// A client asks a store for a part of a transaction.
    TxnRequest(TxnRequest),
    TxnResponse(TxnResponse),
    /// A store asks the one that leads a region, for a read of its own.
    AskLeader(AskLeader),
    LeaderSays {
        id: u64,
        answer: Option<LeaderAnswer>,
    },
    /// A store tells the deadlock detector who waits for whom.
    Detect(Detect),
    /// The detector answers the store of the waiter.
    Deadlock(Deadlock),
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
            Message::TxnRequest(_) => "txn-request",
            Message::TxnResponse(_) => "txn-response",
            Message::AskLeader(_) => "ask-leader",
            Message::LeaderSays { .. } => "leader-says",
            Message::Detect(_) => "detect",
            Message::Deadlock(_) => "deadlock",
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

/// One attempt of a part of a transaction.
#[derive(Clone, Debug)]
pub struct TxnRequest {
    /// Unique per client and attempt.
    pub id: u64,
    pub ctx: Context,
    pub act: TxnAct,
    pub way: Way,
}

/// Who may serve a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Leader,
    /// Any copy, after it asked the leader.
    Replica,
    /// Any copy that knows the read's time to be over.
    Stale,
}

#[derive(Clone, Debug)]
pub struct AskLeader {
    /// Unique per store and life.
    pub id: u64,
    pub ctx: Context,
    pub question: Question,
}

#[derive(Clone, Debug)]
pub enum Question {
    /// What must be applied for this read.
    ReadIndex(TxnAct),
    SafeTime,
}

#[derive(Clone, Copy, Debug)]
pub enum LeaderAnswer {
    Index(u64),
    SafeTime(SafeTime),
}

#[derive(Clone, Debug)]
pub enum TxnAct {
    Command(Command),
    Get {
        key: Key,
        options: ReadOptions,
    },
    /// All pairs of `[start, end)` (encoded), cut to the region.
    Scan {
        start: Bytes,
        end: Bytes,
        options: ReadOptions,
    },
}

/// Answers the request of this id.
#[derive(Clone, Debug)]
pub struct TxnResponse {
    pub id: u64,
    pub result: TxnResult,
}

pub type TxnResult = Result<TxnReply, Arc<txn::Error>>;

#[derive(Clone, Debug)]
pub enum TxnReply {
    Output(Output),
    Value(Option<Bytes>),
    /// Up to this encoded key, where the range or the region ends.
    Pairs(Vec<(Key, Bytes)>, Bytes),
}
