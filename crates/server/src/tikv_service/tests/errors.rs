//! What is refused, and what the client is told.

use super::*;
use crate::call::Act;
use crate::error::{WireError, of_region};
use crate::limits::{BATCH_KEYS_MAX, KEY_BYTES_MAX};
use proto::errorpb;

/// The region error and the text of an answer, whichever kind it is.
fn failure(answer: Answer) -> (Option<Box<errorpb::Error>>, String) {
    let pairs = |pairs: Vec<KvPair>| {
        pairs
            .into_iter()
            .find_map(|pair| pair.error)
            .map_or(String::new(), |error| error.abort)
    };
    match answer {
        Answer::RawGet(a) => (a.region_error, a.error),
        Answer::RawBatchGet(a) => (a.region_error, pairs(a.pairs)),
        Answer::RawPut(a) => (a.region_error, a.error),
        Answer::RawBatchPut(a) => (a.region_error, a.error),
        Answer::RawDelete(a) => (a.region_error, a.error),
        Answer::RawBatchDelete(a) => (a.region_error, a.error),
        Answer::RawScan(a) => (a.region_error, pairs(a.kvs)),
        Answer::RawBatchScan(a) => (a.region_error, pairs(a.kvs)),
        Answer::RawDeleteRange(a) => (a.region_error, a.error),
        other => panic!("{other:?} is not raw"),
    }
}

/// One well-formed request of each kind.
fn requests(context: &Context, api: ApiVersion) -> Vec<Request> {
    let context = Some(context.clone());
    let (key, end) = (key(api, "k"), key(api, "z"));
    let pair = KvPair {
        key: key.clone(),
        value: text("v"),
        ..Default::default()
    };
    let range = KeyRange {
        start_key: key.clone(),
        end_key: end.clone(),
    };
    vec![
        Request::RawGet(RawGetRequest {
            context: context.clone(),
            key: key.clone(),
            ..Default::default()
        }),
        Request::RawBatchGet(RawBatchGetRequest {
            context: context.clone(),
            keys: vec![key.clone()],
            ..Default::default()
        }),
        Request::RawPut(RawPutRequest {
            context: context.clone(),
            key: key.clone(),
            value: text("v"),
            ..Default::default()
        }),
        Request::RawBatchPut(RawBatchPutRequest {
            context: context.clone(),
            pairs: vec![pair],
            ..Default::default()
        }),
        Request::RawDelete(RawDeleteRequest {
            context: context.clone(),
            key: key.clone(),
            ..Default::default()
        }),
        Request::RawBatchDelete(RawBatchDeleteRequest {
            context: context.clone(),
            keys: vec![key.clone()],
            ..Default::default()
        }),
        Request::RawScan(RawScanRequest {
            context: context.clone(),
            start_key: key.clone(),
            end_key: end.clone(),
            limit: 10,
            ..Default::default()
        }),
        Request::RawBatchScan(RawBatchScanRequest {
            context: context.clone(),
            ranges: vec![range],
            each_limit: 10,
            ..Default::default()
        }),
        Request::RawDeleteRange(RawDeleteRangeRequest {
            context,
            start_key: key,
            end_key: end,
            ..Default::default()
        }),
    ]
}

/// Every request that is refused changes nothing, is told one error and not two, and the same in a batch.
async fn must_fail(store: &Fixture, request: Request, check: impl Fn(Option<Box<errorpb::Error>>, String)) {
    let alone = store.unary(request.clone()).await;
    assert_eq!(alone, store.batched(request).await, "unary and batched");
    let (region_error, text) = failure(alone);
    assert!(
        region_error.is_some() == text.is_empty(),
        "one of both: {region_error:?} {text:?}"
    );
    check(region_error, text);
    assert_eq!(
        store
            .kv
            .engine()
            .snapshot()
            .cursor(engine::Cf::Default, b"", b"")
            .and_then(|mut c| c.next())
            .expect("memory"),
        None
    );
}

