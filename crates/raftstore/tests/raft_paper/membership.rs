//! Section 6 and thesis 4: changing the members of a running group.

use raft::StateRole::Leader;
use raft::eraftpb::ConfChangeTransition::{Auto, Explicit, Implicit};
use raft::eraftpb::ConfChangeType::{AddLearnerNode, AddNode, RemoveNode};
use raft::eraftpb::{ConfChange, ConfChangeV2, EntryType};

use crate::harness::{Disk, Network, Node, append_answer, change, change_now, conf_change};

fn propose_change(network: &mut Network, leader: u64, change: ConfChangeV2) {
    network.act(leader, |node| {
        node.raw
            .propose_conf_change(Vec::new(), change)
            .expect("the leader takes changes")
    });
    network.beat();
}

fn voters(node: &Node) -> Vec<u64> {
    let mut voters = node.members().voters.clone();
    voters.sort_unstable();
    voters
}

/// Thesis 4.1: a member is added by an entry of the log; it starts from nothing and is brought up by a snapshot.
#[test]
fn add_node() {
    let mut network = Network::led(1);
    network.propose(1, "before");
    network.start_empty(2);
    propose_change(&mut network, 1, change_now(AddNode, 2));
    network.beat();
    network.propose(1, "after");
    network.beat();
    assert_eq!((voters(&network[1]), voters(&network[2])), (vec![1, 2], vec![1, 2]));
    assert_eq!(network[2].applied(), ["before", "after"]);
    assert!(network[2].log().start.0 > 1, "it holds no log from before its snapshot");
    assert!(network[2].raw.raft.promotable());
}

/// Thesis 4.1: and removed by one. What is left decides alone; the last voter cannot be removed.
#[test]
fn remove_node() {
    let mut network = Network::led(2);
    propose_change(&mut network, 1, change_now(RemoveNode, 2));
    assert_eq!(voters(&network[1]), [1]);
    network.isolate(2);
    network.propose(1, "alone");
    assert_eq!(network[1].applied(), ["alone"]);

    let last = network.node(1).raw.apply_conf_change(&change_now(RemoveNode, 1));
    assert!(last.is_err(), "{last:?}");
    assert_eq!(
        network[1].raw.raft.prs().conf().to_conf_state().voters,
        [1],
        "and nothing has changed"
    );
}

/// Thesis 4.1: a removal makes the quorum smaller, so entries that waited for the removed member are committed by it.
#[test]
fn commit_after_remove_node() {
    let mut leader = Node::leader(1, 2);
    leader.propose_change(change_now(RemoveNode, 2)).unwrap();
    let removal = leader.log().last_index();
    leader.propose("waiting").unwrap();
    assert!(leader.applied().is_empty());

    leader.step(append_answer(2, 1, 2, removal));
    assert_eq!(voters(&leader), [1]);
    assert_eq!(leader.applied(), ["waiting"]);
}

/// The path of a change through `RawNode`: proposed, committed as an entry of its own kind, in force when applied.
#[test]
fn raw_node_propose_and_conf_change() {
    let single: ConfChange = {
        let mut change = ConfChange {
            node_id: 2,
            ..ConfChange::default()
        };
        change.set_change_type(AddNode);
        change
    };
    let mut node = Node::leader(1, 1);
    node.raw.propose_conf_change(b"who asked".to_vec(), single).unwrap();
    let entry = node.raw.raft.raft_log.unstable_entries()[0].clone();
    assert_eq!(
        (entry.get_entry_type(), &entry.context[..]),
        (EntryType::EntryConfChange, &b"who asked"[..])
    );
    assert_eq!(voters(&node), [1], "proposed is not in force");
    node.pump();
    assert_eq!(voters(&node), [1, 2], "applied is");

    // (change, members while joint, if it is; members in the end), from voters 1, 2, 3.
    type Members = (&'static [u64], &'static [u64], &'static [u64]); // voters, outgoing voters, learners
    let cases: [(ConfChangeV2, Option<Members>, Members); 6] = [
        (change_now(AddNode, 4), None, (&[1, 2, 3, 4], &[], &[])),
        (change_now(AddLearnerNode, 4), None, (&[1, 2, 3], &[], &[4])),
        (change_now(AddLearnerNode, 3), None, (&[1, 2], &[], &[3])),
        (
            conf_change(Implicit, vec![change(AddNode, 4)]),
            Some((&[1, 2, 3, 4], &[1, 2, 3], &[])),
            (&[1, 2, 3, 4], &[], &[]),
        ),
        (
            conf_change(Auto, vec![change(AddNode, 4), change(RemoveNode, 3)]),
            Some((&[1, 2, 4], &[1, 2, 3], &[])),
            (&[1, 2, 4], &[], &[]),
        ),
        (
            conf_change(Auto, vec![change(AddNode, 4), change(AddLearnerNode, 3)]),
            Some((&[1, 2, 4], &[1, 2, 3], &[])), // 3 votes on until the end, then learns
            (&[1, 2, 4], &[], &[3]),
        ),
    ];
    for (proposed, joint, last) in cases {
        let mut node = Node::leader(1, 3);
        node.propose_change(proposed.clone()).unwrap();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let peers: Vec<_> = [2, 3, 4]
                .into_iter()
                .filter(|&peer| node.raw.raft.prs().get(peer).is_some())
                .collect();
            node.acknowledge(&peers);
            let members = node.members();
            let sorted = |ids: &[u64]| {
                let mut ids = ids.to_vec();
                ids.sort_unstable();
                ids
            };
            seen.push((
                sorted(&members.voters),
                sorted(&members.voters_outgoing),
                sorted(&members.learners),
            ));
        }
        seen.dedup();
        let wanted: Vec<_> = joint
            .into_iter()
            .chain([last])
            .map(|(v, o, l)| (v.to_vec(), o.to_vec(), l.to_vec()))
            .collect();
        assert_eq!(seen, wanted, "{proposed:?}");
    }
}

