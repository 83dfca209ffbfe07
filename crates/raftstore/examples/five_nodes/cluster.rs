//! The nodes together: one clock, one network that delivers in order.

use std::collections::{BTreeMap, VecDeque};

use raft::eraftpb::{ConfChangeV2, Message, MessageType};
use raft::{SnapshotStatus, StateRole};

use super::disk::Disk;
use super::node::{Node, new_node, on_ready, tick};

/// Ticks after which a step that has not come to its end is taken to have failed.
const PATIENCE: u64 = 200;

pub struct Cluster {
    pub seed: u64,
    pub ticks: u64,
    pub nodes: BTreeMap<u64, Node>,
    network: VecDeque<Message>,
    pub snapshots_sent: u64,
}

impl Cluster {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            ticks: 0,
            nodes: BTreeMap::new(),
            network: VecDeque::new(),
            snapshots_sent: 0,
        }
    }

    /// Prints a line of the story.
    pub fn say(&self, text: impl AsRef<str>) {
        println!("  tick {:>3}  {}", self.ticks, text.as_ref());
    }

    /// One tick of every clock, then everything that follows from it.
    fn tick(&mut self) {
        self.ticks += 1;
        for node in self.nodes.values_mut() {
            tick(node, self.seed);
        }
        self.settle();
    }

    /// Handles what is ready and delivers messages until nothing moves any more. Messages to dead nodes are lost.
    pub fn settle(&mut self) {
        loop {
            for node in self.nodes.values_mut() {
                while node.has_ready() {
                    self.network.extend(on_ready(node));
                }
            }
            let Some(message) = self.network.pop_front() else { return };
            self.deliver(message);
        }
    }

    fn deliver(&mut self, message: Message) {
        let (from, to, is_snapshot) = (message.from, message.to, message.get_msg_type() == MessageType::MsgSnapshot);
        let arrived = self.nodes.get_mut(&to).is_some_and(|node| node.step(message).is_ok());
        if is_snapshot {
            self.snapshots_sent += 1;
            let status = if arrived {
                SnapshotStatus::Finish
            } else {
                SnapshotStatus::Failure
            };
            self.nodes
                .get_mut(&from)
                .into_iter()
                .for_each(|sender| sender.report_snapshot(to, status));
        }
    }

    /// Lets time pass until `done`.
    pub fn wait(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        let end = self.ticks + PATIENCE;
        while !done(self) {
            check(self.ticks < end, format!("{what}: not within {PATIENCE} ticks"))?;
            self.tick();
        }
        Ok(())
    }

    /// The leader of the latest term. An old one that is cut off may believe in itself a little longer.
    pub fn leader(&self) -> Option<u64> {
        let leaders = self.nodes.values().filter(|node| node.raft.state == StateRole::Leader);
        leaders.max_by_key(|node| node.raft.term).map(|node| node.raft.id)
    }

    pub fn leading(&mut self) -> Result<&mut Node, String> {
        let leader = self.leader().ok_or("nobody leads")?;
        Ok(self.nodes.get_mut(&leader).expect("it was found there"))
    }

    pub fn propose(&mut self, line: &str) -> Result<(), String> {
        self.leading()?
            .propose(Vec::new(), line.into())
            .map_err(|e| format!("propose {line}: {e}"))?;
        self.settle();
        Ok(())
    }

    pub fn change_members(&mut self, change: ConfChangeV2) -> Result<(), String> {
        self.leading()?
            .propose_conf_change(Vec::new(), change)
            .map_err(|e| format!("propose a conf change: {e}"))?;
        self.settle();
        Ok(())
    }

    pub fn start_empty(&mut self, id: u64) {
        self.nodes.insert(id, new_node(id, Disk::default()));
    }

    /// Whether every node has applied `lines` and agrees on exactly these voters.
    pub fn agrees(&self, lines: usize, voters: &[u64]) -> bool {
        self.nodes
            .values()
            .all(|node| node.store().applied.len() == lines && voters_of(node.store()) == voters)
    }
}

pub fn voters_of(disk: &Disk) -> Vec<u64> {
    let joint = !disk.members.voters_outgoing.is_empty();
    let mut voters = if joint { Vec::new() } else { disk.members.voters.clone() };
    voters.sort_unstable();
    voters
}

/// The error tells what does not hold.
pub fn check(holds: bool, what: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.into()) }
}
