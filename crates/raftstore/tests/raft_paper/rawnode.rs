//! The `RawNode` door itself, step by step: what a `Ready` holds, in which order it is handled, and what a restart gives.

use raft::StateRole::{Follower, Leader};
use raft::eraftpb::EntryType;

use crate::harness::{Disk, FIRST, Log, Node, entry_with};

/// From the first election of a group of one to its first applied entry, each `Ready` by hand.
#[test]
fn raw_node_start() {
    let mut raw = Node::boot(1, Disk::with_terms(&[1], &[])).raw;
    assert!(!raw.has_ready(), "nothing to do before anything happened");

    // The election: a vote for itself and a first, empty entry, to be made durable together.
    raw.campaign().unwrap();
    let mut ready = raw.ready();
    assert_eq!(ready.ss().unwrap().raft_state, Leader);
    let hard_state = ready.hs().unwrap().clone();
    assert_eq!((hard_state.term, hard_state.vote, hard_state.commit), (2, 1, FIRST.0));
    assert!(ready.must_sync());
    let [first] = &ready.entries()[..] else {
        panic!("one entry, got {:?}", ready.entries())
    };
    assert_eq!((first.term, first.index, first.data.len()), (2, 2, 0));
    assert!(ready.take_committed_entries().is_empty(), "not before it is durable");
    raw.mut_store().append(ready.entries());
    raw.mut_store().seen.hard_state = hard_state;
    let number = ready.number();
    raw.advance_append_async(ready);
    assert!(!raw.has_ready(), "it waits for the disk");

    raw.mut_store().sync();
    raw.on_persist_ready(number);
    let mut ready = raw.ready();
    assert_eq!(ready.hs().unwrap().commit, 2);
    assert!(!ready.must_sync(), "a commit index alone need not be durable");
    let committed = ready.take_committed_entries();
    assert_eq!(committed.iter().map(|entry| entry.index).collect::<Vec<_>>(), [2]);
    let number = ready.number();
    raw.advance_append_async(ready);
    raw.on_persist_ready(number);
    raw.advance_apply_to(2);

    // A proposal, the same way.
    raw.propose(b"context".to_vec(), b"data".to_vec()).unwrap();
    let ready = raw.ready();
    let [proposed] = &ready.entries()[..] else {
        panic!("one entry, got {:?}", ready.entries())
    };
    assert_eq!(
        (proposed.index, &proposed.data[..], &proposed.context[..]),
        (3, &b"data"[..], &b"context"[..])
    );
    assert_eq!(proposed.get_entry_type(), EntryType::EntryNormal);
    raw.mut_store().append(ready.entries());
    let number = ready.number();
    raw.advance_append_async(ready);
    raw.on_persist_ready(number);
    let mut ready = raw.ready();
    assert_eq!(
        ready.take_committed_entries(),
        vec![entry_with(2, 3, "data")].with_context(b"context")
    );
}

trait WithContext {
    fn with_context(self, context: &[u8]) -> Self;
}

impl WithContext for Vec<raft::eraftpb::Entry> {
    fn with_context(mut self, context: &[u8]) -> Self {
        self.iter_mut().for_each(|entry| entry.context = context.to_vec().into());
        self
    }
}

/// A restarted node gives out again what was committed and not yet applied, and nothing that was applied.
#[test]
fn raw_node_restart() {
    for applied in 1..=3 {
        let mut disk = Disk::with_terms(&[1, 2], &[1, 1, 1]);
        disk.seen.hard_state.commit = 3;
        disk.seen.applied_index = applied;
        let mut raw = Node::boot(1, disk).raw;
        assert_eq!((raw.raft.state, raw.raft.term, raw.raft.raft_log.committed), (Follower, 1, 3));
        assert_eq!(raw.has_ready(), applied < 3);

        let mut ready = raw.ready();
        assert!(ready.hs().is_none() && ready.ss().is_none() && ready.entries().is_empty() && !ready.must_sync());
        let again: Vec<_> = ready.take_committed_entries().iter().map(|entry| entry.index).collect();
        assert_eq!(
            again,
            (applied + 1..=3).collect::<Vec<_>>(),
            "applied {applied}, committed 3, last 4"
        );
        raw.advance_append_async(ready);
    }
}

/// The same when the log begins with a snapshot.
#[test]
fn raw_node_restart_from_snapshot() {
    let mut disk = Disk::default();
    let mut hard_state = raft::eraftpb::HardState {
        term: 2,
        commit: 8,
        ..Default::default()
    };
    hard_state.vote = 2;
    disk.seen = Log {
        hard_state,
        start: (7, 2),
        entries: vec![entry_with(2, 8, "x"), entry_with(2, 9, "y")],
        applied_index: 7,
        ..Log::default()
    };
    disk.seen.conf_state.set_voters(vec![1, 2]);
    disk.sync();

    let mut node = Node::boot(1, disk);
    assert!(node.pump().is_empty());
    assert_eq!(node.applied(), ["x"], "8 was committed, 9 was not");
    assert_eq!((node.raw.raft.raft_log.first_index(), node.raw.raft.vote), (8, 2));
}

/// Numbers of `Ready` grow by one, and telling that one is durable tells it for all before.
#[test]
fn persisted_numbers_are_cumulative() {
    let mut leader = Node::leader(1, 3);
    leader.slow_disk = true;
    let durable = leader.progress(1).matched;
    let mut numbers = Vec::new();
    for data in ["a", "b", "c"] {
        leader.raw.propose(Vec::new(), data.into()).unwrap();
        let ready = leader.raw.ready();
        numbers.push(ready.number());
        leader.raw.mut_store().append(ready.entries());
        leader.raw.advance_append_async(ready);
    }
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    leader.raw.on_persist_ready(numbers[1]);
    assert_eq!(leader.progress(1).matched, durable + 2);
    leader.raw.on_persist_ready(numbers[2]);
    assert_eq!(leader.progress(1).matched, durable + 3);
}
