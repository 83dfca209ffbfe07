//! Planted bugs: faults switched on to prove that the simulator would find them. Compiled in only with the feature `planted`.

/// A fault that the placement driver could have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// Timestamps leave before the bound above them is durable.
    TsoBoundNotPersisted = 1,
    /// A leader answers though its lease is over.
    LeaseIgnored = 2,
    /// A member that restarted votes at once, though a leader that it heard before may hold a lease.
    VoteAfterRestart = 3,
}

impl Bug {
    pub const ALL: [(&'static str, Bug); 3] = [
        ("tso-bound-not-persisted", Bug::TsoBoundNotPersisted),
        ("pd-lease-ignored", Bug::LeaseIgnored),
        ("pd-vote-after-restart", Bug::VoteAfterRestart),
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
