//! A Ferrite cluster as a tier, through the project's own client: an index record a blob, small bodies in it, larger ones in chunks.
//!
//! Keys, where BASE is `PREFIX cas/`, `PREFIX cas-blake3/` or `PREFIX named/<hash of the instance>/`:
//! `BASE i/<32 bytes of the key>` is the record: a [`Head`], then 0 and the body, or 1, the 16 bytes of an upload and the number of its
//! chunks (4 bytes, big-endian); `BASE d/<16 bytes of the upload><number of the chunk, 4 bytes, big-endian>` is a chunk of [`CHUNK`]
//! bytes, the last one shorter. Chunks are written before the record that names them and removed after it is gone; `sweep` removes those of
//! servers that were killed between the two.

mod sweep;

use std::time::Duration;

use base::WallTime;
use blob_store::{Content, Key};
use bytes::{BufMut as _, Bytes, BytesMut};
use client::{Api, ClientOptions, KeyRange, Keyspace, RawClient};
use futures::{StreamExt as _, TryStreamExt as _};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::OnceCell;

use super::{Body, Error, Found, Head, Id, Tier};
use crate::config::{FerriteApi, FerriteConfig};

/// Body bytes in one value of the store.
const CHUNK: usize = 1 << 20;
/// Bodies up to this lie in the record. Larger ones would make every look-up carry them.
const INLINE_MAX: u64 = 16 << 10;
/// Chunks read ahead of the one that is waited for.
const AHEAD: usize = 2;
/// Records in one look-up.
const LOOKUPS: usize = 256;
/// Times that a record is written anew because another server was faster.
const RACES_MAX: u32 = 4;

const INLINE: u8 = 0;
const CHUNKED: u8 = 1;

/// A cluster, dialled at the first use.
pub struct Ferrite {
    client: OnceCell<RawClient>,
    endpoints: Vec<String>,
    options: ClientOptions,
    prefix: String,
    ttl: Duration,
    blob_max: u64,
}

/// Where the body of a record is.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Inline(Bytes),
    Chunks { upload: [u8; 16], count: u32 },
}

impl Ferrite {
    pub fn new(config: &FerriteConfig) -> Ferrite {
        let api = match config.api {
            FerriteApi::V1 | FerriteApi::V1ttl => Api::V1,
            FerriteApi::V2 if config.keyspace.is_empty() => Api::V2(Keyspace::Id(0)),
            FerriteApi::V2 => Api::V2(Keyspace::Name(config.keyspace.clone())),
        };
        Ferrite {
            client: OnceCell::new(),
            endpoints: config.endpoints.clone(),
            options: ClientOptions {
                api,
                deadline: config.timeout.0,
                tls: config.tls().expect("the configuration was validated"),
                ..ClientOptions::default()
            },
            prefix: config.prefix.clone(),
            ttl: config.ttl.0,
            blob_max: config.blob_max.0,
        }
    }

    async fn client(&self) -> Result<&RawClient, Error> {
        let connect = || RawClient::connect(&self.endpoints, self.options.clone());
        Ok(self.client.get_or_try_init(connect).await?)
    }

    fn base(&self, content: Content, instance: &str) -> String {
        let prefix = &self.prefix;
        match content {
            Content::Sha256 => format!("{prefix}cas/"),
            Content::Blake3 => format!("{prefix}cas-blake3/"),
            Content::Named => format!("{prefix}named/{}/", &Key::sha256(instance.as_bytes()).to_string()[..16]),
        }
    }

    fn record_key(&self, id: Id<'_>) -> Bytes {
        let mut key = self.base(id.content, id.instance).into_bytes();
        key.extend(b"i/");
        key.extend(id.key.0);
        key.into()
    }

