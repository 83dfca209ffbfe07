//! What a client counts of itself: a handful of atomic additions a request, read as a [`Metrics`] whenever somebody asks.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use base::MonoTime;

use crate::retry::Cause;

/// What is told apart: RPCs of stores by name, then the placement driver's.
const COMMANDS: [&str; 26] = [
    "raw_get",
    "raw_batch_get",
    "raw_put",
    "raw_batch_put",
    "raw_delete",
    "raw_batch_delete",
    "raw_scan",
    "raw_delete_range",
    "raw_get_key_ttl",
    "raw_compare_and_swap",
    "raw_checksum",
    "kv_get",
    "kv_batch_get",
    "kv_scan",
    "kv_prewrite",
    "kv_commit",
    "kv_batch_rollback",
    "kv_pessimistic_lock",
    "kv_pessimistic_rollback",
    "kv_txn_heart_beat",
    "kv_check_txn_status",
    "kv_check_secondary_locks",
    "kv_scan_lock",
    "kv_resolve_lock",
    "pd",
    "tso",
];

/// An entry of [`COMMANDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command(usize);

impl Command {
    /// All questions to the placement driver but those for timestamps.
    pub const PD: Command = Command::named("pd");
    /// Waits for a timestamp, which share requests.
    pub const TSO: Command = Command::named("tso");

    /// At compile time: a name that is not in the list does not build.
    pub const fn named(name: &str) -> Command {
        let mut at = 0;
        while at < COMMANDS.len() {
            if is_same(COMMANDS[at].as_bytes(), name.as_bytes()) {
                return Command(at);
            }
            at += 1;
        }
        panic!("the command is not in the list")
    }

    pub fn name(self) -> &'static str {
        COMMANDS[self.0]
    }
}

const fn is_same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

/// How a try of a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// Answered.
    Ok,
    /// The store does not serve the region as the client knew it; mostly tried again.
    Region,
    /// The server answered that it will not do this.
    Refused,
    /// The connection failed.
    Failed,
    /// No answer came within the deadline.
    Deadline,
    /// The caller gave up.
    Cancelled,
}

impl RequestOutcome {
    const ALL: [RequestOutcome; 6] = [
        RequestOutcome::Ok,
        RequestOutcome::Region,
        RequestOutcome::Refused,
        RequestOutcome::Failed,
        RequestOutcome::Deadline,
        RequestOutcome::Cancelled,
    ];

    /// As the text form has it.
    pub fn name(self) -> &'static str {
        match self {
            RequestOutcome::Ok => "ok",
            RequestOutcome::Region => "region",
            RequestOutcome::Refused => "refused",
            RequestOutcome::Failed => "failed",
            RequestOutcome::Deadline => "deadline",
            RequestOutcome::Cancelled => "cancelled",
        }
    }
}

/// Bounds of the latencies' buckets: 50 µs, doubling, to 6.5 s; what takes longer is in the last.
const BUCKETS: usize = 19;

fn bucket_of(latency: Duration) -> usize {
    let steps = latency.as_micros().div_ceil(50).max(1);
    (u128::BITS - (steps - 1).leading_zeros()).min(BUCKETS as u32 - 1) as usize
}

/// Upper bound of a bucket; the last has none.
fn bound_of(bucket: usize) -> Option<Duration> {
    (bucket < BUCKETS - 1).then(|| Duration::from_micros(50 << bucket))
}

#[derive(Default)]
struct Counts {
    outcomes: [AtomicU64; RequestOutcome::ALL.len()],
    latencies: [AtomicU64; BUCKETS],
    micros: AtomicU64,
}

/// What all handles of a client add to.
#[derive(Default)]
pub(crate) struct Counters {
    commands: [Counts; COMMANDS.len()],
    retries: [AtomicU64; Cause::COUNT],
    /// Tries that followed a hint without waiting.
    hints: AtomicU64,
    region_hits: AtomicU64,
    region_misses: AtomicU64,
    in_flight: AtomicI64,
}

