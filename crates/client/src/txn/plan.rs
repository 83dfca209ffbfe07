//! [`Plan`]: a transaction that is to be committed, and what is to be done next: a plain value.
//!
//! Ordinary: lock all keys, take a timestamp, commit the primary, which decides, then the others. Async commit: decided once all keys
//! are locked, at the greatest of the timestamps that the stores named. One phase: one store commits all keys at once.

use std::collections::BTreeSet;

use base::Ts;
use bytes::Bytes;
use proto::kvrpcpb::{self, prewrite_request::PessimisticAction};

/// Bounds of async commit: all keys are named in the primary's lock.
const ASYNC_KEYS_MAX: usize = 256;
const ASYNC_KEY_BYTES_MAX: usize = 4096;

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub start_ts: Ts,
    /// Above zero in pessimistic transactions.
    pub for_update_ts: Ts,
    /// Its fate is the transaction's.
    pub primary: Bytes,
    pub steps: Vec<Step>,
    pub async_commit: bool,
    pub one_phase: bool,
    pub commit_ts_max: Ts,
    /// The least commit timestamp.
    pub commit_ts_min: Ts,
}

/// One key of a plan.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub mutation: kvrpcpb::Mutation,
    pub check: PessimisticAction,
}

/// What follows once all keys are prewritten.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Committed, and no lock is left.
    Done(Ts),
    /// Committed; the locks are turned into records when there is time.
    Committed(Ts),
    /// Commit the primary, at a timestamp taken now.
    CommitPrimary,
}

impl Plan {
    /// A plan for `mutations`, in order of key, and for the keys that were locked before; `None` if there are neither.
    pub fn new(
        start_ts: Ts,
        for_update_ts: Ts,
        primary: Option<Bytes>,
        mutations: Vec<kvrpcpb::Mutation>,
        locked: &BTreeSet<Bytes>,
    ) -> Option<Plan> {
        let is_written = |mutation: &&kvrpcpb::Mutation| mutation.op() != kvrpcpb::Op::CheckNotExists;
        let primary = primary.or_else(|| {
            mutations
                .iter()
                .find(is_written)
                .or(mutations.first())
                .map(|first| first.key.clone())
        })?;
        let check = |key: &Bytes| match (for_update_ts.is_some(), locked.contains(key)) {
            (false, _) => PessimisticAction::SkipPessimisticCheck,
            (true, true) => PessimisticAction::DoPessimisticCheck,
            (true, false) => PessimisticAction::DoConstraintCheck,
        };
        let step = |mutation: kvrpcpb::Mutation| Step {
            check: check(&mutation.key),
            mutation,
        };
        Some(Plan {
            start_ts,
            for_update_ts,
            primary,
            steps: mutations.into_iter().map(step).collect(),
            async_commit: false,
            one_phase: false,
            commit_ts_max: Ts(0),
            commit_ts_min: Ts(start_ts.max(for_update_ts).0 + 1),
        })
    }

