//! Reads of transactions: get, batch get, scan, locks, history. They go past the scheduler.
//!
//! The order is what makes them safe: note the timestamp, so that no async commit takes place below it; look for locks in memory, which
//! no snapshot shows; then take the snapshot.

use base::{MonoTime, Ts};
use bytes::{BufMut, Bytes, BytesMut};
use engine::kv::{self, RegionSnapshot, SnapshotRef, view};
use proto::kvrpcpb::{KeyRange, KvPair, LockInfo, MvccInfo};
use txn::lock::Locked;
use txn::mvcc::{self, Found, ReadOptions, Scanner};
use txn::{Error as TxnError, Key, Lock};

use super::keys::border;
use super::{Error, Result, Txn, wire};
use crate::call::{self, Call, Patience, Room, Turns};
use crate::error::key_error;
use crate::limits::ANSWER_BYTES_MAX;

/// A scan as the client asked for it. In reverse it starts at its upper end, exclusive, and ends at its lower end, inclusive. An empty
/// end is open.
#[derive(Clone, Debug)]
pub struct Scan {
    pub start: Bytes,
    pub end: Bytes,
    /// Pairs wanted.
    pub limit: usize,
    pub key_only: bool,
    pub reverse: bool,
    /// Every so many pairs one is told; zero and one: each.
    pub sample_step: usize,
}

/// Region failure of a read.
pub(super) fn region(source: kv::Error) -> Error {
    let proposed = false;
    Error::Txn(TxnError::Region { proposed, source })
}

impl Txn {
    /// The value of `key` as `options` see it.
    pub async fn get(&self, call: &Call, key: Bytes, options: &ReadOptions) -> Result<Option<Found>> {
        let key = self.keys(call)?.key(&key)?;
        self.note_read(options.ts).await?;
        self.concurrency.check_key(&key, options)?;
        let snapshot = self.read_view(call, options, || vec![range_of(&key)]).await?;
        check_key(&*snapshot, key.encoded())?;
        Ok(mvcc::get(&*snapshot, &key, options)?)
    }

    /// Pairs of those `keys` that hold a value or are locked, in the order asked.
    pub async fn batch_get(&self, call: &Call, keys: Vec<Bytes>, options: &ReadOptions, with_ts: bool) -> Result<Vec<KvPair>> {
        let region_keys = self.keys(call)?.keys(&keys)?;
        self.note_read(options.ts).await?;
        let in_memory: Vec<_> = region_keys
            .iter()
            .map(|key| self.concurrency.check_key(key, options))
            .collect();
        let ranges = || region_keys.iter().map(range_of).collect();
        let snapshot = self.read_view(call, options, ranges).await?;
        let mut turns = Turns::new(call);
        let mut answer = Answer::new(with_ts);
        for ((key, region_key), in_memory) in keys.into_iter().zip(region_keys).zip(in_memory) {
            turns.row().await.map_err(region)?;
            check_key(&*snapshot, region_key.encoded())?;
            match in_memory.and_then(|()| mvcc::get(&*snapshot, &region_key, options)) {
                Ok(None) => {}
                Ok(Some(found)) => answer.push(key, found)?,
                Err(error) => answer.fail(key, error)?,
            }
        }
        Ok(answer.pairs)
    }

