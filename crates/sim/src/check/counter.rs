//! Counters: every increment counts once, and what was acknowledged is never forgotten.

use std::collections::{BTreeMap, BTreeSet};

use super::{Violation, is_ok, txns};
use crate::history::{Operation, Txn};
use crate::txn_client::script::number;

/// Second letter of counters' keys.
pub const KIND: u8 = b'n';

/// One sight of a counter: an increment that made it `count`, or a read that found it there.
struct Sight {
    count: i64,
    called: u64,
    returned: u64,
}

#[derive(Default)]
struct Counter {
    increments: Vec<Sight>,
    reads: Vec<Sight>,
    /// When increments were begun that may have happened.
    begun: Vec<u64>,
}

pub fn check(operations: &[Operation]) -> Result<(), Violation> {
    let mut counters: BTreeMap<&str, Counter> = BTreeMap::new();
    for (operation, txn) in txns(operations, KIND) {
        note(&mut counters, operation, txn);
    }
    counters.into_iter().try_for_each(|(key, counter)| counter.check(key))
}

fn note<'a>(counters: &mut BTreeMap<&'a str, Counter>, operation: &Operation, txn: &'a Txn) {
    let sight = |value: Option<&str>| Sight {
        count: value.and_then(number).unwrap_or(0),
        called: operation.called,
        returned: operation.returned,
    };
    for write in &txn.writes {
        let counter = counters.entry(&write.key).or_default();
        counter.begun.push(operation.called);
        if is_ok(operation) {
            counter.increments.push(sight(write.value.as_deref()));
        }
    }
    let reads_only = txn.writes.is_empty() && is_ok(operation);
    for read in txn.reads.iter().filter(|_| reads_only) {
        counters
            .entry(&read.key)
            .or_default()
            .reads
            .push(sight(read.value.as_deref()));
    }
}

impl Counter {
    fn check(&self, key: &str) -> Result<(), Violation> {
        let mut counts = BTreeSet::new();
        if let Some(twice) = self.increments.iter().find(|increment| !counts.insert(increment.count)) {
            let (key, count) = (key.into(), twice.count);
            return Err(Violation::CountedTwice { key, count });
        }
        self.increments.iter().try_for_each(|sight| self.check_sight(key, sight, 1))?;
        self.reads.iter().try_for_each(|sight| self.check_sight(key, sight, 0))
    }

    /// `above`: by how much it must exceed what was acknowledged before it began.
    fn check_sight(&self, key: &str, sight: &Sight, above: i64) -> Result<(), Violation> {
        let sights = self.increments.iter().chain(&self.reads);
        let before = sights.filter(|other| other.returned < sight.called).map(|other| other.count);
        let (key, count, earlier) = (key.to_owned(), sight.count, before.max().unwrap_or(0));
        if count < earlier + above {
            return Err(Violation::CountedBack { key, count, earlier });
        }
        let most = self.begun.iter().filter(|called| **called < sight.returned).count() as i64;
        if count > most {
            return Err(Violation::CountedTooFar { key, count, most });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at_once, in_turn, operation, txn};
    use super::*;
    use crate::history::Outcome;

    fn increment(to: &str) -> Txn {
        txn(&[], &[("an0", to)], 1, 2)
    }

    fn read(value: &str) -> Txn {
        txn(&[("an0", value, 1)], &[], 1, 0)
    }

    #[test]
    fn counting_up() {
        let good = vec![read(""), increment("1 #a"), read("1 #a"), increment("2 #b"), read("2 #b")];
        assert_eq!(check(&in_turn(good)), Ok(()));
    }

    #[test]
    fn lost_counts_are_caught() {
        let twice = at_once(vec![increment("1 #a"), increment("1 #b")]);
        assert!(matches!(check(&twice), Err(Violation::CountedTwice { count: 1, .. })));
        let stale = in_turn(vec![increment("1 #a"), read("")]);
        assert!(matches!(check(&stale), Err(Violation::CountedBack { earlier: 1, .. })));
        let back = in_turn(vec![increment("2 #a"), increment("1 #b")]);
        assert!(check(&back).is_err());
    }

    #[test]
    fn counts_that_nobody_made_are_caught() {
        let far = in_turn(vec![increment("1 #a"), read("2 #b")]);
        assert!(matches!(check(&far), Err(Violation::CountedTooFar { most: 1, .. })));
        let mut unknown = far;
        unknown.push(operation(increment("2 #b"), 3, 4, Outcome::Unknown));
        assert_eq!(check(&unknown), Ok(()));
    }
}
