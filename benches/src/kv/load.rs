//! The load: closed-loop clients, each with one operation under way, and what became of it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use base::MonoTime;
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::caller::Caller;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Op {
    Put,
    Get,
}

impl Op {
    pub fn name(self) -> &'static str {
        match self {
            Op::Put => "put",
            Op::Get => "get",
        }
    }
}

/// Keys `0..count`, as text of `key_bytes` bytes; values of one length.
pub struct Keys {
    pub count: u64,
    pub key_bytes: usize,
    pub value: Bytes,
}

impl Keys {
    /// `bench/00…0n`. No key is shorter than its prefix and number need.
    pub fn key(&self, n: u64) -> Bytes {
        let width = self.key_bytes.saturating_sub(PREFIX.len());
        Bytes::from(format!("{PREFIX}{n:0width$}"))
    }
}

const PREFIX: &str = "bench/";

/// How one cell of the table is measured.
#[derive(Clone, Copy)]
pub struct Plan {
    pub warm_up: Duration,
    pub span: Duration,
}

/// What was measured around a sample.
pub struct Window {
    pub span: Duration,
    /// Processor time of the servers in that span.
    pub cpu: Duration,
}

/// One measured span.
#[derive(Clone, Debug)]
pub struct Sample {
    pub per_second: f64,
    pub p50_us: u32,
    pub p99_us: u32,
    /// Processor time of the servers per operation.
    pub cpu_us: f64,
    pub errors: u64,
}

impl Sample {
    pub fn new(mut latencies_us: Vec<u32>, errors: u64, window: Window) -> Self {
        latencies_us.sort_unstable();
        let at = |share: f64| {
            let last = latencies_us.len().saturating_sub(1);
            latencies_us.get((last as f64 * share) as usize).copied().unwrap_or(u32::MAX)
        };
        let count = latencies_us.len() as f64;
        Self {
            per_second: count / window.span.as_secs_f64(),
            p50_us: at(0.50),
            p99_us: at(0.99),
            cpu_us: window.cpu.as_micros() as f64 / count,
            errors,
        }
    }

    /// The median of each figure by itself; errors add up.
    pub fn median(samples: &[Sample]) -> Sample {
        let median = |figure: fn(&Sample) -> f64| {
            let mut figures: Vec<_> = samples.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        Sample {
            per_second: median(|sample| sample.per_second),
            p50_us: median(|sample| f64::from(sample.p50_us)) as u32,
            p99_us: median(|sample| f64::from(sample.p99_us)) as u32,
            cpu_us: median(|sample| sample.cpu_us),
            errors: samples.iter().map(|sample| sample.errors).sum(),
        }
    }
}

/// One closed-loop client.
pub trait Worker: Send + 'static {
    /// One operation, which ends when it is answered.
    fn work(&mut self, chance: &mut SmallRng) -> impl Future<Output = Result<()>> + Send;
}

/// Runs every caller in a loop of its own and measures what ends within the span. `cpu` reads the servers' processor time.
pub async fn measure(callers: Vec<Caller>, op: Op, keys: &Arc<Keys>, plan: Plan, cpu: impl Fn() -> Duration) -> Result<Sample> {
    let asker = |caller| Asker {
        caller,
        op,
        keys: keys.clone(),
    };
    measure_workers(callers.into_iter().map(asker).collect(), plan, cpu).await
}

struct Asker {
    caller: Caller,
    op: Op,
    keys: Arc<Keys>,
}

impl Worker for Asker {
    async fn work(&mut self, chance: &mut SmallRng) -> Result<()> {
        let key = self.keys.key(chance.random_range(0..self.keys.count));
        self.caller.call(self.op, key, &self.keys.value).await
    }
}

/// The same for workers of any kind.
pub async fn measure_workers(workers: Vec<impl Worker>, plan: Plan, cpu: impl Fn() -> Duration) -> Result<Sample> {
    let begin = MonoTime::now() + plan.warm_up;
    let end = begin + plan.span;
    let clients: Vec<_> = workers
        .into_iter()
        .zip(1..)
        .map(|(worker, seed)| tokio::spawn(client(worker, seed, begin, end)))
        .collect();

    tokio::time::sleep(begin.since(MonoTime::now())).await;
    let cpu_before = cpu();
    tokio::time::sleep(end.since(MonoTime::now())).await;
    let window = Window {
        span: plan.span,
        cpu: cpu().saturating_sub(cpu_before),
    };

    let (mut latencies_us, mut errors, mut last_error) = (Vec::new(), 0, None);
    for client in clients {
        let outcome = client.await?;
        latencies_us.extend(outcome.latencies_us);
        errors += outcome.errors;
        last_error = outcome.last_error.or(last_error);
    }
    let done = latencies_us.len() as u64;
    ensure!(
        errors * 100 <= done,
        "{errors} errors beside {done} answers, the last: {}",
        last_error.unwrap_or_default()
    );
    Ok(Sample::new(latencies_us, errors, window))
}

struct Outcome {
    latencies_us: Vec<u32>,
    errors: u64,
    last_error: Option<String>,
}

async fn client(mut worker: impl Worker, seed: u64, begin: MonoTime, end: MonoTime) -> Outcome {
    let mut chance = SmallRng::seed_from_u64(seed);
    let mut outcome = Outcome {
        latencies_us: Vec::new(),
        errors: 0,
        last_error: None,
    };
    loop {
        let asked = MonoTime::now();
        if asked >= end {
            return outcome;
        }
        let answer = worker.work(&mut chance).await;
        let answered = MonoTime::now();
        match answer {
            Ok(()) if answered >= begin && answered < end => outcome.latencies_us.push(answered.since(asked).as_micros() as u32),
            Ok(()) => {}
            Err(error) => {
                outcome.errors += 1;
                outcome.last_error = Some(format!("{error:#}"));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

/// Writes every key once, so that gets find them.
pub async fn fill(callers: Vec<Caller>, keys: &Arc<Keys>) -> Result<()> {
    let count = callers.len() as u64;
    let writers = callers.into_iter().zip(0..).map(|(mut caller, first)| {
        let keys = keys.clone();
        tokio::spawn(async move {
            for n in (first..keys.count).step_by(count as usize) {
                caller.call(Op::Put, keys.key(n), &keys.value).await?;
            }
            Ok::<_, anyhow::Error>(())
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_rates() {
        let window = Window {
            span: Duration::from_secs(2),
            cpu: Duration::from_millis(10),
        };
        let sample = Sample::new((1..=100).rev().collect(), 0, window);
        assert_eq!((sample.p50_us, sample.p99_us), (50, 99));
        assert_eq!((sample.per_second, sample.cpu_us), (50.0, 100.0));
    }

    #[test]
    fn median_is_taken_figure_by_figure() {
        let sample = |per_second, p99_us| Sample {
            per_second,
            p50_us: 1,
            p99_us,
            cpu_us: 1.0,
            errors: 1,
        };
        let median = Sample::median(&[sample(1.0, 30), sample(3.0, 10), sample(2.0, 20)]);
        assert_eq!((median.per_second, median.p99_us, median.errors), (2.0, 20, 3));
    }

    #[test]
    fn keys_are_of_one_length() {
        let keys = Keys {
            count: 10,
            key_bytes: 16,
            value: Bytes::new(),
        };
        assert_eq!((&keys.key(7)[..], keys.key(1_000_000).len()), (&b"bench/0000000007"[..], 16));
    }
}
