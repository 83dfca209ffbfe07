//! What a leader knows of its region's size: measured now and then, guessed in between by what was put.

use bytes::Bytes;
use proto::metapb::Region;

use super::{Effects, Peer};
use crate::region;
use crate::size::{Limits, Measured};

/// Ticks between looks at the size, and between two walks over the region at least.
const LOOK_TICKS: u64 = 10;
/// A region is walked over only after so much of the split size was put since the last time.
const WALK_SHARE: u64 = 16;

/// A region that should be divided at these keys.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitWanted {
    pub region: Region,
    pub keys: Vec<Bytes>,
}

#[derive(Default)]
pub(super) struct Size {
    /// As measured last, and put since.
    bytes: u64,
    keys: u64,
    is_known: bool,
    put_bytes: u64,
    put_keys: u64,
    /// Put since the last report.
    flow_bytes: u64,
    flow_keys: u64,
    measuring: bool,
    /// No walk before this tick.
    next_walk: u64,
}

impl Size {
    /// About how large the region is; zero before it was measured, and never afterwards.
    pub fn about(&self) -> (u64, u64) {
        match self.is_known {
            true => ((self.bytes + self.put_bytes).max(1), self.keys + self.put_keys),
            false => (0, 0),
        }
    }

    /// Whether a walk would tell more than is known.
    fn wants_walk(&self, limits: &Limits) -> bool {
        let (bytes, keys) = (self.bytes + self.put_bytes, self.keys + self.put_keys);
        let grew = self.put_bytes >= limits.bytes / WALK_SHARE || self.put_keys >= limits.keys / WALK_SHARE;
        !self.is_known || (grew && limits.exceeds(bytes, keys))
    }

    pub fn is_settled(&self, limits: &Limits) -> bool {
        !self.measuring && !self.wants_walk(limits)
    }

    pub fn on_put(&mut self, bytes: u64, keys: u64) {
        self.put_bytes += bytes;
        self.put_keys += keys;
        self.flow_bytes += bytes;
        self.flow_keys += keys;
    }

    /// Bytes and keys put since this was asked.
    pub fn take_flow(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.flow_bytes), std::mem::take(&mut self.flow_keys))
    }

    /// Another region became part of it.
    pub fn on_grown(&mut self) {
        (self.is_known, self.next_walk) = (false, 0);
    }

    /// One of `parts` parts of about equal size.
    pub fn on_divided(&mut self, parts: u64) {
        for count in [&mut self.bytes, &mut self.keys, &mut self.put_bytes, &mut self.put_keys] {
            *count /= parts;
        }
        // What made the region divide was measured a moment ago.
        (self.is_known, self.next_walk) = (self.bytes > 0, 0);
    }
}

impl Peer {
    /// Asks for a walk over the region when it may have grown too large.
    pub(super) fn tick_size(&mut self, fx: &mut Effects) {
        let limits = Limits::of(&self.config);
        let size = &mut self.size;
        if !self.published || size.measuring || !self.ticks.is_multiple_of(LOOK_TICKS) || self.ticks < size.next_walk {
            return;
        }
        if size.wants_walk(&limits) {
            size.measuring = true;
            fx.measure = Some(self.region.clone());
        }
    }

    /// The walk is done, or was not.
    pub(super) fn on_measured(&mut self, measured: Option<Measured>, fx: &mut Effects) {
        self.size.measuring = false;
        let version = region::epoch(&self.region).version;
        let Some(measured) = measured.filter(|measured| measured.version == version) else {
            return;
        };
        self.size = Size {
            bytes: measured.bytes,
            keys: measured.keys,
            is_known: true,
            flow_bytes: self.size.flow_bytes,
            flow_keys: self.size.flow_keys,
            ..Size::default()
        };
        if measured.cuts.is_empty() || !self.is_leader() {
            return;
        }
        // If nothing comes of it, as when the placement driver is away, it is walked over again a little later.
        self.size.is_known = false;
        self.size.next_walk = self.ticks + 10 * LOOK_TICKS;
        fx.split_wanted = Some(SplitWanted {
            region: (*self.region).clone(),
            keys: measured.cuts,
        });
    }
}
