//! Reads of a transaction: of its snapshot, of the latest version, and by locking.

use base::Ts;
use bytes::Bytes;
use txn::command::{LockKey, LockResult, PessimisticLock};
use txn::lock::Locked;
use txn::mvcc::ReadOptions;
use txn::{Command, Error, Key, Output};

use super::{Stop, Transaction, locked_error, output};
use crate::history::{Read, Write};
use crate::message::{TxnAct, TxnReply};
use crate::txn_client::program::join_all;
use crate::txn_client::resolve::{Fate, carry_out, fate_of};
use crate::txn_client::script::Script;
use crate::txn_client::session::{Attempted, Trouble};

/// A range is read at once rather than key by key from this many keys on.
const SCAN_KEYS_MIN: usize = 4;

impl Transaction {
    /// Reads the script's keys as of `start_ts`.
    pub(super) async fn read_snapshot(&self, script: &Script) -> Result<(), Stop> {
        let scan = script.reads.len() >= SCAN_KEYS_MIN && self.session.draw(|rng| rng.chance(0.5));
        let values = if scan {
            self.scan(&script.reads).await?
        } else if self.mode.pause.is_zero() {
            let gets = script
                .reads
                .iter()
                .map(|key| self.get(Key::from_user(key.as_bytes()), self.start_ts));
            join_all(gets).await.into_iter().collect::<Attempted<Vec<_>>>()?
        } else {
            let mut values = Vec::new();
            for key in &script.reads {
                values.push(self.get(Key::from_user(key.as_bytes()), self.start_ts).await?);
                self.session.pause(self.mode.pause).await;
            }
            values
        };
        for (read, value) in self.progress.borrow_mut().txn.reads.iter_mut().zip(values) {
            note(read, value.as_ref(), Some(self.start_ts));
        }
        Ok(())
    }

    /// Reads one key's latest version, without a timestamp.
    pub(super) async fn read_latest(&self, key: &str) -> Result<(), Stop> {
        let value = self.get(Key::from_user(key.as_bytes()), Ts::MAX).await?;
        note(&mut self.progress.borrow_mut().txn.reads[0], value.as_ref(), None);
        Ok(())
    }

    fn options(&self, ts: Ts) -> ReadOptions {
        ReadOptions {
            bypass_locks: self.bypass.borrow().clone(),
            access_locks: self.access.borrow().clone(),
            ..ReadOptions::snapshot(ts)
        }
    }

    async fn get(&self, key: Key, ts: Ts) -> Attempted<Option<Bytes>> {
        let mut failures = 0;
        loop {
            let options = self.options(ts);
            let act = || TxnAct::Get {
                key: key.clone(),
                options: options.clone(),
            };
            match self.session.call(&key, act).await {
                Ok(TxnReply::Value(value)) => return Ok(value),
                Ok(other) => panic!("a get was answered with {other:?}"),
                Err(trouble) => failures = self.get_past(trouble, ts, failures).await?,
            }
        }
    }

    /// Values of `keys` out of one scan over all of them, region by region.
    async fn scan(&self, keys: &[String]) -> Attempted<Vec<Option<Bytes>>> {
        let Some(last) = keys.iter().max() else {
            return Ok(Vec::new());
        };
        let end = Key::from_user(&[last.as_bytes(), &[0]].concat()).encoded().clone();
        let keys: Vec<Key> = keys.iter().map(|key| Key::from_user(key.as_bytes())).collect();
        let first = keys.iter().min().expect("as many as above");
        let (mut found, mut from, mut failures) = (Vec::new(), first.clone(), 0);
        while *from.encoded() < end {
            let options = self.options(self.start_ts);
            let act = || TxnAct::Scan {
                start: from.encoded().clone(),
                end: end.clone(),
                options: options.clone(),
            };
            match self.session.call(&from, act).await {
                Ok(TxnReply::Pairs(pairs, until)) => {
                    found.extend(pairs);
                    from = Key::from_encoded(until);
                }
                Ok(other) => panic!("a scan was answered with {other:?}"),
                Err(trouble) => failures = self.get_past(trouble, self.start_ts, failures).await?,
            }
        }
        let value = |key: &Key| found.iter().find(|(at, _)| at == key).map(|(_, value)| value.clone());
        Ok(keys.iter().map(value).collect())
    }

