//! Stores behind this one that several servers share: an object store, a Ferrite cluster.
//!
//! What is missing here is looked for there and kept here once it was verified ([`Tiers::fetch`]); what is stored here is sent there
//! ([`Tiers::stored`]), at once or from a queue. A tier is a help, never a need: one that is down or slow or lies is a miss and a
//! count. `lane` holds what bounds the use of one tier; `object` and `ferrite` are the two that there are.
//!
//! Invariants: nothing from a tier is served before it is whole in the store and has the digest of its key (or, under a name, the checksum
//! it was sent with); every queue and every wait has a bound; entries under names are apart by instance.

mod ferrite;
mod lane;
mod object;
mod queue;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use blob_store::{Blob, Content, Form, Key, Store};
use bytes::Bytes;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use ferrite::{Ferrite, read_record};
pub use lane::{Figures, Limits};
pub use object::Objects;

use crate::cache::Cache;
use crate::config::Config;
use lane::Lane;

/// Blobs that are fetched or wait for it at once, over all tiers; more are misses.
const FLIGHTS_MAX: usize = 4096;

/// What a blob is asked for by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id<'a> {
    pub key: Key,
    pub content: Content,
    /// Who asks or stores. Names are apart by it, content is shared.
    pub instance: &'a str,
}

/// An [`Id`] that waits in a queue.
#[derive(Clone, Debug)]
pub struct OwnedId {
    pub key: Key,
    pub content: Content,
    pub instance: Box<str>,
}

impl Id<'_> {
    pub fn to_owned(self) -> OwnedId {
        OwnedId {
            key: self.key,
            content: self.content,
            instance: self.instance.into(),
        }
    }
}

impl OwnedId {
    pub fn as_id(&self) -> Id<'_> {
        Id {
            key: self.key,
            content: self.content,
            instance: &self.instance,
        }
    }
}

