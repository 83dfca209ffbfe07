//! The raw client as a handle.

use std::time::Duration;

use bytes::Bytes;
use client::{KeyRange, Pair, RawClient};

use crate::{Ask, Outcome, Reply, Scan, options};

/// Keys without transactions. Cheap to clone.
#[derive(Clone)]
pub struct Raw(RawClient);

impl Raw {
    /// Connects; see [`options`] for the texts. Answers [`Reply::Raw`].
    pub async fn connect(endpoints: String, options: String) -> Outcome {
        let client = RawClient::connect(&options::endpoints(&endpoints)?, options::client(&options)?).await?;
        Ok(Reply::Raw(Raw(client)))
    }

    /// The same client, whose calls may take so long.
    pub fn with_deadline(&self, deadline: Duration) -> Raw {
        Raw(self.0.with_deadline(deadline))
    }

    /// Answers [`Reply::Value`].
    pub fn get(&self, key: Bytes) -> impl Future<Output = Outcome> + Send + use<> {
        let client = self.0.clone();
        async move { Ok(Reply::Value(client.get(key).await?)) }
    }

    /// Lives for ever without a `ttl`. Answers [`Reply::Done`].
    pub fn put(&self, key: Bytes, value: Bytes, ttl: Option<Duration>) -> impl Future<Output = Outcome> + Send + use<> {
        let client = self.0.clone();
        async move {
            match ttl {
                None => client.put(key, value).await?,
                Some(ttl) => client.put_with_ttl(key, value, ttl).await?,
            }
            Ok(Reply::Done)
        }
    }

    /// Answers [`Reply::Done`].
    pub fn delete(&self, key: Bytes) -> impl Future<Output = Outcome> + Send + use<> {
        let client = self.0.clone();
        async move { Ok(client.delete(key).await.map(|()| Reply::Done)?) }
    }

    /// Answers [`Reply::Pairs`].
    pub fn batch_get(&self, keys: Vec<Bytes>) -> impl Future<Output = Outcome> + Send + use<> {
        let client = self.0.clone();
        async move { Ok(Reply::Pairs(client.batch_get(keys).await?)) }
    }

    /// Answers [`Reply::Done`].
    pub fn batch_put(&self, pairs: Vec<Pair>, ttl: Option<Duration>) -> impl Future<Output = Outcome> + Send + use<> {
        let client = self.0.clone();
        async move {
            match ttl {
                None => client.batch_put(pairs).await?,
                Some(ttl) => client.batch_put_with_ttl(pairs, ttl).await?,
            }
            Ok(Reply::Done)
        }
    }

    /// Answers [`Reply::Done`].
    pub fn batch_delete(&self, keys: Vec<Bytes>) -> impl Future<Output = Outcome> + Send + use<> {
        let client = self.0.clone();
        async move { Ok(client.batch_delete(keys).await.map(|()| Reply::Done)?) }
    }

    /// Answers [`Reply::Done`].
    pub fn delete_range(&self, range: KeyRange) -> impl Future<Output = Outcome> + Send + use<> {
        let client = self.0.clone();
        async move { Ok(client.delete_range(range).await.map(|()| Reply::Done)?) }
    }

    /// Answers [`Reply::Swap`].
    pub fn compare_and_swap(
        &self,
        key: Bytes,
        expected: Option<Bytes>,
        new: Option<Bytes>,
    ) -> impl Future<Output = Outcome> + Send + use<> {
        let client = self.0.clone();
        async move { Ok(Reply::Swap(client.compare_and_swap(key, expected, new).await?)) }
    }

    /// Answers [`Reply::Ttl`].
    pub fn ttl(&self, key: Bytes) -> impl Future<Output = Outcome> + Send + use<> {
        let client = self.0.clone();
        async move { Ok(Reply::Ttl(client.ttl(key).await?)) }
    }

    /// Answers [`Reply::Checksum`].
    pub fn checksum(&self, range: KeyRange) -> impl Future<Output = Outcome> + Send + use<> {
        let client = self.0.clone();
        async move { Ok(Reply::Checksum(client.checksum(range).await?)) }
    }

    /// What the client has done since it was connected, as the text that Prometheus reads.
    pub fn metrics(&self) -> String {
        self.0.metrics().to_string()
    }

    /// Begins when its first page is asked for.
    pub fn scan(&self, ask: Ask) -> Scan {
        Scan::ready(self.0.scan(ask.range, ask.options))
    }
}
