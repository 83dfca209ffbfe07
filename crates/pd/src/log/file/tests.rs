use std::fs;
use std::path::Path;

use proto::ferrite_pd::command::Kind as Command;
use proto::ferrite_pd::{LogBatch, ReserveIds};
use proto::ferrite_raft::Entry;

use super::frame::SECTOR_BYTES;
use super::*;

const ME: MemberId = MemberId(5);

fn founder() -> record::Member {
    record::Member {
        id: ME.0,
        name: "pd-1".to_owned(),
        ..record::Member::default()
    }
}

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        term,
        index,
        data: index.to_be_bytes().to_vec().into(),
        ..Entry::default()
    }
}

fn write(entries: &[(u64, u64)]) -> Write {
    let term = entries.last().map_or(2, |&(_, term)| term);
    Write {
        entries: entries.iter().map(|&(index, term)| entry(index, term)).collect(),
        hard_state: Some(HardState {
            term,
            vote: ME.0,
            commit: 1,
        }),
        ..Write::default()
    }
}

/// A log of a new member, which begins at index 1.
fn must_begin(dir: &Path) -> FileLog {
    let mut log = FileLog::open(dir, ME).unwrap();
    assert!(log.is_new());
    log.begin(Stored::founding(ME, vec![founder()])).unwrap();
    log
}

fn must_open(dir: &Path) -> FileLog {
    let log = FileLog::open(dir, MemberId(99)).unwrap();
    assert_eq!(log.stored().identity.member, ME, "the id is the one of the first start");
    log
}

fn indexes(log: &FileLog) -> Vec<(u64, u64)> {
    log.stored().entries.iter().map(|entry| (entry.index, entry.term)).collect()
}

fn must_refuse(dir: &Path) -> Error {
    FileLog::open(dir, ME).map(|_| ()).unwrap_err()
}

/// A log of three writes, and where each ends.
fn three_writes(dir: &Path) -> Vec<usize> {
    let mut log = must_begin(dir);
    let mut ends = vec![log.file_bytes];
    for entries in [&[(2, 2), (3, 2)][..], &[(4, 2)], &[(5, 3), (6, 3)]] {
        log.write(&write(entries)).unwrap();
        ends.push(log.file_bytes);
    }
    ends
}

#[test]
fn what_was_written_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    three_writes(dir.path());
    let mut log = must_open(dir.path());
    assert_eq!(indexes(&log), [(2, 2), (3, 2), (4, 2), (5, 3), (6, 3)]);
    assert_eq!((log.stored().hard_state.term, log.stored().hard_state.vote), (3, ME.0));
    log.write(&write(&[(4, 4)])).unwrap();
    let stored = log.stored().clone();
    drop(log);
    let log = must_open(dir.path());
    assert_eq!(
        indexes(&log),
        [(2, 2), (3, 2), (4, 4)],
        "what stood at its place and behind is replaced"
    );
    assert_eq!(*log.stored(), stored);
}

#[test]
fn a_log_cut_anywhere_gives_back_its_whole_writes() {
    let dir = tempfile::tempdir().unwrap();
    let ends = three_writes(dir.path());
    let whole = fs::read(dir.path().join("log")).unwrap();
    for cut in ends[0]..=whole.len() {
        fs::write(dir.path().join("log"), &whole[..cut]).unwrap();
        let mut log = must_open(dir.path());
        let writes = ends.iter().filter(|&&end| end <= cut).count() - 1;
        let last = [1, 3, 4, 6][writes];
        assert_eq!(indexes(&log).len() as u64, last - 1, "cut at {cut}");
        log.write(&write(&[(last + 1, 9)])).unwrap();
        drop(log);
        assert_eq!(indexes(&must_open(dir.path())).last(), Some(&(last + 1, 9)), "cut at {cut}");
    }
}

