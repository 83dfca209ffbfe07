//! [`RegionView`]: an engine snapshot seen through one region, and the checks of a request against a region.

use std::sync::Arc;

use base::RegionId;
use bytes::{Buf, Bytes};
use prost::Message;
use proto::ferrite_raft::ApplyState;
use proto::metapb::Region;

use super::{Context, Error, Modify, RegionSnapshot};
use crate::{Cf, Cursor, Result as EngineResult, Snapshot, keys};

/// Whether a region key lies in `region`.
pub fn contains(region: &Region, key: &[u8]) -> bool {
    *key >= *region.start_key && (region.end_key.is_empty() || *key < *region.end_key)
}

/// Checks that a region key lies in `region`.
pub fn check_key(region: &Region, key: &[u8]) -> Result<(), Error> {
    if contains(region, key) {
        return Ok(());
    }
    Err(Error::KeyNotInRegion {
        key: Bytes::copy_from_slice(key),
        region: region.clone(),
    })
}

/// Checks that a change touches `region` alone. An empty end of a range means the region's end.
pub fn check_change(region: &Region, change: &Modify) -> Result<(), Error> {
    let (Modify::Put { key, .. } | Modify::Delete { key, .. } | Modify::DeleteRange { start: key, .. }) = change;
    check_key(region, key)?;
    match change {
        Modify::DeleteRange { end, .. } if !(end.is_empty() || region.end_key.is_empty() || *end <= region.end_key) => {
            Err(Error::KeyNotInRegion {
                key: end.clone(),
                region: region.clone(),
            })
        }
        _ => Ok(()),
    }
}

/// Checks that a request means `region` as it is now. Only the range's version counts: a change of members alone leaves
/// requests valid, as clients expect.
pub fn check_epoch(region: &Region, ctx: &Context) -> Result<(), Error> {
    let version = region.region_epoch.as_ref().map_or(0, |epoch| epoch.version);
    if ctx.epoch.version == version {
        Ok(())
    } else {
        Err(Error::EpochNotMatch {
            current: vec![region.clone()],
        })
    }
}

/// Bytes of all keys and values of a write.
pub fn changes_bytes(changes: &[Modify]) -> u64 {
    let bytes = |change: &Modify| match change {
        Modify::Put { key, value, .. } => key.len() + value.len(),
        Modify::Delete { key, .. } => key.len(),
        Modify::DeleteRange { start, end, .. } => start.len() + end.len(),
    };
    changes.iter().map(bytes).sum::<usize>() as u64
}

/// An engine snapshot bounded by a region: keys go in and come out without the engine's prefix, and nothing outside is seen.
pub struct RegionView {
    snapshot: Arc<dyn Snapshot>,
    region: Arc<Region>,
    term: u64,
}

impl RegionView {
    /// `region` must be as it was when the snapshot was taken.
    pub fn new(snapshot: Arc<dyn Snapshot>, region: Arc<Region>, term: u64) -> RegionView {
        RegionView { snapshot, region, term }
    }
}

impl RegionSnapshot for RegionView {
    fn region(&self) -> &Region {
        &self.region
    }

    fn term(&self) -> u64 {
        self.term
    }

    fn applied(&self) -> EngineResult<u64> {
        let state = self.snapshot.get(Cf::Local, &keys::apply_state(RegionId(self.region.id)))?;
        let state = state
            .map(ApplyState::decode)
            .transpose()
            .map_err(|error| crate::Error::Corrupt {
                what: format!("apply state of region {}: {error}", self.region.id),
            })?;
        Ok(state.map_or(0, |state| state.applied_index))
    }

    fn get(&self, cf: Cf, key: &[u8]) -> EngineResult<Option<Bytes>> {
        if !contains(&self.region, key) {
            return Ok(None);
        }
        keys::with_data_key(key, |key| self.snapshot.get(cf, key))
    }

    fn cursor(&self, cf: Cf, start: &[u8], end: &[u8]) -> EngineResult<Box<dyn Cursor>> {
        let start = start.max(&self.region.start_key);
        let end = match (end, &*self.region.end_key) {
            (b"", limit) => limit,
            (end, b"") => end,
            (end, limit) => end.min(limit),
        };
        let inner = self.snapshot.cursor(cf, &keys::data_key(start), &keys::data_end_key(end))?;
        Ok(Box::new(RegionCursor { inner, buf: Vec::new() }))
    }
}

/// Adds the engine's prefix to what is sought and takes it off what is found.
struct RegionCursor {
    inner: Box<dyn Cursor>,
    buf: Vec<u8>,
}

impl RegionCursor {
    fn prefixed(&mut self, key: &[u8]) {
        self.buf.clear();
        keys::data_key_to(key, &mut self.buf);
    }
}

fn stripped(pair: Option<(Bytes, Bytes)>) -> Option<(Bytes, Bytes)> {
    pair.map(|(mut key, value)| {
        key.advance(1);
        (key, value)
    })
}

impl Cursor for RegionCursor {
    fn seek(&mut self, key: &[u8]) -> EngineResult<Option<(Bytes, Bytes)>> {
        self.prefixed(key);
        self.inner.seek(&self.buf).map(stripped)
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> EngineResult<Option<(Bytes, Bytes)>> {
        self.prefixed(key);
        self.inner.seek_for_prev(&self.buf).map(stripped)
    }

    fn next(&mut self) -> EngineResult<Option<(Bytes, Bytes)>> {
        self.inner.next().map(stripped)
    }

    fn prev(&mut self) -> EngineResult<Option<(Bytes, Bytes)>> {
        self.inner.prev().map(stripped)
    }
}
