//! Judges of histories. They know only what clients recorded, nothing of the system or the simulator.

pub mod append;
pub mod bank;
pub mod counter;
pub mod fork;
pub mod lists;
pub mod register;
pub mod skew;
pub mod snapshot;
pub mod timestamp;

use std::collections::BTreeMap;

use crate::history::{Op, Operation, Outcome, Txn};

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
    #[error("key {key}: read {value} at {ts}, written by a transaction that failed")]
    AbortedRead { key: String, value: String, ts: u64 },
    #[error("key {key}: read {value} at {ts}, but {expected} was committed by then, at {commit_ts}")]
    StaleRead {
        key: String,
        value: String,
        ts: u64,
        expected: String,
        commit_ts: u64,
    },
    #[error("key {key}: read {value} at {ts}, which was committed at {commit_ts} only")]
    FutureRead {
        key: String,
        value: String,
        ts: u64,
        commit_ts: u64,
    },
    #[error("key {key}: written at {commit_ts} by a transaction that had read it at {ts}, though another wrote it at {between}")]
    LostUpdate {
        key: String,
        ts: u64,
        commit_ts: u64,
        between: u64,
    },
    #[error("key {key}: two transactions committed at {commit_ts}")]
    CommitTwice { key: String, commit_ts: u64 },
    #[error("transaction {start_ts} began after one had ended that committed at {commit_ts}")]
    BeganBelow { start_ts: u64, commit_ts: u64 },
    #[error("transaction {start_ts} committed at {commit_ts}")]
    CommitNotAbove { start_ts: u64, commit_ts: u64 },
    #[error("bank: the snapshot at {ts:?} holds {total}, wanted {wanted}")]
    Total { ts: Option<u64>, total: i64, wanted: i64 },
    #[error("bank: account {key} holds {value}, which is no balance or below zero")]
    Balance { key: String, value: String },
    #[error("counter {key}: two increments made it {count}")]
    CountedTwice { key: String, count: i64 },
    #[error("counter {key}: {count} after {earlier} had been acknowledged")]
    CountedBack { key: String, count: i64, earlier: i64 },
    #[error("counter {key}: {count}, though at most {most} increments were begun")]
    CountedTooFar { key: String, count: i64, most: i64 },
    #[error("long fork of group {group}: one reader saw {first:?}, another {second:?}")]
    LongFork {
        group: String,
        first: Vec<String>,
        second: Vec<String>,
    },
    #[error("write skew in group {group}, though reads were locked: taken {taken:?}")]
    WriteSkew { group: String, taken: Vec<String> },
    #[error("isolation: {kind}: {why}")]
    Isolation { kind: String, why: String },
}

/// Groups operations by key; order within a key is kept.
fn by_key(operations: &[Operation]) -> BTreeMap<&str, Vec<&Operation>> {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        keys.entry(operation.op.key()).or_default().push(operation);
    }
    keys
}

/// What a key is for, by its second letter.
pub fn kind_of(key: &str) -> u8 {
    key.as_bytes().get(1).copied().unwrap_or_default()
}

/// A group's name: its key without the letter of its place.
fn group_of(key: &str) -> &str {
    key.get(1..).unwrap_or_default()
}

/// Transactions that touch keys of this kind, with the operations that they are.
fn txns(operations: &[Operation], kind: u8) -> impl Iterator<Item = (&Operation, &Txn)> {
    let of_kind = move |txn: &Txn| {
        let reads = txn.reads.iter().map(|read| &read.key);
        let mut keys = reads.chain(txn.writes.iter().map(|write| &write.key));
        keys.any(|key| kind_of(key) == kind)
    };
    operations.iter().filter_map(move |operation| match &operation.op {
        Op::Txn(txn) if of_kind(txn) => Some((operation, txn)),
        _ => None,
    })
}

fn is_ok(operation: &Operation) -> bool {
    operation.outcome == Outcome::Ok
}

#[cfg(test)]
mod testing {
    use super::*;
    use crate::history::{Read, Write};

    /// `r` reads `(key, value, ts)`, `w` writes `(key, value)`; an empty value is none.
    pub fn txn(r: &[(&str, &str, u64)], w: &[(&str, &str)], start_ts: u64, commit_ts: u64) -> Txn {
        let value = |value: &str| (!value.is_empty()).then(|| value.to_owned());
        let read = |&(key, found, ts): &(&str, &str, u64)| Read {
            key: key.into(),
            value: value(found),
            ts: Some(ts),
        };
        let write = |&(key, new): &(&str, &str)| Write {
            key: key.into(),
            value: value(new),
        };
        Txn {
            reads: r.iter().map(read).collect(),
            writes: w.iter().map(write).collect(),
            start_ts: Some(start_ts),
            commit_ts: (commit_ts != 0).then_some(commit_ts),
        }
    }

    pub fn operation(txn: Txn, called: u64, returned: u64, outcome: Outcome) -> Operation {
        Operation {
            process: called,
            op: Op::Txn(txn),
            called,
            returned: if outcome == Outcome::Unknown { u64::MAX } else { returned },
            outcome,
        }
    }

    /// One after the other, all acknowledged.
    pub fn in_turn(txns: Vec<Txn>) -> Vec<Operation> {
        let turn = |(at, txn)| operation(txn, 10 * at as u64, 10 * at as u64 + 5, Outcome::Ok);
        txns.into_iter().enumerate().map(turn).collect()
    }

    /// All at the same time, all acknowledged.
    pub fn at_once(txns: Vec<Txn>) -> Vec<Operation> {
        let overlap = |(at, txn)| operation(txn, at as u64, 1000 + at as u64, Outcome::Ok);
        txns.into_iter().enumerate().map(overlap).collect()
    }
}
