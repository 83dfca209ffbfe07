//! Long fork: of two readers of a group, one saw all that the other saw. Each key of a group is written once, by a transaction of its
//! own; under snapshot isolation no two readers may see two of them in opposite order. Who reads a group reads all of it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Violation, group_of, is_ok, kind_of, txns};
use crate::history::Operation;

/// Second letter of groups' keys.
pub const KIND: u8 = b'f';

pub fn check(operations: &[Operation]) -> Result<(), Violation> {
    let mut groups: BTreeMap<&str, BTreeSet<BTreeSet<&str>>> = BTreeMap::new();
    for (_, txn) in txns(operations, KIND).filter(|(operation, txn)| is_ok(operation) && txn.writes.is_empty()) {
        let mut sights: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for read in txn.reads.iter().filter(|read| kind_of(&read.key) == KIND) {
            let sight = sights.entry(group_of(&read.key)).or_default();
            sight.extend(read.value.is_some().then_some(read.key.as_str()));
        }
        for (group, sight) in sights {
            groups.entry(group).or_default().insert(sight);
        }
    }
    groups.into_iter().try_for_each(|(group, sights)| check_group(group, sights))
}

fn check_group(group: &str, sights: BTreeSet<BTreeSet<&str>>) -> Result<(), Violation> {
    let mut sights: Vec<_> = sights.into_iter().collect();
    sights.sort_by_key(BTreeSet::len);
    for pair in sights.windows(2) {
        if !pair[0].is_subset(&pair[1]) {
            let list = |sight: &BTreeSet<&str>| sight.iter().map(|key| (*key).to_owned()).collect();
            return Err(Violation::LongFork {
                group: group.into(),
                first: list(&pair[0]),
                second: list(&pair[1]),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at_once, txn};
    use super::*;

    fn reader(a: &str, b: &str) -> crate::history::Txn {
        txn(&[("af0", a, 1), ("bf0", b, 1)], &[], 1, 0)
    }

    #[test]
    fn readers_agree_on_an_order() {
        let good = vec![reader("", ""), reader("x", ""), reader("x", "y"), reader("x", "")];
        assert_eq!(check(&at_once(good)), Ok(()));
    }

    #[test]
    fn a_fork_is_caught() {
        let fork = vec![reader("", ""), reader("x", ""), reader("", "y")];
        assert!(matches!(check(&at_once(fork)), Err(Violation::LongFork { .. })));
    }
}
