//! `ferrite-bench engine`: each engine alone, behind its door: loads, synced batches, reads, memory, disk.
//!
//! Keys are 16 random bytes, values 128 bytes of which half is random. Every engine runs in a process of its own, so that its
//! memory can be told from the others'. Reads are random over all keys, by one thread.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base::MonoTime;
use bytes::Bytes;
use clap::ValueEnum;
use engine::{Batch, Cf, Engine, EngineConfig, FjallEngine, MemEngine};
use rand::rngs::SmallRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use serde_json::{Map, Value};

use crate::report::{Origin, Table};

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Kind {
    Memory,
    Fjall,
    /// In builds with the feature `rocksdb`.
    #[cfg(feature = "rocksdb")]
    Rocksdb,
}

#[derive(clap::Args)]
pub struct Args {
    /// Engines to measure, parted by commas; all when left out.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Pairs to load.
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
    /// Directory for the data; a temporary one when left out.
    #[arg(long)]
    dir: Option<std::path::PathBuf>,
    /// Measures one engine in this process and prints its figures as JSON.
    #[arg(long, value_enum, hide = true)]
    alone: Option<Kind>,
}

/// Rows of the table, in order: key of the figure, how it is told.
const FIGURES: [(&str, &str); 13] = [
    ("load", "load, pairs/s (batches of 100)"),
    ("load_synced", "the same until all is durable"),
    ("sync_1", "16-put batch + sync, 1 thread, batches/s"),
    ("sync_16", "same, 16 threads"),
    ("sync_16_p99", "p99 of these, ms"),
    ("get", "get, /s"),
    ("get_absent", "get of an absent key, /s"),
    ("seek_fresh", "seek, fresh cursor, /s"),
    ("seek_reused", "seek, one cursor, random, /s"),
    ("seek_near", "seek, one cursor, to near keys, /s"),
    ("scan", "scan of 100, /s"),
    ("rss", "resident memory, MiB"),
    ("disk", "disk, MiB"),
];

pub fn run(args: &Args) -> Result<bool> {
    let temporary = tempfile::tempdir()?;
    let dir = args.dir.as_deref().unwrap_or(temporary.path());
    if let Some(kind) = args.alone {
        println!(
            "{}",
            Value::Object(measure(kind, &dir.join(format!("{kind:?}")), args.count)?)
        );
        return Ok(true);
    }
    let kinds = if args.only.is_empty() {
        Kind::value_variants().to_vec()
    } else {
        args.only.clone()
    };
    let origin = Origin::of(dir);
    println!("{}; {} pairs of 16 + 128 bytes", origin.line(), args.count);
    let mut columns = vec![""];
    let mut results = Vec::new();
    for kind in kinds {
        let name = kind.to_possible_value().expect("no value is skipped").get_name().to_owned();
        eprintln!("measuring {name}");
        results.push(measure_apart(&name, dir, args.count)?);
        columns.push(name.leak()); // a handful of names, once
    }
    let mut table = Table::new(&columns);
    for (key, told) in FIGURES {
        let cells = results.iter().map(|result| figure(result[key].as_f64()));
        table.row(std::iter::once(told.to_owned()).chain(cells).collect());
    }
    print!("{}", table.markdown());
    Ok(true)
}

fn figure(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value >= 10_000.0 => format!("{:.0} k", value / 1000.0),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.1}"),
    }
}

/// Runs this program again for one engine.
fn measure_apart(name: &str, dir: &Path, count: u64) -> Result<Value> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command
        .args(["engine", "--alone", name, "--count", &count.to_string(), "--dir"])
        .arg(dir);
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    ensure!(output.status.success(), "measuring {name} failed");
    serde_json::from_slice(&output.stdout).with_context(|| format!("figures of {name}"))
}

fn open(kind: Kind, dir: &Path) -> Result<Arc<dyn Engine>> {
    let config = EngineConfig::default();
    Ok(match kind {
        Kind::Memory => Arc::new(MemEngine::new()),
        Kind::Fjall => Arc::new(FjallEngine::open(dir, &config)?),
        #[cfg(feature = "rocksdb")]
        Kind::Rocksdb => Arc::new(engine::RocksEngine::open(dir, &config)?),
    })
}

/// Key of a number: scattered over the whole range, so that loads come in random order.
fn key(number: u64) -> Bytes {
    let mut random = SmallRng::seed_from_u64(number);
    let mut key = [0; 16];
    random.fill_bytes(&mut key);
    Bytes::copy_from_slice(&key)
}

fn value(random: &mut SmallRng) -> Bytes {
    let mut value = [b'v'; 128];
    random.fill_bytes(&mut value[..64]);
    Bytes::copy_from_slice(&value)
}

/// How often a second `act` can be done, `times` times.
fn per_second(times: u64, mut act: impl FnMut(u64) -> Result<()>) -> Result<f64> {
    let start = MonoTime::now();
    for time in 0..times {
        act(time)?;
    }
    Ok(times as f64 / MonoTime::now().since(start).as_secs_f64())
}

