//! The raw API: single keys and ranges, without transactions.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use proto::kvrpcpb;

use crate::call::Call;
use crate::keys::{KeyRange, Mode, min_end};
use crate::pd::Pd;
use crate::request::Request;
use crate::route::Router;
use crate::scan::{Cursor, Page, Pair, ScanOptions, is_empty};
use crate::{ClientOptions, Error, Metrics, ReadFrom};

/// A client of the raw API. Clones share connections and what is known of regions.
///
/// Each call ends within the deadline of the options (a scan: each of its pages). Writes to one key take effect in one
/// order that all clients see; a batch over several keys is not one step.
#[derive(Clone)]
pub struct RawClient {
    router: Arc<Router>,
    /// Of each call.
    deadline: Duration,
    /// Which copies serve gets and scans.
    from: ReadFrom,
}

/// Outcome of [`RawClient::compare_and_swap`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// Whether the value was as expected and is now the new one.
    pub done: bool,
    /// What was there before, done or not.
    pub previous: Option<Bytes>,
}

/// How long a key will live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    Forever,
    /// Whole seconds.
    Left(Duration),
}

/// Fingerprint of the pairs in a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum {
    /// Exclusive or of each pair's CRC-64.
    pub crc64_xor: u64,
    pub pairs: u64,
    /// Of keys and values together, as the store has them: with API V2 that is four more a key than the caller's.
    pub bytes: u64,
}

impl RawClient {
    /// Connects through any of the placement driver's `endpoints`, `host:port` or `http://host:port`.
    pub async fn connect(endpoints: &[impl AsRef<str>], options: ClientOptions) -> Result<RawClient, Error> {
        Ok(RawClient {
            deadline: options.deadline,
            from: ReadFrom::Leader,
            router: Arc::new(Router::connect(endpoints, options, Mode::Raw).await?),
        })
    }

    /// The same client, whose calls may take so long.
    pub fn with_deadline(&self, deadline: Duration) -> RawClient {
        RawClient {
            deadline,
            ..self.clone()
        }
    }

    /// The same client, whose gets and scans are spread over all copies of a region: they are as fresh as from the leader, at the price of a
    /// round trip from a copy to it.
    pub fn with_replica_reads(&self) -> RawClient {
        RawClient {
            from: ReadFrom::Replica,
            ..self.clone()
        }
    }

    /// Learns the regions of a range ahead of the first calls, so that these need not ask for them. Returns how many there are, at most
    /// `regions_max`.
    pub async fn warm_up(&self, range: impl Into<KeyRange>, regions_max: usize) -> Result<usize, Error> {
        self.router.warm_up(range.into(), regions_max).await
    }

    /// What this client has done so far: requests by RPC and outcome with their latencies, retries, look-ups of regions.
    pub fn metrics(&self) -> Metrics {
        self.router.pd.metrics()
    }

    /// The placement driver of the cluster.
    pub fn pd(&self) -> &Pd {
        &self.router.pd
    }

    /// `key` in the form that region borders are written in.
    pub fn border(&self, key: impl Into<Bytes>) -> Bytes {
        self.router.form.border(&self.router.form.wire(key.into()))
    }

