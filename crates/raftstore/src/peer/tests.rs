//! A peer alone, stepped by hand.

mod found;
mod hibernate;
mod split;

use super::*;
use crate::log::Found;
use crate::storage::LogPosition;
use crate::store::INITIAL;
use parking_lot::Mutex;
use proto::ferrite_raft::RaftState;
use raft::eraftpb::MessageType::{MsgHeartbeat, MsgPropose, MsgRequestPreVoteResponse, MsgRequestVote, MsgRequestVoteResponse};

const START: MonoTime = MonoTime(10_000_000_000);

fn region(voters: &[u64]) -> metapb::Region {
    let peer = |id: &u64| metapb::Peer {
        id: *id,
        store_id: *id,
        ..Default::default()
    };
    metapb::Region {
        id: 1,
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
        peers: voters.iter().map(peer).collect(),
        ..Default::default()
    }
}

fn peer(voters: &[u64]) -> Peer {
    peer_of_seed(voters, 1)
}

fn peer_of_seed(voters: &[u64], seed: u64) -> Peer {
    let region = region(voters);
    let state = RaftState {
        term: 5,
        commit: 5,
        truncated_index: 5,
        truncated_term: 5,
        ..Default::default()
    };
    let log = LogCache::new(
        &Found {
            state,
            last_index: 5,
            term_runs: Vec::new(),
        },
        &region,
        Vec::new(),
    );
    let me = region.peers[0];
    let start = Start {
        peer: me,
        region,
        log,
        applied: INITIAL,
        seed,
        now: START,
        is_new: false,
    };
    Peer::new(Arc::new(Config::default()), start)
}

fn ctx() -> Context {
    Context {
        region: RegionId(1),
        epoch: metapb::RegionEpoch { conf_ver: 1, version: 1 },
        ..Context::default()
    }
}

type Slot<T> = Arc<Mutex<Option<T>>>;

fn slot<T: Send + 'static>() -> (Slot<T>, Box<dyn FnOnce(T) + Send>) {
    let slot = Slot::default();
    let put = slot.clone();
    (slot, Box::new(move |value| *put.lock() = Some(value)))
}

fn put(key: &str) -> Vec<Modify> {
    vec![Modify::Put {
        cf: engine::Cf::Default,
        key: key.to_owned().into(),
        value: "v".into(),
    }]
}

/// Makes all writes durable and all entries applied, until nothing is left; collects what else came.
fn settle(peer: &mut Peer, now: MonoTime, mut fx: Effects) -> Effects {
    let mut all = Effects::default();
    loop {
        let mut events: Vec<Event> = fx
            .writes
            .drain(..)
            .map(|write| Event::Persisted { ready: write.ready })
            .collect();
        for task in fx.apply.drain(..) {
            let ApplyTask::Entries(entries) = task else { continue };
            let last = entries.last().expect("a task has entries");
            let position = LogPosition {
                index: last.index,
                term: last.term,
            };
            all.answers
                .extend(entries.into_iter().flat_map(|e| e.replies).map(|reply| (reply, Ok(()))));
            events.push(Event::Applied(Applied {
                position,
                ..Applied::default()
            }));
        }
        all.serve.append(&mut fx.serve);
        all.answers.append(&mut fx.answers);
        all.send.append(&mut fx.send);
        all.publish = fx.publish.take().or(all.publish);
        if events.is_empty() {
            return all;
        }
        fx = peer.step(now, events);
    }
}

fn lead_alone() -> Peer {
    let mut peer = peer(&[1]);
    let fx = peer.step(START, [Event::Campaign]);
    let fx = settle(&mut peer, START, fx);
    assert!(peer.is_leader());
    assert!(
        matches!(fx.publish, Some(Some(_))),
        "a leader that applied its first entry lends reads"
    );
    peer
}

#[test]
fn an_answer_waits_for_durable_and_applied() {
    let mut peer = lead_alone();
    let (done, reply) = slot();
    let deadline = START + std::time::Duration::from_secs(1);
    let mut fx = peer.step(
        START,
        [Event::Write {
            ctx: ctx(),
            changes: put("k"),
            deadline,
            reply,
        }],
    );
    assert_eq!(fx.writes.len(), 1);
    assert!(
        fx.writes[0].sync && fx.apply.is_empty() && fx.answers.is_empty(),
        "nothing is applied before it is durable"
    );
    let ready = fx.writes.remove(0).ready;
    let fx = peer.step(START, [Event::Persisted { ready }]);
    assert!(fx.answers.is_empty() && fx.apply.len() == 1);
    for (reply, result) in settle(&mut peer, START, fx).answers {
        reply(result);
    }
    assert_eq!(*done.lock(), Some(Ok(())));
}

#[test]
fn writes_of_one_step_share_an_entry() {
    let mut peer = lead_alone();
    let last = peer.last_index();
    let deadline = START + std::time::Duration::from_secs(1);
    let write = |key| Event::Write {
        ctx: ctx(),
        changes: put(key),
        deadline,
        reply: Box::new(|_| ()),
    };
    let fx = peer.step(START, [write("a"), write("b"), write("c")]);
    assert_eq!(peer.last_index(), last + 1);
    let _ = settle(&mut peer, START, fx);
}

