//! What transactional clients do next: scripts over few hot keys, so that they meet.
//!
//! Kinds of keys: `m` accounts of the bank, `t` lists, `n` counters, `f` groups of a long fork, `w` and `x` groups of write skew. A key
//! begins with the letter of its place, so that groups lie across regions.

use std::collections::{BTreeMap, BTreeSet};

use super::LETTERS;
use crate::check::{bank, counter, fork, lists, skew};
use crate::options::Workload;
use crate::rng::Rng;
use crate::txn_client::script::{Plan, Script};

/// Accounts of the bank: two under each letter.
pub const ACCOUNTS: usize = 2 * LETTERS.len();
/// Lists or counters in use at a time.
const HOT_KEYS: usize = 4;
/// Operations on a group before a new one takes its place, beside its writes.
const GROUP_READS: u64 = 8;

/// What a transaction is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theme {
    Bank,
    Lists,
    Fork,
    Counter,
    Skew,
}

/// Makes scripts for all clients.
pub struct TxnGenerator {
    themes: Vec<Theme>,
    reads: f64,
    key_operations: u64,
    operations: u64,
    tags: u64,
    fork: Group,
    skew: Group,
    keys: BTreeSet<String>,
}

/// Keys that are used together for a while.
#[derive(Default)]
struct Group {
    number: u64,
    keys: Vec<String>,
    /// Keys that nobody wrote yet.
    unwritten: Vec<String>,
    operations: u64,
}

impl Group {
    fn renew(&mut self, rng: &mut Rng, kind: u8) {
        self.number += 1;
        let mut letters = LETTERS;
        rng.shuffle(&mut letters);
        let count = rng.between(2, 3) as usize;
        let key = |letter: &char| format!("{letter}{}{}", char::from(kind), self.number);
        self.keys = letters[..count].iter().map(key).collect();
        self.unwritten.clone_from(&self.keys);
        self.operations = 0;
    }
}

impl TxnGenerator {
    pub fn new(workload: Workload, rng: &mut Rng, reads: f64, key_operations: u64) -> TxnGenerator {
        let all = [Theme::Bank, Theme::Lists, Theme::Fork, Theme::Counter, Theme::Skew];
        let themes = match workload {
            Workload::Bank => vec![Theme::Bank],
            Workload::Lists => vec![Theme::Lists],
            Workload::Fork => vec![Theme::Fork],
            Workload::Counter => vec![Theme::Counter],
            Workload::Skew => vec![Theme::Skew],
            // Few at a time, so that clients meet.
            _ => vec![*rng.pick(&all), *rng.pick(&all)],
        };
        TxnGenerator {
            themes,
            reads,
            key_operations,
            operations: 0,
            tags: 0,
            fork: Group::default(),
            skew: Group::default(),
            keys: BTreeSet::new(),
        }
    }

    pub fn next(&mut self, rng: &mut Rng) -> Script {
        self.operations += 1;
        let script = match rng.pick(&self.themes) {
            Theme::Bank => self.bank(rng),
            Theme::Lists => self.lists(rng),
            Theme::Fork => self.fork(rng),
            Theme::Counter => self.counter(rng),
            Theme::Skew => self.skew(rng),
        };
        self.keys.extend(script.reads.iter().cloned());
        if let Plan::Put { key, .. } = &script.plan {
            self.keys.insert(key.clone());
        }
        script
    }

    fn tag(&mut self) -> u64 {
        self.tags += 1;
        self.tags
    }

    fn bank(&mut self, rng: &mut Rng) -> Script {
        let mut accounts = accounts();
        if rng.chance(self.reads) {
            return read(accounts);
        }
        rng.shuffle(&mut accounts);
        accounts.truncate(2);
        let plan = Plan::Transfer {
            amount: rng.between(1, 4) as i64,
            tag: self.tag(),
        };
        write(accounts, plan)
    }

    /// A hot key of a kind that is replaced now and then.
    fn hot_keys(&self, rng: &mut Rng, kind: u8, count: usize) -> Vec<String> {
        let generation = self.operations / self.key_operations;
        let letter = |at: usize| LETTERS[at % LETTERS.len()];
        let mut keys: Vec<String> = (0..HOT_KEYS)
            .map(|at| format!("{}{}{generation}", letter(at), char::from(kind)))
            .collect();
        rng.shuffle(&mut keys);
        keys.truncate(count);
        keys
    }

