//! One raft node and the loop around it: take what is ready, write, sync, send, apply.

use std::collections::VecDeque;

use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeV2, ConfState, Entry, EntryType, Message, MessageType};
use raft::{Config, Progress, RawNode, ReadState, StateRole};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{Disk, Log, append_answer, vote_answer};

pub const ELECTION_TICKS: usize = 10;
pub const HEARTBEAT_TICKS: usize = 2;

/// The election timeout of `node` under `seed`: uniform in `[ELECTION_TICKS, 2 * ELECTION_TICKS)`, the paper's range
/// (section 9.3). The crate draws from a source that cannot be seeded, so whoever owns the node overrules it.
pub fn draw_election_ticks(seed: u64, node: u64) -> usize {
    let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ node.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    SmallRng::seed_from_u64(mixed).random_range(ELECTION_TICKS..2 * ELECTION_TICKS)
}

fn config(id: u64, applied: u64) -> Config {
    Config {
        id,
        applied,
        election_tick: ELECTION_TICKS,
        heartbeat_tick: HEARTBEAT_TICKS,
        pre_vote: true,
        check_quorum: true,
        max_size_per_msg: 1 << 20,
        max_inflight_msgs: 256,
        batch_append: true,
        ..Config::default()
    }
}

pub struct Node {
    pub raw: RawNode<Disk>,
    /// Readiness numbers which are written but not synced, with the messages that wait for the sync.
    unsynced: VecDeque<(u64, Vec<Message>)>,
    /// With a slow disk nothing is synced until the test says so.
    pub slow_disk: bool,
    pub reads: Vec<ReadState>,
    /// Ticks without a leader after which it campaigns.
    pub election_ticks: usize,
}

impl Node {
    /// A fresh member of the group `1..=size`. Node `n` waits `ELECTION_TICKS + n` ticks before it campaigns, so node 1 is first.
    pub fn new(id: u64, size: u64) -> Self {
        Self::boot(id, Disk::with_terms(&(1..=size).collect::<Vec<_>>(), &[]))
    }

    pub fn boot(id: u64, disk: Disk) -> Self {
        Self::boot_with(id, disk, ELECTION_TICKS + id as usize)
    }

    pub fn boot_with(id: u64, disk: Disk, election_ticks: usize) -> Self {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let config = config(id, disk.seen.applied_index);
        let raw = RawNode::new(&config, disk, &logger).expect("the configuration is valid");
        Self {
            raw,
            unsynced: VecDeque::new(),
            slow_disk: false,
            reads: Vec::new(),
            election_ticks,
        }
    }

    /// What the next process of this node finds after the power went.
    pub fn crashed(&self) -> Self {
        Self::boot(self.id(), self.raw.store().after_crash())
    }

    /// A node which has been granted its pre-vote and now asks for votes.
    pub fn candidate(id: u64, size: u64) -> Self {
        let mut node = Self::new(id, size);
        node.campaign();
        node.answer_votes(MessageType::MsgRequestPreVoteResponse);
        assert_eq!(node.role(), StateRole::Candidate);
        node
    }

    /// A leader whose first entry is committed and known to all.
    pub fn leader(id: u64, size: u64) -> Self {
        let mut node = Self::new(id, size);
        node.win();
        node.acknowledge_all();
        assert_eq!(node.committed(), node.log().last_index());
        node
    }

    /// Campaigns, and everyone says yes in both rounds.
    pub fn win(&mut self) -> Vec<Message> {
        let mut sent = self.campaign();
        sent.extend(self.answer_votes(MessageType::MsgRequestPreVoteResponse));
        sent.extend(self.answer_votes(MessageType::MsgRequestVoteResponse));
        assert_eq!(self.role(), StateRole::Leader);
        sent
    }

    fn answer_votes(&mut self, kind: MessageType) -> Vec<Message> {
        // A pre-vote is asked and answered for the term to come.
        let term = self.term() + u64::from(kind == MessageType::MsgRequestPreVoteResponse);
        let id = self.id();
        self.others()
            .into_iter()
            .flat_map(|peer| self.step(vote_answer(kind, peer, id, term, true)))
            .collect()
    }

    /// Every other member answers that it holds all this leader's entries.
    pub fn acknowledge_all(&mut self) -> Vec<Message> {
        let others = self.others();
        self.acknowledge(&others)
    }

    pub fn acknowledge(&mut self, peers: &[u64]) -> Vec<Message> {
        let (id, term, last) = (self.id(), self.term(), self.raw.raft.raft_log.last_index());
        peers
            .iter()
            .flat_map(|&peer| self.step(append_answer(peer, id, term, last)))
            .collect()
    }

    pub fn campaign(&mut self) -> Vec<Message> {
        self.raw.campaign().expect("campaigning never fails");
        self.pump()
    }