impl Counters {
    /// Counts a try from now to [`Try::end`]; one that is dropped was cancelled.
    pub fn begin(&self, command: Command) -> Try<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Try {
            counters: self,
            command,
            begun: MonoTime::now(),
            outcome: RequestOutcome::Cancelled,
        }
    }

    pub fn on_retry(&self, cause: Cause) {
        self.retries[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn on_hint(&self) {
        self.hints.fetch_add(1, Ordering::Relaxed);
    }

    pub fn on_region(&self, was_known: bool) {
        let counter = if was_known { &self.region_hits } else { &self.region_misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub fn read(&self) -> Metrics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let command = |(name, counts): (&&'static str, &Counts)| {
            let all = RequestOutcome::ALL.iter().zip(&counts.outcomes);
            let outcomes: Vec<_> = all.map(|(outcome, count)| (*outcome, get(count))).collect();
            let used = outcomes.iter().any(|(_, count)| *count > 0);
            used.then(|| CommandMetrics {
                command: name,
                outcomes,
                latencies: (0..BUCKETS).map(|at| (bound_of(at), get(&counts.latencies[at]))).collect(),
                time: Duration::from_micros(get(&counts.micros)),
            })
        };
        let waits = Cause::ALL
            .iter()
            .map(|cause| (cause.name(), get(&self.retries[*cause as usize])));
        Metrics {
            commands: COMMANDS.iter().zip(&self.commands).filter_map(command).collect(),
            retries: waits.chain([("hint", get(&self.hints))]).collect(),
            region_hits: get(&self.region_hits),
            region_misses: get(&self.region_misses),
            in_flight: self.in_flight.load(Ordering::Relaxed).max(0) as u64,
        }
    }
}

/// One try under way.
pub(crate) struct Try<'a> {
    counters: &'a Counters,
    command: Command,
    begun: MonoTime,
    outcome: RequestOutcome,
}

impl Try<'_> {
    pub fn end(mut self, outcome: RequestOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for Try<'_> {
    fn drop(&mut self) {
        let latency = MonoTime::now().since(self.begun);
        let counts = &self.counters.commands[self.command.0];
        counts.outcomes[self.outcome as usize].fetch_add(1, Ordering::Relaxed);
        counts.latencies[bucket_of(latency)].fetch_add(1, Ordering::Relaxed);
        counts.micros.fetch_add(latency.as_micros() as u64, Ordering::Relaxed);
        self.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a client has done since it was connected. `Display` is the text form that Prometheus scrapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Those that were sent at least once. Each try of a request counts.
    pub commands: Vec<CommandMetrics>,
    /// Tries that followed another, by cause: `stale`, `election`, `busy`, `unreachable`, `locked` after a wait, `hint` at once.
    pub retries: Vec<(&'static str, u64)>,
    /// Look-ups of regions that were known, and that the placement driver was asked for.
    pub region_hits: u64,
    pub region_misses: u64,
    /// Tries that have no answer yet.
    pub in_flight: u64,
}

/// Tries of one RPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandMetrics {
    /// Name of the RPC; `pd` stands for all questions to the placement driver but `tso`.
    pub command: &'static str,
    pub outcomes: Vec<(RequestOutcome, u64)>,
    /// How many took up to a bound and longer than the one before; the last has no bound.
    pub latencies: Vec<(Option<Duration>, u64)>,
    /// All their latencies together.
    pub time: Duration,
}

impl CommandMetrics {
    /// Tries that ended so.
    pub fn count(&self, outcome: RequestOutcome) -> u64 {
        self.outcomes
            .iter()
            .find(|(of, _)| *of == outcome)
            .map_or(0, |(_, count)| *count)
    }

    /// Tries that ended.
    pub fn total(&self) -> u64 {
        self.outcomes.iter().map(|(_, count)| count).sum()
    }
}

impl Metrics {
    /// Tries of one RPC, if there were any.
    pub fn command(&self, name: &str) -> Option<&CommandMetrics> {
        self.commands.iter().find(|one| one.command == name)
    }
}

impl std::fmt::Display for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "# HELP ferrite_client_requests_total Tries of requests that ended.\n# TYPE ferrite_client_requests_total counter\n",
        )?;
        for one in &self.commands {
            for (outcome, count) in one.outcomes.iter().filter(|(_, count)| *count > 0) {
                let (command, outcome) = (one.command, outcome.name());
                writeln!(
                    f,
                    "ferrite_client_requests_total{{command=\"{command}\",outcome=\"{outcome}\"}} {count}"
                )?;
            }
        }
        f.write_str(
            "# HELP ferrite_client_request_seconds How long tries took.\n# TYPE ferrite_client_request_seconds histogram\n",
        )?;
        for one in &self.commands {
            f.write_str(&histogram(one))?;
        }
        f.write_str(
            "# HELP ferrite_client_retries_total Tries that followed another.\n# TYPE ferrite_client_retries_total counter\n",
        )?;
        for (cause, count) in &self.retries {
            writeln!(f, "ferrite_client_retries_total{{cause=\"{cause}\"}} {count}")?;
        }
        f.write_str("# HELP ferrite_client_regions_total Look-ups of regions.\n# TYPE ferrite_client_regions_total counter\n")?;
        writeln!(f, "ferrite_client_regions_total{{known=\"yes\"}} {}", self.region_hits)?;
        writeln!(f, "ferrite_client_regions_total{{known=\"no\"}} {}", self.region_misses)?;
        f.write_str("# HELP ferrite_client_in_flight Tries without an answer yet.\n# TYPE ferrite_client_in_flight gauge\n")?;
        writeln!(f, "ferrite_client_in_flight {}", self.in_flight)
    }
}

