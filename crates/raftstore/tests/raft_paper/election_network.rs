//! Section 5.2 and thesis 9.6: elections among several nodes, with some of them out of reach.

use raft::StateRole::{self, Candidate, Follower, Leader, PreCandidate};
use raft::eraftpb::MessageType::{MsgAppendResponse, MsgRequestVote};

use crate::harness::{Disk, Network, Node, heartbeat};

/// Section 5.2: whoever reaches a majority leads; whoever does not goes no further than the pre-vote, and its term stays.
#[test]
fn leader_election() {
    let cases: [(u64, &[u64], StateRole, u64); 7] = [
        (3, &[], Leader, 2),
        (3, &[2], Leader, 2),
        (3, &[2, 3], PreCandidate, 1),
        (4, &[2], Leader, 2),
        (4, &[2, 3], PreCandidate, 1),
        (5, &[2, 3], Leader, 2),
        (5, &[2, 3, 4], PreCandidate, 1),
    ];
    for (size, isolated, role, term) in cases {
        let mut network = Network::new(size);
        isolated.iter().for_each(|&id| network.isolate(id));
        network.campaign(1);
        assert_eq!(
            (network[1].role(), network[1].term()),
            (role, term),
            "{size} nodes without {isolated:?}"
        );
        let followers = network
            .nodes()
            .filter(|node| node.leader_id() == 1 && node.role() == Follower)
            .count();
        let reached = size as usize - 1 - isolated.len();
        assert_eq!(
            followers,
            if role == Leader { reached } else { 0 },
            "{size} nodes without {isolated:?}"
        );
    }
}

/// Section 5.2: any member can be elected in turn; each election is one term.
#[test]
fn leader_cycle() {
    let mut network = Network::new(3);
    for (id, term) in [1, 2, 3, 1].into_iter().zip(2..) {
        network.run_out_leases();
        network.elect(id);
        for node in network.nodes() {
            let role = if node.id() == id { Leader } else { Follower };
            assert_eq!(
                (node.role(), node.term(), node.leader_id()),
                (role, term, id),
                "node {}",
                node.id()
            );
        }
    }
}

/// A group of one needs nobody else's vote.
#[test]
fn single_node_candidate() {
    let mut network = Network::new(1);
    network.campaign(1);
    assert_eq!((network[1].role(), network[1].term()), (Leader, 2));
}

/// Section 5.2: with the votes split nobody wins; the first to lose patience wins the next term.
#[test]
fn split_vote() {
    let mut network = Network::led(3);
    network.isolate(1);
    network.run_out_leases();
    let mut asked = network.node(2).campaign();
    asked.extend(network.node(3).campaign());
    network.deliver(asked);
    for id in [2, 3] {
        assert_eq!(
            (network[id].role(), network[id].term(), network[id].raw.raft.vote),
            (Candidate, 3, id)
        );
    }

    let patience = network[2].election_ticks;
    network.ticks(patience);
    assert_eq!((network[2].role(), network[2].term()), (Leader, 4));
    assert_eq!((network[3].role(), network[3].leader_id()), (Follower, 2));
}

/// Section 5.2: why timeouts are drawn anew for each election: with equal ones that stay, votes may be split for ever.
#[test]
fn equal_timeouts_split_votes_until_redrawn() {
    let mut network = Network::led(3);
    network.isolate(1);
    for id in [2, 3] {
        network.node(id).election_ticks = 15;
    }
    network.ticks(300);
    assert!(
        [2, 3]
            .iter()
            .all(|&id| network[id].role() != Leader && network[id].term() > 10)
    );
    network.node(3).election_ticks = 16;
    network.ticks(30);
    assert_eq!((network[2].role(), network[3].role()), (Leader, Follower));
}

/// Section 6 and thesis 9.6: a node that was cut off does not disturb the group when it comes back.
#[test]
fn disruptive_follower() {
    let mut network = Network::led(3);
    network.isolate(3);
    for _ in 0..100 {
        network.tick();
    }
    assert_eq!(
        (network[3].role(), network[3].term()),
        (PreCandidate, 2),
        "pre-votes do not raise the term"
    );
    network.heal();
    network.ticks(30);
    assert_eq!(network.leaders(), [1]);
    assert_eq!(
        (network[3].role(), network[3].term(), network[3].leader_id()),
        (Follower, 2, 1)
    );
}

/// Thesis 9.6: a node whose term did run ahead (its pre-vote passed, its votes were lost) could never follow again, so it
/// tells the leader of its term, and one election later all agree.
#[test]
fn node_with_later_term_is_freed() {
    let mut network = Network::led(3);
    network.isolate(1);
    network.run_out_leases();
    network.ignore(MsgRequestVote);
    network.campaign(3);
    assert_eq!((network[3].role(), network[3].term()), (Candidate, 3));

    let answer = network.node(3).step(heartbeat(1, 3, 2, 1));
    assert_eq!((answer[0].get_msg_type(), answer[0].term), (MsgAppendResponse, 3));
    network.heal();
    network.ticks(100);
    let [leader] = network.leaders()[..] else {
        panic!("leaders {:?}", network.leaders())
    };
    assert!(
        network
            .nodes()
            .all(|node| node.leader_id() == leader && node.term() == network[leader].term())
    );
    network.propose(leader, "all well");
    network.beat();
    network.must_have_applied(&["all well"]);
}

