//! What clients do next: operations on few hot keys, which are replaced by fresh ones after a while.
//!
//! A key is the letter of its place in the key space, its kind (`r` register, `l` list) and how often it was replaced: `br7`.

pub mod txn;

use std::collections::{BTreeMap, BTreeSet};

use crate::history::Op;
use crate::options::Workload;
use crate::rng::Rng;

/// First letters of keys; regions are cut between them.
pub const LETTERS: [char; 4] = ['a', 'b', 'c', 'd'];

/// Makes operations for all clients, so that they meet on the same keys.
pub struct Generator {
    workload: Workload,
    reads: f64,
    value_bytes: usize,
    key_operations: u64,
    /// Operations so far by letter and kind.
    counts: BTreeMap<(char, char), u64>,
    values: u64,
    keys: BTreeSet<String>,
}

impl Generator {
    pub fn new(workload: Workload, reads: f64, value_bytes: usize, key_operations: u64) -> Generator {
        Generator {
            workload,
            reads,
            value_bytes,
            key_operations,
            counts: BTreeMap::new(),
            values: 0,
            keys: BTreeSet::new(),
        }
    }

    /// An operation for `client` on a key that begins with `letter`.
    pub fn next(&mut self, rng: &mut Rng, client: u64, letter: char) -> Op {
        let list = match self.workload {
            Workload::Register => false,
            Workload::Append => true,
            _ => client % 2 == 1,
        };
        let kind = if list { 'l' } else { 'r' };
        let count = self.counts.entry((letter, kind)).or_default();
        let key = format!("{letter}{kind}{}", *count / self.key_operations);
        *count += 1;
        self.keys.insert(key.clone());
        match (rng.chance(self.reads), list) {
            (true, true) => Op::List {
                key,
                elements: Vec::new(),
            },
            (true, false) => Op::Get { key, value: None },
            (false, true) => Op::Append {
                key,
                element: self.value(0),
            },
            (false, false) if rng.chance(0.1) => Op::Delete { key },
            (false, false) => Op::Put {
                key,
                value: self.value(self.value_bytes),
            },
        }
    }

    /// Notes a key that was used without being made here.
    pub fn know(&mut self, key: &str) {
        self.keys.insert(key.to_owned());
    }

    /// Reads of every key used so far.
    pub fn final_reads(&self) -> Vec<Op> {
        let read = |key: &String| match key.as_bytes()[1] {
            b'l' => Op::List {
                key: key.clone(),
                elements: Vec::new(),
            },
            _ => Op::Get {
                key: key.clone(),
                value: None,
            },
        };
        self.keys.iter().map(read).collect()
    }

    /// A value like no other.
    fn value(&mut self, bytes: usize) -> String {
        self.values += 1;
        format!("{}{:.<bytes$}", self.values, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_unique_and_keys_are_replaced() {
        let mut rng = Rng::stream(1, "workload");
        let mut generator = Generator::new(Workload::All, 0.5, 4, 10);
        let ops: Vec<_> = (0..100)
            .map(|n| generator.next(&mut rng, n % 4, LETTERS[n as usize % 2]))
            .collect();
        let values: Vec<_> = ops
            .iter()
            .filter_map(|op| match op {
                Op::Put { value, .. } | Op::Append { element: value, .. } => Some(value.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(values.iter().collect::<BTreeSet<_>>().len(), values.len());
        assert!(
            ops.iter().any(|op| op.key() == "ar0") && ops.iter().any(|op| op.key() == "bl4"),
            "{ops:?}"
        );
        let used: BTreeSet<_> = ops.iter().map(Op::key).collect();
        let reads = generator.final_reads();
        assert_eq!(used, reads.iter().map(Op::key).collect());
        assert!(reads.iter().all(|op| !op.is_write()));
    }
}
