//! What a command does: a pure function over a snapshot that returns the modifications it wants.
//!
//! The caller holds the latches of the command's keys from before the snapshot until the modifications are applied, so what an action
//! reads of its keys stays true until then.

mod collect;
mod commit;
mod lock;
mod prewrite;
mod rollback;
mod status;
mod sweep;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use base::Ts;
use bytes::Bytes;
use engine::Cf;
use engine::kv::{Modify, RegionSnapshot};

use crate::SHORT_VALUE_MAX;
use crate::command::{Command, Output, ResolveLock};
use crate::concurrency::{Concurrency, Guard};
use crate::error::Result;
use crate::key::Key;
use crate::lock::Lock;
use crate::mvcc::Reader;
use crate::write::{Write, WriteKind};

/// What an action may look at.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Of the command's region.
    pub snapshot: &'a dyn RegionSnapshot,
    pub concurrency: &'a Concurrency,
    /// Pessimistic locks kept in memory that the command may meet; they count as if they stood in the family lock.
    pub memory: &'a BTreeMap<Key, Lock>,
    /// Keep new pessimistic locks in memory too.
    pub in_memory_pessimistic: bool,
}

/// A lock that is gone once the changes are applied: who waits for it may wake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    pub key: Key,
    /// Of the transaction that held it.
    pub start_ts: Ts,
    /// Set if it went by a commit.
    pub commit_ts: Option<Ts>,
}

/// What an action wants.
#[derive(Debug)]
#[must_use]
pub struct Outcome {
    /// To be replicated as one entry; empty if there is nothing to write.
    pub changes: Vec<Modify>,
    /// Pessimistic locks to keep in memory, or to drop there, once the changes are applied.
    pub memory: Vec<(Key, Option<Lock>)>,
    /// To be dropped once the changes are applied or have failed.
    pub guard: Option<Guard>,
    pub output: Output,
    pub released: Vec<Released>,
    /// What is left of the command, to be run like a command of its own, latches and snapshot anew; the answer is the last one's.
    pub next: Option<Command>,
}

/// Runs a command. An `Error::Locked` from a pessimistic lock means that it may wait for the lock.
pub fn run(command: &Command, input: &Input) -> Result<Outcome> {
    let mut action = Action::new(input);
    let output = action.run(command)?;
    Ok(Outcome {
        changes: action.changes,
        memory: action.memory,
        guard: action.guard,
        output,
        released: action.released,
        next: action.next,
    })
}

/// An action under way: what it reads, and what it wants so far. Each command's part is in a file of its own.
struct Action<'a> {
    input: &'a Input<'a>,
    reader: Reader<'a>,
    changes: Vec<Modify>,
    memory: Vec<(Key, Option<Lock>)>,
    guard: Option<Guard>,
    released: Vec<Released>,
    next: Option<Command>,
}

