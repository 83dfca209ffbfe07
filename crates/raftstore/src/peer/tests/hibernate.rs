//! When a peer hibernates, and what wakes it.

use super::*;
use raft::eraftpb::MessageType::{MsgHeartbeatResponse, MsgRequestPreVote};

fn tick() -> std::time::Duration {
    Config::default().tick.0
}

/// Ticks of quiet after which a leader asks for rest, and some more.
const LONG: u32 = 120;

/// Ticks, and tells the region's size if the peer asks for it.
fn tick_once(peer: &mut Peer, now: MonoTime) -> Effects {
    let fx = peer.step(now, [Event::Tick]);
    if fx.measure.is_some() {
        let measured = Measured {
            version: 1,
            ..Measured::default()
        };
        let _nothing = peer.step(now, [Event::Measured(Some(measured))]);
    }
    fx
}

/// Ticks `peer` up to `count` times from `now` on, until it asks its followers to hibernate or does itself.
fn tick_until_rest(peer: &mut Peer, mut now: MonoTime, count: u32) -> (MonoTime, Option<Effects>) {
    for _ in 0..count {
        now = now + tick();
        let fx = tick_once(peer, now);
        if fx.hibernates.is_some() || fx.send.iter().any(|message| message.hibernate.is_some()) {
            return (now, Some(fx));
        }
    }
    (now, None)
}

/// What peer 2 says about rest to peer 1.
fn about_rest(peer: &Peer, from: u64, index: u64, agreed: bool) -> Event {
    let of = |id| {
        Some(metapb::Peer {
            id,
            store_id: id,
            ..Default::default()
        })
    };
    Event::Raft(Box::new(RaftMessage {
        region_id: 1,
        from: of(from),
        to: of(1),
        term: peer.term(),
        index,
        hibernate: Some(proto::ferrite_raft::Hibernate { agreed }),
        ..RaftMessage::default()
    }))
}

/// Follows peer 2, at rest since `START`.
fn follower_at_rest() -> Peer {
    let mut peer = peer(&[1, 2, 3]);
    let fx = peer.step(START, [message(MsgHeartbeat, 6)]);
    let _ = settle(&mut peer, START, fx);
    let ask = about_rest(&peer, 2, peer.last_index(), false);
    let fx = peer.step(START, [ask]);
    assert_eq!(fx.hibernates, Some(true));
    let [answer] = &fx.send[..] else { panic!("{fx:?}") };
    assert_eq!(answer.hibernate.map(|hibernate| hibernate.agreed), Some(true));
    peer
}

#[test]
fn a_leader_alone_hibernates_and_a_write_wakes_it() {
    let mut peer = lead_alone();
    let (now, fx) = tick_until_rest(&mut peer, START, LONG);
    assert_eq!(fx.and_then(|fx| fx.hibernates), Some(true));
    assert!(peer.is_hibernating());
    assert!(now.since(START) >= Config::default().hibernate_after.0);
    let doze = peer.step(now, [Event::Doze]);
    assert!(
        doze.report
            .is_some_and(|report| report.down.is_empty() && report.pending.is_empty())
    );
    assert!(peer.is_hibernating(), "a report is no reason to wake");
    let (done, reply) = slot();
    let deadline = now + tick();
    let write = Event::Write {
        ctx: ctx(),
        changes: put("k"),
        deadline,
        reply,
    };
    let fx = peer.step(now, [write]);
    assert_eq!(fx.hibernates, Some(false));
    for (reply, result) in settle(&mut peer, now, fx).answers {
        reply(result);
    }
    assert_eq!(*done.lock(), Some(Ok(())));
}

#[test]
fn a_region_in_use_stays_awake() {
    let mut peer = lead_alone();
    let mut now = START;
    for _ in 0..5 {
        let (later, fx) = tick_until_rest(&mut peer, now, LONG / 2);
        assert!(fx.is_none(), "it was quiet for less than it must be");
        now = later;
        let (_, reply) = slot();
        let fx = peer.step(
            now,
            [Event::Read {
                ctx: ctx(),
                at: None,
                reply,
            }],
        );
        let _ = settle(&mut peer, now, fx);
    }
}

