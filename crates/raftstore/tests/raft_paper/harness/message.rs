//! Messages by hand, for tests of one node without a network.

use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, Entry, Message, MessageType};

pub fn message(kind: MessageType, from: u64, to: u64, term: u64) -> Message {
    let mut message = Message {
        from,
        to,
        term,
        ..Message::default()
    };
    message.set_msg_type(kind);
    message
}

pub fn entry(term: u64, index: u64) -> Entry {
    Entry {
        term,
        index,
        ..Entry::default()
    }
}

pub fn entry_with(term: u64, index: u64, data: &str) -> Entry {
    Entry {
        term,
        index,
        data: data.to_owned().into(),
        ..Entry::default()
    }
}

/// AppendEntries: `entries` follow the entry `before = (index, term)`; the leader has committed up to `commit`.
pub fn append(from: u64, to: u64, term: u64, before: (u64, u64), entries: Vec<Entry>, commit: u64) -> Message {
    let mut append = message(MessageType::MsgAppend, from, to, term);
    (append.index, append.log_term) = before;
    append.commit = commit;
    append.set_entries(entries.into());
    append
}

/// The answer of a follower whose log now matches the leader's up to `index`.
pub fn append_answer(from: u64, to: u64, term: u64, index: u64) -> Message {
    Message {
        index,
        ..message(MessageType::MsgAppendResponse, from, to, term)
    }
}

pub fn heartbeat(from: u64, to: u64, term: u64, commit: u64) -> Message {
    Message {
        commit,
        ..message(MessageType::MsgHeartbeat, from, to, term)
    }
}

/// RequestVote (or the pre-vote of it) of a candidate whose last entry is `last = (index, term)`.
pub fn vote_request(kind: MessageType, from: u64, to: u64, term: u64, last: (u64, u64)) -> Message {
    let mut request = message(kind, from, to, term);
    (request.index, request.log_term) = last;
    request
}

pub fn vote_answer(kind: MessageType, from: u64, to: u64, term: u64, granted: bool) -> Message {
    Message {
        reject: !granted,
        ..message(kind, from, to, term)
    }
}

/// The kinds and receivers of `messages`, in order of receivers.
pub fn kinds(messages: &[Message]) -> Vec<(MessageType, u64)> {
    let mut kinds: Vec<_> = messages.iter().map(|message| (message.get_msg_type(), message.to)).collect();
    kinds.sort_by_key(|&(_, to)| to);
    kinds
}

/// Whether the one message there is says no.
pub fn refused(messages: &[Message]) -> bool {
    let [answer] = messages else {
        panic!("wanted one answer, got {messages:?}")
    };
    answer.reject
}

pub fn change(kind: ConfChangeType, node_id: u64) -> ConfChangeSingle {
    let mut change = ConfChangeSingle {
        node_id,
        ..ConfChangeSingle::default()
    };
    change.set_change_type(kind);
    change
}

pub fn conf_change(transition: ConfChangeTransition, changes: Vec<ConfChangeSingle>) -> ConfChangeV2 {
    let mut conf_change = ConfChangeV2::default();
    conf_change.set_transition(transition);
    conf_change.set_changes(changes.into());
    conf_change
}

/// One change, by the one-at-a-time protocol.
pub fn change_now(kind: ConfChangeType, node_id: u64) -> ConfChangeV2 {
    conf_change(ConfChangeTransition::Auto, vec![change(kind, node_id)])
}
