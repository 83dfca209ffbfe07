//! Transactions by hand, as a client would do them, unary and in batches, on stores of V1 and V2.

use super::*;

/// A store and how it is spoken to. Timestamps are chosen by the tests.
pub(super) struct Client {
    pub store: Fixture,
    batched: bool,
}

/// Every way to speak to every kind of store.
pub(super) fn clients() -> Vec<Client> {
    let ways = [(V1, false), (V1, true), (V2, false), (V2, true)];
    ways.into_iter()
        .map(|(api, batched)| Client {
            store: Fixture::new(api),
            batched,
        })
        .collect()
}

macro_rules! rpcs {
    ($($name:ident $kind:ident($request:ty) -> $answer:ty;)*) => {
        impl Client {
            $(pub async fn $name(&self, request: $request) -> $answer {
                let request = Request::$kind(request.with(self.store.context()));
                let answer = if self.batched {
                    self.store.batched(request).await
                } else {
                    self.store.unary(request).await
                };
                match answer {
                    Answer::$kind(answer) => answer,
                    other => panic!("another kind of answer: {other:?}"),
                }
            })*
        }
        $(impl WithContext for $request {
            fn with(mut self, context: Option<Context>) -> Self {
                self.context = self.context.or(context);
                self
            }
        })*
    };
}

trait WithContext {
    fn with(self, context: Option<Context>) -> Self;
}

rpcs! {
    get Get(GetRequest) -> GetResponse;
    scan Scan(ScanRequest) -> ScanResponse;
    prewrite Prewrite(PrewriteRequest) -> PrewriteResponse;
    commit Commit(CommitRequest) -> CommitResponse;
    cleanup Cleanup(CleanupRequest) -> CleanupResponse;
    batch_get BatchGet(BatchGetRequest) -> BatchGetResponse;
    rollback BatchRollback(BatchRollbackRequest) -> BatchRollbackResponse;
    scan_lock ScanLock(ScanLockRequest) -> ScanLockResponse;
    resolve ResolveLock(ResolveLockRequest) -> ResolveLockResponse;
    delete_range DeleteRange(DeleteRangeRequest) -> DeleteRangeResponse;
    lock PessimisticLock(PessimisticLockRequest) -> PessimisticLockResponse;
    unlock PessimisticRollback(PessimisticRollbackRequest) -> PessimisticRollbackResponse;
    status CheckTxnStatus(CheckTxnStatusRequest) -> CheckTxnStatusResponse;
    heart_beat TxnHeartBeat(TxnHeartBeatRequest) -> TxnHeartBeatResponse;
    secondaries CheckSecondaryLocks(CheckSecondaryLocksRequest) -> CheckSecondaryLocksResponse;
}

impl Client {
    /// A user key as a client of this store's version sends it.
    pub fn key(&self, name: &str) -> Bytes {
        match self.store.api {
            V2 => Bytes::from([b"x\0\0\x01", name.as_bytes()].concat()),
            V1 | V1Ttl => text(name),
        }
    }

    pub fn keys(&self, names: &[&str]) -> Vec<Bytes> {
        names.iter().map(|name| self.key(name)).collect()
    }

    pub fn mutation(&self, op: Op, name: &str, value: &str) -> Mutation {
        Mutation {
            op: op.into(),
            key: self.key(name),
            value: text(value),
            ..Default::default()
        }
    }

    /// A prewrite of puts of `pairs` whose first key is the primary.
    pub fn puts(&self, pairs: &[(&str, &str)], start_ts: u64) -> PrewriteRequest {
        PrewriteRequest {
            mutations: pairs
                .iter()
                .map(|(name, value)| self.mutation(Op::Put, name, value))
                .collect(),
            primary_lock: self.key(pairs[0].0),
            start_version: start_ts,
            lock_ttl: 3000,
            txn_size: pairs.len() as u64,
            ..Default::default()
        }
    }

    pub async fn must_prewrite(&self, request: PrewriteRequest) -> PrewriteResponse {
        let answer = self.prewrite(request).await;
        assert_eq!((&answer.region_error, &answer.errors[..]), (&None, &[][..]));
        answer
    }

