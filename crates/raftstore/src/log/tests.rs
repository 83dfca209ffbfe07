//! One suite for both implementations, and what only files can suffer.

use super::*;
use base::ByteSize;

/// For logs whose disk works.
fn unexpected() -> OnFailedSync {
    Box::new(|error| panic!("{error}"))
}

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index,
        term,
        data: vec![index as u8; 100].into(),
        ..Default::default()
    }
}

fn append(region: u64, entries: &[Entry]) -> RaftWrite {
    let state = Some(RaftState {
        term: 9,
        truncated_index: 5,
        truncated_term: 5,
        ..Default::default()
    });
    RaftWrite {
        region: RegionId(region),
        entries: entries.to_vec(),
        state,
        ..RaftWrite::default()
    }
}

fn indexes(log: &dyn RaftLog, region: u64, low: u64, high: u64) -> Vec<(u64, u64)> {
    let entries = log.entries(RegionId(region), low, high, u64::MAX).expect("entries");
    entries.iter().map(|e| (e.index, e.term)).collect()
}

/// What every raft log must do.
fn suite(log: &dyn RaftLog) {
    assert!(log.find(RegionId(1)).expect("find").is_none());
    let first: Vec<_> = [(6, 5), (7, 5), (8, 6), (9, 6), (10, 8)].map(|(i, t)| entry(i, t)).to_vec();
    log.write(&[append(1, &first), append(2, &[entry(6, 5)])], true)
        .expect("write");
    assert_eq!(log.regions(), [RegionId(1), RegionId(2)]);
    let found = log.find(RegionId(1)).expect("find").expect("there");
    assert_eq!((found.last_index, found.state.truncated_index), (10, 5));
    let runs: Vec<_> = found.term_runs.iter().map(|run| (run.index, run.term)).collect();
    assert_eq!(runs, [(6, 5), (8, 6), (10, 8)]);
    assert_eq!(indexes(log, 1, 7, 9), [(7, 5), (8, 6)]);
    assert_eq!(log.entries(RegionId(1), 6, 11, 1).expect("entries").len(), 1, "at least one");

    log.write(&[append(1, &[entry(8, 7)])], false)
        .expect("replace a conflicting tail");
    assert_eq!(indexes(log, 1, 6, 9), [(6, 5), (7, 5), (8, 7)]);
    assert_eq!(log.find(RegionId(1)).expect("find").expect("there").last_index, 8);

    let state = Some(RaftState {
        truncated_index: 7,
        truncated_term: 5,
        ..Default::default()
    });
    let compact = RaftWrite {
        region: RegionId(1),
        compact_to: Some(7),
        state,
        ..RaftWrite::default()
    };
    log.write(&[compact], false).expect("compact");
    assert_eq!(indexes(log, 1, 6, 8), []);
    assert_eq!(indexes(log, 1, 8, 9), [(8, 7)]);
    assert_eq!(log.find(RegionId(1)).expect("find").expect("there").term_runs.len(), 1);

    let state = Some(RaftState {
        truncated_index: 50,
        truncated_term: 9,
        ..Default::default()
    });
    let reset = RaftWrite {
        region: RegionId(1),
        reset: true,
        state,
        ..RaftWrite::default()
    };
    log.write(&[reset], true).expect("reset");
    assert_eq!(log.find(RegionId(1)).expect("find").expect("there").last_index, 50);
    assert_eq!(indexes(log, 1, 8, 9), []);
    log.write(
        &[RaftWrite {
            state: None,
            ..append(1, &[entry(51, 9)])
        }],
        true,
    )
    .expect("append behind the reset");
    assert_eq!(indexes(log, 1, 51, 52), [(51, 9)]);

    log.remove(RegionId(2)).expect("remove");
    log.sync().expect("sync");
    assert!(log.find(RegionId(2)).expect("find").is_none());
    log.purge().expect("purge");
}

#[test]
fn memory_keeps_the_contract() {
    suite(&MemLog::new());
}

#[test]
fn files_keep_the_contract() {
    let dir = tempfile::tempdir().expect("temp dir");
    suite(&EngineLog::open(dir.path(), &LogConfig::default(), unexpected()).expect("open"));
    let again = EngineLog::open(dir.path(), &LogConfig::default(), unexpected()).expect("open again");
    assert_eq!(indexes(&again, 1, 51, 52), [(51, 9)]);
    assert_eq!(again.regions(), [RegionId(1)]);
}

