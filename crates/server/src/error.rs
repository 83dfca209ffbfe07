//! The one place where errors become wire errors: what clients see, and so whether they retry, look the region up again or
//! give up. Every `match` is exhaustive. Text from inside stays in the log.
//!
//! What clients make of it (the Rust, Go and Java clients agree unless noted):
//! - `NotLeader` with a leader: try there at once; without: look up and back off. `StaleCommand`, `RegionNotFound`,
//!   `EpochNotMatch`, `StoreNotMatch`, `MismatchPeerId`, `ReadIndexNotReady`, `RegionNotInitialized`: look up, back off, retry.
//! - `ServerIsBusy` is fatal to the Rust client. So a full queue, which [`crate::raw`] has waited for already, is answered
//!   as `StaleCommand`; only a passed deadline, where nobody should retry, is `ServerIsBusy`, with the text that Go looks for.
//! - `UndeterminedResult` ends the request in Go; older clients do not know it and retry, which plain writes bear but a
//!   compare-and-swap does not: there the outcome is told as text, which ends the request everywhere. A transaction's commands may
//!   all be sent again.
//! - Of a key's error one field is set, but `TxnLockNotFound`, which older clients look for in the text of `retryable`.

use engine::kv;
use proto::kvrpcpb::{self as wire, KeyError};
use proto::{deadlock, errorpb};
use txn::command::Assertion;
use txn::error::ConflictReason;

use crate::call::Act;
use crate::raw;
use crate::txn as transaction;
use crate::txn::wire as convert;

/// What a client is told.
#[derive(Clone, Debug, PartialEq)]
pub enum WireError {
    /// For the field `region_error`: clients act on it by themselves.
    Region(Box<errorpb::Error>),
    /// For the field `error`, or `abort` of a key's error: given to the user as it is.
    Text(String),
    /// For the field `error` or `errors` of a transaction's answer: clients resolve locks, begin anew, or give up.
    Key(Box<KeyError>),
}

impl From<raw::Error> for WireError {
    fn from(error: raw::Error) -> WireError {
        of_raw(error)
    }
}

impl From<transaction::Error> for WireError {
    fn from(error: transaction::Error) -> WireError {
        of_transaction(error)
    }
}

/// Text of a deadline that passed; the Go client matches it.
const DEADLINE: &str = "deadline is exceeded";
const UNDETERMINED: &str = "result is undetermined: the write may or may not have taken place";

/// The wire error of a raw request. Logs what an operator must know of.
pub fn of_raw(error: raw::Error) -> WireError {
    use raw::Error as E;
    match error {
        E::Region { act, source } => of_region(source, act),
        E::Engine(ref source) => {
            tracing::error!(error = %base::log::chain(source), "read storage engine");
            WireError::Text(error.to_string())
        }
        E::Damaged { what } => {
            tracing::error!(what, "stored data is damaged or of another API version");
            WireError::Text(error.to_string())
        }
        E::ApiVersion { .. }
        | E::KeyMode
        | E::Cf
        | E::KeyTooLong { .. }
        | E::BatchTooLong { .. }
        | E::AnswerTooLong { .. }
        | E::RangeTurned
        | E::TtlNotEnabled
        | E::TtlCount { .. }
        | E::ChecksumAlgorithm(_) => WireError::Text(error.to_string()),
    }
}

/// The wire error of a transaction's request.
pub fn of_transaction(error: transaction::Error) -> WireError {
    use transaction::Error as E;
    match error {
        E::Txn(txn::Error::Region { proposed, source }) => of_region_of_transaction(source, proposed),
        E::Txn(error) => WireError::Key(Box::new(key_error(error))),
        E::ApiVersion { .. }
        | E::NoTransactions
        | E::KeyMode
        | E::KeyTooLong { .. }
        | E::BatchTooLong { .. }
        | E::AnswerTooLong { .. }
        | E::RangeTurned => WireError::Text(error.to_string()),
    }
}

/// As a write that may be sent again; before anything was proposed, a passed deadline is only a reason to look for another leader.
fn of_region_of_transaction(source: kv::Error, proposed: bool) -> WireError {
    match (source, proposed) {
        (kv::Error::Deadline, false) => of_region(kv::Error::StaleCommand, Act::Read),
        (source, false) => of_region(source, Act::Read),
        (source, true) => of_region(source, Act::Write),
    }
}

