//! Removes values that have expired, in the regions that this store leads. No reader sees them any more; here they give up their room.
//!
//! A round goes over each region a slice at a time, with a rest after each. What a slice found is read again under the latches of its keys
//! before it is deleted, as in a compare-and-swap: a value that was put meanwhile stays. What expired less than a minute ago is left to
//! the next round, as the clock of the store that leads next may be behind.

use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, WallTime};
use bytes::{BufMut, Bytes, BytesMut};
use engine::kv::{self, Modify, RegionSnapshot};
use engine::{Cf, Cursor};
use tracing::{debug, info};

use super::api;
use super::{Raw, Result};
use crate::call::{Act, Call};
use crate::config::ApiVersion;
use crate::tikv_service::EXPIRED_REMOVED;

/// Differences between clocks of stores that matter to nobody.
const GRACE: Duration = Duration::from_secs(60);
/// Pairs and bytes that a slice looks at.
const SLICE_ROWS: usize = 1_000;
const SLICE_BYTES: usize = 1 << 20;
/// Rest after a slice, in times that it took: at most a tenth of the time goes into removing.
const REST: u32 = 9;
/// For one slice, with all its tries.
const SLICE_WAIT: Duration = Duration::from_secs(10);

/// How far a slice came.
#[derive(Debug, PartialEq, Eq)]
pub struct Swept {
    pub removed: usize,
    /// Where the next slice begins; none: the region is done.
    pub next: Option<Bytes>,
}

/// Sweeps the regions that `led` lists, one round every `interval`, until aborted; zero: never.
pub async fn run(raw: Arc<Raw>, led: impl Fn() -> Vec<kv::Context>, interval: Duration) {
    if !api::has_ttl(raw.api) || interval.is_zero() {
        return;
    }
    let mut rounds = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let removed = round(&raw, led(), GRACE).await;
        if removed > 0 {
            info!(removed, "expired values are removed");
        }
    }
}

/// Goes once over `regions`; how many values were removed. A region that moves or splits meanwhile is left to the next round.
async fn round(raw: &Raw, regions: Vec<kv::Context>, grace: Duration) -> usize {
    let mut removed = 0;
    for region in regions {
        for &cf in families(raw.api) {
            let mut from = Some(Bytes::new());
            while let Some(start) = from {
                let began = MonoTime::now();
                let call = call(raw.api, region.clone(), began, grace);
                match raw.sweep(&call, cf, start).await {
                    Ok(swept) => {
                        EXPIRED_REMOVED.inc_by(swept.removed as u64);
                        removed += swept.removed;
                        from = swept.next;
                    }
                    Err(error) => {
                        debug!(region = region.region.0, error = %base::log::chain(&error), "leave expired values to the next round");
                        from = None;
                    }
                }
                tokio::time::sleep(MonoTime::now().since(began) * REST).await;
            }
        }
    }
    removed
}

/// Where values that may expire lie.
fn families(api: ApiVersion) -> &'static [Cf] {
    match api {
        ApiVersion::V1 => &[],
        ApiVersion::V1Ttl => &[Cf::Default, Cf::Lock, Cf::Write],
        ApiVersion::V2 => &[Cf::Default],
    }
}

/// A call whose clock is behind by `grace`.
fn call(api: ApiVersion, ctx: kv::Context, now: MonoTime, grace: Duration) -> Call {
    Call {
        ctx,
        version: api::wire_version(api) as i32,
        stale: false,
        now,
        wall: WallTime(WallTime::now().0.saturating_sub(grace.as_millis() as u64)),
        deadline: now + SLICE_WAIT,
    }
}

impl Raw {
    /// Removes what has expired among the next pairs of the call's region, from the region key `from` on.
    async fn sweep(&self, call: &Call, cf: Cf, from: Bytes) -> Result<Swept> {
        let snapshot = self.snapshot(call, call.now, Act::Read).await?;
        let (expired, next) = self.expired(call, &*snapshot, cf, &from)?;
        drop(snapshot);
        let removed = match expired.is_empty() {
            true => 0,
            false => self.remove_expired(call, cf, expired).await?,
        };
        Ok(Swept { removed, next })
    }