/// Errors of a tier. They never reach a client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no answer in time")]
    Slow,
    /// More than the tier takes.
    #[error("too large for this tier")]
    TooLarge,
    /// What the tier has is not what was sent.
    #[error("{0}")]
    Damaged(&'static str),
    /// It was written anew while it was read.
    #[error("written anew meanwhile")]
    Changed,
    /// This server could not read or keep the blob; the tier is not to blame.
    #[error("the own store")]
    Own(#[source] crate::error::Error),
    #[error("object store")]
    Object(#[from] object_store::Error),
    #[error("ferrite cluster")]
    Ferrite(#[from] client::Error),
}

/// Body of a blob on its way to or from a tier: its bytes as they lie in the store, without the table of frames.
pub type Body = BoxStream<'static, Result<Bytes, Error>>;

/// What a tier has of a blob.
pub struct Found {
    pub head: Head,
    pub body: Body,
    /// It will soon be gone: send it again.
    pub is_old: bool,
}

/// A store that several servers share. Implementations keep no queue of their own and may be dropped at any await.
#[tonic::async_trait]
pub trait Tier: Send + Sync {
    /// Label in metrics.
    fn kind(&self) -> &'static str;
    /// Where it is, for people, without secrets.
    fn place(&self) -> String;
    /// The blob, if it is there.
    async fn get(&self, id: Id<'_>) -> Result<Option<Found>, Error>;
    /// Length of content of each that is there and will be for a while.
    async fn has(&self, ids: &[Id<'_>]) -> Result<Vec<Option<u64>>, Error>;
    /// Keeps a blob; under a name, in place of what was there.
    async fn put(&self, id: Id<'_>, head: Head, body: Body) -> Result<(), Error>;
    async fn remove(&self, id: Id<'_>) -> Result<(), Error>;
    /// Removes everything under names of this instance.
    async fn remove_instance(&self, instance: &str) -> Result<(), Error>;
    /// Removes what servers that were killed left behind; how many blobs' worth.
    async fn sweep(&self) -> Result<u64, Error> {
        Ok(0)
    }
}

/// What is written before the body: how to read it, and what must come out. All numbers little-endian:
/// magic (4 bytes), form (1), nothing (3), length of content (8), of the body (8), XXH3-64 of the content (8), seconds since 1970 (8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub form: Form,
    pub len: u64,
    pub stored: u64,
    pub check: u64,
    pub written: u64,
}

impl Head {
    pub const LEN: usize = 40;
    const MAGIC: [u8; 4] = *b"FBC1";

    fn of(blob: &Blob) -> Head {
        let stored = match blob.form() {
            Form::Raw => blob.len(),
            Form::Zstd => blob.zstd_len(),
        };
        Head {
            form: blob.form(),
            len: blob.len(),
            stored,
            check: blob.checksum(),
            written: base::WallTime::now().seconds(),
        }
    }

    pub fn encode(&self) -> [u8; Head::LEN] {
        let mut bytes = [0; Head::LEN];
        bytes[..4].copy_from_slice(&Head::MAGIC);
        bytes[4] = u8::from(self.form == Form::Zstd);
        for (at, number) in [self.len, self.stored, self.check, self.written].into_iter().enumerate() {
            bytes[8 + 8 * at..16 + 8 * at].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// Reads the first bytes of what a tier has.
    pub fn decode(bytes: &[u8]) -> Result<Head, Error> {
        let bytes: &[u8; Head::LEN] = bytes
            .get(..Head::LEN)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(Error::Damaged("shorter than a head"))?;
        let number = |at: usize| {
            let part = bytes[8 + 8 * at..16 + 8 * at].try_into().expect("eight bytes");
            u64::from_le_bytes(part)
        };
        let form = match (bytes[..4] == Head::MAGIC, &bytes[4..8]) {
            (true, [0, 0, 0, 0]) => Form::Raw,
            (true, [1, 0, 0, 0]) => Form::Zstd,
            _ => return Err(Error::Damaged("not written by a build cache")),
        };
        let head = Head {
            form,
            len: number(0),
            stored: number(1),
            check: number(2),
            written: number(3),
        };
        match form == Form::Raw && head.len != head.stored {
            true => Err(Error::Damaged("two lengths for one body")),
            false => Ok(head),
        }
    }
}

type Flights = BTreeMap<Key, watch::Receiver<Option<bool>>>;

/// The tiers of one server, nearest first.
#[derive(Default)]
pub struct Tiers {
    lanes: Vec<Arc<Lane>>,
    /// What is being fetched, so that many who ask fetch once.
    flights: Mutex<Flights>,
}

impl Tiers {
    /// The tiers that are configured; their queues are emptied on the runtime until `stop`. Nothing is dialled yet.
    pub fn start(config: &Config, store: &Store, stop: &CancellationToken) -> anyhow::Result<Arc<Tiers>> {
        let mut tiers: Vec<(Arc<dyn Tier>, Limits)> = Vec::new();
        if !config.ferrite.endpoints.is_empty() {
            let tier = Arc::new(Ferrite::new(&config.ferrite));
            tiers.push((tier, config.ferrite.limits()));
        }
        if !config.upstream.url.is_empty() {
            let tier = Arc::new(Objects::new(&config.upstream)?);
            tiers.push((tier, config.upstream.limits()));
        }
        let folder = config.store.data_dir.join("tiers");
        let start = |(tier, limits)| Lane::start(tier, limits, store.clone(), &folder, stop);
        Ok(Arc::new(Tiers {
            lanes: tiers.into_iter().map(start).collect(),
            flights: Mutex::default(),
        }))
    }

    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Brings a blob here from the first tier that has it; whether it is here now.
    pub async fn fetch(self: &Arc<Self>, cache: &Cache, id: Id<'_>) -> bool {
        if self.lanes.is_empty() {
            return false;
        }
        let mut flight = {
            let mut flights = self.flights.lock();
            match flights.get(&id.key) {
                Some(flight) => flight.clone(),
                None if flights.len() >= FLIGHTS_MAX => return false,
                None => {
                    let (done, flight) = watch::channel(None);
                    flights.insert(id.key, flight.clone());
                    // On a task of its own: whoever asked first may go away while others wait.
                    let (tiers, cache, id) = (self.clone(), cache.clone(), id.to_owned());
                    tokio::spawn(async move {
                        let found = tiers.fetch_once(&cache, id.as_id()).await;
                        tiers.flights.lock().remove(&id.key);
                        done.send_replace(Some(found));
                    });
                    flight
                }
            }
        };
        let found = flight.wait_for(Option::is_some).await;
        found.is_ok_and(|found| *found == Some(true))
    }

    async fn fetch_once(&self, cache: &Cache, id: Id<'_>) -> bool {
        for (at, lane) in self.lanes.iter().enumerate() {
            if lane.fetch(cache, id).await {
                self.lanes[..at].iter().for_each(|nearer| nearer.queue(id));
                return true;
            }
        }
        false
    }

    /// Length of each blob that a tier has.
    pub async fn has(&self, ids: &[Id<'_>]) -> Vec<Option<u64>> {
        let mut found = vec![None; ids.len()];
        for lane in &self.lanes {
            let open: Vec<usize> = (0..ids.len()).filter(|at| found[*at].is_none()).collect();
            if open.is_empty() {
                break;
            }
            let asked: Vec<Id<'_>> = open.iter().map(|at| ids[*at]).collect();
            for (at, len) in open.iter().zip(lane.has(&asked).await) {
                found[*at] = len;
            }
        }
        found
    }

    /// A blob was stored here: sends it on, as each tier is configured. Returns once it is where it must be before the answer.
    pub async fn stored(&self, id: Id<'_>) {
        for lane in &self.lanes {
            lane.stored(id).await;
        }
    }

    /// Removes a blob from every tier that is written to. Errors are counted and told in the log.
    pub async fn remove(&self, id: Id<'_>) {
        for lane in &self.lanes {
            lane.remove(id).await;
        }
    }

    /// Removes everything under names of an instance.
    pub async fn remove_instance(&self, instance: &str) {
        for lane in &self.lanes {
            lane.remove_instance(instance).await;
        }
    }

    /// Waits until the queues are empty, at most for `wait`; how many blobs were left.
    pub async fn drain(&self, wait: Duration) -> usize {
        let all = async {
            for lane in &self.lanes {
                lane.drained().await;
            }
        };
        let _in_time = tokio::time::timeout(wait, all).await;
        self.lanes.iter().map(|lane| lane.figures().queued).sum()
    }

    /// Figures of each tier.
    pub fn figures(&self) -> Vec<Figures> {
        self.lanes.iter().map(|lane| lane.figures()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_round_trip_and_others_are_refused() {
        let head = Head {
            form: Form::Zstd,
            len: 70_000,
            stored: 900,
            check: u64::MAX - 1,
            written: 1_700_000_000,
        };
        let bytes = head.encode();
        assert_eq!(Head::decode(&bytes).expect("a head"), head);
        for at in 0..8 {
            let mut wrong = bytes;
            wrong[at] ^= 0x40;
            assert!(Head::decode(&wrong).is_err(), "byte {at}");
        }
        assert!(Head::decode(&bytes[..39]).is_err());
        let raw = Head { form: Form::Raw, ..head };
        assert!(Head::decode(&raw.encode()).is_err(), "raw is as long as its content");
    }
}
