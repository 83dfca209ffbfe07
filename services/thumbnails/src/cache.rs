//! Results that were made before: a few in memory, more on disk, those of other servers in a cluster.
//!
//! A result is stored under the hash of all that it depends on: options, formats that the client takes, source. One stays until it is
//! evicted, as the least recently used, or purged with all others of its source. Purges are remembered as times: a result that was made before
//! the last purge of its source is none (`purges`).

mod memory;
mod purges;
mod shared;

use std::sync::Arc;

use anyhow::Context as _;
use blob_store::{Content, Key, SpaceId, Store};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::config::CacheConfig;
use crate::format::Format;
use crate::metrics;
use crate::source::Validators;
use memory::Memory;
use purges::Purges;
pub use shared::Shared;

/// What is told of a result beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub format: Format,
    pub width: u32,
    pub height: u32,
    /// Of the result, with its quotes.
    pub etag: String,
    pub source: Validators,
    /// When the source was last asked, in milliseconds since 1970.
    pub checked_ms: u64,
}

/// A result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub head: Head,
    pub bytes: Bytes,
}

/// Where a result was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    Memory,
    Disk,
    /// Perhaps made by another server.
    Cluster,
}

impl Tier {
    /// For headers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Memory => "memory",
            Tier::Disk => "disk",
            Tier::Cluster => "cluster",
        }
    }
}

/// All tiers.
pub struct Cache {
    memory: Memory,
    disk: Option<Disk>,
    shared: Option<Shared>,
    purges: Purges,
}

struct Disk {
    store: Store,
    space: SpaceId,
}

/// A result on disk is its head as JSON, the length of that in four bytes before it (little-endian), and its bytes behind.
const LEN: usize = 4;
const HEAD_MAX: usize = 64 << 10;

impl Cache {
    /// As configured.
    pub fn open(config: &CacheConfig, shared: Option<Shared>) -> anyhow::Result<Cache> {
        let disk = match config.dir.as_os_str().is_empty() {
            true => None,
            false => {
                let mut options = blob_store::Config::new(config.dir.join("results"), config.disk_max.0);
                // What is read often is in the memory tier already; results are compressed by their formats.
                options.memory_max = 8 << 20;
                let store = Store::open(options).context("open the cache on disk")?;
                let space = store.space("results").context("open the cache on disk")?;
                Some(Disk { store, space })
            }
        };
        let purges = match &disk {
            Some(_) => Purges::open(&config.dir.join("purges")).context("open the list of purges")?,
            None => Purges::default(),
        };
        Ok(Cache {
            memory: Memory::new(config.memory_max.0),
            disk,
            shared,
            purges,
        })
    }

    /// The result under `key`, of `source`.
    pub async fn get(self: &Arc<Self>, key: Key, source: &str) -> Option<(Arc<Entry>, Tier)> {
        let purged_ms = self.purges.time(source);
        let is_valid = move |entry: &Entry| entry.head.checked_ms > purged_ms;
        if let Some(entry) = self.memory.get(&key) {
            return is_valid(&entry).then_some((entry, Tier::Memory));
        }
        if let Some(entry) = self.on_disk(key).await.filter(|entry| is_valid(entry)) {
            self.memory.put(key, entry.clone());
            return Some((entry, Tier::Disk));
        }
        let entry = Arc::new(self.shared.as_ref()?.get(key, source).await?);
        if !is_valid(&entry) {
            return None;
        }
        self.keep(key, &entry);
        Some((entry, Tier::Cluster))
    }

    async fn on_disk(&self, key: Key) -> Option<Arc<Entry>> {
        let disk = self.disk.as_ref()?;
        if disk.store.peek(&key) == blob_store::Presence::Absent {
            return None;
        }
        let store = disk.store.clone();
        let read = tokio::task::spawn_blocking(move || store.read(&key)).await.ok()?;
        let bytes = match read {
            Ok(bytes) => bytes?,
            Err(error) => {
                tracing::warn!(error = %base::log::chain(&error), "read a result from disk");
                return None;
            }
        };
        Some(Arc::new(decode(bytes.into())?))
    }

    /// Keeps a result of `source`, and sends it to the cluster. That and the disk are written to in the background; a failure there costs
    /// the result, not the request.
    pub fn put(&self, key: Key, source: &str, entry: &Arc<Entry>) {
        self.keep(key, entry);
        if let Some(shared) = &self.shared {
            shared.put(key, source, entry.clone());
        }
    }