    /// At most `scan.limit` pairs of the range that lie in the call's region, locked ones among them. Fewer mean that the region has no
    /// more.
    pub async fn scan(&self, call: &Call, scan: Scan, options: ReadOptions) -> Result<Vec<KvPair>> {
        let (lower, upper) = if scan.reverse {
            (&scan.end, &scan.start)
        } else {
            (&scan.start, &scan.end)
        };
        let (lower, upper) = self.keys(call)?.range(lower, upper)?;
        self.note_read(options.ts).await?;
        self.await_memory(call, &lower, &upper, &options).await?;
        let range = || KeyRange {
            start_key: lower.clone(),
            end_key: upper.clone(),
        };
        let snapshot = self.read_view(call, &options, || vec![range()]).await?;
        check_meets(&*snapshot, &lower, &upper, scan.reverse)?;
        let mut turns = Turns::new(call);
        let mut answer = Answer::new(true);
        let way = mvcc::Scan {
            reverse: scan.reverse,
            key_only: scan.key_only,
        };
        let mut scanner = Scanner::new(&*snapshot, &lower, &upper, way, options)?;
        let mut rows = 0;
        while answer.pairs.len() < scan.limit {
            let Some((key, found)) = scanner.next()? else { break };
            turns.row().await.map_err(region)?;
            let is_sample = rows % scan.sample_step.max(1) == 0;
            rows += 1;
            match found {
                Ok(found) if is_sample => answer.push(key.user()?, found)?,
                Ok(_) => {}
                Err(error) => answer.fail(key.user()?, error)?,
            }
        }
        Ok(answer.pairs)
    }

    /// Locks of `[start, end)` in the call's region whose transactions began at or before `max_ts`, at most `limit`; zero for all. Those on
    /// keys that the call may not name are left out: it could not resolve them. An empty start is the region's: whoever goes by regions need not know their borders, which may not be those of transactions.
    pub async fn scan_locks(&self, call: &Call, start: &[u8], end: &[u8], max_ts: Ts, limit: usize) -> Result<Vec<LockInfo>> {
        let keys = self.keys(call)?;
        let (start, end) = (border(start), border(end));
        self.note_read(max_ts).await?;
        self.await_memory(call, &start, &end, &ReadOptions::snapshot(max_ts)).await?;
        // In this order: locks move from memory to the family, never back.
        let memory = self.memory_locks(call, &start, &end);
        let snapshot = self.snapshot(call).await?;
        if !start.is_empty() {
            check_key(&*snapshot, &start)?;
        }
        let memory = memory.under(&*snapshot);
        off_network(move || {
            let locks = mvcc::scan_locks(&*snapshot, &memory, &start, &end, limit, |locked| {
                locked.lock.start_ts <= max_ts && keys.may_name(&locked.key)
            })?;
            check_room(&locks)?;
            wire::lock_infos(&locks)
        })
        .await
    }

    /// Waits for locks in memory that hide something from the read: they are being written, so in a moment they are gone or in the
    /// snapshot. No new ones come in their place, as those commit above the read's timestamp.
    pub(super) async fn await_memory(&self, call: &Call, start: &[u8], end: &[u8], options: &ReadOptions) -> Result<()> {
        let mut patience = Patience::of(call);
        loop {
            match self.concurrency.check_range(start, end, options) {
                Err(TxnError::Locked(_)) if patience.pause().await => {}
                outcome => return Ok(outcome?),
            }
        }
    }

    /// Everything known of a key.
    pub async fn history(&self, call: &Call, key: Bytes) -> Result<MvccInfo> {
        let key = self.keys(call)?.key(&key)?;
        let memory = self.memory_locks(call, key.encoded(), b"");
        let snapshot = self.snapshot(call).await?;
        check_key(&*snapshot, key.encoded())?;
        let memory = memory.under(&*snapshot).remove(&key);
        off_network(move || history(&*snapshot, &key, memory)).await
    }

    /// The first key of the region that the transaction has a lock or a record on, with everything stored of it. Reads the whole region
    /// if it must.
    pub async fn find(&self, call: &Call, start_ts: Ts) -> Result<Option<(Bytes, MvccInfo)>> {
        self.keys(call)?;
        let memory = self.memory_locks(call, b"", b"");
        let snapshot = self.snapshot(call).await?;
        let mut memory = memory.under(&*snapshot);
        let deadline = call.deadline;
        off_network(move || {
            let is_late = || MonoTime::now() >= deadline;
            let found = mvcc::find_transaction(&*snapshot, &memory, start_ts, is_late)?;
            let Some(key) = found else {
                return match is_late() {
                    true => Err(region(kv::Error::Deadline)),
                    false => Ok(None),
                };
            };
            let memory = memory.remove(&key);
            Ok(Some((key.user()?, history(&*snapshot, &key, memory)?)))
        })
        .await
    }

