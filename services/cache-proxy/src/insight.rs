//! What all threads share to be looked at: counts, the slow log, the list of clients. Locked when somebody connects, looks or is slow, never
//! by an ordinary request.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base::WallTime;
use parking_lot::Mutex;

use crate::hot::Sketch;
use crate::meter::{HOT_SAMPLE, NodeSheet, Sheet};

/// Entries of the slow log.
const SLOW_MAX: usize = 128;

/// A request that took long.
#[derive(Clone, Debug)]
pub struct SlowRequest {
    /// Index of the command.
    pub command: u16,
    /// Front of its first key.
    pub key: Vec<u8>,
    pub pool: String,
    pub micros: u64,
}

/// An entry of the slow log.
#[derive(Clone, Debug)]
pub struct SlowEntry {
    pub id: u64,
    pub seconds: u64,
    pub request: SlowRequest,
}

/// A client that is connected.
#[derive(Debug)]
pub struct Card {
    pub id: u64,
    pub pool: String,
    pub addr: String,
    /// The address that it connected to.
    pub local: String,
    pub since: WallTime,
    /// Name and library, as the client says, and its user.
    pub told: Mutex<Told>,
    pub is_killed: AtomicBool,
}

/// What a client told of itself.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub name: String,
    pub library: String,
    pub version: String,
    pub user: String,
    pub db: u32,
    pub resp: u8,
}

/// What the threads share.
#[derive(Default)]
pub struct Insight {
    slow: Mutex<SlowLog>,
    clients: Mutex<BTreeMap<u64, Arc<Card>>>,
    pools: Mutex<Vec<(String, Arc<Sheet>)>>,
    nodes: Mutex<Vec<(String, String, Arc<NodeSheet>)>>,
    hot: Mutex<Vec<(String, Arc<Mutex<Sketch>>)>>,
    next_id: AtomicU64,
    /// Told when a client is to be killed: its thread looks.
    pub kills: tokio::sync::Notify,
}

#[derive(Default)]
struct SlowLog {
    entries: VecDeque<SlowEntry>,
    next: u64,
}

impl Insight {
    /// Logs a slow request.
    pub fn slow(&self, request: SlowRequest) {
        let mut log = self.slow.lock();
        let id = log.next;
        log.next += 1;
        log.entries.push_front(SlowEntry {
            id,
            seconds: WallTime::now().seconds(),
            request,
        });
        log.entries.truncate(SLOW_MAX);
    }

    /// The slow log of a pool, latest first.
    pub fn slow_entries(&self, pool: &str) -> Vec<SlowEntry> {
        let log = self.slow.lock();
        log.entries
            .iter()
            .filter(|entry| entry.request.pool == pool)
            .cloned()
            .collect()
    }

    /// Forgets the slow log of a pool.
    pub fn slow_reset(&self, pool: &str) {
        self.slow.lock().entries.retain(|entry| entry.request.pool != pool);
    }

    /// Enters a client; its id is unique in the process.
    pub fn enter(&self, pool: &str, addr: String, local: String) -> Arc<Card> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        let card = Arc::new(Card {
            id,
            pool: pool.into(),
            addr,
            local,
            since: WallTime::now(),
            told: Mutex::default(),
            is_killed: AtomicBool::new(false),
        });
        self.clients.lock().insert(id, Arc::clone(&card));
        card
    }

    /// The client left.
    pub fn leave(&self, id: u64) {
        self.clients.lock().remove(&id);
    }

    /// Clients of a pool, by id.
    pub fn clients(&self, pool: &str) -> Vec<Arc<Card>> {
        self.clients
            .lock()
            .values()
            .filter(|card| card.pool == pool)
            .cloned()
            .collect()
    }

    /// Marks clients to be closed, and wakes the threads.
    pub fn kill(&self, cards: &[Arc<Card>]) {
        cards.iter().for_each(|card| card.is_killed.store(true, Ordering::Relaxed));
        self.kills.notify_waiters();
    }

    /// Enters a thread's counts for a pool.
    pub fn add_pool(&self, pool: &str, sheet: Arc<Sheet>, hot: Arc<Mutex<Sketch>>) {
        self.pools.lock().push((pool.into(), sheet));
        self.hot.lock().push((pool.into(), hot));
    }

    /// Enters a thread's counts for a server.
    pub fn add_node(&self, pool: &str, addr: &str, sheet: Arc<NodeSheet>) {
        let mut nodes = self.nodes.lock();
        // Only the registry still holds counts of servers that left; theirs go.
        nodes.retain(|(.., sheet)| Arc::strong_count(sheet) > 1);
        nodes.push((pool.into(), addr.into(), sheet));
    }

    /// Counts of all pools, a row per thread.
    pub fn pools(&self) -> Vec<(String, Arc<Sheet>)> {
        self.pools.lock().clone()
    }

    /// Counts of all servers, a row per thread.
    pub fn nodes(&self) -> Vec<(String, String, Arc<NodeSheet>)> {
        self.nodes.lock().clone()
    }

    /// Keys of a pool that are asked for most, with estimates of their requests, the hottest first; and the biggest with their bytes.
    pub fn hot(&self, pool: &str) -> (Ranking, Ranking) {
        let mut counts = BTreeMap::<Vec<u8>, u64>::new();
        let mut big = BTreeMap::<Vec<u8>, u64>::new();
        for (_, sketch) in self.hot.lock().iter().filter(|(name, _)| name == pool) {
            let sketch = sketch.lock();
            for (key, count) in sketch.counts() {
                *counts.entry(key.to_vec()).or_default() += count * u64::from(HOT_SAMPLE);
            }
            for (key, bytes) in sketch.big() {
                let known = big.entry(key.to_vec()).or_default();
                *known = bytes.max(*known);
            }
        }
        (ranked(counts), ranked(big))
    }
}

/// Keys with a figure each, the largest first.
pub type Ranking = Vec<(Vec<u8>, u64)>;

fn ranked(counts: BTreeMap<Vec<u8>, u64>) -> Ranking {
    let mut ranked: Vec<_> = counts.into_iter().collect();
    ranked.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    ranked
}
