//! What one seed turns on: a random subset of faults and features with random strengths ("swarm testing", Groce et al., ISSTA 2012).
//!
//! A run with everything on at once hides what only shows when something else is quiet, so each seed draws its own mix.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;

use crate::disk::DiskOptions;
use crate::network::NetworkOptions;
use crate::rng::Rng;

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Put, delete and get of single keys; linearizable per key.
    Register,
    /// Appends to lists and reads of them; nothing acknowledged may be missing.
    Append,
    /// Each client does one or the other, by its number.
    All,
    /// Transfers between accounts, and reads of all of them: the total stays.
    Bank,
    /// Transactions that read and append to several lists: strong snapshot isolation.
    Lists,
    /// Independent writes, and reads of all of them: readers agree on their order.
    Fork,
    /// Increments: none is lost.
    Counter,
    /// Transactions that read what the other writes: kept apart when reads are locked.
    Skew,
    /// Each seed does two of the transactional ones.
    Txn,
    /// The placement driver's members alone: timestamps and ids.
    Members,
}

impl Workload {
    pub fn name(self) -> &'static str {
        match self {
            Workload::Register => "register",
            Workload::Append => "append",
            Workload::All => "all",
            Workload::Bank => "bank",
            Workload::Lists => "lists",
            Workload::Fork => "fork",
            Workload::Counter => "counter",
            Workload::Skew => "skew",
            Workload::Txn => "txn",
            Workload::Members => "members",
        }
    }

    /// Whether clients run transactions rather than single operations.
    pub fn is_transactional(self) -> bool {
        !matches!(
            self,
            Workload::Register | Workload::Append | Workload::All | Workload::Members
        )
    }
}

/// A fault that comes again and again: on average every `every`, for about `lasts`.
#[derive(Clone, Copy, Debug)]
pub struct Recurring {
    pub every: Duration,
    pub lasts: Duration,
}

/// What transactions are made of: each draws its own mode by these.
#[derive(Clone, Debug)]
pub struct TxnOptions {
    /// Share of pessimistic transactions.
    pub pessimistic: f64,
    pub async_commit: f64,
    pub one_phase: f64,
    pub heartbeats: f64,
    /// Share of async commits that take a timestamp before they prewrite.
    pub linearizable: f64,
    /// Locks live this long unless they are prolonged.
    pub ttl: Duration,
    /// Mean pause between two steps of a transaction.
    pub pause: Duration,
    /// Share of transactions in which the client dies.
    pub deaths: f64,
    /// Whether pessimistic locks stay in memory.
    pub in_memory: bool,
}

impl TxnOptions {
    /// Some of everything, and nobody dies.
    pub fn usual() -> TxnOptions {
        TxnOptions {
            pessimistic: 0.3,
            async_commit: 0.5,
            one_phase: 0.5,
            heartbeats: 0.5,
            linearizable: 0.5,
            ttl: Duration::from_secs(3),
            pause: Duration::ZERO,
            deaths: 0.0,
            in_memory: true,
        }
    }

    fn swarm(rng: &mut Rng) -> TxnOptions {
        TxnOptions {
            pessimistic: *rng.pick(&[0.0, 0.3, 0.5, 1.0]),
            async_commit: *rng.pick(&[0.0, 0.5, 1.0]),
            one_phase: *rng.pick(&[0.0, 0.5, 1.0]),
            heartbeats: *rng.pick(&[0.0, 0.5, 1.0]),
            linearizable: *rng.pick(&[0.0, 0.5, 1.0]),
            ttl: millis(rng, 50, 3_000),
            pause: *rng.pick(&[Duration::ZERO, Duration::from_millis(2), Duration::from_millis(20)]),
            deaths: *rng.pick(&[0.0, 0.02, 0.1]),
            in_memory: rng.chance(0.6),
        }
    }
}

/// Everything that one run is made of.
#[derive(Clone, Debug)]
pub struct Options {
    pub stores: u64,
    pub regions: u64,
    /// Voters of each region at bootstrap.
    pub replicas: u64,
    pub clients: u64,
    /// Mean pause of a client between two operations; each client draws its own around it.
    pub think: Duration,
    /// Share of clients that go on asking a leader that does not answer.
    pub stubborn_clients: f64,
    /// Share of reads.
    pub reads: f64,
    /// Share of reads that ask a follower.
    pub replica_reads: f64,
    /// Operations on a key before a new one takes its place: bounds the work of the checkers.
    pub key_operations: u64,
    /// Bytes of a value beside what makes it unique.
    pub value_bytes: usize,
    /// How long faults are injected.
    pub chaos: Duration,
    /// Within which every client and every region must make progress once all is healed.
    pub heal: Duration,

