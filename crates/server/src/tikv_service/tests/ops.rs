//! What each RPC does, by API version.

use super::*;
use engine::Cf;

/// Pairs of a test's table: keys and values, or starts and ends.
type Pairs<'a> = &'a [(&'a str, &'a str)];

fn pairs(pairs: Pairs) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}

#[tokio::test]
async fn raw_get() {
    for api in ALL {
        let store = Fixture::new(api);
        store.put("k", "v").await;
        assert_eq!(store.get("k").await.as_deref(), Some("v"), "{api:?}");
    }
}

#[tokio::test]
async fn raw_get_not_found() {
    for api in ALL {
        assert_eq!(Fixture::new(api).get("k").await, None, "{api:?}");
    }
}

/// What is stored is what `docs/format.md` draws.
#[tokio::test]
async fn raw_put() {
    let cases: [(ApiVersion, &[u8], &[u8]); 3] = [
        (V1, b"zkey", b"v"),
        (V1Ttl, b"zkey", b"v\0\0\0\0\0\0\0\0"),
        (V2, b"zr\0\0\x01key\0\xfe", b"v\0"),
    ];
    for (api, key, value) in cases {
        let store = Fixture::new(api);
        store.put("key", "v").await;
        let stored = store.kv.engine().get(Cf::Default, key).expect("memory does not fail");
        assert_eq!(stored.as_deref(), Some(value), "{api:?}");
    }
}

#[tokio::test]
async fn raw_get_after_raw_put() {
    for api in ALL {
        let store = Fixture::new(api);
        store.put("k", "v1").await;
        store.put("l", "other").await;
        store.put("k", "v2").await;
        assert_eq!(store.get("k").await.as_deref(), Some("v2"), "{api:?}");
        store.put("k", "").await;
        assert_eq!(
            store.get("k").await.as_deref(),
            Some(""),
            "{api:?}: an empty value is a value"
        );
    }
}

#[tokio::test]
async fn raw_get_after_raw_delete() {
    for api in ALL {
        let store = Fixture::new(api);
        store.put("k", "v").await;
        store.delete("k").await;
        assert_eq!(store.get("k").await, None, "{api:?}");
    }
}

#[tokio::test]
async fn raw_delete() {
    for api in ALL {
        let store = Fixture::new(api);
        store.delete("absent").await;
        store.put("k", "v").await;
        store.delete("k").await;
        let engine_key = engine::keys::data_key(&raw::api::region_key(api, store.key("k")).expect("a raw key"));
        let stored = store.kv.engine().get(Cf::Default, &engine_key).expect("memory does not fail");
        assert_eq!(stored, None, "{api:?}: nothing is left behind");
    }
}

#[tokio::test]
async fn raw_scan() {
    for api in ALL {
        let store = Fixture::new(api);
        for name in ["a", "aa", "aaaaaaaa", "b", "c", "d"] {
            store.put(name, name).await;
        }
        let all = [
            ("a", "a"),
            ("aa", "aa"),
            ("aaaaaaaa", "aaaaaaaa"),
            ("b", "b"),
            ("c", "c"),
            ("d", "d"),
        ];
        let cases: [(&str, &str, u32, Pairs); 7] = [
            ("", "z", 100, &all),
            ("", "z", 2, &all[..2]),
            ("", "z", 0, &[]),
            ("aa", "c", 100, &all[1..4]),
            ("aab", "b", 100, &[]),
            ("b", "b", 100, &[]),
            ("d", "z", 1, &all[5..]),
        ];
        for (from, to, limit, expected) in cases {
            assert_eq!(
                store.scan(from, to, limit).await,
                pairs(expected),
                "{api:?} {from}..{to} limit {limit}"
            );
        }
    }
}

#[tokio::test]
async fn raw_scan_after_raw_put() {
    for api in ALL {
        let store = Fixture::new(api);
        store.put("b", "1").await;
        assert_eq!(store.scan("", "z", 10).await, pairs(&[("b", "1")]), "{api:?}");
        store.put("a", "2").await;
        store.put("b", "3").await;
        assert_eq!(store.scan("", "z", 10).await, pairs(&[("a", "2"), ("b", "3")]), "{api:?}");
    }
}

