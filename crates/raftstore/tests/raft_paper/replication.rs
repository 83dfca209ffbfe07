//! Sections 5.3 and 5.4.2: what a leader sends, when it commits, as one leader sees it.

use raft::ProgressState::{Probe, Replicate};
use raft::StateRole::Leader;
use raft::eraftpb::MessageType::MsgAppend;

use crate::harness::{Disk, FIRST, Node, append_answer, kinds};

/// Section 5.3: a proposal becomes an entry in the leader's log and goes to every follower, with the entry before it.
#[test]
fn leader_start_replication() {
    let mut leader = Node::leader(1, 3);
    let last = leader.log().last_index();
    let sent = leader.propose("x").unwrap();

    assert_eq!(kinds(&sent), [(MsgAppend, 2), (MsgAppend, 3)]);
    for append in &sent {
        assert_eq!((append.index, append.log_term, append.commit), (last, 2, last));
        let [entry] = append.entries.as_slice() else {
            panic!("one entry, got {:?}", append.entries)
        };
        assert_eq!((entry.term, entry.index, &entry.data[..]), (2, last + 1, &b"x"[..]));
    }
    assert_eq!((leader.log().last_index(), leader.committed()), (last + 1, last));
}

/// Section 5.3: once a majority holds the entry it is committed and applied, and the next message tells the followers.
#[test]
fn leader_commit_entry() {
    let mut leader = Node::leader(1, 3);
    leader.propose("x").unwrap();
    let index = leader.log().last_index();
    let sent = leader.acknowledge_all();

    assert_eq!(leader.committed(), index);
    assert_eq!(leader.applied(), ["x"]);
    let mut told: Vec<_> = sent.iter().map(|append| (append.to, append.commit)).collect();
    told.sort_unstable();
    assert_eq!(told, [(2, index), (3, index)]);
}

/// Section 5.3: committed is what a majority holds, the leader counted.
#[test]
fn leader_acknowledge_commit() {
    let cases: [(u64, &[u64], bool); 9] = [
        (1, &[], true),
        (3, &[], false),
        (3, &[2], true),
        (3, &[2, 3], true),
        (5, &[], false),
        (5, &[2], false),
        (5, &[2, 3], true),
        (5, &[2, 3, 4], true),
        (5, &[2, 3, 4, 5], true),
    ];
    for (size, acknowledged, wanted) in cases {
        let mut leader = Node::leader(1, size);
        leader.propose("x").unwrap();
        let index = leader.log().last_index();
        leader.acknowledge(acknowledged);
        assert_eq!(
            leader.committed() == index,
            wanted,
            "size {size}, acknowledged by {acknowledged:?}"
        );
    }
}

/// Section 5.3: committing an entry commits all before it, also those of earlier leaders, and applies them in order.
#[test]
fn leader_commit_preceding_entries() {
    for earlier in [&[][..], &[2], &[1, 2], &[1, 1]] {
        let mut leader = Node::boot(1, Disk::with_terms(&[1, 2, 3], earlier).in_term(2, 0));
        for (entry, data) in leader.raw.mut_store().seen.entries.iter_mut().zip(["a", "b"]) {
            entry.data = data.into();
        }
        leader.win();
        leader.propose("x").unwrap();
        leader.acknowledge_all();

        assert_eq!(
            leader.log().terms(),
            [earlier, &[3, 3]].concat(),
            "its first entry is empty (section 8)"
        );
        assert_eq!(leader.committed(), leader.log().last_index());
        assert_eq!(leader.applied(), [&["a", "b"][..earlier.len()], &["x"]].concat());
    }
}

/// Section 5.4.2, figure 8: entries of earlier terms are never committed by counting replicas, only along with one of the
/// leader's own term.
#[test]
fn leader_only_commits_log_from_current_term() {
    for (held, committed) in [(2, FIRST.0), (3, FIRST.0), (4, 4)] {
        let mut leader = Node::boot(1, Disk::with_terms(&[1, 2, 3], &[1, 2]).in_term(2, 0));
        leader.win();
        assert_eq!(leader.log().terms(), [1, 2, 3]);
        leader.step(append_answer(2, 1, 3, held));
        assert_eq!(leader.committed(), committed, "a majority holds everything up to {held}");
    }
}

/// A leader's progress about itself: always replicating, and matched as far as its own disk is, no further.
#[test]
fn progress_leader() {
    let mut leader = Node::leader(1, 3);
    leader.slow_disk = true;
    let durable = leader.log().last_index();
    for n in 1..=5 {
        leader.propose("x").unwrap();
        assert_eq!((leader.progress(1).state, leader.progress(1).matched), (Replicate, durable));
        assert_eq!(leader.log().last_index(), durable + n);
    }
    leader.sync();
    assert_eq!(
        (leader.progress(1).matched, leader.progress(1).next_idx),
        (durable + 5, durable + 6)
    );
}

/// Section 5.3: while a follower's log is known to match, the next index moves on as entries are sent, without waiting for
/// answers; while it is being probed, one message at a time goes out and the index stays.
#[test]
fn leader_increase_next() {
    let mut leader = Node::leader(1, 3);
    let last = leader.log().last_index();
    assert_eq!((leader.progress(2).state, leader.progress(2).next_idx), (Replicate, last + 1));
    leader.raw.report_unreachable(3);
    assert_eq!((leader.progress(3).state, leader.progress(3).next_idx), (Probe, last + 1));

    let mut sent: Vec<_> = (0..3)
        .flat_map(|_| leader.propose("x").unwrap())
        .map(|append| append.to)
        .collect();
    sent.sort_unstable();
    assert_eq!(sent, [2, 2, 2, 3]);
    assert_eq!(leader.progress(2).next_idx, last + 4);
    assert_eq!((leader.progress(3).next_idx, leader.progress(3).paused), (last + 1, true));
}

/// Figure 3, Leader Append-Only: nothing a follower answers makes a leader change its own log.
#[test]
fn leader_never_overwrites_its_log() {
    let mut leader = Node::leader(1, 3);
    leader.propose("x").unwrap();
    let before = leader.log().entries.clone();
    let mut refusal = append_answer(2, 1, 2, leader.log().last_index() - 1);
    (refusal.reject, refusal.reject_hint, refusal.log_term) = (true, 1, 1);
    leader.step(refusal);
    leader.acknowledge_all();
    assert_eq!((leader.role(), &leader.log().entries), (Leader, &before));
}
