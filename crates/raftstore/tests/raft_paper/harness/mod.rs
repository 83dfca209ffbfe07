//! Raft nodes on one thread: a disk that forgets what was not synced, a node that runs `Ready`, a network that can be cut.

mod disk;
mod message;
mod network;
mod node;

pub use disk::{Disk, FIRST, Log};
pub use message::{
    append, append_answer, change, change_now, conf_change, entry, entry_with, heartbeat, kinds, message, refused, vote_answer,
    vote_request,
};
pub use network::Network;
pub use node::{ELECTION_TICKS, HEARTBEAT_TICKS, Node, draw_election_ticks};
