//! [`MemKv`]: the trait [`Kv`] over one engine, without replication. Refuses what the replicated one refuses, with the same
//! errors, and answers before the call returns. For tests of everything above replication.

use std::collections::VecDeque;
use std::sync::Arc;

use base::{MonoTime, RegionId, StoreId};
use parking_lot::{Mutex, RwLock};
use proto::metapb::{Peer, Region, RegionEpoch};

use super::{Context, Error, Kv, Modify, RegionView, Reply, SnapshotRef, view};
use crate::{Batch, Engine, Error as EngineError, MemEngine, keys};

/// Writes larger than this answer [`Error::EntryTooLarge`], as with replication.
const ENTRY_BYTES_MAX: u64 = 8 << 20;

/// Term of every snapshot: leadership never changes here.
pub const TERM: u64 = 6;

/// Regions of one store, kept in one engine and answered at once.
pub struct MemKv {
    engine: Arc<dyn Engine>,
    store: StoreId,
    regions: RwLock<Vec<Region>>,
    failures: Mutex<VecDeque<Error>>,
}

impl MemKv {
    /// Serves `regions`, which must not overlap, for `store`.
    pub fn new(engine: Arc<dyn Engine>, store: StoreId, regions: Vec<Region>) -> MemKv {
        MemKv {
            engine,
            store,
            regions: RwLock::new(regions),
            failures: Mutex::default(),
        }
    }

    /// Store 1 with region 1 over all keys, peer 1, epoch `(1, 1)`, in a memory engine.
    pub fn whole() -> MemKv {
        MemKv::new(Arc::new(MemEngine::new()), StoreId(1), vec![region(1, b"", b"")])
    }

    /// Serves other regions from now on, as after splits and moves.
    pub fn set_regions(&self, regions: Vec<Region>) {
        *self.regions.write() = regions;
    }

    /// Makes the next calls, one per failure, answer with them and do nothing.
    pub fn fail_next(&self, failures: impl IntoIterator<Item = Error>) {
        self.failures.lock().extend(failures);
    }

    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// The region that the request means, if it may be served here.
    fn check(&self, ctx: &Context) -> Result<Region, Error> {
        if let Some(failure) = self.failures.lock().pop_front() {
            return Err(failure);
        }
        let regions = self.regions.read();
        let region = regions.iter().find(|region| region.id == ctx.region.0);
        let region = region.ok_or(Error::RegionNotFound { region: ctx.region })?;
        let local = region.peers.iter().find(|peer| peer.store_id == self.store.0);
        let local = local.ok_or(Error::RegionNotFound { region: ctx.region })?;
        if ctx.peer.0 != 0 && ctx.peer.0 != local.id {
            return Err(Error::MismatchPeer {
                wanted: ctx.peer.0,
                actual: local.id,
            });
        }
        view::check_epoch(region, ctx)?;
        Ok(region.clone())
    }

    fn apply(&self, region: &Region, changes: Vec<Modify>) -> crate::Result<()> {
        let mut batch = Batch::new();
        for change in changes {
            match change {
                Modify::Put { cf, key, value } => batch.put(cf, keys::data_key(&key), value),
                Modify::Delete { cf, key } => batch.delete(cf, keys::data_key(&key)),
                Modify::DeleteRange { cf, start, end } => {
                    self.engine.write(std::mem::take(&mut batch))?;
                    let end = if end.is_empty() { &region.end_key } else { &end };
                    self.engine
                        .delete_range(cf, &keys::data_key(&start), &keys::data_end_key(end))?;
                }
            }
        }
        self.engine.write(batch)
    }

    fn try_write(&self, ctx: &Context, changes: Vec<Modify>) -> Result<(), Error> {
        let region = self.check(ctx)?;
        for change in &changes {
            view::check_change(&region, change)?;
        }
        let size = view::changes_bytes(&changes);
        if size > ENTRY_BYTES_MAX {
            return Err(Error::EntryTooLarge {
                region: ctx.region,
                size,
                limit: ENTRY_BYTES_MAX,
            });
        }
        self.apply(&region, changes).map_err(|error| match error {
            EngineError::DiskFull { .. } => Error::DiskFull { store: self.store.0 },
            _ => Error::Shutdown,
        })
    }
}

impl Kv for MemKv {
    fn snapshot(&self, ctx: &Context, _now: MonoTime, reply: Reply<SnapshotRef>) {
        let view = self
            .check(ctx)
            .map(|region| RegionView::new(self.engine.snapshot(), Arc::new(region), TERM));
        reply(view.map(|view| Arc::new(view) as SnapshotRef));
    }

    fn snapshot_at(&self, ctx: &Context, _index: u64, reply: Reply<SnapshotRef>) {
        self.snapshot(ctx, MonoTime(0), reply);
    }

    fn write(&self, ctx: &Context, changes: Vec<Modify>, _deadline: MonoTime, reply: Reply<()>) {
        reply(self.try_write(ctx, changes));
    }
}

/// What a request for a [`region`] with this id is marked with.
pub fn context(id: u64) -> Context {
    Context {
        region: RegionId(id),
        epoch: EPOCH,
        ..Context::default()
    }
}

/// Epoch of every [`region`].
const EPOCH: RegionEpoch = RegionEpoch { conf_ver: 1, version: 1 };

