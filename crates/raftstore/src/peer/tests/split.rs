//! Regions that are divided, and peers that waited for theirs.

use super::*;
use crate::apply::Change;
use crate::split::{self, SplitOne};

const NOW: metapb::RegionEpoch = metapb::RegionEpoch { conf_ver: 1, version: 1 };

fn ones() -> Vec<SplitOne> {
    vec![SplitOne {
        key: "m".into(),
        region_id: 2,
        peer_ids: vec![21],
    }]
}

/// Applies the split that a step committed.
fn divide(peer: &mut Peer, index: u64) -> Effects {
    let parts = split::split(peer.region(), NOW, &ones()).expect("a good split");
    let position = LogPosition {
        index,
        term: peer.term(),
    };
    peer.step(
        START,
        [Event::Applied(Applied {
            position,
            changes: vec![Change::Split(parts)],
            ..Applied::default()
        })],
    )
}

#[test]
fn a_leader_proposes_a_split_and_lets_the_new_region_campaign() {
    let mut peer = lead_alone();
    let (answer, reply) = slot();
    let before = peer.last_index();
    let mut fx = peer.step(
        START,
        [Event::Split {
            epoch: NOW,
            parts: ones(),
            reply,
        }],
    );
    assert_eq!((peer.last_index(), fx.writes.len()), (before + 1, 1));
    let ready = fx.writes.remove(0).ready;
    let fx = peer.step(START, [Event::Persisted { ready }]);
    assert_eq!(fx.apply.len(), 1);
    let fx = divide(&mut peer, before + 1);
    assert_eq!(fx.campaign, [RegionId(2)]);
    assert_eq!(fx.report.map(|report| report.region.start_key), Some("m".into()));
    let Some(Some(delegate)) = fx.publish else {
        panic!("a leader lends reads of what it still has")
    };
    assert_eq!(delegate.region.start_key, "m");
    assert!(answer.lock().is_none(), "the applier answers, who waits");
}

#[test]
fn who_was_lent_the_old_range_reads_no_more() {
    let mut peer = lead_alone();
    let fx = peer.step(START, [Event::Report]);
    drop(fx);
    let old = peer.lease.end().clone();
    peer.lease.renew(START);
    assert!(old.holds(START));
    let last = peer.last_index();
    drop(divide(&mut peer, last));
    assert!(!old.holds(START) && old.is_over());
    assert!(peer.lease.end().holds(START), "the lease itself goes on");
}

#[test]
fn a_read_that_waited_over_a_split_is_told_the_new_regions() {
    let mut peer = peer(&[1]);
    let fx = peer.step(START, [Event::Campaign]);
    let (answer, reply) = slot();
    let ctx = ctx();
    let mut fx2 = peer.step(START, [Event::Read { ctx, at: None, reply }]);
    assert!(fx2.serve.is_empty(), "no entry of the term is applied yet");
    fx2.writes.splice(0..0, fx.writes);
    let ready = fx2.writes.last().expect("the term's first entry").ready;
    drop(peer.step(START, [Event::Persisted { ready }]));
    let last = peer.last_index();
    let mut fx = divide(&mut peer, last);
    super::super::super::shell::give_answers(&mut fx);
    match answer.lock().take() {
        Some(Err(Error::EpochNotMatch { current })) => {
            let ids: Vec<_> = current.iter().map(|region| region.id).collect();
            assert_eq!(ids, [1, 2]);
        }
        _ => panic!("the read was made for the old range"),
    };
}

#[test]
fn a_split_of_an_old_range_is_refused_with_the_new_regions() {
    let mut peer = lead_alone();
    let last = peer.last_index();
    drop(divide(&mut peer, last));
    let (answer, reply) = slot();
    let mut fx = peer.step(
        START,
        [Event::Split {
            epoch: NOW,
            parts: ones(),
            reply,
        }],
    );
    super::super::super::shell::give_answers(&mut fx);
    match answer.lock().take() {
        Some(Err(AdminError::Region(Error::EpochNotMatch { current }))) => assert_eq!(current.len(), 2),
        other => panic!("refused otherwise: {other:?}"),
    };
}

/// A peer that another store's message made, before it has its range.
fn waiting() -> Peer {
    let me = metapb::Peer {
        id: 21,
        store_id: 1,
        ..Default::default()
    };
    let region = metapb::Region {
        id: 2,
        ..Default::default()
    };
    let start = Start {
        peer: me,
        log: LogCache::new(&Found::default(), &region, Vec::new()),
        region,
        applied: LogPosition::default(),
        seed: 1,
        now: START,
        is_new: true,
    };
    Peer::new(Arc::new(Config::default()), start)
}

fn vote_request(from: u64, term: u64) -> Event {
    let peer = |id, store_id| {
        Some(metapb::Peer {
            id,
            store_id,
            ..Default::default()
        })
    };
    Event::Raft(Box::new(RaftMessage {
        region_id: 2,
        from: peer(from, from % 10),
        to: peer(21, 1),
        kind: MsgRequestVote as u32,
        term,
        log_term: 6,
        index: 6,
        ..Default::default()
    }))
}

#[test]
fn a_peer_that_waited_for_its_range_keeps_its_vote() {
    let mut peer = waiting();
    let fx = peer.step(START, [vote_request(22, 7)]);
    assert_eq!(fx.writes.len(), 1);
    let voted = fx.writes[0].ready;
    let child = metapb::Region {
        id: 2,
        peers: [21, 22, 23]
            .map(|id| metapb::Peer {
                id,
                store_id: id % 10,
                ..Default::default()
            })
            .into(),
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 2 }),
        ..Default::default()
    };
    let fx = peer.step(START, [Event::Begin(Box::new(child))]);
    assert!(matches!(fx.apply[..], [ApplyTask::Begin { .. }]));
    assert_eq!((peer.term(), peer.last_index(), peer.is_initialized()), (7, 5, true));
    let fx = peer.step(START, [vote_request(23, 7)]);
    let granted = |fx: &Effects| {
        let all = fx.send.iter().chain(fx.writes.iter().flat_map(|write| &write.send_after));
        all.filter(|m| m.kind == MsgRequestVoteResponse as u32 && !m.reject).count()
    };
    assert_eq!(granted(&fx), 0, "another candidate of the same term");
    // Asked again by the same, it answers only behind the write of its vote, which is still under way.
    let fx = peer.step(START, [vote_request(22, 7)]);
    assert!(fx.send.iter().all(|m| m.kind != MsgRequestVoteResponse as u32));
    assert_eq!(granted(&fx), 1);
    assert!(fx.writes.iter().all(|write| write.ready > voted));
    let fx = peer.step(START, [Event::Persisted { ready: voted }]);
    assert!(fx.send.is_empty());
}
