//! What `lsm-tree` takes on trust when it opens a tree, checked beforehand.
//!
//! Blocks of tables carry checksums that every read from disk checks. Two things do not: the list of tables (`v<id>`), whose
//! checksum stands in `current` but is not compared, and the length in a table's directory of sections, which is used to
//! reserve memory before the directory's checksum is. A flipped bit in the first could change what is read, in the second end the
//! process.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

use crate::{Error, Result};

/// Magic, version and checksum kind, checksum, position and length of the section directory.
const TRAILER_BYTES: u64 = 4 + 1 + 1 + 16 + 8 + 8;

/// Checks the files of the tree in `dir`. Reads a few hundred bytes of each table.
pub fn verify_tree(dir: &Path) -> Result<()> {
    let version = verify_version(dir)?;
    for table in listed_tables(&version)? {
        verify_sections(&dir.join("tables").join(table.to_string()))?;
    }
    Ok(())
}

fn corrupt(path: &Path, what: &str) -> Error {
    Error::Corrupt {
        what: format!("{}: {what}", path.display()),
    }
}

fn read_error(path: &Path, error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => corrupt(path, "is missing"),
        ErrorKind::UnexpectedEof => corrupt(path, "is too short"),
        _ => Error::from_io("read tables", path, error),
    }
}

/// The current list of tables, whole and sound.
fn verify_version(dir: &Path) -> Result<Vec<u8>> {
    let current_path = dir.join("current");
    let current = fs::read(&current_path).map_err(|e| read_error(&current_path, e))?;
    let Ok(current) = <[u8; 25]>::try_from(current) else {
        return Err(corrupt(&current_path, "has a wrong length"));
    };
    let (id, rest) = current.split_at(8);
    let id = u64::from_le_bytes(id.try_into().expect("eight bytes"));
    let checksum = u128::from_le_bytes(rest[..16].try_into().expect("sixteen bytes"));
    let path = dir.join(format!("v{id}"));
    let version = fs::read(&path).map_err(|e| read_error(&path, e))?;
    if rest[16] != 0 || xxh3_128(&version) != checksum {
        return Err(corrupt(&path, "checksum differs"));
    }
    Ok(version)
}

/// Ids of the tables in a sound list: levels, runs in each, tables in each: id, checksum kind, checksum, sequence number.
fn listed_tables(version: &[u8]) -> Result<BTreeSet<u64>> {
    let unreadable = || Error::Corrupt {
        what: "list of tables has another form".to_owned(),
    };
    let sections = sfa::Reader::from_reader(&mut std::io::Cursor::new(version)).map_err(|_| unreadable())?;
    let section = sections.toc().section(b"tables").ok_or_else(unreadable)?;
    let mut rest = version.get(section.pos() as usize..).ok_or_else(unreadable)?;
    let mut ids = BTreeSet::new();
    let mut take = |len: usize| rest.split_off(..len).ok_or_else(unreadable);
    for _ in 0..take(1)?[0] {
        for _ in 0..take(1)?[0] {
            let tables = u32::from_le_bytes(take(4)?.try_into().expect("four bytes"));
            for _ in 0..tables {
                ids.insert(u64::from_le_bytes(take(8)?.try_into().expect("eight bytes")));
                take(1 + 16 + 8)?;
            }
        }
    }
    Ok(ids)
}

/// Compares the checksum of a table's section directory.
fn verify_sections(path: &Path) -> Result<()> {
    let io = |e| read_error(path, e);
    let mut file = File::open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    let trailer_at = len.checked_sub(TRAILER_BYTES).ok_or_else(|| corrupt(path, "is too short"))?;
    file.seek(SeekFrom::Start(trailer_at)).map_err(io)?;
    let mut trailer = [0; TRAILER_BYTES as usize];
    file.read_exact(&mut trailer).map_err(io)?;
    let checksum = u128::from_le_bytes(trailer[6..22].try_into().expect("sixteen bytes"));
    let toc_at = u64::from_le_bytes(trailer[22..30].try_into().expect("eight bytes"));
    let toc_len = trailer_at
        .checked_sub(toc_at)
        .filter(|len| *len <= 1 << 20)
        .ok_or_else(|| corrupt(path, "has a wrong trailer"))?;
    let mut toc = vec![0; toc_len as usize];
    file.seek(SeekFrom::Start(toc_at)).map_err(io)?;
    file.read_exact(&mut toc).map_err(io)?;
    if &trailer[..6] != b"SFA!\x01\x00" || xxh3_128(&toc) != checksum {
        return Err(corrupt(path, "checksum of its sections differs"));
    }
    Ok(())
}
