//! What clients ask of transactions, and what they are answered. Reads are not here: they go past the scheduler.
//!
//! Every command is idempotent: clients send it again when an answer was lost.

use base::Ts;
use bytes::Bytes;

use crate::key::Key;
use crate::lock::Locked;

/// A command on one region.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Prewrite(Prewrite),
    Commit(Commit),
    /// Rolls back one key: if `current_ts` is not zero only when the lock has outlived its TTL by then.
    Cleanup {
        key: Key,
        start_ts: Ts,
        current_ts: Ts,
    },
    /// Rolls back keys of one transaction.
    Rollback {
        keys: Vec<Key>,
        start_ts: Ts,
    },
    PessimisticLock(PessimisticLock),
    /// Releases pessimistic locks of the transaction up to `for_update_ts`.
    PessimisticRollback {
        keys: Vec<Key>,
        start_ts: Ts,
        for_update_ts: Ts,
        /// Set: when the keys are done, look for more of the region's locks from this encoded key on. A command without keys only looks:
        /// it writes nothing, needs no latches, and its `Outcome::next` holds what it found, to be done under the latches of these keys.
        scan: Option<Bytes>,
    },
    /// Prolongs the primary's lock.
    HeartBeat {
        primary: Key,
        start_ts: Ts,
        advise_ttl_ms: u64,
        /// Raises the lock's own, if above zero.
        min_commit_ts: Ts,
    },
    CheckTxnStatus(CheckTxnStatus),
    /// What became of the other keys of an async commit; rolls back those without a lock.
    CheckSecondaryLocks {
        keys: Vec<Key>,
        start_ts: Ts,
    },
    ResolveLock(ResolveLock),
    /// Drops what no read at or above `safe_point` needs. A slice at a time: the answer tells where the next one begins.
    Collect {
        safe_point: Ts,
        /// Keys with garbage; empty in a request.
        keys: Vec<Key>,
        /// Where to look on, encoded; nothing, or empty: at the region's start. As [`Command::PessimisticRollback`]'s.
        scan: Option<Bytes>,
    },
    /// Deletes all versions of a range `[start, end)` (encoded; an empty end is the region's), without transaction. `notify_only`: only
    /// replicated, deletes nothing.
    DeleteRange {
        start: Bytes,
        end: Bytes,
        notify_only: bool,
    },
}

impl Command {
    /// The keys that it reads and writes; none for a range, and for a command that only looks for locks so far.
    pub fn keys(&self) -> Box<dyn Iterator<Item = &Key> + '_> {
        match self {
            Command::Prewrite(prewrite) => Box::new(prewrite.mutations.iter().map(|mutation| &mutation.key)),
            Command::PessimisticLock(lock) => Box::new(lock.keys.iter().map(|key| &key.key)),
            Command::Commit(Commit { keys, .. })
            | Command::Rollback { keys, .. }
            | Command::PessimisticRollback { keys, .. }
            | Command::CheckSecondaryLocks { keys, .. }
            | Command::Collect { keys, .. }
            | Command::ResolveLock(ResolveLock::Lite { keys, .. }) => Box::new(keys.iter()),
            Command::ResolveLock(ResolveLock::Region { found, .. }) => Box::new(found.iter().map(|(key, _)| key)),
            Command::Cleanup { key, .. }
            | Command::HeartBeat { primary: key, .. }
            | Command::CheckTxnStatus(CheckTxnStatus { primary: key, .. }) => Box::new(std::iter::once(key)),
            Command::DeleteRange { .. } => Box::new(std::iter::empty()),
        }
    }

    /// Bytes of its keys and values, about.
    pub fn bytes(&self) -> u64 {
        let keys: usize = self.keys().map(|key| key.encoded().len()).sum();
        let values = match self {
            Command::Prewrite(prewrite) => {
                let secondaries = prewrite.secondaries.iter().flatten().map(Bytes::len);
                let values = prewrite
                    .mutations
                    .iter()
                    .map(|mutation| mutation.op.value().map_or(0, Bytes::len));
                secondaries.chain(values).sum()
            }
            _ => 0,
        };
        (keys + values) as u64
    }

    /// For logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Prewrite(_) => "prewrite",
            Command::Commit(_) => "commit",
            Command::Cleanup { .. } => "cleanup",
            Command::Rollback { .. } => "rollback",
            Command::PessimisticLock(_) => "pessimistic_lock",
            Command::PessimisticRollback { .. } => "pessimistic_rollback",
            Command::HeartBeat { .. } => "heart_beat",
            Command::CheckTxnStatus(_) => "check_txn_status",
            Command::CheckSecondaryLocks { .. } => "check_secondary_locks",
            Command::ResolveLock(_) => "resolve_lock",
            Command::Collect { .. } => "collect",
            Command::DeleteRange { .. } => "delete_range",
        }
    }
}

