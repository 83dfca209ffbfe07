//! A pool on one thread: its servers with their connections, behind the snapshot that the control plane published last.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use base::MonoTime;
use rand::rngs::SmallRng;
use rand::{RngCore as _, SeedableRng as _};

use crate::clock;
use crate::config::{PoolConfig, Protocol, ReadPolicy};
use crate::conn::{Conn, Pending, Purpose};
use crate::ferrite::Store;
use crate::health::Health;
use crate::meter::{Meter, NodeSheet};
use crate::redis::Bucket;
use crate::redis::split::Splitter;
use crate::resp::write::Version;
use crate::topology::{NOBODY, PoolPlan, Topology};

/// Private connections of a server that are kept for the next who wants one.
const IDLE_MAX: usize = 16;
/// How often a request may be sent on.
const HOPS_MAX: u8 = 5;

/// A server, as a thread sees it.
pub struct Node {
    pub addr: String,
    /// Whether its connections must say `READONLY` first.
    pub is_cluster_replica: bool,
    pub sheet: Arc<NodeSheet>,
    pub health: Arc<Health>,
    pub in_flight_max: Cell<usize>,
    /// Shared connections to database 0, by version of RESP: nearly all there is.
    plain: [RefCell<Vec<Option<Rc<Conn>>>>; 2],
    others: RefCell<BTreeMap<(u32, u8), Rc<Conn>>>,
    idle: RefCell<Vec<Rc<Conn>>>,
    retry_at: Cell<MonoTime>,
    pause: Cell<Duration>,
}

impl Node {
    /// A connection was made.
    pub fn came_up(&self) {
        self.retry_at.set(MonoTime(0));
        self.pause.set(Duration::ZERO);
    }

    /// A connection could not be made; for a while none is tried.
    pub fn went_down(&self) {
        self.retry_at.set(MonoTime::now() + crate::conn::pause(&self.pause));
    }

    /// What requests are told that it cannot take.
    pub fn down_text(&self) -> String {
        format!("ERR server {} cannot be reached", self.addr)
    }

    /// A shared connection; `lane` is the same for all requests of a client, so that they stay in order. `None` while the server is left
    /// alone after a failure.
    pub fn shared(self: &Rc<Node>, pool: &Rc<Pool>, purpose: Purpose, lane: u64) -> Option<Rc<Conn>> {
        if purpose.db == 0 {
            let mut conns = self.plain[purpose.version as usize].borrow_mut();
            let count = conns.len().max(1) as u64;
            let place = conns.get_mut((lane % count) as usize)?;
            if let Some(conn) = place
                && !conn.is_dead()
            {
                return Some(Rc::clone(conn));
            }
            let conn = self.open(pool, purpose, false)?;
            *place = Some(Rc::clone(&conn));
            return Some(conn);
        }
        let key = (purpose.db, purpose.version as u8);
        let mut others = self.others.borrow_mut();
        if let Some(conn) = others.get(&key)
            && !conn.is_dead()
        {
            return Some(Rc::clone(conn));
        }
        let conn = self.open(pool, purpose, false)?;
        others.insert(key, Rc::clone(&conn));
        Some(conn)
    }

    fn open(self: &Rc<Node>, pool: &Rc<Pool>, purpose: Purpose, is_private: bool) -> Option<Rc<Conn>> {
        if clock::now() < self.retry_at.get() {
            return None;
        }
        Some(Conn::open(pool, self, purpose, is_private))
    }

    /// A connection of one's own; the error tells why there is none.
    pub fn private(self: &Rc<Node>, pool: &Rc<Pool>, purpose: Purpose) -> Result<Rc<Conn>, String> {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|conn| !conn.is_dead());
        if let Some(at) = idle.iter().position(|conn| conn.purpose == purpose) {
            return Ok(idle.swap_remove(at));
        }
        drop(idle);
        if pool.meter.sheet.private.get() >= pool.view().config.private_max as u64 {
            return Err("ERR too many connections of clients' own (private-max)".into());
        }
        self.open(pool, purpose, true).ok_or_else(|| self.down_text())
    }

    /// Gives a clean private connection back.
    pub fn give_back(&self, conn: Rc<Conn>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_MAX && !conn.is_dead() {
            idle.push(conn);
        } else {
            conn.retire();
        }
    }

    fn apply(&self, config: &PoolConfig) {
        self.in_flight_max.set(config.in_flight_max);
        for conns in &self.plain {
            let mut conns = conns.borrow_mut();
            conns.iter().skip(config.connections).flatten().for_each(|conn| conn.retire());
            conns.resize(config.connections, None);
        }
    }

    /// Ends all its shared and idle connections once nothing is in flight on them.
    fn retire(&self) {
        for conns in &self.plain {
            conns
                .borrow_mut()
                .iter_mut()
                .filter_map(Option::take)
                .for_each(|conn| conn.retire());
        }
        std::mem::take(&mut *self.others.borrow_mut())
            .values()
            .for_each(|conn| conn.retire());
        self.idle.borrow_mut().drain(..).for_each(|conn| conn.retire());
    }
}

