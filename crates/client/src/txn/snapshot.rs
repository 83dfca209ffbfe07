//! [`Snapshot`]: reads as of one time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base::Ts;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use proto::kvrpcpb::{self, KvPair, LockInfo};

use super::Core;
use super::fault::{Fault, locked};
use super::options::ReadFrom;
use super::resolve::Purpose;
use crate::Error;
use crate::call::Call;
use crate::keys::KeyRange;
use crate::retry::Cause;
use crate::scan::{Cursor, Page, Pair, ScanOptions};

/// What was committed at or before a timestamp. Clones share what they know of others' locks.
///
/// Locks of ended transactions are cleaned up on the way; running ones are told to commit later, or waited for within the deadline.
#[derive(Clone)]
pub struct Snapshot {
    core: Arc<Core>,
    ts: Ts,
    deadline: Duration,
    from: ReadFrom,
    /// Transactions whose locks are passed, as they will commit later. At [`Ts::MAX`] that holds for one call only.
    passed: Arc<Mutex<BTreeSet<u64>>>,
}

/// Transactions that a snapshot remembers to pass; the oldest are asked again when met again.
const PASSED_MAX: usize = 256;

impl Snapshot {
    pub(crate) fn new(core: Arc<Core>, ts: Ts, deadline: Duration) -> Snapshot {
        Snapshot {
            core,
            ts,
            deadline,
            from: ReadFrom::Leader,
            passed: Arc::default(),
        }
    }

    /// Lets other copies than the leader's serve. At [`Ts::MAX`] stale reads are of no use: that time is never over.
    pub fn read_from(mut self, from: ReadFrom) -> Snapshot {
        self.from = from;
        self
    }

    /// What it reads at; [`Ts::MAX`] for the latest of each key, which over several keys is no snapshot.
    pub fn ts(&self) -> Ts {
        self.ts
    }

