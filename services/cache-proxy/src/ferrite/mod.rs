//! A Ferrite cluster in place of cache servers: strings of Redis and items of memcached, kept durably, through the project's client.
//!
//! Each value lies in an envelope with its expiry and memcached's flags (`item`), so that any API version of the cluster serves. A change
//! that rests on what was there is a compare-and-swap, tried again if somebody was faster; an unknown outcome is told as such, never repeated.
//! Requests of one client that touch the same key keep their order ([`Lane`]).

mod item;
mod memcached;
mod redis;
mod scan;
mod string;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use client::{ClientOptions, RawClient};
use tokio::sync::OnceCell;

use crate::config::PoolConfig;
use crate::mailbox::Mailbox;
use crate::memcached::scan::Expected;
use crate::resp::write::Version;

pub use item::Item;
pub use redis::serves;
pub use scan::Cursors;

/// Tries of a compare-and-swap before the key is called too busy.
const TRIES_MAX: usize = 100;
/// Requests of one client that run at once.
const BATCH_MAX: usize = 128;

/// What a change comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing is written.
    None,
    Put(Item),
    Delete,
}

/// Outcome of a command on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub reply: Vec<u8>,
    pub change: Change,
}

/// The cluster, as a thread sees it; connected to when first asked.
pub struct Store {
    endpoints: Vec<String>,
    prefix: Vec<u8>,
    cursors: Arc<Cursors>,
    options: ClientOptions,
    client: OnceCell<RawClient>,
}

impl Store {
    /// Of a pool's configuration, with what its threads share.
    pub fn new(config: &PoolConfig, cursors: Arc<Cursors>) -> Store {
        Store {
            cursors,
            endpoints: config.server_names().into_iter().map(|name| name.addr).collect(),
            prefix: config.ferrite_prefix.clone().into_bytes(),
            options: ClientOptions {
                deadline: config.timeout_request.0,
                tls: crate::tls::of_servers(config),
                // A counter must not count twice.
                retry_undetermined: false,
                ..ClientOptions::default()
            },
            client: OnceCell::new(),
        }
    }

    async fn client(&self) -> Result<&RawClient, String> {
        let connect = || RawClient::connect(&self.endpoints, self.options.clone());
        self.client.get_or_try_init(connect).await.map_err(told)
    }

    fn key(&self, key: &[u8]) -> Bytes {
        [&self.prefix, key].concat().into()
    }

    /// Items of `keys`, in their order; what has expired is not there.
    pub async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Item>>, String> {
        let client = self.client().await?;
        let wire: Vec<Bytes> = keys.iter().map(|key| self.key(key)).collect();
        let now = base::WallTime::now().0;
        if let [key] = wire.as_slice() {
            let value = client.get(key.clone()).await.map_err(told)?;
            return Ok(vec![value.and_then(|value| Item::live(&value, now))]);
        }
        let pairs = client.batch_get(wire.clone()).await.map_err(told)?;
        let find = |key: &Bytes| {
            let at = pairs.binary_search_by(|pair| pair.0.cmp(key)).ok()?;
            Item::live(&pairs.get(at)?.1, now)
        };
        Ok(wire.iter().map(find).collect())
    }

    /// Sets a key, whatever was there.
    pub async fn put(&self, key: &[u8], item: &Item) -> Result<(), String> {
        self.client().await?.put(self.key(key), item.encode()).await.map_err(told)
    }

    /// Sets several keys, whatever was there; not one step.
    pub async fn put_many(&self, pairs: Vec<(Bytes, Item)>) -> Result<(), String> {
        let pairs: Vec<(Bytes, Bytes)> = pairs.iter().map(|(key, item)| (self.key(key), item.encode())).collect();
        self.client().await?.batch_put(pairs).await.map_err(told)
    }

    /// Removes everything under the prefix. Without one it would be the cluster that is emptied, so that is refused.
    pub async fn clear(&self) -> Result<(), String> {
        if self.prefix.is_empty() {
            return Err(
                "ERR this would remove everything in the cluster: it wants a ferrite-prefix in the pool's configuration".into(),
            );
        }
        let range = client::KeyRange::prefix(self.prefix.clone());
        self.client().await?.delete_range(range).await.map_err(told)
    }