/// A region over `[start, end)` with one peer on store 1, its id the region's, and epoch `(1, 1)`.
pub fn region(id: u64, start: &[u8], end: &[u8]) -> Region {
    Region {
        id,
        start_key: bytes::Bytes::copy_from_slice(start),
        end_key: bytes::Bytes::copy_from_slice(end),
        region_epoch: Some(EPOCH),
        peers: vec![Peer {
            id,
            store_id: 1,
            ..Peer::default()
        }],
        ..Region::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use base::PeerId;
    use bytes::Bytes;

    use super::*;
    use crate::{Cf, Cursor};

    fn write(kv: &MemKv, ctx: &Context, changes: Vec<Modify>) -> Result<(), Error> {
        let (send, receive) = mpsc::channel();
        kv.write(
            ctx,
            changes,
            MonoTime(0),
            Box::new(move |outcome| send.send(outcome).unwrap()),
        );
        receive.try_recv().expect("answers at once")
    }

    fn snapshot(kv: &MemKv, ctx: &Context) -> Result<SnapshotRef, Error> {
        let (send, receive) = mpsc::channel();
        kv.snapshot(
            ctx,
            MonoTime(0),
            Box::new(move |outcome| send.send(outcome).unwrap_or_else(|_| panic!("receiver lives"))),
        );
        receive.try_recv().expect("answers at once")
    }

    fn put(key: &'static str) -> Modify {
        Modify::Put {
            cf: Cf::Default,
            key: key.into(),
            value: "v".into(),
        }
    }

    fn keys_of(mut cursor: Box<dyn Cursor>) -> Vec<Bytes> {
        std::iter::from_fn(|| cursor.next().unwrap()).map(|(key, _)| key).collect()
    }

    fn three() -> MemKv {
        let regions = vec![region(1, b"", b"d"), region(2, b"d", b"m"), region(3, b"m", b"")];
        MemKv::new(Arc::new(MemEngine::new()), StoreId(1), regions)
    }

    #[test]
    fn snapshots_end_at_their_region() {
        let kv = three();
        write(&kv, &context(1), vec![put("a"), put("c")]).unwrap();
        write(&kv, &context(2), vec![put("d"), put("f"), put("l")]).unwrap();
        write(&kv, &context(3), vec![put("m"), put("z")]).unwrap();
        let view = snapshot(&kv, &context(2)).unwrap();
        assert_eq!(keys_of(view.cursor(Cf::Default, b"", b"").unwrap()), ["d", "f", "l"]);
        assert_eq!(keys_of(view.cursor(Cf::Default, b"e", b"zz").unwrap()), ["f", "l"]);
        assert_eq!(keys_of(view.cursor(Cf::Default, b"x", b"zz").unwrap()), [] as [&str; 0]);
        assert_eq!(view.get(Cf::Default, b"c").unwrap(), None);
        assert!(view.get(Cf::Default, b"f").unwrap().is_some());
        let mut cursor = view.cursor(Cf::Default, b"", b"").unwrap();
        assert_eq!(cursor.seek_for_prev(b"zzz").unwrap().unwrap().0, "l");
        assert_eq!(cursor.seek(b"").unwrap().unwrap().0, "d");
        assert_eq!(cursor.prev().unwrap(), None);
        let last = snapshot(&kv, &context(3)).unwrap();
        assert_eq!(keys_of(last.cursor(Cf::Default, b"", b"").unwrap()), ["m", "z"]);
    }

    #[test]
    fn refuses_what_replication_refuses() {
        let kv = three();
        assert_eq!(
            write(&kv, &context(9), vec![]),
            Err(Error::RegionNotFound { region: RegionId(9) })
        );
        let stale = Context {
            epoch: RegionEpoch { conf_ver: 1, version: 0 },
            ..context(2)
        };
        assert_eq!(
            write(&kv, &stale, vec![]),
            Err(Error::EpochNotMatch {
                current: vec![region(2, b"d", b"m")]
            })
        );
        let moved = Context {
            epoch: RegionEpoch { conf_ver: 7, version: 1 },
            ..context(2)
        };
        assert_eq!(write(&kv, &moved, vec![]), Ok(()));
        let other = Context {
            peer: PeerId(8),
            ..context(2)
        };
        assert_eq!(write(&kv, &other, vec![]), Err(Error::MismatchPeer { wanted: 8, actual: 2 }));
        for (key, inside) in [("c", false), ("d", true), ("l", true), ("m", false)] {
            let outcome = write(&kv, &context(2), vec![put(key)]);
            assert_eq!(outcome.is_ok(), inside, "{key}: {outcome:?}");
        }
        let range = |start: &'static str, end: &'static str| Modify::DeleteRange {
            cf: Cf::Default,
            start: start.into(),
            end: end.into(),
        };
        for (start, end, inside) in [("d", "m", true), ("d", "", true), ("e", "n", false), ("c", "f", false)] {
            let outcome = write(&kv, &context(2), vec![range(start, end)]);
            assert_eq!(outcome.is_ok(), inside, "{start}..{end}: {outcome:?}");
        }
        let big = Modify::Put {
            cf: Cf::Default,
            key: "f".into(),
            value: vec![0; 9 << 20].into(),
        };
        assert!(matches!(write(&kv, &context(2), vec![big]), Err(Error::EntryTooLarge { .. })));
        kv.fail_next([Error::StaleCommand]);
        assert_eq!(snapshot(&kv, &context(1)).err(), Some(Error::StaleCommand));
        assert!(snapshot(&kv, &context(1)).is_ok());
    }

    #[test]
    fn delete_range_keeps_its_place_among_changes() {
        let kv = MemKv::whole();
        let range = Modify::DeleteRange {
            cf: Cf::Default,
            start: "a".into(),
            end: "".into(),
        };
        write(&kv, &context(1), vec![put("a"), put("b"), range, put("c")]).unwrap();
        let view = snapshot(&kv, &context(1)).unwrap();
        assert_eq!(keys_of(view.cursor(Cf::Default, b"", b"").unwrap()), ["c"]);
    }
}