    /// Keeps it on this server.
    fn keep(&self, key: Key, entry: &Arc<Entry>) {
        self.memory.put(key, entry.clone());
        let Some(disk) = &self.disk else { return };
        let (store, space, entry) = (disk.store.clone(), disk.space, entry.clone());
        let _in_background = tokio::task::spawn_blocking(move || {
            let bytes = encode(&entry);
            if let Err(error) = store.put(key, Content::Named, space, &bytes) {
                tracing::warn!(error = %base::log::chain(&error), "write a result to disk");
            }
            metrics::DISK_BYTES.set(i64::try_from(store.stats().used).unwrap_or(i64::MAX));
        });
    }

    /// Forgets every result of `source`.
    pub async fn purge(self: &Arc<Self>, source: &str, now_ms: u64) -> anyhow::Result<()> {
        let (cache, name) = (self.clone(), source.to_owned());
        tokio::task::spawn_blocking(move || cache.purges.purge(&name, now_ms))
            .await?
            .context("write the purge down")?;
        match &self.shared {
            Some(shared) => shared.purge(source).await.context("purge the cluster"),
            None => Ok(()),
        }
    }

    /// Writes down what is not yet.
    pub async fn close(self: Arc<Self>) -> anyhow::Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let store = disk.store.clone();
        tokio::task::spawn_blocking(move || store.close())
            .await?
            .context("close the cache on disk")
    }
}

fn encode(entry: &Entry) -> Vec<u8> {
    let head = serde_json::to_vec(&entry.head).expect("a head is plain values");
    let mut out = Vec::with_capacity(LEN + head.len() + entry.bytes.len());
    out.extend((head.len() as u32).to_le_bytes());
    out.extend(head);
    out.extend_from_slice(&entry.bytes);
    out
}

/// `None` if it is none of ours, or of an older version.
fn decode(bytes: Bytes) -> Option<Entry> {
    let len = u32::from_le_bytes(bytes.get(..LEN)?.try_into().ok()?) as usize;
    if len > HEAD_MAX {
        return None;
    }
    let head = serde_json::from_slice(bytes.get(LEN..LEN + len)?).ok()?;
    Some(Entry {
        head,
        bytes: bytes.slice(LEN + len..),
    })
}

#[cfg(test)]
pub(crate) fn sample(text: &str, checked_ms: u64) -> Entry {
    Entry {
        head: Head {
            format: Format::Webp,
            width: 3,
            height: 4,
            etag: "\"x\"".into(),
            source: Validators::default(),
            checked_ms,
        },
        bytes: Bytes::copy_from_slice(text.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::named(&[name])
    }

    #[test]
    fn entries_are_read_back_and_nonsense_is_none() {
        let entry = sample("picture", 5);
        let bytes = encode(&entry);
        assert_eq!(decode(bytes.clone().into()), Some(entry));
        for cut in 0..LEN + 20 {
            assert_eq!(decode(bytes[..cut].to_vec().into()), None);
        }
        assert_eq!(decode(vec![255; 100].into()), None);
    }

    #[tokio::test]
    async fn results_survive_a_restart_and_purges_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = CacheConfig {
            dir: folder.path().to_owned(),
            disk_max: base::ByteSize::mib(32),
            ..CacheConfig::default()
        };
        let cache = Arc::new(Cache::open(&config, None).expect("opens"));
        for source in ["a", "b"] {
            cache.put(key(source), source, &Arc::new(sample(source, 10)));
            assert_eq!(cache.get(key(source), source).await.map(|found| found.1), Some(Tier::Memory));
        }
        cache.purge("b", 20).await.expect("purges");
        assert!(cache.get(key("b"), "b").await.is_none());
        while cache.disk.as_ref().is_some_and(|disk| disk.store.stats().blobs < 2) {
            tokio::task::yield_now().await;
        }
        cache.clone().close().await.expect("closes");
        drop(cache);
        let cache = Arc::new(Cache::open(&config, None).expect("opens again"));
        let (entry, tier) = cache.get(key("a"), "a").await.expect("is there");
        assert_eq!((&entry.bytes[..], tier), (&b"a"[..], Tier::Disk));
        assert!(cache.get(key("b"), "b").await.is_none(), "purged before the restart");
        cache.put(key("b"), "b", &Arc::new(sample("new", 30)));
        assert_eq!(cache.get(key("b"), "b").await.expect("made after the purge").0.bytes, "new");
        cache.close().await.expect("closes");
    }
}
