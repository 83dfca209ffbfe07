//! Real records from files that every Linux machine has.
//!
//! Three kinds, taken in turn so that a machine poor in one still gives enough: a *file* (its size and first bytes), a *line* of a
//! text file, a *part* of a large file. Keys are readable (`file:/usr/bin/env`, `line:/etc/services:14`, `part:/usr/lib/x.so:4096`)
//! and unique; the order and content depend on the files alone, so two runs on one machine load the same data. Only files that
//! everybody may read are used.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// Bytes of a file that its record keeps, and bytes of a part.
const HEAD_BYTES: usize = 256;
/// Lines longer than this are cut.
const LINE_BYTES: usize = 1024;
/// Text files beyond this give no lines: they are logs and tables, all alike.
const TEXT_BYTES: u64 = 512 * 1024;
/// Files from this size on give parts.
const PARTS_FROM_BYTES: u64 = 64 * 1024;

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: Bytes,
    pub value: Bytes,
}

/// At least `wanted` records if the files below `roots` hold as many, never many more.
///
/// At most two fifths are files and two fifths lines; parts fill the rest.
pub fn collect(roots: &[&Path], wanted: usize) -> Vec<Record> {
    // With so many files there are more than enough lines and parts in them, so the walk ends there.
    let files = walk(roots, wanted);
    let share = wanted * 2 / 5;
    let mut records: Vec<Record> = files.iter().filter_map(head).take(share).collect();
    records.extend(
        files
            .iter()
            .filter(|file| file.bytes <= TEXT_BYTES)
            .flat_map(lines)
            .take(share),
    );
    let missing = wanted.saturating_sub(records.len());
    records.extend(
        files
            .iter()
            .filter(|file| file.bytes >= PARTS_FROM_BYTES)
            .flat_map(parts)
            .take(missing),
    );
    records
}

/// A regular file that everybody may read.
struct Found {
    path: PathBuf,
    bytes: u64,
}

impl Found {
    fn record(&self, kind: &str, place: Option<u64>, value: Vec<u8>) -> Record {
        let path = self.path.display();
        let key = match place {
            Some(place) => format!("{kind}:{path}:{place}"),
            None => format!("{kind}:{path}"),
        };
        Record {
            key: Bytes::from(key),
            value: Bytes::from(value),
        }
    }
}

/// Files below `roots`, at most `most`, each directory sorted by name, links not followed, what cannot be read left out.
fn walk(roots: &[&Path], most: usize) -> Vec<Found> {
    let mut found = Vec::new();
    // A stack of what is still open, last first: push in reverse order to visit in order.
    let mut open: Vec<PathBuf> = roots.iter().rev().map(|root| root.to_path_buf()).collect();
    while let Some(path) = open.pop()
        && found.len() < most
    {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            let Ok(entries) = fs::read_dir(&path) else { continue };
            let mut names: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            names.sort_unstable_by(|a, b| b.cmp(a));
            open.extend(names);
        } else if metadata.is_file() && metadata.permissions().mode() & 0o004 != 0 && path.to_str().is_some() {
            found.push(Found {
                path,
                bytes: metadata.len(),
            });
        }
    }
    found
}

/// The record of a file: its size in text, then its first bytes as they are.
fn head(file: &Found) -> Option<Record> {
    let mut value = format!("{} bytes\n", file.bytes).into_bytes();
    File::open(&file.path)
        .ok()?
        .take(HEAD_BYTES as u64)
        .read_to_end(&mut value)
        .ok()?;
    Some(file.record("file", None, value))
}

/// A record for each line of a text file, numbered from 1. Empty lines and files that are not text give none.
fn lines(file: &Found) -> Vec<Record> {
    let Some(text) = fs::read(&file.path).ok().and_then(|bytes| String::from_utf8(bytes).ok()) else {
        return vec![];
    };
    let numbered = text.lines().zip(1u64..).filter(|(line, _)| !line.trim().is_empty());
    numbered
        .map(|(line, number)| file.record("line", Some(number), line.bytes().take(LINE_BYTES).collect()))
        .collect()
}

/// A record for each part of a large file, by offset.
fn parts(file: &Found) -> Vec<Record> {
    let Ok(bytes) = fs::read(&file.path) else { return vec![] };
    let offsets = (0u64..).step_by(HEAD_BYTES);
    bytes
        .chunks(HEAD_BYTES)
        .zip(offsets)
        .map(|(part, offset)| file.record("part", Some(offset), part.to_vec()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::symlink;

    use super::*;

    fn must_write(dir: &Path, name: &str, bytes: &[u8]) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().expect("has a parent")).expect("make the directory");
        fs::write(path, bytes).expect("write the file");
    }

    fn key_names(records: &[Record], dir: &Path) -> Vec<String> {
        let prefix = format!("{}/", dir.display());
        records
            .iter()
            .map(|record| String::from_utf8_lossy(&record.key).replace(&prefix, ""))
            .collect()
    }

    #[test]
    fn files_lines_and_parts_come_in_order() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        must_write(dir.path(), "b.txt", b"one\n\nthree\n");
        must_write(dir.path(), "a/big", &[0xff; PARTS_FROM_BYTES as usize]);
        let records = collect(&[dir.path()], 10);
        let names = key_names(&records, dir.path());
        assert_eq!(names[..4], ["file:a/big", "file:b.txt", "line:b.txt:1", "line:b.txt:3"]);
        assert_eq!(names[4..7], ["part:a/big:0", "part:a/big:256", "part:a/big:512"]);
        assert_eq!(records.len(), 10);
        assert_eq!(records[1].value, Bytes::from_static(b"11 bytes\none\n\nthree\n"));
        assert_eq!(records[3].value, Bytes::from_static(b"three"));
    }

    #[test]
    fn links_and_private_files_are_left_out() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        must_write(dir.path(), "open", b"x");
        must_write(dir.path(), "secret", b"x");
        fs::set_permissions(dir.path().join("secret"), fs::Permissions::from_mode(0o600)).expect("change the mode");
        symlink(dir.path().join("open"), dir.path().join("link")).expect("make a link");
        symlink(dir.path(), dir.path().join("loop")).expect("make a loop");
        let names = key_names(&collect(&[dir.path()], 100), dir.path());
        assert_eq!(names, ["file:open", "line:open:1"]);
    }

    #[test]
    fn this_machine_has_a_thousand_records_and_gives_the_same_ones_twice() {
        let roots = [Path::new("/usr")];
        let records = collect(&roots, 1000);
        assert_eq!(records.len(), 1000);
        assert!(records == collect(&roots, 1000), "two runs gave different records");
        let keys: BTreeSet<&Bytes> = records.iter().map(|record| &record.key).collect();
        assert_eq!(keys.len(), records.len(), "two records share a key");
    }
}