#[test]
fn a_request_that_does_not_fit_is_refused() {
    let mut peer = lead_alone();
    let later = START + std::time::Duration::from_secs(1);
    let stale = Context {
        epoch: metapb::RegionEpoch { conf_ver: 1, version: 0 },
        ..ctx()
    };
    let other_peer = Context {
        peer: PeerId(9),
        ..ctx()
    };
    let old_term = Context { term: 1, ..ctx() };
    let huge = vec![Modify::Put {
        cf: engine::Cf::Default,
        key: "k".into(),
        value: vec![0; 9 << 20].into(),
    }];
    for (ctx, changes, deadline) in [
        (stale, put("k"), later),
        (other_peer, put("k"), later),
        (old_term, put("k"), later),
        (ctx(), huge, later),
        (ctx(), put("k"), START),
    ] {
        let last = peer.last_index();
        let (refused, reply) = slot();
        for (reply, result) in peer
            .step(
                START,
                [Event::Write {
                    ctx,
                    changes,
                    deadline,
                    reply,
                }],
            )
            .answers
        {
            reply(result);
        }
        assert!(matches!(*refused.lock(), Some(Err(_))));
        assert_eq!(peer.last_index(), last, "nothing may be proposed");
    }
}

#[test]
fn a_follower_names_no_leader_it_does_not_know() {
    let mut peer = peer(&[1, 2, 3]);
    let (refused, reply) = slot();
    let fx = peer.step(
        START,
        [Event::Read {
            ctx: ctx(),
            at: None,
            reply,
        }],
    );
    for (reply, error) in fx.read_errors {
        reply(Err(error));
    }
    let refused = refused.lock().take().expect("answered").err();
    assert_eq!(
        refused,
        Some(Error::NotLeader {
            region: RegionId(1),
            leader: None
        })
    );
}

/// A message of peer 2 to peer 1, with a log as long as its.
fn message(kind: raft::eraftpb::MessageType, term: u64) -> Event {
    let [me, other] = [1, 2].map(|id| metapb::Peer {
        id,
        store_id: id,
        ..Default::default()
    });
    Event::Raft(Box::new(RaftMessage {
        region_id: 1,
        from: Some(other),
        to: Some(me),
        kind: kind as u32,
        term,
        log_term: 5,
        index: 5,
        ..RaftMessage::default()
    }))
}

fn vote_request(term: u64) -> Event {
    message(MsgRequestVote, term)
}

/// Leads three voters with the vote of peer 2.
fn lead_three() -> Peer {
    let mut peer = peer(&[1, 2, 3]);
    let fx = peer.step(START, [Event::Campaign]);
    let _ = settle(&mut peer, START, fx);
    let fx = peer.step(START, [message(MsgRequestPreVoteResponse, 6)]);
    let _ = settle(&mut peer, START, fx);
    let fx = peer.step(START, [message(MsgRequestVoteResponse, 6)]);
    let _ = settle(&mut peer, START, fx);
    assert!(peer.is_leader());
    peer
}

fn write(key: &str, reply: Reply<()>) -> Event {
    Event::Write {
        ctx: ctx(),
        changes: put(key),
        deadline: START + std::time::Duration::from_secs(1),
        reply,
    }
}

/// Found by the simulator: the crate would forward such a write, and the new leader's entry at its place passed for it.
#[test]
fn a_write_gathered_under_a_leadership_that_ended_is_refused() {
    let mut peer = lead_three();
    let (first, reply) = slot();
    let mut fx = peer.step(START, [write("a", reply), message(MsgHeartbeat, 7)]);
    assert!(!peer.is_leader());
    assert!(
        fx.send.iter().all(|message| message.kind != MsgPropose as u32),
        "it was forwarded"
    );
    give(&mut fx);
    assert!(matches!(*first.lock(), Some(Err(Error::NotLeader { .. }))), "{first:?}");
}

#[test]
fn a_write_held_back_for_a_sync_is_refused_when_the_leadership_ends() {
    let mut peer = lead_three();
    let (first, reply) = slot();
    let fx = peer.step(START, [write("a", reply)]);
    assert_eq!(fx.writes.len(), 1, "the log is being synced");
    let (second, reply) = slot();
    let last = peer.last_index();
    let fx = peer.step(START, [write("b", reply)]);
    assert_eq!((fx.writes.len(), peer.last_index()), (0, last), "held back");
    let mut fx = peer.step(START, [message(MsgHeartbeat, 7)]);
    give(&mut fx);
    assert!(first.lock().is_none(), "it may still be committed");
    assert!(matches!(*second.lock(), Some(Err(Error::NotLeader { .. }))), "{second:?}");
}

