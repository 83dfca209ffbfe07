//! The wall between the `raft` crate's messages and ours.
//!
//! The crate's types are made by `protobuf` 2.x, whose parser has a known stack overflow (RUSTSEC-2024-0437). No byte from
//! outside reaches it: the wire carries our own messages (`ferrite_raft.proto`), turned into the crate's here, field by field.
//! The placement driver's group, which has a log and a snapshot of its own, uses the same wall.

use proto::ferrite_raft as wire;
use protobuf::ProtobufEnum;
use raft::eraftpb;

/// Raft's view of a membership, as it is stored and sent.
pub fn conf_state_to_wire(state: &eraftpb::ConfState) -> wire::ConfState {
    wire::ConfState {
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        voters_outgoing: state.voters_outgoing.clone(),
        learners_next: state.learners_next.clone(),
        auto_leave: state.auto_leave,
    }
}

/// What [`conf_state_to_wire`] made.
pub fn conf_state_from_wire(state: wire::ConfState) -> eraftpb::ConfState {
    eraftpb::ConfState {
        voters: state.voters,
        learners: state.learners,
        voters_outgoing: state.voters_outgoing,
        learners_next: state.learners_next,
        auto_leave: state.auto_leave,
        ..Default::default()
    }
}

/// An entry, as it is stored and sent.
pub fn entry_to_wire(entry: eraftpb::Entry) -> wire::Entry {
    wire::Entry {
        kind: entry.entry_type as u32,
        term: entry.term,
        index: entry.index,
        data: entry.data,
        context: entry.context,
    }
}

/// What [`entry_to_wire`] made; `None` for a kind that raft does not know.
pub fn entry_from_wire(entry: wire::Entry) -> Option<eraftpb::Entry> {
    let kind = match entry.kind {
        0 => eraftpb::EntryType::EntryNormal,
        1 => eraftpb::EntryType::EntryConfChange,
        2 => eraftpb::EntryType::EntryConfChangeV2,
        _ => return None,
    };
    Some(eraftpb::Entry {
        entry_type: kind,
        term: entry.term,
        index: entry.index,
        data: entry.data,
        context: entry.context,
        ..Default::default()
    })
}

/// Raft's part of a message to another store; the caller adds region, peers, epoch and range.
pub fn to_wire(message: eraftpb::Message) -> wire::RaftMessage {
    let snapshot = message.snapshot.as_ref().map(|snapshot| {
        let meta = snapshot.get_metadata();
        wire::SnapshotMeta {
            index: meta.index,
            term: meta.term,
            conf_state: Some(conf_state_to_wire(meta.get_conf_state())),
            region: None,
        }
    });
    wire::RaftMessage {
        kind: message.msg_type as u32,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.entries.into_iter().map(entry_to_wire).collect(),
        commit: message.commit,
        commit_term: message.commit_term,
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context,
        priority: message.priority,
        snapshot,
        ..Default::default()
    }
}

/// Raft's part of a message from another store, or `None` if it is not one that a store may send.
pub fn from_wire(message: wire::RaftMessage) -> Option<eraftpb::Message> {
    let kind = eraftpb::MessageType::values()
        .iter()
        .copied()
        .find(|kind| *kind as u32 == message.kind)?;
    // Proposals are made on the leader alone; the crate would parse a forwarded change of membership.
    if raft::raw_node::is_local_msg(kind) || kind == eraftpb::MessageType::MsgPropose {
        return None;
    }
    let mut raft = eraftpb::Message {
        msg_type: kind,
        to: message.to?.id,
        from: message.from?.id,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        commit_term: message.commit_term,
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context,
        priority: message.priority,
        ..Default::default()
    };
    raft.entries = message
        .entries
        .into_iter()
        .map(entry_from_wire)
        .collect::<Option<Vec<_>>>()?
        .into();
    match message.snapshot {
        Some(meta) => {
            let snapshot = raft.mut_snapshot().mut_metadata();
            snapshot.index = meta.index;
            snapshot.term = meta.term;
            snapshot.set_conf_state(conf_state_from_wire(meta.conf_state?));
        }
        None if kind == eraftpb::MessageType::MsgSnapshot => return None,
        None => {}
    }
    Some(raft)
}

/// Whether a message of this kind asks for a vote: only such messages, appends and heartbeats make a store create a peer.
pub fn is_vote_request(kind: u32) -> bool {
    use eraftpb::MessageType::{MsgRequestPreVote, MsgRequestVote};
    kind == MsgRequestVote as u32 || kind == MsgRequestPreVote as u32
}

