//! The way of a request: region, store, answer; and again, with better knowledge, when a region error says so.

use std::collections::VecDeque;
use std::sync::Arc;

use base::{MonoTime, StoreId};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use proto::{errorpb, kvrpcpb, metapb, pdpb};
use tls::Dialer;
use tonic::Status;
use tracing::Instrument as _;

use crate::cache::{Region, RegionCache, Step};
use crate::call::{Call, Seeds};
use crate::error::{PdError, is_refusal, was_not_sent};
use crate::keys::{KeyForm, KeyRange, Mode};
use crate::metrics::RequestOutcome;
use crate::pd::Pd;
use crate::request::{Answer, Effect, Request};
use crate::retry::Cause;
use crate::scan::Pair;
use crate::store::{Store, Stores};
use crate::{Api, ClientOptions, Error, Keyspace};

/// Regions that are asked for at once when a range is learned.
const REGIONS_AT_ONCE: usize = 1024;

/// What all handles of a client share.
pub(crate) struct Router {
    pub pd: Pd,
    pub form: KeyForm,
    pub options: Arc<ClientOptions>,
    pub jitter: Seeds,
    stores: Stores,
    cache: Mutex<RegionCache>,
}

impl Router {
    pub async fn connect(endpoints: &[impl AsRef<str>], options: ClientOptions, mode: Mode) -> Result<Router, Error> {
        let dialer = Dialer::new(options.tls.as_ref()).map_err(Error::Certificates)?;
        let pd = Pd::connect_by(dialer, endpoints, options.deadline).await?;
        let form = match &options.api {
            Api::V1 => KeyForm::V1(mode),
            Api::V2(Keyspace::Id(id)) => KeyForm::keyspace(mode, *id)?,
            Api::V2(Keyspace::Name(name)) => KeyForm::keyspace(mode, pd.keyspace_id(name).await?)?,
        };
        let options = Arc::new(options);
        let stores = Stores::new(pd.clone(), options.clone());
        Ok(Router {
            jitter: Seeds::new(MonoTime::now().0, pd.counters()),
            pd,
            form,
            options,
            stores,
            cache: Mutex::default(),
        })
    }

    /// A call with the time of the options.
    pub fn begin(&self) -> Call {
        Call::begin(self.options.deadline, &self.jitter)
    }

    /// Region that holds a border key.
    pub async fn region(&self, call: &mut Call, border: &Bytes) -> Result<Arc<Region>, Error> {
        let known = self.cache.lock().find(border);
        self.jitter.counters.on_region(known.is_some());
        if let Some(region) = known {
            return Ok(region);
        }
        let told = Box::pin(self.pd.region_within(call, border.clone(), false)).await?;
        self.learn(told)
    }

    /// Region that holds the last keys before `end`, a border key or empty for no bound.
    pub async fn region_before(&self, call: &mut Call, end: &Bytes) -> Result<Arc<Region>, Error> {
        if let Some(region) = self.cache.lock().find_before(end) {
            return Ok(region);
        }
        if end.is_empty() {
            return self.last_region(call).await;
        }
        let holds_end = self.region(call, end).await?;
        if holds_end.start() < end {
            return Ok(holds_end);
        }
        let told = Box::pin(self.pd.region_within(call, end.clone(), true)).await?;
        self.learn(told)
    }

    /// PD has no question for the last region: begins far right and follows the ends.
    async fn last_region(&self, call: &mut Call) -> Result<Arc<Region>, Error> {
        let mut border = Bytes::from_static(&[0xff; 32]);
        loop {
            let region = self.region(call, &border).await?;
            if region.end().is_empty() {
                return Ok(region);
            }
            border = region.end().clone();
        }
    }

    /// Asks for the regions of a range, many at a time, and keeps those that have a leader. Returns how many.
    pub async fn warm_up(&self, range: KeyRange, regions_max: usize) -> Result<usize, Error> {
        let range = self.form.wire_range(range);
        let mut start = self.form.border(&range.start);
        let end = match range.end.is_empty() {
            true => range.end,
            false => self.form.border(&range.end),
        };
        let mut learned = 0;
        while learned < regions_max {
            let page = REGIONS_AT_ONCE.min(regions_max - learned);
            let told = self.pd.scan_regions(start, end.clone(), page).await?;
            let full = told.len() >= page;
            let last = told
                .last()
                .and_then(|told| told.region.as_ref())
                .map(|region| region.end_key.clone());
            for region in told.into_iter().filter(|told| told.leader.is_some()) {
                self.learn(region)?;
                learned += 1;
            }
            match last {
                Some(last) if full && !last.is_empty() => start = last,
                _ => break,
            }
        }
        Ok(learned)
    }