    pub network: NetworkOptions,
    pub disk: DiskOptions,
    pub crashes: Option<Recurring>,
    /// Share of crashes that hit every store at once, as a power cut does.
    pub crashes_of_all: f64,
    /// Share of votes right after which their store crashes.
    pub crash_at_vote: f64,
    /// Share of appends' answers right after which their store crashes.
    pub crash_at_append: f64,
    pub pauses: Option<Recurring>,
    pub partitions: Option<Recurring>,
    /// Links come back one by one.
    pub swizzle: bool,
    pub slow_disks: Option<Recurring>,
    pub clock_jumps: Option<Recurring>,
    pub transfers: Option<Recurring>,
    pub campaigns: Option<Recurring>,
    pub conf_changes: Option<Recurring>,
    pub splits: Option<Recurring>,
    /// Share of splits right after which their store crashes.
    pub crash_at_split: f64,
    pub merges: Option<Recurring>,
    /// Share of steps of a merge right after which their store crashes.
    pub crash_at_merge: f64,
    /// Zero: regions never hibernate.
    pub hibernate_after: Duration,
    /// All clients rest.
    pub naps: Option<Recurring>,

    /// Zero sends every read to a quorum.
    pub lease: Duration,
    pub log_entries_max: u64,
    pub flush_interval: Duration,
    /// Mean time that applying a batch of entries takes.
    pub apply_mean: Duration,
    /// Raft events of a store are handled in batches of this many.
    pub batch_max: usize,
    pub txn: TxnOptions,
}

impl Options {
    /// A quiet cluster of three stores: the base that scenarios change.
    pub fn quiet() -> Options {
        Options {
            stores: 3,
            regions: 1,
            replicas: 3,
            clients: 1,
            think: Duration::from_millis(5),
            stubborn_clients: 0.0,
            reads: 0.5,
            replica_reads: 0.0,
            key_operations: 400,
            value_bytes: 0,
            chaos: Duration::from_secs(10),
            heal: Duration::from_secs(30),
            network: NetworkOptions::healthy(),
            disk: DiskOptions::healthy(),
            crashes: None,
            crashes_of_all: 0.0,
            crash_at_vote: 0.0,
            crash_at_append: 0.0,
            pauses: None,
            partitions: None,
            swizzle: false,
            slow_disks: None,
            clock_jumps: None,
            transfers: None,
            campaigns: None,
            conf_changes: None,
            splits: None,
            crash_at_split: 0.0,
            merges: None,
            crash_at_merge: 0.0,
            hibernate_after: Duration::ZERO,
            naps: None,
            lease: Duration::from_millis(800),
            log_entries_max: 10_000,
            flush_interval: Duration::from_secs(10),
            apply_mean: Duration::from_micros(100),
            batch_max: 64,
            txn: TxnOptions::usual(),
        }
    }

    /// The mix of `seed` for a workload.
    pub fn swarm_of(seed: u64, workload: Workload) -> Options {
        match workload.is_transactional() {
            true => Options::swarm_transactional(seed),
            false => Options::swarm(seed),
        }
    }

    /// The same with shorter lives, so that many seeds fit, and with steps of transactions closer to each other.
    fn swarm_transactional(seed: u64) -> Options {
        let rng = &mut Rng::stream(seed, "options of transactions");
        let often = |fault: Option<Recurring>| {
            fault.map(|fault| Recurring {
                every: fault.every / 3,
                ..fault
            })
        };
        let usual = Options::swarm(seed);
        Options {
            regions: rng.between(1, 4),
            think: millis(rng, 2, 40),
            chaos: Duration::from_secs(6),
            crashes: often(usual.crashes),
            pauses: often(usual.pauses),
            partitions: often(usual.partitions),
            clock_jumps: often(usual.clock_jumps),
            transfers: maybe(rng, 0.5, (200, 2_000), (1, 2)),
            naps: often(usual.naps),
            apply_mean: *rng.pick(&[Duration::from_micros(50), Duration::from_millis(1), Duration::from_millis(5)]),
            txn: TxnOptions::swarm(rng),
            ..usual
        }
    }