    pub async fn must_commit(&self, names: &[&str], start_ts: u64, commit_ts: u64) {
        let answer = self.commit(self.commit_of(names, start_ts, commit_ts)).await;
        let done = CommitResponse {
            commit_version: commit_ts,
            ..Default::default()
        };
        assert_eq!(answer, done);
    }

    pub fn commit_of(&self, names: &[&str], start_ts: u64, commit_ts: u64) -> CommitRequest {
        CommitRequest {
            start_version: start_ts,
            keys: self.keys(names),
            commit_version: commit_ts,
            ..Default::default()
        }
    }

    /// Both phases.
    pub async fn must_put(&self, pairs: &[(&str, &str)], start_ts: u64, commit_ts: u64) {
        self.must_prewrite(self.puts(pairs, start_ts)).await;
        let names: Vec<&str> = pairs.iter().map(|(name, _)| *name).collect();
        self.must_commit(&names, start_ts, commit_ts).await;
    }

    pub async fn must_get(&self, name: &str, ts: u64) -> Option<String> {
        let answer = self.get(self.get_of(name, ts)).await;
        assert_eq!((&answer.region_error, &answer.error), (&None, &None), "{name} at {ts}");
        (!answer.not_found).then(|| String::from_utf8(answer.value.to_vec()).expect("tests put text"))
    }

    pub fn get_of(&self, name: &str, ts: u64) -> GetRequest {
        GetRequest {
            key: self.key(name),
            version: ts,
            ..Default::default()
        }
    }

    pub fn scan_of(&self, from: &str, to: &str, ts: u64) -> ScanRequest {
        ScanRequest {
            start_key: self.key(from),
            end_key: self.key(to),
            limit: 100,
            version: ts,
            ..Default::default()
        }
    }

    pub fn locks_of(&self, name: &str, start_ts: u64, for_update_ts: u64) -> PessimisticLockRequest {
        PessimisticLockRequest {
            mutations: vec![self.mutation(Op::PessimisticLock, name, "")],
            primary_lock: self.key(name),
            start_version: start_ts,
            for_update_ts,
            lock_ttl: 3000,
            wait_timeout: -1,
            ..Default::default()
        }
    }