/// What a client is told of one key. Logs what an operator must know of.
pub fn key_error(error: txn::Error) -> KeyError {
    let text = error.to_string();
    try_key_error(error, text).unwrap_or_else(|damaged| {
        tracing::error!(error = %base::log::chain(&damaged), "stored data is damaged");
        abort(damaged.to_string())
    })
}

fn abort(text: String) -> KeyError {
    KeyError {
        abort: text,
        ..Default::default()
    }
}

/// Errors when a key of the error is not an encoded one.
fn try_key_error(error: txn::Error, text: String) -> txn::Result<KeyError> {
    use txn::Error as E;
    let mut told = KeyError::default();
    match error {
        E::Locked(locked) => told.locked = Some(Box::new(convert::lock_info(&locked)?)),
        E::PrimaryMismatch(locked) => {
            let lock_info = Some(Box::new(convert::lock_info(&locked)?));
            told.primary_mismatch = Some(wire::PrimaryMismatch { lock_info });
        }
        E::WriteConflict {
            start_ts,
            conflict_start_ts,
            conflict_commit_ts,
            key,
            primary,
            reason,
        } => {
            told.conflict = Some(wire::WriteConflict {
                start_ts: start_ts.0,
                conflict_ts: conflict_start_ts.0,
                key: key.user()?,
                primary,
                conflict_commit_ts: conflict_commit_ts.0,
                reason: conflict_reason(reason).into(),
            });
        }
        E::AlreadyExists { key, .. } => told.already_exist = Some(wire::AlreadyExist { key: key.user()? }),
        E::Deadlock { .. } => told.deadlock = Some(deadlock_of(error)?),
        E::CommitTsExpired {
            start_ts,
            commit_ts,
            min_commit_ts,
            key,
        } => {
            told.commit_ts_expired = Some(wire::CommitTsExpired {
                start_ts: start_ts.0,
                attempted_commit_ts: commit_ts.0,
                key: key.user()?,
                min_commit_ts: min_commit_ts.0,
            });
        }
        E::TxnNotFound { start_ts, key } => {
            told.txn_not_found = Some(wire::TxnNotFound {
                start_ts: start_ts.0,
                primary_key: key.user()?,
            });
        }
        E::TxnLockNotFound { key, .. } => {
            told.txn_lock_not_found = Some(wire::TxnLockNotFound { key: key.user()? });
            told.retryable = format!("TxnLockNotFound: {text}");
        }
        E::AssertionFailed {
            start_ts,
            key,
            assertion,
            existing_start_ts,
            existing_commit_ts,
        } => {
            told.assertion_failed = Some(wire::AssertionFailed {
                start_ts: start_ts.0,
                key: key.user()?,
                assertion: assertion_of(assertion).into(),
                existing_start_ts: existing_start_ts.0,
                existing_commit_ts: existing_commit_ts.0,
            });
        }
        E::PessimisticLockNotFound { .. } => told.abort = format!("PessimisticLockNotFound: {text}"),
        E::PessimisticLockRolledBack { .. } => told.abort = format!("PessimisticLockRolledBack: {text}"),
        E::LockKindMismatch { .. } => told.abort = format!("LockTypeNotMatch: {text}"),
        E::Committed { .. } => told.abort = format!("Committed: {text}"),
        E::Invalid { .. } | E::TsTooLarge { .. } => told.abort = text,
        E::Engine(_) | E::Damaged { .. } => return Err(error),
        E::Region { .. } => unreachable!("a region's error is not a key's"),
    }
    Ok(told)
}

fn deadlock_of(error: txn::Error) -> txn::Result<wire::Deadlock> {
    let txn::Error::Deadlock {
        holder,
        key,
        deadlock_key_hash,
        deadlock_key,
        chain,
        ..
    } = error
    else {
        return Err(error);
    };
    let wait_chain: Vec<deadlock::WaitForEntry> = chain.into_iter().map(convert::wait_entry).collect();
    Ok(wire::Deadlock {
        lock_ts: holder.0,
        lock_key: key.user()?,
        deadlock_key_hash,
        wait_chain,
        deadlock_key,
    })
}

