//! Write skew: of a group's keys only one may be taken, which every transaction checks before it takes one. Snapshot isolation alone
//! lets two pass each other; locked reads must not.

use std::collections::BTreeMap;

use super::{Violation, group_of, is_ok, kind_of, txns};
use crate::history::Operation;

/// Second letter of groups whose reads are not locked.
pub const OPEN: u8 = b'w';
/// Second letter of groups whose reads are locked.
pub const LOCKED: u8 = b'x';

/// Checks the groups with locked reads, and returns how many of the others show a write skew.
pub fn check(operations: &[Operation]) -> Result<u64, Violation> {
    if let Some((group, taken)) = skewed(operations, LOCKED).into_iter().next() {
        return Err(Violation::WriteSkew { group, taken });
    }
    Ok(skewed(operations, OPEN).len() as u64)
}

/// Groups of which two keys were taken, with these keys.
fn skewed(operations: &[Operation], kind: u8) -> BTreeMap<String, Vec<String>> {
    let mut taken: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (_, txn) in txns(operations, kind).filter(|(operation, _)| is_ok(operation)) {
        let seen = txn.reads.iter().filter(|read| read.value.is_some()).map(|read| &read.key);
        let keys = seen.chain(txn.writes.iter().map(|write| &write.key));
        for key in keys.filter(|key| kind_of(key) == kind) {
            let group = taken.entry(group_of(key).to_owned()).or_default();
            if !group.contains(key) {
                group.push(key.clone());
            }
        }
    }
    taken.retain(|_, keys| keys.len() > 1);
    taken
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at_once, txn};
    use super::*;

    fn both(kind: char) -> Vec<Operation> {
        let (a, b) = (format!("a{kind}0"), format!("b{kind}0"));
        let claim = |own: &str, other: &str| txn(&[(own, "", 1), (other, "", 1)], &[(own, "taken")], 1, 2);
        at_once(vec![claim(&a, &b), claim(&b, &a)])
    }

    #[test]
    fn a_skew_counts_where_it_may_happen_and_fails_where_not() {
        assert_eq!(check(&both('w')), Ok(1));
        assert!(matches!(check(&both('x')), Err(Violation::WriteSkew { .. })));
        assert_eq!(check(&both('x')[..1]), Ok(0));
        let seen = at_once(vec![txn(&[("ax0", "t1", 1), ("bx0", "t2", 1)], &[], 1, 0)]);
        assert!(matches!(check(&seen), Err(Violation::WriteSkew { .. })), "a read saw both");
    }
}