    fn learn(&self, told: pdpb::Region) -> Result<Arc<Region>, Error> {
        let region = told.region.and_then(|meta| Region::new(meta, told.leader));
        let protocol = || Error::Protocol {
            address: self.pd.leader_url(),
            what: "a region without peers".into(),
        };
        Ok(self.cache.lock().insert(region.ok_or_else(protocol)?))
    }

    /// Wire form of a region's border.
    pub fn wire_of_border(&self, border: &Bytes) -> Result<Bytes, Error> {
        let protocol = || Error::Protocol {
            address: self.pd.leader_url(),
            what: "a region's border is not encoded: the cluster does not run API V2, or holds raw keys beside transactions"
                .into(),
        };
        self.form.wire_of_border(border).ok_or_else(protocol)
    }

    /// The caller's form of pairs that were read.
    pub fn user_pairs(&self, pairs: impl IntoIterator<Item = kvrpcpb::KvPair>) -> Result<Vec<Pair>, Error> {
        let user = |pair: kvrpcpb::KvPair| match self.form.user(&pair.key) {
            Some(key) if pair.error.is_none() => Ok((key, pair.value)),
            Some(_) => Err(Error::Refused {
                message: "a pair could not be read".into(),
            }),
            None => Err(Error::Protocol {
                address: self.pd.leader_url(),
                what: "a key of another keyspace".into(),
            }),
        };
        pairs.into_iter().map(user).collect()
    }

    /// Serves a request about one key, given in wire form.
    pub async fn single<R: Request>(&self, call: &mut Call, key: &Bytes, request: R) -> Result<R::Answer, Error> {
        let border = self.form.border(key);
        loop {
            let region = self.region(call, &border).await?;
            if let Some(answer) = self.one_try(call, &region, request.clone()).await? {
                return Ok(answer);
            }
        }
    }

    /// Serves a request about many items, in parts by region and size, several at the same time. Answers come
    /// in no order, each with the items it is about.
    pub async fn many<I, R>(
        &self,
        call: &mut Call,
        items: Vec<I>,
        key: impl Fn(&I) -> (&Bytes, usize),
        make: impl Fn(&[I]) -> R,
    ) -> Result<Vec<(Vec<I>, R::Answer)>, Error>
    where
        R: Request,
    {
        let mut answers = Vec::new();
        let mut tries = FuturesUnordered::new();
        let mut unsent = self.parts(call, items, &key).await?;
        loop {
            while tries.len() < PARTS_AT_ONCE
                && let Some((region, items)) = unsent.pop_front()
            {
                let mut part = call.part(&self.jitter);
                let request = make(&items);
                tries.push(async move {
                    let answer = self.one_try(&mut part, &region, request).await;
                    (answer, part, items)
                });
            }
            let Some((answer, mut part, items)) = tries.next().await else {
                return Ok(answers);
            };
            match answer? {
                Some(answer) => answers.push((items, answer)),
                // The region is not what it was: its items may now lie in several.
                None => {
                    call.inherit(&part);
                    unsent.extend(self.parts(&mut part, items, &key).await?);
                }
            }
        }
    }

    /// Splits items by the region of their keys, and further where a part would be too long for one request.
    async fn parts<I>(
        &self,
        call: &mut Call,
        items: Vec<I>,
        key: &impl Fn(&I) -> (&Bytes, usize),
    ) -> Result<VecDeque<Part<I>>, Error> {
        let mut items: Vec<(Bytes, I)> = items.into_iter().map(|item| (self.form.border(key(&item).0), item)).collect();
        items.sort_by(|a, b| a.0.cmp(&b.0));
        let mut parts: VecDeque<Part<I>> = VecDeque::new();
        let mut bytes = 0;
        for (border, item) in items {
            let size = key(&item).1;
            let fits = parts.back().is_some_and(|(region, part)| {
                region.contains(&border) && part.len() < PART_ITEMS_MAX && bytes + size <= PART_BYTES_MAX
            });
            if !fits {
                parts.push_back((self.region(call, &border).await?, Vec::new()));
                bytes = 0;
            }
            bytes += size;
            parts.back_mut().expect("one was just put there").1.push(item);
        }
        Ok(parts)
    }

