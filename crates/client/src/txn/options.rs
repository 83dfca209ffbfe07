//! How a transaction is set up.

use std::time::Duration;

use base::Ts;
use proto::kvrpcpb;

/// How long to wait for a lock that another transaction holds. Bounded by the deadline of the call in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LockWait {
    /// As long as the deadline allows.
    #[default]
    Deadline,
    /// Not at all: [`crate::Error::Locked`] at once.
    No,
    /// So long, then [`crate::Error::Locked`].
    For(Duration),
}

/// Which copies of the data serve reads. What does not answer from another copy is asked of the leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// The one of each region that leads.
    #[default]
    Leader,
    /// Any copy, each read another: spreads the load of reads, at the price of a round trip from that copy to the leader. As fresh as a read
    /// from the leader.
    Replica,
    /// Any copy, which serves by itself what it knows to be over. For snapshots a few seconds old: wanted is one that nothing commits at or
    /// below any more, so locks of transactions under way hold such reads up.
    Stale,
}

impl ReadFrom {
    pub(crate) fn context(self) -> kvrpcpb::Context {
        kvrpcpb::Context {
            replica_read: self == ReadFrom::Replica,
            stale_read: self == ReadFrom::Stale,
            ..kvrpcpb::Context::default()
        }
    }
}

/// See the fields. `Default` is an optimistic transaction that commits in as few rounds as it can.
#[derive(Clone, Debug)]
pub struct TxnOptions {
    /// Locks keys when they are written or read for update, rather than find conflicts at commit. Default false.
    pub pessimistic: bool,
    /// Is committed once all keys are locked, without waiting for the second phase, if there are few and short keys. Default true.
    pub async_commit: bool,
    /// Commits in one round if one region holds all keys. Default true.
    pub one_phase: bool,
    /// Lets an async or one-phase commit go without a timestamp of its own: one round to the placement driver less. Whoever reads an
    /// old snapshot may then see it before a transaction that was committed earlier, although this one began before that ended.
    /// Default false.
    pub causal: bool,
    /// Bound of the commit timestamp of async and one-phase commit; above it they become ordinary ones. Default none.
    pub commit_ts_max: Option<Ts>,
    /// For locks of pessimistic transactions. Default the deadline.
    pub lock_wait: LockWait,
    /// Time for each call, a commit among them. Default that of the client. Large transactions want more.
    pub deadline: Option<Duration>,
}

impl Default for TxnOptions {
    fn default() -> TxnOptions {
        TxnOptions {
            pessimistic: false,
            async_commit: true,
            one_phase: true,
            causal: false,
            commit_ts_max: None,
            lock_wait: LockWait::Deadline,
            deadline: None,
        }
    }
}

impl TxnOptions {
    pub fn pessimistic() -> TxnOptions {
        TxnOptions {
            pessimistic: true,
            ..Default::default()
        }
    }

    /// The two phases of Percolator and nothing else.
    pub fn two_phase() -> TxnOptions {
        TxnOptions {
            async_commit: false,
            one_phase: false,
            ..Default::default()
        }
    }
}
