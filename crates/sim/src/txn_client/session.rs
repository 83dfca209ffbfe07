//! [`Session`]: what a program knows of the cluster and how it asks it: finds the region, asks its leader, learns from refusals, asks
//! again until its patience ends. Every request of a transaction may be asked twice, so an answer that was lost costs only time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, Ts};
use proto::metapb::{Peer, Region};
use txn::Key;

use super::program::{Port, join_all};
use crate::client::Patience;
use crate::message::{Message, TxnAct, TxnReply, TxnRequest, TxnResult, Way};
use crate::network::Node;
use crate::rng::Rng;
use crate::routes::{Route, Routes};

/// Share of reads that go to any copy of a region as replica reads, and as many as stale ones.
const AWAY: f64 = 0.1;

/// Why a program does not get on.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// Its patience ended. What it asked for may have been done, or be done later.
    GaveUp(String),
    /// The store said no.
    Refused(Arc<txn::Error>),
}

pub type Attempted<T> = Result<T, Trouble>;

struct Inner {
    rng: RefCell<Rng>,
    routes: RefCell<Routes>,
    patience: Patience,
}

/// Shared by all programs of a client; each copy with a deadline of its own.
#[derive(Clone)]
pub struct Session {
    pub port: Port,
    inner: Rc<Inner>,
    deadline: MonoTime,
}

/// Keys that went into one request, and what came of it.
pub struct Answered {
    pub keys: Vec<Key>,
    pub result: TxnResult,
}

impl Session {
    pub fn new(port: Port, rng: Rng, patience: Patience, belief: &[Region]) -> Session {
        let inner = Inner {
            rng: RefCell::new(rng),
            routes: RefCell::new(Routes::new(belief)),
            patience,
        };
        Session {
            deadline: port.now(),
            port,
            inner: Rc::new(inner),
        }
    }

    /// Forgets every route but these.
    pub fn believe(&self, belief: &[Region]) {
        *self.inner.routes.borrow_mut() = Routes::new(belief);
    }

    /// A session whose patience begins now.
    pub fn afresh(&self) -> Session {
        Session {
            deadline: self.port.now() + self.inner.patience.operation,
            ..self.clone()
        }
    }

