//! Every pair of concurrent operations on one key: what a second one comes to, by what a first transaction has left there.

use super::*;

type First = fn(&mut Store);
type Second = fn(&mut Store, u64) -> Result<String>;

/// What transaction 10 left on the key `k`, which held `0` since 2.
const FIRST: [(&str, First); 10] = [
    ("none", |_| {}),
    ("put", |store| store.must_prewrite(10, vec![put("k", "1")])),
    ("delete", |store| store.must_prewrite(10, vec![mutation("k", Op::Delete)])),
    ("lock", |store| store.must_prewrite(10, vec![mutation("k", Op::Lock)])),
    ("async", |store| drop(store.prewrite(asynchronous(10)).unwrap())),
    ("pess", |store| drop(store.must_lock(&["k"], 10, 12))),
    ("put@15", |store| store.must_put("k", "1", 10, 15)),
    ("del@15", |store| {
        store.must_prewrite(10, vec![mutation("k", Op::Delete)]);
        store.must_commit(&["k"], 10, 15);
    }),
    ("lock@15", |store| {
        store.must_prewrite(10, vec![mutation("k", Op::Lock)]);
        store.must_commit(&["k"], 10, 15);
    }),
    ("rolled", |store| store.must_rollback(&["k"], 10)),
];

/// What the second transaction, which began at the given time, does.
const SECOND: [(&str, Second); 20] = [
    ("get", |store, ts| {
        let value = store.get("k", ts)?;
        Ok(value.map_or("-".into(), |value| String::from_utf8(value.to_vec()).unwrap()))
    }),
    ("prewrite", |store, ts| {
        told(store.prewrite(prewrite(ts, vec![put("k", "2")])))
    }),
    ("delete", |store, ts| {
        told(store.prewrite(prewrite(ts, vec![mutation("k", Op::Delete)])))
    }),
    ("insert", |store, ts| {
        told(store.prewrite(prewrite(ts, vec![mutation("k", Op::Insert("2".into()))])))
    }),
    ("check-none", |store, ts| {
        told(store.prewrite(prewrite(ts, vec![mutation("k", Op::CheckNotExists)])))
    }),
    ("async", |store, ts| told(store.prewrite(asynchronous(ts)))),
    ("one-phase", |store, ts| {
        told(store.prewrite(Prewrite {
            one_phase: true,
            ..prewrite(ts, vec![put("k", "2")])
        }))
    }),
    ("pess-lock", |store, ts| {
        store.lock(pessimistic_lock(&["k"], ts, ts)).map(|_| "ok".into())
    }),
    ("force-lock", |store, ts| {
        let results = store.lock(PessimisticLock {
            allow_conflict: true,
            ..pessimistic_lock(&["k"], ts, ts)
        })?;
        Ok(match results[0].conflict_ts {
            Ts(0) => "ok".into(),
            ts => format!("ok@{ts}"),
        })
    }),
    ("pess-locked", |store, ts| {
        told(store.prewrite(pessimistic(ts, PessimisticCheck::Locked)))
    }),
    ("pess-late", |store, ts| {
        told(store.prewrite(pessimistic(ts, PessimisticCheck::Constraint)))
    }),
    ("pess-retry", |store, ts| {
        told(store.prewrite(Prewrite {
            is_retry: true,
            ..pessimistic(ts, PessimisticCheck::Skip)
        }))
    }),
    ("commit", |store, ts| match store.run(commit(&["k"], ts, 30))? {
        Output::Committed { commit_ts: Ts(30) } => Ok("ok".into()),
        Output::Committed { commit_ts } => Ok(format!("@{commit_ts}")),
        other => panic!("{other:?}"),
    }),
    ("rollback", |store, ts| store.run(rollback(&["k"], ts)).map(|_| "ok".into())),
    ("release", |store, ts| {
        let keys = keys(&["k"]);
        let (start_ts, for_update_ts) = (Ts(ts), Ts(30));
        let release = Command::PessimisticRollback {
            keys,
            start_ts,
            for_update_ts,
            scan: None,
        };
        store
            .run(release)
            .map(|_| if store.released.is_empty() { "ok" } else { "gone" }.into())
    }),
    ("status", |store, ts| {
        let status = store.status(CheckTxnStatus {
            rollback_if_not_exist: true,
            ..check_status("k", ts, at_ms(1))
        })?;
        Ok(status_word(status))
    }),
    ("expired", |store, ts| {
        let status = store.status(CheckTxnStatus {
            rollback_if_not_exist: true,
            ..check_status("k", ts, Ts::MAX)
        })?;
        Ok(status_word(status))
    }),
    ("secondary", |store, ts| {
        Ok(match store.secondaries(&["k"], ts) {
            SecondaryStatus::Locked(_) => "locked".into(),
            SecondaryStatus::Committed { commit_ts } => format!("@{commit_ts}"),
            SecondaryStatus::RolledBack => "rolled".into(),
        })
    }),
    ("heartbeat", |store, ts| {
        let beat = Command::HeartBeat {
            primary: key("k"),
            start_ts: Ts(ts),
            advise_ttl_ms: 1,
            min_commit_ts: Ts(0),
        };
        store.run(beat).map(|_| "ok".into())
    }),
    ("resolve", |store, ts| {
        let resolve = Command::ResolveLock(ResolveLock::Region {
            txns: vec![(Ts(ts), Ts(30))],
            found: vec![],
            scan: None,
        });
        store
            .run(resolve)
            .map(|_| if store.released.is_empty() { "ok" } else { "gone" }.into())
    }),
];

