use super::*;
use raft::Storage;

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index,
        term,
        data: vec![0; 68].into(),
        ..Default::default()
    }
}

/// A log `(5, 10]` of terms 5 5 6 6 7, with the last three entries in memory.
fn cache() -> LogCache {
    let state = RaftState {
        term: 7,
        vote: 1,
        commit: 8,
        truncated_index: 5,
        truncated_term: 5,
    };
    let term_runs = [(6, 5), (8, 6), (10, 7)]
        .map(|(index, term)| LogPosition { index, term })
        .to_vec();
    LogCache::new(
        &Found {
            state,
            last_index: 10,
            term_runs,
        },
        &Region::default(),
        vec![entry(8, 6), entry(9, 6), entry(10, 7)],
    )
}

#[test]
fn knows_all_terms_though_not_all_entries() {
    let log = cache();
    let terms: Vec<_> = (5..=10).map(|i| log.term(i).expect("in the log")).collect();
    assert_eq!(terms, [5, 5, 5, 6, 6, 7]);
    assert_eq!(log.term(4), Err(Error::Store(StorageError::Compacted)));
    assert_eq!(log.term(11), Err(Error::Store(StorageError::Unavailable)));
    assert_eq!((log.first_index(), log.last_index()), (Ok(6), Ok(10)));
}

#[test]
fn serves_from_memory_and_asks_for_the_rest() {
    let mut log = cache();
    let sync = || GetEntriesContext::empty(false);
    assert_eq!(log.entries(8, 11, None, sync()).map(|e| e.len()), Ok(3));
    assert_eq!(log.entries(8, 11, Some(1), sync()).map(|e| e.len()), Ok(1), "at least one");
    assert_eq!(log.entries(8, 11, Some(200), sync()).map(|e| e.len()), Ok(2));
    assert_eq!(log.entries(5, 8, None, sync()), Err(Error::Store(StorageError::Compacted)));
    let later = log.entries(6, 11, Some(300), GetEntriesContext::empty(true));
    assert_eq!(later, Err(Error::Store(StorageError::LogTemporarilyUnavailable)));
    let wanted = log.take_wanted();
    assert_eq!((wanted.fetches[0].low, wanted.fetches[0].high), (6, 11));
    log.put_fetched(vec![entry(6, 5), entry(7, 5)]);
    let got = log
        .entries(6, 11, Some(300), GetEntriesContext::empty(true))
        .expect("fetched now");
    assert_eq!(got.iter().map(|e| e.index).collect::<Vec<_>>(), [6, 7]);
}

#[test]
fn append_replaces_a_conflicting_tail() {
    let mut log = cache();
    log.append(&[entry(9, 8)]);
    assert_eq!(
        (log.last(), log.term(8), log.term(9)),
        (LogPosition { index: 9, term: 8 }, Ok(6), Ok(8))
    );
    assert_eq!(
        log.entries(8, 10, None, GetEntriesContext::empty(false)).map(|e| e.len()),
        Ok(2)
    );
    // Replacing reaches below what is in memory: the cache then holds only what was appended.
    log.append(&[entry(7, 9), entry(8, 9)]);
    assert_eq!((log.last().index, log.term(6), log.term(7)), (8, Ok(5), Ok(9)));
    assert_eq!(
        log.entries(7, 9, None, GetEntriesContext::empty(false)).map(|e| e.len()),
        Ok(2)
    );
}

#[test]
fn evicts_only_what_is_applied() {
    let mut log = cache();
    log.evict(9, u64::MAX, 0);
    assert_eq!(log.cache_first(), 10);
    log.evict(9, u64::MAX, 0);
    assert_eq!(log.cache_first(), 10, "10 is not applied");
    let mut log = cache();
    log.evict(10, 9, u64::MAX);
    assert_eq!(log.cache_first(), 9, "a follower still needs 9");
    log.evict(10, 9, 100);
    assert_eq!(log.cache_first(), 10, "but memory is bounded");
}

#[test]
fn compacts_and_resets() {
    let mut log = cache();
    log.compact(8);
    assert_eq!((log.truncated(), log.term(8)), (LogPosition { index: 8, term: 6 }, Ok(6)));
    assert_eq!((log.term(9), log.term(10)), (Ok(6), Ok(7)));
    assert_eq!(
        log.entries(9, 11, None, GetEntriesContext::empty(false)).map(|e| e.len()),
        Ok(2)
    );
    log.compact(10);
    assert_eq!((log.last(), log.first_index()), (LogPosition { index: 10, term: 7 }, Ok(11)));
    log.append(&[entry(11, 7)]);
    assert_eq!(log.last(), LogPosition { index: 11, term: 7 });
    log.reset(LogPosition { index: 50, term: 9 }, ConfState::default());
    assert_eq!((log.last(), log.first_index()), (LogPosition { index: 50, term: 9 }, Ok(51)));
}

#[test]
fn asks_for_a_snapshot_and_then_gives_it() {
    let mut log = cache();
    assert_eq!(
        log.snapshot(7, 2),
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    );
    assert_eq!(log.take_wanted().snapshot, Some(7));
    let mut snapshot = Snapshot::default();
    snapshot.mut_metadata().index = 9;
    log.put_snapshot(snapshot);
    assert_eq!(log.snapshot(7, 2).map(|s| s.get_metadata().index), Ok(9));
    assert!(log.snapshot(10, 2).is_err(), "too old for that follower");
    log.compact(10);
    assert!(log.snapshot(7, 2).is_err(), "the log no longer reaches back to it");
}