#[tokio::test]
async fn raw_scan_after_raw_delete() {
    for api in ALL {
        let store = Fixture::new(api);
        for name in ["a", "b", "c"] {
            store.put(name, "v").await;
        }
        store.delete("b").await;
        assert_eq!(store.scan("", "z", 2).await, pairs(&[("a", "v"), ("c", "v")]), "{api:?}");
    }
}

/// A scan sees one state although the key it stands on is deleted meanwhile.
#[tokio::test]
async fn iter_with_raw_delete() {
    for api in ALL {
        let store = Fixture::new(api);
        for name in ["a", "b", "c"] {
            store.put(name, "v").await;
        }
        let call = crate::call::Call {
            ctx: kv::Context {
                region: base::RegionId(1),
                epoch: RegionEpoch { conf_ver: 1, version: 1 },
                ..Default::default()
            },
            version: context(api).api_version,
            stale: false,
            now: MonoTime::now(),
            wall: WallTime::now(),
            deadline: MonoTime::now() + Duration::from_secs(60),
        };
        let (view, viewed) = std::sync::mpsc::channel();
        store.kv.snapshot(
            &call.ctx,
            call.now,
            Box::new(move |outcome| drop(view.send(outcome.expect("served")))),
        );
        let mut cursor = viewed
            .try_recv()
            .expect("at once")
            .cursor(Cf::Default, b"", b"")
            .expect("memory does not fail");
        assert!(cursor.next().expect("memory does not fail").is_some());
        store.delete("b").await;
        store.put("d", "v").await;
        let rest = std::iter::from_fn(|| cursor.next().expect("memory does not fail")).count();
        assert_eq!((rest, store.scan("", "z", 10).await.len()), (2, 3), "{api:?}");
    }
}

#[tokio::test]
async fn scans_in_reverse_and_keys_only() {
    for api in ALL {
        let store = Fixture::new(api);
        for name in ["a", "b", "c", "d"] {
            store.put(name, name).await;
        }
        // A reverse scan starts at its upper end, exclusive.
        for (from, to, limit, expected) in [
            ("z", "", 10, "dcba"),
            ("d", "b", 10, "cb"),
            ("z", "", 2, "dc"),
            ("c", "b", 10, "b"),
            ("b", "b", 10, ""),
        ] {
            for key_only in [false, true] {
                let request = RawScanRequest {
                    context: store.context(),
                    start_key: store.key(from),
                    end_key: store.key(to),
                    limit,
                    key_only,
                    reverse: true,
                    ..Default::default()
                };
                let Answer::RawScan(answer) = store.unary(Request::RawScan(request)).await else {
                    panic!("another kind")
                };
                let names = store.names(answer.kvs);
                let keys: String = names.iter().map(|(key, _)| &key[..]).collect();
                assert_eq!(keys, expected, "{api:?} {from}..{to}");
                assert!(
                    names
                        .iter()
                        .all(|(key, value)| if key_only { value.is_empty() } else { key == value })
                );
            }
        }
    }
}

/// The Rust client names a whole range to each region; Go names the region's border. Both get what lies in the region.
#[tokio::test]
async fn scans_end_with_their_region() {
    let store = Fixture::of_regions(
        V1,
        vec![
            memory::region(1, b"", b"h"),
            memory::region(2, b"h", b"p"),
            memory::region(3, b"p", b""),
        ],
    );
    for (name, region) in [("a", 1), ("h", 2), ("k", 2), ("z", 3)] {
        let context = Some(store.context_of(region));
        let request = RawPutRequest {
            context,
            key: text(name),
            value: text(name),
            ..Default::default()
        };
        assert_eq!(
            store.unary(Request::RawPut(request)).await,
            Answer::RawPut(RawPutResponse::default())
        );
    }
    let cases = [
        ("h", "", false, Ok("hk")),
        ("i", "zz", false, Ok("k")),
        ("zz", "h", true, Ok("kh")),
        ("", "i", true, Ok("k")),
        ("p", "a", true, Ok("kh")),
    ];
    let outside = [
        ("g", "k", false, Err("g")),
        ("", "", false, Err("")),
        ("p", "", false, Err("p")),
        ("h", "a", true, Err("h")),
        ("z", "p", true, Err("z")),
    ];
    for (from, to, reverse, expected) in cases.into_iter().chain(outside) {
        let request = RawScanRequest {
            context: Some(store.context_of(2)),
            start_key: text(from),
            end_key: text(to),
            limit: 10,
            reverse,
            ..Default::default()
        };
        let Answer::RawScan(answer) = store.unary(Request::RawScan(request)).await else {
            panic!("another kind")
        };
        match expected {
            Ok(keys) => {
                assert_eq!(answer.region_error, None, "{from}..{to}");
                let found: Vec<u8> = answer.kvs.iter().flat_map(|pair| pair.key.to_vec()).collect();
                assert_eq!(found, keys.as_bytes(), "{from}..{to}");
            }
            Err(key) => {
                let error = answer
                    .region_error
                    .expect("a region error")
                    .key_not_in_region
                    .expect("for a key outside");
                assert_eq!((&error.key[..], error.region_id), (key.as_bytes(), 2), "{from}..{to}");
                assert_eq!((&error.start_key[..], &error.end_key[..]), (&b"h"[..], &b"p"[..]));
            }
        }
    }
}

