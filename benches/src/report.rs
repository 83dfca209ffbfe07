//! What a benchmark prints and leaves behind: goals, tables, and where and from what they were measured.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// One wanted figure.
pub struct Goal {
    pub name: String,
    pub value: f64,
    pub wanted: Wanted,
}

#[derive(Clone, Copy)]
pub enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    pub fn at_least(name: impl Into<String>, value: f64, least: f64) -> Self {
        Self {
            name: name.into(),
            value,
            wanted: Wanted::AtLeast(least),
        }
    }

    pub fn at_most(name: impl Into<String>, value: f64, most: f64) -> Self {
        Self {
            name: name.into(),
            value,
            wanted: Wanted::AtMost(most),
        }
    }

    /// A figure that is no number is a goal missed.
    pub fn is_met(&self) -> bool {
        match self.wanted {
            Wanted::AtLeast(least) => self.value >= least,
            Wanted::AtMost(most) => self.value <= most,
        }
    }

    /// `goal put_vs_etcd_64: 3.40 (wanted >= 3): met`
    pub fn line(&self) -> String {
        let (sign, bound) = match self.wanted {
            Wanted::AtLeast(least) => (">=", least),
            Wanted::AtMost(most) => ("<=", most),
        };
        let verdict = if self.is_met() { "met" } else { "missed" };
        format!("goal {}: {:.2} (wanted {sign} {bound}): {verdict}", self.name, self.value)
    }

    pub fn json(&self) -> Value {
        let (least, most) = match self.wanted {
            Wanted::AtLeast(least) => (Some(least), None),
            Wanted::AtMost(most) => (None, Some(most)),
        };
        json!({ "name": self.name, "value": self.value, "at_least": least, "at_most": most, "met": self.is_met() })
    }
}

/// Where and from what a figure comes: without this it says nothing.
pub struct Origin {
    pub commit: String,
    pub build: &'static str,
    pub cpu: String,
    pub cores: usize,
    pub memory_gib: f64,
    pub kernel: String,
    pub file_system: String,
}

impl Origin {
    /// Of this machine, this build, and the disk under `data`.
    pub fn of(data: &Path) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let after_colon = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
        };
        let memory_kib = after_colon(&read("/proc/meminfo"), "MemTotal")
            .trim_end_matches(" kB")
            .parse()
            .unwrap_or(0.0);
        Self {
            commit: commit().unwrap_or_else(|| "unknown".to_owned()),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            cpu: after_colon(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, Into::into),
            memory_gib: memory_kib / f64::from(1 << 20),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system(data).unwrap_or_else(|| "unknown".to_owned()),
        }
    }

    pub fn line(&self) -> String {
        format!(
            "commit {}, {} build; {} × {}, {:.0} GiB; Linux {}, {}",
            self.commit, self.build, self.cores, self.cpu, self.memory_gib, self.kernel, self.file_system
        )
    }

    pub fn json(&self) -> Value {
        json!({
            "commit": self.commit, "build": self.build, "cpu": self.cpu, "cores": self.cores,
            "memory_gib": self.memory_gib, "kernel": self.kernel, "file_system": self.file_system,
        })
    }
}

/// The checked-out commit, with a `+` if files differ from it.
fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .args(args)
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    Some(git(&["rev-parse", "--short", "HEAD"])? + if changed { "+" } else { "" })
}

/// Type of the file system that holds `path`: the longest mount point above it.
fn file_system(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/mounts").ok()?;
    let fields = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    });
    let above = fields.filter(|(mount, _)| path.starts_with(mount));
    above.max_by_key(|(mount, _)| mount.len()).map(|(_, kind)| kind)
}

/// A Markdown table. Columns after the first are right-aligned.
pub struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(columns: &[&'static str]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(cells);
    }

    pub fn markdown(&self) -> String {
        let marks = std::iter::once("---").chain(std::iter::repeat_n("---:", self.columns.len() - 1));
        let mut text = format!(
            "| {} |\n|{}|\n",
            self.columns.join(" | "),
            marks.collect::<Vec<_>>().join("|")
        );
        for row in &self.rows {
            writeln!(text, "| {} |", row.join(" | ")).expect("writing to memory");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_read_as_house_style_wants() {
        assert_eq!(
            Goal::at_least("put_vs_etcd_64", 3.4, 3.0).line(),
            "goal put_vs_etcd_64: 3.40 (wanted >= 3): met"
        );
        assert_eq!(
            Goal::at_most("resume_ms_max", 2100.0, 2000.0).line(),
            "goal resume_ms_max: 2100.00 (wanted <= 2000): missed"
        );
        assert!(!Goal::at_least("nothing_measured", f64::NAN, 0.0).is_met());
    }

    #[test]
    fn tables_are_markdown() {
        let mut table = Table::new(&["what", "per second"]);
        table.row(vec!["put".into(), "12".into()]);
        assert_eq!(table.markdown(), "| what | per second |\n|---|---:|\n| put | 12 |\n");
    }
}
