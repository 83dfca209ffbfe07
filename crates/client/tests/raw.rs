//! The client against a cluster made of plain maps: every way of a request, and what it does when the cluster moves or breaks.

mod fake;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::MonoTime;
use bytes::Bytes;
use client::{Api, ClientOptions, Error, Hint, KeyRange, Keyspace, Pair, PdError, RawClient, RequestOutcome, ScanOptions, Swap};
use fake::Fake;
use futures::TryStreamExt;

const KEYSPACE: u32 = 5;

/// Both ways of sending, in both forms of keys.
fn setups() -> [ClientOptions; 4] {
    let v2 = Api::V2(Keyspace::Id(KEYSPACE));
    let setup = |api: &Api, batch_commands| ClientOptions {
        api: api.clone(),
        batch_commands,
        ..Default::default()
    };
    [
        setup(&Api::V1, true),
        setup(&Api::V1, false),
        setup(&v2, true),
        setup(&v2, false),
    ]
}

async fn start(options: ClientOptions) -> (Arc<Fake>, RawClient) {
    let fake = Fake::start(options.api != Api::V1).await;
    let client = RawClient::connect(&[fake.endpoint()], options).await.expect("connect");
    (fake, client)
}

#[tokio::test]
async fn what_a_client_does_is_counted() {
    for options in setups() {
        let (fake, client) = start(options.clone()).await;
        for number in 0..10 {
            client.put(key(number), "v").await.expect("put");
        }
        fake.split(&wire(&options, &key(5)), 2);
        client.get(key(7)).await.expect("get");
        let metrics = client.metrics();
        let of = |name: &str, outcome| metrics.command(name).map_or(0, |one| one.count(outcome));
        assert_eq!(of("raw_put", RequestOutcome::Ok), 10);
        assert_eq!(of("raw_get", RequestOutcome::Ok), 1);
        assert!(of("raw_get", RequestOutcome::Region) > 0, "the region was split: {metrics}");
        assert!(metrics.retries.iter().any(|(_, count)| *count > 0), "{metrics}");
        assert!(
            of("pd", RequestOutcome::Ok) > 0 && metrics.region_misses > 0 && metrics.region_hits >= 9,
            "{metrics}"
        );
        assert_eq!(metrics.in_flight, 0);
        assert!(
            metrics
                .to_string()
                .contains("ferrite_client_request_seconds_count{command=\"raw_put\"} 10\n")
        );
    }
}

/// A key as the stores keep it.
fn wire(options: &ClientOptions, key: &str) -> Vec<u8> {
    match options.api {
        Api::V1 => key.into(),
        Api::V2(_) => [b"r\0\0\x05", key.as_bytes()].concat(),
    }
}

fn key(number: usize) -> String {
    format!("k{number:04}")
}

/// A client on 3000 pairs in 4 regions, led by different stores.
async fn filled(options: ClientOptions) -> (Arc<Fake>, RawClient) {
    let (fake, client) = start(options.clone()).await;
    for (number, store) in [(1000, 2), (1500, 3), (2000, 1)] {
        fake.split(&wire(&options, &key(number)), store);
    }
    client
        .batch_put((0..3000).map(|n| (key(n), format!("v{n}"))))
        .await
        .expect("batch put");
    (fake, client)
}

async fn collect(client: &RawClient, range: impl Into<KeyRange>, options: ScanOptions) -> Vec<Pair> {
    client.scan(range, options).try_collect().await.expect("scan")
}

fn numbers(pairs: &[Pair]) -> Vec<usize> {
    pairs
        .iter()
        .map(|(key, _)| String::from_utf8_lossy(&key[1..]).parse().expect("a number"))
        .collect()
}