fn histogram(one: &CommandMetrics) -> String {
    let (mut text, mut below) = (String::new(), 0);
    let command = one.command;
    for (bound, count) in &one.latencies {
        below += count;
        let bound = bound.map_or("+Inf".to_owned(), |bound| bound.as_secs_f64().to_string());
        let _ = writeln!(
            text,
            "ferrite_client_request_seconds_bucket{{command=\"{command}\",le=\"{bound}\"}} {below}"
        );
    }
    let seconds = one.time.as_secs_f64();
    let _ = writeln!(text, "ferrite_client_request_seconds_sum{{command=\"{command}\"}} {seconds}");
    let _ = writeln!(text, "ferrite_client_request_seconds_count{{command=\"{command}\"}} {below}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_fall_between_the_bounds() {
        for (micros, bucket) in [
            (0, 0),
            (50, 0),
            (51, 1),
            (100, 1),
            (101, 2),
            (6_553_600, 17),
            (6_553_601, 18),
            (u64::MAX, 18),
        ] {
            assert_eq!(bucket_of(Duration::from_micros(micros)), bucket, "{micros} µs");
        }
        for bucket in 0..BUCKETS - 1 {
            let bound = bound_of(bucket).expect("only the last has none");
            assert_eq!(bucket_of(bound), bucket);
        }
    }

    #[test]
    fn what_ended_is_counted_and_told() {
        let counters = Counters::default();
        counters.begin(Command::named("raw_get")).end(RequestOutcome::Ok);
        drop(counters.begin(Command::named("raw_get")));
        let open = counters.begin(Command::TSO);
        counters.on_retry(Cause::Busy);
        counters.on_region(true);
        let told = counters.read();
        assert_eq!(told.in_flight, 1);
        let gets = told.command("raw_get").expect("was sent");
        assert_eq!((gets.total(), gets.count(RequestOutcome::Cancelled)), (2, 1));
        assert_eq!(told.command("tso"), None, "it has not ended");
        open.end(RequestOutcome::Failed);
        let text = counters.read().to_string();
        for line in [
            "ferrite_client_requests_total{command=\"raw_get\",outcome=\"ok\"} 1",
            "ferrite_client_requests_total{command=\"tso\",outcome=\"failed\"} 1",
            "ferrite_client_request_seconds_bucket{command=\"raw_get\",le=\"+Inf\"} 2",
            "ferrite_client_request_seconds_count{command=\"raw_get\"} 2",
            "ferrite_client_retries_total{cause=\"busy\"} 1",
            "ferrite_client_regions_total{known=\"yes\"} 1",
            "ferrite_client_in_flight 0",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} in\n{text}");
        }
    }
}