    pub fn step(&mut self, message: Message) -> Vec<Message> {
        // A late answer of a peer that has left is the one thing refused; it leaves no trace.
        let _ = self.raw.step(message);
        self.pump()
    }

    pub fn propose(&mut self, data: &str) -> raft::Result<Vec<Message>> {
        self.raw.propose(Vec::new(), data.into())?;
        Ok(self.pump())
    }

    pub fn propose_change(&mut self, change: ConfChangeV2) -> raft::Result<Vec<Message>> {
        self.raw.propose_conf_change(Vec::new(), change)?;
        Ok(self.pump())
    }

    pub fn tick(&mut self) -> Vec<Message> {
        self.raw.raft.set_randomized_election_timeout(self.election_ticks);
        self.raw.tick();
        self.pump()
    }

    pub fn ticks(&mut self, count: usize) -> Vec<Message> {
        (0..count).flat_map(|_| self.tick()).collect()
    }

    /// Handles everything that is ready; returns what may be sent by now.
    pub fn pump(&mut self) -> Vec<Message> {
        let mut sent = Vec::new();
        while self.raw.has_ready() {
            sent.extend(self.on_ready());
            if !self.slow_disk {
                sent.extend(self.sync());
            }
        }
        sent
    }

    fn on_ready(&mut self) -> Vec<Message> {
        let mut ready = self.raw.ready();
        let sent = ready.take_messages();
        self.reads.extend(ready.take_read_states());
        let disk = self.raw.mut_store();
        if !ready.snapshot().is_empty() {
            disk.install(ready.snapshot());
        }
        disk.append(ready.entries());
        if let Some(hard_state) = ready.hs() {
            disk.seen.hard_state = hard_state.clone();
        }
        self.unsynced.push_back((ready.number(), ready.take_persisted_messages()));
        let committed = ready.take_committed_entries();
        self.raw.advance_append_async(ready);
        committed.into_iter().for_each(|entry| self.apply(entry));
        sent
    }

    /// All that is written becomes durable; returns the messages that waited for it.
    pub fn sync(&mut self) -> Vec<Message> {
        self.raw.mut_store().sync();
        let unsynced = std::mem::take(&mut self.unsynced);
        if let Some((number, _)) = unsynced.back() {
            self.raw.on_persist_ready(*number);
            // For a snapshot: raft refuses to hear that it is applied before it is durable.
            self.raw.advance_apply_to(self.log().applied_index);
        }
        unsynced.into_iter().flat_map(|(_, messages)| messages).collect()
    }

    fn apply(&mut self, entry: Entry) {
        let log = &mut self.raw.mut_store().seen;
        assert_eq!(entry.index, log.applied_index + 1, "entries are applied in order, each once");
        log.applied_index = entry.index;
        let index = entry.index;
        match entry.get_entry_type() {
            EntryType::EntryNormal if entry.data.is_empty() => {}
            EntryType::EntryNormal => log
                .applied
                .push(String::from_utf8(entry.data.to_vec()).expect("tests propose text")),
            EntryType::EntryConfChange => self.apply_change(&ConfChange::parse_from_bytes(&entry.data).expect("raft wrote it")),
            EntryType::EntryConfChangeV2 => {
                self.apply_change(&ConfChangeV2::parse_from_bytes(&entry.data).expect("raft wrote it"))
            }
        }
        self.raw.advance_apply_to(index);
    }

    fn apply_change(&mut self, change: &impl AppliesTo) {
        let members = change.apply_to(&mut self.raw).expect("a committed change can be applied");
        self.raw.mut_store().seen.conf_state = members;
    }

    pub fn id(&self) -> u64 {
        self.raw.raft.id
    }

    pub fn role(&self) -> StateRole {
        self.raw.raft.state
    }

    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    pub fn leader_id(&self) -> u64 {
        self.raw.raft.leader_id
    }

    pub fn committed(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    pub fn log(&self) -> &Log {
        &self.raw.store().seen
    }

    pub fn applied(&self) -> &[String] {
        &self.log().applied
    }

    pub fn members(&self) -> &ConfState {
        &self.log().conf_state
    }

    pub fn progress(&self, peer: u64) -> &Progress {
        self.raw.raft.prs().get(peer).expect("a member")
    }

    fn others(&self) -> Vec<u64> {
        let id = self.id();
        self.members().voters.iter().copied().filter(|&peer| peer != id).collect()
    }
}

/// Both wire forms of a membership change.
trait AppliesTo {
    fn apply_to(&self, raw: &mut RawNode<Disk>) -> raft::Result<ConfState>;
}

impl AppliesTo for ConfChange {
    fn apply_to(&self, raw: &mut RawNode<Disk>) -> raft::Result<ConfState> {
        raw.apply_conf_change(self)
    }
}

impl AppliesTo for ConfChangeV2 {
    fn apply_to(&self, raw: &mut RawNode<Disk>) -> raft::Result<ConfState> {
        raw.apply_conf_change(self)
    }
}
