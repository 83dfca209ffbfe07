//! What a node does: tick, and handle what is ready.

use protobuf::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, EntryType, Message};
use raft::{Config, RawNode};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::disk::Disk;

/// A leader says that it is there every 2 ticks; a follower that hears nothing for 10 to 19 ticks campaigns.
const HEARTBEAT_TICKS: usize = 2;
const ELECTION_TICKS: usize = 10;

pub type Node = RawNode<Disk>;

pub fn new_node(id: u64, disk: Disk) -> Node {
    let config = Config {
        id,
        applied: disk.applied_index,
        election_tick: ELECTION_TICKS,
        heartbeat_tick: HEARTBEAT_TICKS,
        pre_vote: true,
        check_quorum: true,
        ..Config::default()
    };
    Node::new(&config, disk, &slog::Logger::root(slog::Discard, slog::o!())).expect("the configuration is valid")
}

/// One tick of this node's clock. How long it waits for a leader is drawn anew for each term, else two nodes that wait
/// equally long could split the votes for ever. The crate draws from a source we cannot seed, so we overrule it.
pub fn tick(node: &mut Node, seed: u64) {
    let (id, term) = (node.raft.id, node.raft.term);
    let mixed = seed ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ term.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    let wait = SmallRng::seed_from_u64(mixed).random_range(ELECTION_TICKS..2 * ELECTION_TICKS);
    node.raft.set_randomized_election_timeout(wait);
    node.tick();
}

/// Handles one `Ready`: write, make durable, send, apply. Returns the messages to send.
pub fn on_ready(node: &mut Node) -> Vec<Message> {
    let mut ready = node.ready();
    let number = ready.number();
    // 1. A leader's messages may leave while its own disk is still busy.
    let mut sent = ready.take_messages();
    // 2. Write: a snapshot that came in, new entries, the vote and the term.
    let disk = node.mut_store();
    if !ready.snapshot().is_empty() {
        disk.install(ready.snapshot());
    }
    disk.append(ready.entries());
    if let Some(hard_state) = ready.hs() {
        disk.hard_state = hard_state.clone();
    }
    // 3. A real store syncs its disk here. Votes and answers to appends may leave only now: they are promises.
    sent.extend(ready.take_persisted_messages());
    let committed = ready.take_committed_entries();
    node.advance_append_async(ready);
    node.on_persist_ready(number);
    // 4. Apply what a majority holds. Every node applies the same entries in the same order: that is all of Raft's promise.
    committed.into_iter().for_each(|entry| apply(node, entry));
    let applied_index = node.store().applied_index;
    node.advance_apply_to(applied_index);
    sent
}

fn apply(node: &mut Node, entry: Entry) {
    node.mut_store().applied_index = entry.index;
    match entry.get_entry_type() {
        EntryType::EntryNormal if entry.data.is_empty() => {} // the first entry of a new leader
        EntryType::EntryNormal => {
            let line = String::from_utf8_lossy(&entry.data).into_owned();
            node.mut_store().applied.push(line);
        }
        EntryType::EntryConfChange => unreachable!("this example proposes the newer form alone"),
        EntryType::EntryConfChangeV2 => {
            let change = ConfChangeV2::parse_from_bytes(&entry.data).expect("a leader wrote it");
            node.mut_store().members = node.apply_conf_change(&change).expect("a committed change can be applied");
        }
    }
}

pub fn conf_change(changes: &[(ConfChangeType, u64)]) -> ConfChangeV2 {
    let single = |&(kind, node_id): &(ConfChangeType, u64)| {
        let mut single = ConfChangeSingle {
            node_id,
            ..ConfChangeSingle::default()
        };
        single.set_change_type(kind);
        single
    };
    let mut change = ConfChangeV2::default();
    change.set_changes(changes.iter().map(single).collect());
    change
}
