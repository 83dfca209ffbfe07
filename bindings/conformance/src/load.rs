//! Load out of one process: what `cargo xtask bench clients` measures and `cargo xtask bindings soak` checks. This is Rust's; every language has
//! the same as `load` among its tests.
//!
//! `load ENDPOINTS KEYSPACE MODE IN_FLIGHT AMOUNT PREFIX`; the keyspace `-` is none. Modes:
//! - `get`, `put` (values of 100 bytes, 10,000 keys `PREFIX/k/000000`), `txn` (begin, put two keys, commit): IN_FLIGHT loops of calls, measured for AMOUNT
//!   milliseconds after a warm-up of half of that. One line of JSON at the end: operations, seconds, CPU seconds of the process, p50, p99, failures.
//! - `soak`: AMOUNT operations in all, in IN_FLIGHT loops with keys of their own: of 20 ten gets, seven puts, three transactions that read and count up two
//!   keys. Each answer must be what the loop's own past says. After an undetermined write its keys are given up; errors that may be tried again
//!   mean that nothing was done. Prints `progress N` every second, and counts at the end; exit code 1 at the first wrong answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base::MonoTime;
use client::{Api, ClientOptions, Error, Hint, Keyspace, RawClient, TxnClient, TxnOptions};
use tokio::task::JoinSet;

const KEYS: u32 = 10_000;
const SLOTS: u64 = 8;

/// What a bench does; `tikv-client` has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    Get,
    Put,
    Txn,
    Soak,
}

/// Arguments, as of the programs of all languages.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    pub endpoints: String,
    pub keyspace: String,
    pub mode: Mode,
    pub in_flight: usize,
    pub amount: u64,
    pub prefix: String,
}

#[derive(Clone)]
struct Clients {
    raw: RawClient,
    txns: TxnClient,
}

/// Connects, loads, prints.
pub async fn run(args: Args) -> Result<()> {
    let options = ClientOptions {
        deadline: Duration::from_secs(20),
        api: match args.keyspace.as_str() {
            "-" => ClientOptions::default().api,
            name => Api::V2(Keyspace::Name(name.to_owned())),
        },
        ..ClientOptions::default()
    };
    let endpoints: Vec<&str> = args.endpoints.split(',').collect();
    let clients = Clients {
        raw: RawClient::connect(&endpoints, options.clone()).await?,
        txns: TxnClient::connect(&endpoints, options).await?,
    };
    if args.mode == Mode::Soak {
        return soak(&args, clients).await;
    }
    let (mode, prefix) = (args.mode, Arc::<str>::from(args.prefix.as_str()));
    let call = move |worker, random| {
        let (clients, prefix) = (clients.clone(), prefix.clone());
        async move { clients.call(mode, &prefix, worker, random).await.is_ok() }
    };
    println!("{}", bench(args.in_flight, Duration::from_millis(args.amount), call).await?);
    Ok(())
}

/// The key of a get or a put.
pub fn key(prefix: &str, random: u32) -> String {
    format!("{prefix}/k/{:06}", random % KEYS)
}

/// The keys of a transaction.
pub fn pair(prefix: &str, worker: usize, random: u32) -> [String; 2] {
    ["a", "b"].map(|half| format!("{prefix}/t/{worker}/{}/{half}", random % 100))
}

/// A value.
pub fn value() -> Vec<u8> {
    vec![b'v'; 100]
}

impl Clients {
    async fn call(&self, mode: Mode, prefix: &str, worker: usize, random: u32) -> Result<(), Error> {
        match mode {
            Mode::Get => self.raw.get(key(prefix, random)).await.map(drop),
            Mode::Put => self.raw.put(key(prefix, random), value()).await,
            Mode::Txn | Mode::Soak => {
                let mut txn = self.txns.begin(TxnOptions::default()).await?;
                for key in pair(prefix, worker, random) {
                    txn.put(key, value()).await?;
                }
                txn.commit().await.map(drop)
            }
        }
    }
}

/// Loops of `call(worker, random)`, measured; gives the line of JSON. A call tells whether it went well.
pub async fn bench<F, C>(in_flight: usize, span: Duration, call: F) -> Result<String>
where
    F: Fn(usize, u32) -> C + Clone + Send + Sync + 'static,
    C: Future<Output = bool> + Send + 'static,
{
    let over = Arc::new(AtomicBool::new(false));
    let epoch = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for worker in 0..in_flight {
        let (over, epoch, call) = (over.clone(), epoch.clone(), call.clone());
        workers.spawn(async move {
            let (mut number, mut seen) = (worker as u32 * 7919, 0);
            let (mut latencies, mut failures) = (Vec::<f64>::new(), 0u64);
            while !over.load(Relaxed) {
                number = number.wrapping_mul(1_103_515_245).wrapping_add(12345) & 0x7fff_ffff;
                let begun = MonoTime::now();
                let is_well = call(worker, number >> 8).await;
                let now = epoch.load(Relaxed);
                if seen != now {
                    (seen, failures) = (now, 0);
                    latencies.clear();
                }
                latencies.push(MonoTime::now().since(begun).as_secs_f64() * 1e6);
                failures += u64::from(!is_well);
            }
            (latencies, failures)
        });
    }
    tokio::time::sleep(span / 2).await;
    epoch.store(1, Relaxed);
    let (begun, cpu) = (MonoTime::now(), cpu()?);
    tokio::time::sleep(span).await;
    let (seconds, cpu) = (MonoTime::now().since(begun).as_secs_f64(), self::cpu()? - cpu);
    over.store(true, Relaxed);
    let (mut latencies, mut failures) = (Vec::new(), 0);
    while let Some(worker) = workers.join_next().await {
        let (more, failed) = worker?;
        latencies.extend(more);
        failures += failed;
    }
    latencies.sort_by(f64::total_cmp);
    let at = |share: usize| latencies.get(latencies.len() * share / 100).copied();
    let told = serde_json::json!({
        "operations": latencies.len(), "seconds": seconds, "cpu_seconds": cpu, "p50_us": at(50), "p99_us": at(99), "failures": failures,
    });
    Ok(told.to_string())
}

