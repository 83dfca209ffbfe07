//! The one place where errors become wire errors: what clients see, and so whether they retry, look the region up again or
//! give up. Every `match` is exhaustive. Text from inside stays in the log.
//!
//! What clients make of it (the Rust, Go and Java clients agree unless noted):
//! - `NotLeader` with a leader: try there at once; without: look up and back off. `StaleCommand`, `RegionNotFound`,
//!   `EpochNotMatch`, `StoreNotMatch`, `MismatchPeerId`, `ReadIndexNotReady`, `RegionNotInitialized`: look up, back off, retry.
//! - `ServerIsBusy` is fatal to the Rust client. So a full queue, which [`crate::raw`] has waited for already, is answered
//!   as `StaleCommand`; only a passed deadline, where nobody should retry, is `ServerIsBusy`, with the text that Go looks for.
//! - `UndeterminedResult` ends the request in Go; older clients do not know it and retry, which plain writes bear but a
//!   compare-and-swap does not: there the outcome is told as text, which ends the request everywhere.

use engine::kv;
use proto::errorpb;

use crate::call::Act;
use crate::raw;

/// What a client is told.
#[derive(Debug, PartialEq)]
pub enum WireError {
    /// For the field `region_error`: clients act on it by themselves.
    Region(Box<errorpb::Error>),
    /// For the field `error`, or `abort` of a key's error: given to the user as it is.
    Text(String),
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
