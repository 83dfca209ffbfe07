//! A transaction that is much larger than what a store may hold of it at once. `FERRITE_TXN_LARGE_MIB=1024` makes it as large as
//! promised; by default it is smaller.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use client::TxnOptions;
use futures::TryStreamExt;

use super::Setup;

const VALUE_BYTES: usize = 64 << 10;
const DEADLINE: Duration = Duration::from_secs(600);
/// What a store may take for it, whatever its size: memtables, caches, queues and log files in memory together.
const MEMORY_MIB_MAX: u64 = 640;

fn key(number: u64) -> Bytes {
    // On all sides of the borders.
    let first = char::from(b'a' + (number % 26) as u8);
    format!("{first}/large/{number:06}").into()
}

/// Cannot be compressed, and differs from key to key.
fn value(number: u64) -> Bytes {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let word = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..VALUE_BYTES / 8).flat_map(word).collect()
}

/// All of it or nothing is seen while it is written, its locks outlive their first time, and the stores' memory is bounded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_transaction_is_written_in_bounded_memory() {
    let mib: u64 = std::env::var("FERRITE_TXN_LARGE_MIB").map_or(96, |text| text.parse().expect("a number of MiB"));
    let keys = (mib << 20) / VALUE_BYTES as u64;
    let setup = Setup::v1();
    let client = setup.own().await;
    let options = TxnOptions {
        deadline: Some(DEADLINE),
        ..TxnOptions::default()
    };
    let mut txn = client.begin(options).await.expect("begin");
    txn.batch_put((0..keys).map(|number| (key(number), value(number))))
        .await
        .expect("put");

    let (over, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    let committed = async {
        let committed = txn.commit().await;
        over.store(true, Relaxed);
        committed.expect("commit").expect("something was written")
    };
    let watched = async {
        let other = setup.own().await;
        let mut last = None;
        while !over.load(Relaxed) {
            let ts = other.pd().timestamp().await.expect("timestamp");
            let ends = [key(0), key(keys - 1)];
            // A reader whose time is up while the locks are alive has seen nothing.
            if let Ok(pairs) = other.snapshot(ts).batch_get(ends).await {
                assert!(pairs.is_empty() || pairs.len() == 2, "half a transaction is seen at {ts}");
                last = Some(ts).filter(|_| pairs.is_empty()).or(last);
                looks.fetch_add(1, Relaxed);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        last
    };
    let (commit_ts, unseen) = tokio::join!(committed, watched);
    assert!(looks.load(Relaxed) > 0, "nobody looked");
    assert!(
        unseen.is_none_or(|ts| ts < commit_ts),
        "not seen at {unseen:?}, committed at {commit_ts}"
    );

    client.settled().await;
    let found: Vec<(Bytes, Bytes)> = client
        .snapshot(commit_ts)
        .scan(.., client::ScanOptions::default())
        .try_collect()
        .await
        .expect("scan");
    assert_eq!(found.len() as u64, keys);
    for (found_key, found_value) in found {
        let number = std::str::from_utf8(&found_key[8..]).expect("text").parse().expect("a number");
        assert!(
            found_key == key(number) && found_value == value(number),
            "key {number} is not what was written"
        );
    }
    for store in setup.cluster.stores() {
        let peak = setup.cluster.nodes[store].peak_memory_mib();
        println!("store {store}: {mib} MiB written, at most {peak} MiB of memory");
        assert!(peak <= MEMORY_MIB_MAX, "store {store} took {peak} MiB for {mib} MiB");
    }
}