#[tokio::test]
async fn batches_of_keys() {
    for api in ALL {
        let store = Fixture::new(api);
        let pair = |name: &str, value: &str| KvPair {
            key: store.key(name),
            value: text(value),
            ..Default::default()
        };
        let request = RawBatchPutRequest {
            context: store.context(),
            pairs: vec![pair("a", "1"), pair("b", "2"), pair("c", "3"), pair("a", "4")],
            ..Default::default()
        };
        let answer = store.unary(Request::RawBatchPut(request)).await;
        assert_eq!(answer, Answer::RawBatchPut(RawBatchPutResponse::default()), "{api:?}");
        let keys = ["c", "absent", "a", "c"].map(|name| store.key(name)).to_vec();
        let request = RawBatchGetRequest {
            context: store.context(),
            keys,
            ..Default::default()
        };
        let Answer::RawBatchGet(answer) = store.unary(Request::RawBatchGet(request)).await else {
            panic!("another kind")
        };
        assert_eq!(
            store.names(answer.pairs),
            pairs(&[("c", "3"), ("a", "4"), ("c", "3")]),
            "{api:?}: the last put of a key wins"
        );
        let keys = ["a", "absent", "b"].map(|name| store.key(name)).to_vec();
        let request = RawBatchDeleteRequest {
            context: store.context(),
            keys,
            ..Default::default()
        };
        let answer = store.unary(Request::RawBatchDelete(request)).await;
        assert_eq!(answer, Answer::RawBatchDelete(RawBatchDeleteResponse::default()), "{api:?}");
        assert_eq!(store.scan("", "z", 10).await, pairs(&[("c", "3")]), "{api:?}");
    }
}

#[tokio::test]
async fn batch_scans() {
    for api in ALL {
        let store = Fixture::new(api);
        for name in ["a", "b", "c", "d", "e"] {
            store.put(name, name).await;
        }
        let scan = |ranges: &[(&str, &str)], each_limit, reverse: bool| {
            let range = |(from, to): &(&str, &str)| {
                let open = to.is_empty() && !reverse;
                KeyRange {
                    start_key: store.key(from),
                    end_key: if open { Bytes::new() } else { store.key(to) },
                }
            };
            let ranges = ranges.iter().map(range).collect();
            Request::RawBatchScan(RawBatchScanRequest {
                context: store.context(),
                ranges,
                each_limit,
                reverse,
                ..Default::default()
            })
        };
        let cases: [(Pairs, u32, bool, &str); 4] = [
            (&[("a", "c"), ("d", "z")], 10, false, "abde"),
            (&[("a", "c"), ("b", "z")], 1, false, "ab"),
            // An open range ends where the next one starts.
            (&[("a", ""), ("c", "d")], 10, false, "abc"),
            (&[("z", "d"), ("c", "a")], 10, true, "edba"),
        ];
        for (ranges, limit, reverse, expected) in cases {
            let Answer::RawBatchScan(answer) = store.unary(scan(ranges, limit, reverse)).await else {
                panic!("another kind")
            };
            assert_eq!(answer.region_error, None);
            let keys: String = store.names(answer.kvs).into_iter().map(|(key, _)| key).collect();
            assert_eq!(keys, expected, "{api:?} {ranges:?}");
        }
    }
}