    fn chunk_keys(&self, id: Id<'_>, upload: [u8; 16], count: u32) -> impl Iterator<Item = Bytes> + Send + use<> {
        let mut start = self.base(id.content, id.instance).into_bytes();
        start.extend(b"d/");
        start.extend(upload);
        (0..count).map(move |number| {
            let mut key = start.clone();
            key.extend(number.to_be_bytes());
            key.into()
        })
    }

    async fn set(&self, key: Bytes, value: Bytes) -> Result<(), Error> {
        let client = self.client().await?;
        match self.ttl.is_zero() {
            true => client.put(key, value).await?,
            false => client.put_with_ttl(key, value, self.ttl).await?,
        }
        Ok(())
    }

    /// Whether more than an eighth of its life is left: who is told that a blob is there means to use it.
    fn is_lasting(&self, head: &Head) -> bool {
        self.ttl.is_zero() || age(head) < self.ttl.as_secs() / 8 * 7
    }

    fn is_old(&self, head: &Head) -> bool {
        !self.ttl.is_zero() && age(head) >= self.ttl.as_secs() / 2
    }

    /// Writes the chunks of a body under a name of their own; how many.
    async fn put_chunks(&self, id: Id<'_>, upload: [u8; 16], head: Head, mut body: Body) -> Result<u32, Error> {
        let count = u32::try_from(head.stored.div_ceil(CHUNK as u64)).map_err(|_| Error::TooLarge)?;
        let mut keys = self.chunk_keys(id, upload, count);
        let mut pending = BytesMut::with_capacity(CHUNK);
        while let Some(bytes) = body.try_next().await? {
            let mut bytes = &bytes[..];
            while !bytes.is_empty() {
                let (now, later) = bytes.split_at(bytes.len().min(CHUNK - pending.len()));
                pending.put_slice(now);
                bytes = later;
                if pending.len() == CHUNK {
                    let key = keys.next().ok_or(Error::Damaged("more bytes than it says"))?;
                    self.set(key, pending.split().freeze()).await?;
                    pending.reserve(CHUNK);
                }
            }
        }
        if !pending.is_empty() {
            let key = keys.next().ok_or(Error::Damaged("more bytes than it says"))?;
            self.set(key, pending.freeze()).await?;
        }
        match keys.next() {
            None => Ok(count),
            Some(_) => Err(Error::Damaged("less bytes than it says")),
        }
    }

    async fn remove_chunks(&self, id: Id<'_>, record: &[u8]) -> Result<(), Error> {
        if let Ok((_, Place::Chunks { upload, count })) = decode(&Bytes::copy_from_slice(record)) {
            self.client().await?.batch_delete(self.chunk_keys(id, upload, count)).await?;
        }
        Ok(())
    }

    /// Puts `record` in place of what is there, and removes the chunks of that. Whether it is in place; content that another server
    /// wrote meanwhile stays. Of two servers that write a name at once one follows the other, so no chunks are forgotten.
    async fn replace(&self, id: Id<'_>, known: Option<Bytes>, record: Bytes) -> Result<bool, Error> {
        let key = self.record_key(id);
        if !self.ttl.is_zero() {
            // Chunks that nobody names any more end by themselves.
            self.set(key, record).await?;
            if let Some(old) = known {
                self.remove_chunks(id, &old).await?;
            }
            return Ok(true);
        }
        let mut expected = known;
        for _ in 0..RACES_MAX {
            let swap = self
                .client()
                .await?
                .compare_and_swap(key.clone(), expected.clone(), Some(record.clone()))
                .await?;
            if swap.done {
                if let Some(old) = expected {
                    self.remove_chunks(id, &old).await?;
                }
                return Ok(true);
            }
            if id.content != Content::Named && swap.previous.is_some() {
                return Ok(false);
            }
            expected = swap.previous;
        }
        Ok(false)
    }
}

