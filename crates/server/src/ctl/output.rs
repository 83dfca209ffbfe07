//! Standard output: a table for people, or an object a line for programs.

use std::io::{self, Write};

use serde_json::{Map, Value};

use super::text::Form;

/// A named value of a row. The name is the column's head and the JSON key.
pub type Field = (&'static str, Value);

pub struct Output<W> {
    to: W,
    json: bool,
    /// How keys and values are written.
    pub form: Form,
}

impl<W: Write> Output<W> {
    pub fn new(to: W, json: bool, form: Form) -> Output<W> {
        Output { to, json, form }
    }

    /// One row at once: fields parted by tabs, or an object.
    pub fn row(&mut self, fields: Vec<Field>) -> io::Result<()> {
        let line = match self.json {
            true => Value::Object(Map::from_iter(
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)),
            ))
            .to_string(),
            false => fields.iter().map(|(_, value)| cell(value)).collect::<Vec<_>>().join("\t"),
        };
        writeln!(self.to, "{line}")
    }

    /// Rows of the same columns, for people under a head and aligned.
    pub fn table(&mut self, rows: Vec<Vec<Field>>) -> io::Result<()> {
        if self.json {
            return rows.into_iter().try_for_each(|row| self.row(row));
        }
        let Some(first) = rows.first() else { return Ok(()) };
        let head: Vec<String> = first.iter().map(|(name, _)| name.to_uppercase()).collect();
        let cells = rows.iter().map(|row| row.iter().map(|(_, value)| cell(value)).collect());
        let lines: Vec<Vec<String>> = std::iter::once(head).chain(cells).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..first.len()).map(width).collect();
        for line in &lines {
            let padded = line
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect::<Vec<_>>();
            writeln!(self.to, "{}", padded.join("  ").trim_end())?;
        }
        Ok(())
    }

    /// The fields of one thing, for people a line each.
    pub fn card(&mut self, fields: Vec<Field>) -> io::Result<()> {
        if self.json {
            return self.row(fields);
        }
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        fields
            .iter()
            .try_for_each(|(name, value)| writeln!(self.to, "{name:width$}  {}", cell(value)))
    }

    /// Hands everything on.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A value as people read it: text without quotes, lists parted by commas, `-` for nothing.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(values) if values.is_empty() => "-".into(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
