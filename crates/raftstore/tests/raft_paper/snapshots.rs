//! Section 7: snapshots in place of log that is gone.

use raft::ProgressState::{Probe, Replicate, Snapshot as Sending};
use raft::eraftpb::ConfChangeType::AddNode;
use raft::eraftpb::MessageType::{MsgAppend, MsgAppendResponse, MsgSnapshot};
use raft::eraftpb::{Message, Snapshot};
use raft::{SnapshotStatus, StateRole};

use crate::harness::{Disk, FIRST, Network, Node, append_answer, change_now, kinds, message};

/// A snapshot up to `(index, term)` of a group of `voters` that has applied `lines`.
fn snapshot((index, term): (u64, u64), voters: &[u64], lines: &[&str]) -> Snapshot {
    let mut snapshot = Snapshot {
        data: lines.join("\n").into(),
        ..Snapshot::default()
    };
    let meta = snapshot.mut_metadata();
    (meta.index, meta.term) = (index, term);
    meta.mut_conf_state().set_voters(voters.to_vec());
    snapshot
}

fn snapshot_message(from: u64, to: u64, term: u64, snapshot: Snapshot) -> Message {
    let mut message = message(MsgSnapshot, from, to, term);
    message.set_snapshot(snapshot);
    message
}

/// A leader of nodes 1 and 2 which has forgotten its log, and knows node 2 only up to the start of the group.
fn leader_with_forgotten_log() -> Node {
    let mut leader = Node::leader(1, 2);
    for data in ["a", "b", "c"] {
        leader.propose(data).unwrap();
        leader.acknowledge_all();
    }
    leader.raw.mut_store().compact();
    leader.step(raft::eraftpb::Message {
        reject: true,
        reject_hint: 0,
        ..append_answer(2, 1, 2, 0)
    });
    let progress = leader.raw.raft.mut_prs().get_mut(2).expect("a member");
    (progress.matched, progress.next_idx) = (0, 1);
    progress.become_probe();
    leader
}

/// Section 7, InstallSnapshot: index, term, members and state are the snapshot's; the log before it is gone.
#[test]
fn restore_from_snap_msg() {
    let mut node = Node::boot(2, Disk::default());
    let answers = node.step(snapshot_message(1, 2, 2, snapshot((11, 2), &[1, 2, 3], &["a", "b"])));

    assert_eq!(kinds(&answers), [(MsgAppendResponse, 1)]);
    assert_eq!((answers[0].index, answers[0].reject), (11, false));
    assert_eq!((node.term(), node.leader_id(), node.committed()), (2, 1, 11));
    assert_eq!((node.log().start, node.log().last_index()), ((11, 2), 11));
    assert_eq!(
        (node.applied(), &node.members().voters[..]),
        (&["a".to_owned(), "b".to_owned()][..], &[1, 2, 3][..])
    );
    assert!(node.raw.raft.promotable());
}

/// A restored node goes on from there, also after a restart, and does not campaign before its patience is over.
#[test]
fn restore_snapshot() {
    let mut node = Node::boot(2, Disk::default());
    node.step(snapshot_message(1, 2, 2, snapshot((11, 2), &[1, 2, 3], &["a"])));
    let mut node = node.crashed();
    assert_eq!(
        (node.committed(), node.log().start, node.applied()),
        (11, (11, 2), &["a".to_owned()][..])
    );
    assert!(node.ticks(node.election_ticks - 1).is_empty());
    node.tick();
    assert_eq!(node.role(), StateRole::PreCandidate);
}

/// A snapshot of what the node has committed already changes nothing; one of what it merely holds commits it.
#[test]
fn restore_ignore_snapshot() {
    let follower = |committed: u64| {
        let mut disk = Disk::with_terms(&[1, 2], &[1, 1, 1]);
        disk.seen.hard_state.commit = committed;
        disk.sync();
        let mut node = Node::boot(2, disk);
        node.pump();
        node
    };
    let mut old = follower(3);
    let answers = old.step(snapshot_message(1, 2, 1, snapshot((2, 1), &[1, 2], &["other"])));
    assert_eq!((old.committed(), answers[0].index), (3, 3), "the answer tells how far it is");
    assert!(old.applied().is_empty(), "nothing was installed");

    let mut behind = follower(2);
    behind.step(snapshot_message(1, 2, 1, snapshot((4, 1), &[1, 2], &["other"])));
    assert_eq!(
        (behind.committed(), behind.log().start, behind.log().terms()),
        (4, FIRST, vec![1, 1, 1])
    );
    assert!(behind.applied().is_empty(), "it had all these entries itself");
}

