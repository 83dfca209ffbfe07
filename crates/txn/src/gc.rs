//! [`Worker`]: collects garbage in the regions that are led here, one slice after the other, with a rest after each.
//!
//! A round begins when the safe point has moved, and goes over the regions that its shell lists then. It submits [`Command::Collect`] to
//! the scheduler like a client would; a slice is bounded in keys, records and bytes, and never more than one is under way. A region
//! that moves or splits meanwhile is left to the next round, here or wherever it is led then.

use std::collections::VecDeque;
use std::time::Duration;

use base::{MonoTime, Ts};
use bytes::Bytes;
use engine::kv;

use crate::command::{Command, Output};
use crate::error::{Error, Result};
use crate::metrics;

/// Rest after a slice, in times that it took: at most a third of the time goes into collecting.
const REST: u32 = 2;
/// Pause after a failure that may pass.
const PAUSE: Duration = Duration::from_secs(1);
/// Failures of one slice after which its region is left to the next round.
const FAILURES_MAX: u32 = 5;

/// What reaches the worker.
pub enum Event {
    /// The safe point is known to be here, and these regions are led here. Ignored unless [`Worker::wants`] said so.
    SafePoint { safe_point: Ts, regions: Vec<kv::Context> },
    /// Answers [`Effects::submit`].
    Answer(Result<Output>),
    /// Time passed; due at [`Effects::wake_at`].
    Tick,
}

/// What the shell must do.
#[must_use]
#[derive(Debug, Default)]
pub struct Effects {
    /// Submit to the scheduler.
    pub submit: Option<(kv::Context, Command)>,
    /// When the next [`Event::Tick`] is due.
    pub wake_at: Option<MonoTime>,
}

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records deleted.
    pub deleted: u64,
    pub regions_done: u64,
    /// Regions that moved, changed or failed in the middle.
    pub regions_left: u64,
}

struct Round {
    safe_point: Ts,
    regions: VecDeque<kv::Context>,
    /// Where the slice under way, or the next one, begins in the first region.
    from: Bytes,
    failures: u32,
}

enum State {
    Idle,
    /// A slice is under way.
    Busy {
        round: Round,
        since: MonoTime,
    },
    Rests {
        round: Round,
        until: MonoTime,
    },
}

/// See the module. One per store.
pub struct Worker {
    state: State,
    done: Ts,
    counts: Counts,
}

impl Default for Worker {
    fn default() -> Worker {
        Worker {
            state: State::Idle,
            done: Ts(0),
            counts: Counts::default(),
        }
    }
}

impl Worker {
    /// Whether a round for this safe point would begin.
    pub fn wants(&self, safe_point: Ts) -> bool {
        matches!(self.state, State::Idle) && safe_point > self.done
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The safe point up to which the last round that ended has collected.
    pub fn done(&self) -> Ts {
        self.done
    }

    pub fn step(&mut self, now: MonoTime, event: Event) -> Effects {
        let state = std::mem::replace(&mut self.state, State::Idle);
        let (state, submit) = match (state, event) {
            (State::Idle, Event::SafePoint { safe_point, regions }) if safe_point > self.done => {
                let round = Round {
                    safe_point,
                    regions: regions.into(),
                    from: Bytes::new(),
                    failures: 0,
                };
                self.submit(now, round)
            }
            (State::Busy { round, since }, Event::Answer(result)) => self.on_answer(now, round, now.since(since), result),
            (State::Rests { round, until }, Event::Tick) if now >= until => self.submit(now, round),
            (state, _) => (state, None),
        };
        let wake_at = match &state {
            State::Rests { until, .. } => Some(*until),
            State::Idle | State::Busy { .. } => None,
        };
        self.state = state;
        Effects { submit, wake_at }
    }

    fn submit(&mut self, now: MonoTime, round: Round) -> (State, Option<(kv::Context, Command)>) {
        let Some(ctx) = round.regions.front().cloned() else {
            self.done = round.safe_point;
            return (State::Idle, None);
        };
        let command = Command::Collect {
            safe_point: round.safe_point,
            keys: Vec::new(),
            scan: Some(round.from.clone()),
        };
        (State::Busy { round, since: now }, Some((ctx, command)))
    }

    fn on_answer(
        &mut self,
        now: MonoTime,
        mut round: Round,
        took: Duration,
        result: Result<Output>,
    ) -> (State, Option<(kv::Context, Command)>) {
        let rest = match result {
            Ok(Output::Collected { deleted, next }) => {
                self.counts.deleted += deleted;
                metrics::COLLECTED.inc_by(deleted);
                round.failures = 0;
                match next {
                    Some(next) => round.from = next,
                    None => {
                        self.counts.regions_done += 1;
                        next_region(&mut round);
                    }
                }
                took * REST
            }
            Err(error) if may_pass(&error) && round.failures < FAILURES_MAX => {
                round.failures += 1;
                PAUSE
            }
            Ok(_) | Err(_) => {
                self.counts.regions_left += 1;
                next_region(&mut round);
                took * REST
            }
        };
        if rest.is_zero() || round.regions.is_empty() {
            return self.submit(now, round);
        }
        let until = now + rest;
        (State::Rests { round, until }, None)
    }
}

fn next_region(round: &mut Round) {
    round.regions.pop_front();
    round.from = Bytes::new();
    round.failures = 0;
}

/// Whether trying again may help, other than with another region or elsewhere.
fn may_pass(error: &Error) -> bool {
    let Error::Region { source, .. } = error else {
        return matches!(error, Error::Engine(_));
    };
    match source {
        kv::Error::NotLeader { .. }
        | kv::Error::RegionNotFound { .. }
        | kv::Error::EpochNotMatch { .. }
        | kv::Error::KeyNotInRegion { .. }
        | kv::Error::StoreNotMatch { .. }
        | kv::Error::MismatchPeer { .. }
        | kv::Error::EntryTooLarge { .. }
        | kv::Error::Shutdown => false,
        kv::Error::StaleCommand
        | kv::Error::Busy { .. }
        | kv::Error::NotInitialized { .. }
        | kv::Error::ReadIndexNotReady { .. }
        | kv::Error::DataIsNotReady { .. }
        | kv::Error::Merging { .. }
        | kv::Error::DiskFull { .. }
        | kv::Error::Deadline => true,
    }
}

#[cfg(test)]
mod tests;
