//! Timestamps: each is given once, and one asked for after another had been given is larger.

use super::Violation;
use crate::history::{Op, Operation, Outcome};

/// Checks every timestamp of a history; the first fault found is returned.
pub fn check(operations: &[Operation]) -> Result<(), Violation> {
    let given = operations
        .iter()
        .filter(|operation| operation.outcome == Outcome::Ok)
        .filter_map(|operation| match operation.op {
            Op::Timestamp { ts } => ts.map(|ts| (ts, operation)),
            _ => None,
        });
    let mut given: Vec<_> = given.collect();
    given.sort_by_key(|(ts, _)| *ts);
    // Against the order of timestamps: the latest call so far must not lie after the return of any that is larger or equal.
    let mut latest: Option<(u64, u64)> = None;
    for pair in given.windows(2) {
        if pair[0].0 == pair[1].0 {
            return Err(Violation::TimestampOrder {
                earlier: pair[0].0,
                later: pair[1].0,
            });
        }
    }
    for (ts, operation) in given {
        if let Some((smaller, called)) = latest
            && operation.returned < called
        {
            return Err(Violation::TimestampOrder {
                earlier: ts,
                later: smaller,
            });
        }
        if latest.is_none_or(|(_, called)| called < operation.called) {
            latest = Some((ts, operation.called));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(timestamps: &[(u64, u64, u64)]) -> Result<(), Violation> {
        let operation = |&(ts, called, returned): &(u64, u64, u64)| Operation {
            process: called,
            op: Op::Timestamp { ts: Some(ts) },
            called,
            returned,
            outcome: Outcome::Ok,
        };
        check(&timestamps.iter().map(operation).collect::<Vec<_>>())
    }

    #[test]
    fn order_in_time_is_order_of_timestamps() {
        assert_eq!(verdict(&[(10, 0, 1), (11, 2, 3), (12, 4, 5)]), Ok(()));
        assert_eq!(verdict(&[(11, 0, 3), (10, 1, 2)]), Ok(()), "asked for at the same time");
        assert_eq!(
            verdict(&[(11, 0, 1), (10, 2, 3)]),
            Err(Violation::TimestampOrder { earlier: 11, later: 10 })
        );
        assert_eq!(
            verdict(&[(10, 0, 1), (12, 2, 3), (11, 4, 5)]),
            Err(Violation::TimestampOrder { earlier: 12, later: 11 })
        );
        assert_eq!(
            verdict(&[(10, 0, 1), (10, 0, 3)]),
            Err(Violation::TimestampOrder { earlier: 10, later: 10 })
        );
    }
}
