//! Nodes and the messages between them, delivered in order until all is quiet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use raft::eraftpb::{Message, MessageType};
use raft::{SnapshotStatus, StateRole};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{Disk, ELECTION_TICKS, HEARTBEAT_TICKS, Node};

pub struct Network {
    nodes: BTreeMap<u64, Node>,
    /// Directed links `(from, to)` that carry nothing.
    cut: BTreeSet<(u64, u64)>,
    ignored: Vec<MessageType>,
    /// Share of messages lost on the way, and the source of that chance.
    loss: f64,
    chance: SmallRng,
    queue: VecDeque<Message>,
    /// Everything that arrived since the last call of `take_delivered`.
    delivered: Vec<Message>,
}

impl Network {
    /// A group of the voters `1..=size`, without a leader yet.
    pub fn new(size: u64) -> Self {
        Self::of((1..=size).map(|id| Node::new(id, size)))
    }

    pub fn of(nodes: impl IntoIterator<Item = Node>) -> Self {
        Self {
            nodes: nodes.into_iter().map(|node| (node.id(), node)).collect(),
            cut: BTreeSet::new(),
            ignored: Vec::new(),
            loss: 0.0,
            chance: SmallRng::seed_from_u64(1),
            queue: VecDeque::new(),
            delivered: Vec::new(),
        }
    }

    /// A group with node 1 as its leader.
    pub fn led(size: u64) -> Self {
        let mut network = Self::new(size);
        network.elect(1);
        network
    }

    /// Starts a process with an empty disk, which knows no group yet.
    pub fn start_empty(&mut self, id: u64) {
        self.nodes.insert(id, Node::boot(id, Disk::default()));
    }

    pub fn restart(&mut self, id: u64) {
        let restarted = self[id].crashed();
        self.nodes.insert(id, restarted);
    }

    pub fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    pub fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node of this network")
    }

    // Faults.

    pub fn cut(&mut self, a: u64, b: u64) {
        self.cut.extend([(a, b), (b, a)]);
    }

    pub fn isolate(&mut self, id: u64) {
        self.ids()
            .into_iter()
            .filter(|&other| other != id)
            .for_each(|other| self.cut(id, other));
    }

    pub fn ignore(&mut self, kind: MessageType) {
        self.ignored.push(kind);
    }

    pub fn lose(&mut self, share: f64, seed: u64) {
        self.loss = share;
        self.chance = SmallRng::seed_from_u64(seed);
    }

    /// All links work again.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.ignored.clear();
        self.loss = 0.0;
    }

    // Deeds. Each runs on until no message is under way.

    /// Lets `id` do something and delivers what comes of it.
    pub fn act(&mut self, id: u64, deed: impl FnOnce(&mut Node)) {
        deed(self.node(id));
        let sent = self.node(id).pump();
        self.queue.extend(sent);
        self.settle();
    }

    pub fn campaign(&mut self, id: u64) {
        self.act(id, |node| node.raw.campaign().expect("campaigning never fails"));
    }

    pub fn elect(&mut self, id: u64) {
        self.campaign(id);
        assert_eq!(self[id].role(), StateRole::Leader, "node {id} at term {}", self[id].term());
    }

    pub fn propose(&mut self, id: u64, data: &str) {
        self.act(id, |node| {
            node.raw.propose(Vec::new(), data.into()).expect("the leader takes proposals")
        });
    }

    pub fn transfer(&mut self, from: u64, to: u64) {
        self.act(from, |node| node.raw.transfer_leader(to));
    }

    pub fn deliver(&mut self, messages: Vec<Message>) {
        self.queue.extend(messages);
        self.settle();
    }

    /// One tick of every clock, then all messages it caused.
    pub fn tick(&mut self) {
        let sent: Vec<_> = self.nodes.values_mut().flat_map(Node::tick).collect();
        self.deliver(sent);
    }

    pub fn ticks(&mut self, count: usize) {
        (0..count).for_each(|_| self.tick());
    }

    /// Long enough for one round of heartbeats.
    pub fn beat(&mut self) {
        self.ticks(HEARTBEAT_TICKS);
    }

    /// Followers' clocks run until each has missed its leader for the least election timeout: they will vote again, but none
    /// has begun to campaign.
    pub fn run_out_leases(&mut self) {
        for node in self.nodes.values_mut().filter(|node| node.role() != StateRole::Leader) {
            let sent = node.ticks(ELECTION_TICKS);
            assert!(sent.is_empty(), "node {} campaigned", node.id());
        }
    }

    pub fn settle(&mut self) {
        while let Some(message) = self.queue.pop_front() {
            if self.is_lost(&message) {
                self.report(&message, SnapshotStatus::Failure);
                continue;
            }
            self.delivered.push(message.clone());
            self.report(&message, SnapshotStatus::Finish);
            let sent = self.node(message.to).step(message);
            self.queue.extend(sent);
        }
    }

    fn is_lost(&mut self, message: &Message) -> bool {
        let lost = self.loss > 0.0 && self.chance.random_bool(self.loss);
        lost || self.cut.contains(&(message.from, message.to))
            || self.ignored.contains(&message.get_msg_type())
            || !self.nodes.contains_key(&message.to)
    }

    /// Whoever carries snapshots must tell raft what became of them.
    fn report(&mut self, message: &Message, status: SnapshotStatus) {
        if message.get_msg_type() == MessageType::MsgSnapshot {
            self.node(message.from).raw.report_snapshot(message.to, status);
        }
    }

    // Views.

    pub fn take_delivered(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.delivered)
    }

    /// Nodes that believe they lead. More than one is legal, in different terms.
    pub fn leaders(&self) -> Vec<u64> {
        self.nodes()
            .filter(|node| node.role() == StateRole::Leader)
            .map(Node::id)
            .collect()
    }

    /// Every node has applied exactly `wanted`, from equal logs.
    pub fn must_have_applied(&self, wanted: &[&str]) {
        for node in self.nodes() {
            assert_eq!(node.applied(), wanted, "node {}", node.id());
        }
        self.must_have_equal_logs();
    }

    pub fn must_have_equal_logs(&self) {
        let first = self.nodes().next().expect("a network has nodes");
        for node in self.nodes() {
            assert_eq!(
                node.log().terms(),
                first.log().terms(),
                "nodes {} and {}",
                node.id(),
                first.id()
            );
        }
    }
}

impl std::ops::Index<u64> for Network {
    type Output = Node;

    fn index(&self, id: u64) -> &Node {
        &self.nodes[&id]
    }
}