    fn names(&self, pairs: &[KvPair]) -> Vec<(String, String)> {
        let prefix = self.key("").len();
        let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("tests put text");
        pairs
            .iter()
            .map(|pair| {
                assert_eq!(pair.error, None);
                (string(&pair.key[prefix..]), string(&pair.value))
            })
            .collect()
    }
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[tokio::test]
async fn two_phases_and_what_readers_see_of_them() {
    for client in clients() {
        client.must_prewrite(client.puts(&[("a", "1"), ("b", "2")], 10)).await;
        let hidden = client.get(client.get_of("b", 11)).await;
        let locked = hidden.error.expect("locked").locked.expect("locked");
        let expected = LockInfo {
            primary_lock: client.key("a"),
            lock_version: 10,
            key: client.key("b"),
            lock_ttl: 3000,
            txn_size: 2,
            lock_type: Op::Put.into(),
            ..Default::default()
        };
        assert_eq!(*locked, expected);
        assert_eq!(client.must_get("b", 9).await, None, "before it began");
        let passed = Context {
            resolved_locks: vec![10],
            ..client.store.context_of(1)
        };
        let request = GetRequest {
            context: Some(passed),
            ..client.get_of("b", 11)
        };
        assert!(client.get(request).await.not_found, "a lock that is known not to matter");
        let rc = Context {
            isolation_level: IsolationLevel::Rc.into(),
            ..client.store.context_of(1)
        };
        let request = GetRequest {
            context: Some(rc),
            ..client.get_of("b", 11)
        };
        assert!(client.get(request).await.not_found, "read committed");
        client.must_commit(&["a", "b"], 10, 20).await;
        client.must_commit(&["a", "b"], 10, 20).await;
        for (ts, value) in [(19, None), (20, Some("2")), (u64::MAX, Some("2"))] {
            assert_eq!(client.must_get("b", ts).await.as_deref(), value, "{ts}");
        }
        let request = GetRequest {
            need_commit_ts: true,
            ..client.get_of("b", 30)
        };
        assert_eq!(client.get(request).await.commit_ts, 20);
    }
}

#[tokio::test]
async fn batches_and_scans() {
    for client in clients() {
        client.must_put(&[("a", "1"), ("b", "2"), ("d", "4")], 10, 20).await;
        client.must_put(&[("c", "3")], 30, 40).await;
        client.must_prewrite(client.puts(&[("b", "locked")], 50)).await;
        let request = BatchGetRequest {
            keys: client.keys(&["d", "none", "b", "a"]),
            version: 45,
            ..Default::default()
        };
        assert_eq!(
            client.names(&client.batch_get(request.clone()).await.pairs),
            pairs(&[("d", "4"), ("b", "2"), ("a", "1")])
        );
        let answer = client.batch_get(BatchGetRequest { version: 55, ..request }).await;
        let is_locked = |pair: &KvPair| pair.error.as_ref().is_some_and(|error| error.locked.is_some());
        let locked: Vec<bool> = answer.pairs.iter().map(is_locked).collect();
        assert_eq!((locked, answer.error), (vec![false, true, false], None));

        let all = client.scan(client.scan_of("", "z", 45)).await;
        assert_eq!(
            client.names(&all.pairs),
            pairs(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")])
        );
        let old = client.scan(client.scan_of("b", "d", 35)).await;
        assert_eq!(client.names(&old.pairs), pairs(&[("b", "2")]));
        let reverse = ScanRequest {
            reverse: true,
            key_only: true,
            limit: 2,
            ..client.scan_of("d", "a", 45)
        };
        assert_eq!(
            client.names(&client.scan(reverse).await.pairs),
            pairs(&[("c", ""), ("b", "")])
        );
        let sampled = ScanRequest {
            sample_step: 2,
            ..client.scan_of("", "z", 45)
        };
        assert_eq!(
            client.names(&client.scan(sampled).await.pairs),
            pairs(&[("a", "1"), ("c", "3")])
        );
        let met = client.scan(client.scan_of("", "z", 55)).await;
        assert_eq!(
            met.pairs.iter().map(is_locked).collect::<Vec<_>>(),
            [false, true, false, false],
            "goes on behind a lock"
        );
    }
}

/// The promise on which clients rest: never zero, above everything read before, one phase whenever it is asked for.
#[tokio::test]
async fn async_commit_and_one_phase() {
    for client in clients() {
        assert_eq!(client.must_get("a", 5000).await, None);
        let request = PrewriteRequest {
            use_async_commit: true,
            secondaries: client.keys(&["b"]),
            ..client.puts(&[("a", "1"), ("b", "2")], 2000)
        };
        let min_commit_ts = client.must_prewrite(request).await.min_commit_ts;
        assert!(min_commit_ts > 5000, "{min_commit_ts}");
        let locked = client.get(client.get_of("a", min_commit_ts)).await.error.expect("locked");
        let locked = locked.locked.expect("locked");
        assert_eq!(
            (locked.use_async_commit, locked.min_commit_ts, &locked.secondaries),
            (true, min_commit_ts, &client.keys(&["b"]))
        );
        assert_eq!(client.must_get("a", min_commit_ts - 1).await, None, "not blocked");
        client.must_commit(&["a", "b"], 2000, min_commit_ts).await;

        let request = PrewriteRequest {
            try_one_pc: true,
            ..client.puts(&[("a", "3")], min_commit_ts + 1)
        };
        let answer = client.must_prewrite(request.clone()).await;
        assert!(answer.one_pc_commit_ts > min_commit_ts + 1, "{answer:?}");
        assert_eq!(client.must_get("a", answer.one_pc_commit_ts).await.as_deref(), Some("3"));
        let again = PrewriteRequest {
            context: Some(Context {
                is_retry_request: true,
                ..client.store.context_of(1)
            }),
            ..request
        };
        assert_eq!(
            client.must_prewrite(again).await.one_pc_commit_ts,
            answer.one_pc_commit_ts,
            "an answer that was lost"
        );
        // A leader asks the TSO before its first async commit, whatever it has seen itself.
        let fresh = Client {
            store: Fixture::new(client.store.api),
            batched: client.batched,
        };
        let request = PrewriteRequest {
            try_one_pc: true,
            ..fresh.puts(&[("a", "1")], 10)
        };
        let commit_ts = fresh.must_prewrite(request).await.one_pc_commit_ts;
        assert!(commit_ts > TSO, "{commit_ts}");
    }
}

#[tokio::test]
async fn the_fate_of_a_transaction() {
    let at = |ms: u64| ms << Ts::LOGICAL_BITS;
    for client in clients() {
        let ask = |name: &str, lock_ts: u64, caller: u64, current: u64| CheckTxnStatusRequest {
            primary_key: client.key(name),
            lock_ts,
            caller_start_ts: caller,
            current_ts: current,
            ..Default::default()
        };
        let request = PrewriteRequest {
            // Only who says so bears to be pushed.
            min_commit_ts: at(10) + 1,
            ..client.puts(&[("a", "1"), ("b", "2")], at(10))
        };
        client.must_prewrite(request).await;
        let lives = client.status(ask("a", at(10), 0, at(3000))).await;
        assert_eq!(
            (lives.lock_ttl, lives.commit_version, lives.action()),
            (3000, 0, Action::NoAction)
        );
        let pushed = client.status(ask("a", at(10), at(500), at(3000))).await;
        assert_eq!(pushed.action(), Action::MinCommitTsPushed);
        assert!(pushed.lock_info.expect("locked").min_commit_ts > at(500));
        let early = client.commit(client.commit_of(&["a"], at(10), at(400))).await;
        let floor = early.error.expect("pushed").commit_ts_expired.expect("pushed");
        assert_eq!(
            (floor.start_ts, floor.attempted_commit_ts, &floor.key),
            (at(10), at(400), &client.key("a"))
        );
        assert!(floor.min_commit_ts > at(500));
        let beat = TxnHeartBeatRequest {
            primary_lock: client.key("a"),
            start_version: at(10),
            advise_lock_ttl: 9000,
            ..Default::default()
        };
        assert_eq!(client.heart_beat(beat.clone()).await.lock_ttl, 9000);
        let gone = client.status(ask("a", at(10), 0, at(20_000))).await;
        assert_eq!(
            (gone.lock_ttl, gone.commit_version, gone.action()),
            (0, 0, Action::TtlExpireRollback)
        );
        let known = client.status(ask("a", at(10), 0, at(20_000))).await;
        assert_eq!(
            (known.lock_ttl, known.commit_version, known.action()),
            (0, 0, Action::NoAction)
        );
        let late = client.heart_beat(beat).await.error.expect("no lock");
        assert_eq!(late.txn_not_found.expect("no lock").start_ts, at(10));
        let none = client
            .status(ask("c", at(10), 0, at(20)))
            .await
            .error
            .expect("never heard of");
        let none = none.txn_not_found.expect("never heard of");
        assert_eq!((none.start_ts, none.primary_key), (at(10), client.key("c")));
        let never = CheckTxnStatusRequest {
            rollback_if_not_exist: true,
            ..ask("c", at(10), 0, at(20))
        };
        assert_eq!(client.status(never).await.action(), Action::LockNotExistRollback);
        client.must_put(&[("d", "4")], at(30_000), at(30_001)).await;
        assert_eq!(
            client.status(ask("d", at(30_000), 0, at(99_000))).await.commit_version,
            at(30_001)
        );
        let wrong = CheckTxnStatusRequest {
            verify_is_primary: true,
            ..ask("b", at(10), 0, at(11))
        };
        let mismatch = client.status(wrong).await.error.expect("b is a secondary");
        let lock = mismatch
            .primary_mismatch
            .expect("b is a secondary")
            .lock_info
            .expect("the lock");
        assert_eq!(lock.primary_lock, client.key("a"));
    }
}

#[tokio::test]
async fn secondaries_tell() {
    for client in clients() {
        let request = PrewriteRequest {
            use_async_commit: true,
            secondaries: client.keys(&["b", "c"]),
            ..client.puts(&[("a", "1"), ("b", "2")], 2000)
        };
        let min_commit_ts = client.must_prewrite(request).await.min_commit_ts;
        let ask = |names: &[&str]| CheckSecondaryLocksRequest {
            keys: client.keys(names),
            start_version: 2000,
            ..Default::default()
        };
        let locked = client.secondaries(ask(&["b"])).await;
        let floors: Vec<u64> = locked.locks.iter().map(|lock| lock.min_commit_ts).collect();
        assert_eq!((floors, locked.commit_ts), (vec![min_commit_ts], 0));
        // The key that never was prewritten ends it.
        let ended = client.secondaries(ask(&["b", "c"])).await;
        assert_eq!((ended.locks.len(), ended.commit_ts), (0, 0));
        let late = PrewriteRequest {
            use_async_commit: true,
            ..client.puts(&[("c", "3")], 2000)
        };
        assert_eq!(client.prewrite(late).await.errors.len(), 1, "rolled back");
        client.must_put(&[("d", "4")], 3000, 9000).await;
        let request = CheckSecondaryLocksRequest {
            start_version: 3000,
            ..ask(&["d"])
        };
        assert_eq!(client.secondaries(request).await.commit_ts, 9000);
    }
}

#[tokio::test]
async fn pessimistic_locks() {
    for client in clients() {
        client.must_put(&[("a", "old")], 10, 20).await;
        let values = PessimisticLockRequest {
            return_values: true,
            ..client.locks_of("a", 30, 30)
        };
        let answer = client.lock(values).await;
        assert_eq!((answer.values, answer.not_founds), (vec![text("old")], vec![false]));
        let existence = PessimisticLockRequest {
            check_existence: true,
            ..client.locks_of("none", 30, 30)
        };
        let answer = client.lock(existence).await;
        assert_eq!((answer.values.len(), answer.not_founds), (0, vec![true]));
        assert_eq!(client.must_get("a", 50).await.as_deref(), Some("old"), "hides nothing");
        let other = client.lock(client.locks_of("a", 40, 40)).await;
        let locked = other.errors[0].locked.as_ref().expect("no wait");
        assert_eq!(
            (locked.lock_version, locked.lock_type(), locked.lock_for_update_ts),
            (30, Op::PessimisticLock, 30)
        );
        let release = PessimisticRollbackRequest {
            start_version: 30,
            for_update_ts: 30,
            keys: client.keys(&["a", "none"]),
            ..Default::default()
        };
        assert_eq!(client.unlock(release).await, Default::default());
        let stale = client.lock(client.locks_of("a", 15, 15)).await;
        let conflict = stale.errors[0].conflict.as_ref().expect("committed at 20");
        assert_eq!(
            (conflict.conflict_ts, conflict.conflict_commit_ts, conflict.reason()),
            (10, 20, write_conflict::Reason::PessimisticRetry)
        );
        let forced = PessimisticLockRequest {
            return_values: true,
            wake_up_mode: PessimisticLockWakeUpMode::WakeUpModeForceLock.into(),
            ..client.locks_of("a", 15, 15)
        };
        let result = client.lock(forced).await.results.pop().expect("one a key");
        assert_eq!(
            (
                result.r#type(),
                result.locked_with_conflict_ts,
                &result.value[..],
                result.existence
            ),
            (
                PessimisticLockKeyResultType::LockResultLockedWithConflict,
                20,
                &b"old"[..],
                true
            )
        );
        // Another's lock in the way: refused, and told so key by key as well.
        let refused = PessimisticLockRequest {
            wake_up_mode: PessimisticLockWakeUpMode::WakeUpModeForceLock.into(),
            ..client.locks_of("a", 40, 40)
        };
        let refused = client.lock(refused).await;
        assert_eq!(refused.errors[0].locked.as_ref().expect("no wait").lock_version, 15);
        let kinds: Vec<_> = refused.results.iter().map(|result| result.r#type()).collect();
        assert_eq!(kinds, [PessimisticLockKeyResultType::LockResultFailed]);
        let request = PrewriteRequest {
            for_update_ts: 20,
            pessimistic_actions: vec![prewrite_request::PessimisticAction::DoPessimisticCheck.into()],
            ..client.puts(&[("a", "new")], 15)
        };
        client.must_prewrite(request).await;
        client.must_commit(&["a"], 15, 60).await;
        assert_eq!(client.must_get("a", 60).await.as_deref(), Some("new"));
    }
}

/// A waiter is woken by the commit it waits for, and seen while it waits; who would close a circle is told so.
#[tokio::test]
async fn waits_and_circles() {
    for api in [V1, V2] {
        let client = Arc::new(Client {
            store: Fixture::new(api),
            batched: false,
        });
        let wait = |name: &str, ts: u64| PessimisticLockRequest {
            wait_timeout: 60_000,
            ..client.locks_of(name, ts, ts)
        };
        assert_eq!(client.lock(wait("a", 10)).await, Default::default());
        assert_eq!(client.lock(wait("b", 20)).await, Default::default());
        let (first, request) = (client.clone(), wait("b", 10));
        let waiter = tokio::spawn(async move { first.lock(request).await });
        let entries = loop {
            let request = GetLockWaitInfoRequest {
                context: client.store.context(),
            };
            let asked = client.store.service.get_lock_wait_info(tonic::Request::new(request)).await;
            let entries = asked.expect("ends well").into_inner().entries;
            if !entries.is_empty() {
                break entries;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(
            (entries[0].txn, entries[0].wait_for_txn, &entries[0].key),
            (10, 20, &client.key("b"))
        );
        let closed = client.lock(wait("a", 20)).await;
        let deadlock = closed.errors[0].deadlock.as_ref().expect("a circle");
        assert_eq!((deadlock.lock_ts, &deadlock.lock_key), (10, &client.key("a")));
        assert_eq!(deadlock.deadlock_key, client.key("b"));
        let chain: Vec<(u64, u64)> = deadlock.wait_chain.iter().map(|wait| (wait.txn, wait.wait_for_txn)).collect();
        assert_eq!(chain, [(10, 20), (20, 10)]);
        let release = PessimisticRollbackRequest {
            start_version: 20,
            for_update_ts: 20,
            keys: client.keys(&["b"]),
            ..Default::default()
        };
        assert_eq!(client.unlock(release).await, Default::default());
        assert_eq!(waiter.await.expect("answers"), Default::default(), "granted");
    }
}

#[tokio::test]
async fn locks_are_found_and_resolved() {
    for client in clients() {
        let find = |max: u64, limit: u32| ScanLockRequest {
            max_version: max,
            start_key: client.key(""),
            end_key: client.key("z"),
            limit,
            ..Default::default()
        };
        for (name, start_ts) in [("a", 10), ("b", 10), ("c", 20), ("d", 30), ("e", 40)] {
            client.must_prewrite(client.puts(&[(name, name)], start_ts)).await;
        }
        client.lock(client.locks_of("f", 15, 15)).await;
        let found = |answer: ScanLockResponse| -> Vec<u64> { answer.locks.iter().map(|lock| lock.lock_version).collect() };
        assert_eq!(
            found(client.scan_lock(find(30, 0)).await),
            [10, 10, 20, 30, 15],
            "in memory too"
        );
        assert_eq!(found(client.scan_lock(find(30, 2)).await), [10, 10]);
        let lite = ResolveLockRequest {
            start_version: 10,
            commit_version: 50,
            keys: client.keys(&["a"]),
            ..Default::default()
        };
        assert_eq!(client.resolve(lite).await, Default::default());
        assert_eq!(found(client.scan_lock(find(30, 0)).await), [10, 20, 30, 15]);
        let one = ResolveLockRequest {
            start_version: 10,
            commit_version: 50,
            ..Default::default()
        };
        assert_eq!(client.resolve(one).await, Default::default());
        let info = |txn, status| TxnInfo {
            txn,
            status,
            ..Default::default()
        };
        let many = ResolveLockRequest {
            txn_infos: vec![info(30, 60), info(20, 0), info(15, 0)],
            ..Default::default()
        };
        assert_eq!(client.resolve(many).await, Default::default());
        assert_eq!(found(client.scan_lock(find(100, 0)).await), [40]);
        let scanned = client.scan(client.scan_of("", "e", 99)).await;
        assert_eq!(client.names(&scanned.pairs), pairs(&[("a", "a"), ("b", "b"), ("d", "d")]));
    }
}

#[tokio::test]
async fn ranges_go_and_versions_are_shown() {
    for client in clients() {
        client
            .must_put(&[("a", "1"), ("b", &"long".repeat(100)), ("c", "3")], 10, 20)
            .await;
        client.must_prewrite(client.puts(&[("b", "2")], 30)).await;
        let rollback = BatchRollbackRequest {
            start_version: 25,
            keys: client.keys(&["b"]),
            ..Default::default()
        };
        assert_eq!(client.rollback(rollback).await, Default::default());
        let service = &client.store.service;
        let request = MvccGetByKeyRequest {
            context: client.store.context(),
            key: client.key("b"),
        };
        let shown = service.mvcc_get_by_key(tonic::Request::new(request)).await;
        let info = shown.expect("ends well").into_inner().info.expect("told");
        assert_eq!(info.lock.as_ref().map(|lock| lock.start_ts), Some(30));
        let records: Vec<_> = info
            .writes
            .iter()
            .map(|write| (write.r#type(), write.start_ts, write.commit_ts))
            .collect();
        assert_eq!(records, [(Op::Rollback, 25, 25), (Op::Put, 10, 20)]);
        assert_eq!((info.values[0].start_ts, info.values[0].value.len()), (10, 400));
        for (start_ts, key) in [(30, Some("b")), (25, Some("b")), (10, Some("a")), (99, None)] {
            let request = MvccGetByStartTsRequest {
                context: client.store.context(),
                start_ts,
            };
            let found = service
                .mvcc_get_by_start_ts(tonic::Request::new(request))
                .await
                .expect("ends well");
            let found = found.into_inner();
            assert_eq!(found.key, key.map(|name| client.key(name)).unwrap_or_default(), "{start_ts}");
            assert_eq!(found.info.is_some(), key.is_some());
        }
        let request = PhysicalScanLockRequest {
            max_ts: 30,
            ..Default::default()
        };
        let locks = service
            .physical_scan_lock(tonic::Request::new(request))
            .await
            .expect("ends well");
        assert_eq!(
            locks
                .into_inner()
                .locks
                .iter()
                .map(|lock| lock.lock_version)
                .collect::<Vec<_>>(),
            [30]
        );
        let range = DeleteRangeRequest {
            start_key: client.key("b"),
            end_key: client.key("c"),
            ..Default::default()
        };
        let told = DeleteRangeRequest {
            notify_only: true,
            ..range.clone()
        };
        assert_eq!(client.delete_range(told).await, Default::default());
        assert!(client.get(client.get_of("b", 40)).await.error.is_some(), "only told");
        assert_eq!(client.delete_range(range).await, Default::default());
        assert_eq!(client.must_get("b", 40).await, None);
        assert_eq!(client.must_get("c", 40).await.as_deref(), Some("3"));
        let request = UnsafeDestroyRangeRequest {
            context: client.store.context(),
            start_key: client.key("c"),
            end_key: client.key("d"),
        };
        let gone = service
            .unsafe_destroy_range(tonic::Request::new(request))
            .await
            .expect("ends well");
        assert_eq!(gone.into_inner(), Default::default());
        assert_eq!(client.must_get("c", 40).await, None);
        assert_eq!(client.must_get("a", 40).await.as_deref(), Some("1"));
    }
}
