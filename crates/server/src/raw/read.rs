//! Raw reads: get, batch get, time to live, scans, checksum. Each takes one snapshot.
//!
//! What takes long (scans, batches, checksums) yields to other requests now and then and gives up at the deadline ([`Turns`]).

use bytes::Bytes;
use crc::{CRC_64_XZ, Crc};
use engine::kv::{self, RegionSnapshot};
use engine::{Cf, Cursor};
use proto::kvrpcpb::{ChecksumAlgorithm, KeyRange, KvPair, RawGetRequest};

use super::api::{self, Value};
use super::{Error, Raw, Result, check_key};
use crate::call::{self, Act, Call, Room, Turns};
use crate::limits::{ANSWER_BYTES_MAX, BATCH_KEYS_MAX};

/// A scan as the client asked for it. A range of a reverse scan is turned: it starts at its upper end, exclusive, and ends at
/// its lower end, inclusive. An empty end is open.
#[derive(Clone, Copy, Debug)]
pub struct Scan {
    /// Pairs wanted of each range.
    pub limit: usize,
    pub key_only: bool,
    pub reverse: bool,
}

/// Checksum over pairs as clients see them; independent of their order and of how they are cut into regions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum {
    /// CRC-64/XZ of key then value, xor over the pairs.
    pub crc64_xor: u64,
    pub pairs: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

impl Raw {
    /// The value of `key`, if it is there and has not expired.
    pub async fn get(&self, call: &Call, cf: &str, key: Bytes) -> Result<Option<Bytes>> {
        Ok(self.value(call, cf, key).await?.map(|value| value.user))
    }

    /// As [`Raw::get`] for each request by itself, out of one snapshot.
    pub async fn get_each(&self, call: &Call, requests: Vec<RawGetRequest>) -> Vec<Result<Option<Bytes>>> {
        let snapshot = call::snapshot(&*self.kv, call, call.now).await;
        let get = |RawGetRequest { key, cf, .. }: RawGetRequest| {
            let cf = self.check(call, &cf)?;
            let key = api::region_key(self.api, key)?;
            let snapshot = snapshot.as_ref().map_err(|source| read_failed(source.clone()))?;
            let value = self.read(call, &**snapshot, Act::Read, cf, &key)?;
            Ok(value.map(|value| value.user))
        };
        requests.into_iter().map(get).collect()
    }

    /// Seconds that `key` has left to live, zero if it lives for ever; `None` if it is not there.
    pub async fn ttl(&self, call: &Call, cf: &str, key: Bytes) -> Result<Option<u64>> {
        if !api::has_ttl(self.api) {
            return Err(Error::TtlNotEnabled);
        }
        Ok(self
            .value(call, cf, key)
            .await?
            .map(|value| value.expiry.saturating_sub(call.wall.seconds())))
    }

    async fn value(&self, call: &Call, cf: &str, key: Bytes) -> Result<Option<Value>> {
        let cf = self.check(call, cf)?;
        let key = api::region_key(self.api, key)?;
        let snapshot = self.snapshot(call, call.now, Act::Read).await?;
        self.read(call, &*snapshot, Act::Read, cf, &key)
    }

    /// Pairs of those `keys` that are there, in the order asked.
    pub async fn batch_get(&self, call: &Call, cf: &str, keys: Vec<Bytes>) -> Result<Vec<KvPair>> {
        let cf = self.check(call, cf)?;
        check_batch(keys.len())?;
        let region_keys = keys
            .iter()
            .map(|key| api::region_key(self.api, key.clone()))
            .collect::<Result<Vec<_>>>()?;
        let snapshot = self.snapshot(call, call.now, Act::Read).await?;
        let mut turns = Turns::new(call);
        let mut answer = Answer::default();
        for (key, region_key) in keys.into_iter().zip(region_keys) {
            turns.row().await.map_err(read_failed)?;
            if let Some(value) = self.read(call, &*snapshot, Act::Read, cf, &region_key)? {
                answer.push(key, value.user)?;
            }
        }
        Ok(answer.pairs)
    }

    /// At most `scan.limit` pairs of the range that lie in the call's region. Fewer mean that the region has no more: clients
    /// go on behind its border, so an answer can not be cut short otherwise.
    pub async fn scan(&self, call: &Call, cf: &str, range: KeyRange, scan: Scan) -> Result<Vec<KvPair>> {
        self.batch_scan(call, cf, vec![range], scan).await
    }

    /// As [`Raw::scan`] for each of `ranges`, one after the other. An open range ends where the next one starts.
    pub async fn batch_scan(&self, call: &Call, cf: &str, mut ranges: Vec<KeyRange>, scan: Scan) -> Result<Vec<KvPair>> {
        let cf = self.check(call, cf)?;
        check_batch(ranges.len())?;
        for next in 1..ranges.len() {
            if ranges[next - 1].end_key.is_empty() {
                ranges[next - 1].end_key = ranges[next].start_key.clone();
            }
        }
        let bounds = ranges
            .into_iter()
            .map(|range| self.bounds(range, scan.reverse))
            .collect::<Result<Vec<_>>>()?;
        let snapshot = self.snapshot(call, call.now, Act::Read).await?;
        let mut turns = Turns::new(call);
        let mut answer = Answer::default();
        for (lower, upper) in bounds {
            let mut rows = Rows::new(&*snapshot, cf, lower, upper, scan.reverse)?;
            let mut left = scan.limit;
            while left > 0 {
                let Some((key, stored)) = rows.next()? else { break };
                turns.row().await.map_err(read_failed)?;
                let Some(value) = api::decode_value(self.api, stored, call.wall)? else {
                    continue;
                };
                answer.push(
                    api::user_key(self.api, key)?,
                    if scan.key_only { Bytes::new() } else { value.user },
                )?;
                left -= 1;
            }
        }
        Ok(answer.pairs)
    }

