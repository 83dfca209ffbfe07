use std::collections::BTreeSet;

use base::{Ts, WallTime};

use super::*;
use crate::machine::{self, Machine, Options};
use crate::request::{Reply, Request};
use crate::{Error, State};

/// A member with its disk, which syncs at once.
struct Member {
    disk: Stored,
    group: Group,
    machine: Machine<u64>,
    replies: BTreeMap<u64, Result<Reply, Error>>,
}

/// Members under one clock, with messages that arrive at once unless their link is cut.
struct Cluster {
    members: BTreeMap<u64, Member>,
    /// Members that neither hear nor are heard.
    cut: BTreeSet<u64>,
    now: MonoTime,
    wall: BTreeMap<u64, WallTime>,
    tokens: u64,
    seed: u64,
    wire: VecDeque<GroupMessage>,
}

fn record(id: u64) -> record::Member {
    let url = vec![format!("http://pd-{id}")];
    record::Member {
        id,
        name: format!("pd-{id}"),
        peer_urls: url.clone(),
        client_urls: url,
        is_learner: false,
    }
}

impl Cluster {
    fn found(ids: &[u64]) -> Cluster {
        let mut cluster = Cluster {
            members: BTreeMap::new(),
            cut: BTreeSet::new(),
            now: MonoTime(1_000_000_000_000),
            wall: BTreeMap::new(),
            tokens: 0,
            seed: 0,
            wire: VecDeque::new(),
        };
        for &id in ids {
            let founders = ids.iter().map(|&id| record(id)).collect();
            cluster.start(Stored::founding(MemberId(id), founders));
        }
        cluster.must_lead();
        cluster
    }

    fn start(&mut self, disk: Stored) {
        self.seed += 1;
        let id = disk.identity.member;
        let record::Member {
            name,
            peer_urls,
            client_urls,
            ..
        } = record(id.0);
        let options = Options {
            member: id,
            name,
            peer_urls,
            client_urls,
            cluster_id_if_new: 70 + id.0,
            max_peer_count_if_new: 3,
            merge_after: Duration::ZERO,
        };
        let state = State::from_record(disk.snapshot.state.clone());
        let member = Member {
            group: Group::new(&disk, self.seed, self.now),
            machine: Machine::new(options, state, disk.snapshot.position.index),
            disk,
            replies: BTreeMap::new(),
        };
        self.wall.entry(id.0).or_insert(WallTime(1_700_000_000_000));
        self.members.insert(id.0, member);
        self.step(id.0, Vec::new());
        self.settle();
    }

    fn restart(&mut self, id: u64) {
        let disk = self.members.remove(&id).expect("it was started").disk;
        self.start(disk);
    }

    fn step(&mut self, id: u64, events: Vec<Event>) {
        let member = self.members.get_mut(&id).expect("it runs");
        let mut effects = vec![member.group.step(self.now, events)];
        while let Some(effect) = effects.pop() {
            assert!(effect.failed.is_none());
            self.wire.extend(effect.send);
            let mut events = Vec::new();
            for NumberedWrite {
                number,
                write,
                send_after,
            } in effect.writes
            {
                member.disk.apply(&write);
                self.wire.extend(send_after);
                events.push(Event::Persisted { number });
            }
            let wall = self.wall[&id];
            let machine = member
                .machine
                .step(self.now, wall, effect.events.into_iter().map(machine::Event::Log));
            events.extend(to_group(machine, &mut member.replies));
            if !events.is_empty() {
                effects.push(member.group.step(self.now, events));
            }
        }
    }

    /// Delivers until nobody says anything.
    fn settle(&mut self) {
        while let Some(message) = self.wire.pop_front() {
            let raft = message.raft.as_ref().expect("every message has raft's part");
            let (from, to) = (raft.from.map_or(0, |peer| peer.id), raft.to.map_or(0, |peer| peer.id));
            if !self.cut.contains(&from) && !self.cut.contains(&to) && self.members.contains_key(&to) {
                self.step(to, vec![Event::Message(Box::new(message))]);
            }
        }
    }

