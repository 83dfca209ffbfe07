//! One region takes over its neighbour: what both become, as pure functions of regions and requests.
//!
//! The source stands still once it has applied its `prepare`. When every peer of it holds that entry, its leader asks the target's to
//! `commit`: each store then applies the rest of the source's log, and one entry in the target's log gives it the range. The target's log
//! decides: a commit names the epoch under which the merge was prepared, so that whatever changes the target first is the end of the
//! merge. A store learns from its own copy of the target that this has happened, as it would have lost its copy of the source otherwise;
//! then the source's leader rolls back.

use std::collections::BTreeSet;

use engine::kv::Error;
use prost::Message;
use proto::ferrite_raft::{Command, MergeSource};
use proto::metapb::{PeerRole, Region, RegionEpoch};

use crate::command::AdminError;
use crate::planted::{self, Bug};
use crate::region;
use crate::storage::LogPosition;

/// What a source waits for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merging {
    /// The neighbour as it was when the merge was prepared.
    pub target: Region,
    /// The entry that made the source stand still.
    pub at: LogPosition,
}

/// Encodes what makes a region of this epoch stand still, to be merged into `target`.
pub fn encode_prepare(epoch: RegionEpoch, target: Region) -> Vec<u8> {
    let prepare_merge = Some(target);
    encode(Command {
        prepare_merge,
        ..under(epoch)
    })
}

/// Context of an entry that takes a region over: tells it from the others before they are read.
pub const COMMIT_CONTEXT: &[u8] = b"merge";

/// Encodes what makes the target, if it is of this epoch still, take over `source`. Goes with [`COMMIT_CONTEXT`].
pub fn encode_commit(epoch: RegionEpoch, source: MergeSource) -> Vec<u8> {
    let commit_merge = Some(source);
    encode(Command {
        commit_merge,
        ..under(epoch)
    })
}

/// Encodes what ends all merges into a target of this epoch.
pub fn encode_give_up(epoch: RegionEpoch) -> Vec<u8> {
    encode(Command {
        give_up_merge: true,
        ..under(epoch)
    })
}

/// Encodes what lets a source of this epoch go on.
pub fn encode_rollback(epoch: RegionEpoch) -> Vec<u8> {
    encode(Command {
        rollback_merge: true,
        ..under(epoch)
    })
}

fn under(epoch: RegionEpoch) -> Command {
    Command {
        epoch: Some(epoch),
        ..Command::default()
    }
}

fn encode(command: Command) -> Vec<u8> {
    command.encode_to_vec()
}

fn check_epoch(region: &Region, epoch: RegionEpoch) -> Result<(), AdminError> {
    if epoch == region::epoch(region) || planted::on(Bug::MergeOverEpoch) {
        return Ok(());
    }
    let current = vec![region.clone()];
    Err(Error::EpochNotMatch { current }.into())
}

/// Why `source` cannot be merged into `target`, if it cannot.
fn check_pair(source: &Region, target: &Region) -> Result<(), AdminError> {
    let refuse = |reason| {
        let region = base::RegionId(source.id);
        Err(AdminError::Refused { region, reason })
    };
    let stores = |region: &Region| -> BTreeSet<u64> { region.peers.iter().map(|peer| peer.store_id).collect() };
    let touches = |a: &Region, b: &Region| !a.end_key.is_empty() && a.end_key == b.start_key;
    let is_steady = |region: &Region| region.peers.iter().all(|peer| peer.role() == PeerRole::Voter);
    if source.id == target.id || !(touches(source, target) || touches(target, source)) {
        return refuse("the regions to merge are no neighbours");
    }
    if stores(source) != stores(target) {
        return refuse("the regions to merge do not lie on the same stores");
    }
    if !is_steady(source) || !is_steady(target) {
        return refuse("a region to merge has learners, or changes its membership");
    }
    Ok(())
}

fn next_version(region: &Region, version: u64) -> Region {
    let mut next = region.clone();
    next.region_epoch = Some(RegionEpoch {
        version,
        ..region::epoch(region)
    });
    next
}

/// The source once it stands still: clients that believe in it come again, to whoever holds its range then.
pub fn prepare(source: &Region, epoch: RegionEpoch, target: &Region) -> Result<Region, AdminError> {
    check_epoch(source, epoch)?;
    check_pair(source, target)?;
    Ok(next_version(source, epoch.version + 1))
}

