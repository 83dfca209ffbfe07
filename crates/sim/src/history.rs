//! What clients did and saw, as JSON lines: one record when an operation is invoked, one when its outcome is known.
//!
//! Knows nothing of the simulator, so that tests of real processes record and check with it too. Rules for those who record:
//! - a process does one operation at a time;
//! - a timeout or a lost connection is [`Kind::Info`] ("unknown"), never [`Kind::Fail`]: the write may have happened, or happen later;
//! - after an unknown outcome the process's number is never used again, its client goes on under a new one;
//! - every value ever written is unique, so that a read tells which write it saw.

use std::collections::BTreeMap;
use std::io::BufRead;

use serde::{Deserialize, Serialize};

/// What an operation asks for and, in a record of kind `ok`, what it answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub enum Op {
    Put {
        key: String,
        value: String,
    },
    Delete {
        key: String,
    },
    /// `value` is what was read; absent at invocation.
    Get {
        key: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<String>,
    },
    /// Adds `element` at the end of the list `key`, atomically.
    Append {
        key: String,
        element: String,
    },
    /// Asks for a timestamp; `ts` is what was given.
    Timestamp {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ts: Option<u64>,
    },
    /// Reads the list `key`; empty at invocation.
    List {
        key: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        elements: Vec<String>,
    },
    /// Several keys at once.
    Txn(Txn),
}

/// A transaction: what it read, what it wrote, and at which timestamps. At invocation only the keys to read are known; writes are known
/// as soon as an outcome is, whichever it is, unless the transaction ended before it knew them itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    pub reads: Vec<Read>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<Write>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ts: Option<u64>,
    /// Of a transaction that wrote and is known to be committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_ts: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    pub key: String,
    /// Absent if nothing was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The time as of which it was read: of the snapshot, or later if the key was locked before it was read. Absent when not read yet,
    /// and of reads of the latest version, whose time nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    pub key: String,
    /// Unique over the history. Absent: deletes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl Txn {
    /// What it read of `key`; `None` if it did not read it.
    pub fn read(&self, key: &str) -> Option<&Read> {
        self.reads.iter().find(|read| read.key == key)
    }
}

impl Op {
    /// The key; operations without one have the empty key.
    pub fn key(&self) -> &str {
        match self {
            Op::Timestamp { .. } | Op::Txn(_) => "",
            Op::Put { key, .. } | Op::Delete { key } | Op::Get { key, .. } | Op::Append { key, .. } | Op::List { key, .. } => key,
        }
    }

    /// Whether the operation changes anything.
    pub fn is_write(&self) -> bool {
        matches!(self, Op::Put { .. } | Op::Delete { .. } | Op::Append { .. })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Invoke,
    /// It happened; the record holds what it answered.
    Ok,
    /// It certainly did not happen and never will.
    Fail,
    /// Nobody knows.
    Info,
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub process: u64,
    pub kind: Kind,
    /// Monotonic; orders the records of all processes that share the clock.
    pub time_ns: u64,
    /// Who was asked or answered, for those who read the history.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    #[serde(flatten)]
    pub op: Op,
    /// Why it failed or is unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    Unknown,
    Failed,
}

/// An operation with its outcome. `called` and `returned` are places in the history: what returned before another was called
/// has a smaller place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub process: u64,
    pub op: Op,
    pub called: u64,
    /// [`u64::MAX`] when the outcome is unknown: it may yet happen.
    pub returned: u64,
    pub outcome: Outcome,
}

/// Why lines are not a history.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read line {line} of the history")]
    Read { line: usize, source: std::io::Error },
    #[error("line {line} of the history is not a record")]
    Parse { line: usize, source: serde_json::Error },
    #[error("process {process} begins an operation at record {record} while another is open")]
    Overlap { process: u64, record: usize },
    #[error("process {process} ends at record {record} an operation that it did not begin")]
    NotBegun { process: u64, record: usize },
    #[error("process {process} goes on at record {record} after an unknown outcome")]
    Resumed { process: u64, record: usize },
    #[error("value {value} is written twice")]
    ValueReused { value: String },
}

/// A history in the making. One per test, behind a lock where several threads record.
#[derive(Clone, Debug, Default)]
pub struct History {
    records: Vec<Record>,
}

impl History {
    pub fn new() -> History {
        History::default()
    }

