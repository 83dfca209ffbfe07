//! Many seeds, on several threads, and what they came to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base::MonoTime;
use parking_lot::Mutex;

use crate::counts::{Counts, sites};
use crate::options::Workload;
use crate::planted::Bug;
use crate::run::{Report, Task, run};

/// Seeds to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub start: u64,
    pub seeds: u64,
    pub jobs: u64,
    pub workload: Workload,
    pub planted: Option<Bug>,
    /// Runs every seed twice and compares the two.
    pub twice: bool,
}

/// What a campaign came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub runs: u64,
    /// Ascending by seed.
    pub failures: Vec<Report>,
    /// Seeds whose second run was another one.
    pub differing: Vec<u64>,
    pub counts: Counts,
    pub virtual_time: Duration,
    /// Time that threads spent on runs, added up.
    pub busy: Duration,
}

impl Summary {
    /// Virtual time per time of one core.
    pub fn speed(&self) -> f64 {
        self.virtual_time.as_secs_f64() / self.busy.as_secs_f64().max(1e-9)
    }

    fn add(&mut self, report: Report, busy: Duration) {
        self.runs += 1;
        self.virtual_time += report.virtual_time;
        self.busy += busy;
        self.counts.merge(&report.counts);
        if report.failure.is_some() {
            self.failures.push(report);
            self.failures.sort_by_key(|report| report.seed);
        }
    }
}

/// Runs the plan's seeds. With a bug planted the first failure ends it: the bug is caught. `each` sees every report as it comes.
pub fn campaign(plan: Plan, each: impl Fn(&Report) + Send + Sync + 'static) -> Summary {
    let shared = Arc::new(Shared {
        plan,
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        summary: Mutex::default(),
    });
    let each = Arc::new(each);
    let threads: Vec<_> = (0..plan.jobs.max(1))
        .map(|job| {
            let (shared, each) = (shared.clone(), each.clone());
            base::thread::spawn(&format!("sim-{job}"), move || shared.work(&*each))
        })
        .collect();
    for thread in threads {
        thread.join().expect("runs catch their panics");
    }
    shared.summary.lock().clone()
}

struct Shared {
    plan: Plan,
    next: AtomicU64,
    stop: AtomicBool,
    summary: Mutex<Summary>,
}

impl Shared {
    fn work(&self, each: &impl Fn(&Report)) {
        while !self.stop.load(Ordering::Relaxed) {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            if at >= self.plan.seeds {
                return;
            }
            self.run_seed(self.plan.start + at, each);
        }
    }

    fn run_seed(&self, seed: u64, each: &impl Fn(&Report)) {
        let task = Task {
            seed,
            workload: self.plan.workload,
            planted: self.plan.planted,
            trace: false,
        };
        let began = MonoTime::now();
        let (report, _) = run(task);
        let busy = MonoTime::now().since(began);
        let differs = self.plan.twice && run(task).0.hash != report.hash;
        each(&report);
        if report.failure.is_some() && self.plan.planted.is_some() {
            self.stop.store(true, Ordering::Relaxed);
        }
        let mut summary = self.summary.lock();
        summary.add(report, busy);
        if differs {
            summary.differing.push(seed);
        }
    }
}

/// One line per goal, and whether all were met.
pub fn goals(plan: &Plan, summary: &Summary) -> (Vec<String>, bool) {
    let mut goals = Goals::default();
    if let Some(bug) = plan.planted {
        let caught = summary
            .failures
            .first()
            .map_or("never".to_owned(), |report| format!("after {}", report.seed - plan.start + 1));
        goals.add(
            &format!("planted_{}_caught_seeds", bug.name().replace('-', "_")),
            &caught,
            "<= 500",
            !summary.failures.is_empty(),
        );
        return goals.done();
    }
    let failed = summary.failures.len() as u64;
    goals.add(
        "seeds_clean",
        &(summary.runs - failed).to_string(),
        &plan.seeds.to_string(),
        failed == 0 && summary.runs == plan.seeds,
    );
    if plan.twice {
        goals.add(
            "seeds_differing",
            &summary.differing.len().to_string(),
            "0",
            summary.differing.is_empty(),
        );
    }
    let speed = summary.speed();
    goals.add("speed_x_per_core", &format!("{speed:.0}"), ">= 100", speed >= 100.0);
    // Fewer seeds need not reach every site.
    if plan.seeds >= 100 {
        let sites = sites(plan.workload);
        let missing = summary.counts.missing(&sites);
        let reached = sites.len() - missing.len();
        goals.add(
            "sites_reached",
            &reached.to_string(),
            &sites.len().to_string(),
            missing.is_empty(),
        );
        if !missing.is_empty() {
            goals.lines.push(format!("sites never reached: {}", missing.join(" ")));
        }
    }
    goals.done()
}

#[derive(Default)]
struct Goals {
    lines: Vec<String>,
    missed: bool,
}

impl Goals {
    fn add(&mut self, name: &str, value: &str, wanted: &str, met: bool) {
        self.missed |= !met;
        self.lines.push(format!(
            "goal {name}: {value} (wanted {wanted}): {}",
            if met { "met" } else { "missed" }
        ));
    }

    fn done(self) -> (Vec<String>, bool) {
        (self.lines, !self.missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::FailureReport;

    fn plan(planted: Option<Bug>) -> Plan {
        Plan {
            start: 10,
            seeds: 2,
            jobs: 1,
            workload: Workload::All,
            planted,
            twice: false,
        }
    }

    fn summary(failed: bool) -> Summary {
        let failure = failed.then(|| FailureReport {
            step: 7,
            what: "test".into(),
        });
        let report = |seed, failure| Report {
            seed,
            failure,
            hash: 0,
            virtual_time: Duration::from_secs(100),
            counts: Counts::default(),
        };
        let mut summary = Summary::default();
        summary.add(report(10, None), Duration::from_millis(100));
        summary.add(report(11, failure), Duration::from_millis(300));
        summary
    }

    #[test]
    fn goals_tell_what_was_met() {
        let (lines, met) = goals(&plan(None), &summary(false));
        assert!(met);
        assert_eq!(
            lines,
            [
                "goal seeds_clean: 2 (wanted 2): met",
                "goal speed_x_per_core: 500 (wanted >= 100): met"
            ]
        );
        let (lines, met) = goals(&plan(None), &summary(true));
        assert!(!met);
        assert_eq!(lines[0], "goal seeds_clean: 1 (wanted 2): missed");
    }

    #[test]
    fn a_planted_bug_must_be_caught() {
        let bug = Some(Bug::Raft(raftstore::planted::Bug::AckBeforeFsync));
        let (lines, met) = goals(&plan(bug), &summary(true));
        assert!(met);
        assert_eq!(
            lines,
            ["goal planted_ack_before_fsync_caught_seeds: after 2 (wanted <= 500): met"]
        );
        assert!(!goals(&plan(bug), &summary(false)).1);
    }
}