/// Section 6: servers that hear a leader ignore candidates, so a member cut off from the leader alone cannot depose it.
#[test]
fn candidate_is_ignored_while_leader_is_heard() {
    let mut network = Network::led(3);
    network.cut(1, 3);
    network.ticks(100);
    assert_eq!(network.leaders(), [1]);
    assert!(network.nodes().all(|node| node.term() == 2));
}

/// Thesis 6.2: a leader that cannot reach a quorum for an election timeout steps down (check-quorum).
#[test]
fn leader_without_quorum_steps_down() {
    let mut network = Network::led(5);
    network.isolate(1);
    network.isolate(2);
    let patience = 2 * network[1].raw.raft.election_timeout();
    for _ in 0..patience {
        network.node(1).tick();
    }
    assert_ne!(network[1].role(), Leader);
    assert_eq!(network[1].leader_id(), 0);
}

/// Sections 5.2 and 5.4.1: two candidates of one group; the one whose log is behind gets nowhere, and raises no term.
#[test]
fn dueling_candidates() {
    let mut network = Network::new(3);
    network.cut(1, 3);
    network.elect(1);
    network.campaign(3);
    assert_eq!(
        (network[3].role(), network[3].term()),
        (Follower, 2),
        "node 2 has voted in term 2, and tells so"
    );

    network.campaign(3);
    assert_eq!(
        (network[3].role(), network[3].term()),
        (PreCandidate, 2),
        "node 2 hears its leader and does not answer"
    );

    network.run_out_leases();
    network.take_delivered();
    network.campaign(3);
    let refusal = network
        .take_delivered()
        .into_iter()
        .find(|message| message.to == 3)
        .expect("node 2 answers now");
    assert!(refusal.reject, "the log of node 3 is behind");
    assert_eq!((network.leaders(), network[2].term(), network[3].term()), (vec![1], 2, 2));

    network.heal();
    network.propose(1, "x");
    network.beat();
    network.must_have_applied(&["x"]);
}

/// Section 5.2: a candidate that was alone concedes to the leader chosen without it.
#[test]
fn candidate_concede() {
    let mut network = Network::new(3);
    network.isolate(1);
    network.campaign(1);
    network.elect(3);
    network.propose(3, "x");
    assert_eq!(network[1].role(), PreCandidate);

    network.heal();
    network.beat();
    assert_eq!(
        (network[1].role(), network[1].term(), network[1].leader_id()),
        (Follower, 2, 3)
    );
    network.beat();
    network.must_have_applied(&["x"]);
}

fn pre_candidate() -> Node {
    let mut node = Node::new(1, 3);
    node.campaign();
    assert_eq!(node.role(), PreCandidate);
    node
}

/// Section 5.1: every role steps down at a larger term, and knows the leader only from a leader.
#[test]
fn all_server_stepdown() {
    let roles: [fn() -> Node; 4] = [
        || Node::new(1, 3),
        pre_candidate,
        || Node::candidate(1, 3),
        || Node::leader(1, 3),
    ];
    for node in roles {
        let last = (9, 2);
        let request = crate::harness::vote_request(MsgRequestVote, 2, 1, 5, last);
        let transfer = raft::eraftpb::Message {
            context: raft::CAMPAIGN_TRANSFER.to_vec().into(),
            ..request
        };
        let append = crate::harness::append(2, 1, 5, crate::harness::FIRST, vec![], 1);
        for (message, leader) in [(transfer, 0), (append, 2)] {
            let mut node = node();
            let before = node.log().terms();
            node.step(message);
            assert_eq!((node.role(), node.term(), node.leader_id()), (Follower, 5, leader));
            assert_eq!(node.log().terms(), before, "stepping down loses no entry");
        }
    }
}

/// Section 5.4.1: a later last term beats a longer log, and the winner's log overwrites what was never committed.
#[test]
fn leader_election_overwrite_newer_logs() {
    let all = [1, 2, 3, 4, 5];
    let mut network = Network::of([
        Node::boot(1, Disk::with_terms(&all, &[1])),              // led term 1
        Node::boot(2, Disk::with_terms(&all, &[1])),              // got its entry
        Node::boot(3, Disk::with_terms(&all, &[2])),              // won term 2, told nobody its entry
        Node::boot(4, Disk::with_terms(&all, &[]).in_term(2, 3)), // voted for 3
        Node::boot(5, Disk::with_terms(&all, &[]).in_term(2, 3)),
    ]);
    network.campaign(1);
    assert_eq!(
        (network[1].role(), network[1].term()),
        (Follower, 2),
        "it learns of term 2 and loses"
    );
    network.elect(1);
    assert_eq!(network[1].term(), 3);
    assert!(
        network.nodes().all(|node| node.log().terms() == [1, 3]),
        "the entry of term 2 is gone"
    );
}
