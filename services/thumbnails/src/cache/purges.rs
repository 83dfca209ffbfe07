//! Which sources were purged, and when.
//!
//! The file is a list of records of 24 bytes: the first 16 of the SHA-256 of the source's address, and the time in milliseconds since 1970
//! (little-endian). The last record of a source counts. A record that a crash cut off is left out.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;

use blob_store::Key;
use parking_lot::Mutex;

const RECORD: usize = 24;
/// Sources in the list. Beyond, the oldest half is forgotten, and what was made before the youngest of these counts as purged.
const SOURCES_MAX: usize = 100_000;

/// The list, in memory and on disk.
#[derive(Default)]
pub struct Purges(Mutex<State>);

#[derive(Default)]
struct State {
    times: HashMap<[u8; 16], u64>,
    /// What was made before it is none, whatever its source.
    all: u64,
    file: Option<File>,
}

/// The name under which the time of all sources is kept.
const ALL: [u8; 16] = [0; 16];

impl Purges {
    /// Reads what was written before.
    pub fn open(path: &Path) -> std::io::Result<Purges> {
        let mut bytes = Vec::new();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        file.read_to_end(&mut bytes)?;
        let mut state = State::default();
        let whole = bytes.chunks_exact(RECORD);
        // A cut record would put all that follow out of step.
        file.set_len((bytes.len() - whole.remainder().len()) as u64)?;
        for record in whole {
            let (source, time) = record.split_at(16);
            let source: [u8; 16] = source.try_into().expect("is split at 16");
            let time = u64::from_le_bytes(time.try_into().expect("eight bytes are left"));
            state.note(source, time);
        }
        state.file = Some(file);
        Ok(Purges(Mutex::new(state)))
    }

    /// When `source` was purged last, in milliseconds since 1970; 0 if never.
    pub fn time(&self, source: &str) -> u64 {
        let state = self.0.lock();
        if state.times.is_empty() {
            return state.all;
        }
        state.times.get(&name(source)).copied().unwrap_or(0).max(state.all)
    }

    /// Notes a purge, on disk before it returns.
    pub fn purge(&self, source: &str, now_ms: u64) -> std::io::Result<()> {
        let mut state = self.0.lock();
        state.write(name(source), now_ms)?;
        if state.times.len() > SOURCES_MAX {
            let mut times: Vec<u64> = state.times.values().copied().collect();
            times.sort_unstable();
            let all = times[times.len() / 2];
            state.write(ALL, all)?;
        }
        match &state.file {
            Some(file) => file.sync_data(),
            None => Ok(()),
        }
    }
}

impl State {
    fn write(&mut self, source: [u8; 16], time: u64) -> std::io::Result<()> {
        if let Some(file) = &mut self.file {
            let mut record = [0; RECORD];
            record[..16].copy_from_slice(&source);
            record[16..].copy_from_slice(&time.to_le_bytes());
            file.write_all(&record)?;
        }
        self.note(source, time);
        Ok(())
    }

    fn note(&mut self, source: [u8; 16], time: u64) {
        if source == ALL {
            self.all = self.all.max(time);
            let all = self.all;
            self.times.retain(|_, time| *time > all);
        } else {
            self.times.insert(source, time);
        }
    }
}

fn name(source: &str) -> [u8; 16] {
    Key::sha256(source.as_bytes()).0[..16]
        .try_into()
        .expect("a digest has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purges_are_found_again_also_behind_a_cut_record() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("purges");
        let purges = Purges::open(&path).expect("opens");
        purges.purge("a", 5).expect("writes");
        purges.purge("a", 7).expect("writes");
        purges.purge("b", 6).expect("writes");
        drop(purges);
        let len = std::fs::metadata(&path).expect("is there").len();
        File::options()
            .write(true)
            .open(&path)
            .expect("opens")
            .set_len(len - 5)
            .expect("cuts");
        let purges = Purges::open(&path).expect("opens");
        assert_eq!((purges.time("a"), purges.time("b"), purges.time("c")), (7, 0, 0));
        purges.purge("c", 9).expect("writes");
        drop(purges);
        assert_eq!(Purges::open(&path).expect("opens").time("c"), 9);
    }

    #[test]
    fn a_list_that_is_too_long_purges_what_is_old() {
        let mut state = State::default();
        for number in 0..10u64 {
            state.note(name(&number.to_string()), number + 1);
        }
        state.note(ALL, 5);
        assert_eq!((state.times.len(), state.all), (5, 5));
    }
}
