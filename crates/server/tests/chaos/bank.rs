//! A bank on real processes: clients move money between accounts in different regions while stores and the placement driver are
//! killed with SIGKILL and started again. No money may be lost or made, at any snapshot, and when all is quiet no lock may stay.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base::{MonoTime, Ts};
use bytes::Bytes;
use client::{ClientOptions, Error, Hint, TxnClient, TxnOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::common::Cluster;
use crate::count;

const ACCOUNTS: u64 = 48;
const BALANCE: i64 = 1000;
const TELLERS: u64 = 8;
/// Time for the cluster to serve again and for every lock to go once nobody is killed any more.
const QUIET: Duration = Duration::from_secs(30);

/// What tellers and the auditor saw.
#[derive(Default)]
struct Seen {
    over: AtomicBool,
    committed: AtomicU64,
    refused: AtomicU64,
    undetermined: AtomicU64,
    audits: AtomicU64,
}

fn account(number: u64) -> String {
    format!("account-{number:03}")
}

fn amount(value: &Bytes) -> Result<i64> {
    Ok(std::str::from_utf8(value)?.parse()?)
}

#[test]
fn bank() {
    let seed = count("FERRITE_CHAOS_SEED", u64::from(std::process::id()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    if let Err(error) = runtime.block_on(run(seed)) {
        panic!("bank (FERRITE_CHAOS_SEED={seed}): {error:?}");
    }
}

async fn run(seed: u64) -> Result<()> {
    let span = Duration::from_secs(count("FERRITE_CHAOS_BANK_SECONDS", 30));
    let pause = Duration::from_millis(count("FERRITE_CHAOS_BANK_KILL_EVERY_MS", 5000));
    let mut config = tempfile::NamedTempFile::new().context("a file for the configuration")?;
    // Regions of the accounts: four.
    let borders = [12, 24, 36].map(|number| format!("\"{}\"", account(number))).join(", ");
    writeln!(config, "[pd]\nsplit-txn-keys = [{borders}]")?;
    let mut cluster = Cluster::three(&["--config", &config.path().display().to_string()]);
    cluster.must_be_replicated();
    let client = connect(&cluster).await?;
    let mut opening = client.begin(TxnOptions::default()).await?;
    opening
        .batch_put((0..ACCOUNTS).map(|number| (account(number), BALANCE.to_string())))
        .await?;
    opening.commit().await.context("open the accounts")?;

    let seen = Arc::new(Seen::default());
    let mut tellers = tokio::task::JoinSet::new();
    for teller in 0..TELLERS {
        let random = StdRng::seed_from_u64(seed ^ (teller + 1) << 32);
        tellers.spawn(serve(connect(&cluster).await?, seen.clone(), random));
    }
    tellers.spawn(audit(connect(&cluster).await?, seen.clone()));
    let kills = strike(&mut cluster, span, pause, &mut StdRng::seed_from_u64(seed), &mut tellers).await?;
    seen.over.store(true, Relaxed);
    let quiet = MonoTime::now();
    while let Some(ended) = tellers.join_next().await {
        ended.context("a teller panicked")??;
    }
    let (locks, took) = close(&client, quiet).await?;
    let of = |counter: &AtomicU64| counter.load(Relaxed);
    println!(
        "bank: {:?}, {kills} kills, {} transfers, {} conflicts and time-outs, {} of unknown outcome, {} audits; quiet after {took:.1?}",
        span,
        of(&seen.committed),
        of(&seen.refused),
        of(&seen.undetermined),
        of(&seen.audits)
    );
    println!("goal bank_money_lost: 0.00 (wanted <= 0): met");
    println!(
        "goal bank_locks_stuck: {locks}.00 (wanted <= 0): {}",
        if locks == 0 { "met" } else { "missed" }
    );
    ensure!(locks == 0, "{locks} locks stayed");
    ensure!(of(&seen.committed) > 0 && of(&seen.audits) > 0, "nothing was done");
    Ok(())
}

async fn connect(cluster: &Cluster) -> Result<TxnClient> {
    let options = ClientOptions {
        deadline: Duration::from_secs(10),
        ..ClientOptions::default()
    };
    Ok(TxnClient::connect(&cluster.endpoints(), options).await?)
}

/// Kills a random process, again and again, and starts it again half-way to the next. Ends early when a teller does.
async fn strike(
    cluster: &mut Cluster,
    span: Duration,
    pause: Duration,
    random: &mut StdRng,
    tellers: &mut tokio::task::JoinSet<Result<()>>,
) -> Result<u64> {
    let end = MonoTime::now() + span;
    let mut kills = 0;
    while MonoTime::now() < end {
        // Not a wait for something: how long the cluster runs between faults is a part of the test.
        tokio::time::sleep(pause / 2).await;
        let victim = random.random_range(0..cluster.nodes.len());
        cluster.nodes[victim].kill();
        tokio::time::sleep(pause / 2).await;
        cluster.nodes[victim].start();
        cluster.nodes[victim].must_be_ready();
        kills += 1;
        if let Some(ended) = tellers.try_join_next() {
            ended.context("a teller panicked")??;
        }
    }
    Ok(kills)
}

/// A teller: one transfer after the other.
async fn serve(client: TxnClient, seen: Arc<Seen>, mut random: StdRng) -> Result<()> {
    while !seen.over.load(Relaxed) {
        let from = random.random_range(0..ACCOUNTS);
        let to = (from + random.random_range(1..ACCOUNTS)) % ACCOUNTS;
        let way = match ways(&mut random) {
            1 => TxnOptions::default(),
            2 => TxnOptions::two_phase(),
            _ => TxnOptions::pessimistic(),
        };
        let counter = match transfer(&client, way, from, to, random.random_range(1..10)).await? {
            Ok(()) => &seen.committed,
            Err(error) => match error.hint() {
                Hint::Retry | Hint::RetryTransaction => &seen.refused,
                Hint::Undetermined => &seen.undetermined,
                Hint::Configuration | Hint::Refused => return Err(error).context("transfer"),
            },
        };
        counter.fetch_add(1, Relaxed);
    }
    Ok(())
}

/// The ways of committing, in turn; `FERRITE_CHAOS_BANK_WAY` picks one.
fn ways(random: &mut StdRng) -> u64 {
    match count("FERRITE_CHAOS_BANK_WAY", 0) {
        0 => random.random_range(1..4),
        way => way,
    }
}

/// The outer error is one of the bank's books, which must not be.
async fn transfer(client: &TxnClient, way: TxnOptions, from: u64, to: u64, sum: i64) -> Result<Result<(), Error>> {
    let mut txn = match client.begin(way).await {
        Ok(txn) => txn,
        Err(error) => return Ok(Err(error)),
    };
    for (number, change) in [(from, -sum), (to, sum)] {
        let held = match txn.get_for_update(account(number)).await {
            Ok(held) => held.with_context(|| format!("account {number} is gone"))?,
            Err(error) => return Ok(Err(error)),
        };
        let written = txn.put(account(number), (amount(&held)? + change).to_string()).await;
        if let Err(error) = written {
            return Ok(Err(error));
        }
    }
    Ok(txn.commit().await.map(drop))
}

/// The auditor: whatever snapshot it takes, the total is the same.
async fn audit(client: TxnClient, seen: Arc<Seen>) -> Result<()> {
    while !seen.over.load(Relaxed) {
        let Ok(ts) = client.pd().timestamp().await else { continue };
        let Ok(pairs) = client.snapshot(ts).batch_get((0..ACCOUNTS).map(account)).await else {
            continue;
        };
        if let Err(wrong) = check_total(ts, &pairs) {
            // Read again: a snapshot that moves is another fault than a sum that stays wrong.
            let again = client.snapshot(ts).batch_get((0..ACCOUNTS).map(account)).await?;
            let moved: Vec<_> = pairs.iter().zip(&again).filter(|(a, b)| a != b).collect();
            return Err(wrong.context(format!("read again, {} accounts differ: {moved:?}", moved.len())));
        }
        seen.audits.fetch_add(1, Relaxed);
    }
    Ok(())
}

fn check_total(ts: Ts, pairs: &[client::Pair]) -> Result<()> {
    let amounts = pairs.iter().map(|(_, value)| amount(value)).collect::<Result<Vec<_>>>()?;
    let (total, wanted) = (amounts.iter().sum::<i64>(), ACCOUNTS as i64 * BALANCE);
    ensure!(pairs.len() as u64 == ACCOUNTS, "at {ts}: {} accounts", pairs.len());
    ensure!(total == wanted, "at {ts}: {total} in all, wanted {wanted}: {amounts:?}");
    Ok(())
}

/// Locks every account, which ends whatever still holds one, and looks whether any lock is left. Returns their number, and how long
/// it took since nobody was killed any more.
async fn close(client: &TxnClient, quiet: MonoTime) -> Result<(usize, Duration)> {
    let pairs = loop {
        let closed = close_once(client).await;
        match closed {
            Ok(pairs) => break pairs,
            Err(error) => ensure!(MonoTime::now().since(quiet) < QUIET, "not quiet within {QUIET:?}: {error:?}"),
        }
    };
    client.settled().await;
    let now = client.pd().timestamp().await?;
    check_total(now, &pairs)?;
    check_total(now, &client.snapshot(now).batch_get((0..ACCOUNTS).map(account)).await?)?;
    Ok((client.resolve_locks(.., now).await?, MonoTime::now().since(quiet)))
}

async fn close_once(client: &TxnClient) -> Result<Vec<client::Pair>, Error> {
    let mut txn = client.begin(TxnOptions::pessimistic()).await?;
    let pairs = txn.batch_get_for_update((0..ACCOUNTS).map(account)).await?;
    txn.rollback().await?;
    Ok(pairs)
}
