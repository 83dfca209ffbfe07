//! Reads everything and compares it with the index: for operators in doubt, and for tests that kill processes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use crate::gc::owner;
use crate::index::{Entry, Place};
use crate::key::Key;
use crate::{Error, Store};

/// What [`Store::verify`] found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub blobs: u64,
    pub bytes: u64,
    /// Blobs whose bytes are not what was written. They are dropped.
    pub damaged: Vec<Key>,
    /// Blobs without a file. They are dropped.
    pub missing: Vec<Key>,
    /// Files without a blob.
    pub leftover: Vec<PathBuf>,
}

impl Report {
    /// Whether index and disk agree in everything.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.missing.is_empty() && self.leftover.is_empty()
    }
}

impl Store {
    /// Reads every blob. Meant for a store without other users; one that is uploaded to meanwhile may show as leftover.
    pub fn verify(&self) -> Result<Report, Error> {
        const CHUNK: u32 = 1024;
        let mut report = Report::default();
        let mut files = BTreeSet::new();
        let mut start = Some(0);
        while let Some(from) = start {
            let (entries, more) = self.inner().state.lock().index.chunk(from, CHUNK);
            for entry in &entries {
                self.verify_entry(entry, &mut report)?;
                if let Place::File(id) = entry.place() {
                    files.insert(self.inner().file_path(&entry.key, id));
                }
            }
            start = more.then_some(from + CHUNK);
        }
        // What a crash left is deleted in the background after the start: what stays is a fault.
        self.inner().wait_swept();
        report.leftover = self
            .files()
            .map_err(Error::io("list blobs"))?
            .into_iter()
            .filter(|path| !files.contains(path))
            .collect();
        Ok(report)
    }

    fn verify_entry(&self, entry: &Entry, report: &mut Report) -> Result<(), Error> {
        report.blobs += 1;
        report.bytes += entry.len;
        let Some(blob) = self.get(&entry.key)? else {
            // What was in doubt was checked by the look itself.
            report.missing.push(entry.key);
            return Ok(());
        };
        match blob.check() {
            Err(Error::Damaged) => {
                report.damaged.push(entry.key);
                self.inner().forget(&entry.key, entry.place(), "damage")
            }
            other => other,
        }
    }

    /// Every file under `files/` with a blob's name.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for folder in fs::read_dir(self.inner().config.dir.join("files"))? {
            for file in fs::read_dir(folder?.path())? {
                let file = file?;
                if file.file_name().to_str().and_then(owner).is_some() {
                    found.push(file.path());
                }
            }
        }
        Ok(found)
    }
}
