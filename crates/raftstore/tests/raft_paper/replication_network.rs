//! Sections 5.3 and 5.4: logs of several nodes growing equal, through cuts, losses and elections.

use raft::StateRole::{Follower, Leader};
use raft::eraftpb::MessageType::{MsgAppend, MsgAppendResponse, MsgHeartbeat};

use crate::harness::{FIRST, Network, append, entry_with};

/// Section 5.3: all nodes apply the same entries in the same order, also across a change of leaders.
#[test]
fn log_replication() {
    let mut network = Network::led(3);
    network.propose(1, "a");
    network.beat();
    network.must_have_applied(&["a"]);

    network.run_out_leases();
    network.elect(2);
    network.propose(2, "b");
    network.propose(2, "c");
    network.beat();
    network.must_have_applied(&["a", "b", "c"]);
    assert_eq!(
        network[1].log().terms(),
        [2, 2, 3, 3, 3],
        "each leader begins with an empty entry"
    );
}

/// The same with a fifth of all messages lost, whichever they are: every accepted proposal of a lasting leader arrives
/// everywhere, in order.
#[test]
fn log_replication_over_lossy_network() {
    for seed in 0..20 {
        let mut network = Network::led(5);
        network.lose(0.2, seed);
        let mut proposed: Vec<String> = Vec::new();
        for n in 0..200 {
            network.tick();
            if let [leader] = network.leaders()[..] {
                let data = format!("{n} by {leader}");
                network.act(leader, |node| drop(node.raw.propose(Vec::new(), data.clone().into())));
                proposed.push(data);
            }
        }
        network.heal();
        network.ticks(100);
        network.must_have_equal_logs();
        let applied = network[1].applied();
        assert!(applied.len() > 100, "seed {seed}: only {} applied", applied.len());
        let mut wanted = proposed.iter();
        assert!(
            applied.iter().all(|data| wanted.any(|proposed| proposed == data)),
            "seed {seed}: order of proposals"
        );
        assert!(network.nodes().all(|node| node.applied() == applied), "seed {seed}");
    }
}

/// Section 5.4.1: what was acknowledged is there after every node has lost power, whoever leads then.
#[test]
fn committed_entries_survive_restart_of_all() {
    for next in 1..=3 {
        let mut network = Network::led(3);
        ["a", "b", "c"].into_iter().for_each(|data| network.propose(1, data));
        network.ids().into_iter().for_each(|id| network.restart(id));
        assert!(network.nodes().all(|node| node.role() == Follower && node.term() == 2));
        network.elect(next);
        network.propose(next, "d");
        network.beat();
        network.must_have_applied(&["a", "b", "c", "d"]);
    }
}

/// A group of one commits by its own disk alone.
#[test]
fn single_node_commit() {
    let mut network = Network::led(1);
    network.propose(1, "a");
    network.propose(1, "b");
    network.must_have_applied(&["a", "b"]);

    network.node(1).slow_disk = true;
    network.propose(1, "c");
    assert_eq!(network[1].applied(), ["a", "b"], "not before it is durable");
}

/// Section 5.4.2: entries that an earlier leader could not commit are committed with the first entry of the next.
#[test]
fn commit_without_new_term_entry() {
    let mut network = Network::led(5);
    let before = network[1].committed();
    [3, 4, 5].into_iter().for_each(|id| network.cut(1, id));
    network.propose(1, "a");
    network.propose(1, "b");
    assert_eq!(
        (network[1].committed(), network[2].committed()),
        (before, before),
        "two of five hold them"
    );

    network.heal();
    network.run_out_leases();
    network.elect(2);
    assert_eq!(
        network[2].committed(),
        before + 3,
        "both, and the empty entry of the new term"
    );
    network.beat();
    network.must_have_applied(&["a", "b"]);
}

/// Section 5.3: a follower that missed entries gets them, and their commit, after a heartbeat.
#[test]
fn commit_with_heartbeat() {
    let mut network = Network::led(3);
    network.isolate(3);
    network.propose(1, "a");
    network.propose(1, "b");
    assert_eq!((network[1].applied().len(), network[3].applied().len()), (2, 0));
    network.heal();
    network.beat();
    network.must_have_applied(&["a", "b"]);
}

/// Heartbeats carry a commit index no greater than what this follower is known to hold, so that none commits an entry it
/// may have in another version.
#[test]
fn heartbeat_update_commit() {
    for missed in 1..=5 {
        let mut network = Network::led(3);
        network.isolate(3);
        (0..missed).for_each(|_| network.propose(1, "x"));
        let (committed, matched) = (network[1].committed(), network[1].progress(3).matched);
        assert_eq!(committed, matched + missed);

        network.heal();
        network.ignore(MsgAppend);
        network.take_delivered();
        network.beat();
        let beats = network.take_delivered();
        let told = |to| {
            beats
                .iter()
                .find(|m| m.get_msg_type() == MsgHeartbeat && m.to == to)
                .expect("a heartbeat")
                .commit
        };
        assert_eq!((told(2), told(3)), (committed, matched));
        assert_eq!(network[3].committed(), matched);

        network.heal();
        network.beat();
        assert_eq!(network[3].committed(), committed);
    }
}

/// Section 5.1: an append of a past leader is ignored; the answer tells the later term.
#[test]
fn old_messages() {
    let mut network = Network::led(3);
    for id in [2, 1] {
        network.run_out_leases();
        network.elect(id);
    }
    assert_eq!(network[1].term(), 4);
    let before = network[1].log().entries.clone();
    let stale = append(2, 1, 3, FIRST, vec![entry_with(3, 2, "stale")], 2);
    let answers = network.node(1).step(stale);
    assert_eq!((answers[0].get_msg_type(), answers[0].term), (MsgAppendResponse, 4));
    assert_eq!((network[1].role(), &network[1].log().entries), (Leader, &before));

    network.propose(1, "x");
    network.beat();
    network.must_have_applied(&["x"]);
}

/// Section 5.3: a proposal is carried out if the leader reaches a majority, and otherwise waits.
#[test]
fn proposal() {
    let cases: [(u64, &[u64], bool); 6] = [
        (3, &[], true),
        (3, &[2], true),
        (3, &[2, 3], false),
        (4, &[2, 3], false),
        (5, &[2, 3], true),
        (5, &[2, 3, 4], false),
    ];
    for (size, isolated, wanted) in cases {
        let mut network = Network::led(size);
        isolated.iter().for_each(|&id| network.isolate(id));
        network.propose(1, "x");
        assert_eq!(network[1].applied() == ["x"], wanted, "{size} nodes without {isolated:?}");
        network.heal();
        network.ticks(4);
        network.must_have_applied(&["x"]);
    }
}

/// Section 5.1: followers hand proposals to the leader they know; without a leader, and as candidate, they are refused. (Our
/// peers never propose at a follower: a forwarded proposal could be appended without anyone to answer the client.)
#[test]
fn proposal_at_follower() {
    let mut network = Network::new(3);
    assert_eq!(network.node(2).propose("x"), Err(raft::Error::ProposalDropped));
    network.elect(1);
    assert_eq!(network[2].role(), Follower);
    network.propose(2, "by 2");
    network.beat();
    network.must_have_applied(&["by 2"]);
}