    async fn snapshot(&self, call: &Call) -> Result<SnapshotRef> {
        call::snapshot(&*self.kv, call, MonoTime::now()).await.map_err(region)
    }
}

/// The range of one key.
fn range_of(key: &Key) -> KeyRange {
    let mut end = BytesMut::from(&key.encoded()[..]);
    end.put_u8(0);
    KeyRange {
        start_key: key.encoded().clone(),
        end_key: end.freeze(),
    }
}

/// Runs a read that may take long where it keeps nobody waiting.
pub(super) async fn off_network<T: Send + 'static>(read: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(read).await;
    // The runtime ends.
    done.unwrap_or(Err(region(kv::Error::Shutdown)))
}

/// `memory`: the pessimistic lock that is kept in memory.
fn history(snapshot: &dyn RegionSnapshot, key: &Key, memory: Option<Lock>) -> Result<MvccInfo> {
    let max = ANSWER_BYTES_MAX;
    let mut history = mvcc::history(snapshot, key, max)?.ok_or(Error::AnswerTooLong { max })?;
    history.lock = history.lock.or(memory);
    Ok(wire::mvcc_info(history))
}

/// Refuses a key that the snapshot does not cover: it would read as absent, which would be a wrong answer.
fn check_key(snapshot: &dyn RegionSnapshot, key: &[u8]) -> Result<()> {
    view::check_key(snapshot.region(), key).map_err(region)
}

/// The end at which a scan begins must lie in the region, else pairs would be left out unseen. In reverse, clients begin at a region's
/// border or, as the Rust client does, beyond it.
fn check_meets(snapshot: &dyn RegionSnapshot, lower: &Bytes, upper: &Bytes, reverse: bool) -> Result<()> {
    let bounds = snapshot.region();
    let meets = (bounds.end_key.is_empty() || *lower < bounds.end_key) && (upper.is_empty() || *upper > bounds.start_key);
    match reverse {
        false => check_key(snapshot, lower),
        true if meets => Ok(()),
        true => Err(region(kv::Error::KeyNotInRegion {
            key: upper.clone(),
            region: bounds.clone(),
        })),
    }
}

pub(super) fn check_room(locks: &[Locked]) -> Result<()> {
    let mut room = Room::default();
    let bytes = |locked: &Locked| {
        let secondaries: usize = locked.lock.secondaries.iter().map(Bytes::len).sum();
        locked.key.encoded().len() + locked.lock.primary.len() + secondaries
    };
    match locks.iter().all(|locked| room.take(bytes(locked))) {
        true => Ok(()),
        false => Err(Error::AnswerTooLong { max: ANSWER_BYTES_MAX }),
    }
}

/// Pairs of an answer, bounded in bytes.
struct Answer {
    pairs: Vec<KvPair>,
    with_ts: bool,
    room: Room,
}

impl Answer {
    fn new(with_ts: bool) -> Answer {
        Answer {
            pairs: Vec::new(),
            with_ts,
            room: Room::default(),
        }
    }

    fn push(&mut self, key: Bytes, found: Found) -> Result<()> {
        self.add(KvPair {
            key,
            value: found.value,
            commit_ts: if self.with_ts { found.commit_ts.0 } else { 0 },
            error: None,
        })
    }

    /// A locked key, or a conflict on it. What the reader as a whole cannot go on after ends the request.
    fn fail(&mut self, key: Bytes, error: TxnError) -> Result<()> {
        match error {
            TxnError::Locked(_) | TxnError::WriteConflict { .. } => self.add(KvPair {
                key,
                error: Some(Box::new(key_error(error))),
                ..KvPair::default()
            }),
            fatal => Err(fatal.into()),
        }
    }

    fn add(&mut self, pair: KvPair) -> Result<()> {
        if !self.room.take(pair.key.len() + pair.value.len()) {
            return Err(Error::AnswerTooLong { max: ANSWER_BYTES_MAX });
        }
        self.pairs.push(pair);
        Ok(())
    }
}
