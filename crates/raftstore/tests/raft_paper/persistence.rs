//! What may leave before the disk is done and what may not: sections 5.1 (figure 2, "updated on stable storage before
//! responding") and thesis 10.2.1 (a leader writes to its own disk while its followers write to theirs).

use raft::StateRole::{Candidate, Follower, PreCandidate};
use raft::eraftpb::MessageType::{MsgAppend, MsgAppendResponse, MsgRequestVote, MsgRequestVoteResponse};

use crate::harness::{FIRST, Node, append, append_answer, entry_with, kinds, refused, vote_answer, vote_request};

fn on_slow_disk(mut node: Node) -> Node {
    node.slow_disk = true;
    node
}

/// Figure 2: `votedFor` is durable before the vote is told. A node that lost power in between may vote anew, because nobody
/// has heard its first vote.
#[test]
fn vote_leaves_once_durable() {
    let mut node = on_slow_disk(Node::new(1, 3));
    assert!(node.step(vote_request(MsgRequestVote, 2, 1, 2, FIRST)).is_empty());
    assert_eq!(node.raw.raft.vote, 2);

    let mut forgot = node.crashed();
    assert_eq!((forgot.raw.raft.vote, forgot.term()), (0, 1));
    assert!(!refused(&forgot.step(vote_request(MsgRequestVote, 3, 1, 2, FIRST))));

    assert_eq!(kinds(&node.sync()), [(MsgRequestVoteResponse, 2)]);
    assert!(
        refused(&node.crashed().step(vote_request(MsgRequestVote, 3, 1, 2, FIRST))),
        "after the sync it remembers"
    );
}

/// A candidate's own vote is durable before it asks for others'.
#[test]
fn vote_requests_leave_once_durable() {
    let mut node = Node::new(1, 3);
    node.campaign();
    node.slow_disk = true;
    let early = node.step(vote_answer(
        raft::eraftpb::MessageType::MsgRequestPreVoteResponse,
        2,
        1,
        2,
        true,
    ));
    assert_eq!((node.role(), early.len()), (Candidate, 0));
    assert_eq!(node.crashed().term(), 1, "no trace of the candidacy yet");
    assert_eq!(kinds(&node.sync()), [(MsgRequestVote, 2), (MsgRequestVote, 3)]);
    assert_eq!((node.crashed().term(), node.crashed().raw.raft.vote), (2, 1));
}

/// Figure 2: entries are durable before a follower says that it holds them.
#[test]
fn append_answer_leaves_once_durable() {
    let mut node = on_slow_disk(Node::new(1, 3));
    assert!(node.step(append(2, 1, 2, FIRST, vec![entry_with(2, 2, "x")], 2)).is_empty());
    assert_eq!(node.committed(), 2);
    assert!(node.applied().is_empty(), "applied is never ahead of the durable log");
    assert_eq!(node.crashed().log().last_index(), FIRST.0);

    let answers = node.sync();
    assert_eq!(kinds(&answers), [(MsgAppendResponse, 2)]);
    assert_eq!(answers[0].index, 2);
    node.pump();
    assert_eq!(node.applied(), ["x"]);
    assert_eq!(node.crashed().log().last_index(), 2);
}

/// Thesis 10.2.1: a leader sends entries while its own disk still writes them, but does not count itself.
#[test]
fn leader_sends_before_its_own_disk() {
    let mut leader = on_slow_disk(Node::leader(1, 3));
    let before = leader.committed();
    let sent = leader.propose("x").unwrap();
    assert_eq!(kinds(&sent), [(MsgAppend, 2), (MsgAppend, 3)]);
    let index = leader.log().last_index();

    leader.step(append_answer(2, 1, 2, index));
    assert_eq!(leader.committed(), before, "one durable copy of three");
    leader.sync();
    leader.pump();
    assert_eq!((leader.committed(), leader.applied()), (index, &["x".to_owned()][..]));
}

/// Thesis 10.2.1: an entry on a majority of followers is committed though the leader's disk lags; the leader itself waits
/// for its disk before it applies, so that its state machine is never ahead of its log.
#[test]
fn leader_commits_by_followers_but_applies_by_its_disk() {
    let mut leader = on_slow_disk(Node::leader(1, 3));
    leader.propose("x").unwrap();
    let index = leader.log().last_index();
    leader.acknowledge_all();
    assert_eq!(leader.committed(), index);
    assert!(leader.applied().is_empty());
    leader.sync();
    leader.pump();
    assert_eq!(leader.applied(), ["x"]);
}

/// Many writes, one sync: answers held back leave together and in order.
#[test]
fn one_sync_answers_many_appends() {
    let mut node = on_slow_disk(Node::new(1, 3));
    for index in 2..=6 {
        let entry = entry_with(2, index, "x");
        let before = if index == 2 { FIRST } else { (index - 1, 2) };
        assert!(node.step(append(2, 1, 2, before, vec![entry], 1)).is_empty());
    }
    let held: Vec<_> = node.sync().iter().map(|answer| answer.index).collect();
    assert_eq!(held, [2, 3, 4, 5, 6]);
}

/// A slow disk that overwrites a tail: the answer tells only what the last write left durable.
#[test]
fn overwritten_tail_is_not_acknowledged() {
    let mut node = on_slow_disk(Node::new(1, 3));
    node.step(append(
        2,
        1,
        2,
        FIRST,
        vec![entry_with(2, 2, "old"), entry_with(2, 3, "old")],
        1,
    ));
    node.step(append(3, 1, 3, FIRST, vec![entry_with(3, 2, "new")], 1));
    let answers = node.sync();
    let told: Vec<_> = answers.iter().map(|answer| (answer.to, answer.term, answer.index)).collect();
    assert_eq!(
        told,
        [(2, 2, 3), (3, 3, 2)],
        "the first answer is of a term that is over, its leader will not count it"
    );
    assert_eq!(node.crashed().log().terms(), [3]);
    assert_eq!(node.role(), Follower);
}

/// A pre-vote promises nothing, so it changes nothing that must be durable: no term, no vote.
#[test]
fn pre_vote_leaves_no_trace() {
    let mut node = Node::new(1, 3);
    node.campaign();
    assert_eq!(node.role(), PreCandidate);
    let (term, vote) = (node.crashed().term(), node.crashed().raw.raft.vote);
    assert_eq!((term, vote), (1, 0));
}