    /// Changes a key in one step: `plan` is told what is there, and again if somebody was faster.
    pub async fn update(
        &self,
        key: &[u8],
        plan: impl Fn(Option<&Item>, u64) -> Result<Outcome, String>,
    ) -> Result<Vec<u8>, String> {
        let client = self.client().await?;
        let key = self.key(key);
        for _ in 0..TRIES_MAX {
            let found = client.get(key.clone()).await.map_err(told)?;
            let now = base::WallTime::now().0;
            let item = found.as_ref().and_then(|value| Item::live(value, now));
            let outcome = plan(item.as_ref(), now)?;
            let new = match &outcome.change {
                Change::None => return Ok(outcome.reply),
                Change::Put(item) => Some(item.encode()),
                Change::Delete if found.is_none() => return Ok(outcome.reply),
                Change::Delete => None,
            };
            let swap = client.compare_and_swap(key.clone(), found, new).await.map_err(told)?;
            if swap.done {
                return Ok(outcome.reply);
            }
        }
        Err("TRYAGAIN the key is changed too often by others".into())
    }
}

fn told(error: client::Error) -> String {
    match error.hint() {
        client::Hint::Undetermined => "ERR it is unknown whether the write was done: read before writing again".into(),
        _ => format!("ERR the Ferrite cluster: {error}"),
    }
}

/// What is done with a request.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Redis {
        name: String,
        version: Version,
        args: Vec<Bytes>,
    },
    Memcached(Box<memcached::Call>),
}

/// A request that waits for its turn.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub work: Work,
    /// What it touches; none stands for everything.
    pub keys: Vec<Bytes>,
    pub is_write: bool,
    pub number: u64,
    pub expected: Expected,
}

/// Requests of one client: those on different keys run at once, those on the same key one after the other. As many wait as the pool's
/// `pipeline-max` lets in.
#[derive(Clone, Default)]
pub struct Lane {
    jobs: Rc<RefCell<VecDeque<Job>>>,
    is_running: Rc<Cell<bool>>,
}

impl Lane {
    pub(crate) fn push(&self, store: &Rc<Store>, mailbox: &Rc<Mailbox>, job: Job) {
        self.jobs.borrow_mut().push_back(job);
        if !self.is_running.replace(true) {
            tokio::task::spawn_local(self.clone().run(Rc::clone(store), Rc::clone(mailbox)));
        }
    }

    async fn run(self, store: Rc<Store>, mailbox: Rc<Mailbox>) {
        loop {
            let batch = take_batch(&mut self.jobs.borrow_mut());
            if batch.is_empty() {
                break;
            }
            let running = batch.into_iter().map(|job| run(&store, &mailbox, job));
            futures::future::join_all(running).await;
        }
        self.is_running.set(false);
    }
}

/// Jobs from the front of which none touches a key that another one writes. One without keys looks at all of them, and runs alone.
fn take_batch(jobs: &mut VecDeque<Job>) -> Vec<Job> {
    let mut touched = BTreeSet::new();
    let mut written = BTreeSet::new();
    let mut batch = Vec::new();
    while let Some(job) = jobs.front() {
        let clashes = |key: &Bytes| written.contains(key) || (job.is_write && touched.contains(key));
        let is_alone = job.keys.is_empty();
        if batch.len() >= BATCH_MAX || job.keys.iter().any(clashes) || (is_alone && !batch.is_empty()) {
            break;
        }
        touched.extend(job.keys.iter().cloned());
        if job.is_write {
            written.extend(job.keys.iter().cloned());
        }
        batch.extend(jobs.pop_front());
        if is_alone {
            break;
        }
    }
    batch
}

async fn run(store: &Store, mailbox: &Mailbox, job: Job) {
    let done = match &job.work {
        Work::Redis { name, version, args } => redis::run(store, name, *version, args).await,
        Work::Memcached(call) => memcached::run(store, call).await,
    };
    crate::clock::refresh();
    match done {
        Ok(reply) => job.expected.deliver(mailbox, job.number, 0, &reply),
        Err(text) => mailbox.deliver(job.number, 0, &job.expected.error(&text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(key: &'static str, is_write: bool) -> Job {
        Job {
            work: Work::Redis {
                name: "get".into(),
                version: Version::Resp2,
                args: Vec::new(),
            },
            keys: vec![Bytes::from(key)],
            is_write,
            number: 0,
            expected: Expected::default(),
        }
    }

    #[test]
    fn jobs_on_one_key_keep_their_order() {
        let jobs = [
            ("a", true),
            ("b", false),
            ("b", false),
            ("c", true),
            ("b", true),
            ("a", false),
        ];
        let mut jobs: VecDeque<_> = jobs.into_iter().map(|(key, is_write)| job(key, is_write)).collect();
        assert_eq!(take_batch(&mut jobs).len(), 4);
        assert_eq!(take_batch(&mut jobs).len(), 2);
        assert!(take_batch(&mut jobs).is_empty());
    }
}
