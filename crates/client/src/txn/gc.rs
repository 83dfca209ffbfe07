//! Ends what was left behind before old versions may be collected.

use base::Ts;
use bytes::Bytes;
use proto::kvrpcpb;

use super::fault::check;
use super::resolve::Purpose;
use super::{Core, TxnClient};
use crate::Error;
use crate::call::Call;
use crate::keys::{KeyRange, min_end};
use crate::scan::{after, is_empty};

/// Locks taken from a region at a time.
const LOCKS_MAX: u32 = 1024;

impl TxnClient {
    /// Ends all transactions that began at or before `up_to` and left locks in the range, as they wished it themselves where they
    /// got that far. Returns the number of locks.
    pub async fn resolve_locks(&self, range: impl Into<KeyRange>, up_to: Ts) -> Result<usize, Error> {
        let mut rest = self.core.router.form.wire_range(range.into());
        let mut resolved = 0;
        while !is_empty(&rest) {
            let mut call = self.core.router.begin();
            let (locks, next) = self.core.scan_locks(&mut call, &rest, up_to).await?;
            resolved += locks.len();
            if !locks.is_empty() {
                self.core.resolve(&mut call, locks, Purpose::Collect).await?;
            }
            match next {
                Some(next) => rest.start = next,
                None => break,
            }
        }
        Ok(resolved)
    }

    /// As [`TxnClient::resolve_locks`] for all keys of all keyspaces. Goes region by region, whose borders may be others than those of
    /// transactions' keys.
    pub async fn resolve_locks_everywhere(&self, up_to: Ts) -> Result<usize, Error> {
        let router = &self.core.router;
        let (mut border, mut start_key, mut resolved) = (Bytes::new(), Bytes::new(), 0);
        loop {
            let mut call = router.begin();
            let region = router.region(&mut call, &border).await?;
            let request = kvrpcpb::ScanLockRequest {
                max_version: up_to.0,
                start_key: std::mem::take(&mut start_key),
                limit: LOCKS_MAX,
                ..Default::default()
            };
            let Some(answer) = router.one_try(&mut call, &region, request).await? else {
                // The region is not what it was: from its border anew.
                continue;
            };
            check(answer.error).map_err(|fault| fault.into_error(up_to, &router.form))?;
            let last = answer.locks.last().map(|lock| after(&lock.key));
            let is_full = answer.locks.len() >= LOCKS_MAX as usize;
            resolved += answer.locks.len();
            self.core.resolve(&mut call, answer.locks, Purpose::Collect).await?;
            match last {
                Some(next) if is_full => start_key = next,
                _ if region.end().is_empty() => return Ok(resolved),
                _ => border = region.end().clone(),
            }
        }
    }

    /// Collects: resolves all locks up to `safe_point`, then lets stores drop versions that no snapshot at or after it sees. Returns
    /// the safe point as it is now: others may hold on to older snapshots, or have moved it further. All keys of the client's own
    /// keyspace are looked through; with API V2 others keyspaces' locks must be resolved by their own clients before.
    pub async fn gc(&self, safe_point: Ts) -> Result<Ts, Error> {
        self.resolve_locks(.., safe_point).await?;
        self.core.router.pd.update_gc_safe_point(safe_point).await
    }
}

impl Core {
    /// The first locks of a range, and where to go on, if anywhere.
    async fn scan_locks(
        &self,
        call: &mut Call,
        range: &KeyRange,
        up_to: Ts,
    ) -> Result<(Vec<kvrpcpb::LockInfo>, Option<Bytes>), Error> {
        loop {
            let region = self.router.region(call, &self.router.form.border(&range.start)).await?;
            let end = min_end(&range.end, &self.router.wire_of_border(region.end())?);
            let request = kvrpcpb::ScanLockRequest {
                max_version: up_to.0,
                start_key: range.start.clone(),
                limit: LOCKS_MAX,
                end_key: end.clone(),
                ..Default::default()
            };
            let Some(answer) = self.router.one_try(call, &region, request).await? else {
                continue;
            };
            check(answer.error).map_err(|fault| fault.into_error(up_to, &self.router.form))?;
            let next = match answer.locks.last() {
                Some(last) if answer.locks.len() >= LOCKS_MAX as usize => Some(after(&last.key)),
                _ => (end != range.end).then_some(end),
            };
            return Ok((answer.locks, next));
        }
    }
}
