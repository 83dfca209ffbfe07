//! Transactions by their timestamps: a read at `ts` finds exactly what was committed last at or before `ts`.
//!
//! Clients record the timestamps of all that they read and commit, and every value is written once, so each read can be judged by
//! itself, whatever the workload. What only a transaction of unknown outcome could explain is let pass: the other judges see to that.

use std::collections::{BTreeMap, BTreeSet};

use super::{Violation, is_ok};
use crate::history::{Op, Operation, Outcome, Read, Txn};

/// Checks all transactions of a history, failed ones included; the first fault found is returned.
pub fn check(operations: &[Operation]) -> Result<(), Violation> {
    let txns: Vec<(&Operation, &Txn)> = operations
        .iter()
        .filter_map(|operation| match &operation.op {
            Op::Txn(txn) => Some((operation, txn)),
            _ => None,
        })
        .collect();
    check_order(&txns)?;
    let keys = Keys::new(&txns)?;
    txns.iter().try_for_each(|(_, txn)| keys.check(txn))
}

type Value<'a> = Option<&'a str>;

/// What was written to a key.
#[derive(Default)]
struct Versions<'a> {
    /// By commit timestamp, of acknowledged transactions.
    committed: BTreeMap<u64, Value<'a>>,
    unknown: BTreeSet<Value<'a>>,
    failed: BTreeSet<Value<'a>>,
}

struct Keys<'a>(BTreeMap<&'a str, Versions<'a>>);

impl<'a> Keys<'a> {
    fn new(txns: &[(&'a Operation, &'a Txn)]) -> Result<Keys<'a>, Violation> {
        let mut keys: BTreeMap<&str, Versions> = BTreeMap::new();
        for (operation, txn) in txns {
            for write in &txn.writes {
                let (versions, value) = (keys.entry(&write.key).or_default(), write.value.as_deref());
                match (operation.outcome, txn.commit_ts) {
                    (Outcome::Failed, _) => drop(versions.failed.insert(value)),
                    (Outcome::Ok, Some(commit_ts)) => {
                        if versions.committed.insert(commit_ts, value).is_some() {
                            let key = write.key.clone();
                            return Err(Violation::CommitTwice { key, commit_ts });
                        }
                    }
                    _ => drop(versions.unknown.insert(value)),
                }
            }
        }
        Ok(Keys(keys))
    }

    fn check(&self, txn: &Txn) -> Result<(), Violation> {
        for read in &txn.reads {
            let Some(ts) = read.ts else { continue };
            self.check_read(read, ts)?;
            if let Some(commit_ts) = txn.commit_ts.filter(|_| txn.writes.iter().any(|write| write.key == read.key)) {
                self.check_update(&read.key, ts, commit_ts)?;
            }
        }
        Ok(())
    }

    fn check_read(&self, read: &Read, ts: u64) -> Result<(), Violation> {
        let (key, value) = (read.key.clone(), read.value.as_deref());
        let text = |value: Value| value.unwrap_or("nothing").to_owned();
        let none = Versions::default();
        let versions = self.0.get(key.as_str()).unwrap_or(&none);
        let last = versions.committed.range(..=ts).next_back();
        if value == last.and_then(|(_, value)| *value) || versions.unknown.contains(&value) {
            return Ok(());
        }
        let value_text = text(value);
        let later = versions.committed.range(ts + 1..).find(|(_, later)| **later == value);
        if let (Some((&commit_ts, _)), Some(_)) = (later, value) {
            return Err(Violation::FutureRead {
                key,
                value: value_text,
                ts,
                commit_ts,
            });
        }
        if value.is_some() && versions.failed.contains(&value) {
            return Err(Violation::AbortedRead {
                key,
                value: value_text,
                ts,
            });
        }
        if value.is_some() && !versions.committed.values().any(|known| *known == value) {
            return Err(Violation::NeverWritten { key, value: value_text });
        }
        let (&commit_ts, expected) = last.expect("a value that is neither later nor unknown was committed before");
        Err(Violation::StaleRead {
            key,
            value: value_text,
            ts,
            expected: text(*expected),
            commit_ts,
        })
    }

    /// First committer wins: nobody else commits between a transaction's read of a key and its write to it.
    fn check_update(&self, key: &str, ts: u64, commit_ts: u64) -> Result<(), Violation> {
        let mut between = self.0[key].committed.range(ts + 1..commit_ts.max(ts + 1));
        match between.next() {
            None => Ok(()),
            Some((&between, _)) => Err(Violation::LostUpdate {
                key: key.into(),
                ts,
                commit_ts,
                between,
            }),
        }
    }
}