fn asynchronous(start_ts: u64) -> Prewrite {
    Prewrite {
        secondaries: Some(vec![]),
        ..prewrite(start_ts, vec![put("k", "1")])
    }
}

fn pessimistic(start_ts: u64, check: PessimisticCheck) -> Prewrite {
    Prewrite {
        for_update_ts: Ts(start_ts),
        ..prewrite(start_ts, vec![Mutation { check, ..put("k", "2") }])
    }
}

fn told(outcome: Result<Prewritten>) -> Result<String> {
    let prewritten = outcome?;
    Ok(match (prewritten.min_commit_ts, prewritten.one_phase_commit_ts) {
        _ if !prewritten.locked.is_empty() => "locked".into(),
        (Ts(0), Ts(0)) => "ok".into(),
        (min, one_phase) => format!("ok@{}", min.max(one_phase)),
    })
}

fn status_word(status: TxnStatus) -> String {
    match status {
        TxnStatus::Locked { .. } => "locked".into(),
        TxnStatus::Committed { commit_ts } => format!("@{commit_ts}"),
        TxnStatus::RolledBack => "rolled".into(),
        TxnStatus::TtlExpired => "expired".into(),
        TxnStatus::PessimisticReleased => "released".into(),
        TxnStatus::NotExistRolledBack => "unknown".into(),
        TxnStatus::NotExistIgnored => "ignored".into(),
    }
}

fn error_word(error: &Error) -> &'static str {
    match error {
        Error::Locked(_) => "locked",
        Error::WriteConflict { reason, .. } => match reason {
            ConflictReason::Optimistic => "conflict",
            ConflictReason::PessimisticRetry => "retry",
            ConflictReason::SelfRolledBack => "self",
            ConflictReason::RcCheckTs => "check",
            ConflictReason::LazyUniquenessCheck => "lazy",
            ConflictReason::NotLockedKeyConflict => "newer",
        },
        Error::AlreadyExists { .. } => "exists",
        Error::TxnLockNotFound { .. } => "no-lock",
        Error::PessimisticLockNotFound { .. } => "lost",
        Error::PessimisticLockRolledBack { .. } => "rolled",
        Error::LockKindMismatch { .. } => "kind",
        Error::Committed { .. } => "done",
        Error::TxnNotFound { .. } => "no-txn",
        other => panic!("{other}"),
    }
}

fn line(name: &str, ts: u64, second: Second) -> String {
    let cells = FIRST.map(|(_, first)| {
        let mut store = Store::new();
        store.must_put("k", "0", 1, 2);
        first(&mut store);
        store.released.clear();
        let told = second(&mut store, ts).unwrap_or_else(|error| error_word(&error).into());
        format!("{told:8}")
    });
    format!("{name:11} {ts:2} | {}", cells.join(" ")).trim_end().to_owned()
}

#[test]
fn every_pair_of_operations_on_one_key() {
    let mut table = format!(
        "{:14} | {}\n",
        "",
        FIRST.map(|(name, _)| format!("{name:8}")).join(" ").trim_end()
    );
    for (name, second) in SECOND {
        for ts in [5, 10, 20] {
            table += &format!("{}\n", line(name, ts, second));
        }
    }
    let wanted = include_str!("pairs.txt");
    assert!(table == wanted, "it came to:\n{table}");
}
