//! House rules as code. A rule says what it found, where, and why we care: a review remark worth making twice belongs here.
//!
//! Rules read text, not syntax: they are cheap, they know nothing of types, and each can be told by a comment in the right
//! place that the case is another one. What needs types is clippy's.

mod crates;
mod docs;
mod source;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::workspace;

/// Check the house rules that are code: sizes, names, comments with reasons, crate order, links.
///
/// Reads every file that git tracks (and new ones it does not ignore); prints `path:line: rule:
/// what` and the reason of each rule that was broken. `--list` prints the rules and changes
/// nothing.
#[derive(clap::Args)]
pub struct Args {
    /// Print every rule with its reason.
    #[arg(long)]
    list: bool,
}

/// A rule of the house.
pub struct Rule {
    pub name: &'static str,
    pub reason: &'static str,
    /// Faults of one file.
    pub find: fn(&File) -> Vec<Fault>,
}

/// A text file of the checkout.
pub struct File {
    /// Relative to the root, with `/`.
    pub path: String,
    pub text: String,
}

/// Where a rule is broken (line from 1), and how.
pub struct Fault {
    pub line: usize,
    pub what: String,
}

impl File {
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Made by a tool from another file that people edit.
    pub fn is_generated(&self) -> bool {
        self.path.contains("/generated/")
    }

    /// Lines with their numbers from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

pub fn run(args: &Args) -> Result<bool> {
    if args.list {
        for rule in rules() {
            println!("{:<16} {}", rule.name, rule.reason);
        }
        return Ok(true);
    }
    check()
}

/// Applies every rule to every file. True if none is broken.
pub fn check() -> Result<bool> {
    let files = files()?;
    let mut clean = true;
    for rule in rules() {
        let mut broken = false;
        for file in files.iter().filter(|file| !file.is_generated()) {
            for fault in (rule.find)(file) {
                eprintln!("{}:{}: {}: {}", file.path, fault.line, rule.name, fault.what);
                broken = true;
            }
        }
        if broken {
            eprintln!("  why {}: {}", rule.name, rule.reason);
            clean = false;
        }
    }
    Ok(clean)
}

fn rules() -> Vec<Rule> {
    [source::rules(), crates::rules(), docs::rules()]
        .into_iter()
        .flatten()
        .collect()
}

/// Every text file that git tracks or would track.
fn files() -> Result<Vec<File>> {
    let mut list = Command::new("git");
    list.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(workspace::root());
    let output = list.output().context("start git, which tells the files of the checkout")?;
    let mut paths: Vec<String> = match output.status.success() {
        true => String::from_utf8_lossy(&output.stdout)
            .split('\0')
            .filter(|path| !path.is_empty())
            .map(Into::into)
            .collect(),
        // An exported tree without .git: everything but what builds leave behind.
        false => walk(workspace::root(), "")?,
    };
    paths.sort();
    paths.dedup();
    let mut files = Vec::new();
    for path in paths {
        // Gone in the work tree but still tracked, or not text: no rule reads it.
        if let Ok(text) = std::fs::read_to_string(workspace::root().join(&path)) {
            files.push(File { path, text });
        }
    }
    Ok(files)
}

fn walk(dir: &Path, prefix: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "target" || name == ".git" {
            continue;
        }
        let path = format!("{prefix}{name}");
        match entry.file_type()?.is_dir() {
            true => found.extend(walk(&entry.path(), &format!("{path}/"))?),
            false => found.push(path),
        }
    }
    Ok(found)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Lines at which `rule` of `rules` finds a fault.
    pub fn must_find(rules: Vec<Rule>, rule: &str, path: &str, text: &str) -> Vec<usize> {
        let rule = rules
            .into_iter()
            .find(|candidate| candidate.name == rule)
            .expect("rule exists");
        let file = File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        (rule.find)(&file).into_iter().map(|fault| fault.line).collect()
    }

    #[test]
    fn names_are_unique_and_reasons_are_sentences() {
        let mut names: Vec<_> = rules().iter().map(|rule| rule.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "two rules share a name");
        for rule in rules() {
            assert!(rule.reason.len() > 30, "{} has no reason worth reading", rule.name);
        }
    }

    #[test]
    fn the_files_of_the_checkout_are_found_and_read() {
        let files = files().expect("the checkout can be read");
        assert!(
            files
                .iter()
                .any(|file| file.path == "xtask/src/tidy/mod.rs" && file.text.contains("fn the_files_of"))
        );
        assert!(!files.iter().any(|file| file.path.starts_with("target/")));
    }
}
