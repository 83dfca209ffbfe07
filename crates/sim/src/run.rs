//! One seed from begin to verdict: chaos, healing, progress, final reads, checks.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::check;
use crate::counts::Counts;
use crate::history::History;
use crate::options::{Options, Workload};
use crate::planted::{Bug, plant};
use crate::workload::txn::ACCOUNTS;
use crate::world::{Failure, World};

/// What a run is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    pub seed: u64,
    pub workload: Workload,
    /// A bug to switch on.
    pub planted: Option<Bug>,
    /// Writes every event to stderr.
    pub trace: bool,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    pub seed: u64,
    pub failure: Option<FailureReport>,
    /// Hash over every event handled.
    pub hash: u64,
    pub virtual_time: Duration,
    pub counts: Counts,
}

#[derive(Clone, Debug)]
pub struct FailureReport {
    /// Number of the event at which it showed.
    pub step: u64,
    pub what: String,
}

thread_local! {
    /// Where the run of this thread is, for those who panic.
    static PROGRESS: Cell<(u64, Duration)> = const { Cell::new((0, Duration::ZERO)) };
}

/// Runs a seed with its own mix of faults. A panic anywhere inside counts as a failure: assertions are part of the proof.
pub fn run(task: Task) -> (Report, History) {
    run_with(task, Options::swarm_of(task.seed, task.workload))
}

/// Runs a seed with the given options. The history is empty after a panic.
pub fn run_with(task: Task, options: Options) -> (Report, History) {
    plant(task.planted);
    PROGRESS.set((0, Duration::ZERO));
    let outcome = catch_unwind(AssertUnwindSafe(|| match task.workload {
        Workload::Members => crate::members::run(task),
        _ => run_world(task, options),
    }));
    plant(None);
    outcome.unwrap_or_else(|panic| {
        let (step, virtual_time) = PROGRESS.get();
        let failure = Some(FailureReport {
            step,
            what: format!("panic: {}", panic_text(&*panic)),
        });
        let report = Report {
            seed: task.seed,
            failure,
            hash: 0,
            virtual_time,
            counts: Counts::default(),
        };
        (report, History::new())
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}

fn run_world(task: Task, options: Options) -> (Report, History) {
    let mut world = World::new(task.seed, options, task.workload, task.trace);
    let failure = live(&mut world).err().map(|failure| FailureReport {
        step: world.step_number(),
        what: failure.to_string(),
    });
    let (hash, virtual_time, counts) = (world.trace_hash(), world.elapsed(), world.all_counts());
    (
        Report {
            seed: task.seed,
            failure,
            hash,
            virtual_time,
            counts,
        },
        world.history,
    )
}

/// The life of a world: first nothing may be wrong whatever happens, then everything must go on.
fn live(world: &mut World) -> Result<(), Failure> {
    world.begin_chaos();
    let end = world.options.chaos;
    while world.elapsed() < end {
        advance(world, Duration::from_millis(500))?;
        world.check_replicas()?;
    }
    world.heal();
    finish(world)
}

/// Demands progress of a healed world, reads everything back and judges what was recorded.
pub fn finish(world: &mut World) -> Result<(), Failure> {
    let bound = world.options.heal;
    world.work_clients();
    world.expect_progress();
    let done = world.run_until(bound, |world| world.without_progress().is_empty())?;
    demand(done, bound, || world.without_progress().join(", "))?;
    world.rest_clients();
    let done = world.run_until(bound, World::clients_are_done)?;
    demand(done, bound, || "operations did not end".into())?;
    world.read_all();
    let done = world.run_until(bound, World::clients_are_done)?;
    demand(done, bound, || "keys could not be read".into())?;
    let done = world.run_until(bound, World::replicas_agree)?;
    demand(done, bound, || "replicas did not catch up".into())?;
    PROGRESS.set((world.step_number(), world.elapsed()));
    world.check_replicas()?;
    world.check_records()?;
    judge(world)
}

fn demand(done: bool, bound: Duration, what: impl FnOnce() -> String) -> Result<(), Failure> {
    if done {
        Ok(())
    } else {
        Err(Failure::NoProgress { what: what(), bound })
    }
}

/// Judges the history recorded so far.
pub fn judge(world: &mut World) -> Result<(), Failure> {
    if world.is_transactional() {
        let operations = world.history.all_operations()?;
        check::snapshot::check(&operations)?;
        check::bank::check(&operations, ACCOUNTS)?;
        check::counter::check(&operations)?;
        check::fork::check(&operations)?;
        let skews = check::skew::check(&operations)?;
        world.counts.add_many("write_skew", skews);
        check::lists::check(&operations)?;
        return Ok(());
    }
    let operations = world.history.operations()?;
    check::register::check(&operations)?;
    check::append::check(&operations)?;
    check::timestamp::check(&operations)?;
    Ok(())
}

fn advance(world: &mut World, span: Duration) -> Result<(), Failure> {
    PROGRESS.set((world.step_number(), world.elapsed()));
    world.run_for(span)
}