    fn tick(&mut self) {
        self.now = self.now + TICK;
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            let wall = self.wall.get_mut(&id).expect("it was started");
            wall.0 += TICK.as_millis() as u64;
            self.step(id, vec![Event::Tick]);
            self.settle();
        }
    }

    fn send(&mut self, id: u64, request: Request) -> u64 {
        self.tokens += 1;
        let member = self.members.get_mut(&id).expect("it runs");
        let event = machine::Event::Request(self.tokens, request);
        let effects = member.machine.step(self.now, self.wall[&id], [event]);
        let events = to_group(effects, &mut member.replies);
        self.step(id, events);
        self.settle();
        self.tokens
    }

    fn ask(&mut self, id: u64, request: Request) -> Option<Result<Reply, Error>> {
        let token = self.send(id, request);
        self.members.get_mut(&id).expect("it runs").replies.remove(&token)
    }

    fn tso(&mut self, id: u64) -> Option<Result<Ts, Error>> {
        let reply = self.ask(id, Request::Tso { count: 1 })?;
        Some(reply.map(|reply| match reply {
            Reply::Timestamps { last, .. } => last,
            other => panic!("{other:?}"),
        }))
    }

    /// The member that answers as leader.
    fn leader(&mut self) -> Option<u64> {
        let ids: Vec<u64> = self.members.keys().copied().filter(|id| !self.cut.contains(id)).collect();
        ids.into_iter().find(|&id| matches!(self.tso(id), Some(Ok(_))))
    }

    fn must_lead(&mut self) -> u64 {
        for _ in 0..60 {
            if let Some(leader) = self.leader() {
                return leader;
            }
            self.tick();
        }
        panic!("nobody leads after 60 ticks");
    }

    fn members_of(&self, id: u64) -> Vec<(u64, bool)> {
        let members = &self.members[&id].machine.state().members;
        members.values().map(|member| (member.id, member.is_learner)).collect()
    }
}

fn to_group(effects: machine::Effects<u64>, replies: &mut BTreeMap<u64, Result<Reply, Error>>) -> Vec<Event> {
    replies.extend(effects.reply);
    let snapshot = effects.snapshot.map(|(index, state)| Event::Snapshot { index, state });
    let propose = Some(Event::Propose(effects.propose)).filter(|event| !matches!(event, Event::Propose(all) if all.is_empty()));
    propose
        .into_iter()
        .chain(snapshot)
        .chain(effects.transfer.map(Event::TransferLeader))
        .collect()
}

#[test]
fn a_member_alone_leads_at_once_and_again_after_a_restart() {
    let mut cluster = Cluster::found(&[5]);
    let first = cluster.tso(5).unwrap().unwrap();
    assert_eq!(cluster.members[&5].machine.state().cluster.0, 75);
    cluster.restart(5);
    let again = cluster.tso(5).expect("no tick passed").unwrap();
    assert!(again > first);
}

#[test]
fn a_follower_refuses_and_names_the_leader() {
    let mut cluster = Cluster::found(&[1, 2, 3]);
    let leader = cluster.must_lead();
    cluster.tick();
    for id in [1, 2, 3] {
        let Some(Ok(Reply::Members { all, leader: named })) = cluster.ask(id, Request::Members) else {
            panic!("every member tells who there is");
        };
        assert_eq!((all.len(), named), (3, Some(MemberId(leader))));
        if id != leader {
            assert_eq!(cluster.tso(id), Some(Err(Error::NotLeader)));
        }
    }
}

#[test]
fn timestamps_rise_over_leader_changes_and_clocks_that_lie() {
    let mut cluster = Cluster::found(&[1, 2, 3]);
    let mut last = Ts(0);
    for round in 0..12_u64 {
        let leader = cluster.must_lead();
        let ts = cluster.tso(leader).unwrap().unwrap();
        assert!(ts > last, "round {round}");
        last = ts;
        // The next leader's clock is an hour behind, or ahead.
        for id in [1, 2, 3] {
            let off: u64 = if (round + id) % 2 == 0 { 3_600_000 } else { 0 };
            cluster.wall.insert(id, WallTime(1_700_000_000_000 + off));
        }
        match round % 3 {
            0 => cluster.restart(leader),
            1 => {
                cluster.cut = BTreeSet::from([leader]);
                let next = cluster.must_lead();
                let ts = cluster.tso(next).unwrap().unwrap();
                assert!(ts > last);
                last = ts;
                // The old one may believe that it leads; it must not answer any more.
                assert!(!matches!(cluster.tso(leader), Some(Ok(_))));
                cluster.cut.clear();
            }
            _ => {
                let to = leader % 3 + 1;
                cluster.ask(leader, Request::TransferLeader(MemberId(to))).unwrap().unwrap();
                assert!(!matches!(cluster.tso(leader), Some(Ok(_))));
                assert_eq!(cluster.must_lead(), to);
            }
        }
    }
}

