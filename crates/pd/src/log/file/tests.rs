use std::fs;
use std::path::Path;

use super::*;
use crate::log::ProposalId;
use proto::ferrite_pd::command::Kind as Command;

fn reserve(count: u64) -> Command {
    Command::ReserveIds(record::ReserveIds { count })
}

/// Proposes commands that reserve `counts` as one batch.
fn must_append(log: &mut FileLog, counts: &[u64]) {
    let proposals = counts
        .iter()
        .map(|&count| Proposal {
            id: ProposalId(count),
            command: reserve(count),
        })
        .collect();
    log.propose(proposals).unwrap();
    let ids = log.poll().unwrap().into_iter().filter_map(|event| match event {
        LogEvent::Committed { proposal, .. } => proposal,
        _ => None,
    });
    assert_eq!(ids.map(|id| id.0).collect::<Vec<_>>(), counts);
}

/// Opens the log and returns it with the counts of the commands found, in order, after checking their indexes.
fn must_open(dir: &Path) -> (FileLog, Recovered, Vec<u64>) {
    let (mut log, recovered) = FileLog::open(dir).unwrap();
    let mut events = log.poll().unwrap();
    assert_eq!(events.pop(), Some(LogEvent::Leads));
    let mut counts = Vec::new();
    for (event, wanted) in events.into_iter().zip(recovered.index + 1..) {
        match event {
            LogEvent::Committed {
                index,
                proposal: None,
                command: Command::ReserveIds(c),
            } => {
                assert_eq!(index, wanted);
                counts.push(c.count);
            }
            other => panic!("{other:?}"),
        }
    }
    (log, recovered, counts)
}

fn must_refuse(dir: &Path) -> Error {
    FileLog::open(dir).map(|_| ()).unwrap_err()
}

/// A log of three batches, and where each ends.
fn three_batches(dir: &Path) -> Vec<usize> {
    let (mut log, _, _) = must_open(dir);
    let mut ends = vec![log.file_bytes];
    for batch in [&[1, 2][..], &[3], &[4, 5, 6]] {
        must_append(&mut log, batch);
        ends.push(log.file_bytes);
    }
    ends
}

#[test]
fn commands_come_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    three_batches(dir.path());
    let (mut log, recovered, counts) = must_open(dir.path());
    assert_eq!((recovered, counts), (Recovered::default(), vec![1, 2, 3, 4, 5, 6]));
    must_append(&mut log, &[7]);
    drop(log);
    assert_eq!(must_open(dir.path()).2, [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_log_cut_anywhere_gives_back_its_whole_batches() {
    let dir = tempfile::tempdir().unwrap();
    let ends = three_batches(dir.path());
    let whole = fs::read(dir.path().join("log")).unwrap();
    for cut in ends[0]..=whole.len() {
        fs::write(dir.path().join("log"), &whole[..cut]).unwrap();
        let (mut log, _, counts) = must_open(dir.path());
        let batches = ends.iter().filter(|&&end| end <= cut).count() - 1;
        assert_eq!(counts, (1..=[0, 2, 3, 6][batches]).collect::<Vec<_>>(), "cut at {cut}");
        must_append(&mut log, &[9]);
        drop(log);
        assert_eq!(must_open(dir.path()).2.last(), Some(&9), "cut at {cut}");
    }
}

#[test]
fn a_batch_whose_sectors_did_not_all_reach_the_disk_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let ends = three_batches(dir.path());
    {
        let (mut log, _, _) = must_open(dir.path());
        must_append(&mut log, &(1..500).collect::<Vec<_>>());
    }
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
        assert_eq!(must_open(dir.path()).2, [1, 2, 3, 4, 5, 6], "sector {sector}");
    }
}

#[test]
fn a_flipped_bit_anywhere_refuses_the_start() {
    let dir = tempfile::tempdir().unwrap();
    three_batches(dir.path());
    let whole = fs::read(dir.path().join("log")).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(dir.path().join("log"), &flipped).unwrap();
        let error = must_refuse(dir.path());
        assert!(matches!(error, Error::Damaged { .. }), "byte {at}: {error}");
    }
}

#[test]
fn zeros_before_a_good_batch_are_damage_and_not_a_torn_end() {
    let dir = tempfile::tempdir().unwrap();
    let ends = three_batches(dir.path());
    let mut bytes = fs::read(dir.path().join("log")).unwrap();
    bytes[ends[1]..ends[2]].fill(0);
    fs::write(dir.path().join("log"), &bytes).unwrap();
    let error = must_refuse(dir.path());
    assert!(
        error.to_string().contains(&format!("is damaged at byte {}", ends[1])),
        "{error}"
    );
}

#[test]
fn a_missing_batch_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let ends = three_batches(dir.path());
    let bytes = fs::read(dir.path().join("log")).unwrap();
    for gone in 0..2 {
        let without = [&bytes[..ends[gone]], &bytes[ends[gone + 1]..]].concat();
        fs::write(dir.path().join("log"), &without).unwrap();
        assert!(matches!(must_refuse(dir.path()), Error::Damaged { .. }), "batch {gone}");
    }
}

