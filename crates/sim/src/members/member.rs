//! One member's process: its machine and its group, as the threads of `pd::shell` drive them.

use std::collections::VecDeque;

use base::{MonoTime, WallTime};
use pd::group::{self, Group, NumberedWrite};
use pd::log::{LogEvent, Stored};
use pd::machine::{self, Machine};
use pd::{MemberId, Options, Request, State};
use proto::ferrite_pd::{GroupMessage, Member as Record};

use super::Message;
use crate::counts::Counts;
use crate::network::Node;
use crate::rng::Rng;

/// Who waits for an answer.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    node: Node,
    id: u64,
}

/// What a member wants done.
#[derive(Default)]
pub(super) struct Out {
    pub send: Vec<(Node, Message)>,
    /// Numbers of writes to be synced, in order.
    pub writes: Vec<u64>,
    /// How often it came to lead.
    pub led: u64,
}

/// See the module.
pub(super) struct Member {
    machine: Machine<Option<Asker>>,
    group: Group,
    stored: Stored,
    /// Written, not yet synced; a number of each for the disk's queue.
    unsynced: VecDeque<(u64, NumberedWrite)>,
    writes: u64,
}

impl Member {
    pub fn new(stored: &Stored, me: Record, seed: u64, now: MonoTime) -> Member {
        let options = Options {
            member: MemberId(me.id),
            name: me.name,
            client_urls: me.client_urls,
            peer_urls: me.peer_urls,
            cluster_id_if_new: crate::store::CLUSTER.0,
            max_peer_count_if_new: 3,
            merge_after: std::time::Duration::ZERO,
        };
        let state = State::from_record(stored.snapshot.state.clone());
        Member {
            machine: Machine::new(options, state, stored.snapshot.position.index),
            group: Group::new(stored, seed, now),
            stored: stored.clone(),
            unsynced: VecDeque::new(),
            writes: 0,
        }
    }

    pub fn leads(&self) -> bool {
        self.machine.is_ready()
    }

    /// What it made of the log.
    pub fn state(&self) -> Option<&State> {
        Some(self.machine.state())
    }

    /// What its disk holds after it died: all that was synced, and of the rest a part, in order.
    pub fn crash(self, rng: &mut Rng, counts: &mut Counts) -> Stored {
        let mut stored = self.stored;
        let kept = rng.below(self.unsynced.len() + 1);
        counts.add_many("pd_crash_lost_writes", (self.unsynced.len() - kept) as u64);
        for (_, numbered) in self.unsynced.into_iter().take(kept) {
            stored.apply(&numbered.write);
        }
        stored
    }

    pub fn begin(&mut self, now: MonoTime, wall: WallTime, out: &mut Out) {
        self.step_group(now, wall, Vec::new(), out);
    }

    pub fn on_tick(&mut self, now: MonoTime, wall: WallTime, out: &mut Out) {
        self.step_group(now, wall, vec![group::Event::Tick], out);
    }

    pub fn on_message(&mut self, now: MonoTime, wall: WallTime, from: Node, message: Message, out: &mut Out) {
        match message {
            Message::Group(message) => self.step_group(now, wall, vec![group::Event::Message(message)], out),
            Message::Ask { id, request } => self.ask(now, wall, Some(Asker { node: from, id }), request, out),
            Message::Answer { .. } => {}
        }
    }

    pub fn transfer(&mut self, now: MonoTime, wall: WallTime, to: MemberId, out: &mut Out) {
        self.ask(now, wall, None, Request::TransferLeader(to), out);
    }

    /// The write of this number and all before it are durable.
    pub fn on_synced(&mut self, now: MonoTime, wall: WallTime, number: u64, out: &mut Out) {
        let mut events = Vec::new();
        while let Some((_, numbered)) = self.unsynced.pop_front_if(|(of, _)| *of <= number) {
            self.stored.apply(&numbered.write);
            send_all(numbered.send_after, out);
            if numbered.number > 0 {
                events.push(group::Event::Persisted { number: numbered.number });
            }
        }
        self.step_group(now, wall, events, out);
    }

    fn ask(&mut self, now: MonoTime, wall: WallTime, asker: Option<Asker>, request: Request, out: &mut Out) {
        let effects = self.machine.step(now, wall, [machine::Event::Request(asker, request)]);
        let events = self.carry_out(effects, out);
        if !events.is_empty() {
            self.step_group(now, wall, events, out);
        }
    }

    fn step_group(&mut self, now: MonoTime, wall: WallTime, events: Vec<group::Event>, out: &mut Out) {
        let mut events = Some(events);
        while let Some(now_events) = events.take() {
            let effects = self.group.step(now, now_events);
            assert!(effects.failed.is_none(), "a member cannot go on: {:?}", effects.failed);
            send_all(effects.send, out);
            for numbered in effects.writes {
                self.writes += 1;
                out.writes.push(self.writes);
                self.unsynced.push_back((self.writes, numbered));
            }
            out.led += effects.events.iter().filter(|event| **event == LogEvent::Leads).count() as u64;
            let step = self
                .machine
                .step(now, wall, effects.events.into_iter().map(machine::Event::Log));
            events = Some(self.carry_out(step, out)).filter(|events| !events.is_empty());
        }
    }

    fn carry_out(&mut self, effects: machine::Effects<Option<Asker>>, out: &mut Out) -> Vec<group::Event> {
        let answers = effects.reply.into_iter().filter_map(|(asker, reply)| Some((asker?, reply)));
        out.send
            .extend(answers.map(|(Asker { node, id }, reply)| (node, Message::Answer { id, reply })));
        let propose = Some(effects.propose).filter(|propose| !propose.is_empty());
        let snapshot = effects.snapshot.map(|(index, state)| group::Event::Snapshot { index, state });
        propose
            .map(group::Event::Propose)
            .into_iter()
            .chain(snapshot)
            .chain(effects.transfer.map(group::Event::TransferLeader))
            .collect()
    }
}

fn send_all(messages: Vec<GroupMessage>, out: &mut Out) {
    for message in messages {
        let to = message.raft.as_ref().and_then(|raft| raft.to).map_or(0, |peer| peer.id);
        out.send.push((Node::Store(to), Message::Group(Box::new(message))));
    }
}
