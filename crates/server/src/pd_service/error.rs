//! Errors of the placement driver as clients see them. Exhaustive: a new error does not compile until someone decides here.

use proto::pdpb::{self, ErrorType};
use tonic::Status;

/// The error of a header, or the status in place of an answer when another member or a later moment may do better.
pub fn to_wire(error: pd::Error) -> Result<pdpb::Error, Status> {
    use pd::Error as E;
    let kind = match error {
        // Clients look for "not leader" in the text, and then ask who leads.
        E::NotLeader | E::Stopped => return Err(Status::unavailable(error.to_string())),
        E::Busy => return Err(Status::resource_exhausted(error.to_string())),
        E::NotBootstrapped => ErrorType::NotBootstrapped,
        E::AlreadyBootstrapped => ErrorType::AlreadyBootstrapped,
        E::Invalid { .. }
        | E::MembersStay { .. }
        | E::MemberNotFound { .. }
        | E::SafePointBehind { .. }
        | E::SafePointAhead { .. } => ErrorType::InvalidValue,
        E::StoreTombstone { .. } => ErrorType::StoreTombstone,
        E::AddressTaken { .. } => ErrorType::DuplicatedEntry,
        E::Gap => ErrorType::RegionsNotContainAllKeyRange,
        // Known to clients by their text alone.
        E::StoreNotFound { .. } | E::StaleRegion { .. } => ErrorType::Unknown,
    };
    Ok(pdpb::Error {
        r#type: kind as i32,
        message: error.to_string(),
    })
}

/// The status of an error where an answer has no room for it.
pub fn to_status(error: pd::Error) -> Status {
    match to_wire(error) {
        Ok(error) => Status::invalid_argument(error.message),
        Err(status) => status,
    }
}
