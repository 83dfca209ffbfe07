//! Looks at what transactions left in the stores: every transaction is committed on all its keys at one timestamp, or on none.

use std::collections::{BTreeMap, BTreeSet};

use base::Ts;
use bytes::Bytes;
use engine::{Cf, keys};
use txn::{Key, Lock, Write, WriteKind};

use super::{Failure, World};
use crate::history::{Op, Outcome, Txn};

/// What the stores hold of one transaction, by user key.
#[derive(Default)]
struct Left {
    committed: BTreeMap<Bytes, Ts>,
    rolled_back: BTreeSet<Bytes>,
    locked: BTreeSet<Bytes>,
}

impl World {
    /// Checks the records of all transactions, as leaders hold them, against each other and against what clients were told.
    pub fn check_records(&self) -> Result<(), Failure> {
        if !self.is_transactional() {
            return Ok(());
        }
        let mut transactions: BTreeMap<Ts, Left> = BTreeMap::new();
        for region in self.region_ids() {
            let leader = self.leader(region).map(|(store, _)| store);
            let replica = leader.and_then(|store| self.replica(store, region));
            for (cf, key, value) in replica.into_iter().flat_map(|replica| replica.pairs) {
                let key = keys::region_key(&key);
                gather(&mut transactions, cf, &key, &value).map_err(|error| wrong(format!("{cf:?} {key:?}: {error}")))?;
            }
        }
        transactions
            .iter()
            .try_for_each(|(start_ts, left)| check_left(*start_ts, left))?;
        for operation in self.history.all_operations()? {
            if let Op::Txn(txn) = &operation.op
                && let Some(start_ts) = txn.start_ts
            {
                let none = Left::default();
                let left = transactions.get(&Ts(start_ts)).unwrap_or(&none);
                check_told(txn, operation.outcome, left)?;
            }
        }
        Ok(())
    }
}

fn gather(transactions: &mut BTreeMap<Ts, Left>, cf: Cf, key: &Bytes, value: &Bytes) -> txn::Result<()> {
    match cf {
        Cf::Lock => {
            let lock = Lock::decode(value)?;
            if !lock.is_pessimistic() {
                let key = Key::from_encoded(key.clone()).user()?;
                transactions.entry(lock.start_ts).or_default().locked.insert(key);
            }
        }
        Cf::Write => {
            let ((key, commit_ts), write) = (Key::split(key)?, Write::decode(value)?);
            let key = key.user()?;
            if write.rolls_back() {
                transactions.entry(commit_ts).or_default().rolled_back.insert(key.clone());
            }
            if write.kind != WriteKind::Rollback {
                let left = transactions.entry(write.start_ts).or_default();
                left.committed.insert(key, commit_ts);
            }
        }
        Cf::Default | Cf::Local => {}
    }
    Ok(())
}

fn check_left(start_ts: Ts, left: &Left) -> Result<(), Failure> {
    let mut times: BTreeSet<Ts> = left.committed.values().copied().collect();
    if times.len() > 1 {
        return Err(wrong(format!("transaction {start_ts} is committed at {times:?}")));
    }
    if let Some(commit_ts) = times.pop_first().filter(|commit_ts| *commit_ts <= start_ts) {
        return Err(wrong(format!("transaction {start_ts} is committed at {commit_ts}")));
    }
    match left.rolled_back.first() {
        Some(key) if !left.committed.is_empty() => {
            let committed = left.committed.keys();
            Err(wrong(format!(
                "transaction {start_ts} is rolled back on {key:?}, committed on {committed:?}"
            )))
        }
        _ => Ok(()),
    }
}

/// Holds what is left of a transaction against what its client was told.
fn check_told(txn: &Txn, outcome: Outcome, left: &Left) -> Result<(), Failure> {
    let start_ts = txn.start_ts.unwrap_or_default();
    let missing = txn.writes.iter().map(|write| Bytes::copy_from_slice(write.key.as_bytes()));
    let missing: Vec<_> = missing
        .filter(|key| !left.committed.contains_key(key) && !left.locked.contains(key))
        .collect();
    let commit_ts = left.committed.values().next().map(|ts| ts.0);
    match outcome {
        Outcome::Failed if commit_ts.is_some() => Err(wrong(format!("transaction {start_ts} failed, and is committed"))),
        Outcome::Ok if commit_ts.is_some() && txn.commit_ts.is_some() && commit_ts != txn.commit_ts => {
            let told = txn.commit_ts;
            Err(wrong(format!(
                "transaction {start_ts} is committed at {commit_ts:?}, its client was told {told:?}"
            )))
        }
        Outcome::Ok if !missing.is_empty() => Err(wrong(format!("transaction {start_ts} is committed, but not on {missing:?}"))),
        Outcome::Unknown if commit_ts.is_some() && !missing.is_empty() => Err(wrong(format!(
            "transaction {start_ts} is committed in part, not on {missing:?}"
        ))),
        _ => Ok(()),
    }
}

fn wrong(what: String) -> Failure {
    Failure::Records { what }
}
