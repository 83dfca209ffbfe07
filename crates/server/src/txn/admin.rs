//! What goes past regions, straight to the store's engine: for whoever knows that nobody needs the range any more, or looks for locks
//! that are left.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::Ts;
use bytes::Bytes;
use engine::kv::{self, RegionView};
use engine::{Cf, Engine, keys as engine_keys};
use proto::kvrpcpb::LockInfo;
use proto::metapb::Region;
use txn::Error as TxnError;
use txn::mvcc;

use super::keys::border;
use super::read::check_room;
use super::{Error, Result, Txn, wire};

impl Txn {
    /// Deletes everything in `[start, end)` from the data of this store alone, at once and for every reader. Regions are left as they are.
    /// An empty end is none. Durable once it returns: raft's log must not bring back what was deleted.
    pub async fn destroy_range(&self, start: &[u8], end: &[u8]) -> Result<()> {
        if !end.is_empty() && start > end {
            return Err(Error::RangeTurned);
        }
        let (start, end) = (border(start), border(end));
        self.on_engine(move |engine| {
            let (from, to) = (engine_keys::data_key(&start), engine_keys::data_end_key(&end));
            for cf in Cf::DATA {
                engine.delete_range(cf, &from, &to).map_err(TxnError::from)?;
            }
            Ok(engine.sync().map_err(TxnError::from)?)
        })
        .await
    }

    /// Locks of any region with a peer here, led or not, from `start` on, whose transactions began at or before `max_ts`.
    pub async fn physical_scan_locks(&self, start: &[u8], max_ts: Ts, limit: usize) -> Result<Vec<LockInfo>> {
        let start = border(start);
        self.on_engine(move |engine| {
            let whole = RegionView::new(engine.snapshot(), Arc::new(Region::default()), 0);
            let locks = mvcc::scan_locks(&whole, &BTreeMap::new(), &start, &Bytes::new(), limit, |locked| {
                locked.lock.start_ts <= max_ts
            })?;
            check_room(&locks)?;
            wire::lock_infos(&locks)
        })
        .await
    }

    /// Runs work on the engine where it may block.
    async fn on_engine<T: Send + 'static>(&self, work: impl FnOnce(&dyn Engine) -> Result<T> + Send + 'static) -> Result<T> {
        let engine = self.engine.clone();
        let done = tokio::task::spawn_blocking(move || work(&*engine)).await;
        // The runtime ends.
        done.unwrap_or(Err(Error::Txn(TxnError::Region {
            proposed: true,
            source: kv::Error::Shutdown,
        })))
    }
}
