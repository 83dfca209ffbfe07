//! Reads a configuration file: every unknown key at once with the line it stands on and the key that was meant.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::{Config, SECTIONS};

/// Why a configuration could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("read configuration {path}")]
    Read { path: String, source: std::io::Error },
    /// Not TOML, or a value of the wrong kind.
    #[error("{path}:{line}: {message}")]
    Form { path: String, line: usize, message: String },
    /// Keys that no option has; a line each.
    #[error("{}", .faults.join("\n"))]
    UnknownKeys { faults: Vec<String> },
}

impl Config {
    /// Reads the file at `path`; what it does not name keeps its default. Values are not validated.
    pub fn load(path: &Path) -> Result<Config, LoadError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| LoadError::Read {
            path: name.clone(),
            source,
        })?;
        Config::parse(&name, &text)
    }

    /// Reads TOML `text`; `name` stands for the file in errors.
    pub fn parse(name: &str, text: &str) -> Result<Config, LoadError> {
        let form_error = |error: toml::de::Error| LoadError::Form {
            path: name.to_owned(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            message: error.message().replace('\n', "; "),
        };
        let table = DeTable::parse(text).map_err(form_error)?;
        let faults = unknown_keys(name, text, table.get_ref());
        if !faults.is_empty() {
            return Err(LoadError::UnknownKeys { faults });
        }
        toml::from_str(text).map_err(form_error)
    }
}

fn unknown_keys(name: &str, text: &str, file: &DeTable<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut report = |at: usize, key: &str, known: Vec<String>| {
        let hint = nearest(key, &known).map_or_else(
            || format!("known are {}", known.join(", ")),
            |near| format!("did you mean {near}?"),
        );
        faults.push((at, format!("{name}:{}: unknown key {key}; {hint}", line_of(text, at))));
    };
    for (section, value) in file {
        let Some(doc) = SECTIONS.iter().find(|doc| doc.name == section.get_ref().as_ref()) else {
            report(
                section.span().start,
                section.get_ref(),
                SECTIONS.iter().map(|doc| doc.name.to_owned()).collect(),
            );
            continue;
        };
        let DeValue::Table(options) = value.get_ref() else { continue };
        let known: Vec<String> = doc
            .options
            .iter()
            .map(|option| format!("{}.{}", doc.name, option.key()))
            .collect();
        for option in options.keys() {
            let key = format!("{}.{}", doc.name, option.get_ref());
            if !known.contains(&key) {
                report(option.span().start, &key, known.clone());
            }
        }
    }
    faults.sort();
    faults.into_iter().map(|(_, line)| line).collect()
}

/// Line of the byte at `offset`, from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())]
        .iter()
        .filter(|&&b| b == b'\n')
        .count()
        + 1
}

/// The known key that `key` was probably meant to be: the nearest by edits, if a third of it or less is wrong.
fn nearest<'a>(key: &str, known: &'a [String]) -> Option<&'a str> {
    let plain = key.replace('_', "-");
    let (distance, best) = known.iter().map(|candidate| (edits(&plain, candidate), candidate)).min()?;
    (distance <= 1 + plain.len() / 3).then_some(best)
}

/// Levenshtein's distance: insertions, deletions and replacements that make `a` into `b`.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.bytes().enumerate() {
            let replace = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> String {
        Config::parse("f.toml", text).expect_err("the text has a fault").to_string()
    }

    #[test]
    fn unknown_keys_are_told_all_at_once_with_what_was_meant() {
        let told = faults("[raft]\nelection-tick = 7\ntick = \"1s\"\n[serve]\nx = 1\n[log]\nlevle = \"info\"\nformat_ = 1\n");
        assert_eq!(
            told,
            "f.toml:2: unknown key raft.election-tick; did you mean raft.election-ticks?\n\
             f.toml:4: unknown key serve; did you mean server?\n\
             f.toml:7: unknown key log.levle; did you mean log.level?\n\
             f.toml:8: unknown key log.format_; did you mean log.format?"
        );
        assert_eq!(
            faults("raft.election_ticks = 9"),
            "f.toml:1: unknown key raft.election_ticks; did you mean raft.election-ticks?"
        );
        assert_eq!(
            faults("zzzzzzzzz = 9"),
            "f.toml:1: unknown key zzzzzzzzz; known are server, pd, engine, raft, raft-log, transport, security, log"
        );
    }

    #[test]
    fn a_value_of_the_wrong_kind_names_its_line() {
        assert_eq!(
            faults("[raft]\ntick = \"5 parsecs\"\n"),
            "f.toml:2: `5 parsecs`: wanted a span such as 100ms, 1.5s, 2m or 1h"
        );
        assert!(
            faults("[raft]\n\nraft-threads = \"two\"").starts_with("f.toml:3: invalid type"),
            "{}",
            faults("[raft]\n\nraft-threads = \"two\"")
        );
        assert!(faults("[raft\n").starts_with("f.toml:1: "));
        assert!(faults("raft = 3").starts_with("f.toml:1: "));
    }

    #[test]
    fn edits_are_counted() {
        for (a, b, distance) in [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0), ("ab", "ba", 2)] {
            assert_eq!(edits(a, b), distance, "{a} {b}");
        }
    }
}
