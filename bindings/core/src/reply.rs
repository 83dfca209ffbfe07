//! What calls answer.

use bytes::Bytes;
use client::{Checksum, Pair, Swap, Ttl};

use crate::{Failure, Raw, Txn, Txns};

/// How a call ended.
pub type Outcome = Result<Reply, Failure>;

/// Answer of a call; which one is told at each method.
pub enum Reply {
    /// Done, with nothing to tell.
    Done,
    /// A value, if the key is there.
    Value(Option<Bytes>),
    /// Pairs by key.
    Pairs(Vec<Pair>),
    /// The next pairs of a scan; none are left if it is empty.
    Page(Vec<Pair>),
    Swap(Swap),
    /// How long a key will live, if it is there.
    Ttl(Option<Ttl>),
    Checksum(Checksum),
    /// A timestamp; `None` for the commit of a transaction that wrote nothing.
    Ts(Option<u64>),
    /// A number of things.
    Count(u64),
    Raw(Raw),
    Txns(Txns),
    Txn(Txn),
}

/// Seconds that a key will live; `None` for ever.
pub fn ttl_seconds(ttl: Ttl) -> Option<u64> {
    match ttl {
        Ttl::Forever => None,
        Ttl::Left(left) => Some(left.as_secs()),
    }
}