#[test]
fn a_write_whose_sectors_did_not_all_reach_the_disk_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let ends = three_writes(dir.path());
    let entries: Vec<_> = (7..200).map(|index| (index, 3)).collect();
    must_open(dir.path()).write(&write(&entries)).unwrap();
    let whole = fs::read(dir.path().join("log")).unwrap();
    let last = ends[3];
    for sector in last / SECTOR_BYTES..whole.len().div_ceil(SECTOR_BYTES) {
        let mut torn = whole.clone();
        let (from, to) = (
            (sector * SECTOR_BYTES).max(last),
            ((sector + 1) * SECTOR_BYTES).min(whole.len()),
        );
        torn[from..to].fill(0);
        fs::write(dir.path().join("log"), &torn).unwrap();
        assert_eq!(indexes(&must_open(dir.path())).len(), 5, "sector {sector}");
    }
}

#[test]
fn a_flipped_bit_anywhere_refuses_the_start() {
    let dir = tempfile::tempdir().unwrap();
    three_writes(dir.path());
    for name in ["log", "snapshot"] {
        let whole = fs::read(dir.path().join(name)).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(dir.path().join(name), &flipped).unwrap();
            let error = must_refuse(dir.path());
            assert!(matches!(error, Error::Damaged { .. }), "byte {at} of {name}: {error}");
        }
        fs::write(dir.path().join(name), &whole).unwrap();
    }
}

#[test]
fn a_missing_write_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let ends = three_writes(dir.path());
    let bytes = fs::read(dir.path().join("log")).unwrap();
    for gone in 0..2 {
        let without = [&bytes[..ends[gone]], &bytes[ends[gone + 1]..]].concat();
        fs::write(dir.path().join("log"), &without).unwrap();
        assert!(matches!(must_refuse(dir.path()), Error::Damaged { .. }), "write {gone}");
    }
}

#[test]
fn a_missing_file_refuses_the_start() {
    for (gone, kept) in [("log", "snapshot"), ("snapshot", "log")] {
        let dir = tempfile::tempdir().unwrap();
        three_writes(dir.path());
        fs::remove_file(dir.path().join(gone)).unwrap();
        let error = must_refuse(dir.path()).to_string();
        assert!(error.ends_with(&format!("it is missing, but there is a {kept}")), "{error}");
    }
}

#[test]
fn a_first_start_that_died_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    must_begin(dir.path());
    fs::remove_file(dir.path().join("snapshot")).unwrap();
    let stored = must_begin(dir.path()).stored().clone();
    assert_eq!(*must_open(dir.path()).stored(), stored);
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let _log = must_begin(dir.path());
    assert!(matches!(must_refuse(dir.path()), Error::Locked { .. }));
}

#[test]
fn a_newer_format_is_named() {
    let dir = tempfile::tempdir().unwrap();
    three_writes(dir.path());
    let mut bytes = fs::read(dir.path().join("log")).unwrap();
    bytes[8] = 3;
    let checksum = crc32fast::hash(&bytes[..12]).to_le_bytes();
    bytes[12..16].copy_from_slice(&checksum);
    fs::write(dir.path().join("log"), &bytes).unwrap();
    let error = must_refuse(dir.path()).to_string();
    assert!(error.ends_with("has format 3, this version reads up to 2"), "{error}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a log, to the letter: a change here breaks what users have on disk.
#[test]
fn the_format_is_as_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = must_begin(dir.path());
    let end = log.file_bytes;
    let mut write = write(&[(2, 3)]);
    write.entries[0].data = bytes::Bytes::from_static(b"hi");
    log.write(&write).unwrap();
    let bytes = fs::read(dir.path().join("log")).unwrap();
    assert_eq!((&bytes[..8], hex(&bytes[8..12])), (&b"FERRPDLG"[..], "02000000".to_owned()));
    assert_eq!(hex(&bytes[36..end]), "0801180128013001");
    assert_eq!(hex(&bytes[end..end + 12]), "100000000200000000000000");
    assert_eq!(hex(&bytes[end + 20..]), "0803100518012208100318022202686".to_owned() + "9");
}

/// As the first version wrote it: one command, `ReserveIds` of 300.
#[test]
fn the_first_format_is_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let payload = [0x0a, 0x05, 0x2a, 0x03, 0x08, 0xac, 0x02];
    let mut bytes = frame::head(LOG_MAGIC, 1);
    bytes.extend(frame::frame(1, &payload));
    assert_eq!(hex(&bytes[16..28]), "070000000100000000000000");
    fs::write(dir.path().join("log"), &bytes).unwrap();
    let log = FileLog::open(dir.path(), ME).unwrap();
    assert_eq!(log.stored().snapshot.state.id_next, 301);
    assert_eq!(log.stored().identity.member, ME);
}

