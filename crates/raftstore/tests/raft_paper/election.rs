//! Sections 5.1 and 5.2: terms and elections, as one node sees them.

use std::collections::BTreeSet;

use raft::StateRole::{self, Candidate, Follower, Leader, PreCandidate};
use raft::eraftpb::MessageType::{
    MsgHeartbeat, MsgRequestPreVote, MsgRequestPreVoteResponse, MsgRequestVote, MsgRequestVoteResponse,
};

use crate::harness::{
    Disk, ELECTION_TICKS, FIRST, HEARTBEAT_TICKS, Node, append, draw_election_ticks, heartbeat, kinds, refused, vote_answer,
    vote_request,
};

fn must_adopt_larger_term(mut node: Node) {
    let term = node.term() + 1;
    node.step(append(2, 1, term, FIRST, vec![], FIRST.0));
    assert_eq!((node.role(), node.term(), node.leader_id()), (Follower, term, 2));
    assert_eq!(
        node.raw.store().synced().hard_state.term,
        term,
        "a term is durable before anything is said in it"
    );
}

/// Section 5.1: a server that sees a larger term adopts it.
#[test]
fn follower_update_term_from_message() {
    must_adopt_larger_term(Node::new(1, 3));
}

/// Section 5.1: a candidate that sees a larger term becomes a follower in it.
#[test]
fn candidate_update_term_from_message() {
    must_adopt_larger_term(Node::candidate(1, 3));
}

/// Section 5.1: a leader that sees a larger term steps down.
#[test]
fn leader_update_term_from_message() {
    must_adopt_larger_term(Node::leader(1, 3));
}

/// Section 5.2: servers start as followers, also those that led when they went down.
#[test]
fn start_as_follower() {
    let mut fresh = Node::new(1, 3);
    assert_eq!((fresh.role(), fresh.leader_id()), (Follower, 0));
    assert!(fresh.pump().is_empty());

    let restarted = Node::leader(1, 3).crashed();
    assert_eq!((restarted.role(), restarted.term(), restarted.leader_id()), (Follower, 2, 0));
}

/// Section 5.2: a leader tells each follower at every heartbeat interval that it is there.
#[test]
fn leader_bcast_beat() {
    let mut leader = Node::leader(1, 3);
    for _ in 0..3 {
        assert!(leader.ticks(HEARTBEAT_TICKS - 1).is_empty());
        let beats = leader.tick();
        assert_eq!(kinds(&beats), [(MsgHeartbeat, 2), (MsgHeartbeat, 3)]);
        assert!(beats.iter().all(|beat| beat.term == leader.term() && beat.entries.is_empty()));
    }
}

/// Section 5.2: a follower that hears nothing for an election timeout begins an election. With pre-vote (thesis 9.6) it
/// first asks whether it could win, which changes neither its term nor its vote.
#[test]
fn follower_start_election() {
    let mut node = Node::new(1, 3);
    let timeout = node.election_ticks;
    assert!(node.ticks(timeout - 1).is_empty());

    let asked = node.tick();
    assert_eq!(kinds(&asked), [(MsgRequestPreVote, 2), (MsgRequestPreVote, 3)]);
    assert!(asked.iter().all(|request| request.term == 2), "asked for the term to come");
    assert_eq!((node.role(), node.term(), node.raw.raft.vote), (PreCandidate, 1, 0));

    let requests = node.step(vote_answer(MsgRequestPreVoteResponse, 2, 1, 2, true));
    assert_eq!(kinds(&requests), [(MsgRequestVote, 2), (MsgRequestVote, 3)]);
    assert!(requests.iter().all(|request| request.term == 2));
    assert_eq!((node.role(), node.term(), node.raw.raft.vote), (Candidate, 2, 1));
    assert_eq!(node.raw.store().synced().hard_state.vote, 1, "it votes for itself, durably");
}

/// Section 5.2: a candidate that neither wins nor loses within an election timeout begins the next election.
#[test]
fn candidate_start_new_election() {
    let mut node = Node::candidate(1, 3);
    let timeout = node.election_ticks;
    assert!(node.ticks(timeout - 1).is_empty());
    let asked = node.tick();
    assert_eq!(kinds(&asked), [(MsgRequestPreVote, 2), (MsgRequestPreVote, 3)]);
    assert!(asked.iter().all(|request| request.term == 3));

    let requests = node.step(vote_answer(MsgRequestPreVoteResponse, 3, 1, 3, true));
    assert_eq!(kinds(&requests), [(MsgRequestVote, 2), (MsgRequestVote, 3)]);
    assert_eq!((node.role(), node.term()), (Candidate, 3));
}

