//! The two phases, and the ways that spare one of them: async commit, and one phase.

use base::Ts;
use bytes::Bytes;
use txn::command::{Assertion, AssertionLevel, Commit, Mutation, PessimisticCheck, Prewrite, Prewritten};
use txn::{Command, Error, Key, Output};

use super::{Stop, Transaction, output, unknown};
use crate::message::TxnAct;
use crate::planted::{self, ClientBug};
use crate::txn_client::session::{Session, Trouble};

/// How this transaction commits.
#[derive(Clone, Copy)]
struct Way {
    async_commit: bool,
    one_phase: bool,
    floor: Ts,
}

impl Transaction {
    pub(super) async fn commit(&mut self) -> Result<(), Stop> {
        let keys: Vec<Key> = self.mutations.keys().cloned().collect();
        let primary = match &self.primary {
            Some(primary) => primary.clone(),
            None => self.session.draw(|rng| rng.pick(&keys).clone()),
        };
        self.primary = Some(primary.clone());
        let way = self.way(&keys).await?;
        self.progress.borrow_mut().may_commit = way.async_commit || way.one_phase;
        if self.locked.is_empty() {
            self.begin_heartbeats(primary.clone());
        }
        let mut first = Vec::new();
        if self.mode.primary_first && !way.one_phase {
            first = self.prewrite(vec![primary.clone()], way).await?;
        }
        let others = keys
            .iter()
            .filter(|key| first.is_empty() || **key != primary)
            .cloned()
            .collect();
        let mut answers = self.prewrite(others, way).await?;
        answers.extend(first);
        let one_phase = answers
            .iter()
            .map(|answer| answer.one_phase_commit_ts)
            .max()
            .unwrap_or_default();
        if one_phase.is_some() {
            self.progress.borrow_mut().txn.commit_ts = Some(one_phase.0);
            return Ok(());
        }
        if way.async_commit && answers.iter().all(|answer| answer.min_commit_ts.is_some()) {
            return self.finish_async(keys, &answers);
        }
        self.session.pause(self.mode.pause).await;
        match planted::on(ClientBug::SecondaryBeforePrimary) {
            true => self.commit_wrongly(primary, keys).await,
            false => self.commit_primary(primary, keys).await,
        }
    }

    async fn way(&self, keys: &[Key]) -> Result<Way, Stop> {
        let (async_commit, one_phase) = (
            self.mode.async_commit,
            self.mode.one_phase && self.session.is_one_region(keys),
        );
        let mut floor = self.start_ts.max(self.for_update_ts);
        // The record that overtook a lock may be of an async commit, one above what the placement driver gave. Built upon without a
        // timestamp of its own, the next would be two above, and so on: above transactions yet to begin.
        if (self.mode.linearizable || self.overtaken) && (async_commit || one_phase) {
            floor = self.session.timestamp().await?;
        }
        Ok(Way {
            async_commit,
            one_phase,
            floor: Ts(floor.0 + 1),
        })
    }

    /// Prewrites these keys; what every region answered.
    async fn prewrite(&self, keys: Vec<Key>, way: Way) -> Result<Vec<Prewritten>, Stop> {
        let (mut left, mut done, mut failures) = (keys, Vec::new(), 0);
        let all = left.len();
        while !left.is_empty() {
            let act = |keys: &[Key], is_retry: bool| {
                let one_phase = way.one_phase && keys.len() == all;
                let is_retry = is_retry || failures > 0;
                TxnAct::Command(Command::Prewrite(self.prewrite_command(keys, way, one_phase, is_retry)))
            };
            let answers = self.session.call_all(std::mem::take(&mut left), act).await;
            let mut met = Vec::new();
            for answered in answers.map_err(|trouble| self.stop_prewrite(trouble))? {
                let reply = answered.result.map_err(|error| Stop::Failed(error.to_string()))?;
                let Output::Prewritten(prewritten) = output(reply) else {
                    panic!("a prewrite was answered with something else");
                };
                if prewritten.locked.is_empty() {
                    done.push(prewritten);
                } else {
                    left.extend(answered.keys);
                    met.extend(prewritten.locked);
                }
            }
            for locked in met {
                failures += 1;
                let cleared = self.clear(&locked, failures).await;
                cleared.map_err(|trouble| self.stop_prewrite(trouble))?;
            }
        }
        Ok(done)
    }

    /// Having sent prewrites that may come to be committed, giving up leaves the outcome open.
    fn stop_prewrite(&self, trouble: Trouble) -> Stop {
        match self.progress.borrow().may_commit {
            true => unknown(trouble),
            false => trouble.into(),
        }
    }

