//! Damage on disk: flipped bits in each kind of file, cut and missing files. Each must end in an error, or in a state that was
//! true once and holds everything that nothing contradicts; never in a panic or a wrong answer.

mod common;
mod writer;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::small;
use engine::{Batch, Cf, Engine, Error, FjallEngine};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Values that the store below holds.
fn value(number: u32) -> String {
    format!("value {number} {}", "v".repeat(100))
}

const KEYS: u32 = 2000;

/// A store with tables in each family and a log that is not flushed; every batch synced.
fn store(dir: &Path) {
    let engine = FjallEngine::open(dir, &small()).unwrap();
    for number in 0..KEYS {
        let mut batch = Batch::new();
        for cf in Cf::ALL {
            batch.put(cf, format!("key{number:05}"), value(number));
        }
        engine.write(batch).unwrap();
    }
    engine.sync().unwrap();
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path))
        } else {
            found.push(path)
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, &target).unwrap();
    }
    fs::create_dir_all(to.join("log")).unwrap();
}

/// Opens and reads everything. `Ok` gives how many batches are there; anything but a prefix of true values panics.
fn read_all(dir: &Path) -> engine::Result<u32> {
    let engine = FjallEngine::open(dir, &small())?;
    let snapshot = engine.snapshot();
    let mut counts = BTreeMap::new();
    for cf in Cf::ALL {
        let mut cursor = snapshot.cursor(cf, b"", b"")?;
        let mut number = 0;
        while let Some((key, found)) = cursor.next()? {
            assert_eq!(key, format!("key{number:05}"), "{}", cf.name());
            assert_eq!(found, value(number), "{}", cf.name());
            number += 1;
        }
        counts.insert(number, cf);
        for number in (0..KEYS).step_by(97) {
            let found = snapshot.get(cf, format!("key{number:05}").as_bytes())?;
            assert!(found.is_none_or(|found| found == value(number)), "{} {number}", cf.name());
        }
    }
    assert_eq!(counts.len(), 1, "families differ: {counts:?}");
    Ok(*counts.first_key_value().unwrap().0)
}

fn told(error: &Error) -> bool {
    matches!(error, Error::Corrupt { .. } | Error::Format { .. })
}

#[test]
fn flipped_bits() {
    let whole = tempfile::tempdir().unwrap();
    store(whole.path());
    let mut random = StdRng::seed_from_u64(3);
    let mut kinds: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for file in files(whole.path()) {
        let name = file.strip_prefix(whole.path()).unwrap().to_path_buf();
        let len = fs::metadata(&file).unwrap().len() as usize;
        let tries = if len == 0 { 0 } else { 4 };
        for _ in 0..tries {
            let dir = tempfile::tempdir().unwrap();
            copy(whole.path(), dir.path());
            let mut bytes = fs::read(&file).unwrap();
            // Half of the flips at the end, where trailers stand.
            let at = if random.random() {
                random.random_range(0..len)
            } else {
                len - 1 - random.random_range(0..len.min(200))
            };
            bytes[at] ^= 1 << random.random_range(0..8);
            fs::write(dir.path().join(&name), bytes).unwrap();
            let outcome = read_all(dir.path());
            let kind = name.components().nth(1).map_or(name.clone(), |part| part.as_os_str().into());
            let kind = kind
                .display()
                .to_string()
                .trim_matches(|c: char| c.is_ascii_digit())
                .to_owned();
            let seen = kinds.entry(kind).or_default();
            match outcome {
                // The flip met bytes that mean nothing any more; or, in the log, a mark behind the last batch.
                Ok(count) => {
                    assert_eq!(count, KEYS, "{} byte {at}: batches are gone and nothing told", name.display());
                    seen.1 += 1;
                }
                Err(error) => {
                    assert!(told(&error), "{} byte {at}: {error:?}", name.display());
                    seen.0 += 1;
                }
            }
        }
    }
    println!("kind: (refused, harmless) {kinds:?}");
    let refused: u32 = kinds.values().map(|(refused, _)| refused).sum();
    assert!(refused > 20, "{kinds:?}");
}

#[test]
fn cut_log() {
    let whole = tempfile::tempdir().unwrap();
    {
        let engine = FjallEngine::open(whole.path(), &Default::default()).unwrap();
        for number in 0..KEYS {
            let mut batch = Batch::new();
            for cf in Cf::ALL {
                batch.put(cf, format!("key{number:05}"), value(number));
            }
            engine.write(batch).unwrap();
        }
    }
    let log = files(&whole.path().join("log")).pop().unwrap();
    let len = fs::metadata(&log).unwrap().len();
    let mut random = StdRng::seed_from_u64(5);
    for _ in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        copy(whole.path(), dir.path());
        let cut = random.random_range(0..len);
        let copied = dir.path().join("log").join(log.file_name().unwrap());
        fs::OpenOptions::new()
            .write(true)
            .open(&copied)
            .unwrap()
            .set_len(cut)
            .unwrap();
        let count = read_all(dir.path()).unwrap();
        let about = (u64::from(KEYS) * cut / len) as u32;
        assert!(count.abs_diff(about) <= 20, "cut to {cut} of {len}: {count} batches");
        // What was cut stays gone, and the store goes on.
        let engine = FjallEngine::open(dir.path(), &small()).unwrap();
        let mut batch = Batch::new();
        batch.put(Cf::Lock, "new", "batch");
        engine.write(batch).unwrap();
        drop(engine);
        let engine = FjallEngine::open(dir.path(), &small()).unwrap();
        assert!(engine.get(Cf::Lock, b"new").unwrap().is_some());
    }
}

#[test]
fn missing_files() {
    let whole = tempfile::tempdir().unwrap();
    store(whole.path());
    for file in files(whole.path()) {
        let name = file.strip_prefix(whole.path()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        copy(whole.path(), dir.path());
        fs::remove_file(dir.path().join(name)).unwrap();
        match read_all(dir.path()) {
            // The newest segment of the log takes with it what would tell of it: that is like a cut.
            Ok(count) => assert!(
                count == KEYS || name.starts_with("log"),
                "{} is missing: only {count} batches",
                name.display()
            ),
            Err(error) => assert!(told(&error), "{} is missing: {error:?}", name.display()),
        }
    }
}

#[test]
fn other_formats_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path());
    for text in ["ferrite engine 2 key 00000001\n", "", "something else"] {
        fs::write(dir.path().join("FORMAT"), text).unwrap();
        let error = FjallEngine::open(dir.path(), &small()).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{text:?}: {error:?}");
    }
}

#[test]
fn an_interrupted_creation_is_begun_again() {
    let whole = tempfile::tempdir().unwrap();
    FjallEngine::open(whole.path(), &small()).unwrap();
    for keep in ["", "default", "log"] {
        let dir = tempfile::tempdir().unwrap();
        for file in files(whole.path()) {
            let name = file.strip_prefix(whole.path()).unwrap();
            if name.starts_with(keep) && !keep.is_empty() {
                let target = dir.path().join(name);
                fs::create_dir_all(target.parent().unwrap()).unwrap();
                let bytes = if keep == "log" { Vec::new() } else { fs::read(&file).unwrap() };
                fs::write(target, bytes).unwrap();
            }
        }
        assert_eq!(read_all(dir.path()).unwrap(), 0, "left: {keep:?}");
    }
}