/// First phase: locks keys and lays their values down (Percolator, section 2.2), or commits at once in one phase.
#[derive(Clone, Debug, PartialEq)]
pub struct Prewrite {
    pub mutations: Vec<Mutation>,
    /// User key.
    pub primary: Bytes,
    pub start_ts: Ts,
    pub ttl_ms: u64,
    pub txn_size: u64,
    /// Above zero in pessimistic transactions.
    pub for_update_ts: Ts,
    /// Floor wished by the client; zero for none.
    pub min_commit_ts: Ts,
    /// Bound of async and one-phase commit; zero for none.
    pub max_commit_ts: Ts,
    /// Set: async commit, with the user keys of all other keys, which count on the primary only.
    pub secondaries: Option<Vec<Bytes>>,
    pub one_phase: bool,
    /// The client knows that nobody else writes these keys.
    pub skip_constraint_check: bool,
    pub assertion_level: AssertionLevel,
    /// The request may have been done before.
    pub is_retry: bool,
}

impl Prewrite {
    pub fn is_pessimistic(&self) -> bool {
        self.for_update_ts.is_some()
    }
}

/// What a transaction does with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Put(Bytes),
    Delete,
    Lock,
    /// A put that fails if the key exists.
    Insert(Bytes),
    /// Fails if the key exists; leaves no lock.
    CheckNotExists,
}

