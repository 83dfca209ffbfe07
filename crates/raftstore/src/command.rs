//! What raft entries carry: [`Command`], a batch of changes or a change of membership.
//!
//! A change of membership stands in the entry's context in our own encoding; the crate's own form of it in the entry's data is
//! written by the crate and never parsed by us.

use std::collections::BTreeSet;

use bytes::Bytes;
use engine::Cf;
use engine::kv::Modify;
use prost::Message;
use proto::ferrite_raft::{Change, Command, ConfChange, change, conf_change};
use proto::metapb::{Peer, PeerRole, Region, RegionEpoch};
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2};

pub use conf_change::{Kind as ConfKind, One as ConfOne};

/// Why an administrative request was not carried out.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AdminError {
    #[error(transparent)]
    Region(#[from] engine::kv::Error),
    #[error("change of region {region} is refused: {reason}")]
    Refused { region: base::RegionId, reason: &'static str },
}

/// Bytes that a change takes in an entry, a little overestimated.
pub fn weight(change: &Modify) -> usize {
    let (key, value) = match change {
        Modify::Put { key, value, .. } => (key.len(), value.len()),
        Modify::Delete { key, .. } => (key.len(), 0),
        Modify::DeleteRange { start, end, .. } => (start.len(), end.len()),
    };
    key + value + 24
}

fn cf_number(cf: Cf) -> u32 {
    cf as u32
}

/// The data family of this number; families of the store's own are never replicated.
pub(crate) fn cf_from_number(number: u32) -> Option<Cf> {
    Cf::DATA.into_iter().find(|cf| *cf as u32 == number)
}

fn change_to_wire(change: Modify) -> Change {
    let (kind, cf, key, value) = match change {
        Modify::Put { cf, key, value } => (change::Kind::Put, cf, key, value),
        Modify::Delete { cf, key } => (change::Kind::Delete, cf, key, Bytes::new()),
        Modify::DeleteRange { cf, start, end } => (change::Kind::DeleteRange, cf, start, end),
    };
    Change {
        kind: kind as i32,
        cf: cf_number(cf),
        key,
        value,
    }
}

/// Turns a stored change back, or `None` if no version of ours wrote it.
pub(crate) fn change_from_wire(change: Change) -> Option<Modify> {
    let cf = cf_from_number(change.cf)?;
    Some(match change::Kind::try_from(change.kind).ok()? {
        change::Kind::Put => Modify::Put {
            cf,
            key: change.key,
            value: change.value,
        },
        change::Kind::Delete => Modify::Delete { cf, key: change.key },
        change::Kind::DeleteRange => Modify::DeleteRange {
            cf,
            start: change.key,
            end: change.value,
        },
    })
}

/// Encodes a batch of changes made under `epoch`.
pub fn encode_changes(epoch: RegionEpoch, changes: Vec<Modify>) -> Vec<u8> {
    let changes = changes.into_iter().map(change_to_wire).collect();
    Command {
        epoch: Some(epoch),
        changes,
        ..Command::default()
    }
    .encode_to_vec()
}

/// A change of membership as proposed: the entry's context, and what raft is told.
pub fn encode_conf_change(epoch: RegionEpoch, changes: Vec<ConfOne>) -> (Vec<u8>, ConfChangeV2) {
    let raft = raft_conf_change(&changes);
    let command = Command {
        epoch: Some(epoch),
        conf_change: Some(ConfChange { changes }),
        ..Command::default()
    };
    (command.encode_to_vec(), raft)
}

/// What raft is told of a change of membership. One change is simple, several are joint and leave the joint state by themselves.
pub(crate) fn raft_conf_change(changes: &[ConfOne]) -> ConfChangeV2 {
    let mut raft = ConfChangeV2::default();
    if changes.len() > 1 {
        raft.set_transition(ConfChangeTransition::Implicit);
    }
    let singles = changes.iter().map(|one| ConfChangeSingle {
        node_id: one.peer.as_ref().map_or(0, |peer| peer.id),
        change_type: match one.kind() {
            ConfKind::AddVoter => ConfChangeType::AddNode,
            ConfKind::AddLearner => ConfChangeType::AddLearnerNode,
            ConfKind::Remove => ConfChangeType::RemoveNode,
        },
        ..Default::default()
    });
    raft.set_changes(singles.collect::<Vec<_>>().into());
    raft
}

fn is_joint(region: &Region) -> bool {
    region
        .peers
        .iter()
        .any(|p| matches!(p.role(), PeerRole::IncomingVoter | PeerRole::DemotingVoter))
}

/// The region after a change of membership made under `epoch`, or why it is refused. Depends on nothing but its arguments, so that
/// proposing (leader) and applying (every peer) agree. Joint consensus: Ongaro's thesis, section 4.3.
pub fn apply_conf_change(region: &Region, epoch: RegionEpoch, changes: &[ConfOne]) -> Result<Region, AdminError> {
    let refuse = |reason| {
        Err(AdminError::Refused {
            region: base::RegionId(region.id),
            reason,
        })
    };
    if epoch.conf_ver != crate::region::epoch(region).conf_ver {
        return Err(engine::kv::Error::EpochNotMatch {
            current: vec![region.clone()],
        }
        .into());
    }
    if changes.is_empty() {
        return refuse("it changes nothing");
    }
    if is_joint(region) {
        return refuse("the one before has not left its joint state yet");
    }
    let stores: BTreeSet<u64> = changes
        .iter()
        .filter_map(|one| one.peer.as_ref())
        .map(|peer| peer.store_id)
        .collect();
    if stores.len() != changes.len() {
        return refuse("it names a store twice, or a change without a peer");
    }
    let joint = changes.len() > 1;
    let mut next = region.clone();
    for one in changes {
        let Some(peer) = &one.peer else {
            return refuse("a change names no peer");
        };
        let at = next.peers.iter().position(|p| p.store_id == peer.store_id);
        match at {
            Some(at) if next.peers[at].id != peer.id => return refuse("the store holds another peer of the region"),
            None if one.kind() == ConfKind::Remove => return refuse("the peer to remove is not there"),
            None if peer.id == 0 || peer.store_id == 0 => return refuse("a peer needs its id and its store's"),
            _ => {}
        }
        let role_now = at.map(|at| next.peers[at].role());
        let role_next = match (one.kind(), role_now) {
            (ConfKind::AddVoter, Some(PeerRole::Voter)) => return refuse("the peer is a voter already"),
            (ConfKind::AddVoter, _) if joint => PeerRole::IncomingVoter,
            (ConfKind::AddVoter, _) => PeerRole::Voter,
            (ConfKind::AddLearner, Some(PeerRole::Learner)) => return refuse("the peer is a learner already"),
            (ConfKind::AddLearner, Some(_)) if joint => PeerRole::DemotingVoter,
            (ConfKind::AddLearner, _) => PeerRole::Learner,
            (ConfKind::Remove, _) if !joint || role_now == Some(PeerRole::Learner) => {
                next.peers.remove(at.expect("checked above: the peer to remove is there"));
                continue;
            }
            (ConfKind::Remove, _) => return refuse("a voter leaves a joint change by becoming a learner first"),
        };
        match at {
            Some(at) => next.peers[at].set_role(role_next),
            None => {
                let mut peer: Peer = *peer;
                peer.set_role(role_next);
                next.peers.push(peer);
            }
        }
    }
    if !next
        .peers
        .iter()
        .any(|p| matches!(p.role(), PeerRole::Voter | PeerRole::IncomingVoter))
    {
        return refuse("no voter would be left");
    }
    bump_conf_ver(&mut next, changes.len() as u64);
    Ok(next)
}

/// The region once it leaves its joint state.
pub fn leave_joint(region: &Region) -> Region {
    let mut next = region.clone();
    let mut changed = 0;
    for peer in &mut next.peers {
        let role = match peer.role() {
            PeerRole::IncomingVoter => PeerRole::Voter,
            PeerRole::DemotingVoter => PeerRole::Learner,
            _ => continue,
        };
        peer.set_role(role);
        changed += 1;
    }
    bump_conf_ver(&mut next, changed);
    next
}

fn bump_conf_ver(region: &mut Region, by: u64) {
    let mut epoch = crate::region::epoch(region);
    epoch.conf_ver += by;
    region.region_epoch = Some(epoch);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(kind: ConfKind, id: u64) -> ConfOne {
        ConfOne {
            kind: kind as i32,
            peer: Some(Peer {
                id,
                store_id: id,
                ..Default::default()
            }),
        }
    }

    fn region(voters: &[u64], learners: &[u64]) -> Region {
        let peer = |id: &u64, role: PeerRole| Peer {
            id: *id,
            store_id: *id,
            role: role as i32,
            ..Default::default()
        };
        let voters = voters.iter().map(|id| peer(id, PeerRole::Voter));
        let learners = learners.iter().map(|id| peer(id, PeerRole::Learner));
        Region {
            id: 1,
            region_epoch: Some(RegionEpoch { conf_ver: 5, version: 1 }),
            peers: voters.chain(learners).collect(),
            ..Default::default()
        }
    }

    const NOW: RegionEpoch = RegionEpoch { conf_ver: 5, version: 1 };

    #[test]
    fn changes_survive_both_ways() {
        let changes = vec![
            Modify::Put {
                cf: Cf::Default,
                key: "k".into(),
                value: "v".into(),
            },
            Modify::Delete {
                cf: Cf::Lock,
                key: "k".into(),
            },
            Modify::DeleteRange {
                cf: Cf::Write,
                start: "a".into(),
                end: "b".into(),
            },
        ];
        let bytes = encode_changes(NOW, changes.clone());
        let command = Command::decode(&bytes[..]).expect("own encoding");
        assert_eq!(command.epoch, Some(NOW));
        let back: Option<Vec<_>> = command.changes.into_iter().map(change_from_wire).collect();
        assert_eq!(back, Some(changes));
    }

    #[test]
    fn families_of_the_store_are_never_replicated() {
        assert_eq!(
            change_from_wire(Change {
                cf: Cf::Local as u32,
                ..Default::default()
            }),
            None
        );
        assert_eq!(
            change_from_wire(Change {
                kind: 9,
                ..Default::default()
            }),
            None
        );
    }

    #[test]
    fn one_change_is_simple() {
        let r = apply_conf_change(&region(&[1], &[]), NOW, &[one(ConfKind::AddLearner, 2)]).expect("add learner");
        assert_eq!((r.peers[1].role(), crate::region::epoch(&r).conf_ver), (PeerRole::Learner, 6));
        let next = RegionEpoch { conf_ver: 6, version: 1 };
        let r = apply_conf_change(&r, next, &[one(ConfKind::AddVoter, 2)]).expect("promote learner");
        assert_eq!((r.peers.len(), r.peers[1].role()), (2, PeerRole::Voter));
        let next = RegionEpoch { conf_ver: 7, version: 1 };
        let r = apply_conf_change(&r, next, &[one(ConfKind::Remove, 1)]).expect("remove voter");
        assert_eq!(r.peers.iter().map(|p| p.id).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn several_changes_are_joint() {
        let changes = [
            one(ConfKind::AddVoter, 3),
            one(ConfKind::AddLearner, 1),
            one(ConfKind::Remove, 4),
        ];
        let r = apply_conf_change(&region(&[1, 2], &[3, 4]), NOW, &changes).expect("joint change");
        let roles: Vec<_> = r.peers.iter().map(|p| (p.id, p.role())).collect();
        assert_eq!(
            roles,
            [
                (1, PeerRole::DemotingVoter),
                (2, PeerRole::Voter),
                (3, PeerRole::IncomingVoter)
            ]
        );
        assert!(
            apply_conf_change(&r, crate::region::epoch(&r), &changes[..1]).is_err(),
            "joint already"
        );
        let left = leave_joint(&r);
        let roles: Vec<_> = left.peers.iter().map(|p| (p.id, p.role())).collect();
        assert_eq!(roles, [(1, PeerRole::Learner), (2, PeerRole::Voter), (3, PeerRole::Voter)]);
        assert_eq!(crate::region::epoch(&left).conf_ver, 10);
    }

    #[test]
    fn bad_changes_are_refused() {
        let r = region(&[1, 2], &[3]);
        let stale = RegionEpoch { conf_ver: 4, version: 1 };
        assert!(matches!(
            apply_conf_change(&r, stale, &[one(ConfKind::Remove, 3)]),
            Err(AdminError::Region(_))
        ));
        let mut moved = one(ConfKind::AddVoter, 9);
        moved.peer.as_mut().expect("made with a peer").store_id = 1;
        for changes in [
            vec![],
            vec![one(ConfKind::Remove, 9)],
            vec![one(ConfKind::AddVoter, 1)],
            vec![one(ConfKind::AddLearner, 3)],
            vec![one(ConfKind::AddVoter, 0)],
            vec![one(ConfKind::Remove, 1), one(ConfKind::AddVoter, 4)],
            vec![one(ConfKind::AddVoter, 4), one(ConfKind::AddVoter, 4)],
            vec![moved],
        ] {
            assert!(
                matches!(apply_conf_change(&r, NOW, &changes), Err(AdminError::Refused { .. })),
                "{changes:?}"
            );
        }
        assert!(
            apply_conf_change(&region(&[1], &[]), NOW, &[one(ConfKind::Remove, 1)]).is_err(),
            "last voter"
        );
    }
}