    /// Value of `key`, `None` if there is none.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>, Error> {
        self.get_wire(self.core.router.form.wire(key.into())).await
    }

    pub(crate) async fn get_wire(&self, key: Bytes) -> Result<Option<Bytes>, Error> {
        let mut call = self.begin();
        loop {
            let request = kvrpcpb::GetRequest {
                context: Some(self.context()),
                key: key.clone(),
                version: self.ts.0,
                ..Default::default()
            };
            let answer = self.core.router.single(&mut call, &key, request).await?;
            match answer.error {
                None => return Ok((!answer.not_found).then_some(answer.value)),
                Some(error) => {
                    let lock = self.lock(*error)?;
                    self.on_locks(&mut call, vec![lock]).await?;
                }
            }
        }
    }

    /// The pairs of those `keys` that are there, by key.
    pub async fn batch_get(&self, keys: impl IntoIterator<Item = impl Into<Bytes>>) -> Result<Vec<Pair>, Error> {
        let keys = keys.into_iter().map(|key| self.core.router.form.wire(key.into())).collect();
        self.core.router.user_pairs(self.batch_get_wire(keys).await?)
    }

    pub(crate) async fn batch_get_wire(&self, mut keys: BTreeSet<Bytes>) -> Result<Vec<KvPair>, Error> {
        let mut call = self.begin();
        let mut found = Vec::new();
        while !keys.is_empty() {
            let make = |keys: &[Bytes]| kvrpcpb::BatchGetRequest {
                context: Some(self.context()),
                keys: keys.to_vec(),
                version: self.ts.0,
                ..Default::default()
            };
            let asked = keys.into_iter().collect();
            let answers = self.core.router.many(&mut call, asked, |key| (key, key.len()), make).await?;
            (keys, found) = self.sort_out(&mut call, answers, found).await?;
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    /// Adds to `found` what was read and returns the keys to be asked for again, once their locks are out of the way.
    async fn sort_out(
        &self,
        call: &mut Call,
        answers: Vec<(Vec<Bytes>, kvrpcpb::BatchGetResponse)>,
        mut found: Vec<KvPair>,
    ) -> Result<(BTreeSet<Bytes>, Vec<KvPair>), Error> {
        let (mut again, mut locks) = (BTreeSet::new(), Vec::new());
        for (asked, answer) in answers {
            if let Some(error) = answer.error {
                locks.push(self.lock(*error)?);
                again.extend(asked);
                continue;
            }
            for mut pair in answer.pairs {
                match pair.error.take() {
                    None => found.push(pair),
                    Some(error) => {
                        let lock = self.lock(*error)?;
                        again.insert(lock.key.clone());
                        locks.push(lock);
                    }
                }
            }
        }
        if !locks.is_empty() {
            self.on_locks(call, locks).await?;
        }
        Ok((again, found))
    }

    /// Pairs of a range as a stream, in order, page by page across regions, all as of this snapshot.
    pub fn scan(&self, range: impl Into<KeyRange>, options: ScanOptions) -> BoxStream<'static, Result<Pair, Error>> {
        let state = Scan {
            snapshot: self.clone(),
            cursor: Cursor::new(self.core.router.form.wire_range(range.into()), options),
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

    fn begin(&self) -> Call {
        // Whoever was passed in an earlier call may have committed since, and at no timestamp above this one.
        if self.ts == Ts::MAX {
            self.passed.lock().clear();
        }
        Call::begin(self.deadline, &self.core.router.jitter)
    }

    fn context(&self) -> kvrpcpb::Context {
        kvrpcpb::Context {
            resolved_locks: self.passed.lock().iter().copied().collect(),
            ..self.from.context()
        }
    }

    /// The lock that kept a read from its key; any other fault is the read's.
    fn lock(&self, error: kvrpcpb::KeyError) -> Result<LockInfo, Error> {
        match Fault::of(error) {
            Fault::Locked(lock) => Ok(*lock),
            fault => Err(fault.into_error(self.ts, &self.core.router.form)),
        }
    }

    /// Returns when the read is worth another try.
    async fn on_locks(&self, call: &mut Call, locks: Vec<LockInfo>) -> Result<(), Error> {
        let last = locked(&locks[0], &self.core.router.form);
        let resolved = self.core.resolve(call, locks, Purpose::Read(self.ts)).await?;
        if !resolved.pushed.is_empty() {
            let mut passed = self.passed.lock();
            passed.extend(resolved.pushed.iter().map(|ts| ts.0));
            while passed.len() > PASSED_MAX {
                passed.pop_first();
            }
        }
        match resolved.waiting {
            Some(lock) => call.pause(Cause::Locked, 0, locked(&lock, &self.core.router.form)).await,
            None => call.again(last).await,
        }
    }
}

/// A scan under way.
struct Scan {
    snapshot: Snapshot,
    cursor: Cursor,
}

impl Scan {
    async fn next_page(&mut self) -> Result<Vec<Pair>, Error> {
        let snapshot = &self.snapshot;
        let router = &snapshot.core.router;
        let mut call = snapshot.begin();
        loop {
            let make = |page: Page| kvrpcpb::ScanRequest {
                context: Some(snapshot.context()),
                start_key: page.start_key,
                end_key: page.end_key,
                limit: page.limit as u32,
                version: snapshot.ts.0,
                key_only: page.options.keys_only,
                reverse: page.options.reverse,
                ..Default::default()
            };
            let Some((part, mut answer)) = self.cursor.ask(router, &mut call, make).await? else {
                return Ok(Vec::new());
            };
            let mut errors: Vec<_> = answer.error.take().into_iter().collect();
            let readable = answer.pairs.iter().take_while(|pair| pair.error.is_none()).count();
            errors.extend(answer.pairs.split_off(readable).into_iter().filter_map(|pair| pair.error));
            if errors.is_empty() {
                self.cursor.advance(part, &answer.pairs, true);
                return router.user_pairs(answer.pairs);
            }
            let locks: Result<Vec<_>, _> = errors.into_iter().map(|error| snapshot.lock(*error)).collect();
            snapshot.on_locks(&mut call, locks?).await?;
            if !answer.pairs.is_empty() {
                self.cursor.advance(part, &answer.pairs, false);
                return router.user_pairs(answer.pairs);
            }
        }
    }
}