    pub fn push(&mut self, record: Record) {
        self.records.push(record);
    }

    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Writes the records as JSON lines.
    pub fn write_to(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        for record in &self.records {
            serde_json::to_writer(&mut *out, record)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Reads what [`write_to`](History::write_to) wrote.
    pub fn read_from(input: impl BufRead) -> Result<History, Error> {
        let mut history = History::new();
        for (number, line) in input.lines().enumerate() {
            let line = line.map_err(|source| Error::Read {
                line: number + 1,
                source,
            })?;
            let record = serde_json::from_str(&line).map_err(|source| Error::Parse {
                line: number + 1,
                source,
            })?;
            history.push(record);
        }
        Ok(history)
    }

    /// Pairs invocations with outcomes, in the order of invocation, and checks the rules above. Failed operations are left out, since
    /// they did not happen.
    pub fn operations(&self) -> Result<Vec<Operation>, Error> {
        let mut operations = self.all_operations()?;
        operations.retain(|operation| operation.outcome != Outcome::Failed);
        Ok(operations)
    }

    /// Like [`operations`](History::operations), with those that failed.
    pub fn all_operations(&self) -> Result<Vec<Operation>, Error> {
        let mut order: Vec<(usize, &Record)> = self.records.iter().enumerate().collect();
        order.sort_by_key(|(_, record)| record.time_ns);
        let mut pairing = Pairing::default();
        for (place, (record_number, record)) in order.into_iter().enumerate() {
            pairing.add(place as u64, record_number, record)?;
        }
        check_values_unique(&pairing.operations)?;
        Ok(pairing.operations)
    }
}

#[derive(Default)]
struct Pairing {
    operations: Vec<Operation>,
    /// Index of each process's open operation; `None` after an unknown outcome.
    open: BTreeMap<u64, Option<usize>>,
}

impl Pairing {
    fn add(&mut self, place: u64, number: usize, record: &Record) -> Result<(), Error> {
        let process = record.process;
        let open = self.open.get(&process).copied();
        if open == Some(None) {
            return Err(Error::Resumed { process, record: number });
        }
        if record.kind == Kind::Invoke {
            if open.is_some() {
                return Err(Error::Overlap { process, record: number });
            }
            self.open.insert(process, Some(self.operations.len()));
            let op = record.op.clone();
            self.operations.push(Operation {
                process,
                op,
                called: place,
                returned: u64::MAX,
                outcome: Outcome::Unknown,
            });
            return Ok(());
        }
        let Some(Some(index)) = open else {
            return Err(Error::NotBegun { process, record: number });
        };
        let begun = &mut self.operations[index];
        match record.kind {
            Kind::Ok => {
                (begun.op, begun.returned, begun.outcome) = (record.op.clone(), place, Outcome::Ok);
                self.open.remove(&process);
            }
            Kind::Fail => {
                (begun.op, begun.returned, begun.outcome) = (record.op.clone(), place, Outcome::Failed);
                self.open.remove(&process);
            }
            Kind::Info => {
                // What a transaction was about to write is known only now.
                begun.op = record.op.clone();
                self.open.insert(process, None);
            }
            Kind::Invoke => unreachable!("handled above"),
        }
        Ok(())
    }
}

fn check_values_unique(operations: &[Operation]) -> Result<(), Error> {
    let mut seen = std::collections::BTreeSet::new();
    let written = |operation: &'_ Operation| -> Vec<String> {
        match &operation.op {
            Op::Put { value, .. } | Op::Append { element: value, .. } => vec![value.clone()],
            Op::Txn(txn) => txn.writes.iter().filter_map(|write| write.value.clone()).collect(),
            _ => Vec::new(),
        }
    };
    for value in operations.iter().flat_map(written) {
        if !seen.insert(value.clone()) {
            return Err(Error::ValueReused { value });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: &str) -> Op {
        Op::Put {
            key: "k".into(),
            value: value.into(),
        }
    }

    fn get(value: Option<&str>) -> Op {
        Op::Get {
            key: "k".into(),
            value: value.map(String::from),
        }
    }

    fn history(records: &[(u64, Kind, Op)]) -> History {
        let mut history = History::new();
        for (time, (process, kind, op)) in records.iter().cloned().enumerate() {
            let record = Record {
                process,
                kind,
                time_ns: time as u64,
                node: String::new(),
                op,
                why: String::new(),
            };
            history.push(record);
        }
        history
    }

    #[test]
    fn lines_round_trip() {
        let before = history(&[
            (1, Kind::Invoke, put("a")),
            (2, Kind::Invoke, get(None)),
            (2, Kind::Ok, get(Some("a"))),
            (1, Kind::Info, put("a")),
            (
                3,
                Kind::Ok,
                Op::List {
                    key: "l".into(),
                    elements: vec!["x".into()],
                },
            ),
        ]);
        let mut lines = Vec::new();
        before.write_to(&mut lines).unwrap();
        assert!(lines.starts_with(br#"{"process":1,"kind":"invoke","time_ns":0,"f":"put","key":"k","value":"a"}"#));
        let after = History::read_from(lines.as_slice()).unwrap();
        assert_eq!(after.records(), before.records());
        assert!(matches!(
            History::read_from(b"{}".as_slice()),
            Err(Error::Parse { line: 1, .. })
        ));
    }

    #[test]
    fn pairs_outcomes_and_leaves_failures_out() {
        let operations = history(&[
            (1, Kind::Invoke, put("a")),
            (2, Kind::Invoke, put("b")),
            (3, Kind::Invoke, get(None)),
            (2, Kind::Fail, put("b")),
            (3, Kind::Ok, get(Some("a"))),
            (1, Kind::Info, put("a")),
            (2, Kind::Invoke, put("c")),
        ])
        .operations()
        .unwrap();
        let outcomes: Vec<_> = operations
            .iter()
            .map(|o| (o.process, o.called, o.returned, o.outcome))
            .collect();
        let end = u64::MAX;
        assert_eq!(
            outcomes,
            [
                (1, 0, end, Outcome::Unknown),
                (3, 2, 4, Outcome::Ok),
                (2, 6, end, Outcome::Unknown)
            ]
        );
        assert_eq!(operations[1].op, get(Some("a")));
    }

    #[test]
    fn broken_rules_are_errors() {
        let of = |records: &[(u64, Kind, Op)]| history(records).operations();
        assert!(matches!(of(&[(1, Kind::Ok, put("a"))]), Err(Error::NotBegun { .. })));
        assert!(matches!(
            of(&[(1, Kind::Invoke, put("a")), (1, Kind::Invoke, put("b"))]),
            Err(Error::Overlap { .. })
        ));
        let resumed = [
            (1, Kind::Invoke, put("a")),
            (1, Kind::Info, put("a")),
            (1, Kind::Invoke, put("b")),
        ];
        assert!(matches!(of(&resumed), Err(Error::Resumed { .. })));
        assert!(matches!(
            of(&[(1, Kind::Invoke, put("a")), (2, Kind::Invoke, put("a"))]),
            Err(Error::ValueReused { .. })
        ));
    }
}