#[tokio::test]
async fn range_deletes() {
    for api in ALL {
        let store = Fixture::new(api);
        for name in ["a", "b", "c", "d"] {
            store.put(name, "v").await;
        }
        for (from, to, left) in [("x", "z", "abcd"), ("b", "b", "abcd"), ("b", "d", "ad"), ("", "z", "")] {
            let request = RawDeleteRangeRequest {
                context: store.context(),
                start_key: store.key(from),
                end_key: store.key(to),
                ..Default::default()
            };
            let answer = store.unary(Request::RawDeleteRange(request)).await;
            assert_eq!(answer, Answer::RawDeleteRange(RawDeleteRangeResponse::default()), "{api:?}");
            let keys: String = store.scan("", "z", 10).await.into_iter().map(|(key, _)| key).collect();
            assert_eq!(keys, left, "{api:?} {from}..{to}");
        }
    }
    let store = Fixture::new(V1);
    store.put("a", "v").await;
    let request = RawDeleteRangeRequest {
        context: store.context(),
        ..Default::default()
    };
    assert_eq!(
        store.unary(Request::RawDeleteRange(request)).await,
        Answer::RawDeleteRange(RawDeleteRangeResponse::default())
    );
    assert_eq!(store.get("a").await, None, "an open range is the whole region");
}

#[tokio::test]
async fn keys_with_a_time_to_live() {
    for api in [V1Ttl, V2] {
        let store = Fixture::new(api);
        let ttl = async |name: &str| {
            let request = RawGetKeyTtlRequest {
                context: store.context(),
                key: store.key(name),
                ..Default::default()
            };
            let answer = store
                .service
                .raw_get_key_ttl(tonic::Request::new(request))
                .await
                .expect("ends well")
                .into_inner();
            assert_eq!((&answer.region_error, &answer.error[..]), (&None, ""));
            (!answer.not_found).then_some(answer.ttl)
        };
        store.put_ttl("long", "v", 1000).await;
        store.put("forever", "v").await;
        assert!((990..=1000).contains(&ttl("long").await.expect("lives")), "{api:?}");
        assert_eq!((ttl("forever").await, ttl("absent").await), (Some(0), None), "{api:?}");
        // One that expired long ago, as if put then.
        let key = raw::api::region_key(api, store.key("old")).expect("a raw key");
        let value = raw::api::encode_value(
            api,
            raw::api::Value {
                user: text("v"),
                expiry: 1,
            },
        );
        let mut batch = engine::Batch::new();
        batch.put(Cf::Default, engine::keys::data_key(&key), value);
        store.kv.engine().write(batch).expect("memory does not fail");
        assert_eq!(
            (store.get("old").await, ttl("old").await),
            (None, None),
            "{api:?}: expired is absent"
        );
        assert_eq!(
            store.scan("", "z", 2).await,
            pairs(&[("forever", "v"), ("long", "v")]),
            "{api:?}: and not counted"
        );
        let swapped = swap(&store, "old", None, Some("new"), 0).await;
        assert_eq!(swapped, (true, None), "{api:?}");
    }
}