/// The target with the range of `source`, which stands still.
pub fn commit(target: &Region, epoch: RegionEpoch, source: &Region) -> Result<Region, AdminError> {
    check_epoch(target, epoch)?;
    check_pair(source, target)?;
    let version = epoch.version.max(region::epoch(source).version) + 1;
    let mut next = next_version(target, version);
    match !source.end_key.is_empty() && source.end_key == target.start_key {
        true => next.start_key = source.start_key.clone(),
        false => next.end_key = source.end_key.clone(),
    }
    Ok(next)
}

/// The target, or the source, once what was prepared will not take place.
pub fn give_up(region: &Region, epoch: RegionEpoch) -> Result<Region, AdminError> {
    check_epoch(region, epoch)?;
    Ok(next_version(region, epoch.version + 1))
}

/// Whether a region that was of the epoch `then` has changed since, given that it is of the epoch `now`.
pub fn has_moved_on(now: RegionEpoch, then: RegionEpoch) -> bool {
    now != then && now.version >= then.version && now.conf_ver >= then.conf_ver
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::metapb::Peer;

    const NOW: RegionEpoch = RegionEpoch { conf_ver: 3, version: 4 };

    fn region(id: u64, start: &str, end: &str, stores: &[u64]) -> Region {
        let peer = |store: &u64| Peer {
            id: 10 * id + store,
            store_id: *store,
            ..Peer::default()
        };
        Region {
            id,
            start_key: start.to_owned().into(),
            end_key: end.to_owned().into(),
            region_epoch: Some(NOW),
            peers: stores.iter().map(peer).collect(),
            ..Region::default()
        }
    }

    #[test]
    fn a_neighbour_on_either_side_is_taken_over() {
        for (source, range) in [
            (region(2, "", "f", &[2, 1]), ("", "m")),
            (region(2, "m", "", &[1, 2]), ("f", "")),
        ] {
            let target = region(1, "f", "m", &[1, 2]);
            let source = prepare(&source, NOW, &target).expect("neighbours on the same stores");
            assert_eq!(region::epoch(&source), RegionEpoch { conf_ver: 3, version: 5 });
            let whole = commit(&target, NOW, &source).expect("neighbours on the same stores");
            assert_eq!(
                (whole.id, &whole.start_key[..], &whole.end_key[..]),
                (1, range.0.as_bytes(), range.1.as_bytes())
            );
            assert_eq!(region::epoch(&whole), RegionEpoch { conf_ver: 3, version: 6 });
            assert_eq!(whole.peers, target.peers);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let target = region(1, "f", "m", &[1, 2]);
        let mut learning = region(2, "", "f", &[1, 2]);
        learning.peers[1].set_role(PeerRole::Learner);
        for source in [
            region(2, "", "e", &[1, 2]),
            region(2, "m", "", &[1, 3]),
            region(2, "m", "", &[1, 2, 3]),
            region(1, "m", "", &[1, 2]),
            learning,
        ] {
            let prepared = prepare(&source, NOW, &target);
            assert!(matches!(prepared, Err(AdminError::Refused { .. })), "{source:?}");
            assert!(
                matches!(commit(&target, NOW, &source), Err(AdminError::Refused { .. })),
                "{source:?}"
            );
        }
        // Both have no end and no start: they do not touch there.
        assert!(prepare(&region(2, "m", "", &[1]), NOW, &region(1, "", "f", &[1])).is_err());
    }

    #[test]
    fn whatever_changed_the_target_first_ends_the_merge() {
        let (source, target) = (region(2, "", "f", &[1, 2]), region(1, "f", "m", &[1, 2]));
        for other in [RegionEpoch { conf_ver: 4, ..NOW }, RegionEpoch { version: 5, ..NOW }] {
            let mut changed = target.clone();
            changed.region_epoch = Some(other);
            assert!(matches!(commit(&changed, NOW, &source), Err(AdminError::Region(_))));
            assert!(has_moved_on(other, NOW) && !has_moved_on(NOW, other));
        }
        assert!(!has_moved_on(NOW, NOW));
        let given_up = give_up(&target, NOW).expect("of this epoch");
        assert!(commit(&given_up, NOW, &source).is_err());
        assert!(give_up(&given_up, NOW).is_err(), "once is enough");
    }
}