    /// Keys of values that have expired, and where to go on.
    fn expired(&self, call: &Call, snapshot: &dyn RegionSnapshot, cf: Cf, from: &[u8]) -> Result<(Vec<Bytes>, Option<Bytes>)> {
        let (lower, upper) = api::raw_range(self.api);
        let mut cursor: Box<dyn Cursor> = snapshot.cursor(cf, from.max(&lower), &upper)?;
        let (mut expired, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while let Some((key, stored)) = cursor.next()? {
            rows += 1;
            bytes += key.len() + stored.len();
            let next = (rows == SLICE_ROWS || bytes >= SLICE_BYTES).then(|| behind(&key));
            if api::decode_value(self.api, stored, call.wall)?.is_none() {
                expired.push(key);
            }
            if next.is_some() {
                return Ok((expired, next));
            }
        }
        Ok((expired, None))
    }

    /// Deletes those of `keys` whose values have expired, still.
    async fn remove_expired(&self, call: &Call, cf: Cf, keys: Vec<Bytes>) -> Result<usize> {
        let latches = self.latches.swap(call.ctx.region, keys.iter().map(|key| &key[..]));
        let held = self.latched(call, Act::Read, latches).await?;
        let snapshot = self.snapshot(call, MonoTime::now(), Act::Read).await?;
        let mut changes = Vec::with_capacity(keys.len());
        for key in keys {
            let stored = snapshot.get(cf, &key)?;
            if let Some(stored) = stored
                && api::decode_value(self.api, stored, call.wall)?.is_none()
            {
                changes.push(Modify::Delete { cf, key });
            }
        }
        let removed = changes.len();
        if removed > 0 {
            self.write_after(call, &*snapshot, Act::Swap, changes, held).await?;
        }
        Ok(removed)
    }
}

/// The first key behind `key`.
fn behind(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

#[cfg(test)]
mod tests {
    use engine::kv::{Kv, MemKv, memory};

    use super::*;
    use crate::raw::api::{Value, encode_value};
    use ApiVersion::{V1Ttl, V2};

    fn store(memory: &MemKv, cf: Cf, key: &[u8], value: Bytes) {
        let change = Modify::Put {
            cf,
            key: Bytes::copy_from_slice(key),
            value,
        };
        let reply = Box::new(|outcome: std::result::Result<(), kv::Error>| outcome.expect("serves"));
        memory.write(&memory::context(1), vec![change], MonoTime(u64::MAX), reply);
    }

    fn left(memory: &MemKv, cf: Cf) -> usize {
        let mut cursor = memory.engine().snapshot().cursor(cf, b"", b"").expect("memory");
        std::iter::from_fn(|| cursor.next().expect("memory")).count()
    }

    fn value(api: ApiVersion, expiry: u64) -> Bytes {
        let user = Bytes::from_static(b"value");
        encode_value(api, Value { user, expiry })
    }

    /// Several slices; what lives for ever, lives on, or has just expired stays, as does what is not raw.
    #[tokio::test]
    async fn a_round_removes_what_has_expired() {
        let now = WallTime::now().seconds();
        for api in [V1Ttl, V2] {
            let memory = Arc::new(MemKv::whole());
            for n in 0..3_500u32 {
                let key = [&b"r\0\0\0"[..], &n.to_be_bytes()].concat();
                let key = api::region_key(api, key.into()).expect("a raw key");
                let expiry = [0, now + 1_000, now - 5, now - 1_000, 1][n as usize % 5];
                store(&memory, Cf::Default, &key, value(api, expiry));
            }
            // In API V2 the keys of transactions lie in the same family.
            if api == V2 {
                store(&memory, Cf::Default, b"x-transaction", value(V1Ttl, 1));
            }
            let raw = Raw::new(memory.clone(), api);
            let removed = round(&raw, vec![memory::context(1)], GRACE).await;
            assert_eq!(removed, 1_400, "{api:?}");
            assert_eq!(left(&memory, Cf::Default), 2_100 + usize::from(api == V2), "{api:?}");
            assert_eq!(round(&raw, vec![memory::context(1)], Duration::ZERO).await, 700, "{api:?}");
            assert_eq!(round(&raw, vec![memory::context(1)], Duration::ZERO).await, 0, "{api:?}");
        }
    }

    /// A slice is long past reading when a client puts the key anew.
    #[tokio::test]
    async fn a_value_put_meanwhile_stays() {
        let memory = Arc::new(MemKv::whole());
        for key in [b"a", b"b"] {
            store(&memory, Cf::Default, key, value(V1Ttl, 1));
        }
        let raw = Raw::new(memory.clone(), V1Ttl);
        let call = call(V1Ttl, memory::context(1), MonoTime::now(), Duration::ZERO);
        let snapshot = raw.snapshot(&call, call.now, Act::Read).await.expect("serves");
        let (expired, next) = raw.expired(&call, &*snapshot, Cf::Default, b"").expect("memory");
        assert_eq!((expired.len(), next), (2, None));
        store(&memory, Cf::Default, b"a", value(V1Ttl, 0));
        assert_eq!(raw.remove_expired(&call, Cf::Default, expired).await.expect("serves"), 1);
        assert_eq!(left(&memory, Cf::Default), 1);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_left() {
        let memory = Arc::new(MemKv::whole());
        store(&memory, Cf::Default, b"a", value(V1Ttl, 1));
        memory.fail_next([kv::Error::StaleCommand]);
        let raw = Raw::new(memory.clone(), V1Ttl);
        assert_eq!(round(&raw, vec![memory::context(1)], Duration::ZERO).await, 0);
        assert_eq!(round(&raw, vec![memory::context(1)], Duration::ZERO).await, 1);
    }
}
