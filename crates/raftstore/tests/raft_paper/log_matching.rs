//! Sections 5.3 and 5.4.1: what a follower accepts into its log, and whom it votes for by it.

use raft::StateRole::{Follower, PreCandidate};
use raft::eraftpb::MessageType::{MsgAppendResponse, MsgRequestPreVote, MsgRequestPreVoteResponse, MsgRequestVote};

use crate::harness::{Disk, FIRST, Network, Node, append, entry, entry_with, kinds, refused, vote_answer, vote_request};

/// A follower in term 2 of a group of three, holding entries of these terms at indexes 2, 3, …
fn follower(terms: &[u64]) -> Node {
    Node::boot(1, Disk::with_terms(&[1, 2, 3], terms).in_term(2, 0))
}

/// Section 5.3: a follower commits and applies what the leader says is committed, in log order, and not more.
#[test]
fn follower_commit_entry() {
    let data = ["a", "b", "c"];
    for commit in 1..=4 {
        let mut node = follower(&[]);
        let entries = (2..).zip(data).map(|(index, data)| entry_with(2, index, data)).collect();
        node.step(append(2, 1, 2, FIRST, entries, commit));
        assert_eq!(node.committed(), commit);
        assert_eq!(node.applied(), &data[..commit as usize - 1]);
    }
}

/// Section 5.3, consistency check: an append is refused unless the log holds the entry before it, of the same term. The
/// refusal names the last place where the logs may still agree, so that the leader need not step back one by one.
#[test]
fn follower_check_message_type_msg_append() {
    // (entry before, Some((hint, its term)) if refused); the follower holds (2, 1) and (3, 2).
    let cases = [
        ((1, 1), None),
        ((2, 1), None),
        ((3, 2), None),
        ((2, 2), Some((2, 1))),
        ((3, 1), Some((2, 1))),
        ((4, 4), Some((3, 2))),
        ((9, 1), Some((2, 1))),
    ];
    for (before, refusal) in cases {
        let mut node = follower(&[1, 2]);
        let answers = node.step(append(2, 1, 2, before, vec![], 1));
        assert_eq!(kinds(&answers), [(MsgAppendResponse, 2)]);
        let answer = &answers[0];
        assert_eq!(answer.reject, refusal.is_some(), "before {before:?}");
        match refusal {
            Some(hint) => assert_eq!(
                (answer.reject_hint, answer.log_term, answer.index),
                (hint.0, hint.1, before.0)
            ),
            None => assert_eq!(answer.index, before.0, "matched up to the entry before"),
        }
        assert_eq!(node.log().terms(), [1, 2], "nothing is lost by a probe");
    }
}

/// Section 5.3: entries that conflict are replaced with all that follow them; entries that agree stay.
#[test]
fn follower_append_entries() {
    type Case = ((u64, u64), &'static [u64], &'static [u64]); // entry before, terms sent, terms held in the end
    let cases: [Case; 6] = [
        ((3, 2), &[2], &[1, 2, 2]),
        ((2, 1), &[3, 4], &[1, 3, 4]),
        ((1, 1), &[1], &[1, 2]),
        ((1, 1), &[1, 2], &[1, 2]),
        ((1, 1), &[3], &[3]),
        ((3, 2), &[], &[1, 2]),
    ];
    for (before, sent, wanted) in cases {
        let mut node = follower(&[1, 2]);
        let entries = (before.0 + 1..).zip(sent).map(|(index, &term)| entry(term, index)).collect();
        let answers = node.step(append(2, 1, 4, before, entries, 1));
        assert!(!refused(&answers));
        assert_eq!(answers[0].index, before.0 + sent.len() as u64);
        assert_eq!(node.log().terms(), wanted, "after {before:?} came {sent:?}");
        assert_eq!(node.raw.store().synced().terms(), wanted, "durable before the answer");
    }
}

/// Figure 2, AppendEntries rules 2 to 5: what is refused, what is kept, and that the commit index never passes the last
/// entry this very message vouches for.
#[test]
fn handle_message_type_msg_append() {
    struct Case(&'static str, (u64, u64), &'static [u64], u64, Option<(u64, u64)>);
    let cases = [
        Case("term before differs", (3, 3), &[], 3, None),
        Case("entry before is missing", (4, 2), &[], 4, None),
        Case("agrees, commits up to the match", (2, 1), &[], 2, Some((3, 2))),
        Case("conflict replaces the tail", (1, 1), &[2], 2, Some((2, 2))),
        Case("new entries", (3, 2), &[2, 2], 4, Some((5, 4))),
        Case("leader's commit is ahead of the message", (3, 2), &[2], 9, Some((4, 4))),
        Case("entry was there", (2, 1), &[2], 9, Some((3, 3))),
        Case("not past the match, though the log is longer", (2, 1), &[], 9, Some((3, 2))),
    ];
    for Case(name, before, sent, commit, accepted) in cases {
        let mut node = follower(&[1, 2]);
        let entries = (before.0 + 1..).zip(sent).map(|(index, &term)| entry(term, index)).collect();
        let answers = node.step(append(2, 1, 2, before, entries, commit));
        assert_eq!(refused(&answers), accepted.is_none(), "{name}");
        let (last, committed) = accepted.unwrap_or((3, 1));
        assert_eq!((node.log().last_index(), node.committed()), (last, committed), "{name}");
    }
}