/// Timestamps follow real time: who began after a transaction had ended, began above (or at) its commit.
fn check_order(txns: &[(&Operation, &Txn)]) -> Result<(), Violation> {
    let mut ended: Vec<(u64, u64)> = Vec::new();
    for (operation, txn) in txns {
        if let (Some(start_ts), Some(commit_ts)) = (txn.start_ts, txn.commit_ts) {
            if commit_ts <= start_ts {
                return Err(Violation::CommitNotAbove { start_ts, commit_ts });
            }
            if is_ok(operation) {
                ended.push((operation.returned, commit_ts));
            }
        }
    }
    ended.sort_unstable();
    let mut ended = ended.into_iter().peekable();
    let mut latest = 0;
    let mut begun: Vec<_> = txns
        .iter()
        .filter_map(|(operation, txn)| Some((operation.called, txn.start_ts?)))
        .collect();
    begun.sort_unstable();
    for (called, start_ts) in begun {
        while let Some((_, commit_ts)) = ended.next_if(|&(returned, _)| returned < called) {
            latest = commit_ts.max(latest);
        }
        if start_ts < latest {
            return Err(Violation::BeganBelow {
                start_ts,
                commit_ts: latest,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at_once, in_turn, operation, txn};
    use super::*;

    #[test]
    fn what_was_committed_last_is_read() {
        let good = vec![
            txn(&[("k", "", 1)], &[("k", "a")], 1, 5),
            txn(&[("k", "", 4)], &[], 4, 0),
            txn(&[("k", "a", 5)], &[], 5, 0),
            txn(&[("k", "a", 6)], &[("k", "")], 6, 9),
            txn(&[("k", "", 9)], &[], 9, 0),
        ];
        assert_eq!(check(&at_once(good)), Ok(()));
    }

    #[test]
    fn wrong_versions_are_caught() {
        let verdict = |read: (&'static str, u64)| {
            let writer = txn(&[], &[("k", "a")], 1, 5);
            let second = txn(&[], &[("k", "b")], 6, 9);
            let reader = txn(&[("k", read.0, read.1)], &[], read.1, 0);
            let mut operations = at_once(vec![writer, second, reader]);
            operations.push(operation(txn(&[], &[("k", "f")], 2, 0), 3, 4, Outcome::Failed));
            operations.push(operation(txn(&[], &[("k", "u")], 2, 0), 3, 4, Outcome::Unknown));
            check(&operations)
        };
        assert!(matches!(verdict(("", 6)), Err(Violation::StaleRead { commit_ts: 5, .. })));
        assert!(matches!(verdict(("a", 10)), Err(Violation::StaleRead { commit_ts: 9, .. })));
        assert!(matches!(verdict(("b", 8)), Err(Violation::FutureRead { commit_ts: 9, .. })));
        assert!(matches!(verdict(("f", 8)), Err(Violation::AbortedRead { .. })));
        assert!(matches!(verdict(("x", 8)), Err(Violation::NeverWritten { .. })));
        assert_eq!(verdict(("u", 8)), Ok(()), "it may have been committed");
        assert_eq!(verdict(("b", 9)), Ok(()));
    }

    #[test]
    fn updates_over_each_other_are_caught() {
        let lost = vec![
            txn(&[("k", "", 1)], &[("k", "a")], 1, 5),
            txn(&[("k", "", 2)], &[("k", "b")], 2, 6),
        ];
        assert!(matches!(check(&at_once(lost)), Err(Violation::LostUpdate { between: 5, .. })));
        let twice = vec![txn(&[], &[("k", "a")], 1, 5), txn(&[], &[("k", "b")], 2, 5)];
        assert!(matches!(check(&at_once(twice)), Err(Violation::CommitTwice { .. })));
    }

    #[test]
    fn timestamps_against_real_time_are_caught() {
        let below = vec![txn(&[], &[("k", "a")], 1, 5), txn(&[], &[("l", "b")], 4, 6)];
        assert!(matches!(check(&in_turn(below.clone())), Err(Violation::BeganBelow { .. })));
        assert_eq!(check(&at_once(below)), Ok(()));
        let own = vec![txn(&[], &[("k", "a")], 5, 5)];
        assert!(matches!(check(&in_turn(own)), Err(Violation::CommitNotAbove { .. })));
    }
}
