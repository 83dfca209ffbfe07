//! What the run found: cells, tables, goals.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::caller::Form;
use super::floor::Floor;
use super::load::{Op, Sample};
use super::single::Single;
use crate::report::{Goal, Table};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum System {
    Ferrite,
    Echo,
    Etcd,
}

impl System {
    fn name(self) -> &'static str {
        match self {
            System::Ferrite => "ferrite × 3",
            System::Echo => "bare echo",
            System::Etcd => "etcd × 3",
        }
    }
}

/// One figure of the table. Their order is the table's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cell {
    pub op: Op,
    pub form: Form,
    pub clients: usize,
    pub system: System,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} × {}, {}",
            self.op.name(),
            self.form.name(),
            self.clients,
            self.system.name()
        )
    }
}

#[derive(Default)]
pub struct Results {
    pub single: Option<Single>,
    pub floor: BTreeMap<Floor, Vec<Sample>>,
    pub load: BTreeMap<Cell, Vec<Sample>>,
    /// Longest time without an acknowledged write, for each kill.
    pub gaps: Vec<Duration>,
}

const MIB: f64 = (1 << 20) as f64;

impl Results {
    /// The goals of what was measured.
    pub fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        if let Some(single) = &self.single {
            goals.push(Goal::at_most("start_to_first_answer_ms", single.start_ms, 1000.0));
            goals.push(Goal::at_most("idle_rss_mib", single.idle_rss_bytes as f64 / MIB, 60.0));
            goals.push(Goal::at_most("first_start_disk_mib", single.disk_bytes as f64 / MIB, 20.0));
        }
        for (cell, ferrite) in self.medians().filter(|(cell, _)| cell.system == System::Ferrite) {
            let beside = |system, form| {
                let samples = self.load.get(&Cell { system, form, ..*cell });
                samples.map(|samples| Sample::median(samples))
            };
            let form = cell.form.name();
            if let (Op::Get, Some(echo)) = (cell.op, beside(System::Echo, cell.form)) {
                let name = format!("get_{form}_vs_echo_{}", cell.clients);
                goals.push(Goal::at_least(name, ferrite.per_second / echo.per_second, 0.7));
            }
            // Etcd's protocol has no batches of requests.
            if let (Op::Put, 64, Some(etcd)) = (cell.op, cell.clients, beside(System::Etcd, Form::Unary)) {
                let name = format!("put_{form}_vs_etcd_64");
                goals.push(Goal::at_least(name, ferrite.per_second / etcd.per_second, 3.0));
                let name = format!("put_{form}_p99_vs_etcd_64");
                goals.push(Goal::at_most(name, f64::from(ferrite.p99_us) / f64::from(etcd.p99_us), 0.5));
            }
        }
        if let Some(gap) = self.gaps.iter().max() {
            goals.push(Goal::at_most("writes_resume_ms_max", gap.as_secs_f64() * 1e3, 2000.0));
        }
        goals
    }

    fn medians(&self) -> impl Iterator<Item = (&Cell, Sample)> {
        self.load.iter().map(|(cell, samples)| (cell, Sample::median(samples)))
    }

    pub fn markdown(&self) -> String {
        let mut parts = Vec::new();
        if let Some(single) = &self.single {
            let mut table = Table::new(&["one fresh server", "figure"]);
            table.row(vec![
                "start to first answered put and get".into(),
                format!("{:.0} ms", single.start_ms),
            ]);
            table.row(vec![
                "resident memory, idle".into(),
                format!("{:.1} MiB", single.idle_rss_bytes as f64 / MIB),
            ]);
            table.row(vec![
                "disk after the first start".into(),
                format!("{:.1} MiB", single.disk_bytes as f64 / MIB),
            ]);
            parts.push(table.markdown());
        }
        if !self.floor.is_empty() {
            let mut table = Table::new(&["append + fdatasync, one thread", "per second", "p50 µs", "p99 µs"]);
            for (floor, samples) in &self.floor {
                let sample = Sample::median(samples);
                let figures = [
                    format!("{:.0}", sample.per_second),
                    sample.p50_us.to_string(),
                    sample.p99_us.to_string(),
                ];
                table.row([floor.to_string()].into_iter().chain(figures).collect());
            }
            parts.push(table.markdown());
        }
        if !self.load.is_empty() {
            let mut table = Table::new(&[
                "load",
                "clients",
                "server",
                "per second",
                "p50 µs",
                "p99 µs",
                "server CPU µs/op",
                "spread",
            ]);
            for (cell, samples) in &self.load {
                let sample = Sample::median(samples);
                table.row(vec![
                    format!("{} {}", cell.op.name(), cell.form.name()),
                    cell.clients.to_string(),
                    cell.system.name().to_owned(),
                    format!("{:.0}", sample.per_second),
                    sample.p50_us.to_string(),
                    sample.p99_us.to_string(),
                    format!("{:.1}", sample.cpu_us),
                    format!("±{:.0} %", spread(samples) * 100.0),
                ]);
            }
            parts.push(table.markdown());
        }
        if !self.gaps.is_empty() {
            let mut gaps = self.gaps.clone();
            gaps.sort_unstable();
            let mut table = Table::new(&["leader killed (SIGKILL) under load", "median", "longest"]);
            let ms = |gap: Duration| format!("{:.0} ms", gap.as_secs_f64() * 1e3);
            let row = [
                format!("no acknowledged write for, of {} kills", gaps.len()),
                ms(gaps[gaps.len() / 2]),
                ms(gaps[gaps.len() - 1]),
            ];
            table.row(row.into());
            parts.push(table.markdown());
        }
        parts.join("\n")
    }

    pub fn json(&self) -> Value {
        let figures = |samples: &[Sample]| {
            let sample = Sample::median(samples);
            json!({
                "per_second": sample.per_second, "p50_us": sample.p50_us, "p99_us": sample.p99_us, "cpu_us": sample.cpu_us,
                "errors": sample.errors, "rounds": samples.len(), "spread": spread(samples),
            })
        };
        let load = self.load.iter().map(|(cell, samples)| {
            json!({
                "op": cell.op.name(), "form": cell.form.name(), "clients": cell.clients, "server": cell.system.name(),
                "figures": figures(samples),
            })
        });
        let floor = self
            .floor
            .iter()
            .map(|(floor, samples)| {
            json!({ "record_bytes": floor.record_bytes, "recycled": floor.recycled, "figures": figures(samples) })
        });
        json!({
            "single": self.single.as_ref().map(|single| json!({
                "start_ms": single.start_ms, "idle_rss_bytes": single.idle_rss_bytes, "disk_bytes": single.disk_bytes,
            })),
            "floor": floor.collect::<Vec<_>>(),
            "load": load.collect::<Vec<_>>(),
            "failover_gaps_ms": self.gaps.iter().map(|gap| gap.as_secs_f64() * 1e3).collect::<Vec<_>>(),
        })
    }
}

