//! Removes chunks that no record names: a server was killed before it wrote the record, or after it put another one in its place. Where blobs
//! have a time to live they end by themselves; elsewhere they would stay for ever.
//!
//! The name of an upload tells when it began and the front of the key that it is for ([`name`]), so one look-up tells whether a record names
//! it. Uploads of servers that named them otherwise are left alone.

use std::time::Duration;

use base::WallTime;
use blob_store::Key;
use bytes::Bytes;
use client::{KeyRange, RawClient, ScanOptions};
use futures::TryStreamExt as _;

use super::{Error, Ferrite, Place, decode};

/// First bytes of names that tell something.
const MAGIC: [u8; 2] = [0xfb, 0xc2];
/// Bytes of the key in a name.
const OWNER: usize = 6;
/// Between two look-ups, so that a sweep is hardly felt.
const PAUSE: Duration = Duration::from_millis(5);
/// An upload older than this is over: it may take the time-out once for every 8 MiB, and blobs are bounded.
pub(super) const AGE: Duration = Duration::from_hours(24);

/// Name of an upload that begins at `seconds` since 1970, for `key`.
pub(super) fn name(key: &Key, seconds: u64, random: [u8; 4]) -> [u8; 16] {
    let mut name = [0; 16];
    name[..2].copy_from_slice(&MAGIC);
    name[2..6].copy_from_slice(&(seconds as u32).to_be_bytes());
    name[6..12].copy_from_slice(&key.0[..OWNER]);
    name[12..].copy_from_slice(&random);
    name
}

impl Ferrite {
    /// Removes the chunks of uploads that began more than `age` ago and that no record names. How many uploads it removed.
    pub async fn sweep_older(&self, age: Duration) -> Result<u64, Error> {
        let end = WallTime::now().seconds().saturating_sub(age.as_secs()) as u32;
        let mut swept = 0;
        for base in self.bases().await? {
            swept += self.sweep_base(&base, end).await?;
        }
        Ok(swept)
    }

    /// What keys begin with: the two of content, and one for each instance that has entries under names.
    async fn bases(&self) -> Result<Vec<Bytes>, Error> {
        let client = self.client().await?;
        let mut bases: Vec<Bytes> = ["cas/", "cas-blake3/"]
            .map(|part| Bytes::from(format!("{}{part}", self.prefix)))
            .into();
        let named = format!("{}named/", self.prefix);
        let mut range = KeyRange::prefix(named.clone());
        while let Some(key) = first(client, range.clone()).await? {
            // Sixteen digits of the instance's hash and a slash.
            let Some(base) = key.get(..named.len() + 17) else { break };
            bases.push(Bytes::copy_from_slice(base));
            range.start = after(base);
        }
        Ok(bases)
    }

    /// Looks at each upload of a base that began before `end`.
    async fn sweep_base(&self, base: &[u8], end: u32) -> Result<u64, Error> {
        let client = self.client().await?;
        let chunks = [base, b"d/", &MAGIC].concat();
        let mut range = KeyRange {
            start: chunks.clone().into(),
            end: [&chunks[..], &end.to_be_bytes()].concat().into(),
        };
        let mut swept = 0;
        while let Some(key) = first(client, range.clone()).await? {
            let upload = key.get(base.len() + 2..).and_then(|rest| rest.first_chunk::<16>());
            let (Some(upload), Some(all)) = (upload, key.get(..base.len() + 18)) else {
                break;
            };
            if !is_named(client, base, upload).await? {
                client
                    .delete_range(KeyRange {
                        start: Bytes::copy_from_slice(all),
                        end: after(all),
                    })
                    .await?;
                swept += 1;
            }
            range.start = after(all);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(swept)
    }
}

/// Whether a record names the upload.
async fn is_named(client: &RawClient, base: &[u8], upload: &[u8; 16]) -> Result<bool, Error> {
    let owner = upload.get(6..6 + OWNER).unwrap_or_default();
    let records = KeyRange::prefix([base, b"i/", owner].concat());
    let found: Vec<client::Pair> = client.scan(records, ScanOptions::default()).try_collect().await?;
    Ok(found
        .iter()
        .any(|pair| matches!(decode(&pair.1), Ok((_, Place::Chunks { upload: named, .. })) if named == *upload)))
}

async fn first(client: &RawClient, range: KeyRange) -> Result<Option<Bytes>, Error> {
    let options = ScanOptions {
        limit: 1,
        keys_only: true,
        ..ScanOptions::default()
    };
    Ok(client.scan(range, options).try_next().await?.map(|pair| pair.0))
}

/// The key behind all that begin with `prefix`.
fn after(prefix: &[u8]) -> Bytes {
    KeyRange::prefix(prefix.to_vec()).end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_time_and_tell_their_key() {
        let key = Key([7; 32]);
        let (early, late) = (name(&key, 1_000, [9; 4]), name(&key, 70_000, [1; 4]));
        assert!(early < late);
        assert_eq!(early, [0xfb, 0xc2, 0, 0, 3, 0xe8, 7, 7, 7, 7, 7, 7, 9, 9, 9, 9]);
        assert_eq!(&*after(b"ab/"), b"ab0");
    }
}
