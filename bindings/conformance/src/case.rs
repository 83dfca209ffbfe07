//! Cases as they stand in the files.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::Span;
use serde::Deserialize;

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

/// One case: steps one after the other.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    /// What it shows; told when it fails.
    pub shows: String,
    pub steps: Vec<Step>,
}

/// One step: an operation, the end of an earlier one, a fault of the cluster or a wait. Exactly one of `do`, `await`, `fault`, `sleep` is there.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Step {
    /// An operation of [`crate::protocol`].
    pub r#do: Option<String>,
    /// Waits for an operation that was started with `start`.
    pub r#await: Option<String>,
    /// A fault of the cluster, or its end; see `cluster`.
    pub fault: Option<String>,
    /// The operation goes on under this name, and the next step follows at once.
    pub start: Option<String>,
    /// Time in which nothing is done: that of a fault, or of something that must not happen.
    pub sleep: Option<Span>,
    /// Cancels the operation of this name.
    pub call: Option<String>,

    pub on: Option<String>,
    pub r#as: Option<String>,
    pub options: Option<String>,
    pub key: Option<String>,
    pub value: Option<String>,
    /// A value of so many bytes instead.
    pub value_bytes: Option<usize>,
    pub keys: Option<Vec<String>>,
    pub pairs: Option<Vec<(String, String)>>,
    /// As many pairs `prefix00000 = value` instead.
    pub pairs_numbered: Option<Numbered>,
    pub start_key: Option<String>,
    /// Absent: all keys of the case.
    pub end_key: Option<String>,
    pub expected: Option<String>,
    pub new: Option<String>,
    pub limit: Option<u64>,
    pub reverse: Option<bool>,
    pub keys_only: Option<bool>,
    pub stop: Option<u64>,
    pub ttl_ms: Option<u64>,
    /// A number, or the name of a saved one with `+n` or `-n`.
    pub ts: Option<String>,
    pub savepoint: Option<String>,

    /// The answer's value or pairs; `false` for no value.
    pub gives: Option<Gives>,
    /// A line that is in the answer's value, a text.
    pub gives_line: Option<String>,
    /// How many pairs the answer has.
    pub gives_count: Option<usize>,
    /// Class of the error that must come.
    pub fails: Option<Fails>,
    pub retryable: Option<bool>,
    pub swapped: Option<bool>,
    pub ttl: Option<Lifetime>,
    /// Name under which the answer's number is kept.
    pub save: Option<String>,
    /// Time within which the answer must come.
    pub within: Option<Span>,
    /// Repeats the operation until it does as is wanted: others' work takes its time. Bounded by `within`.
    #[serde(default)]
    pub until: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Numbered {
    pub prefix: String,
    pub count: usize,
    pub value: String,
}

/// What an answer gives.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Gives {
    /// Always `false`: no value.
    Nothing(#[expect(dead_code, reason = "the variant says it all")] bool),
    Value(String),
    Pairs(Vec<(String, String)>),
}

/// Classes of errors, any of which will do.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Fails {
    One(String),
    Any(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Lifetime {
    Word(String),
    /// At most so many seconds, and more than none.
    AtMost(u64),
}

impl Step {
    /// Time for the answer.
    pub fn patience(&self) -> Duration {
        self.within.map_or(Duration::from_secs(30), |within| within.0)
    }

    fn check(&self) -> Result<()> {
        let kinds = [
            self.r#do.is_some(),
            self.r#await.is_some(),
            self.fault.is_some(),
            self.sleep.is_some(),
        ];
        if kinds.iter().filter(|kind| **kind).count() != 1 {
            bail!("wanted one of do, await, fault, sleep in {self:?}");
        }
        if self.until && self.start.is_some() {
            bail!("a step cannot both go on by itself and be repeated: {self:?}");
        }
        Ok(())
    }
}

/// All cases of a folder's files, in the order of their names.
pub fn load(folder: &Path) -> Result<Vec<Case>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let mut cases: Vec<Case> = Vec::new();
    let mut names = BTreeMap::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let file: File = toml::from_str(&text).with_context(|| format!("cases of {}", path.display()))?;
        for case in file.case {
            for step in &case.steps {
                step.check()
                    .with_context(|| format!("case {} of {}", case.name, path.display()))?;
            }
            if let Some(other) = names.insert(case.name.clone(), path.clone()) {
                bail!("case {} is in {} and in {}", case.name, other.display(), path.display());
            }
            cases.push(case);
        }
    }
    Ok(cases)
}
