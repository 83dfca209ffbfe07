//! What is to be made of others' locks: plain decisions over what stores answered.

use base::Ts;
use proto::kvrpcpb;

/// How a transaction ended. Never changes once true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Committed(Ts),
    RolledBack,
}

impl Fate {
    /// As the wire says it: zero rolls back.
    pub fn commit_version(self) -> u64 {
        match self {
            Fate::Committed(ts) => ts.0,
            Fate::RolledBack => 0,
        }
    }
}

/// What the primary says of a transaction whose lock is in the way.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Ended(Fate),
    /// Its pessimistic locks may be taken away; it may still commit without them.
    Release,
    /// Runs still. `pushed`: will not commit below the reader that asked, which may pass its locks.
    Alive {
        pushed: bool,
    },
    /// An async commit that was left alone: its other keys tell.
    AskSecondaries(Box<kvrpcpb::LockInfo>),
}

/// Whether `ttl_ms` from the beginning of `start_ts` have passed at `now`.
pub(crate) fn is_outlived(start_ts: u64, ttl_ms: u64, now: Ts) -> bool {
    Ts(start_ts).physical_ms().saturating_add(ttl_ms) < now.physical_ms()
}

/// Reads an answer without error about transaction `start_ts`, asked at `now`. `force_sync`: it was asked as an ordinary transaction.
pub(crate) fn of_status(answer: kvrpcpb::CheckTxnStatusResponse, start_ts: u64, now: Ts, force_sync: bool) -> Verdict {
    use kvrpcpb::Action;
    let action = answer.action();
    if answer.lock_ttl > 0 {
        let left_alone = is_outlived(start_ts, answer.lock_ttl, now) && !force_sync;
        let primary = answer.lock_info.filter(|primary| primary.use_async_commit && left_alone);
        return match primary {
            Some(primary) => Verdict::AskSecondaries(primary),
            None => Verdict::Alive {
                pushed: action == Action::MinCommitTsPushed,
            },
        };
    }
    match (answer.commit_version, action) {
        (0, Action::TtlExpirePessimisticRollback | Action::LockNotExistDoNothing) => Verdict::Release,
        (0, _) => Verdict::Ended(Fate::RolledBack),
        (commit_ts, _) => Verdict::Ended(Fate::Committed(Ts(commit_ts))),
    }
}

/// Decides over an async commit by all its other keys, each answer with the number of keys asked for. `None`: not all were written
/// as an async commit, so the primary alone decides.
pub(crate) fn of_secondaries(
    primary: &kvrpcpb::LockInfo,
    answers: &[(usize, kvrpcpb::CheckSecondaryLocksResponse)],
) -> Option<Fate> {
    let committed = answers
        .iter()
        .map(|(_, answer)| answer.commit_ts)
        .find(|commit_ts| *commit_ts != 0);
    if let Some(commit_ts) = committed {
        return Some(Fate::Committed(Ts(commit_ts)));
    }
    // A key without lock never gets one now: the store has seen to that.
    if answers.iter().any(|(asked, answer)| answer.locks.len() < *asked) {
        return Some(Fate::RolledBack);
    }
    let mut locks = answers.iter().flat_map(|(_, answer)| &answer.locks).chain([primary]);
    let commit_ts = locks.try_fold(0, |max, lock| lock.use_async_commit.then_some(lock.min_commit_ts.max(max)))?;
    Some(Fate::Committed(Ts(commit_ts)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvrpcpb::Action;

    const START: Ts = Ts(1_000_000 << Ts::LOGICAL_BITS);

    fn after_ms(ms: u64) -> Ts {
        Ts::compose(START.physical_ms() + ms, 0)
    }

    fn lock(min_commit_ts: u64) -> kvrpcpb::LockInfo {
        kvrpcpb::LockInfo {
            lock_version: START.0,
            min_commit_ts,
            use_async_commit: true,
            ..Default::default()
        }
    }

    fn status(lock_ttl: u64, commit_version: u64, action: Action, lock_info: Option<kvrpcpb::LockInfo>) -> Verdict {
        let answer = kvrpcpb::CheckTxnStatusResponse {
            lock_ttl,
            commit_version,
            action: action.into(),
            lock_info: lock_info.map(Box::new),
            ..Default::default()
        };
        of_status(answer, START.0, after_ms(1000), false)
    }

    #[test]
    fn the_primary_tells() {
        let ended = |fate| Verdict::Ended(fate);
        let cases = [
            (status(0, 9, Action::NoAction, None), ended(Fate::Committed(Ts(9)))),
            (status(0, 0, Action::NoAction, None), ended(Fate::RolledBack)),
            (status(0, 0, Action::TtlExpireRollback, None), ended(Fate::RolledBack)),
            (status(0, 0, Action::LockNotExistRollback, None), ended(Fate::RolledBack)),
            (status(0, 0, Action::TtlExpirePessimisticRollback, None), Verdict::Release),
            (status(0, 0, Action::LockNotExistDoNothing, None), Verdict::Release),
            (status(2000, 0, Action::NoAction, None), Verdict::Alive { pushed: false }),
            (
                status(2000, 0, Action::MinCommitTsPushed, None),
                Verdict::Alive { pushed: true },
            ),
            // Alive, although an async commit; and one that was left alone.
            (
                status(2000, 0, Action::NoAction, Some(lock(5))),
                Verdict::Alive { pushed: false },
            ),
            (
                status(500, 0, Action::NoAction, Some(lock(5))),
                Verdict::AskSecondaries(Box::new(lock(5))),
            ),
        ];
        for (number, (got, wanted)) in cases.into_iter().enumerate() {
            assert_eq!(got, wanted, "case {number}");
        }
    }

    #[test]
    fn an_outlived_lock_is_one_whose_time_has_passed() {
        assert!(!is_outlived(START.0, 1000, after_ms(1000)));
        assert!(is_outlived(START.0, 1000, after_ms(1001)));
        assert!(!is_outlived(START.0, u64::MAX, Ts::MAX));
        assert!(is_outlived(START.0, 1000, Ts::MAX));
    }

    #[test]
    fn the_secondaries_of_an_async_commit_tell() {
        let locks = |locks: &[u64], commit_ts| kvrpcpb::CheckSecondaryLocksResponse {
            locks: locks.iter().map(|min| lock(*min)).collect(),
            commit_ts,
            ..Default::default()
        };
        let mut ordinary = locks(&[7], 0);
        ordinary.locks[0].use_async_commit = false;
        let cases = [
            (vec![], Some(Fate::Committed(Ts(5)))),
            (
                vec![(2, locks(&[7, 6], 0)), (1, locks(&[4], 0))],
                Some(Fate::Committed(Ts(7))),
            ),
            (vec![(2, locks(&[7], 0))], Some(Fate::RolledBack)),
            (vec![(1, locks(&[7], 0)), (1, locks(&[], 9))], Some(Fate::Committed(Ts(9)))),
            (vec![(1, ordinary)], None),
        ];
        for (answers, wanted) in cases {
            assert_eq!(of_secondaries(&lock(5), &answers), wanted, "{answers:?}");
        }
    }
}