/// Section 5.2: votes of a majority make a leader, refusals of a majority a follower, anything less neither.
#[test]
fn leader_election_in_one_round_rpc() {
    let cases: [(u64, &[u64], &[u64], StateRole); 12] = [
        (1, &[], &[], Leader),
        (3, &[2], &[], Leader),
        (3, &[2, 3], &[], Leader),
        (3, &[2], &[3], Leader),
        (5, &[2, 3], &[], Leader),
        (5, &[2, 3], &[4, 5], Leader),
        (3, &[], &[2, 3], Follower),
        (5, &[], &[2, 3, 4, 5], Follower),
        (5, &[2], &[3, 4, 5], Follower),
        (3, &[], &[], Candidate),
        (5, &[2], &[], Candidate),
        (5, &[], &[2, 3], Candidate),
    ];
    for (size, granted, denied, wanted) in cases {
        let mut node = if size == 1 {
            Node::new(1, 1)
        } else {
            Node::candidate(1, size)
        };
        if size == 1 {
            node.campaign();
        }
        for (peers, vote) in [(granted, true), (denied, false)] {
            for &peer in peers {
                node.step(vote_answer(MsgRequestVoteResponse, peer, 1, 2, vote));
            }
        }
        assert_eq!(
            (node.role(), node.term()),
            (wanted, 2),
            "size {size}, granted {granted:?}, denied {denied:?}"
        );
    }
}

/// Section 5.2: at most one vote per term, first come first served; asking again gets the same answer.
#[test]
fn follower_vote() {
    for (voted, asking, wanted) in [
        (0, 2, true),
        (0, 3, true),
        (2, 2, true),
        (3, 3, true),
        (2, 3, false),
        (3, 2, false),
    ] {
        let mut node = Node::boot(1, Disk::with_terms(&[1, 2, 3], &[]).in_term(1, voted));
        let answer = node.step(vote_request(MsgRequestVote, asking, 1, 1, FIRST));
        assert_eq!(refused(&answer), !wanted, "voted for {voted}, asked by {asking}");
        let vote = if wanted { asking } else { voted };
        assert_eq!(
            node.raw.store().synced().hard_state.vote,
            vote,
            "voted for {voted}, asked by {asking}"
        );
    }
}

/// Section 5.2: a candidate that hears a leader of its own or a later term follows it.
#[test]
fn candidate_fallback() {
    for term in [2, 3] {
        let mut node = Node::candidate(1, 3);
        node.step(append(2, 1, term, FIRST, vec![], FIRST.0));
        assert_eq!((node.role(), node.term(), node.leader_id()), (Follower, term, 2));
    }
}

fn must_return_to_term_of_leader(message: fn(u64) -> raft::eraftpb::Message) {
    let mut node = Node::candidate(1, 3);
    let timeout = node.election_ticks;
    node.ticks(timeout - 1);
    node.step(message(node.term()));
    assert_eq!((node.role(), node.term(), node.leader_id()), (Follower, 2, 2));
    assert!(node.ticks(timeout - 1).is_empty(), "its patience begins anew");
    assert_eq!(kinds(&node.tick()), [(MsgRequestPreVote, 2), (MsgRequestPreVote, 3)]);
}

/// Section 5.2: a heartbeat of the leader that won this very term ends a candidacy.
#[test]
fn candidate_reset_term_msg_heartbeat() {
    must_return_to_term_of_leader(|term| heartbeat(2, 1, term, FIRST.0));
}

/// Section 5.2: so does an append.
#[test]
fn candidate_reset_term_msg_append() {
    must_return_to_term_of_leader(|term| append(2, 1, term, FIRST, vec![], FIRST.0));
}

/// The heartbeat timer is a leader's: others send nothing for it, and nobody may set it off from outside.
#[test]
fn recv_message_type_msg_beat() {
    for (mut node, wanted) in [(Node::leader(1, 3), 2), (Node::candidate(1, 3), 0), (Node::new(1, 3), 0)] {
        node.raw.ping();
        let beats = node.pump();
        assert_eq!(beats.len(), wanted);
        assert!(beats.iter().all(|beat| beat.get_msg_type() == MsgHeartbeat));

        let forged = crate::harness::message(raft::eraftpb::MessageType::MsgBeat, 2, 1, 0);
        assert_eq!(node.raw.step(forged), Err(raft::Error::StepLocalMsg));
        assert!(node.pump().is_empty());
    }
}

/// A leader that is told to campaign goes on leading.
#[test]
fn campaign_while_leader() {
    let mut leader = Node::leader(1, 3);
    assert!(leader.campaign().is_empty());
    assert_eq!((leader.role(), leader.term()), (Leader, 2));
}

