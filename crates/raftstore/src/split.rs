//! One region becomes several: what the parts are, as a pure function of region and request.
//!
//! The region keeps its id and the rightmost part; each new region takes the range that ends at its key, with a peer on every store
//! that has one of the region, in the same role. All parts get a version that is higher by the number of new regions, so that
//! whoever believes in the old range is refused everywhere.

use std::collections::BTreeSet;

use bytes::Bytes;
use engine::kv::Error;
use prost::Message;
use proto::ferrite_raft::{Command, Split, split};
use proto::metapb::{Peer, Region, RegionEpoch};

pub use split::One as SplitOne;

use crate::command::AdminError;
use crate::region;

/// New regions that one command may make: each costs a peer, a mailbox and an election at once.
pub const SPLIT_MAX: usize = 128;

/// Encodes a split made under `epoch`.
pub fn encode(epoch: RegionEpoch, regions: Vec<SplitOne>) -> Vec<u8> {
    Command {
        epoch: Some(epoch),
        split: Some(Split { regions }),
        ..Command::default()
    }
    .encode_to_vec()
}

/// What a split came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Parts {
    /// The region that was split: it keeps its id and its rightmost part.
    pub region: Region,
    /// The new regions, ascending; the region follows them.
    pub children: Vec<Region>,
}

/// The parts of `region` after a split made under `epoch`, or why it is refused. Depends on nothing but its arguments, so that
/// proposing (leader) and applying (every peer) agree.
pub fn split(region: &Region, epoch: RegionEpoch, ones: &[SplitOne]) -> Result<Parts, AdminError> {
    let refuse = |reason| {
        Err(AdminError::Refused {
            region: base::RegionId(region.id),
            reason,
        })
    };
    if epoch != region::epoch(region) {
        return Err(Error::EpochNotMatch {
            current: vec![region.clone()],
        }
        .into());
    }
    if ones.is_empty() || ones.len() > SPLIT_MAX {
        return refuse("it makes no new region, or too many at once");
    }
    let ids: BTreeSet<u64> = ones.iter().flat_map(|one| &one.peer_ids).copied().collect();
    let regions: BTreeSet<u64> = ones.iter().map(|one| one.region_id).chain([region.id, 0]).collect();
    if ids.len() != ones.len() * region.peers.len() || ids.contains(&0) || regions.len() != ones.len() + 2 {
        return refuse("it needs an id for each new region, and one for each of their peers");
    }
    if ones.iter().any(|one| one.peer_ids.len() != region.peers.len()) {
        return refuse("each new region needs as many peers as the region has");
    }
    let inside = |key: &Bytes| *key > region.start_key && (region.end_key.is_empty() || *key < region.end_key);
    let ascending = ones.windows(2).all(|pair| pair[0].key < pair[1].key);
    if !ascending || !ones.iter().all(|one| inside(&one.key)) {
        return refuse("its keys must ascend and lie inside the region, none at its start");
    }
    Ok(cut(region, ones))
}

fn cut(region: &Region, ones: &[SplitOne]) -> Parts {
    let epoch = Some(RegionEpoch {
        version: region::epoch(region).version + ones.len() as u64,
        ..region::epoch(region)
    });
    let mut start = region.start_key.clone();
    let mut children = Vec::with_capacity(ones.len());
    for one in ones {
        let peer = |(peer, id): (&Peer, &u64)| Peer { id: *id, ..*peer };
        children.push(Region {
            id: one.region_id,
            start_key: std::mem::replace(&mut start, one.key.clone()),
            end_key: one.key.clone(),
            region_epoch: epoch,
            peers: region.peers.iter().zip(&one.peer_ids).map(peer).collect(),
            ..Region::default()
        });
    }
    let region = Region {
        start_key: start,
        region_epoch: epoch,
        ..region.clone()
    };
    Parts { region, children }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::metapb::PeerRole;

    const NOW: RegionEpoch = RegionEpoch { conf_ver: 3, version: 4 };

    fn region(start: &str, end: &str) -> Region {
        let peer = |id: u64, role: PeerRole| Peer {
            id,
            store_id: id,
            role: role as i32,
            ..Peer::default()
        };
        Region {
            id: 1,
            start_key: start.to_owned().into(),
            end_key: end.to_owned().into(),
            region_epoch: Some(NOW),
            peers: vec![peer(11, PeerRole::Voter), peer(12, PeerRole::Learner)],
            ..Region::default()
        }
    }

    fn one(key: &str, id: u64) -> SplitOne {
        SplitOne {
            key: key.to_owned().into(),
            region_id: id,
            peer_ids: vec![id * 10 + 1, id * 10 + 2],
        }
    }

    #[test]
    fn parts_cover_the_range_and_keep_the_roles() {
        let parts = split(&region("a", ""), NOW, &[one("f", 2), one("m", 3)]).expect("a good split");
        let all: Vec<_> = parts.children.iter().chain([&parts.region]).collect();
        let ranges: Vec<_> = all.iter().map(|r| (r.id, &r.start_key[..], &r.end_key[..])).collect();
        assert_eq!(ranges, [(2, &b"a"[..], &b"f"[..]), (3, b"f", b"m"), (1, b"m", b"")]);
        for part in &all {
            assert_eq!(region::epoch(part), RegionEpoch { conf_ver: 3, version: 6 });
            let roles: Vec<_> = part.peers.iter().map(|p| (p.store_id, p.role())).collect();
            assert_eq!(roles, [(11, PeerRole::Voter), (12, PeerRole::Learner)]);
        }
        assert_eq!(parts.children[1].peers[0].id, 31);
    }

    #[test]
    fn bad_splits_are_refused() {
        let r = region("a", "t");
        let stale = RegionEpoch { version: 3, ..NOW };
        assert!(matches!(split(&r, stale, &[one("f", 2)]), Err(AdminError::Region(_))));
        let membership = RegionEpoch { conf_ver: 2, ..NOW };
        assert!(matches!(split(&r, membership, &[one("f", 2)]), Err(AdminError::Region(_))));
        let short = SplitOne {
            peer_ids: vec![7],
            ..one("f", 2)
        };
        for ones in [
            vec![],
            vec![one("a", 2)],
            vec![one("t", 2)],
            vec![one("u", 2)],
            vec![one("", 2)],
            vec![one("m", 2), one("f", 3)],
            vec![one("f", 2), one("f", 3)],
            vec![one("f", 2), one("m", 2)],
            vec![one("f", 1)],
            vec![one("f", 0)],
            vec![short],
        ] {
            assert!(matches!(split(&r, NOW, &ones), Err(AdminError::Refused { .. })), "{ones:?}");
        }
    }

    /// As drawn in `docs/format.md`.
    #[test]
    fn golden_bytes() {
        let one = SplitOne {
            key: "f".into(),
            region_id: 2,
            peer_ids: vec![21, 150],
        };
        let bytes: String = encode(NOW, vec![one]).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(bytes, "0a0408031004220c0a0a0a01661002 1a03159601".replace(' ', ""));
    }

    #[test]
    fn a_split_survives_both_ways() {
        let bytes = encode(NOW, vec![one("f", 2)]);
        let command = Command::decode(&bytes[..]).expect("own encoding");
        assert_eq!(
            (command.epoch, command.split.map(|s| s.regions)),
            (Some(NOW), Some(vec![one("f", 2)]))
        );
    }
}