    /// One try on a region. `None` after a failure that is worth another try, once it is time for that.
    pub async fn one_try<R: Request>(
        &self,
        call: &mut Call,
        region: &Arc<Region>,
        mut request: R,
    ) -> Result<Option<R::Answer>, Error> {
        let mut wished = request.context_mut().take().unwrap_or_default();
        let (peer, is_away) = who_serves(call, region, &mut wished);
        let id = StoreId(peer.store_id);
        let store = match self.stores.get(call, id).await {
            Ok(store) => store,
            Err(
                error @ Error::Pd {
                    kind: PdError::NotFound, ..
                },
            ) => {
                self.cache.lock().forget(region);
                call.pause(Cause::Stale, 0, error).await?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // What has no time left is not sent: whether its answer still came would be chance.
        if call.left().is_zero() {
            return Err(call.over(None));
        }
        let effect = request.effect();
        *request.context_mut() = Some(self.context(call, region, peer, wished));
        let span = tracing::debug_span!(
            "request",
            command = R::COMMAND.name(),
            region_id = region.meta.id,
            store_id = id.0
        );
        let counted = self.jitter.counters.begin(R::COMMAND);
        // A copy that hangs must leave time for the leader.
        let patience = if is_away { call.left() / 2 } else { call.left() };
        let answer = tokio::time::timeout(patience, store.send(request).instrument(span)).await;
        let answer = answer.map(|answer| answer.map(|mut answer| (answer.take_region_error(), answer)));
        counted.end(match &answer {
            Ok(Ok((Some(_), _))) => RequestOutcome::Region,
            Ok(Ok((None, answer))) if !answer.error().is_empty() => RequestOutcome::Refused,
            Ok(Ok((None, _))) => RequestOutcome::Ok,
            Ok(Err(status)) if is_refusal(status) => RequestOutcome::Refused,
            Ok(Err(_)) => RequestOutcome::Failed,
            Err(_) => RequestOutcome::Deadline,
        });
        match answer {
            Ok(Ok((region_error, answer))) => match region_error {
                Some(error) => Box::pin(self.on_region_error(call, region, effect, &error))
                    .await
                    .map(|()| None),
                None if answer.error().is_empty() => Ok(Some(answer)),
                None => Err(Error::Refused {
                    message: answer.error().to_owned(),
                }),
            },
            Ok(Err(status)) if is_away && !is_refusal(&status) => {
                Box::pin(self.on_silent_copy(call, &store, id, status)).await.map(|()| None)
            }
            Err(_elapsed) if is_away => {
                let status = Status::deadline_exceeded("no answer in time");
                Box::pin(self.on_silent_copy(call, &store, id, status)).await.map(|()| None)
            }
            Ok(Err(status)) => Box::pin(self.on_rpc_error(call, region, &store, effect, status))
                .await
                .map(|()| None),
            Err(_elapsed) => {
                self.cache.lock().try_next_peer(region);
                self.stores.forget(id, &store);
                if effect != Effect::Read {
                    call.on_undetermined();
                }
                Err(call.over(Some(Error::rpc(
                    &store.address,
                    Status::deadline_exceeded("no answer in time"),
                ))))
            }
        }
    }

    /// A copy that was asked in the leader's place does not answer: what is known of the leader stays.
    async fn on_silent_copy(&self, call: &mut Call, store: &Arc<Store>, id: StoreId, status: Status) -> Result<(), Error> {
        self.stores.forget(id, store);
        call.again(Error::rpc(&store.address, status)).await
    }

    fn context(&self, call: &mut Call, region: &Region, peer: metapb::Peer, wished: kvrpcpb::Context) -> kvrpcpb::Context {
        kvrpcpb::Context {
            region_id: region.meta.id,
            region_epoch: region.meta.region_epoch,
            peer: Some(peer),
            api_version: self.form.api_version().into(),
            keyspace_id: self.form.keyspace_id(),
            cluster_id: self.pd.cluster_id(),
            max_execution_duration_ms: call.left().as_millis().max(1) as u64,
            is_retry_request: call.on_send(),
            ..wished
        }
    }

    async fn on_region_error(
        &self,
        call: &mut Call,
        region: &Region,
        effect: Effect,
        error: &errorpb::Error,
    ) -> Result<(), Error> {
        let step = self.cache.lock().on_error(region, error);
        let last = Error::Region {
            region: region.meta.id,
            message: describe(error),
        };
        // What was proposed under the old leader may still come through under the new.
        if effect == Effect::Commit && error.stale_command.is_some() {
            call.on_undetermined();
        }
        match step {
            Step::Again => call.again(last).await,
            Step::Pause { cause, millis_min } => call.pause(cause, millis_min, last).await,
            Step::Undetermined => self.after_undetermined(call, effect, Cause::Stale, last).await,
            Step::Refuse => Err(Error::Refused {
                message: describe(error),
            }),
        }
    }

    async fn on_rpc_error(
        &self,
        call: &mut Call,
        region: &Region,
        store: &Arc<Store>,
        effect: Effect,
        status: Status,
    ) -> Result<(), Error> {
        let not_sent = was_not_sent(&status);
        let refused = is_refusal(&status);
        let last = Error::rpc(&store.address, status);
        if refused {
            return Err(last);
        }
        self.cache.lock().try_next_peer(region);
        self.stores.forget(region.store(), store);
        match not_sent || effect == Effect::Read {
            true => call.pause(Cause::Unreachable, 0, last).await,
            false => self.after_undetermined(call, effect, Cause::Unreachable, last).await,
        }
    }

    /// A write may have been done: goes on only where doing it twice is harmless and wanted.
    async fn after_undetermined(&self, call: &mut Call, effect: Effect, cause: Cause, last: Error) -> Result<(), Error> {
        let repeat = match effect {
            Effect::Read => return call.pause(cause, 0, last).await,
            Effect::Commit => true,
            Effect::Write => self.options.retry_undetermined,
            Effect::WriteOnce => false,
        };
        call.on_undetermined();
        match repeat {
            true => call.pause(cause, 0, last).await,
            false => Err(call.over(Some(last))),
        }
    }
}

/// Which peer is asked, and whether it stands in for the leader: any copy for the first try of a read that wants so, the leader for all
/// others, which then is a read as usual.
fn who_serves(call: &mut Call, region: &Region, wished: &mut kvrpcpb::Context) -> (metapb::Peer, bool) {
    if !(wished.replica_read || wished.stale_read) {
        return (region.peer, false);
    }
    let peers = &region.meta.peers;
    if !call.was_sent()
        && let Some(peer) = peers.get(call.draw(peers.len()))
    {
        return (*peer, true);
    }
    (wished.replica_read, wished.stale_read) = (false, false);
    (region.peer, false)
}

/// Items of one region.
type Part<I> = (Arc<Region>, Vec<I>);

/// Bounds of one request: well below the 4 MiB that gRPC servers take by default, and short for the store's queues.
pub(crate) const PART_BYTES_MAX: usize = 1 << 20;
pub(crate) const PART_ITEMS_MAX: usize = 1024;
/// Requests of one call that are under way at the same time; the rest wait their turn.
const PARTS_AT_ONCE: usize = 32;

/// A region error in words. Stores need not fill the text, so the kind is told.
fn describe(error: &errorpb::Error) -> String {
    let kinds = [
        (error.not_leader.is_some(), "not led by the store asked"),
        (error.region_not_found.is_some(), "not on the store asked"),
        (error.key_not_in_region.is_some(), "does not hold the key"),
        (error.epoch_not_match.is_some(), "has changed its range or its members"),
        (error.server_is_busy.is_some(), "the store is busy"),
        (
            error.stale_command.is_some(),
            "lost its leader while the request was under way",
        ),
        (error.store_not_match.is_some(), "another store answers at the address"),
        (
            error.raft_entry_too_large.is_some(),
            "the write is too large for one raft entry",
        ),
        (error.disk_full.is_some(), "the store's disk is full"),
        (
            error.undetermined_result.is_some(),
            "the store does not know whether the write was done",
        ),
    ];
    let kind = kinds.iter().find(|(is, _)| *is).map(|(_, words)| *words);
    match (kind, error.message.is_empty()) {
        (Some(kind), true) => kind.to_owned(),
        (Some(kind), false) => format!("{kind} ({})", error.message),
        (None, false) => error.message.clone(),
        (None, true) => "cannot serve the request now".to_owned(),
    }
}
