//! What the run found: cells, table, goals.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use super::worker::{Way, Work};
use crate::kv::load::Sample;
use crate::report::{Goal, Table};

/// One figure of the table. Their order is the table's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cell {
    pub work: Work,
    pub clients: usize,
    pub way: Way,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {}, {}", self.work.name(), self.clients, self.way.name())
    }
}

/// What is measured in each round: ways next to each other under the same load.
pub fn cells(clients: &[usize], etcd: bool) -> Vec<Cell> {
    let mut cells = Vec::new();
    for work in [
        Work::OneKey,
        Work::OneKeyContended,
        Work::TwoRegions,
        Work::TwoRegionsContended,
    ] {
        let ways: &[Way] = match work {
            Work::OneKey => &[Way::RawPut, Way::OnePhase, Way::Async, Way::TwoPhase, Way::Etcd],
            Work::OneKeyContended => &[Way::OnePhase, Way::Async, Way::TwoPhase, Way::Pessimistic, Way::Etcd],
            Work::TwoRegions => &[Way::Async, Way::TwoPhase, Way::Etcd],
            Work::TwoRegionsContended => &[Way::Async, Way::TwoPhase, Way::Pessimistic, Way::Etcd],
        };
        for &clients in clients {
            let wanted = ways.iter().filter(|way| etcd || **way != Way::Etcd);
            cells.extend(wanted.map(|&way| Cell { work, clients, way }));
        }
    }
    cells
}

const GOALS: [&str; 2] = ["txn_two_keys_vs_etcd_64", "txn_one_phase_p50_vs_raw_put_1"];

#[derive(Default)]
pub struct Results(pub BTreeMap<Cell, Vec<Sample>>);

impl Results {
    fn median(&self, work: Work, clients: usize, way: Way) -> Option<Sample> {
        self.0
            .get(&Cell { work, clients, way })
            .map(|samples| Sample::median(samples))
    }

    /// The goals of what was measured; what was left out is not judged, and [`Results::unmeasured`] says so.
    pub fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        let two = |way| self.median(Work::TwoRegions, 64, way);
        if let (Some(ours), Some(etcd)) = (two(Way::Async), two(Way::Etcd)) {
            let share = ours.per_second / etcd.per_second;
            goals.push(Goal::at_least(GOALS[0], share, 2.0));
        }
        let one = |way| self.median(Work::OneKey, 1, way);
        if let (Some(ours), Some(raw)) = (one(Way::OnePhase), one(Way::RawPut)) {
            let share = f64::from(ours.p50_us) / f64::from(raw.p50_us);
            goals.push(Goal::at_most(GOALS[1], share, 1.3));
        }
        goals
    }

    /// Goals that no cell of this run speaks of.
    pub fn unmeasured(&self) -> Vec<&'static str> {
        let measured = self.goals();
        let is_missing = |name: &&str| !measured.iter().any(|goal| goal.name == *name);
        GOALS.into_iter().filter(is_missing).collect()
    }

    pub fn markdown(&self) -> String {
        let columns = [
            "transaction",
            "clients",
            "way",
            "per second",
            "p50 µs",
            "p99 µs",
            "server CPU µs each",
            "spread",
        ];
        let mut table = Table::new(&columns);
        for (cell, samples) in &self.0 {
            let sample = Sample::median(samples);
            table.row(vec![
                cell.work.name().to_owned(),
                cell.clients.to_string(),
                cell.way.name().to_owned(),
                format!("{:.0}", sample.per_second),
                sample.p50_us.to_string(),
                sample.p99_us.to_string(),
                format!("{:.1}", sample.cpu_us),
                format!("±{:.0} %", spread(samples) * 100.0),
            ]);
        }
        table.markdown()
    }

    pub fn json(&self) -> Value {
        let cells = self.0.iter().map(|(cell, samples)| {
            let sample = Sample::median(samples);
            json!({
                "work": cell.work.name(), "way": cell.way.name(), "clients": cell.clients, "per_second": sample.per_second,
                "p50_us": sample.p50_us, "p99_us": sample.p99_us, "cpu_us": sample.cpu_us, "errors": sample.errors,
                "rounds": samples.len(), "spread": spread(samples),
            })
        });
        cells.collect()
    }
}

pub use crate::kv::table::{one_line, spread};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_compare_with_etcd_and_with_raw_puts() {
        let sample = |per_second, p50_us| {
            vec![Sample {
                per_second,
                p50_us,
                p99_us: 1,
                cpu_us: 1.0,
                errors: 0,
            }]
        };
        let cell = |work, clients, way| Cell { work, clients, way };
        let results = |one_phase_us| {
            Results(
                [
                    (cell(Work::TwoRegions, 64, Way::Async), sample(3000.0, 1)),
                    (cell(Work::TwoRegions, 64, Way::Etcd), sample(1000.0, 1)),
                    (cell(Work::OneKey, 1, Way::OnePhase), sample(1.0, one_phase_us)),
                    (cell(Work::OneKey, 1, Way::RawPut), sample(1.0, 100)),
                ]
                .into(),
            )
        };
        let lines: Vec<_> = results(140).goals().iter().map(Goal::line).collect();
        let wanted = [
            "goal txn_two_keys_vs_etcd_64: 3.00 (wanted >= 2): met",
            "goal txn_one_phase_p50_vs_raw_put_1: 1.40 (wanted <= 1.3): missed",
        ];
        assert_eq!(lines, wanted);
        assert!(results(120).goals().iter().all(Goal::is_met));
        assert!(results(120).unmeasured().is_empty());
        assert!(Results::default().goals().is_empty());
        assert_eq!(Results::default().unmeasured(), GOALS);
    }
}