/// Figure 7: whatever a follower's log looks like, once the new leader has written, it equals the leader's.
#[test]
fn leader_sync_follower_log() {
    // The figure's logs without their first entry, which is the common start here.
    const LEADER: [u64; 9] = [1, 1, 4, 4, 5, 5, 6, 6, 6];
    let followers: [(char, &[u64]); 6] = [
        ('a', &[1, 1, 4, 4, 5, 5, 6, 6]),
        ('b', &[1, 1, 4]),
        ('c', &[1, 1, 4, 4, 5, 5, 6, 6, 6, 6]),
        ('d', &[1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7]),
        ('e', &[1, 1, 4, 4, 4, 4]),
        ('f', &[1, 1, 2, 2, 2, 3, 3, 3, 3, 3]),
    ];
    for (name, terms) in followers {
        let voters = [1, 2, 3];
        let mut network = Network::of([
            Node::boot(1, Disk::with_terms(&voters, &LEADER).in_term(7, 0)),
            Node::boot(2, Disk::with_terms(&voters, terms)),
            Node::boot(3, Disk::with_terms(&voters, &[]).in_term(7, 0)),
        ]);
        network.elect(1);
        network.propose(1, "x");
        network.beat();
        assert_eq!(network[2].log().terms(), [&LEADER[..], &[8, 8]].concat(), "follower {name}");
        network.must_have_applied(&["x"]);
    }
}

/// Section 5.4.1: requests for votes tell the candidate's last entry, in the pre-vote as in the vote.
#[test]
fn vote_request_tells_last_entry() {
    for terms in [&[2][..], &[1, 2], &[1, 2, 2]] {
        let mut node = follower(&[]);
        let entries = (2..).zip(terms).map(|(index, &term)| entry(term, index)).collect();
        node.step(append(2, 1, 2, FIRST, entries, 1));
        let timeout = node.election_ticks;
        let asked = node.ticks(timeout);
        assert_eq!(kinds(&asked), [(MsgRequestPreVote, 2), (MsgRequestPreVote, 3)]);
        assert_eq!(node.role(), PreCandidate);
        let requests = node.step(vote_answer(MsgRequestPreVoteResponse, 2, 1, 3, true));
        assert_eq!(kinds(&requests), [(MsgRequestVote, 2), (MsgRequestVote, 3)]);
        let last = (1 + terms.len() as u64, 2);
        for request in asked.iter().chain(&requests) {
            assert_eq!((request.term, request.index, request.log_term), (3, last.0, last.1));
        }
    }
}

/// Section 5.4.1: a voter refuses a candidate whose log is less up to date than its own: by last term, then by length.
#[test]
fn voter() {
    // (terms of the voter's log after index 1, the candidate's last entry, granted)
    let cases: [(&[u64], (u64, u64), bool); 8] = [
        (&[1], (2, 1), true),
        (&[1], (3, 1), true),
        (&[1, 1], (2, 1), false),
        (&[1], (2, 2), true),
        (&[1, 1], (2, 2), true),
        (&[2], (2, 1), false),
        (&[2], (9, 1), false),
        (&[1, 2], (2, 2), false),
    ];
    for kind in [MsgRequestPreVote, MsgRequestVote] {
        for (terms, last, granted) in cases {
            let answers = follower(terms).step(vote_request(kind, 2, 1, 3, last));
            assert_eq!(refused(&answers), !granted, "{kind:?}, log {terms:?}, candidate at {last:?}");
        }
    }
}

/// Sections 5.2 and 5.4.1 together: role, vote given and log decide, within one term.
#[test]
fn recv_message_type_msg_request_vote() {
    // (vote given in term 2, the candidate's last entry, granted to node 2); the follower's last entry is (3, 2).
    let cases = [
        (0, (2, 2), false),
        (0, (3, 1), false),
        (0, (3, 2), true),
        (0, (4, 2), true),
        (0, (2, 3), true),
        (2, (3, 2), true),
        (2, (2, 2), false),
        (3, (3, 2), false),
        (3, (9, 2), false),
    ];
    for (vote, last, granted) in cases {
        let mut node = Node::boot(1, Disk::with_terms(&[1, 2, 3], &[1, 2]).in_term(2, vote));
        let answers = node.step(vote_request(MsgRequestVote, 2, 1, 2, last));
        assert_eq!(refused(&answers), !granted, "voted {vote}, candidate at {last:?}");
        assert_eq!(node.role(), Follower);
    }
    // A candidate and a leader have voted for themselves.
    for mut node in [Node::candidate(1, 3), Node::leader(1, 3)] {
        let role = node.role();
        assert!(refused(&node.step(vote_request(MsgRequestVote, 2, 1, 2, (9, 2)))), "{role:?}");
        assert_eq!((node.role(), node.raw.raft.vote), (role, 1));
    }
}
