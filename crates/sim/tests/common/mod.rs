//! What scenarios share: clusters at rest with `must_` helpers, and chaos made of named ingredients.

use std::time::Duration;

use sim::history::{Kind, Op};
use sim::network::NetworkOptions;
use sim::options::{Options, Recurring, Workload};
use sim::run::{Task, run_with};
use sim::world::World;

/// A cluster whose clients rest; its first leader is elected.
pub fn world(seed: u64, options: Options) -> World {
    let mut world = World::new(seed, options, Workload::Register, false);
    world.rest_clients();
    let led = world.run_until(Duration::from_secs(10), |world| {
        world.regions().iter().all(|r| world.leader(base::RegionId(r.id)).is_some())
    });
    assert!(led.expect("promises kept"), "no leader within ten seconds");
    world
}

/// Puts until it is acknowledged. Each try writes a value of its own kind, since one of unknown outcome may yet take effect.
pub fn must_put(world: &mut World, key: &str, value: &str) {
    for retry in 0..20 {
        let value = if retry == 0 {
            value.to_owned()
        } else {
            format!("{value} retry {retry}")
        };
        let ended = world
            .perform(
                0,
                Op::Put {
                    key: key.into(),
                    value: format!("{key} {value}"),
                },
            )
            .expect("promises kept");
        if ended.kind == Kind::Ok {
            return;
        }
    }
    panic!("no put of {key} was acknowledged");
}

/// Gets until it is answered; of values that [`must_put`] wrote, what it was given.
pub fn must_get(world: &mut World, key: &str) -> Option<String> {
    for _ in 0..20 {
        let ended = world
            .perform(
                0,
                Op::Get {
                    key: key.into(),
                    value: None,
                },
            )
            .expect("promises kept");
        if let (Kind::Ok, Op::Get { value, .. }) = (ended.kind, ended.op) {
            let given = |value: String| value.split(' ').nth(1).map(String::from);
            return value.and_then(given);
        }
    }
    panic!("no get of {key} was answered");
}

/// Ingredients of a run; each adds to what goes wrong.
#[derive(Clone, Copy)]
pub struct Chaos {
    pub clients: u64,
    /// Messages are lost, reordered, doubled and late.
    pub unreliable: bool,
    pub partitions: bool,
    pub crashes: bool,
    /// Logs are compacted so early that lagging peers need raft snapshots.
    pub snapshots: bool,
    pub conf_changes: bool,
}

/// Seeds that each scenario runs.
const SEEDS: u64 = 4;

impl Chaos {
    pub fn none() -> Chaos {
        Chaos {
            clients: 5,
            unreliable: false,
            partitions: false,
            crashes: false,
            snapshots: false,
            conf_changes: false,
        }
    }

    fn options(self) -> Options {
        let recurring = |on: bool, every: u64, lasts: u64| {
            on.then_some(Recurring {
                every: Duration::from_millis(every),
                lasts: Duration::from_millis(lasts),
            })
        };
        let mut options = Options {
            stores: 5,
            replicas: if self.conf_changes { 3 } else { 5 },
            regions: 2,
            clients: self.clients,
            think: Duration::from_millis(20),
            chaos: Duration::from_secs(15),
            partitions: recurring(self.partitions, 2000, 1500),
            crashes: recurring(self.crashes, 2000, 500),
            crashes_of_all: 0.2,
            conf_changes: recurring(self.conf_changes, 400, 1),
            transfers: recurring(self.conf_changes, 1500, 1),
            ..Options::quiet()
        };
        if self.unreliable {
            let mean = Duration::from_millis(5);
            options.network = NetworkOptions {
                loss: 0.1,
                reorder: 0.3,
                late: 0.01,
                duplicate: 0.1,
                delay_mean: mean,
                ..options.network
            };
        }
        if self.snapshots {
            (options.log_entries_max, options.flush_interval) = (4, Duration::from_millis(200));
        }
        options
    }

    /// Runs the seeds; each must end well, and what was asked for must have happened.
    pub fn run(self) {
        let mut counts = sim::counts::Counts::default();
        for seed in 0..SEEDS {
            for workload in [Workload::Register, Workload::Append] {
                let task = Task {
                    seed,
                    workload,
                    planted: None,
                    trace: false,
                };
                let (report, _) = run_with(task, self.options());
                if let Some(failure) = report.failure {
                    panic!(
                        "seed {seed} of {} failed at step {}: {}",
                        workload.name(),
                        failure.step,
                        failure.what
                    );
                }
                counts.merge(&report.counts);
            }
        }
        let due = [
            ("operation_ok", true),
            ("message_duplicated", self.unreliable),
            ("partition", self.partitions),
            ("crash", self.crashes),
            ("log_compacted", self.snapshots),
            ("conf_change_applied", self.conf_changes),
            (
                "raft_snapshot_installed",
                self.conf_changes || (self.snapshots && (self.crashes || self.partitions)),
            ),
        ];
        for (name, _) in due.into_iter().filter(|(_, due)| *due) {
            assert!(counts.get(name) > 0, "{name} never happened: {counts}");
        }
        assert!(
            counts.get("operation_ok") > 200 * self.clients,
            "too little was done: {counts}"
        );
    }
}
