//! The demo: three stores, real data, one store killed, every record read again.

mod records;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base::MonoTime;
use client::{ClientOptions, RawClient};
use futures::StreamExt;

use crate::kv::ferrite::{Cluster, STORES};
use crate::kv::process::disk_bytes;
use records::Record;

/// Records written by one request.
const BATCH: usize = 64;
/// Requests under way at once.
const WRITES_AT_ONCE: usize = 16;
const READS_AT_ONCE: usize = 64;
/// A read waits at most this long for a new leader; far more than an election takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where every Linux machine has files.
const ROOTS: [&str; 2] = ["/etc", "/usr"];
/// Share of the second reading after which the store is killed.
const KILL_AFTER: usize = 4;

/// Load real records into three stores, read them back, kill a store, read on.
#[derive(clap::Args)]
pub struct Args {
    /// How many records to load.
    #[arg(long, default_value_t = 100_000)]
    records: usize,
    /// The `ferrite` binary to run.
    #[arg(long, env = "FERRITE_BIN")]
    ferrite: PathBuf,
}

pub fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(show(args))
}

async fn show(args: &Args) -> Result<()> {
    let begin = MonoTime::now();
    let records = Arc::new(collect(args.records)?);
    let dir = tempfile::Builder::new()
        .prefix("ferrite-demo-")
        .tempdir()
        .context("make a directory for the data")?;
    let mut cluster = start(&args.ferrite, dir.path()).await?;
    if let Err(error) = drive(&mut cluster, dir.path(), &records).await {
        drop(cluster);
        return Err(error.context(format!("data and logs are kept in {}", dir.keep().display())));
    }
    drop(cluster);
    dir.close().context("remove the data")?;
    println!(
        "done in {:.1} s; processes and data are gone",
        MonoTime::now().since(begin).as_secs_f64()
    );
    Ok(())
}

async fn drive(cluster: &mut Cluster, dir: &Path, records: &Arc<Vec<Record>>) -> Result<()> {
    let options = ClientOptions {
        deadline: PATIENCE,
        ..ClientOptions::default()
    };
    let client = RawClient::connect(&[&cluster.pd_address], options)
        .await
        .context("connect to the placement driver")?;

    let wrote = write_all(&client, records).await.context("load the records")?;
    println!(
        "wrote  {}; each on a majority of disks before it was answered",
        wrote.line(records.len(), BATCH)
    );
    println!(
        "       {:.1} MiB of records, {:.1} MiB on disk over {STORES} stores",
        mib(bytes_of(records)),
        mib(disk_bytes(dir)?)
    );

    let read = read_all(&client, records, || Ok(())).await.context("read the records back")?;
    println!("read   {}; every value compared", read.line(records.len(), 1));

    let victim = leader(cluster).await?;
    read_while_one_dies(cluster, &client, records, &victim).await?;

    let fresh = Arc::new(changed(records));
    let wrote = write_all(&client, &fresh).await.context("write with two stores")?;
    println!("wrote  {} on the two stores that are left", wrote.line(fresh.len(), BATCH));
    let read = read_all(&client, &fresh, || Ok(())).await.context("read with two stores")?;
    println!("read   {}; every value compared", read.line(fresh.len(), 1));

    // The store that was away now counts: without it there is no majority, so it must have caught up with all it missed.
    cluster.restart(&victim)?;
    println!("started the killed store again, on the data it had");
    let other = leader(cluster).await?;
    ensure!(
        other != victim,
        "the placement driver still believes that the killed store leads"
    );
    read_while_one_dies(cluster, &client, &fresh, &other).await
}

/// Reads and compares every record while the store on `victim` is killed.
async fn read_while_one_dies(cluster: &mut Cluster, client: &RawClient, records: &Arc<Vec<Record>>, victim: &str) -> Result<()> {
    let read = read_all(client, records, || {
        cluster.store_at(victim)?.server.kill();
        println!("killed the store on {victim}, which led, with SIGKILL while reading");
        Ok(())
    });
    let read = read.await.with_context(|| format!("read while the store on {victim} dies"))?;
    println!("read   {}; every value compared", read.line(records.len(), 1));
    println!(
        "       longest wait of a read {:.2} s: until the two left had a new leader",
        read.longest().as_secs_f64()
    );
    Ok(())
}

/// Address of the store that leads.
async fn leader(cluster: &Cluster) -> Result<String> {
    Ok(cluster.route().await?.address)
}

