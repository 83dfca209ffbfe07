//! Single keys as registers: put, delete and get are linearizable per key, judged by `porcupine-rs`.
//!
//! Every written value is unique, which lets us help the search without changing its verdict: an unknown put that no read saw
//! is left out (it can always be taken to happen after everything else), and one that was seen happened before its first
//! reader returned. What stays open to the end are unknown deletes only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use porcupine_rs::{CheckResult, Model};

use super::{Violation, by_key};
use crate::history::{Op, Operation, Outcome};

/// How long the search for one key's order may take. Far beyond what a history with at most eight operations at once needs.
const VERDICT_TIME_MAX: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
struct Register;

#[derive(Clone, Debug)]
enum Step {
    /// `None` deletes.
    Write(Option<u32>),
    Read(Option<u32>),
}

impl Model for Register {
    /// Number of the value held, if any.
    type State = Option<u32>;
    type Op = Step;
    type Metadata = ();

    fn init() -> Option<u32> {
        None
    }

    fn step(state: &Option<u32>, op: &Step) -> (bool, Option<u32>) {
        match op {
            Step::Write(value) => (true, *value),
            Step::Read(value) => (value == state, *state),
        }
    }
}

/// Checks every register of a history; the first fault found is returned.
pub fn check(operations: &[Operation]) -> Result<(), Violation> {
    by_key(operations)
        .into_iter()
        .try_for_each(|(key, operations)| check_key(key, &operations))
}

fn check_key(key: &str, operations: &[&Operation]) -> Result<(), Violation> {
    let numbers = number_values(operations);
    let first_seen = first_readers(operations);
    if let Some(value) = first_seen.keys().find(|value| !numbers.contains_key(*value)) {
        return Err(Violation::NeverWritten {
            key: key.into(),
            value: (*value).into(),
        });
    }
    let history: Vec<_> = operations
        .iter()
        .filter_map(|operation| prepare(operation, &numbers, &first_seen))
        .collect();
    match porcupine_rs::check_operations_timeout::<Register>(&history, VERDICT_TIME_MAX) {
        CheckResult::Ok => Ok(()),
        CheckResult::Illegal => Err(Violation::NotLinearizable {
            key: key.into(),
            operations: history.len(),
        }),
        CheckResult::Unknown => Err(Violation::NoVerdict {
            key: key.into(),
            operations: history.len(),
        }),
    }
}

fn number_values<'a>(operations: &[&'a Operation]) -> BTreeMap<&'a str, u32> {
    let values = operations.iter().filter_map(|operation| match &operation.op {
        Op::Put { value, .. } => Some(value.as_str()),
        _ => None,
    });
    values.zip(0..).collect()
}

/// For each value that was read, when the first of its readers returned.
fn first_readers<'a>(operations: &[&'a Operation]) -> BTreeMap<&'a str, u64> {
    let mut first = BTreeMap::new();
    for operation in operations.iter().filter(|operation| operation.outcome == Outcome::Ok) {
        if let Op::Get { value: Some(value), .. } = &operation.op {
            let returned = first.entry(value.as_str()).or_insert(operation.returned);
            *returned = operation.returned.min(*returned);
        }
    }
    first
}

/// The operation as the model wants it; `None` when it says nothing.
fn prepare(
    operation: &Operation,
    numbers: &BTreeMap<&str, u32>,
    first_seen: &BTreeMap<&str, u64>,
) -> Option<porcupine_rs::Operation<Register>> {
    let unknown = operation.outcome == Outcome::Unknown;
    let mut returned = operation.returned;
    let op = match &operation.op {
        Op::Put { value, .. } => {
            if unknown {
                returned = *first_seen.get(value.as_str())?;
            }
            Step::Write(Some(numbers[value.as_str()]))
        }
        Op::Delete { .. } => Step::Write(None),
        Op::Get { .. } if unknown => return None,
        Op::Get { value, .. } => Step::Read(value.as_ref().map(|value| numbers[value.as_str()])),
        Op::Append { .. } | Op::List { .. } | Op::Timestamp { .. } | Op::Txn(_) => return None,
    };
    let place = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
    let (call_time, return_time) = (place(operation.called), place(returned));
    // A value read before its put was even called: the model must see the put return after its call, and will refuse the read.
    let return_time = return_time.max(call_time);
    Some(porcupine_rs::Operation {
        client_id: None,
        call_time,
        return_time,
        op,
        metadata: None,
    })
}

/// The most operations open at once on one key, unknown puts that no read saw left out. Workloads keep it at eight or below,
/// because the search grows exponentially with it.
pub fn concurrency_max(operations: &[Operation]) -> usize {
    by_key(operations)
        .values()
        .map(|operations| concurrency_of_key(operations))
        .max()
        .unwrap_or(0)
}