fn state(id_next: u64) -> record::State {
    record::State {
        id_next,
        ..record::State::default()
    }
}

#[test]
fn a_snapshot_takes_the_place_of_what_is_before_it() {
    for (index, left) in [(2, vec![3, 4, 5, 6]), (3, vec![4, 5, 6]), (4, vec![5, 6]), (6, vec![])] {
        let dir = tempfile::tempdir().unwrap();
        three_batches(dir.path());
        let (mut log, _, _) = must_open(dir.path());
        let before = log.file_bytes;
        log.snapshot(index, &state(index)).unwrap();
        assert!(log.file_bytes <= before);
        must_append(&mut log, &[7]);
        drop(log);
        let (_, recovered, counts) = must_open(dir.path());
        assert_eq!(
            recovered,
            Recovered {
                index,
                state: Some(state(index))
            }
        );
        assert_eq!(counts, [left, vec![7]].concat());
    }
}

#[test]
fn a_crash_between_snapshot_and_log_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    three_batches(dir.path());
    let old = fs::read(dir.path().join("log")).unwrap();
    let (mut log, _, _) = must_open(dir.path());
    log.snapshot(4, &state(4)).unwrap();
    drop(log);
    fs::write(dir.path().join("log"), old).unwrap();
    fs::write(dir.path().join("snapshot.tmp"), b"half a snapsh").unwrap();
    let (mut log, recovered, counts) = must_open(dir.path());
    assert_eq!((recovered.index, counts), (4, vec![5, 6]));
    log.snapshot(6, &state(6)).unwrap();
    drop(log);
    assert_eq!(must_open(dir.path()).1.index, 6);
}

#[test]
fn snapshots_shrink_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _, _) = must_open(dir.path());
    for round in 0..10 {
        for count in 0..100 {
            must_append(&mut log, &[count]);
        }
        log.snapshot((round + 1) * 100, &state(round)).unwrap();
        assert!(log.file_bytes < 100, "{} bytes", log.file_bytes);
    }
}

#[test]
fn a_damaged_or_lonely_snapshot_refuses_the_start() {
    let dir = tempfile::tempdir().unwrap();
    three_batches(dir.path());
    let (mut log, _, _) = must_open(dir.path());
    log.snapshot(6, &state(1 << 40)).unwrap();
    drop(log);
    let whole = fs::read(dir.path().join("snapshot")).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(dir.path().join("snapshot"), &flipped).unwrap();
        assert!(matches!(must_refuse(dir.path()), Error::Damaged { .. }), "byte {at}");
        fs::write(dir.path().join("snapshot"), &whole[..at]).unwrap();
        assert!(matches!(must_refuse(dir.path()), Error::Damaged { .. }), "cut at {at}");
    }
    fs::write(dir.path().join("snapshot"), &whole).unwrap();
    fs::remove_file(dir.path().join("log")).unwrap();
    assert!(
        must_refuse(dir.path())
            .to_string()
            .ends_with("it is missing, but there is a snapshot")
    );
}

#[test]
fn a_log_without_its_snapshot_refuses_the_start() {
    let dir = tempfile::tempdir().unwrap();
    three_batches(dir.path());
    let (mut log, _, _) = must_open(dir.path());
    log.snapshot(6, &state(6)).unwrap();
    must_append(&mut log, &[7]);
    drop(log);
    fs::remove_file(dir.path().join("snapshot")).unwrap();
    assert!(
        must_refuse(dir.path())
            .to_string()
            .ends_with("commands before it are missing")
    );
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, _, _) = must_open(dir.path());
    assert!(matches!(must_refuse(dir.path()), Error::Locked { .. }));
}

#[test]
fn a_newer_format_is_named() {
    let dir = tempfile::tempdir().unwrap();
    three_batches(dir.path());
    let mut bytes = fs::read(dir.path().join("log")).unwrap();
    bytes[8] = 2;
    let checksum = crc32fast::hash(&bytes[..12]).to_le_bytes();
    bytes[12..16].copy_from_slice(&checksum);
    fs::write(dir.path().join("log"), &bytes).unwrap();
    assert!(
        must_refuse(dir.path())
            .to_string()
            .ends_with("has format 2, this version reads 1")
    );
}

/// The bytes of a log, to the letter: a change here breaks what users have on disk.
#[test]
fn the_format_is_as_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _, _) = must_open(dir.path());
    must_append(&mut log, &[300]);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let bytes = fs::read(dir.path().join("log")).unwrap();
    assert_eq!(&bytes[..8], b"FERRPDLG");
    assert_eq!(hex(&bytes[8..12]), "01000000");
    assert_eq!(hex(&bytes[16..28]), "070000000100000000000000");
    assert_eq!(hex(&bytes[36..]), "0a052a0308ac02");
}
