//! Borders and places that clients ask for, and the orders that come of it, as PD tells them.

use std::sync::Arc;

use base::RegionId;
use pd::{Lookup, Progress, RegionInfo, Reply, Request, Why};
use proto::pdpb::OperatorStatus;

use super::{PdService, ask};

/// How often new borders are looked for, and how long between two looks.
const SPLIT_LOOKS: u32 = 50;
const SPLIT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

impl PdService {
    /// Waits until regions begin at the keys, for a few seconds at most; the ids of those that do.
    pub(super) async fn split_at(&self, keys: &[bytes::Bytes]) -> Result<Vec<u64>, pd::Error> {
        let mut begins = Vec::new();
        for _ in 0..SPLIT_LOOKS {
            let lookups = keys.iter().cloned().map(Lookup::Key).collect();
            let found = match ask(&self.handle, Request::Regions(lookups)).await? {
                Reply::Regions(found) => found,
                other => unreachable!("a reply to another request: {other:?}"),
            };
            let begins_there = |(info, key): (&Option<Arc<RegionInfo>>, &bytes::Bytes)| {
                info.as_ref()
                    .filter(|info| info.region.start_key == *key)
                    .map(|info| info.region.id)
            };
            begins = found.iter().zip(keys).filter_map(begins_there).collect();
            if begins.len() == keys.len() {
                break;
            }
            ask(&self.handle, Request::SplitAt(keys.to_vec())).await?;
            tokio::time::sleep(SPLIT_PAUSE).await;
        }
        Ok(begins)
    }

    /// Scatters regions; how many will go.
    pub(super) async fn scatter(&self, regions: &[u64], group: String) -> Result<usize, pd::Error> {
        let wanted = regions.iter().copied().map(RegionId).collect();
        match ask(&self.handle, Request::Scatter { regions: wanted, group }).await? {
            Reply::Scattered { failed } => Ok(regions.len() - failed.len()),
            other => unreachable!("a reply to another request: {other:?}"),
        }
    }
}

/// How much of all is done; of nothing, all.
pub(super) fn percentage(done: usize, all: usize) -> u64 {
    (100 * done as u64).checked_div(all as u64).unwrap_or(100)
}

pub(super) fn operator_status(progress: Progress) -> OperatorStatus {
    match progress {
        Progress::Runs => OperatorStatus::Running,
        Progress::Done => OperatorStatus::Success,
        Progress::TookTooLong => OperatorStatus::Timeout,
        Progress::GivenUp => OperatorStatus::Cancel,
        Progress::Replaced => OperatorStatus::Replace,
    }
}

/// As PD classes what orders do.
pub(super) fn operator_kind(why: Why) -> &'static str {
    match why {
        Why::LeaderRule | Why::EvictLeader | Why::GrantLeader | Why::BalanceLeader | Why::ShuffleLeader => "leader",
        Why::HotLeader => "hot-region,leader",
        Why::HotPeer => "hot-region,region",
        Why::Repair | Why::Promote | Why::Remove | Why::Spread => "replica,region",
        Why::BalanceRegion | Why::ShuffleRegion | Why::Scatter => "region",
        Why::Wish => "admin",
        Why::Merge => "merge",
    }
}