    /// The mix of `seed`.
    pub fn swarm(seed: u64) -> Options {
        let rng = &mut Rng::stream(seed, "options");
        let stores = *rng.pick(&[3, 3, 3, 4, 5]);
        Options {
            stores,
            regions: rng.between(1, 4),
            replicas: if stores == 5 && rng.chance(0.4) { 5 } else { 3 },
            clients: rng.between(3, 7),
            think: millis(rng, 20, 200),
            stubborn_clients: 0.5,
            reads: *rng.pick(&[0.3, 0.5, 0.5, 0.7]),
            replica_reads: *rng.pick(&[0.0, 0.0, 0.2, 0.5]),
            key_operations: rng.between(40, 400),
            value_bytes: *rng.pick(&[0, 0, 16, 1024]),
            chaos: Duration::from_secs(20),
            heal: Duration::from_secs(40),
            network: swarm_network(rng),
            disk: swarm_disk(rng),
            crashes: maybe(rng, 0.7, (2_000, 8_000), (50, 3_000)),
            crashes_of_all: *rng.pick(&[0.0, 0.1, 0.3]),
            crash_at_vote: *rng.pick(&[0.0, 0.1, 0.3]),
            crash_at_append: *rng.pick(&[0.0, 0.0005, 0.002]),
            pauses: maybe(rng, 0.5, (2_000, 8_000), (500, 4_000)),
            partitions: maybe(rng, 0.6, (2_000, 8_000), (500, 6_000)),
            swizzle: rng.chance(0.3),
            slow_disks: maybe(rng, 0.3, (3_000, 10_000), (1_000, 5_000)),
            clock_jumps: maybe(rng, 0.3, (2_000, 8_000), (1, 2)),
            transfers: maybe(rng, 0.4, (500, 5_000), (1, 2)),
            campaigns: maybe(rng, 0.3, (500, 5_000), (1, 2)),
            conf_changes: maybe(rng, 0.5, (500, 5_000), (1, 2)),
            lease: if rng.chance(0.7) {
                Duration::from_millis(800)
            } else {
                Duration::ZERO
            },
            log_entries_max: *rng.pick(&[8, 30, 100, 10_000]),
            flush_interval: millis(rng, 200, 5_000),
            apply_mean: *rng.pick(&[Duration::from_micros(50), Duration::from_millis(1), Duration::from_millis(20)]),
            batch_max: *rng.pick(&[1, 4, 64]),
            txn: TxnOptions::usual(),
            // Drawn last: what was there before stays as it was for each seed.
            splits: maybe(rng, 0.5, (1_000, 8_000), (1, 2)),
            crash_at_split: *rng.pick(&[0.0, 0.05, 0.2]),
            merges: maybe(rng, 0.5, (500, 6_000), (1, 2)),
            crash_at_merge: *rng.pick(&[0.0, 0.05, 0.2]),
            hibernate_after: Duration::from_millis(*rng.pick(&[0, 200, 500, 1000])),
            naps: maybe(rng, 0.4, (1_000, 5_000), (1_000, 3_000)),
        }
    }
}

fn millis(rng: &mut Rng, low: u64, high: u64) -> Duration {
    Duration::from_millis(rng.between(low, high))
}

fn maybe(rng: &mut Rng, p: f64, every: (u64, u64), lasts: (u64, u64)) -> Option<Recurring> {
    let recurring = Recurring {
        every: millis(rng, every.0, every.1),
        lasts: millis(rng, lasts.0, lasts.1),
    };
    rng.chance(p).then_some(recurring)
}

fn swarm_network(rng: &mut Rng) -> NetworkOptions {
    let healthy = NetworkOptions::healthy();
    let shaky = rng.chance(0.6);
    NetworkOptions {
        loss: if shaky { *rng.pick(&[0.0, 0.01, 0.05, 0.2]) } else { 0.0 },
        delay_mean: if shaky {
            *rng.pick(&[healthy.delay_mean, Duration::from_millis(5), Duration::from_millis(50)])
        } else {
            healthy.delay_mean
        },
        reorder: if shaky { *rng.pick(&[0.0, 0.1, 0.5]) } else { 0.0 },
        late: if shaky { *rng.pick(&[0.0, 0.0, 0.01, 0.05]) } else { 0.0 },
        duplicate: if shaky { *rng.pick(&[0.0, 0.05, 0.3]) } else { 0.0 },
        ..healthy
    }
}