    fn lists(&mut self, rng: &mut Rng) -> Script {
        let count = rng.between(1, 4) as usize;
        let keys = self.hot_keys(rng, lists::KIND, count);
        if rng.chance(self.reads) {
            return read(keys);
        }
        let mut appends = Vec::new();
        for at in 0..keys.len() {
            if at == 0 || rng.chance(0.5) {
                appends.push((at, self.tag()));
            }
        }
        write(keys, Plan::Append(appends))
    }

    fn counter(&mut self, rng: &mut Rng) -> Script {
        let keys = self.hot_keys(rng, counter::KIND, 1);
        if rng.chance(self.reads) {
            return Script {
                latest: rng.chance(0.5),
                ..read(keys)
            };
        }
        let tag = self.tag();
        write(keys, Plan::Increment { tag })
    }

    fn fork(&mut self, rng: &mut Rng) -> Script {
        let over = self.fork.unwritten.is_empty() && self.fork.operations >= GROUP_READS;
        if over || self.fork.number == 0 {
            self.fork.renew(rng, fork::KIND);
        }
        self.fork.operations += 1;
        if self.fork.unwritten.is_empty() || rng.chance(0.7) {
            return read(self.fork.keys.clone());
        }
        let key = self.fork.unwritten.swap_remove(rng.below(self.fork.unwritten.len()));
        write(Vec::new(), Plan::Put { key, tag: self.tag() })
    }

    fn skew(&mut self, rng: &mut Rng) -> Script {
        if self.skew.number == 0 || self.skew.operations >= GROUP_READS {
            let kind = *rng.pick(&[skew::OPEN, skew::LOCKED]);
            self.skew.renew(rng, kind);
        }
        self.skew.operations += 1;
        let mut keys = self.skew.keys.clone();
        rng.shuffle(&mut keys);
        let locked = crate::check::kind_of(&keys[0]) == skew::LOCKED;
        Script {
            lock_reads: locked,
            ..write(keys, Plan::Claim { tag: self.tag() })
        }
    }

    /// Reads of every key used so far, of those together that belong together.
    pub fn final_reads(&self) -> Vec<Script> {
        let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for key in &self.keys {
            match crate::check::kind_of(key) {
                bank::KIND => drop(groups.insert("m", accounts())),
                _ => groups.entry(&key[1..]).or_default().push(key.clone()),
            }
        }
        groups.into_values().map(read).collect()
    }
}

fn accounts() -> Vec<String> {
    let account = |at: usize| {
        format!(
            "{}{}{}",
            LETTERS[at % LETTERS.len()],
            char::from(bank::KIND),
            at / LETTERS.len()
        )
    };
    (0..ACCOUNTS).map(account).collect()
}

fn read(reads: Vec<String>) -> Script {
    Script {
        reads,
        plan: Plan::Read,
        lock_reads: false,
        latest: false,
    }
}

fn write(reads: Vec<String>, plan: Plan) -> Script {
    Script {
        lock_reads: true,
        plan,
        ..read(reads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_at_the_end() {
        let mut rng = Rng::stream(1, "workload");
        for workload in [
            Workload::Bank,
            Workload::Lists,
            Workload::Fork,
            Workload::Counter,
            Workload::Skew,
        ] {
            let mut generator = TxnGenerator::new(workload, &mut rng, 0.5, 10);
            let mut used = BTreeSet::new();
            for _ in 0..200 {
                let script = generator.next(&mut rng);
                assert!(!script.latest || (script.reads.len() == 1 && script.plan == Plan::Read));
                used.extend(script.reads);
                if let Plan::Put { key, .. } = script.plan {
                    assert!(used.insert(key.clone()) || used.contains(&key));
                }
            }
            let read: BTreeSet<String> = generator.final_reads().into_iter().flat_map(|script| script.reads).collect();
            assert!(used.is_subset(&read), "{workload:?}: {used:?} but {read:?}");
        }
    }

    #[test]
    fn a_fork_writes_each_key_once() {
        let mut rng = Rng::stream(2, "workload");
        let mut generator = TxnGenerator::new(Workload::Fork, &mut rng, 0.5, 10);
        let mut written = BTreeSet::new();
        for _ in 0..300 {
            if let Plan::Put { key, .. } = generator.next(&mut rng).plan {
                assert!(written.insert(key.clone()), "{key} twice");
            }
        }
        assert!(written.len() > 20);
    }
}
