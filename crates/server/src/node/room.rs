//! Watches how much room the disk has left, so that a store stops to take data before it cannot write its log: that would end it.

use std::path::PathBuf;
use std::time::Duration;

use base::ByteSize;
use raftstore::shell::RaftStore;
use tracing::{info, warn};

use crate::data_dir::free_bytes;

/// How often the disk is asked.
const EVERY: Duration = Duration::from_secs(1);

/// Tells the store whether its disk is almost full, until aborted.
pub async fn watch(raft: RaftStore, dir: PathBuf, reserve: ByteSize) {
    if reserve.0 == 0 {
        return;
    }
    let mut ticks = tokio::time::interval(EVERY);
    let mut was_full = false;
    loop {
        ticks.tick().await;
        let free = match free_bytes(&dir) {
            Ok(free) => free,
            Err(error) => {
                warn!(dir = %dir.display(), %error, "ask for free disk space");
                continue;
            }
        };
        let is_full = is_full(free, reserve, was_full);
        if is_full != was_full {
            was_full = is_full;
            raft.set_disk_full(is_full);
            match is_full {
                true => {
                    warn!(%free, disk_reserve = %reserve, "disk is almost full: only what frees room is taken until there is some")
                }
                false => info!(%free, "disk has room again"),
            }
        }
    }
}

/// A disk that was full must have a quarter more than the reserve, so that it does not change its mind with each file.
fn is_full(free: ByteSize, reserve: ByteSize, was_full: bool) -> bool {
    let wanted = if was_full {
        reserve.0.saturating_add(reserve.0 / 4)
    } else {
        reserve.0
    };
    free.0 < wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_was_full_needs_more_room_than_the_reserve() {
        let reserve = ByteSize(100);
        let verdicts = [101, 100, 99, 100, 124, 125, 100].iter().scan(false, |was, &free| {
            *was = is_full(ByteSize(free), reserve, *was);
            Some(*was)
        });
        assert_eq!(verdicts.collect::<Vec<_>>(), [false, false, true, true, true, false, false]);
    }
}
