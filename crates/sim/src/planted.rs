//! Planted bugs of every part, by one name each: faults switched on to prove that the simulator finds them.

use std::cell::Cell;

use crate::options::Workload;

/// A fault that a transactional client could have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientBug {
    /// Secondaries are committed before their primary.
    SecondaryBeforePrimary,
}

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    Raft(raftstore::planted::Bug),
    Pd(pd::planted::Bug),
    Txn(txn::planted::Bug),
    Client(ClientBug),
}

impl Bug {
    /// All of them with their names.
    pub fn all() -> Vec<(&'static str, Bug)> {
        let raft = raftstore::planted::Bug::ALL.map(|(name, bug)| (name, Bug::Raft(bug)));
        let txn = txn::planted::Bug::ALL.map(|(name, bug)| (name, Bug::Txn(bug)));
        let pd = pd::planted::Bug::ALL.map(|(name, bug)| (name, Bug::Pd(bug)));
        let client = [("secondary-before-primary", Bug::Client(ClientBug::SecondaryBeforePrimary))];
        raft.into_iter().chain(txn).chain(pd).chain(client).collect()
    }

    pub fn name(self) -> &'static str {
        let all = Bug::all();
        let (name, _) = all.into_iter().find(|(_, bug)| *bug == self).expect("all bugs have names");
        name
    }

    /// The workload that must show it.
    pub fn workload(self) -> Workload {
        match self {
            Bug::Raft(_) => Workload::All,
            Bug::Pd(pd::planted::Bug::LeaseIgnored | pd::planted::Bug::VoteAfterRestart) => Workload::Members,
            Bug::Pd(_) | Bug::Txn(_) | Bug::Client(_) => Workload::Txn,
        }
    }
}

thread_local!(static CLIENT: Cell<Option<ClientBug>> = const { Cell::new(None) });

/// Switches a bug on for this thread, and all others off.
pub fn plant(bug: Option<Bug>) {
    raftstore::planted::plant(None);
    pd::planted::plant(None);
    txn::planted::plant(None);
    CLIENT.set(None);
    match bug {
        Some(Bug::Raft(bug)) => raftstore::planted::plant(Some(bug)),
        Some(Bug::Pd(bug)) => pd::planted::plant(Some(bug)),
        Some(Bug::Txn(bug)) => txn::planted::plant(Some(bug)),
        Some(Bug::Client(bug)) => CLIENT.set(Some(bug)),
        None => {}
    }
}

pub(crate) fn on(bug: ClientBug) -> bool {
    CLIENT.get() == Some(bug)
}