#[tonic::async_trait]
impl Tier for Ferrite {
    fn kind(&self) -> &'static str {
        "ferrite"
    }

    fn place(&self) -> String {
        format!("{} {}", self.endpoints.join(","), self.prefix)
    }

    async fn get(&self, id: Id<'_>) -> Result<Option<Found>, Error> {
        let client = self.client().await?;
        let Some(record) = client.get(self.record_key(id)).await? else {
            return Ok(None);
        };
        let (head, place) = decode(&record)?;
        let body = match place {
            Place::Inline(body) => futures::stream::iter([Ok(body)]).boxed(),
            Place::Chunks { upload, count } => {
                let (client, key) = (client.clone(), self.record_key(id));
                let chunks = futures::stream::iter(self.chunk_keys(id, upload, count)).map(move |chunk| {
                    let (client, key, record) = (client.clone(), key.clone(), record.clone());
                    async move {
                        match client.get(chunk).await? {
                            Some(bytes) => Ok(bytes),
                            // Another server may have put another record in its place, and taken the chunks of this one.
                            None if client.get(key).await? == Some(record) => Err(Error::Damaged("a chunk is missing")),
                            None => Err(Error::Changed),
                        }
                    }
                });
                chunks.buffered(AHEAD).boxed()
            }
        };
        Ok(Some(Found {
            is_old: self.is_old(&head),
            head,
            body,
        }))
    }

    async fn has(&self, ids: &[Id<'_>]) -> Result<Vec<Option<u64>>, Error> {
        let client = self.client().await?;
        let mut found = Vec::with_capacity(ids.len());
        for part in ids.chunks(LOOKUPS) {
            let keys: Vec<Bytes> = part.iter().map(|id| self.record_key(*id)).collect();
            let pairs: std::collections::BTreeMap<Bytes, Bytes> = client
                .batch_get(keys.clone())
                .await?
                .into_iter()
                .map(|pair| (pair.0, pair.1))
                .collect();
            for key in keys {
                let head = pairs.get(&key).and_then(|record| Head::decode(record).ok());
                found.push(head.filter(|head| self.is_lasting(head)).map(|head| head.len));
            }
        }
        Ok(found)
    }

    async fn put(&self, id: Id<'_>, head: Head, mut body: Body) -> Result<(), Error> {
        if head.stored > self.blob_max {
            return Err(Error::TooLarge);
        }
        let known = self.client().await?.get(self.record_key(id)).await?;
        let is_there = known.as_ref().is_some_and(|record| {
            let there = decode(record).map(|(head, _)| head);
            there.is_ok_and(|there| there.len == head.len && there.check == head.check && !self.is_old(&there))
        });
        if is_there {
            return Ok(());
        }
        let mut record = BytesMut::from(&head.encode()[..]);
        if head.stored <= INLINE_MAX {
            record.put_u8(INLINE);
            while let Some(bytes) = body.try_next().await? {
                record.put_slice(&bytes);
            }
            if record.len() as u64 != Head::LEN as u64 + 1 + head.stored {
                return Err(Error::Damaged("another length than it says"));
            }
            self.replace(id, known, record.freeze()).await?;
            return Ok(());
        }
        let upload = sweep::name(&id.key, WallTime::now().seconds(), SmallRng::from_os_rng().random());
        let written = self.put_chunks(id, upload, head, body).await;
        let kept = match &written {
            Ok(count) => {
                record.put_u8(CHUNKED);
                record.put_slice(&upload);
                record.put_u32(*count);
                self.replace(id, known, record.freeze()).await
            }
            Err(_) => Ok(false),
        };
        if !matches!(kept, Ok(true) | Err(Error::Ferrite(client::Error::Undetermined { .. }))) {
            let count = u32::try_from(head.stored.div_ceil(CHUNK as u64)).unwrap_or(u32::MAX);
            let _best_effort = self.client().await?.batch_delete(self.chunk_keys(id, upload, count)).await;
        }
        written?;
        kept.map(drop)
    }

    async fn remove(&self, id: Id<'_>) -> Result<(), Error> {
        let client = self.client().await?;
        let key = self.record_key(id);
        let Some(record) = client.get(key.clone()).await? else {
            return Ok(());
        };
        client.delete(key).await?;
        self.remove_chunks(id, &record).await
    }

    async fn remove_instance(&self, instance: &str) -> Result<(), Error> {
        let start = self.base(Content::Named, instance).into_bytes();
        let mut end = start.clone();
        // The base ends with a slash: the byte behind it ends the range.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let range = KeyRange {
            start: start.into(),
            end: end.into(),
        };
        Ok(self.client().await?.delete_range(range).await?)
    }

    async fn sweep(&self) -> Result<u64, Error> {
        match self.ttl.is_zero() {
            true => self.sweep_older(sweep::AGE).await,
            // What nobody names ends by itself.
            false => Ok(0),
        }
    }
}