    fn prewrite_command(&self, keys: &[Key], way: Way, one_phase: bool, is_retry: bool) -> Prewrite {
        let primary = self.primary.as_ref().expect("chosen before the first prewrite");
        let user = |key: &Key| key.user().expect("encoded here");
        let mutation = |key: &Key| Mutation {
            key: key.clone(),
            op: self.mutations[key].clone(),
            assertion: Assertion::None,
            check: match self.locked.contains(key) {
                true => PessimisticCheck::Locked,
                false => PessimisticCheck::Skip,
            },
            expected_for_update_ts: None,
        };
        let others = || {
            self.mutations
                .keys()
                .filter(|key| *key != primary)
                .map(user)
                .collect::<Vec<Bytes>>()
        };
        let secondaries = match keys.contains(primary) {
            true => others(),
            false => Vec::new(),
        };
        let bounded = way.async_commit || one_phase;
        Prewrite {
            mutations: keys.iter().map(mutation).collect(),
            primary: user(primary),
            start_ts: self.start_ts,
            ttl_ms: self.ttl_from_start(),
            txn_size: self.mutations.len() as u64,
            for_update_ts: self.for_update_ts,
            min_commit_ts: way.floor,
            max_commit_ts: if bounded {
                self.mode.commit_bound(self.start_ts)
            } else {
                Ts(0)
            },
            secondaries: way.async_commit.then_some(secondaries),
            one_phase,
            skip_constraint_check: false,
            assertion_level: AssertionLevel::Off,
            is_retry,
        }
    }

    /// All keys are prewritten: committed. The locks are replaced beside whatever the client does next.
    fn finish_async(&self, keys: Vec<Key>, answers: &[Prewritten]) -> Result<(), Stop> {
        let commit_ts = answers
            .iter()
            .map(|answer| answer.min_commit_ts)
            .max()
            .expect("no prewrite without keys");
        self.progress.borrow_mut().txn.commit_ts = Some(commit_ts.0);
        self.commit_beside(keys, commit_ts);
        Ok(())
    }

    async fn commit_primary(&self, primary: Key, keys: Vec<Key>) -> Result<(), Stop> {
        loop {
            let commit_ts = self.session.timestamp().await?;
            self.progress.borrow_mut().may_commit = true;
            match commit(&self.session, vec![primary.clone()], self.start_ts, commit_ts).await {
                Ok(commit_ts) => {
                    self.progress.borrow_mut().txn.commit_ts = Some(commit_ts.0);
                    let secondaries = keys.into_iter().filter(|key| *key != primary).collect();
                    self.commit_beside(secondaries, commit_ts);
                    return Ok(());
                }
                Err(Trouble::Refused(error)) => match *error {
                    Error::CommitTsExpired { .. } => {}
                    _ => return Err(unknown(Trouble::Refused(error))),
                },
                Err(trouble) => return Err(unknown(trouble)),
            }
        }
    }

    /// The planted bug: as if every key counted for itself.
    async fn commit_wrongly(&self, primary: Key, keys: Vec<Key>) -> Result<(), Stop> {
        let commit_ts = self.session.timestamp().await?;
        self.progress.borrow_mut().may_commit = true;
        let secondaries: Vec<Key> = keys.into_iter().filter(|key| *key != primary).collect();
        for keys in [secondaries, vec![primary]] {
            commit(&self.session, keys, self.start_ts, commit_ts).await.map_err(unknown)?;
        }
        self.progress.borrow_mut().txn.commit_ts = Some(commit_ts.0);
        Ok(())
    }

    /// Commits keys of a transaction whose commit is decided.
    fn commit_beside(&self, keys: Vec<Key>, commit_ts: Ts) {
        if keys.is_empty() {
            return;
        }
        let (session, start_ts) = (self.session.afresh(), self.start_ts);
        self.session.port.spawn(async move {
            if let Err(Trouble::Refused(error)) = commit(&session, keys, start_ts, commit_ts).await {
                session.port.broken(format!("a committed transaction's key is not: {error}"));
            }
        });
    }

    /// Milliseconds from `start_ts` for which a lock taken now is to live.
    pub(super) fn ttl_from_start(&self) -> u64 {
        let since = self.session.port.now().since(self.began);
        self.mode.ttl_ms + since.as_millis() as u64
    }
}

/// Returns where the transaction stands: elsewhere, if a try in one phase had come through and its answer had not.
async fn commit(session: &Session, keys: Vec<Key>, start_ts: Ts, commit_ts: Ts) -> Result<Ts, Trouble> {
    let act = |keys: &[Key], _| {
        let keys = keys.to_vec();
        TxnAct::Command(Command::Commit(Commit {
            keys,
            start_ts,
            commit_ts,
        }))
    };
    let mut at = commit_ts;
    for answered in session.call_all(keys, act).await? {
        let reply = answered.result.map_err(Trouble::Refused)?;
        let Output::Committed { commit_ts } = output(reply) else {
            panic!("a commit was answered with something else");
        };
        at = commit_ts;
    }
    Ok(at)
}