fn concurrency_of_key(operations: &[&Operation]) -> usize {
    let (numbers, first_seen) = (number_values(operations), first_readers(operations));
    let readable: BTreeSet<_> = first_seen.keys().filter(|value| numbers.contains_key(*value)).collect();
    let known = operations
        .iter()
        .filter(|o| !matches!(&o.op, Op::Get { value: Some(v), .. } if !readable.contains(&v.as_str())));
    let mut edges: Vec<(i64, i32)> = known
        .filter_map(|operation| prepare(operation, &numbers, &first_seen))
        .flat_map(|operation| [(operation.call_time, 1), (operation.return_time, -1)])
        .collect();
    edges.sort_unstable();
    let mut open = 0;
    let most = edges.into_iter().map(|(_, change)| {
        open += change;
        open
    });
    most.max().unwrap_or(0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{History, Kind, Record};

    /// Lines like `1 put a`, `1 ok`, `2 get`, `2 ok a`, `3 delete`, `3 info`, `4 get`, `4 ok -` (read nothing), one after another.
    fn verdict(script: &str) -> Result<(), Violation> {
        check(&parse(script))
    }

    fn parse(script: &str) -> Vec<Operation> {
        let mut history = History::new();
        let mut open: BTreeMap<u64, Op> = BTreeMap::new();
        let key = || "k".to_string();
        for (time, line) in script.split(',').enumerate() {
            let words: Vec<_> = line.split_whitespace().collect();
            let process = words[0].parse().unwrap();
            let value = words.get(2).filter(|&&word| word != "-").map(|word| word.to_string());
            let (kind, op) = match words[1] {
                "put" => (
                    Kind::Invoke,
                    Op::Put {
                        key: key(),
                        value: value.unwrap(),
                    },
                ),
                "delete" => (Kind::Invoke, Op::Delete { key: key() }),
                "get" => (Kind::Invoke, Op::Get { key: key(), value: None }),
                "info" => (Kind::Info, open[&process].clone()),
                "ok" => match open[&process].clone() {
                    Op::Get { key, .. } => (Kind::Ok, Op::Get { key, value }),
                    other => (Kind::Ok, other),
                },
                other => panic!("unknown word {other}"),
            };
            open.insert(process, op.clone());
            history.push(Record {
                process,
                kind,
                time_ns: time as u64,
                node: String::new(),
                op,
                why: String::new(),
            });
        }
        history.operations().unwrap()
    }

    #[test]
    fn good_histories_pass() {
        for script in [
            "1 get,1 ok -,1 put a,1 ok,2 get,2 ok a",
            // concurrent with a put: old or new value
            "1 put a,1 ok,1 put b,2 get,2 ok a,1 ok,2 get,2 ok b",
            "1 put a,1 ok,1 put b,2 get,2 ok b,1 ok",
            // an unknown put may take effect late ...
            "1 put a,1 info,2 put b,2 ok,3 get,3 ok b,3 get,3 ok a",
            // ... or never
            "1 put a,1 info,2 put b,2 ok,3 get,3 ok b,3 get,3 ok b",
            "1 put a,1 ok,2 delete,2 ok,3 get,3 ok -",
            "1 put a,1 ok,2 delete,2 info,3 get,3 ok a,3 get,3 ok -",
            // an operation that never ended is unknown
            "1 put a,2 get,2 ok a",
        ] {
            assert_eq!(verdict(script), Ok(()), "{script}");
        }
    }

    #[test]
    fn bad_histories_are_caught() {
        for script in [
            // stale read
            "1 put a,1 ok,1 put b,1 ok,2 get,2 ok a",
            // lost write
            "1 put a,1 ok,2 get,2 ok -",
            // new value, then the old one again
            "1 put a,1 ok,1 put b,2 get,2 ok b,3 get,3 ok a,1 ok",
            // an unknown put takes effect twice
            "1 put a,1 info,2 get,2 ok a,2 put b,2 ok,2 get,2 ok b,2 get,2 ok a",
            // a deleted value comes back
            "1 put a,1 ok,2 delete,2 ok,3 get,3 ok a",
            // read before it was written
            "1 get,1 ok a,2 put a,2 ok",
            "1 get,1 ok a,2 put a,2 info",
        ] {
            assert!(matches!(verdict(script), Err(Violation::NotLinearizable { .. })), "{script}");
        }
        assert!(matches!(verdict("1 get,1 ok x"), Err(Violation::NeverWritten { .. })));
    }

    #[test]
    fn keys_are_judged_apart() {
        let mut operations = parse("1 put a,1 ok,2 get,2 ok a");
        let mut other = parse("5 put b,5 ok,6 get,6 ok -");
        for operation in &mut other {
            match &mut operation.op {
                Op::Put { key, .. } | Op::Get { key, .. } => *key = "other".into(),
                _ => unreachable!(),
            }
        }
        operations.extend(other);
        assert!(matches!(check(&operations), Err(Violation::NotLinearizable { key, operations: 2 }) if key == "other"));
    }

    #[test]
    fn counts_operations_open_at_once() {
        assert_eq!(concurrency_max(&parse("1 put a,2 put b,3 get,3 ok a,1 ok,2 ok")), 3);
        // an unknown put that nobody saw does not count
        assert_eq!(concurrency_max(&parse("1 put a,1 info,2 put b,2 ok")), 1);
        assert_eq!(concurrency_max(&parse("1 delete,1 info,2 put b,2 ok")), 2);
    }

    #[test]
    fn a_long_history_with_many_unknowns_gets_a_verdict() {
        let mut script = Vec::new();
        for round in 0..500 {
            let lost = 10_000 + round;
            script.push(format!("{lost} put u{round}"));
            script.push(format!("{lost} info"));
            for client in 1..=7 {
                script.push(format!("{client} put v{round}-{client}"));
            }
            script.extend((1..=7).map(|client| format!("{client} ok")));
            script.push("8 get".into());
            script.push(format!("8 ok v{round}-{}", round % 7 + 1));
        }
        assert_eq!(verdict(&script.join(",")), Ok(()));
        script.push("9 get,9 ok v3-4".into());
        assert!(matches!(verdict(&script.join(",")), Err(Violation::NotLinearizable { .. })));
    }
}