#[test]
fn writes_that_come_during_a_sync_share_the_next_entry() {
    let mut peer = lead_alone();
    let mut fx = peer.step(START, [write("a", Box::new(|_| ()))]);
    let ready = fx.writes.remove(0).ready;
    let last = peer.last_index();
    for key in ["b", "c", "d"] {
        let fx = peer.step(START, [write(key, Box::new(|_| ()))]);
        assert!(fx.writes.is_empty(), "{key} waits for the sync under way");
    }
    let fx = peer.step(START, [Event::Persisted { ready }]);
    assert_eq!((fx.writes.len(), peer.last_index()), (1, last + 1));
    let answered = settle(&mut peer, START, fx).answers.len();
    assert_eq!(answered, 4);
}

#[test]
fn a_destroyed_peer_answers_a_write_that_it_holds_back() {
    let mut peer = lead_alone();
    let _pending = peer.step(START, [write("a", Box::new(|_| ()))]);
    let (held, reply) = slot();
    let _held = peer.step(START, [write("b", reply)]);
    let mut fx = Effects::default();
    peer.destroy(&mut fx);
    give(&mut fx);
    assert!(matches!(*held.lock(), Some(Err(Error::RegionNotFound { .. }))), "{held:?}");
}

fn give(fx: &mut Effects) {
    for (reply, result) in fx.answers.drain(..) {
        reply(result);
    }
}

#[test]
fn a_voter_that_restarted_withholds_its_vote_while_a_lease_may_count_on_it() {
    let election = Config::default().tick.0 * Config::default().election_ticks;
    let mut peer = peer(&[1, 2, 3]);
    let fx = peer.step(START + election / 2, [vote_request(6)]);
    assert!(fx.writes.is_empty() && fx.send.is_empty());
    let fx = peer.step(START + election, [vote_request(6)]);
    assert!(fx.send.is_empty(), "a vote leaves only once it is durable");
    assert!(fx.writes[0].sync && fx.writes[0].send_after.len() == 1);
    assert_eq!(fx.writes[0].state.map(|state| (state.term, state.vote)), Some((6, 2)));
}

/// Ticks until each of the first campaigns of a peer that hears nobody.
fn campaigns(seed: u64) -> Vec<u64> {
    let mut peer = peer_of_seed(&[1, 2, 3], seed);
    let asks = |fx: &Effects| {
        let sent = fx.send.iter().chain(fx.writes.iter().flat_map(|write| &write.send_after));
        sent.filter(|message| crate::message::is_vote_request(message.kind)).count() > 0
    };
    let campaigns = (1..100).filter(|_| asks(&peer.step(START, [Event::Tick])));
    campaigns.take(4).collect()
}

#[test]
fn the_waits_for_an_election_come_from_the_seed() {
    let all: Vec<_> = (0..20).map(campaigns).collect();
    assert_eq!(all, (0..20).map(campaigns).collect::<Vec<_>>());
    assert!(all.iter().any(|ticks| ticks[0] != all[0][0]), "all seeds draw the same");
}

/// Nobody campaigns within an election timeout of the leader's last word; whoever failed waits less for the next try.
#[test]
fn a_failed_campaign_is_tried_again_soon() {
    for ticks in (0..20).map(campaigns) {
        assert!((10..16).contains(&ticks[0]), "{ticks:?}");
        let pauses: Vec<u64> = ticks.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.iter().all(|pause| (1..=8).contains(pause)), "{ticks:?}");
    }
}

#[test]
fn a_change_that_came_too_early_is_asked_for_again() {
    let mut peer = lead_alone();
    let tick = Config::default().tick.0;
    let reports = |peer: &mut Peer, now| peer.step(now, [Event::Tick]).report.is_some();
    assert!(!reports(&mut peer, START + tick), "nothing happened since the last report");
    let (refused, reply) = slot();
    let stale = metapb::RegionEpoch::default();
    let fx = peer.step(
        START,
        [Event::ConfChange {
            epoch: stale,
            changes: Vec::new(),
            reply,
        }],
    );
    for (reply, result) in fx.admin_answers {
        reply(result);
    }
    assert!(refused.lock().take().is_some_and(|result| result.is_err()));
    assert!(reports(&mut peer, START + tick * 2));
    assert!(!reports(&mut peer, START + tick * 3));
}

#[test]
fn a_destroyed_peer_answers_everybody() {
    let mut peer = lead_alone();
    let deadline = START + std::time::Duration::from_secs(1);
    let (write, reply) = slot();
    let _pending = peer.step(
        START,
        [Event::Write {
            ctx: ctx(),
            changes: put("k"),
            deadline,
            reply,
        }],
    );
    let mut fx = Effects::default();
    peer.destroy(&mut fx);
    assert!(matches!(fx.publish, Some(None)));
    for (reply, result) in fx.answers {
        reply(result);
    }
    assert_eq!(write.lock().take(), Some(Err(Error::Deadline)), "its outcome is not known");
    let (read, reply) = slot();
    for (reply, error) in peer
        .step(
            START,
            [Event::Read {
                ctx: ctx(),
                at: None,
                reply,
            }],
        )
        .read_errors
    {
        reply(Err(error));
    }
    assert!(matches!(read.lock().take(), Some(Err(Error::RegionNotFound { .. }))));
}
