//! What reads bytes that nobody vouches for, as functions of bytes: `fuzz/` runs them for hours, the tests for a second.
//!
//! Each function panics when what it was given shows a fault. [`run`] gives one of them many inputs made from a corpus and a seed, so
//! that the tests of a plain `cargo test` see the very same targets.

use crate::frames::{Table, frame_len, frames_of};
use crate::index::{Entry, Place};
use crate::journal::{HEADER, Record, replay};
use crate::key::Key;
use crate::{Form, store};

/// Numbers at which readers of lengths and counts go wrong.
const EDGES: [u64; 10] = [
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0xFFFF,
    1 << 16,
    u32::MAX as u64,
    i64::MAX as u64,
    u64::MAX,
];
/// Pieces that are put into text.
const WORDS: [&[u8]; 14] = [
    b"/", b"..", b"%2f", b"%", b"//", b"blobs", b"uploads", b"-", b"=", b"bytes=", b"zstd", b",", b";q=0", b"cas/",
];

/// The table behind the frames of a blob: the length of its content and of its file (8 bytes each, little-endian), then the table.
/// What is read as a table fits the blob and is written as the same bytes.
pub fn chunk_table(data: &[u8]) {
    let Some((head, table)) = data.split_at_checked(16) else {
        return;
    };
    let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    // As large as a blob may be: the store reads no table of a larger one.
    let (len, stored) = (number(0) % (1 << 32), number(8));
    let Ok(read) = Table::decode(table, len, stored) else { return };
    assert_eq!(read.encode(len), table, "a table that is written otherwise");
    assert_eq!(read.end() + table.len() as u64, stored);
    let mut at = 0;
    for frame in 0..frames_of(len) {
        let (start, end) = read.frame(frame);
        assert!(start == at && end >= start && frame_len(len, frame) > 0, "frame {frame}");
        at = end;
    }
    assert_eq!(at, read.end());
}

/// A log of the journal. The first byte says whether the checksums of its records are put right before it is read, else hardly any
/// record would be.
pub fn journal_replay(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    if mode % 2 == 0 {
        put_checksums_right(&mut bytes);
    }
    let mut records = Vec::new();
    let read = replay(&bytes, |record| records.push(record));
    assert!(read <= bytes.len());
    // What was read can be written, and is then read as the same.
    let mut written = Vec::new();
    records.iter().for_each(|record| record.encode(&mut written));
    let mut again = Vec::new();
    assert_eq!(replay(&written, |record| again.push(record)), written.len());
    assert_eq!(again, records);
    // A torn end takes nothing from what stands before it.
    let mut torn = 0;
    replay(&bytes[..read.saturating_sub(1)], |_| torn += 1);
    assert_eq!(torn, records.len().saturating_sub(1));
    // The index holds the last word on each key.
    let index = store::index_of(&bytes);
    let mut wanted = std::collections::BTreeMap::new();
    for record in records {
        match record {
            Record::Put(entry) => drop(wanted.insert(entry.key, entry.place())),
            Record::Remove(key, place) if wanted.get(&key) == Some(&place) => drop(wanted.remove(&key)),
            _ => {}
        }
    }
    assert_eq!(index.len(), wanted.len());
    for (key, place) in wanted {
        assert_eq!(index.get(&key).map(Entry::place), Some(place));
    }
}

fn put_checksums_right(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + HEADER) {
        let end = at + HEADER + usize::from(u16::from_le_bytes([header[5], header[6]]));
        let Some(body) = bytes.get(at + 4..end) else { return };
        let crc = crc32fast::hash(body);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        at = end;
    }
}

/// Inputs that [`chunk_table`] finds sound.
pub fn chunk_tables() -> Vec<Vec<u8>> {
    let of = |sizes: &[u32], len: u64| {
        let table = Table::from_sizes(sizes);
        let bytes = table.encode(len);
        let stored = table.end() + bytes.len() as u64;
        [&len.to_le_bytes()[..], &stored.to_le_bytes(), &bytes].concat()
    };
    vec![
        of(&[900], 70_000),
        of(&[70_000, 131_072, 5], 300_000),
        of(&[1; 9], 9 * 131_072),
    ]
}

