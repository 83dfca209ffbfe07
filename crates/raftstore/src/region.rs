//! What a region is, and whether a request or a message fits it.

use std::collections::BTreeSet;

use base::{PeerId, StoreId};
use engine::kv::{Context, Error, Modify};
use proto::metapb::{Peer, PeerRole, Region, RegionEpoch};
use raft::eraftpb::ConfState;

/// The region's epoch; a region without one counts as the oldest.
pub fn epoch(region: &Region) -> RegionEpoch {
    region.region_epoch.unwrap_or_default()
}

/// The region's peer on `store`.
pub fn peer_on(region: &Region, store: StoreId) -> Option<&Peer> {
    region.peers.iter().find(|peer| peer.store_id == store.0)
}

/// The region's peer of this id.
pub fn peer_of(region: &Region, id: PeerId) -> Option<&Peer> {
    region.peers.iter().find(|peer| peer.id == id.0)
}

/// Whether two regions share a key.
pub fn overlap(a: &Region, b: &Region) -> bool {
    let before = |x: &Region, y: &Region| !x.end_key.is_empty() && x.end_key <= y.start_key;
    !before(a, b) && !before(b, a)
}

/// Checks what a client believes of the region. A changed membership does not matter to reads and writes, a changed range does.
pub fn check_context(region: &Region, me: PeerId, ctx: &Context) -> Result<(), Error> {
    if crate::planted::on(crate::planted::Bug::NoEpochCheck) {
        return Ok(());
    }
    if ctx.peer.is_some() && ctx.peer != me {
        return Err(Error::MismatchPeer {
            wanted: ctx.peer.0,
            actual: me.0,
        });
    }
    engine::kv::view::check_epoch(region, ctx)
}

/// Adds what the last split took from the region to an answer for somebody who believes in an older range.
pub fn with_siblings(mut error: Error, siblings: &[Region]) -> Error {
    if let Error::EpochNotMatch { current } = &mut error {
        current.extend_from_slice(siblings);
    }
    error
}

/// Checks that changes touch the region alone.
pub fn check_changes(region: &Region, changes: &[Modify]) -> Result<(), Error> {
    if crate::planted::on(crate::planted::Bug::NoEpochCheck) {
        return Ok(());
    }
    changes
        .iter()
        .try_for_each(|change| engine::kv::view::check_change(region, change))
}

fn role(peer: &Peer) -> PeerRole {
    PeerRole::try_from(peer.role).unwrap_or(PeerRole::Voter)
}

/// Raft's view of the region's membership.
pub fn conf_state(region: &Region) -> ConfState {
    let joint = region
        .peers
        .iter()
        .any(|p| matches!(role(p), PeerRole::IncomingVoter | PeerRole::DemotingVoter));
    let mut state = ConfState {
        auto_leave: joint,
        ..Default::default()
    };
    for peer in &region.peers {
        match role(peer) {
            PeerRole::Voter => {
                state.voters.push(peer.id);
                if joint {
                    state.voters_outgoing.push(peer.id);
                }
            }
            PeerRole::Learner => state.learners.push(peer.id),
            PeerRole::IncomingVoter => state.voters.push(peer.id),
            PeerRole::DemotingVoter => {
                state.voters_outgoing.push(peer.id);
                state.learners_next.push(peer.id);
            }
        }
    }
    state
}

/// Whether two memberships are the same, whatever order they list their peers in.
pub fn same_members(a: &ConfState, b: &ConfState) -> bool {
    let sorted = |ids: &[u64]| -> BTreeSet<u64> { ids.iter().copied().collect() };
    sorted(&a.voters) == sorted(&b.voters)
        && sorted(&a.learners) == sorted(&b.learners)
        && sorted(&a.voters_outgoing) == sorted(&b.voters_outgoing)
        && sorted(&a.learners_next) == sorted(&b.learners_next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(start: &str, end: &str) -> Region {
        Region {
            id: 1,
            start_key: start.to_owned().into(),
            end_key: end.to_owned().into(),
            region_epoch: Some(RegionEpoch { conf_ver: 2, version: 3 }),
            ..Default::default()
        }
    }

    #[test]
    fn ranges_are_half_open() {
        assert!(overlap(&region("a", "c"), &region("b", "")));
        assert!(!overlap(&region("a", "b"), &region("b", "")));
    }

    #[test]
    fn a_changed_range_refuses_a_changed_membership_does_not() {
        let r = region("", "");
        let ctx = |conf_ver, version, peer| Context {
            epoch: RegionEpoch { conf_ver, version },
            peer: PeerId(peer),
            ..Default::default()
        };
        assert_eq!(check_context(&r, PeerId(7), &ctx(1, 3, 7)), Ok(()));
        assert_eq!(check_context(&r, PeerId(7), &ctx(2, 3, 0)), Ok(()));
        assert!(matches!(
            check_context(&r, PeerId(7), &ctx(2, 2, 7)),
            Err(Error::EpochNotMatch { .. })
        ));
        assert!(matches!(
            check_context(&r, PeerId(7), &ctx(2, 4, 7)),
            Err(Error::EpochNotMatch { .. })
        ));
        assert!(matches!(
            check_context(&r, PeerId(7), &ctx(2, 3, 8)),
            Err(Error::MismatchPeer { .. })
        ));
    }

    #[test]
    fn joint_membership_has_two_voter_sets() {
        let mut r = region("", "");
        let peer = |id, role: PeerRole| Peer {
            id,
            store_id: id,
            role: role as i32,
            ..Default::default()
        };
        r.peers = vec![
            peer(1, PeerRole::Voter),
            peer(2, PeerRole::IncomingVoter),
            peer(3, PeerRole::DemotingVoter),
            peer(4, PeerRole::Learner),
        ];
        let state = conf_state(&r);
        assert_eq!((&state.voters[..], &state.voters_outgoing[..]), (&[1, 2][..], &[1, 3][..]));
        assert_eq!((&state.learners[..], &state.learners_next[..]), (&[4][..], &[3][..]));
    }
}
