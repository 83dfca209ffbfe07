//! Lists under transactions: judged by the `adya` crate for strong snapshot isolation (cycles of dependencies, real time included),
//! and, for what it does not look at, as lists of single appends and reads: elements never written, acknowledged ones missing, twice
//! there, out of order.

use adya::history::{Interner, Mop, Op as AdyaOp, OpType, ReadValue, Scalar};
use adya::{History, Opts, Valid};

use super::{Violation, append, txns};
use crate::history::{Op, Operation, Outcome, Read, Txn, Write};
use crate::txn_client::script::elements;

/// Second letter of lists' keys.
pub const KIND: u8 = b't';

/// What we promise, in Adya's terms.
const MODEL: &str = "strong-snapshot-isolation";

/// Checks every list; `operations` hold failed ones too.
pub fn check(operations: &[Operation]) -> Result<(), Violation> {
    append::check(&single_operations(operations))?;
    check_cycles(operations, MODEL)
}

/// The elements that a write adds to what its transaction read.
fn appended<'a>(txn: &'a Txn, write: &'a Write) -> Vec<&'a str> {
    let before = txn.read(&write.key).map_or(0, |read| elements(read.value.as_deref()).len());
    elements(write.value.as_deref()).split_off(before)
}

/// Each append and each read of a transaction as an operation of its own, which it is as far as a single list is concerned.
fn single_operations(operations: &[Operation]) -> Vec<Operation> {
    let mut singles = Vec::new();
    for (operation, txn) in txns(operations, KIND).filter(|(operation, _)| operation.outcome != Outcome::Failed) {
        let single = |op| Operation { op, ..operation.clone() };
        let read = |read: &Read| Op::List {
            key: read.key.clone(),
            elements: elements(read.value.as_deref()).into_iter().map(String::from).collect(),
        };
        let append = |write: &Write, element: &str| Op::Append {
            key: write.key.clone(),
            element: element.into(),
        };
        let appends = txn
            .writes
            .iter()
            .flat_map(|write| appended(txn, write).into_iter().map(move |element| append(write, element)));
        singles.extend(txn.reads.iter().map(read).chain(appends).map(single));
    }
    singles
}

fn check_cycles(operations: &[Operation], model: &str) -> Result<(), Violation> {
    let history = history(operations);
    if history.ops.is_empty() {
        return Ok(());
    }
    let opts = Opts {
        models: vec![model.into()],
        ..Opts::default()
    };
    let report = adya::check(&history, adya::Workload::ListAppend, &opts);
    let worst = report.anomalies.iter().find_map(|(kind, found)| Some((kind, found.first()?)));
    match (report.valid, worst) {
        (Valid::True, _) => Ok(()),
        // Transactions that have nothing to do with each other show nothing, and break nothing.
        (Valid::Unknown, Some((kind, _))) if kind == "empty-transaction-graph" => Ok(()),
        (_, worst) => Err(Violation::Isolation {
            kind: worst.map_or("unknown".into(), |(kind, _)| kind.clone()),
            why: worst.map_or("no verdict".into(), |(_, anomaly)| anomaly.explanation.clone()),
        }),
    }
}

/// The history as the crate wants it: invocations and completions in their order.
fn history(operations: &[Operation]) -> History {
    let mut events: Vec<(u64, OpType, &Operation, &Txn)> = Vec::new();
    let mut last = 0;
    for (operation, txn) in txns(operations, KIND) {
        events.push((operation.called, OpType::Invoke, operation, txn));
        let (at, kind) = match operation.outcome {
            Outcome::Ok => (operation.returned, OpType::Ok),
            Outcome::Failed => (operation.returned, OpType::Fail),
            Outcome::Unknown => (u64::MAX, OpType::Info),
        };
        events.push((at, kind, operation, txn));
        last = last.max(operation.called);
    }
    events.sort_by_key(|(at, ..)| *at);
    let mut interner = Interner::default();
    let op = |(index, (at, kind, operation, txn)): (usize, (u64, OpType, &Operation, &Txn))| AdyaOp {
        index: index as u64,
        kind,
        process: Some(operation.process as i64),
        value: mops(&mut interner, kind, txn),
        time: Some(at.min(last + index as u64) as i64),
    };
    let ops = events.into_iter().enumerate().map(op).collect();
    History::from_ops(ops, interner)
}