#[tokio::test]
async fn requests_of_another_api_version() {
    for api in ALL {
        let store = Fixture::new(api);
        for request in [ApiVersion::V1, V1Ttl, V2] {
            let marked = match request {
                V1 => 0,
                V1Ttl => 1,
                V2 => 2,
            };
            if api == request || (api, request) == (V1Ttl, V1) {
                continue;
            }
            let context = Context {
                api_version: marked,
                ..store.context_of(1)
            };
            for request in requests(&context, api) {
                must_fail(&store, request, |_, text| {
                    let told = format!(
                        "store holds data of API {}, request is of API version {marked}",
                        raw::api::name(api)
                    );
                    assert_eq!(text, told);
                })
                .await;
            }
        }
    }
}

#[tokio::test]
async fn regions_that_are_not_as_the_client_believes() {
    type Breaks = fn(&mut Context);
    type Told = fn(&errorpb::Error) -> bool;
    let cases: [(&str, Breaks, Told); 6] = [
        (
            "another region",
            |c| c.region_id = 9,
            |e| e.region_not_found.is_some_and(|e| e.region_id == 9),
        ),
        ("no region", |c| c.region_id = 0, |e| e.region_not_found.is_some()),
        (
            "an old range",
            |c| c.region_epoch = Some(RegionEpoch { conf_ver: 1, version: 0 }),
            |e| {
                e.epoch_not_match
                    .as_ref()
                    .is_some_and(|e| e.current_regions == [memory::region(1, b"", b"")])
            },
        ),
        ("no epoch", |c| c.region_epoch = None, |e| e.epoch_not_match.is_some()),
        (
            "another store",
            |c| {
                c.peer = Some(Peer {
                    id: 1,
                    store_id: 8,
                    ..Default::default()
                })
            },
            |e| {
                e.store_not_match
                    .is_some_and(|e| (e.request_store_id, e.actual_store_id) == (8, STORE))
            },
        ),
        (
            "another peer",
            |c| {
                c.peer = Some(Peer {
                    id: 5,
                    store_id: STORE,
                    ..Default::default()
                })
            },
            |e| {
                e.mismatch_peer_id
                    .is_some_and(|e| (e.request_peer_id, e.store_peer_id) == (5, 1))
            },
        ),
    ];
    for api in ALL {
        let store = Fixture::new(api);
        for (name, breaks, told) in &cases {
            let mut context = store.context_of(1);
            breaks(&mut context);
            for request in requests(&context, api) {
                must_fail(&store, request, |error, _| {
                    let error = error.expect("a region error");
                    assert!(told(&error), "{api:?} {name}: {error:?}");
                    assert!(!error.message.is_empty() && error.message.len() < 100, "{}", error.message);
                })
                .await;
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_says_little_is_served() {
    let store = Fixture::new(V1);
    let context = Context {
        peer: None,
        cluster_id: 0,
        ..store.context_of(1)
    };
    for request in requests(&context, V1) {
        assert_eq!(failure(store.unary(request).await), (None, String::new()));
    }
}

#[tokio::test]
async fn another_cluster() {
    let store = Fixture::new(V1);
    let context = Context {
        cluster_id: CLUSTER + 1,
        ..store.context_of(1)
    };
    for request in requests(&context, V1) {
        let status = store.try_unary(request.clone()).await.expect_err("refused");
        assert_eq!(
            (status.code(), status.message()),
            (tonic::Code::InvalidArgument, "request for cluster 43 reached cluster 42")
        );
        let stream = futures::stream::iter([Ok(message(vec![(1, request)]))]);
        let ended: Vec<_> = BatchCommands::new(store.service.handlers.clone(), stream)
            .take(1)
            .collect()
            .await;
        assert_eq!(
            ended[0].as_ref().expect_err("the stream ends").code(),
            tonic::Code::InvalidArgument
        );
    }
}

#[tokio::test]
async fn keys_outside_of_the_region() {
    for api in ALL {
        let stored = |name| raw::api::region_key(api, key(api, name)).expect("a raw key");
        let region = memory::region(1, &stored("l"), &stored("y"));
        let store = Fixture::of_regions(api, vec![region.clone()]);
        for request in requests(&store.context_of(1), api) {
            must_fail(&store, request, |error, _| {
                let error = error.and_then(|error| error.key_not_in_region).expect("a key outside");
                assert_eq!(
                    (error.region_id, &error.start_key, &error.end_key),
                    (1, &region.start_key, &region.end_key),
                    "{api:?}"
                );
                assert_eq!(error.key, stored("k"), "{api:?}: as region borders are written");
            })
            .await;
        }
    }
}

#[tokio::test]
async fn malformed_requests() {
    let store = Fixture::new(V1);
    let context = store.context();
    let long = Bytes::from(vec![b'k'; KEY_BYTES_MAX + 1]);
    let many = vec![Bytes::from_static(b"k"); BATCH_KEYS_MAX + 1];
    let pair = |key: &Bytes| KvPair {
        key: key.clone(),
        ..Default::default()
    };
    let turned = KeyRange {
        start_key: text("b"),
        end_key: text("a"),
    };
    let cases = vec![
        (
            Request::RawGet(RawGetRequest {
                context: context.clone(),
                key: long.clone(),
                ..Default::default()
            }),
            "key of 8193 bytes is over the limit of 8192",
        ),
        (
            Request::RawPut(RawPutRequest {
                context: context.clone(),
                key: vec![0; 16 << 20].into(),
                ..Default::default()
            }),
            "key of 16777216 bytes is over the limit of 8192",
        ),
        (
            Request::RawDelete(RawDeleteRequest {
                context: context.clone(),
                key: long.clone(),
                ..Default::default()
            }),
            "key of 8193 bytes is over the limit of 8192",
        ),
        (
            Request::RawBatchPut(RawBatchPutRequest {
                context: context.clone(),
                pairs: vec![pair(&text("a")), pair(&long)],
                ..Default::default()
            }),
            "key of 8193 bytes is over the limit of 8192",
        ),
        (
            Request::RawBatchGet(RawBatchGetRequest {
                context: context.clone(),
                keys: many.clone(),
                ..Default::default()
            }),
            "batch of 65537 is over the limit of 65536",
        ),
        (
            Request::RawBatchPut(RawBatchPutRequest {
                context: context.clone(),
                pairs: many.iter().map(pair).collect(),
                ..Default::default()
            }),
            "batch of 65537 is over the limit of 65536",
        ),
        (
            Request::RawBatchDelete(RawBatchDeleteRequest {
                context: context.clone(),
                keys: many.clone(),
                ..Default::default()
            }),
            "batch of 65537 is over the limit of 65536",
        ),
        (
            Request::RawGet(RawGetRequest {
                context: context.clone(),
                key: text("k"),
                cf: "raft".into(),
            }),
            "no such column family for raw data",
        ),
        (
            Request::RawPut(RawPutRequest {
                context: context.clone(),
                key: text("k"),
                ttl: 1,
                ..Default::default()
            }),
            "store is not configured for keys that expire",
        ),
        (
            Request::RawScan(RawScanRequest {
                context: context.clone(),
                start_key: text("b"),
                end_key: text("a"),
                limit: 1,
                ..Default::default()
            }),
            "range ends before it starts",
        ),
        (
            Request::RawScan(RawScanRequest {
                context: context.clone(),
                start_key: text("a"),
                end_key: text("b"),
                limit: 1,
                reverse: true,
                ..Default::default()
            }),
            "range ends before it starts",
        ),
        (
            Request::RawBatchScan(RawBatchScanRequest {
                context: context.clone(),
                ranges: vec![turned],
                each_limit: 1,
                ..Default::default()
            }),
            "range ends before it starts",
        ),
        (
            Request::RawDeleteRange(RawDeleteRangeRequest {
                context,
                start_key: text("b"),
                end_key: text("a"),
                ..Default::default()
            }),
            "range ends before it starts",
        ),
    ];
    for (request, told) in cases {
        must_fail(&store, request, |_, text| assert_eq!(text, told)).await;
    }
}

#[tokio::test]
async fn unary_only_requests_are_refused_alike() {
    let store = Fixture::new(V1);
    let request = RawGetKeyTtlRequest {
        context: store.context(),
        key: text("k"),
        ..Default::default()
    };
    let answer = store
        .service
        .raw_get_key_ttl(tonic::Request::new(request))
        .await
        .expect("ends well")
        .into_inner();
    assert_eq!(answer.error, "store is not configured for keys that expire");
    let request = RawCasRequest {
        context: store.context(),
        key: text("k"),
        ttl: 5,
        ..Default::default()
    };
    let answer = store
        .service
        .raw_compare_and_swap(tonic::Request::new(request))
        .await
        .expect("ends well")
        .into_inner();
    assert_eq!(
        (&answer.error[..], answer.succeed),
        ("store is not configured for keys that expire", false)
    );
    let request = RawChecksumRequest {
        context: store.context(),
        algorithm: 9,
        ..Default::default()
    };
    let answer = store
        .service
        .raw_checksum(tonic::Request::new(request))
        .await
        .expect("ends well")
        .into_inner();
    assert_eq!(answer.error, "unknown checksum algorithm 9");
    let request = RawCasRequest {
        context: Some(Context {
            region_id: 9,
            ..store.context_of(1)
        }),
        ..Default::default()
    };
    let answer = store
        .service
        .raw_compare_and_swap(tonic::Request::new(request))
        .await
        .expect("ends well")
        .into_inner();
    assert!(answer.region_error.is_some_and(|error| error.region_not_found.is_some()));
}

#[tokio::test]
async fn rpcs_that_are_not_served() {
    let store = Fixture::new(V1);
    let status = store
        .service
        .kv_gc(tonic::Request::new(GcRequest::default()))
        .await
        .expect_err("stores collect by themselves");
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    let status = store
        .service
        .raw_coprocessor(tonic::Request::new(RawCoprocessorRequest::default()))
        .await
        .expect_err("not served");
    assert_eq!(status.code(), tonic::Code::Unimplemented);
}

/// An entry that raft would refuse is refused for good: no client may send it again and again.
#[tokio::test]
async fn entries_over_the_limit() {
    let store = Fixture::new(V1);
    let value = Bytes::from(vec![0; 9 << 20]);
    let request = RawPutRequest {
        context: store.context(),
        key: text("k"),
        value,
        ..Default::default()
    };
    must_fail(&store, Request::RawPut(request), |error, _| {
        let error = error.and_then(|error| error.raft_entry_too_large).expect("too large");
        assert!(error.region_id == 1 && error.entry_size > 9 << 20);
    })
    .await;
}

#[test]
fn every_region_error_by_what_was_under_way() {
    use kv::Error as E;
    let (region, leader) = (
        RegionId(3),
        Peer {
            id: 5,
            store_id: 6,
            ..Default::default()
        },
    );
    let whole = |error, act| match of_region(error, act) {
        WireError::Region(error) => error,
        other => panic!("{other:?}"),
    };
    for act in [Act::Read, Act::Write, Act::Swap] {
        let hinted = whole(
            E::NotLeader {
                region,
                leader: Some(leader),
            },
            act,
        )
        .not_leader
        .expect("not leader");
        assert_eq!((hinted.region_id, hinted.leader), (3, Some(leader)));
        let plain = whole(E::NotLeader { region, leader: None }, act)
            .not_leader
            .expect("not leader");
        assert_eq!((plain.region_id, plain.leader), (3, None));
        let error = whole(
            E::Busy {
                reason: "queue of region 3",
            },
            act,
        );
        assert!(
            error.stale_command.is_some() && error.server_is_busy.is_none(),
            "busy kills the Rust client: {error:?}"
        );
        assert_eq!(
            whole(E::DiskFull { store: 4 }, act).disk_full.expect("disk full").store_id,
            [4]
        );
        assert_eq!(
            whole(E::ReadIndexNotReady { region }, act)
                .read_index_not_ready
                .expect("not ready")
                .region_id,
            3
        );
        assert_eq!(
            whole(E::NotInitialized { region }, act)
                .region_not_initialized
                .expect("no data")
                .region_id,
            3
        );
        assert_eq!(
            whole(
                E::EntryTooLarge {
                    region,
                    size: 9,
                    limit: 8
                },
                act
            )
            .raft_entry_too_large
            .expect("too large")
            .entry_size,
            9
        );
    }
    for error in [E::StaleCommand, E::Deadline, E::Shutdown] {
        let text = of_region(error, Act::Swap);
        assert!(
            matches!(&text, WireError::Text(text) if text.contains("undetermined")),
            "clients would swap twice: {text:?}"
        );
    }
    assert!(whole(E::StaleCommand, Act::Read).stale_command.is_some());
    assert!(whole(E::StaleCommand, Act::Write).stale_command.is_some());
    assert!(whole(E::Shutdown, Act::Read).stale_command.is_some());
    assert!(whole(E::Shutdown, Act::Write).undetermined_result.is_some());
    assert!(whole(E::Deadline, Act::Write).undetermined_result.is_some());
    let busy = whole(E::Deadline, Act::Read).server_is_busy.expect("busy");
    assert_eq!(busy.reason, "deadline is exceeded");
}

/// A write without an answer ends at the deadline, undetermined; a read as well, and says so.
#[tokio::test]
async fn deadlines() {
    let service = service(SlowKv::new(true), V1);
    for (millis, header) in [(50, None), (0, Some("50m"))] {
        let context = Some(Context {
            max_execution_duration_ms: millis,
            ..context(V1)
        });
        let mut get = tonic::Request::new(RawGetRequest {
            context: context.clone(),
            key: text("k"),
            ..Default::default()
        });
        let mut put = tonic::Request::new(RawPutRequest {
            context: context.clone(),
            key: text("k"),
            ..Default::default()
        });
        if let Some(header) = header {
            get.metadata_mut().insert("grpc-timeout", header.parse().expect("ascii"));
            put.metadata_mut().insert("grpc-timeout", header.parse().expect("ascii"));
        }
        let began = tokio::time::Instant::now();
        let answer = service.raw_get(get).await.expect("ends well").into_inner();
        assert_eq!(
            answer
                .region_error
                .and_then(|e| e.server_is_busy)
                .expect("past the deadline")
                .reason,
            "deadline is exceeded"
        );
        let answer = service.raw_put(put).await.expect("ends well").into_inner();
        assert!(answer.region_error.is_some_and(|error| error.undetermined_result.is_some()));
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

/// Beyond the bound on requests in flight, others wait, then are refused with an error that every client retries.
#[tokio::test]
async fn too_many_requests() {
    let kv = SlowKv::new(true);
    let identity = Identity {
        cluster: ClusterId(CLUSTER),
        store: StoreId(STORE),
    };
    let txn = transactions(kv.clone(), Arc::new(MemEngine::new()), V1);
    let admission = Admission::new(1, Duration::from_millis(10));
    let service = TikvService::with_admission(kv.clone(), txn, identity, V1, admission);
    let get = || RawGetRequest {
        context: Some(context(V1)),
        key: text("k"),
        ..Default::default()
    };
    let mut first = service.raw_get(tonic::Request::new(get()));
    assert!(futures::poll!(&mut first).is_pending());
    let refused = service
        .raw_get(tonic::Request::new(get()))
        .await
        .expect("ends well")
        .into_inner();
    assert!(refused.region_error.is_some_and(|error| error.stale_command.is_some()));
    kv.release();
    assert!(first.await.expect("ends well").into_inner().not_found);
    let mut third = service.raw_get(tonic::Request::new(get()));
    assert!(futures::poll!(&mut third).is_pending());
    kv.release();
    assert!(third.await.expect("ends well").into_inner().not_found, "the place came free");
}

/// A full queue below is waited for inside the request, bounded; what is refused in the end is retried by every client.
#[tokio::test]
async fn full_queues() {
    let store = Fixture::new(V1);
    let busy = || kv::Error::Busy {
        reason: "queue of region 1",
    };
    store.put("zz", "0").await;
    for request in requests(&store.context_of(1), V1) {
        store.kv.fail_next([busy(), busy()]);
        assert_eq!(failure(store.unary(request).await), (None, String::new()));
    }
    store.kv.fail_next([busy(), busy()]);
    let request = RawCasRequest {
        context: store.context(),
        key: text("zz"),
        previous_value: text("0"),
        value: text("1"),
        ..Default::default()
    };
    let answer = store
        .service
        .raw_compare_and_swap(tonic::Request::new(request))
        .await
        .expect("ends well")
        .into_inner();
    assert!(answer.succeed, "{answer:?}");
    for request in requests(&store.context_of(1), V1) {
        store.kv.fail_next(std::iter::repeat_with(busy).take(4));
        let context = Context {
            max_execution_duration_ms: 12,
            ..store.context_of(1)
        };
        let hurried = requests(&context, V1)
            .into_iter()
            .find(|other| std::mem::discriminant(other) == std::mem::discriminant(&request));
        let (error, _) = failure(store.unary(hurried.expect("of each kind")).await);
        assert!(error.is_some_and(|error| error.stale_command.is_some()));
        // What is left of the failures must not meet the next request.
        while failure(store.unary(request.clone()).await).0.is_some() {}
    }
}