fn collect(wanted: usize) -> Result<Vec<Record>> {
    let roots = ROOTS.map(Path::new);
    let begin = MonoTime::now();
    let records = records::collect(&roots, wanted);
    ensure!(
        records.len() >= wanted,
        "the files below {ROOTS:?} give only {} records, wanted {wanted}",
        records.len()
    );
    let took = MonoTime::now().since(begin).as_secs_f64();
    println!(
        "made   {} records ({:.1} MiB) of this machine's files in {took:.1} s",
        records.len(),
        mib(bytes_of(&records))
    );
    Ok(records)
}

async fn start(binary: &Path, dir: &Path) -> Result<Cluster> {
    let begin = MonoTime::now();
    let cluster = Cluster::start(binary, dir).await?;
    let took = MonoTime::now().since(begin).as_secs_f64();
    println!("started a placement driver and {STORES} stores in {took:.2} s; each store holds a copy of all data");
    Ok(cluster)
}

/// What a pass over all records took.
struct Pass {
    took: Duration,
    /// Of single requests, ascending.
    waits: Vec<Duration>,
}

impl Pass {
    fn new(begin: MonoTime, mut waits: Vec<Duration>) -> Pass {
        waits.sort_unstable();
        Pass {
            took: MonoTime::now().since(begin),
            waits,
        }
    }

    fn longest(&self) -> Duration {
        self.waits.last().copied().unwrap_or_default()
    }

    fn line(&self, records: usize, batch: usize) -> String {
        let rate = records as f64 / self.took.as_secs_f64();
        let millis = |percent| {
            self.waits
                .get(self.waits.len() * percent / 100)
                .map_or(0.0, |wait: &Duration| wait.as_secs_f64() * 1000.0)
        };
        let unit = if batch == 1 {
            "a get".to_owned()
        } else {
            format!("a batch of {batch}")
        };
        format!(
            "{records} records in {:.1} s, {rate:.0} a second, {unit} took {:.1} ms (p50), {:.1} ms (p99)",
            self.took.as_secs_f64(),
            millis(50),
            millis(99)
        )
    }
}

async fn write_all(client: &RawClient, records: &Arc<Vec<Record>>) -> Result<Pass> {
    let begin = MonoTime::now();
    let batches = futures::stream::iter((0..records.len()).step_by(BATCH)).map(|first| {
        let (client, records) = (client.clone(), records.clone());
        async move {
            let asked = MonoTime::now();
            let batch = &records[first..records.len().min(first + BATCH)];
            client
                .batch_put(batch.iter().map(|record| (record.key.clone(), record.value.clone())))
                .await?;
            anyhow::Ok(MonoTime::now().since(asked))
        }
    });
    let mut answers = batches.buffer_unordered(WRITES_AT_ONCE);
    let mut waits = Vec::new();
    while let Some(wait) = answers.next().await {
        waits.push(wait?);
    }
    Ok(Pass::new(begin, waits))
}

/// Reads and compares every record; calls `midway` once, after a part of them.
async fn read_all(client: &RawClient, records: &Arc<Vec<Record>>, midway: impl FnOnce() -> Result<()>) -> Result<Pass> {
    let begin = MonoTime::now();
    let reads = futures::stream::iter(0..records.len()).map(|index| {
        let (client, records) = (client.clone(), records.clone());
        async move {
            let asked = MonoTime::now();
            let record = &records[index];
            let found = client.get(record.key.clone()).await?;
            let name = String::from_utf8_lossy(&record.key);
            ensure!(
                found.as_ref() == Some(&record.value),
                "{name}: what was read is not what was written"
            );
            Ok(MonoTime::now().since(asked))
        }
    });
    let mut answers = reads.buffer_unordered(READS_AT_ONCE);
    let (mut waits, mut midway) = (Vec::new(), Some(midway));
    while let Some(wait) = answers.next().await {
        waits.push(wait?);
        if waits.len() * KILL_AFTER >= records.len()
            && let Some(midway) = midway.take()
        {
            midway()?;
        }
    }
    Ok(Pass::new(begin, waits))
}

/// A tenth of the records with other values, to see that what is read is what was written last.
fn changed(records: &[Record]) -> Vec<Record> {
    let turned = |record: &Record| Record {
        key: record.key.clone(),
        value: record.value.iter().rev().copied().collect(),
    };
    records.iter().step_by(10).map(turned).collect()
}

fn bytes_of(records: &[Record]) -> u64 {
    records
        .iter()
        .map(|record| (record.key.len() + record.value.len()) as u64)
        .sum()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