fn mops(interner: &mut Interner, kind: OpType, txn: &Txn) -> Vec<Mop> {
    let mut mops = Vec::new();
    for read in &txn.reads {
        let key = interner.intern(Scalar::Str(read.key.clone()));
        let mut list = || {
            let ids = elements(read.value.as_deref()).into_iter();
            ids.map(|element| interner.intern(Scalar::Str(element.into()))).collect()
        };
        let value = match kind {
            OpType::Ok => ReadValue::List(list()),
            OpType::Invoke | OpType::Fail | OpType::Info => ReadValue::Nil,
        };
        mops.push(Mop::Read { key, value });
    }
    for write in &txn.writes {
        let key = interner.intern(Scalar::Str(write.key.clone()));
        for element in appended(txn, write) {
            let value = interner.intern(Scalar::Str(element.into()));
            mops.push(Mop::Append { key, value });
        }
    }
    mops
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at_once, in_turn, operation, txn};
    use super::*;

    /// Reads and rewrites lists: `(key, before, after)`; nothing is written where both are equal.
    fn lists(steps: &[(&str, &str, &str)]) -> Txn {
        let reads: Vec<_> = steps.iter().map(|(key, before, _)| (*key, *before, 1)).collect();
        let writes = steps.iter().filter(|(_, before, after)| before != after);
        let writes: Vec<_> = writes.map(|(key, _, after)| (*key, *after)).collect();
        txn(&reads, &writes, 1, if writes.is_empty() { 0 } else { 2 })
    }

    fn kind(operations: &[Operation]) -> String {
        match check(operations) {
            Err(Violation::Isolation { kind, .. }) => kind,
            other => panic!("wanted a breach of isolation, got {other:?}"),
        }
    }

    #[test]
    fn good_histories_pass() {
        let turn = vec![
            lists(&[("at0", "", "1"), ("bt0", "", "2")]),
            lists(&[("at0", "1", "1,3"), ("bt0", "2", "2")]),
            lists(&[("at0", "1,3", "1,3"), ("bt0", "2", "2")]),
        ];
        assert_eq!(check(&in_turn(turn)), Ok(()));
        let skew = vec![
            lists(&[("at0", "", "1"), ("bt0", "", "")]),
            lists(&[("at0", "", ""), ("bt0", "", "2")]),
            lists(&[("at0", "1", "1"), ("bt0", "2", "2")]),
        ];
        assert_eq!(check(&at_once(skew)), Ok(()), "snapshot isolation allows a write skew");
    }

    #[test]
    fn read_skew_is_caught() {
        let torn = vec![
            lists(&[("at0", "", "1"), ("bt0", "", "2")]),
            lists(&[("at0", "1", "1"), ("bt0", "", "")]),
            lists(&[("at0", "1", "1"), ("bt0", "2", "2")]),
        ];
        assert_eq!(kind(&at_once(torn)), "G-single-item");
    }

    #[test]
    fn circular_sight_is_caught() {
        let circle = vec![
            lists(&[("at0", "", "1"), ("bt0", "2", "2")]),
            lists(&[("bt0", "", "2"), ("at0", "1", "1")]),
        ];
        assert_eq!(kind(&at_once(circle)), "G1c");
    }

    #[test]
    fn an_aborted_read_is_caught() {
        let mut operations = at_once(vec![lists(&[("at0", "1", "1")])]);
        operations.push(operation(lists(&[("at0", "", "1")]), 2, 3, Outcome::Failed));
        // As lists alone: the element of a failed append was never written.
        assert!(matches!(check(&operations), Err(Violation::NeverWritten { .. })));
        assert!(matches!(check_cycles(&operations, MODEL), Err(Violation::Isolation { kind, .. }) if kind == "G1a"));
    }

    #[test]
    fn a_long_fork_is_caught() {
        let fork = vec![
            lists(&[("at0", "", "1")]),
            lists(&[("bt0", "", "2")]),
            lists(&[("at0", "1", "1"), ("bt0", "", "")]),
            lists(&[("at0", "", ""), ("bt0", "2", "2")]),
            lists(&[("at0", "1", "1"), ("bt0", "2", "2")]),
        ];
        assert_eq!(kind(&at_once(fork)), "G-nonadjacent-item");
    }

    #[test]
    fn a_snapshot_older_than_real_time_allows_is_caught() {
        let stale = vec![
            lists(&[("at0", "", "1"), ("bt0", "", "2")]),
            lists(&[("at0", "", ""), ("bt0", "", "")]),
            lists(&[("at0", "1", "1"), ("bt0", "2", "2")]),
        ];
        assert!(matches!(check(&in_turn(stale.clone())), Err(Violation::Lost { .. })));
        assert!(check_cycles(&in_turn(stale.clone()), MODEL).is_err());
        assert_eq!(check(&at_once(stale)), Ok(()), "at the same time it is allowed");
    }

    #[test]
    fn lost_updates_are_caught() {
        let lost = vec![
            lists(&[("at0", "", "1")]),
            lists(&[("at0", "", "2")]),
            lists(&[("at0", "2", "2")]),
        ];
        assert!(check(&at_once(lost)).is_err());
    }

    #[test]
    fn blind_spots_are_caught() {
        let never = vec![lists(&[("at0", "", "1")]), lists(&[("at0", "1,9", "1,9")])];
        assert_eq!(
            check_cycles(&at_once(never.clone()), MODEL),
            Ok(()),
            "if the crate saw it, ours could go"
        );
        assert!(matches!(check(&at_once(never)), Err(Violation::NeverWritten { value, .. }) if value == "9"));
    }

    #[test]
    fn an_unknown_outcome_may_be_either() {
        let reader = |list: &str| {
            let mut operations = in_turn(vec![lists(&[("at0", list, list)])]);
            operations.push(operation(lists(&[("at0", "", "1")]), 0, 1, Outcome::Unknown));
            operations
        };
        assert_eq!(check(&reader("")), Ok(()));
        assert_eq!(check(&reader("1")), Ok(()));
    }
}