impl<'a> Action<'a> {
    fn new(input: &'a Input<'a>) -> Action<'a> {
        let reader = Reader {
            snapshot: input.snapshot,
            memory: input.memory,
        };
        Action {
            input,
            reader,
            changes: Vec::new(),
            memory: Vec::new(),
            guard: None,
            released: Vec::new(),
            next: None,
        }
    }

    fn run(&mut self, command: &Command) -> Result<Output> {
        match command {
            Command::Prewrite(prewrite) => self.prewrite(prewrite),
            Command::Commit(commit) => self.commit(commit),
            Command::Cleanup {
                key,
                start_ts,
                current_ts,
            } => self.cleanup(key, *start_ts, *current_ts),
            Command::Rollback { keys, start_ts } => self.rollback(keys, *start_ts),
            Command::PessimisticLock(lock) => self.pessimistic_lock(lock),
            Command::PessimisticRollback {
                keys,
                start_ts,
                for_update_ts,
                scan,
            } => self.pessimistic_rollback(keys, *start_ts, *for_update_ts, scan.as_ref()),
            Command::HeartBeat {
                primary,
                start_ts,
                advise_ttl_ms,
                min_commit_ts,
            } => self.heart_beat(primary, *start_ts, *advise_ttl_ms, *min_commit_ts),
            Command::CheckTxnStatus(check) => self.check_txn_status(check),
            Command::CheckSecondaryLocks { keys, start_ts } => self.check_secondary_locks(keys, *start_ts),
            Command::ResolveLock(ResolveLock::Lite {
                start_ts,
                commit_ts,
                keys,
            }) => self.resolve_keys(keys, *start_ts, *commit_ts),
            Command::ResolveLock(ResolveLock::Region { txns, found, scan }) => self.resolve_region(txns, found, scan.as_ref()),
            Command::Collect { safe_point, keys, scan } => self.collect(*safe_point, keys, scan.as_ref()),
            Command::DeleteRange { start, end, notify_only } => self.delete_range(start, end, *notify_only),
        }
    }

    /// The lock on `key`, if it is the transaction's.
    fn own_lock(&self, key: &Key, start_ts: Ts) -> Result<Option<Lock>> {
        Ok(self.reader.lock(key)?.filter(|lock| lock.start_ts == start_ts))
    }

    /// Puts a lock in place of the one that stands there. A pessimistic one may go to memory, or stays there.
    fn put_lock(&mut self, key: &Key, lock: Lock) {
        let in_memory = self.input.memory.contains_key(key);
        if lock.is_pessimistic() && in_memory {
            self.memory.push((key.clone(), Some(lock)));
            return;
        }
        if in_memory {
            self.memory.push((key.clone(), None));
        }
        let value = lock.encode();
        let key = key.encoded().clone();
        self.changes.push(Modify::Put {
            cf: Cf::Lock,
            key,
            value,
        });
    }

    /// Takes the lock off `key`; `commit_ts` if its transaction commits by that.
    fn unlock(&mut self, key: &Key, start_ts: Ts, commit_ts: Option<Ts>) {
        if self.input.memory.contains_key(key) {
            self.memory.push((key.clone(), None));
        } else {
            let key = key.encoded().clone();
            self.changes.push(Modify::Delete { cf: Cf::Lock, key });
        }
        self.released.push(Released {
            key: key.clone(),
            start_ts,
            commit_ts,
        });
    }

    fn put_record(&mut self, key: &Key, commit_ts: Ts, write: &Write) {
        let (key, value) = (key.at(commit_ts), write.encode());
        self.changes.push(Modify::Put {
            cf: Cf::Write,
            key,
            value,
        });
    }

    /// Writes a commit record. A record of a rollback that stands at the same timestamp stays told by a mark: only a computed `commit_ts`,
    /// which did not come from the TSO, can be another's `start_ts`.
    fn put_commit(&mut self, key: &Key, commit_ts: Ts, mut write: Write, computed: bool) -> Result<()> {
        write.overlapped_rollback = computed && self.reader.is_rolled_back(key, commit_ts)?;
        self.put_record(key, commit_ts, &write);
        Ok(())
    }

    /// Lays a value down where it does not fit into lock and record; returns it where it does.
    fn put_value(&mut self, key: &Key, start_ts: Ts, value: &Bytes) -> Option<Bytes> {
        if value.len() <= SHORT_VALUE_MAX {
            return Some(value.clone());
        }
        self.changes.push(Modify::Put {
            cf: Cf::Default,
            key: key.at(start_ts),
            value: value.clone(),
        });
        None
    }

    /// The newest put or delete, given the newest record of any kind.
    fn newest_version(&self, key: &Key, newest: Option<&(Ts, Write)>) -> Result<Option<(Ts, Write)>> {
        match newest {
            None => Ok(None),
            Some((_, write)) if write.is_version() => Ok(newest.cloned()),
            Some((ts, _)) => self.reader.version(key, Ts(ts.0.saturating_sub(1))),
        }
    }

    /// Deletes all versions and locks of a range.
    fn delete_range(&mut self, start: &Bytes, end: &Bytes, notify_only: bool) -> Result<Output> {
        if notify_only {
            return Ok(Output::Done);
        }
        for cf in Cf::DATA {
            self.changes.push(Modify::DeleteRange {
                cf,
                start: start.clone(),
                end: end.clone(),
            });
        }
        let inside = |key: &Key| key.encoded() >= start && (end.is_empty() || key.encoded() < end);
        let gone = self.input.memory.keys().filter(|key| inside(key));
        self.memory.extend(gone.map(|key| (key.clone(), None)));
        Ok(Output::Done)
    }
}

/// Whether the newest version is one that holds a value.
fn exists(version: Option<&(Ts, Write)>) -> bool {
    version.is_some_and(|(_, write)| write.kind == WriteKind::Put)
}
