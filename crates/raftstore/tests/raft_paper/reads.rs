//! Section 8 and thesis 6.4: linearizable reads without a log entry.

use raft::ReadOnlyOption;

use crate::harness::{HEARTBEAT_TICKS, Network, Node};

/// Thesis 6.4, step 1: before a leader has committed an entry of its own term it does not know what is committed, and drops
/// the request. Our peers must ask again.
#[test]
fn read_index_is_dropped_before_first_commit_of_term() {
    let mut leader = Node::new(1, 3);
    leader.win();
    leader.raw.read_index(b"early".to_vec());
    assert!(leader.pump().is_empty() && leader.reads.is_empty());

    leader.acknowledge_all();
    leader.raw.read_index(b"now".to_vec());
    assert_eq!(leader.pump().len(), 2, "it asks both followers whether it still leads");
}

/// Thesis 6.4, steps 2 and 3: the commit index of the time of asking, once a quorum has answered a heartbeat sent after it.
#[test]
fn read_index_needs_a_quorum() {
    let mut network = Network::led(3);
    network.propose(1, "x");
    let index = network[1].committed();
    network.isolate(1);
    network.act(1, |node| node.raw.read_index(b"r".to_vec()));
    assert!(network[1].reads.is_empty(), "alone it cannot know that it still leads");

    network.heal();
    network.ticks(HEARTBEAT_TICKS);
    let [read] = &network[1].reads[..] else {
        panic!("one read, got {:?}", network[1].reads)
    };
    assert_eq!((read.index, &read.request_ctx[..]), (index, &b"r"[..]));
}

/// A leader that was replaced without knowing must not serve reads.
#[test]
fn read_index_fails_at_a_deposed_leader() {
    let mut network = Network::led(3);
    network.isolate(1);
    network.run_out_leases();
    network.elect(2);
    network.propose(2, "newer");
    network.act(1, |node| node.raw.read_index(b"r".to_vec()));
    network.heal();
    network.beat();
    network.beat();
    assert_eq!(network.leaders(), [2]);
    assert!(network[1].reads.is_empty(), "the request is gone with the leadership");
}

/// Thesis 6.4: followers may ask too; they serve the read once they have applied that far.
#[test]
fn read_index_at_follower() {
    let mut network = Network::led(3);
    network.propose(1, "x");
    network.act(3, |node| node.raw.read_index(b"r".to_vec()));
    let [read] = &network[3].reads[..] else {
        panic!("one read, got {:?}", network[3].reads)
    };
    assert_eq!(read.index, network[1].committed());
}

/// We keep leases with clocks of our own (thesis 6.4.1), so the crate's must stay in its safe form.
#[test]
fn read_index_is_of_the_safe_kind() {
    assert_eq!(Node::new(1, 3).raw.raft.read_only.option, ReadOnlyOption::Safe);
}