/// Inputs that [`journal_replay`] reads whole.
pub fn journals() -> Vec<Vec<u8>> {
    let key = |n: u8| Key([n; 32]);
    let entry = |n: u8, place| {
        let mut entry = Entry::new(key(n), place, Form::Zstd);
        (entry.len, entry.stored, entry.space) = (100, 60, 1);
        entry
    };
    let records = [
        Record::Space(1, "ci/main".into()),
        Record::Put(entry(1, Place::Segment(3, 4096))),
        Record::Put(entry(2, Place::File(77))),
        Record::Remove(key(1), Place::Segment(3, 4096)),
        Record::Put(entry(1, Place::File(78))),
        Record::Remove(key(2), Place::File(1)),
        Record::Used(key(1), 77),
        Record::End(7),
    ];
    let of = |mode, records: &[Record]| {
        let mut bytes = vec![mode];
        records.iter().for_each(|record| record.encode(&mut bytes));
        bytes
    };
    vec![of(0, &records), of(1, &records), of(0, &records[1..3])]
}

/// Gives `target` the corpus and then `count` inputs made from it by changes that `seed` chooses. An input that shows a fault is told
/// in hexadecimal digits before the panic goes on. `FERRITE_FUZZ` multiplies the count, and changes what is made.
pub fn run(seed: u64, count: usize, corpus: &[Vec<u8>], target: fn(&[u8])) {
    let times = std::env::var("FERRITE_FUZZ").map_or(1, |text| text.parse().expect("FERRITE_FUZZ is a number"));
    let (seed, count) = (seed + 1_000 * (times as u64 - 1), count * times);
    let mut random = Random(seed);
    corpus.iter().for_each(|input| told(input, target));
    for _ in 0..count {
        let mut input = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(4) {
            change(&mut input, corpus, &mut random);
        }
        input.truncate(4096);
        told(&input, target);
    }
}

fn told(input: &[u8], target: fn(&[u8])) {
    struct Told<'a>(&'a [u8]);
    impl Drop for Told<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
                eprintln!("input: {hex}\nas text: {:?}", String::from_utf8_lossy(self.0));
            }
        }
    }
    let _told = Told(input);
    target(input);
}

fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let end = (at + random.below(9)).min(input.len());
    match random.below(9) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.next() as u8,
        2 => input.truncate(at),
        3 => drop(input.drain(at..end)),
        4 => drop(input.splice(at..at, [random.next() as u8])),
        5 => drop(input.splice(at..end, WORDS[random.below(WORDS.len())].iter().copied())),
        // A number of some width.
        6 => {
            let number = EDGES[random.below(EDGES.len())].to_le_bytes();
            let width = (1 << random.below(4)).min(input.len() - at);
            input[at..at + width].copy_from_slice(&number[..width]);
        }
        // A piece of the same, or of another.
        7 => {
            let piece = input[at..].to_vec();
            input.extend(piece);
        }
        _ => {
            let other = &corpus[random.below(corpus.len())];
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend(&other[from..]);
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_any_bytes_are_none_or_sound() {
        for input in chunk_tables() {
            let len = u64::from_le_bytes(input[..8].try_into().expect("eight bytes"));
            let stored = u64::from_le_bytes(input[8..16].try_into().expect("eight bytes"));
            assert!(Table::decode(&input[16..], len, stored).is_ok(), "the corpus is sound");
        }
        run(1, 40_000, &chunk_tables(), chunk_table);
    }

    #[test]
    fn journals_of_any_bytes_give_what_can_be_written_again() {
        for input in journals() {
            assert_eq!(replay(&input[1..], drop), input.len() - 1, "the corpus is whole");
        }
        run(2, 40_000, &journals(), journal_replay);
    }
}