fn age(head: &Head) -> u64 {
    WallTime::now().seconds().saturating_sub(head.written)
}

/// Reads a record, for the fuzzer: its head, and the length of its body where it lies in the record.
#[doc(hidden)]
pub fn read_record(record: &[u8]) -> Result<(Head, Option<usize>), Error> {
    let (head, place) = decode(&Bytes::copy_from_slice(record))?;
    Ok(match place {
        Place::Inline(body) => (head, Some(body.len())),
        Place::Chunks { .. } => (head, None),
    })
}

/// Reads a record.
fn decode(record: &Bytes) -> Result<(Head, Place), Error> {
    let head = Head::decode(record)?;
    let rest = record.slice(Head::LEN..);
    let place = match rest.first() {
        Some(&INLINE) if rest.len() as u64 - 1 == head.stored => Place::Inline(rest.slice(1..)),
        Some(&CHUNKED) if rest.len() == 21 => {
            let count = u32::from_be_bytes(rest[17..].try_into().expect("four bytes"));
            if u64::from(count) != head.stored.div_ceil(CHUNK as u64) {
                return Err(Error::Damaged("chunks do not fit the length"));
            }
            Place::Chunks {
                upload: rest[1..17].try_into().expect("sixteen bytes"),
                count,
            }
        }
        _ => return Err(Error::Damaged("no record of a blob")),
    };
    Ok((head, place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use blob_store::Form;

    fn head(stored: u64) -> Head {
        Head {
            form: Form::Zstd,
            len: stored * 3,
            stored,
            check: 7,
            written: 1,
        }
    }

    #[test]
    fn records_are_read_as_written_and_others_refused() {
        let mut inline = head(3).encode().to_vec();
        inline.extend(b"\0abc");
        let (_, place) = decode(&inline.clone().into()).expect("a record");
        assert_eq!(place, Place::Inline(Bytes::from_static(b"abc")));
        inline.push(b'd');
        assert!(decode(&inline.into()).is_err());

        let mut chunked = head(3 << 20).encode().to_vec();
        chunked.push(CHUNKED);
        chunked.extend([9; 16]);
        chunked.extend(3u32.to_be_bytes());
        let (_, place) = decode(&chunked.clone().into()).expect("a record");
        assert_eq!(
            place,
            Place::Chunks {
                upload: [9; 16],
                count: 3
            }
        );
        for (at, value) in [(Head::LEN, 2), (Head::LEN + 20, 4)] {
            let mut wrong = chunked.clone();
            wrong[at] = value;
            assert!(decode(&wrong.into()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn what_soon_ends_is_sent_again_and_not_promised() {
        let config = FerriteConfig {
            ttl: base::Span::secs(800),
            ..FerriteConfig::default()
        };
        let tier = Ferrite::new(&config);
        let aged = |seconds| Head {
            written: WallTime::now().seconds() - seconds,
            ..head(1)
        };
        assert!(tier.is_lasting(&aged(10)) && !tier.is_old(&aged(10)));
        assert!(tier.is_lasting(&aged(500)) && tier.is_old(&aged(500)));
        assert!(!tier.is_lasting(&aged(790)));
    }
}