    /// Checksum of the parts of `ranges` that lie in the call's region.
    pub async fn checksum(&self, call: &Call, algorithm: i32, ranges: Vec<KeyRange>) -> Result<Checksum> {
        const CRC: Crc<u64> = Crc::<u64>::new(&CRC_64_XZ);
        let cf = self.check(call, "")?;
        check_batch(ranges.len())?;
        if ChecksumAlgorithm::try_from(algorithm) != Ok(ChecksumAlgorithm::Crc64Xor) {
            return Err(Error::ChecksumAlgorithm(algorithm));
        }
        let bounds = ranges
            .into_iter()
            .map(|range| self.bounds(range, false))
            .collect::<Result<Vec<_>>>()?;
        let snapshot = self.snapshot(call, call.now, Act::Read).await?;
        let mut turns = Turns::new(call);
        let mut sum = Checksum::default();
        for (lower, upper) in bounds {
            let mut rows = Rows::new(&*snapshot, cf, lower, upper, false)?;
            while let Some((key, stored)) = rows.next()? {
                turns.row().await.map_err(read_failed)?;
                let Some(value) = api::decode_value(self.api, stored, call.wall)? else {
                    continue;
                };
                let key = api::user_key(self.api, key)?;
                let mut digest = CRC.digest();
                digest.update(&key);
                digest.update(&value.user);
                sum.crc64_xor ^= digest.finalize();
                sum.pairs += 1;
                sum.bytes += (key.len() + value.user.len()) as u64;
            }
        }
        Ok(sum)
    }

    /// Version and column family of a request.
    pub(super) fn check(&self, call: &Call, cf: &str) -> Result<Cf> {
        api::check_version(self.api, call.version)?;
        api::check_cf(self.api, cf)
    }

    /// One value out of a snapshot.
    pub(super) fn read(
        &self,
        call: &Call,
        snapshot: &dyn RegionSnapshot,
        act: Act,
        cf: Cf,
        key: &Bytes,
    ) -> Result<Option<Value>> {
        check_key(snapshot, act, key)?;
        match snapshot.get(cf, key)? {
            Some(stored) => api::decode_value(self.api, stored, call.wall),
            None => Ok(None),
        }
    }

    /// Region keys `[lower, upper)` of a range as clients give it.
    fn bounds(&self, range: KeyRange, reverse: bool) -> Result<(Bytes, Bytes)> {
        let (lower, upper) = if reverse {
            (range.end_key, range.start_key)
        } else {
            (range.start_key, range.end_key)
        };
        api::region_range(self.api, lower, upper)
    }
}

fn read_failed(source: kv::Error) -> Error {
    Error::Region { act: Act::Read, source }
}

pub(super) fn check_batch(count: usize) -> Result<()> {
    if count > BATCH_KEYS_MAX {
        Err(Error::BatchTooLong {
            count,
            max: BATCH_KEYS_MAX,
        })
    } else {
        Ok(())
    }
}

/// Pairs of an answer, bounded in bytes: one request must not take the memory of all.
#[derive(Default)]
struct Answer {
    pairs: Vec<KvPair>,
    room: Room,
}

impl Answer {
    fn push(&mut self, key: Bytes, value: Bytes) -> Result<()> {
        if !self.room.take(key.len() + value.len()) {
            return Err(Error::AnswerTooLong { max: ANSWER_BYTES_MAX });
        }
        self.pairs.push(KvPair {
            key,
            value,
            ..Default::default()
        });
        Ok(())
    }
}

/// Stored pairs of a range in one direction.
struct Rows {
    cursor: Box<dyn Cursor>,
    reverse: bool,
}

impl Rows {
    /// The end at which the scan begins must lie in the region, else pairs would be left out unseen: the client means another
    /// region. Beyond the other end it goes on in the next region.
    fn new(snapshot: &dyn RegionSnapshot, cf: Cf, lower: Bytes, upper: Bytes, reverse: bool) -> Result<Rows> {
        let region = snapshot.region();
        // In reverse, clients begin at a region's border or, as the Rust client does, beyond it.
        let meets = (region.end_key.is_empty() || lower < region.end_key) && (upper.is_empty() || upper > region.start_key);
        if !reverse {
            check_key(snapshot, Act::Read, &lower)?;
        } else if !meets {
            let source = kv::Error::KeyNotInRegion {
                key: upper,
                region: region.clone(),
            };
            return Err(Error::Region { act: Act::Read, source });
        }
        Ok(Rows {
            cursor: snapshot.cursor(cf, &lower, &upper)?,
            reverse,
        })
    }

    fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        Ok(if self.reverse {
            self.cursor.prev()?
        } else {
            self.cursor.next()?
        })
    }
}