/// A node takes no snapshot of a group that it is no member of.
#[test]
fn restore_from_snapshot_without_me_is_refused() {
    let mut node = Node::boot(4, Disk::default());
    node.step(snapshot_message(1, 4, 2, snapshot((11, 2), &[1, 2, 3], &["a"])));
    assert_eq!((node.log().last_index(), node.applied().len()), (0, 0));
}

/// A node of an older configuration takes on the snapshot's, of which some members are its own.
#[test]
fn restore_from_snap_with_overlapping_peers_msg() {
    let mut node = Node::new(2, 3);
    node.step(snapshot_message(4, 2, 3, snapshot((11, 2), &[2, 3, 4, 5], &["a"])));
    assert_eq!(node.members().voters, [2, 3, 4, 5]);
    let mut known = node.raw.raft.prs().iter().map(|(id, _)| *id).collect::<Vec<_>>();
    known.sort_unstable();
    assert_eq!(known, [2, 3, 4, 5], "it would ask these for votes");
}

/// A leader asked for entries it has forgotten sends a snapshot, and then nothing more until it hears what became of it.
#[test]
fn provide_snap() {
    let mut leader = leader_with_forgotten_log();
    let sent = leader.propose("d").unwrap();
    assert_eq!(kinds(&sent), [(MsgSnapshot, 2)]);
    let meta = sent[0].get_snapshot().get_metadata();
    assert_eq!(
        (meta.index, meta.term, &meta.get_conf_state().voters[..]),
        (5, 2, &[1, 2][..])
    );
    assert_eq!((leader.progress(2).state, leader.progress(2).pending_snapshot), (Sending, 5));
    assert!(leader.propose("e").unwrap().is_empty());

    let sent = leader.step(append_answer(2, 1, 2, 5));
    assert_eq!(kinds(&sent), [(MsgAppend, 2)]);
    assert_eq!(sent[0].index, 5, "the log behind the snapshot");
    assert_ne!(leader.progress(2).state, Sending);
}

/// A snapshot that was lost is tried again after the next answer to a heartbeat, if its carrier tells; one that is not told
/// of keeps the follower waiting for ever.
#[test]
fn lost_snapshot_must_be_reported() {
    let mut leader = leader_with_forgotten_log();
    leader.propose("d").unwrap();
    let answer = || Message {
        commit: 1,
        ..message(raft::eraftpb::MessageType::MsgHeartbeatResponse, 2, 1, 2)
    };
    assert!(leader.step(answer()).is_empty(), "it believes that the snapshot is under way");

    leader.raw.report_snapshot(2, SnapshotStatus::Failure);
    assert_eq!(leader.progress(2).state, Probe);
    assert_eq!(kinds(&leader.step(answer())), [(MsgSnapshot, 2)]);
}

/// A follower that was away longer than the log reaches back is restored, and replicates as before.
#[test]
fn slow_node_restore() {
    let mut network = Network::led(3);
    network.isolate(3);
    let lines: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    lines.iter().for_each(|line| network.propose(1, line));
    network.node(1).raw.mut_store().compact();
    let compacted = network[1].log().start.0;

    network.heal();
    network.ticks(4);
    assert_eq!(network[3].log().start.0, compacted);
    assert_eq!(network[3].applied(), lines);
    network.propose(1, "after");
    network.beat();
    assert_eq!(network[1].progress(3).state, Replicate);
    assert_eq!(network[3].applied().last().map(String::as_str), Some("after"));
}

/// A snapshot is no vote and no entry: the power may go before it is durable, and the node is as it was.
#[test]
fn snapshot_is_answered_once_durable() {
    let mut node = Node::boot(2, Disk::default());
    node.slow_disk = true;
    assert!(
        node.step(snapshot_message(1, 2, 2, snapshot((11, 2), &[1, 2], &["a"])))
            .is_empty()
    );
    assert_eq!(node.crashed().log().last_index(), 0);
    assert_eq!(kinds(&node.sync()), [(MsgAppendResponse, 1)]);
    assert_eq!(node.crashed().applied(), ["a"]);
}

/// Many joiners at once, each by its own snapshot, while the group works.
#[test]
fn joiners_are_restored_while_others_write() {
    let mut network = Network::led(1);
    for id in 2..=5 {
        network.propose(1, &format!("before {id}"));
        network.node(1).raw.mut_store().compact();
        network.start_empty(id);
        network.act(1, |node| {
            node.raw
                .propose_conf_change(Vec::new(), change_now(AddNode, id))
                .expect("the leader takes changes")
        });
        network.propose(1, &format!("after {id}"));
        network.ticks(4);
    }
    let wanted: Vec<_> = (2..=5)
        .flat_map(|id| [format!("before {id}"), format!("after {id}")])
        .collect();
    assert!(
        network
            .nodes()
            .all(|node| node.applied() == wanted && node.members().voters.len() == 5)
    );
}
