//! The table: cases by languages.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Outcomes so far.
#[derive(Default)]
pub struct Table {
    rows: Vec<(String, BTreeMap<String, Option<String>>)>,
    languages: Vec<String>,
}

impl Table {
    pub fn new(languages: impl Iterator<Item = String>) -> Table {
        Table {
            rows: Vec::new(),
            languages: languages.collect(),
        }
    }

    /// Adds a case with what went wrong in each language; those that are absent did not run it.
    pub fn add(&mut self, case: &str, outcomes: BTreeMap<String, Option<String>>) {
        self.rows.push((case.to_owned(), outcomes));
    }

    /// Whether every language passed every case.
    pub fn all_green(&self) -> bool {
        self.rows
            .iter()
            .all(|(_, row)| self.languages.iter().all(|language| row.get(language) == Some(&None)))
    }

    /// How many of the cells passed, and of how many.
    pub fn counts(&self) -> (usize, usize) {
        let passed = self
            .rows
            .iter()
            .flat_map(|(_, row)| row.values())
            .filter(|fault| fault.is_none());
        (passed.count(), self.rows.len() * self.languages.len())
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self.rows.iter().map(|(case, _)| case.len()).max().unwrap_or(0).max(4);
        let mut line = format!("{:width$}", "case");
        for language in &self.languages {
            write!(line, "  {language:>6}")?;
        }
        writeln!(f, "{line}")?;
        for (case, row) in &self.rows {
            let mut line = format!("{case:width$}");
            for language in &self.languages {
                let cell = match row.get(language) {
                    Some(None) => "ok",
                    Some(Some(_)) => "FAIL",
                    None => "-",
                };
                write!(line, "  {cell:>6}")?;
            }
            writeln!(f, "{line}")?;
        }
        for (case, row) in &self.rows {
            for (language, fault) in row {
                if let Some(fault) = fault {
                    writeln!(f, "FAIL {case} in {language}: {fault}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_that_did_not_run_is_not_green() {
        let languages = ["c", "rust"].map(str::to_owned);
        let mut table = Table::new(languages.clone().into_iter());
        table.add("one", languages.clone().map(|language| (language, None)).into());
        assert!(table.all_green());
        table.add("two", [("c".to_owned(), None)].into());
        assert!(!table.all_green());
        assert_eq!(table.counts(), (3, 4));
        assert!(
            table.to_string().lines().nth(2).is_some_and(|row| row.ends_with('-')),
            "{table}"
        );
    }
}
