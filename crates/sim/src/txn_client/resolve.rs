//! What to do about others' locks: ask their primary for their fate, and carry it out on the key where the lock was met.

use base::Ts;
use bytes::Bytes;
use txn::command::{CheckTxnStatus, ResolveLock, SecondaryStatus, TxnStatus};
use txn::lock::{Lock, Locked};
use txn::{Command, Error, Key, Output};

use super::session::{Attempted, Session, Trouble};
use crate::message::{TxnAct, TxnReply};

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Committed(Ts),
    RolledBack,
    /// Still under way. `passable`: it will not commit at or before the caller's timestamp.
    Running {
        passable: bool,
    },
}

/// Learns the fate of the transaction whose lock was met, and decides it if that transaction outlived its time. `caller_start_ts` is that
/// of a reader who would pass the lock, zero for others.
pub async fn fate_of(session: &Session, met: &Locked, caller_start_ts: Ts) -> Attempted<Fate> {
    let now = session.timestamp().await?;
    let mut force_sync_commit = false;
    loop {
        let check = CheckTxnStatus {
            primary: Key::from_user(&met.lock.primary),
            start_ts: met.lock.start_ts,
            caller_start_ts,
            current_ts: now,
            rollback_if_not_exist: is_expired(&met.lock, now),
            force_sync_commit,
            resolving_pessimistic_lock: met.lock.is_pessimistic(),
            verify_is_primary: true,
        };
        match ask_primary(session, check).await? {
            None => return Ok(Fate::Running { passable: false }),
            Some(TxnStatus::Locked { locked, pushed }) => {
                let may_be_done = locked.lock.use_async_commit && !force_sync_commit;
                if !may_be_done || !is_expired(&locked.lock, now) {
                    return Ok(Fate::Running { passable: pushed });
                }
                match check_secondaries(session, &locked).await? {
                    Some(fate) => return Ok(fate),
                    None => force_sync_commit = true,
                }
            }
            Some(TxnStatus::Committed { commit_ts }) => return Ok(Fate::Committed(commit_ts)),
            Some(
                TxnStatus::RolledBack
                | TxnStatus::TtlExpired
                | TxnStatus::PessimisticReleased
                | TxnStatus::NotExistRolledBack
                | TxnStatus::NotExistIgnored,
            ) => return Ok(Fate::RolledBack),
        }
    }
}

/// `None`: nothing is known of the transaction yet.
async fn ask_primary(session: &Session, check: CheckTxnStatus) -> Attempted<Option<TxnStatus>> {
    let act = || TxnAct::Command(Command::CheckTxnStatus(check.clone()));
    match session.call(&check.primary, act).await {
        Ok(TxnReply::Output(Output::Status(status))) => Ok(Some(status)),
        Err(Trouble::Refused(error)) if matches!(*error, Error::TxnNotFound { .. }) => Ok(None),
        Ok(other) => panic!("a check of a transaction's status was answered with {other:?}"),
        Err(trouble) => Err(trouble),
    }
}

/// The fate of an async commit that outlived its time, carried out on all its keys. `None`: it is none, after all.
async fn check_secondaries(session: &Session, primary: &Locked) -> Attempted<Option<Fate>> {
    let start_ts = primary.lock.start_ts;
    let keys: Vec<Key> = primary.lock.secondaries.iter().map(|key| Key::from_user(key)).collect();
    let act = |keys: &[Key], _| {
        TxnAct::Command(Command::CheckSecondaryLocks {
            keys: keys.to_vec(),
            start_ts,
        })
    };
    let mut fate = Fate::Committed(primary.lock.min_commit_ts);
    for answered in session.call_all(keys.clone(), act).await? {
        let status = match answered.result.map_err(Trouble::Refused)? {
            TxnReply::Output(Output::Secondaries(status)) => status,
            other => panic!("a check of secondary locks was answered with {other:?}"),
        };
        match (status, fate) {
            (SecondaryStatus::Locked(locks), Fate::Committed(so_far)) => {
                if locks.iter().any(|locked| !locked.lock.use_async_commit) {
                    return Ok(None);
                }
                let above = locks.iter().map(|locked| locked.lock.min_commit_ts).max();
                fate = Fate::Committed(so_far.max(above.unwrap_or_default()));
            }
            (SecondaryStatus::Locked(_), _) => {}
            (SecondaryStatus::Committed { commit_ts }, _) => {
                fate = Fate::Committed(commit_ts);
                break;
            }
            (SecondaryStatus::RolledBack, _) => {
                fate = Fate::RolledBack;
                break;
            }
        }
    }
    let all = keys.into_iter().chain([primary.key.clone()]).collect();
    resolve_keys(session, all, start_ts, fate).await?;
    Ok(Some(fate))
}

async fn resolve_keys(session: &Session, keys: Vec<Key>, start_ts: Ts, fate: Fate) -> Attempted<()> {
    let commit_ts = match fate {
        Fate::Committed(commit_ts) => commit_ts,
        Fate::RolledBack => Ts(0),
        Fate::Running { .. } => return Ok(()),
    };
    let act = |keys: &[Key], _| {
        let keys = keys.to_vec();
        TxnAct::Command(Command::ResolveLock(ResolveLock::Lite {
            start_ts,
            commit_ts,
            keys,
        }))
    };
    for answered in session.call_all(keys, act).await? {
        answered.result.map_err(Trouble::Refused)?;
    }
    Ok(())
}

/// Carries out a fate where the lock was met.
pub async fn carry_out(session: &Session, met: &Locked, fate: Fate) -> Attempted<()> {
    let start_ts = met.lock.start_ts;
    if let Fate::Running { .. } = fate {
        return Ok(());
    }
    if met.lock.is_pessimistic() {
        let act = || {
            TxnAct::Command(Command::PessimisticRollback {
                keys: vec![met.key.clone()],
                start_ts,
                for_update_ts: met.lock.for_update_ts,
                scan: None,
            })
        };
        return session.call(&met.key, act).await.map(drop);
    }
    if session.draw(|rng| rng.chance(0.8)) {
        return resolve_keys(session, vec![met.key.clone()], start_ts, fate).await;
    }
    // Every lock of the transaction in that region, wherever it is.
    let commit_ts = match fate {
        Fate::Committed(commit_ts) => commit_ts,
        Fate::RolledBack | Fate::Running { .. } => Ts(0),
    };
    let txns = vec![(start_ts, commit_ts)];
    let act = || {
        TxnAct::Command(Command::ResolveLock(ResolveLock::Region {
            txns: txns.clone(),
            found: Vec::new(),
            scan: Some(Bytes::new()),
        }))
    };
    session.call(&met.key, act).await.map(drop)
}

/// Whether a lock has outlived its time by `now`.
pub fn is_expired(lock: &Lock, now: Ts) -> bool {
    lock.start_ts.physical_ms() + lock.ttl_ms <= now.physical_ms()
}
