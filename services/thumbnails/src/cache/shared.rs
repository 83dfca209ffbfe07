//! Results in a Ferrite cluster, which several servers share.
//!
//! A result lies under `PREFIX`, 16 bytes of the hash of its source and the 32 bytes of its key, so that a purge is one range. The cluster
//! is a help, never a need: one that is down or slow is a miss.

use std::sync::Arc;
use std::time::Duration;

use blob_store::Key;
use bytes::Bytes;
use client::KeyRange;
use tokio::sync::Semaphore;

use super::{Entry, decode, encode};
use crate::cluster::Cluster;
use crate::config::FerriteConfig;
use crate::metrics;

/// Results on their way there at once; those beyond stay with this server.
const SENDS_MAX: usize = 64;

/// The part of the cluster that is ours.
#[derive(Clone)]
pub struct Shared {
    cluster: Arc<Cluster>,
    prefix: String,
    ttl: Duration,
    bytes_max: u64,
    sends: Arc<Semaphore>,
}

impl Shared {
    /// As configured; none without a prefix for results.
    pub fn new(cluster: Option<Arc<Cluster>>, config: &FerriteConfig) -> Option<Shared> {
        let cluster = cluster.filter(|_| !config.results.is_empty())?;
        Some(Shared {
            cluster,
            prefix: config.results.clone(),
            ttl: config.results_ttl.0,
            bytes_max: config.result_max.0,
            sends: Arc::new(Semaphore::new(SENDS_MAX)),
        })
    }

    fn folder(&self, source: &str) -> Vec<u8> {
        let mut start = self.prefix.clone().into_bytes();
        start.extend(&Key::sha256(source.as_bytes()).0[..16]);
        start
    }

    fn place(&self, key: Key, source: &str) -> Bytes {
        let mut place = self.folder(source);
        place.extend(key.0);
        place.into()
    }

    /// The result, if it is there and the cluster answers.
    pub async fn get(&self, key: Key, source: &str) -> Option<Entry> {
        if self.cluster.rests() {
            return self.count("rests", None);
        }
        let read = async { self.cluster.client().await?.get(self.place(key, source)).await };
        let read = read.await;
        self.cluster.note(read.is_ok());
        match read {
            Ok(Some(bytes)) => match decode(bytes) {
                Some(entry) => self.count("hit", Some(entry)),
                None => self.count("damaged", None),
            },
            Ok(None) => self.count("miss", None),
            Err(error) => {
                tracing::debug!(error = %base::log::chain(&error), "read a result from the cluster");
                self.count("failed", None)
            }
        }
    }

    fn count(&self, outcome: &'static str, entry: Option<Entry>) -> Option<Entry> {
        metrics::CLUSTER.with_label_values(&["get", outcome]).inc();
        entry
    }

    /// Sends a result there in the background.
    pub fn put(&self, key: Key, source: &str, entry: Arc<Entry>) {
        let counted = |outcome| metrics::CLUSTER.with_label_values(&["put", outcome]).inc();
        if entry.bytes.len() as u64 > self.bytes_max {
            return counted("large");
        }
        let (false, Ok(permit)) = (self.cluster.rests(), self.sends.clone().try_acquire_owned()) else {
            return counted("dropped");
        };
        let (shared, place) = (self.clone(), self.place(key, source));
        let _in_background = tokio::spawn(async move {
            let _permit = permit;
            let sent = shared.send(place, encode(&entry).into()).await;
            shared.cluster.note(sent.is_ok());
            if let Err(error) = &sent {
                tracing::debug!(error = %base::log::chain(error), "send a result to the cluster");
            }
            counted(if sent.is_ok() { "sent" } else { "failed" });
        });
    }

    async fn send(&self, place: Bytes, value: Bytes) -> Result<(), client::Error> {
        let client = self.cluster.client().await?;
        match self.ttl.is_zero() {
            true => client.put(place, value).await,
            false => client.put_with_ttl(place, value, self.ttl).await,
        }
    }

    /// Removes every result of `source` for all servers.
    pub async fn purge(&self, source: &str) -> Result<(), client::Error> {
        let start = self.folder(source);
        let range = KeyRange {
            end: successor(&start).into(),
            start: start.into(),
        };
        self.cluster.client().await?.delete_range(range).await
    }
}

/// The first key behind all that begin with `prefix`, which is more than bytes of 255.
fn successor(prefix: &[u8]) -> Vec<u8> {
    let kept = prefix.iter().rposition(|byte| *byte != 0xff).map_or(0, |at| at + 1);
    let mut end = prefix[..kept].to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_takes_what_begins_with_its_folder_alone() {
        assert_eq!(successor(b"ab"), b"ac");
        assert_eq!(successor(b"a\xff\xff"), b"b");
        assert!(b"ab\xff\xff".as_slice() < successor(b"ab").as_slice());
    }
}