#[test]
fn a_leader_waits_for_all_its_followers_and_goes_on_without() {
    let mut peer = lead_three();
    // Both hold its log.
    let last = peer.last_index();
    let appended = |from: u64| {
        let Event::Raft(mut answer) = message(raft::eraftpb::MessageType::MsgAppendResponse, 6) else {
            unreachable!("a raft message")
        };
        answer.from = Some(metapb::Peer {
            id: from,
            store_id: from,
            ..Default::default()
        });
        answer.index = last;
        Event::Raft(answer)
    };
    let fx = peer.step(START, [appended(2), appended(3)]);
    let _ = settle(&mut peer, START, fx);
    let mut now = START;
    let mut asked = Vec::new();
    for _ in 0..LONG {
        now = now + tick();
        let _nothing = peer.step(now, [appended(2), appended(3)]);
        let fx = tick_once(&mut peer, now);
        asked.extend(fx.send.into_iter().filter(|message| message.hibernate.is_some()));
        if !asked.is_empty() {
            break;
        }
    }
    assert_eq!(asked.len(), 2, "both followers are asked");
    let agree = about_rest(&peer, 2, last, true);
    let fx = peer.step(now, [agree, message(MsgHeartbeatResponse, 6)]);
    assert_eq!(fx.hibernates, None, "one has not answered yet");
    let other = about_rest(&peer, 3, last + 1, true);
    assert_eq!(peer.step(now, [other]).hibernates, None, "that was about another log");
    let agree = about_rest(&peer, 3, last, true);
    let mut patient = 0;
    while !peer
        .step(now, [Event::Tick])
        .send
        .iter()
        .any(|message| message.kind == MsgHeartbeat as u32)
    {
        patient += 1;
        assert!(patient < 6, "it forgot to go on");
    }
    assert_eq!(peer.step(now, [agree]).hibernates, None, "too late: followers were woken");
}

#[test]
fn a_follower_that_lacks_something_does_not_rest() {
    let mut peer = peer(&[1, 2, 3]);
    let fx = peer.step(START, [message(MsgHeartbeat, 6)]);
    let _ = settle(&mut peer, START, fx);
    let last = peer.last_index();
    for (from, index) in [(2, last + 1), (3, last)] {
        let ask = about_rest(&peer, from, index, false);
        let fx = peer.step(START, [ask]);
        assert!(fx.hibernates.is_none() && fx.send.is_empty(), "asked by {from} at {index}");
    }
}

#[test]
fn a_follower_at_rest_votes_for_nobody_and_keeps_its_patience() {
    let mut peer = follower_at_rest();
    let later = START + tick() * 1000;
    let fx = peer.step(later, [message(MsgRequestPreVote, 7)]);
    assert!(fx.send.is_empty() && fx.writes.is_empty(), "{fx:?}");
    assert_eq!(fx.hibernates, Some(false));
    for _ in 0..Config::default().election_ticks - 1 {
        let fx = peer.step(later, [Event::Tick]);
        assert!(fx.send.iter().all(|message| message.asks_membership), "{fx:?}");
    }
}

/// Ticks until the peer asks for votes.
fn ticks_to_campaign(peer: &mut Peer, now: MonoTime) -> u32 {
    let asks = |fx: &Effects| fx.send.iter().any(|message| crate::message::is_vote_request(message.kind));
    (1..100).find(|_| asks(&peer.step(now, [Event::Tick]))).expect("nobody leads")
}

#[test]
fn the_silence_of_its_leaders_store_counts_as_the_leaders() {
    let election = Config::default().election_ticks;
    let mut peer = follower_at_rest();
    let later = START + tick() * election;
    let fx = peer.step(later, [Event::StoreSilent(StoreId(9))]);
    assert!(fx.hibernates.is_none(), "the region has no peer there");
    assert_eq!(peer.step(later, [Event::StoreSilent(StoreId(2))]).hibernates, Some(false));
    assert!(ticks_to_campaign(&mut peer, later) <= election / 2 + 1);

    let mut early = follower_at_rest();
    let now = START + tick();
    let fx = early.step(now, [Event::StoreSilent(StoreId(2))]);
    assert_eq!(fx.hibernates, Some(false));
    assert!(
        ticks_to_campaign(&mut early, now) >= election,
        "its leader may have spoken, and holds a lease"
    );

    let mut other = follower_at_rest();
    let fx = other.step(later, [Event::StoreSilent(StoreId(3))]);
    assert_eq!(fx.hibernates, Some(false));
    assert!(ticks_to_campaign(&mut other, later) >= election, "its leader lives");
}

#[test]
fn a_follower_at_rest_asks_whether_it_is_a_member() {
    let mut peer = follower_at_rest();
    let fx = peer.step(START + tick() * 600, [Event::Doze]);
    let [question] = &fx.send[..] else { panic!("{fx:?}") };
    assert!(question.asks_membership && question.to.is_some_and(|to| to.id == 2));
    assert!(peer.is_hibernating());
}
