//! [`Error`]: why a transaction's request was not done.

use base::Ts;
use bytes::Bytes;
use engine::kv;

use crate::command::Assertion;
use crate::key::Key;
use crate::lock::Locked;

pub type Result<T> = std::result::Result<T, Error>;

/// Which check met the newer record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictReason {
    /// Prewrite of an optimistic transaction.
    Optimistic,
    /// Pessimistic lock: take a newer `for_update_ts` and try again.
    PessimisticRetry,
    /// The transaction itself was rolled back.
    SelfRolledBack,
    /// A read under read-committed with check met a newer version.
    RcCheckTs,
    /// A constraint that a pessimistic transaction put off until prewrite.
    LazyUniquenessCheck,
    /// Prewrite of a pessimistic transaction, on a key that it never locked.
    NotLockedKeyConflict,
}

/// One edge of a deadlock: `waiter` waits for `holder` over `key` (a user key).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitFor {
    pub waiter: Ts,
    pub holder: Ts,
    pub key: Bytes,
    pub key_hash: u64,
    /// The client's own tag, given back.
    pub resource_group_tag: Bytes,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Others' locks are in the way; clients resolve them and come again.
    #[error("key is locked by transaction {}", .0.lock.start_ts)]
    Locked(Box<Locked>),
    /// A newer record than the transaction may bear.
    #[error("write conflict of transaction {start_ts} with {conflict_start_ts}, committed at {conflict_commit_ts}")]
    WriteConflict {
        start_ts: Ts,
        conflict_start_ts: Ts,
        conflict_commit_ts: Ts,
        key: Key,
        /// User key of the transaction's primary.
        primary: Bytes,
        reason: ConflictReason,
    },
    #[error("key exists already")]
    AlreadyExists { key: Key },
    #[error("deadlock: transaction {start_ts} waits for {holder}")]
    Deadlock {
        start_ts: Ts,
        holder: Ts,
        key: Key,
        /// Hash of the key over which the cycle was found.
        deadlock_key_hash: u64,
        /// User key that the first of the chain waits for.
        deadlock_key: Bytes,
        chain: Vec<WaitFor>,
    },
    #[error("commit at {commit_ts} of transaction {start_ts} is below its min_commit_ts {min_commit_ts}")]
    CommitTsExpired {
        start_ts: Ts,
        commit_ts: Ts,
        min_commit_ts: Ts,
        key: Key,
    },
    /// Neither a lock nor a record tells of the transaction.
    #[error("transaction {start_ts} is not found")]
    TxnNotFound { start_ts: Ts, key: Key },
    /// Commit, without a lock of the transaction.
    #[error("lock of transaction {start_ts} is not found")]
    TxnLockNotFound { start_ts: Ts, commit_ts: Ts, key: Key },
    /// Prewrite of a pessimistic transaction whose lock is gone.
    #[error("pessimistic lock of transaction {start_ts} is not found")]
    PessimisticLockNotFound { start_ts: Ts, key: Key },
    /// A pessimistic lock for a transaction that was rolled back on the key.
    #[error("pessimistic lock of transaction {start_ts} was rolled back")]
    PessimisticLockRolledBack { start_ts: Ts, key: Key },
    /// Prewrite, on a key that holds a lock of the same transaction of another kind than it can be.
    #[error("lock of transaction {start_ts} is not of the expected kind")]
    LockKindMismatch { start_ts: Ts, key: Key },
    /// Rollback of what is committed.
    #[error("transaction {start_ts} is committed at {commit_ts}")]
    Committed { start_ts: Ts, commit_ts: Ts, key: Key },
    #[error("assertion failed on a key of transaction {start_ts}")]
    AssertionFailed {
        start_ts: Ts,
        key: Key,
        assertion: Assertion,
        existing_start_ts: Ts,
        existing_commit_ts: Ts,
    },
    /// The key asked about is not the primary of the transaction's lock on it.
    #[error("key is not the primary of transaction {}", .0.lock.start_ts)]
    PrimaryMismatch(Box<Locked>),
    /// A timestamp that no TSO gave: to note it would push every later commit of this store beyond all readers.
    #[error("timestamp {ts} is far above those of the placement driver, which are below {limit}")]
    TsTooLarge { ts: Ts, limit: Ts },
    /// The request contradicts itself.
    #[error("bad request: {reason}")]
    Invalid { reason: &'static str },
    /// A stored key, lock or record is not what this version writes.
    #[error("stored {what} is damaged")]
    Damaged { what: &'static str },
    /// The region did not serve. `proposed`: a write was under way, its outcome may be unknown.
    #[error("region did not serve")]
    Region { proposed: bool, source: kv::Error },
    #[error("storage engine failed")]
    Engine(#[from] engine::Error),
}
