//! Raw writes: put, delete, delete range, compare and swap. Each is one replicated entry.

use base::MonoTime;
use bytes::Bytes;
use engine::kv::{self, Modify, RegionSnapshot};
use proto::kvrpcpb::KvPair;
use tokio::sync::oneshot;

use super::api::{self, Value};
use super::latch::Held;
use super::read::check_batch;
use super::{Error, Raw, Result};
use crate::call::{Act, Call, Patience, settle, within};

/// A compare-and-swap as the client asked for it.
#[derive(Clone, Debug)]
pub struct Swap {
    pub key: Bytes,
    /// What must be there for the swap to take place; `None`: the key must be absent.
    pub expected: Option<Bytes>,
    /// What to put; `None`: delete the key.
    pub value: Option<Bytes>,
    /// Seconds that a put value lives; zero is for ever.
    pub ttl: u64,
}

/// What a compare-and-swap found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swapped {
    pub swapped: bool,
    /// The value before, swapped or not.
    pub previous: Option<Bytes>,
}

impl Raw {
    /// Puts one pair. `ttl` in seconds, zero for ever.
    pub async fn put(&self, call: &Call, cf: &str, key: Bytes, value: Bytes, ttl: u64) -> Result<()> {
        let cf = self.check(call, cf)?;
        let key = api::region_key(self.api, key)?;
        let value = self.stored(call, value, ttl)?;
        self.write_keys(call, vec![Modify::Put { cf, key, value }]).await
    }

    /// Puts `pairs`, all or none; the last one of a key wins. `ttls`: none, one for all, or one each.
    pub async fn batch_put(&self, call: &Call, cf: &str, pairs: Vec<KvPair>, ttls: &[u64]) -> Result<()> {
        let cf = self.check(call, cf)?;
        check_batch(pairs.len())?;
        if ttls.len() > 1 && ttls.len() != pairs.len() {
            return Err(Error::TtlCount {
                ttls: ttls.len(),
                pairs: pairs.len(),
            });
        }
        let mut changes = Vec::with_capacity(pairs.len());
        for (at, pair) in pairs.into_iter().enumerate() {
            let ttl = ttls.get(at).or(ttls.first()).copied().unwrap_or(0);
            let key = api::region_key(self.api, pair.key)?;
            changes.push(Modify::Put {
                cf,
                key,
                value: self.stored(call, pair.value, ttl)?,
            });
        }
        self.write_keys(call, changes).await
    }

    /// Deletes one key; it may be absent.
    pub async fn delete(&self, call: &Call, cf: &str, key: Bytes) -> Result<()> {
        self.batch_delete(call, cf, vec![key]).await
    }

    /// Deletes `keys`, all or none; they may be absent.
    pub async fn batch_delete(&self, call: &Call, cf: &str, keys: Vec<Bytes>) -> Result<()> {
        let cf = self.check(call, cf)?;
        check_batch(keys.len())?;
        let delete = |key| {
            Ok(Modify::Delete {
                cf,
                key: api::region_key(self.api, key)?,
            })
        };
        let changes = keys.into_iter().map(delete).collect::<Result<Vec<_>>>()?;
        self.write_keys(call, changes).await
    }

    /// Deletes every key in `[start, end)`, which must lie in the call's region; an empty `end` is the region's end.
    pub async fn delete_range(&self, call: &Call, cf: &str, start: Bytes, end: Bytes) -> Result<()> {
        let cf = self.check(call, cf)?;
        let (start, end) = api::region_range(self.api, start, end)?;
        if start == end && !end.is_empty() {
            return Ok(());
        }
        let held = self.latched(call, Act::Write, self.latches.range(call.ctx.region)).await?;
        self.write(call, Act::Write, vec![Modify::DeleteRange { cf, start, end }], held)
            .await
    }

    /// Puts or deletes a key if it holds what the caller expects. Atomic against every write of the key through this leader,
    /// whether or not that was marked `for_cas`.
    pub async fn compare_and_swap(&self, call: &Call, cf: &str, swap: Swap) -> Result<Swapped> {
        let cf = self.check(call, cf)?;
        let key = api::region_key(self.api, swap.key)?;
        let change = match swap.value {
            Some(value) => Modify::Put {
                cf,
                key: key.clone(),
                value: self.stored(call, value, swap.ttl)?,
            },
            None => Modify::Delete { cf, key: key.clone() },
        };
        // Read after the latch is held, or a write that ends meanwhile would be missed. Nothing is proposed yet: a read's error.
        let held = self
            .latched(call, Act::Read, self.latches.swap(call.ctx.region, std::iter::once(&key[..])))
            .await?;
        let snapshot = self.snapshot(call, MonoTime::now(), Act::Read).await?;
        let previous = self.read(call, &*snapshot, Act::Read, cf, &key)?.map(|value| value.user);
        let swapped = previous == swap.expected;
        if swapped {
            self.write_after(call, &*snapshot, Act::Swap, vec![change], held).await?;
        }
        Ok(Swapped { swapped, previous })
    }

    fn stored(&self, call: &Call, user: Bytes, ttl: u64) -> Result<Bytes> {
        let expiry = api::expiry(self.api, ttl, call.wall)?;
        Ok(api::encode_value(self.api, Value { user, expiry }))
    }

    /// Writes changes of single keys.
    async fn write_keys(&self, call: &Call, changes: Vec<Modify>) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let keys = changes.iter().map(|change| match change {
            Modify::Put { key, .. } | Modify::Delete { key, .. } => &key[..],
            Modify::DeleteRange { .. } => unreachable!("a range is not a change of single keys"),
        });
        let held = self.latched(call, Act::Write, self.latches.share(keys)).await?;
        self.write(call, Act::Write, changes, held).await
    }

    /// Waits for latches until the call's deadline.
    pub(super) async fn latched(&self, call: &Call, act: Act, latches: impl Future<Output = Held>) -> Result<Held> {
        // Nothing has been proposed: the request may be sent again.
        within(call, latches).await.ok_or(Error::Region {
            act,
            source: kv::Error::StaleCommand,
        })
    }

    /// Replicates what follows from `snapshot`, which was taken under the latches that are held. Another store that led since may have
    /// written there: then nothing is written here.
    pub(super) async fn write_after(
        &self,
        call: &Call,
        snapshot: &dyn RegionSnapshot,
        act: Act,
        changes: Vec<Modify>,
        held: Held,
    ) -> Result<()> {
        let mut call = call.clone();
        call.ctx.term = snapshot.term();
        self.write(&call, act, changes, held).await
    }

    /// Replicates `changes`. The latches go with the write and are let go when it is answered, whether or not anyone waits;
    /// they come back only with a refusal after which the write is tried again.
    async fn write(&self, call: &Call, act: Act, changes: Vec<Modify>, held: Held) -> Result<()> {
        let mut patience = Patience::of(call);
        let mut held = Some(held);
        loop {
            let (answer, answered) = oneshot::channel();
            let mut latches = held.take();
            let reply = move |outcome| {
                latches = latches.filter(|_| matches!(outcome, Err(kv::Error::Busy { .. })));
                drop(answer.send((outcome, latches)));
            };
            self.kv.write(&call.ctx, changes.clone(), call.deadline, Box::new(reply));
            let source = match settle(call, answered).await {
                Ok((Ok(()), _)) => return Ok(()),
                Ok((Err(error), latches)) if patience.again(&error).await => {
                    held = latches;
                    continue;
                }
                Ok((Err(error), _)) | Err(error) => error,
            };
            return Err(Error::Region { act, source });
        }
    }
}
