//! The leader's lease: until when it may answer reads without asking a quorum (Ongaro's thesis, section 6.4.1).
//!
//! It counts from the moment *before* a quorum was asked (an entry proposed, a read index begun), once the quorum answered, and is
//! shorter than the time for which followers that heard the leader refuse to vote for another. A leader transfer breaks that
//! rule (its vote request goes through any lease), and the message that starts it may arrive late: so a leader that ever began a
//! transfer holds no lease again in that term.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base::MonoTime;

/// When a lease ends, shared with readers on other threads. Zero: no lease.
#[derive(Clone, Debug, Default)]
pub struct LeaseEnd {
    end: Arc<AtomicU64>,
    /// Set while entries are committed that this leader has not applied. A follower may have, and may have shown them to a reader:
    /// who reads here after that must find them too.
    behind: Arc<AtomicBool>,
    /// Time of the last tick: what the planted bug takes for now.
    ticked: Arc<AtomicU64>,
}

impl LeaseEnd {
    /// Whether the lease holds at `now`, which must be read after the request arrived.
    pub fn holds(&self, now: MonoTime) -> bool {
        let stale_clock = crate::planted::on(crate::planted::Bug::LeaseOverPause);
        let now = if stale_clock {
            self.ticked.load(Ordering::Acquire)
        } else {
            now.0
        };
        now < self.end.load(Ordering::Acquire)
    }

    /// Whether the leader has applied all that it knows to be committed, so that what the engine holds is the latest.
    pub fn is_current(&self) -> bool {
        !self.behind.load(Ordering::Acquire) || crate::planted::on(crate::planted::Bug::LeaseOverSplit)
    }

    /// Whether this was taken back for good, or no quorum has answered yet.
    pub fn is_over(&self) -> bool {
        self.end.load(Ordering::Acquire) == 0
    }

    pub(crate) fn set_behind(&self, behind: bool) {
        self.behind.store(behind, Ordering::Release);
    }

    pub(crate) fn on_tick(&self, now: MonoTime) {
        self.ticked.store(now.0, Ordering::Release);
    }
}

#[derive(Debug)]
pub(crate) struct Lease {
    span: Duration,
    /// Set while this leader may hold a lease in its term.
    allowed: bool,
    end: LeaseEnd,
}

impl Lease {
    pub fn new(span: Duration) -> Lease {
        Lease {
            span,
            allowed: false,
            end: LeaseEnd::default(),
        }
    }

    pub fn end(&self) -> &LeaseEnd {
        &self.end
    }

    /// The range is another one: takes the lease back from everybody who holds it for the old one, and gives it out anew.
    pub fn renew_readers(&mut self) {
        if crate::planted::on(crate::planted::Bug::LeaseOverSplit) {
            return;
        }
        let end = self.end.end.swap(0, Ordering::AcqRel);
        let ticked = self.end.ticked.load(Ordering::Acquire);
        self.end = LeaseEnd::default();
        self.end.end.store(end, Ordering::Release);
        self.end.ticked.store(ticked, Ordering::Release);
        // Until the step that does this ends.
        self.end.set_behind(true);
    }

    /// A term as leader begins; there is no lease before a quorum answers in it.
    pub fn begin(&mut self) {
        self.allowed = true;
        self.end.end.store(0, Ordering::Release);
    }

    /// Leadership ends, or a transfer of it begins.
    pub fn revoke(&mut self) {
        self.allowed = false;
        self.end.end.store(0, Ordering::Release);
    }

    /// A quorum answered what was sent to it at or after `asked`.
    pub fn renew(&mut self, asked: MonoTime) {
        if self.allowed && !self.span.is_zero() {
            self.end.end.fetch_max((asked + self.span).0, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn counts_from_the_question_and_never_shrinks() {
        let mut lease = Lease::new(Duration::from_millis(800));
        lease.renew(MonoTime(0));
        assert!(!lease.end().holds(MonoTime(1)), "not leader yet");
        lease.begin();
        lease.renew(MonoTime(1000 * MS));
        assert!(lease.end().holds(MonoTime(1799 * MS)));
        assert!(!lease.end().holds(MonoTime(1800 * MS)));
        lease.renew(MonoTime(500 * MS));
        assert!(lease.end().holds(MonoTime(1799 * MS)), "an older answer does not shorten it");
    }

    #[test]
    fn none_after_a_transfer_began() {
        let mut lease = Lease::new(Duration::from_millis(800));
        lease.begin();
        lease.renew(MonoTime(1000 * MS));
        let reader = lease.end().clone();
        lease.revoke();
        lease.renew(MonoTime(1100 * MS));
        assert!(!reader.holds(MonoTime(1101 * MS)));
    }
}