/// Half the distance between the slowest and the fastest round, as a share of the median.
pub fn spread(samples: &[Sample]) -> f64 {
    let rates = || samples.iter().map(|sample| sample.per_second);
    let (least, most) = (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max));
    (most - least) / 2.0 / Sample::median(samples).per_second
}

pub fn one_line(sample: &Sample) -> String {
    let Sample {
        per_second,
        p50_us,
        p99_us,
        cpu_us,
        ..
    } = sample;
    format!("{per_second:.0}/s, p50 {p50_us} µs, p99 {p99_us} µs, {cpu_us:.1} µs of server CPU each")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(ferrite: f64, other: f64) -> Results {
        let sample = |per_second| {
            vec![Sample {
                per_second,
                p50_us: 1,
                p99_us: (1e6 / per_second) as u32,
                cpu_us: 1.0,
                errors: 0,
            }]
        };
        let cell = |op, system| Cell {
            op,
            form: Form::Unary,
            clients: 64,
            system,
        };
        let load = [
            (cell(Op::Put, System::Ferrite), sample(ferrite)),
            (cell(Op::Put, System::Etcd), sample(other)),
            (cell(Op::Get, System::Ferrite), sample(ferrite)),
            (cell(Op::Get, System::Echo), sample(other)),
        ];
        Results {
            load: load.into(),
            ..Results::default()
        }
    }

    #[test]
    fn goals_compare_systems_under_the_same_load() {
        let lines: Vec<_> = results(3000.0, 1000.0).goals().iter().map(Goal::line).collect();
        let wanted = [
            "goal put_unary_vs_etcd_64: 3.00 (wanted >= 3): met",
            "goal put_unary_p99_vs_etcd_64: 0.33 (wanted <= 0.5): met",
            "goal get_unary_vs_echo_64: 3.00 (wanted >= 0.7): met",
        ];
        assert_eq!(lines, wanted);
        assert!(results(600.0, 1000.0).goals().iter().all(|goal| !goal.is_met()));
    }

    #[test]
    fn nothing_measured_is_no_goal_met_by_chance() {
        assert!(Results::default().goals().is_empty());
        let gaps = vec![Duration::from_millis(300), Duration::from_millis(2500)];
        assert!(
            !Results {
                gaps,
                ..Results::default()
            }
            .goals()[0]
                .is_met()
        );
    }
}