    /// Keys that get locks.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        let written = self
            .steps
            .iter()
            .filter(|step| step.mutation.op() != kvrpcpb::Op::CheckNotExists);
        written.map(|step| &step.mutation.key)
    }

    /// Whether it ends rather than wait for a lock of that transaction. `holds`: it has locks itself.
    pub fn gives_way_to(&self, holder: u64, holds: bool) -> bool {
        let optimistic = !self.for_update_ts.is_some();
        optimistic && holds && holder < self.start_ts.0
    }

    /// Whether the keys are few and short enough for an async commit.
    pub fn may_commit_async(&self) -> bool {
        let bytes: usize = self.keys().map(Bytes::len).sum();
        self.steps.len() <= ASYNC_KEYS_MAX && bytes <= ASYNC_KEY_BYTES_MAX
    }

    /// The first phase for `steps`, which are some of the plan's.
    pub fn prewrite(&self, steps: &[Step], ttl_ms: u64) -> kvrpcpb::PrewriteRequest {
        let holds_primary = steps.iter().any(|step| step.mutation.key == self.primary);
        let secondaries = || self.keys().filter(|key| **key != self.primary).cloned().collect();
        let pessimistic_actions = match self.for_update_ts.is_some() {
            true => steps.iter().map(|step| step.check.into()).collect(),
            false => Vec::new(),
        };
        kvrpcpb::PrewriteRequest {
            mutations: steps.iter().map(|step| step.mutation.clone()).collect(),
            primary_lock: self.primary.clone(),
            start_version: self.start_ts.0,
            lock_ttl: ttl_ms,
            pessimistic_actions,
            txn_size: steps.len() as u64,
            for_update_ts: self.for_update_ts.0,
            min_commit_ts: self.commit_ts_min.0,
            max_commit_ts: self.commit_ts_max.0,
            use_async_commit: self.async_commit,
            secondaries: if self.async_commit && holds_primary {
                secondaries()
            } else {
                Vec::new()
            },
            // Only where one store sees the whole.
            try_one_pc: self.one_phase && steps.len() == self.steps.len(),
            ..Default::default()
        }
    }

    /// What follows answers without error, one for each part of the steps.
    pub fn next(&self, answers: &[kvrpcpb::PrewriteResponse]) -> Next {
        if let [only] = answers
            && only.one_pc_commit_ts != 0
        {
            return Next::Done(Ts(only.one_pc_commit_ts));
        }
        let lowest = answers.iter().map(|answer| answer.min_commit_ts).min().unwrap_or(0);
        let highest = answers.iter().map(|answer| answer.min_commit_ts).max().unwrap_or(0);
        match self.async_commit && lowest != 0 {
            true => Next::Committed(Ts(highest)),
            // Any store may have found that it cannot be async.
            false => Next::CommitPrimary,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutation(op: kvrpcpb::Op, key: &'static str) -> kvrpcpb::Mutation {
        kvrpcpb::Mutation {
            op: op.into(),
            key: key.into(),
            ..Default::default()
        }
    }

    fn plan(for_update_ts: u64, locked: &[&'static str]) -> Plan {
        let mutations = vec![
            mutation(kvrpcpb::Op::CheckNotExists, "a"),
            mutation(kvrpcpb::Op::Put, "b"),
            mutation(kvrpcpb::Op::Del, "c"),
        ];
        let locked = locked.iter().map(|key| Bytes::from(*key)).collect();
        Plan::new(Ts(10), Ts(for_update_ts), None, mutations, &locked).expect("there are keys")
    }

    fn answer(min_commit_ts: u64, one_pc_commit_ts: u64) -> kvrpcpb::PrewriteResponse {
        kvrpcpb::PrewriteResponse {
            min_commit_ts,
            one_pc_commit_ts,
            ..Default::default()
        }
    }

    #[test]
    fn a_key_without_lock_is_neither_primary_nor_committed() {
        let plan = plan(0, &[]);
        assert_eq!(plan.primary, "b");
        assert_eq!(plan.keys().collect::<Vec<_>>(), ["b", "c"]);
        assert!(Plan::new(Ts(10), Ts(0), None, vec![], &BTreeSet::new()).is_none());
    }

    #[test]
    fn the_primary_names_the_others_and_one_phase_needs_all() {
        let mut plan = plan(0, &[]);
        (plan.async_commit, plan.one_phase) = (true, true);
        let all = plan.prewrite(&plan.steps, 100);
        assert_eq!((all.try_one_pc, all.use_async_commit, all.min_commit_ts), (true, true, 11));
        assert_eq!(all.secondaries, ["c"]);
        assert!(all.pessimistic_actions.is_empty());
        let part = plan.prewrite(&plan.steps[2..], 100);
        assert_eq!((part.try_one_pc, part.use_async_commit, part.txn_size), (false, true, 1));
        assert!(part.secondaries.is_empty(), "the primary is elsewhere");
    }

    #[test]
    fn keys_locked_before_are_checked_for_their_locks() {
        let plan = plan(20, &["b"]);
        let request = plan.prewrite(&plan.steps, 100);
        let check: i32 = PessimisticAction::DoConstraintCheck.into();
        assert_eq!(
            request.pessimistic_actions,
            [check, PessimisticAction::DoPessimisticCheck.into(), check]
        );
        assert_eq!((request.for_update_ts, request.min_commit_ts), (20, 21));
    }

    #[test]
    fn what_follows_the_first_phase() {
        let mut plan = plan(0, &[]);
        assert_eq!(plan.next(&[answer(0, 0), answer(0, 0)]), Next::CommitPrimary);
        plan.async_commit = true;
        assert_eq!(plan.next(&[answer(15, 0), answer(17, 0)]), Next::Committed(Ts(17)));
        assert_eq!(
            plan.next(&[answer(15, 0), answer(0, 0)]),
            Next::CommitPrimary,
            "one store fell back"
        );
        plan.one_phase = true;
        assert_eq!(plan.next(&[answer(0, 19)]), Next::Done(Ts(19)));
        assert_eq!(plan.next(&[answer(15, 0)]), Next::Committed(Ts(15)), "fell back to async");
        assert_eq!(plan.next(&[answer(0, 0)]), Next::CommitPrimary, "fell back to two phases");
    }

    #[test]
    fn many_or_long_keys_do_not_commit_async() {
        let many = |count: usize, len: usize| {
            let mutations = (0..count).map(|n| kvrpcpb::Mutation {
                key: format!("{n:0len$}").into(),
                ..Default::default()
            });
            Plan::new(Ts(1), Ts(0), None, mutations.collect(), &BTreeSet::new()).expect("there are keys")
        };
        assert!(many(256, 16).may_commit_async());
        assert!(!many(257, 8).may_commit_async());
        assert!(!many(64, 65).may_commit_async());
    }
}
