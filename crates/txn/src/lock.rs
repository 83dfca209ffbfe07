//! [`Lock`]: what a running transaction leaves on a key. Stored in the family lock under the key itself.

use base::Ts;
use bytes::Bytes;

use crate::key::Key;

/// What the transaction means to do with the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    Put,
    Delete,
    /// Nothing but keep others from writing; committed, it leaves a record without data.
    Lock,
    /// Held before the transaction knows what it will do; hides nothing from readers.
    Pessimistic,
}

/// A lock. Owned by the transaction `start_ts`, whose fate its primary key tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    pub kind: LockKind,
    /// User key of the transaction's primary.
    pub primary: Bytes,
    pub start_ts: Ts,
    /// Milliseconds from the physical part of `start_ts` after which others may roll the transaction back.
    pub ttl_ms: u64,
    /// The value of a put, if it is short.
    pub short_value: Option<Bytes>,
    /// Zero in optimistic transactions.
    pub for_update_ts: Ts,
    /// Keys of the transaction, as far as the client told; decides how others resolve it.
    pub txn_size: u64,
    /// Below this the transaction does not commit. Zero: not set.
    pub min_commit_ts: Ts,
    pub use_async_commit: bool,
    /// User keys of the other locks; on the primary of an async commit only.
    pub secondaries: Vec<Bytes>,
    /// Transactions rolled back on this key whose records the commit of this lock could overwrite: the commit must mark its record.
    pub rollback_ts: Vec<Ts>,
    /// A pessimistic lock that was granted although `for_update_ts` had been overtaken.
    pub locked_with_conflict: bool,
}

impl Lock {
    /// A lock with nothing but what every lock has.
    pub fn new(kind: LockKind, primary: Bytes, start_ts: Ts, ttl_ms: u64) -> Lock {
        Lock {
            kind,
            primary,
            start_ts,
            ttl_ms,
            short_value: None,
            for_update_ts: Ts(0),
            txn_size: 0,
            min_commit_ts: Ts(0),
            use_async_commit: false,
            secondaries: Vec::new(),
            rollback_ts: Vec::new(),
            locked_with_conflict: false,
        }
    }

    pub fn is_pessimistic(&self) -> bool {
        self.kind == LockKind::Pessimistic
    }
}

/// A key and the lock found on it: what clients are told to resolve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    pub key: Key,
    pub lock: Lock,
}