fn swarm_disk(rng: &mut Rng) -> DiskOptions {
    let healthy = DiskOptions::healthy();
    DiskOptions {
        sync_mean: *rng.pick(&[healthy.sync_mean, Duration::from_millis(5), Duration::from_millis(30)]),
        stall: *rng.pick(&[0.0, 0.0, 0.01]),
        stall_mean: Duration::from_millis(500),
        ..healthy
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "stores={} replicas={} regions={} clients={}",
            self.stores, self.replicas, self.regions, self.clients
        )?;
        write!(
            f,
            " think={:?} reads={} replica_reads={}",
            self.think, self.reads, self.replica_reads
        )?;
        let net = &self.network;
        write!(
            f,
            " loss={} delay={:?} reorder={} late={} duplicate={}",
            net.loss, net.delay_mean, net.reorder, net.late, net.duplicate
        )?;
        write!(f, " sync={:?} stall={}", self.disk.sync_mean, self.disk.stall)?;
        let recurring = [
            ("crashes", self.crashes),
            ("pauses", self.pauses),
            ("partitions", self.partitions),
            ("slow_disks", self.slow_disks),
            ("clock_jumps", self.clock_jumps),
            ("transfers", self.transfers),
            ("campaigns", self.campaigns),
            ("conf_changes", self.conf_changes),
            ("splits", self.splits),
            ("merges", self.merges),
            ("naps", self.naps),
        ];
        for (name, fault) in recurring {
            if let Some(fault) = fault {
                write!(f, " {name}=every {:?} for {:?}", fault.every, fault.lasts)?;
            }
        }
        write!(
            f,
            " crashes_of_all={} crash_at_vote={}",
            self.crashes_of_all, self.crash_at_vote
        )?;
        write!(
            f,
            " crash_at_append={} crash_at_split={} crash_at_merge={}",
            self.crash_at_append, self.crash_at_split, self.crash_at_merge
        )?;
        write!(f, " swizzle={} hibernate_after={:?}", self.swizzle, self.hibernate_after)?;
        write!(
            f,
            " lease={:?} log_entries_max={} flush={:?}",
            self.lease, self.log_entries_max, self.flush_interval
        )?;
        write!(f, " apply={:?} batch_max={}", self.apply_mean, self.batch_max)?;
        let txn = &self.txn;
        write!(f, " pessimistic={} async_commit={}", txn.pessimistic, txn.async_commit)?;
        write!(f, " one_phase={} heartbeats={}", txn.one_phase, txn.heartbeats)?;
        write!(f, " linearizable={} in_memory={}", txn.linearizable, txn.in_memory)?;
        write!(f, " ttl={:?} pause={:?} deaths={}", txn.ttl, txn.pause, txn.deaths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_repeat_and_turn_each_fault_on_and_off() {
        let mixes: Vec<_> = (0..100).map(Options::swarm).collect();
        assert_eq!(mixes[7].to_string(), Options::swarm(7).to_string());
        let share = |on: fn(&Options) -> bool| mixes.iter().filter(|mix| on(mix)).count();
        for (name, on) in [
            ("crashes", (|mix| mix.crashes.is_some()) as fn(&Options) -> bool),
            ("pauses", |mix| mix.pauses.is_some()),
            ("partitions", |mix| mix.partitions.is_some()),
            ("loss", |mix| mix.network.loss > 0.0),
            ("reorder", |mix| mix.network.reorder > 0.0),
            ("conf_changes", |mix| mix.conf_changes.is_some()),
            ("splits", |mix| mix.splits.is_some()),
            ("merges", |mix| mix.merges.is_some()),
            ("naps", |mix| mix.naps.is_some()),
            ("hibernation", |mix| !mix.hibernate_after.is_zero()),
            ("lease", |mix| !mix.lease.is_zero()),
        ] {
            assert!((10..=90).contains(&share(on)), "{name} is on in {} of 100 seeds", share(on));
        }
    }
}