fn conflict_reason(reason: ConflictReason) -> wire::write_conflict::Reason {
    use wire::write_conflict::Reason;
    match reason {
        ConflictReason::Optimistic => Reason::Optimistic,
        ConflictReason::PessimisticRetry => Reason::PessimisticRetry,
        ConflictReason::SelfRolledBack => Reason::SelfRolledBack,
        ConflictReason::RcCheckTs => Reason::RcCheckTs,
        ConflictReason::LazyUniquenessCheck => Reason::LazyUniquenessCheck,
        ConflictReason::NotLockedKeyConflict => Reason::NotLockedKeyConflict,
    }
}

fn assertion_of(assertion: Assertion) -> wire::Assertion {
    match assertion {
        Assertion::None => wire::Assertion::None,
        Assertion::Exists => wire::Assertion::Exist,
        Assertion::NotExists => wire::Assertion::NotExist,
    }
}

/// The wire error of a region that did not serve while `act` was under way.
pub fn of_region(error: kv::Error, act: Act) -> WireError {
    use kv::Error as E;
    let mut wire = errorpb::Error {
        message: error.to_string(),
        ..Default::default()
    };
    match error {
        E::NotLeader { region, leader } => {
            wire.not_leader = Some(errorpb::NotLeader {
                region_id: region.0,
                leader,
            })
        }
        E::RegionNotFound { region } => wire.region_not_found = Some(errorpb::RegionNotFound { region_id: region.0 }),
        E::EpochNotMatch { current } => {
            wire.epoch_not_match = Some(errorpb::EpochNotMatch {
                current_regions: current,
            })
        }
        E::KeyNotInRegion { key, region } => {
            let (start_key, end_key) = (region.start_key, region.end_key);
            wire.key_not_in_region = Some(errorpb::KeyNotInRegion {
                key,
                region_id: region.id,
                start_key,
                end_key,
            });
        }
        E::StoreNotMatch { wanted, actual } => {
            wire.store_not_match = Some(errorpb::StoreNotMatch {
                request_store_id: wanted,
                actual_store_id: actual,
            });
        }
        E::MismatchPeer { wanted, actual } => {
            wire.mismatch_peer_id = Some(errorpb::MismatchPeerId {
                request_peer_id: wanted,
                store_peer_id: actual,
            });
        }
        E::EntryTooLarge { region, size, .. } => {
            wire.raft_entry_too_large = Some(errorpb::RaftEntryTooLarge {
                region_id: region.0,
                entry_size: size,
            });
        }
        E::NotInitialized { region } => {
            wire.region_not_initialized = Some(errorpb::RegionNotInitialized { region_id: region.0 });
        }
        E::ReadIndexNotReady { region } => {
            let reason = String::new();
            wire.read_index_not_ready = Some(errorpb::ReadIndexNotReady {
                reason,
                region_id: region.0,
            });
        }
        E::DataIsNotReady { region, peer, safe_ts } => {
            wire.data_is_not_ready = Some(errorpb::DataIsNotReady {
                region_id: region.0,
                peer_id: peer.0,
                safe_ts: safe_ts.0,
            });
        }
        E::Merging { region } => {
            wire.proposal_in_merging_mode = Some(errorpb::ProposalInMergingMode { region_id: region.0 });
        }
        E::DiskFull { store } => {
            wire.disk_full = Some(errorpb::DiskFull {
                store_id: vec![store],
                reason: String::new(),
            });
        }
        E::Busy { .. } => wire.stale_command = Some(errorpb::StaleCommand {}),
        E::StaleCommand => match act {
            Act::Read | Act::Write => wire.stale_command = Some(errorpb::StaleCommand {}),
            Act::Swap => return WireError::Text(UNDETERMINED.into()),
        },
        E::Deadline => match act {
            Act::Read => {
                let busy = errorpb::ServerIsBusy {
                    reason: DEADLINE.into(),
                    ..Default::default()
                };
                wire.server_is_busy = Some(busy);
            }
            Act::Write => wire.undetermined_result = Some(undetermined()),
            Act::Swap => return WireError::Text(UNDETERMINED.into()),
        },
        // Another store will lead soon.
        E::Shutdown => match act {
            Act::Read => wire.stale_command = Some(errorpb::StaleCommand {}),
            Act::Write => wire.undetermined_result = Some(undetermined()),
            Act::Swap => return WireError::Text(UNDETERMINED.into()),
        },
    }
    WireError::Region(Box::new(wire))
}

fn undetermined() -> errorpb::UndeterminedResult {
    errorpb::UndeterminedResult {
        message: UNDETERMINED.into(),
    }
}
