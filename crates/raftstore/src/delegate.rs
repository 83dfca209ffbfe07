//! Reads that need no turn of the region's peer: any thread may serve them while the leader's lease holds.

use std::sync::Arc;

use base::{MonoTime, PeerId};
use engine::kv::{Context, Error};
use proto::metapb::Region;

use crate::lease::LeaseEnd;

/// What a leader that applied an entry of its own term lends to readers.
#[derive(Clone, Debug)]
pub struct Delegate {
    pub region: Arc<Region>,
    /// What the last split took from the region.
    pub siblings: Arc<Vec<Region>>,
    pub peer: PeerId,
    pub term: u64,
    pub lease: LeaseEnd,
}

impl Delegate {
    /// Whether a read that arrived before `now` was read may be served from the engine as it is after this call: then every
    /// write acknowledged before the read arrived is in it. `None`: the peer must say.
    pub fn try_read(&self, ctx: &Context, now: MonoTime) -> Option<Result<(), Error>> {
        if !self.lease.holds(now) || !self.lease.is_current() || ctx.term > self.term {
            return None;
        }
        let checked = crate::region::check_context(&self.region, self.peer, ctx);
        Some(checked.map_err(|error| crate::region::with_siblings(error, &self.siblings)))
    }
}