#[test]
fn a_leader_cut_off_stops_to_answer_before_another_begins() {
    let mut cluster = Cluster::found(&[1, 2, 3]);
    let old = cluster.must_lead();
    cluster.cut = BTreeSet::from([old]);
    let began = cluster.now;
    let (mut silent_at, mut next_at) = (None, None);
    while next_at.is_none() {
        cluster.tick();
        if silent_at.is_none() && !matches!(cluster.tso(old), Some(Ok(_))) {
            silent_at = Some(cluster.now);
        }
        next_at = cluster.leader().map(|_| cluster.now);
    }
    let (silent_at, next_at) = (silent_at.unwrap().since(began), next_at.unwrap().since(began));
    assert!(silent_at <= LEASE + TICK && silent_at < next_at, "{silent_at:?} {next_at:?}");
    assert!(next_at <= Duration::from_millis(2_500), "{next_at:?}");
}

#[test]
fn members_come_learn_vote_and_go() {
    let mut cluster = Cluster::found(&[1]);
    // Its log has long been cut: the new one needs a snapshot.
    for _ in 0..5_000 {
        cluster.ask(1, Request::AllocIds { count: 100 }).unwrap().unwrap();
    }
    assert!(cluster.members[&1].disk.snapshot.position.index > 4_000);
    let founders = cluster.members[&1].disk.identity.founders.clone();
    let group = cluster.members[&1].disk.identity.group;
    for id in [2, 3] {
        cluster.start(Stored::joining(MemberId(id), group, founders.clone()));
        cluster.tick();
        cluster.ask(1, Request::Enlist(record(id))).unwrap().unwrap();
        for _ in 0..20 {
            cluster.tick();
        }
    }
    for id in [1, 2, 3] {
        assert_eq!(cluster.members_of(id), [(1, false), (2, false), (3, false)]);
    }
    let next_id = |cluster: &Cluster, id: u64| cluster.members[&id].machine.state().id_next;
    assert_eq!(next_id(&cluster, 1), next_id(&cluster, 3));

    // One that lost its data comes back under its name with another id, and takes its own place.
    cluster.members.remove(&3);
    cluster.start(Stored::joining(MemberId(4), group, founders));
    let named = record::Member {
        name: "pd-3".to_owned(),
        ..record(4)
    };
    for _ in 0..60 {
        cluster.tick();
        let leader = cluster.must_lead();
        let _not_yet = cluster.ask(leader, Request::Enlist(named.clone()));
    }
    assert_eq!(cluster.members_of(4), [(1, false), (2, false), (4, false)]);

    // One that is removed hears of it, and the rest go on.
    let leader = cluster.must_lead();
    let gone = if leader == 4 { 2 } else { 4 };
    cluster.ask(leader, Request::RemoveMember(MemberId(gone))).unwrap().unwrap();
    for _ in 0..40 {
        cluster.tick();
    }
    assert!(cluster.members[&gone].machine.status().removed);
    assert_eq!(cluster.members_of(leader).len(), 2);
    let itself = cluster.ask(leader, Request::RemoveMember(MemberId(leader))).unwrap();
    assert!(matches!(itself, Err(Error::MembersStay { .. })), "{itself:?}");
    cluster.must_lead();
}

#[test]
fn a_running_member_is_not_replaced_by_its_namesake() {
    let mut cluster = Cluster::found(&[1, 2, 3]);
    for _ in 0..10 {
        cluster.tick();
    }
    let leader = cluster.must_lead();
    let other = leader % 3 + 1;
    let namesake = record::Member {
        name: format!("pd-{other}"),
        ..record(9)
    };
    let refused = cluster.ask(leader, Request::Enlist(namesake)).unwrap();
    assert_eq!(
        refused,
        Err(Error::MembersStay {
            reason: "a member of that name runs".to_owned()
        })
    );
}

#[test]
fn messages_that_make_no_sense_are_dropped() {
    let mut cluster = Cluster::found(&[1, 2, 3]);
    let raft = |kind, from, to| proto::ferrite_raft::RaftMessage {
        kind,
        from: address(from),
        to: address(to),
        term: 99,
        ..Default::default()
    };
    let snapshot = MessageType::MsgSnapshot as u32;
    for (raft, state) in [
        (None, &b""[..]),
        (Some(raft(0, 2, 1)), b""),
        (Some(raft(3, 2, 7)), b""),
        (Some(raft(3, 0, 1)), b""),
        (Some(raft(snapshot, 2, 1)), b"\xff\xff"),
        (Some(raft(999, 2, 1)), b""),
    ] {
        let message = GroupMessage {
            raft,
            state: bytes::Bytes::from_static(state),
        };
        cluster.step(1, vec![Event::Message(Box::new(message))]);
    }
    cluster.settle();
    cluster.must_lead();
}