fn measure(kind: Kind, dir: &Path, count: u64) -> Result<Map<String, Value>> {
    let engine = open(kind, dir)?;
    let mut figures = Map::new();
    let mut random = SmallRng::seed_from_u64(1);
    load(&*engine, count, &mut random, &mut figures)?;
    for (name, threads, batches) in [("sync_1", 1, 1500), ("sync_16", 16, 400)] {
        let (rate, p99) = synced(&*engine, threads, batches)?;
        figures.insert(name.to_owned(), rate.into());
        figures.insert(format!("{name}_p99"), p99.into());
    }
    let mut put = |name: &str, rate: f64| figures.insert(name.to_owned(), rate.into());
    let reads = (count / 5).max(1);
    warm_up(&*engine, count)?;
    put(
        "get",
        per_second(reads, |_| {
            let found = engine.get(Cf::Default, &key(random.random_range(0..count)))?;
            ensure!(found.is_some(), "a loaded key is absent");
            Ok(())
        })?,
    );
    put(
        "get_absent",
        per_second(reads, |number| {
            ensure!(
                engine.get(Cf::Default, &key(u64::MAX - number))?.is_none(),
                "a key that nobody wrote"
            );
            Ok(())
        })?,
    );
    let seeks = reads / 4;
    put(
        "seek_fresh",
        per_second(seeks, |_| {
            let mut cursor = engine.snapshot().cursor(Cf::Default, b"", b"")?;
            cursor
                .seek(&key(random.random_range(0..count)))?
                .context("nothing at a loaded key")
                .map(drop)
        })?,
    );
    let snapshot = engine.snapshot();
    let mut cursor = snapshot.cursor(Cf::Default, b"", b"")?;
    put(
        "seek_reused",
        per_second(seeks, |_| {
            cursor
                .seek(&key(random.random_range(0..count)))?
                .context("nothing at a loaded key")
                .map(drop)
        })?,
    );
    let mut at = [0u8; 16];
    put(
        "seek_near",
        per_second(reads, |_| {
            let (found, _) = match cursor.seek(&at)? {
                Some(pair) => pair,
                None => cursor.seek(&[0])?.context("nothing is loaded")?,
            };
            at.copy_from_slice(&found);
            at[15] = at[15].saturating_add(1);
            Ok(())
        })?,
    );
    put(
        "scan",
        per_second(seeks / 10, |_| {
            let mut cursor = engine.snapshot().cursor(Cf::Default, b"", b"")?;
            cursor.seek(&key(random.random_range(0..count)))?;
            for _ in 0..99 {
                cursor.next()?;
            }
            Ok(())
        })?,
    );
    put("rss", resident_mib()?);
    put("disk", engine.disk_bytes() as f64 / f64::from(1 << 20));
    Ok(figures)
}

fn load(engine: &dyn Engine, count: u64, random: &mut SmallRng, figures: &mut Map<String, Value>) -> Result<()> {
    let start = MonoTime::now();
    let mut number = 0;
    while number < count {
        let mut batch = Batch::new();
        for _ in 0..100.min(count - number) {
            batch.put(Cf::Default, key(number), value(random));
            number += 1;
        }
        engine.write(batch)?;
    }
    let rate = |span: Duration| Value::from(count as f64 / span.as_secs_f64());
    figures.insert("load".to_owned(), rate(MonoTime::now().since(start)));
    engine.sync()?;
    figures.insert("load_synced".to_owned(), rate(MonoTime::now().since(start)));
    Ok(())
}

/// Batches of 16 puts a second, each durable before the thread's next, and the 99th percentile of their time in milliseconds.
fn synced(engine: &dyn Engine, threads: u64, batches: u64) -> Result<(f64, f64)> {
    let start = MonoTime::now();
    let one = |thread: u64| -> Result<Vec<Duration>> {
        let mut random = SmallRng::seed_from_u64(thread);
        let mut times = Vec::new();
        for _ in 0..batches {
            let begin = MonoTime::now();
            let mut batch = Batch::new();
            for _ in 0..16 {
                batch.put(Cf::Default, key(random.random()), value(&mut random));
            }
            engine.write(batch)?;
            engine.sync()?;
            times.push(MonoTime::now().since(begin));
        }
        Ok(times)
    };
    let mut times = std::thread::scope(|scope| -> Result<Vec<Duration>> {
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || one(thread))).collect();
        let mut times = Vec::new();
        for thread in threads {
            times.extend(thread.join().expect("a writer panicked")?);
        }
        Ok(times)
    })?;
    let rate = times.len() as f64 / MonoTime::now().since(start).as_secs_f64();
    times.sort();
    Ok((rate, times[times.len() * 99 / 100].as_secs_f64() * 1000.0))
}

/// Reads a tenth of the keys: caches fill as they would in use, and compactions behind the load come to an end.
fn warm_up(engine: &dyn Engine, count: u64) -> Result<()> {
    per_second(count / 10, |number| {
        let _: () = drop(engine.get(Cf::Default, &key(number * 10))?);
        Ok(())
    })
    .map(drop)
}

fn resident_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS in /proc/self/status")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
