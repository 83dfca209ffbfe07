//! Planted bugs: faults switched on to prove that the simulator would find them. Compiled in only with the feature `planted`.

/// A fault that replication could have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// A follower's answer to an append leaves before its entries are durable.
    AckBeforeFsync = 1,
    /// A vote leaves before it is durable.
    VoteBeforePersist = 2,
    /// The leader checks its lease against the time of its last tick instead of now.
    LeaseOverPause = 3,
    /// Requests are served whatever epoch, term and range they carry.
    NoEpochCheck = 4,
    /// Entries already covered by a raft snapshot are applied again on top of it.
    ApplyTwiceAfterSnapshot = 5,
    /// A read index is answered without asking a quorum.
    ReadIndexWithoutQuorum = 6,
    /// A write that was proposed before a split is applied after it, wherever its keys lie now.
    WriteOverSplit = 7,
    /// A leader answers reads under its lease although what is committed, a split say, is not applied yet.
    LeaseOverSplit = 8,
    /// A source asks to be taken over before all its peers hold its log.
    MergeWithoutAll = 9,
    /// A target takes a region over whatever happened to it since that was prepared.
    MergeOverEpoch = 10,
}

impl Bug {
    pub const ALL: [(&'static str, Bug); 10] = [
        ("ack-before-fsync", Bug::AckBeforeFsync),
        ("vote-before-persist", Bug::VoteBeforePersist),
        ("lease-over-pause", Bug::LeaseOverPause),
        ("no-epoch-check", Bug::NoEpochCheck),
        ("apply-twice-after-snapshot", Bug::ApplyTwiceAfterSnapshot),
        ("read-index-without-quorum", Bug::ReadIndexWithoutQuorum),
        ("write-over-split", Bug::WriteOverSplit),
        ("lease-over-split", Bug::LeaseOverSplit),
        ("merge-without-all", Bug::MergeWithoutAll),
        ("merge-over-epoch", Bug::MergeOverEpoch),
    ];
}

#[cfg(feature = "planted")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local!(static BUG: Cell<u8> = const { Cell::new(0) });

    /// Switches a bug on for this thread, or all off.
    pub fn plant(bug: Option<Bug>) {
        BUG.set(bug.map_or(0, |b| b as u8));
    }

    pub(crate) fn on(bug: Bug) -> bool {
        BUG.get() == bug as u8
    }
}

#[cfg(not(feature = "planted"))]
mod switch {
    #[inline(always)]
    pub(crate) fn on(_: super::Bug) -> bool {
        false
    }
}

pub(crate) use switch::on;
#[cfg(feature = "planted")]
pub use switch::plant;
