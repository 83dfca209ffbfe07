//! Bank: whoever reads all accounts finds the same total, and no account is ever below zero.

use super::{Violation, is_ok, txns};
use crate::history::Operation;
use crate::txn_client::script::{BALANCE, balance};

/// Second letter of accounts' keys.
pub const KIND: u8 = b'm';

/// Checks every read of accounts; `accounts` is their number.
pub fn check(operations: &[Operation], accounts: usize) -> Result<(), Violation> {
    for (_, txn) in txns(operations, KIND).filter(|(operation, _)| is_ok(operation)) {
        let mut total = 0;
        for read in &txn.reads {
            match balance(read.value.as_deref()) {
                Some(balance) if balance >= 0 => total += balance,
                _ => {
                    return Err(Violation::Balance {
                        key: read.key.clone(),
                        value: read.value.clone().unwrap_or_default(),
                    });
                }
            }
        }
        let wanted = BALANCE * accounts as i64;
        if txn.reads.len() == accounts && total != wanted {
            let ts = txn.start_ts;
            return Err(Violation::Total { ts, total, wanted });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at_once, txn};
    use super::*;

    #[test]
    fn totals_and_balances() {
        let verdict =
            |first: &str, second: &str| check(&at_once(vec![txn(&[("am0", first, 1), ("bm0", second, 1)], &[], 1, 0)]), 2);
        assert_eq!(verdict("", ""), Ok(()));
        assert_eq!(verdict("7 #1", "13 #1"), Ok(()));
        assert!(matches!(verdict("7 #1", ""), Err(Violation::Total { total: 17, .. })));
        assert!(matches!(verdict("-1 #1", "21 #1"), Err(Violation::Balance { .. })));
        let part = txn(&[("am0", "7 #1", 1)], &[], 1, 0);
        assert_eq!(check(&at_once(vec![part]), 2), Ok(()), "a part of the accounts holds any sum");
    }
}