/// What holds until the next plan.
pub struct View {
    pub plan: Arc<PoolPlan>,
    pub config: Arc<PoolConfig>,
    pub topology: Arc<Topology>,
    /// As in the topology.
    pub nodes: Vec<Rc<Node>>,
    /// The Ferrite cluster behind the pool, if that is what it has.
    pub store: Option<Rc<Store>>,
}

/// A pool on one thread.
pub struct Pool {
    pub meter: Rc<Meter>,
    view: RefCell<Rc<View>>,
    nodes: RefCell<BTreeMap<(String, bool), Rc<Node>>>,
    mirror: RefCell<Option<Weak<Pool>>>,
    random: RefCell<SmallRng>,
    /// Turns of reads over replicas.
    turn: Cell<usize>,
    pub splitter: RefCell<Splitter>,
    buckets: RefCell<BTreeMap<String, Bucket>>,
    is_memcached: bool,
}

impl Pool {
    /// As `plan` says.
    pub fn new(plan: Arc<PoolPlan>, meter: Rc<Meter>) -> Rc<Pool> {
        let is_memcached = plan.config.protocol == Protocol::Memcached;
        let pool = Rc::new(Pool {
            meter,
            view: RefCell::new(Rc::new(View {
                config: Arc::clone(&plan.config),
                topology: Arc::new(Topology::empty()),
                nodes: Vec::new(),
                store: None,
                plan: Arc::clone(&plan),
            })),
            nodes: RefCell::default(),
            mirror: RefCell::default(),
            random: RefCell::new(SmallRng::from_os_rng()),
            turn: Cell::new(0),
            splitter: RefCell::default(),
            buckets: RefCell::default(),
            is_memcached,
        });
        pool.apply(plan);
        pool
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.view().config.name.clone()
    }

    /// What holds now. Kept by a request for as long as it is dispatched.
    pub fn view(&self) -> Rc<View> {
        Rc::clone(&self.view.borrow())
    }

    /// Whether its clients speak memcached.
    pub fn is_memcached(&self) -> bool {
        self.is_memcached
    }

    /// Goes over to a new plan; connections to servers that stay, stay.
    pub fn apply(&self, plan: Arc<PoolPlan>) {
        let old = self.view();
        let keeps = speaks_alike(&old.config, &plan.config);
        if !keeps {
            std::mem::take(&mut *self.nodes.borrow_mut())
                .values()
                .for_each(|node| node.retire());
        }
        let nodes: Vec<_> = plan
            .topology
            .nodes
            .iter()
            .map(|info| {
                let is_replica = info.replica_of.is_some() && plan.topology.is_cluster();
                let node = self.node_of(&plan, &info.addr, is_replica);
                node.apply(&plan.config);
                node
            })
            .collect();
        let is_used = |node: &Rc<Node>| nodes.iter().any(|used| Rc::ptr_eq(used, node));
        self.nodes.borrow_mut().retain(|_, node| {
            let stays = is_used(node);
            if !stays {
                node.retire();
            }
            stays
        });
        let store = match plan.config.backend {
            crate::config::Backend::Ferrite if keeps && old.store.is_some() => old.store.clone(),
            crate::config::Backend::Ferrite => Some(Rc::new(Store::new(&plan.config, Arc::clone(&plan.cursors)))),
            _ => None,
        };
        *self.view.borrow_mut() = Rc::new(View {
            config: Arc::clone(&plan.config),
            topology: Arc::clone(&plan.topology),
            plan,
            nodes,
            store,
        });
    }

    /// Ends all connections to servers.
    pub fn retire(&self) {
        self.nodes.borrow().values().for_each(|node| node.retire());
    }

    fn node_of(&self, plan: &PoolPlan, addr: &str, is_cluster_replica: bool) -> Rc<Node> {
        let mut nodes = self.nodes.borrow_mut();
        let node = nodes.entry((addr.to_owned(), is_cluster_replica)).or_insert_with(|| {
            let sheet = Arc::new(NodeSheet::default());
            self.meter.insight.add_node(&plan.config.name, addr, Arc::clone(&sheet));
            let node = Node {
                addr: addr.into(),
                is_cluster_replica,
                sheet,
                health: plan.health.of(addr),
                in_flight_max: Cell::new(0),
                plain: Default::default(),
                others: RefCell::default(),
                idle: RefCell::default(),
                retry_at: Cell::new(MonoTime(0)),
                pause: Cell::new(Duration::ZERO),
            };
            node.apply(&plan.config);
            Rc::new(node)
        });
        Rc::clone(node)
    }