#[test]
fn memory_crash_keeps_a_prefix() {
    let log = MemLog::new();
    log.write(&[append(1, &[entry(6, 5)])], true).expect("write");
    for index in 7..10 {
        log.write(&[append(1, &[entry(index, 5)])], false).expect("write");
    }
    assert_eq!(log.unsynced(), 3);
    for keep in 0..=3 {
        assert_eq!(indexes(&log.crash(keep), 1, 6, 7 + keep as u64).len(), 1 + keep);
        assert_eq!(
            log.crash(keep).find(RegionId(1)).expect("find").expect("there").last_index,
            6 + keep as u64
        );
    }
    log.fail_next();
    assert!(log.write(&[append(1, &[entry(10, 5)])], true).is_err());
    assert!(matches!(log.sync(), Err(Error::Poisoned)));
}

fn log_files(dir: &std::path::Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .expect("list")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "raftlog"))
        .collect();
    files.sort();
    files
}

#[test]
fn a_torn_tail_is_cut_off() {
    let dir = tempfile::tempdir().expect("temp dir");
    let log = EngineLog::open(dir.path(), &LogConfig::default(), unexpected()).expect("open");
    for index in 6..30 {
        log.write(&[append(1, &[entry(index, 5)])], true).expect("write");
    }
    drop(log);
    let file = log_files(dir.path()).pop().expect("a log file");
    let bytes = std::fs::read(&file).expect("read");
    let end = bytes.iter().rposition(|&b| b != 0).expect("something was written") + 1;
    let mut last = 29;
    for cut in (end / 2..end).rev().step_by(37) {
        std::fs::write(&file, &bytes[..cut]).expect("cut");
        let log = EngineLog::open(dir.path(), &LogConfig::default(), unexpected()).expect("a torn tail is no reason to refuse");
        let found = log.find(RegionId(1)).expect("find").expect("there").last_index;
        assert!(found <= last, "cutting more may not bring entries back");
        assert_eq!(
            indexes(&log, 1, 6, found + 1).len() as u64,
            found - 5,
            "what is left has no hole"
        );
        last = found;
    }
    assert!(last < 29, "cutting must have lost something");
}

#[test]
fn damage_in_an_older_file_refuses_to_open() {
    let dir = tempfile::tempdir().expect("temp dir");
    let config = LogConfig {
        file_size: ByteSize::mib(1),
        purge_threshold: ByteSize::mib(64),
    };
    let log = EngineLog::open(dir.path(), &config, unexpected()).expect("open");
    for index in 6..40 {
        let big = Entry {
            index,
            term: 5,
            data: vec![1; 100_000].into(),
            ..Default::default()
        };
        log.write(&[append(1, &[big])], true).expect("write");
    }
    drop(log);
    let files = log_files(dir.path());
    assert!(files.len() > 2, "several files, got {}", files.len());
    let mut bytes = std::fs::read(&files[0]).expect("read");
    bytes[300_000] ^= 1;
    std::fs::write(&files[0], bytes).expect("write");
    let refused = match EngineLog::open(dir.path(), &config, unexpected()) {
        Err(error) => error.to_string(),
        // The crate checks entries when they are read: damage there must be an error then.
        Ok(log) => log
            .entries(RegionId(1), 6, 40, u64::MAX)
            .expect_err("a flipped bit went unseen")
            .to_string(),
    };
    assert!(!refused.is_empty());
}

thread_local!(static DISK_FAILS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });

#[test]
fn a_failed_sync_is_told_in_one_error_before_anything_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let (tell, told) = std::sync::mpsc::channel();
    let on_failed_sync: OnFailedSync = Box::new(move |error| {
        tell.send(error.to_string()).expect("the test listens");
        // In production nothing runs after this, least of all destructors that sync.
        DISK_FAILS.set(false);
        std::panic::resume_unwind(Box::new("the process ends here"));
    });
    let sync = |fd: &files::Fd| match DISK_FAILS.get() {
        true => Err(std::io::Error::other("the disk is gone")),
        false => raft_engine::env::Handle::sync(fd),
    };
    let log = EngineLog::open_with(dir.path(), &LogConfig::default(), on_failed_sync, sync).expect("open");
    log.write(&[append(1, &[entry(6, 5)])], true).expect("the disk works");
    assert!(told.try_recv().is_err(), "nothing failed yet");
    DISK_FAILS.set(true);
    let write = || log.write(&[append(1, &[entry(7, 5)])], true);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(write));
    assert!(ended.is_err(), "a write whose sync failed must not come back");
    let wanted = format!("sync in {} failed: the disk is gone", dir.path().display());
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [wanted]);
}