/// Section 5.2: a server of any role votes for an up-to-date candidate of a later term. With check-quorum (section 6, last
/// paragraphs) not while it believes in a leader, which a leader itself always does; a leadership transfer says that it
/// is meant (thesis 3.10) and is heard all the same.
#[test]
fn vote_from_any_state() {
    let heard_leader = || {
        let mut follower = Node::new(1, 3);
        follower.step(heartbeat(2, 1, 1, FIRST.0));
        follower
    };
    let lost_leader = || {
        let mut follower = heard_leader();
        follower.ticks(ELECTION_TICKS);
        follower
    };
    let pre_candidate = || {
        let mut node = Node::new(1, 3);
        node.campaign();
        node
    };
    let cases: [(&str, Node, Node, bool); 5] = [
        ("follower without leader", lost_leader(), lost_leader(), true),
        ("pre-candidate", pre_candidate(), pre_candidate(), true),
        ("candidate", Node::candidate(1, 3), Node::candidate(1, 3), true),
        ("follower of a leader", heard_leader(), heard_leader(), false),
        ("leader", Node::leader(1, 3), Node::leader(1, 3), false),
    ];
    for (name, mut asked, mut told, votes) in cases {
        let term = asked.term() + 5;
        let request = vote_request(MsgRequestVote, 3, 1, term, (9, 2));
        let answers = asked.step(request.clone());
        match votes {
            true => assert!(!refused(&answers), "{name}"),
            false => assert!(answers.is_empty(), "{name} is deaf"),
        }
        assert_eq!(asked.raw.raft.vote == 3 && asked.term() == term, votes, "{name}");

        let transfer = raft::eraftpb::Message {
            context: raft::CAMPAIGN_TRANSFER.to_vec().into(),
            ..request
        };
        assert!(!refused(&told.step(transfer)), "{name}");
        assert_eq!((told.role(), told.term(), told.raw.raft.vote), (Follower, term, 3), "{name}");
    }
}

/// One tick at a time until the node asks for something; how many ticks that took.
fn ticks_until_campaign(node: &mut Node) -> usize {
    (1..).find(|_| !node.tick().is_empty()).expect("it campaigns some day")
}

/// Section 5.2: timeouts are drawn from an interval. We draw them; the crate, told before a tick, must keep to our value.
fn must_wait_as_drawn(begin: fn(Disk, usize) -> Node) {
    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        let drawn = draw_election_ticks(seed, 1);
        let mut node = begin(Disk::with_terms(&[1, 2, 3], &[]), drawn);
        assert_eq!(ticks_until_campaign(&mut node), drawn, "seed {seed}");
        assert_eq!(ticks_until_campaign(&mut node), drawn, "seed {seed}: and so the next time");
        seen.insert(drawn);
    }
    assert_eq!(
        seen,
        (ELECTION_TICKS..2 * ELECTION_TICKS).collect(),
        "every value of the interval is drawn"
    );
}

fn candidate_with(disk: Disk, election_ticks: usize) -> Node {
    let mut node = Node::boot_with(1, disk, election_ticks);
    node.campaign();
    node.step(vote_answer(MsgRequestPreVoteResponse, 2, 1, 2, true));
    assert_eq!(node.role(), Candidate);
    node
}

/// Section 5.2, as DESIGN.md section 9 wants it: from a seed.
#[test]
fn follower_election_timeout_randomized() {
    must_wait_as_drawn(|disk, ticks| Node::boot_with(1, disk, ticks));
}

/// Section 5.2: candidates wait by the same rule.
#[test]
fn candidate_election_timeout_randomized() {
    must_wait_as_drawn(candidate_with);
}

/// Section 9.3: in most rounds one of five servers times out alone. With ten values to draw from, the chance that the first
/// timeout is shared is 23 %.
fn must_rarely_collide(begin: fn(u64, usize) -> Node) {
    const ROUNDS: u64 = 1000;
    let collides = |seed: &u64| {
        let mut nodes: Vec<_> = (1..=5).map(|id| begin(id, draw_election_ticks(*seed, id))).collect();
        let first = (0..).find_map(|_| Some(nodes.iter_mut().filter_map(|node| node.tick().pop()).count()).filter(|&n| n > 0));
        first.expect("someone campaigns") > 1
    };
    let collisions = (0..ROUNDS).filter(collides).count() as u64;
    assert!(
        (ROUNDS / 10..ROUNDS * 3 / 10).contains(&collisions),
        "{collisions} of {ROUNDS} rounds"
    );
}

/// Section 5.2: randomised timeouts make split votes rare among followers.
#[test]
fn followers_election_timeout_nonconflict() {
    must_rarely_collide(|id, ticks| Node::boot_with(id, Disk::with_terms(&[1, 2, 3, 4, 5], &[]), ticks));
}

/// Section 5.2: and among candidates after a split vote.
#[test]
fn candidates_election_timeout_nonconflict() {
    must_rarely_collide(|id, ticks| {
        let mut node = Node::boot_with(id, Disk::with_terms(&[1, 2, 3, 4, 5], &[]), ticks);
        node.campaign();
        let peers = (1..=5).filter(|&peer| peer != id);
        peers
            .take(2)
            .for_each(|peer| drop(node.step(vote_answer(MsgRequestPreVoteResponse, peer, id, 2, true))));
        assert_eq!(node.role(), Candidate);
        node
    });
}