/// Whether a follower sends it only because a leader spoke to it.
pub(crate) fn is_answer(message: &wire::RaftMessage) -> bool {
    use eraftpb::MessageType::{MsgAppendResponse, MsgHeartbeatResponse};
    [MsgAppendResponse as u32, MsgHeartbeatResponse as u32].contains(&message.kind)
}

/// Whether a message of this kind makes its receiver stand for election at once.
pub(crate) fn starts_campaign(kind: u32) -> bool {
    kind == eraftpb::MessageType::MsgTimeoutNow as u32
}

/// Whether a store without the region may create a peer for a message of this kind.
pub(crate) fn may_create_peer(message: &wire::RaftMessage) -> bool {
    use eraftpb::MessageType::{MsgHeartbeat, MsgSnapshot};
    is_vote_request(message.kind)
        || message.kind == MsgSnapshot as u32
        || (message.kind == MsgHeartbeat as u32 && message.commit == 0)
}

/// Names the raft snapshot that a message carries.
pub fn snapshot_key(region: base::RegionId, meta: &wire::SnapshotMeta) -> crate::snapshot::Key {
    crate::snapshot::Key {
        region,
        position: crate::storage::LogPosition {
            index: meta.index,
            term: meta.term,
        },
    }
}

/// Whether the message carries a raft snapshot.
pub fn is_snapshot(message: &wire::RaftMessage) -> bool {
    message.kind == eraftpb::MessageType::MsgSnapshot as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::metapb;

    fn peers(message: wire::RaftMessage) -> wire::RaftMessage {
        let peer = |id| {
            Some(metapb::Peer {
                id,
                store_id: id,
                ..Default::default()
            })
        };
        wire::RaftMessage {
            from: peer(1),
            to: peer(2),
            ..message
        }
    }

    #[test]
    fn messages_survive_both_ways() {
        let mut raft = eraftpb::Message {
            msg_type: eraftpb::MessageType::MsgAppend,
            from: 1,
            to: 2,
            term: 3,
            log_term: 4,
            index: 5,
            commit: 6,
            commit_term: 7,
            request_snapshot: 8,
            reject: true,
            reject_hint: 9,
            context: b"ctx".as_ref().into(),
            priority: 10,
            ..Default::default()
        };
        let entry = eraftpb::Entry {
            term: 3,
            index: 6,
            data: b"data".as_ref().into(),
            context: b"c".as_ref().into(),
            ..Default::default()
        };
        raft.entries = vec![entry].into();
        assert_eq!(from_wire(peers(to_wire(raft.clone()))), Some(raft));
    }

    #[test]
    fn snapshot_metadata_survives() {
        let mut raft = eraftpb::Message {
            msg_type: eraftpb::MessageType::MsgSnapshot,
            from: 1,
            to: 2,
            ..Default::default()
        };
        let meta = raft.mut_snapshot().mut_metadata();
        (meta.index, meta.term) = (7, 8);
        meta.set_conf_state(eraftpb::ConfState {
            voters: vec![1, 2],
            learners: vec![3],
            auto_leave: true,
            ..Default::default()
        });
        assert_eq!(from_wire(peers(to_wire(raft.clone()))), Some(raft));
    }

    #[test]
    fn what_no_store_may_send_is_refused() {
        let plain = wire::RaftMessage::default();
        use eraftpb::MessageType::{MsgBeat, MsgHup, MsgPropose};
        for kind in [MsgHup as u32, MsgBeat as u32, MsgPropose as u32, 99, u32::MAX] {
            assert_eq!(
                from_wire(peers(wire::RaftMessage { kind, ..plain.clone() })),
                None,
                "kind {kind}"
            );
        }
        let append = eraftpb::MessageType::MsgAppend as u32;
        let bad_entry = wire::Entry {
            kind: 17,
            ..Default::default()
        };
        assert_eq!(
            from_wire(peers(wire::RaftMessage {
                kind: append,
                entries: vec![bad_entry],
                ..plain.clone()
            })),
            None
        );
        assert_eq!(from_wire(wire::RaftMessage { kind: append, ..plain }), None, "no peers");
        let snapshot = eraftpb::MessageType::MsgSnapshot as u32;
        assert_eq!(
            from_wire(peers(wire::RaftMessage {
                kind: snapshot,
                ..Default::default()
            })),
            None,
            "snapshot without its head"
        );
    }
}