/// Processor seconds of this process so far, in user and kernel.
fn cpu() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("read one's own processor time")?;
    // The name of the program may hold spaces; what follows it does not. Fields 14 and 15, in hundredths of a second on all of Linux.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: Vec<f64> = fields.skip(11).take(2).map_while(|field| field.parse().ok()).collect();
    ensure!(ticks.len() == 2, "/proc/self/stat is not as it should be: {stat}");
    Ok((ticks[0] + ticks[1]) / 100.0)
}

#[derive(Default)]
struct Counts {
    begun: AtomicU64,
    undetermined: AtomicU64,
    failed: AtomicU64,
}

async fn soak(args: &Args, clients: Clients) -> Result<()> {
    let counts = Arc::<Counts>::default();
    let mut workers = JoinSet::new();
    for worker in 0..args.in_flight {
        let own = format!("{}/{worker}", args.prefix);
        workers.spawn(soak_worker(clients.clone(), counts.clone(), own, worker, args.amount));
    }
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            ended = workers.join_next() => match ended {
                Some(ended) => ended??,
                None => break,
            },
            _ = tick.tick() => println!("progress {}", counts.begun.load(Relaxed).min(args.amount)),
        }
    }
    let [undetermined, failed] = [&counts.undetermined, &counts.failed].map(|count| count.load(Relaxed));
    println!(
        "{}",
        serde_json::json!({ "operations": args.amount, "undetermined": undetermined, "failed": failed })
    );
    Ok(())
}

async fn soak_worker(clients: Clients, counts: Arc<Counts>, own: String, worker: usize, operations: u64) -> Result<()> {
    let (mut generations, mut expected) = ([0u64; SLOTS as usize], [const { None::<Vec<u8>> }; SLOTS as usize]);
    let (mut pair, mut count) = (0u64, 0u64);
    loop {
        let number = counts.begun.fetch_add(1, Relaxed) + 1;
        if number > operations {
            return Ok(());
        }
        let (slot, kind) = ((number % SLOTS) as usize, number / SLOTS % 20);
        let key = format!("{own}/{slot}/{}", generations[slot]);
        let done = match kind {
            0..10 => match clients.raw.get(key.clone()).await {
                Ok(found) => {
                    let found = found.map(|found| found.to_vec());
                    ensure!(found == expected[slot], "{key} is {found:?}, wanted {:?}", expected[slot]);
                    Ok(())
                }
                Err(error) => Err(error),
            },
            10..17 => {
                let value = [format!("{worker}:{number}:").into_bytes(), value()].concat();
                let put = clients.raw.put(key, value.clone()).await;
                put.map(|()| expected[slot] = Some(value))
            }
            _ => match count_up(&clients.txns, &format!("{own}/t{pair}"), count).await {
                Ok(Ok(())) => {
                    count += 1;
                    Ok(())
                }
                Ok(Err(error)) => Err(error),
                Err(wrong) => return Err(wrong),
            },
        };
        match done {
            Ok(()) => {}
            // A write that may still come: its keys are not looked at again.
            Err(Error::Undetermined { .. }) => {
                counts.undetermined.fetch_add(1, Relaxed);
                if kind < 17 {
                    generations[slot] += 1;
                    expected[slot] = None;
                } else {
                    (pair, count) = (pair + 1, 0);
                }
            }
            Err(error) => {
                counts.failed.fetch_add(1, Relaxed);
                if !matches!(error.hint(), Hint::Retry | Hint::RetryTransaction) {
                    bail!("{}", base::log::chain(&error));
                }
            }
        }
    }
}

/// Adds one to both keys of a pair in a transaction. The outer error is a wrong answer.
async fn count_up(txns: &TxnClient, pair: &str, count: u64) -> Result<Result<(), Error>> {
    let mut txn = match txns.begin(TxnOptions::default()).await {
        Ok(txn) => txn,
        Err(error) => return Ok(Err(error)),
    };
    for half in ["a", "b"] {
        let key = format!("{pair}{half}");
        let found = match txn.get(key.clone()).await {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        let wanted = (count > 0).then(|| count.to_string());
        ensure!(
            found.as_deref() == wanted.as_deref().map(str::as_bytes),
            "{key} counts {found:?}, wanted {wanted:?}"
        );
        if let Err(error) = txn.put(key, (count + 1).to_string()).await {
            return Ok(Err(error));
        }
    }
    Ok(txn.commit().await.map(drop))
}
