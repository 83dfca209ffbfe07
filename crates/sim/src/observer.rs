//! Listens to what stores say to each other and holds them to Raft's promises, across crashes (Ongaro and Ousterhout, USENIX ATC
//! 2014, figure 3): a peer's term never goes back, it gives one vote in a term, and a term has one leader.

use std::collections::BTreeMap;

use raftstore::RaftMessage;

/// A promise broken on the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("region {region}: peer {peer} spoke in term {term}, and in term {before} before")]
    TermWentBack { region: u64, peer: u64, term: u64, before: u64 },
    #[error("region {region}: peer {peer} voted for {first} and for {second} in term {term}")]
    VotedTwice {
        region: u64,
        peer: u64,
        term: u64,
        first: u64,
        second: u64,
    },
    #[error("region {region}: peers {first} and {second} both lead term {term}")]
    TwoLeaders {
        region: u64,
        term: u64,
        first: u64,
        second: u64,
    },
}

/// Kinds of raft messages, as the `raft` crate numbers them.
pub mod kind {
    pub const APPEND: u32 = 3;
    pub const APPEND_ANSWER: u32 = 4;
    pub const VOTE: u32 = 6;
    pub const SNAPSHOT: u32 = 7;
    pub const HEARTBEAT: u32 = 8;
    pub const HEARTBEAT_ANSWER: u32 = 9;
    pub const VOTE_REQUEST: u32 = 5;
    pub const TIMEOUT_NOW: u32 = 14;
}

#[derive(Default)]
pub struct Observer {
    /// Highest term of each region's peers.
    terms: BTreeMap<(u64, u64), u64>,
    /// Vote given by region, peer and term.
    votes: BTreeMap<(u64, u64, u64), u64>,
    /// Leader by region and term.
    leaders: BTreeMap<(u64, u64), u64>,
}

impl Observer {
    /// Takes in a message as it leaves a store.
    pub fn hear(&mut self, message: &RaftMessage) -> Result<(), Broken> {
        let (Some(from), Some(to)) = (&message.from, &message.to) else {
            return Ok(());
        };
        let (region, peer, term) = (message.region_id, from.id, message.term);
        let speaks_for_its_term = matches!(
            message.kind,
            kind::APPEND
                | kind::APPEND_ANSWER
                | kind::VOTE
                | kind::SNAPSHOT
                | kind::HEARTBEAT
                | kind::HEARTBEAT_ANSWER
                | kind::VOTE_REQUEST
        );
        if !speaks_for_its_term || term == 0 {
            return Ok(());
        }
        let known = self.terms.entry((region, peer)).or_default();
        if term < *known {
            return Err(Broken::TermWentBack {
                region,
                peer,
                term,
                before: *known,
            });
        }
        *known = term;
        match message.kind {
            kind::VOTE if !message.reject => self.hear_vote(region, peer, term, to.id),
            // Asking for a vote is voting for oneself.
            kind::VOTE_REQUEST => self.hear_vote(region, peer, term, peer),
            kind::APPEND | kind::HEARTBEAT | kind::SNAPSHOT => self.hear_leader(region, term, peer),
            _ => Ok(()),
        }
    }

    fn hear_vote(&mut self, region: u64, peer: u64, term: u64, candidate: u64) -> Result<(), Broken> {
        let first = *self.votes.entry((region, peer, term)).or_insert(candidate);
        if first != candidate {
            return Err(Broken::VotedTwice {
                region,
                peer,
                term,
                first,
                second: candidate,
            });
        }
        Ok(())
    }

    fn hear_leader(&mut self, region: u64, term: u64, peer: u64) -> Result<(), Broken> {
        let first = *self.leaders.entry((region, term)).or_insert(peer);
        if first != peer {
            return Err(Broken::TwoLeaders {
                region,
                term,
                first,
                second: peer,
            });
        }
        Ok(())
    }

    /// How many leaders there were, over all regions.
    pub fn leaders(&self) -> u64 {
        self.leaders.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::metapb::Peer;

    fn message(kind: u32, from: u64, to: u64, term: u64) -> RaftMessage {
        let peer = |id| {
            Some(Peer {
                id,
                store_id: id,
                ..Default::default()
            })
        };
        RaftMessage {
            region_id: 1,
            from: peer(from),
            to: peer(to),
            kind,
            term,
            ..Default::default()
        }
    }

    fn verdict(messages: &[(u32, u64, u64, u64)]) -> Result<(), Broken> {
        let mut observer = Observer::default();
        messages
            .iter()
            .try_for_each(|&(kind, from, to, term)| observer.hear(&message(kind, from, to, term)))
    }

    #[test]
    fn promises_kept() {
        let election = [
            (kind::VOTE_REQUEST, 1, 2, 5),
            (kind::VOTE, 2, 1, 5),
            (kind::VOTE, 2, 1, 5),
            (kind::HEARTBEAT, 1, 2, 5),
            (kind::VOTE, 2, 3, 6),
            (kind::HEARTBEAT, 3, 2, 6),
        ];
        assert_eq!(verdict(&election), Ok(()));
    }

    #[test]
    fn promises_broken() {
        let two_votes = verdict(&[(kind::VOTE, 2, 1, 5), (kind::VOTE, 2, 3, 5)]);
        assert!(matches!(
            two_votes,
            Err(Broken::VotedTwice {
                peer: 2,
                first: 1,
                second: 3,
                ..
            })
        ));
        let own_vote = verdict(&[(kind::VOTE_REQUEST, 2, 1, 5), (kind::VOTE, 2, 3, 5)]);
        assert!(matches!(own_vote, Err(Broken::VotedTwice { .. })));
        let back = verdict(&[(kind::VOTE, 2, 1, 5), (kind::APPEND_ANSWER, 2, 3, 4)]);
        assert!(matches!(back, Err(Broken::TermWentBack { before: 5, .. })));
        let leaders = verdict(&[(kind::HEARTBEAT, 1, 2, 5), (kind::APPEND, 3, 2, 5)]);
        assert!(matches!(leaders, Err(Broken::TwoLeaders { term: 5, .. })));
    }
}
