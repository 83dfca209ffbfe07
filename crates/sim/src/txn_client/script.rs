//! [`Script`]: what one transaction is to do, and [`Mode`]: which of the protocol's ways it takes.

use base::Ts;
use txn::command::Wait;

use crate::history::{Read, Txn, Write};

/// Balance of an account that is not there.
pub const BALANCE: i64 = 10;

/// Reads keys, then writes what follows from what it read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    pub reads: Vec<String>,
    pub plan: Plan,
    /// Keys are locked as they are read (pessimistic), or at least by the prewrite (optimistic): what was read holds until the commit.
    pub lock_reads: bool,
    /// Reads the latest version rather than a snapshot. Only of a single key, without writing.
    pub latest: bool,
}

/// `tag`s make values unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    Read,
    /// From the first key's account to the second's, if there is enough.
    Transfer {
        amount: i64,
        tag: u64,
    },
    /// Elements for lists, by the place of their key among those read.
    Append(Vec<(usize, u64)>),
    /// Adds one to the first key's counter.
    Increment {
        tag: u64,
    },
    /// Takes the first key if none of those read is taken.
    Claim {
        tag: u64,
    },
    /// Writes without having read.
    Put {
        key: String,
        tag: u64,
    },
}

/// The number that a value begins with.
pub fn number(value: &str) -> Option<i64> {
    value.split(' ').next()?.parse().ok()
}

/// Balance of an account by what was read of it.
pub fn balance(value: Option<&str>) -> Option<i64> {
    value.map_or(Some(BALANCE), number)
}

/// Elements of a list by what was read of it.
pub fn elements(value: Option<&str>) -> Vec<&str> {
    value.map_or(Vec::new(), |value| value.split(',').collect())
}

impl Script {
    /// The transaction at its invocation: nothing is known but what it will read.
    pub fn invocation(&self) -> Txn {
        let read = |key: &String| Read {
            key: key.clone(),
            ..Read::default()
        };
        Txn {
            reads: self.reads.iter().map(read).collect(),
            ..Txn::default()
        }
    }

    /// What to write after these reads.
    pub fn writes(&self, reads: &[Read]) -> Vec<Write> {
        let found = |at: usize| reads[at].value.as_deref();
        let write = |at: usize, value: Option<String>| Write {
            key: reads[at].key.clone(),
            value,
        };
        let account = |at: usize, balance: i64, tag: u64| {
            // The usual balance is no record at all, so that accounts are deleted too.
            write(at, (balance != BALANCE).then(|| format!("{balance} #{tag}.{at}")))
        };
        match &self.plan {
            Plan::Read => Vec::new(),
            &Plan::Transfer { amount, tag } => match (balance(found(0)), balance(found(1))) {
                (Some(from), Some(to)) if from >= amount => {
                    vec![account(0, from - amount, tag), account(1, to + amount, tag)]
                }
                _ => Vec::new(),
            },
            Plan::Append(appends) => {
                let append = |&(at, element): &(usize, u64)| {
                    let before = found(at).map_or(String::new(), |list| format!("{list},"));
                    write(at, Some(format!("{before}{element}")))
                };
                appends.iter().map(append).collect()
            }
            Plan::Increment { tag } => {
                let count = found(0).and_then(number).unwrap_or(0) + 1;
                vec![write(0, Some(format!("{count} #{tag}")))]
            }
            Plan::Claim { tag } => {
                let free = reads.iter().all(|read| read.value.is_none());
                free.then(|| write(0, Some(format!("taken #{tag}")))).into_iter().collect()
            }
            Plan::Put { key, tag } => vec![Write {
                key: key.clone(),
                value: Some(format!("set #{tag}")),
            }],
        }
    }
}

/// Which way a transaction takes.
#[derive(Clone, Debug)]
pub struct Mode {
    pub pessimistic: bool,
    pub async_commit: bool,
    pub one_phase: bool,
    /// Prewrites the primary before the other keys rather than beside them.
    pub primary_first: bool,
    pub ttl_ms: u64,
    pub heartbeat: bool,
    /// Async commit and one phase: takes a timestamp before the prewrite, so that nobody who began later commits below it.
    pub linearizable: bool,
    /// Milliseconds after `start_ts` above which async commit and one phase must not commit; zero for no bound.
    pub commit_within_ms: u64,
    /// Pessimistic: grants over newer records (force-lock).
    pub allow_conflict: bool,
    pub wait: Wait,
    /// Mean pause between two steps.
    pub pause: std::time::Duration,
    /// Passes a lock whose transaction's fate is known without waiting until it is resolved.
    pub pass_locks: bool,
}

impl Mode {
    /// Bound of the commit timestamp.
    pub fn commit_bound(&self, start_ts: Ts) -> Ts {
        match self.commit_within_ms {
            0 => Ts(0),
            within => Ts(start_ts.0 + (within << Ts::LOGICAL_BITS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(reads: &[&str], plan: Plan) -> Script {
        Script {
            reads: reads.iter().map(|key| (*key).into()).collect(),
            plan,
            lock_reads: false,
            latest: false,
        }
    }

    fn written(script: &Script, found: &[Option<&str>]) -> Vec<(String, Option<String>)> {
        let mut reads = script.invocation().reads;
        for (read, found) in reads.iter_mut().zip(found) {
            read.value = found.map(String::from);
        }
        let pairs = script.writes(&reads).into_iter().map(|write| (write.key, write.value));
        pairs.collect()
    }

    #[test]
    fn transfers_keep_the_sum() {
        let transfer = script(&["am0", "bm0"], Plan::Transfer { amount: 3, tag: 5 });
        let pair = |key: &str, value: Option<&str>| (key.to_owned(), value.map(String::from));
        assert_eq!(
            written(&transfer, &[None, Some("7 #1.0")]),
            [pair("am0", Some("7 #5.0")), pair("bm0", None)]
        );
        assert_eq!(written(&transfer, &[Some("2 #1.0"), None]), []);
    }

    #[test]
    fn values_follow_from_what_was_read() {
        let first = |script: &Script, found: &[Option<&str>]| written(script, found)[0].1.clone().unwrap();
        let append = script(&["at0"], Plan::Append(vec![(0, 9)]));
        assert_eq!(first(&append, &[None]), "9");
        assert_eq!(first(&append, &[Some("1,2")]), "1,2,9");
        let increment = script(&["an0"], Plan::Increment { tag: 3 });
        assert_eq!(first(&increment, &[None]), "1 #3");
        assert_eq!(first(&increment, &[Some("41 #2")]), "42 #3");
        let claim = script(&["aw0", "bw0"], Plan::Claim { tag: 3 });
        assert_eq!(first(&claim, &[None, None]), "taken #3");
        assert_eq!(written(&claim, &[None, Some("taken #1")]), []);
    }
}
