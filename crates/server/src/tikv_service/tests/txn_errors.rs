//! What transactions are refused, and what their clients are told.

use super::txn::clients;
use super::*;
use proto::errorpb;

/// One error of a key, with every field that clients read.
#[tokio::test]
async fn errors_of_a_key() {
    for client in clients() {
        client.must_put(&[("a", "1")], 10, 20).await;
        let mut answer = client.prewrite(client.puts(&[("a", "2")], 15)).await;
        let conflict = WriteConflict {
            start_ts: 15,
            conflict_ts: 10,
            key: client.key("a"),
            primary: client.key("a"),
            conflict_commit_ts: 20,
            reason: write_conflict::Reason::Optimistic.into(),
        };
        assert_eq!(answer.errors.pop().expect("committed after").conflict, Some(conflict));
        let insert = PrewriteRequest {
            mutations: vec![client.mutation(Op::Insert, "a", "3")],
            ..client.puts(&[("a", "3")], 30)
        };
        let answer = client.prewrite(insert).await;
        let exists = answer.errors[0].already_exist.as_ref().expect("exists");
        assert_eq!(exists.key, client.key("a"));

        let missing = client.commit(client.commit_of(&["b"], 40, 50)).await.error.expect("no lock");
        assert_eq!(missing.txn_lock_not_found.expect("no lock").key, client.key("b"));
        assert!(missing.retryable.contains("TxnLockNotFound"), "older clients look for it");
        let committed = BatchRollbackRequest {
            start_version: 10,
            keys: client.keys(&["a"]),
            ..Default::default()
        };
        let committed = client.rollback(committed).await.error.expect("committed");
        assert!(committed.abort.contains("Committed"), "{committed:?}");
        let cleanup = CleanupRequest {
            key: client.key("a"),
            start_version: 10,
            ..Default::default()
        };
        let cleaned = client.cleanup(cleanup).await;
        assert_eq!((cleaned.commit_version, cleaned.error), (20, None));

        client.must_prewrite(client.puts(&[("c", "1"), ("d", "2")], 60)).await;
        let answer = client.prewrite(client.puts(&[("c", "3"), ("d", "4"), ("e", "5")], 70)).await;
        let locked: Vec<Bytes> = answer
            .errors
            .iter()
            .map(|e| e.locked.as_ref().expect("locked").key.clone())
            .collect();
        assert_eq!(locked, client.keys(&["c", "d"]), "all at once");
        assert_eq!(client.must_get("e", 80).await, None, "nothing was written");

        let mut asserts = client.puts(&[("a", "9")], 90);
        asserts.assertion_level = AssertionLevel::Strict.into();
        asserts.mutations[0].assertion = Assertion::NotExist.into();
        let answer = client.prewrite(asserts).await;
        let failed = answer.errors[0].assertion_failed.as_ref().expect("it exists");
        let expected = AssertionFailed {
            start_ts: 90,
            key: client.key("a"),
            assertion: Assertion::NotExist.into(),
            existing_start_ts: 10,
            existing_commit_ts: 20,
        };
        assert_eq!(*failed, expected);
    }
}

