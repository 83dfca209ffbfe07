//! [`Job`]: the part of a command that reads and decides, run outside of the scheduler.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::kv::{SnapshotRef, view};

use super::TaskId;
use crate::action::{self, Input, Outcome};
use crate::command::Command;
use crate::concurrency::Concurrency;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::lock::Lock;

/// An action with everything that it reads.
pub struct Job {
    pub task: TaskId,
    pub(super) command: Arc<Command>,
    pub(super) snapshot: SnapshotRef,
    pub(super) concurrency: Arc<Concurrency>,
    pub(super) memory: BTreeMap<Key, Lock>,
    pub(super) in_memory_pessimistic: bool,
}

/// A job of more keys, or of more bytes in them and their values, is long.
const KEYS_MAX: usize = 256;
const BYTES_MAX: u64 = 256 << 10;

impl Job {
    /// Whether it may take milliseconds rather than microseconds: it looks through a range, or has many keys.
    pub fn is_long(&self) -> bool {
        let mut keys = self.command.keys();
        keys.next().is_none() || keys.nth(KEYS_MAX - 1).is_some() || self.command.bytes() > BYTES_MAX
    }

    /// Pure but for the table of locks in memory, which a prewrite of an async commit enters.
    pub fn run(self) -> Ran {
        Ran {
            task: self.task,
            result: self.act(),
        }
    }

    fn act(&self) -> Result<Outcome> {
        let region = self.snapshot.region();
        // A key that the snapshot does not cover would read as absent.
        for key in self.command.keys() {
            view::check_key(region, key.encoded()).map_err(|source| Error::Region { proposed: false, source })?;
        }
        let input = Input {
            snapshot: &*self.snapshot,
            concurrency: &self.concurrency,
            memory: &self.memory,
            in_memory_pessimistic: self.in_memory_pessimistic,
        };
        action::run(&self.command, &input)
    }
}

/// What a job came to.
pub struct Ran {
    pub task: TaskId,
    pub(super) result: Result<Outcome>,
}