#[tokio::test]
async fn single_keys() {
    for options in setups() {
        let (fake, client) = start(options.clone()).await;
        assert_eq!(client.get("a").await.expect("get"), None);
        client.put("a", "1").await.expect("put");
        client.put("a", "2").await.expect("put");
        client.put("empty", "").await.expect("put");
        assert_eq!(client.get("a").await.expect("get"), Some("2".into()));
        assert_eq!(
            client.get("empty").await.expect("get"),
            Some(Bytes::new()),
            "an empty value is a value"
        );
        assert!(fake.pairs().contains_key(&wire(&options, "a")[..]));
        client.delete("a").await.expect("delete");
        client.delete("a").await.expect("delete what is not there");
        assert_eq!(client.get("a").await.expect("get"), None);
        assert_eq!(fake.batches.load(Ordering::SeqCst) > 0, options.batch_commands);
    }
}

#[tokio::test]
async fn batches_over_regions() {
    for options in setups() {
        let (fake, client) = filled(options).await;
        assert_eq!(fake.pairs().len(), 3000);
        let wanted: Vec<String> = [2999, 5, 1500, 1499, 5].map(key).to_vec();
        let found = client
            .batch_get(wanted.into_iter().chain(["missing".to_string()]))
            .await
            .expect("batch get");
        assert_eq!(numbers(&found), [5, 1499, 1500, 2999]);
        assert_eq!(found[3].1, "v2999");
        client.batch_delete((0..2990).map(key)).await.expect("batch delete");
        assert_eq!(fake.pairs().len(), 10);
    }
}

#[tokio::test]
async fn scans_over_regions_both_ways() {
    for options in setups() {
        let (_fake, client) = filled(options).await;
        let all = ScanOptions::default();
        let reverse = ScanOptions { reverse: true, ..all };
        let forward: Vec<usize> = (0..3000).collect();
        let backward: Vec<usize> = (0..3000).rev().collect();
        assert_eq!(numbers(&collect(&client, .., all).await), forward);
        assert_eq!(numbers(&collect(&client, .., reverse).await), backward);
        let part = || KeyRange::from(key(990)..key(2010));
        assert_eq!(numbers(&collect(&client, part(), all).await), forward[990..2010]);
        assert_eq!(numbers(&collect(&client, part(), reverse).await), backward[990..2010]);
        assert_eq!(
            numbers(&collect(&client, key(1500).., ScanOptions { limit: 700, ..all }).await),
            forward[1500..2200]
        );
        assert_eq!(
            numbers(&collect(&client, ..key(1500), ScanOptions { limit: 700, ..reverse }).await),
            backward[1500..2200]
        );
        assert_eq!(
            numbers(&collect(&client, KeyRange::prefix("k29"), all).await),
            forward[2900..]
        );
        let keys = collect(
            &client,
            part(),
            ScanOptions {
                keys_only: true,
                limit: 1,
                ..all
            },
        )
        .await;
        assert_eq!(keys, [(Bytes::from(key(990)), Bytes::new())]);
        for empty in [key(5)..key(5), key(6)..key(5), "x".into().."y".into()] {
            assert_eq!(collect(&client, empty.clone(), all).await, []);
            assert_eq!(collect(&client, empty, reverse).await, []);
        }
        assert_eq!(collect(&client, .., ScanOptions { limit: 0, ..all }).await, []);
    }
}

#[tokio::test]
async fn ranges_are_removed_and_summed_over_regions() {
    for options in setups() {
        let (fake, client) = filled(options.clone()).await;
        let sum = client.checksum(key(900)..key(2100)).await.expect("checksum");
        let bytes = (900..2100)
            .map(|n| wire(&options, &key(n)).len() + format!("v{n}").len())
            .sum::<usize>();
        assert_eq!((sum.pairs, sum.bytes), (1200, bytes as u64));
        client.delete_range(key(900)..key(2100)).await.expect("delete range");
        assert_eq!(fake.pairs().len(), 1800);
        client.delete_range(..).await.expect("delete range");
        assert_eq!(fake.pairs().len(), 0);
        assert_eq!(client.checksum(..).await.expect("checksum").pairs, 0);
    }
}