/// One well-formed request of each kind that goes to a region.
fn requests(context: &Context, key: &Bytes, end: &Bytes) -> Vec<Request> {
    let context = Some(context.clone());
    let mutation = |op: Op| Mutation {
        op: op.into(),
        key: key.clone(),
        value: if op == Op::Put { text("v") } else { Bytes::new() },
        ..Default::default()
    };
    let keys = vec![key.clone()];
    vec![
        Request::Get(GetRequest {
            context: context.clone(),
            key: key.clone(),
            version: 5,
            ..Default::default()
        }),
        Request::BatchGet(BatchGetRequest {
            context: context.clone(),
            keys: keys.clone(),
            version: 5,
            ..Default::default()
        }),
        Request::Scan(ScanRequest {
            context: context.clone(),
            start_key: key.clone(),
            end_key: end.clone(),
            limit: 10,
            version: 5,
            ..Default::default()
        }),
        Request::Prewrite(PrewriteRequest {
            context: context.clone(),
            mutations: vec![mutation(Op::Put)],
            primary_lock: key.clone(),
            start_version: 10,
            lock_ttl: 3000,
            ..Default::default()
        }),
        Request::Commit(CommitRequest {
            context: context.clone(),
            keys: keys.clone(),
            start_version: 10,
            commit_version: 11,
            ..Default::default()
        }),
        Request::Cleanup(CleanupRequest {
            context: context.clone(),
            key: key.clone(),
            start_version: 10,
            ..Default::default()
        }),
        Request::BatchRollback(BatchRollbackRequest {
            context: context.clone(),
            keys: keys.clone(),
            start_version: 10,
            ..Default::default()
        }),
        Request::PessimisticLock(PessimisticLockRequest {
            context: context.clone(),
            mutations: vec![mutation(Op::PessimisticLock)],
            primary_lock: key.clone(),
            start_version: 10,
            for_update_ts: 10,
            ..Default::default()
        }),
        Request::PessimisticRollback(PessimisticRollbackRequest {
            context: context.clone(),
            keys: keys.clone(),
            start_version: 10,
            for_update_ts: 10,
        }),
        Request::TxnHeartBeat(TxnHeartBeatRequest {
            context: context.clone(),
            primary_lock: key.clone(),
            start_version: 10,
            advise_lock_ttl: 3000,
            ..Default::default()
        }),
        Request::CheckTxnStatus(CheckTxnStatusRequest {
            context: context.clone(),
            primary_key: key.clone(),
            lock_ts: 10,
            rollback_if_not_exist: true,
            ..Default::default()
        }),
        Request::CheckSecondaryLocks(CheckSecondaryLocksRequest {
            context: context.clone(),
            keys: keys.clone(),
            start_version: 10,
        }),
        Request::ScanLock(ScanLockRequest {
            context: context.clone(),
            max_version: 100,
            start_key: key.clone(),
            end_key: end.clone(),
            ..Default::default()
        }),
        Request::ResolveLock(ResolveLockRequest {
            context: context.clone(),
            start_version: 10,
            keys,
            ..Default::default()
        }),
        Request::DeleteRange(DeleteRangeRequest {
            context,
            start_key: key.clone(),
            end_key: end.clone(),
            ..Default::default()
        }),
    ]
}

/// The region error of an answer and the text of any other, whichever kind it is.
fn failure(answer: Answer) -> (Option<Box<errorpb::Error>>, String) {
    let one = |error: Option<Box<KeyError>>| error.map_or(String::new(), |error| error.abort);
    let first = |mut errors: Vec<KeyError>| errors.pop().map_or(String::new(), |error| error.abort);
    let pair = |pairs: Vec<KvPair>, error: Option<Box<KeyError>>| {
        let of_pair = pairs.into_iter().find_map(|pair| pair.error);
        assert_eq!(of_pair, error, "for older clients and newer ones");
        one(error)
    };
    match answer {
        Answer::Get(a) => (a.region_error, one(a.error)),
        Answer::BatchGet(a) => (a.region_error, pair(a.pairs, a.error)),
        Answer::Scan(a) => (a.region_error, pair(a.pairs, a.error)),
        Answer::Prewrite(a) => (a.region_error, first(a.errors)),
        Answer::Commit(a) => (a.region_error, one(a.error)),
        Answer::Cleanup(a) => (a.region_error, one(a.error)),
        Answer::BatchRollback(a) => (a.region_error, one(a.error)),
        Answer::PessimisticLock(a) => (a.region_error, first(a.errors)),
        Answer::PessimisticRollback(a) => (a.region_error, first(a.errors)),
        Answer::TxnHeartBeat(a) => (a.region_error, one(a.error)),
        Answer::CheckTxnStatus(a) => (a.region_error, one(a.error)),
        Answer::CheckSecondaryLocks(a) => (a.region_error, one(a.error)),
        Answer::ScanLock(a) => (a.region_error, one(a.error)),
        Answer::ResolveLock(a) => (a.region_error, one(a.error)),
        Answer::DeleteRange(a) => (a.region_error, a.error),
        other => panic!("{other:?} is not a transaction's"),
    }
}

/// Refused, unary and in a batch, with one error and not two; nothing was written.
async fn must_fail(store: &Fixture, request: Request, check: impl Fn(Option<Box<errorpb::Error>>, String)) {
    let alone = store.unary(request.clone()).await;
    assert_eq!(alone, store.batched(request).await, "unary and batched");
    let (region_error, text) = failure(alone);
    assert!(
        region_error.is_some() == text.is_empty(),
        "one of both: {region_error:?} {text:?}"
    );
    check(region_error, text);
    for cf in engine::Cf::DATA {
        let mut cursor = store.kv.engine().snapshot().cursor(cf, b"", b"").expect("memory");
        assert_eq!(cursor.next().expect("memory"), None);
    }
}