    /// Sets the pool that requests are mirrored to.
    pub fn set_mirror(&self, mirror: Option<&Rc<Pool>>) {
        *self.mirror.borrow_mut() = mirror.map(Rc::downgrade);
    }

    /// The pool that requests are mirrored to.
    pub fn mirror(&self) -> Option<Rc<Pool>> {
        self.mirror.borrow().as_ref()?.upgrade()
    }

    /// Index of the server of `key`, or [`NOBODY`].
    pub fn find(&self, view: &View, key: &[u8]) -> u16 {
        view.topology.find(key, || self.random.borrow_mut().next_u32())
    }

    /// The server at `index`, or for a read one of its replicas, as the pool's policy has it.
    pub fn pick<'a>(&self, view: &'a View, index: u16, is_read: bool) -> Option<&'a Rc<Node>> {
        let policy = view.config.reads;
        if is_read && policy != ReadPolicy::Primary && index != NOBODY {
            let replicas = view.topology.replicas.get(usize::from(index))?;
            let healthy = |at: &&u16| view.topology.nodes.get(usize::from(**at)).is_some_and(|node| node.is_healthy);
            let probe = |at: u16| {
                view.topology
                    .nodes
                    .get(usize::from(at))
                    .map_or(u64::MAX, |node| node.probe_micros)
            };
            let chosen = match policy {
                ReadPolicy::Nearest => replicas
                    .iter()
                    .filter(healthy)
                    .copied()
                    .chain([index])
                    .min_by_key(|at| probe(*at)),
                _ => {
                    let turn = self.turn.get();
                    self.turn.set(turn.wrapping_add(1));
                    let count = replicas.iter().filter(healthy).count();
                    turn.checked_rem(count)
                        .and_then(|skip| replicas.iter().filter(healthy).nth(skip).copied())
                }
            };
            if let Some(node) = chosen.and_then(|at| view.nodes.get(usize::from(at))) {
                return Some(node);
            }
        }
        view.nodes.get(usize::from(index))
    }

    /// Any server that may be asked.
    pub fn any(&self, view: &View) -> u16 {
        let healthy: Vec<u16> = view
            .topology
            .primaries()
            .filter(|at| view.topology.nodes.get(usize::from(*at)).is_some_and(|node| node.is_healthy))
            .collect();
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        turn.checked_rem(healthy.len())
            .and_then(|at| healthy.get(at).copied())
            .unwrap_or(0)
    }

    /// Sends a request to a server on a shared connection; what cannot be sent fails.
    pub fn send(self: &Rc<Pool>, node: Option<&Rc<Node>>, purpose: Purpose, lane: u64, request: &[u8], mut pending: Pending) {
        let view = self.view.borrow();
        let has_others = pending.is_read && view.config.reads != ReadPolicy::Primary;
        let may_hedge = has_others && !view.config.hedge_after.0.is_zero();
        if (view.topology.is_cluster() || may_hedge) && pending.again.is_none() {
            pending.again = Some(Rc::from(request));
        }
        drop(view);
        let Some(node) = node else {
            self.suspect();
            return pending.fail("ERR no server is known for this key now");
        };
        match node.shared(self, purpose, lane) {
            Some(conn) => conn.send(request, pending),
            None if has_others => self.hedge(node, purpose, request, pending),
            None => pending.fail(&node.down_text()),
        }
    }

    /// Asks another server of the same keys for what `slow` did not answer, or not yet.
    pub fn hedge(self: &Rc<Pool>, slow: &Rc<Node>, purpose: Purpose, request: &[u8], mut pending: Pending) {
        pending.is_read = false;
        let view = self.view();
        let lane = pending.to.as_ref().map_or(0, |to| to.id);
        match other_of(&view, slow).and_then(|node| node.shared(self, purpose, lane)) {
            Some(conn) => {
                self.meter.sheet.hedges.add(1);
                pending.sent = clock::now();
                conn.send(request, pending);
            }
            None => pending.fail(&slow.down_text()),
        }
    }

    /// Whether `user` keeps within its rate on this thread with one more request.
    pub fn may_pass(&self, user: &str, rate: u32) -> bool {
        let mut buckets = self.buckets.borrow_mut();
        if let Some(bucket) = buckets.get_mut(user) {
            return bucket.take(rate);
        }
        buckets.entry(user.into()).or_default().take(rate)
    }

    /// Something went wrong with a server: whoever knows better should look.
    pub fn suspect(&self) {
        self.view.borrow().plan.stale.notify_one();
    }

    /// Whether a reply sends the request elsewhere.
    pub fn redirects(&self, _conn: &Conn, pending: &Pending, reply: &[u8]) -> bool {
        let is_moved = reply.starts_with(b"-MOVED ");
        if is_moved || reply.starts_with(b"-CLUSTERDOWN") || reply.starts_with(b"-READONLY") {
            self.suspect();
        }
        (is_moved || reply.starts_with(b"-ASK ")) && pending.again.is_some() && pending.hops < HOPS_MAX
    }

    /// Sends a request on to where `reply` says.
    pub fn redirect(self: &Rc<Pool>, conn: &Conn, mut pending: Pending, reply: &[u8]) {
        let Some(addr) = redirect_addr(reply, &conn.node.addr) else {
            return pending.fail("ERR the server sent a redirection that cannot be read");
        };
        let Some(request) = pending.again.clone() else {
            return pending.fail("ERR the request cannot be sent again");
        };
        self.meter.sheet.redirects.add(1);
        pending.hops += 1;
        let plan = Arc::clone(&self.view.borrow().plan);
        let node = self.node_of(&plan, &addr, false);
        let purpose = Purpose {
            version: conn.purpose.version,
            db: 0,
        };
        let lane = pending.to.as_ref().map_or(0, |to| to.id);
        let Some(target) = node.shared(self, purpose, lane) else {
            return pending.fail(&node.down_text());
        };
        if reply.starts_with(b"-ASK ") {
            target.send(b"*1\r\n$6\r\nASKING\r\n", Pending::new(None, 0, 0));
        }
        pending.sent = clock::now();
        target.send(&request, pending);
    }
}