/// Thesis 4.1: one change at a time. A second one while the first is not applied becomes an empty entry; adding a member
/// that is there changes nothing.
#[test]
fn raw_node_propose_add_duplicate_node() {
    let mut node = Node::leader(1, 1);
    let add = change_now(AddNode, 2);
    node.raw.propose_conf_change(Vec::new(), add.clone()).unwrap();
    node.raw.propose_conf_change(Vec::new(), add.clone()).unwrap();
    let kinds: Vec<_> = node
        .raw
        .raft
        .raft_log
        .unstable_entries()
        .iter()
        .map(|entry| entry.get_entry_type())
        .collect();
    assert_eq!(kinds, [EntryType::EntryConfChangeV2, EntryType::EntryNormal]);
    node.pump();
    node.acknowledge_all();
    assert_eq!(voters(&node), [1, 2]);

    node.propose_change(add).unwrap();
    node.acknowledge_all();
    assert_eq!((voters(&node), node.committed()), (vec![1, 2], node.log().last_index()));

    node.propose_change(change_now(AddNode, 3)).unwrap();
    node.acknowledge_all();
    assert_eq!(voters(&node), [1, 2, 3], "the way is free for the next change");
}

/// Section 6: while joint, a majority of the old and a majority of the new members must agree, and so for votes.
#[test]
fn joint_change_needs_both_majorities() {
    let replace_two = vec![
        change(AddNode, 4),
        change(AddNode, 5),
        change(RemoveNode, 2),
        change(RemoveNode, 3),
    ];
    for (acknowledged, wanted) in [
        (&[2][..], false),
        (&[4], false),
        (&[4, 5], false),
        (&[2, 3], false),
        (&[2, 4], true),
    ] {
        let mut leader = Node::leader(1, 3);
        leader.propose_change(conf_change(Explicit, replace_two.clone())).unwrap();
        leader.acknowledge_all();
        assert_eq!(leader.members().voters_outgoing.len(), 3, "joint, and so until told to leave");

        leader.propose("x").unwrap();
        leader.acknowledge(acknowledged);
        assert_eq!(leader.applied() == ["x"], wanted, "acknowledged by {acknowledged:?}");
    }
}

/// Thesis 4.2.1: a learner is sent the log but neither counts towards a majority nor campaigns.
#[test]
fn learner_neither_counts_nor_campaigns() {
    let mut network = Network::led(2);
    network.start_empty(3);
    propose_change(&mut network, 1, change_now(AddLearnerNode, 3));
    network.beat();
    network.isolate(2);
    network.propose(1, "x");
    assert!(network[1].applied().is_empty(), "two of two voters are needed");
    assert_eq!(
        network[1].progress(3).matched,
        network[1].log().last_index(),
        "though the learner has it"
    );
    assert!(!network[3].raw.raft.promotable());
    assert!(network.node(3).ticks(1000).is_empty());

    network.heal();
    network.beat();
    propose_change(&mut network, 1, change_now(AddNode, 3));
    assert!(network[3].raw.raft.promotable(), "promoted");
}

/// Section 6: a removed member that does not know it cannot disturb the others.
#[test]
fn removed_node_does_not_disturb() {
    let mut network = Network::led(4);
    network.isolate(4);
    propose_change(&mut network, 1, change_now(RemoveNode, 4));
    network.heal();
    network.ticks(200);
    assert_eq!(network.leaders(), [1]);
    assert!((1..=3).all(|id| network[id].term() == 2 && voters(&network[id]) == [1, 2, 3]));
}

/// A leader that removes itself goes on until the others have the entry (thesis 4.2.2) and then takes no more proposals; the
/// crate leaves it to its owner to stop it.
#[test]
fn leader_removes_itself() {
    let mut network = Network::led(3);
    propose_change(&mut network, 1, change_now(RemoveNode, 1));
    assert_eq!(network[1].role(), Leader);
    assert_eq!(network.node(1).propose("x"), Err(raft::Error::ProposalDropped));
    assert_eq!(voters(&network[2]), [2, 3]);

    network.isolate(1);
    network.run_out_leases();
    network.elect(2);
}

/// A node cannot campaign over a change that is committed and not yet applied: it does not know who votes.
#[test]
fn no_campaign_over_unapplied_change() {
    let mut disk = Disk::with_terms(&[1, 2, 3], &[1]);
    disk.seen.entries[0].set_entry_type(EntryType::EntryConfChangeV2);
    disk.seen.hard_state.commit = 2;
    let mut node = Node::boot(1, disk);
    node.raw.campaign().unwrap();
    assert_eq!(node.role(), raft::StateRole::Follower);
}