    /// Value of `key`, `None` if there is none.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>, Error> {
        let key = self.router.form.wire(key.into());
        let answer = self
            .router
            .single(
                &mut self.begin(),
                &key,
                kvrpcpb::RawGetRequest {
                    context: Some(self.from.context()),
                    key: key.clone(),
                    ..Default::default()
                },
            )
            .await?;
        Ok((!answer.not_found).then_some(answer.value))
    }

    /// Sets `key` to `value`.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<(), Error> {
        self.put_seconds(key.into(), value.into(), 0).await
    }

    /// Sets `key` to `value` for `ttl`, rounded up to whole seconds. Needs stores that keep TTLs.
    pub async fn put_with_ttl(&self, key: impl Into<Bytes>, value: impl Into<Bytes>, ttl: Duration) -> Result<(), Error> {
        self.put_seconds(key.into(), value.into(), whole_seconds(ttl)).await
    }

    async fn put_seconds(&self, key: Bytes, value: Bytes, ttl: u64) -> Result<(), Error> {
        let key = self.router.form.wire(key);
        let request = kvrpcpb::RawPutRequest {
            key: key.clone(),
            value,
            ttl,
            ..Default::default()
        };
        self.router.single(&mut self.begin(), &key, request).await.map(drop)
    }

    /// Removes `key`, if it is there.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<(), Error> {
        let key = self.router.form.wire(key.into());
        let request = kvrpcpb::RawDeleteRequest {
            key: key.clone(),
            ..Default::default()
        };
        self.router.single(&mut self.begin(), &key, request).await.map(drop)
    }

    /// The pairs of those `keys` that are there, by key.
    pub async fn batch_get(&self, keys: impl IntoIterator<Item = impl Into<Bytes>>) -> Result<Vec<Pair>, Error> {
        let make = |keys: &[Bytes]| kvrpcpb::RawBatchGetRequest {
            context: Some(self.from.context()),
            keys: keys.to_vec(),
            ..Default::default()
        };
        let mut call = self.begin();
        let keys = self.wire_keys(keys);
        let answers = self.router.many(&mut call, keys, |key| (key, key.len()), make).await?;
        let mut pairs = self
            .router
            .user_pairs(answers.into_iter().flat_map(|(_, answer)| answer.pairs))?;
        pairs.sort();
        pairs.dedup_by(|a, b| a.0 == b.0);
        Ok(pairs)
    }

    /// Sets all `pairs`.
    pub async fn batch_put(&self, pairs: impl IntoIterator<Item = (impl Into<Bytes>, impl Into<Bytes>)>) -> Result<(), Error> {
        self.batch_put_seconds(pairs, Vec::new()).await
    }

    /// Sets all `pairs` for `ttl`, rounded up to whole seconds. Needs stores that keep TTLs.
    pub async fn batch_put_with_ttl(
        &self,
        pairs: impl IntoIterator<Item = (impl Into<Bytes>, impl Into<Bytes>)>,
        ttl: Duration,
    ) -> Result<(), Error> {
        self.batch_put_seconds(pairs, vec![whole_seconds(ttl)]).await
    }

    async fn batch_put_seconds(
        &self,
        pairs: impl IntoIterator<Item = (impl Into<Bytes>, impl Into<Bytes>)>,
        ttls: Vec<u64>,
    ) -> Result<(), Error> {
        let form = &self.router.form;
        let wire = pairs.into_iter().map(|(key, value)| (form.wire(key.into()), value.into()));
        let pairs = wire
            .map(|(key, value)| kvrpcpb::KvPair {
                key,
                value,
                ..Default::default()
            })
            .collect();
        let size = |pair: &kvrpcpb::KvPair| pair.key.len() + pair.value.len();
        let make = |pairs: &[kvrpcpb::KvPair]| kvrpcpb::RawBatchPutRequest {
            pairs: pairs.to_vec(),
            ttls: ttls.clone(),
            // Older stores read this one.
            ttl: ttls.first().copied().unwrap_or(0),
            ..Default::default()
        };
        let mut call = self.begin();
        self.router
            .many(&mut call, pairs, |pair| (&pair.key, size(pair)), make)
            .await
            .map(drop)
    }

    /// Removes all `keys` that are there.
    pub async fn batch_delete(&self, keys: impl IntoIterator<Item = impl Into<Bytes>>) -> Result<(), Error> {
        let make = |keys: &[Bytes]| kvrpcpb::RawBatchDeleteRequest {
            keys: keys.to_vec(),
            ..Default::default()
        };
        self.router
            .many(&mut self.begin(), self.wire_keys(keys), |key| (key, key.len()), make)
            .await
            .map(drop)
    }

    /// Sets `key` to `new` (`None` removes it) if its value is `expected` (`None`: if it is not there). One step among
    /// compare-and-swaps of the key and among writes that stores order with them. Never repeated on an unknown outcome.
    pub async fn compare_and_swap(
        &self,
        key: impl Into<Bytes>,
        expected: Option<Bytes>,
        new: Option<Bytes>,
    ) -> Result<Swap, Error> {
        let key = self.router.form.wire(key.into());
        let request = kvrpcpb::RawCasRequest {
            key: key.clone(),
            delete: new.is_none(),
            value: new.unwrap_or_default(),
            previous_not_exist: expected.is_none(),
            previous_value: expected.unwrap_or_default(),
            ..Default::default()
        };
        let answer = self.router.single(&mut self.begin(), &key, request).await?;
        Ok(Swap {
            done: answer.succeed,
            previous: (!answer.previous_not_exist).then_some(answer.previous_value),
        })
    }

    /// How long `key` will live; `None` if it is not there.
    pub async fn ttl(&self, key: impl Into<Bytes>) -> Result<Option<Ttl>, Error> {
        let key = self.router.form.wire(key.into());
        let answer = self
            .router
            .single(
                &mut self.begin(),
                &key,
                kvrpcpb::RawGetKeyTtlRequest {
                    key: key.clone(),
                    ..Default::default()
                },
            )
            .await?;
        Ok(match (answer.not_found, answer.ttl) {
            (true, _) => None,
            (false, 0) => Some(Ttl::Forever),
            (false, seconds) => Some(Ttl::Left(Duration::from_secs(seconds))),
        })
    }

    /// Pairs of a range as a stream, in order, page by page across regions. Not a snapshot: each page sees writes that were
    /// done before it was read.
    pub fn scan(&self, range: impl Into<KeyRange>, options: ScanOptions) -> BoxStream<'static, Result<Pair, Error>> {
        let state = Scan {
            client: self.clone(),
            cursor: Cursor::new(self.router.form.wire_range(range.into()), options),
        };
        let pages = stream::try_unfold(state, |mut state| async move {
            let page = match state.cursor.is_done() {
                true => None,
                false => Some(state.next_page().await?),
            };
            Ok(page.map(|pairs| (stream::iter(pairs.into_iter().map(Ok)), state)))
        });
        pages.try_flatten().boxed()
    }

    /// Removes all pairs of a range, region by region.
    pub async fn delete_range(&self, range: impl Into<KeyRange>) -> Result<(), Error> {
        let make = |part: KeyRange| kvrpcpb::RawDeleteRangeRequest {
            start_key: part.start,
            end_key: part.end,
            ..Default::default()
        };
        self.each_region(range.into(), make, drop).await
    }

    /// Fingerprint of the pairs of a range.
    pub async fn checksum(&self, range: impl Into<KeyRange>) -> Result<Checksum, Error> {
        let make = |part: KeyRange| kvrpcpb::RawChecksumRequest {
            algorithm: kvrpcpb::ChecksumAlgorithm::Crc64Xor.into(),
            ranges: vec![kvrpcpb::KeyRange {
                start_key: part.start,
                end_key: part.end,
            }],
            ..Default::default()
        };
        let mut sum = Checksum::default();
        let add = |answer: kvrpcpb::RawChecksumResponse| {
            sum.crc64_xor ^= answer.checksum;
            sum.pairs += answer.total_kvs;
            sum.bytes += answer.total_bytes;
        };
        self.each_region(range.into(), make, add).await?;
        Ok(sum)
    }

    /// Serves a request about a range, one region after the other, each with its part.
    async fn each_region<R: Request>(
        &self,
        range: KeyRange,
        make: impl Fn(KeyRange) -> R,
        mut take: impl FnMut(R::Answer),
    ) -> Result<(), Error> {
        let range = self.router.form.wire_range(range);
        let mut call = self.begin();
        let mut rest = range.clone();
        while !is_empty(&rest) {
            let region = self.router.region(&mut call, &self.router.form.border(&rest.start)).await?;
            let part = KeyRange {
                start: rest.start.clone(),
                end: min_end(&rest.end, &self.router.wire_of_border(region.end())?),
            };
            let Some(answer) = self.router.one_try(&mut call, &region, make(part.clone())).await? else {
                continue;
            };
            take(answer);
            if part.end == range.end {
                break;
            }
            rest.start = part.end;
        }
        Ok(())
    }

    fn begin(&self) -> Call {
        Call::begin(self.deadline, &self.router.jitter)
    }

    fn wire_keys(&self, keys: impl IntoIterator<Item = impl Into<Bytes>>) -> Vec<Bytes> {
        keys.into_iter().map(|key| self.router.form.wire(key.into())).collect()
    }
}

/// A scan under way.
struct Scan {
    client: RawClient,
    cursor: Cursor,
}

impl Scan {
    async fn next_page(&mut self) -> Result<Vec<Pair>, Error> {
        let mut call = self.client.begin();
        let make = |page: Page| kvrpcpb::RawScanRequest {
            context: Some(self.client.from.context()),
            start_key: page.start_key,
            end_key: page.end_key,
            limit: page.limit as u32,
            key_only: page.options.keys_only,
            reverse: page.options.reverse,
            ..Default::default()
        };
        let router = &self.client.router;
        let Some((part, answer)) = self.cursor.ask(router, &mut call, make).await? else {
            return Ok(Vec::new());
        };
        self.cursor.advance(part, &answer.kvs, true);
        router.user_pairs(answer.kvs)
    }
}

/// A TTL in the wire's seconds. Less than a second is one: zero would live for ever.
fn whole_seconds(ttl: Duration) -> u64 {
    ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0 || ttl.is_zero())
}
