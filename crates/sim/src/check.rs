//! Judges of histories. They know only what clients recorded, nothing of the system or the simulator.

pub mod append;
pub mod register;
pub mod timestamp;

use std::collections::BTreeMap;

use crate::history::Operation;

/// What is wrong with a history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("key {key} is not linearizable: {operations} operations, no order of them explains what was read")]
    NotLinearizable { key: String, operations: usize },
    /// The search did not end in time. Counts as a failure: nothing was shown.
    #[error("key {key}: no verdict on {operations} operations in time")]
    NoVerdict { key: String, operations: usize },
    #[error("key {key}: read {value}, which nobody ever wrote")]
    NeverWritten { key: String, value: String },
    #[error("list {key}: acknowledged element {element} is missing from a later read")]
    Lost { key: String, element: String },
    #[error("list {key}: element {element} stands there twice")]
    Twice { key: String, element: String },
    #[error("list {key}: {first} was appended before {second}, but stands behind it")]
    OutOfOrder { key: String, first: String, second: String },
    #[error("list {key}: two reads disagree about its order at place {place}")]
    Diverged { key: String, place: usize },
    #[error("list {key}: a read of {later} elements began after one of {earlier} had ended")]
    WentBack { key: String, earlier: usize, later: usize },
    #[error("timestamp {later} was asked for after {earlier} had been given")]
    TimestampOrder { earlier: u64, later: u64 },
}

/// Groups operations by key; order within a key is kept.
fn by_key(operations: &[Operation]) -> BTreeMap<&str, Vec<&Operation>> {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        keys.entry(operation.op.key()).or_default().push(operation);
    }
    keys
}