impl Op {
    /// What it puts.
    pub fn value(&self) -> Option<&Bytes> {
        match self {
            Op::Put(value) | Op::Insert(value) => Some(value),
            Op::Delete | Op::Lock | Op::CheckNotExists => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Mutation {
    pub key: Key,
    pub op: Op,
    pub assertion: Assertion,
    pub check: PessimisticCheck,
    /// The pessimistic lock must have exactly this `for_update_ts`.
    pub expected_for_update_ts: Option<Ts>,
}

/// How a pessimistic transaction's prewrite checks a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PessimisticCheck {
    /// Not locked before, and safe without.
    #[default]
    Skip,
    /// Its pessimistic lock must be there.
    Locked,
    /// Not locked before: checked as in an optimistic transaction.
    Constraint,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Assertion {
    #[default]
    None,
    Exists,
    NotExists,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AssertionLevel {
    #[default]
    Off,
    /// Only where the record is read anyway.
    Fast,
    Strict,
}

/// Second phase: replaces locks by commit records.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    pub keys: Vec<Key>,
    pub start_ts: Ts,
    pub commit_ts: Ts,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PessimisticLock {
    pub keys: Vec<LockKey>,
    /// User key.
    pub primary: Bytes,
    pub start_ts: Ts,
    pub ttl_ms: u64,
    pub for_update_ts: Ts,
    /// The transaction holds no lock yet, so it cannot be part of a deadlock.
    pub is_first_lock: bool,
    pub wait: Wait,
    pub return_values: bool,
    pub check_existence: bool,
    /// Leaves keys unlocked that do not exist.
    pub lock_only_if_exists: bool,
    pub min_commit_ts: Ts,
    /// Force-lock: grants the lock although a newer record is there and tells so, rather than fail.
    pub allow_conflict: bool,
    pub resource_group_tag: Bytes,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LockKey {
    pub key: Key,
    /// Must not exist: for an insert to come.
    pub should_not_exist: bool,
}

/// What a pessimistic lock does about others' locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    No,
    /// The store's own time.
    Default,
    Millis(u64),
}

/// Learns, and if it must, decides the fate of a transaction by its primary.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckTxnStatus {
    pub primary: Key,
    pub start_ts: Ts,
    /// A reader that would pass the lock: `min_commit_ts` is pushed above it. Zero for none.
    pub caller_start_ts: Ts,
    /// Decides over the TTL. The greatest timestamp: outlived in any case.
    pub current_ts: Ts,
    /// Without lock and record: roll back, rather than answer `TxnNotFound`.
    pub rollback_if_not_exist: bool,
    /// Treat an async commit as an ordinary transaction.
    pub force_sync_commit: bool,
    /// The lock met is pessimistic: the primary's, if pessimistic and outlived, is released without a rollback record.
    pub resolving_pessimistic_lock: bool,
    pub verify_is_primary: bool,
}

/// Commits or rolls back the locks of transactions whose fate is known.
#[derive(Clone, Debug, PartialEq)]
pub enum ResolveLock {
    /// These keys of one transaction; a `commit_ts` of zero rolls back.
    Lite { start_ts: Ts, commit_ts: Ts, keys: Vec<Key> },
    /// Every lock of the region that belongs to one of these `(start_ts, commit_ts)`, in ascending order of `start_ts`.
    Region {
        txns: Vec<(Ts, Ts)>,
        /// Locks found, by their transactions' `start_ts`; empty in a request.
        found: Vec<(Key, Ts)>,
        /// Set: when those are done, look for more from this encoded key on (empty at first). As [`Command::PessimisticRollback`]'s.
        scan: Option<Bytes>,
    },
}

/// The answer to a [`Command`].
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Cleanup, rollback, resolve, delete range.
    Done,
    /// `commit_ts`: where the transaction stands, which is not what the commit asked for if it was committed before in one phase.
    Committed {
        commit_ts: Ts,
    },
    Prewritten(Prewritten),
    /// In the order of the request's keys.
    PessimisticLocked(Vec<LockResult>),
    /// Milliseconds to live from the physical part of `start_ts`.
    HeartBeat {
        ttl_ms: u64,
    },
    Status(TxnStatus),
    Secondaries(SecondaryStatus),
    /// `next`: where the next slice begins; none: the region is done.
    Collected {
        /// Records, without the values that went with them.
        deleted: u64,
        next: Option<Bytes>,
    },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prewritten {
    /// Others' locks in the way, when there are any nothing was written.
    pub locked: Vec<Locked>,
    /// Of an async commit: never zero. Otherwise zero.
    pub min_commit_ts: Ts,
    /// Not zero exactly when one phase was asked for and done.
    pub one_phase_commit_ts: Ts,
}

/// What a pessimistic lock found on a key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LockResult {
    /// If values were asked for.
    pub value: Option<Bytes>,
    /// If values or existence were asked for.
    pub exists: bool,
    /// Not zero: granted over a record committed at this time, above `for_update_ts`. The value is the one then.
    pub conflict_ts: Ts,
}

/// The fate of a transaction, told by its primary.
#[derive(Clone, Debug, PartialEq)]
pub enum TxnStatus {
    /// Still locked, perhaps with `min_commit_ts` pushed above the caller.
    Locked {
        locked: Locked,
        pushed: bool,
    },
    Committed {
        commit_ts: Ts,
    },
    /// Rolled back before.
    RolledBack,
    /// Rolled back now, as its lock outlived its TTL.
    TtlExpired,
    /// A pessimistic lock that outlived its TTL was released now; the transaction may still commit without it.
    PessimisticReleased,
    /// Nothing was there, and now a rollback record is.
    NotExistRolledBack,
    /// Nothing was there, and nothing was written, as a pessimistic lock is being resolved.
    NotExistIgnored,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SecondaryStatus {
    /// All are locked still.
    Locked(Vec<Locked>),
    Committed {
        commit_ts: Ts,
    },
    RolledBack,
}