    pub fn draw<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.inner.rng.borrow_mut())
    }

    pub fn on_located(&self, region: Region, leader: Peer) {
        self.inner.routes.borrow_mut().learn(region, Some(leader));
    }

    /// Waits a little, longer with each failure; an error once patience ended.
    pub async fn back_off(&self, failures: u32, why: &str) -> Attempted<()> {
        if self.port.now() >= self.deadline {
            return Err(Trouble::GaveUp(why.to_owned()));
        }
        let factor = self.draw(|rng| 0.5 + rng.unit());
        let wait = Duration::from_millis(5 << failures.min(5)).mul_f64(factor);
        self.port.sleep(wait).await;
        Ok(())
    }

    pub async fn pause(&self, mean: Duration) {
        if !mean.is_zero() {
            let span = self.draw(|rng| rng.exponential(mean));
            self.port.sleep(span).await;
        }
    }

    /// A timestamp that the placement driver gave after this call.
    pub async fn timestamp(&self) -> Attempted<Ts> {
        let mut failures = 0;
        loop {
            let ask = |id| Message::AskTimestamp { id };
            if let Some(Message::Timestamp { ts, .. }) = self.port.ask(Node::Pd, Duration::from_millis(500), ask).await {
                return Ok(ts);
            }
            failures += 1;
            self.back_off(failures, "no timestamp in time").await?;
        }
    }

    /// Asks the region of one key.
    pub async fn call(&self, key: &Key, act: impl Fn() -> TxnAct) -> Attempted<TxnReply> {
        let answers = self.call_all(vec![key.clone()], |_, _| act()).await?;
        let answer = answers.into_iter().next().expect("one key makes one request");
        answer.result.map_err(Trouble::Refused)
    }

    /// Asks all regions of these keys, side by side, until each has answered for itself. `act` is given the keys of one region, and
    /// whether they may have been in a request before.
    pub async fn call_all(&self, keys: Vec<Key>, act: impl Fn(&[Key], bool) -> TxnAct) -> Attempted<Vec<Answered>> {
        let (mut left, mut done, mut failures) = (keys, Vec::new(), 0);
        loop {
            let groups = self.group(std::mem::take(&mut left), failures % 4 == 3).await?;
            let attempts = groups.into_iter().map(|(route, keys)| {
                let act = act(&keys, failures > 0);
                async move { (self.attempt(&route, act).await, keys) }
            });
            let mut why = String::new();
            for (attempt, keys) in join_all(attempts).await {
                match attempt {
                    Ok(result) => done.push(Answered { keys, result }),
                    Err(reason) => {
                        left.extend(keys);
                        why = reason;
                    }
                }
            }
            if left.is_empty() {
                return Ok(done);
            }
            failures += 1;
            self.back_off(failures, &why).await?;
        }
    }

    /// Whether one region holds all these keys, as far as the client knows.
    pub fn is_one_region(&self, keys: &[Key]) -> bool {
        let routes = self.inner.routes.borrow();
        let id = |key: &Key| routes.find(key.encoded()).map(|route| route.region.id);
        keys.iter().all(|key| id(key).is_some() && id(key) == id(&keys[0]))
    }

    /// Keys by region.
    async fn group(&self, keys: Vec<Key>, ask: bool) -> Attempted<Vec<(Route, Vec<Key>)>> {
        if ask {
            self.locate(&keys[0]).await;
        }
        let mut groups: BTreeMap<u64, (Route, Vec<Key>)> = BTreeMap::new();
        for key in keys {
            let route = self.find(&key).await?;
            let (_, group) = groups.entry(route.region.id).or_insert_with(|| (route, Vec::new()));
            group.push(key);
        }
        Ok(groups.into_values().collect())
    }

    async fn find(&self, key: &Key) -> Attempted<Route> {
        let mut failures = 0;
        loop {
            let found = self.inner.routes.borrow().find(key.encoded()).cloned();
            if let Some(route) = found {
                return Ok(route);
            }
            self.locate(key).await;
            failures += 1;
            self.back_off(failures, "no region in time").await?;
        }
    }

    /// Asks the placement driver; what it answers is learned as it comes in.
    async fn locate(&self, key: &Key) {
        let key = key.encoded().clone();
        let ask = |_| Message::Locate { key };
        self.port.ask(Node::Pd, Duration::from_millis(500), ask).await;
    }

    /// Asks once. An error tells why it is to be asked again.
    async fn attempt(&self, route: &Route, act: TxnAct) -> Result<TxnResult, String> {
        let is_read = !matches!(act, TxnAct::Command(_));
        let way = match self.draw(|rng| rng.unit()) {
            draw if is_read && draw < AWAY => Way::Replica,
            draw if is_read && draw < 2.0 * AWAY => Way::Stale,
            _ => Way::Leader,
        };
        let peer = match route.leader {
            Some(leader) if way == Way::Leader => leader,
            _ => self.draw(|rng| *rng.pick(&route.region.peers)),
        };
        let node = Node::Store(peer.store_id);
        let ctx = route.context(&peer, way != Way::Leader);
        let ask = |id| Message::TxnRequest(TxnRequest { id, ctx, act, way });
        let Some(Message::TxnResponse(response)) = self.port.ask(node, self.inner.patience.attempt, ask).await else {
            if !self.inner.patience.stubborn {
                self.inner.routes.borrow_mut().forget_leader(peer.store_id);
            }
            return Err("no answer in time".into());
        };
        match response.result {
            Err(error) => match &*error {
                txn::Error::Region { source, .. } => {
                    self.inner.routes.borrow_mut().on_refusal(source.clone(), Some(node));
                    Err(source.to_string())
                }
                _ => Ok(Err(error)),
            },
            Ok(reply) => Ok(Ok(reply)),
        }
    }
}