#[tokio::test]
async fn compare_and_swap_tells_what_was_there() {
    let (_fake, client) = start(ClientOptions::default()).await;
    let cases = [
        (None, Some("1"), true, None),
        (None, Some("2"), false, Some("1")),
        (Some("1"), Some("2"), true, Some("1")),
        (Some("2"), None, true, Some("2")),
    ];
    for (expected, new, done, previous) in cases {
        let swap = client.compare_and_swap("swap", expected.map(Bytes::from), new.map(Bytes::from));
        let previous = previous.map(Bytes::from);
        assert_eq!(swap.await.expect("swap"), Swap { done, previous });
    }
    assert_eq!(client.get("swap").await.expect("get"), None);
}

#[tokio::test]
async fn leaders_move_and_regions_split_while_clients_write() {
    for options in setups() {
        let (fake, client) = start(options.clone()).await;
        for round in 0..30 {
            client.put(key(round), "v").await.expect("put");
            match round % 3 {
                0 => fake.lead(&wire(&options, &key(round + 1)), round as u64 % 3 + 1),
                1 => fake.split(&wire(&options, &key(round + 1)), round as u64 % 2 + 1),
                _ => client.batch_put((0..round).map(|n| (key(n), "w"))).await.expect("batch put"),
            }
        }
        assert_eq!(
            numbers(&collect(&client, .., ScanOptions::default()).await),
            (0..30).collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn a_mute_store_costs_no_more_than_the_deadline() {
    for options in setups() {
        let options = ClientOptions {
            deadline: Duration::from_millis(300),
            ..options
        };
        let (fake, client) = start(options).await;
        client.put("k", "v").await.expect("put");
        fake.mute.store(1, Ordering::SeqCst);
        let began = MonoTime::now();
        let read = client.get("k").await.expect_err("nobody answers");
        assert!(matches!(read, Error::DeadlineExceeded { .. }), "{read:?}");
        assert_eq!(read.hint(), Hint::Retry);
        fake.lead(&[], 1);
        let write = client.put("k", "w").await.expect_err("nobody answers");
        assert_eq!(write.hint(), Hint::Undetermined, "{write:?}");
        assert!(MonoTime::now().since(began) < Duration::from_secs(5), "two calls of 300 ms");
    }
}

#[tokio::test]
async fn what_has_no_time_is_not_sent() {
    for options in setups() {
        let (fake, client) = start(options).await;
        client.put("k", "v").await.expect("put");
        let (before, hurried) = (fake.pairs(), client.with_deadline(Duration::ZERO));
        for _ in 0..20 {
            let read = hurried.get("k").await.expect_err("there is no time");
            assert!(matches!(read, Error::DeadlineExceeded { .. }), "{read:?}");
            let write = hurried.put("k", "w").await.expect_err("there is no time");
            assert!(
                matches!(write, Error::DeadlineExceeded { .. }),
                "nothing is unknown of it: {write:?}"
            );
        }
        assert_eq!(fake.pairs(), before);
    }
}

#[tokio::test]
async fn a_broken_write_is_repeated_or_told_but_never_lost() {
    for options in setups() {
        let (fake, client) = start(options.clone()).await;
        client.put("warm", "up").await.expect("put");
        fake.writes.store(0, Ordering::SeqCst);

        fake.break_after_write.store(1, Ordering::SeqCst);
        client.put("k", "v").await.expect("repeated");
        assert_eq!(fake.writes.load(Ordering::SeqCst), 2);

        fake.break_after_write.store(1, Ordering::SeqCst);
        let swapped = client
            .compare_and_swap("k", Some("v".into()), Some("w".into()))
            .await
            .expect_err("broken");
        assert_eq!(swapped.hint(), Hint::Undetermined, "{swapped:?}");
        assert_eq!(fake.writes.load(Ordering::SeqCst), 3, "a swap is not repeated");

        let careful = ClientOptions {
            retry_undetermined: false,
            ..options
        };
        let client = RawClient::connect(&[fake.endpoint()], careful).await.expect("connect");
        fake.break_after_write.store(1, Ordering::SeqCst);
        let put = client.put("k", "x").await.expect_err("broken");
        assert_eq!(put.hint(), Hint::Undetermined, "{put:?}");
        assert_eq!(fake.writes.load(Ordering::SeqCst), 4);
    }
}

#[tokio::test]
async fn refusals_are_told_at_once() {
    for options in setups() {
        let (fake, client) = start(options).await;
        let error = client.put("refused", "v").await.expect_err("refused");
        assert!(
            matches!(&error, Error::Refused { message } if message == "key refused"),
            "{error:?}"
        );
        assert_eq!(error.hint(), Hint::Refused);
        assert_eq!(fake.requests.load(Ordering::SeqCst), 1);
        let error = client.ttl("k").await.expect_err("the fake has no TTL");
        assert_eq!(error.hint(), Hint::Refused, "{error:?}");
    }
}

#[tokio::test]
async fn many_callers_share_a_stream() {
    let (fake, client) = start(ClientOptions::default()).await;
    let calls = (0..2000).map(|n| {
        let client = client.clone();
        async move {
            client.put(key(n), format!("v{n}")).await?;
            client.get(key(n)).await
        }
    });
    let values = futures::future::try_join_all(calls).await.expect("all served");
    assert!(
        values
            .iter()
            .enumerate()
            .all(|(n, value)| *value == Some(format!("v{n}").into())),
        "an answer went astray"
    );
    let batches = fake.batches.load(Ordering::SeqCst);
    assert!(batches < 2000, "{batches} messages for 4000 requests");
}

#[tokio::test]
async fn timestamps_are_unique_and_grow() {
    let (_fake, client) = start(ClientOptions::default()).await;
    let calls = (0..500).map(|_| client.pd().timestamp());
    let mut together = futures::future::try_join_all(calls).await.expect("timestamps");
    together.sort();
    together.dedup();
    assert_eq!(together.len(), 500);
    let later = client.pd().timestamp().await.expect("timestamp");
    assert!(together.iter().all(|earlier| *earlier < later));
}

#[tokio::test]
async fn a_placement_driver_that_does_not_lead_is_waited_for() {
    let options = ClientOptions {
        deadline: Duration::from_millis(300),
        ..Default::default()
    };
    let (fake, client) = start(options).await;
    fake.pd_follows.store(true, Ordering::SeqCst);
    let error = client.get("k").await.expect_err("no region known");
    assert!(matches!(error, Error::DeadlineExceeded { attempts: 2.., .. }), "{error:?}");
    fake.pd_follows.store(false, Ordering::SeqCst);
    assert_eq!(client.get("k").await.expect("get"), None);
}

#[tokio::test]
async fn wrong_addresses_are_told_apart() {
    let options = || ClientOptions {
        deadline: Duration::from_millis(200),
        ..Default::default()
    };
    let fake = Fake::start(false).await;
    let connect = async |endpoints: &[String]| RawClient::connect(endpoints, options()).await.err().expect("cannot connect");
    let bad = connect(&["nowhere".into()]).await;
    assert_eq!(bad.hint(), Hint::Configuration, "{bad:?}");
    let nobody = connect(&["127.0.0.1:1".into()]).await;
    assert!(matches!(nobody, Error::PdUnreachable { .. }), "{nobody:?}");
    // One dead endpoint among living ones does no harm.
    RawClient::connect(&["127.0.0.1:1".into(), fake.endpoint()], ClientOptions::default())
        .await
        .expect("connect");
    let v2 = ClientOptions {
        api: Api::V2(Keyspace::Id(1 << 24)),
        ..options()
    };
    let error = RawClient::connect(&[fake.endpoint()], v2).await.err().expect("out of range");
    assert!(matches!(error, Error::BadKeyspace { .. }), "{error:?}");
}

#[tokio::test]
async fn errors_of_the_placement_driver_have_kinds() {
    let (_fake, client) = start(ClientOptions::default()).await;
    // The fake serves no look-up by id: what is UNIMPLEMENTED is refused, not repeated.
    let error = client.pd().region_by_id(base::RegionId(7)).await.expect_err("unimplemented");
    assert_eq!(error.hint(), Hint::Refused, "{error:?}");
    assert_ne!(
        Error::Pd {
            kind: PdError::NotFound,
            message: String::new()
        }
        .hint(),
        Hint::Retry
    );
}