/// Of a primary and its replicas, the healthy one that answers probes soonest, but for `slow`.
fn other_of<'a>(view: &'a View, slow: &Rc<Node>) -> Option<&'a Rc<Node>> {
    let topology = &view.topology;
    let at = view.nodes.iter().position(|node| Rc::ptr_eq(node, slow))?;
    let primary = topology.nodes.get(at)?.replica_of.unwrap_or(at as u16);
    let replicas = topology.replicas.get(usize::from(primary))?;
    let candidates = replicas.iter().copied().chain([primary]).map(usize::from);
    candidates
        .filter(|candidate| *candidate != at)
        .filter_map(|candidate| Some((topology.nodes.get(candidate)?, view.nodes.get(candidate)?)))
        .filter(|(info, _)| info.is_healthy)
        .min_by_key(|(info, _)| info.probe_micros)
        .map(|(_, node)| node)
}

/// Whether connections to servers made for one configuration serve another.
fn speaks_alike(old: &PoolConfig, new: &PoolConfig) -> bool {
    let of = |config: &PoolConfig| {
        (
            (config.server_user.clone(), config.server_password.clone()),
            (
                config.server_tls,
                config.server_tls_ca.clone(),
                config.server_tls_name.clone(),
            ),
            (config.backend, config.ferrite_prefix.clone()),
            (config.backend == crate::config::Backend::Ferrite).then(|| config.servers.clone()),
        )
    };
    of(old) == of(new)
}

/// `HOST:PORT` of `-MOVED SLOT HOST:PORT`; without a host it is that of `from`.
fn redirect_addr(reply: &[u8], from: &str) -> Option<String> {
    let text = std::str::from_utf8(reply).ok()?;
    let addr = text.trim_end().split(' ').nth(2)?;
    let (host, port) = addr.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    if host.is_empty() {
        return Some(format!("{}:{port}", from.rsplit_once(':')?.0));
    }
    // IPv6 comes without brackets.
    let is_bare = host.contains(':') && !host.starts_with('[');
    Some(if is_bare {
        format!("[{host}]:{port}")
    } else {
        addr.to_owned()
    })
}

/// Connections for memcached's text and meta commands.
pub const TEXT: Purpose = Purpose {
    version: Version::Resp2,
    db: 0,
};
/// Connections for memcached's binary protocol: a server takes what a connection begins with for all that follows.
pub const BINARY: Purpose = Purpose {
    version: Version::Resp3,
    db: 0,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_are_read() {
        let read = |text: &str| redirect_addr(text.as_bytes(), "10.0.0.1:7");
        assert_eq!(read("-MOVED 3999 127.0.0.1:6381\r\n"), Some("127.0.0.1:6381".into()));
        assert_eq!(read("-ASK 3999 :6381\r\n"), Some("10.0.0.1:6381".into()));
        assert_eq!(read("-MOVED 1 ::1:6381\r\n"), Some("[::1]:6381".into()));
        assert_eq!(read("-MOVED 1\r\n"), None);
        assert_eq!(read("-MOVED 1 host:x\r\n"), None);
    }
}