    /// Does what a reader can do about a lock in its way; an error that is no lock comes back.
    async fn get_past(&self, trouble: Trouble, ts: Ts, failures: u32) -> Attempted<u32> {
        let Trouble::Refused(error) = &trouble else {
            return Err(trouble);
        };
        let Some(locked) = locked_error(error) else {
            return Err(trouble);
        };
        let owner = locked.lock.start_ts;
        let fate = fate_of(&self.session, locked, ts).await?;
        match fate {
            Fate::Running { passable: true } => self.bypass.borrow_mut().push(owner),
            Fate::Running { passable: false } => {
                self.session.back_off(failures, "locked by a running transaction").await?;
            }
            Fate::Committed(_) | Fate::RolledBack if !self.mode.pass_locks => carry_out(&self.session, locked, fate).await?,
            Fate::Committed(commit_ts) if commit_ts <= ts => {
                self.access.borrow_mut().push(owner);
                self.carry_out_beside(locked.clone(), fate);
            }
            Fate::Committed(_) | Fate::RolledBack => {
                self.bypass.borrow_mut().push(owner);
                self.carry_out_beside(locked.clone(), fate);
            }
        }
        Ok(failures + 1)
    }

    fn carry_out_beside(&self, locked: Locked, fate: Fate) {
        let session = self.session.afresh();
        self.session
            .port
            .spawn(async move { drop(carry_out(&session, &locked, fate).await) });
    }

    /// Waits for, or decides the fate of, a lock that keeps the transaction from writing.
    pub(super) async fn clear(&self, locked: &Locked, failures: u32) -> Attempted<()> {
        match fate_of(&self.session, locked, Ts(0)).await? {
            Fate::Running { .. } => self.session.back_off(failures, "locked by a running transaction").await,
            fate => carry_out(&self.session, locked, fate).await,
        }
    }

    /// Locks the script's keys one after the other, reading each as it is locked.
    pub(super) async fn read_locking(&mut self, script: &Script) -> Result<(), Stop> {
        for (at, key) in script.reads.iter().enumerate() {
            let (found, ts) = self.lock(Key::from_user(key.as_bytes())).await?;
            note(&mut self.progress.borrow_mut().txn.reads[at], found.value.as_ref(), Some(ts));
            self.session.pause(self.mode.pause).await;
        }
        Ok(())
    }

    /// Locks what is to be written and was not locked before.
    pub(super) async fn lock_for_writes(&mut self, writes: &[Write]) -> Result<(), Stop> {
        for write in writes {
            let key = Key::from_user(write.key.as_bytes());
            if !self.locked.contains(&key) {
                self.lock(key).await?;
            }
        }
        Ok(())
    }

    /// Locks a key; what is found there, and the time as of which it is the latest.
    async fn lock(&mut self, key: Key) -> Result<(LockResult, Ts), Stop> {
        let is_first_lock = self.locked.is_empty();
        self.locked.push(key.clone());
        let primary = self.primary.get_or_insert_with(|| key.clone()).clone();
        let mut for_update_ts = self.start_ts.max(self.for_update_ts);
        let mut failures = 0;
        loop {
            let command = self.lock_command(&key, &primary, for_update_ts, is_first_lock)?;
            let act = |_: &[Key], _: bool| TxnAct::Command(Command::PessimisticLock(command.clone()));
            let answers = self.session.call_all(vec![key.clone()], act).await?;
            let error = match answers.into_iter().next().expect("one key makes one request").result {
                Ok(reply) => {
                    let Output::PessimisticLocked(mut results) = output(reply) else {
                        panic!("a pessimistic lock was answered with something else");
                    };
                    let found = results.pop().expect("one result for one key");
                    let ts = for_update_ts.max(found.conflict_ts);
                    self.for_update_ts = self.for_update_ts.max(ts);
                    self.overtaken |= found.conflict_ts.is_some();
                    if is_first_lock {
                        self.begin_heartbeats(primary);
                    }
                    return Ok((found, ts));
                }
                Err(error) => error,
            };
            failures += 1;
            match &*error {
                Error::WriteConflict { .. } => {
                    self.session.back_off(0, "conflicts again and again").await?;
                    for_update_ts = self.session.timestamp().await?;
                }
                Error::Locked(locked) => self.clear(locked, failures).await?,
                _ => return Err(Stop::Failed(error.to_string())),
            }
        }
    }

    fn lock_command(&self, key: &Key, primary: &Key, for_update_ts: Ts, is_first_lock: bool) -> Result<PessimisticLock, Stop> {
        let primary = primary.user().map_err(|error| Stop::Failed(error.to_string()))?;
        Ok(PessimisticLock {
            keys: vec![LockKey {
                key: key.clone(),
                should_not_exist: false,
            }],
            primary,
            start_ts: self.start_ts,
            ttl_ms: self.ttl_from_start(),
            for_update_ts,
            is_first_lock,
            wait: self.mode.wait,
            return_values: true,
            check_existence: false,
            lock_only_if_exists: false,
            min_commit_ts: Ts(for_update_ts.0 + 1),
            allow_conflict: self.mode.allow_conflict,
            resource_group_tag: Bytes::new(),
        })
    }
}

fn note(read: &mut Read, value: Option<&Bytes>, ts: Option<Ts>) {
    read.value = value.map(|value| String::from_utf8_lossy(value).into_owned());
    read.ts = ts.map(|ts| ts.0);
}
