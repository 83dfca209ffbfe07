//! Who is behind a pool and which key belongs to whom: immutable, made by the control plane, shared by all threads.

use std::sync::Arc;

use crate::command::Table;
use crate::config::PoolConfig;
use crate::hash::{Hash, SLOTS, slot, tagged};
use crate::ring::{Member, Ring};
use crate::users::User;

/// No server.
pub const NOBODY: u16 = u16::MAX;

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// `HOST:PORT`.
    pub addr: String,
    /// Id in the cluster; empty elsewhere.
    pub id: String,
    /// Of a replica, the index of its primary.
    pub replica_of: Option<u16>,
    /// Whether it may be asked; failing servers without ejection are asked still.
    pub is_healthy: bool,
    /// Time of its last probe in microseconds, for `nearest`.
    pub probe_micros: u64,
}

/// How a key finds its server.
#[derive(Clone, Debug)]
pub enum Router {
    /// All keys belong to one.
    One(u16),
    Ring {
        ring: Ring,
        hash: Hash,
        tag: Option<(u8, u8)>,
    },
    /// By slot; [`NOBODY`] where none is known.
    Slots(Arc<[u16; SLOTS]>),
}

/// A snapshot of all servers.
#[derive(Clone, Debug)]
pub struct Topology {
    pub nodes: Vec<NodeInfo>,
    pub router: Router,
    /// By index of primary, the replicas that may be asked.
    pub replicas: Vec<Vec<u16>>,
}

impl Topology {
    /// Nobody yet.
    pub fn empty() -> Topology {
        Topology {
            nodes: Vec::new(),
            router: Router::One(NOBODY),
            replicas: Vec::new(),
        }
    }

    /// The servers of a configuration. `is_out` tells which of them are not on the ring now.
    pub fn ring(config: &PoolConfig, is_out: impl Fn(&str) -> bool) -> Topology {
        let names = config.server_names();
        let mut members = Vec::new();
        let mut nodes = Vec::new();
        for name in names {
            let is_healthy = !is_out(&name.addr);
            if is_healthy || !config.eject {
                members.push(Member {
                    name: name.ring_name,
                    weight: name.weight,
                    index: nodes.len() as u16,
                });
            }
            nodes.push(NodeInfo {
                addr: name.addr,
                id: String::new(),
                replica_of: None,
                is_healthy,
                probe_micros: 0,
            });
        }
        // twemproxy sorts its servers by name, shorter names first; its modula depends on that.
        members.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
        let router = match nodes.len() {
            1 => Router::One(0),
            _ => Router::Ring {
                ring: Ring::new(config.distribution, &members),
                hash: config.hash,
                tag: config.tag(),
            },
        };
        Topology {
            replicas: vec![Vec::new(); nodes.len()],
            nodes,
            router,
        }
    }

    /// A primary with its replicas.
    pub fn primary(primary: String, replicas: Vec<String>) -> Topology {
        let info = |addr, replica_of| NodeInfo {
            addr,
            id: String::new(),
            replica_of,
            is_healthy: true,
            probe_micros: 0,
        };
        let count = replicas.len() as u16;
        let mut nodes = vec![info(primary, None)];
        nodes.extend(replicas.into_iter().map(|addr| info(addr, Some(0))));
        let mut lists = vec![Vec::new(); nodes.len()];
        lists[0] = (1..=count).collect();
        Topology {
            nodes,
            router: Router::One(0),
            replicas: lists,
        }
    }

    /// Index of the server of `key`, or [`NOBODY`]. `random` is asked where the distribution is random.
    pub fn find(&self, key: &[u8], random: impl FnOnce() -> u32) -> u16 {
        match &self.router {
            Router::One(index) => *index,
            Router::Slots(slots) => slots.get(usize::from(slot(key))).copied().unwrap_or(NOBODY),
            Router::Ring { ring, hash, tag } => {
                let key = tag.map_or(key, |tag| tagged(key, tag));
                let hash = if ring.is_random() { random() } else { hash.of(key) };
                ring.find(hash).unwrap_or(NOBODY)
            }
        }
    }

    /// By what the keys of one request are grouped: by slot where the servers insist on it, by server elsewhere.
    pub fn group(&self, key: &[u8], node: u16) -> u16 {
        match &self.router {
            Router::Slots(_) => slot(key),
            _ => node,
        }
    }

    /// Whether it is a cluster's.
    pub fn is_cluster(&self) -> bool {
        matches!(self.router, Router::Slots(_))
    }

    /// Indexes of primaries that may be asked.
    pub fn primaries(&self) -> impl Iterator<Item = u16> + '_ {
        let all = self.nodes.iter().enumerate();
        all.filter(|(_, node)| node.replica_of.is_none()).map(|(at, _)| at as u16)
    }
}

/// All that a thread wants to know of a pool.
pub struct PoolPlan {
    pub config: Arc<PoolConfig>,
    pub topology: Arc<Topology>,
    pub table: Arc<Table>,
    pub users: Arc<[Arc<User>]>,
    pub acceptor: Option<tls::Acceptor>,
    pub connector: Option<tls::Connector>,
    /// Where it listens, with the port that was found for 0.
    pub addr: std::net::SocketAddr,
    /// Asked when a redirection or a failure tells that the topology is old.
    pub stale: Arc<tokio::sync::Notify>,
    /// Failures in a row by server, written by the threads and read by the control plane.
    pub health: Arc<crate::health::Board>,
    /// Where walks over a Ferrite cluster stand.
    pub cursors: Arc<crate::ferrite::Cursors>,
}

/// All pools: what the control plane publishes.
#[derive(Default)]
pub struct Plan {
    pub pools: Vec<Arc<PoolPlan>>,
    pub slow: std::time::Duration,
    pub big: u64,
    pub drain: std::time::Duration,
}