#[tokio::test]
async fn regions_that_do_not_serve() {
    for client in clients() {
        let store = &client.store;
        let (key, end) = (client.key("k"), client.key("z"));
        let of = |context: Context| requests(&context, &key, &end);
        let elsewhere = Context {
            region_id: 9,
            ..store.context_of(1)
        };
        for request in of(elsewhere) {
            must_fail(store, request, |error, _| {
                assert_eq!(error.expect("region 9").region_not_found.expect("region 9").region_id, 9);
            })
            .await;
        }
        let old = Context {
            region_epoch: Some(RegionEpoch { conf_ver: 1, version: 0 }),
            ..store.context_of(1)
        };
        for request in of(old) {
            must_fail(store, request, |error, _| {
                let current = error.expect("old").epoch_not_match.expect("old").current_regions;
                assert_eq!(current.iter().map(|region| region.id).collect::<Vec<_>>(), [1]);
            })
            .await;
        }
        let mut wrong_store = store.context_of(1);
        wrong_store.peer.as_mut().expect("set").store_id = 7;
        for request in of(wrong_store) {
            must_fail(store, request, |error, _| {
                assert_eq!(error.expect("store 7").store_not_match.expect("store 7").request_store_id, 7);
            })
            .await;
        }
        let leader = Peer {
            id: 5,
            store_id: 6,
            ..Default::default()
        };
        for request in of(store.context_of(1)) {
            let not_led = || kv::Error::NotLeader {
                region: RegionId(1),
                leader: Some(leader),
            };
            store.kv.fail_next([not_led(), not_led()]);
            must_fail(store, request, |error, _| {
                assert_eq!(error.expect("moved").not_leader.expect("moved").leader, Some(leader));
            })
            .await;
        }
    }
}

/// Keys of another region than the one that is asked.
#[tokio::test]
async fn keys_outside_the_region() {
    let border = ::txn::Key::from_user(b"m");
    let regions = vec![
        memory::region(1, b"", border.encoded()),
        memory::region(2, border.encoded(), b""),
    ];
    let store = Fixture::of_regions(V1, regions);
    for request in requests(&store.context_of(1), &text("t"), &text("z")) {
        must_fail(&store, request, |error, _| {
            assert_eq!(error.expect("outside").key_not_in_region.expect("outside").region_id, 1);
        })
        .await;
    }
}

#[tokio::test]
async fn keys_and_requests_of_another_api_version() {
    let cases = [
        (V1, 2, "k", "store holds data of API V1"),
        (V1Ttl, 0, "k", "no transactions"),
        (V2, 2, "k", "not a transaction's"),
        (V2, 2, "r\0\0\x01k", "not a transaction's"),
        (V2, 0, "k", "not a transaction's"),
    ];
    for (api, marked, key, told) in cases {
        let store = Fixture::new(api);
        let context = Context {
            api_version: marked,
            ..store.context_of(1)
        };
        for request in requests(&context, &text(key), &text("z")) {
            // Locks may be looked for anywhere.
            if matches!(request, Request::ScanLock(_)) && told == "not a transaction's" {
                continue;
            }
            must_fail(&store, request, |_, text| assert!(text.contains(told), "{api:?}: {text}")).await;
        }
    }
    let tidb = Fixture::new(V2);
    let context = Context {
        api_version: 0,
        ..tidb.context_of(1)
    };
    for request in requests(&context, &text("mDDL"), &text("n")) {
        let (error, text) = failure(tidb.unary(request).await);
        assert_eq!((error, text.contains("API")), (None, false), "{text}");
    }
}

/// What is busy below is waited for, and in the end told in a way that every client bears.
#[tokio::test]
async fn queues_that_are_full() {
    let busy = || kv::Error::Busy {
        reason: "queue of region 1",
    };
    for client in clients() {
        let store = &client.store;
        let (key, end) = (client.key("k"), client.key("z"));
        for request in requests(&store.context_of(1), &key, &end) {
            store.kv.fail_next([busy(), busy()]);
            let (error, _) = failure(store.unary(request).await);
            assert_eq!(error, None, "waited for");
        }
    }
    let store = Fixture::new(V1);
    store.kv.fail_next(std::iter::repeat_with(busy).take(1000));
    for request in requests(&store.context_of(1), &text("k"), &text("z")).into_iter().take(4) {
        let error = failure(store.unary(request).await).0.expect("busy to the end");
        assert!(error.stale_command.is_some() && error.server_is_busy.is_none(), "{error:?}");
    }
}