#[tokio::test]
async fn batches_with_times_to_live() {
    for api in [V1Ttl, V2] {
        let store = Fixture::new(api);
        // Which of both expire; `None`: refused.
        type Case = (&'static [u64], u64, Option<[bool; 2]>);
        let cases: [Case; 5] = [
            (&[], 0, Some([false, false])),
            (&[], 9, Some([true, true])),
            (&[9], 0, Some([true, true])),
            (&[0, 9], 0, Some([false, true])),
            (&[1, 2, 3], 0, None),
        ];
        for (ttls, ttl, expires) in cases {
            let pairs = ["a", "b"]
                .map(|name| KvPair {
                    key: store.key(name),
                    value: text("v"),
                    ..Default::default()
                })
                .to_vec();
            #[allow(deprecated)] // older clients still send the one `ttl` for all
            let request = RawBatchPutRequest {
                context: store.context(),
                pairs,
                ttl,
                ttls: ttls.to_vec(),
                ..Default::default()
            };
            let Answer::RawBatchPut(answer) = store.unary(Request::RawBatchPut(request)).await else {
                panic!("another kind")
            };
            let Some(expires) = expires else {
                assert_eq!(answer.error, "3 times to live for 2 pairs: wanted one, or one each");
                continue;
            };
            for (name, expires) in ["a", "b"].into_iter().zip(expires) {
                let request = RawGetKeyTtlRequest {
                    context: store.context(),
                    key: store.key(name),
                    ..Default::default()
                };
                let answer = store
                    .service
                    .raw_get_key_ttl(tonic::Request::new(request))
                    .await
                    .expect("ends well")
                    .into_inner();
                assert_eq!(answer.ttl > 0, expires, "{api:?} {ttls:?} {ttl} {name}");
            }
        }
    }
}

/// `(swapped, previous)`
async fn swap(store: &Fixture, name: &str, expected: Option<&str>, value: Option<&str>, ttl: u64) -> (bool, Option<String>) {
    let request = RawCasRequest {
        context: store.context(),
        key: store.key(name),
        value: text(value.unwrap_or("")),
        previous_not_exist: expected.is_none(),
        previous_value: text(expected.unwrap_or("")),
        ttl,
        delete: value.is_none(),
        ..Default::default()
    };
    let answer = store
        .service
        .raw_compare_and_swap(tonic::Request::new(request))
        .await
        .expect("ends well")
        .into_inner();
    assert_eq!((&answer.region_error, &answer.error[..]), (&None, ""));
    let previous = String::from_utf8(answer.previous_value.to_vec()).expect("tests put text");
    (answer.succeed, (!answer.previous_not_exist).then_some(previous))
}

#[tokio::test]
async fn compare_and_swap() {
    let some = |value: &str| Some(value.to_string());
    for api in ALL {
        let store = Fixture::new(api);
        // What is expected, what is put; what is told, what is there then.
        let steps = [
            (Some("v"), Some("w"), (false, None), None),
            (Some(""), Some("w"), (false, None), None),
            (None, Some("a"), (true, None), some("a")),
            (None, Some("b"), (false, some("a")), some("a")),
            (Some("b"), Some("c"), (false, some("a")), some("a")),
            (Some("a"), Some(""), (true, some("a")), some("")),
            (None, Some("c"), (false, some("")), some("")),
            (Some(""), Some("d"), (true, some("")), some("d")),
            (Some("x"), None, (false, some("d")), some("d")),
            (Some("d"), None, (true, some("d")), None),
            (None, None, (true, None), None),
        ];
        for (step, (expected, value, told, there)) in steps.into_iter().enumerate() {
            assert_eq!(swap(&store, "k", expected, value, 0).await, told, "{api:?} step {step}");
            assert_eq!(store.get("k").await, there, "{api:?} step {step}");
        }
        if api != V1 {
            assert!(swap(&store, "k", None, Some("v"), 50).await.0);
            let request = RawGetKeyTtlRequest {
                context: store.context(),
                key: store.key("k"),
                ..Default::default()
            };
            let answer = store
                .service
                .raw_get_key_ttl(tonic::Request::new(request))
                .await
                .expect("ends well")
                .into_inner();
            assert!((40..=50).contains(&answer.ttl), "{api:?} {}", answer.ttl);
        }
    }
}

/// A hundred increments through ten tasks, each a read and a compare-and-swap, against plain puts of a neighbour key.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn compare_and_swaps_do_not_lose_each_other() {
    let store = Arc::new(Fixture::new(V1));
    store.put("n", "0").await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let store = store.clone();
        tasks.spawn(async move {
            for _ in 0..10 {
                loop {
                    let seen = store.get("n").await.expect("is there");
                    let next = (seen.parse::<u32>().expect("a number") + 1).to_string();
                    if swap(&store, "n", Some(&seen), Some(&next), 0).await.0 {
                        break;
                    }
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no panic");
    }
    assert_eq!(store.get("n").await.as_deref(), Some("100"));
}

/// Even when its caller has gone, a write on its way keeps compare-and-swaps of its key out until it is answered.
#[tokio::test]
async fn a_forgotten_write_is_settled_before_the_next_swap() {
    let kv = SlowKv::new(false);
    let service = service(kv.clone(), V1);
    let put = RawPutRequest {
        context: Some(context(V1)),
        key: text("k"),
        value: text("v"),
        ..Default::default()
    };
    {
        let forgotten = service.raw_put(tonic::Request::new(put));
        assert!(futures::poll!(forgotten).is_pending());
    }
    let request = RawCasRequest {
        context: Some(context(V1)),
        key: text("k"),
        previous_not_exist: true,
        ..Default::default()
    };
    let mut swap = service.raw_compare_and_swap(tonic::Request::new(request));
    assert!(futures::poll!(&mut swap).is_pending());
    assert_eq!(kv.held(), 1, "only the put's answer waits: the swap has not got on");
    kv.release();
    let answer = swap.await.expect("ends well").into_inner();
    assert_eq!((answer.succeed, &answer.previous_value[..]), (false, &b"v"[..]));
}

#[tokio::test]
async fn checksums() {
    for api in ALL {
        let store = Fixture::new(api);
        let sum = async |ranges: &[(&str, &str)]| {
            let ranges = ranges
                .iter()
                .map(|(from, to)| KeyRange {
                    start_key: store.key(from),
                    end_key: store.key(to),
                })
                .collect();
            let request = RawChecksumRequest {
                context: store.context(),
                ranges,
                ..Default::default()
            };
            let answer = store
                .service
                .raw_checksum(tonic::Request::new(request))
                .await
                .expect("ends well")
                .into_inner();
            assert_eq!((&answer.region_error, &answer.error[..]), (&None, ""));
            (answer.checksum, answer.total_kvs, answer.total_bytes)
        };
        assert_eq!(sum(&[("", "z")]).await, (0, 0, 0), "{api:?}");
        store.put("1234", "56789").await;
        let prefix = store.key("").len() as u64;
        let one = sum(&[("", "z")]).await;
        assert_eq!((one.1, one.2), (1, 9 + prefix), "{api:?}");
        if api != V2 {
            assert_eq!(
                one.0, 0x995d_c9bb_df19_39fa,
                "{api:?}: the check value of CRC-64/XZ over key and value"
            );
        }
        store.put_ttl("b", "v", if api == V1 { 0 } else { 100 }).await;
        let two = sum(&[("a", "z")]).await;
        assert_eq!(
            (two.1, two.2),
            (1, 2 + prefix),
            "{api:?}: neither expiry nor flags are in the sum"
        );
        let both = (one.0 ^ two.0, 2, one.2 + two.2);
        assert_eq!(sum(&[("", "z")]).await, both, "{api:?}");
        assert_eq!(
            sum(&[("a", "z"), ("", "a")]).await,
            both,
            "{api:?}: the order of ranges does not count"
        );
    }
}

/// Java clients warm up with requests for the empty key, which is a key of V1 like any other.
#[tokio::test]
async fn the_empty_key() {
    for api in [V1, V1Ttl] {
        let store = Fixture::new(api);
        assert_eq!(store.get("").await, None, "{api:?}");
        assert_eq!(swap(&store, "", None, Some("w"), 0).await, (true, None), "{api:?}");
        store.put("", "v").await;
        assert_eq!(store.get("").await.as_deref(), Some("v"), "{api:?}");
        assert_eq!(store.scan("", "z", 10).await, pairs(&[("", "v")]), "{api:?}");
        store.delete("").await;
        assert_eq!(store.get("").await, None, "{api:?}");
    }
    // Under V2 the empty name has its prefix; no key at all is refused.
    let store = Fixture::new(V2);
    store.put("", "v").await;
    assert_eq!(store.get("").await.as_deref(), Some("v"));
    let request = RawGetRequest {
        context: store.context(),
        ..Default::default()
    };
    let Answer::RawGet(answer) = store.unary(Request::RawGet(request)).await else {
        panic!("another kind")
    };
    assert!(answer.error.contains("not a raw key of API V2"), "{}", answer.error);
}

#[tokio::test]
async fn column_families_are_apart() {
    let store = Fixture::new(V1);
    for cf in ["", "lock", "write"] {
        let request = RawPutRequest {
            context: store.context(),
            key: text("k"),
            value: text(cf),
            cf: cf.into(),
            ..Default::default()
        };
        assert_eq!(
            store.unary(Request::RawPut(request)).await,
            Answer::RawPut(RawPutResponse::default())
        );
    }
    for (cf, value) in [("", ""), ("default", ""), ("lock", "lock"), ("write", "write")] {
        let request = RawGetRequest {
            context: store.context(),
            key: text("k"),
            cf: cf.into(),
        };
        let Answer::RawGet(answer) = store.unary(Request::RawGet(request)).await else {
            panic!("another kind")
        };
        assert_eq!((answer.not_found, &answer.value[..]), (false, value.as_bytes()), "{cf}");
    }
}