fn snapshot(index: u64, term: u64, reset: bool) -> Write {
    Write {
        snapshot: Some(Snapshot {
            position: LogPosition { index, term },
            state: record::State {
                id_next: index,
                ..record::State::default()
            },
            ..Snapshot::default()
        }),
        reset,
        ..Write::default()
    }
}

#[test]
fn a_snapshot_takes_the_place_of_what_is_before_it() {
    for (index, term, left) in [(3, 2, vec![(4, 2), (5, 3), (6, 3)]), (6, 3, vec![])] {
        let dir = tempfile::tempdir().unwrap();
        three_writes(dir.path());
        let mut log = must_open(dir.path());
        log.write(&snapshot(index, term, false)).unwrap();
        log.write(&write(&[(7, 3)])).unwrap();
        let stored = log.stored().clone();
        drop(log);
        let log = must_open(dir.path());
        assert_eq!(indexes(&log), [left, vec![(7, 3)]].concat());
        assert_eq!(log.stored().snapshot.state.id_next, index);
        assert_eq!(*log.stored(), stored);
    }
}

#[test]
fn a_crash_between_snapshot_and_log_keeps_what_belongs_to_it() {
    // A snapshot of its own log, then one of another leader's, whose log parted from this one at 5.
    for (write, left) in [(snapshot(4, 2, false), vec![(5, 3), (6, 3)]), (snapshot(5, 4, true), vec![])] {
        let dir = tempfile::tempdir().unwrap();
        three_writes(dir.path());
        let old = fs::read(dir.path().join("log")).unwrap();
        must_open(dir.path()).write(&write).unwrap();
        fs::write(dir.path().join("log"), old).unwrap();
        fs::write(dir.path().join("snapshot.tmp"), b"half a snapsh").unwrap();
        let log = must_open(dir.path());
        assert_eq!(indexes(&log), left);
        assert_eq!(log.stored().snapshot, write.snapshot.unwrap());
    }
}

/// Files as the first version wrote them: a log of two batches, and perhaps a snapshot.
fn write_old(dir: &Path, with_snapshot: bool) {
    let command = |kind| record::Command { kind: Some(kind) };
    let reserve = |count| command(Command::ReserveIds(ReserveIds { count }));
    let member = command(Command::PutMember(record::PutMember { member: Some(founder()) }));
    let batches = [(1, vec![member, reserve(10)]), (3, vec![reserve(20)])];
    let mut bytes = frame::head(LOG_MAGIC, 1);
    for (first, commands) in batches {
        bytes.extend(frame::frame(first, &LogBatch { commands }.encode_to_vec()));
    }
    fs::write(dir.join("log"), bytes).unwrap();
    if with_snapshot {
        let state = record::State {
            members: vec![founder()],
            id_next: 11,
            ..record::State::default()
        };
        let mut bytes = frame::head(SNAPSHOT_MAGIC, 1);
        bytes.extend(frame::frame(2, &state.encode_to_vec()));
        fs::write(dir.join("snapshot"), bytes).unwrap();
    }
}

#[test]
fn data_of_the_first_format_becomes_a_group_of_one() {
    for with_snapshot in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        write_old(dir.path(), with_snapshot);
        let old_log = fs::read(dir.path().join("log")).unwrap();
        for round in 0..3 {
            let log = must_open(dir.path());
            let Stored { identity, snapshot, .. } = log.stored();
            assert_eq!((identity.member, identity.founders.len()), (ME, 1));
            assert_eq!(snapshot.position, LogPosition { index: 3, term: 1 });
            assert_eq!((snapshot.state.id_next, &snapshot.state.members[..]), (31, &[founder()][..]));
            assert_eq!(snapshot.conf_state.voters, [ME.0]);
            drop(log);
            if round == 1 {
                // It died in the middle of the upgrade: the snapshot was written, the log not.
                fs::write(dir.path().join("log"), &old_log).unwrap();
            }
        }
    }
}
