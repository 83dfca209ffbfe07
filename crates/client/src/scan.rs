//! Scans page by page across regions: how they are asked for, and where one stands.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use proto::kvrpcpb;

use crate::Error;
use crate::cache::Region;
use crate::call::Call;
use crate::keys::{KeyRange, min_end};
use crate::request::Request;
use crate::route::Router;

/// A pair as users see it.
pub type Pair = (Bytes, Bytes);

/// How a scan goes. `Default` gives everything, forward.
#[derive(Clone, Copy, Debug)]
pub struct ScanOptions {
    /// Most pairs to give.
    pub limit: usize,
    /// From the end of the range to its start.
    pub reverse: bool,
    /// Leaves the values empty.
    pub keys_only: bool,
}

impl Default for ScanOptions {
    fn default() -> ScanOptions {
        ScanOptions {
            limit: usize::MAX,
            reverse: false,
            keys_only: false,
        }
    }
}

/// Pairs in the first page of a scan. Later pages are sized by the pairs seen, towards [`PAGE_BYTES`].
const PAGE_FIRST: usize = 256;
const PAGE_BYTES: usize = 1 << 20;
const PAGE_MIN: usize = 16;
const PAGE_MAX: usize = 4096;

/// Where a scan stands. `range` is what is left of it, in wire form.
pub(crate) struct Cursor {
    range: KeyRange,
    left: usize,
    page: usize,
    options: ScanOptions,
    done: bool,
}

/// What to ask a region for, in the wire's terms: in reverse its start is the upper end.
pub(crate) struct Page {
    pub start_key: Bytes,
    pub end_key: Bytes,
    pub limit: usize,
    pub options: ScanOptions,
}

impl Cursor {
    /// At the beginning of `range`, in wire form.
    pub fn new(range: KeyRange, options: ScanOptions) -> Cursor {
        Cursor {
            range,
            left: options.limit,
            page: PAGE_FIRST,
            options,
            done: false,
        }
    }

    pub fn is_done(&self) -> bool {
        self.done || self.left == 0
    }

    fn limit(&self) -> usize {
        self.page.min(self.left)
    }

    /// Asks the region where the scan stands, until it answers; also returns the part of the range that it was asked for.
    /// `None`, and the scan is done, if nothing is left of the range.
    pub async fn ask<R: Request>(
        &mut self,
        router: &Router,
        call: &mut Call,
        make: impl Fn(Page) -> R,
    ) -> Result<Option<(KeyRange, R::Answer)>, Error> {
        while !is_empty(&self.range) {
            let (region, part) = self.next_part(router, call).await?;
            if let Some(answer) = router.one_try(call, &region, make(self.page(&part))).await? {
                return Ok(Some((part, answer)));
            }
        }
        self.done = true;
        Ok(None)
    }

    /// The region to ask now, and what part of the range lies in it.
    async fn next_part(&self, router: &Router, call: &mut Call) -> Result<(Arc<Region>, KeyRange), Error> {
        let form = &router.form;
        let region = match self.options.reverse {
            false => router.region(call, &form.border(&self.range.start)).await?,
            true if self.range.end.is_empty() => router.region_before(call, &Bytes::new()).await?,
            true => router.region_before(call, &form.border(&self.range.end)).await?,
        };
        let start = router.wire_of_border(region.start())?.max(self.range.start.clone());
        let end = min_end(&self.range.end, &router.wire_of_border(region.end())?);
        Ok((region, KeyRange { start, end }))
    }

    fn page(&self, part: &KeyRange) -> Page {
        let (start_key, end_key) = match self.options.reverse {
            false => (part.start.clone(), part.end.clone()),
            true => (part.end.clone(), part.start.clone()),
        };
        Page {
            start_key,
            end_key,
            limit: self.limit(),
            options: self.options,
        }
    }

    /// Takes off the range what was given of `part`: all of it if `complete` and the pairs are fewer than were asked for, else
    /// up to the last pair.
    pub fn advance(&mut self, part: KeyRange, pairs: &[kvrpcpb::KvPair], complete: bool) {
        let whole = complete && pairs.len() < self.limit();
        match (self.options.reverse, pairs.last().map(|pair| pair.key.clone())) {
            (_, None) if !whole => {}
            (false, Some(last)) if !whole => self.range.start = after(&last),
            (true, Some(last)) if !whole => self.range.end = last,
            (false, _) => {
                self.done = part.end == self.range.end;
                self.range.start = part.end;
            }
            (true, _) => {
                self.done = part.start == self.range.start;
                self.range.end = part.start;
            }
        }
        self.left -= pairs.len().min(self.left);
        let bytes: usize = pairs.iter().map(|pair| pair.key.len() + pair.value.len()).sum();
        if !pairs.is_empty() {
            self.page = (PAGE_BYTES * pairs.len() / bytes.max(1)).clamp(PAGE_MIN, PAGE_MAX);
        }
    }
}

pub(crate) fn is_empty(range: &KeyRange) -> bool {
    !range.end.is_empty() && range.start >= range.end
}

/// The first key after `key`.
pub(crate) fn after(key: &Bytes) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}
