//! Thesis 3.10: handing leadership over.

use raft::StateRole::{Follower, Leader};
use raft::eraftpb::ConfChangeType::RemoveNode;
use raft::eraftpb::MessageType::{MsgAppendResponse, MsgRequestVote, MsgTimeoutNow};

use crate::harness::{FIRST, HEARTBEAT_TICKS, Network, Node, append, change_now, kinds, message};

fn must_lead(network: &Network, leader: u64) {
    assert_eq!(network.leaders(), [leader]);
    assert_eq!(network[leader].raw.raft.lead_transferee, None);
}

/// A leader of three whose follower 3 is cut off and behind, and which has been told to hand over to it.
fn handing_over_to_3_which_is_away() -> Network {
    let mut network = Network::led(3);
    network.isolate(3);
    network.propose(1, "missed");
    network.transfer(1, 3);
    assert_eq!(network[1].raw.raft.lead_transferee, Some(3));
    network
}

/// Thesis 3.10: an up-to-date target is told to campaign at once, and wins although all hear a leader: no lease, no pre-vote.
#[test]
fn leader_transfer_to_up_to_date_node() {
    let mut network = Network::led(3);
    network.transfer(1, 2);
    must_lead(&network, 2);
    assert_eq!(network[2].term(), 3, "one election");
    network.propose(2, "x");
    network.transfer(2, 1);
    must_lead(&network, 1);
    network.beat();
    network.must_have_applied(&["x"]);
}

/// The request may also come in at a follower, which hands it on.
#[test]
fn leader_transfer_to_up_to_date_node_from_follower() {
    let mut network = Network::led(3);
    network.transfer(2, 2);
    must_lead(&network, 2);
    network.propose(2, "x");
    network.transfer(1, 1);
    must_lead(&network, 1);
}

/// Thesis 3.10: a target that lags is first sent what it lacks.
#[test]
fn leader_transfer_to_slow_follower() {
    let mut network = Network::led(3);
    network.isolate(3);
    network.propose(1, "missed");
    network.heal();
    assert!(network[1].progress(3).matched < network[1].log().last_index());
    network.transfer(1, 3);
    network.beat();
    must_lead(&network, 3);
    assert_eq!(network[3].applied(), ["missed"]);
}

/// Also if what it lacks is only to be had as a snapshot.
#[test]
fn leader_transfer_after_snapshot() {
    let mut network = Network::led(3);
    network.isolate(3);
    network.propose(1, "missed");
    network.node(1).raw.mut_store().compact();
    network.heal();
    network.transfer(1, 3);
    network.ticks(HEARTBEAT_TICKS + 1);
    must_lead(&network, 3);
    assert_eq!(
        (network[3].applied(), network[3].log().start.0),
        (&["missed".to_owned()][..], 3)
    );
}

/// Handing over to oneself is nothing.
#[test]
fn leader_transfer_to_self() {
    let mut network = Network::led(3);
    network.transfer(1, 1);
    must_lead(&network, 1);
    assert_eq!(network[1].term(), 2);
}

/// So is handing over to someone who is no member.
#[test]
fn leader_transfer_to_non_existing_node() {
    let mut network = Network::led(3);
    network.transfer(1, 4);
    must_lead(&network, 1);
    assert_eq!(network[1].term(), 2);
}

/// A leader deposed in the middle of handing over forgets about it.
#[test]
fn leader_transfer_receive_higher_term_vote() {
    let mut network = handing_over_to_3_which_is_away();
    let deposed = network.node(1).step(append(2, 1, 3, FIRST, vec![], 1));
    assert_eq!(kinds(&deposed), [(MsgAppendResponse, 2)]);
    assert_eq!((network[1].role(), network[1].raw.raft.lead_transferee), (Follower, None));
}

/// If the target is removed while it is waited for, the leader goes on.
#[test]
fn leader_transfer_remove_node() {
    let mut network = handing_over_to_3_which_is_away();
    network.ignore(MsgTimeoutNow);
    assert_eq!(
        network.node(1).propose("x"),
        Err(raft::Error::ProposalDropped),
        "no proposals while handing over"
    );
    network.node(1).raw.apply_conf_change(&change_now(RemoveNode, 3)).unwrap();
    must_lead(&network, 1);
    network.propose(1, "x");
    assert_eq!(network[1].applied(), ["missed", "x"]);
}

/// Asking for the leader itself takes a pending hand-over back.
#[test]
fn leader_transfer_back() {
    let mut network = handing_over_to_3_which_is_away();
    network.transfer(1, 1);
    must_lead(&network, 1);
    network.propose(1, "x");
    assert_eq!(network[1].applied(), ["missed", "x"]);
}

/// Naming another target drops the first.
#[test]
fn leader_transfer_second_transfer_to_another_node() {
    let mut network = handing_over_to_3_which_is_away();
    network.transfer(1, 2);
    must_lead(&network, 2);
}

/// Thesis 3.10: a hand-over that takes longer than an election timeout is given up, and proposals are taken again.
#[test]
fn leader_transfer_timeout() {
    let mut network = handing_over_to_3_which_is_away();
    let timeout = network[1].raw.raft.election_timeout();
    network.ticks(timeout - 1);
    assert_eq!(network[1].raw.raft.lead_transferee, Some(3));
    network.tick();
    must_lead(&network, 1);
    network.propose(1, "x");
    assert_eq!(network[1].applied(), ["missed", "x"]);
}

/// A node that is no member (any more) does not campaign, whoever tells it to.
#[test]
fn transfer_non_member() {
    let mut stranger = Node::boot(1, crate::harness::Disk::with_terms(&[2, 3, 4], &[]));
    assert!(stranger.step(message(MsgTimeoutNow, 2, 1, 1)).is_empty());
    assert_eq!((stranger.role(), stranger.term()), (Follower, 1));

    let mut member = Node::new(1, 3);
    let requests = member.step(message(MsgTimeoutNow, 2, 1, 1));
    assert_eq!(
        kinds(&requests),
        [(MsgRequestVote, 2), (MsgRequestVote, 3)],
        "a member asks for votes at once, without pre-vote"
    );
    assert!(requests.iter().all(|request| request.context == raft::CAMPAIGN_TRANSFER));
    assert_ne!(member.role(), Leader);
}
