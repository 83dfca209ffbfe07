//! [`Write`]: a commit record, or the record of a rollback. Stored in the family write under the key at `commit_ts` (a rollback's at its
//! `start_ts`).

use base::Ts;
use bytes::Bytes;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    Put,
    Delete,
    /// Committed, without data.
    Lock,
    /// The transaction `start_ts` must never commit here.
    Rollback,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub kind: WriteKind,
    pub start_ts: Ts,
    /// The value of a put, if it is short; a longer one is in the family default, at `start_ts`.
    pub short_value: Option<Bytes>,
    /// The transaction whose `start_ts` is this record's `commit_ts` was rolled back: both records would have had one key.
    pub overlapped_rollback: bool,
    /// Of a rollback: must stay until garbage collection, as the transaction's own requests may still come (its primary's, and those of
    /// pessimistic transactions and async commits). Others may be dropped once a newer record proves the conflict.
    pub protected: bool,
}
